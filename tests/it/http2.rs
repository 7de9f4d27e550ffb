//! HTTP/2 to clients: asked by curl, nghttp, h2load and a browser, and frame by frame.

use crate::util::browser::{self, Browser};
use crate::util::h2::{self, H2, *};
use crate::util::tls::{connect_tls, curl, has, run};
use crate::util::{Client, Server, Signal, Upstream, eventually, get};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

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
fn curl_speaks_it_both_ways() {
    if !has("curl") {
        return;
    }
    let server = start("location /v { return 200 \"$server_protocol $http2 $ssl_alpn_protocol\"; }");
    let big = noise(20 << 20);
    server.write("html/big", &big);
    let (plain, secure) = (server.port(), server.port_of(2));
    let urls = [
        ("--http2-prior-knowledge", format!("http://localhost:{plain}")),
        ("--http2", format!("https://example.com:{secure}")),
    ];
    for (option, base) in &urls {
        let said = curl(&[option, "-w", " %{http_version}", &format!("{base}/v")]).text();
        let expected = if base.contains("https") { "HTTP/2.0 h2 h2 2" } else { "HTTP/2.0 h2c  2" };
        assert_eq!(said, expected);
        let said = curl(&[option, &format!("{base}/big")]);
        assert!(said.code == 0 && said.stdout == big, "{base}: {} {}", said.stdout.len(), said.stderr);
        let part = curl(&[option, "-r", "1000000-2999999", &format!("{base}/big")]);
        assert!(part.stdout == big[1_000_000..3_000_000]);
        let slow = curl(&[option, "--limit-rate", "4m", "-r", "0-1999999", &format!("{base}/big")]);
        assert!(slow.stdout == big[..2_000_000]);
        // (This curl fails at its second request with prior knowledge, whoever the server is.)
        if *option == "--http2" {
            let several = curl(&[
                option,
                "--parallel",
                "-I",
                "-w",
                "%{http_code}-%{http_version}\n",
                "-o",
                "/dev/null",
                &format!("{base}/v?[1-50]"),
            ]);
            assert!(several.code == 0, "{several:?}");
        }
    }
    // An Upgrade from HTTP/1.1 is not followed: the request is answered as it is.
    let said = curl(&["--http2", "-w", " %{http_version}", &format!("http://localhost:{plain}/v")]).text();
    assert_eq!(said, "HTTP/1.1   1.1");
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
fn nghttp_and_h2load_are_served() {
    if !has("nghttp") || !has("h2load") {
        return;
    }
    let server = start("keepalive_requests 100000;");
    server.write("html/a.txt", "hello");
    server.write("html/b", noise(300_000));
    let base = format!("http://localhost:{}", server.port());
    let said = run("nghttp", &["-nv", "-m", "10", &format!("{base}/a.txt"), &format!("{base}/b")], b"");
    assert_eq!(said.code, 0, "{}", said.stderr);
    let text = said.text();
    assert!(text.matches(":status: 200").count() == 20 && !text.contains("GOAWAY frame <length=8, flags=0x00, stream_id=0>\n          (last_stream_id=0, error_code=PROTOCOL"), "{text}");
    for (port, scheme, arguments) in [
        (1, "http", &["-n", "5000", "-c", "8", "-m", "32"][..]),
        (2, "https", &["-n", "3000", "-c", "4", "-m", "100"]),
        (1, "http", &["-n", "400", "-c", "2", "-m", "10", "-w", "12", "-W", "14"]),
    ] {
        for path in ["a.txt", "b"] {
            let url = format!("{scheme}://localhost:{}/{path}", server.port_of(port));
            let count = if path == "b" { "100" } else { arguments[1] };
            let all = [&["-n", count], &arguments[2..], &[&url]].concat();
            let said = run("h2load", &all, b"").text();
            let line = format!(
                "requests: {count} total, {count} started, {count} done, {count} succeeded, 0 failed, 0 errored, 0 timeout"
            );
            assert!(said.contains(&line), "{said}");
        }
    }
}

#[test]
fn a_browser_shows_a_page_of_many_parts() {
    if !browser::available() {
        return;
    }
    let server = start("location /api { return 200 '{}'; } location = /v { return 200 $server_protocol; }");
    let mut page = String::from("<!doctype html><title>page</title>");
    for number in 0..60 {
        page.push_str(&format!("<script src=/s{number}.js></script>"));
        server.write(
            &format!("html/s{number}.js"),
            format!("window.count = (window.count || 0) + 1; // {}", "x".repeat(number * 997)),
        );
    }
    page.push_str("<script>fetch('/v').then(r => r.text()).then(t => document.title = t); fetch('/api', {method: 'POST', body: 'x'.repeat(200000)})</script>");
    server.write("html/index.html", page);
    server.write("html/favicon.ico", "");
    let mut browser = Browser::start_with("--ignore-certificate-errors");
    let seen = browser.visit(&format!("https://example.com:{}/", server.port_of(2)));
    assert_eq!(seen.problems, [""; 0]);
    eventually("the protocol", || browser.evaluate("document.title") == "HTTP/2.0");
    assert_eq!(browser.evaluate("window.count"), 60);
    eventually("lines", || lines(&server, "HTTP/2.0|200|HTTP/2.0|h2|") >= 63);
    assert!(!server.error_log().contains("[error]"), "{}", server.error_log());
}

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
fn curl_uploads() {
    if !has("curl") {
        return;
    }
    let upstream = Upstream::http(|_, body| ok(&body.len().to_string()));
    let server = proxy(&upstream, "client_max_body_size 64m;");
    let file = server.write("upload", noise(20 << 20));
    let body = format!("@{}", file.to_str().expect("UTF-8"));
    for (option, url) in [
        ("--http2-prior-knowledge", format!("http://localhost:{}/", server.port())),
        ("--http2", format!("https://example.com:{}/", server.port_of(2))),
    ] {
        for expect in ["Expect:", "Expect: 100-continue"] {
            let said = curl(&[option, "-H", expect, "--data-binary", &body, &url]);
            assert_eq!(said.text(), (20 << 20).to_string(), "{}", said.stderr);
        }
    }
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

#[test]
fn a_quitting_server_says_so_and_finishes() {
    let go = Arc::new(AtomicBool::new(false));
    let upstream = Upstream::http({
        let go = Arc::clone(&go);
        move |_, _| {
            eventually("permission", || go.load(Ordering::SeqCst));
            ok("late")
        }
    });
    let mut server = start(&format!("location /p {{ proxy_pass http://127.0.0.1:{}; }}", upstream.port()));
    let big = noise(4 << 20);
    server.write("html/big", &big);
    let mut idle = H2::connect(server.port());
    assert_eq!(idle.fetch("/none").status, 404);
    let mut busy = H2::connect_tls(server.port_of(2), "example.com");
    let (late, large) = (busy.get("/p"), busy.get("/big"));
    eventually("the upstream is asked", || upstream.accepted() == 1);
    server.signal(Signal::QUIT);
    idle.drain();
    assert_eq!(idle.goaways.last().map(|(_, code)| *code), Some(NO_ERROR));
    busy.wait_until(|h2| !h2.goaways.is_empty());
    assert_eq!(busy.goaways[0], (0x7fff_ffff, NO_ERROR));
    assert!(busy.wait(large).body == big);
    go.store(true, Ordering::SeqCst);
    assert_eq!(busy.wait(late).text(), "late");
    busy.drain();
    assert_eq!(busy.goaways.last(), Some(&(late.max(large), NO_ERROR)));
    assert!(server.wait_for_exit().success());
}

#[test]
fn a_reload_resets_nobody() {
    let go = Arc::new(AtomicBool::new(false));
    let upstream = Upstream::http({
        let go = Arc::clone(&go);
        move |_, _| {
            eventually("permission", || go.load(Ordering::SeqCst));
            ok("late")
        }
    });
    let conf = |round: &str| {
        text(&format!(
            "location /p {{ proxy_pass http://127.0.0.1:{}; }} location /round {{ return 200 {round}; }}",
            upstream.port()
        ))
    };
    let server = Server::start(&conf("one"));
    let big = noise(4 << 20);
    server.write("html/big", &big);
    let mut h2 = H2::connect(server.port());
    h2.send(WINDOW_UPDATE, 0, 0, &1000u32.to_be_bytes());
    h2.gives_window = false;
    let (late, large) = (h2.get("/p"), h2.get("/big"));
    h2.wait_until(|h2| h2.streams[&large].body.len() == 65_535);
    assert_eq!(h2.fetch("/round").status, 200);
    for round in ["two", "three"] {
        server.configure(&conf(round));
        server.reload();
        eventually("the new configuration", || get(server.port(), "/round").text() == round);
    }
    h2.gives_window = true;
    h2.send(WINDOW_UPDATE, 0, 0, &0x1000_0000u32.to_be_bytes());
    h2.send(WINDOW_UPDATE, 0, large, &0x1000_0000u32.to_be_bytes());
    go.store(true, Ordering::SeqCst);
    assert!(h2.wait(large).body == big);
    assert_eq!(h2.wait(late).text(), "late");
}

#[test]
fn reloads_under_load_lose_no_request() {
    let conf = text("keepalive_requests 1000000; location / { return 200 x; }");
    let server = Server::start(&conf);
    let stop = Arc::new(AtomicBool::new(false));
    let port = server.port();
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut h2 = H2::connect(port);
                let mut done = 0;
                while !stop.load(Ordering::SeqCst) {
                    if !h2.goaways.is_empty() {
                        h2 = H2::connect(port);
                    }
                    let ids: Vec<u32> = (0..20).map(|_| h2.get("/")).collect();
                    for id in ids {
                        if let Some((last, _)) = h2.goaways.last()
                            && id > *last
                        {
                            continue;
                        }
                        assert_eq!(h2.wait(id).text(), "x");
                        done += 1;
                    }
                }
                done
            })
        })
        .collect();
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(150));
        server.reload();
    }
    std::thread::sleep(Duration::from_millis(200));
    stop.store(true, Ordering::SeqCst);
    for thread in threads {
        assert!(thread.join().expect("no request was lost") > 0);
    }
}

#[test]
fn connections_end_after_their_share_of_requests_and_idle_time() {
    let server = start("keepalive_requests 5; return 200 $connection_requests;");
    let mut h2 = H2::connect(server.port());
    for number in 1..=5 {
        assert_eq!(h2.fetch("/").text(), number.to_string());
    }
    h2.drain();
    assert_eq!(h2.goaways.last(), Some(&(9, NO_ERROR)));
    let server = start("keepalive_timeout 1s; client_header_timeout 1s; return 200 x;");
    let mut used = H2::connect(server.port());
    assert_eq!(used.fetch("/").status, 200);
    let mut fresh = H2::connect(server.port());
    let mut silent = Client::connect(server.port());
    silent.send(&PREFACE[..20]);
    for h2 in [&mut used, &mut fresh] {
        h2.drain();
        assert_eq!(h2.goaways.last().map(|(_, code)| *code), Some(NO_ERROR));
    }
    silent.expect_closed();
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
fn the_proxy_protocol_comes_before_the_preface() {
    let server = Server::start(
        "server { listen {port} proxy_protocol; http2 on; return 200 \"$proxy_protocol_addr $http2\"; }",
    );
    let mut client = Client::connect(server.port());
    client.send("PROXY TCP4 203.0.113.9 127.0.0.1 12345 80\r\n");
    assert_eq!(H2::over(client, &[]).fetch("/").text(), "203.0.113.9 h2c");
}

#[test]
fn many_connections_are_spread_over_workers() {
    let server = Server::start(
        "worker_processes 3; http { server { listen {port}; http2 on; keepalive_requests 100000; return 200 x; } }",
    );
    let port = server.port();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                let mut h2 = H2::connect(port);
                for _ in 0..20 {
                    let ids: Vec<u32> = (0..50).map(|_| h2.get("/")).collect();
                    assert!(ids.into_iter().all(|id| h2.wait(id).text() == "x"));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("all were answered"));
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
fn node_is_served() {
    if !has("node") {
        return;
    }
    let upstream = Upstream::http(|_, body| ok(&body.len().to_string()));
    let server = start(&format!("location /p {{ proxy_pass http://127.0.0.1:{}; }}", upstream.port()));
    server.write("html/a", noise(500_000));
    let script = "
        const http2 = require('http2'), fs = require('fs');
        const [,, url, ca] = process.argv;
        const client = http2.connect(url, { ca: fs.readFileSync(ca), servername: 'example.com' });
        client.on('error', error => { console.error(error); process.exit(1); });
        const ask = (headers, body) => new Promise((resolve, reject) => {
            const request = client.request({ ':authority': 'example.com', ...headers });
            let status, length = 0, text = '';
            request.on('response', head => status = head[':status']);
            request.on('data', piece => { length += piece.length; text += piece; });
            request.on('end', () => resolve([status, length, text]));
            request.on('error', reject);
            request.end(body);
        });
        Promise.all([...Array(40)].map((_, number) => number % 2
            ? ask({ ':path': '/a' })
            : ask({ ':path': '/p', ':method': 'POST' }, Buffer.alloc(300000))
        )).then(all => {
            console.log(all.map(([status, length, text]) => length < 100 ? status + ':' + text : status + '/' + length)
                .sort().filter((x, i, a) => x !== a[i - 1]).join(' '));
            client.close();
        }).catch(error => { console.error(error); process.exit(1); });";
    let script = server.write("script.js", script);
    let authority = format!("{}/ca.pem", crate::util::tls::FIXTURES);
    for url in
        [format!("https://127.0.0.1:{}", server.port_of(2)), format!("http://127.0.0.1:{}", server.port())]
    {
        let said = run("node", &[script.to_str().expect("UTF-8"), &url, &authority], b"");
        assert_eq!(said.text().trim(), "200/500000 200:300000", "{}", said.stderr);
    }
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

#[test]
fn workers_that_a_reload_ends_say_so() {
    let conf = |count: u32| {
        format!(
            "worker_processes {count}; http {{ {} }}",
            text("location / { return 200 $pid; }").replace("{port};", "{port} reuseport;")
        )
    };
    let server = Server::start(&conf(3));
    let mut connections: Vec<H2> = (0..24).map(|_| H2::connect(server.port())).collect();
    for h2 in &mut connections {
        assert_eq!(h2.fetch("/").status, 200);
    }
    server.configure(&conf(1));
    server.reload();
    // Each is answered, or was ended in order before it was asked.
    let mut ended = 0;
    eventually("the goodbye of two workers", || {
        connections.retain_mut(|h2| {
            let id = h2.next_id();
            let sent =
                h2.client.try_send(h2::frame(HEADERS, END_STREAM | h2::END_HEADERS, id, &h2::head(&[])));
            h2.streams.insert(id, h2::Stream::default());
            while sent && !h2.is_over(id) && h2.pump() {}
            if h2.streams[&id].status == 200 && h2.goaways.is_empty() {
                return true;
            }
            assert_eq!(h2.goaways.last().map(|(_, code)| *code), Some(NO_ERROR), "{:?}", h2.goaways);
            ended += 1;
            false
        });
        ended > 0
    });
    assert!(!connections.is_empty(), "the worker that stays keeps its connections");
}

#[test]
fn python_is_served() {
    if !has("python3") {
        return;
    }
    let upstream = Upstream::http(|_, body| ok(&body.len().to_string()));
    let server = start(&format!("location /p {{ proxy_pass http://127.0.0.1:{}; }}", upstream.port()));
    server.write("html/a", noise(500_000));
    let script = "
import sys
try: import httpx
except ImportError: print('no httpx'); sys.exit()
import asyncio
name = {'sni_hostname': 'example.com'}
async def main():
    async with httpx.AsyncClient(http2=True, verify=sys.argv[2]) as client:
        asks = [client.get(sys.argv[1] + '/a', extensions=name) if n % 2 else client.post(sys.argv[1] + '/p', content=b'x' * 300000, extensions=name) for n in range(40)]
        answers = await asyncio.gather(*asks)
        print(sorted({(r.http_version, r.status_code, len(r.content) if len(r.content) > 100 else r.text) for r in answers}, key=str))
asyncio.run(main())";
    let script = server.write("script.py", script);
    let authority = format!("{}/ca.pem", crate::util::tls::FIXTURES);
    let url = format!("https://127.0.0.1:{}", server.port_of(2));
    let said = run("python3", &[script.to_str().expect("UTF-8"), &url, &authority], b"");
    if said.text().trim() == "no httpx" {
        eprintln!("skipped: no httpx");
        return;
    }
    assert_eq!(said.text().trim(), "[('HTTP/2', 200, '300000'), ('HTTP/2', 200, 500000)]", "{}", said.stderr);
}
