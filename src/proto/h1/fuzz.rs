//! Laws of this machine, for property tests and fuzz targets. Each panics where its law is broken.

use crate::message::{
    FieldName, RequestFraming, RequestHead, ResponseFraming, ResponseHead, Status, Version,
};

use super::{
    After, CHUNK_SUFFIX, ChunkedDecoder, ChunkedItem, Connection, Event, HOLD_LIMIT, HeadLimits,
    RespondOptions, chunk_prefix, finish,
};

/// Limits that are reached within a few hundred bytes.
pub const SMALL_LIMITS: HeadLimits = HeadLimits {
    header_buffer: 48,
    large_buffers: 2,
    large_buffer_size: 96,
    max_headers: 6,
    ignore_invalid_headers: true,
    underscores_in_headers: false,
    allow_connect: false,
};

/// Everything that reading `bytes` in pieces of `step` led to, as text.
fn transcript(bytes: &[u8], step: usize, limits: &HeadLimits) -> Vec<String> {
    let mut connection = Connection::new();
    let mut head = RequestHead::default();
    let mut events: Vec<String> = Vec::new();
    let mut body = Vec::new();
    let mut waiting: Vec<u8> = Vec::new();
    for piece in bytes.chunks(step.max(1)) {
        waiting.extend_from_slice(piece);
        let mut input = &waiting[..];
        loop {
            let before = input.len();
            let result = connection.read(&mut input, limits, &mut head);
            assert!(input.len() <= before);
            match result {
                Ok(Event::NeedMore) => break assert!(input.is_empty(), "NeedMore with input left"),
                Ok(Event::Head) => events.push(describe(&head)),
                Ok(Event::Body(data)) => {
                    assert!(!data.is_empty());
                    body.extend_from_slice(data);
                }
                Ok(Event::BodyEnd) => events.push(format!("body {}", body.escape_ascii())),
                Ok(Event::Paused) => {
                    if events.last().is_some_and(|last| last.starts_with("error")) {
                        // Nothing follows an error.
                        assert_eq!(input.len(), before);
                        return events;
                    }
                    body.clear();
                    answer(&mut connection);
                    if connection.after_response() != After::KeepAlive {
                        events.push("close".into());
                        return events;
                    }
                    connection.next_request();
                }
                Err(error) => {
                    // Of a bad method, how much of the line is kept depends on the cuts.
                    let kept = if *error.message == *b"client sent invalid method" {
                        &b""[..]
                    } else {
                        head.text(head.request_line)
                    };
                    let line = kept.escape_ascii();
                    let message = error.message.escape_ascii();
                    // A line that is too long is quoted as far as it came.
                    let message = if error.status == Status::HEAD_TOO_LARGE {
                        String::new()
                    } else {
                        message.to_string()
                    };
                    events.push(format!("error {} {message} {}: {line}", error.status.0, error.phase));
                }
            }
        }
        waiting = input.to_vec();
    }
    events.push(format!("open, {}", body.escape_ascii()));
    events
}

fn answer(connection: &mut Connection) -> ResponseFraming {
    let mut response = ResponseHead { status: Status::OK, ..ResponseHead::default() };
    response.set_content_length(2);
    connection.respond(&response, &options(), &mut Vec::new())
}

fn options() -> RespondOptions<'static> {
    RespondOptions {
        date: b"Sun, 06 Nov 1994 08:49:37 GMT",
        keep_alive_allowed: true,
        keep_alive_header: None,
        chunked_allowed: true,
        trailers_expected: false,
        upgrade: false,
    }
}

fn describe(head: &RequestHead) -> String {
    let lines: Vec<String> = head
        .fields
        .iter()
        .map(|(_, name, value)| format!("{}={}", name.escape_ascii(), value.escape_ascii()))
        .collect();
    format!(
        "head {} {} target {} authority {} host {}:{:?} {:?} {} {} [{}] ignored {} {}",
        head.version.as_str(),
        head.text(head.request_line).escape_ascii(),
        head.target().escape_ascii(),
        head.text(head.authority).escape_ascii(),
        head.text(head.host).escape_ascii(),
        head.host_port,
        head.framing,
        head.expects_continue,
        head.wire_length,
        lines.join(","),
        head.ignored_lines,
        head.text(head.ignored_line).escape_ascii(),
    )
}

/// Any cut of the input yields the same events, and a head that is let through keeps the rules.
pub fn fuzz_request_head(bytes: &[u8], step: usize) {
    for limits in [SMALL_LIMITS, HeadLimits { ignore_invalid_headers: false, ..HeadLimits::default() }] {
        let whole = transcript(bytes, bytes.len(), &limits);
        assert_eq!(whole, transcript(bytes, step, &limits));
        assert_eq!(whole, transcript(bytes, 1, &limits));
    }
    let mut head = RequestHead::default();
    let mut input = bytes;
    if let Ok(Event::Head) = Connection::new().read(&mut input, &SMALL_LIMITS, &mut head) {
        assert!(head.target().starts_with(b"/"));
        assert!(head.fields.len() <= SMALL_LIMITS.max_headers as usize);
        assert!(head.version != Version::Http11 || head.has(FieldName::Host));
        assert!(head.framing != RequestFraming::Streamed || !head.has(FieldName::ContentLength));
        for (_, name, value) in head.fields.iter() {
            assert!(!name.is_empty() && !name.contains(&b':'));
            assert!(!value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')));
        }
    }
}

/// Any cut of a chunked body yields the same content and end; nothing follows an error; what is taken is bounded by what
/// is yielded.
pub fn fuzz_chunked(bytes: &[u8], step: usize) {
    let run = |step: usize| {
        let mut decoder = ChunkedDecoder::default();
        let (mut content, mut trailers, mut taken) = (Vec::new(), Vec::new(), 0);
        for piece in bytes.chunks(step.max(1)) {
            let mut input = piece;
            loop {
                match decoder.read(&mut input, Some(&mut trailers)) {
                    Ok(ChunkedItem::NeedMore) => break,
                    Ok(ChunkedItem::Data(data)) => {
                        assert!(!data.is_empty());
                        content.extend_from_slice(data);
                    }
                    Ok(ChunkedItem::End) => {
                        taken += piece.len() - input.len();
                        return (content, trailers, Ok(Some(taken)));
                    }
                    Err(error) => {
                        assert!(decoder.read(&mut input, None).is_err());
                        return (content, trailers, Err(error));
                    }
                }
            }
            taken += piece.len();
        }
        (content, trailers, Ok(None))
    };
    assert_eq!(run(bytes.len()), run(step));
}

/// What was encoded decodes to itself, and its end is found.
pub fn fuzz_chunked_identity(pieces: &[&[u8]]) {
    let mut wire = Vec::new();
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        chunk_prefix(piece.len() as u64, &mut wire);
        wire.extend_from_slice(piece);
        wire.extend_from_slice(CHUNK_SUFFIX);
    }
    finish(None, &mut wire);
    wire.extend_from_slice(b"next");
    let mut decoder = ChunkedDecoder::default();
    let mut input = &wire[..];
    let mut content = Vec::new();
    while let ChunkedItem::Data(data) = decoder.read(&mut input, None).expect("our own encoding") {
        content.extend_from_slice(data);
    }
    assert_eq!(content, pieces.concat());
    assert_eq!(input, b"next");
}

/// A connection driven by a list of operations never panics, never takes what is not its own, never persists after an
/// error, and holds no memory when idle. Every operation is two bytes: what, and how much.
pub fn fuzz_connection(operations: &[u8], wire: &[u8]) {
    let mut connection = Connection::new();
    let mut head = RequestHead::default();
    let mut out = Vec::new();
    let mut rest = wire;
    let mut failed = false;
    let mut responded = false;
    for operation in operations.chunks_exact(2) {
        let amount = usize::from(operation[1]);
        match operation[0] % 6 {
            0 | 1 => {
                let mut bytes = connection.take_held();
                let fresh = amount.min(rest.len());
                bytes.extend_from_slice(&rest[..fresh]);
                rest = &rest[fresh..];
                let mut input = &bytes[..];
                let mut is_head = false;
                match connection.read(&mut input, &SMALL_LIMITS, &mut head) {
                    Ok(event) => {
                        assert!(!failed || event == Event::Paused);
                        responded &= event != Event::Head;
                        is_head = event == Event::Head;
                    }
                    Err(_) => {
                        assert!(!failed, "one error a connection");
                        failed = true;
                    }
                }
                if is_head && amount % 3 == 0 && connection.check_body(input).is_err() {
                    assert!(!failed, "one error a connection");
                    failed = true;
                }
                if connection.hold(input).is_err() {
                    assert!(input.len() > HOLD_LIMIT || !connection.is_idle());
                }
            }
            2 => connection.interim(Status::CONTINUE, &mut out),
            3 => {
                let status = [Status::OK, Status::NO_CONTENT, Status::NOT_MODIFIED, Status(494)][amount & 3];
                let mut response = ResponseHead { status, ..ResponseHead::default() };
                if amount & 4 != 0 {
                    response.set_content_length(amount as u64);
                }
                if amount & 16 != 0 {
                    response.last_modified_text =
                        Some(response.fields.store(b"Sun, 06 Nov 1994 08:49:37 GMT"));
                    response.set_location(b"/a\r\nb");
                    response.accept_ranges = true;
                }
                let options = RespondOptions { chunked_allowed: amount & 8 != 0, ..options() };
                let framing = connection.respond(&response, &options, &mut out);
                responded = true;
                assert!(!(failed && connection.persists()));
                assert!(framing != ResponseFraming::UntilClose || !connection.persists());
            }
            4 => {
                let after = connection.after_response();
                assert!(!failed || after == After::Linger);
                if after == After::KeepAlive {
                    assert!(responded);
                    connection.next_request();
                    responded = false;
                    assert!(connection.has_held() || connection.is_idle());
                }
            }
            _ => connection.give_up_keep_alive(),
        }
        out.clear();
    }
}
