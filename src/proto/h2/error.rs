//! What goes wrong on a connection or a stream, and how it is said on the wire.

use std::fmt;

use super::abuse::Limit;

/// An error code of RFC 9113 section 7. Codes that are not listed there are kept as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub u32);

macro_rules! error_codes {
    ($($name:ident $value:literal),+ $(,)?) => {
        impl ErrorCode {
            $(#[doc = stringify!($name)] pub const $name: ErrorCode = ErrorCode($value);)+

            /// The name of RFC 9113 section 7; `unknown` for any other code.
            pub fn name(self) -> &'static str {
                match self.0 {
                    $($value => stringify!($name),)+
                    _ => "unknown",
                }
            }
        }
    };
}

error_codes! {
    NO_ERROR 0x0,
    PROTOCOL_ERROR 0x1,
    INTERNAL_ERROR 0x2,
    FLOW_CONTROL_ERROR 0x3,
    SETTINGS_TIMEOUT 0x4,
    STREAM_CLOSED 0x5,
    FRAME_SIZE_ERROR 0x6,
    REFUSED_STREAM 0x7,
    CANCEL 0x8,
    COMPRESSION_ERROR 0x9,
    CONNECT_ERROR 0xa,
    ENHANCE_YOUR_CALM 0xb,
    INADEQUATE_SECURITY 0xc,
    HTTP_1_1_REQUIRED 0xd,
}

/// The peer broke a rule for the whole connection (RFC 9113 section 5.4.1), or reached a limit against abuse. A GOAWAY
/// with this code has been appended to the output: what is left is to send it and to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionError {
    /// What the peer is told.
    pub code: ErrorCode,
    /// What it did, for the log; begins in lower case and names the section where it is not obvious.
    pub reason: &'static str,
    /// The limit that was reached, if it was one.
    pub limit: Option<Limit>,
}

impl ConnectionError {
    pub(super) const fn new(code: ErrorCode, reason: &'static str) -> ConnectionError {
        ConnectionError { code, reason, limit: None }
    }

    pub(super) const fn protocol(reason: &'static str) -> ConnectionError {
        ConnectionError::new(ErrorCode::PROTOCOL_ERROR, reason)
    }

    pub(super) const fn size(reason: &'static str) -> ConnectionError {
        ConnectionError::new(ErrorCode::FRAME_SIZE_ERROR, reason)
    }

    pub(super) const fn flow(reason: &'static str) -> ConnectionError {
        ConnectionError::new(ErrorCode::FLOW_CONTROL_ERROR, reason)
    }

    pub(super) const fn compression(reason: &'static str) -> ConnectionError {
        ConnectionError::new(ErrorCode::COMPRESSION_ERROR, reason)
    }

    pub(super) fn limit(limit: Limit) -> ConnectionError {
        ConnectionError {
            code: ErrorCode::ENHANCE_YOUR_CALM,
            reason: limit.description(),
            limit: Some(limit),
        }
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason, self.code.name())
    }
}

impl std::error::Error for ConnectionError {}

/// The peer broke a rule for one stream (RFC 9113 section 5.4.2): that stream is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamError {
    pub code: ErrorCode,
    pub reason: &'static str,
}

impl StreamError {
    pub(super) const fn new(code: ErrorCode, reason: &'static str) -> StreamError {
        StreamError { code, reason }
    }

    /// A malformed message (RFC 9113 section 8.1.1).
    pub(super) const fn malformed(reason: &'static str) -> StreamError {
        StreamError::new(ErrorCode::PROTOCOL_ERROR, reason)
    }
}

/// Why a stream is gone before both sides ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLoss {
    /// The code that was received, or that was sent.
    pub code: ErrorCode,
    /// For the log.
    pub reason: &'static str,
    /// Whether the peer gave it up (RST_STREAM, GOAWAY); otherwise this side did, over something the peer did.
    pub by_peer: bool,
    /// Whether the request may have been acted upon. `false` only where the peer said that it was not (REFUSED_STREAM,
    /// or a GOAWAY with a lower last stream): it may be sent again elsewhere, whatever its method (RFC 9113 section 8.7).
    pub may_be_processed: bool,
}
