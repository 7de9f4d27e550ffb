//! Bytes both ways without looking at them: an upgraded connection (RFC 9110 section 7.8), or `tunnel_pass`.
//!
//! A tunnel at rest holds two sockets and no buffer. What one side does not take at once is kept, at most one read's
//! worth, and nothing more is read from the other until it went. When one side shuts down, the other is told once
//! everything was forwarded, and may still finish what it has to say; `proxy_read_timeout` without a byte either way
//! ends it.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};

use crate::server::relay::links::Link;
use crate::server::relay::multiplexed::StreamTunnel;
use crate::server::relay::tls::TlsLayer;
use crate::server::worker::resources::Resources;

use super::kernel_tls::KernelTls;
use super::tls::TlsSocket;
use super::transport::Transport;
use super::{Client, ClientKey, Fate, State};

/// A record of TLS with all that may be around it.
const RECORD_MAX: usize = 18 * 1024;
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

/// One side of a tunnel, as the other sees it.
pub(super) trait End {
    /// Reads some, and says whether more may be there; 0 at the end, `INTR` where there is nothing to show for it yet.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<(usize, bool), Errno>;
    /// Sends as much as it takes.
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Errno>;
    /// Says that nothing more comes.
    fn shut_down(&mut self) -> Result<(), Errno>;
}

/// A bare socket.
struct Bare<'a>(BorrowedFd<'a>);

impl End for Bare<'_> {
    fn receive(&mut self, buffer: &mut [u8]) -> Result<(usize, bool), Errno> {
        let (count, _) = rustix::net::recv(self.0, &mut *buffer, RecvFlags::empty())?;
        Ok((count, count == buffer.len()))
    }

    fn send(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        loop {
            match rustix::net::send(self.0, bytes, SendFlags::NOSIGNAL) {
                Err(Errno::AGAIN) => return Ok(0),
                Err(Errno::INTR) => {}
                other => return other,
            }
        }
    }

    fn shut_down(&mut self) -> Result<(), Errno> {
        rustix::net::shutdown(self.0, Shutdown::Write)
    }
}

/// A socket whose bytes the kernel encrypts.
impl End for &KernelTls {
    fn receive(&mut self, buffer: &mut [u8]) -> Result<(usize, bool), Errno> {
        KernelTls::receive(self, buffer).map(|count| (count, true))
    }

    fn send(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let count = Bare(self.socket()).send(bytes)?;
        if count > 0 {
            self.count(count as u64)?;
        }
        Ok(count)
    }

    fn shut_down(&mut self) -> Result<(), Errno> {
        self.owe_goodbye();
        self.say_goodbye()?;
        Bare(self.socket()).shut_down()
    }
}

/// A socket under TLS.
struct Sealed<'a> {
    tls: &'a mut TlsSocket,
    unsent: &'a mut Vec<u8>,
    plaintext: &'a mut Vec<u8>,
}

impl End for Sealed<'_> {
    fn receive(&mut self, buffer: &mut [u8]) -> Result<(usize, bool), Errno> {
        // What an earlier read left of a record may come on top.
        let most = buffer.len().saturating_sub(RECORD_MAX);
        let (count, _) = rustix::net::recv(self.tls.socket.as_fd(), &mut buffer[..most], RecvFlags::empty())?;
        if count == 0 {
            return Ok((0, false));
        }
        self.plaintext.clear();
        self.tls.decrypt(&buffer[..count], self.plaintext, self.unsent)?;
        let length = self.plaintext.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.plaintext[..length]);
        match length {
            0 if !self.tls.has_ended() => Err(Errno::INTR),
            _ => Ok((length, count == most)),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        self.tls.send(bytes, self.unsent)
    }

    fn shut_down(&mut self) -> Result<(), Errno> {
        self.tls.say_goodbye(self.unsent);
        self.tls.flush(self.unsent, SendFlags::NOSIGNAL)?;
        rustix::net::shutdown(self.tls.socket.as_fd(), Shutdown::Write)
    }
}

/// An upstream's socket under TLS.
struct SealedUpstream<'a> {
    socket: BorrowedFd<'a>,
    tls: &'a mut TlsLayer,
    link: Link,
}

impl End for SealedUpstream<'_> {
    fn receive(&mut self, buffer: &mut [u8]) -> Result<(usize, bool), Errno> {
        let count = self.tls.receive(self.socket, buffer, &mut self.link)?.ok_or(Errno::AGAIN)?;
        Ok((count, self.link.readable))
    }

    fn send(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        self.tls.send(self.socket, bytes, SendFlags::NOSIGNAL)
    }

    fn shut_down(&mut self) -> Result<(), Errno> {
        self.tls.shut_down(self.socket)
    }
}

impl End for &StreamTunnel {
    fn receive(&mut self, buffer: &mut [u8]) -> Result<(usize, bool), Errno> {
        StreamTunnel::receive(self, buffer)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        StreamTunnel::send(self, bytes)
    }

    fn shut_down(&mut self) -> Result<(), Errno> {
        StreamTunnel::shut_down(self);
        Ok(())
    }
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
        from: &mut dyn End,
        to: &mut dyn End,
        readable: &mut bool,
        read_closed: bool,
        buffer: &mut [u8],
    ) -> Result<Moved, Errno> {
        let mut moved = 0;
        for _ in 0..READS_PER_TURN {
            if !self.waiting.is_empty() {
                let count = to.send(&self.waiting)?;
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
                    to.shut_down()?;
                }
                return Ok(Moved::Rests(moved));
            }
            if !*readable {
                return Ok(Moved::Rests(moved));
            }
            match from.receive(buffer) {
                Ok((0, _)) => self.ended = true,
                Ok((count, more)) => {
                    *readable = more || read_closed;
                    let sent = to.send(&buffer[..count])?;
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
        let stream = relay.raw_stream();
        let (mut connection, mut of_stream) = (None, true);
        if stream.is_none() {
            let Some((own, link)) = relay.raw(&mut res.links) else { return Fate::Close };
            if own.flush().is_err() {
                exchange.outcome.complete = true;
                return Fate::Close;
            }
            connection = Some((own, link));
        }
        let buffer = &mut res.copy;
        let read_closed = self.flags.read_closed;
        let (mut bare_upstream, mut sealed_upstream, mut stream_end);
        let (upstream, readable, ends): (&mut dyn End, &mut bool, bool) = match (&mut connection, &stream) {
            (Some((own, link)), _) => match &mut own.tls {
                None => {
                    bare_upstream = Bare(own.socket.as_fd());
                    (&mut bare_upstream, &mut link.readable, link.read_closed)
                }
                Some(tls) => {
                    sealed_upstream = SealedUpstream { socket: own.socket.as_fd(), tls, link: **link };
                    (&mut sealed_upstream, &mut link.readable, link.read_closed)
                }
            },
            (None, Some(stream)) => {
                // Asking a slot costs no system call.
                stream_end = stream;
                (&mut stream_end, &mut of_stream, false)
            }
            (None, None) => return Fate::Close,
        };
        let (mut bare, mut by_kernel, mut sealed);
        let client: &mut dyn End = match &mut self.transport {
            Transport::Plain(socket) => {
                bare = Bare((*socket).as_fd());
                &mut bare
            }
            Transport::Kernel(kernel) => {
                by_kernel = &**kernel;
                &mut by_kernel
            }
            Transport::Tls(tls) => {
                sealed = Sealed { tls, unsent: &mut self.unsent, plaintext: &mut res.plaintext };
                &mut sealed
            }
            Transport::Stream(end) => {
                // Asking a slot costs no system call.
                self.flags.unread = true;
                end
            }
            Transport::Pipe(_) | Transport::Gone => return Fate::Close,
        };
        let up = tunnel.up.run(client, upstream, &mut self.flags.unread, read_closed, buffer);
        let down = tunnel.down.run(upstream, client, readable, ends, buffer);
        let owes = connection.is_some_and(|(own, _)| own.owes());
        if let Some(stream) = &stream {
            stream.flush(res);
        }
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
        if tunnel.is_over() && !owes {
            exchange.outcome.complete = true;
            return Fate::Close;
        }
        let wants_write = !tunnel.down.waiting.is_empty() || !self.unsent.is_empty();
        let deadline_ms = relay.deadline_ms();
        match self.lane() {
            Some(lane) => lane.want_turn(wants_write),
            None if wants_write => self.want_write(key, res),
            None => {}
        }
        if spent {
            res.make_ready(self, key);
        }
        self.set_deadline(deadline_ms);
        Fate::Keep
    }
}
