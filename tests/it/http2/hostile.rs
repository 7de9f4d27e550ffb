//! Clients that break rules or play games with them: each costs its own connection or stream, and little else.

use super::*;

/// Resident kilobytes of the server's processes.
fn resident_kib(server: &Server) -> usize {
    server
        .children()
        .iter()
        .map(|pid| {
            let status =
                std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).expect("a process");
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
            line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number")
        })
        .sum()
}

/// Processor time of the server's processes, in hundredths of a second.
fn processor_ticks(server: &Server) -> u64 {
    let of = |pid: &rustix::process::Pid| {
        let path = format!("/proc/{}/stat", pid.as_raw_nonzero());
        let text = std::fs::read_to_string(path).expect("a process");
        let fields: Vec<&str> = text.rsplit(')').next().expect("fields").split_whitespace().collect();
        fields[11].parse::<u64>().expect("a number") + fields[12].parse::<u64>().expect("a number")
    };
    server.children().iter().map(of).sum()
}

/// Sends something and waits for the connection's end; the last GOAWAY's code.
fn cost(server: &Server, send: impl FnOnce(&mut H2)) -> u32 {
    let mut h2 = H2::connect(server.port());
    h2.ping();
    send(&mut h2);
    h2.drain();
    h2.goaways.last().unwrap_or_else(|| panic!("no GOAWAY\n{}", server.error_log())).1
}

#[test]
fn violations_cost_the_connection_what_the_rfc_says() {
    let server = start("return 200 x;");
    let mut healthy = H2::connect(server.port());
    let send = |kind: u8, flags: u8, stream: u32, payload: &'static [u8]| {
        move |h2: &mut H2| h2.send(kind, flags, stream, payload)
    };
    let bad = [
        ("DATA on stream 0", cost(&server, send(DATA, 0, 0, b"x")), PROTOCOL_ERROR),
        ("DATA on an idle stream", cost(&server, send(DATA, 0, 7, b"x")), PROTOCOL_ERROR),
        ("HEADERS on stream 0", cost(&server, send(HEADERS, 5, 0, b"\x82")), PROTOCOL_ERROR),
        ("an even stream", cost(&server, send(HEADERS, 5, 2, b"\x82\x84\x86")), PROTOCOL_ERROR),
        ("broken HPACK", cost(&server, send(HEADERS, 5, 1, b"\xff\xff\xff\xff\xff\xff")), COMPRESSION_ERROR),
        ("an index of nothing", cost(&server, send(HEADERS, 5, 1, b"\xfe")), COMPRESSION_ERROR),
        ("padding beyond the frame", cost(&server, send(HEADERS, 0xd, 1, b"\x09\x82")), PROTOCOL_ERROR),
        ("RST_STREAM of an idle stream", cost(&server, send(RST_STREAM, 0, 5, &[0; 4])), PROTOCOL_ERROR),
        ("a short RST_STREAM", cost(&server, send(RST_STREAM, 0, 5, &[0; 3])), FRAME_SIZE_ERROR),
        ("SETTINGS of odd length", cost(&server, send(SETTINGS, 0, 0, &[0; 5])), FRAME_SIZE_ERROR),
        ("SETTINGS on a stream", cost(&server, send(SETTINGS, 0, 1, b"")), PROTOCOL_ERROR),
        ("an ACK with content", cost(&server, send(SETTINGS, 1, 0, &[0; 6])), FRAME_SIZE_ERROR),
        (
            "a window beyond 2^31",
            cost(&server, send(SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0])),
            FLOW_CONTROL_ERROR,
        ),
        ("a small MAX_FRAME_SIZE", cost(&server, send(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1])), PROTOCOL_ERROR),
        ("a PING of 7 bytes", cost(&server, send(PING, 0, 0, &[0; 7])), FRAME_SIZE_ERROR),
        ("a PING on a stream", cost(&server, send(PING, 0, 3, &[0; 8])), PROTOCOL_ERROR),
        ("PUSH_PROMISE", cost(&server, send(PUSH_PROMISE, 4, 1, &[0, 0, 0, 2])), PROTOCOL_ERROR),
        ("a lone CONTINUATION", cost(&server, send(CONTINUATION, 4, 1, b"")), PROTOCOL_ERROR),
        ("WINDOW_UPDATE of 0", cost(&server, send(WINDOW_UPDATE, 0, 0, &[0; 4])), PROTOCOL_ERROR),
        (
            "WINDOW_UPDATE too far",
            cost(&server, send(WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255])),
            FLOW_CONTROL_ERROR,
        ),
        (
            "a frame that is too large",
            cost(&server, |h2| {
                h2.client.try_send(h2::frame(DATA, 0, 1, &[0; 16_385]));
            }),
            FRAME_SIZE_ERROR,
        ),
        (
            "another frame within a head",
            cost(&server, |h2| {
                h2.send(HEADERS, END_STREAM, 1, b"\x82");
                h2.send(PING, 0, 0, &[0; 8]);
            }),
            PROTOCOL_ERROR,
        ),
        (
            "a stream below an earlier one",
            cost(&server, |h2| {
                h2.send(HEADERS, 5, 5, &h2::head(&[]));
                h2.streams.insert(5, h2::Stream::default());
                h2.wait(5);
                h2.streams.insert(3, h2::Stream::default());
                h2.send(HEADERS, 5, 3, &h2::head(&[]));
            }),
            PROTOCOL_ERROR,
        ),
    ];
    for (what, code, expected) in bad {
        assert_eq!(code, expected, "{what}");
    }
    // Not the preface, and something else behind it than SETTINGS.
    for garbage in
        [&b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"[..], &[PREFACE, &h2::frame(PING, 0, 0, &[0; 8])].concat()]
    {
        let mut client = Client::connect(server.port());
        client.send(garbage);
        while !client.read_some().is_empty() {}
    }
    assert_eq!(healthy.fetch("/").text(), "x");
}

#[test]
fn malformed_requests_cost_their_stream_only() {
    let server = start("return 200 x;");
    let mut h2 = H2::connect(server.port());
    let without = |missing: &str| {
        [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")]
            .into_iter()
            .filter(|(name, _)| *name != missing)
            .collect::<Vec<_>>()
    };
    let with = |name: &'static str, value: &'static str| {
        let mut fields = without("");
        fields.push((name, value));
        fields
    };
    for fields in [
        without(":method"),
        without(":scheme"),
        without(":path"),
        with("Upper", "x"),
        with("connection", "close"),
        with("transfer-encoding", "chunked"),
        with("te", "gzip"),
        with(":method", "GET"),
        with(":status", "200"),
        with(":unknown", "x"),
        with("bad name", "x"),
        with("x", "a\nb"),
        with("x", " padded"),
        with("content-length", "5"),
    ] {
        let mut block = Vec::new();
        for (name, value) in &fields {
            h2::literal(name, value, &mut block);
        }
        let id = h2.next_id();
        h2.open(&[], true);
        // The identifier after it, by hand.
        h2.wait(id);
        let id = id + 2;
        let skipped = H2::next_id(&h2);
        assert_eq!(skipped, id);
        h2.skip_id();
        h2.streams.insert(id, h2::Stream::default());
        h2.send(HEADERS, END_STREAM | END_HEADERS, id, &block);
        let response = h2.wait(id);
        assert!(response.reset == Some(PROTOCOL_ERROR) || response.status == 400, "{fields:?}: {response:?}");
    }
    // Lengths that disagree with content-length.
    for (body, ends) in [(&b"abcdef"[..], false), (b"abc", true)] {
        let id = h2.open(&[(":method", "POST"), ("content-length", "5")], false);
        h2.send(DATA, u8::from(ends), id, body);
        h2.wait_until(|h2| h2.is_over(id));
    }
    assert_eq!(h2.fetch("/").text(), "x");
    assert_eq!(h2.goaways, []);
}

#[test]
fn floods_cost_their_connection_and_nobody_else_anything() {
    let upstream = Upstream::http(|_, _| {
        std::thread::sleep(Duration::from_millis(500));
        ok("late")
    });
    let server = start(&format!(
        "location / {{ return 200 x; }} location /p {{ proxy_pass http://127.0.0.1:{}; }}",
        upstream.port()
    ));
    server.write("html/a", noise(100_000));
    let mut healthy = H2::connect(server.port());
    let late = healthy.get("/p");
    let flood = |frame: Vec<u8>, count: usize| {
        move |h2: &mut H2| {
            let many = frame.repeat(1000);
            for _ in 0..count / 1000 {
                if !h2.client.try_send(&many) {
                    return;
                }
            }
        }
    };
    let calm = [
        ("PING", cost(&server, flood(h2::frame(PING, 0, 0, &[0; 8]), 20_000))),
        ("SETTINGS", cost(&server, flood(h2::frame(SETTINGS, 0, 0, b""), 20_000))),
        (
            "SETTINGS with much in it",
            cost(&server, flood(h2::frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1].repeat(100)), 2_000)),
        ),
        (
            "empty DATA",
            cost(&server, |h2| {
                h2.open(&[(":method", "POST")], false);
                flood(h2::frame(DATA, 0, 1, b""), 20_000)(h2);
            }),
        ),
        ("WINDOW_UPDATE", cost(&server, flood(h2::frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()), 20_000))),
        ("PRIORITY", cost(&server, flood(h2::frame(PRIORITY, 0, 9, &[0, 0, 0, 0, 16]), 20_000))),
        ("unknown frames", cost(&server, flood(h2::frame(99, 0, 0, b"x"), 20_000))),
        (
            "CONTINUATION",
            cost(&server, |h2| {
                h2.send(HEADERS, END_STREAM, 1, &h2::head(&[]));
                flood(h2::frame(CONTINUATION, 0, 1, b""), 20_000)(h2);
            }),
        ),
        (
            "CONTINUATION with content",
            cost(&server, |h2| {
                let mut fields = Vec::new();
                h2::literal("x", &"y".repeat(1000), &mut fields);
                h2.send(HEADERS, END_STREAM, 1, &h2::head(&[]));
                flood(h2::frame(CONTINUATION, 0, 1, &fields), 5_000)(h2);
            }),
        ),
        (
            "rapid reset",
            cost(&server, |h2| {
                for id in (1..20_001).step_by(2) {
                    let mut both = h2::frame(HEADERS, 5, id, &h2::head(&[(":path", "/p")]));
                    both.extend(h2::frame(RST_STREAM, 0, id, &CANCEL.to_be_bytes()));
                    h2.streams.insert(id, h2::Stream::default());
                    if !h2.client.try_send(both) {
                        return;
                    }
                }
            }),
        ),
        (
            "streams broken on purpose",
            cost(&server, |h2| {
                for id in (1..20_001).step_by(2) {
                    let mut both =
                        h2::frame(HEADERS, 4, id, &h2::head(&[(":method", "POST"), (":path", "/p")]));
                    both.extend(h2::frame(WINDOW_UPDATE, 0, id, &[0; 4]));
                    h2.streams.insert(id, h2::Stream::default());
                    if !h2.client.try_send(both) {
                        return;
                    }
                }
            }),
        ),
        (
            "more streams than allowed",
            cost(&server, |h2| {
                for id in (1..20_001).step_by(2) {
                    h2.streams.insert(id, h2::Stream::default());
                    if !h2.client.try_send(h2::frame(HEADERS, 5, id, &h2::head(&[(":path", "/p")]))) {
                        return;
                    }
                }
            }),
        ),
    ];
    for (what, code) in calm {
        assert_eq!(code, ENHANCE_YOUR_CALM, "{what}");
    }
    assert_eq!(healthy.wait(late).text(), "late");
    assert_eq!(healthy.fetch("/").text(), "x");
    assert_eq!(healthy.goaways, []);
    assert!(!server.error_log().contains("[alert]"), "{}", server.error_log());
}

#[test]
fn a_flooder_that_reads_nothing_holds_no_memory() {
    let server = start("");
    server.write("html/a", noise(2 << 20));
    let before = resident_kib(&server);
    let mut attackers: Vec<H2> = (0..20)
        .map(|number| match number % 2 {
            0 => H2::connect(server.port()),
            _ => H2::connect_tls(server.port_of(2), "example.com"),
        })
        .collect();
    for h2 in &mut attackers {
        h2.send(SETTINGS, 0, 0, &[0, 4, 0x7f, 0, 0, 0]);
        h2.send(WINDOW_UPDATE, 0, 0, &0x7000_0000u32.to_be_bytes());
        for _ in 0..100 {
            h2.get("/a");
        }
    }
    let spent = processor_ticks(&server);
    std::thread::sleep(Duration::from_millis(1000));
    let spent = processor_ticks(&server) - spent;
    assert!(spent < 50, "{spent} of 100 ticks are spent on those who read nothing");
    let mut healthy = H2::connect(server.port());
    assert_eq!(healthy.fetch("/a").body.len(), 2 << 20);
    let grown = resident_kib(&server).saturating_sub(before);
    // 2,000 streams of 2 MB each wait.
    assert!(grown < 60_000, "{grown} KiB");
}

#[test]
fn ten_thousand_streams_leave_nothing_behind() {
    let upstream = Upstream::http(|_, _| ok("fine"));
    let server = start(&format!(
        "keepalive_requests 1000000; location /s {{ return 200 x; }}
         location /p {{ proxy_pass http://127.0.0.1:{}; }}",
        upstream.port()
    ));
    server.write("html/a", "file");
    let mut h2 = H2::connect(server.port());
    let round = |h2: &mut H2, count: usize| {
        for number in 0..count {
            match number % 50 {
                0 => assert_eq!(h2.fetch("/p").text(), "fine"),
                1..25 => assert_eq!(h2.fetch("/a").text(), "file"),
                _ => assert_eq!(h2.fetch("/s").text(), "x"),
            }
        }
    };
    round(&mut h2, 1000);
    let before = resident_kib(&server);
    round(&mut h2, 9000);
    let grown = resident_kib(&server).saturating_sub(before);
    assert!(grown < 2000, "{grown} KiB in 9,000 streams");
    assert_eq!(h2.goaways, []);
    eventually("all lines", || server.access_log().lines().count() == 10_000);
}

#[test]
fn window_games_cost_no_work() {
    let server = start("");
    let body = noise(200_000);
    server.write("html/a", &body);
    // A byte at a time is refused sooner or later, or served; never anything in between.
    let mut h2 = H2::over(Client::connect(server.port()), &[(4, 0)]);
    h2.gives_window = false;
    let id = h2.get("/a");
    h2.wait_until(|h2| h2.streams[&id].status == 200);
    for _ in 0..4000 {
        if !h2.client.try_send(h2::frame(WINDOW_UPDATE, 0, id, &1u32.to_be_bytes())) {
            break;
        }
    }
    h2.client.try_send(h2::frame(PING, 0, 0, b"pingpong"));
    while h2.pongs.is_empty() && h2.pump() {}
    assert!(h2.streams[&id].body == body[..h2.streams[&id].body.len()]);
    if h2.pongs.is_empty() {
        assert_eq!(h2.goaways.last().map(|(_, code)| *code), Some(ENHANCE_YOUR_CALM));
    } else {
        // What the last of them allow may come behind the answer to the PING.
        h2.wait_until(|h2| h2.streams[&id].body.len() >= 4000);
        h2.ping();
        assert_eq!(h2.streams[&id].body.len(), 4000);
    }
    // The initial window up and down again, with a stream that waits.
    let mut h2 = H2::connect(server.port());
    h2.gives_window = false;
    let id = h2.get("/a");
    for round in 0..500u32 {
        let value: u32 = if round % 2 == 0 { 0 } else { 0x7fff_ffff };
        let payload = [&[0, 4][..], &value.to_be_bytes()].concat();
        if !h2.client.try_send(h2::frame(SETTINGS, 0, 0, &payload)) {
            break;
        }
    }
    h2.drain();
    assert_eq!(h2.goaways.last().map(|(_, code)| *code), Some(ENHANCE_YOUR_CALM));
    assert!(h2.streams[&id].body == body[..h2.streams[&id].body.len()]);
    // A stream's window beyond its bound breaks the stream.
    let mut h2 = H2::connect(server.port());
    h2.gives_window = false;
    let id = h2.get("/a");
    let update = h2::frame(WINDOW_UPDATE, 0, id, &0x7fff_ffffu32.to_be_bytes());
    h2.client.send(update.repeat(2));
    h2.wait_until(|h2| h2.is_over(id));
    assert_eq!(h2.streams[&id].reset, Some(FLOW_CONTROL_ERROR));
    // Uploads beyond the window that was given: the stream's, or the connection's.
    let mut h2 = H2::connect(server.port());
    h2.ping();
    let id = h2.open(&[(":method", "POST"), (":path", "/a")], false);
    for _ in 0..2000 {
        if !h2.client.try_send(h2::frame(DATA, 0, id, &[0; 16_384])) {
            break;
        }
    }
    h2.client.try_send(h2::frame(PING, 0, 0, b"pingpong"));
    while h2.pongs.is_empty() && h2.pump() {}
    assert!(h2.streams[&id].status == 405 || !h2.goaways.is_empty());
    // Where nobody takes them there is no more window than was given.
    let upstream = Upstream::start(|mut peer| {
        let mut rest = Vec::new();
        while let Some(byte) = peer.read_request() {
            rest.push(byte);
        }
    });
    let server = proxy(&upstream, "client_max_body_size 0;");
    let mut h2 = H2::connect(server.port());
    h2.ping();
    let id = h2.open(&[(":method", "POST"), ("content-length", "100000000")], false);
    for _ in 0..6000 {
        if !h2.client.try_send(h2::frame(DATA, 0, id, &[0; 16_384])) {
            break;
        }
    }
    h2.client.try_send(h2::frame(PING, 0, 0, b"pingpong"));
    while h2.pongs.is_empty() && h2.pump() {}
    let refused = h2.streams[&id].reset == Some(FLOW_CONTROL_ERROR)
        || h2.goaways.last().is_some_and(|(_, code)| *code == FLOW_CONTROL_ERROR);
    assert!(refused || h2.streams[&id].ended, "{:?} {:?}", h2.streams[&id].reset, h2.goaways);
}

#[test]
fn an_upload_that_nobody_takes_waits_in_its_window() {
    let go = Arc::new(AtomicBool::new(false));
    let upstream = Upstream::start({
        let go = Arc::clone(&go);
        move |mut peer| {
            eventually("permission", || go.load(Ordering::SeqCst));
            let (_, body) = peer.read_request().expect("a request");
            peer.send(ok(&body.len().to_string()));
        }
    });
    let server = start(&format!(
        "client_max_body_size 100m; proxy_request_buffering off; proxy_http_version 1.1;
         location /p {{ proxy_pass http://127.0.0.1:{}; }} location / {{ return 200 x; }}",
        upstream.port()
    ));
    let before = resident_kib(&server);
    let mut h2 = H2::connect(server.port());
    h2.ping();
    let length = 60 << 20;
    let id = h2.open(&[(":method", "POST"), (":path", "/p"), ("content-length", &length.to_string())], false);
    // Another thread sends as fast as windows allow; the others on the connection go on meanwhile.
    let sender = std::thread::spawn(move || {
        h2.send_body(id, &noise(length), true);
        let response = h2.wait(id);
        (h2, response)
    });
    std::thread::sleep(Duration::from_millis(300));
    let mut other = H2::connect(server.port());
    assert_eq!(other.fetch("/").text(), "x");
    let grown = resident_kib(&server).saturating_sub(before);
    assert!(grown < 24_000, "{grown} KiB");
    go.store(true, Ordering::SeqCst);
    let (mut h2, response) = sender.join().expect("the upload went through");
    assert_eq!(response.text(), length.to_string());
    assert_eq!(h2.fetch("/").text(), "x");
}

#[test]
fn header_bombs_are_bounded() {
    let server = start("location / { return 200 x; }");
    let before = resident_kib(&server);
    let mut h2 = H2::connect(server.port());
    h2.ping();
    // A long field goes into the table once, and is named by a byte from then on.
    let mut block = h2::head(&[]);
    block.push(0x40);
    let mut field = Vec::new();
    h2::literal("x-bomb", &"b".repeat(3900), &mut field);
    block.extend_from_slice(&field[1..]);
    block.extend(std::iter::repeat_n(0xbe, 15_000 - block.len()));
    for _ in 0..50 {
        let id = h2.next_id();
        h2.skip_id();
        h2.streams.insert(id, h2::Stream::default());
        if !h2.client.try_send(h2::frame(HEADERS, END_STREAM | END_HEADERS, id, &block)) {
            break;
        }
    }
    let last = h2.next_id() - 2;
    while !h2.is_over(last) && h2.pump() {}
    for (id, stream) in &h2.streams {
        assert!(matches!(stream.status, 0 | 400 | 431), "{id}: {stream:?}");
    }
    let grown = resident_kib(&server).saturating_sub(before);
    assert!(grown < 20_000, "{grown} KiB");
    assert_eq!(H2::connect(server.port()).fetch("/").text(), "x");
}

#[test]
fn bodies_and_heads_that_do_not_come_are_given_up() {
    let upstream = Upstream::http(|_, _| ok("x"));
    let server = proxy(&upstream, "client_body_timeout 1s; ");
    let mut h2 = H2::connect(server.port());
    let id = h2.open(&[(":method", "POST"), ("content-length", "10")], false);
    h2.send(DATA, 0, id, b"some");
    let response = h2.wait(id);
    assert!(response.status == 408 || response.reset.is_some(), "{response:?}");
    assert_eq!(h2.fetch("/").text(), "x", "the connection goes on");
    eventually("its line", || lines(&server, "POST / HTTP/2.0|408|") == 1);

    let server = start("client_header_timeout 1s; return 200 x;");
    let mut h2 = H2::connect(server.port());
    assert_eq!(h2.fetch("/").text(), "x");
    h2.send(HEADERS, END_STREAM, 3, &h2::head(&[])[..10]);
    h2.drain();
    // Half a frame is no better, and a stream that is open beside it no excuse.
    let mut h2 = H2::connect(server.port());
    h2.ping();
    h2.open(&[(":method", "POST")], false);
    h2.client.send(&h2::frame(HEADERS, 5, 3, &h2::head(&[]))[..30]);
    h2.drain();
}

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    let server = start("send_timeout 1s;");
    server.write("html/a", noise(300_000));
    let mut h2 = H2::connect(server.port());
    h2.gives_window = false;
    let id = h2.get("/a");
    h2.wait_until(|h2| h2.is_over(id));
    assert!(h2.streams[&id].reset.is_some(), "its window never opened");
    // The rest of the connection does not suffer.
    h2.send(WINDOW_UPDATE, 0, 0, &1_000_000u32.to_be_bytes());
    assert_eq!(h2.fetch("/none").status, 404);
}

#[test]
fn large_heads_have_their_bounds() {
    let server = start("return 200 $http_x;");
    let mut h2 = H2::connect(server.port());
    let long = "x".repeat(7000);
    let id = h2.open(&[("x", &long)], true);
    assert!(h2.wait(id).text() == long);
    // Across several frames.
    let fields: Vec<(String, String)> =
        (0..4).map(|number| (format!("x{number}"), "y".repeat(7000))).collect();
    let fields: Vec<(&str, &str)> =
        fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let block = h2::head(&fields);
    let id = h2.next_id();
    let skipped = h2.open(&[], true);
    h2.wait(skipped);
    assert_eq!(skipped, id);
    let id = id + 2;
    h2.streams.insert(id, h2::Stream::default());
    let pieces: Vec<&[u8]> = block.chunks(9000).collect();
    for (at, piece) in pieces.iter().enumerate() {
        let kind = if at == 0 { HEADERS } else { CONTINUATION };
        let mut flags = if at == 0 { END_STREAM } else { 0 };
        if at + 1 == pieces.len() {
            flags |= END_HEADERS;
        }
        h2.send(kind, flags, id, piece);
    }
    assert_eq!(h2.wait(id).status, 200);
    // A single field that is too long, and too many of them.
    let mut h2 = H2::connect(server.port());
    let long = "x".repeat(12_000);
    let id = h2.open(&[("x", &long)], true);
    let response = h2.wait(id);
    assert!(matches!(response.status, 400 | 431 | 494), "{response:?}");
    assert_eq!(h2.fetch("/").status, 200);
}
