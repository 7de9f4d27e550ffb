use std::rc::Rc;
use std::sync::Arc;

use crate::conf::files::MemoryFiles;
use crate::conf::render;
use crate::http::build::Built;
use crate::http::probe::value_after;
use crate::http::site::{AddressId, ServerId, Site};
use crate::http::testing::{World, build_whole};
use crate::proto::tls::{
    self, ClientCertificate, ClientOptions, ClientTls, ClientTlsConfig, Offer, Primitives, Received, TlsClock,
    TlsFacts, Trust, VerifyFailure, pem,
};

use super::*;

macro_rules! fixture {
    ($name:literal) => {
        &include_bytes!(concat!("../../../proto/tls/fixtures/", $name))[..]
    };
}

/// The time of the handshakes: within the validity of the certificates.
const NOW: u64 = 1_900_000_000;

fn files() -> MemoryFiles {
    MemoryFiles::new()
        .with("/etc/thalweg/rsa.pem", fixture!("server-rsa.pem"))
        .with("/etc/thalweg/rsa.key", fixture!("server-rsa.key"))
        .with("/etc/thalweg/ec.pem", fixture!("server-ec.pem"))
        .with("/etc/thalweg/ec.key", fixture!("server-ec.key"))
        .with("/etc/thalweg/other.pem", fixture!("other.pem"))
        .with("/etc/thalweg/other.key", fixture!("other.key"))
        .with("/etc/thalweg/encrypted.key", fixture!("encrypted-pkcs8.key"))
        .with("/etc/thalweg/passwords", "wrong\nsecret\n")
        .with("/etc/thalweg/ca.pem", fixture!("ca.pem"))
        .with("/etc/thalweg/ca.crl", fixture!("ca.crl"))
        .with("/etc/thalweg/ticket.key", vec![7; 80])
        .with("/etc/thalweg/short.key", vec![7; 79])
}

fn built(http: &str) -> Built {
    build_whole(format!("error_log stderr; events {{ }} http {{ {http} }}").into_bytes(), files())
}

/// What `-t` says, each line without its place.
fn complaints(http: &str) -> Vec<String> {
    let built = built(http);
    built
        .diagnostics
        .iter()
        .map(|diagnostic| render::line(diagnostic, &built.sources))
        .map(|line| line.trim_start_matches("thalweg: ").to_owned())
        .map(|line| line.rsplit_once(" in /etc/thalweg/thalweg.conf:").map_or(line.clone(), |(rest, _)| rest.into()))
        .collect()
}

fn site(http: &str) -> Site {
    let built = built(http);
    let told: Vec<String> =
        built.diagnostics.iter().map(|diagnostic| render::line(diagnostic, &built.sources)).collect();
    let site = built.site.unwrap_or_else(|| panic!("{}", told.join("\n")));
    site.tls.clock.set(NOW);
    site
}

const PAIR: &str = "ssl_certificate rsa.pem; ssl_certificate_key rsa.key;";

/// What a client gets that asks for `name`: the facts, or why not.
fn connect(site: &Site, name: &str) -> Result<TlsFacts, String> {
    let options = ClientOptions {
        primitives: Primitives::default(),
        certificate: None,
        trust: Some(Arc::new(Trust::new(&[fixture!("ca.pem")], &[], 1).unwrap())),
        send_name: true,
        reuse_sessions: true,
        protocols: vec![b"http/1.1".to_vec()],
        clock: Arc::new(TlsClock::new(NOW)),
    };
    connect_with(site, &ClientTlsConfig::new(options).unwrap(), name)
}

fn connect_with(site: &Site, config: &ClientTlsConfig, name: &str) -> Result<TlsFacts, String> {
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    let mut client = ClientTls::start(config, "peer", name, &mut to_server).unwrap();
    let mut server = tls::ServerTls::new();
    let mut ignored = Vec::new();
    while !to_server.is_empty() || !to_client.is_empty() {
        let bytes = std::mem::take(&mut to_server);
        let mut input = &bytes[..];
        while server.receive(&mut input, &mut ignored, &mut to_client).map_err(|error| error.message)?
            == Received::Hello
        {
            let name = server.hello().unwrap().server_name;
            let (_, chosen) = site.tls_server(AddressId(0), name).ok_or("no TLS here")?;
            let config = Arc::clone(&chosen.config);
            server.choose(&config, &mut to_client).map_err(|error| error.message)?;
        }
        let bytes = std::mem::take(&mut to_client);
        client.receive(&mut &bytes[..], &mut ignored, &mut to_server).map_err(|error| error.message)?;
    }
    Ok(server.facts().expect("an open connection"))
}

#[test]
fn every_name_has_the_certificate_of_its_server() {
    let site = site(&format!(
        "server {{ listen 443 ssl default_server; {PAIR} }}
         server {{ listen 443 ssl; server_name other.test; ssl_certificate other.pem; ssl_certificate_key other.key; }}
         server {{ listen 443 ssl; server_name refused.test; ssl_reject_handshake on; }}
         server {{ listen 443 ssl; server_name www.example.com; ssl_protocols TLSv1.2; {PAIR} }}
         server {{ listen 443 ssl; server_name bare.example.com; }}"
    ));
    assert_eq!(connect(&site, "example.com").unwrap().protocol, "TLSv1.3");
    assert_eq!(connect(&site, "other.test").unwrap().server_name.as_ref(), "other.test");
    assert_eq!(connect(&site, "refused.test").unwrap_err(), "handshake rejected");
    assert_eq!(connect(&site, "www.example.com").unwrap().protocol, "TLSv1.2");
    assert!(connect(&site, "bare.example.com").is_ok(), "a server without certificates has the default server's");
    assert_eq!(connect(&site, "example.com").unwrap().alpn.as_ref(), b"http/1.1");
}

#[test]
fn pairs_are_chosen_by_the_kinds_of_keys_that_a_client_takes() {
    let site = site(&format!(
        "server {{ listen 443 ssl; {PAIR} ssl_certificate ec.pem; ssl_certificate_key encrypted.key;
                  ssl_password_file passwords; ssl_ciphers ECDHE-RSA-AES128-GCM-SHA256; ssl_ecdh_curve secp384r1;
                  ssl_protocols TLSv1.2; }}"
    ));
    let facts = connect(&site, "example.com").unwrap();
    assert_eq!((facts.cipher, facts.group), ("ECDHE-RSA-AES128-GCM-SHA256", 0x18));
    assert_eq!(site.tls.server(ServerId(0)).unwrap().watched().count(), 4);
}

#[test]
fn commands_of_openssl_s_configuration_have_their_effect() {
    let settings = |text: &str| {
        let site = site(&format!("ssl_conf_command {text}; server {{ listen 443 ssl; {PAIR} }}"));
        connect(&site, "example.com").unwrap()
    };
    assert_eq!(settings("Ciphersuites TLS_CHACHA20_POLY1305_SHA256").cipher, "TLS_CHACHA20_POLY1305_SHA256");
    assert_eq!(settings("MaxProtocol TLSv1.2").protocol, "TLSv1.2");
    assert_eq!(settings("Groups P-256").group, 0x17);
    let twice = "ssl_conf_command MaxProtocol TLSv1.2; ssl_conf_command CipherString ECDHE+CHACHA20;";
    let site = site(&format!("server {{ listen 443 ssl; {PAIR} {twice} }}"));
    assert_eq!(connect(&site, "example.com").unwrap().cipher, "ECDHE-RSA-CHACHA20-POLY1305");
    let unknown = complaints(&format!("server {{ listen 443 ssl; {PAIR} ssl_conf_command Frobnicate yes; }}"));
    assert!(unknown[0].contains("\"Frobnicate\" of \"ssl_conf_command\" has no counterpart"), "{unknown:?}");
}

#[test]
fn errors_of_files_name_the_file_and_why() {
    let missing = "server { listen 443 ssl; ssl_certificate none.pem; ssl_certificate_key rsa.key; }";
    let why = "open() \"/etc/thalweg/none.pem\" failed (2: No such file or directory)";
    assert_eq!(
        complaints(missing),
        [format!("[emerg] cannot load certificate \"/etc/thalweg/none.pem\": {why}")]
    );
    for (pair, expected) in [
        ("ssl_certificate rsa.pem; ssl_certificate_key ec.key;", "cannot load certificate key \"/etc/thalweg/ec.key\": key values mismatch"),
        ("ssl_certificate rsa.key; ssl_certificate_key rsa.key;", "cannot load certificate \"/etc/thalweg/rsa.key\": no certificate in the file"),
        ("ssl_certificate rsa.pem; ssl_certificate_key rsa.pem;", "cannot load certificate key \"/etc/thalweg/rsa.pem\": no private key"),
        ("ssl_certificate ec.pem; ssl_certificate_key encrypted.key;", "the key is encrypted, and there is no \"ssl_password_file\""),
        ("ssl_certificate rsa.pem;", "no \"ssl_certificate_key\" is defined for certificate \"/etc/thalweg/rsa.pem\""),
        ("ssl_certificate_key rsa.key;", "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive"),
        ("ssl_certificate rsa.pem; ssl_certificate_key engine:x:y;", "keys of engines and stores cannot be used"),
    ] {
        let told = complaints(&format!("server {{ listen 443 ssl; {pair} }}"));
        assert!(told[0].contains(expected), "{pair}: {told:?}");
    }
}

#[test]
fn what_is_wrong_with_other_settings_is_told() {
    for (directives, expected) in [
        ("ssl_protocols TLSv1.1;", "TLSv1.1 cannot be spoken here"),
        ("ssl_protocols TLSv1.4;", "invalid value \"TLSv1.4\""),
        ("ssl_ciphers RC4;", "no cipher match in \"RC4\""),
        ("ssl_ecdh_curve sect283k1;", "unknown curve \"sect283k1\""),
        ("ssl_session_cache shared:a;", "invalid session cache \"shared:a\""),
        ("ssl_session_cache shared:a:1k;", "session cache \"shared:a:1k\" is too small"),
        ("ssl_session_ticket_key short.key;", "\"/etc/thalweg/short.key\" must be 48 or 80 bytes"),
        ("ssl_verify_client on;", "no ssl_client_certificate or ssl_trusted_certificate for ssl_verify_client"),
        ("ssl_verify_client maybe;", "invalid value \"maybe\""),
        ("ssl_verify_client on; ssl_client_certificate rsa.key;", "cannot load certificate \"/etc/thalweg/rsa.key\""),
        ("ssl_ocsp on;", "clients' certificates cannot be looked up with OCSP here"),
        ("ssl_certificate_cache valid=1m;", "\"ssl_certificate_cache\" must have the \"max\" parameter"),
        ("ssl_conf_command Ciphersuites X;", "no cipher match in \"X\""),
        ("ssl_buffer_size 0;", "invalid value"),
        ("ssl_conf_command MinProtocol TLSv1.3; ssl_protocols TLSv1.2;", "TLS cannot be set up"),
    ] {
        let told = complaints(&format!("server {{ listen 443 ssl; {PAIR} {directives} }}"));
        assert!(told.len() == 1 && told[0].starts_with("[emerg]") && told[0].contains(expected), "{told:?}");
    }
}

#[test]
fn what_has_no_effect_is_warned_of() {
    for (directives, expected) in [
        ("ssl_protocols TLSv1 TLSv1.2;", "[warn] TLSv1 cannot be spoken here, only TLSv1.2 and TLSv1.3"),
        ("ssl_ciphers HIGH:DHE-RSA-AES128-SHA;", "[warn] cipher suites that do not exist here, without effect: DHE-RSA-AES128-SHA"),
        ("ssl_ecdh_curve X25519:X448;", "[warn] curves that do not exist here, without effect: X448"),
        ("ssl_dhparam dh.pem;", "[warn] \"ssl_dhparam\" has no effect"),
        ("ssl_ech_file ech.pem;", "[warn] \"ssl_ech_file\" has no effect"),
        ("ssl_stapling on; ssl_stapling_verify on;", "[info] accepted, without meaning here: ssl_stapling, ssl_stapling_verify"),
    ] {
        let told = complaints(&format!("server {{ listen 443 ssl; {PAIR} {directives} }}"));
        assert!(told.len() == 1 && told[0].starts_with(expected), "{told:?}");
    }
    let quiet = "ssl_prefer_server_ciphers on; ssl_session_cache builtin:100 shared:SSL:1m; ssl_session_timeout 10m;
                 ssl_session_tickets off; ssl_stapling off; ssl_ocsp off; ssl_certificate_compression on;
                 ssl_early_data on; ssl_verify_client optional_no_ca; ssl_session_ticket_key ticket.key;
                 ssl_client_certificate ca.pem; ssl_trusted_certificate ca.pem; ssl_crl ca.crl; ssl_verify_depth 2;
                 ssl_certificate_cache max=10 inactive=20s valid=1m; ssl_conf_command Options KTLS;";
    assert_eq!(complaints(&format!("{quiet} server {{ listen 443 ssl; {PAIR} }}")), [""; 0]);
}

#[test]
fn servers_without_settings_of_their_own_share_their_tls() {
    let site = site(&format!("{PAIR} server {{ listen 443 ssl; }} server {{ listen 444 ssl; ssl_buffer_size 4k; }} server {{ listen 445 ssl; }}"));
    let tls = |number| site.tls.server(ServerId(number)).unwrap();
    assert!(Arc::ptr_eq(tls(0), tls(2)) && !Arc::ptr_eq(tls(0), tls(1)));
    assert_eq!(site.tls.all().count(), 2);
}

#[test]
fn sessions_stay_good_across_a_reload_of_the_configuration() {
    for directives in ["", "ssl_session_tickets off; ssl_session_cache shared:SSL:1m;"] {
        let text = format!("events {{ }} http {{ {directives} server {{ listen 443 ssl; {PAIR} }} }}");
        let build = |previous: Option<&SiteTls>| {
            let mut files = files().with("/etc/thalweg/thalweg.conf", text.clone());
            let options = crate::http::build::BuildOptions {
                error_log: &crate::conf::log_target::LogTarget::Stderr,
                previous_logs: None,
                previous_tls: previous,
                path: "/etc/thalweg/thalweg.conf",
                prefix: "/",
                command_line: "",
                hostname: b"h",
                privileged: true,
                resolve: None,
            };
            crate::http::build::build(&mut files, &options).site.expect("a site")
        };
        let first = build(None);
        first.tls.clock.set(NOW);
        let second = build(Some(&first.tls));
        let stranger = build(None);
        stranger.tls.clock.set(NOW);
        let options = ClientOptions {
            primitives: Primitives::default(),
            certificate: None,
            trust: None,
            send_name: true,
            reuse_sessions: true,
            protocols: Vec::new(),
            clock: Arc::new(TlsClock::new(NOW)),
        };
        let client = ClientTlsConfig::new(options).unwrap();
        assert!(!connect_with(&first, &client, "example.com").unwrap().reused);
        assert!(connect_with(&second, &client, "example.com").unwrap().reused);
        assert!(!connect_with(&stranger, &client, "example.com").unwrap().reused);
    }
}

#[test]
fn changed_files_are_taken_as_a_pair_or_not_at_all() {
    let site = site(&format!("server {{ listen 443 ssl; {PAIR} }}"));
    let tls = site.tls.server(ServerId(0)).unwrap();
    assert_eq!(tls.watched().collect::<Vec<_>>(), ["/etc/thalweg/rsa.pem", "/etc/thalweg/rsa.key"]);
    let mut files = files();
    assert_eq!(tls.reload(&mut files), Ok(false));
    files.insert("/etc/thalweg/rsa.pem", fixture!("other.pem"));
    assert!(tls.reload(&mut files).unwrap_err().contains("key values mismatch"));
    assert!(connect(&site, "example.com").is_ok());
    files.insert("/etc/thalweg/rsa.key", fixture!("other.key"));
    assert_eq!(tls.reload(&mut files), Ok(true));
    assert!(connect(&site, "example.com").unwrap_err().contains("does not match"));
    assert!(tls.days_left(NOW as i64).unwrap() > 30_000 && tls.days_left(1 << 40).unwrap() < 0);
}

#[test]
fn names_of_certificates_may_have_variables() {
    let text = "map $ssl_server_name $folder { other.test /keys; default sub; }
                server { listen 443 ssl; ssl_certificate $folder/$ssl_server_name.pem;
                         ssl_certificate_key data:$ssl_server_name; ssl_certificate_cache max=5; }";
    let site = crate::http::site::SiteHandle::new(Arc::new(site(text)));
    let (_, tls) = site.tls_server(AddressId(0), Some("other.test")).unwrap();
    assert!(tls.is_dynamic() && tls.watched().next().is_none());
    assert_eq!(tls.cache, Some(CertificateCache { max: 5, inactive: 10, valid: 60 }));
    let rendered = |name: &str| {
        let mut probe = crate::http::probe::Probe::new("server { }");
        let facts = TlsFacts { server_name: name.into(), ..TlsFacts::default() };
        probe.connection.tls = Some(Rc::new(facts));
        let head = crate::message::RequestHead::default();
        let mut exchange =
            crate::http::exchange::Exchange::begin(site.clone(), AddressId(0), probe.connection.clone(), 0, head);
        let mut context = Context { site: &site, env: &mut probe.env };
        tls.render(&mut exchange, &mut context).remove(0)
    };
    let pair = rendered("other.test");
    assert_eq!(pair.certificate, FileOrData::File("/keys/other.test.pem".into()));
    assert_eq!(pair.key, FileOrData::Data(b"other.test".to_vec()));
    assert_eq!(rendered("a").certificate, FileOrData::File("/etc/thalweg/sub/a.pem".into()));
    assert!(tls.with_pairs(&[(fixture!("server-ec.pem"), b"")], false).is_err());
}

fn facts(client: Option<Result<(), VerifyFailure>>) -> TlsFacts {
    let der = pem::of_label(fixture!("client.pem"), "CERTIFICATE").unwrap().remove(0);
    TlsFacts {
        protocol: "TLSv1.3",
        cipher: "TLS_AES_128_GCM_SHA256",
        group: 0x11ec,
        scheme: 0x0804,
        reused: false,
        session_id: [0x0a, 0x1b, 0xff].into(),
        server_name: "example.com".into(),
        alpn: b"http/1.1"[..].into(),
        offer: Offer {
            ciphers: [0x1a1a, 0x1301, 0xc02f].into(),
            groups: [0x11ec, 0x1d].into(),
            schemes: [0x0403, 0x0804].into(),
        },
        client: client.map(|verdict| ClientCertificate { der: der.into(), verdict, scheme: 0x0403 }),
        early_data: true.into(),
    }
}

fn value(name: &str, facts: Option<TlsFacts>) -> String {
    value_after(name, b"GET / HTTP/1.0\r\n\r\n", |exchange| exchange.connection.tls = facts.map(Rc::new))
}

#[test]
fn variables_show_what_was_agreed_upon() {
    for (name, expected) in [
        ("ssl_protocol", "TLSv1.3"),
        ("ssl_cipher", "TLS_AES_128_GCM_SHA256"),
        ("ssl_ciphers", "0x1a1a:TLS_AES_128_GCM_SHA256:ECDHE-RSA-AES128-GCM-SHA256"),
        ("ssl_curve", "X25519MLKEM768"),
        ("ssl_curves", "X25519MLKEM768:X25519"),
        ("ssl_sigalg", "rsa_pss_rsae_sha256"),
        ("ssl_sigalgs", "ecdsa_secp256r1_sha256:rsa_pss_rsae_sha256"),
        ("ssl_server_name", "example.com"),
        ("ssl_alpn_protocol", "http/1.1"),
        ("ssl_session_reused", "."),
        ("ssl_session_id", "0a1bff"),
        ("ssl_early_data", "1"),
        ("ssl_ech_status", "NOT_TRIED"),
        ("ssl_ech_outer_server_name", "-"),
        ("ssl_client_verify", "NONE"),
        ("ssl_client_s_dn", "-"),
        ("ssl_client_cert", "-"),
    ] {
        assert_eq!(value(name, Some(facts(None))), expected, "${name}");
        assert_eq!(value(name, None), "-", "${name} without TLS");
    }
}

#[test]
fn variables_show_the_client_s_certificate() {
    let of = |name: &str| value(name, Some(facts(Some(Ok(())))));
    assert_eq!(of("ssl_client_verify"), "SUCCESS");
    assert_eq!(of("ssl_client_serial"), "A1B2C3D4E5F60718");
    assert_eq!(of("ssl_client_i_dn"), "CN=Test CA,O=Tests");
    assert_eq!(of("ssl_client_i_dn_legacy"), "/O=Tests/CN=Test CA");
    assert!(of("ssl_client_s_dn").starts_with("emailAddress=j@example.com,CN="));
    assert!(of("ssl_client_s_dn_legacy").starts_with("/C=DE/ST=Some State/"));
    assert_eq!(of("ssl_client_fingerprint").len(), 40);
    assert_eq!(of("ssl_client_sigalg"), "ecdsa_secp256r1_sha256");
    assert!(of("ssl_client_v_end").ends_with(" 2126 GMT") && of("ssl_client_v_start").ends_with(" 2026 GMT"));
    assert!(of("ssl_client_v_remain").parse::<u64>().unwrap() > 30_000);
    let failed = Err(VerifyFailure { number: 10, reason: "certificate has expired" });
    assert_eq!(value("ssl_client_verify", Some(facts(Some(failed)))), "FAILED:certificate has expired");
}

#[test]
fn certificates_in_variables_keep_their_lines() {
    let mut log = World::new("server { add_header X $ssl_client_escaped_cert; return 200 $ssl_client_raw_cert$ssl_client_cert; }");
    log.tls = Some(Rc::new(facts(Some(Ok(())))));
    let reply = log.get("/");
    let text = reply.text();
    let raw = String::from_utf8_lossy(fixture!("client.pem")).into_owned();
    let raw = &raw[raw.find("-----BEGIN").unwrap()..];
    assert!(text.starts_with(raw), "the PEM file itself");
    assert_eq!(&text[raw.len()..], raw.trim_end().replace('\n', "\n\t"));
    assert!(reply.field("X").starts_with("-----BEGIN%20CERTIFICATE-----%0AMII"));
}

#[test]
fn requests_are_refused_by_the_rule_of_their_server() {
    let text = "error_log stderr info; server { server_name example.com; ssl_verify_client on; ssl_client_certificate /etc/thalweg/ca.pem;
                         return 200 $ssl_client_verify; }
                server { server_name open.test; return 200 open; }";
    let mut world = World::with_includes(text, files());
    let expired = || Some(Err(VerifyFailure { number: 10, reason: "certificate has expired" }));
    let mut ask = |host: &str, client| {
        world.tls = Some(Rc::new(facts(client)));
        let reply = world.send(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        (reply.status, reply.text().to_owned(), reply.log.join("\n"))
    };
    assert_eq!(ask("example.com", Some(Ok(()))).1, "SUCCESS");
    assert_eq!(ask("Example.com:443", Some(Ok(()))).1, "SUCCESS");
    let (status, page, log) = ask("example.com", None);
    assert_eq!(status, 400);
    assert!(page.contains("No required SSL certificate was sent") && log.contains("client sent no required SSL certificate"));
    let (status, page, log) = ask("example.com", expired());
    assert_eq!(status, 400);
    assert!(page.contains("The SSL certificate error") && log.contains("verify error: (10:certificate has expired)"));
    assert_eq!(ask("open.test", expired()).1, "open");
    let misdirected = |facts: TlsFacts| {
        let mut world = World::with_includes(text, files());
        world.tls = Some(Rc::new(TlsFacts { server_name: "open.test".into(), ..facts }));
        world.get("/").status
    };
    assert_eq!(misdirected(facts(Some(Ok(())))), 421);
    world.tls = None;
    assert_eq!(world.get("/").status, 200, "a port without TLS has no certificates to ask for");
}

#[test]
fn a_request_without_a_host_is_that_of_the_handshake_s_name() {
    let text = "server { return 200 first; } server { server_name example.com; return 200 named; }";
    let mut world = World::new(text);
    assert_eq!(world.send("GET / HTTP/1.0\r\n\r\n").text(), "first");
    world.tls = Some(Rc::new(facts(None)));
    assert_eq!(world.send("GET / HTTP/1.0\r\n\r\n").text(), "named");
    assert_eq!(world.send("GET / HTTP/1.1\r\nHost: other\r\n\r\n").text(), "first");
}
