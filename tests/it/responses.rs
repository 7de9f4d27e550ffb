//! HTTP/1 responses: methods, framing, and the fields that the server sets by itself.

use crate::util::{Client, Parity, Server, get, raw, request};
use std::time::{Duration, SystemTime};

const ECHO: &str = "server { listen {port}; location / { return 200 $uri; } }";

const STATIC: &str = "server { listen {port}; root {root}/html; }";

fn site(text: &str) -> Parity {
    Parity::new(text).file("html/a.txt", "hello").file("html/index.html", "<p>").file("html/dir/a.txt", "x")
}

#[test]
fn files_answer_get_and_head_and_nothing_else() {
    let server = Server::builder(STATIC).file("html/a.txt", "hello").start();
    for (method, status) in [
        ("GET", 200),
        ("HEAD", 200),
        ("POST", 405),
        ("PUT", 405),
        ("DELETE", 405),
        ("OPTIONS", 405),
        ("FOO", 405),
    ] {
        assert_eq!(request(server.port(), method, "/a.txt", &[]).status, status, "{method}");
    }
    let mut comparison = site(STATIC);
    for method in ["GET", "HEAD", "POST", "PUT", "OPTIONS", "PATCH", "PROPFIND", "FOO"] {
        for path in ["/a.txt", "/", "/dir", "/dir/", "/missing"] {
            comparison = comparison.request(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        }
    }
    comparison.check();
}

#[test]
fn head_has_the_fields_of_get_and_no_body() {
    let conf = "server { listen {port}; root {root}/html; location /text { return 200 text; }
        location /error { return 404; } location /moved { return 301 /x; } location /none { return 204; } }";
    let server = Server::builder(conf).file("html/a.txt", "hello").start();
    for path in ["/a.txt", "/text", "/error", "/moved", "/none", "/missing"] {
        let get = request(server.port(), "GET", path, &[]);
        let mut client = Client::connect(server.port());
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        let head = client.read_head_response();
        client.expect_closed();
        let fields = |response: &crate::util::Response| {
            let date = |(name, _): &&(String, String)| name != "Date";
            response.headers.iter().filter(date).cloned().collect::<Vec<_>>()
        };
        assert_eq!((get.status, fields(&get)), (head.status, fields(&head)), "{path}");
    }
}

#[test]
fn limit_except_denies_the_other_methods() {
    let conf = "server { listen {port}; root {root}/html;
        location / { limit_except GET { deny all; } }
        location /post { limit_except POST OPTIONS { deny all; } try_files /a.txt =404; } }";
    let server = Server::builder(conf).file("html/a.txt", "hello").start();
    for (method, path, status) in [
        ("GET", "/a.txt", 200),
        ("HEAD", "/a.txt", 200),
        ("POST", "/a.txt", 403),
        ("OPTIONS", "/a.txt", 403),
        ("FOO", "/a.txt", 403),
        ("GET", "/post", 403),
        ("HEAD", "/post", 403),
        ("POST", "/post", 405),
        ("OPTIONS", "/post", 405),
    ] {
        assert_eq!(request(server.port(), method, path, &[]).status, status, "{method} {path}");
    }
    let mut comparison = site(conf);
    for method in ["GET", "HEAD", "POST", "PUT", "OPTIONS", "FOO"] {
        for path in ["/a.txt", "/post"] {
            comparison = comparison.request(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        }
    }
    comparison.check();
}

#[test]
fn limit_except_with_allow_lets_chosen_addresses_in() {
    let conf = "server { listen {port}; root {root}/html;
        location / { limit_except GET { allow 127.0.0.0/8; deny all; } } }";
    let server = Server::builder(conf).file("html/a.txt", "hello").start();
    assert_eq!(request(server.port(), "POST", "/a.txt", &[]).status, 405);
    let output =
        Server::builder("server { listen {port}; location / { limit_except NONSENSE { deny all; } } }")
            .run(&["-t"]);
    assert!(!output.status.success());
    assert!(output.stderr.contains("invalid method \"NONSENSE\""), "{}", output.stderr);
}

#[test]
fn server_tokens_say_what_the_server_calls_itself() {
    let answer = |directive: &str| {
        let server =
            Server::start(&format!("{directive} server {{ listen {{port}}; location / {{ return 404; }} }}"));
        let response = get(server.port(), "/");
        (response.header("server").map(str::to_owned), response.text())
    };
    let version = concat!("thalweg/", env!("CARGO_PKG_VERSION"));
    for directive in ["", "server_tokens on;"] {
        let (server, page) = answer(directive);
        assert_eq!(server.as_deref(), Some(version), "{directive}");
        assert!(page.contains(&format!("<hr><center>{version}</center>")), "{page}");
    }
    let (server, page) = answer("server_tokens off;");
    assert_eq!(server.as_deref(), Some("thalweg"));
    assert!(page.contains("<hr><center>thalweg</center>"), "{page}");
    let (server, page) = answer("server_tokens build;");
    let server = server.expect("a Server field");
    assert!(server.starts_with(version), "{server}");
    assert!(page.contains(&server), "{page}");
    // A string of one's own, also with variables; empty, there is neither field nor signature.
    let (server, page) = answer("server_tokens 'mine $request_method';");
    assert_eq!(server.as_deref(), Some("mine GET"));
    assert!(page.contains("<hr><center>mine GET</center>"), "{page}");
    let (server, page) = answer("server_tokens '';");
    assert_eq!(server, None);
    assert!(!page.contains("<hr>"), "{page}");
}

#[test]
fn server_tokens_on_and_off_look_as_in_nginx() {
    for value in ["on", "off"] {
        Parity::new(&format!("server_tokens {value}; server {{ listen {{port}}; location / {{ return 404; }} location /t {{ return 200 t; }} }}"))
            .get(&["/", "/t"])
            .strict_order()
            .check();
    }
}

#[test]
fn date_is_now() {
    let server = Server::start(ECHO);
    let dates: Vec<SystemTime> = (0..2)
        .map(|_| {
            let response = get(server.port(), "/");
            assert_eq!(response.header_all("date").len(), 1);
            let date =
                httpdate::parse_http_date(response.header("date").unwrap_or_default()).expect("a date");
            std::thread::sleep(Duration::from_millis(1100));
            date
        })
        .collect();
    assert!(dates[0] < dates[1], "it stands still: {dates:?}");
    let apart = |date: SystemTime| {
        let now = SystemTime::now();
        now.duration_since(date).or_else(|_| date.duration_since(now)).expect("a duration")
    };
    assert!(apart(dates[1]) < Duration::from_secs(60), "{dates:?}");
}

#[test]
fn chunked_transfer_encoding_off_ends_bodies_with_the_connection() {
    // A trailer makes nginx chunk a body whose length it knows.
    let conf = |flag: &str| {
        format!(
            "server {{ listen {{port}}; root {{root}}/html; add_trailer X-T v; chunked_transfer_encoding {flag};
            autoindex on; }}"
        )
    };
    let server = Server::builder(&conf("on")).file("html/a.txt", "hello").start();
    let response = get(server.port(), "/a.txt");
    assert_eq!(response.trailers, [("X-T".to_owned(), "v".to_owned())]);
    assert_eq!((response.text().as_str(), response.header("content-length")), ("hello", None));
    // HTTP/1.0 has neither chunks nor trailers.
    let response = raw(server.port(), "GET /a.txt HTTP/1.0\r\n\r\n").expect("a response");
    assert_eq!((response.text().as_str(), response.chunks), ("hello", None));

    let server = Server::builder(&conf("off")).file("html/a.txt", "hello").start();
    let response = raw(server.port(), "GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n").expect("a response");
    assert_eq!((response.text().as_str(), response.chunks), ("hello", None));
    assert!(response.trailers.is_empty());

    for flag in ["on", "off"] {
        Parity::new(&conf(flag))
            .file("html/a.txt", "hello")
            .get(&["/a.txt"])
            .request("GET /a.txt HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            .request("HEAD /a.txt HTTP/1.1\r\nHost: a\r\n\r\n")
            .check();
    }
}

#[test]
fn default_type_is_for_extensions_that_are_not_known() {
    let conf = "server { listen {port}; root {root}/html; types { text/css css; }
        location / { default_type text/x-default; } location /none/ { types { } default_type 'a/b; c=d'; }
        location /return { default_type application/json; return 200 '{}'; } }";
    let server = Server::builder(conf)
        .file("html/a.unknown", "x")
        .file("html/a.css", "x")
        .file("html/plain", "x")
        .file("html/none/a.css", "x")
        .start();
    for (path, expected) in [
        ("/a.unknown", "text/x-default"),
        ("/a.css", "text/css"),
        ("/plain", "text/x-default"),
        ("/none/a.css", "a/b; c=d"),
        ("/return", "application/json"),
    ] {
        assert_eq!(get(server.port(), path).header("content-type"), Some(expected), "{path}");
    }
    Parity::new(conf)
        .file("html/a.unknown", "x")
        .file("html/a.css", "x")
        .file("html/none/a.css", "x")
        .get(&["/a.unknown", "/a.css", "/none/a.css", "/return"])
        .check();
}

#[test]
fn a_plain_response_has_nginx_s_fields_in_nginx_s_order() {
    site(STATIC).get(&["/a.txt", "/", "/dir", "/missing"]).strict_order().check();
}
