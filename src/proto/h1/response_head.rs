//! Response heads: whole ones in one pass over the input, dripping ones line by line as they come.

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::message::{ResponseHead, Span, Status};

use super::chunked::is_token;
use super::response_error::{ResponseError, ResponseFault};

/// Field lines that the one-pass parser takes; a head with more goes the long way.
const FAST_FIELDS: usize = 48;

/// What every status line begins with; the minor version follows.
const PROTOCOL: &[u8] = b"HTTP/1.";

/// A status line's parts.
#[derive(Debug, PartialEq, Eq)]
struct StatusLine {
    minor: u8,
    status: u16,
    reason: Range<usize>,
}

/// Parses a head that lies in `input` whole, is well formed and within `limit` bytes, as nearly all are: its length and
/// minor version. `None` means that it goes the long way through [`PartialResponseHead`], which finds out what is the
/// matter with it.
pub(super) fn parse_whole(input: &[u8], limit: usize, head: &mut ResponseHead) -> Option<(usize, u8)> {
    let line_end = memchr::memchr(b'\n', input)?;
    let line = status_line(trim_cr(&input[..line_end])).ok()?;
    let mut lines = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; FAST_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        input,
        &mut lines,
    );
    let Ok(httparse::Status::Complete(length)) = parsed else { return None };
    if length > limit {
        return None;
    }
    head.clear();
    head.fields.store(&input[..length]);
    take_status_line(&line, head);
    let base = input.as_ptr() as usize;
    for field in response.headers.iter() {
        let name = field.name.as_ptr() as usize - base;
        // httparse's empty slices point anywhere.
        let value = if field.value.is_empty() { 0 } else { field.value.as_ptr() as usize - base };
        head.fields.push_stored(span(name..name + field.name.len()), span(value..value + field.value.len()));
    }
    Some((length, line.minor))
}

/// A head that came in pieces, or that has something unusual about it: its bytes so far, and where its last line
/// begins. Every byte is looked at once while it comes, and once more at the end.
#[derive(Debug, Default)]
pub(super) struct PartialResponseHead {
    text: Vec<u8>,
    line_start: usize,
}

impl PartialResponseHead {
    /// Takes bytes up to the end of the head and not beyond; the minor version when `head` is filled. No more than
    /// `limit` bytes are kept.
    pub(super) fn feed(
        &mut self,
        input: &mut &[u8],
        limit: usize,
        head: &mut ResponseHead,
    ) -> Result<Option<u8>, ResponseError> {
        loop {
            let (piece, complete) = match memchr::memchr(b'\n', input) {
                Some(end) => (end + 1, true),
                None => (input.len(), false),
            };
            let (bytes, rest) = input.split_at(piece);
            let room = limit - self.text.len();
            self.text.extend_from_slice(&bytes[..piece.min(room)]);
            *input = rest;
            if self.line_start == 0 {
                check_start(&self.text)?;
            }
            if piece > room {
                return Err(ResponseError::new(ResponseFault::HeaderTooBig, "upstream sent too big header"));
            }
            if !complete {
                return Ok(None);
            }
            let line = trim_cr(&self.text[self.line_start..self.text.len() - 1]);
            if self.line_start == 0 {
                status_line(line)?;
            } else if line.is_empty() {
                return Ok(Some(fill(&self.text, head)?));
            } else {
                field_line(line)?;
            }
            self.line_start = self.text.len();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Forgets the head, and memory beyond `keep` bytes.
    pub(super) fn reset(&mut self, keep: usize) {
        self.line_start = 0;
        if self.text.capacity() > keep {
            self.text = Vec::new();
        } else {
            self.text.clear();
        }
    }

    /// The bytes, for another use between heads.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.text
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.text
    }

    pub(super) fn capacity(&self) -> usize {
        self.text.capacity()
    }
}

/// Checks what there is of a status line: what is not HTTP/1 at all (an answer in the style of HTTP/0.9, another
/// protocol's greeting) is refused at once, not when a line's end comes.
fn check_start(text: &[u8]) -> Result<(), ResponseError> {
    let known = text.len().min(PROTOCOL.len());
    if text[..known] == PROTOCOL[..known] {
        return Ok(());
    }
    Err(ResponseError::quoting("upstream sent no valid HTTP/1 header, its response begins with", text))
}

/// Parses a status line without its end (RFC 9112 section 4). The space behind the code may be missing where there is no
/// reason phrase, as many servers have it.
fn status_line(line: &[u8]) -> Result<StatusLine, ResponseError> {
    let invalid = || ResponseError::quoting("upstream sent invalid status line", line);
    let rest = line.strip_prefix(PROTOCOL).ok_or_else(invalid)?;
    let [minor, b' ', code @ ..] = rest else { return Err(invalid()) };
    let (code, reason) = code.split_at_checked(3).ok_or_else(invalid)?;
    if !minor.is_ascii_digit() || !code.iter().all(u8::is_ascii_digit) {
        return Err(invalid());
    }
    let status = code.iter().fold(0u16, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    if !(100..=599).contains(&status) {
        return Err(ResponseError::quoting("upstream sent a status that is not in 100 to 599", line));
    }
    let reason_start = match reason {
        [] => line.len(),
        [b' ', ..] => line.len() - reason.len() + 1,
        _ => return Err(invalid()),
    };
    if line[reason_start..].iter().any(|&byte| is_control(byte)) {
        return Err(ResponseError::quoting("upstream sent a control character in its reason phrase", line));
    }
    Ok(StatusLine { minor: minor - b'0', status, reason: reason_start..line.len() })
}

/// Name and value of a field line without its end (RFC 9112 section 5).
fn field_line(line: &[u8]) -> Result<(Range<usize>, Range<usize>), ResponseError> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(ResponseError::header("upstream sent a folded header line"));
    }
    let Some(colon) = memchr::memchr(b':', line) else {
        return Err(ResponseError::quoting("upstream sent a header line without a colon", line));
    };
    let name = &line[..colon];
    if matches!(name.last(), Some(b' ' | b'\t')) {
        return Err(ResponseError::quoting(
            "upstream sent whitespace between a header's name and its colon",
            name,
        ));
    }
    if name.is_empty() || !name.iter().all(|&byte| is_token(byte)) {
        return Err(ResponseError::quoting("upstream sent invalid header name", name));
    }
    let value = &line[colon + 1..];
    if value.iter().any(|&byte| is_control(byte)) {
        return Err(ResponseError::quoting("upstream sent a control character in the value of header", name));
    }
    let is_space = |byte: &&u8| matches!(**byte, b' ' | b'\t');
    let leading = value.iter().take_while(is_space).count();
    let trailing = value[leading..].iter().rev().take_while(is_space).count();
    Ok((0..colon, colon + 1 + leading..line.len() - trailing))
}

/// Fills `head` from complete lines, with the empty one at the end; the minor version.
fn fill(text: &[u8], head: &mut ResponseHead) -> Result<u8, ResponseError> {
    head.clear();
    head.fields.store(text);
    let mut minor = 0;
    let mut at = 0;
    while let Some(length) = memchr::memchr(b'\n', &text[at..]) {
        let line = trim_cr(&text[at..at + length]);
        if at == 0 {
            let line = status_line(line)?;
            take_status_line(&line, head);
            minor = line.minor;
        } else if !line.is_empty() {
            let (name, value) = field_line(line)?;
            head.fields
                .push_stored(span(at + name.start..at + name.end), span(at + value.start..at + value.end));
        }
        at += length + 1;
    }
    Ok(minor)
}

fn take_status_line(line: &StatusLine, head: &mut ResponseHead) {
    head.status = Status(line.status);
    head.reason = Some(span(line.reason.clone()));
}

/// A byte that has no place in a value nor in a reason phrase (RFC 9110 section 5.5): a horizontal tab has one.
fn is_control(byte: u8) -> bool {
    (byte < b' ' && byte != b'\t') || byte == 0x7f
}

fn trim_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn span(range: Range<usize>) -> Span {
    Span { start: range.start as u32, end: range.end as u32 }
}
