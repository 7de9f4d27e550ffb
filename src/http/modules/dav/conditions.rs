//! What must hold before something is changed: the `If` field (RFC 4918 section 10.4), and the locks.

use crate::base::level::Level;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::file::FileKind;
use crate::http::modules::core_variables::append_remote_user;
use crate::http::zones::locks::{Claimant, Token, Touched};
use crate::message::{Method, Status, check_unsafe_uri, write_etag};

use super::writing::local_path;

/// Conditions that one field may have.
const MOST_CONDITIONS: usize = 64;

/// One parenthesised list of conditions, all of which must hold of its resource.
#[derive(Debug, PartialEq, Eq)]
struct List<'a> {
    /// The resource, where it is not that of the request.
    resource: Option<&'a [u8]>,
    conditions: Vec<Condition<'a>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Condition<'a> {
    /// Whether it must not hold (`Not`).
    negated: bool,
    what: What<'a>,
}

#[derive(Debug, PartialEq, Eq)]
enum What<'a> {
    /// The resource is locked with this token.
    Token(&'a [u8]),
    /// The resource has this entity tag.
    Etag(&'a [u8]),
}

/// The value of the `If` field.
fn field(exchange: &Exchange) -> Option<&[u8]> {
    exchange.head.fields.named(b"If").next()
}

fn locks_here(exchange: &Exchange, context: &Context) -> bool {
    context.site.settings(exchange.location).dav.methods.has(Method::Lock)
}

/// Whether there is anything to ask before a change: where nobody locks, nothing is.
pub fn are_in_play(exchange: &Exchange, context: &Context) -> bool {
    !context.site.zones.locks.is_empty() || locks_here(exchange, context) && field(exchange).is_some()
}

/// The tokens that the client names, and its user.
pub struct Named {
    pub tokens: Vec<Token>,
    pub user: Vec<u8>,
}

/// Checks the `If` field, where LOCK is allowed, and says who asks.
pub fn check_field(exchange: &mut Exchange, context: &mut Context) -> Result<Named, Status> {
    let mut user = Vec::new();
    append_remote_user(exchange, &mut user);
    let Some(text) = field(exchange).map(<[u8]>::to_vec) else { return Ok(Named { tokens: Vec::new(), user }) };
    let Some(lists) = parse(&text) else {
        let shown = String::from_utf8_lossy(&text).into_owned();
        exchange.log(context, Level::Error, format_args!("client sent invalid \"If\" header: \"{shown}\""));
        return Err(Status::BAD_REQUEST);
    };
    if locks_here(exchange, context) && !lists.iter().any(|list| holds(list, exchange, context)) {
        return Err(Status::PRECONDITION_FAILED);
    }
    let conditions = lists.iter().flat_map(|list| &list.conditions).filter(|condition| !condition.negated);
    let tokens = conditions.filter_map(|condition| match condition.what {
        What::Token(text) => Token::parse(text),
        What::Etag(_) => None,
    });
    Ok(Named { tokens: tokens.collect(), user })
}

/// Checks the `If` field and that no lock of others is on what is touched.
pub fn check(exchange: &mut Exchange, context: &mut Context, touched: &[Touched]) -> Result<(), Status> {
    let named = check_field(exchange, context)?;
    let now_ms = context.env.now.monotonic_ms;
    let claimant = Claimant { user: &named.user, tokens: &named.tokens, now_ms };
    if context.site.zones.locks.admits(touched, &claimant) {
        return Ok(());
    }
    exchange.log(context, Level::Info, format_args!("a lock is in the way"));
    Err(Status::LOCKED)
}

fn holds(list: &List, exchange: &mut Exchange, context: &mut Context) -> bool {
    let own = std::mem::take(&mut exchange.path);
    let path = match list.resource {
        None => Some(own.clone()),
        Some(resource) => path_of(resource, exchange, context),
    };
    exchange.path = own;
    list.conditions.iter().all(|condition| {
        let is_so = path.as_ref().is_some_and(|path| match condition.what {
            What::Token(text) => Token::parse(text).is_some_and(|token| {
                let now_ms = context.env.now.monotonic_ms;
                context.site.zones.locks.with(|locks| locks.on(path, now_ms).is_some_and(|lock| lock.token == token))
            }),
            What::Etag(etag) => *path == exchange.path && has_etag(exchange, etag),
        });
        is_so != condition.negated
    })
}

/// The path of a resource that is named by its URI; none if it is not of this location.
fn path_of(resource: &[u8], exchange: &mut Exchange, context: &mut Context) -> Option<Vec<u8>> {
    let mut uri = Vec::new();
    check_unsafe_uri(local_path(exchange, resource).ok()?, &mut uri).ok()?;
    exchange.map_to_path(&uri, context).ok()?;
    Some(exchange.path.clone())
}

/// Whether what was found at the request's path has this tag.
fn has_etag(exchange: &mut Exchange, etag: &[u8]) -> bool {
    let Some(found) = &exchange.notes.dav.state().existing else { return false };
    let mut own = Vec::new();
    write_etag(found.modified_secs, found.size, &mut own);
    found.kind == FileKind::File && own == etag
}

/// Takes the field apart; `None` if it is not in RFC 4918's form.
fn parse(text: &[u8]) -> Option<Vec<List<'_>>> {
    let mut rest = text.trim_ascii();
    let mut lists = Vec::new();
    let mut resource = None;
    let mut count = 0;
    let tagged = rest.starts_with(b"<");
    while !rest.is_empty() {
        if tagged && rest.starts_with(b"<") {
            let (uri, behind) = bracketed(rest, b'>')?;
            (resource, rest) = (Some(uri), behind);
        }
        rest = rest.strip_prefix(b"(")?.trim_ascii_start();
        let mut conditions = Vec::new();
        while !rest.starts_with(b")") {
            let negated = rest.get(..3).is_some_and(|word| word.eq_ignore_ascii_case(b"Not"));
            if negated {
                rest = rest[3..].trim_ascii_start();
            }
            let what;
            (what, rest) = match rest.first()? {
                b'<' => bracketed(rest, b'>').map(|(token, rest)| (What::Token(token), rest))?,
                b'[' => bracketed(rest, b']').map(|(etag, rest)| (What::Etag(etag), rest))?,
                _ => return None,
            };
            conditions.push(Condition { negated, what });
            count += 1;
            if count > MOST_CONDITIONS {
                return None;
            }
        }
        rest = rest[1..].trim_ascii_start();
        if conditions.is_empty() {
            return None;
        }
        lists.push(List { resource, conditions });
    }
    (!lists.is_empty()).then_some(lists)
}

/// What stands between a first byte and `end`, and what follows it.
fn bracketed(text: &[u8], end: u8) -> Option<(&[u8], &[u8])> {
    let close = memchr::memchr(end, text)?;
    let inner = &text[1..close];
    (!inner.is_empty()).then(|| (inner, text[close + 1..].trim_ascii_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_taken_apart() {
        let lists = parse(b" (<urn:a> [\"e\"]) ( Not <DAV:no-lock>)").unwrap();
        assert_eq!(
            lists,
            [
                List {
                    resource: None,
                    conditions: vec![
                        Condition { negated: false, what: What::Token(b"urn:a") },
                        Condition { negated: false, what: What::Etag(b"\"e\"") },
                    ],
                },
                List {
                    resource: None,
                    conditions: vec![Condition { negated: true, what: What::Token(b"DAV:no-lock") }],
                },
            ]
        );
        let lists = parse(b"<http://a/b> (<t>) (Not[W/\"e\"]) </c> (<u>)").unwrap();
        let resources: Vec<_> = lists.iter().map(|list| list.resource).collect();
        assert_eq!(resources, [Some(&b"http://a/b"[..]), Some(b"http://a/b"), Some(b"/c")]);
    }

    #[test]
    fn what_has_another_form_is_refused() {
        for text in ["", "<a>", "()", "(<a>", "(a)", "(<a>) x", "(<a>) <b> (<c>)", "(Not)", "(<>)", "<a> <b> (<c>)"] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        let many = "(<a>)".repeat(MOST_CONDITIONS);
        assert!(parse(many.as_bytes()).is_some());
        assert!(parse((many + "(<a>)").as_bytes()).is_none());
    }
}
