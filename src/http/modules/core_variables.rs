//! Variables of the request: its head, its body, its way through the site, what was sent.
//!
//! `kept` follows nginx's flags only where the value could change while a request runs or is costly: a value that is
//! the same whenever it is asked for needs no slot.

use crate::base::ascii::{HEX_LOWER, append_decimal, append_seconds};
use crate::base::base64;
use crate::base::level::Level;
use crate::conf::values;
use crate::http::context::Context;
use crate::http::exchange::{Exchange, RequestBody};
use crate::http::variables::VariableEntry;
use crate::message::{FieldName, Method, RequestFraming, Span, Version};

/// The variables.
pub static VARIABLES: &[VariableEntry] = &[
    VariableEntry::family("arg_", argument),
    VariableEntry::new("args", args).assigned_by(set_args),
    VariableEntry::new("body_bytes_sent", |exchange, _, out| number(out, exchange.outcome.body_bytes_sent)),
    VariableEntry::new("bytes_sent", |exchange, _, out| number(out, exchange.outcome.bytes_sent)),
    VariableEntry::new("content_length", content_length),
    VariableEntry::new("content_type", |exchange, _, out| {
        joined_field(exchange, FieldName::ContentType, b", ", out)
    }),
    VariableEntry::family("cookie_", cookie),
    VariableEntry::new("document_root", append_document_root),
    VariableEntry::new("document_uri", uri),
    VariableEntry::new("host", host),
    VariableEntry::family("http_", http_field),
    VariableEntry::new("http_cookie", |exchange, _, out| {
        joined_field(exchange, FieldName::Cookie, b"; ", out)
    }),
    VariableEntry::new("http_host", |exchange, _, out| joined_field(exchange, FieldName::Host, b", ", out)),
    VariableEntry::new("http_referer", |exchange, _, out| {
        joined_field(exchange, FieldName::Referer, b", ", out)
    }),
    VariableEntry::new("http_user_agent", |exchange, _, out| {
        joined_field(exchange, FieldName::UserAgent, b", ", out)
    }),
    VariableEntry::new("http_via", |exchange, _, out| joined_field(exchange, FieldName::Via, b", ", out)),
    VariableEntry::new("http_x_forwarded_for", |exchange, _, out| {
        joined_field(exchange, FieldName::XForwardedFor, b", ", out)
    }),
    VariableEntry::new("is_args", |exchange, _, out| {
        text(out, if exchange.args.is_empty() { b"" } else { b"?" })
    }),
    VariableEntry::new("is_request_port", |exchange, _, out| {
        text(out, if exchange.head.host_port.is_some() { b":" } else { b"" })
    }),
    VariableEntry::new("limit_rate", limit_rate).assigned_by(set_limit_rate),
    VariableEntry::new("query_string", args),
    VariableEntry::new("realpath_root", realpath_root),
    VariableEntry::new("remote_user", |exchange, _, out| append_remote_user(exchange, out)),
    VariableEntry::new("request", |exchange, _, out| span(exchange, exchange.head.request_line, out)),
    VariableEntry::new("request_body", request_body),
    VariableEntry::new("request_body_file", request_body_file),
    VariableEntry::new("request_completion", |exchange, _, out| {
        text(out, if exchange.outcome.complete { b"OK" } else { b"" })
    }),
    VariableEntry::new("request_filename", request_filename),
    VariableEntry::new("request_id", request_id).kept(),
    VariableEntry::new("request_length", request_length),
    VariableEntry::new("request_method", request_method),
    VariableEntry::new("request_port", request_port),
    VariableEntry::new("request_time", request_time),
    VariableEntry::new("request_uri", |exchange, _, out| span(exchange, exchange.head.target, out)),
    VariableEntry::new("server_name", server_name),
    VariableEntry::new("server_protocol", server_protocol),
    VariableEntry::new("status", |exchange, _, out| {
        append_status(exchange, out);
        true
    }),
    VariableEntry::new("uri", uri),
];

fn text(out: &mut Vec<u8>, text: &[u8]) -> bool {
    out.extend_from_slice(text);
    true
}

/// Text that is missing where it is empty.
fn present(out: &mut Vec<u8>, text: &[u8]) -> bool {
    out.extend_from_slice(text);
    !text.is_empty()
}

fn number(out: &mut Vec<u8>, number: u64) -> bool {
    append_decimal(out, number);
    true
}

/// A part of the head; missing where the head did not get so far.
fn span(exchange: &Exchange, span: Span, out: &mut Vec<u8>) -> bool {
    present(out, exchange.head.text(span))
}

/// Appends values with `separator` between them; `false` if there is none.
fn join<'a>(values: impl Iterator<Item = &'a [u8]>, separator: &[u8], out: &mut Vec<u8>) -> bool {
    let mut found = false;
    for value in values {
        if found {
            out.extend_from_slice(separator);
        }
        out.extend_from_slice(value);
        found = true;
    }
    found
}

fn joined_field(exchange: &Exchange, id: FieldName, separator: &[u8], out: &mut Vec<u8>) -> bool {
    exchange.head.has(id) && join(exchange.head.fields.all(id), separator, out)
}

/// `$http_NAME`: dashes in the field's name are underscores in the variable's.
fn http_field(exchange: &mut Exchange, _: &mut Context, name: &[u8], out: &mut Vec<u8>) -> bool {
    let values = exchange.head.fields.iter().filter(|(_, field, _)| is_field(field, name));
    join(values.map(|(_, _, value)| value), b", ", out)
}

/// Whether `field` is the name that a variable's `name` (lower case) stands for.
pub fn is_field(field: &[u8], name: &[u8]) -> bool {
    field.len() == name.len()
        && field.iter().zip(name).all(|(&byte, &wanted)| match byte {
            b'-' => wanted == b'_',
            byte => byte.to_ascii_lowercase() == wanted,
        })
}

/// `$arg_NAME`: the first argument of this name, case ignored, as it stands in the query string.
fn argument(exchange: &mut Exchange, _: &mut Context, name: &[u8], out: &mut Vec<u8>) -> bool {
    if name.is_empty() {
        return false;
    }
    find_argument(&exchange.args, name).is_some_and(|value| text(out, value))
}

/// The first argument of this name in a query string, case ignored, as it stands there.
pub fn find_argument<'a>(args: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    args.split(|&byte| byte == b'&').find_map(|argument| {
        let (found, rest) = argument.split_at_checked(name.len())?;
        if found.eq_ignore_ascii_case(name) { rest.strip_prefix(b"=") } else { None }
    })
}

/// `$cookie_NAME`: the first cookie of this name, case ignored, in any of the Cookie lines.
fn cookie(exchange: &mut Exchange, _: &mut Context, name: &[u8], out: &mut Vec<u8>) -> bool {
    if !exchange.head.has(FieldName::Cookie) {
        return false;
    }
    let value = exchange.head.fields.all(FieldName::Cookie).find_map(|line| find_cookie(line, name));
    value.is_some_and(|value| text(out, value))
}

/// As nginx: cookies are divided by `;` alone, spaces before a name and around `=` are skipped, those behind a value
/// belong to it.
pub fn find_cookie<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    line.split(|&byte| byte == b';').find_map(|cookie| {
        let (found, rest) = skip_spaces(cookie).split_at_checked(name.len())?;
        if !found.eq_ignore_ascii_case(name) {
            return None;
        }
        skip_spaces(rest).strip_prefix(b"=").map(skip_spaces)
    })
}

fn skip_spaces(text: &[u8]) -> &[u8] {
    let spaces = text.iter().take_while(|&&byte| byte == b' ').count();
    &text[spaces..]
}

fn uri(exchange: &mut Exchange, _: &mut Context, out: &mut Vec<u8>) -> bool {
    present(out, &exchange.uri)
}

fn args(exchange: &mut Exchange, _: &mut Context, out: &mut Vec<u8>) -> bool {
    present(out, &exchange.args)
}

fn set_args(exchange: &mut Exchange, _: &mut Context, value: &[u8]) {
    exchange.args.clear();
    exchange.args.extend_from_slice(value);
    exchange.uri_is_original = false;
}

/// The host that the client named, else the server's first name.
fn host(exchange: &mut Exchange, context: &mut Context, out: &mut Vec<u8>) -> bool {
    match exchange.host() {
        b"" => server_name(exchange, context, out),
        host => text(out, host),
    }
}

fn server_name(exchange: &mut Exchange, context: &mut Context, out: &mut Vec<u8>) -> bool {
    text(out, &context.site.server(exchange.server).name)
}

fn request_port(exchange: &mut Exchange, _: &mut Context, out: &mut Vec<u8>) -> bool {
    if let Some(port) = exchange.head.host_port {
        append_decimal(out, port);
    }
    true
}

fn request_method(exchange: &mut Exchange, _: &mut Context, out: &mut Vec<u8>) -> bool {
    // A subrequest says that of the client's request, as in nginx.
    if exchange.lineage.map_or(exchange.method_is_get, |lineage| lineage.main_is_get) {
        return text(out, b"GET");
    }
    span(exchange, exchange.head.method_text, out)
}

/// Missing before a request line was read, and for HTTP/0.9, whose requests name no protocol.
fn server_protocol(exchange: &mut Exchange, _: &mut Context, out: &mut Vec<u8>) -> bool {
    let head = &exchange.head;
    let is_named = !head.target.is_empty() && head.version != Version::Http09;
    is_named && text(out, head.version.as_str().as_bytes())
}

fn content_length(exchange: &mut Exchange, _: &mut Context, out: &mut Vec<u8>) -> bool {
    if joined_field(exchange, FieldName::ContentLength, b", ", out) {
        return true;
    }
    // A body whose end the protocol marks has a length once it was read.
    match (&exchange.request_body, exchange.head.framing) {
        (RequestBody::Memory(body), RequestFraming::Streamed) => number(out, body.len() as u64),
        _ => false,
    }
}

/// Unlike nginx's it is not kept: asked for before the body was read, it has a value later all the same.
fn request_body(exchange: &mut Exchange, _: &mut Context, out: &mut Vec<u8>) -> bool {
    match &exchange.request_body {
        RequestBody::Memory(body) => present(out, body),
        RequestBody::Unread | RequestBody::File(_) => false,
    }
}

fn request_body_file(exchange: &mut Exchange, _: &mut Context, out: &mut Vec<u8>) -> bool {
    match &exchange.request_body {
        RequestBody::File(path) => text(out, path),
        RequestBody::Unread | RequestBody::Memory(_) => false,
    }
}

/// Bytes of the request: what the shell counted, and before that the head alone.
fn request_length(exchange: &mut Exchange, _: &mut Context, out: &mut Vec<u8>) -> bool {
    number(out, exchange.outcome.request_length.max(u64::from(exchange.head.wire_length)))
}

fn request_time(exchange: &mut Exchange, context: &mut Context, out: &mut Vec<u8>) -> bool {
    append_seconds(out, context.env.now.monotonic_ms.saturating_sub(exchange.started_ms));
    true
}

/// 128 random bits in hexadecimal; kept, so that every mention in a request shows the same.
fn request_id(_: &mut Exchange, context: &mut Context, out: &mut Vec<u8>) -> bool {
    for _ in 0..2 {
        let bytes = context.env.random.u64(..).to_be_bytes();
        for byte in bytes {
            out.extend_from_slice(&[HEX_LOWER[usize::from(byte >> 4)], HEX_LOWER[usize::from(byte & 15)]]);
        }
    }
    true
}

/// Appends the status with three digits: that of an error first, `000` while there is none.
pub fn append_status(exchange: &Exchange, out: &mut Vec<u8>) {
    let status = match exchange.error_status {
        Some(status) if status.0 != 0 => status.0,
        _ => exchange.response.status.0,
    };
    let status = if status == 0 && exchange.head.version == Version::Http09 { 9 } else { status };
    out.extend([status / 100 % 10, status / 10 % 10, status % 10].map(|digit| b'0' + digit as u8));
}

/// Appends the user of Basic credentials; `false` if there is none. CONNECT is for a proxy and has its own field.
pub fn append_remote_user(exchange: &Exchange, out: &mut Vec<u8>) -> bool {
    let id = match exchange.head.method {
        Method::Connect => FieldName::ProxyAuthorization,
        _ => FieldName::Authorization,
    };
    let Some(credentials) = exchange.head.field(id) else { return false };
    let Some((scheme, encoded)) = credentials.split_at_checked(6) else { return false };
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return false;
    }
    let start = out.len();
    if !base64::decode(out, skip_spaces(encoded)) {
        return false;
    }
    let user = memchr::memchr(b':', &out[start..]).unwrap_or(0);
    out.truncate(start + user);
    user > 0
}

/// The rate in force: assigned, else (while a response is sent) that of `limit_rate`.
fn limit_rate(exchange: &mut Exchange, context: &mut Context, out: &mut Vec<u8>) -> bool {
    if let Some(rate) = exchange.limit_rate {
        return number(out, rate);
    }
    let mut rate = 0;
    if exchange.outcome.bytes_sent > 0 {
        let site = context.site;
        let template = &site.settings(exchange.location).core.limit_rate;
        rate = exchange.with_rendered(template, context, |_, _, text| values::parse_size(text).unwrap_or(0));
    }
    number(out, rate)
}

fn set_limit_rate(exchange: &mut Exchange, context: &mut Context, value: &[u8]) {
    match values::parse_size(value) {
        Ok(rate) => exchange.limit_rate = Some(rate),
        Err(_) => {
            let value = String::from_utf8_lossy(value);
            exchange.log(context, Level::Error, format_args!("invalid $limit_rate \"{value}\""));
        }
    }
}

/// Appends `root` or `alias` of the request's location, made absolute.
pub fn append_document_root(exchange: &mut Exchange, context: &mut Context, out: &mut Vec<u8>) -> bool {
    let site = context.site;
    let root = &site.settings(exchange.location).core.root;
    let start = out.len();
    exchange.render(&root.template, context, out);
    if !root.is_absolute && out.get(start) != Some(&b'/') {
        out.splice(start..start, root.prefix.iter().copied());
    }
    true
}

/// The document root with symbolic links resolved, by the system at each use.
fn realpath_root(exchange: &mut Exchange, context: &mut Context, out: &mut Vec<u8>) -> bool {
    let mut root = context.env.scratch();
    append_document_root(exchange, context, &mut root);
    let start = out.len();
    let resolved = context.env.system.real_path(&root, out);
    let found = resolved.is_ok();
    if let Err(errno) = resolved {
        out.truncate(start);
        let error = std::io::Error::from_raw_os_error(errno).to_string();
        let reason = error.split(" (os error").next().unwrap_or(&error);
        let root = String::from_utf8_lossy(&root);
        exchange.log(context, Level::Crit, format_args!("realpath() \"{root}\" failed ({errno}: {reason})"));
    }
    context.env.give_back(root);
    found
}

/// The path that the present URI leads to, whatever path the request waits for.
fn request_filename(exchange: &mut Exchange, context: &mut Context, out: &mut Vec<u8>) -> bool {
    let spare = context.env.scratch();
    let path = std::mem::replace(&mut exchange.path, spare);
    let root_length = exchange.root_length;
    let is_mapped = exchange.map_uri_to_path(context).is_ok();
    if is_mapped {
        out.extend_from_slice(&exchange.path);
    }
    let used = std::mem::replace(&mut exchange.path, path);
    exchange.root_length = root_length;
    context.env.give_back(used);
    is_mapped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_divided_by_semicolons_alone() {
        let line = b"b=1, a=2; A =  3 ;c;d=;e=x y ";
        assert_eq!(find_cookie(line, b"a"), Some(&b"3 "[..]));
        assert_eq!(find_cookie(line, b"b"), Some(&b"1, a=2"[..]));
        assert_eq!(find_cookie(line, b"c"), None);
        assert_eq!(find_cookie(line, b"d"), Some(&b""[..]));
        assert_eq!(find_cookie(line, b"e"), Some(&b"x y "[..]));
        assert_eq!(find_cookie(b"", b"a"), None);
        assert_eq!(find_cookie(b"ab=1", b"a"), None);
    }

    #[test]
    fn dashes_of_field_names_are_underscores_of_variables() {
        assert!(is_field(b"X-Real_IP", b"x_real_ip"));
        assert!(!is_field(b"X-Real-I", b"x_real_ip"));
        assert!(!is_field(b"xareal", b"x_real"));
    }
}
