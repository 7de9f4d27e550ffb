//! Request heads: whole ones in one pass over the input, dripping ones line by line as they come.

use std::ops::Range;

use crate::message::{Method, RequestHead, Span, Status, Version};

use super::error::RequestError;
use super::limits::{HeadLimits, Room};
use super::request_line::{self, RequestLine};
use super::rules;

/// Field lines that the one-pass parser takes; a head with more goes the long way.
const FAST_FIELDS: usize = 48;

/// Parses a head that lies in `input` whole and is well formed, as nearly all are. `None` means that it goes the long
/// way through [`PartialHead`], which finds out what is the matter with it.
pub(super) fn parse_whole(
    input: &[u8],
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<Option<usize>, RequestError> {
    let Some(line_end) = memchr::memchr(b'\n', input) else { return Ok(None) };
    let Ok(line) = request_line::parse(&input[..line_end]) else { return Ok(None) };
    let first = line_end + 1;
    if line.version == Version::Http09 {
        return Ok(None);
    }
    let mut lines = [httparse::EMPTY_HEADER; FAST_FIELDS];
    let Ok(httparse::Status::Complete((length, lines))) =
        httparse::parse_headers(&input[first..], &mut lines)
    else {
        return Ok(None);
    };
    let total = first + length;
    let fits = total <= limits.header_buffer as usize || lines_fit(&input[..total], limits);
    if !fits || lines.len() > limits.max_headers as usize {
        return Ok(None);
    }
    head.clear();
    head.fields.store(&input[..total]);
    take_request_line(&line, head);
    let base = input.as_ptr() as usize;
    for field in lines.iter() {
        let name = field.name.as_ptr() as usize - base;
        let name = name..name + field.name.len();
        // httparse's empty slices point anywhere.
        let value = if field.value.is_empty() { 0 } else { field.value.as_ptr() as usize - base };
        let value = value..value + field.value.len();
        let usual = is_usual_name(&input[name.clone()], limits);
        take_field(usual, name, value, limits, head);
    }
    head.wire_length = total as u32;
    rules::apply(head, limits)?;
    Ok(Some(total))
}

/// Whether a head that is larger than the first buffer fits in the large ones.
fn lines_fit(text: &[u8], limits: &HeadLimits) -> bool {
    let mut room = Room::new(limits);
    text.split_inclusive(|&byte| byte == b'\n').all(|line| room.take(line.len(), limits))
}

/// What feeding a partial head led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    NeedMore,
    Complete,
}

/// A head that came in pieces, or that has something unusual about it: its bytes so far, and where its lines are. Every
/// byte is looked at once while it comes, and once more at the end.
#[derive(Debug, Default)]
pub(super) struct PartialHead {
    text: Vec<u8>,
    /// Where the line begins that is not complete yet.
    line_start: usize,
    room: Option<Room>,
    field_lines: u32,
}

impl PartialHead {
    /// Takes bytes up to the end of the head and not beyond.
    pub(super) fn feed(
        &mut self,
        input: &mut &[u8],
        limits: &HeadLimits,
        head: &mut RequestHead,
    ) -> Result<Progress, RequestError> {
        loop {
            let (piece, complete) = match memchr::memchr(b'\n', input) {
                Some(end) => (end + 1, true),
                None => (input.len(), false),
            };
            let (bytes, rest) = input.split_at(piece);
            self.text.extend_from_slice(bytes);
            *input = rest;
            if let Err(error) = self.check_line(complete, limits) {
                self.keep_for_logs(&error, limits, head);
                return Err(error);
            }
            if !complete {
                return Ok(Progress::NeedMore);
            }
            let line = &self.text[self.line_start..];
            let ends = if self.line_start == 0 {
                request_line::parse(&line[..line.len() - 1]).is_ok_and(|line| line.version == Version::Http09)
            } else {
                matches!(line, b"\n" | b"\r\n")
            };
            self.line_start = self.text.len();
            if ends {
                fill(&self.text, limits, head)?;
                rules::apply(head, limits)?;
                return Ok(Progress::Complete);
            }
        }
    }

    /// Fills the head with what came before an error; of a bad request line with as much of it as was read.
    fn keep_for_logs(&self, error: &RequestError, limits: &HeadLimits, head: &mut RequestHead) {
        // The lines before were checked when they came.
        let _ = fill(&self.text[..self.line_start], limits, head);
        if self.line_start == 0
            && let Ok(length) = request_line::check_method(&self.text)
        {
            // The answer to a HEAD has no body, whatever is wrong with the rest of the line.
            head.method = Method::of(&self.text[..length]);
        }
        if self.line_start == 0 && error.status != Status::URI_TOO_LONG {
            let end = memchr::memchr2(b'\r', b'\n', &self.text).unwrap_or(self.text.len());
            head.request_line = head.fields.store(&self.text[..end]);
        }
    }

    /// Bounds and syntax of the last line.
    fn check_line(&mut self, complete: bool, limits: &HeadLimits) -> Result<(), RequestError> {
        let line = &self.text[self.line_start..];
        let is_first = self.line_start == 0;
        let room = self.room.get_or_insert_with(|| Room::new(limits));
        if is_first {
            // What is beyond the bounds is not looked at: how much of it came with this piece must not matter.
            request_line::check_method(&line[..line.len().min(room.longest_line(limits))])?;
        }
        let fits = if complete { room.take(line.len(), limits) } else { room.fits(line.len(), limits) };
        if !fits && is_first {
            return Err(RequestError::line(Status::URI_TOO_LONG, "client sent too long URI"));
        }
        if !fits {
            return Err(RequestError::quoting(
                Status::HEAD_TOO_LARGE,
                "client sent too long header line",
                line,
            ));
        }
        if !complete {
            return Ok(());
        }
        let line = &line[..line.len() - 1];
        if is_first {
            request_line::parse(line)?;
            return Ok(());
        }
        if matches!(line, b"" | b"\r") {
            return Ok(());
        }
        self.field_lines += 1;
        if self.field_lines > limits.max_headers {
            return Err(RequestError::fields(Status::HEAD_TOO_LARGE, "client sent too many header lines"));
        }
        match field_line(line) {
            Some(_) => Ok(()),
            None => Err(RequestError::quoting(
                Status::BAD_REQUEST,
                "client sent invalid header line",
                trim_cr(line),
            )),
        }
    }
}

fn trim_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Fills `head` from complete lines that were checked one by one.
fn fill(text: &[u8], limits: &HeadLimits, head: &mut RequestHead) -> Result<(), RequestError> {
    head.clear();
    head.fields.store(text);
    head.wire_length = text.len() as u32;
    let mut at = 0;
    while let Some(length) = memchr::memchr(b'\n', &text[at..]) {
        let line = &text[at..at + length];
        if at == 0 {
            take_request_line(&request_line::parse(line)?, head);
        } else if let Some((name, value)) = field_line(line) {
            let name = at + name.start..at + name.end;
            let value = at + value.start..at + value.end;
            take_field(is_usual_name(&text[name.clone()], limits), name, value, limits, head);
        }
        at += length + 1;
    }
    Ok(())
}

/// Name and value of a field line without its LF; `None` if it breaks the rules.
fn field_line(line: &[u8]) -> Option<(Range<usize>, Range<usize>)> {
    let line = trim_cr(line);
    let colon = memchr::memchr(b':', line)?;
    let name_is_sane = colon > 0 && line[..colon].iter().all(|&byte| byte > b' ' && byte != 0x7f);
    let value = &line[colon + 1..];
    if !name_is_sane || memchr::memchr2(0, b'\r', value).is_some() {
        return None;
    }
    let is_space = |byte: &&u8| matches!(**byte, b' ' | b'\t');
    let leading = value.iter().take_while(is_space).count();
    let trailing = value[leading..].iter().rev().take_while(is_space).count();
    Some((0..colon, colon + 1 + leading..line.len() - trailing))
}

/// Whether nginx takes a name as it is: letters, digits and hyphens, and underscores where they are allowed.
pub(in crate::proto) fn is_usual_name(name: &[u8], limits: &HeadLimits) -> bool {
    const USUAL: [bool; 256] = {
        let mut table = [false; 256];
        let mut i = 0;
        while i < 256 {
            table[i] = (i as u8).is_ascii_alphanumeric() || i as u8 == b'-';
            i += 1;
        }
        table
    };
    name.iter().all(|&byte| USUAL[byte as usize] || (byte == b'_' && limits.underscores_in_headers))
}

fn span(range: Range<usize>) -> Span {
    Span { start: range.start as u32, end: range.end as u32 }
}

fn take_request_line(line: &RequestLine, head: &mut RequestHead) {
    head.request_line = span(0..line.length);
    head.method_text = span(line.method.clone());
    head.method = Method::of(head.text(head.method_text));
    head.version = line.version;
    head.authority = span(line.authority.clone());
    head.target = span(line.target.clone());
    // An authority without a path: the path is "/" (RFC 9112 section 3.2.1); of CONNECT nginx says the same.
    if head.text(head.target).first() != Some(&b'/') {
        let target = head.target;
        let (completed, ()) = head.fields.store_with(|text| {
            text.push(b'/');
            text.extend_from_within(target.start as usize..target.end as usize);
        });
        head.target = completed;
    }
}

fn take_field(
    usual: bool,
    name: Range<usize>,
    value: Range<usize>,
    limits: &HeadLimits,
    head: &mut RequestHead,
) {
    if usual || !limits.ignore_invalid_headers {
        head.push_stored(span(name), span(value));
        return;
    }
    if head.ignored_lines == 0 {
        let rest = &head.fields.text()[name.start..];
        let length = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        head.ignored_line = span(name.start..name.start + trim_cr(&rest[..length]).len());
    }
    head.ignored_lines += 1;
}
