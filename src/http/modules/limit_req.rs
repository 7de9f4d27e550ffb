//! `limit_req`: how often a client may ask.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::base::level::Level;
use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::tree::Word;
use crate::conf::values;
use crate::http::build::Scope;
use crate::http::build::arguments::{flag, number, one_of};
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::flow::{Flow, Need};
use crate::http::settings::contexts::{HTTP, HTTP_SERVER_LOCATION};
use crate::http::settings::settings;
use crate::http::variables::VariableEntry;
use crate::http::zones::requests::{Undo, Verdict};
use crate::http::zones::{self, Definition, Store, Use, ZoneId};
use crate::message::{FieldName, Status};

settings! {
    module limit_req;
    fields {
        /// Zones, and how far above their rate a client may be (`burst=`), at once (`nodelay`, `delay=`) or waiting.
        limits: Arc<Vec<Limit>> = Arc::default(), inherit;
            "limit_req" HTTP_SERVER_LOCATION, Arity::between(1, 3), default "", with add_limit;
        /// Whether what is refused or delayed is served at once all the same, and only logged.
        dry_run: bool = false, inherit;
            "limit_req_dry_run" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", once flag;
        /// The level at which refusals are logged; delays are logged one below it.
        log_level: Level = Level::Error, inherit;
            "limit_req_log_level" HTTP_SERVER_LOCATION, Arity::exactly(1), default "error", once log_level;
        /// The status of refusals.
        status: Status = Status::SERVICE_UNAVAILABLE, inherit;
            "limit_req_status" HTTP_SERVER_LOCATION, Arity::exactly(1), default "503", once refusal_status;
    }
    plain {
        /// A zone that knows how often each client has asked, and at which rate it may.
        "limit_req_zone" HTTP, Arity::exactly(3), default "", set_zone;
    }
}

/// One `limit_req`.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    zone: ZoneId,
    /// Thousandths of a request above the rate that are let through.
    burst: u64,
    /// And those that don't wait.
    at_once: u64,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Served at once.
    Passed,
    /// Served later.
    Delayed,
    /// Refused.
    Rejected,
    /// Would have been delayed.
    DelayedDryRun,
    /// Would have been refused.
    RejectedDryRun,
}

/// What became of a request, once it was asked.
pub type Note = Option<Outcome>;

/// The module's variables.
pub static VARIABLES: &[VariableEntry] = &[VariableEntry::new("limit_req_status", |exchange, _, out| {
    let text: &[u8] = match exchange.notes.limit_req {
        None => return false,
        Some(Outcome::Passed) => b"PASSED",
        Some(Outcome::Delayed) => b"DELAYED",
        Some(Outcome::Rejected) => b"REJECTED",
        Some(Outcome::DelayedDryRun) => b"DELAYED_DRY_RUN",
        Some(Outcome::RejectedDryRun) => b"REJECTED_DRY_RUN",
    };
    out.extend_from_slice(text);
    true
})];

/// `info`, `notice`, `warn` or `error`.
pub fn log_level(_: &mut Scope, call: &Call) -> Result<Level, Complaint> {
    let levels = [("info", Level::Info), ("notice", Level::Notice), ("warn", Level::Warn), ("error", Level::Error)];
    one_of(call, &levels)
}

/// A status of errors.
pub fn refusal_status(scope: &mut Scope, call: &Call) -> Result<Status, Complaint> {
    match number(scope, call)? {
        status @ 400..=599 => Ok(Status(status as u16)),
        _ => Err(Complaint::new("value must be between 400 and 599").at(call.arg(0))),
    }
}

fn set_zone(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    let (mut zone, mut rate) = (None, 1000);
    for word in &call.args()[1..] {
        let text = word.as_bytes();
        if text.starts_with(b"zone=") {
            zone = Some(word);
        } else if let Some(text) = text.strip_prefix(b"rate=") {
            rate = parse_rate(text)
                .ok_or_else(|| Complaint::new(format!("invalid rate \"{}\"", word.lossy())).at(word))?;
        } else {
            return Err(Complaint::invalid_parameter(word));
        }
    }
    let zone = zone.ok_or_else(|| Complaint::new("\"limit_req_zone\" must have \"zone\" parameter"))?;
    let definition = Definition { key: call.arg(0).clone(), zone: zone.clone(), rate };
    zones::define(scope, call, Use::Requests, &definition)
}

/// `5r/s`, `30r/m`, or just a number per second; in thousandths of a request per second, rounded down as in nginx.
fn parse_rate(text: &[u8]) -> Option<u64> {
    let (text, seconds) = match text {
        [text @ .., b'r', b'/', b's'] => (text, 1),
        [text @ .., b'r', b'/', b'm'] => (text, 60),
        text => (text, 1),
    };
    let number = values::parse_number(text).ok().filter(|number| *number > 0)?;
    Some(number.checked_mul(1000)? / seconds)
}

fn add_limit(scope: &mut Scope, call: &Call, slot: &mut Option<Arc<Vec<Limit>>>) -> Result<(), Complaint> {
    let (mut zone, mut burst, mut at_once) = (None, 0, 0);
    let thousandths = |text: &[u8]| {
        let number = values::parse_number(text).ok().filter(|number| *number > 0)?;
        number.checked_mul(1000)
    };
    for word in call.args() {
        let text = word.as_bytes();
        let invalid = |what: &str, word: &Word| {
            Complaint::new(format!("invalid {what} value \"{}\"", word.lossy())).at(word)
        };
        if let Some(name) = text.strip_prefix(b"zone=") {
            zone = Some(scope.builder.zones.id(&String::from_utf8_lossy(name), Use::Requests, call)?);
        } else if let Some(text) = text.strip_prefix(b"burst=") {
            burst = thousandths(text).ok_or_else(|| invalid("burst", word))?;
        } else if let Some(text) = text.strip_prefix(b"delay=") {
            at_once = thousandths(text).ok_or_else(|| invalid("delay", word))?;
        } else if text == b"nodelay" {
            at_once = u64::MAX;
        } else {
            return Err(Complaint::invalid_parameter(word));
        }
    }
    let zone = zone.ok_or_else(|| Complaint::new("\"limit_req\" must have \"zone\" parameter"))?;
    let limits = Arc::make_mut(slot.get_or_insert_default());
    if limits.iter().any(|limit| limit.zone == zone) {
        return Err(Complaint::new("\"limit_req\" directive is duplicate"));
    }
    limits.push(Limit { zone, burst, at_once });
    Ok(())
}

/// Refuses with `status` and says when to come again.
pub fn refuse(exchange: &mut Exchange, status: Status, after_secs: u64) -> Flow {
    let mut text = SmallVec::<[u8; 20]>::new();
    text.extend_from_slice(itoa::Buffer::new().format(after_secs).as_bytes());
    exchange.response.fields.push_known(FieldName::RetryAfter, &text);
    Flow::Status(status)
}

/// A zone that let the request through.
struct Asked {
    limit: Limit,
    rate: u64,
    key: Vec<u8>,
    excess: u64,
    undo: Undo,
}

/// Lets the request through, delays or refuses it.
pub fn handle(exchange: &mut Exchange, context: &mut Context) -> Flow {
    let site = context.site;
    let settings = &site.settings(exchange.location).limit_req;
    // Once for a request, however often it is redirected.
    if settings.limits.is_empty() || exchange.notes.limit_req.is_some() {
        return Flow::Next;
    }
    let mut asked: SmallVec<[Asked; 2]> = SmallVec::new();
    let mut refusal = None;
    for limit in settings.limits.iter() {
        let zone = site.zones.get(limit.zone);
        let Store::Requests(buckets) = &zone.store else { continue };
        let mut key = context.env.scratch();
        exchange.render(&zone.key, context, &mut key);
        if key.is_empty() {
            context.env.give_back(key);
            continue;
        }
        let (verdict, undo) = buckets.ask(&key, context.env.now.monotonic_ms, zone.rate, limit.burst);
        match (verdict, undo) {
            (Verdict::Pass(excess), Some(undo)) => {
                asked.push(Asked { limit: *limit, rate: zone.rate, key, excess, undo });
            }
            (Verdict::Pass(excess) | Verdict::Refuse(excess), _) => {
                context.env.give_back(key);
                refusal = Some((limit, excess));
                break;
            }
        }
    }
    let flow = match refusal {
        Some((limit, excess)) => {
            for one in &asked {
                if let Store::Requests(buckets) = &site.zones.get(one.limit.zone).store {
                    buckets.undo(&one.key, one.undo);
                }
            }
            reject(exchange, context, settings, limit, excess)
        }
        None => pass(exchange, context, settings, &asked),
    };
    for one in asked {
        context.env.give_back(one.key);
    }
    flow
}

fn reject(
    exchange: &mut Exchange,
    context: &mut Context,
    settings: &Settings,
    limit: &Limit,
    excess: u64,
) -> Flow {
    let zone = context.site.zones.get(limit.zone);
    let dry = if settings.dry_run { ", dry run" } else { "" };
    exchange.log(
        context,
        settings.log_level,
        format_args!(
            "limiting requests{dry}, excess: {}.{:03} by zone \"{}\"",
            excess / 1000,
            excess % 1000,
            zone.name
        ),
    );
    if settings.dry_run {
        exchange.notes.limit_req = Some(Outcome::RejectedDryRun);
        return Flow::Next;
    }
    exchange.notes.limit_req = Some(Outcome::Rejected);
    let seconds = excess.saturating_sub(limit.burst).div_ceil(zone.rate.max(1));
    refuse(exchange, settings.status, seconds.max(1))
}

fn pass(exchange: &mut Exchange, context: &mut Context, settings: &Settings, asked: &[Asked]) -> Flow {
    let delay = |one: &Asked| {
        let waiting = one.excess.saturating_sub(one.limit.at_once);
        waiting.saturating_mul(1000) / one.rate.max(1)
    };
    let Some(longest) = asked.iter().max_by_key(|one| delay(one)) else { return Flow::Next };
    let delay_ms = delay(longest);
    if delay_ms == 0 {
        exchange.notes.limit_req = Some(Outcome::Passed);
        return Flow::Next;
    }
    let level = match settings.log_level {
        Level::Error => Level::Warn,
        Level::Warn => Level::Notice,
        _ => Level::Info,
    };
    let dry = if settings.dry_run { ", dry run" } else { "" };
    let (excess, zone) = (longest.excess, context.site.zones.get(longest.limit.zone));
    exchange.log(
        context,
        level,
        format_args!(
            "delaying request{dry}, excess: {}.{:03}, by zone \"{}\"",
            excess / 1000,
            excess % 1000,
            zone.name
        ),
    );
    if settings.dry_run {
        exchange.notes.limit_req = Some(Outcome::DelayedDryRun);
        return Flow::Next;
    }
    exchange.notes.limit_req = Some(Outcome::Delayed);
    Flow::Need(Need::Delay(delay_ms))
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{World, complaints};

    fn world(limit: &str) -> World {
        World::new(&format!(
            "limit_req_zone $arg_k zone=z:1m rate=2r/s; limit_req_zone $arg_o zone=o:1m rate=30r/m;
             server {{ {limit} root /srv; add_header X $limit_req_status always; }}"
        ))
        .file("/srv/f", "f")
    }

    /// Status, what the variable says, and the time that it took.
    fn ask(world: &mut World, target: &str) -> (u16, String, u64) {
        let before = world.env.now.monotonic_ms;
        let reply = world.get(target);
        (reply.status, reply.field("X"), world.env.now.monotonic_ms - before)
    }

    fn is(status: u16, text: &str, ms: u64) -> (u16, String, u64) {
        (status, text.to_owned(), ms)
    }

    #[test]
    fn more_than_the_rate_is_refused() {
        let mut world = world("limit_req zone=z; limit_req_status 429; limit_req_log_level warn;");
        assert_eq!(ask(&mut world, "/f?k=a"), is(200, "PASSED", 0));
        let reply = world.get("/f?k=a");
        assert_eq!((reply.status, reply.field("X").as_str(), reply.field("Retry-After").as_str()), (429, "REJECTED", "1"));
        assert_eq!(reply.log_texts(), ["[warn] limiting requests, excess: 1.000 by zone \"z\""]);
        assert_eq!(ask(&mut world, "/f?k=b"), is(200, "PASSED", 0));
        assert_eq!(ask(&mut world, "/f"), is(200, "", 0));
        world.env.now.monotonic_ms += 499;
        assert_eq!(ask(&mut world, "/f?k=a").0, 429);
        world.env.now.monotonic_ms += 1;
        assert_eq!(ask(&mut world, "/f?k=a"), is(200, "PASSED", 0));
    }

    #[test]
    fn a_burst_waits_its_turn_unless_told_otherwise() {
        let mut waits = world("limit_req zone=z burst=2;");
        assert_eq!(ask(&mut waits, "/f?k=a"), is(200, "PASSED", 0));
        let reply = waits.get("/f?k=a");
        assert_eq!(reply.field("X"), "DELAYED");
        assert_eq!(reply.log_texts(), ["[warn] delaying request, excess: 1.000, by zone \"z\""]);
        let mut at_once = world("limit_req zone=z burst=2 nodelay;");
        for expected in [is(200, "PASSED", 0), is(200, "PASSED", 0), is(200, "PASSED", 0), is(503, "REJECTED", 0)] {
            assert_eq!(ask(&mut at_once, "/f?k=a"), expected);
        }
        let mut some = world("limit_req zone=z burst=2 delay=1;");
        for expected in [is(200, "PASSED", 0), is(200, "PASSED", 0), is(200, "DELAYED", 500)] {
            assert_eq!(ask(&mut some, "/f?k=a"), expected);
        }
    }

    #[test]
    fn of_several_zones_the_strictest_decides_and_a_refusal_costs_nothing() {
        let mut world = world("limit_req zone=z burst=9 nodelay; limit_req zone=o;");
        assert_eq!(ask(&mut world, "/f?k=a&o=a").0, 200);
        for _ in 0..20 {
            assert_eq!(ask(&mut world, "/f?k=a&o=a").0, 503);
        }
        for _ in 0..9 {
            assert_eq!(ask(&mut world, "/f?k=a").0, 200);
        }
        assert_eq!(ask(&mut world, "/f?k=a").0, 503);
        let reply = world.get("/f?o=a");
        assert_eq!(reply.field("Retry-After"), "2");
    }

    #[test]
    fn a_dry_run_only_logs() {
        let mut world = world("limit_req zone=z burst=1; limit_req_dry_run on;");
        assert_eq!(ask(&mut world, "/f?k=a"), is(200, "PASSED", 0));
        assert_eq!(ask(&mut world, "/f?k=a"), is(200, "DELAYED_DRY_RUN", 0));
        let reply = world.get("/f?k=a");
        assert_eq!((reply.status, reply.field("X").as_str()), (200, "REJECTED_DRY_RUN"));
        assert_eq!(reply.log_texts(), ["[error] limiting requests, dry run, excess: 2.000 by zone \"z\""]);
    }

    #[test]
    fn a_request_is_asked_once_however_often_it_is_redirected() {
        let mut world = World::new(
            "limit_req_zone $binary_remote_addr zone=z:1m rate=1r/s; limit_req zone=z;
             server { root /srv; location /a { try_files /none /b; } location /b { error_page 404 /c; } }",
        )
        .file("/srv/c", "c");
        assert_eq!(world.get("/a").status, 404);
        assert_eq!(world.get("/a").status, 503);
    }

    #[test]
    fn mistakes_are_told_in_nginx_s_words() {
        let zone = "limit_req_zone $binary_remote_addr zone=a:1m rate=1r/s;";
        for (text, told) in [
            ("limit_req_zone $msec zone=a rate=1r/s;", "invalid zone size \"zone=a\""),
            ("limit_req_zone $msec zone=a:1x rate=1r/s;", "invalid zone size \"zone=a:1x\""),
            ("limit_req_zone $msec zone=a:10k rate=1r/s;", "zone \"zone=a:10k\" is too small"),
            ("limit_req_zone $msec zone=a:1m rate=0r/s;", "invalid rate \"rate=0r/s\""),
            ("limit_req_zone $msec zone=a:1m rate=1r/h;", "invalid rate \"rate=1r/h\""),
            ("limit_req_zone $msec rate=1r/s foo;", "invalid parameter \"foo\""),
            ("limit_req_zone $msec rate=1r/s rate=1r/s;", "\"limit_req_zone\" must have \"zone\" parameter"),
            (&format!("{zone} {zone}"), "limit_req_zone \"a\" is already bound to key \"$binary_remote_addr\""),
            ("limit_req zone=b;", "zero size shared memory zone \"b\""),
            (&format!("{zone} limit_req zone=a burst=x;"), "invalid burst value \"burst=x\""),
            (&format!("{zone} limit_req zone=a delay=0;"), "invalid delay value \"delay=0\""),
            (&format!("{zone} limit_req burst=5;"), "\"limit_req\" must have \"zone\" parameter"),
            (&format!("{zone} limit_req zone=a foo;"), "invalid parameter \"foo\""),
            (&format!("{zone} limit_req zone=a; limit_req zone=a;"), "\"limit_req\" directive is duplicate"),
            ("limit_req_status 200;", "value must be between 400 and 599"),
            ("limit_req_status x;", "\"limit_req_status\" directive invalid number"),
            ("limit_req_log_level foo;", "invalid value \"foo\""),
            (
                &format!("{zone} limit_conn a 1;"),
                "the shared memory zone \"a\" is already declared for a different use",
            ),
        ] {
            assert_eq!(complaints(text), [format!("[emerg] {told}")], "{text}");
        }
        // A zone may stand behind its use.
        assert_eq!(complaints(&format!("limit_req zone=a; {zone}")), [""; 0]);
    }

    #[test]
    fn a_key_that_the_client_chooses_is_warned_of() {
        for (key, variable) in [
            ("$http_x_forwarded_for", "http_x_forwarded_for"),
            ("$binary_remote_addr$arg_x", "arg_x"),
            ("a${cookie_sid}b", "cookie_sid"),
            ("$request_uri", "request_uri"),
        ] {
            let told = complaints(&format!("limit_req_zone {key} zone=a:1m rate=1r/s;"));
            assert!(told[0].starts_with(&format!("[warn] the key of zone \"a\" has ${variable},")), "{told:?}");
        }
        for key in ["$binary_remote_addr", "$server_name", "$remote_addr$server_port"] {
            assert_eq!(complaints(&format!("limit_req_zone {key} zone=a:1m rate=1r/s;")), [""; 0]);
        }
    }
}
