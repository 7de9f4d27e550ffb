//! memcached's text protocol, as far as `get` of one key goes.
//!
//! The verbs are those of [`ResponseReader`](super::h1::ResponseReader): [`MemcachedReader::begin`] when a request goes
//! out, [`MemcachedReader::read`] until it says `NeedMore` or `End`, [`MemcachedReader::end_of_input`] when the server
//! closes, [`MemcachedReader::is_reusable`] before another request.

use crate::base::ascii::{append_decimal, parse_u64};
use crate::base::percent::{self, Escape};
use crate::message::{ResponseHead, Status};

use super::h1::{ResponseError, ResponseFault};

/// The field of a found value's head that holds its flags.
pub const FLAGS_FIELD: &[u8] = b"Memcached-Flags";

/// Longest line that a value may begin with, in bytes, whatever is configured.
const LINE_CEILING: usize = 16 * 1024 * 1024;

/// What follows a value.
const TRAILER: &[u8] = b"\r\nEND\r\n";

/// Appends the request for a key: what would end the line or divide it is escaped, as nginx does.
pub fn append_get(out: &mut Vec<u8>, key: &[u8]) {
    out.extend_from_slice(b"get ");
    percent::escape(out, key, Escape::Memcached);
    out.extend_from_slice(b"\r\n");
}

/// What `read` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemcachedEvent<'a> {
    /// The input is used up: feed more.
    NeedMore,
    /// The key has a value; the head that was passed is that of a 200, with its flags in [`FLAGS_FIELD`].
    Head {
        /// Bytes of the value.
        length: u64,
        /// What the client that stored it said about it.
        flags: u32,
    },
    /// The key has no value; the head that was passed is that of a 404. `End` comes next.
    NotFound,
    /// A piece of the value, never empty; it lies in the input.
    Body(&'a [u8]),
    /// The response is complete. From now on every call answers this and takes nothing.
    End,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Before the first request, or after a response.
    Idle,
    /// Before or within the first line.
    Line,
    /// Within the value; so many bytes are outstanding.
    Value(u64),
    /// Behind the value; so many bytes of the trailer came.
    Trailer(usize),
    /// The key was not found.
    Nothing,
    Broken(ResponseFault, &'static str),
}

/// Reads the responses of one connection, one at a time. It holds the key, and a first line that came in pieces.
#[derive(Debug)]
pub struct MemcachedReader {
    state: State,
    key: Vec<u8>,
    line: Vec<u8>,
    line_bytes: usize,
    has_begun: bool,
    is_sound: bool,
}

impl Default for MemcachedReader {
    fn default() -> Self {
        MemcachedReader::new()
    }
}

impl MemcachedReader {
    /// A connection before its first request.
    pub fn new() -> MemcachedReader {
        MemcachedReader {
            state: State::Idle,
            key: Vec::new(),
            line: Vec::new(),
            line_bytes: 0,
            has_begun: false,
            is_sound: true,
        }
    }

    /// Gets ready for the response to `request`, as [`append_get`] wrote it; its first line may have `line_bytes`
    /// (`memcached_buffer_size`). Only on a fresh connection, or where [`Self::is_reusable`].
    pub fn begin(&mut self, request: &[u8], line_bytes: usize) {
        debug_assert!(matches!(self.state, State::Idle), "the response before is incomplete");
        let key = request.strip_prefix(b"get ").unwrap_or(request);
        self.key.clear();
        self.key.extend_from_slice(key.strip_suffix(b"\r\n").unwrap_or(key));
        self.line.clear();
        self.line_bytes = line_bytes.min(LINE_CEILING);
        self.has_begun = false;
        self.state = State::Line;
    }

    /// Takes the next event from the front of `input`. `head` is cleared and filled when the event is `Head` or
    /// `NotFound`.
    ///
    /// # Errors
    /// What came is no answer to `get`; from then on every call answers the same and takes nothing.
    pub fn read<'a>(
        &mut self,
        input: &mut &'a [u8],
        head: &mut ResponseHead,
    ) -> Result<MemcachedEvent<'a>, ResponseError> {
        self.has_begun |= !input.is_empty() && !matches!(self.state, State::Idle);
        match self.state {
            State::Idle => {
                self.is_sound &= input.is_empty();
                Ok(MemcachedEvent::End)
            }
            State::Broken(fault, what) => Err(ResponseError::new(fault, what)),
            State::Nothing => Ok(self.end(input)),
            State::Line => self.read_line(input, head).map_err(|error| self.break_off(error)),
            State::Value(0) => self.read_trailer(input, 0),
            State::Trailer(seen) => self.read_trailer(input, seen),
            State::Value(_) if input.is_empty() => Ok(MemcachedEvent::NeedMore),
            State::Value(rest) => {
                let take = usize::try_from(rest).map_or(input.len(), |rest| rest.min(input.len()));
                let (data, later) = input.split_at(take);
                *input = later;
                self.state = State::Value(rest - take as u64);
                Ok(MemcachedEvent::Body(data))
            }
        }
    }

    fn read_line<'a>(
        &mut self,
        input: &mut &'a [u8],
        head: &mut ResponseHead,
    ) -> Result<MemcachedEvent<'a>, ResponseError> {
        let end = memchr::memchr(b'\n', input);
        let (piece, later) = input.split_at(end.map_or(input.len(), |end| end + 1));
        if self.line.len() + piece.len() > self.line_bytes {
            return Err(ResponseError::new(ResponseFault::HeaderTooBig, "upstream sent too big header"));
        }
        *input = later;
        if end.is_none() || !self.line.is_empty() {
            self.line.extend_from_slice(piece);
        }
        if end.is_none() {
            return Ok(MemcachedEvent::NeedMore);
        }
        let line = if self.line.is_empty() { piece } else { &self.line };
        let first = parse_line(line, &self.key)?;
        self.line.clear();
        head.clear();
        Ok(match first {
            None => {
                head.status = Status::NOT_FOUND;
                self.state = State::Nothing;
                MemcachedEvent::NotFound
            }
            Some((flags, length)) => {
                head.status = Status::OK;
                let (name, (value, ())) = (
                    head.fields.store(FLAGS_FIELD),
                    head.fields.store_with(|text| append_decimal(text, flags)),
                );
                head.fields.push_stored(name, value);
                self.state = State::Value(length);
                MemcachedEvent::Head { length, flags }
            }
        })
    }

    /// Reads what follows a value. The value is complete: a wrong ending costs only the connection, as with nginx.
    fn read_trailer<'a>(
        &mut self,
        input: &mut &'a [u8],
        mut seen: usize,
    ) -> Result<MemcachedEvent<'a>, ResponseError> {
        while let Some((byte, later)) = input.split_first() {
            if *byte != TRAILER[seen] {
                self.is_sound = false;
                return Ok(self.end(input));
            }
            *input = later;
            seen += 1;
            if seen == TRAILER.len() {
                return Ok(self.end(input));
            }
        }
        self.state = State::Trailer(seen);
        Ok(MemcachedEvent::NeedMore)
    }

    fn end<'a>(&mut self, input: &[u8]) -> MemcachedEvent<'a> {
        self.state = State::Idle;
        self.is_sound &= input.is_empty();
        MemcachedEvent::End
    }

    fn break_off(&mut self, error: ResponseError) -> ResponseError {
        self.state = State::Broken(error.fault, error.what);
        self.is_sound = false;
        error
    }

    /// The server closed its side, or the connection broke.
    ///
    /// # Errors
    /// Something is missing of the response.
    pub fn end_of_input(&mut self) -> Result<(), ResponseError> {
        self.is_sound = false;
        let (fault, what) = match self.state {
            State::Idle | State::Nothing => return Ok(()),
            State::Value(0) | State::Trailer(_) => {
                self.state = State::Idle;
                return Ok(());
            }
            State::Broken(fault, what) => (fault, what),
            State::Line if !self.has_begun => {
                (ResponseFault::NothingCame, "upstream closed the connection before its response began")
            }
            State::Line => (
                ResponseFault::HeaderTruncated,
                "upstream prematurely closed connection within its response header",
            ),
            State::Value(_) => (
                ResponseFault::BodyTruncated,
                "upstream prematurely closed connection within its response body",
            ),
        };
        Err(self.break_off(ResponseError::new(fault, what)))
    }

    /// Whether a byte of the response that was asked for last has come.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Bytes that may come by another way than `read` now; `None` where it has to see them.
    pub fn body_left(&self) -> Option<u64> {
        match self.state {
            State::Value(rest) if rest > 0 => Some(rest),
            _ => None,
        }
    }

    /// So many bytes of the value came by another way; at most [`Self::body_left`].
    pub fn skip(&mut self, bytes: u64) {
        if let State::Value(rest) = &mut self.state {
            *rest = rest.saturating_sub(bytes);
        }
    }

    /// Whether another request may follow: the response is complete, it ended as it should, and nothing came behind it.
    pub fn is_reusable(&self) -> bool {
        matches!(self.state, State::Idle) && self.is_sound
    }
}

/// `VALUE key flags length\r\n` or `END\r\n`.
fn parse_line(line: &[u8], key: &[u8]) -> Result<Option<(u32, u64)>, ResponseError> {
    let invalid = || ResponseError::quoting("upstream sent invalid response", line.trim_ascii_end());
    let text = line.strip_suffix(b"\r\n").ok_or_else(invalid)?;
    if text == b"END" {
        return Ok(None);
    }
    let rest = text.strip_prefix(b"VALUE ").ok_or_else(invalid)?;
    let mut words = rest.split(|byte| *byte == b' ');
    if words.next() != Some(key) {
        return Err(ResponseError::header("upstream sent a value of another key"));
    }
    let flags = words.next().and_then(parse_u64).and_then(|flags| u32::try_from(flags).ok());
    let length = words.next().and_then(parse_u64).filter(|length| i64::try_from(*length).is_ok());
    match (flags, length, words.next()) {
        (Some(flags), Some(length), None) => Ok(Some((flags, length))),
        _ => Err(invalid()),
    }
}

/// Law: a response in pieces of `step` bytes leads to the same as in one, also where the body passes by the machine; the machine holds no more than its bounds.
pub fn fuzz_memcached(key: &[u8], wire: &[u8], step: usize) {
    let whole = transcript(key, wire, wire.len(), false);
    assert_eq!(whole, transcript(key, wire, step, false));
    assert_eq!(whole, transcript(key, wire, step, true));
}

fn transcript(key: &[u8], wire: &[u8], step: usize, passes_by: bool) -> (Vec<String>, Vec<u8>) {
    const LINE_BYTES: usize = 64;
    let mut request = Vec::new();
    append_get(&mut request, key);
    assert_eq!(request.iter().filter(|byte| matches!(byte, b'\r' | b'\n' | b' ' | 0)).count(), 3);
    let mut reader = MemcachedReader::new();
    assert!(reader.is_reusable());
    reader.begin(&request, LINE_BYTES);
    let mut head = ResponseHead::default();
    let (mut events, mut body) = (Vec::new(), Vec::new());
    let mut has_head = false;
    for mut input in wire.chunks(step.max(1)) {
        loop {
            assert!(reader.line.len() <= LINE_BYTES);
            assert!(reader.has_begun() || !has_head);
            if let Some(left) = reader.body_left().filter(|_| passes_by && !input.is_empty()) {
                let (piece, behind) = input.split_at(input.len().min(left as usize));
                body.extend_from_slice(piece);
                reader.skip(piece.len() as u64);
                input = behind;
                continue;
            }
            match reader.read(&mut input, &mut head) {
                Ok(MemcachedEvent::NeedMore) => {
                    assert!(input.is_empty());
                    break;
                }
                Ok(MemcachedEvent::Body(piece)) => {
                    assert!(has_head && !piece.is_empty());
                    body.extend_from_slice(piece);
                }
                Ok(MemcachedEvent::End) => {
                    events.push("end".to_owned());
                    assert!(has_head && reader.end_of_input().is_ok());
                    return (events, body);
                }
                Ok(event) => {
                    assert!(!has_head);
                    has_head = true;
                    let status = if event == MemcachedEvent::NotFound { 404 } else { 200 };
                    assert_eq!(head.status.0, status);
                    events.push(format!("{event:?}"));
                }
                Err(error) => {
                    assert!(!reader.is_reusable() && reader.end_of_input().is_err());
                    events.push(error.token().to_owned());
                    return (events, body);
                }
            }
        }
    }
    events.push(
        reader.end_of_input().map_or_else(|error| error.token().to_owned(), |()| "complete".to_owned()),
    );
    assert!(!reader.is_reusable());
    (events, body)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(wire: &str) -> (Vec<String>, Vec<u8>) {
        transcript(b"a key", wire.as_bytes(), usize::MAX, false)
    }

    fn events(wire: &str) -> Vec<String> {
        read(wire).0
    }

    #[test]
    fn a_value_is_its_bytes_and_flags() {
        let (events, body) = read("VALUE a%20key 2 5\r\nhe\nlo\r\nEND\r\n");
        assert_eq!(events, ["Head { length: 5, flags: 2 }", "end"]);
        assert_eq!(body, b"he\nlo");
        assert_eq!(read("VALUE a%20key 0 0\r\n\r\nEND\r\n").0, ["Head { length: 0, flags: 0 }", "end"]);
        assert_eq!(events_of_missing(), ["NotFound", "end"]);
    }

    fn events_of_missing() -> Vec<String> {
        events("END\r\n")
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for wire in [
            "VALUE other 0 1\r\nx\r\nEND\r\n",
            "VALUE a key 0 1\r\n",
            "VALUE a%20key x 1\r\n",
            "VALUE a%20key 0 1x\r\n",
            "VALUE a%20key 0 -1\r\n",
            "VALUE a%20key 0 1 2\r\n",
            "VALUE a%20key 0 9223372036854775808\r\n",
            "VALUE a%20key 4294967296 1\r\n",
            "VALUE a%20key 0 1\n",
            "END\n",
            "SERVER_ERROR out of memory\r\n",
            "\r\n",
        ] {
            assert_eq!(events(wire), ["header_invalid"], "{wire:?}");
        }
        assert_eq!(events(&"x".repeat(65)), ["header_too_big"]);
        assert_eq!(events(""), ["reset_before_header"]);
        assert_eq!(events("VAL"), ["header_truncated"]);
        assert_eq!(events("VALUE a%20key 0 3\r\nab"), ["Head { length: 3, flags: 0 }", "body_truncated"]);
    }

    #[test]
    fn a_connection_is_reused_only_after_a_sound_end() {
        let reusable = |wire: &[u8]| {
            let mut request = Vec::new();
            append_get(&mut request, b"k");
            let mut reader = MemcachedReader::new();
            reader.begin(&request, 100);
            let (mut input, mut head) = (wire, ResponseHead::default());
            while !matches!(reader.read(&mut input, &mut head).unwrap(), MemcachedEvent::End) {}
            reader.is_reusable()
        };
        assert!(reusable(b"END\r\n"));
        assert!(reusable(b"VALUE k 0 1\r\nx\r\nEND\r\n"));
        assert!(!reusable(b"END\r\nEND\r\n"));
        assert!(!reusable(b"VALUE k 0 1\r\nxy\r\nEND\r\n"));
        assert!(!reusable(b"VALUE k 0 1\r\nx\r\nEND\r\nx"));
    }

    #[test]
    fn keys_cannot_end_their_line() {
        let mut out = Vec::new();
        append_get(&mut out, b"/a b\r\n%\x00\xff?c");
        assert_eq!(out, b"get /a%20b%0D%0A%25%00\xff?c\r\n");
    }

    proptest! {
        #[test]
        fn any_split_leads_to_the_same(
            wire in prop_oneof![
                r"(VALUE a 1 [0-9]\r\n[a-z\r\n]{0,12}(\r\nEND\r\n)?|END\r\n?|[A-Z ]{0,9}\r?\n?)",
                ".*",
            ],
            step in 1usize..20,
        ) {
            fuzz_memcached(b"a", wire.as_bytes(), step);
        }

        #[test]
        fn values_come_back(key: Vec<u8>, value: Vec<u8>, flags: u32, step in 1usize..9) {
            let mut wire = b"VALUE ".to_vec();
            percent::escape(&mut wire, &key, Escape::Memcached);
            wire.extend_from_slice(format!(" {flags} {}\r\n", value.len()).as_bytes());
            prop_assume!(wire.len() <= 64);
            wire.extend_from_slice(&value);
            wire.extend_from_slice(TRAILER);
            let (events, body) = transcript(&key, &wire, step, flags % 2 == 0);
            prop_assert_eq!(body, value);
            prop_assert_eq!(events.last().unwrap(), "end");
        }
    }
}
