//! `add_header`, `add_trailer`, `expires`, and the variables `$sent_http_*` and `$sent_trailer_*`.

mod expires;
#[cfg(test)]
mod tests;
mod variables;

use std::sync::Arc;

use crate::base::clock::parse_http_date;
use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::source::{IncludeId, Span};
use crate::conf::template::Template;
use crate::http::build::Scope;
use crate::http::build::arguments::one_of;
use crate::http::context::{Context, Env};
use crate::http::exchange::Exchange;
use crate::http::modules::LocationSettings;
use crate::http::settings::contexts::HTTP_SERVER_LOCATION_IF;
use crate::http::settings::settings;
use crate::message::{Fields, Method, Status};

pub use expires::Expires;
pub use variables::VARIABLES;

settings! {
    module headers;
    merge merge_lines;
    fields {
        /// What becomes of the lines of the scope around.
        header_inherit: Inherit = Inherit::On, inherit;
            "add_header_inherit" HTTP_SERVER_LOCATION_IF, Arity::exactly(1), default "on", once inherit_mode;
        /// The same for trailers.
        trailer_inherit: Inherit = Inherit::On, inherit;
            "add_trailer_inherit" HTTP_SERVER_LOCATION_IF, Arity::exactly(1), default "on", once inherit_mode;
        /// Adds a field to responses that succeed, or (`always`) to all.
        headers: Lines = Lines::default(), own;
            "add_header" HTTP_SERVER_LOCATION_IF, Arity::between(2, 3), default "", with add_line;
        /// Adds a field behind the body.
        trailers: Lines = Lines::default(), own;
            "add_trailer" HTTP_SERVER_LOCATION_IF, Arity::between(2, 3), default "", with add_line;
        /// How long a response is fresh: Expires and Cache-Control.
        expires: Expires = Expires::Off, inherit;
            "expires" HTTP_SERVER_LOCATION_IF, Arity::between(1, 2), default "off", once expires::read;
    }
}

/// What becomes of the lines of the scope around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inherit {
    /// They hold unless the scope has lines of its own.
    On,
    /// They don't.
    Off,
    /// They hold behind the scope's own.
    Merge,
}

/// Lines that are added.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    list: Arc<Vec<Line>>,
    /// Where the first of the scope's own stands.
    first: Option<(Span, IncludeId)>,
}

impl Lines {
    /// Where lines stand that make those of the scope around, `outer`, disappear.
    pub fn hides(&self, outer: &Lines) -> Option<(Span, IncludeId)> {
        if outer.list.is_empty() { None } else { self.first }
    }
}

/// One `add_header` or `add_trailer`.
#[derive(Clone, Debug)]
struct Line {
    name: Box<[u8]>,
    value: Template,
    always: bool,
}

fn inherit_mode(_: &mut Scope, call: &Call) -> Result<Inherit, Complaint> {
    one_of(call, &[("on", Inherit::On), ("off", Inherit::Off), ("merge", Inherit::Merge)])
}

fn add_line(scope: &mut Scope, call: &Call, slot: &mut Option<Lines>) -> Result<(), Complaint> {
    let value = scope.builder.template(call.arg(1))?;
    let always = match call.args().get(2) {
        None => false,
        Some(word) if word == "always" => true,
        Some(word) => return Err(Complaint::invalid_parameter(word)),
    };
    let lines = slot.get_or_insert_default();
    lines.first.get_or_insert((call.span(), call.directive.include));
    Arc::make_mut(&mut lines.list).push(Line { name: call.arg(0).as_bytes().into(), value, always });
    Ok(())
}

/// Takes lines from the scope around, as the modes say.
fn merge_lines(draft: &mut Draft, around: &Draft) {
    merge_list(&mut draft.headers, &around.headers, draft.header_inherit);
    merge_list(&mut draft.trailers, &around.trailers, draft.trailer_inherit);
}

fn merge_list(own: &mut Option<Lines>, outer: &Option<Lines>, mode: Option<Inherit>) {
    let Some(outer) = outer else { return };
    match (mode.unwrap_or(Inherit::On), own.as_mut()) {
        (Inherit::Off, _) | (Inherit::On, Some(_)) => {}
        (Inherit::On | Inherit::Merge, None) => {
            *own = Some(Lines { list: outer.list.clone(), first: None });
        }
        (Inherit::Merge, Some(own)) => Arc::make_mut(&mut own.list).extend(outer.list.iter().cloned()),
    }
}

/// What `-t` says where lines of a scope make those around it disappear.
pub fn hidden_lines_message(directive: &str) -> String {
    format!(
        "this \"{directive}\" makes those of the outer level disappear here (\"{directive}_inherit merge\" keeps them)"
    )
}

/// Where `own` (not merged yet) hides lines of the scope around.
pub fn hidden_lines(own: &Draft, around: &Settings) -> impl Iterator<Item = (Span, IncludeId, &'static str)> {
    let header_mode = own.header_inherit.unwrap_or(around.header_inherit);
    let trailer_mode = own.trailer_inherit.unwrap_or(around.trailer_inherit);
    let place = |mode: Inherit, own: &Option<Lines>, outer: &Lines, name| {
        let (span, include) = own.as_ref().filter(|_| mode == Inherit::On)?.hides(outer)?;
        Some((span, include, name))
    };
    [
        place(header_mode, &own.headers, &around.headers, "add_header"),
        place(trailer_mode, &own.trailers, &around.trailers, "add_trailer"),
    ]
    .into_iter()
    .flatten()
}

/// Statuses that get lines without `always`, and `expires`.
fn is_success(status: Status) -> bool {
    matches!(status.0, 200 | 201 | 204 | 206 | 301 | 302 | 303 | 304 | 307 | 308)
}

/// The header filter: `expires`, then `add_header`.
pub fn filter(exchange: &mut Exchange, context: &mut Context) -> Option<Status> {
    let site = context.site;
    let settings = &site.settings(exchange.location).headers;
    if settings.headers.list.is_empty() && matches!(settings.expires, Expires::Off) {
        return None;
    }
    let success = is_success(exchange.response.status);
    if success {
        settings.expires.apply(exchange, context);
    }
    for line in settings.headers.list.iter().filter(|line| success || line.always) {
        exchange.with_rendered(&line.value, context, |exchange, _, value| add(exchange, &line.name, value));
    }
    None
}

/// Adds a line; Last-Modified and ETag are replaced instead, and removed by an empty value.
fn add(exchange: &mut Exchange, name: &[u8], value: &[u8]) {
    let response = &mut exchange.response;
    if name.eq_ignore_ascii_case(b"Last-Modified") {
        response.clear_last_modified();
        if !value.is_empty() {
            response.last_modified = parse_http_date(value);
            response.last_modified_text = Some(response.fields.store(value));
        }
    } else if name.eq_ignore_ascii_case(b"ETag") {
        response.etag = None;
        if !value.is_empty() {
            response.set_etag(value);
        }
    } else if !value.is_empty() {
        response.fields.push(name, value);
    }
}

/// Gives the length up where trailers are to follow the body: they need a chunked one. The last header filter.
pub fn make_room_for_trailers(exchange: &mut Exchange, context: &mut Context) {
    if expects_trailers(exchange, context) {
        exchange.response.clear_content_length();
    }
}

/// Whether trailers follow the response's body.
pub fn has_trailers(exchange: &Exchange) -> bool {
    trailers_wanted(exchange, exchange.scope_settings())
}

impl Exchange {
    /// The trailers of the response, for the shell.
    pub fn render_trailers(&mut self, env: &mut Env, out: &mut Fields) {
        let site = self.site.clone();
        trailers(self, &mut Context { site: &site, env }, out);
    }
}

fn expects_trailers(exchange: &Exchange, context: &Context) -> bool {
    trailers_wanted(exchange, context.site.settings(exchange.location))
}

fn trailers_wanted(exchange: &Exchange, settings: &LocationSettings) -> bool {
    let lines = &settings.headers.trailers.list;
    if lines.is_empty() {
        return false;
    }
    let success = is_success(exchange.response.status);
    exchange.is_http11()
        && settings.core.chunked_transfer_encoding
        && exchange.head.method != Method::Head
        && !exchange.response.status.forbids_content()
        && lines.iter().any(|line| success || line.always)
}

/// Appends the trailers of a response whose body was sent, chunked.
pub fn trailers(exchange: &mut Exchange, context: &mut Context, out: &mut Fields) {
    if !expects_trailers(exchange, context) {
        return;
    }
    let success = is_success(exchange.response.status);
    let site = context.site;
    let lines = &site.settings(exchange.location).headers.trailers.list;
    for line in lines.iter().filter(|line| success || line.always) {
        exchange.with_rendered(&line.value, context, |exchange, _, value| {
            if !value.is_empty() {
                exchange.sent_trailers.push(&line.name, value);
            }
        });
    }
    for (_, name, value) in exchange.sent_trailers.iter() {
        out.push(name, value);
    }
}
