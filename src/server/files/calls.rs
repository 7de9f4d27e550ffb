//! The system calls that move the bytes of files, in one place: tests have them fail there as disks do.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags, Result};

#[cfg(test)]
use super::faults::{Call, shorten};

/// `pread`; it may wait for the disk. 0 is the end of the file.
#[inline]
pub fn read(file: impl AsFd, buffer: &mut [u8], offset: u64) -> Result<usize> {
    #[cfg(test)]
    let buffer = {
        let length = shorten(Call::Read, buffer.len())?;
        &mut buffer[..length]
    };
    loop {
        match rustix::io::pread(&file, &mut *buffer, offset) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// `preadv2` with `RWF_NOWAIT`: `AGAIN` when the first byte is not in memory.
#[inline]
pub fn read_resident(file: impl AsFd, buffer: &mut [u8], offset: u64) -> Result<usize> {
    #[cfg(test)]
    let buffer = {
        let length = shorten(Call::ReadResident, buffer.len())?;
        &mut buffer[..length]
    };
    rustix::io::preadv2(file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT)
}

/// `pwrite`; less than it was given is written to a disk that is nearly full.
#[inline]
pub fn write(file: impl AsFd, bytes: &[u8], offset: u64) -> Result<usize> {
    #[cfg(test)]
    let bytes = &bytes[..shorten(Call::Write, bytes.len())?];
    loop {
        match rustix::io::pwrite(&file, bytes, offset) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// `sendfile` from `offset`. 0 is the end of the file.
#[inline]
pub fn send(socket: impl AsFd, file: impl AsFd, offset: u64, length: usize) -> Result<usize> {
    #[cfg(test)]
    let length = shorten(Call::Send, length)?;
    let mut position = offset;
    loop {
        match rustix::fs::sendfile(&socket, &file, Some(&mut position), length) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Makes a file of this name, which must not exist, for its owner alone.
pub fn create(path: &Path) -> Result<OwnedFd> {
    #[cfg(test)]
    shorten(Call::Create, 1)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(CWD, path, flags, Mode::RUSR | Mode::WUSR)
}
