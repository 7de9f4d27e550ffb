//! Hosts: of the Host field, an absolute-form target, or `:authority`.

use std::ops::Range;

/// A valid host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The name within the text that was validated: without port, without one trailing dot; an IPv6 literal keeps its
    /// brackets.
    pub name: Range<usize>,
    /// The port, where one is named; `example.com:` names none.
    pub port: Option<u16>,
    /// Whether the name has upper-case letters.
    pub has_upper_case: bool,
}

/// Validates `text` as `host [ ":" port ]` of RFC 3986 section 3.2.2 (nginx 1.31 is that strict too): letters, digits,
/// `-._~`, sub-delims and percent-encoded octets, or an IP literal in brackets; two dots in a row, an empty host and a
/// port over 65535 are refused.
pub fn validate_host(text: &[u8]) -> Option<Host> {
    let mut has_upper_case = false;
    let name_end = if text.first() == Some(&b'[') {
        let close = memchr::memchr(b']', text)?;
        let literal = &text[1..close];
        if literal.is_empty() || !literal.iter().all(|&byte| byte == b':' || is_plain(byte)) {
            return None;
        }
        has_upper_case |= literal.iter().any(u8::is_ascii_uppercase);
        close + 1
    } else {
        let mut at = 0;
        while let Some(&byte) = text.get(at) {
            if is_lower_case(byte) {
                at += 1;
                continue;
            }
            match byte {
                b':' => break,
                b'.' if at > 0 && text[at - 1] == b'.' => return None,
                b'A'..=b'Z' => has_upper_case = true,
                b'%' => {
                    if !text.get(at + 1..at + 3)?.iter().all(u8::is_ascii_hexdigit) {
                        return None;
                    }
                }
                byte if is_plain(byte) => {}
                _ => return None,
            }
            at += 1;
        }
        at
    };
    let port = match text[name_end..].split_first() {
        None => None,
        Some((b':', digits)) => parse_port(digits)?,
        Some(_) => return None,
    };
    let name = if text[..name_end].ends_with(b".") { 0..name_end - 1 } else { 0..name_end };
    if name.is_empty() { None } else { Some(Host { name, port, has_upper_case }) }
}

/// Most of a host, at the price of one comparison.
fn is_lower_case(byte: u8) -> bool {
    byte.wrapping_sub(b'a') < 26
}

/// `unreserved` and `sub-delims` of RFC 3986.
fn is_plain(byte: u8) -> bool {
    const PLAIN: [bool; 256] = {
        let mut table = [false; 256];
        let mut i = 0;
        while i < 256 {
            table[i] = (i as u8).is_ascii_alphanumeric();
            i += 1;
        }
        let marks = b"-._~!$&'()*+,;=";
        let mut i = 0;
        while i < marks.len() {
            table[marks[i] as usize] = true;
            i += 1;
        }
        table
    };
    PLAIN[byte as usize]
}

fn parse_port(digits: &[u8]) -> Option<Option<u16>> {
    if digits.is_empty() {
        return Some(None);
    }
    let mut port: u16 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        port = port.checked_mul(10)?.checked_add(u16::from(digit - b'0'))?;
    }
    Some(Some(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Option<(&str, Option<u16>)> {
        validate_host(text.as_bytes()).map(|host| (&text[host.name], host.port))
    }

    #[test]
    fn names_lose_port_and_trailing_dot() {
        assert_eq!(host("example.com"), Some(("example.com", None)));
        assert_eq!(host("example.com."), Some(("example.com", None)));
        assert_eq!(host("example.com.:80"), Some(("example.com", Some(80))));
        assert_eq!(host("a:"), Some(("a", None)));
        assert_eq!(host("a_b-c~!$&'()*+,;=%41"), Some(("a_b-c~!$&'()*+,;=%41", None)));
        assert_eq!(host("[::1]:8080"), Some(("[::1]", Some(8080))));
        assert_eq!(host("[FE80::1]"), Some(("[FE80::1]", None)));
    }

    #[test]
    fn what_rfc_3986_does_not_allow_is_refused() {
        let bad = [
            "", ".", ":80", "a..b", "..", "a/b", "a b", "a\0", "a#", "a?", "a@b", "a\\", "a\"", "a<", "a^",
            "a|", "a{", "a%4", "a%zz", "a:8a", "a:65536", "a:-1", "a:80:80", "[", "[]", "[::1", "[::1].",
            "[::1]a", "[::%41]", "a[b]", "\u{e9}", "a\x7f", "a\t",
        ];
        for text in bad {
            assert_eq!(host(text), None, "{text:?}");
        }
    }

    #[test]
    fn upper_case_is_told() {
        assert!(validate_host(b"Example.com").unwrap().has_upper_case);
        assert!(validate_host(b"[::A]").unwrap().has_upper_case);
        assert!(!validate_host(b"example.com").unwrap().has_upper_case);
    }
}
