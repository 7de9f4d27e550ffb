//! `grpc_pass` and `proxy_http_version 2`: requests to upstreams over HTTP/2.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::util::h2::{self, H2};
use crate::util::{Client, H2Client, H2Peer, Peer, Server, Told, Upstream, eventually, get, request};
use thalweg::message::RequestFraming;
use thalweg::proto::h2::{Config, ErrorCode, StreamKey};

mod grpcio;
mod retries;

/// A server that passes everything on to this upstream by `grpc_pass`, with further directives for its location.
#[track_caller]
fn grpc_with(upstream: &Upstream, http: &str, location: &str) -> Server {
    let port = upstream.port();
    Server::start(&format!(
        "client_max_body_size 0; upstream u {{ server 127.0.0.1:{port}; {http} }}
         server {{ listen {{port}}; http2 on; location / {{ grpc_pass grpc://u; {location} }} }}"
    ))
}

/// An upstream that runs `script` for each connection.
fn upstream(script: impl Fn(H2Peer) + Send + Sync + 'static) -> Upstream {
    upstream_with(Config::default(), script)
}

fn upstream_with(config: Config, script: impl Fn(H2Peer) + Send + Sync + 'static) -> Upstream {
    Upstream::start(move |peer: Peer| script(H2Peer::new(peer, config)))
}

/// Waits for this text in the error log: it is written after the response.
#[track_caller]
fn logged(server: &Server, text: &str) {
    eventually(text, || server.error_log().contains(text));
}

/// Answers each request with its body, one after the other.
fn echo() -> Upstream {
    upstream(|mut peer| {
        while let Some((stream, _, body)) = peer.read_request() {
            peer.answer(stream, &body);
        }
    })
}

/// A POST of HTTP/1 with this body, from a thread of its own; its status and body.
fn post(port: u16, path: &str, body: &str) -> (u16, String) {
    let mut client = Client::connect(port);
    client.send(format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    ));
    let response = client.read_response();
    (response.status, response.text())
}

#[test]
fn calls_pass_with_their_fields_and_trailers() {
    let upstream = upstream(|mut peer| {
        while let Some((stream, asked, body)) = peer.read_request() {
            assert_eq!((&*asked.method, &*asked.path), ("POST", "/a.B/C?d=%20e"));
            let seen = ["host", "te", "content-type", "x-a", "connection", "content-length"];
            let seen = seen.map(|name| asked.field(name).unwrap_or("-").to_owned()).join(" ");
            peer.respond(stream, 200, None, &[("content-type", "application/grpc"), ("x-seen", &seen)]);
            peer.data(stream, &body, false);
            peer.trailers(stream, &[("grpc-status", "5"), ("grpc-message", "no such thing")]);
        }
    });
    let server = grpc_with(&upstream, "", "grpc_set_header X-A b; grpc_hide_header X-Hidden;");
    let reply = H2Client::connect(server.port()).unary("/a.B/C?d=%20e", b"\0\0\0\0\x02hi");
    assert_eq!((reply.status, &reply.body[..]), (200, &b"\0\0\0\0\x02hi"[..]));
    assert_eq!(reply.header("x-seen"), Some("u trailers application/grpc b - -"));
    assert_eq!(reply.trailer("grpc-status"), Some("5"));
    assert_eq!(reply.trailer("grpc-message"), Some("no such thing"));
}

#[test]
fn an_error_without_a_body_is_a_head_alone() {
    let upstream = upstream(|mut peer| {
        while let Some((stream, ..)) = peer.read_request() {
            peer.respond(
                stream,
                200,
                Some(0),
                &[("content-type", "application/grpc"), ("grpc-status", "12")],
            );
        }
    });
    let reply = H2Client::connect(grpc_with(&upstream, "", "").port()).unary("/x", b"a");
    assert_eq!((reply.status, reply.header("grpc-status")), (200, Some("12")));
    assert!(reply.ended && reply.body.is_empty() && reply.trailers.is_empty());
}

#[test]
fn both_directions_stream_at_the_same_time() {
    let upstream = upstream(|mut peer| {
        loop {
            match peer.next() {
                Told::Request(stream, _) => {
                    peer.respond(stream, 200, None, &[("content-type", "application/grpc")]);
                }
                Told::Data(stream, data) => assert_eq!(peer.data(stream, &data, false), data.len()),
                Told::End(stream) => peer.trailers(stream, &[("grpc-status", "0")]),
                Told::Lost(..) => panic!("given up"),
                Told::Closed => return,
            }
        }
    });
    let server = grpc_with(&upstream, "", "");
    let mut client = H2Client::connect(server.port());
    client.call("/bidi");
    let mut sent = 0;
    for piece in 1..50 {
        client.send(&vec![b'x'; piece], false);
        sent += piece;
        client.wait_for(sent);
    }
    let reply = client.send(b"", true).finish();
    assert_eq!((reply.body.len(), reply.trailer("grpc-status")), (sent, Some("0")));
}

#[test]
fn a_call_that_the_client_gives_up_is_given_up_at_the_upstream() {
    let lost = Arc::new(Mutex::new(Vec::new()));
    let begun = Arc::new(AtomicUsize::new(0));
    let (seen, counted) = (lost.clone(), begun.clone());
    let upstream = upstream(move |mut peer| {
        loop {
            match peer.next() {
                Told::Lost(_, code) => seen.lock().unwrap().push(code),
                Told::Request(stream, asked) if asked.path == "/ok" => peer.answer(stream, b"ok"),
                Told::Request(..) => drop(counted.fetch_add(1, Ordering::SeqCst)),
                Told::Closed => return,
                _ => {}
            }
        }
    });
    let server = grpc_with(&upstream, "", "");
    let mut client = H2Client::connect(server.port());
    client.call("/hang").send(b"a", false);
    eventually("the request", || begun.load(Ordering::SeqCst) == 1);
    client.cancel();
    eventually("the reset", || lost.lock().unwrap().len() == 1);
    // A client of HTTP/1 that goes away, and one of HTTP/2.
    let mut one = Client::connect(server.port());
    one.send("POST /hang HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na");
    let mut two = H2Client::connect(server.port());
    two.call("/hang").send(b"a", true);
    eventually("the requests", || begun.load(Ordering::SeqCst) == 3);
    drop((one, two));
    eventually("the resets", || lost.lock().unwrap().len() == 3);
    assert!(lost.lock().unwrap().iter().all(|code| *code == ErrorCode::CANCEL));
    assert_eq!(client.unary("/ok", b"").body, b"ok");
    assert_eq!(upstream.accepted(), 1, "the connection outlives its requests");
}

#[test]
fn calls_that_are_given_up_do_not_use_a_connection_up_for_others() {
    let begun = Arc::new(AtomicUsize::new(0));
    let counted = begun.clone();
    let upstream = upstream(move |mut peer| {
        loop {
            match peer.next() {
                Told::Request(stream, asked) if asked.path == "/ok" => peer.answer(stream, b"ok"),
                Told::Request(..) => drop(counted.fetch_add(1, Ordering::SeqCst)),
                Told::Closed => return,
                _ => {}
            }
        }
    });
    let server = grpc_with(&upstream, "", "");
    for round in 1..=60 {
        let mut client = H2Client::connect(server.port());
        client.call("/hang").send(b"a", true);
        eventually("the request", || begun.load(Ordering::SeqCst) == round);
        client.cancel();
        // The reset has been taken when this is answered.
        assert_eq!(client.unary("/ok", b"").body, b"ok");
    }
    assert_eq!(upstream.accepted(), 2, "a new one after fifty");
}

/// nginx does not pass them on either: gRPC's requests have none.
#[test]
fn trailers_of_requests_are_left_out() {
    let upstream = upstream(|mut peer| {
        while let Some((stream, asked, body)) = peer.read_request() {
            let fields = format!("{:?}", asked.fields);
            assert!(!fields.contains("x-late"), "{fields}");
            peer.answer(stream, &body);
        }
    });
    let server = grpc_with(&upstream, "", "");
    let mut client = Client::connect(server.port());
    client.send(
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x-late\r\n\r\n1\r\na\r\n0\r\nX-Late: 1\r\n\r\n",
    );
    assert_eq!(client.read_response().text(), "a");
    let mut h2 = H2::connect(server.port());
    let id =
        h2.open(&[(":method", "POST"), (":scheme", "http"), (":path", "/x"), (":authority", "a")], false);
    h2.send_body(id, b"b", false);
    let mut trailers = Vec::new();
    h2::literal("x-late", "1", &mut trailers);
    h2.send(1, 5, id, &trailers);
    assert_eq!(h2.wait(id).text(), "b");
}

#[test]
fn early_hints_pass() {
    let upstream = upstream(|mut peer| {
        while let Some((stream, ..)) = peer.read_request() {
            peer.interim(stream, 103, &[("link", "</a.css>; rel=preload")]);
            peer.respond(stream, 200, Some(0), &[]);
        }
    });
    let server = Server::start(&format!(
        "server {{ listen {{port}}; location / {{ early_hints 1; proxy_http_version 2; proxy_pass http://127.0.0.1:{}; }} }}",
        upstream.port()
    ));
    let response = get(server.port(), "/");
    assert_eq!((response.status, &response.interim[..]), (200, &[103][..]));
}

#[test]
fn an_upstream_that_takes_no_more_of_a_body_that_still_comes_times_out() {
    let config = Config { stream_window: 65_535, connection_window: 65_535, ..Config::default() };
    let upstream = upstream_with(config, |mut peer| {
        peer.next();
        // No window is given any more.
        std::thread::sleep(Duration::from_secs(20));
    });
    let server = grpc_with(&upstream, "", "grpc_send_timeout 1s;");
    let mut client = Client::connect(server.port());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n");
    client.send("x".repeat(200_000));
    assert_eq!(client.read_response().status, 504);
    logged(&server, "while sending request to upstream");
}

#[test]
fn a_body_without_bytes_whose_end_comes_late_holds_the_response_up_no_longer() {
    let upstream = upstream(|mut peer| {
        while let Some((stream, ..)) = peer.read_request() {
            peer.respond(stream, 200, Some(0), &[("trailer", "x-sum")]);
            // The head is to be there before.
            std::thread::sleep(Duration::from_millis(100));
            peer.trailers(stream, &[("x-sum", "0")]);
        }
    });
    let server = Server::start(&format!(
        "server {{ listen {{port}}; location / {{ proxy_http_version 2; proxy_pass http://127.0.0.1:{}; }} }}",
        upstream.port()
    ));
    let mut client = Client::connect(server.port());
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_response().status, 200);
    }
}

#[test]
fn a_hundred_calls_at_a_time_share_few_connections() {
    // Nobody is answered before all are there.
    let there = Arc::new(AtomicUsize::new(0));
    let counted = there.clone();
    let upstream =
        upstream_with(Config { max_concurrent_streams: 50, ..Config::default() }, move |mut peer| {
            let mut ended = Vec::new();
            while counted.load(Ordering::SeqCst) < 100 {
                if let Some(Told::End(stream)) = peer.poll(Duration::from_millis(50)) {
                    ended.push(stream);
                    counted.fetch_add(1, Ordering::SeqCst);
                }
                assert!(peer.open_streams() <= 50);
            }
            for stream in ended {
                peer.answer(stream, stream.id().to_string().as_bytes());
            }
            while !matches!(peer.next(), Told::Closed) {}
        });
    let server = grpc_with(&upstream, "", "");
    let port = server.port();
    let calls: Vec<_> = (0..100).map(|_| std::thread::spawn(move || post(port, "/x", "a"))).collect();
    for call in calls {
        assert_eq!(call.join().unwrap().0, 200);
    }
    assert!(upstream.accepted() <= 4, "{} connections", upstream.accepted());
}

#[test]
fn a_reset_by_the_upstream_is_a_bad_response() {
    let upstream = upstream(|mut peer| {
        while let Some((stream, asked, _)) = peer.read_request() {
            if asked.path == "/late" {
                peer.respond(stream, 200, None, &[]);
                peer.data(stream, b"some", false);
            }
            peer.reset(stream, ErrorCode::INTERNAL_ERROR);
        }
    });
    let server = grpc_with(&upstream, "", "");
    let mut client = H2Client::connect(server.port());
    assert_eq!(client.unary("/early", b"a").status, 502);
    let late = client.unary("/late", b"a");
    assert_eq!((late.status, late.ended), (200, false));
    assert!(late.lost.is_some());
    assert_eq!(upstream.accepted(), 1);
    logged(&server, "upstream rejected request with error 2 (INTERNAL_ERROR)");
}

#[test]
fn where_nobody_answers_the_client_gets_a_status_of_http() {
    let silent = upstream(|mut peer| while !matches!(peer.next(), Told::Closed) {});
    let dead = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let server = Server::start(&format!(
        "server {{ listen {{port}}; http2 on; location /dead {{ grpc_pass 127.0.0.1:{dead}; }}
         location /silent {{ grpc_pass 127.0.0.1:{}; grpc_read_timeout 300ms; }} }}",
        silent.port()
    ));
    let mut client = H2Client::connect(server.port());
    let dead = client.unary("/dead", b"a");
    assert_eq!((dead.status, dead.header("content-type")), (502, Some("text/html")));
    assert_eq!(client.unary("/silent", b"a").status, 504);
    // A connection on which nothing came is not used again.
    for _ in 0..2 {
        assert_eq!(client.unary("/silent", b"a").status, 504);
    }
    assert_eq!(silent.accepted(), 2);
    logged(&server, "grpc://127.0.0.1:");
}

/// Bytes of a body that is large for everything in between.
const LARGE: usize = 32 << 20;

#[test]
fn a_response_waits_for_a_slow_client() {
    let offered = Arc::new(AtomicUsize::new(0));
    let counted = offered.clone();
    let upstream = upstream(move |mut peer| {
        let piece = vec![b'x'; 1 << 16];
        let mut large = None;
        loop {
            match peer.poll(Duration::from_millis(1)) {
                Some(Told::Request(stream, asked)) => {
                    peer.respond(stream, 200, None, &[]);
                    match &*asked.path {
                        "/large" => large = Some((stream, LARGE)),
                        _ => peer.trailers(stream, &[("grpc-status", "0")]),
                    }
                }
                Some(Told::Closed) => return,
                _ => {}
            }
            while let Some((stream, left)) = &mut large {
                let sent = peer.data(*stream, &piece[..piece.len().min(*left)], false);
                counted.fetch_add(sent, Ordering::SeqCst);
                *left -= sent;
                if *left == 0 {
                    peer.trailers(*stream, &[("grpc-status", "0")]);
                    large = None;
                } else if sent == 0 {
                    break;
                }
            }
        }
    });
    let server = grpc_with(&upstream, "", "");
    let mut client = H2Client::connect(server.port());
    client.holds = true;
    client.call("/large").send(b"", true).settle(Duration::from_millis(500));
    let offered = offered.load(Ordering::SeqCst);
    assert!(offered > 512 << 10 && offered < 2 << 20, "the upstream got rid of {offered} bytes");
    // It holds up nobody else.
    let other = H2Client::connect(server.port()).unary("/small", b"");
    assert_eq!(other.trailer("grpc-status"), Some("0"));
    client.release();
    let reply = client.finish();
    assert_eq!((reply.body.len(), reply.trailer("grpc-status")), (LARGE, Some("0")));
    assert_eq!(upstream.accepted(), 1);
}

#[test]
fn a_request_waits_for_a_slow_upstream() {
    let go = Arc::new(AtomicUsize::new(0));
    let may = go.clone();
    let upstream = upstream(move |mut peer| {
        peer.holds = true;
        let mut total = 0;
        loop {
            if may.load(Ordering::SeqCst) == 1 {
                peer.release();
            }
            match peer.poll(Duration::from_millis(20)) {
                Some(Told::Data(_, data)) => total += data.len(),
                Some(Told::End(stream)) => peer.answer(stream, total.to_string().as_bytes()),
                Some(Told::Lost(..) | Told::Closed) => return,
                Some(Told::Request(..)) | None => {}
            }
        }
    });
    let server = grpc_with(&upstream, "", "");
    let port = server.port();
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let upload = std::thread::spawn(move || {
        let mut client = Client::connect(port);
        client.send(format!("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n"));
        for _ in 0..LARGE >> 16 {
            client.send(vec![b'x'; 1 << 16]);
            counted.fetch_add(1 << 16, Ordering::SeqCst);
        }
        client.read_response().text()
    });
    let mut before = usize::MAX;
    eventually("a standstill", || {
        std::thread::sleep(Duration::from_millis(200));
        let now = sent.load(Ordering::SeqCst);
        std::mem::replace(&mut before, now) == now
    });
    assert!(before < LARGE * 3 / 4, "{before} bytes went somewhere");
    go.store(1, Ordering::SeqCst);
    assert_eq!(upload.join().unwrap(), LARGE.to_string());
}

#[test]
fn idle_connections_are_kept_and_closed() {
    let closed = Arc::new(AtomicUsize::new(0));
    let counted = closed.clone();
    let upstream = upstream(move |mut peer| {
        while let Some((stream, _, body)) = peer.read_request() {
            peer.answer(stream, &body);
        }
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let server = grpc_with(&upstream, "keepalive_timeout 1s;", "");
    for _ in 0..3 {
        assert_eq!(H2Client::connect(server.port()).unary("/x", b"a").status, 200);
    }
    assert_eq!((upstream.accepted(), closed.load(Ordering::SeqCst)), (1, 0));
    eventually("the close", || closed.load(Ordering::SeqCst) == 1);
    assert_eq!(H2Client::connect(server.port()).unary("/x", b"a").status, 200);
    assert_eq!(upstream.accepted(), 2);
}

#[test]
fn connections_end_after_so_many_requests_or_none() {
    let upstream = echo();
    let server = grpc_with(&upstream, "keepalive_requests 2;", "");
    for _ in 0..4 {
        assert_eq!(post(server.port(), "/x", "a").0, 200);
    }
    assert_eq!(upstream.accepted(), 2);
    let server = grpc_with(&upstream, "keepalive 0;", "");
    for _ in 0..2 {
        assert_eq!(post(server.port(), "/x", "a").0, 200);
    }
    assert_eq!(upstream.accepted(), 4);
}

#[test]
fn http_2_is_a_version_of_proxy_pass() {
    let upstream = upstream(|mut peer| {
        while let Some((stream, asked, body)) = peer.read_request() {
            let text = format!(
                "{} {} {} {}",
                asked.method,
                asked.path,
                asked.field("host").unwrap_or("-"),
                body.len()
            );
            let length = if asked.path == "/streamed" { None } else { Some(text.len() as u64) };
            peer.respond(stream, 200, length, &[("content-type", "text/plain")]);
            if asked.method != "HEAD" {
                peer.data(stream, text.as_bytes(), true);
            }
        }
    });
    let server = Server::start(&format!(
        "client_max_body_size 0; client_body_buffer_size 1k; server {{ listen {{port}};
         location / {{ proxy_http_version 2; proxy_pass http://127.0.0.1:{0}; }}
         location /u/ {{ proxy_http_version 2; proxy_set_header Host b; proxy_pass http://127.0.0.1:{0}/; }} }}",
        upstream.port()
    ));
    let host = format!("127.0.0.1:{}", upstream.port());
    assert_eq!(get(server.port(), "/a").text(), format!("GET /a {host} 0"));
    assert_eq!(get(server.port(), "/streamed").text(), format!("GET /streamed {host} 0"));
    assert_eq!(get(server.port(), "/u/c?d").text(), "GET /c?d b 0");
    let head = request(server.port(), "HEAD", "/a", &[]);
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some((host.len() + 10).to_string().as_str()))
    );
    // A body in memory, and one in a file.
    for size in [100, 3_000_000] {
        let answer = post(server.port(), "/u/", &"x".repeat(size));
        assert_eq!(answer, (200, format!("POST / b {size}")));
    }
    // Each location has its own, unless there is an `upstream` block.
    assert_eq!(upstream.accepted(), 2);
}

#[test]
fn a_response_that_breaks_the_protocol_ends_the_connection() {
    let upstream = Upstream::start(|mut peer| {
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        let _ = peer.has_more();
    });
    let server = grpc_with(&upstream, "", "");
    assert_eq!(H2Client::connect(server.port()).unary("/x", b"a").status, 502);
}

#[test]
fn a_worker_that_quits_finishes_its_calls() {
    let upstream = upstream(|mut peer| {
        while let Some((stream, _, body)) = peer.read_request() {
            std::thread::sleep(Duration::from_millis(500));
            peer.answer(stream, &body);
        }
    });
    let mut server = grpc_with(&upstream, "", "");
    let port = server.port();
    let call = std::thread::spawn(move || post(port, "/x", "a"));
    std::thread::sleep(Duration::from_millis(200));
    server.signal(crate::util::Signal::QUIT);
    assert_eq!(call.join().unwrap(), (200, "a".to_owned()));
    server.wait_for_exit();
}

#[test]
fn tls_with_the_protocol_negotiated() {
    let fixture = |name: &str| format!("{}/src/proto/tls/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    let server = Server::start(&format!(
        "ssl_certificate {0}; ssl_certificate_key {1};
         
         server {{ listen {{port}}; http2 on;
           grpc_ssl_trusted_certificate {2}; grpc_ssl_verify on; grpc_ssl_name example.com;
           proxy_ssl_trusted_certificate {2}; proxy_ssl_name example.com;
           location /g {{ grpc_pass grpcs://127.0.0.1:{{port2}}; }}
           location /bad {{ grpc_pass grpcs://127.0.0.1:{{port2}}; grpc_ssl_name elsewhere; }}
           location /p {{ proxy_http_version 2; proxy_pass https://127.0.0.1:{{port2}}; }}
           location /q {{ proxy_pass https://127.0.0.1:{{port2}}; }} }}
         server {{ listen {{port2}} ssl; http2 on; location / {{ return 200 \"$server_protocol $scheme $request_uri\"; }} }}",
        fixture("server-ec.pem"),
        fixture("server-ec.key"),
        fixture("ca.pem"),
    ));
    assert_eq!(get(server.port(), "/p/a").text(), "HTTP/2.0 https /p/a");
    assert_eq!(get(server.port(), "/q/a").text(), "HTTP/1.1 https /q/a");
    assert_eq!(get(server.port(), "/g/a").text(), "HTTP/2.0 https /g/a");
    assert_eq!(get(server.port(), "/bad").status, 502);
    logged(&server, "while SSL handshaking to upstream");
    let mut client = H2Client::connect(server.port());
    let reply = client.request("GET", "/g/b", RequestFraming::None, &[]).finish();
    assert_eq!(reply.body, b"HTTP/2.0 https /g/b");
}
