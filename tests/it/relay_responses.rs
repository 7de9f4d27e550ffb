//! Responses of upstreams on their way to the client: how their end is found and shown again, what is skipped, what is
//! never taken for an answer, and what is never taken for complete.

use crate::util::{Client, Peer, Server, Upstream, eventually, get, proxy, proxy_with, raw, request};
use std::io::Read;
use std::time::Duration;

/// Bytes that repeat nowhere near.
fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8 ^ (at / 251 % 256) as u8).collect()
}

/// The number that a path ends with.
fn number(head: &str) -> usize {
    let path = head.split(' ').nth(1).expect("a path");
    path.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().expect("a number")
}

fn with_length(body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn in_chunks(body: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in body.chunks(size) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// Answers the first request of each connection with these bytes and closes.
fn once(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Upstream {
    Upstream::start(move |mut peer: Peer| {
        if peer.read_request().is_some() {
            peer.try_send(&bytes);
        }
    })
}

/// Answers every request of a connection with these bytes.
fn always(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Upstream {
    Upstream::http(move |_, _| bytes.as_ref().to_vec())
}

fn no_alarm(server: &Server) {
    let log = server.error_log();
    for word in ["[alert]", "[emerg]", "panic", "exited on signal"] {
        assert!(!log.contains(word) && !server.stderr().contains(word), "{log}\n{}", server.stderr());
    }
}

const SIZES: [usize; 8] = [0, 1, 4095, 4096, 4097, 65_536, 100_001, 3_000_000];

#[test]
fn a_body_of_known_length_arrives_whole() {
    let upstream = Upstream::http(|head, _| with_length(&content(number(head))));
    let server = proxy(&upstream);
    let mut client = Client::connect(server.port());
    for size in SIZES {
        client.send(format!("GET /{size} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let response = client.read_response();
        assert_eq!(response.header("content-length"), Some(&*size.to_string()));
        assert!(response.body == content(size), "{size}");
    }
    no_alarm(&server);
}

#[test]
fn a_chunked_body_arrives_whole_whatever_its_chunks() {
    let upstream = Upstream::http(|head, _| {
        in_chunks(&content(number(head)), if number(head) < 5000 { 1 } else { 7919 })
    });
    let server = proxy(&upstream);
    let mut client = Client::connect(server.port());
    for size in SIZES {
        client.send(format!("GET /{size} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let response = client.read_response();
        assert!(response.chunks.is_some(), "{:?}", response.headers);
        assert_eq!(response.header("content-length"), None);
        assert!(response.body == content(size), "{size}");
        // An old client gets the same without the coding.
        let response = raw(server.port(), format!("GET /{size} HTTP/1.0\r\n\r\n")).expect("a response");
        assert!(response.until_close && response.header("transfer-encoding").is_none());
        assert!(response.body == content(size), "{size}");
    }
    no_alarm(&server);
}

#[test]
fn a_body_that_ends_with_its_connection_arrives_whole_and_with_a_marked_end() {
    for version in ["1.0", "1.1"] {
        let upstream = Upstream::start(move |mut peer: Peer| {
            let Some((head, _)) = peer.read_request() else { return };
            peer.send(format!("HTTP/{version} 200 OK\r\nX-Kind: close\r\n\r\n"));
            peer.send(content(number(&head)));
        });
        let server = proxy(&upstream);
        let mut client = Client::connect(server.port());
        for size in SIZES {
            client.send(format!("GET /{size} HTTP/1.1\r\nHost: a\r\n\r\n"));
            let response = client.read_response();
            assert!(response.chunks.is_some() && response.body == content(size), "{size}");
            let response = raw(server.port(), format!("GET /{size} HTTP/1.0\r\n\r\n")).expect("a response");
            assert!(response.until_close && response.body == content(size), "{size}");
        }
        assert_eq!(upstream.accepted(), 2 * SIZES.len());
        no_alarm(&server);
    }
}

#[test]
fn a_response_may_come_byte_by_byte() {
    for bytes in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello"[..],
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nT: v\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nX-A: b\r\n\r\nhello",
    ] {
        let upstream = Upstream::start(move |mut peer: Peer| {
            if peer.read_request().is_some() {
                peer.send_slowly(bytes, Duration::from_millis(1));
            }
        });
        let server = proxy(&upstream);
        let response = get(server.port(), "/");
        assert_eq!((response.status, response.text().as_str()), (200, "hello"));
        assert_eq!(response.header("x-a"), Some("b"));
        assert_eq!(upstream.accepted(), 1);
    }
}

#[test]
fn the_response_to_head_has_a_length_and_no_body() {
    let upstream = Upstream::http(|head, _| {
        if head.starts_with("HEAD /chunked") {
            return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n".to_vec();
        }
        assert!(head.starts_with("HEAD /length"), "{head}");
        b"HTTP/1.1 200 OK\r\nContent-Length: 123456\r\nX-A: b\r\n\r\n".to_vec()
    });
    let server = proxy(&upstream);
    let mut client = Client::connect(server.port());
    for _ in 0..3 {
        client.send("HEAD /length HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = client.read_head_response();
        assert_eq!((response.status, response.header("content-length")), (200, Some("123456")));
        client.send("HEAD /chunked HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = client.read_head_response();
        assert_eq!((response.status, response.header("content-length")), (200, None));
        assert_eq!(response.header("x-a"), Some("b"));
    }
    // Nothing is in doubt about where these responses end.
    assert_eq!(upstream.accepted(), 1);
    no_alarm(&server);
}

#[test]
fn responses_that_have_no_body_get_no_framing_of_one() {
    for (status, fields) in [
        ("204 No Content", ""),
        ("204 No Content", "Content-Length: 0\r\n"),
        ("204 No Content", "Content-Length: 7\r\n"),
        ("204 No Content", "Transfer-Encoding: chunked\r\n"),
        ("304 Not Modified", ""),
        ("304 Not Modified", "Transfer-Encoding: chunked\r\n"),
    ] {
        let upstream = always(format!("HTTP/1.1 {status}\r\n{fields}ETag: \"x\"\r\n\r\n"));
        let server = proxy(&upstream);
        let mut client = Client::connect(server.port());
        for _ in 0..3 {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            let response = client.read_response();
            assert!(status.starts_with(&response.status.to_string()));
            for field in ["content-length", "transfer-encoding"] {
                assert_eq!(response.header(field), None, "{status} {fields:?}: {:?}", response.headers);
            }
        }
        client.expect_quiet(Duration::from_millis(20));
        no_alarm(&server);
    }
}

#[test]
fn the_body_of_a_response_that_may_not_have_one_reaches_nobody() {
    for status in ["204 No Content", "304 Not Modified"] {
        let upstream = always(format!("HTTP/1.1 {status}\r\nContent-Length: 6\r\n\r\nSECRET"));
        let server = proxy(&upstream);
        let mut client = Client::connect(server.port());
        for _ in 0..5 {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert!(status.starts_with(&client.read_response().status.to_string()));
        }
        client.expect_quiet(Duration::from_millis(20));
        assert_eq!(upstream.accepted(), 5, "{status}");
        no_alarm(&server);
    }
}

#[test]
fn the_body_behind_a_response_to_head_reaches_nobody() {
    let upstream = always("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nSECRET");
    let server = proxy(&upstream);
    let mut client = Client::connect(server.port());
    for _ in 0..5 {
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_head_response().header("content-length"), Some("6"));
    }
    client.expect_quiet(Duration::from_millis(20));
    assert_eq!(upstream.accepted(), 5);
}

#[test]
fn trailers_are_read_and_passed_only_where_asked_for() {
    let bytes = "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 17\r\n\r\n";
    for (directives, expected) in [("", None), ("proxy_pass_trailers on;", Some("17"))] {
        let upstream = always(bytes);
        let server = proxy_with(&upstream, directives);
        let mut client = Client::connect(server.port());
        for _ in 0..3 {
            client.send("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n");
            let response = client.read_response();
            assert_eq!(response.text(), "hello");
            let found = response.trailers.iter().find(|(name, _)| name == "X-Sum");
            assert_eq!(found.map(|(_, value)| value.as_str()), expected, "{response:?}");
        }
        assert_eq!(upstream.accepted(), 1);
        no_alarm(&server);
    }
}

#[test]
fn interim_responses_are_skipped() {
    let upstream = always(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nX-Not: this\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let server = proxy(&upstream);
    let mut client = Client::connect(server.port());
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = client.read_response();
        assert_eq!((response.status, response.text().as_str(), response.interim.len()), (200, "ok", 0));
        assert_eq!((response.header("x-not"), response.header("link")), (None, None), "{response:?}");
    }
    assert_eq!(upstream.accepted(), 1);
    no_alarm(&server);
}

#[test]
fn early_hints_are_passed_where_asked_for() {
    let upstream = Upstream::start(|mut peer: Peer| {
        while let Some((head, _)) = peer.read_request() {
            let pause = head.starts_with("GET /slow");
            for part in [
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n",
                "HTTP/1.1 103 Early Hints\r\nLink: </b>; rel=preload\r\n\r\n",
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            ] {
                peer.send(part);
                if pause {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
    });
    let server = proxy_with(&upstream, "early_hints $http_x_hints;");
    let mut client = Client::connect(server.port());
    for path in ["/slow", "/fast", "/slow"] {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Hints: 1\r\n\r\n"));
        for link in ["</a>; rel=preload", "</b>; rel=preload"] {
            let interim = client.read_interim();
            assert_eq!((interim.status, interim.header("link")), (103, Some(link)));
        }
        let response = client.read_response();
        assert_eq!((response.status, response.text().as_str(), response.header("link")), (200, "ok", None));
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let response = client.read_response();
        assert_eq!((response.status, response.interim.len()), (200, 0));
    }
    no_alarm(&server);
}

/// Whole responses are only those that end as they say.
#[track_caller]
fn is_cut(server: &Server, version: &str, wanted: &str) {
    let mut client = Client::connect(server.port());
    client.send(format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n"));
    let error = client.response_to("GET").expect_err("an incomplete response");
    assert!(error.starts_with("closed"), "{error}");
    eventually("a reason in the log", || server.error_log().contains(wanted));
    no_alarm(server);
}

#[test]
fn a_body_shorter_than_its_length_is_never_complete() {
    let upstream = once("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this");
    let server = proxy(&upstream);
    for version in ["1.0", "1.1"] {
        is_cut(&server, version, "upstream prematurely closed connection");
    }
    let upstream =
        once([&b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n"[..], &content(2_999_999)].concat());
    is_cut(&proxy(&upstream), "1.1", "upstream prematurely closed connection");
}

#[test]
fn a_chunked_body_without_its_last_chunk_is_never_complete() {
    for end in
        ["", "5\r\n", "5\r\nhel", "5\r\nhello\r\n", "5\r\nhello\r\n0\r\n", "5\r\nhello\r\n0\r\nT: v\r\n"]
    {
        let upstream = once(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{end}"));
        let server = proxy(&upstream);
        is_cut(&server, "1.1", "upstream prematurely closed connection");
        // Without any framing only a reset tells a client of old.
        assert!(is_reset(&server), "{end:?}");
    }
}

/// Asks in HTTP/1.0; whether the answer ends with a reset.
fn is_reset(server: &Server) -> bool {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", server.port())).expect("connect");
    stream.set_read_timeout(Some(crate::util::PATIENCE)).expect("a timeout");
    std::io::Write::write_all(&mut stream, b"GET / HTTP/1.0\r\n\r\n").expect("send");
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => true,
        Ok(_) => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_reset_within_a_body_that_ends_with_its_connection_is_never_its_end() {
    let upstream = Upstream::start(|mut peer: Peer| {
        if peer.read_request().is_some() {
            peer.send("HTTP/1.0 200 OK\r\n\r\nsome");
            std::thread::sleep(Duration::from_millis(50));
            peer.reset();
        }
    });
    let server = proxy(&upstream);
    is_cut(&server, "1.1", "while reading upstream");
    assert!(is_reset(&server));
    no_alarm(&server);
}

/// A response made up by chance: its bytes, its body, how it is sent, and where it is cut.
struct Chance {
    bytes: Vec<u8>,
    body: Vec<u8>,
    piece: usize,
    pauses: bool,
    cut: Option<usize>,
    ends: bool,
}

impl Chance {
    fn new(seed: u64) -> Chance {
        let mut random = fastrand::Rng::with_seed(seed);
        let length = match random.u8(..4) {
            0 => random.usize(..10),
            1 => random.usize(..5_000),
            2 => random.usize(..70_000),
            _ => random.usize(..600_000),
        };
        let body: Vec<u8> = content(length).iter().map(|byte| byte ^ seed as u8).collect();
        let framing = random.u8(..3);
        let bytes = match framing {
            0 => with_length(&body),
            1 => in_chunks(&body, random.usize(1..20_000) + length / 500),
            _ => [b"HTTP/1.1 200 OK\r\n\r\n", &body[..]].concat(),
        };
        // A close is the end of a body that ends with its connection: only a reset cuts it.
        let cut = (framing < 2 && random.bool()).then(|| random.usize(..bytes.len()));
        let small = bytes.len() < 3000;
        let piece = if small { random.usize(1..200) } else { random.usize(1000..200_000) };
        Chance {
            piece,
            pauses: random.u8(..4) == 0,
            cut,
            ends: framing == 2 || random.u8(..4) == 0,
            bytes,
            body,
        }
    }

    /// Sends it; whether the connection lives on.
    fn send(&self, peer: &mut Peer) -> bool {
        for piece in self.bytes[..self.cut.unwrap_or(self.bytes.len())].chunks(self.piece) {
            if !peer.try_send(piece) {
                return false;
            }
            if self.pauses {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        self.cut.is_none() && !self.ends
    }
}

#[test]
fn whatever_is_shown_as_complete_is() {
    const CLIENTS: u64 = 8;
    const ROUNDS: u64 = 60;
    let upstream = Upstream::start(|mut peer: Peer| {
        while let Some((head, _)) = peer.read_request() {
            let chance = Chance::new(number(&head) as u64);
            if chance.send(&mut peer) {
                continue;
            }
            if chance.cut.is_some_and(|cut| cut % 2 == 0) {
                peer.reset();
            }
            return;
        }
    });
    for directives in [
        "",
        "proxy_buffering off;",
        "proxy_max_temp_file_size 64k;",
        "proxy_buffers 2 1k; proxy_busy_buffers_size 1k; proxy_buffer_size 1k;",
    ] {
        let server = proxy_with(&upstream, directives);
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let port = server.port();
                scope.spawn(move || {
                    let mut connection = Client::connect(port);
                    for round in 0..ROUNDS {
                        let seed = client * ROUNDS + round;
                        let chance = Chance::new(seed);
                        connection.try_send(format!("GET /{seed} HTTP/1.1\r\nHost: a\r\n\r\n"));
                        if seed.is_multiple_of(7) {
                            std::thread::sleep(Duration::from_millis(5));
                        }
                        match connection.response_to("GET") {
                            Ok(response) if response.status == 502 => assert!(chance.cut.is_some(), "{seed}"),
                            Ok(response) => {
                                assert!(
                                    chance.cut.is_none() && response.body == chance.body,
                                    "{seed} {directives}"
                                );
                            }
                            Err(error) => {
                                assert!(chance.cut.is_some(), "{seed} {directives}: {error}");
                                connection = Client::connect(port);
                            }
                        }
                    }
                });
            }
        });
        no_alarm(&server);
    }
}

#[test]
fn bytes_behind_a_response_reach_nobody_and_end_its_connection() {
    for bytes in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokSECRET",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nSECRET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nSECRET",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\n",
    ] {
        let upstream = always(bytes);
        let server = proxy(&upstream);
        let mut client = Client::connect(server.port());
        for _ in 0..5 {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            let response = client.read_response();
            assert_eq!((response.status, response.text().as_str()), (200, "ok"), "{bytes:?}");
        }
        client.expect_quiet(Duration::from_millis(20));
        assert_eq!(upstream.accepted(), 5, "{bytes:?}");
        no_alarm(&server);
    }
}

#[test]
fn bytes_that_come_while_a_connection_is_idle_end_it() {
    let upstream = Upstream::start(|mut peer: Peer| {
        while peer.read_request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            std::thread::sleep(Duration::from_millis(30));
            peer.try_send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nSECRET");
        }
    });
    let server = proxy(&upstream);
    let mut client = Client::connect(server.port());
    for round in 0..3 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_response().text(), "ok", "{round}");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(upstream.accepted(), 3);
}

/// Heads that are no answer, each with the reason in the error log. A `SECRET` in them must reach nobody.
const BAD: &[(&str, &str)] = &[
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nSECRET\r\n0\r\n\r\n",
        "at the same time",
    ),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\nSECRET", "at the same time"),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nContent-Length: 5\r\n\r\nSECRET",
        "more than one \"Content-Length\"",
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nContent-Length: 6\r\n\r\nSECRET",
        "more than one \"Content-Length\"",
    ),
    ("HTTP/1.1 200 OK\r\nContent-Length: 6, 6\r\n\r\nSECRET", "invalid \"Content-Length\""),
    ("HTTP/1.1 200 OK\r\nContent-Length: +6\r\n\r\nSECRET", "invalid \"Content-Length\""),
    ("HTTP/1.1 200 OK\r\nContent-Length: -6\r\n\r\nSECRET", "invalid \"Content-Length\""),
    ("HTTP/1.1 200 OK\r\nContent-Length: 0x6\r\n\r\nSECRET", "invalid \"Content-Length\""),
    ("HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nSECRET", "invalid \"Content-Length\""),
    ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nSECRET", "invalid \"Content-Length\""),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\nSECRET", "unknown \"Transfer-Encoding\""),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n6\r\nSECRET\r\n0\r\n\r\n",
        "unknown \"Transfer-Encoding\"",
    ),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\nSECRET", "unknown \"Transfer-Encoding\""),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\nSECRET",
        "more than one \"Transfer-Encoding\"",
    ),
    ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nSECRET\r\n0\r\n\r\n", "with HTTP/1.0"),
    (
        "HTTP/1.1 200 OK\r\nContent-Length : 6\r\n\r\nSECRET",
        "whitespace between a header's name and its colon",
    ),
    ("HTTP/1.1 200 OK\r\nX A: SECRET\r\n\r\n", "invalid header name"),
    ("HTTP/1.1 200 OK\r\n: SECRET\r\n\r\n", "invalid header name"),
    ("HTTP/1.1 200 OK\r\nX(a): SECRET\r\n\r\n", "invalid header name"),
    ("HTTP/1.1 200 OK\r\nX-A SECRET\r\n\r\n", "without a colon"),
    ("HTTP/1.1 200 OK\r\nX-A: b\r\n SECRET\r\n\r\n", "folded header line"),
    ("HTTP/1.1 200 OK\r\nX-A: SECRET\0\r\n\r\n", "control character in the value"),
    ("HTTP/1.1 200 OK\r\nX-A: SECRET\rX-B: c\r\n\r\n", "upstream sent"),
    ("HTTP/1.1 200 SECRET\x01\r\n\r\n", "control character in its reason phrase"),
    ("HTTP/1.1 20 SECRET\r\n\r\n", "upstream sent"),
    ("HTTP/1.1 2000 SECRET\r\n\r\n", "upstream sent"),
    ("HTTP/1.1 2x0 SECRET\r\n\r\n", "upstream sent"),
    ("HTTP/1.1  200 SECRET\r\n\r\n", "upstream sent"),
    ("HTTP/1.1\t200 SECRET\r\n\r\n", "upstream sent"),
    ("HTTP/1.1\r\nX: SECRET\r\n\r\n", "upstream sent"),
    ("HTTP/1.1 099 SECRET\r\n\r\n", "not in 100 to 599"),
    ("HTTP/1.1 600 SECRET\r\n\r\n", "not in 100 to 599"),
    ("HTTP/1.1 999 SECRET\r\n\r\n", "not in 100 to 599"),
    ("HTTP/2.0 200 SECRET\r\n\r\n", "upstream sent"),
    ("HTTP/11 200 SECRET\r\n\r\n", "upstream sent"),
    ("http/1.1 200 SECRET\r\n\r\n", "upstream sent"),
    ("ICY 200 SECRET\r\n\r\n", "no valid HTTP/1 header"),
    ("SECRET\r\n\r\n", "no valid HTTP/1 header"),
    ("<html>SECRET</html>", "no valid HTTP/1 header"),
    ("\r\n\r\nHTTP/1.1 200 OK\r\n\r\nSECRET", "no valid HTTP/1 header"),
    ("\x16\x03\x01\x02SECRET", "no valid HTTP/1 header"),
    (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nSECRET",
        "101 although no upgrade",
    ),
    ("HTTP/1.1 200 OK\r\nX-A: SECRET\r\n", "upstream prematurely closed connection"),
    ("HTTP/1.1 2", "upstream prematurely closed connection"),
    ("HTTP/1.1 100 Continue\r\nX-A: SECRET\r\n\r\n", "upstream prematurely closed connection"),
    ("", "upstream closed the connection before its response began"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nSECRET\r\n0\r\n\r\n", "invalid chunked response"),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-6\r\nSECRET\r\n0\r\n\r\n",
        "invalid chunked response",
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nSECRET\r\n0\r\n\r\n",
        "invalid chunked response",
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\nSECRET\r\n0\r\n\r\n",
        "invalid chunked response",
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x6\r\nSECRET\r\n0\r\n\r\n",
        "invalid chunked response",
    ),
];

#[test]
fn bad_and_ambiguous_responses_are_502_with_the_reason() {
    let upstream = Upstream::start(|mut peer: Peer| {
        if let Some((head, _)) = peer.read_request() {
            peer.try_send(BAD[number(&head)].0);
        }
    });
    let server = proxy(&upstream);
    let mut wrong = String::new();
    for (index, (bytes, _)) in BAD.iter().enumerate() {
        let mut client = Client::connect(server.port());
        client.send(format!("GET /{index} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
        let text = String::from_utf8_lossy(&client.read_to_end()).into_owned();
        if !text.starts_with("HTTP/1.1 502 Bad Gateway\r\n") || text.contains("SECRET") {
            wrong.push_str(&format!("{bytes:?}: {text:?}\n"));
        }
    }
    // The log is written behind the responses.
    let last = format!("request: \"GET /{} HTTP/1.1\"", BAD.len() - 1);
    eventually("the last line", || server.error_log().contains(&last));
    let log = server.error_log();
    for (index, (bytes, reason)) in BAD.iter().enumerate() {
        let request = format!("request: \"GET /{index} HTTP/1.1\"");
        let of_this = |line: &&str| line.contains(&request) && line.contains("[error]");
        let lines: Vec<&str> = log.lines().filter(of_this).collect();
        if lines.len() != 1 || !lines[0].contains(reason) {
            wrong.push_str(&format!("{bytes:?}: {reason:?} is not the line of {lines:#?}\n"));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    no_alarm(&server);
}

#[test]
fn heads_over_the_buffer_are_502() {
    let upstream = Upstream::http(|head, _| {
        let size = number(head);
        let filler = "x".repeat(size - "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: \r\n\r\n".len());
        format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: {filler}\r\n\r\nok").into_bytes()
    });
    let server = proxy_with(&upstream, "proxy_buffer_size 4k;");
    for (size, status) in [(4000, 200), (4096, 200), (4097, 502), (100_000, 502)] {
        let response = get(server.port(), &format!("/{size}"));
        assert_eq!(response.status, status, "{size}");
        assert_eq!(response.header("x").is_some(), status == 200);
    }
    eventually("reasons", || server.error_log().matches("upstream sent too big header").count() == 2);
    // A head that never ends, either: it is bounded.
    let upstream = Upstream::start(|mut peer: Peer| {
        peer.read_request();
        peer.send("HTTP/1.1 200 OK\r\n");
        while peer.try_send("X-A: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n") {}
    });
    let server = proxy(&upstream);
    assert_eq!(get(server.port(), "/").status, 502);
    no_alarm(&server);
}

#[test]
fn interim_responses_without_end_are_502() {
    let upstream = Upstream::start(|mut peer: Peer| {
        peer.read_request();
        while peer.try_send("HTTP/1.1 103 Early Hints\r\nX-A: b\r\n\r\n") {}
    });
    for directives in ["", "early_hints 1;"] {
        let server = proxy_with(&upstream, directives);
        let mut client = Client::connect(server.port());
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_response().status, 502);
        eventually("a reason", || server.error_log().contains("upstream sent too many interim responses"));
        no_alarm(&server);
    }
}

#[test]
fn bad_chunks_behind_good_ones_cut_the_response() {
    let upstream = Upstream::start(|mut peer: Peer| {
        peer.read_request();
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        std::thread::sleep(Duration::from_millis(50));
        peer.try_send("SECRET\r\n0\r\n\r\n");
    });
    let server = proxy(&upstream);
    let mut client = Client::connect(server.port());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let text = String::from_utf8_lossy(&client.read_to_end()).into_owned();
    assert!(text.ends_with("\r\n\r\n5\r\nhello\r\n"), "{text:?}");
    eventually("a reason in the log", || server.error_log().contains("invalid chunked response"));
    no_alarm(&server);
}

#[test]
fn between_upstream_and_us_stays_between_us() {
    let upstream = always(
        "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: SECRET\r\n\
         Proxy-Connection: SECRET\r\nUpgrade: SECRET\r\nTE: SECRET\r\nX-End: b\r\nContent-Length: 2\r\n\r\nok",
    );
    let server = proxy(&upstream);
    let response = request(server.port(), "GET", "/", &[]);
    assert_eq!((response.text().as_str(), response.header("x-end")), ("ok", Some("b")));
    assert!(!format!("{:?}", response.headers).contains("SECRET"), "{:?}", response.headers);
    assert_eq!(response.header("keep-alive"), None);
}
