//! nginx's tokenizer: text to words, `;`, `{` and `}`.
//!
//! - A word ends at a space, tab, CR, LF, `;` or `{`. A `}` or a quote inside of a word is part of it.
//! - A `{` right behind a `$` or `${` is part of the word (`${name}`); only there.
//! - `"` or `'` at a word's start quotes up to the same quote. Behind it must come white space, `;`, `{`, or `)`,
//!   which starts the next word (nginx's `if ($a = "b")` needs it).
//! - A backslash protects the next character everywhere. `\"` `\'` `\\` lose it, `\t` `\r` `\n` become the control
//!   character, and in front of anything else it stays in the word.
//! - `#` at a word's start begins a comment up to LF.
//! - A CR is white space like any other and ends no line.
//!
//! Unlike nginx, a comment may be longer than [`MAX_PARAMETER`].

use std::borrow::Cow;

use super::source::{FileId, Span};
use super::tree::Word;

/// The longest parameter in a file, in bytes as written, an opening quote included: nginx reads files through a
/// buffer of 4096 bytes, into which the parameter and the character that ends it must fit. `-g` has no such limit.
pub const MAX_PARAMETER: usize = 4095;

/// A piece of the text.
#[derive(Debug)]
pub enum Token {
    Word(Word),
    Semicolon(Span),
    Open(Span),
    Close(Span),
    /// The end of the text; comes again when asked again.
    End(Span),
}

/// What is wrong with a word. The lexer has already moved on to where reading may continue.
#[derive(Debug)]
pub enum LexError {
    /// `"a"b`: something else than an end follows a closing quote. The rest of that word was skipped, if the quoted
    /// text lay within a line; else reading goes on at the line below the opening quote, which is likely the wrong one.
    AfterQuote { unexpected: Span, quoted: Word, restarted: bool },
    /// An unquoted word longer than [`MAX_PARAMETER`]; it was skipped.
    TooLong(Span),
    /// A quoted one, or one without an end in the text; reading goes on at the line below the opening quote.
    Unclosed { opening: Span, too_long: bool },
}

/// Reads tokens from a text.
pub struct Lexer<'a> {
    text: &'a [u8],
    file: FileId,
    at: usize,
    max_parameter: usize,
}

impl<'a> Lexer<'a> {
    /// Starts at the offset `at`. Parameters may have `max_parameter` bytes.
    pub fn new(text: &'a [u8], file: FileId, at: usize, max_parameter: usize) -> Self {
        debug_assert!(u32::try_from(text.len()).is_ok());
        Self { text, file, at, max_parameter }
    }

    /// The next token.
    pub fn next_token(&mut self) -> Result<Token, LexError> {
        self.skip_space_and_comments();
        let start = self.at;
        let Some(&byte) = self.text.get(start) else { return Ok(Token::End(self.span(start, start))) };
        match byte {
            b';' => Ok(Token::Semicolon(self.take_one())),
            b'{' => Ok(Token::Open(self.take_one())),
            b'}' => Ok(Token::Close(self.take_one())),
            b'"' | b'\'' => self.quoted_word(byte),
            _ => self.plain_word(),
        }
    }

    fn skip_space_and_comments(&mut self) {
        while let Some(byte) = self.text.get(self.at) {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => self.at += 1,
                b'#' => self.at = self.next_line(self.at),
                _ => return,
            }
        }
    }

    fn plain_word(&mut self) -> Result<Token, LexError> {
        let start = self.at;
        self.at = self.end_of_plain(start);
        let span = self.span(start, self.at);
        if self.at - start > self.max_parameter {
            return Err(LexError::TooLong(span));
        }
        Ok(Token::Word(Word::new(unescape(&self.text[start..self.at]), span, false)))
    }

    /// Where an unquoted word ends that starts here.
    fn end_of_plain(&self, start: usize) -> usize {
        let mut at = start;
        let mut after_dollar = false;
        while let Some(&byte) = self.text.get(at) {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' | b';' => break,
                b'{' if !after_dollar => break,
                b'\\' => at += 1,
                _ => {}
            }
            // nginx goes on after `${` as after `$`, so that `${{` is still one word.
            after_dollar = byte == b'$' || (byte == b'{' && after_dollar);
            at += 1;
        }
        at.min(self.text.len())
    }

    fn quoted_word(&mut self, quote: u8) -> Result<Token, LexError> {
        let start = self.at;
        let Some(close) = self.closing_quote(start, quote) else {
            return Err(self.unclosed(start, false));
        };
        if close - start > self.max_parameter {
            return Err(self.unclosed(start, true));
        }
        let span = self.span(start, close + 1);
        let word = Word::new(unescape(&self.text[start + 1..close]), span, true);
        self.at = close + 1;
        match self.text.get(self.at) {
            None | Some(b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{' | b')') => Ok(Token::Word(word)),
            // An error for nginx at once; as a token of its own it is the same error, with a `;` missing before it.
            Some(b'}') => Ok(Token::Word(word)),
            Some(_) => Err(self.after_quote(word)),
        }
    }

    /// The closing quote; no further than just past the limit, so that a quote that is never closed costs no more.
    fn closing_quote(&self, start: usize, quote: u8) -> Option<usize> {
        let mut at = start + 1;
        while at < self.text.len() && at - start <= self.max_parameter {
            match self.text[at] {
                byte if byte == quote => return Some(at),
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        // Past the limit the exact place no longer matters.
        (at < self.text.len()).then_some(at)
    }

    fn unclosed(&mut self, start: usize, too_long: bool) -> LexError {
        self.at = self.next_line(start);
        LexError::Unclosed { opening: self.span(start, start + 1), too_long }
    }

    fn after_quote(&mut self, quoted: Word) -> LexError {
        let unexpected = self.span(self.at, self.at + 1);
        let start = quoted.span.start as usize;
        let below = self.next_line(start);
        let restarted = below < self.at;
        self.at = if restarted { below } else { self.end_of_plain(self.at) };
        LexError::AfterQuote { unexpected, quoted, restarted }
    }

    /// The start of the line below an offset, or the end of the text.
    fn next_line(&self, from: usize) -> usize {
        memchr::memchr(b'\n', &self.text[from..]).map_or(self.text.len(), |length| from + length + 1)
    }

    fn take_one(&mut self) -> Span {
        self.at += 1;
        self.span(self.at - 1, self.at)
    }

    fn span(&self, start: usize, end: usize) -> Span {
        Span { file: self.file, start: start as u32, end: end as u32 }
    }
}

/// Resolves the escapes of a word as written.
fn unescape(written: &[u8]) -> Box<[u8]> {
    let Some(first) = memchr::memchr(b'\\', written) else { return written.into() };
    let mut text = Cow::Borrowed(&written[..first]).into_owned();
    let mut rest = &written[first..];
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = if byte == b'\\' { after.first() } else { None };
        let (resolved, length) = match escaped {
            Some(&quote @ (b'"' | b'\'' | b'\\')) => (quote, 2),
            Some(b't') => (b'\t', 2),
            Some(b'r') => (b'\r', 2),
            Some(b'n') => (b'\n', 2),
            _ => (byte, 1),
        };
        text.push(resolved);
        rest = &rest[length..];
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tokens of a text in one line: words in brackets, `!` where the lexer complained.
    fn tokens(text: impl AsRef<[u8]>) -> String {
        let mut lexer = Lexer::new(text.as_ref(), FileId(0), 0, MAX_PARAMETER);
        let mut shown = String::new();
        loop {
            match lexer.next_token() {
                Ok(Token::End(_)) => return shown,
                Ok(Token::Word(word)) => {
                    let text = word.as_bytes().escape_ascii().to_string();
                    shown += &format!("[{}]", text.replace("\\\"", "\"").replace("\\'", "'"));
                }
                Ok(Token::Semicolon(_)) => shown.push(';'),
                Ok(Token::Open(_)) => shown.push('{'),
                Ok(Token::Close(_)) => shown.push('}'),
                Err(_) => shown.push('!'),
            }
        }
    }

    // What is expected below is what nginx 1.22 names in its messages about the same text.

    #[test]
    fn words_end_at_space_semicolon_and_opening_brace() {
        assert_eq!(tokens("a b\tc\r\nd;e{f}"), "[a][b][c][d];[e]{[f}]");
        assert_eq!(tokens("a}b;"), "[a}b];");
        assert_eq!(tokens("a }"), "[a]}");
        assert_eq!(tokens("a\rb;"), "[a][b];", "a lone CR is white space");
        assert_eq!(tokens("a\x0bb;"), "[a\\x0bb];", "a vertical tab is not");
        assert_eq!(tokens(b"a\xa0;"), "[a\\xa0];");
    }

    #[test]
    fn comments_start_at_a_words_start_only() {
        assert_eq!(tokens("a #b;\n c;"), "[a][c];");
        assert_eq!(tokens("a#b;"), "[a#b];");
        assert_eq!(tokens("#x"), "");
        assert_eq!(tokens(format!("#{}\na;", "x".repeat(9000))), "[a];");
    }

    #[test]
    fn quotes_open_at_a_words_start_only() {
        assert_eq!(tokens("\"a b\" 'c;{'\"\";"), "[a b]!;");
        assert_eq!(tokens("a\"b c\";"), "[a\"b][c\"];");
        assert_eq!(tokens("'a\"b';"), "[a\"b];");
        assert_eq!(tokens("\"a\nb\";''{"), "[a\\nb];[]{");
        assert_eq!(tokens("(\"a\");"), "[(\"a\")];");
    }

    #[test]
    fn behind_a_closing_quote_comes_an_end_or_a_parenthesis() {
        assert_eq!(tokens("\"a\")b;"), "[a][)b];");
        assert_eq!(tokens("if ($a = \"b\"){"), "[if][($a][=][b][)]{");
        assert_eq!(tokens("\"a\"b;c;"), "!;[c];");
        assert_eq!(tokens("\"a\"}"), "[a]}");
        assert_eq!(tokens("\"a\"#c\n;"), "!;");
        assert_eq!(tokens("\"a\"\\b;"), "!;");
    }

    #[test]
    fn backslashes_protect_and_some_vanish() {
        assert_eq!(tokens(r#"a\;b \{c a\ b;"#), r"[a\\;b][\\{c][a\\ b];");
        assert_eq!(tokens(r#"a\"b a\'b a\\b;"#), r#"[a"b][a'b][a\\b];"#);
        assert_eq!(tokens(r#"a\tb "\r\n" \x;"#), r"[a\tb][\r\n][\\x];");
        assert_eq!(tokens(r#""a\"b" 'a\$';"#), r#"[a"b][a\\$];"#);
        assert_eq!(tokens("\\\n;"), "[\\\\\\n];");
        assert_eq!(tokens(r#"\\\"x;"#), r#"[\\"x];"#);
        assert_eq!(tokens("a\\"), "[a\\\\]");
    }

    #[test]
    fn a_brace_behind_a_dollar_belongs_to_the_word() {
        assert_eq!(tokens("a${b}c;"), "[a${b}c];");
        assert_eq!(tokens("${a}${b};"), "[${a}${b}];");
        assert_eq!(tokens("a$b{c;"), "[a$b]{[c];");
        assert_eq!(tokens("${x{y;"), "[${x]{[y];");
        assert_eq!(tokens("a${{b;"), "[a${{b];");
        assert_eq!(tokens("${b c;"), "[${b][c];");
        assert_eq!(tokens("$\\{a;"), "[$\\\\{a];");
        assert_eq!(tokens("\"$b{\";"), "[$b{];");
    }

    #[test]
    fn a_parameter_has_at_most_4095_bytes_with_its_opening_quote() {
        let plain = |length| format!("{};", "a".repeat(length));
        assert_eq!(tokens(plain(4095)).len(), 4095 + 3);
        assert_eq!(tokens(plain(4096)), "!;");
        let quoted = |length| format!("\"{}\";\nb;", "a".repeat(length));
        assert_eq!(tokens(quoted(4094)).len(), 4094 + 3 + 4);
        assert_eq!(tokens(quoted(4095)), "![b];");
    }

    #[test]
    fn after_a_quote_that_never_closes_reading_goes_on_at_the_next_line() {
        assert_eq!(tokens("a \"b;\nc d;\n"), "[a]![c][d];");
        assert_eq!(tokens("\"abc"), "!");
        assert_eq!(tokens("\"abc\\"), "!");
        assert_eq!(
            tokens("a \"b;\nc \"d\";\n"),
            "[a]![c][d];",
            "a quote that closes at the next opening one"
        );
    }
}
