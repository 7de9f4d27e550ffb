//! Every text that a configuration was read from, and how to speak about places in it.

use std::collections::HashMap;
use std::sync::Arc;

pub use super::files::{FileError, Files, MAX_FILE_SIZE, MemoryFiles};

/// One text in a [`SourceMap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u32);

/// A range of bytes in one text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    pub file: FileId,
    /// The first byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// From the start of this one to the end of the other, of the same text.
    #[must_use]
    pub fn to(self, end: Span) -> Span {
        debug_assert_eq!(self.file, end.file, "a span lies within one text");
        Span { file: self.file, start: self.start, end: end.end.max(self.start) }
    }

    /// The empty place right behind this span, where something is missing.
    #[must_use]
    pub fn after(self) -> Span {
        Span { file: self.file, start: self.end, end: self.end }
    }
}

/// How a text came in, which decides how messages name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Read from a file: `in /path:12`, and part of the `-T` dump.
    File,
    /// Made in memory under a name: `in name:12`.
    Memory,
    /// The `-g` option: `in command line`, without a line, as in nginx.
    CommandLine,
}

/// One text.
#[derive(Debug)]
pub struct Source {
    /// The path as it was opened, or the name that the text was given.
    pub path: String,
    /// The bytes as they are; nothing says that they are UTF-8.
    pub text: Arc<[u8]>,
    pub origin: Origin,
    /// Where each line begins; the first at 0.
    line_starts: Vec<u32>,
}

impl Source {
    fn new(path: String, text: Vec<u8>, origin: Origin) -> Self {
        debug_assert!(text.len() <= MAX_FILE_SIZE);
        let mut line_starts = vec![0];
        line_starts.extend(memchr::memchr_iter(b'\n', &text).map(|at| at as u32 + 1));
        Self { path, text: text.into(), origin, line_starts }
    }

    /// The line that holds this offset, from 1.
    pub fn line_of(&self, offset: u32) -> u32 {
        self.line_starts.partition_point(|&start| start <= offset) as u32
    }

    /// The bytes of a line (from 1), without its end (LF or CR LF). Empty for a line that is not there.
    pub fn line_text(&self, line: u32) -> &[u8] {
        let Some(range) = self.line_range(line) else { return &[] };
        let text = &self.text[range];
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        text.strip_suffix(b"\r").unwrap_or(text)
    }

    /// Where a line (from 1) begins.
    pub fn line_start(&self, line: u32) -> Option<u32> {
        self.line_starts.get((line as usize).checked_sub(1)?).copied()
    }

    fn line_range(&self, line: u32) -> Option<std::ops::Range<usize>> {
        let start = self.line_start(line)? as usize;
        let end = self.line_start(line + 1).map_or(self.text.len(), |next| next as usize);
        Some(start..end)
    }
}

/// One use of a text: the main configuration, or one `include` of it. The same file included from two places has one
/// [`FileId`] and two of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IncludeId(pub u32);

/// How a text came to be part of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Inclusion {
    /// The `include` directive, and the use of the text that it stands in. `None` for a root.
    pub from: Option<(Span, IncludeId)>,
}

/// All texts of a configuration, each once however often it is included, in the order of their first use.
#[derive(Debug, Default)]
pub struct SourceMap {
    sources: Vec<Source>,
    by_path: HashMap<String, FileId>,
    inclusions: Vec<Inclusion>,
}

impl SourceMap {
    /// Without any text.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a text; only files can be found again by their path.
    pub fn add(&mut self, path: impl Into<String>, text: Vec<u8>, origin: Origin) -> FileId {
        let path = path.into();
        let id = FileId(self.sources.len() as u32);
        if origin == Origin::File {
            self.by_path.insert(path.clone(), id);
        }
        self.sources.push(Source::new(path, text, origin));
        id
    }

    /// A file that was added before.
    pub fn find(&self, path: &str) -> Option<FileId> {
        self.by_path.get(path).copied()
    }

    /// The text of an id that this map gave out.
    pub fn source(&self, file: FileId) -> &Source {
        &self.sources[file.0 as usize]
    }

    /// All texts, in the order of their first use.
    pub fn iter(&self) -> impl Iterator<Item = &Source> {
        self.sources.iter()
    }

    /// The bytes of a span.
    pub fn text(&self, span: Span) -> &[u8] {
        &self.source(span.file).text[span.start as usize..span.end as usize]
    }

    /// Line and column of the span's start, both from 1; the column counts bytes.
    pub fn line_column(&self, span: Span) -> (u32, u32) {
        let source = self.source(span.file);
        let line = source.line_of(span.start);
        (line, span.start - source.line_start(line).unwrap_or(0) + 1)
    }

    /// The place as nginx ends its messages: `/path/file:12`, or `command line`.
    pub fn place(&self, span: Span) -> String {
        let source = self.source(span.file);
        match source.origin {
            Origin::CommandLine => "command line".to_owned(),
            Origin::File | Origin::Memory => format!("{}:{}", source.path, source.line_of(span.start)),
        }
    }

    /// Records a use of a text.
    pub fn add_inclusion(&mut self, inclusion: Inclusion) -> IncludeId {
        let id = IncludeId(self.inclusions.len() as u32);
        self.inclusions.push(inclusion);
        id
    }

    /// The `include` directives that led to this use, the nearest first; none for a root.
    pub fn include_chain(&self, include: IncludeId) -> Vec<Span> {
        let mut chain = Vec::new();
        let mut next = self.inclusions.get(include.0 as usize).and_then(|inclusion| inclusion.from);
        while let Some((span, parent)) = next {
            chain.push(span);
            next = self.inclusions.get(parent.0 as usize).and_then(|inclusion| inclusion.from);
        }
        chain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(file: FileId, start: u32, end: u32) -> Span {
        Span { file, start, end }
    }

    #[test]
    fn lines_and_columns_count_from_one() {
        let mut sources = SourceMap::new();
        let file = sources.add("/c", b"ab\r\nc\n".to_vec(), Origin::File);
        assert_eq!(sources.line_column(span(file, 0, 1)), (1, 1));
        assert_eq!(sources.line_column(span(file, 4, 5)), (2, 1));
        assert_eq!(sources.line_column(span(file, 6, 6)), (3, 1), "the end of the text is a place too");
        assert_eq!(sources.source(file).line_text(1), b"ab");
        assert_eq!(sources.source(file).line_text(9), b"");
        assert_eq!(sources.place(span(file, 4, 5)), "/c:2");
    }

    #[test]
    fn the_command_line_has_no_lines() {
        let mut sources = SourceMap::new();
        let file = sources.add("-g", b"a;".to_vec(), Origin::CommandLine);
        assert_eq!(sources.place(span(file, 0, 1)), "command line");
    }

    #[test]
    fn a_chain_of_includes_leads_back_to_the_root() {
        let mut sources = SourceMap::new();
        let main = sources.add("/main", b"include a;".to_vec(), Origin::File);
        let part = sources.add("/a", b"include b;".to_vec(), Origin::File);
        let root = sources.add_inclusion(Inclusion { from: None });
        let first = span(main, 0, 10);
        let inner = sources.add_inclusion(Inclusion { from: Some((first, root)) });
        let second = span(part, 0, 10);
        let innermost = sources.add_inclusion(Inclusion { from: Some((second, inner)) });
        assert_eq!(sources.include_chain(innermost), [second, first]);
        assert!(sources.include_chain(root).is_empty());
    }
}
