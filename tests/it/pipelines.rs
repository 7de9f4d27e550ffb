//! Many requests on one connection: pipelines of every length and mixture, cut anywhere, read fast or slowly.

use crate::util::{Client, Parity, Server, get};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// Two ends of one connection, so that sending never waits for reading.
fn halves(server: &Server) -> (Client, Client) {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).expect("connect");
    (Client::over_tcp(stream.try_clone().expect("clone")), Client::over_tcp(stream))
}

/// So many pipelined GETs on one connection; all answers are read while the requests are still being sent.
fn pipeline(server: &Server, path: &str, count: usize) -> Vec<Vec<u8>> {
    let (mut sender, mut receiver) = halves(server);
    let requests: String =
        (0..count).map(|number| format!("GET {path}?{number} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            sender.send(requests);
        });
        (0..count)
            .map(|_| {
                let response = receiver.read_response();
                assert_eq!(response.status, 200);
                response.body
            })
            .collect()
    })
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let conf = "keepalive_requests 100000; server { listen {port}; root {root}/html;
        location /echo { return 200 $args; } }";
    let server = Server::builder(conf).file("html/a.txt", "hello").start();
    for count in [16, 100, 10_000] {
        let bodies = pipeline(&server, "/echo", count);
        for (number, body) in bodies.iter().enumerate() {
            assert_eq!(body, number.to_string().as_bytes());
        }
        assert!(pipeline(&server, "/a.txt", count).iter().all(|body| body == b"hello"));
    }
    let lines = server.access_log_lines(2 * (16 + 100 + 10_000));
    assert_eq!(lines.len(), 2 * (16 + 100 + 10_000));
}

const STATIC: &str = "server { listen {port}; root {root}/html; }";

#[test]
fn pipelined_requests_of_all_kinds_keep_their_framing() {
    let bytes = "GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n\
        HEAD /a.txt HTTP/1.1\r\nHost: a\r\n\r\n\
        POST /a.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /\
        GET /missing HTTP/1.1\r\nHost: a\r\n\r\n\
        POST /dir/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
        \r\nGET /dir HTTP/1.1\r\nHost: a\r\n\r\n\
        GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let files = [("html/a.txt", "hello"), ("html/index.html", "<p>"), ("html/dir/a.txt", "x")];
    let builder =
        files.iter().fold(Server::builder(STATIC), |builder, (path, text)| builder.file(path, text));
    let server = builder.start();
    let mut client = Client::connect(server.port());
    client.send(bytes);
    let mut statuses = Vec::new();
    for method in ["GET", "HEAD", "POST", "GET", "POST", "GET", "GET"] {
        statuses.push(client.response_to(method).expect("a response").status);
    }
    client.expect_closed();
    assert_eq!(statuses, [200, 200, 405, 404, 403, 301, 200]);
    let parity = files.iter().fold(Parity::new(STATIC), |parity, (path, text)| parity.file(path, text));
    parity.pipelined(bytes, 7).check();
}

#[test]
fn requests_behind_a_close_are_not_answered() {
    let server = Server::start("server { listen {port}; location / { return 200 $uri; } }");
    let mut client = Client::connect(server.port());
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response().text(), "/1");
    client.expect_closed();
}

#[test]
fn answers_before_a_silent_close_still_arrive() {
    let server = Server::start(
        "server { listen {port}; location / { return 200 $uri; } location /gone { return 444; } }",
    );
    let mut client = Client::connect(server.port());
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    client.send(request("/1") + &request("/2") + &request("/gone") + &request("/3"));
    assert_eq!(client.read_response().text(), "/1");
    assert_eq!(client.read_response().text(), "/2");
    client.expect_closed();
    // Nothing of it reaches anybody else.
    for _ in 0..10 {
        assert_eq!(get(server.port(), "/x").text(), "/x");
    }
}

/// A request with what its answer must be.
struct Planned {
    bytes: Vec<u8>,
    method: &'static str,
    status: u16,
    body: Vec<u8>,
}

/// The files of the mixture: their names and contents.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let numbers = |count: u32| (0..count).flat_map(u32::to_le_bytes).collect::<Vec<u8>>();
    vec![
        ("empty", Vec::new()),
        ("small", b"hello".to_vec()),
        ("middle", numbers(15_000)),
        ("large", numbers(600_000)),
    ]
}

fn planned(random: &mut fastrand::Rng, files: &[(&str, Vec<u8>)]) -> Planned {
    let plan = |method, head: String, body: &[u8], status, answer: &[u8]| Planned {
        bytes: [format!("{method} {head}\r\n").as_bytes(), body].concat(),
        method,
        status,
        body: answer.to_vec(),
    };
    let (name, content) = &files[if random.u8(..20) == 0 { 3 } else { random.usize(..3) }];
    let number = random.u32(..);
    let junk: Vec<u8> = (0..random.usize(..40_000)).map(|_| random.u8(b'a'..=b'z')).collect();
    let length = junk.len();
    let chunks = || {
        let mut text = Vec::new();
        for piece in junk.chunks(7001) {
            text.extend(format!("{:x}\r\n", piece.len()).into_bytes());
            text.extend(piece);
            text.extend(b"\r\n");
        }
        text.extend(b"0\r\n\r\n");
        text
    };
    match random.u8(..8) {
        0 | 1 => plan("GET", format!("/{name} HTTP/1.1\r\nHost: a\r\n"), b"", 200, content),
        2 => plan("HEAD", format!("/{name} HTTP/1.1\r\nHost: a\r\n"), b"", 200, b""),
        3 => plan(
            "GET",
            format!("/echo?{number} HTTP/1.1\r\nHost: a\r\n"),
            b"",
            200,
            number.to_string().as_bytes(),
        ),
        4 => plan(
            "POST",
            format!("/echo?{number} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n"),
            &junk,
            200,
            number.to_string().as_bytes(),
        ),
        5 => plan(
            "POST",
            format!("/echo?{number} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"),
            &chunks(),
            200,
            number.to_string().as_bytes(),
        ),
        6 => plan(
            "PUT",
            format!("/show?read=1 HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n"),
            &junk,
            200,
            if length > 8192 { b"file" } else { &junk },
        ),
        _ => plan(
            "PUT",
            "/show?read=1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n".to_owned(),
            &chunks(),
            200,
            if length > 8192 { b"file" } else { &junk },
        ),
    }
}

#[test]
fn mixed_pipelines_cut_anywhere_are_answered_whole_and_in_order() {
    let conf = "keepalive_requests 100000; client_body_buffer_size 8k; client_body_temp_path {root}/bodies;
        sendfile on; map $request_body_file $shown { '' $request_body; default file; }
        server { listen {port}; root {root}/html; client_body_early_read $arg_read;
        location /echo { return 200 $args; } location /show { return 200 $shown; } }";
    let files = files();
    let builder = Server::builder(conf);
    let server = files
        .iter()
        .fold(builder, |builder, (name, content)| builder.file(&format!("html/{name}"), content))
        .start();
    for seed in 0..12 {
        let mut random = fastrand::Rng::with_seed(seed);
        let plans: Vec<Planned> = (0..150).map(|_| planned(&mut random, &files)).collect();
        let bytes: Vec<u8> = plans.iter().flat_map(|plan| plan.bytes.clone()).collect();
        let (mut sender, mut receiver) = halves(&server);
        let slow_reader = seed % 3 == 0;
        std::thread::scope(|scope| {
            let mut random = fastrand::Rng::with_seed(seed + 1000);
            scope.spawn(move || {
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let most = if random.bool() { 100 } else { 30_000 };
                    let (piece, later) = rest.split_at(random.usize(1..=most).min(rest.len()));
                    sender.send(piece);
                    rest = later;
                    if random.u8(..8) == 0 {
                        std::thread::sleep(Duration::from_micros(random.u64(..1500)));
                    }
                }
            });
            for (number, plan) in plans.iter().enumerate() {
                if slow_reader && number % 8 == 0 {
                    std::thread::sleep(Duration::from_millis(20));
                }
                let what = format!("seed {seed}, request {number}");
                let response =
                    receiver.response_to(plan.method).unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(response.status, plan.status, "{what}");
                assert!(response.body == plan.body, "{what}: another body ({} bytes)", response.body.len());
            }
        });
    }
}

#[test]
fn a_long_pipeline_starves_nobody() {
    let conf = "keepalive_requests 1000000; access_log off; server { listen {port}; location / { return 200 $args; } }";
    let server = Server::start(conf);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (mut sender, mut receiver) = halves(&server);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let requests = "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100);
            while sender.try_send(&requests) {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
            }
            sender.finish_sending();
        });
        scope.spawn(|| receiver.read_to_end());
        for _ in 0..50 {
            assert_eq!(get(server.port(), "/?other").text(), "other");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
