//! Files from disk: the last content handler.

use std::sync::Arc;

use crate::base::level::Level;
use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::template::Template;
use crate::conf::values;
use crate::http::body::Body;
use crate::http::build::Scope;
use crate::http::build::arguments::{flag, invalid_value, number, offset, seconds, size, without_meaning};
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::file::{
    FailureReason, FileAnswer, FileFailure, FileInfo, FileKind, FileOptions, FileRange, FileRequest,
    OpenFileCache, Symlinks, Want,
};
use crate::http::flow::{Answer, Flow, Need};
use crate::http::redirect;
use crate::http::settings::contexts::HTTP_SERVER_LOCATION;
use crate::http::settings::settings;
use crate::http::site::LocationId;
use crate::message::{Method, Status, write_etag};

use super::spa;

/// `disable_symlinks`.
#[derive(Clone, Debug, Default)]
pub struct DisableSymlinks {
    /// Which links are refused.
    pub mode: SymlinkMode,
    /// `from=`: the part of the path that is not checked.
    pub from: Option<Template>,
}

/// Which symbolic links are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SymlinkMode {
    /// None.
    #[default]
    Off,
    /// All.
    On,
    /// Those whose owner is not the target's.
    IfNotOwner,
}

settings! {
    module static_files;
    fields {
        /// Files of at least so many bytes are read past the page cache.
        directio: Option<u64> = None, inherit;
            "directio" HTTP_SERVER_LOCATION, Arity::exactly(1), default "off", once directio;
        /// Alignment of such reads, in bytes.
        directio_alignment: u64 = 512, inherit;
            "directio_alignment" HTTP_SERVER_LOCATION, Arity::exactly(1), default "512", once offset;
        /// Which symbolic links are refused.
        disable_symlinks: DisableSymlinks = DisableSymlinks::default(), inherit;
            "disable_symlinks" HTTP_SERVER_LOCATION, Arity::between(1, 2), default "off", once disable_symlinks;
        /// Whether files have an ETag.
        etag: bool = true, inherit;
            "etag" HTTP_SERVER_LOCATION, Arity::FLAG, default "on", once flag;
        /// Whether a missing file is logged.
        log_not_found: bool = true, inherit;
            "log_not_found" HTTP_SERVER_LOCATION, Arity::FLAG, default "on", once flag;
        /// Ranges that one response may have; 0 for none.
        max_ranges: u64 = i32::MAX as u64, inherit;
            "max_ranges" HTTP_SERVER_LOCATION, Arity::exactly(1), default "", once number;
        /// The cache of open files.
        open_file_cache: Option<Arc<OpenFileCache>> = None, inherit;
            "open_file_cache" HTTP_SERVER_LOCATION, Arity::between(1, 2), default "off", once open_file_cache;
        /// Whether failures are cached too.
        open_file_cache_errors: bool = false, inherit;
            "open_file_cache_errors" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", once flag;
        /// Uses that keep a descriptor open.
        open_file_cache_min_uses: u64 = 1, inherit;
            "open_file_cache_min_uses" HTTP_SERVER_LOCATION, Arity::exactly(1), default "1", once number;
        /// How long an entry is believed, in seconds.
        open_file_cache_valid: u64 = 60, inherit;
            "open_file_cache_valid" HTTP_SERVER_LOCATION, Arity::exactly(1), default "60s", once seconds;
        /// How far the kernel is asked to read ahead, in bytes.
        read_ahead: u64 = 0, inherit;
            "read_ahead" HTTP_SERVER_LOCATION, Arity::exactly(1), default "0", once size;
    }
    plain {
        /// Without meaning here: the kernel tells nobody of changes on Linux.
        "open_file_cache_events" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", without_meaning;
    }
}

fn directio(_: &mut Scope, call: &Call) -> Result<Option<u64>, Complaint> {
    match call.arg(0).as_bytes() {
        b"off" => Ok(None),
        text => values::parse_offset(text).map(Some).map_err(|_| invalid_value(call, call.arg(0))),
    }
}

fn disable_symlinks(scope: &mut Scope, call: &Call) -> Result<DisableSymlinks, Complaint> {
    let mut mode = None;
    let mut from = None;
    for word in call.args() {
        match word.as_bytes() {
            b"off" => mode = Some(SymlinkMode::Off),
            b"on" => mode = Some(SymlinkMode::On),
            b"if_not_owner" => mode = Some(SymlinkMode::IfNotOwner),
            text => match text.strip_prefix(b"from=") {
                Some(part) => from = Some(scope.builder.template_of(part, word)?),
                None => return Err(Complaint::invalid_parameter(word)),
            },
        }
    }
    let Some(mode) = mode else {
        return Err(Complaint::new("\"disable_symlinks\" must have \"off\", \"on\" or \"if_not_owner\" parameter"));
    };
    if from.is_some() && mode == SymlinkMode::Off {
        return Err(Complaint::new("\"from=\" cannot be used with \"off\" parameter"));
    }
    Ok(DisableSymlinks { mode, from })
}

fn open_file_cache(_: &mut Scope, call: &Call) -> Result<Option<Arc<OpenFileCache>>, Complaint> {
    let mut max = 0;
    let mut inactive_secs = 60;
    for word in call.args() {
        let text = word.as_bytes();
        let complaint = || Complaint::new(format!("invalid \"open_file_cache\" parameter \"{}\"", word.lossy())).at(word);
        if text == b"off" {
            return Ok(None);
        } else if let Some(value) = text.strip_prefix(b"max=") {
            max = values::parse_number(value).ok().filter(|max| *max > 0).ok_or_else(complaint)?;
        } else if let Some(value) = text.strip_prefix(b"inactive=") {
            inactive_secs = values::parse_time_s(value).map_err(|_| complaint())?;
        } else {
            return Err(complaint());
        }
    }
    if max == 0 {
        return Err(Complaint::new("\"open_file_cache\" must have the \"max\" parameter"));
    }
    Ok(Some(Arc::new(OpenFileCache {
        max: u32::try_from(max).unwrap_or(u32::MAX),
        inactive_ms: inactive_secs.saturating_mul(1000),
    })))
}

impl Settings {
    /// What the shell's file cache needs to know.
    pub fn file_options(&self) -> FileOptions {
        FileOptions {
            cache: self.open_file_cache.clone(),
            valid_ms: self.open_file_cache_valid.saturating_mul(1000),
            min_uses: u32::try_from(self.open_file_cache_min_uses).unwrap_or(u32::MAX),
            errors: self.open_file_cache_errors,
            directio: self.directio,
            directio_alignment: u32::try_from(self.directio_alignment).unwrap_or(512),
            read_ahead: self.read_ahead,
        }
    }
}

impl Exchange {
    /// What [`Need::File`] asks for, in the shell's terms.
    pub fn file_request<'a>(&'a self, want: Want, options: &'a FileOptions) -> FileRequest<'a> {
        FileRequest {
            path: &self.path,
            root_len: self.root_length,
            want,
            symlinks: self.symlinks,
            options,
        }
    }

    /// Computes which symbolic links are refused for the present path; call after the path was mapped.
    pub fn apply_symlink_rules(&mut self, context: &mut Context) {
        let disable = &context.site.settings(self.location).static_files.disable_symlinks;
        if disable.mode == SymlinkMode::Off {
            self.symlinks = Symlinks::Follow;
            return;
        }
        let from = match &disable.from {
            None => 0,
            Some(template) => {
                let mut part = context.env.scratch();
                self.render(template, context, &mut part);
                let from = unchecked_part(&part, &self.path);
                context.env.give_back(part);
                from
            }
        };
        self.symlinks = match disable.mode {
            SymlinkMode::On => Symlinks::Refuse { from },
            _ => Symlinks::RefuseOthers { from },
        };
    }
}

/// A file that one handler opened and another may want.
#[derive(Default)]
pub struct Opened {
    file: Option<FileInfo>,
    path: Vec<u8>,
    symlinks: Symlinks,
    location: LocationId,
}

impl Opened {
    /// Lets go of the file.
    pub fn forget(&mut self) {
        self.file = None;
    }
}

impl Exchange {
    /// Leaves a file, opened at the present path, for whoever asks for that path within this request.
    pub fn leave_opened(&mut self, file: FileInfo) {
        let opened = &mut self.opened;
        opened.file = Some(file);
        opened.path.clear();
        opened.path.extend_from_slice(&self.path);
        opened.symlinks = self.symlinks;
        opened.location = self.location;
    }

    /// The file that was left at the present path, if it was opened under the rules that hold here.
    fn take_opened(&mut self, context: &Context) -> Option<FileInfo> {
        let file = self.opened.file.take()?;
        let rules = |location| &context.site.settings(location).static_files;
        let fits = self.opened.path == self.path
            && self.opened.symlinks == self.symlinks
            && Arc::ptr_eq(rules(self.opened.location), rules(self.location));
        fits.then_some(file)
    }
}

/// How many bytes of the path `from=` spares: all of it if it is a prefix that ends at a segment's end, else none.
fn unchecked_part(part: &[u8], path: &[u8]) -> u32 {
    let part = part.strip_suffix(b"/").unwrap_or(part);
    match path.strip_prefix(part) {
        Some(rest) if rest.is_empty() || rest.starts_with(b"/") => part.len() as u32,
        _ => 0,
    }
}

/// Serves a regular file; a folder without a slash is redirected to; other methods than GET and HEAD are refused.
pub fn handle(exchange: &mut Exchange, context: &mut Context, answer: Option<Answer>) -> Flow {
    match found(exchange, context, answer) {
        Ok(file) => {
            exchange.respond_with_file(context, file);
            Flow::Respond
        }
        Err(flow) => flow,
    }
}

/// The regular file that the URI names, opened; or what else is to be done.
pub fn found(
    exchange: &mut Exchange,
    context: &mut Context,
    answer: Option<Answer>,
) -> Result<FileInfo, Flow> {
    match answer {
        None => {
            let method = exchange.method();
            if !matches!(method, Method::Get | Method::Head | Method::Post) {
                return Err(Flow::Status(Status::METHOD_NOT_ALLOWED));
            }
            if exchange.uri.ends_with(b"/") {
                return Err(Flow::Next);
            }
            exchange.map_uri_to_path(context).map_err(Flow::Status)?;
            exchange.apply_symlink_rules(context);
            match exchange.take_opened(context) {
                Some(file) => judge(exchange, context, file),
                None => Err(Flow::Need(Need::File(Want::Open))),
            }
        }
        Some(Answer::File(FileAnswer::Found(file))) => judge(exchange, context, file),
        Some(Answer::File(FileAnswer::Failed(failure))) => Err(refuse(exchange, context, failure)),
        Some(_) => Err(Flow::Status(Status::INTERNAL_SERVER_ERROR)),
    }
}

fn judge(exchange: &mut Exchange, context: &mut Context, file: FileInfo) -> Result<FileInfo, Flow> {
    match file.kind {
        FileKind::Directory => return Err(redirect::add_slash(exchange, context)),
        FileKind::Other => {
            let path = String::from_utf8_lossy(&exchange.path).into_owned();
            exchange.log(context, Level::Crit, format_args!("\"{path}\" is not a regular file"));
            return Err(Flow::Status(Status::NOT_FOUND));
        }
        FileKind::File => {}
    }
    // nginx checks the method only here: a POST to a folder is redirected, one to a file is 405.
    if exchange.method() == Method::Post {
        return Err(Flow::Status(Status::METHOD_NOT_ALLOWED));
    }
    Ok(file)
}

impl Exchange {
    /// Makes an open regular file the response, its type by the URI.
    pub fn respond_with_file(&mut self, context: &mut Context, file: FileInfo) {
        let site = context.site;
        let settings = site.settings(self.location);
        let Some(handle) = file.handle else { return };
        let validators = handle.validators();
        let response = &mut self.response;
        response.status = Status::OK;
        response.content_length = Some(file.size);
        response.content_length_text = Some(response.fields.store(validators.content_length()));
        response.last_modified = Some(file.modified_secs);
        response.last_modified_text = Some(response.fields.store(validators.last_modified()));
        if settings.static_files.etag {
            response.set_etag(validators.etag());
        }
        let strict = settings.core.strict;
        let media_type = settings.types.of_path(&self.uri, strict);
        // The type that an upstream gave with `X-Accel-Redirect` holds.
        if !media_type.is_empty() && response.content_type.is_none() {
            response.set_content_type(media_type);
        }
        self.allow_ranges = true;
        self.body = Body::File(FileRange { handle, offset: 0, length: file.size });
    }
}

impl Exchange {
    /// Makes pieces (in reverse) of a file that is the response already the body; the ETag goes by their length.
    pub fn respond_with_pieces(&mut self, context: &mut Context, pieces: Vec<Body>, modified_secs: i64) {
        self.body = Body::Pieces(pieces);
        let length = self.body.len();
        self.response.set_content_length(length);
        if context.site.settings(self.location).static_files.etag {
            let mut etag = Vec::new();
            write_etag(modified_secs, length, &mut etag);
            self.response.set_etag(&etag);
        }
    }
}

/// What a failed look-up means, logged as nginx logs it.
fn refuse(exchange: &mut Exchange, context: &mut Context, failure: FileFailure) -> Flow {
    if failure.reason == FailureReason::NotFound
        && let Some(flow) = spa::instead_of_missing(exchange, context)
    {
        return flow;
    }
    let settings = &context.site.settings(exchange.location).static_files;
    let (status, level) = match failure.reason {
        FailureReason::NotFound => (Status::NOT_FOUND, Level::Error),
        FailureReason::Forbidden => (Status::FORBIDDEN, Level::Error),
        FailureReason::Busy => (Status::SERVICE_UNAVAILABLE, Level::Crit),
        FailureReason::Internal => (Status::INTERNAL_SERVER_ERROR, Level::Crit),
    };
    if status != Status::NOT_FOUND || settings.log_not_found {
        exchange.log_file_failure(context, level, failure);
    }
    Flow::Status(status)
}

impl Exchange {
    /// Logs a failed look-up of the present path.
    pub fn log_file_failure(&mut self, context: &mut Context, level: Level, failure: FileFailure) {
        let path = std::mem::take(&mut self.path);
        self.log(context, level, format_args!("{}", failure.describe(&path)));
        self.path = path;
    }

    /// Logs that a folder has neither index nor listing.
    pub fn log_forbidden_directory(&mut self, context: &mut Context) {
        if self.map_uri_to_path(context).is_ok() {
            let path = String::from_utf8_lossy(&self.path).into_owned();
            self.log(context, Level::Error, format_args!("directory index of \"{path}\" is forbidden"));
        }
    }
}
