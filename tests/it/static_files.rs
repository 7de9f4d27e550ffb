//! Files: conditional requests, ranges, types, caches of open files, and what must never be sent.

use crate::util::{Cases, Client, Parity, Server, Signal, eventually, get, request, subject_is_ours};
use std::os::unix::fs::{FileExt, symlink};
use std::time::{Duration, SystemTime};

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
fn one_range() {
    ten()
        .show(&["content-range", "content-length"])
        .get_with("/f.txt", "Range: bytes=0-0", "206 0 [content-range: bytes 0-0/10] [content-length: 1]")
        .get_with("/f.txt", "Range: bytes=2-4", "206 234 [content-range: bytes 2-4/10] [content-length: 3]")
        .get_with("/f.txt", "Range: bytes=8-", "206 89 [content-range: bytes 8-9/10] [content-length: 2]")
        .get_with("/f.txt", "Range: bytes=8-99", "206 89 [content-range: bytes 8-9/10] [content-length: 2]")
        .get_with("/f.txt", "Range: bytes=-3", "206 789 [content-range: bytes 7-9/10] [content-length: 3]")
        .get_with(
            "/f.txt",
            "Range: bytes=-99",
            "206 0123456789 [content-range: bytes 0-9/10] [content-length: 10]",
        )
        .get_with(
            "/f.txt",
            "Range: bytes=0-",
            "206 0123456789 [content-range: bytes 0-9/10] [content-length: 10]",
        )
        .get_with("/f.txt", "Range: BYTES = 1-1", "200 0123456789 [content-length: 10]")
        .get_with("/f.txt", "Range: bytes= 1 - 1 ", "206 1 [content-range: bytes 1-1/10] [content-length: 1]")
        .get_with("/f.txt", "Range: bytes=", "200 0123456789 [content-length: 10]")
        .get_with("/f.txt", "Range: lines=1-1", "200 0123456789 [content-length: 10]")
        .request(
            "HEAD /f.txt HTTP/1.1\r\nHost: localhost\r\nRange: bytes=2-4\r\nConnection: close\r\n\r\n",
            "206 [content-range: bytes 2-4/10] [content-length: 3]",
        )
        .check();
}

#[test]
fn ranges_that_can_not_be_satisfied_or_read() {
    let cases = ten().show(&["content-range"]);
    [
        "bytes=10-",
        "bytes=99-100",
        "bytes=-0",
        "bytes=5-4",
        "bytes=a-b",
        "bytes=1-2,x",
        "bytes=--1",
        "bytes=99999999999999999999-",
        "bytes=0-99999999999999999999",
        "bytes=-99999999999999999999",
        "bytes=1",
    ]
    .iter()
    .fold(cases, |cases, range| {
        cases.get_with("/f.txt", &format!("Range: {range}"), "416 [content-range: bytes */10]")
    })
    .check();
}

#[test]
fn several_ranges_come_as_parts() {
    Parity::new(SITE)
        .file("html/f.txt", "0123456789")
        .file("html/f", "0123456789")
        .request("GET /f.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1,3-4\r\nConnection: close\r\n\r\n")
        .request("GET /f.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1, 3-4 ,-2\r\nConnection: close\r\n\r\n")
        .request("GET /f HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1,3-4\r\nConnection: close\r\n\r\n")
        .request("GET /f.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=0-5,3-9\r\nConnection: close\r\n\r\n")
        .request("GET /f.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1,50-60\r\nConnection: close\r\n\r\n")
        .request("GET /f.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=40-41,50-60\r\nConnection: close\r\n\r\n")
        .request("HEAD /f.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1,3-4\r\nConnection: close\r\n\r\n")
        .request("GET /f.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=0-9,0-9\r\nConnection: close\r\n\r\n")
        .check();
    let server = Server::builder(SITE).file("html/f.txt", "0123456789").start();
    let response = request(server.port(), "GET", "/f.txt", &[("Range", "bytes=0-1,-2")]);
    assert_eq!(response.status, 206);
    let kind = response.header("content-type").expect("a type").to_owned();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").expect(&kind);
    let part = |range: &str, body: &str| {
        format!(
            "\r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes {range}/10\r\n\r\n{body}"
        )
    };
    let wanted = part("0-1", "01") + &part("8-9", "89") + &format!("\r\n--{boundary}--\r\n");
    assert_eq!(response.text(), wanted);
}

#[test]
fn if_range_decides_whether_ranges_count() {
    ten()
        .get_with("/f.txt", &format!("Range: bytes=0-1|If-Range: {ETAG}"), "206 01")
        .get_with("/f.txt", "Range: bytes=0-1|If-Range: \"other\"", "200 0123456789")
        .get_with("/f.txt", &format!("Range: bytes=0-1|If-Range: W/{ETAG}"), "200 0123456789")
        .get_with("/f.txt", &format!("Range: bytes=0-1|If-Range: {MODIFIED}"), "206 01")
        .get_with("/f.txt", "Range: bytes=0-1|If-Range: Wed, 03 Jan 2024 03:04:05 GMT", "200 0123456789")
        .get_with("/f.txt", "Range: bytes=0-1|If-Range: x", "200 0123456789")
        .check();
}

#[test]
fn max_ranges_bounds_their_number() {
    Cases::new(
        "server { listen {port}; root {root}/html;
            location /none { max_ranges 0; }
            location /one { max_ranges 1; } }",
    )
    .show(&["accept-ranges"])
    .file("html/none", "0123456789")
    .file("html/one", "0123456789")
    .get_with("/none", "Range: bytes=0-1", "200 0123456789")
    .get_with("/one", "Range: bytes=0-1", "206 01")
    .get_with("/one", "Range: bytes=0-1,3-4", "200 0123456789 [accept-ranges: bytes]")
    .check();
}

#[test]
fn a_flood_of_ranges_costs_no_more_than_the_file() {
    let server = Server::builder(SITE).file("html/f", vec![b'x'; 100_000]).start();
    let many: Vec<String> = (0..400).map(|_| "0-".to_owned()).collect();
    let response = request(server.port(), "GET", "/f", &[("Range", &format!("bytes={}", many.join(",")))]);
    assert!(matches!(response.status, 200 | 206 | 416), "{}", response.status);
    assert!(response.body.len() < 200_000, "{} bytes", response.body.len());
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
fn folders_and_odd_files_as_targets() {
    Cases::new(SITE)
        .file("html/folder/x", "x")
        .file("html/f", "file")
        .before(|server| {
            let status = std::process::Command::new("mkfifo").arg(server.path("html/fifo")).status();
            assert!(status.is_ok_and(|status| status.success()), "mkfifo");
            std::os::unix::net::UnixListener::bind(server.path("html/socket")).expect("a socket");
            symlink("/dev/zero", server.path("html/zero")).expect("a link");
            symlink("loop", server.path("html/loop")).expect("a link");
        })
        .get("/folder", "301 http://localhost:{port}/folder/")
        .get("/folder/", "403")
        .get("/f/", "404")
        .get("/f/x", "404")
        .get("/fifo", "404")
        .get("/zero", "404")
        .get("/socket", "500")
        .get("/loop", "403")
        .check();
}

#[test]
fn names_that_are_too_long_are_not_found() {
    let long = format!("/{}", "x".repeat(300));
    let deep = "/y".repeat(1500);
    Cases::new("server { listen {port}; root {root}/html; large_client_header_buffers 4 16k; }")
        .get(&long, "404")
        .get(&deep, "404")
        .check();
}

#[test]
fn a_path_never_leaves_its_root() {
    let server =
        Server::builder("server { listen {port}; root {root}/html; location /a/ { alias {root}/html/; } }")
            .file("html/f", "inside")
            .file("secret", "secret")
            .start();
    for target in [
        "/../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/%2e%2e%2fsecret",
        "/a/../../secret",
        "/x/..%2f..%2fsecret",
        "/./../secret",
        "//../secret",
        "/a/%2e%2e/%2e%2e/secret",
        "/a/..%2f..%2fsecret",
        "/a//..//..//secret",
        "/..;/secret",
        "/.%00./secret",
        "/f%00.txt",
        "/%00",
        "/..%5csecret",
        "/%252e%252e/secret",
        "/%c0%ae%c0%ae/secret",
        "/a/..\\..\\secret",
        "/...//secret",
    ] {
        let mut client = Client::connect(server.port());
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
        let bytes = client.read_to_end();
        let text = String::from_utf8_lossy(&bytes);
        let status = text.get(9..12).unwrap_or_default();
        assert!(matches!(status, "400" | "403" | "404"), "{target}: {text}");
        assert!(!text.ends_with("secret"), "{target}: {text}");
    }
    assert_eq!(get(server.port(), "/x/../f").text(), "inside");
}

#[test]
fn bad_paths_are_answered_as_by_nginx() {
    Cases::new(SITE)
        .file("html/f", "inside")
        .get("/../f", "400")
        .get("/%2e%2e/f", "400")
        .get("/x/../f", "200 inside")
        .get("/f%00", "400")
        .get("/%", "400")
        .get("/%4", "400")
        .get("/%zz", "400")
        .get("/f#x", "200 inside")
        .get("/./f", "200 inside")
        .get("/f?%00", "200 inside")
        .check();
}

#[test]
fn symbolic_links_are_followed_unless_disabled() {
    Cases::new(
        "server { listen {port};
            location / { root {root}/html; }
            location /on/ { alias {root}/html/; disable_symlinks on; }
            location /from/ { alias {root}/html/; disable_symlinks on from=$document_root; }
            location /from-root/ { alias {root}/html/; disable_symlinks on from={root}/html/folder; }
            location /owner/ { alias {root}/html/; disable_symlinks if_not_owner; }
            location /off/ { alias {root}/html/; disable_symlinks off; } }",
    )
    .file("html/f", "file")
    .file("html/folder/g", "g")
    .file("outside/o", "outside")
    .before(|server| {
        symlink(server.path("outside"), server.path("html/away")).expect("a link");
        symlink("f", server.path("html/link")).expect("a link");
        symlink("/etc/hostname", server.path("html/foreign")).expect("a link");
        let link = server.path("html/strange");
        symlink("f", &link).expect("a link");
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::lchown(&link, Some(12345), None).expect("another owner");
        }
    })
    .get("/link", "200 file")
    .get("/away/o", "200 outside")
    .get("/on/f", "200 file")
    .get("/on/link", "403")
    .get("/on/folder/g", "200 g")
    .get("/on/folder/g", "200 g")
    .get("/from/link", "403")
    .get("/from/f", "200 file")
    .get("/from-root/folder/g", "200 g")
    .get("/owner/link", "200 file")
    .get("/owner/away/o", "200 outside")
    .get("/owner/strange", if rustix::process::geteuid().is_root() { "403" } else { "200 file" })
    .get("/off/link", "200 file")
    .check();
}

#[test]
fn a_disabled_link_among_the_folders_is_forbidden_too() {
    Cases::new("server { listen {port}; root {root}/html; disable_symlinks on from=$document_root; }")
        .only_ours("nginx answers 404: the error is that the folder is none")
        .file("outside/o", "outside")
        .file("html/f", "f")
        .before(|server| symlink(server.path("outside"), server.path("html/away")).expect("a link"))
        .get("/away/o", "403")
        .get("/f", "200 f")
        .check();
}

#[test]
fn disable_symlinks_in_the_prefix_counts_from_the_root_of_the_file_system() {
    let conf = "server { listen {port};
            location /on/ { alias {root}/link/; disable_symlinks on; }
            location /from/ { alias {root}/link/; disable_symlinks on from={root}/link; } }";
    Cases::new(conf)
        .file("html/f", "file")
        .before(|server| symlink(server.path("html"), server.path("link")).expect("a link"))
        .get("/on/f", "403")
        .only_ours("nginx takes the error of the folder for a missing file")
        .get("/from/f", "200 file")
        .check();
}

#[test]
fn without_open_file_cache_a_change_is_seen_at_once() {
    let server = Server::builder(SITE).file("html/f", "first").start();
    let mut client = Client::connect(server.port());
    let mut ask = || {
        client.send("GET /f HTTP/1.1\r\nHost: a\r\n\r\n");
        client.read_response()
    };
    for _ in 0..3 {
        assert_eq!(ask().text(), "first");
    }
    for number in 0..50 {
        let text = format!("content {number}{}", "x".repeat(number % 7));
        // Both ways of changing: in place, and by a new file with the name.
        if number % 2 == 0 {
            server.write("html/f", &text);
        } else {
            server.write("html/new", &text);
            std::fs::rename(server.path("html/new"), server.path("html/f")).expect("rename");
        }
        let response = ask();
        assert_eq!(response.text(), text, "change {number}");
        assert_eq!(response.header("content-length"), Some(text.len().to_string().as_str()));
    }
    std::fs::remove_file(server.path("html/f")).expect("remove");
    assert_eq!(ask().status, 404);
    server.write("html/f", "again");
    assert_eq!(ask().text(), "again");
}

#[test]
fn a_change_in_place_of_the_same_length_and_second_is_seen() {
    let server = Server::builder(SITE).file("html/f", "aaaa").start();
    let mut client = Client::connect(server.port());
    for number in 0..200 {
        let text = format!("{number:04}");
        server.write("html/f", &text);
        client.send("GET /f HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_response().text(), text);
    }
}

#[test]
fn open_file_cache_holds_for_its_validity_and_then_sees_the_change() {
    let server = Server::builder(
        "open_file_cache max=10 inactive=60s; open_file_cache_valid 1s; open_file_cache_min_uses 1; open_file_cache_errors on;
         server { listen {port}; root {root}/html; }",
    )
    .file("html/f", "first")
    .start();
    assert_eq!(get(server.port(), "/f").text(), "first");
    assert_eq!(get(server.port(), "/later").status, 404);
    server.write("html/new", "second, longer");
    std::fs::rename(server.path("html/new"), server.path("html/f")).expect("rename");
    server.write("html/later", "there");
    // Whatever is sent within the validity is one file or the other, whole.
    eventually("the change is seen", || {
        let response = get(server.port(), "/f");
        assert!(["first", "second, longer"].contains(&response.text().as_str()), "{response:?}");
        response.text() == "second, longer"
    });
    eventually("the new file is seen", || get(server.port(), "/later").status == 200);
}

#[test]
fn with_open_file_cache_length_and_content_never_disagree() {
    // The client of the harness panics on a body that is shorter than its length; here content must fit too.
    let server = Server::builder(
        "open_file_cache max=10; open_file_cache_valid 60s; server { listen {port}; root {root}/html; }",
    )
    .file("html/f", "0123456789")
    .start();
    assert_eq!(get(server.port(), "/f").text(), "0123456789");
    server.write("html/f", "01234567890123456789");
    let grown = get(server.port(), "/f").text();
    assert!(grown == "0123456789" || grown == "01234567890123456789", "{grown}");
    server.write("html/f", "012");
    let mut client = Client::connect(server.port());
    client.send("GET /f HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    match client.response_to("GET") {
        Ok(response) => assert!("01234567890123456789".starts_with(&response.text())),
        Err(error) => assert!(error.starts_with("closed"), "{error}"),
    }
}

#[test]
fn open_file_cache_off_and_min_uses() {
    Cases::new(
        "open_file_cache max=100 inactive=1s; open_file_cache_min_uses 2; open_file_cache_errors off;
         server { listen {port}; root {root}/html; location /off { open_file_cache off; } }",
    )
    .file("html/a", "a")
    .file("html/off", "o")
    .get("/a", "200 a")
    .get("/a", "200 a")
    .get("/off", "200 o")
    .get("/none", "404")
    .get("/none", "404")
    .check();
}

/// Reads everything that comes, and says whether the body was as long as promised.
fn is_complete(bytes: &[u8]) -> bool {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
    length
        .and_then(|text| text.trim().parse::<usize>().ok())
        .is_some_and(|length| length == bytes.len() - end - 4)
}

#[test]
fn a_file_truncated_while_it_is_sent_ends_the_connection() {
    const LENGTH: usize = 64 << 20;
    let server = Server::builder(SITE).start();
    server.write("html/big", "");
    let file = std::fs::File::options().write(true).open(server.path("html/big")).expect("open");
    file.set_len(LENGTH as u64).expect("length");
    let mut client = Client::connect(server.port());
    client.send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.read_exactly(1000);
    assert!(head.starts_with(b"HTTP/1.1 200 OK\r\n"));
    file.set_len(1000).expect("truncate");
    let rest = client.read_to_end();
    assert!(!is_complete(&[head, rest].concat()), "a short file looked complete");
    assert_eq!(get(server.port(), "/big").body.len(), 1000);
}

#[test]
fn a_file_replaced_while_it_is_sent_is_sent_as_it_was() {
    const LENGTH: usize = 32 << 20;
    let server = Server::builder(SITE).file("html/big", vec![b'a'; LENGTH]).start();
    let mut client = Client::connect(server.port());
    client.send("GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let mut bytes = client.read_exactly(100_000);
    server.write("html/new", vec![b'b'; LENGTH]);
    std::fs::rename(server.path("html/new"), server.path("html/big")).expect("rename");
    bytes.extend(client.read_to_end());
    assert!(is_complete(&bytes));
    let body = &bytes[bytes.len() - LENGTH..];
    assert!(body.iter().all(|byte| *byte == b'a'), "two files were mixed");
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
fn files_that_may_not_be_read_are_forbidden() {
    // As root nothing is unreadable; workers then run as another user.
    let user = if rustix::process::geteuid().is_root() { "user nobody nogroup;" } else { "" };
    let server =
        Server::builder(&format!("{user} http {{ server {{ listen {{port}}; root {{root}}/html; }} }}"))
            .file("html/f", "secret")
            .start();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(server.path("html/f"), PermissionsExt::from_mode(0o600)).expect("permissions");
    let readable = user.is_empty();
    assert_eq!(get(server.port(), "/f").status, if readable { 200 } else { 403 });
    if !readable {
        eventually("the reason", || server.error_log().contains("(13: Permission denied)"));
    }
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
