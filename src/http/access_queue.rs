//! Lines of access logs on their way from the engine to the sinks.
//!
//! The engine renders each line straight into the buffer of its sink; the shell takes the buffers at the end of a loop
//! turn (or earlier, when [`AccessQueue::waiting`] grows) and writes each with one call.

use std::sync::Arc;

use crate::base::log::SinkId;
use crate::conf::log_target::OpenLogFileCache;

/// Most bytes that wait for the shell. It takes them once per turn, and a turn is short; a line on top is dropped and
/// counted rather than held.
pub const QUEUE_BYTES_MAX: usize = 8 << 20;

/// A sink's buffer that grew beyond this (bytes) is given back to the allocator when it was emptied.
const KEPT_CAPACITY: usize = 256 * 1024;

/// The lines of one sink.
#[derive(Debug, Default)]
pub struct Lines {
    /// The lines one behind the other, each with its line end.
    pub text: Vec<u8>,
    /// Where each ends in `text`; a line may hold line ends of its format's own.
    pub ends: Vec<usize>,
}

impl Lines {
    /// The lines one by one, without the line end of each.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let line = &self.text[start..end - 1];
            start = end;
            line
        })
    }
}

/// A line for a file whose path had variables.
#[derive(Debug)]
pub struct PathLine {
    /// The file's path.
    pub path: Vec<u8>,
    /// The request's document root: no log is opened for a root that is no folder, so that requests for hosts that do
    /// not exist make no files.
    pub root: Vec<u8>,
    /// Descriptors kept between lines; the value's address is the cache's identity. Without it the file is opened and
    /// closed for each line.
    pub cache: Option<Arc<OpenLogFileCache>>,
    /// The line without its line end.
    pub line: Vec<u8>,
}

/// A worker's lines of all access logs. Its memory is kept between turns.
#[derive(Debug, Default)]
pub struct AccessQueue {
    /// By number of the sink; numbers are small and are used again across reloads.
    sinks: Vec<Lines>,
    /// Sinks with lines.
    touched: Vec<SinkId>,
    paths: Vec<PathLine>,
    waiting: usize,
    dropped: u64,
}

impl AccessQueue {
    /// The sink's buffer, to render a line at its end; it must come back through [`AccessQueue::end_line`].
    pub fn begin_line(&mut self, sink: SinkId) -> Vec<u8> {
        let index = sink.0 as usize;
        if index >= self.sinks.len() {
            self.sinks.resize_with(index + 1, Lines::default);
        }
        std::mem::take(&mut self.sinks[index].text)
    }

    /// Takes the buffer back with a line more at its end.
    pub fn end_line(&mut self, sink: SinkId, mut text: Vec<u8>) {
        let Some(lines) = self.sinks.get_mut(sink.0 as usize) else { return };
        let start = lines.ends.last().copied().unwrap_or(0);
        debug_assert!(text.len() > start, "a line has at least its line end");
        let length = text.len() - start;
        if self.waiting + length > QUEUE_BYTES_MAX {
            text.truncate(start);
            self.dropped += 1;
        } else {
            if lines.ends.is_empty() {
                self.touched.push(sink);
            }
            lines.ends.push(text.len());
            self.waiting += length;
        }
        lines.text = text;
    }

    /// Adds a line for a file whose path had variables.
    pub fn push_path(&mut self, line: PathLine) {
        let length = line.path.len() + line.root.len() + line.line.len();
        if self.waiting + length > QUEUE_BYTES_MAX {
            self.dropped += 1;
            return;
        }
        self.waiting += length;
        self.paths.push(line);
    }

    /// Bytes that wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// The sinks that have lines, in the order of their first.
    pub fn sinks(&self) -> impl Iterator<Item = (SinkId, &Lines)> {
        self.touched.iter().map(|&sink| (sink, &self.sinks[sink.0 as usize]))
    }

    /// The lines for paths with variables, oldest first.
    pub fn paths(&self) -> &[PathLine] {
        &self.paths
    }

    /// Empties the queue; returns how many lines were dropped because it was full.
    pub fn clear(&mut self) -> u64 {
        for sink in self.touched.drain(..) {
            let lines = &mut self.sinks[sink.0 as usize];
            lines.text.clear();
            lines.ends.clear();
            if lines.text.capacity() > KEPT_CAPACITY {
                *lines = Lines::default();
            }
        }
        self.paths.clear();
        self.waiting = 0;
        std::mem::take(&mut self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(queue: &mut AccessQueue, sink: u32, line: &[u8]) {
        let mut text = queue.begin_line(SinkId(sink));
        text.extend_from_slice(line);
        queue.end_line(SinkId(sink), text);
    }

    #[test]
    fn lines_are_gathered_by_sink() {
        let mut queue = AccessQueue::default();
        push(&mut queue, 3, b"a\n");
        push(&mut queue, 0, b"b\n");
        push(&mut queue, 3, b"c\nc\n");
        let sinks: Vec<_> = queue.sinks().map(|(sink, lines)| (sink.0, lines.text.clone())).collect();
        assert_eq!(sinks, [(3, b"a\nc\nc\n".to_vec()), (0, b"b\n".to_vec())]);
        let lines: Vec<_> = queue.sinks().next().unwrap().1.iter().collect();
        assert_eq!(lines, [&b"a"[..], b"c\nc"]);
        assert_eq!(queue.waiting(), 8);
        assert_eq!(queue.clear(), 0);
        assert_eq!((queue.sinks().count(), queue.waiting()), (0, 0));
        push(&mut queue, 3, b"d\n");
        assert_eq!(queue.sinks().next().unwrap().1.text, b"d\n");
    }

    #[test]
    fn a_full_queue_drops_whole_lines_and_counts_them() {
        let mut queue = AccessQueue::default();
        let line = vec![b'x'; 3 << 20];
        for _ in 0..4 {
            push(&mut queue, 1, &line);
        }
        let path = PathLine { path: vec![0; 1 << 20], root: Vec::new(), cache: None, line: line.clone() };
        queue.push_path(path);
        assert_eq!(queue.sinks().next().unwrap().1.text.len(), 6 << 20);
        assert_eq!(queue.sinks().next().unwrap().1.iter().count(), 2);
        assert!(queue.paths().is_empty());
        assert_eq!(queue.clear(), 3);
        push(&mut queue, 1, b"after\n");
        assert_eq!(queue.sinks().next().unwrap().1.text, b"after\n");
    }
}
