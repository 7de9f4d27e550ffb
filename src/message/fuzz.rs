//! Laws of the helpers here, for property tests and fuzz targets. Each panics where its law is broken.

use super::{
    Fields, RangeRequest, RequestHead, check_unsafe_uri, if_match, if_none_match, if_range_is_etag,
    normalize_uri, parse_content_range, parse_ranges, validate_host,
};

/// A normal path is rooted, not longer than the target, holds no NUL, no dot segment, and (with `merge_slashes`) no
/// empty one; what stands before it in the output stays.
pub fn fuzz_uri(target: &[u8], merge_slashes: bool) {
    let mut out = b"before".to_vec();
    let Ok(uri) = normalize_uri(target, merge_slashes, &mut out) else { return };
    let path = out.strip_prefix(b"before").expect("the output is appended to");
    assert!(path.starts_with(b"/") && path.len() <= target.len() && !path.contains(&0));
    let mut segments = path[1..].split(|&byte| byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        assert!(segment != b"." && segment != b"..");
        assert!(!merge_slashes || !segment.is_empty() || segments.peek().is_none());
    }
    if let Some(args) = uri.args {
        assert_eq!(target[args.start - 1], b'?');
        assert!(!target[args].contains(&b'#'));
    }
    if !uri.changed {
        assert!(target.starts_with(path));
    }
}

/// Ranges lie within the content, none is empty, together they are no longer than it, and there is at least one.
pub fn fuzz_ranges(value: &[u8], length: u64) {
    let mut ranges = Vec::new();
    let outcome = parse_ranges(value, length, 10, &mut ranges);
    assert_eq!(outcome == RangeRequest::Ranges, !ranges.is_empty());
    assert!(ranges.len() <= 10);
    assert!(ranges.iter().all(|range| range.start < range.end && range.end <= length));
    assert!(ranges.iter().map(|range| range.end - range.start).sum::<u64>() <= length);
}

/// What a Content-Range field tells is not empty, and written plainly it tells the same.
pub fn fuzz_content_range(value: &[u8]) {
    let Some((range, total)) = parse_content_range(value) else { return };
    assert!(range.start < range.end);
    let total_text = total.map_or_else(|| "*".to_owned(), |total| total.to_string());
    let written = format!("bytes {}-{}/{total_text}", range.start, range.end - 1);
    assert_eq!(parse_content_range(written.as_bytes()), Some((range, total)));
}

/// A valid host's name is a non-empty piece of it without port, space, slash or control byte.
pub fn fuzz_host(text: &[u8]) {
    let Some(host) = validate_host(text) else { return };
    let name = &text[host.name];
    assert!(!name.is_empty());
    assert!(name.iter().all(|&byte| byte > b' ' && byte < 0x7f && !b"/\\@?#".contains(&byte)));
    assert!(name.starts_with(b"[") || !name.contains(&b':'));
}

/// What passes holds no NUL and no `..` segment, is not longer than the URI, and its arguments are what follows its
/// question mark; what stands before it in the output stays.
pub fn fuzz_unsafe_uri(text: &[u8]) {
    let mut out = b"before".to_vec();
    let Ok(uri) = check_unsafe_uri(text, &mut out) else { return };
    let path = out.strip_prefix(b"before").expect("the output is appended to");
    assert!(!path.is_empty() && path.len() <= text.len() && !path.contains(&0));
    assert!(path.split(|&byte| byte == b'/').all(|segment| segment != b".."));
    let path_end = uri.args.as_ref().map_or(text.len(), |args| args.start - 1);
    assert!(uri.args.is_none_or(|args| text[args.start - 1] == b'?' && args.end == text.len()));
    assert_eq!(uri.changed, path != &text[..path_end]);
}

/// A tag is found in a list of itself, wherever it stands there; a strong match is a weak one too.
pub fn fuzz_entity_tags(tag: &[u8], list: &[u8]) {
    assert_eq!(if_match(list, None), list == b"*");
    assert!(if_range_is_etag(tag) == (tag.len() > 1 && tag.ends_with(b"\"")));
    let is_tag = tag.len() > 2 && tag.starts_with(b"\"") && tag.ends_with(b"\"") && !tag.contains(&b',');
    if is_tag {
        assert!(!if_match(list, Some(tag)) || if_none_match(list, Some(tag)));
    }
    if is_tag && !list.is_empty() {
        assert!(if_match(tag, Some(tag)));
        assert!(if_match(&[list, b", ", tag].concat(), Some(tag)));
        assert!(if_match(&[tag, b" , ", list].concat(), Some(tag)));
        assert!(if_none_match(&[b"W/", tag, b",", list].concat(), Some(tag)));
    }
}

/// Lines of `operation name: value`, done to a head's fields and to a plain list, leave the same lines in the same order,
/// and what is known of a name by its number is what is found by its text. Operations: `+` pushes, `-` removes, `=` sets
/// (in a head: replaces), `.` clears.
pub fn fuzz_fields(operations: &[u8]) {
    let mut fields = Fields::default();
    let mut head = RequestHead::default();
    let mut model: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for line in operations.split(|&byte| byte == b'\n') {
        let Some((&what, line)) = line.split_first() else { continue };
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let (name, value) = (&line[..colon], line.get(colon + 1..).unwrap_or_default());
        let is_other = |(other, _): &(Vec<u8>, Vec<u8>)| !other.eq_ignore_ascii_case(name);
        match what {
            b'+' => {
                fields.push(name, value);
                head.push(name, value);
                model.push((name.to_vec(), value.to_vec()));
            }
            b'-' => {
                fields.remove(name);
                head.replace(name, std::iter::empty());
                model.retain(is_other);
            }
            b'=' => {
                fields.set(name, value);
                head.replace(name, [value].into_iter());
                model.retain(is_other);
                model.push((name.to_vec(), value.to_vec()));
            }
            b'.' => {
                fields.clear_lines();
                head.clear();
                model.clear();
            }
            _ => {}
        }
    }
    for list in [&fields, &head.fields] {
        let lines = list.iter().map(|(_, name, value)| (name.to_vec(), value.to_vec()));
        assert!(lines.eq(model.iter().cloned()));
        assert!(list.capacity() >= list.text().len() && list.is_empty() == model.is_empty());
        for (field, name, value) in list.iter() {
            assert!(list.named(name).any(|other| other == value));
            assert!(list.all(field.id).any(|other| other == value));
        }
    }
    for (name, _) in &model {
        let id = super::FieldName::of(name);
        if id != super::FieldName::Other {
            assert!(head.has(id) && head.field(id) == head.fields.named(name).next());
            assert_eq!(head.field(id), fields.first(id));
        }
    }
}
