//! A group's behaviour over time.

use std::net::SocketAddr;
use std::sync::Arc;

use fastrand::Rng;
use proptest::prelude::*;

use super::plan::*;
use super::state::Standing;
use super::*;

fn server(number: u8) -> PeerPlan {
    let address = SocketAddr::from(([10, 0, 0, number], 80));
    PeerPlan::new(address.to_string(), PlanAddress::Inet(vec![address]))
}

fn plan(count: u8) -> GroupPlan {
    GroupPlan::new("g", (0..count).map(server).collect())
}

fn group(count: u8) -> Group {
    Group::new(plan(count), None)
}

fn ask<'a>(now_ms: u64, tried: &'a Tried, random: &'a mut Rng) -> Ask<'a> {
    Ask { now_ms, client_ip: None, key: b"", sticky: b"", tried, random }
}

fn pick_after(group: &Group, now_ms: u64, tried: &Tried) -> Option<Arc<Peer>> {
    match group.pick(ask(now_ms, tried, &mut Rng::with_seed(now_ms))) {
        Pick::Peer(peer) => Some(peer),
        _ => None,
    }
}

fn pick(group: &Group, now_ms: u64) -> Arc<Peer> {
    pick_after(group, now_ms, &Tried::default()).expect("a peer")
}

fn pick_of_session(group: &Group, now_ms: u64, sticky: &[u8]) -> Arc<Peer> {
    let (tried, random) = (Tried::default(), &mut Rng::with_seed(now_ms));
    match group.pick(Ask { sticky, ..ask(now_ms, &tried, random) }) {
        Pick::Peer(peer) => peer,
        other => panic!("{other:?}"),
    }
}

fn end(group: &Group, peer: &Peer, began_ms: u64, now_ms: u64, verdict: Verdict) {
    group.finished(peer, &Outcome { verdict, began_ms, now_ms, bytes: 0 });
}

/// One attempt at a peer that takes no time.
fn attempt(group: &Group, peer: &Peer, now_ms: u64, verdict: Verdict) {
    group.started(peer, now_ms);
    end(group, peer, now_ms, now_ms, verdict);
}

fn octet(peer: &Peer) -> u8 {
    match peer.address() {
        PeerAddress::Inet(SocketAddr::V4(address)) => address.ip().octets()[3],
        other => panic!("{other:?}"),
    }
}

/// The peers that `count` requests at one moment go to, none of which ends.
fn octets(group: &Group, now_ms: u64, count: usize) -> Vec<u8> {
    (0..count).map(|_| octet(&pick(group, now_ms))).collect()
}

#[test]
fn a_server_that_fails_is_left_alone_until_one_request_tries_it() {
    let group = group(2);
    let first = pick(&group, 100);
    attempt(&group, &first, 100, Verdict::Failed);
    assert_eq!(first.state().standing(), Standing::Ejected);
    let other = 1 - octet(&first);
    assert_eq!(octets(&group, 10_100, 5), [other; 5]);
    // fail_timeout has passed: exactly one request tries it.
    let trial = pick(&group, 10_101);
    assert_eq!(octet(&trial), octet(&first));
    group.started(&trial, 10_101);
    assert_eq!(octets(&group, 10_150, 5), [other; 5]);
    end(&group, &trial, 10_101, 10_200, Verdict::Failed);
    assert_eq!(octets(&group, 20_200, 5), [other; 5]);
    let trial = pick(&group, 20_201);
    attempt(&group, &trial, 20_201, Verdict::Good);
    assert_eq!(trial.state().standing(), Standing::Good);
    let share = octets(&group, 20_202, 100).iter().filter(|octet| **octet == 0).count();
    assert!((48..=52).contains(&share), "{share}");
}

#[test]
fn a_trial_is_won_when_the_head_of_its_response_is_there() {
    let group = group(2);
    let first = pick(&group, 100);
    attempt(&group, &first, 100, Verdict::Failed);
    let trial = pick(&group, 20_000);
    group.started(&trial, 20_000);
    group.header(&trial, 20_000, 20_010);
    assert_eq!(trial.state().standing(), Standing::Good);
    assert!(octets(&group, 20_011, 4).contains(&octet(&trial)));
    // Its status, or a body that breaks off, may count against it all the same.
    end(&group, &trial, 20_000, 20_020, Verdict::Failed);
    assert_eq!(trial.state().standing(), Standing::Ejected);
}

#[test]
fn a_trial_that_told_nothing_is_followed_by_another_at_once() {
    let group = group(2);
    let first = pick(&group, 100);
    attempt(&group, &first, 100, Verdict::Failed);
    let trial = pick(&group, 20_000);
    attempt(&group, &trial, 20_000, Verdict::Neutral);
    assert_eq!(octet(&pick(&group, 20_001)), octet(&first));
    // One that is never reported at all is given up after fail_timeout.
    assert_ne!(octet(&pick(&group, 30_001)), octet(&first));
    assert_eq!(octet(&pick(&group, 30_002)), octet(&first));
}

#[test]
fn the_last_usable_server_is_never_ejected() {
    let group = group(3);
    for now_ms in 100..200 {
        let peer = pick(&group, now_ms);
        attempt(&group, &peer, now_ms, Verdict::Failed);
    }
    let standings: Vec<Standing> = group.peers().iter().map(|peer| peer.state().standing()).collect();
    assert_eq!(standings.iter().filter(|standing| **standing == Standing::Good).count(), 1);
    // With another one back, it may go.
    let now_ms = 20_000;
    let back = pick(&group, now_ms);
    attempt(&group, &back, now_ms, Verdict::Good);
    let last = loop {
        let peer = pick(&group, now_ms + 1);
        if !peer.is_same(&back) && peer.state().standing() == Standing::Good {
            break peer;
        }
        attempt(&group, &peer, now_ms + 1, Verdict::Good);
    };
    attempt(&group, &last, now_ms + 2, Verdict::Failed);
    attempt(&group, &last, now_ms + 2, Verdict::Failed);
    assert_eq!(last.state().standing(), Standing::Ejected);
}

#[test]
fn a_group_of_one_server_asks_it_whatever_happened() {
    let group = group(1);
    for now_ms in 0..50 {
        let peer = pick(&group, now_ms);
        attempt(&group, &peer, now_ms, Verdict::Failed);
    }
    assert_eq!(pick(&group, 51).state().failures(), 50);
    let mut tried = Tried::default();
    tried.add(&pick(&group, 52));
    assert!(pick_after(&group, 52, &tried).is_none() && !group.has_untried(&tried, 52));
}

#[test]
fn with_all_others_out_an_ejected_server_is_tried_before_its_time() {
    let group = group(2);
    let dead = pick(&group, 100);
    attempt(&group, &dead, 100, Verdict::Failed);
    let last = pick(&group, 200);
    attempt(&group, &last, 200, Verdict::Failed);
    let mut tried = Tried::default();
    tried.add(&last);
    assert!(pick_after(&group, 1099, &tried).is_none(), "not more than once a second");
    assert!(!group.has_untried(&tried, 1099));
    assert!(group.has_untried(&tried, 1100));
    let trial = pick_after(&group, 1100, &tried).expect("an early trial");
    assert!(trial.is_same(&dead));
    assert!(pick_after(&group, 1100, &tried).is_none(), "one at a time");
    attempt(&group, &trial, 1100, Verdict::Good);
    assert_eq!(dead.state().standing(), Standing::Good);
}

#[test]
fn failures_count_within_their_time_only() {
    let mut plan = plan(2);
    plan.peers[0].max_fails = 3;
    let group = Group::new(plan, None);
    let peer = group.peers()[0].clone();
    for now_ms in [1000, 2000, 11_500, 12_000] {
        attempt(&group, &peer, now_ms, Verdict::Failed);
        assert_eq!(peer.state().standing(), Standing::Good, "{now_ms}");
    }
    attempt(&group, &peer, 13_000, Verdict::Failed);
    assert_eq!(peer.state().standing(), Standing::Ejected);
}

#[test]
fn what_began_before_a_server_came_back_is_not_held_against_it() {
    let group = group(2);
    let peer = group.peers()[0].clone();
    for _ in 0..3 {
        group.started(&peer, 100);
    }
    end(&group, &peer, 100, 200, Verdict::Failed);
    assert_eq!(peer.state().standing(), Standing::Ejected);
    let due_ms = peer.state().due_ms();
    end(&group, &peer, 100, 9000, Verdict::Failed);
    assert_eq!(peer.state().due_ms(), due_ms);
    let trial = pick(&group, 10_201);
    assert!(trial.is_same(&peer));
    attempt(&group, &trial, 10_201, Verdict::Good);
    end(&group, &peer, 100, 10_300, Verdict::Failed);
    assert_eq!((peer.state().standing(), peer.state().in_flight()), (Standing::Good, 0));
}

#[test]
fn max_fails_0_never_ejects() {
    let mut plan = plan(2);
    plan.peers[0].max_fails = 0;
    let group = Group::new(plan, None);
    let peer = group.peers()[0].clone();
    for _ in 0..10 {
        attempt(&group, &peer, 100, Verdict::Failed);
    }
    assert_eq!(peer.state().standing(), Standing::Good);
}

#[test]
fn silent_servers_are_asked_when_all_are() {
    let group = group(3);
    let peers = group.peers();
    group.overdue(&peers[0], 100);
    let seen = octets(&group, 100, 6);
    assert!(!seen.contains(&0), "{seen:?}");
    group.overdue(&peers[1], 100);
    assert_eq!(octets(&group, 100, 3), [2; 3]);
    group.overdue(&peers[2], 100);
    let mut seen = octets(&group, 100, 3);
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2]);
    group.no_longer_overdue(&peers[0]);
    assert_eq!(octets(&group, 100, 3), [0; 3]);
}

#[test]
fn a_silent_server_is_asked_once_in_a_while_and_back_with_its_first_answer() {
    let group = group(2);
    let silent = group.peers()[0].clone();
    group.overdue(&silent, 100);
    assert_eq!(octets(&group, 10_100, 4), [1; 4]);
    assert_eq!(octets(&group, 10_101, 4).iter().filter(|octet| **octet == 0).count(), 1);
    group.started(&silent, 10_101);
    group.header(&silent, 10_101, 10_110);
    assert!(octets(&group, 10_111, 4).contains(&0));
    end(&group, &silent, 10_101, 10_111, Verdict::Good);
    group.no_longer_overdue(&silent);
    assert_eq!(silent.state().overdue(), 0);
}

#[test]
fn a_silent_server_is_preferred_to_a_backup() {
    let mut plan = plan(2);
    plan.peers[1].backup = true;
    let group = Group::new(plan, None);
    group.overdue(&group.peers()[0], 100);
    assert_eq!(octets(&group, 100, 3), [0; 3]);
}

#[test]
fn backups_are_asked_when_no_other_can_be() {
    let mut plan = plan(4);
    (plan.peers[0].backup, plan.peers[1].backup) = (true, true);
    let group = Group::new(plan, None);
    let mut seen = octets(&group, 100, 4);
    seen.sort_unstable();
    assert_eq!(seen, [2, 2, 3, 3]);
    for peer in &group.peers()[..2] {
        attempt(&group, peer, 100, Verdict::Failed);
    }
    let mut seen = octets(&group, 101, 4);
    seen.sort_unstable();
    assert_eq!(seen, [0, 0, 1, 1]);
    // The others are tried first when their time has come.
    assert!(octet(&pick(&group, 10_101)) >= 2);
}

#[test]
fn full_servers_are_passed_by_and_a_full_group_says_so() {
    let mut plan = plan(2);
    (plan.peers[0].max_conns, plan.peers[1].max_conns) = (1, 2);
    plan.queue = Some(QueuePlan { length: 1, timeout_ms: 1000 });
    let group = Group::new(plan, None);
    let taken: Vec<Arc<Peer>> = (0..3)
        .map(|_| {
            let peer = pick(&group, 100);
            group.started(&peer, 100);
            peer
        })
        .collect();
    let (tried, random) = (Tried::default(), &mut Rng::with_seed(1));
    assert!(matches!(group.pick(ask(100, &tried, random)), Pick::Full));
    assert!(group.start_waiting() && !group.start_waiting() && group.is_awaited());
    group.stop_waiting();
    assert!(!group.is_awaited());
    end(&group, &taken[0], 100, 101, Verdict::Good);
    assert!(pick(&group, 101).is_same(&taken[0]));
}

#[test]
fn a_server_that_drains_serves_its_sessions_only() {
    let mut plan = plan(2);
    plan.peers[0].drain = true;
    plan.sticky = Some(StickyPlan::Cookie);
    let group = Group::new(plan, None);
    assert_eq!(octets(&group, 100, 3), [1; 3]);
    let id = group.peers()[0].id().clone();
    assert_eq!(octet(&pick_of_session(&group, 100, id.as_bytes())), 0);
    assert_eq!(octet(&pick_of_session(&group, 100, b"nobody")), 1);
}

#[test]
fn sessions_stay_with_their_server_as_long_as_it_may_be_asked() {
    let mut plan = plan(3);
    plan.peers[2].route = Some("r2".into());
    plan.sticky = Some(StickyPlan::Route);
    let group = Group::new(plan, None);
    for _ in 0..5 {
        assert_eq!(octet(&pick_of_session(&group, 100, b"r2")), 2);
    }
    let peer = group.peers()[2].clone();
    attempt(&group, &peer, 100, Verdict::Failed);
    assert_ne!(octet(&pick_of_session(&group, 101, b"r2")), 2);
    assert_eq!(octet(&pick_of_session(&group, 10_101, b"r2")), 2);
}

#[test]
fn learned_sessions_find_their_server_and_survive_a_reload() {
    let mut plan = plan(3);
    let zone = Zone { name: "s".into(), size: 65_536 };
    plan.sticky = Some(StickyPlan::Learn { zone, timeout_ms: 1000, header: false });
    let group = Group::new(plan.clone(), None);
    let peer = group.peers()[1].clone();
    group.learn(b"session", &peer, 100);
    plan.peers[0].weight = 7;
    let next = Group::new(plan.clone(), Some(&group));
    assert_eq!(next.key(), group.key());
    for _ in 0..5 {
        assert_eq!(octet(&pick_of_session(&next, 200, b"session")), 1);
    }
    plan.sticky = Some(StickyPlan::Cookie);
    assert_eq!(octet(&pick_of_session(&Group::new(plan, Some(&next)), 200, b"session")), 0);
}

#[test]
fn a_reload_keeps_what_is_known_of_servers_that_stay() {
    let group = Arc::new(group(3));
    let peer = group.peers()[2].clone();
    group.started(&peer, 100);
    attempt(&group, &peer, 100, Verdict::Failed);
    assert!(Arc::ptr_eq(&Group::renew(plan(3), Some(&group)), &group));
    let mut changed = plan(3);
    changed.peers.remove(0);
    changed.peers[1].weight = 5;
    let next = Group::renew(changed, Some(&group));
    assert_eq!(next.key(), group.key());
    let same = next.peers()[1].clone();
    assert!(same.is_same(&peer) && !Arc::ptr_eq(&same, &peer));
    assert_eq!((same.state().standing(), same.state().in_flight()), (Standing::Ejected, 1));
    // The request that began before the reload ends in the group that it began in.
    end(&group, &peer, 100, 200, Verdict::Good);
    assert_eq!(same.state().in_flight(), 0);
}

#[test]
fn a_group_that_is_left_with_one_server_forgives_it() {
    let group = group(2);
    let peer = group.peers()[0].clone();
    attempt(&group, &peer, 100, Verdict::Failed);
    let next = Group::new(plan(1), Some(&group));
    assert!(pick(&next, 101).is_same(&peer));
}

#[test]
fn a_server_listed_twice_has_two_states() {
    let twice = GroupPlan::new("g", vec![server(1), server(1)]);
    let group = Group::new(twice.clone(), None);
    let peers = group.peers();
    assert!(!peers[0].is_same(&peers[1]));
    attempt(&group, &peers[1], 100, Verdict::Failed);
    let next = Group::new(
        GroupPlan { keepalive: Keepalive { connections: 1, ..Keepalive::default() }, ..twice },
        Some(&group),
    );
    let next = next.peers();
    assert!(next[0].is_same(&peers[0]) && next[1].is_same(&peers[1]));
}

fn named(host: &str, service: Option<&str>) -> PeerPlan {
    let address =
        PlanAddress::Name { host: host.into(), port: 80, resolve: true, service: service.map(Into::into) };
    PeerPlan::new(format!("{host}:80"), address)
}

fn resolved(last: u8) -> Resolved {
    Resolved { address: SocketAddr::from(([10, 0, 0, last], 80)), service: None }
}

#[test]
fn a_name_without_addresses_is_no_server_until_it_has_some() {
    let group = Group::new(GroupPlan::new("g", vec![named("a.test", None)]), None);
    let (tried, random) = (Tried::default(), &mut Rng::with_seed(1));
    assert!(matches!(group.pick(ask(1, &tried, random)), Pick::None(WhyNone::NotResolved)));
    group.set_name_failure(0, "a.test could not be resolved (3: Host not found)");
    assert!(group.name_failure().is_some_and(|why| why.contains("Host not found")));
    let names: Vec<Named> = group.names().collect();
    assert_eq!(names, [Named { plan_index: 0, host: "a.test", port: 80, resolve: true, service: None }]);
    group.set_addresses(0, &[resolved(1), resolved(2)]);
    assert_eq!(group.name_failure(), None);
    let mut seen = octets(&group, 2, 4);
    seen.sort_unstable();
    assert_eq!(seen, [1, 1, 2, 2]);
}

#[test]
fn addresses_that_stay_keep_their_place_and_what_is_known_of_them() {
    let group = Group::new(GroupPlan::new("g", vec![server(9), named("a.test", None), server(8)]), None);
    group.set_addresses(1, &[resolved(1), resolved(2), resolved(2)]);
    let generation = group.generation();
    let before = group.peers();
    assert_eq!(before.iter().map(|peer| octet(peer)).collect::<Vec<_>>(), [9, 1, 2, 8]);
    attempt(&group, &before[2], 100, Verdict::Failed);
    group.set_addresses(1, &[resolved(3), resolved(2)]);
    let after = group.peers();
    assert_eq!(after.iter().map(|peer| octet(peer)).collect::<Vec<_>>(), [9, 2, 3, 8]);
    assert!(Arc::ptr_eq(&after[1], &before[2]));
    assert_eq!(after[1].state().standing(), Standing::Ejected);
    assert!(group.generation() > generation);
    // A reload keeps the addresses until the name is looked up again.
    let mut plan = group.plan().clone();
    plan.peers.remove(0);
    let next = Group::new(plan, Some(&group));
    assert_eq!(next.peers().iter().map(|peer| octet(peer)).collect::<Vec<_>>(), [2, 3, 8]);
    group.set_addresses(7, &[]);
    group.set_addresses(1, &[]);
    assert_eq!(group.peers().len(), 2);
}

#[test]
fn service_records_say_who_is_first_and_how_often() {
    let group = Group::new(GroupPlan::new("g", vec![named("a.test", Some("http"))]), None);
    let of = |last: u8, priority: u16, weight: u16| Resolved {
        service: Some((priority, weight)),
        ..resolved(last)
    };
    group.set_addresses(0, &[of(1, 20, 0), of(2, 10, 3), of(3, 10, 1)]);
    let mut seen = octets(&group, 1, 4);
    seen.sort_unstable();
    assert_eq!(seen, [2, 2, 2, 3]);
    let mut plan = group.plan().clone();
    plan.name = "h".into();
    let next = Group::new(plan, Some(&group));
    let ranks: Vec<(u8, bool, u32)> =
        next.peers().iter().map(|peer| (octet(peer), peer.plan().backup, peer.plan().weight)).collect();
    assert_eq!(ranks, [(2, false, 3), (3, false, 1), (1, true, 1)]);
}

#[test]
fn a_server_that_came_back_gets_its_share_bit_by_bit() {
    let mut plan = plan(2);
    plan.peers[0].slow_start_ms = 1000;
    let group = Group::new(plan, None);
    let peer = group.peers()[0].clone();
    let share = |now_ms: u64| octets(&group, now_ms, 1000).iter().filter(|octet| **octet == 0).count();
    assert_eq!(share(100), 500);
    group.set_healthy(&peer, false, 100);
    assert_eq!(share(101), 0);
    group.set_healthy(&peer, true, 200);
    let shares = [share(210), share(450), share(700), share(1200)];
    assert!(shares[0] < 20 && shares[0] > 0, "{shares:?}");
    assert!((180..220).contains(&shares[1]), "a fifth: {shares:?}");
    assert!((320..350).contains(&shares[2]), "a third: {shares:?}");
    assert!((490..=510).contains(&shares[3]), "{shares:?}");
}

#[test]
fn an_unhealthy_server_is_not_asked_even_if_it_is_the_last() {
    let group = group(1);
    let peer = pick(&group, 1);
    group.set_healthy(&peer, false, 2);
    assert!(pick_after(&group, 3, &Tried::default()).is_none());
    group.set_healthy(&peer, true, 4);
    assert!(pick(&group, 5).is_same(&peer));
}

#[test]
fn the_usual_time_follows_what_is_measured() {
    let group = group(1);
    let peer = pick(&group, 1);
    assert_eq!(group.usual_ms(&peer, Stage::Connecting), 300);
    assert_eq!(group.usual_ms(&peer, Stage::Answering), 1000);
    group.started(&peer, 0);
    group.connected(&peer, 1);
    group.header(&peer, 0, 500);
    assert_eq!(group.usual_ms(&peer, Stage::Connecting), 100);
    assert_eq!(group.usual_ms(&peer, Stage::Answering), 2000);
    end(&group, &peer, 0, 600, Verdict::Good);
    assert_eq!(peer.state().response().mean_ms(), Some(600));
}

/// Requests under way: peer, when it began, whether it is overdue.
type Flight = (Arc<Peer>, u64, bool);

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: nobody is asked who may not be, at most one request tries a server, some
    /// server is always in good standing, and in the end nothing is under way.
    #[test]
    fn counts_return_to_zero_and_the_rules_hold(
        seed in any::<u64>(),
        count in 2..6u8,
        method in 0..6usize,
        down in proptest::option::of(0..2usize),
        max_conns in 0..4u32,
    ) {
        let methods = [
            Method::RoundRobin,
            Method::LeastConn,
            Method::IpHash,
            Method::Hash { consistent: true },
            Method::Random(Some(OfTwo::LeastConn)),
            Method::LeastTime(LeastTime { whole: true, inflight: true }),
        ];
        let mut plan = GroupPlan { method: methods[method], ..plan(count) };
        for (index, peer) in plan.peers.iter_mut().enumerate() {
            (peer.down, peer.max_conns) = (down == Some(index), max_conns);
        }
        let group = Group::new(plan, None);
        let mut random = Rng::with_seed(seed);
        let mut now_ms = 1;
        let mut flights: Vec<Flight> = Vec::new();
        let mut tried = Tried::default();
        for _ in 0..400 {
            now_ms += random.u64(0..600);
            match random.u8(0..10) {
                0..5 => {
                    if random.u8(0..4) > 0 {
                        tried.clear();
                    }
                    let key = [random.u8(..)];
                    let another = group.has_untried(&tried, now_ms);
                    let ask = Ask { key: &key, ..ask(now_ms, &tried, &mut random) };
                    let Pick::Peer(peer) = group.pick(ask) else {
                        prop_assert!(!another);
                        continue;
                    };
                    prop_assert!(another);
                    prop_assert!(!peer.plan().down && !tried.has(&peer));
                    prop_assert!(max_conns == 0 || peer.state().in_flight() < max_conns);
                    match peer.state().standing() {
                        Standing::Good => {}
                        Standing::Trial => prop_assert_eq!(peer.state().since_ms(), now_ms),
                        Standing::Ejected => prop_assert!(false, "an ejected server without a trial"),
                    }
                    group.started(&peer, now_ms);
                    tried.add(&peer);
                    flights.push((peer, now_ms, false));
                }
                5..7 if !flights.is_empty() => {
                    let chosen = random.usize(..flights.len());
                    let flight = &mut flights[chosen];
                    if !flight.2 {
                        group.overdue(&flight.0, now_ms);
                        flight.2 = true;
                    }
                }
                _ if !flights.is_empty() => {
                    let (peer, began_ms, overdue) = flights.swap_remove(random.usize(..flights.len()));
                    if overdue {
                        group.no_longer_overdue(&peer);
                    }
                    let verdict =
                        [Verdict::Good, Verdict::Failed, Verdict::Failed, Verdict::Neutral][random.usize(..4)];
                    end(&group, &peer, began_ms, now_ms, verdict);
                }
                _ => {}
            }
            let peers = group.peers();
            prop_assert!(peers.iter().any(|peer| peer.state().standing() == Standing::Good && !peer.plan().down));
        }
        for (peer, began_ms, overdue) in flights {
            if overdue {
                group.no_longer_overdue(&peer);
            }
            end(&group, &peer, began_ms, now_ms, Verdict::Good);
        }
        for peer in group.peers() {
            prop_assert_eq!((peer.state().in_flight(), peer.state().overdue()), (0, 0));
            prop_assert_eq!(peer.state().silent_since_ms(), None);
        }
    }
}
