//! Ranges cut from what upstreams send (`proxy_force_ranges`).

use crate::util::{Server, Upstream, request};

/// A thousand bytes that tell their places, in pieces.
fn upstream() -> Upstream {
    Upstream::http(|head, _| {
        let body: Vec<u8> = (0..1000u32).map(|at| b'a' + (at % 26) as u8).collect();
        let body = if head.starts_with("HEAD") { Vec::new() } else { body };
        [&b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nETag: \"x\"\r\n\r\n"[..], &body].concat()
    })
}

fn server(upstream: &Upstream, more: &str) -> Server {
    Server::start(&format!(
        "server {{ listen {{port}}; location / {{ proxy_pass http://127.0.0.1:{}; {more} }} }}",
        upstream.port()
    ))
}

#[test]
fn one_range_is_cut_from_the_body_that_passes_by() {
    let upstream = upstream();
    let server = server(&upstream, "proxy_force_ranges on;");
    for (range, start, end) in [("bytes=0-9", 0, 10), ("bytes=500-", 500, 1000), ("bytes=-1", 999, 1000)] {
        let response = request(server.port(), "GET", "/", &[("Range", range)]);
        let expected: Vec<u8> = (start..end).map(|at: u32| b'a' + (at % 26) as u8).collect();
        assert_eq!((response.status, &response.body), (206, &expected), "{range}");
        let field = format!("bytes {start}-{}/1000", end - 1);
        assert_eq!(response.header("content-range"), Some(&field[..]));
        assert_eq!(response.header("content-length"), Some(&(end - start).to_string()[..]));
    }
    let beyond = request(server.port(), "GET", "/", &[("Range", "bytes=1000-")]);
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */1000")));
    let head = request(server.port(), "HEAD", "/", &[("Range", "bytes=0-9")]);
    assert_eq!((head.status, head.header("content-length")), (206, Some("10")));
    let stale = request(server.port(), "GET", "/", &[("Range", "bytes=0-9"), ("If-Range", "\"y\"")]);
    assert_eq!((stale.status, stale.body.len()), (200, 1000));
}

#[test]
fn several_ranges_of_it_are_parts_as_long_as_they_ascend() {
    let upstream = upstream();
    let server = server(&upstream, "proxy_force_ranges on;");
    let parts = request(server.port(), "GET", "/", &[("Range", "bytes=0-1,5-6")]);
    assert_eq!(parts.status, 206);
    let content_type = parts.header("content-type").expect("a type");
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").expect("parts");
    let part = |place: &str, text: &str| {
        format!("\r\n--{boundary}\r\nContent-Range: bytes {place}/1000\r\n\r\n{text}")
    };
    assert_eq!(parts.text(), part("0-1", "ab") + &part("5-6", "fg") + &format!("\r\n--{boundary}--\r\n"));
    let whole = request(server.port(), "GET", "/", &[("Range", "bytes=5-6,0-1")]);
    assert_eq!((whole.status, whole.body.len()), (200, 1000));
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
}

#[test]
fn without_the_directive_ranges_are_the_upstream_s_business() {
    let upstream = upstream();
    let response = request(server(&upstream, "").port(), "GET", "/", &[("Range", "bytes=0-1")]);
    assert_eq!((response.status, response.body.len(), response.header("accept-ranges")), (200, 1000, None));
}
