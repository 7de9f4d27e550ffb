//! `match`: what a good response to a probe is.

use std::ops::RangeInclusive;
use std::sync::OnceLock;

use crate::base::regex::Regex;

/// Bytes of a body that rules look at (nginx's bound).
pub const BODY_LIMIT: usize = 256 * 1024;
/// Statuses that are good where no rule says.
const GOOD: RangeInclusive<u16> = 200..=399;

/// The rules of a `match` block, which may stand behind what names it: set once when all is read.
#[derive(Debug, Default)]
pub struct MatchSlot(OnceLock<MatchRules>);

impl MatchSlot {
    /// Sets the rules; `false` if they were set before.
    pub fn set(&self, rules: MatchRules) -> bool {
        self.0.set(rules).is_ok()
    }

    /// The rules.
    pub fn get(&self) -> Option<&MatchRules> {
        self.0.get()
    }
}

/// All rules must hold.
#[derive(Debug, Default)]
pub struct MatchRules {
    /// Statuses.
    pub status: Option<StatusRule>,
    /// Fields.
    pub fields: Vec<FieldRule>,
    /// The body's beginning.
    pub body: Option<BodyRule>,
}

/// `status 200 301-303;`, `status ! 500;`
#[derive(Debug)]
pub struct StatusRule {
    /// Any of these.
    pub ranges: Vec<RangeInclusive<u16>>,
    /// None of them.
    pub negated: bool,
}

/// `header Content-Type = text/html;`, `header ! X-Broken;`
#[derive(Debug)]
pub struct FieldRule {
    /// The field's name, in any case.
    pub name: Box<[u8]>,
    /// What one of its lines must be.
    pub test: FieldTest,
    /// What none of them may be.
    pub negated: bool,
}

/// See [`FieldRule`].
#[derive(Debug)]
pub enum FieldTest {
    /// There is one.
    Present,
    /// It is this.
    Equals(Box<[u8]>),
    /// It matches.
    Matches(Regex),
}

/// `body ~ "ok";`, `body !~ "error";`
#[derive(Debug)]
pub struct BodyRule {
    /// The expression.
    pub regex: Regex,
    /// It must not match.
    pub negated: bool,
}

/// What a response did not comply with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The status.
    Status,
    /// A field.
    Header,
    /// The body.
    Body,
}

/// Looks at a response; without rules, at its status. `fields` are its lines, `body` its beginning.
///
/// # Errors
/// The first part that is not as it should be.
pub fn judge<'a>(
    rules: Option<&MatchRules>,
    status: u16,
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    body: &[u8],
) -> Result<(), Mismatch> {
    let Some(rules) = rules else {
        return if GOOD.contains(&status) { Ok(()) } else { Err(Mismatch::Status) };
    };
    if rules.status.as_ref().is_some_and(|rule| !rule.holds(status)) {
        return Err(Mismatch::Status);
    }
    if rules.fields.iter().any(|rule| !rule.holds(fields.clone())) {
        return Err(Mismatch::Header);
    }
    match &rules.body {
        // An expression that runs out of its bound has not matched, and has not failed to match either.
        Some(rule) => match rule.regex.is_match(&body[..body.len().min(BODY_LIMIT)]) {
            Ok(found) if found != rule.negated => Ok(()),
            _ => Err(Mismatch::Body),
        },
        None => Ok(()),
    }
}

impl StatusRule {
    fn holds(&self, status: u16) -> bool {
        self.ranges.iter().any(|range| range.contains(&status)) != self.negated
    }
}

impl FieldRule {
    fn holds<'a>(&self, fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> bool {
        let mut own =
            fields.filter(|(name, _)| name.eq_ignore_ascii_case(&self.name)).map(|(_, value)| value);
        let found = match &self.test {
            FieldTest::Present => Some(own.next().is_some()),
            FieldTest::Equals(wanted) => Some(own.any(|value| *value == **wanted)),
            FieldTest::Matches(regex) => {
                let mut found = Some(false);
                for value in own {
                    match regex.is_match(value) {
                        Ok(true) => {
                            found = Some(true);
                            break;
                        }
                        Ok(false) => {}
                        Err(_) => found = None,
                    }
                }
                found
            }
        };
        found.is_some_and(|found| found != self.negated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: [(&[u8], &[u8]); 3] =
        [(b"Content-Type", b"text/html"), (b"Connection", b"close"), (b"connection", b"upgrade")];

    fn check(rules: MatchRules, expected: Result<(), Mismatch>) {
        assert_eq!(judge(Some(&rules), 200, FIELDS.into_iter(), b"all is ok"), expected, "{rules:?}");
    }

    fn status(ranges: &[RangeInclusive<u16>], negated: bool) -> MatchRules {
        MatchRules { status: Some(StatusRule { ranges: ranges.to_vec(), negated }), ..MatchRules::default() }
    }

    fn field(name: &str, test: FieldTest, negated: bool) -> MatchRules {
        let rule = FieldRule { name: name.as_bytes().into(), test, negated };
        MatchRules { fields: vec![rule], ..MatchRules::default() }
    }

    fn regex(pattern: &str) -> Regex {
        Regex::new(pattern, false).expect("an expression")
    }

    #[test]
    fn without_rules_the_status_decides() {
        for (status, expected) in
            [(199, Err(Mismatch::Status)), (200, Ok(())), (399, Ok(())), (400, Err(Mismatch::Status))]
        {
            assert_eq!(judge(None, status, FIELDS.into_iter(), b""), expected);
        }
        check(MatchRules::default(), Ok(()));
    }

    #[test]
    fn statuses_may_be_ranges_and_excluded() {
        check(status(&[301..=303, 200..=200], false), Ok(()));
        check(status(&[301..=303], false), Err(Mismatch::Status));
        check(status(&[301..=303], true), Ok(()));
        check(status(&[200..=204], true), Err(Mismatch::Status));
    }

    #[test]
    fn fields_are_looked_at_by_presence_text_and_expression() {
        let equals = |text: &str| FieldTest::Equals(text.as_bytes().into());
        check(field("content-type", FieldTest::Present, false), Ok(()));
        check(field("X", FieldTest::Present, false), Err(Mismatch::Header));
        check(field("X", FieldTest::Present, true), Ok(()));
        check(field("Content-Type", equals("text/html"), false), Ok(()));
        check(field("Content-Type", equals("text/html"), true), Err(Mismatch::Header));
        check(field("Content-Type", equals("text"), false), Err(Mismatch::Header));
        check(field("Connection", equals("upgrade"), false), Ok(()));
        check(field("Connection", FieldTest::Matches(regex("^up")), false), Ok(()));
        check(field("Connection", FieldTest::Matches(regex("^up")), true), Err(Mismatch::Header));
        check(field("X", FieldTest::Matches(regex("a")), true), Ok(()));
    }

    #[test]
    fn bodies_are_looked_at_by_expression() {
        let body = |pattern: &str, negated: bool| MatchRules {
            body: Some(BodyRule { regex: regex(pattern), negated }),
            ..MatchRules::default()
        };
        check(body("ok$", false), Ok(()));
        check(body("error", false), Err(Mismatch::Body));
        check(body("error", true), Ok(()));
        check(body("ok", true), Err(Mismatch::Body));
    }
}
