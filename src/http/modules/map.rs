//! `map`: a variable whose value is looked up by a text.

use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::base::ascii;
use crate::base::regex::Captures;
use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::template::Template;
use crate::conf::tree::{self, Word};
use crate::http::build::arguments::{number_without_meaning};
use crate::http::build::{Scope, SiteRegex};
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::matching;
use crate::http::server_names::{ServerName, ServerNames};
use crate::http::settings::contexts::HTTP;
use crate::http::settings::settings;
use crate::http::variables::Compute;

settings! {
    module map;
    fields {
    }
    plain {
        /// A variable whose value depends on a text, by a table.
        "map" HTTP, Arity::exactly(2).block(), default "", set_map;
        /// Without meaning here: tables size themselves.
        "map_hash_bucket_size" HTTP, Arity::exactly(1), default "64", number_without_meaning;
        /// Without meaning here: tables size themselves.
        "map_hash_max_size" HTTP, Arity::exactly(1), default "2048", number_without_meaning;
    }
}

/// One `map`, compiled.
#[derive(Debug)]
struct Map {
    /// The text that is looked up.
    source: Template,
    /// Keys that are compared, in lower case, by the number of their value.
    keys: Keys,
    /// Keys that are matched, in order.
    regexes: Vec<(SiteRegex, u32)>,
    /// The value if no key fits; none is the empty text.
    default: Option<u32>,
    /// Values by number.
    values: Vec<Template>,
}

#[derive(Debug)]
enum Keys {
    /// The hash has a fixed seed: all keys are the configuration's, a client only looks up.
    Texts(HashMap<Box<[u8]>, u32, FixedState>),
    /// `hostnames`: with wildcards.
    Names(ServerNames<u32>),
}

impl Keys {
    fn find(&self, text: &[u8]) -> Option<u32> {
        match self {
            Keys::Texts(texts) => texts.get(text).copied(),
            // There are no regular expressions among these names, so that nothing can fail or capture.
            Keys::Names(names) => {
                names.find(text, &mut Captures::default()).ok().flatten().map(|found| found.target)
            }
        }
    }
}

impl Compute for Map {
    fn compute(&self, exchange: &mut Exchange, context: &mut Context, out: &mut Vec<u8>) -> bool {
        let mut text = context.env.scratch();
        exchange.render(&self.source, context, &mut text);
        if matches!(self.keys, Keys::Names(_)) && text.ends_with(b".") {
            text.pop();
        }
        let number = self.find(exchange, context, &text).or(self.default);
        context.env.give_back(text);
        if let Some(number) = number {
            exchange.render(&self.values[number as usize], context, out);
        }
        true
    }
}

impl Map {
    fn find(&self, exchange: &mut Exchange, context: &mut Context, text: &[u8]) -> Option<u32> {
        let mut lower = context.env.scratch();
        ascii::append_lower(&mut lower, text);
        let found = self.keys.find(&lower);
        context.env.give_back(lower);
        if found.is_some() || text.is_empty() {
            return found;
        }
        let (_, number) =
            self.regexes.iter().find(|(regex, _)| matching::matches(exchange, context, regex, text))?;
        Some(*number)
    }
}

fn set_map(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    let source = scope.builder.template(call.arg(0))?;
    let word = call.arg(1);
    let Some(variable) = scope.builder.variable_name(word) else {
        return Err(Complaint::new(format!("invalid variable name \"{}\"", word.lossy())).at(word));
    };
    let mut draft = MapDraft::default();
    for line in call.block() {
        if let Err(complaint) = draft.add(scope, line) {
            scope.builder.diagnostics.push(complaint.into_diagnostic(line));
        }
    }
    let is_volatile = draft.is_volatile;
    let map = Arc::new(draft.finish(source));
    scope.builder.define_computed(variable, map, !is_volatile).map_err(|complaint| complaint.at(word))
}

#[derive(Default)]
struct MapDraft {
    hostnames: bool,
    is_volatile: bool,
    default: Option<u32>,
    texts: HashMap<Box<[u8]>, u32, FixedState>,
    names: ServerNames<u32>,
    regexes: Vec<(SiteRegex, u32)>,
    values: Vec<Template>,
    /// Values by their text.
    numbers: HashMap<Box<[u8]>, u32, FixedState>,
}

impl MapDraft {
    fn add(&mut self, scope: &mut Scope, line: &tree::Directive) -> Result<(), Complaint> {
        if line.block.is_some() {
            return Err(Complaint::new("unexpected \"{\""));
        }
        match (line.name().as_bytes(), line.args()) {
            (b"hostnames", []) => self.hostnames = true,
            (b"volatile", []) => self.is_volatile = true,
            (_, [value]) => self.add_entry(scope, line.name(), value)?,
            _ => return Err(Complaint::new("invalid number of the map parameters")),
        }
        Ok(())
    }

    fn add_entry(&mut self, scope: &mut Scope, key: &Word, value: &Word) -> Result<(), Complaint> {
        let number = self.number_of(scope, value)?;
        let text = key.as_bytes();
        if text == b"default" {
            if self.default.replace(number).is_some() {
                return Err(Complaint::new("duplicate default map parameter"));
            }
        } else if let Some(pattern) = text.strip_prefix(b"~") {
            let (pattern, caseless) = match pattern.strip_prefix(b"*") {
                Some(pattern) => (pattern, true),
                None => (pattern, false),
            };
            let regex = scope.builder.regex(pattern, caseless, key)?;
            self.regexes.push((regex, number));
        } else {
            self.add_key(text.strip_prefix(b"\\").unwrap_or(text), number, key)?;
        }
        Ok(())
    }

    fn add_key(&mut self, text: &[u8], number: u32, key: &Word) -> Result<(), Complaint> {
        let lower: Box<[u8]> = text.to_ascii_lowercase().into();
        let shown = String::from_utf8_lossy(&lower).into_owned();
        let conflict = || Complaint::new(format!("conflicting parameter \"{shown}\"")).at(key);
        if !self.hostnames {
            return match self.texts.entry(lower) {
                Entry::Vacant(place) => {
                    place.insert(number);
                    Ok(())
                }
                Entry::Occupied(_) => Err(conflict()),
            };
        }
        let name = if text.starts_with(b"~") {
            ServerName::Exact(lower)
        } else {
            ServerName::parse(text).map_err(|_| {
                Complaint::new(format!("invalid hostname or wildcard \"{}\"", key.lossy())).at(key)
            })?
        };
        self.names.insert(name, number).map_err(|_| conflict())
    }

    /// The number of a value, the same for equal ones: large maps have few different values.
    fn number_of(&mut self, scope: &mut Scope, value: &Word) -> Result<u32, Complaint> {
        if let Some(number) = self.numbers.get(value.as_bytes()) {
            return Ok(*number);
        }
        let number = self.values.len() as u32;
        self.values.push(scope.builder.template(value)?);
        self.numbers.insert(value.as_bytes().into(), number);
        Ok(number)
    }

    fn finish(self, source: Template) -> Map {
        let MapDraft { mut names, mut texts, .. } = self;
        let keys = if self.hostnames {
            // Keys from before the word `hostnames` are exact ones, as in nginx.
            for (text, number) in texts.drain() {
                // A conflict leaves the name that is there.
                let _ = names.insert(ServerName::Exact(text), number);
            }
            Keys::Names(names)
        } else {
            Keys::Texts(texts)
        };
        Map { source, keys, regexes: self.regexes, default: self.default, values: self.values }
    }
}

#[cfg(test)]
mod tests {
    use crate::conf::files::MemoryFiles;
    use crate::http::testing::{World, complaints};

    const SHOW: &str = "server { location / { return 200 \"[$b]\"; } }";

    #[track_caller]
    fn check(map: &str, cases: &[(&str, &str)]) {
        let mut world = World::new(&format!("{map} {SHOW}"));
        for (target, text) in cases {
            assert_eq!(world.get(target).text(), *text, "{target}");
        }
    }

    #[test]
    fn keys_are_compared_without_regard_to_case() {
        check(
            "map $args $b { default d; one 1; TWO 2; \"\" none; \\default esc; \\~x tilde; }",
            &[
                ("/?one", "[1]"),
                ("/?Two", "[2]"),
                ("/?three", "[d]"),
                ("/", "[none]"),
                ("/?default", "[esc]"),
                ("/?~x", "[tilde]"),
            ],
        );
    }

    #[test]
    fn without_a_default_the_value_is_empty() {
        check("map $args $b { one 1; }", &[("/?two", "[]")]);
    }

    #[test]
    fn regular_expressions_are_tried_in_order_after_the_texts() {
        check(
            "map $args $b { ~^a(?<rest>.*)$ \"$rest-$1\"; ~*^A caseless; ~a second; ab text; ~^$ never; default d; }",
            &[
                ("/?ab", "[text]"),
                ("/?abc", "[bc-bc]"),
                ("/?Ax", "[caseless]"),
                ("/?xa", "[second]"),
                ("/", "[d]"),
            ],
        );
    }

    #[test]
    fn values_may_have_variables() {
        check("map $args $b { x \"$uri!\"; default $arg_q; }", &[("/u?x", "[/u!]"), ("/?q=1", "[1]")]);
    }

    #[test]
    fn sources_may_have_several_variables() {
        check("map $uri-$args $b { /u-x yes; }", &[("/u?x", "[yes]"), ("/u?y", "[]")]);
    }

    #[test]
    fn host_names_may_have_wildcards() {
        check(
            "map $arg_h $b { hostnames; default d; a.com 1; *.a.com 2; .b.com 3; www.c.* 4; \\~t 5; }",
            &[
                ("/?h=a.com", "[1]"),
                ("/?h=A.com.", "[1]"),
                ("/?h=x.a.com", "[2]"),
                ("/?h=b.com", "[3]"),
                ("/?h=x.b.com", "[3]"),
                ("/?h=www.c.org", "[4]"),
                ("/?h=c.org", "[d]"),
                ("/?h=~t", "[5]"),
            ],
        );
    }

    #[test]
    fn a_value_is_kept_unless_the_map_is_volatile() {
        let body = "location / { set $a $b; set $args two; return 200 \"$a$b\"; }";
        for (volatile, text) in [("", "11"), ("volatile;", "12")] {
            let http = format!("map $args $b {{ {volatile} one 1; two 2; }} server {{ {body} }}");
            assert_eq!(World::new(&http).get("/?one").text(), text, "{volatile}");
        }
    }

    #[test]
    fn entries_may_be_included() {
        let files = MemoryFiles::new().with("/etc/thalweg/list.map", "one 1;\ntwo 2;");
        let http = format!("map $args $b {{ include list.map; default d; }} {SHOW}");
        assert_eq!(World::with_includes(&http, files).get("/?two").text(), "[2]");
    }

    #[test]
    fn maps_that_need_each_other_have_no_value() {
        let http = format!("map $a $b {{ default $a; }} map $b $a {{ default $b; }} {SHOW}");
        let reply = World::new(&http).get("/");
        assert_eq!(reply.text(), "[]");
        let line = "[error] cycle while evaluating variable";
        assert!(reply.log.iter().any(|other| other.starts_with(line)), "{:?}", reply.log);
    }

    #[test]
    fn mistakes_are_reported_in_nginx_s_words() {
        for (map, message) in [
            ("map $a b {}", "invalid variable name \"b\""),
            ("map $uri $b { x; }", "invalid number of the map parameters"),
            ("map $uri $b { default 1; default 2; }", "duplicate default map parameter"),
            ("map $uri $b { x 1; X 2; }", "conflicting parameter \"x\""),
            ("map $uri $b { hostnames; *.*.x 1; }", "invalid hostname or wildcard \"*.*.x\""),
            ("map $uri $b { hostnames; *.x 1; .x 1; }", "conflicting parameter \".x\""),
            ("map $uri $b { hostnames; a..b 1; }", "invalid hostname or wildcard \"a..b\""),
            ("map $uri $b { ~( 1; }", "pcre2_compile() failed: missing closing parenthesis in \"(\""),
            ("map $uri $b { a b c; }", "invalid number of the map parameters"),
            ("map $uri $host { a b; }", "the duplicate \"host\" variable"),
            ("map $uri $b { a $; }", "invalid variable name"),
            ("map $uri $ { a 1; }", "invalid variable name \"$\""),
            ("map $uri $b { x { } }", "unexpected \"{\""),
            ("map $nope $b { a 1; }", "unknown \"nope\" variable"),
        ] {
            let told = complaints(map);
            let message = format!("[emerg] {message}");
            assert!(told.contains(&message), "{map}: {told:?} lacks {message}");
        }
    }

    #[test]
    fn sizes_of_tables_are_accepted() {
        let told = complaints("map_hash_max_size 4096; map_hash_bucket_size 128;");
        assert!(told.iter().all(|line| line.starts_with("[info]")), "{told:?}");
    }
}
