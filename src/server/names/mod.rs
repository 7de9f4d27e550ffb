//! Names of upstreams, looked up without holding the loop: by DNS servers (`resolver`), or else in the system's way.
//!
//! Each worker owns one [`Names`]. Its verbs, each with the [`Io`] of this turn:
//!
//! 1. `lookup` answers at once where it can, or gives a [`Ticket`]; `cancel` takes that back.
//! 2. `on_event` for events whose token is one of `token_of`; `on_wake` when the worker was woken; `on_deadline` at
//!    `next_deadline`.
//! 3. `take_finished` after each of these, until it is `None`: every ticket comes there once, unless it was cancelled.
//! 4. `forget_unused` after a reload.
//!
//! [`sockets`] binds the machine of [`crate::upstream::names`] to sockets, [`system`] asks the C library on threads of
//! its own.

mod sockets;
pub mod system;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use mio::Token;

use crate::server::pool::Pool;
use crate::upstream::names::{
    Answer, Kind, Lookup, LookupId, NameError, Records, Resolver, ResolverPlan, ResolverServer, literal,
};

use sockets::{Came, Sockets};
use system::{SystemFound, SystemLookup, SystemNames};

/// Milliseconds until a DNS server that is given by name and was not found is looked up again.
const SERVER_RETRY_MS: u64 = 5000;

/// What a turn of the loop lends.
pub struct Io<'a> {
    /// Where sockets are registered.
    pub registry: &'a mio::Registry,
    /// For the numbers of queries.
    pub rng: &'a mut fastrand::Rng,
    /// Monotonic milliseconds.
    pub now_ms: u64,
}

/// Names a pending lookup; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What a lookup gives at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameLookup {
    /// It is known.
    Ready(Answer),
    /// [`Names::take_finished`] will tell.
    Pending(Ticket),
    /// There is none.
    Failed(NameError),
}

/// A waiter's number and what it is told.
type Found = (u64, Result<Answer, NameError>);

/// A resolver of the configuration.
struct Plan {
    plan: Arc<ResolverPlan>,
    resolver: Resolver,
    /// Who waits.
    lookups: HashMap<LookupId, Ticket>,
    /// Servers by name whose address is not known: whether it is being looked up, and when to do so again.
    unknown: Vec<UnknownServer>,
}

struct UnknownServer {
    host: Box<str>,
    port: u16,
    is_pending: bool,
    retry_ms: u64,
}

/// Whom a pending number belongs to.
enum Holder {
    /// A ticket at this plan.
    Resolver(u32, LookupId),
    /// A ticket at the system.
    System,
    /// The address of a DNS server of this plan.
    Server(u32, Box<str>),
}

/// See the module's documentation.
pub struct Names {
    plans: BTreeMap<u32, Plan>,
    next_plan: u32,
    sockets: Sockets,
    system: SystemNames,
    token_of: fn(u64) -> Token,
    holders: HashMap<u64, Holder>,
    next_number: u64,
    finished: VecDeque<(Ticket, Result<Answer, NameError>)>,
}

impl Names {
    /// A worker's names. `threads` come of [`system::threads`]; one of them calls `wake` when it has found
    /// something. `token_of` makes the token of a number below 2 to the 48th, which [`Names::on_event`] gets back.
    pub fn new(threads: &Pool, wake: Arc<dyn Fn() + Send + Sync>, token_of: fn(u64) -> Token) -> Names {
        Names::with_system(threads, system::ask_system, wake, token_of)
    }

    /// The same with another way to ask the system.
    pub fn with_system(
        threads: &Pool,
        ask: SystemLookup,
        wake: Arc<dyn Fn() + Send + Sync>,
        token_of: fn(u64) -> Token,
    ) -> Names {
        Names {
            plans: BTreeMap::new(),
            next_plan: 0,
            sockets: Sockets::default(),
            system: SystemNames::new(threads, ask, wake),
            token_of,
            holders: HashMap::new(),
            next_number: 0,
            finished: VecDeque::new(),
        }
    }

    /// Looks a name up, with a resolver of the configuration or in the system's way.
    pub fn lookup(
        &mut self,
        plan: Option<&Arc<ResolverPlan>>,
        name: &[u8],
        kind: Kind<'_>,
        io: &mut Io<'_>,
    ) -> NameLookup {
        let Some(plan) = plan else { return self.lookup_in_system(name, kind, io.now_ms) };
        let id = self.plan_id(plan);
        self.look_for_servers(id, io);
        let Some(plan) = self.plans.get_mut(&id) else { return NameLookup::Failed(NameError::Busy) };
        match plan.resolver.lookup(name, kind, io.now_ms) {
            Lookup::Ready(answer) => NameLookup::Ready(answer),
            Lookup::Failed(error) => NameLookup::Failed(error),
            Lookup::Pending(lookup) => {
                let number = self.next_number;
                self.next_number += 1;
                plan.lookups.insert(lookup, Ticket(number));
                self.holders.insert(number, Holder::Resolver(id, lookup));
                self.attend(id, io);
                NameLookup::Pending(Ticket(number))
            }
        }
    }

    fn lookup_in_system(&mut self, name: &[u8], kind: Kind<'_>, now_ms: u64) -> NameLookup {
        if kind != Kind::Addresses {
            // The C library has no call for that; a configuration that asks for it needs a `resolver`.
            return NameLookup::Failed(NameError::NotImplemented);
        }
        if let Some(address) = literal(name) {
            let records = Records::Addresses(Arc::new([address]));
            return NameLookup::Ready(Answer { records, expires_ms: u64::MAX, stale: false });
        }
        let number = self.next_number;
        match self.system.lookup(name, number, now_ms) {
            SystemFound::Known(Ok(answer)) => NameLookup::Ready(answer),
            SystemFound::Known(Err(error)) => NameLookup::Failed(error),
            SystemFound::Pending => {
                self.next_number += 1;
                self.holders.insert(number, Holder::System);
                NameLookup::Pending(Ticket(number))
            }
        }
    }

    /// Nobody waits for this ticket any more; one that is over already is ignored.
    pub fn cancel(&mut self, ticket: Ticket) {
        match self.holders.remove(&ticket.0) {
            Some(Holder::Resolver(id, lookup)) => {
                if let Some(plan) = self.plans.get_mut(&id) {
                    plan.lookups.remove(&lookup);
                    plan.resolver.cancel(lookup);
                }
            }
            Some(Holder::System) => self.system.cancel(ticket.0),
            Some(Holder::Server(..)) | None => {}
        }
        self.finished.retain(|(other, _)| *other != ticket);
    }

    /// An event on the socket that this number stands for.
    pub fn on_event(&mut self, number: u64, io: &mut Io<'_>) {
        let token = (self.token_of)(number);
        for came in self.sockets.on_event(number, io.registry, token) {
            let id = match &came {
                Came::Message((id, _), ..) | Came::Broken((id, _)) => *id,
            };
            let Some(plan) = self.plans.get_mut(&id) else { continue };
            match came {
                Came::Message((_, query), server, transport, message) => {
                    plan.resolver.received(query, server, transport, &message, io.now_ms);
                }
                Came::Broken((_, query)) => plan.resolver.failed(query, io.now_ms),
            }
            self.attend(id, io);
        }
    }

    /// The worker was woken: a thread may have found something.
    pub fn on_wake(&mut self, io: &mut Io<'_>) {
        self.system.on_wake(io.now_ms);
        self.attend_system(io);
    }

    /// When [`Names::on_deadline`] is to be called, in monotonic milliseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        let plans = self.plans.values().filter_map(|plan| plan.resolver.next_deadline());
        plans.chain(self.system.next_deadline()).min()
    }

    /// Repeats questions, gives up what took too long.
    pub fn on_deadline(&mut self, io: &mut Io<'_>) {
        let due = self.plans.iter().filter(|(_, plan)| {
            plan.resolver.next_deadline().is_some_and(|deadline_ms| deadline_ms <= io.now_ms)
        });
        for id in due.map(|(id, _)| *id).collect::<Vec<_>>() {
            if let Some(plan) = self.plans.get_mut(&id) {
                plan.resolver.on_deadline(io.now_ms);
            }
            self.attend(id, io);
        }
        self.system.on_deadline(io.now_ms);
        self.attend_system(io);
    }

    /// The next ticket that is over.
    pub fn take_finished(&mut self) -> Option<(Ticket, Result<Answer, NameError>)> {
        self.finished.pop_front()
    }

    /// Lets go of resolvers that no site names any more, with all that they know. Those that are waited for stay until
    /// the next call.
    pub fn forget_unused(&mut self) {
        let unused = |plan: &Plan| {
            let is_idle = plan.lookups.is_empty() && plan.resolver.next_deadline().is_none();
            Arc::strong_count(&plan.plan) == 1 && is_idle
        };
        self.plans.retain(|_, plan| !unused(plan));
    }

    /// What happened so far, for each resolver with a `status_zone`.
    #[cfg(test)]
    pub fn counters(&self) -> impl Iterator<Item = (&str, crate::upstream::names::Counters)> {
        let named = |plan: &'_ Plan| plan.plan.status_zone.is_some();
        self.plans
            .values()
            .filter(move |plan| named(plan))
            .map(|plan| (plan.plan.status_zone.as_deref().unwrap_or_default(), plan.resolver.counters()))
    }

    /// Sockets that are open.
    #[cfg(test)]
    pub fn open_sockets(&self) -> usize {
        self.sockets.len()
    }

    /// The resolver for a plan. A reload brings plans anew: equal ones go on with what they know.
    fn plan_id(&mut self, plan: &Arc<ResolverPlan>) -> u32 {
        if let Some((id, _)) = self.plans.iter().find(|(_, known)| Arc::ptr_eq(&known.plan, plan)) {
            return *id;
        }
        if let Some((id, known)) = self.plans.iter_mut().find(|(_, known)| known.plan == *plan) {
            known.plan = Arc::clone(plan);
            return *id;
        }
        let id = self.next_plan;
        self.next_plan += 1;
        let by_name = plan.servers.iter().filter_map(|server| match server {
            ResolverServer::Address(_) => None,
            ResolverServer::Name { host, port } => {
                Some(UnknownServer { host: host.clone(), port: *port, is_pending: false, retry_ms: 0 })
            }
        });
        let known = Plan {
            unknown: by_name.collect(),
            resolver: Resolver::new(ResolverPlan::clone(plan)),
            plan: Arc::clone(plan),
            lookups: HashMap::new(),
        };
        self.plans.insert(id, known);
        id
    }

    /// Asks the system for the addresses of DNS servers that are given by name.
    fn look_for_servers(&mut self, id: u32, io: &mut Io<'_>) {
        let Some(plan) = self.plans.get_mut(&id) else { return };
        let mut found = Vec::new();
        for server in &mut plan.unknown {
            if server.is_pending || server.retry_ms > io.now_ms {
                continue;
            }
            server.retry_ms = io.now_ms + SERVER_RETRY_MS;
            let number = self.next_number;
            match self.system.lookup(server.host.as_bytes(), number, io.now_ms) {
                SystemFound::Pending => {
                    self.next_number += 1;
                    server.is_pending = true;
                    self.holders.insert(number, Holder::Server(id, server.host.clone()));
                }
                SystemFound::Known(result) => found.push((server.host.clone(), result)),
            }
        }
        for (host, result) in found {
            self.place_servers(id, &host, &result, io);
        }
    }

    fn place_servers(&mut self, id: u32, host: &str, result: &Result<Answer, NameError>, io: &mut Io<'_>) {
        let Some(plan) = self.plans.get_mut(&id) else { return };
        for server in plan.unknown.iter_mut().filter(|server| *server.host == *host) {
            server.is_pending = false;
        }
        let Ok(answer) = result else { return };
        let here = plan.unknown.extract_if(.., |server| *server.host == *host);
        for server in here {
            for address in answer.addresses() {
                plan.resolver.add_server(SocketAddr::new(*address, server.port), io.now_ms);
            }
        }
        self.attend(id, io);
    }

    /// Sends what a resolver has to send, closes what it needs no more, and takes what it found.
    fn attend(&mut self, id: u32, io: &mut Io<'_>) {
        let Some(plan) = self.plans.get_mut(&id) else { return };
        while let Some(transmit) = plan.resolver.transmit(io.rng) {
            let query = transmit.query;
            // What fails here (no route, no descriptor) is a server that can't be reached; the tries are bounded.
            if self.sockets.open(id, transmit, io.registry, self.token_of).is_err() {
                plan.resolver.failed(query, io.now_ms);
            }
        }
        while let Some(query) = plan.resolver.take_closed() {
            self.sockets.close((id, query));
        }
        while let Some((lookup, result)) = plan.resolver.take_finished() {
            if let Some(ticket) = plan.lookups.remove(&lookup) {
                self.holders.remove(&ticket.0);
                self.finished.push_back((ticket, result));
            }
        }
    }

    fn attend_system(&mut self, io: &mut Io<'_>) {
        while let Some((number, result)) = self.system.take_finished() {
            match self.holders.remove(&number) {
                Some(Holder::System) => self.finished.push_back((Ticket(number), result)),
                Some(Holder::Server(id, host)) => self.place_servers(id, &host, &result, io),
                Some(Holder::Resolver(..)) | None => {}
            }
        }
    }
}
