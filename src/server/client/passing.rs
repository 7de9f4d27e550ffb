//! A request that is passed on: the client's side of the relay.
//!
//! Until the upstream's head is there the request waits as [`Waiting::Upstream`], while its body may still come in
//! ([`Client::read_upload`]). Then the response is pumped: what the relay has is sent, what it has not is asked for, and
//! when the client's socket is full the relay reads ahead within its buffers.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::base::level::Level;
use crate::http::flow::Answer;
use crate::message::{RequestFraming, Status};
use crate::proto::h1::{Event, HeadLimits};
use crate::server::files::{Completion, Sent, Warmth, calls, sending};
use crate::server::pool::JobId;
use crate::server::relay::inbound::Front;
use crate::server::relay::{Fill, Progress, Relay};
use crate::server::worker::resources::Resources;

use super::output::{COPY_MAX, Pumped};
use super::patience::upload_rate;
use super::request_body::BodyProgress;
use super::{Active, Client, ClientKey, Fate, State, Waiting};

/// The client closed its connection before it was answered; nginx's number.
const CLIENT_CLOSED: u16 = 499;

/// Less than so many bytes may wait for the rest of a body whose length is known: one packet's worth.
const POSTPONED_BYTES: usize = 1460;

impl Client {
    /// Begins to pass the request on; the answer if there is one at once.
    pub fn begin_passing(
        &mut self,
        active: &mut Active,
        key: ClientKey,
        res: &mut Resources,
    ) -> Option<Answer> {
        if let Some(relay) = active.relay.take() {
            relay.abandon(&mut active.exchange, res);
        }
        self.begin_pace();
        let mut relay = Relay::new(key, &mut active.exchange, active.body_file.as_ref(), res);
        if relay.awaits_client() {
            if !self.wire.body_pending() {
                relay.end_upload();
            } else if self.wire.withholds_body() {
                self.wire.interim(Status::CONTINUE, &mut res.out);
            }
        }
        active.relay = Some(relay);
        active.waiting = Waiting::Upstream;
        self.advance_relay(active, res)
    }

    /// Moves the relay on; the answer for the exchange if there is one now.
    fn advance_relay(&mut self, active: &mut Active, res: &mut Resources) -> Option<Answer> {
        loop {
            let relay = active.relay.as_mut()?;
            match relay.advance(&mut active.exchange, res) {
                Progress::Head => return Some(Answer::Upstream(Ok(()))),
                Progress::Failed(failure) => {
                    active.relay = None;
                    return Some(Answer::Upstream(Err(failure)));
                }
                Progress::EarlyHints => self.pass_early_hints(active, res),
                Progress::Waiting => {
                    self.watch_relay(active, res);
                    return None;
                }
            }
        }
    }

    /// The deadline that is next: the relay's, or the client's for its body.
    pub(super) fn watch_relay(&mut self, active: &Active, res: &mut Resources) {
        let Some(relay) = &active.relay else { return };
        let now_ms = res.env.now.monotonic_ms;
        let mut deadline_ms = relay.deadline_ms();
        if relay.is_starved(&active.exchange) {
            let timeout = active.exchange.scope_settings().core.client_body_timeout;
            self.pace.wait(now_ms, upload_rate(&active.exchange));
            self.patience_ms = active.upload_moved_ms.max(relay.began_ms()) + timeout;
            deadline_ms = deadline_ms.min(self.patience_ms).min(self.pace.due_ms());
        } else {
            self.pace.rest(now_ms);
        }
        self.set_deadline(deadline_ms.max(now_ms + 1));
    }

    /// A 103 of the upstream for the client (RFC 8297).
    fn pass_early_hints(&mut self, active: &mut Active, res: &mut Resources) {
        active.exchange.hide_from_early_hints();
        if let Some(passed) = &active.exchange.upstream {
            self.wire.interim_with(Status::EARLY_HINTS, &passed.response.fields, &mut res.out);
        }
    }

    /// Something happened at the upstream's socket, or what the relay waited for has come.
    pub fn on_upstream_event(&mut self, key: ClientKey, res: &mut Resources) -> Fate {
        let Some(mut active) = self.take_state() else { return Fate::Keep };
        let fate = match active.waiting {
            Waiting::Upstream => match self.advance_relay(&mut active, res) {
                Some(answer) => self.drive(active, Some(answer), key, res),
                None => {
                    self.state = State::Active(active);
                    Fate::Keep
                }
            },
            Waiting::Output if active.output.is_upstream() => {
                // It may have answered before it took the whole request, and want the rest of it all the same.
                let Active { relay, exchange, .. } = &mut *active;
                if let Some(relay) = relay {
                    relay.send_on(exchange, res);
                }
                self.state = State::Active(active);
                self.pump(key, res)
            }
            Waiting::Tunnel => {
                self.state = State::Active(active);
                self.pump_tunnel(key, res)
            }
            _ => {
                self.state = State::Active(active);
                Fate::Keep
            }
        };
        match fate {
            Fate::Keep => self.read_on(key, res),
            Fate::Close => fate,
        }
    }

    /// Feeds input to a body that is passed on as it comes.
    pub fn read_upload(&mut self, input: &mut &[u8], key: ClientKey, res: &mut Resources) -> BodyProgress {
        let State::Active(active) = &mut self.state else { return BodyProgress::Went };
        let Some(relay) = &mut active.relay else { return BodyProgress::Went };
        let before = input.len();
        let event = self.wire.read(input, &HeadLimits::default(), &mut active.exchange.head);
        self.request_bytes += (before - input.len()) as u64;
        active.exchange.outcome.request_length = self.request_bytes;
        active.upload_moved_ms = res.env.now.monotonic_ms;
        match event {
            Ok(Event::Body(bytes)) => {
                active.uploaded += bytes.len() as u64;
                let limit = active.exchange.scope_settings().core.client_max_body_size;
                if limit != 0
                    && active.uploaded > limit
                    && active.exchange.head.framing == RequestFraming::Streamed
                {
                    let message = format_args!("client intended to send too large chunked body");
                    active.exchange.log_in_scope(&mut res.env, Level::Error, message);
                    return self.refuse_upload(Status::CONTENT_TOO_LARGE, key, res);
                }
                relay.push_upload(bytes, res.env.now.monotonic_ms);
                // That this was the last piece has to be known now: nothing that comes later brings the question up again.
                let is_stuck = !relay.has_upload_room() && input.is_empty();
                let head = &mut active.exchange.head;
                if is_stuck
                    && matches!(self.wire.read(input, &HeadLimits::default(), head), Ok(Event::BodyEnd))
                {
                    relay.end_upload();
                }
                if relay.has_upload_room() {
                    return BodyProgress::Went;
                }
                self.upload_moved(key, res)
            }
            Ok(Event::BodyEnd | Event::Paused) => {
                relay.end_upload();
                self.upload_moved(key, res)
            }
            Ok(Event::NeedMore | Event::Head) => match self.upload_moved(key, res) {
                BodyProgress::Went => BodyProgress::NeedMore,
                other => other,
            },
            Err(error) => {
                active.exchange.log_refusal(&mut res.env, &error.message, error.phase);
                self.refuse_upload(error.status, key, res)
            }
        }
    }

    /// What was taken of the body goes on to the upstream.
    fn upload_moved(&mut self, key: ClientKey, res: &mut Resources) -> BodyProgress {
        let Some(mut active) = self.take_state() else { return BodyProgress::Went };
        if active.waiting == Waiting::Upstream {
            if let Some(answer) = self.advance_relay(&mut active, res) {
                return progress_of(self.drive(active, Some(answer), key, res));
            }
        } else if let Some(relay) = &mut active.relay {
            relay.send_on(&mut active.exchange, res);
        }
        self.state = State::Active(active);
        BodyProgress::Went
    }

    /// The client's body is not acceptable: it is told so if nothing else was, else the connection is cut.
    fn refuse_upload(&mut self, status: Status, key: ClientKey, res: &mut Resources) -> BodyProgress {
        let Some(mut active) = self.take_state() else { return BodyProgress::Close };
        if active.waiting != Waiting::Upstream {
            self.state = State::Active(active);
            return BodyProgress::Close;
        }
        if let Some(relay) = active.relay.take() {
            relay.abandon(&mut active.exchange, res);
        }
        let step = active.exchange.refuse(&mut res.env, status);
        progress_of(self.follow(active, step, key, res))
    }

    /// The client has gone while its request was with the upstream.
    pub fn on_client_gone(&mut self, res: &mut Resources) -> Fate {
        let State::Active(active) = &mut self.state else { return Fate::Keep };
        let is_answered = match active.waiting {
            Waiting::Upstream => false,
            Waiting::Output if active.output.is_upstream() => true,
            _ => return Fate::Keep,
        };
        // Behind the relay's own response other slices of it may be under way.
        let goes_on = active.output.is_sliced();
        let ends = |relay: &Relay| relay.ends_with_client() && (goes_on || !relay.is_over());
        if !active.relay.as_deref().is_some_and(ends) {
            return Fate::Keep;
        }
        active.exchange.log_in_scope(
            &mut res.env,
            Level::Info,
            format_args!(
                "epoll_wait() reported that client prematurely closed connection, so upstream connection is closed too"
            ),
        );
        if !is_answered {
            active.exchange.response.status = Status(CLIENT_CLOSED);
        }
        Fate::Close
    }

    /// A deadline while the request is with the upstream.
    pub fn on_relay_deadline(&mut self, key: ClientKey, res: &mut Resources) -> Fate {
        match self.pass_deadline(key, res) {
            Fate::Keep => self.read_on(key, res),
            Fate::Close => Fate::Close,
        }
    }

    fn pass_deadline(&mut self, key: ClientKey, res: &mut Resources) -> Fate {
        let Some(mut active) = self.take_state() else { return Fate::Keep };
        let now_ms = res.env.now.monotonic_ms;
        let Some(relay) = active.relay.as_mut() else {
            self.state = State::Active(active);
            return Fate::Close;
        };
        if relay.is_starved(&active.exchange) && relay.deadline_ms() > now_ms {
            self.state = State::Active(active);
            return self.on_upload_deadline(key, res);
        }
        relay.on_deadline(&mut active.exchange, res);
        if active.waiting == Waiting::Output {
            self.state = State::Active(active);
            return self.pump(key, res);
        }
        match self.advance_relay(&mut active, res) {
            Some(answer) => self.drive(active, Some(answer), key, res),
            None => {
                self.state = State::Active(active);
                Fate::Keep
            }
        }
    }

    /// Sends what the upstream has sent.
    pub(super) fn pump_upstream(
        &mut self,
        active: &mut Active,
        key: ClientKey,
        res: &mut Resources,
    ) -> Result<Pumped, Errno> {
        let mut budget = self.turn_bytes();
        let Active { exchange, output, relay: Some(relay), .. } = active else { return Ok(Pumped::Broken) };
        loop {
            let window = exchange.upstream.as_ref().and_then(|passed| passed.window);
            if !self.flags.gone && window.is_some_and(|window| window.skip == 0 && window.left == 0) {
                // What follows the part that was asked for is of no use to anybody.
                break;
            }
            let mut most = relay.inbound.front_len().min(budget);
            if most == 0 {
                // Where nothing is at hand, the body may be complete: a stream whose last frame was sent has no other turn.
                if budget == 0 && relay.inbound.front_len() > 0 {
                    return Ok(Pumped::Spent);
                }
                match relay.fill(exchange, key, res) {
                    Fill::Ready => continue,
                    Fill::Complete => break,
                    Fill::Broken => {
                        // What was received is the client's; that it is not all, it sees by the end.
                        let _ = self.flush(res);
                        self.flags.reset |= output.is_until_close();
                        return Ok(Pumped::Broken);
                    }
                    Fill::Waiting if relay.may_postpone(exchange) && self.postpone(res) => {
                        relay.await_body(exchange, res.env.now.monotonic_ms);
                        return Ok(Pumped::Starved);
                    }
                    Fill::Waiting => {
                        relay.await_body(exchange, res.env.now.monotonic_ms);
                        let sent = self.flags.gone || self.flush(res)?;
                        return Ok(if sent { Pumped::Starved } else { Pumped::Blocked });
                    }
                }
            }
            if self.flags.gone {
                relay.inbound.consume(most);
                continue;
            }
            if let Some(window) = exchange.upstream.as_mut().and_then(|passed| passed.window.as_mut()) {
                if window.skip > 0 {
                    let skipped = window.skip.min(most);
                    window.skip -= skipped;
                    relay.inbound.consume(skipped);
                    continue;
                }
                most = most.min(window.left);
            }
            if let Some(wait) = output.limit_rate(&mut most, res.env.now.monotonic_ms) {
                relay.absorb(exchange, key, res);
                return Ok(if self.flush(res)? { Pumped::Delayed(wait) } else { Pumped::Blocked });
            }
            most = output.begin_chunk_of(most, &mut res.out);
            let sent = match self.send_front(relay, most, res) {
                Ok(sent) => sent,
                Err(_) if !relay.ends_with_client() => {
                    self.flags.gone = true;
                    res.out.clear();
                    self.unsent = Vec::new();
                    continue;
                }
                Err(error) => return Err(error),
            };
            if sent == 0 {
                relay.absorb(exchange, key, res);
                return Ok(Pumped::Blocked);
            }
            relay.inbound.consume(sent);
            if let Some(window) = exchange.upstream.as_mut().and_then(|passed| passed.window.as_mut()) {
                window.left -= sent;
            }
            output.note_sent(sent, exchange, &mut res.out);
            budget -= sent.min(budget);
        }
        Ok(Pumped::Done)
    }

    /// Keeps the little that was gathered until more of the body comes: upstreams often send a head and a short body in
    /// two packets, which need not be two for the client as well. nginx does the same (`postpone_output`).
    pub(super) fn postpone(&mut self, res: &mut Resources) -> bool {
        let little = self.lane().is_none() && self.unsent.len() + res.out.len() < POSTPONED_BYTES;
        if little {
            match self.transport.plain() {
                Some(_) => self.unsent.append(&mut res.out),
                None => self.encrypt_gathered(res),
            }
        }
        little
    }

    /// Sends or gathers some of what stands at the front; 0 if the socket takes nothing.
    fn send_front(&mut self, relay: &Relay, most: u64, res: &mut Resources) -> Result<u64, Errno> {
        match relay.inbound.front() {
            Front::Empty => Ok(0),
            Front::Memory(bytes) => {
                let bytes = &bytes[..most as usize];
                if most <= COPY_MAX && self.may_gather(res) {
                    res.out.extend_from_slice(bytes);
                    return Ok(most);
                }
                Ok(self.send_with(bytes, SendFlags::NOSIGNAL, res)? as u64)
            }
            Front::File(file, offset, _) => {
                if !self.flush(res)? {
                    return Ok(0);
                }
                let Some(socket) = self.transport.plain() else {
                    return self.send_file_encrypted(file, offset, most, res);
                };
                // Written a moment ago: it is in the page cache as a rule, and where it is not, waiting for the disk
                // once is what nginx does as well.
                match sending::send_descriptor(socket, file, offset, most as usize, Warmth::JustRead) {
                    Ok(Sent::Wrote(count)) => self.transport.count_sent(count as u64).map(|()| count as u64),
                    Ok(Sent::Blocked | Sent::Cold) => Ok(0),
                    Ok(Sent::Truncated) => Err(Errno::IO),
                    Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
                }
            }
        }
    }

    /// A piece of a temporary file where the kernel cannot send it by itself.
    fn send_file_encrypted(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        most: u64,
        res: &mut Resources,
    ) -> Result<u64, Errno> {
        let mut buffer = std::mem::take(&mut res.copy);
        let want = buffer.len().min(most as usize).min(self.room());
        let sent = match calls::read(file, &mut buffer[..want], offset) {
            Ok(0) if want == 0 => Ok(0),
            Ok(0) => Err(Errno::IO),
            Ok(count) => self.send_with(&buffer[..count], SendFlags::NOSIGNAL, res),
            Err(error) => Err(error),
        };
        res.copy = buffer;
        sent.map(|count| count as u64)
    }

    /// The pool has done something for the relay.
    pub fn on_relay_completion(
        &mut self,
        key: ClientKey,
        job: JobId,
        completion: Completion,
        res: &mut Resources,
    ) -> Fate {
        if let State::Active(active) = &mut self.state
            && let Some(relay) = &mut active.relay
        {
            relay.on_completion(job, completion, &mut active.exchange, res);
        }
        self.on_upstream_event(key, res)
    }
}

fn progress_of(fate: Fate) -> BodyProgress {
    match fate {
        Fate::Keep => BodyProgress::Went,
        Fate::Close => BodyProgress::Close,
    }
}
