//! What a client gets and a server hears when a request goes to another server, and when it must not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use crate::util::{Client, Peer, Response, Server, Upstream, get, raw};

/// A server of a group: answers with a status that can be changed, and with its name.
struct Member {
    upstream: Upstream,
    status: Arc<AtomicU16>,
    requests: Arc<AtomicUsize>,
}

impl Member {
    fn start(name: &'static str) -> Member {
        let status = Arc::new(AtomicU16::new(200));
        let requests = Arc::new(AtomicUsize::new(0));
        let upstream = Upstream::http({
            let (status, requests) = (status.clone(), requests.clone());
            move |_, body| {
                requests.fetch_add(1, SeqCst);
                let echo = String::from_utf8_lossy(body);
                answer(status.load(SeqCst), &format!("{name}{echo}"))
            }
        });
        Member { upstream, status, requests }
    }

    fn port(&self) -> u16 {
        self.upstream.port()
    }

    fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }

    fn set(&self, status: u16) {
        self.status.store(status, SeqCst);
    }
}

fn answer(status: u16, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} So\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// A server that passes everything on to a group of these lines.
#[track_caller]
fn group(lines: &str, directives: &str) -> Server {
    Server::start(&format!(
        "upstream group {{ {lines} }}
         server {{ listen {{port}}; location / {{ proxy_pass http://group; {directives} }} }}"
    ))
}

fn send(port: u16, method: &str, path: &str, body: &str) -> Response {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    raw(port, request).expect("a response")
}

#[test]
fn a_failure_status_of_the_last_server_is_the_answer() {
    let (one, two) = (Member::start("one"), Member::start("two"));
    one.set(503);
    two.set(503);
    let lines = format!("server 127.0.0.1:{}; server 127.0.0.1:{} backup;", one.port(), two.port());
    let server = group(&lines, "proxy_next_upstream http_503; add_header X-Tried $upstream_status always;");
    let response = get(server.port(), "/");
    assert_eq!((response.status, response.text().as_str()), (503, "two"));
    assert_eq!(response.header("X-Tried"), Some("503, 503"));
}

#[test]
fn a_request_that_was_never_sent_may_go_elsewhere() {
    let good = Member::start("good:");
    let lines = format!("server 127.0.0.1:{{port9}} max_fails=0; server 127.0.0.1:{} backup;", good.port());
    let server = group(&lines, "");
    // As large as it is, it is kept until somebody has taken it.
    let body = "0123456789abcdef".repeat(20_000);
    let response = send(server.port(), "POST", "/", &body);
    assert_eq!(response.status, 200);
    assert!(response.text() == format!("good:{body}"));
}

#[test]
fn a_post_on_a_kept_connection_that_closes_is_sent_once() {
    let posts = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::start({
        let posts = posts.clone();
        move |mut peer: Peer| {
            while let Some((head, _)) = peer.read_request() {
                if head.starts_with("POST") {
                    posts.fetch_add(1, SeqCst);
                    return;
                }
                peer.send(answer(200, "kept"));
            }
        }
    });
    let lines = format!("server 127.0.0.1:{}; keepalive 4;", upstream.port());
    let server = group(&lines, "proxy_http_version 1.1; proxy_set_header Connection '';");
    for round in 1..=5 {
        for _ in 0..2 {
            assert_eq!(get(server.port(), "/").status, 200);
        }
        assert_eq!(upstream.accepted(), round, "the connection is kept");
        assert_eq!(send(server.port(), "POST", "/", "once").status, 502);
        assert_eq!(posts.load(SeqCst), round);
    }
}

#[test]
fn a_response_that_was_cut_is_neither_complete_nor_asked_for_again() {
    let good = Member::start("good");
    for cut in [
        "Content-Length: 50\r\n\r\n",
        "Content-Length: 50\r\n\r\nonly this",
        "Transfer-Encoding: chunked\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n9\r\nonly",
        "Transfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n",
        "Transfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n0\r\n",
    ] {
        for resets in [false, true] {
            let bad = Upstream::start(move |mut peer: Peer| {
                if peer.read_request().is_none() {
                    return;
                }
                peer.send(format!("HTTP/1.1 200 OK\r\n{cut}"));
                if resets {
                    // What is there has been read before it is lost.
                    std::thread::sleep(Duration::from_millis(50));
                    peer.reset();
                }
            });
            let lines = format!(
                "server 127.0.0.1:{} max_fails=0; server 127.0.0.1:{} backup;",
                bad.port(),
                good.port()
            );
            for directives in
                ["proxy_buffering on;", "proxy_buffering off;", "gzip on; gzip_types *; gzip_min_length 1;"]
            {
                let server = group(&lines, directives);
                let mut client = Client::connect(server.port());
                client.send("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
                let error = client.response_to("GET").expect_err("an incomplete response");
                assert!(error.starts_with("closed"), "{cut:?} {directives} {resets}: {error}");
            }
            assert_eq!(bad.accepted(), 3, "{cut:?}");
        }
    }
    assert_eq!(good.requests(), 0);
}
