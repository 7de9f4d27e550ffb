//! Connections that become tunnels: asked for by `Upgrade`, agreed to by 101, and bytes from there on.

use crate::util::h2::H2;
use crate::util::{Client, H2Peer, PATIENCE, Peer, Server, Told, Upstream, eventually, proxy, proxy_with};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;
use thalweg::proto::h2::Config;

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const AGREE: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

fn content(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8 ^ (at / 251 % 256) as u8 ^ seed as u8).collect()
}

fn no_alarm(server: &Server) {
    let log = server.error_log();
    for word in ["[alert]", "[emerg]", "panic", "exited on signal"] {
        assert!(!log.contains(word) && !server.stderr().contains(word), "{log}\n{}", server.stderr());
    }
}

/// Reads a request's head, which must ask for the upgrade, and agrees.
fn agree(peer: &mut Peer) -> bool {
    let Some((head, _)) = peer.read_request() else { return false };
    let lower = head.to_ascii_lowercase();
    assert!(
        lower.contains("\r\nupgrade: websocket\r\n") && lower.contains("\r\nconnection: upgrade\r\n"),
        "{head}"
    );
    assert!(lower.contains("\r\nsec-websocket-key: dghlihnhbxbszsbub25jzq==\r\n"), "{head}");
    peer.send(AGREE);
    true
}

/// Agrees, then sends back whatever comes, to the end.
fn echo() -> Upstream {
    Upstream::start(|mut peer: Peer| {
        if !agree(&mut peer) {
            return;
        }
        loop {
            let bytes = peer.read_some();
            if bytes.is_empty() || !peer.try_send(bytes) {
                return;
            }
        }
    })
}

/// A client's end of a tunnel.
#[track_caller]
fn open(server: &Server) -> Client {
    let mut client = Client::connect(server.port());
    client.send(ASK);
    let response = client.read_interim();
    assert_eq!(response.status, 101);
    assert_eq!(response.header("upgrade"), Some("websocket"));
    assert_eq!(response.header("connection").map(str::to_ascii_lowercase).as_deref(), Some("upgrade"));
    assert_eq!(response.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert!(response.header("transfer-encoding").is_none() && response.header("content-length").is_none());
    client
}

#[test]
fn an_upgrade_needs_nothing_but_proxy_pass() {
    let upstream = echo();
    let server = proxy(&upstream);
    let mut client = open(&server);
    for round in 0..200 {
        let text = format!("message {round}");
        client.send(&text);
        assert_eq!(client.read_exactly(text.len()), text.as_bytes());
    }
    client.finish_sending();
    client.expect_closed();
    let line = &server.access_log_lines(1)[0];
    assert!(line.contains("\"GET /chat HTTP/1.1\" 101 "), "{line}");
    no_alarm(&server);
}

#[test]
fn bytes_may_come_with_the_heads() {
    let upstream = Upstream::start(|mut peer: Peer| {
        peer.read_request();
        peer.send(format!("{AGREE}hello from the upstream"));
        assert_eq!(peer.read_exactly(21), b"hello from the client");
        peer.send("bye");
    });
    let server = proxy(&upstream);
    for slowly in [false, true] {
        let mut client = Client::connect(server.port());
        let bytes = format!("{ASK}hello from the client");
        if slowly {
            client.send_slowly(bytes, Duration::from_millis(1));
        } else {
            client.send(bytes);
        }
        assert_eq!(client.read_interim().status, 101);
        assert_eq!(client.read_exactly(26), b"hello from the upstreambye");
        client.expect_closed();
    }
    no_alarm(&server);
}

#[test]
fn bytes_that_come_before_the_answer_wait_for_it() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let upstream = Upstream::start(move |mut peer: Peer| {
        peer.read_request();
        wait.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        peer.send(AGREE);
        let early = content(200_000, 1);
        assert!(peer.read_exactly(early.len()) == early);
        peer.send("got it");
    });
    let server = proxy(&upstream);
    let mut client = Client::connect(server.port());
    client.send(ASK).send(content(200_000, 1));
    std::thread::sleep(Duration::from_millis(50));
    go.send(()).unwrap();
    assert_eq!(client.read_interim().status, 101);
    assert_eq!(client.read_exactly(6), b"got it");
    no_alarm(&server);
}

#[test]
fn other_protocols_are_upgraded_to_as_well() {
    let upstream = Upstream::start(|mut peer: Peer| {
        let (head, _) = peer.read_request().expect("a request");
        assert!(head.contains("Upgrade: raw/1\r\n"), "{head}");
        peer.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: raw/1\r\nConnection: upgrade\r\n\r\n");
        let bytes = peer.read_to_end();
        assert_eq!(bytes, b"some");
    });
    let server = proxy(&upstream);
    let mut client = Client::connect(server.port());
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: raw/1\r\nContent-Length: 0\r\n\r\n",
    );
    assert_eq!(client.read_interim().header("upgrade"), Some("raw/1"));
    client.send("some").finish_sending();
    client.expect_closed();
    no_alarm(&server);
}

#[test]
fn an_upstream_may_decline() {
    let upstream = Upstream::http(|_, _| b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno".to_vec());
    let server = proxy(&upstream);
    let mut client = Client::connect(server.port());
    for _ in 0..3 {
        client.send(ASK);
        let response = client.read_response();
        assert_eq!(
            (response.status, response.text().as_str(), response.header("upgrade")),
            (200, "no", None)
        );
    }
    no_alarm(&server);
}

#[test]
fn an_upgrade_that_nobody_asked_for_is_502() {
    let upstream = Upstream::start(|mut peer: Peer| {
        peer.read_request();
        peer.send(format!("{AGREE}SECRET"));
        peer.read_to_end();
    });
    let server = proxy(&upstream);
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        // Without being named in Connection, Upgrade asks for nothing (RFC 9110 section 7.8).
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ] {
        let mut client = Client::connect(server.port());
        client.send(request);
        let response = client.read_response();
        assert!(response.status == 502 && !response.text().contains("SECRET"), "{request:?} {response:?}");
    }
    no_alarm(&server);
}

#[test]
fn large_transfers_go_both_ways_at_once() {
    const LENGTH: usize = 20_000_000;
    let upstream = Upstream::start(|mut peer: Peer| {
        if !agree(&mut peer) {
            return;
        }
        // Sends and reads at once, so that neither side has to wait for the other to stop.
        std::thread::scope(|scope| {
            let mut writer = peer.try_clone();
            scope.spawn(move || {
                writer.send(content(LENGTH, 1));
                writer.finish_sending();
            });
            assert!(peer.read_to_end() == content(LENGTH, 2));
        });
    });
    let server = proxy(&upstream);
    let mut client = open(&server);
    let mut writer = client.try_clone();
    let writing = std::thread::spawn(move || {
        writer.send(content(LENGTH, 2));
        writer.finish_sending();
    });
    assert!(client.read_to_end() == content(LENGTH, 1));
    writing.join().unwrap();
    let line = &server.access_log_lines(1)[0];
    assert!(line.contains("\" 101 20000000 "), "{line}");
    no_alarm(&server);
}

#[test]
fn an_echo_of_more_than_the_sockets_hold_comes_back_whole() {
    const LENGTH: usize = 30_000_000;
    let upstream = echo();
    let server = proxy(&upstream);
    let mut client = open(&server);
    let mut writer = client.try_clone();
    let writing = std::thread::spawn(move || {
        writer.send(content(LENGTH, 3));
        writer.finish_sending();
    });
    let mut seen = Vec::new();
    for _ in 0..10 {
        seen.extend(client.read_exactly(1_000_000));
        std::thread::sleep(Duration::from_millis(10));
    }
    seen.extend(client.read_to_end());
    writing.join().unwrap();
    assert!(seen == content(LENGTH, 3));
    no_alarm(&server);
}

#[test]
fn either_side_may_end_first_and_the_other_still_talk() {
    // The client ends its side.
    let upstream = Upstream::start(|mut peer: Peer| {
        if agree(&mut peer) {
            assert_eq!(peer.read_to_end(), b"question");
            std::thread::sleep(Duration::from_millis(30));
            peer.send("answer");
        }
    });
    let server = proxy(&upstream);
    let mut client = open(&server);
    client.send("question").finish_sending();
    assert_eq!(client.read_to_end(), b"answer");
    no_alarm(&server);
    // The upstream ends its side.
    let (sender, told) = channel();
    let sender = Mutex::new(sender);
    let upstream = Upstream::start(move |mut peer: Peer| {
        if agree(&mut peer) {
            peer.send("greeting").finish_sending();
            let _ = sender.lock().unwrap().send(peer.read_to_end());
        }
    });
    let server = proxy(&upstream);
    let mut client = open(&server);
    assert_eq!(client.read_to_end(), b"greeting");
    client.send("reply");
    drop(client);
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), b"reply");
    no_alarm(&server);
}

#[test]
fn the_end_of_either_side_ends_the_other() {
    for resets in [false, true] {
        let (sender, told) = channel();
        let sender = Mutex::new(sender);
        let upstream = Upstream::start(move |mut peer: Peer| {
            if agree(&mut peer) {
                peer.read_to_end();
                let _ = sender.lock().unwrap().send("closed");
            }
        });
        let server = proxy(&upstream);
        let mut client = open(&server);
        client.send("some");
        if resets {
            client.reset()
        } else {
            drop(client)
        }
        assert_eq!(told.recv_timeout(PATIENCE), Ok("closed"));
        assert!(server.access_log_lines(1)[0].contains("\" 101 "), "{}", server.access_log());
        no_alarm(&server);

        let upstream = Upstream::start(move |mut peer: Peer| {
            if agree(&mut peer) {
                peer.send("last words");
                std::thread::sleep(Duration::from_millis(30));
                if resets {
                    peer.reset();
                }
            }
        });
        let server = proxy(&upstream);
        let mut client = open(&server);
        assert_eq!(client.read_exactly(10), b"last words");
        client.expect_closed();
        drop(client);
        server.access_log_lines(1);
        no_alarm(&server);
    }
}

#[test]
fn a_tunnel_without_a_byte_for_too_long_is_closed() {
    let upstream = echo();
    let server = proxy_with(&upstream, "proxy_read_timeout 2s;");
    let mut client = open(&server);
    // Bytes either way count.
    for _ in 0..12 {
        client.send("a");
        assert_eq!(client.read_exactly(1), b"a");
        std::thread::sleep(Duration::from_millis(250));
    }
    client.expect_closed();
    no_alarm(&server);
}

#[test]
fn tunnels_survive_reloads() {
    let upstream = echo();
    let port = upstream.port();
    let pass = format!("proxy_pass http://127.0.0.1:{port};");
    let server = Server::start(&format!(
        "server {{ listen {{port}}; location / {{ {pass} }} location /state {{ return 200 0; }} }}"
    ));
    let mut clients: Vec<Client> = (0..10).map(|_| open(&server)).collect();
    for reloads in 1..=3 {
        server
            .configure(&format!("server {{ listen {{port}}; location /state {{ return 200 {reloads}; }} }}"));
        server.reload();
        let state = reloads.to_string();
        eventually("the new configuration", || crate::util::get(server.port(), "/state").text() == state);
        for (index, client) in clients.iter_mut().enumerate() {
            let text = format!("still here {index} {reloads}");
            client.send(&text);
            assert_eq!(client.read_exactly(text.len()), text.as_bytes());
        }
    }
    let mut client = clients.pop().unwrap();
    client.finish_sending();
    client.expect_closed();
    no_alarm(&server);
}

#[test]
fn many_tunnels_keep_their_bytes_apart() {
    let upstream = echo();
    let server = proxy(&upstream);
    let mut clients: Vec<Client> = (0..100).map(|_| open(&server)).collect();
    for round in 0..5 {
        for (index, client) in clients.iter_mut().enumerate() {
            client.send(content(3000, index + round));
        }
        for (index, client) in clients.iter_mut().enumerate() {
            assert!(client.read_exactly(3000) == content(3000, index + round), "{index}");
        }
    }
    assert_eq!(upstream.accepted(), 100);
    // Nothing of a tunnel goes to the pool.
    drop(clients);
    server.access_log_lines(100);
    drop(open(&server));
    assert_eq!(upstream.accepted(), 101);
    no_alarm(&server);
}

/// Passes WebSockets on over HTTP/2 to another server of ours, and that over HTTP/1 to one that sends back what comes.
fn through_http_2(location: &str) -> (Server, Upstream) {
    let upstream = Upstream::start(|mut peer: Peer| {
        let Some((head, _)) = peer.read_request() else { return };
        let lower = head.to_ascii_lowercase();
        assert!(
            lower.starts_with("get /chat http/1.1\r\n") && lower.contains("\r\nupgrade: websocket\r\n"),
            "{head}"
        );
        assert!(lower.contains("\r\nsec-websocket-version: 13\r\n"), "{head}");
        // The key between the two is another.
        assert!(
            !head.contains("dGhlIHNhbXBsZSBub25jZQ==") && lower.contains("\r\nsec-websocket-key: "),
            "{head}"
        );
        peer.send(format!("{}hello", AGREE.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat\r\n\r\n")));
        loop {
            let bytes = peer.read_some();
            if bytes.is_empty() {
                peer.try_send("bye");
                return;
            }
            if !peer.try_send(bytes) {
                return;
            }
        }
    });
    let server = Server::start(&format!(
        "server {{ listen {{port}}; http2 on; location / {{ proxy_http_version 2; proxy_pass http://127.0.0.1:{{port2}}; {location} }} }}
         server {{ listen {{port2}}; http2 on; access_log {{root}}/inner.log; location / {{ proxy_pass http://127.0.0.1:{}; }} }}",
        upstream.port()
    ));
    (server, upstream)
}

const ASK_13: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                      Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[test]
fn web_sockets_go_on_over_http_2() {
    for location in ["", "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;"] {
        let (server, _upstream) = through_http_2(location);
        let mut clients: Vec<Client> = (0..3)
            .map(|_| {
                let mut client = Client::connect(server.port());
                client.send(format!("{ASK_13}first"));
                let response = client.read_interim();
                assert_eq!((response.status, response.header("upgrade")), (101, Some("websocket")));
                assert_eq!(response.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
                assert_eq!(response.header("sec-websocket-protocol"), Some("chat"));
                assert_eq!(client.read_exactly(10), b"hellofirst");
                client
            })
            .collect();
        // More than any window and any socket holds, both ways at a time.
        for (index, client) in clients.iter_mut().enumerate() {
            let sent = content(3_000_000, index);
            let mut writer = client.try_clone();
            let copy = sent.clone();
            let thread = std::thread::spawn(move || writer.try_send(copy));
            assert!(client.read_exactly(sent.len()) == sent);
            assert!(thread.join().unwrap());
        }
        // One side's end is not the other's.
        for client in &mut clients {
            client.finish_sending();
            assert_eq!(client.read_to_end(), b"bye");
        }
        let line = &server.access_log_lines(3)[0];
        assert!(line.contains("\"GET /chat HTTP/1.1\" 101 "), "{line}");
        no_alarm(&server);
    }
}

#[test]
fn web_sockets_come_and_go_on_over_http_2() {
    let (server, _upstream) = through_http_2("");
    let mut h2 = H2::connect(server.port());
    h2.ping();
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", "/chat"),
        (":authority", "a"),
        ("sec-websocket-version", "13"),
    ];
    let id = h2.open(&fields, false);
    h2.wait_until(|h2| h2.streams[&id].text() == "hello");
    assert_eq!(h2.streams[&id].status, 200);
    assert_eq!(h2.streams[&id].header("sec-websocket-accept"), None);
    h2.send_body(id, &content(200_000, 1), false);
    h2.wait_until(|h2| h2.streams[&id].body.len() == 200_005);
    h2.send_body(id, b"", true);
    assert!(h2.wait(id).text().ends_with("bye"));
    no_alarm(&server);
}

#[test]
fn a_tunnel_on_a_stream_ends_with_its_client_and_with_its_upstream() {
    let (lost, noted) = channel();
    let lost = Mutex::new(lost);
    let upstream = Upstream::start(move |peer: Peer| {
        let mut peer = H2Peer::new(peer, Config { allow_tunnels: true, ..Config::default() });
        loop {
            match peer.next() {
                Told::Request(stream, asked) if asked.path == "/refuse" => {
                    peer.respond(stream, 403, Some(0), &[])
                }
                Told::Request(stream, _) => peer.respond(stream, 101, None, &[("upgrade", "websocket")]),
                Told::Data(stream, data) if data == b"leave" => drop(peer.data(stream, b"gone", true)),
                Told::Data(stream, data) => drop(peer.data(stream, &data, false)),
                Told::Lost(..) => lost.lock().unwrap().send(()).unwrap(),
                Told::End(_) => {}
                Told::Closed => return,
            }
        }
    });
    let server = Server::start(&format!(
        "upstream u {{ server 127.0.0.1:{}; }} server {{ listen {{port}};
         location / {{ proxy_http_version 2; proxy_pass http://u; }} }}",
        upstream.port()
    ));
    let mut client = Client::connect(server.port());
    client.send(ASK_13.replace("/chat", "/refuse"));
    assert_eq!(client.read_response().status, 403);
    let open = || {
        let mut client = Client::connect(server.port());
        client.send(format!("{ASK_13}ping"));
        assert_eq!(client.read_interim().status, 101);
        assert_eq!(client.read_exactly(4), b"ping");
        client
    };
    open().reset();
    noted.recv_timeout(PATIENCE).expect("the stream is given up");
    let mut client = open();
    client.send("leave");
    assert_eq!(client.read_exactly(4), b"gone");
    client.finish_sending();
    client.expect_closed();
    assert_eq!(upstream.accepted(), 1);
    no_alarm(&server);
}

#[test]
fn an_upstream_that_takes_no_tunnels_is_told_of() {
    let upstream = Upstream::start(|peer: Peer| {
        let mut peer = H2Peer::new(peer, Config::default());
        while let Some((stream, ..)) = peer.read_request() {
            peer.respond(stream, 200, Some(0), &[]);
        }
    });
    let server = Server::start(&format!(
        "server {{ listen {{port}}; add_header X-Error $upstream_error always;
         location / {{ proxy_http_version 2; proxy_pass http://127.0.0.1:{0}; }}
         location /off {{ proxy_http_version 2; proxy_pass http://127.0.0.1:{0}; proxy_set_header Upgrade ''; }}
         location /grpc {{ grpc_pass 127.0.0.1:{0}; }} }}",
        upstream.port()
    ));
    for _ in 0..2 {
        let mut client = Client::connect(server.port());
        client.send(ASK_13);
        let response = client.read_response();
        assert_eq!((response.status, response.header("x-error")), (502, Some("no_extended_connect")));
    }
    assert!(
        server.error_log().contains("upstream takes no WebSockets over HTTP/2 (extended CONNECT, RFC 8441)")
    );
    // Where no upgrade is to pass, the request goes on without.
    for path in ["/off", "/grpc"] {
        let mut client = Client::connect(server.port());
        client.send(ASK_13.replace("/chat", path));
        assert_eq!(client.read_response().status, 200, "{path}");
    }
    no_alarm(&server);
}
