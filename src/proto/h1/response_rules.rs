//! What a response's head means: where its body ends, whether its connection lives on (RFC 9112 sections 6.3 and 9.3).

use crate::message::{FieldName, Fields, ResponseFraming, ResponseHead};

use super::response_error::ResponseError;
use super::response_reader::{Asked, HeadFacts};
use super::rules::{add_connection_tokens, parse_length};

/// What the lines say that the wire is concerned with.
#[derive(Default)]
struct WireFields<'h> {
    length: Option<&'h [u8]>,
    coding: Option<&'h [u8]>,
    lengths: u32,
    codings: u32,
    /// `close` and `keep-alive` of Connection.
    connection: (bool, bool),
    timeout: Option<u64>,
}

fn wire_fields(fields: &Fields) -> WireFields<'_> {
    let mut found = WireFields::default();
    for field in fields.list() {
        match field.id {
            FieldName::ContentLength => {
                found.length = Some(fields.get(field.value));
                found.lengths += 1;
            }
            FieldName::TransferEncoding => {
                found.coding = Some(fields.get(field.value));
                found.codings += 1;
            }
            FieldName::Connection => add_connection_tokens(fields.get(field.value), &mut found.connection),
            FieldName::KeepAlive => {
                found.timeout = found.timeout.or_else(|| keep_alive_timeout(fields.get(field.value)));
            }
            _ => {}
        }
    }
    found
}

/// Judges a head that is well formed. Sets the head's `content_length` where the length of the content is known, of
/// answers to HEAD and of 304 the one that GET would have had.
pub(super) fn judge(head: &mut ResponseHead, minor: u8, asked: &Asked) -> Result<HeadFacts, ResponseError> {
    let found = wire_fields(&head.fields);
    let status = head.status.0;
    let switched = if status == 101 {
        if !asked.upgrade {
            return Err(ResponseError::header("upstream sent 101 although no upgrade was asked for"));
        }
        true
    } else {
        asked.connect && (200..300).contains(&status)
    };
    let mut facts = HeadFacts {
        framing: ResponseFraming::UntilClose,
        persistent: false,
        switched,
        keep_alive_timeout_secs: found.timeout,
        http_minor: minor,
    };
    // A tunnel begins right behind the head, whatever the fields say (RFC 9110 section 9.3.6).
    if switched {
        return Ok(facts);
    }
    let (length, is_chunked) = marked_end(&found, minor)?;
    facts.framing = if asked.head || head.status.forbids_content() {
        ResponseFraming::None
    } else if is_chunked {
        ResponseFraming::Streamed
    } else {
        length.map_or(ResponseFraming::UntilClose, ResponseFraming::Length)
    };
    let (close, keep_alive) = found.connection;
    facts.persistent = facts.framing != ResponseFraming::UntilClose
        && !close
        && (minor >= 1 || keep_alive)
        && !(status == 204 && announces_body(&head.fields));
    head.content_length = if status == 204 { None } else { length };
    Ok(facts)
}

/// The announced length, and whether the body is chunked: at most one of both, and neither in doubt.
fn marked_end(found: &WireFields<'_>, minor: u8) -> Result<(Option<u64>, bool), ResponseError> {
    if found.lengths > 1 {
        return Err(ResponseError::header("upstream sent more than one \"Content-Length\" header"));
    }
    if found.codings > 1 {
        return Err(ResponseError::header("upstream sent more than one \"Transfer-Encoding\" header"));
    }
    let length = match found.length {
        None => None,
        Some(text) => Some(parse_length(text).ok_or_else(|| {
            ResponseError::quoting("upstream sent invalid \"Content-Length\" header", text)
        })?),
    };
    let Some(coding) = found.coding else { return Ok((length, false)) };
    if length.is_some() {
        return Err(ResponseError::header(
            "upstream sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time",
        ));
    }
    if minor == 0 {
        return Err(ResponseError::header("upstream sent a \"Transfer-Encoding\" header with HTTP/1.0"));
    }
    if !coding.eq_ignore_ascii_case(b"chunked") {
        return Err(ResponseError::quoting("upstream sent unknown \"Transfer-Encoding\"", coding));
    }
    Ok((None, true))
}

/// Whether a response that can't have a body announces one all the same: who wrote such a head may send the body, too.
pub(super) fn announces_body(fields: &Fields) -> bool {
    fields.list().iter().any(|field| match field.id {
        FieldName::TransferEncoding => true,
        FieldName::ContentLength => fields.get(field.value) != b"0",
        _ => false,
    })
}

/// The `timeout` of a Keep-Alive field, in seconds (RFC 2068 section 19.7.1.1).
fn keep_alive_timeout(value: &[u8]) -> Option<u64> {
    value.split(|&byte| byte == b',').find_map(|parameter| {
        let equals = memchr::memchr(b'=', parameter)?;
        let name = parameter[..equals].trim_ascii();
        let number = parameter[equals + 1..].trim_ascii();
        name.eq_ignore_ascii_case(b"timeout").then(|| parse_length(number)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_is_found_among_parameters() {
        assert_eq!(keep_alive_timeout(b"timeout=5"), Some(5));
        assert_eq!(keep_alive_timeout(b"max=100, Timeout = 75 "), Some(75));
        assert_eq!(keep_alive_timeout(b"max=100"), None);
        assert_eq!(keep_alive_timeout(b"timeout=, x"), None);
        assert_eq!(keep_alive_timeout(b"timeout=-1"), None);
        assert_eq!(keep_alive_timeout(b"timeout=99999999999999999999"), None);
    }
}
