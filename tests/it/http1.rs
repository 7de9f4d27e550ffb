//! HTTP/1 requests: what a head may look like, and what its target means.
//!
//! Most behaviours stand in tables of raw requests and statuses; where nginx 1.22 does the same, the table is also held
//! against it.

use crate::util::{Client, Parity, Server, eventually, get, parity, raw, raw_status};
use std::time::Duration;

/// Answers with what the server made of the request.
const ECHO: &str = "server {
    listen {port};
    location / { return 200 '$request_method|$uri|$args|$request_uri|$host|$server_protocol|$http_x'; }
}";

/// Raw requests, each with its status; 0 is a close without a response.
type Table = [(&'static str, u16)];

#[track_caller]
fn check(conf: &str, table: &Table) {
    let server = Server::start(conf);
    let wrong: Vec<String> = table
        .iter()
        .map(|(bytes, expected)| (bytes, expected, raw_status(server.port(), bytes)))
        .filter(|(_, expected, found)| *expected != found)
        .map(|(bytes, expected, found)| format!("{bytes:?}: {found} instead of {expected}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(raw_status(server.port(), "GET / HTTP/1.1\r\nHost: alive\r\n\r\n"), 200);
}

#[track_caller]
fn check_as_nginx(conf: &str, table: &Table) {
    check(conf, table);
    let requests: Vec<&str> = table.iter().map(|(bytes, _)| *bytes).collect();
    parity(conf, &requests);
}

/// What [`ECHO`] says to a GET of this target.
fn echo(server: &Server, target: &str) -> String {
    let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    raw(server.port(), request).expect("a response").text()
}

const REQUEST_LINES: &Table = &[
    ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    ("GET /a?b=c HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    ("GET /a?b=c#d HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    ("GET /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    // Absolute form: its authority wins over the Host field.
    ("GET http://example.com/x?y HTTP/1.1\r\nHost: other\r\n\r\n", 200),
    ("GET http://Example.COM:8080/x HTTP/1.1\r\nHost: other\r\n\r\n", 200),
    ("GET http://example.com HTTP/1.1\r\nHost: other\r\n\r\n", 200),
    ("GET http://[::1]:80/x HTTP/1.1\r\nHost: other\r\n\r\n", 200),
    ("GET foo://example.com/x HTTP/1.1\r\nHost: other\r\n\r\n", 200),
    ("GET http:// HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET http:/a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET http://exa mple.com/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    // Asterisk form is for OPTIONS of a whole server, which nginx does not have.
    ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET ?a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    // Methods.
    ("OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    ("FOO / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    ("FOO_BAR / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    ("M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    ("get / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET1 / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    ("CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    // Spaces.
    ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /\tHTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    // Line ends.
    ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    ("\r\n\r\n\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    ("GET / HTTP/1.1\nHost: a\n\n", 200),
    ("GET / HTTP/1.1\r\nHost: a\n\r\n", 200),
    ("GET / HTTP/1.1\rHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", 400),
    // Versions.
    ("GET / HTTP/1.0\r\n\r\n", 200),
    ("GET / HTTP/1.1000\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
    ("GET / HTTP/11.0\r\nHost: a\r\n\r\n", 505),
    ("GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET / HTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.1x\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1,1\r\nHost: a\r\n\r\n", 400),
];

#[test]
fn request_lines_are_taken_and_refused_as_nginx_does() {
    check_as_nginx(ECHO, REQUEST_LINES);
}

#[test]
fn variables_show_request_lines_in_their_usual_form() {
    // nginx shows the version as it was written, and no slash where an authority has no path.
    let server = Server::start(ECHO);
    for (line, expected) in [
        ("GET http://example.com?y HTTP/1.1", "GET|/|y|/?y|example.com|HTTP/1.1|"),
        ("GET / HTTP/1.1  ", "GET|/||/|a|HTTP/1.1|"),
        ("GET / HTTP/1.2", "GET|/||/|a|HTTP/1.1|"),
        ("GET / HTTP/1.10", "GET|/||/|a|HTTP/1.1|"),
    ] {
        let bytes = format!("{line}\r\nHost: a\r\n\r\n");
        assert_eq!(raw(server.port(), bytes).expect("a response").text(), expected, "{line}");
    }
}

#[test]
fn connect_is_refused_without_a_tunnel() {
    // nginx 1.31 parses the authority form and answers 405; 1.22 knows no such form and says 400.
    check(
        ECHO,
        &[
            ("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", 405),
            ("CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\r\n", 405),
            ("CONNECT example.com HTTP/1.1\r\nHost: example.com\r\n\r\n", 400),
            ("CONNECT example.com: HTTP/1.1\r\nHost: example.com\r\n\r\n", 400),
        ],
    );
}

#[test]
fn http_09_gets_the_body_alone() {
    let conf = "server { listen {port}; root {root}/html; }";
    let server = Server::builder(conf).file("html/a.txt", "hello").start();
    for line in ["GET /a.txt\r\n", "GET /a.txt\n", "GET /a.txt \r\n"] {
        let mut client = Client::connect(server.port());
        client.send(line);
        assert_eq!(client.read_to_end(), b"hello", "{line:?}");
    }
    Parity::new(conf)
        .file("html/a.txt", "hello")
        .request("GET /a.txt\r\n")
        .request("GET /missing\r\n")
        .request("GET http://a/a.txt\r\n")
        .request("GET /a.txt\r\nHost: a\r\n\r\n")
        .check();
}

#[test]
fn http_09_has_no_method_but_get() {
    // nginx answers these without a head.
    let server = Server::start(ECHO);
    assert_eq!(raw_status(server.port(), "POST /\r\n"), 400);
    assert_eq!(raw_status(server.port(), "FOO /a\r\n"), 400);
}

#[test]
fn http_10_is_closed_unless_the_client_asks_for_keep_alive() {
    let server = Server::start(ECHO);
    let mut client = Client::connect(server.port());
    client.send("GET / HTTP/1.0\r\n\r\n");
    let response = client.read_response();
    assert_eq!((response.version.as_str(), response.header("connection")), ("HTTP/1.1", Some("close")));
    client.expect_closed();

    let mut client = Client::connect(server.port());
    for _ in 0..3 {
        client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(client.read_response().header("connection"), Some("keep-alive"));
    }
    parity(
        ECHO,
        &[
            "GET / HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n",
            "GET / HTTP/1.0\r\nConnection: close\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: foo\r\n\r\n",
            "HEAD / HTTP/1.0\r\n\r\n",
        ],
    );
}

#[test]
fn connection_options_are_read_as_a_list() {
    // nginx looks for "close" anywhere in the field; RFC 9110 section 7.6.1 makes it one of a list of tokens.
    let server = Server::start(ECHO);
    let connection = |value: &str| {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {value}\r\n\r\n");
        raw(server.port(), request).expect("a response").header("connection").map(str::to_owned)
    };
    assert_eq!(connection("foo, close").as_deref(), Some("close"));
    assert_eq!(connection("CLOSE").as_deref(), Some("close"));
    assert_eq!(connection("keep-alive").as_deref(), Some("keep-alive"));
}

#[test]
fn a_path_is_decoded_and_its_dot_segments_removed_once() {
    let server = Server::start(ECHO);
    let uri = |target: &str| echo(&server, target).split('|').nth(1).unwrap_or_default().to_owned();
    for (target, expected) in [
        ("/a%20b", "/a b"),
        ("/%41", "/A"),
        ("/%2541", "/%41"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/b/..", "/a/"),
        ("/a/b/.", "/a/b/"),
        ("/a/%2e%2e/b", "/b"),
        ("/a%2fb", "/a/b"),
        ("/a%2F..%2Fb", "/b"),
        ("/a%3fb", "/a?b"),
        ("/a%23b", "/a#b"),
        ("/a//b///c", "/a/b/c"),
        ("/a/.b/..c/...", "/a/.b/..c/..."),
        ("/a#b", "/a"),
        ("/%ff", "/\u{fffd}"),
    ] {
        assert_eq!(uri(target), expected, "{target}");
    }
    assert_eq!(echo(&server, "/a%20b//c?d%20e"), "GET|/a b/c|d%20e|/a%20b//c?d%20e|a|HTTP/1.1|");
}

const TARGETS: &Table = &[
    ("GET /../a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /.. HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /a/../.. HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /%2e%2e/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /a/..%2f..%2f HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /a%0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /a%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /a% HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /a?b%zz%00.. HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    ("GET /a/../b/./c//d?x/../y HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    ("GET /%61%2F%2e%2E/b%3F HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    ("GET /a\\..\\b HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    ("GET /+a+?+b+ HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    ("GET //a//.//..//b HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    ("GET /? HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    ("GET /a#b?c HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    ("GET /%80%ff HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    ("GET /%0a%0d%09 HTTP/1.1\r\nHost: a\r\n\r\n", 200),
];

#[test]
fn targets_that_climb_or_do_not_decode_are_refused() {
    check_as_nginx(ECHO, TARGETS);
}

#[test]
fn merge_slashes_off_keeps_them() {
    let conf = "merge_slashes off; server { listen {port}; location / { return 200 $uri; }
        location //b { return 200 'double $uri'; } }";
    let server = Server::start(conf);
    let text = |path: &str| get(server.port(), path).text();
    assert_eq!(text("/a//b/..//c"), "/a///c");
    assert_eq!(text("//b"), "double //b");
    Parity::new(conf)
        .get(&["/a//b", "//b", "///", "/a//../b", "/a/.//..//b", "/%2f/a", "/a//./b", "/a//", "/a/b/..//"])
        .check();
}

#[test]
fn locations_are_chosen_by_the_normal_path() {
    let conf = "server { listen {port}; location / { return 200 root; } location /secret { return 403; }
        location = /exact { return 200 exact; } }";
    let server = Server::start(conf);
    for path in ["/%73ecret", "/a/../secret", "//secret", "/./secret", "/%2e/secret", "/a%2f..%2fsecret/x"] {
        assert_eq!(get(server.port(), path).status, 403, "{path}");
    }
    assert_eq!(get(server.port(), "//exact?x").text(), "exact");
}

/// A request whose request line (its end included) has so many bytes.
fn line_of(length: usize) -> String {
    let target = format!("/{}", "a".repeat(length - "GET / HTTP/1.1\r\n".len()));
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// A request with a field line (its end included) of so many bytes.
fn field_of(length: usize) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "b".repeat(length - "X: \r\n".len()))
}

const TOO_LARGE: &str = "<title>400 Request Header Or Cookie Too Large</title>";

#[test]
fn a_request_line_longer_than_a_large_buffer_is_414() {
    let conf = "client_header_buffer_size 100; large_client_header_buffers 2 600;
        server { listen {port}; return 204; }";
    let server = Server::start(conf);
    assert_eq!(raw_status(server.port(), line_of(100)), 204);
    assert_eq!(raw_status(server.port(), line_of(600)), 204);
    assert_eq!(raw_status(server.port(), line_of(602)), 414);
    // Also when the line never ends.
    assert_eq!(raw_status(server.port(), format!("GET /{}", "a".repeat(1000))), 414);
    let server = Server::start("server { listen {port}; return 204; }");
    assert_eq!(raw_status(server.port(), line_of(8191)), 204);
    assert_eq!(raw_status(server.port(), line_of(8193)), 414);
    eventually("a log line", || server.error_log().contains("client sent too long URI"));
    assert!(server.error_log().contains("[info]"), "{}", server.error_log());
}

#[test]
fn a_field_line_longer_than_a_large_buffer_is_400() {
    let server = Server::start("server { listen {port}; return 204; }");
    assert_eq!(raw_status(server.port(), field_of(8191)), 204);
    let response = raw(server.port(), field_of(8193)).expect("a response");
    assert_eq!(response.status, 400);
    assert!(response.text().contains(TOO_LARGE), "{}", response.text());
    eventually("a log line", || server.error_log().contains("client sent too long header line"));
}

#[test]
fn a_head_larger_than_all_its_buffers_is_400() {
    let server = Server::start("server { listen {port}; return 204; }");
    let head = |lines: usize| {
        let line = format!("X: {}\r\n", "b".repeat(6000));
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", line.repeat(lines))
    };
    assert_eq!(raw_status(server.port(), head(3)), 204);
    let response = raw(server.port(), head(9)).expect("a response");
    assert_eq!(response.status, 400);
    assert!(response.text().contains(TOO_LARGE), "{}", response.text());
    // A bounded first buffer alone is no limit: what is larger moves to a large one.
    let server = Server::start("client_header_buffer_size 64; server { listen {port}; return 204; }");
    assert_eq!(raw_status(server.port(), field_of(5000)), 204);
}

#[test]
fn header_buffers_overflow_as_in_nginx() {
    let conf = "client_header_buffer_size 1k; large_client_header_buffers 4 1k;
        server { listen {port}; return 200 $http_x; }";
    let lines = |count: usize, length: usize| {
        let line = format!("Y: {}\r\n", "b".repeat(length));
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", line.repeat(count))
    };
    let mut comparison = Parity::new(conf);
    for length in [900, 1000, 1100, 5000] {
        comparison = comparison.request(line_of(length)).request(field_of(length));
    }
    for (count, length) in [(1, 900), (4, 900), (6, 900), (20, 100), (60, 100), (200, 10), (900, 10)] {
        comparison = comparison.request(lines(count, length));
    }
    comparison.check();
}

#[test]
fn error_page_can_answer_for_heads_that_are_too_large() {
    let conf = "error_page 414 494 = /large; large_client_header_buffers 2 1k;
        server { listen {port}; location / { return 204; }
        location = /large { return 431 'too large'; } }";
    let server = Server::start(conf);
    assert_eq!(raw_status(server.port(), line_of(3000)), 431);
    assert_eq!(raw_status(server.port(), field_of(3000)), 431);
    parity(conf, &[&line_of(3000), &field_of(3000)]);
}

#[test]
fn more_field_lines_than_max_headers_are_refused() {
    // Since nginx 1.29: error 494, shown as 400.
    let server = Server::start("max_headers 5; server { listen {port}; return 204; }");
    let head = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
    assert_eq!(raw_status(server.port(), head(5)), 204);
    let response = raw(server.port(), head(6)).expect("a response");
    assert_eq!((response.status, response.header("connection")), (400, Some("close")));
    assert!(response.text().contains(TOO_LARGE), "{}", response.text());
    eventually("a log line", || server.error_log().contains("client sent too many header lines"));

    let server = Server::start("server { listen {port}; return 204; }");
    assert_eq!(raw_status(server.port(), head(1000)), 204);
    assert_eq!(raw_status(server.port(), head(1001)), 400);
}

const FIELD_LINES: &Table = &[
    ("GET / HTTP/1.1\r\nHost: a\r\nX:y\r\n\r\n", 200),
    ("GET / HTTP/1.1\r\nHost: a\r\nX:     y    \r\n\r\n", 200),
    ("GET / HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n", 200),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: a:b:c\r\n\r\n", 200),
    ("GET / HTTP/1.1\r\nhOST: a\r\nx: y\r\n\r\n", 200),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: \u{e4}\u{f6}\r\n\r\n", 200),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: a\tb\r\n\r\n", 200),
    // Names with unusual bytes are skipped.
    ("GET / HTTP/1.1\r\nHost: a\r\nX!: y\r\n\r\n", 200),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\u{e4}: y\r\n\r\n", 200),
    ("GET / HTTP/1.1\r\nHost: a\r\nX_Y: y\r\n\r\n", 200),
    // Control bytes and spaces in names, and folded lines, are refused.
    ("GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\n X: y\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\tY: y\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\x01: y\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\x7f: y\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\0: y\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: y\0z\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\n\rX: y\r\n\r\n", 400),
];

#[test]
fn field_lines_are_taken_and_refused_as_nginx_does() {
    check_as_nginx(ECHO, FIELD_LINES);
}

#[test]
fn a_carriage_return_in_a_field_line_s_end_is_refused() {
    // nginx skips it; RFC 9112 section 2.2 forbids it, since some take it for a line's end.
    check(
        ECHO,
        &[
            ("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\r\r\n\r\n", 400),
        ],
    );
}

#[test]
fn a_field_line_without_a_colon_is_refused() {
    // nginx takes it as a name without a value.
    check(
        ECHO,
        &[
            ("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nX-Y-Z\n\r\n", 400),
        ],
    );
}

#[test]
fn spaces_and_tabs_around_values_are_trimmed() {
    // nginx trims spaces only; RFC 9110 section 5.5 names the tab too.
    let server = Server::start(ECHO);
    for value in ["  v w  ", "\tv w\t", " \t v w \t "] {
        let request = format!("GET / HTTP/1.1\r\nHost:\ta \r\nX:{value}\r\n\r\n");
        let text = raw(server.port(), request).expect("a response").text();
        assert!(text.ends_with("|a|HTTP/1.1|v w"), "{value:?}: {text:?}");
    }
}

#[test]
fn names_with_underscores_are_skipped_unless_allowed() {
    let request = "GET / HTTP/1.1\r\nHost: a\r\nA_B: c\r\n\r\n";
    for (directive, expected) in [
        ("", ""),
        ("underscores_in_headers off;", ""),
        ("underscores_in_headers on;", "c"),
        ("ignore_invalid_headers off;", "c"),
    ] {
        let conf = format!("{directive} server {{ listen {{port}}; return 200 $http_a_b; }}");
        let server = Server::start(&conf);
        assert_eq!(raw(server.port(), request).expect("a response").text(), expected, "{directive}");
        if expected.is_empty() {
            eventually("a log line", || server.error_log().contains("client sent invalid header line"));
            assert!(server.error_log().contains("A_B: c"), "{}", server.error_log());
        }
        parity(&conf, &[request, "GET / HTTP/1.1\r\nHost: a\r\nA-B: c\r\n\r\n"]);
    }
}

#[test]
fn unusual_names_are_skipped_or_kept_as_configured() {
    let requests = [
        "GET / HTTP/1.1\r\nHost: a\r\nX!: y\r\nX: z\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n(X): y\r\nX: z\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\u{e4}: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX Y: y\r\n\r\n",
    ];
    for directive in ["ignore_invalid_headers on;", "ignore_invalid_headers off;"] {
        let conf = format!("{directive} server {{ listen {{port}}; return 200 '$http_x'; }}");
        let server = Server::start(&conf);
        let statuses: Vec<u16> = requests.iter().map(|bytes| raw_status(server.port(), bytes)).collect();
        assert_eq!(statuses, [200, 200, 200, 400], "{directive}");
        parity(&conf, &requests);
    }
}

const HOSTS: &Table = &[
    ("GET / HTTP/1.1\r\n\r\n", 400),
    ("GET / HTTP/1.0\r\n\r\n", 200),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a..b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: .\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    ("GET / HTTP/1.1\r\nHost: A.B.c\r\n\r\n", 200),
    ("GET / HTTP/1.1\r\nHost: a.b.:80\r\n\r\n", 200),
    ("GET / HTTP/1.1\r\nHost: a:8080\r\n\r\n", 200),
    ("GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", 200),
    ("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 200),
    // The absolute form's authority counts, but the field must be sound all the same.
    ("GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", 200),
    ("GET http://a/ HTTP/1.1\r\n\r\n", 400),
    ("GET http://a/ HTTP/1.1\r\nHost: b/c\r\n\r\n", 400),
    ("GET http://a..b/ HTTP/1.1\r\nHost: b\r\n\r\n", 400),
];

#[test]
fn host_rules_are_those_of_nginx() {
    check_as_nginx(ECHO, HOSTS);
}

#[test]
fn hosts_that_rfc_3986_does_not_allow_are_refused() {
    // As nginx does since 1.29; 1.22 let most of these pass.
    check(
        ECHO,
        &[
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\"b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 200),
            ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: \u{e4}\r\n\r\n", 400),
        ],
    );
}

const LENGTHS: &Table = &[
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 200),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 200),
    ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 200),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 003\r\n\r\nabc", 200),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\nabc", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3 3\r\n\r\nabc", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3;\r\n\r\nabc", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nabc", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n", 200),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n", 501),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 501),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 501),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;x\r\n\r\n0\r\n\r\n", 501),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
];

#[test]
fn body_lengths_in_doubt_are_refused_as_nginx_does() {
    check_as_nginx(ECHO, LENGTHS);
}

#[test]
fn fields_that_may_come_once_are_refused_twice() {
    let line = |fields: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let twice = ["Authorization", "If-Modified-Since", "If-None-Match", "If-Match", "If-Range"];
    let server = Server::start(ECHO);
    for name in twice {
        let bytes = line(&format!("{name}: x\r\n{name}: y\r\n"));
        assert_eq!(raw_status(server.port(), bytes), 400, "{name}");
    }
    eventually("a log line", || {
        let log = server.error_log();
        log.contains(
            "client sent duplicate header line: \"Authorization: y\", previous value: \"Authorization: x\"",
        )
    });
    for name in ["Cookie", "Accept", "X-Forwarded-For", "Accept-Encoding", "Via"] {
        let bytes = line(&format!("{name}: x\r\n{name}: y\r\n"));
        assert_eq!(raw_status(server.port(), bytes), 200, "{name}");
    }
}

#[test]
fn repeated_fields_are_joined_in_variables() {
    // As nginx does since 1.23.
    let conf = "server { listen {port}; return 200 '$http_x|$http_cookie|$http_accept'; }";
    let server = Server::start(conf);
    let bytes = "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\nCookie: a=b\r\nx: 2\r\nCookie: c=d\r\nAccept: e\r\nAccept: f\r\n\r\n";
    assert_eq!(raw(server.port(), bytes).expect("a response").text(), "1, 2|a=b; c=d|e, f");
}

#[test]
fn a_request_split_anywhere_is_the_same_request() {
    let server = Server::start(ECHO);
    let bytes = "GET /a%20b?c HTTP/1.1\r\nHost: Example.com:80\r\nX: y\r\n\r\n";
    let expected = "GET|/a b|c|/a%20b?c|example.com|HTTP/1.1|y";
    for at in 1..bytes.len() {
        let mut client = Client::connect(server.port());
        client.send(&bytes[..at]);
        std::thread::sleep(Duration::from_millis(1));
        client.send(&bytes[at..]);
        assert_eq!(client.read_response().text(), expected, "split at {at}");
    }
}

#[test]
fn a_head_request_with_a_bad_line_gets_no_body() {
    let server = Server::start("server { listen {port}; return 200; }");
    for target in ["*".to_owned(), "http:///x".to_owned(), "x".to_owned(), format!("/{}", "x".repeat(40_000))]
    {
        let mut client = Client::connect(server.port());
        client.try_send(format!("HEAD {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let response = client.read_head_response();
        assert!(matches!(response.status, 400 | 414), "{}", response.status);
        client.expect_closed();
    }
}
