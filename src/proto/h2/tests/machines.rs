//! How the two machines behave, beyond what they refuse.

use super::super::fuzz::options;
use super::super::{
    Client, ClientEvent, Config, ErrorCode, Frame, NewRequest, OpenError, Priority, StreamKey, StreamLoss,
};
use super::{GET, POST, Peer, Seen, describe_frames, serve, serve_with};
use crate::message::{Fields, RequestFraming, ResponseFraming, ResponseHead, Status};
use crate::proto::h1::RespondOptions;

fn ok() -> ResponseHead {
    ResponseHead { status: Status::OK, ..ResponseHead::default() }
}

fn gets(streams: &[u32]) -> Seen {
    let mut peer = Peer::client();
    for stream in streams {
        peer.headers(*stream, true, GET);
    }
    serve(&peer)
}

#[test]
fn a_server_begins_with_its_settings_and_window() {
    let mut out = Vec::new();
    let config = Config { allow_tunnels: true, max_concurrent_streams: 7, ..Config::default() };
    super::super::Server::new(config).start(5, &mut out);
    let frames = describe_frames(&out);
    assert_eq!(frames.len(), 2);
    assert!(frames[0].starts_with("Settings([0, 3, 0, 0, 0, 7, 0, 9, 0, 0, 0, 1, 0, 8, 0, 0, 0, 1, 0, 4,"));
    assert_eq!(frames[1], format!("window 0 {}", (1 << 20) - 65_535));
}

#[test]
fn heads_come_out_as_http_1_gives_them() {
    let mut peer = Peer::client();
    let lines = [
        (":method", "PUT"),
        (":scheme", "https"),
        (":authority", "WWW.Example.com.:8443"),
        (":path", "/a%20b?c=d"),
        ("content-length", "5"),
        ("expect", "100-continue"),
        ("x_odd", "1"),
        ("user-agent", "me"),
    ];
    peer.headers(1, false, &lines);
    let seen = serve(&peer);
    assert_eq!(
        seen.events,
        ["1 head PUT /a%20b?c=d HTTP/2.0 host www.example.com:Some(8443) Length(5) [content-length=5,\
          expect=100-continue,user-agent=me,host=WWW.Example.com.:8443] ignored 1"]
    );
    let head = &seen.head;
    assert!(head.expects_continue && head.version == crate::message::Version::Http2);
    assert_eq!(head.text(head.authority), b"WWW.Example.com.:8443");
    assert_eq!(head.text(head.ignored_line), b"x_odd: 1");
    assert!(head.wire_length > 20);
}

#[test]
fn a_small_response_is_two_frames_at_once_and_the_next_ones_are_smaller() {
    let mut seen = gets(&[1, 3, 5, 7]);
    let mut lengths = Vec::new();
    for stream in seen.streams.clone() {
        let mut out = Vec::new();
        let mut head = ok();
        head.set_content_type(b"text/html");
        head.set_content_length(5);
        head.set_etag(b"\"673d0a00-5\"");
        head.accept_ranges = true;
        let framing = seen.server.respond(stream, &head, &options(false), &mut out);
        assert_eq!(framing, Some(ResponseFraming::Length(5)));
        assert_eq!(seen.server.send_data(stream, b"hello", true, &mut out), 5);
        let id = stream.id();
        assert_eq!(describe_frames(&out), [format!("headers {id} false"), format!("data {id} true 5")]);
        lengths.push(out.len() - 5);
    }
    assert_eq!(seen.server.open_streams(), 0);
    assert!(lengths[0] > 70 && lengths[2..] == [9 + 9 + 6; 2], "{lengths:?}");
}

#[test]
fn responses_without_a_body_end_their_stream_with_the_head() {
    let framing = |lines: &[(&str, &str)], head: &ResponseHead| {
        let mut peer = Peer::client();
        peer.headers(1, true, lines);
        let mut seen = serve(&peer);
        let mut out = Vec::new();
        let framing = seen.server.respond(seen.streams[0], head, &options(false), &mut out);
        (framing, describe_frames(&out), seen.server.open_streams())
    };
    let whole = (Some(ResponseFraming::None), vec!["headers 1 true".to_owned()], 0);
    let mut empty = ok();
    empty.set_content_length(0);
    assert_eq!(framing(GET, &empty), whole);
    assert_eq!(framing(GET, &ResponseHead { status: Status::NOT_MODIFIED, ..ok() }), whole);
    let mut five = ok();
    five.set_content_length(5);
    assert_eq!(framing(&[(":method", "HEAD"), GET[1], GET[2], GET[3]], &five), whole);
    assert_eq!(framing(GET, &ok()).0, Some(ResponseFraming::Streamed));
}

#[test]
fn what_is_still_to_come_of_a_request_is_declined_once_it_is_answered() {
    let mut peer = Peer::client();
    peer.headers(1, false, POST).data(1, false, b"some");
    let mut seen = serve(&peer);
    let mut out = Vec::new();
    let mut head = ResponseHead { status: Status::CONTENT_TOO_LARGE, ..ok() };
    head.set_content_length(3);
    seen.server.respond(seen.streams[0], &head, &options(false), &mut out);
    seen.server.send_data(seen.streams[0], b"no!", true, &mut out);
    assert_eq!(describe_frames(&out), ["headers 1 false", "data 1 true 3", "reset 1 NO_ERROR"]);
    peer.bytes.clear();
    peer.data(1, false, b"more").data(1, true, b"and more").headers(3, true, GET);
    seen.read(&peer.bytes, 0);
    assert_eq!((seen.error, seen.events.len()), (None, 3), "{:?}", seen.events);
}

#[test]
fn trailers_end_a_response() {
    let mut seen = gets(&[1]);
    let (stream, mut out) = (seen.streams[0], Vec::new());
    seen.server.respond(stream, &ok(), &options(false), &mut out);
    seen.server.send_data(stream, b"x", false, &mut out);
    let mut fields = Fields::default();
    fields.push(b"Grpc-Status", b"0");
    seen.server.send_trailers(stream, &fields, &mut out);
    assert_eq!(describe_frames(&out), ["headers 1 false", "data 1 false 1", "headers 1 true"]);
    assert_eq!(seen.server.open_streams(), 0);
}

#[test]
fn interim_responses_come_before_the_head_only() {
    let mut seen = gets(&[1]);
    let (stream, mut out) = (seen.streams[0], Vec::new());
    let mut fields = Fields::default();
    fields.push(b"Link", b"</a.css>; rel=preload");
    seen.server.interim(stream, Status::EARLY_HINTS, Some(&fields), &mut out);
    seen.server.interim(stream, Status::SWITCHING_PROTOCOLS, None, &mut out);
    seen.server.respond(stream, &ok(), &options(false), &mut out);
    seen.server.interim(stream, Status::CONTINUE, None, &mut out);
    assert_eq!(seen.server.respond(stream, &ok(), &options(false), &mut out), None, "one head");
    assert_eq!(describe_frames(&out), ["headers 1 false", "headers 1 false"]);
}

#[test]
fn a_body_waits_for_its_window_and_for_its_turn() {
    let mut peer = Peer::client();
    peer.frame(Frame::Settings(&[0, 4, 0, 0, 0, 100]));
    peer.headers(1, true, GET).headers(3, true, GET);
    let mut seen = serve(&peer);
    let (first, second) = (seen.streams[0], seen.streams[1]);
    let mut out = Vec::new();
    for stream in [first, second] {
        seen.server.respond(stream, &ok(), &options(false), &mut out);
        seen.server.set_has_data(stream, true);
    }
    assert_eq!(seen.server.next_turn(), Some((first, 100)));
    assert_eq!(seen.server.send_data(first, &[0; 150], true, &mut out), 100);
    assert_eq!((seen.server.room(first), seen.server.waits_for_window(first)), (0, true));
    assert_eq!(seen.server.next_turn(), Some((second, 100)), "others go on");
    seen.server.set_has_data(second, false);
    assert_eq!(seen.server.next_turn(), None);
    peer.bytes.clear();
    peer.frame(Frame::WindowUpdate { stream: 1, increment: 1000 });
    seen.read(&peer.bytes, 0);
    assert_eq!(seen.server.next_turn(), Some((first, 1000)));
    let frame = seen.server.send_data_header(first, 50, true, &mut out);
    assert_eq!((frame.length, frame.has_ended), (50, true));
    assert!(!seen.server.is_open(first));
}

#[test]
fn the_connections_window_is_shared() {
    let mut peer = Peer::client();
    peer.frame(Frame::Settings(&[0, 4, 0, 16, 0, 0]));
    peer.headers(1, true, GET).headers(3, true, GET);
    let mut seen = serve(&peer);
    let mut out = Vec::new();
    for stream in seen.streams.clone() {
        seen.server.respond(stream, &ok(), &options(false), &mut out);
        seen.server.set_has_data(stream, true);
    }
    assert_eq!(seen.server.send_data(seen.streams[0], &[0; 100_000], true, &mut out), 65_535);
    assert_eq!(seen.server.next_turn(), None);
    assert!(seen.server.waits_for_window(seen.streams[1]));
    peer.bytes.clear();
    peer.frame(Frame::WindowUpdate { stream: 0, increment: 10 });
    seen.read(&peer.bytes, 0);
    assert_eq!(seen.server.next_turn(), Some((seen.streams[0], 10)));
}

#[test]
fn turns_go_by_urgency_and_incremental_responses_share() {
    let mut peer = Peer::client();
    for (stream, priority) in [(1, "u=5"), (3, "u=3, i"), (5, "u=3, i"), (7, "u=0")] {
        peer.headers(stream, true, &[GET[0], GET[1], GET[2], GET[3], ("priority", priority)]);
    }
    let mut seen = serve(&peer);
    let mut out = Vec::new();
    for stream in seen.streams.clone() {
        seen.server.respond(stream, &ok(), &options(false), &mut out);
        seen.server.set_has_data(stream, true);
    }
    let mut order = Vec::new();
    let mut left = [0, 2, 2, 2, 2];
    while let Some((stream, _)) = seen.server.next_turn() {
        let at = stream.id() as usize / 2 + 1;
        left[at] -= 1;
        seen.server.send_data(stream, b"x", left[at] == 0, &mut out);
        order.push(stream.id());
    }
    assert_eq!(order, [7, 7, 3, 5, 3, 5, 1, 1]);
    // The server may know better.
    let mut seen = gets(&[1, 3]);
    for stream in seen.streams.clone() {
        seen.server.respond(stream, &ok(), &options(false), &mut out);
        seen.server.set_has_data(stream, true);
    }
    seen.server.set_priority(seen.streams[1], Priority { urgency: 1, incremental: false });
    assert_eq!(seen.server.next_turn().map(|(stream, _)| stream.id()), Some(3));
}

#[test]
fn windows_of_uploads_are_given_back_in_large_steps() {
    let config = Config { stream_window: 100_000, connection_window: 200_000, ..Config::default() };
    let mut peer = Peer::client();
    peer.frame(Frame::SettingsAck).headers(1, false, POST);
    for _ in 0..8 {
        peer.data(1, false, &[b'x'; 10_000]);
    }
    let seen = serve_with(config, &peer);
    assert_eq!(seen.frames[1..], ["window 1 50000"], "half of its window, once");
    assert_eq!(seen.error, None);
}

#[test]
fn nothing_is_given_back_for_what_the_caller_holds_until_the_stream_is_gone() {
    let config = Config { stream_window: 100_000, connection_window: 100_000, ..Config::default() };
    let mut peer = Peer::client();
    peer.headers(1, false, POST).data(1, false, &[b'x'; 16_000]).data(1, false, &[b'x'; 16_000]);
    peer.data(1, false, &[b'x'; 16_000]).data(1, false, &[b'x'; 16_000]);
    let mut server = super::super::Server::new(config);
    let (mut out, mut input) = (Vec::new(), &peer.bytes[..]);
    let mut head = crate::message::RequestHead::default();
    let mut stream = None;
    loop {
        use super::super::ServerEvent as Event;
        match server.read(&mut input, 0, &Default::default(), &mut head, &mut out).unwrap() {
            Event::NeedMore => break,
            Event::Data { stream: key, .. } => stream = Some(key),
            _ => {}
        }
    }
    assert_eq!(describe_frames(&out), ["settings ack"]);
    out.clear();
    server.reset(stream.unwrap(), ErrorCode::INTERNAL_ERROR, &mut out);
    assert_eq!(describe_frames(&out), ["window 0 64000", "reset 1 INTERNAL_ERROR"]);
    server.consumed(stream.unwrap(), 64_000, &mut out);
    server.set_has_data(stream.unwrap(), true);
    assert_eq!(describe_frames(&out).len(), 2, "a key that is of no use does no harm");
}

#[test]
fn tunnels_begin_with_200_and_end_on_both_sides() {
    let ask: &[(&str, &str)] = &[
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":path", "/chat"),
        (":authority", "example.com"),
    ];
    let answer = |status, upgrade| {
        let mut peer = Peer::client();
        peer.headers(1, false, ask).data(1, true, b"bye");
        let mut seen = serve(&peer);
        let mut out = Vec::new();
        let mut head = ResponseHead { status, ..ok() };
        head.fields.push(b"Upgrade", b"websocket");
        head.fields.push(b"Sec-WebSocket-Accept", b"abc");
        let framing = seen.server.respond(seen.streams[0], &head, &options(upgrade), &mut out);
        (out[9], framing, seen)
    };
    let (status, framing, mut seen) = answer(Status::SWITCHING_PROTOCOLS, true);
    assert_eq!((status, framing), (0x88, Some(ResponseFraming::Streamed)), "indexed :status 200");
    assert_eq!(seen.events[1..], ["1 data bye", "1 end "]);
    let mut out = Vec::new();
    seen.server.send_data(seen.streams[0], b"bye", true, &mut out);
    assert_eq!((describe_frames(&out), seen.server.open_streams()), (vec!["data 1 true 3".to_owned()], 0));
    let (status, _, _) = answer(Status::NOT_FOUND, false);
    assert_eq!(status, 0x8d, "indexed :status 404");
    let (status, _, _) = answer(Status::OK, false);
    assert_eq!(status, 0x08, "a literal: 501");
}

#[test]
fn leaving_is_announced_before_it_is_final() {
    let mut seen = gets(&[1]);
    let mut out = Vec::new();
    seen.server.shut_down(10, &mut out);
    assert_eq!(describe_frames(&out), ["goaway 2147483647 NO_ERROR", "ping false draining"]);
    let mut peer = Peer::client();
    peer.bytes.clear();
    // On its way before the client knew: it is served.
    peer.headers(3, true, GET).frame(Frame::Ping { ack: true, opaque: *b"draining" });
    // Against better knowledge: it is not, and its block counts for the tables all the same.
    peer.headers(5, true, &[GET[0], GET[1], GET[2], GET[3], ("x-a", "b")]);
    peer.headers(7, true, &[GET[0], GET[1], GET[2], GET[3], ("x-a", "b")]);
    peer.data(5, true, b"x");
    seen.frames.clear();
    seen.read(&peer.bytes, 20);
    assert_eq!((seen.error, seen.streams.len()), (None, 2));
    assert_eq!(seen.frames, ["goaway 3 NO_ERROR"]);
    assert!(!seen.server.is_drained());
    for stream in seen.streams.clone() {
        seen.server.respond(stream, &ok(), &options(false), &mut out);
        seen.server.send_data(stream, b"", true, &mut out);
    }
    assert!(seen.server.is_drained());
    // Behind the word of an error there is nothing to say.
    let mut seen = gets(&[]);
    let mut peer = Peer::client();
    peer.bytes.clear();
    peer.frame(Frame::Data { stream: 1, ends: false, data: b"x" });
    seen.read(&peer.bytes, 10);
    assert!(seen.error.is_some());
    let mut out = Vec::new();
    seen.server.shut_down(20, &mut out);
    seen.server.leave(&mut out);
    assert_eq!(out, b"");
    // Without an answer to the PING, time does it.
    let mut seen = gets(&[1]);
    seen.server.shut_down(10, &mut out);
    out.clear();
    seen.server.on_deadline(seen.server.deadline().unwrap(), &mut out).unwrap();
    assert_eq!(describe_frames(&out), ["goaway 1 NO_ERROR"]);
}

#[test]
fn lines_that_must_not_be_sent_are_left_out_or_cleaned() {
    let mut seen = gets(&[1]);
    let mut head = ok();
    for (name, value) in [
        ("Connection", "close"),
        ("Keep-Alive", "timeout=5"),
        ("Transfer-Encoding", "chunked"),
        ("Bad Name", "x"),
        ("X-Split", "a\r\nSet-Cookie: b"),
        ("TE", "gzip"),
    ] {
        head.fields.push(name.as_bytes(), value.as_bytes());
    }
    let mut out = Vec::new();
    seen.server.respond(seen.streams[0], &head, &options(false), &mut out);
    let decoded = loona_hpack::Decoder::new().decode(&out[9..]).unwrap();
    let lines: Vec<String> = decoded
        .iter()
        .map(|(name, value)| format!("{}: {}", name.escape_ascii(), value.escape_ascii()))
        .collect();
    assert_eq!(lines, [":status: 200", "date: Sun, 06 Nov 1994 08:49:37 GMT", "x-split: a  Set-Cookie: b",]);
}

#[test]
fn a_head_larger_than_a_frame_is_continued() {
    let mut seen = gets(&[1]);
    let mut head = ok();
    for _ in 0..5 {
        head.fields.push(b"x-large", &[b'{'; 5000]);
    }
    let mut out = Vec::new();
    seen.server.respond(
        seen.streams[0],
        &head,
        &RespondOptions { trailers_expected: true, ..options(false) },
        &mut out,
    );
    let mut client = Client::new(Config::default());
    let mut to_server = Vec::new();
    client.start(0, &mut to_server);
    let stream = client.request(&get(&Fields::default()), &mut to_server).unwrap();
    let mut bytes = Peer::server().bytes;
    bytes.extend_from_slice(&out);
    let mut read = Read::new(client);
    read.read(&bytes);
    assert_eq!(read.events, ["1 head 200 Streamed"]);
    assert_eq!(read.head.fields.named(b"x-large").count(), 5);
    assert_eq!(stream.id(), 1);
}

// The client's side.

fn get(fields: &Fields) -> NewRequest<'_> {
    NewRequest {
        method: b"GET",
        scheme: b"http",
        authority: b"example.com",
        path: b"/",
        protocol: None,
        fields,
        framing: RequestFraming::None,
    }
}

/// A client, and what it saw and said.
struct Read {
    client: Client,
    events: Vec<String>,
    losses: Vec<StreamLoss>,
    out: Vec<u8>,
    head: ResponseHead,
    error: Option<ErrorCode>,
}

impl Read {
    fn new(client: Client) -> Read {
        let head = ResponseHead::default();
        Read { client, events: Vec::new(), losses: Vec::new(), out: Vec::new(), head, error: None }
    }

    /// A client with so many requests under way.
    fn with_requests(count: u32) -> Read {
        let mut client = Client::new(Config::default());
        let mut out = Vec::new();
        client.start(0, &mut out);
        for _ in 0..count {
            client.request(&get(&Fields::default()), &mut out).unwrap();
        }
        Read::new(client)
    }

    fn read(&mut self, bytes: &[u8]) {
        let mut input = bytes;
        loop {
            let event = match self.client.read(&mut input, 0, 32_768, &mut self.head, &mut self.out) {
                Ok(ClientEvent::NeedMore | ClientEvent::Closed) => break,
                Ok(ClientEvent::Interim { stream }) => {
                    format!("{} interim {}", stream.id(), self.head.status.0)
                }
                Ok(ClientEvent::Head { stream, framing, switched }) => {
                    let switched = if switched { " switched" } else { "" };
                    format!("{} head {} {framing:?}{switched}", stream.id(), self.head.status.0)
                }
                Ok(ClientEvent::Data { stream, data }) => {
                    self.client.consumed(stream, data.len(), &mut self.out);
                    format!("{} data {}", stream.id(), data.escape_ascii())
                }
                Ok(ClientEvent::End { stream, has_trailers }) => {
                    format!("{} end {has_trailers}", stream.id())
                }
                Ok(ClientEvent::Lost { stream, loss }) => {
                    self.losses.push(loss);
                    format!("{} lost {} {}", stream.id(), loss.code.name(), loss.may_be_processed)
                }
                Ok(ClientEvent::GoingAway { code }) => format!("going away {}", code.name()),
                Err(error) => {
                    self.error = Some(error.code);
                    continue;
                }
            };
            self.events.push(event);
        }
    }
}

/// What one request's client makes of a server's frames.
fn answered(write: impl FnOnce(&mut Peer)) -> Read {
    let mut peer = Peer::server();
    write(&mut peer);
    let mut read = Read::with_requests(1);
    read.read(&peer.bytes);
    read
}

#[test]
fn a_client_begins_with_preface_and_settings_and_may_ask_at_once() {
    let mut client = Client::new(Config::default());
    let mut out = Vec::new();
    client.start(0, &mut out);
    let mut fields = Fields::default();
    for (name, value) in [
        ("Host", "other.example"),
        ("Connection", "close"),
        ("Content-Length", "77"),
        ("TE", "trailers"),
        ("Authorization", "Basic eDp5"),
    ] {
        fields.push(name.as_bytes(), value.as_bytes());
    }
    client.request(&NewRequest { framing: RequestFraming::Length(3), ..get(&fields) }, &mut out).unwrap();
    let rest = out.strip_prefix(super::super::PREFACE).unwrap();
    let frames = describe_frames(rest);
    assert!(frames[0].starts_with("Settings([0, 2, 0, 0, 0, 0, 0, 4,"), "no push: {}", frames[0]);
    assert_eq!(frames[2], "headers 1 false");
    let block = rest.len() - loona_hpack::Decoder::new().decode(&rest[rest.len()..]).unwrap().len();
    assert_eq!(block, rest.len());
    // The server at the other end sees what was meant.
    let mut seen = serve_with(Config::default(), &Peer { bytes: Vec::new(), ..Peer::client() });
    seen.read(&out, 0);
    assert_eq!(
        seen.events,
        ["1 head GET / HTTP/2.0 host example.com:None Length(3) [content-length=3,te=trailers,\
          authorization=Basic eDp5,host=example.com] ignored 0"]
    );
}

#[test]
fn responses_come_out_whole_with_interims_and_trailers() {
    let read = answered(|peer| {
        peer.headers(1, false, &[(":status", "103"), ("link", "x")]);
        peer.headers(1, false, &[(":status", "200"), ("content-length", "5"), ("server", "s")]);
        peer.data(1, false, b"hel").data(1, false, b"lo");
        peer.headers(1, true, &[("grpc-status", "0")]);
    });
    assert_eq!(
        read.events,
        ["1 interim 103", "1 head 200 Length(5)", "1 data hel", "1 data lo", "1 end true"]
    );
    assert_eq!(read.head.fields.named(b"grpc-status").next(), Some(&b"0"[..]));
    let read = answered(|peer| {
        peer.headers(1, true, &[(":status", "404")]);
    });
    assert_eq!(read.events, ["1 head 404 None", "1 end false"]);
    assert_eq!(read.client.open_streams(), 0);
}

#[test]
fn malformed_responses_lose_their_stream_alone() {
    let cases: &[&[(&str, &str)]] = &[
        &[],
        &[("server", "x")],
        &[(":status", "20")],
        &[(":status", "2000")],
        &[(":status", "abc")],
        &[(":status", "101")],
        &[(":status", "600")],
        &[(":status", "200"), (":status", "200")],
        &[("server", "x"), (":status", "200")],
        &[(":status", "200"), (":path", "/")],
        &[(":status", "200"), ("connection", "close")],
        &[(":status", "200"), ("Server", "x")],
        &[(":status", "200"), ("x", " y")],
        &[(":status", "200"), ("content-length", "x")],
        &[(":status", "200"), ("content-length", "1"), ("content-length", "1")],
        &[(":status", "200"), ("content-length", "1")],
        &[(":status", "103")],
    ];
    for lines in cases {
        let read = answered(|peer| {
            peer.headers(1, true, lines);
        });
        assert_eq!(read.events, ["1 lost PROTOCOL_ERROR true"], "{lines:?}");
        assert_eq!(read.error, None);
    }
    let lost = |write: fn(&mut Peer)| answered(write).events.pop().unwrap();
    assert_eq!(
        lost(|peer| {
            peer.data(1, true, b"x");
        }),
        "1 lost PROTOCOL_ERROR true"
    );
    assert_eq!(
        lost(|peer| {
            peer.headers(1, false, &[(":status", "200"), ("content-length", "2")]).data(1, true, b"x");
        }),
        "1 lost PROTOCOL_ERROR true"
    );
    assert_eq!(
        lost(|peer| {
            peer.headers(1, false, &[(":status", "304")]).data(1, true, b"x");
        }),
        "1 lost PROTOCOL_ERROR true"
    );
    let interims = lost(|peer| {
        for _ in 0..17 {
            peer.headers(1, false, &[(":status", "100")]);
        }
    });
    assert_eq!(interims, "1 lost ENHANCE_YOUR_CALM true");
}

#[test]
fn servers_that_break_the_connections_rules_lose_it() {
    let code = |write: fn(&mut Peer)| answered(write).error;
    let protocol = Some(ErrorCode::PROTOCOL_ERROR);
    assert_eq!(code(|peer| peer.bytes = b"HTTP/1.1 400 Bad Request\r\n".to_vec()), protocol);
    assert_eq!(
        code(|peer| {
            peer.headers(3, true, &[(":status", "200")]);
        }),
        protocol
    );
    assert_eq!(
        code(|peer| {
            peer.headers(2, true, &[(":status", "200")]);
        }),
        protocol
    );
    assert_eq!(
        code(|peer| {
            peer.frame(Frame::PushPromise { stream: 1 });
        }),
        protocol
    );
    assert_eq!(
        code(|peer| {
            peer.frame(Frame::Settings(&[0, 2, 0, 0, 0, 1]));
        }),
        protocol
    );
    let update = |peer: &mut Peer| {
        peer.frame(Frame::PriorityUpdate { stream: 1, value: b"" });
    };
    assert_eq!(code(update), protocol);
    let closed = |peer: &mut Peer| {
        peer.headers(1, true, &[(":status", "200")]).headers(1, true, &[(":status", "200")]);
    };
    assert_eq!(code(closed), Some(ErrorCode::STREAM_CLOSED));
}

#[test]
fn interim_responses_have_a_bound() {
    let most = super::super::abuse::Limit::InterimResponses.bounds().0;
    for (count, is_lost) in [(most, false), (most + 1, true)] {
        let read = answered(|peer| {
            for _ in 0..count {
                peer.headers(1, false, &[(":status", "103")]);
            }
        });
        let lost = read.events.last().is_some_and(|event| event.starts_with("1 lost ENHANCE_YOUR_CALM"));
        assert_eq!((lost, read.error), (is_lost, None), "{:?}", read.events);
        assert_eq!(
            read.client.limit_counts()[super::super::abuse::Limit::InterimResponses as usize],
            u32::from(is_lost)
        );
    }
}

/// RFC 9113 section 8.7.
#[test]
fn requests_that_were_not_processed_are_told_from_those_that_may_have_been() {
    let mut read = Read::with_requests(4);
    let mut peer = Peer::server();
    peer.frame(Frame::Reset { stream: 1, code: ErrorCode::REFUSED_STREAM });
    peer.frame(Frame::Reset { stream: 3, code: ErrorCode::CANCEL });
    peer.frame(Frame::GoAway { last: 5, code: ErrorCode::NO_ERROR, debug: b"" });
    peer.headers(5, true, &[(":status", "200")]);
    read.read(&peer.bytes);
    assert_eq!(
        read.events,
        [
            "1 lost REFUSED_STREAM false",
            "3 lost CANCEL true",
            "going away NO_ERROR",
            "7 lost REFUSED_STREAM false",
            "5 head 200 None",
            "5 end false",
        ]
    );
    assert_eq!(read.client.free_streams(), 0);
    let error = read.client.request(&get(&Fields::default()), &mut Vec::new());
    assert_eq!(error, Err(OpenError::Unavailable));
    // The last stream never rises.
    peer.bytes.clear();
    peer.frame(Frame::GoAway { last: 7, code: ErrorCode::NO_ERROR, debug: b"" });
    read.read(&peer.bytes);
    assert_eq!(read.error, Some(ErrorCode::PROTOCOL_ERROR));
}

/// Several requests are lost at once, and told of one after the other.
#[test]
fn a_request_that_was_given_up_is_not_told_as_lost_behind_that() {
    let mut read = Read::with_requests(1);
    let second = read.client.request(&get(&Fields::default()), &mut read.out).unwrap();
    let mut peer = Peer::server();
    peer.frame(Frame::GoAway { last: 0, code: ErrorCode::NO_ERROR, debug: b"" });
    let mut input = &peer.bytes[..];
    let event = read.client.read(&mut input, 0, 32_768, &mut read.head, &mut read.out);
    assert!(matches!(event, Ok(ClientEvent::GoingAway { .. })));
    let sent = read.out.len();
    read.client.reset(second, ErrorCode::CANCEL, &mut read.out);
    read.read(&[]);
    assert_eq!(read.events, ["1 lost REFUSED_STREAM false"]);
    assert_eq!(read.out.len(), sent, "a stream that is gone is not reset");
}

/// RFC 9113 section 6.5.3: the server acknowledges nothing, and gives no window either.
#[test]
fn nothing_is_told_behind_the_end_of_a_connection() {
    let config = Config { window_timeout_ms: 1000, ..Config::default() };
    let mut read = Read::new(Client::new(config));
    read.client.start(0, &mut read.out);
    let fields = Fields::default();
    let request = NewRequest { framing: RequestFraming::Streamed, ..get(&fields) };
    let stream = read.client.request(&request, &mut read.out).unwrap();
    let mut peer = Peer { bytes: Vec::new(), ..Peer::server() };
    peer.frame(Frame::Settings(&[0, 4, 0, 0, 0, 0]));
    read.read(&peer.bytes);
    read.client.set_has_data(stream, true);
    while read.client.open_streams() > 0 {
        read.client.on_deadline(read.client.deadline().unwrap(), &mut read.out).unwrap();
    }
    let error = read.client.on_deadline(config.settings_timeout_ms, &mut read.out).unwrap_err();
    assert_eq!(error.code, ErrorCode::SETTINGS_TIMEOUT);
    read.read(&[]);
    assert_eq!(read.events, [""; 0]);
}

#[test]
fn as_many_requests_as_the_server_allows() {
    let mut read = Read::with_requests(0);
    assert_eq!(read.client.free_streams(), 100, "before it has said anything");
    let mut peer = Peer { bytes: Vec::new(), ..Peer::server() };
    peer.frame(Frame::Settings(&[0, 3, 0, 0, 0, 2]));
    read.read(&peer.bytes);
    let fields = Fields::default();
    let mut open = || read.client.request(&get(&fields), &mut read.out);
    assert!(open().is_ok() && open().is_ok());
    assert_eq!(open(), Err(OpenError::TooMany));
    peer.bytes.clear();
    peer.headers(1, true, &[(":status", "200")]);
    read.read(&peer.bytes);
    assert_eq!(read.client.free_streams(), 1);
}

#[test]
fn requests_that_can_not_be_sent_are_not() {
    let mut client = Client::new(Config::default());
    let fields = Fields::default();
    let good = get(&fields);
    let bad = [
        NewRequest { method: b"", ..good },
        NewRequest { method: b"G T", ..good },
        NewRequest { path: b"", ..good },
        NewRequest { path: b"a", ..good },
        NewRequest { path: b"/a b", ..good },
        NewRequest { path: b"/\r\n", ..good },
        NewRequest { authority: b"a b", ..good },
        NewRequest { scheme: b"", ..good },
        NewRequest { method: b"CONNECT", authority: b"", ..good },
        NewRequest { protocol: Some(b"websocket"), ..good },
    ];
    let mut out = Vec::new();
    for request in bad {
        assert!(matches!(client.request(&request, &mut out), Err(OpenError::Invalid(_))), "{request:?}");
    }
    let tunnel = NewRequest { method: b"CONNECT", protocol: Some(b"websocket"), ..good };
    assert_eq!(client.request(&tunnel, &mut out), Err(OpenError::NoTunnels));
    assert_eq!(out, b"");
}

#[test]
fn a_tunnel_through_both_machines() {
    let mut read = Read::with_requests(0);
    let mut peer = Peer { bytes: Vec::new(), ..Peer::server() };
    peer.frame(Frame::Settings(&[0, 8, 0, 0, 0, 1]));
    read.read(&peer.bytes);
    let fields = Fields::default();
    let ask = NewRequest { method: b"CONNECT", protocol: Some(b"websocket"), ..get(&fields) };
    let stream: StreamKey = read.client.request(&ask, &mut read.out).unwrap();
    assert_eq!(read.client.send_data(stream, b"up", false, &mut read.out), 2);
    peer.bytes.clear();
    peer.headers(1, false, &[(":status", "200")]).data(1, false, b"down").data(1, true, b"");
    read.read(&peer.bytes);
    assert_eq!(read.events, ["1 head 200 Streamed switched", "1 data down", "1 end false"]);
    assert_eq!(read.client.open_streams(), 1, "this side has not ended");
    read.client.send_data(stream, b"", true, &mut read.out);
    assert_eq!(read.client.open_streams(), 0);
}
