//! What a request waits for before it has a peer: the file of a copy, a name's addresses, a place in its group's queue.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::level::Level;
use crate::http::exchange::Exchange;
use crate::http::upstream_call::{PassAddress, Target};
use crate::http::upstreams::implicit;
use crate::server::client::ClientKey;
use crate::server::names::{Io, NameLookup, Ticket};
use crate::server::worker::resources::Resources;
use crate::server::worker::upstream_names::resolved;
use crate::upstream::Group;
use crate::upstream::names::{Answer, Kind, NameError};
use crate::upstream::plan::PlanAddress;

use super::failure::Failure;
use super::peers::Chosen;
use super::{Relay, State};

/// How often a request looks again for what another worker may have brought about, in milliseconds: room at a peer, the
/// addresses of a group.
const LOOK_AGAIN_MS: u64 = 20;
/// A resolver gives up before that, in milliseconds.
const LONGEST_NAME_MS: u64 = 310_000;

/// What is waited for.
#[derive(Debug, Default)]
pub enum Wait {
    /// Nothing, or a job of the pool.
    #[default]
    Nothing,
    /// The addresses of a name that variables gave.
    Name(Ticket),
    /// The first addresses of a group, since then.
    Addresses(u64),
    /// Room at one of a group's peers, since then; a place in its queue is taken, and this one in the worker's.
    Room(Arc<Group>, u64, Turn),
}

/// The order in which requests came to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn(u64);

/// The requests of a worker that wait for room, by group and in the order in which they came. One that was called and
/// found no room stands where it stood.
#[derive(Debug, Default)]
pub struct Queues {
    waiting: BTreeMap<(usize, Turn), ClientKey>,
    turns: u64,
}

impl Queues {
    /// Whether nobody waits.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn next_turn(&mut self) -> Turn {
        self.turns += 1;
        Turn(self.turns)
    }

    fn enter(&mut self, group: &Group, turn: Turn, key: ClientKey) {
        self.waiting.insert((group.key(), turn), key);
    }

    fn leave(&mut self, group: &Group, turn: Turn) {
        self.waiting.remove(&(group.key(), turn));
    }

    /// Calls whoever waits longest.
    fn call(&mut self, group: &Group) -> Option<ClientKey> {
        let of_group = (group.key(), Turn(0))..=(group.key(), Turn(u64::MAX));
        let (first, _) = self.waiting.range(of_group).next()?;
        let first = *first;
        self.waiting.remove(&first)
    }
}

impl Resources {
    /// A peer of the group has room again: whoever waits longest looks for it.
    pub(super) fn wake_queued(&mut self, group: &Group) {
        if let Some(key) = self.queued.call(group) {
            self.resumed.push(key);
        }
    }
}

impl Relay {
    /// The group that the call goes to; `None` while its name is looked up.
    pub(super) fn group(
        &mut self,
        exchange: &mut Exchange,
        res: &mut Resources,
    ) -> Result<Option<Arc<Group>>, Failure> {
        if let Some(group) = &self.choosing.group {
            return Ok(Some(group.clone()));
        }
        let Some(Some(call)) = exchange.upstream.as_ref().map(|passed| &passed.call) else {
            return Err(Failure::Internal);
        };
        let group = match &call.target {
            Target::Fixed(id) => exchange.site.upstreams.group(*id).clone(),
            Target::Computed(address) => match named(exchange, address) {
                Some(group) => group,
                None => {
                    let address = address.clone();
                    match self.computed_group(&address, exchange, res)? {
                        Some(group) => group,
                        None => return Ok(None),
                    }
                }
            },
        };
        self.choosing.group = Some(group.clone());
        Ok(Some(group))
    }

    /// A group for an address that variables gave. Workers keep some of them, for the connections and the standing of
    /// their peers.
    fn computed_group(
        &mut self,
        address: &PassAddress,
        exchange: &mut Exchange,
        res: &mut Resources,
    ) -> Result<Option<Arc<Group>>, Failure> {
        let plan = implicit(address);
        let (host, port) = match &plan.peers[0].address {
            PlanAddress::Name { host, port, .. } => (host.clone(), *port),
            _ => return Ok(Some(res.computed_group(plan))),
        };
        let site = exchange.site.clone();
        let resolver = site.settings(exchange.location).resolver.plan.as_ref();
        let Resources { names, env, registry, .. } = res;
        let io = &mut Io { registry, rng: &mut env.random, now_ms: env.now.monotonic_ms };
        let answer = match names.lookup(resolver, host.as_bytes(), Kind::Addresses, io) {
            NameLookup::Ready(answer) => answer,
            NameLookup::Failed(error) => return Err(self.not_resolved(&host, &error, exchange, res)),
            NameLookup::Pending(ticket) => {
                res.name_waiters.insert(ticket, self.owner);
                self.choosing.wait = Wait::Name(ticket);
                self.choosing.name = Some((plan, host, port));
                self.state = State::Waiting;
                self.deadline_ms = res.env.now.monotonic_ms + LONGEST_NAME_MS;
                return Ok(None);
            }
        };
        let group = res.computed_group(plan);
        tell(&group, &answer, port);
        Ok(Some(group))
    }

    fn not_resolved(
        &mut self,
        host: &str,
        error: &NameError,
        exchange: &mut Exchange,
        res: &mut Resources,
    ) -> Failure {
        let message = format_args!("{host} could not be resolved ({error})");
        exchange.log_upstream(&mut res.env, Level::Error, message);
        self.add_attempt(exchange, Arc::from(host));
        Failure::Dns
    }

    /// A group has no addresses: they may be on their way, at the start and after a reload.
    pub(super) fn await_addresses(
        &mut self,
        group: &Arc<Group>,
        exchange: &mut Exchange,
        res: &mut Resources,
    ) -> Result<Chosen, Failure> {
        let now_ms = res.env.now.monotonic_ms;
        let since_ms = match self.choosing.wait {
            Wait::Addresses(since_ms) => since_ms,
            _ => now_ms,
        };
        let patience = exchange
            .upstream
            .as_ref()
            .and_then(|passed| passed.call.as_ref())
            .map_or(0, |call| call.conduct.connect_timeout);
        let why = group.name_failure();
        if why.is_some() || now_ms - since_ms >= patience {
            let why = why.unwrap_or_else(|| "no answer so far".into());
            let message = format_args!("upstream \"{}\" has no address ({why})", group.name());
            exchange.log_upstream(&mut res.env, Level::Error, message);
            self.add_attempt(exchange, Arc::from(group.name()));
            return Err(Failure::Dns);
        }
        self.choosing.wait = Wait::Addresses(since_ms);
        self.look_again(now_ms);
        Ok(Chosen::Waits)
    }

    /// All peers have as many requests as they may have: a place in the line, if the group has one.
    pub(super) fn queue(
        &mut self,
        group: &Arc<Group>,
        exchange: &mut Exchange,
        res: &mut Resources,
    ) -> Result<Chosen, Failure> {
        let now_ms = res.env.now.monotonic_ms;
        let timeout_ms = group.plan().queue.map_or(0, |queue| queue.timeout_ms);
        let (since_ms, turn) = match &self.choosing.wait {
            Wait::Room(_, since_ms, turn) => (*since_ms, *turn),
            _ if group.start_waiting() => {
                let turn = res.queued.next_turn();
                self.choosing.wait = Wait::Room(group.clone(), now_ms, turn);
                (now_ms, turn)
            }
            _ => {
                let message = format_args!("no live upstreams while connecting to upstream");
                exchange.log_upstream(&mut res.env, Level::Error, message);
                self.add_attempt(exchange, Arc::from(group.name()));
                return Err(Failure::NoLivePeers);
            }
        };
        if now_ms - since_ms >= timeout_ms {
            let message = format_args!("upstream queue timed out while connecting to upstream");
            exchange.log_upstream(&mut res.env, Level::Error, message);
            self.add_attempt(exchange, Arc::from(group.name()));
            // Before the client is told: it may come again at once.
            let queue_ms = self.stop_waiting(res);
            if let Some(attempt) = super::last_attempt(exchange) {
                attempt.queue_ms = queue_ms;
            }
            return Err(Failure::Queue);
        }
        res.queued.enter(group, turn, self.owner);
        self.look_again(now_ms);
        Ok(Chosen::Waits)
    }

    fn look_again(&mut self, now_ms: u64) {
        self.state = State::Waiting;
        self.deadline_ms = now_ms + LOOK_AGAIN_MS;
    }

    /// Whether what was waited for has come, so that a peer can be chosen.
    pub(super) fn look_after_wait(
        &mut self,
        exchange: &mut Exchange,
        res: &mut Resources,
    ) -> Result<bool, Failure> {
        match self.choosing.wait {
            Wait::Nothing => Ok(false),
            Wait::Addresses(_) | Wait::Room(..) => {
                self.state = State::Choosing;
                Ok(true)
            }
            Wait::Name(ticket) => {
                let Some(result) = res.name_results.remove(&ticket) else { return Ok(false) };
                self.choosing.wait = Wait::Nothing;
                let Some((plan, host, port)) = self.choosing.name.take() else {
                    return Err(Failure::Internal);
                };
                match result {
                    Ok(answer) => {
                        let group = res.computed_group(plan);
                        tell(&group, &answer, port);
                        self.choosing.group = Some(group);
                        self.state = State::Choosing;
                        Ok(true)
                    }
                    Err(error) => Err(self.not_resolved(&host, &error, exchange, res)),
                }
            }
        }
    }

    /// It is time to look again, or to give up waiting.
    pub(super) fn wait_is_over(&mut self) {
        match self.choosing.wait {
            Wait::Name(_) => self.timed_out = Some(Failure::Dns),
            _ => self.deadline_ms = u64::MAX,
        }
    }

    /// Nothing is waited for any more; how long the line was stood in, if it was.
    pub(super) fn stop_waiting(&mut self, res: &mut Resources) -> Option<u32> {
        match std::mem::take(&mut self.choosing.wait) {
            Wait::Nothing | Wait::Addresses(_) => None,
            Wait::Name(ticket) => {
                res.names.cancel(ticket);
                res.name_waiters.remove(&ticket);
                res.name_results.remove(&ticket);
                None
            }
            Wait::Room(group, since_ms, turn) => {
                res.queued.leave(&group, turn);
                group.stop_waiting();
                Some((res.env.now.monotonic_ms - since_ms) as u32)
            }
        }
    }
}

/// The group of an `upstream` block that an address names.
fn named(exchange: &Exchange, address: &PassAddress) -> Option<Arc<Group>> {
    match address {
        PassAddress::Host { host, port: None, .. } => exchange.site.upstreams.named(host).cloned(),
        _ => None,
    }
}

fn tell(group: &Group, answer: &Answer, port: u16) {
    let addresses = resolved(&answer.records, port);
    let present = group.peers();
    let is_same = present.len() == addresses.len()
        && addresses.iter().all(|new| {
            present.iter().any(|peer| *peer.address() == crate::upstream::PeerAddress::Inet(new.address))
        });
    if !is_same {
        group.set_addresses(0, &addresses);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::GroupPlan;

    #[test]
    fn each_group_calls_those_who_wait_for_it_in_the_order_in_which_they_came() {
        let [a, b] = ["a", "b"].map(|name| Group::new(GroupPlan::new(name, Vec::new()), None));
        let client = |index: u32| ClientKey { index, generation: 0 };
        let mut queues = Queues::default();
        let turns: Vec<Turn> = (0..4).map(|_| queues.next_turn()).collect();
        for (index, group) in [&a, &b, &a, &a].into_iter().enumerate() {
            queues.enter(group, turns[index], client(index as u32));
        }
        // Whoever looks again by itself is not there twice.
        queues.enter(&a, turns[2], client(2));
        assert_eq!(queues.call(&a), Some(client(0)));
        // It found no room.
        queues.enter(&a, turns[0], client(0));
        assert_eq!(queues.call(&a), Some(client(0)));
        queues.leave(&a, turns[2]);
        assert_eq!((queues.call(&a), queues.call(&a)), (Some(client(3)), None));
        assert_eq!((queues.call(&b), queues.call(&b)), (Some(client(1)), None));
    }
}
