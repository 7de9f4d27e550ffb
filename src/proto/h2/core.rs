//! What both sides of a connection share: taking frames apart, streams and their windows, settings, limits, GOAWAY.
//!
//! The roles ([`Server`](super::Server), [`Client`](super::Client)) give heads their meaning. Receiving is here; sending
//! is in `sending.rs`.

use std::collections::VecDeque;

use super::abuse::{Abuse, Limit};
use super::error::{ConnectionError, ErrorCode, StreamError, StreamLoss};
use super::flow::{INITIAL_WINDOW, ReceiveWindow, SendWindow};
use super::frame::{self, Frame, FrameHeader, FrameKind, HEADER_LENGTH, PayloadError, flags};
use super::hpack::{Decoder, Encoder};
use super::priority::{Priority, Schedule};
use super::settings::{self, Settings};
use super::stream::{HeadReceived, Opened, ResetHere, State, StreamKey, Streams};

/// What a side says about itself and holds its peer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Streams that the peer may have open at a time (`http2_max_concurrent_streams`).
    pub max_concurrent_streams: u32,
    /// Bytes that the peer may send on a stream before it hears back. The product of the peer's bandwidth and its round-trip
    /// time has to fit for a single upload to be as fast as it can be. At least 1024.
    pub stream_window: u32,
    /// The same for all streams together; never below 65,535. What the caller doesn't give back it may have to hold.
    pub connection_window: u32,
    /// Bytes of a frame that are taken, 16,384 to 16,777,215. What comes in pieces is not kept but for frames of heads.
    pub max_frame_size: u32,
    /// Whether clients may ask for WebSockets (RFC 8441), or for CONNECT.
    pub allow_tunnels: bool,
    /// How long a stream may wait for window before it is reset, in milliseconds (`send_timeout`). It is looked at every
    /// quarter of that.
    pub window_timeout_ms: u64,
    /// How long the peer may take to acknowledge SETTINGS, in milliseconds.
    pub settings_timeout_ms: u64,
    /// Most bytes of a compressed field block, if it is spread over frames.
    pub block_bytes: u32,
    /// Bytes of a list of fields that the peer is told to stay below; advice.
    pub header_list_bytes: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            max_concurrent_streams: 128,
            // 100 ms at 40 Mbit/s for one, at 80 Mbit/s for all.
            stream_window: 512 << 10,
            connection_window: 1 << 20,
            max_frame_size: frame::DEFAULT_MAX_FRAME_SIZE,
            allow_tunnels: false,
            window_timeout_ms: 60_000,
            settings_timeout_ms: 30_000,
            block_bytes: 64 << 10,
            header_list_bytes: 64 << 10,
        }
    }
}

/// Memory for parts of frames that is kept from one to the next, in bytes.
const KEPT_MEMORY: usize = 1024;

/// The smallest window of a stream, in bytes: what grows by halves must not begin at nothing.
const LEAST_WINDOW: u32 = 1024;

/// Priorities that are kept for streams that are not open yet (RFC 9218 section 7.1).
const EARLY_PRIORITIES: usize = 8;

/// What the PING that goes with the first GOAWAY carries: once it is answered, the peer knows.
const DRAIN_PING: [u8; 8] = *b"draining";

/// How long to wait for that answer, in milliseconds.
const DRAIN_WAIT_MS: u64 = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Server,
    Client,
}

/// Where in the peer's bytes this is.
#[derive(Clone, Copy, Debug)]
enum Reading {
    /// So many bytes of the client's preface came.
    Preface(usize),
    /// Before or within a frame's header.
    Header,
    /// Within a payload that is taken whole.
    Payload(FrameHeader),
    /// Before the byte that says how much padding a DATA frame has.
    DataPadding(FrameHeader, Option<StreamKey>),
    /// Within DATA: `left` bytes of content and `padding` bytes behind it. Without a stream it is dropped.
    Data { key: Option<StreamKey>, left: u32, padding: u32, ends: bool },
    /// Within a payload without meaning.
    Skip(u32),
    /// The connection is broken.
    Dead,
}

/// A field block that came with HEADERS and goes on with CONTINUATION.
#[derive(Clone, Copy, Debug)]
struct OpenBlock {
    stream: u32,
    ends: bool,
}

/// A whole field block.
#[derive(Clone, Copy, Debug)]
pub(super) enum Block<'a> {
    /// It lies in the input.
    Input(&'a [u8]),
    /// It was gathered in [`Core::block`].
    Gathered,
}

/// What the peer did, as far as the roles care.
#[derive(Debug)]
pub(super) enum Inbound<'a> {
    NeedMore,
    Headers {
        stream: u32,
        ends: bool,
        block: Block<'a>,
    },
    Data {
        key: StreamKey,
        data: &'a [u8],
    },
    /// The peer ended a stream with DATA.
    End {
        key: StreamKey,
    },
    Lost {
        key: StreamKey,
        loss: StreamLoss,
    },
    GoAway {
        last: u32,
        code: ErrorCode,
    },
    Closed,
}

/// On the way to the end of the connection (RFC 9113 section 6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    No,
    /// The peer was told that no stream is welcome any more, and may not know yet.
    Announced {
        until_ms: u64,
    },
    /// Streams above this one are not looked at.
    Final {
        last: u32,
    },
}

/// The shared part of a connection.
#[derive(Debug)]
pub(super) struct Core {
    pub side: Side,
    pub config: Config,
    reading: Reading,
    /// The beginning of a frame.
    partial: Vec<u8>,
    open_block: Option<OpenBlock>,
    /// A field block that did not lie in the input whole.
    pub block: Vec<u8>,
    pub decoder: Decoder,
    pub encoder: Encoder,
    /// The peer's settings, once it sent some.
    pub peer: Settings,
    pub has_peer_settings: bool,
    /// Until when the peer has to acknowledge our settings; `None` once it did.
    settings_deadline_ms: Option<u64>,
    pub streams: Streams,
    pub schedule: Schedule,
    pub send_window: SendWindow,
    receive_window: ReceiveWindow,
    pub abuse: Abuse,
    pub opened: Opened,
    pub reset_here: ResetHere,
    pub leaving: Leaving,
    early_priorities: Vec<(u32, Priority)>,
    /// Streams that were lost while no input was read.
    lost: VecDeque<(StreamKey, StreamLoss)>,
    /// When to look for streams that wait for window.
    pub stall_check_ms: Option<u64>,
    pub now_ms: u64,
}

impl Core {
    pub fn new(side: Side, config: Config) -> Core {
        let connection_window = config.connection_window.clamp(INITIAL_WINDOW, frame::MOST_31_BITS);
        let max_frame_size =
            config.max_frame_size.clamp(frame::DEFAULT_MAX_FRAME_SIZE, frame::LARGEST_MAX_FRAME_SIZE);
        let stream_window = config.stream_window.clamp(LEAST_WINDOW, frame::MOST_31_BITS);
        Core {
            side,
            config: Config { connection_window, max_frame_size, stream_window, ..config },
            reading: if side == Side::Server { Reading::Preface(0) } else { Reading::Header },
            partial: Vec::new(),
            open_block: None,
            block: Vec::new(),
            decoder: Decoder::new(super::hpack::TABLE_SIZE),
            encoder: Encoder::default(),
            peer: Settings::default(),
            has_peer_settings: false,
            settings_deadline_ms: None,
            streams: Streams::default(),
            schedule: Schedule::default(),
            send_window: SendWindow::new(INITIAL_WINDOW),
            receive_window: ReceiveWindow::new(connection_window),
            abuse: Abuse::default(),
            opened: Opened::default(),
            reset_here: ResetHere::default(),
            leaving: Leaving::No,
            early_priorities: Vec::new(),
            lost: VecDeque::new(),
            stall_check_ms: None,
            now_ms: 0,
        }
    }

    /// Appends what a side sends first: the preface of a client, SETTINGS, and the connection's window.
    pub fn start(&mut self, now_ms: u64, out: &mut Vec<u8>) {
        self.now_ms = now_ms;
        self.settings_deadline_ms = Some(now_ms + self.config.settings_timeout_ms);
        let mut payload = Vec::with_capacity(48);
        let mut say = |id, value| settings::write_parameter(id, value, &mut payload);
        if self.side == Side::Client {
            out.extend_from_slice(frame::PREFACE);
            say(settings::ENABLE_PUSH, 0);
        } else {
            say(settings::MAX_CONCURRENT_STREAMS, self.config.max_concurrent_streams);
            say(settings::NO_RFC7540_PRIORITIES, 1);
            if self.config.allow_tunnels {
                say(settings::ENABLE_CONNECT_PROTOCOL, 1);
            }
        }
        say(settings::INITIAL_WINDOW_SIZE, self.config.stream_window);
        say(settings::MAX_HEADER_LIST_SIZE, self.config.header_list_bytes);
        if self.config.max_frame_size > frame::DEFAULT_MAX_FRAME_SIZE {
            say(settings::MAX_FRAME_SIZE, self.config.max_frame_size);
        }
        Frame::Settings(&payload).write(out);
        let increment = self.config.connection_window - INITIAL_WINDOW;
        if increment > 0 {
            Frame::WindowUpdate { stream: 0, increment }.write(out);
        }
    }

    /// The window that streams get now: the peer may rely on the default until it knows better.
    pub fn receive_window(&self) -> u32 {
        match self.settings_deadline_ms {
            Some(_) => self.config.stream_window.max(INITIAL_WINDOW),
            None => self.config.stream_window,
        }
    }

    /// Takes the next thing from the front of `input`.
    pub fn next<'a>(
        &mut self,
        input: &mut &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<Inbound<'a>, ConnectionError> {
        if let Some((key, loss)) = self.lost.pop_front() {
            return Ok(Inbound::Lost { key, loss });
        }
        loop {
            let found = match self.reading {
                Reading::Dead => return Ok(Inbound::Closed),
                Reading::Preface(matched) => self.read_preface(matched, input)?,
                Reading::Header => self.read_header(input, out)?,
                Reading::Payload(header) => self.read_payload(header, input, out)?,
                Reading::DataPadding(header, key) => self.read_padding_length(header, key, input, out)?,
                Reading::Data { key, left, padding, ends } => {
                    self.read_data((key, left, padding, ends), input, out)?
                }
                Reading::Skip(left) => {
                    let taken = take(input, left).len() as u32;
                    self.reading = if taken == left { Reading::Header } else { Reading::Skip(left - taken) };
                    if taken == left { Step::Again } else { Step::NeedMore }
                }
            };
            match found {
                Step::Again => {}
                Step::NeedMore => return Ok(Inbound::NeedMore),
                Step::Found(inbound) => return Ok(inbound),
            }
        }
    }

    fn read_preface<'a>(
        &mut self,
        matched: usize,
        input: &mut &'a [u8],
    ) -> Result<Step<'a>, ConnectionError> {
        let expected = &frame::PREFACE[matched..];
        let came = take(input, expected.len() as u32);
        if came != &expected[..came.len()] {
            return Err(ConnectionError::protocol("client sent an invalid connection preface"));
        }
        let matched = matched + came.len();
        if matched < frame::PREFACE.len() {
            self.reading = Reading::Preface(matched);
            return Ok(Step::NeedMore);
        }
        self.reading = Reading::Header;
        Ok(Step::Again)
    }

    fn read_header<'a>(
        &mut self,
        input: &mut &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<Step<'a>, ConnectionError> {
        let header = if self.partial.is_empty()
            && let Some((bytes, rest)) = input.split_first_chunk::<HEADER_LENGTH>()
        {
            *input = rest;
            FrameHeader::parse(bytes)
        } else {
            self.partial.extend_from_slice(take(input, (HEADER_LENGTH - self.partial.len()) as u32));
            let Some(bytes) = self.partial.first_chunk::<HEADER_LENGTH>() else { return Ok(Step::NeedMore) };
            let header = FrameHeader::parse(bytes);
            self.partial.clear();
            header
        };
        if !self.has_peer_settings && (header.kind != FrameKind::Settings || header.has(flags::ACK)) {
            return Err(ConnectionError::protocol("peer's first frame is not SETTINGS"));
        }
        header.check(self.config.max_frame_size)?;
        self.check_block_order(&header)?;
        match header.kind {
            FrameKind::Data => self.begin_data(header, out),
            FrameKind::Unknown(_) => {
                self.abuse.note(Limit::IgnoredFrames, self.now_ms)?;
                self.reading = Reading::Skip(header.length);
                Ok(Step::Again)
            }
            _ => {
                self.reading = Reading::Payload(header);
                Ok(Step::Again)
            }
        }
    }

    /// A field block is not interrupted by any other frame (RFC 9113 section 4.3).
    fn check_block_order(&mut self, header: &FrameHeader) -> Result<(), ConnectionError> {
        let is_continuation = header.kind == FrameKind::Continuation;
        match self.open_block {
            None if is_continuation => {
                Err(ConnectionError::protocol("peer sent a CONTINUATION frame that continues nothing"))
            }
            Some(open) if !is_continuation || open.stream != header.stream => {
                Err(ConnectionError::protocol("peer interrupted a field block"))
            }
            Some(_) => {
                self.abuse.note(Limit::Continuations, self.now_ms)?;
                if self.block.len() + header.length as usize > self.config.block_bytes as usize {
                    return Err(self.abuse.reached(Limit::BlockBytes));
                }
                if header.length == 0 && !header.has(flags::END_HEADERS) {
                    self.abuse.note(Limit::EmptyFrames, self.now_ms)?;
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn read_payload<'a>(
        &mut self,
        header: FrameHeader,
        input: &mut &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<Step<'a>, ConnectionError> {
        let length = header.length as usize;
        if self.partial.is_empty()
            && let Some((payload, rest)) = input.split_at_checked(length)
        {
            *input = rest;
            self.reading = Reading::Header;
            return match parse(&header, payload)? {
                Parsed::Frame(Frame::Headers { stream, ends, whole: true, fragment }) => {
                    Ok(Step::Found(Inbound::Headers { stream, ends, block: Block::Input(fragment) }))
                }
                Parsed::Frame(frame) => self.handle(frame, out),
                Parsed::BrokenPriority => Ok(self.break_priority(&header, out)?),
            };
        }
        self.partial.extend_from_slice(take(input, (length - self.partial.len()) as u32));
        if self.partial.len() < length {
            return Ok(Step::NeedMore);
        }
        self.reading = Reading::Header;
        let mut payload = std::mem::take(&mut self.partial);
        let step = match parse(&header, &payload) {
            Err(error) => Err(error),
            Ok(Parsed::Frame(frame)) => self.handle(frame, out),
            Ok(Parsed::BrokenPriority) => self.break_priority(&header, out),
        };
        if payload.capacity() <= KEPT_MEMORY {
            payload.clear();
            self.partial = payload;
        }
        step
    }

    /// A PRIORITY frame of the wrong size resets its stream (RFC 9113 section 6.3); one that was never opened can't be.
    fn break_priority<'a>(
        &mut self,
        header: &FrameHeader,
        out: &mut Vec<u8>,
    ) -> Result<Step<'a>, ConnectionError> {
        self.abuse.note(Limit::Priorities, self.now_ms)?;
        let error =
            StreamError::new(ErrorCode::FRAME_SIZE_ERROR, "peer sent a PRIORITY frame of the wrong size");
        match self.streams.key(header.stream) {
            Some(key) => self.break_stream(key, error, out),
            None if self.is_idle(header.stream) => Err(ConnectionError::size(error.reason)),
            None => Ok(Step::Again),
        }
    }

    /// Whether a stream was never opened.
    pub fn is_idle(&self, id: u32) -> bool {
        let opened_by_client = id % 2 == 1;
        // Nothing is pushed: even identifiers stay idle.
        !opened_by_client || id > self.opened.highest
    }

    /// Everything that is taken whole, but HEADERS that lie in the input.
    fn handle<'a>(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> Result<Step<'a>, ConnectionError> {
        match frame {
            Frame::Headers { stream, ends, whole, fragment } => {
                self.block.clear();
                self.block.extend_from_slice(fragment);
                if whole {
                    let block = Block::Gathered;
                    return Ok(Step::Found(Inbound::Headers { stream, ends, block }));
                }
                if fragment.is_empty() {
                    self.abuse.note(Limit::EmptyFrames, self.now_ms)?;
                }
                self.abuse.reset(Limit::Continuations);
                self.open_block = Some(OpenBlock { stream, ends });
            }
            Frame::Continuation { stream, whole, fragment } => {
                self.block.extend_from_slice(fragment);
                if whole && let Some(open) = self.open_block.take() {
                    let block = Block::Gathered;
                    return Ok(Step::Found(Inbound::Headers { stream, ends: open.ends, block }));
                }
            }
            Frame::Priority { .. } => self.abuse.note(Limit::Priorities, self.now_ms)?,
            Frame::Reset { stream, code } => return self.handle_reset(stream, code, out),
            Frame::Settings(payload) => return self.handle_settings(payload, out),
            Frame::SettingsAck => self.handle_settings_ack(out)?,
            Frame::PushPromise { .. } => {
                return Err(ConnectionError::protocol(
                    "peer sent a PUSH_PROMISE frame, which is not allowed",
                ));
            }
            Frame::Ping { ack: false, opaque } => {
                self.abuse.note(Limit::Pings, self.now_ms)?;
                Frame::Ping { ack: true, opaque }.write(out);
            }
            Frame::Ping { ack: true, opaque } => {
                self.abuse.note(Limit::Pings, self.now_ms)?;
                if opaque == DRAIN_PING && matches!(self.leaving, Leaving::Announced { .. }) {
                    self.leave(out);
                }
            }
            Frame::GoAway { last, code, debug: _ } => {
                return Ok(Step::Found(Inbound::GoAway { last, code }));
            }
            Frame::WindowUpdate { stream, increment } => {
                return self.handle_window_update(stream, increment, out);
            }
            Frame::PriorityUpdate { stream, value } => self.handle_priority_update(stream, value)?,
            Frame::Data { .. } | Frame::Unknown => debug_assert!(false, "not taken whole"),
        }
        Ok(Step::Again)
    }

    fn handle_reset<'a>(
        &mut self,
        id: u32,
        code: ErrorCode,
        out: &mut Vec<u8>,
    ) -> Result<Step<'a>, ConnectionError> {
        let Some(key) = self.streams.key(id) else {
            if self.is_idle(id) {
                return Err(ConnectionError::protocol("peer reset an idle stream"));
            }
            self.abuse.note(Limit::IgnoredFrames, self.now_ms)?;
            return Ok(Step::Again);
        };
        if self.side == Side::Server {
            self.abuse.note(Limit::RapidReset, self.now_ms)?;
        }
        self.remove(key, out);
        Ok(Step::Found(Inbound::Lost {
            key,
            loss: StreamLoss {
                code,
                reason: "peer reset the stream",
                by_peer: true,
                may_be_processed: code != ErrorCode::REFUSED_STREAM,
            },
        }))
    }

    fn handle_settings<'a>(
        &mut self,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Step<'a>, ConnectionError> {
        for _ in 0..1 + payload.len() / (6 * 16) {
            self.abuse.note(Limit::Settings, self.now_ms)?;
        }
        let before = self.peer;
        for (id, value) in settings::parameters(payload) {
            self.peer.apply(id, value, self.side == Side::Client)?;
            if id == settings::HEADER_TABLE_SIZE {
                // One after the other: the least one has to be announced.
                self.encoder.set_max_table_size(value);
            }
        }
        self.has_peer_settings = true;
        let difference = i64::from(self.peer.initial_window) - i64::from(before.initial_window);
        if difference != 0 {
            self.adjust_send_windows(difference)?;
        }
        Frame::SettingsAck.write(out);
        Ok(Step::Again)
    }

    fn adjust_send_windows(&mut self, difference: i64) -> Result<(), ConnectionError> {
        let mut waits = false;
        for (slot, stream) in self.streams.iter_mut() {
            stream.send_window.adjust(difference).map_err(|_| {
                ConnectionError::flow("peer's SETTINGS_INITIAL_WINDOW_SIZE overflows a stream's window")
            })?;
            let has_window = stream.send_window.available() > 0;
            if !has_window && self.schedule.contains(slot) {
                self.schedule.remove(slot);
                waits = true;
            } else if has_window && stream.has_data && !self.schedule.contains(slot) {
                self.schedule.insert(slot, stream.id, stream.priority);
            }
        }
        if waits {
            self.watch_stalls();
        }
        Ok(())
    }

    fn handle_settings_ack(&mut self, out: &mut Vec<u8>) -> Result<(), ConnectionError> {
        self.abuse.note(Limit::Settings, self.now_ms)?;
        let assumed = self.receive_window();
        if self.settings_deadline_ms.take().is_some() && assumed != self.config.stream_window {
            for (_, stream) in self.streams.iter_mut() {
                stream.receive_window.resize(self.config.stream_window);
                // What was given back may be worth telling now that the window is smaller.
                if stream.state.receive_data().is_ok()
                    && let Some(increment) = stream.receive_window.give_back(0)
                {
                    Frame::WindowUpdate { stream: stream.id, increment }.write(out);
                }
            }
        }
        Ok(())
    }

    fn handle_window_update<'a>(
        &mut self,
        id: u32,
        increment: u32,
        out: &mut Vec<u8>,
    ) -> Result<Step<'a>, ConnectionError> {
        self.abuse.note(Limit::WindowUpdates, self.now_ms)?;
        if id == 0 {
            if increment == 0 {
                return Err(ConnectionError::protocol("peer sent a WINDOW_UPDATE frame of 0"));
            }
            self.send_window.grow(increment).map_err(|_| {
                ConnectionError::flow("peer's WINDOW_UPDATE overflows the connection's window")
            })?;
            return Ok(Step::Again);
        }
        let Some(key) = self.streams.key(id) else {
            if self.is_idle(id) {
                return Err(ConnectionError::protocol("peer sent a WINDOW_UPDATE frame for an idle stream"));
            }
            // Usual: it crossed the end of the stream.
            return Ok(Step::Again);
        };
        let Some(stream) = self.streams.get_mut(key) else { return Ok(Step::Again) };
        let error = if increment == 0 {
            StreamError::new(ErrorCode::PROTOCOL_ERROR, "peer sent a WINDOW_UPDATE frame of 0")
        } else if stream.send_window.grow(increment).is_err() {
            let reason = "peer's WINDOW_UPDATE overflows a stream's window";
            StreamError::new(ErrorCode::FLOW_CONTROL_ERROR, reason)
        } else {
            if stream.has_data && stream.send_window.available() > 0 && !self.schedule.contains(key.slot) {
                self.schedule.insert(key.slot, id, stream.priority);
            }
            return Ok(Step::Again);
        };
        self.break_stream(key, error, out)
    }

    fn handle_priority_update(&mut self, id: u32, value: &[u8]) -> Result<(), ConnectionError> {
        self.abuse.note(Limit::Priorities, self.now_ms)?;
        // RFC 9218 section 7.1.
        if self.side == Side::Client {
            return Err(ConnectionError::protocol("server sent a PRIORITY_UPDATE frame"));
        }
        if id % 2 == 0 {
            return Err(ConnectionError::protocol("client sent a PRIORITY_UPDATE frame for no request"));
        }
        let priority = Priority::parse(value);
        if let Some(key) = self.streams.key(id)
            && let Some(stream) = self.streams.get_mut(key)
        {
            stream.priority = priority;
            if self.schedule.contains(key.slot) {
                self.schedule.insert(key.slot, id, priority);
            }
        } else if self.is_idle(id) {
            self.early_priorities.retain(|(early, _)| *early != id);
            if self.early_priorities.len() == EARLY_PRIORITIES {
                self.early_priorities.remove(0);
            }
            self.early_priorities.push((id, priority));
        }
        Ok(())
    }

    /// The priority that came before its request.
    pub fn take_early_priority(&mut self, id: u32) -> Option<Priority> {
        let at = self.early_priorities.iter().position(|(early, _)| *early == id)?;
        Some(self.early_priorities.swap_remove(at).1)
    }

    fn begin_data<'a>(
        &mut self,
        header: FrameHeader,
        out: &mut Vec<u8>,
    ) -> Result<Step<'a>, ConnectionError> {
        if header.length == 0 && !header.has(flags::END_STREAM) {
            self.abuse.note(Limit::EmptyFrames, self.now_ms)?;
        }
        self.receive_window
            .receive(header.length)
            .map_err(|_| ConnectionError::flow("peer sent more DATA than the connection's window"))?;
        let id = header.stream;
        let Some(key) = self.streams.key(id) else {
            if self.is_idle(id) {
                return Err(ConnectionError::protocol("peer sent DATA on an idle stream"));
            }
            let is_ignored = self.reset_here.may_contain(id);
            if !is_ignored {
                return Err(ConnectionError::new(
                    ErrorCode::STREAM_CLOSED,
                    "peer sent DATA on a closed stream",
                ));
            }
            self.abuse.note(Limit::IgnoredFrames, self.now_ms)?;
            self.set_data(header, None);
            return Ok(Step::Again);
        };
        let Some(stream) = self.streams.get_mut(key) else { return Ok(Step::Again) };
        let error = if stream.state.receive_data().is_err() {
            Some(StreamError::new(ErrorCode::STREAM_CLOSED, "peer sent DATA behind the end of its stream"))
        } else if stream.head_received == HeadReceived::None {
            Some(StreamError::malformed("peer sent DATA before a final head"))
        } else if stream.receive_window.receive(header.length).is_err() {
            let reason = "peer sent more DATA than a stream's window";
            Some(StreamError::new(ErrorCode::FLOW_CONTROL_ERROR, reason))
        } else {
            None
        };
        match error {
            None => {
                self.set_data(header, Some(key));
                Ok(Step::Again)
            }
            Some(error) => {
                self.set_data(header, None);
                self.break_stream(key, error, out)
            }
        }
    }

    fn set_data(&mut self, header: FrameHeader, key: Option<StreamKey>) {
        self.reading = if header.has(flags::PADDED) {
            Reading::DataPadding(header, key)
        } else {
            let ends = header.has(flags::END_STREAM);
            Reading::Data { key, left: header.length, padding: 0, ends }
        };
    }

    fn read_padding_length<'a>(
        &mut self,
        header: FrameHeader,
        key: Option<StreamKey>,
        input: &mut &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<Step<'a>, ConnectionError> {
        if header.length == 0 {
            return Err(ConnectionError::size("peer sent a padded frame without a padding length"));
        }
        let Some((&first, rest)) = input.split_first() else { return Ok(Step::NeedMore) };
        *input = rest;
        let padding = frame::padding(&header, first)?;
        let left = header.length - 1 - padding;
        if left == 0 && !header.has(flags::END_STREAM) {
            self.abuse.note(Limit::EmptyFrames, self.now_ms)?;
        }
        self.reading = Reading::Data { key, left, padding, ends: header.has(flags::END_STREAM) };
        // Nobody holds padding.
        self.give_back(key, padding + 1, out);
        Ok(Step::Again)
    }

    fn read_data<'a>(
        &mut self,
        (key, left, padding, ends): (Option<StreamKey>, u32, u32, bool),
        input: &mut &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<Step<'a>, ConnectionError> {
        // The caller may have reset the stream since its frame began.
        let key = key.filter(|key| self.streams.get(*key).is_some());
        if left > 0 {
            let data = take(input, left);
            let length = data.len() as u32;
            if length == 0 {
                return Ok(Step::NeedMore);
            }
            self.reading = Reading::Data { key, left: left - length, padding, ends };
            let Some(key) = key else {
                self.give_back(None, length, out);
                return Ok(Step::Again);
            };
            return self.take_data(key, data, left, out);
        }
        let skipped = take(input, padding).len() as u32;
        if skipped < padding {
            self.reading = Reading::Data { key, left, padding: padding - skipped, ends };
            return Ok(Step::NeedMore);
        }
        self.reading = Reading::Header;
        match key {
            Some(key) if ends => self.end_received(key, out),
            _ => Ok(Step::Again),
        }
    }

    /// Takes content; `frame_left` is what of its frame was outstanding before it.
    fn take_data<'a>(
        &mut self,
        key: StreamKey,
        data: &'a [u8],
        frame_left: u32,
        out: &mut Vec<u8>,
    ) -> Result<Step<'a>, ConnectionError> {
        let length = data.len() as u32;
        let Some(stream) = self.streams.get_mut(key) else { return Ok(Step::Again) };
        if let Some(expected) = &mut stream.expected {
            // All that its frame has counts: how it was cut on the way must not matter.
            if u64::from(frame_left) > *expected {
                self.give_back(None, length, out);
                let reason = "peer sent more content than its Content-Length";
                return self.break_stream(key, StreamError::malformed(reason), out);
            }
            *expected -= u64::from(length);
        }
        stream.held += length;
        Ok(Step::Found(Inbound::Data { key, data }))
    }

    /// END_STREAM came with DATA.
    fn end_received<'a>(&mut self, key: StreamKey, out: &mut Vec<u8>) -> Result<Step<'a>, ConnectionError> {
        let Some(stream) = self.streams.get_mut(key) else { return Ok(Step::Again) };
        if stream.expected.is_some_and(|expected| expected > 0) {
            let reason = "peer sent less content than its Content-Length";
            return self.break_stream(key, StreamError::malformed(reason), out);
        }
        let Ok(state) = stream.state.receive_end() else { return Ok(Step::Again) };
        self.set_state(key, state, out);
        Ok(Step::Found(Inbound::End { key }))
    }

    /// Sets a stream's state, and lets go of it when it is closed.
    pub fn set_state(&mut self, key: StreamKey, state: State, out: &mut Vec<u8>) {
        if state == State::Closed {
            self.remove(key, out);
        } else if let Some(stream) = self.streams.get_mut(key) {
            stream.state = state;
        }
    }

    /// Resets a stream over what the peer did, and tells the caller.
    ///
    /// # Errors
    /// The peer did so too often.
    pub fn break_stream<'a>(
        &mut self,
        key: StreamKey,
        error: StreamError,
        out: &mut Vec<u8>,
    ) -> Result<Step<'a>, ConnectionError> {
        self.remove(key, out);
        self.refuse(key.id, error, out)?;
        let StreamError { code, reason } = error;
        let loss = StreamLoss { code, reason, by_peer: false, may_be_processed: true };
        Ok(Step::Found(Inbound::Lost { key, loss }))
    }

    /// Resets a stream that the caller does not know.
    ///
    /// # Errors
    /// There were too many.
    pub fn refuse(&mut self, id: u32, error: StreamError, out: &mut Vec<u8>) -> Result<(), ConnectionError> {
        self.reset_here.add(id);
        Frame::Reset { stream: id, code: error.code }.write(out);
        self.abuse.note(Limit::StreamErrors, self.now_ms)
    }

    /// Lets go of all streams above one, and tells the caller with the next events.
    pub fn lose_above(&mut self, last: u32, loss: StreamLoss, out: &mut Vec<u8>) {
        let mut above: Vec<StreamKey> = self
            .streams
            .iter_mut()
            .filter(|(_, stream)| stream.id > last)
            .map(|(slot, stream)| StreamKey { slot, id: stream.id })
            .collect();
        above.sort_unstable_by_key(|key| key.id);
        for key in above {
            self.remove(key, out);
            // The peer may have sent something before it knew.
            self.reset_here.add(key.id);
            self.lost.push_back((key, loss));
        }
    }

    /// Takes the memory of a gathered block back, if it is worth keeping.
    pub fn keep_block(&mut self, mut block: Vec<u8>) {
        if block.capacity() <= KEPT_MEMORY {
            block.clear();
            self.block = block;
        }
    }

    /// Lets go of a stream; what it holds goes back to the connection's window.
    pub fn remove(&mut self, key: StreamKey, out: &mut Vec<u8>) {
        self.schedule.remove(key.slot);
        if let Some(stream) = self.streams.remove(key) {
            self.give_back(None, stream.held, out);
        }
    }

    /// Gives received bytes back to the connection's window, and to a stream's if its peer goes on sending.
    fn give_back(&mut self, key: Option<StreamKey>, length: u32, out: &mut Vec<u8>) {
        if length == 0 {
            return;
        }
        if let Some(key) = key
            && let Some(stream) = self.streams.get_mut(key)
            && stream.state.receive_data().is_ok()
            && let Some(increment) = stream.receive_window.give_back(length)
        {
            Frame::WindowUpdate { stream: key.id, increment }.write(out);
        }
        if let Some(increment) = self.receive_window.give_back(length) {
            Frame::WindowUpdate { stream: 0, increment }.write(out);
        }
    }

    /// The caller is done with so many bytes that it got from a stream.
    pub fn consumed(&mut self, key: StreamKey, length: usize, out: &mut Vec<u8>) {
        // Of a stream that is gone, everything was given back.
        let Some(stream) = self.streams.get_mut(key) else { return };
        debug_assert!(length <= stream.held as usize, "more was consumed than there was");
        let length = u32::try_from(length).unwrap_or(u32::MAX).min(stream.held);
        stream.held -= length;
        self.give_back(Some(key), length, out);
    }

    /// Ends the connection over what the peer did.
    pub fn fail(&mut self, error: &ConnectionError, out: &mut Vec<u8>) {
        let last = if self.side == Side::Server { self.opened.highest } else { 0 };
        Frame::GoAway { last, code: error.code, debug: error.reason.as_bytes() }.write(out);
        self.reading = Reading::Dead;
        self.partial = Vec::new();
        self.block = Vec::new();
    }

    /// Begins to leave: no stream is welcome any more, those that are on their way are.
    pub fn announce_leaving(&mut self, out: &mut Vec<u8>) {
        if self.leaving == Leaving::No {
            self.leaving = Leaving::Announced { until_ms: self.now_ms + DRAIN_WAIT_MS };
            Frame::GoAway { last: frame::MOST_31_BITS, code: ErrorCode::NO_ERROR, debug: b"" }.write(out);
            Frame::Ping { ack: false, opaque: DRAIN_PING }.write(out);
        }
    }

    /// Names the last stream that is served.
    pub fn leave(&mut self, out: &mut Vec<u8>) {
        if !matches!(self.leaving, Leaving::Final { .. }) {
            let last = if self.side == Side::Server { self.opened.highest } else { 0 };
            self.leaving = Leaving::Final { last };
            Frame::GoAway { last, code: ErrorCode::NO_ERROR, debug: b"" }.write(out);
        }
    }

    /// The earliest time that something is to be done without the peer, in milliseconds.
    pub fn deadline(&self) -> Option<u64> {
        if matches!(self.reading, Reading::Dead) {
            return None;
        }
        let drain = match self.leaving {
            Leaving::Announced { until_ms } => Some(until_ms),
            _ => None,
        };
        [self.settings_deadline_ms, drain, self.stall_check_ms].into_iter().flatten().min()
    }

    /// Does what is due.
    ///
    /// # Errors
    /// The peer did not acknowledge SETTINGS, or let too many streams wait for window.
    pub fn on_deadline(&mut self, now_ms: u64, out: &mut Vec<u8>) -> Result<(), ConnectionError> {
        self.now_ms = self.now_ms.max(now_ms);
        if self.settings_deadline_ms.is_some_and(|deadline| deadline <= now_ms) {
            let reason = "peer did not acknowledge SETTINGS";
            return Err(ConnectionError::new(ErrorCode::SETTINGS_TIMEOUT, reason));
        }
        if matches!(self.leaving, Leaving::Announced { until_ms } if until_ms <= now_ms) {
            self.leave(out);
        }
        if self.stall_check_ms.is_some_and(|check| check <= now_ms) {
            self.check_stalls(out)?;
        }
        Ok(())
    }

    /// Resets streams that waited for window for too long.
    fn check_stalls(&mut self, out: &mut Vec<u8>) -> Result<(), ConnectionError> {
        let (now_ms, timeout) = (self.now_ms, self.config.window_timeout_ms);
        let is_blocked = self.send_window.available() == 0;
        let mut overdue = Vec::new();
        let mut waits = false;
        for (slot, stream) in self.streams.iter_mut() {
            if !stream.has_data || (!is_blocked && stream.send_window.available() > 0) {
                continue;
            }
            let since = *stream.stalled_ms.get_or_insert(now_ms);
            if now_ms - since >= timeout {
                overdue.push(StreamKey { slot, id: stream.id });
            } else {
                waits = true;
            }
        }
        self.stall_check_ms = waits.then_some(now_ms + (timeout / 4).max(1));
        for key in overdue {
            self.remove(key, out);
            self.reset_here.add(key.id);
            let code = ErrorCode::CANCEL;
            Frame::Reset { stream: key.id, code }.write(out);
            self.abuse.note(Limit::StalledStreams, now_ms)?;
            let reason = "peer gave no window to the stream";
            self.lost.push_back((key, StreamLoss { code, reason, by_peer: false, may_be_processed: true }));
        }
        Ok(())
    }
}

/// Where reading goes from here.
#[derive(Debug)]
pub(super) enum Step<'a> {
    Again,
    NeedMore,
    Found(Inbound<'a>),
}

enum Parsed<'a> {
    Frame(Frame<'a>),
    BrokenPriority,
}

fn parse<'a>(header: &FrameHeader, payload: &'a [u8]) -> Result<Parsed<'a>, ConnectionError> {
    match Frame::parse(header, payload) {
        Ok(frame) => Ok(Parsed::Frame(frame)),
        Err(PayloadError::Connection(error)) => Err(error),
        Err(PayloadError::PrioritySize) => Ok(Parsed::BrokenPriority),
    }
}

/// Takes up to so many bytes from the front.
fn take<'a>(input: &mut &'a [u8], most: u32) -> &'a [u8] {
    let (taken, rest) = input.split_at(input.len().min(most as usize));
    *input = rest;
    taken
}
