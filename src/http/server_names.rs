//! Which `server` of a listening address answers for a host name.
//!
//! nginx's precedence: the exact name; the longest name with a leading wildcard; the longest with a trailing
//! wildcard; the first regex that matches, in the order of the configuration. If nothing fits, the address's default
//! server answers, which is the caller's to know.
//!
//! Hosts come in lower case, without port and without a final dot.

use std::fmt;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::base::regex::{Captures, MatchError, Regex, RegexError};

/// Names of one sort by their text. The hash has a fixed seed: all keys in the table are the configuration's, and a
/// client only looks up, so there is nothing that it could make collide.
type Names<T> = HashMap<Box<[u8]>, T, FixedState>;

/// One parameter of `server_name`.
#[derive(Clone, Debug)]
pub enum ServerName {
    /// `example.com`, also `""` (requests without a host) and names that no host can have, such as `_`.
    Exact(Box<[u8]>),
    /// `.example.com`: the name itself and all below it. Held without its dot.
    Dotted(Box<[u8]>),
    /// `*.example.com`: all names below. Held without `*.`.
    LeadingWildcard(Box<[u8]>),
    /// `www.example.*`: held without `.*`.
    TrailingWildcard(Box<[u8]>),
    /// `~regex`
    Regex(Arc<Regex>),
}

/// Why a parameter of `server_name` was refused; displays nginx's text up to the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameError {
    /// `server name "X" is invalid`
    Invalid(String),
    /// `invalid server name or wildcard "X"`, to which nginx adds `on ADDRESS`. It notices only on addresses that
    /// have more than one server.
    InvalidWildcard(String),
    /// `empty regex in server name "~"`
    EmptyRegex(String),
    /// PCRE2 refused the pattern, given here without its `~`.
    Regex(RegexError, Vec<u8>),
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NameError::Invalid(name) => write!(f, "server name \"{name}\" is invalid"),
            NameError::InvalidWildcard(name) => write!(f, "invalid server name or wildcard \"{name}\""),
            NameError::EmptyRegex(name) => write!(f, "empty regex in server name \"{name}\""),
            NameError::Regex(error, pattern) => f.write_str(&error.nginx_text(pattern)),
        }
    }
}

impl std::error::Error for NameError {}

impl ServerName {
    /// Reads one parameter. Names are taken in lower case; a regex ignores case if it has an upper-case letter, as
    /// in nginx.
    pub fn parse(text: &[u8]) -> Result<ServerName, NameError> {
        let shown = || String::from_utf8_lossy(text).into_owned();
        if let Some(pattern) = text.strip_prefix(b"~") {
            if pattern.is_empty() {
                return Err(NameError::EmptyRegex(shown()));
            }
            let is_caseless = pattern.iter().any(u8::is_ascii_uppercase);
            let regex = Regex::new(pattern, is_caseless)
                .map_err(|error| NameError::Regex(error, pattern.to_vec()))?;
            return Ok(ServerName::Regex(Arc::new(regex)));
        }
        let star_is_misplaced = text.starts_with(b"*") && (text.len() < 3 || text[1] != b'.');
        if star_is_misplaced || text == b"." {
            return Err(NameError::Invalid(shown()));
        }
        let stars = text.iter().filter(|byte| **byte == b'*').count();
        if stars > 1 || text.contains(&0) || text.windows(2).any(|pair| pair == b"..") {
            return Err(NameError::InvalidWildcard(shown()));
        }
        let lower = text.to_ascii_lowercase();
        if let Some(suffix) = lower.strip_prefix(b".") {
            return Ok(ServerName::Dotted(suffix.into()));
        }
        if let Some(suffix) = lower.strip_prefix(b"*.") {
            return Ok(ServerName::LeadingWildcard(suffix.into()));
        }
        match lower.strip_suffix(b".*") {
            Some(prefix) if !prefix.is_empty() => Ok(ServerName::TrailingWildcard(prefix.into())),
            _ if stars > 0 => Err(NameError::InvalidWildcard(shown())),
            _ => Ok(ServerName::Exact(lower.into())),
        }
    }

    /// True if the name has a slash: nginx warns `server name "X" has suspicious symbols`. Not for regexes.
    pub fn is_suspicious(text: &[u8]) -> bool {
        !text.starts_with(b"~") && text.contains(&b'/')
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes| String::from_utf8_lossy(bytes);
        match self {
            ServerName::Exact(name) => write!(f, "{}", text(name)),
            ServerName::Dotted(name) => write!(f, ".{}", text(name)),
            ServerName::LeadingWildcard(name) => write!(f, "*.{}", text(name)),
            ServerName::TrailingWildcard(name) => write!(f, "{}.*", text(name)),
            ServerName::Regex(regex) => write!(f, "~{}", text(regex.pattern())),
        }
    }
}

/// A name that another server, or the same, has already on this address. The later one is ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameConflict {
    /// The name as nginx shows it.
    pub name: String,
}

impl NameConflict {
    /// nginx's warning: `conflicting server name "X" on ADDRESS, ignored`.
    pub fn nginx_text(&self, address: impl fmt::Display) -> String {
        format!("conflicting server name \"{}\" on {address}, ignored", self.name)
    }
}

/// The names of one listening address.
#[derive(Clone, Debug)]
pub struct ServerNames<T> {
    exact: Names<T>,
    /// By what follows `*.`
    leading: Names<T>,
    /// By what precedes `.*`
    trailing: Names<T>,
    regexes: Vec<(Arc<Regex>, T)>,
    bounds: Bounds,
}

/// The extent of the configured names: a host beyond it is not even hashed, so that long hosts of many labels cost no
/// more than reasonable ones.
#[derive(Clone, Copy, Debug, Default)]
struct Bounds {
    exact_len: usize,
    leading_len: usize,
    leading_labels: usize,
    trailing_len: usize,
    trailing_labels: usize,
}

/// The server found for a host.
#[derive(Debug)]
pub struct NameMatch<'a, T> {
    pub target: T,
    /// If a regex decided: its number among the address's regexes, and itself.
    pub regex: Option<(usize, &'a Regex)>,
}

impl<T> Default for ServerNames<T> {
    fn default() -> Self {
        ServerNames {
            exact: Names::default(),
            leading: Names::default(),
            trailing: Names::default(),
            regexes: Vec::new(),
            bounds: Bounds::default(),
        }
    }
}

impl<T: Copy> ServerNames<T> {
    /// No names: every host is the default server's.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds names in the order of the configuration; gives back those that were ignored.
    #[cfg(test)]
    pub fn build(names: impl IntoIterator<Item = (ServerName, T)>) -> (ServerNames<T>, Vec<NameConflict>) {
        let mut built = Self::default();
        let conflicts =
            names.into_iter().filter_map(|(name, target)| built.insert(name, target).err()).collect();
        (built, conflicts)
    }

    /// Adds one name. As in nginx `.example.com` conflicts with both `example.com` and `*.example.com`, and the one
    /// that came first stays, whole.
    pub fn insert(&mut self, name: ServerName, target: T) -> Result<(), NameConflict> {
        let shown = || NameConflict { name: name.to_string() };
        match &name {
            ServerName::Exact(name) => {
                if self.exact.contains_key(name) {
                    return Err(shown());
                }
                self.insert_exact(name.clone(), target);
            }
            ServerName::Dotted(suffix) => {
                if self.exact.contains_key(suffix) || self.leading.contains_key(suffix) {
                    return Err(shown());
                }
                self.insert_exact(suffix.clone(), target);
                self.insert_leading(suffix.clone(), target);
            }
            ServerName::LeadingWildcard(suffix) => {
                if self.leading.contains_key(suffix) {
                    return Err(shown());
                }
                self.insert_leading(suffix.clone(), target);
            }
            ServerName::TrailingWildcard(prefix) => {
                if self.trailing.contains_key(prefix) {
                    return Err(shown());
                }
                self.bounds.trailing_len = self.bounds.trailing_len.max(prefix.len());
                self.bounds.trailing_labels = self.bounds.trailing_labels.max(label_count(prefix));
                self.trailing.insert(prefix.clone(), target);
            }
            ServerName::Regex(regex) => self.regexes.push((Arc::clone(regex), target)),
        }
        Ok(())
    }

    /// The server for `host`; `None` means the default server. An empty host is that of a request without one, and
    /// only `""` stands for it. `captures` has the groups if a regex decided, and else is left as it was. Allocates
    /// nothing.
    pub fn find(&self, host: &[u8], captures: &mut Captures) -> Result<Option<NameMatch<'_, T>>, MatchError> {
        if let Some(target) = self.find_name(host) {
            return Ok(Some(NameMatch { target, regex: None }));
        }
        if !host.is_empty() {
            for (number, (regex, target)) in self.regexes.iter().enumerate() {
                if regex.captures_into(host, captures)? {
                    return Ok(Some(NameMatch { target: *target, regex: Some((number, regex)) }));
                }
            }
        }
        Ok(None)
    }

    /// True if there are no names at all.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty()
            && self.leading.is_empty()
            && self.trailing.is_empty()
            && self.regexes.is_empty()
    }

    fn insert_exact(&mut self, name: Box<[u8]>, target: T) {
        self.bounds.exact_len = self.bounds.exact_len.max(name.len());
        self.exact.insert(name, target);
    }

    fn insert_leading(&mut self, suffix: Box<[u8]>, target: T) {
        self.bounds.leading_len = self.bounds.leading_len.max(suffix.len());
        self.bounds.leading_labels = self.bounds.leading_labels.max(label_count(&suffix));
        self.leading.insert(suffix, target);
    }

    fn find_name(&self, host: &[u8]) -> Option<T> {
        if host.len() <= self.bounds.exact_len
            && let Some(target) = self.exact.get(host)
        {
            return Some(*target);
        }
        if !self.leading.is_empty()
            && let Some(target) = self.find_leading(host)
        {
            return Some(target);
        }
        if self.trailing.is_empty() { None } else { self.find_trailing(host) }
    }

    /// Looks the ends of `host` up, each from behind a dot, longest first.
    fn find_leading(&self, host: &[u8]) -> Option<T> {
        let mut dot = host.len();
        for _ in 0..self.bounds.leading_labels {
            match memchr::memrchr(b'.', &host[..dot]) {
                Some(at) => dot = at,
                None => break,
            }
        }
        while dot < host.len() {
            let suffix = &host[dot + 1..];
            if suffix.len() <= self.bounds.leading_len
                && let Some(target) = self.leading.get(suffix)
            {
                return Some(*target);
            }
            dot = memchr::memchr(b'.', suffix).map_or(host.len(), |at| dot + 1 + at);
        }
        None
    }

    /// Looks the beginnings of `host` up, each as far as a dot; the longest that is there counts.
    fn find_trailing(&self, host: &[u8]) -> Option<T> {
        let mut found = None;
        for dot in memchr::memchr_iter(b'.', host).take(self.bounds.trailing_labels) {
            if dot > self.bounds.trailing_len {
                break;
            }
            found = self.trailing.get(&host[..dot]).copied().or(found);
        }
        found
    }
}

fn label_count(name: &[u8]) -> usize {
    1 + name.iter().filter(|byte| **byte == b'.').count()
}

/// Law for fuzzing: reading a name gives no panic, and building and looking up finds what a comparison with every
/// name in order of precedence finds. Regexes are left out: they are tried one by one anyway.
pub fn law_names_are_found_like_in_a_list(texts: &[Vec<u8>], host: &[u8]) {
    let mut names = ServerNames::new();
    let mut list: Vec<(ServerName, usize)> = Vec::new();
    for (target, text) in texts.iter().enumerate() {
        if text.starts_with(b"~") {
            continue;
        }
        let Ok(name) = ServerName::parse(text) else { continue };
        if names.insert(name.clone(), target).is_ok() {
            list.push((name, target));
        }
    }
    let rank = |name: &ServerName| match name {
        ServerName::Exact(name) => (&**name == host).then_some((3, 0)),
        ServerName::Dotted(suffix) if **suffix == *host => Some((3, 0)),
        ServerName::Dotted(suffix) | ServerName::LeadingWildcard(suffix) => {
            host.strip_suffix(&**suffix).is_some_and(|head| head.ends_with(b".")).then_some((2, suffix.len()))
        }
        ServerName::TrailingWildcard(prefix) => host
            .strip_prefix(&**prefix)
            .is_some_and(|tail| tail.starts_with(b"."))
            .then_some((1, prefix.len())),
        ServerName::Regex(_) => None,
    };
    let best =
        list.iter().filter_map(|(name, target)| Some((rank(name)?, *target))).max_by_key(|entry| entry.0);
    let found = names.find(host, &mut Captures::new()).ok().flatten().map(|found| found.target);
    assert_eq!(found, best.map(|(_, target)| target));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn build(texts: &[&'static str]) -> (ServerNames<&'static str>, Vec<String>) {
        let names = texts.iter().map(|text| (ServerName::parse(text.as_bytes()).unwrap(), *text));
        let (names, conflicts) = ServerNames::build(names);
        (names, conflicts.iter().map(|conflict| conflict.nginx_text("0.0.0.0:80")).collect())
    }

    fn found(names: &ServerNames<&'static str>, host: &str) -> Option<&'static str> {
        names.find(host.as_bytes(), &mut Captures::new()).unwrap().map(|found| found.target)
    }

    #[test]
    fn precedence_is_exact_then_leading_then_trailing_then_regex() {
        let (names, conflicts) = build(&[
            "~^www",
            "~^w",
            "www.*",
            "www.example.*",
            "*.example.com",
            "*.org",
            "*.deep.example.com",
            "www.example.com",
            ".dotted.net",
            "",
            "_",
        ]);
        assert!(conflicts.is_empty());
        for (host, expected) in [
            ("www.example.com", Some("www.example.com")),
            ("a.example.com", Some("*.example.com")),
            ("a.b.example.com", Some("*.example.com")),
            ("a.deep.example.com", Some("*.deep.example.com")),
            ("deep.example.com", Some("*.example.com")),
            ("example.com", None),
            ("www.example.org", Some("*.org")),
            ("www.example.net", Some("www.example.*")),
            ("www.example", Some("www.*")),
            ("www", Some("~^www")),
            ("wide", Some("~^w")),
            ("dotted.net", Some(".dotted.net")),
            ("a.dotted.net", Some(".dotted.net")),
            ("notdotted.net", None),
            ("", Some("")),
            ("_", Some("_")),
            ("com", None),
        ] {
            assert_eq!(found(&names, host), expected, "{host}");
        }
    }

    #[test]
    fn a_request_without_host_is_never_given_to_a_regex() {
        let (names, _) = build(&["~^.*$"]);
        assert_eq!(found(&names, ""), None);
        assert_eq!(found(&names, "x"), Some("~^.*$"));
    }

    #[test]
    fn names_are_lower_cased_and_a_regex_with_capitals_ignores_case() {
        let (names, _) = build(&["EXAMPLE.com", "~^A\\d$"]);
        assert_eq!(found(&names, "example.com"), Some("EXAMPLE.com"));
        assert_eq!(found(&names, "a1"), Some("~^A\\d$"));
    }

    #[test]
    fn groups_of_the_deciding_regex_are_given() {
        let (names, _) = build(&["~^x$", r"~^(?<user>\w+)\.example\.com$"]);
        let mut captures = Captures::new();
        let host = b"ann.example.com";
        let found = names.find(host, &mut captures).unwrap().unwrap();
        let (number, regex) = found.regex.unwrap();
        assert_eq!(number, 1);
        assert_eq!(regex.names().collect::<Vec<_>>(), [("user", 1)]);
        assert_eq!(captures.text(1, host), Some(&b"ann"[..]));
    }

    /// Each case was asked of nginx 1.22.
    #[test]
    fn conflicts_are_those_of_nginx_and_the_first_name_stays() {
        for (first, second, conflicts) in [
            ("example.com", ".example.com", true),
            (".example.com", "example.com", true),
            (".example.com", "*.example.com", true),
            ("*.example.com", ".example.com", true),
            ("*.example.com", "*.example.com", true),
            (".example.com", ".example.com", true),
            ("www.a.*", "www.a.*", true),
            ("A.com", "a.com", true),
            ("", "", true),
            ("*.example.com", "example.com", false),
            ("www.a.*", "www.a", false),
            ("~^x", "~^x", false),
        ] {
            let (names, warnings) = build(&[first, second]);
            let expected = format!("conflicting server name \"{second}\" on 0.0.0.0:80, ignored");
            assert_eq!(warnings, if conflicts { vec![expected] } else { vec![] }, "{first} {second}");
            if conflicts && !first.is_empty() {
                let host = first.trim_start_matches(['.', '*']).replace('*', "com").to_lowercase();
                assert!(found(&names, &host).is_none_or(|target| target == first));
            }
        }
        let (names, _) = build(&["example.com", ".example.com"]);
        assert_eq!(found(&names, "a.example.com"), None);
    }

    #[test]
    fn errors_are_those_of_nginx() {
        let text = |name: &str| ServerName::parse(name.as_bytes()).unwrap_err().to_string();
        for name in ["*a.com", "*", ".", "*."] {
            assert_eq!(text(name), format!("server name \"{name}\" is invalid"));
        }
        for name in ["a.*.com", "*.a.*", "a..com", "www*"] {
            assert_eq!(text(name), format!("invalid server name or wildcard \"{name}\""));
        }
        assert_eq!(text("~"), "empty regex in server name \"~\"");
        assert_eq!(text("~^(a"), "pcre2_compile() failed: missing closing parenthesis in \"^(a\"");
        for name in [".*", ".a*", ".a.*", "a.com.", "_", ""] {
            assert!(ServerName::parse(name.as_bytes()).is_ok(), "{name}");
        }
        assert!(ServerName::is_suspicious(b"a/b") && !ServerName::is_suspicious(b"~a/b"));
    }

    #[test]
    fn ten_thousand_names_are_all_found() {
        let names = (0..10_000u32).map(|at| {
            let text = match at % 3 {
                0 => format!("site{at}.example.com"),
                1 => format!("*.site{at}.example.com"),
                _ => format!("www.site{at}.*"),
            };
            (ServerName::parse(text.as_bytes()).unwrap(), at)
        });
        let (names, conflicts) = ServerNames::build(names);
        assert!(conflicts.is_empty());
        for at in 0..10_000 {
            let host = match at % 3 {
                0 => format!("site{at}.example.com"),
                1 => format!("x.site{at}.example.com"),
                _ => format!("www.site{at}.net"),
            };
            let found = names.find(host.as_bytes(), &mut Captures::new()).unwrap().unwrap();
            assert_eq!(found.target, at);
        }
    }

    #[test]
    fn a_host_of_thousands_of_labels_is_looked_up_within_the_bounds_of_the_names() {
        let (names, _) = build(&["*.example.com", "www.*"]);
        assert_eq!(found(&names, &"a.".repeat(4000)), None);
        assert_eq!(found(&names, &format!("{}example.com", "a.".repeat(4000))), Some("*.example.com"));
        assert_eq!(found(&names, &format!("www.{}a", "a.".repeat(4000))), Some("www.*"));
    }

    proptest! {
        #[test]
        fn names_are_found_like_in_a_list(
            texts in proptest::collection::vec("(\\*\\.|\\.)?[ab]{0,2}(\\.[ab]{1,2}){0,3}(\\.\\*)?", 0..20),
            host in "\\.?[ab]{0,2}(\\.[ab]{1,2}){0,4}",
        ) {
            let texts: Vec<Vec<u8>> = texts.into_iter().map(String::into_bytes).collect();
            law_names_are_found_like_in_a_list(&texts, host.as_bytes());
        }

        #[test]
        fn arbitrary_names_and_hosts_keep_the_law(texts: Vec<Vec<u8>>, host: Vec<u8>) {
            law_names_are_found_like_in_a_list(&texts, &host);
        }
    }
}
