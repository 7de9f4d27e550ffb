//! Connections to upstreams: when they are used again and when not, what their end means for a request, and what the
//! client's end means for them.

use crate::util::{Client, Peer, Server, Upstream, eventually, get, proxy, proxy_with, raw};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What upstreams got: the number of the connection and the request line.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<(usize, String)>>>);

impl Seen {
    fn note(&self, peer: &Peer, head: &str) {
        let line = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1");
        self.0.lock().unwrap().push((peer.index, line.to_owned()));
    }

    /// How often a request with this line came.
    fn count(&self, line: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|(_, seen)| seen == line).count()
    }

    fn list(&self) -> Vec<(usize, String)> {
        self.0.lock().unwrap().clone()
    }
}

fn log_of(server: &Server, wanted: &str) {
    eventually(wanted, || server.error_log().contains(wanted));
}

fn no_alarm(server: &Server) {
    let log = server.error_log();
    for word in ["[alert]", "[emerg]", "panic", "exited on signal"] {
        assert!(!log.contains(word) && !server.stderr().contains(word), "{log}\n{}", server.stderr());
    }
}

fn post(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
}

#[test]
fn connections_are_used_again_whoever_the_client_is() {
    let upstream = Upstream::http(|head, _| {
        assert!(!head.to_ascii_lowercase().contains("connection: close"), "{head}");
        OK.into()
    });
    let server = proxy(&upstream);
    for _ in 0..20 {
        assert_eq!(get(server.port(), "/").text(), "ok");
    }
    let mut client = Client::connect(server.port());
    for _ in 0..20 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_response().text(), "ok");
    }
    assert_eq!(upstream.accepted(), 1);
    no_alarm(&server);
}

#[test]
fn requests_at_once_have_connections_of_their_own_which_are_kept() {
    const CLIENTS: usize = 16;
    let arrived = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::http({
        let arrived = arrived.clone();
        move |head, _| {
            if head.starts_with("GET /together") {
                arrived.fetch_add(1, Ordering::SeqCst);
                eventually("all requests at once", || arrived.load(Ordering::SeqCst) == CLIENTS);
            }
            OK.into()
        }
    });
    let server = proxy(&upstream);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(server.port())).collect();
    for client in &mut clients {
        client.send("GET /together HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    for client in &mut clients {
        assert_eq!(client.read_response().text(), "ok");
    }
    for index in 0..3 * CLIENTS {
        let client = &mut clients[index % CLIENTS];
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_response().text(), "ok");
    }
    assert_eq!(upstream.accepted(), CLIENTS);
}

#[test]
fn responses_say_whether_their_connection_lives_on() {
    for (head, lives) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true),
        ("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", true),
        ("HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\nok", false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false),
        ("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok", true),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nok", true),
        ("HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", true),
    ] {
        let upstream = Upstream::http(move |_, _| head.into());
        let server = proxy(&upstream);
        for _ in 0..4 {
            assert_eq!(get(server.port(), "/").text(), "ok");
        }
        assert_eq!(upstream.accepted(), if lives { 1 } else { 4 }, "{head}");
    }
}

#[test]
fn idle_connections_that_are_closed_are_not_used() {
    // Posts, too: nothing of them is lost.
    let upstream = Upstream::start(|mut peer: Peer| {
        if peer.read_request().is_some() {
            peer.send(OK);
        }
    });
    let server = proxy(&upstream);
    let mut client = Client::connect(server.port());
    for round in 0..6 {
        if round % 2 == 0 {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        } else {
            client.send(post("/"));
        }
        assert_eq!(client.read_response().text(), "ok");
        std::thread::sleep(Duration::from_millis(60));
    }
    assert_eq!(upstream.accepted(), 6);
    assert!(!server.error_log().contains("[error]"), "{}", server.error_log());
    no_alarm(&server);
}

/// Answers the first request of a connection, and takes the second without answering it.
fn forgetful(seen: Seen, and_resets: bool) -> Upstream {
    Upstream::start(move |mut peer: Peer| {
        let Some((head, _)) = peer.read_request() else { return };
        seen.note(&peer, &head);
        peer.send(OK);
        let Some((head, _)) = peer.read_request() else { return };
        seen.note(&peer, &head);
        if and_resets {
            peer.reset();
        }
    })
}

#[test]
fn a_get_is_repeated_once_when_its_connection_closes_instead_of_answering() {
    for and_resets in [false, true] {
        let seen = Seen::default();
        let upstream = forgetful(seen.clone(), and_resets);
        let server = proxy(&upstream);
        let mut client = Client::connect(server.port());
        client.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_response().text(), "ok");
        client.send("GET /second HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_response().text(), "ok");
        let line = |index, line: &str| (index, line.to_owned());
        assert_eq!(seen.list(), [line(0, "GET /first"), line(0, "GET /second"), line(1, "GET /second")]);
        assert_eq!(server.access_log_lines(2).iter().filter(|line| line.contains("\" 200 ")).count(), 2);
        no_alarm(&server);
    }
}

#[test]
fn a_get_is_not_repeated_twice() {
    let seen = Seen::default();
    let upstream = Upstream::start({
        let seen = seen.clone();
        move |mut peer: Peer| {
            while let Some((head, _)) = peer.read_request() {
                seen.note(&peer, &head);
                if head.starts_with("GET /never") {
                    return;
                }
                peer.send(OK);
            }
        }
    });
    let server = proxy(&upstream);
    assert_eq!(get(server.port(), "/first").status, 200);
    assert_eq!(get(server.port(), "/never").status, 502);
    assert_eq!(seen.count("GET /never"), 2);
    // On a fresh connection it is sent only once.
    assert_eq!(get(server.port(), "/never").status, 502);
    assert_eq!(seen.count("GET /never"), 3);
    no_alarm(&server);
}

#[test]
fn a_get_whose_answer_had_begun_is_not_repeated() {
    let seen = Seen::default();
    let upstream = Upstream::start({
        let seen = seen.clone();
        move |mut peer: Peer| {
            while let Some((head, _)) = peer.read_request() {
                seen.note(&peer, &head);
                if head.starts_with("GET /half") {
                    peer.send("HTTP/1.1 20");
                    return;
                }
                peer.send(OK);
            }
        }
    });
    let server = proxy(&upstream);
    assert_eq!(get(server.port(), "/first").status, 200);
    assert_eq!(get(server.port(), "/half").status, 502);
    assert_eq!(seen.count("GET /half"), 1);
    no_alarm(&server);
}

#[test]
fn a_post_is_never_sent_twice() {
    for and_resets in [false, true] {
        let seen = Seen::default();
        let upstream = forgetful(seen.clone(), and_resets);
        let server = proxy(&upstream);
        let mut client = Client::connect(server.port());
        for round in 0..20 {
            let path = format!("/{round}");
            client.send(post(&path));
            let status = client.read_response().status;
            assert!([200, 502].contains(&status), "{status}");
            assert_eq!(seen.count(&format!("POST {path}")), 1, "{status} {:?}", seen.list());
        }
        no_alarm(&server);
    }
}

#[test]
fn posts_at_the_very_time_when_idle_connections_are_closed_are_all_answered() {
    // Closes connections that were idle for this long, as application servers do, at times just when a request comes.
    const KEPT: Duration = Duration::from_millis(150);
    for announces in [false, true] {
        let (kept, field) =
            if announces { (Duration::from_secs(1), "Keep-Alive: timeout=1\r\n") } else { (KEPT, "") };
        let seen = Seen::default();
        let upstream = Upstream::start({
            let seen = seen.clone();
            move |mut peer: Peer| {
                loop {
                    peer.limit(kept);
                    if !peer.has_more() {
                        return;
                    }
                    peer.limit(crate::util::PATIENCE);
                    let Some((head, _)) = peer.read_request() else { return };
                    seen.note(&peer, &head);
                    peer.try_send(format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{field}\r\nok"));
                }
            }
        });
        let server = proxy(&upstream);
        std::thread::scope(|scope| {
            for client in 0..8 {
                let (port, seen) = (server.port(), &seen);
                scope.spawn(move || {
                    let mut connection = Client::connect(port);
                    let mut random = fastrand::Rng::with_seed(client);
                    for round in 0..if announces { 4 } else { 25 } {
                        let path = format!("/{client}/{round}");
                        connection.send(post(&path));
                        assert_eq!(connection.read_response().status, 200, "{path}");
                        assert_eq!(seen.count(&format!("POST {path}")), 1);
                        let around = kept.as_micros() as u64;
                        std::thread::sleep(Duration::from_micros(random.u64(around - 2000..around + 1000)));
                    }
                });
            }
        });
        no_alarm(&server);
    }
}

#[test]
fn other_methods_are_repeated_by_whether_they_may_be() {
    for (method, times) in [("PUT", 2), ("DELETE", 2), ("HEAD", 2), ("OPTIONS", 2), ("PATCH", 1), ("LOCK", 1)]
    {
        let seen = Seen::default();
        let upstream = Upstream::start({
            let seen = seen.clone();
            move |mut peer: Peer| {
                while let Some((head, _)) = peer.read_request() {
                    seen.note(&peer, &head);
                    if !head.starts_with("GET /first") {
                        return;
                    }
                    peer.send(OK);
                }
            }
        });
        let server = proxy(&upstream);
        assert_eq!(get(server.port(), "/first").status, 200);
        let mut client = Client::connect(server.port());
        client.send(format!("{method} /x HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(client.response_to(method).expect("a response").status, 502);
        assert_eq!(seen.count(&format!("{method} /x")), times, "{method} {:?}", seen.list());
    }
}

#[test]
fn nobody_listening_is_502_with_the_reason() {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let server = Server::start(&format!(
        "server {{ listen {{port}}; location / {{ proxy_pass http://127.0.0.1:{port}; }} location /other {{ return 200; }} }}"
    ));
    let mut client = Client::connect(server.port());
    for _ in 0..5 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_response().status, 502);
        client.send(post("/"));
        assert_eq!(client.read_response().status, 502);
    }
    eventually("reasons", || server.error_log().matches("connect() failed").count() == 10);
    assert!(server.error_log().contains("(111: Connection refused)"), "{}", server.error_log());
    assert_eq!(get(server.port(), "/other").status, 200);
    // Somebody who listens at last is found.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    if let Ok(listener) = listener {
        let answering = std::thread::spawn(move || {
            let mut peer = Client::over_tcp(listener.accept().unwrap().0);
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.extend(peer.read_exactly(1));
            }
            peer.send(OK);
        });
        assert_eq!(get(server.port(), "/").status, 200);
        answering.join().unwrap();
    }
    no_alarm(&server);
}

#[test]
fn a_reset_before_the_head_is_502() {
    let upstream = Upstream::start(|mut peer: Peer| {
        match peer.read_request() {
            Some((head, _)) if head.starts_with("GET /half") => {
                peer.send("HTTP/1.1 200 OK\r\nX-A: b\r\n");
                std::thread::sleep(Duration::from_millis(30));
            }
            _ => {}
        }
        peer.reset();
    });
    let server = proxy(&upstream);
    for path in ["/", "/half"] {
        assert_eq!(get(server.port(), path).status, 502);
    }
    assert_eq!(raw(server.port(), post("/")).expect("a response").status, 502);
    assert_eq!(upstream.accepted(), 3);
    log_of(&server, "while reading response header from upstream");
    no_alarm(&server);
}

#[test]
fn a_close_at_once_is_502() {
    let upstream = Upstream::start(|_| {});
    let server = proxy(&upstream);
    for _ in 0..5 {
        assert_eq!(get(server.port(), "/").status, 502);
        assert_eq!(raw(server.port(), post("/")).expect("a response").status, 502);
    }
    assert_eq!(upstream.accepted(), 10);
    no_alarm(&server);
}

#[test]
fn an_upstream_that_says_nothing_is_504() {
    let upstream = Upstream::start(|mut peer: Peer| {
        peer.read_request();
        peer.expect_closed();
    });
    let server = proxy_with(&upstream, "proxy_read_timeout 300ms;");
    let mut client = Client::connect(server.port());
    for request in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), post("/")] {
        client.send(request);
        assert_eq!(client.read_response().status, 504);
    }
    log_of(
        &server,
        "upstream timed out (110: Connection timed out) while reading response header from upstream",
    );
    no_alarm(&server);
}

#[test]
fn an_upstream_that_stops_within_a_head_is_504() {
    let upstream = Upstream::start(|mut peer: Peer| {
        peer.read_request();
        peer.send("HTTP/1.1 200 OK\r\nX-A: b\r\n");
        peer.expect_closed();
    });
    let server = proxy_with(&upstream, "proxy_read_timeout 300ms;");
    assert_eq!(get(server.port(), "/").status, 504);
    no_alarm(&server);
}

#[test]
fn an_upstream_that_stops_within_a_body_ends_the_response_unfinished() {
    let upstream = Upstream::start(|mut peer: Peer| {
        let Some((head, _)) = peer.read_request() else { return };
        peer.send(match head.split(' ').nth(1) {
            Some("/length") => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome",
            Some("/chunked") => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n",
            _ => "HTTP/1.0 200 OK\r\n\r\nsome",
        });
        peer.expect_closed();
    });
    let server = proxy_with(&upstream, "proxy_read_timeout 300ms;");
    for path in ["/length", "/chunked", "/close"] {
        let mut client = Client::connect(server.port());
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let error = client.response_to("GET").expect_err("an incomplete response");
        assert!(error.starts_with("closed"), "{error}");
    }
    let reason = "upstream timed out (110: Connection timed out) while reading upstream";
    eventually("reasons", || server.error_log().matches(reason).count() == 3);
    no_alarm(&server);
}

#[test]
fn an_upstream_that_is_slow_but_never_silent_is_waited_for() {
    let upstream = Upstream::start(|mut peer: Peer| {
        peer.read_request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 26\r\n\r\n");
        for piece in "abcdefghijklmnopqrstuvwxyz".as_bytes().chunks(2) {
            std::thread::sleep(Duration::from_millis(250));
            peer.send(piece);
        }
    });
    let server = proxy_with(&upstream, "proxy_read_timeout 2s;");
    assert_eq!(get(server.port(), "/").text(), "abcdefghijklmnopqrstuvwxyz");
}

#[test]
fn an_upstream_that_does_not_take_the_request_is_504() {
    let (done, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let upstream = Upstream::start(move |peer: Peer| {
        let _ = wait.lock().unwrap().recv();
        drop(peer);
    });
    let server =
        proxy_with(&upstream, "proxy_send_timeout 300ms; client_max_body_size 0; proxy_read_timeout 30s;");
    let body = vec![b'x'; 20_000_000];
    let mut client = Client::connect(server.port());
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()));
    client.send(&body);
    assert_eq!(client.read_response().status, 504);
    log_of(&server, "upstream timed out (110: Connection timed out) while sending request to upstream");
    drop(done);
    no_alarm(&server);
}

#[test]
fn a_handshake_that_does_not_end_is_504() {
    // A queue of connections that nobody accepts takes one more than it says, and drops what comes behind.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let _waiting = Client::connect(address.port());
    let server = Server::start(&format!(
        "server {{ listen {{port}}; location / {{ proxy_pass http://{address}; proxy_connect_timeout 300ms; }} }}"
    ));
    assert_eq!(get(server.port(), "/").status, 504);
    log_of(&server, "upstream timed out (110: Connection timed out) while connecting to upstream");
    no_alarm(&server);
}

/// Tells of each request and of the end of its connection.
fn telling(told: Sender<&'static str>, answer: &'static str) -> Upstream {
    let told = Mutex::new(told);
    Upstream::start(move |mut peer: Peer| {
        if peer.read_request().is_none() {
            return;
        }
        let told = told.lock().unwrap().clone();
        let _ = told.send("request");
        peer.try_send(answer);
        peer.read_to_end();
        let _ = told.send("closed");
    })
}

#[test]
fn a_client_that_goes_takes_its_upstream_connection_along() {
    for (answer, half) in [
        ("", false),
        ("HTTP/1.1 200 OK\r\nX-A: b\r\n", false),
        ("", true), // As with nginx, a client that ends its side is gone.
    ] {
        let (sender, told) = channel();
        let upstream = telling(sender, answer);
        let server = proxy(&upstream);
        let mut client = Client::connect(server.port());
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(told.recv_timeout(crate::util::PATIENCE), Ok("request"));
        if half {
            client.finish_sending();
            client.expect_closed();
        } else {
            drop(client);
        }
        assert_eq!(told.recv_timeout(crate::util::PATIENCE), Ok("closed"));
        assert!(server.access_log_lines(1)[0].contains("\" 499 0 "), "{}", server.access_log());
        log_of(&server, "client prematurely closed connection");
        assert!(!server.error_log().contains("[error]"), "{}", server.error_log());
        no_alarm(&server);
    }
}

#[test]
fn a_client_that_resets_takes_its_upstream_connection_along() {
    let (sender, told) = channel();
    let upstream = telling(sender, "");
    let server = proxy(&upstream);
    for request in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), post("/")] {
        let mut client = Client::connect(server.port());
        client.send(request);
        assert_eq!(told.recv_timeout(crate::util::PATIENCE), Ok("request"));
        client.reset();
        assert_eq!(told.recv_timeout(crate::util::PATIENCE), Ok("closed"));
    }
    for line in server.access_log_lines(2) {
        assert!(line.contains("\" 499 0 "), "{line}");
    }
    no_alarm(&server);
}

#[test]
fn a_client_that_goes_within_the_body_takes_its_upstream_connection_along() {
    for buffering in ["on", "off"] {
        let (sender, told) = channel();
        let sender = Mutex::new(sender);
        let upstream = Upstream::start(move |mut peer: Peer| {
            peer.read_request();
            peer.send("HTTP/1.1 200 OK\r\n\r\n");
            while peer.try_send([b'x'; 1000]) {
                std::thread::sleep(Duration::from_millis(2));
            }
            let _ = sender.lock().unwrap().send("closed");
        });
        let server = proxy_with(&upstream, &format!("proxy_buffering {buffering};"));
        let mut client = Client::connect(server.port());
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.read_exactly(3000);
        drop(client);
        assert_eq!(told.recv_timeout(crate::util::PATIENCE), Ok("closed"));
        assert!(server.access_log_lines(1)[0].contains("\" 200 "), "{}", server.access_log());
        no_alarm(&server);
    }
}

#[test]
fn a_client_that_goes_while_its_upstream_pauses_takes_the_upstream_connection_along() {
    for (answer, half) in [
        ("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n", false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\ndata: 1\n\n", false),
        ("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n", true),
    ] {
        let (sender, told) = channel();
        let upstream = telling(sender, answer);
        let server = proxy_with(&upstream, "");
        let mut client = Client::connect(server.port());
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(told.recv_timeout(crate::util::PATIENCE), Ok("request"));
        if !answer.contains("Length") {
            let mut seen = Vec::new();
            while memchr::memmem::find(&seen, b"data: 1\n\n").is_none() {
                seen.extend(client.read_some());
            }
        }
        if half {
            client.finish_sending();
        } else {
            drop(client);
        }
        assert_eq!(told.recv_timeout(crate::util::PATIENCE), Ok("closed"), "{answer}");
        // As with nginx: what was answered keeps its status.
        let line = &server.access_log_lines(1)[0];
        assert!(line.contains("\" 200 ") || line.contains("\" 499 "), "{line}");
        no_alarm(&server);
    }
}

#[test]
fn a_client_that_is_to_be_ignored_changes_nothing() {
    let (sender, told) = channel();
    let (go, wait) = channel::<()>();
    let (sender, wait) = (Mutex::new(sender), Mutex::new(wait));
    let upstream = Upstream::start(move |mut peer: Peer| {
        while peer.read_request().is_some() {
            let _ = sender.lock().unwrap().send("request");
            let _ = wait.lock().unwrap().recv_timeout(crate::util::PATIENCE);
            let body = vec![b'x'; 1_000_000];
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()));
            let _ = sender.lock().unwrap().send(if peer.try_send(&body) { "sent" } else { "cut" });
        }
    });
    let server = proxy_with(&upstream, "proxy_ignore_client_abort on;");
    for (round, resets) in [false, true].into_iter().enumerate() {
        server.access_log_lines(round);
        let mut client = Client::connect(server.port());
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(told.recv_timeout(crate::util::PATIENCE), Ok("request"));
        if resets {
            client.reset();
        } else {
            drop(client);
        }
        std::thread::sleep(Duration::from_millis(30));
        go.send(()).unwrap();
        assert_eq!(told.recv_timeout(crate::util::PATIENCE), Ok("sent"));
    }
    server.access_log_lines(2);
    // A client that ends its side only gets everything.
    let mut client = Client::connect(server.port());
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").finish_sending();
    go.send(()).unwrap();
    assert_eq!(client.read_response().body.len(), 1_000_000);
    // The connection of a response that was read to its end is used again.
    server.access_log_lines(3);
    assert_eq!(upstream.accepted(), 1);
    no_alarm(&server);
}

#[test]
fn an_upstream_that_ends_its_side_has_answered_nevertheless() {
    for (bytes, body) in [(OK, "ok"), ("HTTP/1.0 200 OK\r\n\r\nuntil here", "until here")] {
        let (sender, told) = channel();
        let sender = Mutex::new(sender);
        let upstream = Upstream::start(move |mut peer: Peer| {
            peer.read_request();
            peer.send(bytes).finish_sending();
            peer.expect_closed();
            let _ = sender.lock().unwrap().send(());
        });
        let server = proxy(&upstream);
        let mut client = Client::connect(server.port());
        for _ in 0..3 {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(client.read_response().text(), body);
            assert_eq!(told.recv_timeout(crate::util::PATIENCE), Ok(()));
        }
        no_alarm(&server);
    }
}

#[test]
fn requests_in_a_row_are_passed_on_one_after_the_other() {
    let seen = Seen::default();
    let upstream = Upstream::start({
        let seen = seen.clone();
        move |mut peer: Peer| {
            while let Some((head, body)) = peer.read_request() {
                seen.note(&peer, &head);
                let text = format!(
                    "{}:{}",
                    head.split(' ').nth(1).unwrap_or_default(),
                    String::from_utf8_lossy(&body)
                );
                peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()));
            }
        }
    });
    let server = proxy(&upstream);
    let mut client = Client::connect(server.port());
    let requests: String = (0..30)
        .map(|index| match index % 3 {
            0 => format!("GET /{index} HTTP/1.1\r\nHost: a\r\n\r\n"),
            1 => post(&format!("/{index}")),
            _ => format!(
                "POST /{index} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
            ),
        })
        .collect();
    client.send(requests);
    for index in 0..30 {
        let body = if index % 3 == 0 { "" } else { "body" };
        assert_eq!(client.read_response().text(), format!("/{index}:{body}"));
    }
    assert_eq!(seen.list().len(), 30);
    no_alarm(&server);
}
