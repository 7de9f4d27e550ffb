//! `spa`: sites whose pages are made by a script in the browser. nginx has no such directive.

use crate::util::{Cases, Server, get, request, subject_is_ours};

const SITE: &str = "server { listen {port}; root {root}/html; spa /index.html; }";

fn site() -> Cases {
    Cases::new(SITE)
        .only_ours("a directive of ours")
        .file("html/index.html", "<app>")
        .file("html/about.html", "<about>")
        .file("html/data", "data")
        .file("html/assets/app-4f3a9b2c.js", "script")
        .file("html/assets/index-BkT3dS9x.css", "style")
        .file("html/assets/logo.png", "logo")
        .file("html/folder/index.html", "<folder>")
        .file("html/bare/x.txt", "x")
}

#[test]
fn what_exists_is_served_and_pages_that_do_not_are_the_index() {
    site()
        .get("/", "200 <app>")
        .get("/about.html", "200 <about>")
        .get("/data", "200 data")
        .get("/folder/", "200 <folder>")
        .get("/users/42", "200 <app>")
        .get("/users/42/", "200 <app>")
        .get("/users/42?tab=x", "200 <app>")
        .get("/deep/a/b/c", "200 <app>")
        .get("/bare/", "200 <app>")
        .check();
}

#[test]
fn a_missing_file_with_an_extension_or_hidden_is_really_missing() {
    site()
        .get("/assets/old-4f3a9b2c.js", "404")
        .get("/x.png", "404")
        .get("/.env", "404")
        .get("/.git/config", "404")
        .get("/v1.2/page", "200 <app>")
        .check();
}

#[test]
fn sec_fetch_dest_tells_pages_from_sub_resources() {
    let mut cases = site();
    for kind in ["document", "iframe", "frame", "embed", "object"] {
        cases = cases.get_with("/page", &format!("Sec-Fetch-Dest: {kind}"), "200 <app>");
    }
    for kind in ["script", "style", "image", "font", "video", "worker", "manifest", "empty", "audio"] {
        cases = cases.get_with("/page", &format!("Sec-Fetch-Dest: {kind}"), "404");
    }
    cases.check();
}

#[test]
fn caching_follows_the_kind_of_file() {
    site()
        .show(&["cache-control"])
        .get("/", "200 <app> [cache-control: no-cache]")
        .get("/page", "200 <app> [cache-control: no-cache]")
        .get("/about.html", "200 <about> [cache-control: no-cache]")
        .get("/assets/app-4f3a9b2c.js", "200 script [cache-control: public, max-age=31536000, immutable]")
        .get("/assets/index-BkT3dS9x.css", "200 style [cache-control: public, max-age=31536000, immutable]")
        .get("/assets/logo.png", "200 logo")
        .get_with(
            "/assets/app-4f3a9b2c.js",
            "If-None-Match: \"65937d25-6\"",
            "304 [cache-control: public, max-age=31536000, immutable]",
        )
        .get("/none.js", "404")
        .check();
}

#[test]
fn expires_and_add_header_have_the_last_word_on_caching() {
    Cases::new(
        "server { listen {port}; root {root}/html; spa /index.html;
            location /e/ { expires 1h; } location /a/ { add_header Cache-Control private; } }",
    )
    .only_ours("a directive of ours")
    .show(&["cache-control"])
    .ignore("expires")
    .file("html/index.html", "<app>")
    .file("html/e/x.html", "e")
    .file("html/a/x.html", "a")
    .get("/e/x.html", "200 e [cache-control: max-age=3600]")
    .get("/a/x.html", "200 a [cache-control: private]")
    .check();
}

#[test]
fn methods_other_than_get_and_head_are_refused() {
    if !subject_is_ours() {
        return;
    }
    let server = Server::builder(SITE).file("html/index.html", "<app>").start();
    assert_eq!(request(server.port(), "HEAD", "/page", &[]).status, 200);
    assert!(matches!(request(server.port(), "POST", "/page", &[]).status, 404 | 405));
    assert!(matches!(request(server.port(), "DELETE", "/page", &[]).status, 404 | 405));
}

#[test]
fn compressed_siblings_of_the_index_are_used() {
    Cases::new("server { listen {port}; root {root}/html; spa /index.html; gzip_static on; }")
        .only_ours("a directive of ours")
        .show(&["content-encoding"])
        .file("html/index.html", "<app>")
        .file("html/index.html.gz", "gz")
        .get_with("/page", "Accept-Encoding: gzip", "200 gz [content-encoding: gzip]")
        .get("/page", "200 <app>")
        .check();
}

#[test]
fn a_missing_index_is_not_found_and_off_turns_it_off() {
    if !subject_is_ours() {
        return;
    }
    let server = Server::start(
        "server { listen {port}; root {root}/html; spa /index.html; location /off/ { spa off; } }",
    );
    assert_eq!(get(server.port(), "/page").status, 404);
    server.write("html/index.html", "<app>");
    assert_eq!(get(server.port(), "/page").text(), "<app>");
    assert_eq!(get(server.port(), "/off/page").status, 404);
}
