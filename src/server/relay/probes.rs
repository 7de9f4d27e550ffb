//! Health checks on the wire: one worker of the process asks the peers of each checked group, and tells the group what
//! it found.
//!
//! A probe is a request on a connection of its own, which is closed behind it. It passes when its response complies
//! with the `match` block, and fails when it does not, or when anything goes wrong before that is known.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::sync::Arc;

use slab::Slab;

use crate::base::level::Level;
use crate::http::modules::proxy::Pass;
use crate::http::site::Site;
use crate::http::upstream_call::{CallTls, Conduct, Protocol};
use crate::message::ResponseHead;
use crate::proto::tls::{Fault, TlsError};
use crate::server::worker::resources::Resources;
use crate::upstream::Peer;
use crate::upstream::health::HealthChecks;
use crate::upstream::match_rules::{self, BODY_LIMIT, Mismatch};

use super::connection::{self, Connection};
use super::links::Owner;
use super::tls::{HandshakeFailure, TlsLayer};
use super::wire::{Event, Wire};

/// Probes under way at once; more wait for the next look.
const MOST_PROBES: usize = 256;
/// Monotonic milliseconds until those that had to wait are looked at again.
const LOOK_AGAIN_MS: u64 = 10;

/// A checked group.
struct Check {
    health: HealthChecks,
    conduct: Arc<Conduct>,
    /// Whether over TLS, and how.
    tls: Option<Arc<CallTls>>,
    /// The request, the same for all peers.
    request: Vec<u8>,
}

/// A request to one peer.
struct Probe {
    /// Its check, by position, and the configuration that this is a position in.
    check: usize,
    epoch: u64,
    peer: Arc<Peer>,
    connection: Connection,
    connected: bool,
    /// The TLS handshake is over, if there is one.
    secure: bool,
    sent: usize,
    head: ResponseHead,
    has_head: bool,
    body: Vec<u8>,
    deadline_ms: u64,
}

/// How a probe stands.
enum Verdict {
    Pending,
    Passed,
    Failed(&'static str),
}

/// See the module's documentation.
#[derive(Default)]
pub struct Probes {
    checks: Vec<Check>,
    probes: Slab<Probe>,
    epoch: u64,
}

impl Probes {
    /// Takes the checks of a new site. Probes under way are given up: what they ask may have changed. What was found of
    /// peers stays, but for those that nothing checks any more.
    pub fn configure(&mut self, site: &Site, res: &mut Resources) {
        self.epoch += 1;
        for probe in self.probes.drain() {
            probe.connection.close(&mut res.links);
        }
        let before = std::mem::take(&mut self.checks);
        for location in &site.locations {
            let (Some(plan), Some(Pass::Fixed(pass))) =
                (&location.settings.health_check.check, &location.settings.proxy.pass)
            else {
                continue;
            };
            let group = site.upstreams.group(pass.id).clone();
            let tls = pass.secure.then(|| location.settings.proxy_ssl.probe(&pass.url.shown_host)).flatten();
            let known = |check: &Check| {
                check.health.group().key() == group.key()
                    && Arc::ptr_eq(check.health.plan(), plan)
                    && check.tls == tls
            };
            if self.checks.iter().any(known) {
                continue;
            }
            let mut request = Vec::new();
            for part in [
                &b"GET "[..],
                &plan.uri,
                b" HTTP/1.1\r\nHost: ",
                &pass.url.shown_host,
                b"\r\nConnection: close\r\n\r\n",
            ] {
                request.extend_from_slice(part);
            }
            let health = HealthChecks::new(plan.clone(), group, res.env.now.monotonic_ms);
            self.checks.push(Check {
                health,
                conduct: location.settings.proxy.conduct.clone(),
                tls,
                request,
            });
        }
        self.forget_unchecked(&before, res.env.now.monotonic_ms);
    }

    fn forget_unchecked(&self, before: &[Check], now_ms: u64) {
        if before.is_empty() {
            return;
        }
        let checked = self.checks.iter().flat_map(|check| check.health.group().peers());
        let checked: HashSet<usize> = checked.map(|peer| peer.key()).collect();
        for check in before {
            for peer in check.health.group().peers() {
                if !checked.contains(&peer.key()) {
                    check.health.group().forget_health(&peer, now_ms);
                }
            }
        }
    }

    /// When [`Probes::run`] has something to do, in monotonic milliseconds.
    pub fn next_deadline(&self, now_ms: u64) -> Option<u64> {
        let due = self.checks.iter().map(|check| check.health.next_deadline_ms()).min()?;
        let due = if self.probes.len() < MOST_PROBES { due } else { due.max(now_ms + LOOK_AGAIN_MS) };
        self.probes.iter().map(|(_, probe)| probe.deadline_ms).chain([due]).min()
    }

    /// Begins the probes that are due, and gives up those that take too long.
    pub fn run(&mut self, res: &mut Resources) {
        let now_ms = res.env.now.monotonic_ms;
        let late: Vec<usize> = self
            .probes
            .iter()
            .filter(|(_, probe)| probe.deadline_ms <= now_ms)
            .map(|(number, _)| number)
            .collect();
        for number in late {
            self.end(number, Verdict::Failed("it timed out"), res);
        }
        for check in 0..self.checks.len() {
            while self.probes.len() < MOST_PROBES
                && let Some(peer) = self.checks[check].health.due(now_ms)
            {
                self.begin(check, peer, res);
            }
        }
    }

    fn begin(&mut self, check: usize, peer: Arc<Peer>, res: &mut Resources) {
        let now_ms = res.env.now.monotonic_ms;
        let Check { health, conduct, tls, .. } = &self.checks[check];
        let place = self.probes.vacant_key();
        let address = health.plan().address_of(&peer);
        let opened = connection::open(&address, None, conduct).and_then(|socket| {
            let mut wire = Wire::new(Protocol::Http1);
            wire.begin_probe(conduct.buffer_size);
            let owner = Owner::Probe(place as u32);
            let layer = match tls {
                None => None,
                Some(tls) => {
                    Some(TlsLayer::start(tls, &tls.tls.config, peer.name()).map_err(std::io::Error::other)?)
                }
            };
            let mut connection = Connection::new(socket, wire, owner, &mut res.links, &res.registry, now_ms)?;
            connection.tls = layer.map(Box::new);
            Ok(connection)
        });
        match opened {
            Ok(connection) => {
                self.probes.insert(Probe {
                    check,
                    epoch: self.epoch,
                    peer,
                    connection,
                    connected: false,
                    secure: false,
                    sent: 0,
                    head: ResponseHead::default(),
                    has_head: false,
                    body: Vec::new(),
                    deadline_ms: now_ms + conduct.connect_timeout,
                });
            }
            Err(_) => self.judged(check, &peer, Verdict::Failed("it refused the connection"), res),
        }
    }

    /// Something happened at a probe's socket.
    pub fn on_event(&mut self, number: u32, res: &mut Resources) {
        let number = number as usize;
        let Some(probe) = self.probes.get_mut(number).filter(|probe| probe.epoch == self.epoch) else {
            return;
        };
        let verdict = probe.advance(&self.checks[probe.check], res);
        self.end(number, verdict, res);
    }

    fn end(&mut self, number: usize, verdict: Verdict, res: &mut Resources) {
        if matches!(verdict, Verdict::Pending) {
            return;
        }
        let probe = self.probes.remove(number);
        probe.connection.close(&mut res.links);
        self.judged(probe.check, &probe.peer, verdict, res);
    }

    fn judged(&mut self, check: usize, peer: &Arc<Peer>, verdict: Verdict, res: &mut Resources) {
        let others_object = self
            .checks
            .iter()
            .enumerate()
            .any(|(position, other)| position != check && other.health.objects_to(peer));
        let health = &mut self.checks[check].health;
        let passed = matches!(verdict, Verdict::Passed);
        let now_ms = res.env.now.monotonic_ms;
        if !health.judged(peer, passed, others_object, now_ms, &mut res.env.random) {
            return;
        }
        let group = health.group().name();
        let targets = res.site.error_log.clone();
        match verdict {
            Verdict::Failed(why) => res.env.logs.push(
                &targets,
                Level::Warn,
                None,
                format_args!("peer {} of upstream \"{group}\" is unhealthy: {why}", peer.name()),
            ),
            _ => res.env.logs.push(
                &targets,
                Level::Notice,
                None,
                format_args!("peer {} of upstream \"{group}\" is healthy", peer.name()),
            ),
        }
    }
}

impl Probe {
    fn advance(&mut self, check: &Check, res: &mut Resources) -> Verdict {
        let now_ms = res.env.now.monotonic_ms;
        if !self.connected {
            if self.connection.take_error().is_some() {
                return Verdict::Failed("it refused the connection");
            }
            self.connected = true;
            self.deadline_ms = now_ms + check.conduct.connect_timeout;
        }
        if !self.secure {
            match self.shake(res) {
                Ok(true) => {}
                Ok(false) => return Verdict::Pending,
                Err(verdict) => return verdict,
            }
            self.secure = true;
            self.deadline_ms = now_ms + check.conduct.read_timeout;
        }
        if self.connection.flush().is_err() {
            return Verdict::Failed("it closed the connection");
        }
        while self.sent < check.request.len() {
            match self.connection.send(&check.request[self.sent..], false, &mut res.links) {
                Ok(0) => break,
                Ok(count) => self.sent += count,
                Err(_) => return Verdict::Failed("it closed the connection"),
            }
        }
        let mut buffer = std::mem::take(&mut res.upstream_input);
        let verdict = self.receive(check, &mut buffer, res);
        res.upstream_input = buffer;
        verdict
    }

    fn shake(&mut self, res: &mut Resources) -> Result<bool, Verdict> {
        let Some(tls) = &mut self.connection.tls else { return Ok(true) };
        let Some(link) = res.links.get(self.connection.link) else { return Ok(false) };
        tls.shake(self.connection.socket.as_fd(), &mut res.upstream_input, link).map_err(|failure| {
            match failure {
                HandshakeFailure::Tls(TlsError { fault: Fault::Certificate, .. }) => {
                    Verdict::Failed("its certificate is invalid")
                }
                _ => Verdict::Failed("the TLS handshake failed"),
            }
        })
    }

    fn receive(&mut self, check: &Check, buffer: &mut [u8], res: &mut Resources) -> Verdict {
        loop {
            let count = match self.connection.receive(buffer, &mut res.links) {
                Ok(None) => return Verdict::Pending,
                Ok(Some(0)) => {
                    return match self.connection.wire.end_of_input() {
                        Ok(()) if self.has_head => self.compare(check),
                        _ => Verdict::Failed("it closed the connection"),
                    };
                }
                Ok(Some(count)) => count,
                Err(_) => return Verdict::Failed("it closed the connection"),
            };
            let mut input = &buffer[..count];
            loop {
                match self.connection.wire.read(&mut input, &mut self.head) {
                    Ok(Event::NeedMore) => break,
                    Ok(Event::Interim | Event::Trailers) => {}
                    Ok(Event::Head(_)) => {
                        self.has_head = true;
                        let rules = check.health.plan().rules.as_ref().and_then(|slot| slot.get());
                        if rules.is_none_or(|rules| rules.body.is_none()) {
                            return self.compare(check);
                        }
                    }
                    Ok(Event::Body(bytes)) => {
                        let room = BODY_LIMIT - self.body.len();
                        self.body.extend_from_slice(&bytes[..bytes.len().min(room)]);
                        if self.body.len() == BODY_LIMIT {
                            return self.compare(check);
                        }
                    }
                    Ok(Event::End) => return self.compare(check),
                    Err(_) => return Verdict::Failed("its response is invalid"),
                }
            }
        }
    }

    fn compare(&self, check: &Check) -> Verdict {
        let rules = check.health.plan().rules.as_ref().and_then(|slot| slot.get());
        let fields = self.head.fields.iter().map(|(_, name, value)| (name, value)).collect::<Vec<_>>();
        match match_rules::judge(rules, self.head.status.0, fields.iter().copied(), &self.body) {
            Ok(()) => Verdict::Passed,
            Err(Mismatch::Status) => Verdict::Failed("its status does not match"),
            Err(Mismatch::Header) => Verdict::Failed("its header does not match"),
            Err(Mismatch::Body) => Verdict::Failed("its body does not match"),
        }
    }
}
