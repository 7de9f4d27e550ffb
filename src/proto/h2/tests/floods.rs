//! Every limit against abuse ends the connection with ENHANCE_YOUR_CALM, is counted, and is not in an honest peer's way.

use super::super::fuzz::options;
use super::super::{Client, Config, ConnectionError, ErrorCode, Frame, Limit, NewRequest, StreamKey};
use super::{GET, POST, Peer, Seen, serve};
use crate::message::{Fields, RequestFraming, ResponseHead, Status};

/// Sends one thing again and again until the connection ends; how often it was let pass.
fn flood(limit: Limit, mut write: impl FnMut(&mut Peer, u32)) -> u32 {
    let mut seen = serve(&Peer::client());
    let mut peer = Peer::client();
    for count in 0..10_000 {
        peer.bytes.clear();
        write(&mut peer, count);
        seen.read(&peer.bytes, 1000);
        if let Some(error) = seen.error {
            assert_eq!((error.code, error.limit), (ErrorCode::ENHANCE_YOUR_CALM, Some(limit)));
            assert!(seen.server.limit_counts()[limit as usize] > 0);
            let goaway = seen.frames.last().unwrap();
            assert!(goaway.starts_with("goaway") && goaway.ends_with("ENHANCE_YOUR_CALM"), "{goaway}");
            let said = seen.frames.len();
            seen.read(&peer.bytes, 2000);
            assert_eq!(seen.frames.len(), said, "nothing more is said");
            return count;
        }
        seen.frames.clear();
        seen.events.clear();
    }
    panic!("{} was never reached", limit.name());
}

fn burst(limit: Limit) -> u32 {
    limit.bounds().0
}

fn odd(count: u32) -> u32 {
    2 * count + 1
}

#[test]
fn rapid_reset() {
    let count = flood(Limit::RapidReset, |peer, count| {
        peer.headers(odd(count), true, GET);
        peer.frame(Frame::Reset { stream: odd(count), code: ErrorCode::CANCEL });
    });
    assert_eq!(count, burst(Limit::RapidReset));
}

#[test]
fn streams_that_the_server_is_made_to_reset() {
    let count = flood(Limit::StreamErrors, |peer, count| {
        peer.headers(odd(count), true, GET);
        peer.frame(Frame::WindowUpdate { stream: odd(count), increment: 0 });
    });
    assert_eq!(count, burst(Limit::StreamErrors));
    let malformed = flood(Limit::StreamErrors, |peer, count| {
        peer.headers(odd(count), true, &GET[..2]);
    });
    assert_eq!(malformed, burst(Limit::StreamErrors));
    // Nobody answers, and the client goes on opening.
    let refused = flood(Limit::StreamErrors, |peer, count| {
        peer.headers(odd(count), true, GET);
    });
    assert_eq!(refused, burst(Limit::StreamErrors) + Config::default().max_concurrent_streams);
}

#[test]
fn continuations_without_end() {
    let count = flood(Limit::Continuations, |peer, count| {
        if count == 0 {
            peer.frame(Frame::Headers { stream: 1, ends: true, whole: false, fragment: b"\x82" });
        }
        peer.frame(Frame::Continuation { stream: 1, whole: false, fragment: b"\x00\x01x\x01y" });
    });
    assert_eq!(count, burst(Limit::Continuations));
}

#[test]
fn field_blocks_without_end() {
    let fragment = vec![0x82; 16_000];
    let count = flood(Limit::BlockBytes, |peer, count| {
        if count == 0 {
            peer.frame(Frame::Headers { stream: 1, ends: true, whole: false, fragment: &fragment });
        } else {
            peer.frame(Frame::Continuation { stream: 1, whole: false, fragment: &fragment });
        }
    });
    assert_eq!(count, Config::default().block_bytes / 16_000);
}

#[test]
fn header_bombs_are_refused_and_cost_no_memory() {
    // One entry of 3,900 bytes, named a thousand times: 3.9 MB.
    let value = "x".repeat(3900);
    let mut peer = Peer::client();
    let mut block = peer.block(GET);
    block.extend_from_slice(b"\x40\x01x\x7f\xbd\x1d");
    block.extend_from_slice(value.as_bytes());
    block.extend_from_slice(&[0xbe; 1_000]);
    peer.frame(Frame::Headers { stream: 1, ends: true, whole: true, fragment: &block });
    peer.headers(3, true, GET);
    let seen = serve(&peer);
    assert!(seen.events[0].starts_with("1 refused 494"), "{:?}", seen.events);
    assert!(seen.events[1].starts_with("3 head GET"), "the connection goes on: {:?}", seen.events);
    assert!(seen.head.fields.capacity() < 256 << 10);
    // Named ten thousand times it would cost more to work through than the connection is worth.
    let mut peer = Peer::client();
    let mut block = peer.block(GET);
    block.extend_from_slice(b"\x40\x01x\x7f\xbd\x1d");
    block.extend_from_slice(value.as_bytes());
    block.extend_from_slice(&[0xbe; 10_000]);
    peer.frame(Frame::Headers { stream: 1, ends: true, whole: true, fragment: &block });
    peer.headers(3, true, GET);
    let seen = serve(&peer);
    let error = seen.error.expect("an error");
    assert_eq!(error.code, ErrorCode::ENHANCE_YOUR_CALM, "{}", error.reason);
    assert!(seen.events.is_empty(), "{:?}", seen.events);
}

#[test]
fn empty_frames() {
    let data = flood(Limit::EmptyFrames, |peer, count| {
        if count == 0 {
            peer.headers(1, false, POST);
        }
        peer.data(1, false, b"");
    });
    assert_eq!(data, burst(Limit::EmptyFrames));
    let padded = flood(Limit::EmptyFrames, |peer, count| {
        if count == 0 {
            peer.headers(1, false, POST);
        }
        peer.raw(3, 0, 8, 1, &[2, 0, 0]);
    });
    assert_eq!(padded, burst(Limit::EmptyFrames));
}

#[test]
fn pings() {
    let count = flood(Limit::Pings, |peer, _| {
        peer.frame(Frame::Ping { ack: false, opaque: [0; 8] });
    });
    assert_eq!(count, burst(Limit::Pings));
    flood(Limit::Pings, |peer, _| {
        peer.frame(Frame::Ping { ack: true, opaque: [0; 8] });
    });
}

#[test]
fn settings() {
    // The one of the beginning is forgotten a second later.
    let count = flood(Limit::Settings, |peer, _| {
        peer.frame(Frame::Settings(b""));
    });
    assert_eq!(count, burst(Limit::Settings));
    let parameters = [0, 3, 0, 0, 0, 9].repeat(1000);
    let large = flood(Limit::Settings, |peer, _| {
        peer.frame(Frame::Settings(&parameters));
    });
    assert_eq!(large, 0, "a thousand parameters at once");
    flood(Limit::Settings, |peer, _| {
        peer.frame(Frame::SettingsAck);
    });
}

#[test]
fn window_updates() {
    let count = flood(Limit::WindowUpdates, |peer, _| {
        peer.frame(Frame::WindowUpdate { stream: 0, increment: 1 });
    });
    assert_eq!(count, burst(Limit::WindowUpdates));
}

#[test]
fn priorities() {
    let count = flood(Limit::Priorities, |peer, count| {
        peer.frame(Frame::PriorityUpdate { stream: odd(count), value: b"u=1" });
    });
    assert_eq!(count, burst(Limit::Priorities));
    flood(Limit::Priorities, |peer, _| {
        peer.frame(Frame::Priority { stream: 1 });
    });
}

#[test]
fn frames_without_effect() {
    let unknown = flood(Limit::IgnoredFrames, |peer, _| {
        peer.raw(0, 0xab, 0, 0, b"");
    });
    assert_eq!(unknown, burst(Limit::IgnoredFrames));
    flood(Limit::IgnoredFrames, |peer, count| {
        if count == 0 {
            // Reset by the server: content for it is ignored.
            peer.headers(1, false, POST).frame(Frame::WindowUpdate { stream: 1, increment: 0 });
        }
        peer.data(1, false, b"x");
    });
}

/// A client that asks, and never gives window for the answers.
fn stalled(streams: u32) -> Seen {
    stalled_with(Config { max_concurrent_streams: 1000, ..Config::default() }, streams)
}

/// The same with this configuration.
fn stalled_with(config: Config, streams: u32) -> Seen {
    let mut peer = Peer::client();
    peer.frame(Frame::Settings(&[0, 4, 0, 0, 0, 0]));
    for count in 0..streams {
        peer.headers(odd(count), true, GET);
    }
    // The server's settings are acknowledged: only windows are missing.
    peer.frame(Frame::SettingsAck);
    let mut seen = super::serve_with(config, &peer);
    let mut out = Vec::new();
    let head = ResponseHead { status: Status::OK, ..ResponseHead::default() };
    for stream in seen.streams.clone() {
        seen.server.respond(stream, &head, &options(false), &mut out);
        seen.server.set_has_data(stream, true);
        assert!(seen.server.waits_for_window(stream));
        assert_eq!(seen.server.next_turn(), None);
    }
    seen
}

#[test]
fn streams_that_wait_for_window_are_given_up() {
    let mut seen = stalled(2);
    let timeout = Config::default().window_timeout_ms;
    let mut now_ms = 0;
    let mut out = Vec::new();
    while seen.server.open_streams() > 0 {
        now_ms = seen.server.deadline().unwrap();
        assert!(now_ms <= 2 * timeout);
        seen.server.on_deadline(now_ms, &mut out).unwrap();
        seen.read(b"", now_ms);
    }
    assert!(now_ms >= timeout, "{now_ms}");
    assert_eq!(seen.events[2..], ["1 lost here CANCEL", "3 lost here CANCEL"]);
    assert_eq!(super::describe_frames(&out), ["reset 1 CANCEL", "reset 3 CANCEL"]);
    assert_eq!(seen.server.deadline(), None);
}

#[test]
fn a_stream_may_have_a_patience_of_its_own() {
    let mut seen = stalled(2);
    let hasty = seen.streams[1];
    seen.server.set_window_timeout(hasty, 20_000);
    let mut out = Vec::new();
    let mut ends = Vec::new();
    while let Some(now_ms) = seen.server.deadline() {
        let before = seen.server.open_streams();
        seen.server.on_deadline(now_ms, &mut out).unwrap();
        if seen.server.open_streams() < before {
            ends.push(now_ms);
        }
    }
    assert_eq!(super::describe_frames(&out), ["reset 3 CANCEL", "reset 1 CANCEL"]);
    // Each after its time, and a quarter of it at most; nobody looks before the first quarter of the usual one.
    assert!((20_000..=40_000).contains(&ends[0]) && (60_000..=90_000).contains(&ends[1]), "{ends:?}");
}

#[test]
fn streams_that_stand_still_are_named_once_until_they_move() {
    let config = Config { standing_ms: 200, ..Config::default() };
    let mut seen = stalled_with(config, 2);
    let mut out = Vec::new();
    let named = |seen: &mut Seen, until_ms: u64, out: &mut Vec<u8>| {
        let mut named = Vec::new();
        while let Some(now_ms) = seen.server.deadline().filter(|due| *due <= until_ms) {
            seen.server.on_deadline(now_ms, out).unwrap();
            named.extend(seen.server.take_standing().iter().map(|stream| (stream.id(), now_ms)));
        }
        named
    };
    assert_eq!(named(&mut seen, 10_000, &mut out), [(1, 400), (3, 400)]);
    // One gets some window, takes it, and stands still again.
    let mut peer = Peer::client();
    peer.bytes.clear();
    peer.frame(Frame::WindowUpdate { stream: 1, increment: 10 });
    seen.read(&peer.bytes, 20_000);
    let (stream, room) = seen.server.next_turn().unwrap();
    assert_eq!((stream.id(), room), (1, 10));
    assert_eq!(seen.server.send_data(stream, &[0; 20], false, &mut out), 10);
    seen.server.set_has_data(stream, true);
    let again = named(&mut seen, 30_000, &mut out);
    assert_eq!(again.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1]);
    assert!(again[0].1 <= 20_000 + 3 * 200, "{again:?}");
}

#[test]
fn too_many_streams_that_wait_for_window_end_the_connection() {
    let mut seen = stalled(burst(Limit::StalledStreams) + 1);
    let mut out = Vec::new();
    let error = loop {
        let now_ms = seen.server.deadline().unwrap();
        if let Err(error) = seen.server.on_deadline(now_ms, &mut out) {
            break error;
        }
    };
    assert_eq!((error.code, error.limit), (ErrorCode::ENHANCE_YOUR_CALM, Some(Limit::StalledStreams)));
    assert_eq!(super::describe_frames(&out).last().unwrap(), "goaway 129 ENHANCE_YOUR_CALM");
}

#[test]
fn a_peer_that_does_not_acknowledge_settings_is_let_go() {
    let mut seen = serve(&Peer::client());
    let deadline = seen.server.deadline().unwrap();
    assert_eq!(deadline, Config::default().settings_timeout_ms);
    assert_eq!(seen.server.on_deadline(deadline - 1, &mut Vec::new()), Ok(()));
    let error = seen.server.on_deadline(deadline, &mut Vec::new()).unwrap_err();
    assert_eq!(error.code, ErrorCode::SETTINGS_TIMEOUT);
}

/// What a busy browser does in ten minutes.
#[test]
fn honest_peers_reach_no_limit() {
    let mut peer = Peer::client();
    peer.frame(Frame::WindowUpdate { stream: 0, increment: 1 << 20 });
    let mut seen = serve(&peer);
    let (mut out, mut next) = (Vec::new(), 0);
    let head = ResponseHead { status: Status::OK, ..ResponseHead::default() };
    for second in 0..600u64 {
        peer.bytes.clear();
        peer.frame(Frame::Ping { ack: false, opaque: [1; 8] });
        seen.streams.clear();
        for count in 0..40 {
            let stream = odd(next);
            next += 1;
            peer.headers(stream, true, GET).frame(Frame::PriorityUpdate { stream, value: b"u=2" });
            if count < 20 {
                peer.frame(Frame::Reset { stream, code: ErrorCode::CANCEL });
            }
        }
        seen.read(&peer.bytes, second * 1000);
        peer.bytes.clear();
        for stream in std::mem::take(&mut seen.streams) {
            if seen.server.respond(stream, &head, &options(false), &mut out).is_some() {
                for piece in 0..10 {
                    seen.server.send_data(stream, &[0; 1000], piece == 9, &mut out);
                    peer.frame(Frame::WindowUpdate { stream: 0, increment: 1000 });
                    peer.frame(Frame::WindowUpdate { stream: stream.id(), increment: 1000 });
                }
            }
        }
        seen.read(&peer.bytes, second * 1000 + 500);
        assert_eq!(seen.error, None, "second {second}");
        assert_eq!(seen.server.open_streams(), 0);
        seen.events.clear();
        seen.frames.clear();
        out.clear();
    }
}

/// A client with a server that it has not read anything from yet.
fn client() -> (Client, Peer) {
    let mut client = Client::new(Config::default());
    client.start(0, &mut Vec::new());
    (client, Peer::server())
}

fn ask(client: &mut Client) -> StreamKey {
    let fields = Fields::default();
    let request = NewRequest {
        method: b"GET",
        scheme: b"http",
        authority: b"a",
        path: b"/",
        protocol: None,
        fields: &fields,
        framing: RequestFraming::None,
    };
    client.request(&request, &mut Vec::new()).unwrap()
}

/// Lets a client read all that its server has said.
fn read(client: &mut Client, peer: &mut Peer) -> Result<(), ConnectionError> {
    let bytes = std::mem::take(&mut peer.bytes);
    let (mut input, mut head) = (&bytes[..], ResponseHead::default());
    while !input.is_empty() {
        client.read(&mut input, 0, 4096, &mut head, &mut Vec::new())?;
    }
    Ok(())
}

#[test]
fn a_server_may_reset_every_stream_behind_its_answer() {
    let (mut client, mut peer) = client();
    for _ in 0..5000 {
        let stream = ask(&mut client).id();
        peer.headers(stream, true, &[(":status", "200")]);
        peer.frame(Frame::Reset { stream, code: ErrorCode::NO_ERROR });
        read(&mut client, &mut peer).unwrap();
    }
    // But not again and again.
    let error = (0..=2 * burst(Limit::IgnoredFrames)).find_map(|_| {
        peer.frame(Frame::Reset { stream: 1, code: ErrorCode::NO_ERROR });
        read(&mut client, &mut peer).err()
    });
    assert_eq!(error.unwrap().limit, Some(Limit::IgnoredFrames));
}

#[test]
fn what_a_server_had_sent_when_its_stream_was_given_up_is_no_flood() {
    let (mut client, mut peer) = client();
    let window = Config::default().stream_window;
    let mut last = 0;
    for _ in 0..3 {
        let stream = ask(&mut client);
        last = stream.id();
        peer.headers(last, false, &[(":status", "200")]);
        read(&mut client, &mut peer).unwrap();
        client.reset(stream, ErrorCode::CANCEL, &mut Vec::new());
        for _ in 0..window / 100 {
            peer.data(last, false, &[b'x'; 100]);
        }
        read(&mut client, &mut peer).unwrap();
    }
    let error = (0..window).find_map(|_| {
        peer.data(last, false, b"x");
        read(&mut client, &mut peer).err()
    });
    assert_eq!(error.unwrap().limit, Some(Limit::IgnoredFrames));
}
