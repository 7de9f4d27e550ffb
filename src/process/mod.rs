//! The command line's back end: master, signals, reload, binary upgrade.
//!
//! [`run`] is one call of the program. A start goes: configuration read ([`configuration`]), sockets opened or inherited
//! ([`upgrade`]), into the background ([`daemon`]), pid file ([`pid_file`]), then the master ([`master`]), which forks
//! the server process ([`server_process`]); they speak by signals ([`signals`]) and a socket ([`channel`]).

pub mod certificates;
pub mod channel;
pub mod configuration;
pub mod daemon;
pub mod folders;
pub mod invocation;
pub mod limits;
pub mod master;
pub mod pid_file;
pub mod serve;
pub mod server_process;
pub mod signals;
pub mod startup_log;
pub mod upgrade;

use crate::base::level::Level;
use crate::server::listeners::{ListenerSet, describe};
use crate::server::sys;
use channel::KeptState;
use configuration::{Loaded, Names, SiteErrors, Source};
use daemon::Side;
use invocation::{Action, Invocation, Order, Paths};
use pid_file::PidFile;
use signals::Signals;
use startup_log::StartupLog;
use std::io::Write;
use std::path::Path;
use upgrade::Program;

/// Does what the command line says; returns the exit status.
pub fn run(invocation: &Invocation) -> i32 {
    sys::keep_large_blocks_apart();
    let inherited = match invocation.action {
        Action::Run => upgrade::inherited(),
        _ => None,
    };
    let current_folder = match std::env::current_dir() {
        Ok(folder) => folder,
        Err(error) => {
            eprintln!("thalweg: [emerg] getcwd() failed ({})", describe(&error));
            return 1;
        }
    };
    let paths = Paths::new(invocation, &current_folder);
    let source = Source { paths, directives: invocation.directives.clone(), text: invocation.text.clone() };
    match invocation.action {
        Action::Test { dump } => test(&source, dump, invocation.quiet),
        Action::Signal(order) => signal(&source, order),
        Action::Run => {
            let program = Program::new(invocation.arguments.clone(), &current_folder);
            let mut log = StartupLog::terminal();
            match start(source, program, inherited, invocation.greeting.as_deref(), &mut log) {
                Ok(status) => status,
                Err(problems) => {
                    for problem in problems {
                        log.write(Level::Emerg, &problem);
                    }
                    1
                }
            }
        }
    }
}

/// `-t` and `-T`. Needs no rights, no resolver, and writes no file.
fn test(source: &Source, dump: bool, quiet: bool) -> i32 {
    let shown = source.paths.configuration.display();
    let loaded = source.load(Names::Ignore, None).and_then(|loaded| {
        limits::identity(loaded.site.main.user.as_ref()).map_err(|line| SiteErrors {
            rendered: format!("thalweg: [emerg] {line}\n"),
            lines: vec![line],
        })?;
        Ok(loaded)
    });
    match loaded {
        Ok(loaded) => {
            eprint!("{}", loaded.remarks());
            if !quiet {
                eprintln!("thalweg: the configuration file {shown} syntax is ok");
                eprintln!("thalweg: configuration file {shown} test is successful");
            }
            if dump && let Err(error) = write_dump(&loaded) {
                eprintln!("thalweg: [emerg] write() to standard output failed ({})", describe(&error));
                return 1;
            }
            0
        }
        Err(errors) => {
            eprint!("{}", errors.rendered);
            eprintln!("thalweg: configuration file {shown} test failed");
            1
        }
    }
}

/// Every file with its marker, as nginx writes it.
fn write_dump(loaded: &Loaded) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    crate::conf::dump::dump(&loaded.sources, &mut out)?;
    out.flush()
}

/// `-s`. The configuration is read for the name of the pid file.
fn signal(source: &Source, order: Order) -> i32 {
    let loaded = match source.load(Names::Ignore, None) {
        Ok(loaded) => loaded,
        Err(errors) => {
            eprint!("{}", errors.rendered);
            return 1;
        }
    };
    match pid_file::send(order, &source.paths.prefix.join(&loaded.site.main.pid)) {
        Ok(()) => 0,
        Err((level, problem)) => {
            StartupLog::terminal_and_default(&source.paths).write(level, &problem);
            1
        }
    }
}

/// Serves. Returns when everything is over; the errors are for the log, which is as far as it was opened.
fn start(
    source: Source,
    program: Program,
    inherited: Option<ListenerSet>,
    greeting: Option<&str>,
    log: &mut StartupLog,
) -> Result<i32, Vec<String>> {
    let one = |problem: String| vec![problem];
    let loaded = match source.load(Names::LookUp, None) {
        Ok(loaded) => loaded,
        Err(errors) => {
            // At length on the terminal, in lines for the log.
            eprint!("{}", errors.rendered);
            log.leave_terminal();
            let _ = log.open(&source.paths, &[]);
            return Err(errors.lines);
        }
    };
    eprint!("{}", loaded.remarks());
    let warnings = loaded.warnings();
    let Loaded { site, text, .. } = loaded;
    log.open(&source.paths, &site.main.error_logs).map_err(one)?;
    log.leave_terminal_to(|log| {
        for warning in &warnings {
            log.write(Level::Warn, warning);
        }
    });
    limits::identity(site.main.user.as_ref()).map_err(one)?;
    if site.main.user.is_some() && !rustix::process::geteuid().is_root() {
        log.write(
            Level::Warn,
            "the \"user\" directive makes sense only if the master process runs with super-user privileges, ignored",
        );
    }
    let older = inherited.is_some().then(rustix::process::getppid).flatten();
    // Sockets for every worker need descriptors.
    limits::apply_limits(&site.main, log);
    let workers = server_process::worker_count(&site.main);
    // One that came between a Unix socket and the master would leave its file behind.
    Signals::block().map_err(|error| one(format!("sigprocmask() failed ({})", describe(&error))))?;
    let listeners = inherited
        .unwrap_or_default()
        .renew(&site.listens.sockets(), workers, &mut |level, text| log.write(level, text))
        .map_err(|_| Vec::new())?;
    if let Some(greeting) = greeting {
        // A standard output that nobody reads is no reason not to serve.
        let _ = writeln!(std::io::stdout(), "{greeting}");
    }

    let mut notice = None;
    if site.main.daemon && older.is_none() {
        match daemon::leave().map_err(|error| one(format!("fork() failed ({})", describe(&error))))? {
            Side::Started(status) => return Ok(status),
            Side::Background(side) => notice = Some(side),
        }
    }
    let signals =
        Signals::open().map_err(|error| one(format!("signalfd() failed ({})", describe(&error))))?;
    let pid_file = PidFile::create(source.paths.prefix.join(&site.main.pid)).map_err(one)?;
    log.write(Level::Notice, concat!("thalweg/", env!("CARGO_PKG_VERSION")));
    if site.main.daemon {
        daemon::release_streams(log).map_err(one)?;
    }
    let in_background = site.main.daemon;
    log.leave_terminal();
    let log = std::mem::replace(log, StartupLog::silent());

    if !site.main.master_process {
        if let Some(notice) = notice {
            notice.is_up();
        }
        return Ok(serve_alone(source, site, listeners, log, signals, &pid_file));
    }
    let environment = master::upgrade_environment(&site);
    let _ = sys::set_process_title(&format!("thalweg: master process {}", program.command_line()));
    let state = KeptState::new(text, &site.main, &source.paths);
    if let Some(notice) = notice {
        notice.is_up();
    }
    Ok(master::run(master::Start {
        source,
        site,
        state,
        listeners,
        log,
        pid_file,
        program,
        environment,
        signals,
        older,
        in_background,
    }))
}

/// `master_process off`: everything in this process.
fn serve_alone(
    source: Source,
    site: crate::http::site::Site,
    listeners: ListenerSet,
    log: StartupLog,
    signals: Signals,
    pid_file: &PidFile,
) -> i32 {
    let paths = listeners.unix_paths_not_in(&ListenerSet::default());
    let status =
        server_process::run(server_process::Start { source, site, listeners, log, master: None, signals });
    for path in paths {
        let _ = std::fs::remove_file(Path::new(&path));
    }
    pid_file.remove();
    status
}
