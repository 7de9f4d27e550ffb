//! Differential fuzzing: the same mutated request heads to Debian's nginx and to Thalweg under the same configuration;
//! statuses and bodies must be the same, but for the differences of [`ACCEPTED`].
//!
//! An ordinary run asks some thousands of questions, the same each time, for at most [`ORDINARY_TIME`].
//! `DIFFERENTIAL_SECONDS=600 cargo test --test differential` goes on for so long with new seeds, and
//! `DIFFERENTIAL_SEED=17` asks the one question of that seed and shows both answers. What differs is made smaller before
//! it is shown. Where no nginx is installed, nothing is compared.
//!
//! How a case is asked: its bytes, then the end of what the client sends, and everything that comes back is read. So
//! it is compared too how many requests each server saw in the bytes, which is where request smuggling begins.

#[path = "differential/accepted.rs"]
mod accepted;
#[path = "differential/generator.rs"]
mod generator;
#[path = "it/util/mod.rs"]
mod util;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use accepted::{ACCEPTED, Exchange};
use generator::Random;
use util::{Builder, Nginx, PATIENCE, Server, nginx, subject_is_ours};

/// Cases of an ordinary run.
const ORDINARY_CASES: u64 = 6_000;
/// After this an ordinary run ends, however many cases are left: slow machines ask fewer questions.
const ORDINARY_TIME: Duration = Duration::from_secs(12);
/// Connections at the same time.
const THREADS: u64 = 2;
/// Tries to make one differing case smaller.
const SHRINKING_STEPS: usize = 400;
/// Differences after which a run ends.
const MOST_DIFFERENCES: usize = 12;

/// Says what became of a request; and a folder of files. The first server merges slashes, the second does not.
const SITE: &str = r#"
worker_processes 1;
error_log {root}/error.log crit;
http {
    server_tokens off;
    port_in_redirect off;
    client_header_buffer_size 4k;
    # nginx waits this long for what a client sends behind a refusal, also where the client has ended.
    lingering_timeout 100ms;
    server {
        listen {port};
        location / {
            return 200 "uri=$uri\nargs=$args\nmethod=$request_method\nhost=$host\nx=$http_x\nlength=$content_length\n";
        }
        location /file/ { root {root}/html; default_type text/plain; etag off; }
        location = /exact { return 200 "exact=$uri\nrequest=$request_uri\n"; }
    }
    server {
        listen {port};
        server_name b.example;
        return 200 "second=$uri\nhost=$host\n";
    }
    server {
        listen {port2};
        merge_slashes off;
        underscores_in_headers on;
        return 200 "kept=$uri\nargs=$args\nhost=$host\nx=$http_x\n";
    }
}
"#;

fn with_files(builder: Builder) -> Server {
    builder
        .file("html/file/a.txt", "a file\n")
        .file("html/file/dir/index.html", "an index\n")
        .file("html/file/b c.txt", "a space\n")
        .start()
}

/// Both servers.
struct Pair {
    nginx: Server,
    ours: Server,
}

impl Pair {
    fn start() -> Option<Pair> {
        if !nginx::available() || !subject_is_ours() {
            eprintln!("no nginx here: nothing compared");
            return None;
        }
        Some(Pair { nginx: with_files(Nginx::builder(SITE)), ours: with_files(Server::builder(SITE)) })
    }

    fn ask(&self, bytes: &[u8], server: usize) -> Exchange {
        Exchange {
            bytes: bytes.to_vec(),
            server,
            nginx: answers(self.nginx.port_of(server), bytes),
            ours: answers(self.ours.port_of(server), bytes),
        }
    }
}

/// What can be compared of one response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 0: bytes without a head, as HTTP/0.9 has it.
    pub status: u16,
    pub location: Option<Vec<u8>>,
    /// Whether the server says that it closes the connection.
    pub closes: bool,
    /// With the name of the program taken out.
    pub body: Vec<u8>,
}

/// Sends the bytes and the end of the stream; reads until the server closes.
fn answers(port: u16, bytes: &[u8]) -> Vec<Answer> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    // The server may have closed before all is sent.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut wire = Vec::new();
    match stream.read_to_end(&mut wire) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => {
            panic!("{error} after {} bytes to {}", wire.len(), bytes.escape_ascii())
        }
        _ => split_answers(&wire),
    }
}

fn split_answers(mut wire: &[u8]) -> Vec<Answer> {
    let mut answers = Vec::new();
    while !wire.is_empty() {
        let head_end = memchr::memmem::find(wire, b"\r\n\r\n").map(|end| end + 4);
        let (Some(head_end), true) = (head_end, wire.starts_with(b"HTTP/1.1 ")) else {
            let body = nameless(wire);
            answers.push(Answer { status: 0, location: None, closes: true, body });
            break;
        };
        let (head, rest) = wire.split_at(head_end);
        let field = |name: &[u8]| {
            head.split(|&byte| byte == b'\n')
                .find(|line| line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)))
                .map(|line| line[name.len()..].trim_ascii().to_vec())
        };
        let status = String::from_utf8_lossy(&head[9..12]).parse().expect("a status");
        let length = field(b"content-length:").and_then(|value| String::from_utf8(value).ok()?.parse().ok());
        // What is there of it: the answer to a HEAD has none, whatever its length says.
        let length = match length {
            Some(length) if !rest.starts_with(b"HTTP/1.1 ") => rest.len().min(length),
            _ => 0,
        };
        answers.push(Answer {
            status,
            location: field(b"location:"),
            closes: field(b"connection:").is_some_and(|value| value.eq_ignore_ascii_case(b"close")),
            body: nameless(&rest[..length]),
        });
        wire = &rest[length..];
    }
    answers
}

/// Error pages name the program.
fn nameless(body: &[u8]) -> Vec<u8> {
    if !body.starts_with(b"<html>") {
        return body.to_vec();
    }
    String::from_utf8_lossy(body).replace("thalweg", "nginx").into_bytes()
}

/// How two answers differ, in few words: cases with the same words are shown once.
fn kind(exchange: &Exchange) -> String {
    let words = |answers: &[Answer]| {
        let statuses: Vec<String> = answers.iter().map(|answer| answer.status.to_string()).collect();
        statuses.join(",")
    };
    let mut text = format!("nginx {} ours {}", words(&exchange.nginx), words(&exchange.ours));
    for (nginx, ours) in exchange.nginx.iter().zip(&exchange.ours) {
        if nginx.status != ours.status {
            continue;
        }
        let line =
            |body: &[u8]| -> Vec<Vec<u8>> { body.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect() };
        let differing = line(&nginx.body).into_iter().zip(line(&ours.body)).find(|(a, b)| a != b);
        if let Some((nginx, _)) = differing {
            let name: Vec<u8> = nginx.into_iter().take_while(|&byte| byte != b'=').take(12).collect();
            let _ = write!(text, " {}", name.escape_ascii());
        } else if nginx.location != ours.location {
            text.push_str(" location");
        } else if nginx.closes != ours.closes {
            text.push_str(" closes");
        }
    }
    text
}

fn is_explained(exchange: &Exchange) -> bool {
    let plain = exchange.without_known_lines();
    plain.is_same() || ACCEPTED.iter().any(|rule| (rule.explains)(&plain))
}

/// Leaves away what is not needed for a difference of the same kind.
fn shrink(pair: &Pair, first: Exchange) -> Exchange {
    let wanted = kind(&first);
    let mut smallest = first;
    let mut steps = 0;
    let mut piece = smallest.bytes.len() / 2;
    while piece > 0 && steps < SHRINKING_STEPS {
        let mut at = 0;
        while at + piece <= smallest.bytes.len() && steps < SHRINKING_STEPS {
            let mut bytes = smallest.bytes.clone();
            bytes.drain(at..at + piece);
            let tried = pair.ask(&bytes, smallest.server);
            steps += 1;
            if !is_explained(&tried) && kind(&tried) == wanted {
                smallest = tried;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    smallest
}

fn show(seed: u64, exchange: &Exchange) -> String {
    let answer = |answers: &[Answer]| {
        let mut text = String::new();
        for Answer { status, location, closes, body } in answers {
            let _ = write!(text, "\n      {status} closes={closes}");
            if let Some(location) = location {
                let _ = write!(text, " location={}", location.escape_ascii());
            }
            let _ = write!(text, " {}", body[..body.len().min(160)].escape_ascii());
        }
        text
    };
    format!(
        "seed {seed}, {}\n  \"{}\" (port {})\n    nginx:{}\n    ours:{}\n",
        kind(exchange),
        exchange.bytes.escape_ascii(),
        exchange.server,
        answer(&exchange.nginx),
        answer(&exchange.ours),
    )
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}: a number")))
}

fn case(seed: u64) -> (Vec<u8>, usize) {
    let mut random = Random::new(seed);
    let bytes = generator::request(&mut random);
    (bytes, 1 + usize::from(random.one_in(4)))
}

#[test]
fn mutated_requests_are_answered_as_by_nginx() {
    let Some(pair) = Pair::start() else { return };
    if let Some(seed) = from_environment("DIFFERENTIAL_SEED") {
        let (bytes, server) = case(seed);
        let exchange = pair.ask(&bytes, server);
        eprintln!("{}", show(seed, &exchange));
        assert!(is_explained(&exchange), "the answers differ");
        return;
    }
    let (start, most, time) = match from_environment("DIFFERENTIAL_SECONDS") {
        Some(seconds) => (Random::from_clock(), u64::MAX, Duration::from_secs(seconds)),
        None => (1, ORDINARY_CASES, ORDINARY_TIME),
    };
    let began = Instant::now();
    let next = AtomicU64::new(0);
    let found = std::sync::Mutex::new(BTreeMap::<String, String>::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while began.elapsed() < time {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= most || found.lock().expect("no panic").len() >= MOST_DIFFERENCES {
                        return;
                    }
                    let seed = start.wrapping_add(number);
                    let (bytes, server) = case(seed);
                    let exchange = pair.ask(&bytes, server);
                    if is_explained(&exchange)
                        || found.lock().expect("no panic").contains_key(&kind(&exchange))
                    {
                        continue;
                    }
                    let exchange = shrink(&pair, exchange);
                    let text = show(seed, &exchange);
                    found.lock().expect("no panic").insert(kind(&exchange), text);
                }
            });
        }
    });
    let found = found.into_inner().expect("no panic");
    let asked = next.into_inner().min(most);
    eprintln!("{asked} cases in {:?}", began.elapsed());
    let shown: Vec<&str> = found.values().map(String::as_str).collect();
    assert!(shown.is_empty(), "of {asked} cases these differ:\n{}", shown.join("\n"));
}

#[test]
fn each_accepted_difference_is_still_one() {
    let Some(pair) = Pair::start() else { return };
    for rule in ACCEPTED {
        let exchange = pair.ask(rule.example, 1);
        assert!(
            exchange.nginx != exchange.ours,
            "{}: no difference any more\n{}",
            rule.what,
            show(0, &exchange)
        );
        assert!((rule.explains)(&exchange), "{}: not explained\n{}", rule.what, show(0, &exchange));
        assert!(!rule.why.is_empty());
    }
}
