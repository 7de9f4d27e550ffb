//! The floor under a request's cost: an event loop that answers every read with the same bytes, and does nothing else.
//!
//! What a server takes beyond this is its own work; what this takes is the kernel's. It understands the arguments that
//! `run.py` gives a server just enough to stand in for one:
//!
//! ```text
//! cargo build --release --bench floor
//! benches/peers/run.py --binary target/release/deps/floor-* --scenario 1k-64
//! ```
//!
//! It reads the port and the folder from the configuration's text and answers with the file named in the first request
//! that a connection sends, so each scenario of one file works (not the pipelined one: it answers once per read). Not meant for anything but measuring.

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

const LISTENER: Token = Token(usize::MAX);

struct Connection {
    stream: TcpStream,
    /// What is still to be written of the answer.
    from: usize,
    answer: std::rc::Rc<Vec<u8>>,
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
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(512);
    let mut connections: Slab<Connection> = Slab::new();
    let mut answers = HashMap::new();
    let mut buffer = vec![0; 16384];
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    let entry = connections.vacant_entry();
                    let token = Token(entry.key());
                    let connection = entry.insert(Connection { stream, from: 0, answer: Default::default() });
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
    answers: &mut HashMap<Vec<u8>, std::rc::Rc<Vec<u8>>>,
) -> bool {
    if connection.from == connection.answer.len() && readable {
        let count = match connection.stream.read(buffer) {
            Ok(0) => return false,
            Ok(count) => count,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        };
        let path = buffer[..count].split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        let known = answers.get(path).cloned();
        connection.answer = known.unwrap_or_else(|| {
            let answer = std::rc::Rc::new(answer(root, path));
            answers.insert(path.to_owned(), answer.clone());
            answer
        });
        connection.from = 0;
    }
    while connection.from < connection.answer.len() {
        match connection.stream.write(&connection.answer[connection.from..]) {
            Ok(count) => connection.from += count,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
    true
}

fn answer(root: &Path, path: &[u8]) -> Vec<u8> {
    let name = String::from_utf8_lossy(path).into_owned();
    let (status, body) = match std::fs::read(root.join(name.trim_start_matches('/'))) {
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", b"not found".to_vec()),
    };
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nServer: floor\r\nDate: Sat, 21 Nov 2026 00:00:00 GMT\r\n\
         Content-Type: application/octet-stream\r\nContent-Length: {}\r\n\
         Last-Modified: Sat, 21 Nov 2026 00:00:00 GMT\r\nConnection: keep-alive\r\nETag: \"6920a1b2-400\"\r\n\
         Accept-Ranges: bytes\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend(body);
    answer
}

fn word_after<'a>(text: &'a str, before: &str) -> &'a str {
    let rest = text.split_once(before).map_or("", |(_, rest)| rest).trim_start();
    rest.split(|c: char| c.is_whitespace() || c == ';').next().unwrap_or_default()
}
