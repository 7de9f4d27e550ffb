//! Whether a peer moves bytes at a least rate, counting only the time in which it was waited for.
//!
//! Time is credit. A peer begins with its grace time; every byte that it moves is worth the time that the byte may take at
//! the least rate; every millisecond in which the peer, and nobody else, is waited for costs one. Whoever has spent
//! everything is too slow. So a peer that keeps the rate on average, once the grace time is over, is spared however
//! unevenly its bytes come, and what it saves up is bounded by the caller.
//!
//! ```text
//!             wait                         judge: enough was moved
//!   Resting ---------> Waiting since T ------------------------------> Waiting since now
//!      ^                 |   |    |
//!      |      rest       |   |    |  judge: credit spent
//!      +-----------------+   |    +-----------------------------------> too slow
//!      |      forgive        |
//!      +---------------------+   (it was not the peer's doing: the time is not counted)
//! ```
//!
//! `wait` and `rest` are an addition each, and nothing is judged before [`Pace::due_ms`], which the caller's deadline
//! takes into account: no timer of its own.

/// A least rate. None by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MinRate {
    /// Bytes per second; 0 for none.
    pub bytes_per_second: u64,
    /// Milliseconds that may pass before the rate must be kept.
    pub grace_ms: u64,
}

impl MinRate {
    /// Whether there is a least rate.
    pub fn is_on(self) -> bool {
        self.bytes_per_second > 0
    }

    /// Milliseconds that so many bytes may take.
    fn worth_ms(self, bytes: u64) -> u64 {
        bytes.saturating_mul(1000) / self.bytes_per_second.max(1)
    }
}

/// A peer that moves as slowly as it may is not looked at more often than this, in milliseconds.
const LEAST_INTERVAL_MS: u32 = 1000;

/// See the module's documentation. Times are monotonic milliseconds and never 0; lengths of time end at 49 days.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// Since when the peer is waited for; 0 while it is not.
    since_ms: u64,
    /// Bytes that had been moved at the last judgement.
    judged_bytes: u64,
    /// How long it was waited for since the last judgement, up to `since_ms`.
    waited_ms: u32,
    /// What it may spend.
    credit_ms: u32,
    /// How long it may be waited for before the next judgement.
    patience_ms: u32,
    began: bool,
}

const _: () = assert!(size_of::<Pace>() <= 32, "every connection has one");

/// A length of time in so many bits.
fn saturated(ms: u64) -> u32 {
    u32::try_from(ms).unwrap_or(u32::MAX)
}

/// What a judgement comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It moves fast enough.
    Fine,
    /// Too slow: so many bytes in so many milliseconds of waiting.
    TooSlow {
        /// Bytes since the last judgement.
        bytes: u64,
        /// Milliseconds of waiting since then.
        waited_ms: u64,
    },
}

impl Pace {
    /// The peer is waited for from now on, if it was not already.
    pub fn wait(&mut self, now_ms: u64, rate: MinRate) {
        if self.since_ms == 0 && rate.is_on() {
            self.since_ms = now_ms.max(1);
            if !self.began {
                self.began = true;
                self.credit_ms = saturated(rate.grace_ms);
                self.patience_ms = self.credit_ms;
            }
        }
    }

    /// It is not waited for any more.
    pub fn rest(&mut self, now_ms: u64) {
        if self.since_ms != 0 {
            self.waited_ms = self.waited_ms.saturating_add(saturated(now_ms.saturating_sub(self.since_ms)));
            self.since_ms = 0;
        }
    }

    /// The time since it began to be waited for was somebody else's.
    pub fn forgive(&mut self) {
        self.since_ms = 0;
    }

    /// When to judge, in monotonic milliseconds; `u64::MAX` while the peer is not waited for.
    pub fn due_ms(&self) -> u64 {
        match self.since_ms {
            0 => u64::MAX,
            since_ms => since_ms + u64::from(self.patience_ms.saturating_sub(self.waited_ms)),
        }
    }

    /// Judges by the bytes that were moved in all. Credit is saved up to `most_credit_ms`, or the grace time if that is
    /// longer.
    pub fn judge(&mut self, bytes: u64, now_ms: u64, rate: MinRate, most_credit_ms: u64) -> Verdict {
        self.rest(now_ms);
        let moved = bytes.saturating_sub(self.judged_bytes);
        let waited_ms = u64::from(self.waited_ms);
        let credit_ms = u64::from(self.credit_ms).saturating_add(rate.worth_ms(moved));
        if credit_ms <= waited_ms {
            return Verdict::TooSlow { bytes: moved, waited_ms };
        }
        let left_ms = credit_ms - waited_ms;
        self.credit_ms = saturated(left_ms.min(most_credit_ms.max(rate.grace_ms)));
        self.patience_ms = self.credit_ms.max(LEAST_INTERVAL_MS);
        self.judged_bytes = bytes.max(self.judged_bytes);
        self.waited_ms = 0;
        self.wait(now_ms, rate);
        Verdict::Fine
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: MinRate = MinRate { bytes_per_second: 100, grace_ms: 5_000 };
    const MOST: u64 = 60_000;

    /// Lets time pass up to `until_ms`, moving bytes steadily; when it was found too slow.
    fn steady(bytes_per_second: u64, until_ms: u64) -> Option<u64> {
        let mut pace = Pace::default();
        pace.wait(1, RATE);
        let mut now_ms = pace.due_ms();
        while now_ms < until_ms {
            if let Verdict::TooSlow { .. } = pace.judge(bytes_per_second * now_ms / 1000, now_ms, RATE, MOST)
            {
                return Some(now_ms);
            }
            assert!(pace.due_ms() > now_ms, "it is not judged twice at a time");
            now_ms = pace.due_ms();
        }
        None
    }

    #[test]
    fn whoever_keeps_the_rate_is_spared_for_ever_and_whoever_does_not_is_found_out() {
        assert_eq!(steady(101, 3_600_000), None);
        assert_eq!(steady(0, 3_600_000), Some(5_001));
        let half = steady(50, 3_600_000).unwrap();
        assert!((9_000..13_000).contains(&half), "{half}");
        assert!(steady(90, 3_600_000).unwrap() < 70_000);
    }

    #[test]
    fn time_in_which_nobody_waits_for_the_peer_is_not_counted() {
        let mut pace = Pace::default();
        for turn in 0..100 {
            pace.wait(1 + turn * 10_000, RATE);
            assert!(pace.due_ms() > turn * 10_000 + 50, "{turn}");
            pace.rest(1 + turn * 10_000 + 49);
            assert_eq!(pace.due_ms(), u64::MAX);
        }
        pace.wait(2_000_000, RATE);
        assert_eq!(pace.due_ms(), 2_000_000 + 5_000 - 4_900);
        pace.forgive();
        pace.wait(3_000_000, RATE);
        assert_eq!(pace.due_ms(), 3_000_000 + 5_000 - 4_900);
    }

    #[test]
    fn what_is_saved_up_is_bounded() {
        let mut pace = Pace::default();
        pace.wait(1, RATE);
        assert_eq!(pace.judge(1 << 30, 5_001, RATE, MOST), Verdict::Fine);
        assert_eq!(pace.due_ms(), 65_001);
        assert_eq!(
            pace.judge((1 << 30) + 7, 65_001 + 80, RATE, MOST),
            Verdict::TooSlow { bytes: 7, waited_ms: 60_080 }
        );
    }

    #[test]
    fn times_without_end_saturate() {
        let rate = MinRate { bytes_per_second: 1, grace_ms: u64::MAX };
        let mut pace = Pace::default();
        pace.wait(1, rate);
        assert_eq!(pace.due_ms(), 1 + u64::from(u32::MAX));
        assert_eq!(pace.judge(u64::MAX, 1000, rate, u64::MAX), Verdict::Fine);
        pace.rest(u64::MAX);
        pace.wait(1000, rate);
        pace.rest(u64::MAX);
        assert_eq!(
            pace.judge(u64::MAX, u64::MAX, rate, u64::MAX),
            Verdict::TooSlow { bytes: 0, waited_ms: u32::MAX.into() }
        );
    }

    #[test]
    fn without_a_rate_nothing_is_ever_due() {
        let mut pace = Pace::default();
        pace.wait(1, MinRate::default());
        assert_eq!(pace.due_ms(), u64::MAX);
    }

    proptest! {
        /// Whatever the bursts and pauses: at or above the rate on average from the start means spared.
        #[test]
        fn an_average_at_the_rate_is_spared(steps in proptest::collection::vec((1u64..4_000, any::<bool>()), 1..100)) {
            let mut pace = Pace::default();
            let (mut now_ms, mut waited_ms) = (1, 0);
            for (length_ms, waits) in steps {
                if waits {
                    pace.wait(now_ms, RATE);
                    waited_ms += length_ms;
                }
                now_ms += length_ms;
                if pace.due_ms() <= now_ms {
                    let bytes = waited_ms * RATE.bytes_per_second / 1000;
                    prop_assert_eq!(pace.judge(bytes, now_ms, RATE, u64::MAX), Verdict::Fine);
                }
                pace.rest(now_ms);
            }
        }
    }
}
