//! `$sent_http_*` and `$sent_trailer_*`: fields of the response as they are at the time of asking.

use crate::base::ascii;
use crate::base::clock::format_http_date;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::variables::VariableEntry;
use crate::message::{Fields, Status};

/// The module's variables.
pub static VARIABLES: &[VariableEntry] = &[
    VariableEntry::family("sent_http_", sent_header),
    VariableEntry::family("sent_trailer_", sent_trailer),
];

fn sent_header(exchange: &mut Exchange, context: &mut Context, name: &[u8], out: &mut Vec<u8>) -> bool {
    let response = &exchange.response;
    let slot = match name {
        b"content_type" => response.content_type,
        b"etag" => response.etag,
        b"location" => response.location,
        b"last_modified" => match (response.last_modified_text, response.last_modified) {
            (None, Some(seconds)) => {
                out.extend_from_slice(&format_http_date(seconds));
                return true;
            }
            (text, _) => text,
        },
        b"content_length" => {
            let Some(length) = response.content_length else { return false };
            ascii::append_decimal(out, length);
            return true;
        }
        b"accept_ranges" if response.accept_ranges => {
            out.extend_from_slice(b"bytes");
            return true;
        }
        b"connection" => {
            out.extend_from_slice(if response.status == Status::SWITCHING_PROTOCOLS {
                b"upgrade"
            } else if exchange.keep_alive {
                b"keep-alive"
            } else {
                b"close"
            });
            return true;
        }
        b"keep_alive" => {
            let timeout = exchange.scope(context).settings.core.keepalive_timeout;
            if !exchange.keep_alive || timeout.header_secs == 0 {
                return false;
            }
            out.extend_from_slice(b"timeout=");
            ascii::append_decimal(out, timeout.header_secs);
            return true;
        }
        b"transfer_encoding" => {
            let chunked = response.content_length.is_none()
                && exchange.is_http11()
                && !response.status.forbids_content()
                && exchange.scope(context).settings.core.chunked_transfer_encoding;
            if chunked {
                out.extend_from_slice(b"chunked");
            }
            return chunked;
        }
        _ => None,
    };
    match slot {
        Some(span) => {
            out.extend_from_slice(response.text(span));
            true
        }
        None => append_joined(&response.fields, name, out),
    }
}

fn sent_trailer(exchange: &mut Exchange, _: &mut Context, name: &[u8], out: &mut Vec<u8>) -> bool {
    append_joined(&exchange.sent_trailers, name, out)
}

/// Appends the values of all lines with this name (lower case, `_` for `-`), joined by commas as nginx does since 1.23.
fn append_joined(fields: &Fields, name: &[u8], out: &mut Vec<u8>) -> bool {
    let mut found = false;
    for (_, other, value) in fields.iter() {
        if is_named(other, name) {
            if found {
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(value);
            found = true;
        }
    }
    found
}

/// Whether a field's name is that of a variable: letters in lower case, everything but letters and digits as `_`.
fn is_named(field: &[u8], variable: &[u8]) -> bool {
    field.len() == variable.len()
        && field.iter().zip(variable).all(|(byte, wanted)| match byte {
            b'-' => *wanted == b'_',
            byte => byte.to_ascii_lowercase() == *wanted,
        })
}
