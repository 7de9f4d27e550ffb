//! Descriptors that are given up while a reader stands still, and the same files opened again when it goes on.
//!
//! A stream of HTTP/2 costs its client nothing, and one that gets no window waits for a minute: whoever opens thousands
//! of them, each for another file, must not have thousands of descriptors held here. What stays is the path, the rules
//! by which it was opened, and which version of the file it was.

use std::rc::Rc;

use rustix::io::Errno;

use super::opened::{Body, OpenedFile};
use super::opening;
use super::store::{CacheId, Kept};
use super::{Files, Moment, Opened};
use crate::http::file::{FileAnswer, FileCall, FileHandle, FileRequest, Want};

/// The same version of the file, with nothing open; `None` for a content in memory, which has nothing open anyway.
pub fn give_up(handle: &FileHandle) -> Option<FileHandle> {
    let file = OpenedFile::behind(handle)?.without_descriptor()?;
    Some(FileHandle::new(Rc::new(file)))
}

/// Whether the file has to be opened again ([`Files::open_again`]) before anything of it is read.
pub fn is_given_up(handle: &FileHandle) -> bool {
    OpenedFile::behind(handle).is_some_and(|file| matches!(file.body, Body::GivenUp))
}

impl Files {
    /// Closes what is kept open of a file that its reader has given up, unless somebody reads from it, or
    /// `open_file_cache` says that it is to be kept.
    pub fn close_given_up(&mut self, handle: &FileHandle) {
        let origin = OpenedFile::behind(handle).and_then(|file| file.origin.as_deref());
        let Some(origin) = origin.filter(|origin| !origin.is_cached) else { return };
        let Some(key) = self.store.find(CacheId::of(None), origin.path.as_bytes()) else { return };
        if let Kept::Open(file) = &self.store.entry(key).kept
            && file.descriptor().is_some()
            && Rc::strong_count(file) == 1
        {
            let stamp = file.stamp;
            self.store.keep(key, Kept::Seen(stamp));
        }
    }

    /// Opens a file that was given up, by the path and the rules of the first time. Whether it is the same version is
    /// for the caller to see (`FileIdentity`).
    pub fn open_again(&mut self, handle: &FileHandle, now: Moment) -> Opened {
        let Some(origin) = OpenedFile::behind(handle).and_then(|file| file.origin.clone()) else {
            debug_assert!(false, "what was given up says where it was found");
            return Opened::Ready(FileAnswer::Failed(opening::failure(FileCall::Open, Errno::IO)));
        };
        let request = FileRequest {
            path: origin.path.as_bytes(),
            root_len: origin.root_len,
            want: Want::Open,
            symlinks: origin.symlinks,
            options: &origin.options,
        };
        self.open(&request, now)
    }
}
