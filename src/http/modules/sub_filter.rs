//! `sub_filter`: strings in a response are replaced by others.
//!
//! Strings and replacements may have variables; both are rendered when the response begins.

use std::sync::Arc;

use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::template::Template;
use crate::http::body_filters::{FilterSpec, Substitutions};
use crate::http::build::Scope;
use crate::http::build::arguments::flag;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::media_types::{MediaTypes, media_types};
use crate::http::settings::contexts::HTTP_SERVER_LOCATION;
use crate::http::settings::settings;

use super::compress::weaken_etag;

settings! {
    module sub_filter;
    fields {
        /// Replaces a string by another one.
        pairs: Arc<Vec<Pair>> = Arc::default(), inherit;
            "sub_filter" HTTP_SERVER_LOCATION, Arity::exactly(2), default "", with add_pair;
        /// Whether Last-Modified and ETag (as a weak one) stay.
        last_modified: bool = false, inherit;
            "sub_filter_last_modified" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", once flag;
        /// Whether each string is replaced once only.
        once: bool = true, inherit;
            "sub_filter_once" HTTP_SERVER_LOCATION, Arity::FLAG, default "on", once flag;
        /// Media types that are looked through, beside `text/html`.
        types: MediaTypes = MediaTypes::default(), inherit;
            "sub_filter_types" HTTP_SERVER_LOCATION, Arity::at_least(1), default "text/html", with media_types;
    }
}

/// One string and its replacement.
#[derive(Clone, Debug)]
pub struct Pair {
    from: Template,
    to: Template,
}

fn add_pair(scope: &mut Scope, call: &Call, slot: &mut Option<Arc<Vec<Pair>>>) -> Result<(), Complaint> {
    if call.arg(0).as_bytes().is_empty() {
        return Err(Complaint::new("empty search pattern").at(call.arg(0)));
    }
    let pair = Pair { from: scope.builder.template(call.arg(0))?, to: scope.builder.template(call.arg(1))? };
    Arc::make_mut(slot.get_or_insert_default()).push(pair);
    Ok(())
}

/// Header filter: decides, renders, and sets the head.
pub fn filter(exchange: &mut Exchange, context: &mut Context) {
    let site = context.site;
    let settings = &site.settings(exchange.location).sub_filter;
    if settings.pairs.is_empty() || exchange.response.content_length == Some(0) {
        return;
    }
    let content_type = exchange.response.content_type.map(|span| exchange.response.text(span));
    if !settings.types.matches(content_type.unwrap_or_default()) {
        return;
    }
    let mut rendered = Vec::with_capacity(settings.pairs.len());
    for pair in settings.pairs.iter() {
        let from = exchange.with_rendered(&pair.from, context, |_, _, text| text.to_vec());
        let to = exchange.with_rendered(&pair.to, context, |_, _, text| text.to_vec());
        rendered.push((from, to));
    }
    let substitutions = Substitutions::new(rendered.into_iter(), settings.once);
    if substitutions.is_empty() {
        return;
    }
    exchange.response.clear_content_length();
    if settings.last_modified {
        weaken_etag(exchange);
    } else {
        exchange.response.clear_last_modified();
        exchange.response.etag = None;
    }
    exchange.body_filters.push(FilterSpec::Substitute(Arc::new(substitutions)));
}
