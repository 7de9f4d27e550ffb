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
    let mapped = match asked {
        Asked::File | Asked::Existence => map_name(exchange, context, number),
        Asked::Folder => map_folder(exchange, context),
    };
    if let Err(status) = mapped {
        return Flow::Status(status);
    }
    exchange.content_step = number * 3 + asked as u32;
    let want = match asked {
        Asked::File => Want::Open,
        Asked::Existence | Asked::Folder => Want::Stat,
    };
    Flow::Need(Need::File(want))
}

/// Puts the path of the URI's folder into the exchange; an `alias` need not end in a slash.
fn map_folder(exchange: &mut Exchange, context: &mut Context) -> Result<(), Status> {
    exchange.map_uri_to_path(context)?;
    if exchange.path.len() > 1 && exchange.path.ends_with(b"/") {
        exchange.path.pop();
        exchange.root_length = exchange.root_length.min(exchange.path.len() as u32);
    }
    exchange.apply_symlink_rules(context);
    Ok(())
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

#[cfg(test)]
mod tests {
    use crate::http::file::Want;
    use crate::http::testing::{World, complaints};

    fn world(body: &str) -> World {
        World::new(&format!("server {{ root /srv; {body} }}"))
            .file("/srv/dir/index.html", "index")
            .file("/srv/f.txt", "f")
            .file("/srv/a/b.txt", "b")
    }

    #[test]
    fn the_first_index_that_exists_is_served_and_looked_up_once() {
        let mut world = world("");
        let reply = world.get("/dir/?q");
        assert_eq!((reply.status, reply.text(), &*reply.field("Content-Type")), (200, "index", "text/html"));
        assert_eq!(world.lookups, [("/srv/dir/index.html".to_owned(), Want::Open)]);
    }

    #[test]
    fn names_are_tried_in_order_and_may_have_variables() {
        let mut world = world("index no.html $arg_x index.html; location /a/ { index ../f.txt; }");
        assert_eq!(world.get("/dir/?x=nope").text(), "index");
        assert_eq!(world.get("/dir/?x=index.html").text(), "index");
        // An empty name is the folder itself, which is there: the redirect never ends.
        assert_eq!(world.get("/dir/").status, 500);
        assert_eq!(world.get("/dir/?x=/f.txt").text(), "f");
    }

    #[test]
    fn the_index_is_chosen_by_an_internal_redirect() {
        let mut world = world("location ~ html$ { return 200 \"$uri?$args\"; }");
        assert_eq!(world.get("/dir/?q").text(), "/dir/index.html?q");
    }

    #[test]
    fn an_absolute_name_always_fits() {
        let mut world = world("location /i/ { index none /f.txt; } location /j/ { index /f.txt; }");
        assert_eq!(world.get("/j/?q").text(), "f");
        assert_eq!(world.get("/i/").status, 404);
    }

    #[test]
    fn an_alias_keeps_the_uri() {
        let mut world = world("location /i5/ { alias /srv/dir/; } location /i6 { alias /srv/dir; }");
        assert_eq!(world.get("/i5/").text(), "index");
        assert_eq!(world.get("/i6/").text(), "index");
    }

    #[test]
    fn a_missing_folder_is_404_and_one_without_an_index_403() {
        let mut world = world("");
        let reply = world.get("/none/");
        assert_eq!(reply.status, 404);
        let line = "[error] \"/srv/none/index.html\" is not found (2: No such file or directory)";
        assert!(reply.log[0].starts_with(line), "{:?}", reply.log);
        let reply = world.get("/a/");
        assert_eq!(reply.status, 403);
        let line = "[error] directory index of \"/srv/a/\" is forbidden";
        assert!(reply.log[0].starts_with(line), "{:?}", reply.log);
        let reply = world.get("/f.txt/");
        assert_eq!(reply.status, 404);
        let line = "[error] \"/srv/f.txt/index.html\" is not found (20: Not a directory)";
        assert!(reply.log[0].starts_with(line), "{:?}", reply.log);
    }

    #[test]
    fn a_missing_index_of_the_root_folder_is_403() {
        assert_eq!(World::new("server { root /; }").get("/").status, 403);
    }

    #[test]
    fn an_index_that_only_another_handler_may_read_is_found() {
        let mut world = world("index s.php; location ~ php$ { return 200 \"ran $uri\"; }")
            .file_with_mode("/srv/dir/s.php", "", 0);
        assert_eq!(world.get("/dir/").text(), "ran /dir/s.php");
    }

    #[test]
    fn a_file_that_was_opened_under_other_rules_is_opened_again() {
        let mut world = world("location = /dir/index.html { disable_symlinks on; }");
        assert_eq!(world.get("/dir/").text(), "index");
        assert_eq!(world.lookups.len(), 2);
    }

    #[test]
    fn other_failures_have_their_status() {
        let mut world = world("").failing("/srv/dir/index.html", 40);
        assert_eq!(world.get("/dir/").status, 403);
        let mut world = World::new("server { root /srv; }").directory("/srv/d").failing("/srv/d/index.html", 13);
        let reply = world.get("/d/");
        assert_eq!(reply.status, 403);
        let line = "[error] \"/srv/d/index.html\" is forbidden (13: Permission denied)";
        assert!(reply.log[0].starts_with(line), "{:?}", reply.log);
    }

    #[test]
    fn methods_that_do_not_read_are_405() {
        assert_eq!(world("").send("PUT /dir/ HTTP/1.0\r\n\r\n").status, 405);
    }

    #[test]
    fn doubtful_and_wrong_names_are_reported() {
        let told = complaints("server { index /a b; }");
        assert_eq!(told, ["[warn] only the last index in \"index\" directive should be absolute"]);
        let told = complaints("server { index \"\"; }");
        assert_eq!(told, ["[emerg] index \"\" in \"index\" directive is invalid"]);
    }
}
