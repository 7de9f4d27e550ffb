//! "did you mean": the known name that lies nearest to what was written.

/// Longer names get no suggestion; nobody mistypes them by a letter, and the comparison costs the product of lengths.
const MAX_NAME: usize = 64;

/// The candidate that is nearest to `name`, if it is near enough to be meant: one edit (a letter more, less, other, or
/// two swapped) for every three letters, at least one. Upper and lower case count as equal, and so do `-` and `_`.
/// Of equals, the first in the alphabet.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.is_empty() || name.len() > MAX_NAME {
        return None;
    }
    let folded = fold(name);
    let allowed = (folded.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .filter(|candidate| candidate.len().abs_diff(folded.len()) <= allowed)
        .map(|candidate| (strsim::osa_distance(&folded, &fold(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= allowed && *distance < candidate.len())
        .min()
        .map(|(_, candidate)| candidate)
}

fn fold(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 5] = ["root", "return", "listen", "server_name", "try_files"];

    #[test]
    fn a_slip_of_the_finger_finds_its_name() {
        assert_eq!(nearest("rooot", NAMES), Some("root"));
        assert_eq!(nearest("lsiten", NAMES), Some("listen"));
        assert_eq!(nearest("server-name", NAMES), Some("server_name"));
        assert_eq!(nearest("Server_Names", NAMES), Some("server_name"));
        assert_eq!(nearest("tryfiles", NAMES), Some("try_files"));
    }

    #[test]
    fn what_is_far_away_is_not_suggested() {
        assert_eq!(nearest("foo", NAMES), None);
        assert_eq!(nearest("x", NAMES), None);
        assert_eq!(nearest("", NAMES), None);
        assert_eq!(nearest(&"a".repeat(5000), NAMES), None);
    }
}
