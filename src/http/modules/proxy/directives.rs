//! Readers of the module's directives.

use std::sync::Arc;

use crate::base::ascii::is_token;
use crate::conf::directive::{Call, Complaint};
use crate::conf::template::Template;
use crate::http::build::Scope;
use crate::http::build::arguments::{offset, size};
use crate::message::Version;

use super::passing::{self, Buffers, Words};
use crate::http::upstream_call::conditions as condition;

use super::cookies::{CookieFlags, CookieRewrites};
use super::headers::{Names, SetHeader, SetHeaders};
use super::redirects::Redirects;
use super::target::Pass;


/// `proxy_http_version`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    /// `1.0`
    Http10,
    /// `1.1`
    Http11,
    /// `2`, with prior knowledge
    Http2,
}

impl HttpVersion {
    /// The version of the message.
    pub fn version(self) -> Version {
        match self {
            HttpVersion::Http10 => Version::Http10,
            HttpVersion::Http11 => Version::Http11,
            HttpVersion::Http2 => Version::Http2,
        }
    }
}

pub(super) fn http_version(_: &mut Scope, call: &Call) -> Result<HttpVersion, Complaint> {
    match call.arg(0).as_bytes() {
        b"1.0" => Ok(HttpVersion::Http10),
        b"1.1" => Ok(HttpVersion::Http11),
        b"2" => Ok(HttpVersion::Http2),
        _ => Err(Complaint::invalid_value(call.arg(0))),
    }
}

/// `proxy_store`
#[derive(Clone, Debug)]
pub enum Store {
    /// Nothing is kept.
    Off,
    /// Where the URI leads to (`root`, `alias`).
    On,
    /// At this path.
    Path(Template),
}

pub(super) fn store(scope: &mut Scope, call: &Call) -> Result<Store, Complaint> {
    let word = call.arg(0);
    match word.as_bytes() {
        b"off" => Ok(Store::Off),
        b"on" => Ok(Store::On),
        b"" => Err(Complaint::new("empty path").at(word)),
        text => {
            let path = scope.builder.template(word)?;
            let prefix = scope.builder.prefix.clone();
            Ok(Store::Path(if text[0] == b'/' || text[0] == b'$' {
                path
            } else {
                path.prefixed(prefix.as_bytes())
            }))
        }
    }
}

fn note_place(scope: &mut Scope, call: &Call) {
    let place = &mut scope.drafts.proxy.get_or_insert_default().buffers_place;
    place.get_or_insert(Some((call.span(), call.directive.include)));
}

pub(super) fn placed_size(scope: &mut Scope, call: &Call) -> Result<u64, Complaint> {
    note_place(scope, call);
    size(scope, call)
}

pub(super) fn placed_optional_size(scope: &mut Scope, call: &Call) -> Result<Option<u64>, Complaint> {
    placed_size(scope, call).map(Some)
}

pub(super) fn placed_offset(scope: &mut Scope, call: &Call) -> Result<u64, Complaint> {
    note_place(scope, call);
    offset(scope, call)
}

pub(super) fn placed_buffers(scope: &mut Scope, call: &Call) -> Result<Buffers, Complaint> {
    note_place(scope, call);
    passing::buffers(scope, call)
}

pub(super) fn optional_template(scope: &mut Scope, call: &Call) -> Result<Option<Template>, Complaint> {
    scope.builder.template(call.arg(0)).map(Some)
}

/// Conditions of `proxy_next_upstream`; `grpc_next_upstream` has all but the last.
pub const NEXT_UPSTREAM: &Words = &[
    ("error", condition::ERROR),
    ("timeout", condition::TIMEOUT),
    ("denied", condition::DENIED),
    ("invalid_header", condition::INVALID_HEADER),
    ("non_idempotent", condition::NON_IDEMPOTENT),
    ("http_500", condition::HTTP_500),
    ("http_502", condition::HTTP_502),
    ("http_503", condition::HTTP_503),
    ("http_504", condition::HTTP_504),
    ("http_403", condition::HTTP_403),
    ("http_404", condition::HTTP_404),
    ("http_429", condition::HTTP_429),
    ("off", condition::OFF),
    // Of `proxy_cache_use_stale`, which shares nginx's table: no effect here.
    ("updating", 0),
];

pub(super) fn next_upstream(scope: &mut Scope, call: &Call) -> Result<u32, Complaint> {
    passing::conditions(scope, call, NEXT_UPSTREAM)
}

/// Fields of `proxy_ignore_headers`, as bits. What only a cache goes by has none.
pub mod ignored {
    /// `X-Accel-Redirect`
    pub const REDIRECT: u32 = 1;
    /// `X-Accel-Limit-Rate`
    pub const LIMIT_RATE: u32 = 1 << 1;
    /// `X-Accel-Buffering`
    pub const BUFFERING: u32 = 1 << 2;
    /// `X-Accel-Charset`
    pub const CHARSET: u32 = 1 << 3;
}

const IGNORED: &Words = &[
    ("X-Accel-Redirect", ignored::REDIRECT),
    ("X-Accel-Expires", 1 << 8),
    ("X-Accel-Limit-Rate", ignored::LIMIT_RATE),
    ("X-Accel-Buffering", ignored::BUFFERING),
    ("X-Accel-Charset", ignored::CHARSET),
    ("Expires", 1 << 9),
    ("Cache-Control", 1 << 10),
    ("Set-Cookie", 1 << 11),
    ("Vary", 1 << 12),
];

/// `..._ignore_headers`
pub fn ignore_headers(scope: &mut Scope, call: &Call) -> Result<u32, Complaint> {
    passing::conditions(scope, call, IGNORED)
}

/// A name of `..._hide_header` or `..._pass_header`.
pub fn add_name(_: &mut Scope, call: &Call, slot: &mut Option<Names>) -> Result<(), Complaint> {
    Arc::make_mut(slot.get_or_insert_default()).push(call.arg(0).as_bytes().into());
    Ok(())
}

/// A field that frames the body is ours to write, whatever the configuration says.
const FRAMING_TRAP: &str = "cannot set this field: it is written by the length of the body that is sent";

/// `..._set_header`
pub fn add_header(
    scope: &mut Scope,
    call: &Call,
    slot: &mut Option<SetHeaders>,
) -> Result<(), Complaint> {
    let word = call.arg(0);
    // nginx leaves the field out, and so the line without a name.
    if !word.as_bytes().is_empty() && !is_token(word.as_bytes()) {
        return Err(Complaint::new(format!("invalid header name \"{}\"", word.lossy())).at(word));
    }
    let value = scope.builder.template(call.arg(1))?;
    let header = SetHeader::new(word.as_bytes(), value);
    if header.frames_body() && !header.value.is_empty() {
        scope.warn(call, format!("\"{}\" {FRAMING_TRAP}", call.name()));
    }
    let headers = slot.get_or_insert_default();
    headers.first.get_or_insert((call.span(), call.directive.include));
    Arc::make_mut(&mut headers.list).push(header);
    Ok(())
}

pub(super) fn add_redirect(
    scope: &mut Scope,
    call: &Call,
    slot: &mut Option<Redirects>,
) -> Result<(), Complaint> {
    if matches!(slot, Some(Redirects::Off)) {
        return Err(Complaint::new("\"proxy_redirect\" directive is duplicate"));
    }
    let Some(replacement) = call.args().get(1) else {
        return match call.arg(0).as_bytes() {
            b"off" => {
                *slot = Some(Redirects::Off);
                Ok(())
            }
            b"default" => {
                let pass = scope.drafts.proxy.as_ref().and_then(|draft| draft.pass.as_ref());
                match pass {
                    Some(Some(Pass::Fixed(fixed))) => {
                        slot.get_or_insert_default().push(fixed.default_redirect.clone());
                        Ok(())
                    }
                    Some(Some(Pass::Computed(_))) => Err(Complaint::new(
                        "\"proxy_redirect default\" cannot be used with \"proxy_pass\" directive with variables",
                    )),
                    _ => Err(Complaint::new(
                        "\"proxy_redirect default\" should be placed after the \"proxy_pass\" directive",
                    )),
                }
            }
            _ => Err(Complaint::invalid_parameter(call.arg(0))),
        };
    };
    let rule = super::redirects::Rule::read(scope, call.arg(0), replacement)?;
    slot.get_or_insert_default().push(rule);
    Ok(())
}

/// `off`, or two words that a rule is made of; `None` for the first.
fn pair<'a>(call: &Call<'a>) -> Result<Option<&'a crate::conf::tree::Word>, Complaint> {
    match call.args().get(1) {
        Some(replacement) => Ok(Some(replacement)),
        None if call.arg(0) == "off" => Ok(None),
        None => Err(Complaint::invalid_parameter(call.arg(0))),
    }
}

pub(super) fn add_cookie_domain(
    scope: &mut Scope,
    call: &Call,
    slot: &mut Option<CookieRewrites>,
) -> Result<(), Complaint> {
    let rewrites = slot.get_or_insert_default();
    match pair(call)? {
        None => rewrites.turn_off(),
        Some(replacement) => rewrites.add_domain(scope, call.arg(0), replacement)?,
    }
    Ok(())
}

pub(super) fn add_cookie_path(
    scope: &mut Scope,
    call: &Call,
    slot: &mut Option<CookieRewrites>,
) -> Result<(), Complaint> {
    let rewrites = slot.get_or_insert_default();
    match pair(call)? {
        None => rewrites.turn_off(),
        Some(replacement) => rewrites.add_path(scope, call.arg(0), replacement)?,
    }
    Ok(())
}

pub(super) fn add_cookie_flags(
    scope: &mut Scope,
    call: &Call,
    slot: &mut Option<CookieFlags>,
) -> Result<(), Complaint> {
    let flags = slot.get_or_insert_default();
    match pair(call)? {
        None => flags.turn_off(),
        Some(_) => flags.add(scope, call)?,
    }
    Ok(())
}
