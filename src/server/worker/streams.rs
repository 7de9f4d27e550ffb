//! Turns of clients without sockets: HTTP/2's streams, after those of the connections that brought them and before
//! these send; and subrequests.

use crate::base::pace::Pace;
use crate::http::exchange::ConnectionFacts;
use crate::server::client::h2::{Newborn, OUT_BYTES, SharedMux, queue, stream::StreamEnd, unqueue};
use crate::server::client::output::parking::UNPARKED;
use crate::server::client::pipe::{NewSubrequest, PipeEnd};
use crate::server::client::transport::Transport;
use crate::server::client::wire::Wire;
use crate::server::client::{Client, ClientKey, Flags, State};
use crate::server::relay::links::GENERATION_MASK;

use super::Worker;
use super::counters::Counted;

/// How often one connection's frames are sent before others have their turn.
const SENDS_PER_TURN: usize = 8;

impl Worker {
    /// Gives streams their turns, and has their connections send.
    pub(super) fn run_streams(&mut self) {
        loop {
            let newborn = std::mem::take(&mut self.res.newborn);
            let stirred = std::mem::take(&mut self.res.stirred);
            let subrequests = std::mem::take(&mut self.res.subrequests);
            if newborn.is_empty() && stirred.is_empty() && subrequests.is_empty() {
                break;
            }
            // What streams that are gone have held (a place of `limit_conn`, say) is free for those that come.
            for key in stirred {
                self.turn(key, Client::on_stirred);
            }
            for one in newborn {
                self.bear_stream(one);
            }
            for one in subrequests {
                self.bear_subrequest(one);
            }
        }
        for mux in std::mem::take(&mut self.res.muxes) {
            self.send_streams(&mux);
        }
        self.park_streams();
    }

    /// Parks streams that wait for window where there are many, those first that have waited longest.
    fn park_streams(&mut self) {
        while self.res.waiting.len() > UNPARKED
            && let Some(key) = self.res.waiting.pop_front()
        {
            if let Some(client) = self.clients.get_mut(key.index as usize)
                && client.generation == key.generation
            {
                client.leave_waiting();
                client.park(&mut self.res);
            }
        }
    }

    /// Whether a stream or a connection of streams waits for its turn.
    pub(super) fn has_streams_to_run(&self) -> bool {
        !self.res.newborn.is_empty()
            || !self.res.subrequests.is_empty()
            || !self.res.stirred.is_empty()
            || !self.res.muxes.is_empty()
    }

    /// Makes a client of a stream and serves its request.
    fn bear_stream(&mut self, newborn: Newborn) {
        let transport = Transport::Stream(StreamEnd::new(newborn.link.clone()));
        if let Some(key) = self.bear(transport, newborn.facts.clone(), newborn.listener) {
            self.turn(key, |client, key, res| client.begin_stream(newborn, key, res));
        }
    }

    /// Makes a client of a subrequest and serves it.
    fn bear_subrequest(&mut self, new: NewSubrequest) {
        let transport = Transport::Pipe(PipeEnd(new.pipe.clone()));
        let facts = new.active.exchange.connection.clone();
        if let Some(key) = self.bear(transport, facts, new.listener) {
            self.turn(key, |client, key, res| client.begin_subrequest(new, key, res));
        }
    }

    /// A client without a socket.
    fn bear(
        &mut self,
        transport: Transport,
        facts: ConnectionFacts,
        listener_number: u32,
    ) -> Option<ClientKey> {
        let listener = self.res.listeners.get_mut(listener_number as usize)?.as_mut()?;
        listener.clients += 1;
        self.generation = self.generation.wrapping_add(1) & GENERATION_MASK;
        let client = Client {
            transport,
            generation: self.generation,
            state: State::Head,
            wire: Wire::Subrequest,
            facts,
            listener: listener_number,
            deadline_ms: u64::MAX,
            patience_ms: u64::MAX,
            pace: Pace::default(),
            armed_ms: u64::MAX,
            last_active_ms: self.res.env.now.monotonic_ms,
            head_began_ms: 0,
            request_bytes: 0,
            // There is nothing for the poll to watch.
            flags: Flags { registered: true, unread: true, ..Flags::default() },
            idle_ms: 0,
            keep_ms: 0,
            linger_timeout_ms: 0,
            unsent: Vec::new(),
            counted: Counted::default(),
            permit: None,
        };
        let index = self.clients.insert(client);
        self.lanes += 1;
        self.most_clients = self.most_clients.max(self.clients.len());
        Some(ClientKey { index: index as u32, generation: self.generation })
    }

    /// Sends a connection's frames, and asks its streams for more while there is room. It counts as queued until the end,
    /// so that the turns of its streams do not queue it again.
    fn send_streams(&mut self, mux: &SharedMux) {
        let connection = mux.borrow().connection;
        for _ in 0..SENDS_PER_TURN {
            // What the socket does not take waits for it: nothing is added.
            if self.is_blocked(connection) {
                return unqueue(mux);
            }
            while self.fill_frames(mux) {}
            if mux.borrow().closed {
                return;
            }
            self.turn(connection, Client::send_frames);
            let mut borrowed = mux.borrow_mut();
            if borrowed.out.is_empty() && borrowed.machine.next_turn().is_none() {
                drop(borrowed);
                return unqueue(mux);
            }
        }
        unqueue(mux);
        if !self.is_blocked(connection) {
            queue(mux, &mut self.res);
        }
    }

    /// Whether a connection waits for its socket, which brings its next turn.
    fn is_blocked(&self, connection: ClientKey) -> bool {
        !self
            .clients
            .get(connection.index as usize)
            .is_some_and(|client| client.generation == connection.generation && client.unsent.is_empty())
    }

    /// Gives the stream that is next its turn; whether there is room for another.
    fn fill_frames(&mut self, mux: &SharedMux) -> bool {
        let mut borrowed = mux.borrow_mut();
        if borrowed.closed || borrowed.out.len() >= OUT_BYTES {
            return false;
        }
        let Some((stream, _)) = borrowed.machine.next_turn() else { return false };
        let Some(client) = borrowed.client_of(stream) else {
            borrowed.machine.set_has_data(stream, false);
            return true;
        };
        drop(borrowed);
        self.turn(client, Client::on_lane_room);
        true
    }
}
