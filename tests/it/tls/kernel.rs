//! Connections that are given to the kernel. Where it has no TLS, they hold that nothing changes.

use super::*;

/// Whether this machine's kernel can encrypt by itself.
fn kernel_has_tls() -> bool {
    let known = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_ulp").unwrap_or_default();
    known.split_ascii_whitespace().any(|name| name == "tls")
}

/// A server that gives its connections to the kernel where that can take them.
fn kernel_server(directives: &str) -> Server {
    Server::start(&format!(
        "worker_processes 1; error_log {{root}}/error.log debug; http {{ {} }}",
        text(&format!("root {{root}}/html; sendfile on; ssl_conf_command Options KTLS; {directives}"))
    ))
}

/// How many connections the kernel was given.
fn given(server: &Server) -> usize {
    server.error_log().matches("the kernel encrypts from here on").count()
}

#[test]
fn the_kernel_is_asked_once_whether_it_encrypts() {
    let server = kernel_server("");
    let expected =
        if kernel_has_tls() { "the kernel encrypts by itself: [" } else { "the kernel does not have TLS (" };
    eventually("a line", || server.error_log().contains(expected));
    assert!(!Server::start(&text("")).error_log().contains("the kernel"));
}

#[test]
fn the_kernel_sends_files_with_every_suite() {
    if !has("openssl") {
        return;
    }
    let server = kernel_server("");
    let big = noise((2 << 20) + 77);
    server.write("html/big", &big);
    let mut connections = 0;
    for (version, option, suite) in [
        ("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"),
        ("-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"),
        ("-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"),
        ("-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"),
        ("-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"),
        ("-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"),
    ] {
        let said = s_client(&server, &["-quiet", version, option, suite], "/big");
        assert!(said.stdout.ends_with(&big), "{suite}: {}", said.stderr);
        connections += usize::from(kernel_has_tls());
        eventually("the kernel's part", || given(&server) == connections);
    }
    assert!(!server.error_log().contains("[alert]"), "{}", server.error_log());
}

#[test]
fn a_connection_goes_on_after_the_kernel_took_it() {
    let upstream = Upstream::http(|_, body| {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len())
            .into_bytes()
            .into_iter()
            .chain(body.iter().copied())
            .collect()
    });
    let server = kernel_server(&format!(
        "client_max_body_size 10m; location /p {{ proxy_pass http://127.0.0.1:{}; proxy_http_version 1.1; }}
         location /s {{ return 200 small; }}",
        upstream.port()
    ));
    let big = noise((3 << 20) + 5);
    server.write("html/big", &big);
    let mut client = connect_tls(server.port(), "example.com", &[]);
    for round in 0..3 {
        client.send("GET /s HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_response().text(), "small");
        // Pipelined behind it: what comes while the file is sent is read by whoever has the keys then.
        client.send("GET /big HTTP/1.1\r\nHost: a\r\n\r\nGET /s HTTP/1.1\r\nHost: a\r\n\r\n");
        std::thread::sleep(Duration::from_millis(50));
        client.send("GET /s HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(client.read_response().body == big, "round {round}");
        assert_eq!(client.read_response().text(), "small");
        assert_eq!(client.read_response().text(), "small");
        let body = noise(500_000 + round);
        client.send(format!("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()));
        client.send(&body);
        assert!(client.read_response().body == body, "upload {round}");
        client.send("GET /big HTTP/1.1\r\nHost: a\r\nRange: bytes=1000000-1999999\r\n\r\n");
        let part = client.read_response();
        assert!(part.status == 206 && part.body == big[1_000_000..2_000_000]);
    }
    assert_eq!(given(&server), usize::from(kernel_has_tls()));
    // The last response of a connection comes whole, with a goodbye behind it.
    client.send("GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(client.read_response().body == big);
    client.expect_closed();
    // A reader that pauses.
    let mut client = connect_tls(server.port(), "example.com", &[]);
    client.send("GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    std::thread::sleep(Duration::from_millis(700));
    assert!(client.read_response().body == big);
    client.expect_closed();
    assert!(
        !server.error_log().contains("[alert]") && !server.error_log().contains("[crit]"),
        "{}",
        server.error_log()
    );
}

#[test]
fn what_the_kernel_cannot_decrypt_ends_the_connection() {
    let server = kernel_server("keepalive_timeout 60s; location /s { return 200 small; }");
    let big = noise(1 << 20);
    server.write("html/big", &big);
    for garbage in [&[&b"\x17\x03\x03\x00\x20"[..], &[9; 32]].concat()[..], b"GET / HTTP/1.1\r\n\r\n"] {
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).expect("connect");
        let mut other = socket.try_clone().expect("dup");
        let (mut client, _) = Connector::new(&[], None).try_over(socket, "example.com").expect("a handshake");
        client.send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(client.read_response().body == big);
        other.write_all(garbage).expect("send");
        assert!(client.response_to("GET").is_err());
    }
    let mut client = connect_tls(server.port(), "example.com", &[]);
    client.send("GET /s HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response().text(), "small");
}

#[test]
fn a_client_s_goodbye_ends_a_connection_that_the_kernel_has() {
    if !has("python3") {
        return;
    }
    let server = kernel_server("");
    server.write("html/big", noise(1 << 20));
    // `unwrap` sends the goodbye, and fails unless one comes back.
    let script = "
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[2])
bare = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
tls = context.wrap_socket(bare, server_hostname='example.com')
tls.sendall(b'GET /big HTTP/1.1\\r\\nHost: example.com\\r\\n\\r\\n')
answer = b''
while len(answer.partition(b'\\r\\n\\r\\n')[2]) < 1 << 20: answer += tls.recv(65536)
bare = tls.unwrap()
print(bare.recv(1))";
    let script = server.write("script.py", script);
    let (port, authority) = (server.port().to_string(), format!("{FIXTURES}/ca.pem"));
    let said = run("python3", &[script.to_str().expect("UTF-8"), &port, &authority], b"");
    assert_eq!(said.text().trim(), "b''", "{}", said.stderr);
    assert_eq!(given(&server), usize::from(kernel_has_tls()));
    assert!(!server.error_log().contains("[alert]"), "{}", server.error_log());
}
