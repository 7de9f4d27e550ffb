//! A request head.

use super::{FieldName, Fields, Method, Span};

/// Protocol version of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/0.9: a request line alone, a response without a head.
    Http09,
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
    /// HTTP/2
    Http2,
    /// HTTP/3
    Http3,
}

impl Version {
    /// As `$server_protocol` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::Http09 => "HTTP/0.9",
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2.0",
            Version::Http3 => "HTTP/3.0",
        }
    }
}

/// How the end of a request's body is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestFraming {
    /// There is no body.
    #[default]
    None,
    /// Exactly so many bytes; never 0 here for HTTP/1 (`Content-Length: 0` is `None`, the field stays visible).
    Length(u64),
    /// The wire protocol marks the end (chunked, END_STREAM).
    Streamed,
}

/// A request head with all its text in one recycled buffer.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// The field lines and the text of everything below.
    pub fields: Fields,
    /// The method.
    pub method: Method,
    /// The method's text.
    pub method_text: Span,
    /// The request target as sent; for absolute-form without its scheme and authority. In origin-form it starts
    /// with `/`; it is `*` for `OPTIONS *`.
    pub target: Span,
    /// The whole request line as sent, without the line end (`$request`).
    pub request_line: Span,
    /// The authority: of an absolute-form target, of CONNECT, or HTTP/2's `:authority`. Empty if there was none; it
    /// wins over the Host field (RFC 9112 section 3.2.2). Not yet validated nor lower-cased.
    pub authority: Span,
    /// The host that the request is for, validated and in lower case, without port and trailing dot (`$host`): of
    /// `authority`, else of the Host field; empty if there is neither.
    pub host: Span,
    /// The port that was named with the host.
    pub host_port: Option<u16>,
    /// Protocol version.
    pub version: Version,
    /// How the body ends.
    pub framing: RequestFraming,
    /// Whether the peer waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// Bytes that the head took on the wire (`$request_length` counts them).
    pub wire_length: u32,
    /// How many field lines were left out because of unusual names (`ignore_invalid_headers`), for the error log.
    pub ignored_lines: u32,
    /// The first of them; the whole line.
    pub ignored_line: Span,
    /// Position of the first line of each known name, plus one.
    first: FirstLines,
}

#[derive(Clone, Debug)]
struct FirstLines([u32; FieldName::COUNT]);

impl Default for FirstLines {
    fn default() -> Self {
        FirstLines([0; FieldName::COUNT])
    }
}

impl RequestHead {
    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.fields.clear();
        self.method = Method::Get;
        self.method_text = Span::default();
        self.target = Span::default();
        self.request_line = Span::default();
        self.authority = Span::default();
        self.host = Span::default();
        self.host_port = None;
        self.version = Version::Http11;
        self.framing = RequestFraming::None;
        self.expects_continue = false;
        self.wire_length = 0;
        self.ignored_lines = 0;
        self.ignored_line = Span::default();
        self.first.0.fill(0);
    }

    /// Adds a field line whose text is stored already and notes its place.
    pub fn push_stored(&mut self, name: Span, value: Span) {
        self.fields.push_stored(name, value);
        self.note_last();
    }

    /// Adds a field line.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.fields.push(name, value);
        self.note_last();
    }

    /// Puts lines with these values in the place of all lines with this name.
    pub fn replace<'a>(&mut self, name: &[u8], values: impl Iterator<Item = &'a [u8]>) {
        self.fields.remove(name);
        for value in values {
            self.fields.push(name, value);
        }
        self.first.0.fill(0);
        for (at, field) in self.fields.list().iter().enumerate() {
            if field.id != FieldName::Other
                && let Some(first) = self.first.0.get_mut(field.id as usize)
                && *first == 0
            {
                *first = at as u32 + 1;
            }
        }
    }

    fn note_last(&mut self) {
        let position = self.fields.len();
        let id = self.fields.list()[position - 1].id;
        if id != FieldName::Other
            && let Some(first) = self.first.0.get_mut(id as usize)
            && *first == 0
        {
            *first = position as u32;
        }
    }

    /// Value of the first line with this name, without a search.
    pub fn field(&self, id: FieldName) -> Option<&[u8]> {
        let position = *self.first.0.get(id as usize)?;
        let field = self.fields.list().get((position as usize).checked_sub(1)?)?;
        Some(self.fields.get(field.value))
    }

    /// Place of the value of the first line with this name; empty if there is none.
    pub fn field_span(&self, id: FieldName) -> Span {
        let position = self.first.0.get(id as usize).copied().unwrap_or(0);
        let field = (position as usize).checked_sub(1).and_then(|at| self.fields.list().get(at));
        field.map_or(Span::default(), |field| field.value)
    }

    /// Whether a line with this name was sent.
    pub fn has(&self, id: FieldName) -> bool {
        self.first.0.get(id as usize).is_some_and(|position| *position != 0)
    }

    /// The bytes of a span of this head.
    pub fn text(&self, span: Span) -> &[u8] {
        self.fields.get(span)
    }

    /// The target's bytes.
    pub fn target(&self) -> &[u8] {
        self.fields.get(self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_fields_are_found_by_position_and_forgotten_on_clear() {
        let mut head = RequestHead::default();
        head.push(b"x-a", b"1");
        head.push(b"host", b"example.com");
        head.push(b"Host", b"second");
        assert_eq!(head.field(FieldName::Host), Some(&b"example.com"[..]));
        assert!(!head.has(FieldName::Range));
        head.clear();
        assert_eq!(head.field(FieldName::Host), None);
    }

    /// `max_headers` has no upper bound of its own.
    #[test]
    fn a_field_behind_tens_of_thousands_of_others_is_itself() {
        let mut head = RequestHead::default();
        for _ in 0..70_000 {
            head.push(b"x", b"1");
        }
        head.push(b"Content-Length", b"5");
        assert_eq!(head.field(FieldName::ContentLength), Some(&b"5"[..]));
    }
}
