//! A response's body between the upstream and a client that may be slower: memory up to `proxy_buffers`, then a
//! temporary file up to `proxy_max_temp_file_size`, then the upstream has to wait.
//!
//! Order: what is in memory came first, what is in the file came later. While the file holds anything, nothing is added
//! to the memory; when it is drained, it is used again from its beginning.
//!
//! A disk that takes no more costs no response: what the file refused waits in memory behind it, and from then on the
//! upstream has to wait for the client.

use rustix::fd::BorrowedFd;
use std::os::fd::AsFd;

use crate::server::files::{TemporaryFile, WRITE_NOW_BYTES};

/// The file behind the memory.
#[derive(Debug)]
struct Spool {
    file: TemporaryFile,
    /// Bytes that the client has.
    read: u64,
    /// Bytes that were written.
    written: u64,
}

impl Spool {
    /// Whether the client has all that was written.
    fn is_drained(&self) -> bool {
        self.read == self.written
    }

    /// Uses the file from its beginning again. What `sendfile` took may be on its way still, and is the file's pages
    /// themselves: they are given up for new ones, not written over.
    fn begin_again(&mut self) -> std::io::Result<()> {
        rustix::fs::ftruncate(self.file.descriptor(), 0)?;
        self.read = 0;
        self.written = 0;
        Ok(())
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Inbound {
    memory: Vec<u8>,
    /// Bytes of `memory` that the client has.
    taken: usize,
    spool: Option<Spool>,
    /// What the file refused, one read's worth at most: it comes behind what the file holds.
    refused: Vec<u8>,
    /// The disk failed: nothing more goes to a file.
    has_failed: bool,
}

/// What the client gets next.
pub enum Front<'a> {
    /// Nothing is there.
    Empty,
    /// These bytes.
    Memory(&'a [u8]),
    /// So many bytes of this file, from this offset.
    File(BorrowedFd<'a>, u64, u64),
}

impl Inbound {
    /// What the client gets next.
    pub fn front(&self) -> Front<'_> {
        if self.taken < self.memory.len() {
            return Front::Memory(&self.memory[self.taken..]);
        }
        match &self.spool {
            Some(spool) if spool.read < spool.written => {
                Front::File(spool.file.descriptor().as_fd(), spool.read, spool.written - spool.read)
            }
            _ => Front::Empty,
        }
    }

    /// How many bytes stand at the front in one piece.
    pub fn front_len(&self) -> u64 {
        match self.front() {
            Front::Empty => 0,
            Front::Memory(bytes) => bytes.len() as u64,
            Front::File(_, _, length) => length,
        }
    }

    /// Drops what is there: it belongs to a response that is not the answer.
    pub fn clear(&mut self) {
        self.memory.clear();
        self.taken = 0;
        if let Some(spool) = &mut self.spool {
            spool.read = 0;
            spool.written = 0;
        }
        self.refused.clear();
    }

    /// Whether nothing waits for the client.
    pub fn is_empty(&self) -> bool {
        self.front_len() == 0
    }

    /// Takes what the client got off the front.
    pub fn consume(&mut self, count: u64) {
        if self.taken < self.memory.len() {
            self.taken += count as usize;
            debug_assert!(self.taken <= self.memory.len());
            if self.taken == self.memory.len() {
                self.taken = 0;
                self.memory.clear();
            }
        } else if let Some(spool) = &mut self.spool {
            spool.read += count;
            debug_assert!(spool.read <= spool.written);
        }
        self.advance_refused();
    }

    /// Brings what the file refused to the front, once all before it is gone.
    fn advance_refused(&mut self) {
        if !self.refused.is_empty() && self.memory.is_empty() && self.file_holds() == 0 {
            self.memory = std::mem::take(&mut self.refused);
        }
    }

    /// Bytes that memory may still take within `limit`; none while the file holds what comes before.
    pub fn memory_room(&self, limit: usize) -> usize {
        if self.spooled() > 0 { 0 } else { limit.saturating_sub(self.memory.len() - self.taken) }
    }

    /// Bytes that wait in the file and behind it.
    pub fn spooled(&self) -> u64 {
        self.file_holds() + self.refused.len() as u64
    }

    fn file_holds(&self) -> u64 {
        self.spool.as_ref().map_or(0, |spool| spool.written - spool.read)
    }

    /// Bytes that the file may still take within `limit`.
    pub fn file_room(&self, limit: u64) -> u64 {
        if self.has_failed {
            return 0;
        }
        self.spool.as_ref().map_or(0, |spool| match spool.is_drained() {
            true => limit,
            false => limit.saturating_sub(spool.written),
        })
    }

    /// Whether a file may be made: there is none, and none has failed.
    pub fn wants_file(&self) -> bool {
        self.spool.is_none() && !self.has_failed
    }

    /// The file could not be made: the response goes on without.
    pub fn give_files_up(&mut self) {
        self.has_failed = true;
    }

    /// Takes the file that was created for this response.
    pub fn take_file(&mut self, file: TemporaryFile) {
        self.spool = Some(Spool { file, read: 0, written: 0 });
    }

    /// The memory, to be appended to; it holds what was not taken yet.
    pub fn memory(&mut self) -> &mut Vec<u8> {
        debug_assert_eq!(self.spooled(), 0, "the file's bytes come first");
        if self.taken > 0 {
            self.memory.drain(..self.taken);
            self.taken = 0;
        }
        &mut self.memory
    }

    /// Gives memory in.
    pub fn set_memory(&mut self, memory: Vec<u8>) {
        debug_assert!(self.memory.is_empty());
        self.memory = memory;
        self.taken = 0;
    }

    /// Takes the memory out for others to use, if it holds nothing.
    pub fn spare_memory(&mut self) -> Option<Vec<u8>> {
        (self.memory.is_empty() && self.memory.capacity() > 0).then(|| std::mem::take(&mut self.memory))
    }

    /// Whether there is no memory to append to.
    pub fn needs_memory(&self) -> bool {
        self.memory.capacity() == 0
    }

    /// Appends to the file. What it does not take is kept behind it.
    ///
    /// # Errors
    /// Those of the file system, for the log: no byte is lost.
    pub fn write_file(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let mut rest = bytes;
        let result = if self.has_failed { Ok(()) } else { self.append(&mut rest) };
        if !rest.is_empty() {
            self.has_failed = true;
            self.refused.extend_from_slice(rest);
            self.advance_refused();
        }
        result
    }

    /// Writes `rest` and shortens it by what was written.
    fn append(&mut self, rest: &mut &[u8]) -> std::io::Result<()> {
        let Some(spool) = &mut self.spool else { return Err(std::io::ErrorKind::NotFound.into()) };
        if spool.is_drained() && spool.written > 0 {
            spool.begin_again()?;
        }
        while !rest.is_empty() {
            let count = spool.file.write_now(spool.written, &rest[..rest.len().min(WRITE_NOW_BYTES)])?;
            if count == 0 {
                return Err(std::io::ErrorKind::WriteZero.into());
            }
            spool.written += count as u64;
            *rest = &rest[count..];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::files::TemporaryFolder;
    use std::os::unix::fs::FileExt;

    fn drain(inbound: &mut Inbound, most: u64, out: &mut Vec<u8>) {
        let count = match inbound.front() {
            Front::Empty => return,
            Front::Memory(bytes) => {
                let count = bytes.len().min(most as usize);
                out.extend_from_slice(&bytes[..count]);
                count as u64
            }
            Front::File(file, offset, length) => {
                let mut piece = vec![0; length.min(most) as usize];
                let file = std::fs::File::from(file.try_clone_to_owned().unwrap());
                file.read_exact_at(&mut piece, offset).unwrap();
                out.extend_from_slice(&piece);
                piece.len() as u64
            }
        };
        inbound.consume(count);
    }

    #[test]
    fn memory_comes_before_the_file_and_the_file_is_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut inbound = Inbound::default();
        let mut out = Vec::new();
        inbound.memory().extend_from_slice(b"first");
        assert_eq!(inbound.memory_room(8), 3);
        inbound.take_file(TemporaryFolder::new(folder.path().into(), [0; 3], 1).create().unwrap());
        inbound.write_file(b"second").unwrap();
        assert_eq!((inbound.memory_room(8), inbound.file_room(10)), (0, 4));
        while !inbound.is_empty() {
            drain(&mut inbound, 2, &mut out);
        }
        assert_eq!(out, b"firstsecond");
        assert_eq!((inbound.memory_room(8), inbound.file_room(10)), (8, 10));
        inbound.memory().extend_from_slice(b"third");
        drain(&mut inbound, 100, &mut out);
        assert_eq!(out, b"firstsecondthird");
    }
}
