//! Field blocks of requests to [`RequestHead`]s, as HTTP/1 gives them: nothing above can tell the difference but by
//! `version`.
//!
//! - `:method`, `:path` and `:authority` become method, target, authority and a request line as nginx shows it;
//!   `:scheme` is checked and not kept.
//! - A Host field is added where there is only `:authority`; both must agree (RFC 9113 section 8.3.1).
//! - Cookie fields are joined (section 8.2.3).
//! - An extended CONNECT for `websocket` (RFC 8441) becomes GET with `Upgrade: websocket` and `Connection: Upgrade`,
//!   as if it had come by HTTP/1 (but Sec-WebSocket-Key, which the caller makes when it passes the request on).

use smallvec::SmallVec;

use crate::message::{FieldName, Fields, Method, RequestFraming, RequestHead, Span, Status, Version};
use crate::proto::h1::{self, HeadLimits, RequestError};

use super::error::StreamError;
use super::field_rules;
use super::hpack::{Budget, Decoded, Decoder, HpackError};

/// What became of a block.
#[derive(Debug)]
pub(super) enum BuiltRequest {
    /// The head is filled.
    Head {
        /// It asks for a tunnel (RFC 8441).
        is_tunnel: bool,
    },
    /// A request that is answered with an error; the head is filled as far as that is possible.
    Refused(RequestError),
    /// A malformed message: its stream is reset.
    Malformed(StreamError),
}

/// Pseudo-header fields, each at most once.
#[derive(Clone, Copy, Debug, Default)]
struct Pseudo {
    method: Option<Span>,
    scheme: Option<Span>,
    authority: Option<Span>,
    path: Option<Span>,
    protocol: Option<Span>,
}

#[derive(Debug, Default)]
struct Builder {
    pseudo: Pseudo,
    has_regular: bool,
    malformed: Option<&'static str>,
    /// Cookie fields, to be joined; no more than a head may have lines.
    cookies: SmallVec<[Span; 4]>,
    is_too_large: bool,
}

/// The budget of a head under nginx's limits: `large_client_header_buffers` bound lines and the sum, as in nginx.
pub(super) fn budget(limits: &HeadLimits) -> Budget {
    let list = limits.large_buffers as usize * limits.large_buffer_size as usize;
    Budget {
        // Twice, as the overhead of 32 bytes a field counts here and not there; 16 MiB is what spans allow with ease.
        list: (2 * list).clamp(1024, 16 << 20),
        string: limits.large_buffer_size as usize,
        // Pseudo-header fields are not counted among the lines.
        count: limits.max_headers.saturating_add(5),
    }
}

/// Fields that are decoded behind the first that did not fit, for the tables' sake: an honest client's block that is too
/// large by some has no more; one of 8,000 references to one long line has.
const MOST_BEHIND: u32 = 1000;

/// Decodes a block whole, for the tables' sake also after an error, and fills `head`.
///
/// # Errors
/// The block can't be decoded.
pub(super) fn build(
    decoder: &mut Decoder,
    block: &[u8],
    ends: bool,
    allow_tunnels: bool,
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<BuiltRequest, HpackError> {
    head.clear();
    head.version = Version::Http2;
    head.wire_length = block.len() as u32 + super::frame::HEADER_LENGTH as u32;
    let mut builder = Builder::default();
    let mut behind = 0;
    let mut budget = budget(limits);
    let mut rest = block;
    let mut is_first = true;
    loop {
        match decoder.next(&mut rest, is_first, &mut head.fields, &mut budget)? {
            Decoded::Field { name, value } => builder.take(name, value, limits, head),
            Decoded::TooLarge => {
                builder.is_too_large = true;
                count_behind(&mut behind)?;
            }
            Decoded::End => break,
        }
        is_first = false;
    }
    Ok(builder.finish(ends, allow_tunnels, limits, head))
}

/// One more field that is not kept.
fn count_behind(behind: &mut u32) -> Result<(), HpackError> {
    *behind += 1;
    if *behind > MOST_BEHIND { Err(HpackError::TooManyFields) } else { Ok(()) }
}

/// Decodes the block of a trailer section into `head.fields` (RFC 9113 section 8.1).
///
/// # Errors
/// The block can't be decoded.
pub(super) fn build_trailers(
    decoder: &mut Decoder,
    block: &[u8],
    mut budget: Budget,
    fields: &mut Fields,
) -> Result<Result<(), StreamError>, HpackError> {
    fields.clear();
    let mut behind = 0;
    let mut result = Ok(());
    let mut rest = block;
    let mut is_first = true;
    loop {
        match decoder.next(&mut rest, is_first, fields, &mut budget)? {
            Decoded::Field { name, value } => {
                let id = FieldName::of(fields.get(name));
                match field_rules::check(id, fields.get(name), fields.get(value)) {
                    // A pseudo-header field is refused with the colon in its name.
                    Err(reason) => result = Err(StreamError::malformed(reason)),
                    // Framing does not belong here (RFC 9110 section 6.5.1).
                    Ok(()) if id == FieldName::ContentLength => {}
                    Ok(()) => fields.push_stored(name, value),
                }
            }
            Decoded::TooLarge => {
                count_behind(&mut behind)?;
                result = Err(StreamError::malformed("peer sent too large a trailer section"));
            }
            Decoded::End => return Ok(result),
        }
        is_first = false;
    }
}

impl Builder {
    fn take(&mut self, name: Span, value: Span, limits: &HeadLimits, head: &mut RequestHead) {
        if self.malformed.is_some() {
            return;
        }
        let result = if head.text(name).first() == Some(&b':') {
            self.take_pseudo(name, value, head)
        } else {
            self.take_regular(name, value, limits, head)
        };
        self.malformed = result.err();
    }

    fn take_pseudo(&mut self, name: Span, value: Span, head: &RequestHead) -> Result<(), &'static str> {
        if self.has_regular {
            return Err("client sent a pseudo-header field behind a field");
        }
        let slot = match head.text(name) {
            b":method" => &mut self.pseudo.method,
            b":scheme" => &mut self.pseudo.scheme,
            b":authority" => &mut self.pseudo.authority,
            b":path" => &mut self.pseudo.path,
            b":protocol" => &mut self.pseudo.protocol,
            _ => return Err("client sent an unknown pseudo-header field"),
        };
        if slot.replace(value).is_some() {
            return Err("client sent a pseudo-header field twice");
        }
        field_rules::check_value(head.text(value))
    }

    fn take_regular(
        &mut self,
        name: Span,
        value: Span,
        limits: &HeadLimits,
        head: &mut RequestHead,
    ) -> Result<(), &'static str> {
        self.has_regular = true;
        let id = FieldName::of(head.text(name));
        field_rules::check(id, head.text(name), head.text(value))?;
        if id == FieldName::Cookie {
            self.cookies.push(value);
        } else if h1::is_usual_name(head.text(name), limits) || !limits.ignore_invalid_headers {
            head.push_stored(name, value);
        } else {
            if head.ignored_lines == 0 {
                let (line, ()) = head.fields.store_with(|text| {
                    text.extend_from_within(range(name));
                    text.extend_from_slice(b": ");
                    text.extend_from_within(range(value));
                });
                head.ignored_line = line;
            }
            head.ignored_lines += 1;
        }
        Ok(())
    }

    fn finish(
        mut self,
        ends: bool,
        allow_tunnels: bool,
        limits: &HeadLimits,
        head: &mut RequestHead,
    ) -> BuiltRequest {
        if let Some(reason) = self.malformed {
            return BuiltRequest::Malformed(StreamError::malformed(reason));
        }
        // What came within the budget is shown by log lines.
        let is_websocket = match self.check_pseudo(allow_tunnels, head) {
            Ok(is_websocket) => is_websocket,
            Err(_) if self.is_too_large => false,
            Err(reason) => return BuiltRequest::Malformed(StreamError::malformed(reason)),
        };
        self.fill(is_websocket, head);
        if self.is_too_large {
            let what = "client sent too large header";
            return BuiltRequest::Refused(RequestError::fields(Status::HEAD_TOO_LARGE, what));
        }
        if !is_websocket && self.pseudo.protocol.is_some() {
            let what = "client sent CONNECT request with unknown \":protocol\"";
            return BuiltRequest::Refused(RequestError::fields(Status::NOT_IMPLEMENTED, what));
        }
        let is_tunnel = is_websocket || head.method == Method::Connect;
        let outcome = self.apply_rules(ends || is_tunnel, limits, head);
        if let Err(error) = outcome {
            return BuiltRequest::Refused(error);
        }
        let length = head.field(FieldName::ContentLength).and_then(h1::parse_length);
        if ends && !is_tunnel && length.is_some_and(|length| length > 0) {
            let reason = "client sent a Content-Length and no content";
            return BuiltRequest::Malformed(StreamError::malformed(reason));
        }
        BuiltRequest::Head { is_tunnel }
    }

    /// Which pseudo-header fields a request must and must not have (RFC 9113 sections 8.3.1 and 8.5, RFC 8441 section 4);
    /// whether it asks for a WebSocket.
    fn check_pseudo(&self, allow_tunnels: bool, head: &RequestHead) -> Result<bool, &'static str> {
        let pseudo = &self.pseudo;
        let text = |span: Option<Span>| span.map(|span| head.text(span));
        let Some(method) = text(pseudo.method) else { return Err("client sent no \":method\"") };
        if pseudo.protocol.is_some() && (method != b"CONNECT" || !allow_tunnels) {
            return Err("client sent \":protocol\" where it is not allowed");
        }
        if method == b"CONNECT" && pseudo.protocol.is_none() {
            if pseudo.scheme.is_some() || pseudo.path.is_some() {
                return Err("client sent CONNECT request with \":scheme\" or \":path\"");
            }
            return match text(pseudo.authority) {
                None | Some(b"") => Err("client sent CONNECT request without \":authority\""),
                Some(_) => Ok(false),
            };
        }
        let Some(scheme) = text(pseudo.scheme) else { return Err("client sent no \":scheme\"") };
        let is_scheme = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        if !scheme.first().is_some_and(u8::is_ascii_alphabetic) || !scheme.iter().all(is_scheme) {
            return Err("client sent invalid \":scheme\"");
        }
        let Some(path) = text(pseudo.path) else { return Err("client sent no \":path\"") };
        let is_asterisk = path == b"*" && method == b"OPTIONS";
        if path.first() != Some(&b'/') && !is_asterisk {
            return Err("client sent invalid \":path\"");
        }
        if path.iter().any(|&byte| byte <= b' ' || byte == 0x7f) {
            return Err("client sent invalid \":path\"");
        }
        if pseudo.protocol.is_some() && pseudo.authority.is_none() {
            return Err("client sent CONNECT request without \":authority\"");
        }
        Ok(text(pseudo.protocol) == Some(b"websocket"))
    }

    fn fill(&mut self, is_websocket: bool, head: &mut RequestHead) {
        let pseudo = self.pseudo;
        head.method_text = pseudo.method.unwrap_or_default();
        if is_websocket {
            head.method_text = head.fields.store(b"GET");
        }
        head.method = Method::of(head.text(head.method_text));
        head.authority = pseudo.authority.unwrap_or_default();
        // CONNECT without a path: HTTP/1 says the same.
        head.target = pseudo.path.unwrap_or_else(|| head.fields.store(b"/"));
        let shown = pseudo.path.unwrap_or(head.authority);
        let method = head.method_text;
        let (line, ()) = head.fields.store_with(|text| {
            text.extend_from_within(range(method));
            text.push(b' ');
            text.extend_from_within(range(shown));
            text.extend_from_slice(b" HTTP/2.0");
        });
        head.request_line = line;
        self.push_cookies(head);
        if !head.authority.is_empty() && !head.has(FieldName::Host) {
            let name = head.fields.store(b"host");
            head.push_stored(name, head.authority);
        }
        if is_websocket {
            head.push(b"upgrade", b"websocket");
            head.push(b"connection", b"Upgrade");
        }
    }

    fn push_cookies(&mut self, head: &mut RequestHead) {
        let Some(&first) = self.cookies.first() else { return };
        let mut whole = first;
        if self.cookies.len() > 1 {
            let crumbs = std::mem::take(&mut self.cookies);
            let (joined, ()) = head.fields.store_with(|text| {
                for (at, &crumb) in crumbs.iter().enumerate() {
                    if at > 0 {
                        text.extend_from_slice(b"; ");
                    }
                    text.extend_from_within(range(crumb));
                }
            });
            whole = joined;
        }
        let name = head.fields.store(b"cookie");
        head.push_stored(name, whole);
    }

    fn apply_rules(
        &self,
        is_without_body: bool,
        limits: &HeadLimits,
        head: &mut RequestHead,
    ) -> Result<(), RequestError> {
        let bad = |message| Err(RequestError::line(Status::BAD_REQUEST, message));
        if !h1::is_method(head.text(head.method_text)) {
            return bad("client sent invalid method");
        }
        if head.target() == b"*" {
            return bad("client sent invalid request");
        }
        match head.field(FieldName::Host) {
            None => return bad("client sent neither \":authority\" nor \"Host\" header"),
            Some(host) => {
                let authority = head.text(head.authority);
                if !authority.is_empty() && !authority.eq_ignore_ascii_case(host) {
                    return bad("client sent \":authority\" and \"Host\" headers that differ");
                }
            }
        }
        h1::apply_rules(head, limits, |head| framing(is_without_body, head))
    }
}

fn framing(is_without_body: bool, head: &RequestHead) -> Result<RequestFraming, RequestError> {
    let Some(value) = head.field(FieldName::ContentLength) else {
        return Ok(if is_without_body { RequestFraming::None } else { RequestFraming::Streamed });
    };
    let length = h1::parse_length(value).ok_or_else(|| {
        RequestError::fields(Status::BAD_REQUEST, "client sent invalid \"Content-Length\" header")
    })?;
    Ok(if is_without_body { RequestFraming::None } else { RequestFraming::Length(length) })
}

fn range(span: Span) -> std::ops::Range<usize> {
    span.start as usize..span.end as usize
}
