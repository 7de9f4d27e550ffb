//! Every libc call that no safe wrapper offers, and so all of the crate's `unsafe`.
#![allow(unsafe_code)]

// --- files

/// `cachestat(2)` (Linux 6.5).
const SYS_CACHESTAT: libc::c_long = 451;

/// How many pages of `length` bytes (not 0) from `offset` are in the page cache, read or still being read. An error
/// (ENOSYS on older kernels, EPERM under some seccomp filters) means that the kernel does not tell.
pub fn cached_pages(file: std::os::fd::BorrowedFd<'_>, offset: u64, length: u64) -> std::io::Result<u64> {
    #[repr(C)]
    struct Range {
        offset: u64,
        length: u64,
    }
    #[repr(C)]
    #[derive(Default)]
    struct CacheStat {
        cached: u64,
        dirty: u64,
        writeback: u64,
        evicted: u64,
        recently_evicted: u64,
    }
    let range = Range { offset, length };
    let mut stat = CacheStat::default();
    // SAFETY: both structures have the kernel's layout (linux/mman.h) and outlive the call, which reads the first and
    // writes the second; the descriptor is borrowed, so it is open.
    let result = unsafe {
        libc::syscall(
            SYS_CACHESTAT,
            std::os::fd::AsRawFd::as_raw_fd(&file),
            &raw const range,
            &raw mut stat,
            0 as libc::c_uint,
        )
    };
    if result == 0 { Ok(stat.cached) } else { Err(std::io::Error::last_os_error()) }
}

/// The size of a page, in bytes.
pub fn page_size() -> u64 {
    static SIZE: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    // SAFETY: sysconf reads a constant of the system and touches no memory of ours.
    *SIZE.get_or_init(|| u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096).max(1))
}
