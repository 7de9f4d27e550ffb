//! Signals as events: they are blocked for good and read from a descriptor, with their senders.
//!
//! No handler ever runs. So a fork has no moment in which a signal for the child reaches the parent's pipe, a blocking
//! call in a worker is never interrupted, and nothing has to be async-signal-safe.

use crate::server::sys;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// TERM, INT: end at once.
    Terminate,
    /// QUIT: finish requests, then end.
    Quit,
    /// HUP.
    Reload,
    /// USR1.
    ReopenLogs,
    /// USR2.
    Upgrade,
    /// WINCH: finish requests, but stay ready to start again.
    StopServing,
    /// CHLD.
    ChildEnded,
}

/// A signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    pub request: Request,
    /// For the log: `1 (SIGHUP)`.
    pub name: &'static str,
    /// The process that sent it; 0 for the kernel.
    pub sender: u32,
}

const TABLE: [(i32, Request, &str); 8] = [
    (libc::SIGTERM, Request::Terminate, "15 (SIGTERM)"),
    (libc::SIGINT, Request::Terminate, "2 (SIGINT)"),
    (libc::SIGQUIT, Request::Quit, "3 (SIGQUIT)"),
    (libc::SIGHUP, Request::Reload, "1 (SIGHUP)"),
    (libc::SIGUSR1, Request::ReopenLogs, "10 (SIGUSR1)"),
    (libc::SIGUSR2, Request::Upgrade, "12 (SIGUSR2)"),
    (libc::SIGWINCH, Request::StopServing, "28 (SIGWINCH)"),
    (libc::SIGCHLD, Request::ChildEnded, "17 (SIGCHLD)"),
];

fn handled() -> Vec<i32> {
    TABLE.iter().map(|(number, _, _)| *number).collect()
}

/// Where this process reads its signals from. A forked process makes its own.
#[derive(Debug)]
pub struct Signals {
    descriptor: OwnedFd,
}

impl Signals {
    /// Has the signals wait, for this thread and all that come after it, until a descriptor is there to read them from:
    /// whatever is done from here on is undone at the end.
    pub fn block() -> io::Result<()> {
        sys::block_signals(&handled())
    }

    /// Blocks the signals and opens the descriptor.
    pub fn open() -> io::Result<Self> {
        sys::ignore_file_size_signal();
        Self::block()?;
        Ok(Self { descriptor: sys::signal_descriptor(&handled())? })
    }

    /// Lets all signals through again, for a program that is about to be executed.
    pub fn unblock() -> io::Result<()> {
        sys::block_signals(&[])
    }

    /// The next signal that came, if there is one.
    pub fn next(&self) -> Option<Received> {
        // struct signalfd_siginfo: ssi_signo, ssi_errno, ssi_code, ssi_pid, and 112 bytes more.
        let mut info = [0; 128];
        loop {
            let read = rustix::io::read(&self.descriptor, &mut info).ok()?;
            if read != info.len() {
                return None;
            }
            let word = |at: usize| u32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
            let number = word(0);
            if let Some(&(_, request, name)) =
                TABLE.iter().find(|(known, _, _)| known.cast_unsigned() == number)
            {
                return Some(Received { request, name, sender: word(12) });
            }
        }
    }

    /// Waits until a signal came, one of the descriptors is readable (or closed by its other side), or the time is over.
    pub fn wait(&self, descriptors: &[BorrowedFd<'_>], timeout: Option<Duration>) {
        let mut polled = vec![PollFd::new(&self.descriptor, PollFlags::IN)];
        polled.extend(
            descriptors.iter().map(|descriptor| PollFd::from_borrowed_fd(*descriptor, PollFlags::IN)),
        );
        let timeout = timeout.and_then(|time| {
            Some(Timespec {
                tv_sec: i64::try_from(time.as_secs()).ok()?,
                tv_nsec: time.subsec_nanos().into(),
            })
        });
        // An error here (no memory) makes the caller look and wait again.
        let _ = poll(&mut polled, timeout.as_ref());
    }
}
