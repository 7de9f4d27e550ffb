use super::*;
use crate::http::file::Want;
use crate::http::testing::{World, complaints};
use proptest::prelude::*;

/// `/a.js` with three siblings, `/only.js` with a compressed form alone, `/plain.js` without.
fn world(more: &str) -> World {
    World::new(&format!("server {{ root /srv; {more} }}"))
        .file("/srv/a.js", "plain")
        .file("/srv/a.js.br", "brotli!")
        .file("/srv/a.js.zst", "zstandard")
        .file("/srv/a.js.gz", "gzip")
        .file("/srv/only.js.gz", "only")
        .file("/srv/plain.js", "plain")
        .file("/srv/folder.js", "plain")
        .directory("/srv/folder.js.gz")
}

const ALL: &str = "gzip_static on; brotli_static on; zstd_static on;";

fn accepting(world: &mut World, target: &str, accept: &str) -> (String, String, String) {
    let reply = world.get_with(target, &format!("Accept-Encoding: {accept}\r\n"));
    (reply.text().to_owned(), reply.field("Content-Encoding"), reply.field("Vary"))
}

fn of(text: &str, encoding: &str, vary: &str) -> (String, String, String) {
    (text.to_owned(), encoding.to_owned(), vary.to_owned())
}

#[test]
fn the_client_s_weights_choose_the_sibling() {
    let mut world = world(ALL);
    for (accept, text, encoding) in [
        ("gzip, deflate, br, zstd", "brotli!", "br"),
        ("gzip, deflate, zstd", "zstandard", "zstd"),
        ("gzip", "gzip", "gzip"),
        ("br;q=0.1, gzip;q=0.9, zstd;q=0.5", "gzip", "gzip"),
        ("br;q=0, gzip;q=0.5, zstd;q=0.5", "zstandard", "zstd"),
        ("identity", "plain", ""),
        ("*", "plain", ""),
    ] {
        assert_eq!(accepting(&mut world, "/a.js", accept), of(text, encoding, ""), "{accept}");
    }
}

#[test]
fn a_sibling_has_the_original_s_type_and_its_own_validators() {
    let reply = world("gzip_static on;").get_with("/a.js", "Accept-Encoding: gzip\r\nRange: bytes=0-0\r\n");
    assert_eq!((reply.status, reply.text()), (200, "gzip"));
    assert_eq!(reply.field("Content-Type"), "text/javascript");
    assert_eq!(reply.field("ETag"), "\"5f5e1000-4\"");
    assert_eq!(reply.field("Content-Length"), "4");
    assert!(!reply.has("Accept-Ranges"));
}

#[test]
fn what_is_not_there_is_passed_over() {
    let mut world = world(ALL);
    assert_eq!(accepting(&mut world, "/only.js", "br, gzip"), of("only", "gzip", ""));
    assert_eq!(accepting(&mut world, "/plain.js", "br, gzip, zstd"), of("plain", "", ""));
    assert_eq!(accepting(&mut world, "/folder.js", "gzip"), of("plain", "", ""));
    assert_eq!(world.get("/only.js").status, 404);
}

#[test]
fn vary_is_sent_wherever_another_client_could_get_something_else() {
    let mut world = world("gzip_static on; gzip_vary on;");
    assert_eq!(accepting(&mut world, "/a.js", "gzip"), of("gzip", "gzip", "Accept-Encoding"));
    assert_eq!(accepting(&mut world, "/a.js", "br"), of("plain", "", "Accept-Encoding"));
    assert_eq!(world.get("/a.js").field("Vary"), "Accept-Encoding");
    assert_eq!(world.get("/plain.js").field("Vary"), "");
    let missing = world.get("/only.js");
    assert_eq!((missing.status, missing.field("Vary").as_str()), (404, "Accept-Encoding"));
    let same = world.get_with("/a.js", "Accept-Encoding: gzip\r\nIf-None-Match: \"5f5e1000-4\"\r\n");
    assert_eq!((same.status, same.field("Vary").as_str()), (304, "Accept-Encoding"));
    assert!(!same.has("Content-Encoding"));
}

#[test]
fn siblings_that_are_always_sent_depend_on_no_field() {
    let mut world = world("gzip_static always; gzip_vary on;");
    assert_eq!(accepting(&mut world, "/a.js", "identity"), of("gzip", "gzip", ""));
    assert_eq!(world.get("/only.js").text(), "only");
    assert_eq!(world.get("/plain.js").text(), "plain");
}

#[test]
fn siblings_that_are_always_sent_come_behind_accepted_ones() {
    let mut world = world("gzip_static always; zstd_static on;");
    assert_eq!(accepting(&mut world, "/a.js", "zstd;q=0.1"), of("zstandard", "zstd", ""));
    assert_eq!(accepting(&mut world, "/a.js", "br"), of("gzip", "gzip", ""));
}

#[test]
fn a_failed_precondition_answers_without_content_encoding() {
    let reply = world("gzip_static on;").get_with("/a.js", "Accept-Encoding: gzip\r\nIf-Match: \"x\"\r\n");
    assert_eq!(reply.status, 412);
    assert!(!reply.has("Content-Encoding"));
}

#[test]
fn nothing_is_looked_up_that_is_not_wanted() {
    let mut off = world("");
    off.get_with("/a.js", "Accept-Encoding: gzip, br, zstd\r\n");
    assert_eq!(off.lookups, [("/srv/a.js".to_owned(), Want::Open)]);
    let mut on = world(ALL);
    on.get("/a.js");
    assert_eq!(on.lookups, [("/srv/a.js".to_owned(), Want::Open)]);
}

#[test]
fn old_versions_proxies_and_named_browsers_get_the_original() {
    let mut plain = world(ALL);
    let http10 = "GET /a.js HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n";
    assert_eq!(plain.send(http10).text(), "plain");
    assert_eq!(world("gzip_static on; gzip_http_version 1.0;").send(http10).text(), "gzip");
    let text = |more: &str, lines: &str| {
        let lines = format!("Accept-Encoding: gzip\r\n{lines}");
        world(&format!("gzip_static on; {more}")).get_with("/a.js", &lines).text().to_owned()
    };
    let via = "Via: 1.1 p\r\n";
    assert_eq!(text("", via), "plain");
    assert_eq!(text("gzip_proxied any;", via), "gzip");
    assert_eq!(text("gzip_proxied off any;", via), "plain");
    assert_eq!(text("gzip_proxied no_etag;", via), "gzip");
    assert_eq!(text("gzip_proxied no_last_modified;", via), "gzip");
    assert_eq!(text("gzip_proxied expired no-cache no-store private;", via), "gzip");
    assert_eq!(text("gzip_proxied auth;", via), "gzip");
    assert_eq!(text("gzip_proxied auth;", "Via: 1.1 p\r\nAuthorization: Basic eA==\r\n"), "gzip");
    let old = "User-Agent: Mozilla/4.0 (compatible; MSIE 6.0)\r\n";
    assert_eq!(text("", old), "gzip");
    assert_eq!(text("gzip_disable msie6;", old), "plain");
    assert_eq!(text("gzip_disable \"^mozilla/4\";", old), "plain");
    assert_eq!(text("gzip_disable curl;", old), "gzip");
}

#[test]
fn patterns_and_msie6_are_inherited_apart_from_each_other() {
    let mut world =
        World::new("gzip_static on; gzip_disable msie6; server { root /srv; gzip_disable curl; }")
            .file("/srv/a", "plain")
            .file("/srv/a.gz", "gzip");
    for agent in ["curl/8", "MSIE 6.0;"] {
        let lines = format!("Accept-Encoding: gzip\r\nUser-Agent: {agent}\r\n");
        assert_eq!(world.get_with("/a", &lines).text(), "plain", "{agent}");
    }
    assert_eq!(world.get_with("/a", "Accept-Encoding: gzip\r\n").text(), "gzip");
}

#[test]
fn a_sibling_that_may_not_be_read_is_logged_and_passed_over() {
    let mut world = world("gzip_static on;").file_with_mode("/srv/a.js.gz", "gzip", 0o200);
    let reply = world.get_with("/a.js", "Accept-Encoding: gzip\r\n");
    assert_eq!(reply.text(), "plain");
    assert_eq!(reply.log_texts(), ["[error] open() \"/srv/a.js.gz\" failed (13: Permission denied)"]);
}

#[test]
fn bad_arguments_have_nginx_s_messages() {
    for (text, message) in [
        ("gzip_static yes;", "[emerg] invalid value \"yes\""),
        ("gzip_http_version 1.2;", "[emerg] invalid value \"1.2\""),
        ("gzip_proxied some;", "[emerg] invalid value \"some\""),
        ("gzip_proxied any any;", "[warn] duplicate value \"any\""),
        ("gzip_disable \"a(\";", "[emerg] pcre2_compile() failed: missing closing parenthesis in \"a(\""),
        ("brotli_static on; brotli_static on;", "[emerg] \"brotli_static\" directive is duplicate"),
    ] {
        assert_eq!(complaints(text)[0], message);
    }
}

#[test]
fn gzip_is_accepted_by_the_same_texts_as_in_nginx() {
    for yes in [
        "gzip",
        "GZIP",
        "gzip;q=0.001",
        "gzip; q=1",
        "gzip;q=1.000",
        "gzip;q=0.5",
        "gzip;Q=0.5",
        "deflate, gzip",
        "deflate gzip",
        "x-gzip;q=0, gzip",
        "br,gzip;q=0.8",
        "notgzip,gzip",
        "gzip;q=1.",
        "gzip;q=1.0,foo",
        "gzip,",
        "gzip;",
        "a;q=1 gzip",
        "gzip;q=0.5 ",
        "gzip,gzip;q=0",
        "x gzip",
        "gzip;  q=0.5",
        "gzip;q=0.1 ,x",
    ] {
        assert!(gzip_weight(yes.as_bytes()) > 0, "{yes}");
    }
    for no in [
        "",
        "x-gzip",
        "gzip;q=0",
        "gzip;q=0.0",
        "gzip;q=0.0001",
        "gzip ;q=0",
        "gzip; q=0",
        "gzip;q=2",
        "gzip;q=1.001",
        "gzip;q=",
        "gzip;q=.5",
        "gzip;Q=0",
        "gzip;x=1",
        "gzip;q=0.5;x",
        "gzip;q=abc",
        "deflate;gzip",
        "gzipx",
        "gzip x",
        "*",
        "identity",
        "gzip;q=0,gzip",
        "gzip;q =1",
        "gzip; q= 1",
        "gzip;q=0.",
        "gzip;q=0 , gzip",
        "gzip\tx",
        "gzip;q=0.12a",
        "gzip;q=00",
        "gzip;q=0.1234",
        "gzip;q=1.0000",
        "gzip;\tq=0.5",
    ] {
        assert_eq!(gzip_weight(no.as_bytes()), 0, "{no}");
    }
}

#[test]
fn other_codings_are_accepted_as_the_rfc_has_it() {
    for (text, weight) in [
        ("br", 1000),
        ("gzip, BR ;\tq=0.25", 250),
        ("br;q=0", 0),
        ("br;q=0, br", 0),
        ("brx, xbr", 0),
        ("*", 0),
        ("br;level=4", 0),
        ("br;q=1.1", 0),
    ] {
        assert_eq!(listed_weight(text.as_bytes(), b"br"), weight, "{text}");
    }
}

#[test]
fn old_msie_is_told_from_what_only_calls_itself_so() {
    assert!(is_msie6(b"Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)"));
    assert!(is_msie6(b"Mozilla/4.0 (compatible; MSIE 5.5; Windows 98)"));
    assert!(!is_msie6(b"Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1; SV1)"));
    assert!(!is_msie6(b"Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1) Opera 7.0"));
    assert!(!is_msie6(b"Mozilla/4.0 (compatible; MSIE 7.0)"));
    assert!(!is_msie6(b"MSIE 6"));
    assert!(!is_msie6(b"MSIE "));
}

proptest! {
    #[test]
    fn every_weight_that_can_be_written_is_read_back(weight in 0u16..=1000) {
        let text = format!("{}.{:03}", weight / 1000, weight % 1000);
        prop_assert_eq!(qvalue(text.as_bytes()), Some(weight));
        let list = format!("deflate;q=0.1, gzip;q={text},br; q={text}");
        prop_assert_eq!(gzip_weight(list.as_bytes()), weight);
        prop_assert_eq!(listed_weight(list.as_bytes(), b"br"), weight);
    }

    #[test]
    fn any_text_has_a_weight_between_none_and_full(text: Vec<u8>) {
        prop_assert!(gzip_weight(&text) <= 1000);
        prop_assert!(listed_weight(&text, b"br") <= 1000);
        let _ = is_msie6(&text);
    }

    #[test]
    fn likely_texts_have_one_too(text in "[gzip;q=01.,br *]{0,24}") {
        prop_assert!(gzip_weight(text.as_bytes()) <= 1000);
        prop_assert!(listed_weight(text.as_bytes(), b"br") <= 1000);
    }
}
