//! A connection's turns: what came into the slots, what was written onto the socket.

use std::os::fd::AsFd;

use rustix::io::Errno;

use crate::base::level::Level;
use crate::message::ResponseFraming;
use crate::proto::h2::ClientEvent;
use crate::server::worker::resources::Resources;

use super::{Gone, Head, Loss, Mux, OUT_BYTES, SharedMux, Stage, queue};

/// Reads in one turn.
const READS: usize = 16;
/// Frames for the peer beyond which nothing is read from it.
const MOST_BACKLOG: usize = 4 * OUT_BYTES;
/// Memory for frames that is kept between two turns.
const KEPT_OUT: usize = 4 * OUT_BYTES;

/// Gives a connection its turn.
pub fn run(mux: &SharedMux, res: &mut Resources) {
    let mut borrowed = mux.borrow_mut();
    borrowed.queued = false;
    borrowed.take_turn(res);
    let again = borrowed.has_more_to_read(res);
    res.multiplexed.note_deadline(borrowed.deadline_ms());
    drop(borrowed);
    if again {
        queue(mux, res);
    }
}

/// Gives those their turns that wait for it.
pub fn run_queued(res: &mut Resources) {
    for mux in std::mem::take(&mut res.multiplexed.turns) {
        run(&mux, res);
    }
}

/// What is due without the peer.
pub fn on_time(mux: &SharedMux, res: &mut Resources) {
    let now_ms = res.env.now.monotonic_ms;
    let mut mux = mux.borrow_mut();
    let mux = &mut *mux;
    if mux.stage != Stage::Open || mux.machine.deadline().is_none_or(|deadline| deadline > now_ms) {
        return;
    }
    match mux.machine.on_deadline(now_ms, &mut mux.out) {
        Ok(()) => mux.feed(b"", res),
        Err(error) => mux.fail(error.reason, res),
    }
}

impl Mux {
    fn take_turn(&mut self, res: &mut Resources) {
        if self.stage == Stage::Connecting {
            self.look_for_connection(res);
        }
        if self.stage == Stage::Securing {
            self.look_for_handshake(res);
        }
        if self.stage == Stage::Open {
            self.read(res);
        }
        if self.stage == Stage::Open {
            self.send(res);
        }
        if !matches!(self.stage, Stage::Closed(_)) && self.is_spent(res) {
            if self.stage == Stage::Open {
                self.machine.leave(&mut self.out);
                self.send(res);
            }
            self.close(Gone::Unused, res);
        }
    }

    /// Has the next turn look for input, whatever the poll has said so far.
    pub(super) fn expect_input(&mut self, res: &mut Resources) {
        if let Some(connection) = &self.connection
            && let Some(link) = res.links.get(connection.link)
        {
            link.readable = true;
        }
    }

    fn has_more_to_read(&self, res: &mut Resources) -> bool {
        let Some(connection) = &self.connection else { return false };
        self.stage == Stage::Open
            && self.backlog() < MOST_BACKLOG
            && res.links.get(connection.link).is_some_and(|link| link.readable)
    }

    /// The handshake: is it done?
    fn look_for_connection(&mut self, res: &mut Resources) {
        let Some(connection) = &self.connection else { return };
        let Some(link) = res.links.get(connection.link) else { return };
        if !link.writable && !link.readable {
            return;
        }
        if let Some(error) = connection.take_error() {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            return self.close(Gone::NotConnected(errno), res);
        }
        self.stage = if self.tls.is_some() { Stage::Plain } else { Stage::Open };
        for (_, slot) in &mut self.slots {
            slot.stir(res);
        }
    }

    /// The handshake of TLS: is it done?
    fn look_for_handshake(&mut self, res: &mut Resources) {
        let Some(connection) = &mut self.connection else { return };
        let Some(layer) = &mut connection.tls else { return };
        let Some(link) = res.links.get(connection.link) else { return };
        let shaken = layer.shake(connection.socket.as_fd(), &mut res.upstream_input, link);
        match shaken.and_then(|is_over| if is_over { layer.speaks_http2().map(|()| true) } else { Ok(false) })
        {
            Ok(true) => {
                self.stage = Stage::Open;
                for (_, slot) in &mut self.slots {
                    slot.stir(res);
                }
            }
            Ok(false) => {}
            Err(failure) => self.close(Gone::NotSecured(failure), res),
        }
    }

    fn read(&mut self, res: &mut Resources) {
        let mut buffer = std::mem::take(&mut res.upstream_input);
        for _ in 0..READS {
            if self.backlog() >= MOST_BACKLOG {
                break;
            }
            let Some(connection) = &mut self.connection else { break };
            match connection.receive(&mut buffer, &mut res.links) {
                Ok(None) => break,
                Ok(Some(0)) => {
                    self.close(Gone::Ended, res);
                    break;
                }
                Ok(Some(count)) => {
                    self.received_ms = res.env.now.monotonic_ms;
                    self.feed(&buffer[..count], res);
                }
                Err(error) => {
                    self.close(Gone::Broken(error), res);
                    break;
                }
            }
        }
        res.upstream_input = buffer;
    }

    /// Takes what came apart.
    fn feed(&mut self, mut input: &[u8], res: &mut Resources) {
        let now_ms = res.env.now.monotonic_ms;
        loop {
            let mut head = std::mem::take(&mut self.scratch);
            let event = self.machine.read(&mut input, now_ms, self.head_bytes, &mut head, &mut self.out);
            self.scratch = head;
            match event {
                Ok(ClientEvent::NeedMore) => return,
                Ok(ClientEvent::Interim { stream }) => {
                    let head = std::mem::take(&mut self.scratch);
                    if let Some(slot) = self.slot_of(stream)
                        && slot.wants_hints
                        && head.status == crate::message::Status::EARLY_HINTS
                    {
                        slot.hints = Some(head);
                        slot.stir(res);
                    }
                }
                Ok(ClientEvent::Head { stream, framing, .. }) => {
                    let head = std::mem::take(&mut self.scratch);
                    let length = match framing {
                        ResponseFraming::None => Some(0),
                        ResponseFraming::Length(length) => Some(length),
                        ResponseFraming::Streamed | ResponseFraming::UntilClose => None,
                    };
                    if let Some(slot) = self.slot_of(stream) {
                        slot.head = Some(Head { head, length });
                        slot.stir(res);
                    }
                }
                Ok(ClientEvent::Data { stream, data }) => match self.slot_of(stream) {
                    Some(slot) => {
                        slot.inbox.extend_from_slice(data);
                        slot.received += data.len() as u64;
                        slot.stir(res);
                    }
                    None => self.machine.consumed(stream, data.len(), &mut self.out),
                },
                Ok(ClientEvent::End { stream, has_trailers }) => {
                    let mut scratch = std::mem::take(&mut self.scratch);
                    if let Some(slot) = self.slot_of(stream) {
                        slot.ended = true;
                        if has_trailers {
                            std::mem::swap(&mut slot.trailers, &mut scratch.fields);
                        }
                        slot.stir(res);
                    }
                    self.scratch = scratch;
                }
                Ok(ClientEvent::Lost { stream, loss }) => {
                    if let Some(slot) = self.slot_of(stream) {
                        slot.lose(Loss::Stream(loss), res);
                    }
                }
                Ok(ClientEvent::GoingAway { .. }) => self.retired = true,
                Ok(ClientEvent::Closed) => return self.close(Gone::Ended, res),
                Err(error) => return self.fail(error.reason, res),
            }
        }
    }

    /// The peer broke the protocol: it is told so, and the connection is over.
    fn fail(&mut self, reason: &'static str, res: &mut Resources) {
        self.log(reason, res);
        self.send(res);
        self.close(Gone::Protocol(reason), res);
    }

    fn log(&self, reason: &str, res: &mut Resources) {
        let targets = res.site.error_log.clone();
        let peer = self.peer.name();
        res.env.logs.push(
            &targets,
            Level::Error,
            None,
            format_args!("{reason} while reading upstream, upstream: \"{peer}\""),
        );
    }

    /// Sends what was written, and gives turns to those who have more to send.
    fn send(&mut self, res: &mut Resources) {
        let Some(connection) = &mut self.connection else { return };
        let mut flushed = connection.flush();
        while self.sent < self.out.len() {
            let Some(connection) = &mut self.connection else { return };
            let sent = match std::mem::replace(&mut flushed, Ok(())) {
                Ok(()) if connection.owes() => break,
                Ok(()) => connection.send(&self.out[self.sent..], false, &mut res.links),
                Err(error) => Err(error),
            };
            match sent {
                Ok(0) => break,
                Ok(count) => {
                    self.sent += count;
                    self.total_sent += count as u64;
                }
                Err(Errno::PIPE | Errno::CONNRESET) => {
                    // What the peer said before, a GOAWAY perhaps, tells more.
                    self.out.clear();
                    self.sent = 0;
                    self.expect_input(res);
                    self.read(res);
                    return self.close(Gone::Broken(Errno::CONNRESET), res);
                }
                Err(error) => return self.close(Gone::Broken(error), res),
            }
        }
        if self.sent == self.out.len() {
            self.out.clear();
            self.out.shrink_to(KEPT_OUT);
        } else {
            self.out.drain(..self.sent);
        }
        self.sent = 0;
        self.give_turns(res);
    }

    /// Has relays write that have something to send, in the order in which their turns come.
    fn give_turns(&mut self, res: &mut Resources) {
        if self.backlog() >= OUT_BYTES {
            return;
        }
        while let Some((stream, _)) = self.machine.next_turn() {
            self.machine.set_has_data(stream, false);
            if let Some(slot) = self.slot_of(stream) {
                slot.stir(res);
            }
        }
    }
}
