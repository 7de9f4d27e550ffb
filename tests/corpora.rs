//! Replays `fuzz/corpus/` through the laws that the fuzz targets hold, and a fixed number of mutations of it.
//!
//! The mutations are the same in every run. `FUZZ_SECONDS=300 cargo test --test corpora mutations` goes on for so long
//! for each law, with new seeds; `FUZZ_LAW=request_head` picks one law. An input that breaks a law is written to
//! `fuzz/artifacts/LAW/`: once the bug is fixed, move it to the corpus.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use thalweg::laws::{LAWS, Law};

/// Mutations of each law's corpus in an ordinary run: all together a few seconds without optimisation.
const MUTATIONS: u64 = 3_000;
/// Longest input that a mutation makes, in bytes; the cost of the models grows faster than their input.
const LONGEST: usize = 10_000;

/// What chance alone seldom writes.
const TOKENS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"/",
    b"//",
    b"/../",
    b"/./",
    b"%2e",
    b"%2F",
    b"%00",
    b"%",
    b"?",
    b"#",
    b"..",
    b"*.",
    b".*",
    b"~ ",
    b"= ",
    b"^~ ",
    b"!",
    b"0",
    b"00",
    b"ffffffffffffffff",
    b"9223372036854775807",
    b"18446744073709551616",
    b"-1",
    b"-",
    b",",
    b";",
    b"\"",
    b"'",
    b"\\",
    b"$",
    b"${",
    b"}",
    b"{",
    b"{ }",
    b"\xff",
    b"\xe2\x98\x83",
    b"W/",
    b"bytes=",
    b"[::1]",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"GET / HTTP/1.1\r\n",
    b"Host: a\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: close\r\n",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"Keep-Alive: timeout=5\r\n",
    b"|",
    b"PROXY TCP4 ",
    b"\0\0\0\x01\x05\0\0\0\x01",
    b"\0\0\x05\0\x01\0\0\0\x01hello",
    b"\0\0\x04\x08\0\0\0\0\x01\0\0\0\x05",
    b"\0\0\x0f\x01\x05\0\0\0\x03\x82\x87\x84A\x0bexample.co",
    b"\x82\x87\x84\xbe",
    b"<D:propfind xmlns:D='DAV:'>",
    b"<D:prop>",
    b"<D:getetag/>",
    b" xmlns=\"",
    b"<![CDATA[",
    b"&amp;",
    b"&#x41;",
    b"<!--#",
    b"-->",
    b"<!--#if expr=\"$v = /(a)/\" -->",
    b"<!--#else -->",
    b"<!--#endif -->",
    b"<!--#set var=\"v\" value=\"$v$text\" -->",
    b"<!--#echo var=\"v\" -->",
    b"<!--#block name=\"b\" -->",
    b"<!--#endblock -->",
    b"<!--#include virtual=\"a\" stub=\"b\" -->",
    b"<!--#include virtual=\"/$v\" set=\"v\" -->",
    b"location /",
    b"server {",
    b"include half;",
    b"10.0.0.0/8 ten;\n",
    b"10.0.0.0-10.0.0.9 r;\n",
    b"ranges;\n",
    b"delete ",
    b"hostnames;\n",
    b"default ",
];

fn corpus_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

/// Names and contents of a law's corpus, in order of names.
fn corpus(law: &str) -> Vec<(String, Vec<u8>)> {
    let folder = corpus_folder().join(law);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("a folder's entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, std::fs::read(&path).expect("a corpus file"))
        })
        .collect();
    files.sort();
    files
}

#[test]
fn every_corpus_file_keeps_its_law() {
    let mut broken = Vec::new();
    for (name, law) in LAWS {
        let files = corpus(name);
        assert!(files.len() >= 8, "{name} has {} corpus files", files.len());
        for (file, data) in files {
            let outcome = catch_unwind(AssertUnwindSafe(|| law(&data)));
            if outcome.is_err() {
                broken.push(format!("fuzz/corpus/{name}/{file}"));
            }
        }
    }
    assert!(broken.is_empty(), "these break their laws: {broken:?}");
}

#[test]
fn every_law_has_a_target_and_a_corpus_and_no_other_is_there() {
    let laws: BTreeSet<String> = LAWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let names = |folder: &Path, suffix: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(folder).expect("a folder");
        let name = |path: PathBuf| path.file_name().expect("a name").to_string_lossy().into_owned();
        entries.map(|entry| name(entry.expect("an entry").path()).replace(suffix, "")).collect()
    };
    assert_eq!(names(&corpus_folder(), ".none"), laws);
    assert_eq!(names(&corpus_folder().with_file_name("fuzz_targets"), ".rs"), laws);
}

#[test]
fn mutations_of_the_corpora_keep_the_laws() {
    let seconds =
        std::env::var("FUZZ_SECONDS").ok().map(|text| text.parse().expect("FUZZ_SECONDS: a number"));
    let only = std::env::var("FUZZ_LAW").ok();
    let start = if seconds.is_some() { Random::from_clock() } else { 1 };
    let chosen = LAWS.iter().filter(|(name, _)| only.as_deref().is_none_or(|only| only == *name));
    std::thread::scope(|scope| {
        let runs: Vec<_> = chosen
            .map(|law| scope.spawn(move || mutate(law, start, seconds.map(Duration::from_secs))))
            .collect();
        assert!(!runs.is_empty(), "FUZZ_LAW names no law");
        let broken: Vec<String> = runs.into_iter().filter_map(|run| run.join().expect("a run")).collect();
        assert!(broken.is_empty(), "{}", broken.join("\n"));
    });
}

/// Runs one law on mutations of its corpus, a seed each; says which input broke it.
fn mutate((name, law): &Law, start: u64, time: Option<Duration>) -> Option<String> {
    let corpus: Vec<Vec<u8>> = corpus(name).into_iter().map(|(_, data)| data).collect();
    let began = Instant::now();
    for seed in start.. {
        match time {
            Some(time) if began.elapsed() >= time => return None,
            None if seed - start == MUTATIONS => return None,
            _ => {}
        }
        let data = mutation(&corpus, &mut Random::new(seed));
        if catch_unwind(AssertUnwindSafe(|| law(&data))).is_err() {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/artifacts").join(name);
            std::fs::create_dir_all(&folder).expect("a folder for the input");
            let path = folder.join(format!("seed-{seed}"));
            std::fs::write(&path, &data).expect("the input is kept");
            let shown = data[..data.len().min(200)].escape_ascii();
            return Some(format!("{} breaks its law: {shown}", path.display()));
        }
    }
    None
}

/// A corpus entry with one to eight changes.
fn mutation(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut data = random.pick(corpus).clone();
    for _ in 0..=random.below(8) {
        change(&mut data, corpus, random);
        data.truncate(LONGEST);
    }
    data
}

fn change(data: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
    let at = random.below(data.len() + 1);
    let end = at + random.below((data.len() - at).min(64) + 1);
    match random.below(10) {
        0 if at < data.len() => data[at] ^= 1 << random.below(8),
        1 if at < data.len() => data[at] = random.below(256) as u8,
        2 => data.truncate(at),
        3 => drop(data.drain(at..end)),
        4 => {
            // The same piece again, some times.
            let piece = data[at..end].repeat(1 + random.below(3));
            data.splice(at..at, piece);
        }
        5 | 6 => drop(data.splice(at..at, random.pick(TOKENS).iter().copied())),
        7 => drop(data.splice(at..end, random.pick(TOKENS).iter().copied())),
        8 => {
            let other = random.pick(corpus);
            let from = random.below(other.len() + 1);
            data.truncate(at);
            data.extend_from_slice(&other[from..]);
        }
        _ => {
            let other = random.pick(corpus);
            let from = random.below(other.len() + 1);
            let to = from + random.below((other.len() - from).min(64) + 1);
            data.splice(at..at, other[from..to].iter().copied());
        }
    }
}

/// SplitMix64: the same inputs for the same seed, for ever.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn from_clock() -> u64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |now| now.as_nanos() as u64)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// From 0 up to and without `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}
