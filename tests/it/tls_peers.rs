//! The TLS machines against OpenSSL's `s_client` and `s_server`, over real sockets. Skipped where there is no OpenSSL.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use thalweg::proto::tls::{
    Certificate, Certificates, ClientAuth, ClientOptions, ClientTls, ClientTlsConfig, MAX_RECORD, Pair,
    Primitives, Received, ServerOptions, ServerTls, ServerTlsConfig, SessionCache, TicketKeys, TlsClock,
    TlsFacts, Trust, names,
};

/// As long as a peer may take for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/proto/tls/fixtures").join(name)
}

fn content(name: &str) -> Vec<u8> {
    std::fs::read(fixture(name)).expect("a fixture")
}

fn path(name: &str) -> String {
    fixture(name).to_string_lossy().into_owned()
}

fn pair(name: &str) -> Pair {
    let (chain, key) = (content(&format!("{name}.pem")), content(&format!("{name}.key")));
    Pair::load(&chain, &key, &[], None).expect("a pair")
}

fn clock() -> Arc<TlsClock> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    Arc::new(TlsClock::new(now.as_secs()))
}

fn trust() -> Arc<Trust> {
    Arc::new(Trust::new(&[&content("ca.pem")], &[], 1).expect("an authority"))
}

fn options() -> ServerOptions {
    let clock = clock();
    ServerOptions {
        primitives: Primitives::default(),
        prefer_server_ciphers: false,
        certificates: Arc::new(Certificates::new(vec![pair("server-rsa"), pair("server-ec")])),
        client_auth: ClientAuth::Off,
        client_authorities: vec![content("ca.pem").into()],
        client_trust: trust(),
        sessions: None,
        tickets: Some(Arc::new(TicketKeys::random(300, Arc::clone(&clock)))),
        early_data: false,
        record_size: MAX_RECORD,
        protocols: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        compress_certificates: false,
        reject: false,
        kernel: false,
        clock,
    }
}

fn has_openssl() -> bool {
    Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// A child process that ends with its handle.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves connections with one configuration.
struct Served {
    listener: TcpListener,
    config: Arc<ServerTlsConfig>,
}

impl Served {
    fn new(options: ServerOptions) -> Served {
        let config = Arc::new(ServerTlsConfig::new(options).expect("a configuration"));
        Served { listener: TcpListener::bind("127.0.0.1:0").expect("a port"), config }
    }

    /// Runs `openssl s_client` with these arguments; the client's line comes back in upper case. What it printed, and
    /// what was known of the connection.
    fn ask(&self, arguments: &[&str]) -> (String, Result<TlsFacts, String>) {
        let address = self.listener.local_addr().expect("an address").to_string();
        let mut client = Command::new("openssl")
            .args(["s_client", "-connect", &address, "-CAfile", &path("ca.pem"), "-verify_return_error"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl");
        let mut input = client.stdin.take().expect("a pipe");
        input.write_all(b"a line\n").expect("written");
        let mut printed = client.stdout.take().expect("a pipe");
        let client = Peer(client);
        let facts = self.serve();
        drop(input);
        let mut text = String::new();
        printed.read_to_string(&mut text).expect("text");
        drop(client);
        (text, facts)
    }

    fn serve(&self) -> Result<TlsFacts, String> {
        let (mut stream, _) = self.listener.accept().expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut tls = ServerTls::new();
        let (mut plaintext, mut output) = (Vec::new(), Vec::new());
        let mut facts = None;
        let mut buffer = [0; 16 * 1024];
        loop {
            let length = stream.read(&mut buffer).map_err(|error| error.to_string())?;
            if length == 0 {
                return facts.ok_or_else(|| "the client left".to_owned());
            }
            let mut input = &buffer[..length];
            let received = loop {
                let received = tls.receive(&mut input, &mut plaintext, &mut output);
                if received != Ok(Received::Hello) {
                    break received;
                }
                if let Err(error) = tls.choose(&self.config, &mut output) {
                    break Err(error);
                }
            };
            if facts.is_none() {
                facts = tls.facts();
            }
            if plaintext.ends_with(b"\n") {
                tls.write(&plaintext.to_ascii_uppercase(), &mut output);
                plaintext.clear();
                tls.close(&mut output);
            }
            // The client may have closed already.
            let _ = stream.write_all(&std::mem::take(&mut output));
            match received {
                Ok(Received::Closed) => return facts.ok_or_else(|| "the client left".to_owned()),
                Ok(_) => {}
                Err(error) => return Err(error.message),
            }
        }
    }
}

#[test]
fn s_client_is_served_with_every_version_and_key() {
    if !has_openssl() {
        return;
    }
    let served = Served::new(options());
    for (arguments, protocol, cipher) in [
        (&["-tls1_3"][..], "TLSv1.3", "TLS_AES_256_GCM_SHA384"),
        (
            &["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"],
            "TLSv1.3",
            "TLS_CHACHA20_POLY1305_SHA256",
        ),
        (&["-tls1_2"], "TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384"),
        (&["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], "TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256"),
    ] {
        let with_name = [arguments, &["-servername", "Example.com", "-alpn", "http/1.1"]].concat();
        let (printed, facts) = served.ask(&with_name);
        let facts = facts.unwrap();
        assert!(printed.contains("A LINE") && printed.contains("Verify return code: 0 (ok)"), "{printed}");
        assert_eq!((facts.protocol, facts.cipher), (protocol, cipher));
        assert!(printed.contains(&format!("Cipher is {cipher}")), "{printed}");
        assert_eq!((facts.server_name.as_ref(), facts.alpn.as_ref()), ("example.com", &b"http/1.1"[..]));
        let mut offered = Vec::new();
        names::append_cipher(facts.offer.ciphers[0], &mut offered);
        assert!(!offered.starts_with(b"0x"), "what OpenSSL offers has OpenSSL's names");
        let signed = if facts.scheme >> 8 == 8 {
            "Peer signature type: RSA-PSS"
        } else {
            "Peer signature type: ECDSA"
        };
        assert!(printed.contains(signed), "{}: {printed}", facts.scheme);
    }
}

#[test]
fn s_client_takes_its_session_up() {
    if !has_openssl() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let session = folder.path().join("session").to_string_lossy().into_owned();
    for version in ["-tls1_2", "-tls1_3"] {
        for cached in [false, true] {
            let mut options = options();
            if cached {
                options.tickets = None;
                options.sessions =
                    Some(Arc::new(SessionCache::new(1 << 20, 300, Arc::clone(&options.clock))));
            }
            let served = Served::new(options);
            let (_, first) = served.ask(&[version, "-servername", "example.com", "-sess_out", &session]);
            assert!(!first.unwrap().reused);
            let (printed, second) =
                served.ask(&[version, "-servername", "example.com", "-sess_in", &session]);
            assert!(second.unwrap().reused && printed.contains("Reused, "), "{version} {cached}: {printed}");
        }
    }
}

#[test]
fn s_client_shows_its_certificate() {
    if !has_openssl() {
        return;
    }
    let mut options = options();
    options.client_auth = ClientAuth::On;
    let served = Served::new(options);
    for version in ["-tls1_2", "-tls1_3"] {
        let (certificate, key) = (path("client.pem"), path("client.key"));
        let (printed, facts) = served.ask(&[version, "-cert", &certificate, "-key", &key]);
        assert!(printed.contains("CN = Test CA"), "authorities are named: {printed}");
        let client = facts.unwrap().client.expect("a certificate");
        assert_eq!(client.verdict, Ok(()));
        let mut serial = Vec::new();
        Certificate::parse(&client.der).expect("a certificate").append_serial(&mut serial);
        assert_eq!(serial, b"A1B2C3D4E5F60718");
        let (_, facts) = served.ask(&[version]);
        assert!(facts.unwrap().client.is_none());
    }
}

#[test]
fn s_client_is_told_why_it_is_refused() {
    if !has_openssl() {
        return;
    }
    let served = Served::new(options());
    let (_, facts) = served.ask(&["-alpn", "spdy/3"]);
    assert!(facts.is_err());
    let (_, facts) = served.ask(&["-tls1_2", "-cipher", "AES128-SHA"]);
    assert!(facts.is_err());
    let served = Served::new(ServerOptions { reject: true, ..options() });
    let (_, facts) = served.ask(&["-servername", "example.com"]);
    assert_eq!(facts.unwrap_err(), "handshake rejected");
}

/// `openssl s_server -rev` on a free port: it sends every line back in reverse.
fn reversing_server(arguments: &[&str]) -> (Peer, u16) {
    let port =
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let server = Command::new("openssl")
        .args(["s_server", "-rev", "-accept", &format!("127.0.0.1:{port}")])
        .args(["-cert", &path("server-ec.pem"), "-key", &path("server-ec.key")])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl");
    (Peer(server), port)
}

fn connect(port: u16) -> TcpStream {
    for _ in 0..400 {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                return stream;
            }
            Err(_) => std::thread::sleep(Duration::from_millis(25)),
        }
    }
    panic!("s_server does not listen");
}

/// Sends a line to an upstream; its answer.
fn reverse(config: &ClientTlsConfig, port: u16, name: &str) -> Result<(String, bool), String> {
    let mut stream = connect(port);
    let (mut plaintext, mut output) = (Vec::new(), Vec::new());
    let mut tls = ClientTls::start(config, "peer", name, &mut output).map_err(|error| error.message)?;
    let mut is_asked = false;
    let mut buffer = [0; 16 * 1024];
    loop {
        if tls.is_open() && !is_asked {
            is_asked = true;
            tls.write(b"abc\n", &mut output);
        }
        stream.write_all(&std::mem::take(&mut output)).map_err(|error| error.to_string())?;
        if plaintext.ends_with(b"\n") {
            return Ok((String::from_utf8_lossy(&plaintext).trim().to_owned(), tls.facts().reused));
        }
        let length = stream.read(&mut buffer).map_err(|error| error.to_string())?;
        if length == 0 {
            return Err("the server left".into());
        }
        let mut input = &buffer[..length];
        if let Err(error) = tls.receive(&mut input, &mut plaintext, &mut output) {
            let _ = stream.write_all(&output);
            return Err(error.message);
        }
    }
}

#[test]
fn s_server_is_asked_and_believed_by_its_name() {
    if !has_openssl() {
        return;
    }
    for version in ["-tls1_2", "-tls1_3"] {
        let (_peer, port) = reversing_server(&[version, "-Verify", "1", "-CAfile", &path("ca.pem")]);
        let config = ClientTlsConfig::new(ClientOptions {
            primitives: Primitives::default(),
            certificate: Some(pair("client")),
            trust: Some(trust()),
            send_name: true,
            reuse_sessions: true,
            protocols: Vec::new(),
            clock: clock(),
        })
        .expect("a configuration");
        assert_eq!(reverse(&config, port, "example.com"), Ok(("cba".to_owned(), false)), "{version}");
        assert_eq!(reverse(&config, port, "example.com"), Ok(("cba".to_owned(), true)), "{version}");
        let error = reverse(&config, port, "example.org").unwrap_err();
        assert_eq!(error, "upstream SSL certificate does not match \"example.org\"");
    }
}
