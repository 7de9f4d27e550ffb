//! Calls that fail: which are made again, and where they go.

use super::*;
use std::collections::HashMap;
use std::sync::Mutex;

/// What becomes of a request the first time that it is made; later it is answered.
fn first_time(peer: &mut H2Peer, stream: StreamKey, path: &str) -> bool {
    match path {
        "/refused" => peer.reset(stream, ErrorCode::REFUSED_STREAM),
        "/away-below" => peer.go_away(stream.id().saturating_sub(2)),
        "/away-at" => {
            peer.go_away(stream.id());
            return false;
        }
        "/close" => return false,
        "/internal" => peer.reset(stream, ErrorCode::INTERNAL_ERROR),
        "/cancel" => peer.reset(stream, ErrorCode::CANCEL),
        "/calm" => peer.reset(stream, ErrorCode::ENHANCE_YOUR_CALM),
        "/begun" => {
            peer.respond(stream, 200, None, &[]);
            peer.reset(stream, ErrorCode::REFUSED_STREAM);
        }
        "/no-error" => peer.reset(stream, ErrorCode::NO_ERROR),
        "/silent" => {}
        path => panic!("{path}"),
    }
    true
}

/// Two upstreams that do with each path what [`first_time`] says, and how often they saw each path in all.
fn fates() -> ([Upstream; 2], Arc<Mutex<HashMap<String, usize>>>) {
    let seen = Arc::<Mutex<HashMap<String, usize>>>::default();
    let start = || {
        let seen = seen.clone();
        upstream(move |mut peer| {
            while let Some((stream, asked, body)) = peer.read_request() {
                let (_, path) = asked.path.split_at(asked.path.rfind('/').unwrap());
                let path = path.split('?').next().unwrap();
                let count = {
                    let mut seen = seen.lock().unwrap();
                    let count = seen.entry(asked.path.clone()).or_insert(0);
                    *count += 1;
                    *count
                };
                match count {
                    1 if !first_time(&mut peer, stream, path) => return,
                    1 => {}
                    _ => peer.answer(stream, &body),
                }
            }
        })
    };
    ([start(), start()], seen)
}

/// A request that may change something is made twice only if the peer says that it did not look at it; with
/// `non_idempotent`, and if it changes nothing, whenever the condition is among those of `grpc_next_upstream`.
#[test]
fn what_is_tried_again_and_what_is_not() {
    let ([one, two], seen) = fates();
    let server = Server::start(&format!(
        "upstream u {{ server 127.0.0.1:{} max_fails=0; server 127.0.0.1:{} max_fails=0; }}
         server {{ listen {{port}}; grpc_read_timeout 300ms; grpc_next_upstream error timeout invalid_header;
           location / {{ grpc_pass u; }}
           location /again/ {{ grpc_pass u; grpc_next_upstream error timeout invalid_header non_idempotent; }} }}",
        one.port(),
        two.port(),
    ));
    // By fate: what becomes of a POST, and what of it with `non_idempotent`, which is what becomes of a GET too.
    let (again, once) = ((200, 2), |status: u16| (status, 1));
    for (fate, post, other) in [
        ("/refused", again, again),
        ("/away-below", again, again),
        ("/away-at", once(502), again),
        ("/close", once(502), again),
        ("/internal", once(502), again),
        ("/cancel", once(502), again),
        ("/calm", once(502), again),
        ("/no-error", once(502), again),
        ("/silent", once(504), again),
        // The client has the head already.
        ("/begun", once(200), once(200)),
    ] {
        let asked = [
            ("POST", format!("/p{fate}"), post),
            ("POST", format!("/again{fate}"), other),
            ("GET", format!("/g{fate}"), other),
        ];
        for (method, path, expected) in asked {
            let mut client = Client::connect(server.port());
            client.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na"));
            let status = client.read_head_response().status;
            let count = seen.lock().unwrap().get(&path).copied().unwrap_or(0);
            assert_eq!((status, count), expected, "{method} {path}");
        }
    }
}

#[test]
fn a_call_goes_elsewhere_if_there_is_no_connection() {
    let dead = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let alive = echo();
    // It leaves before it has heard anything.
    let leaving = upstream(|mut peer| {
        peer.go_away(0);
        while !matches!(peer.next(), Told::Closed) {}
    });
    for port in [dead, leaving.port()] {
        let server = Server::start(&format!(
            "upstream u {{ server 127.0.0.1:{port} max_fails=0; server 127.0.0.1:{} max_fails=0; }}
             server {{ listen {{port}}; location / {{ grpc_pass u; }} }}",
            alive.port()
        ));
        for _ in 0..4 {
            assert_eq!(post(server.port(), "/x", "a"), (200, "a".to_owned()));
        }
    }
    assert!(leaving.accepted() > 0);
}

#[test]
fn refused_calls_are_made_again_with_their_whole_body() {
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let seen = bodies.clone();
    let upstream = upstream(move |mut peer| {
        let mut refused = 0;
        while let Some((stream, _, body)) = peer.read_request() {
            seen.lock().unwrap().push(body.clone());
            if refused < 2 {
                refused += 1;
                peer.reset(stream, ErrorCode::REFUSED_STREAM);
            } else {
                peer.answer(stream, &body);
            }
        }
    });
    let server = grpc_with(&upstream, "", "");
    let body = vec![b'x'; 30_000];
    let reply = H2Client::connect(server.port()).unary("/x", &body);
    assert_eq!((reply.status, reply.body == body), (200, true));
    assert_eq!(bodies.lock().unwrap().iter().map(Vec::len).collect::<Vec<_>>(), [30_000; 3]);
}

#[test]
fn an_upstream_that_refuses_everything_fails_the_call() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let upstream = upstream(move |mut peer| {
        while let Some((stream, ..)) = peer.read_request() {
            counted.fetch_add(1, Ordering::SeqCst);
            peer.reset(stream, ErrorCode::REFUSED_STREAM);
        }
    });
    let server = grpc_with(&upstream, "", "");
    assert_eq!(H2Client::connect(server.port()).unary("/x", b"a").status, 502);
    assert_eq!(count.load(Ordering::SeqCst), 6);
    logged(&server, "upstream rejected request with error 7");
}

#[test]
fn going_away_in_the_midst_of_calls_loses_none() {
    let upstream = upstream(|mut peer| {
        let mut left = (peer.index < 3).then_some(10);
        let mut last = u32::MAX;
        loop {
            match peer.next() {
                Told::End(stream) if stream.id() <= last => {
                    if let Some(left) = &mut left {
                        *left -= 1;
                        if *left == 0 {
                            last = stream.id();
                            peer.go_away(last);
                        }
                    }
                    peer.answer(stream, b"done");
                }
                Told::Closed => return,
                _ => {}
            }
        }
    });
    let server = grpc_with(&upstream, "", "");
    let port = server.port();
    let calls: Vec<_> = (0..100).map(|_| std::thread::spawn(move || post(port, "/x", "a"))).collect();
    for call in calls {
        assert_eq!(call.join().unwrap(), (200, "done".to_owned()));
    }
    assert!(upstream.accepted() >= 4);
}

#[test]
fn a_call_that_may_have_been_processed_is_not_made_twice() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let upstream = upstream(move |mut peer| {
        if peer.read_request().is_some() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        // The connection ends here.
    });
    let server = grpc_with(&upstream, "", "grpc_next_upstream error timeout invalid_header;");
    assert_eq!(H2Client::connect(server.port()).unary("/x", b"a").status, 502);
    assert_eq!(count.load(Ordering::SeqCst), 1);
    logged(&server, "while reading response header");
}
