//! What field lines of HTTP/2 must look like (RFC 9113 sections 8.2 and 8.2.1 to 8.2.3), for messages of both sides.

use crate::message::FieldName;

/// Bytes that may stand in a field's name: those of a token but upper case.
const NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_lowercase() || (byte as u8).is_ascii_digit();
        byte += 1;
    }
    let marks = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    table
};

/// Judges a line that is not a pseudo-header field.
///
/// # Errors
/// What is the matter with it: the message is malformed.
pub(super) fn check(id: FieldName, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
    if name.is_empty() || !name.iter().all(|&byte| NAME[byte as usize]) {
        return Err("peer sent an invalid field name");
    }
    check_value(value)?;
    match id {
        FieldName::Connection
        | FieldName::ProxyConnection
        | FieldName::KeepAlive
        | FieldName::TransferEncoding
        | FieldName::Upgrade => Err("peer sent a connection-specific field"),
        FieldName::Te if !value.eq_ignore_ascii_case(b"trailers") => {
            Err("peer sent a TE field with something else than trailers")
        }
        _ => Ok(()),
    }
}

/// Judges a value.
///
/// # Errors
/// What is the matter with it: the message is malformed.
pub(super) fn check_value(value: &[u8]) -> Result<(), &'static str> {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if is_space(value.first()) || is_space(value.last()) {
        return Err("peer sent a field value with whitespace around it");
    }
    if memchr::memchr3(0, b'\r', b'\n', value).is_some() {
        return Err("peer sent a field value with a CR, LF or NUL");
    }
    Ok(())
}

/// Whether this is a name that can be sent, once it is in lower case.
pub(super) fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| NAME[byte.to_ascii_lowercase() as usize])
}

/// Whether a line of a message that is passed on must not be written: its connection ends here.
pub(super) fn is_of_connection(id: FieldName) -> bool {
    matches!(
        id,
        FieldName::Connection
            | FieldName::ProxyConnection
            | FieldName::KeepAlive
            | FieldName::TransferEncoding
            | FieldName::Upgrade
    )
}

/// Appends a value so that it passes `check_value`: without whitespace around it, and with a space for CR, LF and NUL.
/// Returns the value itself where nothing is to be done.
pub(super) fn clean<'v>(value: &'v [u8], scratch: &'v mut Vec<u8>) -> &'v [u8] {
    let trimmed = value.trim_ascii();
    if memchr::memchr3(0, b'\r', b'\n', trimmed).is_none() {
        return trimmed;
    }
    scratch.clear();
    scratch.extend(trimmed.iter().map(|&byte| if matches!(byte, 0 | b'\r' | b'\n') { b' ' } else { byte }));
    scratch.trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(name: &[u8], value: &[u8]) -> bool {
        check(FieldName::of(name), name, value).is_ok()
    }

    #[test]
    fn names_are_tokens_in_lower_case() {
        for name in [&b"x"[..], b"x-1", b"a_b", b"!#$%&'*+-.^_`|~09az"] {
            assert!(verdict(name, b"v"), "{}", name.escape_ascii());
        }
        for name in [
            &b""[..],
            b"X",
            b"xY",
            b"a b",
            b"a:b",
            b":a",
            b"a\0",
            b"\x7f",
            b"\xe9",
            b"a\r\nb",
            b"\"",
            b"(",
            b"{",
        ] {
            assert!(!verdict(name, b"v"), "{}", name.escape_ascii());
        }
    }

    #[test]
    fn values_have_no_line_ends_and_no_whitespace_around() {
        for value in [&b""[..], b"a", b"a b\tc", b"\xe9\xff", b"\x01"] {
            assert!(verdict(b"x", value), "{}", value.escape_ascii());
        }
        for value in [&b" a"[..], b"a ", b"\ta", b"a\t", b" ", b"a\0b", b"a\rb", b"a\nb"] {
            assert!(!verdict(b"x", value), "{}", value.escape_ascii());
            assert!(verdict(b"x", clean(value, &mut Vec::new())));
        }
        assert_eq!(clean(b" a\r\n", &mut Vec::new()), b"a");
        assert_eq!(clean(b"a\r\n\0b", &mut Vec::new()), b"a   b");
    }

    #[test]
    fn fields_of_a_connection_are_refused() {
        for name in ["connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"] {
            assert!(!verdict(name.as_bytes(), b"x"), "{name}");
        }
        assert!(verdict(b"te", b"trailers") && verdict(b"te", b"Trailers"));
        assert!(!verdict(b"te", b"gzip") && !verdict(b"te", b"trailers, gzip") && !verdict(b"te", b""));
    }
}
