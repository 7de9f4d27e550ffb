//! `upstream` blocks: groups of servers that requests are passed on to.
//!
//! A block becomes a `GroupPlan`, which knows no variables, and `GroupSettings` beside it: the texts with variables
//! that its method and its sessions go by. Names of servers stay names: looking them up is I/O, and a name that cannot be
//! found stops no start.

mod methods;
mod server;
pub mod sessions;
mod sticky;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use crate::conf::context::Context;
use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::template::Template;
use crate::conf::values;
use crate::http::build::arguments::{milliseconds, number};
use crate::http::build::{LocationHead, Scope};
use crate::http::settings::contexts::HTTP;
use crate::http::settings::settings;
use crate::http::upstreams::SiteGroup;
use crate::upstream::Group;
use crate::upstream::names::ResolverPlan;
use crate::upstream::plan::{GroupPlan, PeerPlan, QueuePlan, Zone};

pub use sticky::{Expires, Sticky, StickyCookie};

/// Within an `upstream` block.
const UPSTREAM: Context = Context::UPSTREAM;
/// What a zone has at least: eight pages, as in nginx.
const LEAST_ZONE: u64 = 8 * 4096;
/// How long a request waits in the queue, in milliseconds.
const QUEUE_TIMEOUT_MS: u64 = 60_000;

settings! {
    module upstream;
    fields {
    }
    plain {
        /// A group of servers that requests may be passed on to.
        "upstream" HTTP, Arity::exactly(1).block(), default "", set_upstream;
        /// A server of the group: an address, a name or a Unix socket, and how it is asked.
        "server" UPSTREAM, Arity::at_least(1), default "", server::set;
        /// Accepted: all workers share what is known of a group, with or without a zone.
        "zone" UPSTREAM, Arity::between(1, 2), default "", set_zone;
        /// The server with the fewest requests for its weight is asked.
        "least_conn" UPSTREAM, Arity::exactly(0), default "", methods::least_conn;
        /// The server that answers fastest for its weight and its requests is asked.
        "least_time" UPSTREAM, Arity::between(1, 2), default "", methods::least_time;
        /// The client's address says which server is asked.
        "ip_hash" UPSTREAM, Arity::exactly(0), default "", methods::ip_hash;
        /// A text says which server is asked; `consistent` moves few texts when servers come and go.
        "hash" UPSTREAM, Arity::between(1, 2), default "", methods::hash;
        /// Chance says which server is asked, or which two, of which the better one is.
        "random" UPSTREAM, Arity::between(0, 2), default "", methods::random;
        /// Requests of one session go to one server: by a cookie, a route, or what was learned.
        "sticky" UPSTREAM, Arity::at_least(2), default "", sticky::set;
        /// Idle connections that each worker keeps; 0 for none.
        "keepalive" UPSTREAM, Arity::between(1, 2), default "32 local", set_keepalive;
        /// Requests that one connection may make.
        "keepalive_requests" UPSTREAM, Arity::exactly(1), default "1000", set_keepalive_requests;
        /// How old a connection may become.
        "keepalive_time" UPSTREAM, Arity::exactly(1), default "1h", set_keepalive_time;
        /// How long an idle connection is kept.
        "keepalive_timeout" UPSTREAM, Arity::exactly(1), default "60s", set_keepalive_timeout;
        /// How many requests may wait while all servers have as many as they may have, and how long.
        "queue" UPSTREAM, Arity::between(1, 2), default "", set_queue;
        /// A file with more `server` lines, which need not be there.
        "state" UPSTREAM, Arity::exactly(1), default "", set_state;
    }
}

/// What a group has beside its plan: the texts with variables.
#[derive(Debug, Default)]
pub struct GroupSettings {
    /// The key of `hash`.
    pub hash_key: Option<Template>,
    /// `sticky`.
    pub sticky: Option<Sticky>,
}

/// An `upstream` block while it is read.
pub struct UpstreamDraft {
    plan: GroupPlan,
    settings: GroupSettings,
    /// A method was chosen.
    has_method: bool,
    /// `resolver` of the block, with its timeout.
    resolver: Option<Arc<ResolverPlan>>,
    /// Directives that stand once only.
    seen: HashSet<Box<str>>,
}

impl UpstreamDraft {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// The group. `around` is the resolver of the `http` block.
    pub fn finish(self, around: Option<&Arc<ResolverPlan>>) -> SiteGroup {
        SiteGroup {
            group: Arc::new(Group::new(self.plan, None)),
            resolver: self.resolver.or_else(|| around.cloned()),
            settings: Arc::new(self.settings),
        }
    }
}

fn set_upstream(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    let word = call.arg(0);
    let invalid = || Complaint::new(format!("invalid host in upstream \"{}\"", word.lossy())).at(word);
    // `proxy_pass` looks names up in lower case.
    let name = word.as_str().ok_or_else(invalid)?.to_ascii_lowercase();
    if name.is_empty() {
        return Err(Complaint::new("no host in upstream \"\"").at(word));
    }
    if scope.builder.upstreams.iter().any(|known| *known.plan.name == name) {
        return Err(Complaint::new(format!("duplicate upstream \"{}\"", word.lossy())).at(word));
    }
    let around = scope.builder.upstream.replace(Box::new(UpstreamDraft {
        plan: GroupPlan::new(name, Vec::new()),
        settings: GroupSettings::default(),
        has_method: false,
        resolver: None,
        seen: HashSet::new(),
    }));
    debug_assert!(around.is_none(), "no block within a block");
    let (drafts, _) = scope.nested(Context::UPSTREAM, LocationHead::default(), call.block());
    let Some(mut draft) = scope.builder.upstream.take() else { return Ok(()) };
    draft.resolver = drafts.resolver.and_then(|own| own.own_plan());
    let result = check_servers(&draft.plan.peers, call);
    // Also of a block with a mistake: what names it is not to be told that there is none.
    scope.builder.upstreams.push(*draft);
    result
}

fn check_servers(peers: &[PeerPlan], call: &Call) -> Result<(), Complaint> {
    if peers.is_empty() && !call.block().iter().any(|line| matches!(line.name().as_bytes(), b"server" | b"state")) {
        return Err(Complaint::new("no servers are inside upstream"));
    }
    if !peers.is_empty() && peers.iter().all(|peer| peer.backup) {
        return Err(Complaint::new(format!("no servers in upstream \"{}\"", call.arg(0).lossy())));
    }
    Ok(())
}

/// The block that is being read.
fn block<'a>(scope: &'a mut Scope, call: &Call) -> Result<&'a mut UpstreamDraft, Complaint> {
    let draft = scope.builder.upstream.as_deref_mut();
    draft.ok_or_else(|| Complaint::new(format!("\"{}\" directive is not allowed here", call.name())))
}

/// The same for a directive that stands once only.
fn block_once<'a>(scope: &'a mut Scope, call: &Call) -> Result<&'a mut UpstreamDraft, Complaint> {
    let draft = block(scope, call)?;
    if !draft.seen.insert(call.name().into()) {
        return Err(Complaint::new(format!("\"{}\" directive is duplicate", call.name())));
    }
    Ok(draft)
}

fn set_zone(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    let zone = zone(call.arg(0), call.arg(0).as_bytes(), call.args().get(1).map(|size| (size, size.as_bytes())))?;
    block(scope, call)?.plan.zone = Some(zone);
    Ok(())
}

/// A zone's name and size, in nginx's words where they are none.
fn zone(
    name_word: &crate::conf::tree::Word,
    name: &[u8],
    size: Option<(&crate::conf::tree::Word, &[u8])>,
) -> Result<Zone, Complaint> {
    let shown = || String::from_utf8_lossy(name).into_owned();
    let text = std::str::from_utf8(name).ok().filter(|name| !name.is_empty());
    let text =
        text.ok_or_else(|| Complaint::new(format!("invalid zone name \"{}\"", shown())).at(name_word))?;
    let size = match size {
        None => 0,
        Some((word, size)) => {
            let bytes = values::parse_size(size).ok();
            let bytes = bytes.ok_or_else(|| {
                Complaint::new(format!("invalid zone size \"{}\"", String::from_utf8_lossy(size))).at(word)
            })?;
            if bytes < LEAST_ZONE {
                return Err(Complaint::new(format!("zone \"{}\" is too small", shown())).at(word));
            }
            bytes
        }
    };
    Ok(Zone { name: text.into(), size })
}

fn set_keepalive(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    let draft = block_once(scope, call)?;
    let word = call.arg(0);
    let connections = values::parse_number(word.as_bytes()).ok().and_then(|number| u32::try_from(number).ok());
    draft.plan.keepalive.connections = connections.ok_or_else(|| {
        Complaint::new(format!("invalid value \"{}\" in \"keepalive\" directive", word.lossy())).at(word)
    })?;
    draft.plan.keepalive.local = match call.args().get(1) {
        None => false,
        Some(word) if *word == "local" => true,
        Some(word) => return Err(Complaint::invalid_parameter(word)),
    };
    Ok(())
}

fn set_keepalive_requests(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    let requests = number(scope, call)?;
    block_once(scope, call)?.plan.keepalive.requests = u32::try_from(requests).unwrap_or(u32::MAX);
    Ok(())
}

fn set_keepalive_time(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    let time_ms = milliseconds(scope, call)?;
    block_once(scope, call)?.plan.keepalive.time_ms = time_ms;
    Ok(())
}

fn set_keepalive_timeout(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    let timeout_ms = milliseconds(scope, call)?;
    block_once(scope, call)?.plan.keepalive.timeout_ms = timeout_ms;
    Ok(())
}

fn set_queue(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    let word = call.arg(0);
    let length = values::parse_number(word.as_bytes()).ok().and_then(|length| u32::try_from(length).ok());
    let length = length.filter(|length| *length > 0).ok_or_else(|| {
        Complaint::new(format!("invalid value \"{}\" in \"queue\" directive", word.lossy())).at(word)
    })?;
    let timeout_ms = match call.args().get(1) {
        None => QUEUE_TIMEOUT_MS,
        Some(word) => word
            .as_bytes()
            .strip_prefix(b"timeout=")
            .and_then(|time| values::parse_time_ms(time).ok())
            .ok_or_else(|| Complaint::invalid_parameter(word))?,
    };
    block_once(scope, call)?.plan.queue = Some(QueuePlan { length, timeout_ms });
    Ok(())
}

/// The servers in the file stand behind the directive already, as if it were an `include`.
fn set_state(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    let word = call.arg(0);
    let path = word.as_str().filter(|path| !path.is_empty()).ok_or_else(|| Complaint::invalid_value(word))?;
    block_once(scope, call)?.plan.state_file = Some(path.into());
    Ok(())
}
