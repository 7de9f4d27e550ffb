//! A request that is passed on: what a handler asks of the shell's relay, and what the relay reports.
//!
//! 1. The handler fills a [`Call`] into [`Exchange::upstream`](super::exchange::Exchange::upstream) and answers
//!    `Flow::Need(Need::Upstream)`.
//! 2. The relay chooses a peer, connects, sends, and reads until a response's head is there; what fails on the way is
//!    tried again elsewhere as the call's [`Conduct`] allows. Every try is an [`Attempt`].
//! 3. It answers [`Answer::Upstream`](super::flow::Answer::Upstream) once: with the head in [`Passed::response`], or
//!    with what went wrong.
//! 4. The handler makes the client's response of it. With [`Body::Upstream`] the relay goes
//!    on and the output pulls the body from it; with any other decision (an error page, an internal redirect) the relay
//!    is dropped.

use std::fmt;
use std::sync::Arc;

use crate::base::level::Level;
use crate::message::{FieldName, Fields, RequestFraming, ResponseHead, Status};

use crate::upstream::{Group, Peer};

use super::body::Body;
use super::context::Env;
use super::exchange::Exchange;
use super::modules::passing::{PassUrl, UpstreamTls};
use super::modules::proxy::{self, is_nominated, members};
use super::modules::request_body::TempPath;
use super::modules::ssl::PairText;

/// An address as the configuration or a variable names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PassAddress {
    /// A group's name, a host's name or an address, with the port where one is given.
    Host {
        /// Without brackets around IPv6.
        host: Box<[u8]>,
        /// As written; the protocol's usual one else.
        port: Option<u16>,
        /// The protocol's usual port.
        default_port: u16,
    },
    /// `unix:/path`
    Unix(Box<[u8]>),
}

/// Position in `Builder::passes` while the configuration is read, and of the group that it
/// became in the frozen site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PassId(pub u32);

/// Where a call goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To a group of the configuration; an address in it is a group of one.
    Fixed(PassId),
    /// To what variables said; it may name a group of the configuration.
    Computed(PassAddress),
}

/// The wire protocol of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1; the call's head says which.
    Http1,
    /// HTTP/2, on a connection that other calls share: the request is in [`Call::framed`].
    Http2,
    /// memcached's text protocol.
    Memcached,
    /// None: bytes go both ways as soon as the connection is there (`tunnel_pass`).
    Raw,
}

/// The body of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CallBody {
    /// None.
    #[default]
    None,
    /// These bytes (`proxy_set_body`), framed by the head.
    Bytes(Vec<u8>),
    /// What was read of the client's, in [`super::exchange::Exchange::request_body`].
    Read,
    /// The client's as it comes (`proxy_request_buffering off`).
    Streamed {
        /// Whether it is sent in chunks: its length is not known.
        chunked: bool,
    },
}

/// Conditions of `proxy_next_upstream`, as bits.
pub mod conditions {
    /// Connecting, sending or reading the head failed.
    pub const ERROR: u32 = 1;
    /// The same by a timeout.
    pub const TIMEOUT: u32 = 1 << 1;
    /// The head is none, or empty.
    pub const INVALID_HEADER: u32 = 1 << 2;
    /// The peer denied the connection (`denied`).
    pub const DENIED: u32 = 1 << 3;
    /// Also for requests that change something.
    pub const NON_IDEMPOTENT: u32 = 1 << 4;
    /// Status 500.
    pub const HTTP_500: u32 = 1 << 5;
    /// Status 502.
    pub const HTTP_502: u32 = 1 << 6;
    /// Status 503.
    pub const HTTP_503: u32 = 1 << 7;
    /// Status 504.
    pub const HTTP_504: u32 = 1 << 8;
    /// Status 403.
    pub const HTTP_403: u32 = 1 << 9;
    /// Status 404.
    pub const HTTP_404: u32 = 1 << 10;
    /// Status 429.
    pub const HTTP_429: u32 = 1 << 11;
    /// Never.
    pub const OFF: u32 = 1 << 12;
}

/// How a location passes requests on; frozen, the same for all protocols.
#[derive(Clone, Debug)]
pub struct Conduct {
    /// Milliseconds to connect.
    pub connect_timeout: u64,
    /// Milliseconds between two successful writes.
    pub send_timeout: u64,
    /// Milliseconds between two successful reads.
    pub read_timeout: u64,
    /// [`conditions`].
    pub next_upstream: u32,
    /// At most so many tries; 0 for no limit.
    pub next_upstream_tries: u32,
    /// No further try after so many milliseconds; 0 for no limit.
    pub next_upstream_timeout: u64,
    /// Bytes of a response's head, and what is read at once without buffering.
    pub buffer_size: usize,
    /// Bytes of a body that are kept in memory for a slower client.
    pub buffers_bytes: usize,
    /// Bytes beyond `buffers_bytes` that go to a temporary file; 0 for none.
    pub max_temp_file_size: u64,
    /// Where that file lies.
    pub temp_path: Option<TempPath>,
    /// `SO_KEEPALIVE`
    pub socket_keepalive: bool,
    /// `SO_RCVBUF`; 0 for the system's.
    pub socket_rcvbuf: usize,
    /// `SO_SNDBUF`; 0 for the system's.
    pub socket_sndbuf: usize,
    /// Whether the upstream's response is read to its end although the client has gone.
    pub ignore_client_abort: bool,
    /// Modes of stored files (`proxy_store_access`).
    pub store_access: u32,
}

/// A request's head for a protocol that frames it itself: what HTTP/1 puts in lines.
#[derive(Debug, Default)]
pub struct FramedHead {
    /// The method.
    pub method: Vec<u8>,
    /// Whether the connection is secure (`https`).
    pub secure: bool,
    /// Host and port; may be empty.
    pub authority: Vec<u8>,
    /// Path and arguments, escaped as they are sent.
    pub path: Vec<u8>,
    /// All other fields.
    pub fields: Fields,
    /// How the body ends.
    pub framing: RequestFraming,
    /// It asks for a WebSocket, by extended CONNECT (RFC 8441); the method is GET here nevertheless.
    pub websocket: bool,
}

impl FramedHead {
    /// Makes it empty, keeping the memory.
    pub fn clear(&mut self) {
        let FramedHead { method, secure, authority, path, fields, framing, websocket } = self;
        for text in [method, authority, path] {
            text.clear();
        }
        fields.clear();
        (*secure, *framing, *websocket) = (false, RequestFraming::None, false);
    }
}

/// Whose directives a call goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PassModule {
    /// `proxy_...`, or none at all.
    #[default]
    Proxy,
    /// `grpc_...`
    Grpc,
}

/// `proxy_bind`, computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    /// The address; port 0 for any.
    pub address: std::net::SocketAddr,
    /// `transparent`: the address need not be ours.
    pub transparent: bool,
}

/// TLS as a call wants it. Only a connection that was made with the same may serve it.
#[derive(Clone, Debug)]
pub struct CallTls {
    /// The settings.
    pub tls: Arc<UpstreamTls>,
    /// The name that the upstream's certificate has to be for, and that is told to it.
    pub name: Box<str>,
    /// Our certificate, where its name has variables.
    pub pair: Option<PairText>,
}

impl PartialEq for CallTls {
    fn eq(&self, other: &CallTls) -> bool {
        Arc::ptr_eq(&self.tls, &other.tls) && self.name == other.name && self.pair == other.pair
    }
}

/// A request that is passed on.
#[derive(Debug)]
pub struct Call {
    /// Where to.
    pub target: Target,
    /// How.
    pub conduct: Arc<Conduct>,
    /// In which protocol.
    pub protocol: Protocol,
    /// Whether over TLS, and how.
    pub tls: Option<Arc<CallTls>>,
    /// The directives that it goes by.
    pub module: PassModule,
    /// The request up to its body, as it goes on the wire; empty where `framed` has it.
    pub head: Vec<u8>,
    /// The same for [`Protocol::Http2`].
    pub framed: Option<Box<FramedHead>>,
    /// Its body.
    pub body: CallBody,
    /// The method was HEAD: no body follows the response.
    pub is_head: bool,
    /// It asks for an upgrade, so that 101 is an answer.
    pub asks_upgrade: bool,
    /// It may be sent twice without harm (RFC 9110 section 9.2.2).
    pub idempotent: bool,
    /// The connection may be kept for another request.
    pub keep_alive: bool,
    /// Whether the body may be kept for a slow client; `X-Accel-Buffering` and streaming types change it.
    pub buffering: bool,
    /// Whether 103 responses are passed to the client.
    pub early_hints: bool,
    /// Whether trailers of the response are passed to the client.
    pub pass_trailers: bool,
    /// Bytes per second read from the upstream; 0 for no limit.
    pub limit_rate: u64,
    /// The address to connect from.
    pub local_address: Option<LocalAddress>,
    /// The file that a successful response is kept in (`proxy_store`).
    pub store: Option<Vec<u8>>,
    /// The key of `hash` (empty if the group has none).
    pub hash_key: Vec<u8>,
    /// The identifier of `sticky` (empty if the client brought none).
    pub sticky: Vec<u8>,
}

/// One try.
#[derive(Clone, Debug, Default)]
pub struct Attempt {
    /// The peer as `$upstream_addr` shows it; the group's name where no peer could be chosen.
    pub address: Arc<str>,
    /// Status of its response; 0 if none came. 502 or 504 where it failed, as in nginx.
    pub status: u16,
    /// Milliseconds until the connection stood; `None` if it never did.
    pub connect_ms: Option<u32>,
    /// Milliseconds until its head was there.
    pub header_ms: Option<u32>,
    /// Milliseconds in all.
    pub response_ms: Option<u32>,
    /// Milliseconds in the group's queue.
    pub queue_ms: Option<u32>,
    /// Bytes of the body that were received.
    pub response_length: u64,
    /// Bytes received in all.
    pub bytes_received: u64,
    /// Bytes sent in all.
    pub bytes_sent: u64,
    /// What went wrong, in one word; `None` if nothing did.
    pub token: Option<&'static str>,
    /// Whether an internal redirect lies between this try and the one before it.
    pub after_redirect: bool,
}

/// What could not be had from any peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamFailure {
    /// In one word (`$upstream_error`).
    pub token: &'static str,
    /// What to tell the client.
    pub status: Status,
}

/// Who was asked.
#[derive(Clone, Debug)]
pub struct Via {
    /// The group.
    pub group: Arc<Group>,
    /// Its peer.
    pub peer: Arc<Peer>,
}

/// A part of a body that passes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Bytes before it that are still to come.
    pub skip: u64,
    /// Bytes of it that are still to come.
    pub left: u64,
}

/// What an exchange knows of its upstream.
#[derive(Debug, Default)]
pub struct Passed {
    /// The call that is under way or was last.
    pub call: Option<Call>,
    /// The response's head as it came: status, reason, every line in order; no slot is filled.
    pub response: ResponseHead,
    /// Bytes of the response's body where they are known: `Content-Length`, or 0 where it has none.
    pub length: Option<u64>,
    /// The response is 101: a tunnel.
    pub switched: bool,
    /// The minor version of the response.
    pub minor: u8,
    /// Every try, oldest first.
    pub attempts: Vec<Attempt>,
    /// Trailers that came behind the body.
    pub trailers: Fields,
    /// What made the last call fail, if it did.
    pub error: Option<&'static str>,
    /// The part of the body that the client asked for.
    pub window: Option<Window>,
    /// The address that variables gave for the call.
    pub computed: Option<PassUrl>,
    /// The peer of the last try, where its group keeps sessions.
    pub via: Option<Via>,
    /// Recycled memory for the next call's head.
    pub spare: Vec<u8>,
    /// The same for one that its protocol frames itself.
    pub spare_framed: Option<Box<FramedHead>>,
}

impl Passed {
    /// Forgets the call before, but not its tries, and gives its memory for the next call's head.
    pub fn begin_call(&mut self) -> Vec<u8> {
        let attempts = std::mem::take(&mut self.attempts);
        self.clear();
        self.attempts = attempts;
        std::mem::take(&mut self.spare)
    }

    /// Whether nothing is known of an upstream: the request was not passed on.
    pub fn is_clear(&self) -> bool {
        self.call.is_none()
            && self.attempts.is_empty()
            && self.error.is_none()
            && self.window.is_none()
            && self.computed.is_none()
            && self.via.is_none()
    }

    /// Gets ready for another request, keeping the memory.
    pub fn clear(&mut self) {
        if let Some(call) = self.call.take() {
            self.spare = call.head;
            self.spare.clear();
            if let Some(mut framed) = call.framed {
                framed.clear();
                self.spare_framed = Some(framed);
            }
        }
        self.response.clear();
        self.length = None;
        self.switched = false;
        self.minor = 0;
        self.attempts.clear();
        self.trailers.clear();
        self.error = None;
        self.computed = None;
        self.window = None;
        self.via = None;
    }
}

impl Exchange {
    /// Whether the response is the beginning of a tunnel.
    pub fn is_switched(&self) -> bool {
        self.upstream.as_ref().is_some_and(|passed| passed.switched)
    }

    /// Whether trailers of an upstream may follow the response.
    pub fn passes_trailers(&self) -> bool {
        matches!(self.body, Body::Upstream(None))
            && self
                .upstream
                .as_ref()
                .is_some_and(|passed| passed.call.as_ref().is_some_and(|call| call.pass_trailers))
    }

    /// The trailers of the upstream's response, where they are passed on.
    pub fn pass_trailers(&self, trailers: &mut Fields) {
        let Some(passed) = &self.upstream else { return };
        if passed.call.as_ref().is_some_and(|call| call.pass_trailers) {
            let settings = proxy::in_force(self.scope_settings(), self);
            for (field, name, value) in passed.trailers.iter() {
                let stays = is_nominated(&passed.response.fields, name);
                if !stays && settings.passes_trailer(field.id, name, value) {
                    trailers.push(name, value);
                }
            }
        }
    }

    /// Takes what does not pass to the client out of an interim response that does (103).
    pub fn hide_from_early_hints(&mut self) {
        let site = self.site.clone();
        let settings = proxy::in_force(site.settings(self.location), self);
        if let Some(passed) = &mut self.upstream {
            let fields = &mut passed.response.fields;
            let nominated: Vec<Vec<u8>> =
                members(fields.all(FieldName::Connection)).map(<[u8]>::to_vec).collect();
            let stays = |name: &[u8]| nominated.iter().any(|other| other.eq_ignore_ascii_case(name));
            fields.retain(|id, name| !stays(name) && settings.passes_hint(id, name));
        }
    }

    /// Logs what happened with the upstream.
    pub fn log_upstream(&mut self, env: &mut Env, level: Level, message: fmt::Arguments) {
        self.log_in_scope(env, level, message);
    }
}
