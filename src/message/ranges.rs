//! The Range field (RFC 9110 section 14.2), read as nginx reads it.

use std::ops::Range;

/// What a Range field asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeRequest {
    /// Nothing that can be honoured: answer with the whole content.
    Whole,
    /// 416.
    Unsatisfiable,
    /// The ranges that were appended, at least one; answer 206.
    Ranges,
}

/// Reads the value of a Range field for content of `length` bytes and appends the satisfiable ranges, in order, to
/// `ranges`; none of them is empty.
///
/// Another unit than `bytes` is ignored. More than `max_ranges`, or ranges that together are longer than the content
/// (overlaps, made to have it sent many times over), give the whole. Bad syntax is unsatisfiable, not ignored: so nginx
/// has it.
pub fn parse_ranges(
    value: &[u8],
    length: u64,
    max_ranges: u32,
    ranges: &mut Vec<Range<u64>>,
) -> RangeRequest {
    let first = ranges.len();
    let outcome = match value.split_at_checked(6) {
        Some((unit, set)) if unit.eq_ignore_ascii_case(b"bytes=") && !set.is_empty() && max_ranges > 0 => {
            read_set(set, length, max_ranges, ranges)
        }
        _ => RangeRequest::Whole,
    };
    if outcome != RangeRequest::Ranges {
        ranges.truncate(first);
    }
    outcome
}

fn read_set(set: &[u8], length: u64, max_ranges: u32, ranges: &mut Vec<Range<u64>>) -> RangeRequest {
    let mut count = 0;
    let mut total: u64 = 0;
    for spec in set.split(|&byte| byte == b',') {
        let Some((start, end)) = read_spec(spec, length) else { return RangeRequest::Unsatisfiable };
        if start < end {
            if count == max_ranges {
                return RangeRequest::Whole;
            }
            count += 1;
            total = total.saturating_add(end - start);
            ranges.push(start..end);
        } else if start == 0 {
            return RangeRequest::Whole;
        }
    }
    match count {
        0 => RangeRequest::Unsatisfiable,
        _ if total > length => RangeRequest::Whole,
        _ => RangeRequest::Ranges,
    }
}

/// One `first-last`, `first-` or `-suffix`, as start and end (exclusive, within the content).
fn read_spec(spec: &[u8], length: u64) -> Option<(u64, u64)> {
    let (first, last) = spec.split_at(memchr::memchr(b'-', spec)?);
    let (first, last) = (trim(first), trim_end(&last[1..]));
    if first.is_empty() {
        // No space between the sign and the digits of a suffix.
        let suffix = number(last)?;
        return Some((length.saturating_sub(suffix), length));
    }
    let start = number(first)?;
    let last = trim(last);
    let end = if last.is_empty() { length } else { number(last)?.saturating_add(1).min(length) };
    Some((start, end))
}

/// Reads the value of a Content-Range field (RFC 9110 section 14.4) of a 206: the range, its end exclusive, and the
/// length of the whole if it is told; `None` if it is none, or empty. Spaces are allowed where nginx allows them.
pub fn parse_content_range(value: &[u8]) -> Option<(Range<u64>, Option<u64>)> {
    let rest = trim(value.strip_prefix(b"bytes ")?);
    let (range, total) = rest.split_at(memchr::memchr(b'/', rest)?);
    let (first, last) = range.split_at(memchr::memchr(b'-', range)?);
    let (first, last) = (number(trim_end(first))?, number(trim(&last[1..]))?);
    let total = match trim(&total[1..]) {
        b"*" => None,
        digits => Some(number(digits)?),
    };
    (first <= last).then_some((first..last + 1, total))
}

fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] = text {
        text = rest;
    }
    trim_end(text)
}

fn trim_end(mut text: &[u8]) -> &[u8] {
    while let [rest @ .., b' '] = text {
        text = rest;
    }
    text
}

/// Digits only, up to a signed 64-bit offset.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, digit| {
        let digit = (*digit as char).to_digit(10)?;
        value.checked_mul(10)?.checked_add(u64::from(digit)).filter(|value| *value <= i64::MAX as u64)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_content_range_has_its_end_behind_its_last_byte() {
        for (value, expected) in [
            ("bytes 0-9/25", Some((0..10, Some(25)))),
            ("bytes  3 - 12 / 25 ", Some((3..13, Some(25)))),
            ("bytes 0-0/*", Some((0..1, None))),
            ("bytes 5-3/9", None),
            ("bytes */25", None),
            ("bytes 0-9", None),
            ("bytes 0/9", None),
            ("bytes=0-9/25", None),
            ("octets 0-9/25", None),
            ("bytes 0-9223372036854775808/*", None),
            ("bytes 0-9/25x", None),
            ("bytes -9/25", None),
            ("", None),
        ] {
            assert_eq!(parse_content_range(value.as_bytes()), expected, "{value}");
        }
    }

    fn one(start: u64, end: u64) -> Result<Vec<Range<u64>>, RangeRequest> {
        Ok(std::iter::once(start..end).collect())
    }

    fn ranges(value: &str, length: u64) -> Result<Vec<Range<u64>>, RangeRequest> {
        let mut found = Vec::new();
        match parse_ranges(value.as_bytes(), length, 5, &mut found) {
            RangeRequest::Ranges => Ok(found),
            other => {
                assert!(found.is_empty());
                Err(other)
            }
        }
    }

    #[test]
    fn the_three_forms_are_read() {
        assert_eq!(ranges("bytes=0-9", 100), one(0, 10));
        assert_eq!(ranges("BYTES=90-", 100), one(90, 100));
        assert_eq!(ranges("bytes=-10", 100), one(90, 100));
        assert_eq!(ranges("bytes=-200", 100), one(0, 100));
        assert_eq!(ranges("bytes=50-1000", 100), one(50, 100));
        assert_eq!(ranges("bytes= 0 - 9 , 20-29 ,-1", 100), Ok(vec![0..10, 20..30, 99..100]));
        assert_eq!(ranges("bytes=100-200,0-0", 100), one(0, 1));
    }

    #[test]
    fn what_is_beyond_the_content_or_malformed_is_unsatisfiable() {
        let bad = [
            "bytes=100-",
            "bytes=-0",
            "bytes=a",
            "bytes=-",
            "bytes=1",
            "bytes=1-2x",
            "bytes=,1-2",
            "bytes=0-1,",
            "bytes=- 5",
            "bytes=1-2 3",
            "bytes=9223372036854775808-",
            "bytes=0x1-2",
            "bytes=+1-2",
            "bytes= ",
            "bytes=5-1",
        ];
        for value in bad {
            assert_eq!(ranges(value, 100), Err(RangeRequest::Unsatisfiable), "{value}");
        }
    }

    #[test]
    fn other_units_and_greedy_sets_give_the_whole() {
        for value in ["items=0-1", "bytes", "bytes=", "", "bytes:0-1", "bytes=0-99,0-0"] {
            assert_eq!(ranges(value, 100), Err(RangeRequest::Whole), "{value}");
        }
        assert_eq!(ranges("bytes=0-0,1-1,2-2,3-3,4-4", 100).map(|found| found.len()), Ok(5));
        assert_eq!(ranges("bytes=0-0,1-1,2-2,3-3,4-4,5-5", 100), Err(RangeRequest::Whole));
        assert_eq!(ranges("bytes=0-0", 0), Err(RangeRequest::Whole));
        assert_eq!(ranges("bytes=-5", 0), Err(RangeRequest::Whole));
        assert_eq!(ranges("bytes=1-", 0), Err(RangeRequest::Unsatisfiable));
        assert_eq!(parse_ranges(b"bytes=0-0", 100, 0, &mut Vec::new()), RangeRequest::Whole);
    }

    proptest! {
        #[test]
        fn ranges_lie_within_the_content(value in "(bytes=)?[-0-9, a]{0,30}", length in 0u64..200) {
            super::super::fuzz::fuzz_ranges(value.as_bytes(), length);
        }
    }
}
