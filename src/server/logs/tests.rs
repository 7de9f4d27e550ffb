use std::net::UdpSocket;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::base::log::{ErrorTarget, ErrorTargets};
use crate::conf::log_list::LogList;
use crate::conf::log_target::{AccessLogOptions, LogTarget};
use crate::http::access_queue::PathLine;

fn at(now_ms: u64) -> LogTime<'static> {
    LogTime { now_ms, text: b"2026/11/21 02:26:00" }
}

struct Fixture {
    folder: tempfile::TempDir,
    list: LogList,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture { folder: tempfile::tempdir().unwrap(), list: LogList::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn target(&self, name: &str) -> LogTarget {
        LogTarget::File(self.path(name).as_os_str().as_bytes().to_vec())
    }

    fn access(&mut self, name: &str, options: AccessLogOptions) -> SinkId {
        let target = self.target(name);
        self.list.access_log(target, options).unwrap()
    }

    fn error(&mut self, name: &str) -> SinkId {
        let target = self.target(name);
        self.list.error_log(target)
    }

    fn content(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }
}

fn sinks(logs: &OpenLogs) -> LogSinks {
    let mut sinks = LogSinks::new(12, 13);
    sinks.adopt(logs, at(0));
    sinks
}

fn buffered(size: u64, flush_ms: Option<u64>) -> AccessLogOptions {
    AccessLogOptions { buffer: Some(size), flush_ms, gzip: None }
}

#[test]
fn lines_are_written_at_the_end_of_the_turn() {
    let mut fixture = Fixture::new();
    let a = fixture.access("a", AccessLogOptions::default());
    let logs = OpenLogs::open(&fixture.list, None).unwrap();
    let mut sinks = sinks(&logs);
    sinks.write_line(a, b"one", at(0));
    sinks.write_line(a, b"two", at(0));
    assert_eq!(fixture.content("a"), "");
    sinks.end_of_turn(at(0));
    assert_eq!(fixture.content("a"), "one\ntwo\n");
    assert_eq!(sinks.next_deadline(), None);
    sinks.write_line(SinkId(99), b"nobody's", at(0));
    sinks.end_of_turn(at(0));
}

#[test]
fn messages_go_to_every_target_that_takes_their_level() {
    let mut fixture = Fixture::new();
    let (a, b) = (fixture.error("a"), fixture.error("b"));
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let word = format!("syslog:server={},tag=t,nohostname", server.local_addr().unwrap());
    let c = fixture.list.error_log(LogTarget::parse_error_log(word.as_bytes()).unwrap());
    let logs = OpenLogs::open(&fixture.list, None).unwrap();
    let mut sinks = sinks(&logs);
    let target = |sink, level| ErrorTarget { sink, level };
    let targets: ErrorTargets =
        Arc::from([target(a, Level::Error), target(b, Level::Info), target(c, Level::Warn)]);
    let mut queue = LogQueue::default();
    queue.push(&targets, Level::Warn, Some(5), format_args!("careful"));
    queue.push(&targets, Level::Crit, None, format_args!("gone"));
    sinks.write_errors(&mut queue, at(0));
    sinks.end_of_turn(at(0));
    assert!(queue.is_empty());
    assert_eq!(fixture.content("a"), "2026/11/21 02:26:00 [crit] 12#13: gone\n");
    assert_eq!(
        fixture.content("b"),
        "2026/11/21 02:26:00 [warn] 12#13: *5 careful\n2026/11/21 02:26:00 [crit] 12#13: gone\n"
    );
    let mut buffer = [0; 200];
    let length = server.recv(&mut buffer).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&buffer[..length]),
        "<188>Nov 21 02:26:00 t: 2026/11/21 02:26:00 [warn] 12#13: *5 careful"
    );
}

#[test]
fn messages_dropped_from_a_full_queue_are_reported() {
    let mut fixture = Fixture::new();
    let a = fixture.error("a");
    let logs = OpenLogs::open(&fixture.list, None).unwrap();
    let mut sinks = sinks(&logs);
    let targets: ErrorTargets = Arc::from([ErrorTarget { sink: a, level: Level::Debug }]);
    let mut queue = LogQueue::default();
    for _ in 0..600 {
        queue.push(&targets, Level::Debug, None, format_args!("{:3000}", ' '));
    }
    sinks.write_errors(&mut queue, at(0));
    assert!(sinks.has_reports());
    assert_eq!(sinks.take_reports()[0].text, "88 messages were dropped: too many in one turn");
}

#[test]
fn a_flush_time_sets_a_deadline() {
    let mut fixture = Fixture::new();
    let a = fixture.access("a", buffered(4096, Some(500)));
    let b = fixture.access("b", buffered(4096, Some(900)));
    let logs = OpenLogs::open(&fixture.list, None).unwrap();
    let mut sinks = sinks(&logs);
    sinks.write_line(b, b"b", at(0));
    sinks.write_line(a, b"a", at(0));
    sinks.end_of_turn(at(0));
    assert_eq!(sinks.next_deadline(), Some(500));
    sinks.end_of_turn(at(499));
    assert_eq!(fixture.content("a"), "");
    sinks.end_of_turn(at(500));
    assert_eq!((fixture.content("a"), fixture.content("b")), ("a\n".into(), String::new()));
    assert_eq!(sinks.next_deadline(), Some(900));
    sinks.end_of_turn(at(1000));
    assert_eq!(fixture.content("b"), "b\n");
    assert_eq!(sinks.next_deadline(), None);
}

#[test]
fn rotation_moves_lines_to_the_new_file() {
    let mut fixture = Fixture::new();
    let a = fixture.access("a", AccessLogOptions::default());
    let b = fixture.access("b", buffered(4096, None));
    let logs = OpenLogs::open(&fixture.list, None).unwrap();
    let mut sinks = sinks(&logs);
    sinks.write_line(a, b"old", at(0));
    sinks.write_line(b, b"old", at(0));
    for name in ["a", "b"] {
        std::fs::rename(fixture.path(name), fixture.path(&format!("{name}.1"))).unwrap();
    }
    let (reopened, errors) = logs.reopen(None);
    assert!(errors.is_empty());
    sinks.adopt(&reopened, at(0));
    sinks.write_line(a, b"new", at(0));
    sinks.write_line(b, b"new", at(0));
    assert_eq!(sinks.flush_all(at(0)), 0);
    for name in ["a", "b"] {
        assert_eq!(fixture.content(&format!("{name}.1")), "old\n");
        assert_eq!(fixture.content(name), "new\n");
    }
}

#[test]
fn rotation_closes_descriptors_of_paths_with_variables() {
    let fixture = Fixture::new();
    let logs = OpenLogs::open(&fixture.list, None).unwrap();
    let mut sinks = sinks(&logs);
    let cache = OpenLogFileCache { max: 10, inactive_ms: 60_000, min_uses: 1, valid_ms: 60_000 };
    let path = fixture.path("v");
    sinks.write_to_path(path.as_os_str().as_bytes(), b"old", Some(&cache), at(0));
    sinks.end_of_turn(at(0));
    assert!(sinks.next_deadline().is_some());
    std::fs::rename(&path, fixture.path("v.1")).unwrap();
    sinks.adopt(&logs.reopen(None).0, at(1));
    sinks.write_to_path(path.as_os_str().as_bytes(), b"new", Some(&cache), at(2));
    sinks.end_of_turn(at(2));
    assert_eq!((fixture.content("v.1"), fixture.content("v")), ("old\n".into(), "new\n".into()));
}

#[test]
fn a_reload_carries_sinks_over_without_losing_lines() {
    let mut fixture = Fixture::new();
    let a = fixture.access("a", buffered(4096, None));
    let b = fixture.access("b", buffered(4096, None));
    let logs = OpenLogs::open(&fixture.list, None).unwrap();
    let mut sinks = sinks(&logs);
    sinks.write_line(a, b"before", at(0));
    sinks.write_line(b, b"before", at(0));

    fixture.list = LogList::after(&fixture.list);
    let c = fixture.access("c", AccessLogOptions::default());
    assert_eq!(fixture.access("a", buffered(4096, None)), a);
    let reloaded = OpenLogs::open(&fixture.list, Some(&logs)).unwrap();
    sinks.adopt(&reloaded, at(1));
    assert_eq!(fixture.content("a"), "");
    // A request of the old configuration ends after the reload.
    sinks.write_line(b, b"after", at(2));
    sinks.write_line(a, b"after", at(2));
    sinks.write_line(c, b"after", at(2));
    sinks.retain_only(&reloaded, at(3));
    assert_eq!(fixture.content("b"), "before\nafter\n");
    sinks.write_line(b, b"too late", at(4));
    assert_eq!(sinks.flush_all(at(4)), 0);
    assert_eq!(fixture.content("a"), "before\nafter\n");
    assert_eq!(fixture.content("b"), "before\nafter\n");
    assert_eq!(fixture.content("c"), "after\n");
}

#[test]
fn a_full_disk_is_tried_again_by_the_deadline() {
    let mut fixture = Fixture::new();
    let full = fixture.list.access_log(LogTarget::File(b"/dev/full".to_vec()), AccessLogOptions::default());
    let full = full.unwrap();
    let logs = OpenLogs::open(&fixture.list, None).unwrap();
    let mut sinks = sinks(&logs);
    sinks.write_line(full, b"line", at(0));
    sinks.end_of_turn(at(0));
    assert_eq!(sinks.take_reports().len(), 1);
    assert_eq!(sinks.next_deadline(), Some(1000));
    sinks.end_of_turn(at(1000));
    assert!(!sinks.has_reports());
    assert_eq!(sinks.next_deadline(), Some(2000));
    assert_eq!(sinks.flush_all(at(1500)), 5);
}

#[test]
fn workers_append_whole_lines_to_one_file() {
    let mut fixture = Fixture::new();
    let a = fixture.access("a", AccessLogOptions::default());
    let logs = OpenLogs::open(&fixture.list, None).unwrap();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let logs = &logs;
            scope.spawn(move || {
                let mut sinks = sinks(logs);
                for turn in 0..200 {
                    for _ in 0..5 {
                        let line = format!("worker {worker} turn {turn} {}", "x".repeat(turn));
                        sinks.write_line(a, line.as_bytes(), at(turn as u64));
                    }
                    sinks.end_of_turn(at(turn as u64));
                }
            });
        }
    });
    let content = fixture.content("a");
    assert_eq!(content.lines().count(), 4000);
    for line in content.lines() {
        let mut words = line.split(' ');
        let turn: usize = words.nth(3).unwrap().parse().unwrap();
        assert_eq!(words.next().unwrap().len(), turn);
        assert!(line.starts_with("worker ") && words.next().is_none());
    }
}

#[test]
fn access_lines_go_to_their_sinks_and_paths_only_below_a_root_that_is_there() {
    let mut fixture = Fixture::new();
    let sink = fixture.access("a", AccessLogOptions::default());
    let logs = OpenLogs::open(&fixture.list, None).unwrap();
    let mut sinks = sinks(&logs);
    let mut queue = AccessQueue::default();
    for line in ["one\n", "two\n"] {
        let mut text = queue.begin_line(sink);
        text.extend_from_slice(line.as_bytes());
        queue.end_line(sink, text);
    }
    let folder = fixture.folder.path().to_owned();
    for (name, root) in
        [("here", folder.clone()), ("missing", folder.join("nowhere")), ("file", folder.join("a"))]
    {
        queue.push_path(PathLine {
            path: fixture.path(name).as_os_str().as_bytes().to_vec(),
            root: root.as_os_str().as_bytes().to_vec(),
            cache: None,
            line: b"three".to_vec(),
        });
    }
    sinks.write_access(&mut queue, at(0));
    sinks.end_of_turn(at(0));
    assert_eq!(queue.waiting(), 0);
    assert_eq!(fixture.content("a"), "one\ntwo\n");
    assert_eq!(fixture.content("here"), "three\n");
    assert!(!fixture.path("missing").exists() && !fixture.path("file").exists());
    assert!(!sinks.has_reports());
}
