//! Ports that stay ours: a bound socket that does not listen keeps the kernel from giving the number to anyone else,
//! and `SO_REUSEADDR` lets the server under test bind and listen on it all the same.

use socket2::{Domain, Protocol, Socket, Type};
use std::net::{Ipv4Addr, SocketAddr};

/// A TCP port on every IPv4 address that nobody else is given while this lives.
pub struct Reserved {
    _socket: Socket,
    port: u16,
}

impl Reserved {
    /// Takes a free port from the kernel.
    pub fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("socket");
        // Set after binding, the kernel would have shared a port in use; set before, bind(0) may reuse one whose
        // owner also has the flag. So: bind without, then allow the server to join.
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into()).expect("bind to a free port");
        socket.set_reuse_address(true).expect("SO_REUSEADDR");
        let port = socket.local_addr().expect("address").as_socket().expect("IPv4").port();
        Self { _socket: socket, port }
    }

    /// The number.
    pub fn port(&self) -> u16 {
        self.port
    }
}
