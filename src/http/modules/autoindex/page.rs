//! The page that shows a folder to people: one file without scripts or further requests, for wide and narrow screens,
//! light and dark.

use crate::base::ascii::append_decimal;
use crate::base::clock::Civil;
use crate::base::percent::{Escape, escape, escape_html};
use crate::http::file::{DirectoryEntry, DirectoryListing, FileKind};

use super::data::{append_clock, append_date, append_iso8601};

/// How times and sizes are shown.
pub struct Look<'a> {
    /// Sizes in bytes rather than rounded.
    pub exact_size: bool,
    /// Seconds to add to a time in UTC before it is shown.
    pub shift: &'a dyn Fn(i64) -> i64,
}

const HEAD: &[u8] = br#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>Index of "#;

/// On a narrow screen each name gets a line of its own, with time and size below it.
const STYLE: &[u8] = br#"</title>
<style>
:root { color-scheme: light dark; --text: #1c1e21; --soft: #666c74; --line: #e1e4e8; --link: #0757b8; --page: #fff; --row: #f4f6f9 }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e6ea; --soft: #9aa1ab; --line: #30353c; --link: #82b7ff; --page: #16181c; --row: #20242a }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--text); font: 16px/1.45 system-ui, sans-serif }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 3rem }
h1 { margin: 0 0 1rem; font-size: 1.25rem; overflow-wrap: anywhere }
table { width: 100%; border-collapse: collapse }
th { padding: .4rem .6rem; text-align: left; font-size: .85rem; font-weight: 600; color: var(--soft) }
td { padding: 0 .6rem; border-top: 1px solid var(--line) }
th:nth-child(n+2), td:nth-child(n+2) { width: 1%; white-space: nowrap; color: var(--soft); font-variant-numeric: tabular-nums }
th:nth-child(3), td:nth-child(3) { text-align: right }
tbody tr:hover { background: var(--row) }
a { display: block; padding: .5rem 0; color: var(--link); text-decoration: none; overflow-wrap: anywhere; unicode-bidi: isolate }
a:hover, a:focus-visible { text-decoration: underline }
.folder a { font-weight: 600 }
p { color: var(--soft) }
@media (max-width: 36rem) {
  thead { display: none }
  tr { display: grid; grid-template-columns: 1fr auto; border-top: 1px solid var(--line); padding: .15rem 0 .5rem }
  td { border: 0; padding: 0 .25rem }
  td:first-child { grid-column: 1 / -1 }
  td:nth-child(n+2) { width: auto; font-size: .85rem }
}
</style>
</head>
<body>
<main>
<h1>Index of "#;

const TABLE: &[u8] = br#"</h1>
<table>
<thead><tr><th scope="col">Name</th><th scope="col">Modified</th><th scope="col">Size</th></tr></thead>
<tbody>
<tr class="folder"><td><a href="../">../</a></td><td></td><td></td></tr>
"#;

/// Writes the page of the folder at `uri`; its entries are in order already.
pub fn write(out: &mut Vec<u8>, uri: &[u8], listing: &DirectoryListing, look: &Look) {
    out.extend_from_slice(HEAD);
    append_shown(out, uri);
    out.extend_from_slice(STYLE);
    append_shown(out, uri);
    out.extend_from_slice(TABLE);
    for entry in &listing.entries {
        write_row(out, entry, look);
    }
    out.extend_from_slice(b"</tbody>\n</table>\n");
    if listing.truncated {
        out.extend_from_slice(b"<p>This folder has more names than are shown here.</p>\n");
    }
    out.extend_from_slice(b"</main>\n</body>\n</html>\n");
}

fn write_row(out: &mut Vec<u8>, entry: &DirectoryEntry, look: &Look) {
    let is_folder = entry.kind == FileKind::Directory;
    let slash: &[u8] = if is_folder { b"/" } else { b"" };
    out.extend_from_slice(if is_folder {
        b"<tr class=\"folder\"><td><a href=\""
    } else {
        b"<tr><td><a href=\""
    });
    escape(out, &entry.name, Escape::UriComponent);
    out.extend_from_slice(slash);
    out.extend_from_slice(b"\">");
    append_shown(out, &entry.name);
    out.extend_from_slice(slash);
    out.extend_from_slice(b"</a></td><td><time datetime=\"");
    append_iso8601(out, entry.modified_secs);
    out.extend_from_slice(b"\">");
    let time = Civil::from_secs(entry.modified_secs.saturating_add((look.shift)(entry.modified_secs)));
    append_date(out, time);
    out.push(b' ');
    append_clock(out, time);
    out.extend_from_slice(b"</time></td><td>");
    if entry.kind != FileKind::File {
        out.push(b'-');
    } else if look.exact_size {
        append_decimal(out, entry.size);
    } else {
        append_rounded(out, entry.size);
    }
    out.extend_from_slice(b"</td></tr>\n");
}

/// Appends a name as HTML text: UTF-8, with what is none, or is a control character, as U+FFFD.
fn append_shown(out: &mut Vec<u8>, name: &[u8]) {
    let text: String =
        String::from_utf8_lossy(name).chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect();
    escape_html(out, text.as_bytes());
}

/// `9999` stays, `10000` is `9.8K`, `1500000` is `1.4M`: one decimal below 10, steps of 1024.
fn append_rounded(out: &mut Vec<u8>, size: u64) {
    if size <= 9999 {
        append_decimal(out, size);
        return;
    }
    let mut unit = 1u64;
    let mut letter = b'?';
    for next in *b"KMGTPE" {
        if letter != b'?' && size / unit < 1024 {
            break;
        }
        unit <<= 10;
        letter = next;
    }
    let tenths = ((u128::from(size) * 10 + u128::from(unit) / 2) / u128::from(unit)) as u64;
    if tenths < 100 {
        append_decimal(out, tenths / 10);
        out.push(b'.');
        append_decimal(out, tenths % 10);
    } else {
        append_decimal(out, (tenths + 5) / 10);
    }
    out.push(letter);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::percent;
    use proptest::prelude::*;

    fn page_of(name: &[u8], kind: FileKind) -> String {
        let entry =
            DirectoryEntry { name: name.to_vec(), kind, size: 1_500_000, modified_secs: 1_577_934_245 };
        let listing = DirectoryListing { entries: vec![entry], truncated: false };
        let mut out = Vec::new();
        write(&mut out, b"/<x>/", &listing, &Look { exact_size: true, shift: &|_| 3600 });
        String::from_utf8(out).unwrap()
    }

    fn rounded(size: u64) -> String {
        let mut out = Vec::new();
        append_rounded(&mut out, size);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn links_names_and_titles_are_escaped() {
        let page = page_of(b"a b&<>\"'#?%\xff\x01:", FileKind::File);
        assert!(page.contains(
            "<a href=\"a%20b%26%3C%3E%22%27%23%3F%25%FF%01%3A\">a b&amp;&lt;&gt;&quot;'#?%\u{FFFD}\u{FFFD}:</a>"
        ));
        assert!(page.contains("<title>Index of /&lt;x&gt;/</title>"));
        assert!(page.contains("<a href=\"../\">../</a>"));
        assert!(page.contains(
            "<time datetime=\"2020-01-02T03:04:05Z\">2020-01-02 04:04</time></td><td>1500000</td>"
        ));
    }

    #[test]
    fn folders_have_a_slash_and_no_size() {
        let page = page_of("ü".as_bytes(), FileKind::Directory);
        assert!(page.contains("<tr class=\"folder\"><td><a href=\"%C3%BC/\">ü/</a>"));
        assert!(page.contains("</time></td><td>-</td>"));
    }

    #[test]
    fn sizes_are_rounded_to_two_or_three_figures() {
        for (size, text) in [
            (0, "0"),
            (9999, "9999"),
            (10_000, "9.8K"),
            (10_240, "10K"),
            (1_048_575, "1024K"),
            (1_048_576, "1.0M"),
            (1_500_000, "1.4M"),
            (10 << 30, "10G"),
            (u64::MAX, "16E"),
        ] {
            assert_eq!(rounded(size), text);
        }
    }

    proptest! {
        /// No name can open an element or leave an attribute, and every link decodes to its name.
        #[test]
        fn any_name_yields_one_row_with_one_link(name in prop::collection::vec(any::<u8>(), 1..40)) {
            let page = page_of(&name, FileKind::File);
            let plain = page_of(b"x", FileKind::File);
            prop_assert_eq!(page.matches('<').count(), plain.matches('<').count());
            prop_assert_eq!(page.matches('"').count(), plain.matches('"').count());
            let start = page.rfind("<a href=\"").unwrap() + 9;
            let link = &page[start..start + page[start..].find('"').unwrap()];
            let mut decoded = Vec::new();
            prop_assert!(percent::decode(&mut decoded, link.as_bytes()));
            prop_assert_eq!(decoded, name);
        }
    }
}
