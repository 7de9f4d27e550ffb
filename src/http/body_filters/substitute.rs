//! `sub_filter`: strings that are replaced as the body goes by.
//!
//! The leftmost match wins; of those that begin at the same byte, the string that was configured first. Letters of ASCII
//! match in either case. What was put in is not looked through again. A match may lie across pieces of the input: as many
//! bytes are held back as may be the beginning of one.

use std::sync::Arc;

use super::{BodyFilter, FilterFailure, Progress, Signal};

/// A string in lower case, and its replacement.
type Pair = (Box<[u8]>, Box<[u8]>);

/// What to replace, and with what.
#[derive(Debug, Default)]
pub struct Substitutions {
    pairs: Vec<Pair>,
    /// Each string is replaced once only.
    once: bool,
    /// Which bytes begin a string.
    begins: Box<[bool]>,
    longest: usize,
}

impl Substitutions {
    /// Strings and their replacements, in the order in which they count. Empty strings match nowhere.
    pub fn new(pairs: impl Iterator<Item = (Vec<u8>, Vec<u8>)>, once: bool) -> Substitutions {
        let pairs: Vec<Pair> = pairs
            .filter(|(from, _)| !from.is_empty())
            .map(|(from, to)| (from.to_ascii_lowercase().into(), to.into()))
            .collect();
        let mut begins = vec![false; 256];
        for (from, _) in &pairs {
            begins[usize::from(from[0])] = true;
            begins[usize::from(from[0].to_ascii_uppercase())] = true;
        }
        let longest = pairs.iter().map(|(from, _)| from.len()).max().unwrap_or(0);
        Substitutions { pairs, once, begins: begins.into(), longest }
    }

    /// Whether there is nothing to replace.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }
}

/// See the module's documentation.
pub struct Substitute {
    with: Arc<Substitutions>,
    /// Input that is looked at: what was held back, and some of what came behind it.
    held: Vec<u8>,
    /// Bytes of `held` that are dealt with.
    position: usize,
    /// What is to go out before all else: a string of `with` and how much of its replacement is out.
    replacing: Option<(usize, usize)>,
    /// Strings that were replaced, where each is only once.
    used: Vec<bool>,
    unused: usize,
}

/// Input that is taken in at a time, in bytes, beside what was held back.
const WORK_BYTES: usize = 8 * 1024;

/// What begins at a byte.
enum Found {
    Nothing,
    /// This string.
    Match(usize),
    /// What there is may become a match.
    Beginning,
}

impl Substitute {
    /// A filter at the beginning of a body.
    pub fn new(with: Arc<Substitutions>) -> Substitute {
        let used = vec![false; with.pairs.len()];
        let unused = used.len();
        Substitute { with, held: Vec::new(), position: 0, replacing: None, used, unused }
    }

    fn look(&self, text: &[u8]) -> Found {
        for (number, (from, _)) in self.with.pairs.iter().enumerate() {
            if self.used[number] {
                continue;
            }
            let count = from.len().min(text.len());
            if from[..count].eq_ignore_ascii_case(&text[..count]) {
                return if count == from.len() { Found::Match(number) } else { Found::Beginning };
            }
        }
        Found::Nothing
    }

    /// How many bytes of `held` from the position on pass as they are, and what comes behind them.
    fn scan(&self, is_last: bool) -> (usize, Found) {
        let text = &self.held[self.position..];
        if self.unused == 0 {
            return (text.len(), Found::Nothing);
        }
        for (at, byte) in text.iter().enumerate() {
            if !self.with.begins[usize::from(*byte)] {
                continue;
            }
            match self.look(&text[at..]) {
                Found::Nothing => {}
                // At the end of the body a beginning is nothing; another string may match from the same byte.
                Found::Beginning if is_last => {
                    if let Some(number) = self.shorter_match(&text[at..]) {
                        return (at, Found::Match(number));
                    }
                }
                found => return (at, found),
            }
        }
        (text.len(), Found::Nothing)
    }

    fn shorter_match(&self, text: &[u8]) -> Option<usize> {
        self.with.pairs.iter().enumerate().position(|(number, (from, _))| {
            !self.used[number] && text.len() >= from.len() && from.eq_ignore_ascii_case(&text[..from.len()])
        })
    }

    fn note_used(&mut self, number: usize) {
        if self.with.once {
            self.used[number] = true;
            self.unused -= 1;
        }
    }
}

impl BodyFilter for Substitute {
    fn filter(
        &mut self,
        input: &mut &[u8],
        signal: Signal,
        out: &mut Vec<u8>,
        room: usize,
    ) -> Result<Progress, FilterFailure> {
        let end = out.len() + room;
        loop {
            let free = end - out.len();
            if free == 0 {
                return Ok(Progress::Full);
            }
            if let Some((number, sent)) = self.replacing {
                let rest = &self.with.pairs[number].1[sent..];
                let count = rest.len().min(free);
                out.extend_from_slice(&rest[..count]);
                self.replacing = (count < rest.len()).then_some((number, sent + count));
                continue;
            }
            if self.held.len() - self.position <= self.with.longest && !input.is_empty() {
                self.held.drain(..self.position);
                self.position = 0;
                let count = input.len().min(WORK_BYTES);
                self.held.extend_from_slice(&input[..count]);
                *input = &input[count..];
            }
            let is_last = signal == Signal::Last && input.is_empty();
            let (plain, found) = self.scan(is_last);
            let count = plain.min(free);
            out.extend_from_slice(&self.held[self.position..self.position + count]);
            self.position += count;
            if count < plain {
                return Ok(Progress::Full);
            }
            match found {
                Found::Match(number) => {
                    self.position += self.with.pairs[number].0.len();
                    self.note_used(number);
                    self.replacing = Some((number, 0));
                }
                _ if !input.is_empty() => {}
                _ if is_last => return Ok(Progress::Done),
                _ => return Ok(Progress::Starved),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::law::{Plan, holds_for_every_split, run_whole};
    use super::*;
    use proptest::prelude::*;

    fn substitute(pairs: &[(&str, &str)], once: bool) -> Substitute {
        let pairs = pairs.iter().map(|(from, to)| (from.as_bytes().to_vec(), to.as_bytes().to_vec()));
        Substitute::new(Arc::new(Substitutions::new(pairs, once)))
    }

    fn replaced(pairs: &[(&str, &str)], once: bool, text: &str) -> String {
        String::from_utf8(run_whole(&mut substitute(pairs, once), text.as_bytes())).unwrap()
    }

    #[test]
    fn strings_are_replaced_whatever_their_case() {
        assert_eq!(replaced(&[("abc", "x")], false, "abc-ABC-aBc-ab"), "x-x-x-ab");
        assert_eq!(replaced(&[("ABC", "")], false, "1abc2"), "12");
        assert_eq!(replaced(&[("aab", "x")], false, "aaab aaaab"), "ax aax");
    }

    #[test]
    fn once_is_for_each_string() {
        assert_eq!(replaced(&[("a", "1"), ("b", "2")], true, "aabba"), "1a2ba");
    }

    #[test]
    fn the_leftmost_match_wins_then_the_first_string() {
        assert_eq!(replaced(&[("bc", "1"), ("abcd", "2")], false, "abcd bcd"), "2 1d");
        assert_eq!(replaced(&[("ab", "1"), ("abc", "2")], false, "abc"), "1c");
        assert_eq!(replaced(&[("abc", "2"), ("ab", "1")], false, "abc abd ab"), "2 1d 1");
    }

    #[test]
    fn what_was_put_in_is_not_looked_through() {
        assert_eq!(replaced(&[("a", "aa")], false, "aa"), "aaaa");
    }

    proptest! {
        #[test]
        fn every_split_gives_the_same(
            text in "[abcAB]{0,200}",
            pairs in proptest::collection::vec(("[abc]{1,4}", "[xyz]{0,5}"), 1..4),
            once in any::<bool>(),
            plan in Plan::any(),
        ) {
            let pairs: Vec<(&str, &str)> =
                pairs.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
            holds_for_every_split(text.as_bytes(), &plan, || substitute(&pairs, once));
        }
    }
}
