//! What requests bring for their group's method and sessions, and what responses take home.

use crate::base::ascii::append_decimal;
use crate::conf::template::Template;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::modules::userid::append_cookie_date;
use crate::http::upstream_call::Via;
use crate::http::upstreams::SiteGroup;

use super::sticky::{Expires, Sticky, StickyCookie, is_samesite};

/// `expires=max`, in nginx's words.
const MAX: &[u8] = b"; expires=Thu, 31-Dec-37 23:55:55 GMT; max-age=315360000";

/// A handler is about to pass the request on: puts the key of `hash` and the session into its call, where the group goes
/// by them.
pub fn ask(exchange: &mut Exchange, context: &mut Context) {
    let site = context.site;
    let call = exchange.upstream.as_ref().and_then(|passed| passed.call.as_ref());
    let Some(group) = call.and_then(|call| site.upstreams.of_target(&call.target)) else { return };
    let settings = &group.settings;
    if settings.hash_key.is_none() && settings.sticky.is_none() {
        return;
    }
    let mut key = Vec::new();
    if let Some(template) = &settings.hash_key {
        exchange.render(template, context, &mut key);
    }
    let mut session = Vec::new();
    match &settings.sticky {
        Some(Sticky::Cookie(cookie)) => {
            exchange.variable(cookie.variable, context, &mut session);
        }
        Some(Sticky::Route(texts) | Sticky::Learn { lookup: texts, .. }) => {
            first_of(exchange, context, texts, &mut session);
        }
        None => {}
    }
    if let Some(call) = exchange.upstream.as_mut().and_then(|passed| passed.call.as_mut()) {
        (call.hash_key, call.sticky) = (key, session);
    }
}

/// The head of a response is there: the client gets the cookie of the server that gave it, or the group learns the session
/// that the response makes.
pub fn answered(exchange: &mut Exchange, context: &mut Context) {
    let Some(via) = exchange.upstream.as_ref().and_then(|passed| passed.via.clone()) else { return };
    let site = context.site;
    let own = |known: &&SiteGroup| known.group.key() == via.group.key();
    let Some(settings) = site.upstreams.all().iter().find(own).map(|known| &known.settings) else { return };
    match &settings.sticky {
        Some(Sticky::Cookie(cookie)) => set_cookie(exchange, context, cookie, &via),
        Some(Sticky::Learn { create, .. }) => {
            let mut session = context.env.scratch();
            first_of(exchange, context, create, &mut session);
            via.group.learn(&session, &via.peer, context.env.now.monotonic_ms);
            context.env.give_back(session);
        }
        Some(Sticky::Route(_)) | None => {}
    }
}

/// Appends the first text that is not empty.
fn first_of(exchange: &mut Exchange, context: &mut Context, texts: &[Template], out: &mut Vec<u8>) {
    for text in texts {
        exchange.render(text, context, out);
        if !out.is_empty() {
            return;
        }
    }
}

/// Attributes in nginx's order.
fn set_cookie(exchange: &mut Exchange, context: &mut Context, cookie: &StickyCookie, via: &Via) {
    let mut line = context.env.scratch();
    line.extend_from_slice(&cookie.name);
    line.push(b'=');
    line.extend_from_slice(via.peer.id().as_bytes());
    match cookie.expires {
        Some(Expires::Max) => line.extend_from_slice(MAX),
        Some(Expires::Seconds(seconds)) => {
            line.extend_from_slice(b"; expires=");
            append_cookie_date(context.env.now.wall_secs.saturating_add_unsigned(seconds), &mut line);
            line.extend_from_slice(b"; max-age=");
            append_decimal(&mut line, seconds);
        }
        None => {}
    }
    append_attribute(exchange, context, b"; domain=", cookie.domain.as_ref(), &mut line);
    if cookie.httponly {
        line.extend_from_slice(b"; httponly");
    }
    if cookie.secure {
        line.extend_from_slice(b"; secure");
    }
    if let Some(samesite) = &cookie.samesite {
        exchange.with_rendered(samesite, context, |_, _, text| {
            line.extend_from_slice(b"; samesite=");
            line.extend_from_slice(if is_samesite(text) { text } else { b"strict" });
        });
    }
    append_attribute(exchange, context, b"; path=", cookie.path.as_ref(), &mut line);
    exchange.response.fields.push(b"Set-Cookie", &line);
    context.env.give_back(line);
}

/// A value that would end the attribute, or the line, is left out: variables may come from the client.
fn append_attribute(
    exchange: &mut Exchange,
    context: &mut Context,
    name: &[u8],
    value: Option<&Template>,
    out: &mut Vec<u8>,
) {
    let Some(value) = value else { return };
    exchange.with_rendered(value, context, |_, _, text| {
        if !text.is_empty() && text.iter().all(|byte| *byte >= b' ' && *byte != b';' && *byte != 0x7f) {
            out.extend_from_slice(name);
            out.extend_from_slice(text);
        }
    });
}
