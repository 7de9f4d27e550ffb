//! What RFC 9113 (and 8441, 9218) say that a server must do with what a client sends, named by section. RFC 7541 has its
//! own cases beside the decoder, frames and settings beside their files.

use super::super::{ErrorCode, Frame, PREFACE, flags};
use super::{GET, POST, Peer, Seen, serve};

/// Expects the connection to end with this error.
fn connection_error(section: &str, code: ErrorCode, write: impl FnOnce(&mut Peer)) {
    let mut peer = Peer::client();
    write(&mut peer);
    let seen = serve(&peer);
    let found = seen.error.map(|error| error.code);
    assert_eq!(found, Some(code), "{section}: {:?} {:?}", seen.events, seen.frames);
    let goaway = seen.frames.last().unwrap();
    assert!(goaway.starts_with("goaway ") && goaway.ends_with(code.name()), "{section}: {goaway}");
}

/// Expects one stream to be reset with this error, and the connection to go on.
fn stream_error(section: &str, code: ErrorCode, write: impl FnOnce(&mut Peer)) -> Seen {
    let mut peer = Peer::client();
    write(&mut peer);
    peer.frame(Frame::Ping { ack: false, opaque: *b"still on" });
    let seen = serve(&peer);
    assert_eq!(seen.error, None, "{section}");
    let resets: Vec<&String> = seen.frames.iter().filter(|frame| frame.starts_with("reset ")).collect();
    assert_eq!(resets.len(), 1, "{section}: {:?} {:?}", seen.events, seen.frames);
    assert!(resets[0].ends_with(code.name()), "{section}: {}", resets[0]);
    assert_eq!(seen.frames.last().unwrap(), "ping true still on", "{section}");
    seen
}

/// Expects nothing to be said about it, and the connection to go on.
fn ignored(section: &str, write: impl FnOnce(&mut Peer)) -> Seen {
    let mut peer = Peer::client();
    write(&mut peer);
    peer.frame(Frame::Ping { ack: false, opaque: *b"still on" });
    let seen = serve(&peer);
    assert_eq!(seen.error, None, "{section}");
    let said: Vec<&String> = seen
        .frames
        .iter()
        .filter(|frame| !frame.starts_with("settings ack") && !frame.starts_with("window 0"))
        .collect();
    assert_eq!(said, ["ping true still on"], "{section}");
    seen
}

/// A malformed request (section 8.1.1): its stream is reset and nobody hears of it.
fn malformed(section: &str, lines: &[(&str, &str)]) {
    let seen = stream_error(section, ErrorCode::PROTOCOL_ERROR, |peer| {
        peer.headers(1, true, lines);
    });
    assert!(seen.events.iter().all(|event| event.starts_with("1 rejected")), "{section}: {:?}", seen.events);
}

/// A request that is answered with an error.
fn refused(section: &str, status: u16, lines: &[(&str, &str)]) {
    let mut peer = Peer::client();
    peer.headers(1, true, lines);
    let seen = serve(&peer);
    assert!(seen.events[0].starts_with(&format!("1 refused {status}")), "{section}: {:?}", seen.events);
}

fn with<'a>(lines: &[(&'a str, &'a str)], more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [lines, more].concat()
}

const PROTOCOL: ErrorCode = ErrorCode::PROTOCOL_ERROR;
const SIZE: ErrorCode = ErrorCode::FRAME_SIZE_ERROR;
const FLOW: ErrorCode = ErrorCode::FLOW_CONTROL_ERROR;
const CLOSED: ErrorCode = ErrorCode::STREAM_CLOSED;

#[test]
fn section_3_4_the_preface_comes_first_and_settings_right_behind_it() {
    let bad = |bytes: &[u8]| {
        let mut peer = Peer::client();
        peer.bytes = bytes.to_vec();
        serve(&peer).error.map(|error| error.code)
    };
    assert_eq!(bad(b"GET / HTTP/1.1\r\n"), Some(PROTOCOL));
    assert_eq!(bad(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX"), Some(PROTOCOL));
    assert_eq!(bad(&PREFACE[..20]), None, "not whole yet");
    let mut ping = PREFACE.to_vec();
    Frame::Ping { ack: false, opaque: [0; 8] }.write(&mut ping);
    assert_eq!(bad(&ping), Some(PROTOCOL), "another frame than SETTINGS");
    let mut ack = PREFACE.to_vec();
    Frame::SettingsAck.write(&mut ack);
    assert_eq!(bad(&ack), Some(PROTOCOL), "an acknowledgement is not the client's settings");
    assert_eq!(super::super::is_preface(b"PRI * HT"), None);
    assert_eq!(super::super::is_preface(b"PRI * HTTP/1"), Some(false));
    assert_eq!(super::super::is_preface(b"GET"), Some(false));
    assert_eq!(super::super::is_preface(&ping), Some(true));
}

#[test]
fn section_4_1_unknown_frames_and_flags_are_ignored() {
    ignored("4.1 unknown types", |peer| {
        peer.raw(5, 0xf0, 0xff, 0, b"abcde").raw(0, 0x0b, 0, 77, b"");
    });
    ignored("4.1 unknown flags", |peer| {
        peer.raw(4, 8, 0xff, 0, &1u32.to_be_bytes());
    });
    ignored("4.1 the reserved bit", |peer| {
        peer.raw(4, 8, 0, 0x8000_0000, &[0x80, 0, 0, 1]);
    });
}

#[test]
fn section_4_2_frames_have_a_size() {
    connection_error("4.2 larger than SETTINGS_MAX_FRAME_SIZE", SIZE, |peer| {
        peer.headers(1, false, POST).raw(16_385, 0, 0, 1, b"");
    });
    connection_error("4.2 HEADERS too large", SIZE, |peer| {
        peer.raw(16_385, 1, 4, 1, b"");
    });
    connection_error("4.2 SETTINGS not a multiple of six", SIZE, |peer| {
        peer.raw(5, 4, 0, 0, &[0; 5]);
    });
}

#[test]
fn section_4_3_field_blocks_are_whole_and_decodable() {
    connection_error("4.3 a block that can't be decoded", ErrorCode::COMPRESSION_ERROR, |peer| {
        peer.frame(Frame::Headers {
            stream: 1,
            ends: true,
            whole: true,
            fragment: b"\xff\xff\xff\xff\xff\xff",
        });
    });
    let interrupted: &[fn(&mut Peer)] = &[
        |peer| drop_it(peer.data(1, true, b"x")),
        |peer| drop_it(peer.frame(Frame::Ping { ack: false, opaque: [0; 8] })),
        |peer| drop_it(peer.headers(3, true, GET)),
        |peer| drop_it(peer.raw(1, 0xee, 0, 0, b"x")),
        |peer| drop_it(peer.frame(Frame::Continuation { stream: 3, whole: true, fragment: b"" })),
    ];
    for interrupt in interrupted {
        connection_error("4.3 and 6.2 an interrupted block", PROTOCOL, |peer| {
            peer.frame(Frame::Headers { stream: 1, ends: true, whole: false, fragment: b"\x82" });
            interrupt(peer);
        });
    }
    let mut peer = Peer::client();
    let block = peer.block(GET);
    peer.frame(Frame::Headers { stream: 1, ends: true, whole: false, fragment: &block[..2] });
    peer.frame(Frame::Continuation { stream: 1, whole: false, fragment: &block[2..5] });
    peer.frame(Frame::Continuation { stream: 1, whole: true, fragment: &block[5..] });
    assert!(serve(&peer).events[0].starts_with("1 head GET / HTTP/2.0"));
    // Blocks of streams that are refused count for the tables as well.
    let mut peer = Peer::client();
    let lines = with(GET, &[("Bad-Name", "x"), ("x-again", "1")]);
    for stream in [1, 3] {
        peer.headers(stream, true, &lines);
    }
    peer.headers(5, true, &with(GET, &[("x-again", "1")]));
    let seen = serve(&peer);
    assert!(seen.events[2].contains("x-again=1"), "{:?}", seen.events);
}

fn drop_it(_: &mut Peer) {}

#[test]
fn section_5_1_idle_streams_take_nothing_but_headers() {
    connection_error("5.1 DATA", PROTOCOL, |peer| drop_it(peer.data(1, true, b"x")));
    connection_error("5.1 RST_STREAM", PROTOCOL, |peer| {
        peer.frame(Frame::Reset { stream: 1, code: ErrorCode::CANCEL });
    });
    connection_error("5.1 WINDOW_UPDATE", PROTOCOL, |peer| {
        peer.frame(Frame::WindowUpdate { stream: 1, increment: 5 });
    });
    connection_error("5.1 CONTINUATION", PROTOCOL, |peer| {
        peer.frame(Frame::Continuation { stream: 1, whole: true, fragment: b"" });
    });
    ignored("5.1 PRIORITY", |peer| drop_it(peer.frame(Frame::Priority { stream: 7 })));
}

#[test]
fn section_5_1_half_closed_streams_take_no_content() {
    stream_error("5.1 half-closed (remote), DATA", CLOSED, |peer| {
        peer.headers(1, true, GET).data(1, true, b"x");
    });
    stream_error("5.1 half-closed (remote), HEADERS", CLOSED, |peer| {
        peer.headers(1, true, GET).headers(1, true, &[("x", "y")]);
    });
    ignored("5.1 half-closed (remote), WINDOW_UPDATE and PRIORITY", |peer| {
        peer.headers(1, true, GET)
            .frame(Frame::WindowUpdate { stream: 1, increment: 1 })
            .frame(Frame::Priority { stream: 1 });
    });
}

/// A server that has answered stream 1 whole.
fn answered() -> Seen {
    use super::super::fuzz::options;
    use crate::message::{ResponseHead, Status};
    let mut peer = Peer::client();
    peer.headers(1, true, GET);
    let mut seen = serve(&peer);
    let head = ResponseHead { status: Status::NO_CONTENT, ..ResponseHead::default() };
    let mut out = Vec::new();
    seen.server.respond(seen.streams[0], &head, &options(false), &mut out);
    assert_eq!(seen.server.open_streams(), 0);
    seen
}

#[test]
fn section_5_1_closed_streams_take_no_content() {
    let code = |write: &dyn Fn(&mut Peer)| {
        let mut seen = answered();
        let mut peer = Peer { bytes: Vec::new(), ..Peer::client() };
        write(&mut peer);
        seen.read(&peer.bytes, 0);
        seen.error.map(|error| error.code)
    };
    assert_eq!(code(&|peer| drop_it(peer.data(1, true, b"x"))), Some(CLOSED));
    assert_eq!(code(&|peer| drop_it(peer.headers(1, true, GET))), Some(CLOSED));
    assert_eq!(code(&|peer| drop_it(peer.frame(Frame::WindowUpdate { stream: 1, increment: 1 }))), None);
    assert_eq!(code(&|peer| drop_it(peer.frame(Frame::Reset { stream: 1, code: ErrorCode::CANCEL }))), None);
    assert_eq!(code(&|peer| drop_it(peer.frame(Frame::Priority { stream: 1 }))), None);
    let reset = |peer: &mut Peer| {
        peer.headers(1, false, POST).frame(Frame::Reset { stream: 1, code: ErrorCode::CANCEL });
    };
    connection_error("5.1 DATA behind the peer's own RST_STREAM", CLOSED, |peer| {
        reset(peer);
        peer.data(1, true, b"x");
    });
    connection_error("5.1 HEADERS behind the peer's own RST_STREAM", CLOSED, |peer| {
        reset(peer);
        peer.headers(1, true, GET);
    });
}

#[test]
fn section_5_1_what_was_on_its_way_to_a_stream_that_was_reset_is_ignored() {
    let seen = stream_error("5.1 closed, after sending RST_STREAM", PROTOCOL, |peer| {
        // Less content than announced, then more of everything.
        peer.headers(1, false, &with(POST, &[("content-length", "9")]))
            .data(1, true, b"x")
            .data(1, false, b"yyy")
            .headers(1, true, &[("x-trailer", "1")])
            .headers(3, true, &with(GET, &[("x-trailer", "1")]));
    });
    assert!(seen.events.iter().any(|event| event == "1 lost here PROTOCOL_ERROR"), "{:?}", seen.events);
    assert!(seen.events.last().unwrap().starts_with("3 head"), "{:?}", seen.events);
}

#[test]
fn section_5_1_1_identifiers_are_odd_and_rise() {
    connection_error("5.1.1 even", PROTOCOL, |peer| drop_it(peer.headers(2, true, GET)));
    connection_error("5.1.1 falling", PROTOCOL, |peer| {
        peer.headers(5, true, GET).headers(3, true, GET);
    });
    connection_error("5.1.1 zero", PROTOCOL, |peer| drop_it(peer.headers(0, true, GET)));
}

#[test]
fn section_5_1_2_streams_beyond_the_limit_are_refused() {
    let config = super::super::Config { max_concurrent_streams: 2, ..Default::default() };
    let mut peer = Peer::client();
    for stream in [1, 3, 5] {
        peer.headers(stream, true, GET);
    }
    let seen = super::serve_with(config, &peer);
    assert_eq!(seen.frames.last().unwrap(), "reset 5 REFUSED_STREAM");
    assert_eq!(seen.server.open_streams(), 2);
}

#[test]
fn section_5_2_and_6_9_windows_hold() {
    let big = vec![b'x'; 16_384];
    let config =
        super::super::Config { stream_window: 100_000, connection_window: 120_000, ..Default::default() };
    let mut peer = Peer::client();
    peer.headers(1, false, POST);
    for _ in 0..8 {
        peer.data(1, false, &big);
    }
    // Read without giving anything back.
    let mut server = super::super::Server::new(config);
    let (mut out, mut input) = (Vec::new(), &peer.bytes[..]);
    let mut head = crate::message::RequestHead::default();
    let mut held = 0;
    let lost = loop {
        match server.read(&mut input, 0, &crate::proto::h1::HeadLimits::default(), &mut head, &mut out) {
            Ok(super::super::ServerEvent::Data { data, .. }) => held += data.len(),
            Ok(super::super::ServerEvent::Lost { loss, .. }) => break Ok(loss.code),
            Ok(super::super::ServerEvent::NeedMore) => panic!("nothing was found"),
            Ok(_) => {}
            Err(error) => break Err(error.code),
        }
    };
    assert_eq!((lost, held), (Ok(FLOW), 6 * 16_384), "a stream's window is its own affair");
    let lost = loop {
        match server.read(&mut input, 0, &crate::proto::h1::HeadLimits::default(), &mut head, &mut out) {
            Ok(super::super::ServerEvent::NeedMore) => break None,
            Ok(_) => {}
            Err(error) => break Some(error.code),
        }
    };
    assert_eq!(lost, None, "what was dropped is given back");

    stream_error("6.9 an increment of 0", PROTOCOL, |peer| {
        peer.headers(1, true, GET).frame(Frame::WindowUpdate { stream: 1, increment: 0 });
    });
    connection_error("6.9 an increment of 0 for the connection", PROTOCOL, |peer| {
        peer.frame(Frame::WindowUpdate { stream: 0, increment: 0 });
    });
    stream_error("6.9.1 beyond 2^31-1", FLOW, |peer| {
        peer.headers(1, true, GET).frame(Frame::WindowUpdate { stream: 1, increment: (1 << 31) - 1 });
    });
    connection_error("6.9.1 beyond 2^31-1 for the connection", FLOW, |peer| {
        peer.frame(Frame::WindowUpdate { stream: 0, increment: (1 << 31) - 1 });
    });
    connection_error("6.9.2 settings that overflow a stream's window", FLOW, |peer| {
        peer.headers(1, true, GET)
            .frame(Frame::WindowUpdate { stream: 1, increment: (1 << 31) - 1 - 65_535 })
            .frame(Frame::Settings(&[0, 4, 0, 1, 0, 0]));
    });
    connection_error("6.9 a wrong size", SIZE, |peer| drop_it(peer.raw(5, 8, 0, 0, &[0; 5])));
}

#[test]
fn section_5_5_extensions_are_ignored_but_not_within_a_block() {
    ignored("5.5 settings", |peer| drop_it(peer.raw(6, 4, 1 << 7 | 2, 0, &[0xab, 0xcd, 0, 0, 0, 1])));
}

#[test]
fn section_6_1_data_is_framed_and_padded() {
    connection_error("6.1 on stream 0", PROTOCOL, |peer| drop_it(peer.data(0, true, b"x")));
    connection_error("6.1 padding longer than the frame", PROTOCOL, |peer| {
        peer.headers(1, false, POST).raw(3, 0, flags::PADDED, 1, &[3, 0, 0]);
    });
    connection_error("6.1 no padding length", SIZE, |peer| {
        peer.headers(1, false, POST).raw(0, 0, flags::PADDED, 1, &[]);
    });
    let mut peer = Peer::client();
    peer.headers(1, false, POST).raw(
        6,
        0,
        flags::PADDED | flags::END_STREAM,
        1,
        &[2, b'a', b'b', b'c', 0, 0],
    );
    assert_eq!(serve(&peer).events[1..], ["1 data abc", "1 end "]);
}

#[test]
fn section_6_2_headers_are_framed_and_padded() {
    connection_error("6.2 on stream 0", PROTOCOL, |peer| drop_it(peer.raw(1, 1, 5, 0, b"\x82")));
    connection_error("6.2 padding longer than the frame", PROTOCOL, |peer| {
        peer.raw(2, 1, flags::PADDED | flags::END_HEADERS, 1, &[2, 0x82]);
    });
    connection_error("6.2 too short for a priority", SIZE, |peer| {
        peer.raw(4, 1, flags::PRIORITY | flags::END_HEADERS, 1, &[0; 4]);
    });
    let mut peer = Peer::client();
    let block = peer.block(GET);
    let payload = [&[3, 0, 0, 0, 1, 200][..], &block, &[0, 0, 0]].concat();
    peer.raw(payload.len() as u32, 1, 0x2d, 3, &payload);
    assert!(serve(&peer).events[0].starts_with("3 head GET / HTTP/2.0"));
}

#[test]
fn sections_6_3_and_6_4_priority_and_reset_have_a_size_and_a_stream() {
    connection_error("6.3 on stream 0", PROTOCOL, |peer| drop_it(peer.raw(5, 2, 0, 0, &[0; 5])));
    stream_error("6.3 a wrong size", SIZE, |peer| {
        peer.headers(1, true, GET).raw(4, 2, 0, 1, &[0; 4]);
    });
    connection_error("6.4 on stream 0", PROTOCOL, |peer| drop_it(peer.raw(4, 3, 0, 0, &[0; 4])));
    connection_error("6.4 a wrong size", SIZE, |peer| {
        peer.headers(1, true, GET).raw(5, 3, 0, 1, &[0; 5]);
    });
    let mut peer = Peer::client();
    peer.headers(1, true, GET).frame(Frame::Reset { stream: 1, code: ErrorCode(0x99) });
    let seen = serve(&peer);
    assert_eq!(seen.events[1], "1 lost by peer unknown", "7: unknown codes have no special meaning");
    assert!(!seen.frames.iter().any(|frame| frame.starts_with("reset")), "5.4.2: no reset for a reset");
}

#[test]
fn section_6_5_settings_are_checked_and_acknowledged() {
    connection_error("6.5 on a stream", PROTOCOL, |peer| drop_it(peer.raw(0, 4, 0, 1, b"")));
    connection_error("6.5 an acknowledgement with content", SIZE, |peer| {
        peer.raw(6, 4, flags::ACK, 0, &[0; 6]);
    });
    connection_error("6.5.2 ENABLE_PUSH", PROTOCOL, |peer| {
        peer.frame(Frame::Settings(&[0, 2, 0, 0, 0, 2]));
    });
    connection_error("6.5.2 INITIAL_WINDOW_SIZE", FLOW, |peer| {
        peer.frame(Frame::Settings(&[0, 4, 0x80, 0, 0, 0]));
    });
    connection_error("6.5.2 MAX_FRAME_SIZE", PROTOCOL, |peer| {
        peer.frame(Frame::Settings(&[0, 5, 0, 0, 0x3f, 0xff]));
    });
    let mut peer = Peer::client();
    peer.frame(Frame::Settings(&[0, 1, 0, 0, 0, 0]));
    assert_eq!(serve(&peer).frames, ["settings ack", "settings ack"], "6.5.3");
}

#[test]
fn sections_6_6_to_6_8_push_ping_and_goaway() {
    connection_error("6.6 a client does not push", PROTOCOL, |peer| {
        peer.headers(1, false, POST).frame(Frame::PushPromise { stream: 1 });
    });
    connection_error("6.7 on a stream", PROTOCOL, |peer| drop_it(peer.raw(8, 6, 0, 1, &[0; 8])));
    connection_error("6.7 a wrong size", SIZE, |peer| drop_it(peer.raw(6, 6, 0, 0, &[0; 6])));
    ignored("6.7 an answer to nothing", |peer| {
        peer.frame(Frame::Ping { ack: true, opaque: [1; 8] });
    });
    connection_error("6.8 on a stream", PROTOCOL, |peer| drop_it(peer.raw(8, 7, 0, 1, &[0; 8])));
    let mut peer = Peer::client();
    peer.headers(1, true, GET).frame(Frame::GoAway { last: 0, code: ErrorCode::NO_ERROR, debug: b"bye" });
    let mut seen = serve(&peer);
    assert!(!seen.server.is_drained() && seen.events.len() == 1);
    seen.server.reset(seen.streams[0], ErrorCode::CANCEL, &mut Vec::new());
    assert!(seen.server.is_drained());
}

#[test]
fn section_6_10_continuations_follow_headers() {
    connection_error("6.10 on stream 0", PROTOCOL, |peer| drop_it(peer.raw(0, 9, 4, 0, b"")));
    connection_error("6.10 behind a whole block", PROTOCOL, |peer| {
        peer.headers(1, false, POST).frame(Frame::Continuation { stream: 1, whole: true, fragment: b"" });
    });
    connection_error("6.10 behind DATA", PROTOCOL, |peer| {
        peer.headers(1, false, POST).data(1, false, b"x");
        peer.frame(Frame::Continuation { stream: 1, whole: true, fragment: b"" });
    });
}

#[test]
fn section_8_1_messages_are_framed() {
    malformed("8.1.1 END_STREAM and a length", &with(POST, &[("content-length", "3")]));
    stream_error("8.1.1 less than the length", PROTOCOL, |peer| {
        peer.headers(1, false, &with(POST, &[("content-length", "3")])).data(1, true, b"ab");
    });
    stream_error("8.1.1 more than the length", PROTOCOL, |peer| {
        peer.headers(1, false, &with(POST, &[("content-length", "1")])).data(1, true, b"ab");
    });
    stream_error("8.1.1 more than the length, over frames", PROTOCOL, |peer| {
        peer.headers(1, false, &with(POST, &[("content-length", "3")]))
            .data(1, false, b"ab")
            .data(1, true, b"cd");
    });
    stream_error("8.1.1 less than the length, before trailers", PROTOCOL, |peer| {
        peer.headers(1, false, &with(POST, &[("content-length", "3")])).data(1, false, b"ab");
        peer.headers(1, true, &[("x-trailer", "1")]);
    });
    stream_error("8.1 trailers that don't end the stream", PROTOCOL, |peer| {
        peer.headers(1, false, POST).headers(1, false, &[("x-trailer", "1")]);
    });
    stream_error("8.1 pseudo-header fields in trailers", PROTOCOL, |peer| {
        peer.headers(1, false, POST).headers(1, true, &[(":method", "GET")]);
    });
    stream_error("8.2.2 connection-specific fields in trailers", PROTOCOL, |peer| {
        peer.headers(1, false, POST).headers(1, true, &[("connection", "close")]);
    });
    let mut peer = Peer::client();
    peer.headers(1, false, &with(POST, &[("content-length", "2")])).data(1, false, b"ab");
    peer.headers(1, true, &[("x-trailer", "1")]);
    let seen = serve(&peer);
    assert_eq!(seen.events[1], "1 data ab");
    assert!(seen.events[2].starts_with("1 end") && seen.events[2].contains("[x-trailer=1]"));
}

#[test]
fn section_8_2_fields_are_valid() {
    for name in ["X-Upper", "x y", "x\u{e9}", "x:y", "", "x\r\n"] {
        malformed("8.2.1 names", &with(GET, &[(name, "v")]));
    }
    for value in [" v", "v ", "\tv", "v\t", "a\rb", "a\nb", "a\0b"] {
        malformed("8.2.1 values", &with(GET, &[("x", value)]));
    }
    for name in ["connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"] {
        malformed("8.2.2 connection-specific fields", &with(GET, &[(name, "x")]));
    }
    malformed("8.2.2 TE", &with(GET, &[("te", "gzip")]));
    let mut peer = Peer::client();
    peer.headers(
        1,
        true,
        &with(GET, &[("te", "trailers"), ("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")]),
    );
    let seen = serve(&peer);
    assert!(
        seen.events[0].contains("[te=trailers,x=y,cookie=a=1; b=2,host=example.com]"),
        "8.2.3: {:?}",
        seen.events
    );
}

#[test]
fn section_8_3_pseudo_header_fields_are_there_once_and_first() {
    for missing in 0..3 {
        let mut lines = GET.to_vec();
        lines.remove(missing);
        malformed("8.3.1 a missing one", &lines);
    }
    for line in GET {
        malformed("8.3 one that comes twice", &with(GET, &[*line]));
    }
    malformed("8.3 an unknown one", &with(GET, &[(":unknown", "x")]));
    malformed("8.3 one of a response", &with(GET, &[(":status", "200")]));
    malformed("8.3 one behind a field", &with(&[("x", "y")], GET));
    malformed("8.3 one behind a field", &[GET[0], GET[1], ("x", "y"), GET[2]]);
    let path = |path: &'static str| vec![GET[0], GET[1], (":path", path), GET[3]];
    for bad in ["", "a", "?x", "http://example.com/", "*", "/a b", "/a\x7f"] {
        malformed("8.3.1 :path", &path(bad));
    }
    for bad in ["", "1http", "ht tp", "http:"] {
        malformed("8.3.1 :scheme", &[GET[0], (":scheme", bad), GET[2], GET[3]]);
    }
    refused("8.3.1 :authority and Host that differ", 400, &with(GET, &[("host", "example.org")]));
    refused("8.3.1 neither :authority nor Host", 400, &GET[..3]);
    refused("8.3.1 user information", 400, &[GET[0], GET[1], GET[2], (":authority", "user@example.com")]);
    refused("HTTP/1 says the same: method", 400, &[(":method", "get"), GET[1], GET[2], GET[3]]);
    refused("HTTP/1 says the same: TRACE", 405, &[(":method", "TRACE"), GET[1], GET[2], GET[3]]);
    refused("HTTP/1 says the same: *", 400, &[(":method", "OPTIONS"), GET[1], (":path", "*"), GET[3]]);
    refused(
        "HTTP/1 says the same: two lengths",
        400,
        &with(GET, &[("content-length", "0"), ("content-length", "0")]),
    );
    refused("HTTP/1 says the same: a length", 400, &with(GET, &[("content-length", "-1")]));
    refused("HTTP/1 says the same: host", 400, &[GET[0], GET[1], GET[2], (":authority", "a..b")]);
    let large = "x".repeat(9000);
    refused("a field beyond large_client_header_buffers", 494, &with(GET, &[("x", &large)]));
}

#[test]
fn section_8_5_connect_has_an_authority_alone() {
    let connect = (":method", "CONNECT");
    let authority = (":authority", "example.com:443");
    malformed("8.5 with :path", &[connect, authority, (":path", "/")]);
    malformed("8.5 with :scheme", &[connect, authority, (":scheme", "https")]);
    malformed("8.5 without :authority", &[connect]);
    let mut peer = Peer::client();
    peer.headers(1, false, &[connect, authority]).data(1, false, b"hello");
    let seen = serve(&peer);
    assert!(
        seen.events[0]
            .starts_with("1 head tunnel CONNECT example.com:443 HTTP/2.0 host example.com:Some(443)")
    );
    assert_eq!(seen.events[1], "1 data hello");
}

#[test]
fn section_8_7_and_9218_priorities_are_for_requests() {
    connection_error("RFC 9218 7.1 stream 0", PROTOCOL, |peer| {
        peer.frame(Frame::PriorityUpdate { stream: 0, value: b"u=1" });
    });
    connection_error("RFC 9218 7.1 a push that was never promised", PROTOCOL, |peer| {
        peer.frame(Frame::PriorityUpdate { stream: 2, value: b"u=1" });
    });
    connection_error("RFC 9218 7.1 on a stream", PROTOCOL, |peer| {
        drop_it(peer.raw(4, 16, 0, 1, &[0, 0, 0, 1]))
    });
    connection_error("RFC 9218 7.1 too short", SIZE, |peer| drop_it(peer.raw(3, 16, 0, 0, &[0; 3])));
    let mut peer = Peer::client();
    peer.frame(Frame::PriorityUpdate { stream: 1, value: b"u=0" });
    peer.headers(1, true, &with(GET, &[("priority", "u=6, i")]));
    peer.headers(3, true, &with(GET, &[("priority", "u=6, i")]));
    peer.frame(Frame::PriorityUpdate { stream: 3, value: b"u=5" });
    let seen = serve(&peer);
    let urgency = |at: usize| seen.server.priority(seen.streams[at]).unwrap();
    assert_eq!((urgency(0).urgency, urgency(0).incremental), (0, false), "the frame wins over the field");
    assert_eq!((urgency(1).urgency, urgency(1).incremental), (5, false));
}

#[test]
fn rfc_8441_websockets_are_asked_for_with_connect() {
    let ask: &[(&str, &str)] = &[
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":path", "/chat"),
        (":authority", "example.com"),
        ("sec-websocket-version", "13"),
    ];
    let mut peer = Peer::client();
    peer.headers(1, false, ask).data(1, false, b"frame");
    let seen = serve(&peer);
    assert_eq!(
        seen.events[0],
        "1 head tunnel GET /chat HTTP/2.0 host example.com:None None [sec-websocket-version=13,\
         host=example.com,upgrade=websocket,connection=Upgrade] ignored 0"
    );
    malformed("RFC 8441 4 :protocol without CONNECT", &with(GET, &[(":protocol", "websocket")]));
    malformed("RFC 8441 4 without :path", &[ask[0], ask[1], ask[2], ask[4]]);
    malformed("RFC 8441 4 without :scheme", &[ask[0], ask[1], ask[3], ask[4]]);
    malformed("RFC 8441 4 without :authority", &ask[..4]);
    refused("another protocol", 501, &[ask[0], (":protocol", "connect-udp"), ask[2], ask[3], ask[4]]);
    // Where it was not announced it is an unknown pseudo-header field.
    let mut peer = Peer::client();
    peer.headers(1, false, ask);
    let seen = super::serve_with(Default::default(), &peer);
    assert_eq!(seen.frames.last().unwrap(), "reset 1 PROTOCOL_ERROR");
}
