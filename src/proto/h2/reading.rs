//! Taking frames apart as they come: nothing is kept but the part of a frame that can't be done without.

use super::abuse::Limit;
use super::core::{Block, Core, Inbound, KEPT_MEMORY};
use super::error::{ConnectionError, ErrorCode, StreamError};
use super::frame::{self, Frame, FrameHeader, FrameKind, HEADER_LENGTH, PayloadError, flags};
use super::stream::{HeadReceived, StreamKey};

/// Where in the peer's bytes this is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reading {
    /// So many bytes of the client's preface came.
    Preface(usize),
    /// Before or within a frame's header.
    Header,
    /// Within a payload that is taken whole.
    Payload(FrameHeader),
    /// Before the byte that says how much padding a DATA frame has.
    DataPadding(FrameHeader, Option<StreamKey>),
    /// Within DATA: `left` bytes of content and `padding` bytes behind it. Without a stream it is dropped.
    Data { key: Option<StreamKey>, left: u32, padding: u32, ends: bool },
    /// Within a payload without meaning.
    Skip(u32),
    /// The connection is broken.
    Dead,
}

impl Core {
    /// Takes the next thing from the front of `input`.
    pub fn next<'a>(
        &mut self,
        input: &mut &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<Inbound<'a>, ConnectionError> {
        if let Some((key, loss)) = self.lost.pop_front() {
            return Ok(Inbound::Lost { key, loss });
        }
        loop {
            let found = match self.reading {
                Reading::Dead => return Ok(Inbound::Closed),
                Reading::Preface(matched) => self.read_preface(matched, input)?,
                Reading::Header => self.read_header(input, out)?,
                Reading::Payload(header) => self.read_payload(header, input, out)?,
                Reading::DataPadding(header, key) => self.read_padding_length(header, key, input, out)?,
                Reading::Data { key, left, padding, ends } => {
                    self.read_data((key, left, padding, ends), input, out)?
                }
                Reading::Skip(left) => {
                    let taken = take(input, left).len() as u32;
                    self.reading = if taken == left { Reading::Header } else { Reading::Skip(left - taken) };
                    if taken == left { Step::Again } else { Step::NeedMore }
                }
            };
            match found {
                Step::Again => {}
                Step::NeedMore => return Ok(Inbound::NeedMore),
                Step::Found(inbound) => return Ok(inbound),
            }
        }
    }

    fn read_preface<'a>(
        &mut self,
        matched: usize,
        input: &mut &'a [u8],
    ) -> Result<Step<'a>, ConnectionError> {
        let expected = &frame::PREFACE[matched..];
        let came = take(input, expected.len() as u32);
        if came != &expected[..came.len()] {
            return Err(ConnectionError::protocol("client sent an invalid connection preface"));
        }
        let matched = matched + came.len();
        if matched < frame::PREFACE.len() {
            self.reading = Reading::Preface(matched);
            return Ok(Step::NeedMore);
        }
        self.reading = Reading::Header;
        Ok(Step::Again)
    }

    fn read_header<'a>(
        &mut self,
        input: &mut &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<Step<'a>, ConnectionError> {
        let header = if self.partial.is_empty()
            && let Some((bytes, rest)) = input.split_first_chunk::<HEADER_LENGTH>()
        {
            *input = rest;
            FrameHeader::parse(bytes)
        } else {
            self.partial.extend_from_slice(take(input, (HEADER_LENGTH - self.partial.len()) as u32));
            let Some(bytes) = self.partial.first_chunk::<HEADER_LENGTH>() else { return Ok(Step::NeedMore) };
            let header = FrameHeader::parse(bytes);
            self.partial.clear();
            header
        };
        if !self.has_peer_settings && (header.kind != FrameKind::Settings || header.has(flags::ACK)) {
            return Err(ConnectionError::protocol("peer's first frame is not SETTINGS"));
        }
        header.check(self.config.max_frame_size)?;
        self.check_block_order(&header)?;
        match header.kind {
            FrameKind::Data => self.begin_data(header, out),
            FrameKind::Unknown(_) => {
                self.abuse.note(Limit::IgnoredFrames, self.now_ms)?;
                self.reading = Reading::Skip(header.length);
                Ok(Step::Again)
            }
            _ => {
                self.reading = Reading::Payload(header);
                Ok(Step::Again)
            }
        }
    }

    /// A field block is not interrupted by any other frame (RFC 9113 section 4.3).
    fn check_block_order(&mut self, header: &FrameHeader) -> Result<(), ConnectionError> {
        let is_continuation = header.kind == FrameKind::Continuation;
        match self.open_block {
            None if is_continuation => {
                Err(ConnectionError::protocol("peer sent a CONTINUATION frame that continues nothing"))
            }
            Some(open) if !is_continuation || open.stream != header.stream => {
                Err(ConnectionError::protocol("peer interrupted a field block"))
            }
            Some(_) => {
                self.abuse.note(Limit::Continuations, self.now_ms)?;
                if self.block.len() + header.length as usize > self.config.block_bytes as usize {
                    return Err(self.abuse.reached(Limit::BlockBytes));
                }
                if header.length == 0 && !header.has(flags::END_HEADERS) {
                    self.abuse.note(Limit::EmptyFrames, self.now_ms)?;
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn read_payload<'a>(
        &mut self,
        header: FrameHeader,
        input: &mut &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<Step<'a>, ConnectionError> {
        let length = header.length as usize;
        if self.partial.is_empty()
            && let Some((payload, rest)) = input.split_at_checked(length)
        {
            *input = rest;
            self.reading = Reading::Header;
            return match parse(&header, payload)? {
                Parsed::Frame(Frame::Headers { stream, ends, whole: true, fragment }) => {
                    Ok(Step::Found(Inbound::Headers { stream, ends, block: Block::Input(fragment) }))
                }
                Parsed::Frame(frame) => self.handle(frame, out),
                Parsed::BrokenPriority => Ok(self.break_priority(&header, out)?),
            };
        }
        self.partial.extend_from_slice(take(input, (length - self.partial.len()) as u32));
        if self.partial.len() < length {
            return Ok(Step::NeedMore);
        }
        self.reading = Reading::Header;
        let mut payload = std::mem::take(&mut self.partial);
        let step = match parse(&header, &payload) {
            Err(error) => Err(error),
            Ok(Parsed::Frame(frame)) => self.handle(frame, out),
            Ok(Parsed::BrokenPriority) => self.break_priority(&header, out),
        };
        if payload.capacity() <= KEPT_MEMORY {
            payload.clear();
            self.partial = payload;
        }
        step
    }

    fn begin_data<'a>(
        &mut self,
        header: FrameHeader,
        out: &mut Vec<u8>,
    ) -> Result<Step<'a>, ConnectionError> {
        if header.length == 0 && !header.has(flags::END_STREAM) {
            self.abuse.note(Limit::EmptyFrames, self.now_ms)?;
        }
        self.receive_window
            .receive(header.length)
            .map_err(|_| ConnectionError::flow("peer sent more DATA than the connection's window"))?;
        let id = header.stream;
        let Some(key) = self.streams.key(id) else {
            if self.is_idle(id) {
                return Err(ConnectionError::protocol("peer sent DATA on an idle stream"));
            }
            let is_ignored = self.reset_here.may_contain(id);
            if !is_ignored {
                return Err(ConnectionError::new(
                    ErrorCode::STREAM_CLOSED,
                    "peer sent DATA on a closed stream",
                ));
            }
            // What an honest server has sent by then comes in frames of any size.
            let length = u64::from(header.length);
            match self.on_the_way.checked_sub(length).filter(|_| length > 0) {
                Some(left) => self.on_the_way = left,
                None => self.abuse.note(Limit::IgnoredFrames, self.now_ms)?,
            }
            self.set_data(header, None);
            return Ok(Step::Again);
        };
        let Some(stream) = self.streams.get_mut(key) else { return Ok(Step::Again) };
        let error = if stream.state.receive_data().is_err() {
            Some(StreamError::new(ErrorCode::STREAM_CLOSED, "peer sent DATA behind the end of its stream"))
        } else if stream.head_received == HeadReceived::None {
            Some(StreamError::malformed("peer sent DATA before a final head"))
        } else if stream.receive_window.receive(header.length).is_err() {
            let reason = "peer sent more DATA than a stream's window";
            Some(StreamError::new(ErrorCode::FLOW_CONTROL_ERROR, reason))
        } else {
            None
        };
        match error {
            None => {
                self.set_data(header, Some(key));
                Ok(Step::Again)
            }
            Some(error) => {
                self.set_data(header, None);
                self.break_stream(key, error, out)
            }
        }
    }

    fn set_data(&mut self, header: FrameHeader, key: Option<StreamKey>) {
        self.reading = if header.has(flags::PADDED) {
            Reading::DataPadding(header, key)
        } else {
            let ends = header.has(flags::END_STREAM);
            Reading::Data { key, left: header.length, padding: 0, ends }
        };
    }

    fn read_padding_length<'a>(
        &mut self,
        header: FrameHeader,
        key: Option<StreamKey>,
        input: &mut &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<Step<'a>, ConnectionError> {
        if header.length == 0 {
            return Err(ConnectionError::size("peer sent a padded frame without a padding length"));
        }
        let Some((&first, rest)) = input.split_first() else { return Ok(Step::NeedMore) };
        *input = rest;
        let padding = frame::padding(&header, first)?;
        let left = header.length - 1 - padding;
        if left == 0 && !header.has(flags::END_STREAM) {
            self.abuse.note(Limit::EmptyFrames, self.now_ms)?;
        }
        self.reading = Reading::Data { key, left, padding, ends: header.has(flags::END_STREAM) };
        // Nobody holds padding.
        self.give_back(key, padding + 1, out);
        Ok(Step::Again)
    }

    fn read_data<'a>(
        &mut self,
        (key, left, padding, ends): (Option<StreamKey>, u32, u32, bool),
        input: &mut &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<Step<'a>, ConnectionError> {
        // The caller may have reset the stream since its frame began.
        let key = key.filter(|key| self.streams.get(*key).is_some());
        if left > 0 {
            let data = take(input, left);
            let length = data.len() as u32;
            if length == 0 {
                return Ok(Step::NeedMore);
            }
            self.reading = Reading::Data { key, left: left - length, padding, ends };
            let Some(key) = key else {
                self.give_back(None, length, out);
                return Ok(Step::Again);
            };
            return self.take_data(key, data, left, out);
        }
        let skipped = take(input, padding).len() as u32;
        if skipped < padding {
            self.reading = Reading::Data { key, left, padding: padding - skipped, ends };
            return Ok(Step::NeedMore);
        }
        self.reading = Reading::Header;
        match key {
            Some(key) if ends => self.end_received(key, out),
            _ => Ok(Step::Again),
        }
    }

    /// Takes content; `frame_left` is what of its frame was outstanding before it.
    fn take_data<'a>(
        &mut self,
        key: StreamKey,
        data: &'a [u8],
        frame_left: u32,
        out: &mut Vec<u8>,
    ) -> Result<Step<'a>, ConnectionError> {
        let length = data.len() as u32;
        let Some(stream) = self.streams.get_mut(key) else { return Ok(Step::Again) };
        if let Some(expected) = &mut stream.expected {
            // All that its frame has counts: how it was cut on the way must not matter.
            if u64::from(frame_left) > *expected {
                self.give_back(None, length, out);
                let reason = "peer sent more content than its Content-Length";
                return self.break_stream(key, StreamError::malformed(reason), out);
            }
            *expected -= u64::from(length);
        }
        stream.held += length;
        Ok(Step::Found(Inbound::Data { key, data }))
    }

    /// END_STREAM came with DATA.
    fn end_received<'a>(&mut self, key: StreamKey, out: &mut Vec<u8>) -> Result<Step<'a>, ConnectionError> {
        let Some(stream) = self.streams.get_mut(key) else { return Ok(Step::Again) };
        if stream.expected.is_some_and(|expected| expected > 0) {
            let reason = "peer sent less content than its Content-Length";
            return self.break_stream(key, StreamError::malformed(reason), out);
        }
        let Ok(state) = stream.state.receive_end() else { return Ok(Step::Again) };
        self.set_state(key, state, out);
        Ok(Step::Found(Inbound::End { key }))
    }
}

/// Where reading goes from here.
#[derive(Debug)]
pub(super) enum Step<'a> {
    Again,
    NeedMore,
    Found(Inbound<'a>),
}

enum Parsed<'a> {
    Frame(Frame<'a>),
    BrokenPriority,
}

fn parse<'a>(header: &FrameHeader, payload: &'a [u8]) -> Result<Parsed<'a>, ConnectionError> {
    match Frame::parse(header, payload) {
        Ok(frame) => Ok(Parsed::Frame(frame)),
        Err(PayloadError::Connection(error)) => Err(error),
        Err(PayloadError::PrioritySize) => Ok(Parsed::BrokenPriority),
    }
}

/// Takes up to so many bytes from the front.
fn take<'a>(input: &mut &'a [u8], most: u32) -> &'a [u8] {
    let (taken, rest) = input.split_at(input.len().min(most as usize));
    *input = rest;
    taken
}
