//! `expires`.

use crate::base::clock::{format_http_date, offset_secs};
use crate::conf::directive::{Call, Complaint};
use crate::conf::template::Template;
use crate::conf::values;
use crate::http::build::Scope;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use jiff::tz::TimeZone;

/// `expires`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expires {
    /// `off`
    Off,
    /// A rule that is known.
    Fixed(Rule),
    /// Text with variables that says the rule; `true` for `modified`.
    Variable(Template, bool),
}

/// When a response expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// `off`, as a variable may say.
    Off,
    /// `epoch`: at once.
    Epoch,
    /// `max`: never.
    Max,
    /// So many seconds from now.
    AfterAccess(i64),
    /// So many seconds from the content's last change.
    AfterChange(i64),
    /// `@time`: at this second of the local day.
    Daily(i64),
}

const DAY: i64 = 24 * 60 * 60;

/// Reads the directive.
pub fn read(scope: &mut Scope, call: &Call) -> Result<Expires, Complaint> {
    let (after_change, word) = match call.args() {
        [word] => (false, word),
        [modified, word] if modified == "modified" => (true, word),
        args => {
            let message = format!("\"{}\" directive invalid value", call.name());
            return Err(Complaint::new(message).at(&args[0]));
        }
    };
    let template = scope.builder.template(word)?;
    let Some(text) = template.as_literal() else { return Ok(Expires::Variable(template, after_change)) };
    match parse_rule(text, after_change) {
        Ok(Rule::Off) => Ok(Expires::Off),
        Ok(rule) => Ok(Expires::Fixed(rule)),
        Err(reason) => Err(Complaint::new(format!("\"{}\" directive {reason}", call.name())).at(word)),
    }
}

fn parse_rule(text: &[u8], after_change: bool) -> Result<Rule, &'static str> {
    match text {
        b"epoch" if !after_change => return Ok(Rule::Epoch),
        b"max" if !after_change => return Ok(Rule::Max),
        b"off" if !after_change => return Ok(Rule::Off),
        _ => {}
    }
    let seconds = |text: &[u8]| {
        values::parse_time_s(text).ok().and_then(|secs| i64::try_from(secs).ok()).ok_or("invalid value")
    };
    if let Some(text) = text.strip_prefix(b"@") {
        if after_change {
            return Err("daily time cannot be used with \"modified\" parameter");
        }
        return match seconds(text)? {
            time if time > DAY => Err("daily time value must be less than 24 hours"),
            time => Ok(Rule::Daily(time)),
        };
    }
    let time = match text {
        [b'+', text @ ..] => seconds(text)?,
        [b'-', text @ ..] => -seconds(text)?,
        text => seconds(text)?,
    };
    Ok(if after_change { Rule::AfterChange(time) } else { Rule::AfterAccess(time) })
}

impl Expires {
    /// Sets Expires and Cache-Control; what a handler set before is replaced.
    pub fn apply(&self, exchange: &mut Exchange, context: &mut Context) {
        let rule = match self {
            Expires::Off => return,
            Expires::Fixed(rule) => *rule,
            Expires::Variable(template, after_change) => {
                exchange.with_rendered(template, context, |_, _, text| {
                    // A value that means nothing says nothing, as in nginx.
                    parse_rule(text, *after_change).unwrap_or(Rule::Off)
                })
            }
        };
        let now = context.env.now.wall_secs;
        match rule {
            Rule::Off => {}
            Rule::Epoch => set(exchange, b"Thu, 01 Jan 1970 00:00:01 GMT", b"no-cache"),
            Rule::Max => set(exchange, b"Thu, 31 Dec 2037 23:55:55 GMT", b"max-age=315360000"),
            Rule::Daily(time) => {
                let expires = next_time_of_day(now, time, context.env.dates.zone());
                set_time(exchange, expires, expires.saturating_sub(now), time);
            }
            Rule::AfterAccess(time) => set_time(exchange, now.saturating_add(time), time, time),
            Rule::AfterChange(time) => match exchange.response.last_modified {
                // nginx says 0 even where the last change was long ago.
                Some(_) if time == 0 => set_time(exchange, now, 0, 0),
                Some(last) => {
                    let expires = last.saturating_add(time);
                    set_time(exchange, expires, expires.saturating_sub(now), time);
                }
                None => set_time(exchange, now.saturating_add(time), time, time),
            },
        }
    }
}

fn set_time(exchange: &mut Exchange, expires: i64, max_age: i64, time: i64) {
    let date = format_http_date(expires);
    if time < 0 || max_age < 0 {
        return set(exchange, &date, b"no-cache");
    }
    let mut control = smallvec::SmallVec::<[u8; 32]>::from_slice(b"max-age=");
    control.extend_from_slice(itoa::Buffer::new().format(max_age).as_bytes());
    set(exchange, &date, &control);
}

fn set(exchange: &mut Exchange, date: &[u8], control: &[u8]) {
    let fields = &mut exchange.response.fields;
    fields.set(b"Expires", date);
    fields.set(b"Cache-Control", control);
}

/// The next second after `now` at which the local time of day is `time` seconds past midnight.
fn next_time_of_day(now: i64, time: i64, zone: &TimeZone) -> i64 {
    let local = now.saturating_add(offset_secs(zone, now));
    let today = local - local.rem_euclid(DAY) + time;
    // The offset that holds at that time may be another one than now.
    let to_utc = |local: i64| {
        let guess = local - offset_secs(zone, now);
        local - offset_secs(zone, guess)
    };
    let next = to_utc(today);
    if next > now { next } else { to_utc(today + DAY) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ascii;

    #[test]
    fn rules_are_read_as_nginx_reads_them() {
        assert_eq!(parse_rule(b"1h30m", false), Ok(Rule::AfterAccess(5400)));
        assert_eq!(parse_rule(b"+10", false), Ok(Rule::AfterAccess(10)));
        assert_eq!(parse_rule(b"-1", false), Ok(Rule::AfterAccess(-1)));
        assert_eq!(parse_rule(b"-1", true), Ok(Rule::AfterChange(-1)));
        assert_eq!(parse_rule(b"@15h30m", false), Ok(Rule::Daily(55_800)));
        assert_eq!(parse_rule(b"@24h", false), Ok(Rule::Daily(DAY)));
        assert_eq!(parse_rule(b"@25h", false), Err("daily time value must be less than 24 hours"));
        assert_eq!(parse_rule(b"@1h", true), Err("daily time cannot be used with \"modified\" parameter"));
        for text in [&b""[..], b"bad", b"+-1", b"Epoch"] {
            assert_eq!(parse_rule(text, false), Err("invalid value"), "{}", text.escape_ascii());
        }
        assert_eq!(parse_rule(b"off", true), Err("invalid value"));
    }

    #[test]
    fn a_time_of_day_that_has_passed_is_tomorrows() {
        let utc = TimeZone::UTC;
        let midnight = 1_700_006_400;
        assert_eq!(next_time_of_day(midnight + 100, 200, &utc), midnight + 200);
        assert_eq!(next_time_of_day(midnight + 200, 200, &utc), midnight + DAY + 200);
        assert_eq!(next_time_of_day(midnight, 0, &utc), midnight + DAY);
    }

    #[test]
    fn a_time_of_day_follows_the_zone_through_a_change_of_its_offset() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        // 2026-03-28 23:00 local time (CET): the next 06:00 is in summer time, six hours of clock but five hours later.
        let now = 1_774_735_200;
        assert_eq!(next_time_of_day(now, 6 * 3600, &zone), now + 6 * 3600);
        // 2026-10-24 23:00 local time (CEST): an hour is given back in the night.
        let now = 1_792_875_600;
        assert_eq!(next_time_of_day(now, 6 * 3600, &zone), now + 8 * 3600);
    }

    #[test]
    fn decimal_ages_fit_their_buffer() {
        let mut text = Vec::new();
        ascii::append_decimal(&mut text, i64::MAX);
        assert!(b"max-age=".len() + text.len() <= 32);
    }
}
