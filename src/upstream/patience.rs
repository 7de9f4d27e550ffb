//! How long a peer keeps an idle connection: what a request may rely on that must not be sent twice.
//!
//! A pooled connection may be closed by the peer in the moment in which a request is sent on it. A request that may be
//! sent twice is then repeated on a fresh one; any other takes a pooled connection only while that has been idle for
//! clearly less than the peer has been seen to keep one.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What is relied on before anything is known: less than the timeouts that application servers come with (gunicorn
/// 2 s; Node, Apache and uvicorn 5 s), and enough for requests that follow each other.
pub const UNKNOWN_MS: u64 = 1000;
/// Least distance from what the peer keeps: its timer and the network are no more exact than that.
const MARGIN_MS: u64 = 200;
/// Part of it that is the distance for longer times.
const MARGIN_PART: u64 = 5;
/// No evidence.
const NONE: u64 = u64::MAX;

/// What is known of one peer, shared by all workers.
#[derive(Debug)]
pub struct Patience {
    /// From its `Keep-Alive: timeout=N`, in milliseconds.
    announced_ms: AtomicU64,
    /// Shortest idle time at which it closed a connection.
    closed_ms: AtomicU64,
    /// Longest idle time after which it still answered.
    kept_ms: AtomicU64,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            announced_ms: AtomicU64::new(NONE),
            closed_ms: AtomicU64::new(NONE),
            kept_ms: AtomicU64::new(0),
        }
    }
}

impl Patience {
    /// Milliseconds of idleness up to which a connection may be relied on.
    pub fn safe_ms(&self) -> u64 {
        let limit_ms = self.announced_ms.load(Relaxed).min(self.closed_ms.load(Relaxed));
        let less = |ms: u64| ms.saturating_sub((ms / MARGIN_PART).max(MARGIN_MS));
        match limit_ms {
            NONE => less(self.kept_ms.load(Relaxed)).max(UNKNOWN_MS),
            limit_ms => less(limit_ms),
        }
    }

    /// It said `Keep-Alive: timeout=N`, in seconds.
    pub fn announced(&self, secs: u64) {
        self.announced_ms.store(secs.saturating_mul(1000).min(NONE - 1), Relaxed);
    }

    /// It closed a connection after so many idle milliseconds.
    pub fn closed_after(&self, idle_ms: u64) {
        self.closed_ms.fetch_min(idle_ms, Relaxed);
    }

    /// It answered on a connection that had been idle for so many milliseconds. A close that was seen earlier in an
    /// idle time than that was no timeout (a restart, a full table).
    pub fn kept(&self, idle_ms: u64) {
        if idle_ms > self.kept_ms.load(Relaxed) {
            self.kept_ms.store(idle_ms, Relaxed);
        }
        let closed_ms = self.closed_ms.load(Relaxed);
        if closed_ms != NONE && closed_ms < idle_ms {
            self.closed_ms.store(idle_ms, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_peer_is_relied_on_for_a_second() {
        assert_eq!(Patience::default().safe_ms(), UNKNOWN_MS);
    }

    #[test]
    fn the_announced_time_is_relied_on_but_for_a_margin() {
        let patience = Patience::default();
        for (secs, safe_ms) in [(5, 4000), (1, 800), (0, 0), (u64::MAX, (NONE - 1) - (NONE - 1) / 5)] {
            patience.announced(secs);
            assert_eq!(patience.safe_ms(), safe_ms);
        }
    }

    #[test]
    fn a_close_that_was_seen_counts_whatever_is_announced() {
        let patience = Patience::default();
        patience.announced(60);
        patience.closed_after(2000);
        assert_eq!(patience.safe_ms(), 1600);
        patience.closed_after(10);
        assert_eq!(patience.safe_ms(), 0);
    }

    #[test]
    fn a_longer_rest_that_went_well_shows_that_an_early_close_was_no_timeout() {
        let patience = Patience::default();
        patience.closed_after(10);
        patience.kept(4000);
        assert_eq!(patience.safe_ms(), 3200);
        let unknown = Patience::default();
        unknown.kept(4000);
        assert_eq!(unknown.safe_ms(), 3200);
        unknown.kept(100);
        assert_eq!(unknown.safe_ms(), 3200);
    }
}
