//! Files for one worker: safe opening, the caches of open files and small contents, and sending without waiting.
//!
//! The way of a request for a path:
//! 1. One hash lookup. An entry that `open_file_cache` holds valid answers at once; with its content in memory that is
//!    no system call, with a descriptor it is one `statx` of the descriptor, so that a file that was rewritten in
//!    place is opened anew instead of being sent with an old length.
//! 2. Without `open_file_cache`, or past `open_file_cache_valid`, the path is looked at with one `statx` and compared
//!    with what is kept; what did not change is confirmed. Under `disable_symlinks`, and for paths that were not used
//!    for [`RECENT_MS`] (whose names may have left the kernel's memory), the path is opened instead and compared then.
//! 3. Else the path is opened, on the loop when the kernel has all of it in memory, otherwise by the pool.
//!
//! Content is kept in memory from the second use on ([`CONTENT_USES`]): a crawler's single pass over a large tree
//! leaves no contents behind. It is read only when the page cache has it, and kept only when the file was the same
//! before and after, and had not just been changed ([`SETTLED_MS`]).
//!
//! Failures are kept only by `open_file_cache_errors`.

pub mod calls;
mod changes;
mod directory;
#[cfg(test)]
pub mod faults;
mod given_up;
mod identity;
mod jobs;
mod opened;
mod opening;
mod order;
pub mod pairs;
mod publication;
pub mod sending;
mod store;
mod temporary;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;

use rustix::io::Errno;

pub use directory::MAX_DIRECTORY_ENTRIES;
pub use given_up::{give_up, is_given_up};
pub use identity::{FileIdentity, is_unchanged};
pub use jobs::ReadBuffer;
pub use pairs::LoadedPair;
pub use publication::Publication;
pub use sending::{Copied, Sent, TURN_BYTES, Warmth, read_range, send_range};
pub use store::Limits;
pub use temporary::{TemporaryFile, TemporaryFolder, WRITE_NOW_BYTES};

use crate::http::change::{Change, ChangeFailure, Changed};
use crate::http::file::{
    DirectoryListing, FailureReason, FileAnswer, FileCall, FileFailure, FileHandle, FileKind, FileOptions,
    FileRequest, Symlinks, Want,
};
use crate::http::modules::auth_basic::Question;
use crate::http::upstream_call::CallTls;
use crate::server::passwords::{self, CheckedPassword, Place};
use crate::server::pool::{JobId, Mailbox, Panicked, QueueFull};
use opened::{Body, OpenedFile, Origin};
use opening::{Found, OpenError, Patience, Stamp};
use store::{CacheId, Entry, Kept, Store};

/// From which use on a small file's content is kept.
const CONTENT_USES: u32 = 2;

/// A file that changed less than this many milliseconds ago may change again without its times moving: file systems
/// stamp with a clock that ticks every 1 to 10 ms. Its content is not kept yet.
const SETTLED_MS: i64 = 50;

/// After this many milliseconds without use, a path's names are not trusted to be in the kernel's memory.
const RECENT_MS: u64 = 10_000;

/// The turn's time, taken once per turn.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Milliseconds of a clock that only moves forward.
    pub monotonic_ms: u64,
    /// Milliseconds since 1970.
    pub wall_ms: i64,
}

impl From<crate::base::clock::Now> for Moment {
    fn from(now: crate::base::clock::Now) -> Moment {
        Moment { monotonic_ms: now.monotonic_ms, wall_ms: now.wall_secs * 1000 + i64::from(now.wall_ms_part) }
    }
}

/// What became of [`Files::open`].
#[derive(Debug)]
pub enum Opened {
    Ready(FileAnswer),
    /// The pool looks; the answer comes out of [`Files::complete`] under this id, unless it is cancelled.
    Pending(JobId),
}

/// What a job has yielded.
#[derive(Debug)]
pub enum Completion {
    Opened(FileAnswer),
    /// The range was read: send it with [`Warmth::JustRead`].
    Warmed(io::Result<()>),
    /// Fewer bytes than asked for mean that the file ends there.
    Read(io::Result<ReadBuffer>),
    Listed(Result<DirectoryListing, FileFailure>),
    TemporaryCreated(io::Result<TemporaryFile>),
    /// A finished file got its name.
    Published(io::Result<()>),
    /// A password was checked.
    Password(CheckedPassword),
    /// A change was made, or not.
    Changed(Result<Changed, ChangeFailure>),
    /// A certificate for upstreams was loaded.
    UpstreamPair(LoadedPair),
}

/// What a thread of the pool hands back.
enum Finished {
    Opened(Result<Found, OpenError>),
    Warmed(io::Result<()>),
    Read(io::Result<ReadBuffer>),
    Listed(Result<DirectoryListing, FileFailure>),
    TemporaryCreated(io::Result<TemporaryFile>),
    Published(io::Result<()>),
    Password(CheckedPassword),
    Changed(Result<Changed, ChangeFailure>),
    UpstreamPair(LoadedPair),
}

/// What a job that is under way is for.
enum Waiting {
    Open { path: CString, root_len: u32, symlinks: Symlinks, options: FileOptions },
    Warm,
    Read,
    List,
    CreateTemporary,
    Publish,
    Password,
    Change,
    UpstreamPair,
}

/// The pool's mailbox for one worker's file jobs.
pub struct FileJobs(Mailbox<Finished>);

impl FileJobs {
    /// A mailbox on `pool`; `wake` is called from its threads when [`Files::complete`] has something to give.
    pub fn new(pool: &crate::server::pool::Pool, wake: Arc<dyn Fn() + Send + Sync>) -> FileJobs {
        FileJobs(pool.mailbox(wake))
    }
}

/// One worker's files.
pub struct Files {
    store: Store,
    jobs: Mailbox<Finished>,
    waiting: HashMap<JobId, Waiting>,
    /// Memory of a path that was not found, for the next one.
    spare_path: Vec<u8>,
    /// The changes that this process had made when last looked.
    changes_seen: u64,
    /// When that number was last seen to move, in monotonic milliseconds: entries that were checked before then, or
    /// then, are checked again, whatever `open_file_cache_valid` says.
    changed_ms: Option<u64>,
}

impl Files {
    /// Empty caches within `limits`, over the worker's mailbox.
    pub fn new(limits: Limits, jobs: FileJobs) -> Files {
        opening::probe_kernel();
        Files {
            store: Store::new(limits),
            jobs: jobs.0,
            waiting: HashMap::new(),
            spare_path: Vec::new(),
            changes_seen: changes::made(),
            changed_ms: None,
        }
    }

    /// Answers a request, at once where the kernel has what it takes in memory.
    #[inline]
    pub fn open(&mut self, request: &FileRequest<'_>, now: Moment) -> Opened {
        let id = CacheId::of(request.options.cache.as_ref());
        if let Some(key) = self.store.find(id, request.path)
            && let Some(answer) = self.answer_from(key, request, now)
        {
            return Opened::Ready(answer);
        }
        self.open_anew(request, now)
    }

    /// Has up to [`TURN_BYTES`] of a cold range read into the page cache.
    pub fn read_ahead(
        &mut self,
        handle: &FileHandle,
        offset: u64,
        length: usize,
    ) -> Result<JobId, QueueFull> {
        let Some(file) = OpenedFile::behind(handle).and_then(OpenedFile::descriptor).cloned() else {
            debug_assert!(false, "content in memory is never cold");
            return Err(QueueFull);
        };
        self.submit(Waiting::Warm, move || Finished::Warmed(jobs::warm(&file, offset, length)))
    }

    /// Has up to [`TURN_BYTES`] read into a buffer: the way of files in `directio` mode and of `aio threads`.
    pub fn read(&mut self, handle: &FileHandle, offset: u64, length: usize) -> Result<JobId, QueueFull> {
        let file = OpenedFile::behind(handle);
        let Some((file, direct)) = file.and_then(|file| Some((file.descriptor()?.clone(), file.direct)))
        else {
            debug_assert!(false, "content in memory needs no job");
            return Err(QueueFull);
        };
        self.submit(Waiting::Read, move || Finished::Read(jobs::read(&file, offset, length, direct)))
    }

    /// Has a directory listed, at most `limit` names (and at most [`MAX_DIRECTORY_ENTRIES`]).
    pub fn read_directory(&mut self, path: &[u8], root_len: u32, limit: usize) -> Result<JobId, QueueFull> {
        let path = CString::new(path);
        self.submit(Waiting::List, move || {
            Finished::Listed(match path {
                Ok(path) => directory::read_directory(&path, root_len, limit),
                Err(_) => Err(opening::failure(FileCall::OpenDirectory, Errno::NOENT)),
            })
        })
    }

    /// Has a temporary file created.
    pub fn create_temporary(&mut self, folder: &Arc<TemporaryFolder>) -> Result<JobId, QueueFull> {
        let folder = folder.clone();
        self.submit(Waiting::CreateTemporary, move || Finished::TemporaryCreated(folder.create()))
    }

    /// Gives a finished file its name.
    pub fn publish(&mut self, publication: Publication) -> Result<JobId, QueueFull> {
        self.submit(Waiting::Publish, move || Finished::Published(publication.run()))
    }

    /// Has a password checked.
    pub fn check_password(&mut self, question: Question, place: Place) -> Result<JobId, QueueFull> {
        self.submit(Waiting::Password, move || {
            let checked = passwords::check(&question);
            drop(place);
            Finished::Password(checked)
        })
    }

    /// Has a change made; `body` is the file with the request's body, where there is one.
    pub fn change(&mut self, change: Change, body: Option<TemporaryFile>) -> Result<JobId, QueueFull> {
        self.submit(Waiting::Change, move || Finished::Changed(changes::run(change, body)))
    }

    /// Has the certificate of a call read, which has one of its own; `known` is the state of the files that is kept.
    pub fn load_pair(&mut self, tls: &Arc<CallTls>, known: Option<u64>) -> Result<JobId, QueueFull> {
        let tls = Arc::clone(tls);
        self.submit(Waiting::UpstreamPair, move || Finished::UpstreamPair(pairs::load(&tls, known)))
    }

    /// Nobody waits for this job any more: its result is dropped when it comes, with what it has open.
    pub fn cancel(&mut self, id: JobId) {
        self.waiting.remove(&id);
    }

    /// The next result that somebody waits for. To be called until `None` whenever the mailbox wakes the worker.
    pub fn complete(&mut self, now: Moment) -> Option<(JobId, Completion)> {
        loop {
            let (id, finished) = self.jobs.take()?;
            if let Some(waiting) = self.waiting.remove(&id) {
                return Some((id, self.completion(waiting, finished, now)));
            }
        }
    }

    /// Drops what was unused for too long. To be called about once a second.
    pub fn sweep(&mut self, now: Moment) {
        self.store.sweep(now.monotonic_ms);
    }

    /// What the caches hold now.
    #[cfg(test)]
    pub fn holdings(&self) -> store::Holdings {
        self.store.holdings()
    }

    /// The answer from a cached entry; `None` when the path has to be opened.
    #[inline]
    fn answer_from(&mut self, key: u32, request: &FileRequest<'_>, now: Moment) -> Option<FileAnswer> {
        let options = request.options;
        let entry = self.store.entry(key);
        if !fits(entry, request) {
            self.store.remove(key);
            return None;
        }
        let age = now.monotonic_ms.saturating_sub(entry.checked_ms);
        let checked_ms = entry.checked_ms;
        let valid =
            options.cache.is_some() && age < options.valid_ms && self.is_newer_than_changes(checked_ms, now);
        let entry = self.store.entry(key);
        let recent = now.monotonic_ms.saturating_sub(entry.used_ms) < RECENT_MS;
        let needs_open = request.want == Want::Open
            && matches!(&entry.kept, Kept::Seen(stamp) if stamp.kind == FileKind::File);
        self.store.count_use(key, now.monotonic_ms);
        if needs_open {
            return None;
        }
        if !valid {
            let by_name = recent && request.symlinks == Symlinks::Follow;
            if !by_name || !self.confirm(key, now) {
                return None;
            }
        }
        match &self.store.entry(key).kept {
            Kept::Failed(failure) => Some(FileAnswer::Failed(*failure)),
            Kept::Seen(stamp) if request.want == Want::Stat || stamp.kind != FileKind::File => {
                Some(FileAnswer::Found(stamp.info()))
            }
            Kept::Seen(_) => None,
            Kept::Open(file) if request.want == Want::Stat => Some(FileAnswer::Found(file.stamp.info())),
            Kept::Open(file) if !file.suits(options) => None,
            Kept::Open(file) => match &file.body {
                Body::Memory(_) => Some(FileAnswer::Found(file.info())),
                Body::GivenUp => None,
                Body::Descriptor(descriptor) => {
                    let file = file.clone();
                    // Just confirmed by name means the same inode and times; else the descriptor is asked. A file
                    // that was merely unlinked or renamed keeps its validity, as in nginx.
                    let same = |now: Stamp| now.same_bytes(&file.stamp);
                    if valid && !Stamp::of(descriptor.as_fd()).is_ok_and(same) {
                        self.store.remove(key);
                        return None;
                    }
                    Some(FileAnswer::Found(self.with_content(key, file, now).info()))
                }
            },
        }
    }

    /// Whether what was checked then was checked after the last change that this process has made.
    fn is_newer_than_changes(&mut self, checked_ms: u64, now: Moment) -> bool {
        let made = changes::made();
        if made != self.changes_seen {
            self.changes_seen = made;
            self.changed_ms = Some(now.monotonic_ms);
        }
        self.changed_ms.is_none_or(|changed| checked_ms > changed)
    }

    /// Compares an entry with the file system by one `statx` of its path. False when it has to be opened anew.
    fn confirm(&mut self, key: u32, now: Moment) -> bool {
        let entry = self.store.entry(key);
        let kept = match &entry.kept {
            // What failed may work now, and only an open tells.
            Kept::Failed(_) => return false,
            Kept::Seen(_) => None,
            Kept::Open(file) => Some(file.stamp),
        };
        let Ok(stamp) = Stamp::at(&entry.path) else {
            // The open that follows names the failure as nginx's log would.
            self.store.remove(key);
            return false;
        };
        if kept.is_some_and(|kept| kept != stamp) {
            return false;
        }
        if kept.is_none() {
            entry.kept = Kept::Seen(stamp);
        }
        entry.checked_ms = now.monotonic_ms;
        true
    }

    /// Opens a path that no entry answers for.
    #[cold]
    fn open_anew(&mut self, request: &FileRequest<'_>, now: Moment) -> Opened {
        let FileRequest { root_len, want, symlinks, options, .. } = *request;
        let mut bytes = std::mem::take(&mut self.spare_path);
        bytes.clear();
        bytes.extend_from_slice(request.path);
        let Ok(path) = CString::new(bytes) else {
            let call = if want == Want::Open { FileCall::Open } else { FileCall::Stat };
            return Opened::Ready(FileAnswer::Failed(opening::failure(call, Errno::NOENT)));
        };
        let look = || opening::open(&path, root_len, want, symlinks, Patience::Resident);
        let mut result = look();
        if out_of_descriptors(&result) && self.store.relieve() {
            result = look();
        }
        match result {
            Err(OpenError::Cold) => {
                let (job_path, options) = (path.clone(), options.clone());
                let waiting = Waiting::Open { path, root_len, symlinks, options };
                let job = move || {
                    Finished::Opened(opening::open(&job_path, root_len, want, symlinks, Patience::Blocking))
                };
                match self.submit(waiting, job) {
                    Ok(id) => Opened::Pending(id),
                    Err(QueueFull) => Opened::Ready(FileAnswer::Failed(FileFailure {
                        call: FileCall::Open,
                        errno: Errno::AGAIN.raw_os_error(),
                        reason: FailureReason::Busy,
                    })),
                }
            }
            Err(OpenError::Failed(failure)) => {
                Opened::Ready(self.admit_failure(path, root_len, symlinks, options, failure, now))
            }
            Ok(found) => Opened::Ready(self.admit(path, root_len, symlinks, options, found, now)),
        }
    }

    /// Enters a failed lookup where it is to be kept, and forgets what contradicts it.
    fn admit_failure(
        &mut self,
        path: CString,
        root_len: u32,
        symlinks: Symlinks,
        options: &FileOptions,
        failure: FileFailure,
        now: Moment,
    ) -> FileAnswer {
        let id = CacheId::of(options.cache.as_ref());
        if let Some(key) = self.store.find(id, path.as_bytes()) {
            self.store.remove(key);
        }
        let lasting = matches!(failure.reason, FailureReason::NotFound | FailureReason::Forbidden);
        if lasting && options.errors && options.cache.is_some() {
            let kept = Kept::Failed(failure);
            self.store.insert(options.cache.as_ref(), path, root_len, symlinks, kept, now.monotonic_ms);
        } else {
            self.spare_path = path.into_bytes_with_nul();
        }
        FileAnswer::Failed(failure)
    }

    /// Enters what was found, or confirms the entry that says the same, and forms the answer.
    fn admit(
        &mut self,
        path: CString,
        root_len: u32,
        symlinks: Symlinks,
        options: &FileOptions,
        found: Found,
        now: Moment,
    ) -> FileAnswer {
        let Found { stamp, descriptor } = found;
        let id = CacheId::of(options.cache.as_ref());
        let key = self.store.find(id, path.as_bytes());
        if let Some(key) = key {
            let entry = self.store.entry(key);
            if let Kept::Open(file) = &entry.kept
                && file.stamp == stamp
                && (descriptor.is_none() || file.suits(options))
            {
                let file = file.clone();
                (entry.checked_ms, entry.symlinks, entry.root_len) = (now.monotonic_ms, symlinks, root_len);
                return FileAnswer::Found(match descriptor {
                    None => stamp.info(),
                    Some(_) => self.with_content(key, file, now).info(),
                });
            }
        }
        let uses = key.map_or(1, |key| self.store.entry(key).uses);
        let file = descriptor.map(|descriptor| {
            let origin = Origin::new(path.clone(), root_len, symlinks, options);
            Rc::new(OpenedFile::new(stamp, descriptor, origin))
        });
        let keep_open = options.cache.is_none() || uses >= options.min_uses;
        let kept = match &file {
            Some(file) if keep_open => Kept::Open(file.clone()),
            _ => Kept::Seen(stamp),
        };
        let key = match key {
            Some(key) => {
                let entry = self.store.entry(key);
                (entry.checked_ms, entry.symlinks, entry.root_len) = (now.monotonic_ms, symlinks, root_len);
                self.store.keep(key, kept);
                key
            }
            None => {
                let cache = options.cache.as_ref();
                self.store.insert(cache, path, root_len, symlinks, kept, now.monotonic_ms)
            }
        };
        FileAnswer::Found(match file {
            None => stamp.info(),
            Some(file) if keep_open => self.with_content(key, file, now).info(),
            Some(file) => file.info(),
        })
    }

    /// The file with its content in memory, if it has earned that and the page cache has it; else the file as it is.
    fn with_content(&mut self, key: u32, file: Rc<OpenedFile>, now: Moment) -> Rc<OpenedFile> {
        let Body::Descriptor(descriptor) = &file.body else { return file };
        let size = file.stamp.size;
        let earned = self.store.entry(key).uses >= CONTENT_USES
            && size <= self.store.limits().content_file
            && file.direct.is_none()
            && is_settled(&file.stamp, now);
        let Some(length) = usize::try_from(size).ok().filter(|_| earned) else { return file };
        let mut content = vec![0; length].into_boxed_slice();
        let whole = length == 0 || sending::read_resident(descriptor.as_fd(), &mut content, 0) == Ok(length);
        let unchanged = |after: Stamp| after.same_bytes(&file.stamp) && is_settled(&after, now);
        if !whole || !Stamp::of(descriptor.as_fd()).is_ok_and(unchanged) {
            return file;
        }
        let opened = Rc::new(file.with_content(content));
        self.store.keep(key, Kept::Open(opened.clone()));
        opened
    }

    fn submit(
        &mut self,
        waiting: Waiting,
        job: impl FnOnce() -> Finished + Send + 'static,
    ) -> Result<JobId, QueueFull> {
        let id = self.jobs.submit(job)?;
        self.waiting.insert(id, waiting);
        Ok(id)
    }

    fn completion(
        &mut self,
        waiting: Waiting,
        finished: Result<Finished, Panicked>,
        now: Moment,
    ) -> Completion {
        let finished = match finished {
            Ok(finished) => finished,
            Err(Panicked) => broken(&waiting),
        };
        match finished {
            Finished::Opened(result) => Completion::Opened(self.opened(waiting, result, now)),
            Finished::Warmed(result) => Completion::Warmed(result),
            Finished::Read(result) => Completion::Read(result),
            Finished::Listed(result) => Completion::Listed(result),
            Finished::TemporaryCreated(result) => Completion::TemporaryCreated(result),
            Finished::Published(result) => Completion::Published(result),
            Finished::Password(checked) => Completion::Password(checked),
            Finished::Changed(result) => Completion::Changed(result),
            Finished::UpstreamPair(loaded) => Completion::UpstreamPair(loaded),
        }
    }

    fn opened(&mut self, waiting: Waiting, result: Result<Found, OpenError>, now: Moment) -> FileAnswer {
        let Waiting::Open { path, root_len, symlinks, options } = waiting else {
            debug_assert!(false, "an open's result is for an open");
            return FileAnswer::Failed(opening::failure(FileCall::Open, Errno::IO));
        };
        if out_of_descriptors(&result) {
            // Too late for this one; the next finds room.
            self.store.relieve();
        }
        match result {
            Ok(found) => self.admit(path, root_len, symlinks, &options, found, now),
            Err(OpenError::Failed(failure)) => {
                self.admit_failure(path, root_len, symlinks, &options, failure, now)
            }
            Err(OpenError::Cold) => FileAnswer::Failed(opening::failure(FileCall::Open, Errno::AGAIN)),
        }
    }
}

/// Whether an entry speaks for a request at all: the same rule for links, and the same root where that matters.
#[inline]
fn fits(entry: &Entry, request: &FileRequest<'_>) -> bool {
    entry.symlinks == request.symlinks && (!entry.has_parent_steps || entry.root_len == request.root_len)
}

fn is_settled(stamp: &Stamp, now: Moment) -> bool {
    let (secs, nanos) = stamp.changed;
    let changed_ms = secs.saturating_mul(1000).saturating_add(i64::from(nanos / 1_000_000));
    now.wall_ms.saturating_sub(changed_ms) >= SETTLED_MS
}

fn out_of_descriptors(result: &Result<Found, OpenError>) -> bool {
    let out = [Errno::MFILE.raw_os_error(), Errno::NFILE.raw_os_error()];
    matches!(result, Err(OpenError::Failed(failure)) if out.contains(&failure.errno))
}

/// The result of a job that panicked.
fn broken(waiting: &Waiting) -> Finished {
    let error = || io::Error::from(Errno::IO);
    match waiting {
        Waiting::Open { .. } => {
            Finished::Opened(Err(OpenError::Failed(opening::failure(FileCall::Open, Errno::IO))))
        }
        Waiting::Warm => Finished::Warmed(Err(error())),
        Waiting::Read => Finished::Read(Err(error())),
        Waiting::List => Finished::Listed(Err(opening::failure(FileCall::OpenDirectory, Errno::IO))),
        Waiting::CreateTemporary => Finished::TemporaryCreated(Err(error())),
        Waiting::Publish => Finished::Published(Err(error())),
        Waiting::Password => Finished::Password(passwords::broken()),
        Waiting::Change => Finished::Changed(Err(changes::broken())),
        Waiting::UpstreamPair => Finished::UpstreamPair(Err("loading a certificate failed".to_owned())),
    }
}
