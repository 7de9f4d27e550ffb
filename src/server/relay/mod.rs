//! One request on its way to an upstream and its response on the way back, whatever protocol the upstream speaks.
//!
//! ```text
//!            pick            connected          head is there        body ended
//! Choosing ────────> Connecting ────────> Heading ───────────> Body ───────────> Over
//!    ^  │ name, queue     │                  │ 101             (tunnel: Raw)
//!    │  └──> Waiting      │ failed           │ failed, and may be tried again
//!    └────────────────────┴──────────────────┘
//! ```
//!
//! - `Choosing`: the group's method names a peer; a pooled connection to it is taken or a new one begun.
//! - `Waiting`: for a name's addresses, or for a place in the group's queue.
//! - `Connecting`: the handshake is under way. Deadline: `connect_timeout` after it began.
//! - `Heading`: the request goes out while the response's head may come already. Deadline: `send_timeout` after the
//!   last write, once all is sent `read_timeout` after the last read.
//! - `Body`: the head was answered; the client's output pulls ([`Relay::fill`]), or [`Relay::absorb`] reads ahead while
//!   the client is slow. Deadline: `read_timeout` after the last read.
//! - `Raw`: a tunnel; the client's side moves the bytes.
//! - `Over`: the connection went back to the pool or was closed; what the client has not got yet is kept.
//!
//! Every try is reported to its group once, in [`Relay::end_try`], by whatever way it ends.
//!
//! The relay never touches the client's socket: it belongs to whoever owns the exchange, and tells by [`Progress`] and
//! [`Fill`] what has come.

pub mod connection;
pub mod inbound;
pub mod links;
pub mod outbound;
mod peers;
mod receiving;
mod sending;
pub mod wire;

use std::sync::Arc;

use crate::http::exchange::Exchange;
use crate::http::upstream_call::{Attempt, Passed, UpstreamFailure};
use crate::server::client::ClientKey;
use crate::server::worker::resources::Resources;
use crate::upstream::retry::Failure;

use connection::Connection;
use inbound::Inbound;
use links::Owner;
use outbound::Outbound;
use peers::Choice;
use sending::Sending;

/// Where a relay stands; see the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Choosing,
    Waiting,
    Connecting,
    Heading,
    Body,
    Raw,
    Over,
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// As it should.
    Complete,
    /// Too early, or in disorder.
    Broken(Failure),
}

/// What [`Relay::advance`] has come to.
pub enum Progress {
    /// Nothing more until an event or the deadline.
    Waiting,
    /// The response's head is in [`Passed::response`].
    Head,
    /// A 103 is there, for the client.
    EarlyHints,
    /// No peer gave a usable response.
    Failed(UpstreamFailure),
}

/// What [`Relay::fill`] has come to.
pub enum Fill {
    /// There is something for the client, or there may be at the next call.
    Ready,
    /// Nothing until an event.
    Waiting,
    /// The client has everything.
    Complete,
    /// The response ends here and is not complete.
    Broken,
}

/// One try at one peer.
pub(crate) struct Run {
    choice: Choice,
    connection: Connection,
    /// The connection had served another request before.
    reused: bool,
    sending: Sending,
    /// Bytes sent.
    sent: u64,
    /// Bytes received.
    received: u64,
    /// Bytes of the body received.
    body: u64,
    /// Monotonic milliseconds when it began.
    began_ms: u64,
    /// When the last byte went either way.
    moved_ms: u64,
    connected: bool,
    /// When it counts as silent; `None` once it does, or has answered.
    overdue_ms: Option<u64>,
    overdue: bool,
}

/// See the module's documentation.
pub struct Relay {
    owner: ClientKey,
    state: State,
    choosing: peers::Choosing,
    run: Option<Run>,
    /// The body on its way to the client.
    pub inbound: Inbound,
    outbound: Outbound,
    /// What came behind a 103 or a 101.
    early: Vec<u8>,
    ending: Option<Ending>,
    creating: Option<JobId>,
    store: Option<Store>,
    limit: Option<Limit>,
    began_ms: u64,
    /// When the present try or wait fails.
    deadline_ms: u64,
    ignores_client: bool,
}
