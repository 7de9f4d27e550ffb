//! The worker threads of the server process: started, told what to do, replaced and collected by its main thread.
//!
//! Workers never answer; the only thing that the main thread learns is that one ended ([`Runtime::ended_descriptor`],
//! then [`Runtime::collect`]).

use crate::base::level::Level;
use crate::conf::main_settings::CpuAffinity;
use crate::http::site::Site;
use crate::server::listeners::{ListenerSet, LogLine, WorkerListener, describe};
use crate::server::logs::OpenLogs;
use crate::server::names::system;
use crate::server::pool::{self, Pool};
use crate::server::worker;
use crate::server::worker::balance::SharedState;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Pid, setpriority_process};
use rustix::thread::{CpuSet, Gid, Uid, sched_getaffinity, sched_setaffinity};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

/// What a worker is told. It looks for commands when its waker fires.
pub enum WorkerCommand {
    /// Serve from this site and accept from these sockets. Those that are not named any more are deregistered, after
    /// what waits in their queues was accepted; connections go on.
    Configure { site: Arc<Site>, listeners: Vec<WorkerListener>, logs: Arc<OpenLogs> },
    /// Write to the log files that were opened anew.
    ReopenLogs { logs: Arc<OpenLogs> },
    /// Accept what waits, and then no more; close idle connections, finish requests, then return. At the deadline
    /// close what is left.
    Quit { deadline: Option<Instant> },
    /// Close everything and return at once.
    Terminate,
}

/// The token of the waker in each worker's poll.
pub const WAKE_TOKEN: mio::Token = mio::Token(usize::MAX);

/// What a worker thread starts with.
pub struct WorkerBoot {
    /// Its number, from 0. A worker that winds down may still run beside its successor of the same number.
    pub index: usize,
    pub site: Arc<Site>,
    pub listeners: Vec<WorkerListener>,
    pub commands: Receiver<WorkerCommand>,
    /// Has the waker under [`WAKE_TOKEN`].
    pub poll: mio::Poll,
    pub shared: Arc<SharedState>,
    /// Wakes this worker.
    pub waker: Arc<mio::Waker>,
    /// Threads for what may block.
    pub pool: Arc<Pool>,
    /// Threads that ask the system's resolver.
    pub name_threads: Arc<Pool>,
    /// The open logs of the site.
    pub logs: Arc<OpenLogs>,
}

/// Whom a thread becomes when the process was started as root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// For messages.
    pub name: String,
    pub user: u32,
    pub group: u32,
    pub groups: Vec<u32>,
}

/// How worker threads are set up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThreadSettings {
    pub affinity: CpuAffinity,
    /// Niceness, -20 to 19.
    pub priority: i32,
    /// `None` leaves the threads as they are.
    pub identity: Option<Identity>,
}

/// One worker thread, seen from outside.
struct Worker {
    index: usize,
    commands: Sender<WorkerCommand>,
    waker: Arc<mio::Waker>,
    thread: JoinHandle<()>,
    id: Pid,
}

impl Worker {
    /// A worker that ended in this moment takes no command; it is collected soon.
    fn tell(&self, command: WorkerCommand) {
        if self.commands.send(command).is_ok() {
            let _ = self.waker.wake();
        }
    }
}

/// All workers of this process.
pub struct Runtime {
    site: Arc<Site>,
    listeners: ListenerSet,
    settings: ThreadSettings,
    shared: Arc<SharedState>,
    /// In the order of their numbers.
    workers: Vec<Worker>,
    /// Those that wind down.
    retired: Vec<Worker>,
    /// Becomes readable when a thread ended.
    ended: Arc<OwnedFd>,
    /// The threads that ended.
    ended_ids: (Sender<Pid>, Receiver<Pid>),
    winding_down: bool,
    pool: Arc<Pool>,
    name_threads: Arc<Pool>,
    logs: Arc<OpenLogs>,
}

/// The processors that this process may run on.
pub fn available_processors() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    (0..CpuSet::MAX_CPU).filter(|processor| set.is_set(*processor)).collect()
}

impl Runtime {
    /// Starts `count` workers. They accept when this returns; the error is a message.
    pub fn start(
        site: Arc<Site>,
        listeners: ListenerSet,
        settings: ThreadSettings,
        count: usize,
        logs: Arc<OpenLogs>,
    ) -> Result<Self, String> {
        let pool = start_pool(&settings)?;
        let name_threads = name_threads(&settings);
        let ended = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
            .map_err(|error| format!("eventfd() failed ({})", describe(&error.into())))?;
        let mut runtime = Self {
            site,
            listeners,
            settings,
            shared: Arc::new(SharedState::default()),
            workers: Vec::new(),
            retired: Vec::new(),
            ended: Arc::new(ended),
            ended_ids: unbounded(),
            winding_down: false,
            pool,
            name_threads,
            logs,
        };
        for index in 0..count {
            let worker = runtime.spawn(index, count)?;
            runtime.workers.push(worker);
        }
        Ok(runtime)
    }

    /// Becomes readable when a worker ended: call [`Runtime::collect`] then.
    pub fn ended_descriptor(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    /// How many threads there are, with those that wind down.
    pub fn running(&self) -> usize {
        self.workers.len() + self.retired.len()
    }

    /// Joins workers that ended. One that should not have is replaced.
    pub fn collect(&mut self, log: LogLine<'_>) {
        let _ = rustix::io::read(&*self.ended, &mut [0; 8]);
        while let Ok(id) = self.ended_ids.1.try_recv() {
            if let Some(place) = self.retired.iter().position(|worker| worker.id == id) {
                let _ = self.retired.swap_remove(place).thread.join();
            }
            let Some(place) = self.workers.iter().position(|worker| worker.id == id) else { continue };
            let index = self.workers[place].index;
            log(Level::Alert, &format!("worker {index} ended unexpectedly, starting another"));
            match self.spawn(index, self.workers.len()) {
                Ok(worker) => {
                    let _ = std::mem::replace(&mut self.workers[place], worker).thread.join();
                }
                Err(problem) => log(Level::Alert, &problem),
            }
        }
    }

    /// Serves from a new site and other sockets, with `count` workers. Workers that are too many finish their
    /// connections until `deadline`. A change of user replaces all of them: what a thread gave up it can't take back.
    pub fn reconfigure(
        &mut self,
        site: Arc<Site>,
        listeners: ListenerSet,
        settings: ThreadSettings,
        count: usize,
        logs: Arc<OpenLogs>,
        deadline: Option<Instant>,
    ) -> Result<(), String> {
        let replace_all = settings.identity != self.settings.identity;
        self.logs = logs;
        if replace_all {
            self.pool = start_pool(&settings)?;
            self.name_threads = name_threads(&settings);
        }
        self.site = site;
        self.listeners = listeners;
        self.settings = settings;
        let keep = if replace_all { 0 } else { count.min(self.workers.len()) };
        let leaving = self.workers.split_off(keep);
        for index in keep..count {
            match self.spawn(index, count) {
                Ok(worker) => self.workers.push(worker),
                Err(problem) if self.workers.is_empty() => {
                    // Better the old ones than none.
                    self.workers = leaving;
                    return Err(problem);
                }
                Err(problem) => {
                    self.configure_all();
                    Self::retire(&mut self.retired, leaving, deadline);
                    return Err(problem);
                }
            }
        }
        self.configure_all();
        Self::retire(&mut self.retired, leaving, deadline);
        Ok(())
    }

    /// Tells all workers what to accept from, and adjusts their threads.
    fn configure_all(&self) {
        let (count, available) = (self.workers.len(), available_processors());
        for worker in &self.workers {
            let listeners = self.listeners.of_worker(worker.index, count);
            worker.tell(WorkerCommand::Configure {
                site: Arc::clone(&self.site),
                listeners,
                logs: Arc::clone(&self.logs),
            });
            bind_to_processors(
                Some(worker.id),
                self.settings.affinity.of_worker(worker.index, &available),
                &available,
            );
            let _ = setpriority_process(Some(worker.id), self.settings.priority);
        }
    }

    fn retire(retired: &mut Vec<Worker>, leaving: Vec<Worker>, deadline: Option<Instant>) {
        for worker in leaving {
            worker.tell(WorkerCommand::Quit { deadline });
            retired.push(worker);
        }
    }

    /// The sockets as they are now.
    pub fn listeners(&self) -> &ListenerSet {
        &self.listeners
    }

    /// Tells all workers to write to log files that were opened anew.
    pub fn reopen_logs(&mut self, logs: Arc<OpenLogs>) {
        self.logs = logs;
        for worker in self.workers.iter().chain(&self.retired) {
            worker.tell(WorkerCommand::ReopenLogs { logs: Arc::clone(&self.logs) });
        }
    }

    /// Lets all workers finish their connections until the deadline, and holds no listening socket any more. The end has
    /// come when [`Runtime::running`] is 0.
    pub fn quit(&mut self, deadline: Option<Instant>) {
        self.winding_down = true;
        self.listeners = ListenerSet::default();
        let leaving = std::mem::take(&mut self.workers);
        Self::retire(&mut self.retired, leaving, deadline);
    }

    /// Ends all workers at once; see [`Runtime::quit`].
    pub fn terminate(&mut self) {
        self.quit(None);
        for worker in &self.retired {
            worker.tell(WorkerCommand::Terminate);
        }
    }

    /// True after [`Runtime::quit`] or [`Runtime::terminate`].
    pub fn is_winding_down(&self) -> bool {
        self.winding_down
    }

    /// Starts worker `index` of `count` and waits until it has set itself up.
    fn spawn(&self, index: usize, count: usize) -> Result<Worker, String> {
        let failed = |call: &str, error: io::Error| format!("{call} failed ({})", describe(&error));
        let poll = mio::Poll::new().map_err(|error| failed("epoll_create1()", error))?;
        let waker = mio::Waker::new(poll.registry(), WAKE_TOKEN)
            .map(Arc::new)
            .map_err(|error| failed("eventfd()", error))?;
        let (commands, receiver) = unbounded();
        let (ready, is_ready) = bounded(1);
        let boot = WorkerBoot {
            index,
            site: Arc::clone(&self.site),
            listeners: self.listeners.of_worker(index, count),
            commands: receiver,
            poll,
            shared: Arc::clone(&self.shared),
            waker: Arc::clone(&waker),
            pool: Arc::clone(&self.pool),
            name_threads: Arc::clone(&self.name_threads),
            logs: Arc::clone(&self.logs),
        };
        let (settings, ended, ended_ids) =
            (self.settings.clone(), Arc::clone(&self.ended), self.ended_ids.0.clone());
        let main = move || {
            let prepared = prepare_thread(index, &settings);
            let id = prepared.as_ref().ok().copied();
            let _ = ready.send(prepared);
            let Some(id) = id else { return };
            // The panic hook has told where it was.
            let _ = catch_unwind(AssertUnwindSafe(|| worker::run(boot)));
            let _ = ended_ids.send(id);
            let _ = rustix::io::write(&*ended, &1u64.to_ne_bytes());
        };
        let thread = std::thread::Builder::new()
            .name(format!("thalweg/w{index}"))
            .spawn(main)
            .map_err(|error| failed("pthread_create()", error))?;
        let id =
            is_ready.recv().unwrap_or_else(|_| Err("the worker thread ended at its start".to_owned()))?;
        Ok(Worker { index, commands, waker, thread, id })
    }
}

/// Starts the threads for what may block; like the workers they give their privileges up first.
fn start_pool(settings: &ThreadSettings) -> Result<Arc<Pool>, String> {
    Pool::start(pool::DEFAULT_THREADS, pool::DEFAULT_QUEUE, give_up_at_start(settings))
        .map(Arc::new)
        .map_err(|error| format!("the thread pool did not start ({error})"))
}

/// The threads that ask the system's resolver, once a name is to be looked up: slow answers must not keep files waiting.
fn name_threads(settings: &ThreadSettings) -> Arc<Pool> {
    Arc::new(system::threads(give_up_at_start(settings)))
}

/// What a thread of a pool does first.
fn give_up_at_start(
    settings: &ThreadSettings,
) -> impl Fn() -> io::Result<()> + Clone + Send + Sync + 'static {
    let identity = settings.identity.clone();
    move || match &identity {
        Some(identity) => give_privileges_up(identity).map_err(io::Error::other),
        None => Ok(()),
    }
}

/// Sets the calling thread up as a worker: processors, priority, and last the privileges, which the former may need.
fn prepare_thread(index: usize, settings: &ThreadSettings) -> Result<Pid, String> {
    let available = available_processors();
    bind_to_processors(None, settings.affinity.of_worker(index, &available), &available);
    if settings.priority != 0 {
        // As in nginx, no reason to stop.
        let _ = setpriority_process(None, settings.priority);
    }
    if let Some(identity) = &settings.identity {
        give_privileges_up(identity)?;
    }
    Ok(rustix::thread::gettid())
}

/// Binds a thread (`None` is the calling one) to processors; `None` lets it run on all that are available.
fn bind_to_processors(thread: Option<Pid>, processors: Option<Vec<usize>>, available: &[usize]) {
    let mut set = CpuSet::new();
    for processor in processors.as_deref().unwrap_or(available) {
        if *processor < CpuSet::MAX_CPU {
            set.set(*processor);
        }
    }
    // A processor that is not there is no reason to stop, as in nginx.
    let _ = sched_setaffinity(thread, &set);
}

/// Makes the calling thread, and threads that it starts later, belong to another user for good. The rest of the process
/// stays as it was: these are the bare system calls, which Linux applies to one thread.
///
/// The main thread keeps its rights so that a reload can bind low ports and open root's files. What the workers lose by
/// it is what matters to a server: the kernel checks every file that they open, and every process that they signal,
/// against the lesser user. (It is no wall against code that runs in a worker: threads share their memory.)
pub fn give_privileges_up(identity: &Identity) -> Result<(), String> {
    let failed = |call: &str, error: rustix::io::Errno| {
        format!("{call} of user \"{}\" failed ({})", identity.name, describe(&error.into()))
    };
    let groups: Vec<Gid> = identity.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    let (group, user) = (Gid::from_raw(identity.group), Uid::from_raw(identity.user));
    if (rustix::process::getegid(), rustix::process::geteuid()) == (group, user) {
        // A thread that a worker started has no more rights than that, and none to change its groups.
        return Ok(());
    }
    rustix::thread::set_thread_groups(&groups).map_err(|error| failed("setgroups()", error))?;
    rustix::thread::set_thread_res_gid(group, group, group).map_err(|error| failed("setgid()", error))?;
    rustix::thread::set_thread_res_uid(user, user, user).map_err(|error| failed("setuid()", error))
}
