//! Zstandard (RFC 8878), with the window that browsers take (RFC 9659).

use zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer};

use super::{BodyFilter, FilterFailure, Progress, Signal};

/// The largest window that a browser must take is 2^23 bytes (RFC 9659 section 3).
pub const LARGEST_WINDOW_BITS: u8 = 23;

/// See the module's documentation.
pub struct Zstd {
    context: CCtx<'static>,
    /// Every parameter was taken.
    is_sound: bool,
}

impl Zstd {
    /// A compressor at `level` 1 to 19 with a window of at most 2^`window_bits` (10 to 23), for a body of `length`
    /// bytes where that is known.
    pub fn new(level: u8, window_bits: u8, length: Option<u64>) -> Zstd {
        let mut context = CCtx::create();
        let window_bits = window_bits.clamp(10, LARGEST_WINDOW_BITS);
        let is_sound = context.set_parameter(CParameter::CompressionLevel(i32::from(level))).is_ok()
            && context.set_parameter(CParameter::WindowLog(u32::from(window_bits))).is_ok()
            && context.set_pledged_src_size(length).is_ok();
        Zstd { context, is_sound }
    }
}

impl BodyFilter for Zstd {
    fn filter(
        &mut self,
        input: &mut &[u8],
        signal: Signal,
        out: &mut Vec<u8>,
        room: usize,
    ) -> Result<Progress, FilterFailure> {
        if !self.is_sound {
            return Err(FilterFailure("zstd failed"));
        }
        let directive = match signal {
            Signal::More => ZSTD_EndDirective::ZSTD_e_continue,
            Signal::Flush => ZSTD_EndDirective::ZSTD_e_flush,
            Signal::Last => ZSTD_EndDirective::ZSTD_e_end,
        };
        let start = out.len();
        out.resize(start + room, 0);
        let mut source = InBuffer::around(input);
        let mut target = OutBuffer::around(&mut out[start..]);
        let mut hint = Ok(1);
        // It may stop between two blocks with room left.
        while hint.is_ok() && target.pos() < room {
            let (taken, written) = (source.pos(), target.pos());
            hint = self.context.compress_stream2(&mut target, &mut source, directive);
            let is_whole = source.pos() == input.len();
            let stands_still = source.pos() == taken && target.pos() == written;
            if is_whole && (hint == Ok(0) || signal == Signal::More) || stands_still {
                break;
            }
        }
        let (taken, written) = (source.pos(), target.pos());
        out.truncate(start + written);
        *input = &input[taken..];
        match (hint, signal) {
            (Err(_), _) => Err(FilterFailure("zstd failed")),
            (Ok(0), Signal::Last) if input.is_empty() => Ok(Progress::Done),
            _ if written == room => Ok(Progress::Full),
            (_, Signal::More | Signal::Flush) if input.is_empty() => Ok(Progress::Starved),
            _ => Err(FilterFailure("zstd stopped")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::law::{Plan, run_by, run_whole};
    use super::*;
    use proptest::prelude::*;

    fn decoded(packed: &[u8], length: usize) -> Vec<u8> {
        let mut text = Vec::with_capacity(length);
        zstd_safe::DCtx::create().decompress(&mut text, packed).expect("a whole frame");
        text
    }

    #[test]
    fn text_becomes_small_and_comes_back() {
        let text = b"the same words again and again, ".repeat(1000);
        for level in [1, 3, 9, 19] {
            let packed = run_whole(&mut Zstd::new(level, 23, None), &text);
            assert!(packed.len() < text.len() / 20, "level {level}: {}", packed.len());
            assert_eq!(decoded(&packed, text.len()), text);
        }
        assert_eq!(decoded(&run_whole(&mut Zstd::new(3, 20, Some(0)), b""), 0), b"");
    }

    #[test]
    fn a_body_that_is_not_as_long_as_was_said_fails() {
        let mut zstd = Zstd::new(3, 20, Some(10));
        assert!(zstd.filter(&mut &b"sho"[..], Signal::More, &mut Vec::new(), 1000).is_ok());
        assert!(zstd.filter(&mut &b"rt"[..], Signal::Last, &mut Vec::new(), 1000).is_err());
    }

    proptest! {
        #[test]
        fn every_split_decodes_to_the_input(
            text in proptest::collection::vec(prop_oneof![Just(b'a'), any::<u8>()], 0..3000),
            plan in Plan::any(),
            level in 1u8..=12,
            knows_length in any::<bool>(),
        ) {
            let length = knows_length.then_some(text.len() as u64);
            let packed = run_by(&mut Zstd::new(level, 20, length), &text, &plan);
            prop_assert_eq!(decoded(&packed, text.len()), text);
        }
    }
}
