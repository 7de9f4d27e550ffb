//! How many connections and requests there were and are, for `stub_status`: each worker counts in memory of its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::http::context::ConnectionCounts;
use crate::proto::h2::{LIMIT_COUNT, Limit};
use crate::server::client::{Client, State};

/// One worker's numbers. Only their worker writes them, so that a plain load and store make an addition; the alignment
/// keeps them out of the cache lines of others.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    accepted: AtomicU64,
    requests: AtomicU64,
    active: AtomicU64,
    reading: AtomicU64,
    writing: AtomicU64,
    slow_bodies: AtomicU64,
    slow_readers: AtomicU64,
    refused: AtomicU64,
    http2_limits: [AtomicU64; LIMIT_COUNT],
}

/// What a connection is counted as, beside being one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Counted {
    /// Between requests.
    #[default]
    Waiting,
    /// Within a request head.
    Reading,
    /// Being served.
    Writing,
}

fn add(counter: &AtomicU64, change: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(change), Ordering::Relaxed);
}

impl Counters {
    /// A connection was accepted.
    pub fn open(&self) {
        add(&self.accepted, 1);
        add(&self.active, 1);
    }

    /// A connection was closed that was counted so.
    pub fn close(&self, counted: Counted) {
        self.count(counted, u64::MAX);
        add(&self.active, u64::MAX);
    }

    /// A body came too slowly.
    pub fn refuse_body(&self) {
        add(&self.slow_bodies, 1);
    }

    /// A response was taken too slowly.
    pub fn cut_reader(&self) {
        add(&self.slow_readers, 1);
    }

    /// A connection was refused: its address has as many as it may have.
    pub fn refuse_connection(&self) {
        add(&self.refused, 1);
    }

    /// A connection of HTTP/2 was closed: it had reached this limit.
    pub fn reach_limit(&self, limit: Limit) {
        add(&self.http2_limits[limit as usize], 1);
    }

    /// A request begins.
    pub fn begin_request(&self) {
        add(&self.requests, 1);
    }

    fn count(&self, counted: Counted, change: u64) {
        match counted {
            Counted::Waiting => {}
            Counted::Reading => add(&self.reading, change),
            Counted::Writing => add(&self.writing, change),
        }
    }

    /// The present numbers.
    pub fn read(&self) -> ConnectionCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ConnectionCounts {
            accepted: read(&self.accepted),
            requests: read(&self.requests),
            active: read(&self.active),
            reading: read(&self.reading),
            writing: read(&self.writing),
            slow_bodies: read(&self.slow_bodies),
            slow_readers: read(&self.slow_readers),
            refused: read(&self.refused),
            http2_limits: std::array::from_fn(|limit| read(&self.http2_limits[limit])),
        }
    }
}

impl Client {
    /// Counts the connection as what it is now.
    pub fn recount(&mut self, counters: &Counters) {
        let counted = match &self.state {
            State::Active(_) | State::Parked(_) => Counted::Writing,
            State::Head if self.head_began_ms != 0 => Counted::Reading,
            _ => Counted::Waiting,
        };
        self.count_as(counted, counters);
    }

    /// Counts the connection as this.
    pub fn count_as(&mut self, counted: Counted, counters: &Counters) {
        if self.counted != counted {
            counters.count(self.counted, u64::MAX);
            counters.count(counted, 1);
            self.counted = counted;
        }
    }
}

/// The numbers of all workers, those that ended included.
#[derive(Debug, Default)]
pub struct AllCounters(Mutex<Listed>);

#[derive(Debug, Default)]
struct Listed {
    running: Vec<Arc<Counters>>,
    /// What workers that ended have counted.
    ended: ConnectionCounts,
}

impl AllCounters {
    /// Numbers for one more worker.
    pub fn join(&self) -> Arc<Counters> {
        let counters = Arc::new(Counters::default());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).running.push(counters.clone());
        counters
    }

    /// The worker of these numbers ended, and its connections with it.
    pub fn leave(&self, counters: &Arc<Counters>) {
        let mut listed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = listed.running.len();
        listed.running.retain(|other| !Arc::ptr_eq(other, counters));
        if listed.running.len() < before {
            let counts = counters.read();
            // Its connections ended with it.
            listed.ended = listed.ended + ConnectionCounts { active: 0, reading: 0, writing: 0, ..counts };
        }
    }

    /// The sums.
    pub fn sum(&self) -> ConnectionCounts {
        let listed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listed.running.iter().fold(listed.ended, |sum, counters| sum + counters.read())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_workers_have_done_stays_counted() {
        let all = AllCounters::default();
        let (one, other) = (all.join(), all.join());
        for counters in [&one, &other, &other] {
            counters.open();
            counters.begin_request();
        }
        other.close(Counted::Waiting);
        let counts =
            |accepted, active| ConnectionCounts { accepted, requests: 3, active, ..Default::default() };
        assert_eq!(all.sum(), counts(3, 2));
        all.leave(&other);
        all.leave(&other);
        assert_eq!(all.sum(), counts(3, 1));
    }
}
