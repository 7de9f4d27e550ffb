//! Log sinks: where lines of access logs and error logs leave the worker.
//!
//! The main thread opens the files ([`OpenLogs`]) and hands them to every worker; each worker has its own [`LogSinks`]:
//!
//! 1. [`LogSinks::adopt`] takes the opened targets of a configuration, at the start, after a reload and after USR1;
//! 2. during a turn, access lines gather in an [`AccessQueue`], and messages in a [`LogQueue`];
//! 3. [`LogSinks::write_access`] and [`LogSinks::write_errors`] empty them, then [`LogSinks::end_of_turn`] writes what
//!    is due, one write a file;
//! 4. [`LogSinks::next_deadline`] says when `end_of_turn` has work although nothing else happens;
//! 5. [`LogSinks::take_reports`] gives back what went wrong, for the main error log;
//! 6. when no request of an old configuration is left, [`LogSinks::retain_only`] closes what only that one named;
//! 7. [`LogSinks::flush_all`] before the worker ends.
//!
//! No call waits for a reader or for a full disk; see [`mod@file`] and [`sink`] for what happens then.

pub mod file;
pub mod gzip;
mod open;
mod paths;
mod report;
pub mod sink;
mod syslog;

pub use file::LogOwner;
pub use open::{LogOpenError, OpenLogs, open_syslog};
pub use report::Report;
pub use syslog::PlainSyslog;

use crate::base::level::Level;
use crate::base::log::{LogQueue, SinkId, render_error_line};
use crate::conf::log_target::OpenLogFileCache;
use crate::http::access_queue::AccessQueue;
use open::Place;
use paths::PathLogs;
use report::Reports;
use sink::FileSink;
use syslog::SyslogSink;

/// The time as the sinks need it.
#[derive(Clone, Copy, Debug)]
pub struct LogTime<'a> {
    /// The turn's monotonic time in milliseconds.
    pub now_ms: u64,
    /// Local time as the error log writes it: `2026/11/21 02:26:00`.
    pub text: &'a [u8; 19],
}

/// One worker's sinks.
#[derive(Debug)]
pub struct LogSinks {
    /// By [`SinkId`]. Numbers are not given anew, so that a place without a sink is one of an earlier configuration.
    sinks: Vec<Option<Box<Sink>>>,
    /// Sinks that the end of the turn writes out.
    dirty: Vec<SinkId>,
    paths: PathLogs,
    reports: Reports,
    /// Earliest time at which any sink is due, or an earlier one.
    due: Option<u64>,
    process: u32,
    thread: u32,
    hostname: Vec<u8>,
    line: Vec<u8>,
}

#[derive(Debug)]
enum Sink {
    File { sink: FileSink, is_dirty: bool },
    Syslog(SyslogSink),
}

impl LogSinks {
    /// No sinks yet. `process` and `thread` are the numbers in error lines.
    pub fn new(process: u32, thread: u32) -> LogSinks {
        // nginx cuts a host name at its first zero byte too, and RFC 3164 has no spaces in it.
        let hostname = rustix::system::uname().nodename().to_bytes().to_vec();
        LogSinks {
            sinks: Vec::new(),
            dirty: Vec::new(),
            paths: PathLogs::default(),
            reports: Reports::default(),
            due: None,
            process,
            thread,
            hostname,
            line: Vec::new(),
        }
    }

    /// Takes the targets of a configuration. Sinks that exist stay with what they have gathered, and take over new
    /// descriptors and options; sinks that `logs` does not name stay too, for requests of the old configuration.
    /// Descriptors kept for paths with variables are closed.
    pub fn adopt(&mut self, logs: &OpenLogs, time: LogTime<'_>) {
        self.end_of_turn(time);
        self.paths.close_all();
        for entry in &logs.entries {
            let index = entry.id.0 as usize;
            if index >= self.sinks.len() {
                self.sinks.resize_with(index + 1, || None);
            }
            match (&mut self.sinks[index], &entry.place) {
                (Some(sink), Place::File { file, .. }) => {
                    if let Sink::File { sink, .. } = &mut **sink {
                        sink.replace(file, entry.options, time.now_ms, &mut self.reports);
                        note_due(&mut self.due, sink.due());
                    }
                }
                // A server's address stays what it was when it was first resolved.
                (Some(_), Place::Syslog { .. }) => {}
                (empty, Place::File { file, name }) => {
                    let sink = FileSink::new(file.clone(), name.clone(), entry.options);
                    *empty = Some(Box::new(Sink::File { sink, is_dirty: false }));
                }
                (empty, Place::Syslog { address, target }) => {
                    let sink = SyslogSink::new(address.clone(), target.clone());
                    *empty = Some(Box::new(Sink::Syslog(sink)));
                }
            }
        }
    }

    /// Writes out and closes the sinks that `logs` does not name.
    pub fn retain_only(&mut self, logs: &OpenLogs, time: LogTime<'_>) {
        for (index, slot) in self.sinks.iter_mut().enumerate() {
            if logs.entries.iter().any(|entry| entry.id.0 as usize == index) {
                continue;
            }
            if let Some(Sink::File { sink, .. }) = slot.as_deref_mut() {
                sink.retry_now();
                sink.flush(time.now_ms, &mut self.reports);
            }
            *slot = None;
        }
    }

    /// Adds a line to an access log; its end is added here. A number without a sink (which only a request that
    /// outlived its configuration's sinks could have) is ignored.
    pub fn write_line(&mut self, id: SinkId, line: &[u8], time: LogTime<'_>) {
        match self.sinks.get_mut(id.0 as usize).and_then(Option::as_deref_mut) {
            None => {}
            Some(Sink::Syslog(sink)) => {
                let level = sink.access_level();
                sink.send(level, line, &self.hostname, time.text, time.now_ms, &mut self.reports);
            }
            Some(Sink::File { sink, is_dirty }) => {
                let wants_turn = sink.append(line, time.now_ms, &mut self.reports);
                if wants_turn && !*is_dirty {
                    *is_dirty = true;
                    self.dirty.push(id);
                }
                note_due(&mut self.due, sink.due());
            }
        }
    }

    /// Adds a line to the access log at `path`, whose name came from a template; its end is added here. `cache` is the
    /// `open_log_file_cache` in force.
    pub fn write_to_path(
        &mut self,
        path: &[u8],
        line: &[u8],
        cache: Option<&OpenLogFileCache>,
        time: LogTime<'_>,
    ) {
        self.paths.append(path, line, cache, time.now_ms, &mut self.reports);
    }

    /// Moves the lines of `queue` to their sinks, and empties it. A log whose path has variables gets its line only if
    /// the request's document root is a folder, as in nginx: else anybody could make files by asking for hosts that
    /// do not exist.
    pub fn write_access(&mut self, queue: &mut AccessQueue, time: LogTime<'_>) {
        if queue.waiting() > 0 {
            for (sink, lines) in queue.sinks() {
                for line in lines.iter() {
                    self.write_line(sink, line, time);
                }
            }
            let mut tested: Option<(&[u8], bool)> = None;
            for entry in queue.paths() {
                let is_folder = match tested {
                    Some((root, is_folder)) if root == entry.root => is_folder,
                    _ => self.test_root(&entry.root),
                };
                tested = Some((&entry.root, is_folder));
                if is_folder {
                    self.write_to_path(&entry.path, &entry.line, entry.cache.as_deref(), time);
                }
            }
        }
        let dropped = queue.clear();
        if dropped > 0 {
            let text = format!("{dropped} lines of access logs were dropped: too many in one turn");
            self.reports.add(Level::Alert, text);
        }
    }

    /// Whether a document root is there and a folder. As in nginx, one that is missing is silent.
    fn test_root(&mut self, root: &[u8]) -> bool {
        use std::os::unix::ffi::OsStrExt;
        match std::fs::metadata(std::ffi::OsStr::from_bytes(root)) {
            Ok(metadata) => metadata.is_dir(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => {
                let root = String::from_utf8_lossy(root);
                let text = format!("testing \"{root}\" existence failed {}", file::error_text(&error));
                self.reports.add(Level::Error, text);
                false
            }
        }
    }

    /// Moves the messages of `queue` to the sinks that take their level, with nginx's prefix, and empties it.
    pub fn write_errors(&mut self, queue: &mut LogQueue, time: LogTime<'_>) {
        if queue.is_empty() {
            return;
        }
        let mut line = std::mem::take(&mut self.line);
        for message in queue.messages() {
            line.clear();
            render_error_line(&mut line, time.text, self.process, self.thread, &message);
            let text = &line[..line.len() - 1];
            for target in message.targets.iter().filter(|target| target.level.admits(message.level)) {
                self.write_error_line(target.sink, message.level, text, time);
            }
        }
        self.line = line;
        let dropped = queue.clear();
        if dropped > 0 {
            self.reports.add(Level::Alert, format!("{dropped} messages were dropped: too many in one turn"));
        }
    }

    fn write_error_line(&mut self, id: SinkId, level: Level, line: &[u8], time: LogTime<'_>) {
        match self.sinks.get_mut(id.0 as usize).and_then(Option::as_deref_mut) {
            Some(Sink::Syslog(sink)) => {
                sink.send(level, line, &self.hostname, time.text, time.now_ms, &mut self.reports);
            }
            _ => self.write_line(id, line, time),
        }
    }

    /// Writes what the turn gathered and what a timer asks for. Costs nothing if there is neither.
    pub fn end_of_turn(&mut self, time: LogTime<'_>) {
        if self.paths.is_waiting() {
            self.paths.flush(time.now_ms, &mut self.reports);
        }
        while let Some(id) = self.dirty.pop() {
            if let Some(Sink::File { sink, is_dirty }) =
                self.sinks.get_mut(id.0 as usize).and_then(Option::as_deref_mut)
            {
                *is_dirty = false;
                sink.flush(time.now_ms, &mut self.reports);
                note_due(&mut self.due, sink.due());
            }
        }
        if self.due.is_some_and(|due| due <= time.now_ms) {
            self.flush_due(time);
        }
        if self.paths.due().is_some_and(|due| due <= time.now_ms) {
            self.paths.expire(time.now_ms);
        }
    }

    fn flush_due(&mut self, time: LogTime<'_>) {
        self.due = None;
        for sink in self.sinks.iter_mut().flatten() {
            let Sink::File { sink, .. } = &mut **sink else { continue };
            if sink.due().is_some_and(|due| due <= time.now_ms) {
                sink.flush(time.now_ms, &mut self.reports);
            }
            note_due(&mut self.due, sink.due());
        }
    }

    /// When [`LogSinks::end_of_turn`] must be called at the latest, in monotonic milliseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        match (self.due, self.paths.due()) {
            (Some(sinks), Some(paths)) => Some(sinks.min(paths)),
            (sinks, paths) => sinks.or(paths),
        }
    }

    /// Writes everything that waits, buffers too. Returns the bytes that no file took (a full disk, a pipe that
    /// nobody reads): they are lost if the worker ends now.
    pub fn flush_all(&mut self, time: LogTime<'_>) -> usize {
        self.paths.flush(time.now_ms, &mut self.reports);
        let mut waiting = 0;
        for sink in self.sinks.iter_mut().flatten() {
            let Sink::File { sink, .. } = &mut **sink else { continue };
            sink.retry_now();
            sink.flush(time.now_ms, &mut self.reports);
            waiting += sink.waiting();
            note_due(&mut self.due, sink.due());
        }
        waiting
    }

    /// True if [`LogSinks::take_reports`] has something.
    pub fn has_reports(&self) -> bool {
        !self.reports.is_empty()
    }

    /// What went wrong with the sinks themselves since the last call; the caller queues it for the main error log.
    pub fn take_reports(&mut self) -> Vec<Report> {
        self.reports.take()
    }
}

fn note_due(due: &mut Option<u64>, other: Option<u64>) {
    *due = match (*due, other) {
        (Some(due), Some(other)) => Some(due.min(other)),
        (due, other) => due.or(other),
    };
}

#[cfg(test)]
mod tests;
