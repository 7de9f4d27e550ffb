//! A hot request allocates nothing: a worker in this process, and an allocator that counts what its thread does.

// The one `unsafe` outside of `server/sys.rs`: there is no other way to stand between a program and its allocator.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use thalweg::conf::files::MemoryFiles;
use thalweg::conf::log_target::LogTarget;
use thalweg::http::build::{BuildOptions, build};
use thalweg::message::{Fields, RequestFraming, RequestHead, ResponseHead, Status};
use thalweg::proto::h1::{HeadLimits, RespondOptions};
use thalweg::proto::h2::{Client, ClientEvent, Config, NewRequest, Server, ServerEvent};
use thalweg::server::listeners::ListenerSet;
use thalweg::server::logs::OpenLogs;
use thalweg::server::runtime::{Runtime, ThreadSettings};

/// The thread whose allocations are counted; 0 for none.
static THREAD: AtomicI32 = AtomicI32::new(0);
static COUNT: AtomicU64 = AtomicU64::new(0);

/// The same for the test that drives a machine on its own thread.
static MACHINE_THREAD: AtomicI32 = AtomicI32::new(0);
static MACHINE_COUNT: AtomicU64 = AtomicU64::new(0);

/// One worker at a time is looked at: all of them have the same name.
static GROUND: Mutex<()> = Mutex::new(());

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() {
    for (thread, count) in [(&THREAD, &COUNT), (&MACHINE_THREAD, &MACHINE_COUNT)] {
        let thread = thread.load(Ordering::Relaxed);
        if thread != 0 && rustix::thread::gettid().as_raw_nonzero().get() == thread {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

// SAFETY: everything is passed on to the system's allocator as it came; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// A worker that serves this site.
struct Ground {
    _folder: tempfile::TempDir,
    address: SocketAddr,
    runtime: Runtime,
}

impl Ground {
    fn new() -> Ground {
        Ground::with("")
    }

    /// The same with further locations.
    fn with(locations: &str) -> Ground {
        let folder = tempfile::tempdir().unwrap();
        for (name, length) in [("a.txt", 1024), ("b.css", 4000), ("large.bin", 100_000)] {
            std::fs::write(folder.path().join(name), "x".repeat(length)).unwrap();
        }
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        std::fs::write(folder.path().join("sub/index.html"), "index").unwrap();
        // What has just changed is not kept in memory yet.
        std::thread::sleep(Duration::from_millis(200));
        let probe = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = probe.local_addr().unwrap();
        drop(probe);
        let text = format!(
            "events {{}} http {{ keepalive_requests 1000000; root {0};
             access_log {0}/access.log;
             map $host $who {{ default other; ~^a(?<rest>.*) a$rest; }}
             server {{ listen {address}; server_name a.example *.b.example;
               location / {{ add_header X-Who here; }}
               location /cached/ {{ alias {0}/; open_file_cache max=100; open_file_cache_valid 60s; access_log off; }}
               location = /fixed {{ return 200 fixed; }}
               location ~ \\.css$ {{ expires 1h; }}
               location /made {{ rewrite ^/made/(.*)$ /$1 last; }}
               location /old {{ return 301 /new; }}
               location /map {{ return 200 $who; }}
               location /try/ {{ try_files $uri /a.txt; }}
               {locations}
             }} }}",
            folder.path().display()
        );
        let mut files = MemoryFiles::new().with("/a.conf", text.into_bytes());
        let prefix = format!("{}/", folder.path().display());
        let built = build(
            &mut files,
            &BuildOptions {
                path: "/a.conf",
                prefix: &prefix,
                command_line: "",
                error_log: &LogTarget::File(b"error.log".to_vec()),
                hostname: b"host",
                privileged: false,
                resolve: None,
                previous_logs: None,
                previous_tls: None,
            },
        );
        let site = Arc::new(built.site.expect("a site"));
        let listeners = ListenerSet::default()
            .renew(&site.listens.sockets(), 1, &mut |_, text| panic!("{text}"))
            .unwrap();
        let logs = Arc::new(OpenLogs::open(&site.logs, None).unwrap());
        let runtime = Runtime::start(site, listeners, ThreadSettings::default(), 1, logs).unwrap();
        Ground { _folder: folder, address, runtime }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }
}

fn worker_thread() -> i32 {
    loop {
        for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
            let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            if name.trim() == "thalweg/w0" {
                return task.file_name().to_str().unwrap().parse().unwrap();
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// How long an answer to this request is whose head begins `answer`; `None` while the head is not whole.
fn answer_length(request: &[u8], answer: &[u8]) -> Option<usize> {
    let head = memchr::memmem::find(answer, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
    let has_body = !request.starts_with(b"HEAD") && !text.starts_with("http/1.1 304");
    let body = text
        .split("content-length: ")
        .nth(1)
        .filter(|_| has_body)
        .map_or(0, |rest| rest.lines().next().and_then(|digits| digits.parse().ok()).expect("a length"));
    Some(head + body)
}

/// Asks `requests` times and reads answers that are all as long as the first; returns the worker's allocations. What it does
/// once a second falls into few of several rounds on a machine however busy: the least of them is what requests cost.
fn allocations(stream: &mut TcpStream, request: &[u8], requests: usize) -> u64 {
    const ROUNDS: usize = 5;
    let mut answer = vec![0; 1 << 20];
    // The first answer tells how long they are; one that is pipelined is as long as the others.
    let pipelined = memchr::memmem::find_iter(request, b"\r\n\r\n").count();
    let (mut length, mut have) = (None, 0);
    stream.write_all(request).unwrap();
    while length.is_none_or(|length| have < length) {
        have += stream.read(&mut answer[have..]).unwrap();
        length = answer_length(request, &answer[..have]).map(|one| one * pipelined);
    }
    let length = length.expect("a whole head");
    assert_eq!(have, length);
    let mut ask = |times: usize| {
        for _ in 0..times {
            stream.write_all(request).unwrap();
            stream.read_exact(&mut answer[..length]).unwrap();
        }
    };
    // Caches fill and buffers grow.
    ask(50);
    let mut least = u64::MAX;
    for _ in 0..ROUNDS {
        let before = COUNT.load(Ordering::Relaxed);
        ask(requests);
        least = least.min(COUNT.load(Ordering::Relaxed) - before);
        if least == 0 {
            break;
        }
    }
    least
}

#[test]
fn a_hot_request_allocates_nothing() {
    const REQUESTS: usize = 300;
    let _alone = GROUND.lock().unwrap_or_else(PoisonError::into_inner);
    let mut ground = Ground::new();
    THREAD.store(worker_thread(), Ordering::Relaxed);
    let browser = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
                   Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
                   Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
                   Connection: keep-alive\r\nUpgrade-Insecure-Requests: 1\r\nCookie: a=b; c=d\r\n";
    let get = |path: &str, fields: &str| format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n");
    let pipelined = get("/a.txt", "").repeat(16);
    let cases = [
        ("a small file", get("/a.txt", "")),
        ("a browser", get("/a.txt?q=1", browser)),
        ("the cache of open files", get("/cached/a.txt", "")),
        ("an index", get("/sub/", "")),
        ("a regular expression, expires", get("/b.css", "")),
        ("a large file", get("/large.bin", "")),
        ("a range", get("/a.txt", "Range: bytes=10-20\r\n")),
        ("not modified", get("/a.txt", "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT\r\n")),
        ("a fixed text", get("/fixed", "")),
        ("a redirect", get("/old", "")),
        ("not found", get("/missing", "")),
        ("a rewrite", get("/made/a.txt", "")),
        ("a map", get("/map", "")),
        ("try_files", get("/try/x", "")),
        ("HTTP/1.0", "GET /a.txt HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_owned()),
        ("HEAD", "HEAD /a.txt HTTP/1.1\r\nHost: x.b.example\r\n\r\n".to_owned()),
        ("pipelined", pipelined),
    ];
    let mut failures = Vec::new();
    for (name, request) in cases {
        let count = allocations(&mut ground.connect(), request.as_bytes(), REQUESTS);
        println!("{name}: {count} allocations in {REQUESTS} requests");
        // Ranges are put into a list.
        let allowed = if name == "a range" { REQUESTS as u64 } else { 0 };
        if count > allowed {
            failures.push(format!("{name}: {count}"));
        }
    }
    THREAD.store(0, Ordering::Relaxed);
    ground.runtime.terminate();
    assert!(failures.is_empty(), "allocations in {REQUESTS} requests: {failures:?}");
}

/// A server that answers `GET /N...` with N field lines beside the usual ones, on any number of connections; its port.
fn start_upstream() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_nodelay(true).unwrap();
            std::thread::spawn(move || {
                let mut input = Vec::new();
                let mut buffer = [0; 65536];
                loop {
                    while !input.ends_with(b"\r\n\r\n") {
                        match stream.read(&mut buffer) {
                            Ok(0) | Err(_) => return,
                            Ok(count) => input.extend_from_slice(&buffer[..count]),
                        }
                    }
                    let digits = input.iter().skip("GET /".len()).take_while(|byte| byte.is_ascii_digit());
                    let count: usize = String::from_utf8(digits.copied().collect()).unwrap().parse().unwrap();
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n{}Content-Length: 1024\r\n\r\n{}",
                        field_lines(count),
                        "x".repeat(1024)
                    );
                    input.clear();
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

fn field_lines(count: usize) -> String {
    (0..count).map(|number| format!("X-Field-{number}: the value of field number {number}\r\n")).collect()
}

/// What a request that is passed on allocates has nothing to do with how many fields come and go.
#[test]
fn allocations_of_a_proxied_request_do_not_grow_with_its_fields() {
    const REQUESTS: usize = 300;
    let _alone = GROUND.lock().unwrap_or_else(PoisonError::into_inner);
    let port = start_upstream();
    let location = format!(
        "location ~ ^/[0-9] {{ proxy_pass http://127.0.0.1:{port}; proxy_set_header X-Real-IP $remote_addr; }}"
    );
    let mut ground = Ground::with(&location);
    THREAD.store(worker_thread(), Ordering::Relaxed);
    let count = |asked: usize, answered: usize| {
        let request = format!("GET /{answered} HTTP/1.1\r\nHost: a.example\r\n{}\r\n", field_lines(asked));
        let count = allocations(&mut ground.connect(), request.as_bytes(), REQUESTS);
        println!("{asked} fields there, {answered} back: {count} allocations in {REQUESTS} requests");
        count
    };
    let few = count(0, 0);
    // Timers and the like may cost one now and then.
    let allowed = few + REQUESTS as u64 / 10;
    let failures: Vec<_> = [(40, 0), (0, 40), (40, 40)]
        .into_iter()
        .map(|(asked, answered)| (asked, answered, count(asked, answered)))
        .filter(|(_, _, many)| *many > allowed)
        .collect();
    THREAD.store(0, Ordering::Relaxed);
    ground.runtime.terminate();
    assert!(
        failures.is_empty(),
        "{few} allocations without fields; (there, back, allocations): {failures:?}"
    );
}

/// Thirty-two requests at a time on one HTTP/2 connection, with bodies both ways, machine against machine.
#[test]
fn streams_on_a_warm_http2_connection_allocate_nothing() {
    let config = Config { connection_window: 1 << 20, ..Config::default() };
    let (mut client, mut server) = (Client::new(config), Server::new(config));
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    let (mut request_head, mut response_head) = (RequestHead::default(), ResponseHead::default());
    let mut answer = ResponseHead::default();
    let mut fields = Fields::default();
    fields.push(b"User-Agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0");
    fields.push(b"Cookie", b"a=b; c=d");
    let options = RespondOptions {
        date: b"Sun, 06 Nov 1994 08:49:37 GMT",
        keep_alive_allowed: true,
        keep_alive_header: None,
        chunked_allowed: true,
        trailers_expected: false,
        upgrade: false,
    };
    let mut ends = 0u32;
    client.start(0, &mut to_server);
    server.start(0, &mut to_client);
    let mut round = |now_ms: u64| {
        for count in 0..32 {
            let framing = if count % 2 == 0 { RequestFraming::None } else { RequestFraming::Length(100) };
            let request = NewRequest {
                method: b"POST",
                scheme: b"https",
                authority: b"example.com",
                path: b"/a/b?c",
                protocol: None,
                fields: &fields,
                framing,
            };
            let stream = client.request(&request, &mut to_server).expect("a free stream");
            if framing != RequestFraming::None {
                client.send_data(stream, &[7; 100], true, &mut to_server);
            }
        }
        let mut input = &to_server[..];
        loop {
            let limits = HeadLimits::default();
            let event = server.read(&mut input, now_ms, &limits, &mut request_head, &mut to_client);
            let stream = match event.expect("no error") {
                ServerEvent::NeedMore => break,
                ServerEvent::Head { stream, .. } if request_head.framing == RequestFraming::None => stream,
                ServerEvent::End { stream, .. } => stream,
                ServerEvent::Data { stream, data } => {
                    server.consumed(stream, data.len(), &mut to_client);
                    continue;
                }
                _ => continue,
            };
            answer.clear();
            answer.status = Status::OK;
            answer.set_content_type(b"text/html");
            answer.set_etag(b"\"673d0a00-400\"");
            answer.set_content_length(1024);
            server.respond(stream, &answer, &options, &mut to_client);
            server.set_has_data(stream, true);
        }
        to_server.clear();
        while let Some((stream, room)) = server.next_turn() {
            assert_eq!(server.send_data(stream, &[9; 1024][..room.min(1024)], true, &mut to_client), 1024);
        }
        let mut input = &to_client[..];
        loop {
            let event = client.read(&mut input, now_ms, 4096, &mut response_head, &mut to_server);
            match event.expect("no error") {
                ClientEvent::NeedMore => break,
                ClientEvent::Data { stream, data } => client.consumed(stream, data.len(), &mut to_server),
                ClientEvent::End { .. } => ends += 1,
                _ => {}
            }
        }
        to_client.clear();
    };
    for now_ms in 0..50 {
        round(now_ms * 100);
    }
    MACHINE_THREAD.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Relaxed);
    for now_ms in 50..150 {
        round(now_ms * 100);
    }
    MACHINE_THREAD.store(0, Ordering::Relaxed);
    assert_eq!(ends, 150 * 32);
    assert_eq!(MACHINE_COUNT.load(Ordering::Relaxed), 0);
}
