//! `error_log`: levels, contexts, targets, and the shape of its lines.

use crate::util::{Client, Server, Signal, eventually, get, request};
use std::time::Duration;

#[test]
fn a_line_has_nginx_s_shape_with_client_server_request_and_host() {
    let server = Server::start("server { listen {port}; server_name s.example; root {root}/html; }");
    request(server.port(), "GET", "/none?q", &[("Host", "s.example:80"), ("Referer", "http://r/")]);
    eventually("the line", || server.error_log().contains("/html/none\""));
    let log = server.error_log();
    let line = log.lines().find(|line| line.contains("/html/none\"")).expect("the line");
    // 2026/01/02 03:04:05 [error] 12#34: *5 open() "..." failed (2: ...), client: ..., server: ..., request: "..."
    let (time, rest) = line.split_at(20);
    assert!(
        time.chars().enumerate().all(|(at, char)| match at {
            4 | 7 => char == '/',
            10 | 19 => char == ' ',
            13 | 16 => char == ':',
            _ => char.is_ascii_digit(),
        }),
        "{line}"
    );
    let rest = rest.strip_prefix("[error] ").expect(line);
    let (ids, rest) = rest.split_once(": *").expect(line);
    let (pid, tid) = ids.split_once('#').expect(line);
    assert!(pid.parse::<u32>().is_ok() && tid.parse::<u32>().is_ok(), "{line}");
    let (connection, rest) = rest.split_once(' ').expect(line);
    assert!(connection.parse::<u64>().is_ok(), "{line}");
    let root = server.root().display();
    assert_eq!(
        rest,
        format!(
            "open() \"{root}/html/none\" failed (2: No such file or directory), client: 127.0.0.1, server: s.example, \
             request: \"GET /none?q HTTP/1.1\", host: \"s.example:80\", referrer: \"http://r/\""
        )
    );
}

#[test]
fn the_level_decides_what_is_written() {
    for (level, is_there) in [
        ("debug", true),
        ("info", true),
        ("notice", true),
        ("warn", true),
        ("error", true),
        ("crit", false),
        ("alert", false),
        ("emerg", false),
    ] {
        if level == "debug" {
            continue;
        }
        let server = Server::start(&format!(
            "error_log {{root}}/other.log {level}; http {{ server {{ listen {{port}}; root {{root}}/html; }} }}"
        ));
        get(server.port(), "/none");
        get(server.port(), "/none2");
        if is_there {
            eventually(level, || server.read("other.log").contains("/html/none2\""));
        } else {
            // Once the answer to a later request is there, the line of the first would be too.
            assert!(!server.read("other.log").contains("/html/none\""), "{level}");
        }
    }
}

#[test]
fn contexts_have_logs_of_their_own_and_the_innermost_counts() {
    let server = Server::start(
        "error_log {root}/main.log; events { }
         http { error_log {root}/http.log;
            server { listen {port}; root {root}/html; error_log {root}/server.log;
                location /own/ { error_log {root}/location.log; }
                location /crit/ { error_log {root}/location.log crit; }
                location /two/ { error_log {root}/a.log; error_log {root}/b.log; } }
            server { listen {port}; server_name other; root {root}/html; } }",
    );
    for path in ["/x", "/own/y", "/crit/z", "/two/t"] {
        get(server.port(), path);
    }
    request(server.port(), "GET", "/w", &[("Host", "other")]);
    for (log, name) in [
        ("server.log", "/x"),
        ("location.log", "/own/y"),
        ("http.log", "/w"),
        ("a.log", "/two/t"),
        ("b.log", "/two/t"),
    ] {
        eventually(log, || server.read(log).contains(&format!("html{name}\"")));
    }
    assert!(!server.read("server.log").contains("/own/y"));
    assert!(!server.read("location.log").contains("/crit/z"));
    assert!(!server.read("main.log").contains("html/"), "{}", server.read("main.log"));
}

#[test]
fn standard_error_and_the_default_level() {
    let server = Server::start(
        "error_log stderr; http { server { listen {port}; root {root}/html; location /info { return 400; } } }",
    );
    get(server.port(), "/none");
    eventually("the line", || server.stderr().contains("/html/none\" failed"));
    assert!(
        !server.stderr().contains("[info]") && !server.stderr().contains("[notice]"),
        "{}",
        server.stderr()
    );
}

#[test]
fn syslog_as_error_log() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("syslog");
    let socket = crate::access_log::syslog_socket(&path);
    socket.set_read_timeout(Some(Duration::from_secs(15))).expect("timeout");
    let server = Server::start(&format!(
        "http {{ server {{ listen {{port}}; root {{root}}/html; error_log syslog:server=unix:{},facility=user,tag=web; }} }}",
        path.display()
    ));
    get(server.port(), "/none");
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).expect("a datagram");
    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
    // user is 1, error is 3: 1 * 8 + 3.
    assert!(text.starts_with("<11>"), "{text}");
    assert!(text.contains(" web: ") && text.contains("/html/none\" failed"), "{text}");
}

#[test]
fn a_hostile_request_can_not_forge_a_line() {
    // nginx 1.22 writes the decoded path as it is.
    if !crate::util::subject_is_ours() {
        return;
    }
    let server = Server::start("server { listen {port}; root {root}/html; }");
    let forged = "2026/01/02 03:04:05 [emerg] 1#1: forged";
    let requests: Vec<Vec<u8>> = vec![
        format!("GET /%0a{} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", forged.replace(' ', "%20"))
            .into_bytes(),
        format!(
            "GET /x%0d%0a{} HTTP/1.1\r\nHost: a\r\nReferer: \"x\"\r\nConnection: close\r\n\r\n",
            forged.replace(' ', "%20")
        )
        .into_bytes(),
        b"GET /none\x0b\x1b[31m HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_vec(),
        b"GET /none HTTP/1.1\r\nHost: a\x01b\r\nConnection: close\r\n\r\n".to_vec(),
        b"GET /none HTTP/1.1\r\nHost: a\r\nReferer: \x1b]0;x\x07\r\nConnection: close\r\n\r\n".to_vec(),
    ];
    for bytes in &requests {
        let mut client = Client::connect(server.port());
        client.try_send(bytes);
        client.read_to_end();
    }
    get(server.port(), "/the-end");
    eventually("the end", || server.error_log().contains("/the-end\""));
    let log = std::fs::read(server.path("error.log")).expect("a log");
    for line in String::from_utf8_lossy(&log).lines() {
        assert!(!line.starts_with("2026/01/02 03:04:05 [emerg]"), "{line}");
        assert!(!line.bytes().any(|byte| byte < b' '), "{line:?}");
    }
}

#[test]
fn bad_requests_are_told_at_info() {
    let server = Server::start("server { listen {port}; root {root}/html; }");
    for (bytes, message) in [
        ("bad\r\n\r\n", "client sent invalid"),
        ("GET / HTTP/1.1\r\n\r\n", "client sent HTTP/1.1 request without \"Host\" header"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "client sent duplicate"),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "client sent invalid host header"),
    ] {
        let mut client = Client::connect(server.port());
        client.send(bytes);
        client.read_to_end();
        eventually(message, || {
            server.error_log().lines().any(|line| line.contains("[info]") && line.contains(message))
        });
    }
}

#[test]
fn access_refused_and_missing_index_are_errors() {
    let server = Server::builder("server { listen {port}; root {root}/html; location /d/ { deny all; } }")
        .file("html/e/x", "")
        .start();
    get(server.port(), "/d/x");
    get(server.port(), "/e/");
    eventually("both", || {
        let log = server.error_log();
        log.contains("access forbidden by rule, client: 127.0.0.1") && log.contains("html/e/\" is forbidden")
    });
}

#[test]
fn debug_connection_raises_the_level_for_one_address() {
    let server = Server::start(
        "error_log {root}/other.log error; events { debug_connection 127.0.0.1; }
         http { server { listen {port}; rewrite_log on; rewrite ^/x /y; return 200; } }",
    );
    get(server.port(), "/x");
    eventually("a line of a lower level", || {
        let log = server.read("other.log");
        ["[debug]", "[info]", "[notice]"].iter().any(|level| log.contains(level))
    });
}

#[test]
fn log_not_found_and_log_subrequest_are_understood() {
    let server = Server::start(
        "server { listen {port}; root {root}/html; log_subrequest on; log_not_found off; location /e { error_page 404 /none2; } }",
    );
    assert_eq!(get(server.port(), "/e").status, 404);
    assert!(!server.error_log().contains("(2: No such file"), "{}", server.error_log());
}

#[test]
fn start_and_stop_are_notices() {
    let mut server =
        Server::start("error_log {root}/error.log notice; http { server { listen {port}; return 200; } }");
    get(server.port(), "/");
    server.signal(Signal::QUIT);
    server.wait_for_exit();
    assert!(server.error_log().contains("[notice]"), "{}", server.error_log());
    assert!(!server.error_log().contains("[info]"), "{}", server.error_log());
}
