//! Health checks on the wire: one worker of the process asks the peers of each checked group, and tells the group what
//! it found.
//!
//! A probe is a request on a connection of its own, which is closed behind it. It passes when its response complies
//! with the `match` block, and fails when it does not, or when anything goes wrong before that is known.

mod asking;

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::sync::Arc;

use slab::Slab;

use crate::base::level::Level;
use crate::http::modules::proxy::{self, Pass};
use crate::http::modules::{LocationSettings, grpc, proxy_ssl};
use crate::http::phases::Handler;
use crate::http::site::Site;
use crate::http::upstream_call::{CallTls, Conduct, Protocol};
use crate::proto::tls::{Fault, TlsError};
use crate::server::worker::resources::Resources;
use crate::upstream::Peer;
use crate::upstream::grpc_health::Refusal;
use crate::upstream::health::HealthChecks;
use crate::upstream::match_rules::{self, BODY_LIMIT, Mismatch};

use self::asking::{Ask, Progress, Response, Stream};
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
    ask: Ask,
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
    /// The machine of HTTP/2, where that is spoken; that of HTTP/1 is the connection's.
    stream: Option<Box<Stream>>,
    /// For the peer; what is before `sent` has gone.
    out: Vec<u8>,
    sent: usize,
    response: Response,
    deadline_ms: u64,
}

/// What a location's requests are passed on by.
fn passes_by(settings: &LocationSettings) -> (&proxy::Settings, &proxy_ssl::Settings) {
    let is_grpc =
        settings.core.handler.is_some_and(|handler| std::ptr::fn_addr_eq(handler, grpc::handle as Handler));
    match is_grpc {
        true => (&settings.grpc.proxy, &settings.grpc_ssl.ssl),
        false => (&settings.proxy, &settings.proxy_ssl),
    }
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
            let (passing, ssl) = passes_by(&location.settings);
            let (Some(plan), Some(Pass::Fixed(pass))) =
                (&location.settings.health_check.check, &passing.pass)
            else {
                continue;
            };
            let group = site.upstreams.group(pass.id).clone();
            let host = &pass.url.shown_host;
            let ask = Ask::new(plan, host, passing.http_version, pass.secure);
            let tls = pass.secure.then(|| ssl.probe(host, ask.is_framed())).flatten();
            let known = |check: &Check| {
                check.health.group().key() == group.key()
                    && Arc::ptr_eq(check.health.plan(), plan)
                    && check.tls == tls
            };
            if self.checks.iter().any(known) {
                continue;
            }
            let health = HealthChecks::new(plan.clone(), group, res.env.now.monotonic_ms);
            self.checks.push(Check { health, conduct: passing.conduct.clone(), tls, ask });
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
        let Check { health, conduct, tls, ask } = &self.checks[check];
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
        let mut out = Vec::new();
        let stream = match ask {
            Ask::Lines(lines) => {
                out.extend_from_slice(lines);
                Ok(None)
            }
            Ask::Framed { .. } => {
                Stream::begin(ask, conduct.buffer_size, now_ms, &mut out).map(|stream| Some(Box::new(stream)))
            }
        };
        match (opened, stream) {
            (Ok(connection), Ok(stream)) => {
                self.probes.insert(Probe {
                    check,
                    epoch: self.epoch,
                    peer,
                    connection,
                    connected: false,
                    secure: false,
                    stream,
                    out,
                    sent: 0,
                    response: Response::default(),
                    deadline_ms: now_ms + conduct.connect_timeout,
                });
            }
            (Ok(connection), Err(why)) => {
                connection.close(&mut res.links);
                self.judged(check, &peer, Verdict::Failed(why), res);
            }
            (Err(_), _) => self.judged(check, &peer, Verdict::Failed("it refused the connection"), res),
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
        let mut probe = self.probes.remove(number);
        if let Some(stream) = &mut probe.stream {
            stream.leave(&mut probe.out);
            // What the socket does not take is of no account any more.
            let _ = probe.send(res);
        }
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
        if let Err(verdict) = self.send(res) {
            return verdict;
        }
        let mut buffer = std::mem::take(&mut res.upstream_input);
        let verdict = self.receive(check, &mut buffer, res);
        res.upstream_input = buffer;
        match self.send(res) {
            Err(verdict) => verdict,
            Ok(()) => verdict,
        }
    }

    /// Sends what is to be sent, as much as the socket takes.
    fn send(&mut self, res: &mut Resources) -> Result<(), Verdict> {
        let closed = |_| Verdict::Failed("it closed the connection");
        self.connection.flush().map_err(closed)?;
        while self.sent < self.out.len() {
            match self.connection.send(&self.out[self.sent..], false, &mut res.links).map_err(closed)? {
                0 => return Ok(()),
                count => self.sent += count,
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    fn shake(&mut self, res: &mut Resources) -> Result<bool, Verdict> {
        let Some(tls) = &mut self.connection.tls else { return Ok(true) };
        let Some(link) = res.links.get(self.connection.link) else { return Ok(false) };
        let shaken = tls.shake(self.connection.socket.as_fd(), &mut res.upstream_input, link);
        let is_mute = |is_over: &bool| *is_over && self.stream.is_some();
        shaken
            .and_then(|is_over| match is_mute(&is_over) {
                true => tls.speaks_http2().map(|()| true),
                false => Ok(is_over),
            })
            .map_err(|failure| match failure {
                HandshakeFailure::NoHttp2(_)
                | HandshakeFailure::Tls(TlsError { fault: Fault::Protocol, .. }) => {
                    Verdict::Failed("it does not speak HTTP/2")
                }
                HandshakeFailure::Tls(TlsError { fault: Fault::Certificate, .. }) => {
                    Verdict::Failed("its certificate is invalid")
                }
                _ => Verdict::Failed("the TLS handshake failed"),
            })
    }

    fn receive(&mut self, check: &Check, buffer: &mut [u8], res: &mut Resources) -> Verdict {
        loop {
            let count = match self.connection.receive(buffer, &mut res.links) {
                Ok(None) => return Verdict::Pending,
                Ok(Some(0)) => {
                    return match self.connection.wire.end_of_input() {
                        Ok(()) if self.response.has_head && self.stream.is_none() => self.compare(check),
                        _ => Verdict::Failed("it closed the connection"),
                    };
                }
                Ok(Some(count)) => count,
                Err(_) => return Verdict::Failed("it closed the connection"),
            };
            let mut input = &buffer[..count];
            loop {
                let rules = check.health.plan().rules.as_ref().and_then(|slot| slot.get());
                let needs_body =
                    check.health.plan().grpc.is_some() || rules.is_some_and(|rules| rules.body.is_some());
                match self.read(&mut input, res.env.now.monotonic_ms) {
                    Ok(Progress::NeedMore) => break,
                    Ok(Progress::Head) if needs_body => {}
                    Ok(Progress::Body) if self.response.body.len() < BODY_LIMIT => {}
                    Ok(Progress::Head | Progress::Body | Progress::End) => return self.compare(check),
                    Err(why) => return Verdict::Failed(why),
                }
            }
        }
    }

    /// One event of the wire machine, whichever it is.
    fn read(&mut self, input: &mut &[u8], now_ms: u64) -> Result<Progress, &'static str> {
        let response = &mut self.response;
        if let Some(stream) = &mut self.stream {
            return stream.read(input, response, BODY_LIMIT, now_ms, &mut self.out);
        }
        loop {
            return Ok(match self.connection.wire.read(input, &mut response.head) {
                Ok(Event::NeedMore) => Progress::NeedMore,
                Ok(Event::Interim | Event::Trailers) => continue,
                Ok(Event::Head(_)) => {
                    response.has_head = true;
                    Progress::Head
                }
                Ok(Event::Body(bytes)) => {
                    response.take(bytes, BODY_LIMIT);
                    Progress::Body
                }
                Ok(Event::End) => Progress::End,
                Err(_) => return Err("its response is invalid"),
            });
        }
    }

    fn compare(&self, check: &Check) -> Verdict {
        let Response { head, body, .. } = &self.response;
        if let Some(grpc) = &check.health.plan().grpc {
            return match grpc.judge(self.response.grpc_status(), body) {
                Ok(()) => Verdict::Passed,
                Err(Refusal::Status) => Verdict::Failed("its gRPC status does not match"),
                Err(Refusal::NotServing) => Verdict::Failed("its service is not serving"),
            };
        }
        let rules = check.health.plan().rules.as_ref().and_then(|slot| slot.get());
        let fields = head.fields.iter().map(|(_, name, value)| (name, value)).collect::<Vec<_>>();
        match match_rules::judge(rules, head.status.0, fields.iter().copied(), body) {
            Ok(()) => Verdict::Passed,
            Err(Mismatch::Status) => Verdict::Failed("its status does not match"),
            Err(Mismatch::Header) => Verdict::Failed("its header does not match"),
            Err(Mismatch::Body) => Verdict::Failed("its body does not match"),
        }
    }
}
