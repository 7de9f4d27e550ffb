//! What the engine asks of a path and what it is told: no descriptor and no system call appears here.
//!
//! The I/O shell answers a [`FileRequest`] with exactly one [`FileAnswer`]. A regular file that was asked for with
//! [`Want::Open`] comes with a [`FileHandle`], which keeps that version of the file alive, offers its content when it
//! is in memory, and carries the header values that depend on the version alone, rendered once.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// What a handler wants of a path. The bytes live in the exchange's recycled buffer.
#[derive(Debug, Clone, Copy)]
pub struct FileRequest<'a> {
    /// The path as the file system is to see it; a NUL byte in it is answered as "not found".
    pub path: &'a [u8],
    /// How many leading bytes of `path` come from the configuration (`root`, `alias`). What follows may not climb
    /// above them with `..`.
    pub root_len: u32,
    pub want: Want,
    pub symlinks: Symlinks,
    pub options: &'a FileOptions,
}

/// How much of a file is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Kind, size and times only (`try_files`, `index`, `-f`): needs no right to read the file.
    Stat,
    /// The file opened for reading, as `open()` would: a file without the right to read it fails.
    Open,
}

/// `disable_symlinks`. `from` counts the leading bytes of the path that are not checked (`from=part`, 0 without it, and
/// 0 when the part is no prefix of the path, as nginx has it).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Symlinks {
    /// `disable_symlinks off`: links are followed.
    #[default]
    Follow,
    /// `disable_symlinks on`: a link in any component fails with ELOOP.
    Refuse { from: u32 },
    /// `disable_symlinks if_not_owner`: a link fails with ELOOP when it and its target have different owners.
    RefuseOthers { from: u32 },
}

/// A location's frozen file settings.
#[derive(Debug, Clone, Default)]
pub struct FileOptions {
    /// `open_file_cache`; `None` for `off`: every use is checked against the file system.
    pub cache: Option<Arc<OpenFileCache>>,
    /// `open_file_cache_valid`, in milliseconds.
    pub valid_ms: u64,
    /// `open_file_cache_min_uses`: uses within the inactive time before a descriptor is kept open.
    pub min_uses: u32,
    /// `open_file_cache_errors`: failed lookups are kept too.
    pub errors: bool,
    /// `directio`: files of at least this many bytes are read past the page cache.
    pub directio: Option<u64>,
    /// `directio_alignment`, in bytes; 0 means nginx's default of 512.
    pub directio_alignment: u32,
    /// `read_ahead`, in bytes: when not 0, the kernel is told that larger files are read in sequence.
    pub read_ahead: u64,
}

/// One `open_file_cache` directive. Each directive is a cache of its own in each worker, shared by the locations that
/// inherit it; its identity is the address of this value, so a reload starts with empty caches as nginx's does.
#[derive(Debug)]
pub struct OpenFileCache {
    /// `max`: entries per worker, at least 1; the least recently used one gives way.
    pub max: u32,
    /// `inactive`, in milliseconds: an entry unused for this long is dropped.
    pub inactive_ms: u64,
}

/// The one answer to a [`FileRequest`].
#[derive(Debug, Clone)]
pub enum FileAnswer {
    Found(FileInfo),
    Failed(FileFailure),
}

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    File,
    Directory,
    /// A FIFO, socket, device: never opened for a response.
    Other,
}

/// A path that was found. With a handle, every number is that of the version which the handle sends.
#[derive(Debug, Clone)]
pub struct FileInfo {
    pub kind: FileKind,
    /// Bytes.
    pub size: u64,
    /// Seconds since 1970, negative before it.
    pub modified_secs: i64,
    /// The mode's permission bits (`0o7777`).
    pub mode: u16,
    /// There for a regular file that was asked for with [`Want::Open`], else `None`.
    pub handle: Option<FileHandle>,
}

impl FileInfo {}

/// The call that failed, named as nginx's log lines name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileCall {
    Open,
    /// A component-wise open under `disable_symlinks`.
    OpenAt,
    Stat,
    OpenDirectory,
    ReadDirectory,
}

impl FileCall {
    /// As nginx names it in log lines: `open()`.
    pub fn name(self) -> &'static str {
        match self {
            FileCall::Open => "open()",
            FileCall::OpenAt => "openat()",
            FileCall::Stat => "stat()",
            FileCall::OpenDirectory => "opendir()",
            FileCall::ReadDirectory => "readdir()",
        }
    }
}

/// What a failure means for the response; nginx's static handler draws the same lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureReason {
    /// ENOENT, ENOTDIR, ENAMETOOLONG, or no possible name: 404, logged at `error` unless `log_not_found off`.
    NotFound,
    /// EACCES, ELOOP, or a path that climbs out of its root: 403, logged at `error`.
    Forbidden,
    /// The blocking pool's queue is full: 503.
    Busy,
    /// Anything else (EMFILE, EIO, ...): 500, logged at `crit`.
    Internal,
}

/// A failed lookup: enough for the status and for the log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileFailure {
    pub call: FileCall,
    pub errno: i32,
    pub reason: FailureReason,
}

impl FileFailure {
    /// A listing that could not be made because the pool is full.
    pub fn busy() -> FileFailure {
        FileFailure { call: FileCall::OpenDirectory, errno: 11, reason: FailureReason::Busy }
    }

    /// `open() "/x" failed (2: No such file or directory)`: the text of nginx's log line.
    pub fn describe<'a>(&'a self, path: &'a [u8]) -> impl fmt::Display + 'a {
        struct Line<'a>(&'a FileFailure, &'a [u8]);
        impl fmt::Display for Line<'_> {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                let path = String::from_utf8_lossy(self.1);
                write!(out, "{} \"{path}\" failed ({})", self.0.call.name(), self.0.error_text())
            }
        }
        Line(self, path)
    }

    /// `2: No such file or directory`
    pub fn error_text(&self) -> Cow<'static, str> {
        // What anybody can bring about by asking for it costs no allocation (Linux numbers, glibc's words).
        Cow::Borrowed(match self.errno {
            2 => "2: No such file or directory",
            13 => "13: Permission denied",
            20 => "20: Not a directory",
            36 => "36: File name too long",
            _ => {
                let error = std::io::Error::from_raw_os_error(self.errno).to_string();
                let text = error.split(" (os error").next().unwrap_or(&error);
                return Cow::Owned(format!("{}: {text}", self.errno));
            }
        })
    }
}

/// What the shell's open file offers to the engine.
pub trait OpenFile: 'static {
    /// The whole content when it is in memory. Its length is the size that was announced, always.
    fn content(&self) -> Option<&[u8]>;
    /// Header values of this version of the file.
    fn validators(&self) -> &Validators;
    /// The shell's own type, for the shell alone.
    fn as_any(&self) -> &dyn Any;
}

/// One version of one regular file, opened. A clone is a reference count of this thread.
#[derive(Clone)]
pub struct FileHandle(Rc<dyn OpenFile>);

impl FileHandle {
    /// A handle on a file that the shell has opened.
    pub fn new(file: Rc<dyn OpenFile>) -> FileHandle {
        FileHandle(file)
    }

    /// The whole content when it is in memory; otherwise the shell sends ranges of the file.
    #[inline]
    pub fn content(&self) -> Option<&[u8]> {
        self.0.content()
    }

    /// Rendered header values.
    #[inline]
    pub fn validators(&self) -> &Validators {
        self.0.validators()
    }

    /// The shell's type behind the handle.
    pub fn downcast<T: 'static>(&self) -> Option<&T> {
        self.0.as_any().downcast_ref()
    }
}

impl fmt::Debug for FileHandle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "FileHandle({})", String::from_utf8_lossy(self.validators().etag()))
    }
}

/// A part of an open file, to be sent.
#[derive(Debug, Clone)]
pub struct FileRange {
    pub handle: FileHandle,
    pub offset: u64,
    pub length: u64,
}

/// The header values that follow from a version's time and size, rendered once per version.
#[derive(Clone)]
pub struct Validators {
    etag: [u8; 35],
    etag_len: u8,
    content_length: [u8; 20],
    content_length_len: u8,
    last_modified: [u8; 29],
}

/// The last second that an HTTP date can name: 9999-12-31 23:59:59.
const LAST_HTTP_SECOND: i64 = 253_402_300_799;

impl Validators {
    /// Renders the values. Times outside 1970..=9999 are clamped in `Last-Modified`, which can't name them.
    pub fn new(modified_secs: i64, size: u64) -> Validators {
        let mut etag = [0; 35];
        let etag_len = write_into(&mut etag, format_args!("\"{modified_secs:x}-{size:x}\""));
        let mut content_length = [0; 20];
        let content_length_len = write_into(&mut content_length, format_args!("{size}"));
        let second = modified_secs.clamp(0, LAST_HTTP_SECOND).unsigned_abs();
        let date = httpdate::HttpDate::from(UNIX_EPOCH + Duration::from_secs(second));
        let mut last_modified = [b' '; 29];
        write_into(&mut last_modified, format_args!("{date}"));
        Validators { etag, etag_len, content_length, content_length_len, last_modified }
    }

    /// `"5f2-400"`: modification second and size in hexadecimal, in quotes, as nginx forms it.
    #[inline]
    pub fn etag(&self) -> &[u8] {
        &self.etag[..usize::from(self.etag_len)]
    }

    /// The size in decimal.
    #[inline]
    pub fn content_length(&self) -> &[u8] {
        &self.content_length[..usize::from(self.content_length_len)]
    }

    /// An IMF-fixdate (RFC 9110, section 5.6.7), 29 bytes.
    #[inline]
    pub fn last_modified(&self) -> &[u8; 29] {
        &self.last_modified
    }
}

/// Formats into a buffer that is large enough by construction; returns the length.
fn write_into(buffer: &mut [u8], text: fmt::Arguments<'_>) -> u8 {
    let mut cursor = std::io::Cursor::new(buffer);
    let written = std::io::Write::write_fmt(&mut cursor, text);
    debug_assert!(written.is_ok(), "a rendered validator fits its buffer");
    cursor.position() as u8
}

/// One name in a directory, for `autoindex` and `random_index`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    pub name: Vec<u8>,
    /// Of the target, where a link leads to one that exists; else `Other`.
    pub kind: FileKind,
    /// Bytes.
    pub size: u64,
    /// Seconds since 1970.
    pub modified_secs: i64,
}

/// A directory's names, without `.` and `..`, in no order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DirectoryListing {
    pub entries: Vec<DirectoryEntry>,
    /// The limit was reached: there are more names than `entries` holds.
    pub truncated: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validators_have_the_forms_that_nginx_gives_them() {
        let validators = Validators::new(1_700_000_000, 1024);
        assert_eq!(validators.etag(), b"\"6553f100-400\"");
        assert_eq!(validators.content_length(), b"1024");
        assert_eq!(validators.last_modified(), b"Tue, 14 Nov 2023 22:13:20 GMT");
    }

    #[test]
    fn extreme_times_and_sizes_render_without_panic() {
        for secs in [i64::MIN, -1, 0, i64::MAX] {
            let validators = Validators::new(secs, u64::MAX);
            assert!(validators.etag().starts_with(b"\"") && validators.etag().ends_with(b"\""));
            assert_eq!(validators.content_length(), b"18446744073709551615");
            assert!(validators.last_modified().ends_with(b" GMT"));
        }
        assert_eq!(Validators::new(-1, 0).last_modified(), b"Thu, 01 Jan 1970 00:00:00 GMT");
    }

    #[test]
    fn a_failure_reads_like_nginx_s_log_line() {
        let failure = FileFailure { call: FileCall::Open, errno: 2, reason: FailureReason::NotFound };
        let line = failure.describe(b"/srv/x").to_string();
        assert_eq!(line, "open() \"/srv/x\" failed (2: No such file or directory)");
    }
}
