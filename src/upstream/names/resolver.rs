//! Lookups and what they wait for.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::proto::dns::{DnsName, RecordType, ReplyError, ServiceRecord, read_reply};

use super::cache::{Cache, Key, Known};
use super::plan::{Answer, NameError, Records, ResolverPlan, ResolverServer, Service};
use super::question::{Outcome, Question};
use super::wires::{Owner, QueryId, Transmit, Transport, Wires};

/// Names that are asked for at a time. Each may have up to four sockets open (two kinds of addresses, two tries).
pub const MAX_FLIGHTS: usize = 256;
/// Lookups that wait at a time.
pub const MAX_LOOKUPS: usize = 16_384;
/// Milliseconds after which those who wait get an old answer, if there is one, while the asking goes on (RFC 8767
/// section 5 has 1.8 s).
pub const STALE_AFTER_MS: u64 = 1800;
/// Milliseconds that addresses of one kind wait for those of the other: some servers never answer for AAAA.
const HALF_WAIT_MS: u64 = 300;
/// Milliseconds that addresses of one kind are kept when those of the other could not be had.
const HALF_LIFE_MS: u64 = 30_000;

/// Names a lookup; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LookupId(u64);

/// What a lookup is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// Addresses of a host.
    Addresses,
    /// The hosts of a service, and their addresses (`service=`).
    Service(&'a str),
}

/// What a lookup gives at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It is known.
    Ready(Answer),
    /// It is being asked for: [`Resolver::take_finished`] will tell.
    Pending(LookupId),
    /// There is none.
    Failed(NameError),
}

/// Whoever waits for a flight.
enum Waiter {
    Lookup(LookupId),
    /// The flight of a service that this host belongs to.
    Service(u64),
}

/// A name that is being asked for.
struct Flight {
    key: Key,
    waiters: Vec<Waiter>,
    deadline_ms: u64,
    /// What is known from before, and when to be content with it.
    old: Option<(Answer, u64)>,
    work: Work,
}

enum Work {
    Addresses {
        questions: Vec<Question>,
        /// One kind is there; so long the other is waited for.
        half_until_ms: Option<u64>,
    },
    Service(Question),
    Targets(Targets),
}

/// The hosts of a service while their addresses are asked for.
struct Targets {
    records: Vec<ServiceRecord>,
    expires_ms: u64,
    hosts: BTreeMap<DnsName, Option<Result<Answer, NameError>>>,
}

/// Why a flight came to nothing.
struct Miss {
    error: NameError,
    /// Seconds that a denial is known.
    known_for: Option<u32>,
}

type Verdict = Result<(Records, u64), Miss>;

/// See the module's documentation.
pub struct Resolver {
    plan: ResolverPlan,
    wires: Wires,
    cache: Cache,
    /// By number, so that the oldest come first.
    flights: BTreeMap<u64, Flight>,
    next_flight: u64,
    by_key: HashMap<Key, u64>,
    /// The flight that each pending lookup waits for.
    lookups: HashMap<LookupId, u64>,
    next_lookup: u64,
    finished: VecDeque<(LookupId, Result<Answer, NameError>)>,
}

impl Resolver {
    /// A resolver that knows nothing yet. Servers by name take part once [`Resolver::add_server`] has told their
    /// addresses.
    pub fn new(plan: ResolverPlan) -> Resolver {
        let mut wires = Wires::default();
        for server in &plan.servers {
            if let ResolverServer::Address(address) = server {
                wires.add_server(*address);
            }
        }
        Resolver {
            wires,
            cache: Cache::new(plan.valid_ms),
            flights: BTreeMap::new(),
            next_flight: 0,
            by_key: HashMap::new(),
            lookups: HashMap::new(),
            next_lookup: 0,
            finished: VecDeque::new(),
            plan,
        }
    }

    /// What happened so far.
    #[cfg(test)]
    pub fn counters(&self) -> super::wires::Counters {
        self.wires.counters
    }

    /// A server's address has become known; questions that wait for one are asked at once.
    pub fn add_server(&mut self, address: SocketAddr, now_ms: u64) {
        self.wires.add_server(address);
        for flight in self.flights.values_mut() {
            for question in flight.work.questions() {
                question.on_new_server(&mut self.wires, now_ms);
            }
        }
    }

    /// Looks a name up; one dot at its end is fine. An address is its own answer.
    pub fn lookup(&mut self, name: &[u8], kind: Kind<'_>, now_ms: u64) -> Lookup {
        self.wires.counters.lookups += 1;
        if let Some(address) = literal(name) {
            let records = Records::Addresses(Arc::new([address]));
            return match kind {
                Kind::Addresses => Lookup::Ready(Answer { records, expires_ms: u64::MAX, stale: false }),
                Kind::Service(_) => Lookup::Failed(NameError::NotFound),
            };
        }
        let Some(key) = key(name, kind) else { return Lookup::Failed(NameError::NotFound) };
        match self.look_up(key, now_ms) {
            Ok(Ok(answer)) => {
                self.wires.counters.cached += 1;
                Lookup::Ready(answer)
            }
            Ok(Err(error)) => Lookup::Failed(error),
            Err(_) if self.lookups.len() >= MAX_LOOKUPS => Lookup::Failed(NameError::Busy),
            Err(flight) => {
                let id = LookupId(self.next_lookup);
                self.next_lookup += 1;
                self.lookups.insert(id, flight);
                self.wait(flight, Waiter::Lookup(id));
                Lookup::Pending(id)
            }
        }
    }

    /// Nobody waits for this lookup any more. What is on its way goes on, for the next who asks.
    pub fn cancel(&mut self, lookup: LookupId) {
        if let Some(flight) = self.lookups.remove(&lookup)
            && let Some(flight) = self.flights.get_mut(&flight)
        {
            flight.waiters.retain(|waiter| !matches!(waiter, Waiter::Lookup(id) if *id == lookup));
        }
        self.finished.retain(|(id, _)| *id != lookup);
    }

    /// The next message to send. Its random number is drawn here.
    pub fn transmit(&mut self, rng: &mut fastrand::Rng) -> Option<Transmit> {
        self.wires.transmit(rng)
    }

    /// A message came in on the socket of this query. Over TCP it is whole and without its length.
    pub fn received(
        &mut self,
        query: QueryId,
        from: SocketAddr,
        transport: Transport,
        message: &[u8],
        now_ms: u64,
    ) {
        let sent_as = self.wires.sent_as(query);
        let Some((asked, (number, server))) = self.wires.get(query).zip(sent_as) else {
            self.wires.counters.ignored += 1;
            return;
        };
        let is_from_there = from.ip() == server.ip() && from.port() == server.port();
        let owner = asked.owner;
        let reply = match is_from_there && asked.transport == transport {
            true => read_reply(message, number, &asked.name, asked.record),
            false => Err(ReplyError::NotOurs),
        };
        let question =
            self.flights.get_mut(&owner.flight).and_then(|flight| flight.work.question(owner.slot));
        match (reply, question) {
            (Ok(reply), Some(question)) => question.on_reply(&mut self.wires, query, reply, now_ms),
            (Err(ReplyError::Malformed), Some(question)) => {
                self.wires.counters.malformed += 1;
                question.on_failure(&mut self.wires, query, NameError::Format, now_ms);
            }
            (Err(ReplyError::NotOurs), _) | (_, None) => self.wires.counters.ignored += 1,
        }
        self.settle(owner.flight, now_ms);
    }

    /// The socket of this query broke: refused, unreachable, closed before the reply.
    pub fn failed(&mut self, query: QueryId, now_ms: u64) {
        let Some(owner) = self.wires.get(query).map(|query| query.owner) else { return };
        if let Some(flight) = self.flights.get_mut(&owner.flight)
            && let Some(question) = flight.work.question(owner.slot)
        {
            question.on_failure(&mut self.wires, query, NameError::Unreachable, now_ms);
        }
        self.settle(owner.flight, now_ms);
    }

    /// The next query whose socket is to be closed.
    pub fn take_closed(&mut self) -> Option<QueryId> {
        self.wires.take_closed()
    }

    /// The next lookup that is over.
    pub fn take_finished(&mut self) -> Option<(LookupId, Result<Answer, NameError>)> {
        self.finished.pop_front()
    }

    /// When [`Resolver::on_deadline`] is to be called, in monotonic milliseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        self.flights.values().map(Flight::next_deadline).min()
    }

    /// Asks again what was not answered, and gives up what took too long.
    pub fn on_deadline(&mut self, now_ms: u64) {
        let due: Vec<u64> = self
            .flights
            .iter()
            .filter(|(_, flight)| flight.next_deadline() <= now_ms)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.content_with_old(id, now_ms);
            let Some(flight) = self.flights.get_mut(&id) else { continue };
            let is_over = flight.deadline_ms <= now_ms;
            let half_is_enough = matches!(
                &flight.work,
                Work::Addresses { half_until_ms: Some(until_ms), .. } if *until_ms <= now_ms
            );
            for question in flight.work.questions() {
                match is_over || half_is_enough {
                    true => question.give_up(&mut self.wires),
                    false => question.on_deadline(&mut self.wires, now_ms),
                }
            }
            if let Work::Targets(targets) = &mut flight.work
                && is_over
            {
                for host in targets.hosts.values_mut() {
                    host.get_or_insert(Err(NameError::TimedOut));
                }
            }
            self.settle(id, now_ms);
        }
    }

    /// What is known, or the flight to wait for.
    fn look_up(&mut self, key: Key, now_ms: u64) -> Result<Result<Answer, NameError>, u64> {
        let old = match self.cache.look_up(&key, now_ms) {
            Known::Answer(answer) => return Ok(Ok(answer)),
            Known::Error(error) => return Ok(Err(error)),
            Known::Old(old) => old,
        };
        if let Some(id) = self.by_key.get(&key) {
            let old = self.flights.get(id).and_then(|flight| flight.old.as_ref());
            return match old {
                Some((answer, from_ms)) if *from_ms <= now_ms => Ok(Ok(answer.clone())),
                _ => Err(*id),
            };
        }
        if !key.is_service && !self.plan.ipv4 && !self.plan.ipv6 {
            return Ok(Err(NameError::NotFound));
        }
        if self.flights.len() >= MAX_FLIGHTS {
            return Ok(old.ok_or(NameError::Busy));
        }
        Err(self.start(key, old, now_ms))
    }

    fn start(&mut self, key: Key, old: Option<Answer>, now_ms: u64) -> u64 {
        let id = self.next_flight;
        self.next_flight += 1;
        let wires = &mut self.wires;
        let mut ask =
            |slot, record| Question::ask(wires, Owner { flight: id, slot }, key.name.clone(), record, now_ms);
        let work = if key.is_service {
            Work::Service(ask(0, RecordType::Srv))
        } else {
            let wanted = [(self.plan.ipv4, RecordType::A), (self.plan.ipv6, RecordType::Aaaa)];
            let kinds = wanted.iter().filter(|(wanted, _)| *wanted).map(|(_, record)| *record);
            let questions = kinds.enumerate().map(|(slot, record)| ask(slot, record)).collect();
            Work::Addresses { questions, half_until_ms: None }
        };
        let deadline_ms = now_ms.saturating_add(self.plan.timeout_ms);
        let old = old.map(|answer| (answer, now_ms + STALE_AFTER_MS));
        self.by_key.insert(key.clone(), id);
        self.flights.insert(id, Flight { key, waiters: Vec::new(), deadline_ms, old, work });
        id
    }

    fn wait(&mut self, flight: u64, waiter: Waiter) {
        if let Some(flight) = self.flights.get_mut(&flight) {
            flight.waiters.push(waiter);
        }
    }

    /// Gives those who wait an old answer, if it is time and there is one.
    fn content_with_old(&mut self, id: u64, now_ms: u64) {
        let Some(flight) = self.flights.get_mut(&id) else { return };
        let answer = match &flight.old {
            Some((answer, from_ms)) if *from_ms <= now_ms => answer.clone(),
            _ => return,
        };
        let (waiters, host) = (std::mem::take(&mut flight.waiters), flight.key.name.clone());
        self.tell(waiters, &host, &Ok(answer), now_ms);
    }

    /// Sees whether a flight has come to its end, or a service to its second part.
    fn settle(&mut self, id: u64, now_ms: u64) {
        let Some(flight) = self.flights.get_mut(&id) else { return };
        let verdict = match &mut flight.work {
            Work::Addresses { questions, half_until_ms } => {
                addresses_verdict(questions, half_until_ms, &self.cache, now_ms)
            }
            Work::Service(question) => match question.outcome().cloned() {
                Some(Outcome::Services(records, ttl)) => {
                    return self.ask_for_targets(id, records, ttl, now_ms);
                }
                Some(outcome) => Some(Err(miss_of(&outcome))),
                None => None,
            },
            Work::Targets(targets) => targets.verdict(now_ms),
        };
        if let Some(verdict) = verdict {
            self.conclude(id, verdict, now_ms);
        }
    }

    fn ask_for_targets(&mut self, id: u64, mut records: Vec<ServiceRecord>, ttl: u32, now_ms: u64) {
        records.sort_by_key(|record| record.priority);
        let mut hosts = BTreeMap::new();
        for record in &records {
            if hosts.contains_key(&record.target) {
                continue;
            }
            let key = Key { name: record.target.clone(), is_service: false };
            let known = match self.look_up(key, now_ms) {
                Ok(result) => Some(result),
                Err(flight) => {
                    self.wait(flight, Waiter::Service(id));
                    None
                }
            };
            hosts.insert(record.target.clone(), known);
        }
        let expires_ms = self.cache.expiry(ttl, now_ms);
        if let Some(flight) = self.flights.get_mut(&id) {
            flight.work = Work::Targets(Targets { records, expires_ms, hosts });
        }
        self.settle(id, now_ms);
    }

    /// Ends a flight: what it found is remembered, and told to those who wait.
    fn conclude(&mut self, id: u64, verdict: Verdict, now_ms: u64) {
        let Some(mut flight) = self.flights.remove(&id) else { return };
        self.by_key.remove(&flight.key);
        for question in flight.work.questions() {
            question.close_all(&mut self.wires);
        }
        let key = &flight.key;
        let result = match verdict {
            Ok((records, expires_ms)) => {
                self.cache.put_answer(key, records.clone(), expires_ms);
                Ok(Answer { records, expires_ms, stale: false })
            }
            Err(Miss { error, known_for }) if error.is_denial() => {
                self.cache.put_denial(key, error, known_for, now_ms);
                Err(error)
            }
            Err(Miss { error, .. }) => {
                self.wires.counters.timed_out += u64::from(error == NameError::TimedOut);
                self.cache.put_failure(key, error, now_ms).ok_or(error)
            }
        };
        self.tell(flight.waiters, &flight.key.name, &result, now_ms);
    }

    fn tell(
        &mut self,
        waiters: Vec<Waiter>,
        host: &DnsName,
        result: &Result<Answer, NameError>,
        now_ms: u64,
    ) {
        for waiter in waiters {
            match waiter {
                Waiter::Lookup(id) => {
                    if self.lookups.remove(&id).is_some() {
                        self.finished.push_back((id, result.clone()));
                    }
                }
                Waiter::Service(service) => {
                    if let Some(Flight { work: Work::Targets(targets), .. }) = self.flights.get_mut(&service)
                        && let Some(known @ None) = targets.hosts.get_mut(host)
                    {
                        *known = Some(result.clone());
                        self.settle(service, now_ms);
                    }
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn open_queries(&self) -> usize {
        self.wires.open_queries()
    }
}

impl Flight {
    fn next_deadline(&self) -> u64 {
        let questions = match &self.work {
            Work::Addresses { questions, .. } => &questions[..],
            Work::Service(question) => std::slice::from_ref(question),
            Work::Targets(_) => &[],
        };
        let half_ms = match &self.work {
            Work::Addresses { half_until_ms, .. } => *half_until_ms,
            _ => None,
        };
        let old_ms = match &self.old {
            Some((_, from_ms)) if !self.waiters.is_empty() => Some(*from_ms),
            _ => None,
        };
        let others = questions.iter().filter_map(Question::next_deadline).chain(half_ms).chain(old_ms);
        others.fold(self.deadline_ms, u64::min)
    }
}

impl Work {
    fn questions(&mut self) -> &mut [Question] {
        match self {
            Work::Addresses { questions, .. } => questions,
            Work::Service(question) => std::slice::from_mut(question),
            Work::Targets(_) => &mut [],
        }
    }

    fn question(&mut self, slot: usize) -> Option<&mut Question> {
        self.questions().get_mut(slot)
    }
}

impl Targets {
    /// The service, once all its hosts are known or known to fail; those that fail are left out.
    fn verdict(&self, now_ms: u64) -> Option<Verdict> {
        if self.hosts.values().any(Option::is_none) {
            return None;
        }
        let mut expires_ms = self.expires_ms;
        let mut error = NameError::NotFound;
        let mut services = Vec::new();
        for record in &self.records {
            match self.hosts.get(&record.target) {
                Some(Some(Ok(Answer {
                    records: Records::Addresses(addresses), expires_ms: own_ms, ..
                }))) => {
                    // An old answer has expired already: not to be asked for at once, and again.
                    expires_ms = expires_ms.min((*own_ms).max(now_ms + HALF_LIFE_MS));
                    services.push(Service {
                        priority: record.priority,
                        weight: record.weight,
                        port: record.port,
                        host: record.target.as_str().into(),
                        addresses: addresses.clone(),
                    });
                }
                Some(Some(Err(failure))) if !failure.is_denial() => error = *failure,
                _ => {}
            }
        }
        Some(match services.is_empty() {
            true => Err(Miss { error, known_for: None }),
            false => Ok((Records::Services(services.into()), expires_ms)),
        })
    }
}

/// The addresses, once those of both kinds are there, or one kind has waited for the other long enough. One kind is
/// enough, whatever became of the other.
fn addresses_verdict(
    questions: &[Question],
    half_until_ms: &mut Option<u64>,
    cache: &Cache,
    now_ms: u64,
) -> Option<Verdict> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    let mut expires_ms = u64::MAX;
    let mut failure = None;
    let mut known_for = Some(u32::MAX);
    let mut is_open = false;
    for question in questions {
        match question.outcome() {
            None => is_open = true,
            Some(Outcome::Addresses(found, ttl)) => {
                addresses.extend(found);
                expires_ms = expires_ms.min(cache.expiry(*ttl, now_ms));
            }
            Some(Outcome::Nothing(ttl)) => known_for = known_for.zip(*ttl).map(|(one, other)| one.min(other)),
            Some(Outcome::Failed(error)) => failure = Some(*error),
            // Not the answer to a question for addresses.
            Some(Outcome::Services(..)) => failure = Some(NameError::Format),
        }
    }
    if is_open {
        if !addresses.is_empty() {
            half_until_ms.get_or_insert(now_ms + HALF_WAIT_MS);
        }
        return None;
    }
    if addresses.is_empty() {
        return Some(Err(match failure {
            Some(error) => Miss { error, known_for: None },
            None => Miss { error: NameError::NotFound, known_for },
        }));
    }
    if failure.is_some() {
        expires_ms = expires_ms.min(now_ms + HALF_LIFE_MS);
    }
    Some(Ok((Records::Addresses(addresses.into()), expires_ms)))
}

fn miss_of(outcome: &Outcome) -> Miss {
    match outcome {
        Outcome::Nothing(known_for) => Miss { error: NameError::NotFound, known_for: *known_for },
        Outcome::Failed(error) => Miss { error: *error, known_for: None },
        Outcome::Addresses(..) | Outcome::Services(..) => Miss { error: NameError::Format, known_for: None },
    }
}

fn key(name: &[u8], kind: Kind<'_>) -> Option<Key> {
    let host = DnsName::parse(name).ok()?;
    Some(match kind {
        Kind::Addresses => Key { name: host, is_service: false },
        Kind::Service(service) => Key { name: DnsName::of_service(service, &host).ok()?, is_service: true },
    })
}

/// The address that a name is, if it is one; IPv6 with or without brackets.
pub fn literal(name: &[u8]) -> Option<IpAddr> {
    // No name that is longer than the longest address is looked at twice.
    let text = std::str::from_utf8(name).ok().filter(|text| text.len() <= 47)?;
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}
