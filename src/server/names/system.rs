//! The system's way to look names up: `/etc/hosts`, `/etc/resolv.conf` and whatever else the C library honours. It
//! blocks, for many seconds where no DNS server answers, so it has threads of its own: a name that hangs must not hold
//! up files.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;

use crate::proto::dns::{DnsName, MAX_ADDRESSES};
use crate::server::pool::{JobId, Mailbox, Panicked, Pool};
use crate::upstream::names::{Answer, Cache, Key, Known, NameError, Records, STALE_AFTER_MS};

use super::Found;

/// Threads that look names up. One that hangs on a dead name leaves the others to the living.
pub const SYSTEM_THREADS: usize = 4;
/// Names that may wait for a thread, of all workers together.
pub const SYSTEM_QUEUE: usize = 1024;
/// Milliseconds that an answer is kept. The C library does not tell how long records live, and `/etc/hosts` should be
/// believed soon after it was changed; a look-up every ten seconds costs nothing that can be measured.
const VALID_MS: u64 = 10_000;
/// Milliseconds after which nobody waits for an answer any longer: what `resolver_timeout` is by default. The thread
/// still does, and its answer will be remembered.
const TIMEOUT_MS: u64 = 30_000;
/// Names that one worker has under way at a time.
const MAX_FLIGHTS: usize = 256;
/// Who may wait, in one worker.
const MAX_WAITERS: usize = 16_384;

/// Looks a name up, and takes as long as it takes.
pub type SystemLookup = fn(&str) -> io::Result<Vec<IpAddr>>;

/// The threads for [`SystemNames`], shared by all workers; each runs `on_start` before anything else, as in
/// [`Pool::start`].
pub fn threads(on_start: impl Fn() -> io::Result<()> + Clone + Send + Sync + 'static) -> Pool {
    Pool::start_later(SYSTEM_THREADS, SYSTEM_QUEUE, on_start)
}

/// Asks the C library.
pub fn ask_system(name: &str) -> io::Result<Vec<IpAddr>> {
    Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

struct Flight {
    key: Key,
    waiters: Vec<u64>,
    deadline_ms: u64,
    /// What is known from before, and when to be content with it.
    old: Option<(Answer, u64)>,
}

/// One worker's look-ups.
pub(super) struct SystemNames {
    mailbox: Mailbox<io::Result<Vec<IpAddr>>>,
    ask: SystemLookup,
    cache: Cache,
    flights: BTreeMap<JobId, Flight>,
    by_key: HashMap<Key, JobId>,
    waiters: usize,
    finished: VecDeque<Found>,
}

/// What a look-up gives at once.
pub(super) enum SystemFound {
    Known(Result<Answer, NameError>),
    /// The waiter will be told.
    Pending,
}

impl SystemNames {
    /// Asks by `ask` in these threads; `wake` is called when one has an answer.
    pub fn new(threads: &Pool, ask: SystemLookup, wake: Arc<dyn Fn() + Send + Sync>) -> SystemNames {
        SystemNames {
            mailbox: threads.mailbox(wake),
            ask,
            cache: Cache::new(Some(VALID_MS)),
            flights: BTreeMap::new(),
            by_key: HashMap::new(),
            waiters: 0,
            finished: VecDeque::new(),
        }
    }

    /// What is known of a name, or the promise to tell `waiter`. Beyond [`MAX_FLIGHTS`] names and [`MAX_WAITERS`] waiters
    /// an old answer serves, or it is [`NameError::Busy`].
    pub fn lookup(&mut self, name: &[u8], waiter: u64, now_ms: u64) -> SystemFound {
        let Ok(name) = DnsName::parse(name) else { return SystemFound::Known(Err(NameError::NotFound)) };
        let key = Key { name, is_service: false };
        let old = match self.cache.look_up(&key, now_ms) {
            Known::Answer(answer) => return SystemFound::Known(Ok(answer)),
            Known::Error(error) => return SystemFound::Known(Err(error)),
            Known::Old(old) => old,
        };
        if self.waiters >= MAX_WAITERS {
            return SystemFound::Known(old.ok_or(NameError::Busy));
        }
        let job = match self.by_key.get(&key) {
            Some(job) => *job,
            None => match self.start(&key, old.clone(), now_ms) {
                Some(job) => job,
                None => return SystemFound::Known(old.ok_or(NameError::Busy)),
            },
        };
        let Some(flight) = self.flights.get_mut(&job) else {
            return SystemFound::Known(Err(NameError::System));
        };
        match &flight.old {
            Some((answer, from_ms)) if *from_ms <= now_ms => SystemFound::Known(Ok(answer.clone())),
            // A thread has been at it for longer than anyone should wait.
            _ if flight.deadline_ms <= now_ms => SystemFound::Known(Err(NameError::TimedOut)),
            _ => {
                flight.waiters.push(waiter);
                self.waiters += 1;
                SystemFound::Pending
            }
        }
    }

    fn start(&mut self, key: &Key, old: Option<Answer>, now_ms: u64) -> Option<JobId> {
        if self.flights.len() >= MAX_FLIGHTS {
            return None;
        }
        let (ask, name) = (self.ask, key.name.clone());
        let job = self.mailbox.submit(move || ask(name.as_str())).ok()?;
        let old = old.map(|answer| (answer, now_ms + STALE_AFTER_MS));
        let deadline_ms = now_ms + TIMEOUT_MS;
        self.by_key.insert(key.clone(), job);
        self.flights.insert(job, Flight { key: key.clone(), waiters: Vec::new(), deadline_ms, old });
        Some(job)
    }

    /// Nobody waits under this number any more.
    pub fn cancel(&mut self, waiter: u64) {
        for flight in self.flights.values_mut() {
            let before = flight.waiters.len();
            flight.waiters.retain(|other| *other != waiter);
            self.waiters -= before - flight.waiters.len();
        }
        self.finished.retain(|(other, _)| *other != waiter);
    }

    /// Takes what the threads have found.
    pub fn on_wake(&mut self, now_ms: u64) {
        while let Some((job, outcome)) = self.mailbox.take() {
            let Some(flight) = self.flights.remove(&job) else { continue };
            self.by_key.remove(&flight.key);
            let result = self.remember(&flight.key, outcome, now_ms);
            self.tell(flight.waiters, &result);
        }
    }

    fn remember(
        &mut self,
        key: &Key,
        outcome: Result<io::Result<Vec<IpAddr>>, Panicked>,
        now_ms: u64,
    ) -> Result<Answer, NameError> {
        let error = match outcome {
            Ok(Ok(found)) if !found.is_empty() => {
                let mut addresses: Vec<IpAddr> = Vec::new();
                for address in found {
                    if addresses.len() < MAX_ADDRESSES && !addresses.contains(&address) {
                        addresses.push(address);
                    }
                }
                let records = Records::Addresses(addresses.into());
                let expires_ms = self.cache.expiry(0, now_ms);
                self.cache.put_answer(key, records.clone(), expires_ms);
                return Ok(Answer { records, expires_ms, stale: false });
            }
            Ok(Ok(_)) => NameError::NotFound,
            Ok(Err(error)) => error_of(&error),
            Err(Panicked) => NameError::System,
        };
        if error.is_denial() {
            self.cache.put_denial(key, error, None, now_ms);
            return Err(error);
        }
        self.cache.put_failure(key, error, now_ms).ok_or(error)
    }

    fn tell(&mut self, waiters: Vec<u64>, result: &Result<Answer, NameError>) {
        self.waiters -= waiters.len();
        self.finished.extend(waiters.into_iter().map(|waiter| (waiter, result.clone())));
    }

    /// When [`SystemNames::on_deadline`] is to be called, in monotonic milliseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        let waited_for = self.flights.values().filter(|flight| !flight.waiters.is_empty());
        waited_for
            .map(|flight| match &flight.old {
                Some((_, from_ms)) => flight.deadline_ms.min(*from_ms),
                None => flight.deadline_ms,
            })
            .min()
    }

    /// Tells those who have waited long enough: an old answer, or that the time is over.
    pub fn on_deadline(&mut self, now_ms: u64) {
        let mut due = Vec::new();
        for flight in self.flights.values_mut() {
            let result = match &flight.old {
                Some((answer, from_ms)) if *from_ms <= now_ms => Ok(answer.clone()),
                _ if flight.deadline_ms <= now_ms => Err(NameError::TimedOut),
                _ => continue,
            };
            if !flight.waiters.is_empty() {
                due.push((std::mem::take(&mut flight.waiters), result));
            }
        }
        for (waiters, result) in due {
            self.tell(waiters, &result);
        }
    }

    /// The next waiter who has an answer.
    pub fn take_finished(&mut self) -> Option<Found> {
        self.finished.pop_front()
    }
}

/// What the C library's error means. The standard library gives its text alone (`gai_strerror`, which is not translated
/// unless a program asks for it); glibc's and musl's are known here.
fn error_of(error: &io::Error) -> NameError {
    let text = error.to_string();
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    if says(&["not known", "No address associated", "does not resolve", "no usable address"]) {
        NameError::NotFound
    } else if says(&["Temporary failure", "Try again"]) {
        NameError::ServerFailure
    } else {
        NameError::System
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_c_library_are_told_apart() {
        let of =
            |text: &str| error_of(&io::Error::other(format!("failed to lookup address information: {text}")));
        assert_eq!(of("Name or service not known"), NameError::NotFound);
        assert_eq!(of("No address associated with hostname"), NameError::NotFound);
        assert_eq!(of("Name does not resolve"), NameError::NotFound);
        assert_eq!(of("Temporary failure in name resolution"), NameError::ServerFailure);
        assert_eq!(of("Memory allocation failure"), NameError::System);
    }
}
