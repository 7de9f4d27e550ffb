//! What nginx's core module has: roots, limits, timeouts, connection handling. Most of it is read by the shell while it
//! moves bytes; it stands here so that every directive has one entry.

use std::sync::Arc;

use crate::base::pace::MinRate;
use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::template::Template;
use crate::conf::values;
use crate::http::build::Scope;
use crate::http::build::arguments::{flag, invalid_value, milliseconds, number, number_without_meaning, offset, one_of, size, size_without_meaning, template, without_meaning};
use crate::http::phases::Handler;
use crate::http::settings::contexts::{
    HTTP, HTTP_SERVER, HTTP_SERVER_LOCATION, HTTP_SERVER_LOCATION_IF, LOCATION,
};
use crate::http::settings::settings;

/// `root` or `alias`, for the location that it stands in and those within.
#[derive(Clone, Debug)]
pub struct Root {
    /// The path; without a slash at its end for a literal `root`.
    pub template: Template,
    /// What of a URI the path stands for.
    pub replaces: Replaces,
    /// Whether the path begins with a slash whatever its variables say.
    pub is_absolute: bool,
    /// What a relative path begins with.
    pub prefix: Arc<[u8]>,
}

/// What of a URI a path stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replaces {
    /// Nothing: the URI follows it (`root`).
    Nothing,
    /// The name of the location that the `alias` stands in. A location within it, whose name may be longer or a regular
    /// expression, inherits the path and what it stands for.
    Name(Arc<[u8]>),
    /// All of it: the `alias` of a location with a regular expression.
    All,
}

impl Default for Root {
    fn default() -> Self {
        Root {
            template: Template::literal(b"html"),
            replaces: Replaces::Nothing,
            is_absolute: true,
            prefix: Arc::from([]),
        }
    }
}

impl Root {
    /// `root html`, below the folder that relative paths begin in.
    pub fn default_below(prefix: &str) -> Root {
        let template = Template::literal(format!("{prefix}html").as_bytes());
        Root { template, ..Root::default() }
    }

    /// Whether it is an `alias`.
    pub fn is_alias(&self) -> bool {
        self.replaces != Replaces::Nothing
    }
}

/// `keepalive_timeout`.
#[derive(Clone, Copy, Debug)]
pub struct KeepaliveTimeout {
    /// How long an idle connection is kept, in milliseconds; 0 keeps none.
    pub idle_ms: u64,
    /// The `Keep-Alive: timeout=` that is sent, in seconds; 0 sends none.
    pub header_secs: u32,
}

/// `lingering_close`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lingering {
    /// Never wait for the rest of a request.
    Off,
    /// Wait if the client may still be sending.
    On,
    /// Always wait.
    Always,
}

/// `keepalive_disable`: browsers that keep-alive is not offered to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepaliveDisable {
    /// Old MSIE, after a POST.
    pub msie6: bool,
    /// Safari on macOS.
    pub safari: bool,
}

/// `if_modified_since`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfModifiedSince {
    /// Ignored.
    Off,
    /// Equal times only.
    Exact,
    /// Not newer than the client's.
    Before,
}

/// `satisfy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Satisfy {
    /// Every access rule must let the request pass.
    All,
    /// One is enough.
    Any,
}

/// `large_client_header_buffers`.
#[derive(Clone, Copy, Debug)]
pub struct LargeBuffers {
    /// How many.
    pub count: u32,
    /// Bytes of each.
    pub size: u32,
}

/// `aio`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aio {
    /// Reads that would block go to the thread pool by themselves: the forms differ in nothing here.
    Threads,
}

settings! {
    module core;
    values {
        /// Whether a request for the location's name without its last slash is redirected.
        auto_redirect: bool = false, own;
        /// The location's own content handler.
        handler: Option<Handler> = None, own;
        /// Whether that handler passes requests on: then it is also that of the location's `limit_except`.
        passes_on: bool = false, own;
    }
    fields {
        /// Whether redirects carry scheme and host.
        absolute_redirect: bool = true, inherit;
            "absolute_redirect" HTTP_SERVER_LOCATION, Arity::FLAG, default "on", once flag;
        /// Without effect beyond its check: a read that would block goes to a pool of threads in every case.
        aio: Aio = Aio::Threads, inherit;
            "aio" HTTP_SERVER_LOCATION, Arity::exactly(1), default "off", once aio;
        /// Whether responses of unknown length may be chunked.
        chunked_transfer_encoding: bool = true, inherit;
            "chunked_transfer_encoding" HTTP_SERVER_LOCATION, Arity::FLAG, default "on", once flag;
        /// The first buffer for a request head, in bytes.
        client_header_buffer_size: u64 = 1024, inherit;
            "client_header_buffer_size" HTTP_SERVER, Arity::exactly(1), default "1k", once size;
        /// How long a request head may take, in milliseconds.
        client_header_timeout: u64 = 60_000, inherit;
            "client_header_timeout" HTTP_SERVER, Arity::exactly(1), default "60s", once milliseconds;
        /// Largest request body in bytes; 0 for no limit.
        client_max_body_size: u64 = 1 << 20, inherit;
            "client_max_body_size" HTTP_SERVER_LOCATION, Arity::exactly(1), default "1m", once offset;
        /// How long a client may send nothing of its body, in milliseconds.
        client_body_timeout: u64 = 60_000, inherit;
            "client_body_timeout" HTTP_SERVER_LOCATION, Arity::exactly(1), default "60s", once milliseconds;
        /// Whether our deviations from nginx are turned off (a directive of ours: `compat strict;`).
        strict: bool = false, inherit;
            "compat" HTTP_SERVER_LOCATION, Arity::exactly(1), default "safe", once compat;
        /// Bytes per second that a client must send of a body once `grace=TIME` (20s) of waiting for it has passed, or 408
        /// (a directive of ours; `compat strict` makes the default `off`).
        client_body_min_rate: MinRate = default_rate(strict, BODY_GRACE_MS), inherit;
            "client_body_min_rate" HTTP_SERVER_LOCATION, Arity::between(1, 2), default "500 grace=20s",
                once body_min_rate;
        /// What If-Modified-Since is compared by.
        if_modified_since: IfModifiedSince = IfModifiedSince::Exact, inherit;
            "if_modified_since" HTTP_SERVER_LOCATION, Arity::exactly(1), default "exact", once if_modified_since;
        /// Whether field lines with invalid names are skipped rather than refused.
        ignore_invalid_headers: bool = true, inherit;
            "ignore_invalid_headers" HTTP_SERVER, Arity::FLAG, default "on", once flag;
        /// Whether only internal redirects may come here.
        internal: bool = false, inherit;
            "internal" LOCATION, Arity::exactly(0), default "", once |_, _| Ok(true);
        /// Browsers without keep-alive.
        keepalive_disable: KeepaliveDisable = KeepaliveDisable { msie6: true, safari: false }, inherit;
            "keepalive_disable" HTTP_SERVER_LOCATION, Arity::between(1, 2), default "msie6", once keepalive_disable;
        /// How long after a response a connection is not closed though it is idle, in milliseconds.
        keepalive_min_timeout: u64 = 0, inherit;
            "keepalive_min_timeout" HTTP_SERVER_LOCATION, Arity::exactly(1), default "0", once milliseconds;
        /// Requests that one connection may make.
        keepalive_requests: u64 = 1000, inherit;
            "keepalive_requests" HTTP_SERVER_LOCATION, Arity::exactly(1), default "1000", once number;
        /// How old a connection may become, in milliseconds.
        keepalive_time: u64 = 3_600_000, inherit;
            "keepalive_time" HTTP_SERVER_LOCATION, Arity::exactly(1), default "1h", once milliseconds;
        /// How long an idle connection is kept.
        keepalive_timeout: KeepaliveTimeout = KeepaliveTimeout { idle_ms: 75_000, header_secs: 0 }, inherit;
            "keepalive_timeout" HTTP_SERVER_LOCATION, Arity::between(1, 2), default "75s", once keepalive_timeout;
        /// Buffers for long heads.
        large_client_header_buffers: LargeBuffers = LargeBuffers { count: 4, size: 8192 }, inherit;
            "large_client_header_buffers" HTTP_SERVER, Arity::exactly(2), default "4 8k", once large_buffers;
        /// Bytes per second to the client; empty or 0 for no limit.
        limit_rate: Template = Template::default(), inherit;
            "limit_rate" HTTP_SERVER_LOCATION_IF, Arity::exactly(1), default "0", once rate;
        /// Bytes that are sent before `limit_rate` applies.
        limit_rate_after: Template = Template::default(), inherit;
            "limit_rate_after" HTTP_SERVER_LOCATION_IF, Arity::exactly(1), default "0", once rate;
        /// Whether a connection with an unread request body lingers before it closes.
        lingering_close: Lingering = Lingering::On, inherit;
            "lingering_close" HTTP_SERVER_LOCATION, Arity::exactly(1), default "on", once lingering;
        /// How long in all, in milliseconds.
        lingering_time: u64 = 30_000, inherit;
            "lingering_time" HTTP_SERVER_LOCATION, Arity::exactly(1), default "30s", once milliseconds;
        /// How long without a byte, in milliseconds.
        lingering_timeout: u64 = 5_000, inherit;
            "lingering_timeout" HTTP_SERVER_LOCATION, Arity::exactly(1), default "5s", once milliseconds;
        /// Bytes of a subrequest's response that are gathered in memory where all of it is needed at once.
        subrequest_output_buffer_size: u64 = 4096, inherit;
            "subrequest_output_buffer_size" HTTP_SERVER_LOCATION, Arity::exactly(1), default "4k", once size;
        /// Whether subrequests are logged.
        log_subrequest: bool = false, inherit;
            "log_subrequest" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", once flag;
        /// Field lines that a head may have.
        max_headers: u64 = 1000, inherit;
            "max_headers" HTTP_SERVER, Arity::exactly(1), default "1000", once number;
        /// Whether `//` in a path counts as `/`.
        merge_slashes: bool = true, inherit;
            "merge_slashes" HTTP_SERVER, Arity::FLAG, default "on", once flag;
        /// Whether short error pages are padded for old browsers.
        msie_padding: bool = true, inherit;
            "msie_padding" HTTP_SERVER_LOCATION, Arity::FLAG, default "on", once flag;
        /// Whether redirects carry the port.
        port_in_redirect: bool = true, inherit;
            "port_in_redirect" HTTP_SERVER_LOCATION, Arity::FLAG, default "on", once flag;
        /// Without effect beyond its check: what is there at the end of a turn is sent.
        postpone_output: u64 = 1460, inherit;
            "postpone_output" HTTP_SERVER_LOCATION, Arity::exactly(1), default "1460", once size;
        /// Whether a connection that timed out is reset.
        reset_timedout_connection: bool = false, inherit;
            "reset_timedout_connection" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", once flag;
        /// The folder that URIs are looked up in.
        root: Root = Root::default(), inherit;
            "root" HTTP_SERVER_LOCATION_IF, Arity::exactly(1), default "html", with set_root;
        /// Whether all access rules must let a request pass, or any.
        satisfy: Satisfy = Satisfy::All, inherit;
            "satisfy" HTTP_SERVER_LOCATION, Arity::exactly(1), default "all", once satisfy;
        /// Bytes per second that a client must take of a response once `grace=TIME` (30s) of waiting for it has passed, or
        /// it is cut off (a directive of ours; `compat strict` makes the default `off`).
        send_min_rate: MinRate = default_rate(strict, SEND_GRACE_MS), inherit;
            "send_min_rate" HTTP_SERVER_LOCATION, Arity::between(1, 2), default "500 grace=30s",
                once send_min_rate;
        /// How long a client may take nothing, in milliseconds.
        send_timeout: u64 = 60_000, inherit;
            "send_timeout" HTTP_SERVER_LOCATION, Arity::exactly(1), default "60s", once milliseconds;
        /// Whether files are sent by `sendfile`.
        sendfile: bool = false, inherit;
            "sendfile" HTTP_SERVER_LOCATION_IF, Arity::FLAG, default "off", once flag;
        /// Without effect beyond its check: 512 KiB are sent before others have their turn.
        sendfile_max_chunk: u64 = 2 << 20, inherit;
            "sendfile_max_chunk" HTTP_SERVER_LOCATION, Arity::exactly(1), default "2m", once size;
        /// Whether redirects name the server by its first `server_name`.
        server_name_in_redirect: bool = false, inherit;
            "server_name_in_redirect" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", once flag;
        /// The Server field and the signature of built-in pages.
        server_tokens: Template = Template::literal(SIGNATURE.as_bytes()), inherit;
            "server_tokens" HTTP_SERVER_LOCATION, Arity::exactly(1), default "on", once server_tokens;
        /// Without effect beyond its check: small pieces are sent at once, always.
        tcp_nodelay: bool = true, inherit;
            "tcp_nodelay" HTTP_SERVER_LOCATION, Arity::FLAG, default "on", once flag;
        /// Without effect beyond its check: a response's head is sent with the body's start where that is there, always.
        tcp_nopush: bool = false, inherit;
            "tcp_nopush" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", once flag;
        /// Whether `_` is valid in field names.
        underscores_in_headers: bool = false, inherit;
            "underscores_in_headers" HTTP_SERVER, Arity::FLAG, default "off", once flag;
    }
    also {
        /// The folder that takes the place of the location's name.
        "alias" for root: Root, LOCATION, Arity::exactly(1), default "", with set_alias;
    }
    plain {
        /// Without meaning here: FastCGI is not spoken.
        "fastcgi_temp_path" HTTP_SERVER_LOCATION, Arity::between(1, 4), default "fastcgi_temp", without_meaning;
        /// Without meaning here: SCGI is not spoken.
        "scgi_temp_path" HTTP_SERVER_LOCATION, Arity::between(1, 4), default "scgi_temp", without_meaning;
        /// Without meaning here: uwsgi is not spoken.
        "uwsgi_temp_path" HTTP_SERVER_LOCATION, Arity::between(1, 4), default "uwsgi_temp", without_meaning;
        /// Without meaning here: writes never wait for the disk.
        "aio_write" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", without_meaning;
        /// Without meaning here: connections have no pools.
        "connection_pool_size" HTTP_SERVER, Arity::exactly(1), default "512", size_without_meaning;
        /// Without meaning here: a refresh page was for MSIE.
        "msie_refresh" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", without_meaning;
        /// Without meaning here: bodies are read in pieces of a size of our own.
        "output_buffers" HTTP_SERVER_LOCATION, Arity::exactly(2), default "2 32k", without_meaning;
        /// Without meaning here: requests have no pools.
        "request_pool_size" HTTP_SERVER, Arity::exactly(1), default "4k", size_without_meaning;
        /// Without meaning on Linux.
        "send_lowat" HTTP_SERVER_LOCATION, Arity::exactly(1), default "0", size_without_meaning;
        /// Without meaning here: tables size themselves.
        "server_names_hash_bucket_size" HTTP, Arity::exactly(1), default "64", number_without_meaning;
        /// Without meaning here: tables size themselves.
        "server_names_hash_max_size" HTTP, Arity::exactly(1), default "512", number_without_meaning;
        /// Without meaning here: tables size themselves.
        "variables_hash_bucket_size" HTTP, Arity::exactly(1), default "64", number_without_meaning;
        /// Without meaning here: tables size themselves.
        "variables_hash_max_size" HTTP, Arity::exactly(1), default "1024", number_without_meaning;
    }
}

/// `server_tokens on`.
pub const SIGNATURE: &str = concat!("thalweg/", env!("CARGO_PKG_VERSION"));

/// `server_tokens build`.
const SIGNATURE_BUILD: &str = concat!("thalweg/", env!("CARGO_PKG_VERSION"), " (release)");

/// `server_tokens off`.
const SIGNATURE_SHORT: &str = "thalweg";

fn aio(_: &mut Scope, call: &Call) -> Result<Aio, Complaint> {
    match call.arg(0).as_bytes() {
        b"on" | b"off" | b"threads" => Ok(Aio::Threads),
        text if text.starts_with(b"threads=") => Ok(Aio::Threads),
        _ => Err(Complaint::invalid_value(call.arg(0))),
    }
}

fn compat(_: &mut Scope, call: &Call) -> Result<bool, Complaint> {
    one_of(call, &[("strict", true), ("safe", false)])
}

/// The least rate of both directions, in bytes per second: what Apache's mod_reqtimeout has asked of bodies for years.
const MIN_RATE: u64 = 500;
/// The grace time of bodies, in milliseconds.
const BODY_GRACE_MS: u64 = 20_000;
/// That of readers: a slow link's first bytes stand in the kernel's buffers.
const SEND_GRACE_MS: u64 = 30_000;

fn default_rate(strict: bool, grace_ms: u64) -> MinRate {
    MinRate { bytes_per_second: if strict { 0 } else { MIN_RATE }, grace_ms }
}

fn body_min_rate(_: &mut Scope, call: &Call) -> Result<MinRate, Complaint> {
    min_rate(call, BODY_GRACE_MS)
}

fn send_min_rate(_: &mut Scope, call: &Call) -> Result<MinRate, Complaint> {
    min_rate(call, SEND_GRACE_MS)
}

/// `RATE [grace=TIME]` or `off`.
fn min_rate(call: &Call, grace_ms: u64) -> Result<MinRate, Complaint> {
    let word = call.arg(0);
    let bytes_per_second = match word.as_bytes() {
        b"off" => 0,
        text => values::parse_size(text).map_err(|_| invalid_value(call, word))?,
    };
    let grace_ms = match call.args().get(1) {
        None => grace_ms,
        Some(word) => {
            let text = word.as_bytes().strip_prefix(b"grace=").ok_or_else(|| Complaint::invalid_parameter(word))?;
            values::parse_time_ms(text).map_err(|_| invalid_value(call, word))?
        }
    };
    Ok(MinRate { bytes_per_second, grace_ms })
}

fn if_modified_since(_: &mut Scope, call: &Call) -> Result<IfModifiedSince, Complaint> {
    one_of(
        call,
        &[
            ("off", IfModifiedSince::Off),
            ("exact", IfModifiedSince::Exact),
            ("before", IfModifiedSince::Before),
        ],
    )
}

fn satisfy(_: &mut Scope, call: &Call) -> Result<Satisfy, Complaint> {
    one_of(call, &[("all", Satisfy::All), ("any", Satisfy::Any)])
}

fn lingering(_: &mut Scope, call: &Call) -> Result<Lingering, Complaint> {
    one_of(call, &[("off", Lingering::Off), ("on", Lingering::On), ("always", Lingering::Always)])
}

fn keepalive_disable(_: &mut Scope, call: &Call) -> Result<KeepaliveDisable, Complaint> {
    let mut disable = KeepaliveDisable { msie6: false, safari: false };
    for word in call.args() {
        match word.as_bytes() {
            b"none" => {}
            b"msie6" => disable.msie6 = true,
            b"safari" => disable.safari = true,
            _ => return Err(Complaint::invalid_value(word)),
        }
    }
    Ok(disable)
}

fn keepalive_timeout(scope: &mut Scope, call: &Call) -> Result<KeepaliveTimeout, Complaint> {
    let idle_ms = milliseconds(scope, call)?;
    let header_secs = match call.args().get(1) {
        None => 0,
        Some(word) => {
            let secs =
                values::parse_time_s(word.as_bytes()).map_err(|_| invalid_value(call, word))?;
            u32::try_from(secs).map_err(|_| invalid_value(call, word))?
        }
    };
    Ok(KeepaliveTimeout { idle_ms, header_secs })
}

fn large_buffers(scope: &mut Scope, call: &Call) -> Result<LargeBuffers, Complaint> {
    let count = number(scope, call)?;
    let word = call.arg(1);
    let size = values::parse_size(word.as_bytes()).map_err(|_| invalid_value(call, word))?;
    let narrow = |value: u64| u32::try_from(value).map_err(|_| invalid_value(call, word));
    Ok(LargeBuffers { count: narrow(count)?, size: narrow(size)? })
}

/// A rate: literal ones are checked and brought to bytes, those with variables are read at request time.
fn rate(scope: &mut Scope, call: &Call) -> Result<Template, Complaint> {
    let template = template(scope, call)?;
    match template.as_literal() {
        None => Ok(template),
        Some(text) => {
            let bytes = values::parse_size(text).map_err(|_| invalid_value(call, call.arg(0)))?;
            Ok(if bytes == 0 { Template::default() } else { Template::literal(bytes.to_string().as_bytes()) })
        }
    }
}

fn server_tokens(scope: &mut Scope, call: &Call) -> Result<Template, Complaint> {
    match call.arg(0).as_bytes() {
        b"on" => Ok(Template::literal(SIGNATURE.as_bytes())),
        b"off" => Ok(Template::literal(SIGNATURE_SHORT.as_bytes())),
        b"build" => Ok(Template::literal(SIGNATURE_BUILD.as_bytes())),
        _ => template(scope, call),
    }
}

fn set_root(scope: &mut Scope, call: &Call, slot: &mut Option<Root>) -> Result<(), Complaint> {
    set_path(scope, call, slot, Replaces::Nothing)
}

fn set_alias(scope: &mut Scope, call: &Call, slot: &mut Option<Root>) -> Result<(), Complaint> {
    use crate::http::site::LocationKind;
    if scope.head.kind == LocationKind::Named {
        return Err(Complaint::new("the \"alias\" directive cannot be used inside the named location"));
    }
    let path = call.arg(0).as_bytes();
    let name = &scope.head.name;
    if scope.head.kind == LocationKind::Prefix && name.ends_with(b"/") != path.ends_with(b"/") {
        let message = format!(
            "\"alias\" \"{}\" and its location \"{}\" do not both end in a slash, so that paths are glued together \
             wrongly",
            call.arg(0).lossy(),
            scope.head.lossy_name()
        );
        scope.warn(call, message);
    }
    let replaces = match scope.head.kind {
        LocationKind::Regex => Replaces::All,
        _ => Replaces::Name(Arc::from(&scope.head.name[..])),
    };
    set_path(scope, call, slot, replaces)
}

fn set_path(
    scope: &mut Scope,
    call: &Call,
    slot: &mut Option<Root>,
    replaces: Replaces,
) -> Result<(), Complaint> {
    let is_alias = replaces != Replaces::Nothing;
    if let Some(root) = slot {
        return Err(Complaint::new(if root.is_alias() == is_alias {
            format!("\"{}\" directive is duplicate", call.name())
        } else {
            let other = if root.is_alias() { "alias" } else { "root" };
            format!("\"{}\" directive is duplicate, \"{other}\" directive was specified earlier", call.name())
        }));
    }
    let word = call.arg(0);
    for name in ["document_root", "realpath_root"] {
        let text = word.lossy();
        if text.contains(&format!("${name}")) || text.contains(&format!("${{{name}}}")) {
            let message =
                format!("the ${name} variable cannot be used in the \"{}\" directive", call.name());
            return Err(Complaint::new(message).at(word));
        }
    }
    let mut text = word.as_bytes();
    if !is_alias && text.len() > 1 && text.ends_with(b"/") {
        text = &text[..text.len() - 1];
    }
    let template = scope.builder.template_of(text, word)?;
    let starts_with_variable = text.starts_with(b"$");
    let prefix: Arc<[u8]> = scope.builder.prefix.as_bytes().into();
    let template = if text.starts_with(b"/") || starts_with_variable {
        template
    } else {
        template.prefixed(&prefix)
    };
    *slot = Some(Root { template, replaces, is_absolute: !starts_with_variable, prefix });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::complaints;

    #[test]
    fn least_rates_have_grace_times_and_mistakes_are_told() {
        for name in ["client_body_min_rate", "send_min_rate"] {
            for (text, told) in [
                ("x", format!("\"{name}\" directive invalid value")),
                ("1k grace=x", format!("\"{name}\" directive invalid value")),
                ("1k foo", "invalid parameter \"foo\"".to_owned()),
                ("1k; {name} off", format!("\"{name}\" directive is duplicate")),
            ] {
                let text = format!("{name} {};", text.replace("{name}", name));
                assert_eq!(complaints(&text), [format!("[emerg] {told}")], "{text}");
            }
            for text in ["off", "1k", "2m grace=1m30s", "0 grace=5s"] {
                assert!(complaints(&format!("server {{ location / {{ {name} {text}; }} }}")).is_empty(), "{text}");
            }
        }
    }

    #[test]
    fn compat_strict_has_no_least_rates_unless_they_are_asked_for() {
        use crate::http::settings::ModuleDraft;
        let rates = |draft: &Draft| {
            let settings = draft.freeze();
            (settings.client_body_min_rate.bytes_per_second, settings.send_min_rate.bytes_per_second)
        };
        let strict = Draft { strict: Some(true), ..Draft::default() };
        assert_eq!((rates(&Draft::default()), rates(&strict)), ((500, 500), (0, 0)));
        let asked = MinRate { bytes_per_second: 7, grace_ms: 0 };
        assert_eq!(rates(&Draft { send_min_rate: Some(asked), ..strict }), (0, 7));
    }
}
