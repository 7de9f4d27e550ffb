//! One question and its tries: several servers, resending, TCP, aliases.

use std::net::IpAddr;

use crate::proto::dns::{DnsName, Found, MAX_ALIASES, RecordType, Reply, ServiceRecord, rcode};

use super::plan::NameError;
use super::wires::{Owner, QueryId, Transport, Wires};

/// Milliseconds after which a question is asked again, of the next server if there are several; from then on always the
/// last. nginx waits 5 s each time, so that one lost datagram costs a request 5 s.
const RESEND_MS: [u64; 4] = [1000, 2000, 4000, 5000];
/// Milliseconds that a connection and the reply over it may take before another server is asked beside it.
const TCP_MS: u64 = 5000;
/// Queries that are open for one question at a time: the one before the last may still be answered.
const MAX_OPEN: usize = 2;
/// Queries in all for one question. At the intervals above that is more than a minute; aliases and truncated replies
/// cost some as well.
const MAX_TRIES: u32 = 64;

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Addresses, and seconds that they live.
    Addresses(Vec<IpAddr>, u32),
    /// Records of a service, and seconds that they live.
    Services(Vec<ServiceRecord>, u32),
    /// There is nothing, and how many seconds that is known.
    Nothing(Option<u32>),
    /// It could not be found out.
    Failed(NameError),
}

enum Progress {
    Asking(Asking),
    Done(Outcome),
}

#[derive(Default)]
struct Asking {
    /// Oldest first.
    open: Vec<QueryId>,
    resend_at_ms: u64,
    /// Tries since the name that is asked for changed last.
    tries: usize,
    /// Servers that will not answer this question.
    failed: Vec<usize>,
    last_error: Option<NameError>,
}

pub(super) struct Question {
    owner: Owner,
    record: RecordType,
    /// The name asked for, at the end of the aliases so far.
    name: DnsName,
    hops: usize,
    /// Lowest time to live of those aliases.
    ttl: u32,
    tries_in_all: u32,
    progress: Progress,
}

impl Question {
    /// Asks a first server.
    pub fn ask(wires: &mut Wires, owner: Owner, name: DnsName, record: RecordType, now_ms: u64) -> Question {
        let mut question = Question {
            owner,
            record,
            name,
            hops: 0,
            ttl: u32::MAX,
            tries_in_all: 0,
            progress: Progress::Asking(Asking::default()),
        };
        question.try_next(wires, now_ms);
        question
    }

    /// What came of it; `None` while it is asked.
    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.progress {
            Progress::Asking(_) => None,
            Progress::Done(outcome) => Some(outcome),
        }
    }

    /// When [`Question::on_deadline`] is to be called, in monotonic milliseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        match &self.progress {
            Progress::Asking(asking) => Some(asking.resend_at_ms),
            Progress::Done(_) => None,
        }
    }

    /// Asks again if it is time.
    pub fn on_deadline(&mut self, wires: &mut Wires, now_ms: u64) {
        let Progress::Asking(asking) = &self.progress else { return };
        if asking.resend_at_ms <= now_ms {
            for query in asking.open.clone() {
                wires.note_silence(query, now_ms);
            }
            self.try_next(wires, now_ms);
        }
    }

    /// A server has become known.
    pub fn on_new_server(&mut self, wires: &mut Wires, now_ms: u64) {
        if matches!(&self.progress, Progress::Asking(asking) if asking.open.is_empty()) {
            self.try_next(wires, now_ms);
        }
    }

    /// Time is up.
    pub fn give_up(&mut self, wires: &mut Wires) {
        if let Progress::Asking(asking) = &self.progress {
            let error = asking.last_error.unwrap_or(NameError::TimedOut);
            self.finish(wires, Outcome::Failed(error));
        }
    }

    /// A reply to one of its queries.
    pub fn on_reply(&mut self, wires: &mut Wires, query: QueryId, reply: Reply, now_ms: u64) {
        let Some((server, transport)) = wires.get(query).map(|query| (query.server, query.transport)) else {
            return;
        };
        wires.counters.replies[usize::from(reply.code & 15)] += 1;
        match reply.code {
            rcode::NO_ERROR | rcode::NAME_ERROR => {}
            code => return self.on_failure(wires, query, error_of(code), now_ms),
        }
        wires.note_answer(server);
        if reply.truncated && transport == Transport::Udp {
            return self.ask_by_tcp(wires, query, server, now_ms);
        }
        let is_denied = reply.code == rcode::NAME_ERROR;
        match reply.found {
            Found::Nothing(ttl) => self.finish(wires, Outcome::Nothing(ttl)),
            _ if is_denied => self.finish(wires, Outcome::Nothing(None)),
            Found::Addresses(addresses, ttl) => {
                self.finish(wires, Outcome::Addresses(addresses, ttl.min(self.ttl)));
            }
            Found::Services(services, ttl) if services.is_empty() => {
                self.finish(wires, Outcome::Nothing(Some(ttl)));
            }
            Found::Services(services, ttl) => {
                self.finish(wires, Outcome::Services(services, ttl.min(self.ttl)));
            }
            Found::Alias { target, hops, ttl } if self.hops + hops <= MAX_ALIASES => {
                self.close_all(wires);
                self.name = target;
                self.hops += hops;
                self.ttl = self.ttl.min(ttl);
                self.progress = Progress::Asking(Asking::default());
                self.try_next(wires, now_ms);
            }
            Found::Alias { .. } | Found::BadAlias => {
                self.finish(wires, Outcome::Failed(NameError::BadAlias));
            }
        }
    }

    /// One of its queries came to nothing: its server is not asked this question again.
    pub fn on_failure(&mut self, wires: &mut Wires, query: QueryId, error: NameError, now_ms: u64) {
        let Progress::Asking(asking) = &mut self.progress else { return };
        if let Some(server) = wires.get(query).map(|query| query.server) {
            asking.failed.push(server);
        }
        asking.last_error = Some(error);
        asking.open.retain(|open| *open != query);
        wires.close(query);
        self.try_next(wires, now_ms);
    }

    fn ask_by_tcp(&mut self, wires: &mut Wires, query: QueryId, server: usize, now_ms: u64) {
        let Progress::Asking(asking) = &mut self.progress else { return };
        self.tries_in_all += 1;
        asking.open.retain(|open| *open != query);
        wires.close(query);
        asking.open.push(wires.open(self.owner, server, Transport::Tcp, &self.name, self.record));
        asking.resend_at_ms = now_ms + TCP_MS;
    }

    /// Asks the next server, if any is left that may answer.
    fn try_next(&mut self, wires: &mut Wires, now_ms: u64) {
        let Progress::Asking(asking) = &mut self.progress else { return };
        asking.resend_at_ms = now_ms + RESEND_MS[asking.tries.min(RESEND_MS.len() - 1)];
        if !wires.has_servers() {
            // They are being looked up; `on_new_server` comes when one is known.
            return;
        }
        let asked: Vec<usize> =
            asking.open.iter().filter_map(|query| wires.get(*query)).map(|query| query.server).collect();
        let chosen = match self.tries_in_all < MAX_TRIES {
            true => wires.choose(&asking.failed, &asked, now_ms),
            false => None,
        };
        match chosen {
            Some(server) => {
                if asking.open.len() == MAX_OPEN {
                    wires.close(asking.open.remove(0));
                }
                asking.open.push(wires.open(self.owner, server, Transport::Udp, &self.name, self.record));
                asking.tries += 1;
                self.tries_in_all += 1;
            }
            None if asking.open.is_empty() => {
                let error = asking.last_error.unwrap_or(NameError::TimedOut);
                self.progress = Progress::Done(Outcome::Failed(error));
            }
            // The last one that was asked may still answer.
            None => {}
        }
    }

    fn finish(&mut self, wires: &mut Wires, outcome: Outcome) {
        self.close_all(wires);
        self.progress = Progress::Done(outcome);
    }

    /// Lets go of what is on its way.
    pub fn close_all(&mut self, wires: &mut Wires) {
        if let Progress::Asking(asking) = &mut self.progress {
            for query in asking.open.drain(..) {
                wires.close(query);
            }
        }
    }
}

fn error_of(code: u8) -> NameError {
    match code {
        rcode::FORMAT_ERROR => NameError::Format,
        rcode::NOT_IMPLEMENTED => NameError::NotImplemented,
        rcode::REFUSED => NameError::Refused,
        _ => NameError::ServerFailure,
    }
}
