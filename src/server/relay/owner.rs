//! What the owner of a relay asks and tells besides moving it on: the client's body on its way up, the raw bytes of a
//! tunnel, rates and patience.

use crate::http::exchange::Exchange;

use super::connection::Connection;
use super::limit::Limit;
use super::links::{Link, Links};
use super::outbound::Next;
use super::{Relay, State};

impl Relay {
    /// Whether the client's body is passed on as it comes, and is not complete yet.
    pub fn awaits_client(&self) -> bool {
        self.outbound.awaits_client()
    }

    /// Whether more of it can be taken now.
    pub fn has_upload_room(&self) -> bool {
        self.state != State::Over && self.outbound.has_room()
    }

    /// Takes a piece of it.
    pub fn push_upload(&mut self, bytes: &[u8], now_ms: u64) {
        if let Some(run) = self.run.as_mut().filter(|_| self.outbound.is_starved()) {
            // The peer has its time to take it from now on.
            run.moved_ms = now_ms;
        }
        self.outbound.push(bytes);
    }

    /// It is complete.
    pub fn end_upload(&mut self) {
        self.outbound.end();
    }

    /// Whether nothing can go on before the client sends more of it.
    pub fn is_starved(&self, exchange: &Exchange) -> bool {
        let Some(Some(call)) = exchange.upstream.as_ref().map(|passed| &passed.call) else { return false };
        self.state == State::Heading
            && matches!(self.outbound.next(&call.body, &exchange.request_body), Next::Starved)
    }

    /// The client has all that came of the body: the upstream has its time for more from now on, however long ago the
    /// last byte came that a slow client has only just taken.
    pub fn await_body(&mut self, exchange: &Exchange, now_ms: u64) {
        let call = exchange.upstream.as_ref().and_then(|passed| passed.call.as_ref());
        if let (State::Body, Some(call)) = (self.state, call) {
            self.deadline_ms = now_ms.saturating_add(call.conduct.read_timeout);
        }
    }

    /// Whether what has come of the response may wait for the rest: it is neither a stream of events nor of unknown
    /// length, nor may its upstream wait for more of the request.
    pub fn may_postpone(&self, exchange: &Exchange) -> bool {
        self.is_sent()
            && exchange.upstream.as_ref().is_some_and(|passed| {
                passed.length.is_some() && passed.call.as_ref().is_some_and(|call| call.buffering)
            })
    }

    /// Whether everything that will come from the upstream has come.
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Whether the upstream is let go when the client goes.
    pub fn ends_with_client(&self) -> bool {
        !self.ignores_client
    }

    /// Monotonic milliseconds when it began.
    pub fn began_ms(&self) -> u64 {
        self.began_ms
    }

    /// The upstream's connection of a tunnel and what is known of its socket.
    pub fn raw<'a>(&'a mut self, links: &'a mut Links) -> Option<(&'a mut Connection, &'a mut Link)> {
        let run = self.run.as_mut().filter(|_| self.state == State::Raw)?;
        let connection = run.own()?;
        let link = links.get(connection.link)?;
        Some((connection, link))
    }

    /// Counts what a tunnel moved, and renews its patience.
    pub fn note_raw(&mut self, up: u64, down: u64, exchange: &Exchange, now_ms: u64) {
        let Some(run) = &mut self.run else { return };
        run.sent += up;
        run.received += down;
        run.body += down;
        if up + down > 0 {
            run.moved_ms = now_ms;
        }
        self.renew_deadline(exchange);
    }

    /// What came from the upstream behind its 101.
    pub fn take_early(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.early)
    }

    /// How many of `most` bytes of the response may be read now (`proxy_limit_rate`).
    pub(super) fn rate_room(&mut self, most: usize, now_ms: u64) -> usize {
        match &mut self.limit {
            None => most,
            Some(limit) => limit.room(most, now_ms),
        }
    }

    /// So many bytes of the response were read.
    pub(super) fn note_rate(&mut self, count: u64) {
        if let Some(limit) = &mut self.limit {
            limit.note(count);
        }
    }

    /// Begins to limit the rate, if the call says so.
    pub(super) fn begin_limit(&mut self, exchange: &Exchange, now_ms: u64) {
        let rate = exchange.upstream.as_ref().and_then(|passed| Some(passed.call.as_ref()?.limit_rate));
        self.limit = rate.filter(|rate| *rate > 0).map(|rate| Limit::new(rate, now_ms));
    }
}
