//! Escaping and unescaping of text, one table per use, each as nginx does it for that use.
//!
//! All functions append to a buffer of the caller. What needs no escaping is copied in one piece.

use crate::base::ascii::{HEX_UPPER, hex_value};

/// What a byte string is escaped for by [`escape`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// The path of a URI: `$uri` in redirects and in proxied requests.
    Uri,
    /// A value within the query string.
    Args,
    /// One component: all but the unreserved characters of RFC 3986 (links of `autoindex`).
    UriComponent,
    /// A URI within HTML text.
    Html,
    /// A memcached key: control characters, space and percent.
    Memcached,
}

const URI: u8 = 1;
const ARGS: u8 = 2;
const COMPONENT: u8 = 4;
const HTML: u8 = 8;
const MEMCACHED: u8 = 16;
const LOG: u8 = 32;
const JSON: u8 = 64;

/// Which uses must escape a byte: one bit per use. Sets of nginx since 1.21.1, asked of it byte by byte.
const MUST_ESCAPE: [u8; 256] = {
    let mut table = [0u8; 256];
    let mut i = 0;
    while i < 256 {
        let byte = i as u8;
        if byte < 0x20 {
            table[i] = URI | ARGS | HTML | MEMCACHED | LOG | JSON;
        } else if byte >= 0x7f {
            table[i] = URI | ARGS | HTML | LOG;
        }
        if !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')) {
            table[i] |= COMPONENT;
        }
        i += 1;
    }
    table = mark(table, b" \"#%<>?\\^`{|}", URI);
    table = mark(table, b" \"#%&+;<>?\\^`{|}", ARGS);
    table = mark(table, b" \"#%'<>\\^`{|}", HTML);
    table = mark(table, b" %", MEMCACHED);
    table = mark(table, b"\"\\", LOG | JSON);
    table
};

const fn mark(mut table: [u8; 256], bytes: &[u8], bit: u8) -> [u8; 256] {
    let mut i = 0;
    while i < bytes.len() {
        table[bytes[i] as usize] |= bit;
        i += 1;
    }
    table
}

impl Escape {
    const fn bit(self) -> u8 {
        match self {
            Escape::Uri => URI,
            Escape::Args => ARGS,
            Escape::UriComponent => COMPONENT,
            Escape::Html => HTML,
            Escape::Memcached => MEMCACHED,
        }
    }

    /// True if `byte` must be written as `%XX` for this use.
    #[cfg(test)]
    pub const fn applies_to(self, byte: u8) -> bool {
        MUST_ESCAPE[byte as usize] & self.bit() != 0
    }

    /// True if nothing in `text` must be escaped for this use.
    pub fn is_identity(self, text: &[u8]) -> bool {
        let bit = self.bit();
        text.iter().all(|&byte| MUST_ESCAPE[byte as usize] & bit == 0)
    }
}

/// Appends `text` to `out` with every byte that `use_for` forbids written as `%XX` in upper case.
pub fn escape(out: &mut Vec<u8>, text: &[u8], use_for: Escape) {
    escape_runs(out, text, use_for.bit(), |out, byte| {
        out.extend_from_slice(&[b'%', HEX_UPPER[usize::from(byte >> 4)], HEX_UPPER[usize::from(byte & 15)]]);
    });
}

/// Copies runs of harmless bytes whole, and gives each byte that has `bit` in the table to `write`.
#[inline]
fn escape_runs(out: &mut Vec<u8>, mut text: &[u8], bit: u8, write: impl Fn(&mut Vec<u8>, u8)) {
    out.reserve(text.len());
    while let Some(at) = text.iter().position(|&byte| MUST_ESCAPE[usize::from(byte)] & bit != 0) {
        out.extend_from_slice(&text[..at]);
        write(out, text[at]);
        text = &text[at + 1..];
    }
    out.extend_from_slice(text);
}

/// Appends `text` as nginx's access log writes values by default: `"`, `\`, control characters and bytes from 0x7F
/// up as `\xXX`.
pub fn escape_log(out: &mut Vec<u8>, text: &[u8]) {
    escape_runs(out, text, LOG, |out, byte| {
        out.extend_from_slice(b"\\x");
        out.extend_from_slice(&[HEX_UPPER[usize::from(byte >> 4)], HEX_UPPER[usize::from(byte & 15)]]);
    });
}

/// Appends `text` as nginx's `escape=json` does: what JSON forbids in strings is escaped, all other bytes stay, also
/// those that are no UTF-8.
pub fn escape_json(out: &mut Vec<u8>, text: &[u8]) {
    escape_runs(out, text, JSON, |out, byte| match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        0x08 => out.extend_from_slice(b"\\b"),
        0x0c => out.extend_from_slice(b"\\f"),
        _ => {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX_UPPER[usize::from(byte >> 4)], HEX_UPPER[usize::from(byte & 15)]]);
        }
    });
}

/// Like [`escape_json`], but what is no UTF-8 becomes U+FFFD, so that the line always parses.
pub fn escape_json_text(out: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        escape_json(out, chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{FFFD}".as_bytes());
        }
    }
}

/// Appends `text` as HTML text or attribute value: `&`, `<`, `>` and `"` as named references.
pub fn escape_html(out: &mut Vec<u8>, mut text: &[u8]) {
    out.reserve(text.len());
    while let Some(at) = text.iter().position(|&byte| matches!(byte, b'&' | b'<' | b'>' | b'"')) {
        out.extend_from_slice(&text[..at]);
        out.extend_from_slice(match text[at] {
            b'&' => b"&amp;",
            b'<' => b"&lt;",
            b'>' => b"&gt;",
            _ => b"&quot;",
        });
        text = &text[at + 1..];
    }
    out.extend_from_slice(text);
}

/// Appends `text` with `%XX` decoded. A percent sign without two hexadecimal digits stays as it is. Returns false if
/// there was such a one.
pub fn decode(out: &mut Vec<u8>, mut text: &[u8]) -> bool {
    let mut is_valid = true;
    out.reserve(text.len());
    while let Some(at) = memchr::memchr(b'%', text) {
        out.extend_from_slice(&text[..at]);
        match hex_pair(&text[at + 1..]) {
            Some(byte) => {
                out.push(byte);
                text = &text[at + 3..];
            }
            None => {
                is_valid = false;
                out.push(b'%');
                text = &text[at + 1..];
            }
        }
    }
    out.extend_from_slice(text);
    is_valid
}

/// Appends the target of a redirect as the rewrite module finishes it: `%XX` is decoded up to the first `?`, except
/// for bytes up to `%` and from 0x7F, which stay as they were. A stray percent sign is dropped, as nginx does.
pub fn decode_for_redirect(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        match (*byte, hex_pair(tail)) {
            (b'?', _) => break,
            (b'%', Some(b'?')) => {
                out.push(b'?');
                rest = &rest[3..];
                break;
            }
            (b'%', Some(decoded)) => {
                if decoded > b'%' && decoded < 0x7f {
                    out.push(decoded);
                } else {
                    out.extend_from_slice(&rest[..3]);
                }
                rest = &rest[3..];
            }
            (b'%', None) => rest = tail,
            (byte, _) => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out.extend_from_slice(rest);
}

/// The byte that the first two characters of `text` spell in hexadecimal.
pub fn hex_pair(text: &[u8]) -> Option<u8> {
    let [high, low, ..] = text else { return None };
    Some(hex_value(*high)? << 4 | hex_value(*low)?)
}

/// Law for fuzzing: what was escaped with percent signs decodes to itself, and log and JSON texts hold no byte that
/// could end their line or string.
pub fn law_escapes_decode_to_their_text(text: &[u8]) {
    let mut escaped = Vec::new();
    let mut decoded = Vec::new();
    // Refresh leaves percent signs alone, as nginx does, and cannot be undone.
    for use_for in [Escape::Uri, Escape::Args, Escape::UriComponent, Escape::Html, Escape::Memcached] {
        escaped.clear();
        decoded.clear();
        escape(&mut escaped, text, use_for);
        assert_eq!(escaped == text, use_for.is_identity(text));
        assert!(decode(&mut decoded, &escaped));
        assert_eq!(decoded, text);
    }
    escaped.clear();
    escape_log(&mut escaped, text);
    assert!(escaped.iter().all(|byte| (0x20..0x7f).contains(byte) && *byte != b'"'));
    escaped.clear();
    escape_json_text(&mut escaped, text);
    assert!(escaped.iter().all(|byte| *byte >= 0x20) && std::str::from_utf8(&escaped).is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn escaped(text: &[u8], use_for: Escape) -> Vec<u8> {
        let mut out = Vec::new();
        escape(&mut out, text, use_for);
        out
    }

    fn escaped_set(use_for: Escape) -> String {
        (0x20..0x7f).filter(|&byte| use_for.applies_to(byte)).map(char::from).collect()
    }

    #[test]
    fn printable_sets_are_those_that_nginx_escapes() {
        assert_eq!(escaped_set(Escape::Uri), " \"#%<>?\\^`{|}");
        assert_eq!(escaped_set(Escape::Args), " \"#%&+;<>?\\^`{|}");
        assert_eq!(escaped_set(Escape::Memcached), " %");
        assert!(!Escape::Memcached.applies_to(0x7f) && Escape::Memcached.applies_to(0x1f));
        assert!(Escape::Uri.applies_to(0x7f) && Escape::Uri.applies_to(0xff) && Escape::Uri.applies_to(0));
        assert_eq!(escaped(b"a b\xe4/", Escape::Uri), b"a%20b%E4/");
        assert_eq!(escaped(b"a/b~c", Escape::UriComponent), b"a%2Fb~c");
    }

    #[test]
    fn log_values_are_escaped_as_nginx_does() {
        let mut out = Vec::new();
        escape_log(&mut out, b"a\"b\\\n\x7f\xffz~'");
        assert_eq!(out, br"a\x22b\x5C\x0A\x7F\xFFz~'");
    }

    #[test]
    fn json_values_are_escaped_as_nginx_does() {
        let mut out = Vec::new();
        escape_json(&mut out, b"\"\\\n\r\t\x08\x0c\x0b\x1f/\x7f\xff");
        assert_eq!(out, b"\\\"\\\\\\n\\r\\t\\b\\f\\u000B\\u001F/\x7f\xff");
    }

    #[test]
    fn html_text_cannot_open_an_element_or_leave_an_attribute() {
        let mut out = Vec::new();
        escape_html(&mut out, b"<a href=\"x\">&'");
        assert_eq!(out, b"&lt;a href=&quot;x&quot;&gt;&amp;'");
    }

    #[test]
    fn stray_percent_signs_stay_and_are_reported() {
        let mut out = Vec::new();
        assert!(!decode(&mut out, b"%zz%4%41%"));
        assert_eq!(out, b"%zz%4A%");
    }

    #[test]
    fn redirects_keep_the_escapes_that_would_break_a_header() {
        let mut out = Vec::new();
        decode_for_redirect(&mut out, b"/y/%26%3B%20%25%22%0A%7F%E4%x?%26");
        assert_eq!(out, b"/y/&;%20%25%22%0A%7F%E4x?%26");
        out.clear();
        decode_for_redirect(&mut out, b"/%3F%26");
        assert_eq!(out, b"/?%26");
    }

    proptest! {
        #[test]
        fn escapes_decode_to_their_text(text: Vec<u8>) {
            law_escapes_decode_to_their_text(&text);
        }

        #[test]
        fn json_lines_always_parse(text: Vec<u8>) {
            let mut line = b"\"".to_vec();
            escape_json_text(&mut line, &text);
            line.push(b'"');
            let value: String = serde_json::from_slice(&line).unwrap();
            prop_assert_eq!(value, String::from_utf8_lossy(&text));
        }
    }
}
