//! HTTP/2 to clients: asked by curl, nghttp, h2load and a browser, and frame by frame.

use crate::util::h2::{self, H2, *};
use crate::util::tls::{connect_tls, has};
use crate::util::{Client, Server, Upstream, eventually, get};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

mod clients;
mod hostile;
mod lifetimes;
mod upstreams;

const PAIR: &str = "ssl_certificate {fixtures}/server-ec.pem; ssl_certificate_key {fixtures}/server-ec.key;";

/// Without TLS on the first port and under TLS on the second.
fn text(directives: &str) -> String {
    format!(
        "log_format f '$request|$status|$server_protocol|$http2|$body_bytes_sent|$request_completion';
         access_log {{root}}/access.log f;
         server {{ listen {{port}}; listen {{port2}} ssl; http2 on; server_name example.com localhost; {PAIR}
           root {{root}}/html; {directives} }}"
    )
}

fn start(directives: &str) -> Server {
    Server::start(&text(directives))
}

/// A server that passes everything on to this upstream.
fn proxy(upstream: &Upstream, directives: &str) -> Server {
    start(&format!("location / {{ proxy_pass http://127.0.0.1:{}; {directives} }}", upstream.port()))
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn lines(server: &Server, part: &str) -> usize {
    server.access_log().lines().filter(|line| line.contains(part)).count()
}

/// The answer of an upstream with this body.
fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[test]
fn the_usual_requests_get_their_answers() {
    let server = start(
        "error_page 404 /missing.html; location /r { return 301 /elsewhere; }
         location /empty { return 204; } location /e { return 503; }
         location /head { add_header X-A b; add_header X-Long $arg_a always; return 200 text; }",
    );
    server.write("html/a.txt", "hello world");
    server.write("html/missing.html", "not here");
    server.write("html/zero", "");
    server.write("html/folder/index.html", "index");
    for secure in [false, true] {
        let mut h2 = match secure {
            true => H2::connect_tls(server.port_of(2), "example.com"),
            false => H2::connect(server.port()),
        };
        let scheme = if secure { "https" } else { "http" };
        let full = h2.fetch("/a.txt");
        assert_eq!((full.status, full.text().as_str()), (200, "hello world"));
        assert_eq!(full.header("content-length"), Some("11"));
        assert!(full.header("server").is_some_and(|name| name.starts_with("thalweg")));
        let (etag, modified) =
            (full.header("etag").expect("an ETag"), full.header("last-modified").expect("a date"));
        let head = h2.open(&[(":method", "HEAD"), (":path", "/a.txt")], true);
        let head = h2.wait(head);
        assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("11"), 0));
        for (name, value) in [("if-none-match", etag), ("if-modified-since", modified)] {
            let id = h2.open(&[(":path", "/a.txt"), (name, value)], true);
            let response = h2.wait(id);
            assert_eq!((response.status, response.body.len()), (304, 0), "{name}");
        }
        let id = h2.open(&[(":path", "/a.txt"), ("range", "bytes=6-")], true);
        let part = h2.wait(id);
        assert_eq!((part.status, part.text().as_str()), (206, "world"));
        assert_eq!(part.header("content-range"), Some("bytes 6-10/11"));
        let id = h2.open(&[(":path", "/a.txt"), ("range", "bytes=0-1,3-4")], true);
        let parts = h2.wait(id);
        assert_eq!(parts.status, 206);
        assert!(parts.text().contains("Content-Range: bytes 3-4/11"), "{}", parts.text());
        let id = h2.open(&[(":path", "/a.txt"), ("range", "bytes=90-")], true);
        assert_eq!(h2.wait(id).status, 416);
        let missing = h2.fetch("/nothing");
        assert_eq!((missing.status, missing.text().as_str()), (404, "not here"));
        assert_eq!(
            (h2.fetch("/zero").status, h2.fetch("/empty").status, h2.fetch("/e").status),
            (200, 204, 503)
        );
        let authority = format!("localhost:{}", server.port_of(if secure { 2 } else { 1 }));
        for (path, location) in [("/r", "/elsewhere"), ("/folder", "/folder/")] {
            let id = h2.open(&[(":scheme", scheme), (":path", path), (":authority", &authority)], true);
            let moved = h2.wait(id);
            assert_eq!(moved.status, 301);
            assert_eq!(moved.header("location"), Some(&*format!("{scheme}://{authority}{location}")));
        }
        let id = h2.open(&[(":method", "POST"), (":path", "/a.txt")], false);
        h2.send_body(id, b"a body", true);
        assert_eq!(h2.wait(id).status, 405);
        // Fields that the dynamic table holds, and one that it cannot.
        let long = "x".repeat(5000);
        for _ in 0..3 {
            let response = h2.fetch(&format!("/head?a={long}"));
            assert_eq!((response.header("x-a"), response.header("x-long")), (Some("b"), Some(&*long)));
        }
    }
    assert!(lines(&server, "GET /a.txt HTTP/2.0|200|HTTP/2.0|h2|11|OK") == 1, "{}", server.access_log());
    assert!(lines(&server, "GET /a.txt HTTP/2.0|200|HTTP/2.0|h2c|11|OK") == 1, "{}", server.access_log());
    assert!(lines(&server, "HEAD /a.txt HTTP/2.0|200|HTTP/2.0|h2c|0|OK") == 1, "{}", server.access_log());
}

#[test]
fn http1_and_http2_share_a_port() {
    let server = start("return 200 $server_protocol[$http2];");
    assert_eq!(get(server.port(), "/").text(), "HTTP/1.1[]");
    assert_eq!(H2::connect(server.port()).fetch("/").text(), "HTTP/2.0[h2c]");
    assert_eq!(H2::connect_tls(server.port_of(2), "example.com").fetch("/").text(), "HTTP/2.0[h2]");
    let mut client = connect_tls(server.port_of(2), "example.com", &["http/1.1"]);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response().text(), "HTTP/1.1[]");
    // The preface may come in pieces.
    let mut client = Client::connect(server.port());
    client.send_slowly(PREFACE, Duration::from_millis(1));
    client.send(h2::frame(SETTINGS, 0, 0, b""));
    client.send_slowly(h2::frame(HEADERS, 5, 1, &h2::head(&[])), Duration::ZERO);
    assert_eq!(client.read_exactly(9)[3], SETTINGS);
    // Without `http2 on` the preface is a bad request, and ALPN says nothing of it.
    let server = Server::start("server { listen {port}; return 200 x; }");
    let mut client = Client::connect(server.port());
    client.send(PREFACE);
    assert_eq!(client.read_response().status, 400);
}

#[test]
fn limit_rate_holds_for_a_stream() {
    let server = start("location /slow { limit_rate 1m; }");
    let body = noise(1_600_000);
    server.write("html/slow", &body);
    let mut h2 = H2::connect(server.port());
    let started = std::time::Instant::now();
    let slow = h2.get("/slow");
    let quick = h2.fetch("/none");
    assert_eq!(quick.status, 404);
    assert!(h2.wait(slow).body == body);
    assert!(started.elapsed() > Duration::from_millis(300), "it is not faster than the limit");
}

#[test]
fn uploads_go_through_with_expect_and_without() {
    let upstream = Upstream::http(|head, body| {
        let sum: u64 = body.iter().map(|byte| u64::from(*byte)).sum();
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        ok(&format!("{} {sum} {chunked}", body.len()))
    });
    let server = start(&format!(
        "client_max_body_size 64m;
         location /p/ {{ proxy_pass http://127.0.0.1:{port}; }}
         location /u/ {{ proxy_pass http://127.0.0.1:{port}; proxy_request_buffering off; proxy_http_version 1.1; }}
         location /small/ {{ client_max_body_size 10k; proxy_pass http://127.0.0.1:{port}; }}
         location /put/ {{ dav_methods PUT; root {{root}}; create_full_put_path on; }}",
        port = upstream.port()
    ));
    let big = noise(5 << 20);
    let sum: u64 = big.iter().map(|byte| u64::from(*byte)).sum();
    let length = big.len().to_string();
    let mut h2 = H2::connect(server.port());
    for path in ["/p/", "/u/"] {
        for known in [true, false] {
            for expects in [true, false] {
                let mut fields = vec![(":method", "POST"), (":path", path)];
                if known {
                    fields.push(("content-length", &length));
                }
                if expects {
                    fields.push(("expect", "100-continue"));
                }
                let id = h2.open(&fields, false);
                if expects {
                    h2.wait_until(|h2| h2.streams[&id].interim.len() == 1);
                    assert_eq!(h2.streams[&id].interim[0].0, 100);
                }
                h2.send_body(id, &big, true);
                let response = h2.wait(id);
                let streams = !known && path == "/u/";
                assert_eq!(response.text(), format!("{length} {sum} {streams}"), "{path} {known} {expects}");
            }
        }
    }
    // An empty body that comes as a frame of its own, and one with trailers.
    let id = h2.open(&[(":method", "POST"), (":path", "/p/")], false);
    h2.send(DATA, END_STREAM, id, b"");
    assert_eq!(h2.wait(id).text(), "0 0 false");
    let id = h2.open(&[(":method", "POST"), (":path", "/u/")], false);
    h2.send_body(id, b"a", false);
    let mut trailers = Vec::new();
    h2::literal("x-t", "v", &mut trailers);
    h2.send(HEADERS, END_STREAM | END_HEADERS, id, &trailers);
    assert!(h2.wait(id).text().starts_with("1 97 "));
    // Too large: said at once by the length, else when it is seen; the connection goes on.
    let id = h2.open(&[(":method", "POST"), (":path", "/small/"), ("content-length", "10241")], false);
    assert_eq!(h2.wait(id).status, 413);
    let id = h2.open(&[(":method", "POST"), (":path", "/small/")], false);
    h2.send_body(id, &big[..20_000], false);
    assert_eq!(h2.wait(id).status, 413);
    let id = h2.open(&[(":method", "PUT"), (":path", "/put/file"), ("content-length", &length)], false);
    h2.send_body(id, &big, true);
    assert_eq!(h2.wait(id).status, 201);
    assert!(std::fs::read(server.path("put/file")).expect("stored") == big);
    assert_eq!(h2.goaways, []);
}

#[test]
fn small_windows_are_respected() {
    let server = start("");
    let body = noise(300_000);
    server.write("html/a", &body);
    // The stream's window: a hundred bytes at a time.
    let mut h2 = H2::over(Client::connect(server.port()), &[(4, 1000)]);
    h2.gives_window = false;
    let id = h2.get("/a");
    h2.wait_until(|h2| h2.streams[&id].body.len() == 1000);
    h2.ping();
    assert_eq!(h2.streams[&id].body.len(), 1000);
    for round in 1..20 {
        h2.send(WINDOW_UPDATE, 0, id, &100u32.to_be_bytes());
        h2.wait_until(|h2| h2.streams[&id].body.len() == 1000 + round * 100);
    }
    // A larger initial window holds for open streams too; a smaller one may make them negative.
    h2.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    h2.ping();
    h2.send(WINDOW_UPDATE, 0, id, &1000u32.to_be_bytes());
    h2.ping();
    assert_eq!(h2.streams[&id].body.len(), 2900);
    h2.send(SETTINGS, 0, 0, &[0, 4, 0x7f, 0, 0, 0]);
    h2.wait_until(|h2| h2.streams[&id].body.len() == 65_535);
    h2.ping();
    // Then it is the connection's that holds it up; for others as well.
    let other = h2.get("/a");
    h2.wait_until(|h2| h2.streams[&other].status == 200);
    h2.ping();
    assert_eq!((h2.streams[&id].body.len(), h2.streams[&other].body.len()), (65_535, 0));
    h2.send(WINDOW_UPDATE, 0, 0, &1_000_000u32.to_be_bytes());
    assert!(h2.wait(id).body == body);
    assert!(h2.wait(other).body == body);
    // What has no body needs no window.
    let mut h2 = H2::over(Client::connect(server.port()), &[(4, 0)]);
    let id = h2.open(&[(":method", "HEAD"), (":path", "/a")], true);
    assert_eq!(h2.wait(id).status, 200);
}

#[test]
fn a_hundred_streams_run_in_parallel_and_share_the_connection() {
    let server = start("");
    let body = noise(400_000);
    server.write("html/a", &body);
    let mut h2 = H2::connect(server.port());
    // Windows large enough that only the server decides what comes when.
    h2.send(SETTINGS, 0, 0, &[0, 4, 0x10, 0, 0, 0]);
    h2.send(WINDOW_UPDATE, 0, 0, &0x2000_0000u32.to_be_bytes());
    h2.gives_window = false;
    let ids: Vec<u32> = (0..100).map(|_| h2.open(&[(":path", "/a"), ("priority", "u=3, i")], true)).collect();
    for id in &ids {
        assert!(h2.wait(*id).body == body);
    }
    // Incremental ones take turns: every stream has begun before any ends.
    let first_end = {
        let mut sums = std::collections::HashMap::new();
        h2.pieces.iter().position(|(id, length)| {
            let sum = sums.entry(*id).or_insert(0);
            *sum += length;
            *sum == body.len()
        })
    };
    let begun: std::collections::HashSet<_> =
        h2.pieces[..first_end.expect("an end")].iter().map(|(id, _)| *id).collect();
    assert!(begun.len() > 50, "only {} streams had begun before one ended", begun.len());
}

#[test]
fn urgent_streams_go_first_and_the_others_are_not_starved() {
    let server = start("");
    let body = noise(1 << 20);
    server.write("html/a", &body);
    let mut h2 = H2::connect(server.port());
    h2.send(SETTINGS, 0, 0, &[0, 4, 0x10, 0, 0, 0]);
    h2.gives_window = false;
    let lazy = h2.open(&[(":path", "/a"), ("priority", "u=7")], true);
    let usual = h2.open(&[(":path", "/a")], true);
    let urgent = h2.open(&[(":path", "/a"), ("priority", "u=0")], true);
    // The connection's first window is used up; whoever gets the next one is the server's choice.
    h2.wait_until(|h2| h2.pieces.iter().map(|(_, length)| length).sum::<usize>() == 65_535);
    h2.ping();
    h2.pieces.clear();
    h2.send(WINDOW_UPDATE, 0, 0, &0x1000_0000u32.to_be_bytes());
    for id in [lazy, usual, urgent] {
        assert!(h2.wait(id).body == body);
    }
    let last = |id: u32| h2.pieces.iter().rposition(|(stream, _)| *stream == id).expect("a piece");
    assert!(last(urgent) < last(usual) && last(usual) < last(lazy), "{:?}", h2.pieces);

    // A stream of the highest urgency that waits for its own window holds nobody up.
    let mut h2 = H2::connect(server.port());
    h2.gives_window = false;
    let stuck = h2.open(&[(":path", "/a"), ("priority", "u=0")], true);
    h2.wait_until(|h2| h2.streams[&stuck].body.len() == 65_535);
    h2.send(WINDOW_UPDATE, 0, 0, &0x1000_0000u32.to_be_bytes());
    h2.gives_window = true;
    let lazy = h2.open(&[(":path", "/a"), ("priority", "u=7")], true);
    assert!(h2.wait(lazy).body == body);
    // PRIORITY_UPDATE (RFC 9218 section 7.1) is taken.
    let id = h2.next_id();
    let update = [&id.to_be_bytes()[..], b"u=1"].concat();
    h2.send(16, 0, 0, &update);
    assert!(h2.fetch("/a").body == body);
}

#[test]
fn limits_count_streams() {
    let server = Server::start(
        "limit_conn_zone $server_port zone=c:1m; limit_req_zone $server_port zone=r:1m rate=1r/m;
         server { listen {port}; http2 on; root {root}/html;
           location /c { limit_conn c 2; } location /r { limit_req zone=r burst=2 nodelay; } }",
    );
    server.write("html/c", noise(200_000));
    server.write("html/r", "x");
    let mut h2 = H2::connect(server.port());
    h2.send(WINDOW_UPDATE, 0, 0, &1_000_000u32.to_be_bytes());
    h2.gives_window = false;
    let (one, two) = (h2.get("/c"), h2.get("/c"));
    let three = h2.get("/c");
    assert_eq!(h2.wait(three).status, 503);
    h2.gives_window = true;
    h2.send(RST_STREAM, 0, one, &CANCEL.to_be_bytes());
    h2.send(RST_STREAM, 0, two, &CANCEL.to_be_bytes());
    let four = h2.get("/c");
    assert_eq!(h2.wait(four).status, 200);
    let ids: Vec<u32> = (0..5).map(|_| h2.get("/r")).collect();
    let statuses: Vec<u16> = ids.into_iter().map(|id| h2.wait(id).status).collect();
    assert_eq!(statuses, [200, 200, 200, 503, 503]);
}

#[test]
fn the_proxy_protocol_comes_before_the_preface() {
    let server = Server::start(
        "server { listen {port} proxy_protocol; http2 on; return 200 \"$proxy_protocol_addr $http2\"; }",
    );
    let mut client = Client::connect(server.port());
    client.send("PROXY TCP4 203.0.113.9 127.0.0.1 12345 80\r\n");
    assert_eq!(H2::over(client, &[]).fetch("/").text(), "203.0.113.9 h2c");
}

#[test]
fn internal_redirects_subrequests_and_error_pages_work_in_streams() {
    let upstream = Upstream::http(|head, _| match head.starts_with("GET /fails") {
        true => b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops".to_vec(),
        false => ok("body"),
    });
    let server = start(&format!(
        "location /try {{ try_files /none @up; }} location @up {{ proxy_pass http://127.0.0.1:{port}; }}
         location /fails {{ proxy_pass http://127.0.0.1:{port}; proxy_intercept_errors on; error_page 500 /e.html; }}
         location /auth {{ auth_request /check; return 200 in; }}
         location = /check {{ internal; return 204; }}
         location /gz {{ gzip on; gzip_min_length 1; gzip_types *; }}",
        port = upstream.port()
    ));
    server.write("html/e.html", "sorry");
    server.write("html/auth", "in");
    server.write("html/gz", "a".repeat(100_000));
    let mut h2 = H2::connect(server.port());
    assert_eq!(h2.fetch("/try").text(), "body");
    let failed = h2.fetch("/fails");
    assert_eq!((failed.status, failed.text().as_str()), (500, "sorry"));
    assert_eq!(h2.fetch("/auth").text(), "in");
    let id = h2.open(&[(":path", "/gz"), ("accept-encoding", "gzip")], true);
    let packed = h2.wait(id);
    assert_eq!((packed.status, packed.header("content-encoding")), (200, Some("gzip")));
    assert!(packed.body.len() < 2000 && packed.ended);
    assert_eq!(h2.fetch("/gz").body.len(), 100_000);
}

#[test]
fn a_server_may_close_without_an_answer() {
    let server = start("location /close { return 444; } location / { return 200 x; }");
    let mut h2 = H2::connect(server.port());
    let id = h2.get("/close");
    while !h2.is_over(id) && h2.pump() {}
    assert_eq!(h2.streams[&id].status, 0);
    eventually("its line", || lines(&server, "GET /close HTTP/2.0|444|") == 1);
    assert_eq!(H2::connect(server.port()).fetch("/").text(), "x");
}

#[test]
fn alpn_is_that_of_the_name() {
    let server = Server::start(&format!(
        "server {{ listen {{port}} ssl; server_name example.com; {PAIR} return 200 $server_protocol; }}
         server {{ listen {{port}} ssl; server_name b.example.com; http2 on; {PAIR} return 200 $server_protocol; }}"
    ));
    assert_eq!(H2::connect_tls(server.port(), "b.example.com").fetch("/").text(), "HTTP/2.0");
    let mut client = connect_tls(server.port(), "example.com", &["h2", "http/1.1"]);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response().text(), "HTTP/1.1");
}

#[test]
fn requests_are_judged_as_in_http1() {
    let server = start(
        "location / { return 200 $host:$request_uri; } location /only { limit_except GET { deny all; } return 200 x; }",
    );
    let mut h2 = H2::connect(server.port());
    let mut ask = |fields: &[(&str, &str)]| {
        let id = h2.open(fields, true);
        let response = h2.wait(id);
        (response.status, response.text())
    };
    assert_eq!(ask(&[("host", "Example.COM")]), (200, "example.com:/".to_owned()));
    assert_eq!(ask(&[(":authority", "a"), ("host", "a")]), (200, "a:/".to_owned()));
    assert_eq!(ask(&[(":authority", "a"), ("host", "b")]).0, 400);
    assert_eq!(ask(&[(":authority", "a b")]).0, 400);
    assert_eq!(ask(&[(":path", "/%zz")]).0, 400);
    assert_eq!(ask(&[(":path", "/../../etc")]).0, 400);
    assert!(matches!(ask(&[(":path", "no-slash")]).0, 0 | 400));
    assert_eq!(ask(&[(":method", "TRACE")]).0, 405);
    assert_eq!(ask(&[(":path", "/a?b=c&d")]), (200, "localhost:/a?b=c&d".to_owned()));
    assert_eq!(h2.goaways, []);
}

#[test]
fn variables_of_a_stream_are_its_own() {
    let server = start(
        "location / { return 200 \"$connection_requests $request_length $request_method $scheme $is_args$args\"; }",
    );
    let mut h2 = H2::connect(server.port());
    let texts: Vec<String> = (0..3).map(|number| h2.fetch(&format!("/?{number}")).text()).collect();
    for (number, text) in texts.iter().enumerate() {
        let parts: Vec<&str> = text.split(' ').collect();
        assert_eq!(parts[0], (number + 1).to_string(), "{texts:?}");
        assert!(parts[1].parse::<u32>().is_ok_and(|length| length > 20), "{texts:?}");
        assert_eq!(parts[2..], ["GET", "http", &*format!("?{number}")]);
    }
}

/// Descriptors that the server's processes hold.
fn descriptors(server: &Server) -> usize {
    let of = |pid: &rustix::process::Pid| {
        std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).expect("a process").count()
    };
    server.children().iter().map(of).sum()
}

#[test]
fn streams_that_wait_for_window_share_the_descriptor_of_their_file() {
    let server = Server::start(&format!(
        "worker_processes 1; http {{ {} }}",
        text("http2_max_concurrent_streams 400;")
    ));
    let body = noise(100_000);
    server.write("html/a", &body);
    let mut h2 = H2::connect(server.port());
    h2.gives_window = false;
    let first = h2.get("/a");
    h2.wait_until(|h2| h2.streams[&first].body.len() == 65_535);
    let before = descriptors(&server);
    // The connection's window is used up: none of these gets a byte of its body.
    let waiting: Vec<u32> = (1..300).map(|_| h2.get("/a")).collect();
    h2.wait_until(|h2| waiting.iter().all(|id| h2.streams[id].status == 200));
    let grown = descriptors(&server).saturating_sub(before);
    assert!(grown < 3, "{grown} descriptors for 299 streams");
    h2.gives_window = true;
    h2.send(WINDOW_UPDATE, 0, 0, &0x1000_0000u32.to_be_bytes());
    for id in waiting {
        assert!(h2.wait(id).body == body);
    }
}
