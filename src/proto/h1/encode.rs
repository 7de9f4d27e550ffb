//! Response heads as bytes, in nginx's order.

use crate::message::{FieldName, Fields, ResponseFraming, ResponseHead, Status, Version};

/// What the engine and the shell know about a response beside its head.
#[derive(Clone, Copy, Debug)]
pub struct RespondOptions<'a> {
    /// The value of `Date`; left out where the head has a `Date` line of its own.
    pub date: &'a [u8; 29],
    /// Whether the connection may live on, as far as the server is concerned (`keepalive_timeout`, `keepalive_requests`,
    /// `keepalive_disable`, shutdown, the kind of error).
    pub keep_alive_allowed: bool,
    /// Seconds for the `Keep-Alive: timeout=` field, if it is configured.
    pub keep_alive_header: Option<u32>,
    /// `chunked_transfer_encoding`.
    pub chunked_allowed: bool,
    /// Trailer fields will follow: the body is chunked even where its length is known.
    pub trailers_expected: bool,
    /// A 101 response, or a 200 to CONNECT: raw bytes follow the head.
    pub upgrade: bool,
}

/// Appends an interim response without fields, `100 Continue` or `102`; nothing for clients before HTTP/1.1.
pub fn interim(status: Status, out: &mut Vec<u8>) {
    status_line(status, None, out);
    out.extend_from_slice(b"\r\n");
}

/// Appends an interim response with the fields that an upstream gave it (103, RFC 8297), but for those of a connection.
pub fn interim_with(status: Status, fields: &Fields, out: &mut Vec<u8>) {
    status_line(status, None, out);
    for (field, name, value) in fields.iter() {
        if !is_of_connection(field.id) {
            out.extend_from_slice(name);
            out.extend_from_slice(b": ");
            end_line(value, out);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Fields that speak of a connection or of a body, which an interim response has none of.
fn is_of_connection(id: FieldName) -> bool {
    matches!(
        id,
        FieldName::Connection
            | FieldName::KeepAlive
            | FieldName::TransferEncoding
            | FieldName::ContentLength
            | FieldName::Upgrade
            | FieldName::Trailer
            | FieldName::ProxyConnection
            | FieldName::Te
    )
}

/// How the body of this response is framed (RFC 9112 section 6.3).
pub(super) fn response_framing(
    version: Version,
    is_head: bool,
    response: &ResponseHead,
    options: &RespondOptions<'_>,
) -> ResponseFraming {
    if options.upgrade {
        return ResponseFraming::UntilClose;
    }
    if is_head || response.status.forbids_content() {
        return ResponseFraming::None;
    }
    let can_chunk = version == Version::Http11 && options.chunked_allowed;
    match response.content_length {
        Some(length) if !(options.trailers_expected && can_chunk) => ResponseFraming::Length(length),
        _ if can_chunk => ResponseFraming::Streamed,
        _ => ResponseFraming::UntilClose,
    }
}

/// Appends the head: status line, slots, framing and connection fields, ETag, lines, Accept-Ranges.
pub(super) fn response_head(
    response: &ResponseHead,
    framing: ResponseFraming,
    persists: bool,
    options: &RespondOptions<'_>,
    out: &mut Vec<u8>,
) {
    let status = response.status;
    status_line(status, response.reason.map(|span| response.text(span)), out);
    if let Some(server) = response.server {
        line(b"Server: ", response.text(server), out);
    }
    if !response.fields.list().iter().any(|field| field.id == FieldName::Date) {
        line(b"Date: ", options.date, out);
    }
    if status.0 != 204
        && let Some(content_type) = response.content_type
    {
        line(b"Content-Type: ", response.text(content_type), out);
    }
    content_length(response, framing, out);
    // nginx says when content changed only where there is content to speak of.
    if matches!(status.0, 200 | 206 | 304)
        && let Some(text) = response.last_modified_text
    {
        line(b"Last-Modified: ", response.text(text), out);
    }
    if let Some(location) = response.location {
        out.extend_from_slice(b"Location: ");
        end_line(response.text(location), out);
    }
    if framing == ResponseFraming::Streamed {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    connection(status == Status::SWITCHING_PROTOCOLS, persists, options, out);
    if let Some(etag) = response.etag {
        line(b"ETag: ", response.text(etag), out);
    }
    for (_, name, value) in response.fields.iter() {
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        end_line(value, out);
    }
    if response.accept_ranges {
        out.extend_from_slice(b"Accept-Ranges: bytes\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

fn content_length(response: &ResponseHead, framing: ResponseFraming, out: &mut Vec<u8>) {
    // A response to HEAD keeps the length that GET would have had; 1xx and 204 must have none (RFC 9110 section 8.6).
    if framing == ResponseFraming::Streamed || response.status.0 < 200 || response.status.0 == 204 {
        return;
    }
    match (response.content_length, response.content_length_text) {
        (Some(_), Some(text)) => line(b"Content-Length: ", response.text(text), out),
        (Some(length), None) => {
            line(b"Content-Length: ", itoa::Buffer::new().format(length).as_bytes(), out);
        }
        (None, _) => {}
    }
}

fn connection(switches: bool, persists: bool, options: &RespondOptions<'_>, out: &mut Vec<u8>) {
    if options.upgrade {
        // Behind a 200 to CONNECT nothing is upgraded: there is no HTTP any more.
        if switches {
            out.extend_from_slice(b"Connection: upgrade\r\n");
        }
    } else if persists {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
        if let Some(seconds) = options.keep_alive_header {
            line(b"Keep-Alive: timeout=", itoa::Buffer::new().format(seconds).as_bytes(), out);
        }
    } else {
        out.extend_from_slice(b"Connection: close\r\n");
    }
}

fn status_line(status: Status, reason: Option<&[u8]>, out: &mut Vec<u8>) {
    if status == Status::OK && reason.is_none() {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    // nginx's own codes for heads and certificates never reach the wire.
    let status = if matches!(status.0, 494..=497) { Status::BAD_REQUEST } else { status };
    let code = status.0.clamp(100, 999);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(code).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason.unwrap_or_else(|| status.reason().unwrap_or("").as_bytes()));
    out.extend_from_slice(b"\r\n");
}

fn line(name_and_colon: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name_and_colon);
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Ends a line with a value that may come from a request (`add_header X $uri`, `return 301 ...$arg_a`): CR, LF and NUL
/// become spaces (RFC 9110 section 5.5), so that no client writes lines into its response, or a response of its own.
pub(super) fn end_line(value: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(value);
    if memchr::memchr3(b'\r', b'\n', 0, value).is_some() {
        for byte in &mut out[start..] {
            if matches!(*byte, b'\r' | b'\n' | 0) {
                *byte = b' ';
            }
        }
    }
    out.extend_from_slice(b"\r\n");
}
