//! What probes ask and how their responses are read, in each protocol.

use crate::http::modules::proxy::HttpVersion;
use crate::message::{Fields, RequestFraming, ResponseHead};
use crate::proto::h2::{self, ClientEvent, NewRequest, StreamKey};
use crate::upstream::grpc_health;
use crate::upstream::health::CheckPlan;

/// The request of a check, the same for all peers.
#[derive(Debug)]
pub enum Ask {
    /// As HTTP/1 sends it.
    Lines(Vec<u8>),
    /// For HTTP/2.
    Framed {
        /// The method.
        method: &'static [u8],
        /// Whether the connection is secure.
        secure: bool,
        /// Host and port.
        authority: Box<[u8]>,
        /// Path and arguments.
        path: Box<[u8]>,
        /// All other fields.
        fields: Fields,
        /// A small one.
        body: Vec<u8>,
    },
}

impl Ask {
    /// What this plan asks of a host. gRPC has no version but HTTP/2.
    pub fn new(plan: &CheckPlan, host: &[u8], version: HttpVersion, secure: bool) -> Ask {
        let authority = host.into();
        if let Some(grpc) = &plan.grpc {
            let mut fields = Fields::default();
            fields.push(b"te", b"trailers");
            fields.push(b"content-type", b"application/grpc");
            let path = grpc_health::PATH.into();
            return Ask::Framed { method: b"POST", secure, authority, path, fields, body: grpc.request() };
        }
        if version == HttpVersion::Http2 {
            let (path, fields, body) = (plan.uri.clone(), Fields::default(), Vec::new());
            return Ask::Framed { method: b"GET", secure, authority, path, fields, body };
        }
        let lines = [b"GET ", &*plan.uri, b" HTTP/1.1\r\nHost: ", host, b"\r\nConnection: close\r\n\r\n"];
        Ask::Lines(lines.concat())
    }

    /// Whether it is asked over HTTP/2.
    pub fn is_framed(&self) -> bool {
        matches!(self, Ask::Framed { .. })
    }
}

/// A probe's connection in HTTP/2: one stream.
#[derive(Debug)]
pub struct Stream {
    machine: h2::Client,
    head_bytes: usize,
    scratch: ResponseHead,
}

/// What a probe has received.
#[derive(Debug, Default)]
pub struct Response {
    /// The final head.
    pub head: ResponseHead,
    /// Whether that has come.
    pub has_head: bool,
    /// The body, as far as anybody looks at it.
    pub body: Vec<u8>,
    /// Its trailers.
    pub trailers: Fields,
}

impl Response {
    /// Takes a piece of the body, up to a bound.
    pub fn take(&mut self, bytes: &[u8], most: usize) {
        let room = most - self.body.len();
        self.body.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// `grpc-status`, of trailers or of a head that is all there is.
    pub fn grpc_status(&self) -> Option<&[u8]> {
        let fields = if self.trailers.is_empty() { &self.head.fields } else { &self.trailers };
        fields.named(b"grpc-status").next()
    }
}

/// How far reading came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More has to come.
    NeedMore,
    /// The head is there.
    Head,
    /// More of the body is.
    Body,
    /// Everything is.
    End,
}

impl Stream {
    /// Writes what a connection begins with, and the request.
    ///
    /// # Errors
    /// It cannot be sent.
    pub fn begin(
        ask: &Ask,
        head_bytes: usize,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<Stream, &'static str> {
        let Ask::Framed { method, secure, authority, path, fields, body } = ask else {
            return Err("it is not asked over HTTP/2");
        };
        let header_list_bytes = u32::try_from(head_bytes).unwrap_or(u32::MAX);
        let mut machine = h2::Client::new(h2::Config { header_list_bytes, ..h2::Config::default() });
        machine.start(now_ms, out);
        let framing =
            if body.is_empty() { RequestFraming::None } else { RequestFraming::Length(body.len() as u64) };
        let request = NewRequest {
            method,
            scheme: if *secure { b"https" } else { b"http" },
            authority,
            path,
            protocol: None,
            fields,
            framing,
        };
        let stream: StreamKey = machine.request(&request, out).map_err(|_| "its request cannot be sent")?;
        if !body.is_empty() && machine.send_data(stream, body, true, out) < body.len() {
            return Err("its request is too large");
        }
        Ok(Stream { machine, head_bytes, scratch: ResponseHead::default() })
    }

    /// Reads on: at most one event.
    ///
    /// # Errors
    /// Why the probe has failed.
    pub fn read(
        &mut self,
        input: &mut &[u8],
        response: &mut Response,
        most: usize,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<Progress, &'static str> {
        loop {
            match self.machine.read(input, now_ms, self.head_bytes, &mut self.scratch, out) {
                Ok(ClientEvent::NeedMore) => return Ok(Progress::NeedMore),
                Ok(ClientEvent::Interim { .. } | ClientEvent::GoingAway { .. }) => {}
                Ok(ClientEvent::Head { .. }) => {
                    response.head = std::mem::take(&mut self.scratch);
                    response.has_head = true;
                    return Ok(Progress::Head);
                }
                Ok(ClientEvent::Data { stream, data }) => {
                    response.take(data, most);
                    self.machine.consumed(stream, data.len(), out);
                    return Ok(Progress::Body);
                }
                Ok(ClientEvent::End { has_trailers, .. }) => {
                    if has_trailers {
                        response.trailers = std::mem::take(&mut self.scratch.fields);
                    }
                    return Ok(Progress::End);
                }
                Ok(ClientEvent::Lost { loss, .. }) if loss.by_peer => return Err("it reset the stream"),
                Ok(ClientEvent::Lost { .. } | ClientEvent::Closed) | Err(_) => {
                    return Err("its response is invalid");
                }
            }
        }
    }

    /// Says that nothing more is asked.
    pub fn leave(&mut self, out: &mut Vec<u8>) {
        self.machine.leave(out);
    }
}
