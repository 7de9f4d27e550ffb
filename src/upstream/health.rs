//! Health checks: probes of a group's servers on a timer, in one worker. Sends nothing itself; its verbs:
//!
//! 1. `due` names a peer to be probed, again and again until it is `None`.
//! 2. `judged` tells what came of a probe, once for each: the shell reads the response and goes by [`super::match_rules`].
//! 3. `next_deadline_ms` is when `due` is to be called again.
//!
//! A peer that fails so many times in a row is taken out of its group, one that passes so many times is taken in. Peers
//! that come or go are noticed by the next `due`.

use std::sync::Arc;

use fastrand::Rng;

use super::group::Group;
use super::grpc_health::GrpcCheck;
use super::match_rules::MatchSlot;
use super::peer::{Peer, PeerAddress};
use super::state::Health;

/// `health_check`
#[derive(Clone, Debug)]
pub struct CheckPlan {
    /// Milliseconds between two probes of a peer.
    pub interval_ms: u64,
    /// At most so many more, by chance.
    pub jitter_ms: u64,
    /// Failures in a row that take a peer out.
    pub fails: u32,
    /// Passes in a row that take it in.
    pub passes: u32,
    /// What is asked for.
    pub uri: Box<[u8]>,
    /// The port that is asked, if not the peer's own.
    pub port: Option<u16>,
    /// A peer is not asked by requests before it has passed for the first time.
    pub mandatory: bool,
    /// With `mandatory`: one that had passed before a reload need not pass again.
    pub persistent: bool,
    /// `match`: what a good response is; without, any of a status from 200 to 399.
    pub rules: Option<Arc<MatchSlot>>,
    /// `type=grpc`: gRPC's own health check takes the place of `uri` and `rules`.
    pub grpc: Option<GrpcCheck>,
}

impl Default for CheckPlan {
    fn default() -> CheckPlan {
        CheckPlan {
            interval_ms: 5000,
            jitter_ms: 0,
            fails: 1,
            passes: 1,
            uri: b"/"[..].into(),
            port: None,
            mandatory: false,
            persistent: false,
            rules: None,
            grpc: None,
        }
    }
}

impl CheckPlan {
    /// Where to probe a peer.
    pub fn address_of(&self, peer: &Peer) -> PeerAddress {
        match (peer.address(), self.port) {
            (PeerAddress::Inet(address), Some(port)) => {
                let mut address = *address;
                address.set_port(port);
                PeerAddress::Inet(address)
            }
            (address, _) => address.clone(),
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct HealthChecks {
    plan: Arc<CheckPlan>,
    group: Arc<Group>,
    /// [`Group::generation`] of `watched`; `None` before the first look.
    generation: Option<u64>,
    watched: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    peer: Arc<Peer>,
    /// When it is to be probed; of no account while a probe is under way.
    next_ms: u64,
    under_way: bool,
    /// Failures in a row.
    fails: u32,
    /// Passes in a row.
    passes: u32,
    /// This check keeps it out: it failed here, or has yet to pass.
    objects: bool,
}

impl HealthChecks {
    /// Checks of a group that begin with the first `due`. Mandatory ones take peers out until they pass.
    pub fn new(plan: Arc<CheckPlan>, group: Arc<Group>, now_ms: u64) -> HealthChecks {
        let mut checks = HealthChecks { plan, group, generation: None, watched: Vec::new() };
        checks.notice_changes(now_ms);
        checks
    }

    /// The group.
    pub fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// What is checked.
    pub fn plan(&self) -> &Arc<CheckPlan> {
        &self.plan
    }

    /// A peer whose probe is to be sent now.
    pub fn due(&mut self, now_ms: u64) -> Option<Arc<Peer>> {
        self.notice_changes(now_ms);
        let watched =
            self.watched.iter_mut().find(|watched| !watched.under_way && watched.next_ms <= now_ms)?;
        watched.under_way = true;
        Some(watched.peer.clone())
    }

    /// When the next probe is due, in monotonic milliseconds; `u64::MAX` if none is.
    pub fn next_deadline_ms(&self) -> u64 {
        let waiting = self.watched.iter().filter(|watched| !watched.under_way);
        waiting.map(|watched| watched.next_ms).min().unwrap_or(u64::MAX)
    }

    /// Whether this check keeps the peer out. Of several checks of a group one is enough (nginx).
    pub fn objects_to(&self, peer: &Peer) -> bool {
        self.watched.iter().any(|watched| watched.objects && watched.peer.is_same(peer))
    }

    /// A probe passed or failed; `others_object` is whether another check keeps the peer out. Whether the peer was taken
    /// in or out by that, for the log.
    pub fn judged(
        &mut self,
        peer: &Peer,
        passed: bool,
        others_object: bool,
        now_ms: u64,
        random: &mut Rng,
    ) -> bool {
        // A peer that has gone meanwhile is nobody's business.
        let Some(watched) = self.watched.iter_mut().find(|watched| watched.peer.is_same(peer)) else {
            return false;
        };
        debug_assert!(watched.under_way, "a probe judged twice");
        watched.under_way = false;
        watched.next_ms =
            now_ms.saturating_add(self.plan.interval_ms).saturating_add(random.u64(0..=self.plan.jitter_ms));
        (watched.passes, watched.fails) = match passed {
            true => (watched.passes.saturating_add(1), 0),
            false => (0, watched.fails.saturating_add(1)),
        };
        let decides = match passed {
            true => watched.passes >= self.plan.passes,
            false => watched.fails >= self.plan.fails,
        };
        if decides {
            watched.objects = !passed;
        }
        let before = peer.state().health();
        let found = if passed { Health::Healthy } else { Health::Unhealthy };
        let changes = decides && before != found && !(passed && others_object);
        if changes {
            self.group.set_healthy(peer, passed, now_ms);
        }
        // That an unknown peer passes is as expected.
        changes && !(passed && before == Health::Unknown)
    }

    fn notice_changes(&mut self, now_ms: u64) {
        let generation = self.group.generation();
        if self.generation.replace(generation) == Some(generation) {
            return;
        }
        let mut before = std::mem::take(&mut self.watched);
        for peer in self.group.peers().into_iter().filter(|peer| !peer.plan().down) {
            let known = before.iter().position(|watched| watched.peer.is_same(&peer));
            match known {
                Some(position) => self.watched.push(Watched { peer, ..before.swap_remove(position) }),
                None => {
                    let keeps = self.plan.persistent && peer.state().health() != Health::Unknown;
                    if self.plan.mandatory && !keeps {
                        self.group.set_healthy(&peer, false, now_ms);
                    }
                    let objects = !peer.state().is_healthy();
                    self.watched.push(Watched {
                        peer,
                        next_ms: now_ms,
                        under_way: false,
                        fails: 0,
                        passes: 0,
                        objects,
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::group::Resolved;
    use crate::upstream::plan::{GroupPlan, PeerPlan, PlanAddress};
    use std::net::SocketAddr;

    fn address(number: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, number], 80))
    }

    fn group(count: u8) -> Arc<Group> {
        let server = |number: u8| PeerPlan::new("s", PlanAddress::Inet(vec![address(number)]));
        Arc::new(Group::new(GroupPlan::new("g", (0..count).map(server).collect()), None))
    }

    fn checks(plan: CheckPlan, count: u8) -> HealthChecks {
        HealthChecks::new(Arc::new(plan), group(count), 1)
    }

    /// Probes whatever is due and passes or fails it all; how many that were.
    fn turn(checks: &mut HealthChecks, now_ms: u64, passed: bool) -> usize {
        let mut due = Vec::new();
        while let Some(peer) = checks.due(now_ms) {
            due.push(peer);
        }
        for peer in &due {
            checks.judged(peer, passed, false, now_ms, &mut Rng::with_seed(now_ms));
        }
        due.len()
    }

    fn healthy(checks: &HealthChecks) -> Vec<bool> {
        checks.group.peers().iter().map(|peer| peer.state().is_healthy()).collect()
    }

    #[test]
    fn every_server_is_probed_once_an_interval() {
        let mut checks = checks(CheckPlan { interval_ms: 100, ..CheckPlan::default() }, 3);
        assert_eq!(checks.next_deadline_ms(), 1);
        assert_eq!(turn(&mut checks, 1, true), 3);
        assert_eq!((turn(&mut checks, 100, true), checks.next_deadline_ms()), (0, 101));
        assert_eq!(turn(&mut checks, 101, true), 3);
    }

    #[test]
    fn a_probe_that_is_under_way_is_not_followed_by_another() {
        let mut checks = checks(CheckPlan::default(), 1);
        let peer = checks.due(1).expect("a probe");
        assert!(checks.due(100_000).is_none());
        assert_eq!(checks.next_deadline_ms(), u64::MAX);
        checks.judged(&peer, true, false, 100_000, &mut Rng::with_seed(1));
        assert_eq!(checks.next_deadline_ms(), 105_000);
    }

    #[test]
    fn servers_go_after_so_many_failures_and_come_back_after_so_many_passes() {
        let mut checks =
            checks(CheckPlan { interval_ms: 10, fails: 3, passes: 2, ..CheckPlan::default() }, 2);
        let told: Vec<Vec<bool>> = [false, false, true, false, false, false, true, false, true, true]
            .iter()
            .enumerate()
            .map(|(turns, passed)| {
                turn(&mut checks, 1 + 10 * turns as u64, *passed);
                healthy(&checks)
            })
            .collect();
        let expected = [true, true, true, true, true, false, false, false, false, true];
        assert_eq!(told, expected.map(|healthy| vec![healthy; 2]));
    }

    #[test]
    fn mandatory_checks_come_before_the_first_request() {
        let plan = CheckPlan { mandatory: true, ..CheckPlan::default() };
        let mut first = checks(plan.clone(), 2);
        assert_eq!(healthy(&first), [false, false]);
        turn(&mut first, 1, true);
        assert_eq!(healthy(&first), [true, true]);
        // A reload begins anew, unless that is not wanted.
        let group = first.group.clone();
        let persistent = CheckPlan { persistent: true, ..plan.clone() };
        assert_eq!(healthy(&HealthChecks::new(Arc::new(persistent), group.clone(), 2)), [true, true]);
        assert_eq!(healthy(&HealthChecks::new(Arc::new(plan), group, 3)), [false, false]);
    }

    #[test]
    fn of_several_checks_of_a_group_one_that_fails_keeps_a_server_out() {
        let group = group(1);
        let peer = group.peers()[0].clone();
        let mut checks = [1, 2].map(|fails| {
            HealthChecks::new(Arc::new(CheckPlan { fails, ..CheckPlan::default() }), group.clone(), 1)
        });
        let mut turn = |which: usize, passed: bool, now_ms: u64| {
            assert!(checks[which].due(now_ms).is_some());
            let others_object = checks[1 - which].objects_to(&peer);
            checks[which].judged(&peer, passed, others_object, now_ms, &mut Rng::with_seed(1));
            peer.state().is_healthy()
        };
        assert!(turn(0, true, 1) && turn(1, true, 1));
        assert!(!turn(0, false, 10_000));
        assert!(!turn(1, true, 10_000) && !turn(1, true, 20_000));
        assert!(turn(0, true, 20_000));
        assert!(turn(1, false, 30_000) && !turn(1, false, 40_000) && !turn(0, true, 40_000));
        assert!(turn(1, true, 50_000));
    }

    #[test]
    fn jitter_spreads_probes_by_no_more_than_it_says() {
        let mut checks = checks(CheckPlan { interval_ms: 100, jitter_ms: 50, ..CheckPlan::default() }, 20);
        let mut random = Rng::with_seed(5);
        while let Some(peer) = checks.due(1) {
            checks.judged(&peer, true, false, 1, &mut random);
        }
        let times: Vec<u64> = checks.watched.iter().map(|watched| watched.next_ms).collect();
        assert!(times.iter().all(|time| (101..=151).contains(time)), "{times:?}");
        assert!(times.iter().any(|time| *time != times[0]), "{times:?}");
    }

    #[test]
    fn addresses_that_come_are_checked_and_those_that_go_are_not() {
        let name = PlanAddress::Name { host: "a".into(), port: 80, resolve: true, service: None };
        let group = Arc::new(Group::new(GroupPlan::new("g", vec![PeerPlan::new("a", name)]), None));
        let mut checks = HealthChecks::new(Arc::new(CheckPlan::default()), group.clone(), 1);
        assert!(checks.due(1).is_none());
        let set = |numbers: &[u8]| {
            let of = |number: &u8| Resolved { address: address(*number), service: None };
            group.set_addresses(0, &numbers.iter().map(of).collect::<Vec<_>>());
        };
        set(&[1, 2]);
        let gone = checks.due(2).expect("a probe");
        set(&[2, 3]);
        assert_eq!(turn(&mut checks, 3, true), 2);
        assert!(!checks.judged(&gone, false, false, 4, &mut Rng::with_seed(1)));
    }

    #[test]
    fn another_port_may_be_probed() {
        let plan = CheckPlan { port: Some(8080), ..CheckPlan::default() };
        let peer = group(1).peers()[0].clone();
        assert_eq!(plan.address_of(&peer).to_string(), "10.0.0.0:8080");
        assert_eq!(CheckPlan::default().address_of(&peer).to_string(), "10.0.0.0:80");
    }
}
