//! `try_files`: the first of several files that exists, else another URI, a named location, or a status.

use std::sync::Arc;

use crate::base::ascii;
use crate::base::level::Level;
use crate::conf::context as places;
use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::template::Template;
use crate::http::build::Scope;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::file::{FailureReason, FileAnswer, FileKind, Want};
use crate::http::flow::{Answer, Flow, Need};
use crate::http::modules::rewrite;
use crate::http::redirect;
use crate::http::settings::contexts::SERVER_LOCATION;
use crate::http::settings::settings;
use crate::http::site::LocationKind;
use crate::message::Status;

settings! {
    module try_files;
    fields {
        /// The first of these files that exists is served, else the last parameter decides.
        tries: Option<Arc<Tries>> = None, own;
            "try_files" SERVER_LOCATION, Arity::at_least(2), default "", once read_tries;
    }
}

/// `try_files`, compiled.
#[derive(Debug)]
pub struct Tries {
    files: Box<[Try]>,
    fallback: Fallback,
}

#[derive(Debug)]
struct Try {
    /// What stands behind the root; without the slash at its end.
    name: Template,
    /// Whether a slash asked for a folder.
    is_directory: bool,
}

/// The last parameter.
#[derive(Debug)]
enum Fallback {
    /// `/uri?args`, `@name`
    Uri(Template),
    /// `=code`
    Status(Status),
}

fn read_tries(scope: &mut Scope, call: &Call) -> Result<Option<Arc<Tries>>, Complaint> {
    let (last, names) = match call.args().split_last() {
        Some(parts) => parts,
        None => return Ok(None),
    };
    let mut files = Vec::with_capacity(names.len());
    for word in names {
        let text = word.as_bytes();
        let (text, is_directory) = match text.strip_suffix(b"/") {
            Some(text) => (text, true),
            None => (text, false),
        };
        files.push(Try { name: scope.builder.template_of(text, word)?, is_directory });
    }
    let fallback = match last.as_bytes().strip_prefix(b"=") {
        Some(code) => match ascii::parse_u64(code) {
            Some(code @ 1..=999) => Fallback::Status(Status(code as u16)),
            _ => return Err(Complaint::new(format!("invalid code \"{}\"", last.lossy())).at(last)),
        },
        None => Fallback::Uri(scope.builder.template(last)?),
    };
    if scope.context == places::Context::LOCATION {
        rewrite::warn_of_ifs_before_try_files(scope, call);
    }
    Ok(Some(Arc::new(Tries { files: files.into(), fallback })))
}

/// Where `try_files` stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Running {
    /// The parameter that is asked for, or to ask for next.
    next: u32,
}

/// Looks for the first file that exists and makes it the URI; else goes where the last parameter says.
pub fn handle(exchange: &mut Exchange, context: &mut Context, answer: Option<Answer>) -> Flow {
    let site = context.site;
    let Some(tries) = &site.settings(exchange.location).try_files.tries else { return Flow::Next };
    if let Some(answer) = answer {
        let Some(tried) = tries.files.get(exchange.trying.next as usize) else { return Flow::Next };
        match judge(exchange, context, answer, tried.is_directory) {
            Err(status) => return Flow::Status(status),
            Ok(true) => {
                take_as_uri(exchange, context, tried.is_directory);
                return Flow::Next;
            }
            Ok(false) => exchange.trying.next += 1,
        }
    }
    while let Some(tried) = tries.files.get(exchange.trying.next as usize) {
        match map_name(exchange, context, &tried.name) {
            Ok(()) => return Flow::Need(Need::File(Want::Stat)),
            Err(Status::INTERNAL_SERVER_ERROR) => return Flow::Status(Status::INTERNAL_SERVER_ERROR),
            // No file can have such a path.
            Err(_) => exchange.trying.next += 1,
        }
    }
    fall_back(exchange, context, &tries.fallback)
}

/// Whether what was found is what was asked for. Anything but a folder counts as a file, as in nginx.
fn judge(
    exchange: &mut Exchange,
    context: &mut Context,
    answer: Answer,
    is_directory: bool,
) -> Result<bool, Status> {
    match answer {
        Answer::File(FileAnswer::Found(file)) => Ok((file.kind == FileKind::Directory) == is_directory),
        Answer::File(FileAnswer::Failed(failure)) => {
            match failure.reason {
                FailureReason::NotFound => {}
                FailureReason::Busy => return Err(Status::SERVICE_UNAVAILABLE),
                _ => exchange.log_file_failure(context, Level::Crit, failure),
            }
            Ok(false)
        }
        _ => Err(Status::INTERNAL_SERVER_ERROR),
    }
}

/// Puts the path of one parameter into the exchange.
fn map_name(exchange: &mut Exchange, context: &mut Context, name: &Template) -> Result<(), Status> {
    let mut text = context.env.scratch();
    render_name(exchange, context, name, &mut text);
    let mapped = exchange.map_beneath_root(&text, context);
    context.env.give_back(text);
    mapped?;
    exchange.apply_symlink_rules(context);
    Ok(())
}

/// Renders a parameter. With `alias` a text with variables loses the location's name at its start, because `$uri`
/// has it; a literal one does not.
fn render_name(exchange: &mut Exchange, context: &mut Context, name: &Template, out: &mut Vec<u8>) {
    exchange.render(name, context, out);
    let location = exchange.scope(context);
    let has_prefix = location.settings.core.root.is_alias && location.kind != LocationKind::Regex;
    if has_prefix && name.as_literal().is_none() && out.starts_with(&location.name) {
        out.drain(..location.name.len());
    }
}

/// The file that was found becomes the URI.
fn take_as_uri(exchange: &mut Exchange, context: &mut Context, is_directory: bool) {
    let location = exchange.scope(context);
    let is_alias = location.settings.core.root.is_alias;
    let rest = exchange.path.get(exchange.root_length as usize..).unwrap_or(b"");
    if is_alias && location.kind == LocationKind::Regex {
        // The alias is the whole path; what was found beneath it goes behind it when the path is formed again.
        if is_directory {
            return;
        }
        exchange.uri_extends_alias = true;
    }
    exchange.uri.clear();
    if is_alias && location.kind != LocationKind::Regex {
        exchange.uri.extend_from_slice(&location.name);
    }
    exchange.uri.extend_from_slice(rest);
    exchange.uri_is_original = false;
}

fn fall_back(exchange: &mut Exchange, context: &mut Context, fallback: &Fallback) -> Flow {
    let template = match fallback {
        Fallback::Status(status) => return Flow::Status(*status),
        Fallback::Uri(template) => template,
    };
    let mut target = context.env.scratch();
    render_name(exchange, context, template, &mut target);
    let flow = if target.starts_with(b"@") {
        redirect::find_named(exchange, context, &target)
    } else {
        redirect::set_uri(exchange, &target);
        Flow::InternalRedirect
    };
    context.env.give_back(target);
    flow
}
