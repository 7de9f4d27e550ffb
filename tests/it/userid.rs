//! `userid`.

use crate::util::{Cases, Server, eventually, get, request};

/// A cookie as nginx makes it.
const COOKIE: &str = "Cookie: x=1; uid=fwAAAWkgAABnAgMDAwMCAg==";
const SHOWN: &str = "uid=0100007F000020690303026702020303";

#[test]
fn cookies_of_nginx_are_known() {
    Cases::new(
        "server { listen {port}; userid on; add_header X-Got [$uid_got] always; add_header X-Set [$uid_set] always;
           location / { return 200 ok; }
           location /mark { userid_mark Z; userid_expires max; userid_path /p; userid_p3p CP; return 404; }
           location /log { userid log; return 200 ok; }
           location /off { userid off; return 200 ok; } }",
    )
    .show(&["x-got", "x-set", "set-cookie", "p3p"])
    .get_with("/", COOKIE, &format!("200 ok [x-got: [{SHOWN}]] [x-set: []]"))
    .get_with(
        "/mark",
        COOKIE,
        &format!(
            "404 [x-got: [{SHOWN}]] [x-set: [{SHOWN}]] [set-cookie: uid=fwAAAWkgAABnAgMDAwMCAgZ=; \
             expires=Thu, 31-Dec-37 23:55:55 GMT; path=/p] [p3p: CP]"
        ),
    )
    .get_with("/mark", "Cookie: uid=fwAAAWkgAABnAgMDAwMCAgZ=", &format!("404 [x-got: [{SHOWN}]] [x-set: []]"))
    .get_with("/log", COOKIE, &format!("200 ok [x-got: [{SHOWN}]] [x-set: []]"))
    .get_with("/log", "Cookie: uid=short", "200 ok [x-got: []] [x-set: []]")
    .get("/log", "200 ok [x-got: []] [x-set: []]")
    .get_with("/off", COOKIE, "200 ok [x-got: []] [x-set: []]")
    .check();
}

#[test]
fn every_new_client_gets_a_cookie_of_its_own() {
    let server = Server::start(
        "server { listen {port}; userid on; userid_domain example.com; userid_flags secure httponly samesite=strict;
           add_header X-Got $uid_got; add_header X-Set $uid_set; return 200 ok; }",
    );
    let (one, other) = (get(server.port(), "/"), get(server.port(), "/"));
    let cookie = one.header("set-cookie").expect("a cookie");
    assert_ne!(Some(cookie), other.header("set-cookie"));
    let (pair, attributes) = cookie.split_once("; ").expect("attributes");
    assert_eq!(attributes, "domain=example.com; path=/; secure; httponly; samesite=strict");
    let back = request(server.port(), "GET", "/", &[("Cookie", pair)]);
    assert_eq!((back.header("set-cookie"), back.header("x-got")), (None, one.header("x-set")));
    // It begins with the address that the client came to.
    assert!(back.header("x-got").expect("known").starts_with("uid=0100007F"));
}

#[test]
fn a_variable_asks_for_a_new_cookie() {
    let server = Server::start(
        "server { listen {port}; userid on; set $uid_reset $arg_r; add_header X-Got $uid_got; return 200 ok; }",
    );
    let ask = |path: &str| {
        request(server.port(), "GET", path, &[("Cookie", "uid=fwAAAWkgAABnAgMDAwMCAg==")])
            .header("set-cookie")
            .is_some()
    };
    assert!(ask("/?r=1") && ask("/?r=log"));
    assert!(!ask("/?r=0") && !ask("/?r="));
    eventually("a line in the log", || server.error_log().contains("userid cookie \"uid\" was reset"));
}
