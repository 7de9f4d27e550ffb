//! Bytes on their way to a socket or a buffer.

use super::*;

/// A connected pair; the near end does not block.
fn sockets() -> (std::os::unix::net::UnixStream, std::os::unix::net::UnixStream) {
    let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    (near, far)
}

/// Sends a whole file as the worker would, and returns what arrived.
fn send_all(bench: &mut Bench, info: &FileInfo) -> Result<Vec<u8>, Sent> {
    use std::io::Read;
    let (near, mut far) = sockets();
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        far.read_to_end(&mut all).unwrap();
        all
    });
    let handle = info.handle.clone().unwrap();
    let mut done = 0;
    let mut warmth = Warmth::Unknown;
    while done < info.size {
        let left = (info.size - done) as usize;
        match send_range(near.as_fd(), &handle, done, left, warmth).unwrap() {
            Sent::Wrote(count) => {
                done += count as u64;
                warmth = Warmth::Unknown;
            }
            Sent::Blocked => std::thread::yield_now(),
            Sent::Cold => {
                let id = bench.files.read_ahead(&handle, done, left).unwrap();
                assert!(matches!(bench.wait(id), Completion::Warmed(Ok(()))));
                warmth = Warmth::JustRead;
            }
            Sent::Truncated => return Err(Sent::Truncated),
        }
    }
    drop(near);
    Ok(reader.join().unwrap())
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 7 % 253) as u8).collect()
}

#[test]
fn a_large_file_arrives_whole_from_a_cold_and_from_a_warm_cache() {
    let mut bench = Bench::new();
    let content = pattern(3_000_001);
    let path = bench.put("large", &content);
    let file = std::fs::File::open(&path).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    for _ in 0..2 {
        let info = bench.found("large", &FileOptions::default());
        assert!(send_all(&mut bench, &info).unwrap() == content);
    }
}

#[test]
fn pages_that_were_dropped_are_cold_and_pages_that_were_read_are_not() {
    let bench = Bench::new();
    let path = bench.put("a", &pattern(300_000));
    let file = std::fs::File::open(&path).unwrap();
    assert!(sending::is_resident(file.as_fd(), 0, 300_000));
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    // A file system that lives in memory keeps its pages.
    let on_disk = rustix::fs::fstatfs(&file).unwrap().f_type as u64 != 0x0102_1994;
    if on_disk {
        assert!(!sending::is_resident(file.as_fd(), 100_000, 100_000));
        let mut buffer = [0; 10];
        assert_eq!(sending::read_resident(file.as_fd(), &mut buffer, 299_000), Err(Errno::AGAIN));
    }
    let descriptor = std::os::fd::OwnedFd::from(file);
    jobs::warm(&descriptor, 100_000, 100_000).unwrap();
    assert!(sending::is_resident(descriptor.as_fd(), 100_000, 100_000));
}

#[test]
fn content_in_memory_is_sent_from_memory() {
    let mut bench = Bench::new();
    bench.put("a", &pattern(30_000));
    bench.found("a", &FileOptions::default());
    let info = bench.found("a", &FileOptions::default());
    assert!(in_memory(&info));
    assert!(send_all(&mut bench, &info).unwrap() == pattern(30_000));
}

#[test]
fn a_file_that_shrinks_while_it_is_sent_is_truncated_and_not_complete() {
    let mut bench = Bench::within(Limits { content_file: 0, ..Limits::default() });
    let path = bench.put("a", &pattern(200_000));
    let info = bench.found("a", &FileOptions::default());
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100_000).unwrap();
    assert_eq!(send_all(&mut bench, &info), Err(Sent::Truncated));
    let mut buffer = [0; 10];
    let read = read_range(info.handle.as_ref().unwrap(), 100_000, &mut buffer, Warmth::Unknown);
    assert_eq!(read.unwrap(), Copied::Truncated);
}

#[test]
fn a_blocked_socket_says_so() {
    let mut bench = Bench::new();
    bench.put("a", &pattern(4_000_000));
    let info = bench.found("a", &FileOptions::default());
    let handle = info.handle.unwrap();
    let (near, _far) = sockets();
    let mut done = 0;
    loop {
        match send_range(near.as_fd(), &handle, done, usize::MAX, Warmth::JustRead).unwrap() {
            Sent::Wrote(count) => {
                assert!(count <= TURN_BYTES);
                done += count as u64;
            }
            Sent::Blocked => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(done > 0);
}

#[test]
fn a_file_in_directio_mode_is_read_by_the_pool() {
    let mut bench = Bench::new();
    let content = pattern(700_001);
    bench.put("a", &content);
    let options = FileOptions { directio: Some(1000), directio_alignment: 4096, ..FileOptions::default() };
    let info = bench.found("a", &options);
    let handle = info.handle.unwrap();
    // Not every file system has O_DIRECT; the pool's read is right either way.
    if sending::is_direct(&handle) {
        let (near, _far) = sockets();
        let sent = send_range(near.as_fd(), &handle, 0, 10, Warmth::Unknown);
        assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::Unsupported);
        let read = read_range(&handle, 0, &mut [0; 10], Warmth::Unknown);
        assert_eq!(read.unwrap(), Copied::Cold);
    }
    let mut all = Vec::new();
    while all.len() < content.len() {
        let length = if all.is_empty() { 5 } else { content.len() - all.len() };
        let id = bench.files.read(&handle, all.len() as u64, length).unwrap();
        let Completion::Read(Ok(piece)) = bench.wait(id) else { panic!() };
        assert!(!piece.is_empty());
        all.extend_from_slice(&piece);
    }
    assert!(all == content);
    // The same file for a location without directio goes by sendfile again.
    let info = bench.found("a", &FileOptions::default());
    assert!(!sending::is_direct(info.handle.as_ref().unwrap()));
}

#[test]
fn a_temporary_file_comes_from_the_pool() {
    let mut bench = Bench::new();
    let folder = Arc::new(TemporaryFolder::new(bench.path("body"), [1, 2, 0], 1));
    let id = bench.files.create_temporary(&folder).unwrap();
    let Completion::TemporaryCreated(Ok(file)) = bench.wait(id) else { panic!() };
    assert!(std::fs::metadata(file.path()).unwrap().is_file());
}

#[test]
fn running_out_of_descriptors_closes_idle_ones_first() {
    let mut bench = Bench::within(Limits { content_file: 0, ..Limits::default() });
    for name in ["a", "b"] {
        bench.put(name, b"x");
        bench.found(name, &FileOptions::default());
    }
    assert_eq!(bench.files.holdings().descriptors, 2);
    assert!(bench.files.store.relieve());
    assert_eq!(bench.files.holdings().descriptors, 0);
    assert!(!bench.files.store.relieve());
}
