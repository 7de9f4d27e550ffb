//! Connections to peers that carry many requests at a time: HTTP/2.
//!
//! ```text
//!              stands           TLS begins             is done        broken, worn, idle, given up
//! Connecting ─────────> Plain ─────────────> Securing ─────────> Open ─────────────────────────────> Closed
//!           └────────────────── without TLS ────────────────────> ┘
//! ```
//!
//! A [`Mux`] is such a connection: its socket, its wire machine, and a slot for each relay that uses it. The worker gives
//! it its turns (`turns.rs`): what came is put into the slots, whose relays are resumed; what the relays have written goes
//! out once all of them had their turns. A relay holds a [`StreamLink`] in the place of a connection of its own
//! (`stream.rs`). Which connection a request gets, and when one is closed, is in `pool.rs`.
//!
//! What is bounded: streams by what the peer says and [`MOST_STREAMS`]; bytes that wait in a slot by the stream's window;
//! frames that wait for the socket by [`OUT_BYTES`], beyond which relays wait for their turn.

mod pool;
mod stream;
mod tunnel;
mod turns;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use rustix::io::Errno;
use slab::Slab;

use crate::http::site::LocationId;
use crate::http::upstream_call::CallTls;
use crate::message::{Fields, ResponseHead};
use crate::proto::h2::{self, ErrorCode, StreamKey, StreamLoss};
use crate::server::client::ClientKey;
use crate::server::worker::resources::Resources;
use crate::upstream::{Group, Peer};

use super::connection::Connection;
use super::tls::HandshakeFailure;

pub use pool::{Multiplexed, Wanted, join, retain_groups, retire_all, sweep};
pub use tunnel::StreamTunnel;
pub use turns::{run, run_queued};

/// Streams that are open on one connection at a time, whatever its peer allows.
pub const MOST_STREAMS: u32 = 100;
/// Streams that are given up on a connection within [`RESETS_MS`]; then it takes no new ones. Peers count resets against
/// whoever sends them: clients that give up many requests are not to cost others theirs.
const MOST_RESETS: u32 = 50;
/// See above, in milliseconds.
const RESETS_MS: u64 = 10_000;
/// Bytes of memory for bodies that are kept for the next stream.
const KEPT_INBOX: usize = 16 * 1024;
/// Bytes of frames that are gathered before they are sent.
const OUT_BYTES: usize = 64 * 1024;

/// A connection in many hands.
pub type SharedMux = Rc<RefCell<Mux>>;

/// How far a connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The handshake is under way.
    Connecting,
    /// The first of its relays that has our certificate begins with TLS.
    Plain,
    /// The handshake of TLS is under way.
    Securing,
    /// It takes requests, unless it is worn.
    Open,
    /// It is gone.
    Closed(Gone),
}

/// Why a connection is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gone {
    /// It was not needed any more.
    Unused,
    /// It never stood.
    NotConnected(Errno),
    /// There is no TLS with its peer.
    NotSecured(HandshakeFailure),
    /// It was broken.
    Broken(Errno),
    /// The peer closed it.
    Ended,
    /// The peer broke the protocol.
    Protocol(&'static str),
}

/// See the module's documentation.
pub struct Mux {
    number: usize,
    stage: Stage,
    /// `None` once it is closed.
    connection: Option<Connection>,
    machine: h2::Client,
    tls: Option<Arc<CallTls>>,
    group: Arc<Group>,
    peer: Arc<Peer>,
    location: LocationId,
    /// Bytes that the head of a response may have.
    head_bytes: usize,
    /// Frames for the peer.
    out: Vec<u8>,
    /// Bytes of `out` that were sent.
    sent: usize,
    /// Bytes that were sent in all.
    total_sent: u64,
    slots: Slab<Slot>,
    /// Slots whose requests were not written yet.
    unopened: usize,
    /// Stream and slot, by the number that the machine gives open streams.
    streams: Vec<(u32, usize)>,
    scratch: ResponseHead,
    /// Recycled memory for bodies.
    spare: Vec<u8>,
    requests: u32,
    opened_ms: u64,
    /// When the last stream ended.
    idle_since_ms: u64,
    /// When something was last received.
    received_ms: u64,
    /// It takes no new requests.
    retired: bool,
    /// Streams that were given up here since then.
    resets: (u32, u64),
    queued: bool,
}

/// One relay's part of a connection.
struct Slot {
    client: ClientKey,
    /// Once the request was written.
    stream: Option<StreamKey>,
    /// How many bytes had gone to the peer, or waited to, before its request.
    begins_at: u64,
    wants_hints: bool,
    hints: Option<ResponseHead>,
    head: Option<Head>,
    /// Bytes of the body that were not taken yet; the stream's window bounds them.
    inbox: Vec<u8>,
    /// Bytes of the body in all.
    received: u64,
    trailers: Fields,
    /// The response is complete.
    ended: bool,
    lost: Option<Loss>,
    stirred: bool,
}

/// A response's head that waits for its relay.
struct Head {
    head: ResponseHead,
    /// Bytes of the body, where they are known.
    length: Option<u64>,
    /// A tunnel was asked for and is there.
    switched: bool,
}

/// Why a request gets no response, or no more of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Its stream is gone.
    Stream(StreamLoss),
    /// It asks for a tunnel, and the peer takes none: nothing was sent.
    NoTunnel,
    /// The connection is. `unsent` if nothing of the request had left.
    Connection {
        /// Why.
        gone: Gone,
        /// See above.
        unsent: bool,
    },
}

/// A place on a connection, as a relay holds it. Dropped, its stream is given up.
pub struct StreamLink {
    mux: SharedMux,
    slot: usize,
}

impl Mux {
    /// Bytes that wait for the socket.
    fn backlog(&self) -> usize {
        self.out.len() - self.sent
    }

    /// The slot of a stream that the machine names.
    fn slot_of(&mut self, stream: StreamKey) -> Option<&mut Slot> {
        let (id, slot) = *self.streams.get(stream.slot())?;
        self.slots.get_mut(slot).filter(|_| id == stream.id())
    }

    /// Lets go of a relay's place; what it has not finished is reset.
    fn release(&mut self, slot: usize, now_ms: u64) {
        let Some(slot) = self.slots.try_remove(slot) else { return };
        if self.spare.capacity() == 0 && slot.inbox.capacity() <= KEPT_INBOX {
            self.spare = slot.inbox;
            self.spare.clear();
        }
        match slot.stream {
            Some(stream) => {
                if now_ms.saturating_sub(self.resets.1) >= RESETS_MS {
                    self.resets = (0, now_ms);
                }
                let before = self.out.len();
                self.machine.reset(stream, ErrorCode::CANCEL, &mut self.out);
                self.resets.0 += u32::from(self.out.len() > before);
                self.retired |= self.resets.0 >= MOST_RESETS;
            }
            None => self.unopened -= 1,
        }
    }

    /// Whether it may take another request.
    fn has_room(&self) -> bool {
        !self.retired
            && !matches!(self.stage, Stage::Closed(_))
            && self.backlog() < OUT_BYTES
            && self.machine.free_streams() > self.unopened
    }
}

impl Slot {
    fn new(client: ClientKey, wants_hints: bool, memory: Vec<u8>) -> Slot {
        Slot {
            client,
            stream: None,
            begins_at: 0,
            wants_hints,
            hints: None,
            head: None,
            inbox: memory,
            received: 0,
            trailers: Fields::default(),
            ended: false,
            lost: None,
            stirred: false,
        }
    }

    /// Has its relay look at what has come.
    fn stir(&mut self, res: &mut Resources) {
        if !std::mem::replace(&mut self.stirred, true) {
            res.resumed.push(self.client);
        }
    }

    /// Notes why nothing more comes, unless everything has.
    fn lose(&mut self, loss: Loss, res: &mut Resources) {
        if !self.ended && self.lost.is_none() {
            self.lost = Some(loss);
        }
        self.stir(res);
    }
}

/// Has a connection send what was written, once the relays had their turns.
fn queue(mux: &SharedMux, res: &mut Resources) {
    if !std::mem::replace(&mut mux.borrow_mut().queued, true) {
        res.multiplexed.turns.push(Rc::clone(mux));
    }
}

impl Drop for StreamLink {
    fn drop(&mut self) {
        if let Ok(mut mux) = self.mux.try_borrow_mut() {
            let now_ms = mux.received_ms;
            mux.release(self.slot, now_ms);
        }
    }
}
