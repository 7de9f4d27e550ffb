//! Finishing with a status: `error_page`, else a built-in page.

use crate::message::{Method, Status};

use super::body::Body;
use super::context::Context;
use super::exchange::Exchange;
use super::flow::Flow;
use super::modules::error_pages::ErrorPage;
use super::redirect;

/// What a handler's status comes to.
pub fn finish(exchange: &mut Exchange, context: &mut Context, status: Status) -> Flow {
    // With 408 and 499 nginx takes the client for gone, whoever said so.
    if matches!(status, Status::CLOSE | Status::REQUEST_TIMEOUT | Status(499)) {
        // Nothing is sent, but the access log shows it.
        exchange.error_status = Some(status);
        return Flow::Close;
    }
    tell(exchange, context, status)
}

/// The same for a status that the client is told in every case.
pub fn tell(exchange: &mut Exchange, context: &mut Context, status: Status) -> Flow {
    exchange.error_status = Some(status);
    note_connection_fate(exchange, status);
    exchange.body = Body::Empty;
    if let Some(page) = chosen_page(exchange, context, status) {
        return follow_page(exchange, context, page);
    }
    built_in(exchange, context, status)
}

/// After these the connection is closed. (Unlike nginx, which does not linger after some of them: what the client still
/// sends is waited for within the bounds of lingering always, or a reset could overtake the answer.)
fn note_connection_fate(exchange: &mut Exchange, status: Status) {
    if matches!(status.0, 400 | 413 | 414 | 494 | 495 | 496 | 497 | 500 | 501) {
        exchange.keep_alive = false;
    }
}

/// The `error_page` of the request's scope for this status, unless one was followed already.
fn chosen_page<'a>(exchange: &mut Exchange, context: &Context<'a>, status: Status) -> Option<&'a ErrorPage> {
    let settings = &context.site.settings(exchange.location).error_pages;
    if settings.pages.is_empty() || exchange.in_error_page || exchange.uri_changes_left == 0 {
        return None;
    }
    if !settings.recursive {
        exchange.in_error_page = true;
    }
    settings.pages.iter().find(|page| page.statuses.contains(&status.0))
}

/// Whether the request's scope has an `error_page` for this status (`proxy_intercept_errors` applies to those alone).
pub fn has_page(exchange: &Exchange, context: &Context, status: Status) -> bool {
    let settings = &context.site.settings(exchange.location).error_pages;
    settings.pages.iter().any(|page| page.statuses.contains(&status.0))
}

fn follow_page(exchange: &mut Exchange, context: &mut Context, page: &ErrorPage) -> Flow {
    match page.overwrite {
        Some(Status(0)) => exchange.error_status = None,
        Some(status) => exchange.error_status = Some(status),
        None => {}
    }
    let mut target = context.env.scratch();
    exchange.render(&page.target, context, &mut target);
    let flow = match target.first() {
        Some(b'/') => {
            redirect::set_uri(exchange, &target);
            if exchange.head.method != Method::Head {
                exchange.method_is_get = true;
            }
            Flow::InternalRedirect
        }
        Some(b'@') => redirect::find_named(exchange, context, &target),
        _ => {
            let status = match page.overwrite {
                Some(status @ (Status(301) | Status(302) | Status(303) | Status(307) | Status(308))) => {
                    status
                }
                _ => Status::FOUND,
            };
            exchange.error_status = Some(status);
            exchange.response.set_location(&target);
            built_in(exchange, context, status)
        }
    };
    context.env.give_back(target);
    flow
}

/// Makes the built-in page the response.
pub fn built_in(exchange: &mut Exchange, context: &mut Context, status: Status) -> Flow {
    let shown = shown_status(status);
    exchange.error_status = Some(shown);
    let response = &mut exchange.response;
    response.status = shown;
    response.reason = None;
    response.etag = None;
    response.accept_ranges = false;
    response.clear_last_modified();
    response.content_type = None;
    exchange.allow_ranges = false;
    match page_text(status) {
        Some(page) if !shown.forbids_content() => {
            let body = render_page(exchange, context, page);
            exchange.response.set_content_type(b"text/html");
            exchange.response.set_content_length(body.len() as u64);
            exchange.body = Body::Bytes(body);
        }
        _ if shown.forbids_content() => exchange.response.clear_content_length(),
        _ => {
            exchange.response.set_content_length(0);
        }
    }
    Flow::Respond
}

/// nginx's own codes above 493 are shown as 400.
fn shown_status(status: Status) -> Status {
    match status.0 {
        494..=497 => Status::BAD_REQUEST,
        _ => status,
    }
}

/// Title and text of a built-in page.
struct PageText {
    title: &'static str,
    text: Option<&'static str>,
}

fn page_text(status: Status) -> Option<PageText> {
    let plain = |title| Some(PageText { title, text: None });
    let with = |title, text| Some(PageText { title, text: Some(text) });
    match status.0 {
        301 => plain("301 Moved Permanently"),
        302 => plain("302 Found"),
        303 => plain("303 See Other"),
        307 => plain("307 Temporary Redirect"),
        308 => plain("308 Permanent Redirect"),
        400 => plain("400 Bad Request"),
        401 => plain("401 Authorization Required"),
        402 => plain("402 Payment Required"),
        403 => plain("403 Forbidden"),
        404 => plain("404 Not Found"),
        405 => plain("405 Not Allowed"),
        406 => plain("406 Not Acceptable"),
        407 => plain("407 Proxy Authentication Required"),
        408 => plain("408 Request Time-out"),
        409 => plain("409 Conflict"),
        410 => plain("410 Gone"),
        411 => plain("411 Length Required"),
        412 => plain("412 Precondition Failed"),
        413 => plain("413 Request Entity Too Large"),
        414 => plain("414 Request-URI Too Large"),
        415 => plain("415 Unsupported Media Type"),
        416 => plain("416 Requested Range Not Satisfiable"),
        421 => plain("421 Misdirected Request"),
        429 => plain("429 Too Many Requests"),
        494 => with("400 Request Header Or Cookie Too Large", "Request Header Or Cookie Too Large"),
        495 => with("400 The SSL certificate error", "The SSL certificate error"),
        496 => with("400 No required SSL certificate was sent", "No required SSL certificate was sent"),
        497 => with(
            "400 The plain HTTP request was sent to HTTPS port",
            "The plain HTTP request was sent to HTTPS port",
        ),
        500 => plain("500 Internal Server Error"),
        501 => plain("501 Not Implemented"),
        502 => plain("502 Bad Gateway"),
        503 => plain("503 Service Temporarily Unavailable"),
        504 => plain("504 Gateway Time-out"),
        505 => plain("505 HTTP Version Not Supported"),
        507 => plain("507 Insufficient Storage"),
        _ => None,
    }
}

/// Comments that old browsers needed before they showed a short page (`msie_padding`).
const PADDING: &[u8] = b"<!-- a padding to disable MSIE and Chrome friendly error page -->\r\n";

fn render_page(exchange: &mut Exchange, context: &mut Context, page: PageText) -> Vec<u8> {
    let site = context.site;
    let core = &site.settings(exchange.location).core;
    let heading = if page.text.is_some() { "400 Bad Request" } else { page.title };
    let mut body = context.env.scratch();
    for piece in ["<html>\r\n<head><title>", page.title, "</title></head>\r\n<body>\r\n<center><h1>", heading]
    {
        body.extend_from_slice(piece.as_bytes());
    }
    body.extend_from_slice(b"</h1></center>\r\n");
    if let Some(text) = page.text {
        body.extend_from_slice(b"<center>");
        body.extend_from_slice(text.as_bytes());
        body.extend_from_slice(b"</center>\r\n");
    }
    let mut signature = context.env.scratch();
    exchange.render(&core.server_tokens, context, &mut signature);
    if !signature.is_empty() {
        body.extend_from_slice(b"<hr><center>");
        crate::base::percent::escape_html(&mut body, &signature);
        body.extend_from_slice(b"</center>\r\n");
    }
    context.env.give_back(signature);
    body.extend_from_slice(b"</body>\r\n</html>\r\n");
    let status = exchange.error_status.map_or(0, |status| status.0);
    if core.msie_padding && status >= 400 && wants_padding(exchange) {
        for _ in 0..6 {
            body.extend_from_slice(PADDING);
        }
    }
    body
}

/// nginx pads for MSIE and Chrome, by their User-Agent.
fn wants_padding(exchange: &Exchange) -> bool {
    exchange.head.field(crate::message::FieldName::UserAgent).is_some_and(|agent| {
        memchr::memmem::find(agent, b"MSIE ").is_some_and(|at| agent.get(at + 6) == Some(&b'.'))
            && memchr::memmem::find(agent, b"Opera").is_none()
            || memchr::memmem::find(agent, b"Chrome/").is_some()
    })
}
