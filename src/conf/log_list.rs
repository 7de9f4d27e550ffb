//! The log targets of one configuration, each under a number that outlives reloads.
//!
//! Identical targets share one number, and so one sink, as nginx's list of open files does. A reload starts from the
//! list before it ([`LogList::after`]): a target that is named again keeps its number, so that requests of the old
//! site and of the new one write to the same sink. Numbers are never given to another target.

use crate::base::log::SinkId;
use crate::conf::log_target::{AccessLogOptions, LogTarget};

/// Which directive a sink serves. Error lines never wait in an access log's buffer, so that a file that both name has
/// two sinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogPurpose {
    Access,
    Error,
}

/// One target of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogListEntry {
    pub id: SinkId,
    pub target: LogTarget,
    pub purpose: LogPurpose,
    pub options: AccessLogOptions,
}

/// See the module. A list is built while a configuration is read, and is frozen with its site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogList {
    entries: Vec<LogListEntry>,
    /// Entries of the configuration before, to be named again.
    earlier: Vec<LogListEntry>,
    next: u32,
}

impl LogList {
    /// An empty list for a reload: its numbers go on from those of `previous`.
    pub fn after(previous: &LogList) -> LogList {
        LogList { entries: Vec::new(), earlier: previous.entries.clone(), next: previous.next }
    }

    /// The sink of an `error_log`.
    pub fn error_log(&mut self, target: LogTarget) -> SinkId {
        let at = self.find_or_add(target, LogPurpose::Error);
        self.entries[at].id
    }

    /// The sink of an `access_log`. Options belong to the target: a file that is named with and without them has
    /// them, and one that is named with different ones is an error (nginx's text, without its place).
    pub fn access_log(&mut self, target: LogTarget, options: AccessLogOptions) -> Result<SinkId, String> {
        let at = self.find_or_add(target, LogPurpose::Access);
        let entry = &mut self.entries[at];
        if options.buffer.is_some() {
            if entry.options.buffer.is_some() && entry.options != options {
                let LogTarget::File(path) = &entry.target else {
                    return Err("access_log already defined with conflicting parameters".into());
                };
                return Err(format!(
                    "access_log \"{}\" already defined with conflicting parameters",
                    String::from_utf8_lossy(path)
                ));
            }
            entry.options = options;
        }
        Ok(entry.id)
    }

    /// The targets that this configuration names, in the order of their first mention.
    pub fn entries(&self) -> &[LogListEntry] {
        &self.entries
    }

    fn find_or_add(&mut self, target: LogTarget, purpose: LogPurpose) -> usize {
        let is_same = |entry: &LogListEntry| entry.purpose == purpose && entry.target == target;
        if let Some(at) = self.entries.iter().position(is_same) {
            return at;
        }
        let id = match self.earlier.iter().find(|entry| is_same(entry)) {
            Some(entry) => entry.id,
            None => {
                self.next += 1;
                SinkId(self.next - 1)
            }
        };
        self.entries.push(LogListEntry { id, target, purpose, options: AccessLogOptions::default() });
        self.entries.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> LogTarget {
        LogTarget::File(name.as_bytes().to_vec())
    }

    fn buffered(size: u64) -> AccessLogOptions {
        AccessLogOptions { buffer: Some(size), ..AccessLogOptions::default() }
    }

    #[test]
    fn identical_targets_share_a_sink() {
        let mut list = LogList::default();
        let access = list.access_log(file("a"), AccessLogOptions::default()).unwrap();
        assert_eq!(list.access_log(file("a"), AccessLogOptions::default()), Ok(access));
        assert_ne!(list.access_log(file("b"), AccessLogOptions::default()), Ok(access));
        assert_ne!(list.error_log(file("a")), access);
        assert_eq!(list.entries().len(), 3);
    }

    #[test]
    fn options_belong_to_the_target_and_must_agree() {
        let mut list = LogList::default();
        list.access_log(file("a"), AccessLogOptions::default()).unwrap();
        list.access_log(file("a"), buffered(4096)).unwrap();
        list.access_log(file("a"), AccessLogOptions::default()).unwrap();
        assert_eq!(list.entries()[0].options, buffered(4096));
        assert_eq!(
            list.access_log(file("a"), buffered(8192)).unwrap_err(),
            "access_log \"a\" already defined with conflicting parameters"
        );
        let flushed = AccessLogOptions { flush_ms: Some(1000), ..buffered(4096) };
        assert!(list.access_log(file("a"), flushed).is_err());
    }

    #[test]
    fn a_reload_keeps_numbers_and_never_gives_one_to_another_target() {
        let mut first = LogList::default();
        let a = first.error_log(file("a"));
        let b = first.error_log(file("b"));
        let mut second = LogList::after(&first);
        let c = second.error_log(file("c"));
        assert_eq!(second.error_log(file("b")), b);
        assert!(c != a && c != b);
        assert_eq!(second.entries().len(), 2);
        let mut third = LogList::after(&second);
        let a_again = third.error_log(file("a"));
        assert!(a_again != a && a_again != b && a_again != c);
        assert_eq!(third.error_log(file("c")), c);
    }

    #[test]
    fn a_reload_takes_the_new_options() {
        let mut first = LogList::default();
        let id = first.access_log(file("a"), buffered(4096)).unwrap();
        let mut second = LogList::after(&first);
        assert_eq!(second.access_log(file("a"), buffered(8192)), Ok(id));
        assert_eq!(second.entries()[0].options, buffered(8192));
    }
}
