//! Request bodies: reading, bounds, files, `Expect`, and what becomes of bodies that nobody wants.
//!
//! `client_body_early_read` makes a body visible without an upstream: `return` can show `$request_body`.

use crate::util::{Client, Parity, Server, eventually, get, parity, raw, raw_status};
use std::path::Path;
use std::time::Duration;

/// Shows the body, or whether it is in a file.
const SHOW: &str = "client_body_early_read 1; client_max_body_size 1m; server { listen {port};
    location / { return 200 '$request_body|$request_body_file|$content_length'; } }";

fn chunked(body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
}

fn with_length(body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[track_caller]
fn text(server: &Server, bytes: impl AsRef<[u8]>) -> String {
    let response = raw(server.port(), bytes).expect("a response");
    assert_eq!(response.status, 200, "{}", response.text());
    response.text()
}

#[test]
fn bodies_of_known_length_are_read() {
    let server = Server::start(SHOW);
    assert_eq!(text(&server, with_length("hello")), "hello||5");
    assert_eq!(text(&server, with_length("")), "||0");
    assert_eq!(text(&server, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "||");
    assert_eq!(text(&server, "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab"), "ab||2");
    assert_eq!(text(&server, "PUT / HTTP/1.0\r\nContent-Length: 3\r\n\r\na\0b"), "a\0b||3");
}

#[test]
fn chunked_bodies_are_decoded() {
    let server = Server::start(SHOW);
    for (body, expected) in [
        ("0\r\n\r\n", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", "hello"),
        ("A\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        ("a\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        ("0005\r\nhello\r\n000\r\n\r\n", "hello"),
        // Extensions and trailers are let pass and dropped.
        ("5;a=b\r\nhello\r\n0;c\r\n\r\n", "hello"),
        ("5 ; a=\"b\"\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5\r\nhello\r\n0\r\nX-Trailer: y\r\nZ: \r\n\r\n", "hello"),
        ("4\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n\r\n"),
    ] {
        // The length of a body that was read is known, chunked or not.
        assert_eq!(text(&server, chunked(body)), format!("{expected}||{}", expected.len()), "{body:?}");
    }
}

#[test]
fn chunk_framing_in_doubt_is_refused_and_the_connection_closed() {
    let server = Server::start(SHOW);
    let behind = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for body in [
        "\r\n\r\n",
        "x\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhell\r\n0\r\n\r\n",
        "5;a\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\r\n",
        "5\r\nhello\r\n0\r\nX: y\n\r\n",
        "5\r\nhello\r\n0\r\nX: y\rz\r\n\r\n",
        "5\r\nhello\r\n0\r\nno colon\r\n\r\n",
        "ffffffffffffffff\r\nhello",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "8000000000000000\r\nhello",
    ] {
        let mut client = Client::connect(server.port());
        client.try_send(chunked(body) + behind);
        let response = client.read_response();
        assert_eq!((response.status, response.header("connection")), (400, Some("close")), "{body:?}");
        client.expect_closed();
    }
    eventually("a log line", || server.error_log().contains("client sent invalid chunked body"));
    assert_eq!(text(&server, with_length("alive")), "alive||5");
}

#[test]
fn chunk_extensions_and_trailers_are_bounded() {
    let server = Server::start(SHOW);
    let extended = |length: usize| chunked(&format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(length)));
    assert_eq!(text(&server, extended(1000)), "a||1");
    assert_eq!(raw_status(server.port(), extended(1 << 20)), 400);
    // Many small ones are no way around it.
    let many = "1;xxxxxxxxxxxxxxx\r\na\r\n".repeat(60_000);
    assert_eq!(raw_status(server.port(), chunked(&many)), 400);
    let trailed = |count: usize| chunked(&format!("1\r\na\r\n0\r\n{}\r\n", "X: y\r\n".repeat(count)));
    assert_eq!(text(&server, trailed(100)), "a||1");
    assert_eq!(raw_status(server.port(), trailed(100_000)), 400);
    let long = chunked(&format!("1\r\na\r\n0\r\nX: {}\r\n\r\n", "y".repeat(1 << 20)));
    assert_eq!(raw_status(server.port(), long), 400);
}

#[test]
fn bodies_that_come_in_pieces_are_the_same() {
    let server = Server::start(SHOW);
    for bytes in [with_length("hello world"), chunked("5;a\r\nhello\r\n6\r\n world\r\n0\r\nX: y\r\n\r\n")] {
        let body_at = bytes.find("\r\n\r\n").expect("a head") + 4;
        for at in body_at - 2..bytes.len() {
            let mut client = Client::connect(server.port());
            client.send(&bytes[..at]);
            std::thread::sleep(Duration::from_millis(1));
            client.send(&bytes[at..]);
            assert!(client.read_response().text().starts_with("hello world|"), "split at {at}");
        }
        let mut client = Client::connect(server.port());
        client.send(&bytes[..body_at]).send_slowly(&bytes[body_at..], Duration::from_micros(200));
        assert!(client.read_response().text().starts_with("hello world|"));
    }
}

#[test]
fn bodies_on_one_connection_do_not_mix() {
    let server = Server::start(SHOW);
    let mut client = Client::connect(server.port());
    let requests: String = (0..50)
        .map(|number| match number % 3 {
            0 => with_length(&format!("body {number}")),
            1 => chunked(&format!("7\r\nbody {number:02}\r\n0\r\n\r\n")),
            _ => "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        })
        .collect();
    client.send(requests);
    for number in 0..50 {
        let text = client.read_response().text();
        let body = text.split('|').next().unwrap_or_default().to_owned();
        let expected = match number % 3 {
            0 => format!("body {number}"),
            1 => format!("body {number:02}"),
            _ => String::new(),
        };
        assert_eq!(body, expected);
    }
}

#[test]
fn bodies_larger_than_the_buffer_go_to_a_file() {
    let conf = format!("client_body_buffer_size 1k; client_body_temp_path {{root}}/bodies 1 2; {SHOW}");
    let server = Server::start(&conf);
    let fields = |body: &str, bytes: String| {
        let text = text(&server, bytes);
        let mut fields = text.split('|').map(str::to_owned);
        let fields = [fields.next().unwrap_or_default(), fields.next().unwrap_or_default()];
        assert_eq!(fields[0].is_empty(), !fields[1].is_empty(), "{} bytes: {text}", body.len());
        fields
    };
    let small = "x".repeat(1024);
    assert_eq!(fields(&small, with_length(&small))[0], small);
    let large = "x".repeat(1025);
    for bytes in [with_length(&large), chunked(&format!("401\r\n{large}\r\n0\r\n\r\n"))] {
        let [body, file] = fields(&large, bytes);
        assert_eq!(body, "");
        let folder = server.path("bodies");
        let below = Path::new(&file).strip_prefix(&folder).expect("below the folder").to_owned();
        let levels: Vec<usize> = below.iter().map(|part| part.len()).collect();
        assert_eq!(levels.len(), 3, "{file}");
        assert_eq!(levels[..2], [1, 2], "{file}");
        // It is gone with its request.
        eventually("the file is removed", || !Path::new(&file).exists());
    }
}

#[test]
fn a_large_body_reaches_its_file_whole() {
    let conf = "client_body_early_read 1; client_max_body_size 0; client_body_in_file_only on;
        client_body_temp_path {root}/bodies;
        server { listen {port}; return 200 $request_body_file; }";
    let server = Server::start(conf);
    let body: String = (0..300_000).map(|number| format!("{number:09}\n")).collect();
    let path = text(&server, with_length(&body));
    assert!(std::fs::read(&path).expect("the file") == body.as_bytes(), "the file differs");
    let mut chunks = String::new();
    for piece in body.as_bytes().chunks(70_001) {
        chunks += &format!("{:x}\r\n{}\r\n", piece.len(), std::str::from_utf8(piece).expect("ASCII"));
    }
    let path = text(&server, chunked(&(chunks + "0\r\n\r\n")));
    assert!(std::fs::read(&path).expect("the file") == body.as_bytes(), "the file differs");
}

#[test]
fn client_body_in_file_only_keeps_or_cleans_its_files() {
    let conf = |value: &str| {
        format!(
            "client_body_early_read 1; client_body_in_file_only {value}; client_body_temp_path {{root}}/bodies;
            server {{ listen {{port}}; return 200 '$request_body|$request_body_file'; }}"
        )
    };
    let server = Server::start(&conf("on"));
    let answer = text(&server, with_length("hello"));
    let path = answer.strip_prefix('|').expect("no body in memory");
    assert_eq!(std::fs::read_to_string(path).expect("the file stays"), "hello");
    let server = Server::start(&conf("clean"));
    let answer = text(&server, with_length("hello"));
    let path = answer.strip_prefix('|').expect("no body in memory");
    assert!(path.starts_with(server.path("bodies").to_str().expect("UTF-8")), "{path}");
    eventually("the file is removed", || !Path::new(path).exists());
    let server = Server::start(&conf("off"));
    assert_eq!(text(&server, with_length("hello")), "hello|");
}

#[test]
fn client_body_in_single_buffer_is_accepted() {
    let server =
        Server::start(&format!("client_body_in_single_buffer on; client_body_buffer_size 16k; {SHOW}"));
    let body = "x".repeat(10_000);
    assert_eq!(text(&server, with_length(&body)), format!("{body}||10000"));
}

#[test]
fn early_read_follows_its_predicates() {
    let conf = "map $request_method $is_put { PUT 1; default 0; }
        server { listen {port}; client_body_early_read $is_put $arg_read;
        location / { return 200 '$request_body'; } }";
    let server = Server::start(conf);
    let ask = |method: &str, target: &str| {
        text(&server, format!("{method} {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab"))
    };
    assert_eq!(ask("PUT", "/"), "ab");
    assert_eq!(ask("POST", "/"), "");
    assert_eq!(ask("POST", "/?read=0"), "");
    assert_eq!(ask("POST", "/?read=1"), "ab");
}

#[test]
fn an_early_body_works_in_if_and_map() {
    let conf = "map $request_body $kind { ~^a 'begins with a'; default other; }
        server { listen {port}; client_body_early_read 1;
        if ($request_body = 'forbidden') { return 403; } location / { return 200 $kind; } }";
    let server = Server::start(conf);
    assert_eq!(text(&server, with_length("abc")), "begins with a");
    assert_eq!(text(&server, with_length("bc")), "other");
    assert_eq!(raw_status(server.port(), with_length("forbidden")), 403);
}

#[test]
fn a_body_whose_length_is_too_large_is_413_before_it_is_read() {
    let conf = "client_max_body_size 10; lingering_timeout 100ms; server { listen {port}; root {root}/html;
        location /more { client_max_body_size 20; return 200 more; } location /all { client_max_body_size 0; } }";
    let server = Server::builder(conf).file("html/a.txt", "hello").start();
    let head = |path: &str, length: u64| {
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")
    };
    // No byte of the body is sent.
    let response = raw(server.port(), head("/a.txt", 11)).expect("a response");
    assert_eq!((response.status, response.header("connection")), (413, Some("close")));
    assert!(response.text().contains("413 Request Entity Too Large"), "{}", response.text());
    eventually("a log line", || {
        server.error_log().contains("[error]")
            && server.error_log().contains("client intended to send too large body: 11 bytes")
    });
    assert_eq!(raw_status(server.port(), head("/a.txt", 10) + "0123456789"), 405);
    assert_eq!(raw_status(server.port(), head("/all", 1 << 40)), 404);
    assert_eq!(raw_status(server.port(), head("/a.txt", i64::MAX as u64)), 413);
    parity(
        conf,
        &[
            &head("/a.txt", 11),
            &(head("/a.txt", 10) + "0123456789"),
            &head("/a.txt", 1 << 40),
            &head("/more", 21),
            &head("/all", 1000),
        ],
    );
}

#[test]
fn the_default_limit_is_one_megabyte() {
    let server = Server::start("server { listen {port}; location / { root {root}; } }");
    let head = |length: u64| {
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")
    };
    assert_ne!(raw_status(server.port(), head(1 << 20)), 413);
    assert_eq!(raw_status(server.port(), head((1 << 20) + 1)), 413);
}

#[test]
fn a_chunked_body_is_413_when_it_outgrows_the_limit() {
    let server = Server::start(
        "client_max_body_size 10; client_body_early_read 1;
        server { listen {port}; return 200 $request_body; }",
    );
    assert_eq!(text(&server, chunked("5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n")), "0123456789");
    let mut client = Client::connect(server.port());
    client.send(chunked("5\r\n01234\r\n6\r\n567890\r\n"));
    let response = client.read_response();
    assert_eq!((response.status, response.header("connection")), (413, Some("close")));
    eventually("a log line", || {
        server.error_log().contains("client intended to send too large chunked body")
    });
}

#[test]
fn error_page_can_answer_for_413() {
    let conf = "client_max_body_size 10; lingering_timeout 100ms; error_page 413 =429 /slow; server { listen {port}; root {root}/html;
        location = /slow { return 200 'too much'; } }";
    let bytes = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n";
    let server = Server::start(conf);
    let response = raw(server.port(), bytes).expect("a response");
    assert_eq!(response.header("connection"), Some("close"));
    parity(conf, &[bytes]);
}

const EXPECT: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";

#[test]
fn a_client_that_expects_it_is_told_to_continue() {
    let server = Server::start(SHOW);
    for head in [EXPECT.to_owned(), EXPECT.replace("100-c", "100-C")] {
        let mut client = Client::connect(server.port());
        client.send(&head);
        let interim = client.read_interim();
        assert_eq!((interim.status, interim.headers.len()), (100, 0));
        client.send("hello");
        let response = client.read_response();
        assert_eq!((response.status, response.interim.len()), (200, 0));
        assert_eq!(response.text(), "hello||5");
        // The connection goes on.
        client.send(with_length("more"));
        assert_eq!(client.read_response().text(), "more||4");
    }
    let mut client = Client::connect(server.port());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.read_interim().status, 100);
    client.send("2\r\nhi\r\n0\r\n\r\n");
    assert_eq!(client.read_response().text(), "hi||2");
}

#[test]
fn nobody_is_told_to_continue_in_vain() {
    let server = Server::start(&SHOW.replace("1m", "10"));
    // HTTP/1.0 knows no interim responses; a request without a body has nothing to continue with.
    let old = "POST / HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello";
    let response = raw(server.port(), old).expect("a response");
    assert_eq!((response.interim.len(), response.text().as_str()), (0, "hello||5"));
    let none = "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n";
    assert!(raw(server.port(), none).expect("a response").interim.is_empty());
    // A refusal comes in its place.
    let response = raw(server.port(), EXPECT.replace(": 5", ": 50")).expect("a response");
    assert_eq!((response.status, response.interim.len()), (413, 0));
    // Other expectations are let pass, as nginx does.
    let other = EXPECT.replace("100-continue", "more") + "hello";
    assert_eq!(raw_status(server.port(), other), 200);
}

#[test]
fn a_withheld_body_that_nobody_wants_ends_the_connection() {
    // Whether the client sends it after a final response is unknown (RFC 9110 section 10.1.1); nginx waits for it.
    let server = Server::start("server { listen {port}; return 403; }");
    let mut client = Client::connect(server.port());
    client.send(EXPECT);
    let response = client.read_response();
    assert_eq!((response.status, response.header("connection")), (403, Some("close")));
    client.expect_closed();
}

#[test]
fn unread_bodies_are_dropped_and_the_connection_goes_on() {
    let server = Server::start("server { listen {port}; location / { return 200 $request_uri; } }");
    let mut client = Client::connect(server.port());
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for number in 0..5 {
        client.send(format!(
            "POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{smuggled}",
            smuggled.len()
        ));
        client.send(format!("POST /c{number} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"));
        client.send(format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len()));
        assert_eq!(client.read_response().text(), format!("/{number}"));
        assert_eq!(client.read_response().text(), format!("/c{number}"));
    }
    // The answer does not wait for the body.
    client.send("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    assert_eq!(client.read_response().text(), "/early");
    for _ in 0..10 {
        client.send("x".repeat(10_000));
        std::thread::sleep(Duration::from_millis(5));
    }
    client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response().text(), "/next");
}

#[test]
fn unread_bodies_look_as_in_nginx() {
    let conf = "server { listen {port}; root {root}/html; location /return { return 200 $request_uri; }
        location /error { return 500; } location /bad { return 400; } }";
    let behind = "GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut comparison = Parity::new(conf).file("html/a.txt", "hello");
    for path in ["/return", "/a.txt", "/missing", "/error", "/bad"] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\n");
        comparison = comparison
            .pipelined(format!("{head}Content-Length: 5\r\n\r\nhello{behind}"), 2)
            .pipelined(format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n{behind}"), 2)
            .pipelined(format!("{head}Content-Length: 0\r\n\r\n{behind}"), 2);
    }
    comparison.check();
}

#[test]
fn a_body_that_keeps_coming_is_dropped_within_bounds() {
    // The response says close, and the rest of the body lingers for a while only.
    let server = Server::start(
        "lingering_time 1s; lingering_timeout 500ms; client_max_body_size 10;
        server { listen {port}; root {root}; }",
    );
    let mut client = Client::connect(server.port());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000000\r\n\r\n");
    assert_eq!(client.read_response().status, 413);
    eventually("the server stops taking bytes", || {
        std::thread::sleep(Duration::from_millis(20));
        !client.try_send("x".repeat(1000))
    });
}

#[test]
fn a_chunked_body_in_doubt_is_not_skipped_over() {
    let server = Server::start("server { listen {port}; location / { return 200 $request_uri; } }");
    let mut client = Client::connect(server.port());
    client.send("POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = client.read_response();
    assert_eq!((response.status, response.header("connection")), (400, Some("close")));
    client.expect_closed();
    // What comes after the answer can only end the connection.
    let mut client = Client::connect(server.port());
    client.send("POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(client.read_response().status, 200);
    client.try_send("zz\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect_closed();
}

#[test]
fn variables_tell_of_the_body() {
    let conf = "client_body_early_read 1; log_format l '$request_length $status $request_body';
        server { listen {port}; access_log {root}/access.log l;
        location / { return 200 '$content_length|$content_type|$http_transfer_encoding'; } }";
    let server = Server::start(conf);
    let bytes = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Type: text/x\r\nConnection: close\r\n\r\nhello";
    assert_eq!(text(&server, bytes), "5|text/x|");
    assert_eq!(server.access_log_lines(1)[0], format!("{} 200 hello", bytes.len()));
    assert_eq!(text(&server, chunked("1\r\na\r\n0\r\n\r\n")), "1||chunked");
}

#[test]
fn a_client_that_leaves_within_its_body_is_logged_and_leaves_nothing_behind() {
    let conf = "client_body_early_read 1; client_body_buffer_size 1k; client_body_temp_path {root}/bodies;
        server { listen {port}; return 200; }";
    let server = Server::start(conf);
    let mut client = Client::connect(server.port());
    client
        .send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(50_000)));
    eventually("a file", || files_below(&server.path("bodies")) > 0);
    drop(client);
    eventually("no file", || files_below(&server.path("bodies")) == 0);
    assert!(server.access_log_lines(1)[0].contains("\" 400 "), "{}", server.access_log());
    assert_eq!(get(server.port(), "/").status, 200);
}

fn files_below(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries.flatten().map(|entry| if entry.path().is_dir() { files_below(&entry.path()) } else { 1 }).sum()
}
