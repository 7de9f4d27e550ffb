//! What time it is for a worker, and in tests what it is made to be.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::base::clock::Now;

/// When the first worker of the process started.
static START: OnceLock<Instant> = OnceLock::new();

/// The worker's clock: monotonic milliseconds count from the start of the process's first worker, so that times in
/// zones mean the same to all.
pub(super) struct Clock {
    start: Instant,
    /// Monotonic time never begins at 0, so that 0 can stand for "never".
    base_ms: u64,
    /// The simulation's time.
    #[cfg(test)]
    pub(super) frozen_ms: Option<u64>,
    /// What a test adds to the wall clock, in seconds.
    #[cfg(test)]
    pub(super) jump_secs: i64,
}

impl Clock {
    /// A clock that began with the process's first worker.
    pub(super) fn start() -> Clock {
        Clock {
            start: *START.get_or_init(Instant::now),
            base_ms: 1000,
            #[cfg(test)]
            frozen_ms: None,
            #[cfg(test)]
            jump_secs: 0,
        }
    }

    /// What time it is.
    pub(super) fn now(&self) -> Now {
        #[cfg(test)]
        if let Some(ms) = self.frozen_ms {
            return Now {
                monotonic_ms: ms,
                wall_secs: 1_700_000_000 + (ms / 1000) as i64,
                wall_ms_part: (ms % 1000) as u16,
            };
        }
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        #[cfg(test)]
        let wall = std::time::Duration::from_secs(wall.as_secs().saturating_add_signed(self.jump_secs));
        Now {
            monotonic_ms: self.base_ms + self.start.elapsed().as_millis() as u64,
            wall_secs: wall.as_secs() as i64,
            wall_ms_part: wall.subsec_millis() as u16,
        }
    }
}
