//! The harness's own tests: against scripted peers and, where it is installed, nginx.

use crate::util::Signal;
use crate::util::{Client, Nginx, Parity, Upstream, eventually, get, nginx, request};
use rustix::process::test_kill_process;

const SITE: &str = "server { listen {port}; root {root}/html; }";

fn scripted(answer: &'static [u8]) -> (Upstream, Client) {
    let upstream = Upstream::start(move |mut peer| {
        peer.read_request();
        peer.send(answer);
    });
    let mut client = Client::connect(upstream.port());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    (upstream, client)
}

#[test]
fn client_reads_a_body_of_known_length_and_keeps_what_follows() {
    let (_upstream, mut client) = scripted(
        b"HTTP/1.1 200 OK\r\nX-A:  b \r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 204 No Content\r\n\r\n",
    );
    let response = client.read_response();
    assert_eq!((response.status, response.reason.as_str()), (200, "OK"));
    assert_eq!(response.headers[0], ("X-A".to_owned(), "b".to_owned()));
    assert_eq!(response.body, b"abc");
    assert_eq!(client.read_response().status, 204);
    client.expect_closed();
}

#[test]
fn client_decodes_chunks_and_trailers() {
    let (_upstream, mut client) = scripted(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x\r\nc\r\n0\r\nT: v\r\n\r\n",
    );
    let response = client.read_response();
    assert_eq!(response.interim, [100]);
    assert_eq!(response.body, b"abc");
    assert_eq!(response.chunks, Some(vec![2, 1]));
    assert_eq!(response.trailers, [("T".to_owned(), "v".to_owned())]);
}

#[test]
fn client_reads_a_body_that_ends_with_the_connection() {
    let (_upstream, mut client) = scripted(b"HTTP/1.0 200 OK\r\n\r\nrest");
    let response = client.read_response();
    assert!(response.until_close);
    assert_eq!(response.body, b"rest");
}

#[test]
fn client_refuses_a_short_body() {
    let (_upstream, mut client) = scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
    assert_eq!(client.response_to("GET").unwrap_err(), "closed after 3 of 9 bytes");
}

#[test]
fn upstream_answers_and_counts() {
    let upstream = Upstream::http(|head, body| {
        let text = format!("{} {}", head.lines().next().unwrap_or_default(), body.len());
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()).into_bytes()
    });
    let mut client = Client::connect(upstream.port());
    client.send("POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    assert_eq!(client.read_response().text(), "POST /a HTTP/1.1 3");
    assert_eq!(get(upstream.port(), "/b").text(), "GET /b HTTP/1.1 0");
    assert_eq!(upstream.accepted(), 2);
}

#[test]
fn nginx_serves_logs_reloads_and_ends_with_its_processes() {
    if !nginx::available() {
        return;
    }
    let server = Nginx::builder(SITE).file("html/a.txt", "hello").start();
    let response = get(server.port(), "/a.txt");
    assert_eq!((response.status, response.text().as_str()), (200, "hello"));
    assert_eq!(response.header("last-modified"), Some("Tue, 02 Jan 2024 03:04:05 GMT"));
    assert_eq!(request(server.port(), "HEAD", "/a.txt", &[]).body, b"");
    let lines = server.access_log_lines(2);
    assert!(lines[0].contains("\"GET /a.txt HTTP/1.1\" 200 5"), "{lines:?}");
    get(server.port(), "/missing");
    assert!(server.error_log().contains("/missing"));

    server.configure("server { listen {port}; return 204; }");
    server.reload();
    eventually("the new configuration answers", || get(server.port(), "/a.txt").status == 204);

    let pids: Vec<_> = server.children().into_iter().chain([server.pid()]).collect();
    assert!(pids.len() >= 2);
    drop(server);
    eventually("all processes gone", || pids.iter().all(|pid| test_kill_process(*pid).is_err()));
}

#[test]
fn nginx_as_a_daemon_ends_too() {
    if !nginx::available() {
        return;
    }
    let server = Nginx::builder(SITE).daemon(true).file("html/a.txt", "hello").start();
    assert_eq!(get(server.port(), "/a.txt").status, 200);
    eventually("a pid file", || !server.read("server.pid").is_empty());
    let pids: Vec<_> = server.children().into_iter().chain([server.pid()]).collect();
    assert!(pids.len() >= 2);
    drop(server);
    eventually("the daemon is gone", || pids.iter().all(|pid| test_kill_process(*pid).is_err()));
}

#[test]
fn nginx_stops_by_signal_and_its_output_is_there() {
    if !nginx::available() {
        return;
    }
    let mut server = Nginx::start(SITE);
    server.signal(Signal::QUIT);
    assert!(server.wait_for_exit().success());
    let output = Nginx::builder("nonsense;").run(&["-t"]);
    assert!(!output.status.success());
    assert!(output.stderr.contains("unknown directive \"nonsense\""), "{}", output.stderr);
    assert!(output.stderr.contains("nginx.conf:1"), "{}", output.stderr);
}

#[test]
fn parity_finds_nothing_between_equals() {
    Parity::new(SITE)
        .file("html/a.txt", "hello")
        .file("html/folder/index.html", "x")
        .get(&["/a.txt", "/folder", "/missing"])
        .request("HEAD /a.txt HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .request("GET /a.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1,3-4\r\n\r\n")
        .request("bad\r\n\r\n")
        .pipelined("GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\nHEAD / HTTP/1.1\r\nHost: a\r\n\r\n", 2)
        .strict_order()
        .against_itself()
        .check();
}

#[test]
fn parity_shows_a_difference() {
    if !nginx::available() {
        return;
    }
    let conf = "server { listen {port}; add_header X-Pid $pid; return 200; }";
    let report = Parity::new(conf).against_itself().get(&["/"]).differences();
    assert!(report.contains("  - X-Pid: ") && report.contains("  + X-Pid: "), "{report}");
    let report = Parity::new(conf).against_itself().get(&["/"]).ignore("x-pid").differences();
    assert_eq!(report, "");
}
