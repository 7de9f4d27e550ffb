//! One connection to a peer: its socket, TLS where there is any, its link to the poll, its wire machine.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::http::upstream_call::{CallTls, Conduct, LocalAddress};
use crate::server::sys;
use crate::upstream::peer::PeerAddress;

use super::failure::told;
use super::links::{Link, LinkKey, Links, Owner};
use super::tls::TlsLayer;
use super::wire::Wire;

/// See the module's documentation.
#[derive(Debug)]
pub struct Connection {
    /// Its socket.
    pub socket: OwnedFd,
    /// What lies between the socket and the wire machine, if anything does.
    pub tls: Option<Box<TlsLayer>>,
    /// Its link.
    pub link: LinkKey,
    /// Its wire machine.
    pub wire: Wire,
    /// Monotonic milliseconds when it was opened.
    pub opened_ms: u64,
    /// Requests that were sent on it.
    pub requests: u32,
}

/// Opens a socket and begins to connect it; the handshake may be under way still when this returns.
///
/// # Errors
/// No descriptor, no such address of ours, or the kernel refused at once (a Unix socket that nobody listens on).
pub fn open(
    address: &PeerAddress,
    local: Option<LocalAddress>,
    conduct: &Conduct,
) -> std::io::Result<OwnedFd> {
    let (domain, target) = match address {
        PeerAddress::Inet(address) => (Domain::for_address(*address), SockAddr::from(*address)),
        PeerAddress::Unix(path) => {
            (Domain::UNIX, SockAddr::unix(std::path::Path::new(std::str::from_utf8(path).map_err(invalid)?))?)
        }
    };
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), None)?;
    if matches!(address, PeerAddress::Inet(_)) {
        // A request's last segment must not wait for the peer's delayed acknowledgement.
        socket.set_tcp_nodelay(true)?;
        if matches!(address, PeerAddress::Inet(address) if address.ip().is_loopback()) {
            sys::set_loopback_congestion(&socket);
        }
        if conduct.socket_keepalive {
            socket.set_keepalive(true)?;
        }
        if let Some(local) = local {
            bind(&socket, local)?;
        }
    }
    if conduct.socket_rcvbuf > 0 {
        socket.set_recv_buffer_size(conduct.socket_rcvbuf)?;
    }
    if conduct.socket_sndbuf > 0 {
        socket.set_send_buffer_size(conduct.socket_sndbuf)?;
    }
    match socket.connect(&target) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}

fn invalid<E>(_: E) -> std::io::Error {
    std::io::ErrorKind::InvalidInput.into()
}

/// `proxy_bind`. Without a port of its own the kernel chooses one at `connect`, so that a local address is not limited
/// to as many connections as it has ports.
fn bind(socket: &Socket, local: LocalAddress) -> std::io::Result<()> {
    if local.transparent {
        match local.address {
            SocketAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
            SocketAddr::V6(_) => sys::set_ipv6_transparent(socket)?,
        }
    }
    if local.address.port() == 0 {
        // An older kernel lacks it and binds to a port at once: no harm.
        let _ = sys::set_bind_address_no_port(socket);
    }
    socket.bind(&SockAddr::from(local.address))
}

impl Connection {
    /// A connection on a socket that was just opened.
    ///
    /// # Errors
    /// The poll does not take it.
    pub fn new(
        socket: OwnedFd,
        wire: Wire,
        owner: Owner,
        links: &mut Links,
        registry: &mio::Registry,
        now_ms: u64,
    ) -> std::io::Result<Connection> {
        let link = links.open(registry, &socket, owner)?;
        Ok(Connection { socket, tls: None, link, wire, opened_ms: now_ms, requests: 0 })
    }

    /// The error that the kernel holds for it, for example of the handshake.
    pub fn take_error(&self) -> Option<std::io::Error> {
        SockRef::from(&self.socket).take_error().ok().flatten()
    }

    /// Whether it is still open and silent, asked of the kernel: what an idle connection must be to be used again.
    pub fn is_silent(&self) -> bool {
        if self.tls.as_ref().is_some_and(|tls| tls.has_more()) {
            return false;
        }
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        matches!(rustix::net::recv(self.socket.as_fd(), &mut [0u8; 1][..], flags), Err(Errno::AGAIN))
    }

    /// Whether requests with this TLS may go over it.
    pub fn suits(&self, tls: Option<&CallTls>) -> bool {
        match (&self.tls, tls) {
            (None, None) => true,
            (Some(layer), Some(tls)) => **layer.call() == *tls,
            _ => false,
        }
    }

    /// Reads into `buffer`; `None` when there is nothing now, `Some(0)` at the end.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn receive(&mut self, buffer: &mut [u8], links: &mut Links) -> Result<Option<usize>, Errno> {
        let Some(link) = links.get(self.link) else { return Err(Errno::BADF) };
        if !link.readable {
            return Ok(None);
        }
        if let Some(tls) = &mut self.tls {
            return tls.receive(self.socket.as_fd(), buffer, link);
        }
        receive(self.socket.as_fd(), buffer, link)
    }

    /// Sends some of `bytes`; 0 if the socket takes nothing now.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn send(&mut self, bytes: &[u8], more: bool, links: &mut Links) -> Result<usize, Errno> {
        let flags = if more { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL };
        let result = match &mut self.tls {
            None => send(self.socket.as_fd(), bytes, flags),
            Some(tls) => tls.send(self.socket.as_fd(), bytes, flags),
        };
        if let (Ok(0), Some(link)) = (&result, links.get(self.link)) {
            link.writable = false;
        }
        result
    }

    /// Whether something that [`Connection::send`] took waits for the socket.
    pub fn owes(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.owes())
    }

    /// Sends what waits for the socket, as much as it takes.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn flush(&mut self) -> Result<(), Errno> {
        match &mut self.tls {
            None => Ok(()),
            Some(tls) => tls.flush(self.socket.as_fd()),
        }
    }

    /// Whether the end came without the peer saying within TLS that it is one: somebody may have cut the rest off.
    pub fn was_cut(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.was_cut())
    }

    /// An error of the connection for the log, in nginx's form: `recv() failed (104: Connection reset by peer)`.
    pub fn told(&self, call: Call, error: Errno) -> String {
        let (plain, secure) = match call {
            Call::Receive => ("recv", "SSL_read"),
            Call::Send => ("send", "SSL_write"),
        };
        match self.tls.as_ref().and_then(|tls| tls.error()) {
            Some(error) => format!("{secure}() failed (SSL: {error})"),
            None => format!("{plain}() failed ({})", told(error)),
        }
    }

    /// Memory that only a request needs is given back.
    pub fn rest(&mut self) {
        self.wire.rest();
        if let Some(tls) = &mut self.tls {
            tls.rest();
        }
    }

    /// Closes it.
    pub fn close(mut self, links: &mut Links) {
        if let Some(tls) = &mut self.tls {
            tls.part(self.socket.as_fd());
        }
        links.close(self.link);
    }
}

/// What went wrong while this was done: see [`Connection::told`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Reading.
    Receive,
    /// Writing.
    Send,
}

/// Reads into `buffer` and notes whether there may be more; `None` when there is nothing now, `Some(0)` at the end.
pub(super) fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    link: &mut Link,
) -> Result<Option<usize>, Errno> {
    loop {
        match rustix::net::recv(socket, &mut *buffer, RecvFlags::empty()) {
            Ok((count, _)) => {
                // A short read emptied the socket; the end that came with it brings no event of its own.
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

/// Sends as many of the bytes as the socket takes in one go; 0 if it takes none.
pub(super) fn send(socket: BorrowedFd<'_>, bytes: &[u8], flags: SendFlags) -> Result<usize, Errno> {
    loop {
        match rustix::net::send(socket, bytes, flags) {
            Err(Errno::AGAIN) => return Ok(0),
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}
