//! Temporary files for bodies that outgrow their buffers (`client_body_temp_path` and its relatives).
//!
//! Creating a file may wait for the file system's journal, so it is a job of the pool. Writing goes to the page cache;
//! [`TemporaryFile::write_now`] does it on the loop in pieces of at most [`WRITE_NOW_BYTES`], whose cost is that of a
//! copy, and whoever expects throttling (bodies far larger than memory) submits writes to the pool
//! (`Files::write`) instead. Both may be mixed: each write names its offset.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;

use super::calls;

/// The most that is written on the loop in one call.
pub const WRITE_NOW_BYTES: usize = 64 * 1024;

/// Digits of a file's name; three levels of at most three digits leave one for the name itself to differ by.
const NAME_DIGITS: usize = 10;

/// Names tried before a folder counts as full of foreign files.
const NAME_TRIES: u32 = 64;

/// A folder for temporary files with its levels of subfolders, shared by all workers.
#[derive(Debug)]
pub struct TemporaryFolder {
    path: PathBuf,
    levels: [u8; 3],
    next: AtomicU64,
}

impl TemporaryFolder {
    /// `levels` are the digits of each level of subfolders as in `client_body_temp_path /spool 1 2;`, 0 for none, each
    /// cut to 3. `first` is where numbering begins: a random number, so that processes rarely meet.
    pub fn new(path: PathBuf, levels: [u8; 3], first: u64) -> TemporaryFolder {
        TemporaryFolder { path, levels: levels.map(|digits| digits.min(3)), next: AtomicU64::new(first) }
    }

    /// Creates an empty file, readable and writable by its owner alone (0600), and the folders that it needs (0700).
    /// Blocks: run it in the pool.
    pub fn create(&self) -> io::Result<TemporaryFile> {
        for _ in 0..NAME_TRIES {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let path = self.place(number);
            match calls::create(&path) {
                Ok(descriptor) => return Ok(TemporaryFile::new(descriptor, path)),
                Err(Errno::EXIST) => {}
                Err(Errno::NOENT) => {
                    let parent = path.parent().unwrap_or(&self.path);
                    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
                    match calls::create(&path) {
                        Ok(descriptor) => return Ok(TemporaryFile::new(descriptor, path)),
                        Err(Errno::EXIST) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// `/spool/7/45/0000123457` for number 123457 and levels 1 2: levels are cut from the name's end, where numbers
    /// differ most, as nginx does.
    fn place(&self, number: u64) -> PathBuf {
        let name = format!("{:0width$}", number % 10u64.pow(NAME_DIGITS as u32), width = NAME_DIGITS);
        let mut path = self.path.clone();
        let mut end = name.len();
        for digits in self.levels.into_iter().filter(|&digits| digits > 0) {
            let start = end - usize::from(digits);
            path.push(&name[start..end]);
            end = start;
        }
        path.push(name);
        path
    }
}

/// A temporary file; its name is removed when it is dropped, unless it was kept.
#[derive(Debug)]
pub struct TemporaryFile {
    descriptor: Arc<OwnedFd>,
    path: PathBuf,
    keep: bool,
}

impl TemporaryFile {
    fn new(descriptor: OwnedFd, path: PathBuf) -> TemporaryFile {
        TemporaryFile { descriptor: Arc::new(descriptor), path, keep: false }
    }

    /// For jobs and for `sending::send_descriptor`.
    pub fn descriptor(&self) -> &Arc<OwnedFd> {
        &self.descriptor
    }

    /// The file's name (`$request_body_file`).
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same file for somebody else, who reads it by its descriptor; its name is this value's to remove.
    pub fn share(&self) -> TemporaryFile {
        TemporaryFile { descriptor: Arc::clone(&self.descriptor), path: self.path.clone(), keep: true }
    }

    /// The name outlives this value (`client_body_in_file_only on`).
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Writes up to [`WRITE_NOW_BYTES`] of `bytes` at `offset` from the loop; returns how many were written.
    pub fn write_now(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(WRITE_NOW_BYTES)];
        Ok(calls::write(&self.descriptor, piece, offset)?)
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if !self.keep {
            // Somebody else may have cleaned the folder; there is nobody to tell.
            let _ = rustix::fs::unlink(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn levels_are_cut_from_the_end_of_the_name() {
        let folder = TemporaryFolder::new("/spool".into(), [1, 2, 0], 0);
        assert_eq!(folder.place(123_457), Path::new("/spool/7/45/0000123457"));
        let flat = TemporaryFolder::new("/spool".into(), [0; 3], 0);
        assert_eq!(flat.place(10_000_000_001), Path::new("/spool/0000000001"));
        let deep = TemporaryFolder::new("/spool".into(), [9, 3, 3], 0);
        assert_eq!(deep.place(1), Path::new("/spool/001/000/000/0000000001"));
    }

    #[test]
    fn a_file_is_private_and_goes_with_its_value() {
        let dir = tempfile::tempdir().unwrap();
        let folder = TemporaryFolder::new(dir.path().join("body"), [1, 2, 0], 7);
        let file = folder.create().unwrap();
        let path = file.path().to_owned();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mode = std::fs::metadata(path.parent().unwrap()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(file.write_now(0, &[b'x'; WRITE_NOW_BYTES + 1]).unwrap(), WRITE_NOW_BYTES);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), WRITE_NOW_BYTES as u64);
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_kept_file_stays_and_a_taken_name_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let first = TemporaryFolder::new(dir.path().into(), [0; 3], 5);
        let mut kept = first.create().unwrap();
        kept.keep();
        let path = kept.path().to_owned();
        drop(kept);
        assert!(path.exists());
        let second = TemporaryFolder::new(dir.path().into(), [0; 3], 5).create().unwrap();
        assert_ne!(second.path(), path);
    }
}
