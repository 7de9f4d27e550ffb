//! LOCK and UNLOCK: exclusive write locks, kept in memory ([`crate::http::zones::locks`]).

use std::sync::Arc;

use crate::base::ascii::{list_elements, parse_u64};
use crate::http::body::Body;
use crate::http::change::{Change, Changed, Depth};
use crate::http::context::Context;
use crate::http::exchange::{Exchange, RequestBody};
use crate::http::file::{FailureReason, FileAnswer, Want};
use crate::http::flow::{Answer, Flow, Need};
use crate::http::modules::core_variables::append_remote_user;
use crate::http::zones::locks::{Claimant, LONGEST_SECS, Lock, Refusal, Token, Touched};
use crate::message::Status;

use super::writing::tell;
use super::{bodies, conditions, depth, has_body, markup, properties, wrong};

/// How long a lock lasts that asks for no time, in seconds.
const USUAL_SECS: u64 = 600;

/// LOCK: a new lock, or without a body more time for one.
pub fn lock(exchange: &mut Exchange, context: &mut Context, answer: Option<Answer>) -> Flow {
    let result = match answer {
        None => begin(exchange, context),
        Some(Answer::RequestBody(Ok(()))) => take_body(exchange, context),
        Some(Answer::RequestBody(Err(status))) => Err(status),
        Some(Answer::File(found)) => add(exchange, context, found),
        Some(Answer::Change(result)) => match result {
            Ok(Changed::Created) => answer_with(exchange, context, Status::CREATED),
            Ok(Changed::Done) => answer_with(exchange, context, Status::OK),
            Err(failure) => {
                take_back(exchange, context);
                Err(tell(exchange, context, &failure))
            }
        },
        Some(_) => Err(Status::INTERNAL_SERVER_ERROR),
    };
    result.unwrap_or_else(Flow::Status)
}

fn begin(exchange: &mut Exchange, context: &mut Context) -> Result<Flow, Status> {
    exchange.map_uri_to_path(context)?;
    if !has_body(exchange) {
        return refresh(exchange, context);
    }
    if !matches!(depth(exchange, context, Depth::Infinity), Depth::Zero | Depth::Infinity) {
        let message = "\"Depth\" header must be 0 or infinity";
        return Err(wrong(exchange, context, Status::BAD_REQUEST, message));
    }
    properties::read_body(exchange, context)
}

fn refresh(exchange: &mut Exchange, context: &mut Context) -> Result<Flow, Status> {
    let named = conditions::check_field(exchange, context)?;
    if named.tokens.is_empty() {
        let message = "client sent LOCK with neither body nor lock";
        return Err(wrong(exchange, context, Status::BAD_REQUEST, message));
    }
    let now_ms = context.env.now.monotonic_ms;
    let claimant = Claimant { user: &named.user, tokens: &named.tokens, now_ms };
    let refreshed = context.site.zones.locks.refresh(&exchange.path, &claimant, timeout(exchange));
    exchange.notes.dav.state().lock = Some(refreshed.ok_or(Status::PRECONDITION_FAILED)?);
    answer_with(exchange, context, Status::OK)
}

fn take_body(exchange: &mut Exchange, context: &mut Context) -> Result<Flow, Status> {
    let RequestBody::Memory(body) = &exchange.request_body else { return Err(Status::CONTENT_TOO_LARGE) };
    let info = bodies::parse_lock(body).map_err(bodies::BodyError::status)?;
    if !info.is_exclusive_write {
        let message = "client asked for a lock that is no exclusive one for writing";
        return Err(wrong(exchange, context, Status::UNPROCESSABLE_CONTENT, message));
    }
    let mut user = Vec::new();
    append_remote_user(exchange, &mut user);
    let timeout_secs = timeout(exchange);
    let lock = Lock {
        token: Token::of_random(context.env.random.u128(..)),
        deep: depth(exchange, context, Depth::Infinity) == Depth::Infinity,
        user: user.into(),
        owner: info.owner.into(),
        root: Arc::from(&*exchange.uri),
        timeout_secs,
        until_ms: context.env.now.monotonic_ms + timeout_secs * 1000,
    };
    exchange.notes.dav.state().lock = Some(lock);
    Ok(Flow::Need(Need::File(Want::Stat)))
}

/// Adds the lock; where nothing is yet, an empty file comes into being (RFC 4918 section 7.3).
fn add(exchange: &mut Exchange, context: &mut Context, found: FileAnswer) -> Result<Flow, Status> {
    let is_new = match found {
        FileAnswer::Found(found) => {
            exchange.notes.dav.state().existing = Some(found);
            false
        }
        FileAnswer::Failed(failure) if failure.reason == FailureReason::NotFound => true,
        FileAnswer::Failed(failure) => return Err(properties::refuse(exchange, context, failure)),
    };
    let path = exchange.path.clone();
    conditions::check(exchange, context, &[Touched { path: &path, tree: false, member: is_new }])?;
    let Some(lock) = exchange.notes.dav.state().lock.clone() else { return Err(Status::INTERNAL_SERVER_ERROR) };
    match context.site.zones.locks.add(&path, lock, context.env.now.monotonic_ms) {
        Ok(()) => {}
        Err(Refusal::Locked) => return Err(Status::LOCKED),
        Err(Refusal::Full) => {
            let message = "there are more locks than there may be";
            return Err(wrong(exchange, context, Status::INSUFFICIENT_STORAGE, message));
        }
    }
    if !is_new {
        return answer_with(exchange, context, Status::OK);
    }
    let mode = context.site.settings(exchange.location).dav.access;
    exchange.notes.dav.state().change = Some(Change::Claim { path, mode });
    Ok(Flow::Need(Need::Change))
}

fn take_back(exchange: &mut Exchange, context: &mut Context) {
    if let Some(lock) = exchange.notes.dav.state().lock.take() {
        let now_ms = context.env.now.monotonic_ms;
        // It was ours a moment ago; if its time is over already, so be it.
        let _ = context.site.zones.locks.remove(&exchange.path, lock.token, &lock.user, now_ms);
    }
}

/// Answers with the lock; the token is in a field of its own, for clients that read no XML.
fn answer_with(exchange: &mut Exchange, context: &mut Context, status: Status) -> Result<Flow, Status> {
    let Some(lock) = exchange.notes.dav.state().lock.take() else { return Err(Status::INTERNAL_SERVER_ERROR) };
    let mut token = b"<".to_vec();
    lock.token.append(&mut token);
    token.push(b'>');
    let mut body = markup::DECLARATION.to_vec();
    body.extend_from_slice(b"<D:prop xmlns:D=\"DAV:\"><D:lockdiscovery>");
    markup::append_lock(&mut body, &lock, context.env.now.monotonic_ms);
    body.extend_from_slice(b"</D:lockdiscovery></D:prop>\n");
    let response = &mut exchange.response;
    response.status = status;
    response.fields.push(b"Lock-Token", &token);
    response.set_content_type(markup::CONTENT_TYPE);
    response.set_content_length(body.len() as u64);
    exchange.body = Body::Bytes(body);
    Ok(Flow::Respond)
}

/// The first time of the `Timeout` field that we understand (RFC 4918 section 10.7), in seconds, within our bounds.
fn timeout(exchange: &Exchange) -> u64 {
    let Some(text) = exchange.head.fields.named(b"Timeout").next() else { return USUAL_SECS };
    let times = list_elements(text).filter_map(|time| match time {
        b"Infinite" => Some(LONGEST_SECS),
        // More digits than a number has are a long time as well.
        _ => time
            .strip_prefix(b"Second-")
            .filter(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit))
            .map(|digits| parse_u64(digits).unwrap_or(LONGEST_SECS)),
    });
    times.map(|secs| secs.clamp(1, LONGEST_SECS)).next().unwrap_or(USUAL_SECS)
}

/// UNLOCK.
pub fn unlock(exchange: &mut Exchange, context: &mut Context) -> Flow {
    if let Err(status) = exchange.map_uri_to_path(context) {
        return Flow::Status(status);
    }
    let text = exchange.head.fields.named(b"Lock-Token").next();
    let inner = text.and_then(|text| text.strip_prefix(b"<")?.strip_suffix(b">"));
    let Some(inner) = inner else {
        let message = "client sent no valid \"Lock-Token\" header";
        return Flow::Status(wrong(exchange, context, Status::BAD_REQUEST, message));
    };
    let mut user = Vec::new();
    append_remote_user(exchange, &mut user);
    let now_ms = context.env.now.monotonic_ms;
    let locks = &context.site.zones.locks;
    let removed = Token::parse(inner).map_or(Ok(false), |token| locks.remove(&exchange.path, token, &user, now_ms));
    Flow::Status(match removed {
        Ok(true) => Status::NO_CONTENT,
        Ok(false) => Status::CONFLICT,
        Err(_) => Status::FORBIDDEN,
    })
}
