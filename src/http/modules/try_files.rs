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
use crate::http::modules::core::Replaces;
use crate::http::modules::rewrite;
use crate::http::redirect;
use crate::http::settings::contexts::SERVER_LOCATION;
use crate::http::settings::settings;
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

/// Renders a parameter. With `alias` a text with variables loses at its start what the alias replaces, because `$uri`
/// has it; a literal one does not.
fn render_name(exchange: &mut Exchange, context: &mut Context, name: &Template, out: &mut Vec<u8>) {
    exchange.render(name, context, out);
    if name.as_literal().is_none()
        && let Replaces::Name(replaced) = &exchange.scope(context).settings.core.root.replaces
        && out.starts_with(replaced)
    {
        out.drain(..replaced.len());
    }
}

/// The file that was found becomes the URI.
fn take_as_uri(exchange: &mut Exchange, context: &mut Context, is_directory: bool) {
    let replaces = &exchange.scope(context).settings.core.root.replaces;
    let rest = exchange.path.get(exchange.root_length as usize..).unwrap_or(b"");
    if *replaces == Replaces::All {
        // The alias is the whole path; what was found beneath it goes behind it when the path is formed again.
        if is_directory {
            return;
        }
        exchange.uri_extends_alias = true;
    }
    exchange.uri.clear();
    if let Replaces::Name(name) = replaces {
        exchange.uri.extend_from_slice(name);
    }
    exchange.uri.extend_from_slice(rest);
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

#[cfg(test)]
mod tests {
    use crate::http::testing::{World, complaints};

    fn world(body: &str) -> World {
        World::new(&format!("server {{ root /srv; {body} }}"))
            .file("/srv/f.txt", "f")
            .file("/srv/dir/index.html", "index")
            .file("/srv/a/x.txt", "x")
            .file("/srv/a/1/f.txt", "deep")
    }

    /// Expected answers are nginx's: status, and text or Location.
    #[track_caller]
    fn check(body: &str, target: &str, status: u16, text: &str) {
        let reply = world(body).get(target);
        let shown = if reply.status == 301 { reply.field("Location") } else { reply.text().to_owned() };
        let shown = if reply.status >= 400 { String::new() } else { shown };
        assert_eq!((reply.status, &*shown), (status, text), "{target}");
    }

    #[test]
    fn the_first_file_that_exists_is_served() {
        check("location / { try_files $uri /f.txt =404; }", "/a/x.txt", 200, "x");
        check("location / { try_files $uri /f.txt =404; }", "/nope", 200, "f");
        check("location / { try_files $uri $uri.txt =404; }", "/f", 200, "f");
        check("location / { try_files /nope =404; }", "/f.txt", 404, "");
    }

    #[test]
    fn folders_are_asked_for_by_a_slash() {
        check("location / { try_files $uri /dir/ =404; }", "/t", 301, "http://example.com/dir/");
        check("location / { try_files $uri $uri/ =404; }", "/dir/", 200, "index");
        check("location / { try_files /dir /f.txt =404; }", "/t", 200, "f");
        check("location / { try_files /f.txt/ =404; }", "/t", 404, "");
    }

    #[test]
    fn the_last_parameter_decides_if_nothing_exists() {
        let show = "location = /show { return 200 \"$uri?$args\"; } location @n { return 200 \"named $uri\"; }";
        check(&format!("{show} location /t {{ try_files /no /show?q=$args; }}"), "/t?1", 200, "/show?q=1");
        check(&format!("{show} location /t {{ try_files /no /show; }}"), "/t?1", 200, "/show?");
        check(&format!("{show} location /t {{ try_files /no @n; }}"), "/t", 200, "named /t");
        check("location /t { try_files /no =403; }", "/t", 403, "");
        check("location /t { try_files /no =204; }", "/t", 204, "");
        check("location /t { try_files /no @missing; }", "/t", 500, "");
        check("location /t { try_files /no /f.txt/; }", "/t", 404, "");
    }

    #[test]
    fn a_server_s_parameters_hold_where_no_location_does() {
        check("try_files /f.txt =404; location /a { }", "/t", 200, "f");
        check("try_files /f.txt =404; location /a { }", "/a/x.txt", 200, "x");
    }

    #[test]
    fn beneath_an_alias_names_with_variables_lose_the_location_s_name() {
        let alias = |tries: &str| format!("location /c/ {{ alias /srv/a/; try_files {tries}; }}");
        check(&alias("$uri =404"), "/c/x.txt", 200, "x");
        check(&alias("$uri /c/x.txt"), "/c/nope", 200, "x");
        check(&alias("$uri x.txt =404"), "/c/nope", 200, "x");
        check(&alias("$uri /f.txt?$args"), "/c/nope?z", 200, "f");
        // The last parameter loses it too if it has variables, so that nothing is found.
        check(&alias("$uri /c/x.txt?$args"), "/c/nope", 404, "");
    }

    #[test]
    fn beneath_a_regular_expression_s_alias_names_stand_behind_the_whole_path() {
        let alias = |tries: &str| format!("location ~ ^/r/(.*)$ {{ alias /srv/; try_files {tries}; }}");
        check(&alias("$1 f.txt =403"), "/r/a/x.txt", 200, "x");
        check(&alias("$1 f.txt =403"), "/r/nope", 200, "f");
        check(&alias("$1 =403"), "/r/nope", 403, "");
        check(&alias("dir/ /f.txt"), "/r/zz", 301, "http://example.com/r/zz/");
    }

    #[test]
    fn an_if_that_holds_turns_it_off() {
        check("location / { try_files /f.txt =404; if ($args) { set $x 1; } }", "/t", 200, "f");
        check("location / { try_files /f.txt =404; if ($args) { set $x 1; } }", "/t?1", 404, "");
    }

    #[test]
    fn names_that_leave_the_root_are_not_looked_up() {
        let mut world = world("location / { try_files /../etc/passwd$args $uri =404; }");
        assert_eq!(world.get("/f.txt?").text(), "f");
        assert!(world.lookups.iter().all(|(path, _)| path.starts_with("/srv/f")), "{:?}", world.lookups);
    }

    #[test]
    fn failures_are_logged_and_the_next_name_is_tried() {
        let mut world = world("location / { try_files /broken /f.txt =404; }").failing("/srv/broken", 5);
        let reply = world.get("/t");
        assert_eq!(reply.text(), "f");
        let line = "[crit] stat() \"/srv/broken\" failed (5: Input/output error)";
        assert!(reply.log[0].starts_with(line), "{:?}", reply.log);
    }

    #[test]
    fn endless_redirects_end() {
        assert_eq!(world("location / { try_files /no /again; }").get("/").status, 500);
    }

    #[test]
    fn mistakes_are_reported_in_nginx_s_words() {
        for (body, message) in [
            ("try_files $uri =1000;", "invalid code \"=1000\""),
            ("try_files $uri =abc;", "invalid code \"=abc\""),
            ("try_files a;", "invalid number of arguments in \"try_files\" directive"),
            ("try_files a b; try_files c d;", "\"try_files\" directive is duplicate"),
            ("location / { if ($uri) { try_files a b; } }", "\"try_files\" directive is not allowed here"),
        ] {
            let told = complaints(&format!("server {{ {body} }}"));
            assert_eq!(told, [format!("[emerg] {message}")], "{body}");
        }
    }
}
