//! The methods that choose a peer, a file each with one `pick` that depends on nothing but its arguments.
//!
//! A method sees slots, some of which are [`Slot::usable`] for this request, and names one of these; what makes a slot
//! usable is not its business. To add a method: a file here, a line in [`pick`], a variant of [`Method`].

use std::net::IpAddr;
use std::sync::Arc;

use fastrand::Rng;

use super::peer::Peer;
use super::plan::{Method, OfTwo};

pub mod hash;
pub mod ip_hash;
pub mod ketama;
pub mod least_conn;
pub mod least_time;
pub mod random;
pub mod round_robin;
#[cfg(test)]
mod tests;

/// Fractions of one unit of weight: a peer that comes back slowly has less than one.
pub const WEIGHT_UNIT: i64 = 256;
/// Rounds in which `hash` and `ip_hash` look for a usable peer before it is taken by turns (nginx's number).
const MAX_REHASHES: u32 = 20;

/// A peer among those of a group.
#[derive(Debug)]
pub struct Slot {
    /// It.
    pub peer: Arc<Peer>,
    /// Its credit of turns.
    pub current: i64,
    /// Its weight while it recovers from failures, in [`WEIGHT_UNIT`]s.
    pub effective: i64,
    /// Whether it may be chosen now.
    pub usable: bool,
    /// Its weight now, which grows while it starts slowly, in [`WEIGHT_UNIT`]s; from 1.
    pub weight: i64,
    /// Attempts that are under way.
    pub in_flight: u32,
}

impl Slot {
    /// A slot that was never chosen.
    pub fn new(peer: Arc<Peer>) -> Slot {
        let weight = i64::from(peer.plan.weight.max(1)) * WEIGHT_UNIT;
        Slot { peer, current: 0, effective: weight, usable: true, weight, in_flight: 0 }
    }

    /// Its weight as configured, in [`WEIGHT_UNIT`]s.
    pub fn full_weight(&self) -> i64 {
        i64::from(self.peer.plan.weight.max(1)) * WEIGHT_UNIT
    }
}

/// What a method goes by.
pub struct Question<'a> {
    /// Monotonic milliseconds.
    pub now_ms: u64,
    /// The client's address; `None` behind a Unix socket.
    pub client_ip: Option<IpAddr>,
    /// The key of `hash`.
    pub key: &'a [u8],
    /// Where chance comes from.
    pub random: &'a mut Rng,
    /// The ring of `hash ... consistent`.
    pub ring: Option<&'a ketama::Ring>,
}

/// The position of the peer that `method` chooses among the usable ones; `None` if there is none.
pub fn pick(method: Method, slots: &mut [Slot], question: &mut Question) -> Option<usize> {
    match method {
        Method::RoundRobin => round_robin::pick(slots),
        Method::LeastConn => least_conn::pick(slots),
        Method::LeastTime(time) => least_time::pick(slots, time, question.now_ms),
        Method::IpHash => ip_hash::pick(slots, question.client_ip),
        Method::Hash { consistent: false } => hash::pick(slots, question.key),
        Method::Hash { consistent: true } => match question.ring {
            Some(ring) => ketama::pick(slots, ring, question.key),
            None => round_robin::pick(slots),
        },
        Method::Random(None) => random::pick(slots, question.random),
        Method::Random(Some(OfTwo::LeastConn)) => {
            random::pick_of_two(slots, question.random, least_conn::is_less)
        }
        Method::Random(Some(OfTwo::LeastTime(time))) => {
            let now_ms = question.now_ms;
            random::pick_of_two(slots, question.random, |a, b| least_time::is_less(a, b, time, now_ms))
        }
    }
}

/// The method among backup servers: nginx takes those of the hashes and of chance by turns.
pub fn among_backups(method: Method) -> Method {
    match method {
        Method::IpHash | Method::Hash { .. } | Method::Random(_) => Method::RoundRobin,
        method => method,
    }
}

/// The slot that a number below the sum of all configured weights falls on.
fn by_weight(slots: &[Slot], number: u64) -> Option<usize> {
    let total: u64 = slots.iter().map(|slot| u64::from(slot.peer.plan.weight)).sum();
    let mut left = number.checked_rem(total)?;
    for (position, slot) in slots.iter().enumerate() {
        let weight = u64::from(slot.peer.plan.weight);
        if left < weight {
            return Some(position);
        }
        left -= weight;
    }
    None
}
