//! `index`: the file that stands for a folder.

use std::sync::Arc;

use crate::base::level::Level;
use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::template::Template;
use crate::http::build::Scope;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::file::{FileAnswer, FileFailure, FileInfo, FileKind, Want};
use crate::http::flow::{Answer, Flow, Need};
use crate::http::settings::contexts::HTTP_SERVER_LOCATION;
use crate::http::settings::settings;
use crate::message::{Method, Status};

settings! {
    module index;
    fields {
        /// Names that are tried for a request of a folder.
        names: Names = default_names(), inherit;
            "index" HTTP_SERVER_LOCATION, Arity::at_least(1), default "index.html", with add_names;
    }
}

/// Names in order; one that begins with a slash is a URI and always fits.
pub type Names = Arc<Vec<Template>>;

fn default_names() -> Names {
    Arc::new(vec![Template::literal(b"index.html")])
}

fn add_names(scope: &mut Scope, call: &Call, slot: &mut Option<Names>) -> Result<(), Complaint> {
    let names = Arc::make_mut(slot.get_or_insert_default());
    for (position, word) in call.args().iter().enumerate() {
        if word.as_bytes().starts_with(b"/") && position + 1 < call.args().len() {
            scope.warn(call, "only the last index in \"index\" directive should be absolute");
        }
        if word.as_bytes().is_empty() {
            let message = format!("index \"{}\" in \"index\" directive is invalid", word.lossy());
            return Err(Complaint::new(message).at(word));
        }
        names.push(scope.builder.template(word)?);
    }
    Ok(())
}

/// What was asked about a name, as the exchange's counter of steps holds it: three numbers for each name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// To open the file: the response will need it open, so that it is not looked up twice.
    File = 0,
    /// Whether it is there at all, because it could not be opened: another handler may not need to read it.
    Existence = 1,
    /// Whether its folder is there.
    Folder = 2,
}

/// Redirects a request of a folder to the first of the index files that exists.
pub fn handle(exchange: &mut Exchange, context: &mut Context, answer: Option<Answer>) -> Flow {
    let Some(answer) = answer else {
        let reads = matches!(exchange.method(), Method::Get | Method::Head | Method::Post);
        if !exchange.uri.ends_with(b"/") || !reads {
            return Flow::Next;
        }
        return try_name(exchange, context, 0);
    };
    let number = exchange.content_step / 3;
    let Answer::File(answer) = answer else { return Flow::Status(Status::INTERNAL_SERVER_ERROR) };
    match (exchange.content_step % 3, answer) {
        (step, FileAnswer::Found(file)) if step == Asked::Folder as u32 => {
            if file.kind == FileKind::Directory {
                return try_name(exchange, context, number + 1);
            }
            let path = lossy(&exchange.path);
            exchange.log(context, Level::Alert, format_args!("\"{path}\" is not a directory"));
            Flow::Status(Status::INTERNAL_SERVER_ERROR)
        }
        (step, FileAnswer::Failed(failure)) if step == Asked::Folder as u32 => {
            refuse_folder(exchange, context, number, failure)
        }
        (_, FileAnswer::Found(file)) => take(exchange, context, number, file),
        (step, FileAnswer::Failed(failure)) => refuse_file(exchange, context, number, step, failure),
    }
}

/// Asks for the name with this number.
fn try_name(exchange: &mut Exchange, context: &mut Context, number: u32) -> Flow {
    let site = context.site;
    let names = &site.settings(exchange.location).index.names;
    let Some(name) = names.get(number as usize) else { return Flow::Next };
    let mut text = context.env.scratch();
    exchange.render(name, context, &mut text);
    if text.starts_with(b"/") {
        exchange.uri.clear();
        exchange.uri.extend_from_slice(&text);
        exchange.uri_is_original = false;
        context.env.give_back(text);
        return Flow::InternalRedirect;
    }
    context.env.give_back(text);
    ask(exchange, context, number, Asked::File)
}

fn ask(exchange: &mut Exchange, context: &mut Context, number: u32, asked: Asked) -> Flow {
    if let Err(status) = map_name(exchange, context, number) {
        return Flow::Status(status);
    }
    exchange.content_step = number * 3 + asked as u32;
    let want = match asked {
        Asked::File => Want::Open,
        Asked::Existence => Want::Stat,
        Asked::Folder => {
            let folder = memchr::memrchr(b'/', &exchange.path).unwrap_or(0).max(1);
            exchange.path.truncate(folder);
            exchange.root_length = exchange.root_length.min(folder as u32);
            Want::Stat
        }
    };
    Flow::Need(Need::File(want))
}

/// Puts the path of the name with this number into the exchange.
fn map_name(exchange: &mut Exchange, context: &mut Context, number: u32) -> Result<(), Status> {
    exchange.map_uri_to_path(context)?;
    let site = context.site;
    let names = &site.settings(exchange.location).index.names;
    if let Some(name) = names.get(number as usize) {
        let mut text = context.env.scratch();
        exchange.render(name, context, &mut text);
        exchange.path.extend_from_slice(&text);
        context.env.give_back(text);
    }
    exchange.apply_symlink_rules(context);
    Ok(())
}

/// Redirects to the name; what was opened for it waits for the handler that wants the same path.
fn take(exchange: &mut Exchange, context: &mut Context, number: u32, file: FileInfo) -> Flow {
    if file.handle.is_some() {
        exchange.leave_opened(file);
    }
    let site = context.site;
    let names = &site.settings(exchange.location).index.names;
    if let Some(name) = names.get(number as usize) {
        let mut text = context.env.scratch();
        exchange.render(name, context, &mut text);
        exchange.uri.extend_from_slice(&text);
        context.env.give_back(text);
    }
    exchange.uri_is_original = false;
    Flow::InternalRedirect
}

/// Numbers of the system's errors that nginx tells apart here.
mod errno {
    pub const ENOENT: i32 = 2;
    pub const EACCES: i32 = 13;
    pub const ENOTDIR: i32 = 20;
    pub const EMLINK: i32 = 31;
    pub const ENAMETOOLONG: i32 = 36;
    pub const ELOOP: i32 = 40;
}

fn refuse_file(
    exchange: &mut Exchange,
    context: &mut Context,
    number: u32,
    step: u32,
    failure: FileFailure,
) -> Flow {
    match failure.errno {
        errno::EMLINK | errno::ELOOP => Flow::Status(Status::FORBIDDEN),
        errno::EACCES if step == Asked::File as u32 => ask(exchange, context, number, Asked::Existence),
        errno::EACCES | errno::ENOTDIR | errno::ENAMETOOLONG => refuse(exchange, context, failure),
        // The folder is looked at once: a missing one is 404, not "no index", which would be 403.
        errno::ENOENT if number == 0 => ask(exchange, context, number, Asked::Folder),
        errno::ENOENT => try_name(exchange, context, number + 1),
        _ => {
            exchange.log_file_failure(context, Level::Crit, failure);
            Flow::Status(match failure.reason {
                crate::http::file::FailureReason::Busy => Status::SERVICE_UNAVAILABLE,
                _ => Status::INTERNAL_SERVER_ERROR,
            })
        }
    }
}

fn refuse_folder(exchange: &mut Exchange, context: &mut Context, number: u32, failure: FileFailure) -> Flow {
    match failure.errno {
        errno::EMLINK | errno::ELOOP => Flow::Status(Status::FORBIDDEN),
        errno::ENOENT => match map_name(exchange, context, number) {
            Ok(()) => refuse(exchange, context, failure),
            Err(status) => Flow::Status(status),
        },
        _ => {
            exchange.log_file_failure(context, Level::Crit, failure);
            Flow::Status(Status::INTERNAL_SERVER_ERROR)
        }
    }
}

/// Logs that the file is forbidden or not found, in nginx's words.
fn refuse(exchange: &mut Exchange, context: &mut Context, failure: FileFailure) -> Flow {
    let path = lossy(&exchange.path);
    let error = failure.error_text();
    if failure.errno == errno::EACCES {
        exchange.log(context, Level::Error, format_args!("\"{path}\" is forbidden ({error})"));
        return Flow::Status(Status::FORBIDDEN);
    }
    if context.site.settings(exchange.location).static_files.log_not_found {
        exchange.log(context, Level::Error, format_args!("\"{path}\" is not found ({error})"));
    }
    Flow::Status(Status::NOT_FOUND)
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}
