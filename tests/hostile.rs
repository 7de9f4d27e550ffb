//! Hostile clients beside an honest one.
//!
//! One server of two workers is attacked in every way below, one after the other, for a few seconds each; all the while a
//! good client asks for a small file, mostly over a connection that it keeps, now and then over a fresh one. What is
//! looked at:
//!
//! - the good client is answered, always, and soon: p99 under 20 ms;
//! - the server's memory (VmRSS) grows by no more than the limits allow that the attack's entry names, and comes back;
//! - its descriptors come back;
//! - it says nothing above `warn`, and it lives.
//!
//! How long something takes on a machine that others use too, in a build without optimisation, says little: there the
//! bound is that of an outage (a median of 500 ms). `THALWEG_STRICT=1 cargo test --release --test hostile` holds it to 20 ms,
//! with twice the attackers, and is what `benches/hostile.md` shows. The attackers run at a low priority (nice 10): they
//! stand for other machines, whose processors are not the server's; what they send, it has to work through all the same.
//! The good client's share of a busy machine is then the server's doing.
//!
//! `THALWEG_ATTACK=slow` runs those attacks alone that have `slow` in their names.

#[path = "hostile/attacks.rs"]
mod attacks;
#[path = "hostile/ground.rs"]
mod ground;
#[path = "it/util/mod.rs"]
mod util;

use std::collections::HashMap;

use attacks::ATTACKS;
use ground::{Ground, Outcome};

#[test]
fn a_good_client_is_served_during_every_attack() {
    let only = std::env::var("THALWEG_ATTACK").unwrap_or_default();
    let mut ground = Ground::start();
    let mut failures = Vec::new();
    ground::say(&Outcome::header());
    for attack in ATTACKS.iter().filter(|attack| attack.name.contains(&*only)) {
        let outcome = ground.run(attack);
        ground::say(&outcome.row());
        failures.extend(outcome.failures());
    }
    failures.extend(ground.complaints());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Connections are spread over the workers also where they stay for long and the kernel's hash would not do.
#[test]
fn idle_connections_are_spread_evenly() {
    let _alone = ground::alone();
    let server = ground::server("");
    let mut idle = attacks::Swarm::connect(server.port(), 4000);
    util::eventually("all are accepted", || {
        idle.prune();
        per_worker(&server).iter().sum::<usize>() >= 4000
    });
    let counts = per_worker(&server);
    let (least, most) = (counts.iter().min().copied(), counts.iter().max().copied());
    ground::say(&format!("4,000 idle connections over two workers: {counts:?}"));
    assert_eq!(counts.len(), 2, "{counts:?}");
    assert!(most.unwrap_or(0) * 10 <= least.unwrap_or(0) * 13, "{counts:?}");
}

/// Sockets of clients that each worker's poll watches.
fn per_worker(server: &util::Server) -> Vec<usize> {
    let mut counts = HashMap::new();
    for pid in server.children() {
        let folder = format!("/proc/{}/fdinfo", pid.as_raw_nonzero());
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let watched: Vec<&str> = text.lines().filter(|line| line.starts_with("tfd:")).collect();
            // Listeners, wakers and timers are few; a poll that watches nothing else is no worker's. A worker may have
            // several descriptors of its poll, which say the same.
            if watched.len() > 20 {
                counts.insert((pid, watched.join("\n")), watched.len());
            }
        }
    }
    counts.into_values().collect()
}
