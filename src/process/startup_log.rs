//! The error log of everything that is not a worker: the start, the master, the main thread.

use super::invocation::Paths;
use crate::base::level::Level;
use crate::conf::main_settings::{ErrorLog, LogTarget};
use crate::server::listeners::describe;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

/// The level of a log whose configuration names none.
const DEFAULT_LEVEL: Level = Level::Error;

struct Sink {
    level: Level,
    /// `None` is standard error.
    file: Option<(PathBuf, File)>,
}

/// Writes lines in nginx's form to the configured logs.
pub struct StartupLog {
    sinks: Vec<Sink>,
    /// Says everything on standard error as well, in the short form `thalweg: [emerg] ...`: during the start.
    on_terminal: bool,
}

impl StartupLog {
    /// A log that only speaks to the terminal.
    pub fn terminal() -> Self {
        Self { sinks: Vec::new(), on_terminal: true }
    }

    /// A log that speaks to the terminal and, if it can be opened, to the default file.
    pub fn terminal_and_default(paths: &Paths) -> Self {
        let mut log = Self::terminal();
        let _ = log.open(paths, &[]);
        log
    }

    /// A log that says nothing until it is opened.
    pub fn silent() -> Self {
        Self { sinks: Vec::new(), on_terminal: false }
    }

    /// Opens the logs, or the default one if none is configured, in place of those that are open now. A log that can't be
    /// opened is an error, and then nothing has changed.
    pub fn open(&mut self, paths: &Paths, logs: &[ErrorLog]) -> Result<(), String> {
        let default = [ErrorLog { target: paths.error_log.clone(), level: DEFAULT_LEVEL }];
        let logs = if logs.is_empty() { &default } else { logs };
        let mut sinks = Vec::new();
        for log in logs {
            let file = match &log.target {
                LogTarget::Stderr => None,
                LogTarget::Syslog(_) => continue,
                LogTarget::File(path) => {
                    let path = paths.prefix.join(path);
                    let file = open(&path).map_err(|error| {
                        format!("open() \"{}\" failed ({})", path.display(), describe(&error))
                    })?;
                    Some((path, file))
                }
            };
            sinks.push(Sink { level: log.level, file });
        }
        self.sinks = sinks;
        Ok(())
    }

    /// Opens the same files anew, after they were renamed. One that can't be opened goes on where it is.
    pub fn reopen(&mut self) {
        let mut problems = Vec::new();
        for sink in &mut self.sinks {
            let Some((path, file)) = &mut sink.file else { continue };
            match open(path) {
                Ok(new) => *file = new,
                Err(error) => {
                    problems.push(format!("open() \"{}\" failed ({})", path.display(), describe(&error)));
                }
            }
        }
        for problem in problems {
            self.write(Level::Emerg, &problem);
        }
    }

    /// From now on nothing goes to the terminal but what the configuration sends there.
    pub fn leave_terminal(&mut self) {
        self.on_terminal = false;
    }

    /// Lets `act` write to the files only: what it says was said on the terminal in another form.
    pub fn leave_terminal_to(&mut self, act: impl FnOnce(&mut StartupLog)) {
        let on_terminal = std::mem::replace(&mut self.on_terminal, false);
        act(self);
        self.on_terminal = on_terminal;
    }

    /// The file that standard error of a process without a terminal is best connected with.
    pub fn first_file(&self) -> Option<&File> {
        self.sinks.iter().find_map(|sink| sink.file.as_ref()).map(|(_, file)| file)
    }

    /// Writes one line to every log that wants its level. A log that can't be written is left alone.
    pub fn write(&self, level: Level, text: &str) {
        let mut on_terminal = self.on_terminal && Level::Warn.admits(level);
        if on_terminal {
            let _ = io::stderr().write_all(format!("thalweg: [{level}] {text}\n").as_bytes());
        }
        let now = jiff::Zoned::now().strftime("%Y/%m/%d %H:%M:%S").to_string();
        let (process, thread) = (std::process::id(), rustix::thread::gettid().as_raw_nonzero());
        let line = format!("{now} [{level}] {process}#{thread}: {text}\n");
        for sink in self.sinks.iter().filter(|sink| sink.level.admits(level)) {
            let _ = match &sink.file {
                Some((_, file)) => (&mut &*file).write_all(line.as_bytes()),
                // Once is enough.
                None if std::mem::replace(&mut on_terminal, true) => Ok(()),
                None => io::stderr().write_all(line.as_bytes()),
            };
        }
    }
}

fn open(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_nginx_s_shape_and_go_where_their_level_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::for_test(folder.path());
        let mut log = StartupLog::silent();
        let to = |name: &str, level| ErrorLog { target: LogTarget::File(name.to_owned()), level };
        log.open(&paths, &[to("all.log", Level::Debug), to("bad.log", Level::Error)]).unwrap();
        log.write(Level::Notice, "hello");
        log.write(Level::Alert, "trouble");
        let all = std::fs::read_to_string(folder.path().join("all.log")).unwrap();
        let bad = std::fs::read_to_string(folder.path().join("bad.log")).unwrap();
        let id = std::process::id();
        let (date, rest) = all.lines().next().unwrap().split_at("2026/11/21 02:26:00".len());
        assert!(date.bytes().filter(u8::is_ascii_digit).count() == 14, "{date}");
        assert!(rest.starts_with(&format!(" [notice] {id}#")) && rest.ends_with(": hello"), "{rest}");
        assert!(!bad.contains("hello") && bad.contains("[alert]") && bad.ends_with(": trouble\n"));
    }

    #[test]
    fn a_renamed_log_is_left_at_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::for_test(folder.path());
        let mut log = StartupLog::silent();
        log.open(&paths, &[ErrorLog { target: LogTarget::File("a.log".to_owned()), level: Level::Info }])
            .unwrap();
        std::fs::rename(folder.path().join("a.log"), folder.path().join("a.log.1")).unwrap();
        log.write(Level::Info, "before");
        log.reopen();
        log.write(Level::Info, "after");
        assert!(std::fs::read_to_string(folder.path().join("a.log.1")).unwrap().ends_with("before\n"));
        assert!(std::fs::read_to_string(folder.path().join("a.log")).unwrap().ends_with("after\n"));
    }
}
