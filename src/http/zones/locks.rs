//! Write locks of WebDAV (RFC 4918 section 6): what all workers know of who has locked what.
//!
//! Every lock is exclusive. It is known by the path of what it is on, covers all that lies below if it is deep, and
//! ends with its time, which a client may begin anew. The table is bounded in entries and in bytes; locks are neither
//! kept over a restart nor forgotten by a reload.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::http::change::without_slash;

/// Locks that there may be: a client holds one for each file that it edits.
const MOST_LOCKS: usize = 4096;
/// Bytes of all locks together.
const MOST_BYTES: usize = 8 << 20;
/// What a lock takes beside its texts, in bytes, about.
const LOCK_BYTES: usize = 256;
/// The longest that a lock lasts, in seconds; whoever needs it for longer begins its time anew.
pub const LONGEST_SECS: u64 = 3600;

/// What names a lock: the part of its URN behind `urn:uuid:`, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token(pub u128);

/// What the URN of a lock begins with.
const URN: &[u8] = b"urn:uuid:";
/// Where hyphens stand in a UUID: behind so many digits.
const HYPHENS: [usize; 4] = [8, 12, 16, 20];

impl Token {
    /// A token of random bits: a UUID of version 4 (RFC 9562 section 5.4).
    pub fn of_random(bits: u128) -> Token {
        let version = 0xf << 76;
        let variant = 3 << 62;
        Token(bits & !version & !variant | 4 << 76 | 2 << 62)
    }

    /// Appends the URN.
    pub fn append(self, out: &mut Vec<u8>) {
        out.extend_from_slice(URN);
        for (at, digit) in format!("{:032x}", self.0).bytes().enumerate() {
            if HYPHENS.contains(&at) {
                out.push(b'-');
            }
            out.push(digit);
        }
    }

    /// Reads a URN as [`Token::append`] writes it.
    pub fn parse(text: &[u8]) -> Option<Token> {
        let mut value = 0u128;
        let mut count = 0;
        for byte in text.strip_prefix(URN)? {
            match (char::from(*byte).to_digit(16), byte) {
                (Some(digit), _) if count < 32 => {
                    value = value << 4 | u128::from(digit);
                    count += 1;
                }
                (None, b'-') => {}
                _ => return None,
            }
        }
        let token = Token(value);
        let mut again = Vec::with_capacity(text.len());
        token.append(&mut again);
        again.eq_ignore_ascii_case(text).then_some(token)
    }
}

/// A lock.
#[derive(Clone, Debug)]
pub struct Lock {
    /// Its name.
    pub token: Token,
    /// Whether it covers what lies below.
    pub deep: bool,
    /// Who has it, by authentication; empty for nobody known.
    pub user: Box<[u8]>,
    /// What the client said of its owner, as XML.
    pub owner: Arc<[u8]>,
    /// The URI that was locked.
    pub root: Arc<[u8]>,
    /// How long it lasts from each beginning, in seconds.
    pub timeout_secs: u64,
    /// When it ends, in monotonic milliseconds.
    pub until_ms: u64,
}

impl Lock {
    fn bytes(&self, path: &[u8]) -> usize {
        LOCK_BYTES + path.len() + self.user.len() + self.owner.len() + self.root.len()
    }

    /// Seconds that are left.
    pub fn left_secs(&self, now_ms: u64) -> u64 {
        self.until_ms.saturating_sub(now_ms).div_ceil(1000)
    }
}

/// Why there is no such lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another lock is in the way.
    Locked,
    /// The table is full.
    Full,
}

/// A path that is to be changed.
#[derive(Clone, Copy, Debug)]
pub struct Touched<'a> {
    /// The path.
    pub path: &'a [u8],
    /// Whether what lies below goes with it.
    pub tree: bool,
    /// Whether it comes into being or ceases to be, which changes the folder that it is in.
    pub member: bool,
}

/// Who asks, and when.
#[derive(Clone, Copy, Debug)]
pub struct Claimant<'a> {
    /// By authentication; empty for nobody known.
    pub user: &'a [u8],
    /// The locks that it says it has.
    pub tokens: &'a [Token],
    /// Monotonic milliseconds.
    pub now_ms: u64,
}

impl Claimant<'_> {
    fn may(&self, lock: &Lock) -> bool {
        *lock.user == *self.user && self.tokens.contains(&lock.token)
    }
}

/// All locks.
#[derive(Debug, Default)]
pub struct LockTable {
    locks: Mutex<Locks>,
    /// How many there are, so that who locks nothing takes no lock.
    count: AtomicUsize,
}

/// The locks, while no other worker can change them.
#[derive(Debug, Default)]
pub struct Locks {
    by_path: BTreeMap<Box<[u8]>, Lock>,
    bytes: usize,
}

impl LockTable {
    /// Whether there may be none.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    fn lock(&self) -> MutexGuard<'_, Locks> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<R>(&self, change: impl FnOnce(&mut Locks) -> R) -> R {
        let mut locks = self.lock();
        let result = change(&mut locks);
        self.count.store(locks.by_path.len(), Ordering::Release);
        result
    }

    /// Looks at the locks.
    pub fn with<R>(&self, look: impl FnOnce(&Locks) -> R) -> R {
        look(&self.lock())
    }

    /// Adds a lock on `path`, unless one is on it, covers it, or lies below a deep one.
    pub fn add(&self, path: &[u8], lock: Lock, now_ms: u64) -> Result<(), Refusal> {
        self.change(|locks| locks.add(without_slash(path), lock, now_ms))
    }

    /// Begins the time of the claimant's lock that covers `path` anew; `None` if it has none.
    pub fn refresh(&self, path: &[u8], claimant: &Claimant, timeout_secs: u64) -> Option<Lock> {
        let path = without_slash(path);
        self.change(|locks| {
            let found = locks.covering(path, claimant.now_ms).find(|(_, lock)| claimant.may(lock));
            let place: Box<[u8]> = found.map(|(place, _)| place)?.into();
            let lock = locks.by_path.get_mut(&place)?;
            lock.timeout_secs = timeout_secs;
            lock.until_ms = claimant.now_ms + timeout_secs * 1000;
            Some(lock.clone())
        })
    }

    /// Ends the lock with this token that covers `path`; whether there was one of this user. `Err` if it is another's.
    pub fn remove(&self, path: &[u8], token: Token, user: &[u8], now_ms: u64) -> Result<bool, Refusal> {
        let path = without_slash(path);
        self.change(|locks| {
            let found = locks.covering(path, now_ms).find(|(_, lock)| lock.token == token);
            let Some((place, lock)) = found else { return Ok(false) };
            if *lock.user != *user {
                return Err(Refusal::Locked);
            }
            let place: Box<[u8]> = place.into();
            locks.take(&place);
            Ok(true)
        })
    }

    /// Ends all locks on `path` and below: it is gone.
    pub fn forget_tree(&self, path: &[u8]) {
        let path = without_slash(path);
        self.change(|locks| {
            let below: Vec<Box<[u8]>> = locks.below(path).map(|(place, _)| place.into()).collect();
            for place in below.iter().map(|place| &**place).chain([path]) {
                locks.take(place);
            }
        });
    }

    /// Whether the claimant may change all of this: every lock on it is the claimant's, and named.
    pub fn admits(&self, touched: &[Touched], claimant: &Claimant) -> bool {
        self.is_empty() || self.with(|locks| touched.iter().all(|one| locks.admits(one, claimant)))
    }
}

impl Locks {
    /// The lock that covers a path, if there is one: no two can.
    pub fn on(&self, path: &[u8], now_ms: u64) -> Option<&Lock> {
        self.covering(without_slash(path), now_ms).next().map(|(_, lock)| lock)
    }

    fn covering(&self, path: &[u8], now_ms: u64) -> impl Iterator<Item = (&[u8], &Lock)> {
        let above = above(path).filter_map(|above| self.by_path.get_key_value(above));
        let above = above.filter(|(_, lock)| lock.deep);
        let all = self.by_path.get_key_value(path).into_iter().chain(above);
        all.filter(move |(_, lock)| lock.until_ms > now_ms).map(|(place, lock)| (&**place, lock))
    }

    fn below(&self, path: &[u8]) -> impl Iterator<Item = (&[u8], &Lock)> {
        // Between "path/" and "path0", the byte behind the slash, lies what begins with "path/".
        let bare = path.strip_suffix(b"/").unwrap_or(path);
        let (first, end) = ([bare, b"/"].concat(), [bare, b"0"].concat());
        let range = (Bound::Excluded(first.as_slice()), Bound::Excluded(end.as_slice()));
        self.by_path.range::<[u8], _>(range).map(|(place, lock)| (&**place, lock))
    }

    fn add(&mut self, path: &[u8], lock: Lock, now_ms: u64) -> Result<(), Refusal> {
        let is_live = |(_, lock): &(&[u8], &Lock)| lock.until_ms > now_ms;
        if self.covering(path, now_ms).next().is_some()
            || lock.deep && self.below(path).any(|one| is_live(&one))
        {
            return Err(Refusal::Locked);
        }
        self.take(path);
        let bytes = lock.bytes(path);
        if self.is_full(bytes) {
            self.by_path.retain(|_, lock| lock.until_ms > now_ms);
            self.bytes = self.by_path.iter().map(|(path, lock)| lock.bytes(path)).sum();
            if self.is_full(bytes) {
                return Err(Refusal::Full);
            }
        }
        self.bytes += bytes;
        self.by_path.insert(path.into(), lock);
        Ok(())
    }

    fn is_full(&self, more: usize) -> bool {
        self.by_path.len() >= MOST_LOCKS || self.bytes + more > MOST_BYTES
    }

    fn take(&mut self, path: &[u8]) {
        if let Some(lock) = self.by_path.remove(path) {
            self.bytes -= lock.bytes(path);
        }
    }

    fn admits(&self, touched: &Touched, claimant: &Claimant) -> bool {
        let path = without_slash(touched.path);
        let folder = above(path).next().filter(|_| touched.member);
        let folder = folder.and_then(|folder| self.on(folder, claimant.now_ms));
        let below = self
            .below(path)
            .map(|(_, lock)| lock)
            .filter(|lock| touched.tree && lock.until_ms > claimant.now_ms);
        folder.into_iter().chain(self.on(path, claimant.now_ms)).chain(below).all(|lock| claimant.may(lock))
    }
}

/// The folders that a path is in, the innermost first.
fn above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = path;
    std::iter::from_fn(move || {
        if rest.len() <= 1 {
            return None;
        }
        let slash = memchr::memrchr(b'/', rest)?;
        rest = &rest[..slash.max(1)];
        Some(rest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(token: u128, deep: bool) -> Lock {
        Lock {
            token: Token(token),
            deep,
            user: Box::default(),
            owner: Arc::from(&b""[..]),
            root: Arc::from(&b"/"[..]),
            timeout_secs: 10,
            until_ms: 10_000,
        }
    }

    fn may(table: &LockTable, path: &str, tree: bool, member: bool, tokens: &[u128], now_ms: u64) -> bool {
        let tokens: Vec<Token> = tokens.iter().map(|token| Token(*token)).collect();
        let claimant = Claimant { user: b"", tokens: &tokens, now_ms };
        table.admits(&[Touched { path: path.as_bytes(), tree, member }], &claimant)
    }

    #[test]
    fn a_token_is_a_uuid_and_reads_as_it_is_written() {
        let token = Token::of_random(u128::MAX);
        let mut text = Vec::new();
        token.append(&mut text);
        assert_eq!(text, b"urn:uuid:ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(Token::parse(&text), Some(token));
        assert_eq!(Token::parse(&text.to_ascii_uppercase()), None);
        assert_eq!(Token::parse(b"urn:uuid:FFFFFFFF-ffff-4fff-bfff-ffffffffffff"), Some(token));
        for other in [
            "",
            "urn:uuid:",
            "urn:uuid:0",
            "opaquelocktoken:0",
            "urn:uuid:ffffffff-ffff-4fff-bfffffffffffffff",
        ] {
            assert_eq!(Token::parse(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn one_lock_at_a_time_covers_a_path() {
        let table = LockTable::default();
        assert!(table.is_empty());
        assert_eq!(table.add(b"/a/b", lock(1, false), 0), Ok(()));
        assert_eq!(table.add(b"/a/b", lock(2, false), 0), Err(Refusal::Locked));
        assert_eq!(table.add(b"/a/b/", lock(2, false), 0), Err(Refusal::Locked));
        assert_eq!(table.add(b"/a", lock(2, true), 0), Err(Refusal::Locked));
        assert_eq!(table.add(b"/a", lock(2, false), 0), Ok(()));
        assert_eq!(table.add(b"/a/c", lock(3, false), 0), Ok(()));
        assert_eq!(table.add(b"/b", lock(4, true), 0), Ok(()));
        assert_eq!(table.add(b"/b/c/d", lock(5, false), 0), Err(Refusal::Locked));
        assert_eq!(table.add(b"/bb", lock(5, false), 0), Ok(()));
        // All have ended by then.
        assert_eq!(table.add(b"/b/c/d", lock(5, false), 10_000), Ok(()));
        assert_eq!(table.add(b"/", lock(5, true), 10_000), Ok(()));
    }

    #[test]
    fn who_names_the_lock_may_change_what_it_covers() {
        let table = LockTable::default();
        table.add(b"/a/f", lock(1, false), 0).unwrap();
        table.add(b"/d", lock(2, true), 0).unwrap();
        table.add(b"/s", lock(3, false), 0).unwrap();
        assert!(!may(&table, "/a/f", false, false, &[], 0) && may(&table, "/a/f", false, false, &[1], 0));
        assert!(!may(&table, "/d/e/f", false, true, &[1], 0) && may(&table, "/d/e/f", false, true, &[2], 0));
        assert!(!may(&table, "/a/", true, true, &[], 0) && may(&table, "/a/", true, true, &[1], 0));
        assert!(may(&table, "/a/", false, true, &[], 0));
        // A lock of a folder alone is about which members it has.
        assert!(may(&table, "/s/f", false, false, &[], 0) && !may(&table, "/s/f", false, true, &[], 0));
        assert!(may(&table, "/a/f", false, false, &[], 10_000));
        let other = Claimant { user: b"other", tokens: &[Token(1)], now_ms: 0 };
        assert!(!table.admits(&[Touched { path: b"/a/f", tree: false, member: false }], &other));
    }

    #[test]
    fn locks_are_begun_anew_ended_and_go_with_what_they_are_on() {
        let table = LockTable::default();
        table.add(b"/d", lock(1, true), 0).unwrap();
        let mine = |tokens| Claimant { user: b"", tokens, now_ms: 5_000 };
        assert!(table.refresh(b"/d/f", &mine(&[Token(2)]), 60).is_none());
        assert_eq!(table.refresh(b"/d/f", &mine(&[Token(1)]), 60).unwrap().until_ms, 65_000);
        assert_eq!(table.remove(b"/d", Token(2), b"", 0), Ok(false));
        assert_eq!(table.remove(b"/d", Token(1), b"other", 0), Err(Refusal::Locked));
        assert_eq!(table.remove(b"/d/f", Token(1), b"", 0), Ok(true));
        assert!(table.is_empty());
        table.add(b"/d/f", lock(1, false), 0).unwrap();
        table.add(b"/d/g/h", lock(2, false), 0).unwrap();
        table.add(b"/d-other", lock(3, false), 0).unwrap();
        table.forget_tree(b"/d/");
        assert_eq!(table.with(|locks| locks.by_path.len()), 1);
        table.forget_tree(b"/");
        assert!(table.is_empty() && table.with(|locks| locks.bytes) == 0);
    }

    #[test]
    fn the_table_is_bounded_and_what_has_ended_gives_way() {
        let table = LockTable::default();
        for number in 0..MOST_LOCKS {
            table.add(format!("/{number}").as_bytes(), lock(number as u128, false), 0).unwrap();
        }
        assert_eq!(table.add(b"/x", lock(1, false), 0), Err(Refusal::Full));
        assert_eq!(table.add(b"/x", lock(1, false), 10_000), Ok(()));
        assert_eq!(table.with(|locks| locks.by_path.len()), 1);
        let mut large = lock(2, false);
        large.owner = vec![0; MOST_BYTES].into();
        assert_eq!(table.add(b"/y", large, 0), Err(Refusal::Full));
    }
}
