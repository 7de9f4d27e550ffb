//! The log phase: the lines of the access logs, rendered straight into the worker's queue.

use std::sync::Arc;

use crate::base::ascii::append_decimal;
use crate::base::clock::RenderedDates;
use crate::base::level::Level;
use crate::base::log::SinkId;
use crate::base::percent::{escape_json, escape_json_text, escape_log};
use crate::conf::template::{Part, Template, VariableId};
use crate::message::FieldName;

use super::access_queue::PathLine;
use super::context::{Context, Env};
use super::exchange::Exchange;
use super::modules::{connection_variables, core_variables};
use super::upstream_log;
use super::variables::is_true;

/// `access_log`s of one scope.
#[derive(Clone, Default)]
pub struct AccessLogs {
    /// `access_log off` stands among them: nothing is logged.
    pub is_off: bool,
    /// In order.
    pub list: Arc<[AccessLog]>,
}

/// One `access_log`.
#[derive(Clone)]
pub struct AccessLog {
    /// Where its lines go.
    pub destination: Destination,
    /// Their form.
    pub format: Arc<LogFormat>,
    /// `if=`: lines are written where this is neither empty nor `0`.
    pub condition: Option<Template>,
}

/// Where lines of an access log go.
#[derive(Clone, Debug)]
pub enum Destination {
    /// A sink of the site's list.
    Sink(SinkId),
    /// A file whose path has variables, opened for each line unless `open_log_file_cache` keeps it.
    Path(Template),
}

/// How values are escaped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogEscape {
    /// `"`, `\`, control bytes and those from 0x7F as `\xXX`; `-` for a missing value.
    #[default]
    Default,
    /// As within JSON strings; nothing for a missing value.
    Json,
    /// Not at all; nothing for a missing value.
    None,
}

/// A part of a `log_format`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormatPart {
    /// Text as it stands, never escaped.
    Literal(Box<[u8]>),
    /// A variable's value, escaped.
    Variable(VariableId),
}

/// What a value of the built-in `json` format is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonKind {
    /// A string, or null.
    Text,
    /// A number, or null.
    Number,
}

/// A form of access log lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// nginx's own, written without a detour through variables.
    Combined,
    /// Ours: one JSON object a line, which always parses.
    Json(Box<[(&'static str, VariableId, JsonKind)]>),
    /// A `log_format`.
    Custom(Box<[FormatPart]>, LogEscape),
}

/// Keys of the built-in `json` format with the variables that they come from.
pub const JSON_FIELDS: &[(&str, &str, JsonKind)] = &[
    ("time", "time_iso8601", JsonKind::Text),
    ("msec", "msec", JsonKind::Number),
    ("remote_addr", "remote_addr", JsonKind::Text),
    ("remote_user", "remote_user", JsonKind::Text),
    ("request", "request", JsonKind::Text),
    ("method", "request_method", JsonKind::Text),
    ("scheme", "scheme", JsonKind::Text),
    ("host", "host", JsonKind::Text),
    ("uri", "request_uri", JsonKind::Text),
    ("protocol", "server_protocol", JsonKind::Text),
    ("status", "status", JsonKind::Number),
    ("body_bytes_sent", "body_bytes_sent", JsonKind::Number),
    ("bytes_sent", "bytes_sent", JsonKind::Number),
    ("request_length", "request_length", JsonKind::Number),
    ("request_time", "request_time", JsonKind::Number),
    ("referer", "http_referer", JsonKind::Text),
    ("user_agent", "http_user_agent", JsonKind::Text),
    ("x_forwarded_for", "http_x_forwarded_for", JsonKind::Text),
    ("request_id", "request_id", JsonKind::Text),
    ("server_name", "server_name", JsonKind::Text),
    ("connection", "connection", JsonKind::Number),
    ("connection_requests", "connection_requests", JsonKind::Number),
];

impl Exchange {
    /// The log phase: one line for each access log of the request's scope whose condition holds. Call it once, when
    /// [`Exchange::outcome`] is final. Allocates nothing once the queue's buffers have grown.
    pub fn log_access(&mut self, env: &mut Env) {
        if !self.is_logged() {
            return;
        }
        let site = self.site.clone();
        let logs = site.settings(self.location).log.access.as_ref().unwrap_or(&site.access_log);
        if logs.is_off {
            return;
        }
        let mut context = Context { site: &site, env };
        for log in &*logs.list {
            if let Some(condition) = &log.condition
                && !self.with_rendered(condition, &mut context, |_, _, text| is_true(text))
            {
                continue;
            }
            match &log.destination {
                Destination::Sink(sink) => {
                    let mut text = context.env.access.begin_line(*sink);
                    self.append_line(&log.format, &mut context, &mut text);
                    text.push(b'\n');
                    context.env.access.end_line(*sink, text);
                }
                Destination::Path(template) => self.log_to_path(template, &log.format, &mut context),
            }
        }
    }

    fn log_to_path(&mut self, template: &Template, format: &LogFormat, context: &mut Context) {
        let (mut path, mut root, mut line) = (Vec::new(), Vec::new(), Vec::new());
        core_variables::append_document_root(self, context, &mut root);
        self.render(template, context, &mut path);
        if climbs(template, &path) {
            let shown = String::from_utf8_lossy(&path);
            self.log(
                context,
                Level::Error,
                format_args!("request leads out of the folder of \"{shown}\", not logged"),
            );
            return;
        }
        self.append_line(format, context, &mut line);
        let cache = context.site.settings(self.location).log.open_file_cache.clone();
        context.env.access.push_path(PathLine { path, root, cache, line });
    }

    fn append_line(&mut self, format: &LogFormat, context: &mut Context, out: &mut Vec<u8>) {
        match format {
            LogFormat::Combined => append_combined(self, &context.env.dates, out),
            LogFormat::Json(fields) => append_json(self, context, fields, out),
            LogFormat::Custom(parts, escape) => append_custom(self, context, parts, *escape, out),
        }
    }
}

/// Whether a variable put a `..` into the path, so that a client would choose the folder of its log.
fn climbs(template: &Template, path: &[u8]) -> bool {
    let climbing = |text: &[u8]| text.split(|byte| *byte == b'/').filter(|segment| *segment == b"..").count();
    let configured: usize = template
        .parts()
        .iter()
        .map(|part| match part {
            Part::Literal(text) => climbing(text),
            _ => 0,
        })
        .sum();
    climbing(path) > configured
}

/// `$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer"
/// "$http_user_agent"`.
fn append_combined(exchange: &Exchange, dates: &RenderedDates, out: &mut Vec<u8>) {
    connection_variables::append_peer(exchange, out);
    out.extend_from_slice(b" - ");
    append_escaped_user(exchange, out);
    out.extend_from_slice(b" [");
    out.extend_from_slice(dates.local());
    out.extend_from_slice(b"] \"");
    let head = &exchange.head;
    match head.text(head.request_line) {
        b"" => out.push(b'-'),
        line => escape_log(out, line),
    }
    out.extend_from_slice(b"\" ");
    core_variables::append_status(exchange, out);
    out.push(b' ');
    append_decimal(out, exchange.outcome.body_bytes_sent);
    out.extend_from_slice(b" \"");
    append_escaped_field(exchange, FieldName::Referer, out);
    out.extend_from_slice(b"\" \"");
    append_escaped_field(exchange, FieldName::UserAgent, out);
    out.push(b'"');
}

fn append_escaped_user(exchange: &Exchange, out: &mut Vec<u8>) {
    let start = out.len();
    if core_variables::append_remote_user(exchange, out) {
        if LogEscape::Default.changes(&out[start..]) {
            let user = out.split_off(start);
            escape_log(out, &user);
        }
    } else {
        out.push(b'-');
    }
}

fn append_escaped_field(exchange: &Exchange, id: FieldName, out: &mut Vec<u8>) {
    let head = &exchange.head;
    if !head.has(id) {
        out.push(b'-');
        return;
    }
    for (index, value) in head.fields.all(id).enumerate() {
        if index > 0 {
            out.extend_from_slice(b", ");
        }
        escape_log(out, value);
    }
}

impl LogEscape {
    /// Whether a value with this text is not written as it stands.
    fn changes(self, text: &[u8]) -> bool {
        let quoted = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
        match self {
            LogEscape::Default => text.iter().any(|&byte| quoted(byte) || byte >= 0x7f),
            LogEscape::Json => text.iter().any(|&byte| quoted(byte)),
            LogEscape::None => false,
        }
    }
}

fn append_custom(
    exchange: &mut Exchange,
    context: &mut Context,
    parts: &[FormatPart],
    escape: LogEscape,
    out: &mut Vec<u8>,
) {
    for part in parts {
        let id = match part {
            FormatPart::Literal(text) => {
                out.extend_from_slice(text);
                continue;
            }
            FormatPart::Variable(id) => *id,
        };
        let start = out.len();
        if !exchange.variable(id, context, out) {
            out.truncate(start);
            if escape == LogEscape::Default {
                out.push(b'-');
            }
        } else if escape.changes(&out[start..]) {
            let mut raw = context.env.scratch();
            raw.extend_from_slice(&out[start..]);
            out.truncate(start);
            match escape {
                LogEscape::Default => escape_log(out, &raw),
                LogEscape::Json => escape_json(out, &raw),
                LogEscape::None => {}
            }
            context.env.give_back(raw);
        }
    }
}

fn append_json(
    exchange: &mut Exchange,
    context: &mut Context,
    fields: &[(&'static str, VariableId, JsonKind)],
    out: &mut Vec<u8>,
) {
    let mut value = context.env.scratch();
    for (index, (key, id, kind)) in fields.iter().enumerate() {
        out.push(if index == 0 { b'{' } else { b',' });
        out.push(b'"');
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(b"\":");
        value.clear();
        match (exchange.variable(*id, context, &mut value), kind) {
            (false, _) => out.extend_from_slice(b"null"),
            (true, JsonKind::Text) => {
                out.push(b'"');
                escape_json_text(out, &value);
                out.push(b'"');
            }
            (true, JsonKind::Number) => append_json_number(&value, out),
        }
    }
    upstream_log::append_json(exchange, out);
    out.push(b'}');
    context.env.give_back(value);
}

/// Appends decimal text as JSON takes it: without leading zeros (a status that never came about is `000`). What is no
/// decimal number is null.
fn append_json_number(text: &[u8], out: &mut Vec<u8>) {
    let mut halves = text.splitn(2, |&byte| byte == b'.');
    let is_number = halves.all(|half| !half.is_empty() && half.iter().all(u8::is_ascii_digit));
    if !is_number {
        out.extend_from_slice(b"null");
        return;
    }
    let zeros = text.iter().take_while(|&&byte| byte == b'0').count();
    let rest = &text[zeros..];
    if rest.first().is_none_or(|byte| *byte == b'.') {
        out.push(b'0');
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_numbers_have_no_leading_zeros_and_are_numbers() {
        for (text, number) in [
            ("000", "0"),
            ("0", "0"),
            ("200", "200"),
            ("0.005", "0.005"),
            ("00.5", "0.5"),
            ("1774000000.123", "1774000000.123"),
            ("", "null"),
            ("-", "null"),
            ("1.", "null"),
            (".5", "null"),
            ("1.2.3", "null"),
        ] {
            let mut out = Vec::new();
            append_json_number(text.as_bytes(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), number, "{text}");
        }
    }
}
