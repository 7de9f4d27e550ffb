//! What the engine is given at every step: the frozen site, and what the shell lends.

use crate::base::clock::{Now, RenderedDates};
use crate::base::log::LogQueue;

use super::site::Site;

/// What a worker lends to every exchange: the clock, randomness, log queues, scratch memory. Owned by the worker,
/// brought up to date once per loop turn.
pub struct Env {
    /// The time of this loop turn.
    pub now: Now,
    /// That time as text.
    pub dates: RenderedDates,
    /// Lines on their way to the log sinks.
    pub logs: LogQueue,
    /// Random numbers for identifiers and choices; not for secrets.
    pub random: fastrand::Rng,
    /// Process identifier (`$pid`).
    pub process: u32,
    /// Host name (`$hostname`).
    pub hostname: Box<[u8]>,
    /// Recycled buffers for values that are used at once.
    scratch: Vec<Vec<u8>>,
}

/// Buffers kept for re-use; more than this are given back to the allocator.
const SCRATCH_KEPT: usize = 16;
/// A recycled buffer larger than this (bytes) is given back to the allocator.
const SCRATCH_LARGEST: usize = 64 * 1024;

impl Env {
    /// An environment for one worker.
    pub fn new(
        now: Now,
        dates: RenderedDates,
        logs: LogQueue,
        seed: u64,
        process: u32,
        hostname: &[u8],
    ) -> Env {
        Env {
            now,
            dates,
            logs,
            random: fastrand::Rng::with_seed(seed),
            process,
            hostname: hostname.into(),
            scratch: Vec::new(),
        }
    }

    /// An empty buffer; hand it back with [`Env::give_back`].
    pub fn scratch(&mut self) -> Vec<u8> {
        self.scratch.pop().unwrap_or_default()
    }

    /// Takes a scratch buffer back for re-use.
    pub fn give_back(&mut self, mut buffer: Vec<u8>) {
        if self.scratch.len() < SCRATCH_KEPT && buffer.capacity() <= SCRATCH_LARGEST {
            buffer.clear();
            self.scratch.push(buffer);
        }
    }
}

/// The two things that every handler, filter and variable gets beside the exchange.
pub struct Context<'a> {
    /// The site that the request started with.
    pub site: &'a Site,
    /// What the worker lends.
    pub env: &'a mut Env,
}
