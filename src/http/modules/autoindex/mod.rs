//! `autoindex`: lists a folder that has no index file.
//!
//! The XML and JSON forms are nginx's byte for byte, so that what reads them goes on working. The HTML form is a page
//! of our own with nginx's links.

mod data;
mod page;

use crate::base::clock;
use crate::base::level::Level;
use crate::conf::directive::{Arity, Call, Complaint};
use crate::http::body::Body;
use crate::http::build::Scope;
use crate::http::build::arguments::{flag, one_of};
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::file::{DirectoryEntry, DirectoryListing, FailureReason, FileFailure, FileKind};
use crate::http::flow::{Answer, Flow, Need};
use crate::http::settings::contexts::HTTP_SERVER_LOCATION;
use crate::http::settings::settings;
use crate::message::{Method, Status};

/// `autoindex_format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A page for people.
    Html,
    /// An array of objects.
    Json,
    /// The same as the argument of the function that the `callback` argument names.
    Jsonp,
    /// A list of elements.
    Xml,
}

settings! {
    module autoindex;
    fields {
        /// Whether a folder without an index file is listed.
        enabled: bool = false, inherit;
            "autoindex" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", once flag;
        /// Whether the page shows sizes in bytes rather than rounded.
        exact_size: bool = true, inherit;
            "autoindex_exact_size" HTTP_SERVER_LOCATION, Arity::FLAG, default "on", once flag;
        /// The form of the listing.
        format: Format = Format::Html, inherit;
            "autoindex_format" HTTP_SERVER_LOCATION, Arity::exactly(1), default "html", once format;
        /// Whether the page shows local times rather than UTC.
        localtime: bool = false, inherit;
            "autoindex_localtime" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", once flag;
    }
}

fn format(_: &mut Scope, call: &Call) -> Result<Format, Complaint> {
    one_of(
        call,
        &[("html", Format::Html), ("json", Format::Json), ("jsonp", Format::Jsonp), ("xml", Format::Xml)],
    )
}

/// Longest name of a callback function, in bytes (nginx's bound).
const LONGEST_CALLBACK: usize = 128;

/// Lists the folder of a URI that ends in a slash.
pub fn handle(exchange: &mut Exchange, context: &mut Context, answer: Option<Answer>) -> Flow {
    let settings = &context.site.settings(exchange.location).autoindex;
    if !settings.enabled
        || !exchange.uri.ends_with(b"/")
        || !matches!(exchange.method(), Method::Get | Method::Head)
    {
        return Flow::Next;
    }
    match answer {
        None => {
            if settings.format == Format::Jsonp
                && let Err(refusal) = callback(&exchange.args)
            {
                let name = String::from_utf8_lossy(refusal.name).into_owned();
                let what = refusal.what;
                exchange.log(
                    context,
                    Level::Info,
                    format_args!("client sent {what} callback name: \"{name}\""),
                );
                return Flow::Status(Status::BAD_REQUEST);
            }
            ask_for_directory(exchange, context)
        }
        Some(Answer::Directory(Ok(listing))) => respond(exchange, context, listing),
        Some(Answer::Directory(Err(failure))) => refuse_directory(exchange, context, failure),
        Some(_) => Flow::Status(Status::INTERNAL_SERVER_ERROR),
    }
}

/// Asks for the names in the folder of the present URI.
pub fn ask_for_directory(exchange: &mut Exchange, context: &mut Context) -> Flow {
    if let Err(status) = exchange.map_uri_to_path(context) {
        return Flow::Status(status);
    }
    if exchange.path.len() > 1 && exchange.path.ends_with(b"/") {
        exchange.path.pop();
        exchange.root_length = exchange.root_length.min(exchange.path.len() as u32);
    }
    exchange.apply_symlink_rules(context);
    Flow::Need(Need::Directory)
}

/// What a folder that can't be listed means, logged as nginx logs it.
pub fn refuse_directory(exchange: &mut Exchange, context: &mut Context, failure: FileFailure) -> Flow {
    let (status, level) = match failure.reason {
        FailureReason::NotFound => (Status::NOT_FOUND, Level::Error),
        FailureReason::Forbidden => (Status::FORBIDDEN, Level::Error),
        FailureReason::Busy => (Status::SERVICE_UNAVAILABLE, Level::Crit),
        FailureReason::Internal => (Status::INTERNAL_SERVER_ERROR, Level::Crit),
    };
    exchange.log_file_failure(context, level, failure);
    Flow::Status(status)
}

/// Whether a name is left out of listings: `.`, `..` and hidden files.
pub fn is_hidden(name: &[u8]) -> bool {
    name.starts_with(b".")
}

fn respond(exchange: &mut Exchange, context: &mut Context, mut listing: DirectoryListing) -> Flow {
    let settings = &context.site.settings(exchange.location).autoindex;
    listing.entries.retain(|entry| !is_hidden(&entry.name));
    listing.entries.sort_unstable_by(|left, right| place(left).cmp(&place(right)));
    let mut body = Vec::with_capacity(listing.entries.len() * 128 + 4096);
    let content_type: &[u8] = match settings.format {
        Format::Html => {
            let zone = context.env.dates.zone();
            let shift = |secs| if settings.localtime { clock::offset_secs(zone, secs) } else { 0 };
            let look = page::Look { exact_size: settings.exact_size, shift: &shift };
            page::write(&mut body, &exchange.uri, &listing, &look);
            b"text/html"
        }
        Format::Xml => {
            data::write_xml(&mut body, &listing.entries);
            b"text/xml; charset=utf-8"
        }
        Format::Json => {
            data::write_json(&mut body, &listing.entries);
            b"application/json"
        }
        Format::Jsonp => match callback(&exchange.args) {
            Ok(Some(name)) => {
                data::write_jsonp(&mut body, name, &listing.entries);
                b"application/javascript"
            }
            _ => {
                data::write_json(&mut body, &listing.entries);
                b"application/json"
            }
        },
    };
    let response = &mut exchange.response;
    response.status = Status::OK;
    response.set_content_type(content_type);
    response.set_content_length(body.len() as u64);
    exchange.body = Body::Bytes(body);
    Flow::Respond
}

/// Folders first, then by name, byte by byte.
fn place(entry: &DirectoryEntry) -> (bool, &[u8]) {
    (entry.kind != FileKind::Directory, &entry.name)
}

/// A `callback` argument that is no name of a function.
#[derive(Debug, PartialEq, Eq)]
struct BadCallback<'a> {
    name: &'a [u8],
    what: &'static str,
}

/// The `callback` argument as sent, undecoded; `None` if it is absent or empty.
fn callback(args: &[u8]) -> Result<Option<&[u8]>, BadCallback<'_>> {
    let found = args.split(|byte| *byte == b'&').find_map(|pair| {
        let (name, value) = pair.split_at_checked("callback=".len())?;
        name.eq_ignore_ascii_case(b"callback=").then_some(value)
    });
    match found {
        None | Some(b"") => Ok(None),
        Some(name) if name.len() > LONGEST_CALLBACK => Err(BadCallback { name, what: "too long" }),
        Some(name)
            if !name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.')) =>
        {
            Err(BadCallback { name, what: "invalid" })
        }
        Some(name) => Ok(Some(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::{World, complaints};

    fn world(more: &str) -> World {
        World::new(&format!("server {{ root /srv; location / {{ autoindex on; {more} }} }}"))
            .file("/srv/list/b.txt", "12345")
            .file("/srv/list/.hidden", "")
            .file("/srv/list/z/x.txt", "")
            .file("/srv/list/a b.txt", "")
            .file("/srv/page/index.html", "page")
            .directory("/srv/empty")
    }

    #[test]
    fn a_folder_is_listed_folders_first_and_hidden_names_left_out() {
        let reply = world("").get("/list/");
        assert_eq!((reply.status, reply.field("Content-Type").as_str()), (200, "text/html"));
        assert!(!reply.has("Last-Modified") && !reply.has("ETag") && !reply.has("Accept-Ranges"));
        let links: Vec<&str> =
            reply.text().split("<a href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert_eq!(links, ["../", "z/", "a%20b.txt", "b.txt"]);
        assert!(reply.text().contains("2020-09-13 12:26</time></td><td>5<"));
    }

    #[test]
    fn the_data_forms_have_nginx_s_types() {
        let xml = world("autoindex_format xml;").get("/empty/");
        assert_eq!(xml.field("Content-Type"), "text/xml; charset=utf-8");
        assert_eq!(xml.text(), "<?xml version=\"1.0\"?>\r\n<list>\r\n</list>\r\n");
        let json = world("autoindex_format json;").get("/list/");
        assert_eq!(json.field("Content-Type"), "application/json");
        let names: serde_json::Value = serde_json::from_slice(&json.body).unwrap();
        assert_eq!(names[2]["name"], "b.txt");
        let mut jsonp = world("autoindex_format jsonp; error_log stderr info;");
        assert_eq!(jsonp.get("/empty/").field("Content-Type"), "application/json");
        let call = jsonp.get("/empty/?callback=f.g");
        assert_eq!(call.field("Content-Type"), "application/javascript");
        assert_eq!(call.text(), "/* callback */\r\nf.g([\r\n]);");
        let bad = jsonp.get("/empty/?callback=a-b");
        assert_eq!(bad.status, 400);
        assert_eq!(bad.log_texts(), ["[info] client sent invalid callback name: \"a-b\""]);
    }

    #[test]
    fn an_index_file_comes_before_the_listing() {
        assert_eq!(world("").get("/page/").text(), "page");
    }

    #[test]
    fn folders_that_can_not_be_listed_have_nginx_s_statuses() {
        let mut world = world("random_index on;").failing("/srv/secret", 13).failing("/srv/broken", 5);
        for (target, status, line) in [
            ("/nothing/", 404, "[error] opendir() \"/srv/nothing\" failed (2: No such file or directory)"),
            ("/secret/", 403, "[error] opendir() \"/srv/secret\" failed (13: Permission denied)"),
            ("/broken/", 500, "[crit] opendir() \"/srv/broken\" failed (5: Input/output error)"),
        ] {
            let reply = world.get(target);
            assert_eq!(reply.status, status);
            assert_eq!(reply.log_texts(), [line]);
        }
        assert_eq!(world.send("PUT /list/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").status, 405);
    }

    #[test]
    fn the_root_of_the_file_system_can_be_listed() {
        let mut world = World::new("server { location / { alias /; autoindex on; } }").file("/a.txt", "");
        assert!(world.get("/").text().contains("a.txt"));
    }

    #[test]
    fn without_it_a_bare_folder_is_forbidden() {
        let reply = World::new("server { root /srv; }").directory("/srv/empty").get("/empty/");
        assert_eq!(reply.status, 403);
        assert_eq!(reply.log_texts(), ["[error] directory index of \"/srv/empty/\" is forbidden"]);
    }

    #[test]
    fn an_unknown_form_is_refused() {
        assert_eq!(complaints("autoindex_format text;")[0], "[emerg] invalid value \"text\"");
    }

    #[test]
    fn a_callback_is_a_plain_name_of_bounded_length() {
        assert_eq!(callback(b"a=b&CallBack=foo.bar_1&callback=x"), Ok(Some(&b"foo.bar_1"[..])));
        assert_eq!(callback(b"callback="), Ok(None));
        assert_eq!(callback(b"xcallback=a"), Ok(None));
        assert_eq!(callback(b""), Ok(None));
        for bad in
            [&b"callback=a-b"[..], b"callback=%66oo", b"callback=a$b", b"callback=a(", b"callback=\xff"]
        {
            assert_eq!(callback(bad).unwrap_err().what, "invalid");
        }
        let longest = [b"callback=".to_vec(), vec![b'a'; LONGEST_CALLBACK]].concat();
        assert!(callback(&longest).is_ok());
        assert_eq!(callback(&[&longest[..], b"a"].concat()).unwrap_err().what, "too long");
    }
}
