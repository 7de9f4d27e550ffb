//! Sizes, times, flags and numbers as nginx reads them, with the reason where it refuses one.
//!
//! Every value fits nginx's signed 64 bits: what it calls an overflow is one here.

use std::fmt;

/// The largest value that nginx holds in a size, an offset, a number or a time.
pub const MAX_VALUE: u64 = i64::MAX as u64;

/// Why a value was refused. nginx says "invalid value" for all of them; the reason becomes a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueError {
    /// No digit at all.
    NoNumber,
    /// A character that is neither a digit nor a unit allowed here.
    UnexpectedCharacter(u8),
    /// The value is larger than 2^63 - 1.
    TooLarge,
    /// A smaller unit before a larger one, or the same unit twice (`30m1h`).
    UnitOrder,
    /// Months and years where milliseconds are counted.
    UnitTooLong,
    /// Milliseconds where whole seconds are counted.
    UnitTooShort,
    /// Neither `on` nor `off`.
    NotAFlag,
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNumber => f.write_str("a number is expected"),
            Self::UnexpectedCharacter(byte) => write!(f, "\"{}\" is not expected here", byte.escape_ascii()),
            Self::TooLarge => f.write_str("the value is too large"),
            Self::UnitOrder => f.write_str("units go from the longest to the shortest, each once"),
            Self::UnitTooLong => {
                f.write_str("this time is kept in milliseconds and takes no months or years")
            }
            Self::UnitTooShort => f.write_str("this time is kept in whole seconds and takes no milliseconds"),
            Self::NotAFlag => f.write_str("it must be \"on\" or \"off\""),
        }
    }
}

impl std::error::Error for ValueError {}

/// The message of nginx's size, offset and time setters.
pub fn invalid_value(directive: &str) -> String {
    format!("\"{directive}\" directive invalid value")
}

/// The message of nginx's number setter.
pub fn invalid_number(directive: &str) -> String {
    format!("\"{directive}\" directive invalid number")
}

/// `on` or `off`, in any case.
pub fn parse_flag(text: &[u8]) -> Result<bool, ValueError> {
    if text.eq_ignore_ascii_case(b"on") {
        Ok(true)
    } else if text.eq_ignore_ascii_case(b"off") {
        Ok(false)
    } else {
        Err(ValueError::NotAFlag)
    }
}

/// A decimal number without a sign, up to [`MAX_VALUE`].
pub fn parse_number(text: &[u8]) -> Result<u64, ValueError> {
    if text.is_empty() {
        return Err(ValueError::NoNumber);
    }
    text.iter().try_fold(0, |value, &byte| match byte {
        b'0'..=b'9' => append_digit(value, byte),
        other => Err(ValueError::UnexpectedCharacter(other)),
    })
}

/// A size of memory, in bytes: a number with `k` or `m` (either case) behind it. nginx takes no `g` here.
pub fn parse_size(text: &[u8]) -> Result<u64, ValueError> {
    match text.last() {
        Some(b'k' | b'K') => scaled(text, 10),
        Some(b'm' | b'M') => scaled(text, 20),
        _ => parse_number(text),
    }
}

/// A size or place in a file, in bytes: as [`parse_size`], and `g`.
pub fn parse_offset(text: &[u8]) -> Result<u64, ValueError> {
    match text.last() {
        Some(b'g' | b'G') => scaled(text, 30),
        _ => parse_size(text),
    }
}

fn scaled(text: &[u8], shift: u32) -> Result<u64, ValueError> {
    let value = parse_number(&text[..text.len() - 1])?;
    if value > MAX_VALUE >> shift { Err(ValueError::TooLarge) } else { Ok(value << shift) }
}

/// A time in milliseconds: `ms s m h d w`, alone or summed from the longest to the shortest (`1h30m`, `1d 12h`); a
/// number without a unit is seconds. Months and years are refused, as in nginx.
pub fn parse_time_ms(text: &[u8]) -> Result<u64, ValueError> {
    parse_time(text, 1000)
}

/// A time in seconds: as [`parse_time_ms`], with `M` (30 days) and `y` (365 days), without `ms`.
pub fn parse_time_s(text: &[u8]) -> Result<u64, ValueError> {
    parse_time(text, 1)
}

/// Units in the order in which a sum must give them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    Start,
    Year,
    Month,
    Week,
    Day,
    Hour,
    Minute,
    Second,
    Millisecond,
}

const DAY: u64 = 24 * 60 * 60;

/// `per_second`: how many of the result's units make a second.
fn parse_time(text: &[u8], per_second: u64) -> Result<u64, ValueError> {
    let (mut total, mut value) = (0, 0);
    let mut any_digit = false;
    let mut last_unit = Unit::Start;
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte.is_ascii_digit() {
            value = append_digit(value, byte)?;
            any_digit = true;
            continue;
        }
        let (unit, scale) = match byte {
            b'y' => (Unit::Year, 365 * DAY * per_second),
            b'M' => (Unit::Month, 30 * DAY * per_second),
            b'w' => (Unit::Week, 7 * DAY * per_second),
            b'd' => (Unit::Day, DAY * per_second),
            b'h' => (Unit::Hour, 60 * 60 * per_second),
            b'm' if rest.first() == Some(&b's') => {
                rest = &rest[1..];
                (Unit::Millisecond, 1)
            }
            b'm' => (Unit::Minute, 60 * per_second),
            // A number that ends with a space is seconds too; spaces behind a unit are skipped below.
            b's' | b' ' => (Unit::Second, per_second),
            other => return Err(ValueError::UnexpectedCharacter(other)),
        };
        check_unit(unit, last_unit, per_second)?;
        last_unit = unit;
        total = add_scaled(total, value, scale)?;
        value = 0;
        rest = rest.trim_ascii_start_spaces();
    }
    if !any_digit {
        return Err(ValueError::NoNumber);
    }
    // A number at the end without a unit is seconds whatever came before it: nginx checks no order here.
    add_scaled(total, value, per_second)
}

fn check_unit(unit: Unit, last: Unit, per_second: u64) -> Result<(), ValueError> {
    let in_seconds = per_second == 1;
    if in_seconds && unit == Unit::Millisecond {
        return Err(ValueError::UnitTooShort);
    }
    if !in_seconds && matches!(unit, Unit::Year | Unit::Month) {
        return Err(ValueError::UnitTooLong);
    }
    if unit <= last { Err(ValueError::UnitOrder) } else { Ok(()) }
}

fn append_digit(value: u64, digit: u8) -> Result<u64, ValueError> {
    add_scaled(u64::from(digit - b'0'), value, 10)
}

fn add_scaled(total: u64, value: u64, scale: u64) -> Result<u64, ValueError> {
    value
        .checked_mul(scale)
        .and_then(|scaled| scaled.checked_add(total))
        .filter(|&sum| sum <= MAX_VALUE)
        .ok_or(ValueError::TooLarge)
}

/// Spaces alone: a tab or a line end in a time is an error in nginx.
trait SkipSpaces {
    fn trim_ascii_start_spaces(&self) -> &Self;
}

impl SkipSpaces for [u8] {
    fn trim_ascii_start_spaces(&self) -> &Self {
        let spaces = self.iter().take_while(|&&byte| byte == b' ').count();
        &self[spaces..]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(text: &str) -> Option<u64> {
        parse_time_ms(text.as_bytes()).ok()
    }

    fn s(text: &str) -> Option<u64> {
        parse_time_s(text.as_bytes()).ok()
    }

    // The cases below were answered by nginx 1.22 in `-t`.

    #[test]
    fn sizes_take_k_and_m_but_no_g() {
        assert_eq!(parse_size(b"0"), Ok(0));
        assert_eq!(parse_size(b"007"), Ok(7));
        assert_eq!(parse_size(b"1k"), Ok(1024));
        assert_eq!(parse_size(b"8M"), Ok(8 << 20));
        for refused in ["1g", "k", "", "-1", "1kk", "1.5m", "1t", " 1", "1 "] {
            assert!(parse_size(refused.as_bytes()).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn sizes_up_to_nginx_limit_are_taken() {
        assert_eq!(parse_size(b"9223372036854775807"), Ok(MAX_VALUE));
        assert_eq!(parse_size(b"9223372036854775808"), Err(ValueError::TooLarge));
        assert!(parse_size(b"9007199254740991k").is_ok());
        assert_eq!(parse_size(b"9007199254740992k"), Err(ValueError::TooLarge));
        assert!(parse_size(b"8796093022207m").is_ok());
        assert_eq!(parse_size(b"8796093022208m"), Err(ValueError::TooLarge));
        assert!(parse_offset(b"8589934591g").is_ok());
        assert_eq!(parse_offset(b"8589934592g"), Err(ValueError::TooLarge));
    }

    #[test]
    fn offsets_take_g() {
        assert_eq!(parse_offset(b"1G"), Ok(1 << 30));
        assert_eq!(parse_offset(b"1k"), Ok(1024));
        assert_eq!(parse_offset(b"g"), Err(ValueError::NoNumber));
    }

    #[test]
    fn flags_are_on_and_off_in_any_case() {
        assert_eq!(parse_flag(b"oN"), Ok(true));
        assert_eq!(parse_flag(b"OFF"), Ok(false));
        for refused in ["true", "1", ""] {
            assert_eq!(parse_flag(refused.as_bytes()), Err(ValueError::NotAFlag));
        }
    }

    #[test]
    fn a_bare_number_is_seconds() {
        assert_eq!(ms("1"), Some(1000));
        assert_eq!(s("1"), Some(1));
        assert_eq!(ms("1 "), Some(1000));
        assert_eq!(ms(" 1"), Some(1000));
    }

    #[test]
    fn units_sum_from_the_longest_to_the_shortest() {
        assert_eq!(ms("1h30m"), Some(5_400_000));
        assert_eq!(ms("1h  30m"), Some(5_400_000));
        assert_eq!(ms("1m1ms"), Some(60_001));
        assert_eq!(s("1y1M1w1d1h1m1s"), Some((365 + 30 + 7 + 1) * DAY + 3661));
        assert_eq!(parse_time_ms(b"30m1h"), Err(ValueError::UnitOrder));
        assert_eq!(parse_time_ms(b"1h1h"), Err(ValueError::UnitOrder));
        assert_eq!(parse_time_s(b"1M1y"), Err(ValueError::UnitOrder));
        assert_eq!(parse_time_ms(b"1ms1s"), Err(ValueError::UnitOrder));
    }

    #[test]
    fn numbers_without_a_unit_between_others_follow_nginx() {
        assert_eq!(ms("1s5"), Some(6000));
        assert_eq!(ms("1ms5"), Some(5001));
        assert_eq!(ms("5 5"), Some(10_000));
        assert_eq!(ms("1h5 6"), Some(3_611_000));
        for refused in
            ["1 h", "5 1s", "1s5 ", "1ms5 ", "5  5 ", "1h 5 s", "1d 5 6h", " ", "", "s", "-1", "1.5s"]
        {
            assert_eq!(ms(refused), None, "{refused:?}");
        }
    }

    #[test]
    fn each_time_has_its_own_units() {
        assert_eq!(parse_time_ms(b"1M"), Err(ValueError::UnitTooLong));
        assert_eq!(parse_time_ms(b"1y"), Err(ValueError::UnitTooLong));
        assert_eq!(parse_time_s(b"1ms"), Err(ValueError::UnitTooShort));
        for refused in ["1S", "1H", "1x", "1mm", "1msec", "1Y"] {
            assert_eq!(ms(refused), None, "{refused:?}");
        }
    }

    #[test]
    fn times_up_to_nginx_limit_are_taken() {
        assert_eq!(ms("9223372036854775807ms"), Some(MAX_VALUE));
        assert!(ms("9223372036854775s").is_some());
        assert_eq!(ms("9223372036854776s"), None);
        assert!(ms("9223372036854775s 807ms").is_some());
        assert_eq!(ms("9223372036854775s 808ms"), None);
        assert_eq!(ms("9223372036854775s 1"), None);
        assert!(s("292471208677y").is_some());
        assert_eq!(s("292471208678y"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_value_past_the_limit(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            for value in [parse_number(&text), parse_offset(&text), parse_time_ms(&text), parse_time_s(&text)] {
                prop_assert!(value.is_err() || value.unwrap() <= MAX_VALUE);
            }
        }

        #[test]
        fn a_sum_is_the_sum_of_its_parts(h in 0u64..100, m in 0u64..1000, s in 0u64..1000) {
            let text = format!("{h}h{m}m {s}s");
            prop_assert_eq!(parse_time_ms(text.as_bytes()), Ok((h * 3600 + m * 60 + s) * 1000));
        }
    }
}
