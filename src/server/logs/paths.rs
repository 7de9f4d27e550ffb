//! Access logs whose path has variables: opened, written and closed at the end of each turn, or kept open by
//! `open_log_file_cache`.
//!
//! nginx opens such a file for every line; here the lines of one turn to one path share an open. The paths come from
//! requests, so that everything is bounded: paths and bytes that wait, descriptors kept. Files are opened with the
//! worker's own rights, on the loop (as nginx does).

use std::collections::HashMap;

use super::file::{FileIdentity, LogFile, error_text, identity_of_path};
use super::report::Reports;
use crate::base::level::Level;
use crate::conf::log_target::OpenLogFileCache;

/// Most paths that wait for the end of a turn; one more writes all of them out.
const PATHS_WAITING_MAX: usize = 64;
/// Most bytes that wait for one path; more are written at once.
const PATH_BYTES_MAX: usize = 16 * 1024;
/// How often descriptors are looked through for unused ones, in milliseconds.
const EXPIRE_EVERY_MS: u64 = 1000;

#[derive(Debug, Default)]
pub(super) struct PathLogs {
    waiting: HashMap<Vec<u8>, Waiting>,
    cache: HashMap<Vec<u8>, Cached>,
    expire_at: Option<u64>,
}

#[derive(Debug)]
struct Waiting {
    bytes: Vec<u8>,
    cache: Option<OpenLogFileCache>,
    lines: u64,
}

#[derive(Debug)]
struct Cached {
    /// `None` until the path was used often enough.
    file: Option<(LogFile, FileIdentity)>,
    /// Uses since `counted_since`.
    uses: u64,
    counted_since: u64,
    /// Also kept for paths that were not used often enough, to count their uses.
    last_used: u64,
    checked_at: u64,
    inactive_ms: u64,
}

impl PathLogs {
    /// Gathers a line for `path`.
    pub(super) fn append(
        &mut self,
        path: &[u8],
        line: &[u8],
        cache: Option<&OpenLogFileCache>,
        now_ms: u64,
        reports: &mut Reports,
    ) {
        if !self.waiting.contains_key(path) {
            if self.waiting.len() >= PATHS_WAITING_MAX {
                self.flush(now_ms, reports);
            }
            let waiting = Waiting { bytes: Vec::new(), cache: cache.copied(), lines: 0 };
            self.waiting.insert(path.to_vec(), waiting);
        }
        let Some(waiting) = self.waiting.get_mut(path) else { return };
        waiting.bytes.extend_from_slice(line);
        waiting.bytes.push(b'\n');
        waiting.lines += 1;
        if waiting.bytes.len() >= PATH_BYTES_MAX
            && let Some(waiting) = self.waiting.remove(path)
        {
            self.write(path, &waiting, now_ms, reports);
        }
    }

    /// True if lines wait for the end of the turn.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// When [`PathLogs::expire`] has something to do.
    pub(super) fn due(&self) -> Option<u64> {
        self.expire_at
    }

    /// Writes all that waits.
    pub(super) fn flush(&mut self, now_ms: u64, reports: &mut Reports) {
        for (path, waiting) in std::mem::take(&mut self.waiting) {
            self.write(&path, &waiting, now_ms, reports);
        }
    }

    /// Closes what was not used for its `inactive` time.
    pub(super) fn expire(&mut self, now_ms: u64) {
        if self.expire_at.is_some_and(|at| at <= now_ms) {
            self.cache.retain(|_, cached| now_ms < cached.last_used.saturating_add(cached.inactive_ms));
            let more = (!self.cache.is_empty()).then(|| now_ms.saturating_add(EXPIRE_EVERY_MS));
            self.expire_at = more;
        }
    }

    /// Closes every kept descriptor: logs are being rotated.
    pub(super) fn close_all(&mut self) {
        self.cache.clear();
        self.expire_at = None;
    }

    fn write(&mut self, path: &[u8], waiting: &Waiting, now_ms: u64, reports: &mut Reports) {
        let outcome = match &waiting.cache {
            None => LogFile::open(path, None).map(|file| file.write(&waiting.bytes)),
            Some(settings) => self.write_cached(path, waiting, settings, now_ms),
        };
        let name = || String::from_utf8_lossy(path);
        match outcome {
            Ok((_, None)) => {}
            Err(error) => {
                reports.add(Level::Crit, format!("open() \"{}\" failed {}", name(), error_text(&error)));
            }
            // Nothing waits for a file that may never be named again.
            Ok((written, Some(error))) => {
                let length = waiting.bytes.len();
                let error = error_text(&error);
                let text = format!("write() to \"{}\" was incomplete: {written} of {length} {error}", name());
                reports.add(Level::Alert, text);
            }
        }
    }

    /// Writes by the descriptor that is kept for `path`, if it is and still names the same file.
    fn write_cached(
        &mut self,
        path: &[u8],
        waiting: &Waiting,
        settings: &OpenLogFileCache,
        now_ms: u64,
    ) -> std::io::Result<(usize, Option<std::io::Error>)> {
        if !self.cache.contains_key(path) {
            self.make_room(settings.max);
        }
        self.expire_at.get_or_insert_with(|| now_ms.saturating_add(EXPIRE_EVERY_MS));
        let cached = self.cache.entry(path.to_vec()).or_insert_with(|| Cached::new(now_ms));
        cached.count(waiting.lines, settings, now_ms);
        let file = match cached.file.take() {
            Some(file) if cached.is_current(&file, path, settings, now_ms) => file,
            _ => {
                cached.checked_at = now_ms;
                let file = LogFile::open(path, None)?;
                let identity = file.identity()?;
                (file, identity)
            }
        };
        let outcome = file.0.write(&waiting.bytes);
        if cached.uses >= settings.min_uses {
            cached.file = Some(file);
        }
        Ok(outcome)
    }

    fn make_room(&mut self, max: usize) {
        while self.cache.len() >= max.max(1) {
            let oldest = self.cache.iter().min_by_key(|(_, cached)| cached.last_used);
            let Some(path) = oldest.map(|(path, _)| path.clone()) else { return };
            self.cache.remove(&path);
        }
    }
}

impl Cached {
    fn new(now_ms: u64) -> Cached {
        Cached {
            file: None,
            uses: 0,
            counted_since: now_ms,
            last_used: now_ms,
            checked_at: now_ms,
            inactive_ms: 0,
        }
    }

    /// Counts lines; a path that is not used often enough within `inactive` starts again.
    fn count(&mut self, lines: u64, settings: &OpenLogFileCache, now_ms: u64) {
        let window_end = self.counted_since.saturating_add(settings.inactive_ms);
        if now_ms >= window_end && self.uses < settings.min_uses {
            self.counted_since = now_ms;
            self.uses = 0;
        }
        self.uses = self.uses.saturating_add(lines);
        self.last_used = now_ms;
        self.inactive_ms = settings.inactive_ms;
    }

    fn is_current(
        &mut self,
        (_, identity): &(LogFile, FileIdentity),
        path: &[u8],
        settings: &OpenLogFileCache,
        now_ms: u64,
    ) -> bool {
        if now_ms < self.checked_at.saturating_add(settings.valid_ms) {
            return true;
        }
        self.checked_at = now_ms;
        identity_of_path(path).is_ok_and(|named| named == *identity)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::path::PathBuf;

    use super::*;

    struct Fixture {
        folder: tempfile::TempDir,
        logs: PathLogs,
        reports: Reports,
    }

    const CACHE: OpenLogFileCache =
        OpenLogFileCache { max: 2, inactive_ms: 10_000, min_uses: 1, valid_ms: 5000 };

    impl Fixture {
        fn new() -> Fixture {
            let folder = tempfile::tempdir().unwrap();
            Fixture { folder, logs: PathLogs::default(), reports: Reports::default() }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn append(&mut self, name: &str, line: &str, cache: Option<&OpenLogFileCache>, now_ms: u64) {
            let path = self.path(name);
            let path = path.as_os_str().as_bytes();
            self.logs.append(path, line.as_bytes(), cache, now_ms, &mut self.reports);
        }

        /// A line and the end of its turn.
        fn log(&mut self, name: &str, line: &str, cache: Option<&OpenLogFileCache>, now_ms: u64) {
            self.append(name, line, cache, now_ms);
            self.logs.flush(now_ms, &mut self.reports);
        }

        fn content(&self, name: &str) -> String {
            std::fs::read_to_string(self.path(name)).unwrap_or_default()
        }

        fn kept(&self) -> usize {
            self.logs.cache.values().filter(|cached| cached.file.is_some()).count()
        }
    }

    #[test]
    fn without_a_cache_each_turn_opens_the_path_anew() {
        let mut fixture = Fixture::new();
        fixture.append("a", "one", None, 0);
        fixture.append("b", "two", None, 0);
        fixture.append("a", "three", None, 0);
        assert_eq!(fixture.content("a"), "");
        assert!(fixture.logs.is_waiting());
        fixture.logs.flush(0, &mut fixture.reports);
        assert!(!fixture.logs.is_waiting());
        assert_eq!(fixture.content("a"), "one\nthree\n");
        assert_eq!(fixture.content("b"), "two\n");
        std::fs::rename(fixture.path("a"), fixture.path("a.1")).unwrap();
        fixture.log("a", "four", None, 0);
        assert_eq!(fixture.content("a"), "four\n");
        assert_eq!(fixture.kept(), 0);
    }

    #[test]
    fn a_kept_descriptor_is_checked_after_its_validity() {
        let mut fixture = Fixture::new();
        fixture.log("a", "one", Some(&CACHE), 0);
        std::fs::rename(fixture.path("a"), fixture.path("a.1")).unwrap();
        fixture.log("a", "two", Some(&CACHE), 4999);
        fixture.log("a", "three", Some(&CACHE), 5000);
        assert_eq!(fixture.content("a.1"), "one\ntwo\n");
        assert_eq!(fixture.content("a"), "three\n");
    }

    #[test]
    fn the_longest_unused_descriptor_makes_room() {
        let mut fixture = Fixture::new();
        fixture.log("a", "1", Some(&CACHE), 0);
        fixture.log("b", "1", Some(&CACHE), 1);
        fixture.log("a", "2", Some(&CACHE), 2);
        fixture.log("c", "1", Some(&CACHE), 3);
        assert_eq!(fixture.kept(), 2);
        assert!(!fixture.logs.cache.contains_key(fixture.path("b").as_os_str().as_bytes()));
    }

    #[test]
    fn unused_descriptors_are_closed() {
        let mut fixture = Fixture::new();
        fixture.log("a", "1", Some(&CACHE), 0);
        fixture.logs.expire(9999);
        assert_eq!(fixture.kept(), 1);
        assert!(fixture.logs.due().is_some());
        fixture.logs.expire(20_000);
        assert_eq!(fixture.kept(), 0);
        assert_eq!(fixture.logs.due(), None);
    }

    #[test]
    fn a_path_is_kept_only_after_enough_uses() {
        let mut fixture = Fixture::new();
        let cache = OpenLogFileCache { min_uses: 3, ..CACHE };
        fixture.log("a", "1", Some(&cache), 0);
        fixture.log("a", "2", Some(&cache), 0);
        assert_eq!(fixture.kept(), 0);
        fixture.log("a", "3", Some(&cache), 0);
        assert_eq!(fixture.kept(), 1);
        assert_eq!(fixture.content("a"), "1\n2\n3\n");
    }

    #[test]
    fn paths_from_requests_are_bounded() {
        let mut fixture = Fixture::new();
        for number in 0..1000 {
            fixture.append(&format!("host{number}"), "line", None, 0);
            assert!(fixture.logs.waiting.len() <= PATHS_WAITING_MAX);
        }
        for _ in 0..1000 {
            fixture.append("a", &"x".repeat(99), None, 0);
        }
        fixture.logs.flush(0, &mut fixture.reports);
        assert_eq!(fixture.content("host7"), "line\n");
        assert_eq!(fixture.content("a").len(), 100_000);
    }

    #[test]
    fn a_path_that_cannot_be_opened_is_reported() {
        let mut fixture = Fixture::new();
        fixture.log("no/such/folder", "line", Some(&CACHE), 0);
        fixture.log("with\0zero", "line", None, 0);
        let reports = fixture.reports.take();
        assert_eq!(reports.len(), 2);
        assert!(reports[0].text.ends_with("failed (2: No such file or directory)"), "{reports:?}");
        assert_eq!(reports[0].level, Level::Crit);
    }
}
