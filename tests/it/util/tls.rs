//! Clients of TLS: one that does what the test says, and those that everybody uses.

use super::PATIENCE;
use super::client::{Client, Stream};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use thalweg::proto::tls::{
    ClientOptions, ClientTls, ClientTlsConfig, Pair, Primitives, Received, TlsClock, Trust, UpstreamFacts,
};

/// Where the certificates and keys are: `ca`, `server-ec` and `server-rsa` (for `example.com` and names below it),
/// `other` (`other.test`), `client` and its unhappy siblings.
pub const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/proto/tls/fixtures");

/// A file of [`FIXTURES`].
pub fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(FIXTURES).join(name)).expect("a fixture")
}

/// A TLS connection's settings. What it shows and keeps is common to all that are made with it.
pub struct Connector {
    config: ClientTlsConfig,
}

/// [`Connector::new`] with these protocols (ALPN).
#[track_caller]
pub fn connect_tls(port: u16, name: &str, protocols: &[&str]) -> Client {
    Connector::new(protocols, None).connect(port, name)
}

impl Connector {
    /// Offers these protocols, and shows the certificate of this name in [`FIXTURES`]. Believes no server but those of
    /// the test's authority.
    pub fn new(protocols: &[&str], certificate: Option<&str>) -> Self {
        let certificate = certificate.map(|name| {
            let (chain, key) = (fixture(&format!("{name}.pem")), fixture(&format!("{name}.key")));
            Pair::load(&chain, &key, &[], None).expect("a pair")
        });
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        let config = ClientTlsConfig::new(ClientOptions {
            primitives: Primitives::default(),
            certificate,
            trust: Some(Arc::new(Trust::new(&[&fixture("ca.pem")], &[], 1).expect("an authority"))),
            send_name: true,
            reuse_sessions: true,
            protocols: protocols.iter().map(|name| name.as_bytes().to_vec()).collect(),
            clock: Arc::new(TlsClock::new(now.as_secs())),
        });
        Self { config: config.expect("a configuration") }
    }

    /// Connects to a port of 127.0.0.1 and makes the handshake.
    #[track_caller]
    pub fn connect(&self, port: u16, name: &str) -> Client {
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect");
        self.try_over(socket, name).expect("a handshake").0
    }

    /// Makes the handshake over a connection that may have sent something already; what it agreed upon is given too.
    pub fn try_over(&self, socket: TcpStream, name: &str) -> Result<(Client, UpstreamFacts)> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut output = Vec::new();
        let machine = ClientTls::start(&self.config, name, name, &mut output).map_err(failure)?;
        let mut stream = TlsStream { socket, machine, plaintext: Vec::new(), has_ended: false };
        stream.socket.write_all(&output)?;
        while !stream.machine.is_open() {
            stream.take_some()?;
        }
        let facts = stream.machine.facts();
        Ok((Client::over(Box::new(stream)), facts))
    }
}

/// A close without its notice is an error to whoever reads.
struct TlsStream {
    socket: TcpStream,
    machine: ClientTls,
    plaintext: Vec<u8>,
    has_ended: bool,
}

fn failure(error: thalweg::proto::tls::TlsError) -> Error {
    Error::other(error.message)
}

impl TlsStream {
    fn take_some(&mut self) -> Result<()> {
        let mut buffer = [0; 32 * 1024];
        let count = self.socket.read(&mut buffer)?;
        if count == 0 {
            return Err(Error::new(ErrorKind::UnexpectedEof, "closed without a close_notify"));
        }
        let (mut input, mut output) = (&buffer[..count], Vec::new());
        let received = self.machine.receive(&mut input, &mut self.plaintext, &mut output);
        let _ = self.socket.write_all(&output);
        self.has_ended |= received.map_err(failure)? == Received::Closed;
        Ok(())
    }
}

impl Read for TlsStream {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        while self.plaintext.is_empty() && !self.has_ended {
            self.take_some()?;
        }
        let count = self.plaintext.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.plaintext[..count]);
        self.plaintext.drain(..count);
        Ok(count)
    }
}

impl Write for TlsStream {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let mut output = Vec::new();
        self.machine.write(bytes, &mut output);
        self.socket.write_all(&output)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Stream for TlsStream {
    /// The notice that nothing more is sent; the socket stays as it is.
    fn shut(&self, _: Shutdown) -> Result<()> {
        Err(Error::other("use close_notify of the peers that have it"))
    }

    fn limit(&self, time: Duration) -> Result<()> {
        self.socket.set_read_timeout(Some(time))?;
        self.socket.set_write_timeout(Some(time))
    }

    fn forget(&self) -> Result<()> {
        rustix::net::sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO))?;
        Ok(())
    }

    fn duplicate(&self) -> Result<Box<dyn Stream>> {
        Err(Error::other("a TLS connection has one user"))
    }
}

/// What a program that ran to its end said.
#[derive(Debug)]
pub struct Said {
    /// Its exit status.
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Said {
    /// The standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Runs a program with this input to its end.
#[track_caller]
pub fn run(program: &str, arguments: &[&str], input: &[u8]) -> Said {
    let mut child = Command::new("timeout")
        .args(["-k", "1", "60", program])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start the program");
    let mut writer = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || {
        // It may end before it has read everything.
        let _ = writer.write_all(&input);
    });
    let output = child.wait_with_output().expect("wait for the program");
    feeder.join().expect("the input is written");
    Said {
        code: output.status.code().unwrap_or(-1),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Whether a program is installed; says so if not.
pub fn has(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&paths).any(|folder| folder.join(program).exists());
    if !there {
        eprintln!("skipped: no {program}");
    }
    there
}

/// Runs curl: `example.com`, `other.test` and their like are 127.0.0.1, servers of the test's authority are believed.
#[track_caller]
pub fn curl(arguments: &[&str]) -> Said {
    let authority = format!("{FIXTURES}/ca.pem");
    let mut all = vec![
        "-sS",
        "--max-time",
        "40",
        "--noproxy",
        "*",
        "--connect-to",
        "::127.0.0.1:",
        "--cacert",
        &authority,
    ];
    all.extend(arguments);
    run("curl", &all, b"")
}
