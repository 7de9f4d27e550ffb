//! What attackers do. Each attack has the memory that it may take, made of the limits that bound it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::ground::{Field, many};
use crate::util::h2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    frame, head,
};
use crate::util::tls::Connector;
use crate::util::{Client, get};

/// What a connection may cost beside its buffers, in KiB: its state, the request's, what is kept for the next.
const CONNECTION: usize = 8;
/// `client_header_buffer_size` and, once it is full, a `large_client_header_buffers`.
const HEAD: usize = 1 + 8;
/// All of `large_client_header_buffers`.
const LARGE_HEADS: usize = 4 * 8;
/// `client_body_buffer_size`
const BODY: usize = 16;
/// Bytes of a response that the socket did not take: what one turn gathers.
const UNSENT: usize = 64 + 32;
/// What rustls keeps of a connection.
const TLS: usize = 64;
/// What a stream that is being served may hold: as a connection, and its body's window.
const STREAM: usize = CONNECTION + 64;
/// Buffers that workers take once they are needed, compression's windows, caches that fill.
const WORKERS: usize = 24 << 10;

/// One way to be hostile.
pub struct Attack {
    pub name: &'static str,
    pub threads: usize,
    /// Runs in every thread, with its number, until the field is over.
    pub run: fn(&Field, usize),
    /// What is wrong with how the attackers fared, asked when they are done.
    pub judge: fn(&Field) -> Option<String>,
    /// By how much memory may grow.
    pub bound_kib: fn() -> usize,
    /// What the attackers count.
    pub counts: &'static str,
}

const fn attack(
    name: &'static str,
    threads: usize,
    run: fn(&Field, usize),
    bound_kib: fn() -> usize,
    counts: &'static str,
) -> Attack {
    Attack { name, threads, run, judge: did_something, bound_kib, counts }
}

/// An attack that came to nothing proves nothing.
fn did_something(field: &Field) -> Option<String> {
    (field.done.load(Ordering::Relaxed) == 0).then(|| "the attackers got nothing done".to_owned())
}

/// Connections of the attacks with slow clients.
fn slow() -> usize {
    many(4000)
}

pub static ATTACKS: &[Attack] = &[
    Attack { judge: |_| None, ..attack("nobody", 0, |_, _| {}, || WORKERS, "") },
    attack("slow heads", 1, slow_heads, || WORKERS + slow() * (CONNECTION + HEAD), "connections cut"),
    Attack {
        judge: |field| numbers(field, 0),
        ..attack(
            "slow bodies",
            1,
            slow_bodies,
            || WORKERS + slow() * (CONNECTION + BODY),
            "bodies answered 408",
        )
    },
    Attack {
        judge: |field| numbers(field, 1),
        ..attack(
            "slow readers",
            1,
            slow_readers,
            || WORKERS + many(1000) * (CONNECTION + UNSENT),
            "readers cut",
        )
    },
    Attack {
        judge: |field| numbers(field, 1),
        ..attack(
            "slow readers of HTTP/2",
            1,
            slow_streams,
            || WORKERS + many(200) * (UNSENT + 20 * STREAM),
            "connections cut",
        )
    },
    attack("half-open connections", 1, half_open, || WORKERS + slow() * CONNECTION, "connections cut"),
    attack("giant heads", 2, giant_heads, || WORKERS + 2 * LARGE_HEADS, "heads refused"),
    attack("many fields", 2, many_fields, || WORKERS + 2 * LARGE_HEADS, "heads refused"),
    attack("a flood of connects", 2, connects, || WORKERS + 9000 * 2 * CONNECTION, "connections"),
    Attack {
        judge: |field| numbers(field, 2),
        ..attack(
            "connects beyond a limit",
            2,
            limited_connects,
            || WORKERS + 50 * CONNECTION,
            "connections refused",
        )
    },
    attack("resets in responses", 2, resets, || WORKERS + 2 * (CONNECTION + UNSENT), "responses reset"),
    attack("10,000 pipelined requests", 2, pipelined, || WORKERS + 2 * (CONNECTION + 2 * UNSENT), "answers"),
    attack("garbage", 2, garbage, || WORKERS + 2 * CONNECTION, "connections"),
    attack("garbage under TLS", 2, tls_garbage, || WORKERS + 2 * (CONNECTION + TLS), "connections"),
    attack("handshakes", 2, handshakes, || WORKERS + 2 * (CONNECTION + TLS), "handshakes"),
    attack(
        "idle handshakes",
        1,
        idle_handshakes,
        || WORKERS + many(1000) * (CONNECTION + TLS),
        "connections cut",
    ),
    attack("HTTP/2: rapid reset", 2, rapid_reset, || WORKERS + 2 * 128 * STREAM, "connections cut"),
    attack("HTTP/2: CONTINUATION", 2, continuations, || WORKERS + 2 * LARGE_HEADS, "connections cut"),
    attack("HTTP/2: PING", 2, pings, || WORKERS + 2 * UNSENT, "connections cut"),
    attack("HTTP/2: SETTINGS", 2, settings, || WORKERS + 2 * UNSENT, "connections cut"),
    attack("HTTP/2: empty frames", 2, empty_frames, || WORKERS + 2 * STREAM, "connections cut"),
    attack("HTTP/2: window games", 2, window_games, || WORKERS + 2 * 128 * STREAM, "connections cut"),
    attack("HTTP/2: header bombs", 2, header_bombs, || WORKERS + 2 * LARGE_HEADS, "heads refused"),
    attack("one gzip download", 1, |field, _| downloads(field, "/gzip/text"), || WORKERS, "KiB"),
    attack("one brotli download", 1, |field, _| downloads(field, "/brotli/text"), || WORKERS, "KiB"),
    attack("100 sendfile downloads", 1, sendfiles, || WORKERS + 100 * CONNECTION, "MiB"),
];

/// Whether the server has counted what it did.
fn numbers(field: &Field, place: usize) -> Option<String> {
    let text = get(field.port(), "/numbers").text();
    let number = text.split(' ').nth(place).and_then(|number| number.parse::<u64>().ok());
    match number {
        Some(number) if number > 0 => did_something(field),
        _ => Some(format!("the server has counted {text:?}")),
    }
}

/// Attackers' connections are reset when they are closed, so that ports are not used up.
fn connect(port: u16) -> Option<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).ok()?;
    stream.set_nodelay(true).ok()?;
    stream.set_write_timeout(Some(Duration::from_secs(2))).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    Some(stream)
}

/// The same with a small receive buffer, which must be so from the beginning.
fn connect_with_little_room(port: u16) -> Option<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).ok()?;
    socket.set_recv_buffer_size(4096).ok()?;
    socket.set_linger(Some(Duration::ZERO)).ok()?;
    socket
        .connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into(), Duration::from_secs(2))
        .ok()?;
    Some(socket.into())
}

/// Many connections in one hand.
pub struct Swarm {
    port: u16,
    streams: Vec<TcpStream>,
}

/// What a socket had to say.
enum Heard {
    Nothing,
    Bytes(usize),
    Closed,
}

fn hear(stream: &mut TcpStream, buffer: &mut [u8]) -> Heard {
    match stream.read(buffer) {
        Ok(0) => Heard::Closed,
        Ok(count) => Heard::Bytes(count),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Heard::Nothing,
        Err(_) => Heard::Closed,
    }
}

impl Swarm {
    pub fn connect(port: u16, count: usize) -> Swarm {
        let mut swarm = Swarm { port, streams: Vec::new() };
        swarm.fill(count, b"");
        swarm
    }

    /// Connects as many as are missing; each says this first.
    fn fill(&mut self, count: usize, greeting: &[u8]) {
        for _ in self.streams.len()..count {
            let Some(mut stream) = connect(self.port) else { return };
            let _ = stream.set_nonblocking(true);
            let _ = stream.write(greeting);
            self.streams.push(stream);
        }
    }

    /// Drops those that the server has closed; how many.
    pub fn prune(&mut self) -> usize {
        let before = self.streams.len();
        let mut buffer = [0; 4096];
        self.streams.retain_mut(|stream| !matches!(hear(stream, &mut buffer), Heard::Closed));
        before - self.streams.len()
    }

    /// Writes this to each.
    fn trickle(&mut self, bytes: &[u8]) {
        for stream in &mut self.streams {
            let _ = stream.write(bytes);
        }
    }
}

/// Keeps so many connections that say `greeting` and then `drop` again and again.
fn trickling(field: &Field, count: usize, greeting: &[u8], drop: &[u8]) {
    let mut swarm = Swarm::connect(field.port(), 0);
    while !field.is_over() {
        swarm.fill(count, greeting);
        std::thread::sleep(Duration::from_millis(100));
        field.count(swarm.prune());
        swarm.trickle(drop);
    }
}

fn slow_heads(field: &Field, _: usize) {
    trickling(field, slow(), b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"x");
}

fn half_open(field: &Field, _: usize) {
    trickling(field, slow(), b"", b"");
}

fn slow_bodies(field: &Field, _: usize) {
    let mut swarm = Swarm::connect(field.port(), 0);
    let mut buffer = [0; 4096];
    while !field.is_over() {
        swarm.fill(slow(), b"POST /upload?early=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
        std::thread::sleep(Duration::from_millis(100));
        swarm.trickle(b"x");
        let mut refused = 0;
        swarm.streams.retain_mut(|stream| match hear(stream, &mut buffer) {
            Heard::Nothing => true,
            Heard::Bytes(_) => {
                refused += usize::from(buffer.starts_with(b"HTTP/1.1 408 "));
                false
            }
            Heard::Closed => false,
        });
        field.count(refused);
    }
}

fn slow_readers(field: &Field, _: usize) {
    let mut swarm = Swarm::connect(field.port(), 0);
    // Enough for no timeout to pass, and too little for the rate.
    let mut drop = [0; 4000];
    while !field.is_over() {
        for _ in swarm.streams.len()..many(1000) {
            let Some(mut stream) = connect_with_little_room(field.port()) else { break };
            let _ = stream.write_all(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
            let _ = stream.set_nonblocking(true);
            swarm.streams.push(stream);
        }
        std::thread::sleep(Duration::from_millis(100));
        let before = swarm.streams.len();
        swarm.streams.retain_mut(|stream| !matches!(hear(stream, &mut drop), Heard::Closed));
        field.count(before - swarm.streams.len());
    }
}

fn slow_streams(field: &Field, _: usize) {
    let mut greeting = opening(&[]);
    for stream in 0..20 {
        greeting.extend(ask(1 + 2 * stream, "/big"));
    }
    let mut swarm = Swarm::connect(field.port(), 0);
    let mut buffer = [0; 16 * 1024];
    while !field.is_over() {
        swarm.fill(many(200), &greeting);
        std::thread::sleep(Duration::from_millis(100));
        let before = swarm.streams.len();
        swarm.streams.retain_mut(|stream| !matches!(hear(stream, &mut buffer), Heard::Closed));
        field.count(before - swarm.streams.len());
        // A byte for the connection, and one for a stream.
        let bytes = [0, 1].map(|stream| frame(WINDOW_UPDATE, 0, stream, &1u32.to_be_bytes())).concat();
        swarm.trickle(&bytes);
    }
}

/// Sends a head as far as it is taken; whether it was answered with an error or a close.
fn is_refused(port: u16, bytes: &[u8]) -> bool {
    let Some(mut stream) = connect(port) else { return false };
    let _ = stream.write_all(bytes);
    let mut buffer = [0; 64];
    match stream.read(&mut buffer) {
        Ok(0) => true,
        Ok(_) => buffer.starts_with(b"HTTP/1.1 4"),
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

fn giant_heads(field: &Field, number: usize) {
    let mega = "x".repeat(1 << 20);
    let heads = [
        format!("GET /{mega} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {mega}\r\n\r\n"),
    ];
    while !field.is_over() {
        field.count(usize::from(is_refused(field.port(), heads[number % 2].as_bytes())));
    }
}

fn many_fields(field: &Field, number: usize) {
    let line = ["X: y\r\n", "a_b: y\r\n"][number % 2];
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", line.repeat(100_000));
    while !field.is_over() {
        field.count(usize::from(is_refused(field.port(), head.as_bytes())));
    }
}

fn connects(field: &Field, _: usize) {
    while !field.is_over() {
        field.count(usize::from(connect(field.port()).is_some()));
    }
}

fn limited_connects(field: &Field, _: usize) {
    let mut swarm = Swarm::connect(field.limited_port(), 0);
    while !field.is_over() {
        swarm.fill(200, b"");
        field.count(swarm.prune());
    }
}

fn resets(field: &Field, _: usize) {
    let mut buffer = [0; 1000];
    while !field.is_over() {
        let Some(mut stream) = connect(field.port()) else { continue };
        let _ = stream.write_all(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
        field.count(usize::from(stream.read(&mut buffer).is_ok()));
    }
}

/// One reads what it gets, the other does not before it has asked for everything.
fn pipelined(field: &Field, number: usize) {
    let requests = b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n".repeat(10_000);
    let mut buffer = vec![0; 64 * 1024];
    while !field.is_over() {
        let Some(mut stream) = connect(field.port()) else { continue };
        let _ = stream.set_nonblocking(true);
        let (mut sent, mut received, mut quiet) = (0, 0, 0);
        while !field.is_over() && received < 10_000 * 1000 && quiet < 2000 {
            let wrote = stream.write(&requests[sent..]).unwrap_or(0);
            sent += wrote;
            let is_stuck = sent == requests.len() || (wrote == 0 && quiet > 100);
            match if number == 0 || is_stuck { hear(&mut stream, &mut buffer) } else { Heard::Nothing } {
                Heard::Bytes(count) => (received, quiet) = (received + count, 0),
                Heard::Closed => break,
                Heard::Nothing if wrote == 0 => {
                    quiet += 1;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Heard::Nothing => {}
            }
        }
        // A head and a body each.
        field.count(received / 1200);
    }
}

fn garbage(field: &Field, number: usize) {
    let mut random = fastrand::Rng::with_seed(number as u64);
    while !field.is_over() {
        let Some(mut stream) = connect(field.port()) else { continue };
        let bytes: Vec<u8> = (0..random.usize(1..8000)).map(|_| random.u8(..)).collect();
        let _ = stream.write_all(&bytes);
        if random.bool() {
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read(&mut [0; 64]);
        }
        field.count(1);
    }
}

fn tls_garbage(field: &Field, number: usize) {
    let mut random = fastrand::Rng::with_seed(number as u64);
    while !field.is_over() {
        let Some(mut stream) = connect(field.tls_port()) else { continue };
        let length = random.u16(1..16_000);
        let mut bytes = vec![random.u8(20..24), 3, random.u8(0..5)];
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend((0..length).map(|_| random.u8(..)));
        // Half of them are cut short, and wait.
        if random.bool() {
            bytes.truncate(bytes.len() / 2);
        }
        let _ = stream.write_all(&bytes);
        let _ = stream.set_read_timeout(Some(Duration::from_millis(5)));
        let _ = stream.read(&mut [0; 64]);
        field.count(1);
    }
}

fn handshakes(field: &Field, _: usize) {
    while !field.is_over() {
        // A connector of its own, so that no session is resumed.
        let connector = Connector::new(&["h2", "http/1.1"], None);
        let Some(stream) = connect(field.tls_port()) else { continue };
        field.count(usize::from(connector.try_over(stream, "example.com").is_ok()));
    }
}

fn idle_handshakes(field: &Field, _: usize) {
    let connector = Connector::new(&["http/1.1"], None);
    let mut idle: Vec<(TcpStream, Client)> = Vec::new();
    while !field.is_over() {
        if idle.len() < many(1000) {
            let Some(stream) = connect(field.tls_port()) else { continue };
            let Ok(watch) = stream.try_clone() else { continue };
            let Ok((client, _)) = connector.try_over(stream, "example.com") else { continue };
            idle.push((watch, client));
        } else {
            std::thread::sleep(Duration::from_millis(20));
        }
        if idle.len().is_multiple_of(50) {
            let before = idle.len();
            idle.retain_mut(|(watch, _)| {
                let _ = watch.set_nonblocking(true);
                let lives = !matches!(hear(watch, &mut [0; 256]), Heard::Closed);
                let _ = watch.set_nonblocking(false);
                lives
            });
            field.count(before - idle.len());
        }
    }
    // Those that are left would have been cut.
    field.count(usize::from(!idle.is_empty()));
}

/// How a client of HTTP/2 begins, with these settings.
fn opening(settings: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> = settings
        .iter()
        .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect();
    [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &payload)].concat()
}

fn fields(method: &str, path: &str) -> Vec<u8> {
    head(&[(":method", method), (":scheme", "http"), (":path", path), (":authority", "a")])
}

fn ask(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields("GET", path))
}

/// Sends what `burst` makes, again and again, on a connection until the server cuts it, and then on the next.
fn flood(field: &Field, opening: &[u8], mut burst: impl FnMut(u32) -> Vec<u8>) {
    let mut buffer = vec![0; 64 * 1024];
    while !field.is_over() {
        let Some(mut stream) = connect(field.port()) else { continue };
        let _ = stream.write_all(opening);
        let mut is_open = true;
        for round in 0.. {
            if field.is_over() || stream.write_all(&burst(round)).is_err() {
                is_open = field.is_over();
                break;
            }
            let _ = stream.set_nonblocking(true);
            let heard = hear(&mut stream, &mut buffer);
            let _ = stream.set_nonblocking(false);
            if let Heard::Closed = heard {
                is_open = false;
                break;
            }
        }
        field.count(usize::from(!is_open));
    }
}

fn rapid_reset(field: &Field, _: usize) {
    flood(field, &opening(&[]), |round| {
        (0..50)
            .flat_map(|at| {
                let stream = 1 + 2 * (round * 50 + at);
                [ask(stream, "/big"), frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())].concat()
            })
            .collect()
    });
}

fn continuations(field: &Field, number: usize) {
    let payload: &[u8] = if number == 0 { b"" } else { &[0; 512] };
    flood(field, &opening(&[]), |round| match round {
        0 => frame(HEADERS, END_STREAM, 1, &fields("GET", "/small")),
        _ => frame(CONTINUATION, 0, 1, payload).repeat(20),
    });
}

fn pings(field: &Field, _: usize) {
    flood(field, &opening(&[]), |_| frame(PING, 0, 0, b"hostiles").repeat(100));
}

fn settings(field: &Field, _: usize) {
    let payload: Vec<u8> =
        (0..100u32).flat_map(|value| [&[0, 4][..], &value.to_be_bytes()].concat()).collect();
    flood(field, &opening(&[]), |_| frame(SETTINGS, 0, 0, &payload).repeat(10));
}

fn empty_frames(field: &Field, _: usize) {
    flood(field, &opening(&[]), |round| match round {
        0 => frame(HEADERS, END_HEADERS, 1, &fields("POST", "/upload?early=1")),
        _ => frame(DATA, 0, 1, b"").repeat(100),
    });
}

/// Windows of a byte, changed again and again while a hundred responses wait for them.
fn window_games(field: &Field, _: usize) {
    flood(field, &opening(&[(4, 1)]), |round| match round {
        0 => (0..100).flat_map(|stream| ask(1 + 2 * stream, "/big")).collect(),
        _ => (0..100)
            .flat_map(|stream| frame(WINDOW_UPDATE, 0, 1 + 2 * stream, &1u32.to_be_bytes()))
            .chain(frame(SETTINGS, 0, 0, &[&[0, 4][..], &(round % 3).to_be_bytes()].concat()))
            .collect(),
    });
}

/// A long line in the table of HPACK, and heads that are nothing but references to it.
fn header_bombs(field: &Field, _: usize) {
    let mut first = fields("GET", "/small");
    // Literal with incremental indexing, a new name: "x", 3,900 bytes (RFC 7541 section 6.2.1, lengths as in 5.1).
    first.extend_from_slice(&[0x40, 1, b'x', 0x7f]);
    let mut rest = 3900 - 127;
    while rest >= 128 {
        first.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    first.push(rest as u8);
    first.extend(std::iter::repeat_n(b'y', 3900));
    let mut bomb = fields("GET", "/small");
    bomb.extend(std::iter::repeat_n(0x80 | 62, 8000));
    let mut refused = 0;
    flood(field, &opening(&[]), |round| match round {
        0 => frame(HEADERS, END_HEADERS | END_STREAM, 1, &first),
        _ => {
            refused += 1;
            frame(HEADERS, END_HEADERS | END_STREAM, 1 + 2 * round, &bomb)
        }
    });
    field.count(refused);
}

/// Downloads a file as fast as it comes; how many bytes came.
pub fn download(port: u16, path: &str, stop: &AtomicBool) -> usize {
    let Some(mut stream) = connect(port) else { return 0 };
    let coding = path[1..].split('/').next().map_or("", |name| if name == "brotli" { "br" } else { name });
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {coding}\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(request.as_bytes());
    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
    let mut buffer = vec![0; 256 * 1024];
    let mut received = 0;
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(count) if count > 0 => received += count,
            _ => break,
        }
    }
    received
}

fn downloads(field: &Field, path: &str) {
    while !field.is_over() {
        field.count(download(field.port(), path, field.stop()) / 1024);
    }
}

fn sendfiles(field: &Field, _: usize) {
    let request = b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut swarm = Swarm::connect(field.port(), 0);
    let mut buffer = vec![0; 256 * 1024];
    let mut received = 0;
    let mut sizes = vec![0; 100];
    while !field.is_over() {
        swarm.fill(100, request);
        sizes.resize(swarm.streams.len(), 0);
        for (stream, size) in swarm.streams.iter_mut().zip(&mut sizes) {
            if let Heard::Bytes(count) = hear(stream, &mut buffer) {
                *size += count;
                received += count;
            }
            if *size >= 16 << 20 {
                *size = 0;
                let _ = stream.write(request);
            }
        }
    }
    field.count(received >> 20);
}
