//! Laws of the client's side of HTTP/2 against a server that sends anything. Each panics where its law is broken.

use std::collections::HashSet;

use crate::message::{Fields, RequestFraming, ResponseHead};

use super::fuzz::{SMALL_CONFIG, frames_of};
use super::{Client, ClientEvent, ErrorCode, Frame, NewRequest, OpenError, PREFACE, StreamKey};

/// Method, authority, path and protocol.
type Parts = (&'static [u8], &'static [u8], &'static [u8], Option<&'static [u8]>);

/// Requests that a client is given to send, the last ones such as can't be sent.
const REQUESTS: &[Parts] = &[
    (b"GET", b"Example.com:81", b"/a?b", None),
    (b"HEAD", b"a", b"*", None),
    (b"POST", b"", b"/", None),
    (b"CONNECT", b"a:443", b"", None),
    (b"CONNECT", b"a", b"/chat", Some(b"websocket")),
    (b"G T", b"a", b"/", None),
    (b"GET", b"a b", b"/", None),
    (b"GET", b"a", b"/ ", None),
    (b"GET", b"a", b"/", Some(b"websocket")),
    (b"CONNECT", b"", b"", None),
    (b"CONNECT", b"a b", b"", None),
];

/// Length of the heads that are taken, in bytes.
const HEAD_BYTES: usize = 300;

fn send_request(client: &mut Client, amount: usize, out: &mut Vec<u8>) -> Result<StreamKey, OpenError> {
    let (method, authority, path, protocol) = REQUESTS[amount % REQUESTS.len()];
    let framing = match amount / 16 % 3 {
        0 => RequestFraming::None,
        1 => RequestFraming::Streamed,
        _ => RequestFraming::Length(amount as u64),
    };
    let mut fields = Fields::default();
    fields.push(b"X-Amount", &vec![b'x'; amount * 10]);
    fields.push(b"Connection", b"close");
    fields.push(b"TE", b"trailers");
    let request =
        NewRequest { method, scheme: b"https", authority, path, protocol, fields: &fields, framing };
    let (before, free) = (out.len(), client.free_streams());
    let result = client.request(&request, out);
    match &result {
        Ok(_) => assert!(free > 0 && client.free_streams() < free),
        Err(error) => assert!(out.len() == before && !error.to_string().is_empty()),
    }
    result
}

/// What a client's caller knows of one stream.
#[derive(Clone, Copy, Debug)]
struct Known {
    key: StreamKey,
    has_head: bool,
    has_end: bool,
    /// Bytes of the body that were not consumed yet.
    held: usize,
}

/// A client and all that its caller knows.
struct Driven {
    client: Client,
    head: ResponseHead,
    out: Vec<u8>,
    now_ms: u64,
    known: Vec<Known>,
    /// Streams that were lost or reset.
    gone: HashSet<u32>,
    failed: bool,
}

/// Whatever a server sends, and whatever the client is given to do: it never panics, writes nothing but whole frames,
/// tells of its own streams alone, a head before a body, each end and each loss once, nothing behind the end of the
/// connection, and sends no more than its windows allow. Every operation is two bytes: what, and how much. The server's
/// SETTINGS, with extended CONNECT, come before `wire`.
pub fn fuzz_client(operations: &[u8], wire: &[u8]) {
    let mut driven = Driven {
        client: Client::new(SMALL_CONFIG),
        head: ResponseHead::default(),
        out: Vec::new(),
        now_ms: 0,
        known: Vec::new(),
        gone: HashSet::new(),
        failed: false,
    };
    let mut bytes = Vec::new();
    Frame::Settings(&[0, 8, 0, 0, 0, 1]).write(&mut bytes);
    bytes.extend_from_slice(wire);
    let mut rest = &bytes[..];
    driven.client.start(0, &mut driven.out);
    for operation in operations.chunks_exact(2) {
        let amount = usize::from(operation[1]);
        match operation[0] % 12 {
            0 | 1 => {
                let (piece, behind) = rest.split_at(rest.len().min(amount * 4));
                rest = behind;
                driven.read(piece);
            }
            2 => {
                if let Ok(key) = send_request(&mut driven.client, amount, &mut driven.out) {
                    driven.known.push(Known { key, has_head: false, has_end: false, held: 0 });
                }
            }
            5 => driven.send_turn(amount),
            9 => driven.wait(amount as u64 * 10),
            10 if amount == 0 => {
                driven.client.leave(&mut driven.out);
                assert_eq!(driven.client.free_streams(), 0);
            }
            what => {
                if let Some(at) = amount.checked_rem(driven.known.len()) {
                    driven.use_stream(what, at, amount);
                }
            }
        }
        assert!(driven.client.open_streams() <= SMALL_CONFIG.max_concurrent_streams as usize);
        assert!(!driven.failed || driven.client.free_streams() == 0);
        assert!(driven.client.limit_counts().iter().all(|count| *count <= bytes.len() as u32 + 1));
    }
    let frames = driven.out.strip_prefix(PREFACE).expect("a client begins with its preface");
    frames_of(frames);
}

impl Driven {
    fn use_stream(&mut self, what: u8, at: usize, amount: usize) {
        let Driven { client, out, .. } = self;
        let stream = self.known[at].key;
        match what {
            3 => {
                let room = client.room(stream);
                let sent = client.send_data(stream, &vec![b'x'; amount * 20], amount.is_multiple_of(5), out);
                assert!(sent <= room && sent <= amount * 20);
            }
            4 => client.set_has_data(stream, !amount.is_multiple_of(4)),
            6 => {
                let mut fields = Fields::default();
                fields.push(b"X-Trailer", b"1");
                client.send_trailers(stream, &fields, out);
                assert_eq!(client.room(stream), 0);
            }
            7 => {
                client.reset(stream, ErrorCode::CANCEL, out);
                assert_eq!(client.room(stream), 0);
                self.known.remove(at);
                self.gone.insert(stream.id());
            }
            8 => client.consumed(stream, std::mem::take(&mut self.known[at].held), out),
            _ => {}
        }
    }

    fn send_turn(&mut self, amount: usize) {
        let Some((stream, room)) = self.client.next_turn() else { return };
        assert!(room > 0 && room <= self.client.room(stream));
        let ends = amount.is_multiple_of(3);
        let frame = self.client.send_data_header(stream, room.min(amount + 1), ends, &mut self.out);
        assert!(frame.length > 0 && (ends || !frame.has_ended));
        self.out.resize(self.out.len() + frame.length, b'y');
    }

    fn wait(&mut self, passed_ms: u64) {
        self.now_ms += passed_ms;
        let Driven { client, out, now_ms, .. } = self;
        if client.deadline().is_some_and(|deadline| deadline <= *now_ms) {
            self.failed |= client.on_deadline(*now_ms, out).is_err();
            assert!(client.deadline().is_none_or(|deadline| deadline > *now_ms), "deadlines advance");
        }
    }

    fn read(&mut self, mut input: &[u8]) {
        let mut head = std::mem::take(&mut self.head);
        loop {
            let event = self.client.read(&mut input, self.now_ms, HEAD_BYTES, &mut head, &mut self.out);
            match event {
                Ok(ClientEvent::NeedMore) => break assert!(input.is_empty() && !self.failed),
                Ok(ClientEvent::Closed) => break assert!(self.failed),
                Ok(event) => self.note(event, &head),
                Err(error) => {
                    assert!(!self.failed && !error.to_string().is_empty(), "one error a connection");
                    self.failed = true;
                }
            }
        }
        self.head = head;
    }

    fn note(&mut self, event: ClientEvent<'_>, head: &ResponseHead) {
        assert!(!self.failed, "nothing behind the end");
        match event {
            ClientEvent::Interim { stream } => assert!(!self.find(stream).has_head),
            ClientEvent::Head { stream, .. } => {
                let one = self.find(stream);
                assert!(!one.has_head && head.fields.len() <= HEAD_BYTES);
                one.has_head = true;
            }
            ClientEvent::Data { stream, data } => {
                let one = self.find(stream);
                assert!(one.has_head && !one.has_end && !data.is_empty());
                one.held += data.len();
            }
            ClientEvent::End { stream, .. } => {
                let one = self.find(stream);
                assert!(one.has_head && !one.has_end);
                one.has_end = true;
            }
            ClientEvent::Lost { stream, loss } => {
                assert!(!loss.reason.is_empty() && self.gone.insert(stream.id()), "lost twice");
                self.known.retain(|one| one.key != stream);
            }
            ClientEvent::GoingAway { code } => {
                assert!(!code.name().is_empty() && self.client.free_streams() == 0);
            }
            ClientEvent::NeedMore | ClientEvent::Closed => {}
        }
    }

    fn find(&mut self, key: StreamKey) -> &mut Known {
        self.known.iter_mut().find(|one| one.key == key).expect("a stream of ours")
    }
}
