//! Idle connections to peers, between two requests.
//!
//! Each group has a pool per worker, with as many places as its `keepalive` says; the one that was idle longest makes
//! room. A connection on which anything happens while it is idle is closed at once: the peer closed it, or sent what
//! nobody asked for.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use foldhash::fast::FixedState;

use crate::http::site::LocationId;
use crate::http::upstream_call::Call;
use crate::upstream::{Group, Peer};

use super::connection::Connection;
use super::links::{LinkKey, Links, Owner};

/// A connection that waits for a request.
struct Idle {
    peer: Arc<Peer>,
    connection: Connection,
    /// Monotonic milliseconds when its last request ended.
    since_ms: u64,
}

/// The pool of one group.
struct Pool {
    group: Arc<Group>,
    /// Those idle longest in front.
    idle: VecDeque<Idle>,
}

/// Names a pool: its group, and the location that its connections are for (`keepalive ... local`; 0 for any).
pub(super) type Place = (usize, u32);

pub(super) fn place_of(group: &Group, location: LocationId) -> Place {
    (group.key(), if group.keepalive().local { location.0 } else { 0 })
}

/// All idle connections of a worker.
pub struct IdleConnections {
    /// By [`Group::key`], so that they outlive reloads, and by location where connections are for one alone.
    pools: HashMap<Place, Pool, FixedState>,
    /// No connection is idle too long before that, in monotonic milliseconds.
    next_ms: u64,
}

impl Default for IdleConnections {
    fn default() -> IdleConnections {
        IdleConnections { pools: HashMap::default(), next_ms: u64::MAX }
    }
}

impl IdleConnections {
    /// When [`IdleConnections::sweep`] may have something to do, in monotonic milliseconds.
    pub fn next_deadline_ms(&self) -> u64 {
        self.next_ms
    }

    /// Closes the connections of all groups but those with these keys ([`Group::key`]): a new configuration names no
    /// others.
    pub fn retain_groups(&mut self, named: &HashSet<usize>, links: &mut Links) {
        self.pools.retain(|(group, _), pool| {
            let stays = named.contains(group);
            if !stays {
                pool.idle.drain(..).for_each(|idle| idle.connection.close(links));
            }
            stays
        });
    }

    /// A connection to `peer` for a call, with its very TLS, and how many milliseconds it was idle. A request that may be
    /// sent twice takes the youngest there is: should the peer be about to close it, the request is repeated. One that may
    /// not takes it only while it is younger than what the peer has been seen to keep, and after the kernel was asked.
    pub fn take(
        &mut self,
        group: &Arc<Group>,
        peer: &Arc<Peer>,
        location: LocationId,
        call: &Call,
        now_ms: u64,
        links: &mut Links,
    ) -> Option<(Connection, u64)> {
        let pool = self.pools.get_mut(&place_of(group, location))?;
        let keepalive = group.keepalive();
        let (repeatable, tls) = (call.idempotent, call.tls.as_deref());
        loop {
            let suits = |idle: &Idle| idle.peer.is_same(peer) && idle.connection.suits(tls);
            let position = pool.idle.iter().rposition(suits)?;
            let age_ms = now_ms.saturating_sub(pool.idle[position].since_ms);
            if !repeatable && age_ms >= peer.safe_idle_ms() {
                return None;
            }
            let idle = pool.idle.remove(position)?;
            let connection = idle.connection;
            let too_old = age_ms >= keepalive.timeout_ms
                || now_ms.saturating_sub(connection.opened_ms) >= keepalive.time_ms;
            if !too_old && (repeatable || connection.is_silent()) {
                return Some((connection, age_ms));
            }
            connection.close(links);
        }
    }

    /// Takes a connection in, if the group keeps any.
    pub fn put(
        &mut self,
        group: &Arc<Group>,
        peer: Arc<Peer>,
        location: LocationId,
        connection: Connection,
        now_ms: u64,
        links: &mut Links,
    ) {
        let keepalive = group.keepalive();
        let worn = connection.requests >= keepalive.requests
            || now_ms.saturating_sub(connection.opened_ms) >= keepalive.time_ms;
        if keepalive.connections == 0 || worn {
            return connection.close(links);
        }
        // What came while the response was served will bring no event of its own any more.
        let Some(link) = links.get(connection.link) else { return };
        if link.read_closed || link.readable && !connection.is_silent() {
            return connection.close(links);
        }
        link.readable = false;
        link.owner = Owner::Pool;
        let pool = self
            .pools
            .entry(place_of(group, location))
            .or_insert_with(|| Pool { group: group.clone(), idle: VecDeque::new() });
        if pool.idle.len() >= keepalive.connections as usize
            && let Some(oldest) = pool.idle.pop_front()
        {
            oldest.connection.close(links);
        }
        pool.idle.push_back(Idle { peer, connection, since_ms: now_ms });
        self.next_ms = self.next_ms.min(now_ms.saturating_add(keepalive.timeout_ms));
    }

    /// Something happened on an idle connection: it is closed, and its peer's patience is learned from that.
    pub fn close(&mut self, link: LinkKey, now_ms: u64, links: &mut Links) {
        for pool in self.pools.values_mut() {
            if let Some(position) = pool.idle.iter().position(|idle| idle.connection.link == link)
                && let Some(idle) = pool.idle.remove(position)
            {
                idle.peer.saw_idle_close(now_ms.saturating_sub(idle.since_ms));
                return idle.connection.close(links);
            }
        }
    }

    /// Closes what was idle too long, and what belongs to groups that only this pool knows any more.
    pub fn sweep(&mut self, now_ms: u64, links: &mut Links) {
        let mut next_ms = u64::MAX;
        self.pools.retain(|_, pool| {
            let keepalive = pool.group.keepalive();
            let abandoned = Arc::strong_count(&pool.group) == 1;
            while let Some(oldest) = pool.idle.front() {
                let until_ms = oldest.since_ms.saturating_add(keepalive.timeout_ms);
                if !abandoned && now_ms < until_ms {
                    next_ms = next_ms.min(until_ms);
                    break;
                }
                if let Some(oldest) = pool.idle.pop_front() {
                    oldest.connection.close(links);
                }
            }
            !pool.idle.is_empty()
        });
        self.next_ms = next_ms;
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.pools.values().map(|pool| pool.idle.len()).sum()
    }
}
