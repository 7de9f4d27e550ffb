//! What a resolver is told, and what it tells.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// One `resolver` directive with its `resolver_timeout`. Equal ones may share a [`super::Resolver`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResolverPlan {
    /// The servers, in the order of the directive.
    pub servers: Vec<ResolverServer>,
    /// `valid=`: milliseconds that answers are kept, whatever their records say.
    pub valid_ms: Option<u64>,
    /// Whether IPv4 addresses are asked for.
    pub ipv4: bool,
    /// Whether IPv6 addresses are asked for.
    pub ipv6: bool,
    /// `resolver_timeout`: milliseconds until a lookup is given up.
    pub timeout_ms: u64,
    /// `status_zone=`: the name that counters are shown under.
    pub status_zone: Option<Box<str>>,
}

/// A DNS server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ResolverServer {
    /// By its address.
    Address(SocketAddr),
    /// By its name, which the system looks up.
    Name {
        /// The name.
        host: Box<str>,
        /// The port.
        port: u16,
    },
}

/// What a lookup found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// It.
    pub records: Records,
    /// Monotonic milliseconds at which it should be asked for anew.
    pub expires_ms: u64,
    /// It is older than that, and nothing newer could be had so far.
    pub stale: bool,
}

/// Addresses of a host, or a service's hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Records {
    /// Never empty. IPv4 first where DNS servers were asked, in the system's order else.
    Addresses(Arc<[IpAddr]>),
    /// Never empty; sorted by priority, each with at least one address.
    Services(Arc<[Service]>),
}

/// One host of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Lower ones are used first.
    pub priority: u16,
    /// Share among those of the same priority.
    pub weight: u16,
    /// Port.
    pub port: u16,
    /// The host's name.
    pub host: Box<str>,
    /// Its addresses.
    pub addresses: Arc<[IpAddr]>,
}

impl Answer {
    /// The addresses of a host; none of a service.
    pub fn addresses(&self) -> &[IpAddr] {
        match &self.records {
            Records::Addresses(addresses) => addresses,
            Records::Services(_) => &[],
        }
    }

    /// The hosts of a service; none of a host.
    #[cfg(test)]
    pub fn services(&self) -> &[Service] {
        match &self.records {
            Records::Addresses(_) => &[],
            Records::Services(services) => services,
        }
    }
}

/// Why there is no answer. All of them are `dns_failure` to `$upstream_error`; shown, they read as in nginx's log:
/// `3: Host not found`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NameError {
    /// The name does not exist, or has no address of the wanted kinds.
    NotFound,
    /// Servers did not understand, or could not be understood.
    Format,
    /// Servers could not find out.
    ServerFailure,
    /// Servers do not do that.
    NotImplemented,
    /// Servers do not want to.
    Refused,
    /// No answer within the timeout.
    TimedOut,
    /// No server could be reached.
    Unreachable,
    /// Aliases that lead nowhere.
    BadAlias,
    /// More names, or more who wait, than there is room for.
    Busy,
    /// The system's resolver failed.
    System,
}

impl NameError {
    /// nginx's number: a DNS response code, or an error number of the system.
    pub fn number(self) -> u32 {
        match self {
            NameError::Format => 1,
            NameError::ServerFailure | NameError::BadAlias | NameError::System => 2,
            NameError::NotFound => 3,
            NameError::NotImplemented => 4,
            NameError::Refused => 5,
            NameError::Busy => 11,
            NameError::Unreachable => 101,
            NameError::TimedOut => 110,
        }
    }

    /// In words: nginx's where nginx has them.
    pub fn text(self) -> &'static str {
        match self {
            NameError::NotFound => "Host not found",
            NameError::Format => "Format error",
            NameError::ServerFailure => "Server failure",
            NameError::NotImplemented => "Unimplemented",
            NameError::Refused => "Operation refused",
            NameError::TimedOut => "Operation timed out",
            NameError::Unreachable => "No resolver could be reached",
            NameError::BadAlias => "Alias leads nowhere",
            NameError::Busy => "Too many lookups",
            NameError::System => "System resolver failed",
        }
    }

    /// Whether it was said with authority that there is nothing, so that older knowledge does not count any more.
    pub fn is_denial(self) -> bool {
        self == NameError::NotFound
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.number(), self.text())
    }
}
