//! Listing a directory, as a job of the pool.

use std::ffi::CStr;

use rustix::fs::{self, AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::opening::{climbs_out, failure, kind_of};
use crate::http::file::{DirectoryEntry, DirectoryListing, FileCall, FileFailure, FileKind};

/// The most names that a listing holds: at some 100 bytes each, 10 MB for the time of one response.
pub const MAX_DIRECTORY_ENTRIES: usize = 100_000;

/// Reads at most `limit` names (cut to [`MAX_DIRECTORY_ENTRIES`]) with what they lead to. As in nginx's autoindex, a
/// link that leads nowhere is listed as itself, and a name that may not be looked at is left out. Hidden names are the
/// caller's to drop.
pub fn read_directory(path: &CStr, root_len: u32, limit: usize) -> Result<DirectoryListing, FileFailure> {
    let limit = limit.min(MAX_DIRECTORY_ENTRIES);
    if climbs_out(path.to_bytes(), root_len as usize) {
        return Err(failure(FileCall::OpenDirectory, Errno::XDEV));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let directory = fs::openat(CWD, path, flags, Mode::empty())
        .map_err(|errno| failure(FileCall::OpenDirectory, errno))?;
    let mut names =
        fs::Dir::read_from(&directory).map_err(|errno| failure(FileCall::OpenDirectory, errno))?;
    let mut listing = DirectoryListing::default();
    while let Some(next) = names.read() {
        let next = next.map_err(|errno| failure(FileCall::ReadDirectory, errno))?;
        let name = next.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if listing.entries.len() == limit {
            listing.truncated = true;
            break;
        }
        let look = |flags| fs::statx(&directory, name, flags, StatxFlags::BASIC_STATS);
        let stat = match look(AtFlags::empty()) {
            Err(Errno::NOENT | Errno::LOOP) => look(AtFlags::SYMLINK_NOFOLLOW),
            other => other,
        };
        // Gone since its name was read, or not ours to look at: the others are still worth listing.
        let Ok(stat) = stat else { continue };
        listing.entries.push(DirectoryEntry {
            name: name.to_bytes().to_vec(),
            kind: kind_of(&stat),
            size: if kind_of(&stat) == FileKind::File { stat.stx_size } else { 0 },
            modified_secs: stat.stx_mtime.tv_sec,
        });
    }
    Ok(listing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;

    fn list(path: &std::path::Path, limit: usize) -> Result<DirectoryListing, FileFailure> {
        read_directory(&CString::new(path.as_os_str().as_bytes()).unwrap(), 0, limit)
    }

    #[test]
    fn links_are_listed_as_what_they_lead_to() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), b"12345").unwrap();
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        std::os::unix::fs::symlink("folder", dir.path().join("to_folder")).unwrap();
        std::os::unix::fs::symlink("file", dir.path().join("to_file")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("dangling")).unwrap();
        let mut entries = list(dir.path(), 100).unwrap().entries;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let seen: Vec<_> =
            entries.iter().map(|e| (String::from_utf8_lossy(&e.name).into_owned(), e.kind, e.size)).collect();
        assert_eq!(
            seen,
            [
                ("dangling".into(), FileKind::Other, 0),
                ("file".into(), FileKind::File, 5),
                ("folder".into(), FileKind::Directory, 0),
                ("to_file".into(), FileKind::File, 5),
                ("to_folder".into(), FileKind::Directory, 0),
            ]
        );
    }

    #[test]
    fn a_listing_stops_at_its_limit_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..5 {
            std::fs::write(dir.path().join(n.to_string()), b"").unwrap();
        }
        let listing = list(dir.path(), 3).unwrap();
        assert_eq!((listing.entries.len(), listing.truncated), (3, true));
        let listing = list(dir.path(), 5).unwrap();
        assert_eq!((listing.entries.len(), listing.truncated), (5, false));
    }

    #[test]
    fn what_is_no_directory_fails_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let missing = list(&dir.path().join("missing"), 3).unwrap_err();
        assert_eq!((missing.call.name(), missing.errno), ("opendir()", 2));
        std::fs::write(dir.path().join("file"), b"").unwrap();
        assert_eq!(list(&dir.path().join("file"), 3).unwrap_err().errno, 20);
    }
}
