//! A client of HTTP/2 that sends exactly the frames it is told to. Heads of responses are read with another HPACK
//! implementation than the server's.

use super::client::Client;
use std::collections::{BTreeMap, VecDeque};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const INTERNAL_ERROR: u32 = 2;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const COMPRESSION_ERROR: u32 = 9;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// What a client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Fields of a head, in order.
pub type Fields = Vec<(String, String)>;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// What came on a stream.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    pub status: u16,
    pub fields: Fields,
    pub body: Vec<u8>,
    pub trailers: Fields,
    /// 1xx responses with their fields.
    pub interim: Vec<(u16, Fields)>,
    /// The code of a RST_STREAM.
    pub reset: Option<u32>,
    /// END_STREAM has come.
    pub ended: bool,
    window: i64,
}

impl Stream {
    /// The first field of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// See the module's documentation.
pub struct H2 {
    pub client: Client,
    decoder: loona_hpack::Decoder<'static>,
    next: u32,
    block: Vec<u8>,
    pub streams: BTreeMap<u32, Stream>,
    /// Last stream and code of each GOAWAY.
    pub goaways: Vec<(u32, u32)>,
    /// What the server's SETTINGS said.
    pub settings: BTreeMap<u16, u32>,
    /// Payloads of PINGs that were acknowledged.
    pub pongs: VecDeque<Vec<u8>>,
    /// Whether windows are opened again as bodies come.
    pub gives_window: bool,
    /// Stream and length of each DATA frame, in order.
    pub pieces: Vec<(u32, usize)>,
    window: i64,
}

impl H2 {
    /// Connects without TLS, by prior knowledge.
    #[track_caller]
    pub fn connect(port: u16) -> Self {
        Self::over(Client::connect(port), &[])
    }

    /// Connects under TLS.
    #[track_caller]
    pub fn connect_tls(port: u16, name: &str) -> Self {
        Self::over(super::tls::connect_tls(port, name, &["h2", "http/1.1"]), &[])
    }

    /// Speaks it over a connection, with these settings.
    #[track_caller]
    pub fn over(mut client: Client, settings: &[(u16, u32)]) -> Self {
        client.send(PREFACE);
        let mut h2 = Self {
            client,
            decoder: loona_hpack::Decoder::new(),
            next: 1,
            block: Vec::new(),
            streams: BTreeMap::new(),
            goaways: Vec::new(),
            settings: BTreeMap::new(),
            pongs: VecDeque::new(),
            gives_window: true,
            pieces: Vec::new(),
            window: 65_535,
        };
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        h2.send(SETTINGS, 0, 0, &payload);
        h2
    }

    /// Sends a frame.
    #[track_caller]
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.client.send(frame(kind, flags, stream, payload));
    }

    /// Opens a stream with these fields; what is not there of `:method`, `:scheme`, `:path` and `:authority` is added,
    /// unless it is a CONNECT.
    #[track_caller]
    pub fn open(&mut self, fields: &[(&str, &str)], ends: bool) -> u32 {
        let id = self.next;
        self.next += 2;
        let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
        let initial = self.settings.get(&4).copied().unwrap_or(65_535);
        self.streams.insert(id, Stream { window: i64::from(initial), ..Stream::default() });
        self.send(HEADERS, flags, id, &head(fields));
        id
    }

    /// The identifier that the next stream will have.
    pub fn next_id(&self) -> u32 {
        self.next
    }

    /// Leaves an identifier for what the test sends by itself.
    pub fn skip_id(&mut self) {
        self.next += 2;
    }

    /// A GET's stream.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> u32 {
        self.open(&[(":path", path)], true)
    }

    /// A GET and its response.
    #[track_caller]
    pub fn fetch(&mut self, path: &str) -> Stream {
        let id = self.get(path);
        self.wait(id)
    }

    /// Sends a body as windows allow.
    #[track_caller]
    pub fn send_body(&mut self, id: u32, mut body: &[u8], ends: bool) {
        loop {
            let window = self.window.min(self.streams[&id].window).max(0) as usize;
            let length = body.len().min(16_384).min(window);
            if length == 0 && !body.is_empty() {
                assert!(self.pump(), "closed while a body is sent");
                if self.streams[&id].ended || self.streams[&id].reset.is_some() {
                    return;
                }
                continue;
            }
            let (piece, rest) = body.split_at(length);
            body = rest;
            let is_last = body.is_empty();
            self.send(DATA, u8::from(is_last && ends), id, piece);
            self.window -= length as i64;
            self.streams.get_mut(&id).expect("open").window -= length as i64;
            if is_last {
                return;
            }
        }
    }

    /// Reads a frame; `None` at the close.
    pub fn read(&mut self) -> Option<Frame> {
        let [first] = self.client.read_one()?;
        let rest = self.client.read_exactly(8);
        let length = u32::from_be_bytes([0, first, rest[0], rest[1]]) as usize;
        let stream = u32::from_be_bytes([rest[4], rest[5], rest[6], rest[7]]) & 0x7fff_ffff;
        Some(Frame { kind: rest[2], flags: rest[3], stream, payload: self.client.read_exactly(length) })
    }

    /// Reads a frame and takes it in; `false` at the close.
    #[track_caller]
    pub fn pump(&mut self) -> bool {
        let Some(frame) = self.read() else { return false };
        self.take(frame);
        true
    }

    #[track_caller]
    fn take(&mut self, frame: Frame) {
        let Frame { kind, flags, stream, payload } = frame;
        let word = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().expect("four bytes"));
        match kind {
            DATA => {
                self.pieces.push((stream, payload.len()));
                let open = self.streams.get_mut(&stream).expect("DATA of a stream of ours");
                assert!(open.status >= 200, "DATA behind the head");
                assert!(!open.ended, "DATA behind the end");
                open.body.extend_from_slice(&payload);
                open.ended |= flags & END_STREAM != 0;
                let length = (payload.len() as u32).to_be_bytes();
                if self.gives_window && !payload.is_empty() {
                    let mut both = super::h2::frame(WINDOW_UPDATE, 0, 0, &length);
                    both.extend(super::h2::frame(WINDOW_UPDATE, 0, stream, &length));
                    self.client.try_send(both);
                }
            }
            HEADERS | CONTINUATION => {
                assert!(flags & 0x28 == 0, "a server has no use for padding and priorities");
                self.block.extend_from_slice(&payload);
                if kind == HEADERS && flags & END_STREAM != 0 {
                    self.streams.get_mut(&stream).expect("HEADERS of a stream of ours").ended = true;
                }
                if flags & END_HEADERS != 0 {
                    let block = std::mem::take(&mut self.block);
                    self.take_head(stream, &block);
                }
            }
            RST_STREAM => {
                let code = word(0);
                self.streams.entry(stream).or_default().reset = Some(code);
            }
            SETTINGS if flags & ACK == 0 => {
                for parameter in payload.as_chunks::<6>().0 {
                    let id = u16::from_be_bytes([parameter[0], parameter[1]]);
                    let value = u32::from_be_bytes(parameter[2..].try_into().expect("four bytes"));
                    if id == 4 {
                        let before = self.settings.get(&4).copied().unwrap_or(65_535);
                        let more = i64::from(value) - i64::from(before);
                        self.streams.values_mut().for_each(|stream| stream.window += more);
                    }
                    self.settings.insert(id, value);
                }
                self.client.try_send(super::h2::frame(SETTINGS, ACK, 0, b""));
            }
            PING if flags & ACK != 0 => self.pongs.push_back(payload),
            PING => {
                self.client.try_send(super::h2::frame(PING, ACK, 0, &payload));
            }
            GOAWAY => {
                let (last, code) = (word(0), word(4));
                self.goaways.push((last, code));
            }
            WINDOW_UPDATE if stream == 0 => self.window += i64::from(word(0)),
            WINDOW_UPDATE => self.streams.entry(stream).or_default().window += i64::from(word(0)),
            PUSH_PROMISE => panic!("nothing is to be pushed"),
            _ => {}
        }
    }

    #[track_caller]
    fn take_head(&mut self, stream: u32, block: &[u8]) {
        let fields: Fields = self
            .decoder
            .decode(block)
            .expect("HPACK")
            .into_iter()
            .map(|(name, value)| {
                (String::from_utf8_lossy(&name).into_owned(), String::from_utf8_lossy(&value).into_owned())
            })
            .collect();
        let open = self.streams.get_mut(&stream).expect("HEADERS of a stream of ours");
        for (name, _) in &fields {
            let is_good = !name.is_empty() && !name.bytes().any(|byte| byte.is_ascii_uppercase());
            assert!(is_good, "{fields:?}");
            let of_connection =
                ["connection", "keep-alive", "transfer-encoding", "upgrade", "proxy-connection"];
            assert!(!of_connection.contains(&name.as_str()), "{fields:?}");
        }
        if open.status >= 200 {
            assert!(open.ended, "trailers end the stream");
            assert!(fields.iter().all(|(name, _)| !name.starts_with(':')), "{fields:?}");
            open.trailers = fields;
            return;
        }
        assert_eq!(fields[0].0, ":status", "{fields:?}");
        let status = fields[0].1.parse().expect("a status");
        let fields = fields[1..].to_vec();
        assert!(fields.iter().all(|(name, _)| !name.starts_with(':')), "{fields:?}");
        match status {
            100..200 => open.interim.push((status, fields)),
            _ => (open.status, open.fields) = (status, fields),
        }
    }

    /// Waits until a stream is over and gives what came.
    ///
    /// # Panics
    /// When the connection closes before that.
    #[track_caller]
    pub fn wait(&mut self, id: u32) -> Stream {
        self.wait_until(|h2| h2.is_over(id));
        self.streams.remove(&id).expect("a stream")
    }

    /// Whether a stream is over.
    pub fn is_over(&self, id: u32) -> bool {
        self.streams[&id].ended || self.streams[&id].reset.is_some()
    }

    /// Takes frames until something is so.
    #[track_caller]
    pub fn wait_until(&mut self, mut condition: impl FnMut(&H2) -> bool) {
        while !condition(self) {
            assert!(self.pump(), "closed too early; GOAWAY: {:?}, streams: {:?}", self.goaways, self.brief());
        }
    }

    fn brief(&self) -> Vec<(u32, u16, usize, Option<u32>)> {
        let brief = |(id, stream): (&u32, &Stream)| (*id, stream.status, stream.body.len(), stream.reset);
        self.streams.iter().map(brief).collect()
    }

    /// Takes frames until the connection closes.
    #[track_caller]
    pub fn drain(&mut self) {
        while self.pump() {}
    }

    /// A round trip: everything that was sent was read, and what it caused at once has come.
    #[track_caller]
    pub fn ping(&mut self) {
        self.send(PING, 0, 0, b"pingpong");
        let before = self.pongs.len();
        self.wait_until(|h2| h2.pongs.len() > before);
        self.pongs.pop_back();
    }
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A request's fields in HPACK without tables; pseudo fields that are missing are added unless it is a CONNECT.
pub fn head(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    let has = |name: &str| fields.iter().any(|(known, _)| *known == name);
    let is_connect = fields.contains(&(":method", "CONNECT"));
    if !is_connect {
        let usual = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "localhost")];
        for (name, value) in usual {
            if !(has(name) || name == ":authority" && has("host")) {
                literal(name, value, &mut block);
            }
        }
    }
    for (name, value) in fields {
        literal(name, value, &mut block);
    }
    block
}

/// One field in HPACK: a literal without indexing.
pub fn literal(name: &str, value: &str, block: &mut Vec<u8>) {
    block.push(0);
    for text in [name, value] {
        let length = text.len();
        match length {
            0..127 => block.push(length as u8),
            _ => {
                block.push(127);
                let mut rest = length - 127;
                while rest >= 128 {
                    block.push((rest % 128) as u8 | 128);
                    rest /= 128;
                }
                block.push(rest as u8);
            }
        }
        block.extend_from_slice(text.as_bytes());
    }
}
