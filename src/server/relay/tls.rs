//! TLS between the socket of a connection to a peer and whatever reads and writes it.
//!
//! What was decrypted and not asked for yet, and what was encrypted and not sent yet, waits here; both are bounded by what
//! one call moves, and an idle connection holds neither.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown};

use crate::http::upstream_call::CallTls;
use crate::proto::tls::{ClientTls, ClientTlsConfig, Received, TlsError};

use super::connection::{receive, send};
use super::links::Link;

/// Bytes that one call encrypts.
const ENCRYPT_MAX: usize = 64 * 1024;
/// A record with all that may be around it.
const RECORD_MAX: usize = 18 * 1024;
/// Reads in one call that bring nothing but what TLS has to say to itself; a peer that goes on with it has broken the
/// connection.
const EMPTY_READS_MAX: usize = 32;

/// See the module's documentation.
pub struct TlsLayer {
    machine: ClientTls,
    call: Arc<CallTls>,
    /// Decrypted; what is before `taken` was asked for already.
    plaintext: Vec<u8>,
    taken: usize,
    /// Encrypted; what is before `sent` has gone.
    unsent: Vec<u8>,
    sent: usize,
    /// The socket took no more.
    blocked: bool,
    end: End,
    goodbye: Goodbye,
    error: Option<Box<TlsError>>,
}

/// Whether more comes from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It may.
    Open,
    /// The peer said that it does not.
    Said,
    /// The socket's end was there before the peer said so.
    Cut,
}

/// How far the peer was told that nothing more comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goodbye {
    /// Not at all.
    Unsaid,
    /// Within TLS.
    Said,
    /// The socket is shut down when all has gone.
    Shutting,
    /// It is.
    Shut,
}

impl std::fmt::Debug for TlsLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TlsLayer({})", self.call.name)
    }
}

impl TlsLayer {
    /// Begins the handshake with a peer; `config` is that of the call, with its certificate.
    ///
    /// # Errors
    /// No certificate can be for the name.
    pub fn start(call: &Arc<CallTls>, config: &ClientTlsConfig, peer: &str) -> Result<TlsLayer, TlsError> {
        let mut unsent = Vec::new();
        let machine = ClientTls::start(config, peer, &call.name, &mut unsent)?;
        Ok(TlsLayer {
            machine,
            call: Arc::clone(call),
            plaintext: Vec::new(),
            taken: 0,
            unsent,
            sent: 0,
            blocked: false,
            end: End::Open,
            goodbye: Goodbye::Unsaid,
            error: None,
        })
    }

    /// What it was made for.
    pub fn call(&self) -> &Arc<CallTls> {
        &self.call
    }

    /// Whether HTTP/2 was agreed upon (ALPN), once the handshake is over. A peer that was offered nothing else and did not
    /// take it would answer in HTTP/1 (RFC 9113 section 3.2).
    ///
    /// # Errors
    /// It was not.
    pub fn speaks_http2(&self) -> Result<(), HandshakeFailure> {
        match self.machine.facts().alpn {
            chosen if *chosen == *b"h2" => Ok(()),
            chosen => Err(HandshakeFailure::NoHttp2(chosen)),
        }
    }

    /// Goes on with the handshake; whether it is over. What the peer sent behind it waits.
    ///
    /// # Errors
    /// The handshake has failed; the peer was told.
    pub fn shake(
        &mut self,
        socket: BorrowedFd<'_>,
        buffer: &mut [u8],
        link: &mut Link,
    ) -> Result<bool, HandshakeFailure> {
        loop {
            self.flush(socket).map_err(HandshakeFailure::Socket)?;
            if self.machine.is_open() {
                // A server's first tickets, or its refusal of our certificate, may be there already.
                link.readable = true;
                return Ok(true);
            }
            if !link.readable {
                return Ok(false);
            }
            let count = match receive(socket, buffer, link).map_err(HandshakeFailure::Socket)? {
                None => continue,
                Some(0) => return Err(HandshakeFailure::Closed),
                Some(count) => count,
            };
            let mut input = &buffer[..count];
            match self.machine.receive(&mut input, &mut self.plaintext, &mut self.unsent) {
                Ok(Received::Closed) => return Err(HandshakeFailure::Closed),
                Ok(_) => {}
                Err(error) => {
                    // The alert; what is lost of it, is.
                    let _ = self.flush(socket);
                    return Err(HandshakeFailure::Tls(error));
                }
            }
        }
    }

    /// See [`super::connection::Connection::receive`].
    pub fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        buffer: &mut [u8],
        link: &mut Link,
    ) -> Result<Option<usize>, Errno> {
        if self.taken == self.plaintext.len() {
            self.plaintext.clear();
            self.taken = 0;
            if let Some(end) = self.receive_more(socket, buffer, link)? {
                return Ok(end);
            }
        }
        let count = (self.plaintext.len() - self.taken).min(buffer.len());
        buffer[..count].copy_from_slice(&self.plaintext[self.taken..self.taken + count]);
        self.taken += count;
        link.readable |= self.has_more();
        Ok(Some(count))
    }

    /// The same, behind what is in `memory`, at most `most` bytes. `buffer` is for what is read from the socket.
    pub fn receive_behind(
        &mut self,
        socket: BorrowedFd<'_>,
        memory: &mut Vec<u8>,
        most: usize,
        buffer: &mut [u8],
        link: &mut Link,
    ) -> Result<Option<usize>, Errno> {
        let count = if self.taken < self.plaintext.len() {
            let count = (self.plaintext.len() - self.taken).min(most);
            memory.extend_from_slice(&self.plaintext[self.taken..self.taken + count]);
            self.taken += count;
            count
        } else {
            self.plaintext.clear();
            self.taken = 0;
            let length = buffer.len().min(most.saturating_add(RECORD_MAX));
            let start = memory.len();
            // It is decrypted where it belongs at once; what is too much stays here.
            std::mem::swap(memory, &mut self.plaintext);
            let end = self.receive_more(socket, &mut buffer[..length], link);
            std::mem::swap(memory, &mut self.plaintext);
            if let Some(end) = end? {
                return Ok(end);
            }
            let count = (memory.len() - start).min(most);
            self.plaintext.extend_from_slice(&memory[start + count..]);
            memory.truncate(start + count);
            count
        };
        link.readable |= self.has_more();
        Ok(Some(count))
    }

    /// Reads until something is decrypted behind what is in `plaintext`; else says what to tell instead: nothing now, or
    /// the end.
    fn receive_more(
        &mut self,
        socket: BorrowedFd<'_>,
        buffer: &mut [u8],
        link: &mut Link,
    ) -> Result<Option<Option<usize>>, Errno> {
        let start = self.plaintext.len();
        for _ in 0..EMPTY_READS_MAX {
            if self.error.is_some() {
                return Err(Errno::PROTO);
            }
            if self.end != End::Open {
                return Ok(Some(Some(0)));
            }
            let count = match receive(socket, buffer, link)? {
                None => return Ok(Some(None)),
                Some(0) => {
                    self.end = End::Cut;
                    continue;
                }
                Some(count) => count,
            };
            self.decrypt(&buffer[..count]);
            if self.owes() {
                // Answers of TLS to TLS; an error will be seen by whoever sends next.
                let _ = self.flush(socket);
            }
            if self.plaintext.len() > start {
                return Ok(None);
            }
            if !link.readable && self.end == End::Open && self.error.is_none() {
                return Ok(Some(None));
            }
        }
        Err(Errno::PROTO)
    }

    /// What came before an error still counts.
    fn decrypt(&mut self, mut input: &[u8]) {
        match self.machine.receive(&mut input, &mut self.plaintext, &mut self.unsent) {
            Ok(Received::Closed) => self.end = End::Said,
            Ok(_) => {}
            Err(error) => self.error = Some(Box::new(error)),
        }
    }

    /// Whether a read has something to tell without asking the socket.
    pub fn has_more(&self) -> bool {
        self.taken < self.plaintext.len() || self.end != End::Open || self.error.is_some()
    }

    /// See [`super::connection::Connection::was_cut`].
    pub fn was_cut(&self) -> bool {
        self.end == End::Cut
    }

    /// What is wrong with what the peer sent.
    pub fn error(&self) -> Option<&TlsError> {
        self.error.as_deref()
    }

    /// See [`super::connection::Connection::send`].
    pub fn send(&mut self, socket: BorrowedFd<'_>, bytes: &[u8], flags: SendFlags) -> Result<usize, Errno> {
        if self.blocked {
            self.flush(socket)?;
            if self.blocked {
                return Ok(0);
            }
        }
        let taken = bytes.len().min(ENCRYPT_MAX);
        self.machine.write(&bytes[..taken], &mut self.unsent);
        self.flush_with(socket, flags)?;
        Ok(taken)
    }

    /// Whether something waits for the socket.
    pub fn owes(&self) -> bool {
        self.sent < self.unsent.len() || self.goodbye == Goodbye::Shutting
    }

    /// Sends what waits, as much as the socket takes.
    pub fn flush(&mut self, socket: BorrowedFd<'_>) -> Result<(), Errno> {
        self.flush_with(socket, SendFlags::NOSIGNAL)
    }

    fn flush_with(&mut self, socket: BorrowedFd<'_>, flags: SendFlags) -> Result<(), Errno> {
        self.blocked = false;
        while self.sent < self.unsent.len() {
            match send(socket, &self.unsent[self.sent..], flags)? {
                0 => {
                    self.blocked = true;
                    return Ok(());
                }
                count => self.sent += count,
            }
        }
        self.unsent.clear();
        self.sent = 0;
        if self.goodbye == Goodbye::Shutting {
            self.goodbye = Goodbye::Shut;
            rustix::net::shutdown(socket, Shutdown::Write)?;
        }
        Ok(())
    }

    /// Tells the peer that nothing more comes, behind what waits for the socket.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn shut_down(&mut self, socket: BorrowedFd<'_>) -> Result<(), Errno> {
        if self.goodbye == Goodbye::Unsaid {
            self.machine.close(&mut self.unsent);
        }
        self.goodbye = Goodbye::Shutting;
        self.flush(socket)
    }

    /// Says goodbye, as far as the socket takes it: nobody waits.
    pub fn part(&mut self, socket: BorrowedFd<'_>) {
        if self.goodbye == Goodbye::Unsaid && self.machine.is_open() && !self.owes() {
            self.goodbye = Goodbye::Said;
            self.machine.close(&mut self.unsent);
            let _ = self.flush(socket);
        }
    }

    /// Gives memory back.
    pub fn rest(&mut self) {
        if self.taken == self.plaintext.len() {
            self.plaintext = Vec::new();
            self.taken = 0;
        }
        if !self.owes() {
            self.unsent = Vec::new();
            self.sent = 0;
        }
    }
}

/// Why there is no connection over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// The peer closed before it was over.
    Closed,
    /// The socket failed.
    Socket(Errno),
    /// Both sides did not come to terms.
    Tls(TlsError),
    /// They did, but not about HTTP/2 within (ALPN): what the peer chose instead, which may be nothing.
    NoHttp2(Box<[u8]>),
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::http::modules::passing::UpstreamTls;
    use crate::proto::tls::{Certificates, Pair as KeyPair, ServerTls, ServerTlsConfig, fuzz};
    use crate::server::relay::links::tests::link;

    fn config() -> ServerTlsConfig {
        let chain = include_bytes!("../../proto/tls/fixtures/server-ec.pem");
        let key = include_bytes!("../../proto/tls/fixtures/server-ec.key");
        let pair = KeyPair::load(chain, key, &[], None).unwrap();
        fuzz::config().with_certificates(Arc::new(Certificates::new(vec![pair])))
    }

    /// A layer and the server that it speaks with, in one thread.
    struct Pair {
        layer: TlsLayer,
        ours: UnixStream,
        theirs: UnixStream,
        server: ServerTls,
        /// What the server has read.
        heard: Vec<u8>,
        link: Link,
        buffer: Vec<u8>,
    }

    impl Pair {
        /// With an open connection.
        fn open() -> Pair {
            let (ours, theirs) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            theirs.set_nonblocking(true).unwrap();
            let tls = Arc::new(UpstreamTls::for_tests());
            let call = Arc::new(CallTls { tls, name: "example.com".into(), pair: None });
            let layer = TlsLayer::start(&call, &call.tls.config, "peer").unwrap();
            let mut pair = Pair {
                layer,
                ours,
                theirs,
                server: ServerTls::new(),
                heard: Vec::new(),
                link: link(),
                buffer: vec![0; 1 << 16],
            };
            while !pair.layer.shake(pair.ours.as_fd(), &mut pair.buffer, &mut pair.link).unwrap() {
                pair.listen();
                pair.link.readable = true;
            }
            pair.listen();
            pair
        }

        /// The server reads what there is, and answers what TLS asks.
        fn listen(&mut self) {
            let (mut bytes, mut output) = (vec![0; 1 << 20], Vec::new());
            let Ok(count) = self.theirs.read(&mut bytes) else { return };
            let mut input = &bytes[..count];
            while self.server.receive(&mut input, &mut self.heard, &mut output).unwrap() == Received::Hello {
                self.server.choose(&Arc::new(config()), &mut output).unwrap();
            }
            self.theirs.write_all(&output).unwrap();
        }

        /// The server says something, in one piece.
        fn say(&mut self, text: &[u8]) {
            let mut output = Vec::new();
            self.server.write(text, &mut output);
            self.theirs.write_all(&output).unwrap();
            self.link.readable = true;
        }

        /// All that a reader gets that asks for `most` bytes at a time, until there is nothing now; the end with it.
        fn read_all(&mut self, most: usize, behind: bool) -> (Vec<u8>, bool) {
            let mut all = Vec::new();
            while self.link.readable {
                let before = all.len();
                let mut small = vec![0; most];
                let socket = self.ours.as_fd();
                let read = match behind {
                    true => {
                        self.layer.receive_behind(socket, &mut all, most, &mut self.buffer, &mut self.link)
                    }
                    false => self.layer.receive(socket, &mut small, &mut self.link),
                };
                match read.unwrap() {
                    None => break,
                    Some(0) => return (all, true),
                    Some(count) if behind => assert!(count <= most && all.len() == before + count),
                    Some(count) => all.extend_from_slice(&small[..count]),
                }
            }
            (all, false)
        }
    }

    fn text(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn readers_get_everything_however_little_they_ask_for() {
        for behind in [false, true] {
            for most in [1000, 1 << 14, 1 << 17] {
                let mut pair = Pair::open();
                for length in [1, 5000, 70_000] {
                    pair.say(&text(length));
                    let got = pair.read_all(most, behind);
                    assert!(got == (text(length), false), "{behind} {most} {length} {}", got.0.len());
                    assert!(!pair.layer.has_more());
                }
            }
        }
    }

    #[test]
    fn an_end_that_was_said_is_told_from_one_that_was_not() {
        for says in [true, false] {
            let mut pair = Pair::open();
            pair.say(b"last");
            if says {
                let mut output = Vec::new();
                pair.server.close(&mut output);
                pair.theirs.write_all(&output).unwrap();
            }
            pair.theirs.shutdown(std::net::Shutdown::Write).unwrap();
            pair.link.read_closed = true;
            assert_eq!(pair.read_all(100, false), (b"last".to_vec(), true));
            assert_eq!(pair.layer.was_cut(), !says);
            // It stays the end.
            assert_eq!(pair.read_all(100, true), (Vec::new(), true));
        }
    }

    #[test]
    fn what_the_socket_does_not_take_waits_and_is_bounded() {
        let mut pair = Pair::open();
        let all = text(3_000_000);
        let mut sent = 0;
        while sent < all.len() || pair.layer.owes() {
            let count = pair.layer.send(pair.ours.as_fd(), &all[sent..], SendFlags::NOSIGNAL).unwrap();
            sent += count;
            assert!(pair.layer.unsent.len() < 2 * ENCRYPT_MAX);
            if count == 0 || sent == all.len() {
                assert!(pair.layer.owes() || sent == all.len());
                pair.listen();
                pair.layer.flush(pair.ours.as_fd()).unwrap();
            }
        }
        pair.layer.shut_down(pair.ours.as_fd()).unwrap();
        while pair.heard.len() < all.len() {
            pair.listen();
        }
        assert!(pair.heard == all);
        pair.layer.rest();
        assert_eq!(pair.layer.unsent.capacity() + pair.layer.plaintext.capacity(), 0);
    }

    #[test]
    fn rubbish_is_an_error_behind_what_came_before_it() {
        let mut pair = Pair::open();
        pair.say(b"fine");
        pair.theirs.write_all(b"\x17\x03\x03\x00\x20rubbish rubbish rubbish rubbish.").unwrap();
        let mut buffer = [0; 100];
        let socket = pair.ours.as_fd();
        assert_eq!(pair.layer.receive(socket, &mut buffer, &mut pair.link), Ok(Some(4)));
        assert!(pair.link.readable);
        assert_eq!(pair.layer.receive(socket, &mut buffer, &mut pair.link), Err(Errno::PROTO));
        assert!(pair.layer.error().is_some());
    }
}
