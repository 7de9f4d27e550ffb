//! Filters over HTTP/2: what a client decodes is what it would over HTTP/1.

use std::collections::BTreeMap;

use crate::util::codings::{decoded, decoded_from, gzip};
use crate::util::h2::H2;
use crate::util::{Client, Server, Upstream, request};

/// Text that compresses, of about so many bytes.
fn text_of(bytes: usize) -> Vec<u8> {
    let line = |number: u64| {
        format!("<p>line {number} of one text, {}</p>\n", number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40)
    };
    let mut text = Vec::new();
    for number in 0.. {
        if text.len() >= bytes {
            break;
        }
        text.extend_from_slice(line(number).as_bytes());
    }
    text
}

fn upstream() -> Upstream {
    Upstream::http(|head, _| {
        let path = head.split([' ', '?']).nth(1).unwrap_or_default();
        let (mut body, mut fields) = (text_of(200_000), String::new());
        match path {
            "/packed" => {
                body = gzip(&body);
                fields.push_str("Content-Encoding: gzip\r\n");
            }
            "/page" => {
                body = [
                    b"<<!--#include virtual=\"/part\" -->".to_vec(),
                    body,
                    b"<!--#include virtual=\"/sized/\" -->>".to_vec(),
                ]
                .concat()
            }
            "/part" => body = b"(part)".to_vec(),
            _ => {}
        }
        if head.starts_with("HEAD ") {
            body.clear();
        }
        [format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nETag: \"u\"\r\n{fields}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat()
    })
}

fn server(upstream: &Upstream) -> Server {
    let at = format!("http://127.0.0.1:{}", upstream.port());
    let server = Server::start(&format!(
        "types {{ text/html html; application/octet-stream bin; }} default_type text/html; gzip_vary on;
         charset_map koi8-r utf-8 {{ 6C C3A4; }}
         server {{ listen {{port}}; http2 on; root {{root}}/html;
         location /gzip/ {{ alias {{root}}/html/; gzip on; }}
         location /brotli/ {{ alias {{root}}/html/; brotli on; }}
         location /zstd/ {{ alias {{root}}/html/; zstd on; }}
         location /sub/ {{ alias {{root}}/html/; sub_filter one '<ONE>'; sub_filter_once off; }}
         location /charset/ {{ alias {{root}}/html/; charset utf-8; source_charset koi8-r; }}
         location /added/ {{ alias {{root}}/html/; add_before_body /part; add_after_body /part; gzip on; }}
         location /ssi/ {{ proxy_pass {at}/; ssi on; ssi_last_modified on; }}
         location /all/ {{ proxy_pass {at}/; ssi on; sub_filter one 1; gzip on; brotli on; }}
         location /gunzip/ {{ proxy_pass {at}/; gunzip on; }}
         location /ranges/ {{ proxy_pass {at}/; proxy_force_ranges on; }}
         location /part {{ proxy_pass {at}; }} location /sized/ {{ proxy_pass {at}/; }} }}"
    ));
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(100);
    server.write_at("html/small.html", text_of(2000), old);
    server.write_at("html/big.html", text_of(500_000), old);
    server
}

/// What is compared of an answer; the boundary of parts is another each time.
fn shown(status: u16, fields: &[(String, String)], body: &[u8]) -> (BTreeMap<String, String>, Vec<u8>) {
    let mut map: BTreeMap<String, String> = fields
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .filter(|(name, _)| !["date", "connection", "transfer-encoding", "keep-alive"].contains(&&name[..]))
        .collect();
    // A compressed form has a length once it is kept.
    if map.contains_key("content-encoding") {
        map.remove("content-length");
    }
    let mut body = body.to_vec();
    if let Some(content_type) = map.get_mut("content-type")
        && let Some((kind, boundary)) = content_type.clone().split_once("boundary=")
    {
        body = String::from_utf8(body).expect("text").replace(boundary, "-").into_bytes();
        *content_type = kind.to_owned();
    }
    map.insert(":status".to_owned(), status.to_string());
    (map, body)
}

/// Asks over both versions; gives what HTTP/2's client has decoded.
fn same(
    server: &Server,
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
) -> (BTreeMap<String, String>, Vec<u8>) {
    let first = request(server.port(), method, path, fields);
    let body = if method == "HEAD" { Vec::new() } else { decoded(&first) };
    let first = shown(first.status, &first.headers, &body);
    let mut h2 = H2::connect(server.port());
    let mut head = vec![(":method", method), (":path", path)];
    head.extend_from_slice(fields);
    let id = h2.open(&head, true);
    let second = h2.wait(id);
    assert_eq!((second.reset, second.ended), (None, true), "{path}");
    let body = if method == "HEAD" {
        Vec::new()
    } else {
        decoded_from(&second.body, second.header("content-encoding"))
    };
    let second = shown(second.status, &second.fields, &body);
    assert_eq!(first.0, second.0, "{method} {path} {fields:?}");
    assert!(
        first.1 == second.1,
        "{method} {path} {fields:?}: {} and {} bytes",
        first.1.len(),
        second.1.len()
    );
    second
}

#[test]
fn bodies_and_heads_are_those_of_http1() {
    let upstream = upstream();
    let server = server(&upstream);
    let accept = [("accept-encoding", "gzip, br, zstd")];
    for (folder, coding) in [("gzip", "gzip"), ("brotli", "br"), ("zstd", "zstd")] {
        for (name, length) in [("small", 2000), ("big", 500_000)] {
            let path = format!("/{folder}/{name}.html");
            let (fields, body) = same(&server, "GET", &path, &accept);
            assert_eq!(fields.get("content-encoding").map(String::as_str), Some(coding));
            assert!(body == text_of(length), "{path}");
            same(&server, "HEAD", &path, &accept);
            same(&server, "GET", &path, &[]);
        }
    }
    for name in ["small", "big"] {
        let length = if name == "small" { 2000 } else { 500_000 };
        let text = String::from_utf8(text_of(length)).unwrap();
        let (_, body) = same(&server, "GET", &format!("/sub/{name}.html"), &accept);
        assert!(body == text.replace("one", "<ONE>").into_bytes());
        let (_, body) = same(&server, "GET", &format!("/charset/{name}.html"), &accept);
        assert!(body == text.replace('l', "ä").into_bytes());
        let (_, body) = same(&server, "GET", &format!("/added/{name}.html"), &accept);
        assert!(body == format!("(part){text}(part)").into_bytes());
    }
    let text = String::from_utf8(text_of(200_000)).unwrap();
    let page = format!("<(part){text}{text}>");
    for coding in ["gzip", "br", "identity"] {
        assert!(same(&server, "GET", "/ssi/page", &[("accept-encoding", coding)]).1 == page.as_bytes());
        let rewritten = format!("<(part){}{text}>", text.replacen("one", "1", 1));
        assert!(same(&server, "GET", "/all/page", &[("accept-encoding", coding)]).1 == rewritten.as_bytes());
        assert!(same(&server, "GET", "/gunzip/packed", &[("accept-encoding", coding)]).1 == text.as_bytes());
        same(&server, "HEAD", "/gunzip/packed", &[("accept-encoding", coding)]);
    }
}

#[test]
fn ranges_of_bodies_that_pass_by_are_those_of_http1() {
    let upstream = upstream();
    let server = server(&upstream);
    let text = text_of(200_000);
    let ranges = |range: &'static str| same(&server, "GET", "/ranges/x", &[("range", range)]);
    let (fields, body) = ranges("bytes=100000-150000");
    assert_eq!(fields[":status"], "206");
    assert!(body == text[100_000..=150_000]);
    let (fields, body) = ranges("bytes=0-9,100000-100009");
    assert!(fields["content-type"].starts_with("multipart/byteranges"));
    assert!(body.windows(10).any(|ten| ten == &text[100_000..100_010]));
    assert_eq!(ranges("bytes=900000-").0[":status"], "416");
    assert!(ranges("bytes=5-6,0-1").1 == text);
    same(&server, "HEAD", "/ranges/x", &[("range", "bytes=0-9")]);
    // Compressed, there are none.
    let (fields, body) =
        same(&server, "GET", "/gzip/big.html", &[("range", "bytes=0-9"), ("accept-encoding", "gzip")]);
    assert_eq!((&fields[":status"][..], body.len()), ("200", text_of(500_000).len()));
    let (fields, body) = same(&server, "GET", "/gzip/big.html", &[("range", "bytes=0-9,20-29")]);
    assert_eq!(fields[":status"], "206");
    assert!(body.windows(10).any(|ten| ten == &text_of(100)[20..30]));
}

#[test]
fn many_filtered_streams_of_one_connection_come_whole_while_windows_are_small() {
    let upstream = upstream();
    let server = server(&upstream);
    let mut h2 = H2::over(Client::connect(server.port()), &[(4, 5000)]);
    let paths = [
        "/gzip/big.html",
        "/brotli/big.html",
        "/all/page",
        "/ssi/page",
        "/added/big.html",
        "/gunzip/packed",
        "/sub/big.html",
    ];
    let ids: Vec<u32> =
        paths.iter().map(|path| h2.open(&[(":path", path), ("accept-encoding", "gzip, br")], true)).collect();
    for (id, path) in ids.into_iter().zip(paths) {
        let stream = h2.wait(id);
        let expected = decoded(&request(server.port(), "GET", path, &[("accept-encoding", "gzip, br")]));
        assert!(decoded_from(&stream.body, stream.header("content-encoding")) == expected, "{path}");
    }
}
