//! A request's body on its way to the upstream: bytes made for it, what was read of the client's, or the client's as it
//! comes.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::http::exchange::RequestBody;
use crate::http::upstream_call::CallBody;
use crate::proto::h1::{CHUNK_SUFFIX, chunk_prefix};

/// Bytes of a streamed body that wait for the upstream; beyond that the client has to.
const STREAM_ROOM: usize = 64 * 1024;

/// Where the body comes from.
#[derive(Debug)]
enum Source {
    /// There is none.
    Nothing,
    /// `Call::body` has it, or `Exchange::request_body` in memory; so many bytes.
    Memory(u64),
    /// The temporary file that it was put into; so many bytes.
    File(Arc<OwnedFd>, u64),
    /// As it comes.
    Stream(Stream),
}

#[derive(Debug)]
struct Stream {
    chunked: bool,
    /// Bytes, framed as they go on the wire.
    waiting: Vec<u8>,
    /// Bytes of `waiting` that were sent.
    sent: usize,
    /// The client's body is complete.
    ended: bool,
    /// Something was sent: what is gone cannot be sent again.
    begun: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Outbound {
    source: Source,
    /// Bytes of memory or file that were sent in this try.
    offset: u64,
}

/// What is sent next.
pub enum Next<'a> {
    /// All was sent.
    Complete,
    /// The client has to send more first.
    Starved,
    /// These bytes.
    Bytes(&'a [u8]),
    /// So many bytes of this file from this offset.
    File(&'a OwnedFd, u64, u64),
}

impl Outbound {
    /// The body of a call; `file` is where the client's was put, with its length.
    pub fn new(body: &CallBody, read: &RequestBody, file: Option<(Arc<OwnedFd>, u64)>) -> Outbound {
        let source = match (body, read, file) {
            (CallBody::None, ..) => Source::Nothing,
            (CallBody::Bytes(bytes), ..) => Source::Memory(bytes.len() as u64),
            (CallBody::Read, RequestBody::Memory(bytes), _) => Source::Memory(bytes.len() as u64),
            (CallBody::Read, RequestBody::File(_), Some((file, length))) => Source::File(file, length),
            (CallBody::Read, ..) => Source::Nothing,
            (CallBody::Streamed { chunked }, ..) => Source::Stream(Stream {
                chunked: *chunked,
                waiting: Vec::new(),
                sent: 0,
                ended: false,
                begun: false,
            }),
        };
        Outbound { source, offset: 0 }
    }

    /// No body.
    pub fn none() -> Outbound {
        Outbound { source: Source::Nothing, offset: 0 }
    }

    /// What is sent next.
    pub fn next<'a>(&'a self, body: &'a CallBody, read: &'a RequestBody) -> Next<'a> {
        match &self.source {
            Source::Nothing => Next::Complete,
            Source::Memory(length) if self.offset == *length => Next::Complete,
            Source::Memory(_) => {
                let bytes = match (body, read) {
                    (CallBody::Bytes(bytes), _) => &bytes[..],
                    (_, RequestBody::Memory(bytes)) => &bytes[..],
                    _ => b"",
                };
                bytes.get(self.offset as usize..).map_or(Next::Complete, Next::Bytes)
            }
            Source::File(_, length) if self.offset == *length => Next::Complete,
            Source::File(file, length) => Next::File(file, self.offset, length - self.offset),
            Source::Stream(stream) if stream.sent < stream.waiting.len() => {
                Next::Bytes(&stream.waiting[stream.sent..])
            }
            Source::Stream(stream) if stream.ended => Next::Complete,
            Source::Stream(_) => Next::Starved,
        }
    }

    /// Takes what was sent off the front.
    pub fn consume(&mut self, count: u64) {
        match &mut self.source {
            Source::Stream(stream) => {
                stream.begun |= count > 0;
                stream.sent += count as usize;
                if stream.sent == stream.waiting.len() {
                    stream.sent = 0;
                    stream.waiting.clear();
                }
            }
            _ => self.offset += count,
        }
    }

    /// Whether the client's body is still coming.
    pub fn awaits_client(&self) -> bool {
        matches!(&self.source, Source::Stream(stream) if !stream.ended)
    }

    /// Whether more of the client's body can be taken now.
    pub fn has_room(&self) -> bool {
        matches!(&self.source, Source::Stream(stream) if !stream.ended && stream.waiting.len() < STREAM_ROOM)
    }

    /// Takes a piece of the client's body.
    pub fn push(&mut self, bytes: &[u8]) {
        if let Source::Stream(stream) = &mut self.source {
            if stream.chunked {
                chunk_prefix(bytes.len() as u64, &mut stream.waiting);
            }
            stream.waiting.extend_from_slice(bytes);
            if stream.chunked {
                stream.waiting.extend_from_slice(CHUNK_SUFFIX);
            }
        }
    }

    /// The client's body is complete.
    pub fn end(&mut self) {
        if let Source::Stream(stream) = &mut self.source {
            if stream.chunked && !stream.ended {
                crate::proto::h1::finish(None, &mut stream.waiting);
            }
            stream.ended = true;
        }
    }

    /// Whether all of it is still there for another try.
    pub fn can_rewind(&self) -> bool {
        !matches!(&self.source, Source::Stream(stream) if stream.begun)
    }

    /// Begins again for another try; `false` if some of it is gone for good.
    pub fn rewind(&mut self) -> bool {
        self.offset = 0;
        self.can_rewind()
    }
}
