//! What the pool's threads do with files. Everything here may block.

use std::io;
use std::ops::Deref;
use std::os::fd::OwnedFd;

use rustix::fs::Advice;

use super::calls;
use super::opened::DirectAlignment;
use super::sending::TURN_BYTES;

/// One read's buffer while warming: large enough to be cheap, small enough for a thread's stack of buffers.
const WARM_STEP: usize = 128 * 1024;

/// Brings the range (cut to [`TURN_BYTES`]) into the page cache by reading it: `readahead(2)` would only begin to.
/// A file that ends before is no error: the sender sees it.
pub fn warm(file: &OwnedFd, offset: u64, length: usize) -> io::Result<()> {
    let length = length.min(TURN_BYTES);
    let advised = std::num::NonZeroU64::new(length as u64);
    let _ = rustix::fs::fadvise(file, offset, advised, Advice::WillNeed);
    let mut scratch = vec![0; length.min(WARM_STEP)];
    let mut done = 0;
    while done < length {
        let step = scratch.len().min(length - done);
        match read_once(file, &mut scratch[..step], offset + done as u64)? {
            0 => break,
            count => done += count,
        }
    }
    Ok(())
}

/// Bytes that a job has read.
#[derive(Debug, Default)]
pub struct ReadBuffer {
    storage: Vec<u8>,
    start: usize,
    end: usize,
}

impl Deref for ReadBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.storage[self.start..self.end]
    }
}

/// Reads the range (cut to [`TURN_BYTES`]); fewer bytes than asked for mean that the file ends there.
/// With `direct`, offset, length and address are rounded out to the alignment and the surplus is hidden.
pub fn read(
    file: &OwnedFd,
    offset: u64,
    length: usize,
    direct: Option<DirectAlignment>,
) -> io::Result<ReadBuffer> {
    let length = length.min(TURN_BYTES);
    let alignment = direct.map_or(1, |alignment| alignment.0 as usize);
    let ahead = (offset % alignment as u64) as usize;
    let span = (ahead + length).next_multiple_of(alignment);
    let mut storage = vec![0; span + alignment - 1];
    let pad = storage.as_ptr().align_offset(alignment);
    let from = offset - ahead as u64;
    let mut done = 0;
    while done < span {
        match read_once(file, &mut storage[pad + done..pad + span], from + done as u64)? {
            0 => break,
            count => done += count,
        }
        // O_DIRECT can't go on from an unaligned end, which only the end of the file makes.
        if done % alignment != 0 {
            break;
        }
    }
    let end = done.min(ahead + length);
    Ok(ReadBuffer { storage, start: pad + ahead.min(end), end: pad + end })
}

fn read_once(file: &OwnedFd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    Ok(calls::read(file, buffer, offset)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::Arc;

    fn sample(length: usize) -> (Arc<OwnedFd>, Vec<u8>) {
        let content: Vec<u8> = (0..length).map(|n| (n * 31 % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        (Arc::new(file.into()), content)
    }

    #[test]
    fn a_read_hides_what_alignment_adds() {
        let (file, content) = sample(10_000);
        for alignment in [None, Some(DirectAlignment(512)), Some(DirectAlignment(4096))] {
            for (offset, length) in
                [(0, 10_000), (1, 511), (4095, 2), (9_999, 1), (5_000, 20_000), (10_000, 8)]
            {
                let read = read(&file, offset, length, alignment).unwrap();
                let end = (offset as usize + length).min(content.len());
                assert_eq!(&*read, &content[offset as usize..end], "{alignment:?} {offset} {length}");
            }
        }
    }

    #[test]
    fn a_read_far_past_the_end_is_empty() {
        let (file, _) = sample(100);
        assert!(read(&file, 1_000_000, 10, Some(DirectAlignment(512))).unwrap().is_empty());
    }

    #[test]
    fn warming_past_the_end_is_no_error() {
        let (file, _) = sample(100);
        warm(&file, 50, 1000).unwrap();
        warm(&file, 5000, 1000).unwrap();
    }
}
