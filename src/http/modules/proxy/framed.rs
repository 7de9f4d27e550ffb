//! Request heads for HTTP/2 beside those for HTTP/1: the same lines, not written yet.

use crate::base::ascii::is_token;
use crate::http::upstream_call::FramedHead;
use crate::message::{FieldName, RequestFraming};
use crate::proto::h1::{RequestWriteError, RequestWriter};

/// Whoever takes the lines of a request's head.
pub trait HeadWriter {
    /// Takes a line.
    ///
    /// # Errors
    /// `Name`, `Value`, and `Framing` for fields that frame the body. The line is not taken then.
    fn put(&mut self, name: &[u8], value: &[u8]) -> Result<(), RequestWriteError>;
}

impl HeadWriter for RequestWriter<'_> {
    fn put(&mut self, name: &[u8], value: &[u8]) -> Result<(), RequestWriteError> {
        self.field(name, value)
    }
}

/// Begins a head. `path` is escaped as it is to be sent.
///
/// # Errors
/// `Method`, `Target`.
pub fn begin(
    head: &mut FramedHead,
    method: &[u8],
    path: &[u8],
    framing: RequestFraming,
) -> Result<(), RequestWriteError> {
    if !is_token(method) {
        return Err(RequestWriteError::Method);
    }
    let is_path = path.first() == Some(&b'/') || path == b"*";
    if !is_path || path.iter().any(|&byte| byte <= b' ' || byte == 0x7f) {
        return Err(RequestWriteError::Target);
    }
    head.method.extend_from_slice(method);
    head.path.extend_from_slice(path);
    head.framing = framing;
    Ok(())
}

impl HeadWriter for FramedHead {
    fn put(&mut self, name: &[u8], value: &[u8]) -> Result<(), RequestWriteError> {
        if !is_token(name) {
            return Err(RequestWriteError::Name);
        }
        if memchr::memchr3(b'\r', b'\n', 0, value).is_some() {
            return Err(RequestWriteError::Value);
        }
        match FieldName::of(name) {
            FieldName::Host if value.iter().any(|&byte| byte <= b' ' || byte == 0x7f) => {
                return Err(RequestWriteError::Value);
            }
            FieldName::Host => {
                self.authority.clear();
                self.authority.extend_from_slice(value);
            }
            FieldName::ContentLength | FieldName::TransferEncoding => return Err(RequestWriteError::Framing),
            _ => self.fields.push(name, value),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_break_a_request_is_not_taken() {
        let mut head = FramedHead::default();
        assert_eq!(begin(&mut head, b"G T", b"/", RequestFraming::None), Err(RequestWriteError::Method));
        assert_eq!(begin(&mut head, b"GET", b"a", RequestFraming::None), Err(RequestWriteError::Target));
        assert_eq!(begin(&mut head, b"GET", b"/ ", RequestFraming::None), Err(RequestWriteError::Target));
        assert_eq!(head.put(b"a b", b"c"), Err(RequestWriteError::Name));
        assert_eq!(head.put(b"a", b"c\r\nd: e"), Err(RequestWriteError::Value));
        assert_eq!(head.put(b"Host", b"a b"), Err(RequestWriteError::Value));
        assert_eq!(head.put(b"Content-Length", b"1"), Err(RequestWriteError::Framing));
        assert!(head.method.is_empty() && head.fields.is_empty() && head.authority.is_empty());
        assert_eq!(head.put(b"Host", b"a:1"), Ok(()));
        assert_eq!(head.authority, b"a:1");
    }
}
