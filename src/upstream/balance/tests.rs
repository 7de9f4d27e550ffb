//! Laws of the methods, over seeds.

use std::net::IpAddr;
use std::sync::Arc;

use fastrand::Rng;
use proptest::prelude::*;

use super::*;
use crate::upstream::peer::{Peer, PeerAddress};
use crate::upstream::plan::{LeastTime, PeerPlan, PlanAddress};

const TIME: LeastTime = LeastTime { whole: false, inflight: false };

fn slot(number: u8, weight: u32) -> Slot {
    let address = std::net::SocketAddr::from(([10, 0, 0, number], 80));
    let plan = PeerPlan { weight, ..PeerPlan::new(address.to_string(), PlanAddress::Inet(vec![address])) };
    Slot::new(Arc::new(Peer::new(0, plan, PeerAddress::Inet(address), Arc::default())))
}

fn slots(weights: &[u32]) -> Vec<Slot> {
    weights.iter().enumerate().map(|(number, weight)| slot(number as u8, *weight)).collect()
}

fn ring(slots: &[Slot]) -> ketama::Ring {
    ketama::Ring::new(slots.iter().map(|slot| &slot.peer.plan))
}

fn methods() -> Vec<Method> {
    let times = [(false, false), (true, false), (false, true), (true, true)];
    let times = times.map(|(whole, inflight)| LeastTime { whole, inflight });
    let mut all = vec![
        Method::RoundRobin,
        Method::LeastConn,
        Method::IpHash,
        Method::Hash { consistent: false },
        Method::Hash { consistent: true },
        Method::Random(None),
        Method::Random(Some(OfTwo::LeastConn)),
    ];
    for time in times {
        all.extend([Method::LeastTime(time), Method::Random(Some(OfTwo::LeastTime(time)))]);
    }
    all
}

/// How often each slot is chosen when requests end at once.
fn spread(method: Method, slots: &mut [Slot], picks: u32, random: &mut Rng) -> Vec<u32> {
    spread_of(method, slots, picks, random, false)
}

/// The same when none ends.
fn spread_of(method: Method, slots: &mut [Slot], picks: u32, random: &mut Rng, lasting: bool) -> Vec<u32> {
    let ring = ring(slots);
    let mut counts = vec![0; slots.len()];
    for _ in 0..picks {
        let key = random.u64(..).to_be_bytes();
        let client_ip = Some(IpAddr::from(random.u32(..).to_be_bytes()));
        let mut question =
            Question { now_ms: 1, client_ip, key: &key, random: &mut random.fork(), ring: Some(&ring) };
        let position = pick(method, slots, &mut question).expect("a peer");
        counts[position] += 1;
        slots[position].in_flight += u32::from(lasting);
    }
    counts
}

/// Largest distance of a share from what the weight says, as a part of all picks.
fn error(counts: &[u32], weights: &[u32]) -> f64 {
    let (picks, total): (u32, u32) = (counts.iter().sum(), weights.iter().sum());
    let distance = |(count, weight): (&u32, &u32)| {
        (f64::from(*count) / f64::from(picks) - f64::from(*weight) / f64::from(total)).abs()
    };
    counts.iter().zip(weights).map(distance).fold(0.0, f64::max)
}

fn weights() -> impl Strategy<Value = Vec<u32>> {
    proptest::collection::vec(1..20u32, 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn weights_are_kept_within_a_percent(weights in weights(), seed in any::<u64>()) {
        for method in methods().into_iter().filter(|method| !is_by_chance(*method)) {
            // By time the heaviest of idle servers is always the best; weights count among those that have work.
            let by_time = matches!(method, Method::LeastTime(_));
            let counts = spread_of(method, &mut slots(&weights), 4000, &mut Rng::with_seed(seed), by_time);
            prop_assert!(error(&counts, &weights) < 0.01, "{method:?} {weights:?}: {counts:?}");
        }
    }

    #[test]
    fn turns_keep_weights_exactly_in_every_round(weights in weights()) {
        let mut slots = slots(&weights);
        for _ in 0..3 {
            let total: u32 = weights.iter().sum();
            let counts = spread(Method::RoundRobin, &mut slots, total, &mut Rng::with_seed(0));
            prop_assert_eq!(&counts, &weights);
        }
    }

    #[test]
    fn the_ring_spreads_keys_about_as_weights_say(weights in weights(), seed in any::<u64>()) {
        let counts = spread(Method::Hash { consistent: true }, &mut slots(&weights), 5000, &mut Rng::with_seed(seed));
        // 160 points for each unit: the share of a server varies by about a twelfth of itself.
        prop_assert!(error(&counts, &weights) < 0.12, "{weights:?}: {counts:?}");
    }

    #[test]
    fn only_usable_peers_are_chosen(
        weights in weights(),
        usable in proptest::collection::vec(any::<bool>(), 8),
        busy in proptest::collection::vec(0..5u32, 8),
        seed in any::<u64>(),
    ) {
        let mut random = Rng::with_seed(seed);
        for method in methods() {
            let mut slots = slots(&weights);
            let ring = ring(&slots);
            for (position, slot) in slots.iter_mut().enumerate() {
                (slot.usable, slot.in_flight) = (usable[position], busy[position]);
            }
            for _ in 0..50 {
                let key = random.u64(..).to_be_bytes();
                let client_ip = Some(IpAddr::from(random.u128(..).to_be_bytes()));
                let mut question =
                    Question { now_ms: 1, client_ip, key: &key, random: &mut random.fork(), ring: Some(&ring) };
                match pick(method, &mut slots, &mut question) {
                    Some(position) => prop_assert!(slots[position].usable, "{method:?}"),
                    None => prop_assert!(slots.iter().all(|slot| !slot.usable), "{method:?}"),
                }
            }
        }
    }

    #[test]
    fn least_conn_never_picks_a_busier_one(
        weights in weights(),
        busy in proptest::collection::vec(0..50u32, 8),
        picks in 1..200usize,
    ) {
        let mut slots = slots(&weights);
        for (slot, busy) in slots.iter_mut().zip(busy) {
            slot.in_flight = busy;
        }
        for _ in 0..picks {
            let position = least_conn::pick(&mut slots).expect("a peer");
            prop_assert!(slots.iter().all(|other| !least_conn::is_less(other, &slots[position])));
            slots[position].in_flight += 1;
        }
    }

    #[test]
    fn the_better_one_of_two_is_never_the_busiest_of_three(seed in any::<u64>()) {
        let mut random = Rng::with_seed(seed);
        let mut slots = slots(&[1, 1, 1]);
        slots[1].in_flight = 3;
        for _ in 0..100 {
            prop_assert_ne!(random::pick_of_two(&slots, &mut random, least_conn::is_less), Some(1));
        }
    }

    #[test]
    fn least_time_never_picks_a_slower_one(
        times in proptest::collection::vec(0..6000u64, 2..8),
        busy in proptest::collection::vec(0..5u32, 8),
    ) {
        let mut slots = slots(&vec![1; times.len()]);
        for ((slot, time), busy) in slots.iter_mut().zip(&times).zip(busy) {
            slot.peer.state().header().add(*time);
            slot.in_flight = busy;
        }
        let position = least_time::pick(&mut slots, TIME, 1).expect("a peer");
        for other in &slots {
            prop_assert!(!least_time::is_less(other, &slots[position], TIME, 1));
        }
    }

    #[test]
    fn a_server_that_goes_takes_only_its_own_keys_along(
        weights in proptest::collection::vec(1..6u32, 2..7),
        seed in any::<u64>(),
        gone in any::<prop::sample::Index>(),
    ) {
        let mut random = Rng::with_seed(seed);
        let before = slots(&weights);
        let gone = gone.index(weights.len());
        let mut after = slots(&weights);
        after.remove(gone);
        let mut out = slots(&weights);
        out[gone].usable = false;
        let (mut all, full, less) = (before, ring(&out), ring(&after));
        for _ in 0..300 {
            let key = random.u64(..).to_be_bytes();
            let first = ketama::pick(&mut all, &full, &key).expect("a peer");
            // Out for a while, the others stay where they are on the ring; gone for good, the same.
            let meanwhile = ketama::pick(&mut out, &full, &key).expect("a peer");
            prop_assert!(first == gone && meanwhile != gone || first == meanwhile);
            if after.len() > 1 {
                let position = ketama::pick(&mut after, &less, &key).expect("a peer");
                let position = position + usize::from(position >= gone);
                prop_assert!(first == gone || first == position);
            }
        }
    }

    #[test]
    fn a_hashed_key_stays_with_its_server_while_another_is_out(
        weights in proptest::collection::vec(1..6u32, 2..7),
        seed in any::<u64>(),
        out in any::<prop::sample::Index>(),
    ) {
        let mut random = Rng::with_seed(seed);
        let out = out.index(weights.len());
        for _ in 0..100 {
            let key = random.u64(..).to_be_bytes();
            let client = Some(IpAddr::from(random.u32(..).to_be_bytes()));
            let mut rest = slots(&weights);
            rest[out].usable = false;
            let (one, two) = (hash::pick(&mut slots(&weights), &key), hash::pick(&mut rest, &key));
            prop_assert!(one == Some(out) || one == two);
            let mut rest = slots(&weights);
            rest[out].usable = false;
            let (one, two) = (ip_hash::pick(&mut slots(&weights), client), ip_hash::pick(&mut rest, client));
            prop_assert!(one == Some(out) || one == two);
        }
    }
}

/// Whether chance, or a key that is chance here, decides.
fn is_by_chance(method: Method) -> bool {
    method.has_affinity() || matches!(method, Method::Random(_))
}

proptest! {
    // So many picks that a percent is six standard deviations at least.
    #![proptest_config(ProptestConfig { cases: 5, ..ProptestConfig::default() })]

    #[test]
    fn chance_keeps_weights_within_a_percent(weights in weights(), seed in any::<u64>()) {
        for method in methods().into_iter().filter(|method| is_by_chance(*method)) {
            // The ring is as even as its points fall: see above.
            if method == (Method::Hash { consistent: true }) { continue; }
            let by_time = matches!(method, Method::Random(Some(OfTwo::LeastTime(_))));
            let counts = spread_of(method, &mut slots(&weights), 100_000, &mut Rng::with_seed(seed), by_time);
            prop_assert!(error(&counts, &weights) < 0.01, "{method:?} {weights:?}: {counts:?}");
        }
    }
}

#[test]
fn turns_are_spread_out() {
    let mut slots = slots(&[5, 1, 1]);
    let order: Vec<usize> = (0..7).filter_map(|_| round_robin::pick(&mut slots)).collect();
    assert_eq!(order, [0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn a_failure_costs_turns_that_come_back_one_by_one() {
    let mut slots = slots(&[4, 4]);
    round_robin::punish(&mut slots[0]);
    assert_eq!((slots[0].effective, slots[1].effective), (0, 4 * WEIGHT_UNIT));
    let counts = spread(Method::RoundRobin, &mut slots, 8, &mut Rng::with_seed(0));
    assert!(counts[0] < counts[1], "{counts:?}");
    assert_eq!(slots[0].effective, 4 * WEIGHT_UNIT);
    let counts = spread(Method::RoundRobin, &mut slots, 800, &mut Rng::with_seed(0));
    assert!(counts[0].abs_diff(counts[1]) <= 2, "{counts:?}");
}

#[test]
fn clients_of_one_network_go_to_one_server() {
    let mut slots = slots(&[1, 1, 1, 1]);
    let of = |last: u8| Some(IpAddr::from([203, 0, 113, last]));
    let first = ip_hash::pick(&mut slots, of(1));
    for last in 0..=255 {
        assert_eq!(ip_hash::pick(&mut slots, of(last)), first);
    }
}

#[test]
fn times_are_compared_in_steps_and_up_to_a_bound() {
    let mut pair = slots(&[1, 1]);
    pair[0].peer.state().header().add(15);
    pair[1].peer.state().header().add(3);
    let order: Vec<usize> = (0..4).filter_map(|_| least_time::pick(&mut pair, TIME, 1)).collect();
    assert_eq!(order, [0, 1, 0, 1]);
    let slow = slots(&[1, 1]);
    slow[0].peer.state().header().add(9000);
    slow[1].peer.state().header().add(6000);
    assert!(!least_time::is_less(&slow[1], &slow[0], TIME, 1));
}

#[test]
fn a_slow_server_that_was_left_alone_is_given_another_chance() {
    let slots = slots(&[1, 1]);
    slots[0].peer.state().header().add(1000);
    slots[1].peer.state().header().add(400);
    assert!(least_time::is_less(&slots[1], &slots[0], TIME, 9_999));
    for slot in &slots {
        slot.peer.state().began(0);
        slot.peer.state().ended(0, 0);
    }
    slots[1].peer.state().began(30_000);
    slots[1].peer.state().ended(30_000, 0);
    // Three times `fail_timeout`: an eighth.
    assert!(least_time::is_less(&slots[0], &slots[1], TIME, 30_000));
}

#[test]
fn requests_that_wait_count_where_that_is_asked_for() {
    let mut slots = slots(&[1, 1]);
    for slot in &mut slots {
        slot.peer.state().header().add(20);
        slot.in_flight = 1;
    }
    slots[0].peer.state().began(0);
    slots[1].peer.state().began(900);
    let inflight = LeastTime { whole: false, inflight: true };
    assert!(least_time::is_less(&slots[1], &slots[0], inflight, 1000));
    assert!(!least_time::is_less(&slots[1], &slots[0], TIME, 1000));
}
