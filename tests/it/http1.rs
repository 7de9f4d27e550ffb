//! HTTP/1 requests: what a head may look like, what its target means, and how responses are framed.
//!
//! Most behaviours stand in tables of raw requests and statuses; where nginx 1.22 does the same, the table is also held
//! against it.

use crate::util::{Client, Parity, Server, eventually, get, parity, raw, raw_status, request};
use std::time::{Duration, SystemTime};

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
    ("GET http://example.com?y HTTP/1.1\r\nHost: other\r\n\r\n", 200),
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
    ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 200),
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
    ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 200),
    ("GET / HTTP/1.10\r\nHost: a\r\n\r\n", 200),
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
        .request("GET /a.txt")
        .request("GET /missing\r\n")
        .request("GET http://a/a.txt\r\n")
        .request("HEAD /a.txt\r\n")
        .request("POST /a.txt\r\n")
        .request("GET /a.txt\r\nHost: a\r\n\r\n")
        .check();
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
    let head = |count: usize| {
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1))
    };
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
        parity(&conf, &[request, "GET / HTTP/1.1\r\nHost: a\r\nA-B: c\r\nA_B: d\r\n\r\n"]);
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
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        400,
    ),
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
        log.contains("client sent duplicate header line: \"Authorization: y\", previous value: \"Authorization: x\"")
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

const STATIC: &str = "server { listen {port}; root {root}/html; }";

fn site(text: &str) -> Parity {
    Parity::new(text).file("html/a.txt", "hello").file("html/index.html", "<p>").file("html/dir/a.txt", "x")
}

#[test]
fn files_answer_get_and_head_and_nothing_else() {
    let server = Server::builder(STATIC).file("html/a.txt", "hello").start();
    for (method, status) in
        [("GET", 200), ("HEAD", 200), ("POST", 405), ("PUT", 405), ("DELETE", 405), ("OPTIONS", 405), ("FOO", 405)]
    {
        assert_eq!(request(server.port(), method, "/a.txt", &[]).status, status, "{method}");
    }
    let mut comparison = site(STATIC);
    for method in ["GET", "HEAD", "POST", "PUT", "OPTIONS", "PATCH", "PROPFIND", "FOO"] {
        for path in ["/a.txt", "/", "/dir", "/dir/", "/missing"] {
            comparison = comparison.request(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        }
    }
    comparison.check();
}

#[test]
fn head_has_the_fields_of_get_and_no_body() {
    let conf = "server { listen {port}; root {root}/html; location /text { return 200 text; }
        location /error { return 404; } location /moved { return 301 /x; } location /none { return 204; } }";
    let server = Server::builder(conf).file("html/a.txt", "hello").start();
    for path in ["/a.txt", "/text", "/error", "/moved", "/none", "/missing"] {
        let get = request(server.port(), "GET", path, &[]);
        let mut client = Client::connect(server.port());
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        let head = client.read_head_response();
        client.expect_closed();
        let fields = |response: &crate::util::Response| {
            let date = |(name, _): &&(String, String)| name != "Date";
            response.headers.iter().filter(date).cloned().collect::<Vec<_>>()
        };
        assert_eq!((get.status, fields(&get)), (head.status, fields(&head)), "{path}");
    }
}

#[test]
fn limit_except_denies_the_other_methods() {
    let conf = "server { listen {port}; root {root}/html;
        location / { limit_except GET { deny all; } }
        location /post { limit_except POST OPTIONS { deny all; } try_files /a.txt =404; } }";
    let server = Server::builder(conf).file("html/a.txt", "hello").start();
    for (method, path, status) in [
        ("GET", "/a.txt", 200),
        ("HEAD", "/a.txt", 200),
        ("POST", "/a.txt", 403),
        ("OPTIONS", "/a.txt", 403),
        ("FOO", "/a.txt", 403),
        ("GET", "/post", 403),
        ("HEAD", "/post", 403),
        ("POST", "/post", 405),
        ("OPTIONS", "/post", 405),
    ] {
        assert_eq!(request(server.port(), method, path, &[]).status, status, "{method} {path}");
    }
    let mut comparison = site(conf);
    for method in ["GET", "HEAD", "POST", "PUT", "OPTIONS", "FOO"] {
        for path in ["/a.txt", "/post"] {
            comparison = comparison.request(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        }
    }
    comparison.check();
}

#[test]
fn limit_except_with_allow_lets_chosen_addresses_in() {
    let conf = "server { listen {port}; root {root}/html;
        location / { limit_except GET { allow 127.0.0.0/8; deny all; } } }";
    let server = Server::builder(conf).file("html/a.txt", "hello").start();
    assert_eq!(request(server.port(), "POST", "/a.txt", &[]).status, 405);
    let output = Server::builder("server { listen {port}; location / { limit_except NONSENSE { deny all; } } }").run(&["-t"]);
    assert!(!output.status.success());
    assert!(output.stderr.contains("invalid method \"NONSENSE\""), "{}", output.stderr);
}

/// So many pipelined GETs on one connection; all answers are read while the requests are still being sent.
fn pipeline(server: &Server, path: &str, count: usize) -> Vec<Vec<u8>> {
    let stream = std::net::TcpStream::connect(("127.0.0.1", server.port())).expect("connect");
    let mut sender = Client::over_tcp(stream.try_clone().expect("clone"));
    let mut receiver = Client::over_tcp(stream);
    let requests: String =
        (0..count).map(|number| format!("GET {path}?{number} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            sender.send(requests);
        });
        (0..count)
            .map(|_| {
                let response = receiver.read_response();
                assert_eq!(response.status, 200);
                response.body
            })
            .collect()
    })
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let conf = "keepalive_requests 100000; server { listen {port}; root {root}/html;
        location /echo { return 200 $args; } }";
    let server = Server::builder(conf).file("html/a.txt", "hello").start();
    for count in [16, 100, 10_000] {
        let bodies = pipeline(&server, "/echo", count);
        for (number, body) in bodies.iter().enumerate() {
            assert_eq!(body, number.to_string().as_bytes());
        }
        assert!(pipeline(&server, "/a.txt", count).iter().all(|body| body == b"hello"));
    }
    let lines = server.access_log_lines(2 * (16 + 100 + 10_000));
    assert_eq!(lines.len(), 2 * (16 + 100 + 10_000));
}

#[test]
fn pipelined_requests_of_all_kinds_keep_their_framing() {
    let bytes = "GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n\
        HEAD /a.txt HTTP/1.1\r\nHost: a\r\n\r\n\
        POST /a.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /\
        GET /missing HTTP/1.1\r\nHost: a\r\n\r\n\
        POST /dir/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
        \r\nGET /dir HTTP/1.1\r\nHost: a\r\n\r\n\
        GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let server = Server::builder(STATIC)
        .file("html/a.txt", "hello")
        .file("html/index.html", "<p>")
        .file("html/dir/a.txt", "x")
        .start();
    let mut client = Client::connect(server.port());
    client.send(bytes);
    let mut statuses = Vec::new();
    for method in ["GET", "HEAD", "POST", "GET", "POST", "GET", "GET"] {
        statuses.push(client.response_to(method).expect("a response").status);
    }
    client.expect_closed();
    assert_eq!(statuses, [200, 200, 405, 404, 403, 301, 200]);
    site(STATIC).pipelined(bytes, 7).check();
}

#[test]
fn requests_behind_a_close_are_not_answered() {
    let server = Server::start(ECHO);
    let mut client = Client::connect(server.port());
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.read_response().text().starts_with("GET|/1|"));
    client.expect_closed();
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
fn server_tokens_say_what_the_server_calls_itself() {
    let answer = |directive: &str| {
        let server = Server::start(&format!(
            "{directive} server {{ listen {{port}}; location / {{ return 404; }} }}"
        ));
        let response = get(server.port(), "/");
        (response.header("server").map(str::to_owned), response.text())
    };
    let version = concat!("thalweg/", env!("CARGO_PKG_VERSION"));
    for directive in ["", "server_tokens on;"] {
        let (server, page) = answer(directive);
        assert_eq!(server.as_deref(), Some(version), "{directive}");
        assert!(page.contains(&format!("<hr><center>{version}</center>")), "{page}");
    }
    let (server, page) = answer("server_tokens off;");
    assert_eq!(server.as_deref(), Some("thalweg"));
    assert!(page.contains("<hr><center>thalweg</center>"), "{page}");
    let (server, page) = answer("server_tokens build;");
    let server = server.expect("a Server field");
    assert!(server.starts_with(version), "{server}");
    assert!(page.contains(&server), "{page}");
    // A string of one's own, also with variables; empty, there is neither field nor signature.
    let (server, page) = answer("server_tokens 'mine $request_method';");
    assert_eq!(server.as_deref(), Some("mine GET"));
    assert!(page.contains("<hr><center>mine GET</center>"), "{page}");
    let (server, page) = answer("server_tokens '';");
    assert_eq!(server, None);
    assert!(!page.contains("<hr>"), "{page}");
}

#[test]
fn server_tokens_on_and_off_look_as_in_nginx() {
    for value in ["on", "off"] {
        Parity::new(&format!("server_tokens {value}; server {{ listen {{port}}; location / {{ return 404; }} location /t {{ return 200 t; }} }}"))
            .get(&["/", "/t"])
            .strict_order()
            .check();
    }
}

#[test]
fn date_is_now() {
    let server = Server::start(ECHO);
    let dates: Vec<SystemTime> = (0..2)
        .map(|_| {
            let response = get(server.port(), "/");
            assert_eq!(response.header_all("date").len(), 1);
            let date = httpdate::parse_http_date(response.header("date").unwrap_or_default()).expect("a date");
            std::thread::sleep(Duration::from_millis(1100));
            date
        })
        .collect();
    assert!(dates[0] < dates[1], "it stands still: {dates:?}");
    let apart = |date: SystemTime| {
        let now = SystemTime::now();
        now.duration_since(date).or_else(|_| date.duration_since(now)).expect("a duration")
    };
    assert!(apart(dates[1]) < Duration::from_secs(60), "{dates:?}");
}

#[test]
fn chunked_transfer_encoding_off_ends_bodies_with_the_connection() {
    // A trailer makes nginx chunk a body whose length it knows.
    let conf = |flag: &str| {
        format!(
            "server {{ listen {{port}}; root {{root}}/html; add_trailer X-T v; chunked_transfer_encoding {flag};
            autoindex on; }}"
        )
    };
    let server = Server::builder(&conf("on")).file("html/a.txt", "hello").start();
    let response = get(server.port(), "/a.txt");
    assert_eq!(response.trailers, [("X-T".to_owned(), "v".to_owned())]);
    assert_eq!((response.text().as_str(), response.header("content-length")), ("hello", None));
    // HTTP/1.0 has neither chunks nor trailers.
    let response = raw(server.port(), "GET /a.txt HTTP/1.0\r\n\r\n").expect("a response");
    assert_eq!((response.text().as_str(), response.chunks), ("hello", None));

    let server = Server::builder(&conf("off")).file("html/a.txt", "hello").start();
    let response = raw(server.port(), "GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n").expect("a response");
    assert_eq!((response.text().as_str(), response.chunks), ("hello", None));
    assert!(response.trailers.is_empty());

    for flag in ["on", "off"] {
        Parity::new(&conf(flag))
            .file("html/a.txt", "hello")
            .get(&["/a.txt"])
            .request("GET /a.txt HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            .request("HEAD /a.txt HTTP/1.1\r\nHost: a\r\n\r\n")
            .check();
    }
}

#[test]
fn default_type_is_for_extensions_that_are_not_known() {
    let conf = "server { listen {port}; root {root}/html; types { text/css css; }
        location / { default_type text/x-default; } location /none/ { types { } default_type 'a/b; c=d'; }
        location /return { default_type application/json; return 200 '{}'; } }";
    let server = Server::builder(conf)
        .file("html/a.unknown", "x")
        .file("html/a.css", "x")
        .file("html/plain", "x")
        .file("html/none/a.css", "x")
        .start();
    for (path, expected) in [
        ("/a.unknown", "text/x-default"),
        ("/a.css", "text/css"),
        ("/plain", "text/x-default"),
        ("/none/a.css", "a/b; c=d"),
        ("/return", "application/json"),
    ] {
        assert_eq!(get(server.port(), path).header("content-type"), Some(expected), "{path}");
    }
    Parity::new(conf)
        .file("html/a.unknown", "x")
        .file("html/a.css", "x")
        .file("html/none/a.css", "x")
        .get(&["/a.unknown", "/a.css", "/none/a.css", "/return"])
        .check();
}

#[test]
fn a_plain_response_has_nginx_s_fields_in_nginx_s_order() {
    site(STATIC).get(&["/a.txt", "/", "/dir", "/missing"]).strict_order().check();
}
