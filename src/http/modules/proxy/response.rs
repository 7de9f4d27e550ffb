//! The client's response, made of an upstream's.

use crate::base::ascii::{parse_u64, starts_with_ignore_case};
use crate::base::clock::parse_http_date;
use crate::http::body::Body;
use crate::http::context::Context;
use crate::http::error_page;
use crate::http::exchange::Exchange;
use crate::http::flow::Flow;
use crate::http::redirect;
use crate::http::upstream_call::{Call, Passed};
use crate::message::{FieldName, Span, Status};

use super::accel::{self, Accel};
use super::headers::{is_between_us, is_nominated, is_usual_member, members};
use super::{Settings, cookies, redirects};

/// Makes the upstream's head the response's, or does what it asks for instead.
pub fn take(settings: &Settings, exchange: &mut Exchange, context: &mut Context) -> Flow {
    let Some(passed) = &exchange.upstream else { return Flow::Status(Status::INTERNAL_SERVER_ERROR) };
    let status = passed.response.status;
    let accel = Accel::read(&passed.response.fields, settings.ignore_headers);
    if let Some(rate) = accel.limit_rate {
        exchange.limit_rate = Some(rate);
    }
    if settings.intercept_errors && status.0 >= 300 && error_page::has_page(exchange, context, status) {
        if status == Status::UNAUTHORIZED {
            keep_challenges(exchange);
        }
        return Flow::Status(status);
    }
    if let Some(target) = accel.redirect {
        return accel::follow(exchange, context, settings, target);
    }
    copy_head(exchange, context, settings, &accel);
    Flow::Respond
}

/// A 401 keeps what it asks for, whatever page it is shown with.
fn keep_challenges(exchange: &mut Exchange) {
    let Exchange { upstream: Some(passed), response, .. } = exchange else { return };
    for value in passed.response.fields.all(FieldName::WwwAuthenticate) {
        response.fields.push_known(FieldName::WwwAuthenticate, value);
    }
}

fn copy_head(exchange: &mut Exchange, context: &mut Context, settings: &Settings, accel: &Accel) {
    let is_head = exchange.is_head();
    let Exchange { upstream: Some(passed), response, .. } = exchange else { return };
    let status = passed.response.status;
    response.status = status;
    response.reason = match passed.response.reason.map(|span| passed.response.text(span)) {
        Some(reason) if status.reason().is_none_or(|usual| usual.as_bytes() != reason) => {
            Some(response.fields.store(reason))
        }
        _ => None,
    };
    let length = if status.forbids_content() || passed.switched { None } else { announced_length(passed, is_head) };
    match length {
        Some(length) => response.set_content_length(length),
        None => response.clear_content_length(),
    }
    let lines = Lines {
        switched: passed.switched,
        nominates: members(passed.response.fields.all(FieldName::Connection))
            .any(|member| !is_usual_member(member)),
        has_cookies: cookies::has_rules(settings),
        charset: accel.charset,
    };
    copy_lines(exchange, context, settings, &lines);
    let forbids = status.forbids_content();
    let strict = context.site.settings(exchange.location).core.strict;
    if let Some(passed) = &mut exchange.upstream {
        let body = match (passed.switched, is_head || forbids) {
            (true, _) => None,
            (false, true) => Some(0),
            (false, false) => passed.length,
        };
        if let Some(call) = &mut passed.call {
            settle_call(call, status, accel, strict, exchange.response.content_type, &exchange.response.fields);
        }
        exchange.body = Body::Upstream(body);
    }
    if settings.force_ranges {
        exchange.allow_ranges = true;
    }
}

/// The length that the response announces: of a response to HEAD, the one that the body would have had.
fn announced_length(passed: &Passed, is_head: bool) -> Option<u64> {
    if is_head {
        return passed.response.fields.first(FieldName::ContentLength).and_then(parse_u64);
    }
    passed.length
}

/// Types whose events are worth nothing late.
const STREAMS: &[&[u8]] = &[b"text/event-stream", b"application/grpc", b"application/x-ndjson"];

/// What the head decides about the rest: whether it is kept for a slow client, and in a file.
fn settle_call(
    call: &mut Call,
    status: Status,
    accel: &Accel,
    strict: bool,
    content_type: Option<Span>,
    fields: &crate::message::Fields,
) {
    let media_type = content_type.map_or(&b""[..], |span| fields.get(span));
    if !strict && STREAMS.iter().any(|stream| starts_with_ignore_case(media_type, stream)) {
        call.buffering = false;
    }
    if let Some(buffering) = accel.buffering {
        call.buffering = buffering;
    }
    if status != Status::OK {
        call.store = None;
    }
}

/// What decides about the lines of a response as a whole.
struct Lines {
    switched: bool,
    nominates: bool,
    has_cookies: bool,
    charset: Option<Span>,
}

fn copy_lines(exchange: &mut Exchange, context: &mut Context, settings: &Settings, lines: &Lines) {
    let count = exchange.upstream.as_ref().map_or(0, |passed| passed.response.fields.len());
    let mut seen = Seen::default();
    let mut value = context.env.scratch();
    for index in 0..count {
        let Exchange { upstream: Some(passed), response, .. } = exchange else { break };
        let fields = &passed.response.fields;
        let field = fields.list()[index];
        let (name, text) = (fields.get(field.name), fields.get(field.value));
        if !passes(settings, lines, fields, field.id, name) {
            continue;
        }
        match field.id {
            FieldName::ContentType if !seen.first(&mut |seen| &mut seen.content_type) => {}
            FieldName::ContentType => {
                let charset = lines.charset.map(|span| fields.get(span));
                response.content_type = Some(match charset {
                    None => response.fields.store(text),
                    Some(charset) => {
                        response.fields.store_with(|out| append_with_charset(text, charset, out)).0
                    }
                });
            }
            FieldName::LastModified if !seen.first(&mut |seen| &mut seen.last_modified) => {}
            // Only these show it from its slot.
            FieldName::LastModified if matches!(response.status.0, 200 | 206 | 304) => {
                response.last_modified = parse_http_date(text);
                response.last_modified_text = Some(response.fields.store(text));
            }
            FieldName::Etag if !seen.first(&mut |seen| &mut seen.etag) => {}
            FieldName::Etag => response.set_etag(text),
            FieldName::Location if !seen.first(&mut |seen| &mut seen.location) => {}
            FieldName::Location => {
                value.clear();
                value.extend_from_slice(text);
                copy_location(exchange, context, settings, &mut value);
            }
            FieldName::SetCookie if lines.has_cookies => {
                value.clear();
                value.extend_from_slice(text);
                cookies::rewrite(exchange, context, settings, &mut value);
                exchange.response.fields.push_known(FieldName::SetCookie, &value);
            }
            FieldName::AcceptRanges if settings.force_ranges => {}
            FieldName::Refresh => {
                value.clear();
                value.extend_from_slice(text);
                redirects::rewrite_refresh(exchange, context, settings, &mut value);
                exchange.response.fields.push_known(FieldName::Refresh, &value);
            }
            _ => response.fields.push(name, text),
        }
    }
    context.env.give_back(value);
}

/// Fields of which the first counts, as in nginx.
#[derive(Default)]
struct Seen {
    content_type: bool,
    last_modified: bool,
    etag: bool,
    location: bool,
}

impl Seen {
    fn first(&mut self, of: &mut dyn FnMut(&mut Seen) -> &mut bool) -> bool {
        !std::mem::replace(of(self), true)
    }
}

/// Whether a field goes to the client at all.
fn passes(
    settings: &Settings,
    lines: &Lines,
    fields: &crate::message::Fields,
    id: FieldName,
    name: &[u8],
) -> bool {
    let stays = match id {
        FieldName::Upgrade => !lines.switched,
        FieldName::Trailer => !settings.pass_trailers,
        id => is_between_us(id),
    };
    if stays || settings.hidden.contains(id, name) {
        return false;
    }
    !lines.nominates
        || id == FieldName::Upgrade
        || !is_nominated(fields, name)
}

/// An address that a rule rewrote is ours, and made absolute like ours; any other is the upstream's business.
fn copy_location(exchange: &mut Exchange, context: &mut Context, settings: &Settings, value: &mut Vec<u8>) {
    match redirects::rewrite(exchange, context, settings, 0, value) {
        Some(true) => redirect::set_location(exchange, context, value),
        _ => exchange.response.set_location(value),
    }
}

/// Appends a media type with this charset in place of its own.
fn append_with_charset(media_type: &[u8], charset: &[u8], out: &mut Vec<u8>) {
    for (index, part) in media_type.split(|byte| *byte == b';').enumerate() {
        let part = part.trim_ascii();
        if index == 0 {
            out.extend_from_slice(part);
        } else if !starts_with_ignore_case(part, b"charset=") && !part.is_empty() {
            out.extend_from_slice(b"; ");
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"; charset=");
    out.extend_from_slice(charset);
}

#[cfg(test)]
mod unit_tests {
    use super::append_with_charset;

    #[test]
    fn a_charset_takes_the_place_of_another() {
        for (media_type, expected) in [
            ("text/html", "text/html; charset=koi8-r"),
            ("text/html; charset=utf-8", "text/html; charset=koi8-r"),
            ("text/html;Charset=\"x\" ; a=b;", "text/html; a=b; charset=koi8-r"),
        ] {
            let mut out = Vec::new();
            append_with_charset(media_type.as_bytes(), b"koi8-r", &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
