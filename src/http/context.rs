//! What the engine is given at every step: the frozen site, and what the shell lends.

use crate::base::clock::{Now, RenderedDates};
use crate::base::log::LogQueue;
use crate::proto::h2::LIMIT_COUNT;

use super::access_queue::AccessQueue;
use super::exchange::ConnectionFacts;
use super::site::Site;

/// What only the system can tell, for the few variables that show it.
pub trait SystemFacts {
    /// Appends `path` with all symbolic links resolved (`$realpath_root`); else the number of the system's error. It
    /// must not wait for a slow disk longer than a look-up takes.
    fn real_path(&mut self, path: &[u8], out: &mut Vec<u8>) -> Result<(), i32>;

    /// What the kernel measured on a connection (`$tcpinfo_*`); `None` for one that is not TCP.
    fn tcp_info(&mut self, connection: &ConnectionFacts) -> Option<TcpInfo>;

    /// How many connections and requests there were and are, in all workers together.
    fn connections(&self) -> ConnectionCounts {
        ConnectionCounts::default()
    }
}

/// Numbers of connections and requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionCounts {
    /// Connections that were accepted. All of them are handled, or they are not accepted at all.
    pub accepted: u64,
    /// Requests.
    pub requests: u64,
    /// Connections that are open.
    pub active: u64,
    /// Those within a request head.
    pub reading: u64,
    /// Those being served.
    pub writing: u64,
    /// Bodies that were refused for `client_body_min_rate`.
    pub slow_bodies: u64,
    /// Readers that were cut off for `send_min_rate`.
    pub slow_readers: u64,
    /// Connections that were refused for `client_connections_max`; they are not among those accepted.
    pub refused: u64,
    /// Connections that each of HTTP/2's limits has closed, in the order of [`Limit::ALL`](crate::proto::h2::Limit::ALL).
    pub http2_limits: [u64; LIMIT_COUNT],
}

impl ConnectionCounts {
    /// Connections between requests. Each number is read on its own while others change, so that the rest may seem
    /// less than nothing for a moment.
    pub fn waiting(&self) -> u64 {
        self.active.saturating_sub(self.reading).saturating_sub(self.writing)
    }
}

impl std::ops::Add for ConnectionCounts {
    type Output = ConnectionCounts;

    fn add(self, other: ConnectionCounts) -> ConnectionCounts {
        ConnectionCounts {
            accepted: self.accepted + other.accepted,
            requests: self.requests + other.requests,
            active: self.active + other.active,
            reading: self.reading + other.reading,
            writing: self.writing + other.writing,
            slow_bodies: self.slow_bodies + other.slow_bodies,
            slow_readers: self.slow_readers + other.slow_readers,
            refused: self.refused + other.refused,
            http2_limits: std::array::from_fn(|limit| self.http2_limits[limit] + other.http2_limits[limit]),
        }
    }
}

/// Measures of a TCP connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// Smoothed round-trip time, in microseconds.
    pub round_trip_us: u32,
    /// Its variation, in microseconds.
    pub round_trip_variation_us: u32,
    /// Congestion window, in segments.
    pub send_window: u32,
    /// Space of the receive buffer, in bytes.
    pub receive_space: u32,
}

/// A system that tells nothing: every path is missing, no connection is TCP.
struct UnknownSystem;

/// `ENOENT`, the same on every Linux.
const NO_ENTRY: i32 = 2;

impl SystemFacts for UnknownSystem {
    fn real_path(&mut self, _: &[u8], _: &mut Vec<u8>) -> Result<(), i32> {
        Err(NO_ENTRY)
    }

    fn tcp_info(&mut self, _: &ConnectionFacts) -> Option<TcpInfo> {
        None
    }
}

/// What a worker lends to every exchange: the clock, randomness, log queues, scratch memory. Owned by the worker,
/// brought up to date once per loop turn.
pub struct Env {
    /// The time of this loop turn.
    pub now: Now,
    /// That time as text.
    pub dates: RenderedDates,
    /// Lines on their way to the log sinks.
    pub logs: LogQueue,
    /// Lines of access logs on their way to the log sinks.
    pub access: AccessQueue,
    /// What only the system can tell; the shell puts its own in.
    pub system: Box<dyn SystemFacts>,
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
            access: AccessQueue::default(),
            system: Box::new(UnknownSystem),
            random: fastrand::Rng::with_seed(seed),
            process,
            hostname: hostname.into(),
            scratch: Vec::new(),
        }
    }

    /// Takes the time of a new loop turn.
    pub fn tick(&mut self, now: Now) {
        self.now = now;
        self.dates.update(now);
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
