//! The chunked transfer coding (RFC 9112 section 7.1), both ways.

use crate::message::Fields;

use super::encode::end_line;

/// Ends every chunk's data.
pub const CHUNK_SUFFIX: &[u8] = b"\r\n";

/// Most hexadecimal digits of a chunk size: 64 bits.
const SIZE_DIGITS: u8 = 16;
/// Largest size of a chunk: a signed 64-bit file offset, as nginx has it.
const SIZE_LIMIT: u64 = i64::MAX as u64;

/// Bounds on what a chunked body carries beside its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkLimits {
    /// Most bytes that all chunk extensions of one body may take together: they mean nothing to us, and one byte of data
    /// could otherwise cost any amount of them.
    pub extension_bytes: u32,
    /// Most bytes of a trailer section.
    pub trailer_bytes: u32,
}

impl Default for ChunkLimits {
    /// Trailers take as much as one large header buffer.
    fn default() -> Self {
        ChunkLimits { extension_bytes: 16 * 1024, trailer_bytes: 8 * 1024 }
    }
}

/// Chunk framing that breaks the rules; the message's end can't be found any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkError {
    /// A byte that does not belong there (a bare CR or LF, no digit, a sign, ...), or a size over 63 bits.
    Invalid,
    /// More bytes of extensions than allowed.
    ExtensionsTooLong,
    /// More bytes of trailers than allowed.
    TrailersTooLong,
}

/// What a chunked body yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkedItem<'a> {
    /// The input is used up.
    NeedMore,
    /// Content.
    Data(&'a [u8]),
    /// The body ended; what is left of the input belongs to the next message.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    SizeStart,
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    End,
    Failed,
}

/// Decodes a chunked body byte by byte outside of its data, so that it does not matter where the input is cut.
#[derive(Clone, Copy, Debug)]
pub struct ChunkedDecoder {
    /// The size being read, then what is left of the chunk.
    rest: u64,
    /// Extension bytes of the whole body, then trailer bytes.
    extra: u32,
    limits: ChunkLimits,
    digits: u8,
    state: State,
}

impl Default for ChunkedDecoder {
    fn default() -> Self {
        ChunkedDecoder::new(ChunkLimits::default())
    }
}

impl ChunkedDecoder {
    /// Before the first chunk.
    pub fn new(limits: ChunkLimits) -> ChunkedDecoder {
        ChunkedDecoder { rest: 0, extra: 0, limits, digits: 0, state: State::SizeStart }
    }

    /// Takes the next item from the front of `input`. The raw bytes of the trailer section are checked, and appended to
    /// `trailers` where there is one (`trailer_bytes` at most); [`parse_trailers`] makes fields of them. After an error or the
    /// end, every call answers the same again and takes nothing.
    pub fn read<'a>(
        &mut self,
        input: &mut &'a [u8],
        mut trailers: Option<&mut Vec<u8>>,
    ) -> Result<ChunkedItem<'a>, ChunkError> {
        loop {
            match self.state {
                State::Data if input.is_empty() => return Ok(ChunkedItem::NeedMore),
                State::Data => {
                    let take = usize::try_from(self.rest).map_or(input.len(), |rest| rest.min(input.len()));
                    let (data, rest) = input.split_at(take);
                    *input = rest;
                    self.rest -= take as u64;
                    if self.rest == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok(ChunkedItem::Data(data));
                }
                State::End => return Ok(ChunkedItem::End),
                State::Failed => return Err(ChunkError::Invalid),
                _ => {}
            }
            let Some((&byte, rest)) = input.split_first() else { return Ok(ChunkedItem::NeedMore) };
            let before = self.state;
            match self.step(byte) {
                Ok(next) => self.state = next,
                Err(error) => {
                    self.state = State::Failed;
                    return Err(error);
                }
            }
            *input = rest;
            if let Some(text) = trailers.as_deref_mut()
                && (before as u8) >= State::TrailerStart as u8
                && self.state != State::EndLf
                && self.state != State::End
            {
                text.push(byte);
            }
        }
    }

    /// Whether the end was reached.
    pub fn is_ended(&self) -> bool {
        self.state == State::End
    }

    fn step(&mut self, byte: u8) -> Result<State, ChunkError> {
        match (self.state, byte) {
            (State::SizeStart | State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.digit(byte),
            (State::Size, b'\r') => Ok(State::SizeLf),
            // RFC 9112 allows whitespace before an extension; nginx takes it anywhere after the size.
            (State::Size, b';' | b' ' | b'\t') => self.count_extension(),
            (State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => self.count_extension(),
            (State::SizeLf, b'\n') => {
                self.digits = 0;
                if self.rest == 0 {
                    self.extra = 0;
                    Ok(State::TrailerStart)
                } else {
                    Ok(State::Data)
                }
            }
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::SizeStart),
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::TrailerStart | State::TrailerName, byte) if is_token(byte) => {
                self.count_trailer(State::TrailerName)
            }
            (State::TrailerName, b':') => self.count_trailer(State::TrailerValue),
            (State::TrailerValue, b'\r') => self.count_trailer(State::TrailerLf),
            (State::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => self.count_trailer(State::TrailerValue),
            (State::TrailerLf, b'\n') => self.count_trailer(State::TrailerStart),
            (State::EndLf, b'\n') => Ok(State::End),
            _ => Err(ChunkError::Invalid),
        }
    }

    fn digit(&mut self, byte: u8) -> Result<State, ChunkError> {
        let value = (byte as char).to_digit(16).unwrap_or(0);
        if self.digits == SIZE_DIGITS {
            return Err(ChunkError::Invalid);
        }
        // SizeStart is reached with `rest` at 0: every chunk is read to its end.
        if self.rest > (SIZE_LIMIT >> 4) {
            return Err(ChunkError::Invalid);
        }
        self.digits += 1;
        self.rest = (self.rest << 4) | u64::from(value);
        Ok(State::Size)
    }

    fn count_extension(&mut self) -> Result<State, ChunkError> {
        if self.extra >= self.limits.extension_bytes {
            return Err(ChunkError::ExtensionsTooLong);
        }
        self.extra += 1;
        Ok(State::Extension)
    }

    fn count_trailer(&mut self, next: State) -> Result<State, ChunkError> {
        if self.extra >= self.limits.trailer_bytes {
            return Err(ChunkError::TrailersTooLong);
        }
        self.extra += 1;
        Ok(next)
    }
}

/// A `tchar` of RFC 9110 section 5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let mut i = 0;
        while i < 256 {
            let byte = i as u8;
            table[i] = byte.is_ascii_alphanumeric()
                || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~');
            i += 1;
        }
        table
    };
    TOKEN[byte as usize]
}

/// Appends the lines of a trailer section that a [`ChunkedDecoder`] collected, whitespace around values removed.
pub fn parse_trailers(section: &[u8], fields: &mut Fields) {
    for line in section.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some(colon) = memchr::memchr(b':', line) {
            fields.push(&line[..colon], line[colon + 1..].trim_ascii());
        }
    }
}

/// Appends what goes before a chunk of `length` bytes: its size in hexadecimal. A chunk of 0 bytes would end the body:
/// nothing is written for it, and the caller writes no suffix either.
pub fn chunk_prefix(length: u64, out: &mut Vec<u8>) {
    if length == 0 {
        return;
    }
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0u8; 16];
    let mut at = text.len();
    let mut rest = length;
    while rest > 0 {
        at -= 1;
        text[at] = DIGITS[(rest & 15) as usize];
        rest >>= 4;
    }
    out.extend_from_slice(&text[at..]);
    out.extend_from_slice(b"\r\n");
}

/// Appends the last chunk and the trailers.
pub fn finish(trailers: Option<&Fields>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        for (_, name, value) in trailers.iter() {
            out.extend_from_slice(name);
            out.extend_from_slice(b": ");
            end_line(value, out);
        }
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(wire: &[u8]) -> (Vec<u8>, Result<Option<usize>, ChunkError>) {
        let mut decoder = ChunkedDecoder::default();
        let mut content = Vec::new();
        let mut input = wire;
        loop {
            match decoder.read(&mut input, None) {
                Ok(ChunkedItem::NeedMore) => return (content, Ok(None)),
                Ok(ChunkedItem::Data(data)) => content.extend_from_slice(data),
                Ok(ChunkedItem::End) => return (content, Ok(Some(wire.len() - input.len()))),
                Err(error) => return (content, Err(error)),
            }
        }
    }

    #[test]
    fn content_is_found_between_sizes() {
        assert_eq!(decode(b"5\r\nhello\r\n0\r\n\r\nGET"), (b"hello".to_vec(), Ok(Some(15))));
        assert_eq!(decode(b"5;a=b\r\nhello\r\nA \t;x\r\n0123456789\r\n00\r\n\r\n").0, b"hello0123456789");
        assert_eq!(decode(b"5\r\nhel"), (b"hel".to_vec(), Ok(None)));
        assert_eq!(decode(b"5\r\nhello\r\n0\r\n"), (b"hello".to_vec(), Ok(None)));
        assert_eq!(decode(b"0\r\nA: b\r\nC:\r\n\r\nX").1, Ok(Some(15)));
    }

    #[test]
    fn doubtful_framing_is_refused() {
        let bad: [&[u8]; 23] = [
            b"\r\n",
            b";x\r\n",
            b" 5\r\n",
            b"+5\r\n",
            b"-5\r\n",
            b"0x5\r\n",
            b"5\n",
            b"5\rx",
            b"5;a\nb",
            b"5;a\rb",
            b"g\r\n",
            b"5;\0",
            b"8000000000000000\r\n",
            b"00000000000000005\r\n",
            b"5\r\nhellox",
            b"5\r\nhello\n",
            b"5\r\nhello\rx",
            b"0\r\n\n",
            b"0\r\nA\r\n",
            b"0\r\n A: b\r\n",
            b"0\r\nA: b\n",
            b"0\r\nA: \0",
            b"0\r\n: b",
        ];
        for wire in bad {
            assert_eq!(decode(wire).1, Err(ChunkError::Invalid), "{}", wire.escape_ascii());
        }
        assert_eq!(decode(b"7fffffffffffffff\r\na"), (b"a".to_vec(), Ok(None)));
    }

    #[test]
    fn extensions_and_trailers_are_bounded_over_the_whole_body() {
        let extension = [b"1;", &vec![b'a'; 9000][..], b"\r\nx\r\n"].concat();
        assert_eq!(decode(&extension).1, Ok(None));
        assert_eq!(decode(&extension.repeat(2)).1, Err(ChunkError::ExtensionsTooLong));
        let trailer = [b"0\r\nA: ", &vec![b'a'; 9000][..]].concat();
        assert_eq!(decode(&trailer).1, Err(ChunkError::TrailersTooLong));
    }

    #[test]
    fn a_token_is_what_the_specification_lists() {
        let token: Vec<u8> = (0..=255).filter(|&byte| is_token(byte)).collect();
        let mut listed = b"!#$%&'*+-.^_`|~".to_vec();
        listed.extend((b'0'..=b'9').chain(b'a'..=b'z').chain(b'A'..=b'Z'));
        listed.sort_unstable();
        assert_eq!(token, listed);
    }

    #[test]
    fn trailers_are_kept_on_demand() {
        let mut section = Vec::new();
        let mut input = &b"0\r\nA: b \r\nC:d\r\n\r\n"[..];
        let end = ChunkedDecoder::default().read(&mut input, Some(&mut section));
        assert_eq!(end, Ok(ChunkedItem::End));
        let mut fields = Fields::default();
        parse_trailers(&section, &mut fields);
        let lines: Vec<_> = fields.iter().map(|(_, name, value)| (name, value)).collect();
        assert_eq!(lines, [(&b"A"[..], &b"b"[..]), (b"C", b"d")]);
    }

    #[test]
    fn chunks_are_written_with_hexadecimal_sizes() {
        let mut out = Vec::new();
        chunk_prefix(0, &mut out);
        assert!(out.is_empty());
        chunk_prefix(0x1a0f, &mut out);
        let mut trailers = Fields::default();
        trailers.push(b"A", b"b");
        finish(Some(&trailers), &mut out);
        assert_eq!(out, b"1a0f\r\n0\r\nA: b\r\n\r\n");
    }
}
