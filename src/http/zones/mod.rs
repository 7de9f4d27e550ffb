//! Zones: what all workers know together, by name: how often each client has asked (`limit_req_zone`), how many
//! requests of it are being served (`limit_conn_zone`); and, without a name, what WebDAV's clients have locked.
//!
//! A zone's content is owned by no configuration. A reload builds its site with empty zones and then takes over
//! ([`Zones::take_over`]) the content of the former site's zones of the same name, use and key, so that nobody's
//! account begins anew. It is bounded by the zone's size, divided into shards with a lock of their own, and keyed with
//! a secret, since clients choose the keys.

pub mod connections;
pub mod locks;
pub mod requests;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::base::lru::LruTable;
use crate::conf::directive::{Call, Complaint};
use crate::conf::source::{IncludeId, Span};
use crate::conf::template::Template;
use crate::conf::tree::Word;
use crate::conf::values;

use super::build::{Builder, Scope};

/// Position of a zone in [`Zones`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZoneId(pub u32);

/// What a zone is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// `limit_req_zone`
    Requests,
    /// `limit_conn_zone`
    Connections,
}

/// One zone of a site.
#[derive(Debug)]
pub struct Zone {
    /// Its name.
    pub name: Box<str>,
    /// What tells clients apart.
    pub key: Template,
    /// Thousandths of a request per second; 0 of zones for connections.
    pub rate: u64,
    /// Its content.
    pub store: Store,
    /// The key as it is written.
    key_text: Box<[u8]>,
}

/// What a zone holds.
#[derive(Clone, Debug)]
pub enum Store {
    /// For `limit_req`.
    Requests(Arc<Shards<requests::Bucket>>),
    /// For `limit_conn`.
    Connections(Arc<Shards<u32>>),
}

/// All zones of a site.
#[derive(Debug, Default)]
pub struct Zones {
    list: Vec<Zone>,
    /// What WebDAV's clients have locked.
    pub locks: Arc<locks::LockTable>,
}

impl Zones {
    /// A zone.
    pub fn get(&self, id: ZoneId) -> &Zone {
        &self.list[id.0 as usize]
    }

    /// Takes over the content of the zones of the site before this one that have the same name, use and key, and the
    /// locks.
    pub fn take_over(&mut self, former: &Zones) {
        self.locks = former.locks.clone();
        for zone in &mut self.list {
            let Some(old) = former.list.iter().find(|old| old.name == zone.name) else { continue };
            if old.key_text != zone.key_text {
                continue;
            }
            match (&mut zone.store, &old.store) {
                (Store::Requests(new), Store::Requests(old)) => {
                    old.set_size(new.size());
                    *new = old.clone();
                }
                (Store::Connections(new), Store::Connections(old)) => {
                    old.set_size(new.size());
                    *new = old.clone();
                }
                _ => {}
            }
        }
    }
}

/// A table in parts, each with a lock of its own.
#[derive(Debug)]
pub struct Shards<V> {
    hasher: RandomState,
    list: Box<[Mutex<LruTable<V>>]>,
    size: std::sync::atomic::AtomicUsize,
}

/// A zone has one shard for so many bytes, and at most [`MAX_SHARDS`].
const SHARD_BYTES: usize = 32 * 1024;
/// See [`SHARD_BYTES`]: more than there are workers to meet in one.
const MAX_SHARDS: usize = 64;

impl<V> Shards<V> {
    /// Empty shards of `size` bytes in all.
    pub fn new(size: usize) -> Shards<V> {
        let count = (size / SHARD_BYTES).clamp(1, MAX_SHARDS);
        let list = (0..count).map(|_| Mutex::new(LruTable::new(size / count))).collect();
        Shards { hasher: RandomState::new(), list, size: size.into() }
    }

    fn size(&self) -> usize {
        self.size.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn set_size(&self, size: usize) {
        self.size.store(size, std::sync::atomic::Ordering::Relaxed);
        for shard in &self.list {
            lock(shard).set_limit(size / self.list.len());
        }
    }

    /// The hash of a key, and its shard.
    fn shard(&self, key: &[u8]) -> (u64, MutexGuard<'_, LruTable<V>>) {
        let hash = self.hasher.hash_one(key);
        // The table goes by the lowest and the highest bits.
        let shard = (hash >> 24) as usize % self.list.len();
        (hash, lock(&self.list[shard]))
    }
}

/// A panic while a shard was locked has left no more than a number that is off by one.
fn lock<V>(shard: &Mutex<LruTable<V>>) -> MutexGuard<'_, LruTable<V>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Zones while the configuration is read: a zone may be used before it is defined.
#[derive(Debug, Default)]
pub struct ZoneDrafts(Vec<ZoneDraft>);

#[derive(Debug)]
struct ZoneDraft {
    name: Box<str>,
    purpose: Use,
    defined: Option<Zone>,
    place: (Span, IncludeId),
}

/// What `limit_req_zone` or `limit_conn_zone` says of its zone.
pub struct Definition {
    /// What tells clients apart.
    pub key: Word,
    /// `name:size`, with `zone=` before it.
    pub zone: Word,
    /// See [`Zone::rate`].
    pub rate: u64,
}

impl ZoneDrafts {
    /// The number of the zone with this name.
    pub fn id(&mut self, name: &str, purpose: Use, call: &Call) -> Result<ZoneId, Complaint> {
        let position = self.0.iter().position(|draft| *draft.name == *name);
        let position = position.unwrap_or_else(|| {
            let place = (call.span(), call.directive.include);
            self.0.push(ZoneDraft { name: name.into(), purpose, defined: None, place });
            self.0.len() - 1
        });
        if self.0[position].purpose != purpose {
            let message =
                format!("the shared memory zone \"{name}\" is already declared for a different use");
            return Err(Complaint::new(message));
        }
        Ok(ZoneId(position as u32))
    }

    /// The zones, by number; one that was never defined is an error.
    pub fn finish(builder: &mut Builder) -> Zones {
        let drafts = std::mem::take(&mut builder.zones);
        let mut zones = Vec::with_capacity(drafts.0.len());
        for draft in drafts.0 {
            match draft.defined {
                Some(zone) => zones.push(zone),
                None => {
                    let message = format!("zero size shared memory zone \"{}\"", draft.name);
                    builder.error_at(draft.place.0, draft.place.1, message);
                }
            }
        }
        Zones { list: zones, locks: Arc::default() }
    }
}

/// The smallest zone, in bytes: eight pages, as in nginx.
const MIN_SIZE: u64 = 8 * 4096;

/// Defines a zone.
pub fn define(
    scope: &mut Scope,
    call: &Call,
    purpose: Use,
    definition: &Definition,
) -> Result<(), Complaint> {
    let word = &definition.zone;
    let shown = word.lossy();
    let (name, size) = shown["zone=".len()..]
        .split_once(':')
        .and_then(|(name, size)| Some((name, values::parse_size(size.as_bytes()).ok()?)))
        .ok_or_else(|| Complaint::new(format!("invalid zone size \"{shown}\"")).at(word))?;
    if name.is_empty() {
        return Err(Complaint::new(format!("invalid zone name \"{shown}\"")).at(word));
    }
    if size < MIN_SIZE {
        return Err(Complaint::new(format!("zone \"{shown}\" is too small")).at(word));
    }
    let key = scope.builder.template(&definition.key)?;
    if let Some(variable) = freely_chosen(&definition.key) {
        let message = format!(
            "the key of zone \"{name}\" has ${variable}, which a client chooses freely: with another value for each \
             request it is never limited"
        );
        scope.warn_word(call, &definition.key, message);
    }
    let id = scope.builder.zones.id(name, purpose, call)?;
    let draft = &mut scope.builder.zones.0[id.0 as usize];
    if let Some(zone) = &draft.defined {
        let bound = String::from_utf8_lossy(&zone.key_text);
        let message = format!("{} \"{name}\" is already bound to key \"{bound}\"", call.name());
        return Err(Complaint::new(message));
    }
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    draft.defined = Some(Zone {
        name: name.into(),
        key,
        rate: definition.rate,
        store: match purpose {
            Use::Requests => Store::Requests(Arc::new(Shards::new(size))),
            Use::Connections => Store::Connections(Arc::new(Shards::new(size))),
        },
        key_text: definition.key.as_bytes().into(),
    });
    Ok(())
}

/// Variables whose values are the client's to choose.
const CLIENTS_OWN: [&str; 9] = [
    "args",
    "document_uri",
    "host",
    "query_string",
    "remote_user",
    "request",
    "request_body",
    "request_uri",
    "uri",
];
/// Families of such variables.
const CLIENTS_OWN_FAMILIES: [&str; 3] = ["arg_", "cookie_", "http_"];

/// The first variable of a key that a client chooses as it likes.
fn freely_chosen(key: &Word) -> Option<String> {
    let text = key.lossy();
    text.split('$').skip(1).find_map(|rest| {
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        let end = rest.find(|character: char| !character.is_ascii_alphanumeric() && character != '_');
        let name = rest[..end.unwrap_or(rest.len())].to_ascii_lowercase();
        let is_own = CLIENTS_OWN.contains(&&*name)
            || CLIENTS_OWN_FAMILIES.iter().any(|family| name.starts_with(family));
        is_own.then_some(name)
    })
}
