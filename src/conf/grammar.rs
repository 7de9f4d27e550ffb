//! One text to directives and blocks, going on after every error so that all of them are reported.

use super::diagnostics::{Diagnostic, Diagnostics};
use super::known;
use super::lexer::{LexError, Lexer, MAX_PARAMETER, Token};
use super::missing;
use super::source::{FileId, IncludeId, Origin, Source, SourceMap, Span};
use super::tree::{Directive, Word};

/// How deep blocks may lie in blocks, over all includes. nginx has no limit but its stack; nobody nests so deep by hand.
pub const MAX_DEPTH: usize = 128;

/// After so many errors in its structure a text is given up: it is something else than a configuration.
const MAX_ERRORS: usize = 100;

/// The byte order mark that some editors put in front of UTF-8.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Parses one text of the map. `include` is a directive like others here.
pub(super) fn parse(
    sources: &SourceMap,
    file: FileId,
    include: IncludeId,
    diagnostics: &mut Diagnostics,
) -> Vec<Directive> {
    let source = sources.source(file);
    if let Some(error) = foreign_text(source, file) {
        diagnostics.push(error.within(include));
        return Vec::new();
    }
    let mut start = 0;
    if source.text.starts_with(BYTE_ORDER_MARK) {
        start = BYTE_ORDER_MARK.len();
        let mark = Span { file, start: 0, end: start as u32 };
        let error = Diagnostic::error("unexpected byte order mark").at(mark).within(include);
        diagnostics.push(error.help("save the file as UTF-8 without a byte order mark"));
    }
    let max_parameter = if source.origin == Origin::File { MAX_PARAMETER } else { usize::MAX };
    Builder {
        source,
        include,
        lexer: Lexer::new(&source.text, file, start, max_parameter),
        diagnostics,
        words: Vec::new(),
        level: Vec::new(),
        open: Vec::new(),
        unaligned: None,
        errors: 0,
    }
    .run()
}

/// nginx takes a NUL for a character like others, and then compares and prints only what lies before it. No
/// configuration has one on purpose, so it is refused before it can mislead.
fn foreign_text(source: &Source, file: FileId) -> Option<Diagnostic> {
    let at = memchr::memchr(0, &source.text)? as u32;
    let error = Diagnostic::error("unexpected NUL byte").at(Span { file, start: at, end: at + 1 });
    let wide = source.text.starts_with(b"\xff\xfe") || source.text.starts_with(b"\xfe\xff");
    Some(if wide { error.help("the file seems to be UTF-16; save it as UTF-8") } else { error })
}

/// A block whose `}` has not come yet.
struct OpenBlock {
    /// Name and arguments; empty for a block out of place, whose content is dropped.
    words: Vec<Word>,
    /// From the name to the `{`.
    span: Span,
    /// The directives before it on its own level.
    outer: Vec<Directive>,
}

struct Builder<'a> {
    source: &'a Source,
    include: IncludeId,
    lexer: Lexer<'a>,
    diagnostics: &'a mut Diagnostics,
    /// The words of the directive that is being read.
    words: Vec<Word>,
    /// The directives of the innermost open block.
    level: Vec<Directive>,
    open: Vec<OpenBlock>,
    /// The first block that was closed by a `}` standing further left than the line it opened on: if one `}` is
    /// missing at the end, it is likely that block's.
    unaligned: Option<Span>,
    errors: usize,
}

impl Builder<'_> {
    fn run(mut self) -> Vec<Directive> {
        while self.errors < MAX_ERRORS {
            match self.lexer.next_token() {
                Ok(Token::Word(word)) => self.words.push(word),
                Ok(Token::Semicolon(span)) => self.semicolon(span),
                Ok(Token::Open(span)) => self.open_block(span),
                Ok(Token::Close(span)) => self.close(span),
                Ok(Token::End(span)) => {
                    self.end(span);
                    break;
                }
                Err(error) => self.broken_word(error),
            }
        }
        while let Some(block) = self.open.last() {
            let end = block.span.after();
            self.pop(end);
        }
        self.level
    }

    fn semicolon(&mut self, span: Span) {
        if self.words.is_empty() {
            return self.report(Diagnostic::error("unexpected \";\"").at(span));
        }
        let words = std::mem::take(&mut self.words);
        self.finish(words, span);
    }

    /// Ends a directive without a block.
    fn finish(&mut self, words: Vec<Word>, end: Span) {
        let span = words[0].span.to(end);
        self.level.push(Directive::new(words.into(), None, span, end));
    }

    fn open_block(&mut self, brace: Span) {
        if self.source.origin == Origin::CommandLine {
            self.report(Diagnostic::error("block directives are not supported in -g option").at(brace));
        } else if self.words.is_empty() {
            self.report(Diagnostic::error("unexpected \"{\"").at(brace));
        } else if self.open.len() == MAX_DEPTH {
            self.report(Diagnostic::error("too many blocks within each other").at(brace));
        }
        self.split_swallowed_block();
        let mut words = std::mem::take(&mut self.words);
        if self.source.origin == Origin::CommandLine || self.open.len() >= MAX_DEPTH {
            // Reported above: the content is read on for its braces, and dropped.
            words.clear();
        }
        let span = words.first().map_or(brace, |name| name.span.to(brace));
        let outer = std::mem::take(&mut self.level);
        self.open.push(OpenBlock { words, span, outer });
    }

    /// `root /srv` without its `;` before `location / {`: nginx would say that `root` has no block. Both are known
    /// for what they are, so each becomes its own directive, and the block keeps its content.
    fn split_swallowed_block(&mut self) {
        let text = &self.source.text;
        let mut from = 1;
        while let Some(index) = missing::swallowed_name(&self.words, text, from) {
            from = index + 1;
            let opens_block = known::find(self.words[index].as_bytes()).iter().any(|known| known.block);
            if !opens_block || !known::is_never_block(self.words[0].as_bytes()) {
                continue;
            }
            let rest = self.words.split_off(index);
            let words = std::mem::replace(&mut self.words, rest);
            let (name, last) = (&words[0], &words[index - 1]);
            let message = format!("directive \"{}\" is not terminated by \";\"", name.lossy());
            let place = last.span.after();
            self.report(
                Diagnostic::error(message)
                    .at(name.span.to(last.span))
                    .semicolon_missing_at(place, &name.lossy()),
            );
            self.finish(words, place);
            from = 1;
        }
    }

    fn close(&mut self, brace: Span) {
        if !self.words.is_empty() {
            let words = std::mem::take(&mut self.words);
            self.report(self.unterminated(&words, "unexpected \"}\"").label(brace, "unexpected `}`"));
            let place = words[words.len() - 1].span.after();
            self.finish(words, place);
        } else if self.open.is_empty() {
            return self
                .report(Diagnostic::error("unexpected \"}\"").at(brace).note("no block is open here"));
        }
        if let Some(block) = self.open.last() {
            if self.unaligned.is_none() && self.stands_left_of(brace, block.span) {
                self.unaligned = Some(block.span);
            }
            self.pop(brace);
        }
    }

    /// An error about a directive that came to no end, pointing at where it began and where the `;` should be.
    fn unterminated(&self, words: &[Word], message: &str) -> Diagnostic {
        let name = words[0].lossy();
        let guess = missing::swallowed_name(words, &self.source.text, 1).unwrap_or(words.len());
        let last = words[guess - 1].span;
        Diagnostic::error(message).at(words[0].span.to(last)).semicolon_missing_at(last.after(), &name)
    }

    fn pop(&mut self, end: Span) {
        let Some(block) = self.open.pop() else { return };
        let content = std::mem::replace(&mut self.level, block.outer);
        if !block.words.is_empty() {
            self.level.push(Directive::new(block.words.into(), Some(content), block.span, end));
        }
    }

    fn end(&mut self, end: Span) {
        if !self.words.is_empty() {
            let words = std::mem::take(&mut self.words);
            let message = match self.source.origin {
                Origin::CommandLine => "unexpected end of parameter, expecting \";\"",
                Origin::File | Origin::Memory => "unexpected end of file, expecting \";\" or \"}\"",
            };
            self.report(self.unterminated(&words, message));
            self.finish(words, end);
        }
        let Some(innermost) = self.open.last().map(|block| block.span) else { return };
        let suspect = self.unaligned.unwrap_or(innermost);
        let mut error = Diagnostic::error("unexpected end of file, expecting \"}\"")
            .at(suspect)
            .label(suspect, "this block is not closed");
        if suspect != innermost {
            error = error.note("the indentation of the `}` below suggests that it is this one");
        }
        self.report(error);
    }

    fn broken_word(&mut self, error: LexError) {
        match error {
            LexError::AfterQuote { unexpected, quoted, restarted } => {
                let unexpected = self.whole_character(unexpected);
                let bytes = &self.source.text[unexpected.start as usize..unexpected.end as usize];
                let message = format!("unexpected \"{}\"", String::from_utf8_lossy(bytes));
                let mut error = Diagnostic::error(message).at(unexpected);
                error = error.label(quoted.span, "behind this quoted parameter");
                if restarted {
                    error =
                        error.help("the closing quote may be missing on the line where the parameter begins");
                    self.words.clear();
                } else {
                    self.words.push(quoted);
                }
                self.report(error);
            }
            LexError::TooLong(span) => {
                let start = String::from_utf8_lossy(&self.source.text[span.start as usize..][..10]);
                let error = Diagnostic::error(format!("too long parameter \"{start}...\" started"));
                self.report(
                    error
                        .at(Span { end: span.start + 10, ..span })
                        .note(format!("a parameter has at most {MAX_PARAMETER} bytes")),
                );
                // The directive keeps its count of arguments, so that this is its only error.
                self.words.push(Word::new(*b"", span, true));
            }
            LexError::Unclosed { opening, too_long } => {
                let quote = char::from(self.source.text[opening.start as usize]);
                let message = match (too_long, self.source.origin) {
                    (true, _) => {
                        format!("too long parameter, probably missing terminating \"{quote}\" character")
                    }
                    (false, Origin::CommandLine) => "unexpected end of parameter, expecting \";\"".to_owned(),
                    (false, _) => "unexpected end of file, expecting \";\" or \"}\"".to_owned(),
                };
                let error = Diagnostic::error(message).at(opening);
                self.report(error.label(opening, format!("no `{quote}` closes this")));
                self.words.clear();
            }
        }
    }

    /// Widens the span of a character's first byte to the character, if it is UTF-8. nginx prints the byte alone.
    fn whole_character(&self, first: Span) -> Span {
        let start = first.start as usize;
        let next = self.source.text[start..].utf8_chunks().next();
        let length = next.and_then(|chunk| chunk.valid().chars().next()).map_or(1, char::len_utf8);
        Span { end: first.start + length as u32, ..first }
    }

    fn report(&mut self, diagnostic: Diagnostic) {
        self.errors += 1;
        self.diagnostics.push(diagnostic.within(self.include));
    }

    /// Whether a `}` that is first on its line stands further left than the first word of another line.
    fn stands_left_of(&self, brace: Span, other: Span) -> bool {
        let (Some(brace_at), Some(other_at)) =
            (self.indentation(brace, true), self.indentation(other, false))
        else {
            return false;
        };
        brace_at < other_at
    }

    /// The width of the white space that starts the span's line; `None` if the span must come first on it and doesn't.
    fn indentation(&self, span: Span, must_be_first: bool) -> Option<usize> {
        let before = &self.source.text[..span.start as usize];
        let line = &before[memchr::memrchr(b'\n', before).map_or(0, |at| at + 1)..];
        let width = line.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        (!must_be_first || width == line.len()).then_some(width)
    }
}
