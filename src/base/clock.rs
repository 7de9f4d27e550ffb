//! The time as the loop sees it, and its texts, rendered once a second.
//!
//! Nothing here asks a clock: the shell reads the clocks once per loop turn and hands a [`Now`] down.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::base::ascii::write_two;

/// One reading of the clocks, shared by everything that happens in one turn of the loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of the monotonic clock: for deadlines and durations.
    pub monotonic_ms: u64,
    /// Whole seconds since 1970-01-01 00:00:00 UTC: for dates.
    pub wall_secs: i64,
    /// Milliseconds within that second: 0 to 999.
    pub wall_ms_part: u16,
}

/// Length of an IMF-fixdate (RFC 9110, 5.6.7).
pub const HTTP_DATE_LEN: usize = 29;

/// 9999-12-31 23:59:59 UTC, the last second that has an HTTP date; later ones are rendered as this one.
const LAST_HTTP_DATE: i64 = 253_402_300_799;

const DAY_NAMES: [&[u8; 3]; 7] = [b"Sun", b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat"];
const MONTH_NAMES: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// A second broken down into its calendar fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    pub year: u32,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
    /// 0 is Sunday.
    pub weekday: u32,
}

impl Civil {
    /// The fields of `secs` since 1970 (add the offset first for local time), held within the years 1970 to 9999.
    pub fn from_secs(secs: i64) -> Civil {
        let secs = secs.clamp(0, LAST_HTTP_DATE);
        let (days, of_day) = (secs / 86_400, (secs % 86_400) as u32);
        // Days since 0000-03-01: with years that begin in March, the leap day is the last of its year.
        let shifted = days + 719_468;
        let (era, of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * of_year + 2) / 153;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        Civil {
            year: (year_of_era + era * 400 + i64::from(month <= 2)) as u32,
            month: month as u32,
            day: (of_year - (153 * march_month + 2) / 5 + 1) as u32,
            hour: of_day / 3600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
            weekday: ((days + 4) % 7) as u32,
        }
    }

    /// Seconds since 1970 of these fields as UTC; the weekday is not looked at.
    pub fn to_secs(self) -> i64 {
        let year = i64::from(self.year) - i64::from(self.month <= 2);
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let march_month = i64::from((self.month + 9) % 12);
        let of_year = (153 * march_month + 2) / 5 + i64::from(self.day) - 1;
        let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
        let days = era * 146_097 + of_era - 719_468;
        days * 86_400 + i64::from(self.hour * 3600 + self.minute * 60 + self.second)
    }

    /// Three-letter name of the month, as HTTP and logs write it.
    pub fn month_name(self) -> &'static [u8; 3] {
        MONTH_NAMES[(self.month as usize + 11) % 12]
    }

    /// Three-letter name of the day, as HTTP writes it.
    pub fn day_name(self) -> &'static [u8; 3] {
        DAY_NAMES[self.weekday as usize % 7]
    }
}

/// The IMF-fixdate of `secs` since 1970: `Sat, 21 Nov 2026 02:26:00 GMT`. Held within the years 1970 to 9999.
pub fn format_http_date(secs: i64) -> [u8; HTTP_DATE_LEN] {
    let civil = Civil::from_secs(secs);
    let mut out = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    out[..3].copy_from_slice(civil.day_name());
    write_two(&mut out[5..], civil.day);
    out[8..11].copy_from_slice(civil.month_name());
    write_two(&mut out[12..], civil.year / 100);
    write_two(&mut out[14..], civil.year);
    write_time(&mut out[17..], civil);
    out
}

fn write_time(out: &mut [u8], civil: Civil) {
    write_two(out, civil.hour);
    write_two(&mut out[3..], civil.minute);
    write_two(&mut out[6..], civil.second);
}

/// Reads an HTTP date in any of its three forms (RFC 9110, 5.6.7) to seconds since 1970, as leniently as nginx: the
/// name of the day is not looked at, the zone neither, and text behind the date is ignored (`; length=...` of old
/// browsers). Two-digit years below 70 are of this century. `None` if it is no date.
pub fn parse_http_date(text: &[u8]) -> Option<i64> {
    let name_end = text.iter().position(|byte| matches!(byte, b',' | b' '))?;
    let is_asctime = text[name_end] == b' ';
    let rest = text[name_end + 1..].trim_ascii_start();
    let civil = if is_asctime { parse_asctime(rest)? } else { parse_day_first(rest)? };
    let is_leap =
        civil.year.is_multiple_of(4) && (!civil.year.is_multiple_of(100) || civil.year.is_multiple_of(400));
    let month_days = match civil.month {
        2 => 28 + u32::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let is_valid = (1..=month_days).contains(&civil.day)
        && civil.hour < 24
        && civil.minute < 60
        && civil.second < 60
        && civil.year >= 1970;
    is_valid.then(|| civil.to_secs())
}

/// `06 Nov 1994 08:49:37 GMT` (RFC 822) or `06-Nov-94 08:49:37 GMT` (RFC 850).
fn parse_day_first(text: &[u8]) -> Option<Civil> {
    let day = number(text.get(..2)?)?;
    let separator = *text.get(2)?;
    let month = month_number(text.get(3..6)?)?;
    if *text.get(6)? != separator {
        return None;
    }
    let (year, rest) = match separator {
        b' ' => (number(text.get(7..11)?)?, text.get(11..)?),
        b'-' => {
            let year = number(text.get(7..9)?)?;
            (year + if year < 70 { 2000 } else { 1900 }, text.get(9..)?)
        }
        _ => return None,
    };
    let time = rest.strip_prefix(b" ")?;
    parse_time(Civil { year, month, day, hour: 0, minute: 0, second: 0, weekday: 0 }, time)
}

/// `Nov  6 08:49:37 1994`, the form of C's `asctime`.
fn parse_asctime(text: &[u8]) -> Option<Civil> {
    let month = month_number(text.get(..3)?)?;
    let rest = text.get(3..)?.strip_prefix(b" ")?;
    let rest = rest.strip_prefix(b" ").unwrap_or(rest);
    let digits = rest.iter().take(2).take_while(|byte| byte.is_ascii_digit()).count();
    let day = number(&rest[..digits])?;
    let time = rest[digits..].strip_prefix(b" ")?;
    let year = number(time.get(8..)?.strip_prefix(b" ")?.get(..4)?)?;
    parse_time(Civil { year, month, day, hour: 0, minute: 0, second: 0, weekday: 0 }, time)
}

/// Adds `HH:MM:SS` at the start of `text` to a date.
fn parse_time(date: Civil, text: &[u8]) -> Option<Civil> {
    let [_, _, b':', _, _, b':', _, _, ..] = text else { return None };
    Some(Civil {
        hour: number(&text[..2])?,
        minute: number(&text[3..5])?,
        second: number(&text[6..8])?,
        ..date
    })
}

fn number(digits: &[u8]) -> Option<u32> {
    crate::base::ascii::parse_u64(digits).and_then(|number| u32::try_from(number).ok())
}

fn month_number(name: &[u8]) -> Option<u32> {
    MONTH_NAMES.iter().position(|month| month.as_slice() == name).map(|at| at as u32 + 1)
}

/// The texts of the current second. Each worker has one and calls [`RenderedDates::update`] once per loop turn.
#[derive(Clone, Debug)]
pub struct RenderedDates {
    zone: TimeZone,
    secs: i64,
    http_date: [u8; HTTP_DATE_LEN],
    error_log: [u8; 19],
    local: [u8; 26],
    iso8601: [u8; 25],
}

impl RenderedDates {
    /// Texts for `now`, with local times in `zone` (the shell looks the system's zone up, once).
    pub fn new(zone: TimeZone, now: Now) -> RenderedDates {
        let mut dates = RenderedDates {
            zone,
            secs: now.wall_secs,
            http_date: [0; HTTP_DATE_LEN],
            error_log: *b"1970/01/01 00:00:00",
            local: *b"01/Jan/1970:00:00:00 +0000",
            iso8601: *b"1970-01-01T00:00:00+00:00",
        };
        dates.render();
        dates
    }

    /// Renders the texts anew if the second has changed. A function of the wall clock's second and the zone alone.
    pub fn update(&mut self, now: Now) {
        if now.wall_secs != self.secs {
            self.secs = now.wall_secs;
            self.render();
        }
    }

    /// The `Date` header's value.
    pub fn http_date(&self) -> &[u8; HTTP_DATE_LEN] {
        &self.http_date
    }

    /// Local time as the error log writes it: `2026/11/21 02:26:00`.
    pub fn error_log(&self) -> &[u8; 19] {
        &self.error_log
    }

    /// `$time_local`: `21/Nov/2026:02:26:00 +0000`.
    pub fn local(&self) -> &[u8; 26] {
        &self.local
    }

    /// `$time_iso8601`: `2026-11-21T02:26:00+00:00`.
    pub fn iso8601(&self) -> &[u8; 25] {
        &self.iso8601
    }

    /// The zone that local times are in.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    fn render(&mut self) {
        self.http_date = format_http_date(self.secs);
        let offset = offset_secs(&self.zone, self.secs);
        let civil = Civil::from_secs(self.secs.saturating_add(offset));

        for (out, slots) in [(&mut self.error_log[..], [0, 5, 8, 11]), (&mut self.iso8601[..], [0, 5, 8, 11])]
        {
            write_two(&mut out[slots[0]..], civil.year / 100);
            write_two(&mut out[slots[0] + 2..], civil.year);
            write_two(&mut out[slots[1]..], civil.month);
            write_two(&mut out[slots[2]..], civil.day);
            write_time(&mut out[slots[3]..], civil);
        }
        write_two(&mut self.local, civil.day);
        self.local[3..6].copy_from_slice(civil.month_name());
        write_two(&mut self.local[7..], civil.year / 100);
        write_two(&mut self.local[9..], civil.year);
        write_time(&mut self.local[12..], civil);

        let sign = if offset < 0 { b'-' } else { b'+' };
        let minutes = (offset.unsigned_abs() / 60) as u32;
        self.local[21] = sign;
        write_two(&mut self.local[22..], minutes / 60);
        write_two(&mut self.local[24..], minutes % 60);
        self.iso8601[19] = sign;
        write_two(&mut self.iso8601[20..], minutes / 60);
        write_two(&mut self.iso8601[23..], minutes % 60);
    }
}

/// Seconds by which `zone` is ahead of UTC at `secs`; 0 outside of the years that it knows.
pub fn offset_secs(zone: &TimeZone, secs: i64) -> i64 {
    Timestamp::from_second(secs).map_or(0, |time| i64::from(zone.to_offset(time).seconds()))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use jiff::tz::Offset;
    use proptest::prelude::*;

    fn at(secs: i64) -> Now {
        Now { monotonic_ms: 0, wall_secs: secs, wall_ms_part: 0 }
    }

    #[test]
    fn all_three_forms_of_an_http_date_are_read() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Mon,   06 Nov 1994 08:49:37 GMT; length=1234",
            "x,06 Nov 1994 08:49:37",
            "Sun Nov 06 08:49:37 1994",
        ] {
            assert_eq!(parse_http_date(text.as_bytes()), Some(784_111_777), "{text}");
        }
        assert_eq!(parse_http_date(b"Thu, 01-Jan-70 00:00:00 GMT"), Some(0));
        assert_eq!(parse_http_date(b"Tue, 19-Jan-38 03:14:08 GMT"), Some(1 << 31));
        assert_eq!(parse_http_date(b"Thu, 29 Feb 2024 00:00:00 GMT"), Some(1_709_164_800));
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "0",
            "Sun,",
            "Sun, 06 Nov 1994",
            "Sun, 06 Nov 1994 08:49:3",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "Sun, 32 Jan 1994 08:49:37 GMT",
            "Sun, 29 Feb 2023 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:37 GMT",
            "Sun, 06 Nov 1994 08:49:60 GMT",
            "Sun, 06 Nov-1994 08:49:37 GMT",
            "Sun, 00 Jan 1994 08:49:37 GMT",
            "Sun Nov  6 08:49:37 94",
            "Sun, 06 Nov 1969 08:49:37 GMT",
            "Sun, 06.Nov.1994 08:49:37 GMT",
            "Sun, -1 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(parse_http_date(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn dates_out_of_range_are_held_at_its_ends() {
        assert_eq!(&format_http_date(-5), b"Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(&format_http_date(i64::MAX), b"Fri, 31 Dec 9999 23:59:59 GMT");
    }

    #[test]
    fn texts_have_the_shapes_of_nginx() {
        let dates = RenderedDates::new(TimeZone::UTC, at(1_795_227_960));
        assert_eq!(dates.http_date(), b"Sat, 21 Nov 2026 02:26:00 GMT");
        assert_eq!(dates.error_log(), b"2026/11/21 02:26:00");
        assert_eq!(dates.local(), b"21/Nov/2026:02:26:00 +0000");
        assert_eq!(dates.iso8601(), b"2026-11-21T02:26:00+00:00");
    }

    #[test]
    fn local_texts_follow_the_offset_of_their_zone() {
        let west = TimeZone::fixed(Offset::from_seconds(-(3 * 3600 + 1800)).unwrap());
        let mut dates = RenderedDates::new(west, at(0));
        dates.update(at(1_795_227_960));
        assert_eq!(dates.http_date(), b"Sat, 21 Nov 2026 02:26:00 GMT");
        assert_eq!(dates.error_log(), b"2026/11/20 22:56:00");
        assert_eq!(dates.local(), b"20/Nov/2026:22:56:00 -0330");
        assert_eq!(dates.iso8601(), b"2026-11-20T22:56:00-03:30");
    }

    #[test]
    fn a_zone_with_summer_time_changes_its_offset_at_the_right_second() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let change = parse_http_date(b"Sun, 29 Mar 2026 01:00:00 GMT").unwrap();
        let mut dates = RenderedDates::new(zone, at(change - 1));
        assert_eq!(dates.local(), b"29/Mar/2026:01:59:59 +0100");
        dates.update(at(change));
        assert_eq!(dates.local(), b"29/Mar/2026:03:00:00 +0200");
    }

    proptest! {
        #[test]
        fn dates_agree_with_the_httpdate_crate_and_read_back(secs in 0..=LAST_HTTP_DATE) {
            let text = format_http_date(secs);
            let time = UNIX_EPOCH + Duration::from_secs(secs as u64);
            let expected = httpdate::fmt_http_date(time);
            prop_assert_eq!(&text[..], expected.as_bytes());
            prop_assert_eq!(parse_http_date(&text), Some(secs));
        }

        #[test]
        fn arbitrary_text_never_panics(text: Vec<u8>) {
            let _ = parse_http_date(&text);
        }

        #[test]
        fn damaged_dates_never_panic(secs in 0..=LAST_HTTP_DATE, at in 0..HTTP_DATE_LEN, byte: u8, end in 0..=HTTP_DATE_LEN) {
            let mut text = format_http_date(secs);
            text[at] = byte;
            let _ = parse_http_date(&text[..end]);
        }
    }
}
