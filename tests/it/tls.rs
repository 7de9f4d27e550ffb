//! `listen ... ssl`, asked by curl, by OpenSSL's `s_client` and byte by byte.

use crate::util::h2::H2;
use crate::util::tls::{Connector, FIXTURES, Said, connect_tls, curl, fixture, has, run};
use crate::util::{Client, Server, Signal, Upstream, eventually, raw};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

mod certificates;
mod endings;
mod kernel;
mod sessions;

/// The usual certificate.
const PAIR: &str = "ssl_certificate {fixtures}/server-ec.pem; ssl_certificate_key {fixtures}/server-ec.key;";

/// One server on a TLS port, with these directives.
fn text(directives: &str) -> String {
    format!("server {{ listen {{port}} ssl; server_name example.com; {PAIR} {directives} }}")
}

fn url(server: &Server, path: &str) -> String {
    format!("https://example.com:{}{path}", server.port())
}

/// A 64-bit generator's bytes: what no compression and no mistake in an offset gets right by accident.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// `openssl s_client`, which sends a request and reads to the close.
fn s_client(server: &Server, arguments: &[&str], path: &str) -> Said {
    let address = format!("127.0.0.1:{}", server.port());
    let authority = format!("{FIXTURES}/ca.pem");
    let mut all = vec!["s_client", "-connect", &address, "-CAfile", &authority, "-ign_eof"];
    if !arguments.contains(&"-servername") && !arguments.contains(&"-noservername") {
        all.extend(["-servername", "example.com"]);
    }
    all.extend(arguments);
    let request = format!("GET {path} HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n");
    run("openssl", &all, request.as_bytes())
}

/// The subject of the certificate that a name gets.
fn subject_for(server: &Server, arguments: &[&str]) -> String {
    let said = s_client(server, arguments, "/").text();
    said.lines().find_map(|line| line.strip_prefix("subject=")).unwrap_or_default().to_owned()
}

#[test]
fn versions_are_1_2_and_1_3_and_what_the_configuration_allows() {
    if !has("openssl") {
        return;
    }
    let conf = "location / { return 200 \"$ssl_protocol $ssl_cipher $ssl_server_name $scheme $https\\n\"; }";
    let server = Server::start(&text(conf));
    for (version, cipher, expected) in [
        ("-tls1_3", "", "TLSv1.3 TLS_AES_256_GCM_SHA384 example.com https on"),
        ("-tls1_2", "", "TLSv1.2 ECDHE-ECDSA-AES256-GCM-SHA384 example.com https on"),
        (
            "-tls1_2",
            "ECDHE-ECDSA-CHACHA20-POLY1305",
            "TLSv1.2 ECDHE-ECDSA-CHACHA20-POLY1305 example.com https on",
        ),
    ] {
        let arguments = if cipher.is_empty() { vec![version] } else { vec![version, "-cipher", cipher] };
        let said = s_client(&server, &arguments, "/").text();
        assert!(said.contains(expected) && said.contains("Verify return code: 0 (ok)"), "{said}");
    }
    for version in ["-tls1_1", "-tls1"] {
        let said = s_client(&server, &[version, "-cipher", "ALL:@SECLEVEL=0"], "/");
        assert!(said.code != 0 && said.stderr.contains("alert"), "{said:?}");
    }

    let server = Server::start(&text(&format!("ssl_protocols TLSv1.3; {conf}")));
    assert!(s_client(&server, &["-tls1_2"], "/").stderr.contains("alert"));
    assert!(s_client(&server, &["-tls1_3"], "/").text().contains("TLSv1.3 TLS_AES"));
    let server = Server::start(&text(&format!("ssl_protocols TLSv1.2; {conf}")));
    assert!(s_client(&server, &["-tls1_3"], "/").code != 0);
    assert!(s_client(&server, &[], "/").text().contains("TLSv1.2 ECDHE"));
    // Another server of the address without the newer version.
    eventually("a line of the failure", || server.error_log().contains("while SSL handshaking"));
}

#[test]
fn plain_http_on_a_tls_port_is_told_so() {
    let server =
        Server::start(&text("error_page 497 =400 /plain; location = /plain { return 400 $status-$scheme; }"));
    let response = raw(server.port(), "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n").expect("a response");
    assert_eq!((response.status, response.text().as_str()), (400, "400-http"));

    let server = Server::start(&text("error_page 497 https://$host:$server_port$request_uri; return 200 x;"));
    let response = raw(server.port(), "GET /a?b HTTP/1.1\r\nHost: example.com\r\n\r\n").expect("a response");
    assert_eq!(response.status, 302);
    let location = format!("https://example.com:{}/a?b", server.port());
    assert_eq!(response.header("location"), Some(&*location));

    let server = Server::start(&text("return 200 x;"));
    let response = raw(server.port(), "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n").expect("a response");
    assert_eq!(response.status, 400);
    assert!(response.text().contains("The plain HTTP request was sent to HTTPS port"), "{response:?}");
    assert_eq!(response.header("connection"), Some("close"));
    assert!(server.access_log_lines(1)[0].contains("\"GET / HTTP/1.1\" 400"));
}

#[test]
fn redirects_keep_the_scheme() {
    if !has("curl") {
        return;
    }
    let server = Server::start(&text(
        "root {root}/html; location /r { return 301 /elsewhere; } location /w { rewrite ^ /x permanent; }
         location /s { return 302 $scheme://$host$request_uri; }",
    ));
    server.write("html/folder/index.html", "index");
    let location =
        |path: &str| curl(&["-o", "/dev/null", "-w", "%{redirect_url}", &url(&server, path)]).text();
    assert_eq!(location("/folder"), url(&server, "/folder/"));
    assert_eq!(location("/r"), url(&server, "/elsewhere"));
    assert_eq!(location("/w"), url(&server, "/x"));
    assert_eq!(location("/s"), "https://example.com/s");
    assert_eq!(curl(&["-L", &url(&server, "/folder")]).text(), "index");
}

#[test]
fn the_standard_port_is_left_out_of_redirects() {
    let server = Server::start(&text("port_in_redirect off; location /r { return 301 /elsewhere; }"));
    let mut client = connect_tls(server.port(), "example.com", &[]);
    client.send("GET /r HTTP/1.1\r\nHost: example.com\r\n\r\n");
    assert_eq!(client.read_response().header("location"), Some("https://example.com/elsewhere"));
}

#[test]
fn requests_follow_each_other_on_a_connection() {
    let server = Server::start(&text("root {root}/html; keepalive_requests 20;"));
    server.write("html/a", "aaa");
    server.write("html/b", noise(40_000));
    let mut client = connect_tls(server.port(), "example.com", &["http/1.1"]);
    for _ in 0..5 {
        client.send("GET /a HTTP/1.1\r\nHost: example.com\r\n\r\n");
        assert_eq!(client.read_response().text(), "aaa");
    }
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\nHEAD /b HTTP/1.1\r\nHost: a\r\n\r\n".repeat(5));
    for round in 0..5 {
        assert_eq!(client.read_response().text(), "aaa");
        assert!(client.read_response().body == noise(40_000));
        let head = client.read_head_response();
        assert_eq!(head.header("connection"), Some(if round == 4 { "close" } else { "keep-alive" }));
    }
    // And goodbye by close_notify, which the client insists on.
    client.expect_closed();
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let server = Server::start(&text("return 200 $request_length;"));
    let mut client = connect_tls(server.port(), "example.com", &[]);
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    client.send_slowly(request, Duration::ZERO);
    assert_eq!(client.read_response().text(), request.len().to_string());
}

#[test]
fn big_files_come_whole() {
    if !has("curl") {
        return;
    }
    let server = Server::start(
        &text(
            "root {root}/html; location /slow/ { alias {root}/html/; limit_rate 2m; }
         location /direct/ { alias {root}/html/; sendfile off; output_buffers 2 32k; ssl_buffer_size 4k; }
         location /aio/ { alias {root}/html/; aio threads; }",
        )
        .replace("ssl_buffer_size 4k; ", ""),
    );
    let big = noise(20 << 20);
    server.write("html/big", &big);
    server.write("html/small", &big[..3 << 20]);
    for path in ["/big", "/direct/big", "/aio/big"] {
        for version in ["1.2", "1.3"] {
            let said =
                curl(&["--http1.1", &format!("--tlsv{version}"), "--tls-max", version, &url(&server, path)]);
            assert!(
                said.code == 0 && said.stdout == big,
                "{path} {version}: {} {}",
                said.stderr,
                said.stdout.len()
            );
        }
    }
    let started = std::time::Instant::now();
    assert!(curl(&["--http1.1", &url(&server, "/slow/small")]).stdout == big[..3 << 20]);
    assert!(started.elapsed() > Duration::from_millis(400), "it is not faster than the limit");
    let part = curl(&["--http1.1", "-r", "12345678-12445677", &url(&server, "/big")]);
    assert!(part.stdout == big[12_345_678..12_445_678]);
}

#[test]
fn records_are_as_small_as_configured() {
    let server = Server::start(&text("ssl_buffer_size 1k; root {root}/html;"));
    server.write("html/a", noise(300_000));
    let mut client = connect_tls(server.port(), "example.com", &[]);
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.read_response().body == noise(300_000));
}

#[test]
fn uploads_are_stored_and_passed_on() {
    if !has("curl") {
        return;
    }
    let upstream = Upstream::http(|_, body| {
        let sum: u64 = body.iter().map(|byte| u64::from(*byte)).sum();
        let text = format!("{} {sum}", body.len());
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()).into_bytes()
    });
    let server = Server::start(&text(&format!(
        "client_max_body_size 64m; location /dav/ {{ root {{root}}; dav_methods PUT; create_full_put_path on; }}
         location /p/ {{ proxy_pass http://127.0.0.1:{port}; }}
         location /u/ {{ proxy_pass http://127.0.0.1:{port}; proxy_request_buffering off; proxy_http_version 1.1; }}",
        port = upstream.port()
    )));
    let big = noise(20 << 20);
    let file = server.write("upload", &big);
    let file = file.to_str().expect("UTF-8");
    let expected = format!("{} {}", big.len(), big.iter().map(|byte| u64::from(*byte)).sum::<u64>());
    let body = format!("@{file}");
    for path in ["/p/", "/u/"] {
        assert_eq!(
            curl(&["--http1.1", "--data-binary", &body, &url(&server, path)]).text(),
            expected,
            "{path}"
        );
        let chunked =
            ["--http1.1", "-H", "Transfer-Encoding: chunked", "--data-binary", &body, &url(&server, path)];
        assert_eq!(curl(&chunked).text(), expected, "{path} chunked");
    }
    let put = curl(&["--http1.1", "-T", file, "-w", "%{http_code}", &url(&server, "/dav/x")]);
    assert_eq!(put.text(), "201", "{put:?}");
    assert!(std::fs::read(server.path("dav/x")).expect("stored") == big);
}

#[test]
fn streams_of_upstreams_come_at_once() {
    let upstream = Upstream::start(|mut peer| {
        peer.read_request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
        for number in 0..5 {
            peer.send(format!("data: {number}\n\n"));
            std::thread::sleep(Duration::from_millis(30));
        }
        // The rest only once the client has gone on.
        peer.read_some();
    });
    let server = Server::start(&text(&format!(
        "location / {{ proxy_pass http://127.0.0.1:{}; proxy_buffering off; }}",
        upstream.port()
    )));
    let mut client = connect_tls(server.port(), "example.com", &[]);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("data: 4\n\n") {
        seen.extend(client.read_some());
    }
}

/// A scripted upstream that takes a WebSocket and sends back what comes.
fn echo() -> Upstream {
    Upstream::start(|mut peer| {
        let Some((head, _)) = peer.read_request() else { return };
        assert!(head.to_ascii_lowercase().contains("upgrade: websocket"), "{head}");
        peer.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
        loop {
            let bytes = peer.read_some();
            if bytes.is_empty() || !peer.try_send(&bytes) {
                return;
            }
        }
    })
}

#[test]
fn tunnels_go_through_tls() {
    let upstream = echo();
    let server = Server::start(&text(&format!(
        "location / {{ proxy_pass http://127.0.0.1:{}; proxy_http_version 1.1;
           proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }}",
        upstream.port()
    )));
    let mut client = connect_tls(server.port(), "example.com", &["http/1.1"]);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.read_response().status, 101);
    for piece in [&b"hello"[..], &noise(100_000), b"bye"] {
        client.send(piece);
        assert!(client.read_exactly(piece.len()) == piece);
    }
    drop(client);
    eventually("the tunnel's line", || server.access_log().contains(" 101 "));
}

#[test]
fn the_proxy_protocol_comes_before_tls() {
    let server = Server::start(
        &text("return 200 \"$proxy_protocol_addr $ssl_protocol $remote_addr\";")
            .replace("{port} ssl", "{port} ssl proxy_protocol"),
    );
    let connector = Connector::new(&[], None);
    let v2 =
        [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &[203, 0, 113, 9, 127, 0, 0, 1, 0x30, 0x39, 0x01, 0xbb]]
            .concat();
    for prefix in [b"PROXY TCP4 203.0.113.9 127.0.0.1 12345 443\r\n".to_vec(), v2] {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).expect("connect");
        socket.write_all(&prefix).expect("send");
        let (mut client, _) = connector.try_over(socket, "example.com").expect("a handshake");
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_response().text(), "203.0.113.9 TLSv1.3 127.0.0.1");
    }
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).expect("connect");
    socket.write_all(b"\x16\x03\x01\0\x05hello and more of it").expect("send");
    socket.set_read_timeout(Some(crate::util::PATIENCE)).expect("a timeout");
    assert!(matches!(socket.read(&mut [0; 1]), Ok(0) | Err(_)));
}

#[test]
fn one_port_may_be_plain_and_another_tls() {
    let server = Server::start(&format!(
        "server {{ listen {{port}}; listen {{port2}} ssl; server_name example.com; {PAIR}
           return 200 \"$scheme[$https]$server_port\"; }}"
    ));
    let plain = raw(server.port(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("a response");
    assert_eq!(plain.text(), format!("http[]{}", server.port()));
    let mut client = connect_tls(server.port_of(2), "example.com", &[]);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response().text(), format!("https[on]{}", server.port_of(2)));
    // TLS on the plain port is a bad request.
    let answer =
        raw(server.port(), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n").expect("a response");
    assert_eq!(answer.status, 400);
}

#[test]
fn variables_are_those_of_nginx() {
    if !crate::util::nginx::available() || !has("openssl") || !has("curl") {
        return;
    }
    // Those that nginx 1.22 has and that say the same in every handshake.
    let names = "protocol cipher ciphers curve curves server_name session_reused early_data alpn_protocol client_verify \
        client_s_dn client_i_dn client_s_dn_legacy client_i_dn_legacy client_serial client_fingerprint client_v_start \
        client_v_end client_v_remain client_escaped_cert";
    let values: String =
        names.split_ascii_whitespace().map(|name| format!("{name}=[$ssl_{name}]\\n")).collect();
    let conf = text(&format!(
        "ssl_protocols TLSv1.2 TLSv1.3; ssl_ecdh_curve prime256v1; ssl_verify_client optional_no_ca;
         ssl_client_certificate {{fixtures}}/ca.pem; return 200 \"{values}\";"
    ));
    let servers = [Server::start(&conf), crate::util::nginx::Nginx::start(&conf)];
    for certificate in [None, Some("client"), Some("self")] {
        for version in ["-tls1_2", "-tls1_3"] {
            let answers = servers.each_ref().map(|server| {
                let files = certificate
                    .map(|name| (format!("{FIXTURES}/{name}.pem"), format!("{FIXTURES}/{name}.key")));
                let mut arguments = vec![version, "-groups", "P-256", "-alpn", "http/1.1"];
                if let Some((chain, key)) = &files {
                    arguments.extend(["-cert", chain, "-key", key]);
                }
                let said = s_client(server, &arguments, "/").text();
                // The bytes of a ticket, which are shown beside, may be the same two.
                let is_ours = |line: &&str| {
                    line.contains("=[") && line.starts_with(|first: char| first.is_ascii_lowercase())
                };
                let lines = said.lines().filter(is_ours).map(str::to_owned);
                lines.collect::<Vec<String>>()
            });
            assert_eq!(answers[0].len(), names.split_ascii_whitespace().count(), "{:?}", answers[0]);
            assert_eq!(answers[0], answers[1], "{version} {certificate:?}");
        }
    }
}

#[test]
fn python_speaks_with_us() {
    if !has("python3") {
        return;
    }
    let server = Server::start(&text("return 200 \"$ssl_protocol $ssl_session_reused\";"));
    let script = "
import socket, ssl, sys
for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
    context = ssl.create_default_context(cafile=sys.argv[2])
    context.minimum_version = context.maximum_version = version
    session = None
    for _ in range(2):
        with socket.create_connection(('127.0.0.1', int(sys.argv[1]))) as bare:
            with context.wrap_socket(bare, server_hostname='example.com', session=session) as tls:
                tls.sendall(b'GET / HTTP/1.1\\r\\nHost: example.com\\r\\nConnection: close\\r\\n\\r\\n')
                answer = b''
                while piece := tls.recv(4096): answer += piece
                session = tls.session
                print(answer.split(b'\\r\\n\\r\\n')[1].decode(), tls.session_reused)";
    let script = server.write("script.py", script);
    let (port, authority) = (server.port().to_string(), format!("{FIXTURES}/ca.pem"));
    let said = run("python3", &[script.to_str().expect("UTF-8"), &port, &authority], b"");
    assert_eq!(
        said.text(),
        "TLSv1.2 . False\nTLSv1.2 r True\nTLSv1.3 . False\nTLSv1.3 r True\n",
        "{}",
        said.stderr
    );
}
