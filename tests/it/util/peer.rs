//! A scripted server: the test says what it does with each connection, byte by byte.

use super::client::Client;
use super::server::Server;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A connection that the scripted server accepted: the same verbs as [`Client`], plus reading of requests.
pub struct Peer {
    client: Client,
    /// 0 for the first connection, 1 for the second, ...
    pub index: usize,
}

impl Peer {
    /// The connection alone.
    pub fn into_client(self) -> Client {
        self.client
    }

    /// Closes with a reset.
    pub fn reset(self) {
        self.client.reset();
    }

    /// Reads one request: its head as text, and its body (by Content-Length or chunked, decoded). `None` at a close.
    pub fn read_request(&mut self) -> Option<(String, Vec<u8>)> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.client.read_one()?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let field = |name: &str| {
            head.lines().find_map(|line| {
                let (known, value) = line.split_once(':')?;
                known.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            })
        };
        let body = if field("transfer-encoding").is_some() {
            self.client.read_chunked_body()
        } else {
            self.client.read_exactly(field("content-length").and_then(|v| v.parse().ok()).unwrap_or(0))
        };
        Some((head, body))
    }
}

impl std::ops::Deref for Peer {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

impl std::ops::DerefMut for Peer {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// The scripted server. Dropping it stops it and re-raises the first panic of a script.
pub struct Upstream {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    failure: Arc<Mutex<Option<String>>>,
    acceptor: Option<JoinHandle<()>>,
}

impl Upstream {
    /// Listens on a free port of 127.0.0.1 and runs `script` for each connection, each in a thread of its own. The
    /// connection closes when the script returns.
    pub fn start(script: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        Self::start_on(0, script)
    }

    /// The same on this port, which is reserved for it (see `Reserved`); 0 for a free one.
    pub fn start_on(port: u16, script: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("bind");
        let address = listener.local_addr().expect("address");
        let stopping = Arc::new(AtomicBool::new(false));
        let accepted = Arc::new(AtomicUsize::new(0));
        let failure = Arc::new(Mutex::new(None));
        let acceptor = std::thread::spawn({
            let (stopping, accepted, failure) = (stopping.clone(), accepted.clone(), failure.clone());
            let script = Arc::new(script);
            move || {
                for stream in listener.incoming() {
                    if stopping.load(Ordering::SeqCst) {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    let index = accepted.fetch_add(1, Ordering::SeqCst);
                    let (script, failure) = (script.clone(), failure.clone());
                    std::thread::spawn(move || {
                        let peer = Peer { client: Client::over_tcp(stream), index };
                        let run = std::panic::AssertUnwindSafe(|| script(peer));
                        if let Err(panic) = std::panic::catch_unwind(run) {
                            let text = panic.downcast_ref::<String>().cloned();
                            let text =
                                text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
                            failure.lock().unwrap().get_or_insert(text.unwrap_or_else(|| "panic".to_owned()));
                        }
                    });
                }
            }
        });
        Self { address, stopping, accepted, failure, acceptor: Some(acceptor) }
    }

    /// Answers each request on each connection with what `answer` makes of its head and body.
    pub fn http(answer: impl Fn(&str, &[u8]) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start(move |mut peer| {
            while let Some((head, body)) = peer.read_request() {
                if !peer.try_send(answer(&head, &body)) {
                    return;
                }
            }
        })
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many connections it has accepted.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address); // wakes the accept
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        let failure = self.failure.lock().unwrap().take();
        if let Some(failure) = failure
            && !std::thread::panicking()
        {
            panic!("a scripted connection failed: {failure}");
        }
    }
}

/// A server that passes everything on to this upstream, with further directives for its location.
#[track_caller]
pub fn proxy_with(upstream: &Upstream, directives: &str) -> Server {
    let port = upstream.port();
    Server::start(&format!(
        "server {{ listen {{port}}; location / {{ proxy_pass http://127.0.0.1:{port}; {directives} }} }}"
    ))
}

/// The same as it is without any.
#[track_caller]
pub fn proxy(upstream: &Upstream) -> Server {
    proxy_with(upstream, "")
}
