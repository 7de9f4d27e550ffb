//! By the client's address: the first three bytes of IPv4, so that a network goes to one peer, and all of IPv6. The
//! mapping is nginx's, so that clients keep their servers when Thalweg takes over.

use std::net::IpAddr;

use super::{MAX_REHASHES, Slot, by_weight, round_robin};

/// nginx's start of the hash, its factor and its divisor.
const SEED: u64 = 89;
const FACTOR: u64 = 113;
const DIVISOR: u64 = 6271;

/// See the module's documentation.
pub fn pick(slots: &mut [Slot], client: Option<IpAddr>) -> Option<usize> {
    let mut bytes = [0; 16];
    let length = match client {
        Some(IpAddr::V4(address)) => {
            bytes[..3].copy_from_slice(&address.octets()[..3]);
            3
        }
        Some(IpAddr::V6(address)) => {
            bytes = address.octets();
            16
        }
        // Behind a Unix socket: three zero bytes, as in nginx.
        None => 3,
    };
    if slots.len() > 1 {
        let mut hash = SEED;
        for _ in 0..=MAX_REHASHES {
            for byte in &bytes[..length] {
                hash = (hash * FACTOR + u64::from(*byte)) % DIVISOR;
            }
            if let Some(position) = by_weight(slots, hash).filter(|position| slots[*position].usable) {
                return Some(position);
            }
        }
    }
    round_robin::pick(slots)
}
