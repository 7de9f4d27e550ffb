//! What an upstream did wrong.

use std::fmt;

/// The kinds of trouble with a response; each has a stable token for logs and variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResponseFault {
    /// The connection ended before the first byte of a response: the one case where the request may not have been seen.
    NothingCame,
    /// The connection ended within a head, or between an interim response and the final one.
    HeaderTruncated,
    /// A head that breaks the rules, or whose framing two readers could understand differently.
    HeaderInvalid,
    /// A head over its limit.
    HeaderTooBig,
    /// Broken chunks.
    BodyInvalid,
    /// The connection ended within a body whose end is marked.
    BodyTruncated,
    /// A trailer section over its limit.
    TrailersTooBig,
}

impl ResponseFault {
    /// The token of `$upstream_error`.
    pub fn token(self) -> &'static str {
        match self {
            ResponseFault::NothingCame => "reset_before_header",
            ResponseFault::HeaderTruncated => "header_truncated",
            ResponseFault::HeaderInvalid => "header_invalid",
            ResponseFault::HeaderTooBig => "header_too_big",
            ResponseFault::BodyInvalid => "body_invalid",
            ResponseFault::BodyTruncated => "body_truncated",
            ResponseFault::TrailersTooBig => "trailers_too_big",
        }
    }
}

/// A response that can't be used, or not any further. The connection is of no more use either.
///
/// It displays as a sentence for the error log, beginning with "upstream", in nginx's words where nginx has some; what
/// is quoted of the upstream's bytes is escaped and short. Values of fields are not quoted but for those that frame
/// messages: they may be secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseError {
    /// The kind.
    pub fault: ResponseFault,
    /// What happened, without what is quoted.
    pub what: &'static str,
    quoted: Option<Box<[u8]>>,
}

impl ResponseError {
    /// Most bytes of a response that are quoted.
    pub const QUOTED_LIMIT: usize = 96;

    pub(in crate::proto) fn new(fault: ResponseFault, what: &'static str) -> ResponseError {
        ResponseError { fault, what, quoted: None }
    }

    pub(in crate::proto) fn header(what: &'static str) -> ResponseError {
        ResponseError::new(ResponseFault::HeaderInvalid, what)
    }

    pub(in crate::proto) fn quoting(what: &'static str, quoted: &[u8]) -> ResponseError {
        let shown = &quoted[..quoted.len().min(ResponseError::QUOTED_LIMIT)];
        ResponseError { quoted: Some(shown.into()), ..ResponseError::header(what) }
    }

    /// The token of `$upstream_error`.
    pub fn token(&self) -> &'static str {
        self.fault.token()
    }
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)?;
        match &self.quoted {
            Some(quoted) => write!(f, ": \"{}\"", quoted.escape_ascii()),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ResponseError {}
