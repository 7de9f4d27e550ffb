//! The server's side of a connection.

use crate::message::{Fields, Method, RequestFraming, RequestHead, ResponseFraming, ResponseHead, Status};
use crate::proto::h1::{HeadLimits, RequestError, RespondOptions};

use super::abuse::{Abuse, LIMIT_COUNT, Limit};
use super::core::{Block, Config, Core, Inbound, Leaving, Side};
use super::error::{ConnectionError, ErrorCode, StreamError, StreamLoss};
use super::flow::{ReceiveWindow, SendWindow};
use super::frame;
use super::hpack::HpackError;
use super::priority::Priority;
use super::reading::Step;
use super::request_head::{self, BuiltRequest};
use super::response;
use super::sending::DataFrame;
use super::stream::{HeadReceived, HeadSent, State, Stream, StreamKey};

/// What `read` found.
#[derive(Debug)]
pub enum ServerEvent<'a> {
    /// The input is used up: feed more.
    NeedMore,
    /// A request's head: the head that was passed is filled.
    Head {
        /// Its stream.
        stream: StreamKey,
        /// A WebSocket or CONNECT was asked for: if the answer is 101 (or 2xx to CONNECT), bytes go both ways.
        is_tunnel: bool,
    },
    /// A request that is to be answered with an error (`respond` as usual); the head is filled as far as that is possible.
    Refused {
        /// Its stream.
        stream: StreamKey,
        /// The answer, and what to log.
        error: RequestError,
    },
    /// A piece of a body, never empty; it lies in the input. Its bytes count against the windows until `consumed`.
    Data {
        /// Its stream.
        stream: StreamKey,
        /// The bytes.
        data: &'a [u8],
    },
    /// A body is complete. Comes once, and only where the head's framing is not `None`, or for a tunnel.
    End {
        /// Its stream.
        stream: StreamKey,
        /// Trailer fields came: the head that was passed has them in its `fields`, and nothing else.
        has_trailers: bool,
    },
    /// A stream that was told of is gone: nothing can be sent on it any more.
    Lost {
        /// Its stream.
        stream: StreamKey,
        /// Why.
        loss: StreamLoss,
    },
    /// A request that can't be answered was reset, without a word to the caller before.
    Rejected {
        /// Its stream's identifier.
        id: u32,
        /// For the log.
        reason: &'static str,
    },
    /// The connection is broken: nothing is taken any more.
    Closed,
}

/// The server's side of one HTTP/2 connection. The module's page says in which order its verbs are called.
#[derive(Debug)]
pub struct Server {
    core: Core,
    client_is_leaving: bool,
}

impl Server {
    /// A connection before its first byte.
    pub fn new(config: Config) -> Server {
        Server { core: Core::new(Side::Server, config), client_is_leaving: false }
    }

    /// Appends what a server sends first, without waiting for the client.
    pub fn start(&mut self, now_ms: u64, out: &mut Vec<u8>) {
        self.core.start(now_ms, out);
    }

    /// Takes the next event from the front of `input`, beginning with the client's preface. `head` is filled (after being
    /// cleared) with [`ServerEvent::Head`], [`ServerEvent::Refused`] and trailers; it is of no use after other events.
    /// Answers to control frames are appended to `out`: don't read on while it is long.
    ///
    /// # Errors
    /// The connection is over, a GOAWAY that says so is in `out`; from then on every call answers
    /// [`ServerEvent::Closed`].
    pub fn read<'a>(
        &mut self,
        input: &mut &'a [u8],
        now_ms: u64,
        limits: &HeadLimits,
        head: &mut RequestHead,
        out: &mut Vec<u8>,
    ) -> Result<ServerEvent<'a>, ConnectionError> {
        self.core.now_ms = self.core.now_ms.max(now_ms);
        let result = self.read_on(input, limits, head, out);
        if let Err(error) = &result {
            self.core.fail(error, out);
        }
        result
    }

    fn read_on<'a>(
        &mut self,
        input: &mut &'a [u8],
        limits: &HeadLimits,
        head: &mut RequestHead,
        out: &mut Vec<u8>,
    ) -> Result<ServerEvent<'a>, ConnectionError> {
        loop {
            return Ok(match self.core.next(input, out)? {
                Inbound::NeedMore => ServerEvent::NeedMore,
                Inbound::Headers { stream, ends, block } => {
                    match self.take_block(stream, ends, block, limits, head, out)? {
                        Some(event) => event,
                        None => continue,
                    }
                }
                Inbound::Data { key, data } => ServerEvent::Data { stream: key, data },
                Inbound::End { key } => ServerEvent::End { stream: key, has_trailers: false },
                Inbound::Lost { key, loss } => ServerEvent::Lost { stream: key, loss },
                Inbound::GoAway { .. } => {
                    self.client_is_leaving = true;
                    continue;
                }
                Inbound::Closed => ServerEvent::Closed,
            });
        }
    }

    fn take_block<'a>(
        &mut self,
        id: u32,
        ends: bool,
        block: Block<'_>,
        limits: &HeadLimits,
        head: &mut RequestHead,
        out: &mut Vec<u8>,
    ) -> Result<Option<ServerEvent<'a>>, ConnectionError> {
        let gathered = std::mem::take(&mut self.core.block);
        let bytes = match block {
            Block::Input(bytes) => bytes,
            Block::Gathered => &gathered,
        };
        let result = match self.core.streams.key(id) {
            Some(key) => self.take_trailers(key, ends, bytes, limits, head, out),
            None => self.take_head(id, ends, bytes, limits, head, out),
        };
        self.core.keep_block(gathered);
        result
    }

    fn take_head<'a>(
        &mut self,
        id: u32,
        ends: bool,
        block: &[u8],
        limits: &HeadLimits,
        head: &mut RequestHead,
        out: &mut Vec<u8>,
    ) -> Result<Option<ServerEvent<'a>>, ConnectionError> {
        let core = &mut self.core;
        if id.is_multiple_of(2) {
            return Err(ConnectionError::protocol("client opened a stream with an even identifier"));
        }
        let is_late = id <= core.opened.highest;
        if is_late && !core.reset_here.may_contain(id) {
            return Err(if core.opened.was_left_out(id) {
                ConnectionError::protocol("client opened a stream below an earlier one")
            } else {
                ConnectionError::new(ErrorCode::STREAM_CLOSED, "client sent HEADERS on a closed stream")
            });
        }
        let allow_tunnels = core.config.allow_tunnels;
        let built = request_head::build(&mut core.decoder, block, ends, allow_tunnels, limits, head)
            .map_err(compression)?;
        if is_late {
            core.abuse.note(Limit::IgnoredFrames, core.now_ms)?;
            return Ok(None);
        }
        if matches!(core.leaving, Leaving::Final { last } if id > last) {
            // What is sent to a server that is gone is not looked at, for as long as it takes to notice.
            core.abuse.note(Limit::IgnoredFrames, core.now_ms)?;
            core.reset_here.add(id);
            core.opened.open(id);
            return Ok(None);
        }
        core.opened.open(id);
        core.abuse.allow(Limit::Priorities, 4);
        let early = core.take_early_priority(id);
        let refused = match &built {
            BuiltRequest::Malformed(error) => Some(*error),
            _ if core.streams.len() >= core.config.max_concurrent_streams as usize => {
                let reason = "client opened more streams than SETTINGS_MAX_CONCURRENT_STREAMS";
                Some(StreamError::new(ErrorCode::REFUSED_STREAM, reason))
            }
            _ => None,
        };
        if let Some(error) = refused {
            core.refuse(id, error, out)?;
            return Ok(Some(ServerEvent::Rejected { id, reason: error.reason }));
        }
        let key = self.open(id, ends, early, &built, head);
        Ok(Some(match built {
            BuiltRequest::Refused(error) => ServerEvent::Refused { stream: key, error },
            BuiltRequest::Head { is_tunnel } => ServerEvent::Head { stream: key, is_tunnel },
            BuiltRequest::Malformed(_) => return Ok(None),
        }))
    }

    fn open(
        &mut self,
        id: u32,
        ends: bool,
        early: Option<Priority>,
        built: &BuiltRequest,
        head: &RequestHead,
    ) -> StreamKey {
        let core = &mut self.core;
        let field = head.field(crate::message::FieldName::Priority);
        core.streams.insert(Stream {
            id,
            state: if ends { State::HalfClosedRemote } else { State::Open },
            send_window: SendWindow::new(core.peer.initial_window),
            receive_window: ReceiveWindow::new(core.receive_window()),
            held: 0,
            expected: match head.framing {
                RequestFraming::Length(length) => Some(length),
                RequestFraming::None | RequestFraming::Streamed => None,
            },
            // What came by frame is newer than the field (RFC 9218 section 7).
            priority: early.or(field.map(Priority::parse)).unwrap_or_default(),
            head_sent: HeadSent::None,
            head_received: HeadReceived::Final,
            is_head: head.method == Method::Head,
            is_tunnel: matches!(built, BuiltRequest::Head { is_tunnel: true }),
            has_data: false,
            interims: 0,
            stalled_ms: None,
            window_timeout_ms: core.config.stream_timeout_ms(),
            is_standing: false,
        })
    }

    fn take_trailers<'a>(
        &mut self,
        key: StreamKey,
        ends: bool,
        block: &[u8],
        limits: &HeadLimits,
        head: &mut RequestHead,
        out: &mut Vec<u8>,
    ) -> Result<Option<ServerEvent<'a>>, ConnectionError> {
        let core = &mut self.core;
        head.clear();
        let budget = request_head::budget(limits);
        let fields = request_head::build_trailers(&mut core.decoder, block, budget, &mut head.fields)
            .map_err(compression)?;
        let Some(stream) = core.streams.get(key) else { return Ok(None) };
        let error = match stream.state.receive_headers(true) {
            Err(_) => {
                StreamError::new(ErrorCode::STREAM_CLOSED, "client sent HEADERS behind the end of its stream")
            }
            Ok(_) if !ends => StreamError::malformed("client sent trailers that do not end the stream"),
            Ok(_) if stream.is_tunnel => StreamError::malformed("client sent trailers on a tunnel"),
            Ok(_) if stream.expected.is_some_and(|expected| expected > 0) => {
                StreamError::malformed("client sent less content than its Content-Length")
            }
            Ok(state) => match fields {
                Err(error) => error,
                Ok(()) => {
                    core.set_state(key, state, out);
                    return Ok(Some(ServerEvent::End { stream: key, has_trailers: !head.fields.is_empty() }));
                }
            },
        };
        match core.break_stream(key, error, out)? {
            Step::Found(Inbound::Lost { key, loss }) => Ok(Some(ServerEvent::Lost { stream: key, loss })),
            _ => Ok(None),
        }
    }

    /// The caller is done with so many bytes of a body: the client may send as many more. WINDOW_UPDATE frames are
    /// appended when it is worth it.
    pub fn consumed(&mut self, stream: StreamKey, length: usize, out: &mut Vec<u8>) {
        self.core.consumed(stream, length, out);
    }

    /// Appends an interim response (100, 102, 103), with the fields that an upstream gave it. Nothing once the final head
    /// is sent.
    pub fn interim(&mut self, stream: StreamKey, status: Status, fields: Option<&Fields>, out: &mut Vec<u8>) {
        response::interim(&mut self.core, stream, status, fields, out);
    }

    /// Appends a response's head and says how its body is to be sent: not at all, or by `send_data` until `ends`
    /// (`Length`, `Streamed`). A head without a body ends the stream, so does a length of 0 without trailers to come. `None`
    /// where the stream is gone, or has a head already.
    ///
    /// On a tunnel 101 is written as 200 (RFC 8441 section 5), and any other 2xx but to CONNECT as 501: the client would
    /// take it for its tunnel.
    pub fn respond(
        &mut self,
        stream: StreamKey,
        head: &ResponseHead,
        options: &RespondOptions<'_>,
        out: &mut Vec<u8>,
    ) -> Option<ResponseFraming> {
        response::respond(&mut self.core, stream, head, options, out)
    }

    /// Bytes of a body that may be sent on this stream now, whoever's turn it is: for a small response right behind its
    /// head. What doesn't fit waits for its turn.
    pub fn room(&self, stream: StreamKey) -> usize {
        self.core.room(stream)
    }

    /// Whether a stream has something to send and no window for it: a good time to let go of what it reads from.
    pub fn waits_for_window(&self, stream: StreamKey) -> bool {
        self.core.streams.get(stream).is_some_and(|open| open.has_data) && self.core.room(stream) == 0
    }

    /// Whether a stream's own window is open, whatever the connection's is.
    pub fn has_window(&self, stream: StreamKey) -> bool {
        self.core.streams.get(stream).is_some_and(|open| open.send_window.available() > 0)
    }

    /// Whether streams have something to send and the window of the connection is all that keeps them.
    pub fn is_out_of_window(&self) -> bool {
        self.core.send_window.available() == 0 && !self.core.schedule.is_empty()
    }

    /// Bytes of content that were sent on all streams.
    pub fn content_sent(&self) -> u64 {
        self.core.content_sent
    }

    /// Whether the client may send some of a stream's body, as far as windows go.
    pub fn may_receive(&self, stream: StreamKey) -> bool {
        let open = self.core.streams.get(stream);
        self.core.receive_window.available() > 0
            && open.is_some_and(|open| open.receive_window.available() > 0)
    }

    /// The caller has (or has not, for now) something to send on a stream: it gets its turns.
    pub fn set_has_data(&mut self, stream: StreamKey, has_data: bool) {
        self.core.set_has_data(stream, has_data);
    }

    /// Whose turn it is and how many bytes it may send; `None` if nobody has anything to send, or no window to send it.
    /// It is to send something, or to be told by `set_has_data` that there is nothing, before this is called again.
    pub fn next_turn(&mut self) -> Option<(StreamKey, usize)> {
        self.core.next_turn()
    }

    /// Appends as much of `data` as there is room for and says how much that was. If all of it was taken and `ends` is
    /// set, the stream is ended.
    pub fn send_data(&mut self, stream: StreamKey, data: &[u8], ends: bool, out: &mut Vec<u8>) -> usize {
        self.core.send_data(stream, data, ends, out)
    }

    /// Appends the header of one DATA frame for up to `length` bytes that the caller appends itself (or sends from a file
    /// right behind `out`): exactly as many as this says. The frame ends the stream if it has all of them, `ends` is set,
    /// and nothing else has to be said then; what it did is in the answer.
    pub fn send_data_header(
        &mut self,
        stream: StreamKey,
        length: usize,
        ends: bool,
        out: &mut Vec<u8>,
    ) -> DataFrame {
        self.core.send_data_header(stream, length, ends, out)
    }

    /// Ends a stream with trailer fields.
    pub fn send_trailers(&mut self, stream: StreamKey, fields: &Fields, out: &mut Vec<u8>) {
        self.core.send_trailers(stream, fields, out);
    }

    /// Gives a stream up, a response that can't be finished say (INTERNAL_ERROR).
    pub fn reset(&mut self, stream: StreamKey, code: ErrorCode, out: &mut Vec<u8>) {
        self.core.send_reset(stream, code, out);
    }

    /// How long this stream may wait for window before it is reset, in milliseconds (a location's `send_timeout`).
    pub fn set_window_timeout(&mut self, stream: StreamKey, timeout_ms: u64) {
        if let Some(open) = self.core.streams.get_mut(stream) {
            open.window_timeout_ms = u32::try_from(timeout_ms).unwrap_or(u32::MAX);
        }
    }

    /// What a client asked for by Priority field or PRIORITY_UPDATE, for upstreams and logs.
    pub fn priority(&self, stream: StreamKey) -> Option<Priority> {
        self.core.streams.get(stream).map(|open| open.priority)
    }

    /// Sets a stream's priority, by a Priority field of the response say (RFC 9218 section 8).
    pub fn set_priority(&mut self, stream: StreamKey, priority: Priority) {
        if let Some(open) = self.core.streams.get_mut(stream) {
            open.priority = priority;
            if self.core.schedule.contains(stream.slot) {
                self.core.schedule.insert(stream.slot, stream.id, priority);
            }
        }
    }

    /// Begins to leave: the client is told that no stream is welcome any more; those on their way still are, until it
    /// knows. Close once `is_drained`.
    pub fn shut_down(&mut self, now_ms: u64, out: &mut Vec<u8>) {
        self.core.now_ms = self.core.now_ms.max(now_ms);
        self.core.announce_leaving(out);
    }

    /// Leaves without waiting for streams on their way: those that came are finished, for an idle connection say.
    pub fn leave(&mut self, out: &mut Vec<u8>) {
        self.core.leave(out);
    }

    /// Whether nothing is left to be done on a connection that either side is leaving.
    pub fn is_drained(&self) -> bool {
        let is_leaving = matches!(self.core.leaving, Leaving::Final { .. }) || self.client_is_leaving;
        is_leaving && self.core.streams.len() == 0
    }

    /// Whether a stream is open on either side.
    pub fn is_open(&self, stream: StreamKey) -> bool {
        self.core.streams.get(stream).is_some()
    }

    /// Streams that are open.
    pub fn open_streams(&self) -> usize {
        self.core.streams.len()
    }

    /// When `on_deadline` is to be called if nothing comes, in milliseconds.
    pub fn deadline(&self) -> Option<u64> {
        self.core.deadline()
    }

    /// Streams that have waited for window for as long as [`Config::standing_ms`]; each is named once until it is sent
    /// something again. To be asked after `on_deadline`.
    pub fn take_standing(&mut self) -> Vec<StreamKey> {
        std::mem::take(&mut self.core.standing)
    }

    /// Does what is due; call `read` afterwards (with no input, if there is none), it has the streams that were lost.
    ///
    /// # Errors
    /// The connection is over, as by `read`.
    pub fn on_deadline(&mut self, now_ms: u64, out: &mut Vec<u8>) -> Result<(), ConnectionError> {
        let result = self.core.on_deadline(now_ms, out);
        if let Err(error) = &result {
            self.core.fail(error, out);
        }
        result
    }

    /// Whether a frame or a field block has begun to come and is not whole: the rest is owed by the client.
    pub fn is_amid_frame(&self) -> bool {
        !self.core.partial.is_empty() || self.core.open_block.is_some()
    }

    /// How often each of [`Limit::ALL`] was noted.
    pub fn limit_counts(&self) -> &[u32; LIMIT_COUNT] {
        Abuse::counts(&self.core.abuse)
    }
}

/// Whether these first bytes of a connection are HTTP/2's preface: `None` as long as they may become it.
pub fn is_preface(bytes: &[u8]) -> Option<bool> {
    let length = bytes.len().min(frame::PREFACE.len());
    if bytes[..length] != frame::PREFACE[..length] {
        return Some(false);
    }
    (length == frame::PREFACE.len()).then_some(true)
}

pub(super) fn compression(error: HpackError) -> ConnectionError {
    match error {
        HpackError::TooManyFields => ConnectionError::new(ErrorCode::ENHANCE_YOUR_CALM, error.description()),
        _ => ConnectionError::compression(error.description()),
    }
}
