//! `spa /index.html;`: sites whose pages are made by a script in the browser (a directive of ours).
//!
//! A file that exists is served as ever, compressed siblings included. What does not exist is a page of the script's
//! own making, so its answer is the index, by an internal redirect, with status 200. But a missing script, style sheet
//! or image is 404, not a page in its place; these count as such:
//!
//! - a name with an extension, and any path with a hidden segment (`/.env`, `/.git/config`);
//! - a request whose `Sec-Fetch-Dest` (Fetch standard, request destinations) is none of a page's: `document`, `iframe`,
//!   `frame`, `fencedframe`, `object`, `embed`. `empty`, which `fetch()` sends, counts as a page only if `Accept` names
//!   `text/html`: a call of an API that is not there should fail, rather than get HTML where JSON was expected, but
//!   routers that fetch pages say that they want HTML. Without the field (old clients, tools) it is a page.
//!
//! A folder that exists keeps its index file or its listing; one with neither is a page as well.
//!
//! `Cache-Control`, unless `expires` or `add_header` set it: `no-cache` on HTML, because it names the current files;
//! `public, max-age=31536000, immutable` on names with a content hash (`has_content_hash`); nothing on others.
//! Locations with handlers of their own (`proxy_pass`, ...) are left alone.
//!
//! With `try_files`, that directive decides first: its last parameter is used for what is missing, and only requests
//! that it lets through come here. With `alias`, the index is still a URI: `location /app/ { alias /srv/app/; spa
//! /app/index.html; }`. `spa off;` turns it off for a location within.

use std::sync::Arc;

use crate::base::ascii;
use crate::conf::directive::{Arity, Call, Complaint};
use crate::http::build::Scope;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::file::{FailureReason, FileAnswer, FileKind, Want};
use crate::http::flow::{Answer, Flow, Need};
use crate::http::phases::Stage;
use crate::http::redirect;
use crate::http::settings::contexts::HTTP_SERVER_LOCATION;
use crate::http::settings::settings;
use crate::message::{FieldName, Method, Status};

use super::types;

settings! {
    module spa;
    fields {
        /// The URI that answers for pages that are no files; `None` for `off`.
        index: Option<Arc<[u8]>> = None, inherit;
            "spa" HTTP_SERVER_LOCATION, Arity::exactly(1), default "off", once index;
    }
}

fn index(_: &mut Scope, call: &Call) -> Result<Option<Arc<[u8]>>, Complaint> {
    let word = call.arg(0);
    match word.as_bytes() {
        b"off" => Ok(None),
        uri if uri.starts_with(b"/") && !uri.ends_with(b"/") && !uri.contains(&b'$') => Ok(Some(uri.into())),
        _ => Err(Complaint::invalid_value(word).help("name the index as a URI, such as `spa /index.html;`")),
    }
}

/// The index of the request's scope, for methods that pages are asked for with.
fn index_for<'a>(exchange: &Exchange, context: &Context<'a>) -> Option<&'a [u8]> {
    let index = context.site.settings(exchange.location).spa.index.as_deref()?;
    matches!(exchange.method(), Method::Get | Method::Head).then_some(index)
}

/// Before the handlers of folders: a URI with a slash at its end that leads to no folder is a page. (The handlers of
/// folders would answer 404.)
pub fn handle(exchange: &mut Exchange, context: &mut Context, answer: Option<Answer>) -> Flow {
    // The root itself is taken to exist, so that the most frequent request costs no look-up of its own.
    if index_for(exchange, context).is_none() || exchange.uri.len() == 1 || !exchange.uri.ends_with(b"/") {
        return Flow::Next;
    }
    match answer {
        None => {
            if let Err(status) = exchange.map_uri_to_path(context) {
                return Flow::Status(status);
            }
            exchange.apply_symlink_rules(context);
            Flow::Need(Need::File(Want::Stat))
        }
        Some(Answer::File(answer)) => {
            let is_missing = match answer {
                FileAnswer::Found(file) => file.kind != FileKind::Directory,
                FileAnswer::Failed(failure) => failure.reason == FailureReason::NotFound,
            };
            if is_missing { instead_of_missing(exchange, context).unwrap_or(Flow::Next) } else { Flow::Next }
        }
        Some(_) => Flow::Status(Status::INTERNAL_SERVER_ERROR),
    }
}

/// After the handlers of folders: a folder with neither index file nor listing is a page.
pub fn handle_bare_folder(exchange: &mut Exchange, context: &mut Context, _: Option<Answer>) -> Flow {
    if !exchange.uri.ends_with(b"/") {
        return Flow::Next;
    }
    instead_of_missing(exchange, context).unwrap_or(Flow::Next)
}

/// For a URI that names nothing: the redirect to the index, if the URI is a page; `None` if it is really missing.
pub fn instead_of_missing(exchange: &mut Exchange, context: &mut Context) -> Option<Flow> {
    let index = index_for(exchange, context)?;
    // The index itself is missing: nothing can take its place.
    if exchange.uri == index || !may_be_page(&exchange.uri) || !wants_page(exchange) {
        return None;
    }
    redirect::set_uri(exchange, index);
    Some(Flow::InternalRedirect)
}

/// Whether a path can be a page of the script's making: no extension, nothing hidden.
fn may_be_page(uri: &[u8]) -> bool {
    let last = &uri[memchr::memrchr(b'/', uri).map_or(0, |slash| slash + 1)..];
    types::extension(last).is_none() && memchr::memmem::find(uri, b"/.").is_none()
}

/// Whether the client can show a page, as far as it says.
fn wants_page(exchange: &Exchange) -> bool {
    match exchange.head.field(FieldName::SecFetchDest) {
        None | Some(b"document" | b"iframe" | b"frame" | b"fencedframe" | b"object" | b"embed") => true,
        Some(b"empty") => exchange
            .head
            .fields
            .all(FieldName::Accept)
            .any(|accept| ascii::find_ignore_case(accept, b"text/html").is_some()),
        Some(_) => false,
    }
}

const REVALIDATE: &[u8] = b"no-cache";
const FOREVER: &[u8] = b"public, max-age=31536000, immutable";

/// Header filter: sets `Cache-Control` on files, unless something else did.
pub fn filter(exchange: &mut Exchange, context: &mut Context) {
    let site = context.site;
    let settings = site.settings(exchange.location);
    if settings.spa.index.is_none()
        || settings.core.handler.is_some()
        || !matches!(exchange.stage, Stage::Content(_))
        || !matches!(exchange.response.status, Status::OK | Status::PARTIAL_CONTENT | Status::NOT_MODIFIED)
        || exchange.response.fields.first(FieldName::CacheControl).is_some()
    {
        return;
    }
    let content_type = match exchange.response.content_type {
        Some(span) => exchange.response.text(span),
        // A 304 has none: it must say what the 200 said.
        None => settings.types.of_path(&exchange.uri, settings.core.strict),
    };
    let value = if ascii::starts_with_ignore_case(content_type, b"text/html") {
        REVALIDATE
    } else if has_content_hash(&exchange.uri) {
        FOREVER
    } else {
        return;
    };
    exchange.response.fields.push_known(FieldName::CacheControl, value);
}

/// Shortest and longest hash in hexadecimal digits (webpack's and Vite's 8 up to SHA-256's 64).
const HEX_HASH: std::ops::RangeInclusive<usize> = 8..=64;
/// A name that is nothing but a hash must have at least so many digits.
const SHORTEST_BARE_HASH: usize = 16;
/// Shortest and longest hash in base64url or base32 (Vite's, Rollup's and esbuild's 8 up to SHA-224's 38).
const TEXT_HASH: std::ops::RangeInclusive<usize> = 8..=40;

/// Whether the last segment of a path names a file by its content, as build tools do: `app-4f3a9b2c.js`,
/// `main.4f3a9b2c.chunk.css`, `index-BkT3dS9x.js`, `chunk-3JTC5ZDK.js`, `4f3a9b2c4f3a9b2c.woff2`.
///
/// Careful rather than complete: who takes a name for a hash wrongly has browsers keep an old file for a year, while
/// a hash that was not seen costs a revalidation. So hexadecimal hashes need a digit and a letter (dates have none),
/// others need upper case, and digits mixed into their letters (`icon-1024x1024.png` and `photo-iPhone14.jpg` are
/// none). UUIDs name things, not contents.
pub fn has_content_hash(path: &[u8]) -> bool {
    let name = &path[memchr::memrchr(b'/', path).map_or(0, |slash| slash + 1)..];
    let Some(extension) = types::extension(name) else { return false };
    let mut stem = &name[..name.len() - extension.len() - 1];
    // `app.4f3a9b2c.js.map`, `app.4f3a9b2c.min.css`
    if let Some(dot) = memchr::memrchr(b'.', stem)
        && matches!(&stem[dot + 1..], b"js" | b"mjs" | b"css" | b"min" | b"chunk" | b"bundle" | b"module")
    {
        stem = &stem[..dot];
    }
    if is_uuid(stem) {
        return false;
    }
    let Some(separator) = memchr::memrchr2(b'.', b'-', stem) else {
        return stem.len() >= SHORTEST_BARE_HASH && is_hex_hash(stem);
    };
    let token = &stem[separator + 1..];
    if separator > 0 && (is_hex_hash(token) || is_text_hash(token)) {
        return true;
    }
    // The eight characters of base64url may hold a `-` themselves.
    stem.len()
        .checked_sub(9)
        .is_some_and(|at| at > 0 && matches!(stem[at], b'.' | b'-') && is_text_hash(&stem[at + 1..]))
}

fn is_hex_hash(token: &[u8]) -> bool {
    let lower = token.iter().any(|byte| matches!(byte, b'a'..=b'f'));
    let upper = token.iter().any(|byte| matches!(byte, b'A'..=b'F'));
    HEX_HASH.contains(&token.len())
        && token.iter().all(u8::is_ascii_hexdigit)
        && token.iter().any(u8::is_ascii_digit)
        && lower != upper
}

/// Base64url or base32: upper case in it, and at least one digit with letters on both sides or the reverse.
fn is_text_hash(token: &[u8]) -> bool {
    if !TEXT_HASH.contains(&token.len())
        || !token.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        || !token.iter().any(u8::is_ascii_uppercase)
    {
        return false;
    }
    let mut changes = 0;
    let mut last = None;
    for byte in token.iter().filter(|byte| byte.is_ascii_alphanumeric()) {
        let is_digit = byte.is_ascii_digit();
        changes += u32::from(last.is_some_and(|last| last != is_digit));
        last = Some(is_digit);
    }
    changes >= 2
}

/// `8-4-4-4-12` hexadecimal digits at the end of the name.
fn is_uuid(stem: &[u8]) -> bool {
    let Some(at) = stem.len().checked_sub(36) else { return false };
    stem[at..].iter().enumerate().all(|(index, byte)| match index {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    })
}

#[cfg(test)]
mod tests;
