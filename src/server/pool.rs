//! A few threads for what may block or takes long: files that are not in memory, listings, temporary files, changes,
//! password hashes, keys and certificates.
//!
//! One [`Pool`] serves all workers. A worker has a [`Mailbox`] per kind of result: it submits closures, is woken when
//! results are there, and takes them out one by one. Every accepted job yields exactly one result, a panicking one
//! too. The queue is bounded: when it is full the job is refused, and the worker sheds the request (503) instead of
//! letting the backlog grow.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::thread;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

/// Threads when nothing else is configured: enough for a disk's queue, few enough to cost nothing while idle.
pub const DEFAULT_THREADS: usize = 8;

/// Jobs that may wait when nothing else is configured. At some milliseconds a job on a slow disk and eight threads, the
/// last of these waits about a second; more would only be answered too late.
pub const DEFAULT_QUEUE: usize = 4096;

/// Names one job of one mailbox; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(u64);

/// The queue is full: nothing was submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueFull;

/// The job panicked; the thread lives on. The panic hook has logged where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panicked;

type Task = Box<dyn FnOnce() + Send>;

/// The threads. Clones share them; they end when the last clone and the last mailbox are gone and the queue is empty.
#[derive(Clone)]
pub struct Pool {
    tasks: Sender<Task>,
    /// Starts the threads of a pool that waits for its first job.
    starter: Option<Arc<Starter>>,
}

/// Threads that are started with the first job, if there ever is one.
struct Starter {
    once: Once,
    start: Box<dyn Fn() + Send + Sync>,
}

impl Starter {
    fn start(&self) {
        self.once.call_once(|| (self.start)());
    }
}

impl Pool {
    /// Starts `threads` threads (at least 1) over a queue of `queue` jobs (at least 1). Each thread runs `on_start`
    /// before it takes its first job: there it gives up privileges. Returns the first error of spawning or of a hook;
    /// the threads that did start end then without having run a job.
    pub fn start(
        threads: usize,
        queue: usize,
        on_start: impl Fn() -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<Pool> {
        let (tasks, queued) = bounded::<Task>(queue.max(1));
        start_threads(threads, &queued, on_start)?;
        Ok(Pool { tasks, starter: None })
    }

    /// The same, but the threads are only started when there is something for them to do. Should that fail then, jobs
    /// wait in the queue until it is full.
    pub fn start_later(
        threads: usize,
        queue: usize,
        on_start: impl Fn() -> io::Result<()> + Clone + Send + Sync + 'static,
    ) -> Pool {
        let (tasks, queued) = bounded::<Task>(queue.max(1));
        let start = Box::new(move || {
            // Nobody is there to be told: whoever waits for a job has a deadline.
            let _ = start_threads(threads, &queued, on_start.clone());
        });
        Pool { tasks, starter: Some(Arc::new(Starter { once: Once::new(), start })) }
    }

    /// A pool without threads: its jobs are run when whoever holds them says so.
    #[cfg(test)]
    pub fn by_hand(queue: usize) -> (Pool, HeldJobs) {
        let (tasks, queued) = bounded::<Task>(queue.max(1));
        (Pool { tasks, starter: None }, HeldJobs(queued))
    }

    /// A worker's way in and out. `wake` is called from a pool thread whenever the mailbox stops being empty.
    pub fn mailbox<T: Send + 'static>(&self, wake: Arc<dyn Fn() + Send + Sync>) -> Mailbox<T> {
        let results = Arc::new(Results { done: Mutex::new(VecDeque::new()), wake });
        Mailbox { tasks: self.tasks.clone(), starter: self.starter.clone(), results, next: 0 }
    }
}

/// The jobs of [`Pool::by_hand`].
#[cfg(test)]
pub struct HeldJobs(Receiver<Task>);

#[cfg(test)]
impl HeldJobs {
    /// Runs the oldest job; whether there was one.
    pub fn run_one(&self) -> bool {
        self.0.try_recv().map(|task| task()).is_ok()
    }
}

fn start_threads(
    threads: usize,
    queued: &Receiver<Task>,
    on_start: impl Fn() -> io::Result<()> + Send + Sync + 'static,
) -> io::Result<()> {
    let (started, starts) = bounded::<io::Result<()>>(threads.max(1));
    let on_start = Arc::new(on_start);
    for index in 0..threads.max(1) {
        let (queued, started, on_start) = (queued.clone(), started.clone(), on_start.clone());
        thread::Builder::new().name(format!("pool-{index}")).spawn(move || {
            let outcome = on_start();
            let failed = outcome.is_err();
            let _ = started.send(outcome);
            drop((started, on_start));
            if !failed {
                serve(&queued);
            }
        })?;
    }
    drop(started);
    for outcome in starts {
        outcome?;
    }
    Ok(())
}

fn serve(queued: &Receiver<Task>) {
    // A task catches its own panic, so this loop outlives every job.
    for task in queued {
        task();
    }
}

struct Results<T> {
    done: Mutex<VecDeque<(JobId, Result<T, Panicked>)>>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl<T> Results<T> {
    fn push(&self, id: JobId, result: Result<T, Panicked>) {
        let was_empty = {
            let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            done.push_back((id, result));
            done.len() == 1
        };
        if was_empty {
            (self.wake)();
        }
    }
}

/// One worker's jobs of one kind of result. Results of a mailbox that is gone are dropped, with what they own.
pub struct Mailbox<T> {
    tasks: Sender<Task>,
    starter: Option<Arc<Starter>>,
    results: Arc<Results<T>>,
    next: u64,
}

impl<T: Send + 'static> Mailbox<T> {
    /// Hands a job to the pool; never blocks.
    pub fn submit(&mut self, job: impl FnOnce() -> T + Send + 'static) -> Result<JobId, QueueFull> {
        let id = JobId(self.next);
        let results = Arc::downgrade(&self.results);
        let task: Task = Box::new(move || {
            // The job owns what it uses and is gone after a panic, so nothing half-changed can be seen.
            let result = catch_unwind(AssertUnwindSafe(job)).map_err(|_| Panicked);
            if let Some(results) = results.upgrade() {
                results.push(id, result);
            }
        });
        match self.tasks.try_send(task) {
            Ok(()) => {
                if let Some(starter) = self.starter.take() {
                    starter.start();
                }
                self.next += 1;
                Ok(id)
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(QueueFull),
        }
    }

    /// The next result, oldest first. Take them until `None`: the next wake comes only after the mailbox was empty.
    pub fn take(&mut self) -> Option<(JobId, Result<T, Panicked>)> {
        self.results.done.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn wake_counter() -> (Arc<dyn Fn() + Send + Sync>, Receiver<()>) {
        let (sender, receiver) = bounded(1024);
        (
            Arc::new(move || {
                let _ = sender.send(());
            }),
            receiver,
        )
    }

    #[test]
    fn every_job_yields_its_result_and_the_worker_is_woken() {
        let pool = Pool::start(3, 64, || Ok(())).unwrap();
        let (wake, woken) = wake_counter();
        let mut mailbox = pool.mailbox::<usize>(wake);
        let ids: Vec<_> = (0..50).map(|n| mailbox.submit(move || n * 2).unwrap()).collect();
        let mut results = Vec::new();
        while results.len() < ids.len() {
            woken.recv().unwrap();
            while let Some((id, result)) = mailbox.take() {
                results.push((id, result.unwrap()));
            }
        }
        results.sort();
        let expected: Vec<_> = ids.into_iter().enumerate().map(|(n, id)| (id, n * 2)).collect();
        assert_eq!(results, expected);
    }

    #[test]
    fn a_panic_is_a_result_and_the_thread_lives_on() {
        let pool = Pool::start(1, 4, || Ok(())).unwrap();
        let (wake, woken) = wake_counter();
        let mut mailbox = pool.mailbox::<u8>(wake);
        let bad = mailbox.submit(|| std::panic::resume_unwind(Box::new("no hook output"))).unwrap();
        woken.recv().unwrap();
        assert_eq!(mailbox.take(), Some((bad, Err(Panicked))));
        let good = mailbox.submit(|| 7).unwrap();
        woken.recv().unwrap();
        assert_eq!(mailbox.take(), Some((good, Ok(7))));
    }

    #[test]
    fn a_full_queue_refuses_at_once() {
        let pool = Pool::start(1, 1, || Ok(())).unwrap();
        let (wake, woken) = wake_counter();
        let mut mailbox = pool.mailbox::<()>(wake);
        let (running, is_running) = bounded::<()>(0);
        let (release, released) = bounded::<()>(0);
        mailbox
            .submit(move || {
                running.send(()).unwrap();
                released.recv().unwrap();
            })
            .unwrap();
        is_running.recv().unwrap();
        mailbox.submit(|| ()).unwrap();
        assert_eq!(mailbox.submit(|| ()), Err(QueueFull));
        release.send(()).unwrap();
        woken.recv().unwrap();
    }

    #[test]
    fn the_start_hook_runs_in_each_thread_and_its_failure_is_the_pool_s() {
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = runs.clone();
        let _pool = Pool::start(4, 4, move || {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(())
        })
        .unwrap();
        assert_eq!(runs.load(Ordering::SeqCst), 4);
        assert!(Pool::start(2, 4, || Err(io::ErrorKind::PermissionDenied.into())).is_err());
    }
}
