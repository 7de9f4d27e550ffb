//! How many connections each address has open (`client_connections_max`), known to all workers.
//!
//! An address stands in the table while it has a connection, so that the table is never larger than there are
//! connections. Whoever has as many as may be is refused when it is accepted: nothing is read, nothing is kept.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::net::SendFlags;

use crate::base::level::Level;
use crate::conf::listen::SocketPlan;
use crate::http::modules::client_connections::Most;
use crate::http::site::Site;

use super::Worker;
use super::accept::speaks_tls;

/// Tables with a lock of their own: more than there are workers to meet in one.
const SHARDS: usize = 32;
/// How often the log tells of refusals, in milliseconds.
const LOG_MS: u64 = 1000;

/// Who is counted together: an address of IPv4, or the /64 that a subscriber of IPv6 has at the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Network(u64);

impl Network {
    fn of(address: IpAddr) -> Network {
        match address.to_canonical() {
            // No network of IPv6 that is routed begins like this.
            IpAddr::V4(address) => Network(1 << 32 | u64::from(address.to_bits())),
            IpAddr::V6(address) => Network((address.to_bits() >> 64) as u64),
        }
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct AddressCounts {
    hasher: RandomState,
    shards: [Mutex<HashMap<Network, u32>>; SHARDS],
}

/// A connection that is counted, until this is dropped.
#[derive(Debug)]
pub struct AddressPermit {
    counts: Arc<AddressCounts>,
    network: Network,
}

impl AddressCounts {
    /// Counts a connection, unless its network has `most` already.
    fn enter(self: &Arc<Self>, address: IpAddr, most: u32) -> Option<AddressPermit> {
        let network = Network::of(address);
        let mut shard = self.shard(network);
        let count = shard.entry(network).or_insert(0);
        if *count >= most {
            return None;
        }
        *count += 1;
        drop(shard);
        Some(AddressPermit { counts: Arc::clone(self), network })
    }

    /// A number of connections is right whatever a panic elsewhere has interrupted.
    fn shard(&self, network: Network) -> MutexGuard<'_, HashMap<Network, u32>> {
        let number = (self.hasher.hash_one(network) >> 32) as usize % SHARDS;
        self.shards[number].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let mut shard = self.counts.shard(self.network);
        if let Entry::Occupied(mut entry) = shard.entry(self.network) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
        // A flood leaves no large table behind.
        if shard.capacity() > 64 && shard.len() < shard.capacity() / 8 {
            shard.shrink_to_fit();
        }
    }
}

/// Refusals of a worker that the log was not told of.
#[derive(Debug, Default)]
pub struct Refusals {
    count: u64,
    last: Option<(IpAddr, u32)>,
    logged_ms: u64,
}

/// How many connections of one address the sockets of a plan take. Who speaks the PROXY protocol is no client.
pub fn most_connections(site: &Site, plan: &SocketPlan) -> Option<Most> {
    let number = plan.address_of(None);
    let shared = site.listens.addresses().get(number)?;
    let address = site.addresses.get(number)?;
    let most = site.settings(site.server(address.default_server).root).client_connections.most;
    most.filter(|_| !shared.protocol.proxy_protocol)
}

impl Worker {
    /// Counts a fresh connection where its address may have so many only; `Err` if it was refused.
    pub(super) fn admit(
        &mut self,
        number: usize,
        socket: &OwnedFd,
        peer: Option<SocketAddr>,
    ) -> Result<Option<AddressPermit>, ()> {
        let (Some(Some(listener)), Some(peer)) = (self.res.listeners.get(number), peer) else {
            return Ok(None);
        };
        let Some(most) = listener.most else { return Ok(None) };
        if let Some(permit) = self.shared.addresses.enter(peer.ip(), most.count) {
            return Ok(Some(permit));
        }
        self.res.counters.refuse_connection();
        if let Some(status) = most.status
            && !speaks_tls(&listener.site, &listener.plan, &super::balance::endpoint_of(None))
        {
            // What the socket does not take at once, or loses by being closed on unread bytes, is lost: a flood must cost
            // nothing that lasts.
            let text = format!(
                "HTTP/1.1 {} {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                status.0,
                status.reason().unwrap_or_default()
            );
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            let _ = rustix::net::send(socket.as_fd(), text.as_bytes(), flags);
        }
        self.refusals.count += 1;
        self.refusals.last = Some((peer.ip(), most.count));
        self.log_refusals();
        Err(())
    }

    /// Tells the log of refusals, once in a while.
    pub(super) fn log_refusals(&mut self) {
        let now_ms = self.res.env.now.monotonic_ms;
        let Some((address, most)) = self.refusals.last else { return };
        if self.refusals.logged_ms != 0 && now_ms < self.refusals.logged_ms + LOG_MS {
            return;
        }
        let count = self.refusals.count;
        self.refusals = Refusals { logged_ms: now_ms, ..Refusals::default() };
        let connections = if count == 1 { "connection" } else { "connections" };
        self.log(
            Level::Warn,
            &format!("{count} {connections} refused by \"client_connections_max {most}\", client: {address}"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_places_until_its_connections_end() {
        let counts = Arc::new(AddressCounts::default());
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let one = counts.enter(address("192.0.2.1"), 2);
        let two = counts.enter(address("::ffff:192.0.2.1"), 2);
        assert!(one.is_some() && two.is_some());
        assert!(counts.enter(address("192.0.2.1"), 2).is_none());
        assert!(counts.enter(address("192.0.2.2"), 2).is_some());
        drop(one);
        assert!(counts.enter(address("192.0.2.1"), 2).is_some());
        drop(two);
        assert!(counts.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one() {
        let counts = Arc::new(AddressCounts::default());
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let _one = counts.enter(address("2001:db8:0:1::1"), 1).unwrap();
        assert!(counts.enter(address("2001:db8:0:1:ffff::2"), 1).is_none());
        assert!(counts.enter(address("2001:db8:0:2::1"), 1).is_some());
    }
}
