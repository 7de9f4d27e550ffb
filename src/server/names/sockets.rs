//! The sockets of queries: one for each, so that each has a source port that the kernel drew.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mio::net::{TcpStream, UdpSocket};
use mio::{Interest, Token};
use slab::Slab;

use crate::upstream::names::{QueryId, Transmit, Transport};

/// Sockets that are open at a time, of all resolvers of a worker.
const MAX_SOCKETS: usize = 2048;
/// Longest datagram that is read whole. Without EDNS, 512 bytes is the most that a server may send.
const DATAGRAM: usize = 4096;
/// Datagrams that are read in one turn; what is left makes another event.
const DATAGRAMS_A_TURN: usize = 16;
/// Longest message over TCP, with its length in front.
const STREAM: usize = 2 + u16::MAX as usize;

/// Bits of a socket's number that are its place; those above are its generation.
const INDEX_BITS: u32 = 16;

/// Which query of which resolver a socket is for.
pub(super) type Purpose = (u32, QueryId);

enum Channel {
    Udp(UdpSocket),
    Tcp {
        stream: TcpStream,
        /// What is still to be sent.
        out: Vec<u8>,
        /// What came so far.
        input: Vec<u8>,
    },
}

struct Socket {
    generation: u32,
    purpose: Purpose,
    server: SocketAddr,
    channel: Channel,
}

/// What came of an event.
pub(super) enum Came {
    /// A whole message.
    Message(Purpose, SocketAddr, Transport, Vec<u8>),
    /// The socket broke.
    Broken(Purpose),
}

#[derive(Default)]
pub(super) struct Sockets {
    sockets: Slab<Socket>,
    generation: u32,
    by_purpose: HashMap<Purpose, usize>,
}

impl Sockets {
    /// Opens a socket for a query and sends it, or begins to. The token is made of the socket's number.
    pub fn open(
        &mut self,
        plan: u32,
        transmit: Transmit,
        registry: &mio::Registry,
        token_of: fn(u64) -> Token,
    ) -> io::Result<()> {
        if self.sockets.len() >= MAX_SOCKETS {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let Transmit { query, server, transport, bytes } = transmit;
        self.generation = self.generation.wrapping_add(1);
        let place = self.sockets.vacant_entry();
        let index = place.key();
        let token = token_of(u64::from(self.generation) << INDEX_BITS | index as u64);
        let channel = match transport {
            Transport::Udp => {
                let any: IpAddr = match server {
                    SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                    SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                };
                let mut socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
                // Connected, the kernel keeps everybody else's datagrams away and reports a port that is closed.
                socket.connect(server)?;
                registry.register(&mut socket, token, Interest::READABLE)?;
                match socket.send(&bytes) {
                    // No room to send it: as good as lost on the way, and repeated like that.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    sent => drop(sent?),
                }
                Channel::Udp(socket)
            }
            Transport::Tcp => {
                let mut stream = TcpStream::connect(server)?;
                registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
                Channel::Tcp { stream, out: bytes, input: Vec::new() }
            }
        };
        let purpose = (plan, query);
        place.insert(Socket { generation: self.generation, purpose, server, channel });
        self.by_purpose.insert(purpose, index);
        Ok(())
    }

    /// Closes the socket of a query, if it has one.
    pub fn close(&mut self, purpose: Purpose) {
        if let Some(index) = self.by_purpose.remove(&purpose) {
            // Dropping the socket closes it, which takes it out of the poll as well.
            self.sockets.remove(index);
        }
    }

    /// An event on the socket with this number; one for a former socket is ignored.
    pub fn on_event(&mut self, number: u64, registry: &mio::Registry, token: Token) -> Vec<Came> {
        let (index, generation) = (number & ((1 << INDEX_BITS) - 1), number >> INDEX_BITS);
        let socket = self.sockets.get_mut(index as usize);
        let Some(socket) = socket.filter(|socket| u64::from(socket.generation) == generation) else {
            return Vec::new();
        };
        match &mut socket.channel {
            Channel::Udp(udp) => {
                let mut came = Vec::new();
                match read_datagrams(udp, socket.purpose, socket.server, &mut came) {
                    Ok(true) => {}
                    // Another event comes only for what is asked for anew.
                    Ok(false) if registry.reregister(udp, token, Interest::READABLE).is_ok() => {}
                    _ => came.push(Came::Broken(socket.purpose)),
                }
                came
            }
            Channel::Tcp { stream, out, input } => match run_stream(stream, out, input) {
                Ok(None) => Vec::new(),
                Ok(Some(message)) => {
                    vec![Came::Message(socket.purpose, socket.server, Transport::Tcp, message)]
                }
                Err(_) => vec![Came::Broken(socket.purpose)],
            },
        }
    }

    /// How many are open.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.sockets.len()
    }
}

/// Reads what is there; `false` if there may be more.
fn read_datagrams(
    socket: &UdpSocket,
    purpose: Purpose,
    server: SocketAddr,
    came: &mut Vec<Came>,
) -> io::Result<bool> {
    let mut buffer = [0; DATAGRAM];
    for _ in 0..DATAGRAMS_A_TURN {
        match socket.recv(&mut buffer) {
            Ok(length) => {
                came.push(Came::Message(purpose, server, Transport::Udp, buffer[..length].to_vec()));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Sends what is to be sent and reads what is there: a message once it is whole.
fn run_stream(stream: &mut TcpStream, out: &mut Vec<u8>, input: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    while !out.is_empty() {
        match stream.write(out) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => drop(out.drain(..count)),
            Err(error) if is_not_yet(&error) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let mut buffer = [0; DATAGRAM];
    // What the bound on a message's length leaves room for.
    while input.len() < STREAM {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => input.extend_from_slice(&buffer[..count]),
            Err(error) if is_not_yet(&error) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if let Some((length, rest)) = input.split_first_chunk()
            && let Some(message) = rest.get(..usize::from(u16::from_be_bytes(*length)))
        {
            return Ok(Some(message.to_vec()));
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

/// Not connected yet, or no room and no bytes for now.
fn is_not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected)
}
