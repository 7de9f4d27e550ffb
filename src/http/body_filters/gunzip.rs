//! Decoding gzip (RFC 1952): all members, one behind the other.

use zlib_rs::{Inflate, InflateFlush, Status};

use super::{BodyFilter, FilterFailure, Progress, Signal};

/// zlib's number for a window of up to 32 KiB in a gzip frame.
const GZIP_WINDOW_BITS: u8 = 31;

/// See the module's documentation.
pub struct Gunzip {
    inflate: Inflate,
    /// A member has ended, and no further byte has come.
    is_between_members: bool,
}

impl Gunzip {
    /// A decoder at the beginning of a body.
    #[expect(clippy::new_without_default, reason = "it allocates")]
    pub fn new() -> Gunzip {
        Gunzip { inflate: Inflate::new(true, GZIP_WINDOW_BITS), is_between_members: false }
    }
}

impl BodyFilter for Gunzip {
    fn filter(
        &mut self,
        input: &mut &[u8],
        signal: Signal,
        out: &mut Vec<u8>,
        room: usize,
    ) -> Result<Progress, FilterFailure> {
        let end = out.len() + room;
        loop {
            if self.is_between_members {
                match (input.is_empty(), signal) {
                    (true, Signal::Last) => return Ok(Progress::Done),
                    (true, _) => return Ok(Progress::Starved),
                    (false, _) => *self = Gunzip::new(),
                }
            }
            let start = out.len();
            if start == end {
                return Ok(Progress::Full);
            }
            out.resize(end, 0);
            let (consumed, produced) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress(input, &mut out[start..], InflateFlush::NoFlush);
            out.truncate(start + (self.inflate.total_out() - produced) as usize);
            *input = &input[(self.inflate.total_in() - consumed) as usize..];
            match status {
                Ok(Status::StreamEnd) => self.is_between_members = true,
                Ok(_) if out.len() == end => return Ok(Progress::Full),
                Ok(_) if input.is_empty() && signal != Signal::Last => return Ok(Progress::Starved),
                Ok(_) => return Err(FilterFailure("inflate() returned 0 on response end")),
                Err(_) => return Err(FilterFailure("inflate() failed")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Gzip;
    use super::super::law::{Plan, holds_for_every_split, run_whole};
    use super::*;
    use proptest::prelude::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        run_whole(&mut Gzip::new(6, 15, 8), text)
    }

    #[test]
    fn members_behind_each_other_are_one_body() {
        let two = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(run_whole(&mut Gunzip::new(), &two), b"one two");
    }

    #[test]
    fn what_is_cut_or_is_no_gzip_fails() {
        let whole = gzip(b"text that is cut");
        for bad in [&whole[..whole.len() - 1], &whole[..5], b"plain text that is long enough", b""] {
            let mut out = Vec::new();
            let result = Gunzip::new().filter(&mut { bad }, Signal::Last, &mut out, 1000);
            assert!(result.is_err(), "{bad:?}");
        }
        let mut broken = whole.clone();
        let checksum = broken.len() - 8;
        broken[checksum] ^= 1;
        assert!(Gunzip::new().filter(&mut &broken[..], Signal::Last, &mut Vec::new(), 1000).is_err());
    }

    proptest! {
        #[test]
        fn every_split_gives_the_same(
            text in proptest::collection::vec(any::<u8>(), 0..2000),
            plan in Plan::any(),
        ) {
            holds_for_every_split(&[gzip(&text), gzip(b"more")].concat(), &plan, Gunzip::new);
        }

        #[test]
        fn no_input_makes_it_panic_or_loop(junk in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut body = gzip(b"some text at first");
            body.truncate(12);
            body.extend(junk);
            let mut input = &body[..];
            let mut gunzip = Gunzip::new();
            for _ in 0..100_000 {
                if !matches!(gunzip.filter(&mut input, Signal::Last, &mut Vec::new(), 64), Ok(Progress::Full)) {
                    break;
                }
            }
        }
    }
}
