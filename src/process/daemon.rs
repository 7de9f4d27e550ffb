//! Leaving the terminal.

use super::signals::Signals;
use super::startup_log::StartupLog;
use crate::server::listeners::describe;
use crate::server::sys::{self, Forked};
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

/// What the started process waits for: it ends when its background copy is up, so that whoever started it finds the pid
/// file and a serving port.
#[derive(Debug)]
pub struct Notice {
    pipe: OwnedFd,
}

impl Notice {
    /// The background process is up: the first process ends well. Dropping this instead makes it end with an error.
    pub fn is_up(self) {
        let _ = rustix::io::write(&self.pipe, b"+");
    }
}

/// Which process this is after [`leave`].
#[derive(Debug)]
pub enum Side {
    /// The one in the background.
    Background(Notice),
    /// The one that was started, with its exit status.
    Started(i32),
}

/// Goes on in a process without a terminal. The started one waits until that process is up or ended.
pub fn leave() -> io::Result<Side> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    match sys::fork()? {
        Forked::Child => {
            drop(read);
            rustix::process::setsid()?;
            Ok(Side::Background(Notice { pipe: write }))
        }
        Forked::Parent(_) => {
            drop(write);
            // Whoever waits for this process may end it.
            Signals::unblock()?;
            let mut byte = [0];
            let got = loop {
                match rustix::io::read(&read, &mut byte) {
                    Err(rustix::io::Errno::INTR) => {}
                    result => break result,
                }
            };
            Ok(Side::Started(if got == Ok(1) { 0 } else { 1 }))
        }
    }
}

/// Lets go of the terminal's streams. What would go to standard error (a panic) goes to the error log.
pub fn release_streams(log: &StartupLog) -> Result<(), String> {
    let failed = |error: io::Error| format!("open() \"/dev/null\" failed ({})", describe(&error));
    let nothing = File::options().read(true).write(true).open("/dev/null").map_err(failed)?;
    rustix::stdio::dup2_stdin(&nothing).map_err(|error| failed(error.into()))?;
    rustix::stdio::dup2_stdout(&nothing).map_err(|error| failed(error.into()))?;
    if let Some(file) = log.first_file() {
        rustix::stdio::dup2_stderr(file).map_err(|error| failed(error.into()))?;
    }
    Ok(())
}
