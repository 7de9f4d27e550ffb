//! The relay's part in these tests: what upstreams say is scripted, and read by the real machines.

use crate::http::exchange::{Exchange, RequestBody};
use crate::http::upstream_call::{Attempt, Call, CallBody, Passed, Protocol, Target, UpstreamFailure};
use crate::message::{ResponseFraming, Status};
use crate::proto::h1::{Asked, ResponseEvent, ResponseLimits, ResponseReader};
use crate::proto::memcached::{MemcachedEvent, MemcachedReader};

use super::World;

/// What an upstream says.
pub enum Upstream {
    /// A whole response, as it comes by wire.
    Response(Vec<u8>),
    /// Nothing of use.
    Failure(UpstreamFailure),
}

/// A request as an upstream gets it.
#[derive(Debug)]
pub struct PassedOn {
    /// The call, without its head.
    pub call: Call,
    /// Its head.
    pub head: String,
    /// The body behind it; of one that streams, nothing.
    pub body: String,
}

impl PassedOn {
    /// The lines of the head but the first.
    pub fn lines(&self) -> Vec<&str> {
        self.head.trim_end_matches("\r\n").split("\r\n").skip(1).collect()
    }

    /// The first line.
    pub fn request_line(&self) -> &str {
        self.head.split("\r\n").next().unwrap_or("")
    }
}

impl World {
    /// What the next upstream answers, as it comes by wire.
    pub fn upstream(&mut self, response: &str) -> &mut World {
        self.answers.push_back(Upstream::Response(response.into()));
        self
    }

    /// Makes the next request that is passed on fail.
    pub fn upstream_fails(&mut self, token: &'static str, status: u16) -> &mut World {
        self.answers.push_back(Upstream::Failure(UpstreamFailure { token, status: Status(status) }));
        self
    }

    /// Plays the relay, with one try that takes 7 ms to connect, 5 ms more to the head, and 8 ms more in all.
    pub(super) fn pass_on(&mut self, exchange: &mut Exchange) -> Result<(), UpstreamFailure> {
        let answer = self.answers.pop_front();
        let body = read_call_body(exchange);
        let Some(passed) = exchange.upstream.as_deref_mut() else { panic!("nothing to pass on") };
        let after_redirect = !passed.attempts.is_empty();
        let Some(call) = passed.call.as_ref() else { panic!("nothing to pass on") };
        let (address, asked) = (address_of(call), asked_by(call));
        let sent = (call.head.len() + body.len()) as u64;
        self.calls.push(PassedOn {
            call: copy_of(call),
            head: head_of(call),
            body: String::from_utf8_lossy(&body).into_owned(),
        });
        let mut attempt = Attempt { address: address.as_str().into(), after_redirect, ..Attempt::default() };
        let outcome = match answer {
            None => panic!("no upstream is expected to be asked"),
            Some(Upstream::Failure(failure)) => {
                attempt.status = failure.status.0;
                attempt.response_ms = Some(20);
                attempt.token = Some(failure.token);
                passed.error = Some(failure.token);
                Err(failure)
            }
            Some(Upstream::Response(bytes)) => {
                let length = read_response(passed, asked, &bytes);
                attempt.status = passed.response.status.0;
                attempt.connect_ms = Some(7);
                attempt.header_ms = Some(12);
                attempt.response_ms = Some(20);
                attempt.response_length = length;
                attempt.bytes_received = bytes.len() as u64;
                attempt.bytes_sent = sent;
                Ok(())
            }
        };
        passed.attempts.push(attempt);
        outcome
    }
}

fn read_call_body(exchange: &Exchange) -> Vec<u8> {
    let call = exchange.upstream.as_ref().and_then(|passed| passed.call.as_ref());
    match (call.map(|call| &call.body), &exchange.request_body) {
        (Some(CallBody::Bytes(bytes)), _) => bytes.clone(),
        (Some(CallBody::Read), RequestBody::Memory(bytes)) => bytes.clone(),
        _ => Vec::new(),
    }
}

/// The head as HTTP/1 has it; the text of a framed one in the same form.
fn head_of(call: &Call) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let Some(framed) = &call.framed else { return text(&call.head) };
    let mut head = format!("{} {} HTTP/2\r\n", text(&framed.method), text(&framed.path));
    head.push_str(&format!("Host: {}\r\n", text(&framed.authority)));
    for (_, name, value) in framed.fields.iter() {
        head.push_str(&format!("{}: {}\r\n", text(name), text(value)));
    }
    head
}

fn address_of(call: &Call) -> String {
    match &call.target {
        Target::Fixed(id) => format!("192.0.2.{}:80", 10 + id.0),
        Target::Computed(address) => format!("{address:?}"),
    }
}

fn asked_by(call: &Call) -> Asked {
    Asked {
        head: call.is_head,
        upgrade: call.asks_upgrade,
        connect: false,
        head_bytes: call.conduct.buffer_size,
    }
}

/// The call without its head.
pub fn copy_of(call: &Call) -> Call {
    Call {
        target: call.target.clone(),
        conduct: call.conduct.clone(),
        protocol: call.protocol,
        tls: call.tls.clone(),
        module: call.module,
        head: Vec::new(),
        framed: None,
        body: call.body.clone(),
        is_head: call.is_head,
        asks_upgrade: call.asks_upgrade,
        idempotent: call.idempotent,
        keep_alive: call.keep_alive,
        buffering: call.buffering,
        early_hints: call.early_hints,
        pass_trailers: call.pass_trailers,
        limit_rate: call.limit_rate,
        local_address: call.local_address,
        store: call.store.clone(),
        hash_key: call.hash_key.clone(),
        sticky: call.sticky.clone(),
    }
}

/// Reads a whole response by the real machine; its body is put where the call's memory was spared.
fn read_response(passed: &mut Passed, asked: Asked, bytes: &[u8]) -> u64 {
    match passed.call.as_ref().map(|call| call.protocol) {
        Some(Protocol::Http1 | Protocol::Http2) | None => {}
        Some(Protocol::Raw) => return 0,
        Some(Protocol::Memcached) => return read_value(passed, bytes),
    }
    let mut reader = ResponseReader::new(ResponseLimits::default());
    reader.begin(asked);
    let mut input = bytes;
    let mut body = Vec::new();
    loop {
        match reader.read(&mut input, &mut passed.response).expect("a response") {
            ResponseEvent::NeedMore | ResponseEvent::End => break,
            ResponseEvent::Interim => {}
            ResponseEvent::Head(facts) => {
                passed.switched = facts.switched;
                passed.minor = facts.http_minor;
                passed.length = match facts.framing {
                    ResponseFraming::None => Some(0),
                    ResponseFraming::Length(length) => Some(length),
                    ResponseFraming::Streamed | ResponseFraming::UntilClose => None,
                };
            }
            ResponseEvent::Body(bytes) => body.extend_from_slice(bytes),
            ResponseEvent::Trailers => reader.trailers(&mut passed.trailers),
        }
    }
    passed.spare = body;
    passed.spare.len() as u64
}

/// The same for memcached.
fn read_value(passed: &mut Passed, bytes: &[u8]) -> u64 {
    let Some(call) = &passed.call else { return 0 };
    let mut reader = MemcachedReader::new();
    reader.begin(&call.head, call.conduct.buffer_size);
    let mut input = bytes;
    let mut body = Vec::new();
    loop {
        match reader.read(&mut input, &mut passed.response).expect("a value") {
            MemcachedEvent::NeedMore | MemcachedEvent::End => break,
            MemcachedEvent::Head { length, .. } => passed.length = Some(length),
            MemcachedEvent::NotFound => passed.length = Some(0),
            MemcachedEvent::Body(bytes) => body.extend_from_slice(bytes),
        }
    }
    passed.spare = body;
    passed.spare.len() as u64
}
