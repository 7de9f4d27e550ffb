//! TLS between the socket of a connection to a peer and whatever reads and writes it.
//!
//! What was decrypted and not asked for yet, and what was encrypted and not sent yet, waits here; both are bounded by what
//! one call moves, and an idle connection holds neither.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};

use crate::http::upstream_call::CallTls;
use crate::proto::tls::{ClientTls, ClientTlsConfig, Received, TlsError};

use super::connection::send;
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
            let count = match self.read(socket, buffer, link).map_err(HandshakeFailure::Socket)? {
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

    /// One `recv`; `None` when there is nothing now.
    fn read(
        &self,
        socket: BorrowedFd<'_>,
        buffer: &mut [u8],
        link: &mut Link,
    ) -> Result<Option<usize>, Errno> {
        loop {
            match rustix::net::recv(socket, &mut *buffer, RecvFlags::empty()) {
                Ok((count, _)) => {
                    link.readable = count == buffer.len() || link.read_closed;
                    return Ok(Some(count));
                }
                Err(Errno::AGAIN) => {
                    link.readable = false;
                    return Ok(None);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
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
            let count = match self.read(socket, buffer, link)? {
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

    /// See [`super::connection::Connection::shut_down`].
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
#[derive(Debug)]
pub enum HandshakeFailure {
    /// The peer closed before it was over.
    Closed,
    /// The socket failed.
    Socket(Errno),
    /// Both sides did not come to terms.
    Tls(TlsError),
}
