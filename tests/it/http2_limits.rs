//! Every limit of HTTP/2 against floods: what reaches it, that it is named in the log, and that it is counted by its name.

use crate::util::h2::{self, H2, *};
use crate::util::{Client, Server, eventually};

const NAMES: [&str; 11] = [
    "rapid_reset",
    "stream_errors",
    "continuations",
    "block_bytes",
    "empty_frames",
    "pings",
    "settings",
    "window_updates",
    "priorities",
    "ignored_frames",
    "stalled_streams",
];

fn start() -> Server {
    let numbers = NAMES.map(|name| format!("{name}=$http2_limit_{name}")).join(" ");
    let server = Server::start(&format!(
        "worker_processes 2; error_log {{root}}/error.log info;
         http {{ send_timeout 300ms; server {{ listen {{port}}; http2 on; root {{root}}/html;
           location = /numbers {{ return 200 '{numbers}'; }} location = /empty {{ return 204; }} }} }}"
    ));
    server.write("html/file", vec![b'x'; 100_000]);
    server
}

/// The limits that have closed a connection, with how many.
fn reached(server: &Server) -> Vec<String> {
    let text = crate::util::get(server.port(), "/numbers").text();
    text.split_whitespace().filter(|count| !count.ends_with("=0")).map(str::to_owned).collect()
}

/// Sends pieces until the server has had enough; how it said so.
fn flood(mut h2: H2, pieces: impl IntoIterator<Item = Vec<u8>>) -> Option<u32> {
    for piece in pieces {
        if !h2.client.try_send(&piece) {
            break;
        }
    }
    h2.drain();
    h2.goaways.last().map(|(_, code)| *code)
}

fn odd_ids() -> impl Iterator<Item = u32> {
    (1..20_001).step_by(2)
}

fn twice(first: Vec<u8>, second: Vec<u8>) -> Vec<u8> {
    [first, second].concat()
}

/// What reaches a limit.
fn reach(name: &str, server: &Server) -> Option<u32> {
    let h2 = H2::connect(server.port());
    let same = |frame: Vec<u8>| std::iter::repeat_n(frame.repeat(100), 200);
    let get = |id, path| h2::frame(HEADERS, END_STREAM | END_HEADERS, id, &h2::head(&[(":path", path)]));
    match name {
        "rapid_reset" => {
            let reset = |id| h2::frame(RST_STREAM, 0, id, &CANCEL.to_be_bytes());
            flood(h2, odd_ids().map(|id| twice(get(id, "/file"), reset(id))))
        }
        "stream_errors" => {
            let post = |id| h2::frame(HEADERS, END_HEADERS, id, &h2::head(&[(":method", "POST")]));
            let no_update = |id| h2::frame(WINDOW_UPDATE, 0, id, &[0; 4]);
            flood(h2, odd_ids().map(|id| twice(post(id), no_update(id))))
        }
        "continuations" => {
            // Each brings a little, so that it is not empty.
            let first = h2::frame(HEADERS, END_STREAM, 1, &h2::head(&[]));
            let mut field = Vec::new();
            h2::literal("x", "y", &mut field);
            flood(h2, std::iter::once(first).chain(same(h2::frame(CONTINUATION, 0, 1, &field))))
        }
        "block_bytes" => {
            let mut field = Vec::new();
            h2::literal("x", &"y".repeat(15_000), &mut field);
            let first = h2::frame(HEADERS, END_STREAM, 1, &h2::head(&[]));
            flood(h2, std::iter::once(first).chain(same(h2::frame(CONTINUATION, 0, 1, &field))))
        }
        "empty_frames" => {
            let post = h2::frame(HEADERS, END_HEADERS, 1, &h2::head(&[(":method", "POST")]));
            flood(h2, std::iter::once(post).chain(same(h2::frame(DATA, 0, 1, b""))))
        }
        "pings" => flood(h2, same(h2::frame(PING, 0, 0, &[0; 8]))),
        "settings" => flood(h2, same(h2::frame(SETTINGS, 0, 0, b""))),
        "window_updates" => flood(h2, same(h2::frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()))),
        "priorities" => flood(h2, same(h2::frame(PRIORITY, 0, 9, &[0, 0, 0, 0, 16]))),
        "ignored_frames" => flood(h2, same(h2::frame(99, 0, 0, b"x"))),
        "stalled_streams" => {
            let mut h2 = H2::over(Client::connect(server.port()), &[(4, 0)]);
            h2.gives_window = false;
            for _ in 0..80 {
                h2.get("/file");
            }
            while h2.pump() {}
            h2.goaways.last().map(|(_, code)| *code)
        }
        other => unreachable!("{other} has no flood"),
    }
}

#[test]
fn each_limit_closes_its_connection_by_name_and_counts() {
    let server = start();
    assert_eq!(reached(&server), [""; 0]);
    for (number, name) in NAMES.into_iter().enumerate() {
        assert_eq!(reach(name, &server), Some(ENHANCE_YOUR_CALM), "{name}");
        eventually(&format!("{name} is counted"), || reached(&server).len() == number + 1);
        assert!(reached(&server).contains(&format!("{name}=1")), "{name}: {:?}", reached(&server));
    }
    // What workers that ended have counted stays counted.
    let before = reached(&server);
    server.write("nginx.conf", server.read("nginx.conf").replace("worker_processes 2", "worker_processes 1"));
    server.reload();
    eventually("a worker less", || server.error_log().contains("reconfiguring"));
    assert_eq!(reached(&server), before);
}

#[test]
fn a_stream_may_wait_for_window_as_long_as_its_location_says() {
    let server = Server::start(
        "http { send_timeout 300ms; server { listen {port}; http2 on; root {root}/html;
           location /patient { alias {root}/html/; send_timeout 1h; } } }",
    );
    server.write("html/file", vec![b'x'; 100_000]);
    let mut h2 = H2::over(Client::connect(server.port()), &[(4, 0)]);
    h2.gives_window = false;
    let (patient, hasty) = (h2.get("/patient/file"), h2.get("/file"));
    h2.wait_until(|h2| h2.is_over(hasty));
    assert_eq!(h2.streams[&hasty].reset, Some(CANCEL));
    // The server's own timeout, by which the other one would be gone, has passed once more.
    let other = h2.get("/file");
    h2.wait_until(|h2| h2.is_over(other));
    assert_eq!((h2.streams[&patient].status, h2.streams[&patient].reset), (200, None));
    h2.send(WINDOW_UPDATE, 0, patient, &200_000u32.to_be_bytes());
    h2.send(WINDOW_UPDATE, 0, 0, &200_000u32.to_be_bytes());
    assert_eq!(h2.wait(patient).body.len(), 100_000);
}
