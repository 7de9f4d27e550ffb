//! Header filters, in order. Each sees the response head as the ones before it left it.
//!
//! 1. `slice`: makes a slice that came from an upstream the whole that all others go by.
//! 2. `conditional`: If-Modified-Since, If-None-Match and their like, before anything that a 304 must not pay for; it
//!    needs Last-Modified and ETag as the handler set them.
//! 3. `headers`: `add_header` and `expires`, which go by the status that the client will see (304 included).
//! 4. `userid`: its cookie, for errors too.
//! 5. `cors`: its fields take the place of those that a handler or `add_header` may have set.
//! 6. `spa`: `Cache-Control`, where `expires` and `add_header` have not set it.
//! 7. What rewrites the body, in the order in which the body passes it: `gunzip` first, because the others read text;
//!    `sub_filter`, whose strings are in the set that the response came in; `charset`; `ssi`, whose
//!    pages include others that went as far by themselves; compression last.
//! 8. `ranges`: cuts the body last, because ranges count bytes of what is sent.
//! 9. `headers` again: `add_trailer` gives the length up, whatever it has become.

use crate::message::{FieldName, Status};

use super::context::Context;
use super::exchange::Exchange;
use super::modules::{
    addition, charset, compress, conditional, cors, gunzip, headers, ranges, slice, spa, ssi, sub_filter,
    userid,
};

/// Runs them all; a status replaces the response (412, 416).
pub fn run_header_filters(exchange: &mut Exchange, context: &mut Context) -> Option<Status> {
    if let Some(status) = exchange.error_status {
        exchange.response.status = status;
        exchange.response.reason = None;
    }
    set_server(exchange, context);
    exchange.body_filters.clear();
    exchange.weaving = None;
    if let Some(status) = slice::filter(exchange, context) {
        return Some(status);
    }
    let content_type = exchange.response.content_type;
    if exchange.is_subrequest() && exchange.notes.slice.is_some() {
        // What its bytes go through is decided for all of the body that it is a slice of.
        return None;
    }
    if exchange.is_subrequest() {
        rewrite_body(exchange, context);
        return None;
    }
    if let Some(status) =
        conditional::filter(exchange, context).or_else(|| headers::filter(exchange, context))
    {
        // What was set for the 200 (Content-Encoding, Vary) does not belong to the 412 that replaces it.
        exchange.response.fields.clear_lines();
        return Some(status);
    }
    userid::filter(exchange, context);
    cors::filter(exchange, context);
    spa::filter(exchange, context);
    rewrite_body(exchange, context);
    addition::filter(exchange, context);
    compress::filter(exchange, context, content_type);
    let status = ranges::filter(exchange, context);
    headers::make_room_for_trailers(exchange, context);
    status
}

/// What subrequests' bodies go through as well.
fn rewrite_body(exchange: &mut Exchange, context: &mut Context) {
    gunzip::filter(exchange, context);
    sub_filter::filter(exchange, context);
    charset::filter(exchange, context);
    ssi::filter(exchange, context);
}

/// `Server`, as `server_tokens` says; an upstream's that is passed on stays alone.
fn set_server(exchange: &mut Exchange, context: &mut Context) {
    if exchange.response.fields.list().iter().any(|field| field.id == FieldName::Server) {
        exchange.response.server = None;
        return;
    }
    let site = context.site;
    let tokens = &site.settings(exchange.location).core.server_tokens;
    exchange.response.server = match tokens.as_literal() {
        Some(b"") => None,
        Some(text) => Some(exchange.response.fields.store(text)),
        None => {
            let mut text = context.env.scratch();
            exchange.render(tokens, context, &mut text);
            let stored = (!text.is_empty()).then(|| exchange.response.fields.store(&text));
            context.env.give_back(text);
            stored
        }
    };
}
