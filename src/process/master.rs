//! The master: one thread, no configuration, few lines. It holds the listening sockets and the text of what runs, starts
//! the server process, starts it anew when it dies, and passes signals on.
//!
//! Because it has a single thread, a fork without exec gives the child a consistent copy of everything.

use super::channel::{KeptState, MasterEnd, News, ServerEnd, pair};
use super::configuration::Source;
use super::limits;
use super::pid_file::PidFile;
use super::server_process::{self, FATAL};
use super::signals::{Received, Request, Signals};
use super::startup_log::StartupLog;
use super::upgrade::Program;
use crate::base::level::Level;
use crate::http::site::Site;
use crate::server::listeners::{ListenerSet, describe};
use crate::server::sys::{self, Forked};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// A server process that lives shorter than this died "at once".
const SHORT_LIFE: Duration = Duration::from_secs(1);

/// So many deaths at once in a row are answered without a pause.
const PATIENT_RESTARTS: u32 = 3;

/// The pauses after that: doubled each time, from the first to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long a server process that was told to end at once may take before it is killed. nginx's value.
const KILL_AFTER: Duration = Duration::from_secs(1);

/// What the master starts with.
pub struct Start {
    pub source: Source,
    /// For the first server process.
    pub site: Site,
    pub state: KeptState,
    pub listeners: ListenerSet,
    pub log: StartupLog,
    pub pid_file: PidFile,
    pub program: Program,
    /// For an upgraded binary.
    pub environment: Vec<(String, String)>,
    pub signals: Signals,
    /// The older master whose sockets these are.
    pub older: Option<Pid>,
    /// Not in the foreground of a terminal, where WINCH means nothing.
    pub in_background: bool,
}

/// Runs until told to end; returns the exit status.
pub fn run(start: Start) -> i32 {
    let mut master = Master {
        source: start.source,
        state: start.state,
        listeners: start.listeners,
        log: start.log,
        pid_file: start.pid_file,
        program: start.program,
        environment: start.environment,
        signals: start.signals,
        older: start.older,
        in_background: start.in_background,
        children: Vec::new(),
        newer: None,
        ending: None,
        resting: false,
        was_ready: false,
        reload_wanted: false,
        short_lives: 0,
        restart_at: None,
    };
    master.start_server(Some(start.site));
    master.watch()
}

/// A server process.
struct Child {
    pid: Pid,
    channel: MasterEnd,
    started: Instant,
    /// It was told to finish; its end is no surprise.
    finishing: bool,
}

/// The way to the end.
#[derive(Clone, Copy)]
enum Ending {
    /// Server processes finish their requests.
    Graceful,
    /// They were told to end at once, and are killed at this time.
    AtOnce { kill_at: Option<Instant> },
}

struct Master {
    source: Source,
    state: KeptState,
    listeners: ListenerSet,
    log: StartupLog,
    pid_file: PidFile,
    program: Program,
    environment: Vec<(String, String)>,
    signals: Signals,
    older: Option<Pid>,
    in_background: bool,
    /// The one that serves, and those that finish.
    children: Vec<Child>,
    /// The master of an upgraded binary.
    newer: Option<Pid>,
    ending: Option<Ending>,
    /// WINCH: no server process until HUP, or until the newer binary is gone.
    resting: bool,
    /// A server process has served once.
    was_ready: bool,
    /// HUP came while there was no server process.
    reload_wanted: bool,
    /// Server processes in a row that died at once.
    short_lives: u32,
    restart_at: Option<Instant>,
}

impl Master {
    fn watch(&mut self) -> i32 {
        loop {
            while let Some(signal) = self.signals.next() {
                self.take(signal);
            }
            self.hear_news();
            if let Some(status) = self.collect_children() {
                return self.end(status);
            }
            if self.ending.is_some() && self.children.is_empty() {
                self.log.write(Level::Notice, "exit");
                return self.end(0);
            }
            let now = Instant::now();
            if self.restart_at.is_some_and(|at| now >= at) {
                self.start_server(None);
            }
            if let Some(Ending::AtOnce { kill_at: Some(at) }) = self.ending
                && now >= at
            {
                self.tell_all(Signal::KILL);
                self.ending = Some(Ending::AtOnce { kill_at: None });
            }
            self.wait();
        }
    }

    fn wait(&self) {
        let kill_at = match self.ending {
            Some(Ending::AtOnce { kill_at }) => kill_at,
            _ => None,
        };
        let next = self.restart_at.into_iter().chain(kill_at).min();
        let timeout = next.map(|at| at.saturating_duration_since(Instant::now()));
        let channels: Vec<BorrowedFd<'_>> =
            self.children.iter().filter_map(|child| child.channel.descriptor()).collect();
        self.signals.wait(&channels, timeout);
    }

    fn take(&mut self, signal: Received) {
        if signal.request != Request::ChildEnded {
            let by = match signal.sender {
                0 => String::new(),
                sender => format!(" from {sender}"),
            };
            self.log.write(Level::Notice, &format!("signal {} received{by}", signal.name));
        }
        match signal.request {
            Request::Terminate => {
                self.ending = Some(Ending::AtOnce { kill_at: Some(Instant::now() + KILL_AFTER) });
                self.stop_serving(Signal::TERM);
            }
            Request::Quit if self.ending.is_none() => {
                self.ending = Some(Ending::Graceful);
                self.stop_serving(Signal::QUIT);
                // Nobody shall wait in a queue that nobody reads. Newer and older binaries have copies of their own.
                self.remove_unix_sockets();
                self.listeners = ListenerSet::default();
            }
            Request::StopServing if self.ending.is_none() && self.in_background => {
                self.resting = true;
                self.stop_serving(Signal::QUIT);
            }
            Request::Reload if self.ending.is_none() => self.reload(),
            Request::ReopenLogs => {
                self.log.write(Level::Notice, "reopening logs");
                self.log.reopen();
                self.tell_all(Signal::USR1);
            }
            Request::Upgrade if self.ending.is_none() => self.upgrade(),
            Request::Quit
            | Request::StopServing
            | Request::Reload
            | Request::Upgrade
            | Request::ChildEnded => {}
        }
    }

    /// No server process shall go on, and none be started.
    fn stop_serving(&mut self, signal: Signal) {
        self.restart_at = None;
        for child in &mut self.children {
            child.finishing = true;
        }
        self.tell_all(signal);
    }

    fn tell_all(&self, signal: Signal) {
        for child in &self.children {
            // It may have ended; then it is collected next.
            let _ = kill_process(child.pid, signal);
        }
    }

    fn reload(&mut self) {
        if self.resting {
            // As in nginx, the old binary comes back with what it ran before the upgrade.
            self.resting = false;
            self.reload_wanted = self.newer.is_none();
            self.start_server(None);
            return;
        }
        match self.children.iter().find(|child| !child.finishing) {
            Some(child) => {
                let _ = kill_process(child.pid, Signal::HUP);
            }
            None => self.reload_wanted = true,
        }
    }

    fn upgrade(&mut self) {
        let older_is_there = self.older.is_some() && self.older == rustix::process::getppid();
        if self.newer.is_some() || older_is_there {
            self.log.write(
                Level::Crit,
                "the changing binary signal is ignored: you should shutdown or terminate before either old or new \
                 binary's process",
            );
            return;
        }
        self.log.write(Level::Notice, "changing binary");
        if let Err(problem) = self.pid_file.step_aside() {
            self.log.write(Level::Alert, &problem);
            return;
        }
        match self.program.start(&self.listeners, &self.environment) {
            Ok(pid) => {
                self.newer = Some(pid);
                self.log.write(Level::Notice, &format!("start new binary process {}", pid.as_raw_nonzero()));
            }
            Err(error) => {
                self.log.write(Level::Alert, &format!("fork() failed ({})", describe(&error)));
                self.newer_is_gone();
            }
        }
    }

    fn newer_is_gone(&mut self) {
        self.newer = None;
        if let Err(problem) = self.pid_file.come_back() {
            self.log.write(Level::Alert, &problem);
        }
    }

    /// Starts the server process, from the given site or from the text that is kept.
    fn start_server(&mut self, site: Option<Site>) {
        self.restart_at = None;
        let forked = pair().and_then(|(channel, server_end)| Ok((channel, server_end, sys::fork()?)));
        match forked {
            Ok((channel, server_end, Forked::Child)) => {
                drop(channel);
                std::process::exit(self.be_server(site, server_end));
            }
            Ok((channel, _, Forked::Parent(pid))) => {
                self.log.write(Level::Notice, &format!("start server process {}", pid.as_raw_nonzero()));
                self.children.push(Child { pid, channel, started: Instant::now(), finishing: false });
                if std::mem::take(&mut self.reload_wanted) {
                    let _ = kill_process(pid, Signal::HUP);
                }
            }
            Err(error) => {
                self.log.write(Level::Alert, &format!("fork() failed while spawning ({})", describe(&error)));
                self.restart_later();
            }
        }
    }

    /// The life of the child.
    fn be_server(&mut self, site: Option<Site>, server_end: ServerEnd) -> i32 {
        self.children.clear();
        let _ = sys::set_process_title("thalweg: server process");
        let log = std::mem::replace(&mut self.log, StartupLog::silent());
        let signals = match Signals::open() {
            Ok(signals) => signals,
            Err(error) => {
                log.write(Level::Emerg, &format!("signalfd() failed ({})", describe(&error)));
                return FATAL;
            }
        };
        let site = match site.map_or_else(|| self.source.rebuild(&self.state.text), Ok) {
            Ok(site) => site,
            Err(errors) => {
                for line in errors.lines {
                    log.write(Level::Emerg, &line);
                }
                return FATAL;
            }
        };
        self.state = KeptState::default();
        server_process::run(server_process::Start {
            source: self.source.clone(),
            site,
            listeners: std::mem::take(&mut self.listeners),
            log,
            master: Some(server_end),
            signals,
        })
    }

    /// Takes what the server processes said.
    fn hear_news(&mut self) {
        let mut news = Vec::new();
        for child in &mut self.children {
            while let Some(item) = child.channel.receive() {
                // What one that finishes did last is of the past.
                if !child.finishing || matches!(item, News::Ready) {
                    news.push(item);
                }
            }
        }
        for item in news {
            match item {
                News::Ready => self.was_ready = true,
                News::Running(state, listeners) => self.keep(state, listeners),
            }
        }
    }

    fn keep(&mut self, state: KeptState, listeners: ListenerSet) {
        if let Err(problem) = self.log.open(&self.source.paths, &state.error_logs) {
            self.log.write(Level::Alert, &problem);
        }
        if self.newer.is_none()
            && let Err(problem) = self.pid_file.change(state.pid_path.clone())
        {
            self.log.write(Level::Alert, &problem);
        }
        self.state = state;
        self.listeners = listeners;
    }

    /// Takes note of processes that ended. An exit status means that the master ends, too.
    fn collect_children(&mut self) -> Option<i32> {
        while let Ok(Some((pid, status))) = waitpid(None, WaitOptions::NOHANG) {
            let number = pid.as_raw_nonzero();
            if self.newer == Some(pid) {
                self.log
                    .write(Level::Notice, &format!("new binary process {number} {}", describe_end(status)));
                self.newer_is_gone();
                if std::mem::take(&mut self.resting) {
                    self.start_server(None);
                }
                continue;
            }
            // Its last words may be a reload.
            self.hear_news();
            let Some(place) = self.children.iter().position(|child| child.pid == pid) else { continue };
            let child = self.children.swap_remove(place);
            let expected = child.finishing || status.exit_status() == Some(0);
            let level = if expected { Level::Notice } else { Level::Alert };
            self.log.write(level, &format!("server process {number} {}", describe_end(status)));
            if child.finishing || self.ending.is_some() {
                continue;
            }
            if status.exit_status() == Some(FATAL) && !self.was_ready {
                return Some(1);
            }
            self.short_lives = if child.started.elapsed() < SHORT_LIFE { self.short_lives + 1 } else { 0 };
            self.restart_later();
        }
        None
    }

    /// Plans the next server process: now, or later if the last ones died at once.
    fn restart_later(&mut self) {
        self.restart_at = Some(Instant::now() + pause_after(self.short_lives));
    }

    fn end(&mut self, status: i32) -> i32 {
        self.tell_all(Signal::TERM);
        self.remove_unix_sockets();
        self.pid_file.remove();
        status
    }

    /// Removes the files of Unix sockets, unless another master still serves from them.
    fn remove_unix_sockets(&self) {
        let older_is_there = self.older.is_some() && self.older == rustix::process::getppid();
        if self.newer.is_some() || older_is_there {
            return;
        }
        for path in self.listeners.unix_paths_not_in(&ListenerSet::default()) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// How long to wait before the next server process, after so many died at once in a row.
fn pause_after(short_lives: u32) -> Duration {
    match short_lives.checked_sub(PATIENT_RESTARTS + 1) {
        None => Duration::ZERO,
        Some(doublings) => FIRST_PAUSE.saturating_mul(1 << doublings.min(16)).min(LONGEST_PAUSE),
    }
}

/// nginx's words: `exited with code 0`, `exited on signal 9`.
fn describe_end(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("exited on signal {signal}"),
        (None, None) => "changed its state".to_owned(),
    }
}

/// The environment for an upgraded binary.
pub fn upgrade_environment(site: &Site) -> Vec<(String, String)> {
    limits::environment(&site.main)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_begin_late_grow_and_stay_bounded() {
        assert_eq!(pause_after(0), Duration::ZERO);
        assert_eq!(pause_after(PATIENT_RESTARTS), Duration::ZERO);
        assert_eq!(pause_after(PATIENT_RESTARTS + 1), FIRST_PAUSE);
        assert_eq!(pause_after(PATIENT_RESTARTS + 2), FIRST_PAUSE * 2);
        assert_eq!(pause_after(u32::MAX), LONGEST_PAUSE);
    }
}
