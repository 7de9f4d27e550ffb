//! Cutting ranges from a body that is generated: what was not asked for is dropped as it comes by.

use std::ops::Range;

use super::{BodyFilter, FilterFailure, Progress, Signal};

/// One range, with the bytes that stand before it (a part's head), or the closing bytes alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Sent before the range.
    pub head: Box<[u8]>,
    /// Which bytes of the body; ranges of one list ascend and don't overlap.
    pub range: Range<u64>,
}

/// See the module's documentation.
pub struct CutRanges {
    parts: std::vec::IntoIter<Part>,
    present: Option<Part>,
    /// Bytes of the present head that are out.
    head_sent: usize,
    /// Bytes of the body that came by.
    position: u64,
}

impl CutRanges {
    /// Sends these parts one behind the other.
    pub fn new(parts: Box<[Part]>) -> CutRanges {
        debug_assert!(parts.windows(2).all(|pair| pair[0].range.end <= pair[1].range.start));
        let mut parts = parts.into_vec().into_iter();
        let present = parts.next();
        CutRanges { parts, present, head_sent: 0, position: 0 }
    }
}

impl BodyFilter for CutRanges {
    fn filter(
        &mut self,
        input: &mut &[u8],
        signal: Signal,
        out: &mut Vec<u8>,
        room: usize,
    ) -> Result<Progress, FilterFailure> {
        let end = out.len() + room;
        while let Some(part) = &self.present {
            if out.len() == end {
                return Ok(Progress::Full);
            }
            let head = &part.head[self.head_sent..];
            if !head.is_empty() {
                let count = head.len().min(end - out.len());
                out.extend_from_slice(&head[..count]);
                self.head_sent += count;
                continue;
            }
            if self.position >= part.range.end || part.range.is_empty() {
                self.present = self.parts.next();
                self.head_sent = 0;
                continue;
            }
            if input.is_empty() {
                return match signal {
                    Signal::Last => Err(FilterFailure("the body is shorter than was announced")),
                    _ => Ok(Progress::Starved),
                };
            }
            let is_before = self.position < part.range.start;
            let until = if is_before { part.range.start } else { part.range.end };
            let mut count = input.len().min(usize::try_from(until - self.position).unwrap_or(usize::MAX));
            if !is_before {
                count = count.min(end - out.len());
                out.extend_from_slice(&input[..count]);
            }
            *input = &input[count..];
            self.position += count as u64;
        }
        Ok(Progress::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::super::law::{Plan, run_by, run_whole};
    use super::*;
    use proptest::prelude::*;

    fn part(head: &str, range: Range<u64>) -> Part {
        Part { head: head.as_bytes().into(), range }
    }

    #[test]
    fn parts_come_with_their_heads() {
        let parts = [part("<", 2..4), part("|", 4..5), part("|", 8..10), part(">", 10..10)];
        let cut = || CutRanges::new(parts.clone().into());
        assert_eq!(run_whole(&mut cut(), b"0123456789"), b"<23|4|89>");
        let short = cut().filter(&mut &b"012345678"[..], Signal::Last, &mut Vec::new(), 100);
        assert!(short.is_err());
    }

    #[test]
    fn it_is_done_before_the_body_is() {
        let mut cut = CutRanges::new([part("", 1..3)].into());
        let (mut input, mut out) = (&b"0123456789"[..], Vec::new());
        assert_eq!(cut.filter(&mut input, Signal::More, &mut out, 100), Ok(Progress::Done));
        assert_eq!(out, b"12");
    }

    proptest! {
        #[test]
        fn every_split_gives_what_the_ranges_name(
            text in proptest::collection::vec(any::<u8>(), 1..300),
            cuts in proptest::collection::btree_set(0usize..300, 2..9),
            plan in Plan::any(),
        ) {
            let cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            let ranges = cuts.chunks_exact(2).map(|pair| pair[0]..pair[1]);
            let parts: Vec<Part> =
                ranges.clone().map(|range| part("head", range.start as u64..range.end as u64)).collect();
            let expected: Vec<u8> =
                ranges.flat_map(|range| [&b"head"[..], &text[range]].concat()).collect();
            let out = run_by(&mut CutRanges::new(parts.into()), &text, &plan);
            prop_assert_eq!(out, expected);
        }
    }
}
