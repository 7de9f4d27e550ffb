//! Passwords of Basic authentication: checked in the pool against the file as it is then; who was right is remembered
//! for a while.

use std::collections::hash_map::RandomState;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::hash::BuildHasher;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::base::lru::{ENTRY_BYTES, LruTable};
use crate::base::password;
use crate::http::modules::auth_basic::{PasswordAnswer, Question};

/// For how long a right password is not hashed again, in milliseconds. A change of the file is seen at once.
const GOOD_MS: u64 = 10_000;
/// How many right passwords a worker remembers.
const REMEMBERED: usize = 1024;
/// Bytes that stand for a question.
const DIGEST: usize = 16;
/// Largest file that is read, in bytes; a few hundred thousand users.
const MAX_FILE: u64 = 32 << 20;
/// Checks of one worker under way at the same time. More would keep the pool's threads from files: guessing costs its
/// author little and us much.
const MAX_CHECKS: usize = 16;

/// A state of a file: whatever changes it changes this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileState {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<Metadata> for FileState {
    fn from(of: Metadata) -> FileState {
        FileState {
            device: of.dev(),
            inode: of.ino(),
            size: of.size(),
            modified: (of.mtime(), of.mtime_nsec()),
            changed: (of.ctime(), of.ctime_nsec()),
        }
    }
}

/// What a check in the pool has found out.
#[derive(Clone, Copy, Debug)]
pub struct CheckedPassword {
    /// For the exchange.
    pub answer: PasswordAnswer,
    /// The state of the file that it was found in.
    file: Option<FileState>,
}

/// Answers a question; blocks for as long as it takes.
pub fn check(question: &Question) -> CheckedPassword {
    match read(path_of(question)) {
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            CheckedPassword { answer: PasswordAnswer::Failed(errno), file: None }
        }
        Ok((content, state)) => {
            let answer = match password::find_hash(&content, &question.user) {
                None => PasswordAnswer::UnknownUser,
                Some(hash) => PasswordAnswer::of(password::check(hash, &question.password)),
            };
            CheckedPassword { answer, file: Some(state) }
        }
    }
}

/// What stands for a check that could not be made.
pub fn broken() -> CheckedPassword {
    CheckedPassword { answer: PasswordAnswer::Failed(libc::EIO), file: None }
}

fn path_of(question: &Question) -> &Path {
    Path::new(OsStr::from_bytes(&question.path))
}

fn read(path: &Path) -> io::Result<(Vec<u8>, FileState)> {
    let file = File::open(path)?;
    let of = file.metadata()?;
    if of.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    if !of.is_file() || of.len() > MAX_FILE {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    let mut content = Vec::with_capacity(of.len() as usize);
    file.take(MAX_FILE).read_to_end(&mut content)?;
    Ok((content, of.into()))
}

/// A password that was right.
#[derive(Debug)]
struct Good {
    file: FileState,
    until_ms: u64,
}

/// One worker's memory of right passwords, and its checks under way.
pub struct Passwords {
    /// By a digest of the question: no password is kept.
    good: LruTable<Good>,
    /// Two keyed hashes make a digest that nobody outside can aim at.
    secrets: [RandomState; 2],
    under_way: Arc<AtomicUsize>,
}

/// A place among the checks under way, given back when this is dropped.
pub struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Passwords {
    fn default() -> Self {
        Passwords {
            good: LruTable::new(REMEMBERED * (ENTRY_BYTES + DIGEST)),
            secrets: [RandomState::new(), RandomState::new()],
            under_way: Arc::default(),
        }
    }
}

impl Passwords {
    /// Whether the password was right a moment ago, in the file as it still is.
    pub fn is_known(&mut self, question: &Question, now_ms: u64) -> bool {
        let (hash, digest) = self.digest(question);
        let Some(good) = self.good.get(hash, &digest) else { return false };
        let holds = good.until_ms > now_ms
            && std::fs::metadata(path_of(question)).is_ok_and(|now| FileState::from(now) == good.file);
        if !holds {
            self.good.remove(hash, &digest);
        }
        holds
    }

    /// Remembers a right password.
    pub fn remember(&mut self, question: &Question, checked: &CheckedPassword, now_ms: u64) {
        let (PasswordAnswer::Right, Some(file)) = (checked.answer, checked.file) else { return };
        let (hash, digest) = self.digest(question);
        let good = Good { file, until_ms: now_ms + GOOD_MS };
        match self.good.get(hash, &digest) {
            Some(known) => *known = good,
            None => {
                self.good.insert(hash, &digest, good);
            }
        }
    }

    /// A place for one more check; `None` if too many are under way.
    pub fn place(&self) -> Option<Place> {
        let before = self.under_way.fetch_add(1, Ordering::Relaxed);
        let place = Place(self.under_way.clone());
        (before < MAX_CHECKS).then_some(place)
    }

    fn digest(&self, question: &Question) -> (u64, [u8; DIGEST]) {
        let parts = (&question.path, &question.user, &question.password);
        let [one, other] = [&self.secrets[0], &self.secrets[1]].map(|secret| secret.hash_one(parts));
        let mut digest = [0; DIGEST];
        digest[..8].copy_from_slice(&one.to_ne_bytes());
        digest[8..].copy_from_slice(&other.to_ne_bytes());
        (one, digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(path: &Path, user: &str, password: &str) -> Question {
        Question {
            path: path.as_os_str().as_bytes().to_vec(),
            user: user.as_bytes().to_vec(),
            password: password.as_bytes().to_vec(),
        }
    }

    #[test]
    fn a_file_is_read_at_each_check() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let ask = |user: &str, password: &str| check(&question(&path, user, password)).answer;
        assert_eq!(ask("a", "x"), PasswordAnswer::Failed(libc::ENOENT));
        std::fs::write(&path, "a:{PLAIN}x\n").unwrap();
        assert_eq!(ask("a", "x"), PasswordAnswer::Right);
        assert_eq!(ask("a", "y"), PasswordAnswer::Wrong);
        assert_eq!(ask("b", "x"), PasswordAnswer::UnknownUser);
        let folder = question(folder.path(), "a", "x");
        assert_eq!(check(&folder).answer, PasswordAnswer::Failed(libc::EISDIR));
    }

    #[test]
    fn a_right_password_is_known_until_time_or_the_file_moves_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        std::fs::write(&path, "a:{PLAIN}x\n").unwrap();
        let mut passwords = Passwords::default();
        let right = question(&path, "a", "x");
        let wrong = question(&path, "a", "y");
        passwords.remember(&wrong, &check(&wrong), 0);
        assert!(!passwords.is_known(&wrong, 0));
        passwords.remember(&right, &check(&right), 0);
        assert!(passwords.is_known(&right, GOOD_MS - 1));
        assert!(!passwords.is_known(&question(&path, "", "ax"), 0));
        assert!(!passwords.is_known(&right, GOOD_MS));
        passwords.remember(&right, &check(&right), 0);
        std::fs::write(&path, "a:{PLAIN}other\n").unwrap();
        assert!(!passwords.is_known(&right, 1));
    }

    #[test]
    fn checks_under_way_are_bounded() {
        let passwords = Passwords::default();
        let places: Vec<_> = std::iter::from_fn(|| passwords.place()).collect();
        assert_eq!(places.len(), MAX_CHECKS);
        drop(places);
        assert!(passwords.place().is_some());
    }
}
