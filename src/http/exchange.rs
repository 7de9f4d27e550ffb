//! One request and its response as a state machine that does no I/O.
//!
//! The shell makes an exchange for every request head, calls [`Exchange::step`] until it says `Respond` or `Close`,
//! satisfies a `Need` by calling `step` again with the answer, then encodes the response head, pulls the body, and at
//! the end calls [`Exchange::log`]. An exchange is recycled: a worker keeps finished ones and their memory.

mod parked;

use std::net::SocketAddr;
use std::rc::Rc;

use crate::base::regex::Captures;
use crate::message::{Fields, RequestHead, ResponseHead, Status, Version};
use crate::proto::proxy_protocol::ProxyHeader;
use crate::proto::tls::TlsFacts;

use super::body::Body;
use super::body_filters::FilterSpecs;
use super::context::{Context, Env};
use super::file::{FileRange, Symlinks};
use super::flow::{Answer, Step};
use super::modules::LocationSettings;
use super::modules::Notes;
use super::modules::rewrite;
use super::modules::static_files::Opened;
use super::modules::try_files;
use super::phases::{self, Stage};
use super::site::{AddressId, Location, LocationId, ServerId, SiteHandle};
use super::subrequest::{Lineage, Order};
use super::upstream_call::Passed;
use super::variables::{Kept, Slot};
use super::weaving::Weaving;

pub use parked::ParkedExchange;

/// Rewrites, internal redirects and error pages of one request; one more is a cycle (nginx's
/// `NGX_HTTP_MAX_URI_CHANGES`).
pub const MAX_URI_CHANGES: u8 = 10;

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// TCP.
    Inet(SocketAddr),
    /// A Unix socket; the path is known for the server's end only.
    Unix(Box<[u8]>),
}

/// What the engine knows of a client connection.
#[derive(Clone, Debug)]
pub struct ConnectionFacts {
    /// Serial number (`$connection`).
    pub number: u64,
    /// How many requests it has made, this one included.
    pub requests: u32,
    /// Monotonic milliseconds at its accept.
    pub accepted_ms: u64,
    /// The client.
    pub peer: Endpoint,
    /// Our end.
    pub local: Endpoint,
    /// What the PROXY protocol said, if it was spoken.
    pub proxy_protocol: Option<Rc<ProxyHeader>>,
    /// Whether it is under TLS.
    pub secure: bool,
    /// Whether it should be and is not: the client speaks plain HTTP where TLS is spoken.
    pub lacks_tls: bool,
    /// What its TLS handshake agreed upon; set when that is over, or when requests come before.
    pub tls: Option<Rc<TlsFacts>>,
}

impl ConnectionFacts {
    /// Whether both say the same.
    fn are(&self, other: &ConnectionFacts) -> bool {
        let ConnectionFacts {
            number,
            requests,
            accepted_ms,
            peer,
            local,
            proxy_protocol,
            secure,
            lacks_tls,
            tls,
        } = self;
        (*number, *requests, *accepted_ms) == (other.number, other.requests, other.accepted_ms)
            && (peer, local) == (&other.peer, &other.local)
            && (*secure, *lacks_tls) == (other.secure, other.lacks_tls)
            && proxy_protocol.as_ref().map(Rc::as_ptr) == other.proxy_protocol.as_ref().map(Rc::as_ptr)
            && tls.as_ref().map(Rc::as_ptr) == other.tls.as_ref().map(Rc::as_ptr)
    }
}

/// A request body that was read.
#[derive(Debug, Default)]
pub enum RequestBody {
    /// None was read (yet).
    #[default]
    Unread,
    /// In memory.
    Memory(Vec<u8>),
    /// In a temporary file with this path; the shell owns the file and removes it as configured.
    File(Box<[u8]>),
}

/// How an exchange ended and what it cost, as the shell counted it; for the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Bytes sent to the client, head included.
    pub bytes_sent: u64,
    /// Bytes of the body sent.
    pub body_bytes_sent: u64,
    /// Bytes of the request, body included.
    pub request_length: u64,
    /// Whether the response was sent whole.
    pub complete: bool,
    /// Whether the request had come already when the one before it was answered (`$pipe` is `p`).
    pub pipelined: bool,
}

/// One request and its response.
pub struct Exchange {
    /// The site that the request started with.
    pub site: SiteHandle,
    /// The address that it came in on.
    pub address: AddressId,
    /// The server that serves it.
    pub server: ServerId,
    /// The scope that it is in.
    pub location: LocationId,
    /// The connection.
    pub connection: ConnectionFacts,
    /// Monotonic milliseconds when its first byte was read.
    pub started_ms: u64,
    /// The request head.
    pub head: RequestHead,
    /// The normalised path; rewrites change it.
    pub uri: Vec<u8>,
    /// What follows `?`; rewrites change it.
    pub args: Vec<u8>,
    /// Whether `uri` and `args` still say what the client sent.
    pub uri_is_original: bool,
    /// Whether `uri` was rewritten since the location was chosen, so that `alias` no longer fits it.
    pub uri_fits_location: bool,
    /// Whether the URI goes behind the `alias` of a location with a regular expression (`try_files` found it there).
    pub uri_extends_alias: bool,
    /// Whether an internal redirect brought the request here.
    pub internal: bool,
    /// How many more URI changes are allowed.
    pub uri_changes_left: u8,
    /// A method that replaced the client's (`error_page` turns it into GET).
    pub method_is_get: bool,
    /// Where it stands on its way.
    pub stage: Stage,
    /// Where the rewrite program stands.
    pub rewriting: rewrite::Running,
    /// Where `try_files` stands.
    pub trying: try_files::Running,
    /// Counter for a content handler that asks more than once; 0 when a handler begins.
    pub content_step: u32,
    /// The captures of the last regular expression that matched.
    pub captures: Captures,
    /// The text that it matched.
    pub capture_subject: Vec<u8>,
    /// The path of a file need.
    pub path: Vec<u8>,
    /// How many bytes of `path` are the configured root.
    pub root_length: u32,
    /// Which symbolic links in `path` are refused.
    pub symlinks: Symlinks,
    /// A file that `index` opened on its way, for the handler that wants the same one.
    pub opened: Opened,
    /// What [`super::flow::Need::Read`] asks for.
    pub reading: Option<FileRange>,
    /// How many variables of the configuration are being computed for one another.
    pub variable_depth: u8,
    /// The trailers that were sent.
    pub sent_trailers: Fields,
    /// The request body, where one was read.
    pub request_body: RequestBody,
    /// Bytes of the body that was read.
    pub request_body_length: u64,
    /// The status that `error_page` keeps or sets; wins over the handler's.
    pub error_status: Option<Status>,
    /// Whether an `error_page` was followed already.
    pub in_error_page: bool,
    /// Whether the connection may be kept after this exchange.
    pub keep_alive: bool,
    /// The response head.
    pub response: ResponseHead,
    /// The response body.
    pub body: Body,
    /// What rewrites the body on its way, as the header filters decided.
    pub body_filters: FilterSpecs,
    /// What is woven into the body.
    pub weaving: Option<Box<Weaving>>,
    /// Whether ranges may be cut from the body.
    pub allow_ranges: bool,
    /// `X-Accel-Limit-Rate` or `set $limit_rate`, in bytes per second.
    pub limit_rate: Option<u64>,
    /// What is known of the upstream, once the request was passed on.
    pub upstream: Option<Box<Passed>>,
    /// What modules remember of it.
    pub notes: Notes,
    /// What makes it a subrequest, if it is one.
    pub lineage: Option<Lineage>,
    /// The subrequest that a handler waits for.
    pub order: Option<Box<Order>>,
    /// Subrequests that nobody waits for.
    pub background: Vec<Order>,
    /// What the shell counted.
    pub outcome: Outcome,
    slots: Vec<Kept>,
    slot_text: Vec<u8>,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("uri", &String::from_utf8_lossy(&self.uri)).finish_non_exhaustive()
    }
}

/// A recycled exchange keeps at most this many bytes of head and texts.
const KEPT_CAPACITY: usize = 16 * 1024;

impl Exchange {
    /// An exchange for the head in `head`; `recycled` gives its memory.
    pub fn begin(
        site: SiteHandle,
        address: AddressId,
        connection: ConnectionFacts,
        started_ms: u64,
        head: RequestHead,
    ) -> Exchange {
        let mut exchange = Exchange {
            site,
            address,
            server: ServerId(0),
            location: LocationId(0),
            connection,
            started_ms,
            head,
            uri: Vec::new(),
            args: Vec::new(),
            uri_is_original: true,
            uri_fits_location: true,
            uri_extends_alias: false,
            internal: false,
            uri_changes_left: MAX_URI_CHANGES + 1,
            method_is_get: false,
            stage: Stage::Start,
            rewriting: rewrite::Running::default(),
            trying: try_files::Running::default(),
            content_step: 0,
            captures: Captures::default(),
            capture_subject: Vec::new(),
            path: Vec::new(),
            root_length: 0,
            symlinks: Symlinks::Follow,
            opened: Opened::default(),
            reading: None,
            variable_depth: 0,
            sent_trailers: Fields::default(),
            request_body: RequestBody::Unread,
            request_body_length: 0,
            error_status: None,
            in_error_page: false,
            keep_alive: true,
            response: ResponseHead::default(),
            body: Body::Empty,
            body_filters: FilterSpecs::new(),
            weaving: None,
            allow_ranges: false,
            limit_rate: None,
            upstream: None,
            notes: Notes::default(),
            lineage: None,
            order: None,
            background: Vec::new(),
            outcome: Outcome::default(),
            slots: Vec::new(),
            slot_text: Vec::new(),
        };
        exchange.prepare_slots();
        exchange.choose_default_server();
        exchange
    }

    /// Turns a finished exchange into a new one on the same connection, keeping its memory. The head must have been
    /// filled in place already.
    pub fn begin_again(&mut self, site: &SiteHandle, address: AddressId, started_ms: u64) {
        if !self.site.is_same(site) {
            self.site = site.clone();
        }
        self.address = address;
        self.started_ms = started_ms;
        self.uri.clear();
        self.args.clear();
        self.uri_is_original = true;
        self.uri_fits_location = true;
        self.uri_extends_alias = false;
        self.internal = false;
        self.uri_changes_left = MAX_URI_CHANGES + 1;
        self.method_is_get = false;
        self.stage = Stage::Start;
        self.rewriting = rewrite::Running::default();
        self.trying = try_files::Running::default();
        self.content_step = 0;
        self.captures.clear();
        self.capture_subject.clear();
        self.path.clear();
        self.root_length = 0;
        self.symlinks = Symlinks::Follow;
        self.opened.forget();
        self.reading = None;
        self.variable_depth = 0;
        self.sent_trailers.clear();
        self.request_body = RequestBody::Unread;
        self.request_body_length = 0;
        self.error_status = None;
        self.in_error_page = false;
        self.keep_alive = true;
        self.response.clear();
        self.body = Body::Empty;
        self.body_filters.clear();
        self.weaving = None;
        self.allow_ranges = false;
        self.limit_rate = None;
        if let Some(passed) = &mut self.upstream {
            passed.clear();
        }
        self.notes = Notes::default();
        self.lineage = None;
        self.order = None;
        self.background.clear();
        self.outcome = Outcome::default();
        self.prepare_slots();
        self.choose_default_server();
    }

    /// Gives memory back that one large request made it hold.
    pub fn shrink(&mut self) {
        if self.head.fields.capacity() > KEPT_CAPACITY {
            self.head = RequestHead::default();
        }
        for buffer in
            [&mut self.uri, &mut self.args, &mut self.capture_subject, &mut self.path, &mut self.slot_text]
        {
            if buffer.capacity() > KEPT_CAPACITY {
                *buffer = Vec::new();
            }
        }
        if self.response.fields.capacity() > KEPT_CAPACITY {
            self.response = ResponseHead::default();
        }
        if self.sent_trailers.capacity() > KEPT_CAPACITY {
            self.sent_trailers = Fields::default();
        }
        if self.upstream.as_ref().is_some_and(|passed| passed.response.fields.capacity() > KEPT_CAPACITY) {
            self.upstream = None;
        }
        self.body = Body::Empty;
        self.body_filters.clear();
        self.weaving = None;
        self.opened.forget();
        self.reading = None;
        self.request_body = RequestBody::Unread;
        self.notes = Notes::default();
    }

    fn prepare_slots(&mut self) {
        self.slots.clear();
        self.slots.resize(self.site.variables.slots, Kept::Unset);
        self.slot_text.clear();
    }

    /// Sees the values of variables that the request has which makes it.
    pub(super) fn take_slots(&mut self, parent: &Exchange) {
        self.slots.clone_from(&parent.slots);
        self.slot_text.clone_from(&parent.slot_text);
    }

    fn choose_default_server(&mut self) {
        let site = &self.site;
        self.server = site.addresses[self.address.0 as usize].default_server;
        self.location = site.server(self.server).root;
    }

    /// Goes on until something is needed from outside or the response is ready.
    pub fn step(&mut self, env: &mut Env, answer: Option<Answer>) -> Step {
        let site = self.site.clone();
        phases::run(self, &mut Context { site: &site, env }, answer)
    }

    /// Begins with a refusal instead of the phases: the head was not acceptable.
    pub fn refuse(&mut self, env: &mut Env, status: Status) -> Step {
        let site = self.site.clone();
        phases::refuse(self, &mut Context { site: &site, env }, status)
    }

    /// Answers 408 to a body that comes too slowly.
    pub fn refuse_slowness(&mut self, env: &mut Env) -> Step {
        let site = self.site.clone();
        phases::refuse_slowness(self, &mut Context { site: &site, env })
    }

    /// The host that the client named, in lower case without port; empty if it named none.
    pub fn host(&self) -> &[u8] {
        self.head.text(self.head.host)
    }

    /// Whether the client asked for the head only.
    pub fn is_head(&self) -> bool {
        self.head.method == crate::message::Method::Head
    }

    /// Makes a recycled exchange one of this site and address, before a head is read into it.
    pub fn rebase(&mut self, site: &SiteHandle, address: AddressId) {
        if !self.site.is_same(site) {
            self.site = site.clone();
        }
        self.address = address;
        self.choose_default_server();
    }

    /// The settings of the scope that the request is in.
    pub fn scope_settings(&self) -> &LocationSettings {
        self.site.settings(self.location)
    }

    /// The method that handlers go by.
    pub fn method(&self) -> crate::message::Method {
        if self.method_is_get { crate::message::Method::Get } else { self.head.method }
    }

    /// The scope that the request is in, with the lifetime of the site.
    pub fn scope<'a>(&self, context: &Context<'a>) -> &'a Location {
        context.site.location(self.location)
    }

    /// Whether the client speaks a version with chunked coding and persistent connections by default.
    pub fn is_http11(&self) -> bool {
        self.head.version >= Version::Http11
    }

    /// What is in a slot.
    pub fn kept(&self, slot: Slot) -> Kept {
        self.slots[usize::from(slot.0)]
    }

    /// Puts a value into a slot; `None` for a variable without one.
    pub fn keep(&mut self, slot: Slot, value: Option<&[u8]>) {
        self.slots[usize::from(slot.0)] = match value {
            None => Kept::Missing,
            Some(text) => {
                let start = self.slot_text.len() as u32;
                self.slot_text.extend_from_slice(text);
                Kept::Text(start, self.slot_text.len() as u32)
            }
        };
    }

    /// Appends what a slot holds; `false` if it holds no value.
    pub fn append_kept(&self, kept: Kept, out: &mut Vec<u8>) -> bool {
        match kept {
            Kept::Text(start, end) => {
                out.extend_from_slice(&self.slot_text[start as usize..end as usize]);
                true
            }
            Kept::Unset | Kept::Missing => false,
        }
    }
}
