//! Lines on their way to one file: gathered, then written whole.
//!
//! Lines gather until the turn ends, or by `buffer=` and `flush=`. What a write could not take waits, in front of what
//! is gathered, and is tried again later: a full disk or a reader that sleeps costs no line until the bound is
//! reached; then the newest are dropped and counted, and the count is reported when lines flow again.

use std::io;
use std::sync::Arc;

use super::file::{LogFile, error_text};
use super::gzip;
use super::report::Reports;
use crate::base::level::Level;
use crate::conf::log_target::AccessLogOptions;

/// Lines without `buffer=` are written before the turn's end when there are so many bytes of them.
const TURN_BYTES: usize = 64 * 1024;
/// Most bytes that wait in a sink, on top of its `buffer=`: what a busy server logs in some seconds.
pub const WAITING_BYTES_MAX: usize = 1 << 20;
/// A file that failed is left alone for so long, in milliseconds (nginx stops writing for a second on a full disk).
pub const RETRY_FAILED_MS: u64 = 1000;
/// A pipe that was full is tried again after so long, in milliseconds.
pub const RETRY_BLOCKED_MS: u64 = 50;

#[derive(Debug)]
pub(super) struct FileSink {
    file: Arc<LogFile>,
    /// The path, for reports.
    name: String,
    options: AccessLogOptions,
    /// Whole lines not yet given to the file.
    gathered: Vec<u8>,
    /// Bytes given to the file; those before `written` went.
    outgoing: Vec<u8>,
    written: usize,
    /// When the oldest gathered line must go, with `flush=`.
    flush_at: Option<u64>,
    /// No write before this time.
    retry_at: Option<u64>,
    is_failing: bool,
    dropped: u64,
}

impl FileSink {
    pub(super) fn new(file: Arc<LogFile>, name: String, options: AccessLogOptions) -> FileSink {
        FileSink {
            file,
            name,
            options,
            gathered: Vec::new(),
            outgoing: Vec::new(),
            written: 0,
            flush_at: None,
            retry_at: None,
            is_failing: false,
            dropped: 0,
        }
    }

    /// Goes on with another descriptor or other options; what waits goes to the old file first, as far as it takes it.
    pub(super) fn replace(
        &mut self,
        file: &Arc<LogFile>,
        options: AccessLogOptions,
        now_ms: u64,
        reports: &mut Reports,
    ) {
        if Arc::ptr_eq(&self.file, file) && self.options == options {
            return;
        }
        self.flush(now_ms, reports);
        if !Arc::ptr_eq(&self.file, file) {
            self.file = file.clone();
            // The rest of a line, or of a gzip member, means nothing at the start of the new file.
            if self.written > 0 {
                self.drop_torn_start();
            }
            // What the old file refused goes to the new one at the next turn.
            self.retry_at = (self.waiting() > 0).then_some(now_ms);
        }
        self.options = options;
    }

    fn drop_torn_start(&mut self) {
        let rest = &self.outgoing[self.written..];
        let torn = match self.options.gzip {
            Some(_) => rest.len(),
            None if self.outgoing[self.written - 1] == b'\n' => 0,
            None => memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1),
        };
        if torn > 0 {
            self.dropped += 1;
        }
        self.outgoing.drain(..self.written + torn);
        self.written = 0;
    }

    /// Appends a line and its end. Returns true if the sink wants [`FileSink::flush`] at the end of the turn.
    pub(super) fn append(&mut self, line: &[u8], now_ms: u64, reports: &mut Reports) -> bool {
        let length = line.len() + 1;
        let buffer = self.options.buffer.map(|size| usize::try_from(size).unwrap_or(usize::MAX));
        if let Some(size) = buffer
            && !self.gathered.is_empty()
            && self.gathered.len() + length > size
        {
            self.flush(now_ms, reports);
        }
        if self.waiting() + length > WAITING_BYTES_MAX.saturating_add(buffer.unwrap_or(0)) {
            self.dropped += 1;
            return buffer.is_none();
        }
        if self.gathered.is_empty() {
            self.flush_at = self.options.flush_ms.map(|after| now_ms.saturating_add(after));
        }
        self.gathered.extend_from_slice(line);
        self.gathered.push(b'\n');
        if self.gathered.len() >= buffer.unwrap_or(TURN_BYTES) {
            self.flush(now_ms, reports);
        }
        buffer.is_none()
    }

    /// When [`FileSink::flush`] is due next, other than at the end of a turn.
    pub(super) fn due(&self) -> Option<u64> {
        match self.retry_at {
            Some(retry) => Some(retry),
            None => self.flush_at,
        }
    }

    /// Bytes that wait.
    pub(super) fn waiting(&self) -> usize {
        self.gathered.len() + self.outgoing.len() - self.written
    }

    /// Forgets an earlier failure, for a last try.
    pub(super) fn retry_now(&mut self) {
        self.retry_at = None;
    }

    /// Writes all that waits, unless the file failed a moment ago.
    pub(super) fn flush(&mut self, now_ms: u64, reports: &mut Reports) {
        if self.retry_at.is_some_and(|retry| now_ms < retry) {
            return;
        }
        // Twice at most: what an earlier try left, then what is gathered.
        while self.waiting() > 0 {
            if self.outgoing.is_empty() {
                self.take_gathered();
            }
            let (written, error) = self.file.write(&self.outgoing[self.written..]);
            self.written += written;
            if let Some(error) = error {
                return self.postpone(&error, now_ms, reports);
            }
            self.outgoing.clear();
            self.written = 0;
        }
        // One burst must not hold its memory for ever.
        let keep = TURN_BYTES * 2;
        self.outgoing.shrink_to(keep);
        self.gathered.shrink_to(keep);
        self.retry_at = None;
        self.is_failing = false;
        if self.dropped > 0 {
            let text = format!("{} lines of log \"{}\" were dropped", self.dropped, self.name);
            reports.add(Level::Alert, text);
            self.dropped = 0;
        }
    }

    fn take_gathered(&mut self) {
        match self.options.gzip {
            Some(level) => {
                gzip::append_member(level, &self.gathered, &mut self.outgoing);
                self.gathered.clear();
            }
            None => std::mem::swap(&mut self.gathered, &mut self.outgoing),
        }
        self.flush_at = None;
    }

    fn postpone(&mut self, error: &io::Error, now_ms: u64, reports: &mut Reports) {
        if error.kind() == io::ErrorKind::WouldBlock {
            self.retry_at = Some(now_ms.saturating_add(RETRY_BLOCKED_MS));
            return;
        }
        self.retry_at = Some(now_ms.saturating_add(RETRY_FAILED_MS));
        if !self.is_failing {
            self.is_failing = true;
            let text = format!("write() to \"{}\" failed {}", self.name, error_text(error));
            reports.add(Level::Alert, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::path::{Path, PathBuf};

    use super::*;

    struct Fixture {
        _folder: tempfile::TempDir,
        path: PathBuf,
        sink: FileSink,
        reports: Reports,
    }

    fn open(path: &Path) -> Arc<LogFile> {
        Arc::new(LogFile::open(path.as_os_str().as_bytes(), None).unwrap())
    }

    fn fixture(options: AccessLogOptions) -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let sink = FileSink::new(open(&path), "a.log".into(), options);
        Fixture { _folder: folder, path, sink, reports: Reports::default() }
    }

    impl Fixture {
        fn append(&mut self, line: &[u8], now_ms: u64) -> bool {
            self.sink.append(line, now_ms, &mut self.reports)
        }

        fn content(&self) -> Vec<u8> {
            std::fs::read(&self.path).unwrap()
        }
    }

    fn buffered(size: u64, flush_ms: Option<u64>) -> AccessLogOptions {
        AccessLogOptions { buffer: Some(size), flush_ms, gzip: None }
    }

    #[test]
    fn lines_of_a_turn_are_written_at_its_end() {
        let mut fixture = fixture(AccessLogOptions::default());
        assert!(fixture.append(b"one", 0));
        assert!(fixture.append(b"two", 0));
        assert_eq!(fixture.content(), b"");
        fixture.sink.flush(0, &mut fixture.reports);
        assert_eq!(fixture.content(), b"one\ntwo\n");
        assert_eq!(fixture.sink.due(), None);
    }

    #[test]
    fn a_buffer_is_written_when_the_next_line_does_not_fit() {
        let mut fixture = fixture(buffered(10, None));
        assert!(!fixture.append(b"1234", 0));
        fixture.append(b"123", 0);
        assert_eq!(fixture.content(), b"");
        fixture.append(b"12", 0);
        assert_eq!(fixture.content(), b"1234\n123\n");
        fixture.append(b"a line that is longer than the buffer", 0);
        assert_eq!(fixture.content(), b"1234\n123\n12\na line that is longer than the buffer\n");
    }

    #[test]
    fn the_flush_time_counts_from_the_oldest_line() {
        let mut fixture = fixture(buffered(1000, Some(500)));
        assert_eq!(fixture.sink.due(), None);
        fixture.append(b"one", 100);
        fixture.append(b"two", 300);
        assert_eq!(fixture.sink.due(), Some(600));
        fixture.sink.flush(600, &mut fixture.reports);
        assert_eq!(fixture.content(), b"one\ntwo\n");
        assert_eq!(fixture.sink.due(), None);
    }

    #[test]
    fn each_flushed_buffer_is_a_gzip_member() {
        let options = AccessLogOptions { buffer: Some(64), flush_ms: None, gzip: Some(4) };
        let mut fixture = fixture(options);
        let lines: Vec<String> = (0..100).map(|n| format!("line number {n}")).collect();
        for line in &lines {
            fixture.append(line.as_bytes(), 0);
        }
        fixture.sink.flush(0, &mut fixture.reports);
        let decoded = gzip::decode(&fixture.content());
        assert_eq!(String::from_utf8(decoded).unwrap(), lines.join("\n") + "\n");
    }

    #[test]
    fn a_full_disk_is_reported_once_and_drops_are_counted() {
        let mut fixture = fixture(AccessLogOptions::default());
        fixture.sink.file = open(Path::new("/dev/full"));
        let line = [b'x'; 1023];
        fixture.append(&line, 0);
        fixture.sink.flush(0, &mut fixture.reports);
        let reports = fixture.reports.take();
        assert_eq!(reports.len(), 1);
        assert_eq!(reports[0].text, "write() to \"a.log\" failed (28: No space left on device)");
        assert_eq!(fixture.sink.due(), Some(RETRY_FAILED_MS));
        for now_ms in 0..2000 {
            fixture.append(&line, now_ms * 5);
            fixture.sink.flush(now_ms * 5, &mut fixture.reports);
        }
        assert!(fixture.reports.is_empty());
        assert!(fixture.sink.waiting() <= WAITING_BYTES_MAX);

        // Room again: all that waited goes out, and the loss is told.
        fixture.sink.file = open(&fixture.path.clone());
        fixture.sink.flush(100_000, &mut fixture.reports);
        assert_eq!(fixture.content().len(), 1024 * 1024);
        let reports = fixture.reports.take();
        assert_eq!(reports.len(), 1);
        assert_eq!(reports[0].text, "977 lines of log \"a.log\" were dropped");
        assert_eq!(fixture.sink.due(), None);
    }

    #[test]
    fn a_pipe_that_nobody_reads_costs_lines_and_not_the_loop() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let mut reports = Reports::default();
        let mut sink = FileSink::new(open(&path), "fifo".into(), AccessLogOptions::default());
        for number in 0..4000u64 {
            let line = format!("{number:01023}");
            sink.append(line.as_bytes(), number, &mut reports);
            sink.flush(number, &mut reports);
        }
        assert!(sink.due().is_some());
        assert!(reports.is_empty());

        // A reader comes: what was kept arrives in order and whole.
        let reader = rustix::fs::open(
            &path,
            rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK,
            rustix::fs::Mode::empty(),
        )
        .unwrap();
        let (mut content, mut piece, mut now_ms) = (Vec::new(), vec![0; 65536], 10_000);
        while sink.waiting() > 0 {
            while let Ok(length) = rustix::io::read(&reader, &mut piece) {
                content.extend_from_slice(&piece[..length]);
            }
            sink.flush(now_ms, &mut reports);
            now_ms += RETRY_BLOCKED_MS;
        }
        while let Ok(length) = rustix::io::read(&reader, &mut piece) {
            if length == 0 {
                break;
            }
            content.extend_from_slice(&piece[..length]);
        }
        let kept = content.len() / 1024;
        assert_eq!(content.len() % 1024, 0);
        for (number, line) in content.chunks(1024).enumerate() {
            assert_eq!(line, format!("{number:01023}\n").as_bytes());
        }
        let reports = reports.take();
        assert_eq!(reports[0].text, format!("{} lines of log \"fifo\" were dropped", 4000 - kept));
    }

    #[test]
    fn a_new_descriptor_gets_no_torn_line() {
        let mut fixture = fixture(AccessLogOptions::default());
        fixture.sink.outgoing = b"half written\nwhole\n".to_vec();
        fixture.sink.written = 5;
        fixture.sink.file = open(Path::new("/dev/full"));
        let file = open(&fixture.path);
        fixture.sink.replace(&file, AccessLogOptions::default(), 0, &mut fixture.reports);
        assert_eq!(fixture.sink.due(), Some(0));
        fixture.sink.flush(0, &mut fixture.reports);
        assert_eq!(fixture.content(), b"whole\n");
    }
}
