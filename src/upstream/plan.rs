//! What the configuration says of a group, frozen. Texts with variables (the key of `hash`, attributes of a sticky
//! cookie) are not here: who asks evaluates them.

use std::net::SocketAddr;

/// Connections that an `upstream` block without `keepalive` keeps (nginx 1.29.7 and later).
pub const DEFAULT_KEEPALIVE: u32 = 32;
/// `fail_timeout`, in milliseconds.
pub const DEFAULT_FAIL_TIMEOUT_MS: u64 = 10_000;

/// One group.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupPlan {
    /// Its name.
    pub name: Box<str>,
    /// `zone`: accepted; a group's state is always shared.
    pub zone: Option<Zone>,
    /// How a peer is chosen.
    pub method: Method,
    /// Its servers, in the configuration's order.
    pub peers: Vec<PeerPlan>,
    /// Idle connections.
    pub keepalive: Keepalive,
    /// `queue`: requests wait when all peers are full.
    pub queue: Option<QueuePlan>,
    /// `sticky`: requests of one session go to one peer.
    pub sticky: Option<StickyPlan>,
    /// `state`: the file with the servers that were set at run time.
    pub state_file: Option<Box<str>>,
}

/// `zone NAME SIZE`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Its name.
    pub name: Box<str>,
    /// Bytes; 0 where none are given.
    pub size: u64,
}

/// How a peer is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// By turns, as often as weights say.
    #[default]
    RoundRobin,
    /// Fewest connections for its weight.
    LeastConn,
    /// Fastest for its weight.
    LeastTime(LeastTime),
    /// By the client's address.
    IpHash,
    /// By a key.
    Hash {
        /// By ketama's ring, so that few keys move when a server comes or goes.
        consistent: bool,
    },
    /// By chance; the better one of two if that is set.
    Random(Option<OfTwo>),
}

impl Method {
    /// Whether a request belongs to one peer rather than to any.
    pub fn has_affinity(self) -> bool {
        matches!(self, Method::IpHash | Method::Hash { .. })
    }
}

/// Which time `least_time` compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeastTime {
    /// To the end of the response (`last_byte`), not of its head (`header`).
    pub whole: bool,
    /// Also how long requests have been waiting that are not answered yet.
    pub inflight: bool,
}

/// What `random two` compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfTwo {
    /// Fewest connections for its weight.
    LeastConn,
    /// Fastest for its weight.
    LeastTime(LeastTime),
}

/// One `server`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerPlan {
    /// As written: `hash ... consistent` places it by this text.
    pub server: Box<str>,
    /// Where it is.
    pub address: PlanAddress,
    /// Its share, from 1.
    pub weight: u32,
    /// Most requests at once; 0 for any number.
    pub max_conns: u32,
    /// Failures within `fail_timeout_ms` that eject it; 0 never.
    pub max_fails: u32,
    /// Milliseconds for which failures count and for which it is ejected.
    pub fail_timeout_ms: u64,
    /// Only asked when no other can be.
    pub backup: bool,
    /// Never asked.
    pub down: bool,
    /// Only asked by sessions that are bound to it.
    pub drain: bool,
    /// Milliseconds in which its share grows after it came back; 0 for at once.
    pub slow_start_ms: u64,
    /// Its identifier for `sticky`, in place of the digest of its address.
    pub route: Option<Box<str>>,
}

impl PeerPlan {
    /// A server with nginx's defaults.
    pub fn new(server: impl Into<Box<str>>, address: PlanAddress) -> PeerPlan {
        PeerPlan {
            server: server.into(),
            address,
            weight: 1,
            max_conns: 0,
            max_fails: 1,
            fail_timeout_ms: DEFAULT_FAIL_TIMEOUT_MS,
            backup: false,
            down: false,
            drain: false,
            slow_start_ms: 0,
            route: None,
        }
    }
}

/// Where a `server` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanAddress {
    /// At these addresses; each is a peer.
    Inet(Vec<SocketAddr>),
    /// At a Unix socket.
    Unix(Box<[u8]>),
    /// Behind a name: [`super::Group::set_addresses`] tells where.
    Name {
        /// The name.
        host: Box<str>,
        /// The port; of no account with a service.
        port: u16,
        /// `resolve`: asked for again and again; else once.
        resolve: bool,
        /// `service=`: SRV records are asked for.
        service: Option<Box<str>>,
    },
}

/// What is kept of connections between two requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// How many per worker; 0 for none.
    pub connections: u32,
    /// Requests on one connection.
    pub requests: u32,
    /// Milliseconds that one connection is used for at most.
    pub time_ms: u64,
    /// Milliseconds that one is idle at most.
    pub timeout_ms: u64,
    /// Only for the location that they were opened by.
    pub local: bool,
}

impl Default for Keepalive {
    fn default() -> Keepalive {
        Keepalive {
            connections: DEFAULT_KEEPALIVE,
            requests: 1000,
            time_ms: 3_600_000,
            timeout_ms: 60_000,
            local: true,
        }
    }
}

/// `queue N timeout=`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuePlan {
    /// Requests that may wait, over all workers.
    pub length: u32,
    /// Milliseconds that one waits.
    pub timeout_ms: u64,
}

/// `sticky`, without its variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StickyPlan {
    /// The client brings a cookie of ours.
    Cookie,
    /// The client brings a route.
    Route,
    /// The upstream makes the session; the group learns where.
    Learn {
        /// Where sessions are kept.
        zone: Zone,
        /// Milliseconds after its last use that one is forgotten.
        timeout_ms: u64,
        /// Learn from the head of a response, not from its end.
        header: bool,
    },
}

impl GroupPlan {
    /// A group with nginx's defaults for an `upstream` block.
    pub fn new(name: impl Into<Box<str>>, peers: Vec<PeerPlan>) -> GroupPlan {
        GroupPlan {
            name: name.into(),
            zone: None,
            method: Method::RoundRobin,
            peers,
            keepalive: Keepalive::default(),
            queue: None,
            sticky: None,
            state_file: None,
        }
    }

    /// The group that an address without an `upstream` block is (`proxy_pass http://127.0.0.1:8080`).
    pub fn implicit(name: impl Into<Box<str>>, address: PlanAddress) -> GroupPlan {
        let name = name.into();
        GroupPlan::new(name.clone(), vec![PeerPlan::new(name, address)])
    }
}
