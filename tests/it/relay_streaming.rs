//! Bodies on their way through: at once where somebody waits for them, and at the pace of the slower side where not,
//! without a byte lost.

use crate::util::{Client, PATIENCE, Peer, Server, Upstream, eventually, proxy, proxy_with};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Bytes that repeat nowhere near, others for each seed.
fn content(length: usize, seed: usize) -> Vec<u8> {
    // They begin anew after so many. The rest is copied: this is made without optimisation, a hundred million at a time.
    const PERIOD: usize = 251 * 256;
    let byte = |at: usize| (at % 251) as u8 ^ (at / 251 % 256) as u8 ^ seed as u8;
    let period: Vec<u8> = (0..PERIOD.min(length)).map(byte).collect();
    let mut all = period.repeat(length / PERIOD + 1);
    all.truncate(length);
    all
}

fn no_alarm(server: &Server) {
    let log = server.error_log();
    for word in ["[alert]", "[emerg]", "panic", "exited on signal"] {
        assert!(!log.contains(word) && !server.stderr().contains(word), "{log}\n{}", server.stderr());
    }
}

/// A sender that scripts, which many threads may run, can use.
fn reporting<T: Send>() -> (Arc<Mutex<Sender<T>>>, Receiver<T>) {
    let (sender, receiver) = channel();
    (Arc::new(Mutex::new(sender)), receiver)
}

fn read_until(client: &mut Client, seen: &mut Vec<u8>, wanted: &[u8]) {
    while memchr::memmem::find(seen, wanted).is_none() {
        let more = client.read_some();
        assert!(
            !more.is_empty(),
            "closed before {:?}: {:?}",
            wanted.escape_ascii().to_string(),
            String::from_utf8_lossy(seen)
        );
        seen.extend(more);
    }
}

#[test]
fn what_an_upstream_says_before_a_pause_arrives_at_once() {
    // Each piece is sent once the client has the one before it: whatever is held back ends in a hang.
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-Accel-Buffering: no\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 70\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\n",
    ] {
        let (go, wait) = channel::<()>();
        let wait = Mutex::new(wait);
        let upstream = Upstream::start(move |mut peer: Peer| {
            peer.read_request();
            peer.send(head);
            let wait = wait.lock().unwrap();
            for index in 0..10 {
                wait.recv_timeout(PATIENCE).expect("the client got what came before");
                let piece = format!("piece{index}\n");
                if head.contains("chunked") {
                    peer.send(format!("{:x}\r\n{piece}\r\n", piece.len()));
                } else {
                    peer.send(piece);
                }
            }
            wait.recv_timeout(PATIENCE).expect("the client got what came before");
            if head.contains("chunked") {
                peer.send("0\r\n\r\n");
            }
        });
        let server = proxy(&upstream);
        let mut client = Client::connect(server.port());
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let mut seen = Vec::new();
        read_until(&mut client, &mut seen, b"\r\n\r\n");
        for index in 0..10 {
            go.send(()).unwrap();
            read_until(&mut client, &mut seen, format!("piece{index}\n").as_bytes());
        }
        go.send(()).unwrap();
        seen.extend(client.read_to_end());
        let text = String::from_utf8_lossy(&seen);
        assert!(text.ends_with("piece9\n") || text.ends_with("piece9\n\r\n0\r\n\r\n"), "{head:?} {text:?}");
        no_alarm(&server);
    }
}

/// Answers with a body of this length in this framing, and reports when all of it was taken.
fn large(framing: &'static str, length: usize, sent: Arc<Mutex<Sender<()>>>) -> Upstream {
    Upstream::start(move |mut peer: Peer| {
        while let Some((head, _)) = peer.read_request() {
            let seed = head.split(' ').nth(1).and_then(|path| path[1..].parse().ok()).unwrap_or(0);
            let body = content(length, seed);
            match framing {
                "length" => {
                    peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")).send(&body)
                }
                "close" => peer.send("HTTP/1.0 200 OK\r\n\r\n").send(&body),
                _ => {
                    peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                    for chunk in body.chunks(9973) {
                        let size = format!("{:x}\r\n", chunk.len());
                        peer.send([size.as_bytes(), chunk, b"\r\n"].concat());
                    }
                    peer.send("0\r\n\r\n")
                }
            };
            let _ = sent.lock().unwrap().send(());
            if framing == "close" {
                return;
            }
        }
    })
}

const LARGE: usize = 30_000_000;

#[test]
fn an_upstream_is_free_before_a_slow_client_has_everything() {
    for framing in ["length", "chunked", "close"] {
        let (sender, sent) = reporting();
        let upstream = large(framing, LARGE, sender);
        let server = proxy_with(&upstream, "proxy_temp_path {root}/responses;");
        let mut client = Client::connect(server.port());
        client.send("GET /7 HTTP/1.1\r\nHost: a\r\n\r\n");
        // The client reads nothing until the upstream has sent everything.
        sent.recv_timeout(PATIENCE).expect("the upstream is free");
        let log = || server.error_log().contains("an upstream response is buffered to a temporary file");
        eventually("a warning", log);
        let response = client.read_response();
        assert!(response.body == content(LARGE, 7), "{framing}");
        // The connection is as good as before, and what was kept is gone.
        client.send("GET /8 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(client.read_response().body == content(LARGE, 8), "{framing}");
        drop(client);
        eventually("no files", || files_below(&server.path("responses")) == 0);
        no_alarm(&server);
    }
}

fn files_below(path: &std::path::Path) -> usize {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    entries.flatten().map(|entry| if entry.path().is_dir() { files_below(&entry.path()) } else { 1 }).sum()
}

#[test]
fn a_client_that_goes_leaves_no_file_behind() {
    let (sender, sent) = reporting();
    let upstream = large("length", LARGE, sender);
    let server = proxy_with(&upstream, "proxy_temp_path {root}/responses;");
    let mut client = Client::connect(server.port());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    sent.recv_timeout(PATIENCE).expect("the upstream is free");
    assert_eq!(files_below(&server.path("responses")), 1);
    drop(client);
    eventually("no files", || files_below(&server.path("responses")) == 0);
    no_alarm(&server);
}

#[test]
fn a_client_that_pauses_gets_every_byte() {
    for framing in ["length", "chunked", "close"] {
        for directives in [
            "",
            "proxy_buffering off;",
            "proxy_max_temp_file_size 0;",
            "proxy_max_temp_file_size 1m;",
            "proxy_buffer_size 1k; proxy_buffers 2 1k; proxy_busy_buffers_size 1k;",
        ] {
            const LENGTH: usize = 8_000_000;
            let (sender, _sent) = reporting();
            let upstream = large(framing, LENGTH, sender);
            let server = proxy_with(&upstream, directives);
            let mut client = Client::connect(server.port());
            client.send("GET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            let mut seen = Vec::new();
            for _ in 0..8 {
                seen.extend(client.read_exactly(700_000));
                std::thread::sleep(Duration::from_millis(20));
            }
            seen.extend(client.read_to_end());
            let body = unframe(&seen);
            assert!(body == content(LENGTH, 3), "{framing} {directives} {}", body.len());
            no_alarm(&server);
        }
    }
}

/// The body of a whole response.
fn unframe(bytes: &[u8]) -> Vec<u8> {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n").expect("a head") + 4;
    if memchr::memmem::find(&bytes[..end], b"chunked").is_none() {
        return bytes[end..].to_vec();
    }
    let (mut rest, mut body) = (&bytes[end..], Vec::new());
    loop {
        let line = memchr::memmem::find(rest, b"\r\n").expect("a chunk's size");
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            assert_eq!(&rest[line..], b"\r\n\r\n");
            return body;
        }
        body.extend_from_slice(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 2 + size + 2..];
    }
}

#[test]
fn a_slow_client_slows_its_upstream_down_where_nothing_is_kept_for_it() {
    const LENGTH: usize = 100_000_000;
    // What the kernel keeps on two connections of this machine is within some ten MB.
    const KEPT: usize = 60_000_000;
    for (directives, fields) in [
        ("proxy_buffering off;", ""),
        ("proxy_max_temp_file_size 0;", ""),
        ("proxy_max_temp_file_size 1m;", ""),
        ("", "X-Accel-Buffering: no\r\n"),
        ("", "Content-Type: text/event-stream\r\n"),
    ] {
        let taken = Arc::new(AtomicUsize::new(0));
        let upstream = Upstream::start({
            let taken = taken.clone();
            move |mut peer: Peer| {
                peer.read_request();
                peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n{fields}\r\n"));
                for piece in content(LENGTH, 1).chunks(100_000) {
                    if !peer.try_send(piece) {
                        return;
                    }
                    taken.fetch_add(piece.len(), Ordering::SeqCst);
                }
            }
        });
        let server = proxy_with(&upstream, directives);
        let mut client = Client::connect(server.port());
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut last = usize::MAX;
        eventually("a standstill", || {
            std::thread::sleep(Duration::from_millis(150));
            let now = taken.load(Ordering::SeqCst);
            now > 0 && std::mem::replace(&mut last, now) == now
        });
        assert!(last < KEPT, "{directives} {fields} {last}");
        let response = client.read_response();
        assert!(response.body == content(LENGTH, 1), "{directives} {fields}");
        no_alarm(&server);
    }
}

#[test]
fn a_client_that_pauses_for_longer_than_an_upstream_may_gets_every_byte() {
    const LENGTH: usize = 30_000_000;
    let body = Arc::new(content(LENGTH, 3));
    for directives in ["proxy_buffering off;", "proxy_max_temp_file_size 1m;", ""] {
        let upstream = Upstream::start({
            let body = body.clone();
            move |mut peer: Peer| {
                peer.read_request();
                peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n"));
                peer.try_send(&*body);
            }
        });
        let server = proxy_with(&upstream, &format!("proxy_read_timeout 2s; {directives}"));
        let mut client = Client::connect(server.port());
        client.send("GET /3 HTTP/1.1\r\nHost: a\r\n\r\n");
        std::thread::sleep(Duration::from_millis(3000));
        assert!(client.read_response().body == *body, "{directives}");
        no_alarm(&server);
    }
}

#[test]
fn many_slow_clients_get_each_its_own_bytes() {
    const CLIENTS: usize = 24;
    const LENGTH: usize = 3_000_000;
    for framing in ["length", "chunked"] {
        let (sender, _sent) = reporting();
        let upstream = large(framing, LENGTH, sender);
        let server = proxy(&upstream);
        let mut clients: Vec<(Client, Vec<u8>)> =
            (0..CLIENTS).map(|_| (Client::connect(server.port()), Vec::new())).collect();
        for (index, (client, _)) in clients.iter_mut().enumerate() {
            client.send(format!("GET /{index} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
        }
        let mut open = CLIENTS;
        while open > 0 {
            open = 0;
            for (client, seen) in &mut clients {
                let piece = client.read_some();
                open += usize::from(!piece.is_empty());
                seen.extend(piece);
            }
        }
        for (index, (_, seen)) in clients.iter().enumerate() {
            assert!(unframe(seen) == content(LENGTH, index), "{framing} {index}");
        }
        no_alarm(&server);
    }
}

/// Answers with the length and a sum of each body; reads slowly where the path says so.
fn counting() -> Upstream {
    Upstream::http(|head, body| {
        let sum = body.iter().fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
        let coding =
            if head.to_ascii_lowercase().contains("transfer-encoding") { "chunked" } else { "length" };
        let text = format!("{} {sum} {coding}", body.len());
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()).into_bytes()
    })
}

fn counted(body: &[u8]) -> String {
    let sum = body.iter().fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    format!("{} {sum}", body.len())
}

fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in body.chunks(size) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

#[test]
fn bodies_of_requests_arrive_whole_from_memory_from_a_file_and_as_they_come() {
    for (directives, streamed) in [
        ("", false), // memory, beyond 16k a file
        ("client_body_buffer_size 16m;", false),
        ("client_body_in_file_only clean;", false),
        ("proxy_request_buffering off;", true),
    ] {
        let upstream = counting();
        let server = proxy_with(&upstream, &format!("client_max_body_size 0; {directives}"));
        let mut client = Client::connect(server.port());
        for size in [0, 1, 16_383, 16_384, 16_385, 65_536, 200_000, 7_000_001] {
            let body = content(size, 5);
            let expected = counted(&body);
            client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n"));
            client.send(&body);
            let text = client.read_response().text();
            assert_eq!(text, format!("{expected} length"), "{directives} {size}");
            client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
            client.send(chunked(&body, 10_007));
            let coding = if streamed { "chunked" } else { "length" };
            assert_eq!(client.read_response().text(), format!("{expected} {coding}"), "{directives} {size}");
        }
        no_alarm(&server);
    }
}

#[test]
fn a_body_is_passed_on_as_it_comes_where_asked_for() {
    for is_chunked in [false, true] {
        let (sender, received) = reporting::<Vec<u8>>();
        let upstream = Upstream::start(move |mut peer: Peer| {
            // Everything as it is on the wire.
            loop {
                let bytes = peer.read_some();
                let ended = bytes.ends_with(b"0\r\n\r\n") || bytes.ends_with(b"last");
                let _ = sender.lock().unwrap().send(bytes);
                if ended {
                    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                    return;
                }
            }
        });
        let server = proxy_with(&upstream, "proxy_request_buffering off;");
        let mut client = Client::connect(server.port());
        let framing = if is_chunked { "Transfer-Encoding: chunked" } else { "Content-Length: 14" };
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
        let mut seen = Vec::new();
        for piece in ["\r\n\r\n", "first", "other", "last"] {
            if piece != "\r\n\r\n" {
                client.send(if is_chunked {
                    format!("{:x}\r\n{piece}\r\n", piece.len())
                } else {
                    piece.to_owned()
                });
            }
            while memchr::memmem::find(&seen, piece.as_bytes()).is_none() {
                seen.extend(received.recv_timeout(PATIENCE).expect("the upstream gets it at once"));
            }
        }
        if is_chunked {
            client.send("0\r\n\r\n");
        }
        assert_eq!(client.read_response().text(), "ok");
        no_alarm(&server);
    }
}

#[test]
fn a_client_that_waits_for_100_gets_it() {
    for directives in ["", "proxy_request_buffering off;"] {
        let upstream = counting();
        let server = proxy_with(&upstream, directives);
        let mut client = Client::connect(server.port());
        for _ in 0..3 {
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
            assert_eq!(client.read_interim().status, 100);
            client.send("body");
            let response = client.read_response();
            assert!(response.text().starts_with("4 "), "{}", response.text());
        }
        no_alarm(&server);
    }
}

#[test]
fn a_slow_upstream_slows_its_client_down() {
    const LENGTH: usize = 100_000_000;
    const KEPT: usize = 60_000_000;
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let upstream = Upstream::start(move |mut peer: Peer| {
        wait.lock().unwrap().recv().unwrap();
        let (_, body) = peer.read_request().expect("a request");
        assert!(body == content(LENGTH, 9));
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let server = proxy_with(&upstream, "proxy_request_buffering off; client_max_body_size 0;");
    let taken = Arc::new(AtomicUsize::new(0));
    let client = std::thread::spawn({
        let (taken, port) = (taken.clone(), server.port());
        move || {
            let mut client = Client::connect(port);
            client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n"));
            for piece in content(LENGTH, 9).chunks(100_000) {
                client.send(piece);
                taken.fetch_add(piece.len(), Ordering::SeqCst);
            }
            client.read_response().text()
        }
    });
    let mut last = usize::MAX;
    eventually("a standstill", || {
        std::thread::sleep(Duration::from_millis(150));
        let now = taken.load(Ordering::SeqCst);
        now > 0 && std::mem::replace(&mut last, now) == now
    });
    assert!(last < KEPT, "{last}");
    go.send(()).unwrap();
    assert_eq!(client.join().unwrap(), "ok");
    no_alarm(&server);
}

const EARLY: &str = "HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nearly";

/// Answers as soon as a head is there. With bytes unread, the close is a reset.
fn early(then: impl Fn(Peer) + Send + Sync + 'static) -> Upstream {
    Upstream::start(move |mut peer: Peer| {
        let mut head = Vec::new();
        while memchr::memmem::find(&head, b"\r\n\r\n").is_none() {
            let bytes = peer.read_some();
            if bytes.is_empty() {
                return;
            }
            head.extend(bytes);
        }
        peer.send(EARLY);
        then(peer);
    })
}

#[test]
fn an_early_answer_reaches_the_client_although_its_upstream_closes_right_after() {
    const LENGTH: usize = 20_000_000;
    let body = content(LENGTH, 2);
    for directives in ["", "client_body_buffer_size 32m;", "proxy_request_buffering off;"] {
        let upstream = early(drop);
        let server = proxy_with(&upstream, &format!("client_max_body_size 0; {directives}"));
        for round in 0..8 {
            let mut client = Client::connect(server.port());
            client.try_send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n"));
            client.try_send(&body);
            let response =
                client.response_to("POST").unwrap_or_else(|error| panic!("{directives} {round}: {error}"));
            assert_eq!((response.status, response.text().as_str()), (413, "early"), "{directives} {round}");
        }
        assert_eq!(upstream.accepted(), 8);
        no_alarm(&server);
    }
}

#[test]
fn an_early_answer_that_ends_with_a_reset_alone_is_never_complete() {
    let upstream = Upstream::start(|mut peer: Peer| {
        peer.read_exactly(1000);
        peer.send("HTTP/1.0 413 Too Large\r\n\r\nsome of it");
        peer.reset();
    });
    for directives in ["", "proxy_request_buffering off;"] {
        let server = proxy_with(&upstream, &format!("client_max_body_size 0; {directives}"));
        let body = content(20_000_000, 2);
        let mut client = Client::connect(server.port());
        client.try_send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()));
        client.try_send(&body);
        // Whatever it is told, it is not that this was all.
        if let Ok(response) = client.response_to("POST") {
            assert_eq!(response.status, 502, "{directives}");
        }
        no_alarm(&server);
    }
}

#[test]
fn an_early_answer_reaches_the_client_before_it_has_sent_everything() {
    for is_chunked in [false, true] {
        // The upstream keeps the connection and reads nothing more.
        let upstream = early(|mut peer| drop(peer.read_to_end()));
        let server = proxy_with(&upstream, "proxy_request_buffering off;");
        let mut client = Client::connect(server.port());
        let framing = if is_chunked { "Transfer-Encoding: chunked" } else { "Content-Length: 10" };
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
        let response = client.read_response();
        assert_eq!((response.status, response.text().as_str()), (413, "early"));
        // If the connection lives on, the rest of the body is the request's still.
        let rest = if is_chunked { "a\r\n0123456789\r\n0\r\n\r\n" } else { "0123456789" };
        client.try_send(rest);
        client.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        if let Ok(response) = client.response_to("GET") {
            assert_eq!(response.text(), "early");
        }
        no_alarm(&server);
    }
}

#[test]
fn a_connection_that_did_not_take_the_whole_request_is_not_used_again() {
    let upstream = early(|mut peer| drop(peer.read_to_end()));
    let server = proxy_with(&upstream, "client_max_body_size 0;");
    for _ in 0..3 {
        let mut client = Client::connect(server.port());
        let body = content(20_000_000, 2);
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()));
        client.try_send(&body);
        assert_eq!(client.response_to("POST").expect("a response").status, 413);
    }
    assert_eq!(upstream.accepted(), 3);
    no_alarm(&server);
}

#[test]
fn an_upstream_that_answers_while_it_reads_is_read_while_it_is_sent_to() {
    // An echo of more than both sockets hold: who only sends before reading would wait for ever.
    const LENGTH: usize = 40_000_000;
    for directives in ["", "proxy_request_buffering off;"] {
        let upstream = Upstream::start(|mut peer: Peer| {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.extend(peer.read_exactly(1));
            }
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n"));
            let mut left = LENGTH;
            while left > 0 {
                let piece = peer.read_some();
                if piece.is_empty() {
                    return;
                }
                left -= piece.len();
                peer.send(piece);
            }
            peer.read_to_end();
        });
        let server = proxy_with(&upstream, &format!("client_max_body_size 0; {directives}"));
        let body = content(LENGTH, 6);
        let stream = std::net::TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        let mut sender = Client::over_tcp(stream.try_clone().unwrap());
        let mut client = Client::over_tcp(stream);
        let sending = std::thread::spawn({
            let body = body.clone();
            move || {
                sender.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n"));
                sender.send(&body);
            }
        });
        let response = client.read_response();
        sending.join().unwrap();
        assert!(response.body == body, "{directives}");
        no_alarm(&server);
    }
}

#[test]
fn an_upload_that_stops_is_408_or_a_close_and_frees_the_upstream() {
    let (sender, told) = reporting();
    let upstream = Upstream::start(move |mut peer: Peer| {
        let bytes = peer.read_to_end();
        let _ = sender.lock().unwrap().send(bytes);
    });
    let server = proxy_with(&upstream, "proxy_request_buffering off; client_body_timeout 300ms;");
    let mut client = Client::connect(server.port());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nsome");
    if let Ok(response) = client.response_to("POST") {
        assert_eq!(response.status, 408);
    }
    let bytes = told.recv_timeout(PATIENCE).expect("the upstream connection is closed");
    assert!(bytes.ends_with(b"some"), "{:?}", String::from_utf8_lossy(&bytes));
    assert!(server.access_log_lines(1)[0].contains("\" 408 "), "{}", server.access_log());
    no_alarm(&server);
}

/// Reports what came up to the first piece of a body, `some`, and then what came up to the close.
fn swallowing(sender: Arc<Mutex<Sender<Vec<u8>>>>) -> Upstream {
    Upstream::start(move |mut peer: Peer| {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"some") && !bytes.ends_with(b"some\r\n") {
            bytes.extend(peer.read_some());
        }
        let _ = sender.lock().unwrap().send(bytes);
        let rest = peer.read_to_end();
        let _ = sender.lock().unwrap().send(rest);
    })
}

#[test]
fn a_client_that_goes_within_its_upload_takes_the_upstream_connection_along() {
    let (sender, told) = reporting();
    let upstream = swallowing(sender);
    let server = proxy_with(&upstream, "proxy_request_buffering off;");
    for (resets, framing, piece) in [
        (false, "Content-Length: 10", "some"),
        (true, "Content-Length: 10", "some"),
        (false, "Transfer-Encoding: chunked", "4\r\nsome\r\n"),
    ] {
        let mut client = Client::connect(server.port());
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{piece}"));
        assert!(told.recv_timeout(PATIENCE).expect("the request").ends_with(piece.as_bytes()));
        if resets {
            client.reset()
        } else {
            drop(client)
        }
        let bytes = told.recv_timeout(PATIENCE).expect("the upstream connection is closed");
        // Never as if it were all.
        assert!(!bytes.ends_with(b"0\r\n\r\n"), "{:?}", String::from_utf8_lossy(&bytes));
    }
    no_alarm(&server);
}

#[test]
fn a_bad_chunk_within_an_upload_is_400_and_ends_the_upstream_connection() {
    let (sender, told) = reporting();
    let upstream = swallowing(sender);
    let server = proxy_with(&upstream, "proxy_request_buffering off;");
    let mut client = Client::connect(server.port());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n");
    told.recv_timeout(PATIENCE).expect("the request");
    client.send("x\r\nSECRET");
    assert_eq!(client.read_response().status, 400);
    let bytes = told.recv_timeout(PATIENCE).expect("the upstream connection is closed");
    let text = String::from_utf8_lossy(&bytes);
    assert!(!text.contains("SECRET") && !text.ends_with("0\r\n\r\n"), "{text:?}");
    no_alarm(&server);
}

#[test]
fn an_upstream_is_free_before_a_client_of_limited_rate_has_everything() {
    let (sender, sent) = reporting();
    let upstream = large("length", LARGE, sender);
    let server = proxy_with(&upstream, "limit_rate 100k;");
    let mut client = Client::connect(server.port());
    client.send("GET /7 HTTP/1.1\r\nHost: a\r\n\r\n");
    sent.recv_timeout(PATIENCE).expect("the upstream is free");
    client.read_exactly(50_000);
    drop(client);
    no_alarm(&server);
}

#[test]
fn a_limited_rate_loses_nothing() {
    const LENGTH: usize = 300_000;
    for directives in
        ["proxy_limit_rate 500k;", "limit_rate 500k;", "proxy_limit_rate 500k; proxy_buffering off;"]
    {
        for framing in ["length", "chunked", "close"] {
            let (sender, _sent) = reporting();
            let upstream = large(framing, LENGTH, sender);
            let server = proxy_with(&upstream, directives);
            let mut client = Client::connect(server.port());
            client.send("GET /4 HTTP/1.1\r\nHost: a\r\n\r\n");
            assert!(client.read_response().body == content(LENGTH, 4), "{directives} {framing}");
            no_alarm(&server);
        }
    }
}
