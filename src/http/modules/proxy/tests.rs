//! What upstreams get, and what clients get of their answers.

use crate::http::testing::{Reply, World, complaints};
use crate::http::upstream_call::{CallBody, PassAddress, Target, conditions};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn server(content: &str) -> World {
    World::new(&format!("server {{ {content} }}"))
}

/// The request line that a request for `target` becomes.
fn uri_of(location: &str, target: &str) -> String {
    let mut world = server(location);
    let reply = world.upstream(OK).get(target);
    assert_eq!(reply.status, 200, "{location} {target}: {:?}", reply.log);
    world.calls[0].request_line().to_owned()
}

/// The response to a GET that an upstream answered so, under these settings.
fn answered(settings: &str, response: &str) -> Reply {
    let mut world = server(&format!("location / {{ proxy_pass http://b; {settings} }}"));
    world.upstream(response).get("/")
}

#[test]
fn a_bare_request_goes_on_with_its_fields() {
    let mut world = server("location / { proxy_pass http://backend:8080; }");
    let reply = world
        .upstream(OK)
        .send("GET /a HTTP/1.1\r\nHost: x\r\nX-One: 1\r\nconnection: close\r\nTE: gzip\r\nx-two: \r\n\r\n");
    assert_eq!((reply.status, reply.text()), (200, "ok"));
    let call = &world.calls[0];
    assert_eq!(call.head, "GET /a HTTP/1.1\r\nHost: backend:8080\r\nX-One: 1\r\nx-two: \r\n\r\n");
    assert!(call.call.keep_alive && call.call.idempotent && !call.call.asks_upgrade && call.call.buffering);
}

/// nginx 1.22 sends these.
#[test]
fn the_uri_is_the_client_s_unless_something_replaces_it() {
    let bare = "location / { proxy_pass http://b; }";
    for target in ["/a%2Fb//c/../d?x=%41&y", "/", "/a?", "/%e4/\u{e4}"] {
        assert_eq!(uri_of(bare, target), format!("GET {target} HTTP/1.1"));
    }
    let cases = [
        ("location /a/ { proxy_pass http://b/; }", "/a/x", "/x"),
        ("location /a/ { proxy_pass http://b/z/; }", "/a/x?y=1", "/z/x?y=1"),
        ("location /a { proxy_pass http://b/; }", "/a/x", "//x"),
        ("location = /a { proxy_pass http://b/z; }", "/a?q", "/z?q"),
        ("location /a/ { proxy_pass http://b/; }", "/a/%20b%2Fc//d", "/%20b/c/d"),
        ("location /a/ { proxy_pass http://b/; }", "/a/../a/x", "/x"),
        ("location /a/ { proxy_pass http://b?z; }", "/a/x", "/?zx"),
        ("location /a/ { proxy_pass http://unix:/s:/u/; }", "/a/x", "/u/x"),
        ("location / { rewrite ^/a(.*)$ /b$1 break; proxy_pass http://b; }", "/a/x?y", "/b/x?y"),
        ("location / { rewrite ^/a(.*)$ /b$1 break; proxy_pass http://b/z/; }", "/a/x", "/b/x"),
        ("location / { set $v b; proxy_pass http://$v; }", "/a%2Fb?c", "/a%2Fb?c"),
        ("location / { set $v b; proxy_pass http://$v/z; }", "/a?c", "/z"),
        ("location / { set $v b; proxy_pass http://$v$request_uri; }", "/a%2Fb?c", "/a%2Fb?c"),
        ("location / { proxy_pass http://b; if ($arg_x) { proxy_pass http://c; } }", "/a?x=1", "/a?x=1"),
        ("location / { internal; } location /e { proxy_pass http://b; } error_page 404 = /e;", "/a", "/e"),
        ("location / { internal; error_page 404 = @e; } location @e { proxy_pass http://b; }", "/%41", "/%41"),
    ];
    for (location, target, uri) in cases {
        assert_eq!(uri_of(location, target), format!("GET {uri} HTTP/1.1"), "{location} {target}");
    }
}

#[test]
fn variables_never_break_the_request_line() {
    let location = "location / { set $v b; proxy_pass http://$v$arg_u; }";
    assert_eq!(uri_of("location ~ (?s)/(.*) { set $v b; proxy_pass http://$v/$1; }", "/a%20b%0d%0aX"), "GET /a%20b%0D%0AX HTTP/1.1");
    assert_eq!(uri_of(location, "/?u=/x%20y"), "GET /x%20y HTTP/1.1");
}

#[test]
fn variables_may_name_any_address() {
    let mut world = server("location / { proxy_pass http://$arg_a; }");
    world.upstream(OK).get("/?a=[::1]:81/x");
    let expected = PassAddress::Host { host: b"::1"[..].into(), port: Some(81), default_port: 80 };
    assert_eq!(world.calls[0].call.target, Target::Computed(expected));
    assert_eq!(world.calls[0].lines(), ["Host: [::1]:81"]);
    let reply = world.get("/?a=b:x");
    assert_eq!((reply.status, reply.log_texts()), (500, vec!["[error] invalid port in upstream \"b:x\""]));
    let mut world = server("location / { proxy_pass $arg_a; }");
    let reply = world.get("/?a=ftp:");
    assert_eq!((reply.status, reply.log_texts()), (500, vec!["[error] invalid URL prefix in \"ftp:\""]));
    world.upstream(OK).get("/?a=https://b");
    let call = &world.calls.last().unwrap().call;
    let expected = PassAddress::Host { host: b"b"[..].into(), port: None, default_port: 443 };
    assert_eq!(call.target, Target::Computed(expected));
    assert_eq!(&*call.tls.as_ref().unwrap().name, "b");
    world.upstream(OK).get("/?a=http://b");
    assert!(world.calls.last().unwrap().call.tls.is_none());
}

#[test]
fn https_has_its_own_usual_port_and_the_host_s_name() {
    for (directives, host, name) in [
        ("proxy_pass https://B;", "B", "B"),
        ("proxy_pass https://B:443;", "B", "B"),
        ("proxy_pass HTTPS://B:8443;", "B:8443", "B"),
        ("proxy_pass https://unix:/s:;", "localhost", "localhost"),
        ("proxy_pass https://b:80; proxy_ssl_name $proxy_host;", "b:80", "b"),
        ("proxy_pass https://b; proxy_ssl_name c$arg_x:1;", "b", "c"),
    ] {
        let mut world = server(&format!("location / {{ {directives} }}"));
        world.upstream(OK).get("/");
        assert_eq!(world.calls[0].lines(), [format!("Host: {host}")], "{directives}");
        assert_eq!(&*world.calls[0].call.tls.as_ref().unwrap().name, name, "{directives}");
    }
}

#[test]
fn lines_of_the_configuration_take_the_place_of_the_client_s() {
    let mut world = server(
        "location / { proxy_pass http://b; proxy_set_header Host $host; proxy_set_header X-A $arg_a; \
         proxy_set_header x-b \"\"; proxy_set_header X-A 2; proxy_set_header Accept-Encoding \"\"; }",
    );
    world.upstream(OK).get_with("/?a=1", "x-a: client\r\nX-B: client\r\nAccept-Encoding: gzip\r\nX-C: c\r\n");
    assert_eq!(world.calls[0].lines(), ["Host: example.com", "X-A: 1", "X-A: 2", "X-C: c"]);
    world.upstream(OK).get("/?a=");
    assert_eq!(world.calls[0].lines(), ["Host: example.com", "X-A: 2"]);
}

#[test]
fn an_empty_host_is_that_of_the_address() {
    let mut world = server("location / { proxy_pass http://B:80; proxy_set_header Host $http_x; }");
    world.upstream(OK).get("/");
    assert_eq!(world.calls[0].lines(), ["Host: B"]);
}

#[test]
fn no_value_writes_lines_of_its_own() {
    let mut world =
        server("location ~ (?s)^/(.*)$ { proxy_pass http://b; proxy_set_header X-A $1; proxy_set_header Host $1; }");
    world.upstream(OK).get("/a%0d%0aInjected:%201%0a");
    assert_eq!(world.calls[0].lines(), ["Host: a  Injected: 1 ", "X-A: a  Injected: 1 "]);
}

#[test]
fn fields_that_connection_names_stay_here() {
    let mut world = server("location / { proxy_pass http://b; proxy_set_header X-Real-IP $remote_addr; }");
    world.upstream(OK).get_with("/", "Connection: close, X-Secret,x-real-ip\r\nX-Secret: 1\r\nX-Other: 2\r\n");
    assert_eq!(world.calls[0].lines(), ["Host: b", "X-Real-IP: 192.0.2.1", "X-Other: 2"]);
    let many: Vec<String> = (0..40).map(|number| format!("x-{number}")).collect();
    let reply = world.get_with("/", &format!("Connection: {}\r\n", many.join(",")));
    assert_eq!((reply.status, world.calls.len()), (400, 0));
}

const WEBSOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n";

#[test]
fn an_upgrade_goes_on_by_itself() {
    let mut world = server("location / { proxy_pass http://b; }");
    let switching = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nX: y\r\n\r\n";
    let reply = world.upstream(switching).get_with("/", WEBSOCKET);
    let lines = ["Host: b", "Upgrade: websocket", "Connection: upgrade", "Sec-WebSocket-Key: x"];
    assert_eq!((world.calls[0].lines(), world.calls[0].call.asks_upgrade), (lines.to_vec(), true));
    assert_eq!((reply.status, &*reply.field("upgrade"), &*reply.field("x")), (101, "websocket", "y"));
    assert_eq!(reply.field("connection"), "upgrade");
    assert!(!reply.has("content-length") && !reply.has("transfer-encoding"));
}

#[test]
fn no_upgrade_goes_on_that_the_client_cannot_mean_or_the_configuration_forbids() {
    let asked = |settings: &str, request: &str| {
        let mut world = server(&format!("location / {{ proxy_pass http://b; {settings} }}"));
        world.upstream(OK).send(request);
        let call = &world.calls[0];
        assert_eq!(call.call.asks_upgrade, call.lines().contains(&"Connection: upgrade"), "{settings}");
        call.call.asks_upgrade
    };
    let request = format!("GET / HTTP/1.1\r\nHost: x\r\n{WEBSOCKET}\r\n");
    assert!(asked("", &request));
    assert!(asked("proxy_set_header Connection \"\";", &request));
    assert!(asked("proxy_set_header Upgrade $http_upgrade;", &request));
    assert!(asked("proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;", &request));
    assert!(!asked("proxy_set_header Upgrade \"\";", &request));
    assert!(!asked("proxy_set_header Connection close;", &request));
    assert!(!asked("proxy_http_version 1.0;", &request));
    assert!(!asked("compat strict;", &request));
    assert!(!asked("", "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n"));
    assert!(!asked("", &request.replace("HTTP/1.1", "HTTP/1.0")));
    assert!(!asked("", &request.replace("websocket", "h2c")));
    assert!(!asked("", &request.replace("Upgrade: websocket", "Upgrade: websocket, HTTP/2.0")));
}

#[test]
fn connections_are_kept_as_the_version_and_its_field_say() {
    let kept = |settings: &str| {
        let mut world = server(&format!("location / {{ proxy_pass http://b; {settings} }}"));
        world.upstream(OK).get("/");
        (world.calls[0].call.keep_alive, world.calls[0].request_line().ends_with("HTTP/1.0"))
    };
    assert_eq!(kept(""), (true, false));
    assert_eq!(kept("proxy_set_header Connection close;"), (false, false));
    assert_eq!(kept("proxy_http_version 1.0;"), (false, true));
    assert_eq!(kept("proxy_http_version 1.0; proxy_set_header Connection keep-alive;"), (true, true));
}

#[test]
fn bodies_are_framed_by_what_is_sent() {
    let sent = |settings: &str, request: &str| {
        let mut world = server(&format!("location / {{ proxy_pass http://b; {settings} }}"));
        world.upstream(OK).send(request);
        let call = &world.calls[0];
        let framing: Vec<&str> = call
            .lines()
            .into_iter()
            .filter(|line| line.starts_with("Content-Length") || line.starts_with("Transfer"))
            .collect();
        (framing.join("|"), call.body.clone(), call.call.body.clone())
    };
    let none = |framing: &str| (framing.to_owned(), String::new(), CallBody::None);
    let read = |framing: &str, body: &str| (framing.to_owned(), body.to_owned(), CallBody::Read);
    let length = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
    let chunked = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let empty = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(sent("", length), read("Content-Length: 5", "hello"));
    assert_eq!(sent("", chunked), read("Content-Length: 5", "hello"));
    assert_eq!(sent("", empty), none("Content-Length: 0"));
    assert_eq!(sent("", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"), none(""));
    assert_eq!(sent("proxy_pass_request_body off;", length), none("Content-Length: 0"));
    let lies = "proxy_set_header Content-Length 99; proxy_set_header Transfer-Encoding chunked;";
    assert_eq!(sent(lies, length), read("Content-Length: 5", "hello"));
    assert_eq!(sent("proxy_set_header Content-Length \"\";", length), read("Content-Length: 5", "hello"));
    assert_eq!(sent("proxy_set_header Content-Length 1;", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"), none(""));
    let set = sent("proxy_set_body <$request_body>;", length);
    assert_eq!((&*set.0, &*set.1), ("Content-Length: 7", "<hello>"));
    let off = "proxy_request_buffering off;";
    assert_eq!(sent(off, length), ("Content-Length: 5".into(), "".into(), CallBody::Streamed { chunked: false }));
    assert_eq!(sent(off, chunked), ("Transfer-Encoding: chunked".into(), "".into(), CallBody::Streamed { chunked: true }));
    assert_eq!(sent(&format!("{off} proxy_http_version 1.0;"), chunked), read("Content-Length: 5", "hello"));
    assert_eq!(sent(off, empty), none("Content-Length: 0"));
}

#[test]
fn the_method_may_be_another() {
    let mut world = server("location / { proxy_pass http://b; proxy_method $arg_m; }");
    world.upstream(OK).send("HEAD /?m=PURGE HTTP/1.1\r\nHost: x\r\n\r\n");
    let call = &world.calls[0];
    assert_eq!(call.request_line(), "PURGE /?m=PURGE HTTP/1.1");
    assert!(!call.call.is_head && !call.call.idempotent);
    world.upstream("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").get("/?m=HEAD");
    assert!(world.calls[0].call.is_head);
    let mut world = server("location ~ /(.*) { proxy_pass http://b; proxy_method $1; }");
    let reply = world.get("/a%20b");
    let expected = ["[error] the method of a request to an upstream is no token"];
    assert_eq!((reply.status, reply.log_texts()), (500, expected.to_vec()));
}

#[test]
fn the_head_that_comes_back_keeps_what_is_the_client_s() {
    let reply = answered(
        "",
        "HTTP/1.1 201 Made it\r\nServer: up\r\nDate: now\r\nContent-Type: text/x\r\nContent-Length: 3\r\n\
         Last-Modified: Sun, 13 Sep 2020 12:26:40 GMT\r\nETag: \"e\"\r\nX-A: 1\r\nX-Pad: x\r\nX-Accel-Expires: 1\r\n\
         Connection: keep-alive, x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\nX-A: 2\r\n\r\nabc",
    );
    assert_eq!((reply.status, reply.text()), (201, "abc"));
    assert!(reply.head.starts_with("HTTP/1.1 201 Made it\r\nServer: thalweg"), "{}", reply.head);
    for (name, value) in [
        ("date", "Tue, 14 Nov 2023 22:13:20 GMT"),
        ("content-type", "text/x"),
        ("content-length", "3"),
        ("last-modified", "Sun, 13 Sep 2020 12:26:40 GMT"),
        ("etag", "\"e\""),
        ("x-a", "1|2"),
        ("connection", "keep-alive"),
    ] {
        assert_eq!(reply.field(name), value, "{name}");
    }
    for name in ["x-pad", "x-accel-expires", "x-hop", "keep-alive", "upgrade"] {
        assert!(!reply.has(name), "{name}");
    }
}

#[test]
fn hidden_fields_may_be_shown_and_others_hidden() {
    let settings = "proxy_pass_header Server; proxy_pass_header date; proxy_hide_header ETAG; proxy_hide_header X-A;";
    let reply = answered(settings, "HTTP/1.1 200 OK\r\nServer: up\r\nDate: now\r\nETag: \"e\"\r\nX-A: 1\r\n\r\n");
    assert_eq!((&*reply.field("server"), &*reply.field("date")), ("up", "now"));
    assert!(!reply.has("etag") && !reply.has("x-a"));
}

#[test]
fn responses_without_content_carry_no_framing() {
    for status in ["204 No Content", "304 Not Modified"] {
        let reply = answered("", &format!("HTTP/1.1 {status}\r\nETag: \"e\"\r\n\r\n"));
        assert!(!reply.has("content-length") && !reply.has("transfer-encoding"), "{}", reply.head);
        assert_eq!(reply.field("etag"), "\"e\"");
    }
    let mut world = server("location / { proxy_pass http://b; }");
    world.upstream("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n");
    let reply = world.send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((&*reply.field("content-length"), reply.body.len()), ("1234", 0));
}

#[test]
fn conditions_of_the_client_are_the_upstream_s_to_judge() {
    let mut world = server("location / { proxy_pass http://b; }");
    let response = "HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: 2\r\n\r\nok";
    let reply = world.upstream(response).get_with("/", "If-None-Match: \"e\"\r\nRange: bytes=0-0\r\n");
    assert_eq!((reply.status, reply.text()), (200, "ok"));
    assert_eq!(world.calls[0].lines()[1..], ["If-None-Match: \"e\"", "Range: bytes=0-0"]);
}

/// nginx 1.22 answers so.
#[test]
fn addresses_are_seen_from_the_client() {
    let location = |settings: &str, value: &str| {
        let mut world = server(&format!("location /one/ {{ {settings} }}"));
        let reply = world
            .upstream(&format!("HTTP/1.1 302 Found\r\nLocation: {value}\r\nContent-Length: 0\r\n\r\n"))
            .get("/one/");
        assert_eq!(reply.status, 302);
        reply.field("location")
    };
    let here = "http://example.com";
    let with_uri = "proxy_pass http://b:81/two/;";
    assert_eq!(location(with_uri, "http://b:81/two/x?y"), format!("{here}/one/x?y"));
    assert_eq!(location(with_uri, "http://b/two/x"), "http://b/two/x");
    assert_eq!(location(with_uri, "/two/x"), "/two/x");
    assert_eq!(location("proxy_pass http://b;", "http://b/x"), format!("{here}/x"));
    assert_eq!(location("proxy_pass http://b; absolute_redirect off;", "http://b/x"), "/x");
    assert_eq!(location("proxy_pass http://b; proxy_redirect off;", "http://b/x"), "http://b/x");
    assert_eq!(location("proxy_pass http://$host;", "http://example.com/x"), "http://example.com/x");
    let pairs = "proxy_pass http://b; proxy_redirect http://c/ /c/; proxy_redirect ~*^HTTP://d(:\\d+)?(/.*)$ $scheme://e$2; \
                 proxy_redirect default;";
    assert_eq!(location(pairs, "http://c/x"), format!("{here}/c/x"));
    assert_eq!(location(pairs, "http://D:99/x"), "http://e/x");
    assert_eq!(location(pairs, "http://b/x"), format!("{here}/x"));
    assert_eq!(location(pairs, "http://z/x"), "http://z/x");
    let variables = "proxy_pass http://b; proxy_redirect http://$proxy_host:8000/ http://$host/p/;";
    assert_eq!(location(variables, "http://b:8000/x"), "http://example.com/p/x");
}

#[test]
fn refresh_is_rewritten_too() {
    let reply = answered("", "HTTP/1.1 200 OK\r\nRefresh: 0; URL=http://b/x\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(reply.field("refresh"), "0; URL=/x");
}

#[test]
fn cookies_are_rewritten() {
    let cookie = |settings: &str, value: &str| {
        answered(settings, &format!("HTTP/1.1 200 OK\r\nSet-Cookie: {value}\r\nContent-Length: 0\r\n\r\n")).field("set-cookie")
    };
    let untouched = "a=b ;  Path=/x;Domain=z";
    assert_eq!(cookie("", untouched), untouched);
    assert_eq!(cookie("proxy_cookie_path /y /z;", untouched), untouched);
    assert_eq!(cookie("proxy_cookie_path /x/ /y/;", "a=b; path=/x/1; Secure"), "a=b; path=/y/1; Secure");
    assert_eq!(cookie("proxy_cookie_path ~*^/X/(.*)$ /$1;", "a=b; path=/x/1"), "a=b; path=/1");
    assert_eq!(cookie("proxy_cookie_domain .B.com c.org;", "a=b; domain=.b.Com"), "a=b; domain=.c.org");
    assert_eq!(cookie("proxy_cookie_domain ~\\.?(\\w+)\\.b$ $1.c;", "a=b; Domain=x.b"), "a=b; Domain=x.c");
    assert_eq!(cookie("proxy_cookie_domain off; proxy_cookie_domain b c;", "a=1; domain=b"), "a=1; domain=b");
    let flags = "proxy_cookie_flags a secure samesite=lax; proxy_cookie_flags ~^b nosecure nohttponly nosamesite;";
    assert_eq!(cookie(flags, "a=1; HttpOnly"), "a=1; HttpOnly; Secure; SameSite=Lax");
    assert_eq!(cookie(flags, "a=1; Secure; SameSite=None"), "a=1; Secure; SameSite=Lax");
    assert_eq!(cookie(flags, "B1=1; Secure; HttpOnly; SameSite=None; Path=/"), "B1=1; Path=/");
    assert_eq!(cookie(flags, "c=1"), "c=1");
}

#[test]
fn an_upstream_may_send_the_request_elsewhere() {
    let config = "location / { proxy_pass http://b; } location /files/ { internal; root /srv; types { } } \
                  location @other { return 200 \"$uri $request_method\"; }";
    let response = |target: &str| {
        format!(
            "HTTP/1.1 404 No\r\nX-Accel-Redirect: {target}\r\nContent-Type: text/x\r\nSet-Cookie: a=1\r\n\
             Cache-Control: private\r\nETag: \"no\"\r\nX-Other: 1\r\nX-Accel-Limit-Rate: 1000\r\nContent-Length: 0\r\n\r\n"
        )
    };
    let mut world = server(config).file("/srv/files/a b.txt", "content");
    let post = "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na";
    let reply = world.upstream(&response("/files/a%20b.txt?q")).send(post);
    assert_eq!((reply.status, reply.text()), (200, "content"));
    for (name, value) in [("content-type", "text/x"), ("set-cookie", "a=1"), ("cache-control", "private"), ("x-other", "")] {
        assert_eq!(reply.field(name), value, "{name}");
    }
    assert_ne!(reply.field("etag"), "\"no\"");
    let reply = world.upstream(&response("@other")).send(post);
    assert_eq!(reply.text(), "/x POST");
    let reply = world.upstream(&response("/files/../x")).get("/");
    assert_eq!((reply.status, reply.log_texts()), (404, vec!["[error] unsafe URI \"/files/../x\" was detected"]));
    let mut world = server("location / { proxy_pass http://b; proxy_ignore_headers X-Accel-Redirect; }");
    let reply = world.upstream(&response("/files/x")).get("/");
    assert_eq!((reply.status, reply.has("x-accel-redirect")), (404, false));
}

#[test]
fn errors_are_intercepted_where_a_page_is_set() {
    let config = "location / { proxy_pass http://b; proxy_intercept_errors on; error_page 401 404 /e; error_page 500 =200 /e; } \
                  location /e { return 200 page; }";
    let upstream = |status: &str| format!("HTTP/1.1 {status} X\r\nWWW-Authenticate: Basic\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nno");
    let mut world = server(config);
    for (status, expected, body, challenge, other) in [
        ("404", 404, "page", "", false),
        ("401", 401, "page", "Basic", false),
        ("500", 200, "page", "", false),
        ("403", 403, "no", "Basic", true),
    ] {
        let reply = world.upstream(&upstream(status)).get("/");
        assert_eq!((reply.status, reply.text(), reply.has("x-a")), (expected, body, other), "{status}");
        assert_eq!(reply.field("www-authenticate"), challenge, "{status}");
    }
    let mut world = server("location / { proxy_pass http://b; error_page 404 /e; }");
    assert_eq!(world.upstream(&upstream("404")).get("/").text(), "no");
}

#[test]
fn a_failed_request_gets_its_error_page() {
    let mut world = server(
        "location / { proxy_pass http://b; error_page 502 504 @other; } location @other { proxy_pass http://c; }",
    );
    let request = "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab";
    let reply = world.upstream_fails("connect_refused", 502).upstream(OK).send(request);
    // The page keeps the status of what it is the page of.
    assert_eq!((reply.status, reply.text()), (502, "ok"));
    let calls: Vec<(&str, &str)> = world.calls.iter().map(|call| (call.request_line(), &*call.body)).collect();
    assert_eq!(calls, [("POST /x HTTP/1.1", "ab"); 2]);
    let reply = server("location / { proxy_pass http://b; }").upstream_fails("header_timeout", 504).get("/");
    assert!(reply.status == 504 && reply.text().contains("504 Gateway Time-out"));
}

#[test]
fn streams_are_not_kept_back() {
    let buffering = |settings: &str, fields: &str| {
        let mut world = server(&format!("location / {{ proxy_pass http://b; {settings} }}"));
        world.upstream(&format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n"));
        world.get("/");
        world.answered_call.as_ref().map(|call| call.buffering)
    };
    for (settings, fields, expected) in [
        ("", "", true),
        ("", "Content-Type: text/event-stream; charset=utf-8\r\n", false),
        ("", "Content-Type: application/grpc+proto\r\n", false),
        ("", "Content-Type: application/x-ndjson\r\n", false),
        ("", "X-Accel-Buffering: no\r\n", false),
        ("proxy_ignore_headers X-Accel-Buffering;", "X-Accel-Buffering: no\r\n", true),
        ("proxy_buffering off;", "X-Accel-Buffering: yes\r\n", true),
        ("proxy_buffering off;", "", false),
        ("compat strict;", "Content-Type: text/event-stream\r\n", true),
    ] {
        assert_eq!(buffering(settings, fields), Some(expected), "{settings} {fields}");
    }
}

#[test]
fn conditions_and_sizes_come_to_the_relay() {
    let mut world = World::new(
        "proxy_next_upstream http_500 http_404; proxy_buffers 4 16k; proxy_read_timeout 5; server { location / { \
         proxy_pass http://b; proxy_next_upstream_tries 3; proxy_buffer_size 16k; proxy_store_access group:rw all:r; } \
         location /off { proxy_pass http://b; proxy_next_upstream off timeout; } }",
    );
    world.upstream(OK).get("/");
    let conduct = &world.calls[0].call.conduct;
    assert_eq!(conduct.next_upstream, conditions::HTTP_500 | conditions::HTTP_404);
    assert_eq!((conduct.next_upstream_tries, conduct.read_timeout), (3, 5_000));
    assert_eq!((conduct.buffer_size, conduct.buffers_bytes), (16_384, 65_536));
    assert_eq!((conduct.store_access, conduct.max_temp_file_size), (0o664, 1 << 30));
    world.upstream(OK).get("/off");
    assert_eq!(world.calls[0].call.conduct.next_upstream, conditions::OFF);
}

#[test]
fn addresses_to_connect_from_may_be_computed() {
    let local = |settings: &str, target: &str| {
        let mut world = server(&format!("location / {{ proxy_pass http://b; {settings} }}"));
        let reply = world.upstream(OK).get(target);
        let address = world.calls[0].call.local_address;
        (address.map(|local| (local.address.to_string(), local.transparent)), reply.log.len())
    };
    let some = |text: &str, transparent| (Some((text.to_owned(), transparent)), 0);
    assert_eq!(local("proxy_bind 192.0.2.9;", "/"), some("192.0.2.9:0", false));
    assert_eq!(local("proxy_bind [::1]:99;", "/"), some("[::1]:99", false));
    assert_eq!(local("proxy_bind $remote_addr transparent;", "/"), some("192.0.2.1:0", true));
    assert_eq!(local("proxy_bind $remote_addr:$remote_port transparent;", "/"), some("192.0.2.1:40000", true));
    assert_eq!(local("proxy_bind $arg_x;", "/"), (None, 0));
    assert_eq!(local("proxy_bind $arg_x;", "/?x=y"), (None, 1));
    assert_eq!(local("proxy_bind off;", "/"), (None, 0));
}

#[test]
fn only_good_responses_are_stored_beneath_what_was_meant() {
    let stored = |settings: &str, target: &str, response: &str| {
        let mut world = server(&format!("root /srv; location / {{ proxy_pass http://b; {settings} }}"));
        world.upstream(response).get(target);
        let store = world.answered_call.as_ref().and_then(|call| call.store.clone());
        store.map(|path| String::from_utf8(path).unwrap())
    };
    assert_eq!(stored("proxy_store on;", "/a/b", OK).as_deref(), Some("/srv/a/b"));
    assert_eq!(stored("proxy_store /data$uri;", "/a?b", OK).as_deref(), Some("/data/a"));
    assert_eq!(stored("proxy_store data/$arg_x;", "/?x=y", OK).as_deref(), Some("/usr/share/thalweg/data/y"));
    assert_eq!(stored("proxy_store on;", "/a", "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"), None);
    assert_eq!(stored("proxy_store on;", "/a/", OK), None);
    assert_eq!(stored("proxy_store /data/$arg_x;", "/?x=../y", OK), None);
    assert_eq!(stored("proxy_store off;", "/a", OK), None);
}

#[test]
fn handlers_reach_as_far_as_nginx_s() {
    let mut world = server(
        "location /a/ { proxy_pass http://b/; if ($arg_x) { set $y 1; } limit_except GET { deny 192.0.2.77; } \
         location /a/b/ { root /srv; } } location /c { if ($arg_x) { proxy_pass http://b; } root /srv; }",
    );
    world.upstream(OK).get("/a/x?x=1");
    assert_eq!(world.calls[0].request_line(), "GET /x?x=1 HTTP/1.1");
    world.upstream(OK).send("PUT /a/x HTTP/1.0\r\n\r\n");
    assert_eq!(world.calls[0].request_line(), "PUT /x HTTP/1.1");
    assert_eq!(world.get("/a/b/x").status, 404);
    assert_eq!(world.upstream(OK).get("/c?x=1").status, 200);
    assert_eq!(world.get("/c").status, 404);
    // The slash that a location's name ends with is asked for.
    let reply = world.get("/a?q");
    assert_eq!((reply.status, &*reply.field("location")), (301, "http://example.com/a/?q"));
}

/// The words are those of nginx 1.22 but for what is not built.
#[test]
fn mistakes_are_reported_in_nginx_s_words() {
    let no_uri = "\"proxy_pass\" cannot have URI part in location given by regular expression, or inside named \
                  location, or inside \"if\" statement, or inside \"limit_except\" block";
    for (content, words) in [
        ("location ~ a { proxy_pass http://b/x; }", no_uri),
        ("location @a { proxy_pass http://b/; }", no_uri),
        ("location / { limit_except GET { proxy_pass http://b/; } }", no_uri),
        ("location / { proxy_pass ftp://a; }", "invalid URL prefix"),
        ("location / { proxy_pass http://; }", "no host in upstream \"\""),
        ("location / { proxy_pass http://a:99999/x; }", "invalid port in upstream \"a:99999/x\""),
        ("location / { proxy_pass http://a; proxy_pass http://b; }", "\"proxy_pass\" directive is duplicate"),
        ("location / { proxy_pass ftp://a; }", "invalid URL prefix"),
        ("proxy_http_version 3;", "invalid value \"3\""),
        (
            "location / { proxy_redirect default; proxy_pass http://a; }",
            "\"proxy_redirect default\" should be placed after the \"proxy_pass\" directive",
        ),
        (
            "location / { proxy_pass http://$host; proxy_redirect default; }",
            "\"proxy_redirect default\" cannot be used with \"proxy_pass\" directive with variables",
        ),
        ("proxy_redirect x;", "invalid parameter \"x\""),
        ("proxy_redirect off; proxy_redirect a b;", "\"proxy_redirect\" directive is duplicate"),
        ("proxy_cookie_path x;", "invalid parameter \"x\""),
        ("proxy_cookie_flags x;", "invalid parameter \"x\""),
        ("proxy_next_upstream foo;", "invalid value \"foo\""),
        ("proxy_ignore_headers foo;", "invalid value \"foo\""),
        ("proxy_bind foo;", "invalid address \"foo\""),
        ("proxy_bind off transparent;", "invalid address \"off\""),
        ("proxy_bind 127.0.0.1 x;", "invalid parameter \"x\""),
        ("proxy_store_access foo:r;", "invalid value \"foo:r\""),
        ("proxy_store on; proxy_store off;", "\"proxy_store\" directive is duplicate"),
        ("proxy_limit_rate x;", "\"proxy_limit_rate\" directive invalid value"),
        ("proxy_buffers 0 4k;", "\"proxy_buffers\" directive invalid value"),
        ("proxy_buffers 1 4k;", "there must be at least 2 \"proxy_buffers\""),
        (
            "proxy_buffer_size 32k;",
            "\"proxy_busy_buffers_size\" must be less than the size of all \"proxy_buffers\" minus one buffer",
        ),
        (
            "proxy_max_temp_file_size 1k;",
            "\"proxy_max_temp_file_size\" must be equal to zero to disable temporary files usage or must be equal to \
             or greater than the maximum of the value of \"proxy_buffer_size\" and one of the \"proxy_buffers\"",
        ),
        ("proxy_set_header \"a b\" c;", "invalid header name \"a b\""),
        ("location / { proxy_pass http://b$nope; }", "unknown \"nope\" variable"),
    ] {
        let told = complaints(&format!("server {{ {content} }}"));
        assert_eq!(told, [format!("[emerg] {words}")], "{content}");
    }
    assert_eq!(complaints("proxy_next_upstream error error; server { }"), ["[warn] duplicate value \"error\""]);
}

#[test]
fn trailers_pass_where_they_are_wanted_and_may() {
    let response = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\
                    Content-Length: 9\r\nTransfer-Encoding: x\r\nSet-Cookie: a=1\r\nX-Hidden: 1\r\nDate: now\r\n\r\n";
    let reply = answered("proxy_pass_trailers on; proxy_hide_header x-hidden;", response);
    assert_eq!(reply.trailers, [("X-Sum".to_owned(), "1".to_owned())]);
    assert_eq!((&*reply.field("trailer"), reply.text()), ("X-Sum", "ok"));
    let reply = answered("", response);
    assert!(reply.trailers.is_empty() && !reply.has("trailer"));
}

#[test]
fn traps_are_told() {
    let told = |content: &str| complaints(&format!("server {{ {content} }}")).join("\n");
    for fine in [
        "location / { proxy_pass http://b/; }",
        "location /a/ { proxy_pass http://b/c/; }",
        "location /a { proxy_pass http://b/c; }",
        "location /a/ { proxy_pass http://b; }",
        "location = /a { proxy_pass http://b/; }",
        "location /a/ { proxy_pass http://b/c?d=; }",
        "proxy_set_header Connection \"\"; location / { proxy_set_header B 2; }",
        "proxy_set_header A 1; location / { proxy_set_header A 2; proxy_set_header B 1; }",
    ] {
        assert_eq!(told(fine), "", "{fine}");
    }
    let text = told("location /a { proxy_pass http://b/; }");
    assert!(text.contains("\"/a/x\" is passed on as one for \"//x\""), "{text}");
    let text = told("location /a/ { proxy_pass http://b/c; }");
    assert!(text.contains("\"/a/x\" is passed on as one for \"/cx\""), "{text}");
    let text = told("proxy_set_header A 1; location / { proxy_set_header B 2; }");
    assert!(text.contains("makes those of the outer level disappear"), "{text}");
    let text = told("proxy_set_header Content-Length 5;");
    assert!(text.contains("cannot set this field"), "{text}");
}
