//! Real files in a temporary folder: what is answered, what is kept, and what a change does to it.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::http::file::{FileInfo, OpenFileCache};
use crate::server::pool::Pool;

mod caching;
mod opening_paths;
mod sending_ranges;

/// A worker's files over a folder, with a clock that only the test moves.
struct Bench {
    folder: tempfile::TempDir,
    files: Files,
    woken: crossbeam_channel::Receiver<()>,
    now: Moment,
}

impl Bench {
    fn new() -> Bench {
        Bench::within(Limits::default())
    }

    fn within(limits: Limits) -> Bench {
        let pool = Pool::start(2, 16, || Ok(())).unwrap();
        let (wake, woken) = crossbeam_channel::unbounded();
        let jobs = FileJobs::new(
            &pool,
            Arc::new(move || {
                let _ = wake.send(());
            }),
        );
        // Far in the future, so that every file counts as settled.
        let now = Moment { monotonic_ms: 1_000_000, wall_ms: i64::MAX / 2 };
        Bench { folder: tempfile::tempdir().unwrap(), files: Files::new(limits, jobs), woken, now }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn put(&self, name: &str, content: &[u8]) -> PathBuf {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    fn ask(&mut self, path: &Path, want: Want, symlinks: Symlinks, options: &FileOptions) -> FileAnswer {
        let root_len = self.folder.path().as_os_str().len() as u32;
        let request = FileRequest { path: path.as_os_str().as_bytes(), root_len, want, symlinks, options };
        match self.files.open(&request, self.now) {
            Opened::Ready(answer) => answer,
            Opened::Pending(id) => match self.wait(id) {
                Completion::Opened(answer) => answer,
                other => panic!("an open was answered with {other:?}"),
            },
        }
    }

    fn wait(&mut self, id: JobId) -> Completion {
        loop {
            if let Some((done, completion)) = self.files.complete(self.now) {
                assert_eq!(done, id);
                return completion;
            }
            self.woken.recv_timeout(Duration::from_secs(20)).unwrap();
        }
    }

    fn open(&mut self, name: &str, options: &FileOptions) -> FileAnswer {
        self.ask(&self.path(name), Want::Open, Symlinks::Follow, options)
    }

    fn found(&mut self, name: &str, options: &FileOptions) -> FileInfo {
        match self.open(name, options) {
            FileAnswer::Found(info) => info,
            FileAnswer::Failed(failure) => panic!("{}", failure.describe(name.as_bytes())),
        }
    }

    fn failed(&mut self, name: &str, options: &FileOptions) -> FileFailure {
        match self.open(name, options) {
            FileAnswer::Failed(failure) => failure,
            FileAnswer::Found(info) => panic!("{name} was found: {info:?}"),
        }
    }

    fn pass(&mut self, milliseconds: u64) {
        self.now.monotonic_ms += milliseconds;
    }
}

fn cached(max: u32) -> FileOptions {
    FileOptions {
        cache: Some(Arc::new(OpenFileCache { max, inactive_ms: 60_000 })),
        valid_ms: 30_000,
        min_uses: 1,
        ..FileOptions::default()
    }
}

/// All bytes of a handle, from memory or descriptor.
fn bytes(info: &FileInfo) -> Vec<u8> {
    let handle = info.handle.as_ref().expect("a handle");
    let mut all = vec![0; info.size as usize];
    let mut done = 0;
    while done < all.len() {
        match read_range(handle, done as u64, &mut all[done..], Warmth::JustRead).unwrap() {
            Copied::Bytes(count) => done += count,
            other => panic!("{other:?} after {done} of {}", info.size),
        }
    }
    all
}

fn in_memory(info: &FileInfo) -> bool {
    info.handle.as_ref().is_some_and(|handle| handle.content().is_some())
}
