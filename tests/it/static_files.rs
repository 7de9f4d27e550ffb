//! Files: conditional requests, ranges, types, caches of open files, and what must never be sent.

use crate::util::{Cases, Client, Parity, Server, Signal, eventually, get, request, subject_is_ours};
use std::os::unix::fs::{FileExt, symlink};
use std::time::{Duration, SystemTime};

mod changes;
mod paths;
mod ranges;

const SITE: &str = "server { listen {port}; root {root}/html; }";
/// The ETag of a file of ten bytes with the harness's modification time.
const ETAG: &str = "\"65937d25-a\"";
const MODIFIED: &str = "Tue, 02 Jan 2024 03:04:05 GMT";

fn ten() -> Cases {
    Cases::new(SITE).file("html/f.txt", "0123456789").ignore("keep-alive")
}

#[test]
fn a_file_comes_with_its_validators_and_accept_ranges() {
    ten()
        .show(&["etag", "last-modified", "accept-ranges", "content-length", "content-type"])
        .get(
            "/f.txt",
            &format!(
                "200 0123456789 [etag: {ETAG}] [last-modified: {MODIFIED}] [accept-ranges: bytes] \
                 [content-length: 10] [content-type: text/plain]"
            ),
        )
        .request(
            "HEAD /f.txt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            &format!(
                "200 [etag: {ETAG}] [last-modified: {MODIFIED}] [accept-ranges: bytes] \
                 [content-length: 10] [content-type: text/plain]"
            ),
        )
        .check();
}

#[test]
fn etag_off_leaves_it_out() {
    Cases::new("server { listen {port}; root {root}/html; etag off; }")
        .show(&["etag", "last-modified"])
        .file("html/f", "0123456789")
        .get("/f", &format!("200 0123456789 [last-modified: {MODIFIED}]"))
        .get_with(
            "/f",
            &format!("If-None-Match: {ETAG}"),
            &format!("200 0123456789 [last-modified: {MODIFIED}]"),
        )
        .check();
}

#[test]
fn if_none_match_and_if_match() {
    let body = "200 0123456789";
    ten()
        .get_with("/f.txt", &format!("If-None-Match: {ETAG}"), "304")
        .get_with("/f.txt", &format!("If-None-Match: W/{ETAG}"), "304")
        .get_with("/f.txt", &format!("If-None-Match: \"a\", \"b\" , {ETAG}"), "304")
        .get_with("/f.txt", "If-None-Match: *", "304")
        .get_with("/f.txt", "If-None-Match: \"other\"", body)
        .get_with("/f.txt", "If-None-Match: 65937d25-a", body)
        .get_with("/f.txt", &format!("If-Match: {ETAG}"), body)
        .get_with("/f.txt", "If-Match: *", body)
        .get_with("/f.txt", "If-Match: \"other\"", "412")
        .get_with("/f.txt", &format!("If-Match: W/{ETAG}"), "412")
        .get_with("/f.txt", &format!("If-Match: \"x\",{ETAG}"), body)
        .get_with("/none", "If-None-Match: *", "404")
        .check();
}

#[test]
fn if_modified_since_and_if_unmodified_since() {
    let body = "200 0123456789";
    ten()
        .get_with("/f.txt", &format!("If-Modified-Since: {MODIFIED}"), "304")
        .get_with("/f.txt", "If-Modified-Since: Tue, 02 Jan 2024 03:04:06 GMT", body)
        .get_with("/f.txt", "If-Modified-Since: Tue, 02 Jan 2024 03:04:04 GMT", body)
        .get_with("/f.txt", "If-Modified-Since: Tuesday, 02-Jan-24 03:04:05 GMT", "304")
        .get_with("/f.txt", "If-Modified-Since: Tue Jan  2 03:04:05 2024", "304")
        .get_with("/f.txt", "If-Modified-Since: nonsense", body)
        .get_with("/f.txt", &format!("If-Unmodified-Since: {MODIFIED}"), body)
        .get_with("/f.txt", "If-Unmodified-Since: Tue, 02 Jan 2024 03:04:04 GMT", "412")
        .get_with("/f.txt", "If-Unmodified-Since: Tue, 02 Jan 2024 03:04:06 GMT", body)
        .get_with("/f.txt", &format!("If-None-Match: \"x\"|If-Modified-Since: {MODIFIED}"), body)
        .get_with("/f.txt", &format!("If-None-Match: {ETAG}|If-Modified-Since: {MODIFIED}"), "304")
        .get_with(
            "/f.txt",
            &format!("If-Match: {ETAG}|If-Unmodified-Since: Tue, 02 Jan 2024 03:04:04 GMT"),
            "412",
        )
        .check();
}

#[test]
fn the_if_modified_since_directive_chooses_how() {
    let earlier = "If-Modified-Since: Mon, 01 Jan 2024 00:00:00 GMT";
    let later = "If-Modified-Since: Wed, 03 Jan 2024 00:00:00 GMT";
    let exact = &format!("If-Modified-Since: {MODIFIED}");
    Cases::new(
        "server { listen {port}; root {root}/html;
            location /exact { if_modified_since exact; }
            location /before { if_modified_since before; }
            location /off { if_modified_since off; } }",
    )
    .file("html/exact", "e")
    .file("html/before", "b")
    .file("html/off", "o")
    .get_with("/exact", earlier, "200 e")
    .get_with("/exact", exact, "304")
    .get_with("/exact", later, "200 e")
    .get_with("/before", earlier, "200 b")
    .get_with("/before", exact, "304")
    .get_with("/before", later, "304")
    .get_with("/off", exact, "200 o")
    .check();
}

#[test]
fn types_and_default_type() {
    Cases::new(
        "server { listen {port}; root {root}/html; default_type a/default;
            types { text/own own OWN2; application/x-two two; }
            location /inner/ { types { text/inner in; } }
            location /none/ { types { } default_type x/y; }
            location /empty/ { types { } default_type ''; } }",
    )
    .show(&["content-type"])
    .file("html/a.own", "")
    .file("html/a.OWN2", "")
    .file("html/a.two", "")
    .file("html/a.b.own", "")
    .file("html/own", "")
    .file("html/a.", "")
    .file("html/dir.own/file", "")
    .file("html/inner/a.in", "")
    .file("html/none/a.own", "")
    .file("html/empty/a.own", "")
    .get("/a.own", "200 [content-type: text/own]")
    .get("/a.OWN2", "200 [content-type: text/own]")
    .get("/a.two", "200 [content-type: application/x-two]")
    .get("/a.b.own", "200 [content-type: text/own]")
    .get("/own", "200 [content-type: a/default]")
    .get("/a.", "200 [content-type: a/default]")
    .get("/dir.own/file", "200 [content-type: a/default]")
    .get("/inner/a.in", "200 [content-type: text/inner]")
    .get("/none/a.own", "200 [content-type: x/y]")
    .get("/empty/a.own", "200")
    .check();
}

#[test]
fn without_types_nginx_s_three_hold() {
    Cases::new(SITE)
        .show(&["content-type"])
        .file("html/a.html", "")
        .file("html/a.HTML", "")
        .file("html/a.gif", "")
        .file("html/a.jpg", "")
        .file("html/a.unknown", "")
        .get("/a.html", "200 [content-type: text/html]")
        .get("/a.HTML", "200 [content-type: text/html]")
        .get("/a.gif", "200 [content-type: image/gif]")
        .get("/a.jpg", "200 [content-type: image/jpeg]")
        .get("/a.unknown", "200 [content-type: text/plain]")
        .check();
}

#[test]
fn names_that_the_configuration_does_not_mention_have_current_types() {
    let mut server = Server::builder(
        "server { listen {port}; root {root}/html; types { text/html html; text/css css; text/own js; } default_type application/octet-stream; }",
    );
    let wanted = [
        ("a.mjs", "text/javascript"),
        ("a.js", "text/own"),
        ("a.wasm", "application/wasm"),
        ("a.avif", "image/avif"),
        ("a.webp", "image/webp"),
        ("a.webmanifest", "application/manifest+json"),
        ("a.json", "application/json"),
        ("a.svg", "image/svg+xml"),
        ("a.woff2", "font/woff2"),
        ("a.css", "text/css"),
        ("a.mp4", "video/mp4"),
        ("a.pdf", "application/pdf"),
        ("a.nothing-known", "application/octet-stream"),
    ];
    for (name, _) in wanted {
        server = server.file(&format!("html/{name}"), "");
    }
    if !subject_is_ours() {
        return;
    }
    let server = server.start();
    for (name, kind) in wanted {
        let found = get(server.port(), &format!("/{name}"));
        assert_eq!(found.header("content-type"), Some(kind), "{name}");
    }
}

#[test]
fn charset_is_not_ours_to_add() {
    ten().show(&["content-type"]).get("/f.txt", "200 0123456789 [content-type: text/plain]").check();
}

#[test]
fn log_not_found_decides_about_the_error_log() {
    let server =
        Server::start("server { listen {port}; root {root}/html; location /quiet { log_not_found off; } }");
    assert_eq!(get(server.port(), "/quiet/x").status, 404);
    assert_eq!(get(server.port(), "/loud").status, 404);
    eventually("the loud one", || {
        server.error_log().contains("/html/loud\" failed (2: No such file or directory)")
    });
    assert!(!server.error_log().contains("/quiet/x"), "{}", server.error_log());
}

#[test]
fn other_methods_than_get_and_head_are_not_for_files() {
    let mut cases = ten().show(&["allow"]);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND"] {
        cases = cases.request(
            format!("{method} /f.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
            "405",
        );
    }
    cases.check();
}

#[test]
fn large_files_and_their_ranges_beyond_four_gigabytes_of_addresses() {
    const LENGTH: u64 = 5 << 30;
    let server = Server::start(SITE);
    let path = server.write("html/sparse", "");
    let file = std::fs::File::options().write(true).open(path).expect("open");
    file.set_len(LENGTH).expect("length");
    file.write_at(b"middle", 3 << 30).expect("write");
    file.write_at(b"end", LENGTH - 3).expect("write");
    let head = request(server.port(), "HEAD", "/sparse", &[]);
    assert_eq!(head.header("content-length"), Some("5368709120"));
    let range = |range: &str| {
        let response = request(server.port(), "GET", "/sparse", &[("Range", range)]);
        (response.status, response.header("content-range").map(str::to_owned), response.text())
    };
    assert_eq!(
        range("bytes=3221225472-3221225477"),
        (206, Some("bytes 3221225472-3221225477/5368709120".to_owned()), "middle".to_owned())
    );
    assert_eq!(
        range("bytes=-3"),
        (206, Some("bytes 5368709117-5368709119/5368709120".to_owned()), "end".to_owned())
    );
    let parts = request(server.port(), "GET", "/sparse", &[("Range", "bytes=3221225472-3221225477,-3")]);
    assert_eq!(parts.status, 206);
    assert!(parts.text().contains("\r\n\r\nmiddle\r\n--") && parts.text().contains("\r\n\r\nend\r\n--"));
    // The beginning of the whole: it flows.
    let mut client = Client::connect(server.port());
    client.send("GET /sparse HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_exactly(50 << 20).len(), 50 << 20);
}

#[test]
fn every_way_of_sending_gives_the_same_bytes() {
    let content: Vec<u8> =
        (0..3_000_001u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let server = Server::builder(
        "server { listen {port};
            location /sendfile/ { alias {root}/html/; sendfile on; }
            location /chunked/ { alias {root}/html/; sendfile on; sendfile_max_chunk 64k; tcp_nopush on; }
            location /read/ { alias {root}/html/; sendfile off; output_buffers 2 8k; }
            location /direct/ { alias {root}/html/; directio 1m; directio_alignment 512; }
            location /threads/ { alias {root}/html/; aio threads; sendfile on; }
            location /threads-read/ { alias {root}/html/; aio threads; sendfile off; read_ahead 1m; }
            location /limited/ { alias {root}/html/; limit_rate 100m; limit_rate_after 1m; } }",
    )
    .file("html/f", &content)
    .file("html/small", "small")
    .start();
    for way in ["sendfile", "chunked", "read", "direct", "threads", "threads-read", "limited"] {
        for _ in 0..2 {
            let response = get(server.port(), &format!("/{way}/f"));
            assert!(response.body == content, "{way}: {} bytes", response.body.len());
        }
        let part = request(server.port(), "GET", &format!("/{way}/f"), &[("Range", "bytes=1000001-2000000")]);
        assert!(part.body == content[1_000_001..=2_000_000], "{way}: {} bytes", part.body.len());
        assert_eq!(get(server.port(), &format!("/{way}/small")).text(), "small", "{way}");
    }
}

#[test]
fn many_slow_readers_of_a_large_file_do_not_keep_others_waiting() {
    const LENGTH: u64 = 200 << 20;
    let server = Server::builder("worker_rlimit_nofile 4096; events { worker_connections 2000; } http { server { listen {port}; root {root}/html; } }")
        .file("html/small", "small")
        .start();
    let path = server.write("html/big", "");
    std::fs::File::options().write(true).open(path).expect("open").set_len(LENGTH).expect("length");
    let mut slow: Vec<Client> = Vec::new();
    for _ in 0..500 {
        let mut client = Client::connect(server.port());
        client.send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
        slow.push(client);
    }
    for client in slow.iter_mut().step_by(10) {
        assert!(client.read_exactly(16).starts_with(b"HTTP/1.1 200 OK"));
    }
    let mut times = Vec::new();
    let mut client = Client::connect(server.port());
    for round in 0..50 {
        for reader in slow.iter_mut().skip(round).step_by(50) {
            reader.read_some();
        }
        let started = std::time::Instant::now();
        client.send("GET /small HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_response().text(), "small");
        times.push(started.elapsed());
    }
    times.sort();
    println!("a small file beside 500 slow readers: median {:?}, longest {:?}", times[25], times[49]);
    assert!(times[25] < Duration::from_secs(5));
}

#[test]
fn small_files_of_many_names_are_all_right_with_any_cache() {
    let mut builder =
        Server::builder("open_file_cache max=16 inactive=20s; server { listen {port}; root {root}/html; }");
    for number in 0..200 {
        builder = builder.file(&format!("html/{number}"), format!("file {number}"));
    }
    let server = builder.start();
    let mut client = Client::connect(server.port());
    for round in 0..3 {
        for number in 0..200 {
            client.send(format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert_eq!(client.read_response().text(), format!("file {number}"), "round {round}");
        }
    }
}

#[test]
fn an_empty_file_has_length_zero() {
    Cases::new(SITE)
        .show(&["content-length", "etag"])
        .file("html/empty", "")
        .get("/empty", "200 [content-length: 0] [etag: \"65937d25-0\"]")
        .check();
    Cases::new(SITE).file("html/empty", "").get_with("/empty", "Range: bytes=0-", "200").check();
}

#[test]
fn empty_gif_is_a_picture_of_one_pixel() {
    Parity::new("server { listen {port}; location = /e.gif { empty_gif; } }")
        .get(&["/e.gif"])
        .request("HEAD /e.gif HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .request("POST /e.gif HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .request("GET /e.gif HTTP/1.1\r\nHost: a\r\nIf-Modified-Since: Mon, 28 Sep 1970 06:00:00 GMT\r\nConnection: close\r\n\r\n")
        .request("GET /e.gif HTTP/1.1\r\nHost: a\r\nRange: bytes=0-2\r\nConnection: close\r\n\r\n")
        .check();
    let server = Server::start("server { listen {port}; location = /e.gif { empty_gif; } }");
    let response = get(server.port(), "/e.gif");
    assert_eq!((response.status, response.body.len()), (200, 43));
    assert!(response.body.starts_with(b"GIF89a\x01\x00\x01\x00"));
    assert_eq!(response.header("content-type"), Some("image/gif"));
    assert_eq!(response.header("last-modified"), Some("Mon, 28 Sep 1970 06:00:00 GMT"));
}

#[test]
fn modification_times_before_1970_and_in_the_future() {
    let server = Server::start(SITE);
    let future = SystemTime::now() + Duration::from_secs(86_400 * 365);
    server.write_at("html/future", "f", future);
    server.write_at("html/epoch", "e", SystemTime::UNIX_EPOCH);
    assert_eq!(get(server.port(), "/future").text(), "f");
    assert_eq!(get(server.port(), "/epoch").header("last-modified"), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
    server.signal(Signal::QUIT);
}
