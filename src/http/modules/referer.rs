//! `valid_referers` and `$invalid_referer`: whether a page of a welcome site led the client here.

use std::sync::Arc;

use crate::base::ascii;
use crate::base::regex::{Captures, Regex};
use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::source::{IncludeId, Span};
use crate::conf::tree::Word;
use crate::http::build::arguments::{number_without_meaning};
use crate::http::build::{LocationDraft, Scope, SiteRegex};
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::matching;
use crate::http::modules::Drafts;
use crate::http::server_names::{ServerName, ServerNames};
use crate::http::settings::contexts::SERVER_LOCATION;
use crate::http::settings::settings;
use crate::http::variables::VariableEntry;
use crate::message::FieldName;

settings! {
    module referer;
    fields {
        /// Sites whose links are welcome: `none`, `blocked`, `server_names`, names with wildcards, expressions.
        valid: Arc<Referers> = Arc::default(), inherit;
            "valid_referers" SERVER_LOCATION, Arity::at_least(1), default "", with add_referers;
    }
    plain {
        /// Without meaning here: tables size themselves.
        "referer_hash_bucket_size" SERVER_LOCATION, Arity::exactly(1), default "64", number_without_meaning;
        /// Without meaning here: tables size themselves.
        "referer_hash_max_size" SERVER_LOCATION, Arity::exactly(1), default "2048", number_without_meaning;
    }
}

/// The referers of one scope.
#[derive(Clone, Debug, Default)]
pub struct Referers {
    place: Option<(Span, IncludeId)>,
    /// A request without the field is welcome.
    none: bool,
    /// So is one whose field names no HTTP URL.
    blocked: bool,
    /// Where `server_names` stands; the names are added when the server has been read.
    server_names: Option<(Span, IncludeId)>,
    /// Hosts, each with the number of the path that it asks for, from 1 on; 0 for none.
    names: ServerNames<u32>,
    paths: Vec<Box<[u8]>>,
    /// Matched against what follows the scheme.
    regexes: Vec<SiteRegex>,
    /// Expressions among the server's names, matched against the host.
    server_regexes: Vec<Arc<Regex>>,
}

/// What nginx says of a list without a site.
pub const NAMES_NOBODY: &str =
    "the \"none\" or \"blocked\" referers are specified in the \"valid_referers\" directive without any valid referer";

/// Longest host that is looked up, in bytes, as in nginx.
const MAX_HOST: usize = 256;

/// The module's variables.
pub static VARIABLES: &[VariableEntry] = &[VariableEntry::new("invalid_referer", |exchange, context, out| {
    let site = context.site;
    if !site.settings(exchange.location).referer.valid.welcomes(exchange, context) {
        out.push(b'1');
    }
    true
})
.kept()];

fn add_referers(
    scope: &mut Scope,
    call: &Call,
    slot: &mut Option<Arc<Referers>>,
) -> Result<(), Complaint> {
    let referers = Arc::make_mut(slot.get_or_insert_default());
    referers.place.get_or_insert((call.span(), call.directive.include));
    for word in call.args() {
        match word.as_bytes() {
            b"" => return Err(Complaint::new("invalid referer \"\"").at(word)),
            b"none" => referers.none = true,
            b"blocked" => referers.blocked = true,
            b"server_names" => referers.server_names = Some((word.span, call.directive.include)),
            b"~" => return Err(Complaint::new("empty regex in \"~\"").at(word)),
            [b'~', pattern @ ..] => referers.regexes.push(scope.builder.regex(pattern, true, word)?),
            text => referers.add_name(text, word)?,
        }
    }
    Ok(())
}

impl Referers {
    fn add_name(&mut self, text: &[u8], word: &Word) -> Result<(), Complaint> {
        let slash = memchr::memchr(b'/', text).unwrap_or(text.len());
        let (host, path) = text.split_at(slash);
        let name = ServerName::parse(host).map_err(|_| {
            let host = String::from_utf8_lossy(host);
            Complaint::new(format!("invalid hostname or wildcard \"{host}\"")).at(word)
        })?;
        let number = match path {
            b"" => 0,
            path => {
                self.paths.push(path.into());
                self.paths.len() as u32
            }
        };
        self.names.insert(name, number).map_err(|_| conflict(host).at(word))
    }

    /// Where only `none` and `blocked` are welcome, which nginx refuses.
    pub fn names_nobody(&self) -> Option<(Span, IncludeId)> {
        self.place.filter(|_| (self.none || self.blocked) && self.is_empty())
    }

    fn is_empty(&self) -> bool {
        self.names.is_empty() && self.regexes.is_empty() && self.server_regexes.is_empty()
    }

    /// Whether the request's Referer is one of these.
    fn welcomes(&self, exchange: &mut Exchange, context: &mut Context) -> bool {
        // Also of a server that welcomes its own names and has none.
        if self.is_empty() {
            return true;
        }
        let Some(referer) = exchange.head.field(FieldName::Referer) else { return self.none };
        let rest = match referer {
            text if text.len() < b"http://i.ru".len() => return self.blocked,
            text if ascii::starts_with_ignore_case(text, b"http://") => &text[7..],
            text if ascii::starts_with_ignore_case(text, b"https://") => &text[8..],
            _ => return self.blocked,
        };
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b':')).unwrap_or(rest.len());
        if end > MAX_HOST {
            return false;
        }
        let mut host = context.env.scratch();
        ascii::append_lower(&mut host, &rest[..end]);
        let mut captures = Captures::default();
        let found = self.names.find(&host, &mut captures).ok().flatten().map(|found| found.target);
        let by_server = found.is_none()
            && self.server_regexes.iter().any(|regex| regex.is_match(&host).unwrap_or(false));
        context.env.give_back(host);
        match found {
            Some(0) => return true,
            Some(number) => {
                let slash = memchr::memchr(b'/', &rest[end..]).map_or(rest.len(), |at| end + at);
                return rest[slash..].starts_with(&self.paths[number as usize - 1]);
            }
            None if by_server => return true,
            None => {}
        }
        if self.regexes.is_empty() {
            return false;
        }
        let rest = rest.to_vec();
        self.regexes.iter().any(|regex| matching::matches(exchange, context, regex, &rest))
    }
}

fn conflict(name: &[u8]) -> Complaint {
    Complaint::new(format!("conflicting parameter \"{}\"", String::from_utf8_lossy(name)))
}

/// Adds the names of a server that was read whole where its `valid_referers` say `server_names`; what conflicts is
/// returned with its place.
pub fn add_server_names<'a>(
    drafts: &mut Drafts,
    children: &mut [LocationDraft],
    names: impl Iterator<Item = &'a ServerName> + Clone,
    conflicts: &mut Vec<(Span, IncludeId, String)>,
) {
    let valid = drafts.referer.as_mut().and_then(|draft| draft.valid.as_mut());
    if let Some(valid) = valid
        && let Some((span, include)) = valid.server_names
    {
        let valid = Arc::make_mut(valid);
        for name in names.clone() {
            match name {
                ServerName::Regex(regex) => valid.server_regexes.push(regex.clone()),
                ServerName::Exact(text) if text.is_empty() => {}
                name => {
                    if valid.names.insert(name.clone(), 0).is_err() {
                        conflicts.push((span, include, conflict(name.to_string().as_bytes()).message));
                    }
                }
            }
        }
    }
    for child in children {
        add_server_names(&mut child.drafts, &mut child.children, names.clone(), conflicts);
    }
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{World, complaints};

    #[track_caller]
    fn check(settings: &str, cases: &[(&str, bool)]) {
        let mut world = World::new(&format!("server {{ {settings} return 200 \"[$invalid_referer]\"; }}"));
        for (referer, welcome) in cases {
            let line = if *referer == "-" { String::new() } else { format!("Referer: {referer}\r\n") };
            let expected = if *welcome { "[]" } else { "[1]" };
            assert_eq!(world.get_with("/", &line).text(), expected, "{referer}");
        }
    }

    #[test]
    fn names_wildcards_and_paths_are_welcome() {
        check(
            "valid_referers example.com *.below.org www.* path.net/docs/ .dot.org;",
            &[
                ("-", false),
                ("blocked", false),
                ("http://example.com", true),
                ("https://EXAMPLE.com/x", true),
                ("http://example.com:8080/x", true),
                ("http://a.example.com/", false),
                ("http://a.b.below.org/", true),
                ("http://below.org/", false),
                ("http://dot.org/", true),
                ("http://x.dot.org/", true),
                ("http://www.test/", true),
                ("http://path.net/docs/a", true),
                ("http://path.net:1/docs/a", true),
                ("http://path.net/other", false),
                ("ftp://example.com/", false),
            ],
        );
    }

    #[test]
    fn missing_and_blocked_referers_may_be_welcome() {
        check("valid_referers none x.com;", &[("-", true), ("secret-text", false), ("http://y.com/", false)]);
        check("valid_referers blocked x.com;", &[("-", false), ("secret-text", true), ("http://y.com/", false)]);
        check("", &[("-", true), ("http://y.com/", true)]);
    }

    #[test]
    fn expressions_see_what_follows_the_scheme() {
        check(
            r"valid_referers ~\.google\. ~^only\.com/x;",
            &[
                ("http://www.google.com/", true),
                ("http://WWW.GOOGLE.de/", true),
                ("https://only.com/x", true),
                ("http://only.com/y", false),
            ],
        );
    }

    #[test]
    fn the_server_s_own_names_count_wherever_they_stand() {
        check(
            "valid_referers server_names; server_name a.com *.b.com ~^re\\d+$;",
            &[
                ("http://a.com/", true),
                ("http://x.b.com/", true),
                ("http://re1/long/enough", true),
                ("http://re/long/enough", false),
            ],
        );
        check(
            "server_name a.com; location / { valid_referers server_names other.com; return 200 [$invalid_referer]; }",
            &[("http://a.com/", true)],
        );
    }

    #[test]
    fn mistakes_are_told_in_nginx_s_words() {
        let told = |words: &str| complaints(&format!("server {{ server_name s.com; valid_referers {words}; }}"));
        assert_eq!(told("\"\""), ["[emerg] invalid referer \"\""]);
        assert_eq!(told("a.com a.com/x"), ["[emerg] conflicting parameter \"a.com\""]);
        assert_eq!(told("a*b.com"), ["[emerg] invalid hostname or wildcard \"a*b.com\""]);
        assert_eq!(told("none blocked"), [format!("[emerg] {}", super::NAMES_NOBODY)]);
        assert_eq!(told("~"), ["[emerg] empty regex in \"~\""]);
        assert_eq!(told("server_names s.com"), ["[emerg] conflicting parameter \"s.com\""]);
    }
}
