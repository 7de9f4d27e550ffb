//! Which peer is asked, and on which connection; and whether another one is asked after a failure.

use std::sync::Arc;

use crate::base::level::Level;
use crate::http::exchange::{Endpoint, Exchange};
use crate::http::site::LocationId;
use crate::http::upstream_call::{Attempt, Protocol, Via, conditions};
use crate::server::worker::resources::Resources;
use crate::upstream::plan::GroupPlan;
use crate::upstream::{Ask, Group, Outcome, Peer, Pick, Stage, Tried, Verdict, WhyNone};

use super::connection::{self, Connection};
use super::failure::{Failure, told};
use super::links::Owner;
use super::multiplexed;
use super::sending::Sending;
use super::waiting::Wait;
use super::wire::Wire;
use super::{Carrier, Relay, Run, State};

/// How often a request goes to the same peer again that has not looked at it.
const MOST_REPEATS: u32 = 5;

/// What is remembered of the choice over several tries.
#[derive(Default)]
pub struct Choosing {
    pub(super) group: Option<Arc<Group>>,
    tried: Tried,
    tries: u32,
    /// Repeats at the same peer.
    repeats: u32,
    /// The peer of that repeat.
    same: Option<Arc<Peer>>,
    /// What is waited for.
    pub(super) wait: Wait,
    /// The name that variables gave, while it is looked up: the group that it will be, and the port.
    pub(super) name: Option<(GroupPlan, Box<str>, u16)>,
}

/// Another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Again {
    /// At the same peer, on a fresh connection: the pooled one had been closed.
    pub same: bool,
}

/// What choosing has come to.
pub enum Chosen {
    /// A try has begun, or the choice is to be made again.
    Begun,
    /// Something has to be waited for.
    Waits,
}

impl Choosing {
    /// Takes the decision for another try.
    pub fn again(&mut self, again: Again, peer: Option<Arc<Peer>>) {
        match again.same {
            true => {
                self.repeats += 1;
                self.same = peer;
            }
            false => self.same = None,
        }
    }
}

impl Relay {
    /// Chooses a peer and begins a try at it.
    pub(super) fn choose(&mut self, exchange: &mut Exchange, res: &mut Resources) -> Result<Chosen, Failure> {
        if self.needs_store(exchange, res) {
            return Ok(Chosen::Waits);
        }
        let Some(group) = self.group(exchange, res)? else { return Ok(Chosen::Waits) };
        let choice = match self.choosing.same.take() {
            Some(peer) => Choice::once_more(group, peer, res.env.now.monotonic_ms),
            None => match self.pick(&group, exchange, res) {
                Pick::Peer(peer) => match Choice::start(&group, peer, res.env.now.monotonic_ms) {
                    Some(choice) => choice,
                    // Another worker was quicker.
                    None => return Ok(Chosen::Begun),
                },
                Pick::Full => return self.queue(&group, exchange, res),
                Pick::None(WhyNone::NotResolved) => return self.await_addresses(&group, exchange, res),
                Pick::None(WhyNone::NoLive) => {
                    self.add_attempt(exchange, Arc::from(group.name()));
                    exchange.log_upstream(
                        &mut res.env,
                        Level::Error,
                        format_args!("no live upstreams while connecting to upstream"),
                    );
                    return Err(Failure::NoLivePeers);
                }
            },
        };
        self.choosing.tries += 1;
        self.choosing.tried.add(&choice.peer);
        let queue_ms = self.stop_waiting(res);
        self.add_attempt(exchange, choice.peer.name().clone());
        if let Some(attempt) = super::last_attempt(exchange) {
            attempt.queue_ms = queue_ms;
        }
        self.begin(choice, exchange, res)
    }

    /// Takes a pooled connection to the peer, or begins a new one.
    fn begin(
        &mut self,
        choice: Choice,
        exchange: &mut Exchange,
        res: &mut Resources,
    ) -> Result<Chosen, Failure> {
        let now_ms = res.env.now.monotonic_ms;
        let call = exchange.upstream.as_ref().and_then(|passed| passed.call.as_ref());
        let Some(call) = call.filter(|_| self.outbound.rewind()) else {
            choice.ended(Some(Failure::Internal), false, now_ms, 0);
            return Err(Failure::Internal);
        };
        let fresh_only =
            self.choosing.repeats > 0 || matches!(call.protocol, Protocol::Raw | Protocol::Http2);
        let pooled = match fresh_only {
            true => None,
            false => {
                res.idle.take(&choice.group, &choice.peer, exchange.location, call, now_ms, &mut res.links)
            }
        };
        let idle_ms = pooled.as_ref().map(|(_, idle_ms)| *idle_ms);
        // Only sessions ask for it.
        let via = choice.group.plan().sticky.is_some().then(|| choice.via());
        let owner = Owner::Client(self.owner);
        let carried = match pooled {
            _ if call.protocol == Protocol::Http2 => {
                let Choice { group, peer, .. } = &choice;
                let client = self.owner;
                let wanted = multiplexed::Wanted { group, peer, location: exchange.location, call, client };
                multiplexed::join(&wanted, res).map(Carrier::Stream)
            }
            Some((mut connection, _)) => {
                if let Some(link) = res.links.get(connection.link) {
                    link.owner = owner;
                }
                connection.wire.begin(call);
                Ok(Carrier::Own(connection))
            }
            None => connection::open(choice.peer.address(), call.local_address, &call.conduct)
                .and_then(|socket| {
                    let mut wire = Wire::new(call.protocol);
                    wire.begin(call);
                    Connection::new(socket, wire, owner, &mut res.links, &res.registry, now_ms)
                })
                .map(Carrier::Own),
        };
        let carrier = match carried {
            Ok(carrier) => carrier,
            Err(error) => {
                let failure = Failure::of_connect(&error);
                choice.ended(Some(failure), false, now_ms, 0);
                if let Some(attempt) = super::last_attempt(exchange) {
                    attempt.token = Some(failure.token());
                    attempt.status = failure.status();
                    attempt.response_ms = Some(0);
                }
                let message = format_args!("connect() failed ({}) while connecting to upstream", told(error));
                exchange.log_upstream(&mut res.env, Level::Error, message);
                return Err(failure);
            }
        };
        let reused = match &carrier {
            Carrier::Own(_) => idle_ms.is_some(),
            Carrier::Stream(link) => link.is_open(),
        };
        if let Some(passed) = &mut exchange.upstream {
            passed.via = via;
        }
        let stage = if reused { Stage::Answering } else { Stage::Connecting };
        let overdue_ms = choice.overdue_at(stage, now_ms);
        self.run = Some(Run {
            choice,
            carrier,
            reused,
            idle_ms,
            location: exchange.location,
            sending: Sending::Head(0),
            sent: 0,
            received: 0,
            body: 0,
            began_ms: now_ms,
            moved_ms: now_ms,
            connected: reused,
            overdue_ms,
            overdue: false,
        });
        if reused {
            self.state = State::Heading;
            if let Some(attempt) = super::last_attempt(exchange) {
                attempt.connect_ms = Some(0);
            }
        } else {
            self.state = State::Connecting;
        }
        self.renew_deadline(exchange);
        Ok(Chosen::Begun)
    }

    /// Asks the group.
    fn pick(&mut self, group: &Arc<Group>, exchange: &mut Exchange, res: &mut Resources) -> Pick {
        let Some(Some(call)) = exchange.upstream.as_ref().map(|passed| &passed.call) else {
            return Pick::None(WhyNone::NoLive);
        };
        let client_ip = match &exchange.connection.peer {
            Endpoint::Inet(address) => Some(address.ip()),
            Endpoint::Unix(_) => None,
        };
        group.pick(Ask {
            now_ms: res.env.now.monotonic_ms,
            client_ip,
            key: &call.hash_key,
            sticky: &call.sticky,
            tried: &self.choosing.tried,
            random: &mut res.env.random,
        })
    }

    /// Notes a try, or why there is none.
    pub(super) fn add_attempt(&mut self, exchange: &mut Exchange, address: Arc<str>) {
        if let Some(passed) = &mut exchange.upstream {
            let after_redirect = std::mem::take(&mut self.after_redirect);
            passed.attempts.push(Attempt { address, after_redirect, ..Attempt::default() });
        }
    }

    /// Whether another try may follow a failure, by `proxy_next_upstream` and its companions.
    pub(super) fn may_try_again(&self, failure: Failure, exchange: &Exchange, now_ms: u64) -> Option<Again> {
        let call = exchange.upstream.as_ref()?.call.as_ref()?;
        let sent = self.run.as_ref().map_or(0, |run| run.sent);
        if let Some(run) = &self.run
            && run.reused
            && failure == Failure::ResetBeforeHeader
            && self.choosing.repeats == 0
            && (call.idempotent || sent == 0)
            && self.outbound.can_rewind()
        {
            return Some(Again { same: true });
        }
        if failure == Failure::NotProcessed
            && self.choosing.repeats < MOST_REPEATS
            && self.outbound.can_rewind()
        {
            return Some(Again { same: true });
        }
        let conduct = &call.conduct;
        let wanted = failure.condition() & conduct.next_upstream != 0;
        let harmless = call.idempotent
            || sent == 0
            || failure == Failure::NotProcessed
            || conduct.next_upstream & conditions::NON_IDEMPOTENT != 0;
        let tries_left =
            conduct.next_upstream_tries == 0 || self.choosing.tries < conduct.next_upstream_tries;
        let time_left = conduct.next_upstream_timeout == 0
            || now_ms.saturating_sub(self.began_ms) < conduct.next_upstream_timeout;
        let others =
            self.choosing.group.as_ref().is_some_and(|group| group.has_untried(&self.choosing.tried, now_ms));
        (wanted && harmless && tries_left && time_left && others && self.outbound.can_rewind())
            .then_some(Again { same: false })
    }
}

/// A peer that was chosen for a try. Its group is told of everything that becomes of it, of its end once.
pub struct Choice {
    group: Arc<Group>,
    /// The peer.
    pub peer: Arc<Peer>,
    began_ms: u64,
}

impl Choice {
    /// A try begins, unless the peer has as many as it may have by now.
    fn start(group: &Arc<Group>, peer: Arc<Peer>, now_ms: u64) -> Option<Choice> {
        let starts = group.try_start(&peer, now_ms);
        starts.then(|| Choice { group: group.clone(), peer, began_ms: now_ms })
    }

    /// A try begins at the peer of the one before.
    fn once_more(group: Arc<Group>, peer: Arc<Peer>, now_ms: u64) -> Choice {
        group.started(&peer, now_ms);
        Choice { group, peer, began_ms: now_ms }
    }

    fn via(&self) -> Via {
        Via { group: self.group.clone(), peer: self.peer.clone() }
    }

    /// Where it was chosen.
    pub fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// Its connection stands.
    pub fn connected(&self, now_ms: u64) {
        self.group.connected(&self.peer, now_ms - self.began_ms);
    }

    /// A usable response's head is there.
    pub fn answered(&self, now_ms: u64) {
        self.group.header(&self.peer, self.began_ms, now_ms);
    }

    /// Monotonic milliseconds after which the peer counts as silent in this stage. A group of one has nobody else to
    /// ask.
    pub fn overdue_at(&self, stage: Stage, now_ms: u64) -> Option<u64> {
        (self.group.plan().peers.len() > 1).then(|| now_ms + self.group.usual_ms(&self.peer, stage))
    }

    /// It is silent.
    pub fn overdue(&self, now_ms: u64) {
        self.group.overdue(&self.peer, now_ms);
    }

    /// It has spoken, or the try is over.
    pub fn no_longer_overdue(&self) {
        self.group.no_longer_overdue(&self.peer);
    }

    /// The try is over.
    pub fn ended(&self, failure: Option<Failure>, is_race: bool, now_ms: u64, bytes: u64) {
        let verdict = match failure {
            None => Verdict::Good,
            Some(failure) if is_race || !failure.blames_peer() => Verdict::Neutral,
            Some(_) => Verdict::Failed,
        };
        self.group.finished(&self.peer, &Outcome { verdict, began_ms: self.began_ms, now_ms, bytes });
    }
}

/// Gives a connection whose response is complete to the pool.
pub fn give_back(choice: Choice, mut connection: Connection, location: LocationId, res: &mut Resources) {
    connection.requests += 1;
    connection.rest();
    if !res.keeps_connections_of(&choice.group) {
        return connection.close(&mut res.links);
    }
    let now_ms = res.env.now.monotonic_ms;
    res.idle.put(&choice.group, choice.peer, location, connection, now_ms, &mut res.links);
}
