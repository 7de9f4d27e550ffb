//! Both ends of HTTP/2 for tests: a scripted upstream ([`H2Peer`]) and a client ([`H2Client`]), on our own wire machines,
//! with sockets that wait.

use super::PATIENCE;
use super::client::Client;
use super::peer::Peer;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use thalweg::message::{Fields, RequestFraming, RequestHead, ResponseHead, Status};
use thalweg::proto::h1::{HeadLimits, RespondOptions};
use thalweg::proto::h2::{
    self, ClientEvent, Config, ErrorCode, Frame, NewRequest, Server as Machine, ServerEvent, StreamKey,
};

/// What an upstream is told.
#[derive(Clone, Debug)]
pub enum Told {
    /// A request.
    Request(StreamKey, Asked),
    /// A piece of its body.
    Data(StreamKey, Vec<u8>),
    /// The request is complete.
    End(StreamKey),
    /// The request was given up.
    Lost(StreamKey, ErrorCode),
    /// The connection is over.
    Closed,
}

/// A request's head.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub fields: Vec<(String, String)>,
}

impl Asked {
    /// The first field with this name.
    pub fn field(&self, name: &str) -> Option<&str> {
        value_of(&self.fields, name)
    }
}

fn value_of<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

fn texts(fields: &Fields) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    fields.iter().map(|(_, name, value)| (text(name), text(value))).collect()
}

fn fields(list: &[(&str, &str)]) -> Fields {
    let mut fields = Fields::default();
    list.iter().for_each(|(name, value)| fields.push(name.as_bytes(), value.as_bytes()));
    fields
}

/// A connection that a scripted upstream accepted.
pub struct H2Peer {
    socket: Client,
    machine: Machine,
    out: Vec<u8>,
    told: VecDeque<Told>,
    /// 0 for the first connection, 1 for the second, ...
    pub index: usize,
    /// Bodies are not given back to the windows before [`H2Peer::release`].
    pub holds: bool,
    held: Vec<(StreamKey, usize)>,
    began: Instant,
}

impl H2Peer {
    /// Begins to speak.
    pub fn new(peer: Peer, config: Config) -> H2Peer {
        let index = peer.index;
        let mut machine = Machine::new(config);
        let mut out = Vec::new();
        machine.start(0, &mut out);
        let (told, began) = (VecDeque::new(), Instant::now());
        let mut peer = H2Peer {
            socket: peer.into_client(),
            machine,
            out,
            told,
            index,
            holds: false,
            held: Vec::new(),
            began,
        };
        peer.flush();
        peer
    }

    /// What comes next; waits for it.
    pub fn next(&mut self) -> Told {
        loop {
            if let Some(told) = self.told.pop_front() {
                return told;
            }
            if !self.socket.has_more() {
                return Told::Closed;
            }
            let bytes = self.socket.read_some();
            if !self.feed(&bytes) {
                return Told::Closed;
            }
            self.flush();
        }
    }

    /// The same as [`H2Peer::next`], but waits for so long only.
    pub fn poll(&mut self, time: Duration) -> Option<Told> {
        if self.told.is_empty() {
            self.socket.limit(time);
            let comes = self.socket.has_more();
            self.socket.limit(PATIENCE);
            if comes {
                let bytes = self.socket.read_some();
                if !self.feed(&bytes) {
                    return Some(Told::Closed);
                }
                self.flush();
            }
        }
        self.told.pop_front()
    }

    fn feed(&mut self, mut input: &[u8]) -> bool {
        let now_ms = self.began.elapsed().as_millis() as u64;
        let mut head = RequestHead::default();
        loop {
            let limits = HeadLimits::default();
            let event = self.machine.read(&mut input, now_ms, &limits, &mut head, &mut self.out);
            let told = match event.expect("frames in order") {
                ServerEvent::NeedMore => return true,
                ServerEvent::Head { stream, .. } => {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let asked = Asked {
                        method: text(head.text(head.method_text)),
                        path: text(head.target()),
                        fields: texts(&head.fields),
                    };
                    self.told.push_back(Told::Request(stream, asked));
                    // Of a request without a body, the head is the end.
                    match head.framing {
                        RequestFraming::None => Told::End(stream),
                        _ => continue,
                    }
                }
                ServerEvent::Refused { error, .. } => panic!("a bad request: {error:?}"),
                ServerEvent::Data { stream, data } => {
                    let told = Told::Data(stream, data.to_vec());
                    match self.holds {
                        true => self.held.push((stream, data.len())),
                        false => self.machine.consumed(stream, data.len(), &mut self.out),
                    }
                    told
                }
                ServerEvent::End { stream, .. } => Told::End(stream),
                ServerEvent::Lost { stream, loss } => Told::Lost(stream, loss.code),
                // More than the settings allow: a client may not have seen them yet.
                ServerEvent::Rejected { .. } => continue,
                ServerEvent::Closed => return false,
            };
            self.told.push_back(told);
        }
    }

    /// Reads one request to its end; `None` if none comes any more. What comes of others meanwhile is lost.
    pub fn read_request(&mut self) -> Option<(StreamKey, Asked, Vec<u8>)> {
        let mut request = None;
        let mut body = Vec::new();
        loop {
            match (self.next(), &request) {
                (Told::Request(stream, asked), None) => request = Some((stream, asked)),
                (Told::Data(stream, data), Some((mine, _))) if *mine == stream => body.extend(data),
                (Told::End(stream), Some((mine, _))) if *mine == stream => break,
                (Told::Closed, _) => return None,
                _ => {}
            }
        }
        request.map(|(stream, asked)| (stream, asked, body))
    }

    /// Sends what was written; whether it was taken.
    pub fn flush(&mut self) -> bool {
        let out = std::mem::take(&mut self.out);
        self.socket.try_send(out)
    }

    /// Answers with a head; the body follows unless the length is 0.
    pub fn respond(&mut self, stream: StreamKey, status: u16, length: Option<u64>, list: &[(&str, &str)]) {
        let head = ResponseHead {
            status: Status(status),
            content_length: length,
            fields: fields(list),
            ..ResponseHead::default()
        };
        let options = RespondOptions {
            date: b"Sun, 06 Nov 1994 08:49:37 GMT",
            keep_alive_allowed: true,
            keep_alive_header: None,
            chunked_allowed: true,
            // What is announced follows.
            trailers_expected: list.iter().any(|(name, _)| *name == "trailer"),
            upgrade: status == 101,
        };
        self.machine.respond(stream, &head, &options, &mut self.out);
        self.flush();
    }

    /// Sends an interim response.
    pub fn interim(&mut self, stream: StreamKey, status: u16, list: &[(&str, &str)]) {
        self.machine.interim(stream, Status(status), Some(&fields(list)), &mut self.out);
        self.flush();
    }

    /// A unary answer of gRPC.
    pub fn answer(&mut self, stream: StreamKey, body: &[u8]) {
        self.respond(stream, 200, None, &[("content-type", "application/grpc")]);
        self.data(stream, body, false);
        self.trailers(stream, &[("grpc-status", "0")]);
    }

    /// Sends a piece of a body, as far as there is room for it; how much that was.
    pub fn data(&mut self, stream: StreamKey, bytes: &[u8], ends: bool) -> usize {
        let count = self.machine.send_data(stream, bytes, ends, &mut self.out);
        self.flush();
        count
    }

    /// Ends a response.
    pub fn trailers(&mut self, stream: StreamKey, list: &[(&str, &str)]) {
        self.machine.send_trailers(stream, &fields(list), &mut self.out);
        self.flush();
    }

    /// Gives a stream up.
    pub fn reset(&mut self, stream: StreamKey, code: ErrorCode) {
        self.machine.reset(stream, code, &mut self.out);
        self.flush();
    }

    /// Gives everything back to the windows that was held.
    pub fn release(&mut self) {
        self.holds = false;
        for (stream, count) in std::mem::take(&mut self.held) {
            self.machine.consumed(stream, count, &mut self.out);
        }
        self.flush();
    }

    /// Says that streams above this one are not looked at.
    pub fn go_away(&mut self, last: u32) {
        Frame::GoAway { last, code: ErrorCode::NO_ERROR, debug: b"" }.write(&mut self.out);
        self.flush();
    }

    /// Streams that are open.
    pub fn open_streams(&self) -> usize {
        self.machine.open_streams()
    }

    /// The connection without its protocol.
    pub fn socket(&mut self) -> &mut Client {
        &mut self.socket
    }
}

/// What a client is told of one of its streams.
#[derive(Debug, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    pub ended: bool,
    pub lost: Option<ErrorCode>,
}

impl Reply {
    /// The first field of the head with this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        value_of(&self.headers, name)
    }

    /// The first trailer with this name.
    pub fn trailer(&self, name: &str) -> Option<&str> {
        value_of(&self.trailers, name)
    }
}

/// A client with one stream at a time.
pub struct H2Client {
    socket: Client,
    machine: h2::Client,
    out: Vec<u8>,
    stream: Option<StreamKey>,
    reply: Reply,
    /// What comes is not given back to the windows.
    pub holds: bool,
}

impl H2Client {
    /// Connects with prior knowledge.
    pub fn connect(port: u16) -> H2Client {
        let mut machine = h2::Client::new(Config::default());
        let mut out = Vec::new();
        machine.start(0, &mut out);
        let (socket, reply) = (Client::connect(port), Reply::default());
        H2Client { socket, machine, out, stream: None, reply, holds: false }
    }

    /// Begins a request of gRPC; its body follows.
    pub fn call(&mut self, path: &str) -> &mut H2Client {
        let list = [("content-type", "application/grpc"), ("te", "trailers")];
        self.request("POST", path, RequestFraming::Streamed, &list)
    }

    /// Begins a request.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        framing: RequestFraming,
        list: &[(&str, &str)],
    ) -> &mut H2Client {
        let fields = fields(list);
        let request = NewRequest {
            method: method.as_bytes(),
            scheme: b"http",
            authority: b"site",
            path: path.as_bytes(),
            protocol: None,
            fields: &fields,
            framing,
        };
        self.stream = Some(self.machine.request(&request, &mut self.out).expect("a stream"));
        self.reply = Reply::default();
        self.flush();
        self
    }

    /// Sends a piece of the body, waiting for window where it has to.
    pub fn send(&mut self, mut bytes: &[u8], ends: bool) -> &mut H2Client {
        let stream = self.stream.expect("a request");
        loop {
            let count = self.machine.send_data(stream, bytes, ends, &mut self.out);
            bytes = &bytes[count..];
            self.flush();
            if bytes.is_empty() {
                return self;
            }
            assert!(self.step(), "closed with {} bytes to send", bytes.len());
        }
    }

    /// Gives the request up.
    pub fn cancel(&mut self) {
        let stream = self.stream.expect("a request");
        self.machine.reset(stream, ErrorCode::CANCEL, &mut self.out);
        self.flush();
    }

    fn flush(&mut self) {
        let out = std::mem::take(&mut self.out);
        self.socket.try_send(out);
    }

    /// Gives everything back to the windows that was held.
    pub fn release(&mut self) {
        self.holds = false;
        if let Some(stream) = self.stream {
            self.machine.consumed(stream, self.reply.body.len(), &mut self.out);
        }
        self.flush();
    }

    /// Takes what comes in this time.
    pub fn settle(&mut self, time: Duration) {
        self.socket.limit(time);
        while self.step() {}
        self.socket.limit(PATIENCE);
    }

    /// Takes what comes next; `false` if nothing does.
    pub fn step(&mut self) -> bool {
        if !self.socket.has_more() {
            return false;
        }
        let bytes = self.socket.read_some();
        let mut input = &bytes[..];
        let mut head = ResponseHead::default();
        loop {
            let event = self.machine.read(&mut input, 0, 1 << 20, &mut head, &mut self.out);
            let of_mine = |stream: StreamKey| Some(stream) == self.stream;
            match event.expect("frames in order") {
                ClientEvent::NeedMore => break,
                ClientEvent::Interim { .. } | ClientEvent::GoingAway { .. } => {}
                ClientEvent::Head { stream, .. } if of_mine(stream) => {
                    self.reply.status = head.status.0;
                    self.reply.headers = texts(&head.fields);
                }
                ClientEvent::Data { stream, data } => {
                    self.reply.body.extend_from_slice(data);
                    if !self.holds {
                        self.machine.consumed(stream, data.len(), &mut self.out);
                    }
                }
                ClientEvent::End { stream, has_trailers } if of_mine(stream) => {
                    self.reply.ended = true;
                    if has_trailers {
                        self.reply.trailers = texts(&head.fields);
                    }
                }
                ClientEvent::Lost { stream, loss } if of_mine(stream) => self.reply.lost = Some(loss.code),
                ClientEvent::Head { .. } | ClientEvent::End { .. } | ClientEvent::Lost { .. } => {}
                ClientEvent::Closed => return false,
            }
        }
        self.flush();
        true
    }

    /// Waits for so many bytes of the body.
    pub fn wait_for(&mut self, count: usize) -> &[u8] {
        while self.reply.body.len() < count {
            assert!(self.reply.lost.is_none() && self.step(), "closed after {:?}", self.reply);
        }
        &self.reply.body
    }

    /// Waits for the end of the response, be it a bad one.
    pub fn finish(&mut self) -> Reply {
        while !self.reply.ended && self.reply.lost.is_none() && self.step() {}
        std::mem::take(&mut self.reply)
    }

    /// Sends a whole request of gRPC and waits for the end of its response.
    pub fn unary(&mut self, path: &str, body: &[u8]) -> Reply {
        self.call(path).send(body, true).finish()
    }
}
