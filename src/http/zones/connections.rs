//! How many requests of each client are being served.

use std::sync::Arc;

use super::Shards;

/// A request that is counted, until this is dropped.
#[derive(Debug)]
pub struct Permit {
    counts: Arc<Shards<u32>>,
    key: Box<[u8]>,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// As many as may be are being served.
    Limit,
    /// The zone has no room to count one more client: none may be forgotten before its requests have ended.
    Full,
}

impl Shards<u32> {
    /// Counts a request of the client `key`, unless `limit` of them are being served.
    pub fn enter(self: &Arc<Self>, key: &[u8], limit: u32) -> Result<Permit, Refusal> {
        let (hash, mut shard) = self.shard(key);
        if let Some(count) = shard.get(hash, key) {
            if *count >= limit {
                return Err(Refusal::Limit);
            }
            *count += 1;
        } else {
            if !shard.has_room(key) {
                return Err(Refusal::Full);
            }
            shard.insert(hash, key, 1);
        }
        drop(shard);
        Ok(Permit { counts: self.clone(), key: key.into() })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let (hash, mut shard) = self.counts.shard(&self.key);
        match shard.get(hash, &self.key) {
            Some(1) => drop(shard.remove(hash, &self.key)),
            Some(count) => *count -= 1,
            // A zone that a reload made smaller has forgotten it.
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_counted_until_its_requests_end() {
        let counts = Arc::new(Shards::new(1 << 20));
        let one = counts.enter(b"a", 2).unwrap();
        let two = counts.enter(b"a", 2).unwrap();
        assert_eq!(counts.enter(b"a", 2).unwrap_err(), Refusal::Limit);
        assert!(counts.enter(b"b", 1).is_ok());
        drop(one);
        let three = counts.enter(b"a", 2).unwrap();
        drop((two, three));
        assert_eq!(counts.shard(b"a").1.len(), 0);
    }

    #[test]
    fn a_full_zone_lets_nobody_in_rather_than_forget() {
        let counts = Arc::new(Shards::new(1000));
        let mut permits = Vec::new();
        let refusal = (0..100u32).find_map(|number| match counts.enter(&number.to_be_bytes(), 1) {
            Ok(permit) => {
                permits.push(permit);
                None
            }
            Err(refusal) => Some(refusal),
        });
        assert_eq!(refusal, Some(Refusal::Full));
        assert_eq!(counts.enter(&0u32.to_be_bytes(), 1).unwrap_err(), Refusal::Limit);
        permits.clear();
        assert!(counts.enter(&99u32.to_be_bytes(), 1).is_ok());
    }
}
