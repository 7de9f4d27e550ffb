//! The connection's side: frames in, frames out, patience.

use std::cell::RefCell;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use crate::base::level::Level;
use crate::proto::h2::{self, ConnectionError, ServerEvent, StreamKey};
use crate::server::worker::resources::Resources;

use super::super::serve::{Consumed, head_limits};
use super::super::{Client, ClientKey, Fate, State};
use super::{Mux, Newborn, SharedMux, StreamLink, queue};

/// Events that one turn takes; the rest of the input is put away for the next.
const EVENTS_PER_TURN: usize = 512;
/// Requests that one turn begins: each has memory of its own from here on, most of which goes to the next ones where it
/// waits for window.
const REQUESTS_PER_TURN: usize = 64;

/// How long a stream waits for window, or for a socket that takes nothing, until what it has open is closed, in
/// milliseconds: longer than the round trip of a client that reads, so that its downloads open their file once.
pub(super) const STANDING_MS: u64 = 200;

impl Client {
    /// The mux, if the connection speaks HTTP/2.
    pub(super) fn mux(&self) -> Option<SharedMux> {
        match &self.state {
            State::Multiplexed(mux) => Some(Rc::clone(mux)),
            _ => None,
        }
    }

    /// Speaks HTTP/2 from here on.
    pub fn begin_multiplexing(&mut self, key: ClientKey, res: &mut Resources) {
        let site = res.site_of(self);
        let settings = site.settings(res.root_of(self));
        let window = u32::try_from(settings.http2.preread_size).unwrap_or(u32::MAX);
        let standard = h2::Config::default();
        let config = h2::Config {
            max_concurrent_streams: u32::try_from(settings.http2.max_concurrent_streams).unwrap_or(u32::MAX),
            stream_window: window.max(standard.stream_window),
            connection_window: window.max(standard.connection_window),
            allow_tunnels: true,
            window_timeout_ms: settings.core.send_timeout,
            standing_ms: STANDING_MS,
            ..standard
        };
        let socket = self.transport.socket().map_or(-1, |socket| socket.as_raw_fd());
        let mut mux = Mux::new(h2::Server::new(config), key, socket);
        let Mux { machine, out, .. } = &mut mux;
        machine.start(res.env.now.monotonic_ms, out);
        mux.last_end_ms = res.env.now.monotonic_ms;
        let mux = Rc::new(RefCell::new(mux));
        queue(&mux, res);
        self.state = State::Multiplexed(mux);
    }

    /// Feeds the machine.
    pub(in super::super) fn read_frames(
        &mut self,
        input: &mut &[u8],
        key: ClientKey,
        res: &mut Resources,
    ) -> Consumed {
        let Some(shared) = self.mux() else { return Consumed::All };
        queue(&shared, res);
        let (mut active, address) = res.take_active(self);
        let limits = head_limits(&active);
        let mut mux = shared.borrow_mut();
        let (mut requests, mut events) = (0, EVENTS_PER_TURN);
        for event in 0.. {
            // With nothing left to put away, nothing would bring the turn for what the machine still has to say.
            if event >= events && !input.is_empty() {
                break;
            }
            let before = input.len();
            let head = &mut active.exchange.head;
            let Mux { machine, out, .. } = &mut *mux;
            let (stream, refused, is_tunnel) =
                match machine.read(input, res.env.now.monotonic_ms, &limits, head, out) {
                    Ok(ServerEvent::NeedMore) => {
                        if event > 0 {
                            // What has begun now is another frame than before.
                            mux.amid_since_ms = None;
                        }
                        res.give_back(active);
                        return Consumed::All;
                    }
                    Ok(ServerEvent::Head { stream, is_tunnel }) => (stream, None, is_tunnel),
                    Ok(ServerEvent::Refused { stream, error }) => (stream, Some(error), false),
                    Ok(ServerEvent::Data { stream, data }) => {
                        mux.deliver(stream, data, res);
                        continue;
                    }
                    Ok(ServerEvent::End { stream, .. }) => {
                        mux.end(stream, res);
                        continue;
                    }
                    Ok(ServerEvent::Lost { stream, loss }) => {
                        self.log_loss(stream, loss.reason, res);
                        mux.lose(stream, res);
                        continue;
                    }
                    Ok(ServerEvent::Rejected { id, reason }) => {
                        res.log_connection(self, Level::Info, format_args!("{reason} (stream {id})"));
                        continue;
                    }
                    Ok(ServerEvent::Closed) => {
                        res.give_back(active);
                        return Consumed::Close;
                    }
                    Err(error) => {
                        drop(mux);
                        res.give_back(active);
                        self.fail_multiplexed(&error, res);
                        return Consumed::Close;
                    }
                };
            mux.open(stream);
            let length = (before - input.len()) as u64;
            let link = StreamLink { mux: Rc::clone(&shared), stream };
            let fresh = res.take_active(self).0;
            let facts = self.facts.clone();
            let listener = self.listener;
            let active = std::mem::replace(&mut active, fresh);
            res.newborn.push(Newborn { link, active, address, refused, facts, listener, length, is_tunnel });
            self.facts.requests = self.facts.requests.saturating_add(1);
            self.limit_requests(&mut mux, &active_core(res, self), res);
            requests += 1;
            if requests == REQUESTS_PER_TURN {
                // One more, which may be the reset that follows at once: then this one is not begun.
                events = event + 2;
            }
        }
        drop(mux);
        res.give_back(active);
        res.make_ready(self, key);
        self.put_away(input, res)
    }

    fn log_loss(&self, stream: StreamKey, reason: &str, res: &mut Resources) {
        res.log_connection(self, Level::Info, format_args!("{reason} (stream {})", stream.id()));
    }

    /// The connection is over: the client is told why, and what is under way is dropped.
    fn fail_multiplexed(&mut self, error: &ConnectionError, res: &mut Resources) {
        res.log_connection(self, Level::Info, format_args!("{}", error.reason));
        if let Some(limit) = error.limit {
            res.counters.reach_limit(limit);
        }
        self.gather_frames(res);
    }

    /// Moves the frames to where they are sent from.
    fn gather_frames(&mut self, res: &mut Resources) {
        if let Some(mux) = self.mux() {
            res.out.append(&mut mux.borrow_mut().out);
        }
    }

    /// Sends what the streams have written, and sees whether the connection is done.
    pub fn send_frames(&mut self, key: ClientKey, res: &mut Resources) -> Fate {
        let Some(shared) = self.mux() else { return Fate::Keep };
        // The buffers change places, so that each keeps its memory.
        debug_assert!(res.out.is_empty(), "a turn begins with nothing gathered");
        std::mem::swap(&mut shared.borrow_mut().out, &mut res.out);
        let owed = self.unsent.len() + res.out.len();
        let flushed = self.flush(res);
        std::mem::swap(&mut shared.borrow_mut().out, &mut res.out);
        let now_ms = res.env.now.monotonic_ms;
        match flushed {
            Ok(true) => shared.borrow_mut().stall = None,
            Ok(false) => {
                self.want_write(key, res);
                self.await_frames_taken(self.unsent.len() < owed, res);
                return Fate::Keep;
            }
            Err(_) => return Fate::Close,
        }
        self.pace.rest(now_ms);
        if shared.borrow().machine.is_drained() {
            return self.leave_drained(res);
        }
        self.await_frames(res);
        Fate::Keep
    }

    /// Everything was answered and the client knows that nothing more is: as behind the last response of HTTP/1, what
    /// still comes must not make the kernel reset what is on its way.
    fn leave_drained(&mut self, res: &mut Resources) -> Fate {
        self.say_goodbye(res);
        match self.flush(res) {
            Ok(true) => {
                let site = res.site_of(self);
                let core = &site.settings(res.root_of(self)).core;
                let lingering = (core.lingering_close, core.lingering_time, core.lingering_timeout);
                self.begin_lingering(lingering, res.env.now.monotonic_ms)
            }
            _ => Fate::Close,
        }
    }

    /// The socket is full; `moved` says whether it took something before it was.
    pub(in super::super) fn await_frames_taken(&mut self, moved: bool, res: &Resources) {
        let Some(shared) = self.mux() else { return };
        let now_ms = res.env.now.monotonic_ms;
        let site = res.site_of(self);
        let mut mux = shared.borrow_mut();
        mux.pace.rest(now_ms);
        // What it asks for meanwhile does not make it a reader.
        if moved || mux.stall.is_none() {
            self.await_reader(&site.settings(res.root_of(self)).core, now_ms);
        }
        self.set_deadline(self.patience_ms.min(self.pace.due_ms()).min(mux.stalled(moved, now_ms)));
    }

    /// The deadline of a connection that has nothing to send now.
    fn await_frames(&mut self, res: &mut Resources) {
        let Some(mux) = self.mux() else { return };
        let mut mux = mux.borrow_mut();
        mux.amid_since_ms = match mux.machine.is_amid_frame() {
            true => mux.amid_since_ms.or(Some(res.env.now.monotonic_ms)),
            false => None,
        };
        let site = res.site_of(self);
        let core = &site.settings(res.root_of(self)).core;
        let now_ms = res.env.now.monotonic_ms;
        let idle = match (mux.machine.open_streams(), self.facts.requests) {
            // The first head has no more time than from accepting on, whatever comes before it.
            (0, 0) => self.facts.accepted_ms.saturating_add(core.client_header_timeout),
            (0, _) => mux.last_end_ms.saturating_add(core.keepalive_timeout.idle_ms),
            _ => u64::MAX,
        };
        match mux.machine.is_out_of_window() {
            true => mux.pace.wait(now_ms, core.send_min_rate),
            false => mux.pace.rest(now_ms),
        }
        let rest =
            mux.amid_since_ms.map_or(u64::MAX, |since| since.saturating_add(core.client_header_timeout));
        self.last_active_ms = mux.last_end_ms;
        let machine = mux.machine.deadline().unwrap_or(u64::MAX);
        self.set_deadline(idle.min(rest).min(mux.pace.due_ms()).min(machine));
    }

    /// The deadline has passed.
    pub fn on_frames_deadline(&mut self, key: ClientKey, res: &mut Resources) -> Fate {
        let site = res.site_of(self);
        let core = &site.settings(res.root_of(self)).core;
        let Some(shared) = self.mux() else { return Fate::Keep };
        let now_ms = res.env.now.monotonic_ms;
        if !self.unsent.is_empty() {
            shared.borrow_mut().stand_if_stalled(now_ms, res);
            return self.on_reader_deadline(core.send_min_rate, core.send_timeout, res);
        }
        queue(&shared, res);
        let judged = shared.borrow_mut().judge_window(core, now_ms);
        if let Some((bytes, waited_ms)) = judged {
            return self.cut_reader(bytes, waited_ms, res);
        }
        {
            let mut mux = shared.borrow_mut();
            let Mux { machine, out, .. } = &mut *mux;
            if let Err(error) = machine.on_deadline(now_ms, out) {
                drop(mux);
                self.fail_multiplexed(&error, res);
                return Fate::Close;
            }
            for stream in mux.machine.take_standing() {
                mux.stand(stream, res);
            }
        }
        if matches!(self.read_frames(&mut &b""[..], key, res), Consumed::Close) {
            return Fate::Close;
        }
        self.await_frames(res);
        let timeout = core.client_header_timeout;
        if shared.borrow().amid_since_ms.is_some_and(|since| since.saturating_add(timeout) <= now_ms) {
            return self.time_out(None, "client timed out", res);
        }
        if self.deadline_ms <= now_ms && shared.borrow().machine.open_streams() == 0 {
            self.leave_multiplexed(res);
            return self.leave_drained(res);
        }
        Fate::Keep
    }

    /// Begins to leave: what is under way is finished, nothing new is taken.
    pub fn quit_multiplexed(&mut self, res: &mut Resources) {
        let Some(shared) = self.mux() else { return };
        let mut mux = shared.borrow_mut();
        let Mux { machine, out, .. } = &mut *mux;
        machine.shut_down(res.env.now.monotonic_ms, out);
        drop(mux);
        queue(&shared, res);
    }

    /// Says goodbye to a client that has nothing open.
    fn leave_multiplexed(&mut self, res: &mut Resources) {
        if let Some(shared) = self.mux() {
            let mut mux = shared.borrow_mut();
            let Mux { machine, out, .. } = &mut *mux;
            machine.leave(out);
        }
        self.gather_frames(res);
    }

    /// A turn of the connection panicked: it is closed without a word, and its streams with it.
    pub fn abandon_multiplexed(&mut self, res: &mut Resources) {
        if let Some(shared) = self.mux()
            && let Ok(mut mux) = shared.try_borrow_mut()
        {
            mux.close(res);
        }
    }

    /// The connection is being closed, and its streams with it.
    pub fn close_multiplexed(&mut self, res: &mut Resources) {
        let Some(shared) = self.mux() else { return };
        if shared.borrow().machine.open_streams() == 0 && !self.flags.reset && self.unsent.is_empty() {
            self.leave_multiplexed(res);
            self.send_last(res);
        }
        shared.borrow_mut().close(res);
    }

    /// `keepalive_requests` and `keepalive_time`: the client is told to make its next requests elsewhere.
    fn limit_requests(&self, mux: &mut Mux, limits: &(u64, u64), res: &mut Resources) {
        let now_ms = res.env.now.monotonic_ms;
        let is_spent = u64::from(self.facts.requests) >= limits.0
            || now_ms.saturating_sub(self.facts.accepted_ms) >= limits.1
            || res.quitting;
        if is_spent {
            let Mux { machine, out, .. } = mux;
            machine.shut_down(now_ms, out);
        }
    }
}

/// `keepalive_requests` and `keepalive_time`.
fn active_core(res: &Resources, client: &Client) -> (u64, u64) {
    let site = res.site_of(client);
    let core = &site.settings(res.root_of(client)).core;
    (core.keepalive_requests, core.keepalive_time)
}
