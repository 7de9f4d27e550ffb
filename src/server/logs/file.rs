//! One open log file, and writing to it without ever waiting for a reader.
//!
//! Three kinds of files, three ways:
//!
//! - Regular files: a plain write. It goes to the page cache and is accepted on the loop, as in nginx. Descriptors are
//!   opened with `O_APPEND`, and whole lines go out in one write: the kernel holds the inode's lock over it, so that
//!   lines of several workers never mix (a write that the disk cuts short is the exception).
//! - Pipes and terminals that we open by a path (also `/dev/stdout`, whose open gives an open file description of its
//!   own): `O_NONBLOCK`, in pieces of whole lines of up to `PIPE_BUF`, which a pipe takes whole or not at all. A reader
//!   that sleeps costs lines, counted, never the loop.
//! - Standard error is shared with whoever started us, so that its flags are not ours to change. A pipe or a terminal is
//!   opened anew through `/proc/self/fd`; where that is refused, each write asks `poll` first and is small enough to
//!   fit what `poll` promised. A socket is written with `MSG_DONTWAIT`.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};
use rustix::net::SendFlags;

/// What a pipe takes whole or not at all, in bytes (`PIPE_BUF`).
const PIPE_PIECE: usize = 4096;
/// What a terminal takes when `poll` calls it writable, in bytes.
const TERMINAL_PIECE: usize = 256;

/// User and group that a file made by a reopening belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOwner {
    pub user: u32,
    pub group: u32,
}

/// An open log file. Workers share it: all of them append.
#[derive(Debug)]
pub struct LogFile {
    descriptor: OwnedFd,
    way: Way,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Writes don't wait: a regular file.
    Plain,
    /// `O_NONBLOCK` is set on an open file description of our own.
    NonBlocking,
    /// Shared with others: ask `poll`, then write so many bytes at most.
    Polled(usize),
    Socket,
}

/// Device and inode: tells whether a path still names the file that is open.
pub type FileIdentity = (u64, u64);

impl LogFile {
    /// Opens `path` for appending, making it with mode 0644. A file that did not exist is given to `owner`; one that
    /// did is left as it is (root never changes the owner of a file that somebody else put, or linked, there).
    pub fn open(path: &[u8], owner: Option<LogOwner>) -> io::Result<LogFile> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let mode = Mode::from_raw_mode(0o644);
        let path = Path::new(OsStr::from_bytes(path));
        if let Some(owner) = owner
            && let Ok(made) = rustix::fs::open(path, flags | OFlags::CREATE | OFlags::EXCL, mode)
        {
            let (user, group) = (Uid::from_raw(owner.user), Gid::from_raw(owner.group));
            rustix::fs::fchown(&made, Some(user), Some(group))?;
            return Ok(LogFile { descriptor: made, way: Way::Plain });
        }
        let descriptor = match rustix::fs::open(path, flags | OFlags::CREATE, mode) {
            // A FIFO that nobody reads yet: held open for reading too, it keeps what fits until somebody does.
            Err(rustix::io::Errno::NXIO) => {
                let both = flags.difference(OFlags::WRONLY) | OFlags::RDWR;
                rustix::fs::open(path, both, mode)?
            }
            other => other?,
        };
        let way = match file_type(descriptor.as_fd())? {
            FileType::RegularFile => Way::Plain,
            _ => Way::NonBlocking,
        };
        Ok(LogFile { descriptor, way })
    }

    /// A log on a descriptor that others share, as standard error.
    pub fn shared(descriptor: BorrowedFd<'_>) -> io::Result<LogFile> {
        let own = descriptor.try_clone_to_owned()?;
        let piece = match file_type(descriptor)? {
            // Not opened anew: others go on writing at the shared offset.
            FileType::RegularFile => return Ok(LogFile { descriptor: own, way: Way::Plain }),
            FileType::Socket => return Ok(LogFile { descriptor: own, way: Way::Socket }),
            FileType::Fifo => PIPE_PIECE,
            _ => TERMINAL_PIECE,
        };
        let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(descriptor) => Ok(LogFile { descriptor, way: Way::NonBlocking }),
            Err(_) => Ok(LogFile { descriptor: own, way: Way::Polled(piece) }),
        }
    }

    /// The process's standard error.
    pub fn stderr() -> io::Result<LogFile> {
        LogFile::shared(io::stderr().as_fd())
    }

    /// Which file this is.
    pub fn identity(&self) -> io::Result<FileIdentity> {
        let stat = rustix::fs::fstat(&self.descriptor)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Writes as much of `bytes` as goes without waiting. Returns how much went, and what stopped it before the end
    /// (`WouldBlock`: nobody reads; anything else is a failure of the file).
    pub fn write(&self, bytes: &[u8]) -> (usize, Option<io::Error>) {
        let mut written = 0;
        while written < bytes.len() {
            match self.write_once(&bytes[written..]) {
                Ok(0) => return (written, Some(io::ErrorKind::WriteZero.into())),
                Ok(length) => written += length,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return (written, Some(error.into())),
            }
        }
        (written, None)
    }

    fn write_once(&self, bytes: &[u8]) -> rustix::io::Result<usize> {
        match self.way {
            Way::Plain => rustix::io::write(&self.descriptor, bytes),
            Way::NonBlocking => rustix::io::write(&self.descriptor, whole_lines(bytes)),
            Way::Socket => {
                rustix::net::send(&self.descriptor, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
            }
            Way::Polled(piece) => {
                let mut poll = [PollFd::new(&self.descriptor, PollFlags::OUT)];
                rustix::event::poll(&mut poll, Some(&rustix::event::Timespec::default()))?;
                if !poll[0].revents().contains(PollFlags::OUT) {
                    return Err(rustix::io::Errno::AGAIN);
                }
                rustix::io::write(&self.descriptor, &bytes[..bytes.len().min(piece)])
            }
        }
    }
}

/// The file that `path` names now.
pub fn identity_of_path(path: &[u8]) -> io::Result<FileIdentity> {
    let stat = rustix::fs::stat(OsStr::from_bytes(path))?;
    Ok((stat.st_dev, stat.st_ino))
}

/// An error as nginx writes it: `(2: No such file or directory)`.
pub fn error_text(error: &io::Error) -> String {
    let text = error.to_string();
    match error.raw_os_error() {
        Some(code) => {
            let suffix = format!(" (os error {code})");
            format!("({code}: {})", text.strip_suffix(&suffix).unwrap_or(&text))
        }
        None => format!("({text})"),
    }
}

fn file_type(descriptor: BorrowedFd<'_>) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(descriptor)?.st_mode))
}

/// The longest start of `bytes` that ends with a line and that a pipe takes whole; a line longer than that alone.
fn whole_lines(bytes: &[u8]) -> &[u8] {
    if bytes.len() <= PIPE_PIECE {
        return bytes;
    }
    let end = memchr::memrchr(b'\n', &bytes[..PIPE_PIECE]).or_else(|| memchr::memchr(b'\n', bytes));
    &bytes[..end.map_or(bytes.len(), |end| end + 1)]
}

#[cfg(test)]
mod tests {
    use std::io::{IsTerminal, Read};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn pieces_end_with_a_line() {
        let mut bytes = vec![b'a'; 3000];
        bytes.push(b'\n');
        bytes.extend_from_slice(&[b'b'; 3000]);
        bytes.push(b'\n');
        assert_eq!(whole_lines(&bytes).len(), 3001);
        assert_eq!(whole_lines(&bytes[3001..]).len(), 3001);
        let long = [vec![b'c'; 9000], b"\nrest\n".to_vec()].concat();
        assert_eq!(whole_lines(&long).len(), 9001);
        assert_eq!(whole_lines(&[b'd'; 9000]).len(), 9000);
    }

    #[test]
    fn errors_have_nginx_shape() {
        let error = LogFile::open(b"/nonexistent-folder/x.log", None).unwrap_err();
        assert_eq!(error_text(&error), "(2: No such file or directory)");
    }

    #[test]
    fn a_shared_pipe_that_nobody_reads_does_not_block_and_keeps_its_flags() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let log = LogFile::shared(writer.as_fd()).unwrap();
        let line = [vec![b'x'; 1023], vec![b'\n']].concat();
        let lines = line.repeat(1024);
        let (written, error) = log.write(&lines);
        assert_eq!(error.unwrap().kind(), io::ErrorKind::WouldBlock);
        assert!(written > 0 && written.is_multiple_of(1024), "{written}");
        let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
        assert!(!flags.contains(OFlags::NONBLOCK));
        drop((log, writer));
        let mut read = Vec::new();
        std::fs::File::from(reader).read_to_end(&mut read).unwrap();
        assert_eq!(read.len(), written);
    }

    #[test]
    fn a_shared_pipe_that_cannot_be_opened_anew_does_not_block_either() {
        let (_reader, writer) = rustix::pipe::pipe().unwrap();
        let log = LogFile { descriptor: writer, way: Way::Polled(PIPE_PIECE) };
        let (written, error) = log.write(&vec![b'x'; 1 << 20]);
        assert_eq!(error.unwrap().kind(), io::ErrorKind::WouldBlock);
        assert!(written > 0 && written < 1 << 20, "{written}");
    }

    #[test]
    fn a_shared_socket_that_nobody_reads_does_not_block() {
        let (_reader, writer) = UnixStream::pair().unwrap();
        let log = LogFile::shared(writer.as_fd()).unwrap();
        let (written, error) = log.write(&vec![b'x'; 8 << 20]);
        assert_eq!(error.unwrap().kind(), io::ErrorKind::WouldBlock);
        assert!(written > 0);
    }

    #[test]
    fn standard_error_can_be_a_log() {
        let log = LogFile::stderr().unwrap();
        assert_eq!(log.descriptor.is_terminal(), io::stderr().is_terminal());
    }

    #[test]
    fn an_existing_file_keeps_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        std::fs::write(&path, "").unwrap();
        let nobody = LogOwner { user: 65534, group: 65534 };
        let bytes = path.as_os_str().as_bytes();
        let before = rustix::fs::stat(&path).unwrap().st_uid;
        LogFile::open(bytes, Some(nobody)).unwrap();
        assert_eq!(rustix::fs::stat(&path).unwrap().st_uid, before);
        if rustix::process::geteuid().is_root() {
            let made = folder.path().join("b.log");
            LogFile::open(made.as_os_str().as_bytes(), Some(nobody)).unwrap();
            assert_eq!(rustix::fs::stat(&made).unwrap().st_uid, 65534);
        }
    }
}
