//! Regular expressions as nginx has them: PCRE2 on bytes, with a bound on the work of one match.
//!
//! A `Regex` is shared by all workers. PCRE2 writes a match's positions into a block that belongs to one match at a
//! time; making one costs allocations, so each `Regex` keeps some and lends them out. (The `pcre2` crate's own pool
//! would do that too, but gives out only the whole match's position, and its fast path serves only the one thread
//! that came first.) Each thread has its home slot, so that workers neither wait for each other nor write to one
//! another's cache lines; nothing is allocated once a thread's slot is filled.

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, TryLockError};

use pcre2::bytes::{CaptureLocations, RegexBuilder};
use smallvec::SmallVec;

/// How many steps of backtracking one match may take: some milliseconds. PCRE2's own bound is ten times as high.
/// A pattern that starts with its own `(*LIMIT_MATCH=n)` overrides it.
pub const MATCH_LIMIT: u32 = 1_000_000;

/// Slots for match blocks in each regex: threads beyond that share them.
const SLOTS: usize = 16;

/// A compiled regular expression. Matching bytes, not characters, unless the pattern starts with `(*UTF)`.
pub struct Regex {
    code: pcre2::bytes::Regex,
    pattern: Box<[u8]>,
    is_caseless: bool,
    names: Box<[(Box<str>, usize)]>,
    group_count: usize,
    /// Made at the first match: many regexes of a large configuration are never tried.
    blocks: OnceLock<Box<[MatchBlock; SLOTS]>>,
}

/// A lent-out match block, alone in its cache line.
#[repr(align(64))]
#[derive(Default)]
struct MatchBlock(Mutex<Option<CaptureLocations>>);

/// Why a pattern was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegexError {
    /// PCRE2's own text.
    pub message: String,
    /// Byte of the pattern at which PCRE2 gave up; at most the pattern's length.
    pub offset: usize,
}

impl RegexError {
    /// The line that nginx writes for this error: `pcre2_compile() failed: MESSAGE in "PATTERN" at "REST"`.
    pub fn nginx_text(&self, pattern: &[u8]) -> String {
        let whole = String::from_utf8_lossy(pattern);
        let rest = pattern.get(self.offset..).unwrap_or_default();
        if rest.is_empty() {
            return format!("pcre2_compile() failed: {} in \"{whole}\"", self.message);
        }
        let rest = String::from_utf8_lossy(rest);
        format!("pcre2_compile() failed: {} in \"{whole}\" at \"{rest}\"", self.message)
    }
}

impl fmt::Display for RegexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for RegexError {}

/// Why a match gave no answer: its bound was reached, the subject is no UTF-8 where `(*UTF)` asks for it, or is
/// 4 GiB long. nginx answers such a request with 500 and logs the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatchError {
    /// PCRE2's error number (negative; -47 is the match limit), or 0 if the subject was too long.
    pub code: i32,
}

impl fmt::Display for MatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pcre2_match() failed: {}", self.code)
    }
}

impl std::error::Error for MatchError {}

/// Start and end of a group that took part in a match.
type Span = (u32, u32);

/// Stands for a group that took no part.
const UNSET: Span = (u32::MAX, u32::MAX);

/// Groups held without an allocation: the whole match and nine more.
const INLINE_GROUPS: usize = 10;

/// Positions of the groups of the last successful match, independent of the regex. Reuse it: it allocates only for
/// more than nine groups, once. The subject is the caller's to keep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captures {
    spans: SmallVec<[Span; INLINE_GROUPS]>,
}

impl Captures {
    /// Captures of no match.
    pub fn new() -> Captures {
        Captures::default()
    }

    /// Number of groups of the regex that matched, the whole match (0) included; 0 if there was no match.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// True if there was no match.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Start and end of group `index`; `None` if the regex has no such group or it took no part in the match.
    pub fn get(&self, index: usize) -> Option<(u32, u32)> {
        self.spans.get(index).copied().filter(|span| *span != UNSET)
    }

    /// The text of group `index` in `subject`, which must be what was matched.
    pub fn text<'s>(&self, index: usize, subject: &'s [u8]) -> Option<&'s [u8]> {
        let (start, end) = self.get(index)?;
        subject.get(start as usize..end as usize)
    }

    /// Forgets the match.
    pub fn clear(&mut self) {
        self.spans.clear();
    }

    fn fill(&mut self, locations: &CaptureLocations) {
        self.spans.clear();
        self.spans.extend((0..locations.len()).map(|index| match locations.get(index) {
            // \K in a lookahead can put a start behind its end; such a group has no text.
            Some((start, end)) if start <= end => (start as u32, end as u32),
            _ => UNSET,
        }));
    }
}

impl Regex {
    /// Compiles `pattern`, which need not be UTF-8. `is_caseless` is nginx's `~*`. JIT is used where it is available.
    /// The old spelling `(*UTF8)` at its start is taken as `(*UTF)`.
    pub fn new(pattern: impl AsRef<[u8]>, is_caseless: bool) -> Result<Regex, RegexError> {
        let pattern = pattern.as_ref();
        let source = Source::of(pattern);
        let code = RegexBuilder::new()
            .caseless(is_caseless)
            .jit_if_available(true)
            .build(&source.text)
            .map_err(|error| source.error(&error, pattern))?;
        let names = code
            .capture_names()
            .iter()
            .enumerate()
            .filter_map(|(index, name)| name.as_deref().map(|name| (Box::from(name), index)))
            .collect();
        Ok(Regex {
            group_count: code.captures_len() - 1,
            code,
            pattern: pattern.into(),
            is_caseless,
            names,
            blocks: OnceLock::new(),
        })
    }

    /// The pattern as it was given.
    pub fn pattern(&self) -> &[u8] {
        &self.pattern
    }

    /// Named groups with their numbers, in order of their numbers.
    pub fn names(&self) -> impl Iterator<Item = (&str, usize)> {
        self.names.iter().map(|(name, index)| (&**name, *index))
    }

    /// How many groups the pattern has, the whole match not counted: with 2, `$1` and `$2` may be set.
    pub fn group_count(&self) -> usize {
        self.group_count
    }

    /// True if the pattern matches anywhere in `subject`.
    pub fn is_match(&self, subject: &[u8]) -> Result<bool, MatchError> {
        self.with_block(|locations| self.run(subject, locations))
    }

    /// Like [`Regex::is_match`], and fills `captures` if it matches. If not, `captures` keeps what it had, as nginx's
    /// `$1` does.
    pub fn captures_into(&self, subject: &[u8], captures: &mut Captures) -> Result<bool, MatchError> {
        self.with_block(|locations| {
            let matches = self.run(subject, locations)?;
            if matches {
                captures.fill(locations);
            }
            Ok(matches)
        })
    }

    /// The same compiled code with match blocks of its own, for a thread that wants to share nothing at all. Neither
    /// needed for safety nor, with up to 16 threads, for speed; costs a few small allocations.
    pub fn per_thread_clone(&self) -> Regex {
        Regex {
            code: self.code.clone(),
            pattern: self.pattern.clone(),
            is_caseless: self.is_caseless,
            names: self.names.clone(),
            group_count: self.group_count,
            blocks: OnceLock::new(),
        }
    }

    fn run(&self, subject: &[u8], locations: &mut CaptureLocations) -> Result<bool, MatchError> {
        if subject.len() >= u32::MAX as usize {
            return Err(MatchError { code: 0 });
        }
        match self.code.captures_read(locations, subject) {
            Ok(found) => Ok(found.is_some()),
            Err(error) => Err(MatchError { code: error.code() }),
        }
    }

    /// Lends a match block to `run`: that of the thread's home slot; if another thread holds it, the next free one;
    /// if all are taken, a new one.
    fn with_block<R>(&self, run: impl FnOnce(&mut CaptureLocations) -> R) -> R {
        let blocks = self.blocks.get_or_init(Box::default);
        let home = home_slot();
        for distance in 0..SLOTS {
            if let Some(mut block) = blocks[(home + distance) % SLOTS].try_take() {
                return run(block.get_or_insert_with(|| self.code.capture_locations()));
            }
        }
        run(&mut self.code.capture_locations())
    }
}

impl MatchBlock {
    fn try_take(&self) -> Option<MutexGuard<'_, Option<CaptureLocations>>> {
        match self.0.try_lock() {
            Ok(block) => Some(block),
            // A block has no state that a panic could leave half done: each match overwrites it.
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// The calling thread's number, given out in order of first use. Only spreads threads over slots: no result of a
/// match depends on it.
fn home_slot() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static HOME: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    HOME.with(|home| {
        if home.get() == usize::MAX {
            home.set(NEXT.fetch_add(1, Ordering::Relaxed) % SLOTS);
        }
        home.get()
    })
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = if self.is_caseless { "~*" } else { "~" };
        write!(f, "Regex({operator} {})", String::from_utf8_lossy(&self.pattern))
    }
}

/// What is handed to PCRE2 for a pattern.
struct Source {
    text: String,
    /// How many bytes were put before the pattern.
    added: usize,
}

impl Source {
    fn of(pattern: &[u8]) -> Source {
        // Leading items may stand in any order, and of two limits the last one holds: ours first leaves the
        // pattern's own items what they are.
        let mut text = format!("(*LIMIT_MATCH={MATCH_LIMIT})");
        let mut added = text.len();
        let mut rest = pattern;
        if let Some(tail) = pattern.strip_prefix(b"(*UTF8)") {
            text.push_str("(*UTF)");
            added -= 1;
            rest = tail;
        }
        // The crate wants its pattern as `str`. Bytes that are none are spelled out, which outside of (*UTF) means
        // the same.
        for chunk in rest.utf8_chunks() {
            text.push_str(chunk.valid());
            for byte in chunk.invalid() {
                text.push_str(&format!("\\x{byte:02X}"));
            }
        }
        Source { text, added }
    }

    fn error(&self, error: &pcre2::Error, pattern: &[u8]) -> RegexError {
        let text = error.to_string();
        // "PCRE2: error compiling pattern at offset 5: the message"
        let message = text.splitn(3, ": ").last().unwrap_or(&text).to_owned();
        let offset = error.offset().unwrap_or(0).saturating_sub(self.added).min(pattern.len());
        RegexError { message, offset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(pattern: &str, subject: &str) -> Option<Vec<Option<String>>> {
        let regex = Regex::new(pattern, false).unwrap();
        let mut captures = Captures::new();
        regex.captures_into(subject.as_bytes(), &mut captures).unwrap().then(|| {
            (0..captures.len())
                .map(|at| captures.text(at, subject.as_bytes()))
                .map(|text| text.map(|text| String::from_utf8_lossy(text).into_owned()))
                .collect()
        })
    }

    #[test]
    fn groups_that_took_no_part_are_unset() {
        let found = texts("^(a)|(b)(c)?$", "b").unwrap();
        assert_eq!(found, [Some("b".to_owned()), None, Some("b".to_owned()), None]);
        assert_eq!(texts("^(a)$", "b"), None);
    }

    #[test]
    fn a_match_that_fails_keeps_the_captures_of_the_last_one() {
        let mut captures = Captures::new();
        assert!(Regex::new("(b+)", false).unwrap().captures_into(b"abb", &mut captures).unwrap());
        assert!(!Regex::new("(x)(y)(z)", false).unwrap().captures_into(b"abb", &mut captures).unwrap());
        assert_eq!((captures.len(), captures.get(1), captures.get(7)), (2, Some((1, 3)), None));
        captures.clear();
        assert!(captures.is_empty());
    }

    #[test]
    fn named_groups_are_listed_with_their_numbers() {
        let regex = Regex::new(r"^(?<first>a)(b)(?P<last>c)$", false).unwrap();
        assert_eq!(regex.names().collect::<Vec<_>>(), [("first", 1), ("last", 3)]);
        assert_eq!(regex.group_count(), 3);
    }

    #[test]
    fn case_is_ignored_only_on_demand() {
        assert!(!Regex::new(r"\.PHP$", false).unwrap().is_match(b"/a.php").unwrap());
        assert!(Regex::new(r"\.PHP$", true).unwrap().is_match(b"/a.php").unwrap());
    }

    #[test]
    fn errors_are_those_of_nginx() {
        let text = |pattern: &str| Regex::new(pattern, false).unwrap_err().nginx_text(pattern.as_bytes());
        assert_eq!(text("^(a"), r#"pcre2_compile() failed: missing closing parenthesis in "^(a""#);
        assert_eq!(
            text("(*FOO)^x"),
            r#"pcre2_compile() failed: (*VERB) not recognized or malformed in "(*FOO)^x" at ")^x""#
        );
        assert_eq!(Regex::new("a)b", false).unwrap_err().offset, 1);
        assert_eq!(Regex::new("(*UTF8)a)b", false).unwrap_err().offset, 8);
    }

    #[test]
    fn leading_items_of_the_pattern_keep_their_meaning() {
        for prefix in ["(*UTF8)", "(*UTF)", "(*UCP)(*UTF)"] {
            assert_eq!(texts(&format!("{prefix}^.$"), "ä"), Some(vec![Some("ä".to_owned())]), "{prefix}");
        }
        assert_eq!(texts("^.$", "ä"), None);
        let utf = Regex::new("(*UTF)^.$", false).unwrap();
        assert!(utf.is_match(b"\xff").is_err());
    }

    #[test]
    fn bytes_that_are_no_utf8_match_themselves() {
        let regex = Regex::new(b"^\xe4[\xf6-\xfc]$", false).unwrap();
        assert!(regex.is_match(b"\xe4\xf7").unwrap());
        assert!(!regex.is_match(b"\xe4\xf5").unwrap());
    }

    #[test]
    fn catastrophic_patterns_end_with_an_error() {
        let regex = Regex::new(r"^(a+)+$", false).unwrap();
        let subject = [vec![b'a'; 200], b"b".to_vec()].concat();
        assert_eq!(regex.is_match(&subject), Err(MatchError { code: -47 }));
        assert!(regex.is_match(b"aaa").unwrap());
        let wider = Regex::new(r"(*LIMIT_MATCH=10)^(a+)+$", false).unwrap();
        assert!(wider.is_match(b"aaaaaaaaaaaaaaab").is_err());
    }

    #[test]
    fn an_empty_subject_and_an_empty_pattern_match() {
        assert_eq!(texts("", ""), Some(vec![Some(String::new())]));
        assert_eq!(texts("^$", ""), Some(vec![Some(String::new())]));
    }

    #[test]
    fn a_start_behind_its_end_is_no_text() {
        if let Ok(regex) = Regex::new(r"(?=ab\K)", false) {
            let mut captures = Captures::new();
            let _ = regex.captures_into(b"ab", &mut captures);
            assert_eq!(captures.text(0, b"ab"), None);
        }
    }

    #[test]
    fn threads_share_a_regex_and_see_their_own_captures() {
        let regex = Regex::new(r"^(\d+)-(\d+)$", false).unwrap();
        let own = regex.per_thread_clone();
        assert!(own.is_match(b"1-2").unwrap());
        std::thread::scope(|scope| {
            for thread in 0..2 * SLOTS {
                let regex = &regex;
                scope.spawn(move || {
                    let mut captures = Captures::new();
                    for round in 0..200 {
                        let subject = format!("{}-{}", 10u64.pow(thread as u32 % 10), round);
                        assert!(regex.captures_into(subject.as_bytes(), &mut captures).unwrap());
                        let second = captures.text(2, subject.as_bytes()).unwrap();
                        assert_eq!(second, round.to_string().as_bytes());
                    }
                });
            }
        });
    }
}
