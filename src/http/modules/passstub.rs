//! stub
use std::sync::Arc;
use crate::conf::directive::{Arity, Call as DirectiveCall, Complaint};
use crate::http::body::Body;
use crate::http::build::Scope;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::flow::{Answer, Flow, Need};
use crate::http::settings::contexts::LOCATION;
use crate::http::settings::settings;
use crate::http::upstream_call::*;
settings! {
    module passstub;
    values {
        /// x
        pass: Option<PassId> = None, own;
    }
    fields {
    }
    plain {
        /// stub.
        "proxy_pass" LOCATION, Arity::exactly(1), default "", set;
    }
}
fn set(scope: &mut Scope, call: &DirectiveCall) -> Result<(), Complaint> {
    let text = call.arg(0).as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
    let (host, port) = text.split_once(':').unwrap();
    let id = scope.builder.pass(PassAddress::Host { host: host.as_bytes().into(), port: port.parse().ok(), default_port: 80 });
    scope.drafts.passstub.get_or_insert_default().pass = Some(Some(id));
    scope.drafts.core.get_or_insert_default().handler = Some(Some(handle));
    Ok(())
}
pub fn handle(exchange: &mut Exchange, context: &mut Context, answer: Option<Answer>) -> Flow {
    let site = context.site;
    let settings = site.settings(exchange.location);
    match answer {
        None => {
            return Flow::Need(Need::RequestBody);
        }
        Some(Answer::RequestBody(Err(status))) => return Flow::Status(status),
        Some(Answer::RequestBody(Ok(()))) => {}
        Some(Answer::Upstream(Err(failure))) => return Flow::Status(failure.status),
        Some(Answer::Upstream(Ok(()))) => {
            let passed = exchange.upstream.as_ref().unwrap();
            exchange.response.status = passed.response.status;
            if let Some(length) = passed.length { exchange.response.set_content_length(length); }
            for (_, name, value) in passed.response.fields.iter() {
                if name.eq_ignore_ascii_case(b"connection") || name.eq_ignore_ascii_case(b"transfer-encoding") || name.eq_ignore_ascii_case(b"content-length") || name.eq_ignore_ascii_case(b"date") { continue; }
                exchange.response.fields.push(name, value);
            }
            exchange.body = Body::Upstream(passed.length);
            return Flow::Respond;
        }
        _ => return Flow::Next,
    }
    let conduct = Arc::new(Conduct { connect_timeout: 60000, send_timeout: 60000, read_timeout: 60000, next_upstream: 3, next_upstream_tries: 0, next_upstream_timeout: 0, buffer_size: 4096, buffers_bytes: 32768, busy_bytes: 8192, max_temp_file_size: 1<<30, temp_file_write_size: 8192, temp_path: settings.request_body.temp_path.clone(), socket_keepalive: false, socket_rcvbuf: 0, socket_sndbuf: 0, send_lowat: 0, ignore_client_abort: false, store_access: 0o600 });
    let body_len = match &exchange.request_body { crate::http::exchange::RequestBody::Memory(bytes) => bytes.len(), _ => 0 };
    let mut head = Vec::new();
    head.extend_from_slice(format!("{} ", exchange.head.method_text_stub()).as_bytes());
    head.extend_from_slice(exchange.head.fields.get(exchange.head.target));
    head.extend_from_slice(b" HTTP/1.1\r\nHost: x\r\n");
    if body_len > 0 { head.extend_from_slice(format!("Content-Length: {body_len}\r\n").as_bytes()); }
    let up = exchange.head.fields.named(b"upgrade").next().is_some();
    if up { head.extend_from_slice(b"Upgrade: x\r\nConnection: upgrade\r\n"); }
    head.extend_from_slice(b"\r\n");
    let is_head_stub = exchange.is_head();
    let passed = exchange.upstream.get_or_insert_default();
    passed.call = Some(Call { target: Target::Fixed(settings.passstub.pass.unwrap()), conduct, protocol: Protocol::Http1, head, body: if body_len > 0 { CallBody::Read } else { CallBody::None }, is_head: is_head_stub, asks_upgrade: up, idempotent: true, keep_alive: true, buffering: true, early_hints: true, pass_trailers: false, limit_rate: 0, local_address: None, store: None, hash_key: Vec::new(), sticky: Vec::new() });
    Flow::Need(Need::Upstream)
}
impl crate::message::RequestHead { fn method_text_stub(&self) -> &'static str { match self.method { crate::message::Method::Post => "POST", crate::message::Method::Head => "HEAD", _ => "GET" } } }
