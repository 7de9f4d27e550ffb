//! Body filters: machines that rewrite a response's body on its way from its source to the wire encoder.
//!
//! All have one verb, [`BodyFilter::filter`]: it takes what it can of the input, appends at most `room` bytes to the
//! output, and says what stopped it:
//!
//! - [`Progress::Starved`]: the input is used up (and, after [`Signal::Flush`], all that can be told of it has been told);
//! - [`Progress::Full`]: the room is used up; call again with the rest of the input and the same signal;
//! - [`Progress::Done`]: the body is finished. Input that is left then is of no use to anybody.
//!
//! The signal is about the end of the input that is given: [`Signal::Last`] means that nothing follows it, and must be
//! repeated until `Done`. For any split of the input and any sequence of rooms the output is the same (compressors may
//! choose other codes, but what they write decodes to the same); the law in `law.rs` holds that for all of them.
//!
//! A [`Chain`] is several filters one behind the other, with a bounded buffer between each two, and is a filter itself.
//! Header filters say on the exchange which filters are on ([`FilterSpec`]); the shell makes a chain of them.

mod brotli;
mod charset;
mod gunzip;
mod gzip;
#[cfg(test)]
pub mod law;
mod ranges;
mod substitute;
mod zstd;

use std::sync::Arc;

use smallvec::SmallVec;

pub use self::brotli::Brotli;
pub use self::charset::{ByCodePoint, Character, Recode, Recoding};
pub use self::gunzip::Gunzip;
pub use self::gzip::Gzip;
pub use self::ranges::{CutRanges, Part};
pub use self::substitute::{Substitute, Substitutions};
pub use self::zstd::Zstd;

/// What follows the input that a filter is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// More, soon.
    More,
    /// Nothing for a while: what is held back should go out as far as possible.
    Flush,
    /// Nothing.
    Last,
}

/// What stopped a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The input is used up.
    Starved,
    /// The room for output is used up.
    Full,
    /// The body is finished.
    Done,
}

/// A body that cannot be filtered: the response cannot be finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterFailure(pub &'static str);

/// See the module's documentation.
pub trait BodyFilter {
    /// Takes from the front of `input`, appends at most `room` (not 0) bytes to `out`.
    fn filter(
        &mut self,
        input: &mut &[u8],
        signal: Signal,
        out: &mut Vec<u8>,
        room: usize,
    ) -> Result<Progress, FilterFailure>;
}

/// A filter that is on for a response, as the header filters decided; enough to make the machine.
#[derive(Clone, Debug)]
pub enum FilterSpec {
    /// Cuts ranges from a body that is generated.
    Ranges(Box<[Part]>),
    /// Decodes gzip.
    Gunzip,
    /// Replaces strings.
    Substitute(Arc<Substitutions>),
    /// Changes the character set.
    Recode(Recoding),
    /// Subrequests have a part in the body from here on.
    Weave,
    /// Compresses.
    Compress(Compression),
}

/// The filters of one response, in the order in which the body passes them.
pub type FilterSpecs = SmallVec<[FilterSpec; 2]>;

/// A content coding that is made on the fly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// RFC 1952; the memory level is zlib's, 1 to 9.
    Gzip { memory_level: u8 },
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Compression {
    /// The coding.
    pub method: Method,
    /// How hard to try, in the coding's own measure.
    pub level: u8,
    /// The window's size as a power of two.
    pub window_bits: u8,
}

impl Compression {
    /// How many bytes of input one turn of a loop may take: about a millisecond or two of work.
    pub fn turn_bytes(self) -> usize {
        match (self.method, self.level) {
            (Method::Gzip { .. }, ..=4) | (Method::Zstd, ..=3) | (Method::Brotli, ..=2) => 128 * 1024,
            (Method::Gzip { .. }, _) | (Method::Zstd, ..=9) | (Method::Brotli, ..=6) => 64 * 1024,
            _ => 16 * 1024,
        }
    }

    /// The same with a window that is no larger than a body of `length` bytes needs.
    pub fn fitted(self, length: Option<u64>) -> Compression {
        let Some(length) = length else { return self };
        let mut fitted = self;
        let least = if self.method == Method::Zstd { 10 } else { 9 };
        // zlib keeps 262 bytes of a window for itself.
        while fitted.window_bits > least && length + 262 < 1 << (fitted.window_bits - 1) {
            fitted.window_bits -= 1;
            if let Method::Gzip { memory_level } = &mut fitted.method {
                *memory_level = (*memory_level - 1).max(1);
            }
        }
        fitted
    }

    fn machine(self, length: Option<u64>) -> Box<dyn BodyFilter> {
        let fitted = self.fitted(length);
        match fitted.method {
            Method::Gzip { memory_level } => {
                Box::new(Gzip::new(fitted.level, fitted.window_bits, memory_level))
            }
            Method::Brotli => Box::new(Brotli::new(fitted.level, fitted.window_bits)),
            Method::Zstd => Box::new(Zstd::new(fitted.level, fitted.window_bits, length)),
        }
    }
}

impl FilterSpec {
    /// How many bytes of input one turn of a loop may take.
    pub fn turn_bytes(&self) -> usize {
        match self {
            FilterSpec::Ranges(_) | FilterSpec::Recode(_) | FilterSpec::Substitute(_) | FilterSpec::Weave => {
                256 * 1024
            }
            FilterSpec::Gunzip => 64 * 1024,
            FilterSpec::Compress(compression) => compression.turn_bytes(),
        }
    }

    /// The length of what comes out of `length` bytes, where it is known beforehand.
    fn length_behind(&self, length: Option<u64>) -> Option<u64> {
        match self {
            FilterSpec::Recode(recoding) if recoding.keeps_length() => length,
            _ => None,
        }
    }
}

/// Bytes that wait between two filters of a chain.
const BETWEEN_BYTES: usize = 16 * 1024;

/// Several filters, one behind the other.
pub struct Chain {
    stages: Vec<Stage>,
    /// Input has come since the last flush.
    is_dirty: bool,
}

struct Stage {
    filter: Box<dyn BodyFilter>,
    /// What the stage before has left for this one (unused for the first).
    inbox: Vec<u8>,
    taken: usize,
    /// What the stage before said last.
    before: Progress,
}

impl Chain {
    /// A chain for a body of this length, where it is known.
    pub fn new(specs: &[FilterSpec], mut length: Option<u64>) -> Chain {
        let mut stages = Vec::with_capacity(specs.len());
        for spec in specs {
            let filter: Box<dyn BodyFilter> = match spec {
                FilterSpec::Ranges(parts) => Box::new(CutRanges::new(parts.clone())),
                FilterSpec::Gunzip => Box::new(Gunzip::new()),
                FilterSpec::Substitute(pairs) => Box::new(Substitute::new(pairs.clone())),
                FilterSpec::Recode(recoding) => Box::new(Recode::new(recoding.clone())),
                FilterSpec::Compress(compression) => compression.machine(length),
                // What it takes is the shell's.
                FilterSpec::Weave => continue,
            };
            length = spec.length_behind(length);
            stages.push(Stage { filter, inbox: Vec::new(), taken: 0, before: Progress::Starved });
        }
        Chain { stages, is_dirty: false }
    }

    /// A chain of machines that are there already.
    #[cfg(test)]
    fn of(filters: Vec<Box<dyn BodyFilter>>) -> Chain {
        let stage = |filter| Stage { filter, inbox: Vec::new(), taken: 0, before: Progress::Starved };
        Chain { stages: filters.into_iter().map(stage).collect(), is_dirty: false }
    }
}

impl BodyFilter for Chain {
    fn filter(
        &mut self,
        input: &mut &[u8],
        signal: Signal,
        out: &mut Vec<u8>,
        room: usize,
    ) -> Result<Progress, FilterFailure> {
        self.is_dirty |= !input.is_empty();
        if signal == Signal::Flush && !self.is_dirty {
            return Ok(Progress::Starved);
        }
        let progress = run(&mut self.stages, input, signal, out, room)?;
        if signal == Signal::Flush && progress == Progress::Starved {
            self.is_dirty = false;
        }
        Ok(progress)
    }
}

/// Runs the last of `stages` on what the others make of the input.
fn run(
    stages: &mut [Stage],
    input: &mut &[u8],
    signal: Signal,
    out: &mut Vec<u8>,
    room: usize,
) -> Result<Progress, FilterFailure> {
    let end = out.len() + room;
    let Some((last, before)) = stages.split_last_mut() else {
        let count = input.len().min(room);
        out.extend_from_slice(&input[..count]);
        *input = &input[count..];
        return Ok(match (input.is_empty(), signal) {
            (false, _) => Progress::Full,
            (true, Signal::Last) => Progress::Done,
            (true, _) => Progress::Starved,
        });
    };
    if before.is_empty() {
        return last.filter.filter(input, signal, out, room);
    }
    // What an earlier call has left in the inbox was made under that call's signal, and this one's is still to be told to
    // the stages before.
    let mut is_told = false;
    loop {
        if last.taken == last.inbox.len() && last.before != Progress::Done {
            last.inbox.clear();
            last.taken = 0;
            last.before = run(before, input, signal, &mut last.inbox, BETWEEN_BYTES)?;
            is_told = true;
        }
        let own_signal = match last.before {
            Progress::Done => Signal::Last,
            Progress::Full => Signal::More,
            Progress::Starved if !is_told => Signal::More,
            Progress::Starved => signal,
        };
        debug_assert!(last.before == Progress::Done || own_signal != Signal::Last);
        let mut rest = &last.inbox[last.taken..];
        let left = end - out.len();
        if left == 0 {
            return Ok(Progress::Full);
        }
        let progress = last.filter.filter(&mut rest, own_signal, out, left)?;
        last.taken = last.inbox.len() - rest.len();
        match progress {
            Progress::Starved if last.before == Progress::Full || !is_told => {}
            stopped => return Ok(stopped),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::law::{Plan, holds_for_every_split, run_whole};
    use super::*;
    use proptest::prelude::*;

    fn substitutions(pairs: &[(&str, &str)]) -> Arc<Substitutions> {
        let pairs = pairs.iter().map(|(from, to)| (from.as_bytes().to_vec(), to.as_bytes().to_vec()));
        Arc::new(Substitutions::new(pairs, false))
    }

    fn gzip() -> FilterSpec {
        let method = Method::Gzip { memory_level: 8 };
        FilterSpec::Compress(Compression { method, level: 1, window_bits: 15 })
    }

    #[test]
    fn a_chain_is_its_filters_one_behind_the_other() {
        let specs = [
            FilterSpec::Substitute(substitutions(&[("one", "two")])),
            FilterSpec::Substitute(substitutions(&[("two", "three")])),
        ];
        assert_eq!(run_whole(&mut Chain::new(&specs, None), b"one two one"), b"three three three");
        let round = [gzip(), FilterSpec::Gunzip];
        let text = b"again and ".repeat(20_000);
        assert_eq!(run_whole(&mut Chain::new(&round, None), &text), text);
        assert_eq!(run_whole(&mut Chain::new(&[], None), b"as it is"), b"as it is");
    }

    #[test]
    fn what_came_before_a_flush_is_out_behind_it_and_a_second_one_adds_nothing() {
        let specs = [FilterSpec::Substitute(substitutions(&[("xyz", "-")])), gzip()];
        let mut chain = Chain::new(&specs, None);
        let mut out = Vec::new();
        let mut input = &b"first half"[..];
        assert_eq!(chain.filter(&mut input, Signal::Flush, &mut out, 1000), Ok(Progress::Starved));
        let flushed = out.len();
        assert_eq!(chain.filter(&mut input, Signal::Flush, &mut out, 1000), Ok(Progress::Starved));
        assert_eq!(out.len(), flushed);
        let mut decoded = Vec::new();
        let mut written = &out[..];
        Gunzip::new().filter(&mut written, Signal::More, &mut decoded, 1000).unwrap();
        assert_eq!(decoded, b"first half");
    }

    /// The room can be used up by what earlier input has left behind, when the last of the input was taken long ago.
    #[test]
    fn the_end_is_not_told_before_what_is_still_between_two_filters() {
        let text = b"one two ".repeat(10_000);
        let specs = [
            FilterSpec::Substitute(substitutions(&[("one", "1")])),
            FilterSpec::Substitute(substitutions(&[("two", "2")])),
        ];
        for room in [1, 7, 1000, 100_000] {
            let mut chain = Chain::new(&specs, None);
            let (mut input, mut out) = (&text[..], Vec::new());
            while !input.is_empty() {
                chain.filter(&mut input, Signal::More, &mut out, room).unwrap();
            }
            let signals = [Signal::Flush, Signal::More, Signal::Last];
            let mut signals = signals.into_iter().chain(std::iter::repeat(Signal::Last));
            while chain.filter(&mut input, signals.next().unwrap(), &mut out, room).unwrap() != Progress::Done
            {
            }
            assert_eq!(out, b"1 2 ".repeat(10_000), "{room}");
        }
    }

    #[test]
    fn a_window_fits_the_body() {
        let full = Compression { method: Method::Gzip { memory_level: 8 }, level: 1, window_bits: 15 };
        assert_eq!(full.fitted(None), full);
        assert_eq!(full.fitted(Some(1 << 20)), full);
        let small = full.fitted(Some(1000));
        assert_eq!((small.window_bits, small.method), (11, Method::Gzip { memory_level: 4 }));
        assert_eq!(full.fitted(Some(0)).window_bits, 9);
    }

    proptest! {
        #[test]
        fn every_split_through_a_chain_gives_the_same(
            text in proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), any::<u8>()], 0..600),
            plan in Plan::any(),
        ) {
            holds_for_every_split(&text, &plan, || Chain::of(vec![
                Box::new(Substitute::new(substitutions(&[("ab", "<>"), ("ba", "")]))),
                Box::new(Substitute::new(substitutions(&[("<>", "longer than before")]))),
            ]));
        }
    }
}
