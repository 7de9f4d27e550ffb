//! Request lines: origin-form, absolute-form, and authority-form for CONNECT, with nginx's rules.

use std::ops::Range;

use crate::message::{Method, Status, Version};

use super::error::RequestError;

/// Where the parts of a request line are.
#[derive(Debug, Default)]
pub(super) struct RequestLine {
    pub method: Range<usize>,
    /// Scheme and authority are not in it. Starts with `/`, or with `?` after an authority without a path; empty if
    /// there is neither.
    pub target: Range<usize>,
    /// Host and port, where the target has them.
    pub authority: Range<usize>,
    pub version: Version,
    /// The line without its end.
    pub length: usize,
}

fn invalid() -> RequestError {
    RequestError::line(Status::BAD_REQUEST, "client sent invalid request")
}

fn is_method_byte(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte == b'_' || byte == b'-'
}

/// Whether this is a method as nginx takes it.
pub(in crate::proto) fn is_method(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| is_method_byte(byte))
}

/// Checks the method, or as much of it as is there: what is not HTTP at all (a TLS hello, say) is refused at once.
pub(super) fn check_method(line: &[u8]) -> Result<usize, RequestError> {
    let length = line.iter().take_while(|&&byte| is_method_byte(byte)).count();
    let ended = matches!(line.get(length), None | Some(b' '));
    if !ended || (length == 0 && !line.is_empty()) {
        return Err(RequestError::line(Status::BAD_REQUEST, "client sent invalid method"));
    }
    Ok(length)
}

/// Parses a request line without its LF.
pub(super) fn parse(line: &[u8]) -> Result<RequestLine, RequestError> {
    let method_end = check_method(line)?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut parsed = RequestLine { method: 0..method_end, length: line.len(), ..RequestLine::default() };
    let start = method_end + spaces(&line[method_end..]);
    if start == method_end {
        return Err(RequestError::line(Status::BAD_REQUEST, "client sent invalid method"));
    }
    // The target ends at the first space: nginx gave up guessing at spaces within it in 1.21.
    let end = memchr::memchr(b' ', &line[start..]).map_or(line.len(), |space| start + space);
    let after = end + spaces(&line[end..]);
    let method = Method::of(&line[..method_end]);
    split_target(line, start..end, method, &mut parsed)?;
    if line[parsed.target.clone()].iter().any(|&byte| byte < b' ' || byte == 0x7f) {
        return Err(invalid());
    }
    parsed.version = version(&line[after..])?;
    if parsed.version == Version::Http09 {
        if method != Method::Get {
            return Err(RequestError::line(
                Status::BAD_REQUEST,
                "client sent invalid method in HTTP/0.9 request",
            ));
        }
        // nginx takes an authority without a path here only if a space follows it.
        if parsed.target.is_empty() && end == line.len() {
            return Err(invalid());
        }
    }
    Ok(parsed)
}

fn spaces(text: &[u8]) -> usize {
    text.iter().take_while(|&&byte| byte == b' ').count()
}

/// The version, with spaces behind it; nothing means HTTP/0.9.
fn version(text: &[u8]) -> Result<Version, RequestError> {
    match text {
        b"HTTP/1.1" => return Ok(Version::Http11),
        b"HTTP/1.0" => return Ok(Version::Http10),
        b"" => return Ok(Version::Http09),
        _ => {}
    }
    let digits = text.strip_prefix(b"HTTP/").ok_or_else(invalid)?;
    let major = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match &digits[..major] {
        b"1" => {}
        [b'1'..=b'9', ..] => {
            return Err(RequestError::line(Status::VERSION_NOT_SUPPORTED, "client sent invalid version"));
        }
        _ => return Err(invalid()),
    }
    let minor = digits[major..].strip_prefix(b".").ok_or_else(invalid)?;
    let minor = &minor[..minor.iter().rposition(|&byte| byte != b' ').map_or(0, |last| last + 1)];
    if minor.is_empty() || minor.len() > 3 || !minor.iter().all(u8::is_ascii_digit) {
        return Err(invalid());
    }
    // A higher minor version is answered as the highest that is known (RFC 9110 section 2.5).
    Ok(if minor.iter().all(|&digit| digit == b'0') { Version::Http10 } else { Version::Http11 })
}

fn split_target(
    line: &[u8],
    target: Range<usize>,
    method: Method,
    parsed: &mut RequestLine,
) -> Result<(), RequestError> {
    let text = &line[target.clone()];
    if text.first() == Some(&b'/') {
        parsed.target = target;
        return Ok(());
    }
    if method == Method::Connect {
        parsed.authority = target.clone();
        parsed.target = target.end..target.end;
        // Without a port there is nothing to connect to (RFC 9110 section 9.3.6).
        let port = text.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        let colon = text.len().checked_sub(port + 1).ok_or_else(invalid)?;
        return if port > 0 && text[colon] == b':' { check_authority(text) } else { Err(invalid()) };
    }
    // Any scheme will do, as for nginx: the connection says what is really spoken.
    let scheme = text
        .iter()
        .take_while(|&&byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
        .count();
    if !text.first().is_some_and(u8::is_ascii_alphabetic) || !text[scheme..].starts_with(b"://") {
        return Err(invalid());
    }
    let host = scheme + 3;
    let length = text[host..].iter().take_while(|&&byte| byte != b'/' && byte != b'?').count();
    check_authority(&text[host..host + length])?;
    parsed.authority = target.start + host..target.start + host + length;
    parsed.target = parsed.authority.end..target.end;
    Ok(())
}

/// What can't be an authority at all; the host is validated with the Host field's rules later.
fn check_authority(authority: &[u8]) -> Result<(), RequestError> {
    let bad = |byte: &u8| *byte <= b' ' || matches!(*byte, 0x7f | b'@' | b'#' | b'\\');
    if authority.is_empty() {
        return Err(RequestError::line(Status::BAD_REQUEST, "client sent invalid host in request line"));
    }
    if authority.iter().any(bad) { Err(invalid()) } else { Ok(()) }
}
