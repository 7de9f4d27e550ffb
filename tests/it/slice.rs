//! `slice`: responses that are asked for in slices.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::util::codings::gunzip;
use crate::util::h2::H2;
use crate::util::{Cases, Client, Server, Upstream, eventually, get, request};

/// Bytes that tell their places.
fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// What an upstream was asked for: the method, and the value of Range.
type Asked = Arc<Mutex<Vec<String>>>;

/// The value of a request's Range field as first and last byte.
fn range_of(head: &str) -> Option<(usize, usize)> {
    let value = head.lines().find_map(|line| line.strip_prefix("Range: bytes="))?;
    let (first, last) = value.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

/// A 206 with some of this content, and with the field lines `more`.
fn part(content: &[u8], first: usize, last: usize, more: &str) -> Vec<u8> {
    let last = last.min(content.len() - 1);
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {first}-{last}/{}\r\nContent-Length: {}\r\n{more}\r\n",
        content.len(),
        last + 1 - first
    );
    [head.as_bytes(), &content[first..=last]].concat()
}

/// An upstream with this content, of which it gives any range.
fn upstream(content: Vec<u8>) -> (Upstream, Asked) {
    let asked = Asked::default();
    let list = Arc::clone(&asked);
    let upstream = Upstream::http(move |head, _| {
        let (first, last) = range_of(head).expect("a range");
        list.lock().unwrap().push(format!("{first}-{last}"));
        let response = part(&content, first, last, "ETag: \"one\"\r\n");
        let end = if head.starts_with("HEAD") {
            response.len() - (last.min(content.len() - 1) + 1 - first)
        } else {
            response.len()
        };
        response[..end].to_vec()
    });
    (upstream, asked)
}

/// A server that asks this upstream for slices of this size.
fn server(port: u16, size: &str, more: &str) -> Server {
    Server::start(&format!(
        "upstream u {{ server 127.0.0.1:{port}; keepalive 4; }}
         server {{ listen {{port}}; location / {{ slice {size}; proxy_set_header Range $slice_range; proxy_http_version 1.1;
           proxy_set_header Connection ''; proxy_pass http://u; {more} }} }}"
    ))
}

fn take(asked: &Asked) -> Vec<String> {
    std::mem::take(&mut *asked.lock().unwrap())
}

#[test]
fn files_come_in_slices_as_from_nginx() {
    let text: String = ('a'..='y').collect();
    Cases::new(
        "server { listen {port}; slice 10; proxy_set_header Range $slice_range;
           location / { proxy_pass http://127.0.0.1:{port2}; }
           location /one { slice 1; proxy_pass http://127.0.0.1:{port2}/file; }
           location /off { slice 0; proxy_pass http://127.0.0.1:{port2}/file; }
           location ~ ^/re/(.*)$ { proxy_pass http://127.0.0.1:{port2}/$1; }
           location /named { error_page 418 = @named; return 418; }
           location @named { rewrite ^ /file break; proxy_pass http://127.0.0.1:{port2}; }
           location /again { rewrite ^ /file last; }
           location /hidden { proxy_hide_header ETag; proxy_pass http://127.0.0.1:{port2}/file; } }
         server { listen {port2}; root {root}/files; location /whole/ { max_ranges 0; alias {root}/files/; } }",
    )
    .file("files/file", &text)
    .file("files/exact", "01234567890123456789")
    .file("files/small", "abc")
    .file("files/slice", "0123456789")
    .file("files/empty", "")
    .show(&["content-range", "content-length", "accept-ranges"])
    .get("/file", &format!("200 {text} [content-length: 25] [accept-ranges: bytes]"))
    .get("/one", &format!("200 {text} [content-length: 25] [accept-ranges: bytes]"))
    .get("/re/file", &format!("200 {text} [content-length: 25] [accept-ranges: bytes]"))
    .get("/named", &format!("200 {text} [content-length: 25] [accept-ranges: bytes]"))
    .get("/again", &format!("200 {text} [content-length: 25] [accept-ranges: bytes]"))
    .get("/hidden", &format!("200 {text} [content-length: 25] [accept-ranges: bytes]"))
    .get("/exact", "200 01234567890123456789 [content-length: 20] [accept-ranges: bytes]")
    .get("/small", "200 abc [content-length: 3] [accept-ranges: bytes]")
    .get("/slice", "200 0123456789 [content-length: 10] [accept-ranges: bytes]")
    .get("/empty", "200 [content-length: 0] [accept-ranges: bytes]")
    .get_with("/file", "Range: bytes=3-5", "206 def [content-range: bytes 3-5/25] [content-length: 3]")
    .get_with("/file", "Range: bytes=12-14", "206 mno [content-range: bytes 12-14/25] [content-length: 3]")
    .get_with("/file", "Range: bytes=8-11", "206 ijkl [content-range: bytes 8-11/25] [content-length: 4]")
    .get_with("/file", "Range: bytes=8-21", "206 ijklmnopqrstuv [content-range: bytes 8-21/25] [content-length: 14]")
    .get_with("/file", "Range: bytes=10-19", "206 klmnopqrst [content-range: bytes 10-19/25] [content-length: 10]")
    .get_with("/file", "Range: bytes=19-20", "206 tu [content-range: bytes 19-20/25] [content-length: 2]")
    .get_with("/file", "Range: bytes=22-", "206 wxy [content-range: bytes 22-24/25] [content-length: 3]")
    .get_with("/file", "Range: bytes=24-99", "206 y [content-range: bytes 24-24/25] [content-length: 1]")
    .get_with("/file", "Range: bytes=-3", "206 wxy [content-range: bytes 22-24/25] [content-length: 3]")
    .get_with("/file", "Range: bytes=-8", "206 rstuvwxy [content-range: bytes 17-24/25] [content-length: 8]")
    .get_with("/file", "Range: bytes=-99", &format!("206 {text} [content-range: bytes 0-24/25] [content-length: 25]"))
    .get_with("/file", "Range: bytes=0-", &format!("206 {text} [content-range: bytes 0-24/25] [content-length: 25]"))
    .get_with("/one", "Range: bytes=3-6", "206 defg [content-range: bytes 3-6/25] [content-length: 4]")
    .get_with("/file", "Range: bytes=0-1,5-6", &format!("200 {text} [content-length: 25] [accept-ranges: bytes]"))
    .get_with("/file", "Range: lines=3-5", &format!("200 {text} [content-length: 25] [accept-ranges: bytes]"))
    .get_with("/file", "If-Range: \"no\"|Range: bytes=12-14", &format!("200 {text} [content-length: 25] [accept-ranges: bytes]"))
    .get_with("/whole/file", "Range: bytes=3-5", &format!("200 {text} [content-length: 25]"))
    .get("/whole/file", &format!("200 {text} [content-length: 25]"))
    .request(
        "HEAD /file HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        "200 [content-length: 25] [accept-ranges: bytes]",
    )
    .request(
        "HEAD /file HTTP/1.1\r\nHost: localhost\r\nRange: bytes=12-21\r\nConnection: close\r\n\r\n",
        "206 [content-range: bytes 12-21/25] [content-length: 10]",
    )
    .check();
}

#[test]
fn ranges_that_a_file_does_not_have_are_refused_as_by_nginx() {
    Cases::new(
        "server { listen {port}; slice 10; proxy_set_header Range $slice_range; location / { proxy_pass http://127.0.0.1:{port2}; } }
         server { listen {port2}; root {root}; }",
    )
    .file("file", "abcdefghijklmnopqrstuvwxy")
    .show(&["content-range"])
    .ignore_bodies()
    .ignore("content-length")
    .get_with("/file", "Range: bytes=25-", "416 [content-range: bytes */25]")
    .get_with("/file", "Range: bytes=100-", "416 [content-range: bytes */25]")
    .get_with("/file", "Range: bytes=12-11", "416 [content-range: bytes */25]")
    .get_with("/file", "Range: bytes=12-x", "416 [content-range: bytes */25]")
    .get("/none", "404")
    .check();
}

#[test]
fn each_slice_is_asked_for_once_in_order_and_none_beyond_the_range() {
    let whole = content(1050);
    let (upstream, asked) = upstream(whole.clone());
    let server = server(upstream.port(), "100", "");
    assert_eq!(get(server.port(), "/").body, whole);
    let all: Vec<String> = (0..11).map(|at| format!("{}-{}", at * 100, at * 100 + 99)).collect();
    assert_eq!(take(&asked), all);
    for (range, body, expected) in [
        ("bytes=250-260", 250..261, &["200-299"][..]),
        ("bytes=250-299", 250..300, &["200-299"]),
        ("bytes=250-300", 250..301, &["200-299", "300-399"]),
        ("bytes=900-", 900..1050, &["900-999", "1000-1099"]),
        ("bytes=-10", 1040..1050, &["0-99", "1000-1099"]),
        ("bytes=-60", 990..1050, &["0-99", "900-999", "1000-1099"]),
    ] {
        let response = request(server.port(), "GET", "/", &[("Range", range)]);
        assert_eq!((response.status, &response.body[..]), (206, &whole[body]), "{range}");
        assert_eq!(take(&asked), expected, "{range}");
    }
    let head = request(server.port(), "HEAD", "/", &[]);
    assert_eq!((head.status, head.header("content-length")), (200, Some("1050")));
    assert_eq!(take(&asked), ["0-99"]);
    // Refused by the length alone.
    let beyond = request(server.port(), "GET", "/", &[("Range", "bytes=260-250")]);
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */1050")));
    assert_eq!(take(&asked), ["200-299"]);
}

#[test]
fn where_the_range_is_not_honoured_the_whole_begins_at_its_beginning() {
    let whole = content(250);
    let (upstream, asked) = upstream(whole.clone());
    let server = server(upstream.port(), "100", "max_ranges 0;");
    let response = request(server.port(), "GET", "/", &[("Range", "bytes=150-160")]);
    assert_eq!((response.status, response.body), (200, whole));
    assert_eq!(take(&asked), ["100-199", "0-99", "100-199", "200-299"]);
}

#[test]
fn a_connection_to_the_upstream_and_one_to_the_client_serve_many_slices() {
    let whole = content(3_000_000);
    let (upstream, asked) = upstream(whole.clone());
    let server = server(upstream.port(), "256k", "");
    let mut client = Client::connect(server.port());
    for _ in 0..2 {
        client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(client.read_response().body == whole);
        client.send("GET /a HTTP/1.1\r\nHost: a\r\nRange: bytes=262100-262200\r\n\r\n");
        let response = client.read_response();
        assert_eq!((response.status, &response.body[..]), (206, &whole[262_100..=262_200]));
    }
    assert_eq!(take(&asked).len(), 2 * (12 + 2));
    assert_eq!(upstream.accepted(), 1);
}

#[test]
fn filters_see_one_body() {
    let whole: Vec<u8> = b"<one two three> ".repeat(200);
    let text = String::from_utf8(whole).unwrap();
    let (included, around) = (text.replace("one", "|"), format!("|{text}|"));
    let plain = text.clone();
    let typed = Upstream::http(move |head, _| {
        let (first, last) = range_of(head).expect("a range");
        part(text.as_bytes(), first, last, "Content-Type: text/html\r\n")
    });
    let server = Server::start(&format!(
        "server {{ listen {{port}}; slice 100; proxy_set_header Range $slice_range;
           location / {{ add_before_body /before; add_after_body /before; proxy_pass http://127.0.0.1:{port}/; }}
           location /ssi {{ ssi on; sub_filter one '<!--#include virtual=\"/before\" -->'; sub_filter_once off;
             proxy_pass http://127.0.0.1:{port}/; }}
           location /gzip {{ gzip on; gunzip on; proxy_pass http://127.0.0.1:{port}/; }}
           location /before {{ slice 0; return 200 '|'; }} }}",
        port = typed.port()
    ));
    assert_eq!(get(server.port(), "/").text(), around);
    assert_eq!(get(server.port(), "/ssi").text(), included);
    let range = request(server.port(), "GET", "/ssi", &[("Range", "bytes=150-160")]);
    assert_eq!((range.status, range.text()), (200, included));
    let zipped =
        request(server.port(), "GET", "/gzip", &[("Accept-Encoding", "gzip"), ("Range", "bytes=150-160")]);
    assert_eq!((zipped.status, zipped.header("content-encoding")), (200, Some("gzip")));
    assert_eq!(gunzip(&zipped.body), plain.as_bytes());
}

#[test]
fn what_is_no_slice_is_a_bad_gateway_at_first_and_cuts_the_response_later() {
    let whole = content(250);
    let good = whole.clone();
    let upstream = Upstream::http(move |head, _| {
        let (first, last) = range_of(head).expect("a range");
        let path = head.split(' ').nth(1).unwrap();
        let is_due = match path.strip_prefix("/first") {
            Some(_) => first == 0,
            None => first == 100,
        };
        let etag = "ETag: \"one\"\r\n";
        match path.trim_start_matches("/first").trim_start_matches("/later") {
            _ if !is_due => part(&good, first, last, etag),
            "/shifted" => part(&good, first + 1, last, etag),
            "/shorter" => part(&good, first, last - 1, etag),
            "/etag" => part(&good, first, last, "ETag: \"two\"\r\n"),
            "/untagged" => part(&good, first, last, ""),
            "/whole" => [&b"HTTP/1.1 200 OK\r\nContent-Length: 250\r\n\r\n"[..], &good].concat(),
            "/error" => b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy".to_vec(),
            "/moved" => b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n".to_vec(),
            "/unknown" => {
                format!("HTTP/1.1 206 P\r\nContent-Range: bytes 0-99/*\r\n{etag}Content-Length: 0\r\n\r\n")
                    .into_bytes()
            }
            "/missing" => format!("HTTP/1.1 206 P\r\n{etag}Content-Length: 0\r\n\r\n").into_bytes(),
            "/chunked" => {
                let range = format!("bytes {first}-{last}/250");
                format!("HTTP/1.1 206 P\r\nContent-Range: {range}\r\n{etag}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
                    .into_bytes()
            }
            "/surplus" => {
                let range = format!("bytes {first}-{last}/250");
                let body = "x".repeat(0x65);
                format!("HTTP/1.1 206 P\r\nContent-Range: {range}\r\n{etag}Transfer-Encoding: chunked\r\n\r\n65\r\n{body}\r\n0\r\n\r\n")
                    .into_bytes()
            }
            "/broken" => part(&good, first, last, etag)[..150].to_vec(),
            other => panic!("{other}"),
        }
    });
    let server = Server::start(&format!(
        "server {{ listen {{port}}; slice 100; proxy_set_header Range $slice_range; proxy_read_timeout 1s;
           location / {{ proxy_http_version 1.1; proxy_pass http://127.0.0.1:{port}; }}
           location /page/ {{ error_page 502 503 = /instead; proxy_pass http://127.0.0.1:{port}/; }}
           location /instead {{ return 206 instead; }} }}",
        port = upstream.port()
    ));
    let at_first = [
        ("/shifted", "unexpected range in slice response: 1-100"),
        ("/shorter", "unexpected range in slice response: 0-99"),
        ("/unknown", "no complete length in slice response"),
        ("/missing", "invalid range in slice response"),
    ];
    for (path, told) in at_first {
        assert_eq!(get(server.port(), &format!("/first{path}")).status, 502, "{path}");
        eventually(told, || server.error_log().contains(told));
    }
    for (path, status) in [("/error", 503), ("/moved", 302), ("/whole", 200)] {
        assert_eq!(get(server.port(), &format!("/first{path}")).status, status, "{path}");
    }
    assert_eq!(get(server.port(), "/page/first/shifted").text(), "instead");
    let later = [
        ("/later/shifted", "unexpected range in slice response: 101-200"),
        ("/later/shorter", "unexpected range in slice response: 100-199"),
        ("/later/etag", "etag mismatch in slice response"),
        ("/later/untagged", "etag mismatch in slice response"),
        ("/later/whole", "unexpected status code 200 in slice response"),
        ("/later/error", "unexpected status code 503 in slice response"),
        ("/later/moved", "unexpected status code 302 in slice response"),
        ("/later/unknown", "no complete length in slice response"),
        ("/later/missing", "invalid range in slice response"),
        ("/later/chunked", "a slice is shorter than was announced"),
        ("/later/surplus", "a slice is longer than was announced"),
        ("/first/chunked", "a slice is shorter than was announced"),
        ("/first/surplus", "a slice is longer than was announced"),
        ("/later/broken", "upstream timed out"),
        ("/page/later/error", "invalid range in slice response"),
    ];
    for (path, told) in later {
        let mut client = Client::connect(server.port());
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let bytes = client.read_to_end();
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("Content-Length: 250"),
            "{path}: {text}"
        );
        let body = bytes.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
        let body = &bytes[body..];
        assert!(body.len() < 250, "{path}");
        if path.contains("/later") {
            assert!(body.starts_with(&whole[..100]), "{path}");
        }
        eventually(told, || server.error_log().contains(told));
    }
}

#[test]
fn an_upstream_that_fails_between_two_slices_cuts_the_response() {
    let whole = content(250);
    let count = AtomicUsize::new(0);
    let upstream = Upstream::start(move |mut peer| {
        let Some((head, _)) = peer.read_request() else { return };
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            let (first, last) = range_of(&head).unwrap();
            peer.send(part(&whole, first, last, "Connection: close\r\n"));
        }
    });
    let server = server(upstream.port(), "100", "");
    let mut client = Client::connect(server.port());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let bytes = client.read_to_end();
    assert!(bytes.ends_with(&content(100)[90..]));
    let told = "unexpected status code 502 in slice response";
    eventually(told, || server.error_log().contains(told));
}

#[test]
fn over_http2_slices_make_one_response_and_a_cut_one_is_reset() {
    let whole = content(400_000);
    let (good, asked) = upstream(whole.clone());
    let bad_content = whole.clone();
    let bad = Upstream::http(move |head, _| {
        let (first, last) = range_of(head).expect("a range");
        let etag = if first < 100_000 { "ETag: \"one\"\r\n" } else { "ETag: \"two\"\r\n" };
        part(&bad_content, first, last, etag)
    });
    let server = Server::start(&format!(
        "server {{ listen {{port}}; http2 on; slice 64k; proxy_set_header Range $slice_range;
           location / {{ proxy_pass http://127.0.0.1:{}; }} location /bad {{ proxy_pass http://127.0.0.1:{}; }} }}",
        good.port(),
        bad.port()
    ));
    let mut client = H2::connect(server.port());
    let stream = client.fetch("/");
    assert_eq!(stream.status, 200);
    assert!(stream.body == whole);
    assert_eq!(take(&asked).len(), 7);
    let id = client.open(
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "a"),
            ("range", "bytes=65000-66000"),
        ],
        true,
    );
    let stream = client.wait(id);
    assert_eq!((stream.status, &stream.body[..]), (206, &whole[65_000..=66_000]));
    let stream = client.fetch("/bad");
    assert_eq!(stream.status, 200);
    assert!(stream.reset.is_some() && stream.body.len() < whole.len());
}

#[test]
fn a_client_that_leaves_ends_the_slices() {
    let whole = content(2_000_000);
    let (upstream, asked) = upstream(whole);
    let server = server(
        upstream.port(),
        "100k",
        "proxy_buffers 4 4k; proxy_buffer_size 4k; proxy_max_temp_file_size 0;",
    );
    let mut client = Client::connect(server.port());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.read_exactly(150_000);
    client.reset();
    eventually("a line", || server.access_log().contains("GET / "));
    let before = asked.lock().unwrap().len();
    assert!(before < 20, "{before}");
    assert_eq!(get(server.port(), "/").body.len(), 2_000_000);
    assert_eq!(asked.lock().unwrap().len(), before + 20);
}

#[test]
fn the_variable_has_a_value_where_slices_are_on() {
    let server = Server::start(
        "slice 1k; server { listen {port}; location / { return 200 [$slice_range]; }
           location /off { slice 0; return 200 [$slice_range]; } location /in { slice 2k; return 200 [$slice_range]; } }",
    );
    assert_eq!(get(server.port(), "/").text(), "[bytes=0-1023]");
    assert_eq!(get(server.port(), "/off").text(), "[]");
    let range = [("Range", "bytes=5000-")];
    assert_eq!(request(server.port(), "GET", "/in", &range).text(), "[bytes=4096-6143]");
}
