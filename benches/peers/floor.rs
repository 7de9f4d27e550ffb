//! The floor under a request's cost: an event loop that answers every read with the same bytes, and does nothing else.
//!
//! What a server takes beyond this is its own work; what this takes is the kernel's, for the system calls that no server
//! can do without: `recv`, `send` (and `sendfile` for a large file), its share of `epoll_wait`. It understands the
//! arguments that `run.py` gives a server just enough to stand in for one, and is measured beside the others when it was
//! built:
//!
//! ```text
//! cargo build --release --bench floor && benches/peers/run.py --scenario 1k-64
//! ```
//!
//! It reads the port and the folder from the configuration's text. What a read yields is taken for whole requests, looked
//! up as it is, and answered with the file that is named between its first two spaces, once for each empty line. Not meant
//! for anything but measuring.

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustix::fs::sendfile;
use slab::Slab;
use std::collections::HashMap;
use std::fs::File;
use std::io::{Error, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

const LISTENER: Token = Token(usize::MAX);
/// Larger files go by `sendfile`, as Thalweg sends them.
const COPY_MAX: usize = 32 * 1024;

/// By what was read.
type Answers = HashMap<Vec<u8>, Rc<Answer>, foldhash::fast::RandomState>;

/// The bytes to send, and the file whose content follows them.
#[derive(Default)]
struct Answer {
    bytes: Vec<u8>,
    file: Option<(File, usize)>,
    closes: bool,
}

impl Answer {
    fn len(&self) -> usize {
        self.bytes.len() + self.file.as_ref().map_or(0, |(_, length)| *length)
    }
}

struct Connection {
    stream: TcpStream,
    answer: Rc<Answer>,
    /// What is sent of it.
    sent: usize,
}

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let Some(at) = arguments.iter().position(|argument| argument == "-c") else {
        println!("floor: an event loop with a canned answer");
        return Ok(());
    };
    let text = std::fs::read_to_string(&arguments[at + 1])?;
    let address = word_after(&text, "listen ").parse().expect("listen ADDRESS:PORT");
    let root = PathBuf::from(word_after(&text, "root "));

    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(address)?;
    // As the configurations have it: many connections come at once.
    rustix::net::listen(&listener, 8192)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(512);
    let mut connections: Slab<Connection> = Slab::new();
    let mut answers = Answers::default();
    let mut buffer = vec![0; 16384];
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    let entry = connections.vacant_entry();
                    let token = Token(entry.key());
                    let connection = entry.insert(Connection { stream, answer: Rc::default(), sent: 0 });
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut connection.stream, token, interest)?;
                }
                continue;
            }
            let Some(connection) = connections.get_mut(event.token().0) else { continue };
            if !turn(connection, event.is_readable(), &mut buffer, &root, &mut answers) {
                connections.remove(event.token().0);
            }
        }
    }
}

/// One event's work; false when the connection is over.
fn turn(
    connection: &mut Connection,
    readable: bool,
    buffer: &mut [u8],
    root: &Path,
    answers: &mut Answers,
) -> bool {
    if connection.sent == connection.answer.len() && readable {
        let count = match connection.stream.read(buffer) {
            Ok(0) => return false,
            Ok(count) => count,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        };
        let request = &buffer[..count];
        connection.answer = answers.get(request).cloned().unwrap_or_else(|| {
            let answer = Rc::new(answer(root, request));
            answers.insert(request.to_owned(), answer.clone());
            answer
        });
        connection.sent = 0;
    }
    while connection.sent < connection.answer.len() {
        match send(connection) {
            Ok(0) => return false,
            Ok(count) => connection.sent += count,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
    !connection.answer.closes
}

/// Sends some of what is left of the answer.
fn send(connection: &mut Connection) -> Result<usize, Error> {
    let answer = &connection.answer;
    if let Some(rest) = answer.bytes.get(connection.sent..).filter(|rest| !rest.is_empty()) {
        return connection.stream.write(rest);
    }
    let Some((file, length)) = &answer.file else { return Ok(0) };
    let mut from = (connection.sent - answer.bytes.len()) as u64;
    let left = length - from as usize;
    Ok(sendfile(&connection.stream, file, Some(&mut from), left)?)
}

fn answer(root: &Path, request: &[u8]) -> Answer {
    let path = request.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    let name = root.join(String::from_utf8_lossy(path).trim_start_matches('/'));
    let times = memchr::memmem::find_iter(request, b"\r\n\r\n").count();
    let closes = memchr::memmem::find(request, b"Connection: close").is_some();
    let connection = if closes { "close" } else { "keep-alive" };
    let (status, body) = match std::fs::read(&name) {
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", b"not found".to_vec()),
    };
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\nServer: floor\r\nDate: Sat, 21 Nov 2026 00:00:00 GMT\r\n\
         Content-Type: application/octet-stream\r\nContent-Length: {}\r\n\
         Last-Modified: Sat, 21 Nov 2026 00:00:00 GMT\r\nConnection: {connection}\r\nETag: \"6920a1b2-400\"\r\n\
         Accept-Ranges: bytes\r\n\r\n",
        body.len()
    )
    .into_bytes();
    if body.len() > COPY_MAX {
        return Answer { bytes, file: File::open(name).ok().map(|file| (file, body.len())), closes };
    }
    bytes.extend(body);
    Answer { bytes: bytes.repeat(times), file: None, closes }
}

fn word_after<'a>(text: &'a str, before: &str) -> &'a str {
    let rest = text.split_once(before).map_or("", |(_, rest)| rest).trim_start();
    rest.split(|c: char| c.is_whitespace() || c == ';').next().unwrap_or_default()
}
