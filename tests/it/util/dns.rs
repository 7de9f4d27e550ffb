//! A scripted DNS server: the test says what it answers for each name, and may change that at any time.
//!
//! The messages are written by hand, so that they can also be wrong, and so that nothing of the program under test
//! takes part in making them.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{PATIENCE, eventually};

/// Types of records (RFC 1035 section 3.2.2, RFC 3596, RFC 2782).
pub const A: u16 = 1;
pub const CNAME: u16 = 5;
const SOA: u16 = 6;
pub const AAAA: u16 = 28;
pub const SRV: u16 = 33;

/// Response codes.
const NAME_ERROR: u8 = 3;

/// What a record says.
#[derive(Clone, Debug)]
pub enum Data {
    V4(Ipv4Addr),
    V6(Ipv6Addr),
    Alias(String),
    Service { priority: u16, weight: u16, port: u16, target: String },
}

/// A record: whose it is (`None`: of the name that is asked for), how many seconds it lives, what it says.
#[derive(Clone, Debug)]
pub struct Record {
    pub owner: Option<String>,
    pub ttl: u32,
    pub data: Data,
}

impl Record {
    /// An IPv4 address.
    pub fn v4(ttl: u32, address: &str) -> Record {
        Record { owner: None, ttl, data: Data::V4(address.parse().expect("an address")) }
    }

    /// An IPv6 address.
    pub fn v6(ttl: u32, address: &str) -> Record {
        Record { owner: None, ttl, data: Data::V6(address.parse().expect("an address")) }
    }

    /// The name is another one's.
    pub fn alias(ttl: u32, target: &str) -> Record {
        Record { owner: None, ttl, data: Data::Alias(target.to_owned()) }
    }

    /// One host of a service.
    pub fn service(ttl: u32, priority: u16, weight: u16, port: u16, target: &str) -> Record {
        Record { owner: None, ttl, data: Data::Service { priority, weight, port, target: target.to_owned() } }
    }

    /// The same of another name than the one that is asked for.
    pub fn of(self, owner: &str) -> Record {
        Record { owner: Some(owner.to_owned()), ..self }
    }

    fn kind(&self) -> u16 {
        match self.data {
            Data::V4(_) => A,
            Data::V6(_) => AAAA,
            Data::Alias(_) => CNAME,
            Data::Service { .. } => SRV,
        }
    }
}

/// What the server does when it is asked for a name.
#[derive(Clone, Debug)]
pub enum Says {
    /// Those of these records that are of the kind asked for, and every alias.
    Records(Vec<Record>),
    /// There is no such name, which may be remembered for so many seconds (RFC 2308 section 5).
    Denial(u32),
    /// This response code and nothing else.
    Code(u8),
    /// Nothing.
    Silence,
    /// Over UDP an empty reply that says that it did not fit; over TCP these records.
    Truncated(Vec<Record>),
    /// Over UDP replies that are none with the first records, each of them wrong in another way; then the second.
    Forged(Vec<Record>, Vec<Record>),
}

/// A question that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub name: String,
    pub kind: u16,
    pub over_tcp: bool,
    pub number: u16,
    /// The port that it came from.
    pub port: u16,
}

#[derive(Default)]
struct Script {
    names: HashMap<String, Says>,
    asked: Vec<Asked>,
}

/// The server. It closes its sockets when it is dropped.
pub struct Dns {
    port: u16,
    script: Arc<Mutex<Script>>,
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Dns {
    /// Answers on a free port of 127.0.0.1, over UDP and TCP. No name exists at first.
    pub fn start() -> Dns {
        // A port that is free for TCP may be taken for UDP.
        for _ in 0..100 {
            if let Some(dns) = Dns::try_start(0) {
                return dns;
            }
        }
        panic!("no port is free for UDP and TCP");
    }

    /// The same on a port that was another one's before, once it is free.
    pub fn start_on(port: u16) -> Dns {
        let mut dns = None;
        eventually("a free port", || {
            dns = Dns::try_start(port);
            dns.is_some()
        });
        dns.expect("started")
    }

    fn try_start(port: u16) -> Option<Dns> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
        let port = listener.local_addr().expect("address").port();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
        // Each wait is short, so that a stop is seen.
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("set timeouts");
        listener.set_nonblocking(true).expect("set non-blocking");
        let script = Arc::<Mutex<Script>>::default();
        let stopping = Arc::<AtomicBool>::default();
        let threads = vec![
            std::thread::spawn({
                let (script, stopping) = (script.clone(), stopping.clone());
                move || answer_datagrams(&socket, &script, &stopping)
            }),
            std::thread::spawn({
                let (script, stopping) = (script.clone(), stopping.clone());
                move || answer_connections(&listener, &script, &stopping)
            }),
        ];
        Some(Dns { port, script, stopping, threads })
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Says this for the name from now on.
    pub fn set(&self, name: &str, says: Says) -> &Dns {
        self.script.lock().unwrap().names.insert(name.to_owned(), says);
        self
    }

    /// Has these addresses for the name from now on, which live for so many seconds.
    pub fn set_addresses(&self, name: &str, ttl: u32, addresses: &[&str]) -> &Dns {
        self.set(name, Says::Records(addresses.iter().map(|address| Record::v4(ttl, address)).collect()))
    }

    /// The questions for a name so far.
    pub fn asked(&self, name: &str) -> Vec<Asked> {
        let script = self.script.lock().unwrap();
        script.asked.iter().filter(|asked| asked.name == name).cloned().collect()
    }

    /// How often a name was asked for, by one kind of record.
    pub fn count(&self, name: &str, kind: u16) -> usize {
        self.asked(name).iter().filter(|asked| asked.kind == kind).count()
    }

    /// Waits until a name has been asked for by this kind so often from now on.
    #[track_caller]
    pub fn wait_for_questions(&self, name: &str, kind: u16, times: usize) {
        let before = self.count(name, kind);
        eventually("questions", || self.count(name, kind) >= before + times);
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn answer_datagrams(socket: &UdpSocket, script: &Mutex<Script>, stopping: &AtomicBool) {
    let mut buffer = [0; 4096];
    while !stopping.load(Ordering::SeqCst) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        let Some(question) = Question::read(&buffer[..length]) else { continue };
        let send = |message: &[u8]| drop(socket.send_to(message, from));
        match said(script, &question, from, false) {
            Says::Silence => {}
            Says::Truncated(_) => {
                let mut message = question.reply(0, &[], None);
                message[2] |= 0x02;
                send(&message);
            }
            Says::Forged(wrong, right) => {
                // Another number; another name; from another port; a question instead of a reply.
                let mut message = question.reply(0, &wrong, None);
                message[1] ^= 1;
                send(&message);
                let other = Question { name: format!("x{}", question.name), ..question.clone() };
                send(&other.reply(0, &wrong, None));
                let elsewhere = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
                let _ = elsewhere.send_to(&question.reply(0, &wrong, None), from);
                let mut message = question.reply(0, &wrong, None);
                message[2] &= 0x7f;
                send(&message);
                send(&question.reply(0, &right, None));
            }
            says => send(&question.plain(&says)),
        }
    }
}

fn answer_connections(listener: &TcpListener, script: &Arc<Mutex<Script>>, stopping: &AtomicBool) {
    while !stopping.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((stream, from)) => {
                let script = script.clone();
                std::thread::spawn(move || answer_connection(stream, from, &script));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("accept: {error}"),
        }
    }
}

fn answer_connection(mut stream: TcpStream, from: SocketAddr, script: &Mutex<Script>) {
    stream.set_nonblocking(false).expect("set blocking");
    stream.set_read_timeout(Some(PATIENCE)).expect("set timeouts");
    let mut length = [0; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
        if stream.read_exact(&mut message).is_err() {
            return;
        }
        let Some(question) = Question::read(&message) else { return };
        let reply = match said(script, &question, from, true) {
            Says::Silence => continue,
            Says::Truncated(records) | Says::Forged(_, records) => question.reply(0, &records, None),
            says => question.plain(&says),
        };
        let framed = [&(reply.len() as u16).to_be_bytes()[..], &reply].concat();
        // In two parts: a reply over TCP comes as it likes.
        let (first, rest) = framed.split_at(framed.len() / 2);
        if stream.write_all(first).and_then(|()| stream.write_all(rest)).is_err() {
            return;
        }
    }
}

/// Notes the question and looks up what is said to it.
fn said(script: &Mutex<Script>, question: &Question, from: SocketAddr, over_tcp: bool) -> Says {
    let mut script = script.lock().unwrap();
    let (name, kind, number) = (question.name.clone(), question.kind, question.number);
    script.asked.push(Asked { name, kind, over_tcp, number, port: from.port() });
    script.names.get(&question.name).cloned().unwrap_or(Says::Denial(1))
}

#[derive(Clone)]
struct Question {
    number: u16,
    /// In lower case.
    name: String,
    kind: u16,
}

impl Question {
    fn read(message: &[u8]) -> Option<Question> {
        let number = u16::from_be_bytes([*message.first()?, *message.get(1)?]);
        let mut at = 12;
        let mut labels = Vec::new();
        loop {
            let length = usize::from(*message.get(at)?);
            if length == 0 {
                break;
            }
            labels.push(String::from_utf8_lossy(message.get(at + 1..at + 1 + length)?).to_lowercase());
            at += 1 + length;
        }
        let kind = u16::from_be_bytes([*message.get(at + 1)?, *message.get(at + 2)?]);
        Some(Question { number, name: labels.join("."), kind })
    }

    fn plain(&self, says: &Says) -> Vec<u8> {
        match says {
            Says::Records(records) => self.reply(0, records, None),
            Says::Denial(ttl) => self.reply(NAME_ERROR, &[], Some(*ttl)),
            Says::Code(code) => self.reply(*code, &[], None),
            _ => unreachable!("not plain"),
        }
    }

    /// A reply with those of the records that were asked for; with `denial`, the zone's record says how long it is to
    /// be remembered that there is nothing.
    fn reply(&self, code: u8, records: &[Record], denial: Option<u32>) -> Vec<u8> {
        let asked = |record: &&Record| record.kind() == self.kind || record.kind() == CNAME;
        let answers: Vec<&Record> = records.iter().filter(asked).collect();
        let mut message = self.number.to_be_bytes().to_vec();
        // A reply, recursion desired and available.
        message.extend([0x81, 0x80 | code]);
        let count = answers.len() as u16;
        for count in [1, count, u16::from(denial.is_some()), 0] {
            message.extend(count.to_be_bytes());
        }
        message.extend(name(&self.name));
        message.extend([self.kind, 1].map(u16::to_be_bytes).concat());
        for record in answers {
            message.extend(name(record.owner.as_deref().unwrap_or(&self.name)));
            let data = match &record.data {
                Data::V4(address) => address.octets().to_vec(),
                Data::V6(address) => address.octets().to_vec(),
                Data::Alias(target) => name(target),
                Data::Service { priority, weight, port, target } => {
                    [[priority, weight, port].map(|number| number.to_be_bytes()).concat(), name(target)]
                        .concat()
                }
            };
            push_record(&mut message, record.kind(), record.ttl, &data);
        }
        if let Some(ttl) = denial {
            message.extend(name("test"));
            let numbers: Vec<u8> = [1, 60, 60, 60, ttl].into_iter().flat_map(u32::to_be_bytes).collect();
            push_record(&mut message, SOA, ttl, &[name("ns.test"), name("admin.test"), numbers].concat());
        }
        message
    }
}

fn push_record(message: &mut Vec<u8>, kind: u16, ttl: u32, data: &[u8]) {
    message.extend([kind, 1].map(u16::to_be_bytes).concat());
    message.extend(ttl.to_be_bytes());
    message.extend((data.len() as u16).to_be_bytes());
    message.extend(data);
}

fn name(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}
