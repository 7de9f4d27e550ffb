//! What is known of a peer: counts, times and standing. Atomics, shared by all workers and by the groups before and
//! after a reload.
//!
//! A peer's standing changes under the lock of its group only; times and counts are added up without one, so that a
//! lost update among workers at the same moment is possible where a mean is concerned, never where something is counted.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

use super::patience::Patience;

/// Least time after which an attempt counts as late, in milliseconds.
pub const USUAL_FLOOR_MS: u64 = 100;
/// The same for connecting to a peer of which nothing is known.
pub const USUAL_CONNECT_MS: u64 = 300;
/// The same for an answer.
pub const USUAL_HEADER_MS: u64 = 1000;
/// Late is what takes so many times the mean, and twice the peak.
const TIMES_MEAN: u64 = 4;
/// A peak loses this part of itself with every measurement.
const PEAK_PART: u64 = 64;
/// A measurement's share of the mean: one in twenty, as `least_time` says.
const MEAN_PART: u64 = 20;
/// Fractions of a millisecond that means are kept in.
const FRACTION: u64 = 256;

/// How a peer stands with its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Standing {
    /// It may be asked.
    Good = 0,
    /// It failed too often, and waits for a trial.
    Ejected = 1,
    /// One request tries it.
    Trial = 2,
}

/// What health checks take a peer for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Health {
    /// None has found anything yet.
    Unknown = 0,
    /// It passes.
    Healthy = 1,
    /// It fails, or has yet to pass for the first time.
    Unhealthy = 2,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct PeerState {
    standing: AtomicU8,
    /// Failures since `window_ms`.
    fails: AtomicU32,
    /// When the first of them was.
    window_ms: AtomicU64,
    /// When the standing changed last.
    since_ms: AtomicU64,
    /// When the next trial is due.
    due_ms: AtomicU64,
    /// When it came back; 0 for never. `slow_start` counts from here.
    returned_ms: AtomicU64,
    /// What the health check takes it for: a [`Health`].
    health: AtomicU8,
    in_flight: AtomicU32,
    /// Sum of the times at which the attempts in flight began.
    began_sum_ms: AtomicU64,
    /// When it was asked last.
    asked_ms: AtomicU64,
    requests: AtomicU64,
    failures: AtomicU64,
    bytes: AtomicU64,
    connect: Times,
    header: Times,
    response: Times,
    /// Attempts that are past their usual time.
    overdue: AtomicU32,
    /// Since when nothing came from it while an attempt is overdue; 0 if something did.
    silent_ms: AtomicU64,
    /// What it does to idle connections.
    pub(super) patience: Patience,
}

impl PeerState {
    /// How it stands.
    pub fn standing(&self) -> Standing {
        match self.standing.load(Relaxed) {
            1 => Standing::Ejected,
            2 => Standing::Trial,
            _ => Standing::Good,
        }
    }

    /// When that began.
    pub fn since_ms(&self) -> u64 {
        self.since_ms.load(Relaxed)
    }

    /// When it came back from being ejected or unhealthy; 0 for never.
    pub fn returned_ms(&self) -> u64 {
        self.returned_ms.load(Relaxed)
    }

    /// When the next trial is due; of a trial: when it is given up as lost.
    pub fn due_ms(&self) -> u64 {
        self.due_ms.load(Relaxed)
    }

    fn set_standing(&self, standing: Standing, now_ms: u64) {
        self.standing.store(standing as u8, Relaxed);
        self.since_ms.store(now_ms, Relaxed);
    }

    /// It failed too often.
    pub(super) fn eject(&self, now_ms: u64, fail_timeout_ms: u64) {
        self.set_standing(Standing::Ejected, now_ms);
        self.due_ms.store(now_ms.saturating_add(fail_timeout_ms), Relaxed);
    }

    /// A request tries it.
    pub(super) fn begin_trial(&self, now_ms: u64, fail_timeout_ms: u64) {
        self.set_standing(Standing::Trial, now_ms);
        self.due_ms.store(now_ms.saturating_add(fail_timeout_ms), Relaxed);
    }

    /// The trial showed nothing: another one is due at once.
    pub(super) fn end_trial(&self) {
        self.standing.store(Standing::Ejected as u8, Relaxed);
        self.due_ms.store(0, Relaxed);
    }

    /// There is no other peer any more: it stands well whatever was.
    pub(super) fn pardon(&self) {
        self.standing.store(Standing::Good as u8, Relaxed);
    }

    /// It is back: what failed before is forgotten. Its standing counts from the beginning of the trial, so that what
    /// becomes of that later is not.
    pub(super) fn return_at(&self, now_ms: u64) {
        self.standing.store(Standing::Good as u8, Relaxed);
        self.fails.store(0, Relaxed);
        self.returned_ms.store(now_ms.max(1), Relaxed);
    }

    /// Counts a failure; the number of those within `window_ms` milliseconds.
    pub(super) fn count_failure(&self, now_ms: u64, window_ms: u64) -> u32 {
        let began_ms = self.window_ms.load(Relaxed);
        let fails = match self.fails.load(Relaxed) {
            0 => 0,
            fails if now_ms.saturating_sub(began_ms) <= window_ms => fails,
            _ => 0,
        };
        if fails == 0 {
            self.window_ms.store(now_ms, Relaxed);
        }
        self.fails.store(fails.saturating_add(1), Relaxed);
        fails.saturating_add(1)
    }

    /// What health checks found.
    pub fn health(&self) -> Health {
        match self.health.load(Relaxed) {
            1 => Health::Healthy,
            2 => Health::Unhealthy,
            _ => Health::Unknown,
        }
    }

    /// Whether health checks have nothing against it.
    pub fn is_healthy(&self) -> bool {
        self.health() != Health::Unhealthy
    }

    /// Whether it was unhealthy before and is not now.
    pub(super) fn set_health(&self, health: Health, now_ms: u64) -> bool {
        let before = self.health.swap(health as u8, Relaxed);
        let is_back = before == Health::Unhealthy as u8 && health != Health::Unhealthy;
        if is_back {
            self.returned_ms.store(now_ms.max(1), Relaxed);
        }
        is_back
    }

    /// Attempts that are under way.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Mean age of the attempts that are under way, in milliseconds.
    pub fn mean_age_ms(&self, now_ms: u64) -> u64 {
        let count = u64::from(self.in_flight());
        match count {
            0 => 0,
            // Workers may have counted one and not yet added its time.
            count => now_ms.saturating_sub(self.began_sum_ms.load(Relaxed) / count),
        }
    }

    /// An attempt begins, unless there are `most` already; 0 for no limit.
    pub(super) fn try_begin(&self, now_ms: u64, most: u32) -> bool {
        // All workers count here: two that look and then count would go beyond the limit together.
        let one_more = |count: u32| (most == 0 || count < most).then_some(count + 1);
        let begins = self.in_flight.fetch_update(Relaxed, Relaxed, one_more).is_ok();
        if begins {
            self.note_beginning(now_ms);
        }
        begins
    }

    pub(super) fn began(&self, now_ms: u64) {
        self.in_flight.fetch_add(1, Relaxed);
        self.note_beginning(now_ms);
    }

    fn note_beginning(&self, now_ms: u64) {
        self.began_sum_ms.fetch_add(now_ms, Relaxed);
        self.requests.fetch_add(1, Relaxed);
        self.asked_ms.store(now_ms, Relaxed);
    }

    pub(super) fn ended(&self, began_ms: u64, bytes: u64) {
        let before = self.in_flight.fetch_sub(1, Relaxed);
        debug_assert!(before > 0, "an attempt ended twice");
        self.began_sum_ms.fetch_sub(began_ms, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failures.fetch_add(1, Relaxed);
    }

    /// When it was asked last; 0 for never.
    pub fn asked_ms(&self) -> u64 {
        self.asked_ms.load(Relaxed)
    }

    /// Attempts so far.
    #[cfg(test)]
    pub fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Attempts that failed so far.
    #[cfg(test)]
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Bytes received so far.
    #[cfg(test)]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// How long connecting takes.
    pub fn connect(&self) -> &Times {
        &self.connect
    }

    /// How long it takes to the end of a response's head.
    pub fn header(&self) -> &Times {
        &self.header
    }

    /// How long it takes to the end of a response.
    pub fn response(&self) -> &Times {
        &self.response
    }

    /// Attempts that are past their usual time.
    pub fn overdue(&self) -> u32 {
        self.overdue.load(Relaxed)
    }

    /// Since when it is silent: an attempt is overdue, and nothing has come from it since.
    pub fn silent_since_ms(&self) -> Option<u64> {
        let since_ms = self.silent_ms.load(Relaxed);
        (since_ms != 0 && self.overdue() > 0).then_some(since_ms)
    }

    pub(super) fn add_overdue(&self, now_ms: u64) {
        self.overdue.fetch_add(1, Relaxed);
        let _ = self.silent_ms.compare_exchange(0, now_ms.max(1), Relaxed, Relaxed);
    }

    /// Another request is sent to see whether it still is silent.
    pub(super) fn probe_silence(&self, now_ms: u64) {
        self.silent_ms.store(now_ms.max(1), Relaxed);
    }

    pub(super) fn remove_overdue(&self) {
        let before = self.overdue.fetch_sub(1, Relaxed);
        debug_assert!(before > 0, "an attempt was no longer overdue twice");
        if before == 1 {
            self.silent_ms.store(0, Relaxed);
        }
    }

    /// Something came from it.
    pub(super) fn spoke(&self) {
        if self.silent_ms.load(Relaxed) != 0 {
            self.silent_ms.store(0, Relaxed);
        }
    }
}

/// Mean and peak of a time that is measured again and again.
#[derive(Debug, Default)]
pub struct Times {
    /// In fractions of a millisecond, plus one; 0 before the first measurement.
    mean: AtomicU64,
    /// In the same.
    peak: AtomicU64,
}

impl Times {
    pub(super) fn add(&self, ms: u64) {
        let value = ms.min(u64::from(u32::MAX)) * FRACTION + 1;
        let mean = match self.mean.load(Relaxed) {
            0 => value,
            mean => (mean * (MEAN_PART - 1) + value) / MEAN_PART,
        };
        self.mean.store(mean.max(1), Relaxed);
        let peak = self.peak.load(Relaxed);
        self.peak.store(value.max(peak - peak / PEAK_PART), Relaxed);
    }

    /// The mean in milliseconds, recent measurements counting more; `None` before the first one.
    pub fn mean_ms(&self) -> Option<u64> {
        match self.mean.load(Relaxed) {
            0 => None,
            mean => Some((mean - 1) / FRACTION),
        }
    }

    /// What is unusual: several times the mean, and twice what was seen at most of late.
    pub(super) fn late_ms(&self) -> Option<u64> {
        let mean_ms = self.mean_ms()?;
        let peak_ms = self.peak.load(Relaxed) / FRACTION;
        Some((mean_ms * TIMES_MEAN).max(peak_ms * 2).max(USUAL_FLOOR_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_follows_a_twentieth_of_the_difference_each_time() {
        let times = Times::default();
        assert_eq!((times.mean_ms(), times.late_ms()), (None, None));
        times.add(1000);
        assert_eq!(times.mean_ms(), Some(1000));
        times.add(0);
        assert_eq!(times.mean_ms(), Some(950));
        times.add(2950);
        assert_eq!(times.mean_ms(), Some(1050));
    }

    #[test]
    fn late_is_beyond_four_means_and_two_peaks_and_never_below_the_floor() {
        let times = Times::default();
        times.add(0);
        assert_eq!(times.late_ms(), Some(USUAL_FLOOR_MS));
        times.add(800);
        assert_eq!(times.late_ms(), Some(1600));
        for _ in 0..1000 {
            times.add(40);
        }
        let late_ms = times.late_ms().expect("measured");
        assert!((150..=170).contains(&late_ms), "{late_ms}");
        times.add(u64::MAX);
        assert!(times.late_ms() > Some(1 << 32));
    }

    #[test]
    fn failures_are_counted_within_their_window() {
        let state = PeerState::default();
        assert_eq!(state.count_failure(1000, 100), 1);
        assert_eq!(state.count_failure(1100, 100), 2);
        assert_eq!(state.count_failure(1101, 100), 1);
        state.return_at(1102);
        assert_eq!(state.count_failure(1103, 100), 1);
    }

    #[test]
    fn silence_ends_with_the_last_overdue_attempt_or_with_any_answer() {
        let state = PeerState::default();
        state.add_overdue(5);
        state.add_overdue(9);
        assert_eq!(state.silent_since_ms(), Some(5));
        state.spoke();
        assert_eq!(state.silent_since_ms(), None);
        state.add_overdue(20);
        assert_eq!(state.silent_since_ms(), Some(20));
        for _ in 0..3 {
            state.remove_overdue();
        }
        assert_eq!((state.silent_since_ms(), state.overdue()), (None, 0));
    }

    #[test]
    fn no_more_attempts_begin_than_may() {
        let state = PeerState::default();
        assert!(state.try_begin(1, 2) && state.try_begin(1, 2));
        assert!(!state.try_begin(1, 2));
        assert_eq!((state.in_flight(), state.requests()), (2, 2));
        state.ended(1, 0);
        assert!(state.try_begin(1, 2) && state.try_begin(1, 0));
        assert_eq!(state.in_flight(), 3);
    }

    #[test]
    fn the_mean_age_counts_what_is_under_way() {
        let state = PeerState::default();
        assert_eq!(state.mean_age_ms(10), 0);
        state.began(10);
        state.began(30);
        assert_eq!(state.mean_age_ms(40), 20);
        state.ended(10, 5);
        assert_eq!((state.mean_age_ms(40), state.in_flight(), state.bytes()), (10, 1, 5));
    }
}
