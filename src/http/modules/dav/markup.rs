//! XML for answers. `D` is the prefix of RFC 4918's namespace; elements of other namespaces declare their own.

use crate::base::ascii::append_decimal;
use crate::base::percent::{self, Escape};
use crate::http::zones::locks::Lock;

use super::bodies::{DAV, Name, is_character};

/// What every document begins with.
pub const DECLARATION: &[u8] = b"<?xml version=\"1.0\" encoding=\"utf-8\"?>\n";
/// The type of all documents.
pub const CONTENT_TYPE: &[u8] = b"application/xml; charset=utf-8";

/// Appends text, escaped. What is no UTF-8 and what XML may not have becomes U+FFFD.
pub fn append_text(out: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some(at) = rest.find(|character| !is_character(character)) {
            percent::escape_html(out, &rest.as_bytes()[..at]);
            out.extend_from_slice("\u{FFFD}".as_bytes());
            let length = rest[at..].chars().next().map_or(1, char::len_utf8);
            rest = &rest[at + length..];
        }
        percent::escape_html(out, rest.as_bytes());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{FFFD}".as_bytes());
        }
    }
}

/// Appends a path for a `href`: the same for each way that leads to it, and nothing that XML would have to escape.
pub fn append_path(out: &mut Vec<u8>, path: &[u8]) {
    for (number, segment) in path.split(|byte| *byte == b'/').enumerate() {
        if number > 0 {
            out.push(b'/');
        }
        percent::escape(out, segment, Escape::UriComponent);
    }
}

fn append_prefix(out: &mut Vec<u8>, name: &Name) {
    match name.space.as_str() {
        "" => {}
        DAV => out.extend_from_slice(b"D:"),
        _ => out.extend_from_slice(b"n:"),
    }
}

fn append_start(out: &mut Vec<u8>, name: &Name) {
    out.push(b'<');
    append_prefix(out, name);
    out.extend_from_slice(name.local.as_bytes());
    if !matches!(name.space.as_str(), "" | DAV) {
        out.extend_from_slice(b" xmlns:n=\"");
        append_text(out, name.space.as_bytes());
        out.push(b'"');
    }
}

/// Appends an element with nothing in it, in a document that declares `D`.
pub fn empty(out: &mut Vec<u8>, name: &Name) {
    append_start(out, name);
    out.extend_from_slice(b"/>");
}

/// Appends the start of an element that may stand anywhere.
pub fn open(out: &mut Vec<u8>, name: &Name) {
    append_start(out, name);
    if name.space == DAV {
        out.extend_from_slice(b" xmlns:D=\"DAV:\"");
    }
    out.push(b'>');
}

/// Appends the end of an element.
pub fn close(out: &mut Vec<u8>, name: &Name) {
    out.extend_from_slice(b"</");
    append_prefix(out, name);
    out.extend_from_slice(name.local.as_bytes());
    out.push(b'>');
}

/// Appends what there is to know of a lock (RFC 4918 section 14.1).
pub fn append_lock(out: &mut Vec<u8>, lock: &Lock, now_ms: u64) {
    out.extend_from_slice(
        b"<D:activelock><D:locktype><D:write/></D:locktype><D:lockscope><D:exclusive/></D:lockscope><D:depth>",
    );
    out.extend_from_slice(if lock.deep { b"infinity" } else { b"0" });
    out.extend_from_slice(b"</D:depth>");
    if !lock.owner.is_empty() {
        out.extend_from_slice(b"<D:owner>");
        out.extend_from_slice(&lock.owner);
        out.extend_from_slice(b"</D:owner>");
    }
    out.extend_from_slice(b"<D:timeout>Second-");
    append_decimal(out, lock.left_secs(now_ms));
    out.extend_from_slice(b"</D:timeout><D:locktoken><D:href>");
    lock.token.append(out);
    out.extend_from_slice(b"</D:href></D:locktoken><D:lockroot><D:href>");
    append_path(out, &lock.root);
    out.extend_from_slice(b"</D:href></D:lockroot></D:activelock>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_what_xml_may_not_have_is_replaced() {
        let mut out = Vec::new();
        append_text(&mut out, b"a<&>\"\x01b\xffc\xef\xbf\xbe");
        assert_eq!(String::from_utf8(out).unwrap(), "a&lt;&amp;&gt;&quot;\u{FFFD}b\u{FFFD}c\u{FFFD}");
    }

    #[test]
    fn paths_have_nothing_that_needs_escaping() {
        let mut out = Vec::new();
        append_path(&mut out, b"/a b/<&'\">/\xff+%/");
        assert_eq!(out, b"/a%20b/%3C%26%27%22%3E/%FF%2B%25/");
    }
}
