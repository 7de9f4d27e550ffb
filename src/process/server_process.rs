//! The server process's main thread: starts the workers, then waits for signals. Reloads happen here.

use super::certificates::CertificateWatch;
use super::channel::{KeptState, ServerEnd};
use super::configuration::{KeptText, Names, Source};
use super::signals::{Request, Signals};
use super::startup_log::{ProcessLog, StartupLog};
use super::{folders, limits};
use crate::base::level::Level;
use crate::conf::main_settings::MainSettings;
use crate::http::site::Site;
use crate::server::listeners::ListenerSet;
use crate::server::logs::{LogOpenError, LogOwner, OpenLogs};
use crate::server::runtime::{Runtime, available_processors};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The exit status of a server process that can't start, and whose successor could not either. nginx's value.
pub const FATAL: i32 = 2;

/// How long workers get to end when everything is to end at once.
const TERMINATION_TIME: Duration = Duration::from_millis(500);

/// What a server process starts with.
pub struct Start {
    pub source: Source,
    pub site: Site,
    /// Empty for one that inherits nothing.
    pub listeners: ListenerSet,
    pub log: StartupLog,
    /// `None` without a master.
    pub master: Option<ServerEnd>,
    pub signals: Signals,
}

/// Serves until told to end; returns the exit status.
pub fn run(start: Start) -> i32 {
    let log = ProcessLog::new(start.log);
    log.take_panics();
    let process = ServerProcess::start(
        start.source,
        start.site,
        start.listeners,
        start.master,
        start.signals,
        log.clone(),
    );
    match process {
        Ok(mut process) => process.serve(),
        Err(problem) => {
            log.write(Level::Emerg, &problem);
            FATAL
        }
    }
}

struct ServerProcess {
    source: Source,
    site: Arc<Site>,
    runtime: Runtime,
    logs: Arc<OpenLogs>,
    log: ProcessLog,
    master: Option<ServerEnd>,
    signals: Signals,
    certificates: CertificateWatch,
    /// When the end must have come.
    give_up: Option<Instant>,
}

impl ServerProcess {
    fn start(
        source: Source,
        site: Site,
        listeners: ListenerSet,
        master: Option<ServerEnd>,
        signals: Signals,
        log: ProcessLog,
    ) -> Result<Self, String> {
        let main = &site.main;
        let workers = worker_count(main);
        log.with(|log| limits::settle(main, log))?;
        // What the master holds may be from before a failed reload, or for another number of workers.
        let listeners =
            listeners.renew(&site.listens.sockets(), workers, &mut |level, text| log.write(level, text))?;
        let threads = limits::thread_settings(main)?;
        folders::make(&site, threads.identity.as_ref(), &mut |level, text| log.write(level, text));
        ask_for_kernel_tls(&site, &log);
        let logs = OpenLogs::open(&site.logs, None).map_err(|errors| texts(&errors).join("; "))?;
        let (site, logs) = (Arc::new(site), Arc::new(logs));
        let runtime = Runtime::start(Arc::clone(&site), listeners, threads, workers, Arc::clone(&logs))?;
        limits::allow_core_files(&site.main);
        if let Some(master) = &master {
            let _ = master.ready();
        }
        let certificates = CertificateWatch::new(&site);
        Ok(Self { source, site, runtime, logs, log, master, signals, certificates, give_up: None })
    }

    fn serve(&mut self) -> i32 {
        loop {
            while let Some(signal) = self.signals.next() {
                let by = match signal.sender {
                    0 => String::new(),
                    sender => format!(" from {sender}"),
                };
                self.log.write(Level::Debug, &format!("signal {} received{by}", signal.name));
                self.take(signal.request);
            }
            let log = &self.log;
            self.runtime.collect(&mut |level, text| log.write(level, text));
            if self.master.as_ref().is_some_and(ServerEnd::is_closed) {
                self.log.write(Level::Alert, "the master process is gone, finishing");
                self.master = None;
                self.quit();
            }
            let late = self.give_up.is_some_and(|at| Instant::now() >= at);
            if self.runtime.is_winding_down() && (late || self.runtime.running() == 0) {
                self.log.write(Level::Notice, "exit");
                return 0;
            }
            let log = &self.log;
            self.certificates.run(&self.site, &mut |level, text| log.write(level, text));
            let timeout = self.give_up.map(|at| at.saturating_duration_since(Instant::now()));
            let timeout = timeout.into_iter().chain(self.certificates.timeout()).min();
            let mut descriptors = vec![self.runtime.ended_descriptor()];
            descriptors.extend(self.master.as_ref().map(ServerEnd::descriptor));
            self.signals.wait(&descriptors, timeout);
        }
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Terminate => {
                self.runtime.terminate();
                self.give_up = Some(Instant::now() + TERMINATION_TIME);
            }
            Request::Quit | Request::StopServing if self.runtime.is_winding_down() => {}
            Request::Quit => self.quit(),
            // A window that changes its size means nothing to a server in the foreground; a master says QUIT.
            Request::StopServing | Request::Upgrade | Request::ChildEnded => {}
            Request::Reload if self.runtime.is_winding_down() => {}
            Request::Reload => {
                self.log.write(Level::Notice, "reconfiguring");
                if let Err(problems) = self.reload() {
                    for problem in problems {
                        self.log.write(Level::Emerg, &problem);
                    }
                    self.log.write(Level::Error, "the configuration was not changed");
                }
            }
            Request::ReopenLogs => {
                self.log.reopen();
                let owner = limits::identity(self.site.main.user.as_ref()).ok().flatten();
                let owner = owner.map(|identity| LogOwner { user: identity.user, group: identity.group });
                let (logs, errors) = self.logs.reopen(owner);
                for problem in texts(&errors) {
                    self.log.write(Level::Emerg, &problem);
                }
                self.logs = Arc::new(logs);
                self.runtime.reopen_logs(Arc::clone(&self.logs));
            }
        }
    }

    fn quit(&mut self) {
        self.log.write(Level::Notice, "gracefully shutting down");
        self.runtime.quit(self.deadline());
    }

    /// When connections that do not end by themselves are closed.
    fn deadline(&self) -> Option<Instant> {
        self.site.main.worker_shutdown_timeout.and_then(|time| Instant::now().checked_add(time))
    }

    /// Replaces what is served, or changes nothing and says why.
    fn reload(&mut self) -> Result<(), Vec<String>> {
        let loaded = self.source.load(Names::LookUp, Some(&self.site)).map_err(|errors| errors.lines)?;
        for warning in loaded.warnings() {
            self.log.write(Level::Warn, &warning);
        }
        let (mut site, text) = (loaded.site, loaded.text);
        let one = |problem: String| vec![problem];
        let threads = limits::thread_settings(&site.main).map_err(one)?;
        let mut log = StartupLog::silent();
        log.open(&self.source.paths, &site.main.error_logs).map_err(one)?;
        let logs = OpenLogs::open(&site.logs, Some(&self.logs)).map_err(|errors| texts(&errors))?;
        let workers = worker_count(&site.main);
        // The lines were logged, the error is the last of them.
        let listeners = self
            .runtime
            .listeners()
            .renew(&site.listens.sockets(), workers, &mut |level, text| self.log.write(level, text))
            .map_err(|_| Vec::new())?;

        // From here on nothing is taken back.
        site.zones.take_over(&self.site.zones);
        self.log.replace(log);
        let deadline = self.deadline();
        let gone = self.runtime.listeners().unix_paths_not_in(&listeners);
        self.tell_master(text, &site, &listeners);
        self.log.with(|log| limits::apply_limits(&site.main, log));
        folders::make(&site, threads.identity.as_ref(), &mut |level, text| self.log.write(level, text));
        let mut site = site;
        site.upstreams.renew(&self.site.upstreams);
        self.site = Arc::new(site);
        self.certificates = CertificateWatch::new(&self.site);
        self.logs = Arc::new(logs);
        let changed = self.runtime.reconfigure(
            Arc::clone(&self.site),
            listeners,
            threads,
            workers,
            Arc::clone(&self.logs),
            deadline,
        );
        ask_for_kernel_tls(&self.site, &self.log);
        limits::allow_core_files(&self.site.main);
        for path in gone {
            let _ = std::fs::remove_file(path);
        }
        if let Err(problem) = changed {
            self.log.write(Level::Alert, &problem);
        }
        self.log.write(Level::Notice, "reconfigured");
        Ok(())
    }

    fn tell_master(&self, text: KeptText, site: &Site, listeners: &ListenerSet) {
        let Some(master) = &self.master else { return };
        let state = KeptState::new(text, &site.main, &self.source.paths);
        if let Err(error) = master.running(&state, listeners) {
            let reason = crate::server::listeners::describe(&error);
            self.log.write(Level::Alert, &format!("the master could not be told of the reload ({reason})"));
        }
    }
}

/// Finds out what the kernel's TLS can do, where a server wants it: here, since it may have to load a module for us.
fn ask_for_kernel_tls(site: &Site, log: &ProcessLog) {
    if site.tls.wants_kernel() {
        log.write(Level::Info, &crate::server::kernel_tls::support().describe());
    }
}

/// The messages of logs that could not be opened.
fn texts(errors: &[LogOpenError]) -> Vec<String> {
    errors.iter().map(|error| error.text.clone()).collect()
}

/// How many workers a configuration asks for on this machine.
pub fn worker_count(main: &MainSettings) -> usize {
    main.worker_processes.resolve(available_processors().len())
}
