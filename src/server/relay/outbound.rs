//! A request's body on its way to the upstream: bytes made for it, what was read of the client's, or the client's as it
//! comes.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::http::exchange::RequestBody;
use crate::http::upstream_call::{Call, CallBody, Protocol};
use crate::proto::h1::{CHUNK_SUFFIX, chunk_prefix};

/// Bytes of a streamed body that wait for the upstream; beyond that the client has to.
const STREAM_ROOM: usize = 64 * 1024;

/// Bytes of a streamed body that are kept for another try.
const KEPT: usize = 64 * 1024;

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
    /// Something of it is gone, and cannot be sent again.
    begun: bool,
    /// What was sent is kept while there is little of it: a peer may yet say that it did not look at the request.
    keeps: bool,
}

impl Stream {
    fn drop_sent(&mut self) {
        if self.sent == self.waiting.len() {
            self.waiting.clear();
            self.sent = 0;
        } else if self.sent >= STREAM_ROOM {
            self.waiting.drain(..self.sent);
            self.sent = 0;
        }
    }
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
    pub fn new(call: &Call, read: &RequestBody, file: Option<(Arc<OwnedFd>, u64)>) -> Outbound {
        let source = match (&call.body, read, file) {
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
                keeps: call.protocol == Protocol::Http2,
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
                stream.sent += count as usize;
                if !stream.keeps || stream.waiting.len() > KEPT {
                    stream.keeps = false;
                    stream.begun |= stream.sent > 0;
                    stream.drop_sent();
                }
            }
            _ => self.offset += count,
        }
    }

    /// Whether the client's body is still coming.
    pub fn awaits_client(&self) -> bool {
        matches!(&self.source, Source::Stream(stream) if !stream.ended)
    }

    /// Whether there is nothing to send before the client sends more.
    pub fn is_starved(&self) -> bool {
        matches!(&self.source, Source::Stream(stream) if !stream.ended && stream.sent == stream.waiting.len())
    }

    /// Whether more of the client's body can be taken now.
    pub fn has_room(&self) -> bool {
        matches!(&self.source, Source::Stream(stream) if !stream.ended && stream.waiting.len() - stream.sent < STREAM_ROOM)
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

    /// There will be no other try: nothing needs to be kept any more.
    pub fn forget(&mut self) {
        if let Source::Stream(stream) = &mut self.source
            && std::mem::take(&mut stream.keeps)
        {
            stream.begun |= stream.sent > 0;
            stream.drop_sent();
        }
    }

    /// Whether nothing is left once so many bytes are sent of what [`Self::next`] gave.
    pub fn is_last(&self, count: usize) -> bool {
        match &self.source {
            Source::Nothing => true,
            Source::Memory(length) | Source::File(_, length) => self.offset + count as u64 == *length,
            Source::Stream(stream) => stream.ended && stream.sent + count == stream.waiting.len(),
        }
    }

    /// Begins again for another try; `false` if some of it is gone for good.
    pub fn rewind(&mut self) -> bool {
        self.offset = 0;
        if let Source::Stream(stream) = &mut self.source
            && !stream.begun
        {
            stream.sent = 0;
        }
        self.can_rewind()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(keeps: bool) -> Outbound {
        let stream =
            Stream { chunked: false, waiting: Vec::new(), sent: 0, ended: false, begun: false, keeps };
        Outbound { source: Source::Stream(stream), offset: 0 }
    }

    fn next(outbound: &Outbound) -> Option<&[u8]> {
        match outbound.next(&CallBody::None, &RequestBody::Unread) {
            Next::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    #[test]
    fn little_that_was_sent_is_kept_for_another_try() {
        let mut outbound = stream(true);
        outbound.push(b"abc");
        outbound.consume(3);
        outbound.push(b"de");
        assert_eq!(next(&outbound), Some(&b"de"[..]));
        assert!(outbound.rewind());
        assert_eq!(next(&outbound), Some(&b"abcde"[..]));
        outbound.end();
        assert!(outbound.is_last(5) && !outbound.is_last(4));
        outbound.consume(5);
        outbound.forget();
        assert!(!outbound.can_rewind(), "it is gone");
    }

    #[test]
    fn what_waits_for_the_peer_does_not_wait_for_the_client() {
        let mut outbound = stream(true);
        assert!(outbound.is_starved() && outbound.awaits_client());
        outbound.push(b"abc");
        assert!(!outbound.is_starved() && outbound.awaits_client());
        outbound.consume(3);
        assert!(outbound.is_starved());
        outbound.end();
        assert!(!outbound.is_starved() && !outbound.awaits_client());
    }

    #[test]
    fn much_of_it_is_not_and_room_is_what_was_not_sent() {
        let mut outbound = stream(true);
        outbound.push(&[b'x'; KEPT]);
        assert!(!outbound.has_room());
        outbound.consume(KEPT as u64);
        assert!(outbound.has_room() && outbound.can_rewind());
        outbound.push(b"y");
        outbound.consume(1);
        assert!(!outbound.can_rewind() && !outbound.rewind());
    }

    #[test]
    fn what_waits_is_bounded_however_slowly_it_goes() {
        let mut outbound = stream(false);
        for _ in 0..100 {
            while outbound.has_room() {
                outbound.push(&[b'x'; 1000]);
            }
            outbound.consume(500);
            let Source::Stream(stream) = &outbound.source else { panic!("a stream") };
            assert!(stream.waiting.len() <= 2 * STREAM_ROOM + 1000);
        }
    }
}
