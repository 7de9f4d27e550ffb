//! `X-Accel-*`: what an upstream asks of us in its response.

use crate::base::ascii::parse_u64;
use crate::base::level::Level;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::flow::Flow;
use crate::http::redirect;
use crate::message::{FieldName, Fields, Method, Span, Status, check_unsafe_uri};

use super::cookies;
use super::directives::ignored;
use super::Settings;

/// What a response asks for; spans are of its own text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Accel {
    /// `X-Accel-Redirect`: answer with what is there.
    pub redirect: Option<Span>,
    /// `X-Accel-Limit-Rate`, in bytes per second; 0 for no limit.
    pub limit_rate: Option<u64>,
    /// `X-Accel-Buffering`
    pub buffering: Option<bool>,
    /// `X-Accel-Charset`
    pub charset: Option<Span>,
}

impl Accel {
    /// What the fields ask for, without what the configuration ignores.
    pub fn read(fields: &Fields, ignore: u32) -> Accel {
        let mut accel = Accel::default();
        let heeds = |bit: u32| ignore & bit == 0;
        for field in fields.list() {
            let value = fields.get(field.value);
            match field.id {
                FieldName::XAccelRedirect if heeds(ignored::REDIRECT) => {
                    accel.redirect.get_or_insert(field.value);
                }
                FieldName::XAccelLimitRate if heeds(ignored::LIMIT_RATE) => {
                    accel.limit_rate = parse_u64(value).or(accel.limit_rate);
                }
                FieldName::XAccelBuffering if heeds(ignored::BUFFERING) => {
                    if value.eq_ignore_ascii_case(b"yes") {
                        accel.buffering = Some(true);
                    } else if value.eq_ignore_ascii_case(b"no") {
                        accel.buffering = Some(false);
                    }
                }
                FieldName::XAccelCharset if heeds(ignored::CHARSET) => accel.charset = Some(field.value),
                _ => {}
            }
        }
        accel
    }
}

/// Fields that stay when `X-Accel-Redirect` leads elsewhere; Content-Type has a slot of its own.
const KEPT: &[&[u8]] = &[b"Content-Disposition", b"Cache-Control", b"Expires", b"Set-Cookie"];

/// Follows `X-Accel-Redirect`: to a named location, else to a URI, which is asked for by GET unless it was by HEAD.
pub fn follow(exchange: &mut Exchange, context: &mut Context, settings: &Settings, target: Span) -> Flow {
    let mut uri = context.env.scratch();
    if let Some(passed) = &exchange.upstream {
        uri.extend_from_slice(passed.response.text(target));
    }
    keep_fields(exchange, context, settings);
    let flow = if uri.first() == Some(&b'@') {
        redirect::find_named(exchange, context, &uri)
    } else {
        redirect_to(exchange, context, &uri)
    };
    context.env.give_back(uri);
    flow
}

fn redirect_to(exchange: &mut Exchange, context: &mut Context, uri: &[u8]) -> Flow {
    let mut path = context.env.scratch();
    let checked = check_unsafe_uri(uri, &mut path);
    let flow = match checked {
        Ok(found) if path.first() == Some(&b'/') => {
            exchange.uri.clear();
            exchange.uri.extend_from_slice(&path);
            exchange.args.clear();
            exchange.args.extend_from_slice(found.args.map_or(&b""[..], |args| &uri[args]));
            if exchange.method() != Method::Head {
                exchange.method_is_get = true;
            }
            Flow::InternalRedirect
        }
        _ => {
            let shown = String::from_utf8_lossy(uri);
            exchange.log(context, Level::Error, format_args!("unsafe URI \"{shown}\" was detected"));
            Flow::Status(Status::NOT_FOUND)
        }
    };
    context.env.give_back(path);
    flow
}

fn keep_fields(exchange: &mut Exchange, context: &mut Context, settings: &Settings) {
    let count = exchange.upstream.as_ref().map_or(0, |passed| passed.response.fields.len());
    let mut value = context.env.scratch();
    for index in 0..count {
        let Exchange { upstream: Some(passed), response, .. } = exchange else { break };
        let fields = &passed.response.fields;
        let field = fields.list()[index];
        let name = fields.get(field.name);
        if settings.hidden.contains(field.id, name) {
            continue;
        }
        if field.id == FieldName::ContentType {
            response.set_content_type(fields.get(field.value));
        } else if field.id == FieldName::SetCookie && cookies::has_rules(settings) {
            value.clear();
            value.extend_from_slice(fields.get(field.value));
            cookies::rewrite(exchange, context, settings, &mut value);
            exchange.response.fields.push_known(FieldName::SetCookie, &value);
        } else if KEPT.iter().any(|kept| kept.eq_ignore_ascii_case(name)) {
            response.fields.push(name, fields.get(field.value));
        }
    }
    context.env.give_back(value);
}
