//! Random texts go to Debian's nginx, where it is installed, and to us: the first thing it says must be ours too.

use std::path::Path;
use std::process::Command;

use super::*;
use crate::conf::source::MemoryFiles;

const NGINX: &str = "/usr/sbin/nginx";

/// How many texts are compared; one costs nginx some milliseconds. 5,000 were, when this was written.
const TEXTS: usize = 300;

/// Names that no module knows, so that nginx says which name it read first.
const PIECES: [&str; 26] = [
    "zq", "w", " ", " ", "\n", ";", ";\n", "{", " {\n", "}", " }\n", "\"", "'", "\\", "$", "#", "a b",
    "\\\"", "\"x\"", "'y' ", "\t", "\r\n", "\\n", "${", "~", ")",
];

#[test]
fn nginx_says_the_same_first() {
    if !Path::new(NGINX).exists() {
        eprintln!("skipped: {NGINX} is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..TEXTS {
        let text: String = (0..random.usize(1..10)).map(|_| PIECES[random.usize(..PIECES.len())]).collect();
        let parsed = parse_text(&mut MemoryFiles::new(), "text", text.as_bytes(), "");
        let said = nginx_on(&text, folder.path());
        if let Some(rest) = said.strip_prefix("unknown directive \"") {
            let name = rest.strip_suffix('"').unwrap();
            let first = parsed.tree.first().map(|directive| directive.name().lossy().into_owned());
            assert_eq!(first.as_deref(), Some(name), "the first name of {text:?}");
        } else if said.starts_with("no \"events\" section") {
            assert!(parsed.tree.is_empty() && parsed.diagnostics.is_empty(), "{text:?} says nothing");
        } else {
            let first = parsed.diagnostics.iter().next().map(|diagnostic| diagnostic.message.as_str());
            assert_eq!(first, Some(said.as_str()), "the first error of {text:?}");
        }
    }
}

/// nginx's first error about a configuration, without its place.
fn nginx_on(text: &str, folder: &Path) -> String {
    std::fs::write(folder.join("text.conf"), text).unwrap();
    let output = Command::new(NGINX)
        .args(["-t", "-c", "text.conf", "-e", "stderr", "-p"])
        .arg(folder)
        .output()
        .expect("nginx starts");
    let said = String::from_utf8(output.stderr).expect("the pieces are ASCII");
    let (_, error) = said.split_once("[emerg] ").expect("no random text is a configuration");
    let (_, error) = error.split_once(": ").unwrap();
    let (error, _) = error.split_once("\nnginx: configuration file").unwrap();
    error.rsplit_once(" in /").map_or(error, |(message, _)| message).to_owned()
}
