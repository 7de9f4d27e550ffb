//! Garbage, oversize, slow and malicious input: the right status or a close, one log line at the right level, bounded
//! memory, and a server that goes on.

use crate::util::{Client, Server, eventually, raw, raw_status};
use std::time::Duration;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const PLAIN: &str = "server { listen {port}; location / { return 200 $request_uri; } }";

#[track_caller]
fn is_alive(server: &mut Server) {
    assert_eq!(raw_status(server.port(), GET), 200);
    assert!(server.is_running());
    let log = server.error_log();
    for word in ["[alert]", "[emerg]", "panic", "exited on signal"] {
        assert!(!log.contains(word) && !server.stderr().contains(word), "{log}\n{}", server.stderr());
    }
}

/// Sends the bytes, and whatever comes back must be well-formed responses up to a close. Returns their statuses.
fn statuses(server: &Server, bytes: &[u8]) -> Vec<u16> {
    let mut client = Client::connect(server.port());
    client.try_send(bytes);
    client.finish_sending();
    let mut statuses = Vec::new();
    loop {
        match client.response_to("GET") {
            Ok(response) => statuses.push(response.status),
            Err(error) if error == "closed within a line: \"\"" => return statuses,
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(bytes)),
        }
    }
}

#[test]
fn random_bytes_harm_nobody() {
    let mut server = Server::start(PLAIN);
    let mut random = fastrand::Rng::with_seed(4711);
    for _ in 0..300 {
        let length = random.usize(1..3000);
        let mut bytes: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
        // What begins with a letter may be a method; what begins with a line end is skipped.
        bytes[0] |= 0x80;
        assert!(matches!(statuses(&server, &bytes)[..], [400] | []), "{bytes:?}");
    }
    is_alive(&mut server);
    let log = server.error_log();
    assert!(log.lines().filter(|line| line.contains("client sent invalid method")).count() <= 300);
    assert!(log.lines().all(|line| line.contains("[info]") || line.contains("[notice]")), "{log}");
}

#[test]
fn mutated_requests_harm_nobody() {
    let mut server = Server::start(&format!("client_body_early_read 1; client_header_timeout 5s; {PLAIN}"));
    let mut random = fastrand::Rng::with_seed(4712);
    let seeds = [
        "GET /a?b HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n".to_owned(),
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\nT: v\r\n\r\n"
            .to_owned(),
        GET.repeat(3),
    ];
    for _ in 0..600 {
        let mut bytes = seeds[random.usize(..seeds.len())].clone().into_bytes();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..bytes.len());
            match random.u8(..4) {
                0 => bytes[at] = random.u8(..),
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, *random.choice(b"\r\n\0 :;/%\t").unwrap_or(&0)),
                _ => bytes.truncate(at.max(1)),
            }
        }
        // HTTP/0.9 has no head to look at.
        let mut client = Client::connect(server.port());
        client.try_send(&bytes);
        client.finish_sending();
        client.read_to_end();
    }
    is_alive(&mut server);
}

#[test]
fn a_tls_hello_on_a_plain_port_is_400() {
    let mut server = Server::start(PLAIN);
    let hello =
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03random bytes of a client that wants to talk TLS";
    assert_eq!(statuses(&server, hello), [400]);
    eventually("a log line", || {
        server.error_log().contains("client sent invalid method while reading client request line")
    });
    let lines = server.error_log().matches("client sent invalid").count();
    assert_eq!(lines, 1, "{}", server.error_log());
    assert!(server.access_log_lines(1)[0].contains("\" 400 "), "{}", server.access_log());
    is_alive(&mut server);
}

#[test]
fn other_protocols_on_a_plain_port_are_400() {
    let mut server = Server::start(PLAIN);
    for bytes in [
        &b"SSH-2.0-OpenSSH_9.2\r\n"[..],
        b"EHLO example.com\r\n",
        b"\x00\x00\x00\x00",
        b"*1\r\n$4\r\nPING\r\n",
        b"{\"json\": true}\r\n",
    ] {
        assert_eq!(statuses(&server, bytes), [400], "{bytes:?}");
    }
    is_alive(&mut server);
}

#[test]
fn heads_byte_by_byte_are_answered() {
    let mut server = Server::start(PLAIN);
    let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(server.port())).collect();
    let bytes = "GET /slow HTTP/1.1\r\nHost: a\r\nX: some value\r\n\r\n";
    for byte in bytes.as_bytes() {
        for client in &mut clients {
            client.send([*byte]);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    for client in &mut clients {
        assert_eq!(client.read_response().text(), "/slow");
    }
    is_alive(&mut server);
}

#[test]
fn every_refusal_is_one_line_at_info() {
    for (bytes, message) in [
        ("foo\r\n\r\n", "client sent invalid method while reading client request line"),
        ("GET foo HTTP/1.1\r\n\r\n", "client sent invalid request while reading client request line"),
        ("GET / HTTP/2.0\r\n\r\n", "client sent invalid version while reading client request line"),
        (
            "GET /../ HTTP/1.1\r\nHost: a\r\n\r\n",
            "client sent invalid request while reading client request line",
        ),
        (
            "GET / HTTP/1.1\r\n\r\n",
            "client sent HTTP/1.1 request without \"Host\" header while reading client request headers",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a/\r\n\r\n",
            "client sent invalid host header while reading client request headers",
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nX Y: z\r\n\r\n", "client sent invalid header line"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
            "client sent invalid \"Content-Length\" header",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n",
            "client sent unknown \"Transfer-Encoding\"",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            "client sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time",
        ),
        (
            "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
            "client sent TRACE method while reading client request headers",
        ),
    ] {
        let server = Server::start(PLAIN);
        assert!(raw_status(server.port(), bytes) >= 400, "{bytes:?}");
        eventually("a log line", || server.error_log().contains(message));
        let log = server.error_log();
        // But for the connection by which the harness sees that the server is up.
        let is_of_request =
            |line: &&str| line.contains("client: 127.0.0.1") && !line.contains("while waiting for request");
        let lines: Vec<&str> = log.lines().filter(is_of_request).collect();
        assert_eq!(lines.len(), 1, "{bytes:?}: {log}");
        assert!(lines[0].contains("[info]") && lines[0].contains(", server: "), "{}", lines[0]);
        assert_eq!(server.access_log_lines(1).len(), 1);
    }
}

/// Requests whose end a lenient server would see elsewhere. A second request is hidden behind each.
#[test]
fn what_could_smuggle_a_request_is_refused_and_the_connection_closed() {
    let mut server = Server::start(&format!("client_body_early_read 1; {PLAIN}"));
    let hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    for head in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "Content-Length: 0\r\nContent-Length: 5\r\n\r\n",
        "Content-Length: 5\r\nContent-Length: 0\r\n\r\n",
        "Content-Length: 0, 5\r\n\r\n",
        "Content-Length: 0 5\r\n\r\n",
        "Content-Length: -0\r\n\r\n",
        "Content-Length: +0\r\n\r\n",
        "Content-Length:\r\n\r\n",
        "Content-Length : 5\r\n\r\n",
        "Content-Length\t: 5\r\n\r\n",
        " Content-Length: 5\r\n\r\n",
        "X: y\r\n Content-Length: 5\r\n\r\n",
        "Content-Length: 18446744073709551616\r\n\r\n",
        "Transfer-Encoding: xchunked\r\n\r\n",
        "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        "X: a\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "X\0: y\r\n\r\n",
        "X: \0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n0\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\n",
        "Transfer-Encoding: chunked\r\n\r\n0\r\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n0;a\n\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n00x0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\n0\r\n\r\n",
    ] {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\n{head}{hidden}");
        let mut client = Client::connect(server.port());
        client.try_send(&bytes);
        let response = client.read_response();
        assert!(matches!(response.status, 400 | 501), "{head:?}: {}", response.status);
        assert_eq!(response.header("connection"), Some("close"), "{head:?}");
        client.expect_closed();
    }
    assert!(!server.access_log().contains("/hidden"), "{}", server.access_log());
    is_alive(&mut server);
}

#[test]
fn transfer_encoding_with_http_10_is_refused() {
    let server = Server::start(PLAIN);
    let bytes = format!(
        "POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{GET}"
    );
    assert_eq!(statuses(&server, bytes.as_bytes()), [400]);
}

#[test]
fn garbage_behind_a_request_ends_the_connection_after_its_answer() {
    let mut server = Server::start(PLAIN);
    assert_eq!(statuses(&server, format!("{GET}\x16\x03\x01\0").as_bytes()), [200, 400]);
    assert_eq!(statuses(&server, format!("{GET}{GET}foo bar\r\n\r\n{GET}").as_bytes()), [200, 200, 400]);
    is_alive(&mut server);
}

#[test]
fn giant_heads_are_refused() {
    let mut server = Server::start(PLAIN);
    let mega = "x".repeat(4 << 20);
    for (bytes, status) in [
        (format!("GET /{mega}"), 414),
        (format!("GET /{mega} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {mega}"), 400),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{mega}: x\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\nHost: {mega}\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}", "X: y\r\n".repeat(500_000)), 400),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}", "a_b: y\r\n".repeat(500_000)), 400),
        (format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "X".repeat(4 << 20)), 414),
        (format!("GET {}/ HTTP/1.1\r\nHost: a\r\n\r\n", " ".repeat(4 << 20)), 414),
    ] {
        let shown = &bytes[..40];
        assert_eq!(raw_status(server.port(), &bytes), status, "{shown:?}");
    }
    eventually("log lines", || server.error_log().contains("client sent too long URI"));
    // What is quoted of the client's bytes is bounded too.
    assert!(server.error_log().lines().all(|line| line.len() < 10_000));
    is_alive(&mut server);
}

#[test]
fn empty_lines_before_a_request_cost_nothing() {
    let mut server = Server::start("client_header_timeout 1s; server { listen {port}; return 200; }");
    let mut client = Client::connect(server.port());
    client.try_send("\r\n".repeat(100_000));
    client.try_send(GET);
    // nginx answers them all the same; to be refused would be fine too.
    let _ = client.response_to("GET");
    is_alive(&mut server);
}

/// Resident memory of the server's processes, in KiB.
fn resident(server: &Server) -> usize {
    let pids = server.children();
    pids.iter()
        .filter_map(|pid| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.split_whitespace().next()?.parse::<usize>().ok()
        })
        .sum()
}

#[test]
fn many_half_sent_heads_take_bounded_memory() {
    let mut server = Server::start(&format!(
        "worker_processes 1; events {{ worker_connections 2000; }} http {{ {PLAIN} }}"
    ));
    raw(server.port(), GET);
    let before = resident(&server);
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{}", format!("X: {}\r\n", "x".repeat(900)).repeat(8));
    let clients: Vec<Client> = (0..500)
        .map(|_| {
            let mut client = Client::connect(server.port());
            client.send(&head);
            client
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    let grown = resident(&server).saturating_sub(before);
    // 500 heads of 7 KiB; four buffers of 8 KiB each would be the bound.
    assert!(grown < 500 * 33, "{grown} KiB");
    drop(clients);
    is_alive(&mut server);
}

#[test]
fn clients_that_come_and_go_are_not_logged_as_errors() {
    let mut server = Server::start(PLAIN);
    for bytes in
        ["", "G", "GET / HTTP/1.1\r\nHost: a\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\na"]
    {
        for _ in 0..20 {
            let mut client = Client::connect(server.port());
            client.send(bytes);
        }
    }
    is_alive(&mut server);
    let log = server.error_log();
    assert!(log.lines().all(|line| line.contains("[info]") || line.contains("[notice]")), "{log}");
    // Nothing was asked: nothing to log.
    assert!(!server.access_log().contains("\"\" 400 0"), "{}", server.access_log());
}

#[test]
fn a_client_that_resets_within_a_response_harms_nobody() {
    let mut server =
        Server::builder("server { listen {port}; root {root}/html; location = / { return 200; } }")
            .file("html/big", vec![0; 8 << 20])
            .start();
    for _ in 0..20 {
        let stream = std::net::TcpStream::connect(("127.0.0.1", server.port())).expect("connect");
        let socket = socket2::SockRef::from(&stream);
        socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
        let mut client = Client::over_tcp(stream.try_clone().expect("clone"));
        client.send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
        client.read_exactly(1000);
        drop(client);
        drop(stream);
    }
    is_alive(&mut server);
    let log = server.error_log();
    assert!(log.lines().all(|line| line.contains("[info]") || line.contains("[notice]")), "{log}");
}
