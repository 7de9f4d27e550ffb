//! Bodies that are rewritten on their way: compression, `gunzip`, `sub_filter`, `charset`.

use std::time::Duration;

use crate::util::codings::{decoded, gzip};
use crate::util::{Cases, Client, Response, Server, Upstream, eventually, request};

const TYPES: &str = "types { text/html html; text/css css; text/plain txt; application/octet-stream bin; }
    default_type text/plain;";

/// Text that compresses, of about so many bytes, and is nowhere the same.
fn text_of(bytes: usize) -> Vec<u8> {
    let mut text = Vec::new();
    for number in 0u64.. {
        if text.len() >= bytes {
            break;
        }
        let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        text.extend_from_slice(format!("<p>line {number} of the text, {random}</p>\n").as_bytes());
    }
    text
}

fn accepting(server: &Server, path: &str, codings: &str) -> Response {
    request(server.port(), "GET", path, &[("Accept-Encoding", codings)])
}

#[test]
fn gzip_follows_nginx_s_conditions() {
    let packed = "200 [content-encoding: gzip] [vary: Accept-Encoding] [content-type: text/html]";
    let plain_html = "200 [vary: Accept-Encoding] [content-type: text/html]";
    Cases::new(&format!(
        "{TYPES} gzip on; gzip_vary on; gzip_min_length 100; gzip_types text/css;
         server {{ listen {{port}}; root {{root}}/html; error_page 404 /404.html;
         location /any/ {{ alias {{root}}/html/; gzip_types *; }}
         location /level/ {{ alias {{root}}/html/; gzip_comp_level 9; gzip_window 1k; gzip_hash 512; gzip_buffers 4 8k; }}
         location /off/ {{ alias {{root}}/html/; gzip off; }}
         location /if/ {{ alias {{root}}/html/; gzip off; if ($arg_z) {{ gzip on; }} }}
         location /return/ {{ default_type text/html; return 200 {}; }} }}",
        "x".repeat(200)
    ))
    .show(&["content-encoding", "vary", "content-type"])
    .ignore_bodies()
    .ignore("transfer-encoding")
    .file("html/a.html", "")
    .before(|server| {
        let old = std::time::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
        for (name, bytes) in [("a.html", 3000), ("a.css", 3000), ("a.txt", 3000), ("short.html", 50), ("404.html", 500)] {
            server.write_at(&format!("html/{name}"), vec![0; bytes], old);
        }
    })
    .request("HEAD /short.html HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n", "200 [content-type: text/html]")
    .request("HEAD /a.html HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n", packed)
    .request("HEAD /a.html HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", plain_html)
    .request("HEAD /a.css HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n", &packed.replace("html", "css"))
    .request("HEAD /a.txt HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n", "200 [content-type: text/plain]")
    .request("HEAD /any/a.txt HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n", &packed.replace("html", "plain"))
    .request("HEAD /level/a.html HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n", packed)
    .request("HEAD /off/a.html HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n", "200 [content-type: text/html]")
    .request("HEAD /if/a.html?z=1 HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n", packed)
    .request("HEAD /a.html HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n", plain_html)
    .request("HEAD /a.html HTTP/1.1\r\nHost: localhost\r\nVia: x\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n", plain_html)
    .request("HEAD /none HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n", &packed.replace("200", "404"))
    .request("HEAD /return/ HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n", packed)
    .request("HEAD /a.html HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-9\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n", packed)
    .check();
}

fn compressing(more: &str) -> Server {
    Server::start(&format!(
        "{TYPES} gzip on; brotli on; zstd on; gzip_vary on; log_format ratio '$uri $gzip_ratio $body_bytes_sent';
         access_log {{root}}/access.log ratio;
         server {{ listen {{port}}; root {{root}}/html; {more} }}"
    ))
}

#[test]
fn bodies_of_all_sizes_decode_to_the_file_in_every_coding() {
    let server = compressing("");
    for bytes in [100, 3000, 30_000, 100_000, 3_000_000] {
        let text = text_of(bytes);
        let path = format!("/{bytes}.html");
        let old = std::time::SystemTime::now() - Duration::from_secs(100);
        server.write_at(&format!("html{path}"), &text, old);
        for coding in ["gzip", "br", "zstd"] {
            // Made anew, made from memory, kept.
            for _ in 0..4 {
                let response = accepting(&server, &path, coding);
                assert_eq!((response.status, response.header("content-encoding")), (200, Some(coding)));
                assert!(decoded(&response) == text, "{path} {coding}");
                assert!(bytes < 1000 || response.body.len() < text.len() / 2);
                assert_eq!(response.header("vary"), Some("Accept-Encoding"));
                assert!(response.header("etag").is_some_and(|etag| etag.starts_with("W/\"")));
                assert_eq!(response.header("accept-ranges"), None);
            }
        }
        assert!(accepting(&server, &path, "identity").body == text);
    }
    // A form is kept once the file has rested for a while, by each worker for itself.
    eventually("a kept form, which has a length", || {
        let hot = accepting(&server, "/100000.html", "br");
        hot.header("content-length") == Some(&hot.body.len().to_string()[..])
    });
}

#[test]
fn a_file_that_changes_is_never_sent_in_its_old_form() {
    let server = compressing("");
    for round in 0..6u8 {
        let text = vec![b'a' + round; 50_000];
        server.write("html/a.html", &text);
        for _ in 0..3 {
            assert!(decoded(&accepting(&server, "/a.html", "gzip")) == text, "round {round}");
        }
    }
}

#[test]
fn the_client_s_weights_choose_the_coding() {
    let server = compressing("");
    server.write("html/a.html", text_of(2000));
    for (accept, coding) in [
        ("gzip, br, zstd", Some("br")),
        ("gzip, zstd", Some("zstd")),
        ("gzip;q=1, br;q=0.5, zstd;q=0.7", Some("gzip")),
        ("gzip;q=0.1, zstd;q=0.7", Some("zstd")),
        ("br;q=0, gzip", Some("gzip")),
        ("identity", None),
        ("*", None),
    ] {
        let response = accepting(&server, "/a.html", accept);
        assert_eq!(response.header("content-encoding"), coding, "{accept}");
        assert_eq!(response.header("vary"), Some("Accept-Encoding"), "{accept}");
    }
}

#[test]
fn a_weak_tag_that_comes_back_is_a_304() {
    let server = compressing("");
    server.write("html/a.html", text_of(2000));
    let first = accepting(&server, "/a.html", "gzip");
    let etag = first.header("etag").expect("a tag").to_owned();
    assert!(etag.starts_with("W/"), "{etag}");
    let fields = [("Accept-Encoding", "gzip"), ("If-None-Match", &etag)];
    let again = request(server.port(), "GET", "/a.html", &fields);
    assert_eq!(again.status, 304);
    assert_eq!((again.header("etag"), again.header("vary")), (Some(&etag[..]), Some("Accept-Encoding")));
    assert_eq!(again.header("content-encoding"), None);
}

#[test]
fn the_ratio_is_logged() {
    let server = compressing("");
    server.write("html/a.html", vec![b'a'; 10_000]);
    let response = accepting(&server, "/a.html", "gzip");
    accepting(&server, "/a.html", "identity");
    let lines = server.access_log_lines(2);
    let expected = format!("/a.html {:.2} {}", 10_000.0 / response.body.len() as f64, response.body.len());
    assert_eq!(lines[0], expected);
    assert_eq!(lines[1], "/a.html - 10000");
}

#[test]
fn old_clients_get_a_stream_until_the_close_or_a_length() {
    let server = compressing("gzip_http_version 1.0;");
    let text = text_of(1_000_000);
    server.write("html/a.html", &text);
    let mut client = Client::connect(server.port());
    client.send("GET /a.html HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n");
    let response = client.read_response();
    assert!(decoded(&response) == text && response.until_close);
}

#[test]
fn a_slow_reader_of_a_large_body_gets_all_of_it() {
    let server = compressing("limit_rate 400k;");
    let text = text_of(2_000_000);
    server.write("html/a.html", &text);
    let mut client = Client::connect(server.port());
    client.send("GET /a.html HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    std::thread::sleep(Duration::from_millis(200));
    assert!(decoded(&client.read_response()) == text);
    // And the connection goes on.
    client.send("GET /none HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response().status, 404);
}

fn passing(upstream: &Upstream, more: &str) -> Server {
    Server::start(&format!(
        "{TYPES} server {{ listen {{port}}; location / {{ proxy_pass http://127.0.0.1:{}; {more} }} }}",
        upstream.port()
    ))
}

#[test]
fn what_an_upstream_has_said_goes_out_when_it_pauses() {
    let (resume, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let upstream = Upstream::start(move |mut peer| {
        peer.read_request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n");
        peer.send("b\r\nfirst part.\r\n");
        let _ = wait.lock().unwrap().recv();
        peer.send("c\r\nsecond part.\r\n0\r\n\r\n");
    });
    let server = passing(&upstream, "gzip on;");
    let mut client = Client::connect(server.port());
    client.send("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    let mut wire = Vec::new();
    let mut text = Vec::new();
    while text != b"first part." {
        wire.extend(client.read_some());
        text = first_of_chunked_gzip(&wire);
    }
    resume.send(()).unwrap();
    while text != b"first part.second part." {
        wire.extend(client.read_some());
        text = first_of_chunked_gzip(&wire);
    }
}

/// What can be told of a chunked gzip body that is not whole yet.
fn first_of_chunked_gzip(wire: &[u8]) -> Vec<u8> {
    let Some(end) = wire.windows(4).position(|four| four == b"\r\n\r\n") else { return Vec::new() };
    let mut rest = &wire[end + 4..];
    let mut packed = Vec::new();
    while let Some(line) = rest.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        let Some(chunk) = rest.get(line + 2..line + 2 + size) else { break };
        packed.extend_from_slice(chunk);
        rest = rest.get(line + 4 + size..).unwrap_or_default();
    }
    let mut inflate = zlib_rs::Inflate::new(true, 31);
    let mut text = vec![0; 10_000];
    let _ = inflate.decompress(&packed, &mut text, zlib_rs::InflateFlush::NoFlush);
    text.truncate(inflate.total_out() as usize);
    text
}

#[test]
fn a_large_body_of_an_upstream_is_compressed_as_it_comes() {
    let text = text_of(2_000_000);
    let body = text.clone();
    let upstream = Upstream::http(move |_, _| {
        [
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n", body.len())
                .into_bytes(),
            body.clone(),
        ]
        .concat()
    });
    for coding in ["gzip", "brotli", "zstd"] {
        let server = passing(&upstream, &format!("{coding} on;"));
        let response = accepting(&server, "/", "gzip, br, zstd");
        assert!(decoded(&response) == text, "{coding}");
        assert!(response.chunks.is_some());
    }
}

#[test]
fn an_upstream_s_body_that_breaks_off_is_not_shown_as_whole() {
    let upstream = Upstream::start(|mut peer| {
        peer.read_request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 1000\r\n\r\nshort");
    });
    let server = passing(&upstream, "gzip on;");
    let mut client = Client::connect(server.port());
    client.send("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    assert!(client.response_to("GET").is_err());
}

#[test]
pub fn gunzip_decodes_for_clients_that_do_not_take_gzip() {
    let text = text_of(300_000);
    let packed = gzip(&text);
    let upstream = Upstream::http(move |_, _| {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nETag: \"x\"\r\nContent-Length: {}\r\n\r\n",
            packed.len()
        );
        [head.into_bytes(), packed.clone()].concat()
    });
    let server = passing(&upstream, "gunzip on; gzip_vary on;");
    let plain = request(server.port(), "GET", "/", &[]);
    assert!(plain.body == text);
    assert_eq!((plain.header("content-encoding"), plain.header("etag")), (None, Some("W/\"x\"")));
    assert_eq!(plain.header("vary"), Some("Accept-Encoding"));
    let kept = accepting(&server, "/", "gzip");
    assert_eq!((kept.header("content-encoding"), kept.header("etag")), (Some("gzip"), Some("\"x\"")));
    assert!(decoded(&kept) == text);
}

#[test]
fn a_broken_gzip_ends_the_connection() {
    let upstream = Upstream::http(|_, _| {
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 30\r\n\r\nthis is no gzip, and is so long".to_vec()
    });
    let server = passing(&upstream, "gunzip on;");
    let mut client = Client::connect(server.port());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.response_to("GET").is_err());
    eventually("a line in the log", || server.error_log().contains("inflate() failed"));
}

#[test]
pub fn gunzip_serves_stored_siblings_to_everybody() {
    let server = Server::start(&format!(
        "{TYPES} server {{ listen {{port}}; root {{root}}/html; gzip_static always; gunzip on; }}"
    ));
    server.write("html/a.html.gz", gzip(b"<p>stored</p>"));
    assert_eq!(request(server.port(), "GET", "/a.html", &[]).text(), "<p>stored</p>");
    assert_eq!(decoded(&accepting(&server, "/a.html", "gzip")), b"<p>stored</p>");
}

#[test]
fn sub_filter_replaces_as_nginx_does() {
    Cases::new(&format!(
        "{TYPES} server {{ listen {{port}}; root {{root}}/html;
         sub_filter 'one' '1'; sub_filter two $arg_to;
         location /all/ {{ alias {{root}}/html/; sub_filter abc '<$uri>'; sub_filter_once off; }}
         location /order/ {{ alias {{root}}/html/; sub_filter ab '1'; sub_filter abc '2'; sub_filter c '3'; sub_filter_once off; }}
         location /modified/ {{ alias {{root}}/html/; sub_filter a b; sub_filter_last_modified on; }}
         location /types/ {{ alias {{root}}/html/; sub_filter a b; sub_filter_types text/css; }}
         location /variable/ {{ alias {{root}}/html/; sub_filter $arg_from X; sub_filter_once off; }} }}"
    ))
    .ignore("transfer-encoding")
    .ignore("content-length")
    .show(&["etag"])
    .file("html/a.html", "one two ONE Two one two\n")
    .file("html/b.html", "xabcABCabab abc aBc\nabab")
    .file("html/a.css", "aaa")
    .file("html/a.txt", "aaa one")
    .file("html/empty.html", "")
    .before(|server| {
        let at = std::time::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
        server.write_at("html/e.html", "banana", at);
    })
    .get("/a.html?to=2", "200 1 2 ONE Two one two\n")
    .get("/a.html", "200 1  ONE Two one two\n")
    .get("/all/b.html", "200 x</all/b.html></all/b.html>abab </all/b.html> </all/b.html>\nabab")
    .get("/order/b.html", "200 x131311 13 13\n11")
    .get("/modified/e.html", "200 bbnana [etag: W/\"5f5e1000-6\"]")
    .get("/e.html", "200 banana")
    .get("/types/a.css", "200 baa")
    .get("/variable/b.html?from=ab", "200 xXcXCXX Xc Xc\nXX")
    .ignore("etag")
    .ignore("last-modified")
    .check();
}

#[test]
fn strings_are_found_across_the_pieces_of_an_upstream() {
    let upstream = Upstream::start(|mut peer| {
        peer.read_request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n");
        for piece in ["a nee", "dle, a need, need", "le nee"] {
            peer.send(piece);
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let server = passing(&upstream, "sub_filter needle pin; sub_filter_once off; gzip on;");
    for codings in ["identity", "gzip"] {
        let response = accepting(&server, "/", codings);
        assert_eq!(String::from_utf8(decoded(&response)).unwrap(), "a pin, a need, pin nee");
    }
}

const MAP: &str = "charset_map koi8-r utf-8 { C1 D0B0; C2 D0B1; 80 E282AC; }
    charset_map windows-1251 koi8-r { E0 C1; E1 C2; }";

#[test]
fn charsets_are_named_and_changed_as_nginx_does() {
    Cases::new(&format!(
        "{TYPES} {MAP} server {{ listen {{port}}; root {{root}}/html; charset koi8-r;
         location /off/ {{ alias {{root}}/html/; charset off; }}
         location /to/ {{ alias {{root}}/html/; charset utf-8; source_charset koi8-r; }}
         location /from/ {{ alias {{root}}/html/; charset koi8-r; source_charset utf-8; }}
         location /bytes/ {{ alias {{root}}/html/; charset koi8-r; source_charset windows-1251; }}
         location /back/ {{ alias {{root}}/html/; charset windows-1251; source_charset koi8-r; }}
         location /same/ {{ alias {{root}}/html/; charset koi8-r; source_charset koi8-r; }}
         location /variable/ {{ alias {{root}}/html/; charset $arg_charset; source_charset koi8-r; }}
         location /types/ {{ alias {{root}}/html/; charset_types text/css; }}
         location /redirect/ {{ return 302 /a; }} }}"
    ))
    .ignore("transfer-encoding")
    .ignore("content-length")
    .show(&["content-type"])
    .file("html/koi.html", b"a\xc1\xc2\x80\xff")
    .file("html/utf.html", "aаб€ж😀".as_bytes())
    .file("html/win.html", b"a\xe0\xe1\xff")
    .file("html/a.css", "css")
    .file("html/a.txt", "txt")
    .get("/a.css", "200 css [content-type: text/css]")
    .get("/a.txt", "200 txt [content-type: text/plain; charset=koi8-r]")
    .get("/off/a.txt", "200 txt [content-type: text/plain]")
    .get("/types/a.css", "200 css [content-type: text/css; charset=koi8-r]")
    .get("/types/a.txt", "200 txt [content-type: text/plain]")
    .get("/to/koi.html", "200 aаб€? [content-type: text/html; charset=utf-8]")
    .get("/from/utf.html", "200 a\u{fffd}\u{80}&#1078;&#128512; [content-type: text/html; charset=koi8-r]")
    .get("/bytes/win.html", "200 a\u{fffd}\u{fffd}? [content-type: text/html; charset=koi8-r]")
    .get("/back/koi.html", "200 a\u{fffd}\u{fffd}?? [content-type: text/html; charset=windows-1251]")
    .get("/same/a.txt", "200 txt [content-type: text/plain; charset=koi8-r]")
    .get("/variable/koi.html?charset=utf-8", "200 aаб€? [content-type: text/html; charset=utf-8]")
    .get("/variable/a.txt?charset=unknown", "200 txt [content-type: text/plain]")
    .get("/redirect/", "302 http://localhost:{port}/a [content-type: text/html]")
    .check();
}

#[test]
fn what_is_no_utf8_swallows_nothing_behind_it() {
    Cases::new(&format!(
        "{TYPES} {MAP} server {{ listen {{port}}; root {{root}}/html; charset koi8-r; source_charset utf-8; }}"
    ))
    .only_ours("nginx drops the byte that breaks a character off, were it a `<`")
    .file("html/bad.html", b"a\xffb\xd0<\xe2\x82d\xf0\x9f")
    .get("/bad.html", "200 a?b?<?d?")
    .check();
}

#[test]
fn an_upstream_s_charset_is_changed_only_where_that_is_wanted() {
    let upstream = Upstream::http(|_, _| {
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=koi8-r\r\nContent-Length: 2\r\n\r\n\xc1\xc2"
            .to_vec()
    });
    let at = upstream.port();
    let server = Server::start(&format!(
        "{MAP} server {{ listen {{port}}; charset utf-8;
         location /kept/ {{ proxy_pass http://127.0.0.1:{at}; }}
         location /changed/ {{ proxy_pass http://127.0.0.1:{at}; override_charset on; }} }}"
    ));
    let kept = request(server.port(), "GET", "/kept/", &[]);
    assert_eq!(
        (kept.header("content-type"), &kept.body[..]),
        (Some("text/html; charset=koi8-r"), &b"\xc1\xc2"[..])
    );
    let changed = request(server.port(), "GET", "/changed/", &[]);
    assert_eq!(
        (changed.header("content-type"), &changed.text()[..]),
        (Some("text/html; charset=utf-8"), "аб")
    );
}

#[test]
fn brotli_and_zstd_have_the_directives_of_gzip() {
    let server = Server::start(&format!(
        "{TYPES} server {{ listen {{port}}; root {{root}}/html;
         location /long/ {{ alias {{root}}/html/; brotli on; brotli_min_length 1k; zstd on; zstd_min_length 4k; }}
         location /types/ {{ alias {{root}}/html/; brotli on; brotli_types text/css; zstd on; zstd_types *; }}
         location /low/ {{ alias {{root}}/html/; brotli on; brotli_comp_level 0; brotli_window 1k; brotli_buffers 4 8k; zstd on; zstd_comp_level 1; zstd_window 1k; zstd_buffers 4 8k; }}
         location /high/ {{ alias {{root}}/html/; brotli on; brotli_comp_level 9; brotli_window 4m; zstd on; zstd_comp_level 12; zstd_window 4m; }}
         location /if/ {{ alias {{root}}/html/; if ($arg_z) {{ brotli on; zstd on; }} }} }}"
    ));
    let text = text_of(200_000);
    server.write("html/big.html", &text);
    server.write("html/2000.html", text_of(2000));
    server.write("html/a.css", text_of(2000));
    server.write("html/a.bin", text_of(2000));
    let coding = |path: &str, codings: &str| {
        accepting(&server, path, codings).header("content-encoding").unwrap_or_default().to_owned()
    };
    assert_eq!(
        (coding("/long/2000.html", "br"), coding("/long/2000.html", "zstd")),
        ("br".into(), String::new())
    );
    assert_eq!(coding("/long/2000.html", "zstd, br;q=0.1"), "br");
    assert_eq!((coding("/types/a.css", "br"), coding("/types/a.bin", "br")), ("br".into(), String::new()));
    assert_eq!(coding("/types/a.bin", "br, zstd"), "zstd");
    assert_eq!(
        (coding("/if/2000.html?z=1", "br"), coding("/if/2000.html", "br")),
        ("br".into(), String::new())
    );
    for codings in ["br", "zstd"] {
        let [low, high] = ["/low/big.html", "/high/big.html"].map(|path| accepting(&server, path, codings));
        assert!(decoded(&low) == text && decoded(&high) == text, "{codings}");
        assert!(high.body.len() < low.body.len(), "{codings}: {} and {}", high.body.len(), low.body.len());
    }
    for (directive, complaint) in [
        ("brotli_comp_level 12", "value must be between 0 and 11"),
        ("brotli_window 3k", "\"brotli_window\" directive must be"),
        ("brotli_min_length x", "\"brotli_min_length\" directive invalid value"),
        ("brotli_buffers 4 x", "\"brotli_buffers\" directive invalid value"),
        ("zstd_comp_level 0", "value must be between 1 and"),
        ("zstd_window 3k", "\"zstd_window\" directive must be"),
        ("zstd x", "it must be \"on\" or \"off\""),
    ] {
        let output = Server::builder(&format!("server {{ listen {{port}}; {directive}; }}")).run(&["-t"]);
        assert!(
            !output.status.success() && output.stderr.contains(complaint),
            "{directive}: {}",
            output.stderr
        );
    }
}

#[test]
fn gzip_s_own_buffers_change_nothing_of_the_body() {
    let server = Server::start(&format!(
        "{TYPES} gzip on; server {{ listen {{port}}; root {{root}}/html; gzip_no_buffer on; postpone_gzipping 1k; gzip_buffers 2 512; }}"
    ));
    let text = text_of(100_000);
    server.write("html/a.html", &text);
    assert!(decoded(&accepting(&server, "/a.html", "gzip")) == text);
}
