//! What both sides of a connection share: streams and their windows, settings, limits, GOAWAY.
//!
//! What it holds and how it ends is here; `reading.rs` takes frames apart, `control.rs` does what those say that are no
//! messages, `sending.rs` writes. The roles ([`Server`](super::Server), [`Client`](super::Client)) give heads their meaning.

use std::collections::VecDeque;

use super::abuse::{Abuse, Limit};
use super::error::{ConnectionError, ErrorCode, StreamError, StreamLoss};
use super::flow::{INITIAL_WINDOW, ReceiveWindow, SendWindow};
use super::frame::{self, Frame};
use super::hpack::{Decoder, Encoder};
use super::priority::{Priority, Schedule};
use super::reading::{Reading, Step};
use super::settings::{self, Settings};
use super::stream::{Opened, ResetHere, State, StreamKey, Streams};

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
    /// How long a stream may wait for window before it is reset, in milliseconds (`send_timeout`), unless the caller says
    /// otherwise for one of them. It is looked at every quarter of that.
    pub window_timeout_ms: u64,
    /// How long a stream waits for window until the caller is told, in milliseconds, so that it lets go of what it
    /// holds for the stream; the largest number for never.
    pub standing_ms: u64,
    /// How long the peer may take to acknowledge SETTINGS, in milliseconds.
    pub settings_timeout_ms: u64,
    /// Most bytes of a compressed field block, if it is spread over frames.
    pub block_bytes: u32,
    /// Bytes of a list of fields that the peer is told to stay below; advice.
    pub header_list_bytes: u32,
}

impl Config {
    /// When to look for the first time at a stream that waits for window, in milliseconds.
    pub(super) fn first_look_ms(&self) -> u64 {
        (self.window_timeout_ms / 4).min(self.standing_ms).max(1)
    }

    /// How long a stream may wait for window that nothing else is said of.
    pub(super) fn stream_timeout_ms(&self) -> u32 {
        u32::try_from(self.window_timeout_ms).unwrap_or(u32::MAX)
    }
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
            standing_ms: u64::MAX,
            settings_timeout_ms: 30_000,
            block_bytes: 64 << 10,
            header_list_bytes: 64 << 10,
        }
    }
}

/// Memory for parts of frames that is kept from one to the next, in bytes.
pub(super) const KEPT_MEMORY: usize = 1024;

/// The smallest window of a stream, in bytes: what grows by halves must not begin at nothing.
const LEAST_WINDOW: u32 = 1024;

/// Priorities that are kept for streams that are not open yet (RFC 9218 section 7.1).
pub(super) const EARLY_PRIORITIES: usize = 8;

/// What the PING that goes with the first GOAWAY carries: once it is answered, the peer knows.
pub(super) const DRAIN_PING: [u8; 8] = *b"draining";

/// How long to wait for that answer, in milliseconds.
const DRAIN_WAIT_MS: u64 = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Server,
    Client,
}

/// A field block that came with HEADERS and goes on with CONTINUATION.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenBlock {
    pub stream: u32,
    pub ends: bool,
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
    pub reading: Reading,
    /// The beginning of a frame.
    pub partial: Vec<u8>,
    pub open_block: Option<OpenBlock>,
    /// A field block that did not lie in the input whole.
    pub block: Vec<u8>,
    pub decoder: Decoder,
    pub encoder: Encoder,
    /// The peer's settings, once it sent some.
    pub peer: Settings,
    pub has_peer_settings: bool,
    /// Until when the peer has to acknowledge our settings; `None` once it did.
    pub settings_deadline_ms: Option<u64>,
    pub streams: Streams,
    pub schedule: Schedule,
    pub send_window: SendWindow,
    pub receive_window: ReceiveWindow,
    pub abuse: Abuse,
    pub opened: Opened,
    pub reset_here: ResetHere,
    /// Bytes that a server may have sent on streams that were reset here before it knew.
    pub on_the_way: u64,
    pub leaving: Leaving,
    pub early_priorities: Vec<(u32, Priority)>,
    /// Streams that were lost while no input was read.
    pub lost: VecDeque<(StreamKey, StreamLoss)>,
    /// When to look for streams that wait for window.
    pub stall_check_ms: Option<u64>,
    /// Streams that were found to stand still and of which the caller was not told yet.
    pub standing: Vec<StreamKey>,
    /// Bytes of content that were sent, and when the last of them were.
    pub content_sent: u64,
    pub content_sent_ms: u64,
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
            on_the_way: 0,
            leaving: Leaving::No,
            early_priorities: Vec::new(),
            lost: VecDeque::new(),
            stall_check_ms: None,
            standing: Vec::new(),
            content_sent: 0,
            content_sent_ms: 0,
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

    /// Whether a stream was never opened.
    pub fn is_idle(&self, id: u32) -> bool {
        let opened_by_client = id % 2 == 1;
        // Nothing is pushed: even identifiers stay idle.
        !opened_by_client || id > self.opened.highest
    }

    /// The priority that came before its request.
    pub fn take_early_priority(&mut self, id: u32) -> Option<Priority> {
        let at = self.early_priorities.iter().position(|(early, _)| *early == id)?;
        Some(self.early_priorities.swap_remove(at).1)
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
    pub fn give_back(&mut self, key: Option<StreamKey>, length: u32, out: &mut Vec<u8>) {
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

    /// Ends the connection over what the peer did. With it all streams are lost: none is told of any more.
    pub fn fail(&mut self, error: &ConnectionError, out: &mut Vec<u8>) {
        let last = if self.side == Side::Server { self.opened.highest } else { 0 };
        Frame::GoAway { last, code: error.code, debug: error.reason.as_bytes() }.write(out);
        self.reading = Reading::Dead;
        self.partial = Vec::new();
        self.block = Vec::new();
        self.lost.clear();
    }

    /// Begins to leave: no stream is welcome any more, those that are on their way are.
    pub fn announce_leaving(&mut self, out: &mut Vec<u8>) {
        if self.leaving == Leaving::No && !matches!(self.reading, Reading::Dead) {
            self.leaving = Leaving::Announced { until_ms: self.now_ms + DRAIN_WAIT_MS };
            Frame::GoAway { last: frame::MOST_31_BITS, code: ErrorCode::NO_ERROR, debug: b"" }.write(out);
            Frame::Ping { ack: false, opaque: DRAIN_PING }.write(out);
        }
    }

    /// Names the last stream that is served. Behind the word of an error there is nothing to say.
    pub fn leave(&mut self, out: &mut Vec<u8>) {
        if !matches!(self.leaving, Leaving::Final { .. }) && !matches!(self.reading, Reading::Dead) {
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
        let now_ms = self.now_ms;
        let is_blocked = self.send_window.available() == 0;
        let content_sent_ms = self.content_sent_ms;
        let mut overdue = Vec::new();
        // None waits on.
        let mut next_look_ms = u64::MAX;
        for (slot, stream) in self.streams.iter_mut() {
            if !stream.has_data || (!is_blocked && stream.send_window.available() > 0) {
                continue;
            }
            let mut since = *stream.stalled_ms.get_or_insert(now_ms);
            if !stream.is_standing {
                // Whether others are sent meanwhile makes no difference to what this one holds.
                stream.is_standing = now_ms - since >= self.config.standing_ms;
                match stream.is_standing {
                    true => self.standing.push(StreamKey { slot, id: stream.id }),
                    // Soon: the caller may have to be told.
                    false => next_look_ms = next_look_ms.min(self.config.standing_ms),
                }
            }
            if stream.send_window.available() > 0 {
                // The connection's window, which others may have used up: they are to stand still as well.
                since = since.max(content_sent_ms);
            }
            let timeout_ms = u64::from(stream.window_timeout_ms);
            if now_ms - since >= timeout_ms {
                overdue.push(StreamKey { slot, id: stream.id });
            } else {
                next_look_ms = next_look_ms.min(timeout_ms / 4);
            }
        }
        self.stall_check_ms = (next_look_ms < u64::MAX).then(|| now_ms + next_look_ms.max(1));
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
