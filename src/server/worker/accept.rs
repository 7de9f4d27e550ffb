//! Accepting: fair, bounded, and calm when descriptors run out.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::net::SocketAddrAny;

use crate::base::level::Level;
use crate::conf::listen::{ListenAddress, SocketPlan};
use crate::http::exchange::{ConnectionFacts, Endpoint};
use crate::http::site::SiteHandle;
use crate::proto::h1;
use crate::proto::proxy_protocol::ProxyReader;
use crate::server::client::{Client, ClientKey, Flags, State};
use crate::server::listeners::{ListenSocket, describe};

use super::Worker;
use super::balance::{Handed, endpoint_of};

/// Connections that one turn accepts from one socket; `multi_accept` takes all that wait.
const ACCEPTS_PER_TURN: usize = 64;

/// How long accepting rests when descriptors ran out, in milliseconds (as in nginx).
const REST_MS: u64 = 500;

/// A listening socket of the worker.
pub struct Listener {
    /// The socket; `None` when it was deregistered and only its connections are left.
    pub socket: Option<Arc<ListenSocket>>,
    /// Which servers its connections belong to, in `site`.
    pub plan: Arc<SocketPlan>,
    /// The last site that had it.
    pub site: SiteHandle,
    /// Connections that came from it.
    pub clients: usize,
    /// Whether the PROXY protocol is spoken on it.
    pub proxy_protocol: bool,
}

impl Worker {
    /// Accepts what waits on a listening socket, within the turn's budget.
    pub fn accept(&mut self, number: usize) {
        let Some(Some(listener)) = self.res.listeners.get(number) else { return };
        let Some(socket) = listener.socket.clone() else { return };
        let most = if self.res.site.main.multi_accept { usize::MAX } else { ACCEPTS_PER_TURN };
        for _ in 0..most {
            if !self.make_room() {
                self.rest_accepting("worker_connections are not enough");
                return;
            }
            match socket.accept_from() {
                Ok((accepted, peer)) => self.place(number, accepted, peer.and_then(inet_address)),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return,
                    Some(libc::EINTR | libc::ECONNABORTED) => {}
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                        self.rest_accepting(&format!("accept4() failed ({})", describe(&error)));
                        return;
                    }
                    _ => {
                        self.log(Level::Alert, &format!("accept4() failed ({})", describe(&error)));
                        return;
                    }
                },
            }
        }
        self.ready_listeners.push(number);
    }

    /// Stops accepting for a while, with one line in the log: descriptors must free up first.
    fn rest_accepting(&mut self, reason: &str) {
        if self.resting_until_ms.is_none() {
            self.log(Level::Crit, &format!("{reason}, accepting rests"));
        }
        self.resting_until_ms = Some(self.res.env.now.monotonic_ms + REST_MS);
    }

    /// Takes accepting up again after a rest.
    pub fn end_rest(&mut self) {
        if self.resting_until_ms.is_some_and(|until| until <= self.res.env.now.monotonic_ms) {
            self.resting_until_ms = None;
            for number in 0..self.res.listeners.len() {
                self.accept(number);
            }
        }
    }

    /// Makes sure that one more connection fits: at the limit the idle connections that waited longest give way.
    fn make_room(&mut self) -> bool {
        let limit = self.res.site.main.worker_connections as usize;
        if self.clients.len() < limit {
            return true;
        }
        let now_ms = self.res.env.now.monotonic_ms;
        let mut idle: Vec<(u64, ClientKey)> = self
            .clients
            .iter()
            .filter(|(_, client)| {
                client.is_idle() && client.facts.requests > 0 && client.keep_until_ms <= now_ms
            })
            .map(|(index, client)| {
                (client.last_active_ms, ClientKey { index: index as u32, generation: client.generation })
            })
            .collect();
        // A sixteenth at once, so that the search costs each accepted connection little.
        let count = (idle.len() / 16).max(1).min(idle.len());
        if count == 0 {
            return false;
        }
        idle.select_nth_unstable_by_key(count - 1, |(last, _)| *last);
        for (_, key) in idle.drain(..count) {
            self.close(key);
        }
        true
    }

    /// Keeps a fresh connection, or passes it to a worker that holds fewer.
    fn place(&mut self, number: usize, socket: OwnedFd, peer: Option<SocketAddr>) {
        if let (Some(address), Some(place)) = (peer, self.shared.better_place(&self.peer))
            && let Some(Some(listener)) = self.res.listeners.get(number)
        {
            place.hand(Handed { socket, listener: listener.plan.address.clone(), peer: address });
            return;
        }
        self.take_connection(number, socket, peer);
    }

    /// Takes connections that other workers have handed over.
    pub fn take_handed(&mut self) {
        for handed in self.peer.take_handed() {
            let number = self.res.listeners.iter().position(|listener| {
                listener.as_ref().is_some_and(|listener| listener.plan.address == handed.listener)
            });
            match number {
                Some(number) if self.make_room() => {
                    self.take_connection(number, handed.socket, Some(handed.peer));
                }
                // Dropping the socket closes the connection: there is no server for it here.
                _ => {}
            }
        }
    }

    /// Makes a client of a socket and gives it its first turn at once: its request is likely there already, and a
    /// connection for one request need never be registered with the poll.
    fn take_connection(&mut self, number: usize, socket: OwnedFd, peer: Option<SocketAddr>) {
        let now_ms = self.res.env.now.monotonic_ms;
        let Some(Some(listener)) = self.res.listeners.get_mut(number) else { return };
        listener.clients += 1;
        let proxy_protocol = listener.proxy_protocol;
        let local = local_end(&listener.plan, &socket);
        self.generation = self.generation.wrapping_add(1);
        let key_generation = self.generation;
        let facts = ConnectionFacts {
            number: self.shared.next_number(),
            requests: 0,
            accepted_ms: now_ms,
            peer: endpoint_of(peer),
            local,
            proxy_protocol: None,
            secure: false,
        };
        let client = Client {
            socket,
            generation: key_generation,
            state: if proxy_protocol {
                State::ProxyHeader(Box::<ProxyReader>::default())
            } else {
                State::Head
            },
            wire: h1::Connection::new(),
            facts,
            listener: number as u32,
            deadline_ms: u64::MAX,
            armed_ms: u64::MAX,
            last_active_ms: now_ms,
            head_began_ms: 0,
            request_bytes: 0,
            flags: Flags { unread: true, ..Flags::default() },
            idle_ms: 0,
            keep_until_ms: 0,
            linger_timeout_ms: 0,
            unsent: Vec::new(),
        };
        let index = self.clients.insert(client);
        self.peer.set_connections(self.clients.len());
        let key = ClientKey { index: index as u32, generation: key_generation };
        self.turn(key, |client, key, res| {
            let timeout = res.site_of(client).settings(res.root_of(client)).core.client_header_timeout;
            client.set_deadline(now_ms + timeout);
            client.read_on(key, res)
        });
    }
}

/// Our end of a connection: the listening address, unless that is a wildcard.
fn local_end(plan: &SocketPlan, socket: &OwnedFd) -> Endpoint {
    match &plan.address {
        ListenAddress::Unix(path) => Endpoint::Unix(path.as_bytes().into()),
        ListenAddress::Inet(address) if !address.ip().is_unspecified() => Endpoint::Inet(*address),
        ListenAddress::Inet(address) => {
            let local = rustix::net::getsockname(socket.as_fd()).ok().and_then(inet_address);
            Endpoint::Inet(local.unwrap_or(*address))
        }
    }
}

fn inet_address(address: SocketAddrAny) -> Option<SocketAddr> {
    SocketAddr::try_from(address).ok()
}
