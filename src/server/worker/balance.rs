//! What workers know of each other: how many connections each holds, and how one passes fresh ones on.
//!
//! The kernel spreads connections over the workers' sockets by a hash, which is fair to many short connections and may
//! be unfair to a few long ones. A worker that holds clearly more than its share passes what it has just accepted to
//! the one that holds least.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::http::exchange::Endpoint;

/// A worker holding at most this many more connections than the average keeps what it accepts.
const TOLERANCE: usize = 8;

/// A connection on its way to another worker.
pub struct Handed {
    /// Its socket.
    pub socket: OwnedFd,
    /// The address of the listening socket, by which the other worker knows its own.
    pub listener: crate::conf::listen::ListenAddress,
    /// The client.
    pub peer: std::net::SocketAddr,
}

/// One worker, as the others see it.
pub struct Peer {
    connections: AtomicUsize,
    inbox: Mutex<Vec<Handed>>,
    waker: Arc<mio::Waker>,
}

/// State that all workers share, and that outlives configurations.
#[derive(Default)]
pub struct SharedState {
    peers: RwLock<Vec<Arc<Peer>>>,
    connections_made: AtomicU64,
}

impl std::fmt::Debug for SharedState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedState").finish_non_exhaustive()
    }
}

impl SharedState {
    /// Makes a worker known to the others.
    pub fn join(&self, waker: Arc<mio::Waker>) -> Arc<Peer> {
        let peer = Arc::new(Peer { connections: AtomicUsize::new(0), inbox: Mutex::new(Vec::new()), waker });
        self.peers.write().unwrap_or_else(PoisonError::into_inner).push(peer.clone());
        peer
    }

    /// A worker that winds down gets no connections any more.
    pub fn leave(&self, peer: &Arc<Peer>) {
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        peers.retain(|other| !Arc::ptr_eq(other, peer));
    }

    /// The next serial number of a connection.
    pub fn next_number(&self) -> u64 {
        self.connections_made.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The worker that a fresh connection should go to, if not to `own`.
    pub fn better_place(&self, own: &Arc<Peer>) -> Option<Arc<Peer>> {
        let mine = own.connections.load(Ordering::Relaxed);
        if mine <= TOLERANCE {
            return None;
        }
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        let total: usize = peers.iter().map(|peer| peer.connections.load(Ordering::Relaxed)).sum();
        let average = total / peers.len().max(1);
        if mine <= average + TOLERANCE + average / 16 {
            return None;
        }
        let least = peers.iter().min_by_key(|peer| peer.connections.load(Ordering::Relaxed))?;
        (!Arc::ptr_eq(least, own)).then(|| least.clone())
    }
}

impl Peer {
    /// Tells the others how many connections this worker holds.
    pub fn set_connections(&self, count: usize) {
        self.connections.store(count, Ordering::Relaxed);
    }

    /// Gives the worker a connection.
    pub fn hand(&self, handed: Handed) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).push(handed);
        // Should the waker fail, the worker finds the connection at its next turn.
        let _ = self.waker.wake();
    }

    /// Takes what others have handed over.
    pub fn take_handed(&self) -> Vec<Handed> {
        std::mem::take(&mut *self.inbox.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The peer's end of a connection that was accepted.
pub fn endpoint_of(peer: Option<std::net::SocketAddr>) -> Endpoint {
    match peer {
        Some(address) => Endpoint::Inet(address),
        None => Endpoint::Unix(Box::default()),
    }
}
