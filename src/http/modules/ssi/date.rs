//! Dates in the formats of `strftime`, as the C library of GNU writes them in the C locale.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::base::clock::{Civil, offset_secs};

/// The format of dates where `config` has set none.
pub const DEFAULT_FORMAT: &[u8] = b"%A, %d-%b-%Y %H:%M:%S %Z";

/// A date is no longer than so many bytes; the rest of its format is dropped.
const LONGEST: usize = 2048;

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Appends the date of `secs` since 1970, of the zone or of GMT.
pub fn append(out: &mut Vec<u8>, format: &[u8], secs: i64, zone: Option<&TimeZone>) {
    let offset = zone.map_or(0, |zone| offset_secs(zone, secs));
    let zone_name = match (zone, Timestamp::from_second(secs)) {
        (Some(zone), Ok(time)) => zone.to_offset_info(time).abbreviation().to_owned(),
        _ => "GMT".to_owned(),
    };
    let civil = Civil::from_secs(secs.saturating_add(offset));
    let date = Date { civil, day_of_year: day_of_year(civil), secs, offset, zone_name };
    let start = out.len();
    date.append(out, format);
    out.truncate(start + LONGEST);
}

/// From 0 for the first of January.
fn day_of_year(civil: Civil) -> u32 {
    let first = Civil { month: 1, day: 1, hour: 0, minute: 0, second: 0, ..civil };
    ((civil.to_secs() - first.to_secs()) / 86_400) as u32
}

struct Date {
    civil: Civil,
    day_of_year: u32,
    secs: i64,
    offset: i64,
    zone_name: String,
}

/// What stands between `%` and the letter.
#[derive(Clone, Copy, Default)]
struct Style {
    /// `_`, `-` or `0`.
    pad: Option<u8>,
    is_upper: bool,
    swaps_case: bool,
    width: Option<usize>,
    /// `E` or `O`.
    modifier: Option<u8>,
}

/// What a letter stands for.
enum Value {
    /// With at least so many digits; padded with zeros, or else with spaces.
    Number(i64, usize, bool),
    Text(String),
}

impl Date {
    fn append(&self, out: &mut Vec<u8>, format: &[u8]) {
        let start = out.len();
        let mut rest = format;
        while let Some(percent) = memchr::memchr(b'%', rest) {
            out.extend_from_slice(&rest[..percent]);
            rest = &rest[percent..];
            let (style, length) = style(&rest[1..]);
            let end = (1 + length + 1).min(rest.len());
            match rest.get(1 + length).and_then(|letter| self.value(*letter, style)) {
                Some(value) => write(out, value, style),
                None => out.extend_from_slice(&rest[..end]),
            }
            rest = &rest[end..];
            if out.len() - start > LONGEST {
                return;
            }
        }
        out.extend_from_slice(rest);
    }

    fn value(&self, letter: u8, style: Style) -> Option<Value> {
        let fits = match style.modifier {
            None => true,
            Some(b'E') => b"cCxXyY".contains(&letter),
            Some(_) => b"deHImMSuUVwWy".contains(&letter),
        };
        if !fits {
            return None;
        }
        let civil = self.civil;
        let zeros = |number: u32, digits| Value::Number(i64::from(number), digits, true);
        let spaces = |number: u32| Value::Number(i64::from(number), 2, false);
        let hour12 = (civil.hour + 11) % 12 + 1;
        let name = |name: &str| {
            Value::Text(if style.swaps_case { name.to_ascii_uppercase() } else { name.to_owned() })
        };
        let day = DAYS[civil.weekday as usize % 7];
        let month = MONTHS[(civil.month as usize + 11) % 12];
        Some(match letter {
            b'a' => name(&day[..3]),
            b'A' => name(day),
            b'b' | b'h' => name(&month[..3]),
            b'B' => name(month),
            b'c' => self.composed(b"%a %b %e %H:%M:%S %Y"),
            b'C' => zeros(civil.year / 100, 2),
            b'd' => zeros(civil.day, 2),
            b'D' | b'x' => self.composed(b"%m/%d/%y"),
            b'e' => spaces(civil.day),
            b'F' => self.composed(b"%Y-%m-%d"),
            b'g' => zeros(self.iso_week().0 % 100, 2),
            b'G' => zeros(self.iso_week().0, 1),
            b'H' => zeros(civil.hour, 2),
            b'I' => zeros(hour12, 2),
            b'j' => zeros(self.day_of_year + 1, 3),
            b'k' => spaces(civil.hour),
            b'l' => spaces(hour12),
            b'm' => zeros(civil.month, 2),
            b'M' => zeros(civil.minute, 2),
            b'n' => Value::Text("\n".to_owned()),
            b'p' | b'P' => {
                let half = if civil.hour < 12 { "AM" } else { "PM" };
                let is_lower = letter == b'P' || style.swaps_case;
                Value::Text(if is_lower { half.to_ascii_lowercase() } else { half.to_owned() })
            }
            b'r' => self.composed(b"%I:%M:%S %p"),
            b'R' => self.composed(b"%H:%M"),
            b's' => Value::Number(self.secs, 1, true),
            b'S' => zeros(civil.second, 2),
            b't' => Value::Text("\t".to_owned()),
            b'T' | b'X' => self.composed(b"%H:%M:%S"),
            b'u' => zeros((civil.weekday + 6) % 7 + 1, 1),
            b'U' => zeros((self.day_of_year + 7 - civil.weekday) / 7, 2),
            b'V' => zeros(self.iso_week().1, 2),
            b'w' => zeros(civil.weekday, 1),
            b'W' => zeros((self.day_of_year + 7 - (civil.weekday + 6) % 7) / 7, 2),
            b'y' => zeros(civil.year % 100, 2),
            b'Y' => zeros(civil.year, 1),
            b'z' => {
                let sign = if self.offset < 0 { '-' } else { '+' };
                let minutes = self.offset.unsigned_abs() / 60;
                Value::Text(format!("{sign}{:02}{:02}", minutes / 60, minutes % 60))
            }
            b'Z' if style.swaps_case => Value::Text(self.zone_name.to_ascii_lowercase()),
            b'Z' => Value::Text(self.zone_name.clone()),
            b'%' => Value::Text("%".to_owned()),
            _ => return None,
        })
    }

    fn composed(&self, format: &[u8]) -> Value {
        let mut text = Vec::new();
        self.append(&mut text, format);
        Value::Text(String::from_utf8_lossy(&text).into_owned())
    }

    /// Year and number of the week that begins on a Monday and has most of its days in that year (ISO 8601).
    fn iso_week(&self) -> (u32, u32) {
        let year = self.civil.year;
        let monday_based = i64::from((self.civil.weekday + 6) % 7);
        let week = (i64::from(self.day_of_year) - monday_based + 10) / 7;
        if week < 1 {
            return (year - 1, weeks_of(year - 1));
        }
        let week = week as u32;
        if week > weeks_of(year) { (year + 1, 1) } else { (year, week) }
    }
}

/// 53 where the year has 53 Thursdays, else 52.
fn weeks_of(year: u32) -> u32 {
    let weekday_of_last = |year: u32| (year + year / 4 - year / 100 + year / 400) % 7;
    if weekday_of_last(year) == 4 || weekday_of_last(year - 1) == 3 { 53 } else { 52 }
}

/// Reads flags, width and modifier, and says how long they are.
fn style(text: &[u8]) -> (Style, usize) {
    let mut style = Style::default();
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'_' | b'-' | b'0' => style.pad = Some(*byte),
            b'^' => style.is_upper = true,
            b'#' => style.swaps_case = true,
            _ => break,
        }
        at += 1;
    }
    while let Some(digit @ b'0'..=b'9') = text.get(at) {
        let width = style.width.unwrap_or(0) * 10 + usize::from(digit - b'0');
        style.width = Some(width.min(LONGEST));
        at += 1;
    }
    if let Some(modifier @ (b'E' | b'O')) = text.get(at) {
        style.modifier = Some(*modifier);
        at += 1;
    }
    (style, at)
}

fn write(out: &mut Vec<u8>, value: Value, style: Style) {
    let width = style.width.unwrap_or(0);
    let (text, digits, pad) = match value {
        Value::Number(number, digits, has_zeros) => {
            let pad = match style.pad {
                Some(b'_' | b'-') => b' ',
                None if !has_zeros => b' ',
                _ => b'0',
            };
            (number.to_string(), if style.pad == Some(b'-') { 0 } else { digits }, pad)
        }
        Value::Text(text) => {
            let text = if style.is_upper { text.to_ascii_uppercase() } else { text };
            (text, 0, if style.pad == Some(b'0') { b'0' } else { b' ' })
        }
    };
    let missing = width.max(digits).saturating_sub(text.len());
    out.resize(out.len() + missing, pad);
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected texts are those of glibc 2.36.
    fn berlin(secs: i64, format: &str) -> String {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let mut out = Vec::new();
        append(&mut out, format.as_bytes(), secs, Some(&zone));
        String::from_utf8(out).unwrap()
    }

    fn gmt(secs: i64, format: &str) -> String {
        let mut out = Vec::new();
        append(&mut out, format.as_bytes(), secs, None);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_letter_is_what_the_c_library_makes_of_it() {
        let format = "%a|%A|%b|%B|%c|%C|%d|%D|%e|%F|%g|%G|%h|%H|%I|%j|%k|%l|%m|%M|%p|%P|%r|%R|%s|%S|%T|%u|%U|%V|%w\
                      |%W|%x|%X|%y|%Y|%z|%Z|%%";
        assert_eq!(
            berlin(1_700_000_000, format),
            "Tue|Tuesday|Nov|November|Tue Nov 14 23:13:20 2023|20|14|11/14/23|14|2023-11-14|23|2023|Nov|23|11|318|23|11\
             |11|13|PM|pm|11:13:20 PM|23:13|1700000000|20|23:13:20|2|46|46|2|46|11/14/23|23:13:20|23|2023|+0100|CET|%"
        );
        assert_eq!(
            berlin(1_720_000_000, format),
            "Wed|Wednesday|Jul|July|Wed Jul  3 11:46:40 2024|20|03|07/03/24| 3|2024-07-03|24|2024|Jul|11|11|185|11|11\
             |07|46|AM|am|11:46:40 AM|11:46|1720000000|40|11:46:40|3|26|27|3|27|07/03/24|11:46:40|24|2024|+0200|CEST|%"
        );
    }

    #[test]
    fn flags_widths_and_what_is_no_letter_are_what_the_c_library_makes_of_them() {
        let format = "%5d|%-5d|%_5d|%^5b|%10A|%010m|%-m|%-H|%_H|%^B|%#p|%#a|%Ex|%EY|%OS|%-Ed|%E|%#Z|%5Y|%Q|%i|%-e|%0e\
                      |%-j|%_j|%12F|%012F|%^c|%#c|%5%|%";
        assert_eq!(
            berlin(1_704_056_400, format),
            "00031|   31|   31|  DEC|    Sunday|0000000012|12|22|22|DECEMBER|pm|SUN|12/31/23|2023|00|%-Ed|%E|cet|02023\
             |%Q|%i|31|31|365|365|  2023-12-31|002023-12-31|SUN DEC 31 22:00:00 2023|Sun Dec 31 22:00:00 2023|    %|%"
        );
    }

    #[test]
    fn weeks_of_the_turn_of_years_are_right() {
        for (secs, expected) in [
            (1_577_880_000, "2020-01-01 2020-01 20 00 00 001 3"),
            (1_609_416_000, "2020-12-31 2020-53 20 52 52 366 4"),
            (1_609_502_400, "2021-01-01 2020-53 20 00 00 001 5"),
            (1_609_675_200, "2021-01-03 2020-53 20 01 00 003 7"),
            (1_609_761_600, "2021-01-04 2021-01 21 01 01 004 1"),
            (1_672_574_400, "2023-01-01 2022-52 22 01 00 001 7"),
            (1_735_560_000, "2024-12-30 2025-01 25 52 53 365 1"),
            (1_798_718_400, "2026-12-31 2026-53 26 52 52 365 4"),
            (1_798_804_800, "2027-01-01 2026-53 26 00 00 001 5"),
            (951_825_600, "2000-02-29 2000-09 00 09 09 060 2"),
            (43_200, "1970-01-01 1970-01 70 00 00 001 4"),
            (1_988_107_200, "2032-12-31 2032-53 32 52 52 366 5"),
        ] {
            assert_eq!(gmt(secs, "%F %G-%V %g %U %W %j %u"), expected);
        }
    }

    #[test]
    fn a_date_has_a_bound() {
        assert_eq!(gmt(0, "%99999999999999999999d").len(), LONGEST);
        assert_eq!(gmt(0, &"%9000d".repeat(100)).len(), LONGEST);
        assert_eq!(gmt(0, "%Z %z"), "GMT +0000");
    }
}
