use super::*;
use crate::http::testing::{World, complaints};
use proptest::prelude::*;

fn site(http: &str) -> World {
    World::new(http)
        .file("/srv/index.html", "index")
        .file("/srv/favicon.ico", "icon")
        .file("/srv/assets/app-4f3a9b2c.js", "script")
        .file("/srv/assets/app-4f3a9b2c.js.gz", "packed")
        .file("/srv/assets/app.js", "script")
        .file("/srv/docs/index.html", "docs")
}

fn world() -> World {
    site("server { root /srv; spa /index.html; }")
}

#[test]
fn files_are_served_and_pages_get_the_index() {
    let mut world = world();
    assert_eq!(world.get("/favicon.ico").text(), "icon");
    for page in
        ["/", "/users", "/users/42", "/users/42/", "/users?a=b.js", "/v1.2/", "/assets/", "/index.html"]
    {
        let reply = world.get(page);
        assert_eq!((reply.status, reply.text()), (200, "index"), "{page}");
        assert_eq!(reply.field("Content-Type"), "text/html", "{page}");
        assert!(reply.log.is_empty(), "{:?}", reply.log);
    }
    assert_eq!(world.get("/docs/").text(), "docs");
    assert_eq!(world.get("/docs").status, 301);
}

#[test]
fn parts_that_are_missing_are_not_found() {
    let mut world = world();
    for part in ["/missing.js", "/assets/gone-4f3a9b2c.js", "/.env", "/.git/config", "/a/b.png"] {
        assert_eq!(world.get(part).status, 404, "{part}");
    }
}

#[test]
fn the_purpose_of_a_request_tells_pages_from_parts() {
    let mut world = world();
    for page in ["document", "iframe", "frame", "object", "embed"] {
        assert_eq!(world.get_with("/users", &format!("Sec-Fetch-Dest: {page}\r\n")).status, 200, "{page}");
    }
    for part in ["script", "style", "image", "font", "worker", "manifest", "audio", "new-kind"] {
        assert_eq!(world.get_with("/users", &format!("Sec-Fetch-Dest: {part}\r\n")).status, 404, "{part}");
    }
    assert_eq!(world.get_with("/api/users", "Sec-Fetch-Dest: empty\r\nAccept: */*\r\n").status, 404);
    let fetched = "Sec-Fetch-Dest: empty\r\nAccept: text/html, */*;q=0.1\r\n";
    assert_eq!(world.get_with("/users", fetched).text(), "index");
}

#[test]
fn only_pages_are_asked_for_with_get_and_head() {
    let mut world = world();
    assert_eq!(world.send("HEAD /users HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
    assert_eq!(world.send("POST /users HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").status, 404);
    assert_eq!(world.send("PUT /users HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").status, 405);
}

#[test]
fn html_is_revalidated_and_hashed_names_are_kept() {
    let mut world = world();
    let mut control = |target: &str| world.get(target).field("Cache-Control");
    assert_eq!(control("/"), "no-cache");
    assert_eq!(control("/users"), "no-cache");
    assert_eq!(control("/docs/"), "no-cache");
    assert_eq!(control("/assets/app-4f3a9b2c.js"), "public, max-age=31536000, immutable");
    assert_eq!(control("/assets/app.js"), "");
    assert_eq!(control("/gone-4f3a9b2c.js"), "");
    let etag = world.get("/index.html").field("ETag");
    let same = world.get_with("/users", &format!("If-None-Match: {etag}\r\n"));
    assert_eq!((same.status, same.field("Cache-Control").as_str()), (304, "no-cache"));
    let part = world.get_with("/assets/app-4f3a9b2c.js", "Range: bytes=0-0\r\n");
    assert_eq!(
        (part.status, part.field("Cache-Control").as_str()),
        (206, "public, max-age=31536000, immutable")
    );
}

#[test]
fn the_user_s_own_caching_wins() {
    let mut expires = site("server { root /srv; spa /index.html; expires 1h; }");
    assert_eq!(expires.get("/users").field("Cache-Control"), "max-age=3600");
    let mut added = site("server { root /srv; spa /index.html; add_header Cache-Control private; }");
    assert_eq!(added.get("/users").field("Cache-Control"), "private");
}

#[test]
fn compressed_siblings_are_served_and_cached_alike() {
    let mut world = site("server { root /srv; spa /index.html; gzip_static on; }");
    let reply = world.get_with("/assets/app-4f3a9b2c.js", "Accept-Encoding: gzip\r\n");
    assert_eq!(reply.text(), "packed");
    assert_eq!(reply.field("Cache-Control"), "public, max-age=31536000, immutable");
    assert_eq!(world.get_with("/users", "Accept-Encoding: gzip\r\n").text(), "index");
}

#[test]
fn a_location_with_an_alias_has_an_index_of_its_own() {
    let http = "server { root /else; location /app/ { alias /srv/; spa /app/index.html; } }";
    let mut world = site(http);
    assert_eq!(world.get("/app/users").text(), "index");
    assert_eq!(world.get("/app/users/").text(), "index");
    assert_eq!(world.get("/app/").text(), "index");
    assert_eq!(world.get("/users").status, 404);
}

#[test]
fn a_missing_index_is_not_found_rather_than_a_cycle() {
    let mut world = World::new("server { root /srv; spa /index.html; }").directory("/srv");
    let reply = world.get("/users");
    assert_eq!(reply.status, 404);
    assert_eq!(
        reply.log_texts(),
        ["[error] open() \"/srv/index.html\" failed (2: No such file or directory)"]
    );
    assert_eq!(world.get("/").status, 404);
}

#[test]
fn try_files_decides_first_and_off_turns_it_off() {
    let mut world = site(
        "server { root /srv; spa /index.html; \
         location /strict/ { try_files $uri =404; } location /plain/ { spa off; } }",
    );
    assert_eq!(world.get("/strict/users").status, 404);
    assert_eq!(world.get("/plain/users").status, 404);
    assert_eq!(world.get("/users").status, 200);
}

#[test]
fn an_index_is_a_uri() {
    for bad in ["index.html", "/", "/pages/", "/$name"] {
        let expected = format!("[emerg] invalid value \"{bad}\"");
        assert_eq!(complaints(&format!("spa {bad};"))[0], expected);
    }
}

#[test]
fn names_that_build_tools_make_are_seen_as_hashed() {
    for name in [
        "/app-4f3a9b2c.js",
        "/assets/index-BkT3dS9x.js",
        "/assets/index-B3k-9T_x.css",
        "/main.4f3a9b2c.js",
        "/static/js/2.4f3a9b2c.chunk.js",
        "/main.4f3a9b2c.js.map",
        "/chunk-3JTC5ZDK.js",
        "/_next/static/chunks/4bd1b696-3c5a1d2f8e9b7a60.js",
        "/font.d41d8cd98f00b204e9800998ecf8427e.woff2",
        "/4f3a9b2c4f3a9b2c.png",
    ] {
        assert!(has_content_hash(name.as_bytes()), "{name}");
    }
}

#[test]
fn names_that_people_give_are_not() {
    for name in [
        "/app.js",
        "/jquery-3.7.1.min.js",
        "/photo-20240115.jpg",
        "/icon-1024x1024.png",
        "/screenshot-1280x720.png",
        "/photo-iPhone14.jpg",
        "/page-UserSettings.js",
        "/report-2024draft.pdf",
        "/IMG-DSCF2345.jpg",
        "/bundle-v20240115.js",
        "/facade00.js",
        "/README",
        "/4f3a9b2c",
        "/-.js",
        "/0f8fad5b-d9cb-469f-a165-70867728950e.jpg",
        "/avatar-0f8fad5b-d9cb-469f-a165-70867728950e.jpg",
        "/app-4f3a9b2c.js/page.js",
        "/release-Version2.zip",
    ] {
        assert!(!has_content_hash(name.as_bytes()), "{name}");
    }
}

#[test]
fn pages_have_neither_extension_nor_hidden_segments() {
    for page in ["/users", "/users/42/", "/a.b/c", "/v1.2/"] {
        assert!(may_be_page(page.as_bytes()), "{page}");
    }
    for other in ["/app.js", "/users/john.doe", "/.env", "/.git/config", "/a/.b/"] {
        assert!(!may_be_page(other.as_bytes()), "{other}");
    }
}

proptest! {
    #[test]
    fn any_path_is_judged_without_panic(path: Vec<u8>) {
        let _ = (has_content_hash(&path), may_be_page(&path));
    }

    #[test]
    fn likely_paths_too(path in "[/.a-c0-2A-]{0,40}") {
        let _ = (has_content_hash(path.as_bytes()), may_be_page(path.as_bytes()));
    }

    /// A hash with digit and letter is found wherever it stands between name and extension.
    #[test]
    fn a_hexadecimal_hash_is_found(hash in "[0-9][a-f][0-9a-f]{6,30}", separator in "[.-]") {
        let path = format!("/assets/name{separator}{hash}.js");
        prop_assert!(has_content_hash(path.as_bytes()));
    }
}
