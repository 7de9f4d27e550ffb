//! Bytes both ways without looking at them: an upgraded connection (RFC 9110 section 7.8), or `tunnel_pass`.
//!
//! A tunnel at rest holds two sockets and no buffer. What one side does not take at once is kept, at most one read's
//! worth, and nothing more is read from the other until it went. When one side shuts down, the other is told once
//! everything was forwarded, and may still finish what it has to say; `proxy_read_timeout` without a byte either way
//! ends it.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};

use crate::server::worker::resources::Resources;

use super::{Client, ClientKey, Fate, State};

/// Reads of one direction in one turn.
const READS_PER_TURN: usize = 8;

/// One direction.
#[derive(Debug, Default)]
pub struct Direction {
    /// Read and not taken yet.
    waiting: Vec<u8>,
    /// No more comes.
    ended: bool,
    /// The receiver was told so.
    shut: bool,
}

/// Both directions of a tunnel.
#[derive(Debug, Default)]
pub struct Tunnel {
    /// From the client.
    up: Direction,
    /// From the upstream.
    down: Direction,
    /// Bytes that the client got.
    pub sent: u64,
    /// Bytes that came from the client.
    pub received: u64,
}

/// How one direction's turn ended.
enum Moved {
    /// The source is empty or the receiver full.
    Rests(u64),
    /// The turn's budget is spent.
    Spent(u64),
}

impl Direction {
    /// A direction with bytes that were read before it began.
    pub fn with(waiting: Vec<u8>) -> Direction {
        Direction { waiting, ..Direction::default() }
    }

    /// Moves what is there, `readable` being kept up to date. Counts the bytes that the receiver took.
    fn run(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        readable: &mut bool,
        read_closed: bool,
        buffer: &mut [u8],
    ) -> Result<Moved, Errno> {
        let mut moved = 0;
        for _ in 0..READS_PER_TURN {
            if !self.waiting.is_empty() {
                let count = send(to, &self.waiting)?;
                moved += count as u64;
                if count < self.waiting.len() {
                    self.waiting.drain(..count);
                    return Ok(Moved::Rests(moved));
                }
                self.waiting = Vec::new();
            }
            if self.ended {
                if !self.shut {
                    self.shut = true;
                    rustix::net::shutdown(to, Shutdown::Write)?;
                }
                return Ok(Moved::Rests(moved));
            }
            if !*readable {
                return Ok(Moved::Rests(moved));
            }
            match rustix::net::recv(from, &mut *buffer, RecvFlags::empty()) {
                Ok((0, _)) => self.ended = true,
                Ok((count, _)) => {
                    *readable = count == buffer.len() || read_closed;
                    let sent = send(to, &buffer[..count])?;
                    moved += sent as u64;
                    self.waiting.extend_from_slice(&buffer[sent..count]);
                }
                Err(Errno::AGAIN) => *readable = false,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Moved::Spent(moved))
    }
}

fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    loop {
        match rustix::net::send(socket, bytes, SendFlags::NOSIGNAL) {
            Err(Errno::AGAIN) => return Ok(0),
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

impl Tunnel {
    /// A tunnel that begins with what either side has sent already.
    pub fn new(from_client: Vec<u8>, from_upstream: Vec<u8>) -> Tunnel {
        Tunnel { up: Direction::with(from_client), down: Direction::with(from_upstream), ..Tunnel::default() }
    }

    fn is_over(&self) -> bool {
        self.up.shut && self.down.shut
    }
}

impl Client {
    /// Moves what either side has to say.
    pub fn pump_tunnel(&mut self, key: ClientKey, res: &mut Resources) -> Fate {
        match self.flush(res) {
            Ok(true) => {}
            Ok(false) => {
                self.want_write(key, res);
                return Fate::Keep;
            }
            Err(_) => return Fate::Close,
        }
        let State::Active(active) = &mut self.state else { return Fate::Keep };
        let super::Active { relay: Some(relay), tunnel: Some(tunnel), exchange, .. } = &mut **active else {
            return Fate::Close;
        };
        let Some((socket, link)) = relay.raw(&mut res.links) else { return Fate::Close };
        let buffer = &mut res.copy;
        let read_closed = self.flags.read_closed;
        let up = tunnel.up.run(self.socket.as_fd(), socket, &mut self.flags.unread, read_closed, buffer);
        let down = tunnel.down.run(socket, self.socket.as_fd(), &mut link.readable, link.read_closed, buffer);
        let (Ok(up), Ok(down)) = (up, down) else {
            exchange.outcome.complete = true;
            return Fate::Close;
        };
        let spent = matches!(up, Moved::Spent(_)) || matches!(down, Moved::Spent(_));
        let (Moved::Rests(up) | Moved::Spent(up), Moved::Rests(down) | Moved::Spent(down)) = (up, down);
        tunnel.received += up;
        tunnel.sent += down;
        exchange.outcome.bytes_sent += down;
        exchange.outcome.body_bytes_sent += down;
        relay.note_raw(up, down, exchange, res.env.now.monotonic_ms);
        if tunnel.is_over() {
            exchange.outcome.complete = true;
            return Fate::Close;
        }
        let wants_write = !tunnel.down.waiting.is_empty();
        let deadline_ms = relay.deadline_ms();
        if wants_write {
            self.want_write(key, res);
        }
        if spent {
            res.make_ready(self, key);
        }
        self.set_deadline(deadline_ms);
        Fate::Keep
    }
}
