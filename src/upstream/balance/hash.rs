//! By a key: a CRC-32 of it falls on the sum of all weights, as in nginx and `Cache::Memcached`. A key whose peer is not
//! usable is hashed anew with the number of the round before it. An empty key is served by turns.

use zlib_rs::crc32::crc32;

use super::{MAX_REHASHES, Slot, by_weight, round_robin};

/// See the module's documentation.
pub fn pick(slots: &mut [Slot], key: &[u8]) -> Option<usize> {
    if slots.len() > 1 && !key.is_empty() {
        let mut sum = 0u64;
        for round in 0..=MAX_REHASHES {
            let mut digits = itoa::Buffer::new();
            let prefix = if round == 0 { "" } else { digits.format(round) };
            let hash = crc32(crc32(0, prefix.as_bytes()), key);
            sum += u64::from((hash >> 16) & 0x7fff);
            if let Some(position) = by_weight(slots, sum).filter(|position| slots[*position].usable) {
                return Some(position);
            }
        }
    }
    round_robin::pick(slots)
}
