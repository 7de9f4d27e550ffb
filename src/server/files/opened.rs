//! One version of one regular file, as the engine's handle holds it.

use std::any::Any;
use std::cell::Cell;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use rustix::fs::OFlags;

use super::opening::Stamp;
use crate::http::file::{FileHandle, FileInfo, FileOptions, OpenFile, Symlinks, Validators};

/// Where the bytes of an opened file come from.
#[derive(Debug)]
pub enum Body {
    /// The whole content; no descriptor is kept.
    Memory(Box<[u8]>),
    /// A descriptor, shared with jobs in the pool.
    Descriptor(Arc<OwnedFd>),
    /// Nowhere: the descriptor was given up, and the file is to be opened again before it is read.
    GivenUp,
}

/// Where a file was found, and by which rules: what it takes to open it again.
#[derive(Debug)]
pub struct Origin {
    pub path: CString,
    pub root_len: u32,
    pub symlinks: Symlinks,
    /// Without their cache: an opened file must not keep a cache alive that no configuration names any more.
    pub options: FileOptions,
    /// Whether `open_file_cache` was to keep it.
    pub is_cached: bool,
}

impl Origin {
    /// How a file was found, so that it can be found again.
    pub fn new(path: CString, root_len: u32, symlinks: Symlinks, options: &FileOptions) -> Origin {
        let is_cached = options.cache.is_some();
        Origin {
            path,
            root_len,
            symlinks,
            options: FileOptions { cache: None, ..options.clone() },
            is_cached,
        }
    }
}

/// A regular file, opened; it never changes. A newer version of the file is another value.
pub struct OpenedFile {
    pub stamp: Stamp,
    pub body: Body,
    /// The descriptor has `O_DIRECT`: it is read by the pool into aligned buffers, never by sendfile.
    pub direct: Option<DirectAlignment>,
    /// `O_DIRECT` was asked for; the file system may have refused it.
    wanted_direct: bool,
    validators: Validators,
    /// There for all that have, or had, a descriptor.
    pub origin: Option<Rc<Origin>>,
    /// Monotonic milliseconds when all of it was found in the page cache; 0 for never.
    pub resident_ms: Cell<u64>,
}

/// What `O_DIRECT` asks of offsets, lengths and addresses: a power of two from 512 to [`MAX_DIRECT_ALIGNMENT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectAlignment(pub u32);

/// The largest alignment that is honoured; `directio_alignment` beyond it is cut to it. XFS wants 4 KiB.
pub const MAX_DIRECT_ALIGNMENT: u32 = 64 * 1024;

impl OpenedFile {
    /// Takes a descriptor that was just opened, and gives it the mode that the location's settings ask for. A file
    /// system without `O_DIRECT` leaves the file in the ordinary mode.
    pub fn new(stamp: Stamp, descriptor: OwnedFd, origin: Origin) -> OpenedFile {
        let options = &origin.options;
        let mut direct = None;
        let wanted_direct = wants_direct(&stamp, options);
        if wanted_direct {
            let set = rustix::fs::fcntl_getfl(&descriptor)
                .and_then(|flags| rustix::fs::fcntl_setfl(&descriptor, flags | OFlags::DIRECT));
            let alignment = options.directio_alignment.clamp(512, MAX_DIRECT_ALIGNMENT).next_power_of_two();
            direct = set.is_ok().then_some(DirectAlignment(alignment));
        }
        if options.read_ahead > 0 && stamp.size > options.read_ahead.max(MIN_READ_AHEAD) {
            // Advice only: a file system that ignores it is read all the same.
            let _ = rustix::fs::fadvise(&descriptor, 0, None, rustix::fs::Advice::Sequential);
        }
        let validators = Validators::new(stamp.modified.0, stamp.size);
        OpenedFile {
            stamp,
            body: Body::Descriptor(Arc::new(descriptor)),
            direct,
            wanted_direct,
            validators,
            origin: Some(Rc::new(origin)),
            resident_ms: Cell::new(0),
        }
    }

    /// The same version with its content in memory.
    pub fn with_content(&self, content: Box<[u8]>) -> OpenedFile {
        debug_assert_eq!(content.len() as u64, self.stamp.size);
        OpenedFile {
            stamp: self.stamp,
            body: Body::Memory(content),
            direct: None,
            wanted_direct: false,
            validators: self.validators.clone(),
            origin: None,
            resident_ms: self.resident_ms.clone(),
        }
    }

    /// The same version without its descriptor; `None` where there is none to give up.
    pub fn without_descriptor(&self) -> Option<OpenedFile> {
        self.descriptor()?;
        Some(OpenedFile {
            stamp: self.stamp,
            body: Body::GivenUp,
            direct: None,
            wanted_direct: self.wanted_direct,
            validators: self.validators.clone(),
            origin: Some(self.origin.clone()?),
            resident_ms: Cell::new(0),
        })
    }

    /// The open file; `None` where the content is in memory, or the descriptor was given up.
    pub fn descriptor(&self) -> Option<&Arc<OwnedFd>> {
        match &self.body {
            Body::Memory(_) | Body::GivenUp => None,
            Body::Descriptor(descriptor) => Some(descriptor),
        }
    }

    /// True when a location with these settings may use this value: its read mode is the one that they ask for.
    pub fn suits(&self, options: &FileOptions) -> bool {
        matches!(self.body, Body::Memory(_)) || self.wanted_direct == wants_direct(&self.stamp, options)
    }

    /// The answer with this file's handle.
    pub fn info(self: &Rc<OpenedFile>) -> FileInfo {
        FileInfo { handle: Some(FileHandle::new(self.clone())), ..self.stamp.info() }
    }

    /// The shell's value behind an engine's handle; `None` only for a handle that another shell made.
    pub fn behind(handle: &FileHandle) -> Option<&OpenedFile> {
        handle.downcast()
    }
}

/// Below this size nginx gives the kernel no advice.
const MIN_READ_AHEAD: u64 = 128 * 1024;

fn wants_direct(stamp: &Stamp, options: &FileOptions) -> bool {
    options.directio.is_some_and(|least| stamp.size >= least && stamp.size > 0)
}

impl OpenFile for OpenedFile {
    #[inline]
    fn content(&self) -> Option<&[u8]> {
        match &self.body {
            Body::Memory(content) => Some(content),
            Body::Descriptor(_) | Body::GivenUp => None,
        }
    }

    #[inline]
    fn validators(&self) -> &Validators {
        &self.validators
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
