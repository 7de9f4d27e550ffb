//! A request head.

use super::{Field, FieldName, Fields, Method, Span};

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

/// What a head says beside its text and lines: with these it is made again ([`RequestHead::restore`]).
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts {
    method_text: Span,
    target: Span,
    request_line: Span,
    authority: Span,
    host: Span,
    ignored_line: Span,
    ignored_lines: u32,
    wire_length: u32,
    framing: RequestFraming,
    host_port: Option<u16>,
    method: Method,
    version: Version,
    expects_continue: bool,
}

/// Positions beyond the largest number are not noted: a line there is searched for ([`RequestHead::field`]).
#[derive(Clone, Debug)]
struct FirstLines {
    positions: [u16; FieldName::COUNT],
    /// Whether there are known lines that could not be noted.
    is_full: bool,
}

impl Default for FirstLines {
    fn default() -> Self {
        FirstLines { positions: [0; FieldName::COUNT], is_full: false }
    }
}

impl FirstLines {
    fn clear(&mut self) {
        *self = FirstLines::default();
    }

    /// The line with this name at this position (counted from 1) comes behind all others that were noted.
    fn note(&mut self, id: FieldName, position: usize) {
        if id != FieldName::Other
            && let Some(first) = self.positions.get_mut(id as usize)
            && *first == 0
        {
            match u16::try_from(position) {
                Ok(position) => *first = position,
                Err(_) => self.is_full = true,
            }
        }
    }

    /// The first line with this name.
    #[inline]
    fn find<'a>(&self, id: FieldName, lines: &'a [Field]) -> Option<&'a Field> {
        match *self.positions.get(id as usize)? {
            0 if !self.is_full => None,
            0 => search(id, lines),
            position => lines.get(usize::from(position) - 1),
        }
    }
}

/// The first line with this name behind those whose positions can be noted.
#[cold]
fn search(id: FieldName, lines: &[Field]) -> Option<&Field> {
    lines.iter().skip(usize::from(u16::MAX)).find(|field| field.id == id)
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
        self.first.clear();
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
        self.note_all();
    }

    fn note_last(&mut self) {
        let position = self.fields.len();
        self.first.note(self.fields.list()[position - 1].id, position);
    }

    fn note_all(&mut self) {
        self.first.clear();
        for (at, field) in self.fields.list().iter().enumerate() {
            self.first.note(field.id, at + 1);
        }
    }

    /// What it says beside its text and lines.
    pub fn facts(&self) -> RequestFacts {
        let &RequestHead {
            fields: _,
            first: _,
            method,
            method_text,
            target,
            request_line,
            authority,
            host,
            host_port,
            version,
            framing,
            expects_continue,
            wire_length,
            ignored_lines,
            ignored_line,
        } = self;
        RequestFacts {
            method,
            method_text,
            target,
            request_line,
            authority,
            host,
            host_port,
            version,
            framing,
            expects_continue,
            wire_length,
            ignored_lines,
            ignored_line,
        }
    }

    /// Becomes the head that had this text, these lines and these facts.
    pub fn restore(&mut self, text: &[u8], lines: &[Field], facts: &RequestFacts) {
        let &RequestFacts {
            method,
            method_text,
            target,
            request_line,
            authority,
            host,
            host_port,
            version,
            framing,
            expects_continue,
            wire_length,
            ignored_lines,
            ignored_line,
        } = facts;
        let fields = std::mem::take(&mut self.fields);
        let first = FirstLines::default();
        *self = RequestHead {
            fields,
            first,
            method,
            method_text,
            target,
            request_line,
            authority,
            host,
            host_port,
            version,
            framing,
            expects_continue,
            wire_length,
            ignored_lines,
            ignored_line,
        };
        self.fields.restore(text, lines);
        self.note_all();
    }

    /// Value of the first line with this name, as a rule without a search.
    #[inline]
    pub fn field(&self, id: FieldName) -> Option<&[u8]> {
        Some(self.fields.get(self.first.find(id, self.fields.list())?.value))
    }

    /// Place of the value of the first line with this name; empty if there is none.
    pub fn field_span(&self, id: FieldName) -> Span {
        self.first.find(id, self.fields.list()).map_or(Span::default(), |field| field.value)
    }

    /// Whether a line with this name was sent.
    #[inline]
    pub fn has(&self, id: FieldName) -> bool {
        self.first.find(id, self.fields.list()).is_some()
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
        head.push(b"Content-Length", b"6");
        assert_eq!(head.field(FieldName::ContentLength), Some(&b"5"[..]));
        assert_eq!(head.text(head.field_span(FieldName::ContentLength)), b"5");
        assert!(head.has(FieldName::ContentLength) && !head.has(FieldName::Host));
        assert_eq!((head.field(FieldName::Host), head.field(FieldName::Other)), (None, None));
        head.push(b"Host", b"a");
        assert_eq!(head.field(FieldName::Host), Some(&b"a"[..]));
        head.replace(b"X", std::iter::empty());
        assert_eq!(head.field(FieldName::ContentLength), Some(&b"5"[..]));
        head.clear();
        assert!(!head.has(FieldName::Host) && !head.has(FieldName::ContentLength));
    }

    #[test]
    fn a_head_is_made_again_from_its_text_its_lines_and_its_facts() {
        let mut head = RequestHead::default();
        head.target = head.fields.store(b"/a");
        head.push(b"Host", b"example.com");
        head.wire_length = 40;
        head.framing = RequestFraming::Length(7);
        let mut other = RequestHead::default();
        other.push(b"Range", b"bytes=0-1");
        other.expects_continue = true;
        other.restore(head.fields.text(), head.fields.list(), &head.facts());
        assert_eq!(format!("{other:?}"), format!("{head:?}"));
    }
}
