//! What the engine asks to be changed in the file system, and what it is told: no descriptor and no system call appears
//! here.
//!
//! The shell answers one [`Change`] with one result. Nobody ever sees half of what a change puts somewhere: it is made
//! under another name in the same folder, and renamed.

use crate::base::level::Level;
use crate::message::Status;

/// What names of files that are being made begin with. They are nobody's to see.
pub const UNFINISHED: &[u8] = b".thalweg-";

/// A change. Paths are absolute; that of a folder may end in a slash, which only folders can.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// Give a file this content.
    Put(Put),
    /// Make an empty file where nothing is.
    Claim {
        /// The file's path.
        path: Vec<u8>,
        /// Its mode.
        mode: u32,
    },
    /// Remove a file, or a folder with all that is in it. Links are removed, never followed.
    Delete {
        /// What to remove; that of a folder ends in a slash.
        path: Vec<u8>,
        /// How much of it the client means.
        depth: Depth,
    },
    /// Make a folder.
    MakeFolder {
        /// Its path, with a slash at its end.
        path: Vec<u8>,
        /// Its mode.
        mode: u32,
    },
    /// Copy or move.
    Transfer(Transfer),
}

/// See [`Change::Put`].
#[derive(Debug, PartialEq, Eq)]
pub struct Put {
    /// The file's path.
    pub path: Vec<u8>,
    /// The content.
    pub content: Content,
    /// The file's time in seconds since 1970, where it is told.
    pub modified: Option<i64>,
    /// The file's mode.
    pub mode: u32,
    /// The mode of folders that are made for it; `None` if they must be there.
    pub folders: Option<u32>,
}

/// Where new content is.
#[derive(Debug, PartialEq, Eq)]
pub enum Content {
    /// Here.
    Memory(Vec<u8>),
    /// In the file of the request's body, which the shell has.
    BodyFile,
}

/// See [`Change::Transfer`].
#[derive(Debug, PartialEq, Eq)]
pub struct Transfer {
    /// From where; a slash at its end says that it is a folder, and then `to` has one too.
    pub from: Vec<u8>,
    /// To where.
    pub to: Vec<u8>,
    /// Whether `from` ceases to be.
    pub moves: bool,
    /// Whether what is at `to` may be replaced.
    pub overwrite: bool,
    /// Whether a folder is copied with what is in it.
    pub deep: bool,
    /// The mode of folders that are made above the destination of a file that is moved.
    pub folders: u32,
}

/// The `Depth` field (RFC 4918 section 10.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// `0`
    Zero,
    /// `1`
    One,
    /// `infinity`
    Infinity,
    /// Anything else.
    Invalid,
}

/// What a change has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// What was not there is there now.
    Created,
    /// What was there was changed, or is gone.
    Done,
}

/// A change that was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeFailure {
    /// The status for the client.
    pub status: Status,
    /// How bad it is.
    pub level: Level,
    /// The line for the error log.
    pub message: String,
}

impl ChangeFailure {
    /// The pool has too much to do.
    pub fn busy() -> ChangeFailure {
        ChangeFailure {
            status: Status::SERVICE_UNAVAILABLE,
            level: Level::Crit,
            message: "too much is to be done with files".to_owned(),
        }
    }
}

/// The mode of folders that go with files of this mode: who may read may also enter.
pub fn folder_mode(mode: u32) -> u32 {
    mode | (mode & 0o444) >> 2
}

/// A path without the slashes at its end; that of the root keeps one.
pub fn without_slash(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(1, |last| last + 1);
    &path[..end.min(path.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_read_may_enter() {
        assert_eq!((folder_mode(0o600), folder_mode(0o664), folder_mode(0o640)), (0o700, 0o775, 0o750));
    }

    #[test]
    fn slashes_at_the_end_go() {
        for (path, plain) in [("/a/b//", "/a/b"), ("/a", "/a"), ("/", "/"), ("///", "/"), ("", "")] {
            assert_eq!(without_slash(path.as_bytes()), plain.as_bytes());
        }
    }
}
