//! By a key on a ring of points, 160 for each unit of a server's weight (ketama), so that only the keys of a server that
//! goes are mapped anew. The mapping is nginx's and that of `Cache::Memcached::Fast`: a point is the CRC-32 of host, a
//! zero byte, port and the point before it.

use zlib_rs::crc32::crc32;

use super::{Slot, round_robin};
use crate::upstream::plan::PeerPlan;

/// Points for each unit of weight.
const POINTS: u32 = 160;
/// Most points of one server; a weight beyond that has no more share. 65,536 units are 84 MB.
const MAX_POINTS: u32 = 65_536 * POINTS;

/// The points of a group, computed once from its plan.
#[derive(Debug, Default)]
pub struct Ring {
    /// By their hash, each with the position of its server's text.
    points: Vec<(u32, u32)>,
    /// The texts of the servers; one that has several addresses or stands several times has one text.
    servers: Vec<Box<str>>,
}

impl Ring {
    /// The ring of the servers that are no backups.
    pub fn new<'a>(peers: impl Iterator<Item = &'a PeerPlan>) -> Ring {
        let mut ring = Ring::default();
        for plan in peers.filter(|plan| !plan.backup) {
            let known = ring.servers.iter().position(|server| *server == plan.server);
            let server = known.unwrap_or_else(|| {
                ring.servers.push(plan.server.clone());
                ring.servers.len() - 1
            });
            let (host, port) = host_and_port(&plan.server);
            let base = crc32(crc32(crc32(0, host.as_bytes()), b"\0"), port.as_bytes());
            let mut previous = 0u32;
            for _ in 0..plan.weight.saturating_mul(POINTS).min(MAX_POINTS) {
                previous = crc32(base, &previous.to_le_bytes());
                ring.points.push((previous, server as u32));
            }
        }
        ring.points.sort_by_key(|(hash, _)| *hash);
        ring.points.dedup_by_key(|(hash, _)| *hash);
        ring
    }

    /// The servers for a key: the one that it belongs to first, then those that follow on the ring.
    fn servers_for(&self, key: &[u8]) -> impl Iterator<Item = u32> {
        let hash = crc32(0, key);
        let first = self.points.partition_point(|(point, _)| *point < hash);
        let (before, from) = self.points.split_at(first);
        from.iter().chain(before).map(|(_, server)| *server)
    }
}

/// A server's text in the parts that are hashed.
fn host_and_port(server: &str) -> (&str, &str) {
    if server.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("unix:")) {
        return (&server[5..], "");
    }
    match server.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port),
        _ => (server, ""),
    }
}

/// See the module's documentation. Among several addresses of one server it goes by turns.
pub fn pick(slots: &mut [Slot], ring: &Ring, key: &[u8]) -> Option<usize> {
    if slots.len() > 1 && !key.is_empty() && slots.iter().any(|slot| slot.usable) {
        // Neighbours of one server follow each other often, and a server that had nothing usable has nothing still.
        let mut last = None;
        for server in ring.servers_for(key) {
            if last != Some(server) {
                let text = &*ring.servers[server as usize];
                let found = round_robin::pick_among(slots, |slot| slot.peer.server() == text);
                if found.is_some() {
                    return found;
                }
            }
            last = Some(server);
        }
    }
    round_robin::pick(slots)
}
