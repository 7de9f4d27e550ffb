//! Scripted upstreams: their listening sockets, which go and come, and what they answer.

use std::borrow::Cow;

use socket2::Socket;

use super::dice::Dice;
use super::laws::{Ledger, Role};
use super::line::{Address, Line};
use super::{upstream_h1, upstream_h2};

/// All of a configuration's upstreams.
pub struct Upstreams {
    addresses: Vec<Address>,
    listeners: Vec<Option<Socket>>,
    connections: Vec<Connection>,
    speaks_h2: bool,
}

enum Connection {
    H1(Box<upstream_h1::Connection>),
    H2(Box<upstream_h2::Connection>),
}

impl Upstreams {
    pub fn new(addresses: Vec<Address>, speaks_h2: bool) -> Upstreams {
        let listeners = addresses.iter().map(Address::listen).collect();
        Upstreams { addresses, listeners, connections: Vec::new(), speaks_h2 }
    }

    pub fn step(&mut self, now_ms: u64, ledger: &mut Ledger, dice: &mut Dice) -> Result<(), String> {
        if self.connections.is_empty() {
            self.accept(now_ms, ledger, dice);
            return Ok(());
        }
        let at = dice.below(self.connections.len());
        self.connections[at].step(now_ms, ledger, dice)
    }

    /// Takes a connection, or a listening socket goes or comes.
    pub fn accept(&mut self, now_ms: u64, ledger: &Ledger, dice: &mut Dice) {
        let at = dice.below(self.listeners.len());
        if ledger.faults && dice.one_in(40) {
            self.listeners[at] = match self.listeners[at] {
                Some(_) => None,
                None => self.addresses[at].listen(),
            };
            return;
        }
        self.accept_from(at, now_ms, dice);
    }

    fn accept_from(&mut self, at: usize, now_ms: u64, dice: &mut Dice) {
        if let Some(Ok((socket, _))) = self.listeners[at].as_ref().map(Socket::accept) {
            let line = Line::new(socket);
            self.connections.push(match self.speaks_h2 {
                true => Connection::H2(Box::new(upstream_h2::Connection::new(line, now_ms, dice))),
                false => Connection::H1(Box::new(upstream_h1::Connection::new(line))),
            });
        }
    }

    /// Everybody is there, and does something.
    pub fn step_all(&mut self, now_ms: u64, ledger: &mut Ledger, dice: &mut Dice) -> Result<(), String> {
        for at in 0..self.listeners.len() {
            if self.listeners[at].is_none() {
                self.listeners[at] = self.addresses[at].listen();
            }
            self.accept_from(at, now_ms, dice);
        }
        for connection in &mut self.connections {
            connection.step(now_ms, ledger, dice)?;
        }
        self.connections.retain(|connection| !connection.is_closed());
        Ok(())
    }

    /// All connections end.
    pub fn clear(&mut self) {
        self.connections.clear();
        for listener in self.listeners.iter().flatten() {
            while listener.accept().is_ok() {}
        }
    }
}

impl Connection {
    fn step(&mut self, now_ms: u64, ledger: &mut Ledger, dice: &mut Dice) -> Result<(), String> {
        match self {
            Connection::H1(connection) => connection.step(ledger, dice),
            Connection::H2(connection) => connection.step(now_ms, ledger, dice),
        }
    }

    fn is_closed(&self) -> bool {
        match self {
            Connection::H1(connection) => connection.is_closed(),
            Connection::H2(connection) => connection.is_closed(),
        }
    }
}

/// What an upstream answers.
pub struct Answer {
    pub status: u16,
    pub body: Cow<'static, [u8]>,
    /// Only its head is sent.
    pub is_head: bool,
}

impl Answer {
    pub fn new(id: usize, role: Role, ledger: &Ledger) -> Answer {
        let record = ledger.record(id);
        let body = match role {
            Role::Main => record.page(id),
            Role::Piece | Role::Check | Role::Mirror => Cow::Borrowed(record.piece),
        };
        Answer {
            status: if role == Role::Check && record.is_denied { 403 } else { 200 },
            body,
            is_head: false,
        }
    }
}

/// How a connection of an upstream goes on.
#[derive(Clone, Copy, PartialEq)]
pub enum Ending {
    /// It goes on.
    Open,
    /// It is closed when everything is out.
    Close,
    /// It is reset when everything is out.
    Reset,
    /// It says nothing more.
    Silent,
}

/// How one breaks.
pub const BREAKS: &[Ending] = &[Ending::Close, Ending::Reset, Ending::Silent];
