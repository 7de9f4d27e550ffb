//! PUT, DELETE, MKCOL, COPY and MOVE, with nginx's checks in nginx's order.

use crate::base::clock::parse_http_date;
use crate::base::level::Level;
use crate::base::percent::{self, Escape};
use crate::http::change::{Change, ChangeFailure, Changed, Content, Depth, Put, Transfer, folder_mode};
use crate::http::context::Context;
use crate::http::exchange::{Exchange, RequestBody};
use crate::http::file::{FileAnswer, Want};
use crate::http::flow::{Answer, Flow, Need};
use crate::http::modules::core::Replaces;
use crate::http::redirect;
use crate::http::zones::locks::Touched;
use crate::message::{FieldName, Method, Status, check_unsafe_uri};

use super::conditions;
use super::{depth, has_body, wrong};

/// See the module's documentation.
pub fn handle(exchange: &mut Exchange, context: &mut Context, method: Method, answer: Option<Answer>) -> Flow {
    let result = match answer {
        None => begin(exchange, context, method),
        Some(Answer::File(found)) => {
            exchange.notes.dav.state().existing = match found {
                FileAnswer::Found(found) => Some(found),
                FileAnswer::Failed(_) => None,
            };
            go_on(exchange, context, method)
        }
        Some(Answer::RequestBody(Ok(()))) => take_body(exchange, context),
        Some(Answer::RequestBody(Err(status))) => Err(status),
        Some(Answer::Change(result)) => finish(exchange, context, method, result),
        Some(_) => Err(Status::INTERNAL_SERVER_ERROR),
    };
    result.unwrap_or_else(Flow::Status)
}

/// Checks what can be checked without looking at files.
fn begin(exchange: &mut Exchange, context: &mut Context, method: Method) -> Result<Flow, Status> {
    let change = match method {
        Method::Put => put(exchange, context)?,
        Method::Delete => delete(exchange, context)?,
        Method::Mkcol => make_folder(exchange, context)?,
        _ => transfer(exchange, context, method == Method::Move)?,
    };
    exchange.notes.dav.state().change = Some(change);
    if conditions::are_in_play(exchange, context) {
        // Whether it is there decides whose lock is asked about.
        return Ok(Flow::Need(Need::File(Want::Stat)));
    }
    go_on(exchange, context, method)
}

fn go_on(exchange: &mut Exchange, context: &mut Context, method: Method) -> Result<Flow, Status> {
    check_conditions(exchange, context)?;
    match method {
        Method::Put => Ok(Flow::Need(Need::RequestBody)),
        _ => Ok(Flow::Need(Need::Change)),
    }
}

/// Whether nobody else's lock is in the way, and what the client presumes holds.
fn check_conditions(exchange: &mut Exchange, context: &mut Context) -> Result<(), Status> {
    if !conditions::are_in_play(exchange, context) {
        return Ok(());
    }
    let state = exchange.notes.dav.state();
    let Some(change) = state.change.take() else { return Err(Status::INTERNAL_SERVER_ERROR) };
    let is_new = state.existing.is_none();
    let result = match &change {
        Change::Put(put) => {
            conditions::check(exchange, context, &[Touched { path: &put.path, tree: false, member: is_new }])
        }
        Change::Delete { path, .. } => {
            conditions::check(exchange, context, &[Touched { path, tree: true, member: true }])
        }
        Change::MakeFolder { path, .. } | Change::Claim { path, .. } => {
            conditions::check(exchange, context, &[Touched { path, tree: false, member: true }])
        }
        Change::Transfer(order) => {
            let source = Touched { path: &order.from, tree: true, member: true };
            let target = Touched { path: &order.to, tree: true, member: true };
            let touched = [target, source];
            conditions::check(exchange, context, if order.moves { &touched } else { &touched[..1] })
        }
    };
    exchange.notes.dav.state().change = Some(change);
    result
}

fn put(exchange: &mut Exchange, context: &mut Context) -> Result<Change, Status> {
    if exchange.uri.ends_with(b"/") {
        return Err(wrong(exchange, context, Status::CONFLICT, "cannot PUT to a collection"));
    }
    if exchange.head.has(FieldName::ContentRange) {
        return Err(wrong(exchange, context, Status::NOT_IMPLEMENTED, "PUT with range is unsupported"));
    }
    exchange.map_uri_to_path(context)?;
    let settings = &context.site.settings(exchange.location).dav;
    Ok(Change::Put(Put {
        path: exchange.path.clone(),
        content: Content::Memory(Vec::new()),
        modified: exchange.head.field(FieldName::Date).and_then(parse_http_date),
        mode: settings.access,
        folders: settings.create_full_put_path.then(|| folder_mode(settings.access)),
    }))
}

/// A body is an empty one where none was sent; nginx answers 500 then.
fn take_body(exchange: &mut Exchange, context: &mut Context) -> Result<Flow, Status> {
    // Others may have locked it while the body came.
    check_conditions(exchange, context)?;
    let content = match &mut exchange.request_body {
        RequestBody::Unread => Content::Memory(Vec::new()),
        RequestBody::Memory(bytes) => Content::Memory(std::mem::take(bytes)),
        RequestBody::File(_) => Content::BodyFile,
    };
    match &mut exchange.notes.dav.state().change {
        Some(Change::Put(put)) => put.content = content,
        _ => return Err(Status::INTERNAL_SERVER_ERROR),
    }
    Ok(Flow::Need(Need::Change))
}

fn delete(exchange: &mut Exchange, context: &mut Context) -> Result<Change, Status> {
    if has_body(exchange) {
        let message = "DELETE with body is unsupported";
        return Err(wrong(exchange, context, Status::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let least = context.site.settings(exchange.location).dav.min_delete_depth;
    if least > 0 {
        // A slash at the end begins no segment.
        let uri = exchange.uri.strip_suffix(b"/").unwrap_or(&exchange.uri);
        let count = uri.iter().filter(|byte| **byte == b'/').count() as u64;
        if count < least {
            let message = format!("insufficient URI depth:{count} to DELETE");
            return Err(wrong(exchange, context, Status::CONFLICT, &message));
        }
    }
    exchange.map_uri_to_path(context)?;
    let depth = depth(exchange, context, Depth::Infinity);
    Ok(Change::Delete { path: exchange.path.clone(), depth })
}

fn make_folder(exchange: &mut Exchange, context: &mut Context) -> Result<Change, Status> {
    if has_body(exchange) {
        let message = "MKCOL with body is unsupported";
        return Err(wrong(exchange, context, Status::UNSUPPORTED_MEDIA_TYPE, message));
    }
    if !exchange.uri.ends_with(b"/") {
        return Err(wrong(exchange, context, Status::CONFLICT, "MKCOL can create a collection only"));
    }
    exchange.map_uri_to_path(context)?;
    let mode = folder_mode(context.site.settings(exchange.location).dav.access);
    Ok(Change::MakeFolder { path: exchange.path.clone(), mode })
}

fn transfer(exchange: &mut Exchange, context: &mut Context, moves: bool) -> Result<Change, Status> {
    if has_body(exchange) {
        let message = "COPY and MOVE with body are unsupported";
        return Err(wrong(exchange, context, Status::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let destination = destination(exchange, context)?;
    if destination.ends_with(b"/") != exchange.uri.ends_with(b"/") {
        let message = format!(
            "both URI \"{}\" and \"Destination\" URI \"{}\" should be either collections or non-collections",
            String::from_utf8_lossy(&exchange.uri),
            String::from_utf8_lossy(&destination),
        );
        return Err(wrong(exchange, context, Status::CONFLICT, &message));
    }
    let depth = depth(exchange, context, Depth::Infinity);
    if depth != Depth::Infinity && (moves || depth != Depth::Zero) {
        let message =
            if moves { "\"Depth\" header must be infinity" } else { "\"Depth\" header must be 0 or infinity" };
        return Err(wrong(exchange, context, Status::BAD_REQUEST, message));
    }
    let overwrite = overwrite(exchange, context)?;
    exchange.map_to_path(&destination, context)?;
    let to = exchange.path.clone();
    exchange.map_uri_to_path(context)?;
    let access = context.site.settings(exchange.location).dav.access;
    Ok(Change::Transfer(Transfer {
        from: exchange.path.clone(),
        to,
        moves,
        overwrite,
        deep: depth == Depth::Infinity,
        folders: folder_mode(access),
    }))
}

/// The URI of the `Destination` field, decoded (RFC 4918 section 10.3): of this host, without `..`.
fn destination(exchange: &mut Exchange, context: &mut Context) -> Result<Vec<u8>, Status> {
    let Some(text) = exchange.head.field(FieldName::Destination) else {
        return Err(wrong(exchange, context, Status::BAD_REQUEST, "client sent no \"Destination\" header"));
    };
    let invalid = || format!("client sent invalid \"Destination\" header: \"{}\"", String::from_utf8_lossy(text));
    let path = match local_path(exchange, text) {
        Ok(path) => path,
        Err(Foreign::Host) => {
            let message = format!(
                "\"Destination\" URI \"{}\" is handled by different repository than the source URI",
                String::from_utf8_lossy(text)
            );
            return Err(wrong(exchange, context, Status::BAD_REQUEST, &message));
        }
        Err(Foreign::Form) => return Err(wrong(exchange, context, Status::BAD_REQUEST, &invalid())),
    };
    let mut uri = Vec::new();
    let end = memchr::memchr(b'#', path).unwrap_or(path.len());
    // What does not begin with what an alias stands for has no place behind it.
    let has_no_place = |uri: &[u8]| match &context.site.settings(exchange.location).core.root.replaces {
        Replaces::Name(name) => !uri.starts_with(name),
        Replaces::Nothing | Replaces::All => false,
    };
    if check_unsafe_uri(&path[..end], &mut uri).is_err() || has_no_place(&uri) {
        return Err(wrong(exchange, context, Status::BAD_REQUEST, &invalid()));
    }
    Ok(uri)
}

/// Why a URI is not one of ours.
pub enum Foreign {
    /// It is of another host.
    Host,
    /// It is none, or of another scheme.
    Form,
}

/// The path, with what follows it, of a URI that must be one of this server's: absolute, or only a path.
pub fn local_path<'a>(exchange: &Exchange, text: &'a [u8]) -> Result<&'a [u8], Foreign> {
    if text.starts_with(b"/") {
        return Ok(text);
    }
    let scheme: &[u8] = if exchange.connection.secure { b"https://" } else { b"http://" };
    let (start, rest) = text.split_at_checked(scheme.len()).ok_or(Foreign::Form)?;
    if !start.eq_ignore_ascii_case(scheme) || exchange.host().is_empty() {
        return Err(Foreign::Form);
    }
    let slash = memchr::memchr(b'/', rest);
    let authority = &rest[..slash.unwrap_or(rest.len())];
    let host = match memchr::memrchr(b':', authority) {
        Some(colon) if authority[colon + 1..].iter().all(u8::is_ascii_digit) => &authority[..colon],
        _ => authority,
    };
    if !host.eq_ignore_ascii_case(exchange.host()) {
        return Err(Foreign::Host);
    }
    slash.map(|slash| &rest[slash..]).ok_or(Foreign::Form)
}

/// The `Overwrite` field (RFC 4918 section 10.6).
fn overwrite(exchange: &Exchange, context: &mut Context) -> Result<bool, Status> {
    match exchange.head.field(FieldName::Overwrite) {
        None | Some(b"T" | b"t") => Ok(true),
        Some(b"F" | b"f") => Ok(false),
        Some(text) => {
            let shown = String::from_utf8_lossy(text);
            let message = format!("client sent invalid \"Overwrite\" header: \"{shown}\"");
            Err(wrong(exchange, context, Status::BAD_REQUEST, &message))
        }
    }
}

fn finish(
    exchange: &mut Exchange,
    context: &mut Context,
    method: Method,
    result: Result<Changed, ChangeFailure>,
) -> Result<Flow, Status> {
    let changed = result.map_err(|failure| tell(exchange, context, &failure))?;
    let locks = &context.site.zones.locks;
    if matches!(method, Method::Delete | Method::Move) && !locks.is_empty() {
        locks.forget_tree(&exchange.path);
    }
    match (changed, method) {
        (Changed::Done, _) => Ok(Flow::Status(Status::NO_CONTENT)),
        (Changed::Created, Method::Put | Method::Mkcol) => {
            let mut location = context.env.scratch();
            percent::escape(&mut location, &exchange.uri, Escape::Uri);
            redirect::set_location(exchange, context, &location);
            context.env.give_back(location);
            Ok(Flow::Status(Status::CREATED))
        }
        (Changed::Created, _) => Ok(Flow::Status(Status::CREATED)),
    }
}

/// Logs why a change was not made, and says the status.
pub fn tell(exchange: &Exchange, context: &mut Context, failure: &ChangeFailure) -> Status {
    exchange.log(context, failure.level, format_args!("{}", failure.message));
    debug_assert!(failure.level <= Level::Error, "what a client is refused for is logged");
    failure.status
}
