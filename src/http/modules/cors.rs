//! `cors` (a directive of ours): which sites' scripts may read responses (the Fetch standard, section 3.3).
//!
//! ```text
//! cors origin=https://app.example.com,https://*.example.org methods=GET,PUT headers=X-Token credentials max_age=1h;
//! ```
//!
//! Preflights are answered before anybody is asked for credentials, which browsers don't send with them; every other
//! response, whatever its status, carries the fields that let the site's script read it.

use std::sync::Arc;

use crate::base::ascii;
use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::tree::Word;
use crate::conf::values;
use crate::http::body::Body;
use crate::http::build::{Scope, SiteRegex};
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::flow::Flow;
use crate::http::settings::contexts::HTTP_SERVER_LOCATION_IF;
use crate::http::settings::settings;
use crate::message::{FieldName, Method, Status};

settings! {
    module cors;
    fields {
        /// Which sites' scripts may read responses: `origin=`, `methods=`, `headers=`, `credentials`, `max_age=`; or `off`.
        policy: Option<Arc<Policy>> = None, inherit;
            "cors" HTTP_SERVER_LOCATION_IF, Arity::at_least(1), default "off", once read_policy;
    }
}

/// One `cors`.
#[derive(Debug)]
pub struct Policy {
    origins: Vec<Origin>,
    /// The list of methods as a preflight is told.
    methods: Box<[u8]>,
    headers: Headers,
    credentials: bool,
    /// Seconds as text; empty for the browser's own default.
    max_age: Box<[u8]>,
}

#[derive(Debug)]
enum Origin {
    /// `*`: every site.
    Any,
    /// This one, in lower case.
    Exact(Box<[u8]>),
    /// `https://*.example.com`: what stands before and behind the star.
    Below(Box<[u8]>, Box<[u8]>),
    /// `~regex`, which the whole origin has to match.
    Regex(SiteRegex),
}

#[derive(Debug)]
enum Headers {
    /// Only those that need no leave.
    None,
    /// All that are asked for.
    Any,
    /// These, as a preflight is told.
    List(Box<[u8]>),
}

fn read_policy(scope: &mut Scope, call: &Call) -> Result<Option<Arc<Policy>>, Complaint> {
    if let [word] = call.args()
        && word == "off"
    {
        return Ok(None);
    }
    let mut policy = Policy {
        origins: Vec::new(),
        methods: b"GET, HEAD, POST".as_slice().into(),
        headers: Headers::None,
        credentials: false,
        max_age: Box::default(),
    };
    for word in call.args() {
        let (name, value) = match memchr::memchr(b'=', word.as_bytes()) {
            Some(at) => (&word.as_bytes()[..at], &word.as_bytes()[at + 1..]),
            None => (word.as_bytes(), &b""[..]),
        };
        match name {
            b"origin" => {
                for text in elements(value) {
                    policy.origins.push(read_origin(scope, text, word)?);
                }
            }
            b"methods" => policy.methods = read_list(value, word)?,
            b"headers" if value == b"*" => policy.headers = Headers::Any,
            b"headers" => policy.headers = Headers::List(read_list(value, word)?),
            b"credentials" if value.is_empty() => policy.credentials = true,
            b"max_age" => {
                let seconds = values::parse_time_s(value).map_err(|_| Complaint::invalid_parameter(word))?;
                policy.max_age = seconds.to_string().into_bytes().into();
            }
            _ => return Err(Complaint::invalid_parameter(word)),
        }
    }
    if policy.origins.is_empty() {
        return Err(Complaint::new("\"cors\" must have \"origin\" parameter"));
    }
    if policy.credentials && policy.is_open() {
        let message = "\"cors\" with \"origin=*\" cannot have \"credentials\": any site could act as the client";
        return Err(Complaint::new(message).help("name the sites that may send credentials"));
    }
    Ok(Some(Arc::new(policy)))
}

fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    // An expression may hold commas, and stands alone.
    let separator = if value.starts_with(b"~") { b'\0' } else { b',' };
    value.split(move |&byte| byte == separator).map(ascii::trim_ows).filter(|text| !text.is_empty())
}

/// A list of tokens, made `a, b`.
fn read_list(value: &[u8], word: &Word) -> Result<Box<[u8]>, Complaint> {
    let mut list = Vec::new();
    for element in elements(value) {
        if !ascii::is_token(element) {
            return Err(Complaint::invalid_parameter(word));
        }
        if !list.is_empty() {
            list.extend_from_slice(b", ");
        }
        list.extend_from_slice(element);
    }
    if list.is_empty() { Err(Complaint::invalid_parameter(word)) } else { Ok(list.into()) }
}

fn read_origin(scope: &mut Scope, text: &[u8], word: &Word) -> Result<Origin, Complaint> {
    if text == b"*" {
        return Ok(Origin::Any);
    }
    if let Some(pattern) = text.strip_prefix(b"~") {
        // An expression that matches a part only would let `https://example.com.evil.org` pass.
        let whole = [&b"^(?:"[..], pattern, b")$"].concat();
        return Ok(Origin::Regex(scope.builder.regex(&whole, true, word)?));
    }
    let invalid = || {
        let message = format!("invalid origin \"{}\"", String::from_utf8_lossy(text));
        Complaint::new(message).at(word).help("an origin is `scheme://host` or `scheme://host:port`, without a path")
    };
    let lower = text.to_ascii_lowercase();
    if text == b"null" {
        return Ok(Origin::Exact(lower.into()));
    }
    let authority = memchr::memmem::find(&lower, b"://").map(|at| at + 3).ok_or_else(invalid)?;
    let (scheme, host) = lower.split_at(authority);
    if host.is_empty() || host.contains(&b'/') {
        return Err(invalid());
    }
    if let Some(rest) = host.strip_prefix(b"*.") {
        if rest.is_empty() || rest.contains(&b'*') {
            return Err(invalid());
        }
        return Ok(Origin::Below(scheme.into(), host[1..].into()));
    }
    if host.contains(&b'*') { Err(invalid()) } else { Ok(Origin::Exact(lower.into())) }
}

impl Policy {
    fn is_open(&self) -> bool {
        self.origins.iter().any(|origin| matches!(origin, Origin::Any))
    }

    fn allows(&self, origin: &[u8]) -> bool {
        self.origins.iter().any(|allowed| match allowed {
            Origin::Any => true,
            Origin::Exact(text) => origin.eq_ignore_ascii_case(text),
            Origin::Below(scheme, suffix) => {
                origin.len() > scheme.len() + suffix.len()
                    && origin[..scheme.len()].eq_ignore_ascii_case(scheme)
                    && origin[origin.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
                    && is_plain_host(&origin[scheme.len()..origin.len() - suffix.len()])
            }
            Origin::Regex(regex) => regex.regex.is_match(origin).unwrap_or(false),
        })
    }
}

/// Letters that names of hosts have: no `@`, `/` or `:` that would end the host before the configured end.
fn is_plain_host(text: &[u8]) -> bool {
    text.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
}

fn is_preflight(exchange: &Exchange) -> bool {
    exchange.head.method == Method::Options
        && exchange.head.has(FieldName::Origin)
        && exchange.head.fields.named(b"Access-Control-Request-Method").next().is_some()
}

/// Answers a preflight; the fields are the filter's.
pub fn answer_preflight(exchange: &mut Exchange, context: &mut Context) -> Flow {
    let site = context.site;
    if site.settings(exchange.location).cors.policy.is_none() || !is_preflight(exchange) {
        return Flow::Next;
    }
    exchange.response.status = Status::NO_CONTENT;
    exchange.body = Body::Empty;
    Flow::Respond
}

/// The header filter: the fields of the policy, in place of those that a handler may have set.
pub fn filter(exchange: &mut Exchange, context: &mut Context) {
    let site = context.site;
    let Some(policy) = &site.settings(exchange.location).cors.policy else { return };
    let preflight = is_preflight(exchange);
    if !policy.is_open() {
        // Also where there is no Origin: a cache must not give that response to a site's script.
        let vary = b"Origin".as_slice();
        if !exchange.response.fields.named(b"Vary").any(|line| line == vary) {
            exchange.response.fields.push(b"Vary", vary);
        }
    }
    let head = &exchange.head;
    let Some(origin) = head.field(FieldName::Origin) else { return };
    let fields = &mut exchange.response.fields;
    fields.remove(b"Access-Control-Allow-Origin");
    fields.remove(b"Access-Control-Allow-Credentials");
    if !policy.allows(origin) {
        return;
    }
    fields.push(b"Access-Control-Allow-Origin", if policy.is_open() { b"*" } else { origin });
    if policy.credentials {
        fields.push(b"Access-Control-Allow-Credentials", b"true");
    }
    if !preflight || exchange.response.status != Status::NO_CONTENT {
        return;
    }
    fields.set(b"Access-Control-Allow-Methods", &policy.methods);
    match &policy.headers {
        Headers::None => {}
        Headers::List(list) => fields.set(b"Access-Control-Allow-Headers", list),
        Headers::Any => {
            let asked = head.fields.named(b"Access-Control-Request-Headers").next();
            if let Some(asked) = asked.filter(|text| is_list(text)) {
                fields.set(b"Access-Control-Allow-Headers", asked);
            }
        }
    }
    if !policy.max_age.is_empty() {
        fields.set(b"Access-Control-Max-Age", &policy.max_age);
    }
}

fn is_list(text: &[u8]) -> bool {
    ascii::list_elements(text).all(ascii::is_token)
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{Reply, World, complaints};

    fn world(cors: &str) -> World {
        World::new(&format!("server {{ root /srv; cors {cors}; location /x {{ deny all; }} }}")).file("/srv/f", "f")
    }

    fn preflight(world: &mut World, path: &str, origin: &str) -> Reply {
        world.send(&format!(
            "OPTIONS {path} HTTP/1.1\r\nHost: a\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: PUT\r\n\
             Access-Control-Request-Headers: x-a, x-b\r\n\r\n"
        ))
    }

    fn allowed(world: &mut World, origin: &str) -> String {
        world.get_with("/f", &format!("Origin: {origin}\r\n")).field("Access-Control-Allow-Origin")
    }

    #[test]
    fn a_preflight_is_answered_before_the_access_rules() {
        let mut world = world("origin=https://a.com methods=GET,PUT headers=X-A,X-B credentials max_age=1h");
        let reply = preflight(&mut world, "/x", "https://a.com");
        assert_eq!(reply.status, 204);
        assert_eq!(reply.field("Access-Control-Allow-Origin"), "https://a.com");
        assert_eq!(reply.field("Access-Control-Allow-Methods"), "GET, PUT");
        assert_eq!(reply.field("Access-Control-Allow-Headers"), "X-A, X-B");
        assert_eq!(reply.field("Access-Control-Allow-Credentials"), "true");
        assert_eq!(reply.field("Access-Control-Max-Age"), "3600");
        assert_eq!(reply.field("Vary"), "Origin");
        let reply = preflight(&mut world, "/x", "https://b.com");
        assert_eq!((reply.status, reply.has("Access-Control-Allow-Methods")), (204, false));
        // An OPTIONS request that is no preflight is one like others.
        assert_eq!(world.send("OPTIONS /x HTTP/1.1\r\nHost: a\r\nOrigin: https://a.com\r\n\r\n").status, 403);
    }

    #[test]
    fn every_status_carries_the_fields() {
        let mut world = world("origin=https://a.com");
        for (path, status) in [("/f", 200), ("/none", 404), ("/x", 403)] {
            let reply = world.get_with(path, "Origin: https://a.com\r\n");
            assert_eq!(reply.status, status);
            assert_eq!(reply.field("Access-Control-Allow-Origin"), "https://a.com", "{path}");
            assert_eq!(reply.field("Vary"), "Origin", "{path}");
        }
        let reply = world.get("/f");
        assert_eq!((reply.field("Vary").as_str(), reply.has("Access-Control-Allow-Origin")), ("Origin", false));
        let reply = world.get_with("/f", "Origin: https://a.com\r\nRange: bytes=9-\r\n");
        assert_eq!((reply.status, reply.field("Vary").as_str()), (416, "Origin"));
    }

    #[test]
    fn origins_are_compared_whole() {
        let mut world = world(r"origin=https://a.com,https://*.b.com:8443,null origin=~https://c\d\.com");
        for origin in ["https://a.com", "https://x.b.com:8443", "https://x.y.b.com:8443", "null", "https://c1.com"] {
            assert_eq!(allowed(&mut world, origin), origin);
        }
        for origin in [
            "http://a.com",
            "https://a.com.evil.org",
            "https://a.com:8443",
            "https://b.com:8443",
            "https://evil.org/.b.com:8443",
            "https://evil@x.b.com:8443",
            "https://c1.com.evil.org",
            "https://evil.org?https://c1.com",
        ] {
            assert_eq!(allowed(&mut world, origin), "", "{origin}");
        }
    }

    #[test]
    fn any_site_may_read_what_needs_no_credentials() {
        let mut world = world("origin=* headers=*");
        let reply = preflight(&mut world, "/f", "https://any.org");
        assert_eq!(reply.field("Access-Control-Allow-Origin"), "*");
        assert_eq!(reply.field("Access-Control-Allow-Headers"), "x-a, x-b");
        assert_eq!(reply.field("Access-Control-Allow-Methods"), "GET, HEAD, POST");
        assert!(!reply.has("Vary"));
    }

    #[test]
    fn a_scope_may_turn_it_off() {
        let mut world =
            World::new("server { root /srv; cors origin=*; location /f { cors off; } }").file("/srv/f", "f");
        assert_eq!(allowed(&mut world, "https://a.com"), "");
    }

    #[test]
    fn mistakes_are_told() {
        for (text, told) in [
            ("origin=* credentials", "\"cors\" with \"origin=*\" cannot have \"credentials\": any site could act as the client"),
            ("methods=GET", "\"cors\" must have \"origin\" parameter"),
            ("origin=a.com", "invalid origin \"a.com\""),
            ("origin=https://a.com/", "invalid origin \"https://a.com/\""),
            ("origin=https://a*.com", "invalid origin \"https://a*.com\""),
            ("origin=* methods=G(T", "invalid parameter \"methods=G(T\""),
            ("origin=* max_age=x", "invalid parameter \"max_age=x\""),
            ("origin=* foo", "invalid parameter \"foo\""),
        ] {
            assert_eq!(complaints(&format!("cors {text};")), [format!("[emerg] {told}")]);
        }
    }
}
