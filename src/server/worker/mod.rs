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
pub mod counters;
pub mod resources;
pub mod streams;
pub mod system_facts;
pub mod upstream_names;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::unix::SourceFd;
use mio::{Events, Interest, Token};
use rustix::event::epoll;
use slab::Slab;

use crate::base::clock::{Now, RenderedDates};
use crate::base::level::Level;
use crate::base::log::LogQueue;
use crate::http::context::Env;
use crate::http::site::{Site, SiteHandle, SiteWatch};
use crate::server::client::{Client, ClientKey, Fate, State};
use crate::server::files::{FileJobs, Files, Limits};
use crate::server::listeners::WorkerListener;
use crate::server::logs::{LogSinks, LogTime, OpenLogs};
use crate::server::names::{Io, Names};
use crate::server::relay::links::{LINK_BIT, LinkKey, Owner};
use crate::server::relay::multiplexed;
use crate::server::relay::probes::Probes;
use crate::server::runtime::{WAKE_TOKEN, WorkerBoot, WorkerCommand};

use accept::Listener;
use balance::{Peer, SharedState};
use counters::Counted;
use resources::Resources;
use upstream_names::UpstreamNames;

/// Events that one wait brings.
const EVENTS: usize = 512;
/// Tokens of listening sockets have this bit; the rest is the listener's number. Tokens of clients are
/// [`ClientKey`]s, whose generation never has its two highest bits set; those of upstreams' sockets have the second.
const LISTENER_BIT: usize = 1 << 63;
/// How often the file caches look for what has become old, in milliseconds.
const SWEEP_MS: u64 = 1000;
/// From so many clients on, memory is given back when they have gone.
const RUSH: usize = 256;
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

/// When the first worker of the process started.
static START: OnceLock<Instant> = OnceLock::new();

/// The worker's clock: monotonic milliseconds count from the start of the process's first worker, so that times in
/// zones mean the same to all.
struct Clock {
    start: Instant,
    /// Monotonic time never begins at 0, so that 0 can stand for "never".
    base_ms: u64,
    /// The simulation's time.
    #[cfg(test)]
    frozen_ms: Option<u64>,
    /// What a test adds to the wall clock, in seconds.
    #[cfg(test)]
    jump_secs: i64,
}

impl Clock {
    fn now(&self) -> Now {
        #[cfg(test)]
        if let Some(ms) = self.frozen_ms {
            return Now {
                monotonic_ms: ms,
                wall_secs: 1_700_000_000 + (ms / 1000) as i64,
                wall_ms_part: (ms % 1000) as u16,
            };
        }
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        #[cfg(test)]
        let wall = Duration::from_secs(wall.as_secs().saturating_add_signed(self.jump_secs));
        Now {
            monotonic_ms: self.base_ms + self.start.elapsed().as_millis() as u64,
            wall_secs: wall.as_secs() as i64,
            wall_ms_part: wall.subsec_millis() as u16,
        }
    }
}

impl Worker {
    fn new(boot: WorkerBoot) -> Option<Worker> {
        let registry = boot.poll.registry().try_clone().ok()?;
        let clock = Clock {
            start: *START.get_or_init(Instant::now),
            base_ms: 1000,
            #[cfg(test)]
            frozen_ms: None,
            #[cfg(test)]
            jump_secs: 0,
        };
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

    /// Gives a connection its turn and does what the turn decides. A panic costs this connection and no other.
    fn turn(&mut self, key: ClientKey, act: impl FnOnce(&mut Client, ClientKey, &mut Resources) -> Fate) {
        let Some(client) = self.clients.get_mut(key.index as usize) else { return };
        // A late event for a former tenant of the place.
        if client.generation != key.generation {
            return;
        }
        let res = &mut self.res;
        res.current_socket.set(client.raw_socket());
        let act = || {
            client.unpark(res);
            act(client, key, res)
        };
        let fate = catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|_| {
            // The panic hook has logged where it was. What this turn had gathered is of unknown state.
            res.recover();
            client.abandon_multiplexed(res);
            client.state = State::Head;
            client.flags.reset = true;
            Fate::Close
        });
        if fate == Fate::Close
            && !self.res.out.is_empty()
            && let Some(client) = self.clients.get_mut(key.index as usize)
        {
            client.send_last(&mut self.res);
        }
        debug_assert!(self.res.out.is_empty(), "a turn ends with everything sent or kept");
        match fate {
            Fate::Keep => {
                if let Some(client) = self.clients.get_mut(key.index as usize) {
                    settle(client, key, &mut self.res);
                }
            }
            Fate::Close => self.close(key),
        }
    }

    /// Closes a connection.
    fn close(&mut self, key: ClientKey) {
        let matches =
            self.clients.get(key.index as usize).is_some_and(|client| client.generation == key.generation);
        if !matches {
            return;
        }
        let mut client = self.clients.remove(key.index as usize);
        client.on_close(None, &mut self.res);
        match client.lane() {
            Some(_) => {
                client.count_as(Counted::Waiting, &self.res.counters);
                self.lanes -= 1;
            }
            None => self.res.counters.close(client.counted),
        }
        let number = client.listener as usize;
        if let Some(slot) = self.res.listeners.get_mut(number)
            && let Some(listener) = slot
        {
            listener.clients -= 1;
            if listener.clients == 0 && listener.socket.is_none() {
                *slot = None;
            }
        }
        self.peer.set_connections(self.clients.len() - self.lanes);
        if self.resting_until_ms.is_some() {
            // Its place and its descriptor are free.
            self.resting_until_ms = Some(0);
        }
        // Dropping the socket closes it, which takes it out of the poll as well.
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

    fn take_commands(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                WorkerCommand::Configure { site, listeners, logs } => self.configure(site, listeners, logs),
                WorkerCommand::ReopenLogs { logs } => {
                    self.logs = logs;
                    self.adopt_logs();
                }
                WorkerCommand::Quit { deadline } => self.begin_quit(deadline),
                WorkerCommand::Terminate => self.terminated = true,
            }
        }
    }

    /// Serves from a new site and accepts from these sockets.
    fn configure(&mut self, site: Arc<Site>, listeners: Vec<WorkerListener>, logs: Arc<OpenLogs>) {
        self.shortage = accept::Shortage::of_process();
        let site = SiteHandle::new(site);
        let former = std::mem::replace(&mut self.res.site, site.clone());
        self.res.set_tls_clock();
        self.former_sites.push(former.watch());
        drop(former);
        self.res.forget_recycled();
        self.logs = logs;
        self.adopt_logs();
        if let Some(upstream_names) = &mut self.upstream_names {
            upstream_names.configure(&self.res.site.upstreams, &mut self.res.names);
        }
        self.res.names.forget_unused();
        self.res.forget_idle();
        if let Some(probes) = &mut self.probes {
            probes.configure(&site, &mut self.res);
        }
        let mut kept = vec![false; listeners.len()];
        for number in 0..self.res.listeners.len() {
            let Some(Some(listener)) = self.res.listeners.get(number) else { continue };
            let position = listener
                .socket
                .as_ref()
                .and_then(|socket| listeners.iter().position(|new| Arc::ptr_eq(&new.socket, socket)));
            match position {
                Some(position) => kept[position] = true,
                None => self.abandon_listener(number),
            }
            let Some(Some(listener)) = self.res.listeners.get_mut(number) else { continue };
            // Also where only the connections are left: the address may have other sockets.
            if let Some(new) = listeners.iter().find(|new| new.plan.address == listener.plan.address) {
                listener.plan = Arc::clone(&new.plan);
                listener.proxy_protocol = speaks_proxy_protocol(&site, &new.plan);
                listener.most = addresses::most_connections(&site, &new.plan);
                listener.site = site.clone();
            }
        }
        for (new, _) in listeners.into_iter().zip(kept).filter(|(_, kept)| !kept) {
            let number = self.put_listener(Listener {
                proxy_protocol: speaks_proxy_protocol(&site, &new.plan),
                most: addresses::most_connections(&site, &new.plan),
                socket: Some(new.socket),
                plan: new.plan,
                site: site.clone(),
                clients: 0,
            });
            if self.resting_until_ms.is_none() {
                self.watch_listener(number);
            }
        }
    }

    /// Accepts what waits in a socket that is given up, and lets go of it; its connections go on.
    fn abandon_listener(&mut self, number: usize) {
        self.drain(number);
        let Some(slot) = self.res.listeners.get_mut(number) else { return };
        let Some(listener) = slot else { return };
        if let Some(socket) = listener.socket.take() {
            // The descriptor is shared with the other holders: closing ours would not deregister it.
            let _ = epoll::delete(epoll_of(&self.poll), socket.as_fd());
        }
        if listener.clients == 0 {
            *slot = None;
        }
    }

    /// Finishes what is under way and accepts nothing more.
    fn begin_quit(&mut self, deadline: Option<Instant>) {
        self.quit_deadline = deadline;
        for number in 0..self.res.listeners.len() {
            self.abandon_listener(number);
        }
        self.shared.leave(&self.peer);
        let handed = self.peer.close_inbox();
        self.take_handed(handed);
        self.res.quitting = true;
        self.quit_multiplexed();
        multiplexed::retire_all(&mut self.res);
        self.close_idle();
    }

    /// Tells clients of HTTP/2 to make their next requests elsewhere.
    fn quit_multiplexed(&mut self) {
        for (_, client) in &mut self.clients {
            client.quit_multiplexed(&mut self.res);
        }
    }

    /// Closes connections between requests. One that has not made its first request yet is given the time that its head
    /// may take: the client has no reason to expect the end.
    fn close_idle(&mut self) {
        let now_ms = self.res.env.now.monotonic_ms;
        let idle: Vec<ClientKey> = self
            .clients
            .iter()
            .filter(|(_, client)| client.may_give_way(now_ms))
            .map(|(index, client)| ClientKey { index: index as u32, generation: client.generation })
            .collect();
        for key in idle {
            // A request may have come that the poll has not reported yet: it is served, as the last one.
            self.turn(key, |client, key, res| {
                client.flags.unread = true;
                match client.read_on(key, res) {
                    Fate::Keep if client.is_idle() => Fate::Close,
                    fate => fate,
                }
            });
        }
    }

    fn is_over(&mut self) -> bool {
        if self.terminated {
            return true;
        }
        if !self.res.quitting {
            return false;
        }
        self.close_idle();
        self.clients.is_empty() || self.quit_deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    fn shut_down(&mut self) {
        self.shared.leave(&self.peer);
        let keys: Vec<ClientKey> = self
            .clients
            .iter()
            .map(|(index, client)| ClientKey { index: index as u32, generation: client.generation })
            .collect();
        for key in keys {
            self.close(key);
        }
        self.write_logs();
        self.with_log_time(|sinks, time| {
            sinks.flush_all(time);
        });
    }

    fn sweep(&mut self) {
        let now = self.res.env.now;
        if now.monotonic_ms >= self.res.idle.next_deadline_ms() {
            self.res.idle.sweep(now.monotonic_ms, &mut self.res.links);
        }
        if now.monotonic_ms >= self.res.multiplexed.next_deadline_ms() {
            multiplexed::sweep(&mut self.res);
        }
        if now.monotonic_ms >= self.next_sweep_ms {
            self.next_sweep_ms = now.monotonic_ms + SWEEP_MS;
            self.res.files.sweep(now.into());
            self.forget_sites();
            self.log_refusals();
            self.give_memory_back();
        }
    }

    fn rush_is_over(&self) -> bool {
        self.most_clients >= RUSH && self.clients.len() < self.most_clients / 4
    }

    /// After a rush, what it has taken is given back. That locks the heap for a moment, and is done by a thread of its own
    /// that is there for it alone: the pool's may be busy with the disk.
    fn give_memory_back(&mut self) {
        if self.rush_is_over() {
            self.most_clients = self.clients.len();
            self.clients.shrink_to_fit();
            // Without it the memory is kept for the next rush, which does no harm.
            let _ = std::thread::Builder::new().name("trim".into()).spawn(crate::server::sys::trim_heap);
        }
    }

    /// When no request of a former site is left, the logs that only it named are closed.
    fn forget_sites(&mut self) {
        if self.former_sites.is_empty() {
            return;
        }
        self.former_sites.retain(SiteWatch::is_in_use);
        if self.former_sites.is_empty() {
            let logs = Arc::clone(&self.logs);
            self.with_log_time(|sinks, time| sinks.retain_only(&logs, time));
        }
    }

    fn adopt_logs(&mut self) {
        let logs = Arc::clone(&self.logs);
        self.with_log_time(|sinks, time| sinks.adopt(&logs, time));
    }

    fn with_log_time(&mut self, act: impl FnOnce(&mut LogSinks, LogTime<'_>)) {
        let time = LogTime { now_ms: self.res.env.now.monotonic_ms, text: self.res.env.dates.error_log() };
        act(&mut self.sinks, time);
    }

    /// Writes what this round has logged.
    fn write_logs(&mut self) {
        let env = &mut self.res.env;
        let time = LogTime { now_ms: env.now.monotonic_ms, text: env.dates.error_log() };
        self.sinks.write_access(&mut env.access, time);
        self.sinks.write_errors(&mut env.logs, time);
        self.sinks.end_of_turn(time);
        if self.sinks.has_reports() {
            for report in self.sinks.take_reports() {
                self.log(report.level, &report.text);
            }
        }
    }

    /// Logs about the worker itself, to the main error log.
    fn log(&mut self, level: Level, text: &str) {
        let targets = self.res.site.error_log.clone();
        self.res.env.logs.push(&targets, level, None, format_args!("{text}"));
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

/// After a turn: the poll and the wheel are told what the connection needs from them.
fn settle(client: &mut Client, key: ClientKey, res: &mut Resources) {
    if client.is_to_be_parked() {
        client.park(res);
    }
    client.recount(&res.counters);
    if let Some(lane) = client.lane() {
        lane.after_turn(res);
    }
    if !client.flags.registered {
        let token = Token(key.to_bits() as usize);
        let registered = client.transport.socket().is_some_and(|socket| {
            let raw = socket.as_raw_fd();
            res.registry.register(&mut SourceFd(&raw), token, client.interest()).is_ok()
        });
        match registered {
            true => client.flags.registered = true,
            // Without events the connection would hang: its deadline closes it at once.
            false => client.deadline_ms = 0,
        }
    }
    if client.deadline_ms < client.armed_ms {
        client.armed_ms = client.deadline_ms;
        res.wheel.insert(client.deadline_ms, key.to_bits());
    }
}

impl Client {
    /// The socket's number; that of its connection for a stream.
    fn raw_socket(&self) -> RawFd {
        match self.stream() {
            Some(end) => end.link.mux.borrow().socket,
            None => self.transport.socket().map_or(-1, |socket| socket.as_raw_fd()),
        }
    }

    fn interest(&self) -> Interest {
        if self.flags.wants_write { Interest::READABLE.add(Interest::WRITABLE) } else { Interest::READABLE }
    }

    /// Asks to be told when the socket has room.
    pub fn want_write(&mut self, key: ClientKey, res: &mut Resources) {
        if let Some(lane) = self.lane() {
            lane.want_turn(true);
            return;
        }
        if self.flags.wants_write {
            return;
        }
        self.flags.wants_write = true;
        if self.flags.registered
            && let Some(socket) = self.transport.socket()
        {
            let raw = socket.as_raw_fd();
            let token = Token(key.to_bits() as usize);
            if res.registry.reregister(&mut SourceFd(&raw), token, self.interest()).is_err() {
                self.set_deadline(0);
            }
        }
    }
}

/// The token of a resolver's socket: the bits of links and of listeners, and not all of them, as the waker's are.
fn names_token(number: u64) -> Token {
    Token(LISTENER_BIT | LINK_BIT | number as usize)
}

/// The number of a resolver's socket, if the token is of one.
fn names_number(token: Token) -> Option<u64> {
    let both = LISTENER_BIT | LINK_BIT;
    (token != WAKE_TOKEN && token.0 & both == both).then_some((token.0 & !both) as u64)
}

/// The link that a token names, if it is one of a link.
fn link_of(token: Token) -> Option<LinkKey> {
    (token.0 & (LISTENER_BIT | LINK_BIT) == LINK_BIT && token != WAKE_TOKEN)
        .then(|| LinkKey::from_token(token.0))
}

/// The poll's descriptor.
fn epoll_of(poll: &mio::Poll) -> BorrowedFd<'_> {
    crate::server::sys::borrow(poll)
}

fn speaks_proxy_protocol(site: &Site, plan: &crate::conf::listen::SocketPlan) -> bool {
    site.listens.addresses().get(plan.address_of(None)).is_some_and(|shared| shared.protocol.proxy_protocol)
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
