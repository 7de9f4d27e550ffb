//! Running a program.

use crate::base::level::Level;
use crate::base::percent::{self, Escape};
use crate::conf::template::{Part, Template};
use crate::http::body::Body;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::flow::{Answer, Flow};
use crate::http::phases::Stage;
use crate::http::redirect;
use crate::http::site::{LocationId, LocationKind};
use crate::message::Status;

use super::condition::{Outcome, match_and_log};
use super::{Op, Return, Rewrite, Then};

/// Where a program stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Running {
    /// The scope whose program it is, once it has begun: blocks of `if` change the request's scope on the way.
    program: Option<LocationId>,
    /// The next operation.
    next: u32,
    /// Whether `set` and conditions must not escape captures any more. nginx escapes them (if the client's path had
    /// `%` or `+`) until a `rewrite` of the same program has matched.
    keeps_captures: bool,
    /// Whether the URI was changed, so that a location must be chosen for it.
    uri_changed: bool,
}

impl Running {
    /// Gets ready for the program of the scope that the request is in when it runs.
    pub fn begin(&mut self) {
        *self = Running::default();
    }
}

/// How a program goes on after an operation.
enum After {
    Next,
    Jump(u32),
    End,
    Leave(Flow),
}

/// Runs the program of the request's scope: the server's before the location is chosen, the location's after.
pub fn run(exchange: &mut Exchange, context: &mut Context, mut answer: Option<Answer>) -> Flow {
    let site = context.site;
    let id = *exchange.rewriting.program.get_or_insert(exchange.location);
    let location = site.location(id);
    if exchange.stage == Stage::Rewrite && location.kind == LocationKind::Server {
        // No location matched, and the server's program has run already.
        return Flow::Next;
    }
    let settings = &location.settings.rewrite;
    let ops = settings.program.ops();
    while let Some(op) = ops.get(exchange.rewriting.next as usize) {
        match execute(exchange, context, op, answer.take(), settings.rewrite_log) {
            After::Next => exchange.rewriting.next += 1,
            After::Jump(position) => exchange.rewriting.next = position,
            After::End => break,
            After::Leave(flow) => return flow,
        }
    }
    if exchange.stage == Stage::Rewrite && exchange.rewriting.uri_changed {
        return choose_location_anew(exchange, context);
    }
    Flow::Next
}

fn choose_location_anew(exchange: &mut Exchange, context: &mut Context) -> Flow {
    if !redirect::spend_uri_change(exchange) {
        let uri = String::from_utf8_lossy(&exchange.uri).into_owned();
        exchange.log(
            context,
            Level::Error,
            format_args!("rewrite or internal redirection cycle while processing \"{uri}\""),
        );
        return Flow::Status(Status::INTERNAL_SERVER_ERROR);
    }
    exchange.location = context.site.server(exchange.server).root;
    // The stage before: what follows it is the choice of the location.
    exchange.stage = Stage::ServerRewrite;
    Flow::Next
}

fn execute(
    exchange: &mut Exchange,
    context: &mut Context,
    op: &Op,
    answer: Option<Answer>,
    logs: bool,
) -> After {
    match op {
        Op::If(condition, otherwise) => match condition.evaluate(exchange, context, answer, logs) {
            Outcome::Known(true) => After::Next,
            Outcome::Known(false) => After::Jump(*otherwise),
            Outcome::Need(need) => After::Leave(Flow::Need(need)),
            Outcome::Refused(status) => After::Leave(Flow::Status(status)),
        },
        Op::Enter(location) => {
            exchange.location = *location;
            After::Next
        }
        Op::Set(variable, value) => {
            let mut text = context.env.scratch();
            render_value(exchange, context, value, &mut text);
            exchange.assign(*variable, context, &text);
            context.env.give_back(text);
            After::Next
        }
        Op::Break => {
            if exchange.rewriting.uri_changed {
                exchange.uri_fits_location = false;
                exchange.rewriting.uri_changed = false;
            }
            After::End
        }
        Op::Return(answer) => After::Leave(finish(exchange, context, answer)),
        Op::Rewrite(rewrite) => {
            let uri = std::mem::take(&mut exchange.uri);
            let matched = match_and_log(exchange, context, &rewrite.regex, &uri, logs);
            exchange.uri = uri;
            match matched {
                Ok(true) => apply(exchange, context, rewrite, logs),
                Ok(false) => After::Next,
                Err(status) => After::Leave(Flow::Status(status)),
            }
        }
    }
}

/// `return`
fn finish(exchange: &mut Exchange, context: &mut Context, answer: &Return) -> Flow {
    let Return { status, text } = answer;
    if status.0 >= 400 && text.is_empty() {
        return Flow::Status(*status);
    }
    if matches!(status.0, 301 | 302 | 303 | 307 | 308) {
        exchange.with_rendered(text, context, |exchange, context, target| {
            redirect::set_location(exchange, context, target);
        });
        return Flow::Status(*status);
    }
    exchange.response.status = *status;
    if status.forbids_content() {
        return Flow::Respond;
    }
    let mut body = context.env.scratch();
    exchange.render(text, context, &mut body);
    let settings = context.site.settings(exchange.location);
    let media_type = settings.types.of_path(&exchange.uri, settings.core.strict);
    if !media_type.is_empty() {
        exchange.response.set_content_type(media_type);
    }
    exchange.response.set_content_length(body.len() as u64);
    exchange.body = if body.is_empty() { Body::Empty } else { Body::Bytes(body) };
    Flow::Respond
}

/// Puts a replacement into effect.
fn apply(exchange: &mut Exchange, context: &mut Context, rewrite: &Rewrite, logs: bool) -> After {
    exchange.internal = true;
    exchange.uri_is_original = false;
    exchange.rewriting.keeps_captures = true;
    if let Then::Redirect(status) = rewrite.then {
        redirect_to(exchange, context, rewrite, logs);
        return After::Leave(Flow::Status(status));
    }
    let mut uri = context.env.scratch();
    render(exchange, context, &rewrite.target, false, &mut uri);
    let mut args = context.env.scratch();
    if let Some(template) = &rewrite.args {
        render(exchange, context, template, true, &mut args);
    }
    if rewrite.keeps_args && !exchange.args.is_empty() {
        if rewrite.has_args {
            args.push(b'&');
        }
        args.extend_from_slice(&exchange.args);
    }
    exchange.uri.clear();
    exchange.uri.extend_from_slice(&uri);
    exchange.args.clear();
    exchange.args.extend_from_slice(&args);
    context.env.give_back(uri);
    context.env.give_back(args);
    if logs {
        let (uri, args) = (lossy(&exchange.uri), lossy(&exchange.args));
        let line = format_args!("rewritten data: \"{uri}\", args: \"{args}\"");
        exchange.log(context, Level::Notice, line);
    }
    if exchange.uri.is_empty() {
        exchange.log(context, Level::Error, format_args!("the rewritten URI has a zero length"));
        return After::Leave(Flow::Status(Status::INTERNAL_SERVER_ERROR));
    }
    match rewrite.then {
        Then::Break => {
            exchange.uri_fits_location = false;
            exchange.rewriting.uri_changed = false;
            After::End
        }
        then => {
            exchange.rewriting.uri_changed = true;
            if then == Then::Last { After::End } else { After::Next }
        }
    }
}

fn redirect_to(exchange: &mut Exchange, context: &mut Context, rewrite: &Rewrite, logs: bool) {
    let mut text = context.env.scratch();
    render(exchange, context, &rewrite.target, true, &mut text);
    let mut target = context.env.scratch();
    percent::decode_for_redirect(&mut target, &text);
    if rewrite.keeps_args && !exchange.args.is_empty() {
        target.push(if rewrite.has_args { b'&' } else { b'?' });
        target.extend_from_slice(&exchange.args);
    }
    if logs {
        let shown = lossy(&target);
        exchange.log(context, Level::Notice, format_args!("rewritten redirect: \"{shown}\""));
    }
    redirect::set_location(exchange, context, &target);
    context.env.give_back(text);
    context.env.give_back(target);
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

/// Renders the value of a `set` or the right side of a condition.
pub(super) fn render_value(exchange: &mut Exchange, context: &mut Context, template: &Template, out: &mut Vec<u8>) {
    let escapes = !exchange.rewriting.keeps_captures;
    render(exchange, context, template, escapes, out);
}

/// Renders a text of the program. Captures are pieces of a decoded path: with `escapes` they are escaped again as
/// arguments, if the client's path had anything to decode.
fn render(
    exchange: &mut Exchange,
    context: &mut Context,
    template: &Template,
    escapes: bool,
    out: &mut Vec<u8>,
) {
    if !(escapes && template.has_captures() && path_was_decoded(exchange)) {
        return exchange.render(template, context, out);
    }
    for part in template.parts() {
        match part {
            Part::Literal(text) => out.extend_from_slice(text),
            Part::Variable(id) => {
                exchange.variable(*id, context, out);
            }
            Part::Capture(number) => percent::escape(out, exchange.capture(*number), Escape::Args),
        }
    }
}

/// Whether the path as the client sent it had `%` or `+`.
fn path_was_decoded(exchange: &Exchange) -> bool {
    let target = exchange.head.target();
    let path = memchr::memchr(b'?', target).map_or(target, |mark| &target[..mark]);
    memchr::memchr2(b'%', b'+', path).is_some()
}
