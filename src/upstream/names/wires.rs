//! Servers and the queries on their way to them.

use std::collections::VecDeque;
use std::net::SocketAddr;

use slab::Slab;

use crate::proto::dns::{DnsName, RecordType, write_query};

/// Milliseconds that a server which kept silent is asked only where no other is left.
const REST_MS: u64 = 10_000;

/// Names a query; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueryId {
    index: u32,
    generation: u32,
}

/// How a query travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram.
    Udp,
    /// Over a connection, two bytes of length before each message (RFC 1035 section 4.2.2).
    Tcp,
}

/// A message to send, from a fresh socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The query that it is.
    pub query: QueryId,
    /// Where to.
    pub server: SocketAddr,
    /// How.
    pub transport: Transport,
    /// The bytes; over TCP their length is in front already.
    pub bytes: Vec<u8>,
}

/// What happened, for `status_zone` and for tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Lookups of addresses and of services.
    pub lookups: u64,
    /// Lookups that were answered from memory.
    pub cached: u64,
    /// Queries sent.
    pub queries: u64,
    /// Replies by their code, 0 to 15.
    pub replies: [u64; 16],
    /// Messages from elsewhere, with another number, or to another question.
    pub ignored: u64,
    /// Replies that could not be read.
    pub malformed: u64,
    /// Lookups that were given up.
    pub timed_out: u64,
}

/// Which question of which flight a query belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub flight: u64,
    pub slot: usize,
}

pub(super) struct Query {
    generation: u32,
    pub owner: Owner,
    pub server: usize,
    pub transport: Transport,
    pub name: DnsName,
    pub record: RecordType,
    /// Drawn when it is sent.
    id: Option<u16>,
}

struct Server {
    address: SocketAddr,
    resting_until_ms: u64,
}

#[derive(Default)]
pub(super) struct Wires {
    servers: Vec<Server>,
    /// Who is asked next.
    rotation: usize,
    queries: Slab<Query>,
    generation: u32,
    to_send: VecDeque<QueryId>,
    closed: VecDeque<QueryId>,
    pub counters: Counters,
}

impl Wires {
    /// Adds a server; one that is there already is not added.
    pub fn add_server(&mut self, address: SocketAddr) {
        if self.servers.iter().all(|server| server.address != address) {
            self.servers.push(Server { address, resting_until_ms: 0 });
        }
    }

    /// Whether there is anyone to ask.
    pub fn has_servers(&self) -> bool {
        !self.servers.is_empty()
    }

    /// The next server in turn that is none of `failed`: rather one that is not being asked this question already, and
    /// rather one that answers.
    pub fn choose(&mut self, failed: &[usize], asked: &[usize], now_ms: u64) -> Option<usize> {
        let count = self.servers.len();
        let misery = |index: &usize| {
            let resting = self.servers[*index].resting_until_ms > now_ms;
            (resting, asked.contains(index))
        };
        let in_turn = (0..count).map(|step| (self.rotation + step) % count);
        let chosen = in_turn.filter(|index| !failed.contains(index)).min_by_key(misery)?;
        self.rotation = (chosen + 1) % count;
        Some(chosen)
    }

    /// Queues a query to be sent by [`Wires::transmit`].
    pub fn open(
        &mut self,
        owner: Owner,
        server: usize,
        transport: Transport,
        name: &DnsName,
        record: RecordType,
    ) -> QueryId {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let query = Query { generation, owner, server, transport, name: name.clone(), record, id: None };
        let id = QueryId { index: self.queries.insert(query) as u32, generation };
        self.to_send.push_back(id);
        id
    }

    /// A query that is open.
    pub fn get(&self, id: QueryId) -> Option<&Query> {
        self.queries.get(id.index as usize).filter(|query| query.generation == id.generation)
    }

    /// Nobody waits for a query any more; if it was sent, its socket is to be closed.
    pub fn close(&mut self, id: QueryId) {
        if self.get(id).is_some() {
            let query = self.queries.remove(id.index as usize);
            // What was never sent has no socket.
            if query.id.is_some() {
                self.closed.push_back(id);
            }
        }
    }

    /// The number and the server of a query that was sent.
    pub fn sent_as(&self, id: QueryId) -> Option<(u16, SocketAddr)> {
        let query = self.get(id)?;
        Some((query.id?, self.servers[query.server].address))
    }

    /// The server of a query did not answer in time: others are preferred for a while.
    pub fn note_silence(&mut self, id: QueryId, now_ms: u64) {
        if let Some(server) = self.get(id).map(|query| query.server) {
            self.servers[server].resting_until_ms = now_ms + REST_MS;
        }
    }

    /// A server has answered: it is as good as any.
    pub fn note_answer(&mut self, server: usize) {
        self.servers[server].resting_until_ms = 0;
    }

    /// The next message to be sent, under a number drawn at random (RFC 5452 section 9.2).
    pub fn transmit(&mut self, rng: &mut fastrand::Rng) -> Option<Transmit> {
        while let Some(id) = self.to_send.pop_front() {
            // One that was closed meanwhile is not sent.
            if self.get(id).is_none() {
                continue;
            }
            let number = self.draw(rng);
            let query = &mut self.queries[id.index as usize];
            query.id = Some(number);
            let message = write_query(number, &query.name, query.record);
            let bytes = match query.transport {
                Transport::Udp => message,
                Transport::Tcp => [&(message.len() as u16).to_be_bytes()[..], &message].concat(),
            };
            self.counters.queries += 1;
            let server = self.servers[query.server].address;
            return Some(Transmit { query: id, server, transport: query.transport, bytes });
        }
        None
    }

    /// A number that no open query has; there are far fewer of them than numbers.
    fn draw(&self, rng: &mut fastrand::Rng) -> u16 {
        let mut number = rng.u16(..);
        while self.queries.iter().any(|(_, query)| query.id == Some(number)) {
            number = number.wrapping_add(1);
        }
        number
    }

    /// The next query whose socket is to be closed.
    pub fn take_closed(&mut self) -> Option<QueryId> {
        self.closed.pop_front()
    }

    /// How many queries are open.
    #[cfg(test)]
    pub fn open_queries(&self) -> usize {
        self.queries.len()
    }
}
