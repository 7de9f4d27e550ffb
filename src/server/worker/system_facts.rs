//! What only the system can tell, for the few variables that show it.

use std::cell::Cell;
use std::ffi::OsStr;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use crate::http::context::{ConnectionCounts, SystemFacts, TcpInfo};
use crate::http::exchange::{ConnectionFacts, Endpoint};
use crate::server::sys;

use super::balance::SharedState;

/// The socket of the connection whose turn it is, shared with the loop, which sets it at the start of each turn.
#[derive(Clone, Debug, Default)]
pub struct CurrentSocket(Rc<Cell<Option<RawFd>>>);

impl CurrentSocket {
    /// The turn of the connection with this socket begins.
    pub fn set(&self, socket: RawFd) {
        self.0.set(Some(socket));
    }
}

/// A worker's way to the system.
pub struct WorkerSystem {
    socket: CurrentSocket,
    shared: Arc<SharedState>,
}

impl WorkerSystem {
    /// Asks about the socket that `socket` names, and about all workers of `shared`.
    pub fn new(socket: CurrentSocket, shared: Arc<SharedState>) -> WorkerSystem {
        WorkerSystem { socket, shared }
    }
}

impl SystemFacts for WorkerSystem {
    fn real_path(&mut self, path: &[u8], out: &mut Vec<u8>) -> Result<(), i32> {
        match std::fs::canonicalize(Path::new(OsStr::from_bytes(path))) {
            Ok(real) => {
                out.extend_from_slice(real.as_os_str().as_bytes());
                Ok(())
            }
            Err(error) => Err(error.raw_os_error().unwrap_or(libc::EIO)),
        }
    }

    fn tcp_info(&mut self, connection: &ConnectionFacts) -> Option<TcpInfo> {
        if matches!(connection.peer, Endpoint::Unix(_)) {
            return None;
        }
        let info = sys::tcp_info(self.socket.0.get()?).ok()?;
        Some(TcpInfo {
            round_trip_us: info.tcpi_rtt,
            round_trip_variation_us: info.tcpi_rttvar,
            send_window: info.tcpi_snd_cwnd,
            receive_space: info.tcpi_rcv_space,
        })
    }

    fn connections(&self) -> ConnectionCounts {
        self.shared.counters.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    fn facts(peer: Endpoint) -> ConnectionFacts {
        ConnectionFacts {
            number: 1,
            requests: 1,
            accepted_ms: 1,
            local: peer.clone(),
            peer,
            proxy_protocol: None,
            secure: false,
            lacks_tls: false,
            tls: None,
        }
    }

    #[test]
    fn the_kernel_tells_about_the_connection_whose_turn_it_is() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _client = TcpStream::connect(address).unwrap();
        let (socket, peer) = listener.accept().unwrap();
        let current = CurrentSocket::default();
        let mut system = WorkerSystem::new(current.clone(), Arc::default());
        let connection = facts(Endpoint::Inet(peer));
        assert_eq!(system.tcp_info(&connection), None);
        current.set(socket.as_raw_fd());
        let info = system.tcp_info(&connection).unwrap();
        assert!(info.round_trip_us > 0 && info.send_window > 0 && info.receive_space > 0, "{info:?}");
        assert_eq!(system.tcp_info(&facts(Endpoint::Unix(Box::default()))), None);
        // A listening socket has no measures worth a look, a file none at all.
        current.set(tempfile::tempfile().unwrap().as_raw_fd());
        assert_eq!(system.tcp_info(&facts(Endpoint::Inet(SocketAddr::from(([127, 0, 0, 1], 1))))), None);
    }

    #[test]
    fn links_are_resolved_and_what_is_missing_has_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        std::os::unix::fs::symlink(&real, real.join("link")).unwrap();
        let mut system = WorkerSystem::new(CurrentSocket::default(), Arc::default());
        let mut out = b"before:".to_vec();
        system.real_path(real.join("link/../").as_os_str().as_bytes(), &mut out).unwrap();
        let parent = real.parent().unwrap().as_os_str().as_bytes();
        assert_eq!(out, [b"before:", parent].concat());
        out.clear();
        let missing = real.join("none");
        assert_eq!(system.real_path(missing.as_os_str().as_bytes(), &mut out), Err(libc::ENOENT));
        assert!(out.is_empty());
    }
}
