//! What a client did wrong.

use std::borrow::Cow;

use crate::message::Status;

/// A request that is refused. Nothing more is read from the connection, and it is closed after the answer.
///
/// nginx logs all of these at `info`. What was parsed before the error stays in the head, so that a log line can
/// show the request line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestError {
    /// The answer's status; 494 is sent as 400.
    pub status: Status,
    /// As nginx says it, without its "while reading client request line" or "headers" (see `phase`). Parts that came
    /// from the client are bounded by [`RequestError::QUOTED_LIMIT`], and not escaped.
    pub message: Cow<'static, [u8]>,
    /// What was being read, as nginx's log context says it.
    pub phase: &'static str,
}

impl RequestError {
    /// Most bytes of a client's line that a message quotes.
    pub const QUOTED_LIMIT: usize = 256;

    pub(super) const LINE: &'static str = "reading client request line";
    pub(super) const FIELDS: &'static str = "reading client request headers";

    pub(in crate::proto) fn line(status: Status, message: &'static str) -> RequestError {
        RequestError { status, message: Cow::Borrowed(message.as_bytes()), phase: RequestError::LINE }
    }

    pub(in crate::proto) fn fields(status: Status, message: &'static str) -> RequestError {
        RequestError { status, message: Cow::Borrowed(message.as_bytes()), phase: RequestError::FIELDS }
    }

    pub(in crate::proto) fn quoting(status: Status, message: &str, quoted: &[u8]) -> RequestError {
        let shown = &quoted[..quoted.len().min(RequestError::QUOTED_LIMIT)];
        let dots: &[u8] = if shown.len() < quoted.len() { b"...\"" } else { b"\"" };
        let text = [message.as_bytes(), b": \"", shown, dots].concat();
        RequestError { status, message: Cow::Owned(text), phase: RequestError::FIELDS }
    }

    pub(super) fn body(status: Status, message: &'static str) -> RequestError {
        RequestError {
            status,
            message: Cow::Borrowed(message.as_bytes()),
            phase: "reading client request body",
        }
    }
}
