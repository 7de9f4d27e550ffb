//! Lines for the error log, on their way from code without I/O to the sinks.
//!
//! Such code appends messages to its worker's [`LogQueue`]; the shell drains it at the end of each loop turn and puts
//! nginx's prefix (time, level, process) in front. Who writes a message first asks [`admits`], so that a message that
//! nobody takes is never formatted.

use std::fmt;
use std::io::Write;
use std::sync::Arc;

use crate::base::level::Level;

/// Number of a log sink: given by the configuration's list of targets, the same across reloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SinkId(pub u32);

/// One `error_log` that is in force at some place of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorTarget {
    pub sink: SinkId,
    /// Takes lines of this level and more severe ones.
    pub level: Level,
}

/// The `error_log`s of one place, frozen with its site.
pub type ErrorTargets = Arc<[ErrorTarget]>;

/// True if any of `targets` takes a line of `level`.
pub fn admits(targets: &[ErrorTarget], level: Level) -> bool {
    targets.iter().any(|target| target.level.admits(level))
}

/// Longest line of the error log in bytes, with its prefix and its line end (nginx's NGX_MAX_ERROR_STR).
pub const ERROR_LINE_MAX: usize = 2048;

/// Most bytes of messages that wait for the end of a turn. Enough for some five hundred of the longest; what comes
/// on top is counted and reported as one line.
pub const QUEUE_BYTES_MAX: usize = 1 << 20;

/// One message of the queue.
#[derive(Clone, Debug)]
struct Entry {
    targets: ErrorTargets,
    level: Level,
    connection: Option<u64>,
    /// End of its text in the queue's bytes; it begins where the one before ends.
    end: usize,
}

/// A message as the sinks see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorMessage<'a> {
    pub targets: &'a [ErrorTarget],
    pub level: Level,
    /// Number of the connection that it is about, shown as `*17`.
    pub connection: Option<u64>,
    /// The message with its tail (`, client: ..., server: ...`), cut at [`ERROR_LINE_MAX`].
    pub text: &'a [u8],
}

/// A worker's queue of messages. Its memory is kept between turns.
#[derive(Debug, Default)]
pub struct LogQueue {
    entries: Vec<Entry>,
    bytes: Vec<u8>,
    dropped: u64,
}

impl LogQueue {
    /// Appends a message, if one of `targets` takes its level. `message` and `tail` are written one behind the other
    /// and cut together at [`ERROR_LINE_MAX`].
    pub fn push(
        &mut self,
        targets: &ErrorTargets,
        level: Level,
        connection: Option<u64>,
        message: fmt::Arguments<'_>,
    ) {
        self.push_with(targets, level, connection, |text| {
            // A text that is cut reports an error here, which is no news.
            let _ = text.write_fmt(message);
        });
    }

    /// As [`LogQueue::push`], for a message whose parts are bytes: `write` writes them; what does not fit is cut.
    pub fn push_with(
        &mut self,
        targets: &ErrorTargets,
        level: Level,
        connection: Option<u64>,
        write: impl FnOnce(&mut LineWriter<'_>),
    ) {
        if !admits(targets, level) {
            return;
        }
        if self.bytes.len() + ERROR_LINE_MAX > QUEUE_BYTES_MAX {
            self.dropped += 1;
            return;
        }
        let limit = self.bytes.len() + ERROR_LINE_MAX;
        write(&mut LineWriter { bytes: &mut self.bytes, limit });
        self.entries.push(Entry { targets: targets.clone(), level, connection, end: self.bytes.len() });
    }

    /// True if no message waits and none was dropped.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.dropped == 0
    }

    /// The waiting messages, oldest first.
    pub fn messages(&self) -> impl Iterator<Item = ErrorMessage<'_>> {
        let mut start = 0;
        self.entries.iter().map(move |entry| {
            let text = &self.bytes[start..entry.end];
            start = entry.end;
            ErrorMessage { targets: &entry.targets, level: entry.level, connection: entry.connection, text }
        })
    }

    /// Empties the queue; returns how many messages were dropped because it was full.
    pub fn clear(&mut self) -> u64 {
        self.entries.clear();
        self.bytes.clear();
        std::mem::take(&mut self.dropped)
    }
}

/// Writes one message, cutting it at its limit.
#[derive(Debug)]
pub struct LineWriter<'a> {
    bytes: &'a mut Vec<u8>,
    limit: usize,
}

impl LineWriter<'_> {
    /// Appends bytes as they are.
    pub fn push(&mut self, bytes: &[u8]) {
        let room = self.limit - self.bytes.len();
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

impl Write for LineWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let room = self.limit - self.bytes.len();
        self.push(bytes);
        Ok(bytes.len().min(room))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Appends a whole line of the error log to `out`: `2026/11/21 02:26:00 [error] 12#13: *7 message` and a line end. It
/// is cut at [`ERROR_LINE_MAX`]. Control bytes are written as `\x0A`: a message may quote what a client sent, and a
/// client must not be able to forge a line.
pub fn render_error_line(
    out: &mut Vec<u8>,
    time: &[u8; 19],
    process: u32,
    thread: u32,
    message: &ErrorMessage<'_>,
) {
    let start = out.len();
    let limit = start + ERROR_LINE_MAX - 1;
    out.extend_from_slice(time);
    let _ = write!(out, " [{}] {process}#{thread}: ", message.level);
    if let Some(connection) = message.connection {
        let _ = write!(out, "*{connection} ");
    }
    for &byte in message.text {
        if out.len() >= limit {
            break;
        }
        if byte < 0x20 && byte != b'\t' || byte == 0x7f {
            let _ = write!(out, "\\x{byte:02X}");
        } else {
            out.push(byte);
        }
    }
    out.truncate(limit);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &[u8; 19] = b"2026/11/21 02:26:00";

    fn targets(level: Level) -> ErrorTargets {
        Arc::from([ErrorTarget { sink: SinkId(3), level }])
    }

    fn line(message: &ErrorMessage<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        render_error_line(&mut out, TIME, 12, 13, message);
        out
    }

    #[test]
    fn messages_come_out_in_order_with_their_parts() {
        let mut queue = LogQueue::default();
        let errors = targets(Level::Error);
        queue.push(&errors, Level::Error, Some(7), format_args!("first {}", 1));
        queue.push(&errors, Level::Info, Some(8), format_args!("not taken"));
        queue.push_with(&errors, Level::Crit, None, |text| {
            text.push(b"second, \xff");
            text.push(b", host: \"h\"");
        });
        let messages: Vec<_> = queue.messages().collect();
        assert_eq!(messages.len(), 2);
        assert_eq!(messages[0].text, b"first 1");
        assert_eq!(messages[0].connection, Some(7));
        assert_eq!(messages[1].text, b"second, \xff, host: \"h\"");
        assert_eq!(messages[1].level, Level::Crit);
        assert_eq!(queue.clear(), 0);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_line_has_nginx_shape() {
        let message =
            ErrorMessage { targets: &[], level: Level::Error, connection: Some(7), text: b"open() failed" };
        assert_eq!(line(&message), b"2026/11/21 02:26:00 [error] 12#13: *7 open() failed\n");
        let message = ErrorMessage { connection: None, level: Level::Notice, ..message };
        assert_eq!(line(&message), b"2026/11/21 02:26:00 [notice] 12#13: open() failed\n");
    }

    #[test]
    fn a_long_line_is_cut_at_nginx_limit() {
        let text = vec![b'x'; 5000];
        let message = ErrorMessage { targets: &[], level: Level::Error, connection: None, text: &text };
        let cut = line(&message);
        assert_eq!(cut.len(), ERROR_LINE_MAX);
        assert!(cut.ends_with(b"x\n"));
        // An escape that would cross the limit is cut too.
        let text = vec![b'\n'; 5000];
        let message = ErrorMessage { text: &text, ..message };
        assert_eq!(line(&message).len(), ERROR_LINE_MAX);
    }

    #[test]
    fn a_client_cannot_forge_a_line() {
        let text = b"open() \"/a\r\n2026/11/21 forged\x1b[2J\" failed";
        let message = ErrorMessage { targets: &[], level: Level::Error, connection: None, text };
        let line = line(&message);
        assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
        let text = String::from_utf8(line).unwrap();
        assert!(text.contains("\"/a\\x0D\\x0A2026/11/21 forged\\x1B[2J\""), "{text}");
    }

    #[test]
    fn a_full_queue_counts_what_it_drops() {
        let mut queue = LogQueue::default();
        let all = targets(Level::Debug);
        let text = "y".repeat(ERROR_LINE_MAX * 2);
        for _ in 0..600 {
            queue.push(&all, Level::Debug, None, format_args!("{text}"));
        }
        assert_eq!(queue.messages().count(), 512);
        assert!(queue.messages().all(|message| message.text.len() == ERROR_LINE_MAX));
        assert_eq!(queue.clear(), 88);
        assert_eq!(queue.clear(), 0);
    }
}
