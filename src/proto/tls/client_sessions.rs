//! Sessions with upstreams, to be taken up again: what `proxy_ssl_session_reuse` keeps.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

/// Peers whose sessions one configuration keeps; the one that was first there gives way.
const MOST_PEERS: usize = 1024;
/// Tickets of one peer, each good once (RFC 8446, appendix C.4).
const MOST_TICKETS: usize = 8;

/// By peer and name.
type Key = (Arc<str>, ServerName<'static>);

/// All sessions of one configuration.
#[derive(Default)]
pub struct ClientSessions(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    peers: HashMap<Key, Sessions>,
    /// The keys in the order in which they came.
    order: VecDeque<Key>,
    /// How often they were all forgotten.
    generation: u64,
}

#[derive(Default)]
struct Sessions {
    group: Option<NamedGroup>,
    tls12: Option<Tls12ClientSessionValue>,
    tls13: VecDeque<Tls13ClientSessionValue>,
}

impl std::fmt::Debug for ClientSessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientSessions")
    }
}

impl ClientSessions {
    /// Forgets them all, and those that connections bring which began before: they are with the same certificate.
    pub fn clear(&self) {
        let mut kept = self.lock();
        *kept = Kept { generation: kept.generation + 1, ..Kept::default() };
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Kept {
    fn of(&mut self, key: Key) -> &mut Sessions {
        if !self.peers.contains_key(&key) {
            if self.order.len() >= MOST_PEERS
                && let Some(oldest) = self.order.pop_front()
            {
                self.peers.remove(&oldest);
            }
            self.order.push_back(key.clone());
        }
        self.peers.entry(key).or_default()
    }
}

/// The sessions as one connection's peer sees them.
#[derive(Debug)]
pub struct PeerSessions {
    all: Arc<ClientSessions>,
    peer: Arc<str>,
    /// That of the sessions when the connection began.
    generation: u64,
}

impl PeerSessions {
    /// Those with this peer.
    pub fn new(all: &Arc<ClientSessions>, peer: &str) -> PeerSessions {
        PeerSessions { all: Arc::clone(all), peer: peer.into(), generation: all.lock().generation }
    }

    fn key(&self, name: &ServerName<'_>) -> Key {
        (Arc::clone(&self.peer), name.to_owned())
    }

    fn change(&self, name: ServerName<'static>, change: impl FnOnce(&mut Sessions)) {
        let mut kept = self.all.lock();
        if kept.generation == self.generation {
            change(kept.of((Arc::clone(&self.peer), name)));
        }
    }

    fn look<T>(&self, name: &ServerName<'_>, look: impl FnOnce(&mut Sessions) -> Option<T>) -> Option<T> {
        look(self.all.lock().peers.get_mut(&self.key(name))?)
    }
}

impl ClientSessionStore for PeerSessions {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.change(name, |sessions| sessions.group = Some(group));
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.look(name, |sessions| sessions.group)
    }

    fn set_tls12_session(&self, name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.change(name, |sessions| sessions.tls12 = Some(value));
    }

    fn tls12_session(&self, name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.look(name, |sessions| sessions.tls12.clone())
    }

    fn remove_tls12_session(&self, name: &ServerName<'static>) {
        self.look(name, |sessions| sessions.tls12.take());
    }

    fn insert_tls13_ticket(&self, name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.change(name, |sessions| {
            if sessions.tls13.len() == MOST_TICKETS {
                sessions.tls13.pop_front();
            }
            sessions.tls13.push_back(value);
        });
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.look(name, |sessions| sessions.tls13.pop_back())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_that_share_a_name_are_told_apart_and_their_number_is_bounded() {
        let all = Arc::new(ClientSessions::default());
        let name = ServerName::try_from("example.com").unwrap();
        let group = NamedGroup::X25519;
        let first = PeerSessions::new(&all, "10.0.0.1:443");
        first.set_kx_hint(name.clone(), group);
        assert_eq!(first.kx_hint(&name), Some(group));
        assert_eq!(PeerSessions::new(&all, "10.0.0.2:443").kx_hint(&name), None);
        for number in 0..MOST_PEERS {
            PeerSessions::new(&all, &number.to_string()).set_kx_hint(name.clone(), group);
        }
        assert_eq!(first.kx_hint(&name), None);
        assert_eq!(all.lock().peers.len(), MOST_PEERS);
        assert_eq!(all.lock().order.len(), MOST_PEERS);
    }

    #[test]
    fn what_was_forgotten_is_not_brought_back_by_connections_from_before() {
        let all = Arc::new(ClientSessions::default());
        let name = ServerName::try_from("example.com").unwrap();
        let before = PeerSessions::new(&all, "a");
        before.set_kx_hint(name.clone(), NamedGroup::X25519);
        all.clear();
        before.set_kx_hint(name.clone(), NamedGroup::X25519);
        let after = PeerSessions::new(&all, "a");
        assert_eq!(after.kx_hint(&name), None);
        after.set_kx_hint(name.clone(), NamedGroup::X25519);
        assert_eq!(after.kx_hint(&name), Some(NamedGroup::X25519));
    }
}
