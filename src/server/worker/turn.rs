//! A connection's turn: what it decides is done here, and the poll and the wheel are told what it needs.

use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use mio::unix::SourceFd;
use mio::{Interest, Token};

use crate::server::client::{Client, ClientKey, Fate, State};

use super::Worker;
use super::counters::Counted;
use super::resources::Resources;

impl Worker {
    /// Gives a connection its turn and does what the turn decides. A panic costs this connection and no other.
    pub(super) fn turn(
        &mut self,
        key: ClientKey,
        act: impl FnOnce(&mut Client, ClientKey, &mut Resources) -> Fate,
    ) {
        let Some(client) = self.clients.get_mut(key.index as usize) else { return };
        // A late event for a former tenant of the place.
        if client.generation != key.generation {
            return;
        }
        let res = &mut self.res;
        res.current_socket.set(client.raw_socket());
        let act = || {
            client.unpark(res);
            act(client, key, res)
        };
        let fate = catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|_| {
            // The panic hook has logged where it was. What this turn had gathered is of unknown state.
            res.recover();
            client.abandon_multiplexed(res);
            client.state = State::Head;
            client.flags.reset = true;
            Fate::Close
        });
        if fate == Fate::Close
            && !self.res.out.is_empty()
            && let Some(client) = self.clients.get_mut(key.index as usize)
        {
            client.send_last(&mut self.res);
        }
        debug_assert!(self.res.out.is_empty(), "a turn ends with everything sent or kept");
        match fate {
            Fate::Keep => {
                if let Some(client) = self.clients.get_mut(key.index as usize) {
                    settle(client, key, &mut self.res);
                }
            }
            Fate::Close => self.close(key),
        }
    }

    /// Closes a connection.
    pub(super) fn close(&mut self, key: ClientKey) {
        let matches =
            self.clients.get(key.index as usize).is_some_and(|client| client.generation == key.generation);
        if !matches {
            return;
        }
        let mut client = self.clients.remove(key.index as usize);
        client.on_close(None, &mut self.res);
        match client.lane() {
            Some(_) => {
                client.count_as(Counted::Waiting, &self.res.counters);
                self.lanes -= 1;
            }
            None => self.res.counters.close(client.counted),
        }
        let number = client.listener as usize;
        if let Some(slot) = self.res.listeners.get_mut(number)
            && let Some(listener) = slot
        {
            listener.clients -= 1;
            if listener.clients == 0 && listener.socket.is_none() {
                *slot = None;
            }
        }
        self.peer.set_connections(self.clients.len() - self.lanes);
        if self.resting_until_ms.is_some() {
            // Its place and its descriptor are free.
            self.resting_until_ms = Some(0);
        }
        // Dropping the socket closes it, which takes it out of the poll as well.
    }
}

/// After a turn: the poll and the wheel are told what the connection needs from them.
fn settle(client: &mut Client, key: ClientKey, res: &mut Resources) {
    if client.is_to_be_parked() {
        client.park(res);
    }
    client.recount(&res.counters);
    if let Some(lane) = client.lane() {
        lane.after_turn(res);
    }
    if !client.flags.registered {
        let token = Token(key.to_bits() as usize);
        let registered = client.transport.socket().is_some_and(|socket| {
            let raw = socket.as_raw_fd();
            res.registry.register(&mut SourceFd(&raw), token, client.interest()).is_ok()
        });
        match registered {
            true => client.flags.registered = true,
            // Without events the connection would hang: its deadline closes it at once.
            false => client.deadline_ms = 0,
        }
    }
    if client.deadline_ms < client.armed_ms {
        client.armed_ms = client.deadline_ms;
        res.wheel.insert(client.deadline_ms, key.to_bits());
    }
}

impl Client {
    /// The socket's number; that of its connection for a stream.
    fn raw_socket(&self) -> RawFd {
        match self.stream() {
            Some(end) => end.link.mux.borrow().socket,
            None => self.transport.socket().map_or(-1, |socket| socket.as_raw_fd()),
        }
    }

    fn interest(&self) -> Interest {
        if self.flags.wants_write { Interest::READABLE.add(Interest::WRITABLE) } else { Interest::READABLE }
    }

    /// Asks to be told when the socket has room.
    pub fn want_write(&mut self, key: ClientKey, res: &mut Resources) {
        if let Some(lane) = self.lane() {
            lane.want_turn(true);
            return;
        }
        if self.flags.wants_write {
            return;
        }
        self.flags.wants_write = true;
        if self.flags.registered
            && let Some(socket) = self.transport.socket()
        {
            let raw = socket.as_raw_fd();
            let token = Token(key.to_bits() as usize);
            if res.registry.reregister(&mut SourceFd(&raw), token, self.interest()).is_err() {
                self.set_deadline(0);
            }
        }
    }
}
