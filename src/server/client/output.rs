//! The response's bytes out: heads and small bodies are gathered, large ones go by `writev` and `sendfile`.
//!
//! Order on the wire: what an earlier turn could not send (`Client::unsent`), what this turn has gathered
//! (`Resources::out`), then the body of the present response, piece by piece.

mod filtering;
pub mod parking;
mod reopening;
mod slices;
mod weave;

use std::io::IoSlice;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::conf::values;
use crate::http::body::Body;
use crate::http::exchange::Exchange;
use crate::http::file::{FileFailure, FileRange};
use crate::message::{Fields, ResponseFraming};
use crate::proto::h1::{CHUNK_SUFFIX, RespondOptions, chunk_prefix, finish};
use crate::proto::h2;
use crate::server::files::{
    Completion, Copied, ReadBuffer, Sent, TURN_BYTES, Warmth, is_given_up, read_range, send_range, sending,
};
use crate::server::listeners::NOT_SENT_LOW_WATER;
use crate::server::pool::JobId;
use crate::server::worker::resources::Resources;

use super::lane::Lane;
use super::transport::Transport;
use super::{Active, Client, ClientKey, Fate, State, Waiting};
use filtering::Filtering;
use reopening::Reopened;

/// Bodies up to so many bytes are copied behind their head, so that one `send` takes both (and several pipelined
/// responses). For 16 KiB that costs 0.68 of nginx's CPU, two elements of `writev` 0.73, `sendfile` 0.78.
pub(super) const COPY_MAX: u64 = 32 * 1024;

/// A reader that takes so many bytes of a body within [`FAST_MS`] is fast.
const FAST_BYTES: u64 = 1 << 20;
/// See [`FAST_BYTES`].
const FAST_MS: u64 = 100;
/// A fast reader whose socket stays full for so long is slow again, in milliseconds.
const SLOW_MS: u64 = 1000;
/// What a fast reader may have unsent in the kernel, in bytes. A slow one has what its listener set
/// ([`NOT_SENT_LOW_WATER`]): that bounds what five hundred stalled readers pin, but wakes a fast one for every few
/// packets, at twice the CPU for 10 MiB over loopback.
const FAST_LOW_WATER: u32 = 4 << 20;

/// The way out of one response.
#[derive(Debug, Default)]
pub struct Output {
    body: Body,
    /// Bytes of the first piece that are sent, where it is in memory of its own.
    sent_of_piece: usize,
    framing: ResponseFraming,
    /// Bytes left of the chunk that is being sent.
    chunk_left: u64,
    warmth: Option<(u64, Warmth)>,
    /// Read by the pool, for what `sendfile` cannot send; with the offset in the file.
    read: Option<(u64, ReadBuffer)>,
    job: Option<JobId>,
    /// Monotonic milliseconds when `limit_rate` allows more.
    delayed_until_ms: Option<u64>,
    rate: Option<Rate>,
    /// Monotonic milliseconds when sending began.
    began_ms: u64,
    /// Monotonic milliseconds since when the socket is full; 0 if it is not.
    blocked_ms: u64,
    body_sent: u64,
    trailers: bool,
    sendfile: bool,
    /// The upstream is waited for.
    starved: bool,
    /// What the body passes through on its way.
    filtering: Option<Box<Filtering>>,
}

/// `limit_rate`.
#[derive(Clone, Copy, Debug)]
struct Rate {
    bytes_per_second: u64,
    after: u64,
    began_ms: u64,
}

impl Rate {
    /// How many bytes may be sent now beyond those sent; as in nginx the first second's worth may go at once.
    fn allowance(&self, now_ms: u64, sent: u64) -> u64 {
        let elapsed = now_ms - self.began_ms + 1000;
        let granted = (u128::from(self.bytes_per_second) * u128::from(elapsed) / 1000) as u64;
        self.after.saturating_add(granted).saturating_sub(sent)
    }

    /// Milliseconds until something may be sent again.
    fn wait_ms(&self, now_ms: u64, sent: u64) -> u64 {
        let over = sent.saturating_sub(self.after);
        let due = u128::from(over) * 1000 / u128::from(self.bytes_per_second.max(1));
        let elapsed = u128::from(now_ms - self.began_ms + 1000);
        (due.saturating_sub(elapsed) as u64).clamp(10, 1000)
    }
}

/// Where sending stands.
pub(super) enum Pumped {
    /// All of the response was sent or gathered.
    Done,
    /// The socket takes no more now.
    Blocked,
    /// The turn's budget is spent.
    Spent,
    /// `limit_rate` says wait, for so many milliseconds.
    Delayed(u64),
    /// The pool reads the file.
    Reading,
    /// The upstream has nothing to say now.
    Starved,
    /// A subrequest has nothing to say now; it wakes the client.
    Waiting,
    /// The response cannot be finished as it was announced.
    Broken,
}

impl Client {
    /// Encodes the response's head and gets its body ready. Says whether the connection is a tunnel from here on.
    pub fn respond(&mut self, active: &mut Active, res: &mut Resources) -> bool {
        let exchange = &mut active.exchange;
        let site = exchange.site.clone();
        let settings = site.settings(exchange.location);
        let trailers = crate::http::modules::headers::has_trailers(exchange) || exchange.passes_trailers();
        let filtering = filtering::prepare(exchange, res);
        let switches = matches!(exchange.body, Body::Upstream(_)) && exchange.is_switched();
        let options = RespondOptions {
            date: res.env.dates.http_date(),
            keep_alive_allowed: self.keep_alive_allowed(exchange, res),
            keep_alive_header: match settings.core.keepalive_timeout.header_secs {
                0 => None,
                secs => Some(secs),
            },
            chunked_allowed: settings.core.chunked_transfer_encoding,
            trailers_expected: trailers,
            upgrade: switches,
        };
        let (framing, head_bytes) = self.wire.respond(&exchange.response, &options, &mut res.out);
        match &self.transport {
            Transport::Pipe(end) => end.0.borrow_mut().status = Some(exchange.response.status),
            Transport::Stream(end) => end.set_window_timeout(settings.core.send_timeout),
            _ => {}
        }
        let framing = self.lane_mut().map_or(framing, |lane| lane.begin(framing, trailers));
        // From here on it says what was told to the client (`$sent_http_connection`).
        exchange.keep_alive = self.wire.persists();
        let outcome = &mut exchange.outcome;
        outcome.bytes_sent = head_bytes;
        outcome.body_bytes_sent = 0;
        let body = match framing {
            ResponseFraming::None => Body::Empty,
            _ => std::mem::take(&mut exchange.body),
        };
        let rate = if body.is_empty() || switches || exchange.is_subrequest() {
            None
        } else {
            rate_of(exchange, res)
        };
        active.output = Output {
            body,
            framing,
            rate,
            trailers,
            sendfile: settings.core.sendfile,
            began_ms: res.env.now.monotonic_ms,
            filtering,
            ..Output::default()
        };
        active.waiting = if switches { Waiting::Tunnel } else { Waiting::Output };
        self.begin_pace();
        switches
    }

    /// Sends as much of the response as the socket, the rate and the turn allow.
    pub fn pump(&mut self, key: ClientKey, res: &mut Resources) -> Fate {
        let Some(mut active) = self.take_state() else { return Fate::Keep };
        self.pace.rest(res.env.now.monotonic_ms);
        self.move_on();
        active.output.delayed_until_ms = None;
        active.output.starved = false;
        let mut pumped = self.pump_any(&mut active, key, res);
        if matches!(pumped, Ok(Pumped::Done | Pumped::Broken)) && self.respond_with_stub(&mut active, res) {
            pumped = self.pump_any(&mut active, key, res);
        }
        if matches!(pumped, Ok(Pumped::Done)) {
            self.finish_stream(&mut active, res);
            pumped = self.send_postponed(key, res).map(|()| Pumped::Done);
        }
        if let Some(lane) = self.lane() {
            lane.want_turn(matches!(pumped, Ok(Pumped::Blocked | Pumped::Spent)));
        }
        let now_ms = res.env.now.monotonic_ms;
        match pumped {
            Ok(Pumped::Done) => return self.finish_response(active, key, res),
            Ok(Pumped::Blocked) => {
                self.judge_reader(&mut active.output, now_ms);
                self.want_write(key, res);
                self.await_room(&active, now_ms);
                self.join_waiting(key, res);
            }
            Ok(Pumped::Spent) => {
                // Its turn comes; the deadline of what was before must not find it waiting.
                self.await_client(active.exchange.scope_settings().core.send_timeout, now_ms);
                if self.stream().is_none() {
                    res.make_ready(self, key);
                }
            }
            Ok(Pumped::Delayed(ms)) => {
                active.output.delayed_until_ms = Some(now_ms + ms);
                self.set_deadline(now_ms + ms);
            }
            Ok(Pumped::Reading) => {}
            Ok(Pumped::Waiting) => self.set_deadline(u64::MAX),
            Ok(Pumped::Starved) => {
                active.output.starved = true;
                self.watch_relay(&active, res);
            }
            Ok(Pumped::Broken) | Err(_) => {
                active.exchange.outcome.complete = false;
                res.out.clear();
                self.end_exchange(active, res);
                return Fate::Close;
            }
        }
        self.state = State::Active(active);
        Fate::Keep
    }

    fn pump_any(
        &mut self,
        active: &mut Active,
        key: ClientKey,
        res: &mut Resources,
    ) -> Result<Pumped, Errno> {
        match active.output.is_upstream() {
            _ if active.output.filtering.is_some() && !self.flags.gone => {
                self.pump_filtered(active, key, res)
            }
            true => self.pump_upstream(active, key, res),
            false => self.pump_body(active, key, res),
        }
    }

    /// Where an include has come to nothing, makes what its page has for that case its response.
    fn respond_with_stub(&mut self, active: &mut Active, res: &mut Resources) -> bool {
        if active.output.body_sent > 0 || !active.exchange.begin_stub(&mut res.env) {
            return false;
        }
        active.output.close(res);
        active.drop_idle_relay(res);
        self.respond(active, res);
        true
    }

    /// The deadline of a response that has no room. Who reads from a pipe has deadlines of its own; a stream whose own
    /// window is open waits for others.
    fn await_room(&mut self, active: &Active, now_ms: u64) {
        let core = &active.exchange.scope_settings().core;
        match &self.transport {
            Transport::Pipe(_) => self.set_deadline(u64::MAX),
            Transport::Stream(_) if self.shares_window() => self.await_client(core.send_timeout, now_ms),
            _ => self.await_reader(core, now_ms),
        }
    }

    /// Sends what was put off for the sake of a body of which nothing came any more, nor a mark of its end.
    fn send_postponed(&mut self, key: ClientKey, res: &mut Resources) -> Result<(), Errno> {
        if self.unsent.is_empty() || !res.out.is_empty() || self.flags.gone {
            return Ok(());
        }
        if !self.flush(res)? {
            self.want_write(key, res);
        }
        Ok(())
    }

    /// Whether a small piece of a body may join what the turn has gathered.
    pub(super) fn may_gather(&self, res: &Resources) -> bool {
        self.unsent.is_empty() && res.out.len() < res.out_limit() && self.lane().is_none()
    }

    /// Bytes of a body that one turn may send.
    pub(super) fn turn_bytes(&self) -> u64 {
        match self.stream() {
            Some(_) => h2::TURN_BYTES as u64,
            None => TURN_BYTES as u64,
        }
    }

    /// Bytes that could be sent now, as far as that is known.
    pub(super) fn room(&self) -> usize {
        self.lane().map_or(usize::MAX, |lane| lane.room())
    }

    /// Ends a body whose end must be said, with its trailers.
    fn finish_stream(&mut self, active: &mut Active, res: &mut Resources) {
        let Active { exchange, output, .. } = active;
        if output.framing != ResponseFraming::Streamed && self.lane().is_none() {
            return;
        }
        let mut trailers = Fields::default();
        if output.trailers {
            exchange.pass_trailers(&mut trailers);
            exchange.render_trailers(&mut res.env, &mut trailers);
        }
        match &mut self.transport {
            Transport::Stream(end) => end.finish(&trailers),
            Transport::Pipe(_) => {}
            _ => finish(Some(&trailers), &mut res.out),
        }
        output.framing = ResponseFraming::None;
    }

    /// Lets fast readers have more unsent in the kernel than slow ones; asked when the socket is full.
    fn judge_reader(&mut self, output: &mut Output, now_ms: u64) {
        let stalled = output.blocked_ms != 0 && now_ms - output.blocked_ms > SLOW_MS;
        output.blocked_ms = now_ms;
        let fast = output.body_sent >= FAST_BYTES && now_ms - output.began_ms <= FAST_MS;
        let low_water = match self.flags.fast_reader {
            false if fast => FAST_LOW_WATER,
            true if stalled => NOT_SENT_LOW_WATER,
            _ => return,
        };
        self.flags.fast_reader = !self.flags.fast_reader;
        // A Unix socket has no such mark, and needs none.
        if let Some(socket) = self.transport.socket() {
            let _ = socket2::SockRef::from(&socket).set_tcp_notsent_lowat(low_water);
        }
    }

    fn pump_body(
        &mut self,
        active: &mut Active,
        key: ClientKey,
        res: &mut Resources,
    ) -> Result<Pumped, Errno> {
        let mut budget = self.turn_bytes();
        let (exchange, output) = (&mut active.exchange, &mut active.output);
        while !output.body.is_empty() {
            if budget == 0 {
                return Ok(Pumped::Spent);
            }
            let mut most = budget;
            if let Some(wait_ms) = output.limit_rate(&mut most, res.env.now.monotonic_ms) {
                return Ok(if self.flush(res)? { Pumped::Delayed(wait_ms) } else { Pumped::Blocked });
            }
            most = output.begin_chunk(most, &mut res.out);
            let sent = match self.send_piece(output, most, key, res)? {
                Piece::Sent(count) => count,
                Piece::Blocked => return Ok(Pumped::Blocked),
                Piece::Reading => return Ok(Pumped::Reading),
                Piece::Later(wait_ms) => return Ok(Pumped::Delayed(wait_ms)),
                Piece::Truncated => {
                    exchange.log_truncated(&mut res.env);
                    return Ok(Pumped::Broken);
                }
                Piece::Lost(failure) => {
                    exchange.log_not_again(&mut res.env, failure);
                    return Ok(Pumped::Broken);
                }
            };
            output.note_sent(sent, exchange, &mut res.out);
            budget -= sent.min(budget);
        }
        Ok(Pumped::Done)
    }

    /// Sends or gathers some of the body's first piece.
    fn send_piece(
        &mut self,
        output: &mut Output,
        most: u64,
        key: ClientKey,
        res: &mut Resources,
    ) -> Result<Piece, Errno> {
        let skip = output.sent_of_piece;
        let piece = output.first_piece();
        let length = (piece.len() - skip as u64).min(most);
        if let Some(bytes) = memory_of(piece) {
            let bytes = &bytes[skip..][..length as usize];
            if length <= COPY_MAX && self.may_gather(res) {
                res.out.extend_from_slice(bytes);
            } else {
                match self.send_with(bytes, SendFlags::NOSIGNAL, res)? {
                    0 => return Ok(Piece::Blocked),
                    count => {
                        output.consume(count as u64);
                        return Ok(Piece::Sent(count as u64));
                    }
                }
            }
            output.consume(length);
            return Ok(Piece::Sent(length));
        }
        let Body::File(range) = piece else { return Ok(Piece::Truncated) };
        let range = range.clone();
        if is_given_up(&range.handle) {
            return Ok(self.reopen(output, &range.handle, key, res));
        }
        self.send_file_piece(output, &range, length, key, res)
    }

    fn send_file_piece(
        &mut self,
        output: &mut Output,
        range: &FileRange,
        length: u64,
        key: ClientKey,
        res: &mut Resources,
    ) -> Result<Piece, Errno> {
        // The head goes at once: holding it back for the file's first bytes (MSG_MORE, TCP_CORK) makes bbr pace the
        // whole response and costs up to twice the CPU for 100 KiB and more.
        if !self.flush(res)? {
            return Ok(Piece::Blocked);
        }
        if let Some((offset, buffer)) = &output.read
            && *offset <= range.offset
            && range.offset < *offset + buffer.len() as u64
        {
            let bytes = &buffer[(range.offset - *offset) as usize..];
            let bytes = &bytes[..bytes.len().min(length as usize)];
            return Ok(match self.send_with(bytes, SendFlags::NOSIGNAL, res)? {
                0 => Piece::Blocked,
                count => {
                    output.consume(count as u64);
                    Piece::Sent(count as u64)
                }
            });
        }
        output.read = None;
        let warmth = match output.warmth.take() {
            Some((until, warmth)) if range.offset < until => {
                output.warmth = Some((until, warmth));
                warmth
            }
            _ => Warmth::Unknown,
        };
        let now_ms = res.env.now.monotonic_ms;
        let warmth = if sending::was_resident(&range.handle, now_ms) { Warmth::JustRead } else { warmth };
        let by_kernel = output.sendfile && !sending::is_direct(&range.handle);
        if by_kernel {
            self.give_to_kernel(range.length, res)?;
        }
        let socket = self.transport.plain().filter(|_| by_kernel);
        let Some(socket) = socket else {
            return self.send_copied(output, range, length, warmth, key, res);
        };
        match send_range(socket, &range.handle, range.offset, length as usize, warmth) {
            Ok(Sent::Wrote(count)) => {
                self.transport.count_sent(count as u64)?;
                // What was found in memory is not looked for again while the rest of it is sent.
                output.warmth.get_or_insert((range.offset + length, Warmth::JustRead));
                if warmth == Warmth::Unknown {
                    sending::note_resident(&range.handle, range.offset, length, now_ms);
                }
                output.consume(count as u64);
                Ok(Piece::Sent(count as u64))
            }
            Ok(Sent::Blocked) => Ok(Piece::Blocked),
            Ok(Sent::Truncated) => Ok(Piece::Truncated),
            Ok(Sent::Cold) => self.read_ahead(output, range, length, key, res),
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {
                output.sendfile = false;
                self.send_copied(output, range, length, warmth, key, res)
            }
            Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }

    /// Without `sendfile`: through a buffer, from the page cache or by the pool.
    fn send_copied(
        &mut self,
        output: &mut Output,
        range: &FileRange,
        length: u64,
        warmth: Warmth,
        key: ClientKey,
        res: &mut Resources,
    ) -> Result<Piece, Errno> {
        let room = self.room();
        if room == 0 {
            return Ok(Piece::Blocked);
        }
        let mut buffer = std::mem::take(&mut res.copy);
        let want = (length as usize).min(buffer.len()).min(room);
        let copied = read_range(&range.handle, range.offset, &mut buffer[..want], warmth);
        let piece = match copied {
            Ok(Copied::Bytes(count)) => {
                self.send_with(&buffer[..count], SendFlags::NOSIGNAL, res).map(|count| match count {
                    0 => Piece::Blocked,
                    count => {
                        output.consume(count as u64);
                        Piece::Sent(count as u64)
                    }
                })
            }
            Ok(Copied::Truncated) => Ok(Piece::Truncated),
            Ok(Copied::Cold) | Err(_) => {
                let job = res.files.read(&range.handle, range.offset, want);
                match job {
                    Ok(job) => {
                        res.jobs.insert(job, key);
                        output.job = Some(job);
                        Ok(Piece::Reading)
                    }
                    Err(_) => Ok(Piece::Truncated),
                }
            }
        };
        res.copy = buffer;
        piece
    }

    fn read_ahead(
        &mut self,
        output: &mut Output,
        range: &FileRange,
        length: u64,
        key: ClientKey,
        res: &mut Resources,
    ) -> Result<Piece, Errno> {
        match res.files.read_ahead(&range.handle, range.offset, length as usize) {
            Ok(job) => {
                res.jobs.insert(job, key);
                output.job = Some(job);
                output.warmth = Some((range.offset + length, Warmth::JustRead));
                Ok(Piece::Reading)
            }
            // The pool is full: better to read on the loop once than to cut the response.
            Err(_) => {
                output.warmth = Some((range.offset + length, Warmth::JustRead));
                Ok(Piece::Sent(0))
            }
        }
    }

    /// Takes what the pool has read for the response.
    pub fn on_output_completion(
        &mut self,
        key: ClientKey,
        job: JobId,
        completion: Completion,
        res: &mut Resources,
    ) -> Fate {
        let State::Active(active) = &mut self.state else { return Fate::Keep };
        if active.output.job != Some(job) {
            return Fate::Keep;
        }
        active.output.job = None;
        match completion {
            Completion::Read(Ok(buffer)) => {
                if let Body::File(range) = active.output.first_piece() {
                    let offset = range.offset;
                    active.output.read = Some((offset, buffer));
                }
            }
            Completion::Warmed(Ok(())) => {}
            Completion::Opened(answer) => {
                if let Reopened::Lost(failure) = active.output.take_reopened(answer) {
                    active.exchange.log_not_again(&mut res.env, failure);
                    return self.break_response(res);
                }
            }
            _ => {
                res.log_read_failure(active);
                return self.break_response(res);
            }
        }
        self.pump(key, res)
    }

    /// The rest of the response cannot be had.
    fn break_response(&mut self, res: &mut Resources) -> Fate {
        if let Some(mut active) = self.take_state() {
            active.exchange.outcome.complete = false;
            self.end_exchange(active, res);
        }
        Fate::Close
    }

    /// The socket has room again, or the connection's turn has come.
    pub fn on_writable(&mut self, key: ClientKey, res: &mut Resources) -> Fate {
        if !self.unsent.is_empty() || self.transport.owes_goodbye() {
            let before = self.unsent.len();
            match self.flush(res) {
                // The time that the socket had is over; between requests, idle time begins.
                Ok(true) if matches!(self.state, State::Head) => {
                    self.pace.rest(res.env.now.monotonic_ms);
                    self.set_deadline(self.head_deadline_ms(res));
                }
                Ok(true) => {}
                Ok(false) => {
                    if self.unsent.len() < before {
                        self.renew_patience(res);
                    }
                    return Fate::Keep;
                }
                Err(_) => return Fate::Close,
            }
        }
        match &self.state {
            State::Active(active) if active.waiting == Waiting::Output && active.output.job.is_none() => {
                self.pump(key, res)
            }
            State::Multiplexed(mux) => {
                super::h2::queue(mux, res);
                Fate::Keep
            }
            _ => Fate::Keep,
        }
    }

    /// The socket took some of what it had refused.
    fn renew_patience(&mut self, res: &Resources) {
        let now_ms = res.env.now.monotonic_ms;
        match &self.state {
            State::Active(active) => {
                let timeout = active.exchange.scope_settings().core.send_timeout;
                self.await_client(timeout, now_ms);
            }
            State::Multiplexed(_) => self.await_frames_taken(true, res),
            _ => {
                let timeout = res.site_of(self).settings(res.root_of(self)).core.send_timeout;
                self.await_client(timeout, now_ms);
            }
        }
    }

    /// Sends what was gathered; `false` if some of it had to be kept.
    pub fn flush(&mut self, res: &mut Resources) -> Result<bool, Errno> {
        self.send_with(b"", SendFlags::NOSIGNAL, res)?;
        Ok(self.unsent.is_empty() && !self.transport.owes_goodbye())
    }

    /// The same before the connection is closed: the last bytes wait for the FIN and share its packet.
    pub fn flush_last(&mut self, res: &mut Resources) -> Result<bool, Errno> {
        self.send_with(b"", SendFlags::NOSIGNAL | SendFlags::MORE, res)?;
        Ok(self.unsent.is_empty() && !self.transport.owes_goodbye())
    }

    /// Sends what was gathered and then `piece`; returns how much of the piece was taken. What is left of the gathered
    /// bytes is kept for the next turn.
    pub(super) fn send_with(
        &mut self,
        piece: &[u8],
        flags: SendFlags,
        res: &mut Resources,
    ) -> Result<usize, Errno> {
        // A record that is held open for more would wait for it without end.
        let flags = if matches!(self.transport, Transport::Kernel(_)) { SendFlags::NOSIGNAL } else { flags };
        let socket = match &mut self.transport {
            Transport::Plain(socket) => (*socket).as_fd(),
            Transport::Kernel(kernel) => kernel.socket(),
            Transport::Stream(_) | Transport::Pipe(_) => {
                debug_assert!(res.out.is_empty(), "nothing is gathered for a lane");
                return self.lane_mut().map_or(Err(Errno::NOTCONN), |lane| lane.send(piece));
            }
            _ => return self.send_encrypted(piece, flags, res),
        };
        if !self.unsent.is_empty() {
            self.unsent.append(&mut res.out);
            std::mem::swap(&mut self.unsent, &mut res.out);
        }
        let gathered = res.out.len();
        let mut done = 0;
        while done < gathered + piece.len() {
            let from_out = &res.out[done.min(gathered)..];
            let from_piece = &piece[done.saturating_sub(gathered)..];
            let result = match (from_out.is_empty(), from_piece.is_empty()) {
                (false, false) => {
                    rustix::io::writev(socket, &[IoSlice::new(from_out), IoSlice::new(from_piece)])
                }
                (false, true) => rustix::net::send(socket, from_out, flags),
                _ => rustix::net::send(socket, from_piece, flags),
            };
            match result {
                Ok(count) => done += count,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => {
                    res.out.clear();
                    return Err(error);
                }
            }
        }
        self.keep_unsent(done.min(gathered), res);
        if let Transport::Kernel(kernel) = &self.transport {
            if done > 0 {
                kernel.count(done as u64)?;
            }
            if self.unsent.is_empty() {
                kernel.say_goodbye()?;
            }
        }
        Ok(done.saturating_sub(gathered))
    }

    fn keep_unsent(&mut self, sent: usize, res: &mut Resources) {
        if sent < res.out.len() {
            self.unsent.extend_from_slice(&res.out[sent..]);
        } else if self.unsent.capacity() > 0 {
            self.unsent = Vec::new();
        }
        res.out.clear();
    }
}

/// What became of an attempt at sending some of a piece.
enum Piece {
    Sent(u64),
    Blocked,
    Reading,
    Truncated,
    /// To be tried again in so many milliseconds.
    Later(u64),
    /// The file was given up and is not there any more as it was.
    Lost(Option<FileFailure>),
}

/// The bytes of a piece that is in memory.
fn memory_of(piece: &Body) -> Option<&[u8]> {
    match piece {
        Body::Empty | Body::Pieces(_) | Body::Upstream(_) => Some(b""),
        Body::Static(bytes) => Some(bytes),
        Body::Bytes(bytes) => Some(bytes),
        Body::Shared { bytes, offset } => Some(&bytes[*offset..]),
        Body::File(range) => {
            let content = range.handle.content()?;
            content.get(range.offset as usize..(range.offset + range.length) as usize)
        }
    }
}

impl Output {
    /// Whether subrequests have a part in the body.
    pub fn has_subrequests(&self) -> bool {
        self.filtering.as_ref().is_some_and(|filtering| filtering.has_subrequests())
    }

    /// Whether the body comes in slices.
    pub fn is_sliced(&self) -> bool {
        self.filtering.as_ref().is_some_and(|filtering| filtering.is_sliced())
    }

    /// Nobody wants the response any more.
    pub fn close(&mut self, res: &mut Resources) {
        if let Some(filtering) = &mut self.filtering {
            filtering.close(res);
        }
    }

    /// The pool's job that it waits for.
    pub fn pending_job(&self) -> Option<JobId> {
        self.job
    }

    /// Whether the body comes from an upstream.
    pub fn is_upstream(&self) -> bool {
        matches!(self.body, Body::Upstream(_))
    }

    /// Whether an upstream is what it waits for.
    pub fn is_starved(&self) -> bool {
        self.starved
    }

    /// Whether only the connection's end tells the client that the body is over.
    pub fn is_until_close(&self) -> bool {
        self.framing == ResponseFraming::UntilClose
    }

    /// Cuts `most` to what `limit_rate` allows; where that is nothing, how many milliseconds to wait.
    pub fn limit_rate(&self, most: &mut u64, now_ms: u64) -> Option<u64> {
        let rate = self.rate?;
        match rate.allowance(now_ms, self.body_sent) {
            0 => Some(rate.wait_ms(now_ms, self.body_sent)),
            allowance => {
                *most = (*most).min(allowance);
                None
            }
        }
    }

    /// Opens a chunk of so many bytes where chunks are needed and none is open; returns how much may be sent of it.
    pub fn begin_chunk_of(&mut self, most: u64, out: &mut Vec<u8>) -> u64 {
        if self.framing != ResponseFraming::Streamed {
            return most;
        }
        if self.chunk_left == 0 {
            self.chunk_left = most;
            chunk_prefix(self.chunk_left, out);
        }
        most.min(self.chunk_left)
    }

    /// Counts what was sent or gathered.
    pub fn note_sent(&mut self, sent: u64, exchange: &mut Exchange, out: &mut Vec<u8>) {
        self.body_sent += sent;
        exchange.outcome.body_bytes_sent += sent;
        exchange.outcome.bytes_sent += sent;
        self.end_chunk(sent, out);
    }

    /// What is left of the body, or its memory.
    pub fn take_body(&mut self) -> Body {
        std::mem::take(&mut self.body)
    }

    /// Bytes of the body that were sent.
    pub fn body_sent(&self) -> u64 {
        self.body_sent
    }

    /// Whether `limit_rate` is what it waits for.
    pub fn is_delayed(&self, now_ms: u64) -> bool {
        self.delayed_until_ms.is_some_and(|until| until <= now_ms)
    }

    /// The piece that is sent next: the last of several, which stand in reverse.
    fn first_piece(&mut self) -> &Body {
        if let Body::Pieces(pieces) = &mut self.body {
            while pieces.last().is_some_and(Body::is_empty) {
                pieces.pop();
            }
        }
        match &self.body {
            Body::Pieces(pieces) => pieces.last().unwrap_or(&Body::Empty),
            body => body,
        }
    }

    /// Takes what was sent off the first piece.
    fn consume(&mut self, count: u64) {
        let piece = match &mut self.body {
            Body::Pieces(pieces) => match pieces.last_mut() {
                Some(piece) => piece,
                None => return,
            },
            body => body,
        };
        match piece {
            Body::Static(bytes) => *bytes = &bytes[count as usize..],
            Body::Shared { offset, .. } => *offset += count as usize,
            Body::Bytes(bytes) => {
                self.sent_of_piece += count as usize;
                if self.sent_of_piece == bytes.len() {
                    self.sent_of_piece = 0;
                    // Its memory is used again.
                    bytes.clear();
                }
            }
            Body::File(range) => {
                range.offset += count;
                range.length -= count;
            }
            Body::Empty | Body::Pieces(_) | Body::Upstream(_) => {}
        }
    }

    /// Opens a chunk where chunks are needed and none is open; returns how much of it may be sent.
    fn begin_chunk(&mut self, most: u64, out: &mut Vec<u8>) -> u64 {
        if self.framing != ResponseFraming::Streamed {
            return most;
        }
        if self.chunk_left == 0 {
            let skip = self.sent_of_piece as u64;
            let length = (self.first_piece().len() - skip).min(TURN_BYTES as u64);
            self.begin_chunk_of(length, out);
        }
        most.min(self.chunk_left)
    }

    fn end_chunk(&mut self, sent: u64, out: &mut Vec<u8>) {
        if self.framing == ResponseFraming::Streamed && sent > 0 {
            self.chunk_left -= sent;
            if self.chunk_left == 0 {
                out.extend_from_slice(CHUNK_SUFFIX);
            }
        }
    }
}

/// `limit_rate` for this response.
fn rate_of(exchange: &mut Exchange, res: &mut Resources) -> Option<Rate> {
    let site = exchange.site.clone();
    let core = &site.settings(exchange.location).core;
    let bytes_per_second = match exchange.limit_rate {
        Some(rate) => rate,
        None if core.limit_rate.is_empty() => return None,
        None => exchange.render_size(&core.limit_rate, &mut res.env),
    };
    if bytes_per_second == 0 {
        return None;
    }
    let after = match core.limit_rate_after.is_empty() {
        true => 0,
        false => exchange.render_size(&core.limit_rate_after, &mut res.env),
    };
    Some(Rate { bytes_per_second, after, began_ms: res.env.now.monotonic_ms })
}

impl Exchange {
    /// A size with variables, by its present value; 0 if it is none.
    fn render_size(
        &mut self,
        template: &crate::conf::template::Template,
        env: &mut crate::http::context::Env,
    ) -> u64 {
        let site = self.site.clone();
        let mut context = crate::http::context::Context { site: &site, env };
        self.with_rendered(template, &mut context, |_, _, text| values::parse_size(text).unwrap_or(0))
    }
}
