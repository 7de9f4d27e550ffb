//! Lists of media types that a filter applies to (`gzip_types` and its like).

use std::sync::Arc;

use crate::base::ascii;
use crate::conf::directive::{Call, Complaint};

use super::build::Scope;

/// Media types without parameters. `text/html` is always one of them, as in nginx.
#[derive(Clone, Debug, Default)]
pub struct MediaTypes {
    any: bool,
    /// Beside `text/html`.
    others: Arc<[Box<[u8]>]>,
}

const HTML: &[u8] = b"text/html";

impl MediaTypes {
    /// These, and `text/html`.
    pub fn of(others: &[&str]) -> MediaTypes {
        MediaTypes { any: false, others: others.iter().map(|name| name.as_bytes().into()).collect() }
    }

    /// Whether the value of a Content-Type field is one of them, parameters aside. An empty one, for none, is so where
    /// every type is.
    pub fn matches(&self, content_type: &[u8]) -> bool {
        if self.any {
            return true;
        }
        let end = memchr::memchr(b';', content_type).unwrap_or(content_type.len());
        let name = ascii::trim_ows(&content_type[..end]);
        let is_listed = || self.others.iter().any(|other| name.eq_ignore_ascii_case(other));
        !name.is_empty() && (name.eq_ignore_ascii_case(HTML) || is_listed())
    }
}

/// Reads such a list; a second directive in the same scope adds to the first, as in nginx.
pub fn media_types(scope: &mut Scope, call: &Call, slot: &mut Option<MediaTypes>) -> Result<(), Complaint> {
    let mut types = slot.take().unwrap_or_default();
    let mut others = types.others.to_vec();
    for word in call.args() {
        let name = word.as_bytes();
        if name == b"*" {
            types.any = true;
        } else if name.eq_ignore_ascii_case(HTML)
            || others.iter().any(|other| **other == *name.to_ascii_lowercase())
        {
            scope.warn_word(call, word, format!("duplicate MIME type \"{}\"", word.lossy()));
        } else {
            others.push(name.to_ascii_lowercase().into());
        }
    }
    types.others = others.into();
    *slot = Some(types);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_case_make_no_difference() {
        let types = MediaTypes::of(&["text/css"]);
        for yes in ["text/html", "TEXT/HTML; charset=utf-8", "text/css", "text/css ;x"] {
            assert!(types.matches(yes.as_bytes()), "{yes}");
        }
        for no in ["", "text/htm", "text/plain", ";text/html"] {
            assert!(!types.matches(no.as_bytes()), "{no}");
        }
        let every = MediaTypes { any: true, ..types };
        assert!(every.matches(b"") && every.matches(b"x/y"));
    }
}
