//! A response head.

use super::{Field, Fields, Span, Status};

/// How the end of a response's body is marked; chosen by the wire machine from the head, the request and its version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResponseFraming {
    /// No body follows (HEAD, 204, 304), whatever the head says.
    #[default]
    None,
    /// Exactly so many bytes.
    Length(u64),
    /// Chunked coding (or frames).
    Streamed,
    /// Until the connection closes (HTTP/1.0, or `chunked_transfer_encoding off`).
    UntilClose,
}

/// A response head with all its text in one recycled buffer.
///
/// The fields that filters and encoders look at have slots of their own; the rest are lines in order. On the wire the
/// slots come first, in nginx's order: Server, Date, Content-Type, Content-Length, Last-Modified, Location,
/// (framing and connection fields of the wire machine), then the lines.
#[derive(Debug, Default)]
pub struct ResponseHead {
    /// The lines without a slot, and the text of everything below.
    pub fields: Fields,
    /// The status.
    pub status: Status,
    /// A reason phrase that replaces the usual one (status line of an upstream).
    pub reason: Option<Span>,
    /// `Server`; no line if none.
    pub server: Option<Span>,
    /// `Content-Type`, with its charset.
    pub content_type: Option<Span>,
    /// Bytes of the body, where known beforehand.
    pub content_length: Option<u64>,
    /// `content_length` as decimal text, where a cache keeps it.
    pub content_length_text: Option<Span>,
    /// When the content last changed, in seconds since 1970.
    pub last_modified: Option<i64>,
    /// `Last-Modified` as text; set together with `last_modified`.
    pub last_modified_text: Option<Span>,
    /// `ETag`, with quotes and `W/`; sent after the slots above, before the lines.
    pub etag: Option<Span>,
    /// `Location`.
    pub location: Option<Span>,
    /// Whether `Accept-Ranges: bytes` is sent.
    pub accept_ranges: bool,
}

/// What a head says beside its text and lines: with these it is made again ([`ResponseHead::restore`]).
#[derive(Clone, Copy, Debug)]
pub struct ResponseFacts {
    reason: Option<Span>,
    server: Option<Span>,
    content_type: Option<Span>,
    content_length: Option<u64>,
    content_length_text: Option<Span>,
    last_modified: Option<i64>,
    last_modified_text: Option<Span>,
    etag: Option<Span>,
    location: Option<Span>,
    status: Status,
    accept_ranges: bool,
}

impl ResponseHead {
    /// What it says beside its text and lines.
    pub fn facts(&self) -> ResponseFacts {
        let &ResponseHead {
            fields: _,
            status,
            reason,
            server,
            content_type,
            content_length,
            content_length_text,
            last_modified,
            last_modified_text,
            etag,
            location,
            accept_ranges,
        } = self;
        ResponseFacts {
            status,
            reason,
            server,
            content_type,
            content_length,
            content_length_text,
            last_modified,
            last_modified_text,
            etag,
            location,
            accept_ranges,
        }
    }

    /// Becomes the head that had this text, these lines and these facts.
    pub fn restore(&mut self, text: &[u8], lines: &[Field], facts: &ResponseFacts) {
        let &ResponseFacts {
            status,
            reason,
            server,
            content_type,
            content_length,
            content_length_text,
            last_modified,
            last_modified_text,
            etag,
            location,
            accept_ranges,
        } = facts;
        let mut fields = std::mem::take(&mut self.fields);
        fields.restore(text, lines);
        *self = ResponseHead {
            fields,
            status,
            reason,
            server,
            content_type,
            content_length,
            content_length_text,
            last_modified,
            last_modified_text,
            etag,
            location,
            accept_ranges,
        };
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = ResponseHead { fields, ..ResponseHead::default() };
    }

    /// The bytes of a span of this head.
    pub fn text(&self, span: Span) -> &[u8] {
        self.fields.get(span)
    }

    /// Sets `Content-Type`.
    pub fn set_content_type(&mut self, value: &[u8]) {
        self.content_type = Some(self.fields.store(value));
    }

    /// Sets `ETag`.
    pub fn set_etag(&mut self, value: &[u8]) {
        self.etag = Some(self.fields.store(value));
    }

    /// Sets `Location`.
    pub fn set_location(&mut self, value: &[u8]) {
        self.location = Some(self.fields.store(value));
    }

    /// Sets the length of the body.
    pub fn set_content_length(&mut self, length: u64) {
        self.content_length = Some(length);
        self.content_length_text = None;
    }

    /// Drops the length: the body is rewritten on its way.
    pub fn clear_content_length(&mut self) {
        self.content_length = None;
        self.content_length_text = None;
    }

    /// Drops `Last-Modified`.
    pub fn clear_last_modified(&mut self) {
        self.last_modified = None;
        self.last_modified_text = None;
    }
}
