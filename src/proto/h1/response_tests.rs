//! Responses as the caller of the reader sees them.

use proptest::prelude::*;

use crate::message::{FieldName, Fields, RequestFraming, ResponseFraming, ResponseHead, Version};

use super::response_fuzz::{
    SMALL_HEAD, SMALL_RESPONSE_LIMITS, Written, fuzz_request_writer, fuzz_response_end,
    fuzz_response_identity, fuzz_responses,
};
use super::*;

const ASKED: Asked = Asked { head: false, upgrade: false, connect: false, head_bytes: 4096 };
const HEAD: Asked = Asked { head: true, ..ASKED };
const UPGRADE: Asked = Asked { upgrade: true, ..ASKED };
const CONNECT: Asked = Asked { connect: true, ..ASKED };

/// What came of one response.
#[derive(Debug, Default)]
struct Outcome {
    head: ResponseHead,
    facts: Option<HeadFacts>,
    interims: Vec<u16>,
    body: Vec<u8>,
    trailers: Fields,
    ended: bool,
    rest: usize,
    reusable: bool,
}

fn read(wire: &[u8], asked: Asked) -> Result<Outcome, ResponseError> {
    let mut reader = ResponseReader::new(ResponseLimits::default());
    reader.begin(asked);
    let mut outcome = Outcome::default();
    let mut input = wire;
    loop {
        match reader.read(&mut input, &mut outcome.head)? {
            ResponseEvent::NeedMore => break,
            ResponseEvent::Interim => outcome.interims.push(outcome.head.status.0),
            ResponseEvent::Head(facts) => outcome.facts = Some(facts),
            ResponseEvent::Body(data) => outcome.body.extend_from_slice(data),
            ResponseEvent::Trailers => reader.trailers(&mut outcome.trailers),
            ResponseEvent::End => {
                outcome.ended = true;
                break;
            }
        }
    }
    outcome.rest = input.len();
    outcome.reusable = reader.is_reusable();
    if !outcome.ended {
        reader.end_of_input()?;
    }
    Ok(outcome)
}

fn facts(wire: &[u8], asked: Asked) -> HeadFacts {
    let outcome = read(wire, asked).unwrap_or_else(|error| panic!("{}: {error}", wire.escape_ascii()));
    outcome.facts.expect("a head")
}

#[test]
fn a_reader_between_responses_is_small() {
    assert!(size_of::<ResponseReader>() <= 128, "{}", size_of::<ResponseReader>());
}

#[test]
fn a_response_of_known_length_is_read_to_its_end() {
    let wire = b"HTTP/1.1 200 All Right\r\nserver: x\r\nSet-Cookie: a=b\r\nSET-cookie:c \r\n\
        Content-Length: 5\r\nKeep-Alive: timeout=5, max=9\r\n\r\nhello";
    let outcome = read(wire, ASKED).unwrap();
    let head = &outcome.head;
    assert_eq!(head.text(head.reason.unwrap()), b"All Right");
    let lines: Vec<_> = head.fields.iter().map(|(_, name, value)| (name, value)).collect();
    assert_eq!(lines[..3], [(&b"server"[..], &b"x"[..]), (b"Set-Cookie", b"a=b"), (b"SET-cookie", b"c")]);
    assert_eq!(head.content_length, Some(5));
    assert_eq!(head.server, None);
    let expected = HeadFacts {
        framing: ResponseFraming::Length(5),
        persistent: true,
        switched: false,
        keep_alive_timeout_secs: Some(5),
        http_minor: 1,
    };
    assert_eq!(outcome.facts, Some(expected));
    assert_eq!((&outcome.body[..], outcome.ended, outcome.reusable), (&b"hello"[..], true, true));
}

#[test]
fn a_body_ends_as_its_head_says() {
    let cases: [(&[u8], Asked, ResponseFraming); 13] = [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", ASKED, ResponseFraming::Streamed),
        (b"HTTP/1.2 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ASKED, ResponseFraming::Streamed),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ASKED, ResponseFraming::Length(0)),
        (b"HTTP/1.1 205 R\r\nContent-Length: 0\r\n\r\n", ASKED, ResponseFraming::Length(0)),
        (b"HTTP/1.1 200 OK\r\n\r\n", ASKED, ResponseFraming::UntilClose),
        (b"HTTP/1.0 200 OK\r\n\r\n", ASKED, ResponseFraming::UntilClose),
        (b"HTTP/1.1 204 N\r\nTransfer-Encoding: chunked\r\n\r\n", ASKED, ResponseFraming::None),
        (b"HTTP/1.1 304 N\r\nContent-Length: 9\r\n\r\n", ASKED, ResponseFraming::None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", HEAD, ResponseFraming::None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", HEAD, ResponseFraming::None),
        (b"HTTP/1.1 101 S\r\nContent-Length: 9\r\n\r\n", UPGRADE, ResponseFraming::UntilClose),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: x\r\n\r\n",
            CONNECT,
            ResponseFraming::UntilClose,
        ),
        (b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", CONNECT, ResponseFraming::Length(0)),
    ];
    for (wire, asked, framing) in cases {
        assert_eq!(facts(wire, asked).framing, framing, "{}", wire.escape_ascii());
    }
    assert_eq!(read(cases[7].0, ASKED).unwrap().head.content_length, Some(9));
    assert_eq!(read(cases[8].0, HEAD).unwrap().head.content_length, Some(9));
    assert_eq!(read(cases[11].0, CONNECT).unwrap().head.content_length, None);
}

#[test]
fn tunnels_begin_where_they_were_asked_for() {
    assert!(facts(b"HTTP/1.1 101 S\r\n\r\n", UPGRADE).switched);
    assert!(facts(b"HTTP/1.1 204 S\r\n\r\n", CONNECT).switched);
    assert!(!facts(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", UPGRADE).switched);
    assert!(!facts(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n", CONNECT).switched);
    let outcome = read(b"HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\n\x81\0raw\r\n\r\n", UPGRADE).unwrap();
    assert_eq!((&outcome.body[..], outcome.reusable), (&b"\x81\0raw\r\n\r\n"[..], false));
}

#[test]
fn connections_persist_as_the_head_says() {
    let cases: [(&[u8], bool); 10] = [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x, Close\r\n\r\n", false),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n",
            false,
        ),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", true),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", false),
        (b"HTTP/1.1 304 N\r\nContent-Length: 5\r\n\r\n", true),
        (b"HTTP/1.1 204 N\r\n\r\n", true),
        (b"HTTP/1.1 204 N\r\nTransfer-Encoding: chunked\r\n\r\n", false),
        (b"HTTP/1.1 204 N\r\nContent-Length: 5\r\n\r\n", false),
    ];
    for (wire, persistent) in cases {
        assert_eq!(facts(wire, ASKED).persistent, persistent, "{}", wire.escape_ascii());
        assert_eq!(read(wire, ASKED).unwrap().reusable, persistent, "{}", wire.escape_ascii());
    }
}

#[test]
fn interim_responses_are_never_the_final_one() {
    let outcome = read(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
            HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
        ASKED,
    );
    let outcome = outcome.unwrap();
    assert_eq!(
        (&outcome.interims[..], &outcome.body[..], outcome.reusable),
        (&[100, 103][..], &b"x"[..], true)
    );
    assert_eq!(outcome.head.fields.first(FieldName::Link), None);
    let mut reader = ResponseReader::new(ResponseLimits::default());
    let mut head = ResponseHead::default();
    reader.begin(ASKED);
    let hint = reader.read(&mut &b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"[..], &mut head);
    assert_eq!(hint, Ok(ResponseEvent::Interim));
    assert_eq!(head.fields.first(FieldName::Link), Some(&b"</a>"[..]));
    // Who announces a body there may send one.
    let doubtful = b"HTTP/1.1 102 P\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    assert!(!read(doubtful, ASKED).unwrap().reusable);
    let flood = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(17);
    let error = read(&flood, ASKED).unwrap_err();
    assert_eq!((error.token(), error.what), ("header_invalid", "upstream sent too many interim responses"));
}

#[test]
fn chunks_and_trailers_are_read() {
    let wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x\r\n!\r\n0\r\nA: b\r\nC:\r\n\r\n";
    let outcome = read(wire, ASKED).unwrap();
    assert_eq!((&outcome.body[..], outcome.reusable), (&b"hello!"[..], true));
    let trailers: Vec<_> = outcome.trailers.iter().map(|(_, name, value)| (name, value)).collect();
    assert_eq!(trailers, [(&b"A"[..], &b"b"[..]), (b"C", b"")]);
}

#[test]
fn bytes_behind_a_response_make_its_connection_useless() {
    let wire = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\n\r\n";
    let outcome = read(wire, ASKED).unwrap();
    assert_eq!((&outcome.body[..], outcome.rest, outcome.reusable), (&b"x"[..], 19, false));
    let mut reader = ResponseReader::new(ResponseLimits::default());
    reader.begin(HEAD);
    let mut head = ResponseHead::default();
    let mut input = &b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"[..];
    assert!(matches!(reader.read(&mut input, &mut head), Ok(ResponseEvent::Head(_))));
    assert_eq!(reader.read(&mut input, &mut head), Ok(ResponseEvent::End));
    assert!(reader.is_reusable() && !reader.has_excess());
    // The body that a HEAD must not have comes late.
    assert_eq!(reader.read(&mut &b"x"[..], &mut head), Ok(ResponseEvent::End));
    assert!(!reader.is_reusable() && reader.has_excess());
}

/// Each named after the rule that it breaks.
#[test]
fn hostile_responses_are_refused() {
    const TOO_BIG: &str = "header_too_big";
    const INVALID: &str = "header_invalid";
    const BODY: &str = "body_invalid";
    let ok = |lines: &str| format!("HTTP/1.1 200 OK\r\n{lines}\r\n").into_bytes();
    let chunked = |body: &str| ok("Transfer-Encoding: chunked\r\n").into_iter().chain(body.bytes()).collect();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("http/0.9", b"<html>hello</html>".to_vec(), INVALID),
        ("another protocol's greeting", b"SSH-2.0-x\r\n".to_vec(), INVALID),
        ("a tls alert", b"\x15\x03\x01\0\x02".to_vec(), INVALID),
        ("an empty line first", b"\r\nHTTP/1.1 200 OK\r\n\r\n".to_vec(), INVALID),
        ("a space first", b" HTTP/1.1 200 OK\r\n\r\n".to_vec(), INVALID),
        ("major version 2", b"HTTP/2 200\r\n\r\n".to_vec(), INVALID),
        ("major version 0", b"HTTP/0.9 200 OK\r\n\r\n".to_vec(), INVALID),
        ("two digits of minor version", b"HTTP/1.10 200 OK\r\n\r\n".to_vec(), INVALID),
        ("a version without a minor", b"HTTP/1 200 OK\r\n\r\n".to_vec(), INVALID),
        ("a lower-case protocol", b"http/1.1 200 OK\r\n\r\n".to_vec(), INVALID),
        ("an icy protocol", b"ICY 200 OK\r\n\r\n".to_vec(), INVALID),
        ("two spaces before the code", b"HTTP/1.1  200 OK\r\n\r\n".to_vec(), INVALID),
        ("a tab before the code", b"HTTP/1.1\t200 OK\r\n\r\n".to_vec(), INVALID),
        ("a tab behind the code", b"HTTP/1.1 200\tOK\r\n\r\n".to_vec(), INVALID),
        ("no code", b"HTTP/1.1\r\n\r\n".to_vec(), INVALID),
        ("two digits of code", b"HTTP/1.1 20 OK\r\n\r\n".to_vec(), INVALID),
        ("four digits of code", b"HTTP/1.1 2000 OK\r\n\r\n".to_vec(), INVALID),
        ("a signed code", b"HTTP/1.1 +20 OK\r\n\r\n".to_vec(), INVALID),
        ("a code below 100", b"HTTP/1.1 099 OK\r\n\r\n".to_vec(), INVALID),
        ("a code of zero", b"HTTP/1.1 000 OK\r\n\r\n".to_vec(), INVALID),
        ("a code above 599", b"HTTP/1.1 600 OK\r\n\r\n".to_vec(), INVALID),
        ("a code of 999", b"HTTP/1.1 999 OK\r\n\r\n".to_vec(), INVALID),
        ("a control character in the reason", b"HTTP/1.1 200 O\x01K\r\n\r\n".to_vec(), INVALID),
        ("nul in the reason", b"HTTP/1.1 200 O\0K\r\n\r\n".to_vec(), INVALID),
        ("a bare cr in the reason", b"HTTP/1.1 200 O\rX: y\r\n\r\n".to_vec(), INVALID),
        ("a bare cr ends the status line", b"HTTP/1.1 200 OK\rContent-Length: 0\r\n\r\n".to_vec(), INVALID),
        ("101 that nobody asked for", b"HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\n".to_vec(), INVALID),
        ("coding and length", ok("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), INVALID),
        ("length and coding", ok("Content-Length: 5\r\ntransfer-encoding: chunked\r\n"), INVALID),
        ("differing lengths", ok("Content-Length: 5\r\nContent-Length: 6\r\n"), INVALID),
        ("a repeated length", ok("Content-Length: 5\r\ncontent-length: 5\r\n"), INVALID),
        ("a list of lengths", ok("Content-Length: 5, 5\r\n"), INVALID),
        ("a signed length", ok("Content-Length: +5\r\n"), INVALID),
        ("a negative length", ok("Content-Length: -5\r\n"), INVALID),
        ("an empty length", ok("Content-Length:\r\n"), INVALID),
        ("a hexadecimal length", ok("Content-Length: 0x5\r\n"), INVALID),
        ("a length with a vertical tab", ok("Content-Length: \x0b5\r\n"), INVALID),
        ("a length over 63 bits", ok("Content-Length: 9223372036854775808\r\n"), INVALID),
        ("a length over 64 bits", ok("Content-Length: 18446744073709551621\r\n"), INVALID),
        ("a repeated coding", ok("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), INVALID),
        ("two codings", ok("Transfer-Encoding: gzip, chunked\r\n"), INVALID),
        ("chunked twice", ok("Transfer-Encoding: chunked, chunked\r\n"), INVALID),
        ("identity", ok("Transfer-Encoding: identity\r\n"), INVALID),
        ("an unknown coding", ok("Transfer-Encoding: xchunked\r\n"), INVALID),
        ("chunked with a parameter", ok("Transfer-Encoding: chunked;q=1\r\n"), INVALID),
        ("an empty coding", ok("Transfer-Encoding:\r\n"), INVALID),
        (
            "a coding with http/1.0",
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
            INVALID,
        ),
        ("a name that is no token", ok("A(b): c\r\n"), INVALID),
        ("a name with a space in it", ok("A b: c\r\n"), INVALID),
        ("a name with nul", ok("A\0: c\r\n"), INVALID),
        ("a name with high bytes", ok("A\u{e9}: c\r\n"), INVALID),
        ("an empty name", ok(": c\r\n"), INVALID),
        ("a space before the colon", ok("Content-Length : 5\r\n"), INVALID),
        ("a tab before the colon", ok("Transfer-Encoding\t: chunked\r\n"), INVALID),
        ("a folded line", ok("A: b\r\n c\r\n"), INVALID),
        ("a folded first line", ok(" A: b\r\n"), INVALID),
        ("a line folded by a tab", ok("A: b\r\n\tTransfer-Encoding: chunked\r\n"), INVALID),
        ("a line without a colon", ok("Content-Length\r\n"), INVALID),
        ("a bare cr in a value", ok("A: b\rTransfer-Encoding: chunked\r\n"), INVALID),
        ("a cr before the line end", ok("A: b\r\r\n"), INVALID),
        ("a cr as the empty line", b"HTTP/1.1 200 OK\r\n\r\r\n".to_vec(), INVALID),
        ("nul in a value", ok("A: b\0c\r\n"), INVALID),
        ("an escape in a value", ok("A: \x1b[0m\r\n"), INVALID),
        ("delete in a value", ok("A: \x7f\r\n"), INVALID),
        ("too long a line", ok(&format!("A: {}\r\n", "x".repeat(4096))), TOO_BIG),
        ("too many lines", ok(&"A: b\r\n".repeat(700)), TOO_BIG),
        ("too long a status line", [b"HTTP/1.1 200 ", &[b'x'; 5000][..]].concat(), TOO_BIG),
        ("too long an interim head", format!("HTTP/1.1 103 E\r\n{}", "A: b\r\n".repeat(700)).into(), TOO_BIG),
        ("a chunk without a size", chunked("\r\nhello\r\n"), BODY),
        ("a chunk with a sign", chunked("+5\r\nhello\r\n"), BODY),
        ("a chunk size with 0x", chunked("0x5\r\nhello\r\n"), BODY),
        ("a chunk size with a bare lf", chunked("5\nhello\r\n"), BODY),
        ("a chunk longer than its size", chunked("5\r\nhellos\r\n"), BODY),
        ("a chunk size over 63 bits", chunked("8000000000000000\r\n"), BODY),
        ("text instead of chunks", chunked("hello"), BODY),
        ("a bare cr in an extension", chunked("5;a\rb\r\nhello\r\n"), BODY),
        ("endless extensions", chunked(&format!("1;{}\r\nx\r\n", "x".repeat(17_000))), BODY),
        ("a folded trailer", chunked("0\r\nA: b\r\n c\r\n\r\n"), BODY),
        ("a trailer with nul", chunked("0\r\nA: \0\r\n\r\n"), BODY),
        ("a trailer that is no field", chunked("0\r\nHTTP/1.1 200 OK\r\n\r\n"), BODY),
        ("too big trailers", chunked(&format!("0\r\nA: {}\r\n\r\n", "x".repeat(8192))), "trailers_too_big"),
        ("nothing", Vec::new(), "reset_before_header"),
        ("an end within the status line", b"HTT".to_vec(), "header_truncated"),
        ("an end within the head", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n".to_vec(), "header_truncated"),
        ("an end behind an interim", b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), "header_truncated"),
        ("an end within the body", ok("Content-Length: 5\r\n"), "body_truncated"),
        ("an end before the chunks", chunked(""), "body_truncated"),
        ("an end within a chunk", chunked("5\r\nhel"), "body_truncated"),
        ("an end between chunks", chunked("5\r\nhello\r\n"), "body_truncated"),
        ("an end within the trailers", chunked("0\r\nA: b\r\n"), "body_truncated"),
    ];
    for (rule, wire, token) in &cases {
        let result = read(wire, ASKED);
        let error = result.err().unwrap_or_else(|| panic!("{rule} was let pass"));
        assert_eq!(error.token(), *token, "{rule}: {error}");
        assert!(error.to_string().starts_with("upstream"), "{rule}: {error}");
        for step in [1, 7] {
            fuzz_responses(wire, step, ASKED, ResponseLimits::default());
        }
    }
}

#[test]
fn tolerable_oddities_are_let_pass() {
    let good: [&[u8]; 9] = [
        b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 \tO\xcc\x88K \r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\n",
        b"HTTP/1.9 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 599 X\r\nContent-Length: 00\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA_b!#$%&'*+-.^`|~: \t \r\nContent-Length: \t0\t\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: \xff\x80 \" \\ \t x\r\nContent-Length: 0\r\n\r\n",
    ];
    for wire in good {
        let outcome = read(wire, ASKED).unwrap_or_else(|error| panic!("{}: {error}", wire.escape_ascii()));
        assert!(outcome.ended && outcome.reusable, "{}", wire.escape_ascii());
        fuzz_responses(wire, 3, ASKED, ResponseLimits::default());
    }
}

#[test]
fn every_byte_is_judged_alike_however_it_comes() {
    for byte in 0..=255u8 {
        for place in [
            "HTTP/1.1 200 O~K\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA~b: c\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b~c\r\n\r\n",
        ] {
            let mut wire = place.as_bytes().to_vec();
            let at = memchr::memchr(b'~', &wire).unwrap();
            wire[at] = byte;
            fuzz_responses(&wire, 4, ASKED, ResponseLimits::default());
            // Long enough for the parser's wide steps.
            wire.splice(at + 1..at + 1, [b'x'; 70]);
            wire.splice(at..at, [b'x'; 70]);
            fuzz_responses(&wire, 40, ASKED, ResponseLimits::default());
        }
    }
}

#[test]
fn the_limit_of_heads_is_exact() {
    let wire = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    assert!(read(wire, Asked { head_bytes: wire.len(), ..ASKED }).is_ok());
    let error = read(wire, Asked { head_bytes: wire.len() - 1, ..ASKED }).unwrap_err();
    assert_eq!(error.token(), "header_too_big");
    // The body does not count.
    let wire = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n";
    let whole = [&wire[..], &[b'x'; 100]].concat();
    assert!(read(&whole, Asked { head_bytes: wire.len(), ..ASKED }).is_ok());
}

#[test]
fn errors_quote_little_and_no_values() {
    let text = |wire: &[u8]| read(wire, ASKED).unwrap_err().to_string();
    assert_eq!(
        text(b"HTTP/1.1 200 OK\r\nSet-Cookie: secret\0\r\n\r\n"),
        "upstream sent a control character in the value of header: \"Set-Cookie\""
    );
    assert_eq!(
        text(b"HTTP/1.1 2000 \"\x01\r\n\r\n"),
        "upstream sent invalid status line: \"HTTP/1.1 2000 \\\"\\x01\""
    );
    assert!(text(&[b'\xff'; 4000]).len() < 500);
}

#[test]
fn a_body_may_pass_by_another_way() {
    let mut reader = ResponseReader::new(ResponseLimits::default());
    let mut head = ResponseHead::default();
    assert_eq!(reader.body_left(), None);
    reader.begin(ASKED);
    assert_eq!(reader.body_left(), None);
    let mut input = &b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc"[..];
    assert!(matches!(reader.read(&mut input, &mut head), Ok(ResponseEvent::Head(_))));
    assert_eq!(reader.read(&mut input, &mut head), Ok(ResponseEvent::Body(b"abc")));
    assert_eq!(reader.body_left(), Some(997));
    reader.skip(996);
    assert_eq!(reader.read(&mut &b""[..], &mut head), Ok(ResponseEvent::NeedMore));
    reader.skip(1);
    assert_eq!(reader.body_left(), None);
    assert_eq!(reader.read(&mut &b""[..], &mut head), Ok(ResponseEvent::End));
    assert!(reader.is_reusable());
    reader.begin(ASKED);
    assert!(reader.read(&mut &b"HTTP/1.1 200 OK\r\n\r\n"[..], &mut head).is_ok());
    assert_eq!(reader.body_left(), Some(u64::MAX));
    reader.skip(u64::MAX);
    assert_eq!(reader.body_left(), Some(u64::MAX));
    assert_eq!(reader.end_of_input(), Ok(()));
    assert!(!reader.is_reusable());
}

#[test]
fn a_broken_connection_completes_no_body_that_ends_with_it() {
    let begun = |wire: &[u8], asked| {
        let mut reader = ResponseReader::new(ResponseLimits::default());
        reader.begin(asked);
        let _ = reader.read(&mut &wire[..], &mut ResponseHead::default());
        reader
    };
    let token = |result: Result<(), ResponseError>| result.map_err(|error| error.token());
    let open_end = b"HTTP/1.1 200 OK\r\n\r\n";
    assert_eq!(token(begun(open_end, ASKED).end_of_input()), Ok(()));
    assert_eq!(token(begun(open_end, ASKED).reset()), Err("body_truncated"));
    assert_eq!(token(begun(b"HTTP/1.1 101 S\r\n\r\n", UPGRADE).reset()), Ok(()));
    assert_eq!(token(begun(b"", ASKED).reset()), Err("reset_before_header"));
    assert_eq!(token(begun(b"H", ASKED).reset()), Err("header_truncated"));
    let mut idle = ResponseReader::new(ResponseLimits::default());
    assert_eq!(idle.reset(), Ok(()));
    assert!(!idle.is_reusable());
}

#[test]
fn memory_is_held_for_heads_in_pieces_only() {
    let mut reader = ResponseReader::new(ResponseLimits::default());
    let mut head = ResponseHead::default();
    let wire = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    for _ in 0..3 {
        reader.begin(ASKED);
        assert!(reader.read(&mut &wire[..], &mut head).is_ok());
        assert_eq!(reader.read(&mut &b""[..], &mut head), Ok(ResponseEvent::End));
        assert_eq!(reader.memory(), 0);
    }
    let mut kept = None;
    for _ in 0..3 {
        reader.begin(ASKED);
        assert_eq!(reader.read(&mut &wire[..20], &mut head), Ok(ResponseEvent::NeedMore));
        assert!(reader.read(&mut &wire[20..], &mut head).is_ok());
        assert_eq!(reader.read(&mut &b""[..], &mut head), Ok(ResponseEvent::End));
        assert_eq!(*kept.get_or_insert(reader.memory()), reader.memory(), "recycled");
    }
    assert!((1..=4096).contains(&reader.memory()));
    reader.release_memory();
    assert_eq!(reader.memory(), 0);
    reader.begin(UPGRADE);
    assert_eq!(reader.read(&mut &b"HTTP/1.1 101 S"[..], &mut head), Ok(ResponseEvent::NeedMore));
    assert!(reader.read(&mut &b"\r\n\r\n"[..], &mut head).is_ok());
    assert_eq!(reader.memory(), 0, "a tunnel holds none");
}

fn wire() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.0 200 OK\r\n",
        "HTTP/1.1 204 No Content\r\n",
        "HTTP/1.1 304 Not Modified\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
        "HTTP/1.1 101 Switching\r\n",
        "HTTP/1.1 200 OK\n",
        "HTTP/1.1 200",
        "HTTP/1.",
        "Content-Length: 3\r\n",
        "Content-Length: 0\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close\r\n",
        "Keep-Alive: timeout=5\r\n",
        "X: \t a \r\n",
        "X:\n",
        " fold\r\n",
        "X: a\rb\r\n",
        "\r\n",
        "\r\n",
        "\n",
        "abc",
        "3\r\nabc\r\n",
        "3;x\r\nabc\r\n",
        "0\r\n\r\n",
        "0\r\nA: b\r\n\r\n",
        "\r",
        "\0",
        "\u{e9}",
        "Aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ]);
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat().into_bytes())
}

fn asked() -> impl Strategy<Value = (Asked, ResponseLimits)> {
    (any::<[bool; 3]>(), any::<bool>()).prop_map(|([head, upgrade, connect], small)| {
        let (head_bytes, limits) =
            if small { (SMALL_HEAD, SMALL_RESPONSE_LIMITS) } else { (4096, ResponseLimits::default()) };
        (Asked { head, upgrade, connect, head_bytes }, limits)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_cut_of_responses_yields_the_same_events(
        bytes in wire(), step in 1usize..60, (asked, limits) in asked(),
    ) {
        fuzz_responses(&bytes, step, asked, limits);
        fuzz_response_end(&bytes, asked, limits);
    }

    #[test]
    fn any_bytes_are_read_without_harm(
        bytes: Vec<u8>, step in 1usize..20, begins: bool, (asked, limits) in asked(),
    ) {
        let bytes = if begins { [b"HTTP/1.1 200 OK\r\n", &bytes[..]].concat() } else { bytes };
        fuzz_responses(&bytes, step, asked, limits);
        fuzz_response_end(&bytes, asked, limits);
    }

    #[test]
    fn responses_are_read_as_they_were_written(
        status in 200u16..600,
        lines: Vec<(Vec<u8>, Vec<u8>)>,
        names in prop::collection::vec(("[!-~]{1,9}", "[ -~]{0,60}"), 0..60),
        pieces: Vec<Vec<u8>>,
        [tells_length, http11, head] in any::<[bool; 3]>(),
    ) {
        let lines = lines.iter().map(|(name, value)| (&name[..], &value[..]));
        let names = names.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let lines: Vec<(&[u8], &[u8])> = lines.chain(names).collect();
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        fuzz_response_identity(&Written { status, lines: &lines, pieces: &pieces, tells_length, http11, head });
    }

    #[test]
    fn what_the_request_writer_lets_through_is_one_request(
        method in "[A-Z]{1,4}|\\PC{0,3}",
        target in "/[!-~]{0,9}|(?s).{0,4}",
        lines in prop::collection::vec(("[!-~]{1,9}|Host|Content-Length|(?s).{0,3}", "[ -~]{0,20}|(?s).{0,5}"), 0..9),
        http11: bool,
        framing in prop::sample::select(vec![
            RequestFraming::None, RequestFraming::Length(0), RequestFraming::Length(70), RequestFraming::Streamed,
        ]),
    ) {
        let lines: Vec<_> = lines.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let version = if http11 { Version::Http11 } else { Version::Http10 };
        fuzz_request_writer(method.as_bytes(), target.as_bytes(), &lines, version, framing);
    }
}
