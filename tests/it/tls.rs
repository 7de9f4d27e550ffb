//! `listen ... ssl`, asked by curl, by OpenSSL's `s_client` and byte by byte.

use crate::util::h2::H2;
use crate::util::tls::{Connector, FIXTURES, Said, connect_tls, curl, fixture, has, run};
use crate::util::{Client, Server, Signal, Upstream, eventually, raw};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

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

/// Makes a certificate of its own for a name, in a folder below the server's.
fn make_certificate(server: &Server, file: &str, name: &str) {
    let (certificate, key) = (server.path(&format!("{file}.pem")), server.path(&format!("{file}.key")));
    let said = run(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "30",
            "-subj",
            &format!("/CN={name}"),
            "-addext",
            &format!("subjectAltName=DNS:{name}"),
            "-keyout",
            key.to_str().expect("UTF-8"),
            "-out",
            certificate.to_str().expect("UTF-8"),
        ],
        b"",
    );
    assert_eq!(said.code, 0, "{}", said.stderr);
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
fn the_name_in_the_hello_chooses_the_certificate() {
    if !has("openssl") {
        return;
    }
    let server = Server::start(
        "server { listen {port} ssl; server_name example.com;
           ssl_certificate {fixtures}/server-rsa.pem; ssl_certificate_key {fixtures}/server-rsa.key;
           ssl_certificate {fixtures}/server-ec.pem; ssl_certificate_key {fixtures}/server-ec.key;
           return 200 default; }
         server { listen {port} ssl; server_name other.test *.other.test;
           ssl_certificate {fixtures}/other.pem; ssl_certificate_key {fixtures}/other.key;
           return 200 other; }
         server { listen {port} ssl; server_name self.test;
           ssl_certificate {fixtures}/self.pem; ssl_certificate_key {fixtures}/self.key; }",
    );
    for (name, subject) in [
        ("other.test", "CN = other.test"),
        ("OTHER.test", "CN = other.test"),
        ("deep.other.test", "CN = other.test"),
        ("self.test", "CN = self.test"),
        ("example.com", "CN = example.com"),
        ("unknown.test", "CN = example.com"),
    ] {
        assert_eq!(subject_for(&server, &["-servername", name]), subject, "{name}");
    }
    assert_eq!(subject_for(&server, &["-noservername"]), "CN = example.com");
    // Two kinds of keys: the client's offer chooses.
    for (offer, kind) in [("RSA-PSS+SHA256", "RSA-PSS"), ("ECDSA+SHA256", "ECDSA")] {
        let said = s_client(&server, &["-sigalgs", offer], "/").text();
        assert!(said.contains(&format!("Peer signature type: {kind}")), "{said}");
    }
    let body = |name: &str| curl(&[&format!("https://{name}:{}/", server.port())]).text();
    assert_eq!((body("example.com"), body("other.test")), ("default".to_owned(), "other".to_owned()));
    // Requests are routed by Host, whatever the name in the hello was.
    let mut client = connect_tls(server.port(), "example.com", &[]);
    client.send("GET / HTTP/1.1\r\nHost: other.test\r\n\r\n");
    assert_eq!(client.read_response().text(), "other");
}

#[test]
fn handshakes_of_unknown_names_can_be_refused() {
    if !has("curl") {
        return;
    }
    let server = Server::start(&format!(
        "server {{ listen {{port}} ssl default_server; ssl_reject_handshake on; }}
         server {{ listen {{port}} ssl; server_name example.com; {PAIR} return 200 yes; }}"
    ));
    assert_eq!(curl(&[&url(&server, "/")]).text(), "yes");
    let refused = curl(&["-k", &format!("https://unknown.test:{}/", server.port())]);
    assert_eq!(refused.code, 35, "{refused:?}");
    assert!(refused.stderr.contains("unrecognized name"), "{refused:?}");
    let refused = s_client(&server, &["-noservername"], "/");
    assert!(refused.stderr.contains("alert"), "{refused:?}");
    assert_eq!(curl(&[&url(&server, "/")]).text(), "yes");
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

/// curl with a client certificate: status and body.
fn with_certificate(server: &Server, name: Option<&str>) -> (String, String) {
    let (certificate, key);
    let address = url(server, "/");
    let mut arguments = vec!["-w", " %{http_code}", &address];
    if let Some(name) = name {
        certificate = format!("{FIXTURES}/{name}.pem");
        key = format!("{FIXTURES}/{name}.key");
        arguments.extend(["--cert", &certificate, "--key", &key]);
    }
    let said = curl(&arguments).text();
    let (body, status) = said.rsplit_once(' ').unwrap_or_default();
    (status.to_owned(), body.to_owned())
}

const VERIFY: &str = "ssl_client_certificate {fixtures}/ca.pem; ssl_crl {fixtures}/ca.crl;
    error_page 495 =495 /at495; error_page 496 =496 /at496;
    location /at { internal; return 400 \"$ssl_client_verify\"; }
    location / { return 200 \"$ssl_client_verify|$ssl_client_s_dn|$ssl_client_serial\"; }";

#[test]
fn client_certificates_are_asked_for_and_verified() {
    if !has("curl") {
        return;
    }
    let subject = "emailAddress=j@example.com,CN=J\\C3\\BCrgen \\\"J\\\" \\<x\\>,OU=B+OU=A,O=Tests\\, Inc.,ST=Some State,C=DE";
    let fine = format!("SUCCESS|{subject}|A1B2C3D4E5F60718");

    let server = Server::start(&text(&format!("ssl_verify_client on; {VERIFY}")));
    assert_eq!(with_certificate(&server, Some("client")), ("200".into(), fine.clone()));
    let (status, body) = with_certificate(&server, None);
    assert_eq!((status.as_str(), body.as_str()), ("400", "NONE"));
    for (name, reason) in [
        ("self", "FAILED:"),
        ("client-expired", "FAILED:certificate has expired"),
        ("client-revoked", "FAILED:certificate revoked"),
        ("client-deep", "FAILED:"),
    ] {
        let (status, body) = with_certificate(&server, Some(name));
        assert!(status == "400" && body.starts_with(reason), "{name}: {status} {body}");
    }
    eventually("lines of both failures", || {
        let log = server.error_log();
        log.contains("client sent no required SSL certificate")
            && log.contains("client SSL certificate verify error: (10:certificate has expired)")
    });

    let server = Server::start(&text(&format!("ssl_verify_client optional; {VERIFY}")));
    assert_eq!(with_certificate(&server, Some("client")), ("200".into(), fine));
    assert_eq!(with_certificate(&server, None), ("200".into(), "NONE||".into()));
    assert_eq!(with_certificate(&server, Some("client-expired")).0, "400");

    let server = Server::start(&text(&format!("ssl_verify_client optional_no_ca; {VERIFY}")));
    assert_eq!(with_certificate(&server, None), ("200".into(), "NONE||".into()));
    let (status, body) = with_certificate(&server, Some("self"));
    assert!(
        status == "200" && body.starts_with("FAILED:") && body.contains("|CN=self.test|"),
        "{status} {body}"
    );
    assert_eq!(with_certificate(&server, Some("client-expired")).0, "400");

    // Deeper chains by ssl_verify_depth.
    let server = Server::start(&text(&format!(
        "ssl_verify_client on; ssl_verify_depth 3; {}",
        VERIFY.replace("ssl_crl {fixtures}/ca.crl;", "")
    )));
    let (status, body) = with_certificate(&server, Some("client-deep"));
    assert!(status == "200" && body.starts_with("SUCCESS|CN=deep|"), "{status} {body}");
}

#[test]
fn refusals_of_certificates_have_their_pages() {
    let server =
        Server::start(&text("ssl_verify_client on; ssl_client_certificate {fixtures}/ca.pem; return 200 x;"));
    for (certificate, title) in
        [(None, "No required SSL certificate was sent"), (Some("self"), "The SSL certificate error")]
    {
        let mut client = Connector::new(&[], certificate).connect(server.port(), "example.com");
        client.send("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n");
        let response = client.read_response();
        assert_eq!(response.status, 400);
        assert!(response.text().contains(title), "{response:?}");
        assert_eq!(response.header("connection"), Some("close"));
        client.expect_closed();
    }
}

#[test]
fn a_certificate_shown_to_one_server_is_none_for_another() {
    let server = Server::start(&format!(
        "server {{ listen {{port}} ssl; http2 on; server_name example.com; {PAIR} return 200 open; }}
         server {{ listen {{port}} ssl; http2 on; server_name closed.example.com; {PAIR}
           ssl_verify_client optional; ssl_client_certificate {{fixtures}}/ca.pem; return 200 closed; }}"
    ));
    let ask = |hello: &str, host: &str| {
        let mut client = connect_tls(server.port(), hello, &[]);
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let response = client.read_response();
        (response.status, response.text())
    };
    assert_eq!(ask("example.com", "example.com"), (200, "open".into()));
    assert_eq!(ask("closed.example.com", "closed.example.com"), (200, "closed".into()));
    assert_eq!(ask("example.com", "closed.example.com").0, 421);
    assert_eq!(ask("closed.example.com", "example.com"), (200, "open".into()));
    // Streams of one connection are judged each for itself.
    let mut h2 = H2::connect_tls(server.port(), "example.com");
    let first = h2.open(&[(":scheme", "https"), (":authority", "closed.example.com")], true);
    let second = h2.open(&[(":scheme", "https"), (":authority", "example.com")], true);
    assert_eq!((h2.wait(first).status, h2.wait(second).text()), (421, "open".into()));
}

/// A connection with a connector, whether it took a session up on both sides' word.
fn is_resumed(connector: &Connector, server: &Server) -> bool {
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).expect("connect");
    let (mut client, facts) = connector.try_over(socket, "example.com").expect("a handshake");
    client.send("GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n");
    let body = client.read_response().text();
    assert_eq!(body, if facts.reused { "r" } else { "." }, "both sides agree");
    facts.reused
}

#[test]
fn sessions_are_taken_up_by_ticket_and_by_cache_also_over_a_reload() {
    for setting in [
        "",
        "ssl_session_tickets off; ssl_session_cache shared:s:1m;",
        "ssl_session_cache shared:s:1m;",
        "ssl_session_tickets off; ssl_session_cache builtin;",
        "ssl_session_ticket_key {root}/ticket.key;",
    ] {
        for version in ["TLSv1.2", "TLSv1.3"] {
            let conf = text(&format!("ssl_protocols {version}; {setting} return 200 $ssl_session_reused;"));
            let server = Server::builder(&conf).file("ticket.key", noise(80)).start();
            let connector = Connector::new(&[], None);
            assert!(!is_resumed(&connector, &server), "{version} {setting}");
            assert!(is_resumed(&connector, &server), "{version} {setting}");
            server.configure(&conf.replace("return 200", "add_header A b; return 200"));
            server.reload();
            eventually("the new configuration", || {
                let mut client = connect_tls(server.port(), "example.com", &[]);
                client.send("GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n");
                client.read_response().header("a").is_some()
            });
            if !setting.contains("builtin") {
                assert!(is_resumed(&connector, &server), "over a reload: {version} {setting}");
            }
        }
    }
    let server = Server::start(&text("ssl_session_tickets off; return 200 $ssl_session_reused;"));
    let connector = Connector::new(&[], None);
    assert!(!is_resumed(&connector, &server) && !is_resumed(&connector, &server));
}

#[test]
fn s_client_takes_sessions_up() {
    if !has("openssl") {
        return;
    }
    let server =
        Server::start(&text("ssl_session_cache shared:s:1m; return 200 \"<$ssl_session_reused>\\n\";"));
    let file = server.path("session");
    let file = file.to_str().expect("UTF-8");
    for version in ["-tls1_2", "-tls1_3"] {
        assert!(s_client(&server, &[version, "-sess_out", file], "/").text().contains("<.>"));
        let said = s_client(&server, &[version, "-sess_in", file], "/").text();
        assert!(said.contains("<r>") && said.contains("Reused, "), "{said}");
    }
}

#[test]
fn a_certificate_that_is_replaced_on_disk_is_served_soon() {
    if !has("openssl") {
        return;
    }
    let server = Server::builder(
        "server { listen {port} ssl; server_name one.test;
           ssl_certificate {root}/live.pem; ssl_certificate_key {root}/live.key; return 200 x; }
         server { listen {port} ssl; server_name two.test;
           ssl_certificate {fixtures}/other.pem; ssl_certificate_key {fixtures}/other.key; }",
    )
    .file("live.pem", fixture("self.pem"))
    .file("live.key", fixture("self.key"))
    .start();
    let subject = || subject_for(&server, &["-servername", "one.test"]);
    assert_eq!(subject(), "CN = self.test");

    // A pair whose halves do not fit is not taken, nor is nonsense.
    make_certificate(&server, "new", "new.test");
    server.write("live.pem", std::fs::read(server.path("new.pem")).expect("made"));
    eventually("a line about it", || {
        server.error_log().contains("the certificate of server \"one.test\" was not replaced")
    });
    assert!(server.error_log().contains("[error]"), "{}", server.error_log());
    assert_eq!(subject(), "CN = self.test");
    server.write("live.pem", "nonsense");
    eventually("another", || server.error_log().matches("was not replaced").count() >= 2);
    assert_eq!(subject(), "CN = self.test");

    server.write("live.pem", std::fs::read(server.path("new.pem")).expect("made"));
    server.write("live.key", std::fs::read(server.path("new.key")).expect("made"));
    eventually("the new certificate", || subject() == "CN = new.test");
    assert!(server.error_log().contains("the certificate of server \"one.test\" was replaced"));
    assert_eq!(subject_for(&server, &["-servername", "two.test"]), "CN = other.test");

    // Replaced by renaming, as certificate tools do it.
    make_certificate(&server, "newer", "newer.test");
    std::fs::rename(server.path("newer.key"), server.path("live.key")).expect("rename");
    std::fs::rename(server.path("newer.pem"), server.path("live.pem")).expect("rename");
    eventually("the newer certificate", || subject() == "CN = newer.test");
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
fn early_data_is_served_and_named() {
    if !has("openssl") {
        return;
    }
    let server =
        Server::start(&text("ssl_early_data on; return 200 \"<$ssl_early_data:$ssl_session_reused>\\n\";"));
    let session = server.path("session");
    let session = session.to_str().expect("UTF-8");
    assert!(s_client(&server, &["-tls1_3", "-sess_out", session], "/").text().contains("<:.>"));
    let early = server.write("early", "GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n");
    let arguments = ["-tls1_3", "-sess_in", session, "-early_data", early.to_str().expect("UTF-8")];
    let said = s_client(&server, &arguments, "/").text();
    assert!(said.contains("Early data was accepted") && said.contains("<1:r>"), "{said}");
}

#[test]
fn names_of_certificates_may_have_variables() {
    for cache in ["", "ssl_certificate_cache max=10 inactive=60s valid=1s;"] {
        let server = Server::start(&format!(
            "server {{ listen {{port}} ssl; http2 on; server_name example.com other.test missing.test; {cache}
               ssl_certificate {{root}}/$ssl_server_name.pem; ssl_certificate_key {{root}}/$ssl_server_name.key;
               return 200 $ssl_server_name; }}"
        ));
        for (name, file) in [("example.com", "server-ec"), ("other.test", "other")] {
            server.write(&format!("{name}.pem"), fixture(&format!("{file}.pem")));
            server.write(&format!("{name}.key"), fixture(&format!("{file}.key")));
        }
        for name in ["example.com", "other.test", "example.com"] {
            let mut client = connect_tls(server.port(), name, &[]);
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(client.read_response().text(), name);
            assert_eq!(H2::connect_tls(server.port(), name).fetch("/").text(), name);
        }
        let connector = Connector::new(&[], None);
        let try_one = |name: &str| {
            let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).expect("connect");
            connector.try_over(socket, name).is_ok()
        };
        assert!(!try_one("missing.test"));
        eventually("a line", || server.error_log().contains("cannot load certificate \"/"));
        assert!(server.error_log().contains("missing.test.pem"));
        // What comes later is found, and what changes is seen: the test's authority has not signed this one.
        server.write("other.test.pem", fixture("self.pem"));
        server.write("other.test.key", fixture("self.key"));
        eventually("the new certificate", || !try_one("other.test"));
        assert!(try_one("example.com"));
    }
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
fn every_worker_takes_up_the_sessions_of_the_others() {
    let server = Server::start(&format!(
        "worker_processes 3; http {{ access_log off;
           server {{ listen {{port}} ssl reuseport; server_name example.com; {PAIR}
             ssl_session_tickets off; ssl_session_cache shared:s:1m; return 200 $ssl_session_reused; }} }}"
    ));
    let connector = Connector::new(&[], None);
    assert!(!is_resumed(&connector, &server));
    for _ in 0..20 {
        assert!(is_resumed(&connector, &server));
    }
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

#[test]
fn certificates_that_end_soon_are_warned_of() {
    if !has("openssl") {
        return;
    }
    let server = Server::builder(
        "server { listen {port} ssl; server_name soon.test;
           ssl_certificate {root}/live.pem; ssl_certificate_key {root}/live.key; return 200 x; }",
    )
    .file("live.pem", fixture("self.pem"))
    .file("live.key", fixture("self.key"))
    .start();
    assert!(!server.error_log().contains("[warn]"), "{}", server.error_log());
    for (days, text) in [("13", "expires in 1"), ("-1", "has expired")] {
        let (certificate, key) = (server.path("new.pem"), server.path("live.key"));
        let (certificate, key) = (certificate.to_str().expect("UTF-8"), key.to_str().expect("UTF-8"));
        let said = run(
            "openssl",
            &[
                "req",
                "-x509",
                "-new",
                "-key",
                key,
                "-days",
                days,
                "-subj",
                "/CN=soon.test",
                "-out",
                certificate,
            ],
            b"",
        );
        if said.code != 0 {
            // Not every version makes what has ended already.
            continue;
        }
        std::fs::rename(certificate, server.path("live.pem")).expect("rename");
        let line = format!("the certificate of server \"soon.test\" {text}");
        eventually("a warning", || server.error_log().contains(&line));
    }
}

#[test]
fn a_stapled_response_is_sent() {
    if !has("openssl") {
        return;
    }
    // Any bytes will do: they are the responder's, not ours.
    let server =
        Server::builder(&text("ssl_stapling on; ssl_stapling_file {root}/staple.der; return 200 x;"))
            .file("staple.der", noise(300))
            .start();
    let said = s_client(&server, &["-status"], "/");
    let text = said.text();
    assert!(text.contains("OCSP response") && !text.contains("no response sent"), "{text}");
}

#[test]
fn tickets_are_taken_over_a_rotation_of_their_keys() {
    for (version, length) in [("TLSv1.2", 48), ("TLSv1.3", 80)] {
        let conf = |keys: &[&str]| {
            let names = keys.concat();
            let keys: String =
                keys.iter().map(|key| format!("ssl_session_ticket_key {{root}}/{key}; ")).collect();
            text(&format!(
                "ssl_protocols {version}; {keys} add_header Keys {names}; return 200 $ssl_session_reused;"
            ))
        };
        let reload = |server: &Server, keys: &[&str]| {
            server.configure(&conf(keys));
            server.reload();
            eventually("the new keys", || {
                let mut client = connect_tls(server.port(), "example.com", &[]);
                client.send("GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n");
                client.read_response().header("keys").is_some_and(|names| names == keys.concat())
            });
        };
        let key = |number: u8| noise(length).iter().map(|byte| byte ^ number).collect::<Vec<u8>>();
        let server =
            Server::builder(&conf(&["a", "b"])).file("a", key(1)).file("b", key(2)).file("c", key(3)).start();
        // What one process made is good in another with the same keys: several machines may share a name.
        let other = Server::builder(&conf(&["b", "a"])).file("a", key(1)).file("b", key(2)).start();
        let connector = Connector::new(&[], None);
        assert!(!is_resumed(&connector, &server));
        assert!(is_resumed(&connector, &other), "{version}: by the second key");
        // That connection brought a ticket made with b, which a rotation makes the last one.
        reload(&server, &["c", "b"]);
        assert!(is_resumed(&connector, &server), "{version}: by the old key");
        assert!(is_resumed(&connector, &server), "{version}: by the new key");
        reload(&server, &["a"]);
        assert!(!is_resumed(&connector, &server), "{version}: the key is gone");
    }
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
                let lines = said.lines().filter(|line| line.contains("=[")).map(str::to_owned);
                lines.collect::<Vec<String>>()
            });
            assert_eq!(answers[0].len(), names.split_ascii_whitespace().count(), "{:?}", answers[0]);
            assert_eq!(answers[0], answers[1], "{version} {certificate:?}");
        }
    }
}

#[test]
fn sessions_of_a_cache_have_the_identifier_that_clients_see() {
    if !has("openssl") {
        return;
    }
    let server = Server::start(&text(
        "ssl_session_tickets off; ssl_session_cache shared:s:1m; return 200 \"<$ssl_session_id>\\n\";",
    ));
    let file = server.path("session");
    let file = file.to_str().expect("UTF-8");
    for argument in ["-sess_out", "-sess_in"] {
        let said = s_client(&server, &["-tls1_2", argument, file], "/").text();
        let id =
            said.lines().find_map(|line| line.trim().strip_prefix("Session-ID: ")).expect("an identifier");
        assert!(id.len() == 64 && said.contains(&format!("<{}>", id.to_ascii_lowercase())), "{said}");
    }
}

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
