//! Text with variables, compiled once.
//!
//! `"$scheme://${host}/a"` becomes a list of parts; at request time parts are appended to a buffer and no name is
//! looked up. Which value a variable has is the owner's business: here it is only a number.

use std::collections::HashMap;

/// Number of a variable in the [`VariableNames`] that compiled the template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VariableId(pub u32);

/// Names of variables that the configuration mentions, numbered in order of appearance.
#[derive(Debug, Default)]
pub struct VariableNames {
    names: Vec<Box<str>>,
    numbers: HashMap<Box<str>, VariableId>,
}

impl VariableNames {
    /// The number of `name` (ASCII case ignored, as nginx does), a new one if it was not mentioned before.
    pub fn number(&mut self, name: &str) -> VariableId {
        let name = name.to_ascii_lowercase();
        if let Some(id) = self.numbers.get(name.as_str()) {
            return *id;
        }
        let id = VariableId(self.names.len() as u32);
        self.names.push(name.clone().into());
        self.numbers.insert(name.into(), id);
        id
    }

    /// All names; the position is the number.
    pub fn names(&self) -> &[Box<str>] {
        &self.names
    }
}

/// One part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text as it stands.
    Literal(Box<[u8]>),
    /// The value of a variable.
    Variable(VariableId),
    /// `$1` to `$9` of the last regular expression that matched.
    Capture(u8),
}

/// Text with variables, compiled.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Template {
    parts: Box<[Part]>,
}

/// Why a text is no template; the texts are nginx's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// A `$` without a name behind it.
    InvalidName,
    /// `${name` without `}`; carries what was read.
    MissingBracket(String),
}

impl std::fmt::Display for TemplateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TemplateError::InvalidName => f.write_str("invalid variable name"),
            TemplateError::MissingBracket(name) => {
                write!(f, "the closing bracket in \"{name}\" variable is missing")
            }
        }
    }
}

impl Template {
    /// Text that has no variables, whatever it contains.
    pub fn literal(text: &[u8]) -> Template {
        if text.is_empty() {
            return Template::default();
        }
        Template { parts: Box::new([Part::Literal(text.into())]) }
    }

    /// Compiles `text`; variables get their numbers from `names`.
    pub fn parse(text: &[u8], names: &mut VariableNames) -> Result<Template, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(dollar) = memchr::memchr(b'$', rest) {
            push_literal(&mut parts, &rest[..dollar]);
            rest = &rest[dollar + 1..];
            rest = parse_reference(rest, names, &mut parts)?;
        }
        push_literal(&mut parts, rest);
        Ok(Template { parts: parts.into() })
    }

    /// The parts in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The text, if it has no variables.
    pub fn as_literal(&self) -> Option<&[u8]> {
        match &*self.parts {
            [] => Some(b""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Whether it is the empty text.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether it refers to captures of a regular expression.
    pub fn has_captures(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Capture(_)))
    }

    /// The variables that it mentions.
    pub fn variables(&self) -> impl Iterator<Item = VariableId> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(id) => Some(*id),
            _ => None,
        })
    }

    /// The same text with `prefix` before it.
    pub fn prefixed(self, prefix: &[u8]) -> Template {
        let mut parts = Vec::with_capacity(self.parts.len() + 1);
        push_literal(&mut parts, prefix);
        for part in self.parts {
            match part {
                Part::Literal(text) => push_literal(&mut parts, &text),
                other => parts.push(other),
            }
        }
        Template { parts: parts.into() }
    }
}

fn push_literal(parts: &mut Vec<Part>, text: &[u8]) {
    if text.is_empty() {
        return;
    }
    if let Some(Part::Literal(before)) = parts.last_mut() {
        *before = [before, text].concat().into();
    } else {
        parts.push(Part::Literal(text.into()));
    }
}

/// Reads what follows a `$` and returns the rest.
fn parse_reference<'a>(
    rest: &'a [u8],
    names: &mut VariableNames,
    parts: &mut Vec<Part>,
) -> Result<&'a [u8], TemplateError> {
    if let Some(digit @ b'1'..=b'9') = rest.first().copied() {
        parts.push(Part::Capture(digit - b'0'));
        return Ok(&rest[1..]);
    }
    let (braced, body) = match rest.strip_prefix(b"{") {
        Some(body) => (true, body),
        None => (false, rest),
    };
    let length = body.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
    let name = String::from_utf8_lossy(&body[..length]).into_owned();
    let after = &body[length..];
    let after = if braced {
        after.strip_prefix(b"}").ok_or_else(|| TemplateError::MissingBracket(name.clone()))?
    } else {
        after
    };
    match name.as_bytes() {
        [] => return Err(TemplateError::InvalidName),
        [digit @ b'1'..=b'9'] if braced => parts.push(Part::Capture(digit - b'0')),
        _ => parts.push(Part::Variable(names.number(&name))),
    }
    Ok(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_variables_and_captures_are_told_apart() {
        let mut names = VariableNames::default();
        let template = Template::parse(b"a${host}b$uri-$1${2}c", &mut names).unwrap();
        assert_eq!(
            template.parts(),
            [
                Part::Literal(b"a"[..].into()),
                Part::Variable(VariableId(0)),
                Part::Literal(b"b"[..].into()),
                Part::Variable(VariableId(1)),
                Part::Literal(b"-"[..].into()),
                Part::Capture(1),
                Part::Capture(2),
                Part::Literal(b"c"[..].into()),
            ]
        );
        assert_eq!(names.number("HOST"), VariableId(0));
    }

    #[test]
    fn a_dollar_without_a_name_and_an_open_brace_are_errors() {
        let mut names = VariableNames::default();
        assert_eq!(Template::parse(b"a$", &mut names), Err(TemplateError::InvalidName));
        assert_eq!(Template::parse(b"$-", &mut names), Err(TemplateError::InvalidName));
        assert_eq!(Template::parse(b"${ab", &mut names), Err(TemplateError::MissingBracket("ab".into())));
    }

    #[test]
    fn a_prefix_joins_the_first_literal() {
        let mut names = VariableNames::default();
        let template = Template::parse(b"html", &mut names).unwrap().prefixed(b"/srv/");
        assert_eq!(template.as_literal(), Some(&b"/srv/html"[..]));
    }
}
