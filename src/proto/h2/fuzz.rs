//! Laws of these machines, for property tests and fuzz targets. Each panics where its law is broken.

use std::collections::{HashMap, HashSet};

use crate::message::{Fields, RequestFraming, RequestHead, ResponseFraming, ResponseHead, Status};
use crate::proto::h1::{HeadLimits, RespondOptions};

use super::frame::{DEFAULT_MAX_FRAME_SIZE, HEADER_LENGTH};
use super::hpack::{Budget, Decoded, Decoder, Encoder, Indexing};
use super::{
    Client, ClientEvent, Config, ErrorCode, Frame, FrameHeader, Limit, NewRequest, PREFACE, Priority, Server,
    ServerEvent, StreamKey, is_preface,
};

/// Frames that are no error read as they were written, and the rest is refused without a panic. Every frame is a header and
/// as many bytes as it says; also of output, which is nothing but frames.
pub fn fuzz_frames(bytes: &[u8]) {
    let mut rest = bytes;
    while let Some((header, payload)) = next_frame(&mut rest) {
        if header.check(DEFAULT_MAX_FRAME_SIZE).is_err() {
            continue;
        }
        let Ok(frame) = Frame::parse(&header, payload) else { continue };
        if matches!(frame, Frame::PushPromise { .. } | Frame::Unknown) {
            continue;
        }
        let mut written = Vec::new();
        frame.write(&mut written);
        assert!(written.len() <= HEADER_LENGTH + payload.len());
        let mut again = &written[..];
        let (header, payload) = next_frame(&mut again).expect("a whole frame");
        assert!(again.is_empty());
        assert_eq!(header.check(DEFAULT_MAX_FRAME_SIZE), Ok(()));
        assert_eq!(Frame::parse(&header, payload), Ok(frame));
    }
}

fn next_frame<'a>(rest: &mut &'a [u8]) -> Option<(FrameHeader, &'a [u8])> {
    let (header, behind) = rest.split_first_chunk::<HEADER_LENGTH>()?;
    let header = FrameHeader::parse(header);
    let (payload, behind) = behind.split_at_checked(header.length as usize)?;
    *rest = behind;
    Some((header, payload))
}

type Lines = Vec<(Vec<u8>, Vec<u8>)>;

/// A block's lines and whether some were too large; `None` if it is broken.
fn decode(decoder: &mut Decoder, mut block: &[u8], mut budget: Budget) -> Option<(Lines, bool)> {
    let mut fields = Fields::default();
    let (mut lines, mut is_first, mut is_too_large) = (Vec::new(), true, false);
    let most = block.len() * 2 + budget.list;
    loop {
        let next = decoder.next(&mut block, is_first, &mut fields, &mut budget);
        assert!(next.as_ref().err().is_none_or(|error| !error.to_string().is_empty()));
        match next.ok()? {
            Decoded::Field { name, value } => {
                assert!(!is_too_large, "nothing fits behind what did not");
                lines.push((fields.get(name).to_vec(), fields.get(value).to_vec()));
            }
            Decoded::TooLarge => is_too_large = true,
            Decoded::End => break,
        }
        is_first = false;
        assert!(fields.text().len() <= most, "more text than the budget and the block allow");
    }
    Some((lines, is_too_large))
}

/// Blocks (each with its length in one byte in front) never panic nor take memory beyond their bounds; a smaller budget
/// keeps the beginning of what a larger one keeps and leaves the same table; what was decoded encodes to blocks that
/// decode to it.
pub fn fuzz_hpack(bytes: &[u8]) {
    const AMPLE: Budget = Budget { list: 1 << 20, string: 1 << 20, count: 10_000 };
    const SMALL: Budget = Budget { list: 200, string: 60, count: 4 };
    let (mut ample, mut small) = (Decoder::new(4096), Decoder::new(4096));
    let (mut encoder, mut again) = (Encoder::default(), Decoder::new(4096));
    let mut rest = bytes;
    while let Some((&length, behind)) = rest.split_first() {
        let (block, behind) = behind.split_at(behind.len().min(usize::from(length)));
        rest = behind;
        let whole = decode(&mut ample, block, AMPLE);
        let part = decode(&mut small, block, SMALL);
        assert_eq!(whole.is_some(), part.is_some());
        let (Some((lines, false)), Some((beginning, is_cut))) = (whole, part) else { return };
        assert!(lines.starts_with(&beginning));
        assert_eq!(is_cut, beginning.len() < lines.len());
        assert_eq!(ample.table().size(), small.table().size());
        assert!(ample.table().size() <= ample.table().max_size() && ample.table().max_size() <= 4096);
        assert!(ample.table().capacity() <= 64 << 10);
        let mut encoded = Vec::new();
        if length % 5 == 0 {
            encoder.set_max_table_size(u32::from(length) * 20);
        }
        encoder.begin(&mut encoded);
        for (name, value) in &lines {
            let indexing = if length % 2 == 0 { Indexing::Repeated } else { Indexing::Never };
            encoder.lower_case_field(name, value, indexing, &mut encoded);
        }
        assert_eq!(decode(&mut again, &encoded, AMPLE), Some((lines, false)));
        assert_eq!(again.table().size(), encoder.table().size());
    }
}

/// Limits that are reached within a few hundred bytes.
pub const SMALL_LIMITS: HeadLimits = HeadLimits {
    header_buffer: 48,
    large_buffers: 2,
    large_buffer_size: 256,
    max_headers: 6,
    ignore_invalid_headers: true,
    underscores_in_headers: false,
    allow_connect: true,
};

pub(super) const SMALL_CONFIG: Config = Config {
    max_concurrent_streams: 5,
    stream_window: 3000,
    connection_window: 70_000,
    max_frame_size: DEFAULT_MAX_FRAME_SIZE,
    allow_tunnels: true,
    window_timeout_ms: 1000,
    standing_ms: 100,
    settings_timeout_ms: 5000,
    block_bytes: 2000,
    header_list_bytes: 1000,
};

pub(super) fn options(upgrade: bool) -> RespondOptions<'static> {
    RespondOptions {
        date: b"Sun, 06 Nov 1994 08:49:37 GMT",
        keep_alive_allowed: true,
        keep_alive_header: None,
        chunked_allowed: true,
        trailers_expected: false,
        upgrade,
    }
}

/// A client's first bytes: the preface and empty SETTINGS.
pub(super) fn hello() -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    Frame::Settings(b"").write(&mut bytes);
    bytes
}

pub(super) fn describe(head: &RequestHead) -> String {
    let lines: Vec<String> = head
        .fields
        .iter()
        .map(|(_, name, value)| format!("{}={}", name.escape_ascii(), value.escape_ascii()))
        .collect();
    format!(
        "{} host {}:{:?} {:?} [{}] ignored {}",
        head.text(head.request_line).escape_ascii(),
        head.text(head.host).escape_ascii(),
        head.host_port,
        head.framing,
        lines.join(","),
        head.ignored_lines,
    )
}

/// Everything that reading `bytes` in pieces of `step` led to, as text; every third request is answered at once.
pub(super) fn transcript(bytes: &[u8], step: usize) -> Vec<String> {
    let mut server = Server::new(SMALL_CONFIG);
    let mut head = RequestHead::default();
    let mut out = Vec::new();
    let mut events: Vec<String> = Vec::new();
    let mut bodies: HashMap<u32, Vec<u8>> = HashMap::new();
    server.start(0, &mut out);
    for piece in bytes.chunks(step.max(1)) {
        let mut input = piece;
        loop {
            match server.read(&mut input, 0, &SMALL_LIMITS, &mut head, &mut out) {
                Ok(ServerEvent::NeedMore) => break assert!(input.is_empty(), "NeedMore with input left"),
                Ok(ServerEvent::Head { stream, is_tunnel }) => {
                    events.push(format!("{} head {is_tunnel} {}", stream.id(), describe(&head)));
                    if stream.id() % 3 == 0 {
                        let mut response = ResponseHead { status: Status::OK, ..ResponseHead::default() };
                        response.set_content_length(2);
                        let framing = server.respond(stream, &response, &options(is_tunnel), &mut out);
                        if framing != Some(ResponseFraming::None) {
                            server.send_data(stream, b"ok", true, &mut out);
                        }
                    }
                }
                Ok(ServerEvent::Refused { stream, error }) => {
                    events.push(format!(
                        "{} refused {} {}",
                        stream.id(),
                        error.status.0,
                        error.message.escape_ascii()
                    ));
                }
                Ok(ServerEvent::Data { stream, data }) => {
                    assert!(!data.is_empty());
                    bodies.entry(stream.id()).or_default().extend_from_slice(data);
                }
                Ok(ServerEvent::End { stream, has_trailers }) => {
                    let body = bodies.remove(&stream.id()).unwrap_or_default();
                    events.push(format!("{} end {has_trailers} {}", stream.id(), body.escape_ascii()));
                }
                Ok(ServerEvent::Lost { stream, loss }) => {
                    // How much of the body came before is a matter of cuts only where its frame broke the rule.
                    bodies.remove(&stream.id());
                    events.push(format!("{} lost {loss:?}", stream.id()));
                }
                Ok(ServerEvent::Rejected { id, reason }) => events.push(format!("{id} rejected {reason}")),
                Ok(ServerEvent::Closed) => {
                    events.push(format!("{:?}", frames_of(&out)));
                    return events;
                }
                Err(error) => events.push(format!("error {error}")),
            }
        }
    }
    events.push(format!("amid a frame {}", server.is_amid_frame()));
    let noted = Limit::ALL.iter().zip(server.limit_counts()).filter(|(_, count)| **count > 0);
    events.push(format!("noted {:?}", noted.map(|(limit, _)| limit.name()).collect::<Vec<_>>()));
    let mut left: Vec<_> = bodies.into_iter().collect();
    left.sort();
    events.push(format!("open {left:?}"));
    // What was answered must not depend on cuts either, and is nothing but frames.
    events.push(format!("{:?}", frames_of(&out)));
    events
}

/// Whole frames as text.
pub(super) fn frames_of(out: &[u8]) -> Vec<String> {
    let mut frames = Vec::new();
    let mut rest = out;
    while let Some((header, payload)) = next_frame(&mut rest) {
        assert_eq!(header.check(DEFAULT_MAX_FRAME_SIZE), Ok(()), "{header:?}");
        assert!(Frame::parse(&header, payload).is_ok(), "{header:?}");
        frames.push(format!("{:?} {} {:x} {}", header.kind, header.stream, header.flags, header.length));
    }
    assert!(rest.is_empty(), "output ends within a frame");
    frames
}

/// Any cut of what a client sends behind its preface and SETTINGS yields the same events and the same answers.
pub fn fuzz_server_bytes(wire: &[u8], step: usize) {
    for preface in [true, false] {
        let mut bytes = if preface { hello() } else { Vec::new() };
        bytes.extend_from_slice(wire);
        assert!(!preface || is_preface(&bytes) == Some(true));
        assert!(is_preface(&bytes).is_some() || PREFACE.starts_with(&bytes));
        let whole = transcript(&bytes, bytes.len());
        assert_eq!(whole, transcript(&bytes, step));
        assert_eq!(whole, transcript(&bytes, 1));
    }
}

/// A server driven by a list of operations never panics, writes nothing but whole frames, yields nothing after the end,
/// never sends beyond its windows, and keeps to its bounds. Every operation is two bytes: what, and how much.
pub fn fuzz_server(operations: &[u8], wire: &[u8]) {
    let mut server = Server::new(SMALL_CONFIG);
    let mut head = RequestHead::default();
    let (mut out, mut now_ms) = (Vec::new(), 0);
    let mut streams: Vec<StreamKey> = Vec::new();
    let mut told = HashSet::new();
    let mut bytes = hello();
    bytes.extend_from_slice(wire);
    let mut rest = &bytes[..];
    let mut failed = false;
    server.start(0, &mut out);
    for operation in operations.chunks_exact(2) {
        let amount = usize::from(operation[1]);
        let stream = if streams.is_empty() { None } else { Some(streams[amount % streams.len()]) };
        match (operation[0] % 12, stream) {
            (0 | 1, _) => {
                let (mut input, behind) = rest.split_at(rest.len().min(amount * 4));
                rest = behind;
                loop {
                    match server.read(&mut input, now_ms, &SMALL_LIMITS, &mut head, &mut out) {
                        Ok(ServerEvent::NeedMore) => break assert!(input.is_empty() && !failed),
                        Ok(ServerEvent::Head { stream, .. } | ServerEvent::Refused { stream, .. }) => {
                            assert!(!failed && head.fields.len() < 20);
                            streams.push(stream);
                            assert!(told.insert(stream.id()), "told twice");
                        }
                        Ok(ServerEvent::Data { stream, data }) => {
                            assert!(!data.is_empty() && streams.contains(&stream));
                            if amount % 3 == 0 {
                                server.consumed(stream, data.len(), &mut out);
                            }
                        }
                        Ok(ServerEvent::End { stream, .. }) => assert!(streams.contains(&stream)),
                        Ok(ServerEvent::Lost { stream, .. }) => {
                            assert!(told.remove(&stream.id()), "lost twice, or what was never there");
                            streams.retain(|other| *other != stream);
                        }
                        Ok(ServerEvent::Rejected { .. }) => assert!(!failed),
                        Ok(ServerEvent::Closed) => break assert!(failed),
                        Err(_) => {
                            assert!(!failed, "one error a connection");
                            failed = true;
                        }
                    }
                }
            }
            (2, Some(stream)) => {
                let status = [Status::OK, Status::NO_CONTENT, Status(494), Status(101)][amount & 3];
                let mut response = ResponseHead { status, ..ResponseHead::default() };
                if amount & 4 != 0 {
                    response.set_content_length(amount as u64);
                }
                if amount & 16 != 0 {
                    fill(&mut response);
                }
                server.respond(stream, &response, &options(amount & 8 != 0), &mut out);
            }
            (3, Some(stream)) => {
                let room = server.room(stream);
                let sent = server.send_data(stream, &vec![b'x'; amount * 20], amount % 5 == 0, &mut out);
                assert!(sent <= room && sent <= amount * 20);
                assert!(room == 0 || server.room(stream) <= room - sent);
            }
            (4, Some(stream)) => server.set_has_data(stream, amount % 4 != 0),
            (5, _) => {
                if let Some((stream, room)) = server.next_turn() {
                    assert!(room > 0 && room <= server.room(stream));
                    let ends = amount % 3 == 0;
                    let frame = server.send_data_header(stream, room.min(amount + 1), ends, &mut out);
                    assert!(frame.length > 0 && (ends || !frame.has_ended));
                    out.resize(out.len() + frame.length, b'y');
                    if ends && !frame.has_ended {
                        server.send_data(stream, b"", true, &mut out);
                    }
                }
            }
            (6, Some(stream)) => {
                let mut fields = Fields::default();
                fields.push(b"X-Trailer", b"1");
                server.send_trailers(stream, &fields, &mut out);
                assert_eq!(server.room(stream), 0);
            }
            (7, Some(stream)) => {
                server.reset(stream, ErrorCode::INTERNAL_ERROR, &mut out);
                assert_eq!(server.room(stream), 0);
            }
            (8, Some(stream)) => server.interim(stream, Status(100 + amount as u16 % 4), None, &mut out),
            (9, _) => {
                now_ms += amount as u64 * 10;
                if server.deadline().is_some_and(|deadline| deadline <= now_ms) {
                    let result = server.on_deadline(now_ms, &mut out);
                    failed |= result.is_err();
                    assert!(server.deadline().is_none_or(|deadline| deadline > now_ms), "deadlines advance");
                }
            }
            (10, _) if amount == 0 => server.shut_down(now_ms, &mut out),
            (10, _) if amount == 1 => server.leave(&mut out),
            (11, Some(stream)) => {
                let urgency = Priority { urgency: operation[1] % 8, incremental: amount & 8 != 0 };
                server.set_priority(stream, urgency);
                assert!(server.priority(stream).is_none_or(|priority| priority == urgency));
                assert!(!server.waits_for_window(stream) || server.room(stream) == 0);
            }
            _ => {}
        }
        assert!(server.open_streams() <= SMALL_CONFIG.max_concurrent_streams as usize);
        assert!(!server.is_drained() || server.open_streams() == 0);
        streams.retain(|stream| server.is_open(*stream));
    }
    frames_of(&out);
}

/// Sets every field that a response has a slot for.
fn fill(response: &mut ResponseHead) {
    response.set_content_type(b"text/plain");
    response.set_etag(b"\"tag\"");
    response.set_location(b"/a\r\nb");
    response.server = Some(response.fields.store(b"law"));
    response.last_modified_text = Some(response.fields.store(b"Sun, 06 Nov 1994 08:49:37 GMT"));
    response.accept_ranges = true;
    response.fields.push(b"X-A", b" b\n ");
    response.fields.push(b"Connection", b"close");
}

/// One of the bodies that are on their way between the two.
#[derive(Debug)]
struct Transfer {
    client: StreamKey,
    server: Option<StreamKey>,
    request: Body,
    response: Body,
    has_request_end: bool,
    has_response_end: bool,
}

/// Bytes that can be told by their place, sent and received so far.
#[derive(Clone, Copy, Debug, Default)]
struct Body {
    seed: u8,
    length: usize,
    sent: usize,
    received: usize,
}

impl Body {
    fn piece(&self, most: usize) -> Vec<u8> {
        let end = self.length.min(self.sent + most);
        (self.sent..end).map(|at| self.byte(at)).collect()
    }

    fn byte(&self, at: usize) -> u8 {
        (at as u8).wrapping_mul(31) ^ (at >> 8) as u8 ^ self.seed
    }

    fn receive(&mut self, data: &[u8]) {
        for byte in data {
            assert_eq!(*byte, self.byte(self.received), "byte {} of {self:?}", self.received);
            self.received += 1;
        }
        assert!(self.received <= self.sent);
    }
}

/// A client and a server, wired back to back.
struct Pair {
    client: Client,
    server: Server,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    transfers: Vec<Transfer>,
    scale: usize,
    request_head: RequestHead,
    response_head: ResponseHead,
}

/// Whatever a client and a server are given to do and in whatever pieces their bytes travel: every body arrives intact and
/// ends, and neither finds fault with the other. Every operation is two bytes; `scale` makes the bodies larger.
pub fn fuzz_pair(operations: &[u8], scale: usize) {
    let small = Config { max_concurrent_streams: 20, ..SMALL_CONFIG };
    let first = operations.first().copied().unwrap_or(0);
    let config = if first % 2 == 0 { small } else { Config::default() };
    let mut pair = Pair {
        client: Client::new(config),
        server: Server::new(config),
        to_server: Vec::new(),
        to_client: Vec::new(),
        transfers: Vec::new(),
        scale,
        request_head: RequestHead::default(),
        response_head: ResponseHead::default(),
    };
    pair.client.start(0, &mut pair.to_server);
    pair.server.start(0, &mut pair.to_client);
    for operation in operations.chunks_exact(2) {
        let amount = usize::from(operation[1]);
        match operation[0] % 6 {
            0 => pair.request(amount),
            1 => pair.move_to_server(amount * 40),
            2 => pair.move_to_client(amount * 40),
            3 => pair.send_requests(amount * 100),
            4 => pair.send_responses(amount * 100),
            _ => {
                pair.move_to_server(1 + amount % 13);
                pair.move_to_client(1 + amount % 7);
            }
        }
    }
    pair.finish();
}

impl Pair {
    fn request(&mut self, amount: usize) {
        let length = if amount.is_multiple_of(3) { 0 } else { amount * amount * self.scale / 16 };
        let framing = match amount % 4 {
            0 => RequestFraming::Streamed,
            _ => RequestFraming::Length(length as u64),
        };
        let mut fields = Fields::default();
        let response = amount * self.scale * 16;
        fields.push(b"X-Amount", response.to_string().as_bytes());
        fields.push(b"Cookie", b"a=b");
        fields.push(b"User-Agent", b"law");
        let request = NewRequest {
            method: b"POST",
            scheme: b"http",
            authority: b"Example.com:81",
            path: b"/a?b",
            protocol: None,
            fields: &fields,
            framing,
        };
        let free = self.client.free_streams();
        let Ok(client) = self.client.request(&request, &mut self.to_server) else {
            return assert_eq!(free, 0);
        };
        let body = Body { seed: amount as u8, length, ..Body::default() };
        let is_whole = framing == RequestFraming::Length(0);
        if !is_whole {
            self.client.set_has_data(client, true);
        }
        self.transfers.push(Transfer {
            client,
            server: None,
            request: body,
            response: Body { seed: !body.seed, length: response, ..Body::default() },
            has_request_end: is_whole,
            has_response_end: false,
        });
    }

    fn by_client(&mut self, key: StreamKey) -> &mut Transfer {
        self.transfers.iter_mut().find(|transfer| transfer.client == key).expect("a stream of ours")
    }

    fn by_server(&mut self, key: StreamKey) -> &mut Transfer {
        let is_it = |transfer: &&mut Transfer| transfer.client.id() == key.id();
        self.transfers.iter_mut().find(is_it).expect("a stream of ours")
    }

    fn send_requests(&mut self, mut most: usize) {
        while most > 0
            && let Some((key, room)) = self.client.next_turn()
        {
            let transfer =
                self.transfers.iter_mut().find(|transfer| transfer.client == key).expect("a stream");
            let piece = transfer.request.piece(room.min(most));
            let ends = transfer.request.sent + piece.len() == transfer.request.length;
            let sent = self.client.send_data(key, &piece, ends, &mut self.to_server);
            assert_eq!(sent, piece.len());
            transfer.request.sent += sent;
            most -= sent.min(most);
        }
    }

    fn send_responses(&mut self, mut most: usize) {
        while most > 0
            && let Some((key, room)) = self.server.next_turn()
        {
            let transfer = self
                .transfers
                .iter_mut()
                .find(|transfer| transfer.server == Some(key))
                .expect("a stream that was answered");
            let piece = transfer.response.piece(room.min(most));
            let is_last = transfer.response.sent + piece.len() == transfer.response.length;
            let sent = self.server.send_data(key, &piece, is_last, &mut self.to_client);
            assert_eq!(sent, piece.len());
            transfer.response.sent += sent;
            most -= sent.min(most);
        }
    }

    fn move_to_server(&mut self, most: usize) {
        let bytes: Vec<u8> = self.to_server.drain(..most.min(self.to_server.len())).collect();
        let mut input = &bytes[..];
        let mut head = std::mem::take(&mut self.request_head);
        loop {
            let limits = HeadLimits::default();
            let event = self.server.read(&mut input, 0, &limits, &mut head, &mut self.to_client);
            match event.expect("nobody breaks a rule") {
                ServerEvent::NeedMore => break,
                ServerEvent::Head { stream, .. } => {
                    assert_eq!(head.text(head.host), b"example.com");
                    assert_eq!((head.host_port, head.target()), (Some(81), &b"/a?b"[..]));
                    let transfer = self.by_server(stream);
                    transfer.server = Some(stream);
                    let length = transfer.response.length.to_string();
                    assert!(head.fields.named(b"x-amount").eq([length.as_bytes()]));
                    if transfer.has_request_end {
                        self.answer(stream);
                    }
                }
                ServerEvent::Data { stream, data } => {
                    let length = data.len();
                    self.by_server(stream).request.receive(data);
                    self.server.consumed(stream, length, &mut self.to_client);
                }
                ServerEvent::End { stream, has_trailers } => {
                    assert!(!has_trailers);
                    let transfer = self.by_server(stream);
                    assert_eq!(transfer.request.received, transfer.request.length);
                    transfer.has_request_end = true;
                    self.answer(stream);
                }
                other => panic!("{other:?}"),
            }
        }
        self.request_head = head;
    }

    fn answer(&mut self, stream: StreamKey) {
        let length = self.by_server(stream).response.length;
        let mut head = ResponseHead { status: Status::OK, ..ResponseHead::default() };
        head.set_content_type(b"text/plain");
        head.fields.push(b"Set-Cookie", b"a=b");
        if length.is_multiple_of(2) {
            head.set_content_length(length as u64);
        }
        let framing = self.server.respond(stream, &head, &options(false), &mut self.to_client);
        if framing != Some(ResponseFraming::None) {
            self.server.set_has_data(stream, true);
        }
    }

    fn move_to_client(&mut self, most: usize) {
        let bytes: Vec<u8> = self.to_client.drain(..most.min(self.to_client.len())).collect();
        let mut input = &bytes[..];
        let mut head = std::mem::take(&mut self.response_head);
        loop {
            let event = self.client.read(&mut input, 0, 4096, &mut head, &mut self.to_server);
            match event.expect("nobody breaks a rule") {
                ClientEvent::NeedMore => break,
                ClientEvent::Head { stream, .. } => {
                    assert_eq!(head.status, Status::OK);
                    assert!(!self.by_client(stream).has_response_end);
                }
                ClientEvent::Data { stream, data } => {
                    let length = data.len();
                    self.by_client(stream).response.receive(data);
                    self.client.consumed(stream, length, &mut self.to_server);
                }
                ClientEvent::End { stream, .. } => {
                    let transfer = self.by_client(stream);
                    assert_eq!(transfer.response.received, transfer.response.length);
                    transfer.has_response_end = true;
                }
                other => panic!("{other:?}"),
            }
        }
        self.response_head = head;
    }

    fn finish(&mut self) {
        // Every round moves everything: what is bounded by windows takes a few.
        for _ in 0..10_000 {
            self.send_requests(usize::MAX);
            self.move_to_server(usize::MAX);
            self.send_responses(usize::MAX);
            self.move_to_client(usize::MAX);
            if self.transfers.iter().all(|transfer| transfer.has_response_end) {
                break;
            }
        }
        for transfer in &self.transfers {
            assert!(transfer.has_request_end && transfer.has_response_end, "{transfer:?}");
        }
        assert_eq!((self.client.open_streams(), self.server.open_streams()), (0, 0));
    }
}
