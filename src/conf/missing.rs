//! Guesses at a `;` that was forgotten. A directive then goes on over the line end and swallows the next one:
//!
//! ```text
//! root /srv
//! index index.html;
//! ```
//!
//! That is allowed (a `log_format` has several lines), so the guess is only a hint for a directive that is wrong
//! anyway, by its count of arguments, a refused value, or a block that it can't have.

use super::diagnostics::Diagnostic;
use super::known;
use super::source::{SourceMap, Span};
use super::tree::{Directive, Word};

/// The first word from `from` on that looks like the start of the next directive: unquoted, first on its line, and a
/// name that nginx knows.
pub(super) fn swallowed_name(words: &[Word], text: &[u8], from: usize) -> Option<usize> {
    (from.max(1)..words.len()).find(|&index| {
        let (before, word) = (&words[index - 1], &words[index]);
        let between = &text[before.span.end as usize..word.span.start as usize];
        !word.quoted && memchr::memchr(b'\n', between).is_some() && known::is_known(word.as_bytes())
    })
}

/// Where a `;` seems to be missing in this directive: right behind the last word before a swallowed one.
pub fn missing_semicolon(directive: &Directive, sources: &SourceMap) -> Option<Span> {
    let text = &sources.source(directive.span.file).text;
    let index = swallowed_name(directive.words(), text, 1)?;
    Some(directive.words()[index - 1].span.after())
}

impl Diagnostic {
    /// Adds the hint, if there is reason for one, to an error about this directive.
    #[must_use]
    pub fn suspect_missing_semicolon(self, directive: &Directive, sources: &SourceMap) -> Self {
        match missing_semicolon(directive, sources) {
            Some(place) => self.semicolon_missing_at(place, &directive.name().lossy()),
            None => self,
        }
    }

    /// Marks the place where the `;` of a directive should be.
    #[must_use]
    pub(super) fn semicolon_missing_at(self, place: Span, name: &str) -> Self {
        self.label(place, "a `;` seems to be missing here").help(format!("end `{name}` with `;`"))
    }
}
