//! Requests that wait for window are parked (`src/server/client/output/parking.rs`): nobody must see it from how they go
//! on and how they end.

use crate::util::h2::{H2, *};
use crate::util::{Client, Server, eventually};

/// More streams of a worker that wait for window keep all their memory.
const UNPARKED: usize = 64;

const FORMAT: &str = "$request_method $host $uri|$args|$request|$request_uri|$status|$body_bytes_sent|\
    $request_completion|$http_x_a|$http_x_real_ip|$sent_http_content_type|$sent_http_content_length|\
    $sent_http_last_modified|$sent_http_etag|$sent_http_location|$sent_http_x_b|$name|$v|$kept|$request_filename|\
    $document_root|$limit_conn_status|$limit_req_status|$remote_addr|$realip_remote_addr|$upstream_status|\
    $upstream_http_x_from|$upstream_bytes_received|$gzip_ratio|$request_body|$limit_rate|$scheme|$server_protocol|\
    $server_port|$uid_set|$query_string|$content_length|$is_args|$arg_a|$cookie_c|$sent_http_content_range";

fn start() -> Server {
    let server = Server::start(&format!(
        "worker_processes 1;
         http {{
           log_format f '{FORMAT}'; access_log {{root}}/access.log f;
           uninitialized_variable_warn off;
           http2_max_concurrent_streams 4000; keepalive_requests 100000; client_body_buffer_size 64k;
           limit_conn_zone $server_port zone=c:1m; limit_req_zone $server_port zone=r:1m rate=1000r/s;
           map $arg_a $kept {{ default none; ~^(?<first>.) $first-$uri; }}
           set_real_ip_from 127.0.0.1; real_ip_header X-Real-IP;
           server {{
             listen {{port}}; http2 on; root {{root}}/html; error_page 404 /1.bin; error_page 403 =200 /2.bin;
             location ~ ^/pattern/(?<name>..)(.) {{ set $v \"$1-$2\"; add_header X-B $v; try_files /3.bin =404; }}
             location /limited {{ limit_conn c 300; limit_req zone=r burst=1000 nodelay; alias {{root}}/html/4.bin; }}
             location = /alone {{ limit_conn c 1; try_files /5.bin =404; }}
             location /refused {{ deny all; }}
             location /packed {{ gzip on; sub_filter_types *; sub_filter 'line' 'verse'; gzip_min_length 1; gzip_types *; alias {{root}}/html/text; }}
             location /changed {{ sub_filter_types *; sub_filter 'line' 'verse'; alias {{root}}/html/text; }}
             location /memory {{ set $t '{text}'; return 200 $t$t$t$t$t; }}
             location /accel {{ proxy_pass http://127.0.0.1:{{port}}/origin; }}
             location /origin {{ add_header X-Accel-Redirect /6.bin; add_header X-From there; return 200; }}
             location /slow {{ limit_rate 100m; limit_rate_after 10; alias {{root}}/html/7.bin; }}
             location /known {{ userid on; userid_name id; alias {{root}}/html/1.bin; }}
             location /after {{ post_action /post; alias {{root}}/html/2.bin; }}
             location /post {{ return 200; }}
           }}
         }}",
        text = "text ".repeat(400)
    ));
    for number in 1..8u8 {
        server.write(
            &format!("html/{number}.bin"),
            (0..30_000).map(|at| at as u8 ^ number).collect::<Vec<u8>>(),
        );
    }
    server.write("html/text", (0..30_000).map(|line| format!("line {line}\n")).collect::<String>());
    server
}

/// One request of each kind.
fn ask_for_all(h2: &mut H2) -> Vec<u32> {
    // The connection has begun.
    let first = h2.get("/7.bin?crowd");
    h2.wait_until(|h2| h2.streams[&first].status == 200);
    let real_ip = ("x-real-ip", "192.0.2.7");
    let mut ids = Vec::new();
    for path in [
        "/1.bin?a=b",
        "/pattern/abc?a=xyz",
        "/limited",
        "/missing",
        "/refused",
        "/changed",
        "/memory",
        "/accel?a=1",
        "/slow",
        "/after",
    ] {
        ids.push(h2.open(&[(":path", path), ("x-a", path), ("cookie", "c=1")], true));
        ids.push(h2.open(&[(":path", path), real_ip], true));
    }
    ids.push(h2.open(&[(":path", "/packed"), ("accept-encoding", "gzip")], true));
    ids.push(h2.open(&[(":path", "/1.bin"), ("range", "bytes=5-2000,3000-29999")], true));
    ids.push(h2.open(&[(":path", "/1.bin"), ("range", "bytes=5-20000")], true));
    let post = h2.open(&[(":path", "/accel"), (":method", "POST"), ("content-length", "5")], false);
    h2.send(DATA, END_STREAM, post, b"hello");
    ids.push(post);
    ids
}

/// A client whose streams begin without a window.
fn without_window(server: &Server) -> H2 {
    let mut h2 = H2::over(Client::connect(server.port()), &[(4, 0)]);
    h2.gives_window = false;
    h2.send(WINDOW_UPDATE, 0, 0, &0x1000_0000u32.to_be_bytes());
    h2
}

fn give_window(h2: &mut H2, ids: &[u32], bytes: u32) {
    ids.iter().for_each(|id| h2.send(WINDOW_UPDATE, 0, *id, &bytes.to_be_bytes()));
}

/// A client with as many streams as it takes for all before them to be parked; their heads have come.
fn crowd(server: &Server) -> H2 {
    let mut h2 = without_window(server);
    let ids: Vec<u32> = (0..UNPARKED * 2).map(|_| h2.get("/7.bin?crowd")).collect();
    h2.wait_until(|h2| ids.iter().all(|id| h2.streams[id].status == 200));
    h2
}

/// What can be compared of a response: boundaries of multiple ranges are counted up.
fn answer(stream: &Stream) -> (u16, Vec<u8>, Option<u32>) {
    let body = match stream.header("content-type") {
        Some(kind) if kind.starts_with("multipart/byteranges") => {
            let boundary = kind.rsplit('=').next().unwrap();
            let text: String = stream.body.iter().map(|byte| char::from(*byte)).collect();
            text.replace(boundary, "").chars().map(|one| one as u8).collect()
        }
        _ => stream.body.clone(),
    };
    (stream.status, body, stream.reset)
}

/// The log's lines behind so many of the requests that are compared, in one order and without boundaries.
fn lines(server: &Server, behind: usize, count: usize) -> Vec<String> {
    let of = |server: &Server| {
        let log = server.access_log();
        let without_boundary = |line: &str| match line.split_once("boundary=") {
            Some((before, rest)) => format!("{before}{}", rest.trim_start_matches(|one: char| one != '|')),
            None => line.to_owned(),
        };
        let asked = log.lines().filter(|line| !line.contains("crowd"));
        let mut lines: Vec<String> = asked.skip(behind).map(without_boundary).collect();
        lines.sort();
        lines
    };
    eventually("lines of all requests", || of(server).len() >= count);
    of(server)
}

#[test]
fn parked_requests_go_on_and_end_as_others_do() {
    let server = start();
    let mut h2 = H2::connect(server.port());
    let expected: Vec<_> = ask_for_all(&mut h2).into_iter().map(|id| answer(&h2.wait(id))).collect();
    assert!(
        expected.iter().all(|(status, body, reset)| *status != 0 && body.len() > 5000 && reset.is_none())
    );
    // Each `/accel` is two lines; `post_action` has none.
    let count = expected.len() + 3;
    let expected_lines = lines(&server, 0, count);
    assert_eq!(expected_lines.len(), count, "{expected_lines:#?}");
    for (round, has_waited) in [false, true].into_iter().enumerate() {
        let mut h2 = without_window(&server);
        let ids = ask_for_all(&mut h2);
        h2.wait_until(|h2| ids.iter().all(|id| h2.streams[id].status != 0));
        if has_waited {
            // The tick in which they stand, and another one.
            std::thread::sleep(std::time::Duration::from_millis(500));
        }
        // In pieces: they are parked in the middle of their bodies as well.
        for piece in [1000, 3000, 10_000] {
            let _crowd = crowd(&server);
            give_window(&mut h2, &ids, piece);
            h2.ping();
        }
        give_window(&mut h2, &ids, 1_000_000);
        let got: Vec<_> = ids.iter().map(|id| answer(&h2.wait(*id))).collect();
        for (number, (got, expected)) in got.iter().zip(&expected).enumerate() {
            assert!(got == expected, "request {number}, has waited: {has_waited}");
        }
        let got_lines = lines(&server, count * (round + 1), count);
        assert_eq!(got_lines.len(), count);
        for (got, expected) in got_lines.iter().zip(&expected_lines) {
            assert_eq!(got, expected, "has waited: {has_waited}");
        }
    }
}

#[test]
fn a_parked_request_keeps_its_place_of_limit_conn_until_it_is_reset() {
    let server = start();
    let mut h2 = without_window(&server);
    let first = h2.get("/alone");
    h2.wait_until(|h2| h2.streams[&first].status == 200);
    let _crowd = crowd(&server);
    assert_eq!(H2::connect(server.port()).fetch("/alone").status, 503);
    h2.send(RST_STREAM, 0, first, &CANCEL.to_be_bytes());
    eventually("the place is free", || H2::connect(server.port()).fetch("/alone").status == 200);
    eventually("its line", || {
        server.access_log().lines().any(|line| line.contains("/5.bin") && line.contains("|200|0|"))
    });
}

#[test]
fn parked_requests_of_a_connection_that_is_closed_are_logged() {
    let server = start();
    let mut h2 = without_window(&server);
    let first = h2.get("/alone");
    h2.wait_until(|h2| h2.streams[&first].status == 200);
    drop(crowd(&server));
    drop(h2);
    let unfinished = |what: &str| server.access_log().lines().filter(|line| line.contains(what)).count();
    eventually("lines of all", || {
        unfinished("crowd|200|0|") == UNPARKED * 2 && unfinished("/alone|200|0|") == 1
    });
    assert_eq!(H2::connect(server.port()).fetch("/alone").status, 200);
}
