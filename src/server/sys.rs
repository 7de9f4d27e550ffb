//! Every libc call that no safe wrapper offers, and so all of the crate's `unsafe`.
#![allow(unsafe_code)]

// --- processes and sockets

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Which side of a [`fork`] this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forked {
    /// The process that called, with the id of the new one.
    Parent(rustix::process::Pid),
    /// The new process.
    Child,
}

/// Makes a copy of this process. Fails when the process has more than one thread: the copy would hold the locks of
/// threads that it does not have.
pub fn fork() -> io::Result<Forked> {
    if std::fs::read_dir("/proc/self/task").map(Iterator::count).is_ok_and(|threads| threads != 1) {
        return Err(io::Error::other("fork with several threads"));
    }
    // SAFETY: this is the only thread, so the child has a whole and consistent copy of everything, locks included.
    match unsafe { libc::fork() } {
        0 => Ok(Forked::Child),
        id => rustix::process::Pid::from_raw(id)
            .filter(|_| id > 0)
            .map(Forked::Parent)
            .ok_or_else(io::Error::last_os_error),
    }
}

fn signal_set(signals: &[i32]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set that it is given, and sigaddset only changes it (a number that is no
    // signal is refused with EINVAL).
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        set.assume_init()
    }
}

/// Holds these signals back from this thread, and from threads and processes that it makes later: they wait for
/// [`signal_descriptor`]. An empty list lets all through.
pub fn block_signals(signals: &[i32]) -> io::Result<()> {
    let set = signal_set(signals);
    // SAFETY: the set is initialised and outlives the call; the old set is not asked for.
    match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Ignores SIGXFSZ: a write past `ulimit -f` is an error (EFBIG) like that of a full disk, and no reason to die.
pub fn ignore_file_size_signal() {
    // SAFETY: SIG_IGN runs no code of ours, and the number is a valid signal; nothing else sets this one.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Has the C library's allocator take blocks of this many bytes and more from the kernel and give them back at once, for
/// good: left to itself it raises the limit (128 KiB) to the largest block ever freed, and from then on large buffers
/// tear holes into the heap that small ones keep open. Under mixed load that is three times the memory, and growing.
pub fn keep_large_blocks_apart() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only sets a parameter of the allocator, under its own lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * 1024);
    }
}

/// A descriptor that becomes readable when one of these (blocked) signals came for this process. It does not block
/// and is closed on exec. A forked process must make its own.
pub fn signal_descriptor(signals: &[i32]) -> io::Result<OwnedFd> {
    let set = signal_set(signals);
    // SAFETY: the set is initialised and outlives the call.
    let raw = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Takes over descriptors that this process was started with; those that are not open are left out. Only the first call
/// takes any, and it is to be made before anything else is opened: there is then no other owner.
pub fn adopt_inherited_descriptors(numbers: &[RawFd]) -> Vec<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if numbers.is_empty() || TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    // 0 to 2 belong to the standard streams.
    let mut numbers: Vec<RawFd> = numbers.iter().copied().filter(|number| *number > 2).collect();
    numbers.sort_unstable();
    numbers.dedup();
    // SAFETY: F_GETFD only asks; a number that is not open is answered with EBADF.
    numbers.retain(|number| unsafe { libc::fcntl(*number, libc::F_GETFD) } >= 0);
    // SAFETY: each is open, is taken only once (sorted, deduplicated, and this runs once), and by this function's
    // contract came over exec, so that nothing else in this process owns it.
    numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }).collect()
}

/// An option of a socket whose value is an `int`, for those that socket2 does not have.
fn set_int_option(socket: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the value is an int that outlives the call, and its true size is told.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// IP_BIND_ADDRESS_NO_PORT: the port is chosen at `connect`.
pub fn set_bind_address_no_port(socket: impl AsFd) -> io::Result<()> {
    set_int_option(socket.as_fd(), libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
}

/// IPV6_TRANSPARENT: the socket may be bound to an address that is not ours.
pub fn set_ipv6_transparent(socket: impl AsFd) -> io::Result<()> {
    set_int_option(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT, 1)
}

/// A connection over the loopback has no path whose rate could be found: congestion control that paces (bbr) only arms
/// a timer for every packet, a twelfth of what a small proxied request costs. `reno` is in every kernel and allowed to
/// everybody; where it is refused nevertheless, the connection works as it is.
pub fn set_loopback_congestion(socket: impl AsFd) {
    let _ = rustix::net::sockopt::set_tcp_congestion(socket.as_fd(), "reno");
}

/// TCP_DEFER_ACCEPT: a connection is accepted when its first data is there, or after `seconds`; 0 switches it off.
pub fn set_tcp_defer_accept(socket: impl AsFd, seconds: i32) -> io::Result<()> {
    set_int_option(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, seconds)
}

/// TCP_FASTOPEN on a listening socket: the length of its queue; 0 switches it off.
pub fn set_tcp_fastopen(socket: impl AsFd, queue: i32) -> io::Result<()> {
    set_int_option(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_FASTOPEN, queue)
}

// --- TLS in the kernel (linux/tls.h, which libc does not have for Linux)

const TLS_TX: i32 = 1;
const TLS_RX: i32 = 2;
const TLS_SET_RECORD_TYPE: i32 = 1;
const TLS_GET_RECORD_TYPE: i32 = 2;

/// Room for one ancillary message of a byte, aligned as `cmsghdr` wants it.
#[repr(C, align(8))]
struct RecordType([u8; 24]);

fn set_bytes_option(socket: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    // SAFETY: the kernel reads `value.len()` bytes, which outlive the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_ptr().cast(),
            value.len() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Prepares a connection for [`set_tls_keys`]; until then it is as before. ENOENT: this kernel does not have TLS;
/// ENOTCONN: one side has shut down.
pub fn attach_tls(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_bytes_option(socket, libc::IPPROTO_TCP, libc::TCP_ULP, b"tls")
}

/// Lets the kernel encrypt what is sent from now on (`transmits`), or decrypt what comes, with a
/// `struct tls12_crypto_info_*`.
pub fn set_tls_keys(socket: BorrowedFd<'_>, transmits: bool, info: &[u8]) -> io::Result<()> {
    set_bytes_option(socket, libc::SOL_TLS, if transmits { TLS_TX } else { TLS_RX }, info)
}

/// Receives content that the kernel has decrypted, of one or several records of the same type, which is told too; `None`
/// at the end of the stream.
pub fn receive_record(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Option<u8>)> {
    let mut control = RecordType([0; 24]);
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: zeros are valid for these pointers and numbers.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<RecordType>() as _;
    // SAFETY: the message describes `buffer` and `control`, which are writable and outlive the call.
    let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    if count < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has set the length of what it wrote to `control`, and the macros stay within it; a header that
    // they give is aligned, because `control` and CMSG_DATA's offset are.
    let kind = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        let is_kind = !header.is_null()
            && (*header).cmsg_level == libc::SOL_TLS
            && (*header).cmsg_type == TLS_GET_RECORD_TYPE
            && (*header).cmsg_len as usize > libc::CMSG_LEN(0) as usize;
        is_kind.then(|| *libc::CMSG_DATA(header))
    };
    Ok((count as usize, kind))
}

/// Sends a record of this type through a connection that the kernel encrypts.
pub fn send_record(socket: BorrowedFd<'_>, kind: u8, content: &[u8]) -> io::Result<usize> {
    let mut control = RecordType([0; 24]);
    let mut vector = libc::iovec { iov_base: content.as_ptr().cast_mut().cast(), iov_len: content.len() };
    // SAFETY: zeros are valid for these pointers and numbers.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    // SAFETY: CMSG_SPACE(1) is 24, what `control` has, so that the first header and its byte lie within it and are
    // aligned; `content` is only read and outlives the call.
    let count = unsafe {
        message.msg_controllen = libc::CMSG_SPACE(1) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_TLS;
        (*header).cmsg_type = TLS_SET_RECORD_TYPE;
        (*header).cmsg_len = libc::CMSG_LEN(1) as _;
        *libc::CMSG_DATA(header) = kind;
        libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL)
    };
    if count < 0 { Err(io::Error::last_os_error()) } else { Ok(count as usize) }
}

/// What the kernel measured on a TCP connection. A number that is no TCP socket is an error.
pub fn tcp_info(socket: RawFd) -> io::Result<libc::tcp_info> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which is the room there is; a number that is no open descriptor
    // is refused with EBADF and nothing is written.
    let result = unsafe {
        libc::getsockopt(socket, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut length)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: plain numbers, for which zeros are valid where an older kernel wrote less.
    Ok(unsafe { info.assume_init() })
}

/// Gives free memory that lies between what is used back to the system. The C library does so by itself at the heap's end
/// alone, so that a heap which many connections have used stays as large as it was for one of them that is left.
#[cfg(target_env = "gnu")]
pub fn trim_heap() {
    // SAFETY: it takes the allocator's own locks and touches no memory that is in use.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators see to that themselves.
#[cfg(not(target_env = "gnu"))]
pub fn trim_heap() {}

/// A user as the system knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemUser {
    pub user: u32,
    /// The group of the user's own entry.
    pub group: u32,
}

/// The longest entry of the user or group database that is read, in bytes.
const MAX_ENTRY: usize = 1 << 20;

/// Asks the C library for a database entry with a buffer that grows while it is too small.
fn look_up<T>(mut ask: impl FnMut(&mut [libc::c_char]) -> (i32, Option<T>)) -> io::Result<Option<T>> {
    let mut buffer = vec![0; 4096];
    loop {
        match ask(&mut buffer) {
            (0, found) => return Ok(found),
            (libc::ERANGE, _) if buffer.len() < MAX_ENTRY => buffer.resize(buffer.len() * 4, 0),
            // What glibc's back ends answer when there is no such name.
            (libc::ENOENT | libc::ESRCH, _) => return Ok(None),
            (error, _) => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// The user of this name; `None` if there is none.
pub fn find_user(name: &str) -> io::Result<Option<SystemUser>> {
    let name = CString::new(name)?;
    look_up(|buffer| {
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        let mut found = std::ptr::null_mut();
        // SAFETY: all pointers are valid for the call, and the buffer's true length is told.
        let error = unsafe {
            libc::getpwnam_r(
                name.as_ptr(),
                entry.as_mut_ptr(),
                buffer.as_mut_ptr(),
                buffer.len(),
                &raw mut found,
            )
        };
        // SAFETY: where `found` is set it points to `entry`, which was filled; both numbers are plain values.
        let user = (!found.is_null())
            .then(|| unsafe { SystemUser { user: (*found).pw_uid, group: (*found).pw_gid } });
        (error, user)
    })
}

/// The number of the group of this name; `None` if there is none.
pub fn find_group(name: &str) -> io::Result<Option<u32>> {
    let name = CString::new(name)?;
    look_up(|buffer| {
        let mut entry = MaybeUninit::<libc::group>::uninit();
        let mut found = std::ptr::null_mut();
        // SAFETY: as in `find_user`.
        let error = unsafe {
            libc::getgrnam_r(
                name.as_ptr(),
                entry.as_mut_ptr(),
                buffer.as_mut_ptr(),
                buffer.len(),
                &raw mut found,
            )
        };
        // SAFETY: as in `find_user`.
        (error, (!found.is_null()).then(|| unsafe { (*found).gr_gid }))
    })
}

/// All groups of a user, with `group` among them.
pub fn groups_of_user(name: &str, group: u32) -> io::Result<Vec<u32>> {
    let name = CString::new(name)?;
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut count = i32::try_from(groups.len()).unwrap_or(i32::MAX);
        // SAFETY: the name ends with NUL, and `count` is the true length of the list.
        let result = unsafe { libc::getgrouplist(name.as_ptr(), group, groups.as_mut_ptr(), &raw mut count) };
        let count = usize::try_from(count).unwrap_or(0);
        if result >= 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        // Linux allows 65536 groups.
        if groups.len() > 1 << 16 {
            return Err(io::Error::other("too many groups"));
        }
        groups.resize(count.max(groups.len() * 2), 0);
    }
}

/// Replaces the environment. Fails when the process has more than one thread: another might be reading it.
pub fn replace_environment<S: AsRef<OsStr>>(variables: &[(S, S)]) -> io::Result<()> {
    if std::fs::read_dir("/proc/self/task").map(Iterator::count).is_ok_and(|threads| threads != 1) {
        return Err(io::Error::other("the environment is changed with several threads"));
    }
    let old: Vec<OsString> = std::env::vars_os().map(|(name, _)| name).collect();
    for name in old {
        // SAFETY: this is the only thread.
        unsafe { std::env::remove_var(name) };
    }
    for (name, value) in variables {
        let (name, value) = (name.as_ref(), value.as_ref());
        // What set_var would panic on.
        let name_bytes = name.as_encoded_bytes();
        let unusable = name_bytes.is_empty() || name_bytes.iter().any(|byte| matches!(byte, b'=' | 0));
        if unusable || value.as_encoded_bytes().contains(&0) {
            continue;
        }
        // SAFETY: this is the only thread.
        unsafe { std::env::set_var(name, value) };
    }
    Ok(())
}

/// Sets what `ps` shows for this process. Overwrites the memory of the command line and, where that is too short, of the
/// environment's first values, both as the kernel laid them out at exec.
///
/// The first call must come before other threads start, and moves the environment away. `std::env::args` gives nothing
/// sensible afterwards.
pub fn set_process_title(title: &str) -> io::Result<()> {
    static AREA: std::sync::OnceLock<Option<(usize, usize)>> = std::sync::OnceLock::new();
    let area = AREA.get_or_init(|| {
        let area = title_area()?;
        let variables: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        replace_environment(&variables).ok()?;
        Some(area)
    });
    let Some((start, end)) = *area else { return Err(io::ErrorKind::Unsupported.into()) };
    let room = (end - start).saturating_sub(1);
    let length = title.len().min(room);
    // SAFETY: the range is the process's own writable stack area that the kernel filled at exec (from its own account in
    // /proc/self/stat). The environment's strings were moved to the heap before, and the arguments were read before by
    // this function's contract; what else looks at them sees NUL-ended strings, since the rest is zeroed.
    unsafe {
        let start = std::ptr::with_exposed_provenance_mut::<u8>(start);
        std::ptr::write_bytes(start, 0, room + 1);
        std::ptr::copy_nonoverlapping(title.as_ptr(), start, length);
    }
    Ok(())
}

/// The addresses between which the kernel put the arguments and the environment.
fn title_area() -> Option<(usize, usize)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may hold anything; field 3 comes behind the last one. Fields 48 to 51 (proc(5)).
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<usize>().ok().filter(|address| *address != 0);
    let (arguments, arguments_end) = (field(48)?, field(49)?);
    let (environment, environment_end) = (field(50)?, field(51)?);
    if arguments >= arguments_end {
        return None;
    }
    // The kernel puts one behind the other.
    let end = if environment == arguments_end { environment_end.max(arguments_end) } else { arguments_end };
    Some((arguments, end))
}

/// The descriptor of something that only tells its number and owns it, such as mio's poll.
pub fn borrow<T: AsRawFd>(owner: &T) -> BorrowedFd<'_> {
    // SAFETY: the owner keeps the descriptor open as long as it is borrowed.
    unsafe { BorrowedFd::borrow_raw(owner.as_raw_fd()) }
}

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

#[cfg(test)]
mod process_tests {
    use super::*;

    #[test]
    fn root_is_a_user_and_nonsense_is_none() {
        assert_eq!(find_user("root").unwrap(), Some(SystemUser { user: 0, group: 0 }));
        assert_eq!(find_user("no such user").unwrap(), None);
        assert_eq!(find_group("root").unwrap(), Some(0));
        assert_eq!(find_group("no such group").unwrap(), None);
        assert!(find_user("a\0b").is_err());
        assert!(groups_of_user("root", 0).unwrap().contains(&0));
    }

    #[test]
    fn a_process_with_threads_does_not_fork() {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || receiver.recv());
        assert!(fork().is_err());
        assert!(replace_environment::<&str>(&[]).is_err());
        drop(sender);
        let _ = other.join();
    }

    #[test]
    fn descriptors_that_are_not_open_or_standard_are_not_adopted() {
        assert!(adopt_inherited_descriptors(&[0, 1, 2, i32::MAX, -1]).is_empty());
    }

    #[test]
    fn an_ancillary_message_of_a_byte_has_its_room() {
        // SAFETY: the macro computes a number.
        assert_eq!(unsafe { libc::CMSG_SPACE(1) } as usize, size_of::<RecordType>());
    }

    #[test]
    fn the_title_area_is_found() {
        let (start, end) = title_area().unwrap();
        assert!(start < end);
    }
}
