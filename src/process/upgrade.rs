//! Binary upgrade: a new program is executed with the listening sockets, and finds them by a variable of its
//! environment.

use super::signals::Signals;
use crate::server::listeners::ListenerSet;
use crate::server::sys::{self, Forked};
use rustix::process::Pid;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The numbers of the inherited descriptors, each followed by `;`.
const VARIABLE: &str = "THALWEG_LISTEN";

/// Takes the sockets that an older binary handed over; `None` when there is none. To be called first of all.
pub fn inherited() -> Option<ListenerSet> {
    let value = std::env::var(VARIABLE).ok()?;
    Some(ListenerSet::from_descriptors(sys::adopt_inherited_descriptors(&parse(&value))))
}

/// What is no number is left out: the variable may come from anybody.
fn parse(value: &str) -> Vec<RawFd> {
    value.split(';').filter_map(|number| number.parse().ok()).collect()
}

/// The program and arguments of this process, to be read before the title overwrites them.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// The path as it was called and not the file behind its links, so that a link that points elsewhere by then leads
    /// to the new version.
    pub fn new(arguments: Vec<OsString>, current_folder: &Path) -> Self {
        let name = arguments.first().map(PathBuf::from).unwrap_or_default();
        let path = if name.components().count() > 1 || name.is_absolute() {
            current_folder.join(&name)
        } else {
            let search = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&search)
                .map(|folder| folder.join(&name))
                .find(|path| path.is_file())
                .or_else(|| std::env::current_exe().ok())
                .unwrap_or(name)
        };
        Self { path, arguments }
    }

    /// The command line, for the title.
    pub fn command_line(&self) -> String {
        let words: Vec<_> = self.arguments.iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }

    /// Starts the program anew with these sockets and this environment. What goes wrong after the fork is seen as the
    /// end of the new process.
    pub fn start(&self, listeners: &ListenerSet, environment: &[(String, String)]) -> io::Result<Pid> {
        match sys::fork()? {
            Forked::Parent(pid) => Ok(pid),
            Forked::Child => {
                let error = self.execute(listeners, environment);
                eprintln!(
                    "thalweg: [alert] execve() failed while executing {} ({error})",
                    self.path.display()
                );
                std::process::exit(1);
            }
        }
    }

    fn execute(&self, listeners: &ListenerSet, environment: &[(String, String)]) -> io::Error {
        let mut list = String::new();
        for descriptor in listeners.descriptors() {
            if let Err(error) = rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty()) {
                return error.into();
            }
            list.push_str(&format!("{};", descriptor.as_raw_fd()));
        }
        if let Err(error) = Signals::unblock() {
            return error;
        }
        let mut command = Command::new(&self.path);
        if let Some((name, rest)) = self.arguments.split_first() {
            command.arg0(name).args(rest);
        }
        command.env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
        command.env(VARIABLE, list).exec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_descriptors_may_be_nonsense() {
        assert_eq!(parse("5;7;"), [5, 7]);
        assert_eq!(parse("5;x;;-1;99999999999"), [5, -1]);
    }

    #[test]
    fn a_relative_program_is_found_from_anywhere() {
        let program = Program::new(vec!["bin/a".into(), "-c".into(), "x".into()], Path::new("/srv"));
        assert_eq!(program.path, Path::new("/srv/bin/a"));
        assert_eq!(program.command_line(), "bin/a -c x");
        let found = Program::new(vec!["sh".into()], Path::new("/srv")).path;
        assert!(found.is_absolute() && found.ends_with("sh"));
    }
}
