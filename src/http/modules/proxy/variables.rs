//! `$proxy_host`, `$proxy_port`, `$proxy_add_x_forwarded_for` and their like.

use crate::base::ascii::append_decimal;
use crate::http::context::Context;
use crate::http::exchange::{Exchange, RequestBody};
use crate::http::modules::connection_variables::append_peer;
use crate::http::upstream_call::CallBody;
use crate::http::variables::VariableEntry;
use crate::message::{FieldName, Version};

use super::target::Pass;

/// The module's variables.
pub static VARIABLES: &[VariableEntry] = &[
    VariableEntry::new("proxy_add_via", add_via),
    VariableEntry::new("proxy_add_x_forwarded_for", add_x_forwarded_for),
    VariableEntry::new("proxy_host", append_host).changeable(),
    VariableEntry::new("proxy_internal_body_length", body_length),
    VariableEntry::new("proxy_internal_chunked", chunked),
    VariableEntry::new("proxy_port", append_port).changeable(),
];

/// Appends the host that the request goes to, with its port unless it is the usual one; `false` before it was chosen.
pub fn append_host(exchange: &mut Exchange, context: &mut Context, out: &mut Vec<u8>) -> bool {
    with_address(exchange, context, |host, _| out.extend_from_slice(host))
}

fn append_port(exchange: &mut Exchange, context: &mut Context, out: &mut Vec<u8>) -> bool {
    with_address(exchange, context, |_, port| out.extend_from_slice(port))
}

fn with_address(exchange: &Exchange, context: &Context, show: impl FnOnce(&[u8], &[u8])) -> bool {
    let Some(passed) = exchange.upstream.as_ref().filter(|passed| passed.call.is_some()) else { return false };
    let settings = super::in_force(context.site.settings(exchange.location), exchange);
    match (&passed.computed, &settings.pass) {
        (Some(url), _) => show(&url.shown_host, &url.shown_port),
        (None, Some(Pass::Fixed(fixed))) => show(&fixed.url.shown_host, &fixed.url.shown_port),
        (None, _) => return false,
    }
    true
}

/// The client's X-Forwarded-For with the client's address behind it.
fn add_x_forwarded_for(exchange: &mut Exchange, _: &mut Context, out: &mut Vec<u8>) -> bool {
    append_before(exchange, FieldName::XForwardedFor, out);
    append_peer(exchange, out);
    true
}

/// The client's Via with us behind it (RFC 9110 section 7.6.3), by the machine's name.
fn add_via(exchange: &mut Exchange, context: &mut Context, out: &mut Vec<u8>) -> bool {
    append_before(exchange, FieldName::Via, out);
    out.extend_from_slice(match exchange.head.version {
        Version::Http09 | Version::Http10 => b"1.0 ",
        Version::Http11 => b"1.1 ",
        Version::Http2 => b"2.0 ",
        Version::Http3 => b"3.0 ",
    });
    out.extend_from_slice(&context.env.hostname);
    true
}

fn append_before(exchange: &Exchange, id: FieldName, out: &mut Vec<u8>) {
    for value in exchange.head.fields.all(id) {
        out.extend_from_slice(value);
        out.extend_from_slice(b", ");
    }
}

fn body_length(exchange: &mut Exchange, _: &mut Context, out: &mut Vec<u8>) -> bool {
    let Some(call) = exchange.upstream.as_ref().and_then(|passed| passed.call.as_ref()) else { return false };
    let length = match (&call.body, &exchange.request_body) {
        (CallBody::Bytes(bytes), _) => bytes.len() as u64,
        (CallBody::Read, RequestBody::Memory(bytes)) => bytes.len() as u64,
        (CallBody::Read, _) => exchange.request_body_length,
        _ => return false,
    };
    append_decimal(out, length);
    true
}

fn chunked(exchange: &mut Exchange, _: &mut Context, out: &mut Vec<u8>) -> bool {
    let call = exchange.upstream.as_ref().and_then(|passed| passed.call.as_ref());
    let is_chunked = call.is_some_and(|call| matches!(call.body, CallBody::Streamed { chunked: true }));
    if is_chunked {
        out.extend_from_slice(b"chunked");
    }
    is_chunked
}
