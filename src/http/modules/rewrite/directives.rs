//! From directives to operations.

use std::sync::Arc;

use crate::conf::context::Context;
use crate::conf::directive::{Call, Complaint};
use crate::conf::template::Template;
use crate::conf::tree::{self, Word};
use crate::http::build::{Scope, add_if_scope};
use crate::message::Status;

use super::{Condition, Op, Program, Return, Rewrite, Then};

type Slot = Option<Program>;

pub(super) fn add_rewrite(scope: &mut Scope, call: &Call, slot: &mut Slot) -> Result<(), Complaint> {
    let regex = scope.builder.regex(call.arg(0).as_bytes(), false, call.arg(0))?;
    let word = call.arg(1);
    let mut text = word.as_bytes();
    if text.is_empty() {
        return Err(Complaint::new("empty replacement").at(word));
    }
    let keeps_args = !text.ends_with(b"?");
    if !keeps_args {
        text = &text[..text.len() - 1];
    }
    let then = match call.args().get(2) {
        None if is_url(text) => Then::Redirect(Status::FOUND),
        None => Then::GoOn,
        Some(flag) => match (flag.as_bytes(), is_url(text)) {
            (b"permanent", _) => Then::Redirect(Status::MOVED_PERMANENTLY),
            (b"redirect", _) | (b"last" | b"break", true) => Then::Redirect(Status::FOUND),
            (b"last", false) => Then::Last,
            (b"break", false) => Then::Break,
            _ => return Err(Complaint::invalid_parameter(flag)),
        },
    };
    let mark = literal_question_mark(text);
    let splits = !matches!(then, Then::Redirect(_));
    let (target, args) = match mark {
        Some(mark) if splits => (&text[..mark], Some(&text[mark + 1..])),
        _ => (text, None),
    };
    let target = scope.builder.template_of(target, word)?;
    let args = args.map(|args| scope.builder.template_of(args, word)).transpose()?;
    let has_args = mark.is_some();
    slot.get_or_insert_default().push(Op::Rewrite(Arc::new(Rewrite {
        regex,
        target,
        args,
        has_args,
        keeps_args,
        then,
    })));
    Ok(())
}

/// Replacements that begin so are redirects whatever the flag.
fn is_url(text: &[u8]) -> bool {
    text.starts_with(b"http://") || text.starts_with(b"https://") || text.starts_with(b"$scheme")
}

/// The first `?`; names of variables can have none.
fn literal_question_mark(text: &[u8]) -> Option<usize> {
    memchr::memchr(b'?', text)
}

pub(super) fn add_return(scope: &mut Scope, call: &Call, slot: &mut Slot) -> Result<(), Complaint> {
    let code = call.arg(0);
    let invalid = || Complaint::new(format!("invalid return code \"{}\"", code.lossy())).at(code);
    let (status, text) = match crate::base::ascii::parse_u64(code.as_bytes()) {
        Some(number) if number > 999 => return Err(invalid()),
        Some(number) => (Status(number as u16), call.args().get(1)),
        None if call.args().len() == 1 && is_url(code.as_bytes()) => (Status::FOUND, Some(code)),
        None => return Err(invalid()),
    };
    let text = match text {
        Some(word) => scope.builder.template(word)?,
        None => Template::default(),
    };
    slot.get_or_insert_default().push(Op::Return(Return { status, text }));
    Ok(())
}

pub(super) fn add_set(scope: &mut Scope, call: &Call, slot: &mut Slot) -> Result<(), Complaint> {
    let word = call.arg(0);
    let Some(variable) = scope.builder.variable_name(word) else {
        return Err(Complaint::new(format!("invalid variable name \"{}\"", word.lossy())).at(word));
    };
    scope.builder.define_assigned(variable).map_err(|complaint| complaint.at(word))?;
    let value = scope.builder.template(call.arg(1))?;
    slot.get_or_insert_default().push(Op::Set(variable, value));
    Ok(())
}

pub(super) fn add_break(_: &mut Scope, _: &Call, slot: &mut Slot) -> Result<(), Complaint> {
    slot.get_or_insert_default().push(Op::Break);
    Ok(())
}

pub(super) fn add_if(scope: &mut Scope, call: &Call, slot: &mut Slot) -> Result<(), Complaint> {
    let condition = Condition::parse(scope, call.args())?;
    let in_location = scope.context == Context::LOCATION;
    let errors = scope.builder.diagnostics.error_count();
    let block = add_if_scope(scope, call);
    let is_sound = scope.builder.diagnostics.error_count() == errors;
    let inner = scope
        .children
        .last_mut()
        .and_then(|child| child.drafts.rewrite.as_mut())
        .and_then(|draft| draft.program.take())
        .unwrap_or_default();
    let program = slot.get_or_insert_default();
    // The condition itself, the change of scope, and the block: what follows is where a failed condition goes on.
    let start = program.ops().len() + 1 + usize::from(in_location);
    let end = start + inner.ops().len();
    program.push(Op::If(Arc::new(condition), end as u32));
    if in_location {
        program.push(Op::Enter(block));
    }
    for op in inner.ops() {
        program.push(op.clone());
    }
    if in_location && is_sound {
        warn_of_traps(scope, call);
    }
    Ok(())
}

/// Directives that do in the `if` of a location what they seem to.
const HARMLESS: &[&str] = &[
    "return",
    "rewrite",
    "set",
    "break",
    "add_header",
    "add_header_inherit",
    "add_trailer",
    "add_trailer_inherit",
    "expires",
    "access_log",
    "error_log",
    "limit_rate",
    "limit_rate_after",
    "rewrite_log",
    "uninitialized_variable_warn",
];

fn warn_of_traps(scope: &mut Scope, call: &Call) {
    if let Some(directive) = call.block().iter().find(|directive| !is_harmless(directive)) {
        let message = format!(
            "\"{}\" inside \"if\": the block replaces the settings of its location for the rest of the request, it \
             is not a step of a program",
            directive.name().lossy()
        );
        scope.builder.warn_at(directive.name(), directive.include, message);
    }
    let has_tries = scope.drafts.try_files.as_ref().is_some_and(|draft| draft.tries.is_some());
    if has_tries && !ends_request(call.block()) {
        scope.warn(call, TRY_FILES_TRAP);
    }
}

const TRY_FILES_TRAP: &str = "\"try_files\" of this location has no effect on requests for which an \"if\" of it holds";

/// The same where `try_files` comes last.
pub fn warn_of_ifs_before_try_files(scope: &mut Scope, call: &Call) {
    let ops = scope.drafts.rewrite.as_ref().and_then(|draft| draft.program.as_ref()).map_or(&[][..], Program::ops);
    let goes_on = ops.iter().enumerate().any(|(position, op)| match op {
        Op::If(_, end) => !ops[position..*end as usize].iter().any(ends_program),
        _ => false,
    });
    if goes_on {
        scope.warn(call, TRY_FILES_TRAP);
    }
}

fn ends_program(op: &Op) -> bool {
    match op {
        Op::Return(_) => true,
        Op::Rewrite(rewrite) => matches!(rewrite.then, Then::Last | Then::Redirect(_)),
        _ => false,
    }
}

fn is_harmless(directive: &tree::Directive) -> bool {
    HARMLESS.iter().any(|name| directive.name() == name)
}

/// Whether a block ends with an answer or a new choice of the location, so that its settings hardly matter.
fn ends_request(block: &[tree::Directive]) -> bool {
    block.iter().any(|directive| {
        let last = directive.args().last().map(Word::as_bytes);
        directive.name() == "return"
            || directive.name() == "rewrite" && matches!(last, Some(b"last" | b"redirect" | b"permanent"))
    })
}
