//! `client_body_min_rate`, `send_min_rate`, and how long a head may take: slow clients are cut, honest ones are not.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::util::h2::{DATA, END_HEADERS, HEADERS, WINDOW_UPDATE, frame, head};
use crate::util::tls::connect_tls;
use crate::util::{Client, Peer, Server, Upstream, eventually, get};

const BODY_LINE: &str = "fewer than \"client_body_min_rate\" allows";
const READER_LINE: &str = "fewer than \"send_min_rate\" allows";

fn server(directives: &str) -> Server {
    Server::builder(&format!(
        "http {{ client_body_min_rate 1000 grace=1s; send_min_rate 1000 grace=1s; {directives}
           server {{ listen {{port}}; http2 on; listen {{port2}} ssl;
             ssl_certificate {fixtures}/server-ec.pem; ssl_certificate_key {fixtures}/server-ec.key;
             root {{root}}/html; location /read {{ proxy_pass http://127.0.0.1:{{port3}}; }}
             location /off {{ client_body_min_rate off; proxy_pass http://127.0.0.1:{{port3}}; }}
             location /numbers {{ return 200 \"$connections_slow_bodies $connections_slow_readers\"; }} }}
           server {{ listen {{port3}}; return 200 read; }} }}",
        fixtures = crate::util::tls::FIXTURES
    ))
    .file("html/big", vec![b'x'; 8 << 20])
    .file("html/page", vec![b'x'; 4000])
    .start()
}

/// Sends a byte now and then until something comes; the response.
fn trickle(client: &mut Client) -> crate::util::Response {
    let until = Instant::now() + Duration::from_secs(15);
    while Instant::now() < until {
        client.try_send("x");
        if client.has_something(Duration::from_millis(100)) {
            return client.read_response();
        }
    }
    panic!("it is served for ever");
}

#[test]
fn a_slow_body_is_answered_408_and_said_so_in_one_line() {
    let server = server("");
    let mut client = Client::connect(server.port());
    client.send("POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    let response = trickle(&mut client);
    assert_eq!((response.status, response.header("connection")), (408, Some("close")));
    client.read_to_end();
    eventually("a line", || server.error_log().contains(BODY_LINE));
    let log = server.error_log();
    assert_eq!(log.matches(BODY_LINE).count(), 1, "{log}");
    assert!(log.lines().any(|line| line.contains("[info]") && line.contains(BODY_LINE)), "{log}");
    assert_eq!(get(server.port(), "/numbers").text(), "1 0");
    assert!(server.access_log_lines(1)[0].contains("\" 408 "), "{}", server.access_log());
}

#[test]
fn a_slow_body_under_tls_and_in_chunks_is_answered_408() {
    let server = server("");
    let mut client = connect_tls(server.port_of(2), "example.com", &["http/1.1"]);
    client.send("POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n100000\r\n");
    assert_eq!(trickle(&mut client).status, 408);
}

#[test]
fn a_slow_body_that_is_passed_on_is_answered_408() {
    let upstream = Upstream::start(|peer: Peer| {
        // It wants the whole body before it answers, and never gets it.
        std::thread::sleep(Duration::from_secs(30));
        drop(peer);
    });
    let server = Server::start(&format!(
        "server {{ listen {{port}}; client_body_min_rate 1000 grace=1s; proxy_request_buffering off;
           location / {{ proxy_pass http://127.0.0.1:{}; }} }}",
        upstream.port()
    ));
    let mut client = Client::connect(server.port());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    assert_eq!(trickle(&mut client).status, 408);
    eventually("a line", || server.error_log().contains(BODY_LINE));
}

#[test]
fn a_slow_stream_is_answered_408_and_its_connection_lives() {
    let server = server("");
    let mut h2 = crate::util::h2::H2::connect(server.port());
    let id = h2.next_id();
    h2.skip_id();
    let fields = head(&[(":method", "POST"), (":scheme", "http"), (":path", "/read"), (":authority", "a")]);
    h2.send(HEADERS, END_HEADERS, id, &fields);
    h2.streams.entry(id).or_default();
    h2.client.send(frame(DATA, 0, id, b"x"));
    assert_eq!(h2.wait(id).status, 408);
    assert_eq!(h2.fetch("/page").status, 200);
    assert_eq!(server.error_log().matches(BODY_LINE).count(), 1, "{}", server.error_log());
}

#[test]
fn a_body_at_the_rate_is_spared_and_so_is_every_body_where_it_is_off() {
    let server = server("");
    let mut steady = Client::connect(server.port());
    let mut slow = Client::connect(server.port());
    steady.send("POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 8000\r\n\r\n");
    slow.send("POST /off HTTP/1.1\r\nHost: a\r\nContent-Length: 16\r\n\r\n");
    for _ in 0..16 {
        std::thread::sleep(Duration::from_millis(200));
        steady.send([b'x'; 500]);
        slow.send("x");
    }
    assert_eq!(steady.read_response().status, 200);
    assert_eq!(slow.read_response().status, 200);
    assert!(!server.error_log().contains(BODY_LINE), "{}", server.error_log());
}

#[test]
fn an_upstream_that_takes_nothing_is_not_held_against_the_client() {
    let upstream = Upstream::start(|peer: Peer| {
        std::thread::sleep(Duration::from_secs(4));
        let mut client = peer.into_client();
        client.read_exactly(32 << 20);
        client.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    });
    let server = Server::start(&format!(
        "server {{ listen {{port}}; client_body_min_rate 1000 grace=1s; proxy_request_buffering off;
           client_max_body_size 100m; location / {{ proxy_pass http://127.0.0.1:{}; }} }}",
        upstream.port()
    ));
    let mut client = Client::connect(server.port());
    let length = 33 << 20;
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"));
    client.try_send(vec![b'x'; length]);
    assert_eq!(client.read_response().status, 200);
    assert!(!server.error_log().contains(BODY_LINE), "{}", server.error_log());
}

fn small_window(port: u16) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("SO_RCVBUF");
    socket.connect(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into()).expect("connect");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    stream
}

#[test]
fn a_slow_reader_is_cut_off_and_said_so_in_one_line() {
    for directives in ["sendfile on;", "sendfile off;"] {
        let server = server(directives);
        let mut stream = small_window(server.port());
        stream.write_all(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n").expect("send");
        eventually("a line", || {
            let _ = stream.read(&mut [0; 1]);
            server.error_log().contains(READER_LINE)
        });
        let mut rest = Vec::new();
        assert!(stream.read_to_end(&mut rest).is_err(), "a reset");
        assert!(rest.len() < 8 << 20);
        let log = server.error_log();
        assert_eq!(log.matches(READER_LINE).count(), 1, "{log}");
        assert!(log.lines().any(|line| line.contains("[info]") && line.contains(READER_LINE)), "{log}");
        assert_eq!(get(server.port(), "/numbers").text(), "0 1");
    }
}

#[test]
fn a_stream_whose_window_is_opened_by_the_byte_is_cut_off_and_its_connection_lives() {
    // What the first window was worth is saved up for no longer than that.
    let server = server("send_timeout 2s;");
    let mut h2 = crate::util::h2::H2::connect(server.port());
    h2.gives_window = false;
    let id = h2.get("/big");
    // The connection's window is open: the stream's alone is not.
    h2.send(WINDOW_UPDATE, 0, 0, &(1u32 << 24).to_be_bytes());
    let until = Instant::now() + Duration::from_secs(15);
    while !h2.is_over(id) {
        assert!(Instant::now() < until, "it is served for ever");
        h2.send(WINDOW_UPDATE, 0, id, &1u32.to_be_bytes());
        h2.ping();
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(h2.fetch("/page").status, 200);
    assert_eq!(server.error_log().matches(READER_LINE).count(), 1, "{}", server.error_log());
}

#[test]
fn a_connection_whose_window_is_opened_by_the_byte_is_cut_off() {
    let server = server("send_timeout 2s;");
    let mut h2 = crate::util::h2::H2::connect(server.port());
    h2.gives_window = false;
    let id = h2.get("/big");
    h2.send(WINDOW_UPDATE, 0, id, &(1u32 << 24).to_be_bytes());
    eventually("a line", || {
        h2.client.try_send(frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()));
        std::thread::sleep(Duration::from_millis(100));
        server.error_log().contains(READER_LINE)
    });
    assert_eq!(server.error_log().matches(READER_LINE).count(), 1, "{}", server.error_log());
}

/// The client takes all it is given: what is slow is the server, and the upstream.
#[test]
fn whoever_is_given_little_is_spared() {
    let upstream = Upstream::start(|peer: Peer| {
        let mut client = peer.into_client();
        client.read_some();
        client.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\n");
        for _ in 0..4 {
            std::thread::sleep(Duration::from_secs(1));
            client.send("x");
        }
    });
    let server = Server::builder(&format!(
        "http {{ send_min_rate 1000 grace=1s; server {{ listen {{port}}; http2 on; root {{root}}/html; limit_rate 200;
           location /events {{ proxy_pass http://127.0.0.1:{}; proxy_buffering off; }} }} }}",
        upstream.port()
    ))
    .file("html/limited", vec![b'x'; 1000])
    .start();
    let mut limited = Client::connect(server.port());
    limited.send("GET /limited HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut h2 = crate::util::h2::H2::connect(server.port());
    let id = h2.get("/limited");
    assert_eq!(get(server.port(), "/events").text(), "xxxx");
    assert_eq!(limited.read_response().body.len(), 1000);
    assert_eq!(h2.wait(id).body.len(), 1000);
    assert!(!server.error_log().contains(READER_LINE), "{}", server.error_log());
}

/// A stream waits for as long as it takes until another one, which goes first, has used the connection's window.
#[test]
fn a_stream_that_waits_for_another_is_spared() {
    let server = server("send_timeout 2s;");
    let mut h2 = crate::util::h2::H2::connect(server.port());
    h2.gives_window = false;
    let (first, second) = (h2.get("/big"), h2.get("/big"));
    for id in [first, second] {
        h2.send(WINDOW_UPDATE, 0, id, &(1u32 << 24).to_be_bytes());
    }
    // Enough for the rate, and no more: the first of two streams that say nothing of priority goes first.
    for _ in 0..40 {
        h2.send(WINDOW_UPDATE, 0, 0, &1000u32.to_be_bytes());
        h2.ping();
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(!h2.is_over(first) && !h2.is_over(second), "{}", server.error_log());
    assert!(!server.error_log().contains(READER_LINE), "{}", server.error_log());
}

#[test]
fn a_first_head_has_no_more_time_than_from_accepting_on() {
    let server = server("client_header_timeout 4s;");
    let began = Instant::now();
    let mut plain = TcpStream::connect(("127.0.0.1", server.port())).expect("connect");
    let socket = TcpStream::connect(("127.0.0.1", server.port_of(2))).expect("connect");
    std::thread::sleep(Duration::from_millis(2500));
    plain.write_all(b"GET / HT").expect("send");
    let connector = crate::util::tls::Connector::new(&["http/1.1"], None);
    let (mut secure, _) = connector.try_over(socket, "example.com").expect("a handshake");
    secure.send("GET / HT");
    assert_eq!(plain.read(&mut [0; 64]).expect("a close"), 0);
    secure.expect_closed();
    // Timed from the handshake or the first byte it were 6.5 s and more.
    let took = began.elapsed();
    assert!(took > Duration::from_secs(3) && took < Duration::from_millis(6400), "{took:?}");
}

#[test]
fn connections_beyond_those_of_an_address_are_refused_at_once() {
    let server = Server::start(
        "worker_processes 2; http { server { listen {port}; location / { return 200 $connections_refused; } }
           server { listen {port2}; client_connections_max 3; return 200 ok; }
           server { listen {port3}; client_connections_max 3 status=429; return 200 ok; } }",
    );
    let ask = |client: &mut Client| {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_response().text(), "ok");
    };
    let mut held: Vec<Client> = (0..3).map(|_| Client::connect(server.port_of(2))).collect();
    held.iter_mut().for_each(ask);
    Client::connect(server.port_of(2)).expect_closed();
    // The sockets that have a limit count together.
    assert_eq!(Client::connect(server.port_of(3)).read_response().status, 429);
    assert_eq!(get(server.port(), "/").text(), "2");
    eventually("a line", || {
        server.error_log().contains("refused by \"client_connections_max 3\", client: 127.0.0.1")
    });
    held.iter_mut().for_each(ask);
    held.pop();
    eventually("a place", || {
        let mut client = Client::connect(server.port_of(2));
        client.try_send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        client.response_to("GET").is_ok()
    });
}
