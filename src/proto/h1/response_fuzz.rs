//! Laws of the side towards upstreams, for property tests and fuzz targets. Each panics where its law is broken.

use crate::message::{
    FieldName, Fields, RequestFraming, RequestHead, ResponseFraming, ResponseHead, Status, Version,
};

use super::chunked::is_token;
use super::{
    Asked, CHUNK_SUFFIX, ChunkLimits, Connection, Event, HeadLimits, RequestWriteError, RequestWriter,
    RespondOptions, ResponseError, ResponseEvent, ResponseFault, ResponseLimits, ResponseReader,
    chunk_prefix, encode, finish,
};

/// Limits that are reached within a few hundred bytes; for heads of at most [`SMALL_HEAD`] bytes.
pub const SMALL_RESPONSE_LIMITS: ResponseLimits =
    ResponseLimits { interim_responses: 2, chunks: ChunkLimits { extension_bytes: 12, trailer_bytes: 24 } };
/// A limit of heads to go with them.
pub const SMALL_HEAD: usize = 96;

/// How a body is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Read,
    /// Past the machine where it may.
    Splice,
}

/// One response after another, as text.
struct Transcript {
    reader: ResponseReader,
    asked: Asked,
    head: ResponseHead,
    way: Way,
    events: Vec<String>,
    body: Vec<u8>,
}

impl Transcript {
    /// Everything that reading `wire` in pieces of `step` led to.
    fn of(wire: &[u8], step: usize, asked: Asked, limits: ResponseLimits, way: Way) -> Transcript {
        let mut transcript = Transcript {
            reader: ResponseReader::new(limits),
            asked,
            head: ResponseHead::default(),
            way,
            events: Vec::new(),
            body: Vec::new(),
        };
        assert!(transcript.reader.is_reusable());
        transcript.reader.begin(asked);
        for mut piece in wire.chunks(step.max(1)) {
            let goes_on = transcript.feed(&mut piece);
            let bound = limits.chunks.trailer_bytes as usize + asked.head_bytes + 4096;
            assert!(transcript.reader.memory() <= 2 * bound, "{} bytes", transcript.reader.memory());
            if !goes_on {
                return transcript;
            }
        }
        let body = std::mem::take(&mut transcript.body);
        let end = match transcript.reader.end_of_input() {
            Ok(()) => "complete".to_owned(),
            Err(error) => describe_error(&error),
        };
        transcript.events.push(format!("{}, {end}", body.escape_ascii()));
        assert!(!transcript.reader.is_reusable());
        transcript
    }

    /// Reads until more input is needed; whether it goes on then.
    fn feed(&mut self, input: &mut &[u8]) -> bool {
        loop {
            if self.way == Way::Splice
                && let Some(rest) = self.reader.body_left()
            {
                let (past, later) =
                    input.split_at(usize::try_from(rest).unwrap_or(input.len()).min(input.len()));
                self.reader.skip(past.len() as u64);
                self.body.extend_from_slice(past);
                *input = later;
            }
            let before = *input;
            let result = self.reader.read(input, &mut self.head);
            assert!(before.ends_with(input));
            match result {
                Ok(ResponseEvent::NeedMore) => {
                    assert!(input.is_empty(), "NeedMore with input left");
                    return true;
                }
                Ok(ResponseEvent::Interim) => {
                    check_head(&self.head, self.asked.head_bytes);
                    assert!(self.head.status.0 < 200 && self.head.status.0 != 101);
                    self.events.push(format!("interim {}", describe(&self.head)));
                }
                Ok(ResponseEvent::Head(facts)) => {
                    check_head(&self.head, self.asked.head_bytes);
                    check_framing(&self.head, facts.framing, facts.switched);
                    self.events.push(format!("head {} {facts:?}", describe(&self.head)));
                }
                Ok(ResponseEvent::Body(data)) => {
                    assert!(
                        !data.is_empty() && before.as_ptr_range().contains(&data.as_ptr()),
                        "not the input's"
                    );
                    self.body.extend_from_slice(data);
                }
                Ok(ResponseEvent::Trailers) => {
                    let mut trailers = Fields::default();
                    self.reader.trailers(&mut trailers);
                    assert!(!trailers.is_empty());
                    self.events.push(format!("trailers {}", describe_fields(&trailers)));
                }
                Ok(ResponseEvent::End) => self.next_response(input),
                Err(error) => {
                    let left = input.len();
                    let again =
                        self.reader.read(input, &mut self.head).expect_err("nothing follows an error");
                    assert!(again.fault == error.fault && again.what == error.what && input.len() == left);
                    assert!(self.reader.end_of_input().is_err() && !self.reader.is_reusable());
                    self.events.push(format!("{}, {}", self.body.escape_ascii(), describe_error(&error)));
                    return false;
                }
            }
        }
    }

    fn next_response(&mut self, mut rest: &[u8]) {
        let left = rest.len();
        assert_eq!(self.reader.has_excess(), left > 0);
        assert!(left == 0 || !self.reader.is_reusable());
        assert_eq!(self.reader.read(&mut rest, &mut self.head), Ok(ResponseEvent::End));
        assert_eq!(rest.len(), left, "taken behind the end");
        self.events.push(format!("{}, end", self.body.escape_ascii()));
        self.body.clear();
        self.reader.begin(self.asked);
    }
}

fn check_head(head: &ResponseHead, limit: usize) {
    assert!((100..=599).contains(&head.status.0));
    let raw: usize = head.fields.iter().map(|(_, name, value)| name.len() + value.len()).sum();
    assert!(raw <= limit);
    let is_clean = |text: &[u8]| !text.iter().any(|&byte| (byte < b' ' && byte != b'\t') || byte == 0x7f);
    assert!(is_clean(head.text(head.reason.expect("a reason"))));
    for (field, name, value) in head.fields.iter() {
        assert!(!name.is_empty() && name.iter().all(|&byte| is_token(byte)));
        assert!(is_clean(value) && !matches!(value, [b' ' | b'\t', ..] | [.., b' ' | b'\t']));
        assert_eq!(field.id, FieldName::of(name));
    }
    assert!(head.server.is_none() && head.content_type.is_none() && head.etag.is_none());
}

/// RFC 9112 section 6.3, said once more.
fn check_framing(head: &ResponseHead, framing: ResponseFraming, switched: bool) {
    let lengths = head.fields.all(FieldName::ContentLength).count();
    let codings = head.fields.all(FieldName::TransferEncoding).count();
    assert!(switched || lengths + codings <= 1, "a doubtful framing");
    assert!(head.status.0 != 101 || switched);
    match framing {
        ResponseFraming::None => assert!(head.content_length.is_none() || lengths == 1),
        ResponseFraming::Length(length) => assert!(head.content_length == Some(length) && lengths == 1),
        ResponseFraming::Streamed => assert!(codings == 1 && head.content_length.is_none()),
        ResponseFraming::UntilClose => assert!(switched || lengths + codings == 0),
    }
}

fn describe_fields(fields: &Fields) -> String {
    let line =
        |(_, name, value): (_, &[u8], &[u8])| format!("{}={}", name.escape_ascii(), value.escape_ascii());
    fields.iter().map(line).collect::<Vec<_>>().join(",")
}

fn describe(head: &ResponseHead) -> String {
    let reason = head.reason.map_or(&b"none"[..], |span| head.text(span));
    let fields = describe_fields(&head.fields);
    format!("{} {} {:?} [{fields}]", head.status.0, reason.escape_ascii(), head.content_length)
}

fn describe_error(error: &ResponseError) -> String {
    assert!(error.to_string().starts_with(error.what));
    format!("{} {}", error.token(), error.what)
}

/// Any cut of the input yields the same events, bodies that pass by another way included; what follows a response
/// changes nothing about it; memory is bounded; a head that is let through keeps the rules.
pub fn fuzz_responses(wire: &[u8], step: usize, asked: Asked, limits: ResponseLimits) {
    let whole = Transcript::of(wire, wire.len(), asked, limits, Way::Read).events;
    assert_eq!(whole, Transcript::of(wire, step, asked, limits, Way::Read).events);
    assert_eq!(whole, Transcript::of(wire, 1, asked, limits, Way::Read).events);
    assert_eq!(whole, Transcript::of(wire, wire.len(), asked, limits, Way::Splice).events);
    assert_eq!(whole, Transcript::of(wire, step, asked, limits, Way::Splice).events);
}

/// A response that the encoder is to write.
#[derive(Clone, Debug)]
pub struct Written<'a> {
    /// 200 to 599.
    pub status: u16,
    /// Names and values; those that the wire can't carry, or that mean something to it, are left out.
    pub lines: &'a [(&'a [u8], &'a [u8])],
    /// The body.
    pub pieces: &'a [&'a [u8]],
    /// Whether the length is told beforehand.
    pub tells_length: bool,
    /// Whether the request was for HTTP/1.1.
    pub http11: bool,
    /// Whether the request was a HEAD.
    pub head: bool,
}

impl Written<'_> {
    fn has_line(name: &[u8], value: &[u8]) -> bool {
        use FieldName::{Connection, ContentLength, Date, KeepAlive, TransferEncoding};
        let taken = [Connection, ContentLength, Date, KeepAlive, TransferEncoding];
        !name.is_empty()
            && name.iter().all(|&byte| is_token(byte))
            && !value.iter().any(|&byte| (byte < b' ' && byte != b'\t') || byte == 0x7f)
            && !taken.contains(&FieldName::of(name))
    }

    /// The bytes, and how they frame the body.
    fn encode(&self) -> (Vec<u8>, ResponseFraming) {
        let mut head = ResponseHead { status: Status(self.status), ..ResponseHead::default() };
        for (name, value) in self.lines.iter().filter(|(name, value)| Written::has_line(name, value)) {
            head.fields.push(name, value);
        }
        let body = self.pieces.concat();
        if self.tells_length {
            head.set_content_length(body.len() as u64);
        }
        let options = RespondOptions {
            date: b"Sun, 06 Nov 1994 08:49:37 GMT",
            keep_alive_allowed: true,
            keep_alive_header: Some(7),
            chunked_allowed: true,
            trailers_expected: false,
            upgrade: false,
        };
        let version = if self.http11 { Version::Http11 } else { Version::Http10 };
        let framing = encode::response_framing(version, self.head, &head, &options);
        let mut out = Vec::new();
        encode::interim(Status::CONTINUE, &mut out);
        encode::response_head(&head, framing, framing != ResponseFraming::UntilClose, &options, &mut out);
        match framing {
            ResponseFraming::None => {}
            ResponseFraming::Length(_) | ResponseFraming::UntilClose => out.extend_from_slice(&body),
            ResponseFraming::Streamed => {
                for piece in self.pieces.iter().filter(|piece| !piece.is_empty()) {
                    chunk_prefix(piece.len() as u64, &mut out);
                    out.extend_from_slice(piece);
                    out.extend_from_slice(CHUNK_SUFFIX);
                }
                finish(Some(&head.fields), &mut out);
            }
        }
        (out, framing)
    }
}

/// What the encoder of responses writes is read back the same, to its end and not beyond.
pub fn fuzz_response_identity(written: &Written<'_>) {
    let (wire, framing) = written.encode();
    let mut reader = ResponseReader::new(ResponseLimits {
        chunks: ChunkLimits { extension_bytes: 0, trailer_bytes: u32::MAX },
        ..ResponseLimits::default()
    });
    reader.begin(Asked { head: written.head, upgrade: false, connect: false, head_bytes: wire.len() });
    let mut head = ResponseHead::default();
    let mut trailers = Fields::default();
    let mut body = Vec::new();
    let mut input = &wire[..];
    assert_eq!(reader.read(&mut input, &mut head), Ok(ResponseEvent::Interim));
    let ResponseEvent::Head(facts) = reader.read(&mut input, &mut head).expect("our own encoding") else {
        panic!("a head")
    };
    loop {
        match reader.read(&mut input, &mut head).expect("our own encoding") {
            ResponseEvent::Body(data) => body.extend_from_slice(data),
            ResponseEvent::Trailers => reader.trailers(&mut trailers),
            ResponseEvent::End => break,
            ResponseEvent::NeedMore if framing == ResponseFraming::UntilClose => {
                break assert!(reader.end_of_input().is_ok());
            }
            event => panic!("{event:?}"),
        }
    }
    let lines = || {
        let lines = written.lines.iter().filter(|(name, value)| Written::has_line(name, value));
        lines.map(|(name, value)| (*name, value.trim_ascii()))
    };
    let status = if matches!(written.status, 494..=497) { 400 } else { written.status };
    assert_eq!((head.status.0, facts.framing, input), (status, framing, &b""[..]));
    assert_eq!(reader.is_reusable(), framing != ResponseFraming::UntilClose);
    if framing != ResponseFraming::None {
        assert_eq!(body, written.pieces.concat());
    }
    if facts.persistent {
        assert_eq!(facts.keep_alive_timeout_secs, Some(7));
    }
    // The encoder's own lines come first.
    let read = head.fields.iter().filter(|(_, name, value)| Written::has_line(name, value));
    assert!(read.map(|(_, name, value)| (name, value)).eq(lines()));
    if framing == ResponseFraming::Streamed {
        assert!(trailers.iter().map(|(_, name, value)| (name, value)).eq(lines()));
    }
}

/// What follows a complete response changes nothing about it.
pub fn fuzz_response_end(wire: &[u8], asked: Asked, limits: ResponseLimits) {
    let Some(length) = response_length(wire, asked, limits) else { return };
    assert_eq!(response_length(&wire[..length], asked, limits), Some(length));
    let longer = [&wire[..length], b"\0HTTP/1.1 200 OK\r\n\r\n"].concat();
    assert_eq!(response_length(&longer, asked, limits), Some(length));
}

/// Where the first response ends, if it does so in `wire`.
fn response_length(wire: &[u8], asked: Asked, limits: ResponseLimits) -> Option<usize> {
    let mut reader = ResponseReader::new(limits);
    reader.begin(asked);
    let mut head = ResponseHead::default();
    let mut input = wire;
    loop {
        match reader.read(&mut input, &mut head) {
            Ok(ResponseEvent::End) => {
                reader.release_memory();
                return Some(wire.len() - input.len());
            }
            Ok(ResponseEvent::NeedMore) => {
                let has_begun = !wire.is_empty();
                assert_eq!(reader.has_begun(), has_begun);
                let end = reader.reset();
                let nothing_came = end.is_err_and(|error| error.fault == ResponseFault::NothingCame);
                assert_eq!(nothing_came, !has_begun);
                return None;
            }
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

/// What the writer lets through is one request, with these parts and no other; what it refuses leaves no trace.
pub fn fuzz_request_writer(
    method: &[u8],
    target: &[u8],
    lines: &[(&[u8], &[u8])],
    version: Version,
    framing: RequestFraming,
) {
    let mut out = b"before".to_vec();
    let written = (|| -> Result<usize, RequestWriteError> {
        let mut writer = RequestWriter::begin(&mut out, method, target, version)?;
        let mut count = 0;
        for (name, value) in lines {
            count += usize::from(writer.field(name, value).is_ok());
        }
        writer.framing(framing)?;
        writer.finish();
        Ok(count)
    })();
    let count = match written {
        Ok(count) => count,
        Err(error) => return assert!(out == b"before" && !error.to_string().is_empty()),
    };
    let wire = &out[6..];
    let text: Vec<&[u8]> = wire.split(|&byte| byte == b'\n').collect();
    assert_eq!(text.len(), count + 3 + usize::from(framing != RequestFraming::None), "one line each");
    assert_eq!(memchr::memmem::find(wire, b"\r\n\r\n"), Some(wire.len() - 4));
    assert!(text[0].starts_with(&[method, b" ", target, b" HTTP/1."].concat()));
    // Our own server reads what its stricter rules allow the same way.
    let limits = HeadLimits {
        header_buffer: 1 << 20,
        max_headers: u32::MAX,
        ignore_invalid_headers: false,
        ..HeadLimits::default()
    };
    let mut head = RequestHead::default();
    let mut input = wire;
    if let Ok(event) = Connection::new().read(&mut input, &limits, &mut head) {
        assert_eq!((event, input), (Event::Head, &b""[..]));
        assert_eq!(head.text(head.method_text), method);
        let expected = if framing == RequestFraming::Length(0) { RequestFraming::None } else { framing };
        assert_eq!(head.framing, expected);
    }
}
