//! Sending on streams: whose turn it is, how much, and the frames around it. For both sides.

use crate::message::{FieldName, Fields};

use super::abuse::Limit;
use super::core::{Core, Side};
use super::error::ErrorCode;
use super::field_rules;
use super::frame::{self, Frame, FrameHeader, FrameKind, flags};
use super::hpack::{Encoder, Indexing};
use super::stream::{HeadSent, State, StreamKey};

/// Most bytes that a stream gets in one turn: two frames of the usual size.
pub const TURN_BYTES: usize = 2 * frame::DEFAULT_MAX_FRAME_SIZE as usize;

/// What `send_data_header` wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DataFrame {
    /// Bytes that are to follow the header; 0 where there is no room, and no header.
    pub length: usize,
    /// The frame ends the stream. Where that was asked for and is not so, an empty `send_data` does it behind the bytes.
    pub has_ended: bool,
}

impl Core {
    /// How many bytes of content may be sent on a stream now.
    pub fn room(&self, key: StreamKey) -> usize {
        match self.streams.get(key) {
            Some(stream) if may_send(stream.head_sent, stream.state) => {
                stream.send_window.available().min(self.send_window.available())
            }
            _ => 0,
        }
    }

    /// The caller has content for a stream, or has none for now.
    pub fn set_has_data(&mut self, key: StreamKey, has_data: bool) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        if has_data && may_send(stream.head_sent, stream.state) {
            stream.has_data = true;
            let (id, priority) = (stream.id, stream.priority);
            if stream.send_window.available() == 0 {
                self.watch_stalls();
            } else if !self.schedule.contains(key.slot) {
                self.schedule.insert(key.slot, id, priority);
            }
        } else if !has_data {
            stream.has_data = false;
            stream.stalled_ms = None;
            stream.is_standing = false;
            self.schedule.remove(key.slot);
        }
    }

    /// Sees to it that streams that wait for window do not do so for ever.
    pub fn watch_stalls(&mut self) {
        let due_ms = self.now_ms + self.config.first_look_ms();
        self.stall_check_ms = Some(self.stall_check_ms.map_or(due_ms, |check_ms| check_ms.min(due_ms)));
    }

    /// Whose turn it is, and how much it may send.
    pub fn next_turn(&mut self) -> Option<(StreamKey, usize)> {
        let slot = self.schedule.first()?;
        let connection = self.send_window.available();
        if connection == 0 {
            self.watch_stalls();
            return None;
        }
        let stream = self.streams.by_slot(slot)?;
        let room = stream.send_window.available().min(connection).min(TURN_BYTES);
        debug_assert!(room > 0, "a stream without a window has no turn");
        Some((StreamKey { slot, id: stream.id }, room))
    }

    /// Appends DATA frames with as much of `data` as there is room for, and says how much that was. The stream is ended
    /// with it if all of it went.
    pub fn send_data(&mut self, key: StreamKey, data: &[u8], ends: bool, out: &mut Vec<u8>) -> usize {
        let length = data.len().min(self.room(key));
        let mut rest = &data[..length];
        let max = self.peer.max_frame_size as usize;
        while rest.len() > max {
            let (piece, behind) = rest.split_at(max);
            self.send_frame(key, piece.len(), false, out);
            out.extend_from_slice(piece);
            rest = behind;
        }
        let ends = ends && length == data.len();
        if rest.is_empty() && !ends {
            return length;
        }
        let state = self.send_frame(key, rest.len(), ends, out);
        out.extend_from_slice(rest);
        // Only behind the whole frame: other frames may follow.
        if let Some(state) = state
            && ends
        {
            self.end_sent(key, state, out);
        }
        length
    }

    /// Appends the header of one DATA frame for up to `length` bytes, which the caller appends.
    pub fn send_data_header(
        &mut self,
        key: StreamKey,
        length: usize,
        ends: bool,
        out: &mut Vec<u8>,
    ) -> DataFrame {
        let taken = length.min(self.room(key)).min(self.peer.max_frame_size as usize);
        let Some(stream) = self.streams.get(key) else { return DataFrame::default() };
        // Nothing else may have to be said right behind the header.
        let is_quiet = stream.state == State::HalfClosedRemote && stream.held == 0;
        let ends = ends && taken == length && taken > 0 && is_quiet;
        if taken > 0
            && let Some(state) = self.send_frame(key, taken, ends, out)
            && ends
        {
            self.end_sent(key, state, out);
        }
        DataFrame { length: taken, has_ended: ends }
    }

    /// Appends a frame's header and accounts for its payload, which is to follow; the stream's state after it.
    fn send_frame(&mut self, key: StreamKey, length: usize, ends: bool, out: &mut Vec<u8>) -> Option<State> {
        let stream = self.streams.get_mut(key)?;
        let sent = if ends { stream.state.send_end() } else { stream.state.send_data() };
        if stream.head_sent != HeadSent::Final {
            return None;
        }
        let state = sent.ok()?;
        let header = FrameHeader {
            length: length as u32,
            kind: FrameKind::Data,
            flags: if ends { flags::END_STREAM } else { 0 },
            stream: key.id,
        };
        out.extend_from_slice(&header.bytes());
        stream.send_window.take(length);
        self.send_window.take(length);
        self.content_sent += length as u64;
        self.content_sent_ms = self.now_ms;
        self.abuse.allow(Limit::WindowUpdates, 3);
        stream.stalled_ms = None;
        stream.is_standing = false;
        let (has_window, priority) = (stream.send_window.available() > 0, stream.priority);
        self.schedule.had_turn(key.slot, key.id, priority);
        if ends {
            self.set_has_data(key, false);
        } else if !has_window {
            self.schedule.remove(key.slot);
            self.watch_stalls();
        }
        Some(state)
    }

    /// This side has ended a stream.
    pub fn end_sent(&mut self, key: StreamKey, state: State, out: &mut Vec<u8>) {
        self.set_state(key, state, out);
        self.abuse.allow(Limit::RapidReset, 1);
        let Some(stream) = self.streams.get(key) else { return };
        // What is still to come of a request is of no use to anyone once it is answered (RFC 9113 section 8.1).
        if self.side == Side::Server && !stream.is_tunnel && state == State::HalfClosedLocal {
            self.send_reset(key, ErrorCode::NO_ERROR, out);
        }
    }

    /// Gives a stream up.
    pub fn send_reset(&mut self, key: StreamKey, code: ErrorCode, out: &mut Vec<u8>) {
        if let Some(stream) = self.streams.get(key) {
            if self.side == Side::Client {
                let available = stream.receive_window.available();
                self.on_the_way = self.on_the_way.saturating_add(u64::try_from(available).unwrap_or(0));
            }
            self.remove(key, out);
            self.reset_here.add(key.id);
            Frame::Reset { stream: key.id, code }.write(out);
        } else {
            // It may be lost already without that having been told: whoever gives a stream up hears no more of it.
            self.lost.retain(|(lost, _)| *lost != key);
        }
    }

    /// Ends a stream with a trailer section. Nothing is sent for a stream that can't have one any more.
    pub fn send_trailers(&mut self, key: StreamKey, fields: &Fields, out: &mut Vec<u8>) {
        let Some(stream) = self.streams.get(key) else { return };
        let Ok(state) = stream.state.send_end() else { return };
        if stream.head_sent != HeadSent::Final {
            return;
        }
        if fields.is_empty() {
            self.send_data(key, b"", true, out);
            return;
        }
        let start = frame::begin_block(out);
        self.encoder.begin(out);
        encode_lines(&mut self.encoder, fields, out);
        frame::end_block(start, key.id, true, self.peer.max_frame_size, out);
        self.set_has_data(key, false);
        self.end_sent(key, state, out);
    }
}

fn may_send(head_sent: HeadSent, state: State) -> bool {
    head_sent == HeadSent::Final && state.send_data().is_ok()
}

/// Appends lines, but for those that speak of a connection (RFC 9113 section 8.2.2) and those that can't be sent.
pub(super) fn encode_lines(encoder: &mut Encoder, fields: &Fields, out: &mut Vec<u8>) {
    for (field, name, value) in fields.iter() {
        encode_line(encoder, field.id, name, value, out);
    }
}

/// Appends one line, if it may be sent.
pub(super) fn encode_line(
    encoder: &mut Encoder,
    id: FieldName,
    name: &[u8],
    value: &[u8],
    out: &mut Vec<u8>,
) {
    if encoder.again(id, value, out) {
        return;
    }
    if field_rules::is_of_connection(id) {
        return;
    }
    if id == FieldName::Te && !value.eq_ignore_ascii_case(b"trailers") {
        return;
    }
    let mut scratch = Vec::new();
    let value = field_rules::clean(value, &mut scratch);
    if id != FieldName::Other {
        encoder.known(id, value, indexing(id), out);
    } else if field_rules::is_name(name) {
        encoder.field(name, value, indexing(id), out);
    }
}

/// What is a secret goes into no table.
fn indexing(id: FieldName) -> Indexing {
    match id {
        FieldName::Cookie
        | FieldName::SetCookie
        | FieldName::Authorization
        | FieldName::ProxyAuthorization => Indexing::Never,
        _ => Indexing::Repeated,
    }
}
