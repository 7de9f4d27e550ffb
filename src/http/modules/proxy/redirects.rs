//! `proxy_redirect`: addresses in Location and Refresh, from the upstream's view to the client's.

use std::sync::Arc;

use crate::base::ascii::find_ignore_case;
use crate::conf::directive::Complaint;
use crate::conf::template::Template;
use crate::conf::tree::Word;
use crate::http::build::{Scope, SiteRegex};
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::matching;

use super::Settings;
use super::target::Pass;

/// What becomes of addresses.
#[derive(Clone, Debug, Default)]
pub enum Redirects {
    /// `default`, where the address of `proxy_pass` has no variables.
    #[default]
    Auto,
    /// `off`
    Off,
    /// The first that fits.
    Rules(Arc<Vec<Rule>>),
}

impl Redirects {
    /// Adds a rule.
    pub(super) fn push(&mut self, rule: Rule) {
        match self {
            Redirects::Rules(rules) => Arc::make_mut(rules).push(rule),
            other => *other = Redirects::Rules(Arc::new(vec![rule])),
        }
    }
}

/// One replacement.
#[derive(Clone, Debug)]
pub struct Rule {
    pattern: Pattern,
    replacement: Template,
}

/// What text a rule is about.
#[derive(Clone, Debug)]
pub(super) enum Pattern {
    /// Text that begins so; the beginning is replaced.
    Prefix(Template),
    /// Text that matches; all of it is replaced.
    Regex(SiteRegex),
}

impl Pattern {
    /// `~regex` and `~*regex` (`caseless` makes both so), else a beginning.
    pub(super) fn read(scope: &mut Scope, word: &Word, caseless: bool) -> Result<Pattern, Complaint> {
        let text = word.as_bytes();
        let Some(pattern) = text.strip_prefix(b"~") else {
            return scope.builder.template(word).map(Pattern::Prefix);
        };
        let (pattern, has_star) = match pattern.strip_prefix(b"*") {
            Some(pattern) => (pattern, true),
            None => (pattern, false),
        };
        scope.builder.regex(pattern, caseless || has_star, word).map(Pattern::Regex)
    }
}

impl Rule {
    /// `beginning replacement`
    pub fn literal(beginning: &[u8], replacement: &[u8]) -> Rule {
        Rule {
            pattern: Pattern::Prefix(Template::literal(beginning)),
            replacement: Template::literal(replacement),
        }
    }

    pub(super) fn new(pattern: Pattern, replacement: Template) -> Rule {
        Rule { pattern, replacement }
    }

    /// Reads a pattern and what takes its place.
    pub(super) fn read(scope: &mut Scope, pattern: &Word, replacement: &Word) -> Result<Rule, Complaint> {
        let pattern = Pattern::read(scope, pattern, false)?;
        Ok(Rule { pattern, replacement: scope.builder.template(replacement)? })
    }

    /// Replaces what of `text` behind its first `kept` bytes fits; `false` if nothing does.
    pub(super) fn apply(
        &self,
        exchange: &mut Exchange,
        context: &mut Context,
        kept: usize,
        text: &mut Vec<u8>,
    ) -> bool {
        let subject = &text[kept..];
        let length = match &self.pattern {
            Pattern::Prefix(template) => exchange.with_rendered(template, context, |_, _, beginning| {
                subject.starts_with(beginning).then_some(beginning.len())
            }),
            Pattern::Regex(regex) => {
                matching::matches(exchange, context, regex, subject).then_some(subject.len())
            }
        };
        let Some(length) = length else { return false };
        exchange.with_rendered(&self.replacement, context, |_, _, replacement| {
            text.splice(kept..kept + length, replacement.iter().copied());
        });
        true
    }
}

/// Rewrites an address that begins behind the first `kept` bytes of `text`; `None` if there are no rules at all, else
/// whether one fitted.
pub fn rewrite(
    exchange: &mut Exchange,
    context: &mut Context,
    settings: &Settings,
    kept: usize,
    text: &mut Vec<u8>,
) -> Option<bool> {
    match (&settings.redirects, &settings.pass) {
        (Redirects::Rules(rules), _) => {
            Some(rules.iter().any(|rule| rule.apply(exchange, context, kept, text)))
        }
        (Redirects::Auto, Some(Pass::Fixed(fixed))) => {
            Some(fixed.default_redirect.apply(exchange, context, kept, text))
        }
        _ => None,
    }
}

/// Rewrites the address in a Refresh field.
pub fn rewrite_refresh(exchange: &mut Exchange, context: &mut Context, settings: &Settings, text: &mut Vec<u8>) {
    if let Some(at) = find_ignore_case(text, b"url=") {
        rewrite(exchange, context, settings, at + 4, text);
    }
}
