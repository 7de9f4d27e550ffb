//! `listen`: its arguments, the addresses that many servers share, and the sockets that are opened for them.
//!
//! Three steps, all pure: [`ListenDirective::parse`] reads one directive, [`ListenTable::add`] merges those of all
//! servers and finds contradictions, [`ListenTable::sockets`] says which sockets to open. Messages are nginx's,
//! without the place behind them.

use super::values::{parse_number, parse_size, parse_time_s};
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// The port of a `listen` that names none.
const DEFAULT_PORT: u16 = 80;

/// The longest path of a Unix socket, in bytes: `sun_path` has 108 with the NUL.
const MAX_UNIX_PATH: usize = 107;

/// nginx's queue of connections that wait to be accepted, on Linux.
pub const DEFAULT_BACKLOG: u32 = 511;

/// Where a socket listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenAddress {
    Inet(SocketAddr),
    /// The path of a Unix socket, as written.
    Unix(String),
}

impl ListenAddress {
    /// True for addresses that only this machine reaches.
    pub fn is_loopback(&self) -> bool {
        matches!(self, Self::Inet(address) if address.ip().is_loopback())
    }

    /// True for `0.0.0.0` and `[::]`: every address of the family.
    pub fn is_wildcard(&self) -> bool {
        matches!(self, Self::Inet(address) if address.ip().is_unspecified())
    }

    /// The port and family, which a wildcard shares with the specific addresses that it covers.
    fn port_and_family(&self) -> Option<(u16, bool)> {
        match self {
            Self::Inet(address) => Some((address.port(), address.is_ipv6())),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// `so_keepalive` with something to set. A part that is `None` stays as the system has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeepAlive {
    pub idle: Option<Duration>,
    pub interval: Option<Duration>,
    pub count: Option<u32>,
}

/// What is set on the listening socket. Any of these makes the address a socket of its own, as in nginx.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketOptions {
    /// Not covered by a wildcard's socket.
    pub bind: bool,
    /// Connections that wait to be accepted; [`DEFAULT_BACKLOG`] without one.
    pub backlog: Option<u32>,
    /// SO_RCVBUF, bytes.
    pub receive_buffer: Option<u32>,
    /// SO_SNDBUF, bytes.
    pub send_buffer: Option<u32>,
    /// TCP_FASTOPEN: the length of its queue.
    pub fastopen: Option<u32>,
    /// TCP_DEFER_ACCEPT: accept when data is there.
    pub deferred: bool,
    /// IPV6_V6ONLY is off only when the configuration says so.
    pub dual_stack: bool,
    /// Accepted; every worker has its own socket anyway.
    pub reuseport: bool,
    /// Multipath TCP.
    pub multipath: bool,
    /// `Some(None)` is `so_keepalive=off`.
    pub keepalive: Option<Option<KeepAlive>>,
}

/// What is spoken on the accepted connections. Servers that share an address share these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProtocolOptions {
    pub ssl: bool,
    pub http2: bool,
    pub proxy_protocol: bool,
}

/// The hosts of a directive: addresses, or a name that is looked up when the server starts.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Address(IpAddr),
    Name(String),
    Unix(String),
}

/// One `listen` directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenDirective {
    /// The first argument, for messages.
    text: String,
    host: Host,
    first_port: u16,
    last_port: u16,
    pub default_server: bool,
    pub socket: SocketOptions,
    /// Some parameter of the socket was given.
    pub socket_options_set: bool,
    pub protocol: ProtocolOptions,
}

/// One address of a directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub address: ListenAddress,
    pub default_server: bool,
    pub socket: SocketOptions,
    pub socket_options_set: bool,
    pub protocol: ProtocolOptions,
}

impl ListenDirective {
    /// Reads the directive's arguments. The error is the message, to be followed by the directive's place.
    pub fn parse(arguments: &[&str]) -> Result<Self, String> {
        let (text, parameters) =
            arguments.split_first().ok_or("invalid number of arguments in \"listen\" directive")?;
        let (host, first_port, last_port) = parse_address(text).map_err(|problem| {
            let preposition =
                if problem == "no path" { "no path in the unix domain socket" } else { problem };
            format!("{preposition} in \"{text}\" of the \"listen\" directive")
        })?;
        let mut directive = Self {
            text: (*text).to_owned(),
            host,
            first_port,
            last_port,
            default_server: false,
            socket: SocketOptions::default(),
            socket_options_set: false,
            protocol: ProtocolOptions::default(),
        };
        for parameter in parameters {
            directive.set(parameter)?;
        }
        Ok(directive)
    }

    /// The name that must be looked up before [`ListenDirective::addresses`] can answer.
    pub fn name(&self) -> Option<&str> {
        match &self.host {
            Host::Name(name) => Some(name),
            _ => None,
        }
    }

    /// The addresses of the directive, one for each port of its range. `found` are those of [`ListenDirective::name`];
    /// none of them is an error.
    pub fn addresses(&self, found: &[IpAddr]) -> Result<Vec<Listen>, String> {
        let hosts = match &self.host {
            Host::Unix(path) => return Ok(vec![self.at(ListenAddress::Unix(path.clone()))]),
            Host::Address(address) => std::slice::from_ref(address),
            Host::Name(_) if found.is_empty() => {
                return Err(format!("host not found in \"{}\" of the \"listen\" directive", self.text));
            }
            Host::Name(_) => found,
        };
        // A resolver may say the same address twice. The ports are as many as 65,535: only hosts are compared.
        let first_of_its_kind = |at: &usize| !hosts[..*at].contains(&hosts[*at]);
        let listens = (0..hosts.len()).filter(first_of_its_kind).flat_map(|at| {
            (self.first_port..=self.last_port)
                .map(move |port| self.at(ListenAddress::Inet(SocketAddr::new(hosts[at], port))))
        });
        Ok(listens.collect())
    }

    fn at(&self, address: ListenAddress) -> Listen {
        Listen {
            address,
            default_server: self.default_server,
            socket: self.socket.clone(),
            socket_options_set: self.socket_options_set,
            protocol: self.protocol,
        }
    }

    /// Takes one parameter.
    fn set(&mut self, parameter: &str) -> Result<(), String> {
        match parameter {
            "default_server" | "default" => self.default_server = true,
            "ssl" => self.protocol.ssl = true,
            "http2" => self.protocol.http2 = true,
            "proxy_protocol" => self.protocol.proxy_protocol = true,
            "quic" => {
                return Err("the \"quic\" parameter of \"listen\" is known but not built yet".to_owned());
            }
            _ => {
                self.set_socket_option(parameter)?;
                self.socket_options_set = true;
                self.socket.bind = true;
            }
        }
        Ok(())
    }

    fn set_socket_option(&mut self, parameter: &str) -> Result<(), String> {
        let options = &mut self.socket;
        let (name, value) = match parameter.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (parameter, None),
        };
        let invalid = || format!("invalid {name} \"{parameter}\"");
        match (name, value) {
            ("bind", None) => {}
            ("deferred", None) => options.deferred = true,
            ("reuseport", None) => options.reuseport = true,
            ("multipath", None) => options.multipath = true,
            ("backlog", Some(value)) => {
                let count = number(value).filter(|count| *count != 0).ok_or_else(invalid)?;
                options.backlog = Some(count);
            }
            ("fastopen", Some(value)) => options.fastopen = Some(number(value).ok_or_else(invalid)?),
            ("rcvbuf", Some(value)) => options.receive_buffer = Some(size(value).ok_or_else(invalid)?),
            ("sndbuf", Some(value)) => options.send_buffer = Some(size(value).ok_or_else(invalid)?),
            ("ipv6only", Some("on")) => options.dual_stack = false,
            ("ipv6only", Some("off")) => options.dual_stack = true,
            ("so_keepalive", Some(value)) => {
                let keepalive = parse_keepalive(value);
                options.keepalive =
                    Some(keepalive.ok_or_else(|| format!("invalid so_keepalive value: \"{value}\""))?);
            }
            ("setfib", Some(_)) => {
                return Err(format!("routing tables \"{parameter}\" are not supported on this platform"));
            }
            ("accept_filter", Some(_)) => {
                return Err(format!(
                    "accept filters \"{parameter}\" are not supported on this platform; \"deferred\" is Linux's own"
                ));
            }
            _ => return Err(format!("invalid parameter \"{parameter}\"")),
        }
        Ok(())
    }
}

fn number(text: &str) -> Option<u32> {
    parse_number(text.as_bytes()).ok().and_then(|value| i32::try_from(value).ok()).map(i32::unsigned_abs)
}

fn size(text: &str) -> Option<u32> {
    parse_size(text.as_bytes()).ok().and_then(|value| i32::try_from(value).ok()).map(i32::unsigned_abs)
}

/// `on`, `off`, or `idle:interval:count` with at least one of them. `None` is an invalid value, `Some(None)` is off.
fn parse_keepalive(text: &str) -> Option<Option<KeepAlive>> {
    match text {
        "on" => return Some(Some(KeepAlive::default())),
        "off" => return Some(None),
        _ => {}
    }
    let mut parts = text.splitn(3, ':');
    let mut next = || parts.next().filter(|part| !part.is_empty());
    let seconds = |part: Option<&str>| match part {
        None => Some(None),
        // The kernel takes 1 to 32767 seconds; 0 is "unset" in nginx.
        Some(part) => match parse_time_s(part.as_bytes()).ok()? {
            0 => Some(None),
            value if value <= 32767 => Some(Some(Duration::from_secs(value))),
            _ => None,
        },
    };
    let idle = seconds(next())?;
    let interval = seconds(next())?;
    let count = match next() {
        None => None,
        Some(part) => Some(number(part)?).filter(|count| *count != 0),
    };
    let keepalive = KeepAlive { idle, interval, count };
    (keepalive != KeepAlive::default()).then_some(Some(keepalive))
}

/// The host and the range of ports of the first argument. The error is how nginx's message begins.
fn parse_address(text: &str) -> Result<(Host, u16, u16), &'static str> {
    if let Some(path) = text.strip_prefix("unix:") {
        return match path.len() {
            0 => Err("no path"),
            1..=MAX_UNIX_PATH if !path.contains('\0') => Ok((Host::Unix(path.to_owned()), 0, 0)),
            _ => Err("too long path in the unix domain socket"),
        };
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (inner, rest) = rest.split_once(']').ok_or("invalid host")?;
        let address: Ipv6Addr = inner.parse().map_err(|_| "invalid host")?;
        let (first, last) = match rest.strip_prefix(':') {
            Some(ports) => parse_ports(ports)?,
            None if rest.is_empty() => (DEFAULT_PORT, DEFAULT_PORT),
            None => return Err("invalid host"),
        };
        return Ok((Host::Address(address.into()), first, last));
    }
    if text.contains('/') {
        return Err("invalid host");
    }
    let (host, (first, last)) = match text.split_once(':') {
        Some((host, ports)) => (host, parse_ports(ports)?),
        None if is_port_range(text) => {
            return parse_ports(text)
                .map(|(first, last)| (Host::Address(Ipv4Addr::UNSPECIFIED.into()), first, last));
        }
        None => (text, (DEFAULT_PORT, DEFAULT_PORT)),
    };
    let host = match host {
        "" => return Err("no host"),
        "*" => Host::Address(Ipv4Addr::UNSPECIFIED.into()),
        _ => match host.parse::<Ipv4Addr>() {
            Ok(address) => Host::Address(address.into()),
            Err(_) => Host::Name(host.to_owned()),
        },
    };
    Ok((host, first, last))
}

/// Digits, or digits, `-` and digits: a port without a host.
fn is_port_range(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    digits(text) || text.split_once('-').is_some_and(|(first, last)| digits(first) && digits(last))
}

fn parse_ports(text: &str) -> Result<(u16, u16), &'static str> {
    let port = |part: &str| {
        let value = parse_number(part.as_bytes()).map_err(|_| "invalid port")?;
        u16::try_from(value).ok().filter(|port| *port != 0).ok_or("invalid port")
    };
    match text.split_once('-') {
        None => port(text).map(|port| (port, port)),
        Some((first, last)) => {
            let range = (port(first)?, port(last)?);
            if range.1 < range.0 { Err("invalid port range") } else { Ok(range) }
        }
    }
}

/// What all servers together say about one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedAddress {
    pub address: ListenAddress,
    pub socket: SocketOptions,
    pub protocol: ProtocolOptions,
    /// The server that answers when no name matches: the one marked so, or the first one.
    pub default_server: usize,
    /// Every server of the address, in the order of the file.
    pub servers: Vec<usize>,
    socket_options_set: bool,
    default_marked: bool,
}

/// The addresses of all servers.
#[derive(Clone, Debug, Default)]
pub struct ListenTable {
    addresses: Vec<SharedAddress>,
    /// From an address to its place in `addresses`: ten thousand servers may share or not share one.
    places: HashMap<ListenAddress, usize>,
}

/// What [`ListenTable::add`] found worth a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenNote {
    /// Nothing.
    Fine,
    /// Two servers disagree about what is spoken on an address: nginx's warning.
    ProtocolRedefined(String),
}

impl SharedAddress {
    /// Whether a server was marked with `default_server`.
    pub fn has_explicit_default(&self) -> bool {
        self.default_marked
    }
}

impl ListenTable {
    /// Adds one address of one server (numbered in the order of the file). The error is nginx's message.
    pub fn add(&mut self, server: usize, listen: &Listen) -> Result<ListenNote, String> {
        let Some(&place) = self.places.get(&listen.address) else {
            self.places.insert(listen.address.clone(), self.addresses.len());
            self.addresses.push(SharedAddress {
                address: listen.address.clone(),
                socket: listen.socket.clone(),
                protocol: listen.protocol,
                default_server: server,
                servers: vec![server],
                socket_options_set: listen.socket_options_set,
                default_marked: listen.default_server,
            });
            return Ok(ListenNote::Fine);
        };
        let shared = &mut self.addresses[place];
        if shared.servers.last() == Some(&server) {
            return Err(format!("a duplicate listen {}", listen.address));
        }
        if listen.socket_options_set {
            if shared.socket_options_set {
                return Err(format!("duplicate listen options for {}", listen.address));
            }
            shared.socket = listen.socket.clone();
            shared.socket_options_set = true;
        }
        if listen.default_server {
            if shared.default_marked {
                return Err(format!("a duplicate default server for {}", listen.address));
            }
            shared.default_marked = true;
            shared.default_server = server;
        }
        shared.servers.push(server);
        let (before, added) = (shared.protocol, listen.protocol);
        shared.protocol = ProtocolOptions {
            ssl: before.ssl || added.ssl,
            http2: before.http2 || added.http2,
            proxy_protocol: before.proxy_protocol || added.proxy_protocol,
        };
        // A plain `listen 80;` repeats nothing and so contradicts nothing.
        if added != ProtocolOptions::default() && before != added {
            return Ok(ListenNote::ProtocolRedefined(format!(
                "protocol options redefined for {}",
                listen.address
            )));
        }
        Ok(ListenNote::Fine)
    }

    /// All addresses, in the order in which they were first named.
    pub fn addresses(&self) -> &[SharedAddress] {
        &self.addresses
    }

    /// The sockets to open. Where a wildcard is there, specific addresses of its port and family without socket options
    /// of their own get no socket: the wildcard's receives their connections, told apart by the local address.
    pub fn sockets(&self) -> Vec<SocketPlan> {
        let mut wildcards = HashMap::new();
        let mut plans: Vec<SocketPlan> = Vec::new();
        let covered_by_wildcard =
            |shared: &SharedAddress| !shared.socket.bind && !shared.address.is_wildcard();
        for (place, shared) in self.addresses.iter().enumerate() {
            if shared.address.is_wildcard() {
                wildcards.insert(shared.address.port_and_family(), plans.len());
            } else if covered_by_wildcard(shared) && self.has_wildcard_for(&shared.address) {
                continue;
            }
            plans.push(SocketPlan {
                address: shared.address.clone(),
                options: shared.socket.clone(),
                own: place,
                others: Vec::new(),
            });
        }
        for (place, shared) in
            self.addresses.iter().enumerate().filter(|(_, shared)| covered_by_wildcard(shared))
        {
            let Some(&plan) = wildcards.get(&shared.address.port_and_family()) else { continue };
            if let ListenAddress::Inet(address) = shared.address {
                plans[plan].others.push((address.ip(), place));
            }
        }
        plans
    }

    fn has_wildcard_for(&self, address: &ListenAddress) -> bool {
        let ListenAddress::Inet(address) = address else { return false };
        let any: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        self.places.contains_key(&ListenAddress::Inet(SocketAddr::new(any, address.port())))
    }
}

/// One listening socket (or one for each worker, with the same settings), and which addresses of the [`ListenTable`]
/// its connections belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketPlan {
    pub address: ListenAddress,
    pub options: SocketOptions,
    /// The place in [`ListenTable::addresses`] of this address.
    own: usize,
    /// Specific addresses that a wildcard's socket receives for, with their places.
    others: Vec<(IpAddr, usize)>,
}

impl SocketPlan {
    /// A socket that leads to the first address of the table, as long as nothing more is known about it.
    pub fn new(address: ListenAddress, options: SocketOptions) -> Self {
        Self { address, options, own: 0, others: Vec::new() }
    }

    /// True if the local address of a connection decides which servers it belongs to: only then it need be asked for.
    pub fn needs_local_address(&self) -> bool {
        !self.others.is_empty()
    }

    /// The place in [`ListenTable::addresses`] that a connection to this local address belongs to.
    pub fn address_of(&self, local: Option<IpAddr>) -> usize {
        let Some(local) = local else { return self.own };
        self.others.iter().find(|(address, _)| *address == local).map_or(self.own, |(_, place)| *place)
    }
}

#[cfg(test)]
mod tests;
