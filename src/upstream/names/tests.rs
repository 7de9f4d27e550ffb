//! The machine against servers that are simulated in virtual time.

mod servers;
mod services;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use simple_dns::rdata::{A, AAAA, CNAME, RData, SOA, SRV};
use simple_dns::{CLASS, Name, Packet, PacketFlag, RCODE, ResourceRecord, TYPE};

use super::fuzz::fuzz_resolver;
use super::*;
use crate::proto::dns::DnsName;

/// A question as a server sees it.
#[derive(Clone)]
struct Asked {
    packet: Packet<'static>,
    name: String,
    kind: TYPE,
    transport: Transport,
}

impl Asked {
    fn reply(&self) -> Packet<'static> {
        let mut reply = Packet::new_reply(self.packet.id());
        reply.questions = self.packet.questions.clone();
        reply
    }

    fn with(&self, records: Vec<ResourceRecord<'static>>) -> Does {
        let mut reply = self.reply();
        reply.answers = records;
        says(&reply)
    }

    fn refuse(&self, code: RCODE) -> Does {
        let mut reply = self.reply();
        *reply.rcode_mut() = code;
        says(&reply)
    }

    /// The addresses 192.0.2.LAST and `2001:db8::LAST`.
    fn host(&self, ttl: u32, last: u8) -> Does {
        self.with(match self.kind {
            TYPE::A => vec![a(&self.name, ttl, last)],
            TYPE::AAAA => {
                let address = 0x2001_0db8 << 96 | u128::from(last);
                vec![record(&self.name, ttl, RData::AAAA(AAAA { address }))]
            }
            _ => vec![],
        })
    }
}

/// What a server does about a question.
enum Does {
    /// Sends this, after so many milliseconds.
    Says(u64, Vec<u8>),
    /// Nothing.
    Nothing,
    /// The socket breaks.
    Breaks,
}

fn says(packet: &Packet<'_>) -> Does {
    Does::Says(5, packet.build_bytes_vec_compressed().expect("a message"))
}

fn record(owner: &str, ttl: u32, rdata: RData<'static>) -> ResourceRecord<'static> {
    ResourceRecord::new(Name::new(owner).expect("a name").into_owned(), CLASS::IN, ttl, rdata)
}

fn a(owner: &str, ttl: u32, last: u8) -> ResourceRecord<'static> {
    record(owner, ttl, RData::A(A { address: u32::from_be_bytes([192, 0, 2, last]) }))
}

fn alias(owner: &str, target: &str) -> ResourceRecord<'static> {
    record(owner, 60, RData::CNAME(CNAME(Name::new(target).expect("a name").into_owned())))
}

/// For which query, from where, how, and what: a message, or the end of the socket.
type Ahead = (QueryId, SocketAddr, Transport, Option<Vec<u8>>);
/// What a server does about one kind of address, what that costs, and for how long the other kind is kept.
type HalfCase = (fn(&Asked) -> Does, u64, u64);
type Script = Box<dyn FnMut(&Asked) -> Does>;

/// The resolver and the network around it.
struct World {
    resolver: Resolver,
    rng: fastrand::Rng,
    now_ms: u64,
    servers: HashMap<SocketAddr, Script>,
    /// What happens when.
    ahead: BTreeMap<(u64, u64), Ahead>,
    events: u64,
    open: Vec<QueryId>,
    /// Who was asked what, and when.
    asked: Vec<(u64, usize, String, TYPE, Transport)>,
    results: HashMap<LookupId, (u64, Result<Answer, NameError>)>,
}

fn address(number: usize) -> SocketAddr {
    ([192, 0, 2, 200 + number as u8], 53).into()
}

fn plan(servers: usize) -> ResolverPlan {
    ResolverPlan {
        servers: (0..servers).map(|number| ResolverServer::Address(address(number))).collect(),
        valid_ms: None,
        ipv4: true,
        ipv6: false,
        timeout_ms: 30_000,
        status_zone: None,
    }
}

impl World {
    fn new(plan: ResolverPlan, scripts: Vec<Script>) -> World {
        World {
            resolver: Resolver::new(plan),
            rng: fastrand::Rng::with_seed(7),
            now_ms: 10_000,
            servers: scripts
                .into_iter()
                .enumerate()
                .map(|(number, script)| (address(number), script))
                .collect(),
            ahead: BTreeMap::new(),
            events: 0,
            open: Vec::new(),
            asked: Vec::new(),
            results: HashMap::new(),
        }
    }

    fn one(script: impl FnMut(&Asked) -> Does + 'static) -> World {
        World::new(plan(1), vec![Box::new(script)])
    }

    fn push(
        &mut self,
        at_ms: u64,
        query: QueryId,
        from: SocketAddr,
        transport: Transport,
        what: Option<Vec<u8>>,
    ) {
        self.events += 1;
        self.ahead.insert((at_ms, self.events), (query, from, transport, what));
    }

    /// Looks after the machine, as a shell does.
    fn attend(&mut self) {
        while let Some(Transmit { query, server, transport, bytes }) = self.resolver.transmit(&mut self.rng) {
            self.open.push(query);
            let message = match transport {
                Transport::Udp => &bytes[..],
                Transport::Tcp => {
                    assert_eq!(usize::from(u16::from_be_bytes([bytes[0], bytes[1]])), bytes.len() - 2);
                    &bytes[2..]
                }
            };
            let packet = Packet::parse(message).expect("a question");
            let question = packet.questions[0].clone().into_owned();
            let mut owned = Packet::new_query(packet.id());
            let simple_dns::QTYPE::TYPE(kind) = question.qtype else { panic!("an odd question") };
            let name = question.qname.to_string();
            owned.questions.push(question);
            let asked = Asked { packet: owned, name, kind, transport };
            let number = (0..9).find(|number| address(*number) == server).expect("a known server");
            self.asked.push((self.now_ms, number, asked.name.clone(), kind, transport));
            match self.servers.get_mut(&server).expect("a script")(&asked) {
                Does::Says(after_ms, bytes) => {
                    self.push(self.now_ms + after_ms, query, server, transport, Some(bytes));
                }
                Does::Breaks => self.push(self.now_ms, query, server, transport, None),
                Does::Nothing => {}
            }
        }
        while let Some(closed) = self.resolver.take_closed() {
            let position = self.open.iter().position(|query| *query == closed).expect("closed once");
            self.open.remove(position);
        }
        while let Some((id, result)) = self.resolver.take_finished() {
            assert!(self.results.insert(id, (self.now_ms, result)).is_none(), "finished twice");
        }
    }

    /// One step in time; `false` when nothing is ahead.
    fn step(&mut self, until_ms: u64) -> bool {
        self.attend();
        let event = self.ahead.first_key_value().map(|((at_ms, _), _)| *at_ms);
        let deadline = self.resolver.next_deadline();
        let Some(next_ms) = event.into_iter().chain(deadline).min().filter(|next_ms| *next_ms <= until_ms)
        else {
            self.now_ms = self.now_ms.max(until_ms);
            return false;
        };
        self.now_ms = self.now_ms.max(next_ms);
        if deadline.is_some_and(|deadline| deadline <= self.now_ms) {
            self.resolver.on_deadline(self.now_ms);
        } else if let Some((_, (query, from, transport, what))) = self.ahead.pop_first()
            && self.open.contains(&query)
        {
            match what {
                Some(bytes) => self.resolver.received(query, from, transport, &bytes, self.now_ms),
                None => self.resolver.failed(query, self.now_ms),
            }
        }
        true
    }

    fn run_until(&mut self, until_ms: u64) {
        while self.step(until_ms) {}
        self.attend();
    }

    fn lookup(&mut self, name: &str) -> Lookup {
        let lookup = self.resolver.lookup(name.as_bytes(), Kind::Addresses, self.now_ms);
        self.attend();
        lookup
    }

    fn pending(&mut self, name: &str, kind: Kind<'_>) -> LookupId {
        match self.resolver.lookup(name.as_bytes(), kind, self.now_ms) {
            Lookup::Pending(id) => id,
            other => panic!("{other:?}"),
        }
    }

    /// What a pending lookup comes to, and after how many milliseconds.
    fn outcome(&mut self, id: LookupId) -> (u64, Result<Answer, NameError>) {
        let start_ms = self.now_ms;
        while !self.results.contains_key(&id) {
            assert!(self.step(start_ms + 100_000), "nothing ahead and no result");
            self.attend();
        }
        let (at_ms, result) = self.results.remove(&id).expect("it is there");
        (at_ms - start_ms, result)
    }

    fn resolve(&mut self, name: &str) -> (u64, Result<Answer, NameError>) {
        let id = self.pending(name, Kind::Addresses);
        self.outcome(id)
    }
}

fn v4(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

fn addresses(result: &Result<Answer, NameError>) -> Vec<IpAddr> {
    result.as_ref().expect("an answer").addresses().to_vec()
}

fn ready(lookup: Lookup) -> Answer {
    match lookup {
        Lookup::Ready(answer) => answer,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_address_is_its_own_answer() {
    let mut world = World::one(|_| Does::Nothing);
    for (text, ip) in
        [("192.0.2.7", v4(7)), ("::1", "::1".parse().unwrap()), ("[::1]", "::1".parse().unwrap())]
    {
        assert_eq!(ready(world.lookup(text)).addresses(), [ip]);
    }
    for text in ["", "127.1", "a b", "[192.0.2.7]", &"a.".repeat(200)] {
        assert_eq!(world.lookup(text), Lookup::Failed(NameError::NotFound), "{text}");
    }
    assert!(world.asked.is_empty());
}

#[test]
fn an_answer_is_kept_as_long_as_its_records_live() {
    let mut last = 0;
    let mut world = World::one(move |asked| {
        last += 1;
        asked.host(10, last)
    });
    let (after_ms, result) = world.resolve("A.Test.");
    assert_eq!((after_ms, addresses(&result)), (5, vec![v4(1)]));
    let expires_ms = result.unwrap().expires_ms;
    assert_eq!(expires_ms, 20_005);
    world.run_until(20_004);
    assert_eq!(ready(world.lookup("a.test")).addresses(), [v4(1)]);
    world.run_until(20_005);
    let (_, result) = world.resolve("a.test");
    assert_eq!(addresses(&result), [v4(2)]);
    assert_eq!((world.asked.len(), world.resolver.counters().cached), (2, 1));
    assert!(world.open.is_empty() && world.resolver.open_queries() == 0);
}

#[test]
fn valid_overrides_the_records() {
    let plan = ResolverPlan { valid_ms: Some(2000), ..plan(1) };
    let mut world = World::new(plan, vec![Box::new(|asked: &Asked| asked.host(3600, 1))]);
    let (_, result) = world.resolve("a.test");
    assert_eq!(result.unwrap().expires_ms, 12_005);
}

#[test]
fn who_asks_for_the_same_name_waits_for_the_same_answer() {
    let mut world = World::one(|asked| asked.host(10, 1));
    let ids: Vec<LookupId> = (0..5).map(|_| world.pending("a.test", Kind::Addresses)).collect();
    world.resolver.cancel(ids[2]);
    world.run_until(11_000);
    assert_eq!(world.asked.len(), 1);
    assert_eq!(ids.iter().filter(|id| world.results.contains_key(id)).count(), 4);
    assert!(!world.results.contains_key(&ids[2]));
}

#[test]
fn a_name_that_does_not_exist_is_remembered_within_bounds() {
    for (minimum, kept_ms) in [(0, 1000), (20, 20_000), (86_400, 30_000)] {
        let mut world = World::one(move |asked| {
            let mut reply = asked.reply();
            *reply.rcode_mut() = RCODE::NameError;
            let ns = || Name::new_unchecked("ns.test");
            let soa = SOA { mname: ns(), rname: ns(), serial: 1, refresh: 1, retry: 1, expire: 1, minimum };
            reply.name_servers.push(record("test", 86_400, RData::SOA(soa)));
            says(&reply)
        });
        assert_eq!(world.resolve("a.test"), (5, Err(NameError::NotFound)));
        world.run_until(10_005 + kept_ms - 1);
        assert_eq!(world.lookup("a.test"), Lookup::Failed(NameError::NotFound));
        world.run_until(10_005 + kept_ms);
        assert!(matches!(world.lookup("a.test"), Lookup::Pending(_)));
    }
}

#[test]
fn aliases_that_the_server_does_not_follow_are_followed() {
    let mut world = World::one(|asked| match asked.name.as_str() {
        "a.test" => asked.with(vec![alias("a.test", "b.test"), alias("b.test", "c.test")]),
        "c.test" => asked.host(100, 3),
        _ => asked.refuse(RCODE::NameError),
    });
    let (after_ms, result) = world.resolve("a.test");
    assert_eq!((after_ms, addresses(&result)), (10, vec![v4(3)]));
    assert_eq!(result.unwrap().expires_ms, 10_010 + 60_000);
    let mut world = World::one(|asked| {
        let other = if asked.name == "a.test" { "b.test" } else { "a.test" };
        asked.with(vec![alias(&asked.name, other)])
    });
    assert_eq!(world.resolve("a.test").1, Err(NameError::BadAlias));
    assert_eq!(world.asked.len(), 17);
}

#[test]
fn both_kinds_of_addresses_are_asked_for_at_once_and_one_is_enough() {
    let both = || ResolverPlan { ipv6: true, ..plan(1) };
    let v6: IpAddr = "2001:db8::4".parse().unwrap();
    let mut world = World::new(both(), vec![Box::new(|asked: &Asked| asked.host(10, 4))]);
    let (after_ms, result) = world.resolve("a.test");
    assert_eq!((after_ms, addresses(&result)), (5, vec![v4(4), v6]));
    // Refused, missing, or never answered: the others serve, after a moment at most.
    let cases: [HalfCase; 3] = [
        (|asked| asked.refuse(RCODE::ServerFailure), 5, 30_000),
        (|asked| asked.refuse(RCODE::NameError), 5, 100_000),
        (|_| Does::Nothing, 305, 30_000),
    ];
    for (other, after_ms, lives_ms) in cases {
        let script: Script = Box::new(move |asked| match asked.kind {
            TYPE::AAAA => asked.host(100, 4),
            _ => other(asked),
        });
        let mut world = World::new(both(), vec![script]);
        let (took_ms, result) = world.resolve("a.test");
        assert_eq!((took_ms, addresses(&result)), (after_ms, vec![v6]));
        assert_eq!(result.unwrap().expires_ms, world.now_ms + lives_ms);
    }
    // Of a denial and a failure, the failure is told: it may pass.
    let script: Script = Box::new(|asked| match asked.kind {
        TYPE::A => asked.refuse(RCODE::NameError),
        _ => asked.refuse(RCODE::ServerFailure),
    });
    let mut world = World::new(both(), vec![script]);
    assert_eq!(world.resolve("a.test").1, Err(NameError::ServerFailure));
}

#[test]
fn an_old_answer_serves_while_no_newer_one_is_to_be_had() {
    let mut count = 0;
    let mut world = World::one(move |asked| {
        count += 1;
        match count {
            1 => asked.host(10, 1),
            2..12 => Does::Nothing,
            12 => asked.refuse(RCODE::ServerFailure),
            _ => asked.host(10, 2),
        }
    });
    let _ = world.resolve("a.test");
    world.run_until(30_000);
    let (after_ms, result) = world.resolve("a.test");
    assert_eq!((after_ms, addresses(&result)), (1800, vec![v4(1)]));
    assert!(result.unwrap().stale);
    // While the asking goes on, nobody waits for it.
    assert!(ready(world.lookup("a.test")).stale);
    world.run_until(60_000);
    assert_eq!(world.asked.len(), 9);
    // It was given up just now: not asked again at once.
    assert!(ready(world.lookup("a.test")).stale);
    world.run_until(61_000);
    assert_eq!(world.resolve("a.test").0, 1800);
    world.run_until(100_000);
    let (_, result) = world.resolve("a.test");
    assert_eq!(addresses(&result), [v4(2)]);
    assert!(!result.unwrap().stale);
}

#[test]
fn a_denial_ends_what_was_known() {
    let mut count = 0;
    let mut world = World::one(move |asked| {
        count += 1;
        if count == 1 { asked.host(10, 1) } else { asked.refuse(RCODE::NameError) }
    });
    let _ = world.resolve("a.test");
    world.run_until(30_000);
    assert_eq!(world.resolve("a.test").1, Err(NameError::NotFound));
}

#[test]
fn names_and_lookups_are_bounded() {
    let mut world = World::one(|_| Does::Nothing);
    for number in 0..MAX_FLIGHTS {
        world.pending(&format!("n{number}.test"), Kind::Addresses);
    }
    assert_eq!(world.lookup("one-more.test"), Lookup::Failed(NameError::Busy));
    for _ in MAX_FLIGHTS..MAX_LOOKUPS {
        world.pending("n1.test", Kind::Addresses);
    }
    assert_eq!(world.lookup("n1.test"), Lookup::Failed(NameError::Busy));
    world.run_until(20_000);
    assert!(world.open.len() <= 2 * MAX_FLIGHTS);
    world.run_until(50_000);
    assert_eq!((world.results.len(), world.open.len()), (MAX_LOOKUPS, 0));
}

#[test]
fn numbers_and_servers_vary_with_the_seed_alone() {
    let ids = |seed| -> Vec<u16> {
        let mut resolver = Resolver::new(plan(2));
        let mut rng = fastrand::Rng::with_seed(seed);
        for number in 0..50 {
            resolver.lookup(format!("n{number}.test").as_bytes(), Kind::Addresses, 0);
        }
        let sent = std::iter::from_fn(|| resolver.transmit(&mut rng));
        sent.map(|transmit| u16::from_be_bytes([transmit.bytes[0], transmit.bytes[1]])).collect()
    };
    assert_eq!(ids(1), ids(1));
    assert_ne!(ids(1), ids(2));
    let mut sorted = ids(1);
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), 50);
}

proptest! {
    /// Law: whatever the servers do, every lookup ends once, within its timeout, and nothing stays open.
    #[test]
    fn every_lookup_ends_in_time(seed: u64, servers in 1usize..4, ipv6: bool, names in 1u32..6) {
        let scripts = (0..servers).map(|number| -> Script {
            let mut rng = fastrand::Rng::with_seed(seed ^ number as u64);
            Box::new(move |asked| match rng.u8(0..10) {
                0 => Does::Nothing,
                1 => Does::Breaks,
                2 => asked.refuse(RCODE::ServerFailure),
                3 => asked.refuse(RCODE::NameError),
                4 => asked.with(vec![alias(&asked.name, &format!("n{}.test", rng.u32(0..6)))]),
                5 => {
                    let mut reply = asked.reply();
                    reply.set_flags(PacketFlag::TRUNCATION);
                    says(&reply)
                }
                6 => Does::Says(rng.u64(0..40_000), vec![rng.u8(..); 40]),
                _ => match asked.host(rng.u32(0..20), rng.u8(..)) {
                    Does::Says(_, bytes) => Does::Says(rng.u64(0..4000), bytes),
                    other => other,
                },
            })
        }).collect();
        let mut world = World::new(ResolverPlan { ipv6, ..plan(servers) }, scripts);
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut pending = Vec::new();
        for _ in 0..60 {
            let name = format!("n{}.test", rng.u32(0..names));
            let now_ms = world.now_ms;
            if let Lookup::Pending(id) = world.lookup(&name) {
                pending.push((id, now_ms));
            }
            world.run_until(now_ms + rng.u64(0..3000));
        }
        let now_ms = world.now_ms;
        world.run_until(now_ms + 31_000);
        for (id, start_ms) in pending {
            let (at_ms, _) = world.results[&id];
            prop_assert!(at_ms <= start_ms + 30_000);
        }
        prop_assert!(world.open.is_empty() && world.resolver.open_queries() == 0);
        prop_assert_eq!(world.resolver.next_deadline(), None);
    }

    #[test]
    fn any_replies_end_a_lookup(replies in proptest::collection::vec(any::<u8>(), 0..400), is_service: bool) {
        fuzz_resolver(&DnsName::parse(b"a.test").expect("a name"), is_service, &replies);
    }
}
