//! The way of a request, in order. nginx calls these phases; the order and its reasons are written here once.
//!
//! 1. `Start`: normalise the target, choose the virtual host, learn the client's address from a trusted proxy.
//! 2. `EarlyBody`: `client_body_early_read` reads the body, so that the phases below can see it.
//! 3. `ServerRewrite`: the server's own rewrite program. Comes before the location is chosen, because it may change
//!    the URI that chooses it.
//! 4. `FindLocation`: longest prefix, then regular expressions; `internal`, `client_max_body_size`, the redirect that
//!    adds a slash.
//! 5. `Rewrite`: the location's rewrite program; if it changed the URI, back to 4 (at most ten times).
//! 6. `PreAccess`: the client's address by the location's settings, since all that follows goes by it; CORS preflights,
//!    which carry no credentials; `limit_req` and `limit_conn`, so that guessing passwords is limited too.
//! 7. `Access`: who may; all modules (`satisfy all`) or one of them (`satisfy any`).
//! 8. `TryFiles`: the first file that exists, else an internal redirect.
//! 9. `Content`: the location's handler, else the content handlers in order until one answers.
//!
//! Then the header filters ([`super::filters`]), and the response goes out.

use crate::base::level::Level;
use crate::message::{Status, normalize_uri};

use super::context::Context;
use super::error_page;
use super::exchange::{Exchange, MAX_URI_CHANGES};
use super::filters;
use super::flow::{Answer, Flow, Need, Step};
use super::location_tree::Lookup;
use super::modules::upstream::sessions;
use super::modules::{self, access, rewrite, spa, try_files};
use super::redirect;
use super::site::{LocationId, LocationKind};

/// Where a request stands on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Nothing was done yet.
    #[default]
    Start,
    /// Reading the body before anything else.
    EarlyBody,
    /// In the server's rewrite program.
    ServerRewrite,
    /// Choosing the location.
    FindLocation,
    /// In the location's rewrite program.
    Rewrite,
    /// Before asking who may.
    PreAccess,
    /// Asking who may.
    Access,
    /// In `try_files`.
    TryFiles,
    /// Copies of the request go elsewhere.
    Mirror,
    /// In the content handler with this number.
    Content(u8),
}

/// A content handler: called with `None` first, then with the answer to each need that it named.
pub type Handler = fn(&mut Exchange, &mut Context, Option<Answer>) -> Flow;

/// Content handlers of locations that have none of their own, in order (each says `Next` where it does not apply): `dav`
/// first, which has the methods that all others refuse; `spa` next, because a page that is no folder must not reach the
/// handlers of folders, and again behind them; a folder's index files come before its listing, because a listing is what
/// is left when there is none; videos, which are cut and have no compressed siblings; these before the file itself.
const CONTENT: &[Handler] = &[
    modules::dav::handle,
    spa::handle,
    modules::random_index::handle,
    modules::index::handle,
    modules::autoindex::handle,
    spa::handle_bare_folder,
    modules::mp4::handle,
    modules::flv::handle,
    modules::precompressed::handle,
    modules::static_files::handle,
];

/// Goes on until something is needed from outside or the response is ready.
pub fn run(exchange: &mut Exchange, context: &mut Context, mut answer: Option<Answer>) -> Step {
    loop {
        let flow = match exchange.stage {
            Stage::Start => start(exchange, context),
            Stage::EarlyBody => modules::request_body::read_early(exchange, context, answer.take()),
            Stage::ServerRewrite => rewrite::run(exchange, context, answer.take()),
            Stage::FindLocation => find_location(exchange, context),
            Stage::Rewrite => rewrite::run(exchange, context, answer.take()),
            Stage::PreAccess => pre_access(exchange, context, answer.take()),
            // As in nginx only the client's own request is asked.
            Stage::Access if exchange.is_subrequest() => Flow::Next,
            Stage::Access => access::handle(exchange, context, answer.take()),
            Stage::TryFiles => try_files::handle(exchange, context, answer.take()),
            Stage::Mirror => modules::mirror::handle(exchange, context, answer.take()),
            Stage::Content(_) => content(exchange, context, answer.take()),
        };
        if matches!(flow, Flow::Next) {
            advance(exchange);
        } else if let Some(step) = follow(exchange, context, flow) {
            return step;
        }
    }
}

/// Answers a head that could not be accepted: `error_page` of the default server, else a built-in page.
pub fn refuse(exchange: &mut Exchange, context: &mut Context, status: Status) -> Step {
    match follow(exchange, context, Flow::Status(status)) {
        Some(step) => step,
        None => run(exchange, context, None),
    }
}

/// Answers a body that comes too slowly: 408, which nginx never sends, and the connection's end.
pub fn refuse_slowness(exchange: &mut Exchange, context: &mut Context) -> Step {
    exchange.keep_alive = false;
    let flow = error_page::tell(exchange, context, Status::REQUEST_TIMEOUT);
    match follow(exchange, context, flow) {
        Some(step) => step,
        None => run(exchange, context, None),
    }
}

/// Moves the exchange as a handler's answer says; `None` to go on with the next stage.
fn follow(exchange: &mut Exchange, context: &mut Context, mut flow: Flow) -> Option<Step> {
    loop {
        match flow {
            Flow::Next => {
                advance(exchange);
                return None;
            }
            Flow::Need(need) => return Some(Step::Need(need)),
            Flow::Close => return Some(Step::Close),
            Flow::InternalRedirect => match redirect::internal(exchange, context) {
                Ok(()) => return None,
                Err(status) => flow = Flow::Status(status),
            },
            Flow::NamedLocation(location) => match redirect::named(exchange, context, location) {
                Ok(()) => return None,
                Err(status) => flow = Flow::Status(status),
            },
            // As in nginx a block that the include names goes before an `error_page`.
            Flow::Status(_) if modules::ssi::begin_stub_of_failure(exchange, context) => {
                return Some(Step::Respond);
            }
            Flow::Status(status) => flow = error_page::finish(exchange, context, status),
            Flow::Respond => match filters::run_header_filters(exchange, context) {
                None => return Some(Step::Respond),
                Some(status) => flow = error_page::finish(exchange, context, status),
            },
        }
    }
}

/// The stage that follows when a handler had nothing to say.
fn advance(exchange: &mut Exchange) {
    exchange.stage = match exchange.stage {
        Stage::Start => Stage::EarlyBody,
        Stage::EarlyBody => {
            exchange.rewriting.begin();
            Stage::ServerRewrite
        }
        Stage::ServerRewrite => Stage::FindLocation,
        Stage::FindLocation => {
            exchange.rewriting.begin();
            Stage::Rewrite
        }
        Stage::Rewrite => Stage::PreAccess,
        Stage::PreAccess => Stage::Access,
        Stage::Access => {
            exchange.trying = try_files::Running::default();
            Stage::TryFiles
        }
        Stage::TryFiles => Stage::Mirror,
        Stage::Mirror => {
            exchange.content_step = 0;
            Stage::Content(0)
        }
        Stage::Content(number) => {
            exchange.content_step = 0;
            Stage::Content(number + 1)
        }
    };
}

/// Normalises the target and chooses the virtual host.
fn start(exchange: &mut Exchange, context: &mut Context) -> Flow {
    if let Err(status) = take_target(exchange, context) {
        return Flow::Status(status);
    }
    if let Err(status) = choose_server(exchange, context) {
        return Flow::Status(status);
    }
    if let Err(status) = modules::ssl::admit(exchange, context) {
        return Flow::Status(status);
    }
    if exchange.head.method == crate::message::Method::Connect {
        // What follows was meant for a tunnel, whether there will be one or not: it is no request.
        exchange.keep_alive = false;
        if !context.site.server(exchange.server).allows_connect {
            exchange.log(context, Level::Info, format_args!("client sent CONNECT method"));
            return Flow::Status(Status::METHOD_NOT_ALLOWED);
        }
    }
    modules::realip::apply(exchange, context);
    Flow::Next
}

fn take_target(exchange: &mut Exchange, context: &mut Context) -> Result<(), Status> {
    // `merge_slashes` is the default server's: the host is not known when a target is read, as in nginx.
    let merge_slashes = exchange.scope(context).settings.core.merge_slashes;
    let target = exchange.head.target;
    let text = exchange.head.fields.get(target);
    let args = match normalize_uri(text, merge_slashes, &mut exchange.uri) {
        Ok(uri) => uri.args,
        Err(_) => {
            exchange.log(
                context,
                Level::Info,
                format_args!("client sent invalid request while reading client request line"),
            );
            return Err(Status::BAD_REQUEST);
        }
    };
    if let Some(args) = args {
        exchange.args.extend_from_slice(&exchange.head.fields.get(target)[args]);
    }
    Ok(())
}

/// Looks the server of the request's host up; a request without one is that of the name that its TLS handshake was for,
/// else of the server named `""`.
fn choose_server(exchange: &mut Exchange, context: &mut Context) -> Result<(), Status> {
    let address = &context.site.addresses[exchange.address.0 as usize];
    let Some(names) = &address.names else { return Ok(()) };
    let named = exchange.connection.tls.as_ref().filter(|tls| !tls.server_name.is_empty());
    let found = match named.filter(|_| exchange.host().is_empty()) {
        Some(tls) => modules::ssl::server_of(names, &tls.server_name),
        None => exchange.find_server(context, names)?,
    };
    if let Some(server) = found {
        exchange.server = server;
        exchange.location = context.site.server(server).root;
    }
    Ok(())
}

/// Chooses the location for the URI as it is now.
fn find_location(exchange: &mut Exchange, context: &mut Context) -> Flow {
    let server = context.site.server(exchange.server);
    let mut lacks_slash = false;
    match server.locations.find(&exchange.uri, &mut exchange.captures) {
        Ok(Lookup::Found(location)) => {
            if !context.site.location(location).named_captures.is_empty()
                || context.site.location(location).kind == LocationKind::Regex
            {
                exchange.take_captures_of_uri(context, location);
            }
            enter(exchange, context, location);
        }
        Ok(Lookup::AutoRedirect(location)) => {
            enter(exchange, context, location);
            lacks_slash = true;
        }
        Ok(Lookup::None) => enter(exchange, context, server.root),
        Err(error) => {
            exchange.log(context, Level::Alert, format_args!("pcre2_match() failed: {}", error.code));
            return Flow::Status(Status::INTERNAL_SERVER_ERROR);
        }
    }
    let core = &exchange.scope(context).settings.core;
    if core.internal && !exchange.internal {
        return Flow::Status(Status::NOT_FOUND);
    }
    // Where the URI leads later (an error page among others) the body was accepted or refused; subrequests have none.
    let brings_body = exchange.uri_changes_left > MAX_URI_CHANGES && !exchange.is_subrequest();
    if brings_body && let Err(status) = exchange.check_announced_length(context) {
        return Flow::Status(status);
    }
    if lacks_slash { redirect::add_slash(exchange, context) } else { Flow::Next }
}

/// Makes a location the request's scope; `limit_except` may lead to another one.
pub fn enter(exchange: &mut Exchange, context: &Context, location: LocationId) {
    let method = exchange.method();
    exchange.location = match &context.site.location(location).limit_except {
        Some(limit) if limit.spared & (1 << method as u32) == 0 => limit.location,
        _ => location,
    };
}

/// What every request passes before it is asked who may.
fn pre_access(exchange: &mut Exchange, context: &mut Context, answer: Option<Answer>) -> Flow {
    if exchange.is_subrequest() {
        return Flow::Next;
    }
    if answer.is_none() {
        modules::realip::apply(exchange, context);
        for check in [modules::cors::answer_preflight, modules::limit_req::handle] {
            match check(exchange, context) {
                Flow::Next => {}
                flow => return flow,
            }
        }
    }
    // After the delay: a request that waits takes no place among those that are served.
    modules::limit_conn::handle(exchange, context)
}

/// Runs the location's own handler, else the content handlers from where it stands until one has something to say.
fn content(exchange: &mut Exchange, context: &mut Context, mut answer: Option<Answer>) -> Flow {
    if let Some(handler) = exchange.scope(context).settings.core.handler {
        let is_answered = matches!(answer, Some(Answer::Upstream(Ok(()))));
        let flow = handler(exchange, context, answer);
        match flow {
            Flow::Need(Need::Upstream) => sessions::ask(exchange, context),
            Flow::Respond if is_answered => sessions::answered(exchange, context),
            _ => {}
        }
        return match flow {
            Flow::Next => Flow::Status(Status::NOT_FOUND),
            flow => flow,
        };
    }
    while let Stage::Content(number) = exchange.stage
        && let Some(handler) = CONTENT.get(usize::from(number))
    {
        match handler(exchange, context, answer.take()) {
            Flow::Next => advance(exchange),
            flow => return flow,
        }
    }
    if exchange.uri.ends_with(b"/") {
        exchange.log_forbidden_directory(context);
        return Flow::Status(Status::FORBIDDEN);
    }
    Flow::Status(Status::NOT_FOUND)
}
