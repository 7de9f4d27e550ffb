//! The sessions of clients, kept on our side: `ssl_session_cache`.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use rustls::server::StoresServerSessions;

use super::clock::TlsClock;

/// Independent parts of a cache, each with its own lock, so that workers seldom meet.
const SHARDS: usize = 16;
/// What one session costs beside its own bytes: the map's entry, the queue's, the allocator's.
const OVERHEAD: usize = 160;
/// What nginx says that a session takes: 4000 fit into a megabyte.
const TYPICAL_SESSION: usize = 256;

/// Sessions by their identifiers, bounded in bytes and in time. The oldest give way.
pub struct SessionCache {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    /// Bytes that each shard may hold.
    shard_bytes: usize,
    /// How long a session is good for, in seconds.
    timeout: u64,
    clock: Arc<TlsClock>,
}

#[derive(Default)]
struct Shard {
    sessions: HashMap<Box<[u8]>, Session>,
    /// Keys in the order in which they came, each with the number of its session; stale ones are skipped.
    order: VecDeque<(Box<[u8]>, u64)>,
    bytes: usize,
    counter: u64,
}

struct Session {
    value: Vec<u8>,
    stored: u64,
    number: u64,
}

fn cost(key: &[u8], value: &[u8]) -> usize {
    2 * key.len() + value.len() + OVERHEAD
}

impl std::fmt::Debug for SessionCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionCache")
    }
}

impl SessionCache {
    /// A cache of at most `bytes`, whose sessions are good for `timeout` seconds.
    pub fn new(bytes: usize, timeout: u64, clock: Arc<TlsClock>) -> SessionCache {
        SessionCache {
            shards: Default::default(),
            hasher: RandomState::default(),
            shard_bytes: bytes / SHARDS,
            timeout,
            clock,
        }
    }

    /// The bytes that so many sessions take (`builtin:1000`).
    pub fn bytes_for(sessions: usize) -> usize {
        sessions.saturating_mul(TYPICAL_SESSION + OVERHEAD)
    }

    /// How many sessions it holds, ended ones among them.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).sessions.len()).sum()
    }

    fn shard(&self, key: &[u8]) -> MutexGuard<'_, Shard> {
        lock(&self.shards[self.hasher.hash_one(key) as usize % SHARDS])
    }
}

/// A worker that panicked while it held the lock left a map that is whole: the lock is good still.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Shard {
    fn remove(&mut self, key: &[u8]) -> Option<Session> {
        let session = self.sessions.remove(key)?;
        self.bytes -= cost(key, &session.value);
        Some(session)
    }

    /// Drops the oldest until `needed` more bytes fit, and whatever has ended.
    fn make_room(&mut self, needed: usize, allowed: usize, oldest: u64) {
        while let Some((key, number)) = self.order.front() {
            let current = self.sessions.get(key).filter(|session| session.number == *number);
            let is_in_the_way = match current {
                None => true,
                Some(session) => self.bytes + needed > allowed || session.stored < oldest,
            };
            if !is_in_the_way {
                break;
            }
            let is_current = current.is_some();
            let Some((key, _)) = self.order.pop_front() else { break };
            if is_current {
                self.remove(&key);
            }
        }
    }
}

impl StoresServerSessions for SessionCache {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        let needed = cost(&key, &value);
        if needed > self.shard_bytes {
            return false;
        }
        let now = self.clock.seconds();
        let mut shard = self.shard(&key);
        shard.remove(&key);
        shard.make_room(needed, self.shard_bytes, now.saturating_sub(self.timeout));
        // Taken sessions leave their keys in the queue: it may not outgrow the map without end.
        if shard.order.len() > 2 * shard.sessions.len() + 64 {
            let Shard { sessions, order, .. } = &mut *shard;
            order.retain(|(key, number)| sessions.get(key).is_some_and(|session| session.number == *number));
        }
        shard.counter += 1;
        let number = shard.counter;
        shard.bytes += needed;
        shard.order.push_back((key.clone().into(), number));
        shard.sessions.insert(key.into(), Session { value, stored: now, number });
        true
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let now = self.clock.seconds();
        let shard = self.shard(key);
        let session = shard.sessions.get(key)?;
        (now.saturating_sub(session.stored) <= self.timeout).then(|| session.value.clone())
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        let now = self.clock.seconds();
        let session = self.shard(key).remove(key)?;
        (now.saturating_sub(session.stored) <= self.timeout).then_some(session.value)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(bytes: usize) -> SessionCache {
        SessionCache::new(bytes, 300, Arc::new(TlsClock::new(1000)))
    }

    #[test]
    fn a_session_is_taken_once_and_got_often() {
        let cache = cache(1 << 20);
        assert!(cache.put(b"a".to_vec(), b"1".to_vec()));
        assert_eq!(cache.get(b"a").unwrap(), b"1");
        assert_eq!(cache.take(b"a").unwrap(), b"1");
        assert_eq!(cache.take(b"a"), None);
        assert_eq!(cache.get(b"a"), None);
    }

    #[test]
    fn sessions_end_with_the_timeout() {
        let cache = cache(1 << 20);
        cache.put(b"a".to_vec(), b"1".to_vec());
        cache.clock.set(1300);
        assert!(cache.get(b"a").is_some());
        cache.clock.set(1301);
        assert!(cache.get(b"a").is_none());
    }

    #[test]
    fn the_oldest_give_way_and_the_bound_holds() {
        let cache = cache(64 * 1024);
        for number in 0..10_000u32 {
            assert!(cache.put(number.to_be_bytes().to_vec(), vec![0; 100]));
            if number % 3 == 0 {
                cache.take(&number.to_be_bytes());
            }
        }
        assert!(cache.get(&9_998u32.to_be_bytes()).is_some());
        assert!(cache.get(&1u32.to_be_bytes()).is_none());
        for shard in &cache.shards {
            let shard = lock(shard);
            let bytes: usize = shard.sessions.iter().map(|(key, session)| cost(key, &session.value)).sum();
            assert_eq!(bytes, shard.bytes);
            assert!(bytes <= 4096 && shard.order.len() <= 2 * shard.sessions.len() + 65);
        }
        assert!(!cache.put(vec![1], vec![0; 5000]), "larger than its shard");
    }

    #[test]
    fn a_key_that_comes_again_keeps_the_newer_session() {
        let cache = cache(1 << 20);
        cache.put(b"a".to_vec(), b"1".to_vec());
        cache.put(b"a".to_vec(), b"2".to_vec());
        assert_eq!(cache.take(b"a").unwrap(), b"2");
        assert_eq!(cache.len(), 0);
    }
}
