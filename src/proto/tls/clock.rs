//! The time, as the TLS library asks for it: whatever the shell said last.

use std::sync::atomic::{AtomicU64, Ordering};

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

/// Seconds since 1970, shared by every configuration that asks for the time (certificates' validity, ages of sessions).
/// The shell sets it once a second at most, so that workers do not fight for its cache line.
#[derive(Debug, Default)]
pub struct TlsClock(AtomicU64);

impl TlsClock {
    /// A clock that shows this time.
    pub fn new(seconds: u64) -> TlsClock {
        TlsClock(AtomicU64::new(seconds))
    }

    /// Takes the time, in seconds since 1970.
    pub fn set(&self, seconds: u64) {
        if self.0.load(Ordering::Relaxed) != seconds {
            self.0.store(seconds, Ordering::Relaxed);
        }
    }

    /// What was set last.
    pub fn seconds(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl TimeProvider for TlsClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(self.seconds())))
    }
}
