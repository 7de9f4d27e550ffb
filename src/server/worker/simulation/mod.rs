//! The engine in a simulated network: a real worker, turned by hand, between clients and upstreams that a seed scripts.
//!
//! Bytes go through real sockets of this machine, all of them in one thread; the clock is the simulation's, so that
//! timeouts take no time, and so are the pool's threads, so that a slow disk is a matter of dice as well. Each step lets
//! one peer, or the worker, do a little: send some bytes, read some, close, reset. A seed tells all of that. What runs over
//! Unix sockets, most of it, is the same for the same seed; how TCP splits the bytes of one send is the kernel's affair.
//!
//! The laws ([`laws`]): every request gets at most one final response; one that is complete has the bytes of that very
//! request, decoded and filtered; nothing cut short looks complete; a body that an upstream got whole, it got once;
//! upstreams see only well-formed requests of our clients; without faults all is answered; no turn panics; and in the end
//! nothing is left: no connection, no job, no place in a line, no timer.
//!
//! A configuration and its worker serve some seeds, one after the other ([`SEEDS_PER_STAGE`]).
//! `THALWEG_SEEDS=5000 cargo test --lib simulation` runs more seeds, `THALWEG_SEED=17` that one on a stage of its own,
//! which is what happened but for what the seeds before it on the same stage have left behind (`THALWEG_SEEDS=16..18`).

mod client;
mod client_h1;
mod client_h2;
mod dice;
mod laws;
mod line;
mod stage;
mod upstream;
mod upstream_h1;
mod upstream_h2;

use std::cell::Cell;
use std::ops::Range;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::server::client::State;

use client::Client;
use dice::Dice;
use laws::{Ledger, law};
use stage::Stage;
use upstream::Upstreams;

/// Seeds that a plain run takes.
const SEEDS: u64 = 300;
/// Seeds that share a configuration and its worker.
const SEEDS_PER_STAGE: u64 = 16;
/// Threads that share the seeds.
const THREADS: usize = 2;
/// Steps of a run before its end is enforced.
const STEPS: usize = 300;
/// Rounds in which everybody does what is left to do.
const LAST_ROUNDS: usize = 4_000;

thread_local! {
    static PANICS: Cell<usize> = const { Cell::new(0) };
}

/// Counts panics of this thread: a turn's own are caught by the worker.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            before(info);
        }));
    });
}

/// One seed's world.
struct World<'a> {
    dice: Dice,
    stage: &'a mut Stage,
    upstreams: &'a mut Upstreams,
    clients: Vec<Client>,
    ledger: Ledger,
}

impl World<'_> {
    fn new<'a>(seed: u64, stage: &'a mut Stage, upstreams: &'a mut Upstreams) -> World<'a> {
        let mut dice = Dice(seed);
        let mut ledger = Ledger::new(stage.faults, stage.may_repeat, stage.upstreams_speak_h2);
        let (front, now_ms) = (&stage.front, stage.now_ms());
        let clients =
            (0..1 + dice.below(4)).map(|_| Client::new(front, now_ms, &mut ledger, &mut dice)).collect();
        World { dice, stage, upstreams, clients, ledger }
    }

    /// How many requests there were, and how many got all of a good response.
    fn run(&mut self) -> Result<(usize, usize), String> {
        for _ in 0..STEPS {
            self.step()?;
        }
        self.finish()?;
        for client in &self.clients {
            client.judge(&self.ledger)?;
        }
        self.ledger.check()?;
        self.end()?;
        Ok(self.ledger.tally())
    }

    fn step(&mut self) -> Result<(), String> {
        match self.dice.below(8) {
            0..=2 => self.stage.round(),
            3 | 4 => {
                let at = self.dice.below(self.clients.len());
                self.clients[at].step(self.stage.now_ms(), &mut self.ledger, &mut self.dice)?;
            }
            5 | 6 => self.upstreams.step(self.stage.now_ms(), &mut self.ledger, &mut self.dice)?,
            _ => self.upstreams.accept(self.stage.now_ms(), &self.ledger, &mut self.dice),
        }
        if self.dice.one_in(3) {
            self.stage.jobs.run_one();
        }
        if self.dice.one_in(60) {
            self.stage.pass_time(100);
        }
        Ok(())
    }

    /// Everybody does what is left to do, and time passes.
    fn finish(&mut self) -> Result<(), String> {
        for round in 1..=LAST_ROUNDS {
            for client in &mut self.clients {
                client.step(self.stage.now_ms(), &mut self.ledger, &mut self.dice)?;
            }
            self.stage.finish_jobs();
            self.stage.round();
            self.upstreams.step_all(self.stage.now_ms(), &mut self.ledger, &mut self.dice)?;
            if self.clients.iter().all(Client::is_done) {
                break;
            }
            if round % 50 == 0 {
                self.stage.pass_time(1_000);
            }
        }
        Ok(())
    }

    /// Closes all, lets every patience end, and sees what is left.
    fn end(&mut self) -> Result<(), String> {
        let stays = self.dice.one_in(2);
        let mut clients = std::mem::take(&mut self.clients);
        if !stays {
            clients.clear();
            self.upstreams.clear();
        }
        for _ in 0..300 {
            self.stage.pass_time(2_000);
            self.stage.finish_jobs();
            self.stage.round();
            if self.left().is_ok() {
                break;
            }
        }
        self.left()?;
        self.upstreams.clear();
        law!(PANICS.get() == 0, "a turn panicked");
        Ok(())
    }

    /// What is left of connections, requests and timers.
    fn left(&self) -> Result<(), String> {
        let (worker, res) = (&self.stage.worker, &self.stage.worker.res);
        if let Some((_, client)) = worker.clients.iter().next() {
            let state = match &client.state {
                State::Active(active) => format!(
                    "{} {:?}, status {}, upstream {}",
                    String::from_utf8_lossy(active.exchange.head.target()),
                    active.waiting,
                    active.exchange.response.status.0,
                    active.relay.is_some()
                ),
                State::Multiplexed(mux) => format!("{} streams", mux.borrow().machine.open_streams()),
                _ => "between requests".to_owned(),
            };
            let (due_ms, now_ms) = (client.deadline_ms, self.stage.now_ms());
            return Err(format!("a connection is left: {state}, due {due_ms}, now {now_ms}"));
        }
        law!(worker.lanes == 0, "{} lanes are counted", worker.lanes);
        law!(res.links.len() == 0, "{} sockets of upstreams are left", res.links.len());
        law!(res.idle.len() == 0 && res.multiplexed.is_empty(), "idle connections are left");
        law!(res.jobs.is_empty() && res.queued.is_empty() && res.resumed.is_empty(), "somebody waits still");
        law!(res.ready.is_empty() && !worker.has_streams_to_run(), "turns are left");
        law!(res.name_waiters.is_empty() && res.name_results.is_empty(), "names are waited for");
        let counts = res.counters.read();
        let counts = (counts.active, counts.reading, counts.writing);
        law!(counts == (0, 0, 0), "active, reading and writing are {counts:?}");
        for known in self.stage.site.upstreams.all() {
            law!(!known.group.is_awaited(), "somebody waits for {}", known.group.name());
            for peer in known.group.peers() {
                let counts = (peer.state().in_flight(), peer.state().overdue());
                law!(counts == (0, 0), "in flight, overdue of {}: {counts:?}", peer.name());
            }
        }
        law!(res.wheel.is_empty(), "{} timers are left", res.wheel.len());
        Ok(())
    }
}

/// Runs the seeds of one stage; see [`World::run`].
fn run_stage(number: u64, seeds: Range<u64>) -> Result<(usize, usize), String> {
    let mut tally = (0, 0);
    let mut stage = Stage::new(&mut Dice(!number), seeds.end - seeds.start == 1);
    let mut upstreams = Upstreams::new(stage.upstreams.clone(), stage.upstreams_speak_h2);
    for seed in seeds {
        let result = World::new(seed, &mut stage, &mut upstreams).run();
        let (asked, good) = result.map_err(|why| {
            let log = stage.log();
            format!(
                "seed {seed}: {why}\nwith {}\n{log}\nagain: THALWEG_SEED={seed} cargo test --lib simulation",
                stage.text
            )
        })?;
        tally = (tally.0 + asked, tally.1 + good);
    }
    let files = stage.temporary_files();
    law!(files == 0, "stage {number}: {files} temporary files are left");
    Ok(tally)
}

/// The seeds of this run.
fn seeds() -> Range<u64> {
    let read = |name: &str| std::env::var(name).ok();
    let number = |text: &str| text.trim().parse::<u64>().expect("a number");
    match (read("THALWEG_SEED"), read("THALWEG_SEEDS")) {
        (Some(seed), _) => number(&seed)..number(&seed) + 1,
        (None, Some(seeds)) => match seeds.split_once("..") {
            Some((from, to)) => number(from)..number(to),
            None => 0..number(&seeds),
        },
        (None, None) => 0..SEEDS,
    }
}

#[test]
fn the_laws_hold_for_every_seed() {
    count_panics();
    let seeds = seeds();
    let next = AtomicU64::new(seeds.start / SEEDS_PER_STAGE);
    let run_some = || {
        let mut tally = (0, 0);
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let first = number * SEEDS_PER_STAGE;
            if first >= seeds.end {
                return Ok(tally);
            }
            let some = first.max(seeds.start)..(first + SEEDS_PER_STAGE).min(seeds.end);
            match run_stage(number, some) {
                Ok((asked, good)) => tally = (tally.0 + asked, tally.1 + good),
                Err(why) => {
                    // The others need not go on.
                    next.store(u64::MAX / SEEDS_PER_STAGE - THREADS as u64, Ordering::Relaxed);
                    return Err(why);
                }
            }
        }
    };
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(run_some)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic outside of turns"))
            .collect::<Vec<_>>()
    });
    let (mut asked, mut good) = (0, 0);
    for result in results {
        let tally: (usize, usize) = result.unwrap_or_else(|why: String| panic!("{why}"));
        (asked, good) = (asked + tally.0, good + tally.1);
    }
    let is_enough = asked < 300 || good > asked / 2;
    assert!(is_enough, "of {asked} requests only {good} got a good response: that proves little");
}
