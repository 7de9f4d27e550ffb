//! The request as it goes to an upstream.
//!
//! Order of its field lines: Host, what `proxy_set_header` sets, Connection and Upgrade, the framing of the body, the
//! client's lines in their order. What the client sends decides on none but the last: names are tokens, values hold no
//! line ends, and the framing is that of the body that follows, so that one request of a client is one to the upstream.

use std::sync::Arc;

use crate::base::ascii::starts_with_ignore_case;
use crate::base::base64;
use crate::base::level::Level;
use crate::conf::values;
use crate::http::context::Context;
use crate::http::exchange::{Exchange, RequestBody};
use crate::http::upstream_call::{Call, CallBody, FramedHead, PassModule, Protocol};
use crate::message::{FieldName, Method, RequestFraming, Status, Version};
use crate::proto::h1::{RequestWriteError, RequestWriter};

use super::directives::{HttpVersion, Store};
use super::framed::{self, HeadWriter};
use super::handler::{leaves_body, refuse, streams_body, wants_early_hints};
use super::headers::{is_nominated, is_usual_member, members};
use super::target::{self, Pass};
use super::Settings;

/// More names than this in a client's Connection fields are refused: each is compared with every field.
const MOST_NOMINATED: usize = 32;

/// Fills in [`Exchange::upstream`]'s call for the request.
///
/// # Errors
/// What to answer instead; it was logged.
pub fn prepare(settings: &Settings, exchange: &mut Exchange, context: &mut Context) -> Result<(), Status> {
    let Some(pass) = &settings.pass else { return Err(Status::INTERNAL_SERVER_ERROR) };
    let mut uri = context.env.scratch();
    let result = prepare_for(exchange, context, settings, pass, &mut uri);
    context.env.give_back(uri);
    result
}

fn prepare_for(
    exchange: &mut Exchange,
    context: &mut Context,
    settings: &Settings,
    pass: &Pass,
    uri: &mut Vec<u8>,
) -> Result<(), Status> {
    let destination = target::choose(exchange, context, pass, settings.module, uri)?;
    let (body, framing) = choose_body(exchange, context, settings);
    let local_address = settings.bind.as_ref().and_then(|bind| bind.address(exchange, context));
    let early_hints = wants_early_hints(exchange, context, settings);
    let limit_rate = match settings.limit_rate.is_empty() {
        true => 0,
        false => exchange.with_rendered(&settings.limit_rate, context, |_, _, text| {
            values::parse_size(text).unwrap_or(0)
        }),
    };
    let store = store_path(exchange, context, settings);
    let is_framed = settings.http_version == HttpVersion::Http2;
    let passed = exchange.upstream.get_or_insert_default();
    let head = passed.begin_call();
    passed.computed = destination.computed;
    // The call stands before the head is written: `$proxy_host` and its like look at it.
    passed.call = Some(Call {
        target: destination.target,
        conduct: Arc::clone(&settings.conduct),
        protocol: if is_framed { Protocol::Http2 } else { Protocol::Http1 },
        tls: None,
        module: settings.module,
        head,
        framed: None,
        body,
        is_head: false,
        asks_upgrade: false,
        idempotent: false,
        keep_alive: false,
        buffering: settings.buffering,
        early_hints,
        pass_trailers: settings.pass_trailers,
        limit_rate,
        local_address,
        store,
        hash_key: Vec::new(),
        sticky: Vec::new(),
    });
    if let Some(host) = destination.secure_host {
        let site = context.site.settings(exchange.location);
        let ssl = match settings.module {
            PassModule::Proxy => &site.proxy_ssl,
            PassModule::Grpc => &site.grpc_ssl.ssl,
        };
        let tls = ssl.call(exchange, context, &host, is_framed)?;
        if let Some(call) = exchange.upstream.as_mut().and_then(|passed| passed.call.as_mut()) {
            call.tls = Some(tls);
        }
    }
    let mut head = exchange.take_call_head();
    let spare = exchange.upstream.as_mut().and_then(|passed| passed.spare_framed.take());
    let mut framed = is_framed.then(|| spare.unwrap_or_default());
    let written = match &mut framed {
        None => write_head(exchange, context, settings, uri, framing, &mut head),
        Some(framed) => frame_head(exchange, context, settings, uri, framing, framed),
    };
    let Some(call) = exchange.upstream.as_mut().and_then(|passed| passed.call.as_mut()) else {
        return Err(Status::INTERNAL_SERVER_ERROR);
    };
    call.head = head;
    call.framed = framed;
    let written = written?;
    call.is_head = written.method_is_head;
    call.idempotent = written.idempotent;
    call.asks_upgrade = written.asks_upgrade;
    call.keep_alive = written.keep_alive;
    if written.method_is_head {
        call.store = None;
    }
    Ok(())
}

impl Exchange {
    fn take_call_head(&mut self) -> Vec<u8> {
        let call = self.upstream.as_mut().and_then(|passed| passed.call.as_mut());
        call.map(|call| std::mem::take(&mut call.head)).unwrap_or_default()
    }
}

/// The body to send and how it is framed.
fn choose_body(
    exchange: &mut Exchange,
    context: &mut Context,
    settings: &Settings,
) -> (CallBody, RequestFraming) {
    if let Some(template) = &settings.set_body {
        let mut bytes = Vec::new();
        exchange.render(template, context, &mut bytes);
        let framing = RequestFraming::Length(bytes.len() as u64);
        return (if bytes.is_empty() { CallBody::None } else { CallBody::Bytes(bytes) }, framing);
    }
    // A client that spoke of a body, be it an empty one, is understood to do so here too.
    let announced = exchange.head.framing != RequestFraming::None
        || exchange.head.has(FieldName::ContentLength) && !exchange.method_is_get;
    let none = if announced { RequestFraming::Length(0) } else { RequestFraming::None };
    if !settings.pass_request_body || leaves_body(exchange) {
        return (CallBody::None, none);
    }
    if streams_body(exchange, settings) {
        let framing = exchange.head.framing;
        // HTTP/2 marks the end by itself.
        let chunked =
            framing == RequestFraming::Streamed && settings.http_version != HttpVersion::Http2;
        return (CallBody::Streamed { chunked }, framing);
    }
    match &exchange.request_body {
        RequestBody::Unread => (CallBody::None, none),
        RequestBody::Memory(bytes) if bytes.is_empty() => (CallBody::None, none),
        RequestBody::Memory(bytes) => (CallBody::Read, RequestFraming::Length(bytes.len() as u64)),
        RequestBody::File(_) => (CallBody::Read, RequestFraming::Length(exchange.request_body_length)),
    }
}

/// What the head that was written says.
struct Written {
    method_is_head: bool,
    idempotent: bool,
    asks_upgrade: bool,
    keep_alive: bool,
}

fn write_head(
    exchange: &mut Exchange,
    context: &mut Context,
    settings: &Settings,
    uri: &[u8],
    framing: RequestFraming,
    out: &mut Vec<u8>,
) -> Result<Written, Status> {
    let nominates = check_nominated(exchange, context)?;
    let mut value = context.env.scratch();
    append_method(exchange, context, settings, &mut value);
    let method = Method::of(&value);
    let version = settings.http_version.version();
    let mut upgrade = Upgrade::default();
    let written = RequestWriter::begin(out, &value, uri, version).and_then(|mut writer| {
        write_set_lines(exchange, context, settings, &mut writer, &mut value)?;
        upgrade = write_connection(exchange, context, settings, &mut writer, &mut value)?;
        writer.framing(framing)?;
        if settings.pass_request_headers {
            write_client_lines(exchange, settings, nominates, &mut writer, &mut value)?;
        }
        writer.finish();
        Ok(())
    });
    context.env.give_back(value);
    written.map_err(|error| refuse(exchange, context, &error))?;
    Ok(Written {
        method_is_head: method == Method::Head,
        idempotent: method.is_idempotent(),
        asks_upgrade: upgrade.asked,
        keep_alive: upgrade.keep_alive,
    })
}

/// The same for HTTP/2, which has no line for Connection, and one of its own for the host.
fn frame_head(
    exchange: &mut Exchange,
    context: &mut Context,
    settings: &Settings,
    uri: &[u8],
    framing: RequestFraming,
    head: &mut FramedHead,
) -> Result<Written, Status> {
    let nominates = check_nominated(exchange, context)?;
    let mut value = context.env.scratch();
    append_method(exchange, context, settings, &mut value);
    let method = Method::of(&value);
    head.websocket = method == Method::Get && asks_websocket(exchange, context, settings);
    head.secure = exchange.upstream.as_ref().is_some_and(|passed| {
        passed.call.as_ref().is_some_and(|call| call.tls.is_some())
    });
    let written = framed::begin(head, &value, uri, framing).and_then(|()| {
        write_set_lines(exchange, context, settings, head, &mut value)?;
        if settings.pass_trailers && takes_trailers(exchange) {
            head.put(b"te", b"trailers")?;
        }
        if settings.pass_request_headers {
            write_client_lines(exchange, settings, nominates, head, &mut value)?;
        }
        Ok(())
    });
    context.env.give_back(value);
    written.map_err(|error| refuse(exchange, context, &error))?;
    if head.websocket {
        // HTTP/2 has no use for it (RFC 8441 section 5); the answer to it is made here.
        head.fields.retain(|_, name| !name.eq_ignore_ascii_case(b"sec-websocket-key"));
        head.framing = RequestFraming::Streamed;
    }
    Ok(Written {
        method_is_head: method == Method::Head,
        idempotent: method.is_idempotent(),
        asks_upgrade: head.websocket,
        keep_alive: true,
    })
}

/// Whether a WebSocket goes on over HTTP/2, which knows no other upgrade: as the configuration says, else by itself.
fn asks_websocket(exchange: &mut Exchange, context: &mut Context, settings: &Settings) -> bool {
    let is_websocket = |value: &[u8]| value.eq_ignore_ascii_case(b"websocket");
    if settings.module != PassModule::Proxy
        || exchange.head.framing != RequestFraming::None
        || !client_asks_upgrade(exchange)
        || !members(exchange.head.fields.all(FieldName::Upgrade)).all(is_websocket)
    {
        return false;
    }
    match (&settings.head_plan.upgrade, &settings.head_plan.connection) {
        (None, None) => passes_by_itself(exchange, context),
        (Some(upgrade), Some(connection)) => {
            exchange.with_rendered(upgrade, context, |_, _, text| is_websocket(text))
                && exchange.with_rendered(connection, context, |_, _, text| {
                    members(std::iter::once(text)).any(|word| word.eq_ignore_ascii_case(b"upgrade"))
                })
        }
        _ => false,
    }
}

/// Whether the client has said that it understands trailers (RFC 9110 section 6.5.1).
fn takes_trailers(exchange: &Exchange) -> bool {
    members(exchange.head.fields.all(FieldName::Te)).any(|word| word.eq_ignore_ascii_case(b"trailers"))
}

/// Whether the client's Connection names fields of its own.
///
/// # Errors
/// 400 if it names too many.
fn check_nominated(exchange: &Exchange, context: &mut Context) -> Result<bool, Status> {
    if !exchange.head.has(FieldName::Connection) {
        return Ok(false);
    }
    let values = exchange.head.fields.all(FieldName::Connection);
    let count = members(values).filter(|member| !is_usual_member(member)).count();
    if count > MOST_NOMINATED {
        let message = format_args!("client sent more than {MOST_NOMINATED} names in \"Connection\"");
        exchange.log(context, Level::Info, message);
        return Err(Status::BAD_REQUEST);
    }
    Ok(count > 0)
}

fn append_method(exchange: &mut Exchange, context: &mut Context, settings: &Settings, out: &mut Vec<u8>) {
    if let Some(template) = &settings.method {
        exchange.render(template, context, out);
        if !out.is_empty() {
            return;
        }
    }
    let head = &exchange.head;
    out.extend_from_slice(if exchange.method_is_get { b"GET" } else { head.text(head.method_text) });
}

type Outcome<T> = Result<T, RequestWriteError>;

/// Host, and what `proxy_set_header` sets.
fn write_set_lines(
    exchange: &mut Exchange,
    context: &mut Context,
    settings: &Settings,
    writer: &mut impl HeadWriter,
    value: &mut Vec<u8>,
) -> Outcome<()> {
    let plan = &settings.head_plan;
    value.clear();
    if let Some(template) = &plan.host {
        exchange.render(template, context, value);
    }
    // A request of HTTP/1.1 without it is refused (RFC 9112 section 3.2), whatever the configuration says.
    let may_lack = plan.host.is_some() && settings.http_version == HttpVersion::Http10;
    if value.is_empty() && !may_lack {
        super::variables::append_host(exchange, context, value);
    }
    if !value.is_empty() {
        put(writer, b"Host", value)?;
    }
    for line in &plan.lines {
        value.clear();
        exchange.render(&line.value, context, value);
        if !value.is_empty() {
            put(writer, &line.name, value)?;
        }
    }
    Ok(())
}

/// What the request's Connection and Upgrade come to.
#[derive(Default)]
struct Upgrade {
    /// Both ask for another protocol, as the client did.
    asked: bool,
    /// The connection may be kept for another request.
    keep_alive: bool,
}

/// Connection and Upgrade: as the configuration says, else an upgrade that the client asks for goes on by itself.
fn write_connection(
    exchange: &mut Exchange,
    context: &mut Context,
    settings: &Settings,
    writer: &mut RequestWriter<'_>,
    value: &mut Vec<u8>,
) -> Outcome<Upgrade> {
    let plan = &settings.head_plan;
    let client_asks = client_asks_upgrade(exchange) && settings.http_version == HttpVersion::Http11;
    value.clear();
    match &plan.upgrade {
        Some(template) => exchange.render(template, context, value),
        None if client_asks && plan.connection.is_none() && passes_by_itself(exchange, context) => {
            append_joined(exchange, FieldName::Upgrade, value);
        }
        None => {}
    }
    let has_upgrade = !value.is_empty();
    if has_upgrade {
        put(writer, b"Upgrade", value)?;
    }
    value.clear();
    match &plan.connection {
        Some(template) => exchange.render(template, context, value),
        None if has_upgrade && client_asks => value.extend_from_slice(b"upgrade"),
        None => {}
    }
    let says = |wanted: &[u8]| members(std::iter::once(&value[..])).any(|word| word.eq_ignore_ascii_case(wanted));
    let keep_alive = match settings.http_version {
        HttpVersion::Http11 | HttpVersion::Http2 => !says(b"close"),
        HttpVersion::Http10 => says(b"keep-alive"),
    };
    let asked = client_asks && has_upgrade && says(b"upgrade");
    if !value.is_empty() {
        put(writer, b"Connection", value)?;
    }
    let has_key = || exchange.head.fields.iter().any(|(_, name, _)| name.eq_ignore_ascii_case(b"sec-websocket-key"));
    if asked && exchange.head.version == Version::Http2 && !has_key() {
        // HTTP/1 wants a key that HTTP/2 has no use for (RFC 8441 section 5, RFC 6455 section 4.1).
        value.clear();
        let key: [u8; 16] = std::array::from_fn(|_| context.env.random.u8(..));
        base64::encode(value, &key);
        put(writer, b"Sec-WebSocket-Key", value)?;
    }
    Ok(Upgrade { asked, keep_alive })
}

/// Whether the client asks for another protocol in a way that it will understand the answer (RFC 9110 section 7.8).
fn client_asks_upgrade(exchange: &Exchange) -> bool {
    // Over HTTP/2 these fields cannot come from a client: its extended CONNECT was read into them (RFC 8441).
    matches!(exchange.head.version, Version::Http11 | Version::Http2)
        && exchange.head.has(FieldName::Upgrade)
        && members(exchange.head.fields.all(FieldName::Connection))
            .any(|member| member.eq_ignore_ascii_case(b"upgrade"))
}

/// Whether an upgrade goes on without being configured. Not one to another version of HTTP: in such a tunnel requests
/// would pass that no rule of ours has seen.
fn passes_by_itself(exchange: &Exchange, context: &Context) -> bool {
    let is_http = |protocol: &[u8]| {
        [&b"h2"[..], b"h3", b"http", b"tls"].iter().any(|name| starts_with_ignore_case(protocol, name))
    };
    !context.site.settings(exchange.location).core.strict
        && !members(exchange.head.fields.all(FieldName::Upgrade)).any(is_http)
}

fn append_joined(exchange: &Exchange, id: FieldName, out: &mut Vec<u8>) {
    for (index, value) in exchange.head.fields.all(id).enumerate() {
        if index > 0 {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(value);
    }
}

/// The client's own lines that go on: all but those between the client and us, those that its Connection names, and
/// those that the configuration sets.
fn write_client_lines(
    exchange: &Exchange,
    settings: &Settings,
    nominates: bool,
    writer: &mut impl HeadWriter,
    spare: &mut Vec<u8>,
) -> Outcome<()> {
    let dropped = &settings.head_plan.dropped;
    let fields = &exchange.head.fields;
    for (field, name, value) in fields.iter() {
        if dropped.contains(field.id, name) {
            continue;
        }
        if nominates && is_nominated(fields, name) {
            continue;
        }
        match writer.put(name, value) {
            // Names that are none pass the reader with `ignore_invalid_headers off`; they end here.
            Err(RequestWriteError::Name) => {}
            Err(RequestWriteError::Value) => {
                spare.clear();
                spare.extend_from_slice(value);
                put(writer, name, spare)?;
            }
            other => other?,
        }
    }
    Ok(())
}

/// Writes a line whose value may come from a request: line ends and NUL become spaces.
fn put(writer: &mut impl HeadWriter, name: &[u8], value: &mut [u8]) -> Outcome<()> {
    if memchr::memchr3(b'\r', b'\n', 0, value).is_some() {
        for byte in value.iter_mut().filter(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            *byte = b' ';
        }
    }
    writer.put(name, value)
}

/// The file that a successful response is kept in.
fn store_path(exchange: &mut Exchange, context: &mut Context, settings: &Settings) -> Option<Vec<u8>> {
    let mut path = Vec::new();
    match &settings.store {
        Store::Off => return None,
        Store::On => {
            let spare = std::mem::take(&mut exchange.path);
            let root_length = exchange.root_length;
            let is_mapped = exchange.map_uri_to_path(context).is_ok();
            path = std::mem::replace(&mut exchange.path, spare);
            exchange.root_length = root_length;
            if !is_mapped {
                return None;
            }
        }
        Store::Path(template) => exchange.render(template, context, &mut path),
    }
    let climbs = path.split(|byte| *byte == b'/').any(|segment| segment == b"..");
    if climbs || path.ends_with(b"/") || memchr::memchr(0, &path).is_some() {
        let shown = String::from_utf8_lossy(&path);
        exchange.log(context, Level::Error, format_args!("\"{shown}\" is no file to store a response in"));
        return None;
    }
    Some(path)
}
