//! What workers know of each other: how many connections each holds, and how one passes fresh ones on.
//!
//! The kernel spreads connections over the workers' sockets by a hash, which is fair to many short connections and may
//! be unfair to a few long ones. A worker that holds clearly more than its share passes what it has just accepted to
//! the one that holds least.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::conf::listen::SocketPlan;
use crate::http::exchange::Endpoint;
use crate::http::site::Site;

use super::addresses::{AddressCounts, AddressPermit};
use super::counters::AllCounters;

/// A worker holding at most this many more connections than the average keeps what it accepts.
const TOLERANCE: usize = 8;

/// A connection on its way to another worker.
pub struct Handed {
    /// Its socket.
    pub socket: OwnedFd,
    /// What it was accepted for. The other worker knows its own listening socket by the address.
    pub plan: Arc<SocketPlan>,
    /// The site that the plan belongs to: during a reload the other worker may not have the address yet, or not any
    /// more.
    pub site: Arc<Site>,
    /// The client.
    pub peer: std::net::SocketAddr,
    /// Its place among those of its address.
    pub permit: Option<AddressPermit>,
}

/// One worker, as the others see it.
pub struct Peer {
    connections: AtomicUsize,
    /// `None` when the worker takes no more.
    inbox: Mutex<Option<Vec<Handed>>>,
    waker: Arc<mio::Waker>,
}

/// State that all workers share, and that outlives configurations.
#[derive(Default)]
pub struct SharedState {
    peers: RwLock<Vec<Arc<Peer>>>,
    connections_made: AtomicU64,
    /// Numbers of connections and requests.
    pub counters: AllCounters,
    /// Connections of each address, where these are limited.
    pub addresses: Arc<AddressCounts>,
}

impl std::fmt::Debug for SharedState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedState").finish_non_exhaustive()
    }
}

impl SharedState {
    /// Makes a worker known to the others.
    pub fn join(&self, waker: Arc<mio::Waker>) -> Arc<Peer> {
        let inbox = Mutex::new(Some(Vec::new()));
        let peer = Arc::new(Peer { connections: AtomicUsize::new(0), inbox, waker });
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

    /// Gives the worker a connection; gets it back when the worker winds down.
    pub fn hand(&self, handed: Handed) -> Result<(), Handed> {
        match &mut *self.inbox.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(inbox) => inbox.push(handed),
            None => return Err(handed),
        }
        self.connections.fetch_add(1, Ordering::Relaxed);
        // Should the waker fail, the worker finds the connection when something else wakes it.
        let _ = self.waker.wake();
        Ok(())
    }

    /// Takes what others have handed over.
    pub fn take_handed(&self) -> Vec<Handed> {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        inbox.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The same for the last time: later ones stay with those who would hand them over.
    pub fn close_inbox(&self) -> Vec<Handed> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default()
    }
}

/// The peer's end of a connection that was accepted.
pub fn endpoint_of(peer: Option<std::net::SocketAddr>) -> Endpoint {
    match peer {
        Some(address) => Endpoint::Inet(address),
        None => Endpoint::Unix(Box::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(shared: &SharedState, connections: usize) -> Arc<Peer> {
        let poll = mio::Poll::new().unwrap();
        let peer = shared.join(Arc::new(mio::Waker::new(poll.registry(), mio::Token(0)).unwrap()));
        peer.set_connections(connections);
        peer
    }

    #[test]
    fn a_worker_with_clearly_more_than_its_share_passes_to_the_one_with_least() {
        let shared = SharedState::default();
        let (busy, idle, other) = (worker(&shared, 100), worker(&shared, 3), worker(&shared, 50));
        let place = shared.better_place(&busy).unwrap();
        assert!(Arc::ptr_eq(&place, &idle));
        assert!(shared.better_place(&other).is_none());
        assert!(shared.better_place(&idle).is_none());
        shared.leave(&idle);
        let place = shared.better_place(&busy).unwrap();
        assert!(Arc::ptr_eq(&place, &other));
    }

    #[test]
    fn a_few_more_than_the_share_are_kept() {
        let shared = SharedState::default();
        let (more, less) = (worker(&shared, 100 + TOLERANCE), worker(&shared, 100 - TOLERANCE));
        assert!(shared.better_place(&more).is_none());
        assert!(shared.better_place(&less).is_none());
    }
}
