//! Sockets to upstreams and the poll: who is told of their events, and what is known of their readiness.
//!
//! A link lives as long as its socket. It is registered once, for both directions (the poll is edge-triggered), when
//! the socket is made; a connection that goes from a request to the idle pool and on to the next request changes its
//! link's owner and costs no system call.

use std::os::fd::{AsRawFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use slab::Slab;

use crate::server::client::ClientKey;

/// Tokens of links have this bit, and not the one above it, which listeners have; those of clients have neither.
pub const LINK_BIT: usize = 1 << 62;

/// Generations use so many bits, so that a token keeps its two highest for its kind.
pub const GENERATION_MASK: u32 = (1 << 30) - 1;

/// Names a link: its place and the generation of its tenancy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkKey {
    index: u32,
    generation: u32,
}

impl LinkKey {
    fn token(self) -> Token {
        Token(LINK_BIT | (self.generation as usize) << 32 | self.index as usize)
    }

    /// Back from a token with [`LINK_BIT`].
    pub fn from_token(token: usize) -> LinkKey {
        LinkKey { index: token as u32, generation: (token >> 32) as u32 & GENERATION_MASK }
    }
}

/// Who is told of a link's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The client whose request it serves.
    Client(ClientKey),
    /// Nobody: the connection is idle in the pool.
    Pool,
    /// The health check with this number.
    Probe(u32),
    /// The connection of many requests with this number.
    Mux(u32),
}

/// What is known of a socket.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    generation: u32,
    /// Who is told.
    pub owner: Owner,
    /// There may be something to read.
    pub readable: bool,
    /// There may be room to write.
    pub writable: bool,
    /// The peer has shut its side down, or the connection is broken: a short read does not mean that nothing is left.
    pub read_closed: bool,
}

/// All links of a worker.
#[derive(Default)]
pub struct Links {
    slab: Slab<Link>,
    generation: u32,
}

impl Links {
    /// Registers a socket.
    ///
    /// # Errors
    /// The poll does not take it (out of memory or of watches).
    pub fn open(&mut self, registry: &Registry, socket: &OwnedFd, owner: Owner) -> std::io::Result<LinkKey> {
        self.generation = self.generation.wrapping_add(1) & GENERATION_MASK;
        let generation = self.generation;
        let link = Link { generation, owner, readable: false, writable: false, read_closed: false };
        let index = self.slab.insert(link) as u32;
        let key = LinkKey { index, generation };
        let interest = Interest::READABLE.add(Interest::WRITABLE);
        if let Err(error) = registry.register(&mut SourceFd(&socket.as_raw_fd()), key.token(), interest) {
            self.slab.remove(index as usize);
            return Err(error);
        }
        Ok(key)
    }

    /// Forgets a link. Closing its socket takes it out of the poll.
    pub fn close(&mut self, key: LinkKey) {
        if self.get(key).is_some() {
            self.slab.remove(key.index as usize);
        }
    }

    /// A link, unless it is gone.
    pub fn get(&mut self, key: LinkKey) -> Option<&mut Link> {
        self.slab.get_mut(key.index as usize).filter(|link| link.generation == key.generation)
    }

    /// Notes what the poll reported; says whom to tell. Nobody is told that an idle connection has room: the poll says
    /// so again whenever a packet came, even if what came with it was read before.
    pub fn note(&mut self, key: LinkKey, event: &mio::event::Event) -> Option<Owner> {
        let link = self.get(key)?;
        let closed = event.is_read_closed() || event.is_error();
        link.readable |= event.is_readable() || closed;
        link.writable |= event.is_writable() || event.is_error();
        link.read_closed |= closed;
        (link.owner != Owner::Pool || link.readable).then_some(link.owner)
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::{Link, Owner};

    /// A link of nobody's, about which nothing is known.
    pub fn link() -> Link {
        Link { generation: 0, owner: Owner::Pool, readable: true, writable: true, read_closed: false }
    }
}
