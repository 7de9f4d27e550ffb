//! A worker: one thread, one loop, its connections.
//!
//! A round of the loop:
//!
//! 1. wait for events, for the next deadline, or not at all if something stands in the ready list;
//! 2. read the clock once;
//! 3. give every connection with an event its turn, accept what waits;
//! 4. take what the pool has finished, and what the main thread and other workers say;
//! 5. give those in the ready list a turn each;
//! 6. wake those whose deadline has passed;
//! 7. write the log lines that were gathered.

pub mod accept;
pub mod addresses;
pub mod balance;
mod clock;
pub mod counters;
mod orders;
pub mod resources;
pub mod streams;
pub mod system_facts;
mod tokens;
mod turn;
mod upkeep;
pub mod upstream_names;

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Token};
use slab::Slab;

use crate::base::clock::RenderedDates;
use crate::base::level::Level;
use crate::base::log::LogQueue;
use crate::http::context::Env;
use crate::http::site::{SiteHandle, SiteWatch};
use crate::server::client::{Client, ClientKey, Fate};
use crate::server::files::{FileJobs, Files, Limits};
use crate::server::logs::{LogSinks, OpenLogs};
use crate::server::names::{Io, Names};
use crate::server::relay::links::Owner;
use crate::server::relay::multiplexed;
use crate::server::relay::probes::Probes;
use crate::server::runtime::{WAKE_TOKEN, WorkerBoot, WorkerCommand};

use balance::{Peer, SharedState};
use clock::Clock;
use resources::Resources;
use tokens::{LISTENER_BIT, link_of, names_number, names_token};
use upkeep::SWEEP_MS;
use upstream_names::UpstreamNames;

/// Events that one wait brings.
const EVENTS: usize = 512;
/// The loop wakes at least so often.
const LONGEST_WAIT_MS: u64 = 10_000;

/// Runs until it is told to end.
pub fn run(boot: WorkerBoot) {
    if let Some(mut worker) = Worker::new(boot) {
        worker.run();
    }
}

/// See the module's documentation.
pub struct Worker {
    poll: mio::Poll,
    commands: crossbeam_channel::Receiver<WorkerCommand>,
    shared: Arc<SharedState>,
    peer: Arc<Peer>,
    clients: Slab<Client>,
    /// How many of them have no socket of their own.
    lanes: usize,
    generation: u32,
    res: Resources,
    sinks: LogSinks,
    /// Events of the present round.
    events: usize,
    /// The names of the site's groups; one worker looks after them for all.
    upstream_names: Option<UpstreamNames>,
    /// Health checks; the same worker makes them.
    probes: Option<Probes>,
    /// Whom the upstreams' events of the present round concern.
    owners: Vec<Owner>,
    /// Accepting rests: descriptors or places ran out.
    resting_until_ms: Option<u64>,
    rest_was_logged: bool,
    /// When idle connections that gave way were last logged.
    shed_logged_ms: u64,
    refusals: addresses::Refusals,
    /// The most clients since memory was last given back.
    most_clients: usize,
    shortage: accept::Shortage,
    /// The open logs of the present site, and the sites before it that may still have requests.
    logs: Arc<OpenLogs>,
    former_sites: Vec<SiteWatch>,
    quit_deadline: Option<Instant>,
    terminated: bool,
    next_sweep_ms: u64,
    clock: Clock,
}

impl Worker {
    fn new(boot: WorkerBoot) -> Option<Worker> {
        let registry = boot.poll.registry().try_clone().ok()?;
        let clock = Clock::start();
        let now = clock.now();
        let waker = boot.waker.clone();
        let wake: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
            // A worker that is gone needs no waking.
            let _ = waker.wake();
        });
        let files = Files::new(Limits::default(), FileJobs::new(&boot.pool, Arc::clone(&wake)));
        let seed = u64::from(std::process::id()) << 32
            ^ u64::from(boot.index as u32) << 16
            ^ now.wall_secs as u64
            ^ u64::from(now.wall_ms_part) << 48;
        let dates = RenderedDates::new(jiff::tz::TimeZone::system(), now);
        let env = Env::new(now, dates, LogQueue::default(), seed, std::process::id(), &rustix_hostname());
        let thread = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        let names = Names::new(&boot.name_threads, wake, names_token);
        let mut worker = Worker {
            peer: boot.shared.join(boot.waker.clone()),
            commands: boot.commands,
            clients: Slab::new(),
            lanes: 0,
            generation: 0,
            res: Resources::new(
                registry,
                SiteHandle::new(boot.site.clone()),
                env,
                files,
                names,
                &boot.shared,
            ),
            sinks: LogSinks::new(std::process::id(), thread),
            events: 0,
            owners: Vec::new(),
            probes: (boot.index == 0).then(Probes::default),
            upstream_names: (boot.index == 0).then(UpstreamNames::default),
            resting_until_ms: None,
            rest_was_logged: false,
            shed_logged_ms: 0,
            refusals: addresses::Refusals::default(),
            most_clients: 0,
            shortage: accept::Shortage::of_process(),
            logs: boot.logs.clone(),
            former_sites: Vec::new(),
            quit_deadline: None,
            terminated: false,
            next_sweep_ms: now.monotonic_ms + SWEEP_MS,
            poll: boot.poll,
            clock,
            shared: boot.shared,
        };
        worker.configure(boot.site, boot.listeners, boot.logs);
        Some(worker)
    }

    fn run(&mut self) {
        let mut events = Events::with_capacity(EVENTS);
        let mut fired = Vec::new();
        loop {
            let timeout = self.timeout();
            if let Err(error) = self.poll.poll(&mut events, Some(timeout))
                && error.kind() != std::io::ErrorKind::Interrupted
            {
                self.log(Level::Alert, &format!("epoll_wait() failed ({error})"));
                return;
            }
            self.serve_events(&events, &mut fired);
            if self.is_over() {
                break;
            }
        }
        self.shut_down();
    }

    /// What a round does once the events are there.
    fn serve_events(&mut self, events: &Events, fired: &mut Vec<u64>) {
        self.res.env.tick(self.clock.now());
        self.res.set_tls_clock();
        let mut woken = false;
        // Upstreams first, idle ones before all: a connection that its peer has closed is never given to a request
        // that comes in the same round.
        let mut owners = std::mem::take(&mut self.owners);
        for event in events {
            if let Some(number) = names_number(event.token()) {
                self.with_names(|names, io| names.on_event(number, io));
            }
            if let Some(key) = link_of(event.token()) {
                match self.res.links.note(key, event) {
                    Some(Owner::Pool) => {
                        let now_ms = self.res.env.now.monotonic_ms;
                        self.res.idle.close(key, now_ms, &mut self.res.links);
                    }
                    Some(owner) => owners.push(owner),
                    None => {}
                }
            }
        }
        for owner in owners.drain(..) {
            self.on_upstream_event(owner);
        }
        self.owners = owners;
        for event in events {
            match event.token() {
                WAKE_TOKEN => woken = true,
                token if link_of(token).is_some() || names_number(token).is_some() => {}
                Token(number) if number & LISTENER_BIT != 0 => self.accept(number & !LISTENER_BIT),
                Token(bits) => self.on_event(ClientKey::from_bits(bits as u64), event),
            }
        }
        if woken {
            self.with_names(|names, io| names.on_wake(io));
            self.take_completions();
            let handed = self.peer.take_handed();
            self.take_handed(handed);
            self.take_commands();
        }
        self.look_up_names();
        self.run_probes();
        self.run_resumed();
        self.run_ready();
        self.end_rest();
        self.wake_late(fired);
        self.run_streams();
        multiplexed::run_queued(&mut self.res);
        self.sweep();
        self.write_logs();
    }

    /// How long the loop may wait for events.
    fn timeout(&mut self) -> Duration {
        if !self.res.ready.is_empty()
            || !self.res.resumed.is_empty()
            || self.has_streams_to_run()
            || self.res.multiplexed.has_turns()
        {
            return Duration::ZERO;
        }
        let now_ms = self.res.env.now.monotonic_ms;
        let deadlines = [
            self.res.wheel.next_deadline(now_ms).map(|ahead| now_ms + ahead),
            self.sinks.next_deadline(),
            self.resting_until_ms,
            self.res.names.next_deadline(),
            self.probes.as_ref().and_then(|probes| probes.next_deadline(now_ms)),
            self.upstream_names.as_ref().and_then(UpstreamNames::next_deadline),
            Some(self.res.idle.next_deadline_ms()),
            Some(self.res.multiplexed.next_deadline_ms()),
            self.rush_is_over().then_some(self.next_sweep_ms),
            Some(now_ms + LONGEST_WAIT_MS),
        ];
        let earliest = deadlines.into_iter().flatten().min().unwrap_or(now_ms);
        let mut wait = Duration::from_millis(earliest.saturating_sub(now_ms));
        if let Some(deadline) = self.quit_deadline {
            wait = wait.min(deadline.saturating_duration_since(Instant::now()));
        }
        wait
    }

    /// Gives whoever uses an upstream's socket its turn.
    fn on_upstream_event(&mut self, owner: Owner) {
        match owner {
            Owner::Client(key) => self.turn(key, Client::on_upstream_event),
            Owner::Probe(number) => {
                if let Some(probes) = &mut self.probes {
                    probes.on_event(number, &mut self.res);
                }
            }
            Owner::Mux(number) => {
                if let Some(mux) = self.res.multiplexed.get(number) {
                    multiplexed::run(&mux, &mut self.res);
                }
            }
            Owner::Pool => {}
        }
    }

    fn on_event(&mut self, key: ClientKey, event: &mio::event::Event) {
        let readable = event.is_readable() || event.is_read_closed() || event.is_error();
        let writable = event.is_writable() || event.is_error();
        let read_closed = event.is_read_closed() || event.is_error();
        self.turn(key, |client, key, res| {
            client.flags.read_closed |= read_closed;
            client.on_event(key, res, readable, writable)
        });
    }

    fn with_names(&mut self, act: impl FnOnce(&mut Names, &mut Io)) {
        let Resources { names, env, registry, .. } = &mut self.res;
        act(names, &mut Io { registry, rng: &mut env.random, now_ms: env.now.monotonic_ms });
    }

    /// Begins health checks that are due.
    fn run_probes(&mut self) {
        let now_ms = self.res.env.now.monotonic_ms;
        if let Some(probes) = &mut self.probes
            && probes.next_deadline(now_ms).is_some_and(|deadline_ms| deadline_ms <= now_ms)
        {
            probes.run(&mut self.res);
        }
    }

    /// Asks for names that are due, and hands out what was found.
    fn look_up_names(&mut self) {
        let now_ms = self.res.env.now.monotonic_ms;
        if self.res.names.next_deadline().is_some_and(|deadline_ms| deadline_ms <= now_ms) {
            self.with_names(|names, io| names.on_deadline(io));
        }
        let mut lines = Vec::new();
        if let Some(mut upstream_names) = self.upstream_names.take() {
            self.with_names(|names, io| lines = upstream_names.run(names, io));
            self.upstream_names = Some(upstream_names);
        }
        while let Some((ticket, result)) = self.res.names.take_finished() {
            if let Some(key) = self.res.name_waiters.remove(&ticket) {
                self.res.name_results.insert(ticket, result);
                self.res.resumed.push(key);
            } else if let Some(upstream_names) = &mut self.upstream_names {
                lines.extend(upstream_names.finished(ticket, &result, now_ms).unwrap_or_default());
            }
        }
        for (level, text) in lines {
            self.log(level, &text);
        }
    }

    /// Gives requests their turn whose relay has something new to look at.
    fn run_resumed(&mut self) {
        for key in std::mem::take(&mut self.res.resumed) {
            self.turn(key, Client::on_upstream_event);
        }
    }

    fn run_ready(&mut self) {
        for _ in 0..self.res.ready.len() {
            let Some(key) = self.res.ready.pop_front() else { return };
            self.turn(key, |client, key, res| {
                client.flags.in_ready_list = false;
                client.on_ready(key, res)
            });
        }
    }

    /// Wakes connections whose deadline has passed; those that moved it meanwhile are armed anew.
    fn wake_late(&mut self, fired: &mut Vec<u64>) {
        let now_ms = self.res.env.now.monotonic_ms;
        self.res.wheel.advance(now_ms, fired);
        for bits in fired.drain(..) {
            let key = ClientKey::from_bits(bits);
            self.turn(key, |client, key, res| {
                if client.armed_ms > now_ms {
                    // An older entry of a connection that is armed for later.
                    return Fate::Keep;
                }
                client.armed_ms = u64::MAX;
                if client.deadline_ms > now_ms { Fate::Keep } else { client.on_deadline(key, res) }
            });
        }
    }

    fn take_completions(&mut self) {
        while let Some((job, completion)) = self.res.files.complete(self.res.env.now.into()) {
            if let Some(key) = self.res.jobs.remove(&job) {
                self.turn(key, |client, key, res| client.on_completion(key, job, completion, res));
            }
        }
    }
}

impl Drop for Worker {
    /// Also when the thread panics: the others must not hand connections to nobody.
    fn drop(&mut self) {
        self.shared.leave(&self.peer);
        self.peer.close_inbox();
        self.shared.counters.leave(&self.res.counters);
    }
}

/// The poll's descriptor.
fn epoll_of(poll: &mio::Poll) -> BorrowedFd<'_> {
    crate::server::sys::borrow(poll)
}

fn rustix_hostname() -> Vec<u8> {
    rustix::system::uname().nodename().to_bytes().to_ascii_lowercase()
}

#[cfg(test)]
mod disk_faults;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
