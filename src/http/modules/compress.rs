//! Which coding a response is compressed with: of those that `gzip`, `brotli` and `zstd` turn on, the one with the
//! largest weight in Accept-Encoding; of equal weights Brotli, then Zstandard, then gzip.
//!
//! Whether a response may be compressed at all goes by nginx's rules for gzip: its status is 200, 403 or 404, it is not
//! encoded yet, it is no shorter than the coding's `min_length`, its type is one of the coding's; and the client may have
//! it ([`may_have_compressed`]). With `gzip_vary`, every response that another Accept-Encoding would have had another
//! form of says so, a 304 included. A compressed response has no length and no ranges, and its ETag is a weak one, which
//! compares equal to the file's own when it comes back in If-None-Match.

use crate::base::ascii;
use crate::http::body_filters::{Compression, FilterSpec};
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::variables::VariableEntry;
use crate::message::{FieldName, Span, Status};

use super::LocationSettings;
use super::precompressed::{Coding, may_have_compressed, set_vary};
use super::ranges;

/// What the filters have made of a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// Bytes before compression, and behind it; 0 if nothing was compressed.
    pub ratio: (u64, u64),
}

/// Chooses the coding and sets the head. `content_type` is that of the 200 which a 304 stands for.
pub fn filter(exchange: &mut Exchange, context: &mut Context, content_type: Option<Span>) {
    let site = context.site;
    let settings = site.settings(exchange.location);
    if !(settings.gzip.enabled || settings.brotli.enabled || settings.zstd.enabled) {
        return;
    }
    let is_not_modified = exchange.response.status == Status::NOT_MODIFIED;
    let has_status = matches!(exchange.response.status, Status::OK | Status::FORBIDDEN | Status::NOT_FOUND);
    let is_encoded =
        exchange.response.fields.first(FieldName::ContentEncoding).is_some_and(|coding| !coding.is_empty());
    let Some(content_type) = content_type else { return };
    if !(has_status || is_not_modified) || is_encoded {
        return;
    }
    let accept = exchange.head.field(FieldName::AcceptEncoding).unwrap_or_default();
    let mut applies = false;
    let mut best: Option<(u16, Coding, Compression)> = None;
    for coding in Coding::ALL {
        let Some(compression) = fitting(coding, settings, exchange, content_type) else { continue };
        applies = true;
        let weight = if accept.is_empty() { 0 } else { coding.weight(accept) };
        if weight > best.as_ref().map_or(0, |(weight, ..)| *weight) {
            best = Some((weight, coding, compression));
        }
    }
    if !applies {
        return;
    }
    let best = best.filter(|_| may_have_compressed(exchange, context, &settings.precompressed));
    if settings.precompressed.gzip_vary {
        set_vary(exchange);
    }
    let Some((_, coding, compression)) = best else { return };
    weaken_etag(exchange);
    if is_not_modified {
        return;
    }
    exchange.response.fields.push_known(FieldName::ContentEncoding, coding.token());
    exchange.response.clear_content_length();
    ranges::give_up(exchange);
    exchange.body_filters.push(FilterSpec::Compress(compression));
}

/// How a coding would compress the response; `None` if it is off or not for such a response.
fn fitting(
    coding: Coding,
    settings: &LocationSettings,
    exchange: &Exchange,
    content_type: Span,
) -> Option<Compression> {
    let (enabled, min_length, types, compression) = match coding {
        Coding::Gzip => {
            let own = &settings.gzip;
            (own.enabled, own.min_length, &own.types, own.compression())
        }
        Coding::Brotli => {
            let own = &settings.brotli;
            (own.enabled, own.min_length, &own.types, own.compression())
        }
        Coding::Zstd => {
            let own = &settings.zstd;
            (own.enabled, own.min_length, &own.types, own.compression())
        }
    };
    let is_long_enough = exchange.response.content_length.is_none_or(|length| length >= min_length);
    let fits = enabled && is_long_enough && types.matches(exchange.response.text(content_type));
    fits.then_some(compression)
}

/// Makes the ETag a weak one: the bytes are not those that it was made for. What is no entity tag is dropped.
pub fn weaken_etag(exchange: &mut Exchange) {
    let response = &mut exchange.response;
    let Some(span) = response.etag else { return };
    let text = response.text(span);
    if text.starts_with(b"W/\"") {
        return;
    }
    if !text.starts_with(b"\"") {
        response.etag = None;
        return;
    }
    let weak = [b"W/", text].concat();
    response.set_etag(&weak);
}

/// The module's variables.
pub static VARIABLES: &[VariableEntry] = &[VariableEntry::new("gzip_ratio", |exchange, _, out| {
    let (before, behind) = exchange.notes.compress.ratio;
    if behind == 0 {
        return false;
    }
    let hundredths = before.saturating_mul(100) / behind;
    // Rounded as nginx rounds: half a hundredth up.
    let rest = before.saturating_mul(1000) / behind % 10;
    let hundredths = hundredths + u64::from(rest > 4);
    ascii::append_decimal(out, hundredths / 100);
    out.push(b'.');
    out.push(b'0' + (hundredths / 10 % 10) as u8);
    out.push(b'0' + (hundredths % 10) as u8);
    true
})];
