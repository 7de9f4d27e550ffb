//! Disks that fail, for tests: a plan says which calls of a thread, and of the pool's threads, do less or nothing.

use std::cell::RefCell;
use std::sync::{Arc, Mutex};

use rustix::io::{Errno, Result};

const PAGE: usize = 4096;

/// What a thread is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Read,
    ReadResident,
    Write,
    Send,
    Create,
}

/// What may happen to calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Nothing.
    Fair,
    /// Fewer bytes than asked for, and pages that left the memory: what a healthy disk does under pressure.
    Slow,
    /// Also `ENOSPC`: nothing more is written.
    Full,
    /// Also `EIO`.
    Broken,
}

/// Shared by all threads of one test.
#[derive(Debug)]
pub struct Plan(Mutex<(Weather, fastrand::Rng, usize)>);

impl Plan {
    /// The weather from now on, by the numbers of this seed.
    pub fn set(&self, weather: Weather, seed: u64) {
        *self.0.lock().unwrap() = (weather, fastrand::Rng::with_seed(seed), 0);
    }

    /// How many calls it changed since it was set.
    pub fn struck(&self) -> usize {
        self.0.lock().unwrap().2
    }

    fn shorten(&self, call: Call, length: usize) -> Result<usize> {
        let mut guard = self.0.lock().unwrap();
        let (weather, random, struck) = &mut *guard;
        let writes = matches!(call, Call::Write | Call::Create);
        let one_in = |random: &mut fastrand::Rng, chances: u32| random.u32(..chances) == 0;
        let result = match weather {
            Weather::Fair => return Ok(length),
            Weather::Full if writes && one_in(random, 4) => Err(Errno::NOSPC),
            Weather::Broken if one_in(random, 12) => Err(if writes { Errno::NOSPC } else { Errno::IO }),
            _ if call == Call::ReadResident && one_in(random, 3) => Err(Errno::AGAIN),
            // Never to nothing, which would be the file's end; of whole pages whole pages, as O_DIRECT has it.
            _ if length > PAGE && length.is_multiple_of(PAGE) && one_in(random, 2) => {
                Ok(random.usize(1..length / PAGE) * PAGE)
            }
            _ if length > 1 && !length.is_multiple_of(PAGE) && one_in(random, 2) => {
                Ok(random.usize(1..length))
            }
            _ => return Ok(length),
        };
        *struck += 1;
        result
    }
}

thread_local! {
    static PLAN: RefCell<Option<Arc<Plan>>> = const { RefCell::new(None) };
}

/// A plan for this thread, and for those whose start is given [`present`]'s.
pub fn begin() -> Arc<Plan> {
    let plan = Arc::new(Plan(Mutex::new((Weather::Fair, fastrand::Rng::with_seed(0), 0))));
    follow(Some(plan.clone()));
    plan
}

/// The plan of this thread.
pub fn present() -> Option<Arc<Plan>> {
    PLAN.with_borrow(Clone::clone)
}

/// Has this thread follow a plan.
pub fn follow(plan: Option<Arc<Plan>>) {
    PLAN.set(plan);
}

/// How many of `length` units this call may do.
pub fn shorten(call: Call, length: usize) -> Result<usize> {
    PLAN.with_borrow(|plan| plan.as_ref().map_or(Ok(length), |plan| plan.shorten(call, length)))
}
