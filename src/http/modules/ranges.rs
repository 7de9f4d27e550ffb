//! Ranges (RFC 9110 section 14): one is a 206 with Content-Range, several are `multipart/byteranges`.

use std::io::Write;
use std::ops::Range;

use crate::base::clock::parse_http_date;
use crate::http::body::Body;
use crate::http::body_filters::{FilterSpec, Part};
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::upstream_call::Window;
use crate::message::{FieldName, RangeRequest, Status, Version, if_range_is_etag, parse_ranges};

/// Cuts the ranges that the client asks for; 416 if the content has none of them.
pub fn filter(exchange: &mut Exchange, context: &mut Context) -> Option<Status> {
    if !exchange.allow_ranges
        || exchange.response.status != Status::OK
        || exchange.head.version < Version::Http10
    {
        return None;
    }
    let length = exchange.response.content_length?;
    let max_ranges = context.site.settings(exchange.location).static_files.max_ranges;
    if max_ranges == 0 {
        return None;
    }
    // As in nginx: slices are not asked for twice.
    let max_ranges = if exchange.is_sliced() { 1 } else { max_ranges };
    let mut ranges: Vec<Range<u64>> = Vec::new();
    // A body that is generated goes by once: its ranges must ascend.
    let is_stream = matches!(exchange.body, Body::Upstream(_));
    let request = match exchange.head.field(FieldName::Range) {
        Some(value) if if_range_holds(exchange) => {
            parse_ranges(value, length, u32::try_from(max_ranges).unwrap_or(u32::MAX), &mut ranges)
        }
        _ => RangeRequest::Whole,
    };
    match request {
        // The whole is an answer too (RFC 9110 section 14.2).
        RangeRequest::Ranges if is_stream && ranges.windows(2).any(|pair| pair[0].end > pair[1].start) => {
            exchange.response.accept_ranges = true;
        }
        RangeRequest::Whole => exchange.response.accept_ranges = true,
        RangeRequest::Unsatisfiable => {
            // The fields that were set for the 200 do not belong to the 416 that replaces it.
            exchange.response.fields.clear_lines();
            let value = format!("bytes */{length}");
            exchange.response.fields.push_known(FieldName::ContentRange, value.as_bytes());
            exchange.response.clear_content_length();
            return Some(Status::RANGE_NOT_SATISFIABLE);
        }
        RangeRequest::Ranges => {
            exchange.response.status = Status::PARTIAL_CONTENT;
            exchange.response.reason = None;
            match &ranges[..] {
                [range] => cut_one(exchange, range, length, is_stream),
                _ => cut_many(exchange, context, &ranges, length, is_stream),
            }
        }
    }
    None
}

/// What the client gets has no ranges, whatever an upstream has said: its body is made anew.
pub fn give_up(exchange: &mut Exchange) {
    exchange.allow_ranges = false;
    exchange.response.accept_ranges = false;
    exchange.response.fields.remove(b"Accept-Ranges");
}

/// Whether If-Range, where it was sent, names the content that we have.
fn if_range_holds(exchange: &Exchange) -> bool {
    let Some(value) = exchange.head.field(FieldName::IfRange) else { return true };
    let response = &exchange.response;
    if if_range_is_etag(value) {
        response.etag.is_some_and(|span| response.text(span) == value)
    } else {
        response.last_modified.is_some_and(|last| parse_http_date(value) == Some(last))
    }
}

fn cut_one(exchange: &mut Exchange, range: &Range<u64>, length: u64, is_stream: bool) {
    let mut value = [0u8; 80];
    let mut rest = &mut value[..];
    let written = write!(rest, "bytes {}-{}/{length}", range.start, range.end - 1);
    debug_assert!(written.is_ok(), "three numbers fit");
    let unused = rest.len();
    exchange.response.fields.push_known(FieldName::ContentRange, &value[..80 - unused]);
    exchange.response.set_content_length(range.end - range.start);
    if exchange.slice_wanted(range) {
        return;
    }
    match &mut exchange.upstream {
        Some(passed) if is_stream && exchange.body_filters.is_empty() => {
            passed.window = Some(Window { skip: range.start, left: range.end - range.start });
        }
        _ if is_stream => {
            let part = Part { head: Box::default(), range: range.clone() };
            exchange.body_filters.insert(0, FilterSpec::Ranges([part].into()));
        }
        _ => exchange.body = exchange.body.slice(range.start, range.end - range.start),
    }
}

fn cut_many(
    exchange: &mut Exchange,
    context: &mut Context,
    ranges: &[Range<u64>],
    length: u64,
    is_stream: bool,
) {
    let boundary = format!("{:020}", context.env.random.u64(..) >> 1);
    let own_type = match exchange.response.content_type {
        Some(span) => exchange.response.text(span).to_vec(),
        None => Vec::new(),
    };
    let mut parts = Vec::with_capacity(ranges.len() + 1);
    for range in ranges {
        let mut head = format!("\r\n--{boundary}\r\n").into_bytes();
        if !own_type.is_empty() {
            head.extend_from_slice(b"Content-Type: ");
            head.extend_from_slice(&own_type);
            head.extend_from_slice(b"\r\n");
        }
        let place = format!("Content-Range: bytes {}-{}/{length}\r\n\r\n", range.start, range.end - 1);
        head.extend_from_slice(place.as_bytes());
        parts.push(Part { head: head.into(), range: range.clone() });
    }
    let closing = format!("\r\n--{boundary}--\r\n").into_bytes();
    parts.push(Part { head: closing.into(), range: length..length });
    let total = parts.iter().map(|part| part.head.len() as u64 + part.range.end - part.range.start).sum();
    exchange.response.set_content_length(total);
    exchange.response.set_content_type(format!("multipart/byteranges; boundary={boundary}").as_bytes());
    if is_stream {
        exchange.body_filters.insert(0, FilterSpec::Ranges(parts.into()));
        return;
    }
    let mut pieces = Vec::with_capacity(parts.len() * 2);
    for part in parts {
        pieces.push(Body::Bytes(part.head.into()));
        match exchange.body.slice(part.range.start, part.range.end - part.range.start) {
            Body::Pieces(mut own) => {
                own.reverse();
                pieces.append(&mut own);
            }
            piece => pieces.push(piece),
        }
    }
    pieces.reverse();
    exchange.body = Body::Pieces(pieces);
}
