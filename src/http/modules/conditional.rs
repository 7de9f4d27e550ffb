//! Conditional requests: If-Match, If-Unmodified-Since, If-None-Match, If-Modified-Since (RFC 9110 section 13), in
//! nginx's order and with its leniency.

use crate::base::clock::parse_http_date;
use crate::http::body::Body;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::message::{FieldName, Status, if_match, if_none_match};

use super::core::IfModifiedSince;

/// Turns a 200 into a 304 where the client has the content already; 412 where a precondition fails.
pub fn filter(exchange: &mut Exchange, context: &mut Context) -> Option<Status> {
    // What an upstream answers, it answers with the client's conditions before it.
    if exchange.response.status != Status::OK || matches!(exchange.body, Body::Upstream(_)) {
        return None;
    }
    let head = &exchange.head;
    let has_condition = [
        FieldName::IfModifiedSince,
        FieldName::IfNoneMatch,
        FieldName::IfMatch,
        FieldName::IfUnmodifiedSince,
    ]
    .into_iter()
    .any(|name| head.has(name));
    if !has_condition {
        return None;
    }
    let etag_text = exchange.response.etag.map(|span| exchange.response.text(span));
    let last_modified = exchange.response.last_modified;
    if let Some(value) = head.field(FieldName::IfUnmodifiedSince)
        && last_modified.is_none_or(|last| parse_http_date(value).is_none_or(|since| since < last))
    {
        return Some(Status::PRECONDITION_FAILED);
    }
    if let Some(list) = head.field(FieldName::IfMatch)
        && !if_match(list, etag_text)
    {
        return Some(Status::PRECONDITION_FAILED);
    }
    let since = head.field(FieldName::IfModifiedSince);
    let none_match = head.field(FieldName::IfNoneMatch);
    let rule = context.site.settings(exchange.location).core.if_modified_since;
    if since.is_none() && none_match.is_none()
        || since.is_some_and(|value| is_modified(value, last_modified, rule))
        || none_match.is_some_and(|list| !if_none_match(list, etag_text))
    {
        return None;
    }
    make_not_modified(exchange);
    None
}

fn is_modified(value: &[u8], last_modified: Option<i64>, rule: IfModifiedSince) -> bool {
    let Some(last) = last_modified else { return true };
    match (rule, parse_http_date(value)) {
        (IfModifiedSince::Off, _) | (_, None) => true,
        (IfModifiedSince::Exact, Some(since)) => since != last,
        (IfModifiedSince::Before, Some(since)) => since < last,
    }
}

fn make_not_modified(exchange: &mut Exchange) {
    let response = &mut exchange.response;
    response.status = Status::NOT_MODIFIED;
    response.reason = None;
    response.content_type = None;
    response.clear_content_length();
    response.accept_ranges = false;
    response.fields.remove(b"Content-Encoding");
    exchange.allow_ranges = false;
    exchange.body = Body::Empty;
}
