//! `access_log` and `log_format` in all forms.

use crate::util::{Client, Nginx, Server, Signal, eventually, get, nginx, request, subject_is_ours};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

/// Lines of a log once there are as many.
#[track_caller]
fn lines(server: &Server, path: &str, count: usize) -> Vec<String> {
    eventually(&format!("{count} lines in {path}"), || server.read(path).lines().count() >= count);
    server.read(path).lines().map(str::to_owned).collect()
}

/// Sends the same bytes to both servers and compares the logs, line by line.
#[track_caller]
fn same_lines(conf: &str, requests: &[&str]) -> Vec<String> {
    let run = |server: Server| {
        let mut count = 0;
        for bytes in requests {
            let mut client = Client::connect(server.port());
            client.try_send(bytes);
            client.read_to_end();
            // Some lines are written only when the connection is gone: one after the other keeps them in order.
            count += 1;
            lines(&server, "l.log", count);
        }
        lines(&server, "l.log", count)
    };
    let prepare = |builder: crate::util::Builder| builder.file("html/f", "0123456789").start();
    let ours = run(prepare(Server::builder(conf)));
    if nginx::available() {
        let theirs = run(prepare(Nginx::builder(conf)));
        assert_eq!(ours, theirs, "ours, nginx's");
    }
    ours
}

const HOSTILE: &[&str] = &[
    "GET /f?\"'\\x HTTP/1.1\r\nHost: a\r\nUser-Agent: \"quoted\" \\back\\ \ttab\r\nReferer: <script>\r\nConnection: close\r\n\r\n",
    "GET /%0a%0d%22%5c HTTP/1.1\r\nHost: a\r\nUser-Agent: \u{e4}\u{4f60}\u{7f}\r\nConnection: close\r\n\r\n",
    "GET /f HTTP/1.1\r\nHost: a\r\nUser-Agent: \x01\x02\x1b[31m\r\nConnection: close\r\n\r\n",
    "GET /%ff%fe HTTP/1.1\r\nHost: a\r\nReferer: {\"a\":1}\r\nConnection: close\r\n\r\n",
    "\x16\x03\x01\x02\x00\x01\r\n\r\n",
    "GET /f HTTP/1.1\r\nHost: a\r\nAuthorization: Basic Ig==\r\nConnection: close\r\n\r\n",
];

/// A folder that workers may write to, whoever they are.
fn folder_for_all(server: &Server, name: &str) {
    server.write(&format!("{name}/.kept"), "");
    std::fs::set_permissions(server.path(name), PermissionsExt::from_mode(0o777)).expect("permissions");
}

/// A socket that workers may send to, whoever they are.
pub fn syslog_socket(path: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).expect("a socket");
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).expect("permissions");
    let folder = path.parent().expect("a parent");
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o777)).expect("permissions");
    socket
}

#[test]
fn combined_is_the_format_without_a_word() {
    let server =
        Server::builder("server { listen {port}; root {root}/html; }").file("html/f", "0123456789").start();
    request(
        server.port(),
        "GET",
        "/f?q",
        &[("User-Agent", "agent/1"), ("Referer", "http://r/"), ("Authorization", "Basic YW5uOng=")],
    );
    get(server.port(), "/none");
    let lines = server.access_log_lines(2);
    let (head, tail) = lines[0].split_once('[').expect(&lines[0]);
    let (time, tail) = tail.split_once("] ").expect(tail);
    assert_eq!(head, "127.0.0.1 - ann ");
    assert_eq!((time.len(), &time[2..3], &time[11..12], &time[20..21]), (26, "/", ":", " "), "{time}");
    assert_eq!(tail, "\"GET /f?q HTTP/1.1\" 200 10 \"http://r/\" \"agent/1\"");
    assert!(lines[1].starts_with("127.0.0.1 - - ["), "{}", lines[1]);
    assert!(lines[1].ends_with(" \"-\" \"-\"") && lines[1].contains("\" 404 "), "{}", lines[1]);
}

#[test]
fn default_escaping_is_nginx_s() {
    let lines = same_lines(
        "log_format l '$remote_user|$request|$status|$http_user_agent|$http_referer|$uri|$args|$http_none|$arg_x';
         access_log {root}/l.log l; server { listen {port}; root {root}/html; }",
        HOSTILE,
    );
    assert!(lines[0].contains(r"\x22quoted\x22 \x5Cback\x5C"), "{}", lines[0]);
    assert!(lines[0].ends_with("|-|-"), "{}", lines[0]);
}

#[test]
fn json_escaping_is_nginx_s_and_its_lines_parse() {
    let lines = same_lines(
        r#"log_format l escape=json '{"user":"$remote_user","request":"$request","status":$status,"agent":"$http_user_agent","referer":"$http_referer","uri":"$uri","none":"$http_none"}';
         access_log {root}/l.log l; server { listen {port}; root {root}/html; }"#,
        &HOSTILE[..3],
    );
    for line in lines {
        let value: serde_json::Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(value["none"], "");
    }
}

#[test]
fn escape_none_writes_values_as_they_are() {
    let lines = same_lines(
        "log_format l escape=none '$http_user_agent|$args|$http_none'; access_log {root}/l.log l;
         server { listen {port}; root {root}/html; }",
        &["GET /f?\" HTTP/1.1\r\nHost: a\r\nUser-Agent: \"q\" \\ \u{e4}\r\nConnection: close\r\n\r\n"],
    );
    assert_eq!(lines, ["\"q\" \\ \u{e4}|\"|"]);
}

#[test]
fn the_built_in_json_format_always_parses() {
    if !subject_is_ours() {
        return;
    }
    let server = Server::builder("access_log {root}/l.log json; server { listen {port}; root {root}/html; }")
        .file("html/f", "0123456789")
        .start();
    let mut all: Vec<Vec<u8>> = HOSTILE.iter().map(|text| text.as_bytes().to_vec()).collect();
    for byte in 1..=255u8 {
        if byte == b'\n' {
            continue;
        }
        let mut bytes = b"GET /f?x".to_vec();
        if byte > b' ' {
            bytes.push(byte);
        }
        bytes.extend(b" HTTP/1.1\r\nHost: a\r\nUser-Agent: x");
        bytes.push(byte);
        bytes.extend(b"y\xc3\r\nConnection: close\r\n\r\n");
        all.push(bytes);
    }
    for bytes in &all {
        let mut client = Client::connect(server.port());
        client.try_send(bytes);
        client.read_to_end();
    }
    eventually("all lines", || server.read("l.log").lines().count() >= all.len());
    let bytes = std::fs::read(server.path("l.log")).expect("a log");
    let mut count = 0;
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let value: serde_json::Value = serde_json::from_slice(line)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(line)));
        assert!(value.as_object().is_some_and(|object| object.len() > 5), "{value}");
        count += 1;
    }
    assert_eq!(count, all.len());
}

#[test]
fn several_logs_off_conditions_and_inheritance() {
    let server = Server::start(
        "log_format l '$uri'; log_format m 'm:$uri $status';
         map $status $is_error { ~^[45] 1; default 0; }
         access_log {root}/http.log l;
         server { listen {port};
            location /inherit { return 200; }
            location /own { access_log {root}/own.log l; return 200; }
            location /two { access_log {root}/a.log l; access_log {root}/b.log m; return 200; }
            location /off { access_log off; return 200; }
            location /if { access_log {root}/if.log m if=$is_error; if ($arg_x) { return 404; } return 200; }
            location /if-args { access_log {root}/if-args.log l if=$arg_log; return 200; }
            location / { if ($arg_quiet) { access_log off; } return 200; } }",
    );
    for path in [
        "/inherit",
        "/own",
        "/two",
        "/off",
        "/if",
        "/if?x=1",
        "/if-args?log=0",
        "/if-args?log=",
        "/if-args?log=1",
        "/last",
    ] {
        get(server.port(), path);
    }
    assert_eq!(lines(&server, "http.log", 2), ["/inherit", "/last"]);
    assert_eq!(lines(&server, "own.log", 1), ["/own"]);
    assert_eq!(lines(&server, "a.log", 1), ["/two"]);
    assert_eq!(lines(&server, "b.log", 1), ["m:/two 200"]);
    assert_eq!(lines(&server, "if.log", 1), ["m:/if 404"]);
    assert_eq!(lines(&server, "if-args.log", 1), ["/if-args"]);
}

#[test]
fn formats_may_hold_several_parts_and_numbers_are_right() {
    let lines = same_lines(
        "log_format l '$status ' '$body_bytes_sent '
            \"$request_length \" '$request_completion $pipe $connection_requests ${uri}end'; access_log {root}/l.log l;
         server { listen {port}; root {root}/html; server_tokens off; default_type text/x; }",
        &[
            "GET /f HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "HEAD /f HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "GET /f HTTP/1.1\r\nHost: a\r\nRange: bytes=1-3\r\nConnection: close\r\n\r\n",
            "GET /f HTTP/1.1\r\nHost: a\r\nIf-None-Match: \"65937d25-a\"\r\nConnection: close\r\n\r\n",
            "GET /f HTTP/1.0\r\n\r\n",
        ],
    );
    assert!(lines[0].starts_with("200 10 "), "{}", lines[0]);
    assert!(lines[1].starts_with("200 0 "), "{}", lines[1]);
    assert!(lines[2].starts_with("206 3 "), "{}", lines[2]);
    assert!(lines[3].starts_with("304 0 "), "{}", lines[3]);
}

#[test]
fn bad_requests_are_logged_with_what_was_read() {
    let lines = same_lines(
        "log_format l '$request|$status'; access_log {root}/l.log l;
         server { listen {port}; root {root}/html; client_header_buffer_size 1k; large_client_header_buffers 2 1k; }",
        &[
            "garbage\r\n\r\n",
            "GET /f HTTP/1.1\r\n\r\n",
            "GET /f HTTP/3.0\r\nHost: a\r\n\r\n",
            "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    );
    assert!(lines[1].starts_with("GET /f HTTP/1.1|400"), "{}", lines[1]);
}

#[test]
fn a_buffer_is_written_when_full_when_due_or_at_the_end() {
    let mut server = Server::start(
        "log_format l '$uri'; server { listen {port};
            location /big { access_log {root}/big.log l buffer=64k; return 200; }
            location /flush { access_log {root}/flush.log l buffer=64k flush=200ms; return 200; }
            location /small { access_log {root}/small.log l buffer=64; return 200; } }",
    );
    get(server.port(), "/big");
    get(server.port(), "/flush");
    for _ in 0..20 {
        get(server.port(), "/small");
    }
    assert_eq!(lines(&server, "flush.log", 1), ["/flush"]);
    eventually("the small buffer overflows", || server.read("small.log").lines().count() > 5);
    assert_eq!(server.read("big.log"), "", "nothing is due");
    server.signal(Signal::QUIT);
    server.wait_for_exit();
    assert_eq!(server.read("big.log"), "/big\n");
    assert_eq!(server.read("small.log"), "/small\n".repeat(20));
}

#[test]
fn gzip_logs_are_readable() {
    let mut server = Server::start(
        "log_format l '$uri'; server { listen {port}; access_log {root}/l.log.gz l gzip=9 flush=1h; return 200; }",
    );
    for number in 0..100 {
        get(server.port(), &format!("/{number}"));
    }
    server.signal(Signal::QUIT);
    server.wait_for_exit();
    let output =
        std::process::Command::new("gzip").arg("-dc").arg(server.path("l.log.gz")).output().expect("gzip");
    let wanted: String = (0..100).map(|number| format!("/{number}\n")).collect();
    assert_eq!(String::from_utf8_lossy(&output.stdout), wanted);
}

#[test]
fn paths_with_variables_make_files_by_request() {
    let server = Server::start(
        "log_format l '$uri'; open_log_file_cache max=10 inactive=20s valid=1m min_uses=1;
         server { listen {port}; root {root}/html; access_log {root}/logs/$host.log l; }
         server { listen {port2}; root {root}/$arg_root; open_log_file_cache off; access_log {root}/logs/plain-$arg_name.log l; }",
    );
    // Names are made only where the request's root exists: so nginx guards against filling the disk.
    server.write("html/f", "f");
    folder_for_all(&server, "logs");
    for host in ["one.example", "two.example", "one.example"] {
        request(server.port(), "GET", "/f", &[("Host", host)]);
    }
    assert_eq!(lines(&server, "logs/one.example.log", 2), ["/f", "/f"]);
    assert_eq!(lines(&server, "logs/two.example.log", 1), ["/f"]);
    get(server.port_of(2), "/f?root=html&name=a");
    assert_eq!(lines(&server, "logs/plain-a.log", 1), ["/f"]);
    get(server.port_of(2), "/f?root=nowhere&name=b");
    get(server.port_of(2), "/f?root=html&name=c");
    assert_eq!(lines(&server, "logs/plain-c.log", 1), ["/f"]);
    assert!(!server.path("logs/plain-b.log").exists());
}

#[test]
fn a_hostile_host_can_not_choose_the_folder_of_a_log() {
    let server =
        Server::start("server { listen {port}; root {root}/html; access_log {root}/logs/$http_x_name.log; }");
    server.write("html/f", "f");
    folder_for_all(&server, "logs");
    request(server.port(), "GET", "/f", &[("X-Name", "../escaped")]);
    request(server.port(), "GET", "/f", &[("X-Name", "fine")]);
    lines(&server, "logs/fine.log", 1);
    if subject_is_ours() {
        assert!(!server.path("escaped.log").exists(), "a log beside its folder");
    }
}

#[test]
fn usr1_reopens_what_was_moved_away() {
    let server = Server::start(
        "log_format l '$uri'; access_log {root}/l.log l; server { listen {port}; return 200; }",
    );
    get(server.port(), "/before");
    assert_eq!(lines(&server, "l.log", 1), ["/before"]);
    std::fs::rename(server.path("l.log"), server.path("l.old")).expect("rename");
    std::fs::rename(server.path("error.log"), server.path("error.old")).expect("rename");
    get(server.port(), "/between");
    assert_eq!(lines(&server, "l.old", 2)[1], "/between");
    server.signal(Signal::USR1);
    eventually("a new log", || server.path("l.log").exists() && server.path("error.log").exists());
    eventually("lines in the new log", || {
        get(server.port(), "/after");
        server.read("l.log").contains("/after")
    });
}

#[test]
fn syslog_gets_datagrams_in_its_form() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("syslog");
    let socket = syslog_socket(&path);
    socket.set_read_timeout(Some(Duration::from_secs(15))).expect("timeout");
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    udp.set_read_timeout(Some(Duration::from_secs(15))).expect("timeout");
    let server = Server::start(&format!(
        "log_format l 'line $uri'; server {{ listen {{port}}; return 200;
            access_log syslog:server=unix:{},facility=local3,tag=web,severity=notice l;
            access_log syslog:server=127.0.0.1:{},nohostname l; }}",
        path.display(),
        udp.local_addr().expect("address").port(),
    ));
    get(server.port(), "/x");
    let mut buffer = [0; 2048];
    let length = socket.recv(&mut buffer).expect("a datagram");
    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
    // local3 is 19, notice is 5: 19 * 8 + 5.
    assert!(text.starts_with("<157>"), "{text}");
    assert!(text.ends_with(" web: line /x"), "{text}");
    let length = udp.recv(&mut buffer).expect("a datagram");
    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
    // local7 is 23, info is 6.
    assert!(text.starts_with("<190>"), "{text}");
    assert!(text.ends_with("nginx: line /x") || text.ends_with("thalweg: line /x"), "{text}");
}

#[test]
fn a_log_may_be_a_terminal_a_pipe_or_a_full_device() {
    let server = Server::start(
        "log_format l '$uri'; server { listen {port}; return 200 ok;
            access_log /dev/stdout l; access_log /dev/full l; }",
    );
    for _ in 0..3 {
        assert_eq!(get(server.port(), "/x").text(), "ok");
    }
    eventually("lines on standard output", || {
        server.stdout().lines().filter(|line| *line == "/x").count() == 3
    });
}

#[test]
fn the_log_of_a_subrequest_and_redirects_is_of_the_final_location() {
    let server = Server::builder(
        "log_format l '$uri $status'; server { listen {port}; root {root}/html; access_log {root}/first.log l;
            location /start { try_files /end =404; }
            location /end { access_log {root}/end.log l; }
            location /error { error_page 404 /end; return 404; } }",
    )
    .file("html/end", "end")
    .start();
    get(server.port(), "/start");
    get(server.port(), "/error");
    get(server.port(), "/other");
    assert_eq!(lines(&server, "first.log", 2), ["/end 200", "/other 404"]);
    assert_eq!(lines(&server, "end.log", 1), ["/end 404"]);
}

#[test]
fn lines_of_concurrent_requests_are_never_torn() {
    let server = Server::start(
        "worker_processes 2; events { } http { log_format l '<$uri>'; access_log {root}/l.log l;
         server { listen {port} reuseport; return 200; } }",
    );
    let port = server.port();
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            std::thread::spawn(move || {
                let mut client = Client::connect(port);
                for number in 0..200 {
                    client.send(format!(
                        "GET /{thread}-{number}-{} HTTP/1.1\r\nHost: a\r\n\r\n",
                        "x".repeat(500)
                    ));
                    client.read_response();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("a client");
    }
    let lines = lines(&server, "l.log", 1600);
    assert_eq!(lines.len(), 1600);
    assert!(
        lines
            .iter()
            .all(|line| line.starts_with("</") && line.ends_with("x>") && line.matches('<').count() == 1)
    );
}
