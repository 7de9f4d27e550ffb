//! Brotli (RFC 7932).

use brotli::enc::StandardAlloc;
use brotli::enc::encode::{BrotliEncoderOperation, BrotliEncoderParameter, BrotliEncoderStateStruct};

use super::{BodyFilter, FilterFailure, Progress, Signal};

/// Input is gathered in blocks of at most 2^16 bytes, so that no call works for long.
const BLOCK_BITS: u32 = 16;

/// See the module's documentation.
pub struct Brotli {
    encoder: Box<BrotliEncoderStateStruct<StandardAlloc>>,
}

impl Brotli {
    /// A compressor of `quality` 0 to 11 with a window of 2^`window_bits` (10 to 24).
    pub fn new(quality: u8, window_bits: u8) -> Brotli {
        let mut encoder = Box::new(BrotliEncoderStateStruct::new(StandardAlloc::default()));
        let settings = [
            (BrotliEncoderParameter::BROTLI_PARAM_QUALITY, u32::from(quality.min(11))),
            (BrotliEncoderParameter::BROTLI_PARAM_LGWIN, u32::from(window_bits.clamp(10, 24))),
            (BrotliEncoderParameter::BROTLI_PARAM_LGBLOCK, BLOCK_BITS),
        ];
        for (parameter, value) in settings {
            let is_set = encoder.set_parameter(parameter, value);
            debug_assert!(is_set);
        }
        Brotli { encoder }
    }
}

impl BodyFilter for Brotli {
    fn filter(
        &mut self,
        input: &mut &[u8],
        signal: Signal,
        out: &mut Vec<u8>,
        room: usize,
    ) -> Result<Progress, FilterFailure> {
        let operation = match signal {
            Signal::More => BrotliEncoderOperation::BROTLI_OPERATION_PROCESS,
            Signal::Flush => BrotliEncoderOperation::BROTLI_OPERATION_FLUSH,
            Signal::Last => BrotliEncoderOperation::BROTLI_OPERATION_FINISH,
        };
        let start = out.len();
        out.resize(start + room, 0);
        let (mut left, mut taken, mut free, mut written) = (input.len(), 0, room, 0);
        let went = self.encoder.compress_stream(
            operation,
            &mut left,
            input,
            &mut taken,
            &mut free,
            &mut out[start..],
            &mut written,
            &mut None,
            &mut |_, _, _, _| (),
        );
        out.truncate(start + written);
        *input = &input[taken..];
        match went {
            false => Err(FilterFailure("brotli failed")),
            true if self.encoder.is_finished() => Ok(Progress::Done),
            true if written == room => Ok(Progress::Full),
            true if input.is_empty() && signal != Signal::Last => Ok(Progress::Starved),
            true => Err(FilterFailure("brotli stopped")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::law::{Plan, run_by, run_whole};
    use super::*;
    use proptest::prelude::*;

    fn decoded(packed: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        brotli::BrotliDecompress(&mut &packed[..], &mut text).expect("a whole stream");
        text
    }

    #[test]
    fn text_becomes_small_and_comes_back() {
        let text = b"the same words again and again, ".repeat(1000);
        for quality in 0..=11 {
            let packed = run_whole(&mut Brotli::new(quality, 19), &text);
            assert!(packed.len() < text.len() / 20, "quality {quality}: {}", packed.len());
            assert_eq!(decoded(&packed), text);
        }
        assert_eq!(decoded(&run_whole(&mut Brotli::new(6, 19), b"")), b"");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn every_split_decodes_to_the_input(
            text in proptest::collection::vec(prop_oneof![Just(b'a'), any::<u8>()], 0..3000),
            plan in Plan::any(),
            quality in 0u8..=9,
            window in 10u8..=18,
        ) {
            let packed = run_by(&mut Brotli::new(quality, window), &text, &plan);
            prop_assert_eq!(decoded(&packed), text);
        }
    }
}
