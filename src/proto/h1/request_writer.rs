//! Request heads as bytes, for upstreams.

use std::fmt;

use crate::message::{FieldName, RequestFraming, Version};

use super::chunked::is_token;

/// What must not be written: it would break the request, or let a client write lines of its own into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestWriteError {
    /// The method is no token.
    Method,
    /// The target is empty, or has a space or a control character in it.
    Target,
    /// A field's name is no token.
    Name,
    /// A field's value has a CR, LF or NUL in it.
    Value,
    /// Content-Length or Transfer-Encoding as a field, a framing after another, or a chunked body with HTTP/1.0.
    Framing,
}

impl fmt::Display for RequestWriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RequestWriteError::Method => "the method of a request to an upstream is no token",
            RequestWriteError::Target => {
                "a space or control character in the URI of a request to an upstream"
            }
            RequestWriteError::Name => "a header name in a request to an upstream is no token",
            RequestWriteError::Value => "a line end or NUL in a header of a request to an upstream",
            RequestWriteError::Framing => "the body of a request to an upstream can't be framed as asked for",
        })
    }
}

impl std::error::Error for RequestWriteError {}

/// Appends one request's head to a buffer: start line, field lines and framing in the order of the calls. Only what
/// `finish` ended stays there: dropped before that, after an error say, it leaves the buffer as it was.
///
/// A chunked body follows with [`chunk_prefix`](super::chunk_prefix), [`CHUNK_SUFFIX`](super::CHUNK_SUFFIX) and
/// [`finish`](super::finish()).
#[derive(Debug)]
pub struct RequestWriter<'o> {
    out: &'o mut Vec<u8>,
    /// The buffer's length without this request.
    before: usize,
    version: Version,
    is_framed: bool,
    is_finished: bool,
}

impl<'o> RequestWriter<'o> {
    /// Appends the start line. `target` is in whatever form the caller means, escaped as it is to be sent (bytes above
    /// 127 pass, as nginx lets them). Every version but HTTP/1.0 is written as HTTP/1.1.
    ///
    /// # Errors
    /// `Method`, `Target`.
    pub fn begin(
        out: &'o mut Vec<u8>,
        method: &[u8],
        target: &[u8],
        version: Version,
    ) -> Result<RequestWriter<'o>, RequestWriteError> {
        if method.is_empty() || !method.iter().all(|&byte| is_token(byte)) {
            return Err(RequestWriteError::Method);
        }
        if target.is_empty() || target.iter().any(|&byte| byte <= b' ' || byte == 0x7f) {
            return Err(RequestWriteError::Target);
        }
        let before = out.len();
        out.extend_from_slice(method);
        out.push(b' ');
        out.extend_from_slice(target);
        out.extend_from_slice(match version {
            Version::Http10 => b" HTTP/1.0\r\n",
            _ => b" HTTP/1.1\r\n",
        });
        Ok(RequestWriter { out, before, version, is_framed: false, is_finished: false })
    }

    /// Appends a field line. The framing fields are written by [`Self::framing`] alone.
    ///
    /// # Errors
    /// `Name`, `Value`, and `Framing` for Content-Length and Transfer-Encoding. Nothing of this line is written then.
    pub fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), RequestWriteError> {
        if matches!(FieldName::of(name), FieldName::ContentLength | FieldName::TransferEncoding) {
            return Err(RequestWriteError::Framing);
        }
        if name.is_empty() || !name.iter().all(|&byte| is_token(byte)) {
            return Err(RequestWriteError::Name);
        }
        if memchr::memchr3(b'\r', b'\n', 0, value).is_some() {
            return Err(RequestWriteError::Value);
        }
        self.line(name, value);
        Ok(())
    }

    /// Appends the field that frames the body: Content-Length (also for a length of 0), Transfer-Encoding, or none.
    /// At most once; without a call there is no body.
    ///
    /// # Errors
    /// `Framing`, for the second call, and for `Streamed` with HTTP/1.0.
    pub fn framing(&mut self, framing: RequestFraming) -> Result<(), RequestWriteError> {
        if self.is_framed || (framing == RequestFraming::Streamed && self.version == Version::Http10) {
            return Err(RequestWriteError::Framing);
        }
        self.is_framed = true;
        match framing {
            RequestFraming::None => {}
            RequestFraming::Length(length) => {
                self.line(b"Content-Length", itoa::Buffer::new().format(length).as_bytes());
            }
            RequestFraming::Streamed => self.line(b"Transfer-Encoding", b"chunked"),
        }
        Ok(())
    }

    /// Appends the empty line. What was written is a whole head now.
    pub fn finish(mut self) {
        self.out.extend_from_slice(b"\r\n");
        self.is_finished = true;
    }

    fn line(&mut self, name: &[u8], value: &[u8]) {
        self.out.extend_from_slice(name);
        self.out.extend_from_slice(b": ");
        self.out.extend_from_slice(value);
        self.out.extend_from_slice(b"\r\n");
    }
}

impl Drop for RequestWriter<'_> {
    fn drop(&mut self) {
        if !self.is_finished {
            self.out.truncate(self.before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_written_in_the_order_of_the_calls() {
        let mut out = b"before".to_vec();
        let mut writer = RequestWriter::begin(&mut out, b"POST", b"/a%20b?c\xff", Version::Http11).unwrap();
        writer.field(b"Host", b"example.com").unwrap();
        writer.framing(RequestFraming::Length(0)).unwrap();
        writer.field(b"X-Empty", b"").unwrap();
        writer.finish();
        let expected =
            b"beforePOST /a%20b?c\xff HTTP/1.1\r\nHost: example.com\r\nContent-Length: 0\r\nX-Empty: \r\n\r\n";
        assert_eq!(out, expected);
    }

    #[test]
    fn a_body_is_chunked_for_http_11_only() {
        let mut out = Vec::new();
        let mut writer = RequestWriter::begin(&mut out, b"PUT", b"*", Version::Http11).unwrap();
        assert_eq!(writer.framing(RequestFraming::Streamed), Ok(()));
        assert_eq!(writer.framing(RequestFraming::Length(5)), Err(RequestWriteError::Framing));
        writer.finish();
        assert_eq!(out, b"PUT * HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
        let mut writer = RequestWriter::begin(&mut out, b"PUT", b"/", Version::Http10).unwrap();
        assert_eq!(writer.framing(RequestFraming::Streamed), Err(RequestWriteError::Framing));
        assert_eq!(writer.framing(RequestFraming::None), Ok(()));
        writer.finish();
        assert!(out.ends_with(b"\r\n\r\nPUT / HTTP/1.0\r\n\r\n"));
    }

    #[test]
    fn nothing_that_breaks_a_line_is_written() {
        for method in [&b""[..], b"GET ", b"G\tT", b"GET\r\nX:", b"G\xe9T", b"GE:T", b"GET\0"] {
            let error = RequestWriter::begin(&mut Vec::new(), method, b"/", Version::Http11).err();
            assert_eq!(error, Some(RequestWriteError::Method), "{}", method.escape_ascii());
        }
        for target in [&b""[..], b"/a b", b"/\t", b"/\r\nX: y", b"/\n", b"/\0", b"/\x1f", b"/\x7f"] {
            let error = RequestWriter::begin(&mut Vec::new(), b"GET", target, Version::Http11).err();
            assert_eq!(error, Some(RequestWriteError::Target), "{}", target.escape_ascii());
        }
        let mut out = Vec::new();
        let mut writer = RequestWriter::begin(&mut out, b"GET", b"/", Version::Http11).unwrap();
        for name in [&b""[..], b"A B", b"A:", b"A\r\nB", b"A ", b" A", b"\xe9", b"A\0"] {
            assert_eq!(writer.field(name, b"v"), Err(RequestWriteError::Name), "{}", name.escape_ascii());
        }
        for value in [&b"a\r\nB: c"[..], b"\n", b"\r", b"a\0"] {
            assert_eq!(writer.field(b"A", value), Err(RequestWriteError::Value), "{}", value.escape_ascii());
        }
        for name in [&b"content-length"[..], b"Transfer-Encoding"] {
            assert_eq!(writer.field(name, b"5"), Err(RequestWriteError::Framing));
        }
        writer.finish();
        assert_eq!(out, b"GET / HTTP/1.1\r\n\r\n");
    }

    #[test]
    fn an_unfinished_request_leaves_no_trace() {
        let mut out = b"before".to_vec();
        let mut writer = RequestWriter::begin(&mut out, b"GET", b"/", Version::Http11).unwrap();
        writer.field(b"A", b"b").unwrap();
        drop(writer);
        assert_eq!(out, b"before");
    }
}
