//! The response's bytes in.

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use std::os::fd::AsFd;

use crate::base::level::Level;
use crate::http::exchange::Exchange;
use crate::http::upstream_call::Call;
use crate::proto::h1::{ResponseError, ResponseFault};
use crate::proto::tls::Fault;
use crate::server::client::ClientKey;
use crate::server::files::Completion;
use crate::server::pool::JobId;
use crate::server::worker::resources::Resources;

use super::connection;
use super::failure::Failure;
use super::sending::Sending;
use super::wire::{Event, Wire};
use super::{Ending, Fill, Relay, Run, State};

/// Bytes that one read brings at most.
const READ_BYTES: usize = 64 * 1024;
/// Reads ahead of a slow client in one turn.
const READS_AHEAD: usize = 16;

/// What a look for the response's head found.
pub enum Heading {
    /// Nothing new.
    Waiting,
    /// It is in `Passed::response`, and what came behind it in `Relay::inbound`.
    Head,
    /// A 103 that is to be passed on is there.
    EarlyHints,
    /// It will not come.
    Failed(Failure),
}

/// Where decoded bytes of a body go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sink {
    Memory,
    File,
}

/// What one read of a body brought.
pub(super) enum Received {
    Some,
    Nothing,
    Over,
}

impl Relay {
    /// Reads until the response's head is there.
    pub(super) fn receive_head(&mut self, exchange: &mut Exchange, res: &mut Resources) -> Heading {
        if self.run.as_ref().is_some_and(|run| run.stream().is_some()) {
            return self.receive_stream_head(exchange, res);
        }
        let mut buffer = std::mem::take(&mut res.upstream_input);
        let heading = self.receive_head_into(&mut buffer, exchange, res);
        res.upstream_input = buffer;
        heading
    }

    fn receive_head_into(
        &mut self,
        buffer: &mut [u8],
        exchange: &mut Exchange,
        res: &mut Resources,
    ) -> Heading {
        if !self.early.is_empty() {
            // What came behind a 103.
            let early = std::mem::take(&mut self.early);
            match self.look_for_head(&early, exchange, res) {
                Heading::Waiting => {}
                found => return found,
            }
        }
        loop {
            let Some(run) = &mut self.run else { return Heading::Waiting };
            let Some(Some(call)) = exchange.upstream.as_ref().map(|passed| &passed.call) else {
                return Heading::Waiting;
            };
            let most = (call.conduct.buffer_size + call.conduct.buffers_bytes).min(buffer.len());
            let Some(connection) = run.own() else { return Heading::Waiting };
            let count = match connection.receive(&mut buffer[..most], &mut res.links) {
                Ok(None) => return Heading::Waiting,
                Ok(Some(count)) => count,
                Err(error) => return Heading::Failed(self.broken_before_head(error, exchange, res)),
            };
            run.moved_ms = res.env.now.monotonic_ms;
            run.received += count as u64;
            if count == 0 {
                return Heading::Failed(self.ended_before_head(exchange, res));
            }
            match self.look_for_head(&buffer[..count], exchange, res) {
                Heading::Waiting => {}
                found => return found,
            }
        }
    }

    /// Feeds bytes to the machine until they are used up or a head is complete.
    fn look_for_head(&mut self, mut input: &[u8], exchange: &mut Exchange, res: &mut Resources) -> Heading {
        let Some(run) = &mut self.run else { return Heading::Waiting };
        let Some(passed) = &mut exchange.upstream else { return Heading::Waiting };
        loop {
            let Some(wire) = run.wire() else { return Heading::Waiting };
            match wire.read(&mut input, &mut passed.response) {
                Ok(Event::NeedMore) => return Heading::Waiting,
                Ok(Event::Interim) => {
                    let wanted = passed.call.as_ref().is_some_and(|call| call.early_hints);
                    if wanted && passed.response.status == crate::message::Status::EARLY_HINTS {
                        self.early = input.to_vec();
                        return Heading::EarlyHints;
                    }
                }
                Ok(Event::Head(facts)) => {
                    passed.length = facts.length;
                    passed.switched = facts.switched;
                    passed.minor = facts.minor;
                    if let Some(seconds) = facts.keep_alive_secs {
                        run.choice.peer.learn_keep_alive(seconds);
                    }
                    if facts.switched {
                        self.early = input.to_vec();
                        return Heading::Head;
                    }
                    self.take_body(input, Sink::Memory, exchange, res);
                    return Heading::Head;
                }
                // A body before its head: the machine does not do that.
                Ok(Event::Body(_) | Event::Trailers | Event::End) => return Heading::Waiting,
                Err(error) => return Heading::Failed(self.response_fault(&error, exchange, res)),
            }
        }
    }

    fn ended_before_head(&mut self, exchange: &mut Exchange, res: &mut Resources) -> Failure {
        match self.run.as_mut().and_then(Run::wire).map(Wire::end_of_input) {
            Some(Err(error)) => self.response_fault(&error, exchange, res),
            _ => Failure::ResetBeforeHeader,
        }
    }

    fn broken_before_head(&mut self, error: Errno, exchange: &mut Exchange, res: &mut Resources) -> Failure {
        let Some(run) = &mut self.run else { return Failure::ResetBeforeHeader };
        let Some(connection) = run.own() else { return Failure::ResetBeforeHeader };
        let text = connection.told(connection::Call::Receive, error);
        let message = format_args!("{text} while reading response header from upstream");
        exchange.log_upstream(&mut res.env, Level::Error, message);
        // In TLS 1.3 a peer refuses our certificate when the handshake is over for us.
        let refused = connection.tls.as_ref().and_then(|tls| tls.error());
        let has_begun = connection.wire.has_begun();
        if refused.is_some_and(|error| error.fault == Fault::Handshake) && !has_begun {
            return Failure::TlsHandshake;
        }
        match connection.wire.end_of_input() {
            Err(fault) if has_begun => Failure::of_response(fault.fault),
            _ => Failure::ResetBeforeHeader,
        }
    }

    /// Logs what is wrong with a response's head.
    fn response_fault(
        &mut self,
        error: &ResponseError,
        exchange: &mut Exchange,
        res: &mut Resources,
    ) -> Failure {
        let message = format_args!("{error} while reading response header from upstream");
        exchange.log_upstream(&mut res.env, Level::Error, message);
        Failure::of_response(error.fault)
    }

    /// Takes bytes that came from the socket as part of the body. Ends the try when the response is complete or broken.
    fn take_body(&mut self, mut input: &[u8], sink: Sink, exchange: &mut Exchange, res: &mut Resources) {
        loop {
            let Some(run) = &mut self.run else { return };
            let Some(passed) = &mut exchange.upstream else { return };
            let Some(wire) = run.wire() else { return };
            match wire.read(&mut input, &mut passed.response) {
                Ok(Event::Body(bytes)) => {
                    run.body += bytes.len() as u64;
                    self.put(bytes, sink, exchange, res);
                }
                Ok(Event::NeedMore) => return,
                Ok(Event::Trailers) => wire.trailers(&mut passed.trailers),
                Ok(Event::End) => return self.end_body(Ending::Complete, exchange, res),
                // No head follows within a body.
                Ok(Event::Interim | Event::Head(_)) => return,
                Err(error) => return self.break_body(&error, exchange, res),
            }
        }
    }

    pub(super) fn put(&mut self, bytes: &[u8], sink: Sink, exchange: &mut Exchange, res: &mut Resources) {
        if let Some(store) = &mut self.store {
            store.write(bytes);
        }
        match sink {
            Sink::Memory => {
                if self.inbound.needs_memory() {
                    self.inbound.set_memory(res.env.scratch());
                }
                self.inbound.memory().extend_from_slice(bytes);
            }
            Sink::File => {
                if let Err(error) = self.inbound.write_file(bytes) {
                    let message = format_args!(
                        "writing a response to a temporary file failed ({error}), the upstream waits for the client"
                    );
                    exchange.log_upstream(&mut res.env, Level::Crit, message);
                }
            }
        }
    }

    fn break_body(&mut self, error: &ResponseError, exchange: &mut Exchange, res: &mut Resources) {
        let message = format_args!("{error} while reading upstream");
        exchange.log_upstream(&mut res.env, Level::Error, message);
        self.end_body(Ending::Broken(Failure::of_response(error.fault)), exchange, res);
    }

    /// Gets the next bytes for the client, which has taken all that was there.
    pub fn fill(&mut self, exchange: &mut Exchange, key: ClientKey, res: &mut Resources) -> Fill {
        debug_assert!(self.inbound.is_empty());
        let _ = key;
        if self.state == State::Body {
            let room = self.read_room(exchange).max(1);
            match self.receive_body(room, Sink::Memory, exchange, res) {
                Received::Nothing => {
                    if let Some(memory) = self.inbound.spare_memory() {
                        res.env.give_back(memory);
                    }
                    return Fill::Waiting;
                }
                Received::Some | Received::Over if !self.inbound.is_empty() => return Fill::Ready,
                // Only framing came; the end may be all that is left.
                Received::Some if self.state == State::Body => return Fill::Ready,
                Received::Some | Received::Over => {}
            }
        }
        match self.ending {
            _ if self.publishing.is_some() => Fill::Waiting,
            Some(Ending::Complete) => Fill::Complete,
            Some(Ending::Broken(_)) => Fill::Broken,
            None => Fill::Waiting,
        }
    }

    /// Reads ahead for a client that is slow, into memory and then into the file, so that the upstream is free soon.
    pub fn absorb(&mut self, exchange: &mut Exchange, key: ClientKey, res: &mut Resources) {
        for _ in 0..READS_AHEAD {
            if self.state != State::Body || self.creating.is_some() {
                return;
            }
            let Some(Some(call)) = exchange.upstream.as_ref().map(|passed| &passed.call) else { return };
            if !call.buffering {
                return;
            }
            let memory = self.inbound.memory_room(call.conduct.buffers_bytes);
            let max_file = call.conduct.max_temp_file_size;
            let received = if memory > 0 {
                self.receive_body(memory.min(READ_BYTES), Sink::Memory, exchange, res)
            } else if self.inbound.wants_file() && max_file > 0 {
                return self.create_file(exchange, key, res);
            } else {
                let room = self.inbound.file_room(max_file).min(READ_BYTES as u64) as usize;
                if room == 0 {
                    return;
                }
                self.receive_body(room, Sink::File, exchange, res)
            };
            match received {
                Received::Some => {}
                Received::Nothing | Received::Over => return,
            }
        }
        // The turn's budget is spent; what is left in the socket brings no event of its own.
        res.resumed.push(key);
    }

    fn read_room(&self, exchange: &Exchange) -> usize {
        let Some(Some(call)) = exchange.upstream.as_ref().map(|passed| &passed.call) else {
            return READ_BYTES;
        };
        memory_limit(call).min(READ_BYTES)
    }

    /// One read of the body, of at most `room` bytes.
    fn receive_body(
        &mut self,
        room: usize,
        sink: Sink,
        exchange: &mut Exchange,
        res: &mut Resources,
    ) -> Received {
        let now_ms = res.env.now.monotonic_ms;
        let room = match self.rate_room(room, now_ms) {
            0 => return Received::Nothing,
            room => room,
        };
        if self.run.as_ref().is_some_and(|run| run.stream().is_some()) {
            // What came is in memory already: with the client waiting for it, it goes on in one piece.
            let room = if sink == Sink::Memory && self.limit.is_none() { room.max(READ_BYTES) } else { room };
            return self.receive_stream_body(room, sink, exchange, res);
        }
        let Some(run) = &mut self.run else { return Received::Over };
        // Without framing in the way, and with nobody else who wants to see it, the body goes where it belongs at once.
        let direct = sink == Sink::Memory && self.store.is_none();
        let Some(wire) = run.wire() else { return Received::Over };
        let received = match wire.body_left() {
            Some(left) if direct => {
                if self.inbound.needs_memory() {
                    self.inbound.set_memory(res.env.scratch());
                }
                // One byte more than is expected: that it does not come tells that the socket is empty.
                let left = usize::try_from(left).unwrap_or(usize::MAX);
                let most = room.min(left.saturating_add(1));
                let memory = self.inbound.memory();
                let result = receive_direct(run, memory, most, res);
                if let Ok(Some(count)) = result {
                    let excess = count.saturating_sub(left);
                    let behind = memory.last().copied().unwrap_or_default();
                    memory.truncate(memory.len() - excess);
                    if let Some(wire) = run.wire() {
                        wire.skip((count - excess) as u64);
                    }
                    run.body += (count - excess) as u64;
                    run.received += count as u64;
                    run.moved_ms = now_ms;
                    if count > 0 {
                        // The machine says whether that was all.
                        self.take_body(&[behind][..excess], sink, exchange, res);
                    }
                }
                result
            }
            _ => {
                let mut buffer = std::mem::take(&mut res.upstream_input);
                let most = room.min(buffer.len());
                let result = match run.own() {
                    Some(connection) => connection.receive(&mut buffer[..most], &mut res.links),
                    None => Ok(None),
                };
                if let Ok(Some(count)) = result {
                    run.received += count as u64;
                    run.moved_ms = now_ms;
                    if count > 0 {
                        self.take_body(&buffer[..count], sink, exchange, res);
                    }
                }
                res.upstream_input = buffer;
                result
            }
        };
        if let Ok(Some(count)) = received {
            self.note_rate(count as u64);
        }
        match received {
            Ok(None) => Received::Nothing,
            Ok(Some(0)) => {
                self.end_of_input(exchange, res);
                Received::Over
            }
            Ok(Some(_)) => Received::Some,
            Err(error) => {
                let connection = self.run.as_mut().and_then(Run::own);
                let text = connection.map(|connection| connection.told(connection::Call::Receive, error));
                let message = format_args!("{} while reading upstream", text.unwrap_or_default());
                exchange.log_upstream(&mut res.env, Level::Error, message);
                let fault = self.run.as_mut().and_then(Run::wire).map(Wire::reset);
                let failure = match fault {
                    Some(Err(error)) => Failure::of_response(error.fault),
                    _ => Failure::Response(ResponseFault::BodyTruncated),
                };
                self.end_body(Ending::Broken(failure), exchange, res);
                Received::Over
            }
        }
    }

    /// The upstream has closed: the end of the body, or too early.
    fn end_of_input(&mut self, exchange: &mut Exchange, res: &mut Resources) {
        let end = self.run.as_mut().and_then(|run| {
            // A reset that sending has met is seen as an end by reading.
            let was_reset = matches!(run.sending, Sending::Broken(_));
            let connection = run.own()?;
            // A body that lasts until the end of the connection may have been cut short (RFC 9112, 9.8).
            let was_cut = was_reset || connection.was_cut();
            Some(if was_cut { connection.wire.reset() } else { connection.wire.end_of_input() })
        });
        match end {
            Some(Err(error)) => self.break_body(&error, exchange, res),
            _ => self.end_body(Ending::Complete, exchange, res),
        }
    }

    fn create_file(&mut self, exchange: &mut Exchange, key: ClientKey, res: &mut Resources) {
        let Some(Some(call)) = exchange.upstream.as_ref().map(|passed| &passed.call) else { return };
        let Some(temp) = &call.conduct.temp_path else { return };
        let folder = res.temporary_folder(temp);
        // With a full pool the upstream waits: the client's next byte asks again.
        if let Ok(job) = res.files.create_temporary(&folder) {
            res.jobs.insert(job, key);
            self.creating = Some(job);
            exchange.log_upstream(
                &mut res.env,
                Level::Warn,
                format_args!("an upstream response is buffered to a temporary file"),
            );
        }
    }

    /// The pool has created the file.
    pub fn on_completion(
        &mut self,
        job: JobId,
        completion: Completion,
        exchange: &mut Exchange,
        res: &mut Resources,
    ) {
        if self.publishing == Some(job) {
            self.publishing = None;
            if let Completion::Published(Err(error)) = completion {
                let message = format_args!("storing a response failed ({error})");
                exchange.log_upstream(&mut res.env, Level::Crit, message);
            }
            return;
        }
        if let Completion::UpstreamPair(loaded) = completion {
            return self.take_pair(job, loaded, exchange, res.env.now.wall_secs);
        }
        if self.creating != Some(job) {
            return;
        }
        self.creating = None;
        if self.state == State::Waiting {
            return self.take_store(completion, exchange, res);
        }
        match completion {
            Completion::TemporaryCreated(Ok(file)) => self.inbound.take_file(file),
            Completion::TemporaryCreated(Err(error)) => {
                let message = format_args!(
                    "creating a temporary file for a response failed ({error}), the upstream waits for the client"
                );
                exchange.log_upstream(&mut res.env, Level::Crit, message);
                self.inbound.give_files_up();
            }
            _ => {}
        }
    }
}

impl Run {
    /// The machine of a connection of its own.
    fn wire(&mut self) -> Option<&mut Wire> {
        self.own().map(|connection| &mut connection.wire)
    }
}

/// Bytes of a body that may wait in memory: with buffering `proxy_buffers`, without it `proxy_buffer_size`.
fn memory_limit(call: &Call) -> usize {
    if call.buffering {
        call.conduct.buffers_bytes.max(call.conduct.buffer_size)
    } else {
        call.conduct.buffer_size
    }
}

/// One `recv` behind what is in `memory`.
fn receive_direct(
    run: &mut super::Run,
    memory: &mut Vec<u8>,
    most: usize,
    res: &mut Resources,
) -> Result<Option<usize>, Errno> {
    let Some(connection) = run.own() else { return Err(Errno::BADF) };
    let Some(link) = res.links.get(connection.link) else { return Err(Errno::BADF) };
    if !link.readable {
        return Ok(None);
    }
    if let Some(tls) = &mut connection.tls {
        return tls.receive_behind(connection.socket.as_fd(), memory, most, &mut res.upstream_input, link);
    }
    memory.reserve(most);
    loop {
        // The vector may have more room than was asked for; what is read then is still within one buffer.
        let room = (memory.capacity() - memory.len()).min(most);
        let mut limited = Limited { memory, room };
        match limited.receive(connection.socket.as_fd()) {
            Ok(count) => {
                link.readable = count == room || link.read_closed;
                return Ok(Some(count));
            }
            Err(Errno::AGAIN) => {
                link.readable = false;
                return Ok(None);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// A vector's end with a bound.
struct Limited<'a> {
    memory: &'a mut Vec<u8>,
    room: usize,
}

impl Limited<'_> {
    fn receive(&mut self, socket: std::os::fd::BorrowedFd<'_>) -> Result<usize, Errno> {
        let spare = self.memory.capacity() - self.memory.len();
        if spare == self.room {
            let (count, _) = rustix::net::recv(socket, spare_capacity(self.memory), RecvFlags::empty())?;
            return Ok(count);
        }
        // A larger buffer than may be filled: its end is made known first.
        let start = self.memory.len();
        self.memory.resize(start + self.room, 0);
        let result = rustix::net::recv(socket, &mut self.memory[start..], RecvFlags::empty());
        let count = result.as_ref().map_or(0, |(count, _)| *count);
        self.memory.truncate(start + count);
        result.map(|(count, _)| count)
    }
}
