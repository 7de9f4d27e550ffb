//! The wire machine of a connection, whatever its protocol: the one place where the relay's events are made of each
//! protocol's own.

use crate::http::upstream_call::{Call, Protocol};
use crate::message::{Fields, ResponseFraming, ResponseHead};
use crate::proto::h1::{Asked, ResponseError, ResponseEvent, ResponseLimits, ResponseReader};
use crate::proto::memcached::{MemcachedEvent, MemcachedReader};

/// See the module's documentation.
#[derive(Debug)]
pub enum Wire {
    /// HTTP/1.
    Http1(Box<ResponseReader>),
    /// memcached's text protocol.
    Memcached(Box<MemcachedReader>),
    /// No protocol: a tunnel from the first byte on.
    Raw,
}

/// What a response's head says about the rest.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// Bytes of the body, where they are known.
    pub length: Option<u64>,
    /// A tunnel begins.
    pub switched: bool,
    /// Minor version of HTTP/1.
    pub minor: u8,
    /// Seconds that the peer says it keeps an idle connection.
    pub keep_alive_secs: Option<u64>,
}

/// What the machine found.
#[derive(Debug)]
pub enum Event<'a> {
    /// The input is used up.
    NeedMore,
    /// An interim response is in the head that was passed.
    Interim,
    /// The final response is.
    Head(Facts),
    /// A piece of the body.
    Body(&'a [u8]),
    /// Trailers came: see [`Wire::trailers`].
    Trailers,
    /// The response is complete.
    End,
}

impl Wire {
    /// The machine for a protocol.
    pub fn new(protocol: Protocol) -> Wire {
        match protocol {
            Protocol::Http1 => Wire::Http1(Box::new(ResponseReader::new(ResponseLimits::default()))),
            Protocol::Memcached => Wire::Memcached(Box::default()),
            // Of a connection that many share, the machine is not here.
            Protocol::Raw | Protocol::Http2 => Wire::Raw,
        }
    }

    /// A request is sent: its response comes next.
    pub fn begin(&mut self, call: &Call) {
        match self {
            Wire::Http1(reader) => reader.begin(Asked {
                head: call.is_head,
                upgrade: call.asks_upgrade,
                connect: false,
                head_bytes: call.conduct.buffer_size,
            }),
            Wire::Memcached(reader) => reader.begin(&call.head, call.conduct.buffer_size),
            Wire::Raw => {}
        }
    }

    /// A health check's GET is sent.
    pub fn begin_probe(&mut self, head_bytes: usize) {
        if let Wire::Http1(reader) = self {
            reader.begin(Asked { head: false, upgrade: false, connect: false, head_bytes });
        }
    }

    /// The next event.
    ///
    /// # Errors
    /// The response cannot be used, or not any further.
    pub fn read<'a>(
        &mut self,
        input: &mut &'a [u8],
        head: &mut ResponseHead,
    ) -> Result<Event<'a>, ResponseError> {
        match self {
            Wire::Http1(reader) => Ok(match reader.read(input, head)? {
                ResponseEvent::NeedMore => Event::NeedMore,
                ResponseEvent::Interim => Event::Interim,
                ResponseEvent::Head(facts) => Event::Head(Facts {
                    length: match facts.framing {
                        ResponseFraming::None => Some(0),
                        ResponseFraming::Length(length) => Some(length),
                        ResponseFraming::Streamed | ResponseFraming::UntilClose => None,
                    },
                    switched: facts.switched,
                    minor: facts.http_minor,
                    keep_alive_secs: facts.keep_alive_timeout_secs,
                }),
                ResponseEvent::Body(bytes) => Event::Body(bytes),
                ResponseEvent::Trailers => Event::Trailers,
                ResponseEvent::End => Event::End,
            }),
            Wire::Memcached(reader) => Ok(match reader.read(input, head)? {
                MemcachedEvent::NeedMore => Event::NeedMore,
                MemcachedEvent::Head { length, .. } => {
                    Event::Head(Facts { length: Some(length), ..Facts::default() })
                }
                MemcachedEvent::NotFound => Event::Head(Facts { length: Some(0), ..Facts::default() }),
                MemcachedEvent::Body(bytes) => Event::Body(bytes),
                MemcachedEvent::End => Event::End,
            }),
            Wire::Raw => Ok(Event::Body(std::mem::take(input))),
        }
    }

    /// The peer has closed its side; fine where that ends the response.
    ///
    /// # Errors
    /// Something is missing.
    pub fn end_of_input(&mut self) -> Result<(), ResponseError> {
        match self {
            Wire::Http1(reader) => reader.end_of_input(),
            Wire::Memcached(reader) => reader.end_of_input(),
            Wire::Raw => Ok(()),
        }
    }

    /// The connection is broken: not even a body that ends with it is complete.
    ///
    /// # Errors
    /// Something is missing.
    pub fn reset(&mut self) -> Result<(), ResponseError> {
        match self {
            Wire::Http1(reader) => reader.reset(),
            Wire::Memcached(reader) => reader.end_of_input(),
            Wire::Raw => Ok(()),
        }
    }

    /// Bytes of the body that may be read past the machine; `None` where it has to see them.
    pub fn body_left(&self) -> Option<u64> {
        match self {
            Wire::Http1(reader) => reader.body_left(),
            Wire::Memcached(reader) => reader.body_left(),
            Wire::Raw => Some(u64::MAX),
        }
    }

    /// So many bytes were read past it.
    pub fn skip(&mut self, bytes: u64) {
        match self {
            Wire::Http1(reader) => reader.skip(bytes),
            Wire::Memcached(reader) => reader.skip(bytes),
            Wire::Raw => {}
        }
    }

    /// Appends the trailers of the response that ended.
    pub fn trailers(&self, fields: &mut Fields) {
        if let Wire::Http1(reader) = self {
            reader.trailers(fields);
        }
    }

    /// The connection becomes idle: memory that only a request needs is given back.
    pub fn rest(&mut self) {
        if let Wire::Http1(reader) = self {
            reader.release_memory();
        }
    }

    /// Whether another request may be sent on the connection.
    pub fn is_reusable(&self) -> bool {
        match self {
            Wire::Http1(reader) => reader.is_reusable(),
            Wire::Memcached(reader) => reader.is_reusable(),
            Wire::Raw => false,
        }
    }

    /// Whether any byte of the response has come.
    pub fn has_begun(&self) -> bool {
        match self {
            Wire::Http1(reader) => reader.has_begun(),
            Wire::Memcached(reader) => reader.has_begun(),
            Wire::Raw => false,
        }
    }
}
