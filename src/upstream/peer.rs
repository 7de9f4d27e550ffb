//! One server at one address.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use super::plan::PeerPlan;
use super::state::PeerState;
use super::sticky;

/// Where a peer is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PeerAddress {
    /// TCP.
    Inet(SocketAddr),
    /// The path of a Unix socket.
    Unix(Box<[u8]>),
}

/// As `$upstream_addr` shows it: `127.0.0.1:80`, `[::1]:80`, `unix:/path`.
impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerAddress::Inet(address) => address.fmt(f),
            PeerAddress::Unix(path) => write!(f, "unix:{}", String::from_utf8_lossy(path)),
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Peer {
    pub(super) name: Arc<str>,
    pub(super) address: PeerAddress,
    /// The identifier that `sticky` knows it by.
    pub(super) id: Arc<str>,
    /// Position of its `server` in the plan.
    pub(super) plan_index: usize,
    /// What the configuration says, with the share and the rank that a service record gave.
    pub(super) plan: PeerPlan,
    pub(super) state: Arc<PeerState>,
}

impl Peer {
    pub(super) fn new(
        plan_index: usize,
        plan: PeerPlan,
        address: PeerAddress,
        state: Arc<PeerState>,
    ) -> Peer {
        let name: Arc<str> = address.to_string().into();
        let id = match &plan.route {
            Some(route) => Arc::from(&**route),
            None => sticky::id_of(&name),
        };
        Peer { name, address, id, plan_index, plan, state }
    }

    /// As `$upstream_addr` shows it.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Where to connect to.
    pub fn address(&self) -> &PeerAddress {
        &self.address
    }

    /// The `server` as written.
    pub fn server(&self) -> &str {
        &self.plan.server
    }

    /// The identifier that `sticky` knows it by: its `route`, else the MD5 of its name in hexadecimal digits.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// What the configuration says of it.
    pub fn plan(&self) -> &PeerPlan {
        &self.plan
    }

    /// What is known of it: counts, times, standing. For status pages and tests.
    pub fn state(&self) -> &PeerState {
        &self.state
    }

    /// A number that the same server at the same address has over reloads, and no other peer has as long as it is held.
    pub fn key(&self) -> usize {
        Arc::as_ptr(&self.state) as usize
    }

    /// Whether the two are the same server at the same address, also over a reload.
    pub fn is_same(&self, other: &Peer) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }

    /// Milliseconds for which an idle connection to it may be trusted with a request that must not be sent twice; see
    /// `server::relay::idle`.
    pub fn safe_idle_ms(&self) -> u64 {
        self.state.patience.safe_ms()
    }

    /// It said that it keeps idle connections for so many seconds (`Keep-Alive: timeout=N`).
    pub fn learn_keep_alive(&self, secs: u64) {
        self.state.patience.announced(secs);
    }

    /// It closed a connection that had been idle for so many milliseconds.
    pub fn saw_idle_close(&self, idle_ms: u64) {
        self.state.patience.closed_after(idle_ms);
    }

    /// It answered a request on a connection that had been idle for so many milliseconds.
    pub fn saw_idle_reuse(&self, idle_ms: u64) {
        self.state.patience.kept(idle_ms);
    }
}

/// The peers that one request was sent to.
#[derive(Clone, Default, Debug)]
pub struct Tried(SmallVec<[Arc<Peer>; 4]>);

impl Tried {
    /// Adds one.
    pub fn add(&mut self, peer: &Arc<Peer>) {
        if !self.has(peer) {
            self.0.push(peer.clone());
        }
    }

    /// Whether it is one of them.
    pub fn has(&self, peer: &Peer) -> bool {
        self.0.iter().any(|tried| tried.is_same(peer))
    }

    /// Forgets them.
    #[cfg(test)]
    pub fn clear(&mut self) {
        self.0.clear();
    }
}
