//! TLS to upstreams: `proxy_pass https://...` and `proxy_ssl_*`, against Python's ssl module and OpenSSL's `s_server`.

use std::fs::Permissions;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::util::{Client, Response, Server, Upstream, eventually, get};

fn fixture(name: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/proto/tls/fixtures").join(name);
    path.to_string_lossy().into_owned()
}

/// A child process that ends with its handle.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Python's HTTPS server, which tells what it saw.
struct Secure {
    port: u16,
    lines: Arc<Mutex<Vec<String>>>,
    _process: Process,
}

impl Secure {
    /// With the certificate of this fixture.
    fn start(certificate: &str, options: &[&str]) -> Secure {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/proxy_tls.py");
        let mut child = Command::new("python3")
            .arg("-u")
            .arg(script)
            .arg(format!("certificate={}", fixture(&format!("{certificate}.pem"))))
            .arg(format!("key={}", fixture(&format!("{certificate}.key"))))
            .args(options)
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut first = String::new();
        output.read_line(&mut first).expect("a port");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                sink.lock().expect("lines").push(line);
            }
        });
        Secure { port: first.trim().parse().expect("a port"), lines, _process: Process(child) }
    }

    fn saw(&self, what: &str) -> bool {
        self.lines.lock().expect("lines").iter().any(|line| line.contains(what))
    }

    /// A server of ours in front of it that believes the tests' authority.
    #[track_caller]
    fn behind(&self, directives: &str) -> Server {
        proxy(self.port, directives)
    }
}

/// A server whose `$upstream_error` stands in the log of requests.
#[track_caller]
fn proxy(port: u16, directives: &str) -> Server {
    Server::start(&format!(
        "log_format tls '$status $upstream_error $upstream_connect_time $upstream_status';
         access_log {{root}}/tls.log tls;
         server {{ listen {{port}}; client_max_body_size 64m; location / {{ proxy_pass https://127.0.0.1:{port}; {directives} }} }}"
    ))
}

/// Checks certificates by the tests' authority, for `name`.
fn verify(name: &str) -> String {
    let ca = fixture("ca.pem");
    format!(
        "proxy_ssl_verify on; proxy_ssl_trusted_certificate {ca}; proxy_ssl_server_name on; proxy_ssl_name {name};"
    )
}

fn logged(server: &Server, line: &str) {
    let path = server.path("tls.log");
    eventually(&format!("\"{line}\" in the log"), || {
        std::fs::read_to_string(&path).unwrap_or_default().lines().any(|logged| logged.starts_with(line))
    });
}

fn no_alarm(server: &Server) {
    let log = server.error_log();
    for word in ["[alert]", "[emerg]", "panic", "exited on signal"] {
        assert!(!log.contains(word), "{log}");
    }
}

fn text(response: &Response) -> String {
    String::from_utf8_lossy(&response.body).into_owned()
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

/// Asserts that a request is refused with this status and this word, and that the log says why.
#[track_caller]
fn refused(server: &Server, status: u16, word: &str, why: &str) {
    let response = get(server.port(), "/");
    assert_eq!(response.status, status, "{}", server.error_log());
    logged(server, &format!("{status} {word} - "));
    eventually(why, || server.error_log().contains(why));
    no_alarm(server);
}

#[test]
fn a_right_certificate_is_believed_and_the_name_is_sent() {
    let upstream = Secure::start("server-ec", &[]);
    let server = upstream.behind(&verify("a.example.com"));
    let response = get(server.port(), "/x?y");
    assert_eq!(response.status, 200, "{}", server.error_log());
    let seen = text(&response);
    assert!(seen.contains(r#""name": "a.example.com", "version": "TLSv1.3""#), "{seen}");
    assert!(seen.contains(&format!(r#""target": "/x?y", "host": "127.0.0.1:{}""#, upstream.port)), "{seen}");
    logged(&server, "200 - 0.");
    no_alarm(&server);
}

#[test]
fn the_name_is_not_sent_unless_asked_for() {
    let upstream = Secure::start("server-ec", &[]);
    let server = upstream.behind("proxy_ssl_name a.example.com;");
    assert!(text(&get(server.port(), "/")).contains(r#""name": null"#));
}

#[test]
fn anything_is_believed_without_verification() {
    let upstream = Secure::start("self", &[]);
    let server = upstream.behind("");
    assert_eq!(get(server.port(), "/").status, 200);
}

#[test]
fn names_come_from_variables() {
    let upstream = Secure::start("server-ec", &[]);
    let server = upstream.behind(&verify("$arg_name:8443"));
    assert!(text(&get(server.port(), "/?name=b.example.com")).contains(r#""name": "b.example.com""#));
    // Another name means another connection: the idle one was checked for the other name.
    assert_eq!(get(server.port(), "/?name=other.test").status, 502);
    let seen = text(&get(server.port(), "/?name=b.example.com"));
    assert!(seen.contains(r#""connection": 1, "request": 2"#), "{seen}");
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let upstream = Secure::start("server-ec", &[]);
    let server = upstream.behind(&verify("example.org"));
    let why = "upstream SSL certificate does not match \"example.org\" while SSL handshaking to upstream, client: 127.0.0.1";
    refused(&server, 502, "tls_certificate_invalid", why);
    assert!(server.error_log().contains(&format!("upstream: \"https://127.0.0.1:{}/\"", upstream.port)));
    assert!(!upstream.saw("target"), "no request may reach an upstream that is not believed");
}

#[test]
fn a_certificate_out_of_date_is_refused() {
    let upstream = Secure::start("server-expired", &[]);
    let server = upstream.behind(&verify("example.com"));
    let why = "upstream SSL certificate verify error: (10:certificate has expired) while SSL handshaking to upstream";
    refused(&server, 502, "tls_certificate_invalid", why);
}

#[test]
fn an_unknown_authority_is_refused() {
    let upstream = Secure::start("self", &[]);
    let server = upstream.behind(&verify("self.test"));
    let why = "upstream SSL certificate verify error: (18:self-signed certificate) while SSL handshaking to upstream";
    refused(&server, 502, "tls_certificate_invalid", why);
}

#[test]
fn a_revoked_certificate_is_refused() {
    let directives = format!("{} proxy_ssl_crl {};", verify("example.com"), fixture("ca.crl"));
    let upstream = Secure::start("server-ec", &[]);
    let server = upstream.behind(&directives);
    assert_eq!(get(server.port(), "/").status, 200, "{}", server.error_log());
    let upstream = Secure::start("server-revoked", &[]);
    let server = upstream.behind(&directives);
    refused(
        &server,
        502,
        "tls_certificate_invalid",
        "upstream SSL certificate verify error: (23:certificate revoked)",
    );
}

#[test]
fn the_next_upstream_is_asked_after_a_failure() {
    let (bad, good) = (Secure::start("self", &[]), Secure::start("server-ec", &[]));
    let (bad_port, good_port) = (bad.port, good.port);
    let server = Server::start(&format!(
        "log_format tls '$status $upstream_status $upstream_error';
         access_log {{root}}/tls.log tls;
         upstream u {{ server 127.0.0.1:{bad_port}; server 127.0.0.1:{good_port} backup; }}
         server {{ listen {{port}}; location / {{ proxy_pass https://u; {} }} }}",
        verify("example.com")
    ));
    assert_eq!(get(server.port(), "/").status, 200);
    logged(&server, "200 502, 200 -");
}

#[test]
fn a_client_certificate_is_shown_to_who_asks() {
    let upstream = Secure::start("server-ec", &[&format!("ca={}", fixture("ca.pem")), "required=1"]);
    let (certificate, key) = (fixture("client-revoked.pem"), fixture("client-revoked.key"));
    let server =
        upstream.behind(&format!("proxy_ssl_certificate {certificate}; proxy_ssl_certificate_key {key};"));
    let seen = text(&get(server.port(), "/"));
    assert!(seen.contains(r#""client": ["revoked"]"#), "{seen}");
}

/// As a listener's certificate: within seconds, without a reload.
#[test]
fn our_certificate_is_taken_up_when_its_files_change() {
    let upstream = Secure::start("server-ec", &[&format!("ca={}", fixture("ca.pem")), "required=1"]);
    let read = |name: &str| std::fs::read(fixture(name)).expect("a fixture");
    let server = Server::builder(&format!(
        "server {{ listen {{port}}; location / {{ proxy_pass https://127.0.0.1:{}; proxy_set_header Connection close;
           proxy_ssl_certificate {{root}}/own.pem; proxy_ssl_certificate_key {{root}}/own.key; }} }}",
        upstream.port
    ))
    .file("own.pem", read("client-revoked.pem"))
    .file("own.key", read("client-revoked.key"))
    .start();
    let seen = || text(&get(server.port(), "/"));
    assert!(seen().contains(r#""client": ["revoked"]"#), "{}", seen());
    // Halves that do not fit are not taken.
    server.write("own.pem", read("client.pem"));
    eventually("a line about it", || {
        let log = server.error_log();
        log.contains("for upstreams was not replaced, the former one stays: cannot load certificate key")
    });
    assert!(seen().contains(r#""client": ["revoked"]"#));
    server.write("own.key", read("client.key"));
    // Sessions that began with the other are not taken up either.
    eventually("the new certificate", || seen().contains(r#""client": ["J"#));
    assert!(seen().contains(r#""client": ["J"#));
    assert!(server.error_log().contains("own.pem\" for upstreams was replaced"), "{}", server.error_log());
}

#[test]
fn an_upstream_that_misses_our_certificate_fails_as_in_a_handshake() {
    let ca = format!("ca={}", fixture("ca.pem"));
    for highest in ["TLSv1_3", "TLSv1_2"] {
        let upstream = Secure::start("server-ec", &[&ca, "required=1", &format!("highest={highest}")]);
        let server = upstream.behind("");
        let response = get(server.port(), "/");
        assert_eq!(response.status, 502, "{highest}: {}", server.error_log());
        logged(&server, "502 tls_handshake_failed");
    }
}

#[test]
fn client_certificates_come_from_variables() {
    let upstream = Secure::start("server-ec", &[&format!("ca={}", fixture("ca.pem"))]);
    let folder = fixture("");
    for cache in ["", "proxy_ssl_certificate_cache max=4;"] {
        let server = upstream.behind(&format!(
            "proxy_ssl_certificate {folder}$arg_who.pem; proxy_ssl_certificate_key {folder}$arg_who.key; {cache}"
        ));
        let who = |name: &str| text(&get(server.port(), &format!("/?who={name}")));
        assert!(who("client-revoked").contains(r#""client": ["revoked"]"#), "{}", server.error_log());
        assert!(who("client-deep").contains(r#""client""#), "{}", server.error_log());
        let again = who("client-revoked");
        assert!(again.contains(r#""client": ["revoked"]"#) && again.contains(r#""request": 2"#), "{again}");
        assert_eq!(get(server.port(), "/?who=nobody").status, 500);
        eventually("the reason in the log", || {
            server.error_log().contains(&format!("cannot load certificate \"{folder}nobody.pem\": open()"))
        });
        no_alarm(&server);
    }
}

#[test]
fn versions_and_ciphers_are_ours_to_choose() {
    let upstream = Secure::start("server-ec", &[]);
    let server =
        upstream.behind("proxy_ssl_protocols TLSv1.2; proxy_ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256;");
    let seen = text(&get(server.port(), "/"));
    assert!(seen.contains(r#""version": "TLSv1.2", "cipher": "ECDHE-ECDSA-AES128-GCM-SHA256""#), "{seen}");
    let server = upstream.behind("proxy_ssl_conf_command Ciphersuites TLS_CHACHA20_POLY1305_SHA256;");
    let seen = text(&get(server.port(), "/"));
    assert!(seen.contains(r#""version": "TLSv1.3", "cipher": "TLS_CHACHA20_POLY1305_SHA256""#), "{seen}");
}

#[test]
fn an_upstream_without_a_version_in_common_is_refused() {
    let upstream = Secure::start("server-ec", &["lowest=TLSv1_3"]);
    let server = upstream.behind("proxy_ssl_protocols TLSv1.2;");
    refused(&server, 502, "tls_handshake_failed", "SSL_do_handshake() failed (SSL: ");
}

#[test]
fn connections_are_kept_and_serve_many_requests() {
    let upstream = Secure::start("server-ec", &["highest=TLSv1_2"]);
    let server = upstream.behind(&verify("example.com"));
    let mut client = Client::connect(server.port());
    for number in 1..=20 {
        client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
        let seen = text(&client.read_response());
        assert!(seen.contains(&format!(r#""connection": 1, "request": {number},"#)), "{seen}");
        assert!(seen.contains("TLSv1.2"), "{seen}");
    }
}

#[test]
fn sessions_are_taken_up_again() {
    for highest in ["TLSv1_3", "TLSv1_2"] {
        let upstream = Secure::start("server-ec", &[&format!("highest={highest}")]);
        let close = "proxy_set_header Connection close; keepalive_timeout 0;";
        let server = upstream.behind(&format!("{} {close}", verify("example.com")));
        assert!(text(&get(server.port(), "/open")).contains(r#""resumed": false"#));
        for _ in 0..5 {
            assert!(text(&get(server.port(), "/open")).contains(r#""resumed": true"#), "{highest}");
        }
        let server = upstream.behind(&format!("{} proxy_ssl_session_reuse off;", verify("example.com")));
        for _ in 0..3 {
            assert!(text(&get(server.port(), "/open")).contains(r#""resumed": false"#), "{highest}");
        }
    }
}

#[test]
fn sessions_and_connections_outlive_a_reload() {
    let upstream = Secure::start("server-ec", &[]);
    let server = upstream.behind(&verify("example.com"));
    assert!(text(&get(server.port(), "/")).contains(r#""connection": 1, "request": 1"#));
    server.reload();
    let seen = text(&get(server.port(), "/"));
    assert!(seen.contains(r#""connection": 1, "request": 2"#), "{seen}");
}

#[test]
fn plain_and_secure_requests_share_no_connection() {
    // An upstream that speaks either way on one port: what it gets first tells.
    let upstream = Upstream::start(|mut peer| {
        while peer.read_some().starts_with(b"GET ") {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain");
        }
    });
    let port = upstream.port();
    let server = Server::start(&format!(
        "upstream u {{ server 127.0.0.1:{port}; keepalive 8; }}
         server {{ listen {{port}}; location / {{ proxy_pass http://u; }} location /s {{ proxy_pass https://u; }} }}"
    ));
    assert_eq!(get(server.port(), "/").body, b"plain");
    // On the idle connection this would be answered.
    assert_eq!(get(server.port(), "/s").status, 502);
}

#[test]
fn large_bodies_go_both_ways() {
    let upstream = Secure::start("server-rsa", &[]);
    for directives in ["", "proxy_buffering off; proxy_request_buffering off;"] {
        let server = upstream.behind(directives);
        let response = get(server.port(), "/big?9000000");
        assert!(response.body == pattern(9_000_000), "{} bytes", response.body.len());
        let response = get(server.port(), "/chunked?3000000");
        assert!(response.body == pattern(3_000_000), "{} bytes", response.body.len());
        // Larger than what stays in memory: it goes to a file and comes from there.
        let body = pattern(5_000_000);
        let mut message =
            format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        message.extend_from_slice(&body);
        let mut client = Client::connect(server.port());
        client.send(message);
        let response = client.read_response();
        assert_eq!(response.status, 200, "{}", server.error_log());
        assert!(response.body == body, "{} bytes", response.body.len());
        no_alarm(&server);
    }
}

#[test]
fn a_slow_client_gets_everything() {
    let upstream = Secure::start("server-ec", &[]);
    let server = upstream.behind("");
    let mut client = Client::connect(server.port());
    client.send("GET /big?4000000 HTTP/1.1\r\nHost: a\r\n\r\n");
    std::thread::sleep(Duration::from_millis(300));
    assert!(client.read_response().body == pattern(4_000_000));
}

#[test]
fn a_body_that_ends_with_the_connection_ends_with_its_goodbye() {
    let upstream = Secure::start("server-ec", &[]);
    let server = upstream.behind("");
    assert_eq!(get(server.port(), "/open").status, 200);
    // Without the goodbye anybody may have cut it short: the client must not take it for complete.
    let mut client = Client::connect(server.port());
    client.send("GET /open?cut HTTP/1.1\r\nHost: a\r\n\r\n");
    let all = client.read_to_end();
    assert!(!all.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&all));
    logged(&server, "200 body_truncated");
}

#[test]
fn a_tunnel_goes_through_tls() {
    let upstream = Secure::start("server-ec", &[]);
    let server = upstream.behind(&verify("example.com"));
    let mut client = Client::connect(server.port());
    client.send("GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.read_interim().status, 101);
    // It came together with the head.
    assert_eq!(client.read_exactly(5), b"hello");
    for round in 0..100 {
        let message = format!("message {round}");
        client.send(&message);
        assert_eq!(client.read_exactly(message.len()), message.as_bytes());
    }
    let large = pattern(2_000_000);
    let mut writer = client.try_clone();
    let copy = large.clone();
    let sender = std::thread::spawn(move || {
        writer.send(&copy);
    });
    assert!(client.read_exactly(large.len()) == large);
    sender.join().expect("the sender");
    client.finish_sending();
    assert_eq!(client.read_exactly(3), b"bye");
    client.expect_closed();
    no_alarm(&server);
}

#[test]
fn an_upstream_that_speaks_no_tls_is_refused() {
    let upstream = Upstream::start(|mut peer| {
        peer.read_some();
        peer.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    });
    let server = proxy(upstream.port(), "");
    refused(&server, 502, "tls_handshake_failed", "SSL_do_handshake() failed (SSL: ");
}

#[test]
fn an_upstream_that_closes_in_the_handshake_is_refused() {
    let upstream = Upstream::start(|mut peer| drop(peer.read_some()));
    let server = proxy(upstream.port(), "");
    refused(&server, 502, "tls_handshake_failed", "peer closed connection in SSL handshake");
}

#[test]
fn a_handshake_that_hangs_ends_with_connect_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let server = proxy(port, "proxy_connect_timeout 300ms;");
    let why = "upstream timed out (110: Connection timed out) while SSL handshaking to upstream";
    refused(&server, 504, "tls_handshake_timeout", why);
}

#[test]
fn a_handshake_in_drops_does_not_prolong_its_deadline() {
    let upstream = Upstream::start(|mut peer| {
        // The beginning of a record, and then a byte at a time.
        while peer.try_send([0x16]) {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let server = proxy(upstream.port(), "proxy_connect_timeout 400ms;");
    let response = get(server.port(), "/");
    assert!(matches!(response.status, 502 | 504), "{}", response.status);
}

#[test]
fn variables_in_proxy_pass_may_say_https() {
    let upstream = Secure::start("server-ec", &[]);
    let port = upstream.port;
    let server = Server::start(&format!(
        "server {{ listen {{port}}; add_header X-Seen \"$proxy_host $proxy_port\" always;
             location / {{ proxy_pass $arg_scheme://127.0.0.1:{port}; {} }} }}",
        verify("example.com")
    ));
    let response = get(server.port(), "/?scheme=https");
    assert_eq!(response.status, 200, "{}", server.error_log());
    assert_eq!(response.header("x-seen"), Some(&*format!("127.0.0.1:{port} {port}")));
    assert_eq!(get(server.port(), "/?scheme=ftp").status, 500);
}

#[test]
fn the_usual_port_is_443_and_not_shown() {
    let server = Server::start(
        "server { listen {port}; error_page 502 504 = @told;
             location / { proxy_pass https://127.0.0.9; proxy_connect_timeout 1s; }
             location @told { return 200 \"$proxy_host $proxy_port $upstream_addr\"; } }",
    );
    // The location of the answer has no `proxy_pass`; the peer's address is remembered.
    let told = text(&get(server.port(), "/"));
    assert!(told.ends_with("127.0.0.9:443"), "{told}");
}

#[test]
fn a_unix_socket_may_be_secure() {
    let upstream = Secure::start("server-ec", &[]);
    let server = Server::start(&format!(
        "server {{ listen {{port}}; location /a/ {{ proxy_pass https://unix:{{root}}/s.sock:/in/; {} }} }}",
        verify("example.com")
    ));
    let listener = UnixListener::bind(server.path("s.sock")).expect("a socket");
    std::fs::set_permissions(server.path("s.sock"), Permissions::from_mode(0o777)).expect("rights");
    let port = upstream.port;
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = std::net::TcpStream::connect(("127.0.0.1", port)).expect("the upstream");
            let (mut up, mut down) =
                (client.try_clone().expect("a handle"), server.try_clone().expect("a handle"));
            std::thread::spawn(move || std::io::copy(&mut up, &mut down));
            let (mut from, mut to) = (server, client);
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        }
    });
    let seen = text(&get(server.port(), "/a/b"));
    assert!(seen.contains(r#""target": "/in/b", "host": "localhost""#), "{seen} {}", server.error_log());
}

#[test]
fn health_checks_speak_tls() {
    let upstream = Secure::start("server-ec", &[]);
    let port = upstream.port;
    let server = Server::start(&format!(
        "upstream u {{ zone u 64k; server 127.0.0.1:{port}; }}
         server {{ listen {{port}}; location / {{ proxy_pass https://u; {} health_check interval=1s uri=/health; }} }}",
        verify("example.com")
    ));
    eventually("a health check over TLS", || upstream.saw(r#""target": "/health""#));
    assert_eq!(get(server.port(), "/").status, 200, "{}", server.error_log());
    assert!(!server.error_log().contains("is unhealthy"), "{}", server.error_log());
}

/// A server of HTTP/1 is told by what it says, or does not, when the protocol is negotiated: nothing is sent to it.
#[test]
fn upstreams_that_do_not_speak_http_2_are_told_by_alpn() {
    let mute = Secure::start("server-ec", &[]);
    let server = Server::start(&format!(
        "log_format tls '$status $upstream_error $request_uri'; access_log {{root}}/tls.log tls;
         ssl_certificate {cert}; ssl_certificate_key {key}; upstream both {{ server 127.0.0.1:{mute}; server 127.0.0.1:{{port2}}; }}
         server {{ listen {{port}};
           location /g {{ grpc_pass grpcs://127.0.0.1:{mute}; }}
           location /p {{ proxy_http_version 2; proxy_pass https://127.0.0.1:{mute}; }}
           location /h {{ proxy_http_version 2; proxy_pass https://127.0.0.1:{{port2}}; }}
           location /b {{ proxy_http_version 2; proxy_pass https://both; }} }}
         server {{ listen {{port2}} ssl; return 200 fine; }}",
        cert = fixture("server-ec.pem"),
        key = fixture("server-ec.key"),
        mute = mute.port,
    ));
    for path in ["/g", "/p", "/h", "/b"] {
        assert_eq!(get(server.port(), path).status, 502, "{path}");
        logged(&server, &format!("502 tls_no_http2 {path}"));
    }
    let log = server.error_log();
    assert!(log.contains("upstream does not speak HTTP/2: it chose none of the protocols that were offered (ALPN: h2) while SSL handshaking to upstream"), "{log}");
    assert!(log.contains("upstream does not speak HTTP/2: it refused the protocol \"h2\" (ALPN) while SSL handshaking to upstream"), "{log}");
    assert!(!mute.saw("target"));
    no_alarm(&server);
}

#[test]
fn openssl_s_server_agrees_about_names_and_sessions() {
    let reserved = crate::util::Reserved::new();
    let port = reserved.port();
    drop(reserved);
    let mut child = Command::new("openssl")
        .args(["s_server", "-quiet", "-www", "-accept", &port.to_string()])
        .args(["-cert", &fixture("server-rsa.pem"), "-key", &fixture("server-rsa.key")])
        .args([
            "-servername",
            "c.example.com",
            "-cert2",
            &fixture("server-ec.pem"),
            "-key2",
            &fixture("server-ec.key"),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl");
    drop(child.stderr.take());
    let _process = Process(child);
    eventually("s_server listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let server = proxy(port, &verify("c.example.com"));
    let first = text(&get(server.port(), "/"));
    assert!(first.contains("New, TLSv1.3"), "{first} {}", server.error_log());
    let second = text(&get(server.port(), "/"));
    assert!(second.contains("Reused, TLSv1.3"), "{second}");
}

/// What `-t` says of a configuration.
#[track_caller]
fn complaint(directives: &str) -> String {
    let server = Server::builder(&format!(
        "server {{ listen {{port}}; location / {{\nproxy_pass https://127.0.0.1:1;\n{directives} }} }}"
    ));
    let output = server.run(&["-t"]);
    assert!(!output.status.success(), "{directives} is accepted");
    output.stderr
}

#[test]
fn what_is_wrong_is_said_at_its_line() {
    let ca = fixture("ca.pem");
    for (directives, words) in [
        ("proxy_ssl_verify on;", "no proxy_ssl_trusted_certificate for proxy_ssl_verify"),
        (
            "proxy_ssl_certificate x.pem;",
            "no \"proxy_ssl_certificate_key\" is defined for certificate \"x.pem\"",
        ),
        (
            "proxy_ssl_certificate /none; proxy_ssl_certificate_key /none;",
            "cannot load certificate \"/none\"",
        ),
        (
            &format!("proxy_ssl_certificate {ca}; proxy_ssl_certificate_key {};", fixture("self.key")),
            "cannot load certificate key",
        ),
        ("proxy_ssl_verify on; proxy_ssl_trusted_certificate /none;", "cannot load certificate \"/none\""),
        ("proxy_ssl_ciphers NONE;", "no cipher match"),
        ("proxy_ssl_protocols TLSv1.1;", "TLSv1.1 cannot be spoken here"),
        (
            "proxy_ssl_certificate_cache valid=1s;",
            "\"proxy_ssl_certificate_cache\" must have the \"max\" parameter",
        ),
        ("proxy_ssl_key_log keys.log;", "keys of connections are not written to files"),
    ] {
        let said = complaint(directives);
        assert!(said.contains(words), "{directives}: {said}");
        assert!(said.contains(":3") || said.contains(":4") || said.contains(":5"), "{said}");
    }
}
