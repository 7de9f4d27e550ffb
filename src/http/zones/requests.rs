//! Leaky buckets: how often each client has asked.
//!
//! A request fills its client's bucket by one; the bucket leaks at the zone's rate. A request that would fill it above
//! the burst is refused and leaves it as it is.

use super::Shards;

/// A client's account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Requests above the rate, in millionths.
    excess: u64,
    /// Monotonic milliseconds of the last request that was let through.
    last_ms: u64,
}

/// A request, in the unit of accounts.
const ONE: u64 = 1_000_000;
/// A thousandth of a request, the unit of limits.
const THOUSANDTH: u64 = 1000;

/// What becomes of a request, as one zone sees it. Numbers are thousandths of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Let through, so much above the rate.
    Pass(u64),
    /// Refused: it would be so much above the rate.
    Refuse(u64),
}

/// What to do should the request be refused for another reason.
#[derive(Clone, Copy, Debug)]
pub struct Undo {
    before: Option<Bucket>,
    after: Bucket,
}

impl Bucket {
    /// What a request at `now_ms` makes of the account, at a `rate` in thousandths of a request per second (which are
    /// millionths per millisecond). A clock that is behind another worker's stands still.
    fn with_request(self, now_ms: u64, rate: u64) -> Bucket {
        let leak = rate.saturating_mul(now_ms.saturating_sub(self.last_ms));
        Bucket { excess: (self.excess + ONE).saturating_sub(leak), last_ms: self.last_ms.max(now_ms) }
    }
}

impl Shards<Bucket> {
    /// Accounts for a request of the client `key`, unless that is more than `burst` above the `rate`. A client that is
    /// not known is at the rate.
    pub fn ask(&self, key: &[u8], now_ms: u64, rate: u64, burst: u64) -> (Verdict, Option<Undo>) {
        let (hash, mut shard) = self.shard(key);
        let Some(bucket) = shard.get(hash, key) else {
            let after = Bucket { excess: 0, last_ms: now_ms };
            // A key larger than the zone's shard can't be accounted for.
            return match shard.insert(hash, key, after) {
                Some(_) => (Verdict::Pass(0), Some(Undo { before: None, after })),
                None => (Verdict::Refuse(burst), None),
            };
        };
        let (before, after) = (*bucket, bucket.with_request(now_ms, rate));
        let excess = after.excess.div_ceil(THOUSANDTH);
        if after.excess > burst.saturating_mul(THOUSANDTH) {
            return (Verdict::Refuse(excess), None);
        }
        *bucket = after;
        (Verdict::Pass(excess), Some(Undo { before: Some(before), after }))
    }

    /// Takes a request of `key` out of the account again.
    pub fn undo(&self, key: &[u8], undo: Undo) {
        let (hash, mut shard) = self.shard(key);
        match (shard.get(hash, key), undo.before) {
            (Some(bucket), Some(before)) if *bucket == undo.after => *bucket = before,
            (Some(bucket), None) if *bucket == undo.after => {
                shard.remove(hash, key);
            }
            // Others have asked meanwhile.
            (Some(bucket), _) => bucket.excess = bucket.excess.saturating_sub(ONE),
            (None, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn passes(verdict: (Verdict, Option<Undo>)) -> bool {
        matches!(verdict.0, Verdict::Pass(_))
    }

    #[test]
    fn a_bucket_leaks_at_its_rate() {
        let zone = Shards::new(1 << 20);
        // 2 requests a second, one above it.
        let ask = |now_ms| zone.ask(b"k", now_ms, 2000, 1000).0;
        assert_eq!(ask(5000), Verdict::Pass(0));
        assert_eq!(ask(5000), Verdict::Pass(1000));
        assert_eq!(ask(5000), Verdict::Refuse(2000));
        assert_eq!(ask(5250), Verdict::Refuse(1500));
        assert_eq!(ask(5500), Verdict::Pass(1000));
        assert_eq!(ask(9000), Verdict::Pass(0));
        assert!(passes(zone.ask(b"other", 9000, 2000, 0)));
    }

    #[test]
    fn a_request_that_is_taken_back_was_never_there() {
        let zone = Shards::new(1 << 20);
        for _ in 0..3 {
            let (verdict, undo) = zone.ask(b"k", 5000, 1000, 0);
            assert_eq!(verdict, Verdict::Pass(0));
            zone.undo(b"k", undo.unwrap());
        }
        assert!(passes(zone.ask(b"k", 5000, 1000, 0)));
        assert!(!passes(zone.ask(b"k", 5000, 1000, 0)));
        let undo = zone.ask(b"k", 7000, 1000, 0).1.unwrap();
        zone.undo(b"k", undo);
        assert!(passes(zone.ask(b"k", 7000, 1000, 0)));
    }

    #[test]
    fn a_zone_holds_no_more_than_its_size() {
        let zone = Shards::new(32 * 1024);
        for number in 0..10_000u32 {
            assert!(passes(zone.ask(&number.to_be_bytes(), 5000, 1000, 0)));
        }
        let (_, shard) = zone.shard(b"any");
        assert!(shard.len() <= 32 * 1024 / 100, "{}", shard.len());
        drop(shard);
        // The newest are remembered.
        assert!(!passes(zone.ask(&9999u32.to_be_bytes(), 5000, 1000, 0)));
    }

    proptest! {
        /// Whatever the schedule, and also where the workers' clocks differ a little: within any span of time no more
        /// is let through than the rate grants for it, one request, and the burst.
        #[test]
        fn never_more_than_the_definition(
            steps in prop::collection::vec((0u64..400, 0u64..20), 1..120),
            rate in prop::sample::select(vec![16u64, 500, 1000, 3333, 10_000, 100_000]),
            burst in 0u64..5,
        ) {
            let zone = Shards::new(1 << 20);
            let mut now_ms = 1000;
            let mut passed: Vec<u64> = Vec::new();
            for (ahead, behind) in steps {
                now_ms += ahead;
                if passes(zone.ask(b"client", now_ms - behind, rate, burst * 1000)) {
                    passed.push(now_ms);
                }
            }
            for (first, from) in passed.iter().enumerate() {
                for (last, to) in passed.iter().enumerate().skip(first) {
                    // A clock that is behind may shift the ends of the span.
                    let span_ms = to - from + 20;
                    let granted = (burst + 1) * 1000 * 1000 + rate * span_ms;
                    prop_assert!((last - first + 1) as u64 * 1_000_000 <= granted);
                }
            }
        }
    }
}
