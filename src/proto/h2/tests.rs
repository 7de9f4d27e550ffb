//! Laws by proptest; conformance and floods are in their own files.

mod conformance;
mod floods;
mod machines;

use proptest::prelude::*;

use super::fuzz;
use super::hpack::{Encoder, Indexing};
use super::{Config, Frame, Server};
use crate::message::RequestHead;
use crate::proto::h1::HeadLimits;

/// A peer that writes whatever it is told to.
pub(super) struct Peer {
    pub encoder: Encoder,
    pub bytes: Vec<u8>,
}

pub(super) const GET: &[(&str, &str)] =
    &[(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "example.com")];
pub(super) const POST: &[(&str, &str)] =
    &[(":method", "POST"), (":scheme", "https"), (":path", "/"), (":authority", "example.com")];

impl Peer {
    /// A client that has sent its preface and SETTINGS.
    pub fn client() -> Peer {
        Peer { encoder: Encoder::default(), bytes: fuzz::hello() }
    }

    /// A server that has sent its SETTINGS.
    pub fn server() -> Peer {
        let mut bytes = Vec::new();
        Frame::Settings(b"").write(&mut bytes);
        Peer { encoder: Encoder::default(), bytes }
    }

    pub fn frame(&mut self, frame: Frame<'_>) -> &mut Peer {
        frame.write(&mut self.bytes);
        self
    }

    pub fn raw(&mut self, length: u32, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> &mut Peer {
        let [_, a, b, c] = length.to_be_bytes();
        self.bytes.extend_from_slice(&[a, b, c, kind, flags]);
        self.bytes.extend_from_slice(&stream.to_be_bytes());
        self.bytes.extend_from_slice(payload);
        self
    }

    pub fn block(&mut self, lines: &[(&str, &str)]) -> Vec<u8> {
        let mut block = Vec::new();
        for (name, value) in lines {
            let (name, value) = (name.as_bytes(), value.as_bytes());
            self.encoder.lower_case_field(name, value, Indexing::Repeated, &mut block);
        }
        block
    }

    pub fn headers(&mut self, stream: u32, ends: bool, lines: &[(&str, &str)]) -> &mut Peer {
        let block = self.block(lines);
        self.frame(Frame::Headers { stream, ends, whole: true, fragment: &block })
    }

    pub fn data(&mut self, stream: u32, ends: bool, data: &[u8]) -> &mut Peer {
        self.frame(Frame::Data { stream, ends, data })
    }
}

/// A server that has read what a peer sent, and what it saw and said.
pub(super) struct Seen {
    pub server: Server,
    pub events: Vec<String>,
    pub frames: Vec<String>,
    pub error: Option<super::ConnectionError>,
    pub streams: Vec<super::StreamKey>,
    pub head: RequestHead,
}

pub(super) fn serve(peer: &Peer) -> Seen {
    serve_with(Config { allow_tunnels: true, ..Config::default() }, peer)
}

pub(super) fn serve_with(config: Config, peer: &Peer) -> Seen {
    let mut server = Server::new(config);
    let mut out = Vec::new();
    server.start(0, &mut out);
    out.clear();
    let mut seen = Seen {
        server,
        events: Vec::new(),
        frames: Vec::new(),
        error: None,
        streams: Vec::new(),
        head: RequestHead::default(),
    };
    seen.read(&peer.bytes, 0);
    seen
}

impl Seen {
    /// Reads on; data is consumed at once.
    pub fn read(&mut self, bytes: &[u8], now_ms: u64) {
        use super::ServerEvent as Event;
        let mut input = bytes;
        let mut out = Vec::new();
        let limits = HeadLimits { allow_connect: true, ..HeadLimits::default() };
        loop {
            match self.server.read(&mut input, now_ms, &limits, &mut self.head, &mut out) {
                Ok(Event::NeedMore | Event::Closed) => break,
                Ok(Event::Head { stream, is_tunnel }) => {
                    let tunnel = if is_tunnel { "tunnel " } else { "" };
                    self.events.push(format!("{} head {tunnel}{}", stream.id(), fuzz::describe(&self.head)));
                    self.streams.push(stream);
                }
                Ok(Event::Refused { stream, error }) => {
                    let message = String::from_utf8_lossy(&error.message).into_owned();
                    self.events.push(format!("{} refused {} {message}", stream.id(), error.status.0));
                    self.streams.push(stream);
                }
                Ok(Event::Data { stream, data }) => {
                    self.events.push(format!("{} data {}", stream.id(), data.escape_ascii()));
                    self.server.consumed(stream, data.len(), &mut out);
                }
                Ok(Event::End { stream, has_trailers }) => {
                    let trailers = if has_trailers { fuzz::describe(&self.head) } else { String::new() };
                    self.events.push(format!("{} end {trailers}", stream.id()));
                }
                Ok(Event::Lost { stream, loss }) => {
                    let by = if loss.by_peer { "by peer" } else { "here" };
                    self.events.push(format!("{} lost {by} {}", stream.id(), loss.code.name()));
                }
                Ok(Event::Rejected { id, reason }) => self.events.push(format!("{id} rejected {reason}")),
                Err(error) => self.error = Some(error),
            }
        }
        self.said(&out);
    }

    pub fn said(&mut self, out: &[u8]) {
        self.frames.extend(describe_frames(out));
    }
}

/// Frames as text, with what matters of their payload.
pub(super) fn describe_frames(out: &[u8]) -> Vec<String> {
    let mut frames = Vec::new();
    let mut rest = out;
    while let Some((header, behind)) = rest.split_first_chunk::<9>() {
        let header = super::FrameHeader::parse(header);
        let (payload, behind) = behind.split_at(header.length as usize);
        rest = behind;
        frames.push(match Frame::parse(&header, payload).expect("a valid frame") {
            Frame::Reset { stream, code } => format!("reset {stream} {}", code.name()),
            Frame::GoAway { last, code, .. } => format!("goaway {last} {}", code.name()),
            Frame::WindowUpdate { stream, increment } => format!("window {stream} {increment}"),
            Frame::Headers { stream, ends, .. } => format!("headers {stream} {ends}"),
            Frame::Data { stream, ends, data } => format!("data {stream} {ends} {}", data.len()),
            Frame::Ping { ack, opaque } => format!("ping {ack} {}", opaque.escape_ascii()),
            Frame::SettingsAck => "settings ack".into(),
            other => format!("{other:?}"),
        });
    }
    frames
}

/// What a client may send: mostly frames that fit, in any order.
fn wire() -> impl Strategy<Value = Vec<u8>> {
    let stream = prop_oneof![8 => (0u32..8).prop_map(|n| 2 * n + 1), 1 => 0u32..20];
    let frame = (stream, 0u8..24, any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40));
    proptest::collection::vec(frame, 0..24).prop_map(|frames| {
        let mut peer = Peer { encoder: Encoder::default(), bytes: Vec::new() };
        let mut next = 1;
        for (mut stream, kind, flags, payload) in frames {
            // Mostly in order, so that more than the first rule is tried.
            if kind < 4 {
                stream = next;
                next += 2;
            } else if next > 1 && flags % 8 != 0 {
                stream = (stream % next) | 1;
            }
            match kind {
                0..=5 => _ = peer.headers(stream, flags % 2 == 0, if flags % 3 == 0 { GET } else { POST }),
                6..=8 => _ = peer.data(stream, flags % 3 == 0, &payload),
                9 => _ = peer.headers(stream, true, &[("x-trailer", "1")]),
                10 => _ = peer.frame(Frame::Reset { stream, code: super::ErrorCode::CANCEL }),
                11 => _ = peer.frame(Frame::WindowUpdate { stream, increment: u32::from(flags) }),
                12 => _ = peer.frame(Frame::Ping { ack: false, opaque: [flags; 8] }),
                13 => _ = peer.frame(Frame::Settings(&[0, 4, 0, 0, 1, flags])),
                14 => _ = peer.frame(Frame::PriorityUpdate { stream, value: b"u=1, i" }),
                15 => {
                    let block = peer.block(GET);
                    let (first, second) = block.split_at(usize::from(flags) % block.len());
                    peer.frame(Frame::Headers { stream, ends: false, whole: false, fragment: first });
                    peer.frame(Frame::Continuation { stream, whole: true, fragment: second });
                }
                16 => {
                    let mut padded = vec![flags % 9];
                    padded.extend_from_slice(&payload);
                    _ = peer.raw(padded.len() as u32, 0, 8 | (flags % 2), stream, &padded);
                }
                _ => _ = peer.raw(payload.len() as u32, kind - 17, flags, stream, &payload),
            }
        }
        peer.bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_cut_of_frames_yields_the_same_events(wire in wire(), step in 1usize..60) {
        fuzz::fuzz_server_bytes(&wire, step);
    }

    #[test]
    fn any_cut_of_any_bytes_yields_the_same_events(wire: Vec<u8>, step in 1usize..60) {
        fuzz::fuzz_server_bytes(&wire, step);
    }

    #[test]
    fn any_operations_keep_to_the_bounds(operations: Vec<u8>, wire in wire()) {
        fuzz::fuzz_server(&operations, &wire);
    }

    #[test]
    fn frames_read_as_they_were_written(wire in wire()) {
        fuzz::fuzz_frames(&wire);
    }

    #[test]
    fn blocks_of_any_bytes_keep_to_the_bounds(blocks: Vec<u8>) {
        fuzz::fuzz_hpack(&blocks);
    }

    #[test]
    fn bodies_travel_intact_between_both_machines(operations in proptest::collection::vec(any::<u8>(), 0..160)) {
        fuzz::fuzz_pair(&operations, 16);
    }
}
