//! What ends a connection or a handshake: time, garbage, goodbyes, the server's end.

use super::*;

#[test]
fn a_handshake_that_takes_too_long_is_given_up() {
    let server = Server::start(&text("client_header_timeout 1s; return 200 x;"));
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    for bytes in [&b""[..], hello] {
        let mut client = Client::connect(server.port());
        client.send(bytes);
        client.expect_closed();
    }
    // One that goes on and on is no better.
    let mut client = Client::connect(server.port());
    client.send(hello);
    for _ in 0..60 {
        if !client.try_send([7]) {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = client.try_send([7]);
    client.expect_closed();
    eventually("a line", || server.error_log().contains("timed out"));
    // After the handshake the time begins anew, and is for the request's head.
    let mut client = connect_tls(server.port(), "example.com", &[]);
    client.expect_closed();
}

#[test]
fn garbage_instead_of_a_hello_costs_its_connection_only() {
    let server = Server::start(&text("return 200 x;"));
    let mut healthy = connect_tls(server.port(), "example.com", &[]);
    let oversized = [&b"\x16\x03\x01\xff\xff"[..], &[0x55; 70_000]].concat();
    let not_a_hello = b"\x16\x03\x01\x00\x04\x02\x00\x00\x00";
    let endless = [&b"\x16\x03\x01\x40\x00\x01\xff\xff\xff"[..], &[0; 16_380]].concat();
    let flood = [&b"\x16\x03\x01\x40\x00"[..], &[0x41; 16_384]].concat().repeat(20);
    for garbage in [
        &oversized[..],
        not_a_hello,
        &endless,
        &flood,
        b"\x16garbage garbage garbage",
        b"\x80\x2e\x01\x03\x01",
    ] {
        let mut client = Client::connect(server.port());
        client.try_send(garbage);
        if garbage == endless {
            // More of the same is bounded.
            for _ in 0..64 {
                client.try_send([&b"\x16\x03\x01\x40\x00"[..], &[0; 16_384]].concat());
            }
        }
        let mut answer = Vec::new();
        loop {
            let some = client.read_some();
            if some.is_empty() {
                break;
            }
            answer.extend(some);
        }
        assert!(answer.is_empty() || answer[0] == 0x15 || answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
    }
    healthy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(healthy.read_response().text(), "x");
    assert!(
        !server.error_log().contains("[alert]") && !server.error_log().contains("[crit]"),
        "{}",
        server.error_log()
    );
}

#[test]
fn a_corrupt_record_ends_the_connection_with_an_alert() {
    let server = Server::start(&text("return 200 x;"));
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).expect("connect");
    let mut other = socket.try_clone().expect("dup");
    let (mut client, _) = Connector::new(&[], None).try_over(socket, "example.com").expect("a handshake");
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response().text(), "x");
    other.write_all(&[&b"\x17\x03\x03\x00\x20"[..], &[9; 32]].concat()).expect("send");
    assert!(client.response_to("GET").is_err());
    eventually("a line", || server.error_log().contains("SSL_read() failed"));
}

#[test]
fn half_closed_connections_get_their_answers() {
    if !has("openssl") {
        return;
    }
    let upstream = Upstream::http(|_, _| {
        std::thread::sleep(Duration::from_millis(200));
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate".to_vec()
    });
    let server = Server::start(&text(&format!(
        "location / {{ proxy_pass http://127.0.0.1:{}; proxy_ignore_client_abort on; }}",
        upstream.port()
    )));
    // s_client with -no_ign_eof sends its close_notify as soon as its input ends.
    let said = s_client(&server, &["-quiet"], "/").text();
    assert!(said.ends_with("late"), "{said}");
}

#[test]
fn connections_under_way_are_finished_when_the_server_quits() {
    let upstream = Upstream::http(|_, _| {
        std::thread::sleep(Duration::from_millis(400));
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate".to_vec()
    });
    let mut server = Server::start(&text(&format!(
        "root {{root}}/html; location /p {{ proxy_pass http://127.0.0.1:{}; }}",
        upstream.port()
    )));
    let big = noise(8 << 20);
    server.write("html/big", &big);
    let mut idle = connect_tls(server.port(), "example.com", &[]);
    idle.send("GET /p HTTP/1.1\r\nHost: a\r\n\r\n");
    idle.read_response();
    let mut waiting = connect_tls(server.port(), "example.com", &[]);
    waiting.send("GET /p HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut reading = connect_tls(server.port(), "example.com", &[]);
    reading.send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the upstream is asked", || upstream.accepted() > 0);
    std::thread::sleep(Duration::from_millis(50));
    server.signal(Signal::QUIT);
    idle.expect_closed();
    assert_eq!(waiting.read_response().text(), "late");
    waiting.expect_closed();
    assert!(reading.read_response().body == big);
    reading.expect_closed();
    assert!(server.wait_for_exit().success());
}

#[test]
fn readers_that_take_nothing_hold_little_and_are_given_up() {
    let server = Server::start(&text("root {root}/html; send_timeout 2s;"));
    server.write("html/big", noise(8 << 20));
    let resident = || {
        let pid = *server.children().last().expect("a server process");
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number")
    };
    let before = resident();
    let _idle: Vec<Client> = (0..40)
        .map(|_| {
            let mut client = connect_tls(server.port(), "example.com", &[]);
            client.send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
            client
        })
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    let grown = resident().saturating_sub(before);
    assert!(grown < 30_000, "{grown} KiB");
    eventually("all are given up", || {
        server.access_log().lines().filter(|line| line.contains("GET /big")).count() == 40
    });
}
