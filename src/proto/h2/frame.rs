//! Frames (RFC 9113 sections 4 and 6, RFC 9218 section 7.1) as bytes, both ways.
//!
//! [`FrameHeader::check`] judges what can be told from nine bytes, [`Frame::parse`] the payload. What a frame means for
//! its stream is not known here.

use super::error::{ConnectionError, ErrorCode};

/// Bytes of a frame's header.
pub const HEADER_LENGTH: usize = 9;
/// Largest payload that every peer takes, in bytes, and the least that SETTINGS_MAX_FRAME_SIZE may say.
pub const DEFAULT_MAX_FRAME_SIZE: u32 = 16_384;
/// The most that SETTINGS_MAX_FRAME_SIZE may say, in bytes.
pub const LARGEST_MAX_FRAME_SIZE: u32 = (1 << 24) - 1;
/// Highest stream identifier, and largest window: 31 bits.
pub const MOST_31_BITS: u32 = (1 << 31) - 1;

/// What a client sends first (RFC 9113 section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// 0
    Data,
    /// 1
    Headers,
    /// 2
    Priority,
    /// 3
    ResetStream,
    /// 4
    Settings,
    /// 5
    PushPromise,
    /// 6
    Ping,
    /// 7
    GoAway,
    /// 8
    WindowUpdate,
    /// 9
    Continuation,
    /// 16 (RFC 9218)
    PriorityUpdate,
    /// Any other: to be ignored (RFC 9113 section 4.1).
    Unknown(u8),
}

impl FrameKind {
    /// The type with this number.
    pub fn of(number: u8) -> FrameKind {
        match number {
            0 => FrameKind::Data,
            1 => FrameKind::Headers,
            2 => FrameKind::Priority,
            3 => FrameKind::ResetStream,
            4 => FrameKind::Settings,
            5 => FrameKind::PushPromise,
            6 => FrameKind::Ping,
            7 => FrameKind::GoAway,
            8 => FrameKind::WindowUpdate,
            9 => FrameKind::Continuation,
            16 => FrameKind::PriorityUpdate,
            other => FrameKind::Unknown(other),
        }
    }

    /// Its number.
    pub fn number(self) -> u8 {
        match self {
            FrameKind::Data => 0,
            FrameKind::Headers => 1,
            FrameKind::Priority => 2,
            FrameKind::ResetStream => 3,
            FrameKind::Settings => 4,
            FrameKind::PushPromise => 5,
            FrameKind::Ping => 6,
            FrameKind::GoAway => 7,
            FrameKind::WindowUpdate => 8,
            FrameKind::Continuation => 9,
            FrameKind::PriorityUpdate => 16,
            FrameKind::Unknown(number) => number,
        }
    }
}

/// Flags of RFC 9113. END_STREAM and ACK share a bit.
pub mod flags {
    /// Of DATA and HEADERS.
    pub const END_STREAM: u8 = 0x1;
    /// Of SETTINGS and PING.
    pub const ACK: u8 = 0x1;
    /// Of HEADERS, PUSH_PROMISE and CONTINUATION.
    pub const END_HEADERS: u8 = 0x4;
    /// Of DATA, HEADERS and PUSH_PROMISE.
    pub const PADDED: u8 = 0x8;
    /// Of HEADERS.
    pub const PRIORITY: u8 = 0x20;
}

/// The nine bytes before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of payload, 24 bits.
    pub length: u32,
    /// The type.
    pub kind: FrameKind,
    /// The flags, also those without meaning.
    pub flags: u8,
    /// The stream, 31 bits; 0 is the connection.
    pub stream: u32,
}

impl FrameHeader {
    /// Reads a header; the reserved bit is ignored.
    pub fn parse(bytes: &[u8; HEADER_LENGTH]) -> FrameHeader {
        FrameHeader {
            length: u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]),
            kind: FrameKind::of(bytes[3]),
            flags: bytes[4],
            stream: u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]) & MOST_31_BITS,
        }
    }

    /// The nine bytes.
    pub fn bytes(&self) -> [u8; HEADER_LENGTH] {
        let [_, a, b, c] = self.length.to_be_bytes();
        let [d, e, f, g] = self.stream.to_be_bytes();
        [a, b, c, self.kind.number(), self.flags, d, e, f, g]
    }

    /// Whether this flag is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Judges size and stream before any payload is taken. A PRIORITY of the wrong size is a stream's error and is let
    /// pass here.
    ///
    /// # Errors
    /// FRAME_SIZE_ERROR and PROTOCOL_ERROR as RFC 9113 sections 4.2 and 6 have them.
    pub fn check(&self, max_frame_size: u32) -> Result<(), ConnectionError> {
        if self.length > max_frame_size {
            return Err(ConnectionError::size("peer sent a frame larger than SETTINGS_MAX_FRAME_SIZE"));
        }
        let of_connection = match self.kind {
            FrameKind::Data
            | FrameKind::Headers
            | FrameKind::Priority
            | FrameKind::ResetStream
            | FrameKind::PushPromise
            | FrameKind::Continuation => false,
            FrameKind::Settings | FrameKind::Ping | FrameKind::GoAway | FrameKind::PriorityUpdate => true,
            FrameKind::WindowUpdate | FrameKind::Unknown(_) => self.stream == 0,
        };
        if of_connection != (self.stream == 0) {
            return Err(ConnectionError::protocol(if of_connection {
                "peer sent a frame of the connection with a stream identifier"
            } else {
                "peer sent a frame of a stream without a stream identifier"
            }));
        }
        let length = self.length;
        let fits = match self.kind {
            FrameKind::ResetStream | FrameKind::WindowUpdate => length == 4,
            FrameKind::Settings if self.has(flags::ACK) => length == 0,
            FrameKind::Settings => length.is_multiple_of(6),
            FrameKind::Ping => length == 8,
            FrameKind::GoAway => length >= 8,
            FrameKind::PriorityUpdate => length >= 4,
            _ => true,
        };
        if fits { Ok(()) } else { Err(ConnectionError::size("peer sent a frame of the wrong size")) }
    }
}

/// A frame with its payload, without padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Content. Whole, as tests want it; a connection takes it in pieces.
    Data { stream: u32, ends: bool, data: &'a [u8] },
    /// The beginning of a field block. The priority of RFC 7540 is read and has no effect (RFC 9113 section 5.3.2).
    Headers { stream: u32, ends: bool, whole: bool, fragment: &'a [u8] },
    /// A priority of RFC 7540, without effect.
    Priority { stream: u32 },
    /// RST_STREAM.
    Reset { stream: u32, code: ErrorCode },
    /// The parameters, six bytes each.
    Settings(&'a [u8]),
    /// SETTINGS with ACK.
    SettingsAck,
    /// PUSH_PROMISE: never asked for here, so its block is not told apart.
    PushPromise { stream: u32 },
    /// PING, or its answer.
    Ping { ack: bool, opaque: [u8; 8] },
    /// GOAWAY; the debug data is for people.
    GoAway { last: u32, code: ErrorCode, debug: &'a [u8] },
    /// WINDOW_UPDATE; an increment of 0 is left to the caller to judge.
    WindowUpdate { stream: u32, increment: u32 },
    /// More of a field block.
    Continuation { stream: u32, whole: bool, fragment: &'a [u8] },
    /// A priority of RFC 9218 for a stream.
    PriorityUpdate { stream: u32, value: &'a [u8] },
    /// Something to be ignored.
    Unknown,
}

/// How a payload is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadError {
    /// For the whole connection.
    Connection(ConnectionError),
    /// A PRIORITY frame of a wrong length: its stream alone is reset (RFC 9113 section 6.3).
    PrioritySize,
}

impl From<ConnectionError> for PayloadError {
    fn from(error: ConnectionError) -> Self {
        PayloadError::Connection(error)
    }
}

impl<'a> Frame<'a> {
    /// Reads the payload of a header that passed [`FrameHeader::check`].
    ///
    /// # Errors
    /// Padding or fixed fields that don't fit, a PRIORITY of the wrong size.
    pub fn parse(header: &FrameHeader, payload: &'a [u8]) -> Result<Frame<'a>, PayloadError> {
        debug_assert_eq!(header.length as usize, payload.len());
        let stream = header.stream;
        Ok(match header.kind {
            FrameKind::Data => {
                Frame::Data { stream, ends: header.has(flags::END_STREAM), data: unpad(header, payload)? }
            }
            FrameKind::Headers => {
                let mut fragment = unpad(header, payload)?;
                if header.has(flags::PRIORITY) {
                    fragment = fragment.get(5..).ok_or(ConnectionError::size(
                        "peer sent a HEADERS frame too short for its priority",
                    ))?;
                }
                let (ends, whole) = (header.has(flags::END_STREAM), header.has(flags::END_HEADERS));
                Frame::Headers { stream, ends, whole, fragment }
            }
            FrameKind::Priority if payload.len() == 5 => Frame::Priority { stream },
            FrameKind::Priority => return Err(PayloadError::PrioritySize),
            FrameKind::ResetStream => Frame::Reset { stream, code: ErrorCode(number(payload)?) },
            FrameKind::Settings if header.has(flags::ACK) => Frame::SettingsAck,
            FrameKind::Settings => Frame::Settings(payload),
            FrameKind::PushPromise => Frame::PushPromise { stream },
            FrameKind::Ping => {
                let opaque = payload.try_into().map_err(|_| short())?;
                Frame::Ping { ack: header.has(flags::ACK), opaque }
            }
            FrameKind::GoAway => {
                let code = payload.get(4..).ok_or(short())?;
                Frame::GoAway {
                    last: number(payload)? & MOST_31_BITS,
                    code: ErrorCode(number(code)?),
                    debug: code.get(4..).unwrap_or_default(),
                }
            }
            FrameKind::WindowUpdate => {
                Frame::WindowUpdate { stream, increment: number(payload)? & MOST_31_BITS }
            }
            FrameKind::Continuation => {
                Frame::Continuation { stream, whole: header.has(flags::END_HEADERS), fragment: payload }
            }
            FrameKind::PriorityUpdate => Frame::PriorityUpdate {
                stream: number(payload)? & MOST_31_BITS,
                value: payload.get(4..).unwrap_or_default(),
            },
            FrameKind::Unknown(_) => Frame::Unknown,
        })
    }

    /// Appends the frame as bytes, without padding.
    pub fn write(&self, out: &mut Vec<u8>) {
        let end = |ends: bool| if ends { flags::END_STREAM } else { 0 };
        let whole_flag = |whole: bool| if whole { flags::END_HEADERS } else { 0 };
        match *self {
            Frame::Data { stream, ends, data } => put(FrameKind::Data, end(ends), stream, &[data], out),
            Frame::Headers { stream, ends, whole, fragment } => {
                put(FrameKind::Headers, end(ends) | whole_flag(whole), stream, &[fragment], out);
            }
            Frame::Priority { stream } => put(FrameKind::Priority, 0, stream, &[&[0, 0, 0, 0, 15]], out),
            Frame::Reset { stream, code } => {
                put(FrameKind::ResetStream, 0, stream, &[&code.0.to_be_bytes()], out);
            }
            Frame::Settings(parameters) => put(FrameKind::Settings, 0, 0, &[parameters], out),
            Frame::SettingsAck => put(FrameKind::Settings, flags::ACK, 0, &[], out),
            Frame::PushPromise { stream } => put(FrameKind::PushPromise, 0, stream, &[&[0; 4]], out),
            Frame::Ping { ack, opaque } => {
                put(FrameKind::Ping, if ack { flags::ACK } else { 0 }, 0, &[&opaque], out);
            }
            Frame::GoAway { last, code, debug } => {
                put(FrameKind::GoAway, 0, 0, &[&last.to_be_bytes(), &code.0.to_be_bytes(), debug], out);
            }
            Frame::WindowUpdate { stream, increment } => {
                put(FrameKind::WindowUpdate, 0, stream, &[&increment.to_be_bytes()], out);
            }
            Frame::Continuation { stream, whole, fragment } => {
                put(FrameKind::Continuation, whole_flag(whole), stream, &[fragment], out);
            }
            Frame::PriorityUpdate { stream, value } => {
                put(FrameKind::PriorityUpdate, 0, 0, &[&stream.to_be_bytes(), value], out);
            }
            Frame::Unknown => put(FrameKind::Unknown(0xff), 0, 0, &[], out),
        }
    }
}

fn put(kind: FrameKind, flags: u8, stream: u32, parts: &[&[u8]], out: &mut Vec<u8>) {
    let length = parts.iter().map(|part| part.len()).sum::<usize>() as u32;
    debug_assert!(length <= LARGEST_MAX_FRAME_SIZE);
    out.extend_from_slice(&FrameHeader { length, kind, flags, stream }.bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// How many bytes of padding stand at the end of a payload whose first byte says so, or why they can't.
pub(super) fn padding(header: &FrameHeader, first: u8) -> Result<u32, ConnectionError> {
    // The length byte itself is part of the payload (RFC 9113 section 6.1).
    if u32::from(first) < header.length {
        Ok(u32::from(first))
    } else {
        Err(ConnectionError::protocol("peer sent padding longer than its frame"))
    }
}

fn unpad<'a>(header: &FrameHeader, payload: &'a [u8]) -> Result<&'a [u8], ConnectionError> {
    if !header.has(flags::PADDED) {
        return Ok(payload);
    }
    let Some((&first, rest)) = payload.split_first() else {
        return Err(ConnectionError::size("peer sent a padded frame without a padding length"));
    };
    let padding = padding(header, first)? as usize;
    Ok(&rest[..rest.len() - padding])
}

fn short() -> ConnectionError {
    ConnectionError::size("peer sent a frame of the wrong size")
}

fn number(payload: &[u8]) -> Result<u32, ConnectionError> {
    payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)).ok_or(short())
}

/// Leaves room for a HEADERS frame's header, behind which the block is to be appended; `end_block` fills it in.
pub(super) fn begin_block(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_LENGTH]);
    start
}

/// Turns what was appended since `begin_block` into a HEADERS frame, and as many CONTINUATION frames as it takes.
pub(super) fn end_block(start: usize, stream: u32, ends: bool, max_frame_size: u32, out: &mut Vec<u8>) {
    let max = max_frame_size as usize;
    let block = start + HEADER_LENGTH;
    let length = out.len() - block;
    let end_stream = if ends { flags::END_STREAM } else { 0 };
    let whole = if length <= max { flags::END_HEADERS } else { 0 };
    let header = FrameHeader {
        length: length.min(max) as u32,
        kind: FrameKind::Headers,
        flags: end_stream | whole,
        stream,
    };
    out[start..block].copy_from_slice(&header.bytes());
    if length > max {
        // Rare: a head of more than a frame. What doesn't fit moves aside and comes back in pieces.
        let rest = out.split_off(block + max);
        let pieces = rest.len().div_ceil(max);
        for (at, fragment) in rest.chunks(max).enumerate() {
            Frame::Continuation { stream, whole: at + 1 == pieces, fragment }.write(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(length: u32, kind: u8, flags: u8, stream: u32) -> FrameHeader {
        FrameHeader { length, kind: FrameKind::of(kind), flags, stream }
    }

    #[test]
    fn every_frame_reads_as_it_was_written() {
        let frames = [
            Frame::Data { stream: 1, ends: true, data: b"abc" },
            Frame::Headers { stream: 3, ends: false, whole: true, fragment: b"\x82" },
            Frame::Priority { stream: 5 },
            Frame::Reset { stream: 7, code: ErrorCode::CANCEL },
            Frame::Settings(&[0, 3, 0, 0, 0, 100]),
            Frame::SettingsAck,
            Frame::Ping { ack: true, opaque: *b"01234567" },
            Frame::GoAway { last: MOST_31_BITS, code: ErrorCode::NO_ERROR, debug: b"bye" },
            Frame::WindowUpdate { stream: 0, increment: 1 },
            Frame::WindowUpdate { stream: 9, increment: MOST_31_BITS },
            Frame::Continuation { stream: 3, whole: true, fragment: b"" },
            Frame::PriorityUpdate { stream: 11, value: b"u=1, i" },
        ];
        for frame in frames {
            let mut out = Vec::new();
            frame.write(&mut out);
            let header = FrameHeader::parse(out[..9].try_into().unwrap());
            assert_eq!(header.check(DEFAULT_MAX_FRAME_SIZE), Ok(()), "{frame:?}");
            assert_eq!(Frame::parse(&header, &out[9..]), Ok(frame));
        }
    }

    /// RFC 9113 sections 4.2 and 6.1 to 6.10.
    #[test]
    fn sizes_and_streams_are_judged_from_the_header() {
        use ErrorCode as Code;
        let cases: &[(u32, u8, u8, u32, Option<Code>)] = &[
            (16_384, 0, 0, 1, None),
            (16_385, 0, 0, 1, Some(Code::FRAME_SIZE_ERROR)),
            (0, 0, 0, 0, Some(Code::PROTOCOL_ERROR)),
            (0, 1, 0, 0, Some(Code::PROTOCOL_ERROR)),
            (5, 2, 0, 0, Some(Code::PROTOCOL_ERROR)),
            (4, 2, 0, 1, None),
            (4, 3, 0, 0, Some(Code::PROTOCOL_ERROR)),
            (5, 3, 0, 1, Some(Code::FRAME_SIZE_ERROR)),
            (6, 4, 0, 1, Some(Code::PROTOCOL_ERROR)),
            (5, 4, 0, 0, Some(Code::FRAME_SIZE_ERROR)),
            (6, 4, flags::ACK, 0, Some(Code::FRAME_SIZE_ERROR)),
            (12, 4, 0, 0, None),
            (4, 5, 0, 0, Some(Code::PROTOCOL_ERROR)),
            (8, 6, 0, 1, Some(Code::PROTOCOL_ERROR)),
            (7, 6, 0, 0, Some(Code::FRAME_SIZE_ERROR)),
            (8, 7, 0, 1, Some(Code::PROTOCOL_ERROR)),
            (7, 7, 0, 0, Some(Code::FRAME_SIZE_ERROR)),
            (4, 8, 0, 0, None),
            (4, 8, 0, 1, None),
            (3, 8, 0, 1, Some(Code::FRAME_SIZE_ERROR)),
            (0, 9, 0, 0, Some(Code::PROTOCOL_ERROR)),
            (4, 16, 0, 1, Some(Code::PROTOCOL_ERROR)),
            (3, 16, 0, 0, Some(Code::FRAME_SIZE_ERROR)),
            (100, 0xee, 0xff, 0, None),
            (100, 0xee, 0xff, 7, None),
        ];
        for &(length, kind, flags, stream, expected) in cases {
            let found = header(length, kind, flags, stream).check(DEFAULT_MAX_FRAME_SIZE);
            assert_eq!(found.err().map(|error| error.code), expected, "{length} {kind} {flags} {stream}");
        }
    }

    /// RFC 9113 sections 6.1 and 6.2.
    #[test]
    fn padding_is_taken_off_and_must_fit() {
        let data = |payload| {
            Frame::parse(&header(u32::try_from(<[u8]>::len(payload)).unwrap(), 0, flags::PADDED, 1), payload)
        };
        assert_eq!(data(b"\x02ab\0\0"), Ok(Frame::Data { stream: 1, ends: false, data: b"ab" }));
        assert_eq!(data(b"\x02\0\0"), Ok(Frame::Data { stream: 1, ends: false, data: b"" }));
        assert_eq!(data(b"\0"), Ok(Frame::Data { stream: 1, ends: false, data: b"" }));
        let code = |result: Result<Frame<'_>, PayloadError>| match result {
            Err(PayloadError::Connection(error)) => Some(error.code),
            _ => None,
        };
        assert_eq!(code(data(b"\x03\0\0")), Some(ErrorCode::PROTOCOL_ERROR));
        assert_eq!(code(data(b"")), Some(ErrorCode::FRAME_SIZE_ERROR));
        let both = header(8, 1, flags::PADDED | flags::PRIORITY | flags::END_HEADERS, 1);
        assert_eq!(
            Frame::parse(&both, b"\x01\0\0\0\0\x0f\x82\0"),
            Ok(Frame::Headers { stream: 1, ends: false, whole: true, fragment: b"\x82" })
        );
        assert_eq!(code(Frame::parse(&both, b"\x04\0\0\0\0\x0f\x82\0")), Some(ErrorCode::FRAME_SIZE_ERROR));
    }

    #[test]
    fn a_priority_of_the_wrong_size_is_its_streams_error() {
        assert_eq!(Frame::parse(&header(4, 2, 0, 1), &[0; 4]), Err(PayloadError::PrioritySize));
        assert_eq!(Frame::parse(&header(5, 2, 0, 1), &[0; 5]), Ok(Frame::Priority { stream: 1 }));
    }

    #[test]
    fn a_block_larger_than_a_frame_is_continued() {
        let mut out = b"before".to_vec();
        let start = begin_block(&mut out);
        out.extend_from_slice(&[7; 25]);
        end_block(start, 5, true, 10, &mut out);
        let mut expected = b"before".to_vec();
        Frame::Headers { stream: 5, ends: true, whole: false, fragment: &[7; 10] }.write(&mut expected);
        Frame::Continuation { stream: 5, whole: false, fragment: &[7; 10] }.write(&mut expected);
        Frame::Continuation { stream: 5, whole: true, fragment: &[7; 5] }.write(&mut expected);
        assert_eq!(out, expected);
    }
}
