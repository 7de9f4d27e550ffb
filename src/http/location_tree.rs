//! Which `location` serves a path.
//!
//! nginx's rules, level by level. On the level of the server, and then within each location that has locations:
//!
//! 1. An exact location (`=`) ends the search.
//! 2. A path that lacks only the last slash of a location that asks for it is redirected there.
//! 3. Else the longest prefix is kept, and the locations within it are searched in the same way, first.
//! 4. Unless that longest prefix is `^~`, or the search within ended with an exact or regex match, this level's
//!    regexes are tried in their order; the first that matches ends the search, with its own inner locations searched
//!    once more.
//!
//! The cost of steps 1 to 3 depends on the length of the path, not on the number of locations.

use std::collections::HashMap;
use std::sync::Arc;

use crate::base::prefix_tree::{BuildError, MAX_KEY_LEN, PrefixTree};
use crate::base::regex::{Captures, MatchError, Regex};

/// How a location names the paths that it serves.
#[derive(Debug)]
pub enum LocationPattern {
    /// `= /path`
    Exact(Vec<u8>),
    /// `/path`
    Prefix(Vec<u8>),
    /// `^~ /path`: a prefix for which this level's regexes are not tried.
    PreferredPrefix(Vec<u8>),
    /// `~ regex` and `~* regex`
    Regex(Arc<Regex>),
}

impl LocationPattern {
    /// The text by which messages name the location: path or regex, without its modifier.
    pub fn name(&self) -> &[u8] {
        match self {
            LocationPattern::Exact(name)
            | LocationPattern::Prefix(name)
            | LocationPattern::PreferredPrefix(name) => name,
            LocationPattern::Regex(regex) => regex.pattern(),
        }
    }
}

/// A location to build a tree from. Named locations (`@name`) are found by name and have no place here.
#[derive(Debug)]
pub struct Location<T> {
    pub pattern: LocationPattern,
    /// What a lookup gives back.
    pub target: T,
    /// True if a path that lacks the final slash of this location's name is to be redirected (nginx: locations with
    /// `proxy_pass` and its like). Without meaning if the name has no such slash.
    pub auto_redirect: bool,
    /// The locations within this one, in their order.
    pub children: Vec<Location<T>>,
}

/// Why a tree was not built, in nginx's words, and the target of the location to blame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocationError<T> {
    pub message: String,
    pub target: T,
}

/// What was found for a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<T> {
    /// This location serves the path.
    Found(T),
    /// The path is to be redirected to the same path with a slash; the location is the one that asks for it.
    AutoRedirect(T),
    /// No location serves the path: the server's own settings hold.
    None,
}

/// The locations of one level, with those within them.
#[derive(Debug)]
pub struct LocationTree<T> {
    names: PrefixTree<Slot>,
    statics: Vec<StaticLocation<T>>,
    regexes: Vec<RegexLocation<T>>,
}

/// What stands under one name: `= /a` and `/a` may both be there.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    exact: Option<u32>,
    prefix: Option<u32>,
}

#[derive(Debug)]
struct StaticLocation<T> {
    target: T,
    skips_regexes: bool,
    auto_redirect: bool,
    inner: Option<Box<LocationTree<T>>>,
}

#[derive(Debug)]
struct RegexLocation<T> {
    regex: Arc<Regex>,
    target: T,
    inner: Option<Box<LocationTree<T>>>,
}

/// How the search of one level ended.
enum Outcome<T> {
    Nothing,
    /// A prefix was found; regexes of outer levels may still win over it.
    Prefix(T),
    /// Nothing may win over this.
    Final(T),
    Redirect(T),
}

impl<T> Default for LocationTree<T> {
    fn default() -> Self {
        LocationTree { names: PrefixTree::default(), statics: Vec::new(), regexes: Vec::new() }
    }
}

impl<T: Copy> LocationTree<T> {
    /// Builds the tree of one level from its locations in the order of the configuration. Refuses duplicates, and
    /// locations that do not lie within their outer one, with nginx's messages.
    pub fn build(locations: Vec<Location<T>>) -> Result<LocationTree<T>, LocationError<T>> {
        let mut statics = Vec::new();
        let mut regexes = Vec::new();
        let mut slots: HashMap<Vec<u8>, Slot> = HashMap::new();
        for location in locations {
            let Location { pattern, target, auto_redirect, children } = location;
            check_nesting(&pattern, &children)?;
            let inner = if children.is_empty() { None } else { Some(Box::new(Self::build(children)?)) };
            let (name, is_exact, skips_regexes) = match pattern {
                LocationPattern::Exact(name) => (name, true, false),
                LocationPattern::Prefix(name) => (name, false, false),
                LocationPattern::PreferredPrefix(name) => (name, false, true),
                LocationPattern::Regex(regex) => {
                    regexes.push(RegexLocation { regex, target, inner });
                    continue;
                }
            };
            if name.len() > MAX_KEY_LEN {
                return Err(error(target, format!("too long location \"{}\"", name.escape_ascii())));
            }
            let auto_redirect = auto_redirect && name.ends_with(b"/");
            let slot = slots.entry(name.clone()).or_default();
            let place = if is_exact { &mut slot.exact } else { &mut slot.prefix };
            if place.replace(statics.len() as u32).is_some() {
                return Err(error(
                    target,
                    format!("duplicate location \"{}\"", String::from_utf8_lossy(&name)),
                ));
            }
            statics.push(StaticLocation { target, skips_regexes, auto_redirect, inner });
        }
        match PrefixTree::build(slots.into_iter().collect()) {
            Ok(names) => Ok(LocationTree { names, statics, regexes }),
            Err(BuildError::Duplicate(slot) | BuildError::TooLong(slot)) => {
                // The names are distinct and were measured above; blame the location all the same.
                let at = slot.exact.or(slot.prefix).unwrap_or_default() as usize;
                Err(error(statics[at].target, "duplicate location".to_owned()))
            }
        }
    }

    /// Finds the location for `path` (decoded and normalised). `captures` has the groups of the regex if one decided,
    /// and else is left as it was. Allocates nothing.
    pub fn find(&self, path: &[u8], captures: &mut Captures) -> Result<Lookup<T>, MatchError> {
        Ok(match self.search(path, captures)? {
            Outcome::Nothing => Lookup::None,
            Outcome::Prefix(target) | Outcome::Final(target) => Lookup::Found(target),
            Outcome::Redirect(target) => Lookup::AutoRedirect(target),
        })
    }

    /// Number of locations on this level.
    fn len(&self) -> usize {
        self.statics.len() + self.regexes.len()
    }

    fn search(&self, path: &[u8], captures: &mut Captures) -> Result<Outcome<T>, MatchError> {
        let mut longest = None;
        let end = self.names.descend(path, |_, slot| longest = slot.prefix.or(longest));
        let here = end.value().copied().unwrap_or_default();
        if let Some(exact) = here.exact {
            return Ok(Outcome::Final(self.statics[exact as usize].target));
        }
        if here.prefix.is_none()
            && let Some(with_slash) = end.value_after(b'/')
            && let Some(target) = self.redirects_to(*with_slash)
        {
            return Ok(Outcome::Redirect(target));
        }

        let mut outcome = Outcome::Nothing;
        let mut skips_regexes = false;
        if let Some(longest) = longest {
            let location = &self.statics[longest as usize];
            skips_regexes = location.skips_regexes;
            outcome = Outcome::Prefix(location.target);
            if let Some(inner) = &location.inner {
                match inner.search(path, captures)? {
                    Outcome::Nothing => {}
                    Outcome::Prefix(target) => outcome = Outcome::Prefix(target),
                    decided => return Ok(decided),
                }
            }
        }
        if !skips_regexes {
            for location in &self.regexes {
                if location.regex.captures_into(path, captures)? {
                    return location.search_within(path, captures);
                }
            }
        }
        Ok(outcome)
    }

    /// The location to redirect to, if either of those that share a name asks for it; nginx takes the settings of
    /// the exact one first.
    fn redirects_to(&self, slot: Slot) -> Option<T> {
        let exact = slot.exact.map(|at| &self.statics[at as usize]);
        let prefix = slot.prefix.map(|at| &self.statics[at as usize]);
        let asks = [exact, prefix].into_iter().flatten().any(|location| location.auto_redirect);
        if asks { exact.or(prefix).map(|location| location.target) } else { None }
    }
}

impl<T: Copy> RegexLocation<T> {
    /// The regex has matched: what lies within may decide more closely. nginx makes no slash redirect from here.
    fn search_within(&self, path: &[u8], captures: &mut Captures) -> Result<Outcome<T>, MatchError> {
        let Some(inner) = &self.inner else { return Ok(Outcome::Final(self.target)) };
        Ok(match inner.search(path, captures)? {
            Outcome::Nothing => Outcome::Final(self.target),
            Outcome::Prefix(target) | Outcome::Final(target) | Outcome::Redirect(target) => {
                Outcome::Final(target)
            }
        })
    }
}

fn error<T>(target: T, message: String) -> LocationError<T> {
    LocationError { message, target }
}

/// nginx's rules on what may stand within `outer`. The names of paths are compared even with the text of an outer
/// regex, odd as that is.
fn check_nesting<T: Copy>(outer: &LocationPattern, children: &[Location<T>]) -> Result<(), LocationError<T>> {
    for child in children {
        let name = String::from_utf8_lossy(child.pattern.name());
        let outer_name = String::from_utf8_lossy(outer.name());
        if matches!(outer, LocationPattern::Exact(_)) {
            let message = format!("location \"{name}\" cannot be inside the exact location \"{outer_name}\"");
            return Err(error(child.target, message));
        }
        let is_path = !matches!(child.pattern, LocationPattern::Regex(_));
        if is_path && !child.pattern.name().starts_with(outer.name()) {
            let message = format!("location \"{name}\" is outside location \"{outer_name}\"");
            return Err(error(child.target, message));
        }
    }
    Ok(())
}

/// Law for fuzzing: on one level, the tree finds what looking at every location finds, as the documentation words it.
///
/// A location is written `= NAME`, `^~ NAME`, `NAME`, or `~ NAME` for a regex that matches NAME as it stands; a `!` at
/// the end asks for the slash redirect.
pub fn law_locations_are_found_like_in_a_list(specs: &[Vec<u8>], path: &[u8]) {
    let mut kept: Vec<Spec> = Vec::new();
    for text in specs {
        let spec = Spec::parse(text);
        let is_duplicate = |other: &Spec| {
            spec.kind != Kind::Regex
                && other.name == spec.name
                && other.kind != Kind::Regex
                && (other.kind == Kind::Exact) == (spec.kind == Kind::Exact)
        };
        if spec.name.len() <= MAX_KEY_LEN && !kept.iter().any(is_duplicate) {
            kept.push(spec);
        }
    }
    let locations = kept.iter().enumerate().map(|(target, spec)| Location {
        pattern: spec.pattern(),
        target,
        auto_redirect: spec.auto_redirect,
        children: Vec::new(),
    });
    let Ok(tree) = LocationTree::build(locations.collect()) else { panic!("distinct names make a tree") };
    assert_eq!(tree.len(), kept.len());
    assert_eq!(tree.find(path, &mut Captures::new()), Ok(find_in_list(&kept, path)));
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Exact,
    Prefix,
    PreferredPrefix,
    Regex,
}

struct Spec<'a> {
    kind: Kind,
    name: &'a [u8],
    auto_redirect: bool,
}

impl<'a> Spec<'a> {
    fn parse(text: &'a [u8]) -> Spec<'a> {
        let (text, asks) = text.strip_suffix(b"!").map_or((text, false), |text| (text, true));
        let kinds = [(&b"= "[..], Kind::Exact), (b"^~ ", Kind::PreferredPrefix), (b"~ ", Kind::Regex)];
        let found = kinds.iter().find_map(|(sign, kind)| Some((*kind, text.strip_prefix(*sign)?)));
        let (kind, name) = found.unwrap_or((Kind::Prefix, text));
        Spec { kind, name, auto_redirect: asks && name.ends_with(b"/") }
    }

    fn pattern(&self) -> LocationPattern {
        let name = self.name.to_vec();
        match self.kind {
            Kind::Exact => LocationPattern::Exact(name),
            Kind::Prefix => LocationPattern::Prefix(name),
            Kind::PreferredPrefix => LocationPattern::PreferredPrefix(name),
            Kind::Regex => {
                let quoted: String = name.iter().map(|byte| format!("\\x{byte:02x}")).collect();
                LocationPattern::Regex(Arc::new(Regex::new(quoted, false).expect("a quoted text")))
            }
        }
    }

    fn is_prefix(&self) -> bool {
        matches!(self.kind, Kind::Prefix | Kind::PreferredPrefix)
    }
}

fn find_in_list(specs: &[Spec], path: &[u8]) -> Lookup<usize> {
    let each = || specs.iter().enumerate();
    if let Some((at, _)) = each().find(|(_, spec)| spec.kind == Kind::Exact && spec.name == path) {
        return Lookup::Found(at);
    }
    let slashed = [path, b"/"].concat();
    let same = each().filter(|(_, spec)| spec.kind != Kind::Regex && spec.name == slashed);
    if !specs.iter().any(|spec| spec.is_prefix() && spec.name == path)
        && same.clone().any(|(_, spec)| spec.auto_redirect)
        && let Some((at, _)) = same.min_by_key(|(_, spec)| spec.kind != Kind::Exact)
    {
        return Lookup::AutoRedirect(at);
    }
    let longest = each()
        .filter(|(_, spec)| spec.is_prefix() && path.starts_with(spec.name))
        .max_by_key(|(_, spec)| spec.name.len());
    if longest.is_none_or(|(_, spec)| spec.kind != Kind::PreferredPrefix) {
        let contains = |name: &[u8]| memchr::memmem::find(path, name).is_some();
        if let Some((at, _)) = each().find(|(_, spec)| spec.kind == Kind::Regex && contains(spec.name)) {
            return Lookup::Found(at);
        }
    }
    longest.map_or(Lookup::None, |(at, _)| Lookup::Found(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `("= /a", ...)` as in a configuration; a `!` at the end sets `auto_redirect`.
    fn location(text: &'static str, children: Vec<Location<&'static str>>) -> Location<&'static str> {
        let (spec, auto_redirect) = text.strip_suffix('!').map_or((text, false), |spec| (spec, true));
        Location { pattern: pattern(spec), target: text, auto_redirect, children }
    }

    fn pattern(spec: &str) -> LocationPattern {
        match spec.split_once(' ') {
            Some(("=", name)) => LocationPattern::Exact(name.into()),
            Some(("^~", name)) => LocationPattern::PreferredPrefix(name.into()),
            Some(("~", regex)) => LocationPattern::Regex(Arc::new(Regex::new(regex, false).unwrap())),
            Some(("~*", regex)) => LocationPattern::Regex(Arc::new(Regex::new(regex, true).unwrap())),
            _ => LocationPattern::Prefix(spec.into()),
        }
    }

    fn leaf(text: &'static str) -> Location<&'static str> {
        location(text, Vec::new())
    }

    fn check(tree: &LocationTree<&'static str>, expected: &[(&str, Lookup<&'static str>)]) {
        for (path, lookup) in expected {
            let found = tree.find(path.as_bytes(), &mut Captures::new()).unwrap();
            assert_eq!(found, *lookup, "{path}");
        }
    }

    use Lookup::{AutoRedirect, Found};

    /// The answers were taken from nginx 1.22 with this configuration.
    #[test]
    fn nested_locations_are_searched_as_in_nginx() {
        let tree = LocationTree::build(vec![
            location("/n/", vec![location("/n/in/", vec![leaf("~ x$")]), leaf("~ y$")]),
            location("^~ /c/", vec![leaf("^~ /c/in/"), leaf("/c/ip/"), leaf("~ y$")]),
            leaf("= /e"),
            location("/pr/!", vec![leaf("/pr/deep/!")]),
            leaf("= /pe/!"),
            leaf("= /pr2"),
            leaf("/pr2/!"),
            location("~ ^/rr", vec![leaf("~ z$"), leaf("^~ ^/rrq")]),
            leaf("~ /\\w*y$"),
            leaf("~ /\\w*x$"),
            leaf("~ ^/pr$"),
        ])
        .unwrap();
        check(
            &tree,
            &[
                ("/n/", Found("/n/")),
                ("/n/y", Found("~ y$")),
                ("/n/x", Found("~ /\\w*x$")),
                ("/n/in/q", Found("/n/in/")),
                ("/n/in/x", Found("~ x$")),
                ("/n/in/y", Found("~ y$")),
                ("/c/", Found("^~ /c/")),
                ("/c/x", Found("^~ /c/")),
                ("/c/y", Found("~ y$")),
                ("/c/in/", Found("^~ /c/in/")),
                ("/c/in/y", Found("^~ /c/in/")),
                ("/c/ip/y", Found("~ y$")),
                ("/c/ip/x", Found("/c/ip/")),
                ("/e", Found("= /e")),
                ("/e/", Lookup::None),
                ("/ex", Found("~ /\\w*x$")),
                ("/pr", AutoRedirect("/pr/!")),
                ("/pr/", Found("/pr/!")),
                ("/pr/deep", AutoRedirect("/pr/deep/!")),
                ("/pe", AutoRedirect("= /pe/!")),
                ("/pr2", Found("= /pr2")),
                ("/pr2/", Found("/pr2/!")),
                ("/rrz", Found("~ z$")),
                ("/rrq", Found("~ ^/rr")),
                ("/N/", Lookup::None),
            ],
        );
    }

    #[test]
    fn the_longest_prefix_wins_unless_a_regex_matches() {
        let tree = LocationTree::build(vec![
            leaf("/"),
            leaf("= /"),
            leaf("/images/"),
            leaf("^~ /static/"),
            leaf(r"~* \.(gif|jpg)$"),
            leaf(r"~ \.GIF$"),
        ])
        .unwrap();
        check(
            &tree,
            &[
                ("/", Found("= /")),
                ("/x", Found("/")),
                ("/images/x", Found("/images/")),
                ("/images/x.GIF", Found(r"~* \.(gif|jpg)$")),
                ("/static/x.gif", Found("^~ /static/")),
                ("/images", Found("/")),
                ("", Lookup::None),
            ],
        );
    }

    #[test]
    fn groups_of_the_deciding_regex_are_left_in_the_captures() {
        let tree = LocationTree::build(vec![leaf("/"), leaf(r"~ ^/u/(?<user>\w+)/(.*)$")]).unwrap();
        let mut captures = Captures::new();
        let path = b"/u/ann/x/y";
        tree.find(path, &mut captures).unwrap();
        assert_eq!(captures.text(1, path), Some(&b"ann"[..]));
        assert_eq!(captures.text(2, path), Some(&b"x/y"[..]));
        captures.clear();
        tree.find(b"/q", &mut captures).unwrap();
        assert!(captures.is_empty());
        assert_eq!(tree.regexes[0].regex.names().next(), Some(("user", 1)));
    }

    #[test]
    fn no_slash_redirect_where_the_path_itself_is_a_location_or_the_flag_has_no_slash() {
        let tree = LocationTree::build(vec![leaf("/a/!"), leaf("/a"), leaf("/b!"), leaf("/")]).unwrap();
        check(
            &tree,
            &[("/a", Found("/a")), ("/", Found("/")), ("/b", Found("/b!")), ("/a/b", Found("/a/!"))],
        );
    }

    #[test]
    fn a_slash_redirect_goes_before_a_shorter_prefix_and_regexes() {
        let tree = LocationTree::build(vec![leaf("/"), leaf("/app/!"), leaf("~ app")]).unwrap();
        check(&tree, &[("/app", AutoRedirect("/app/!")), ("/ap", Found("/")), ("/appx", Found("~ app"))]);
    }

    #[test]
    fn errors_are_those_of_nginx() {
        let message = |locations| LocationTree::build(locations).unwrap_err().message;
        assert_eq!(message(vec![leaf("/x"), leaf("/x")]), "duplicate location \"/x\"");
        assert_eq!(message(vec![leaf("/x"), leaf("^~ /x")]), "duplicate location \"/x\"");
        assert_eq!(message(vec![leaf("= /x"), leaf("= /x")]), "duplicate location \"/x\"");
        assert_eq!(
            message(vec![location("/a", vec![leaf("/b")])]),
            "location \"/b\" is outside location \"/a\""
        );
        assert_eq!(
            message(vec![location("= /a", vec![leaf("/a/b")])]),
            "location \"/a/b\" cannot be inside the exact location \"/a\""
        );
        assert_eq!(
            message(vec![location("~ ^/a", vec![leaf("/a")])]),
            "location \"/a\" is outside location \"^/a\""
        );
        let fine = vec![leaf("/x"), leaf("= /x"), leaf("~ a"), leaf("~ a"), location("/y", vec![leaf("/y")])];
        assert!(LocationTree::build(fine).is_ok());
    }

    #[test]
    fn ten_thousand_locations_are_all_found() {
        let locations = (0..10_000u32).map(|at| Location {
            pattern: LocationPattern::Prefix(format!("/tenant{at}/").into_bytes()),
            target: at,
            auto_redirect: false,
            children: Vec::new(),
        });
        let tree = LocationTree::build(locations.collect()).unwrap();
        for at in 0..10_000 {
            let path = format!("/tenant{at}/index.html");
            assert_eq!(tree.find(path.as_bytes(), &mut Captures::new()), Ok(Found(at)));
        }
    }

    proptest! {
        #[test]
        fn finds_what_looking_at_every_location_finds(
            specs in proptest::collection::vec("(= |\\^~ |~ )?/?[ab/]{0,4}!?", 0..20),
            path in "/[ab/]{0,5}",
        ) {
            let specs: Vec<Vec<u8>> = specs.into_iter().map(String::into_bytes).collect();
            law_locations_are_found_like_in_a_list(&specs, path.as_bytes());
        }
    }
}
