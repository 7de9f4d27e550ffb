//! The connection as its caller sees it.

use proptest::prelude::*;

use crate::message::{
    FieldName, Fields, RequestFraming, RequestHead, ResponseFraming, ResponseHead, Status, Version,
};

use super::fuzz::{fuzz_chunked, fuzz_chunked_identity, fuzz_connection, fuzz_request_head};
use super::*;

fn read_one(wire: &[u8], limits: &HeadLimits) -> Result<RequestHead, (u16, String)> {
    let mut head = RequestHead::default();
    let mut input = wire;
    match Connection::new().read(&mut input, limits, &mut head) {
        Ok(Event::Head) => Ok(head),
        Ok(event) => Err((0, format!("{event:?}"))),
        Err(error) => Err((error.status.0, String::from_utf8_lossy(&error.message).into_owned())),
    }
}

fn read(wire: &[u8]) -> Result<RequestHead, (u16, String)> {
    read_one(wire, &HeadLimits::default())
}

fn status_of(wire: &[u8]) -> u16 {
    match read(wire) {
        Ok(_) => 200,
        Err((status, _)) => status,
    }
}

fn request(lines: &str) -> Vec<u8> {
    format!("GET /x HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes()
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

/// A connection that has read the head of `wire`.
fn begun(wire: &[u8]) -> (Connection, &[u8]) {
    let mut connection = Connection::new();
    let mut input = wire;
    let event = connection.read(&mut input, &HeadLimits::default(), &mut RequestHead::default());
    assert_eq!(event, Ok(Event::Head));
    (connection, input)
}

fn respond(
    connection: &mut Connection,
    change: impl FnOnce(&mut ResponseHead, &mut RespondOptions<'static>),
) -> (ResponseFraming, String) {
    let mut response = ResponseHead { status: Status::OK, ..ResponseHead::default() };
    let mut options = options();
    change(&mut response, &mut options);
    let mut out = Vec::new();
    let framing = connection.respond(&response, &options, &mut out);
    (framing, String::from_utf8(out).unwrap())
}

#[test]
fn an_idle_connection_is_small() {
    assert!(size_of::<Connection>() <= 64, "{}", size_of::<Connection>());
}

/// Statuses as the installed nginx answered them.
#[test]
fn request_lines_are_judged_as_by_nginx() {
    let host = "\r\nHost: a\r\n\r\n";
    let good = [
        "GET / HTTP/1.1",
        "GET   /x   HTTP/1.1  ",
        "GET ftp://x/y HTTP/1.1",
        "GET http://x HTTP/1.1",
        "GET http://x?q=1 HTTP/1.1",
        "GET http://[::1]:80/a HTTP/1.1",
        "GET http://x:/a HTTP/1.1",
        "G-T_ / HTTP/1.1",
        "\r\n\n\rGET / HTTP/1.1",
        "GET / HTTP/1.2",
        "GET / HTTP/1.99",
        "GET / HTTP/1.01",
        "GET /a?b#c HTTP/1.1",
        "GET http://a./ HTTP/1.1",
    ];
    for line in good {
        assert_eq!(status_of(format!("{line}{host}").as_bytes()), 200, "{line}");
    }
    assert_eq!(status_of(b"GET /\x80\xff HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
    let bad = [
        "OPTIONS * HTTP/1.1",
        "GET http://u@x/a HTTP/1.1",
        "GET http://x:8a/a HTTP/1.1",
        "GET http:///a HTTP/1.1",
        "GET http://x#f HTTP/1.1",
        "GET http:/a HTTP/1.1",
        "GET x HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /\x01 HTTP/1.1",
        "GET /\x7f HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET /\tHTTP/1.1",
        "get / HTTP/1.1",
        "G1 / HTTP/1.1",
        " GET / HTTP/1.1",
        "GET / HTTP/0.9",
        "GET / HTTP/1",
        "GET / HTTP/01.1",
        "GET / http/1.1",
        "GET / HTTP/1.1\r",
        "GET / HTTP/1.1 x",
        "GET ",
        "GET",
        "GET /a?b c HTTP/1.1",
        "GET / HTTP/1.1\t",
        "GET /\0 HTTP/1.1",
        "CONNECT a HTTP/1.1",
    ];
    for line in bad {
        assert_eq!(status_of(format!("{line}{host}").as_bytes()), 400, "{line:?}");
    }
    for (line, status) in [
        ("GET / HTTP/2.0", 505),
        ("GET / HTTP/10.1", 505),
        ("TRACE / HTTP/1.1", 405),
        ("CONNECT / HTTP/1.1", 405),
        ("CONNECT a:1 HTTP/1.1", 405),
    ] {
        assert_eq!(status_of(format!("{line}{host}").as_bytes()), status, "{line}");
    }
}

#[test]
fn what_is_not_http_is_refused_before_its_line_ends() {
    let (status, message) = read(b"\x16\x03\x01\x02").unwrap_err();
    assert_eq!((status, message.as_str()), (400, "client sent invalid method"));
}

#[test]
fn a_refused_request_leaves_its_line_for_the_log_and_its_method_for_the_answer() {
    let mut head = RequestHead::default();
    let mut input = &b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"[..];
    let mut connection = Connection::new();
    assert!(connection.read(&mut input, &HeadLimits::default(), &mut head).is_err());
    assert_eq!(head.text(head.request_line), b"GET / HTTP/2.0");
    let mut input = &b"HEAD /x HTTP/1.1\r\nbad\r\n"[..];
    let mut connection = Connection::new();
    assert!(connection.read(&mut input, &HeadLimits::default(), &mut head).is_err());
    assert_eq!(head.text(head.request_line), b"HEAD /x HTTP/1.1");
    let (framing, _) = respond(&mut connection, |response, _| response.status = Status::BAD_REQUEST);
    assert_eq!(framing, ResponseFraming::None);
}

#[test]
fn http_09_is_a_line_alone_and_gets_no_head() {
    for wire in ["GET /x\r\n", "GET /x\n", "GET / \r\n", "GET http://x/\r\n", "GET http://x \r\n"] {
        assert_eq!(read(wire.as_bytes()).unwrap().version, Version::Http09);
    }
    for wire in ["POST /x\r\n", "HEAD /x\r\n", "GET http://x\r\n"] {
        assert_eq!(status_of(wire.as_bytes()), 400);
    }
    let (mut connection, _) = begun(b"GET /x\r\n");
    let (framing, text) = respond(&mut connection, |response, _| response.set_content_length(5));
    assert_eq!((framing, text.as_str()), (ResponseFraming::UntilClose, ""));
    assert_eq!(connection.after_response(), After::Close);
}

#[test]
fn absolute_form_gives_authority_and_target() {
    let head = read(b"GET http://Ex.com:81/p?q HTTP/1.1\r\nHost: other\r\n\r\n").unwrap();
    assert_eq!(head.target(), b"/p?q");
    assert_eq!(head.text(head.authority), b"Ex.com:81");
    assert_eq!((head.text(head.host), head.host_port), (&b"ex.com"[..], Some(81)));
    assert_eq!(head.field(FieldName::Host), Some(&b"other"[..]));
    assert_eq!(read(b"GET http://a?q HTTP/1.0\r\n\r\n").unwrap().target(), b"/?q");
    assert_eq!(read(b"GET http://a HTTP/1.0\r\n\r\n").unwrap().target(), b"/");
    let limits = HeadLimits { allow_connect: true, ..HeadLimits::default() };
    let head = read_one(b"CONNECT b:1 HTTP/1.1\r\nHost: b\r\n\r\n", &limits).unwrap();
    assert_eq!((head.target(), head.text(head.authority), head.host_port), (&b"/"[..], &b"b:1"[..], Some(1)));
    let body = read_one(b"CONNECT b:1 HTTP/1.1\r\nHost: b\r\nContent-Length: 1\r\n\r\n", &limits);
    assert_eq!(body.unwrap_err().0, 400);
}

#[test]
fn field_lines_are_judged_as_by_nginx() {
    let good =
        ["X: a\u{1}\u{7f}\u{80}\r\n", "X:\r\n", "X_y: 1\r\n", "X(: 1\r\n", "X\u{e9}: 1\r\n", "Y\n: 1\r\n"];
    for lines in &good[..5] {
        assert_eq!(status_of(&request(lines)), 200, "{lines:?}");
    }
    let bad = [
        "X\r\n",
        ": a\r\n",
        "X : a\r\n",
        " X: a\r\n",
        "X: a\r\n b\r\n",
        "X: a\0\r\n",
        "X: a\rb\r\n",
        "X: a\r\r\n",
        "X\0: 1\r\n",
        good[5],
        "\tX: 1\r\n",
    ];
    for lines in bad {
        assert_eq!(status_of(&request(lines)), 400, "{lines:?}");
    }
    let head = read(&request("X: \t a b\t \r\nBare: lf\n")).unwrap();
    assert_eq!(head.fields.named(b"x").next(), Some(&b"a b"[..]));
    assert_eq!(head.fields.named(b"bare").next(), Some(&b"lf"[..]));
}

#[test]
fn unusual_names_are_left_out_or_kept_as_configured() {
    let wire = request("X_y: 1\r\nX(: 2\r\n");
    let head = read(&wire).unwrap();
    assert_eq!((head.fields.len(), head.ignored_lines), (1, 2));
    assert_eq!(head.text(head.ignored_line), b"X_y: 1");
    // The whole line, whether or not there is something behind the colon.
    let head = read(&request("X_y: \t\r\n")).unwrap();
    assert_eq!(head.text(head.ignored_line), b"X_y: \t");
    let keep = HeadLimits { ignore_invalid_headers: false, ..HeadLimits::default() };
    assert_eq!(read_one(&wire, &keep).unwrap().fields.len(), 3);
    let underscores = HeadLimits { underscores_in_headers: true, ..HeadLimits::default() };
    assert_eq!(read_one(&wire, &underscores).unwrap().fields.len(), 2);
}

#[test]
fn fields_that_must_be_single_are_refused_when_repeated() {
    for name in [
        "Content-Length",
        "Transfer-Encoding",
        "If-Modified-Since",
        "If-Unmodified-Since",
        "If-Match",
        "If-None-Match",
        "If-Range",
        "Authorization",
        "Expect",
        "Content-Range",
    ] {
        let lines = format!("{name}: 0\r\n{}: 0\r\n", name.to_ascii_lowercase());
        let (status, message) = read(&request(&lines)).unwrap_err();
        assert_eq!(status, 400, "{name}");
        let expected = format!(
            "client sent duplicate header line: \"{}: 0\", previous value: \"{name}: 0\"",
            name.to_ascii_lowercase()
        );
        assert_eq!(message, expected);
    }
    for name in ["Range", "Cookie", "User-Agent", "Referer", "Via", "X-Forwarded-For", "TE", "Upgrade", "X"] {
        assert_eq!(status_of(&request(&format!("{name}: a\r\n{name}: a\r\n"))), 200, "{name}");
    }
}

#[test]
fn a_host_is_needed_valid_and_single() {
    assert_eq!(status_of(b"GET / HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(status_of(b"GET / HTTP/1.0\r\n\r\n"), 200);
    assert_eq!(status_of(&request("Host: a\r\n")), 400);
    assert_eq!(status_of(b"GET http://b/ HTTP/1.1\r\nHost: a b\r\n\r\n"), 400);
    for host in ["", ".", "a..b", ":80", "a/b", "a b"] {
        assert_eq!(status_of(format!("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes()), 400, "{host}");
    }
}

#[test]
fn doubtful_body_framing_is_refused() {
    for (lines, status) in [
        ("Content-Length: 0, 0\r\n", 400),
        ("Content-Length: +1\r\n", 400),
        ("Content-Length: \r\n", 400),
        ("Content-Length: 0x1\r\n", 400),
        ("Content-Length: 9223372036854775808\r\n", 400),
        ("Content-Length: 99999999999999999999\r\n", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", 400),
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
        ("Transfer-Encoding: identity\r\n", 501),
        ("Transfer-Encoding: \r\n", 501),
    ] {
        assert_eq!(status_of(&request(lines)), status, "{lines}");
    }
    assert_eq!(status_of(b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
    let framing = |lines: &str| read(&request(lines)).unwrap().framing;
    assert_eq!(framing("Transfer-Encoding: Chunked\r\n"), RequestFraming::Streamed);
    assert_eq!(framing("Content-Length: 0\r\n"), RequestFraming::None);
    assert_eq!(framing("Content-Length: 007\r\n"), RequestFraming::Length(7));
    assert_eq!(framing("Content-Length: 9223372036854775807\r\n"), RequestFraming::Length(i64::MAX as u64));
}

/// The lengths were found with the installed nginx.
#[test]
fn heads_are_bounded_as_nginx_bounds_them() {
    let line = |n: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(n)).into_bytes();
    assert_eq!(status_of(&line(8176)), 200);
    assert_eq!(status_of(&line(8177)), 414);
    let field = |n: usize, count: usize| request(&format!("X: {}\r\n", "a".repeat(n)).repeat(count));
    assert_eq!(status_of(&field(8187, 1)), 200);
    assert_eq!(status_of(&field(8188, 1)), 494);
    assert_eq!(status_of(&field(8000, 4)), 200);
    assert_eq!(status_of(&field(8000, 5)), 494);
    assert_eq!(status_of(&request(&"X:\r\n".repeat(999))), 200);
    assert_eq!(status_of(&request(&"X:\r\n".repeat(1000))), 494);
    // A line without an end is refused as soon as it is too long.
    assert_eq!(status_of(&[&b"GET /"[..], &[b'a'; 8200]].concat()), 414);
}

#[test]
fn bodies_are_slices_of_the_input_and_end_once() {
    let wire = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET";
    let (mut connection, mut input) = begun(wire);
    let (limits, mut head) = (HeadLimits::default(), RequestHead::default());
    let Ok(Event::Body(data)) = connection.read(&mut input, &limits, &mut head) else { panic!() };
    assert_eq!(data, b"hello");
    assert!(wire.as_ptr_range().contains(&data.as_ptr()));
    assert_eq!(connection.read(&mut input, &limits, &mut head), Ok(Event::BodyEnd));
    assert_eq!(connection.read(&mut input, &limits, &mut head), Ok(Event::Paused));
    assert_eq!(input, b"GET");
}

#[test]
fn bad_chunks_end_the_connection() {
    let wire = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello";
    let (mut connection, mut input) = begun(wire);
    let (limits, mut head) = (HeadLimits::default(), RequestHead::default());
    let error = connection.read(&mut input, &limits, &mut head).unwrap_err();
    assert_eq!(error.status, Status::BAD_REQUEST);
    assert_eq!(connection.read(&mut input, &limits, &mut head), Ok(Event::Paused));
    assert!(respond(&mut connection, |_, _| ()).1.contains("Connection: close\r\n"));
    assert_eq!(connection.after_response(), After::Linger);
}

#[test]
fn heads_go_out_in_nginxs_order() {
    let (mut connection, _) = begun(&request(""));
    let (framing, text) = respond(&mut connection, |response, options| {
        response.server = Some(response.fields.store(b"thalweg"));
        response.set_content_type(b"text/plain");
        response.set_content_length(1000);
        response.last_modified_text = Some(response.fields.store(b"Sat, 21 Nov 2026 02:50:50 GMT"));
        response.set_location(b"/l");
        response.set_etag(b"\"6b01070a-3e8\"");
        response.fields.push(b"X-A", b"b");
        response.accept_ranges = true;
        options.keep_alive_header = Some(20);
    });
    assert_eq!(framing, ResponseFraming::Length(1000));
    let expected = "HTTP/1.1 200 OK\r\nServer: thalweg\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
        Content-Type: text/plain\r\nContent-Length: 1000\r\nLast-Modified: Sat, 21 Nov 2026 02:50:50 GMT\r\n\
        Location: /l\r\nConnection: keep-alive\r\nKeep-Alive: timeout=20\r\nETag: \"6b01070a-3e8\"\r\nX-A: b\r\n\
        Accept-Ranges: bytes\r\n\r\n";
    assert_eq!(text, expected);
    assert_eq!(connection.after_response(), After::KeepAlive);
}

#[test]
fn framing_of_responses_follows_version_method_and_status() {
    let framing = |wire: &[u8], change: &dyn Fn(&mut ResponseHead, &mut RespondOptions<'static>)| {
        let (mut connection, _) = begun(wire);
        let (framing, text) = respond(&mut connection, change);
        (framing, text.contains("chunked"), text.contains("Content-Length"), connection.persists())
    };
    let get = request("");
    let old = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let head = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
    use ResponseFraming::{None, Streamed, UntilClose};
    assert_eq!(framing(&get, &|_, _| ()), (Streamed, true, false, true));
    assert_eq!(
        framing(&get, &|_, options| options.chunked_allowed = false),
        (UntilClose, false, false, false)
    );
    assert_eq!(framing(old, &|_, _| ()), (UntilClose, false, false, false));
    assert_eq!(framing(head, &|_, _| ()), (None, false, false, true));
    assert_eq!(framing(head, &|response, _| response.set_content_length(7)), (None, false, true, true));
    for status in [Status::NO_CONTENT, Status::NOT_MODIFIED] {
        assert_eq!(framing(&get, &|response, _| response.status = status), (None, false, false, true));
    }
    let trailers = |response: &mut ResponseHead, options: &mut RespondOptions<'static>| {
        response.set_content_length(7);
        options.trailers_expected = true;
    };
    assert_eq!(framing(&get, &trailers), (Streamed, true, false, true));
    assert_eq!(framing(old, &trailers), (ResponseFraming::Length(7), false, true, true));
}

#[test]
fn internal_codes_and_unknown_ones_have_a_status_line() {
    let line = |status: u16| {
        let (mut connection, _) = begun(&request(""));
        let (_, text) = respond(&mut connection, |response, _| response.status = Status(status));
        text.lines().next().unwrap().to_owned()
    };
    assert_eq!(line(494), "HTTP/1.1 400 Bad Request");
    assert_eq!(line(299), "HTTP/1.1 299 ");
    assert_eq!(line(404), "HTTP/1.1 404 Not Found");
}

#[test]
fn the_connection_field_is_a_list_of_tokens() {
    let persists = |version: &str, lines: &str| {
        let wire = format!("GET / HTTP/{version}\r\nHost: a\r\n{lines}\r\n").into_bytes();
        let (mut connection, _) = begun(&wire);
        respond(&mut connection, |response, _| response.set_content_length(0));
        connection.persists()
    };
    assert!(persists("1.1", ""));
    assert!(persists("1.1", "Connection: upgrade, xclose\r\n"));
    assert!(!persists("1.1", "Connection: foo, CLOSE\r\n"));
    assert!(!persists("1.1", "Connection: close\r\nConnection: keep-alive\r\n"));
    assert!(!persists("1.0", ""));
    assert!(persists("1.0", "Connection: Keep-Alive\r\n"));
}

#[test]
fn a_withheld_body_ends_the_connection_unless_it_was_asked_for() {
    let wire = request("Content-Length: 5\r\nExpect: 100-Continue\r\n");
    let (mut connection, _) = begun(&wire);
    assert!(connection.withholds_body());
    respond(&mut connection, |_, _| ());
    assert_eq!(connection.after_response(), After::Linger);
    let (mut connection, mut input) = begun(&wire);
    let mut out = Vec::new();
    connection.interim(Status::CONTINUE, &mut out);
    assert_eq!(out, b"HTTP/1.1 100 Continue\r\n\r\n");
    assert!(!connection.withholds_body() && connection.body_pending());
    respond(&mut connection, |_, _| ());
    assert_eq!(connection.after_response(), After::Discard);
    assert!(input.is_empty());
    input = b"hello";
    let (limits, mut head) = (HeadLimits::default(), RequestHead::default());
    assert_eq!(connection.read(&mut input, &limits, &mut head), Ok(Event::Body(b"hello")));
    assert_eq!(connection.after_response(), After::KeepAlive);
    for lines in ["Expect: 100-continue\r\n", "Content-Length: 5\r\nExpect: 200-maybe\r\n"] {
        assert!(!read(&request(lines)).unwrap().expects_continue);
    }
}

#[test]
fn pipelined_requests_wait_and_can_be_put_away() {
    let wire = request("").repeat(16);
    let (limits, mut head) = (HeadLimits::default(), RequestHead::default());
    let mut connection = Connection::new();
    let mut input = &wire[..];
    for left in (0..16).rev() {
        assert_eq!(connection.read(&mut input, &limits, &mut head), Ok(Event::Head));
        assert_eq!(connection.read(&mut input, &limits, &mut head), Ok(Event::Paused));
        assert_eq!(input.len(), wire.len() / 16 * left);
        respond(&mut connection, |response, _| response.set_content_length(0));
        connection.next_request();
    }
    connection.hold(b"GET ").unwrap();
    connection.hold(b"/").unwrap();
    assert!(connection.has_held() && !connection.is_idle());
    assert_eq!(connection.hold(&vec![0; HOLD_LIMIT]), Err(HoldFull));
    assert_eq!(connection.take_held(), b"GET /");
    assert!(connection.is_idle());
    assert_eq!(connection.take_held().capacity(), 0);
}

#[test]
fn no_value_can_write_lines_of_its_own_into_a_response() {
    let mut connection = Connection::new();
    let (limits, mut head) = (HeadLimits::default(), RequestHead::default());
    connection.read(&mut &request("")[..], &limits, &mut head).unwrap();
    let (_, text) = respond(&mut connection, |response, _| {
        response.set_location(b"/a\r\nSet-Cookie: x=1");
        response.fields.push(b"X-Uri", b"/a\n\nHTTP/1.1 200 OK\r\0");
        response.set_content_length(0);
    });
    assert!(text.contains("\r\nLocation: /a  Set-Cookie: x=1\r\n"), "{text}");
    assert!(text.contains("\r\nX-Uri: /a  HTTP/1.1 200 OK  \r\n"), "{text}");
    let mut trailers = Fields::default();
    trailers.push(b"T", b"a\r\n\r\nb");
    let mut out = Vec::new();
    finish(Some(&trailers), &mut out);
    assert_eq!(out, b"0\r\nT: a    b\r\n\r\n");
}

#[test]
fn a_method_that_goes_wrong_beyond_the_bounds_is_too_long_however_it_comes() {
    let limits =
        HeadLimits { header_buffer: 10, large_buffers: 1, large_buffer_size: 20, ..HeadLimits::default() };
    for (good, status) in [(5, 400), (19, 400), (20, 414), (30, 414)] {
        let wire = [&vec![b'A'; good][..], b"\x01 / HTTP/1.1\r\n"].concat();
        for step in [1, 3, 100] {
            let mut connection = Connection::new();
            let mut head = RequestHead::default();
            let refused = wire
                .chunks(step)
                .find_map(|piece| connection.read(&mut &piece[..], &limits, &mut head).err());
            assert_eq!(refused.unwrap().status.0, status, "{good} in pieces of {step}");
        }
    }
}

/// Bytes that look like requests, mostly.
fn wire() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "GET / HTTP/1.1\r\n",
        "POST /a?b HTTP/1.1\r\n",
        "GET http://Ex/ HTTP/1.0\r\n",
        "HEAD /%2e HTTP/1.1\r\n",
        "Host: a\r\n",
        "Host: B:8\r\n",
        "Content-Length: 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Expect: 100-continue\r\n",
        "Connection: keep-alive\r\n",
        "X_y: 1\r\n",
        "X: \t a \r\n",
        "X:\n",
        "bad\r\n",
        " fold\r\n",
        "X: a\rb\r\n",
        "\r\n",
        "\r\n",
        "\n",
        "abc",
        "3\r\nabc\r\n",
        "0\r\n\r\n",
        "1;x\r\na\r\n",
        "GET /x\r\n",
        "\r",
        "G",
        ": ",
        "\u{1}",
        "\0",
        "\u{e9}",
        "Aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    ]);
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_cut_of_requests_yields_the_same_events(bytes in wire(), step in 1usize..60) {
        fuzz_request_head(&bytes, step);
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes: Vec<u8>, step in 1usize..20) {
        fuzz_request_head(&bytes, step);
        fuzz_chunked(&bytes, step);
    }

    #[test]
    fn any_cut_of_chunks_yields_the_same(bytes in "([0-3a];?[ x]?\r\n(a\r|abc|\r\n){0,2}|A: b\r\n|0\r\n\r\n){0,6}", step in 1usize..9) {
        fuzz_chunked(bytes.as_bytes(), step);
    }

    #[test]
    fn chunks_decode_to_what_was_encoded(pieces: Vec<Vec<u8>>) {
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        fuzz_chunked_identity(&pieces);
    }

    #[test]
    fn any_order_of_operations_is_survived(operations: Vec<u8>, bytes in wire()) {
        fuzz_connection(&operations, &bytes);
    }
}
