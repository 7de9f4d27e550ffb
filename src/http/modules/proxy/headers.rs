//! Which fields pass, in both directions, decided when the configuration is read.

use std::sync::Arc;

use crate::base::ascii::is_token;
use crate::conf::source::{IncludeId, Span};
use crate::conf::template::Template;
use crate::message::{FieldName, Fields};

/// Names of fields as the configuration lists them.
pub type Names = Arc<Vec<Box<[u8]>>>;

/// A set of names: known ones by bit, others by text.
#[derive(Clone, Debug, Default)]
pub struct NameSet {
    known: u64,
    others: Vec<Box<[u8]>>,
}

impl NameSet {
    fn of(names: &[FieldName]) -> NameSet {
        let known = names.iter().fold(0, |bits, id| bits | 1 << *id as u64);
        NameSet { known, others: Vec::new() }
    }

    fn insert(&mut self, name: &[u8]) {
        match FieldName::of(name) {
            FieldName::Other if !self.contains(FieldName::Other, name) => self.others.push(name.into()),
            FieldName::Other => {}
            id => self.known |= 1 << id as u64,
        }
    }

    fn remove(&mut self, name: &[u8]) {
        match FieldName::of(name) {
            FieldName::Other => self.others.retain(|other| !other.eq_ignore_ascii_case(name)),
            id => self.known &= !(1 << id as u64),
        }
    }

    /// Whether `name`, whose known name is `id`, is among them.
    pub fn contains(&self, id: FieldName, name: &[u8]) -> bool {
        match id {
            FieldName::Other => self.others.iter().any(|other| other.eq_ignore_ascii_case(name)),
            id => self.known & (1 << id as u64) != 0,
        }
    }
}

/// One `proxy_set_header`.
#[derive(Clone, Debug)]
pub struct SetHeader {
    /// The name.
    pub name: Box<[u8]>,
    /// Which known name that is.
    pub id: FieldName,
    /// The value; no line if it is empty.
    pub value: Template,
}

impl SetHeader {
    /// A line.
    pub fn new(name: &[u8], value: Template) -> SetHeader {
        SetHeader { name: name.into(), id: FieldName::of(name), value }
    }

    /// Whether the field says where the body ends.
    pub fn frames_body(&self) -> bool {
        matches!(self.id, FieldName::ContentLength | FieldName::TransferEncoding)
    }
}

/// All of one scope.
#[derive(Clone, Debug, Default)]
pub struct SetHeaders {
    /// In order.
    pub list: Arc<Vec<SetHeader>>,
    /// Where the first stands.
    pub first: Option<(Span, IncludeId)>,
}

/// What of a client's head never goes further: fields between the client and us (RFC 9110 section 7.6.1), and those
/// that are written anew. nginx 1.31 clears the same, but for Trailer: no trailers follow.
const NOT_PASSED: &[FieldName] = &[
    FieldName::Host,
    FieldName::Connection,
    FieldName::ProxyConnection,
    FieldName::KeepAlive,
    FieldName::Te,
    FieldName::Trailer,
    FieldName::Expect,
    FieldName::Upgrade,
    FieldName::ContentLength,
    FieldName::TransferEncoding,
];

/// How the head of a request is written.
#[derive(Clone, Debug, Default)]
pub struct HeadPlan {
    /// The Host field; `None` for `$proxy_host`.
    pub host: Option<Template>,
    /// The Connection field; `None` for what the request needs.
    pub connection: Option<Template>,
    /// The Upgrade field; `None` for the client's, where an upgrade may pass.
    pub upgrade: Option<Template>,
    /// All other lines that the configuration sets and that may have a value.
    pub lines: Box<[SetHeader]>,
    /// Fields of the client that do not pass.
    pub dropped: NameSet,
}

impl HeadPlan {
    /// The plan that `proxy_set_header` makes. Of several lines with one name all are sent, as in nginx; of Host, and of
    /// what asks for an upgrade, the last.
    pub fn new(headers: &SetHeaders) -> HeadPlan {
        let mut plan = HeadPlan { dropped: NameSet::of(NOT_PASSED), ..HeadPlan::default() };
        let mut lines = Vec::new();
        for header in headers.list.iter().filter(|header| !header.name.is_empty()) {
            plan.dropped.insert(&header.name);
            match header.id {
                FieldName::Host => plan.host = Some(header.value.clone()),
                // `Connection ""` was how nginx before 1.29.7 was told to keep connections: what is the default now.
                FieldName::Connection if header.value.is_empty() => plan.connection = None,
                FieldName::Connection => plan.connection = Some(header.value.clone()),
                FieldName::Upgrade => plan.upgrade = Some(header.value.clone()),
                _ if header.frames_body() || header.value.is_empty() => {}
                _ => lines.push(header.clone()),
            }
        }
        plan.lines = lines.into();
        plan
    }
}

/// Fields of responses that are hidden unless `proxy_pass_header` names them.
const HIDDEN: &[&str] = &[
    "Date",
    "Server",
    "X-Pad",
    "X-Accel-Expires",
    "X-Accel-Redirect",
    "X-Accel-Limit-Rate",
    "X-Accel-Buffering",
    "X-Accel-Charset",
];

/// Fields of responses that do not pass.
#[derive(Clone, Debug, Default)]
pub struct Hidden(NameSet);

impl Hidden {
    /// The usual ones, those that `proxy_hide_header` adds, without those of `proxy_pass_header`.
    pub fn new(hide: &Names, pass: &Names) -> Hidden {
        let mut set = NameSet::default();
        HIDDEN.iter().for_each(|name| set.insert(name.as_bytes()));
        hide.iter().for_each(|name| set.insert(name));
        pass.iter().for_each(|name| set.remove(name));
        Hidden(set)
    }

    /// Whether a field does not pass.
    pub fn contains(&self, id: FieldName, name: &[u8]) -> bool {
        self.0.contains(id, name)
    }
}

/// Fields that mean nothing behind a body, or would mean another message (RFC 9110 section 6.5.1).
const NOT_BEHIND: &[FieldName] = &[
    FieldName::CacheControl,
    FieldName::ContentEncoding,
    FieldName::ContentRange,
    FieldName::ContentType,
    FieldName::Host,
    FieldName::Location,
    FieldName::SetCookie,
    FieldName::Trailer,
    FieldName::Upgrade,
];

impl super::Settings {
    /// Whether a trailer of a response goes to the client.
    pub fn passes_trailer(&self, id: FieldName, name: &[u8], value: &[u8]) -> bool {
        is_token(name)
            && memchr::memchr3(b'\r', b'\n', 0, value).is_none()
            && !is_between_us(id)
            && !NOT_BEHIND.contains(&id)
            && !self.hidden.contains(id, name)
    }

    /// Whether a field of a 103 goes to the client.
    pub fn passes_hint(&self, id: FieldName, name: &[u8]) -> bool {
        !is_between_us(id) && !self.hidden.contains(id, name)
    }
}

/// Fields of a response that never pass: they are about the connection to the upstream, or are written anew.
const BETWEEN_US: &[FieldName] = &[
    FieldName::Connection,
    FieldName::KeepAlive,
    FieldName::ProxyConnection,
    FieldName::TransferEncoding,
    FieldName::ContentLength,
    FieldName::Te,
];

/// Whether a response's field is about the connection that it came on.
pub fn is_between_us(id: FieldName) -> bool {
    BETWEEN_US.contains(&id)
}

/// The comma-separated members of several values.
pub fn members<'a>(values: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    values.flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

/// Whether a message's Connection names a field, which is between the two neighbours then (RFC 9110 section 7.6.1).
pub fn is_nominated(fields: &Fields, name: &[u8]) -> bool {
    members(fields.all(FieldName::Connection)).any(|member| member.eq_ignore_ascii_case(name))
}

/// Whether a member of Connection names nothing beyond what is between two neighbours anyway.
pub fn is_usual_member(member: &[u8]) -> bool {
    member.is_empty()
        || [&b"close"[..], b"keep-alive", b"upgrade", b"te", b"proxy-connection", b"trailer"]
            .iter()
            .any(|usual| member.eq_ignore_ascii_case(usual))
}
