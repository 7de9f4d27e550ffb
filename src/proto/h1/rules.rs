//! What a request head must hold, beyond its syntax: Host, framing, fields that may come once only.

use crate::message::{Field, FieldName, Method, RequestFraming, RequestHead, Status, Version, validate_host};

use super::error::RequestError;
use super::limits::HeadLimits;

/// Fields whose repetition would make two readers of one request disagree; nginx refuses it.
const UNIQUE: u64 = bit(FieldName::Host)
    | bit(FieldName::ContentLength)
    | bit(FieldName::TransferEncoding)
    | bit(FieldName::Authorization)
    | bit(FieldName::Expect)
    | bit(FieldName::IfMatch)
    | bit(FieldName::IfModifiedSince)
    | bit(FieldName::IfNoneMatch)
    | bit(FieldName::IfRange)
    | bit(FieldName::IfUnmodifiedSince)
    | bit(FieldName::ContentRange);

const _: () = assert!(FieldName::COUNT < 64, "known names no longer fit in one word");

const fn bit(id: FieldName) -> u64 {
    1 << id as u32
}

fn bad(message: &'static str) -> RequestError {
    RequestError::fields(Status::BAD_REQUEST, message)
}

/// Checks a head whose lines are filled in, and derives host, framing and expectation.
pub(super) fn apply(head: &mut RequestHead, limits: &HeadLimits) -> Result<(), RequestError> {
    apply_rules(head, limits, framing)
}

/// The same for any version; `framing` says how the body ends.
pub(in crate::proto) fn apply_rules(
    head: &mut RequestHead,
    limits: &HeadLimits,
    framing: impl FnOnce(&RequestHead) -> Result<RequestFraming, RequestError>,
) -> Result<(), RequestError> {
    no_duplicates(head)?;
    find_host(head)?;
    if head.version == Version::Http09 {
        return Ok(());
    }
    head.framing = framing(head)?;
    let refused = match head.method {
        Method::Trace => Some("client sent TRACE method"),
        Method::Connect if !limits.allow_connect => Some("client sent CONNECT method"),
        _ => None,
    };
    if let Some(message) = refused {
        return Err(RequestError::fields(Status::METHOD_NOT_ALLOWED, message));
    }
    if head.method == Method::Connect && head.framing != RequestFraming::None {
        return Err(bad("client sent CONNECT request with a body"));
    }
    // Other expectations are let pass, as nginx does.
    head.expects_continue = head.version >= Version::Http11
        && head.framing != RequestFraming::None
        && head.field(FieldName::Expect).is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"));
    Ok(())
}

fn no_duplicates(head: &RequestHead) -> Result<(), RequestError> {
    let mut seen = 0u64;
    for field in head.fields.list() {
        let bit = bit(field.id);
        if seen & bit & UNIQUE != 0 {
            return Err(duplicate(head, field));
        }
        seen |= bit;
    }
    Ok(())
}

fn duplicate(head: &RequestHead, field: &Field) -> RequestError {
    let lines = head.fields.list();
    let previous = lines.iter().find(|other| other.id == field.id).unwrap_or(field);
    let name = head.text(field.name);
    let text = [
        name,
        b": ",
        head.text(field.value),
        b"\", previous value: \"",
        head.text(previous.name),
        b": ",
        head.text(previous.value),
    ];
    let what = if field.id == FieldName::Host {
        "client sent duplicate host header"
    } else {
        "client sent duplicate header line"
    };
    RequestError::quoting(Status::BAD_REQUEST, what, &text.concat())
}

fn find_host(head: &mut RequestHead) -> Result<(), RequestError> {
    let field = match head.field(FieldName::Host) {
        None if head.version >= Version::Http11 => {
            return Err(bad("client sent HTTP/1.1 request without \"Host\" header"));
        }
        None => None,
        Some(value) => Some(validate_host(value).ok_or_else(|| bad("client sent invalid host header"))?),
    };
    // HTTP/2's `:authority` is the Host field too, unless there is another one.
    let span = head.field_span(FieldName::Host);
    let (base, host) = if head.authority.is_empty() || head.authority == span {
        let Some(host) = field else { return Ok(()) };
        (span.start, host)
    } else {
        let host = validate_host(head.text(head.authority)).ok_or_else(|| {
            RequestError::line(Status::BAD_REQUEST, "client sent invalid host in request line")
        })?;
        (head.authority.start, host)
    };
    head.host.start = base + host.name.start as u32;
    head.host.end = base + host.name.end as u32;
    head.host_port = host.port;
    if host.has_upper_case {
        let name = head.host;
        let (lower, ()) = head.fields.store_with(|text| {
            let start = text.len();
            text.extend_from_within(name.start as usize..name.end as usize);
            text[start..].make_ascii_lowercase();
        });
        head.host = lower;
    }
    Ok(())
}

/// RFC 9112 section 6.3, with every doubtful case refused rather than guessed at.
fn framing(head: &RequestHead) -> Result<RequestFraming, RequestError> {
    let length = match head.field(FieldName::ContentLength) {
        None => None,
        Some(value) => {
            Some(parse_length(value).ok_or_else(|| bad("client sent invalid \"Content-Length\" header"))?)
        }
    };
    let Some(coding) = head.field(FieldName::TransferEncoding) else {
        return Ok(match length {
            None | Some(0) => RequestFraming::None,
            Some(length) => RequestFraming::Length(length),
        });
    };
    if head.version < Version::Http11 {
        return Err(bad("client sent HTTP/1.0 request with \"Transfer-Encoding\" header"));
    }
    if !coding.eq_ignore_ascii_case(b"chunked") {
        return Err(RequestError::quoting(
            Status::NOT_IMPLEMENTED,
            "client sent unknown \"Transfer-Encoding\"",
            coding,
        ));
    }
    if length.is_some() {
        return Err(bad("client sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time"));
    }
    Ok(RequestFraming::Streamed)
}

/// Digits only, up to a signed 64-bit number as nginx has it.
pub(in crate::proto) fn parse_length(value: &[u8]) -> Option<u64> {
    let mut length: u64 = 0;
    if value.is_empty() {
        return None;
    }
    for digit in value {
        if !digit.is_ascii_digit() {
            return None;
        }
        length = length.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
    }
    (length <= i64::MAX as u64).then_some(length)
}

/// Whether the Connection fields hold `close`, and `keep-alive`.
pub(super) fn connection_tokens(head: &RequestHead) -> (bool, bool) {
    if !head.has(FieldName::Connection) {
        return (false, false);
    }
    let mut tokens = (false, false);
    for value in head.fields.all(FieldName::Connection) {
        add_connection_tokens(value, &mut tokens);
    }
    tokens
}

/// Notes `close` (first) and `keep-alive` (second) of one Connection field.
pub(super) fn add_connection_tokens(value: &[u8], tokens: &mut (bool, bool)) {
    for token in value.split(|&byte| byte == b',') {
        let token = token.trim_ascii();
        tokens.0 |= token.eq_ignore_ascii_case(b"close");
        tokens.1 |= token.eq_ignore_ascii_case(b"keep-alive");
    }
}
