//! The worker's caches of paths: one table over all of them, and every bound on what they hold. No system call is made
//! here but the closing of what is dropped.
//!
//! There is one cache per `open_file_cache` directive, bounded by its `max`, and one for the locations without the
//! directive (the *checked* cache), bounded by [`Limits`]. Orders of use are kept to the second: an entry moves to the
//! front at most once in [`MOVE_INTERVAL_MS`], so that a hot hit writes to its own entry alone.

use std::collections::HashMap;
use std::ffi::CString;
use std::hash::{BuildHasher, Hasher};
use std::rc::Rc;
use std::sync::Arc;

use hashbrown::HashTable;
use slab::Slab;

use super::opened::{Body, OpenedFile};
use super::opening::Stamp;
use super::order::{Links, Order};
use crate::http::file::{FileFailure, OpenFileCache, Symlinks};

/// How exact the orders of use are, in milliseconds.
const MOVE_INTERVAL_MS: u64 = 1000;

/// Entries that one sweep drops from one list at most, so that a turn stays short.
const SWEEP_ENTRIES: usize = 256;

/// Descriptors closed at once when the process has run out of them.
const RELIEF_DESCRIPTORS: usize = 64;

/// Bounds of one worker's caches.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The largest file whose content is kept in memory, in bytes.
    pub content_file: u64,
    /// All kept contents together, in bytes. (Responses under way keep theirs beyond it: at most `content_file` each.)
    pub content_total: u64,
    /// Entries for locations without `open_file_cache`.
    pub checked_entries: u32,
    /// Descriptors that those entries hold open while nobody uses them.
    pub checked_descriptors: u32,
    /// How long such an entry may stay unused, in milliseconds.
    pub checked_inactive_ms: u64,
    /// How long its descriptor may: a deleted file's space is free only when its last descriptor is closed.
    pub checked_descriptor_ms: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            content_file: 32 * 1024,
            content_total: 64 * 1024 * 1024,
            checked_entries: 16 * 1024,
            checked_descriptors: 256,
            checked_inactive_ms: 60_000,
            checked_descriptor_ms: 10_000,
        }
    }
}

/// What is known of a path.
pub enum Kept {
    /// `open_file_cache_errors`.
    Failed(FileFailure),
    /// Looked at but not kept open: a directory, or a file below `min_uses`, or one that was only asked about.
    Seen(Stamp),
    Open(Rc<OpenedFile>),
}

/// A path and what is kept of what it names.
pub struct Entry {
    pub path: CString,
    hash: u64,
    cache: u32,
    pub symlinks: Symlinks,
    pub root_len: u32,
    /// The path has a `..` somewhere: whether it stays within its root depends on `root_len`.
    pub has_parent_steps: bool,
    /// When the file system last confirmed what is kept.
    pub checked_ms: u64,
    pub used_ms: u64,
    moved_ms: u64,
    pub uses: u32,
    pub kept: Kept,
}

/// Names a cache: the address of its directive's value, 0 for the checked cache. The value is held as long as the cache
/// exists, so an address never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheId(usize);

impl CacheId {
    /// The cache of these settings; without any, the checked one.
    pub fn of(options: Option<&Arc<OpenFileCache>>) -> CacheId {
        CacheId(options.map_or(0, |options| Arc::as_ptr(options).addr()))
    }
}

struct Cache {
    id: CacheId,
    options: Option<Arc<OpenFileCache>>,
    used: Order,
}

/// All caches of one worker.
pub struct Store {
    limits: Limits,
    hasher: foldhash::fast::RandomState,
    table: HashTable<u32>,
    entries: Slab<Entry>,
    caches: Slab<Cache>,
    by_id: HashMap<CacheId, u32, foldhash::fast::RandomState>,
    use_links: Links,
    content_links: Links,
    contents: Order,
    content_bytes: u64,
    descriptor_links: Links,
    /// Entries with a descriptor: those of the checked cache, and all others.
    descriptors: [Order; 2],
}

impl Store {
    /// An empty store within these limits.
    pub fn new(limits: Limits) -> Store {
        Store {
            limits,
            hasher: foldhash::fast::RandomState::default(),
            table: HashTable::new(),
            entries: Slab::new(),
            caches: Slab::new(),
            by_id: HashMap::default(),
            use_links: Links::default(),
            content_links: Links::default(),
            contents: Order::default(),
            content_bytes: 0,
            descriptor_links: Links::default(),
            descriptors: [Order::default(), Order::default()],
        }
    }

    /// The bounds on what it holds.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    fn hash(&self, cache: CacheId, path: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_usize(cache.0);
        hasher.write(path);
        hasher.finish()
    }

    /// The entry of a path in a cache.
    #[inline]
    pub fn find(&self, cache: CacheId, path: &[u8]) -> Option<u32> {
        let hash = self.hash(cache, path);
        let same = |&key: &u32| {
            let entry = &self.entries[key as usize];
            entry.hash == hash
                && entry.path.as_bytes() == path
                && self.caches[entry.cache as usize].id == cache
        };
        self.table.find(hash, same).copied()
    }

    /// The entry of a key that [`Store::find`] or an insertion gave out.
    pub fn entry(&mut self, key: u32) -> &mut Entry {
        &mut self.entries[key as usize]
    }

    /// Counts a use and moves the entry forward in its orders.
    #[inline]
    pub fn count_use(&mut self, key: u32, now_ms: u64) {
        let entry = &mut self.entries[key as usize];
        entry.uses = entry.uses.saturating_add(1);
        entry.used_ms = now_ms;
        if now_ms.saturating_sub(entry.moved_ms) >= MOVE_INTERVAL_MS {
            entry.moved_ms = now_ms;
            self.move_forward(key);
        }
    }

    #[cold]
    fn move_forward(&mut self, key: u32) {
        let entry = &self.entries[key as usize];
        self.caches[entry.cache as usize].used.touch(&mut self.use_links, key);
        match &entry.kept {
            Kept::Open(file) => match file.body {
                Body::Memory(_) => self.contents.touch(&mut self.content_links, key),
                Body::Descriptor(_) => {
                    let group = self.descriptor_group(key);
                    self.descriptors[group].touch(&mut self.descriptor_links, key);
                }
                Body::GivenUp => {}
            },
            Kept::Failed(_) | Kept::Seen(_) => {}
        }
    }

    /// Adds an entry for a path that has none; others give way where a bound is reached.
    pub fn insert(
        &mut self,
        options: Option<&Arc<OpenFileCache>>,
        path: CString,
        root_len: u32,
        symlinks: Symlinks,
        kept: Kept,
        now_ms: u64,
    ) -> u32 {
        let id = CacheId::of(options);
        debug_assert!(self.find(id, path.as_bytes()).is_none());
        let cache = self.cache(id, options);
        let most = options.map_or(self.limits.checked_entries, |options| options.max).max(1);
        while self.caches[cache as usize].used.len() >= most {
            let Some(oldest) = self.caches[cache as usize].used.oldest() else { break };
            self.remove(oldest);
        }
        let hash = self.hash(id, path.as_bytes());
        let has_parent_steps = path.as_bytes().split(|&byte| byte == b'/').any(|name| name == b"..");
        let entry = Entry {
            path,
            hash,
            cache,
            symlinks,
            root_len,
            has_parent_steps,
            checked_ms: now_ms,
            used_ms: now_ms,
            moved_ms: now_ms,
            uses: 1,
            kept,
        };
        let key = self.entries.insert(entry) as u32;
        let entries = &self.entries;
        self.table.insert_unique(hash, key, |&key| entries[key as usize].hash);
        self.caches[cache as usize].used.add(&mut self.use_links, key);
        self.enter_orders(key);
        self.enforce_bounds(key);
        key
    }

    /// Replaces what is kept of a path.
    pub fn keep(&mut self, key: u32, kept: Kept) {
        self.leave_orders(key);
        self.entries[key as usize].kept = kept;
        self.enter_orders(key);
        self.enforce_bounds(key);
    }

    /// Forgets an entry; its descriptor closes with its last user.
    pub fn remove(&mut self, key: u32) {
        self.leave_orders(key);
        let entry = self.entries.remove(key as usize);
        self.caches[entry.cache as usize].used.remove(&mut self.use_links, key);
        match self.table.find_entry(entry.hash, |&other| other == key) {
            Ok(found) => drop(found.remove()),
            Err(_) => debug_assert!(false, "every entry stands in the table"),
        }
    }

    fn cache(&mut self, id: CacheId, options: Option<&Arc<OpenFileCache>>) -> u32 {
        if let Some(&cache) = self.by_id.get(&id) {
            return cache;
        }
        let cache =
            self.caches.insert(Cache { id, options: options.cloned(), used: Order::default() }) as u32;
        self.by_id.insert(id, cache);
        cache
    }

    fn descriptor_group(&self, key: u32) -> usize {
        let cache = self.entries[key as usize].cache;
        usize::from(self.caches[cache as usize].options.is_some())
    }

    fn enter_orders(&mut self, key: u32) {
        let Kept::Open(file) = &self.entries[key as usize].kept else { return };
        match &file.body {
            Body::Memory(content) => {
                self.content_bytes += content.len() as u64;
                self.contents.add(&mut self.content_links, key);
            }
            Body::Descriptor(_) => {
                let group = self.descriptor_group(key);
                self.descriptors[group].add(&mut self.descriptor_links, key);
            }
            Body::GivenUp => debug_assert!(false, "only readers give up what they have open"),
        }
    }

    fn leave_orders(&mut self, key: u32) {
        let Kept::Open(file) = &self.entries[key as usize].kept else { return };
        match &file.body {
            Body::Memory(content) => {
                self.content_bytes -= content.len() as u64;
                self.contents.remove(&mut self.content_links, key);
            }
            Body::Descriptor(_) => {
                let group = self.descriptor_group(key);
                self.descriptors[group].remove(&mut self.descriptor_links, key);
            }
            Body::GivenUp => {}
        }
    }

    /// Drops the least recently used contents and descriptors beyond the bounds, sparing `newest`.
    fn enforce_bounds(&mut self, newest: u32) {
        while self.content_bytes > self.limits.content_total {
            match self.contents.oldest() {
                Some(oldest) if oldest != newest => self.remove(oldest),
                _ => break,
            }
        }
        while self.descriptors[0].len() > self.limits.checked_descriptors {
            match self.descriptors[0].oldest() {
                Some(oldest) if oldest != newest => self.close(oldest),
                _ => break,
            }
        }
    }

    /// Lets go of an entry's descriptor or content. The entry and its count of uses stay: otherwise a set of files that
    /// is larger than the bound, read in turns, would never reach the use at which content is kept.
    fn close(&mut self, key: u32) {
        self.leave_orders(key);
        let kept = &mut self.entries[key as usize].kept;
        if let Kept::Open(file) = kept {
            *kept = Kept::Seen(file.stamp);
        }
    }

    /// The process is out of descriptors: closes some that are idle. True when there were any.
    pub fn relieve(&mut self) -> bool {
        let mut closed = 0;
        for group in 0..self.descriptors.len() {
            while closed < RELIEF_DESCRIPTORS {
                let Some(oldest) = self.descriptors[group].oldest() else { break };
                self.close(oldest);
                closed += 1;
            }
        }
        closed > 0
    }

    /// Drops what was unused for too long, and the caches of configurations that nobody holds any more. To be called
    /// about once a second.
    pub fn sweep(&mut self, now_ms: u64) {
        let idle = |entry: &Entry, limit: u64| now_ms.saturating_sub(entry.used_ms) > limit;
        for _ in 0..SWEEP_ENTRIES {
            match self.descriptors[0].oldest() {
                Some(key) if idle(&self.entries[key as usize], self.limits.checked_descriptor_ms) => {
                    self.close(key);
                }
                _ => break,
            }
        }
        let keys: Vec<usize> = self.caches.iter().map(|(cache, _)| cache).collect();
        for cache in keys {
            self.sweep_cache(cache, now_ms);
        }
    }

    fn sweep_cache(&mut self, cache: usize, now_ms: u64) {
        let options = &self.caches[cache].options;
        let inactive =
            options.as_ref().map_or(self.limits.checked_inactive_ms, |options| options.inactive_ms);
        let abandoned = options.as_ref().is_some_and(|options| Arc::strong_count(options) == 1);
        for _ in 0..SWEEP_ENTRIES {
            let Some(key) = self.caches[cache].used.oldest() else { break };
            let idle = now_ms.saturating_sub(self.entries[key as usize].used_ms);
            if !abandoned && idle <= inactive {
                break;
            }
            self.remove(key);
        }
        if abandoned && self.caches[cache].used.len() == 0 {
            let cache = self.caches.remove(cache);
            self.by_id.remove(&cache.id);
        }
    }

    /// Entries, descriptors and content bytes that are held now.
    #[cfg(test)]
    pub fn holdings(&self) -> Holdings {
        Holdings {
            entries: self.entries.len(),
            caches: self.caches.len(),
            descriptors: (self.descriptors[0].len() + self.descriptors[1].len()) as usize,
            contents: self.contents.len() as usize,
            content_bytes: self.content_bytes,
        }
    }
}

/// What a worker's caches hold.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holdings {
    pub entries: usize,
    pub caches: usize,
    pub descriptors: usize,
    pub contents: usize,
    pub content_bytes: u64,
}
