//! Accepting: fair, bounded, and calm when descriptors run out.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::event::epoll;
use rustix::net::SocketAddrAny;
use rustix::process::{Resource, getrlimit};

use crate::base::level::Level;
use crate::base::pace::Pace;
use crate::conf::listen::{ListenAddress, SocketPlan};
use crate::http::exchange::{ConnectionFacts, Endpoint};
use crate::http::modules::client_connections::Most;
use crate::http::site::{Site, SiteHandle};
use crate::proto::h1;
use crate::proto::proxy_protocol::ProxyReader;
use crate::server::client::tls::TlsSocket;
use crate::server::client::transport::Transport;
use crate::server::client::wire::Wire;
use crate::server::client::{Client, ClientKey, Flags, State};
use crate::server::listeners::{ListenSocket, describe};
use crate::server::relay::links::GENERATION_MASK;

use super::addresses::{AddressPermit, most_connections};
use super::balance::{Handed, endpoint_of};
use super::counters::Counted;
use super::orders::speaks_proxy_protocol;
use super::tokens::LISTENER_BIT;
use super::{Worker, epoll_of};

/// Connections that one turn accepts from one socket, at most; `multi_accept` takes all that wait.
const ACCEPTS_PER_TURN: usize = 64;
/// A round of the loop accepts one connection more for every so many events that it brought: the sockets are
/// level-triggered, so what is left brings the next event, and a call that finds the queue empty is saved.
const EVENTS_PER_ACCEPT: usize = 8;

/// How often the log says that idle connections give way, in milliseconds (as in nginx).
const SHED_LOG_MS: u64 = 1000;

/// How long accepting rests when descriptors ran out, in milliseconds (as in nginx).
const REST_MS: u64 = 500;

/// Which part of the process's descriptors (see [`RESERVE`]) is kept for the files and upstreams of the connections that
/// there are: when accepting comes to it, idle connections give way.
const RESERVED_PART: u64 = 16;
/// How many these are at least and at most.
const RESERVE: std::ops::RangeInclusive<u64> = 8..=256;

/// When accepting finds the process's descriptors short.
#[derive(Clone, Copy, Debug)]
pub struct Shortage {
    /// The number of a new descriptor from which on they are short: the kernel gives the lowest that is free.
    from: RawFd,
    /// How many connections give way at once: more than are kept, since what comes next takes the lower numbers, and
    /// says nothing until these are used up.
    count: usize,
}

impl Shortage {
    /// By the process's present limit.
    pub fn of_process() -> Shortage {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let reserve = (limit / RESERVED_PART).clamp(*RESERVE.start(), *RESERVE.end());
        let from = RawFd::try_from(limit.saturating_sub(reserve)).unwrap_or(RawFd::MAX);
        Shortage { from, count: 2 * reserve as usize }
    }
}

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
    /// How many connections of one address it takes.
    pub most: Option<Most>,
}

impl Worker {
    /// Accepts what waits on a listening socket, within the turn's budget.
    pub fn accept(&mut self, number: usize) {
        let Some(Some(listener)) = self.res.listeners.get(number) else { return };
        let Some(socket) = listener.socket.clone() else { return };
        let most = if self.res.site.main.multi_accept {
            usize::MAX
        } else {
            (1 + self.events / EVENTS_PER_ACCEPT).min(ACCEPTS_PER_TURN)
        };
        for _ in 0..most {
            if !self.make_room() {
                self.rest_accepting("worker_connections are not enough");
                return;
            }
            match socket.accept_from() {
                Ok((accepted, peer)) => {
                    if accepted.as_raw_fd() >= self.shortage.from {
                        self.shed_idle("descriptors", self.shortage.count);
                    }
                    let peer = peer.and_then(inet_address);
                    if let Ok(permit) = self.admit(number, &accepted, peer) {
                        self.place(number, accepted, peer, permit);
                    }
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => {
                        self.rest_was_logged = false;
                        return;
                    }
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
    }

    /// Accepts everything that waits, whatever the bounds: the socket is about to be closed, and the kernel would reset
    /// what is left in its queue, which is no longer than the backlog.
    pub fn drain(&mut self, number: usize) {
        let Some(Some(listener)) = self.res.listeners.get(number) else { return };
        let Some(socket) = listener.socket.clone() else { return };
        loop {
            match socket.accept_from() {
                Ok((accepted, peer)) => {
                    let peer = peer.and_then(inet_address);
                    if let Ok(permit) = self.admit(number, &accepted, peer) {
                        self.take_connection(number, accepted, peer, permit);
                    }
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR | libc::ECONNABORTED) => {}
                    _ => return,
                },
            }
        }
    }

    /// Stops accepting for a while, with one line in the log until a queue was emptied again: descriptors must free up
    /// first. The sockets leave the poll, which would report them again and again.
    fn rest_accepting(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.rest_was_logged, true) {
            self.log(Level::Crit, &format!("{reason}, accepting rests"));
        }
        if self.resting_until_ms.is_none() {
            for socket in self.res.listeners.iter().flatten().filter_map(|listener| listener.socket.as_ref())
            {
                // One that is not registered may stay so.
                let _ = epoll::delete(epoll_of(&self.poll), socket.as_fd());
            }
        }
        self.resting_until_ms = Some(self.res.env.now.monotonic_ms + REST_MS);
    }

    /// Takes accepting up again after a rest, or when a connection was closed meanwhile.
    pub fn end_rest(&mut self) {
        if self.resting_until_ms.is_some_and(|until| until <= self.res.env.now.monotonic_ms) {
            self.resting_until_ms = None;
            for number in 0..self.res.listeners.len() {
                self.watch_listener(number);
            }
        }
    }

    /// Has the poll report connections that wait. Level-triggered: what one turn leaves is reported again.
    pub fn watch_listener(&mut self, number: usize) {
        let Some(Some(listener)) = self.res.listeners.get(number) else { return };
        let Some(socket) = &listener.socket else { return };
        let added = epoll::add(
            epoll_of(&self.poll),
            socket.as_fd(),
            epoll::EventData::new_u64((LISTENER_BIT | number) as u64),
            epoll::EventFlags::IN,
        );
        if let Err(error) = added {
            let reason = describe(&error.into());
            self.log(Level::Alert, &format!("epoll_ctl() of a listening socket failed ({reason})"));
        }
    }

    /// Makes sure that one more connection fits: at the limit the idle connections that waited longest give way.
    fn make_room(&mut self) -> bool {
        let limit = self.res.site.main.worker_connections as usize;
        self.clients.len() - self.lanes < limit || self.shed_idle(&format!("{limit} worker_connections"), 1)
    }

    /// Closes `least` of the idle connections, those that waited longest, because there is not enough of `what`. Whether
    /// there were any.
    fn shed_idle(&mut self, what: &str, least: usize) -> bool {
        let now_ms = self.res.env.now.monotonic_ms;
        let mut idle: Vec<(u64, ClientKey)> = self
            .clients
            .iter()
            .filter(|(_, client)| client.may_give_way(now_ms))
            .map(|(index, client)| {
                (client.last_active_ms, ClientKey { index: index as u32, generation: client.generation })
            })
            .collect();
        // A sixteenth at once, so that the search costs each accepted connection little.
        let count = (idle.len() / 16).max(least).min(idle.len());
        if count == 0 {
            return false;
        }
        if now_ms >= self.shed_logged_ms + SHED_LOG_MS || self.shed_logged_ms == 0 {
            self.shed_logged_ms = now_ms;
            self.log(Level::Warn, &format!("{what} are not enough, reusing connections"));
        }
        idle.select_nth_unstable_by_key(count - 1, |(last, _)| *last);
        for (_, key) in idle.drain(..count) {
            self.close(key);
        }
        true
    }

    /// Keeps a fresh connection, or passes it to a worker that holds fewer.
    pub(super) fn place(
        &mut self,
        number: usize,
        mut socket: OwnedFd,
        peer: Option<SocketAddr>,
        mut permit: Option<AddressPermit>,
    ) {
        if let (Some(address), Some(place)) = (peer, self.shared.better_place(&self.peer))
            && let Some(Some(listener)) = self.res.listeners.get(number)
        {
            let (plan, site) = (Arc::clone(&listener.plan), listener.site.shared());
            match place.hand(Handed { socket, plan, site, peer: address, permit }) {
                Ok(()) => return,
                Err(handed) => (socket, permit) = (handed.socket, handed.permit),
            }
        }
        self.take_connection(number, socket, peer, permit);
    }

    /// Takes connections that other workers have handed over. The bound on connections holds for what is accepted
    /// later: these are accepted already.
    pub fn take_handed(&mut self, handed: Vec<Handed>) {
        for handed in handed {
            let number = self.listener_for(&handed.plan, handed.site);
            self.take_connection(number, handed.socket, Some(handed.peer), handed.permit);
        }
    }

    /// The listener of this plan's address; one without a socket where this worker has none, which happens while a
    /// reload comes to the workers one by one.
    fn listener_for(&mut self, plan: &Arc<SocketPlan>, site: Arc<Site>) -> usize {
        let known = self.res.listeners.iter().position(|listener| {
            listener.as_ref().is_some_and(|listener| listener.plan.address == plan.address)
        });
        known.unwrap_or_else(|| {
            self.put_listener(Listener {
                socket: None,
                proxy_protocol: speaks_proxy_protocol(&site, plan),
                most: most_connections(&site, plan),
                plan: Arc::clone(plan),
                site: SiteHandle::new(site),
                clients: 0,
            })
        })
    }

    /// Puts a listener where there is room.
    pub fn put_listener(&mut self, listener: Listener) -> usize {
        let number = self.res.listeners.iter().position(Option::is_none).unwrap_or_else(|| {
            self.res.listeners.push(None);
            self.res.listeners.len() - 1
        });
        self.res.listeners[number] = Some(listener);
        number
    }

    /// Makes a client of a socket and gives it its first turn at once: its request is likely there already, and a
    /// connection for one request need never be registered with the poll.
    fn take_connection(
        &mut self,
        number: usize,
        socket: OwnedFd,
        peer: Option<SocketAddr>,
        permit: Option<AddressPermit>,
    ) {
        let now_ms = self.res.env.now.monotonic_ms;
        let Some(Some(listener)) = self.res.listeners.get_mut(number) else { return };
        listener.clients += 1;
        let proxy_protocol = listener.proxy_protocol;
        let is_needed = listener.plan.needs_local_address() || listener.site.mentions_server_address;
        let local = local_end(&listener.plan, &socket, is_needed);
        let is_secure = speaks_tls(&listener.site, &listener.plan, &local);
        self.generation = self.generation.wrapping_add(1) & GENERATION_MASK;
        let key_generation = self.generation;
        let facts = ConnectionFacts {
            number: self.shared.next_number(),
            requests: 0,
            accepted_ms: now_ms,
            peer: endpoint_of(peer),
            local,
            proxy_protocol: None,
            secure: false,
            lacks_tls: false,
            tls: None,
        };
        let client = Client {
            transport: if is_secure {
                Transport::Tls(Box::new(TlsSocket::new(socket)))
            } else {
                Transport::Plain(socket)
            },
            generation: key_generation,
            state: if proxy_protocol {
                State::ProxyHeader(Box::<ProxyReader>::default())
            } else {
                State::Head
            },
            wire: Wire::H1(h1::Connection::new()),
            facts,
            listener: number as u32,
            deadline_ms: u64::MAX,
            patience_ms: u64::MAX,
            pace: Pace::default(),
            armed_ms: u64::MAX,
            last_active_ms: now_ms,
            head_began_ms: 0,
            request_bytes: 0,
            flags: Flags { unread: true, ..Flags::default() },
            idle_ms: 0,
            keep_ms: 0,
            linger_timeout_ms: 0,
            unsent: Vec::new(),
            counted: Counted::default(),
            permit,
        };
        self.res.counters.open();
        let index = self.clients.insert(client);
        self.most_clients = self.most_clients.max(self.clients.len());
        self.peer.set_connections(self.clients.len() - self.lanes);
        let key = ClientKey { index: index as u32, generation: key_generation };
        self.turn(key, |client, key, res| {
            let timeout = res.site_of(client).settings(res.root_of(client)).core.client_header_timeout;
            client.set_deadline(now_ms + timeout);
            client.read_on(key, res)
        });
    }
}

/// The address that a connection was made to.
pub fn inet_local(socket: BorrowedFd<'_>) -> Option<SocketAddr> {
    rustix::net::getsockname(socket).ok().and_then(inet_address)
}

/// Our end of a connection: the listening address. Of a wildcard the system is only asked where the configuration makes
/// use of the answer, or (later) for a client that names no host.
fn local_end(plan: &SocketPlan, socket: &OwnedFd, is_needed: bool) -> Endpoint {
    match &plan.address {
        ListenAddress::Unix(path) => Endpoint::Unix(path.as_bytes().into()),
        ListenAddress::Inet(address) if !address.ip().is_unspecified() || !is_needed => {
            Endpoint::Inet(*address)
        }
        ListenAddress::Inet(address) => Endpoint::Inet(inet_local(socket.as_fd()).unwrap_or(*address)),
    }
}

/// Whether TLS is spoken on the address that a connection was made to.
pub(super) fn speaks_tls(site: &Site, plan: &SocketPlan, local: &Endpoint) -> bool {
    let local = match local {
        Endpoint::Inet(address) => Some(address.ip()),
        Endpoint::Unix(_) => None,
    };
    site.listens.addresses().get(plan.address_of(local)).is_some_and(|shared| shared.protocol.ssl)
}

fn inet_address(address: SocketAddrAny) -> Option<SocketAddr> {
    SocketAddr::try_from(address).ok()
}
