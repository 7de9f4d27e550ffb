//! A stream's side: its body from the slot, its response into frames.

use rustix::io::Errno;

use crate::message::{Fields, RequestFraming, RequestHead, ResponseFraming, ResponseHead, Status};
use crate::proto::h1::{Event, RespondOptions};
use crate::proto::h2::TURN_BYTES;
use crate::server::worker::resources::Resources;

use super::super::lane::Lane;
use super::super::serve::Consumed;
use super::super::transport::Transport;
use super::super::tunnel::End;
use super::super::wire::Wire;
use super::super::{Client, ClientKey, Fate, State, Waiting};
use super::{Mux, Newborn, OUT_BYTES, StreamLink};

/// Where a stream's response goes.
pub struct StreamEnd {
    /// The stream.
    pub link: StreamLink,
    /// Bytes of the body that are still to come, where that is known and nothing follows them: the last frame ends the
    /// stream then. Else [`UNKNOWN`].
    left: u64,
    /// It stands among those that wait for window ([`Resources::waiting`]).
    pub is_listed: bool,
    /// Its request is parked when its turn is over.
    pub parks: bool,
}

/// See [`StreamEnd`].
const UNKNOWN: u64 = u64::MAX;

impl StreamEnd {
    /// The way of a stream's response, before there is one.
    pub fn new(link: StreamLink) -> StreamEnd {
        StreamEnd { link, left: UNKNOWN, is_listed: false, parks: false }
    }
}

impl Lane for StreamEnd {
    fn room(&self) -> usize {
        let mux = self.link.mux.borrow();
        let room = mux.machine.room(self.link.stream);
        // Frames that wait already have the connection's socket full enough.
        if mux.out.len() < OUT_BYTES { room.min(TURN_BYTES) } else { 0 }
    }

    fn send(&mut self, piece: &[u8]) -> Result<usize, Errno> {
        let taken = piece.len().min(self.room());
        let mut mux = self.link.mux.borrow_mut();
        if mux.closed || !mux.machine.is_open(self.link.stream) {
            return Err(Errno::CONNRESET);
        }
        if taken == 0 {
            return Ok(0);
        }
        let Mux { machine, out, .. } = &mut *mux;
        let ends = self.left == taken as u64;
        let sent = machine.send_data(self.link.stream, &piece[..taken], ends, out);
        if self.left != UNKNOWN {
            self.left = self.left.saturating_sub(sent as u64);
        }
        Ok(sent)
    }

    /// Frames need no marks in between, only the last byte is to be known.
    fn begin(&mut self, framing: ResponseFraming, trailers: bool) -> ResponseFraming {
        self.left = match framing {
            ResponseFraming::Length(length) if !trailers => length,
            // The head has ended it.
            ResponseFraming::None => 0,
            _ => UNKNOWN,
        };
        match framing {
            ResponseFraming::None => ResponseFraming::None,
            _ => ResponseFraming::UntilClose,
        }
    }

    /// Ends the stream behind its body, unless its last frame did.
    fn finish(&mut self, trailers: &Fields) {
        if std::mem::replace(&mut self.left, UNKNOWN) == 0 {
            return;
        }
        let mut mux = self.link.mux.borrow_mut();
        let Mux { machine, out, .. } = &mut *mux;
        machine.send_trailers(self.link.stream, trailers, out);
    }

    fn want_turn(&self, wants: bool) {
        self.link.mux.borrow_mut().machine.set_has_data(self.link.stream, wants);
    }

    fn after_turn(&self, res: &mut Resources) {
        self.link.queue(res);
    }

    fn release(&self, res: &mut Resources) {
        self.link.release(res);
    }
}

/// What stands in the place of HTTP/1's wire machine.
pub struct StreamWire {
    link: StreamLink,
    body: BodyState,
    expects_continue: bool,
    /// Bytes that were taken since the windows were last told; these bound them.
    taken: u32,
    /// Bytes that were taken from the slot and are not wanted yet.
    held: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyState {
    /// More comes.
    Coming,
    /// All that comes has come.
    Last,
    /// There is none, or it was read.
    Over,
}

impl StreamWire {
    fn new(link: StreamLink, head: &RequestHead, is_tunnel: bool) -> StreamWire {
        let has_body = head.framing != RequestFraming::None && !is_tunnel;
        StreamWire {
            link,
            body: if has_body { BodyState::Coming } else { BodyState::Over },
            expects_continue: head.expects_continue,
            taken: 0,
            held: Vec::new(),
        }
    }

    /// Takes a piece of the body.
    pub fn read<'a>(&mut self, input: &mut &'a [u8]) -> Event<'a> {
        let bytes = std::mem::take(input);
        self.taken += bytes.len() as u32;
        match self.body {
            BodyState::Coming | BodyState::Last if !bytes.is_empty() => Event::Body(bytes),
            BodyState::Last => {
                self.body = BodyState::Over;
                Event::BodyEnd
            }
            BodyState::Coming => Event::NeedMore,
            BodyState::Over => Event::Paused,
        }
    }

    /// Whether some of the body is outstanding.
    pub fn body_pending(&self) -> bool {
        self.body != BodyState::Over
    }

    /// Whether the client waits for `100 Continue`.
    pub fn withholds_body(&self) -> bool {
        self.expects_continue && self.body == BodyState::Coming && self.taken == 0
    }

    /// Writes an interim response.
    pub fn interim(&mut self, status: Status, fields: Option<&Fields>) {
        if status == Status::CONTINUE {
            self.expects_continue = false;
        }
        let mut mux = self.link.mux.borrow_mut();
        let Mux { machine, out, .. } = &mut *mux;
        machine.interim(self.link.stream, status, fields, out);
    }

    /// Writes the head; how the body is written, and the head's bytes.
    pub fn respond(&mut self, head: &ResponseHead, options: &RespondOptions<'_>) -> (ResponseFraming, u64) {
        let mut mux = self.link.mux.borrow_mut();
        let Mux { machine, out, .. } = &mut *mux;
        let before = out.len();
        let framing = machine.respond(self.link.stream, head, options, out).unwrap_or_default();
        (framing, (out.len() - before) as u64)
    }

    /// Puts bytes away that are not wanted yet.
    pub fn hold(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }
}

impl StreamEnd {
    /// How long the stream may wait for window: the `send_timeout` of where its request is served.
    pub fn set_window_timeout(&self, timeout_ms: u64) {
        self.link.mux.borrow_mut().machine.set_window_timeout(self.link.stream, timeout_ms);
    }
}

impl Client {
    /// The stream that the client is, if it is one.
    pub fn stream(&self) -> Option<&StreamEnd> {
        match &self.transport {
            Transport::Stream(end) => Some(end),
            _ => None,
        }
    }

    /// A stream's request is served.
    pub fn begin_stream(&mut self, newborn: Newborn, key: ClientKey, res: &mut Resources) -> Fate {
        let Newborn { link, mut active, address, refused, length, is_tunnel, .. } = newborn;
        link.mux.borrow_mut().adopt(link.stream, key);
        let is_lost = link.mux.borrow_mut().slot(link.stream).is_none_or(|slot| slot.lost);
        self.wire = Wire::H2(StreamWire::new(link, &active.exchange.head, is_tunnel));
        self.begin_request(&mut active, address, length as usize, res);
        if is_lost {
            // Given up as soon as it was asked: nobody behind us hears of it.
            active.exchange.response.status = Status(499);
            active.exchange.outcome.complete = false;
            self.end_exchange(active, res);
            return Fate::Close;
        }
        let fate = match refused {
            Some(error) => self.refuse(active, error, key, res),
            None => self.drive(active, None, key, res),
        };
        match fate {
            // What came along with the head.
            Fate::Keep => self.feed_stream(key, res),
            Fate::Close => fate,
        }
    }

    /// Something came for the stream, or it is gone.
    pub fn on_stream_event(&mut self, key: ClientKey, res: &mut Resources) -> Fate {
        let Transport::Stream(end) = &self.transport else { return Fate::Keep };
        let (is_lost, stands) = {
            let mut mux = end.link.mux.borrow_mut();
            match mux.slot(end.link.stream) {
                Some(slot) => {
                    slot.stirred = false;
                    (slot.lost, std::mem::take(&mut slot.stands))
                }
                None => (true, false),
            }
        };
        if is_lost {
            return self.lose_lane(key, res);
        }
        if stands {
            self.give_up_files(res);
            self.stand();
        }
        if matches!(&self.state, State::Active(active) if active.waiting == Waiting::Tunnel) {
            return self.pump_tunnel(key, res);
        }
        self.feed_stream(key, res)
    }

    /// Gives what has come of the body to whoever takes it.
    pub fn feed_stream(&mut self, key: ClientKey, res: &mut Resources) -> Fate {
        loop {
            if !self.may_read() {
                return Fate::Keep;
            }
            let (Transport::Stream(end), Wire::H2(wire)) = (&self.transport, &mut self.wire) else {
                return Fate::Keep;
            };
            let link = end.link.clone();
            let mut bytes = std::mem::take(&mut wire.held);
            if let Some(slot) = link.mux.borrow_mut().slot(link.stream) {
                match bytes.is_empty() {
                    true => bytes = std::mem::take(&mut slot.inbox),
                    false => bytes.append(&mut slot.inbox),
                }
                if slot.ended && wire.body == BodyState::Coming {
                    wire.body = BodyState::Last;
                }
            }
            if bytes.is_empty() && wire.body != BodyState::Last {
                return Fate::Keep;
            }
            let consumed = self.consume(&bytes, false, key, res);
            if let Wire::H2(wire) = &mut self.wire {
                let taken = std::mem::take(&mut wire.taken);
                let mut mux = link.mux.borrow_mut();
                let Mux { machine, out, .. } = &mut *mux;
                machine.consumed(link.stream, taken as usize, out);
            }
            match consumed {
                Consumed::All => {}
                Consumed::Stalled => return Fate::Keep,
                Consumed::Close => return Fate::Close,
            }
            if matches!(&self.wire, Wire::H2(wire) if wire.body == BodyState::Over) {
                return Fate::Keep;
            }
        }
    }
}

impl End for StreamEnd {
    fn receive(&mut self, buffer: &mut [u8]) -> Result<(usize, bool), Errno> {
        let mut mux = self.link.mux.borrow_mut();
        let Some(slot) = mux.slot(self.link.stream) else { return Err(Errno::CONNRESET) };
        if slot.lost {
            return Err(Errno::CONNRESET);
        }
        let count = slot.inbox.len().min(buffer.len());
        if count == 0 {
            return if slot.ended { Ok((0, false)) } else { Err(Errno::AGAIN) };
        }
        buffer[..count].copy_from_slice(&slot.inbox[..count]);
        match count == slot.inbox.len() {
            true => slot.inbox = Vec::new(),
            false => drop(slot.inbox.drain(..count)),
        }
        let more = !slot.inbox.is_empty() || slot.ended;
        let Mux { machine, out, .. } = &mut *mux;
        machine.consumed(self.link.stream, count, out);
        Ok((count, more))
    }

    fn send(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        Lane::send(self, bytes)
    }

    fn shut_down(&mut self) -> Result<(), Errno> {
        self.finish(&Fields::default());
        Ok(())
    }
}
