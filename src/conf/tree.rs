//! The configuration as a tree of directives, before anything gives it a meaning.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::grammar::BYTE_ORDER_MARK;
use super::source::{IncludeId, Span};

/// One word: a directive's name or an argument, quotes taken off and escapes resolved.
#[derive(Clone)]
pub struct Word {
    /// Bytes, since nginx.conf may hold any encoding.
    text: Box<[u8]>,
    /// As written, quotes included.
    pub span: Span,
    /// Written in `"` or `'`. nginx makes no difference afterwards; hints do.
    pub quoted: bool,
}

impl Word {
    /// A word of the given content.
    pub fn new(text: impl Into<Box<[u8]>>, span: Span, quoted: bool) -> Self {
        Self { text: text.into(), span, quoted }
    }

    /// The content.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// The content, if it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.text).ok()
    }

    /// The content for messages; what is not UTF-8 is replaced.
    pub fn lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.text)
    }
}

/// Words compare by content, wherever they stand and however they are quoted: `word == "on"`.
impl PartialEq<str> for Word {
    fn eq(&self, other: &str) -> bool {
        *self.text == *other.as_bytes()
    }
}

impl PartialEq<&str> for Word {
    fn eq(&self, other: &&str) -> bool {
        *self.text == *other.as_bytes()
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.text.escape_ascii())
    }
}

/// One directive: a name, arguments, and a block or `;`. In a `map`, `types` or `geo` block, an entry.
#[derive(Clone, Debug)]
pub struct Directive {
    /// The name and the arguments, never empty. Shared by every use of an included file.
    words: Arc<[Word]>,
    /// What stands between `{` and `}`; `None` for a directive that ends with `;`.
    pub block: Option<Vec<Directive>>,
    /// From the name to the `;` or the `{`, inclusive.
    pub span: Span,
    /// The `;` or the `}`. Empty, at the place where it should be, when it was missing.
    pub end: Span,
    /// Which use of its text this is; [`super::source::SourceMap::include_chain`] tells the way there.
    pub include: IncludeId,
}

impl Directive {
    /// A directive of at least one word.
    pub(super) fn new(words: Arc<[Word]>, block: Option<Vec<Directive>>, span: Span, end: Span) -> Self {
        debug_assert!(!words.is_empty(), "a directive has a name");
        Self { words, block, span, end, include: IncludeId(0) }
    }

    /// The same words and place in another use of the text, with the block given.
    pub(super) fn reused(&self, block: Option<Vec<Directive>>, include: IncludeId) -> Self {
        Self { words: Arc::clone(&self.words), block, span: self.span, end: self.end, include }
    }

    /// A directive of these words in the place of this one, which stands for it.
    pub fn made_of(&self, words: &[&str]) -> Directive {
        let made = |text: &&str| Word::new(text.as_bytes(), self.words[0].span, true);
        let words = words.iter().map(made).collect();
        Self { words, block: None, span: self.span, end: self.end, include: self.include }
    }

    /// A directive of this name with some of the arguments of this one, which stands for it.
    pub fn with_arguments(&self, name: &str, arguments: &[Word]) -> Directive {
        let name = Word::new(name.as_bytes(), self.words[0].span, true);
        let words = std::iter::once(name).chain(arguments.iter().cloned()).collect();
        Self { words, block: None, span: self.span, end: self.end, include: self.include }
    }

    /// The first word.
    pub fn name(&self) -> &Word {
        &self.words[0]
    }

    /// The words behind the name.
    pub fn args(&self) -> &[Word] {
        &self.words[1..]
    }

    /// Name and arguments.
    pub fn words(&self) -> &[Word] {
        &self.words
    }

    /// The span of the arguments, or of the name if there is none: where a wrong count is shown.
    pub fn args_span(&self) -> Span {
        match self.args() {
            [] => self.name().span,
            args => args[0].span.to(args[args.len() - 1].span),
        }
    }
}

/// Writes directives as text that parses to the same tree, four spaces a level.
pub fn print(directives: &[Directive]) -> Vec<u8> {
    let mut out = Vec::new();
    print_level(directives, 0, &mut out);
    out
}

fn print_level(directives: &[Directive], level: usize, out: &mut Vec<u8>) {
    for directive in directives {
        out.resize(out.len() + 4 * level, b' ');
        for (index, word) in directive.words().iter().enumerate() {
            if index > 0 {
                out.push(b' ');
            }
            print_word(word, out);
        }
        match &directive.block {
            None => out.extend_from_slice(b";\n"),
            Some(block) => {
                out.extend_from_slice(b" {\n");
                print_level(block, level + 1, out);
                out.resize(out.len() + 4 * level, b' ');
                out.extend_from_slice(b"}\n");
            }
        }
    }
}

fn print_word(word: &Word, out: &mut Vec<u8>) {
    let special = |byte: &u8| {
        matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{' | b'}' | b'#' | b'"' | b'\'' | b'\\')
    };
    // At the start of a text such a word would be taken for a byte order mark.
    let mark = word.text.starts_with(BYTE_ORDER_MARK);
    if !word.quoted && !word.text.is_empty() && !mark && !word.text.iter().any(special) {
        out.extend_from_slice(&word.text);
        return;
    }
    out.push(b'"');
    for &byte in &word.text {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}
