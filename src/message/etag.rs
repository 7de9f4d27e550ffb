//! Entity tags (RFC 9110 section 8.8.3), formed and compared as nginx does.

/// Appends the tag of a file: quotes around the time of its last change (seconds since 1970) and its length, both in
/// hexadecimal, with a hyphen between.
pub fn write_etag(changed: i64, length: u64, out: &mut Vec<u8>) {
    out.push(b'"');
    // A time before 1970 shows as its two's complement, as it does with printf.
    write_hex(changed as u64, out);
    out.push(b'-');
    write_hex(length, out);
    out.push(b'"');
}

fn write_hex(mut value: u64, out: &mut Vec<u8>) {
    let mut text = [0u8; 16];
    let mut at = text.len();
    loop {
        at -= 1;
        text[at] = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[at..]);
}

/// Whether an If-None-Match field lists `etag` (weak comparison: `W/` makes no difference), or is `*`. `etag` is
/// `None` where the response has no tag: then only `*` matches.
pub fn if_none_match(list: &[u8], etag: Option<&[u8]>) -> bool {
    lists(list, etag, true)
}

/// Whether an If-Match field lists `etag` byte for byte, or is `*`.
pub fn if_match(list: &[u8], etag: Option<&[u8]>) -> bool {
    lists(list, etag, false)
}

/// Whether an If-Range field names a tag (rather than a date): it ends with a quote.
pub fn if_range_is_etag(value: &[u8]) -> bool {
    value.len() >= 2 && value.ends_with(b"\"")
}

fn lists(list: &[u8], etag: Option<&[u8]>, weak: bool) -> bool {
    if list == b"*" {
        return true;
    }
    let strip = |tag| if weak { strip_weak(tag) } else { tag };
    let Some(etag) = etag.map(strip) else { return false };
    if etag.is_empty() {
        return false;
    }
    let mut rest = list;
    while !rest.is_empty() {
        rest = strip(rest);
        if let Some(behind) = rest.strip_prefix(etag) {
            let end = behind.iter().position(|byte| !matches!(byte, b' ' | b'\t'));
            if end.is_none_or(|end| behind[end] == b',') {
                return true;
            }
        }
        // A comma within a tag's quotes ends it here as well: nginx's tags have none.
        let comma = memchr::memchr(b',', rest).unwrap_or(rest.len());
        rest = &rest[comma..];
        while let [b' ' | b'\t' | b',', next @ ..] = rest {
            rest = next;
        }
    }
    false
}

fn strip_weak(tag: &[u8]) -> &[u8] {
    match tag {
        [b'W', b'/', strong @ ..] if !strong.is_empty() => strong,
        _ => tag,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_tag_is_time_and_length_in_hexadecimal() {
        let tag = |changed, length| {
            let mut out = Vec::new();
            write_etag(changed, length, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(tag(0x673d_0a00, 0), "\"673d0a00-0\"");
        assert_eq!(tag(0, u64::MAX), "\"0-ffffffffffffffff\"");
        assert_eq!(tag(-1, 16), "\"ffffffffffffffff-10\"");
    }

    #[test]
    fn lists_are_searched_tag_by_tag() {
        let tag = Some(&b"\"a-1\""[..]);
        for list in ["\"a-1\"", "*", "\"x\", \"a-1\"", "\"a-1\" , \"x\"", ",, \"a-1\"", "\"x\",\"a-1\"\t"] {
            assert!(if_match(list.as_bytes(), tag), "{list}");
            assert!(if_none_match(list.as_bytes(), tag), "{list}");
        }
        for list in ["", "\"a-1", "a-1", "\"a-1\"x", "\"a-1\" x", "*, \"x\"", "\"A-1\"", "W/", "\"x\""] {
            assert!(!if_match(list.as_bytes(), tag), "{list}");
            assert!(!if_none_match(list.as_bytes(), tag), "{list}");
        }
    }

    #[test]
    fn only_if_none_match_takes_weak_for_strong() {
        let strong = Some(&b"\"a\""[..]);
        let weak = Some(&b"W/\"a\""[..]);
        assert!(if_none_match(b"W/\"a\"", strong) && if_none_match(b"\"a\"", weak));
        assert!(if_none_match(b"\"x\", W/\"a\"", weak));
        assert!(!if_match(b"W/\"a\"", strong) && !if_match(b"\"a\"", weak));
        assert!(if_match(b"*", None) && !if_match(b"\"a\"", None));
        assert!(if_range_is_etag(b"\"a\"") && !if_range_is_etag(b"Sun, 06 Nov 1994 08:49:37 GMT"));
    }
}
