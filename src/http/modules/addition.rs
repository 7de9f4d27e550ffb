//! `addition`: the responses of subrequests before and behind a response's body.

use std::sync::Arc;

use crate::conf::directive::{Arity, Call, Complaint};
use crate::http::build::Scope;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::media_types::{MediaTypes, media_types};
use crate::http::settings::contexts::HTTP_SERVER_LOCATION;
use crate::http::settings::settings;
use crate::http::subrequest::Order;
use crate::message::Status;

use super::compress::weaken_etag;
use super::ranges;

settings! {
    module addition;
    fields {
        /// The path whose response goes before bodies; nothing if it is empty.
        before: Arc<[u8]> = Arc::default(), inherit;
            "add_before_body" HTTP_SERVER_LOCATION, Arity::exactly(1), default "", once target;
        /// The path whose response goes behind bodies; nothing if it is empty.
        after: Arc<[u8]> = Arc::default(), inherit;
            "add_after_body" HTTP_SERVER_LOCATION, Arity::exactly(1), default "", once target;
        /// Media types of the responses that are added to.
        types: MediaTypes = MediaTypes::default(), inherit;
            "addition_types" HTTP_SERVER_LOCATION, Arity::at_least(1), default "text/html", with media_types;
    }
}

fn target(_: &mut Scope, call: &Call) -> Result<Arc<[u8]>, Complaint> {
    Ok(call.arg(0).as_bytes().into())
}

/// Header filter: decides, and sets the head.
pub fn filter(exchange: &mut Exchange, context: &mut Context) {
    let site = context.site;
    let settings = &site.settings(exchange.location).addition;
    let is_wanted = !settings.before.is_empty() || !settings.after.is_empty();
    if !is_wanted || exchange.is_subrequest() || exchange.response.status != Status::OK {
        return;
    }
    let content_type = exchange.response.content_type.map(|span| exchange.response.text(span));
    if !settings.types.matches(content_type.unwrap_or_default()) {
        return;
    }
    exchange.response.clear_content_length();
    ranges::give_up(exchange);
    weaken_etag(exchange);
    let order = |target: &[u8]| (!target.is_empty()).then(|| Order::for_target(target));
    let (before, after) = (order(&settings.before), order(&settings.after));
    let weaving = exchange.begin_weaving();
    weaving.before = before;
    weaving.after = after;
}
