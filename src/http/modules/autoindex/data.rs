//! Listings for programs, in nginx's bytes: XML, JSON, JSONP. Times are UTC whatever `autoindex_localtime` says.

use crate::base::ascii::append_decimal;
use crate::base::clock::{Civil, format_http_date};
use crate::base::percent::{escape_html, escape_json};
use crate::http::file::{DirectoryEntry, FileKind};

/// `<list>` of `<directory>`, `<file>` and `<other>`; sizes of files only.
pub fn write_xml(out: &mut Vec<u8>, entries: &[DirectoryEntry]) {
    out.extend_from_slice(b"<?xml version=\"1.0\"?>\r\n<list>\r\n");
    for entry in entries {
        let element = kind_name(entry.kind).as_bytes();
        out.push(b'<');
        out.extend_from_slice(element);
        out.extend_from_slice(b" mtime=\"");
        append_iso8601(out, entry.modified_secs);
        out.push(b'"');
        if entry.kind == FileKind::File {
            out.extend_from_slice(b" size=\"");
            append_decimal(out, entry.size);
            out.push(b'"');
        }
        out.push(b'>');
        escape_html(out, &entry.name);
        out.extend_from_slice(b"</");
        out.extend_from_slice(element);
        out.extend_from_slice(b">\r\n");
    }
    out.extend_from_slice(b"</list>\r\n");
}

/// An array of objects, one a line.
pub fn write_json(out: &mut Vec<u8>, entries: &[DirectoryEntry]) {
    out.push(b'[');
    for (index, entry) in entries.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"\r\n{ \"name\":\"" } else { b",\r\n{ \"name\":\"" });
        escape_json(out, &entry.name);
        out.extend_from_slice(b"\", \"type\":\"");
        out.extend_from_slice(kind_name(entry.kind).as_bytes());
        out.extend_from_slice(b"\", \"mtime\":\"");
        out.extend_from_slice(&format_http_date(entry.modified_secs));
        out.push(b'"');
        if entry.kind == FileKind::File {
            out.extend_from_slice(b", \"size\":");
            append_decimal(out, entry.size);
        }
        out.extend_from_slice(b" }");
    }
    out.extend_from_slice(b"\r\n]");
}

/// The array as the argument of a call. The comment keeps the answer from being taken for another format by its
/// first bytes.
pub fn write_jsonp(out: &mut Vec<u8>, callback: &[u8], entries: &[DirectoryEntry]) {
    out.extend_from_slice(b"/* callback */\r\n");
    out.extend_from_slice(callback);
    out.push(b'(');
    write_json(out, entries);
    out.extend_from_slice(b");");
}

fn kind_name(kind: FileKind) -> &'static str {
    match kind {
        FileKind::File => "file",
        FileKind::Directory => "directory",
        FileKind::Other => "other",
    }
}

/// `2026-11-21T03:11:55Z`
pub fn append_iso8601(out: &mut Vec<u8>, secs: i64) {
    let time = Civil::from_secs(secs);
    append_date(out, time);
    out.push(b'T');
    append_clock(out, time);
    out.push(b':');
    append_two(out, time.second);
    out.push(b'Z');
}

/// `2026-11-21`
pub fn append_date(out: &mut Vec<u8>, time: Civil) {
    append_two(out, time.year / 100);
    append_two(out, time.year);
    out.push(b'-');
    append_two(out, time.month);
    out.push(b'-');
    append_two(out, time.day);
}

/// `03:11`
pub fn append_clock(out: &mut Vec<u8>, time: Civil) {
    append_two(out, time.hour);
    out.push(b':');
    append_two(out, time.minute);
}

fn append_two(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&[b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(name: &[u8], kind: FileKind, size: u64, modified_secs: i64) -> DirectoryEntry {
        DirectoryEntry { name: name.to_vec(), kind, size, modified_secs }
    }

    fn sample() -> Vec<DirectoryEntry> {
        vec![
            entry(b"dir <1>", FileKind::Directory, 4096, 1_795_230_715),
            entry(b"a&\"\x01\n", FileKind::File, 2, 1_577_934_245),
            entry(b"fifo", FileKind::Other, 0, 1_795_230_715),
        ]
    }

    #[test]
    fn xml_is_nginx_s() {
        let mut out = Vec::new();
        write_xml(&mut out, &sample());
        let expected = "<?xml version=\"1.0\"?>\r\n<list>\r\n\
            <directory mtime=\"2026-11-21T03:11:55Z\">dir &lt;1&gt;</directory>\r\n\
            <file mtime=\"2020-01-02T03:04:05Z\" size=\"2\">a&amp;&quot;\x01\n</file>\r\n\
            <other mtime=\"2026-11-21T03:11:55Z\">fifo</other>\r\n</list>\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn json_is_nginx_s() {
        let mut out = Vec::new();
        write_json(&mut out, &sample());
        let expected = "[\r\n\
            { \"name\":\"dir <1>\", \"type\":\"directory\", \"mtime\":\"Sat, 21 Nov 2026 03:11:55 GMT\" },\r\n\
            { \"name\":\"a&\\\"\\u0001\\n\", \"type\":\"file\", \"mtime\":\"Thu, 02 Jan 2020 03:04:05 GMT\", \"size\":2 },\
            \r\n{ \"name\":\"fifo\", \"type\":\"other\", \"mtime\":\"Sat, 21 Nov 2026 03:11:55 GMT\" }\r\n]";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn an_empty_folder_has_nginx_s_empty_forms() {
        let mut out = Vec::new();
        write_jsonp(&mut out, b"x", &[]);
        assert_eq!(out, b"/* callback */\r\nx([\r\n]);");
        out.clear();
        write_xml(&mut out, &[]);
        assert_eq!(out, b"<?xml version=\"1.0\"?>\r\n<list>\r\n</list>\r\n");
    }

    proptest! {
        #[test]
        fn json_parses_and_gives_the_names_back(names in prop::collection::vec(".*", 0..5)) {
            let entries: Vec<_> =
                names.iter().map(|name| entry(name.as_bytes(), FileKind::File, 1, 0)).collect();
            let mut out = Vec::new();
            write_json(&mut out, &entries);
            let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
            let read: Vec<&str> =
                value.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
            prop_assert_eq!(read, names);
        }
    }
}
