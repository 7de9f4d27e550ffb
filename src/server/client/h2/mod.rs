//! HTTP/2 connections and their streams.
//!
//! A connection that speaks HTTP/2 is a client in [`State::Multiplexed`](super::State); each of its streams is a client
//! of its own, with a place in the slab, an exchange, deadlines, a relay, like one of HTTP/1, whose transport is the
//! stream. Both hold the [`Mux`]: the connection feeds it and sends its frames, streams take their bodies from it and
//! put theirs in. So nothing above learns which protocol brought a request.
//!
//! A turn of the connection reads frames: heads become streams to be born ([`Newborn`]), bodies wait in their slots, and
//! streams that something happened to are stirred. Then the worker gives these their turns, and last the connection is
//! told to send what all of them have written, in few records and system calls; while there is room, streams with more
//! to send are asked in the order of their priorities.

pub mod connection;
pub mod stream;

use std::cell::RefCell;
use std::os::fd::RawFd;
use std::rc::Rc;

use crate::base::pace::{Pace, Verdict};
use crate::http::exchange::ConnectionFacts;
use crate::http::modules::core::Settings;
use crate::http::site::AddressId;
use crate::proto::h1::RequestError;
use crate::proto::h2::{ErrorCode, Server, StreamKey};
use crate::server::worker::resources::Resources;

use super::{Active, ClientKey};
use connection::STANDING_MS;

/// Bytes of frames that are gathered before they are sent.
pub const OUT_BYTES: usize = 64 * 1024;

/// What a connection and its streams have in common.
pub struct Mux {
    /// The wire machine.
    pub machine: Server,
    /// Frames that are to be sent.
    pub out: Vec<u8>,
    /// The connection.
    pub connection: ClientKey,
    /// Its socket, for what the kernel tells of it.
    pub socket: RawFd,
    /// When a stream last ended, in monotonic milliseconds.
    pub last_end_ms: u64,
    /// When a frame or a field block began that is not whole yet, in monotonic milliseconds.
    pub amid_since_ms: Option<u64>,
    /// Whether the client opens the connection's window as fast as it must.
    pub pace: Pace,
    /// The socket takes nothing.
    stall: Option<Stall>,
    /// The connection is gone.
    pub closed: bool,
    slots: Vec<Slot>,
    queued: bool,
}

/// A socket that takes nothing.
#[derive(Clone, Copy)]
struct Stall {
    /// Since when, in monotonic milliseconds.
    since_ms: u64,
    /// It has lasted for long, and the streams were told.
    told: bool,
}

/// One stream's side of the connection.
#[derive(Default)]
struct Slot {
    id: u32,
    client: Option<ClientKey>,
    /// Bytes of the body that nobody has taken yet; the windows bound them.
    inbox: Vec<u8>,
    /// The body is complete.
    ended: bool,
    /// The stream is gone.
    lost: bool,
    /// It has waited for window for long, and its client was not told yet.
    stands: bool,
    stirred: bool,
}

impl Slot {
    /// The stream is gone. A body of which something is dropped here has no end: it must not look complete.
    fn lose(&mut self) {
        self.lost = true;
        self.ended &= self.inbox.is_empty();
        self.inbox = Vec::new();
    }
}

/// A mux in many hands.
pub type SharedMux = Rc<RefCell<Mux>>;

/// A stream whose head has come.
pub struct Newborn {
    /// What it belongs to.
    pub link: StreamLink,
    /// Its request.
    pub active: Box<Active>,
    /// The address that it came in on.
    pub address: AddressId,
    /// What is wrong with its head.
    pub refused: Option<RequestError>,
    /// The connection, as for the request before it.
    pub facts: ConnectionFacts,
    /// Listening socket of the connection.
    pub listener: u32,
    /// Bytes of its head.
    pub length: u64,
    /// Bytes go both ways behind its head.
    pub is_tunnel: bool,
}

/// A stream, as its client holds it.
#[derive(Clone)]
pub struct StreamLink {
    /// What it belongs to.
    pub mux: SharedMux,
    /// Which one it is.
    pub stream: StreamKey,
}

impl Mux {
    /// A mux around a machine.
    pub fn new(machine: Server, connection: ClientKey, socket: RawFd) -> Mux {
        Mux {
            machine,
            out: Vec::new(),
            connection,
            socket,
            last_end_ms: 0,
            amid_since_ms: None,
            pace: Pace::default(),
            stall: None,
            closed: false,
            slots: Vec::new(),
            queued: false,
        }
    }

    /// Whether too little was sent while the connection's window kept streams waiting: bytes, and milliseconds of waiting.
    pub fn judge_window(&mut self, core: &Settings, now_ms: u64) -> Option<(u64, u64)> {
        if self.pace.due_ms() > now_ms {
            return None;
        }
        match self.pace.judge(self.machine.content_sent(), now_ms, core.send_min_rate, core.send_timeout) {
            Verdict::Fine => None,
            Verdict::TooSlow { bytes, waited_ms } => Some((bytes, waited_ms)),
        }
    }

    /// Whether no stream is open and nothing is to be sent.
    pub fn is_idle(&self) -> bool {
        self.machine.open_streams() == 0 && self.out.is_empty()
    }

    fn slot(&mut self, stream: StreamKey) -> Option<&mut Slot> {
        self.slots.get_mut(stream.slot()).filter(|slot| slot.id == stream.id())
    }

    /// A place for a stream that was opened.
    fn open(&mut self, stream: StreamKey) {
        if self.slots.len() <= stream.slot() {
            self.slots.resize_with(stream.slot() + 1, Slot::default);
        }
        self.slots[stream.slot()] = Slot { id: stream.id(), ..Slot::default() };
    }

    /// The client of a stream.
    pub fn client_of(&mut self, stream: StreamKey) -> Option<ClientKey> {
        self.slot(stream)?.client
    }

    /// Names the client of a stream.
    pub fn adopt(&mut self, stream: StreamKey, client: ClientKey) {
        if let Some(slot) = self.slot(stream) {
            slot.client = Some(client);
        }
    }

    /// Tells a stream's client that something happened.
    fn stir(slot: &mut Slot, res: &mut Resources) {
        if let Some(client) = slot.client
            && !std::mem::replace(&mut slot.stirred, true)
        {
            res.stirred.push(client);
        }
    }

    fn deliver(&mut self, stream: StreamKey, data: &[u8], res: &mut Resources) {
        match self.slot(stream).filter(|slot| !slot.lost) {
            Some(slot) => {
                slot.inbox.extend_from_slice(data);
                Mux::stir(slot, res);
            }
            None => {
                let Mux { machine, out, .. } = self;
                machine.consumed(stream, data.len(), out);
            }
        }
    }

    fn end(&mut self, stream: StreamKey, res: &mut Resources) {
        if let Some(slot) = self.slot(stream) {
            slot.ended = true;
            Mux::stir(slot, res);
        }
    }

    /// The stream waits for window, and has for long.
    fn stand(&mut self, stream: StreamKey, res: &mut Resources) {
        if let Some(slot) = self.slot(stream) {
            slot.stands = true;
            Mux::stir(slot, res);
        }
    }

    /// The socket is full, and `moved` says whether it took something before it was. When the streams are to be told, in
    /// monotonic milliseconds.
    fn stalled(&mut self, moved: bool, now_ms: u64) -> u64 {
        let fresh = Stall { since_ms: now_ms, told: false };
        let stall = *self.stall.insert(self.stall.filter(|_| !moved).unwrap_or(fresh));
        if stall.told { u64::MAX } else { stall.since_ms + STANDING_MS }
    }

    /// Whether the socket has taken nothing for long.
    pub fn is_stalled(&self) -> bool {
        self.stall.is_some_and(|stall| stall.told)
    }

    /// Tells the streams that the socket has taken nothing for long, once it has.
    fn stand_if_stalled(&mut self, now_ms: u64, res: &mut Resources) {
        let Some(stall) = &mut self.stall else { return };
        if stall.told || stall.since_ms + STANDING_MS > now_ms {
            return;
        }
        stall.told = true;
        for slot in self.slots.iter_mut().filter(|slot| slot.client.is_some()) {
            slot.stands = true;
            Mux::stir(slot, res);
        }
    }

    fn lose(&mut self, stream: StreamKey, res: &mut Resources) {
        if let Some(slot) = self.slot(stream) {
            slot.lose();
            Mux::stir(slot, res);
        }
    }

    /// The connection is gone, and all streams with it.
    pub fn close(&mut self, res: &mut Resources) {
        self.closed = true;
        for slot in &mut self.slots {
            slot.lose();
            Mux::stir(slot, res);
        }
    }

    /// A stream's client is gone; what it has not finished is reset.
    fn release(&mut self, stream: StreamKey, now_ms: u64) {
        let Mux { machine, out, .. } = self;
        if machine.is_open(stream) {
            machine.reset(stream, ErrorCode::INTERNAL_ERROR, out);
        }
        self.last_end_ms = now_ms;
        if let Some(slot) = self.slot(stream) {
            *slot = Slot::default();
        }
    }
}

impl StreamLink {
    /// Has the connection send what was written. To be called after each turn of a stream.
    pub fn queue(&self, res: &mut Resources) {
        queue(&self.mux, res);
    }

    /// The stream's client is gone.
    pub fn release(&self, res: &mut Resources) {
        self.mux.borrow_mut().release(self.stream, res.env.now.monotonic_ms);
        self.queue(res);
    }
}

/// Has a connection send its frames, once the streams had their turns.
pub fn queue(mux: &SharedMux, res: &mut Resources) {
    if !std::mem::replace(&mut mux.borrow_mut().queued, true) {
        res.muxes.push(Rc::clone(mux));
    }
}

/// The connection's turn to send has come.
pub fn unqueue(mux: &SharedMux) {
    mux.borrow_mut().queued = false;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_whose_end_was_dropped_with_its_stream_is_not_complete() {
        let mut cut = Slot { inbox: b"the end".to_vec(), ended: true, ..Slot::default() };
        cut.lose();
        assert!(cut.lost && !cut.ended && cut.inbox.is_empty());
        // All of it had been taken before.
        let mut whole = Slot { ended: true, ..Slot::default() };
        whole.lose();
        assert!(whole.lost && whole.ended);
    }
}
