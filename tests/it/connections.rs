//! Connections: keep-alive and its ends, timeouts, lingering, rates, limits on descriptors and connections, balance.

use crate::util::{Client, Parity, Server, eventually, get, parity, raw, request};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn hello(directives: &str) -> Server {
    Server::start(&format!("{directives} server {{ listen {{port}}; location / {{ return 200 hello; }} }}"))
}

/// A field of the response to a GET.
fn field_of(server: &Server, name: &str) -> Option<String> {
    raw(server.port(), GET).expect("a response").header(name).map(str::to_owned)
}

#[test]
fn an_idle_connection_is_closed_after_keepalive_timeout() {
    let server = hello("keepalive_timeout 300ms;");
    let mut client = Client::connect(server.port());
    client.send(GET);
    assert_eq!(client.read_response().header("connection"), Some("keep-alive"));
    client.expect_closed();
    // Not an event for the log beyond info.
    assert!(!server.error_log().contains("[error]"), "{}", server.error_log());
}

#[test]
fn keepalive_timeout_can_be_announced_or_zero() {
    let server = hello("");
    assert_eq!(field_of(&server, "keep-alive"), None);
    assert_eq!(field_of(&server, "connection").as_deref(), Some("keep-alive"));
    let server = hello("keepalive_timeout 60s 20s;");
    assert_eq!(field_of(&server, "keep-alive").as_deref(), Some("timeout=20"));
    let server = hello("keepalive_timeout 0;");
    assert_eq!(field_of(&server, "connection").as_deref(), Some("close"));
    for value in ["0", "0 20", "60 20", "1h 1m"] {
        let conf = format!(
            "keepalive_timeout {value}; server {{ listen {{port}}; location / {{ return 200 x; }} }}"
        );
        parity(&conf, &[GET, "GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"]);
    }
}

#[test]
fn a_connection_serves_keepalive_requests_requests() {
    let conf = "keepalive_requests 3; server { listen {port}; location / { return 200 x; } }";
    let server = Server::start(conf);
    let mut client = Client::connect(server.port());
    for expected in ["keep-alive", "keep-alive", "close"] {
        client.send(GET);
        assert_eq!(client.read_response().header("connection"), Some(expected));
    }
    client.expect_closed();
    Parity::new(conf).pipelined(GET.repeat(5), 5).check();
    let server = hello("");
    let mut client = Client::connect(server.port());
    for number in 1..=1000 {
        client.send(GET);
        let expected = if number == 1000 { "close" } else { "keep-alive" };
        assert_eq!(client.read_response().header("connection"), Some(expected), "request {number}");
    }
}

#[test]
fn a_connection_older_than_keepalive_time_is_closed_after_its_response() {
    let server = hello("keepalive_time 200ms;");
    let mut client = Client::connect(server.port());
    client.send(GET);
    assert_eq!(client.read_response().status, 200);
    std::thread::sleep(Duration::from_millis(400));
    client.send(GET);
    assert_eq!(client.read_response().header("connection"), Some("close"));
    client.expect_closed();
}

const MSIE6: &str = "Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)";
const SAFARI: &str = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15) AppleWebKit/605.1 (KHTML, like Gecko) Version/17.0 Safari/605.1";
const CHROME: &str = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 Safari/537.36";

#[test]
fn keepalive_disable_names_browsers_without_keep_alive() {
    let conf = |value: &str| format!("{value} server {{ listen {{port}}; location / {{ return 200 x; }} }}");
    let ask = |server: &Server, method: &str, agent: &str| {
        let bytes =
            format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nUser-Agent: {agent}\r\n\r\n");
        raw(server.port(), bytes).expect("a response").header("connection") == Some("keep-alive")
    };
    let all = |directive: &str| {
        let server = Server::start(&conf(directive));
        [("GET", MSIE6), ("POST", MSIE6), ("GET", SAFARI), ("GET", CHROME)]
            .map(|(method, agent)| ask(&server, method, agent))
    };
    // Old Internet Explorers lose their connection after a POST only.
    assert_eq!(all(""), [true, false, true, true]);
    assert_eq!(all("keepalive_disable safari;"), [true, true, false, true]);
    assert_eq!(all("keepalive_disable msie6 safari;"), [true, false, false, true]);
    assert_eq!(all("keepalive_disable none;"), [true; 4]);
    for directive in ["", "keepalive_disable safari;", "keepalive_disable none;"] {
        let mut comparison = Parity::new(&conf(directive));
        for agent in [MSIE6, SAFARI, CHROME] {
            for method in ["GET", "POST"] {
                comparison = comparison.request(format!(
                    "{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nUser-Agent: {agent}\r\n\r\n"
                ));
            }
        }
        comparison.check();
    }
}

#[test]
fn keepalive_min_timeout_protects_idle_connections_from_a_graceful_shutdown() {
    // Since nginx 1.27.4.
    let quit = |directive: &str| {
        let server = hello(directive);
        let mut client = Client::connect(server.port());
        client.send(GET);
        assert_eq!(client.read_response().status, 200);
        server.signal(crate::util::Signal::QUIT);
        (server, client)
    };
    let (_server, mut client) = quit("");
    client.expect_closed();
    let (mut server, mut client) = quit("keepalive_min_timeout 10s;");
    client.expect_quiet(Duration::from_millis(400));
    client.send(GET);
    let response = client.read_response();
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    client.expect_closed();
    assert!(server.wait_for_exit().success());
}

#[test]
fn a_client_that_leaves_within_a_head_is_in_the_access_log() {
    let server = hello("");
    let mut client = Client::connect(server.port());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response().status, 200);
    client.send("GET / HTTP/1.1\r\nHos").finish_sending();
    client.expect_closed();
    // One that leaves between requests is not.
    drop(Client::connect(server.port()));
    let lines = server.access_log_lines(2);
    assert!(lines[0].contains(" 200 ") && lines[1].contains(" 400 0 "), "{lines:?}");
}

#[test]
fn a_head_that_does_not_come_in_time_closes_the_connection() {
    let server = hello("client_header_timeout 300ms;");
    // Nothing at all: no request, no line in the access log.
    Client::connect(server.port()).expect_closed();
    assert_eq!(server.access_log(), "");
    // A part of a head: logged as 408, and nothing is sent.
    let mut client = Client::connect(server.port());
    client.send("GET / HTTP/1.1\r\nHos");
    client.expect_closed();
    assert!(server.access_log_lines(1)[0].contains(" 408 0 "), "{}", server.access_log());
    eventually("a log line", || server.error_log().contains("client timed out (110: Connection timed out)"));
    assert!(!server.error_log().contains("[error]"), "{}", server.error_log());
}

#[test]
fn dripping_bytes_do_not_extend_the_time_for_a_head() {
    let server = hello("client_header_timeout 500ms;");
    let mut client = Client::connect(server.port());
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX: ");
    eventually("a close", || {
        std::thread::sleep(Duration::from_millis(50));
        !client.try_send("x")
    });
}

#[test]
fn a_keep_alive_connection_has_the_header_time_once_a_head_begins() {
    let server = hello("client_header_timeout 300ms; keepalive_timeout 10s;");
    let mut client = Client::connect(server.port());
    client.send(GET);
    assert_eq!(client.read_response().status, 200);
    // Idle longer than a head may take: the keep-alive time counts.
    client.expect_quiet(Duration::from_millis(600));
    client.send("GET");
    client.expect_closed();
    assert!(server.access_log_lines(2)[1].contains(" 408 0 "), "{}", server.access_log());
}

#[test]
fn a_body_that_does_not_come_in_time_closes_the_connection() {
    let server = hello("client_body_timeout 300ms; client_body_early_read 1;");
    let mut client = Client::connect(server.port());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab");
    client.expect_closed();
    assert!(server.access_log_lines(1)[0].contains(" 408 0 "), "{}", server.access_log());
    // The time is that between two bytes, not that of the whole body.
    let mut client = Client::connect(server.port());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
    client.send_slowly("0123456789", Duration::from_millis(60));
    assert_eq!(client.read_response().status, 200);
}

const BIG: usize = 30 << 20;

fn with_big_file(directives: &str) -> Server {
    let conf = format!("{directives} server {{ listen {{port}}; root {{root}}/html; }}");
    let server = Server::start(&conf);
    let path = server.write("html/big", "");
    let file = std::fs::File::options().write(true).open(path).expect("open");
    file.set_len(BIG as u64).expect("make it large");
    server.write("html/small", "small");
    server
}

/// A connection on which the big file was asked for, and nothing is read.
fn ask_for_big(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).expect("connect");
    stream.write_all(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n").expect("send");
    stream
}

#[test]
fn a_client_that_does_not_read_is_closed_after_send_timeout() {
    for sendfile in ["on", "off"] {
        let server = with_big_file(&format!("send_timeout 300ms; sendfile {sendfile};"));
        let _stream = ask_for_big(&server);
        let line = server.access_log_lines(1)[0].clone();
        let sent: usize = line
            .split("\" 200 ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next()?.parse().ok())
            .unwrap_or_else(|| panic!("{line}"));
        assert!(sent < BIG, "{line}");
        eventually("a log line", || {
            server.error_log().contains("client timed out (110: Connection timed out)")
        });
        assert!(!server.error_log().contains("[error]"), "{}", server.error_log());
        assert_eq!(get(server.port(), "/small").text(), "small");
    }
}

#[test]
fn a_client_that_reads_slowly_is_served_to_the_end() {
    let server = with_big_file("send_timeout 2s; sendfile on;");
    let mut stream = ask_for_big(&server);
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    // Slower than the time limit in sum, faster piece by piece.
    while total < BIG {
        std::thread::sleep(Duration::from_millis(100));
        match stream.read(&mut buffer).expect("bytes") {
            0 => break,
            count => total += count,
        }
    }
    assert!(total >= BIG, "closed after {total} bytes");
}

/// What reading ends with: `None` for an orderly close.
fn end_of(stream: &mut TcpStream) -> Option<ErrorKind> {
    stream.set_read_timeout(Some(crate::util::PATIENCE)).expect("set timeout");
    let mut buffer = [0; 65536];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) => return Some(error.kind()),
        }
    }
}

#[test]
fn reset_timedout_connection_resets_instead_of_closing() {
    for (flag, expected) in [("off", None), ("on", Some(ErrorKind::ConnectionReset))] {
        let server = hello(&format!("client_header_timeout 300ms; reset_timedout_connection {flag};"));
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).expect("connect");
        stream.write_all(b"GET / HTTP/1.1\r\n").expect("send");
        assert_eq!(end_of(&mut stream), expected, "header, {flag}");
        // Keep-alive connections always end in order.
        let server = hello(&format!("keepalive_timeout 300ms; reset_timedout_connection {flag};"));
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).expect("connect");
        stream.write_all(GET.as_bytes()).expect("send");
        assert_eq!(end_of(&mut stream), None, "keep-alive, {flag}");
    }
    let server = with_big_file("send_timeout 300ms; reset_timedout_connection on;");
    let mut stream = ask_for_big(&server);
    server.access_log_lines(1);
    assert_eq!(end_of(&mut stream), Some(ErrorKind::ConnectionReset));
}

/// A response that closes was read up to the end of the stream; whether the server still takes bytes.
fn lingers(server: &Server, bytes: &str) -> bool {
    let mut client = Client::connect(server.port());
    client.send(bytes);
    client.read_response();
    client.expect_closed();
    (0..6).all(|_| {
        let taken = client.try_send("x");
        std::thread::sleep(Duration::from_millis(60));
        taken
    })
}

#[test]
fn lingering_close_decides_what_happens_to_bytes_behind_a_response() {
    let plain = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let unread = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\nConnection: close\r\n\r\n";
    // With a body outstanding, nginx shuts its side down only when the body is done with; ours says at once that no more
    // will come.
    let times = "lingering_time 20s; lingering_timeout 20s;";
    for (value, expected) in [("off", [false, false]), ("on", [false, true]), ("always", [true, true])] {
        let server = hello(&format!("lingering_close {value}; {times}"));
        assert_eq!([lingers(&server, plain), lingers(&server, unread)], expected, "{value}");
    }
}

#[test]
fn lingering_ends_after_its_timeout_and_its_time() {
    for times in
        ["lingering_timeout 200ms; lingering_time 20s;", "lingering_timeout 20s; lingering_time 500ms;"]
    {
        let server = hello(&format!("lingering_close always; {times}"));
        let mut client = Client::connect(server.port());
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        client.read_response();
        client.expect_closed();
        if times.starts_with("lingering_timeout 200ms") {
            // Quiet for longer than the timeout.
            std::thread::sleep(Duration::from_millis(600));
        }
        eventually("the connection is gone", || {
            std::thread::sleep(Duration::from_millis(20));
            !client.try_send("x")
        });
    }
}

#[test]
fn a_refused_client_that_still_sends_gets_its_answer() {
    // Without lingering, the kernel would answer what still comes with a reset, which destroys the response.
    let server = hello("client_max_body_size 1k; postpone_output 0;");
    let body = "x".repeat(3 << 20);
    for _ in 0..5 {
        let mut client = Client::connect(server.port());
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
        client.send(head);
        client.try_send(&body);
        assert_eq!(client.read_response().status, 413);
    }
}

#[test]
fn socket_tuning_changes_no_response() {
    for directives in [
        "tcp_nodelay on;",
        "tcp_nodelay off;",
        "sendfile on; tcp_nopush on;",
        "sendfile on; tcp_nopush on; tcp_nodelay off;",
        "postpone_output 0;",
        "postpone_output 10k;",
        "sendfile on; sendfile_max_chunk 1k;",
        "output_buffers 1 1k; send_lowat 0;",
    ] {
        let conf = format!("{directives} server {{ listen {{port}}; root {{root}}/html; }}");
        let body: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        let server = Server::builder(&conf).file("html/a", "a").file("html/b", &body).start();
        let mut client = Client::connect(server.port());
        for _ in 0..3 {
            client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(client.read_response().body, b"a", "{directives}");
            assert!(client.read_response().body == body, "{directives}");
        }
    }
}

#[test]
fn limit_rate_slows_a_response_down() {
    let conf = "server { listen {port}; root {root}/html;
        location /fixed/ { alias {root}/html/; limit_rate 20k; }
        location /after/ { alias {root}/html/; limit_rate 1k; limit_rate_after 1m; }
        location /variable/ { alias {root}/html/; limit_rate $arg_rate; limit_rate_after $arg_after; }
        location /if/ { alias {root}/html/; if ($arg_slow) { set $limit_rate 20k; } } }";
    let body = vec![b'x'; 60 << 10];
    let server = Server::builder(conf).file("html/a", &body).start();
    let is_slow = |path: &str| {
        let start = Instant::now();
        let response = get(server.port(), path);
        assert_eq!((response.status, response.body.len()), (200, body.len()), "{path}");
        start.elapsed() > Duration::from_secs(1)
    };
    assert!(is_slow("/fixed/a"));
    assert!(is_slow("/variable/a?rate=20k"));
    assert!(is_slow("/if/a?slow=1"));
    // These would take a minute if they were limited.
    get(server.port(), "/after/a");
    get(server.port(), "/variable/a?rate=1k&after=100k");
    get(server.port(), "/variable/a?rate=0");
    get(server.port(), "/variable/a");
    get(server.port(), "/variable/a?rate=nonsense");
    get(server.port(), "/if/a");
}

#[test]
fn a_slow_response_holds_up_nobody_else() {
    let conf = "limit_rate 1k; server { listen {port}; root {root}/html; location = /quick { limit_rate 0; return 200 quick; } }";
    let server = Server::builder(conf).file("html/a", vec![b'x'; 1 << 20]).start();
    let _slow: Vec<Client> = (0..20)
        .map(|_| {
            let mut client = Client::connect(server.port());
            client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
            client
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(get(server.port(), "/quick").text(), "quick");
    }
}

fn shared(main: &str, events: &str) -> String {
    format!(
        "{main} events {{ {events} }} http {{ client_body_early_read 1; server {{ listen {{port}}; return 200 hello; }} }}"
    )
}

#[test]
fn out_of_descriptors_accepting_stops_and_goes_on_later() {
    let server =
        Server::start(&shared("worker_processes 1; worker_rlimit_nofile 80;", "worker_connections 1000;"));
    // An idle connection would give way.
    let mut busy = Client::connect(server.port());
    busy.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab");
    let others: Vec<Client> = (0..150).map(|_| Client::connect(server.port())).collect();
    eventually("a log line", || server.error_log().contains("Too many open files"));
    std::thread::sleep(Duration::from_millis(700));
    // It neither spins nor fills the log, and serves who is in.
    let lines = server.error_log().matches("Too many open files").count();
    assert_eq!(lines, 1, "{}", server.error_log());
    busy.send("cde");
    assert_eq!(busy.read_response().status, 200);
    drop(others);
    for _ in 0..20 {
        assert_eq!(get(server.port(), "/").status, 200);
    }
}

#[test]
fn at_worker_connections_the_oldest_idle_connection_goes_first() {
    let server = Server::start(&shared("worker_processes 1;", "worker_connections 24;"));
    let mut busy = Client::connect(server.port());
    busy.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab");
    let mut clients: Vec<Client> = (0..60)
        .map(|number| {
            let mut client = Client::connect(server.port());
            client.send(GET);
            let response = client.response_to("GET");
            assert!(response.is_ok_and(|response| response.status == 200), "client {number}");
            client
        })
        .collect();
    // The oldest are closed, the youngest live on, and a request on its way is not touched.
    for client in &mut clients[..20] {
        client.expect_closed();
    }
    let last = clients.last_mut().expect("clients");
    last.send(GET);
    assert_eq!(last.read_response().status, 200);
    busy.send("cde");
    assert_eq!(busy.read_response().status, 200);
    assert!(server.error_log().contains("worker_connections are not enough"), "{}", server.error_log());
}

#[test]
fn keepalive_min_timeout_keeps_idle_connections_from_giving_way() {
    let server = Server::start(
        &shared("worker_processes 1;", "worker_connections 20;")
            .replace("server {", "keepalive_min_timeout 60s; server {"),
    );
    let mut clients: Vec<Client> = (0..30).map(|_| Client::connect(server.port())).collect();
    for client in &mut clients {
        client.send(GET);
    }
    assert_eq!(clients[0].read_response().status, 200);
    eventually("a log line", || server.error_log().contains("worker_connections are not enough"));
    clients[0].expect_quiet(Duration::from_millis(300));
    // When some leave, those that wait come in.
    clients.drain(..15);
    assert_eq!(clients.last_mut().expect("clients").read_response().status, 200);
}

#[test]
fn with_no_idle_connection_to_give_up_a_new_one_is_closed_or_waits() {
    let server = Server::start(&shared("worker_processes 1;", "worker_connections 20;"));
    let mut busy: Vec<Client> = (0..40)
        .map(|_| {
            let mut client = Client::connect(server.port());
            client.try_send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab");
            client
        })
        .collect();
    eventually("a log line", || server.error_log().contains("worker_connections are not enough"));
    // Those who are in are served.
    busy[0].send("cde");
    assert_eq!(busy[0].read_response().status, 200);
    drop(busy);
    eventually("it serves again", || {
        let mut client = Client::connect(server.port());
        client.try_send(GET) && client.response_to("GET").is_ok_and(|response| response.status == 200)
    });
}

/// How many sockets each event loop of the server watches, fewest first: what `/proc` tells of epoll descriptors.
fn watched_by_loops(server: &Server) -> Vec<usize> {
    let mut counts = Vec::new();
    for pid in server.children() {
        let folder = format!("/proc/{}", pid.as_raw_nonzero());
        for entry in std::fs::read_dir(format!("{folder}/fd")).into_iter().flatten().flatten() {
            if std::fs::read_link(entry.path()).is_ok_and(|link| link.ends_with("anon_inode:[eventpoll]")) {
                let name = entry.file_name();
                let info = std::fs::read_to_string(format!("{folder}/fdinfo/{}", name.display()));
                counts.push(info.unwrap_or_default().matches("tfd:").count());
            }
        }
    }
    counts.sort_unstable();
    counts
}

#[test]
fn connections_are_spread_over_the_workers() {
    let server = Server::start(&shared("worker_processes 2;", "worker_connections 1000;"));
    eventually("two workers", || watched_by_loops(&server).len() >= 2);
    let mut clients: Vec<Client> = (0..400).map(|_| Client::connect(server.port())).collect();
    for client in &mut clients {
        client.send(GET);
    }
    for client in &mut clients {
        assert_eq!(client.read_response().status, 200);
    }
    eventually("all watched", || watched_by_loops(&server).iter().sum::<usize>() >= 400);
    let counts = watched_by_loops(&server);
    let fewer = counts[counts.len() - 2];
    assert!(fewer >= 100, "one worker has nearly all: {counts:?}");
}

#[test]
fn a_connection_that_is_closed_by_the_client_leaves_nothing_behind() {
    let server = Server::start(&shared("worker_processes 1;", "worker_connections 1000;"));
    get(server.port(), "/");
    let before = watched_by_loops(&server);
    for round in 0..3 {
        let clients: Vec<Client> = (0..100)
            .map(|number| {
                let mut client = Client::connect(server.port());
                match (round + number) % 4 {
                    0 => {}
                    1 => drop(client.send("GET / HT")),
                    2 => drop(client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")),
                    _ => drop(client.send(GET)),
                }
                client
            })
            .collect();
        drop(clients);
    }
    eventually("all are gone", || watched_by_loops(&server) <= before);
    assert!(!server.error_log().contains("[alert]"), "{}", server.error_log());
}

#[test]
fn a_client_that_shuts_its_side_down_gets_its_answer() {
    let server = hello("");
    let mut client = Client::connect(server.port());
    client.send(GET).finish_sending();
    assert_eq!(client.read_response().text(), "hello");
    client.expect_closed();
    // Also within a pipeline.
    let mut client = Client::connect(server.port());
    client.send(GET.repeat(20)).finish_sending();
    for _ in 0..20 {
        assert_eq!(client.read_response().text(), "hello");
    }
    client.expect_closed();
}

#[test]
fn variables_count_a_connection_s_requests() {
    let server = Server::start(
        "server { listen {port}; return 200 '$connection|$connection_requests|$remote_addr|$server_port|$remote_port'; }",
    );
    let mut client = Client::connect(server.port());
    let mut ask = || {
        client.send(GET);
        client.read_response().text()
    };
    let (first, second) = (ask(), ask());
    let first: Vec<&str> = first.split('|').collect();
    let second: Vec<&str> = second.split('|').collect();
    assert_eq!((first[0], first[1], second[1]), (second[0], "1", "2"));
    assert_eq!((first[2], first[3]), ("127.0.0.1", server.port().to_string().as_str()));
    let other = request(server.port(), "GET", "/", &[]).text();
    assert_ne!(other.split('|').next(), Some(first[0]));
}
