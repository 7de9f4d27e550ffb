//! Changes that requests ask for, as jobs of the pool. Everything here blocks.
//!
//! Content is written to a file beside its place and renamed: whoever opens the name gets the old file or the new one,
//! whole. Trees are copied the same way, and what they replace is put aside first and removed when all has gone well.
//! Whatever is made on the way is removed when something fails.

mod tree;

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::io::Errno;

use super::TemporaryFile;
use crate::base::level::Level;
use crate::http::change::{
    Change, ChangeFailure, Changed, Content, Depth, Put, Transfer, UNFINISHED, without_slash,
};
use crate::message::Status;

/// How many changes this process has made. What was known of files before the last of them may be wrong.
static MADE: AtomicU64 = AtomicU64::new(0);

/// See [`MADE`].
pub fn made() -> u64 {
    MADE.load(Ordering::Acquire)
}

/// Names tried for what is being made.
const NAME_TRIES: u32 = 16;

/// Makes a change; `body` is the file with the request's body, where there is one.
pub fn run(change: Change, body: Option<TemporaryFile>) -> Result<Changed, ChangeFailure> {
    let result = match change {
        Change::Put(order) => put(order, body),
        Change::Claim { path, mode } => claim(&path, mode),
        Change::Delete { path, depth } => delete(&path, depth),
        Change::MakeFolder { path, mode } => make_folder(&path, mode),
        Change::Transfer(order) => transfer(&order),
    };
    MADE.fetch_add(1, Ordering::Release);
    result
}

/// The result of a job that panicked.
pub fn broken() -> ChangeFailure {
    refuse(Status::INTERNAL_SERVER_ERROR, Level::Alert, "a change of files broke off".to_owned())
}

fn refuse(status: Status, level: Level, message: String) -> ChangeFailure {
    ChangeFailure { status, level, message }
}

/// A failed call as nginx's dav module answers it: `missing` is the status where a part of the path is not there.
fn failed(missing: Status, call: &str, path: &Path, error: &io::Error) -> ChangeFailure {
    let (status, level) = match Errno::from_io_error(error) {
        Some(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => (missing, Level::Error),
        Some(Errno::ACCESS | Errno::PERM) => (Status::FORBIDDEN, Level::Error),
        Some(Errno::EXIST) => (Status::METHOD_NOT_ALLOWED, Level::Error),
        Some(Errno::NOSPC | Errno::DQUOT) => (Status::INSUFFICIENT_STORAGE, Level::Crit),
        _ => (Status::INTERNAL_SERVER_ERROR, Level::Crit),
    };
    refuse(status, level, told(call, path, error))
}

/// The same where nginx answers 500 whatever it was, but for a full disk.
fn failed_to_write(call: &str, path: &Path, error: &io::Error) -> ChangeFailure {
    let status = match Errno::from_io_error(error) {
        Some(Errno::NOSPC | Errno::DQUOT) => Status::INSUFFICIENT_STORAGE,
        _ => Status::INTERNAL_SERVER_ERROR,
    };
    refuse(status, Level::Crit, told(call, path, error))
}

fn told(call: &str, path: &Path, error: &io::Error) -> String {
    let text = error.to_string();
    let reason = text.split(" (os error").next().unwrap_or(&text);
    let number = error.raw_os_error().unwrap_or(0);
    format!("{call} \"{}\" failed ({number}: {reason})", path.display())
}

fn path_of(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// The path without the slash that says that it is a folder, and whether there was one.
fn split_slash(bytes: &[u8]) -> (&Path, bool) {
    (path_of(without_slash(bytes)), bytes.ends_with(b"/"))
}

fn parent_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// A name that is not there, in the folder of `path`.
fn name_beside(path: &Path) -> PathBuf {
    let mut name = UNFINISHED.to_vec();
    name.extend_from_slice(format!("{:016x}", fastrand::u64(..)).as_bytes());
    parent_of(path).join(OsStr::from_bytes(&name))
}

/// A file that is being made beside its place; removed when it is dropped before it has its name.
struct Unfinished {
    file: File,
    path: PathBuf,
    named: bool,
}

impl Unfinished {
    fn beside(path: &Path) -> io::Result<Unfinished> {
        for _ in 0..NAME_TRIES {
            let path = name_beside(path);
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => return Ok(Unfinished { file, path, named: false }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Gives it its mode, its time and its name.
    fn finish(mut self, path: &Path, mode: u32, modified: Option<SystemTime>) -> io::Result<()> {
        self.file.set_permissions(Permissions::from_mode(mode))?;
        if let Some(modified) = modified {
            self.file.set_modified(modified)?;
        }
        fs::rename(&self.path, path)?;
        self.named = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.named {
            // Whoever asked is told what failed before this.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn time_of(seconds: i64) -> SystemTime {
    let offset = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { UNIX_EPOCH - offset } else { UNIX_EPOCH + offset }
}

fn make_folders(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(parent_of(path))
}

fn put(order: Put, body: Option<TemporaryFile>) -> Result<Changed, ChangeFailure> {
    let path = path_of(&order.path);
    let changed = match fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            let message = format!("\"{}\" could not be created (21: Is a directory)", path.display());
            return Err(refuse(Status::CONFLICT, Level::Error, message));
        }
        Ok(_) => Changed::Done,
        Err(_) => Changed::Created,
    };
    if let Some(mode) = order.folders
        && let Err(error) = make_folders(path, mode)
    {
        return Err(failed_to_write("mkdir()", parent_of(path), &error));
    }
    let modified = order.modified.map(time_of);
    let result = match (&order.content, body) {
        (Content::Memory(bytes), _) => put_bytes(path, bytes, order.mode, modified),
        (Content::BodyFile, Some(body)) => put_file(path, body, order.mode, modified),
        (Content::BodyFile, None) => Err(io::ErrorKind::NotFound.into()),
    };
    result.map(|()| changed).map_err(|error| failed_to_write("rename() to", path, &error))
}

fn put_bytes(path: &Path, bytes: &[u8], mode: u32, modified: Option<SystemTime>) -> io::Result<()> {
    let mut unfinished = Unfinished::beside(path)?;
    unfinished.file.write_all(bytes)?;
    unfinished.finish(path, mode, modified)
}

/// Renames the file of the body, or copies it from another file system.
fn put_file(path: &Path, mut body: TemporaryFile, mode: u32, modified: Option<SystemTime>) -> io::Result<()> {
    let file = File::from(body.descriptor().try_clone()?);
    file.set_permissions(Permissions::from_mode(mode))?;
    if let Some(modified) = modified {
        file.set_modified(modified)?;
    }
    match fs::rename(body.path(), path) {
        Ok(()) => {
            body.keep();
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let mut unfinished = Unfinished::beside(path)?;
            // Opened anew: the body was written by position, from the descriptor's beginning.
            io::copy(&mut File::open(body.path())?, &mut unfinished.file)?;
            unfinished.finish(path, mode, modified)
        }
        Err(error) => Err(error),
    }
}

fn claim(path: &[u8], mode: u32) -> Result<Changed, ChangeFailure> {
    let (path, is_folder) = split_slash(path);
    match fs::metadata(path) {
        Ok(found) if found.is_dir() || !is_folder => return Ok(Changed::Done),
        _ if is_folder => {
            let message = format!("\"{}\" is no collection", path.display());
            return Err(refuse(Status::CONFLICT, Level::Error, message));
        }
        _ => {}
    }
    match OpenOptions::new().write(true).create_new(true).mode(mode).open(path) {
        Ok(_) => Ok(Changed::Created),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Changed::Done),
        Err(error) => Err(failed(Status::CONFLICT, "open()", path, &error)),
    }
}

fn make_folder(path: &[u8], mode: u32) -> Result<Changed, ChangeFailure> {
    let (path, _) = split_slash(path);
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => Ok(Changed::Created),
        Err(error) => Err(failed(Status::CONFLICT, "mkdir()", path, &error)),
    }
}

/// What is at a path, a link as itself; a path with a slash at its end that leads to a folder by a link is that link.
fn look(path: &Path, wants_folder: bool) -> io::Result<Metadata> {
    let found = fs::symlink_metadata(path)?;
    let leads_to_folder =
        || found.is_dir() || found.is_symlink() && fs::metadata(path).is_ok_and(|target| target.is_dir());
    if wants_folder && !leads_to_folder() {
        return Err(Errno::NOTDIR.into());
    }
    Ok(found)
}

fn delete(bytes: &[u8], depth: Depth) -> Result<Changed, ChangeFailure> {
    let (path, wants_folder) = split_slash(bytes);
    let found = look(path, wants_folder).map_err(|error| {
        let status = match Errno::from_io_error(&error) {
            Some(Errno::NOTDIR) => Status::CONFLICT,
            _ => Status::NOT_FOUND,
        };
        failed(status, "lstat()", path_of(bytes), &error)
    })?;
    let (is_right, message) = if found.is_dir() {
        if !wants_folder {
            let message = format!("DELETE \"{}\" failed (21: Is a directory)", path.display());
            return Err(refuse(Status::CONFLICT, Level::Error, message));
        }
        (depth == Depth::Infinity, "\"Depth\" header must be infinity")
    } else {
        let is_right = matches!(depth, Depth::Zero | Depth::Infinity);
        (is_right, "\"Depth\" header must be 0 or infinity")
    };
    if !is_right {
        return Err(refuse(Status::BAD_REQUEST, Level::Error, message.to_owned()));
    }
    remove(path, &found).map(|()| Changed::Done)
}

/// Removes what was found at a path.
fn remove(path: &Path, found: &Metadata) -> Result<(), ChangeFailure> {
    let (call, result) =
        if found.is_dir() { ("rmdir()", tree::remove(path)) } else { ("unlink()", fs::remove_file(path)) };
    result.map_err(|error| failed(Status::NOT_FOUND, call, path, &error))
}

fn transfer(order: &Transfer) -> Result<Changed, ChangeFailure> {
    let (from, from_folder) = split_slash(&order.from);
    let (to, to_folder) = split_slash(&order.to);
    let there = match fs::symlink_metadata(to) {
        Ok(found) => Some(found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(Status::NOT_FOUND, "lstat()", to, &error)),
    };
    if let Some(there) = &there {
        if there.is_dir() && !to_folder {
            let message = format!(
                "\"{}\" could not be put in the place of collection \"{}\"",
                from.display(),
                to.display()
            );
            return Err(refuse(Status::CONFLICT, Level::Error, message));
        }
        if !order.overwrite {
            let message = format!("\"{}\" could not be created (17: File exists)", to.display());
            return Err(refuse(Status::PRECONDITION_FAILED, Level::Error, message));
        }
    }
    let found = look(from, from_folder)
        .map_err(|error| failed(Status::NOT_FOUND, "lstat()", path_of(&order.from), &error))?;
    // A copy is of what a link leads to, a move of the link.
    let source = match found.is_symlink() && !order.moves {
        true => fs::metadata(from).map_err(|error| failed(Status::NOT_FOUND, "stat()", from, &error))?,
        false => found,
    };
    if source.is_dir() && !from_folder {
        let message = format!("\"{}\" is collection", from.display());
        return Err(refuse(Status::BAD_REQUEST, Level::Error, message));
    }
    let is_itself = there.as_ref().is_some_and(|there| same(there, &source));
    if is_itself && order.moves && !source.is_dir() {
        return Ok(Changed::Done);
    }
    if is_itself || source.is_dir() && overlap(from, to) {
        let message = format!("\"{}\" and \"{}\" lie in one another", from.display(), to.display());
        return Err(refuse(Status::FORBIDDEN, Level::Error, message));
    }
    if from_folder {
        let made = if order.moves {
            move_folder(from, to, there.is_some())
        } else {
            copy_folder(order, there.is_some())
        };
        return made.map(|()| Changed::Created);
    }
    let (call, result) = match order.moves {
        true => ("rename() to", move_file(from, to, order.folders)),
        false => ("copy to", copy_file(from, to, there.as_ref())),
    };
    result.map(|()| Changed::Done).map_err(|error| failed_to_write(call, to, &error))
}

fn same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Whether one of the paths leads into the other, links followed.
fn overlap(from: &Path, to: &Path) -> bool {
    let real = |path: &Path| {
        fs::canonicalize(path).or_else(|_| {
            let parent = fs::canonicalize(parent_of(path))?;
            Ok::<_, io::Error>(path.file_name().map_or(parent.clone(), |name| parent.join(name)))
        })
    };
    match (real(from), real(to)) {
        (Ok(from), Ok(to)) => from.starts_with(&to) || to.starts_with(&from),
        // What has no place can't be written to either.
        _ => from.starts_with(to) || to.starts_with(from),
    }
}

fn move_file(from: &Path, to: &Path, folders: u32) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_folders(to, folders)?;
            fs::rename(from, to)
        }
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            copy_file(from, to, None)?;
            fs::remove_file(from)
        }
        result => result,
    }
}

/// Copies a regular file with its time and its mode; a file that it replaces leaves it its own mode, as with nginx.
fn copy_file(from: &Path, to: &Path, replaced: Option<&Metadata>) -> io::Result<()> {
    let mut source = tree::open_regular(from)?;
    let found = source.metadata()?;
    let mut unfinished = Unfinished::beside(to)?;
    io::copy(&mut source, &mut unfinished.file)?;
    let mode = replaced.filter(|replaced| replaced.is_file()).unwrap_or(&found).mode();
    unfinished.finish(to, mode & 0o777, found.modified().ok())
}

fn move_folder(from: &Path, to: &Path, replaces: bool) -> Result<(), ChangeFailure> {
    let aside = Aside::put(to, replaces)?;
    match fs::rename(from, to) {
        Ok(()) => aside.forget(),
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let copy = tree::copy_beside(from, to, true).map_err(|error| tree_failed(to, &error))?;
            copy.rename(to).map_err(|error| tree_failed(to, &error))?;
            aside.forget()?;
            tree::remove(from).map_err(|error| failed(Status::NOT_FOUND, "rmdir()", from, &error))
        }
        Err(error) => Err(tree_failed(to, &error)),
    }
}

fn copy_folder(order: &Transfer, replaces: bool) -> Result<(), ChangeFailure> {
    let (from, _) = split_slash(&order.from);
    let (to, _) = split_slash(&order.to);
    let copy = tree::copy_beside(from, to, order.deep).map_err(|error| tree_failed(to, &error))?;
    let aside = Aside::put(to, replaces)?;
    copy.rename(to).map_err(|error| tree_failed(to, &error))?;
    aside.forget()
}

fn tree_failed(to: &Path, error: &io::Error) -> ChangeFailure {
    failed(Status::NOT_FOUND, "mkdir()", to, error)
}

/// What was in the place of something new: back in its place when this is dropped before it was forgotten.
struct Aside {
    place: PathBuf,
    name: Option<PathBuf>,
}

impl Aside {
    fn put(place: &Path, is_there: bool) -> Result<Aside, ChangeFailure> {
        let mut aside = Aside { place: place.to_owned(), name: None };
        if is_there {
            let name = name_beside(place);
            fs::rename(place, &name).map_err(|error| failed(Status::NOT_FOUND, "rename()", place, &error))?;
            aside.name = Some(name);
        }
        Ok(aside)
    }

    /// Removes it: something new is in its place.
    fn forget(mut self) -> Result<(), ChangeFailure> {
        let Some(name) = self.name.take() else { return Ok(()) };
        match fs::symlink_metadata(&name) {
            Ok(found) => remove(&name, &found),
            Err(_) => Ok(()),
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // The failure that led here is told; a second one would not help.
            let _ = fs::rename(name, &self.place);
        }
    }
}

#[cfg(test)]
mod tests;
