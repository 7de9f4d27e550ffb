//! Requests over a disk that fails under them: a real worker, turned by hand, whose calls for files' bytes are struck
//! by a seed.
//!
//! The laws: while the disk is merely slow, every request is answered whole; whatever it does, nothing that looks
//! complete has other bytes, no connection hangs, and when it is well again all is as ever.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use super::tests::Ground;
use super::*;
use crate::server::files::faults::{self, Plan, Weather};

/// Bytes of the large file, which does not fit a socket.
const LARGE: usize = 700_000;
/// Rounds in which nothing came before a connection counts as hanging.
const PATIENCE: usize = 400;

fn content(length: usize) -> Vec<u8> {
    (0..length as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Answers each connection's request, of whatever length, with the large body and a close.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let mut piece = [0; 65536];
                let end = |bytes: &[u8]| {
                    let head = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
                    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
                    let length = text.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
                    Some(head + length.map_or(0, |text| text.parse::<usize>().unwrap()))
                };
                while end(&bytes).is_none_or(|end| bytes.len() < end) {
                    match stream.read(&mut piece) {
                        Ok(count) if count > 0 => bytes.extend_from_slice(&piece[..count]),
                        _ => return,
                    }
                }
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\nConnection: close\r\n\r\n");
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&content(LARGE)));
            });
        }
    });
    address
}

/// A worker whose threads all follow the plan.
fn ground(upstream: SocketAddr) -> (Arc<Plan>, Ground) {
    let plan = faults::begin();
    let ground = Ground::of(1, &|address, root| {
        std::fs::create_dir(format!("{root}/html")).unwrap();
        std::fs::write(format!("{root}/html/large"), content(LARGE)).unwrap();
        std::fs::write(format!("{root}/html/small"), content(3000)).unwrap();
        let folder = format!("{root}/html/");
        format!(
            "events {{}} http {{ access_log off; output_buffers 2 16k; client_body_temp_path {root}/body;
             proxy_temp_path {root}/proxy; client_body_buffer_size 8k; proxy_buffers 4 4k; proxy_buffer_size 4k;
             server {{ listen {address};
             location /sendfile/ {{ alias {folder}; sendfile on; }}
             location /buffers/ {{ alias {folder}; sendfile off; }}
             location /threads/ {{ alias {folder}; sendfile off; aio threads; }}
             location /direct/ {{ alias {folder}; directio 4k; }}
             location /filtered/ {{ alias {folder}; sub_filter_types *; sub_filter 'no such text in it' 'x'; }}
             location /pass {{ proxy_pass http://{upstream}; }} }} }}"
        )
    });
    (plan, ground)
}

/// What came of a request.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Whole,
    /// An error status, in order.
    Refused(u16),
    /// Cut, so that nobody takes it for whole.
    Cut,
}

/// Makes a request on a connection of its own, and reads slowly while the worker turns.
fn ask(worker: &mut Worker, ground: &Ground, request: &[u8], expected: &[u8]) -> Outcome {
    let mut stream = ground.connect();
    stream.set_nonblocking(true).unwrap();
    let (mut sent, mut answer, mut quiet) = (0, Vec::new(), 0);
    let mut piece = vec![0; 30_000];
    loop {
        if sent < request.len()
            && let Ok(count) = stream.write(&request[sent..])
        {
            sent += count;
        }
        // What waits for a thread of the pool, or for the upstream, takes a moment.
        worker.round_of(Duration::from_millis(if quiet > 3 { 20 } else { 0 }));
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => {
                answer.extend_from_slice(&piece[..count]);
                quiet = 0;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                quiet += 1;
                assert!(quiet < PATIENCE, "hangs after {} bytes", answer.len());
            }
            // A reset cuts as well.
            Err(_) => return Outcome::Cut,
        }
    }
    let Some(end) = memchr::memmem::find(&answer, b"\r\n\r\n") else { return Outcome::Cut };
    let (head, body) = answer.split_at(end + 4);
    let head = String::from_utf8_lossy(head).into_owned();
    let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = match head.split("Content-Length: ").nth(1).and_then(|rest| rest.lines().next()) {
        Some(length) if length.parse::<usize>().unwrap() != body.len() => return Outcome::Cut,
        Some(_) => body.to_vec(),
        None => match unchunk(body) {
            Some(body) => body,
            None => return Outcome::Cut,
        },
    };
    match status {
        200 => assert!(body == expected, "other bytes: {} of {}", body.len(), expected.len()),
        status => return Outcome::Refused(status),
    }
    Outcome::Whole
}

/// The content of a chunked body; `None` if it was cut.
fn unchunk(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = memchr::memmem::find(bytes, b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).ok()?, 16).ok()?;
        bytes = &bytes[end + 2..];
        if length == 0 {
            return (bytes == b"\r\n").then_some(body);
        }
        body.extend_from_slice(bytes.get(..length)?);
        bytes = bytes.get(length + 2..)?;
    }
}

/// The requests, each with the body of its answer.
fn requests() -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let mut requests = Vec::new();
    for place in ["sendfile", "buffers", "threads", "direct", "filtered"] {
        for (name, length) in [("large", LARGE), ("small", 3000)] {
            let text = format!("GET /{place}/{name} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            requests.push((format!("{place}/{name}"), text.into_bytes(), content(length)));
        }
    }
    let get = b"GET /pass HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_vec();
    requests.push(("pass".to_owned(), get, content(LARGE)));
    let mut post =
        b"POST /pass HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 300000\r\n\r\n".to_vec();
    post.extend(content(300_000));
    requests.push(("upload".to_owned(), post, content(LARGE)));
    requests
}

/// Makes all requests in this weather under some seeds; returns how often each outcome was there, and the calls struck.
fn under(weather: Weather, seeds: u64, judge: impl Fn(&str, &Outcome)) -> usize {
    let (plan, ground) = ground(origin());
    let (mut worker, _commands) = ground.worker(0, 1);
    let mut struck = 0;
    for seed in 0..seeds {
        for (name, request, expected) in requests() {
            plan.set(weather, seed);
            let outcome = ask(&mut worker, &ground, &request, &expected);
            struck += plan.struck();
            judge(&format!("{name}, seed {seed}"), &outcome);
        }
    }
    plan.set(Weather::Fair, 0);
    for (name, request, expected) in requests() {
        assert_eq!(ask(&mut worker, &ground, &request, &expected), Outcome::Whole, "{name}, afterwards");
    }
    for _ in 0..20 {
        worker.round_of(Duration::from_millis(1));
    }
    assert!(worker.keys().is_empty(), "connections are left");
    for folder in ["body", "proxy"] {
        assert_eq!(ground.files_in(folder), 0, "temporary files are left in {folder}");
    }
    struck
}

#[test]
fn short_reads_and_writes_and_cold_pages_cost_no_request() {
    let struck = under(Weather::Slow, 12, |name, outcome| assert_eq!(*outcome, Outcome::Whole, "{name}"));
    assert!(struck > 500, "{struck}");
}

#[test]
fn a_full_disk_costs_only_uploads_that_need_it() {
    let struck = under(Weather::Full, 12, |name, outcome| match outcome {
        Outcome::Whole => {}
        Outcome::Refused(500) if name.starts_with("upload") => {}
        other => panic!("{name}: {other:?}"),
    });
    assert!(struck > 500, "{struck}");
}

#[test]
fn a_broken_disk_cuts_or_refuses_and_never_lies() {
    let whole = std::cell::Cell::new(0);
    let struck = under(Weather::Broken, 12, |name, outcome| match outcome {
        Outcome::Whole => whole.set(whole.get() + 1),
        Outcome::Cut | Outcome::Refused(500) => {}
        Outcome::Refused(status) => panic!("{name}: {status}"),
    });
    assert!(struck > 100 && whole.get() > 0, "{struck} {}", whole.get());
}
