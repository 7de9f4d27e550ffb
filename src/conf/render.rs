//! Diagnostics as text: a line each in nginx's shape, or with the source and carets under it for a terminal.

use std::fmt::Write;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::diagnostics::{Diagnostic, Diagnostics, Severity};
use super::source::{FileId, Origin, SourceMap, Span};

/// How many diagnostics are shown if nothing else is asked.
pub const DEFAULT_LIMIT: usize = 50;

/// Labels further away than this many lines from the message's own place get an excerpt of their own.
const MAX_EXCERPT_LINES: u32 = 100;

/// A longer excerpt, in bytes, is not shown: a file of one endless line would fill the screen.
const MAX_EXCERPT: usize = 16 << 10;

/// How diagnostics are shown.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Source lines with carets, notes and help below each message; else the one line alone.
    pub rich: bool,
    /// Colours, by terminal escapes.
    pub colour: bool,
    /// The terminal's columns.
    pub width: usize,
    /// How many are shown; of the rest, only the number is. Errors go before warnings.
    pub limit: usize,
}

impl Style {
    /// One line for each.
    pub fn lines() -> Self {
        Self { rich: false, colour: false, width: 140, limit: DEFAULT_LIMIT }
    }

    /// With source and carets, without colours.
    pub fn rich() -> Self {
        Self { rich: true, ..Self::lines() }
    }
}

/// All diagnostics as they are to be printed, each line with its end.
pub fn render(diagnostics: &Diagnostics, sources: &SourceMap, style: Style) -> String {
    let mut chosen: Vec<(usize, &Diagnostic)> = diagnostics.iter().enumerate().collect();
    chosen.sort_by_key(|(index, diagnostic)| (diagnostic.severity, *index));
    let hidden = chosen.len().saturating_sub(style.limit) + diagnostics.not_kept();
    chosen.truncate(style.limit);
    chosen.sort_by_key(|(index, _)| *index);
    let mut out = String::new();
    for (_, diagnostic) in chosen {
        out += &line(diagnostic, sources);
        out.push('\n');
        if style.rich {
            out += &details(diagnostic, sources, style);
        }
    }
    if hidden > 0 {
        let _ = writeln!(out, "thalweg: [notice] {hidden} more");
    }
    out
}

/// nginx's shape: `thalweg: [emerg] unknown directive "foo" in /path/file:12`. Without a line end, and without any
/// other control character, so that a line stays one.
pub fn line(diagnostic: &Diagnostic, sources: &SourceMap) -> String {
    format!("thalweg: [{}] {}", diagnostic.severity.name(), sentence(diagnostic, sources))
}

/// The message and its place, for a log line that has its own head.
pub fn sentence(diagnostic: &Diagnostic, sources: &SourceMap) -> String {
    let message = printable(&diagnostic.message);
    match diagnostic.span {
        Some(span) => format!("{message} in {}", printable(&sources.place(span))),
        None => message,
    }
}

fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// Everything below the first line: excerpts, then notes, help and the chain of includes.
fn details(diagnostic: &Diagnostic, sources: &SourceMap, style: Style) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Info => Level::INFO,
    };
    let mut group = Group::with_level(level);
    for excerpt in excerpts(diagnostic, sources) {
        group = group.element(excerpt.snippet(sources));
    }
    for note in &diagnostic.notes {
        group = group.element(Level::NOTE.message(printable(note)));
    }
    for help in &diagnostic.helps {
        group = group.element(Level::HELP.message(printable(help)));
    }
    for from in diagnostic.include.map(|include| sources.include_chain(include)).unwrap_or_default() {
        group =
            group.element(Level::NOTE.message(format!("included from {}", printable(&sources.place(from)))));
    }
    if group.is_empty() {
        return String::new();
    }
    let renderer = if style.colour { Renderer::styled() } else { Renderer::plain() };
    let mut text = renderer.term_width(style.width).render(&[group]);
    text.push('\n');
    text
}

/// Some neighbouring lines of one text with the marks in them.
struct Excerpt {
    file: FileId,
    first_line: u32,
    last_line: u32,
    /// Place, word to it, and whether it is the message's own.
    marks: Vec<(Span, Option<String>, bool)>,
}

fn excerpts(diagnostic: &Diagnostic, sources: &SourceMap) -> Vec<Excerpt> {
    let Some(primary) = diagnostic.span else { return Vec::new() };
    let own_label =
        diagnostic.labels.iter().find(|label| label.span == primary).map(|label| label.text.clone());
    let mut excerpts = vec![Excerpt::new(primary, own_label, true, sources)];
    for label in diagnostic.labels.iter().filter(|label| label.span != primary) {
        let next = Excerpt::new(label.span, Some(label.text.clone()), false, sources);
        match excerpts.iter_mut().find(|excerpt| excerpt.is_near(&next)) {
            Some(near) => near.join(next),
            None => excerpts.push(next),
        }
    }
    excerpts
}

impl Excerpt {
    fn new(span: Span, label: Option<String>, primary: bool, sources: &SourceMap) -> Self {
        let source = sources.source(span.file);
        let last = span.end.saturating_sub(1).max(span.start);
        let (first_line, last_line) = (source.line_of(span.start), source.line_of(last));
        Self { file: span.file, first_line, last_line, marks: vec![(span, label, primary)] }
    }

    fn is_near(&self, other: &Self) -> bool {
        let first = self.first_line.min(other.first_line);
        let last = self.last_line.max(other.last_line);
        self.file == other.file && last - first <= MAX_EXCERPT_LINES
    }

    fn join(&mut self, other: Self) {
        self.first_line = self.first_line.min(other.first_line);
        self.last_line = self.last_line.max(other.last_line);
        self.marks.extend(other.marks);
    }

    fn snippet<'a>(&self, sources: &'a SourceMap) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let source = sources.source(self.file);
        let start = source.line_start(self.first_line).unwrap_or(0) as usize;
        let end = source.line_start(self.last_line + 1).map_or(source.text.len(), |next| next as usize);
        let path = match source.origin {
            Origin::CommandLine => "command line".to_owned(),
            Origin::File | Origin::Memory => printable(&source.path),
        };
        if end - start > MAX_EXCERPT {
            // The place alone, which the lines would have shown.
            let at = self.marks[0].0.start as usize - start;
            let shown = format!("(a line too long to show, at byte {at} of it)");
            return Snippet::source(shown).path(path).line_start(self.first_line as usize);
        }
        let (shown, places) = readable(&source.text[start..end]);
        let range =
            |span: &Span| clamp(&shown, &places, span.start as usize - start..span.end as usize - start);
        let marks: Vec<_> = self
            .marks
            .iter()
            .map(|(span, label, primary)| {
                let kind = if *primary { AnnotationKind::Primary } else { AnnotationKind::Context };
                kind.span(range(span)).label(label.clone().map(|label| printable(&label)))
            })
            .collect();
        Snippet::source(shown.clone()).path(path).line_start(self.first_line as usize).annotations(marks)
    }
}

/// Bytes as text to show, and for each byte (and the end) where it went: what is not UTF-8 becomes a replacement
/// character, which has another length.
fn readable(bytes: &[u8]) -> (String, Vec<usize>) {
    let mut shown = String::with_capacity(bytes.len());
    let mut places = Vec::with_capacity(bytes.len() + 1);
    for chunk in bytes.utf8_chunks() {
        places.extend((0..chunk.valid().len()).map(|index| shown.len() + index));
        shown.push_str(chunk.valid());
        places.extend(chunk.invalid().iter().map(|_| shown.len()));
        if !chunk.invalid().is_empty() {
            shown.push(char::REPLACEMENT_CHARACTER);
        }
    }
    places.push(shown.len());
    (shown, places)
}

/// A range of bytes as a range of the text shown, on borders of characters.
fn clamp(shown: &str, places: &[usize], range: Range<usize>) -> Range<usize> {
    let place = |at: usize| places.get(at).copied().unwrap_or(shown.len());
    let start = shown.floor_char_boundary(place(range.start));
    let end = shown.ceil_char_boundary(place(range.end)).max(start);
    start..end
}
