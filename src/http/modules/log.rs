//! `access_log`, `log_format`, `open_log_file_cache`, `error_log`. What they do is in [`crate::http::access_log`] and
//! [`crate::http::error_log`].

use std::sync::Arc;

use crate::base::cidr::AddressSet;
use crate::base::level::Level;
use crate::base::log::{ErrorTarget, ErrorTargets, SinkId};
use crate::conf::context::Context;
use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::log_target::{
    AccessLogKind, AccessLogOptions, AccessLogParameters, LogTarget, OpenLogFileCache, parse_error_levels,
};
use crate::conf::main_settings::{ErrorLog, MainSettings};
use crate::conf::tree::Word;
use crate::http::access_log::{
    AccessLog, AccessLogs, Destination, FormatPart, JSON_FIELDS, LogEscape, LogFormat,
};
use crate::http::build::{Builder, Scope};
use crate::http::settings::contexts::{HTTP, HTTP_SERVER_LOCATION, HTTP_SERVER_LOCATION_IF};
use crate::http::settings::settings;
use crate::http::site::Location;

/// Where requests may be logged: `if` and `limit_except` too.
const ACCESS_CONTEXTS: Context = HTTP_SERVER_LOCATION_IF.union(Context::LIMIT_EXCEPT);

settings! {
    module log;
    fields {
        /// Where requests are logged, and how; `None` where no scope says: `logs/access.log combined`.
        access: Option<AccessLogs> = None, inherit;
            "access_log" ACCESS_CONTEXTS, Arity::at_least(1), default "logs/access.log combined", with add_access_log;
        /// Where errors are logged; `None` where no scope says: as the main context does.
        error: Option<ErrorTargets> = None, inherit;
            "error_log" HTTP_SERVER_LOCATION, Arity::at_least(1), default "logs/error.log error", with add_error_log;
        /// Descriptors kept for access logs whose path has variables.
        open_file_cache: Option<Arc<OpenLogFileCache>> = None, inherit;
            "open_log_file_cache" HTTP_SERVER_LOCATION, Arity::between(1, 4), default "off", once open_log_file_cache;
    }
    plain {
        /// The form of access log lines, by name.
        "log_format" HTTP, Arity::at_least(2), default "combined", set_log_format;
    }
}

/// A complaint in nginx's words from a parser that knows no places.
fn complaint(word: &Word) -> impl Fn(String) -> Complaint {
    move |message| Complaint::new(message).at(word)
}

fn bytes(words: &[Word]) -> impl Iterator<Item = &[u8]> {
    words.iter().map(Word::as_bytes)
}

/// A path of the configuration made absolute.
fn absolute(builder: &Builder, path: &[u8]) -> Vec<u8> {
    if path.starts_with(b"/") { path.to_vec() } else { [builder.prefix.as_bytes(), path].concat() }
}

fn absolute_target(builder: &Builder, target: LogTarget) -> LogTarget {
    match target {
        LogTarget::File(path) => LogTarget::File(absolute(builder, &path)),
        other => other,
    }
}

fn add_access_log(
    scope: &mut Scope,
    call: &Call,
    slot: &mut Option<Option<AccessLogs>>,
) -> Result<(), Complaint> {
    let logs = slot.get_or_insert_default().get_or_insert_default();
    let word = call.arg(0);
    if word == "off" {
        logs.is_off = true;
        return match call.args().get(1) {
            Some(extra) => Err(Complaint::invalid_parameter(extra)),
            None => Ok(()),
        };
    }
    let log = access_log(scope, call)?;
    logs.list = logs.list.iter().cloned().chain([log]).collect();
    Ok(())
}

fn access_log(scope: &mut Scope, call: &Call) -> Result<AccessLog, Complaint> {
    let word = call.arg(0);
    let text = word.as_bytes();
    let kind = if text.starts_with(b"syslog:") {
        AccessLogKind::Syslog
    } else if text.contains(&b'$') {
        AccessLogKind::PathWithVariables
    } else {
        AccessLogKind::Path
    };
    let target = match kind {
        AccessLogKind::PathWithVariables => None,
        _ => Some(LogTarget::parse_access_log(text).map_err(complaint(word))?),
    };
    let format = match call.args().get(1) {
        Some(name) => find_format(scope, name)?,
        None => Arc::new(LogFormat::Combined),
    };
    let rest = call.args().get(2..).unwrap_or(&[]);
    let parameters = AccessLogParameters::parse(text, kind, bytes(rest)).map_err(Complaint::new)?;
    let condition = match rest.iter().rev().find(|word| word.as_bytes().starts_with(b"if=")) {
        Some(word) => Some(scope.builder.template_of(parameters.condition.unwrap_or(b""), word)?),
        None => None,
    };
    let destination = match target {
        None => {
            let path = absolute(&scope.builder, text);
            Destination::Path(scope.builder.template_of(&path, word)?)
        }
        Some(target) => {
            let target = absolute_target(&scope.builder, target);
            let sink = scope.builder.logs.access_log(target, parameters.options).map_err(|_| {
                let message =
                    format!("access_log \"{}\" already defined with conflicting parameters", word.lossy());
                Complaint::new(message)
            })?;
            Destination::Sink(sink)
        }
    };
    Ok(AccessLog { destination, format, condition })
}

/// A format by name: as in nginx it must have been defined before. `json` is ours unless the configuration defines
/// one of that name.
fn find_format(scope: &mut Scope, name: &Word) -> Result<Arc<LogFormat>, Complaint> {
    if let Some(format) = scope.builder.log_formats.get(name.as_bytes()) {
        return Ok(format.clone());
    }
    match name.as_bytes() {
        b"combined" => Ok(Arc::new(LogFormat::Combined)),
        b"json" => {
            let fields = JSON_FIELDS
                .iter()
                .map(|(key, variable, kind)| (*key, scope.builder.variable(variable, name), *kind))
                .collect();
            Ok(Arc::new(LogFormat::Json(fields)))
        }
        _ => {
            let message = format!("unknown log format \"{}\"", name.lossy());
            let known = scope.builder.log_formats.keys().filter_map(|known| std::str::from_utf8(known).ok());
            let nearest = crate::conf::suggest::nearest(&name.lossy(), known.chain(["combined", "json"]));
            let complaint = Complaint::new(message).at(name);
            Err(match nearest {
                Some(nearest) => complaint.help(format!("did you mean \"{nearest}\"?")),
                None => complaint.help("a format must be defined by `log_format` before it is used"),
            })
        }
    }
}

fn set_log_format(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    let name = call.arg(0);
    if name == "combined" || scope.builder.log_formats.contains_key(name.as_bytes()) {
        return Err(Complaint::new(format!("duplicate \"log_format\" name \"{}\"", name.lossy())).at(name));
    }
    let mut texts = &call.args()[1..];
    let mut escape = LogEscape::Default;
    if let Some((first, rest)) = texts.split_first()
        && let Some(kind) = first.as_bytes().strip_prefix(b"escape=")
    {
        escape = match kind {
            b"default" => LogEscape::Default,
            b"json" => LogEscape::Json,
            b"none" => LogEscape::None,
            _ => {
                let message = format!("unknown log format escaping \"{}\"", String::from_utf8_lossy(kind));
                return Err(Complaint::new(message).at(first));
            }
        };
        texts = rest;
    }
    let mut parts = Vec::new();
    for word in texts {
        compile_format(&mut scope.builder, word, &mut parts)?;
    }
    let format = Arc::new(LogFormat::Custom(parts.into(), escape));
    scope.builder.log_formats.insert(name.as_bytes().into(), format);
    Ok(())
}

/// Divides a format's text into parts. Unlike in templates, `$1` is a variable of that name here, which does not
/// exist.
fn compile_format(builder: &mut Builder, word: &Word, parts: &mut Vec<FormatPart>) -> Result<(), Complaint> {
    let mut rest = word.as_bytes();
    while let Some(dollar) = memchr::memchr(b'$', rest) {
        push_literal(parts, &rest[..dollar]);
        let reference = &rest[dollar..];
        let braced = reference.get(1) == Some(&b'{');
        let body = &reference[1 + usize::from(braced)..];
        let length = body.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        let name = String::from_utf8_lossy(&body[..length]).into_owned();
        let invalid = || {
            let message = format!("invalid parameter \"{}\"", String::from_utf8_lossy(reference));
            Err(Complaint::new(message).at(word))
        };
        rest = &body[length..];
        if braced {
            match rest.strip_prefix(b"}") {
                Some(after) => rest = after,
                None if body.is_empty() => return invalid(),
                None => {
                    let message = format!("the closing bracket in \"{name}\" variable is missing");
                    return Err(Complaint::new(message).at(word));
                }
            }
        }
        if name.is_empty() {
            return invalid();
        }
        parts.push(FormatPart::Variable(builder.variable(&name, word)));
    }
    push_literal(parts, rest);
    Ok(())
}

fn push_literal(parts: &mut Vec<FormatPart>, text: &[u8]) {
    match parts.last_mut() {
        _ if text.is_empty() => {}
        Some(FormatPart::Literal(before)) => *before = [before, text].concat().into(),
        _ => parts.push(FormatPart::Literal(text.into())),
    }
}

fn open_log_file_cache(_: &mut Scope, call: &Call) -> Result<Option<Arc<OpenLogFileCache>>, Complaint> {
    let cache = OpenLogFileCache::parse(bytes(call.args())).map_err(Complaint::new)?;
    Ok(cache.map(Arc::new))
}

/// The words of `error_log`, in every context.
fn parse_error_log(builder: &Builder, call: &Call) -> Result<(LogTarget, Level), Complaint> {
    let word = call.arg(0);
    let target = LogTarget::parse_error_log(word.as_bytes()).map_err(complaint(word))?;
    let level = parse_error_levels(bytes(&call.args()[1..])).map_err(Complaint::new)?;
    Ok((absolute_target(builder, target), level))
}

fn add_error_log(
    scope: &mut Scope,
    call: &Call,
    slot: &mut Option<Option<ErrorTargets>>,
) -> Result<(), Complaint> {
    let (target, level) = parse_error_log(&scope.builder, call)?;
    let sink = scope.builder.logs.error_log(target);
    let before = slot.take().flatten();
    let targets = before.iter().flat_map(|targets| targets.iter().copied());
    *slot = Some(Some(targets.chain([ErrorTarget { sink, level }]).collect()));
    Ok(())
}

/// `error_log` of the main context.
pub fn main_error_log(builder: &mut Builder, call: &Call) -> Result<ErrorLog, Complaint> {
    let (target, level) = parse_error_log(builder, call)?;
    let sink = builder.logs.error_log(target.clone());
    builder.error_log.push(ErrorTarget { sink, level });
    Ok(ErrorLog { target, level })
}

/// What logging needs of the site as a whole.
pub struct SiteLogs {
    /// `error_log` of the main context, or the default one.
    pub error: ErrorTargets,
    /// The access log of scopes without one.
    pub access: AccessLogs,
    /// `debug_connection`.
    pub debug_connections: AddressSet,
}

/// Settles the defaults, once every scope is frozen: the default access log is opened only if a scope writes to it.
pub fn finish(builder: &mut Builder, main: &MainSettings) -> SiteLogs {
    if builder.error_log.is_empty() {
        let target = builder.default_error_log.clone();
        let target = target.unwrap_or_else(|| LogTarget::File(b"logs/error.log".to_vec()));
        let target = absolute_target(builder, target);
        let sink = builder.logs.error_log(target);
        builder.error_log.push(ErrorTarget { sink, level: Level::Error });
    }
    let needs_default = |location: &Option<Location>| {
        location.as_ref().is_some_and(|location| location.settings.log.access.is_none())
    };
    let mut access = AccessLogs::default();
    if builder.locations.iter().any(needs_default) {
        let target = LogTarget::File(absolute(builder, b"logs/access.log"));
        let sink = builder.logs.access_log(target, AccessLogOptions::default());
        access.list = Arc::from([default_access_log(sink.unwrap_or(SinkId(0)))]);
    }
    let mut debug_connections = AddressSet::new();
    for cidr in &main.debug_connections {
        debug_connections.push(*cidr, ());
    }
    SiteLogs { error: std::mem::take(&mut builder.error_log).into(), access, debug_connections }
}

fn default_access_log(sink: SinkId) -> AccessLog {
    AccessLog { destination: Destination::Sink(sink), format: Arc::new(LogFormat::Combined), condition: None }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
