//! A worker: one thread, one loop, its connections.

use crate::http::site::Site;
use crate::server::listeners::WorkerListener;
use crate::server::runtime::{WAKE_TOKEN, WorkerBoot, WorkerCommand};
use mio::unix::SourceFd;
use mio::{Events, Interest, Token};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;

/// Runs until it is told to end.
pub fn run(boot: WorkerBoot) {
    let mut worker = Worker {
        site: boot.site,
        poll: boot.poll,
        listeners: HashMap::new(),
        connections: HashMap::new(),
        next_token: 0,
        quitting: None,
    };
    worker.listen(boot.listeners);
    let mut events = Events::with_capacity(256);
    loop {
        let timeout = worker.quitting.flatten().map(|at| at.saturating_duration_since(Instant::now()));
        if worker.poll.poll(&mut events, timeout).is_err() {
            continue;
        }
        let tokens: Vec<Token> = events.iter().map(|event| event.token()).collect();
        for token in tokens {
            if token != WAKE_TOKEN {
                worker.ready(token);
            }
        }
        while let Ok(command) = boot.commands.try_recv() {
            match command {
                WorkerCommand::Configure { site, listeners } => {
                    worker.site = site;
                    worker.listen(listeners);
                }
                WorkerCommand::ReopenLogs => {}
                WorkerCommand::Quit { deadline } => {
                    worker.quitting = Some(deadline);
                    worker.listen(Vec::new());
                    worker.connections.retain(|_, known| !known.served || !known.input.is_empty());
                }
                WorkerCommand::Terminate => return,
            }
        }
        if let Some(deadline) = worker.quitting {
            let late = deadline.is_some_and(|at| Instant::now() >= at);
            if late || worker.connections.is_empty() {
                return;
            }
        }
    }
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    served: bool,
}

struct Worker {
    site: Arc<Site>,
    poll: mio::Poll,
    listeners: HashMap<Token, WorkerListener>,
    connections: HashMap<Token, Connection>,
    next_token: usize,
    quitting: Option<Option<Instant>>,
}

impl Worker {
    fn token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token)
    }

    fn listen(&mut self, listeners: Vec<WorkerListener>) {
        for (token, old) in std::mem::take(&mut self.listeners) {
            let stays = listeners.iter().any(|new| Arc::ptr_eq(&new.socket, &old.socket));
            let _ = self.poll.registry().deregister(&mut SourceFd(&old.socket.as_raw_fd()));
            if !stays {
                self.listeners.insert(token, old);
                self.accept(token);
                self.listeners.remove(&token);
            }
        }
        for listener in listeners {
            let token = self.token();
            let raw = listener.socket.as_raw_fd();
            let _ = self.poll.registry().register(&mut SourceFd(&raw), token, Interest::READABLE);
            self.listeners.insert(token, listener);
        }
    }

    fn accept(&mut self, token: Token) {
        let socket = Arc::clone(&self.listeners[&token].socket);
        while let Ok(accepted) = socket.accept() {
            let stream = TcpStream::from(accepted);
            let token = self.token();
            let both = Interest::READABLE;
            let _ = self.poll.registry().register(&mut SourceFd(&stream.as_raw_fd()), token, both);
            self.connections.insert(token, Connection { stream, input: Vec::new(), served: false });
            self.ready(token);
        }
    }

    fn ready(&mut self, token: Token) {
        if self.listeners.contains_key(&token) {
            return self.accept(token);
        }
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let mut buffer = [0; 4096];
        loop {
            match connection.stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => connection.input.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    let Some(end) = memchr::memmem::find(&connection.input, b"\r\n\r\n") else { return };
                    connection.input.drain(..end + 4);
                    connection.served = true;
                    let body = &self.site.answer;
                    let length = body.len();
                    let close = if self.quitting.is_some() { "Connection: close\r\n" } else { "" };
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{close}\r\n{body}");
                    let written = connection.stream.write_all(head.as_bytes());
                    if written.is_err() || self.quitting.is_some() {
                        break;
                    }
                    return;
                }
                Err(_) => break,
            }
        }
        self.connections.remove(&token);
    }
}
