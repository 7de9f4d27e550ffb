//! Streams whose requests are passed on.

use super::*;

#[test]
fn trailers_and_interim_responses_are_passed_on() {
    let upstream = Upstream::start(|mut peer| {
        while peer.read_request().is_some() {
            peer.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n");
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\nConnection: keep-alive\r\n\r\n4\r\nbody\r\n0\r\nX-Sum: 7\r\n\r\n");
        }
    });
    let server = proxy(
        &upstream,
        "proxy_http_version 1.1; proxy_set_header Connection ''; proxy_pass_trailers on; early_hints 1;",
    );
    let mut h2 = H2::connect(server.port());
    let id = h2.open(&[("te", "trailers")], true);
    let response = h2.wait(id);
    assert_eq!((response.status, response.text().as_str()), (200, "body"));
    assert_eq!(response.interim, [(103, vec![("link".to_owned(), "</a.css>; rel=preload".to_owned())])]);
    assert_eq!(response.trailers, [("x-sum".to_owned(), "7".to_owned())]);

    let server = start("location /t { add_trailer X-T $body_bytes_sent; } ");
    server.write("html/t", "some text");
    let response = H2::connect(server.port()).fetch("/t");
    assert_eq!(response.text(), "some text");
    assert_eq!(response.trailers.len(), 1);
}

#[test]
fn requests_are_passed_on_in_parallel() {
    let waiting = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::http({
        let waiting = Arc::clone(&waiting);
        move |head, _| {
            waiting.fetch_add(1, Ordering::SeqCst);
            // Answers once all of them are there.
            eventually("all requests at a time", || waiting.load(Ordering::SeqCst) >= 30);
            let line = head.lines().next().unwrap_or_default().to_owned();
            let host =
                head.lines().find(|line| line.to_ascii_lowercase().starts_with("host:")).unwrap_or_default();
            ok(&format!("{line}|{host}"))
        }
    });
    let server = proxy(&upstream, "proxy_set_header Host $host;");
    let mut h2 = H2::connect(server.port());
    let ids: Vec<u32> = (0..30).map(|number| h2.get(&format!("/{number}"))).collect();
    for (number, id) in ids.iter().enumerate() {
        let text = h2.wait(*id).text();
        assert!(
            text.starts_with(&format!("GET /{number} HTTP/1.")) && text.ends_with("ost: localhost"),
            "{text}"
        );
    }
}

#[test]
fn cookies_are_one_field_for_those_behind() {
    let upstream = Upstream::http(|head, _| {
        ok(&head
            .lines()
            .filter(|line| line.to_ascii_lowercase().starts_with("cookie"))
            .collect::<Vec<_>>()
            .join("|"))
    });
    let server = proxy(&upstream, "");
    let mut h2 = H2::connect(server.port());
    let id = h2.open(&[("cookie", "a=b"), ("x", "y"), ("cookie", "c=d"), ("cookie", "e=f")], true);
    let text = h2.wait(id).text();
    assert_eq!(text.to_ascii_lowercase(), "cookie: a=b; c=d; e=f");
}

#[test]
fn events_of_upstreams_come_at_once() {
    let seen = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::start({
        let seen = Arc::clone(&seen);
        move |mut peer| {
            peer.read_request();
            peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Accel-Buffering: no\r\n\r\n");
            for number in 0..10 {
                peer.send(format!("data: {number}\n\n"));
                // The next one only when the client has this one.
                eventually("the event was seen", || seen.load(Ordering::SeqCst) > number);
            }
        }
    });
    let server = proxy(&upstream, "");
    let mut h2 = H2::connect_tls(server.port_of(2), "example.com");
    let id = h2.get("/");
    for number in 0..10 {
        let event = format!("data: {number}\n\n");
        h2.wait_until(|h2| h2.streams[&id].text().ends_with(&event));
        seen.store(number + 1, Ordering::SeqCst);
    }
    assert!(h2.wait(id).ended);
}

#[test]
fn a_reset_stream_frees_its_upstream_and_is_logged() {
    let gone = Arc::new(AtomicBool::new(false));
    let upstream = Upstream::start({
        let gone = Arc::clone(&gone);
        move |mut peer| {
            let Some((head, _)) = peer.read_request() else { return };
            if head.starts_with("GET /quick") {
                peer.send(ok("quick"));
                return;
            }
            if head.starts_with("GET /begun") {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nbegun");
            }
            assert!(peer.read_some().is_empty());
            gone.store(true, Ordering::SeqCst);
        }
    });
    let server = proxy(&upstream, "proxy_buffering off;");
    let mut h2 = H2::connect(server.port());
    for (path, status) in [("/waiting", 499), ("/begun", 200)] {
        let id = h2.get(path);
        let before = upstream.accepted();
        match status {
            200 => h2.wait_until(|h2| h2.streams[&id].text() == "begun"),
            _ => eventually("the upstream is asked", || {
                upstream.accepted() > 0 && upstream.accepted() >= before
            }),
        }
        std::thread::sleep(Duration::from_millis(50));
        h2.send(RST_STREAM, 0, id, &CANCEL.to_be_bytes());
        eventually("the upstream is let go", || gone.swap(false, Ordering::SeqCst));
        eventually("its line", || lines(&server, &format!("GET {path} HTTP/2.0|{status}|")) == 1);
        assert_eq!(h2.fetch("/quick").text(), "quick");
    }
    // Reset in the same breath: the upstream hears nothing of it.
    let before = upstream.accepted();
    let id = h2.next_id();
    h2.skip_id();
    h2.streams.insert(id, h2::Stream::default());
    let mut both = h2::frame(HEADERS, END_STREAM | END_HEADERS, id, &h2::head(&[(":path", "/at-once")]));
    both.extend(h2::frame(RST_STREAM, 0, id, &CANCEL.to_be_bytes()));
    h2.client.send(both);
    eventually("its line", || lines(&server, "GET /at-once HTTP/2.0|499|") == 1);
    assert_eq!(upstream.accepted(), before);
    // The whole connection goes: so do all of its streams.
    h2.get("/waiting");
    h2.get("/waiting");
    eventually("both are asked", || upstream.accepted() >= 6);
    std::thread::sleep(Duration::from_millis(50));
    drop(h2);
    eventually("their lines", || lines(&server, "GET /waiting HTTP/2.0|499|") == 3);
}

#[test]
fn an_upstream_that_fails_resets_or_answers_its_stream_alone() {
    let upstream = Upstream::start(|mut peer| {
        while let Some((head, _)) = peer.read_request() {
            if head.starts_with("GET /short") {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort");
                return;
            }
            if head.starts_with("GET /none") {
                return;
            }
            peer.send(ok("fine"));
        }
    });
    let server = proxy(&upstream, "");
    let mut h2 = H2::connect(server.port());
    let (short, none, fine) = (h2.get("/short"), h2.get("/none"), h2.get("/fine"));
    let short = h2.wait(short);
    assert!(short.reset.is_some() && !short.ended, "{short:?}");
    assert_eq!((h2.wait(none).status, h2.wait(fine).text().as_str()), (502, "fine"));
}

/// A scripted upstream that takes a WebSocket and sends back what comes.
fn echo() -> Upstream {
    Upstream::start(|mut peer| {
        let Some((head, _)) = peer.read_request() else { return };
        let head = head.to_ascii_lowercase();
        assert!(head.starts_with("get /chat") && head.contains("upgrade: websocket"), "{head}");
        assert!(head.contains("sec-websocket-key:") && head.contains("connection: upgrade"), "{head}");
        peer.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n");
        loop {
            let bytes = peer.read_some();
            if bytes.is_empty() || !peer.try_send(&bytes) {
                return;
            }
        }
    })
}

#[test]
fn websockets_go_through_streams() {
    let upstream = echo();
    let server = proxy(
        &upstream,
        "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;",
    );
    let mut h2 = H2::connect_tls(server.port_of(2), "example.com");
    h2.ping();
    assert_eq!(h2.settings.get(&8), Some(&1), "SETTINGS_ENABLE_CONNECT_PROTOCOL");
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":path", "/chat"),
        (":authority", "example.com"),
        ("sec-websocket-version", "13"),
    ];
    let id = h2.open(&fields, false);
    h2.wait_until(|h2| h2.streams[&id].status != 0);
    let open = &h2.streams[&id];
    assert_eq!((open.status, open.ended), (200, false), "{open:?}");
    assert_eq!(open.header("upgrade"), None);
    let mut sent = Vec::new();
    for piece in [&b"hello"[..], &noise(150_000), b"bye"] {
        h2.send_body(id, piece, false);
        sent.extend_from_slice(piece);
        h2.wait_until(|h2| h2.streams[&id].body.len() == sent.len());
    }
    assert!(h2.streams[&id].body == sent);
    // Another beside it, and its own end.
    let other = h2.open(&fields, false);
    h2.send_body(other, b"first", false);
    h2.wait_until(|h2| h2.streams[&other].text() == "first");
    h2.send(DATA, END_STREAM, id, b"");
    let done = h2.wait(id);
    assert!(done.ended || done.reset.is_some());
    h2.send(RST_STREAM, 0, other, &CANCEL.to_be_bytes());
    eventually("both lines", || {
        server.access_log().lines().filter(|line| line.contains("/chat")).count() == 2
    });
    // A plain CONNECT is for nobody here.
    let id = h2.open(&[(":method", "CONNECT"), (":authority", "example.com:443")], false);
    assert!(matches!(h2.wait(id).status, 400..=501));
}

#[test]
fn large_responses_of_upstreams_wait_for_slow_readers() {
    let body = Arc::new(noise(5 << 20));
    let upstream = Upstream::http({
        let body = Arc::clone(&body);
        move |head, _| {
            let mut answer =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
            if !head.starts_with("HEAD") {
                answer.extend_from_slice(&body);
            }
            answer
        }
    });
    for directives in ["", "proxy_buffering off;", "proxy_max_temp_file_size 0;"] {
        let server = proxy(&upstream, directives);
        let mut h2 = H2::over(Client::connect(server.port()), &[(4, 20_000)]);
        h2.gives_window = false;
        let ids = [h2.get("/one"), h2.get("/two")];
        h2.wait_until(|h2| ids.iter().all(|id| h2.streams[id].body.len() == 20_000));
        std::thread::sleep(Duration::from_millis(100));
        let head = h2.open(&[(":method", "HEAD")], true);
        let head = h2.wait(head);
        assert_eq!((head.status, head.header("content-length")), (200, Some(&*body.len().to_string())));
        // Windows open again as bodies come, from here on.
        h2.gives_window = true;
        h2.send(WINDOW_UPDATE, 0, 0, &40_000u32.to_be_bytes());
        for id in ids {
            h2.send(WINDOW_UPDATE, 0, id, &20_000u32.to_be_bytes());
        }
        for id in ids {
            assert!(h2.wait(id).body == *body, "{directives}");
        }
    }
}

#[test]
fn an_answer_before_the_end_of_an_upload_is_complete() {
    let server = start("location / { return 200 early; }");
    let mut h2 = H2::connect(server.port());
    h2.ping();
    for _ in 0..5 {
        let id = h2.open(&[(":method", "POST"), ("content-length", "1000000")], false);
        h2.wait_until(|h2| h2.streams[&id].ended || h2.streams[&id].reset.is_some());
        h2.client.try_send(h2::frame(DATA, 0, id, &[0; 10_000]));
        h2.ping();
        let open = &h2.streams[&id];
        assert!(open.ended && open.status == 200 && open.text() == "early", "{open:?}");
        // The rest is not wanted, which is no error (RFC 9113 section 8.1).
        assert!(matches!(open.reset, None | Some(NO_ERROR)), "{open:?}");
    }
    assert_eq!(h2.goaways, []);
}

#[test]
fn a_client_that_leaves_gets_what_it_asked_for() {
    let upstream = Upstream::http(|_, _| {
        std::thread::sleep(Duration::from_millis(200));
        ok("late")
    });
    let server = proxy(&upstream, "");
    let mut h2 = H2::connect(server.port());
    let id = h2.get("/");
    h2.send(GOAWAY, 0, 0, &[0; 8]);
    assert_eq!(h2.wait(id).text(), "late");
    h2.drain();
}

#[test]
fn a_response_that_ends_with_a_turn_ends_its_request_as_well() {
    const BYTES: usize = 100 * 1024;
    // So that each length occurs that may be left for the last turn.
    let upstream = Upstream::start(|mut peer| {
        while let Some((head, _)) = peer.read_request() {
            let target = head.split(' ').nth(1).unwrap_or_default();
            let first = target.trim_matches('/').parse::<usize>().expect("a number");
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n"));
            peer.send(vec![b'x'; first]);
            std::thread::sleep(Duration::from_millis(20));
            peer.send(vec![b'y'; BYTES - first]);
        }
    });
    let server = proxy(&upstream, "proxy_http_version 1.1; proxy_set_header Connection '';");
    let mut h2 = H2::connect(server.port());
    let firsts: Vec<usize> = (0..24).map(|number| 4096 + number % 3 * 32_768).collect();
    for first in &firsts {
        assert_eq!(h2.fetch(&format!("/{first}")).body.len(), BYTES);
    }
    // Before any timeout.
    server.access_log_lines(firsts.len());
}
