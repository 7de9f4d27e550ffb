//! A group of servers, shared by all workers. Its verbs are described in the module above.
//!
//! One lock guards who is in the group and whose turn it is; it is held for one choice or one change of standing, never
//! longer. A group of one server at one address takes no lock at all: nothing is to be chosen there, and nothing ejected.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastrand::Rng;
use hashbrown::HashMap;

use super::balance::{Question, ketama::Ring};
use super::peer::{Peer, PeerAddress, Tried};
use super::plan::{GroupPlan, Keepalive, Method, PeerPlan, PlanAddress, StickyPlan, Zone};
use super::slots::{Availability, Slots};
use super::state::{Health, PeerState, Standing, USUAL_CONNECT_MS, USUAL_HEADER_MS};
use super::sticky::Sessions;

/// See the module's documentation.
#[derive(Debug)]
pub struct Group {
    plan: GroupPlan,
    /// What outlives a reload that changes the plan.
    shared: Arc<Shared>,
    /// The one peer, where there never can be another.
    only: Option<Arc<Peer>>,
    /// Of `hash ... consistent`.
    ring: Option<Ring>,
    inner: Mutex<Inner>,
    /// Grows when peers come or go.
    generation: AtomicU64,
}

#[derive(Debug, Default)]
struct Shared {
    sessions: Option<Learned>,
    /// Requests that wait for room.
    waiting: AtomicU32,
}

#[derive(Debug)]
struct Learned {
    zone: Zone,
    timeout_ms: u64,
    sessions: Mutex<Sessions>,
}

#[derive(Debug, Default)]
struct Inner {
    slots: Slots,
    /// Why a name of the plan has no addresses, by its position.
    name_failures: Vec<Option<Box<str>>>,
}

/// What a choice goes by.
pub struct Ask<'a> {
    /// Monotonic milliseconds.
    pub now_ms: u64,
    /// The client's address; `None` behind a Unix socket.
    pub client_ip: Option<IpAddr>,
    /// The key of `hash`; empty if there is none.
    pub key: &'a [u8],
    /// What the client brought for `sticky`: the cookie, the route, or the session that was learned; empty if nothing.
    pub sticky: &'a [u8],
    /// The peers that the request was sent to before.
    pub tried: &'a Tried,
    /// Where chance comes from.
    pub random: &'a mut Rng,
}

/// A choice.
#[derive(Debug)]
pub enum Pick {
    /// This one: [`Group::try_start`] comes next.
    Peer(Arc<Peer>),
    /// All that could be asked have as many requests as they may have (`max_conns`): wait, or give up.
    Full,
    /// There is none.
    None(WhyNone),
}

/// Why there is no peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyNone {
    /// Those that there are were tried, are down, or ejected (`no live upstreams`).
    NoLive,
    /// There are none: names have no addresses. [`Group::name_failure`] may say why.
    NotResolved,
}

/// How an attempt ended, as far as its peer is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The peer did what it was asked.
    Good,
    /// It is to blame.
    Failed,
    /// Neither: the client left, or an idle connection turned out to be closed.
    Neutral,
}

/// The end of an attempt.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// How it ended.
    pub verdict: Verdict,
    /// The time that was given to [`Group::try_start`].
    pub began_ms: u64,
    /// Monotonic milliseconds.
    pub now_ms: u64,
    /// Bytes received.
    pub bytes: u64,
}

/// How far an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The connection does not stand yet.
    Connecting,
    /// The response's head is not there yet.
    Answering,
}

/// An address that a name has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// It.
    pub address: SocketAddr,
    /// Priority and weight of the service record that it came from.
    pub service: Option<(u16, u16)>,
}

/// A name of the plan, to be resolved by whoever can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named<'a> {
    /// Position of its `server` in the plan.
    pub plan_index: usize,
    /// The name.
    pub host: &'a str,
    /// The port for its addresses; service records bring their own.
    pub port: u16,
    /// Asked for again and again, not just once.
    pub resolve: bool,
    /// The service to ask for.
    pub service: Option<&'a str>,
}

impl Group {
    /// A group as planned. What `previous` knows of peers at the same addresses is kept, the addresses of names included.
    pub fn new(plan: GroupPlan, previous: Option<&Group>) -> Group {
        let shared = match previous {
            Some(previous) if previous.shared.fits(&plan) => previous.shared.clone(),
            _ => Arc::new(Shared::of(&plan)),
        };
        let mut known = Known::of(previous);
        let mut peers = Vec::new();
        for (index, peer) in plan.peers.iter().enumerate() {
            known.expand(index, peer, &mut peers);
        }
        let is_fixed = plan.peers.iter().all(|peer| !matches!(peer.address, PlanAddress::Name { .. }));
        let only = (is_fixed && peers.len() == 1).then(|| peers[0].clone());
        if let Some(peer) = &only {
            peer.state.pardon();
        }
        let ring = matches!(plan.method, Method::Hash { consistent: true });
        let ring = ring.then(|| Ring::new(plan.peers.iter()));
        let mut inner = Inner { name_failures: vec![None; plan.peers.len()], ..Inner::default() };
        inner.slots.replace(peers);
        Group { plan, shared, only, ring, inner: Mutex::new(inner), generation: AtomicU64::new(0) }
    }

    /// The group for a reload: `previous` itself if the plan is the same, so that idle connections, turns and all else
    /// go on as if nothing had happened.
    pub fn renew(plan: GroupPlan, previous: Option<&Arc<Group>>) -> Arc<Group> {
        match previous {
            Some(previous) if previous.plan == plan => previous.clone(),
            previous => Arc::new(Group::new(plan, previous.map(|previous| &**previous))),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// What the configuration says.
    pub fn plan(&self) -> &GroupPlan {
        &self.plan
    }

    /// What is kept of connections between two requests.
    pub fn keepalive(&self) -> &Keepalive {
        &self.plan.keepalive
    }

    /// A number that the group has in common with those before and after it in reloads, and with no other group as long as
    /// one of them is held: what pools of connections are kept by.
    pub fn key(&self) -> usize {
        Arc::as_ptr(&self.shared) as usize
    }

    /// Its peers at present.
    pub fn peers(&self) -> Vec<Arc<Peer>> {
        self.lock().slots.peers().cloned().collect()
    }

    /// Grows whenever [`Group::peers`] changes.
    pub fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // What is guarded is whole between any two statements: a panic elsewhere does not spoil it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request's way.
impl Group {
    /// Chooses a peer.
    pub fn pick(&self, ask: Ask) -> Pick {
        if let Some(peer) = &self.only {
            return match Availability::of(peer, ask.tried, ask.now_ms) {
                Availability::Full => Pick::Full,
                Availability::No | Availability::Early => Pick::None(WhyNone::NoLive),
                // Only a session goes to a server that drains.
                _ if peer.plan.drain && self.session_id(&ask).is_none_or(|id| *id != *peer.id.as_bytes()) => {
                    Pick::None(WhyNone::NoLive)
                }
                _ => Pick::Peer(peer.clone()),
            };
        }
        let session = self.session_id(&ask);
        let mut inner = self.lock();
        let slots = &mut inner.slots;
        slots.survey(ask.tried, ask.now_ms);
        let chosen = session.and_then(|id| slots.of_session(&id)).or_else(|| {
            let mut question = Question {
                now_ms: ask.now_ms,
                client_ip: ask.client_ip,
                key: ask.key,
                random: ask.random,
                ring: self.ring.as_ref(),
            };
            slots.choose(self.plan.method, &mut question)
        });
        match chosen {
            Some(position) => Pick::Peer(slots.take(position, ask.now_ms)),
            None if slots.is_any_full() => Pick::Full,
            None if slots.peers().next().is_none() => Pick::None(WhyNone::NotResolved),
            None => Pick::None(WhyNone::NoLive),
        }
    }

    /// Whether a request that has tried `tried` would find another peer.
    pub fn has_untried(&self, tried: &Tried, now_ms: u64) -> bool {
        match &self.only {
            Some(peer) => !peer.plan.drain && Availability::of(peer, tried, now_ms) != Availability::No,
            None => self.lock().slots.has_another(tried, now_ms),
        }
    }

    /// An attempt begins at a peer that was picked; `false` if others took its last place (`max_conns`) since: another
    /// one is to be picked then.
    pub fn try_start(&self, peer: &Peer, now_ms: u64) -> bool {
        let starts = peer.state.try_begin(now_ms, peer.plan.max_conns);
        if !starts {
            self.unproved(peer, now_ms);
        }
        starts
    }

    /// An attempt begins once more at the same peer, whatever its limits.
    pub fn started(&self, peer: &Peer, now_ms: u64) {
        peer.state.began(now_ms);
    }

    /// The attempt's connection stands, so many milliseconds after it began. Not for a connection that stood before.
    pub fn connected(&self, peer: &Peer, connect_ms: u64) {
        peer.state.connect().add(connect_ms);
    }

    /// The attempt's response head is there, so many milliseconds after it began. It is a usable one: a peer that is tried
    /// is back with that, however long its body takes.
    pub fn header(&self, peer: &Peer, began_ms: u64, now_ms: u64) {
        peer.state.header().add(now_ms.saturating_sub(began_ms));
        peer.state.spoke();
        self.proved(peer, began_ms, now_ms);
    }

    /// The attempt is over. Exactly one for each `started`.
    pub fn finished(&self, peer: &Peer, outcome: &Outcome) {
        let Outcome { verdict, began_ms, now_ms, bytes } = *outcome;
        peer.state.ended(began_ms, bytes);
        match verdict {
            Verdict::Good => {
                peer.state.response().add(now_ms.saturating_sub(began_ms));
                self.proved(peer, began_ms, now_ms);
            }
            Verdict::Failed => {
                peer.state.failed();
                self.failed(peer, began_ms, now_ms);
            }
            Verdict::Neutral => self.unproved(peer, began_ms),
        }
    }

    /// Milliseconds after which an attempt is past the usual: from its beginning while it connects, and from the moment
    /// when the connection stood while it waits for an answer.
    pub fn usual_ms(&self, peer: &Peer, stage: Stage) -> u64 {
        match stage {
            Stage::Connecting => peer.state.connect().late_ms().unwrap_or(USUAL_CONNECT_MS),
            Stage::Answering => peer.state.header().late_ms().unwrap_or(USUAL_HEADER_MS),
        }
    }

    /// An attempt is past the usual: others are asked in preference. Exactly one [`Group::no_longer_overdue`] follows.
    pub fn overdue(&self, peer: &Peer, now_ms: u64) {
        peer.state.add_overdue(now_ms);
    }

    /// It was answered, or is over.
    pub fn no_longer_overdue(&self, peer: &Peer) {
        peer.state.remove_overdue();
    }

    /// A session was made by this peer (`sticky learn`).
    pub fn learn(&self, session: &[u8], peer: &Peer, now_ms: u64) {
        if let Some(learned) = &self.shared.sessions {
            learned.lock().learn(session, &peer.id, now_ms);
        }
    }

    /// Takes a place in the waiting line of all workers; `false` if there is none (`queue`). [`Group::stop_waiting`] gives
    /// it back.
    pub fn start_waiting(&self) -> bool {
        let Some(queue) = &self.plan.queue else { return false };
        let taken = self
            .shared
            .waiting
            .fetch_update(Relaxed, Relaxed, |waiting| (waiting < queue.length).then_some(waiting + 1));
        taken.is_ok()
    }

    /// See [`Group::start_waiting`].
    pub fn stop_waiting(&self) {
        let before = self.shared.waiting.fetch_sub(1, Relaxed);
        debug_assert!(before > 0, "more places in the line given back than taken");
    }

    /// Whether a request waits in any worker.
    #[cfg(test)]
    pub fn is_awaited(&self) -> bool {
        self.shared.waiting.load(Relaxed) > 0
    }

    /// The identifier of the peer that the request's session belongs to.
    fn session_id<'a>(&self, ask: &Ask<'a>) -> Option<SessionId<'a>> {
        if ask.sticky.is_empty() {
            return None;
        }
        match (&self.plan.sticky, &self.shared.sessions) {
            (Some(StickyPlan::Learn { .. }), Some(learned)) => {
                learned.lock().find(ask.sticky, ask.now_ms).map(SessionId::Learned)
            }
            (Some(StickyPlan::Cookie | StickyPlan::Route), _) => Some(SessionId::Brought(ask.sticky)),
            _ => None,
        }
    }
}

/// How peers stand.
impl Group {
    /// The peer did what it was asked.
    fn proved(&self, peer: &Peer, began_ms: u64, now_ms: u64) {
        let state = &peer.state;
        if self.only.is_none() && state.standing() != Standing::Good {
            let _inner = self.lock();
            // What was begun before it was ejected tells nothing of how it is now, and the trial is still under way.
            if state.standing() != Standing::Good && began_ms >= state.since_ms() {
                state.return_at(now_ms);
            }
        }
    }

    fn failed(&self, peer: &Peer, began_ms: u64, now_ms: u64) {
        let (plan, state) = (&peer.plan, &peer.state);
        if self.only.is_some() || plan.max_fails == 0 {
            return;
        }
        let mut inner = self.lock();
        if began_ms < state.since_ms() {
            return;
        }
        match state.standing() {
            Standing::Ejected => {}
            Standing::Trial => state.eject(now_ms, plan.fail_timeout_ms),
            Standing::Good => {
                inner.slots.punish(state);
                let fails = state.count_failure(now_ms, plan.fail_timeout_ms);
                // The last one stays: asking it may fail, refusing fails for certain.
                if fails >= plan.max_fails && inner.slots.has_good_besides(state) {
                    state.eject(now_ms, plan.fail_timeout_ms);
                }
            }
        }
    }

    /// A trial ended without telling anything: the next request is one.
    fn unproved(&self, peer: &Peer, began_ms: u64) {
        let state = &peer.state;
        if self.only.is_none() && state.standing() == Standing::Trial {
            let _inner = self.lock();
            if state.standing() == Standing::Trial && began_ms >= state.since_ms() {
                state.end_trial();
            }
        }
    }

    /// What a health check found. An unhealthy peer is not asked, even if it is the last one: that was asked for.
    pub fn set_healthy(&self, peer: &Peer, healthy: bool, now_ms: u64) {
        let _inner = self.lock();
        let health = if healthy { Health::Healthy } else { Health::Unhealthy };
        if peer.state.set_health(health, now_ms) && peer.state.standing() != Standing::Good {
            peer.state.return_at(now_ms);
        }
    }

    /// No health check looks after the peer any more: what one found is forgotten, for nobody would find anything else.
    pub fn forget_health(&self, peer: &Peer, now_ms: u64) {
        let _inner = self.lock();
        peer.state.set_health(Health::Unknown, now_ms);
    }
}

/// Names.
impl Group {
    /// The names of the plan that addresses are wanted of.
    pub fn names(&self) -> impl Iterator<Item = Named<'_>> {
        self.plan.peers.iter().enumerate().filter_map(|(plan_index, peer)| match &peer.address {
            PlanAddress::Name { host, port, resolve, service } => {
                Some(Named { plan_index, host, port: *port, resolve: *resolve, service: service.as_deref() })
            }
            _ => None,
        })
    }

    /// A name has these addresses now: what is known of those that it had before stays. Of service records the lowest
    /// priority is asked first, the others are backups. Not to be called when a look-up failed: the last good addresses
    /// stay then.
    pub fn set_addresses(&self, plan_index: usize, addresses: &[Resolved]) {
        let Some(plan) = self.plan.peers.get(plan_index) else { return };
        let best =
            addresses.iter().filter_map(|resolved| resolved.service).map(|(priority, _)| priority).min();
        let mut inner = self.lock();
        let old: Vec<Arc<Peer>> = inner.slots.peers().cloned().collect();
        let mut own: Vec<Arc<Peer>> = Vec::with_capacity(addresses.len());
        for resolved in addresses {
            let mut plan = plan.clone();
            if let Some((priority, weight)) = resolved.service {
                plan.backup |= Some(priority) != best;
                if plan.weight == 1 {
                    plan.weight = u32::from(weight).max(1);
                }
            }
            let address = PeerAddress::Inet(resolved.address);
            if own.iter().any(|peer| peer.address == address) {
                continue;
            }
            let known = old.iter().find(|peer| peer.plan_index == plan_index && peer.address == address);
            own.push(match known {
                Some(peer) if peer.plan == plan => peer.clone(),
                Some(peer) => Arc::new(Peer::new(plan_index, plan, address, peer.state.clone())),
                None => Arc::new(Peer::new(plan_index, plan, address, Arc::default())),
            });
        }
        // Resolvers turn the addresses of a name around: those that stay keep their places.
        let place = |peer: &Arc<Peer>| old.iter().position(|other| other.is_same(peer)).unwrap_or(usize::MAX);
        own.sort_by_key(place);
        let mut peers: Vec<_> = old.iter().filter(|peer| peer.plan_index != plan_index).cloned().collect();
        peers.append(&mut own);
        peers.sort_by_key(|peer| peer.plan_index);
        inner.name_failures[plan_index] = None;
        inner.slots.replace(peers);
        self.generation.fetch_add(1, Relaxed);
    }

    /// A name could not be looked up: why, for the log of requests that find no peer.
    pub fn set_name_failure(&self, plan_index: usize, why: &str) {
        if let Some(place) = self.lock().name_failures.get_mut(plan_index) {
            *place = Some(why.into());
        }
    }

    /// Why a name of the group has no addresses, of the first one that could not be looked up.
    pub fn name_failure(&self) -> Option<Box<str>> {
        self.lock().name_failures.iter().flatten().next().cloned()
    }
}

enum SessionId<'a> {
    Brought(&'a [u8]),
    Learned(Arc<str>),
}

impl std::ops::Deref for SessionId<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            SessionId::Brought(id) => id,
            SessionId::Learned(id) => id.as_bytes(),
        }
    }
}

impl Shared {
    fn of(plan: &GroupPlan) -> Shared {
        let sessions = match &plan.sticky {
            Some(StickyPlan::Learn { zone, timeout_ms, .. }) => Some(Learned {
                zone: zone.clone(),
                timeout_ms: *timeout_ms,
                sessions: Mutex::new(Sessions::new(zone.size, *timeout_ms)),
            }),
            _ => None,
        };
        Shared { sessions, waiting: AtomicU32::new(0) }
    }

    /// Whether the plan can go on with it: learned sessions are lost where their table is another.
    fn fits(&self, plan: &GroupPlan) -> bool {
        match (&self.sessions, &plan.sticky) {
            (Some(learned), Some(StickyPlan::Learn { zone, timeout_ms, .. })) => {
                learned.zone == *zone && learned.timeout_ms == *timeout_ms
            }
            (None, Some(StickyPlan::Learn { .. })) => false,
            (_, _) => true,
        }
    }
}

impl Learned {
    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the group before knows of addresses.
#[derive(Default)]
struct Known {
    states: HashMap<PeerAddress, Vec<Arc<PeerState>>>,
    /// Peers of names, with the `server` text that they stood in.
    named: Vec<Arc<Peer>>,
}

impl Known {
    fn of(previous: Option<&Group>) -> Known {
        let mut known = Known::default();
        let Some(previous) = previous else { return known };
        // Backwards, because the states of an address that stands several times are taken from the end.
        for peer in previous.peers().into_iter().rev() {
            let is_named = matches!(peer.plan.address, PlanAddress::Name { .. });
            known.states.entry(peer.address.clone()).or_default().push(peer.state.clone());
            if is_named {
                known.named.insert(0, peer);
            }
        }
        known
    }

    fn state_of(&mut self, address: &PeerAddress) -> Arc<PeerState> {
        self.states.get_mut(address).and_then(Vec::pop).unwrap_or_default()
    }

    /// Appends the peers that one `server` is.
    fn expand(&mut self, index: usize, plan: &PeerPlan, peers: &mut Vec<Arc<Peer>>) {
        let mut add = |known: &mut Known, plan: PeerPlan, address: PeerAddress| {
            let state = known.state_of(&address);
            peers.push(Arc::new(Peer::new(index, plan, address, state)));
        };
        match &plan.address {
            PlanAddress::Inet(addresses) => {
                for address in addresses {
                    add(self, plan.clone(), PeerAddress::Inet(*address));
                }
            }
            PlanAddress::Unix(path) => add(self, plan.clone(), PeerAddress::Unix(path.clone())),
            PlanAddress::Name { .. } => {
                let named = std::mem::take(&mut self.named);
                let (own, others) = named.into_iter().partition(|peer| peer.plan.address == plan.address);
                self.named = others;
                for peer in own {
                    // Share and rank from a service record stay until the name is looked up again.
                    let mut plan = plan.clone();
                    if matches!(&plan.address, PlanAddress::Name { service: Some(_), .. }) {
                        plan.backup |= peer.plan.backup;
                        plan.weight = if plan.weight == 1 { peer.plan.weight } else { plan.weight };
                    }
                    add(self, plan, peer.address.clone());
                }
            }
        }
    }
}
