//! The content handler: reads the body where that comes first, passes the request on, answers with the response.

use crate::base::level::Level;
use crate::http::context::Context;
use crate::http::exchange::{Exchange, RequestBody};
use crate::http::flow::{Answer, Flow, Need};
use crate::http::variables::is_true;
use crate::message::{RequestFraming, Status};

use super::directives::HttpVersion;
use super::{Settings, request, response};

/// See the module's documentation.
pub fn handle(exchange: &mut Exchange, context: &mut Context, answer: Option<Answer>) -> Flow {
    let site = context.site;
    handle_by(&site.settings(exchange.location).proxy, exchange, context, answer)
}

/// The content handler of whatever module has settings of this kind.
pub fn handle_by(
    settings: &Settings,
    exchange: &mut Exchange,
    context: &mut Context,
    answer: Option<Answer>,
) -> Flow {
    match answer {
        None => {
            if reads_body_first(exchange, settings) {
                return Flow::Need(Need::RequestBody);
            }
            pass_on(settings, exchange, context)
        }
        Some(Answer::RequestBody(Ok(()))) => pass_on(settings, exchange, context),
        Some(Answer::RequestBody(Err(status))) => Flow::Status(status),
        Some(Answer::Upstream(Ok(()))) => response::take(settings, exchange, context),
        Some(Answer::Upstream(Err(failure))) => {
            if let Some(passed) = &mut exchange.upstream {
                passed.error = Some(failure.token);
            }
            Flow::Status(failure.status)
        }
        Some(_) => Flow::Status(Status::INTERNAL_SERVER_ERROR),
    }
}

fn pass_on(settings: &Settings, exchange: &mut Exchange, context: &mut Context) -> Flow {
    match request::prepare(settings, exchange, context) {
        Ok(()) => Flow::Need(Need::Upstream),
        Err(status) => Flow::Status(status),
    }
}

fn reads_body_first(exchange: &Exchange, settings: &Settings) -> bool {
    let is_there = exchange.head.framing != RequestFraming::None;
    let is_wanted = settings.pass_request_body || settings.set_body.is_some();
    is_there
        && is_wanted
        && matches!(exchange.request_body, RequestBody::Unread)
        && !leaves_body(exchange)
        && !streams_body(exchange, settings)
}

/// Whether the body stays where it is: an error page needs none, and reading it may be what failed.
pub(super) fn leaves_body(exchange: &Exchange) -> bool {
    exchange.method_is_get && matches!(exchange.request_body, RequestBody::Unread)
}

/// Whether the client's body is passed on as it comes. A body of unknown length needs chunks, which HTTP/1.0 has not.
pub(super) fn streams_body(exchange: &Exchange, settings: &Settings) -> bool {
    !settings.request_buffering
        && settings.set_body.is_none()
        && settings.pass_request_body
        && matches!(exchange.request_body, RequestBody::Unread)
        && !leaves_body(exchange)
        && match exchange.head.framing {
            RequestFraming::None => false,
            RequestFraming::Length(_) => true,
            RequestFraming::Streamed => settings.http_version != HttpVersion::Http10,
        }
}

/// Whether 103 responses go to the client: it must know them, and a predicate must hold.
pub(super) fn wants_early_hints(exchange: &mut Exchange, context: &mut Context, settings: &Settings) -> bool {
    exchange.is_http11()
        && settings
            .early_hints
            .iter()
            .any(|predicate| exchange.with_rendered(predicate, context, |_, _, text| is_true(text)))
}

/// Logs what makes a request impossible to write.
pub(super) fn refuse(exchange: &Exchange, context: &mut Context, what: &dyn std::fmt::Display) -> Status {
    exchange.log(context, Level::Error, format_args!("{what}"));
    Status::INTERNAL_SERVER_ERROR
}
