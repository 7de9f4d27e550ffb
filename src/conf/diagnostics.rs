//! What is wrong with a configuration, or worth knowing: gathered through a whole run, shown by [`super::render`].

use super::source::{IncludeId, Span};

/// How many are kept. More are counted only; a file with as many is not a configuration.
pub const MAX_KEPT: usize = 1000;

/// nginx's level of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// `[emerg]`: the configuration can't be used.
    Error,
    /// `[warn]`: it can, and likely does not do what was meant.
    Warning,
    /// `[info]`
    Info,
}

impl Severity {
    /// The name between brackets.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "emerg",
            Self::Warning => "warn",
            Self::Info => "info",
        }
    }
}

/// A place with a word to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    pub span: Span,
    pub text: String,
}

/// One message. Where nginx has the error, `message` is in nginx's words, without the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    pub message: String,
    /// The place that the message is about.
    pub span: Option<Span>,
    /// The use of the text, for the chain of includes.
    pub include: Option<IncludeId>,
    /// Other places; one with the span of the message says more at that place.
    pub labels: Vec<Label>,
    pub notes: Vec<String>,
    /// What to do about it.
    pub helps: Vec<String>,
}

impl Diagnostic {
    fn new(severity: Severity, message: impl Into<String>) -> Self {
        Self {
            severity,
            message: message.into(),
            span: None,
            include: None,
            labels: Vec::new(),
            notes: Vec::new(),
            helps: Vec::new(),
        }
    }

    /// An error: `[emerg]`.
    pub fn error(message: impl Into<String>) -> Self {
        Self::new(Severity::Error, message)
    }

    /// A warning: `[warn]`.
    pub fn warning(message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, message)
    }

    /// An information: `[info]`.
    pub fn info(message: impl Into<String>) -> Self {
        Self::new(Severity::Info, message)
    }

    /// The place that it is about.
    #[must_use]
    pub fn at(mut self, span: Span) -> Self {
        self.span = Some(span);
        self
    }

    /// The use of the text that the place stands in.
    #[must_use]
    pub fn within(mut self, include: IncludeId) -> Self {
        self.include = Some(include);
        self
    }

    /// Another place, with a word to it.
    #[must_use]
    pub fn label(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push(Label { span, text: text.into() });
        self
    }

    /// A fact that explains the message.
    #[must_use]
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }

    /// What to do about it.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.helps.push(text.into());
        self
    }
}

/// All messages of a run, in the order in which they were found.
#[derive(Debug, Default)]
pub struct Diagnostics {
    kept: Vec<Diagnostic>,
    not_kept: usize,
    errors: usize,
}

impl Diagnostics {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one, unless the same was said about the same place before: a file that is included often has its
    /// mistakes reported once.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        let same = |kept: &Diagnostic| kept.span == diagnostic.span && kept.message == diagnostic.message;
        if self.kept.iter().any(same) {
            return;
        }
        match diagnostic.severity {
            Severity::Error => self.errors += 1,
            Severity::Warning | Severity::Info => {}
        }
        if self.kept.len() < MAX_KEPT {
            self.kept.push(diagnostic);
        } else {
            self.not_kept += 1;
        }
    }

    /// Those kept, at most [`MAX_KEPT`].
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.kept.iter()
    }

    /// How many there were beyond those kept.
    pub fn not_kept(&self) -> usize {
        self.not_kept
    }

    /// Whether the configuration can't be used.
    pub fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// How many errors there were, kept or not.
    pub fn error_count(&self) -> usize {
        self.errors
    }

    /// Whether nothing was said at all.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::FileId;
    use super::*;

    #[test]
    fn the_same_mistake_at_the_same_place_is_reported_once() {
        let span = Span { file: FileId(0), start: 0, end: 1 };
        let mut all = Diagnostics::new();
        all.push(Diagnostic::error("x").at(span).within(IncludeId(1)));
        all.push(Diagnostic::error("x").at(span).within(IncludeId(2)));
        all.push(Diagnostic::warning("y").at(span));
        assert_eq!((all.iter().count(), all.error_count()), (2, 1));
    }

    #[test]
    fn errors_count_even_when_they_are_no_longer_kept() {
        let mut all = Diagnostics::new();
        for index in 0..MAX_KEPT {
            all.push(Diagnostic::warning(index.to_string()));
        }
        assert!(!all.has_errors());
        all.push(Diagnostic::error("late"));
        assert!(all.has_errors());
        assert_eq!((all.iter().count(), all.not_kept()), (MAX_KEPT, 1));
    }
}
