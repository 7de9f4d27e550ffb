//! Request targets to normal paths: percent-decoding, dot segments and repeated slashes in one pass.

use std::ops::Range;

/// What a target that can't be normalised did wrong; all are answered 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UriError {
    /// `%` without two hexadecimal digits behind it.
    BadEscape,
    /// A NUL byte, plain or encoded.
    Nul,
    /// More `..` than there are segments.
    AboveRoot,
    /// It does not begin with a slash.
    NotAbsolute,
}

/// What normalising found beside the path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uri {
    /// The arguments within the raw target: what is behind the first `?` and before a `#`; `None` without a `?`.
    pub args: Option<Range<usize>>,
    /// Whether the path differs from the raw target's (an escape, a dot segment, a double slash, a fragment).
    pub changed: bool,
}

/// Appends the normal form of `target`'s path to `out`, as nginx forms `$uri`. With `merge_slashes` a run of slashes
/// becomes one. `%2F` and encoded dots count as slash and dots; `%3F` and `%23` do not end the path; a fragment is
/// dropped. Bytes over 0x7F are kept as they are.
///
/// # Errors
/// What `out` holds of the path then is of no use.
pub fn normalize_uri(target: &[u8], merge_slashes: bool, out: &mut Vec<u8>) -> Result<Uri, UriError> {
    if target.first() != Some(&b'/') {
        return Err(UriError::NotAbsolute);
    }
    let mut previous = 0;
    for (at, &byte) in target.iter().enumerate() {
        match byte {
            b'?' => {
                out.extend_from_slice(&target[..at]);
                return Ok(Uri { args: Some(arguments(target, at + 1)), changed: false });
            }
            b'%' | b'#' | 0 => return normalize_slowly(target, at, merge_slashes, out),
            b'/' | b'.' if previous == b'/' => return normalize_slowly(target, at, merge_slashes, out),
            _ => previous = byte,
        }
    }
    out.extend_from_slice(target);
    Ok(Uri { args: None, changed: false })
}

fn arguments(target: &[u8], start: usize) -> Range<usize> {
    let end = memchr::memchr(b'#', &target[start..]).map_or(target.len(), |length| start + length);
    start..end
}

/// What the path ends with so far.
#[derive(Clone, Copy)]
enum Tail {
    Usual,
    Slash,
    Dot,
    DotDot,
}

fn normalize_slowly(
    target: &[u8],
    plain: usize,
    merge_slashes: bool,
    out: &mut Vec<u8>,
) -> Result<Uri, UriError> {
    let root = out.len();
    out.extend_from_slice(&target[..plain]);
    let mut tail = if out.last() == Some(&b'/') && out.len() > root { Tail::Slash } else { Tail::Usual };
    let mut at = plain;
    let mut args = None;
    while let Some(&raw) = target.get(at) {
        at += 1;
        let mut byte = raw;
        match raw {
            b'?' => {
                args = Some(arguments(target, at));
                break;
            }
            b'#' => break,
            b'%' => {
                byte = decode(target.get(at..at + 2))?;
                at += 2;
            }
            _ => {}
        }
        tail = match (tail, byte) {
            (_, 0) => return Err(UriError::Nul),
            (Tail::Slash, b'/') if merge_slashes => continue,
            // The slash before the dots stays and is this one.
            (Tail::Dot, b'/') => {
                out.pop();
                tail = Tail::Slash;
                continue;
            }
            (Tail::DotDot, b'/') => {
                drop_segment(out, root)?;
                tail = Tail::Slash;
                continue;
            }
            (_, b'/') => Tail::Slash,
            (Tail::Slash, b'.') => Tail::Dot,
            (Tail::Dot, b'.') => Tail::DotDot,
            _ => Tail::Usual,
        };
        out.push(byte);
    }
    match tail {
        Tail::Dot => {
            out.pop();
        }
        Tail::DotDot => drop_segment(out, root)?,
        Tail::Usual | Tail::Slash => {}
    }
    Ok(Uri { args, changed: true })
}

fn decode(digits: Option<&[u8]>) -> Result<u8, UriError> {
    let value = |digit: u8| (digit as char).to_digit(16).ok_or(UriError::BadEscape);
    match digits {
        Some(&[high, low]) => Ok((value(high)? << 4 | value(low)?) as u8),
        _ => Err(UriError::BadEscape),
    }
}

/// Removes `segment/..` from the end of the path: what is left ends with the slash before the segment.
fn drop_segment(path: &mut Vec<u8>, root: usize) -> Result<(), UriError> {
    let parent_slash = path.len() - 3;
    if parent_slash <= root {
        return Err(UriError::AboveRoot);
    }
    let slash = memchr::memrchr(b'/', &path[root..parent_slash]).ok_or(UriError::AboveRoot)?;
    path.truncate(root + slash + 1);
    Ok(())
}

/// Appends the decoded path of a URI that did not come in a request line (`X-Accel-Redirect`, a `Destination` field),
/// and says where its arguments are. Unlike [`normalize_uri`] nothing is resolved; what could climb is refused, as
/// nginx does. An escape that is none stays as it is.
///
/// # Errors
/// The URI is empty or only arguments, or holds a NUL, or has a `..` segment, plain or encoded.
pub fn check_unsafe_uri(uri: &[u8], out: &mut Vec<u8>) -> Result<Uri, UriError> {
    let path_end = memchr::memchr(b'?', uri).unwrap_or(uri.len());
    if path_end == 0 {
        return Err(UriError::NotAbsolute);
    }
    let start = out.len();
    let mut at = 0;
    while at < path_end {
        let escape = if uri[at] == b'%' { decode(uri[..path_end].get(at + 1..at + 3)).ok() } else { None };
        out.push(escape.unwrap_or(uri[at]));
        at += if escape.is_some() { 3 } else { 1 };
    }
    let path = &out[start..];
    if memchr::memchr(0, path).is_some() {
        return Err(UriError::Nul);
    }
    if path.split(|&byte| byte == b'/').any(|segment| segment == b"..") {
        return Err(UriError::AboveRoot);
    }
    let args = (path_end < uri.len()).then_some(path_end + 1..uri.len());
    Ok(Uri { args, changed: path != &uri[..path_end] })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(target: &str, merge_slashes: bool) -> Result<String, UriError> {
        let mut out = b"prefix/".to_vec();
        normalize_uri(target.as_bytes(), merge_slashes, &mut out)?;
        Ok(String::from_utf8_lossy(&out["prefix/".len()..]).into_owned())
    }

    #[test]
    fn plain_targets_are_copied() {
        for target in ["/", "/a", "/a/b.c", "/a.b/..c", "/a/b/", "/\u{e9}", "/a..", "/..a", "/.a/...", "/+"] {
            assert_eq!(path(target, true).as_deref(), Ok(target));
        }
    }

    #[test]
    fn escapes_dots_and_slashes_are_resolved_in_one_pass() {
        let cases = [
            ("//a///b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/../../c", "/c"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/a//../b", "/b"),
            ("/%61%2fb", "/a/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/a%2F..%2fb", "/b"),
            ("/%3fx%23%25", "/?x#%"),
            ("/%252e", "/%2e"),
            ("/a#b?c", "/a"),
            ("/a/..#b", "/"),
            ("/a/..?b", "/"),
            ("/./", "/"),
            ("/.", "/"),
            ("/a%2e./b", "/a../b"),
        ];
        for (target, expected) in cases {
            assert_eq!(path(target, true).as_deref(), Ok(expected), "{target}");
        }
        assert_eq!(path("//a//b", false).as_deref(), Ok("//a//b"));
        assert_eq!(path("/a//../b", false).as_deref(), Ok("/a/b"));
    }

    #[test]
    fn what_climbs_or_is_no_escape_is_refused() {
        for target in ["/..", "/../a", "/a/../..", "/%2e%2e/a", "/.//../..", "/..#", "/..?a"] {
            assert_eq!(path(target, true), Err(UriError::AboveRoot), "{target}");
        }
        for target in ["/%", "/%4", "/%zz", "/%4g", "/a%?41", "/%4?1"] {
            assert_eq!(path(target, true), Err(UriError::BadEscape), "{target}");
        }
        assert_eq!(path("/%00", true), Err(UriError::Nul));
        assert_eq!(path("/a\0", true), Err(UriError::Nul));
        assert_eq!(path("a", true), Err(UriError::NotAbsolute));
        assert_eq!(path("", true), Err(UriError::NotAbsolute));
    }

    #[test]
    fn arguments_are_what_is_between_question_mark_and_fragment() {
        let args = |target: &str| {
            let uri = normalize_uri(target.as_bytes(), true, &mut Vec::new()).unwrap();
            uri.args.map(|range| target[range].to_owned())
        };
        assert_eq!(args("/a?b?c").as_deref(), Some("b?c"));
        assert_eq!(args("/%61?b%20#c").as_deref(), Some("b%20"));
        assert_eq!(args("/a?b#c").as_deref(), Some("b"));
        assert_eq!(args("/a?").as_deref(), Some(""));
        assert_eq!(args("/a#b?c"), None);
        assert_eq!(args("/a"), None);
    }

    #[test]
    fn unsafe_uris_are_decoded_and_must_not_climb() {
        let check = |uri: &str| {
            let mut out = Vec::new();
            check_unsafe_uri(uri.as_bytes(), &mut out).map(|_| String::from_utf8(out).unwrap())
        };
        assert_eq!(check("/a%20b?c=%41").as_deref(), Ok("/a b"));
        assert_eq!(check("/a%zz").as_deref(), Ok("/a%zz"));
        assert_eq!(check("/a..b/.x").as_deref(), Ok("/a..b/.x"));
        for uri in ["..", "../a", "/a/..", "/../a", "/%2e%2e/a", "/a%2f..", "/a/..?b"] {
            assert_eq!(check(uri), Err(UriError::AboveRoot), "{uri}");
        }
        assert_eq!(check("/%00"), Err(UriError::Nul));
        assert_eq!(check("?a"), Err(UriError::NotAbsolute));
        assert_eq!(check(""), Err(UriError::NotAbsolute));
    }

    proptest! {
        #[test]
        fn normal_paths_are_rooted_and_hold_no_dot_segment(
            target in r"/[/.%2ef?#a0]{0,40}", merge_slashes: bool,
        ) {
            super::super::fuzz::fuzz_uri(target.as_bytes(), merge_slashes);
        }

        #[test]
        fn any_bytes_do(target: Vec<u8>, merge_slashes: bool) {
            super::super::fuzz::fuzz_uri(&target, merge_slashes);
        }
    }
}
