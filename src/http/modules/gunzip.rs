//! `gunzip`: what is stored or comes from an upstream as gzip is decoded for clients that do not take it.

use crate::conf::directive::Arity;
use crate::http::body_filters::FilterSpec;
use crate::http::build::arguments::flag;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::settings::contexts::HTTP_SERVER_LOCATION;
use crate::http::settings::settings;
use crate::message::FieldName;

use super::compress::weaken_etag;
use super::gzip::buffers;
use super::precompressed::{Coding, may_have_compressed, set_vary};
use super::ranges;

settings! {
    module gunzip;
    fields {
        /// Whether gzip is decoded for clients that do not take it.
        enabled: bool = false, inherit;
            "gunzip" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", once flag;
    }
    plain {
        /// Without meaning here beyond its check: buffers are of a size of our own.
        "gunzip_buffers" HTTP_SERVER_LOCATION, Arity::exactly(2), default "32 4k", buffers;
    }
}

/// Header filter: decides, and sets the head.
pub fn filter(exchange: &mut Exchange, context: &mut Context) {
    let settings = context.site.settings(exchange.location);
    if !settings.gunzip.enabled
        || !exchange
            .response
            .fields
            .first(FieldName::ContentEncoding)
            .is_some_and(|coding| coding.eq_ignore_ascii_case(b"gzip"))
    {
        return;
    }
    if settings.precompressed.gzip_vary {
        set_vary(exchange);
    }
    let accept = exchange.head.field(FieldName::AcceptEncoding).unwrap_or_default();
    if Coding::Gzip.weight(accept) > 0 && may_have_compressed(exchange, context, &settings.precompressed) {
        return;
    }
    exchange.response.fields.remove(b"Content-Encoding");
    exchange.response.clear_content_length();
    ranges::give_up(exchange);
    weaken_etag(exchange);
    exchange.body_filters.push(FilterSpec::Gunzip);
}
