//! gzip (RFC 1952) by zlib-rs.

use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Status};

use super::{BodyFilter, FilterFailure, Progress, Signal};

/// zlib's number for "in a gzip frame".
const GZIP_FRAME: i32 = 16;

/// See the module's documentation.
pub struct Gzip {
    deflate: Deflate,
    /// Output for which there was too little room, and how much of it is out.
    pending: Vec<u8>,
    sent: usize,
    /// All output is made.
    is_done: bool,
}

/// With less room than seven bytes zlib repeats the marker of a flush for ever.
const LEAST_ROOM: usize = 32;

impl Gzip {
    /// A compressor at `level` 1 to 9 with a window of 2^`window_bits` (9 to 15) and zlib's memory level (1 to 9).
    pub fn new(level: u8, window_bits: u8, memory_level: u8) -> Gzip {
        let config = DeflateConfig {
            level: i32::from(level.clamp(1, 9)),
            window_bits: GZIP_FRAME + i32::from(window_bits.clamp(9, 15)),
            mem_level: i32::from(memory_level.clamp(1, 9)),
            ..DeflateConfig::default()
        };
        Gzip { deflate: Deflate::new_with_config(config), pending: Vec::new(), sent: 0, is_done: false }
    }
}

impl Gzip {
    fn send_pending(&mut self, out: &mut Vec<u8>, room: usize) {
        let rest = &self.pending[self.sent..];
        let count = rest.len().min(room);
        out.extend_from_slice(&rest[..count]);
        self.sent += count;
        if self.sent == self.pending.len() {
            self.pending.clear();
            self.sent = 0;
        }
    }

    /// The same as [`BodyFilter::filter`] with enough room.
    fn compress(
        &mut self,
        input: &mut &[u8],
        signal: Signal,
        out: &mut Vec<u8>,
        room: usize,
    ) -> Result<Progress, FilterFailure> {
        let flush = match signal {
            Signal::More => DeflateFlush::NoFlush,
            Signal::Flush => DeflateFlush::SyncFlush,
            Signal::Last => DeflateFlush::Finish,
        };
        let start = out.len();
        out.resize(start + room, 0);
        let (consumed, produced) = (self.deflate.total_in(), self.deflate.total_out());
        let status = self.deflate.compress(input, &mut out[start..], flush);
        out.truncate(start + (self.deflate.total_out() - produced) as usize);
        *input = &input[(self.deflate.total_in() - consumed) as usize..];
        match status {
            Ok(Status::StreamEnd) => Ok(Progress::Done),
            // Neither room nor input used up would mean that zlib stopped for no reason.
            Ok(_) if out.len() - start == room => Ok(Progress::Full),
            Ok(_) if input.is_empty() && signal != Signal::Last => Ok(Progress::Starved),
            Ok(_) | Err(_) => Err(FilterFailure("deflate() failed")),
        }
    }
}

impl BodyFilter for Gzip {
    fn filter(
        &mut self,
        input: &mut &[u8],
        signal: Signal,
        out: &mut Vec<u8>,
        room: usize,
    ) -> Result<Progress, FilterFailure> {
        let end = out.len() + room;
        loop {
            self.send_pending(out, end - out.len());
            let room = end - out.len();
            if self.is_done && self.pending.is_empty() {
                return Ok(Progress::Done);
            }
            if room == 0 {
                return Ok(Progress::Full);
            }
            if signal == Signal::More && input.is_empty() {
                return Ok(Progress::Starved);
            }
            if room >= LEAST_ROOM {
                return self.compress(input, signal, out, room);
            }
            let mut pending = std::mem::take(&mut self.pending);
            let stopped = self.compress(input, signal, &mut pending, LEAST_ROOM)?;
            self.pending = pending;
            match stopped {
                Progress::Done => self.is_done = true,
                Progress::Starved if self.pending.is_empty() => return Ok(Progress::Starved),
                Progress::Starved | Progress::Full => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Gunzip;
    use super::super::law::{Plan, run_by, run_whole};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_becomes_small_and_comes_back() {
        let text = b"the same words again and again, ".repeat(1000);
        for level in 1..=9 {
            let packed = run_whole(&mut Gzip::new(level, 15, 8), &text);
            assert_eq!(packed[..3], [0x1f, 0x8b, 8]);
            assert!(packed.len() < text.len() / 20, "level {level}: {}", packed.len());
            assert_eq!(run_whole(&mut Gunzip::new(), &packed), text);
        }
        assert_eq!(run_whole(&mut Gunzip::new(), &run_whole(&mut Gzip::new(1, 15, 8), b"")), b"");
    }

    proptest! {
        #[test]
        fn every_split_decodes_to_the_input(
            text in proptest::collection::vec(prop_oneof![Just(b'a'), any::<u8>()], 0..3000),
            plan in Plan::any(),
            level in 1u8..=9,
            window in 9u8..=15,
        ) {
            let packed = run_by(&mut Gzip::new(level, window, 8), &text, &plan);
            prop_assert_eq!(run_whole(&mut Gunzip::new(), &packed), text);
        }
    }
}
