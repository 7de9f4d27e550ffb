//! PROPFIND and PROPPATCH. Properties are what the file system knows; none can be set.

use crate::base::ascii::append_decimal;
use crate::base::clock::format_http_date;
use crate::base::level::Level;
use crate::http::body::Body;
use crate::http::change::{Depth, UNFINISHED, without_slash};
use crate::http::context::Context;
use crate::http::exchange::{Exchange, RequestBody};
use crate::http::file::{DirectoryEntry, FailureReason, FileAnswer, FileFailure, FileKind, Want};
use crate::http::flow::{Answer, Flow, Need};
use crate::http::zones::locks::{Lock, Locks, Touched};
use crate::message::{Method, RequestFraming, Status, write_etag};

use super::bodies::{BODY_BYTES, BodyError, DAV, Name, Propfind, parse_propfind, parse_proppatch};
use super::{conditions, depth, has_body, markup, wrong};

/// The most that an answer may have, in bytes: some ten thousand files with all that there is to know of them.
const ANSWER_BYTES: usize = 16 << 20;

/// What the file system knows of a file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Property {
    DisplayName,
    ContentLength,
    ContentType,
    Etag,
    LastModified,
    ResourceType,
    SupportedLock,
    LockDiscovery,
}

/// Their names, all in [`DAV`].
const PROPERTIES: &[(&str, Property)] = &[
    ("displayname", Property::DisplayName),
    ("getcontentlength", Property::ContentLength),
    ("getcontenttype", Property::ContentType),
    ("getetag", Property::Etag),
    ("getlastmodified", Property::LastModified),
    ("resourcetype", Property::ResourceType),
    ("supportedlock", Property::SupportedLock),
    ("lockdiscovery", Property::LockDiscovery),
];

/// One file or folder of an answer.
pub(super) struct Resource<'a> {
    /// Its path as clients name it; that of a folder ends in a slash.
    pub uri: &'a [u8],
    /// Whether it is a folder.
    pub is_folder: bool,
    /// Bytes.
    pub size: u64,
    /// Seconds since 1970.
    pub modified_secs: i64,
    /// The type of a file.
    pub content_type: &'a [u8],
    /// Whether a file has an entity tag.
    pub has_etag: bool,
    /// The lock that covers it.
    pub lock: Option<&'a Lock>,
    /// Whether it could be locked.
    pub lockable: bool,
    /// Now, in monotonic milliseconds.
    pub now_ms: u64,
}

/// Has the body read into memory, if it is small enough.
pub fn read_body(exchange: &mut Exchange, context: &mut Context) -> Result<Flow, Status> {
    if let RequestFraming::Length(length) = exchange.head.framing
        && length > BODY_BYTES
    {
        let message = format!("client intended to send too large body: {length} bytes");
        return Err(wrong(exchange, context, Status::CONTENT_TOO_LARGE, &message));
    }
    exchange.notes.dav.state().body_in_memory = Some(BODY_BYTES);
    Ok(Flow::Need(Need::RequestBody))
}

fn body(exchange: &Exchange) -> Result<&[u8], Status> {
    match &exchange.request_body {
        RequestBody::Memory(bytes) => Ok(bytes),
        RequestBody::Unread => Ok(b""),
        // `client_body_early_read` has put it there.
        RequestBody::File(_) => Err(Status::CONTENT_TOO_LARGE),
    }
}

fn refuse_body(exchange: &Exchange, context: &mut Context, error: BodyError) -> Status {
    wrong(exchange, context, error.status(), "client sent a body of XML that can't be used")
}

/// What a failed look-up means, logged. Clients look for what they are about to make: that it is missing is no error.
pub fn refuse(exchange: &mut Exchange, context: &mut Context, failure: FileFailure) -> Status {
    let (status, level) = match failure.reason {
        FailureReason::NotFound => (Status::NOT_FOUND, Level::Info),
        FailureReason::Forbidden => (Status::FORBIDDEN, Level::Error),
        FailureReason::Busy => (Status::SERVICE_UNAVAILABLE, Level::Crit),
        FailureReason::Internal => (Status::INTERNAL_SERVER_ERROR, Level::Crit),
    };
    exchange.log_file_failure(context, level, failure);
    status
}

/// PROPFIND.
pub fn find(exchange: &mut Exchange, context: &mut Context, answer: Option<Answer>) -> Flow {
    let result = match answer {
        None => begin_find(exchange, context),
        Some(Answer::RequestBody(Ok(()))) => take_asked(exchange, context),
        Some(Answer::RequestBody(Err(status))) => Err(status),
        Some(Answer::File(FileAnswer::Found(found))) => {
            let is_folder = found.kind == FileKind::Directory;
            exchange.notes.dav.state().existing = Some(found);
            if is_folder && depth(exchange, context, Depth::Infinity) == Depth::One {
                return Flow::Need(Need::Directory);
            }
            tell(exchange, context, &[])
        }
        Some(Answer::File(FileAnswer::Failed(failure))) => Err(refuse(exchange, context, failure)),
        Some(Answer::Directory(Ok(listing))) if listing.truncated => Err(Status::INSUFFICIENT_STORAGE),
        Some(Answer::Directory(Ok(listing))) => tell(exchange, context, &listing.entries),
        Some(Answer::Directory(Err(failure))) => Err(refuse(exchange, context, failure)),
        Some(_) => Err(Status::INTERNAL_SERVER_ERROR),
    };
    result.unwrap_or_else(Flow::Status)
}

fn begin_find(exchange: &mut Exchange, context: &mut Context) -> Result<Flow, Status> {
    match depth(exchange, context, Depth::Infinity) {
        Depth::Zero | Depth::One => {}
        Depth::Invalid => return Err(Status::BAD_REQUEST),
        Depth::Infinity => {
            // A tree has no bound (RFC 4918 section 9.1).
            let error = b"<D:error xmlns:D=\"DAV:\"><D:propfind-finite-depth/></D:error>\n";
            return Ok(respond(exchange, Status::FORBIDDEN, [markup::DECLARATION, error].concat()));
        }
    }
    if has_body(exchange) {
        return read_body(exchange, context);
    }
    take_asked(exchange, context)
}

fn take_asked(exchange: &mut Exchange, context: &mut Context) -> Result<Flow, Status> {
    let asked = parse_propfind(body(exchange)?).map_err(|error| refuse_body(exchange, context, error))?;
    exchange.notes.dav.state().asked = Some(asked);
    look(exchange, context)
}

fn look(exchange: &mut Exchange, context: &mut Context) -> Result<Flow, Status> {
    exchange.map_uri_to_path(context)?;
    exchange.apply_symlink_rules(context);
    Ok(Flow::Need(Need::File(Want::Stat)))
}

/// Answers about what was found, and what is in it.
fn tell(exchange: &mut Exchange, context: &mut Context, entries: &[DirectoryEntry]) -> Result<Flow, Status> {
    let state = exchange.notes.dav.state();
    let (Some(asked), Some(found)) = (state.asked.take(), state.existing.take()) else {
        return Err(Status::INTERNAL_SERVER_ERROR);
    };
    let own = DirectoryEntry {
        name: Vec::new(),
        kind: found.kind,
        size: found.size,
        modified_secs: found.modified_secs,
    };
    let mut out = markup::DECLARATION.to_vec();
    out.extend_from_slice(b"<D:multistatus xmlns:D=\"DAV:\">\n");
    let locks = &context.site.zones.locks;
    let fits = if locks.is_empty() {
        append_all(exchange, context, &asked, &own, entries, &Locks::default(), &mut out)
    } else {
        locks.with(|locks| append_all(exchange, context, &asked, &own, entries, locks, &mut out))
    };
    if !fits {
        let message = "there is more to tell of a folder than an answer may have";
        return Err(wrong(exchange, context, Status::INSUFFICIENT_STORAGE, message));
    }
    out.extend_from_slice(b"</D:multistatus>\n");
    Ok(respond(exchange, Status::MULTI_STATUS, out))
}

/// Appends a response for the resource itself and each of its entries; `false` if they do not fit.
fn append_all(
    exchange: &Exchange,
    context: &Context,
    asked: &Propfind,
    own: &DirectoryEntry,
    entries: &[DirectoryEntry],
    locks: &Locks,
    out: &mut Vec<u8>,
) -> bool {
    let settings = context.site.settings(exchange.location);
    let now_ms = context.env.now.monotonic_ms;
    let is_shown = |entry: &&DirectoryEntry| entry.kind != FileKind::Other && !entry.name.starts_with(UNFINISHED);
    let mut uri = exchange.uri.clone();
    let mut path = without_slash(&exchange.path).to_vec();
    if own.kind == FileKind::Directory {
        if !uri.ends_with(b"/") {
            uri.push(b'/');
        }
        path.push(b'/');
    }
    let (uri_length, path_length) = (uri.len(), path.len());
    for entry in std::iter::once(own).chain(entries.iter().filter(is_shown)) {
        uri.truncate(uri_length);
        path.truncate(path_length);
        uri.extend_from_slice(&entry.name);
        path.extend_from_slice(&entry.name);
        let is_folder = entry.kind == FileKind::Directory;
        if is_folder && !entry.name.is_empty() {
            uri.push(b'/');
        }
        let resource = Resource {
            uri: &uri,
            is_folder,
            size: entry.size,
            modified_secs: entry.modified_secs,
            content_type: settings.types.of_path(&uri, settings.core.strict),
            has_etag: settings.static_files.etag,
            lock: locks.on(&path, now_ms),
            lockable: settings.dav.methods.has(Method::Lock),
            now_ms,
        };
        append_response(out, asked, &resource);
        if out.len() > ANSWER_BYTES {
            return false;
        }
    }
    true
}

fn respond(exchange: &mut Exchange, status: Status, body: Vec<u8>) -> Flow {
    let response = &mut exchange.response;
    response.status = status;
    response.set_content_type(markup::CONTENT_TYPE);
    response.set_content_length(body.len() as u64);
    exchange.body = Body::Bytes(body);
    Flow::Respond
}

/// Appends what is asked of one resource (RFC 4918 section 14.24).
pub(super) fn append_response(out: &mut Vec<u8>, asked: &Propfind, resource: &Resource) {
    out.extend_from_slice(b"<D:response><D:href>");
    markup::append_path(out, resource.uri);
    out.extend_from_slice(b"</D:href>");
    match asked {
        Propfind::Names => append_propstat(out, Status::OK, |out| {
            for (local, property) in PROPERTIES {
                if append_value(&mut Vec::new(), *property, resource) {
                    markup::empty(out, &Name { space: DAV.to_owned(), local: (*local).to_owned() });
                }
            }
        }),
        Propfind::All(also) => {
            append_propstat(out, Status::OK, |out| {
                for (local, property) in PROPERTIES {
                    append_property(out, local, *property, resource);
                }
            });
            append_missing(out, also, resource);
        }
        Propfind::These(names) => {
            let missing = names.iter().filter(|name| !is_there(name, resource)).count();
            if missing < names.len() || names.is_empty() {
                append_propstat(out, Status::OK, |out| {
                    for (name, property) in names.iter().filter_map(|name| Some((name, known(name)?))) {
                        append_property(out, &name.local, property, resource);
                    }
                });
            }
            append_missing(out, names, resource);
        }
    }
    out.extend_from_slice(b"</D:response>\n");
}

fn known(name: &Name) -> Option<Property> {
    let found = PROPERTIES.iter().find(|(local, _)| name.space == DAV && *local == name.local);
    found.map(|(_, property)| *property)
}

fn is_there(name: &Name, resource: &Resource) -> bool {
    known(name).is_some_and(|property| append_value(&mut Vec::new(), property, resource))
}

fn append_propstat(out: &mut Vec<u8>, status: Status, properties: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(b"<D:propstat><D:prop>");
    properties(out);
    out.extend_from_slice(b"</D:prop><D:status>HTTP/1.1 ");
    append_decimal(out, status.0);
    out.push(b' ');
    out.extend_from_slice(status.reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"</D:status></D:propstat>");
}

/// The names that this resource has nothing for.
fn append_missing(out: &mut Vec<u8>, names: &[Name], resource: &Resource) {
    let mut missing = names.iter().filter(|name| !is_there(name, resource)).peekable();
    if missing.peek().is_some() {
        append_propstat(out, Status::NOT_FOUND, |out| missing.for_each(|name| markup::empty(out, name)));
    }
}

/// Appends a property with its value, if the resource has it.
fn append_property(out: &mut Vec<u8>, local: &str, property: Property, resource: &Resource) {
    let start = out.len();
    for piece in ["<D:", local, ">"] {
        out.extend_from_slice(piece.as_bytes());
    }
    if !append_value(out, property, resource) {
        out.truncate(start);
        return;
    }
    for piece in ["</D:", local, ">"] {
        out.extend_from_slice(piece.as_bytes());
    }
}

/// Appends the value of a property; `false` if the resource has none.
fn append_value(out: &mut Vec<u8>, property: Property, resource: &Resource) -> bool {
    match property {
        Property::DisplayName => {
            let name = without_slash(resource.uri);
            let name = memchr::memrchr(b'/', name).map_or(name, |slash| &name[slash + 1..]);
            markup::append_text(out, name);
            !name.is_empty()
        }
        Property::ContentLength if !resource.is_folder => {
            append_decimal(out, resource.size);
            true
        }
        Property::ContentType if !resource.is_folder => {
            markup::append_text(out, resource.content_type);
            !resource.content_type.is_empty()
        }
        Property::Etag if !resource.is_folder && resource.has_etag => {
            let mut etag = Vec::new();
            write_etag(resource.modified_secs, resource.size, &mut etag);
            markup::append_text(out, &etag);
            true
        }
        Property::LastModified => {
            out.extend_from_slice(&format_http_date(resource.modified_secs));
            true
        }
        Property::ResourceType => {
            if resource.is_folder {
                out.extend_from_slice(b"<D:collection/>");
            }
            true
        }
        Property::SupportedLock => {
            if resource.lockable {
                out.extend_from_slice(
                    b"<D:lockentry><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>",
                );
            }
            true
        }
        Property::LockDiscovery => {
            if let Some(lock) = resource.lock {
                markup::append_lock(out, lock, resource.now_ms);
            }
            true
        }
        Property::ContentLength | Property::ContentType | Property::Etag => false,
    }
}

/// PROPPATCH: every property is refused by itself (RFC 4918 section 9.2).
pub fn patch(exchange: &mut Exchange, context: &mut Context, answer: Option<Answer>) -> Flow {
    let result = match answer {
        None => read_body(exchange, context),
        Some(Answer::RequestBody(Ok(()))) => take_changes(exchange, context),
        Some(Answer::RequestBody(Err(status))) => Err(status),
        Some(Answer::File(FileAnswer::Found(found))) => {
            exchange.notes.dav.state().existing = Some(found);
            refuse_changes(exchange, context)
        }
        Some(Answer::File(FileAnswer::Failed(failure))) => Err(refuse(exchange, context, failure)),
        Some(_) => Err(Status::INTERNAL_SERVER_ERROR),
    };
    result.unwrap_or_else(Flow::Status)
}

fn take_changes(exchange: &mut Exchange, context: &mut Context) -> Result<Flow, Status> {
    let names = parse_proppatch(body(exchange)?).map_err(|error| refuse_body(exchange, context, error))?;
    exchange.notes.dav.state().asked = Some(Propfind::These(names));
    look(exchange, context)
}

fn refuse_changes(exchange: &mut Exchange, context: &mut Context) -> Result<Flow, Status> {
    let path = exchange.path.clone();
    conditions::check(exchange, context, &[Touched { path: &path, tree: false, member: false }])?;
    let Some(Propfind::These(names)) = exchange.notes.dav.state().asked.take() else {
        return Err(Status::INTERNAL_SERVER_ERROR);
    };
    let mut out = markup::DECLARATION.to_vec();
    out.extend_from_slice(b"<D:multistatus xmlns:D=\"DAV:\">\n<D:response><D:href>");
    markup::append_path(&mut out, &exchange.uri);
    out.extend_from_slice(b"</D:href>");
    append_propstat(&mut out, Status::FORBIDDEN, |out| names.iter().for_each(|name| markup::empty(out, name)));
    out.extend_from_slice(
        b"<D:error><D:cannot-modify-protected-property/></D:error></D:response>\n</D:multistatus>\n",
    );
    Ok(respond(exchange, Status::MULTI_STATUS, out))
}
