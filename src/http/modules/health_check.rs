//! `health_check` and `match`: probes of the servers that a location passes requests on to, and what a good answer is.
//!
//! nginx sells both; here they are for everybody. The probes themselves are the shell's ([`crate::upstream::health`]).

use std::sync::Arc;

use crate::base::regex::Regex;
use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::source::{IncludeId, Span};
use crate::conf::tree::{self, Word};
use crate::conf::values;
use crate::http::build::{MatchMention, Scope};
use crate::http::modules::proxy::HttpVersion;
use crate::http::modules::{Drafts, LocationSettings};
use crate::http::settings::contexts::{HTTP, LOCATION};
use crate::http::settings::settings;
use crate::upstream::health::CheckPlan;
use crate::upstream::match_rules::{BodyRule, FieldRule, FieldTest, MatchRules, StatusRule};

settings! {
    module health_check;
    values {
        /// Where `type=grpc` stands.
        grpc_place: Option<(Span, IncludeId)> = None, own;
    }
    fields {
        /// How the servers of the location's group are probed (`type=grpc`: by gRPC's own protocol); `None` for not at all.
        check: Option<Arc<CheckPlan>> = None, own;
            "health_check" LOCATION, Arity::at_least(0), default "", once read_check;
    }
    plain {
        /// What a good response to a probe is: `status`, `header` and `body` lines, which must all hold.
        "match" HTTP, Arity::exactly(1).block(), default "", set_match;
    }
}

fn read_check(scope: &mut Scope, call: &Call) -> Result<Option<Arc<CheckPlan>>, Complaint> {
    let mut plan = CheckPlan::default();
    let mut named = None;
    for word in call.args() {
        if let Some(name) = word.as_bytes().strip_prefix(b"match=").filter(|name| !name.is_empty()) {
            named = Some((name, word));
        } else {
            read_parameter(&mut plan, word)?;
        }
    }
    if plan.grpc.is_some() && (named.is_some() || plan.uri != CheckPlan::default().uri) {
        return Err(Complaint::new("\"uri\" and \"match\" have no meaning with \"type=grpc\""));
    }
    if plan.grpc.is_some() {
        let place = (call.span(), call.directive.include);
        scope.drafts.health_check.get_or_insert_default().grpc_place = Some(Some(place));
    }
    if plan.persistent && !plan.mandatory {
        return Err(Complaint::new("\"persistent\" needs \"mandatory\""));
    }
    if let Some((name, word)) = named {
        let mention = scope.builder.match_mention(name);
        mention.mentioned.get_or_insert((word.span, call.directive.include));
        plan.rules = Some(mention.rules.clone());
    }
    Ok(Some(Arc::new(plan)))
}

/// What is said where [`lacks_http2`] finds something.
pub const LACKS_HTTP2: &str = "\"type=grpc\" needs \"grpc_pass\" or \"proxy_http_version 2\"";

/// The place of a check of gRPC's kind where requests do not go on over HTTP/2.
pub fn lacks_http2(drafts: &Drafts, around: &LocationSettings) -> Option<(Span, IncludeId)> {
    let place = drafts.health_check.as_ref()?.grpc_place??;
    let is_grpc = drafts.grpc.as_ref().is_some_and(|own| own.pass.is_some());
    let version = drafts.proxy.as_ref().and_then(|own| own.http_version).unwrap_or(around.proxy.http_version);
    (!is_grpc && version != HttpVersion::Http2).then_some(place)
}

fn read_parameter(plan: &mut CheckPlan, word: &Word) -> Result<(), Complaint> {
    let invalid = || Complaint::invalid_parameter(word);
    let time = |value: &str| values::parse_time_ms(value.as_bytes()).map_err(|_| invalid());
    let count = |value: &str| {
        let number = values::parse_number(value.as_bytes()).ok().and_then(|number| u32::try_from(number).ok());
        number.filter(|number| *number > 0).ok_or_else(invalid)
    };
    match word.as_str().ok_or_else(invalid)?.split_once('=') {
        None if *word == "mandatory" => plan.mandatory = true,
        None if *word == "persistent" => plan.persistent = true,
        Some(("interval", value)) => plan.interval_ms = Some(time(value)?).filter(|ms| *ms > 0).ok_or_else(invalid)?,
        Some(("type", "http")) if plan.grpc.is_none() => {}
        Some(("type", "grpc")) => drop(plan.grpc.get_or_insert_default()),
        // As in nginx, these stand behind it.
        Some(("grpc_service", value)) => plan.grpc.as_mut().ok_or_else(invalid)?.service = value.as_bytes().into(),
        Some(("grpc_status", value)) => {
            plan.grpc.as_mut().ok_or_else(invalid)?.status = count(value)?;
        }
        Some(("jitter", value)) => plan.jitter_ms = time(value)?,
        Some(("fails", value)) => plan.fails = count(value)?,
        Some(("passes", value)) => plan.passes = count(value)?,
        Some(("port", value)) => {
            plan.port = Some(u16::try_from(count(value)?).map_err(|_| invalid())?);
        }
        Some(("uri", value)) => {
            // It goes into a request line as it is.
            let is_whole = value.starts_with('/') && value.bytes().all(|byte| (0x21..0x7f).contains(&byte));
            plan.uri = Some(value).filter(|_| is_whole).ok_or_else(invalid)?.as_bytes().into();
        }
        _ => return Err(invalid()),
    }
    Ok(())
}

fn set_match(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    let name = call.arg(0);
    let mut rules = MatchRules::default();
    for line in call.block() {
        if let Err(complaint) = read_rule(&mut rules, line) {
            scope.builder.diagnostics.push(complaint.into_diagnostic(line));
        }
    }
    let MatchMention { rules: slot, .. } = scope.builder.match_mention(name.as_bytes());
    match slot.set(rules) {
        true => Ok(()),
        false => Err(Complaint::new(format!("duplicate match \"{}\"", name.lossy())).at(name)),
    }
}

fn read_rule(rules: &mut MatchRules, line: &tree::Directive) -> Result<(), Complaint> {
    let name = line.name();
    if line.block.is_some() {
        return Err(Complaint::new("unexpected \"{\""));
    }
    match name.as_bytes() {
        b"status" if rules.status.is_none() => rules.status = Some(status_rule(line.args())?),
        b"body" if rules.body.is_none() => rules.body = Some(body_rule(line.args())?),
        b"header" => rules.fields.push(field_rule(line.args())?),
        b"status" | b"body" => {
            return Err(Complaint::new(format!("\"{}\" directive is duplicate", name.lossy())));
        }
        _ => return Err(Complaint::new(format!("unknown directive \"{}\"", name.lossy())).at(name)),
    }
    Ok(())
}

fn arguments(name: &str) -> Complaint {
    Complaint::new(format!("invalid number of arguments in \"{name}\" directive"))
}

fn status_rule(words: &[Word]) -> Result<StatusRule, Complaint> {
    let (negated, words) = match words {
        [mark, rest @ ..] if *mark == "!" => (true, rest),
        words => (false, words),
    };
    if words.is_empty() {
        return Err(arguments("status"));
    }
    let range = |word: &Word| {
        let status = |text: &[u8]| {
            let status = values::parse_number(text).ok().and_then(|status| u16::try_from(status).ok());
            status.filter(|status| (100..=999).contains(status))
        };
        let text = word.as_bytes();
        let (first, last) = match memchr::memchr(b'-', text) {
            Some(dash) => (status(&text[..dash]), status(&text[dash + 1..])),
            None => (status(text), status(text)),
        };
        match (first, last) {
            (Some(first), Some(last)) if first <= last => Ok(first..=last),
            _ => Err(Complaint::new(format!("invalid status \"{}\"", word.lossy())).at(word)),
        }
    };
    Ok(StatusRule { ranges: words.iter().map(range).collect::<Result<_, _>>()?, negated })
}

fn field_rule(words: &[Word]) -> Result<FieldRule, Complaint> {
    let (name, test, negated) = match words {
        [name] if *name != "!" => (name, FieldTest::Present, false),
        [mark, name] if *mark == "!" => (name, FieldTest::Present, true),
        [name, sign, value] => match sign.as_bytes() {
            b"=" => (name, FieldTest::Equals(value.as_bytes().into()), false),
            b"!=" => (name, FieldTest::Equals(value.as_bytes().into()), true),
            b"~" => (name, FieldTest::Matches(regex(value)?), false),
            b"!~" => (name, FieldTest::Matches(regex(value)?), true),
            _ => return Err(Complaint::invalid_parameter(sign)),
        },
        _ => return Err(arguments("header")),
    };
    Ok(FieldRule { name: name.as_bytes().into(), test, negated })
}

fn body_rule(words: &[Word]) -> Result<BodyRule, Complaint> {
    let [sign, pattern] = words else { return Err(arguments("body")) };
    let negated = match sign.as_bytes() {
        b"~" => false,
        b"!~" => true,
        _ => return Err(Complaint::invalid_parameter(sign)),
    };
    Ok(BodyRule { regex: regex(pattern)?, negated })
}

fn regex(word: &Word) -> Result<Regex, Complaint> {
    Regex::new(word.as_bytes(), false)
        .map_err(|error| Complaint::new(error.nginx_text(word.as_bytes())).at(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::files::MemoryFiles;
    use crate::http::testing::{build_whole, complaints};
    use crate::upstream::match_rules::{Mismatch, judge};

    /// The checks of a site's locations.
    fn checks(http: &str) -> Vec<Arc<CheckPlan>> {
        let text = format!("events {{}} http {{ {http} }}");
        let site = build_whole(text.into_bytes(), MemoryFiles::default()).site.expect("a site");
        site.locations.iter().filter_map(|location| location.settings.health_check.check.clone()).collect()
    }

    fn check(arguments: &str) -> Arc<CheckPlan> {
        checks(&format!("server {{ location / {{ health_check {arguments}; }} }}")).remove(0)
    }

    #[test]
    fn parameters_have_their_places_and_defaults() {
        let plan = check("");
        assert_eq!((plan.interval_ms, plan.jitter_ms, plan.fails, plan.passes), (5000, 0, 1, 1));
        assert_eq!((&*plan.uri, plan.port, plan.mandatory, plan.persistent), (&b"/"[..], None, false, false));
        let plan = check("interval=2 jitter=500ms fails=3 passes=2 uri=/up?x port=8080 mandatory persistent");
        assert_eq!((plan.interval_ms, plan.jitter_ms, plan.fails, plan.passes), (2000, 500, 3, 2));
        assert_eq!((&*plan.uri, plan.port), (&b"/up?x"[..], Some(8080)));
        assert!(plan.mandatory && plan.persistent && plan.rules.is_none());
    }

    #[test]
    fn grpc_has_a_check_of_its_own() {
        for text in ["grpc_pass a:1;", "proxy_http_version 2; proxy_pass http://a:1;"] {
            let check = "health_check type=grpc grpc_service=a.B grpc_status=12;";
            let plan = checks(&format!("server {{ location / {{ {text} {check} }} }}")).remove(0);
            let grpc = plan.grpc.as_ref().expect("a check of gRPC's kind");
            assert_eq!((&*grpc.service, grpc.status), (&b"a.B"[..], 12));
        }
        assert!(check("type=http").grpc.is_none());
    }

    #[test]
    fn a_check_is_its_location_s_alone() {
        let found = checks("server { location /a { health_check; location /a/b { } } location /c { } }");
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn rules_may_stand_behind_what_names_them() {
        let lines = "status 200 301-303; header Content-Type = text/html; header ! X; header A ~ ^b; body !~ error;";
        let check = format!("server {{ location / {{ health_check match=m; }} }} match m {{ {lines} }}");
        let plan = checks(&check).remove(0);
        let rules = plan.rules.as_ref().and_then(|slot| slot.get());
        assert!(rules.is_some());
        let good: [(&[u8], &[u8]); 2] = [(b"Content-Type", b"text/html"), (b"A", b"bc")];
        let judge = |status: u16, fields: &[(&[u8], &[u8])], body: &[u8]| {
            judge(rules, status, fields.iter().copied(), body)
        };
        assert_eq!(judge(302, &good, b"fine"), Ok(()));
        assert_eq!(judge(304, &good, b"fine"), Err(Mismatch::Status));
        assert_eq!(judge(200, &good[..1], b"fine"), Err(Mismatch::Header));
        assert_eq!(judge(200, &good, b"an error"), Err(Mismatch::Body));
    }

    #[test]
    fn mistakes_are_told() {
        for (http, complaint) in [
            ("server { location / { health_check foo; } }", "invalid parameter \"foo\""),
            ("server { location / { health_check interval=0; } }", "invalid parameter \"interval=0\""),
            ("server { location / { health_check fails=0; } }", "invalid parameter \"fails=0\""),
            ("server { location / { health_check port=99999; } }", "invalid parameter \"port=99999\""),
            ("server { location / { health_check uri=x; } }", "invalid parameter \"uri=x\""),
            ("server { location / { health_check persistent; } }", "\"persistent\" needs \"mandatory\""),
            ("server { location / { health_check; health_check; } }", "\"health_check\" directive is duplicate"),
            ("server { location / { health_check match=m; } }", "unknown match \"m\""),
            (
                "server { location / { proxy_pass http://a; health_check type=grpc; } }",
                "\"type=grpc\" needs \"grpc_pass\" or \"proxy_http_version 2\"",
            ),
            ("server { location / { health_check type=tcp; } }", "invalid parameter \"type=tcp\""),
            (
                "server { location / { health_check grpc_status=12 type=grpc; } }",
                "invalid parameter \"grpc_status=12\"",
            ),
            (
                "server { location / { grpc_pass a:1; health_check uri=/x type=grpc; } }",
                "\"uri\" and \"match\" have no meaning with \"type=grpc\"",
            ),
            ("server { health_check; }", "\"health_check\" directive is not allowed here"),
            ("match m { } match m { } server { }", "duplicate match \"m\""),
            ("match m { status; } server { }", "invalid number of arguments in \"status\" directive"),
            ("match m { status 99; } server { }", "invalid status \"99\""),
            ("match m { status 303-301; } server { }", "invalid status \"303-301\""),
            ("match m { status 200; status 201; } server { }", "\"status\" directive is duplicate"),
            ("match m { header a b c d; } server { }", "invalid number of arguments in \"header\" directive"),
            ("match m { header a < b; } server { }", "invalid parameter \"<\""),
            ("match m { body = a; } server { }", "invalid parameter \"=\""),
            ("match m { foo; } server { }", "unknown directive \"foo\""),
            ("match m { status { } } server { }", "unexpected \"{\""),
        ] {
            let told = complaints(http);
            assert!(told.contains(&format!("[emerg] {complaint}")), "{http}: {told:?}");
        }
        let told = complaints("match m { body ~ (; } server { }");
        assert!(told.iter().any(|line| line.contains("pcre2_compile() failed")), "{told:?}");
    }
}
