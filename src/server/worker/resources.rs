//! What a worker lends to the connection whose turn it is.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::base::level::Level;
use crate::base::wheel::TimerWheel;
use crate::http::body::Body;
use crate::http::context::Env;
use crate::http::exchange::Exchange;
use crate::http::file::FileRange;
use crate::http::modules::request_body::TempPath;
use crate::http::site::{AddressId, LocationId, SiteHandle};
use crate::message::RequestHead;
use crate::server::client::h2::{Newborn, SharedMux};
use crate::server::client::pipe::NewSubrequest;
use crate::server::client::{Active, Client, ClientKey};
use crate::server::compressed::CompressedForms;
use crate::server::files::{Copied, Warmth, read_range};
use crate::server::files::{Files, TemporaryFolder};
use crate::server::names::{Names, Ticket};
use crate::server::passwords::Passwords;
use crate::server::pool::JobId;
use crate::server::relay::idle::IdleConnections;
use crate::server::relay::links::Links;
use crate::server::relay::multiplexed::{self, Multiplexed};
use crate::server::relay::waiting::Queues;

use crate::upstream::Group;
use crate::upstream::names::{Answer, NameError};
use crate::upstream::plan::GroupPlan;

use super::accept::Listener;
use super::balance::SharedState;
use super::counters::Counters;
use super::system_facts::{CurrentSocket, WorkerSystem};

/// Bytes that one `recv` may bring.
const INPUT_BYTES: usize = 64 * 1024;
/// Bytes of responses that are gathered before they are sent.
const OUT_BYTES: usize = 64 * 1024;
/// Finished requests whose memory is kept for the next ones.
const RECYCLED: usize = 64;
/// Groups of addresses that variables gave, kept for their connections.
const COMPUTED_GROUPS: usize = 1024;

/// See the module's documentation.
pub struct Resources {
    /// Where sockets are registered.
    pub registry: mio::Registry,
    /// The present site.
    pub site: SiteHandle,
    /// What exchanges are lent.
    pub env: Env,
    /// The caches of files.
    pub files: Files,
    /// Compressed forms of files.
    pub compressed: CompressedForms,
    /// Right passwords of the last moments.
    pub passwords: Passwords,
    /// What `recv` writes to. An idle connection owns no buffer.
    pub input: Vec<u8>,
    /// Responses gathered in this turn.
    pub out: Vec<u8>,
    /// For files that `sendfile` does not send.
    pub copy: Vec<u8>,
    /// What was decrypted of `input`.
    pub plaintext: Vec<u8>,
    /// What is encrypted for a socket.
    pub ciphertext: Vec<u8>,
    /// What `recv` from an upstream writes to.
    pub upstream_input: Vec<u8>,
    /// Sockets to upstreams.
    pub links: Links,
    /// Connections to upstreams between two requests.
    pub idle: IdleConnections,
    /// Connections to upstreams that many requests share.
    pub multiplexed: Multiplexed,
    /// Wakes connections at their deadlines.
    pub wheel: TimerWheel,
    /// Connections that have more to do and stood back for others.
    pub ready: VecDeque<ClientKey>,
    /// Who waits for which job of the pool.
    pub jobs: HashMap<JobId, ClientKey>,
    /// Requests that wait for a place at one of their group's peers.
    pub queued: Queues,
    /// Requests whose relay has something new to look at.
    pub resumed: Vec<ClientKey>,
    /// Streams that wait for window, and are not parked.
    pub waiting: VecDeque<ClientKey>,
    /// Streams whose heads have come.
    pub newborn: Vec<Newborn>,
    /// Subrequests that are to be served.
    pub subrequests: Vec<NewSubrequest>,
    /// Streams and subrequests that something happened to, and who waits for these.
    pub stirred: Vec<ClientKey>,
    /// Connections of streams that have frames to send.
    pub muxes: Vec<SharedMux>,
    /// Look-ups of names.
    pub names: Names,
    /// Who waits for which name, and what was found for whom.
    pub name_waiters: HashMap<Ticket, ClientKey>,
    /// See `name_waiters`.
    pub name_results: HashMap<Ticket, Result<Answer, NameError>>,
    computed: HashMap<Box<str>, Arc<Group>>,
    /// The groups of the present site, by their keys.
    named_groups: HashSet<usize>,
    /// Listening sockets by their number; gaps where one is gone.
    pub listeners: Vec<Option<Listener>>,
    /// The worker is winding down: no connection is kept alive.
    pub quitting: bool,
    /// For bodies that are dropped: nothing is written to it.
    pub discarded_head: RequestHead,
    #[expect(clippy::vec_box, reason = "a request moves in and out of its connection by pointer")]
    recycled: Vec<Box<Active>>,
    folders: HashMap<Arc<str>, Arc<TemporaryFolder>>,
    /// Distinguishes temporary files of different workers.
    pub first_temporary: u64,
    /// The socket of the connection whose turn it is, for what `env` tells of it.
    pub current_socket: CurrentSocket,
    /// This worker's numbers of connections and requests.
    pub counters: Arc<Counters>,
}

impl Resources {
    /// Everything a worker lends; buffers are allocated here and never again.
    pub fn new(
        registry: mio::Registry,
        site: SiteHandle,
        mut env: Env,
        files: Files,
        names: Names,
        shared: &Arc<SharedState>,
    ) -> Resources {
        let now_ms = env.now.monotonic_ms;
        let current_socket = CurrentSocket::default();
        env.system = Box::new(WorkerSystem::new(current_socket.clone(), shared.clone()));
        Resources {
            registry,
            site,
            files,
            compressed: CompressedForms::default(),
            passwords: Passwords::default(),
            input: vec![0; INPUT_BYTES],
            out: Vec::with_capacity(2 * OUT_BYTES),
            copy: vec![0; OUT_BYTES],
            plaintext: Vec::new(),
            ciphertext: Vec::new(),
            upstream_input: vec![0; INPUT_BYTES],
            links: Links::default(),
            idle: IdleConnections::default(),
            multiplexed: Multiplexed::default(),
            wheel: TimerWheel::new(now_ms),
            ready: VecDeque::new(),
            jobs: HashMap::new(),
            queued: Queues::default(),
            waiting: VecDeque::new(),
            newborn: Vec::new(),
            subrequests: Vec::new(),
            stirred: Vec::new(),
            muxes: Vec::new(),
            names,
            name_waiters: HashMap::new(),
            name_results: HashMap::new(),
            computed: HashMap::new(),
            named_groups: HashSet::new(),
            resumed: Vec::new(),
            listeners: Vec::new(),
            quitting: false,
            discarded_head: RequestHead::default(),
            recycled: Vec::new(),
            folders: HashMap::new(),
            first_temporary: env.process.into(),
            current_socket,
            counters: shared.counters.join(),
            env,
        }
    }

    /// What one call reads of a file without waiting for the disk; `None` if that is nothing.
    pub fn read_some(&mut self, range: &FileRange) -> Option<Vec<u8>> {
        let want = usize::try_from(range.length).unwrap_or(usize::MAX).min(self.copy.len());
        match read_range(&range.handle, range.offset, &mut self.copy[..want], Warmth::Unknown) {
            Ok(Copied::Bytes(count)) => Some(self.copy[..count].to_vec()),
            Ok(Copied::Truncated) => Some(Vec::new()),
            Ok(Copied::Cold) | Err(_) => None,
        }
    }

    /// Puts buffers back that a panicking turn took out, and drops what it had gathered.
    pub fn recover(&mut self) {
        self.out.clear();
        self.input.resize(INPUT_BYTES, 0);
        self.copy.resize(OUT_BYTES, 0);
        self.upstream_input.resize(INPUT_BYTES, 0);
    }

    /// Bytes in `out` from which on nothing more is gathered.
    pub fn out_limit(&self) -> usize {
        OUT_BYTES
    }

    /// An active request for the connection's next head, with the address that it belongs to.
    pub fn take_active(&mut self, client: &Client) -> (Box<Active>, AddressId) {
        let address = self.address_of(client);
        let site = self.site_of(client);
        let active = match self.recycled.pop() {
            Some(mut active) => {
                active.exchange.rebase(&site, address);
                active
            }
            None => {
                let head = RequestHead::default();
                Box::new(Active::new(Exchange::begin(site, address, client.facts.clone(), 0, head)))
            }
        };
        (active, address)
    }

    /// Takes a finished request's memory back.
    pub fn give_back(&mut self, mut active: Box<Active>) {
        if self.recycled.len() < RECYCLED {
            for body in [active.output.take_body(), std::mem::take(&mut active.exchange.body)] {
                if let Body::Bytes(bytes) = body {
                    self.env.give_back(bytes);
                }
            }
            active.exchange.shrink();
            active.body = None;
            active.body_file = None;
            active.relay = None;
            active.subrequest = None;
            active.uploaded = 0;
            active.upload_moved_ms = 0;
            active.tunnel = None;
            active.output = Default::default();
            self.recycled.push(active);
        }
    }

    /// Tells TLS what time it is; former sites have the clock in common with the present one.
    pub fn set_tls_clock(&self) {
        self.site.tls.clock.set(self.env.now.wall_secs.max(0) as u64);
    }

    /// Lets go of every recycled request, so that a former site is freed.
    pub fn forget_recycled(&mut self) {
        self.recycled.clear();
        self.folders.clear();
    }

    /// Closes idle connections to servers that a new configuration does not name.
    pub fn forget_idle(&mut self) {
        let named = self.site.upstreams.all().iter().map(|known| &known.group);
        self.named_groups = named.chain(self.computed.values()).map(|group| group.key()).collect();
        self.idle.retain_groups(&self.named_groups, &mut self.links);
        let named = self.named_groups.clone();
        multiplexed::retain_groups(&named, self);
    }

    /// Whether idle connections of this group are worth keeping: a request of a former site may end when nobody names it
    /// any more.
    pub fn keeps_connections_of(&self, group: &Arc<Group>) -> bool {
        self.named_groups.contains(&group.key())
            || self.computed.get(group.name()).is_some_and(|known| Arc::ptr_eq(known, group))
    }

    /// The site that a connection's next request is served from: the present one, unless its address is gone.
    pub fn site_of(&self, client: &Client) -> SiteHandle {
        self.listener(client).map_or_else(|| self.site.clone(), |listener| listener.site.clone())
    }

    /// The address that a connection's requests belong to.
    pub fn address_of(&self, client: &Client) -> AddressId {
        let Some(listener) = self.listener(client) else { return AddressId(0) };
        let local = match &client.facts.local {
            crate::http::exchange::Endpoint::Inet(address) => Some(address.ip()),
            crate::http::exchange::Endpoint::Unix(_) => None,
        };
        AddressId(listener.plan.address_of(local) as u32)
    }

    /// The scope of the default server of a connection's address.
    pub fn root_of(&self, client: &Client) -> LocationId {
        let site = self.site_of(client);
        let address = &site.addresses[self.address_of(client).0 as usize];
        site.server(address.default_server).root
    }

    fn listener(&self, client: &Client) -> Option<&Listener> {
        self.listeners.get(client.listener as usize)?.as_ref()
    }

    /// Puts a connection behind the others; its turn comes again in this or the next round of the loop.
    pub fn make_ready(&mut self, client: &mut Client, key: ClientKey) {
        if !client.flags.in_ready_list {
            client.flags.in_ready_list = true;
            self.ready.push_back(key);
        }
    }

    /// The group of an address that variables gave.
    pub fn computed_group(&mut self, plan: GroupPlan) -> Arc<Group> {
        if let Some(known) = self.computed.get(&plan.name) {
            return known.clone();
        }
        if self.computed.len() >= COMPUTED_GROUPS {
            // Whoever makes so many addresses up gains nothing from their being remembered.
            self.computed.clear();
        }
        let group = Arc::new(Group::new(plan, None));
        self.computed.insert(group.name().into(), group.clone());
        group
    }

    /// The folder for temporary files of this setting.
    pub fn temporary_folder(&mut self, temp: &TempPath) -> Arc<TemporaryFolder> {
        let first = self.first_temporary;
        self.folders
            .entry(temp.path.clone())
            .or_insert_with(|| Arc::new(TemporaryFolder::new(PathBuf::from(&*temp.path), temp.levels, first)))
            .clone()
    }

    /// Logs about a connection outside of any request.
    pub fn log_connection(&mut self, client: &Client, level: Level, message: fmt::Arguments) {
        let site = self.site_of(client);
        let root = self.root_of(client);
        crate::http::error_log::log_connection(&site, root, &client.facts, &mut self.env, level, message);
    }

    /// Logs that a file could not be read for a response.
    pub fn log_read_failure(&mut self, active: &mut Active) {
        active.exchange.log_in_scope(
            &mut self.env,
            Level::Crit,
            format_args!("reading a file for the response failed"),
        );
    }
}
