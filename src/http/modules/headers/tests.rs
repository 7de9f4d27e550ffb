//! Expected answers are those of nginx for the same configuration and request.

use crate::http::testing::{Reply, World, complaints};

fn world(body: &str) -> World {
    World::new(&format!("server {{ root /srv; {body} }}")).file("/srv/f.txt", "hello").file("/srv/d/f.txt", "f")
}

/// The lines behind the slots, without Connection.
fn lines(reply: &Reply) -> Vec<&str> {
    let skipped = ["HTTP/", "Server:", "Date:", "Content-", "Connection:", "Last-Modified:", "ETag:", "Accept-Ranges:"];
    reply
        .head
        .lines()
        .filter(|line| !line.is_empty() && !skipped.iter().any(|skip| line.starts_with(skip)))
        .collect()
}

#[test]
fn lines_are_added_to_successful_responses_and_always_to_all() {
    let mut world = world(
        "add_header A $uri; add_header B b always; add_header C \"\"; add_header D $arg_none;
         location /e { return 404; }",
    );
    assert_eq!(lines(&world.get("/f.txt")), ["A: /f.txt", "B: b"]);
    assert_eq!(lines(&world.get("/e")), ["B: b"]);
    assert_eq!(lines(&world.get("/missing")), ["B: b"]);
}

#[test]
fn cache_control_lines_add_up_behind_expires() {
    let reply =
        world("add_header Cache-Control no-store; add_header cache-control private; expires 1h;").get("/f.txt");
    assert_eq!(
        lines(&reply),
        [
            "Expires: Tue, 14 Nov 2023 23:13:20 GMT",
            "Cache-Control: max-age=3600",
            "Cache-Control: no-store",
            "cache-control: private"
        ]
    );
}

#[test]
fn last_modified_and_etag_are_replaced_or_removed() {
    let mut world = world(
        "location /f.txt { add_header last-modified \"Sat, 21 Nov 2020 03:09:28 GMT\"; add_header etag '\"x\"'; }
         location /d { add_header Last-Modified \"\"; add_header ETag \"\"; }",
    );
    let reply = world.get("/f.txt");
    assert_eq!(reply.field("Last-Modified"), "Sat, 21 Nov 2020 03:09:28 GMT");
    assert_eq!(reply.field("ETag"), "\"x\"");
    let reply = world.get("/d/f.txt");
    assert_eq!((reply.has("Last-Modified"), reply.has("ETag")), (false, false));
}

#[test]
fn a_replaced_etag_is_what_if_range_is_compared_with() {
    let mut world = world("add_header ETag '\"x\"';");
    let reply = world.get_with("/f.txt", "Range: bytes=0-0\r\nIf-Range: \"x\"\r\n");
    assert_eq!((reply.status, reply.text()), (206, "h"));
}

#[test]
fn lines_are_inherited_as_the_mode_says() {
    let body = |mode: &str, own: &str| {
        format!("add_header A a; location /f.txt {{ {mode} {own} location /f.txt/x {{ }} }}")
    };
    for (mode, own, expected) in [
        ("", "", &["A: a"][..]),
        ("", "add_header B b;", &["B: b"]),
        ("add_header_inherit on;", "add_header B b;", &["B: b"]),
        ("add_header_inherit off;", "", &[]),
        ("add_header_inherit off;", "add_header B b;", &["B: b"]),
        ("add_header_inherit merge;", "add_header B b;", &["B: b", "A: a"]),
        ("add_header_inherit merge;", "", &["A: a"]),
    ] {
        let reply = world(&body(mode, own)).get("/f.txt");
        assert_eq!(lines(&reply), expected, "{mode} {own}");
    }
}

#[test]
fn the_mode_itself_is_inherited() {
    let reply = world("add_header_inherit merge; add_header A a; location / { add_header B b; }").get("/f.txt");
    assert_eq!(lines(&reply), ["B: b", "A: a"]);
}

#[test]
fn hidden_lines_are_warned_of_where_they_are_hidden() {
    let told = complaints("server { add_header A a; location / { add_header B b; } }");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("[warn] this \"add_header\" makes those of the outer level disappear"), "{told:?}");
    for fine in [
        "server { add_header A a; location / { } }",
        "server { add_header A a; location / { add_header_inherit merge; add_header B b; } }",
        "server { add_header A a; location / { add_header_inherit off; add_header B b; } }",
        "server { location / { add_header B b; } }",
    ] {
        assert_eq!(complaints(fine), [""; 0], "{fine}");
    }
}

#[test]
fn expires_in_all_forms() {
    let form = |form: &str, target: &str| {
        let reply = world(&format!("expires {form};")).get(target);
        (reply.field("Expires"), reply.field("Cache-Control"))
    };
    let dated = |date: &str, control: &str| (date.to_owned(), control.to_owned());
    let epoch = dated("Thu, 01 Jan 1970 00:00:01 GMT", "no-cache");
    let nothing = dated("", "");
    assert_eq!(form("epoch", "/f.txt"), epoch);
    assert_eq!(form("max", "/f.txt"), dated("Thu, 31 Dec 2037 23:55:55 GMT", "max-age=315360000"));
    assert_eq!(form("off", "/f.txt"), nothing);
    assert_eq!(form("-1", "/f.txt"), dated("Tue, 14 Nov 2023 22:13:19 GMT", "no-cache"));
    assert_eq!(form("0", "/f.txt"), dated("Tue, 14 Nov 2023 22:13:20 GMT", "max-age=0"));
    assert_eq!(form("+1d", "/f.txt"), dated("Wed, 15 Nov 2023 22:13:20 GMT", "max-age=86400"));
    assert_eq!(form("@23h", "/f.txt"), dated("Tue, 14 Nov 2023 23:00:00 GMT", "max-age=2800"));
    assert_eq!(form("@1h", "/f.txt"), dated("Wed, 15 Nov 2023 01:00:00 GMT", "max-age=10000"));
    assert_eq!(form("modified 10y", "/f.txt").1, "max-age=215360000");
    assert_eq!(form("modified 1d", "/f.txt"), dated("Mon, 14 Sep 2020 12:26:40 GMT", "no-cache"));
    assert_eq!(form("$arg_e", "/f.txt?e=5m"), dated("Tue, 14 Nov 2023 22:18:20 GMT", "max-age=300"));
    assert_eq!(form("$arg_e", "/f.txt?e=epoch"), epoch);
    assert_eq!(form("modified $arg_e", "/f.txt?e=max"), nothing);
    for silent in ["off", "bad", ""] {
        assert_eq!(form("$arg_e", &format!("/f.txt?e={silent}")), nothing, "{silent}");
    }
    assert_eq!(form("1h", "/missing"), nothing);
}

#[test]
fn trailers_follow_a_body_that_is_chunked_for_them() {
    let mut world = world("add_trailer T \"$arg_x|$sent_http_content_type\"; add_trailer E \"\";");
    let reply = world.get("/f.txt?x=1");
    assert_eq!(reply.field("Transfer-Encoding"), "chunked");
    assert!(!reply.has("Content-Length"));
    assert_eq!(reply.text(), "hello");
    assert_eq!(reply.trailers, [("T".to_owned(), "1|text/plain".to_owned())]);
    let reply = world.get("/missing");
    assert!(reply.trailers.is_empty() && reply.has("Content-Length"));
}

#[test]
fn responses_that_cannot_have_trailers_keep_their_length() {
    let mut world = world("add_trailer T t;");
    for request in ["GET /f.txt HTTP/1.0\r\n\r\n", "HEAD /f.txt HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let reply = world.send(request);
        assert_eq!(reply.field("Content-Length"), "5", "{request}");
    }
}

#[test]
fn variables_show_the_response_as_it_is() {
    let body = "add_header A 1; add_header a 2; add_header L \"$sent_http_a|$sent_http_content_length|\
                $sent_http_content_type|$sent_http_last_modified|$sent_http_etag|$sent_http_server|\
                $sent_http_connection|$sent_http_none\";";
    let reply = world(body).get("/f.txt");
    assert_eq!(
        reply.field("L"),
        "1, 2|5|text/plain|Sun, 13 Sep 2020 12:26:40 GMT|\"5f5e1000-5\"||keep-alive|"
    );
}

#[test]
fn mistakes_are_reported_in_nginx_s_words() {
    for (body, message) in [
        ("expires @25h;", "\"expires\" directive daily time value must be less than 24 hours"),
        ("expires bad;", "\"expires\" directive invalid value"),
        ("expires foo 1d;", "\"expires\" directive invalid value"),
        ("expires modified @1h;", "\"expires\" directive daily time cannot be used with \"modified\" parameter"),
        ("expires 1d; expires 2d;", "\"expires\" directive is duplicate"),
        ("add_header A;", "invalid number of arguments in \"add_header\" directive"),
        ("add_header A b c;", "invalid parameter \"c\""),
        ("expires \"\";", "\"expires\" directive invalid value"),
        ("expires modified off;", "\"expires\" directive invalid value"),
    ] {
        let told = complaints(&format!("server {{ {body} }}"));
        assert_eq!(told, [format!("[emerg] {message}")], "{body}");
    }
}
