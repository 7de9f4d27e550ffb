//! Compressed siblings: `gzip_static` and its conditions, `brotli_static`, `zstd_static`.

use crate::util::Cases;

const GZIP: &str = "server { listen {port}; root {root}/html; gzip_static on;
    location /vary/ { alias {root}/html/; gzip_vary on; }
    location /always/ { alias {root}/html/; gzip_static always; }
    location /off/ { alias {root}/html/; gzip_static off; }
    location /old/ { alias {root}/html/; gzip_http_version 1.0; }
    location /proxied/ { alias {root}/html/; gzip_proxied any; }
    location /auth/ { alias {root}/html/; gzip_proxied auth; }
    location /no-etag/ { alias {root}/html/; gzip_proxied no_etag; }
    location /expired/ { alias {root}/html/; gzip_proxied expired no-cache no-store private; }
    location /disabled/ { alias {root}/html/; gzip_disable bot msie6; } }";

fn gzip() -> Cases {
    Cases::new(GZIP)
        .show(&["content-encoding", "vary", "content-type"])
        .file("html/a.html", "plain")
        .file("html/a.html.gz", "squeezed")
        .file("html/only.html.gz", "only")
        .file("html/b.html", "no sibling")
        .file("html/folder/index.html", "index")
        .file("html/folder/index.html.gz", "index squeezed")
        .file("html/d.html.gz/x", "a folder with the name")
        .file("html/d.html", "d")
}

const PLAIN: &str = "200 plain [content-type: text/html]";
const SQUEEZED: &str = "200 squeezed [content-encoding: gzip] [content-type: text/html]";

#[test]
fn gzip_static_follows_accept_encoding_as_nginx_reads_it() {
    let mut cases = gzip().get("/a.html", PLAIN);
    for (value, is_squeezed) in [
        ("gzip", true),
        ("deflate, gzip", true),
        ("gzip, deflate, br", true),
        ("gzip;q=1", true),
        ("gzip;q=0.001", true),
        ("gzip;q=0", false),
        ("gzip;q=0.000", false),
        ("gzip; q=0.0", false),
        ("deflate", false),
        ("identity", false),
        ("*", false),
        ("GZIP", true),
        ("", false),
        ("xgzip", false),
    ] {
        let expected = if is_squeezed { SQUEEZED } else { PLAIN };
        cases = cases.get_with("/a.html", &format!("Accept-Encoding: {value}"), expected);
    }
    cases.check();
}

#[test]
fn gzip_static_needs_the_sibling_and_keeps_the_type() {
    let accept = "Accept-Encoding: gzip";
    gzip()
        .get_with("/b.html", accept, "200 no sibling [content-type: text/html]")
        .get_with("/only.html", accept, "200 only [content-encoding: gzip] [content-type: text/html]")
        .get("/only.html", "404 [content-type: text/html]")
        .get_with("/folder/", accept, "200 index squeezed [content-encoding: gzip] [content-type: text/html]")
        .get_with("/d.html", accept, "200 d [content-type: text/html]")
        .get_with("/none.html", accept, "404 [content-type: text/html]")
        .check();
}

#[test]
fn gzip_vary_always_off_and_the_conditions() {
    let accept = "Accept-Encoding: gzip";
    let with_via = "Accept-Encoding: gzip|Via: 1.1 proxy";
    gzip()
        .get_with("/vary/a.html", accept, &SQUEEZED.replace("gzip]", "gzip] [vary: Accept-Encoding]"))
        .get("/vary/a.html", "200 plain [vary: Accept-Encoding] [content-type: text/html]")
        .get("/always/a.html", SQUEEZED)
        .get_with("/always/a.html", "Accept-Encoding: identity", SQUEEZED)
        .get_with("/off/a.html", accept, PLAIN)
        .request("GET /a.html HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n", PLAIN)
        .request("GET /old/a.html HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n", SQUEEZED)
        .get_with("/a.html", with_via, PLAIN)
        .get_with("/proxied/a.html", with_via, SQUEEZED)
        // Of the conditions only `off` refuses by itself: without a reason against it, it is done.
        .get_with("/auth/a.html", with_via, SQUEEZED)
        .get_with("/no-etag/a.html", with_via, SQUEEZED)
        .get_with("/expired/a.html", with_via, SQUEEZED)
        .get_with("/auth/a.html", &format!("{with_via}|Authorization: x"), SQUEEZED)
        .get_with("/disabled/a.html", "Accept-Encoding: gzip|User-Agent: some bot", PLAIN)
        .get_with(
            "/disabled/a.html",
            "Accept-Encoding: gzip|User-Agent: Mozilla/4.0 (compatible; MSIE 6.0;)",
            PLAIN,
        )
        .get_with("/disabled/a.html", "Accept-Encoding: gzip|User-Agent: good", SQUEEZED)
        .check();
}

#[test]
fn the_compressed_sibling_has_validators_of_its_own_and_no_ranges() {
    let accept = "Accept-Encoding: gzip";
    gzip()
        .show(&["etag", "accept-ranges", "content-length"])
        .get_with(
            "/a.html",
            accept,
            "200 squeezed [content-encoding: gzip] [content-type: text/html] [etag: \"65937d25-8\"] [content-length: 8]",
        )
        .get_with(
            "/a.html",
            "Accept-Encoding: gzip|If-None-Match: \"65937d25-8\"",
            "304 [etag: \"65937d25-8\"]",
        )
        .get_with(
            "/a.html",
            "Accept-Encoding: gzip|Range: bytes=0-1",
            "200 squeezed [content-encoding: gzip] [content-type: text/html] [etag: \"65937d25-8\"] [content-length: 8]",
        )
        .check();
}

#[test]
fn brotli_and_zstd_siblings_are_chosen_by_weight_then_by_size() {
    let all = "server { listen {port}; root {root}/html; gzip_static on; brotli_static on; zstd_static on; gzip_vary on;
        location /always/ { alias {root}/html/; brotli_static always; gzip_static off; zstd_static off; } }";
    Cases::new(all)
        .only_ours("nginx has no such modules")
        .show(&["content-encoding", "vary"])
        .file("html/a.js", "plain")
        .file("html/a.js.gz", "gz")
        .file("html/a.js.br", "br")
        .file("html/a.js.zst", "zst")
        .file("html/b.js", "plain")
        .file("html/b.js.gz", "gz")
        .get("/a.js", "200 plain [vary: Accept-Encoding]")
        .get_with("/a.js", "Accept-Encoding: br", "200 br [content-encoding: br] [vary: Accept-Encoding]")
        .get_with(
            "/a.js",
            "Accept-Encoding: zstd",
            "200 zst [content-encoding: zstd] [vary: Accept-Encoding]",
        )
        .get_with(
            "/a.js",
            "Accept-Encoding: gzip, deflate, br, zstd",
            "200 br [content-encoding: br] [vary: Accept-Encoding]",
        )
        .get_with(
            "/a.js",
            "Accept-Encoding: gzip, zstd",
            "200 zst [content-encoding: zstd] [vary: Accept-Encoding]",
        )
        .get_with(
            "/a.js",
            "Accept-Encoding: br;q=0.1, gzip;q=0.9",
            "200 gz [content-encoding: gzip] [vary: Accept-Encoding]",
        )
        .get_with("/a.js", "Accept-Encoding: br;q=0, zstd;q=0", "200 plain [vary: Accept-Encoding]")
        .get_with(
            "/b.js",
            "Accept-Encoding: br, gzip",
            "200 gz [content-encoding: gzip] [vary: Accept-Encoding]",
        )
        .get("/always/a.js", "200 br [content-encoding: br]")
        .check();
}
