//! Who may know whom, read from the source itself: the rank map of ARCHITECTURE.md, section "Ranks".
//!
//! 1. A folder below `src/` names (`crate::`, `super::`) only folders of a lower rank and itself.
//! 2. Ranks 0 to 4 are sans-IO: they name no socket, file, clock, thread, random source or system call crate.
//! 3. `unsafe` stands in `server/sys.rs` alone.
//!
//! Code under `#[cfg(test)]` is exempt from the second rule and not from the others.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

const RANKS: &[(&str, u8)] = &[
    ("base", 0),
    ("message", 1),
    ("proto", 2),
    ("conf", 2),
    ("upstream", 3),
    ("cache", 3),
    ("http", 4),
    ("stream", 4),
    ("server", 5),
    ("process", 6),
];

/// The highest rank that does no I/O.
const SANS_IO: u8 = 4;

/// What ranks that do no I/O may not name. A path is refused when it begins with one of these.
const OUTSIDE: &[&str] = &[
    "mio",
    "libc",
    "rustix",
    "socket2",
    "signal_hook",
    "crossbeam_channel",
    // A generator made from a seed that is handed in is fine; one that seeds itself is not.
    "fastrand::Rng::new",
    "fastrand::u64",
    "std::fs",
    "std::thread",
    "std::process",
    "std::env",
    "std::os",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::net::ToSocketAddrs",
    "std::io::stdin",
    "std::io::stdout",
    "std::io::stderr",
    // After `use std::{time, net, fs, thread};` the rest of the path is what names them.
    "time::Instant",
    "time::SystemTime",
    "net::TcpStream",
    "net::TcpListener",
    "net::UdpSocket",
];

/// The one file with system calls and `unsafe`.
const UNSAFE_FILE: &str = "server/sys.rs";

#[test]
fn every_folder_uses_only_lower_ranks() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&source, &mut files);
    assert!(files.len() > 5, "no source found below {}", source.display());
    let mut exempt = HashSet::new();
    let texts: Vec<(PathBuf, String)> = files
        .into_iter()
        .map(|path| {
            let text = blank(&std::fs::read_to_string(&path).expect("source"));
            test_modules(&path, &text, &mut exempt);
            (path.strip_prefix(&source).expect("below src").to_owned(), text)
        })
        .collect();
    let mut breaches = Vec::new();
    for (path, text) in &texts {
        // Tests that stand in a file of their own beside the code, by `#[path]`, end in `_tests.rs`.
        let is_test = exempt.iter().any(|test: &PathBuf| source.join(path).starts_with(test))
            || path.to_string_lossy().ends_with("_tests.rs");
        breaches.extend(check(path, text, is_test));
    }
    assert!(breaches.is_empty(), "{} breaches of the ranks:\n{}", breaches.len(), breaches.join("\n"));
}

/// All breaches in one file. `path` is relative to `src/`, `text` has been through [`blank`].
fn check(path: &Path, text: &str, is_test: bool) -> Vec<String> {
    let name = path.to_str().expect("UTF-8");
    let mut breaches = Vec::new();
    let mut breach = |at: usize, what: String| {
        let line = text[..at].matches('\n').count() + 1;
        breaches.push(format!("src/{name}:{line}: {what}"));
    };
    if name != UNSAFE_FILE {
        for at in words(text, "unsafe") {
            breach(at, format!("`unsafe` belongs in {UNSAFE_FILE}"));
        }
    }
    let module = module_path(path);
    let Some(folder) = module.first().filter(|_| name.contains('/')) else {
        return breaches; // lib.rs and main.rs know everybody.
    };
    let Some(rank) = rank_of(folder) else {
        breach(0, format!("folder `{folder}` has no rank: give it one here and in ARCHITECTURE.md"));
        return breaches;
    };
    for (at, path) in paths(text, &module) {
        let Some(inside) = path.strip_prefix("crate::") else { continue };
        let other = inside.split("::").next().unwrap_or_default();
        match rank_of(other) {
            Some(above) if other != folder && above >= rank => {
                breach(at, format!("`{folder}` (rank {rank}) names `{path}` (rank {above})"));
            }
            _ => {}
        }
    }
    if rank <= SANS_IO && !is_test {
        let production = without_tests(text);
        for (at, path) in paths(&production, &module) {
            let hit = OUTSIDE.iter().find(|outside| begins_with(&path, outside));
            if let Some(hit) = hit {
                breach(at, format!("`{folder}` does no I/O, but names `{path}` ({hit})"));
            }
        }
    }
    breaches
}

fn begins_with(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn rank_of(folder: &str) -> Option<u8> {
    RANKS.iter().find(|(name, _)| *name == folder).map(|(_, rank)| *rank)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).expect("source folder").flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::path);
    for entry in entries {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// `conf/tree/node.rs` is `conf::tree::node`, `conf/mod.rs` is `conf`.
fn module_path(path: &Path) -> Vec<String> {
    let mut parts: Vec<String> =
        path.with_extension("").iter().map(|part| part.to_str().expect("UTF-8").to_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

/// The same text with comments and the contents of strings and characters as spaces: line numbers stay.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let before_is_word = at > 0 && is_word(bytes[at - 1]);
        let length = if rest.starts_with(b"//") {
            rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            block_comment(rest)
        } else if rest[0] == b'r' && !before_is_word && raw_string(rest).is_some() {
            raw_string(rest).unwrap_or(1)
        } else if rest.starts_with(b"br") && !before_is_word && raw_string(&rest[1..]).is_some() {
            1 + raw_string(&rest[1..]).unwrap_or(1)
        } else if rest[0] == b'"' {
            quoted(rest, b'"')
        } else if rest[0] == b'\'' && is_character(rest) {
            quoted(rest, b'\'')
        } else {
            at += 1;
            continue;
        };
        for byte in &mut out[at..at + length] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at += length;
    }
    String::from_utf8(out).expect("blanking replaces whole literals")
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// The length of `r"..."` or `r#"..."#` at the start, if it is one (and not `r#name`).
fn raw_string(rest: &[u8]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return None;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let from = 2 + hashes;
    let found = rest[from..].windows(end.len()).position(|window| window == end.as_bytes());
    Some(found.map_or(rest.len(), |at| from + at + end.len()))
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// `'a'`, `'\n'`, `'é'` but not the lifetime `'a`.
fn is_character(rest: &[u8]) -> bool {
    if rest.get(1) == Some(&b'\\') {
        return true;
    }
    let after = (2..=5.min(rest.len().saturating_sub(1))).find(|at| rest[*at] & 0b1100_0000 != 0b1000_0000);
    after.is_some_and(|at| rest[at] == b'\'')
}

/// Where this whole word stands.
fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = text.as_bytes();
    text.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = *at == 0 || !is_word(bytes[*at - 1]);
        before && !bytes.get(*at + word.len()).is_some_and(|byte| is_word(*byte))
    })
}

/// Every path of two or more segments, and every single name that a `use` brings in, from the crate's root where
/// `self` and `super` allow it. Groups are expanded.
fn paths(text: &str, module: &[String]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let bytes = text.as_bytes();
    let mut uses = Vec::new();
    for at in words(text, "use") {
        let end = text[at..].find(';').map_or(text.len(), |length| at + length);
        let mut names = Vec::new();
        expand(text[at + 3..end].trim(), "", &mut names);
        found.extend(names.into_iter().map(|name| (at, resolve(&name, module))));
        uses.push(at..end);
    }
    let mut at = 0;
    while at < bytes.len() {
        if !is_word(bytes[at])
            || (at > 0 && is_word(bytes[at - 1]))
            || uses.iter().any(|range| range.contains(&at))
        {
            at += 1;
            continue;
        }
        let length = path_length(&bytes[at..]);
        let path = &text[at..at + length];
        if path.contains("::") {
            found.push((at, resolve(path, module)));
        }
        at += length.max(1);
    }
    found
}

/// The length of `a::b::c` at the start, without spaces in it.
fn path_length(bytes: &[u8]) -> usize {
    let mut at = 0;
    loop {
        at += bytes[at..].iter().take_while(|byte| is_word(**byte)).count();
        let more = bytes[at..].starts_with(b"::") && bytes.get(at + 2).is_some_and(|byte| is_word(*byte));
        if !more {
            return at;
        }
        at += 2;
    }
}

/// The full paths of a `use` tree: `a::{b, c::d as e}` is `a::b` and `a::c::d`.
fn expand(tree: &str, prefix: &str, names: &mut Vec<String>) {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let name = tree.split(" as ").next().unwrap_or_default();
        let name: String = name.chars().filter(|c| !c.is_whitespace()).collect();
        let name = format!("{prefix}{name}");
        let name = name.trim_start_matches("::");
        let name = name.strip_suffix("::self").or_else(|| name.strip_suffix("::*")).unwrap_or(name);
        if !name.is_empty() {
            names.push(name.to_owned());
        }
        return;
    };
    let head: String = tree[..open].chars().filter(|c| !c.is_whitespace()).collect();
    let inner = &tree[open + 1..tree.rfind('}').unwrap_or(tree.len())];
    let (mut depth, mut from) = (0, 0);
    for (at, character) in inner.char_indices().chain([(inner.len(), ',')]) {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&inner[from..at], &format!("{prefix}{head}"), names);
                from = (at + 1).min(inner.len());
            }
            _ => {}
        }
    }
}

/// `super::super::x` within `a::b::c` is `crate::a::x`. Inside of an inline module one `super` more is written; then
/// the result names a module too high up, at worst the crate's root, which is where a breach would show as well.
fn resolve(path: &str, module: &[String]) -> String {
    let mut segments = path.split("::").peekable();
    let mut base = module.to_vec();
    match segments.peek() {
        Some(&"super" | &"self") => {}
        _ => return path.to_owned(),
    }
    while let Some(&segment @ ("super" | "self")) = segments.peek() {
        if segment == "super" {
            base.pop();
        }
        segments.next();
    }
    let rest: Vec<&str> = segments.collect();
    let joined: Vec<&str> =
        ["crate"].into_iter().chain(base.iter().map(String::as_str)).chain(rest).collect();
    joined.join("::")
}

/// The text with every item under `#[cfg(test)]` (or `#[cfg(any(test, ...))]`) as spaces.
fn without_tests(text: &str) -> String {
    let mut out = text.as_bytes().to_vec();
    for (at, end) in test_items(text) {
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    }
    String::from_utf8(out).expect("whole items")
}

/// The ranges of items for tests only: from the attribute to the end of the block or to the semicolon.
fn test_items(text: &str) -> Vec<(usize, usize)> {
    let mut items = Vec::new();
    for (at, _) in text.match_indices("#[cfg(test)]").chain(text.match_indices("#[cfg(any(test,")) {
        let mut depth = 0usize;
        let mut end = text.len();
        for (offset, byte) in text.as_bytes()[at..].iter().enumerate() {
            match byte {
                b'{' => depth += 1,
                b'}' if depth <= 1 => {
                    end = at + offset + 1;
                    break;
                }
                b'}' => depth -= 1,
                b';' if depth == 0 => {
                    end = at + offset + 1;
                    break;
                }
                _ => {}
            }
        }
        items.push((at, end));
    }
    items
}

/// Notes the files of `#[cfg(test)] mod name;` lines: they are tests as a whole.
fn test_modules(path: &Path, text: &str, exempt: &mut HashSet<PathBuf>) {
    let is_folder = path.file_name().is_some_and(|name| name == "mod.rs" || name == "lib.rs");
    let folder = if is_folder { path.with_file_name("") } else { path.with_extension("") };
    for (at, end) in test_items(text) {
        let item = text[at..end].trim_end_matches(';');
        let mut words = item.split_whitespace().rev();
        if let (Some(name), Some("mod")) = (words.next(), words.next()) {
            exempt.insert(folder.join(name).with_extension("rs"));
            exempt.insert(folder.join(name));
        }
    }
}

mod the_check_itself {
    use super::*;

    fn breaches(path: &str, text: &str) -> Vec<String> {
        check(Path::new(path), &blank(text), false)
    }

    #[test]
    fn finds_higher_ranks_and_siblings() {
        let found = breaches(
            "conf/tree.rs",
            "use crate::{base::Now, http::{Site, Host}};\nfn f() { crate::proto::x() }",
        );
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(
            found[2].starts_with("src/conf/tree.rs:2: `conf` (rank 2) names `crate::proto::x`"),
            "{found:?}"
        );
    }

    #[test]
    fn allows_lower_ranks_and_the_folder_itself() {
        assert!(
            breaches(
                "http/vhost/mod.rs",
                "use crate::{base::Now, http::Site, conf}; use super::super::conf;"
            )
            .is_empty()
        );
    }

    #[test]
    fn follows_super_to_the_root() {
        assert_eq!(breaches("conf/tree.rs", "use super::super::server::Loop;").len(), 1);
        assert!(breaches("conf/tree.rs", "use super::server;").is_empty());
    }

    #[test]
    fn finds_input_and_output_below_the_shell() {
        for text in [
            "use std::time::{Duration, Instant};",
            "use std::{fs, io};",
            "fn f() { std::thread::yield_now() }",
            "use std::time; fn f() { time::Instant::now(); }",
            "fn f() { libc::getpid(); }",
            "use mio;",
            "use std::net::{IpAddr, TcpStream};",
        ] {
            assert_eq!(breaches("http/a.rs", text).len(), 1, "{text}");
            assert!(breaches("server/a.rs", text).is_empty(), "{text}");
        }
        assert!(breaches("http/a.rs", "use std::{time::Duration, net::IpAddr, io::Write};").is_empty());
    }

    #[test]
    fn leaves_tests_strings_and_comments_alone() {
        let text = "// std::fs\n/* mio::Poll /* */ */ const A: &str = \"std::fs::read\"; const B: &str = r#\"\"libc::x\"#;\n\
                    fn f<'a>(x: &'a str) -> char { '\"' }\n#[cfg(test)]\nmod tests { use std::fs; fn g() { { std::fs::read() } } }\n";
        assert!(breaches("base/a.rs", text).is_empty());
        assert_eq!(
            breaches("base/a.rs", &format!("{text}use std::fs;")),
            ["src/base/a.rs:6: `base` does no I/O, but names `std::fs` (std::fs)"]
        );
    }

    #[test]
    fn finds_unsafe_outside_of_its_file() {
        assert_eq!(breaches("server/worker.rs", "fn f() { unsafe { g() } }").len(), 1);
        assert!(breaches("server/sys.rs", "fn f() { unsafe { g() } }").is_empty());
        assert!(breaches("server/worker.rs", "fn unsafe_name() {} // unsafe").is_empty());
    }

    #[test]
    fn asks_for_a_rank_of_new_folders() {
        assert_eq!(breaches("misc/a.rs", "").len(), 1);
    }

    #[test]
    fn test_files_declared_elsewhere_are_found() {
        let mut exempt = HashSet::new();
        test_modules(Path::new("/s/http/mod.rs"), "#[cfg(test)]\nmod tests;\nmod real;", &mut exempt);
        test_modules(Path::new("/s/http/a.rs"), "#[cfg(test)]\nmod tests;", &mut exempt);
        assert!(exempt.contains(Path::new("/s/http/tests.rs")));
        assert!(exempt.contains(Path::new("/s/http/a/tests.rs")));
        assert_eq!(exempt.len(), 4);
    }
}
