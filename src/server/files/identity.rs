//! Which version of which file a handle is: for what is derived from a file's content and kept.

use std::os::fd::AsFd;

use super::opened::{Body, OpenedFile};
use super::opening::Stamp;
use super::{Moment, is_settled};
use crate::http::file::FileHandle;

/// One version of one file. Equal ones are taken for the same content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, u32),
    changed: (i64, u32),
}

impl FileIdentity {
    /// That of an open file.
    pub fn of(handle: &FileHandle) -> Option<FileIdentity> {
        let stamp = &OpenedFile::behind(handle)?.stamp;
        Some(FileIdentity {
            device: stamp.device,
            inode: stamp.inode,
            size: stamp.size,
            modified: stamp.modified,
            changed: stamp.changed,
        })
    }

    /// The file's length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// One that differs from others by the inode alone.
    #[cfg(test)]
    pub fn for_test(inode: u64) -> FileIdentity {
        FileIdentity { device: 1, inode, size: 1, modified: (0, 0), changed: (0, 0) }
    }
}

/// Whether the bytes behind a handle are still those of its version, and so old that a change would show.
pub fn is_unchanged(handle: &FileHandle, now: Moment) -> bool {
    let Some(file) = OpenedFile::behind(handle) else { return false };
    match &file.body {
        Body::Memory(_) => true,
        Body::GivenUp => false,
        Body::Descriptor(descriptor) => Stamp::of(descriptor.as_fd())
            .is_ok_and(|present| present.same_bytes(&file.stamp) && is_settled(&present, now)),
    }
}
