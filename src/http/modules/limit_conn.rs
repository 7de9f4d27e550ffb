//! `limit_conn`: how many requests of one client are served at the same time.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::base::level::Level;
use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::values;
use crate::http::build::Scope;
use crate::http::build::arguments::flag;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::flow::Flow;
use crate::http::modules::limit_req::{log_level, refuse, refusal_status};
use crate::http::settings::contexts::{HTTP, HTTP_SERVER_LOCATION};
use crate::http::settings::settings;
use crate::http::variables::VariableEntry;
use crate::http::zones::connections::{Permit, Refusal};
use crate::http::zones::{self, Definition, Store, Use, ZoneId};
use crate::message::Status;

settings! {
    module limit_conn;
    fields {
        /// Zones, and how many requests of one client they let in.
        limits: Arc<Vec<Limit>> = Arc::default(), inherit;
            "limit_conn" HTTP_SERVER_LOCATION, Arity::exactly(2), default "", with add_limit;
        /// Whether what is refused is served all the same, and only logged.
        dry_run: bool = false, inherit;
            "limit_conn_dry_run" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", once flag;
        /// The level at which refusals are logged.
        log_level: Level = Level::Error, inherit;
            "limit_conn_log_level" HTTP_SERVER_LOCATION, Arity::exactly(1), default "error", once log_level;
        /// The status of refusals.
        status: Status = Status::SERVICE_UNAVAILABLE, inherit;
            "limit_conn_status" HTTP_SERVER_LOCATION, Arity::exactly(1), default "503", once refusal_status;
    }
    plain {
        /// A zone that counts the requests of each client.
        "limit_conn_zone" HTTP, Arity::exactly(2), default "", set_zone;
    }
}

/// One `limit_conn`.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    zone: ZoneId,
    count: u32,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Rejected,
    RejectedDryRun,
}

/// What is remembered of a request.
#[derive(Default)]
pub struct Note {
    result: Option<Outcome>,
    /// Its places in the zones; given back when the request has ended.
    permits: SmallVec<[Permit; 1]>,
}

impl Note {
    /// Whether nothing was decided.
    pub fn is_empty(&self) -> bool {
        self.result.is_none() && self.permits.is_empty()
    }
}

/// The module's variables.
pub static VARIABLES: &[VariableEntry] = &[VariableEntry::new("limit_conn_status", |exchange, _, out| {
    let text: &[u8] = match exchange.notes.limit_conn.result {
        None => return false,
        Some(Outcome::Passed) => b"PASSED",
        Some(Outcome::Rejected) => b"REJECTED",
        Some(Outcome::RejectedDryRun) => b"REJECTED_DRY_RUN",
    };
    out.extend_from_slice(text);
    true
})];

fn set_zone(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    let zone = call.arg(1);
    if !zone.as_bytes().starts_with(b"zone=") {
        return Err(Complaint::invalid_parameter(zone));
    }
    let definition = Definition { key: call.arg(0).clone(), zone: zone.clone(), rate: 0 };
    zones::define(scope, call, Use::Connections, &definition)
}

fn add_limit(scope: &mut Scope, call: &Call, slot: &mut Option<Arc<Vec<Limit>>>) -> Result<(), Complaint> {
    let zone = scope.builder.zones.id(&call.arg(0).lossy(), Use::Connections, call)?;
    let limits = Arc::make_mut(slot.get_or_insert_default());
    if limits.iter().any(|limit| limit.zone == zone) {
        return Err(Complaint::new("\"limit_conn\" directive is duplicate"));
    }
    let word = call.arg(1);
    let count = match values::parse_number(word.as_bytes()) {
        Ok(count) if count > 65535 => {
            return Err(Complaint::new("connection limit must be less 65536").at(word));
        }
        Ok(count) if count > 0 => count as u32,
        _ => {
            let message = format!("invalid number of connections \"{}\"", word.lossy());
            return Err(Complaint::new(message).at(word));
        }
    };
    limits.push(Limit { zone, count });
    Ok(())
}

/// Lets the request in, or refuses it.
pub fn handle(exchange: &mut Exchange, context: &mut Context) -> Flow {
    let site = context.site;
    let settings = &site.settings(exchange.location).limit_conn;
    // Once for a request, however often it is redirected.
    if settings.limits.is_empty() || exchange.notes.limit_conn.result.is_some() {
        return Flow::Next;
    }
    for limit in settings.limits.iter() {
        let zone = site.zones.get(limit.zone);
        let Store::Connections(counts) = &zone.store else { continue };
        let mut key = context.env.scratch();
        exchange.render(&zone.key, context, &mut key);
        let entered = match key.len() {
            0 => None,
            _ => Some(counts.enter(&key, limit.count)),
        };
        context.env.give_back(key);
        match entered {
            None => {}
            Some(Ok(permit)) => {
                exchange.notes.limit_conn.permits.push(permit);
                exchange.notes.limit_conn.result = Some(Outcome::Passed);
            }
            Some(Err(reason)) => {
                exchange.notes.limit_conn.permits.clear();
                let dry = if settings.dry_run { ", dry run," } else { "" };
                let why = if reason == Refusal::Full { ": it is full" } else { "" };
                let name = &zone.name;
                exchange.log(
                    context,
                    settings.log_level,
                    format_args!("limiting connections{dry} by zone \"{name}\"{why}"),
                );
                if settings.dry_run {
                    exchange.notes.limit_conn.result = Some(Outcome::RejectedDryRun);
                    return Flow::Next;
                }
                exchange.notes.limit_conn.result = Some(Outcome::Rejected);
                // When the others end is not known.
                return refuse(exchange, settings.status, 1);
            }
        }
    }
    Flow::Next
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{World, complaints};

    #[test]
    fn a_request_has_its_place_until_it_ends() {
        let mut world = World::new(
            "limit_conn_zone $binary_remote_addr zone=z:1m; limit_conn z 1;
             server { add_header X $limit_conn_status; location / { return 200 ok; } location /f { root /srv; } }",
        )
        .file("/srv/f", "f");
        for _ in 0..3 {
            let reply = world.get("/f");
            assert_eq!((reply.status, reply.field("X").as_str()), (200, "PASSED"));
        }
        // `return` comes before the limits, as in nginx.
        assert_eq!(world.get("/").field("X"), "");
    }

    #[test]
    fn mistakes_are_told_in_nginx_s_words() {
        let zone = "limit_conn_zone $binary_remote_addr zone=c:1m;";
        for (text, told) in [
            ("limit_conn c 0;", "invalid number of connections \"0\""),
            ("limit_conn c x;", "invalid number of connections \"x\""),
            ("limit_conn c 65536;", "connection limit must be less 65536"),
            ("limit_conn c 1; limit_conn c 2;", "\"limit_conn\" directive is duplicate"),
            ("limit_conn_zone $msec zone=c:1m;", "limit_conn_zone \"c\" is already bound to key \"$binary_remote_addr\""),
            ("limit_conn_zone $msec foo;", "invalid parameter \"foo\""),
            ("limit_conn_zone $msec zone=a:1;", "zone \"zone=a:1\" is too small"),
            ("limit_conn d 1;", "zero size shared memory zone \"d\""),
            ("limit_conn_status 200;", "value must be between 400 and 599"),
        ] {
            assert_eq!(complaints(&format!("{zone} {text}")), [format!("[emerg] {told}")], "{text}");
        }
    }
}
