//! The names of the site's groups: one worker of the process looks them up for all, and tells the groups.
//!
//! A name without `resolve` is asked for until it is found, then never again, as nginx does at its start; one with
//! `resolve` again and again, when its answer expires. Groups keep the last good addresses when a look-up fails.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::level::Level;
use crate::http::upstreams::Upstreams;
use crate::server::names::{Io, NameLookup, Names, Ticket};
use crate::upstream::names::{Answer, Kind, NameError, Records, ResolverPlan};
use crate::upstream::{Group, Resolved};

/// Milliseconds until a name is asked for again that was not found.
const RETRY_MS: u64 = 1_000;
/// A name is asked for at most so often, in milliseconds, however short its records live.
const SHORTEST_MS: u64 = 500;

/// One name of one group.
struct Entry {
    group: Arc<Group>,
    resolver: Option<Arc<ResolverPlan>>,
    plan_index: usize,
    host: Box<str>,
    port: u16,
    service: Option<Box<str>>,
    resolve: bool,
    ticket: Option<Ticket>,
    /// Monotonic milliseconds of the next look-up; `u64::MAX` for never.
    next_ms: u64,
    /// The last failure was told.
    failed: bool,
}

/// See the module's documentation.
#[derive(Default)]
pub struct UpstreamNames {
    entries: Vec<Entry>,
}

impl UpstreamNames {
    /// Takes the names of a new site's groups. Those whose group was taken over go on as they are.
    pub fn configure(&mut self, upstreams: &Upstreams, names: &mut Names) {
        let mut former: HashMap<(usize, usize), Entry> = HashMap::new();
        for entry in self.entries.drain(..) {
            if let Some(ticket) = entry.ticket {
                names.cancel(ticket);
            }
            former.insert((Arc::as_ptr(&entry.group) as usize, entry.plan_index), entry);
        }
        for known in upstreams.all() {
            for named in known.group.names() {
                let before = former.remove(&(Arc::as_ptr(&known.group) as usize, named.plan_index));
                let is_same = |before: &Entry| before.resolver == known.resolver && before.ticket.is_none();
                self.entries.push(Entry {
                    group: known.group.clone(),
                    resolver: known.resolver.clone(),
                    plan_index: named.plan_index,
                    host: named.host.into(),
                    port: named.port,
                    service: named.service.map(Box::from),
                    resolve: named.resolve,
                    ticket: None,
                    next_ms: before.filter(is_same).map_or(0, |before| before.next_ms),
                    failed: false,
                });
            }
        }
    }

    /// When [`UpstreamNames::run`] has something to do, in monotonic milliseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        let waiting = self.entries.iter().filter(|entry| entry.ticket.is_none());
        waiting.map(|entry| entry.next_ms).min().filter(|next_ms| *next_ms != u64::MAX)
    }

    /// Asks for what is due. What failed comes as lines for the error log.
    pub fn run(&mut self, names: &mut Names, io: &mut Io<'_>) -> Vec<(Level, String)> {
        let mut lines = Vec::new();
        for entry in &mut self.entries {
            if entry.ticket.is_some() || entry.next_ms > io.now_ms {
                continue;
            }
            let kind = entry.service.as_deref().map_or(Kind::Addresses, Kind::Service);
            match names.lookup(entry.resolver.as_ref(), entry.host.as_bytes(), kind, io) {
                NameLookup::Pending(ticket) => entry.ticket = Some(ticket),
                NameLookup::Ready(answer) => entry.take(Ok(answer), io.now_ms, &mut lines),
                NameLookup::Failed(error) => entry.take(Err(error), io.now_ms, &mut lines),
            }
        }
        lines
    }

    /// Takes an answer, if it is for one of the names.
    pub fn finished(
        &mut self,
        ticket: Ticket,
        result: &Result<Answer, NameError>,
        now_ms: u64,
    ) -> Option<Vec<(Level, String)>> {
        let entry = self.entries.iter_mut().find(|entry| entry.ticket == Some(ticket))?;
        let mut lines = Vec::new();
        entry.ticket = None;
        entry.take(result.clone(), now_ms, &mut lines);
        Some(lines)
    }
}

impl Entry {
    fn take(&mut self, result: Result<Answer, NameError>, now_ms: u64, lines: &mut Vec<(Level, String)>) {
        match result {
            Ok(answer) => {
                self.group.set_addresses(self.plan_index, &resolved(&answer.records, self.port));
                if answer.stale && !std::mem::replace(&mut self.failed, true) {
                    let text = format!(
                        "upstream \"{}\": {} could not be resolved anew; its last addresses stay",
                        self.group.name(),
                        self.host
                    );
                    lines.push((Level::Warn, text));
                }
                self.failed &= answer.stale;
                self.next_ms = match self.resolve {
                    true => answer.expires_ms.max(now_ms + SHORTEST_MS),
                    false => u64::MAX,
                };
            }
            Err(error) => {
                self.group.set_name_failure(self.plan_index, &error.to_string());
                self.next_ms = now_ms + RETRY_MS;
                if !std::mem::replace(&mut self.failed, true) {
                    let text = format!(
                        "upstream \"{}\": {} could not be resolved ({error}); it is tried again",
                        self.group.name(),
                        self.host
                    );
                    lines.push((Level::Error, text));
                }
            }
        }
    }
}

/// What a group is told of an answer.
pub fn resolved(records: &Records, port: u16) -> Vec<Resolved> {
    match records {
        Records::Addresses(addresses) => addresses
            .iter()
            .map(|ip| Resolved { address: SocketAddr::new(*ip, port), service: None })
            .collect(),
        Records::Services(services) => services
            .iter()
            .flat_map(|service| {
                service.addresses.iter().map(|ip| Resolved {
                    address: SocketAddr::new(*ip, service.port),
                    service: Some((service.priority, service.weight)),
                })
            })
            .collect(),
    }
}
