//! Listening sockets: opened from the plans of the configuration, kept over a reload, and dealt out to the workers.
//!
//! Each address has one `SO_REUSEPORT` socket for each worker, so that the kernel spreads connections without a lock.
//! Where that can't be (Unix sockets, kernels that refuse), all workers share one.
//!
//! A socket that was opened stays until its address leaves the configuration: closing one would reset what waits in its
//! queue. When there are fewer workers than sockets, a worker gets several.

use crate::base::level::Level;
use crate::conf::listen::{DEFAULT_BACKLOG, ListenAddress, SocketOptions, SocketPlan};
use crate::server::sys;
use rustix::net::SocketFlags;
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::sync::Arc;
use std::time::Duration;

/// How many bytes of a response may lie unsent in the kernel before the socket stops being writable: enough for a fast
/// connection between two turns of the loop, and what a slow reader pins at most.
pub const NOT_SENT_LOW_WATER: u32 = 128 << 10;

/// How often an address in use is tried, as in nginx.
const BIND_TRIES: usize = 5;

/// How long to wait between the tries, as in nginx.
const BIND_PAUSE: Duration = Duration::from_millis(500);

/// `TCP_DEFER_ACCEPT`'s time: nginx sets 1 second.
const DEFER_ACCEPT_SECONDS: i32 = 1;

/// Where messages of this module go.
pub type LogLine<'a> = &'a mut dyn FnMut(Level, &str);

/// What makes two sockets interchangeable over a reload or an upgrade.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct SocketKey {
    address: ListenAddress,
    dual_stack: bool,
    multipath: bool,
}

impl SocketKey {
    fn of_plan(plan: &SocketPlan) -> Self {
        let is_v6 = matches!(plan.address, ListenAddress::Inet(address) if address.is_ipv6());
        Self {
            address: plan.address.clone(),
            dual_stack: is_v6 && plan.options.dual_stack,
            multipath: plan.options.multipath
                && matches!(plan.address, ListenAddress::Inet(_))
                && multipath_trouble().is_none(),
        }
    }

    /// Reads it from a socket that came from elsewhere. `None` when it is no listening socket of a known kind.
    fn of_socket(socket: &Socket) -> Option<Self> {
        if !socket.is_listener().ok()? {
            return None;
        }
        let local = socket.local_addr().ok()?;
        let (address, dual_stack) = match local.as_socket() {
            Some(address) => (ListenAddress::Inet(address), address.is_ipv6() && !socket.only_v6().ok()?),
            None => (ListenAddress::Unix(local.as_pathname()?.to_str()?.to_owned()), false),
        };
        let multipath = socket.protocol().ok()? == Some(Protocol::MPTCP);
        Some(Self { address, dual_stack, multipath })
    }
}

/// Why this kernel has no Multipath TCP (not built, or `net.mptcp.enabled` is 0); `None` if it has.
fn multipath_trouble() -> Option<io::Error> {
    Socket::new(Domain::IPV4, Type::STREAM.cloexec(), Some(Protocol::MPTCP)).err()
}

/// One listening socket. It is closed when the last holder lets go: a worker deregisters it from its loop before.
#[derive(Debug)]
pub struct ListenSocket {
    socket: Socket,
}

impl ListenSocket {
    /// Takes one connection from the queue, with the address of its peer; it does not block, and neither does this
    /// (`WouldBlock` when there is none).
    pub fn accept_from(&self) -> io::Result<(OwnedFd, Option<rustix::net::SocketAddrAny>)> {
        Ok(rustix::net::acceptfrom_with(&self.socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?)
    }
}

impl AsFd for ListenSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for ListenSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// What a worker accepts from.
#[derive(Clone, Debug)]
pub struct WorkerListener {
    pub socket: Arc<ListenSocket>,
    /// Which servers its connections belong to.
    pub plan: Arc<SocketPlan>,
}

/// The sockets of one plan.
#[derive(Clone, Debug)]
struct Group {
    key: SocketKey,
    plan: Arc<SocketPlan>,
    sockets: Vec<Arc<ListenSocket>>,
    /// One socket, for all workers.
    shared: bool,
}

/// All listening sockets of the process.
#[derive(Clone, Debug, Default)]
pub struct ListenerSet {
    groups: Vec<Group>,
}

impl ListenerSet {
    /// Takes sockets that another process opened. What is no listening socket is closed.
    pub fn from_descriptors(descriptors: Vec<OwnedFd>) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        for socket in descriptors.into_iter().map(Socket::from) {
            let Some(key) = SocketKey::of_socket(&socket) else { continue };
            let _ = socket.set_nonblocking(true);
            let _ = socket.set_cloexec(true);
            let socket = Arc::new(ListenSocket { socket });
            match groups.iter_mut().find(|group| group.key == key) {
                Some(group) => group.sockets.push(socket),
                None => {
                    let plan = Arc::new(SocketPlan::new(key.address.clone(), SocketOptions::default()));
                    groups.push(Group { key, plan, sockets: vec![socket], shared: true });
                }
            }
        }
        Self { groups }
    }

    /// The set for these plans and so many workers: keeps what this set has for the same addresses, and opens the rest.
    /// This set stays as it was, so that a failure changes nothing; what is not in the new set is closed with this one.
    ///
    /// An address that is in use is tried [`BIND_TRIES`] times, [`BIND_PAUSE`] apart: this may take 2.5 seconds. The
    /// error was logged; its text is nginx's last line.
    pub fn renew(&self, plans: &[SocketPlan], workers: usize, log: LogLine<'_>) -> Result<Self, String> {
        let mut groups: Vec<Option<Group>> = vec![None; plans.len()];
        for attempt in 1..=BIND_TRIES {
            let mut in_use = false;
            for (place, plan) in plans.iter().enumerate() {
                if groups[place].is_some() {
                    continue;
                }
                let ours = || self.groups.iter().chain(groups.iter().flatten());
                match open_group(plan, workers, &ours, log) {
                    Ok(group) => groups[place] = Some(group),
                    Err(problem) => {
                        log(Level::Emerg, &problem.text);
                        if problem.kind != io::ErrorKind::AddrInUse {
                            return Err(problem.text);
                        }
                        in_use = true;
                    }
                }
            }
            if !in_use {
                let set = Self { groups: groups.into_iter().flatten().collect() };
                set.update_held(log)?;
                return Ok(set);
            }
            if attempt < BIND_TRIES {
                log(Level::Notice, &format!("try again to bind() after {}ms", BIND_PAUSE.as_millis()));
                std::thread::sleep(BIND_PAUSE);
            }
        }
        log(Level::Emerg, "still could not bind()");
        Err("still could not bind()".to_owned())
    }

    /// Brings sockets that were held before up to date with their plans, once nothing can fail any more but this.
    fn update_held(&self, log: LogLine<'_>) -> Result<(), String> {
        for group in &self.groups {
            for socket in &group.sockets {
                apply_options(&socket.socket, &group.plan, log);
                listen(&socket.socket, &group.plan).map_err(|problem| problem.text)?;
            }
        }
        Ok(())
    }

    /// What worker `index` of `workers` accepts from. All workers together accept from every socket.
    pub fn of_worker(&self, index: usize, workers: usize) -> Vec<WorkerListener> {
        debug_assert!(index < workers, "workers are numbered from 0");
        let mut listeners = Vec::new();
        for group in &self.groups {
            for (number, socket) in group.sockets.iter().enumerate() {
                if group.shared || number % workers == index {
                    listeners
                        .push(WorkerListener { socket: Arc::clone(socket), plan: Arc::clone(&group.plan) });
                }
            }
        }
        listeners
    }

    /// Every socket, to be handed to another process.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.groups.iter().flat_map(|group| &group.sockets).map(|socket| socket.as_fd())
    }

    /// The paths of Unix sockets that this set has and `other` does not.
    pub fn unix_paths_not_in(&self, other: &Self) -> Vec<String> {
        let path = |group: &Group| match &group.key.address {
            ListenAddress::Unix(path) => Some(path.clone()),
            ListenAddress::Inet(_) => None,
        };
        let kept: Vec<String> = other.groups.iter().filter_map(path).collect();
        self.groups.iter().filter_map(path).filter(|path| !kept.contains(path)).collect()
    }
}

/// Why an address could not be listened on.
struct OpenError {
    kind: io::ErrorKind,
    text: String,
}

fn open_error(call: &str, address: &ListenAddress, error: &io::Error) -> OpenError {
    let text = format!("{call} {address} failed ({})", describe(error));
    OpenError { kind: error.kind(), text }
}

/// An error in nginx's form: `98: Address already in use`.
pub fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    match error.raw_os_error() {
        Some(number) => {
            format!("{number}: {}", text.strip_suffix(&format!(" (os error {number})")).unwrap_or(&text))
        }
        None => text,
    }
}

/// The sockets for one plan: those that are held already, and new ones for workers without.
fn open_group<'a, I: Iterator<Item = &'a Group>>(
    plan: &SocketPlan,
    workers: usize,
    ours: &dyn Fn() -> I,
    log: LogLine<'_>,
) -> Result<Group, OpenError> {
    let key = SocketKey::of_plan(plan);
    let held = ours().find(|group| group.key == key).map(|group| group.sockets.clone());
    let port = |address: &ListenAddress| match address {
        ListenAddress::Inet(address) => Some(address.port()),
        ListenAddress::Unix(_) => None,
    };
    // Another of our own sockets on this port would refuse the strict first bind.
    let port_is_ours = ours().any(|group| port(&group.key.address) == port(&key.address));
    let mut sockets = held.unwrap_or_default();
    let mut shared = matches!(plan.address, ListenAddress::Unix(_));
    if sockets.is_empty() {
        sockets.push(Arc::new(open_first(plan, !port_is_ours, log)?));
    }
    // A socket that was bound without the option, by an older process, can't be joined by others.
    shared |= !sockets[0].socket.reuse_port().unwrap_or(false);
    while !shared && sockets.len() < workers {
        let socket = new_socket(plan, log).and_then(|socket| {
            socket
                .set_reuse_port(true)
                .map_err(|error| open_error("setsockopt(SO_REUSEPORT)", &plan.address, &error))?;
            bind(&socket, plan)?;
            listen(&socket, plan)?;
            Ok(socket)
        });
        match socket {
            Ok(socket) => sockets.push(Arc::new(ListenSocket { socket })),
            Err(problem) if sockets.len() == 1 => {
                log(Level::Warn, &format!("{}; all workers share one socket", problem.text));
                shared = true;
            }
            // There are others to share the work.
            Err(problem) => {
                log(Level::Warn, &problem.text);
                break;
            }
        }
    }
    // Workers without a socket of their own would idle.
    shared |= sockets.len() < workers;
    Ok(Group { key, plan: Arc::new(plan.clone()), sockets, shared })
}

/// Opens the first socket of an address. With `strict`, the address must not be in use by anybody: SO_REUSEPORT from
/// the start would silently share it with another server of the same user.
fn open_first(plan: &SocketPlan, strict: bool, log: LogLine<'_>) -> Result<ListenSocket, OpenError> {
    let socket = new_socket(plan, log)?;
    let is_inet = matches!(plan.address, ListenAddress::Inet(_));
    let mut share = |socket: &Socket| {
        // Not fatal: the workers share the one socket then.
        if let (true, Err(error)) = (is_inet, socket.set_reuse_port(true)) {
            let reason = describe(&error);
            log(Level::Warn, &format!("setsockopt(SO_REUSEPORT) {} failed ({reason})", plan.address));
        }
    };
    if !strict {
        share(&socket);
    }
    bind(&socket, plan)?;
    if strict {
        share(&socket);
    }
    listen(&socket, plan)?;
    Ok(ListenSocket { socket })
}

/// A socket of the plan's kind with its options, not bound.
fn new_socket(plan: &SocketPlan, log: LogLine<'_>) -> Result<Socket, OpenError> {
    let domain = match &plan.address {
        ListenAddress::Unix(_) => Domain::UNIX,
        ListenAddress::Inet(address) => Domain::for_address(*address),
    };
    let mut protocol = None;
    if plan.options.multipath && domain != Domain::UNIX {
        match multipath_trouble() {
            None => protocol = Some(Protocol::MPTCP),
            Some(error) => {
                let reason = describe(&error);
                log(
                    Level::Warn,
                    &format!("{} is without multipath: socket() failed ({reason})", plan.address),
                );
            }
        }
    }
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), protocol)
        .map_err(|error| open_error("socket()", &plan.address, &error))?;
    if let ListenAddress::Inet(address) = plan.address {
        // A port that only has the last packets of a dead process binds.
        socket
            .set_reuse_address(true)
            .map_err(|error| open_error("setsockopt(SO_REUSEADDR)", &plan.address, &error))?;
        if address.is_ipv6() {
            socket
                .set_only_v6(!plan.options.dual_stack)
                .map_err(|error| open_error("setsockopt(IPV6_V6ONLY)", &plan.address, &error))?;
        }
    }
    apply_options(&socket, plan, log);
    Ok(socket)
}

/// Sets what may change while a socket listens. Accepted connections inherit it, so that accepting costs no further
/// call. As in nginx, an option that the kernel refuses is logged and no reason to stop.
fn apply_options(socket: &Socket, plan: &SocketPlan, log: LogLine<'_>) {
    let options = &plan.options;
    let mut check = |name: &str, result: io::Result<()>| {
        if let Err(error) = result {
            let reason = describe(&error);
            log(Level::Alert, &format!("setsockopt({name}) {} failed ({reason}), ignored", plan.address));
        }
    };
    if let Some(bytes) = options.receive_buffer {
        check("SO_RCVBUF", socket.set_recv_buffer_size(bytes as usize));
    }
    if let Some(bytes) = options.send_buffer {
        check("SO_SNDBUF", socket.set_send_buffer_size(bytes as usize));
    }
    match options.keepalive {
        None => {}
        Some(None) => check("SO_KEEPALIVE", socket.set_keepalive(false)),
        Some(Some(parts)) => {
            check("SO_KEEPALIVE", socket.set_keepalive(true));
            let mut keepalive = TcpKeepalive::new();
            if let Some(idle) = parts.idle {
                keepalive = keepalive.with_time(idle);
            }
            if let Some(interval) = parts.interval {
                keepalive = keepalive.with_interval(interval);
            }
            if let Some(count) = parts.count {
                keepalive = keepalive.with_retries(count);
            }
            if matches!(plan.address, ListenAddress::Inet(_)) {
                check("TCP_KEEPIDLE", socket.set_tcp_keepalive(&keepalive));
            }
        }
    }
    if let ListenAddress::Inet(_) = plan.address {
        check("TCP_NODELAY", socket.set_tcp_nodelay(true));
        if plan.address.is_loopback() {
            sys::set_loopback_congestion(socket);
        }
        check("TCP_NOTSENT_LOWAT", socket.set_tcp_notsent_lowat(NOT_SENT_LOW_WATER));
        if let Some(queue) = options.fastopen {
            check("TCP_FASTOPEN", sys::set_tcp_fastopen(socket, i32::try_from(queue).unwrap_or(i32::MAX)));
        }
        let seconds = if options.deferred { DEFER_ACCEPT_SECONDS } else { 0 };
        check("TCP_DEFER_ACCEPT", sys::set_tcp_defer_accept(socket, seconds));
    }
}

fn bind(socket: &Socket, plan: &SocketPlan) -> Result<(), OpenError> {
    let failed = |error: io::Error| open_error("bind() to", &plan.address, &error);
    match &plan.address {
        ListenAddress::Inet(address) => socket.bind(&(*address).into()).map_err(failed),
        ListenAddress::Unix(path) => {
            let address = SockAddr::unix(path).map_err(failed)?;
            match socket.bind(&address) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && remove_stale(path, &address) => {
                    socket.bind(&address)
                }
                result => result,
            }
            .map_err(failed)?;
            // Any local user may connect, as in nginx; the folder's permissions say who gets there.
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o666))
                .map_err(|error| open_error("chmod()", &plan.address, &error))
        }
    }
}

/// Removes the file of a Unix socket that nobody listens on any more. nginx leaves it and fails.
fn remove_stale(path: &str, address: &SockAddr) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if !is_socket {
        return false;
    }
    let Ok(probe) = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None) else {
        return false;
    };
    let refused = probe.connect(address).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    refused && std::fs::remove_file(path).is_ok()
}

fn listen(socket: &Socket, plan: &SocketPlan) -> Result<(), OpenError> {
    let backlog = plan.options.backlog.unwrap_or(DEFAULT_BACKLOG);
    socket
        .listen(i32::try_from(backlog).unwrap_or(i32::MAX))
        .map_err(|error| open_error("listen() to", &plan.address, &error))
}

/// The sockets by address.
#[cfg(test)]
pub(crate) fn count_by_address(set: &ListenerSet) -> std::collections::HashMap<String, usize> {
    set.groups.iter().map(|group| (group.key.address.to_string(), group.sockets.len())).collect()
}

#[cfg(test)]
mod tests;
