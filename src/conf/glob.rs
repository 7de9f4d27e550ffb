//! File name patterns as glob(3) reads them for nginx's `include`: `*`, `?`, `[a-z]`, `[!x]`, and `\` before a
//! character that stands for itself. Neither crosses a `/`, nor matches a dot at the start of a name. No braces, no `~`.

/// Whether nginx looks for several files here (it asks for one of these three characters), or opens the one file.
pub fn is_pattern(path: &str) -> bool {
    path.bytes().any(|byte| matches!(byte, b'*' | b'?' | b'['))
}

/// Whether a whole path matches a pattern, segment by segment.
pub fn matches_path(pattern: &str, path: &str) -> bool {
    let mut names = path.split('/');
    let matched = pattern.split('/').all(|part| names.next().is_some_and(|name| matches_name(part, name)));
    matched && names.next().is_none()
}

/// Whether one file name, without a `/`, matches one segment of a pattern.
///
/// Only the last `*` is ever tried again, so the cost is at most the product of both lengths.
pub fn matches_name(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.trim_start_matches('\\').starts_with('.') {
        return false;
    }
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut at, mut read) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while read < name.len() {
        if pattern.get(at) == Some(&'*') {
            last_star = Some((at + 1, read));
            at += 1;
            continue;
        }
        if let Some(length) = matches_one(&pattern[at..], name[read]) {
            at += length;
            read += 1;
            continue;
        }
        let Some((after_star, taken)) = last_star else { return false };
        last_star = Some((after_star, taken + 1));
        (at, read) = (after_star, taken + 1);
    }
    pattern[at..].iter().all(|&rest| rest == '*')
}

/// Matches one character; the number of pattern characters that it took.
fn matches_one(pattern: &[char], character: char) -> Option<usize> {
    match *pattern.first()? {
        '?' => Some(1),
        // A bracket that is never closed stands for itself.
        '[' => match bracket(pattern, character) {
            Some((true, length)) => Some(length),
            Some((false, _)) => None,
            None => (character == '[').then_some(1),
        },
        '\\' if pattern.len() > 1 => (pattern[1] == character).then_some(2),
        plain => (plain == character).then_some(1),
    }
}

/// Reads `[...]` at the start of the pattern: whether it holds the character, and its length. `None` if it has no end.
fn bracket(pattern: &[char], character: char) -> Option<(bool, usize)> {
    let mut at = 1;
    let negated = matches!(pattern.get(at), Some('!' | '^'));
    at += usize::from(negated);
    let first = at;
    let mut held = false;
    loop {
        let mut low = *pattern.get(at)?;
        // A `]` in the first place is a member, not the end.
        if low == ']' && at > first {
            return Some((held != negated, at + 1));
        }
        if low == '\\' {
            at += 1;
            low = *pattern.get(at)?;
        }
        let high = match (pattern.get(at + 1), pattern.get(at + 2)) {
            (Some('-'), Some(&high)) if high != ']' => {
                at += 2;
                high
            }
            _ => low,
        };
        held |= (low..=high).contains(&character);
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_stay_within_a_segment() {
        assert!(matches_path("/etc/*.d/?.conf", "/etc/sites.d/a.conf"));
        assert!(!matches_path("/etc/*.conf", "/etc/sites.d/a.conf"));
        assert!(!matches_path("/etc/*", "/etc"));
        assert!(matches_name("a*b*c", "axxbyybzzc"));
        assert!(!matches_name("a*b*c", "axxbyybzz"));
        assert!(matches_name("**", "x"));
    }

    #[test]
    fn a_leading_dot_must_be_asked_for() {
        assert!(!matches_name("*.conf", ".hidden.conf"));
        assert!(!matches_name("?x", ".x"));
        assert!(!matches_name("[.]x", ".x"));
        assert!(matches_name(".*", ".hidden"));
    }

    #[test]
    fn brackets_hold_sets_ranges_and_their_opposites() {
        assert!(matches_name("[a-c]1", "b1"));
        assert!(!matches_name("[!a-c]1", "b1"));
        assert!(matches_name("[^x]1", "b1"));
        assert!(matches_name("[]x]", "]"));
        assert!(!matches_name("[z-a]", "m"), "a range that runs backwards holds nothing");
        assert!(matches_name("a[b", "a[b"), "a bracket without an end stands for itself");
        assert!(matches_name("[a-]", "-"));
    }

    #[test]
    fn a_backslash_protects_the_next_character() {
        assert!(matches_name("\\*.conf", "*.conf"));
        assert!(!matches_name("\\*.conf", "x.conf"));
    }

    #[test]
    fn many_stars_are_no_trap() {
        let pattern = "*a".repeat(40) + "b";
        assert!(!matches_name(&pattern, &"a".repeat(2000)));
    }
}
