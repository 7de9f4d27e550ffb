//! The names of a worker over real sockets, against a DNS server that follows a script. The clock is the test's: it
//! moves to the next deadline when nothing is to be heard any more.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use mio::Events;
use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Packet, PacketFlag, RCODE, ResourceRecord};

use super::*;
use crate::upstream::names::Transport;

/// What a server was asked: from which address, in which way, with which number.
type Asked = (SocketAddr, Transport, u16);
/// Datagrams, or pieces of a stream, to answer with; over TCP the length is put in front of the first.
type Script = dyn Fn(&Packet<'_>, Transport, usize) -> Vec<Vec<u8>> + Send + Sync;

struct DnsServer {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl DnsServer {
    /// The script gets the question, the way that it came, and how many came before it.
    fn start(
        script: impl Fn(&Packet<'_>, Transport, usize) -> Vec<Vec<u8>> + Send + Sync + 'static,
    ) -> DnsServer {
        let (udp, tcp) = (0..100)
            .find_map(|_| {
                let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
                let tcp = TcpListener::bind(udp.local_addr().expect("an address")).ok()?;
                Some((udp, tcp))
            })
            .expect("a port that is free for both");
        let address = udp.local_addr().expect("an address");
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let is_over: Arc<AtomicBool> = Arc::default();
        let script: Arc<Script> = Arc::new(script);
        udp.set_read_timeout(Some(Duration::from_millis(10))).expect("a timeout");
        tcp.set_nonblocking(true).expect("a listener that does not block");
        let by_udp = {
            let (asked, is_over, script) = (asked.clone(), is_over.clone(), script.clone());
            std::thread::spawn(move || {
                let mut buffer = [0; 2048];
                while !is_over.load(Ordering::Relaxed) {
                    let Ok((length, from)) = udp.recv_from(&mut buffer) else { continue };
                    for message in answer(&script, &asked, &buffer[..length], from, Transport::Udp) {
                        udp.send_to(&message, from).expect("a datagram is sent");
                    }
                }
            })
        };
        let by_tcp = {
            let (asked, is_over) = (asked.clone(), is_over.clone());
            std::thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let Ok((mut stream, from)) = tcp.accept() else {
                        std::thread::sleep(Duration::from_millis(5));
                        continue;
                    };
                    stream.set_nonblocking(false).expect("a stream that blocks");
                    let mut length = [0; 2];
                    stream.read_exact(&mut length).expect("a length");
                    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
                    stream.read_exact(&mut message).expect("a message");
                    let pieces = answer(&script, &asked, &message, from, Transport::Tcp);
                    let whole: usize = pieces.iter().map(Vec::len).sum();
                    if whole > 0 {
                        stream.write_all(&(whole as u16).to_be_bytes()).expect("a length is sent");
                    }
                    for piece in pieces {
                        stream.write_all(&piece).expect("a piece is sent");
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }
            })
        };
        DnsServer { address, asked, is_over, threads: vec![by_udp, by_tcp] }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panic").clone()
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a server panicked");
        }
    }
}

fn answer(
    script: &Arc<Script>,
    asked: &Mutex<Vec<Asked>>,
    message: &[u8],
    from: SocketAddr,
    transport: Transport,
) -> Vec<Vec<u8>> {
    let packet = Packet::parse(message).expect("a question");
    let before = {
        let mut asked = asked.lock().expect("no panic");
        asked.push((from, transport, packet.id()));
        asked.len() - 1
    };
    script(&packet, transport, before)
}

fn reply<'a>(query: &Packet<'a>, lasts: std::ops::RangeInclusive<u8>) -> Packet<'a> {
    let mut reply = Packet::new_reply(query.id());
    reply.questions = query.questions.clone();
    let name = &query.questions[0].qname;
    reply.answers = lasts
        .map(|last| {
            let address = A { address: u32::from_be_bytes([192, 0, 2, last]) };
            ResourceRecord::new(name.clone(), CLASS::IN, 60, RData::A(address))
        })
        .collect();
    reply
}

fn bytes(packet: &Packet<'_>) -> Vec<u8> {
    packet.build_bytes_vec_compressed().expect("a message")
}

fn v4(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

fn token_of(number: u64) -> Token {
    assert!(number < 1 << 48);
    Token(number as usize | 1 << 62)
}

const WAKE: Token = Token(usize::MAX);

fn no_system(_: &str) -> std::io::Result<Vec<IpAddr>> {
    panic!("the system is not asked")
}

/// A worker's loop with nothing but names.
struct Loop {
    poll: mio::Poll,
    events: Events,
    names: Names,
    rng: fastrand::Rng,
    now_ms: u64,
    finished: Vec<(Ticket, Result<Answer, NameError>)>,
}

impl Loop {
    fn new(ask: SystemLookup) -> Loop {
        let poll = mio::Poll::new().expect("a poll");
        let waker = Arc::new(mio::Waker::new(poll.registry(), WAKE).expect("a waker"));
        let threads = system::threads(|| Ok(()));
        let wake = Arc::new(move || waker.wake().expect("it wakes"));
        let names = Names::with_system(&threads, ask, wake, token_of);
        let rng = fastrand::Rng::with_seed(3);
        Loop { poll, events: Events::with_capacity(64), names, rng, now_ms: 1000, finished: Vec::new() }
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Names, &mut Io<'_>) -> T) -> T {
        let mut io = Io { registry: self.poll.registry(), rng: &mut self.rng, now_ms: self.now_ms };
        let result = act(&mut self.names, &mut io);
        while let Some(over) = self.names.take_finished() {
            self.finished.push(over);
        }
        result
    }

    fn lookup(&mut self, plan: Option<&Arc<ResolverPlan>>, name: &str) -> NameLookup {
        self.with(|names, io| names.lookup(plan, name.as_bytes(), Kind::Addresses, io))
    }

    fn pending(&mut self, plan: Option<&Arc<ResolverPlan>>, name: &str) -> Ticket {
        match self.lookup(plan, name) {
            NameLookup::Pending(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    /// A round of the loop; whether something happened.
    fn round(&mut self, wait_ms: u64) -> bool {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        self.poll.poll(&mut events, Some(Duration::from_millis(wait_ms))).expect("a poll");
        for event in &events {
            match event.token() {
                WAKE => self.with(|names, io| names.on_wake(io)),
                Token(number) => {
                    let number = number as u64 & !(1 << 62);
                    self.with(|names, io| names.on_event(number, io));
                }
            }
        }
        let happened = !events.is_empty();
        self.events = events;
        happened
    }

    /// Turns until the ticket is over. Where nothing comes in for a while, the clock goes on to the next deadline.
    fn outcome(&mut self, ticket: Ticket, quiet_ms: u64) -> Result<Answer, NameError> {
        for _ in 0..1000 {
            if let Some(position) = self.finished.iter().position(|(other, _)| *other == ticket) {
                return self.finished.swap_remove(position).1;
            }
            if !self.round(quiet_ms) {
                self.now_ms = self.names.next_deadline().expect("a deadline while something is pending");
                self.with(|names, io| names.on_deadline(io));
            }
        }
        panic!("it never ends");
    }

    fn resolve(&mut self, plan: &Arc<ResolverPlan>, name: &str) -> Result<Answer, NameError> {
        let ticket = self.pending(Some(plan), name);
        self.outcome(ticket, 2000)
    }
}

fn plan(servers: &[SocketAddr]) -> Arc<ResolverPlan> {
    Arc::new(ResolverPlan {
        servers: servers.iter().map(|server| ResolverServer::Address(*server)).collect(),
        valid_ms: None,
        ipv4: true,
        ipv6: false,
        timeout_ms: 30_000,
        status_zone: Some("zone".into()),
    })
}

fn addresses(result: Result<Answer, NameError>) -> Vec<IpAddr> {
    result.expect("an answer").addresses().to_vec()
}

#[test]
fn every_query_has_a_number_and_a_port_of_its_own() {
    let server = DnsServer::start(|query, _, _| vec![bytes(&reply(query, 1..=2))]);
    let mut turns = Loop::new(no_system);
    let plan = plan(&[server.address]);
    let tickets: Vec<Ticket> = (0..8).map(|n| turns.pending(Some(&plan), &format!("n{n}.test"))).collect();
    assert_eq!(turns.names.open_sockets(), 8);
    for ticket in tickets {
        assert_eq!(addresses(turns.outcome(ticket, 2000)), [v4(1), v4(2)]);
    }
    let asked = server.asked();
    let mut ports: Vec<u16> = asked.iter().map(|asked| asked.0.port()).collect();
    let mut numbers: Vec<u16> = asked.iter().map(|asked| asked.2).collect();
    for list in [&mut ports, &mut numbers] {
        list.sort_unstable();
        list.dedup();
        assert_eq!(list.len(), 8);
    }
    assert!(matches!(turns.lookup(Some(&plan), "n3.test"), NameLookup::Ready(_)));
    assert_eq!((turns.names.open_sockets(), server.asked().len()), (0, 8));
    let counted = turns.names.counters().map(|(zone, counters)| (zone.to_owned(), counters.queries)).next();
    assert_eq!(counted, Some(("zone".to_owned(), 8)));
}

#[test]
fn a_truncated_reply_comes_over_tcp_in_pieces() {
    let server = DnsServer::start(|query, transport, _| match transport {
        Transport::Udp => {
            let mut reply = reply(query, 1..=1);
            reply.set_flags(PacketFlag::TRUNCATION);
            vec![bytes(&reply)]
        }
        Transport::Tcp => bytes(&reply(query, 1..=250)).chunks(1500).map(<[u8]>::to_vec).collect(),
    });
    let mut turns = Loop::new(no_system);
    let found = addresses(turns.resolve(&plan(&[server.address]), "a.test"));
    assert_eq!(found.len(), 250);
    assert_eq!(server.asked().iter().filter(|asked| asked.1 == Transport::Tcp).count(), 1);
    assert_eq!(turns.names.open_sockets(), 0);
}

#[test]
fn a_connection_that_is_closed_early_is_a_failure_of_that_server() {
    let server = DnsServer::start(|query, transport, _| match transport {
        Transport::Udp => {
            let mut reply = reply(query, 1..=1);
            reply.set_flags(PacketFlag::TRUNCATION);
            vec![bytes(&reply)]
        }
        Transport::Tcp => vec![],
    });
    let mut turns = Loop::new(no_system);
    assert_eq!(turns.resolve(&plan(&[server.address]), "a.test"), Err(NameError::Unreachable));
    assert_eq!(turns.names.open_sockets(), 0);
}

#[test]
fn a_closed_port_is_noticed_and_the_next_server_asked() {
    let gone = UdpSocket::bind("127.0.0.1:0").expect("a socket").local_addr().expect("an address");
    let server = DnsServer::start(|query, _, _| vec![bytes(&reply(query, 3..=3))]);
    let mut turns = Loop::new(no_system);
    assert_eq!(addresses(turns.resolve(&plan(&[gone, server.address]), "a.test")), [v4(3)]);
    // Without waiting for any deadline.
    assert_eq!(turns.now_ms, 1000);
    assert_eq!(turns.resolve(&plan(&[gone]), "a.test"), Err(NameError::Unreachable));
    assert_eq!(turns.now_ms, 1000);
}

#[test]
fn what_is_not_the_reply_is_passed_over() {
    let server = DnsServer::start(|query, _, _| {
        let mut forged = reply(query, 66..=66);
        forged.set_id(query.id() ^ 0x55);
        vec![b"junk".to_vec(), bytes(&forged), vec![0; 3000], bytes(&reply(query, 1..=1))]
    });
    let mut turns = Loop::new(no_system);
    assert_eq!(addresses(turns.resolve(&plan(&[server.address]), "a.test")), [v4(1)]);
    assert_eq!(turns.names.counters().next().map(|(_, counters)| counters.ignored), Some(3));
}

#[test]
fn a_flood_of_datagrams_is_read_over_several_turns() {
    let server = DnsServer::start(|query, _, _| {
        let mut messages = vec![b"junk".to_vec(); 40];
        messages.push(bytes(&reply(query, 1..=1)));
        messages
    });
    let mut turns = Loop::new(no_system);
    let plan = plan(&[server.address]);
    let ticket = turns.pending(Some(&plan), "a.test");
    // All of them are there before the first is read: no further datagram makes an event.
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(addresses(turns.outcome(ticket, 2000)), [v4(1)]);
    assert_eq!(turns.now_ms, 1000);
}

#[test]
fn what_is_not_answered_is_asked_again_from_another_port() {
    let server = DnsServer::start(|query, _, before| match before {
        0 => vec![],
        _ => vec![bytes(&reply(query, 1..=1))],
    });
    let mut turns = Loop::new(no_system);
    let plan = plan(&[server.address]);
    let ticket = turns.pending(Some(&plan), "a.test");
    assert_eq!(addresses(turns.outcome(ticket, 200)), [v4(1)]);
    let asked = server.asked();
    assert!(asked.len() == 2 && asked[0].0 != asked[1].0 && turns.now_ms == 2000, "{asked:?}");
    assert_eq!(turns.names.open_sockets(), 0);
}

#[test]
fn a_ticket_that_was_cancelled_is_not_told_of() {
    let server = DnsServer::start(|query, _, _| vec![bytes(&reply(query, 1..=1))]);
    let mut turns = Loop::new(no_system);
    let plan = plan(&[server.address]);
    let (first, second) = (turns.pending(Some(&plan), "a.test"), turns.pending(Some(&plan), "a.test"));
    turns.names.cancel(first);
    assert_eq!(addresses(turns.outcome(second, 2000)), [v4(1)]);
    assert!(turns.finished.is_empty());
    // Late events of sockets that are gone find nobody.
    for number in [0, 1, 1 << 16, u64::from(u32::MAX)] {
        turns.with(|names, io| names.on_event(number, io));
    }
}

#[test]
fn equal_plans_share_what_they_know_and_unused_ones_are_forgotten() {
    let server = DnsServer::start(|query, _, _| vec![bytes(&reply(query, 1..=1))]);
    let mut turns = Loop::new(no_system);
    let before = plan(&[server.address]);
    addresses(turns.resolve(&before, "a.test"));
    let after = plan(&[server.address]);
    assert!(matches!(turns.lookup(Some(&after), "a.test"), NameLookup::Ready(_)));
    drop(before);
    turns.names.forget_unused();
    assert!(matches!(turns.lookup(Some(&after), "a.test"), NameLookup::Ready(_)));
    drop(after);
    turns.names.forget_unused();
    assert_eq!(turns.names.counters().count(), 0);
}

#[test]
fn a_server_that_refuses_is_told_as_such() {
    let server = DnsServer::start(|query, _, _| {
        let mut reply = reply(query, 1..=1);
        *reply.rcode_mut() = RCODE::Refused;
        reply.answers.clear();
        vec![bytes(&reply)]
    });
    let mut turns = Loop::new(no_system);
    let error = turns.resolve(&plan(&[server.address]), "a.test").expect_err("refused");
    assert_eq!(error.to_string(), "5: Operation refused");
}

#[test]
fn without_a_resolver_the_system_is_asked_off_the_loop_and_once() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    fn ask(name: &str) -> std::io::Result<Vec<IpAddr>> {
        CALLS.fetch_add(1, Ordering::SeqCst);
        // Long enough for the other lookups to come before the answer.
        std::thread::sleep(Duration::from_millis(50));
        match name {
            "a.test" => Ok(vec![v4(1), v4(2), v4(1)]),
            "broken.test" => panic!("a bug"),
            _ => {
                Err(std::io::Error::other("failed to lookup address information: Name or service not known"))
            }
        }
    }
    let mut turns = Loop::new(ask);
    let tickets: Vec<Ticket> = (0..5).map(|_| turns.pending(None, "A.test.")).collect();
    turns.names.cancel(tickets[0]);
    for ticket in &tickets[1..] {
        assert_eq!(addresses(turns.outcome(*ticket, 2000)), [v4(1), v4(2)]);
    }
    assert!(turns.finished.is_empty());
    assert!(matches!(turns.lookup(None, "a.test"), NameLookup::Ready(answer) if answer.expires_ms == 11_000));
    assert_eq!(CALLS.load(Ordering::SeqCst), 1);
    let ticket = turns.pending(None, "gone.test");
    assert_eq!(turns.outcome(ticket, 2000), Err(NameError::NotFound));
    assert_eq!(turns.lookup(None, "gone.test"), NameLookup::Failed(NameError::NotFound));
    let ticket = turns.pending(None, "broken.test");
    assert_eq!(turns.outcome(ticket, 2000), Err(NameError::System));
    for (name, ip) in [("192.0.2.9", v4(9)), ("[::1]", "::1".parse().expect("an address"))] {
        assert!(matches!(turns.lookup(None, name), NameLookup::Ready(answer) if answer.addresses() == [ip]));
    }
    assert_eq!(turns.lookup(None, "127.1"), NameLookup::Failed(NameError::NotFound));
    assert_eq!(CALLS.load(Ordering::SeqCst), 3);
    let service = turns.with(|names, io| names.lookup(None, b"a.test", Kind::Service("http"), io));
    assert_eq!(service, NameLookup::Failed(NameError::NotImplemented));
}

#[test]
fn an_old_answer_of_the_system_serves_while_it_fails() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    fn ask(_: &str) -> std::io::Result<Vec<IpAddr>> {
        match CALLS.fetch_add(1, Ordering::SeqCst) {
            0 => Ok(vec![v4(1)]),
            _ => Err(std::io::Error::other("Temporary failure in name resolution")),
        }
    }
    let mut turns = Loop::new(ask);
    let ticket = turns.pending(None, "a.test");
    assert_eq!(addresses(turns.outcome(ticket, 2000)), [v4(1)]);
    turns.now_ms += 10_000;
    let ticket = turns.pending(None, "a.test");
    let answer = turns.outcome(ticket, 2000).expect("the old answer");
    assert!(answer.stale && answer.addresses() == [v4(1)]);
    assert!(matches!(turns.lookup(None, "a.test"), NameLookup::Ready(answer) if answer.stale));
    assert_eq!(CALLS.load(Ordering::SeqCst), 2);
}

#[test]
fn nobody_waits_for_ever_for_the_system() {
    static GATE: Mutex<()> = Mutex::new(());
    fn ask(_: &str) -> std::io::Result<Vec<IpAddr>> {
        drop(GATE.lock());
        Ok(vec![v4(1)])
    }
    let mut turns = Loop::new(ask);
    let gate = GATE.lock().expect("the gate");
    let ticket = turns.pending(None, "a.test");
    assert_eq!(turns.outcome(ticket, 50), Err(NameError::TimedOut));
    assert_eq!(turns.now_ms, 31_000);
    assert_eq!(turns.lookup(None, "a.test"), NameLookup::Failed(NameError::TimedOut));
    drop(gate);
    // What comes too late is still remembered.
    assert!(turns.round(5000));
    assert!(matches!(turns.lookup(None, "a.test"), NameLookup::Ready(_)));
}

#[test]
fn the_hosts_file_is_honoured() {
    let mut turns = Loop::new(system::ask_system);
    let ticket = turns.pending(None, "localhost");
    let found = addresses(turns.outcome(ticket, 5000));
    assert!(!found.is_empty() && found.iter().all(IpAddr::is_loopback), "{found:?}");
}

#[test]
fn a_dns_server_may_be_given_by_name() {
    fn ask(name: &str) -> std::io::Result<Vec<IpAddr>> {
        assert_eq!(name, "ns.test");
        Ok(vec![IpAddr::from([127, 0, 0, 1])])
    }
    let server = DnsServer::start(|query, _, _| vec![bytes(&reply(query, 5..=5))]);
    let mut turns = Loop::new(ask);
    let by_name = ResolverServer::Name { host: "ns.test".into(), port: server.address.port() };
    let plan = Arc::new(ResolverPlan { servers: vec![by_name], ..ResolverPlan::clone(&plan(&[])) });
    assert_eq!(addresses(turns.resolve(&plan, "a.test")), [v4(5)]);
    assert_eq!(addresses(turns.resolve(&plan, "b.test")), [v4(5)]);
}
