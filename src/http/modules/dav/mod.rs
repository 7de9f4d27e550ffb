//! WebDAV (RFC 4918): `dav_methods` and what goes with it.
//!
//! PUT, DELETE, MKCOL, COPY and MOVE are nginx's, with its statuses (`writing`). Ours besides: PROPFIND and PROPPATCH
//! (`properties`), LOCK and UNLOCK (`locking`) and OPTIONS. Nothing is done to files here: the shell makes each
//! [`Change`](crate::http::change::Change) ([`Need::Change`](crate::http::flow::Need::Change)).
//!
//! What a lock covers is changed by no method but for who names the lock; in locations where LOCK is allowed the `If`
//! field must hold as well (`conditions`).

pub mod bodies;
mod conditions;
pub mod fuzz;
mod locking;
mod markup;
mod properties;
mod writing;
#[cfg(test)]
mod tests;

use crate::base::level::Level;
use crate::conf::directive::{Arity, Call, Complaint};
use crate::http::build::Scope;
use crate::http::build::arguments::{flag, number};
use crate::http::change::{Change, Depth};
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::file::FileInfo;
use crate::http::flow::{Answer, Flow};
use crate::http::modules::passing::store_access;
use crate::http::settings::contexts::HTTP_SERVER_LOCATION;
use crate::http::settings::settings;
use crate::message::{FieldName, Method, RequestFraming, Status};

settings! {
    module dav;
    fields {
        /// Whether PUT makes the folders that are missing.
        create_full_put_path: bool = false, inherit;
            "create_full_put_path" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", once flag;
        /// Who may read and write what is made.
        access: u32 = 0o600, inherit;
            "dav_access" HTTP_SERVER_LOCATION, Arity::between(1, 3), default "user:rw", once store_access;
        /// WebDAV methods that are allowed. Beside nginx's: `PROPFIND`, `PROPPATCH`, `LOCK`, `UNLOCK`, `OPTIONS`.
        methods: Methods = Methods::default(), inherit;
            "dav_methods" HTTP_SERVER_LOCATION, Arity::at_least(1), default "off", with set_methods;
        /// How deep what is removed must lie at least, in segments of its URI.
        min_delete_depth: u64 = 0, inherit;
            "min_delete_depth" HTTP_SERVER_LOCATION, Arity::exactly(1), default "0", once number;
    }
}

/// A set of methods: one bit per [`Method`], by its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Methods(u32);

impl Methods {
    /// Whether it has a method.
    #[inline]
    pub fn has(self, method: Method) -> bool {
        self.0 & (1 << method as u32) != 0
    }
}

/// The words of `dav_methods`.
const WORDS: &[(&str, Method)] = &[
    ("PUT", Method::Put),
    ("DELETE", Method::Delete),
    ("MKCOL", Method::Mkcol),
    ("COPY", Method::Copy),
    ("MOVE", Method::Move),
    ("PROPFIND", Method::Propfind),
    ("PROPPATCH", Method::Proppatch),
    ("LOCK", Method::Lock),
    ("UNLOCK", Method::Unlock),
    ("OPTIONS", Method::Options),
];

/// `dav_methods`; a method twice is a warning, and `off` takes nothing away, as in nginx.
fn set_methods(scope: &mut Scope, call: &Call, slot: &mut Option<Methods>) -> Result<(), Complaint> {
    let methods = slot.get_or_insert_default();
    for word in call.args() {
        if word.as_bytes().eq_ignore_ascii_case(b"off") {
            continue;
        }
        let found = WORDS.iter().find(|(name, _)| word.as_bytes().eq_ignore_ascii_case(name.as_bytes()));
        let Some((_, method)) = found else { return Err(Complaint::invalid_value(word)) };
        if methods.has(*method) {
            scope.warn_word(call, word, format!("duplicate value \"{}\"", word.lossy()));
        }
        methods.0 |= 1 << *method as u32;
    }
    Ok(())
}

/// What is remembered between the steps of one request.
#[derive(Default)]
pub struct Note(Option<Box<State>>);

#[derive(Default)]
struct State {
    /// The change that the shell is to make.
    change: Option<Change>,
    /// The most that the body may have, where it is wanted in memory.
    body_in_memory: Option<u64>,
    /// What is at the path already, once it was looked at.
    existing: Option<FileInfo>,
    /// What the body asks for.
    asked: Option<bodies::Propfind>,
    /// The lock that is being made.
    lock: Option<crate::http::zones::locks::Lock>,
}

impl Note {
    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn state(&mut self) -> &mut State {
        self.0.get_or_insert_default()
    }

    /// The change that is to be made, once.
    pub fn take_change(&mut self) -> Option<Change> {
        self.0.as_mut()?.change.take()
    }

    /// The most that the body may have, in bytes, where it is wanted in memory whatever the settings say.
    pub fn reads_in_memory(&self) -> Option<u64> {
        self.0.as_ref()?.body_in_memory
    }
}

/// The content handler of the methods that are allowed.
pub fn handle(exchange: &mut Exchange, context: &mut Context, answer: Option<Answer>) -> Flow {
    let method = exchange.method();
    if !context.site.settings(exchange.location).dav.methods.has(method) {
        return Flow::Next;
    }
    match method {
        Method::Put | Method::Delete | Method::Mkcol | Method::Copy | Method::Move => {
            writing::handle(exchange, context, method, answer)
        }
        Method::Propfind => properties::find(exchange, context, answer),
        Method::Proppatch => properties::patch(exchange, context, answer),
        Method::Lock => locking::lock(exchange, context, answer),
        Method::Unlock => locking::unlock(exchange, context),
        Method::Options => options(exchange, context),
        _ => Flow::Next,
    }
}

/// What may be done here.
fn options(exchange: &mut Exchange, context: &mut Context) -> Flow {
    let methods = context.site.settings(exchange.location).dav.methods;
    let mut allow = b"GET, HEAD".to_vec();
    for (name, _) in WORDS.iter().filter(|(_, method)| methods.has(*method)) {
        allow.extend_from_slice(b", ");
        allow.extend_from_slice(name.as_bytes());
    }
    let response = &mut exchange.response;
    response.fields.push(b"DAV", if methods.has(Method::Lock) { b"1, 2" } else { b"1" });
    response.fields.push(b"Allow", &allow);
    // Without it Windows takes the server for one of another kind.
    response.fields.push(b"MS-Author-Via", b"DAV");
    response.status = Status::OK;
    response.set_content_length(0);
    Flow::Respond
}

/// The `Depth` field; `absent` where there is none.
fn depth(exchange: &Exchange, context: &mut Context, absent: Depth) -> Depth {
    match exchange.head.field(FieldName::Depth) {
        None => absent,
        Some(b"0") => Depth::Zero,
        Some(b"1") => Depth::One,
        Some(b"infinity") => Depth::Infinity,
        Some(text) => {
            let shown = String::from_utf8_lossy(text);
            exchange.log(context, Level::Error, format_args!("client sent invalid \"Depth\" header: \"{shown}\""));
            Depth::Invalid
        }
    }
}

fn has_body(exchange: &Exchange) -> bool {
    exchange.head.framing != RequestFraming::None
}

/// Logs what is wrong with the request, and says the status.
fn wrong(exchange: &Exchange, context: &mut Context, status: Status, message: &str) -> Status {
    exchange.log(context, Level::Error, format_args!("{message}"));
    status
}
