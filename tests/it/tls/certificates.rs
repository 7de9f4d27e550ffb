//! Which certificate is shown, and which of the client's is believed.

use super::*;

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
