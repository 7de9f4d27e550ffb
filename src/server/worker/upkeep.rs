//! What a worker sees to beside its connections: its logs, and memory, sockets and sites that nobody uses any more.

use std::sync::Arc;

use crate::base::level::Level;
use crate::http::site::SiteWatch;
use crate::server::logs::{LogSinks, LogTime};
use crate::server::relay::multiplexed;

use super::Worker;

/// How often the file caches look for what has become old, in milliseconds.
pub(super) const SWEEP_MS: u64 = 1000;

/// From so many clients on, memory is given back when they have gone.
const RUSH: usize = 256;

impl Worker {
    pub(super) fn sweep(&mut self) {
        let now = self.res.env.now;
        if now.monotonic_ms >= self.res.idle.next_deadline_ms() {
            self.res.idle.sweep(now.monotonic_ms, &mut self.res.links);
        }
        if now.monotonic_ms >= self.res.multiplexed.next_deadline_ms() {
            multiplexed::sweep(&mut self.res);
        }
        if now.monotonic_ms >= self.next_sweep_ms {
            self.next_sweep_ms = now.monotonic_ms + SWEEP_MS;
            self.res.files.sweep(now.into());
            self.forget_sites();
            self.log_refusals();
            self.give_memory_back();
        }
    }

    pub(super) fn rush_is_over(&self) -> bool {
        self.most_clients >= RUSH && self.clients.len() < self.most_clients / 4
    }

    /// After a rush, what it has taken is given back. That locks the heap for a moment, and is done by a thread of its own
    /// that is there for it alone: the pool's may be busy with the disk.
    fn give_memory_back(&mut self) {
        if self.rush_is_over() {
            self.most_clients = self.clients.len();
            self.clients.shrink_to_fit();
            // Without it the memory is kept for the next rush, which does no harm.
            let _ = std::thread::Builder::new().name("trim".into()).spawn(crate::server::sys::trim_heap);
        }
    }

    /// When no request of a former site is left, the logs that only it named are closed.
    fn forget_sites(&mut self) {
        if self.former_sites.is_empty() {
            return;
        }
        self.former_sites.retain(SiteWatch::is_in_use);
        if self.former_sites.is_empty() {
            let logs = Arc::clone(&self.logs);
            self.with_log_time(|sinks, time| sinks.retain_only(&logs, time));
        }
    }

    pub(super) fn adopt_logs(&mut self) {
        let logs = Arc::clone(&self.logs);
        self.with_log_time(|sinks, time| sinks.adopt(&logs, time));
    }

    pub(super) fn with_log_time(&mut self, act: impl FnOnce(&mut LogSinks, LogTime<'_>)) {
        let time = LogTime { now_ms: self.res.env.now.monotonic_ms, text: self.res.env.dates.error_log() };
        act(&mut self.sinks, time);
    }

    /// Writes what this round has logged.
    pub(super) fn write_logs(&mut self) {
        let env = &mut self.res.env;
        let time = LogTime { now_ms: env.now.monotonic_ms, text: env.dates.error_log() };
        self.sinks.write_access(&mut env.access, time);
        self.sinks.write_errors(&mut env.logs, time);
        self.sinks.end_of_turn(time);
        if self.sinks.has_reports() {
            for report in self.sinks.take_reports() {
                self.log(report.level, &report.text);
            }
        }
    }

    /// Logs about the worker itself, to the main error log.
    pub(super) fn log(&mut self, level: Level, text: &str) {
        let targets = self.res.site.error_log.clone();
        self.res.env.logs.push(&targets, level, None, format_args!("{text}"));
    }
}
