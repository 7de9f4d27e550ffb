//! TLS between the socket and the rest of a connection: handshakes, decrypting what comes, encrypting what goes.
//!
//! `Client::unsent` holds bytes of the wire, encrypted ones here; what a turn gathers (`Resources::out`) is plaintext
//! until it is sent, so that many small responses share a record and a system call.

use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::base::level::Level;
use crate::proto::tls::{Fault, KernelSecrets, KernelSuite, Received, ServerTls, TlsError, looks_like_tls};
use crate::server::worker::resources::Resources;

use super::named_certificates::Asked;
use super::serve::Consumed;
use super::transport::Transport;
use super::{Client, ClientKey, State};

/// Bytes of a body that one call encrypts: what the socket does not take of them waits encrypted, in memory of the
/// connection's own.
const ENCRYPT_MAX: usize = 64 * 1024;

/// A socket under TLS.
pub struct TlsSocket {
    /// The socket.
    pub socket: OwnedFd,
    machine: ServerTls,
    stage: Stage,
    /// The peer sends nothing more.
    ended: bool,
    /// It was told that we don't either.
    said_goodbye: bool,
    /// The kernel cannot take it over.
    stays: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing has come yet.
    Fresh,
    /// The handshake goes on.
    Handshaking,
    /// Requests may come while the handshake goes on (early data).
    Early,
    /// It is over.
    Open,
}

impl TlsSocket {
    /// A connection that was just accepted.
    pub fn new(socket: OwnedFd) -> TlsSocket {
        TlsSocket {
            socket,
            machine: ServerTls::new(),
            stage: Stage::Fresh,
            ended: false,
            said_goodbye: false,
            stays: false,
        }
    }

    /// See [`Transport::has_ended`].
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether requests can come.
    pub fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Early | Stage::Open)
    }

    /// Decrypts what was read in an open connection.
    pub fn decrypt(
        &mut self,
        mut input: &[u8],
        plaintext: &mut Vec<u8>,
        unsent: &mut Vec<u8>,
    ) -> Result<(), Errno> {
        match self.machine.receive(&mut input, plaintext, unsent) {
            Ok(received) => {
                self.ended |= received == Received::Closed;
                Ok(())
            }
            Err(_) => Err(Errno::CONNRESET),
        }
    }

    /// Encrypts and sends some of the bytes; 0 while earlier ones wait for the socket.
    pub fn send(&mut self, bytes: &[u8], unsent: &mut Vec<u8>) -> Result<usize, Errno> {
        if !self.flush(unsent, SendFlags::NOSIGNAL)? {
            return Ok(0);
        }
        let taken = bytes.len().min(ENCRYPT_MAX);
        self.machine.write(&bytes[..taken], unsent);
        self.flush(unsent, SendFlags::NOSIGNAL)?;
        Ok(taken)
    }

    /// Sends what waits for the socket; whether nothing is left of it.
    pub fn flush(&self, unsent: &mut Vec<u8>, flags: SendFlags) -> Result<bool, Errno> {
        if unsent.is_empty() {
            return Ok(true);
        }
        let count = self.send_raw(unsent, flags)?;
        match count < unsent.len() {
            true => drop(unsent.drain(..count)),
            false => *unsent = Vec::new(),
        }
        Ok(unsent.is_empty())
    }

    /// Appends the notice that nothing more comes (`close_notify`), once.
    pub fn say_goodbye(&mut self, unsent: &mut Vec<u8>) {
        if self.is_open() && !std::mem::replace(&mut self.said_goodbye, true) {
            self.machine.close(unsent);
        }
    }

    /// What the kernel must know to take the connection over, if it may.
    pub fn kernel_suite(&self) -> Option<KernelSuite> {
        let may = self.stage == Stage::Open && !self.ended && !self.said_goodbye && !self.stays;
        may.then(|| self.machine.kernel_suite()).flatten()
    }

    /// The kernel cannot take it over, and is not asked again.
    pub fn stay(&mut self) {
        self.stays = true;
    }

    /// The socket, and what the kernel needs to go on. See [`ServerTls::into_kernel`].
    pub fn into_kernel(mut self) -> (OwnedFd, Result<KernelSecrets, TlsError>) {
        let secrets = self.machine.into_kernel();
        (self.socket, secrets)
    }

    /// As many of the bytes as the socket takes.
    fn send_raw(&self, bytes: &[u8], flags: SendFlags) -> Result<usize, Errno> {
        let mut done = 0;
        while done < bytes.len() {
            match rustix::net::send(self.socket.as_fd(), &bytes[done..], flags) {
                Ok(count) => done += count,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

impl Client {
    /// Whether the TLS handshake has not come so far that requests may.
    pub fn is_handshaking(&self) -> bool {
        matches!(&self.transport, Transport::Tls(tls) if !tls.is_open())
    }

    /// Takes what was read from the socket.
    pub(super) fn take_encrypted(
        &mut self,
        mut input: &[u8],
        key: ClientKey,
        res: &mut Resources,
    ) -> Consumed {
        if matches!(self.state, State::ProxyHeader(_)) {
            match self.read_proxy_header(&mut input, res) {
                Ok(true) => {}
                Ok(false) => return Consumed::All,
                Err(()) => return Consumed::Close,
            }
        }
        let Some(first) = input.first() else { return Consumed::All };
        let Transport::Tls(tls) = &mut self.transport else { return self.consume(input, false, key, res) };
        if tls.stage == Stage::Fresh {
            if !looks_like_tls(*first) {
                // Plain HTTP: the request is read and answered with nginx's status 497.
                self.facts.lacks_tls = true;
                self.transport.drop_tls();
                return self.consume(input, false, key, res);
            }
            tls.stage = Stage::Handshaking;
        }
        let mut plaintext = std::mem::take(&mut res.plaintext);
        plaintext.clear();
        let result = self.decrypt(&mut input, &mut plaintext, key, res);
        let consumed = self.take_decrypted(result, &plaintext, key, res);
        res.plaintext = plaintext;
        consumed
    }

    /// Feeds the machine; the configuration is chosen when the ClientHello is there.
    fn decrypt(
        &mut self,
        input: &mut &[u8],
        plaintext: &mut Vec<u8>,
        key: ClientKey,
        res: &mut Resources,
    ) -> Result<(), TlsError> {
        loop {
            let Transport::Tls(tls) = &mut self.transport else { return Ok(()) };
            match tls.machine.receive(input, plaintext, &mut self.unsent)? {
                Received::NeedMore => break,
                Received::Closed => {
                    tls.ended = true;
                    self.flags.unread = true;
                    break;
                }
                Received::Hello => self.choose_tls(res)?,
            }
        }
        self.note_handshake(key, res);
        Ok(())
    }

    /// Chooses the server whose certificates and rules the handshake is made with.
    fn choose_tls(&mut self, res: &mut Resources) -> Result<(), TlsError> {
        let (site, address) = (res.site_of(self), res.address_of(self));
        let Transport::Tls(tls) = &self.transport else { return Ok(()) };
        let hello = tls.machine.hello();
        let name = hello.as_ref().and_then(|hello| hello.server_name);
        let Some((server, server_tls)) = site.tls_server(address, name) else {
            return Err(TlsError::new(Fault::Internal, "no certificate is configured"));
        };
        let with_http2 = site.speaks_http2(address, server);
        let config = match server_tls.is_dynamic() {
            true => {
                let asked = Asked { site: &site, address, tls: server_tls, with_http2 };
                self.named_certificates(&asked, hello.as_ref(), res)?
            }
            false => Arc::clone(server_tls.config(with_http2)),
        };
        let Transport::Tls(tls) = &mut self.transport else { return Ok(()) };
        tls.machine.choose(&config, &mut self.unsent)
    }

    /// Learns what the handshake agreed upon, once requests may come.
    fn note_handshake(&mut self, key: ClientKey, res: &mut Resources) {
        let Transport::Tls(tls) = &mut self.transport else { return };
        if !tls.is_open() {
            let Some(facts) = tls.machine.facts() else { return };
            tls.stage = if facts.early_data.get() { Stage::Early } else { Stage::Open };
            self.facts.secure = true;
            let is_http2 = &*facts.alpn == b"h2";
            self.facts.tls = Some(Rc::new(facts));
            if is_http2 {
                self.begin_multiplexing(key, res);
            }
        } else if tls.stage == Stage::Early && !tls.machine.is_handshaking() {
            tls.stage = Stage::Open;
            if let Some(facts) = &self.facts.tls {
                facts.early_data.set(false);
            }
        }
    }

    /// Sends what the handshake has to say, and gives the plaintext to whatever the connection is doing.
    fn take_decrypted(
        &mut self,
        result: Result<(), TlsError>,
        plaintext: &[u8],
        key: ClientKey,
        res: &mut Resources,
    ) -> Consumed {
        let consumed = match plaintext.is_empty() {
            true => Consumed::All,
            false => self.consume(plaintext, false, key, res),
        };
        if let Err(error) = result {
            self.log_tls_error(&error, res);
            // The alert; what is lost of it, is.
            let _ = self.flush(res);
            return Consumed::Close;
        }
        if matches!(consumed, Consumed::Close) || self.unsent.is_empty() || self.flags.owes {
            return consumed;
        }
        match self.flush(res) {
            Ok(_) => consumed,
            Err(_) => Consumed::Close,
        }
    }

    /// In nginx's words; most is the client's fault and of little interest.
    fn log_tls_error(&mut self, error: &TlsError, res: &mut Resources) {
        let level = match error.fault {
            Fault::Internal => Level::Crit,
            _ => Level::Info,
        };
        match self.is_handshaking() {
            true => {
                let message = format_args!("SSL_do_handshake() failed (SSL: {error}) while SSL handshaking");
                res.log_connection(self, level, message);
            }
            false => res.log_connection(self, level, format_args!("SSL_read() failed (SSL: {error})")),
        }
    }

    /// The TLS part of [`Client::send_with`].
    pub(super) fn send_encrypted(
        &mut self,
        piece: &[u8],
        flags: SendFlags,
        res: &mut Resources,
    ) -> Result<usize, Errno> {
        let Transport::Tls(tls) = &mut self.transport else { return Err(Errno::NOTCONN) };
        if self.flags.owes {
            self.flags.owes = !tls.flush(&mut self.unsent, flags)?;
            if self.flags.owes {
                self.encrypt_gathered(res);
                return Ok(0);
            }
        }
        let taken = piece.len().min(ENCRYPT_MAX);
        let wire = &mut res.ciphertext;
        wire.clear();
        // What the handshake has to say shares the packet.
        if !self.unsent.is_empty() {
            wire.append(&mut self.unsent);
            self.unsent = Vec::new();
        }
        tls.machine.write_vectored(&[IoSlice::new(&res.out), IoSlice::new(&piece[..taken])], wire);
        res.out.clear();
        let sent = tls.send_raw(wire, flags)?;
        if sent < wire.len() {
            self.unsent.extend_from_slice(&wire[sent..]);
            self.flags.owes = true;
        }
        Ok(taken)
    }

    /// What was gathered joins what waits for the socket.
    pub(super) fn encrypt_gathered(&mut self, res: &mut Resources) {
        if let Transport::Tls(tls) = &mut self.transport
            && !res.out.is_empty()
        {
            tls.machine.write(&res.out, &mut self.unsent);
            res.out.clear();
        }
    }

    /// Says that nothing more comes, behind what was gathered. It is not sent yet.
    pub(super) fn say_goodbye(&mut self, res: &mut Resources) {
        self.encrypt_gathered(res);
        match &mut self.transport {
            Transport::Tls(tls) => tls.say_goodbye(&mut self.unsent),
            Transport::Kernel(kernel) => kernel.owe_goodbye(),
            _ => {}
        }
    }

    /// The same for a connection that is closed with nothing under way: as much of it as the socket takes.
    pub(super) fn part(&mut self) {
        if !self.unsent.is_empty() || self.flags.reset {
            return;
        }
        // Nobody waits for it.
        match &mut self.transport {
            Transport::Tls(tls) => {
                tls.say_goodbye(&mut self.unsent);
                let _ = tls.flush(&mut self.unsent, SendFlags::NOSIGNAL);
            }
            Transport::Kernel(kernel) => {
                kernel.owe_goodbye();
                let _ = kernel.say_goodbye();
            }
            _ => {}
        }
    }
}
