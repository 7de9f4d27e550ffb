//! Where a request goes and with which URI: `proxy_pass`.

use std::sync::Arc;

use crate::base::ascii::HEX_UPPER;
use crate::base::level::Level;
use crate::base::percent::{self, Escape};
use crate::conf::context::Context as Place;
use crate::conf::directive::{Call, Complaint};
use crate::conf::template::Template;
use crate::http::build::Scope;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::modules::passing::{PassUrl, computed_address, parse_address, set_handler};
use crate::http::site::LocationKind;
use crate::http::upstream_call::{PassId, PassModule, Target};
use crate::message::Status;

use super::handler;
use super::redirects::Rule;

/// Where `proxy_pass` may stand.
pub const PASS: Place = Place::LOCATION.union(Place::IF_LOCATION).union(Place::LIMIT_EXCEPT);

/// The usual port of `http://`.
const HTTP_PORT: u16 = 80;
/// The usual port of `https://`.
const HTTPS_PORT: u16 = 443;

/// What `proxy_pass` says.
#[derive(Clone, Debug)]
pub enum Pass {
    /// An address.
    Fixed(Arc<FixedPass>),
    /// What variables say at each request.
    Computed(Template),
}

/// A `proxy_pass` without variables.
#[derive(Debug)]
pub struct FixedPass {
    /// The group of the address.
    pub id: PassId,
    /// The address and its URI.
    pub url: PassUrl,
    /// Whether it is spoken to over TLS.
    pub secure: bool,
    /// Bytes of the URI that the URI of the address takes the place of: the location's name.
    pub replaced: usize,
    /// What `proxy_redirect default` does.
    pub default_redirect: Rule,
}

const NO_URI_HERE: &str = "\"proxy_pass\" cannot have URI part in location given by regular expression, or inside \
                           named location, or inside \"if\" statement, or inside \"limit_except\" block";

/// Reads `proxy_pass`, and makes the location one that passes requests on.
pub(super) fn read(scope: &mut Scope, call: &Call) -> Result<Option<Pass>, Complaint> {
    let word = call.arg(0);
    let template = scope.builder.template(word)?;
    set_handler(scope, handler::handle);
    scope.drafts.proxy.get_or_insert_default().pass_place = Some(Some((call.span(), call.directive.include)));
    let Some(text) = template.as_literal() else { return Ok(Some(Pass::Computed(template))) };
    let Some((secure, rest)) = split_scheme(text) else {
        return Err(Complaint::new("invalid URL prefix").at(word));
    };
    let url = parse_address(rest, usual_port(secure), true).map_err(|what| {
        Complaint::new(format!("{what} in upstream \"{}\"", String::from_utf8_lossy(rest))).at(word)
    })?;
    let is_prefix = scope.context == Place::LOCATION
        && matches!(scope.head.kind, LocationKind::Prefix | LocationKind::Exact);
    if !is_prefix && !url.uri.is_empty() {
        return Err(Complaint::new(NO_URI_HERE).at(word));
    }
    let location = if is_prefix { scope.head.name.clone() } else { Box::default() };
    if scope.head.kind == LocationKind::Prefix
        && is_prefix
        && let Some(example) = glued(&location, &url.uri)
    {
        scope.warn_word(call, word, example);
    }
    let default_redirect = if url.uri.is_empty() {
        Rule::literal(&[text, b"/"].concat(), b"/")
    } else {
        Rule::literal(text, &location)
    };
    let replaced = if url.uri.is_empty() { 0 } else { location.len() };
    let id = scope.builder.pass(url.address.clone());
    Ok(Some(Pass::Fixed(Arc::new(FixedPass { id, url, secure, replaced, default_redirect }))))
}

/// What `-t` says where the location's name and the URI that takes its place differ in their last slash: such requests
/// seldom get where they are meant to.
fn glued(location: &[u8], uri: &[u8]) -> Option<String> {
    let is_meant = uri.is_empty() || memchr::memchr(b'?', uri).is_some();
    if is_meant || location.ends_with(b"/") == uri.ends_with(b"/") {
        return None;
    }
    let (location, uri) = (String::from_utf8_lossy(location), String::from_utf8_lossy(uri));
    let between = if location.ends_with('/') { "" } else { "/" };
    Some(format!(
        "a request for \"{location}{between}x\" is passed on as one for \"{uri}{between}x\": the location's name and \
         the URI of \"proxy_pass\" should both end with a slash, or neither"
    ))
}

/// Whether it is `https://` rather than `http://`, and what follows.
fn split_scheme(url: &[u8]) -> Option<(bool, &[u8])> {
    let after = |scheme: &[u8]| {
        let (text, rest) = url.split_at_checked(scheme.len())?;
        text.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    after(b"http://").map(|rest| (false, rest)).or_else(|| after(b"https://").map(|rest| (true, rest)))
}

fn usual_port(secure: bool) -> u16 {
    if secure { HTTPS_PORT } else { HTTP_PORT }
}

/// Where one request goes.
pub struct Destination {
    /// The group or address.
    pub target: Target,
    /// Host and port of the address, where variables gave it.
    pub computed: Option<PassUrl>,
    /// The host as `$proxy_host` shows it, if it is spoken to over TLS.
    pub secure_host: Option<Box<[u8]>>,
}

/// Computes where the request goes, and appends its URI to `out`.
///
/// # Errors
/// What to answer; it was logged.
pub fn choose(
    exchange: &mut Exchange,
    context: &mut Context,
    pass: &Pass,
    module: PassModule,
    out: &mut Vec<u8>,
) -> Result<Destination, Status> {
    match pass {
        Pass::Fixed(fixed) => {
            append_uri(exchange, &fixed.url.uri, fixed.replaced, out);
            let secure_host = fixed.secure.then(|| fixed.url.shown_host.clone());
            Ok(Destination { target: Target::Fixed(fixed.id), computed: None, secure_host })
        }
        Pass::Computed(template) => {
            let (secure, url) =
                exchange.with_rendered(template, context, |exchange, context, text| match module {
                    PassModule::Proxy => computed(exchange, context, text),
                    PassModule::Grpc => {
                        let (secure, rest) = split_grpc_scheme(text);
                        Ok((secure, computed_address(exchange, context, rest, 0, false)?))
                    }
                })?;
            match &*url.uri {
                b"" => append_uri(exchange, b"", 0, out),
                uri => append_safe(out, uri),
            }
            let secure_host = secure.then(|| url.shown_host.clone());
            Ok(Destination { target: Target::Computed(url.address.clone()), computed: Some(url), secure_host })
        }
    }
}

fn computed(exchange: &mut Exchange, context: &mut Context, text: &[u8]) -> Result<(bool, PassUrl), Status> {
    let Some((secure, rest)) = split_scheme(text) else {
        let shown = String::from_utf8_lossy(text);
        exchange.log(context, Level::Error, format_args!("invalid URL prefix in \"{shown}\""));
        return Err(Status::INTERNAL_SERVER_ERROR);
    };
    let url = computed_address(exchange, context, rest, usual_port(secure), true)?;
    Ok((secure, url))
}

/// Whether it is `grpcs://`, and what follows the scheme, if there is one.
pub fn split_grpc_scheme(url: &[u8]) -> (bool, &[u8]) {
    let after = |scheme: &[u8]| {
        let (text, rest) = url.split_at_checked(scheme.len())?;
        text.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    match (after(b"grpc://"), after(b"grpcs://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => (false, url),
    }
}

/// Appends the URI for an address with this URI part; the first `replaced` bytes of the request's give way to it.
///
/// The client's target goes on byte for byte where the address has no URI and nothing changed the request's. Else the
/// normalised path is escaped anew, as nginx does: if an escape was in the client's, or after an internal redirect.
fn append_uri(exchange: &Exchange, part: &[u8], replaced: usize, out: &mut Vec<u8>) {
    if part.is_empty() && exchange.uri_is_original {
        append_safe(out, exchange.head.target());
        return;
    }
    let replaced = if exchange.uri_fits_location {
        append_safe(out, part);
        replaced
    } else {
        0
    };
    let path = exchange.uri.get(replaced..).unwrap_or_default();
    let target = exchange.head.target();
    let raw_path = &target[..memchr::memchr(b'?', target).unwrap_or(target.len())];
    if exchange.internal || memchr::memchr(b'%', raw_path).is_some() {
        percent::escape(out, path, Escape::Uri);
    } else {
        append_safe(out, path);
    }
    if !exchange.args.is_empty() {
        out.push(b'?');
        append_safe(out, &exchange.args);
    }
}

/// Appends what is a URI already; only bytes that would end the request line are escaped, so that what goes out is one
/// request whatever variables hold.
fn append_safe(out: &mut Vec<u8>, uri: &[u8]) {
    let start = out.len();
    out.extend_from_slice(uri);
    let breaks_line = |byte: &u8| *byte <= b' ' || *byte == 0x7f;
    if !out[start..].iter().any(breaks_line) {
        return;
    }
    out.truncate(start);
    for byte in uri {
        if breaks_line(byte) {
            out.push(b'%');
            out.push(HEX_UPPER[usize::from(byte >> 4)]);
            out.push(HEX_UPPER[usize::from(byte & 15)]);
        } else {
            out.push(*byte);
        }
    }
}
