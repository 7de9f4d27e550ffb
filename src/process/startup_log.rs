//! The error log of everything that is not a worker: the start, the master, the main thread.

use super::invocation::Paths;
use crate::base::level::Level;
use crate::base::log::{ErrorMessage, render_error_line};
use crate::conf::log_target::LogTarget;
use crate::conf::main_settings::ErrorLog;
use crate::server::listeners::describe;
use crate::server::logs::{PlainSyslog, open_syslog};
use std::backtrace::Backtrace;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

/// The level of a log whose configuration names none.
const DEFAULT_LEVEL: Level = Level::Error;

enum Place {
    Stderr,
    File(PathBuf, File),
    Syslog(Mutex<PlainSyslog>),
}

struct Sink {
    level: Level,
    place: Place,
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
            let place = match &log.target {
                LogTarget::Stderr => Place::Stderr,
                LogTarget::Syslog(target) => {
                    Place::Syslog(Mutex::new(open_syslog(target).map_err(|error| error.text)?))
                }
                LogTarget::File(path) => {
                    let path = paths.prefix.join(Path::new(OsStr::from_bytes(path)));
                    let file = open(&path).map_err(|error| {
                        format!("open() \"{}\" failed ({})", path.display(), describe(&error))
                    })?;
                    Place::File(path, file)
                }
            };
            sinks.push(Sink { level: log.level, place });
        }
        self.sinks = sinks;
        Ok(())
    }

    /// Opens the same files anew, after they were renamed. One that can't be opened goes on where it is.
    pub fn reopen(&mut self) {
        let mut problems = Vec::new();
        for sink in &mut self.sinks {
            let Place::File(path, file) = &mut sink.place else { continue };
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
        self.sinks.iter().find_map(|sink| match &sink.place {
            Place::File(_, file) => Some(file),
            Place::Stderr | Place::Syslog(_) => None,
        })
    }

    /// Writes one line to every log that wants its level. A log that can't be written is left alone.
    pub fn write(&self, level: Level, text: &str) {
        let mut on_terminal = self.on_terminal && Level::Warn.admits(level);
        if on_terminal {
            let _ = io::stderr().write_all(format!("thalweg: [{level}] {text}\n").as_bytes());
        }
        let time = time_now();
        let thread = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
        let message = ErrorMessage { level, connection: None, targets: &[], text: text.as_bytes() };
        let mut line = Vec::new();
        render_error_line(&mut line, &time, std::process::id(), thread, &message);
        for sink in self.sinks.iter().filter(|sink| sink.level.admits(level)) {
            let _ = match &sink.place {
                Place::File(_, file) => (&mut &*file).write_all(&line),
                // Once is enough.
                Place::Stderr if std::mem::replace(&mut on_terminal, true) => Ok(()),
                Place::Stderr => io::stderr().write_all(&line),
                Place::Syslog(syslog) => {
                    let mut syslog = syslog.lock().unwrap_or_else(PoisonError::into_inner);
                    syslog.send(level, line.trim_ascii_end(), &time);
                    Ok(())
                }
            };
        }
    }
}

/// The log of a process with several threads, each of which may have something to say at its end.
#[derive(Clone)]
pub struct ProcessLog(Arc<Mutex<StartupLog>>);

impl ProcessLog {
    /// Takes a log over.
    pub fn new(log: StartupLog) -> Self {
        Self(Arc::new(Mutex::new(log)))
    }

    /// Lends the log.
    pub fn with<T>(&self, act: impl FnOnce(&mut StartupLog) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// See [`StartupLog::write`].
    pub fn write(&self, level: Level, text: &str) {
        self.with(|log| log.write(level, text));
    }

    /// See [`StartupLog::reopen`].
    pub fn reopen(&self) {
        self.with(StartupLog::reopen);
    }

    /// Goes on with another log.
    pub fn replace(&self, log: StartupLog) {
        self.with(|former| *former = log);
    }

    /// From now on a panic of any thread is told to this log, with where it was and how it came there: a line each.
    pub fn take_panics(&self) {
        let log = Arc::clone(&self.0);
        std::panic::set_hook(Box::new(move |panic| {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("without a name");
            let payload = panic.payload();
            let text = payload.downcast_ref::<&str>().copied();
            let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
            let text = text.unwrap_or("something that is no text");
            let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
            let backtrace = Backtrace::force_capture().to_string();
            // The panic may have come while this thread was writing a line.
            let log = match log.try_lock() {
                Ok(log) => log,
                Err(TryLockError::Poisoned(log)) => log.into_inner(),
                Err(TryLockError::WouldBlock) => {
                    eprintln!("thread \"{name}\" panicked at {place}: {text}\n{backtrace}");
                    return;
                }
            };
            log.write(Level::Alert, &format!("thread \"{name}\" panicked at {place}: {text}"));
            for line in backtrace.lines() {
                log.write(Level::Alert, line);
            }
        }));
    }
}

/// The time as the error log writes it.
fn time_now() -> [u8; 19] {
    let text = jiff::Zoned::now().strftime("%Y/%m/%d %H:%M:%S").to_string();
    // A year with five digits has more than the log has room for.
    text.as_bytes().try_into().unwrap_or(*b"0000/00/00 00:00:00")
}

fn open(path: &Path) -> io::Result<File> {
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
        let to = |name: &str, level| ErrorLog { target: LogTarget::File(name.into()), level };
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
    fn a_panic_is_told_with_its_place_and_its_way() {
        // The hook is the process's: only what this test's thread does is looked for.
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::for_test(folder.path());
        let mut log = StartupLog::silent();
        log.open(&paths, &[]).unwrap();
        let before = std::panic::take_hook();
        ProcessLog::new(log).take_panics();
        let thread = std::thread::Builder::new().name("one-of-many".to_owned());
        let ended = thread.spawn(|| panic!("as the test {}", "wants it")).unwrap().join();
        std::panic::set_hook(before);
        assert!(ended.is_err());
        let text = std::fs::read_to_string(folder.path().join("error.log")).unwrap();
        let panicked = "thread \"one-of-many\" panicked at src/process/startup_log.rs:";
        assert!(text.contains(panicked) && text.contains(": as the test wants it\n"), "{text}");
        assert!(text.contains("a_panic_is_told_with_its_place_and_its_way"), "{text}");
        assert!(text.lines().all(|line| line.contains(" [alert] ")), "{text}");
    }

    #[test]
    fn a_renamed_log_is_left_at_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::for_test(folder.path());
        let mut log = StartupLog::silent();
        log.open(&paths, &[ErrorLog { target: LogTarget::File(b"a.log".to_vec()), level: Level::Info }])
            .unwrap();
        std::fs::rename(folder.path().join("a.log"), folder.path().join("a.log.1")).unwrap();
        log.write(Level::Info, "before");
        log.reopen();
        log.write(Level::Info, "after");
        assert!(std::fs::read_to_string(folder.path().join("a.log.1")).unwrap().ends_with("before\n"));
        assert!(std::fs::read_to_string(folder.path().join("a.log")).unwrap().ends_with("after\n"));
    }
}
