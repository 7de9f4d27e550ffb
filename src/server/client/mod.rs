//! One client connection, bound to its socket.
//!
//! A connection is in one of few states ([`State`]); what an idle one holds beside itself is nothing. Its turn begins
//! with an event (readable, writable, an answer of the pool, a deadline) and ends when the socket would block, when
//! something is waited for, or when the turn's budget is spent: then it stands in the ready list behind the others.
//!
//! - [`serve`]: bytes in, requests, the exchange's steps;
//! - [`output`]: the response's bytes out;
//! - [`request_body`]: bodies that are asked for;
//! - [`passing`]: requests that are passed on to an upstream;
//! - [`tunnel`]: bytes both ways;
//! - [`pipe`]: what subrequests write to;
//! - [`transport`], [`tls`], [`wire`], [`h2`], [`lane`]: what is under all that: sockets, encryption, protocols;
//! - [`patience`]: how long a client is waited for;
//! - [`closing`]: what follows a response: keep-alive, discarding, lingering, closing.

pub mod closing;
pub mod h2;
pub mod kernel_tls;
pub mod lane;
pub mod named_certificates;
mod needs;
pub mod output;
pub mod passing;
mod patience;
pub mod pipe;
pub mod request_body;
pub mod serve;
pub mod tls;
pub mod transport;
pub mod tunnel;
pub mod wire;

use crate::base::pace::Pace;
use crate::http::body::Body;
use crate::http::exchange::{ConnectionFacts, Exchange};
use crate::proto::proxy_protocol::ProxyReader;
use crate::server::files::TemporaryFile;
use crate::server::pool::JobId;
use crate::server::relay::Relay;
use crate::server::worker::addresses::AddressPermit;
use crate::server::worker::counters::Counted;
use crate::server::worker::resources::Resources;

use h2::SharedMux;
use output::Output;
use output::parking::Parked;
use pipe::SharedPipe;
use request_body::BodyReader;
use transport::Transport;
use tunnel::Tunnel;
use wire::Wire;

/// Names a connection: its place in the worker's slab and the generation of its tenancy, so that whatever comes late
/// for a former tenant is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientKey {
    /// Place in the slab.
    pub index: u32,
    /// Tenancy of that place.
    pub generation: u32,
}

impl ClientKey {
    /// As one number, for the timer wheel.
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// Back from [`ClientKey::to_bits`].
    pub fn from_bits(bits: u64) -> ClientKey {
        ClientKey { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

/// Where a connection stands.
pub enum State {
    /// The PROXY protocol's header comes first.
    ProxyHeader(Box<ProxyReader>),
    /// So many bytes came, and they are those that HTTP/2 begins with.
    Preface(u8),
    /// Between requests, or within a request head.
    Head,
    /// HTTP/2 is spoken: requests are clients of their own.
    Multiplexed(SharedMux),
    /// A request is being served.
    Active(Box<Active>),
    /// A request waits for window. Not within a turn.
    Parked(Box<Parked>),
    /// A response was sent; the rest of the request's body is dropped until the next head.
    Discarding {
        /// Monotonic milliseconds when patience ends.
        until_ms: u64,
    },
    /// Writing is shut down; whatever comes is dropped for a while, so that the response reaches the client.
    Lingering {
        /// Monotonic milliseconds when patience ends.
        until_ms: u64,
    },
}

/// A request being served.
pub struct Active {
    /// The request and its response.
    pub exchange: Exchange,
    /// What it waits for.
    pub waiting: Waiting,
    /// The response's way out.
    pub output: Output,
    /// The request body, while it is read for the exchange.
    pub body: Option<BodyReader>,
    /// The file that the body was put into; dropped (and removed) with the request.
    pub body_file: Option<TemporaryFile>,
    /// The way to an upstream and back, if the request was passed on.
    pub relay: Option<Box<Relay>>,
    /// The subrequest that it waits for.
    pub subrequest: Option<SharedPipe>,
    /// Bytes of the body that were passed on as they came.
    pub uploaded: u64,
    /// Monotonic milliseconds when the last piece of such a body came; 0 before the first.
    pub upload_moved_ms: u64,
    /// The tunnel that the connection has become.
    pub tunnel: Option<Box<Tunnel>>,
}

/// What an active request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Nothing: it is being moved on.
    Nothing,
    /// The answer of the pool to a need of the exchange.
    Answer(JobId),
    /// A time (`limit_req`).
    Delay,
    /// The request body.
    Body,
    /// The end of a subrequest.
    Subrequest,
    /// The upstream's response.
    Upstream,
    /// Either side of a tunnel.
    Tunnel,
    /// Room in the socket, or `limit_rate`, or the pool's reading of a file.
    Output,
}

/// A client connection.
pub struct Client {
    /// The way to it.
    pub transport: Transport,
    /// Its tenancy of the slab's place.
    pub generation: u32,
    /// Where it stands.
    pub state: State,
    /// The wire machine.
    pub wire: Wire,
    /// What the engine knows of it.
    pub facts: ConnectionFacts,
    /// Listening socket that it came from, by its number in the worker.
    pub listener: u32,
    /// Monotonic milliseconds when something must have happened.
    pub deadline_ms: u64,
    /// Monotonic milliseconds when the client, which is waited for, has done nothing for too long.
    pub patience_ms: u64,
    /// Whether it sends, or takes, as much as it must.
    pub pace: Pace,
    /// When the wheel wakes it, at the latest; `u64::MAX` if it does not.
    pub armed_ms: u64,
    /// Monotonic milliseconds of the last byte in an idle connection's favour.
    pub last_active_ms: u64,
    /// Monotonic milliseconds of the first byte of the request head that is being read; 0 between requests.
    pub head_began_ms: u64,
    /// Bytes of the request head and body that were read.
    pub request_bytes: u64,
    /// What is known of the socket's readiness.
    pub flags: Flags,
    /// Idle milliseconds that the last response granted.
    pub idle_ms: u32,
    /// Not closed within so many milliseconds of idleness (`keepalive_min_timeout`).
    pub keep_ms: u32,
    /// Milliseconds without a byte that end discarding and lingering.
    pub linger_timeout_ms: u32,
    /// Bytes of the wire that the socket did not take; they go before everything else.
    pub unsent: Vec<u8>,
    /// What it is counted as.
    pub counted: Counted,
    /// Its place among those of its address, where these are limited.
    pub permit: Option<AddressPermit>,
}

/// What is known of a connection's socket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flags {
    /// It is registered with the poll for reading.
    pub registered: bool,
    /// And for writing.
    pub wants_write: bool,
    /// The peer shut its side down: a short read does not mean that nothing is left.
    pub read_closed: bool,
    /// Reading stopped before the socket was empty.
    pub unread: bool,
    /// The present request had come already when the one before it was answered.
    pub pipelined: bool,
    /// Bytes came behind the request that is being served.
    pub more_follows: bool,
    /// It stands in the ready list.
    pub in_ready_list: bool,
    /// The socket refused some of what is unsent.
    pub owes: bool,
    /// It may have more unsent in the kernel than others.
    pub fast_reader: bool,
    /// The client is gone, and its request is finished for the upstream's sake alone.
    pub gone: bool,
    /// It was closed by the server's own decision to reset it.
    pub reset: bool,
}

/// What is to become of a connection after its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It lives on.
    Keep,
    /// Close it now.
    Close,
}

const _: () = assert!(size_of::<Client>() <= 360, "an idle connection is little more than this");

/// A length of time as connections keep it: at most 49 days.
pub fn saturated_ms(ms: u64) -> u32 {
    u32::try_from(ms).unwrap_or(u32::MAX)
}

impl Client {
    /// Whether it may be closed for the sake of others: it is idle, has been of use, and has had its least time.
    pub fn may_give_way(&self, now_ms: u64) -> bool {
        self.is_idle()
            && self.facts.requests > 0
            && self.last_active_ms.saturating_add(self.keep_ms.into()) <= now_ms
    }

    /// Whether nothing of a request is under way: it may be closed without loss.
    pub fn is_idle(&self) -> bool {
        match &self.state {
            State::Head => self.wire.is_idle() && !self.wire.has_held(),
            State::Multiplexed(mux) => mux.borrow().is_idle() && self.unsent.is_empty(),
            _ => false,
        }
    }
}

impl Active {
    /// Whether more of a body that is passed on as it comes can be taken now.
    pub fn takes_upload(&self) -> bool {
        self.relay.as_ref().is_some_and(|relay| relay.has_upload_room())
    }

    /// The response is made of something else than what the upstream sent: the upstream is let go.
    pub fn drop_idle_relay(&mut self, res: &mut Resources) {
        if !matches!(self.exchange.body, Body::Upstream(_))
            && let Some(relay) = self.relay.take()
        {
            relay.abandon(&mut self.exchange, res);
        }
    }

    /// The connection is a tunnel from here on; `held` came behind the request.
    pub fn begin_tunnel(&mut self, held: Vec<u8>) {
        let early = self.relay.as_mut().map(|relay| relay.take_early()).unwrap_or_default();
        self.tunnel = Some(Box::new(Tunnel::new(held, early)));
    }

    /// An active request around an exchange.
    pub fn new(exchange: Exchange) -> Active {
        Active {
            exchange,
            waiting: Waiting::Nothing,
            output: Output::default(),
            body: None,
            body_file: None,
            relay: None,
            subrequest: None,
            uploaded: 0,
            upload_moved_ms: 0,
            tunnel: None,
        }
    }
}
