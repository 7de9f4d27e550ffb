//! Opening a path safely: what is resolved, what is refused, and what never blocks the loop.
//!
//! - On the loop ([`Patience::Resident`]) a path is resolved with `openat2(RESOLVE_CACHED)`: a component that is not in
//!   the kernel's dentry cache yields [`OpenError::Cold`], and the caller hands the path to the pool. A kernel without
//!   it (before 5.12, or behind a seccomp filter) makes every such open `Cold`: slower, never blocking.
//! - Everything is opened with `O_NONBLOCK | O_NOCTTY | O_CLOEXEC`, and nothing but a regular file is kept: a FIFO or a
//!   device neither hangs the open nor is ever read.
//! - What follows the configured root may not climb above it with `..`. (`RESOLVE_BENEATH` would also refuse links
//!   that lead out of the root, which nginx's configuration language allows unless `disable_symlinks` is set.)

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags};
use rustix::io::Errno;

use crate::http::file::{FailureReason, FileCall, FileFailure, FileInfo, FileKind, Symlinks, Want};

/// How long an open may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// On the loop: only what the kernel has in memory.
    Resident,
    /// In the pool: as long as the disk needs.
    Blocking,
}

/// Why a path was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenError {
    /// The answer needs the disk: ask again with [`Patience::Blocking`].
    Cold,
    Failed(FileFailure),
}

/// A path that was found: the descriptor is there for a regular file that was to be opened.
#[derive(Debug)]
pub struct Found {
    pub stamp: Stamp,
    pub descriptor: Option<OwnedFd>,
}

/// What tells one version of a file from another, and what answers need of it. Two equal stamps are taken for the same
/// content: the change time moves with every write, rename and chmod, also when the modification time is set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    pub kind: FileKind,
    pub mode: u16,
    pub size: u64,
    pub device: u64,
    pub inode: u64,
    pub modified: (i64, u32),
    pub changed: (i64, u32),
}

impl Stamp {
    fn new(stat: &Statx) -> Stamp {
        Stamp {
            kind: kind_of(stat),
            mode: stat.stx_mode & 0o7777,
            size: stat.stx_size,
            device: fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            modified: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
            changed: (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
        }
    }

    /// The stamp of what `descriptor` has open now.
    pub fn of(descriptor: BorrowedFd<'_>) -> Result<Stamp, Errno> {
        stat_descriptor(descriptor).map(|stat| Stamp::new(&stat))
    }

    /// The stamp of what `path` names now, links followed. One system call; may block when the path is not cached.
    pub fn at(path: &CStr) -> Result<Stamp, Errno> {
        fs::statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS).map(|stat| Stamp::new(&stat))
    }

    /// True when the bytes are taken for the same, though names or rights may have changed.
    pub fn same_bytes(&self, other: &Stamp) -> bool {
        (self.device, self.inode, self.size, self.modified)
            == (other.device, other.inode, other.size, other.modified)
    }

    /// The answer for this stamp, without a handle.
    pub fn info(&self) -> FileInfo {
        FileInfo {
            kind: self.kind,
            size: self.size,
            modified_secs: self.modified.0,
            mode: self.mode,
            handle: None,
        }
    }
}

/// What kind of thing was looked at.
pub fn kind_of(stat: &Statx) -> FileKind {
    match FileType::from_raw_mode(u32::from(stat.stx_mode)) {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        _ => FileKind::Other,
    }
}

fn stat_descriptor(descriptor: BorrowedFd<'_>) -> Result<Statx, Errno> {
    fs::statx(descriptor, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
}

/// Opens or looks up `path`. `root_len` and `symlinks` are those of the request (`http::file::FileRequest`).
pub fn open(
    path: &CStr,
    root_len: u32,
    want: Want,
    symlinks: Symlinks,
    patience: Patience,
) -> Result<Found, OpenError> {
    let symlinks = match symlinks {
        // A `from` part that is the whole path leaves nothing to check.
        Symlinks::Refuse { from } | Symlinks::RefuseOthers { from }
            if from as usize >= path.count_bytes() =>
        {
            Symlinks::Follow
        }
        other => other,
    };
    let call = match (symlinks, want) {
        (Symlinks::Follow, Want::Stat) => FileCall::Stat,
        (Symlinks::Follow, Want::Open) => FileCall::Open,
        _ => FileCall::OpenAt,
    };
    let refuse = |errno| match errno {
        Trouble::Cold => OpenError::Cold,
        Trouble::Errno(errno) => OpenError::Failed(failure(call, errno)),
    };
    if climbs_out(path.to_bytes(), root_len as usize) {
        return Err(refuse(Trouble::Errno(Errno::XDEV)));
    }
    if patience == Patience::Blocking && call == FileCall::Stat {
        let stamp = Stamp::at(path).map_err(|errno| refuse(errno.into()))?;
        return Ok(Found { stamp, descriptor: None });
    }
    let flags = match want {
        Want::Stat => OFlags::PATH,
        Want::Open => OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY,
    };
    let descriptor = match symlinks {
        Symlinks::Follow => resolve(CWD, path, flags, ResolveFlags::empty(), patience),
        Symlinks::Refuse { from } => open_without_links(path, from as usize, flags, patience),
        Symlinks::RefuseOthers { from } => walk(path, from as usize, flags, patience, LinkRule::SameOwner),
    }
    .map_err(refuse)?;
    let stamp = Stamp::of(descriptor.as_fd()).map_err(|errno| refuse(errno.into()))?;
    let keep = want == Want::Open && stamp.kind == FileKind::File;
    Ok(Found { stamp, descriptor: keep.then_some(descriptor) })
}

/// The failure of `call`, with what it means for the response.
pub fn failure(call: FileCall, errno: Errno) -> FileFailure {
    let reason = match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG => FailureReason::NotFound,
        Errno::ACCESS | Errno::LOOP | Errno::XDEV => FailureReason::Forbidden,
        _ => FailureReason::Internal,
    };
    FileFailure { call, errno: errno.raw_os_error(), reason }
}

/// True when the components after `root_len` climb above it at any point. The root itself may hold `..`.
pub fn climbs_out(path: &[u8], root_len: usize) -> bool {
    let Some(rest) = path.get(root_len..) else { return true };
    // `root /srv/www` + `/x` and `alias /srv/www/` + `x` both cut at a component's border. Elsewhere (`alias /srv/i`
    // + `mg/x`) what completes the cut component is no step down, so that no `..` after it leads to the root's parent.
    let cut = root_len > 0 && path[root_len - 1] != b'/' && rest.first() != Some(&b'/');
    let mut depth = 0i64;
    for component in rest.split(|&byte| byte == b'/').skip(usize::from(cut)) {
        match component {
            b"" | b"." => {}
            b".." => {
                depth -= 1;
                if depth < 0 {
                    return true;
                }
            }
            _ => depth += 1,
        }
    }
    false
}

/// Why a step of a resolution stopped.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    Cold,
    Errno(Errno),
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Trouble {
        Trouble::Errno(errno)
    }
}

/// What the kernel lacks; learnt once per process.
static NO_OPENAT2: AtomicBool = AtomicBool::new(false);
static NO_RESOLVE_CACHED: AtomicBool = AtomicBool::new(false);

/// `openat2`, within `patience`. Without `openat2` in the kernel, `how` must be empty.
fn resolve(
    directory: BorrowedFd<'_>,
    path: &CStr,
    flags: OFlags,
    how: ResolveFlags,
    patience: Patience,
) -> Result<OwnedFd, Trouble> {
    let flags = flags | OFlags::CLOEXEC;
    let lacks = |what: &AtomicBool| what.load(Ordering::Relaxed);
    match patience {
        Patience::Resident if lacks(&NO_OPENAT2) || lacks(&NO_RESOLVE_CACHED) => Err(Trouble::Cold),
        Patience::Resident => {
            match fs::openat2(directory, path, flags, Mode::empty(), how | ResolveFlags::CACHED) {
                Err(Errno::AGAIN) => Err(Trouble::Cold),
                // The pool finds out whether it is the call, the flag or this file.
                Err(Errno::NOSYS | Errno::INVAL | Errno::PERM) => Err(Trouble::Cold),
                other => Ok(other?),
            }
        }
        Patience::Blocking if how.is_empty() && lacks(&NO_OPENAT2) => {
            Ok(fs::openat(directory, path, flags, Mode::empty())?)
        }
        Patience::Blocking => match fs::openat2(directory, path, flags, Mode::empty(), how) {
            Err(errno @ (Errno::NOSYS | Errno::PERM)) => {
                if !openat2_works() {
                    NO_OPENAT2.store(true, Ordering::Relaxed);
                    if how.is_empty() {
                        return Ok(fs::openat(directory, path, flags, Mode::empty())?);
                    }
                }
                Err(errno.into())
            }
            other => Ok(other?),
        },
    }
}

/// Whether the kernel lets us use `openat2` at all: some containers' seccomp filters answer EPERM.
fn openat2_works() -> bool {
    fs::openat2(CWD, c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::empty()).is_ok()
}

/// Asks the kernel once for `RESOLVE_CACHED`, so that one without it costs no call per open. "/" is always cached.
pub fn probe_kernel() {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    if !openat2_works() {
        NO_OPENAT2.store(true, Ordering::Relaxed);
        return;
    }
    let opened = fs::openat2(CWD, c"/", flags, Mode::empty(), ResolveFlags::CACHED);
    if matches!(opened, Err(Errno::INVAL)) {
        NO_RESOLVE_CACHED.store(true, Ordering::Relaxed);
    }
}

/// `disable_symlinks on`: in one call where the kernel can, else component by component.
fn open_without_links(
    path: &CStr,
    from: usize,
    flags: OFlags,
    patience: Patience,
) -> Result<OwnedFd, Trouble> {
    if NO_OPENAT2.load(Ordering::Relaxed) {
        return walk(path, from, flags, patience, LinkRule::None);
    }
    let start = Start::new(path, from, patience)?;
    let rest = start.rest(path, from)?;
    resolve(start.directory(), &rest, flags, ResolveFlags::NO_SYMLINKS, patience)
}

/// Where a checked walk begins: at the `from` part, at "/", or at the working folder.
enum Start {
    At(OwnedFd),
    WorkingFolder,
}

impl Start {
    fn new(path: &CStr, from: usize, patience: Patience) -> Result<Start, Trouble> {
        let bytes = path.to_bytes();
        let unchecked = match bytes.get(..from) {
            Some(b"") | None if bytes.first() == Some(&b'/') => c"/".to_owned(),
            Some(b"") | None => return Ok(Start::WorkingFolder),
            Some(part) => std::ffi::CString::new(part).map_err(|_| Errno::INVAL)?,
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        resolve(CWD, &unchecked, flags, ResolveFlags::empty(), patience).map(Start::At)
    }

    fn directory(&self) -> BorrowedFd<'_> {
        match self {
            Start::At(descriptor) => descriptor.as_fd(),
            Start::WorkingFolder => CWD,
        }
    }

    /// What is left of `path` below the start; "." when nothing is.
    fn rest(&self, path: &CStr, from: usize) -> Result<std::ffi::CString, Trouble> {
        let bytes = path.to_bytes();
        let rest = bytes.get(from..).unwrap_or(bytes);
        let slashes = rest.iter().take_while(|&&byte| byte == b'/').count();
        let rest = if slashes == rest.len() { b".".as_slice() } else { &rest[slashes..] };
        std::ffi::CString::new(rest).map_err(|_| Errno::INVAL.into())
    }
}

/// Which links a walk passes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LinkRule {
    None,
    SameOwner,
}

/// Opens component by component, each checked by the rule. What is compared are the owners of descriptors that are held
/// open, and they are compared whether or not the name was seen to be a link: the name may change between the two
/// opens (nginx reasons the same way).
fn walk(
    path: &CStr,
    from: usize,
    flags: OFlags,
    patience: Patience,
    rule: LinkRule,
) -> Result<OwnedFd, Trouble> {
    let start = Start::new(path, from, patience)?;
    let rest = start.rest(path, from)?;
    let bytes = rest.to_bytes();
    let mut names = bytes.split(|&byte| byte == b'/').filter(|name| !name.is_empty()).peekable();
    let must_be_directory = if bytes.ends_with(b"/") { OFlags::DIRECTORY } else { OFlags::empty() };
    let mut at = start;
    while let Some(name) = names.next() {
        let name = std::ffi::CString::new(name).map_err(|_| Errno::INVAL)?;
        let last = names.peek().is_none();
        let flags = if last { flags | must_be_directory } else { OFlags::PATH | OFlags::DIRECTORY };
        let opened = step(at.directory(), &name, flags, patience, rule)?;
        if last {
            return Ok(opened);
        }
        at = Start::At(opened);
    }
    resolve(at.directory(), c".", flags, ResolveFlags::empty(), patience)
}

fn step(
    directory: BorrowedFd<'_>,
    name: &CStr,
    flags: OFlags,
    patience: Patience,
    rule: LinkRule,
) -> Result<OwnedFd, Trouble> {
    let how = ResolveFlags::empty();
    let seen = resolve(directory, name, OFlags::PATH | OFlags::NOFOLLOW, how, patience)?;
    let seen_stat = stat_descriptor(seen.as_fd())?;
    match rule {
        LinkRule::None => {
            let kind = FileType::from_raw_mode(u32::from(seen_stat.stx_mode));
            if kind == FileType::Symlink {
                return Err(Errno::LOOP.into());
            }
            // A link that takes the name's place meanwhile fails in the open: ELOOP, or ENOTDIR with O_DIRECTORY.
            resolve(directory, name, flags | OFlags::NOFOLLOW, how, patience).and_then(|opened| {
                let stat = stat_descriptor(opened.as_fd())?;
                match FileType::from_raw_mode(u32::from(stat.stx_mode)) {
                    FileType::Symlink => Err(Errno::LOOP.into()),
                    _ => Ok(opened),
                }
            })
        }
        LinkRule::SameOwner => {
            let opened = resolve(directory, name, flags, how, patience)?;
            if stat_descriptor(opened.as_fd())?.stx_uid != seen_stat.stx_uid {
                return Err(Errno::LOOP.into());
            }
            Ok(opened)
        }
    }
}
