//! Requests that a request makes of its own server: for leave to go on (`auth_request`), for pieces of its body (`ssi`,
//! `addition`, `slice`), or for nobody's eyes (`mirror`, `post_action`).
//!
//! Whoever wants one puts an [`Order`] on the exchange; the shell makes an exchange of it that sees the client's head,
//! its own URI, and copies of the variables, and serves it as any other. As in nginx a subrequest begins with the
//! server's rewrite program, is not asked who may, and is not logged unless `log_subrequest` says so.

use crate::message::{Method, RequestFraming};

use super::context::{Context, Env};
use super::exchange::{Exchange, RequestBody};
use super::modules::{charset, slice, ssi};
use super::phases::Stage;
use super::site::LocationId;

/// Subrequests may make subrequests of their own, so many deep (nginx's `NGX_HTTP_MAX_SUBREQUESTS`).
pub const MAX_DEPTH: u8 = 50;

/// A subrequest that is wanted.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// Its path; empty for one of a location without a URI of its own, which keeps that of the request.
    pub uri: Vec<u8>,
    /// What follows `?`.
    pub args: Vec<u8>,
    /// The location to begin in, instead of looking one up: a named one, or one that only orders reach.
    pub location: Option<LocationId>,
    /// The client's method is kept, else it is a GET.
    pub keeps_method: bool,
    /// The request's body goes with it.
    pub with_body: bool,
    /// Only its head is of interest: the body is dropped.
    pub head_only: bool,
    /// Its body is gathered, within `subrequest_output_buffer_size`, and comes with the exchange.
    pub captured: bool,
    /// It asks for this part of the response that the request is about, of whom the request itself has asked: it begins
    /// with the content handler of the location that the request has come to.
    pub slice: Option<slice::Slice>,
    /// What is sent if it fails or has no body: a page in its context (`stub` of `ssi`).
    pub stub: Option<Vec<u8>>,
}

/// What makes an exchange a subrequest.
#[derive(Clone, Copy, Debug)]
pub struct Lineage {
    /// 1 for one that a client's request made; 0 for that request itself in its `post_action`.
    pub depth: u8,
    /// The client's own request has become a GET (`$request_method` is that request's).
    pub main_is_get: bool,
}

impl Order {
    /// One for this text of the configuration: a path with or without arguments.
    pub fn for_target(target: &[u8]) -> Order {
        match memchr::memchr(b'?', target) {
            Some(at) => {
                Order { uri: target[..at].to_vec(), args: target[at + 1..].to_vec(), ..Order::default() }
            }
            None => Order { uri: target.to_vec(), ..Order::default() },
        }
    }
}

impl Exchange {
    /// Whether another request made it.
    pub fn is_subrequest(&self) -> bool {
        self.lineage.is_some()
    }

    /// Whether it may make subrequests: their depth is bounded, for a page that includes itself.
    pub fn may_order(&self) -> bool {
        self.lineage.is_none_or(|lineage| lineage.depth <= MAX_DEPTH)
    }

    /// Makes a recycled exchange a subrequest of another one.
    pub fn begin_subrequest(&mut self, parent: &Exchange, order: Order, now_ms: u64) {
        let Order { uri, args, location, keeps_method, with_body, head_only: _, captured: _, stub, slice } =
            order;
        let site = parent.site.clone();
        self.connection.clone_from(&parent.connection);
        self.head.clone_from(&parent.head);
        self.begin_again(&site, parent.address, now_ms);
        self.server = parent.server;
        self.location = site.server(parent.server).root;
        if uri.is_empty() {
            self.uri.clone_from(&parent.uri);
            self.args.clone_from(&parent.args);
        } else {
            self.uri = uri;
            self.args = args;
        }
        self.uri_is_original = slice.is_some() && parent.uri_is_original;
        self.internal = true;
        self.take_slots(parent);
        self.notes.charset = charset::for_subrequest(parent);
        self.notes.ssi = ssi::for_subrequest(parent, stub);
        if !keeps_method {
            self.head.method = Method::Get;
            self.method_is_get = true;
        }
        if with_body {
            self.request_body = match &parent.request_body {
                RequestBody::Unread => RequestBody::Unread,
                RequestBody::Memory(bytes) => RequestBody::Memory(bytes.clone()),
                RequestBody::File(path) => RequestBody::File(path.clone()),
            };
            self.request_body_length = parent.request_body_length;
        } else {
            self.head.framing = RequestFraming::None;
        }
        self.notes.slice = slice.clone().and_then(slice::for_subrequest);
        self.head.expects_continue = false;
        let depth = parent.lineage.map_or(0, |lineage| lineage.depth) + 1;
        let main_is_get = parent.lineage.map_or(parent.method_is_get, |lineage| lineage.main_is_get);
        self.lineage = Some(Lineage { depth, main_is_get });
        self.stage = match location {
            Some(location) if slice.is_some() => {
                self.location = location;
                self.uri_fits_location = parent.uri_fits_location;
                self.uri_extends_alias = parent.uri_extends_alias;
                self.captures.clone_from(&parent.captures);
                self.capture_subject.clone_from(&parent.capture_subject);
                self.content_step = 0;
                Stage::Content(0)
            }
            Some(location) => {
                self.location = location;
                self.rewriting.begin();
                Stage::Rewrite
            }
            None => {
                self.rewriting.begin();
                Stage::ServerRewrite
            }
        };
    }

    /// Makes what the page has for an include that comes to nothing the response, which had no body; `false` if there is
    /// no such thing.
    pub fn begin_stub(&mut self, env: &mut Env) -> bool {
        if self.lineage.is_none() {
            return false;
        }
        let site = self.site.clone();
        ssi::begin_stub(self, &mut Context { site: &site, env })
    }

    /// Whether a line in the access log is due.
    pub fn is_logged(&self) -> bool {
        self.lineage.is_none_or(|lineage| lineage.depth > 0 && self.scope_settings().core.log_subrequest)
    }
}
