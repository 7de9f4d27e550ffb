//! Moving a file's bytes to a socket or a buffer without ever waiting for the disk.
//!
//! Before a chunk is moved, the kernel is asked whether its pages are in the page cache: `cachestat` counts them, and a
//! read of the chunk's last byte with `RWF_NOWAIT` tells pages that are there from pages that are still being read. A
//! cold chunk is the caller's to have warmed by the pool (`Files::read_ahead`); it then calls again with
//! [`Warmth::JustRead`], which skips the question, so that a kernel that can't answer it makes no endless loop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use rustix::net::SendFlags;

use super::calls;
use super::opened::{Body, OpenedFile};
use crate::http::file::{FileHandle, OpenFile};
use crate::server::sys;

/// The most that one call sends or warms, in bytes: a turn's worth, so that no connection starves the rest.
pub const TURN_BYTES: usize = 512 * 1024;

/// What the caller knows of the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warmth {
    Unknown,
    /// The pool has just read these bytes.
    JustRead,
}

/// What became of a send. Errors of the socket come as `io::Error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// So many bytes (at least 1) were taken by the socket.
    Wrote(usize),
    /// The socket takes nothing now.
    Blocked,
    /// The bytes are not in memory: have them read, then call with [`Warmth::JustRead`].
    Cold,
    /// The file ends before the range does: the announced length can't be kept, so the connection must be cut.
    Truncated,
}

/// What became of a read into a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// So many bytes (at least 1) were read.
    Bytes(usize),
    Cold,
    Truncated,
}

/// For how long a file that was found in the page cache is taken to be there still, in milliseconds. Pages in use leave
/// it later than that; should one leave, one read waits for the disk.
const RESIDENT_MS: u64 = 1000;

/// Whether all of a file was found in the page cache a moment ago.
pub fn was_resident(handle: &FileHandle, now_ms: u64) -> bool {
    OpenedFile::behind(handle).is_some_and(|file| {
        let found_ms = file.resident_ms.get();
        found_ms != 0 && now_ms.saturating_sub(found_ms) < RESIDENT_MS
    })
}

/// Notes that a range was found there; it counts if it is the whole file.
pub fn note_resident(handle: &FileHandle, offset: u64, length: u64, now_ms: u64) {
    if let Some(file) = OpenedFile::behind(handle)
        && offset == 0
        && length >= file.stamp.size
    {
        file.resident_ms.set(now_ms);
    }
}

/// Sends up to `max` bytes (cut to [`TURN_BYTES`]) of the file from `offset`, from memory or by sendfile.
/// An `Unsupported` error means that the file must go through buffers: it is in `directio` mode, or its file system has
/// no sendfile.
pub fn send_range(
    socket: BorrowedFd<'_>,
    handle: &FileHandle,
    offset: u64,
    max: usize,
    warmth: Warmth,
) -> io::Result<Sent> {
    let file = behind(handle)?;
    let length = max.min(TURN_BYTES);
    debug_assert!(length > 0, "an empty range is not sent");
    match &file.body {
        Body::Memory(content) => {
            let Some(rest) = usize::try_from(offset).ok().and_then(|from| content.get(from..)) else {
                return Ok(Sent::Truncated);
            };
            match rustix::net::send(socket, &rest[..length.min(rest.len())], SendFlags::NOSIGNAL) {
                Ok(0) => Ok(Sent::Truncated),
                Ok(count) => Ok(Sent::Wrote(count)),
                Err(Errno::AGAIN) => Ok(Sent::Blocked),
                Err(errno) => Err(errno.into()),
            }
        }
        Body::GivenUp => Err(io::ErrorKind::InvalidInput.into()),
        Body::Descriptor(_) if file.direct.is_some() => Err(io::ErrorKind::Unsupported.into()),
        Body::Descriptor(descriptor) => send_descriptor(socket, descriptor.as_fd(), offset, length, warmth),
    }
}

/// The same for a bare descriptor of a regular file, such as a request body's temporary file.
pub fn send_descriptor(
    socket: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: u64,
    max: usize,
    warmth: Warmth,
) -> io::Result<Sent> {
    let length = max.min(TURN_BYTES);
    if warmth == Warmth::Unknown && !is_resident(file, offset, length) {
        return Ok(Sent::Cold);
    }
    match calls::send(socket, file, offset, length) {
        Ok(0) => Ok(Sent::Truncated),
        Ok(count) => Ok(Sent::Wrote(count)),
        Err(Errno::AGAIN) => Ok(Sent::Blocked),
        Err(Errno::INVAL | Errno::NOSYS) => Err(io::ErrorKind::Unsupported.into()),
        Err(errno) => Err(errno.into()),
    }
}

/// Reads into `buffer` (not empty) from `offset` as much as is in memory, for `sendfile off`, TLS and filters.
pub fn read_range(handle: &FileHandle, offset: u64, buffer: &mut [u8], warmth: Warmth) -> io::Result<Copied> {
    let file = behind(handle)?;
    debug_assert!(!buffer.is_empty());
    match &file.body {
        Body::Memory(content) => {
            let rest = usize::try_from(offset).ok().and_then(|from| content.get(from..)).unwrap_or_default();
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            Ok(if count == 0 { Copied::Truncated } else { Copied::Bytes(count) })
        }
        Body::GivenUp => Err(io::ErrorKind::InvalidInput.into()),
        Body::Descriptor(_) if file.direct.is_some() => Ok(Copied::Cold),
        Body::Descriptor(descriptor) => {
            let read = match warmth {
                Warmth::Unknown => read_resident(descriptor.as_fd(), buffer, offset),
                Warmth::JustRead => calls::read(descriptor, buffer, offset),
            };
            match read {
                Ok(0) => Ok(Copied::Truncated),
                Ok(count) => Ok(Copied::Bytes(count)),
                Err(Errno::AGAIN) => Ok(Copied::Cold),
                Err(errno) => Err(errno.into()),
            }
        }
    }
}

/// True when the handle's file is in `directio` mode: only `Files::read` reads it.
pub fn is_direct(handle: &FileHandle) -> bool {
    OpenedFile::behind(handle).is_some_and(|file| file.direct.is_some())
}

fn behind(handle: &FileHandle) -> io::Result<&OpenedFile> {
    let file = OpenedFile::behind(handle);
    debug_assert!(file.is_some_and(|file| file.content().is_none_or(|c| c.len() as u64 == file.stamp.size)));
    file.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

static NO_CACHESTAT: AtomicBool = AtomicBool::new(false);

/// Whether all of the range can be moved without waiting for the disk. False when in doubt.
pub fn is_resident(file: BorrowedFd<'_>, offset: u64, length: usize) -> bool {
    let Some(last) = (length as u64).checked_sub(1).and_then(|ahead| offset.checked_add(ahead)) else {
        return false;
    };
    let mut counted = false;
    if !NO_CACHESTAT.load(Ordering::Relaxed) {
        let page = sys::page_size();
        match sys::cached_pages(file, offset, length as u64) {
            Ok(cached) if cached <= last / page - offset / page => return false,
            Ok(_) => counted = true,
            Err(error) => {
                if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) {
                    NO_CACHESTAT.store(true, Ordering::Relaxed);
                }
            }
        }
    }
    let probe = |position| {
        let mut byte = [0];
        calls::read_resident(file, &mut byte, position)
    };
    match probe(last) {
        // The end of the file lies before: the send itself finds out.
        Ok(_) => counted || probe(offset).is_ok(),
        Err(Errno::OPNOTSUPP | Errno::INVAL) => counted,
        Err(_) => false,
    }
}

/// Reads what is in the page cache, and `AGAIN` when the first byte is not.
pub fn read_resident(file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> rustix::io::Result<usize> {
    match calls::read_resident(file, buffer, offset) {
        // A file system without RWF_NOWAIT: the page cache's count decides.
        Err(Errno::OPNOTSUPP | Errno::INVAL) if is_resident(file, offset, buffer.len()) => {
            calls::read(file, buffer, offset)
        }
        Err(Errno::OPNOTSUPP | Errno::INVAL) => Err(Errno::AGAIN),
        other => other,
    }
}
