//! Expected answers are those of nginx for the same configuration and request.

use crate::http::testing::{World, complaints};

fn world(body: &str) -> World {
    World::new(&format!("server {{ root /srv; {body} }}")).file("/srv/f.txt", "f").file("/srv/a/x.txt", "x")
}

/// `location /z` of most worlds: what a rewrite has made of the request.
const SHOW: &str = "location /z { return 200 \"$uri|$args|$1\"; }";

#[track_caller]
fn check_texts(body: &str, cases: &[(&str, &str)]) {
    let mut world = world(body);
    for (target, text) in cases {
        let reply = world.get(target);
        assert_eq!(reply.text(), *text, "{target}");
    }
}

#[test]
fn return_sends_a_text_with_variables_and_the_type_of_the_uri() {
    let mut world = world(
        "default_type text/x; location /a { set $x 1; return 200 \"$x:$y\"; set $y 2; }
         location /b { types { text/html html; } return 404 gone; }",
    );
    let reply = world.get("/a");
    assert_eq!((reply.status, reply.text(), &*reply.field("Content-Type")), (200, "1:", "text/x"));
    let reply = world.get("/b.html");
    assert_eq!((reply.status, reply.text(), &*reply.field("Content-Type")), (404, "gone", "text/html"));
}

#[test]
fn return_of_an_error_code_alone_gives_the_error_page() {
    let mut world = world("error_page 404 /f.txt; location /a { return 404; } location /b { return 404 \"\"; }");
    for target in ["/a", "/b"] {
        let reply = world.get(target);
        assert_eq!((reply.status, reply.text()), (404, "f"), "{target}");
    }
}

#[test]
fn return_of_444_closes_the_connection_unless_it_has_a_text() {
    let mut world = world("location /a { return 444; } location /b { return 444 text; }");
    assert_eq!(world.get("/a").status, 0);
    let reply = world.get("/b");
    assert_eq!((reply.status, reply.text()), (444, "text"));
}

#[test]
fn return_of_a_redirect_code_sets_the_location() {
    let mut world = world(
        "location /1 { return 301 /x?y; } location /2 { return 302 rel; } location /3 { return https://h$uri; }
         location /4 { return 308; } location /5 { return 307 http://$host/; }",
    );
    for (target, status, location) in [
        ("/1", 301, "http://example.com/x?y"),
        ("/2", 302, "rel"),
        ("/3", 302, "https://h/3"),
        ("/4", 308, ""),
        ("/5", 307, "http://example.com/"),
    ] {
        let reply = world.get(target);
        assert_eq!((reply.status, &*reply.field("Location")), (status, location), "{target}");
        assert!(reply.has("Location"), "{target}");
    }
}

#[test]
fn return_of_a_status_without_content_has_no_body() {
    let reply = world("location / { return 204 text; }").get("/");
    assert_eq!((reply.status, reply.text(), reply.has("Content-Type")), (204, "", false));
}

#[test]
fn rewrite_changes_the_uri_and_a_location_is_chosen_for_it() {
    check_texts(
        &format!(
            "{SHOW} location /r {{ rewrite ^/r/(.*)$ /z/$1?a=$1 last; return 200 never; }}
             location /s {{ rewrite ^/s/(.*)$ /z/$1; }} location /t {{ rewrite ^ /z?a=1? last; }}
             location /u {{ rewrite ^ /z?a=1?b=2 last; }} location /v {{ rewrite ^ /z? last; }}"
        ),
        &[
            ("/r/a%20b?c=d", "/z/a b|a=a%20b&c=d|a b"),
            ("/s/q?c=d", "/z/q|c=d|q"),
            ("/t?x", "/z|a=1|"),
            ("/u?x", "/z|a=1?b=2&x|"),
            ("/v?x", "/z||"),
        ],
    );
}

#[test]
fn a_server_level_rewrite_comes_before_the_choice_of_the_location() {
    check_texts(
        &format!("{SHOW} rewrite ^/old/(.*) /z/$1; location /old {{ return 200 old; }}"),
        &[("/old/x", "/z/x||x"), ("/older", "old")],
    );
}

#[test]
fn rewrite_without_a_flag_goes_on_with_the_next_directive() {
    check_texts(
        &format!(
            "{SHOW} location /o {{ rewrite ^/o/(.*) /p/$1; rewrite ^/p/(.*) /z/q$1; }}
             location /r {{ rewrite ^/r/(.*) /z/$1; return 200 \"$uri\"; }}"
        ),
        &[("/o/1", "/z/q1||1"), ("/r/1", "/z/1")],
    );
}

#[test]
fn break_stays_in_the_location() {
    let mut world = world(
        "location /m { rewrite ^/m/(.*) /$1 break; return 200 never; }
         location /n { rewrite ^/n/(.*) /$1; break; return 200 never; }",
    );
    assert_eq!(world.get("/m/f.txt").text(), "f");
    assert_eq!(world.get("/n/f.txt").text(), "f");
}

#[test]
fn rewrite_redirects_by_flag_or_by_scheme() {
    let mut world = world(
        "location /a { rewrite ^/a/(.*)$ /z/$1?a=$1 redirect; } location /b { rewrite ^/b/(.*)$ http://e/$1?; }
         location /c { rewrite ^ $scheme://x/$args permanent; } location /d { rewrite ^ https://x last; }
         location /e { rewrite ^ abc permanent; }",
    );
    for (target, status, location) in [
        ("/a/a%20b%3f?c=d", 302, "http://example.com/z/a%20b??a=a%20b%3F&c=d"),
        ("/b/a%20b?c", 302, "http://e/a%20b"),
        ("/c?x", 301, "http://x/x?x"),
        ("/d?x", 302, "https://x?x"),
        ("/e", 301, "abc"),
    ] {
        let reply = world.get(target);
        assert_eq!((reply.status, &*reply.field("Location")), (status, location), "{target}");
    }
}

#[test]
fn captures_in_set_are_escaped_until_a_rewrite_has_matched() {
    check_texts(
        "location /q { if ($uri ~ ^/q/(.*)$) { set $x $1; return 200 \"$x|$1\"; } }
         location /r { rewrite ^/r/(.*)$ /r/$1; set $x $1; return 200 $x; }",
        &[("/q/a%20b+c", "a%20b%2Bc|a b+c"), ("/r/a%20b", "a b"), ("/q/plain", "plain|plain")],
    );
}

#[test]
fn conditions_on_variables() {
    check_texts(
        "location / {
            set $out \"\";
            if ($args) { set $out \"${out}t\"; }
            if ($args = a) { set $out \"${out}=\"; }
            if ($args != a) { set $out \"${out}!\"; }
            if ($args ~ ^A) { set $out \"${out}~\"; }
            if ($args ~* ^A) { set $out \"${out}*\"; }
            if ($args !~ a) { set $out \"${out}n\"; }
            if ( $args !~* \"a\" ) { set $out \"${out}N\"; }
            return 200 $out;
        }",
        &[("/?a", "t=*"), ("/?A", "t!~*n"), ("/?0", "!nN"), ("/?00", "t!nN"), ("/", "!nN")],
    );
}

#[test]
fn conditions_on_files_ask_for_them_in_the_middle_of_the_program() {
    let mut world = world(
        "location / {
            set $out \"\";
            if (-f $document_root/$args) { set $out \"${out}f\"; }
            if (!-f $document_root/$args) { set $out \"${out}F\"; }
            if (-d $document_root/$args) { set $out \"${out}d\"; }
            if (!-d $document_root/$args) { set $out \"${out}D\"; }
            if (-e $document_root/$args) { set $out \"${out}e\"; }
            if (!-e $document_root/$args) { set $out \"${out}E\"; }
            if (-x $document_root/$args) { set $out \"${out}x\"; }
            if (!-x $document_root/$args) { set $out \"${out}X\"; }
            return 200 $out;
        }",
    )
    .file_with_mode("/srv/run", "", 0o755)
    .failing("/srv/broken", 5);
    for (name, holds) in [("f.txt", "fDeX"), ("a", "FdexX"), ("run", "fDex"), ("none", "FDEX"), ("broken", "FDEX")] {
        let expected: String = if name == "a" { "Fdex".to_owned() } else { holds.to_owned() };
        assert_eq!(world.get(&format!("/?{name}")).text(), expected, "{name}");
        assert_eq!(world.lookups.len(), 8);
    }
}

#[test]
fn the_block_of_an_if_is_a_scope_of_its_own() {
    let mut world = world(
        "location / {
            add_header X outer;
            if ($args = a) { add_header X inner; }
            if ($args = b) { root /srv/a; }
        }",
    );
    assert_eq!(world.get("/f.txt").field("X"), "outer");
    assert_eq!(world.get("/f.txt?a").field("X"), "inner");
    assert_eq!(world.get("/x.txt?b").text(), "x");
    assert_eq!(world.get("/f.txt?b").status, 404);
}

#[test]
fn an_if_of_a_server_changes_no_scope() {
    check_texts(
        "if ($args = a) { set $x yes; } location / { return 200 \"[$x]\"; }",
        &[("/?a", "[yes]"), ("/", "[]")],
    );
}

#[test]
fn a_location_s_handler_stays_when_an_if_holds() {
    let mut world = world("location /g { empty_gif; if ($args) { set $x 1; } }");
    assert_eq!(world.get("/g?1").field("Content-Type"), "image/gif");
}

#[test]
fn named_groups_become_variables() {
    check_texts(
        "location /j { if ($args ~ (?<n>.)(?<m>z)?) { return 200 \"[$n][$m][$2]\"; } return 200 \"no $n\"; }
         location ~ ^/l/(?<name>.*)$ { return 200 \"$name $1\"; }",
        &[("/j?5", "[5][][]"), ("/j?5z", "[5][z][z]"), ("/j", "no "), ("/l/x", "x x")],
    );
}

#[test]
fn a_failed_match_forgets_captures_unless_it_was_negated_into_success() {
    check_texts(
        "location /i { if ($args !~ (.)) { return 200 no; } return 200 \"yes $1\"; }
         location ~ /k(.) { if ($args ~ x) { set $a 1; } return 200 \"[$1]\"; }",
        &[("/i?5", "yes 5"), ("/i", "no"), ("/k7", "[]")],
    );
}

#[test]
fn built_in_variables_that_may_be_set_take_effect() {
    check_texts(
        "location /h { set $args \"q=$args\"; return 200 \"$args $query_string $arg_q\"; }",
        &[("/h?5", "q=5 q=5 5")],
    );
}

#[test]
fn more_than_ten_changes_of_the_uri_are_a_cycle() {
    let mut world = world("location /a { rewrite ^ /b; } location /b { rewrite ^ /a; }");
    let reply = world.get("/a");
    assert_eq!(reply.status, 500);
    let cycle = "rewrite or internal redirection cycle while processing \"/b\"";
    assert!(reply.log.iter().any(|line| line.starts_with(&format!("[error] {cycle}"))), "{:?}", reply.log);
}

#[test]
fn an_empty_uri_is_refused() {
    let reply = world("location / { rewrite ^ ?; }").get("/");
    assert_eq!(reply.status, 500);
    assert!(reply.log[0].starts_with("[error] the rewritten URI has a zero length"), "{:?}", reply.log);
}

#[test]
fn an_alias_is_refused_where_break_has_rewritten_the_uri() {
    let mut world = world("rewrite ^/al/(.*)$ /b/$1 break; location /b/ { alias /srv/a/; }");
    assert_eq!(world.get("/b/x.txt").text(), "x");
    let reply = world.get("/al/x.txt");
    assert_eq!(reply.status, 500);
    let line = "[alert] \"alias\" cannot be used in location \"/b/\" where URI was rewritten";
    assert!(reply.log[0].starts_with(line), "{:?}", reply.log);
}

#[test]
fn a_variable_without_a_value_is_warned_of_once() {
    let body = "location / { if ($nope) { set $nope 1; } return 200 \"[$nope]\"; }";
    let warned = |reply: &crate::http::testing::Reply| {
        reply.log.iter().filter(|line| line.starts_with("[warn] using uninitialized \"nope\" variable")).count()
    };
    let reply = world(body).get("/");
    assert_eq!((reply.text(), warned(&reply)), ("[]", 1), "{:?}", reply.log);
    let reply = world(&format!("uninitialized_variable_warn off; {body}")).get("/");
    assert_eq!(warned(&reply), 0, "{:?}", reply.log);
}

#[test]
fn a_named_group_that_nothing_has_matched_has_no_value_and_is_not_warned_of() {
    let body = "location / { set $either 1; if ($arg_x ~ (?<got>.)(?<either>.)) { } return 200 \"[$got$either]\"; }";
    let warned = |reply: &crate::http::testing::Reply| reply.log.iter().any(|line| line.contains("uninitialized"));
    for (target, text) in [("/", "[1]"), ("/?x=ab", "[ab]")] {
        let reply = world(body).get(target);
        assert_eq!((reply.text(), warned(&reply)), (text, false), "{:?}", reply.log);
    }
}

#[test]
fn rewrite_log_tells_of_matches_and_results() {
    let reply = world("rewrite_log on; location / { rewrite ^/(x) /y/$1?q last; } location /y { return 200; }").get("/x");
    let told: Vec<&str> = reply.log.iter().map(|line| line.split(", client").next().unwrap_or(line)).collect();
    assert_eq!(
        told,
        ["[notice] \"^/(x)\" matches \"/x\"", "[notice] rewritten data: \"/y/x\", args: \"q\""]
    );
}

#[test]
fn mistakes_are_reported_in_nginx_s_words() {
    for (body, message) in [
        ("rewrite ^ \"\";", "empty replacement"),
        ("rewrite ^;", "invalid number of arguments in \"rewrite\" directive"),
        ("rewrite ( x;", "pcre2_compile() failed: missing closing parenthesis in \"(\""),
        ("rewrite ^ x y;", "invalid parameter \"y\""),
        ("return 1000;", "invalid return code \"1000\""),
        ("return abc;", "invalid return code \"abc\""),
        ("return -1;", "invalid return code \"-1\""),
        ("set x 1;", "invalid variable name \"x\""),
        ("set $host 1;", "the duplicate \"host\" variable"),
        ("set $x $;", "invalid variable name"),
        ("if a {}", "invalid condition \"a\""),
        ("if ($a { }", "invalid condition \"$a\""),
        ("if (a) {}", "invalid condition \"a\""),
        ("if ($a = ) {}", "invalid condition \"$a\""),
        ("if ($a == b) {}", "unexpected \"==\" in condition"),
        ("if ($a b c d) {}", "invalid condition \"$a\""),
        ("if (-z x) {}", "invalid condition \"-z\""),
        ("if (!-q x) {}", "invalid condition \"!-q\""),
        ("if (-f) {}", "invalid condition \"-f\""),
        ("if (! -f x) {}", "invalid condition \"!\""),
        ("if ($uri ~ () {}", "pcre2_compile() failed: missing closing parenthesis in \"(\""),
        ("if ($uri ~ b c) {}", "invalid condition \"$uri\""),
        ("if ($) {}", "invalid condition \"$\""),
        ("if () {}", "invalid condition \")\""),
        ("if (${uri}) {}", "unknown \"{uri}\" variable"),
        ("break x;", "invalid number of arguments in \"break\" directive"),
        ("location / { if ($uri) { if ($args) { } } }", "\"if\" directive is not allowed here"),
    ] {
        let told = complaints(&format!("server {{ {body} }}"));
        let message = format!("[emerg] {message}");
        assert!(told.contains(&message), "{body}: {told:?} lacks {message}");
    }
}

#[test]
fn valid_forms_are_not_complained_about() {
    for body in [
        "if ( $uri ) {}",
        "if ( -f x ) {}",
        "if ($uri ~ \"a b\") {}",
        "set $http_foo 1;",
        "set $limit_rate 10k;",
        "return http://x;",
        "location / { if ($args) { return 403; } }",
        "location / { if ($args) { add_header A b; rewrite ^ /x last; } }",
    ] {
        assert_eq!(complaints(&format!("server {{ {body} }}")), [""; 0], "{body}");
    }
}

#[test]
fn an_if_that_does_not_do_what_it_looks_like_is_warned_of() {
    let told = complaints("server { location / { if ($args) { root /x; } } }");
    assert!(told[0].starts_with("[warn] \"root\" inside \"if\""), "{told:?}");
    for body in [
        "try_files $uri =404; if ($args) { set $x 1; }",
        "if ($args) { set $x 1; } try_files $uri =404;",
    ] {
        let told = complaints(&format!("server {{ location / {{ {body} }} }}"));
        assert!(told[0].starts_with("[warn] \"try_files\" of this location has no effect"), "{told:?}");
    }
    let fine = "if ($args) { return 403; } try_files $uri =404; if ($uri ~ x) { rewrite ^ /y last; }";
    assert_eq!(complaints(&format!("server {{ location / {{ {fine} }} }}")), [""; 0]);
}
