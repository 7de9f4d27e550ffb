//! Trees of folders: removed and copied by descriptors, so that no link that somebody puts in the way meanwhile leads
//! out of them.

use std::ffi::CStr;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{NAME_TRIES, name_beside};

/// How many folders may lie in one another: each takes up to four descriptors while what is in it is dealt with.
const DEEPEST: u32 = 64;

/// How often a folder is gone through that is filled while it is emptied.
const PASSES: u32 = 8;

fn open_folder(at: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(at, name, flags, Mode::empty())?)
}

fn as_c(path: &Path) -> io::Result<std::ffi::CString> {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Removes a folder and all that is in it. Links are removed, never followed.
pub fn remove(path: &Path) -> io::Result<()> {
    remove_folder(CWD, &as_c(path)?, 0)
}

fn remove_folder(at: BorrowedFd<'_>, name: &CStr, depth: u32) -> io::Result<()> {
    if depth == DEEPEST {
        return Err(Errno::OVERFLOW.into());
    }
    let folder = open_folder(at, name)?;
    let mut result = Ok(());
    for _ in 0..PASSES {
        empty(&folder, depth)?;
        result = rustix::fs::unlinkat(at, name, AtFlags::REMOVEDIR);
        if result != Err(Errno::NOTEMPTY) {
            break;
        }
    }
    Ok(result?)
}

fn empty(folder: &OwnedFd, depth: u32) -> io::Result<()> {
    let mut names = Dir::read_from(folder)?;
    while let Some(entry) = names.read() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let removed = match entry.file_type() {
            FileType::Directory => Err(Errno::ISDIR),
            _ => rustix::fs::unlinkat(folder, name, AtFlags::empty()),
        };
        match removed {
            Err(Errno::ISDIR) => remove_folder(folder.as_fd(), name, depth + 1)?,
            // Somebody else was faster.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Opens a regular file, links followed: nothing else can be copied, and a FIFO does not hang the open.
pub fn open_regular(path: &Path) -> io::Result<File> {
    open_regular_at(CWD, &as_c(path)?)
}

fn open_regular_at(at: BorrowedFd<'_>, name: &CStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(at, name, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(file)
}

/// A tree that is being made beside its place; removed when it is dropped before it has its name.
pub struct UnfinishedTree {
    path: PathBuf,
    named: bool,
}

impl UnfinishedTree {
    /// Gives it its name, which must be free.
    pub fn rename(mut self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to)?;
        self.named = true;
        Ok(())
    }
}

impl Drop for UnfinishedTree {
    fn drop(&mut self) {
        if !self.named {
            // Whoever asked is told what failed before this.
            let _ = remove(&self.path);
        }
    }
}

/// Copies a folder, if `deep` with all that is in it, to a name beside `to`. As with nginx a link to a file is copied as
/// that file; what else is no file or folder is left out, and so are links to folders.
pub fn copy_beside(from: &Path, to: &Path, deep: bool) -> io::Result<UnfinishedTree> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let source = rustix::fs::openat(CWD, from, flags, Mode::empty())?;
    let mut tree = None;
    for _ in 0..NAME_TRIES {
        let path = name_beside(to);
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => {
                tree = Some(UnfinishedTree { path, named: false });
                break;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    let Some(tree) = tree else { return Err(io::ErrorKind::AlreadyExists.into()) };
    let target = open_folder(CWD, &as_c(&tree.path)?)?;
    let made = File::from(target.try_clone()?).metadata()?;
    Copying { root: (made.dev(), made.ino()), deep }.folder(source, target, 0)?;
    Ok(tree)
}

struct Copying {
    /// Device and inode of the copy: where it lies within what is copied, it is not copied itself.
    root: (u64, u64),
    deep: bool,
}

impl Copying {
    /// Copies what is in a folder, then gives the copy its mode and time.
    fn folder(&self, source: OwnedFd, target: OwnedFd, depth: u32) -> io::Result<()> {
        let source = File::from(source);
        let found = source.metadata()?;
        if self.deep {
            let mut names = Dir::read_from(&source)?;
            while let Some(entry) = names.read() {
                let entry = entry?;
                let name = entry.file_name();
                if !matches!(name.to_bytes(), b"." | b"..") {
                    self.entry(source.as_fd(), target.as_fd(), name, depth)?;
                }
            }
        }
        let target = File::from(target);
        target.set_permissions(Permissions::from_mode(found.mode() & 0o777))?;
        target.set_modified(found.modified()?)
    }

    fn entry(
        &self,
        source: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        name: &CStr,
        depth: u32,
    ) -> io::Result<()> {
        let stat = match rustix::fs::statat(source, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if (stat.st_dev, stat.st_ino) == self.root => Ok(()),
            // Before it is made: a copy that is broken off must not be too deep to be removed.
            FileType::Directory if depth + 1 == DEEPEST => Err(Errno::OVERFLOW.into()),
            FileType::Directory => {
                let from = open_folder(source, name)?;
                rustix::fs::mkdirat(target, name, Mode::RWXU)?;
                self.folder(from, open_folder(target, name)?, depth + 1)
            }
            FileType::RegularFile => copy_entry(open_regular_at(source, name)?, target, name),
            FileType::Symlink => match open_regular_at(source, name) {
                Ok(file) => copy_entry(file, target, name),
                Err(_) => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

fn copy_entry(mut source: File, target: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut copy = File::from(rustix::fs::openat(target, name, flags, Mode::RUSR | Mode::WUSR)?);
    io::copy(&mut source, &mut copy)?;
    let found = source.metadata()?;
    copy.set_permissions(Permissions::from_mode(found.mode() & 0o777))?;
    copy.set_modified(found.modified()?)
}
