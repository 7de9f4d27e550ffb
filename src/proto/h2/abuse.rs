//! Limits against peers that make work for others: each has a name, a counter, and one place where it is noted.
//!
//! What an honest peer does now and then and an attacker does all the time fills a leaky bucket: it may come in a burst,
//! and it may come at a rate for ever. What overflows costs the attacker its connection (ENHANCE_YOUR_CALM) and nobody
//! else anything.

use super::error::ConnectionError;

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident $text:literal $description:literal burst $burst:literal rate $rate:literal,)+) => {
        /// A limit against abuse.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Limit {
            $($(#[$doc])* $name,)+
        }

        impl Limit {
            /// All of them, in the order of [`Abuse::counts`].
            pub const ALL: &[Limit] = &[$(Limit::$name),+];

            /// Its name, for metrics.
            pub fn name(self) -> &'static str {
                match self { $(Limit::$name => $text,)+ }
            }

            /// What a peer did that reached it, for the log.
            pub fn description(self) -> &'static str {
                match self { $(Limit::$name => $description,)+ }
            }

            /// What may come at once, and how much of it every second for ever.
            pub fn bounds(self) -> (u32, u32) {
                match self { $(Limit::$name => ($burst, $rate),)+ }
            }
        }
    };
}

limits! {
    /// Streams that the peer reset before they were answered whole (CVE-2023-44487); every one that is allows for one more,
    /// since a busy proxy's clients leave at any rate.
    RapidReset "rapid_reset" "peer reset too many streams" burst 256 rate 32,
    /// Streams that were reset here, because of what the peer did (CVE-2025-8671), or that were refused.
    StreamErrors "stream_errors" "peer caused too many stream errors" burst 128 rate 16,
    /// CONTINUATION frames of one field block (CVE-2024-27316); counted anew for each.
    Continuations "continuations" "peer sent too many CONTINUATION frames" burst 32 rate 0,
    /// Compressed bytes of one field block that is not whole yet; counted anew for each, its bound is set by the caller.
    BlockBytes "block_bytes" "peer sent too large a field block" burst 0 rate 0,
    /// Frames that carry nothing: DATA and CONTINUATION without content that end nothing (CVE-2019-9518).
    EmptyFrames "empty_frames" "peer sent too many empty frames" burst 100 rate 10,
    /// PING (CVE-2019-9512).
    Pings "pings" "peer sent too many PING frames" burst 200 rate 20,
    /// SETTINGS (CVE-2019-9515), one more for every 16 parameters.
    Settings "settings" "peer sent too many SETTINGS frames" burst 32 rate 2,
    /// WINDOW_UPDATE frames; every DATA frame that is sent allows for three more (CVE-2019-9511, CVE-2019-9517).
    WindowUpdates "window_updates" "peer sent too many WINDOW_UPDATE frames" burst 1024 rate 100,
    /// PRIORITY and PRIORITY_UPDATE; every request allows for four more (CVE-2019-9513).
    Priorities "priorities" "peer sent too many PRIORITY frames" burst 256 rate 20,
    /// Frames for streams that are closed, and of unknown types.
    IgnoredFrames "ignored_frames" "peer sent too many frames without effect" burst 1024 rate 100,
    /// Streams that waited for window until they were given up.
    StalledStreams "stalled_streams" "peer let too many streams wait for window" burst 64 rate 0,
    /// Interim responses of one stream.
    InterimResponses "interim_responses" "peer sent too many interim responses" burst 16 rate 0,
}

/// How many limits there are.
pub const LIMIT_COUNT: usize = Limit::InterimResponses as usize + 1;

/// Thousandths, so that a rate of one in a second fills in every millisecond.
const UNIT: u64 = 1000;

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// In thousandths.
    level: u64,
    /// When it last leaked, in milliseconds.
    leaked_ms: u64,
}

/// The counters of one connection.
#[derive(Debug, Default)]
pub struct Abuse {
    buckets: [Bucket; LIMIT_COUNT],
    counts: [u32; LIMIT_COUNT],
}

impl Abuse {
    /// How often each of [`Limit::ALL`] was noted on this connection.
    pub fn counts(&self) -> &[u32; LIMIT_COUNT] {
        &self.counts
    }

    /// Notes one event.
    ///
    /// # Errors
    /// The limit is reached.
    pub fn note(&mut self, limit: Limit, now_ms: u64) -> Result<(), ConnectionError> {
        let (burst, rate) = limit.bounds();
        let bucket = &mut self.buckets[limit as usize];
        self.counts[limit as usize] = self.counts[limit as usize].saturating_add(1);
        let passed = now_ms.saturating_sub(bucket.leaked_ms);
        bucket.leaked_ms = bucket.leaked_ms.max(now_ms);
        bucket.level = bucket.level.saturating_sub(passed.saturating_mul(u64::from(rate))) + UNIT;
        if bucket.level > u64::from(burst) * UNIT { Err(ConnectionError::limit(limit)) } else { Ok(()) }
    }

    /// Notes useful work that explains `events` events; what is not used up is not kept.
    pub fn allow(&mut self, limit: Limit, events: u32) {
        let bucket = &mut self.buckets[limit as usize];
        bucket.level = bucket.level.saturating_sub(u64::from(events) * UNIT);
    }

    /// Begins to count anew, for a limit that holds for each block or stream.
    pub fn reset(&mut self, limit: Limit) {
        self.buckets[limit as usize].level = 0;
    }

    /// A limit that is counted elsewhere was reached.
    pub fn reached(&mut self, limit: Limit) -> ConnectionError {
        self.counts[limit as usize] = self.counts[limit as usize].saturating_add(1);
        ConnectionError::limit(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_a_rate_are_let_pass_and_more_is_not() {
        for &limit in Limit::ALL {
            let (burst, rate) = limit.bounds();
            let mut abuse = Abuse::default();
            for _ in 0..burst {
                assert_eq!(abuse.note(limit, 5), Ok(()));
            }
            assert_eq!(abuse.note(limit, 5), Err(ConnectionError::limit(limit)));
            if rate > 0 {
                let mut abuse = Abuse::default();
                for event in 0..10 * u64::from(burst) {
                    assert_eq!(abuse.note(limit, event * 1000 / u64::from(rate)), Ok(()), "{limit:?}");
                }
                assert_eq!(abuse.counts()[limit as usize], 10 * burst);
            }
        }
    }

    #[test]
    fn work_that_explains_events_makes_room_but_no_more_than_a_burst() {
        let mut abuse = Abuse::default();
        abuse.allow(Limit::WindowUpdates, 1_000_000);
        for _ in 0..1024 {
            abuse.note(Limit::WindowUpdates, 0).unwrap();
        }
        abuse.allow(Limit::WindowUpdates, 1);
        assert_eq!(abuse.note(Limit::WindowUpdates, 0), Ok(()));
        assert!(abuse.note(Limit::WindowUpdates, 0).is_err());
    }

    #[test]
    fn every_limit_has_a_name_of_its_own() {
        let names: std::collections::HashSet<_> = Limit::ALL.iter().map(|limit| limit.name()).collect();
        assert_eq!(names.len(), LIMIT_COUNT);
        assert_eq!(Limit::ALL.len(), LIMIT_COUNT);
    }
}
