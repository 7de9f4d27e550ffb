//! The file that names the master process, and `-s`, which reads it.

use super::invocation::Order;
use crate::server::listeners::describe;
use rustix::process::{Pid, Signal, kill_process};
use std::io;
use std::path::{Path, PathBuf};

/// How the file is called while a newer binary has the name, as in nginx.
const OLD_SUFFIX: &str = ".oldbin";

fn failed(call: &str, path: &Path, error: &io::Error) -> String {
    format!("{call} \"{}\" failed ({})", path.display(), describe(error))
}

/// The pid file of this process. Removed by [`PidFile::remove`] alone: a process that is killed leaves it.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Writes this process's id.
    pub fn create(path: PathBuf) -> Result<Self, String> {
        let text = format!("{}\n", std::process::id());
        std::fs::write(&path, text).map_err(|error| failed("open()", &path, &error))?;
        Ok(Self { path })
    }

    /// Makes room for a newer binary's file.
    pub fn step_aside(&mut self) -> Result<(), String> {
        let mut aside = self.path.clone().into_os_string();
        aside.push(OLD_SUFFIX);
        self.rename(aside.into())
    }

    /// Takes the name back.
    pub fn come_back(&mut self) -> Result<(), String> {
        match self.path.to_str().and_then(|path| path.strip_suffix(OLD_SUFFIX)) {
            Some(name) => self.rename(name.into()),
            None => Ok(()),
        }
    }

    fn rename(&mut self, to: PathBuf) -> Result<(), String> {
        std::fs::rename(&self.path, &to).map_err(|error| failed("rename()", &self.path, &error))?;
        self.path = to;
        Ok(())
    }

    /// Moves to another path after a reload.
    pub fn change(&mut self, path: PathBuf) -> Result<(), String> {
        if path != self.path {
            let new = Self::create(path)?;
            std::mem::replace(self, new).remove();
        }
        Ok(())
    }

    /// Removes the file, if it still names this process.
    pub fn remove(&self) {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        if text.trim() == std::process::id().to_string() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Sends what `-s` says to the process that the file names. The error is nginx's message with its level.
pub fn send(order: Order, path: &Path) -> Result<(), (crate::base::level::Level, String)> {
    use crate::base::level::Level;
    let text = std::fs::read(path).map_err(|error| (Level::Error, failed("open()", path, &error)))?;
    let text = String::from_utf8_lossy(&text);
    let number = text.trim_end_matches(['\r', '\n']);
    let valid = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let pid = number.parse().ok().filter(|_| valid).and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| {
        (Level::Error, format!("invalid PID number \"{number}\" in \"{}\"", path.display()))
    })?;
    let (signal, value) = match order {
        Order::Stop => (Signal::TERM, libc::SIGTERM),
        Order::Quit => (Signal::QUIT, libc::SIGQUIT),
        Order::Reload => (Signal::HUP, libc::SIGHUP),
        Order::Reopen => (Signal::USR1, libc::SIGUSR1),
    };
    kill_process(pid, signal).map_err(|error| {
        (Level::Alert, format!("kill({number}, {value}) failed ({})", describe(&error.into())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::level::Level;

    #[test]
    fn the_file_steps_aside_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pid");
        let mut file = PidFile::create(path.clone()).unwrap();
        file.step_aside().unwrap();
        assert!(!path.exists() && folder.path().join("a.pid.oldbin").exists());
        file.come_back().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        let other = folder.path().join("b.pid");
        file.change(other.clone()).unwrap();
        assert!(!path.exists() && other.exists());
        file.remove();
        assert!(!other.exists());
    }

    #[test]
    fn a_file_that_names_another_process_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pid");
        let file = PidFile::create(path.clone()).unwrap();
        std::fs::write(&path, "1\n").unwrap();
        file.remove();
        assert!(path.exists());
    }

    #[test]
    fn orders_fail_in_nginx_s_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pid");
        let shown = path.display();
        let missing = format!("open() \"{shown}\" failed (2: No such file or directory)");
        assert_eq!(send(Order::Reload, &path), Err((Level::Error, missing)));
        for (text, number) in
            [("abc\n", "abc"), ("", ""), ("-1\n", "-1"), ("0\n", "0"), ("99999999999\n", "99999999999")]
        {
            std::fs::write(&path, text).unwrap();
            let invalid = format!("invalid PID number \"{number}\" in \"{shown}\"");
            assert_eq!(send(Order::Stop, &path), Err((Level::Error, invalid)));
        }
        std::fs::write(&path, "2147483647\n").unwrap();
        let gone = "kill(2147483647, 15) failed (3: No such process)".to_owned();
        assert_eq!(send(Order::Stop, &path), Err((Level::Alert, gone)));
    }
}
