//! How long a client is waited for: timeouts for one that does nothing, least rates for one that does too little.
//!
//! A client that sends or takes a byte now and then is never idle for as long as `client_body_timeout` or `send_timeout`;
//! `client_body_min_rate` and `send_min_rate` are for those. What is measured is [`Pace`]; this is where it runs:
//!
//! ```text
//!  a request's body                               a response
//!
//!   begins: Need::RequestBody, an upstream         begins: respond()
//!   that takes it as it comes                          |
//!       |                                              v
//!       v                                          +-> resting: data is sent; an upstream, the pool,
//!   waiting <--------------+                       |   limit_rate or a turn of ours is waited for
//!   (we would read)        |                       |   |
//!       |  temporary file  |  it is there,         |   |  the socket is full; a stream's own window is 0
//!       |  is made,        |  it takes more        |   v
//!       |  upstream full   |                       +-- waiting
//!       v                  |                         room |
//!   resting ---------------+                              | due
//!                                                         v
//!   waiting -- due --> judge:                          judge: bytes that the client's kernel has acknowledged
//!     enough: waiting                                    enough: waiting
//!     bytes lie unread here, or the windows of           the stream's window is open, others are sent: resting
//!     the connection are full of other streams:          too little: one line at info, a count, a reset
//!     forgiven
//!     too little: one line at info, a count, 408
//! ```
//!
//! A connection of HTTP/2 is measured as a whole besides, by its default server's rate: while its socket is full, and
//! while its window is 0 and streams have something to send. So neither can hide behind the other: a stream is not
//! blamed for a window that it shares, nor the connection for a stream's.
//!
//! Tunnels, subrequests, uploads that are answered already, and calls of gRPC (whose messages come when there is
//! something to say) are not measured. There is no timer for any of this: what is due is part of the deadline that the
//! connection has anyhow, and nothing is asked of the kernel before it passes.

use std::os::fd::AsRawFd;

use crate::base::level::Level;
use crate::base::pace::{MinRate, Pace, Verdict};
use crate::http::exchange::Exchange;
use crate::http::modules::core::Settings;
use crate::http::upstream_call::PassModule;
use crate::message::Status;
use crate::server::sys;
use crate::server::worker::resources::Resources;

use super::h2::stream::StreamEnd;
use super::transport::Transport;
use super::{Client, ClientKey, Fate, State, Waiting};

/// How long to leave alone what the client can do nothing about, in milliseconds.
const OUR_TIME_MS: u64 = 60_000;

/// What is to become of a client that was waited for until its deadline.
enum Judgement {
    /// Nothing: it is waited for on.
    Wait,
    /// Its timeout has passed.
    TimedOut,
    /// So many bytes in so many milliseconds.
    TooSlow(u64, u64),
}

impl Client {
    /// Begins to measure anew.
    pub(super) fn begin_pace(&mut self) {
        self.pace = Pace::default();
    }

    /// The client is waited for: for so many milliseconds, or until its pace is to be judged.
    pub(super) fn await_client(&mut self, timeout_ms: u64, now_ms: u64) {
        self.patience_ms = now_ms.saturating_add(timeout_ms);
        self.set_deadline(self.patience_ms.min(self.pace.due_ms()));
    }

    /// The client is to take what was sent.
    pub(super) fn await_reader(&mut self, core: &Settings, now_ms: u64) {
        self.pace.wait(now_ms, core.send_min_rate);
        self.await_client(core.send_timeout, now_ms);
    }

    /// The client is to send more of its body.
    pub(super) fn await_body(&mut self, core: &Settings, now_ms: u64) {
        self.pace.wait(now_ms, core.client_body_min_rate);
        self.await_client(core.client_body_timeout, now_ms);
    }

    /// When the head that is read, or waited for, must be there: the first one of a connection has no more time than
    /// there is from accepting on, a TLS handshake included; others from their first byte.
    pub(super) fn head_deadline_ms(&self, res: &Resources) -> u64 {
        let timeout = res.site_of(self).settings(res.root_of(self)).core.client_header_timeout;
        match self.head_began_ms {
            _ if self.facts.requests == 0 => self.facts.accepted_ms + timeout,
            0 => res.env.now.monotonic_ms + u64::from(self.idle_ms),
            began_ms => began_ms + timeout,
        }
    }

    fn judge(&mut self, bytes: Option<u64>, rate: MinRate, timeout_ms: u64, now_ms: u64) -> Judgement {
        if now_ms >= self.patience_ms {
            return Judgement::TimedOut;
        }
        if self.pace.due_ms() <= now_ms {
            match bytes {
                Some(bytes) => {
                    if let Verdict::TooSlow { bytes, waited_ms } =
                        self.pace.judge(bytes, now_ms, rate, timeout_ms)
                    {
                        return Judgement::TooSlow(bytes, waited_ms);
                    }
                }
                None => self.pace.forgive(),
            }
        }
        self.set_deadline(self.patience_ms.min(self.pace.due_ms()));
        Judgement::Wait
    }

    /// The deadline of a response that waits for its client, or for its turn.
    pub(super) fn on_output_deadline(&mut self, key: ClientKey, res: &mut Resources) -> Fate {
        let now_ms = res.env.now.monotonic_ms;
        let State::Active(active) = &self.state else { return Fate::Keep };
        if self.unsent.is_empty() && active.output.is_delayed(now_ms) {
            return self.on_ready(key, res);
        }
        let is_ours = active.output.pending_job().is_some() || self.flags.in_ready_list;
        if is_ours || self.shares_window() {
            self.pace.forgive();
            self.await_client(OUR_TIME_MS, now_ms);
            return Fate::Keep;
        }
        let core = &active.exchange.scope_settings().core;
        let waits = |end: &StreamEnd| end.link.mux.borrow().machine.waits_for_window(end.link.stream);
        if self.stream().is_some_and(waits) {
            // For how long a window may stay shut is the machine's to judge: it counts those who let many streams wait.
            self.patience_ms = now_ms.saturating_add(OUR_TIME_MS);
        }
        self.on_reader_deadline(core.send_min_rate, core.send_timeout, res)
    }

    /// The deadline of a client that has to take something.
    pub(super) fn on_reader_deadline(&mut self, rate: MinRate, timeout_ms: u64, res: &mut Resources) -> Fate {
        let now_ms = res.env.now.monotonic_ms;
        let taken = if self.pace.due_ms() <= now_ms { self.bytes_taken() } else { None };
        match self.judge(taken, rate, timeout_ms, now_ms) {
            Judgement::Wait => Fate::Keep,
            Judgement::TimedOut => self.time_out(None, "client timed out", res),
            Judgement::TooSlow(bytes, waited_ms) => self.cut_reader(bytes, waited_ms, res),
        }
    }

    /// Cuts a reader off. What the kernel has not sent goes at once: nobody will take it.
    pub(super) fn cut_reader(&mut self, bytes: u64, waited_ms: u64, res: &mut Resources) -> Fate {
        let message = format_args!(
            "client took {bytes} bytes in {waited_ms} ms, fewer than \"send_min_rate\" allows, and is cut off"
        );
        match &self.state {
            State::Active(active) => active.exchange.log_in_scope(&mut res.env, Level::Info, message),
            _ => res.log_connection(self, Level::Info, message),
        }
        res.counters.cut_reader();
        self.flags.reset = true;
        self.on_close(None, res);
        Fate::Close
    }

    /// Bytes that the client is known to have taken; `None` where that is not known.
    fn bytes_taken(&self) -> Option<u64> {
        if let (Transport::Stream(_), State::Active(active)) = (&self.transport, &self.state) {
            return Some(active.output.body_sent());
        }
        let info = sys::tcp_info(self.transport.socket()?.as_raw_fd()).ok()?;
        // Nothing acknowledged at all is a client that is gone, or a kernel that does not tell.
        Some(info.tcpi_bytes_acked).filter(|bytes| *bytes > 0)
    }

    /// Whether the client is a stream that could be sent, were it not for others.
    pub(super) fn shares_window(&self) -> bool {
        self.stream().is_some_and(|end| end.link.mux.borrow().machine.has_window(end.link.stream))
    }

    /// Whether more of the body could come, as far as that is in the client's hands.
    fn may_send_body(&self) -> bool {
        match self.stream() {
            Some(end) => end.link.mux.borrow().machine.may_receive(end.link.stream),
            None => !self.flags.unread && !self.flags.in_ready_list,
        }
    }

    /// The deadline of a client whose body is read.
    pub(super) fn on_body_deadline(&mut self, key: ClientKey, res: &mut Resources) -> Fate {
        let now_ms = res.env.now.monotonic_ms;
        let may_send = self.may_send_body();
        let State::Active(active) = &self.state else { return Fate::Keep };
        let core = &active.exchange.scope_settings().core;
        let (rate, timeout_ms) = (core.client_body_min_rate, core.client_body_timeout);
        let Some(reader) = &active.body else { return Fate::Keep };
        let (length, takes_more) = (reader.length(), reader.has_room());
        if !takes_more || !may_send {
            self.pace.forgive();
            if takes_more {
                self.pace.wait(now_ms, rate);
            }
            self.await_client(timeout_ms, now_ms);
            return Fate::Keep;
        }
        match self.judge(Some(length), rate, timeout_ms, now_ms) {
            Judgement::Wait => Fate::Keep,
            Judgement::TimedOut => self.time_out(Some(Status::REQUEST_TIMEOUT), "client timed out", res),
            Judgement::TooSlow(bytes, waited_ms) => self.refuse_slow_body(bytes, waited_ms, key, res),
        }
    }

    /// The same for a body that is passed on as it comes, while nothing can go on without it.
    pub(super) fn on_upload_deadline(&mut self, key: ClientKey, res: &mut Resources) -> Fate {
        let now_ms = res.env.now.monotonic_ms;
        let may_send = self.may_send_body();
        let State::Active(active) = &self.state else { return Fate::Keep };
        let core = &active.exchange.scope_settings().core;
        let (rate, timeout_ms, uploaded) =
            (core.client_body_min_rate, core.client_body_timeout, active.uploaded);
        if !may_send {
            self.pace.forgive();
            let Some(mut active) = self.take_state() else { return Fate::Keep };
            active.upload_moved_ms = now_ms;
            self.watch_relay(&active, res);
            self.state = State::Active(active);
            return Fate::Keep;
        }
        match self.judge(Some(uploaded), rate, timeout_ms, now_ms) {
            Judgement::Wait => {
                let Some(active) = self.take_state() else { return Fate::Keep };
                self.watch_relay(&active, res);
                self.state = State::Active(active);
                Fate::Keep
            }
            Judgement::TimedOut => self.time_out(Some(Status::REQUEST_TIMEOUT), "client timed out", res),
            Judgement::TooSlow(bytes, waited_ms) => self.refuse_slow_body(bytes, waited_ms, key, res),
        }
    }

    /// Answers a body that comes too slowly with 408, and closes behind it.
    fn refuse_slow_body(&mut self, bytes: u64, waited_ms: u64, key: ClientKey, res: &mut Resources) -> Fate {
        let Some(mut active) = self.take_state() else { return Fate::Keep };
        active.exchange.log_in_scope(
            &mut res.env,
            Level::Info,
            format_args!(
                "client sent {bytes} bytes of its body in {waited_ms} ms, fewer than \"client_body_min_rate\" allows"
            ),
        );
        res.counters.refuse_body();
        active.body = None;
        if let Some(relay) = active.relay.take() {
            relay.abandon(&mut active.exchange, res);
        }
        active.waiting = Waiting::Nothing;
        let step = active.exchange.refuse_slowness(&mut res.env);
        match self.follow(active, step, key, res) {
            // What was gathered is sent.
            Fate::Keep => self.read_on(key, res),
            Fate::Close => Fate::Close,
        }
    }
}

/// The least rate of a body that is passed on as it comes.
pub(super) fn upload_rate(exchange: &Exchange) -> MinRate {
    let call = exchange.upstream.as_ref().and_then(|passed| passed.call.as_ref());
    match call.map(|call| call.module) {
        Some(PassModule::Grpc) => MinRate::default(),
        _ => exchange.scope_settings().core.client_body_min_rate,
    }
}
