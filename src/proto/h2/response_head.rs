//! Field blocks of responses to [`ResponseHead`]s, as HTTP/1 gives them: every field a line, Content-Length read as well.

use crate::message::{FieldName, ResponseHead, Span, Status};
use crate::proto::h1::parse_length;

use super::error::{ErrorCode, StreamError};
use super::field_rules;
use super::hpack::{Budget, Decoded, Decoder, HpackError};

/// Decodes a block whole, for the tables' sake also after an error, and fills `head`.
///
/// # Errors
/// Outside: the block can't be decoded. Inside: the message is malformed, or too large.
pub(super) fn build(
    decoder: &mut Decoder,
    block: &[u8],
    mut budget: Budget,
    head: &mut ResponseHead,
) -> Result<Result<(), StreamError>, HpackError> {
    head.clear();
    head.status = Status(0);
    let mut result = Ok(());
    let mut rest = block;
    let mut is_first = true;
    loop {
        match decoder.next(&mut rest, is_first, &mut head.fields, &mut budget)? {
            Decoded::Field { name, value } if result.is_ok() => {
                result = take(name, value, head).map_err(StreamError::malformed);
            }
            Decoded::Field { .. } => {}
            Decoded::TooLarge if result.is_ok() => {
                result = Err(StreamError::new(ErrorCode::CANCEL, "upstream sent too big header"));
            }
            Decoded::TooLarge => {}
            Decoded::End => break,
        }
        is_first = false;
    }
    if result.is_ok() && head.status == Status(0) {
        result = Err(StreamError::malformed("upstream sent no \":status\""));
    }
    Ok(result)
}

fn take(name: Span, value: Span, head: &mut ResponseHead) -> Result<(), &'static str> {
    let (name_text, value_text) = (head.text(name), head.text(value));
    if name_text == b":status" {
        if head.status != Status(0) {
            return Err("upstream sent \":status\" twice");
        }
        if !head.fields.is_empty() {
            return Err("upstream sent a pseudo-header field behind a field");
        }
        head.status = status(value_text).ok_or("upstream sent an invalid \":status\"")?;
        return Ok(());
    }
    if name_text.first() == Some(&b':') {
        return Err("upstream sent an unknown pseudo-header field");
    }
    let id = FieldName::of(name_text);
    field_rules::check(id, name_text, value_text)?;
    if id == FieldName::ContentLength {
        let length = parse_length(value_text).ok_or("upstream sent invalid \"Content-Length\" header")?;
        if head.content_length.is_some() {
            return Err("upstream sent more than one \"Content-Length\" header");
        }
        head.content_length = Some(length);
    }
    head.fields.push_stored(name, value);
    Ok(())
}

/// Three digits, 100 to 599 and not 101 (RFC 9113 section 8.6).
fn status(text: &[u8]) -> Option<Status> {
    let digits: &[u8; 3] = text.try_into().ok()?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let code = digits.iter().fold(0u16, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    ((100..=599).contains(&code) && code != 101).then_some(Status(code))
}
