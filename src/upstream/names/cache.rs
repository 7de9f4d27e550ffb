//! What is known of names.

use std::collections::HashMap;

use crate::proto::dns::DnsName;

use super::plan::{Answer, NameError, Records};

/// Names that are remembered. Where clients choose them (`proxy_pass http://$host`) there may be any number.
const MAX_NAMES: usize = 4096;
/// How many go at once when there is no room: looking for the oldest costs time in proportion to all of them.
const EVICTED: usize = MAX_NAMES / 8;
/// Milliseconds for which an answer can be used after its time when nothing newer is to be had: a day, as RFC 8767
/// section 5 has it at least.
const STALE_MS: u64 = 86_400_000;
/// An answer is kept at least so long, in milliseconds: with a time to live of 0 every request would ask.
const LEAST_TTL_MS: u64 = 1000;
/// And at most so long: a week (RFC 8767 section 4).
const MOST_TTL_MS: u64 = 7 * 86_400_000;
/// A denial is kept at least so long and at most so long, in milliseconds, whatever the zone says: a name that appears
/// should be found soon, and a flood of requests for one that does not exist must not be a flood of questions.
const DENIAL_MS: (u64, u64) = (1000, 30_000);
/// A failure is kept for so long, doubled with each that follows, up to the second (RFC 9520 section 3.2).
const FAILURE_MS: (u64, u64) = (1000, 5000);

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The name; of a service, with the service in front.
    pub name: DnsName,
    /// Whether the hosts of a service are asked for.
    pub is_service: bool,
}

/// What is known.
pub enum Known {
    /// To be used as it is.
    Answer(Answer),
    /// Known to lead nowhere for now.
    Error(NameError),
    /// To be asked for; here is what was known before, if it may still be used.
    Old(Option<Answer>),
}

#[derive(Default)]
struct Entry {
    /// The last answer, and when its time ends.
    good: Option<(Records, u64)>,
    /// Why there is no newer one, and until when not to ask again.
    bad: Option<(NameError, u64)>,
    /// Failures in a row.
    failures: u32,
    /// When it was asked for last, by a clock that counts lookups.
    used: u64,
}

impl Entry {
    fn old(&self, now_ms: u64) -> Option<Answer> {
        let (records, expires_ms) = self.good.as_ref()?;
        (now_ms < expires_ms + STALE_MS).then(|| Answer {
            records: records.clone(),
            expires_ms: *expires_ms,
            stale: *expires_ms <= now_ms,
        })
    }
}

/// The memory of one resolver. Time is monotonic milliseconds.
#[derive(Default)]
pub struct Cache {
    entries: HashMap<Key, Entry>,
    uses: u64,
    /// `valid=`
    valid_ms: Option<u64>,
}

impl Cache {
    /// An empty one. `valid_ms` overrides how long answers say that they live.
    pub fn new(valid_ms: Option<u64>) -> Cache {
        Cache { valid_ms, ..Cache::default() }
    }

    /// What is known of a name.
    pub fn look_up(&mut self, key: &Key, now_ms: u64) -> Known {
        let Some(entry) = self.entries.get_mut(key) else { return Known::Old(None) };
        self.uses += 1;
        entry.used = self.uses;
        let old = entry.old(now_ms);
        match (old, entry.bad) {
            (Some(answer), _) if !answer.stale => Known::Answer(answer),
            (Some(answer), Some((_, until_ms))) if now_ms < until_ms => Known::Answer(answer),
            (None, Some((error, until_ms))) if now_ms < until_ms => Known::Error(error),
            (old, _) => Known::Old(old),
        }
    }

    /// When an answer whose records live for so many seconds is to be asked for anew.
    pub fn expiry(&self, ttl: u32, now_ms: u64) -> u64 {
        let lives_ms = u64::from(ttl).saturating_mul(1000);
        now_ms + self.valid_ms.unwrap_or(lives_ms).clamp(LEAST_TTL_MS, MOST_TTL_MS)
    }

    /// An answer came.
    pub fn put_answer(&mut self, key: &Key, records: Records, expires_ms: u64) {
        let entry = self.entry(key);
        entry.good = Some((records, expires_ms));
        entry.bad = None;
        entry.failures = 0;
    }

    /// There is no such name, known for so many seconds.
    pub fn put_denial(&mut self, key: &Key, error: NameError, ttl: Option<u32>, now_ms: u64) {
        let lives_ms = u64::from(ttl.unwrap_or(0)) * 1000;
        let lives_ms = lives_ms.clamp(DENIAL_MS.0, DENIAL_MS.1).min(self.valid_ms.unwrap_or(u64::MAX));
        let entry = self.entry(key);
        entry.good = None;
        entry.bad = Some((error, now_ms + lives_ms.max(DENIAL_MS.0)));
        entry.failures = 0;
    }

    /// It could not be found out; what can be used instead is returned.
    pub fn put_failure(&mut self, key: &Key, error: NameError, now_ms: u64) -> Option<Answer> {
        let entry = self.entry(key);
        let wait_ms = (FAILURE_MS.0 << entry.failures.min(8)).min(FAILURE_MS.1);
        entry.failures += 1;
        entry.bad = Some((error, now_ms + wait_ms));
        entry.old(now_ms)
    }

    fn entry(&mut self, key: &Key) -> &mut Entry {
        if self.entries.len() >= MAX_NAMES && !self.entries.contains_key(key) {
            self.evict();
        }
        self.uses += 1;
        let uses = self.uses;
        let entry = self.entries.entry(key.clone()).or_default();
        entry.used = uses;
        entry
    }

    /// Forgets those that were not asked for longest.
    fn evict(&mut self) {
        let mut used: Vec<u64> = self.entries.values().map(|entry| entry.used).collect();
        let (_, limit, _) = used.select_nth_unstable(EVICTED);
        let limit = *limit;
        self.entries.retain(|_, entry| entry.used >= limit);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn key(number: usize) -> Key {
        Key { name: DnsName::parse(format!("n{number}.test").as_bytes()).expect("a name"), is_service: false }
    }

    fn records() -> Records {
        Records::Addresses(Arc::new([[192, 0, 2, 1].into()]))
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_used() {
        let mut cache = Cache::default();
        for number in 0..MAX_NAMES + 10 {
            cache.put_answer(&key(number), records(), 1_000_000);
            assert!(cache.entries.len() <= MAX_NAMES);
            assert!(matches!(cache.look_up(&key(0), 5), Known::Answer(_)));
        }
        assert!(matches!(cache.look_up(&key(1), 5), Known::Old(None)));
        assert!(matches!(cache.look_up(&key(MAX_NAMES + 9), 5), Known::Answer(_)));
    }

    #[test]
    fn failures_wait_longer_each_time_and_a_denial_ends_what_was_known() {
        let mut cache = Cache::default();
        cache.put_answer(&key(0), records(), 1000);
        let mut now_ms = 2000;
        for wait_ms in [1000, 2000, 4000, 5000, 5000] {
            assert!(cache.put_failure(&key(0), NameError::TimedOut, now_ms).is_some_and(|old| old.stale));
            now_ms += wait_ms - 1;
            assert!(matches!(cache.look_up(&key(0), now_ms), Known::Answer(answer) if answer.stale));
            now_ms += 1;
            assert!(matches!(cache.look_up(&key(0), now_ms), Known::Old(Some(_))));
        }
        assert!(matches!(cache.look_up(&key(0), 1000 + STALE_MS), Known::Old(None)));
        cache.put_denial(&key(0), NameError::NotFound, Some(3600), now_ms);
        assert!(matches!(cache.look_up(&key(0), now_ms + 29_999), Known::Error(NameError::NotFound)));
        assert!(matches!(cache.look_up(&key(0), now_ms + 30_000), Known::Old(None)));
    }
}
