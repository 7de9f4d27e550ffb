//! Sockets of the scripted peers: of this machine, mostly Unix sockets, which deliver within the system call.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

/// Where somebody listens.
#[derive(Clone, Debug)]
pub enum Address {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

impl Address {
    /// One that nobody has.
    pub fn new(folder: &Path, name: &str, is_tcp: bool) -> Address {
        if !is_tcp {
            return Address::Unix(folder.join(name));
        }
        let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Address::Tcp(probe.local_addr().unwrap())
    }

    fn parts(&self) -> (Domain, SockAddr) {
        match self {
            Address::Unix(path) => (Domain::UNIX, SockAddr::unix(path).unwrap()),
            Address::Tcp(address) => (Domain::IPV4, SockAddr::from(*address)),
        }
    }

    /// A listening socket; `None` if somebody took the address meanwhile.
    pub fn listen(&self) -> Option<Socket> {
        let (domain, address) = self.parts();
        let socket = Socket::new(domain, Type::STREAM, None).unwrap();
        match self {
            Address::Unix(path) => drop(std::fs::remove_file(path)),
            Address::Tcp(_) => socket.set_reuse_address(true).unwrap(),
        }
        socket.bind(&address).ok()?;
        socket.listen(128).ok()?;
        socket.set_nonblocking(true).unwrap();
        Some(socket)
    }

    /// A connection; the kernel completes it without the other side.
    pub fn connect(&self, receive_buffer: Option<usize>) -> Line {
        let (domain, address) = self.parts();
        let socket = Socket::new(domain, Type::STREAM, None).unwrap();
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        socket.connect(&address).unwrap();
        Line::new(socket)
    }

    /// As the configuration names it.
    pub fn written(&self) -> String {
        match self {
            Address::Unix(path) => format!("unix:{}", path.display()),
            Address::Tcp(address) => address.to_string(),
        }
    }
}

/// A connection.
pub struct Line(Socket);

impl Line {
    pub fn new(socket: Socket) -> Line {
        socket.set_nonblocking(true).unwrap();
        // Unix sockets have no such option.
        let _ = socket.set_tcp_nodelay(true);
        Line(socket)
    }

    /// Ends it as if the peer had crashed, as far as its kind knows that.
    pub fn reset(self) {
        let _ = self.0.set_linger(Some(Duration::ZERO));
    }

    /// Sends up to `most` bytes; how many went, `None` if the connection is gone.
    pub fn send(&mut self, bytes: &[u8], most: usize) -> Option<usize> {
        match self.0.write(&bytes[..bytes.len().min(most)]) {
            Ok(count) => Some(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Some(0),
            Err(_) => None,
        }
    }

    /// Reads up to `most` bytes; `None` if nothing more comes.
    pub fn read(&mut self, most: usize, into: &mut Vec<u8>) -> Option<usize> {
        let before = into.len();
        into.resize(before + most, 0);
        let result = self.0.read(&mut into[before..]);
        into.truncate(before + *result.as_ref().unwrap_or(&0));
        match result {
            Ok(0) => None,
            Ok(count) => Some(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Some(0),
            Err(_) => None,
        }
    }
}
