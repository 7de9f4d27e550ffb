//! What lies behind the server: groups of servers and their names, without I/O.

pub mod names;
use std::net::SocketAddr;
use std::sync::Arc;
#[derive(Debug, Clone)]
pub enum PeerAddress {
    Inet(SocketAddr),
    Unix(Box<[u8]>),
}
pub mod peer {
    pub use super::PeerAddress;
}
#[derive(Debug)]
pub struct Peer {
    pub name: Arc<str>,
    pub address: PeerAddress,
}
impl Peer {
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }
    pub fn address(&self) -> &PeerAddress {
        &self.address
    }
}
#[derive(Debug)]
pub struct Group {
    pub name: Box<str>,
    pub peers: Vec<Arc<Peer>>,
}
#[derive(Default, Debug)]
pub struct Tried(Vec<*const Peer>);
impl Tried {
    pub fn add(&mut self, p: &Arc<Peer>) {
        self.0.push(Arc::as_ptr(p))
    }
    pub fn has(&self, p: &Arc<Peer>) -> bool {
        self.0.contains(&Arc::as_ptr(p))
    }
}
pub enum Pick {
    Peer(Arc<Peer>),
    Full,
    None(&'static str),
}
impl Group {
    pub fn name(&self) -> &str {
        &self.name
    }
    pub fn has_untried(&self, t: &Tried) -> bool {
        self.peers.iter().any(|p| !t.has(p))
    }
    pub fn pick(&self, t: &Tried) -> Pick {
        self.peers.iter().find(|p| !t.has(p)).map_or(Pick::None("x"), |p| Pick::Peer(p.clone()))
    }
}

pub struct Keepalive {
    pub connections: u32,
    pub requests: u32,
    pub time_ms: u64,
    pub timeout_ms: u64,
}
impl Group {
    pub fn keepalive(&self) -> Keepalive {
        Keepalive { connections: 128, requests: 1000, time_ms: 3600000, timeout_ms: 60000 }
    }
}
impl Peer {
    pub fn safe_idle_ms(&self) -> u64 {
        1000
    }
    pub fn saw_idle_close(&self, _: u64) {}
}
