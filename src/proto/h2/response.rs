//! Response heads to field blocks, in the order that HTTP/1 has here.

use crate::message::{FieldName, Fields, ResponseFraming, ResponseHead, Status};
use crate::proto::h1::RespondOptions;

use super::core::Core;
use super::frame;
use super::hpack::Encoder;
use super::sending::{encode_line, encode_lines};
use super::stream::{HeadSent, StreamKey};

/// Appends an interim response.
pub(super) fn interim(
    core: &mut Core,
    key: StreamKey,
    status: Status,
    fields: Option<&Fields>,
    out: &mut Vec<u8>,
) {
    let Some(stream) = core.streams.get(key) else { return };
    // 101 has no meaning here (RFC 9113 section 8.6).
    let is_interim = (100..200).contains(&status.0) && status != Status::SWITCHING_PROTOCOLS;
    if !is_interim || stream.head_sent != HeadSent::None || stream.state.send_data().is_err() {
        return;
    }
    let start = frame::begin_block(out);
    core.encoder.begin(out);
    core.encoder.status(status.0, out);
    if let Some(fields) = fields {
        for (field, name, value) in fields.iter() {
            if !matches!(field.id, FieldName::ContentLength | FieldName::Trailer | FieldName::Te) {
                encode_line(&mut core.encoder, field.id, name, value, out);
            }
        }
    }
    frame::end_block(start, key.id, false, core.peer.max_frame_size, out);
}

/// Appends a final head.
pub(super) fn respond(
    core: &mut Core,
    key: StreamKey,
    head: &ResponseHead,
    options: &RespondOptions<'_>,
    out: &mut Vec<u8>,
) -> Option<ResponseFraming> {
    let stream = core.streams.get_mut(key)?;
    if stream.head_sent != HeadSent::None {
        return None;
    }
    let status = wire_status(head.status, stream.is_tunnel, options.upgrade);
    let is_tunnel = stream.is_tunnel && options.upgrade && status == Status::OK;
    let framing = framing(head, is_tunnel, stream.is_head, options);
    let ends = framing == ResponseFraming::None;
    let state = stream.state.send_headers(ends).ok()?;
    stream.head_sent = HeadSent::Final;
    stream.is_tunnel = is_tunnel;
    let start = frame::begin_block(out);
    core.encoder.begin(out);
    encode_head(&mut core.encoder, status, head, is_tunnel, options, out);
    frame::end_block(start, key.id, ends, core.peer.max_frame_size, out);
    if ends {
        core.end_sent(key, state, out);
    }
    Some(framing)
}

fn framing(
    head: &ResponseHead,
    is_tunnel: bool,
    is_head: bool,
    options: &RespondOptions<'_>,
) -> ResponseFraming {
    if is_tunnel {
        return ResponseFraming::Streamed;
    }
    if is_head || head.status.forbids_content() {
        return ResponseFraming::None;
    }
    match head.content_length {
        Some(0) if !options.trailers_expected => ResponseFraming::None,
        Some(length) => ResponseFraming::Length(length),
        None => ResponseFraming::Streamed,
    }
}

/// The status as it is sent. `upgrade` says that bytes follow the head.
fn wire_status(status: Status, is_tunnel: bool, upgrade: bool) -> Status {
    match status.0 {
        494..=497 => Status::BAD_REQUEST,
        101 if is_tunnel && upgrade => Status::OK,
        // Nothing that was asked for: there is no such answer in HTTP/2.
        101 => Status::BAD_GATEWAY,
        200..=299 if is_tunnel && !upgrade => Status::NOT_IMPLEMENTED,
        code => Status(code.clamp(200, 999)),
    }
}

fn encode_head(
    encoder: &mut Encoder,
    status: Status,
    head: &ResponseHead,
    is_tunnel: bool,
    options: &RespondOptions<'_>,
    out: &mut Vec<u8>,
) {
    encoder.status(status.0, out);
    let mut slot = |id: FieldName, value: &[u8]| {
        encode_line(encoder, id, id.as_str().as_bytes(), value, out);
    };
    if let Some(server) = head.server {
        slot(FieldName::Server, head.text(server));
    }
    if !head.fields.list().iter().any(|field| field.id == FieldName::Date) {
        slot(FieldName::Date, options.date);
    }
    if status.0 != 204
        && let Some(content_type) = head.content_type
    {
        slot(FieldName::ContentType, head.text(content_type));
    }
    // A response to HEAD keeps the length that GET would have had; 204 and a tunnel have none (RFC 9110 section 8.6).
    if status.0 != 204 && !is_tunnel {
        match (head.content_length, head.content_length_text) {
            (Some(_), Some(text)) => slot(FieldName::ContentLength, head.text(text)),
            (Some(length), None) => {
                slot(FieldName::ContentLength, itoa::Buffer::new().format(length).as_bytes());
            }
            (None, _) => {}
        }
    }
    // nginx says when content changed only where there is content to speak of.
    if matches!(status.0, 200 | 206 | 304)
        && let Some(text) = head.last_modified_text
    {
        slot(FieldName::LastModified, head.text(text));
    }
    if let Some(location) = head.location {
        slot(FieldName::Location, head.text(location));
    }
    if let Some(etag) = head.etag {
        slot(FieldName::Etag, head.text(etag));
    }
    if is_tunnel {
        // It answers a key that the client never sent (RFC 8441 section 5).
        for (field, name, value) in head.fields.iter() {
            if !name.eq_ignore_ascii_case(b"sec-websocket-accept") {
                encode_line(encoder, field.id, name, value, out);
            }
        }
    } else {
        encode_lines(encoder, &head.fields, out);
    }
    if head.accept_ranges {
        encode_line(encoder, FieldName::AcceptRanges, b"accept-ranges", b"bytes", out);
    }
}
