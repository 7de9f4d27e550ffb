//! The proxy in a simulated network: a real worker, turned by hand, between clients and upstreams that a seed scripts.
//!
//! Bytes go through real sockets of the loopback, all of them in the test's thread; the clock is the simulation's, so that
//! timeouts take no time. Each step lets one peer, or the worker, do a little: send some bytes, read some, close, reset. A
//! seed tells all of that, as far as the kernel does not: how the bytes of one send are split for the receiver is its
//! affair, and so a run may differ from another one of the same seed.
//!
//! The laws: every request gets at most one final response, in order; one that is complete has the bytes of that very
//! request; nothing cut short looks complete; a body that an upstream got whole, it got once; upstreams see only
//! well-formed requests of our clients; without faults all is answered; and in the end nothing is left.
//!
//! `THALWEG_SEEDS=5000 cargo test --lib simulation` runs more seeds, `THALWEG_SEED=17` one.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use super::tests::Ground;
use super::*;
use crate::message::{FieldName, RequestFraming, RequestHead, ResponseHead};
use crate::proto::h1;

/// Seeds that a plain run takes.
const SEEDS: u64 = 150;
/// Steps of a run before its end is enforced.
const STEPS: usize = 500;

/// SplitMix64: the same seed, the same numbers.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

/// The bytes of a body: each request has its own.
fn body_of(id: u32, length: usize, salt: u8) -> Vec<u8> {
    (0..length)
        .map(|at| (at as u32).wrapping_mul(31).wrapping_add(id.wrapping_mul(7919)) as u8 ^ salt)
        .collect()
}

fn response_length(id: u32) -> usize {
    let spread = id.wrapping_mul(2_654_435_761) >> 16;
    match spread % 4 {
        0 => 0,
        1 => spread as usize % 100,
        2 => spread as usize % 5_000,
        _ => spread as usize % 60_000,
    }
}

/// What went wrong, for the message.
macro_rules! law {
    ($holds:expr, $($text:tt)*) => {
        if !$holds {
            return Err(format!($($text)*));
        }
    };
}

#[derive(Clone)]
struct Asked {
    id: u32,
    is_head: bool,
}

/// A scripted client.
struct Peer {
    stream: Option<TcpStream>,
    /// What is to be sent, and how much of it was.
    script: Vec<u8>,
    sent: usize,
    asked: Vec<Asked>,
    received: Vec<u8>,
    ended: bool,
    is_slow: bool,
    /// After so many bytes sent it resets the connection.
    breaks_at: Option<usize>,
}

/// A scripted upstream's connection.
struct Served {
    stream: Option<TcpStream>,
    wire: h1::Connection,
    head: RequestHead,
    input: Vec<u8>,
    current: Option<(u32, Vec<u8>, usize)>,
    out: Vec<u8>,
    closes: Ending,
    answered: u32,
}

#[derive(Clone, Copy, PartialEq)]
enum Ending {
    /// It goes on.
    Open,
    /// It is closed when everything is out.
    Close,
    /// It is reset when everything is out.
    Reset,
    /// It says nothing more.
    Silent,
}

struct World {
    dice: Dice,
    faults: bool,
    worker: Worker,
    clients: Vec<Peer>,
    listeners: Vec<Option<TcpListener>>,
    addresses: Vec<SocketAddr>,
    served: Vec<Served>,
    /// Whole bodies that upstreams got, by request.
    bodies: HashMap<u32, u32>,
    posts: HashMap<u32, Vec<u8>>,
    known: u32,
    /// The configuration, for the message.
    http: String,
    /// The configuration lets a POST go twice.
    may_repeat: bool,
}

fn nonblocking(stream: TcpStream) -> TcpStream {
    stream.set_nonblocking(true).expect("nonblocking");
    stream.set_nodelay(true).expect("nodelay");
    stream
}

fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Sends up to `most` bytes; how many went, `None` if the connection is gone.
fn send_some(stream: &mut TcpStream, bytes: &[u8], most: usize) -> Option<usize> {
    match stream.write(&bytes[..bytes.len().min(most)]) {
        Ok(count) => Some(count),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Some(0),
        Err(_) => None,
    }
}

/// Reads up to `most` bytes; `None` if nothing more comes.
fn read_some(stream: &mut TcpStream, most: usize, into: &mut Vec<u8>) -> Option<usize> {
    let mut buffer = [0; 16 * 1024];
    let most = most.min(buffer.len());
    match stream.read(&mut buffer[..most]) {
        Ok(0) => None,
        Ok(count) => {
            into.extend_from_slice(&buffer[..count]);
            Some(count)
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Some(0),
        Err(_) => None,
    }
}

impl World {
    fn new(seed: u64) -> (World, Ground) {
        let mut dice = Dice(seed);
        let faults = !dice.one_in(3);
        let upstreams = 1 + dice.below(3);
        let listeners: Vec<TcpListener> =
            (0..upstreams).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<SocketAddr> =
            listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        let servers: String = addresses
            .iter()
            .map(|address| {
                format!(
                    "server {address}{};",
                    dice.pick(&["", " max_fails=0", " weight=3", if faults { " max_conns=2" } else { "" }])
                )
            })
            .collect();
        let flag = |dice: &mut Dice| *dice.pick(&["on", "off"]);
        let http = format!(
            "upstream u {{ {servers} {} }} access_log off; proxy_buffering {}; proxy_request_buffering {}; proxy_buffer_size 4k; {}
             proxy_buffers {} 4k; proxy_busy_buffers_size 4k; proxy_max_temp_file_size {}; proxy_next_upstream {}; proxy_http_version {}; keepalive_requests {};
             proxy_read_timeout 5s; proxy_connect_timeout 3s; client_body_buffer_size {}; client_max_body_size 0;
             client_body_temp_path {{root}}/body; proxy_temp_path {{root}}/proxy;",
            dice.pick(&["keepalive 8;", "keepalive 0;", "", "keepalive 1; keepalive_requests 2;"]),
            flag(&mut dice),
            flag(&mut dice),
            if dice.one_in(4) { "proxy_ignore_client_abort on;" } else { "" },
            dice.pick(&["2", "4", "16"]),
            dice.pick(&["0", "1m", "16k"]),
            dice.pick(&["error timeout", "off", "error timeout invalid_header http_503", "error timeout non_idempotent"]),
            dice.pick(&["1.1", "1.0"]),
            dice.pick(&["1000", "2"]),
            dice.pick(&["1k", "16k"]),
        );
        let ground = Ground::passing(&http);
        let worker = ground.worker(0, 1).0;
        for listener in &listeners {
            listener.set_nonblocking(true).unwrap();
        }
        let mut world = World {
            dice,
            faults,
            worker,
            clients: Vec::new(),
            listeners: listeners.into_iter().map(Some).collect(),
            addresses,
            served: Vec::new(),
            bodies: HashMap::new(),
            posts: HashMap::new(),
            known: 0,
            http: http.clone(),
            may_repeat: http.contains("non_idempotent"),
        };
        world.worker.clock.frozen_ms = Some(world.worker.res.env.now.monotonic_ms);
        for _ in 0..1 + world.dice.below(5) {
            let client = world.client(&ground);
            world.clients.push(client);
        }
        (world, ground)
    }

    fn client(&mut self, ground: &Ground) -> Peer {
        let stream = nonblocking(ground.connect());
        let is_slow = self.dice.one_in(4);
        if is_slow {
            let _ = socket2::SockRef::from(&stream).set_recv_buffer_size(32 * 1024);
        }
        let (mut script, mut asked) = (Vec::new(), Vec::new());
        for _ in 0..1 + self.dice.below(4) {
            self.known += 1;
            let (id, head) = (self.known, format!("/r{} HTTP/1.1\r\nHost: a\r\n", self.known));
            let is_head = match self.dice.below(5) {
                0 => {
                    script.extend_from_slice(format!("HEAD {head}\r\n").as_bytes());
                    true
                }
                1 | 2 => {
                    let length = *self.dice.pick(&[0, 1, 500, 5_000, 40_000]);
                    let body = body_of(id, length, 0x55);
                    self.posts.insert(id, body.clone());
                    match self.dice.one_in(2) {
                        true => {
                            script.extend_from_slice(
                                format!("POST {head}Content-Length: {length}\r\n\r\n").as_bytes(),
                            );
                            script.extend_from_slice(&body);
                        }
                        false => {
                            script.extend_from_slice(
                                format!("POST {head}Transfer-Encoding: chunked\r\n\r\n").as_bytes(),
                            );
                            for piece in body.chunks(1 + self.dice.below(3_000)) {
                                script.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                                script.extend_from_slice(piece);
                                script.extend_from_slice(b"\r\n");
                            }
                            script.extend_from_slice(b"0\r\n\r\n");
                        }
                    }
                    false
                }
                _ => {
                    script.extend_from_slice(format!("GET {head}\r\n").as_bytes());
                    false
                }
            };
            asked.push(Asked { id, is_head });
        }
        let breaks_at = (self.faults && self.dice.one_in(5)).then(|| self.dice.below(script.len() + 1));
        let stream = Some(stream);
        Peer { stream, script, sent: 0, asked, received: Vec::new(), ended: false, is_slow, breaks_at }
    }

    fn step(&mut self) -> Result<(), String> {
        match self.dice.below(8) {
            0..=2 => self.worker.round_at_once(),
            3 | 4 => {
                let at = self.dice.below(self.clients.len());
                self.step_client(at);
            }
            5 | 6 if !self.served.is_empty() => {
                let at = self.dice.below(self.served.len());
                self.step_upstream(at)?;
            }
            _ => self.accept(),
        }
        if self.dice.one_in(60) {
            self.pass_time(100);
        }
        Ok(())
    }

    fn pass_time(&mut self, ms: u64) {
        if let Some(now) = &mut self.worker.clock.frozen_ms {
            *now += ms;
        }
    }

    fn step_client(&mut self, at: usize) {
        let (sends, reads) = (1 + self.dice.below(4_000), 1 + self.dice.below(9_000));
        let peer = &mut self.clients[at];
        let Some(stream) = &mut peer.stream else { return };
        let most = peer.breaks_at.map_or(sends, |at| sends.min(at - peer.sent.min(at)));
        match send_some(stream, &peer.script[peer.sent..], most) {
            Some(count) => peer.sent += count,
            None => peer.sent = peer.script.len(),
        }
        if peer.breaks_at.is_some_and(|at| peer.sent >= at) {
            reset(stream);
            peer.stream = None;
            return;
        }
        let most = if peer.is_slow { reads.min(1500) } else { reads };
        if read_some(stream, most, &mut peer.received).is_none() {
            peer.ended = true;
            peer.stream = None;
        }
    }

    fn accept(&mut self) {
        let at = self.dice.below(self.listeners.len());
        if self.faults && self.dice.one_in(40) {
            // Gone, and back at the same address some time.
            match &self.listeners[at] {
                Some(_) => self.listeners[at] = None,
                None => self.listeners[at] = listen_again(self.addresses[at]),
            }
            return;
        }
        let Some(listener) = &self.listeners[at] else { return };
        if let Ok((stream, _)) = listener.accept() {
            self.served.push(Served {
                stream: Some(nonblocking(stream)),
                wire: h1::Connection::new(),
                head: RequestHead::default(),
                input: Vec::new(),
                current: None,
                out: Vec::new(),
                closes: Ending::Open,
                answered: 0,
            });
        }
    }

    fn step_upstream(&mut self, at: usize) -> Result<(), String> {
        let (sends, reads) = (1 + self.dice.below(6_000), 1 + self.dice.below(6_000));
        let served = &mut self.served[at];
        let Some(stream) = &mut served.stream else { return Ok(()) };
        if !served.out.is_empty() {
            match send_some(stream, &served.out, sends) {
                Some(count) => drop(served.out.drain(..count)),
                None => served.stream = None,
            }
            return Ok(());
        }
        match served.closes {
            Ending::Open => {}
            Ending::Silent => return Ok(()),
            Ending::Reset => {
                reset(stream);
                served.stream = None;
                return Ok(());
            }
            Ending::Close => {
                served.stream = None;
                return Ok(());
            }
        }
        if self.faults && self.dice.one_in(50) {
            // An idle connection, or one in the middle of a request, is closed.
            served.stream = None;
            return Ok(());
        }
        if read_some(stream, reads, &mut served.input).is_none() {
            served.stream = None;
            return Ok(());
        }
        self.read_request(at)
    }

    /// Takes what has come of requests apart; the answer to a whole one is put out.
    fn read_request(&mut self, at: usize) -> Result<(), String> {
        loop {
            let served = &mut self.served[at];
            let input = std::mem::take(&mut served.input);
            let mut rest = &input[..];
            let event = served.wire.read(&mut rest, &h1::HeadLimits::default(), &mut served.head);
            let event = event.map_err(|error| {
                format!(
                    "an upstream was sent what is no request: {error:?} in {:?}",
                    String::from_utf8_lossy(&input)
                )
            })?;
            let mut is_whole = false;
            match event {
                h1::Event::Head => {
                    let target = String::from_utf8_lossy(served.head.target()).into_owned();
                    let id: u32 = target.strip_prefix("/r").and_then(|id| id.parse().ok()).unwrap_or(0);
                    law!(id > 0 && id <= self.known, "an upstream was sent a request of nobody: {target:?}");
                    law!(
                        !served.head.has(FieldName::TransferEncoding)
                            || !served.head.has(FieldName::ContentLength),
                        "both framings"
                    );
                    is_whole = served.head.framing == RequestFraming::None;
                    served.current = Some((id, Vec::new(), 0));
                }
                h1::Event::Body(bytes) => {
                    if let Some((_, body, _)) = &mut served.current {
                        body.extend_from_slice(bytes);
                    }
                }
                h1::Event::BodyEnd => is_whole = true,
                h1::Event::NeedMore | h1::Event::Paused => {
                    served.input = rest.to_vec();
                    return Ok(());
                }
            }
            served.input = rest.to_vec();
            if is_whole {
                self.answer(at)?;
                return Ok(());
            }
            if self.faults && self.dice.one_in(200) {
                // An answer before the request is complete, and a close.
                self.served[at].out =
                    b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy".to_vec();
                self.served[at].closes = Ending::Close;
                return Ok(());
            }
        }
    }

    fn answer(&mut self, at: usize) -> Result<(), String> {
        let faults = self.faults;
        let served = &mut self.served[at];
        let Some((id, body, _)) = served.current.take() else { return Ok(()) };
        let expected = self.posts.get(&id).cloned().unwrap_or_default();
        law!(
            body == expected,
            "request {id}: an upstream got {} bytes of a body of {}",
            body.len(),
            expected.len()
        );
        *self.bodies.entry(id).or_default() += 1;
        let is_head = served.head.method == crate::message::Method::Head;
        let mut content = body_of(id, response_length(id), 0);
        let is_http10 = served.head.version == crate::message::Version::Http10;
        served.wire = h1::Connection::new();
        served.answered += 1;
        let out = &mut served.out;
        if faults && self.dice.one_in(12) {
            let junk: &[&[u8]] = &[
                b"\x16\x03\x01junk",
                b"HTTP/1.1 abc\r\n\r\n",
                b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
                b"",
            ];
            let junk: &[u8] = junk[self.dice.below(junk.len())];
            out.extend_from_slice(junk);
            served.closes = *self.dice.pick(&[Ending::Close, Ending::Reset, Ending::Silent]);
            return Ok(());
        }
        if !is_http10 && self.dice.one_in(6) {
            out.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
        }
        let closes = self.dice.one_in(5);
        let connection = if closes { "close" } else { "keep-alive" };
        out.extend_from_slice(
            format!("HTTP/1.1 200 OK\r\nX-Id: {id}\r\nConnection: {connection}\r\n").as_bytes(),
        );
        let is_cut = faults && self.dice.one_in(10) && !content.is_empty();
        let length = content.len();
        if is_cut {
            content.truncate(self.dice.below(length));
        }
        match self.dice.below(3) {
            0 if !is_http10 => {
                out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                if !is_head {
                    for piece in content.chunks(1 + self.dice.below(4_000)) {
                        out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                        out.extend_from_slice(piece);
                        out.extend_from_slice(b"\r\n");
                    }
                    if !is_cut {
                        out.extend_from_slice(b"0\r\n\r\n");
                    }
                }
            }
            1 if closes && !is_cut => {
                out.extend_from_slice(b"\r\n");
                if !is_head {
                    out.extend_from_slice(&content);
                }
            }
            _ => {
                out.extend_from_slice(format!("Content-Length: {length}\r\n\r\n").as_bytes());
                if !is_head {
                    out.extend_from_slice(&content);
                }
            }
        }
        if is_cut && !is_head {
            served.closes = *self.dice.pick(&[Ending::Close, Ending::Reset, Ending::Silent]);
        } else if closes || faults && self.dice.one_in(15) {
            served.closes = Ending::Close;
        }
        Ok(())
    }

    /// The pool has threads of its own, whose time is the real one.
    fn wait_for_pool(&self) {
        if !self.worker.res.jobs.is_empty() {
            std::thread::sleep(Duration::from_micros(300));
        }
    }

    /// Everybody does what is left to do, and time passes.
    fn finish(&mut self) -> Result<(), String> {
        for round in 0..4_000 {
            for at in 0..self.clients.len() {
                self.step_client(at);
            }
            self.worker.round_at_once();
            self.wait_for_pool();
            for at in 0..self.listeners.len() {
                if self.listeners[at].is_none() {
                    self.listeners[at] = listen_again(self.addresses[at]);
                }
            }
            self.accept();
            for at in 0..self.served.len() {
                self.step_upstream(at)?;
            }
            let is_done = self.clients.iter().all(|client| client.stream.is_none() || client.is_answered());
            if is_done {
                break;
            }
            if round % 50 == 49 {
                self.pass_time(1_000);
            }
        }
        Ok(())
    }

    /// Closes all, lets every patience end, and sees what is left.
    fn judge(&mut self) -> Result<(), String> {
        for client in &self.clients {
            client.judge(self.faults)?;
        }
        for (id, times) in &self.bodies {
            if let Some(body) = self.posts.get(id)
                && !body.is_empty()
            {
                law!(*times <= 1 || self.may_repeat, "the body of request {id} was received {times} times");
            }
        }
        self.clients.clear();
        self.served.clear();
        self.listeners.clear();
        for _ in 0..200 {
            self.pass_time(2_000);
            self.worker.round_at_once();
            self.wait_for_pool();
            let res = &self.worker.res;
            if self.worker.clients.is_empty() && res.links.is_empty() && res.jobs.is_empty() {
                break;
            }
        }
        let res = &self.worker.res;
        law!(self.worker.clients.is_empty(), "{} connections are left", self.worker.clients.len());
        law!(self.worker.lanes == 0, "{} lanes are counted", self.worker.lanes);
        law!(res.links.is_empty(), "{} sockets of upstreams are left", res.links.len());
        law!(res.jobs.is_empty() && res.queued.is_empty() && res.resumed.is_empty(), "somebody waits still");
        Ok(())
    }
}

/// The same address again, unless somebody took it.
fn listen_again(address: SocketAddr) -> Option<TcpListener> {
    let listener = TcpListener::bind(address).ok()?;
    listener.set_nonblocking(true).ok()?;
    Some(listener)
}

impl Peer {
    /// Whether every request has a whole response.
    fn is_answered(&self) -> bool {
        self.sent == self.script.len() && self.responses(true).is_ok_and(|count| count == self.asked.len())
    }

    /// Reads the responses; how many are whole.
    fn responses(&self, faults: bool) -> Result<usize, String> {
        let mut input = &self.received[..];
        let mut reader = h1::ResponseReader::new(h1::ResponseLimits::default());
        for (count, asked) in self.asked.iter().enumerate() {
            if input.is_empty() {
                return Ok(count);
            }
            let (mut head, mut status, mut body, mut id) = (ResponseHead::default(), 0, Vec::new(), None);
            reader.begin(h1::Asked {
                head: asked.is_head,
                upgrade: false,
                connect: false,
                head_bytes: 16 * 1024,
            });
            loop {
                match reader.read(&mut input, &mut head) {
                    Ok(h1::ResponseEvent::NeedMore) => return Ok(count),
                    Ok(h1::ResponseEvent::Interim | h1::ResponseEvent::Trailers) => {}
                    Ok(h1::ResponseEvent::Head(_)) => {
                        status = head.status.0;
                        id = head.fields.named(b"X-Id").next().map(<[u8]>::to_vec);
                    }
                    Ok(h1::ResponseEvent::Body(bytes)) => body.extend_from_slice(bytes),
                    Ok(h1::ResponseEvent::End) => break,
                    Err(error) => return Err(format!("request {}: a client was sent {error:?}", asked.id)),
                }
            }
            law!(
                matches!(status, 200 | 400 | 408 | 499 | 502 | 503 | 504),
                "request {}: status {status}",
                asked.id
            );
            law!(faults || status == 200, "request {}: {status} without any fault", asked.id);
            if status == 200 {
                law!(
                    id.as_deref() == Some(asked.id.to_string().as_bytes()),
                    "request {} got the response of {id:?}",
                    asked.id
                );
                let expected =
                    if asked.is_head { Vec::new() } else { body_of(asked.id, response_length(asked.id), 0) };
                law!(
                    body == expected,
                    "request {}: {} bytes as if they were all {}",
                    asked.id,
                    body.len(),
                    expected.len()
                );
            }
            let closes = head.fields.first(FieldName::Connection).is_some_and(|value| value == b"close");
            if closes {
                law!(input.is_empty(), "request {}: bytes behind the last response", asked.id);
                return Ok(count + 1);
            }
        }
        law!(
            input.is_empty(),
            "a response that nobody asked for: {:?}",
            String::from_utf8_lossy(&input[..input.len().min(80)])
        );
        Ok(self.asked.len())
    }

    fn judge(&self, faults: bool) -> Result<(), String> {
        let count = self.responses(faults)?;
        let may_be_less = faults || self.breaks_at.is_some() || self.ended;
        law!(
            may_be_less || count == self.asked.len(),
            "{count} of {} requests were answered, {} of {} bytes sent, {} received, slow {}, {:?}",
            self.asked.len(),
            self.sent,
            self.script.len(),
            self.received.len(),
            self.is_slow,
            String::from_utf8_lossy(&self.received[..self.received.len().min(300)])
        );
        Ok(())
    }
}

fn run(seed: u64) -> Result<(), String> {
    let (mut world, _ground) = World::new(seed);
    for _ in 0..STEPS {
        world.step()?;
    }
    world.finish()?;
    world.judge().map_err(|why| format!("{why}\nwith {}", world.http))
}

#[test]
fn the_laws_hold_for_every_seed() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("THALWEG_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("THALWEG_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        if let Err(why) = run(seed) {
            panic!("seed {seed}: {why}\nagain: THALWEG_SEED={seed} cargo test --lib simulation");
        }
    }
}
