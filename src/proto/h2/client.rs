//! The client's side of a connection, to an upstream: many requests at a time.

use std::fmt;

use crate::message::{FieldName, Fields, RequestFraming, ResponseFraming, ResponseHead};

use super::abuse::{LIMIT_COUNT, Limit};
use super::core::{Block, Config, Core, Inbound, Leaving, Side};
use super::error::{ConnectionError, ErrorCode, StreamError, StreamLoss};
use super::flow::{ReceiveWindow, SendWindow};
use super::frame::{self, MOST_31_BITS};
use super::hpack::{Budget, Indexing};
use super::priority::Priority;
use super::reading::Step;
use super::sending::{DataFrame, encode_line};
use super::server::compression;
use super::stream::{HeadReceived, HeadSent, State, Stream, StreamKey};
use super::{field_rules, request_head, response_head};

/// Streams that are opened before the upstream has said how many it takes (RFC 9113 section 6.5.2 advises no less).
const STREAMS_BEFORE_SETTINGS: u32 = 100;

/// What `read` found.
#[derive(Debug)]
pub enum ClientEvent<'a> {
    /// The input is used up: feed more.
    NeedMore,
    /// An interim response: the head that was passed is filled. The next head comes.
    Interim {
        /// Its stream.
        stream: StreamKey,
    },
    /// A response's head: the head that was passed is filled.
    Head {
        /// Its stream.
        stream: StreamKey,
        /// `None`, `Length` or `Streamed`; `Streamed` for a tunnel.
        framing: ResponseFraming,
        /// A tunnel was asked for and is there.
        switched: bool,
    },
    /// A piece of a body, never empty; it lies in the input. Its bytes count against the windows until `consumed`.
    Data {
        /// Its stream.
        stream: StreamKey,
        /// The bytes.
        data: &'a [u8],
    },
    /// A response is complete; comes once for each. If the request is not sent whole, finish it or reset the stream.
    End {
        /// Its stream.
        stream: StreamKey,
        /// Trailer fields came: the head that was passed has them in its `fields`, and nothing else.
        has_trailers: bool,
    },
    /// A stream is gone; `loss` says whether its request may be sent again elsewhere.
    Lost {
        /// Its stream.
        stream: StreamKey,
        /// Why.
        loss: StreamLoss,
    },
    /// The upstream takes no new requests on this connection. `Lost` follows for those it did not look at; the others go on.
    GoingAway {
        /// Its reason.
        code: ErrorCode,
    },
    /// The connection is broken: nothing is taken any more.
    Closed,
}

/// A request to be sent.
#[derive(Clone, Copy, Debug)]
pub struct NewRequest<'a> {
    /// The method; CONNECT has neither scheme nor path on the wire unless there is a protocol.
    pub method: &'a [u8],
    /// `http` or `https`.
    pub scheme: &'a [u8],
    /// Host and port; may be empty.
    pub authority: &'a [u8],
    /// Path and arguments, escaped as they are to be sent, or `*`.
    pub path: &'a [u8],
    /// `:protocol` of an extended CONNECT (RFC 8441).
    pub protocol: Option<&'a [u8]>,
    /// The fields, in any case. Host, Content-Length and fields that speak of a connection are left out.
    pub fields: &'a Fields,
    /// How the body ends; with `None` and `Length(0)` the request is whole.
    pub framing: RequestFraming,
}

/// Why a request was not sent. Nothing of it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// As many streams are open as the upstream allows.
    TooMany,
    /// The connection takes no new requests: it is broken, one side is leaving, or identifiers are used up.
    Unavailable,
    /// The upstream takes no extended CONNECT.
    NoTunnels,
    /// Method, scheme, authority or path can't be sent.
    Invalid(&'static str),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OpenError::TooMany => "all streams of the connection to the upstream are in use",
            OpenError::Unavailable => "the connection to the upstream takes no new requests",
            OpenError::NoTunnels => "the upstream takes no extended CONNECT",
            OpenError::Invalid(what) => what,
        })
    }
}

impl std::error::Error for OpenError {}

/// The client's side of one HTTP/2 connection. The module's page says in which order its verbs are called.
#[derive(Debug)]
pub struct Client {
    core: Core,
    /// The last stream that the upstream looks at, once it is leaving.
    last_served: Option<u32>,
    /// A response whose head ended it.
    ended: Option<StreamKey>,
    is_broken: bool,
}

impl Client {
    /// A connection before its first byte.
    pub fn new(config: Config) -> Client {
        let core = Core::new(Side::Client, config);
        Client { core, last_served: None, ended: None, is_broken: false }
    }

    /// Appends what a client sends first. Requests may follow at once.
    pub fn start(&mut self, now_ms: u64, out: &mut Vec<u8>) {
        self.core.start(now_ms, out);
    }

    /// How many requests may be sent now.
    pub fn free_streams(&self) -> usize {
        let is_leaving = self.last_served.is_some() || self.core.leaving != Leaving::No;
        if self.is_broken || is_leaving || self.core.opened.highest >= MOST_31_BITS - 1 {
            return 0;
        }
        let before_settings = (!self.core.has_peer_settings).then_some(STREAMS_BEFORE_SETTINGS);
        let allowed = self.core.peer.max_concurrent_streams.or(before_settings).unwrap_or(u32::MAX);
        let most = allowed.min(self.core.config.max_concurrent_streams) as usize;
        most.saturating_sub(self.core.streams.len())
    }

    /// Whether the upstream's SETTINGS have come.
    pub fn has_settings(&self) -> bool {
        self.core.has_peer_settings
    }

    /// Whether extended CONNECT may be sent (RFC 8441); known once the upstream's SETTINGS came.
    pub fn allows_tunnels(&self) -> bool {
        self.core.peer.enable_connect_protocol
    }

    /// Appends a request's head.
    ///
    /// # Errors
    /// It was not sent.
    pub fn request(&mut self, request: &NewRequest<'_>, out: &mut Vec<u8>) -> Result<StreamKey, OpenError> {
        check(request)?;
        if self.free_streams() == 0 {
            let is_full = !self.is_broken && self.core.streams.len() > 0 && self.last_served.is_none();
            return Err(if is_full { OpenError::TooMany } else { OpenError::Unavailable });
        }
        if request.protocol.is_some() && !self.allows_tunnels() {
            return Err(OpenError::NoTunnels);
        }
        let core = &mut self.core;
        let id = if core.opened.highest == 0 { 1 } else { core.opened.highest + 2 };
        let is_tunnel = request.method == b"CONNECT";
        let ends = !is_tunnel && matches!(request.framing, RequestFraming::None | RequestFraming::Length(0));
        let start = frame::begin_block(out);
        core.encoder.begin(out);
        encode(core, request, is_tunnel, out);
        frame::end_block(start, id, ends, core.peer.max_frame_size, out);
        core.opened.open(id);
        // A server may reset each stream when it has answered whole (RFC 9113 section 8.1): nginx does.
        core.abuse.allow(Limit::IgnoredFrames, 2);
        Ok(core.streams.insert(Stream {
            id,
            state: if ends { State::HalfClosedLocal } else { State::Open },
            send_window: SendWindow::new(core.peer.initial_window),
            receive_window: ReceiveWindow::new(core.receive_window()),
            held: 0,
            expected: None,
            priority: Priority::default(),
            head_sent: HeadSent::Final,
            head_received: HeadReceived::None,
            is_head: request.method == b"HEAD",
            is_tunnel,
            has_data: false,
            interims: 0,
            stalled_ms: None,
            window_timeout_ms: core.config.stream_timeout_ms(),
            is_standing: false,
        }))
    }

    /// Takes the next event from the front of `input`. `head` is filled (after being cleared) with heads and trailers; it is
    /// of no use after other events. `head_bytes` bounds a head, counted as `SETTINGS_MAX_HEADER_LIST_SIZE` is
    /// (`proxy_buffer_size`).
    ///
    /// # Errors
    /// The connection is over, a GOAWAY that says so is in `out`; from then on every call answers
    /// [`ClientEvent::Closed`]. All requests that are not answered whole are lost, and may have been processed.
    pub fn read<'a>(
        &mut self,
        input: &mut &'a [u8],
        now_ms: u64,
        head_bytes: usize,
        head: &mut ResponseHead,
        out: &mut Vec<u8>,
    ) -> Result<ClientEvent<'a>, ConnectionError> {
        self.core.now_ms = self.core.now_ms.max(now_ms);
        let result = self.read_on(input, head_bytes, head, out);
        if let Err(error) = &result {
            self.break_connection(error, out);
        }
        result
    }

    fn break_connection(&mut self, error: &ConnectionError, out: &mut Vec<u8>) {
        self.is_broken = true;
        self.ended = None;
        self.core.fail(error, out);
    }

    fn read_on<'a>(
        &mut self,
        input: &mut &'a [u8],
        head_bytes: usize,
        head: &mut ResponseHead,
        out: &mut Vec<u8>,
    ) -> Result<ClientEvent<'a>, ConnectionError> {
        if let Some(stream) = self.ended.take() {
            return Ok(ClientEvent::End { stream, has_trailers: false });
        }
        loop {
            return Ok(match self.core.next(input, out)? {
                Inbound::NeedMore => ClientEvent::NeedMore,
                Inbound::Headers { stream, ends, block } => {
                    match self.take_block(stream, ends, block, head_bytes, head, out)? {
                        Some(event) => event,
                        None => continue,
                    }
                }
                Inbound::Data { key, data } => ClientEvent::Data { stream: key, data },
                Inbound::End { key } => ClientEvent::End { stream: key, has_trailers: false },
                Inbound::Lost { key, loss } => ClientEvent::Lost { stream: key, loss },
                Inbound::GoAway { last, code } => {
                    self.take_go_away(last, out)?;
                    ClientEvent::GoingAway { code }
                }
                Inbound::Closed => ClientEvent::Closed,
            });
        }
    }

    /// Streams above the last one were not looked at (RFC 9113 section 6.8).
    fn take_go_away(&mut self, last: u32, out: &mut Vec<u8>) -> Result<(), ConnectionError> {
        if self.last_served.is_some_and(|before| last > before) {
            return Err(ConnectionError::protocol("upstream raised the last stream of a GOAWAY frame"));
        }
        self.last_served = Some(last);
        let loss = StreamLoss {
            code: ErrorCode::REFUSED_STREAM,
            reason: "upstream is going away and did not look at the request",
            by_peer: true,
            may_be_processed: false,
        };
        self.core.lose_above(last, loss, out);
        Ok(())
    }

    fn take_block<'a>(
        &mut self,
        id: u32,
        ends: bool,
        block: Block<'_>,
        head_bytes: usize,
        head: &mut ResponseHead,
        out: &mut Vec<u8>,
    ) -> Result<Option<ClientEvent<'a>>, ConnectionError> {
        let gathered = std::mem::take(&mut self.core.block);
        let bytes = match block {
            Block::Input(bytes) => bytes,
            Block::Gathered => &gathered,
        };
        let budget = Budget { list: head_bytes.clamp(1024, 16 << 20), string: head_bytes, count: 1000 };
        let result = match self.core.streams.key(id) {
            Some(key) => self.take_head(key, ends, bytes, budget, head, out),
            None => self.take_unknown(id, bytes, budget, head),
        };
        self.core.keep_block(gathered);
        result
    }

    /// HEADERS on a stream that is not open.
    fn take_unknown<'a>(
        &mut self,
        id: u32,
        block: &[u8],
        budget: Budget,
        head: &mut ResponseHead,
    ) -> Result<Option<ClientEvent<'a>>, ConnectionError> {
        let core = &mut self.core;
        if core.is_idle(id) {
            return Err(ConnectionError::protocol("upstream sent HEADERS on an idle stream"));
        }
        if !core.reset_here.may_contain(id) {
            let reason = "upstream sent HEADERS on a closed stream";
            return Err(ConnectionError::new(ErrorCode::STREAM_CLOSED, reason));
        }
        core.abuse.note(Limit::IgnoredFrames, core.now_ms)?;
        let _ = response_head::build(&mut core.decoder, block, budget, head).map_err(compression)?;
        Ok(None)
    }

    fn take_head<'a>(
        &mut self,
        key: StreamKey,
        ends: bool,
        block: &[u8],
        budget: Budget,
        head: &mut ResponseHead,
        out: &mut Vec<u8>,
    ) -> Result<Option<ClientEvent<'a>>, ConnectionError> {
        let Some(stream) = self.core.streams.get(key) else { return Ok(None) };
        let has_head = stream.head_received == HeadReceived::Final;
        let decoder = &mut self.core.decoder;
        let built = if has_head {
            head.clear();
            request_head::build_trailers(decoder, block, budget, &mut head.fields)
        } else {
            response_head::build(decoder, block, budget, head)
        };
        let outcome = match built.map_err(compression)? {
            Err(error) => Err(error),
            Ok(()) if has_head => self.judge_trailers(key, ends, head),
            Ok(()) => self.judge_head(key, ends, head),
        };
        match outcome {
            Ok((event, state)) => {
                if ends && !matches!(event, ClientEvent::End { .. }) {
                    self.ended = Some(key);
                }
                self.core.set_state(key, state, out);
                Ok(Some(event))
            }
            Err(error) => match self.core.break_stream(key, error, out)? {
                Step::Found(Inbound::Lost { key, loss }) => Ok(Some(ClientEvent::Lost { stream: key, loss })),
                _ => Ok(None),
            },
        }
    }

    fn judge_trailers<'a>(
        &mut self,
        key: StreamKey,
        ends: bool,
        head: &ResponseHead,
    ) -> Result<(ClientEvent<'a>, State), StreamError> {
        let stream = self.core.streams.get(key).ok_or(gone())?;
        let state = stream.state.receive_headers(true).map_err(|_| ended())?;
        if !ends || stream.is_tunnel {
            return Err(StreamError::malformed("upstream sent HEADERS within a body"));
        }
        if stream.expected.is_some_and(|expected| expected > 0) {
            return Err(StreamError::malformed("peer sent less content than its Content-Length"));
        }
        Ok((ClientEvent::End { stream: key, has_trailers: !head.fields.is_empty() }, state))
    }

    fn judge_head<'a>(
        &mut self,
        key: StreamKey,
        ends: bool,
        head: &mut ResponseHead,
    ) -> Result<(ClientEvent<'a>, State), StreamError> {
        let stream = self.core.streams.get_mut(key).ok_or(gone())?;
        let state = stream.state.receive_headers(ends).map_err(|_| ended())?;
        if head.status.0 < 200 {
            if ends {
                return Err(StreamError::malformed("upstream ended the stream with an interim response"));
            }
            stream.interims = stream.interims.saturating_add(1);
            if u32::from(stream.interims) > Limit::InterimResponses.bounds().0 {
                let error = self.core.abuse.reached(Limit::InterimResponses);
                return Err(StreamError::new(error.code, error.reason));
            }
            return Ok((ClientEvent::Interim { stream: key }, state));
        }
        let switched = stream.is_tunnel && (200..300).contains(&head.status.0);
        stream.is_tunnel = switched;
        stream.head_received = HeadReceived::Final;
        let is_without_body = stream.is_head || head.status.forbids_content();
        if switched || head.status.0 == 204 {
            head.content_length = None;
        }
        let framing = if is_without_body || (ends && !switched) {
            ResponseFraming::None
        } else {
            head.content_length.map_or(ResponseFraming::Streamed, ResponseFraming::Length)
        };
        stream.expected = if is_without_body { Some(0) } else { head.content_length };
        if ends && stream.expected.is_some_and(|expected| expected > 0) {
            return Err(StreamError::malformed("peer sent less content than its Content-Length"));
        }
        Ok((ClientEvent::Head { stream: key, framing, switched }, state))
    }

    /// The caller is done with so many bytes of a body: the upstream may send as many more. WINDOW_UPDATE frames are
    /// appended when it is worth it.
    pub fn consumed(&mut self, stream: StreamKey, length: usize, out: &mut Vec<u8>) {
        self.core.consumed(stream, length, out);
    }

    /// Bytes of a body that may be sent on this stream now, whoever's turn it is.
    pub fn room(&self, stream: StreamKey) -> usize {
        self.core.room(stream)
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
    /// set, the request is complete.
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

    /// Ends a request with trailer fields.
    pub fn send_trailers(&mut self, stream: StreamKey, fields: &Fields, out: &mut Vec<u8>) {
        self.core.send_trailers(stream, fields, out);
    }

    /// Gives a request up (CANCEL), the connection lives on.
    pub fn reset(&mut self, stream: StreamKey, code: ErrorCode, out: &mut Vec<u8>) {
        if self.ended == Some(stream) {
            self.ended = None;
        }
        self.core.send_reset(stream, code, out);
    }

    /// Says that this side leaves; open streams are finished.
    pub fn leave(&mut self, out: &mut Vec<u8>) {
        self.core.leave(out);
    }

    /// Streams that are open.
    pub fn open_streams(&self) -> usize {
        self.core.streams.len()
    }

    /// When `on_deadline` is to be called if nothing comes, in milliseconds.
    pub fn deadline(&self) -> Option<u64> {
        self.core.deadline()
    }

    /// Does what is due; call `read` afterwards (with no input, if there is none), it has the streams that were lost.
    ///
    /// # Errors
    /// The connection is over, as by `read`.
    pub fn on_deadline(&mut self, now_ms: u64, out: &mut Vec<u8>) -> Result<(), ConnectionError> {
        let result = self.core.on_deadline(now_ms, out);
        if let Err(error) = &result {
            self.break_connection(error, out);
        }
        result
    }

    /// How often each of [`Limit::ALL`] was noted.
    pub fn limit_counts(&self) -> &[u32; LIMIT_COUNT] {
        self.core.abuse.counts()
    }
}

fn gone() -> StreamError {
    StreamError::new(ErrorCode::STREAM_CLOSED, "the stream is gone")
}

fn ended() -> StreamError {
    StreamError::new(ErrorCode::STREAM_CLOSED, "upstream sent HEADERS behind the end of its stream")
}

fn check(request: &NewRequest<'_>) -> Result<(), OpenError> {
    let is_visible = |text: &[u8]| text.iter().all(|&byte| byte > b' ' && byte != 0x7f);
    let is_token = |text: &[u8]| field_rules::is_name(text);
    if !is_token(request.method) {
        return Err(OpenError::Invalid("the method of a request to an upstream is no token"));
    }
    let is_connect = request.method == b"CONNECT";
    if is_connect && request.protocol.is_none() {
        return match request.authority {
            b"" => Err(OpenError::Invalid("a CONNECT request to an upstream has no authority")),
            authority if !is_visible(authority) => {
                Err(OpenError::Invalid("a space or control character in the host of a request"))
            }
            _ => Ok(()),
        };
    }
    if request.protocol.is_some_and(|protocol| !is_connect || !is_token(protocol)) {
        return Err(OpenError::Invalid("a protocol without CONNECT"));
    }
    if request.scheme.is_empty() || !is_visible(request.scheme) || !is_visible(request.authority) {
        return Err(OpenError::Invalid("a space or control character in the host of a request"));
    }
    let is_path = request.path.first() == Some(&b'/') || request.path == b"*";
    if !is_path || !is_visible(request.path) {
        return Err(OpenError::Invalid(
            "a space or control character in the URI of a request to an upstream",
        ));
    }
    Ok(())
}

fn encode(core: &mut Core, request: &NewRequest<'_>, is_tunnel: bool, out: &mut Vec<u8>) {
    let encoder = &mut core.encoder;
    let mut pseudo = |name: &[u8], value: &[u8]| {
        encoder.lower_case_field(name, value, Indexing::Repeated, out);
    };
    pseudo(b":method", request.method);
    if !is_tunnel || request.protocol.is_some() {
        pseudo(b":scheme", request.scheme);
        pseudo(b":path", request.path);
    }
    if !request.authority.is_empty() {
        pseudo(b":authority", request.authority);
    }
    if let Some(protocol) = request.protocol {
        pseudo(b":protocol", protocol);
    }
    if let RequestFraming::Length(length) = request.framing
        && !is_tunnel
    {
        pseudo(b"content-length", itoa::Buffer::new().format(length).as_bytes());
    }
    for (field, name, value) in request.fields.iter() {
        if !matches!(field.id, FieldName::Host | FieldName::ContentLength) {
            encode_line(encoder, field.id, name, value, out);
        }
    }
}
