//! What the disk does to requests: only those are lost that nothing could save, and everybody else notices nothing.

use crate::util::disk::{SmallDisk, limit};
use crate::util::h2::H2;
use crate::util::tls::connect_tls;
use crate::util::{Client, Server, Signal, Upstream, eventually, get, raw};
use rustix::process::Resource;
use std::time::Duration;

const MEGABYTE: usize = 1 << 20;

fn content(length: usize) -> Vec<u8> {
    (0..length as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn no_alarm(server: &Server) {
    let log = server.error_log();
    for word in ["[emerg]", "panic", "exited on signal"] {
        assert!(!log.contains(word) && !server.stderr().contains(word), "{log}\n{}", server.stderr());
    }
}

fn post(body: &[u8]) -> Vec<u8> {
    let head = format!("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Answers requests for `/N` with N bytes, and those with a body with its length.
fn origin() -> Upstream {
    Upstream::http(|head, body| {
        let length = head.split(['/', ' ']).nth(2).and_then(|text| text.parse().ok());
        let answer = length.map_or_else(|| body.len().to_string().into_bytes(), content);
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len()).as_bytes(), &answer].concat()
    })
}

/// A server whose temporary files go below `{root}/small`.
fn spooling(upstream: &Upstream) -> Server {
    Server::start(&format!(
        "client_body_buffer_size 8k; client_max_body_size 100m; client_body_temp_path {{root}}/small/body;
         proxy_temp_path {{root}}/small/proxy; proxy_buffers 4 8k; proxy_buffer_size 8k;
         server {{ listen {{port}}; http2 on; location / {{ proxy_pass http://127.0.0.1:{}; }}
         location = /small {{ return 200 fine; }} }}",
        upstream.port()
    ))
}

/// Asks for so many bytes and reads them only after a while, so that they do not fit the sockets.
fn slow_download(server: &Server, length: usize, in_between: impl FnOnce()) -> Vec<u8> {
    let mut client = Client::connect(server.port());
    client.send(format!("GET /{length} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    let mut bytes = client.read_exactly(1000);
    in_between();
    bytes.extend(client.read_to_end());
    let body = memchr::memmem::find(&bytes, b"\r\n\r\n").expect("a head") + 4;
    bytes.split_off(body)
}

#[test]
fn a_full_temporary_folder_costs_no_response_and_only_bodies_that_need_it() {
    const LENGTH: usize = 24 * MEGABYTE;
    let upstream = origin();
    let server = spooling(&upstream);
    let Some(disk) = SmallDisk::mount(&server.path("small"), 1024) else { return };
    let refused = |what: &str| server.error_log().contains(what);

    // The file takes some of it, and is full then.
    let got = slow_download(&server, LENGTH, || {
        eventually("a full disk", || refused("writing a response to a temporary file failed (No space left"));
    });
    assert!(got == content(LENGTH), "{} bytes of {LENGTH}", got.len());
    let mut h2 = H2::connect(server.port());
    h2.gives_window = true;
    assert!(h2.fetch(&format!("/{LENGTH}")).body == content(LENGTH));

    // An upload that needs the file is refused in order, one that does not is taken, on the same connections.
    let mut client = Client::connect(server.port());
    disk.fill();
    for _ in 0..3 {
        let response = raw(server.port(), post(&content(2 * MEGABYTE))).expect("an answer");
        assert_eq!(response.status, 500);
        assert_eq!(client.send(post(&content(5000))).read_response().text(), "5000");
        assert_eq!(client.send("GET /small HTTP/1.1\r\nHost: a\r\n\r\n").read_response().text(), "fine");
    }
    assert!(
        refused("writing a request body to a temporary file failed (No space left"),
        "{}",
        server.error_log()
    );

    // No room at all, not even for a file's name.
    let got = slow_download(&server, LENGTH, || std::thread::sleep(Duration::from_millis(100)));
    assert!(got == content(LENGTH), "{} bytes of {LENGTH}", got.len());

    // With room again, all is as ever; nothing was left behind.
    disk.free();
    assert_eq!(client.send(post(&content(MEGABYTE / 2))).read_response().text(), (MEGABYTE / 2).to_string());
    let got = slow_download(&server, 300_000, || ());
    assert!(got == content(300_000));
    drop(client);
    eventually("no temporary files", || {
        let folders = [disk.path("body"), disk.path("proxy")];
        folders.iter().all(|folder| std::fs::read_dir(folder).is_ok_and(|mut files| files.next().is_none()))
    });
    no_alarm(&server);
}

#[test]
fn a_temporary_folder_that_can_not_be_made_costs_no_response() {
    const LENGTH: usize = 24 * MEGABYTE;
    let upstream = origin();
    let server = spooling(&upstream);
    // A file where the folder should be.
    eventually("the folder", || server.path("small/proxy").exists());
    std::fs::remove_dir_all(server.path("small/proxy")).expect("remove");
    server.write("small/proxy", "");
    let got = slow_download(&server, LENGTH, || {
        eventually("no file", || {
            server.error_log().contains("creating a temporary file for a response failed (")
        });
    });
    assert!(got == content(LENGTH), "{} bytes of {LENGTH}", got.len());
    no_alarm(&server);
}

#[test]
fn a_limit_of_file_sizes_is_a_full_disk_and_kills_nobody() {
    const LENGTH: usize = 24 * MEGABYTE;
    let upstream = origin();
    let server = spooling(&upstream);
    eventually("a server process", || !server.children().is_empty());
    let process = *server.children().last().expect("a server process");
    limit(process, Resource::Fsize, 200_000);
    let got = slow_download(&server, LENGTH, || {
        eventually("a refusal", || server.error_log().contains("temporary file failed (File too large"));
    });
    assert!(got == content(LENGTH), "{} bytes of {LENGTH}", got.len());
    assert_eq!(raw(server.port(), post(&content(MEGABYTE))).expect("an answer").status, 500);
    // The log is at its end too: requests go on.
    let mut client = Client::connect(server.port());
    let long = "x".repeat(4000);
    for _ in 0..200 {
        let request = format!("GET /small?{long} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.send(request).read_response().text(), "fine");
    }
    assert_eq!(server.children(), [process]);
}

#[test]
fn a_file_that_vanishes_is_sent_whole_and_one_that_shrinks_never_looks_whole() {
    const LENGTH: usize = 24 * MEGABYTE;
    let server = Server::builder(
        "server { listen {port}; listen {port2} ssl; http2 on; root {root}/html; ssl_certificate {fixtures}/server-ec.pem;
         ssl_certificate_key {fixtures}/server-ec.key; location /gzip/ { alias {root}/html/; gzip on; gzip_types *; } }",
    )
    .file("html/small", "fine")
    .start();
    let mut beside = Client::connect(server.port());
    let mut fine = || {
        assert_eq!(beside.send("GET /small HTTP/1.1\r\nHost: a\r\n\r\n").read_response().text(), "fine");
    };
    let expected = content(LENGTH);
    for vanishes in [true, false] {
        let clients = [
            ("/big", Client::connect(server.port())),
            ("/big", connect_tls(server.port_of(2), "example.com", &["http/1.1"])),
            ("/gzip/big", Client::connect(server.port())),
        ];
        for (path, mut client) in clients {
            server.write("html/big", &expected);
            let coding = if path == "/big" { "" } else { "Accept-Encoding: gzip\r\n" };
            client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{coding}Connection: close\r\n\r\n"));
            let mut bytes = client.read_exactly(50_000);
            match vanishes {
                true => std::fs::remove_file(server.path("html/big")).expect("remove"),
                false => std::fs::File::options()
                    .write(true)
                    .open(server.path("html/big"))
                    .and_then(|file| file.set_len(1000))
                    .expect("truncate"),
            }
            fine();
            while client.has_more() {
                bytes.extend(client.read_some());
            }
            let is_whole = match coding {
                "" => bytes.ends_with(&expected),
                _ => bytes.ends_with(b"\r\n0\r\n\r\n"),
            };
            assert_eq!(is_whole, vanishes, "{path}, vanishes: {vanishes}, {} bytes", bytes.len());
            fine();
        }
        // In HTTP/2 a stream alone is given up.
        server.write("html/big", &expected);
        let mut h2 = H2::connect(server.port());
        let id = h2.get("/big");
        h2.wait_until(|h2| h2.streams.get(&id).is_some_and(|stream| stream.body.len() > 50_000));
        match vanishes {
            true => std::fs::remove_file(server.path("html/big")).expect("remove"),
            false => drop(server.write("html/big", "short")),
        }
        let stream = h2.wait(id);
        assert_eq!(stream.ended && stream.body == expected, vanishes, "{} bytes", stream.body.len());
        assert_eq!(stream.reset.is_some(), !vanishes);
        assert_eq!(h2.fetch("/small").text(), "fine");
    }
    no_alarm(&server);
}

#[test]
fn logs_on_a_device_that_is_always_full_stop_no_request() {
    let server = Server::start(
        "worker_processes 2; error_log /dev/full info; http { access_log /dev/full;
         server { listen {port}; location / { return 200 fine; } location /none { root {root}; } } }",
    );
    let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(server.port())).collect();
    for _ in 0..500 {
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /none HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        for client in &mut clients {
            assert_eq!(client.read_response().text(), "fine");
            assert_eq!(client.read_response().status, 404);
        }
    }
    assert_eq!(server.children().len(), 1);
}

#[test]
fn a_disk_full_of_logs_is_reported_once_and_logging_resumes_when_there_is_room() {
    let server = Server::builder(
        "log_format l '$uri'; keepalive_requests 100000; server { listen {port}; access_log {root}/small/access.log l; return 200 fine; }",
    )
    .file("small/begin", "")
    .start();
    assert_eq!(get(server.port(), "/begin").text(), "fine");
    let Some(disk) = SmallDisk::mount(&server.path("small"), 128) else { return };
    server.signal(Signal::USR1);
    eventually("a log on the disk", || disk.path("access.log").exists());
    let mut client = Client::connect(server.port());
    let mut ask = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.send(request).read_response().text(), "fine");
    };
    disk.fill();
    let report = "/small/access.log\" failed (28: No space left on device)";
    for number in 0..3000 {
        ask(&format!("/full/{number}"));
    }
    eventually("a report", || server.error_log().contains(report));
    // Longer than until the next try.
    std::thread::sleep(Duration::from_millis(1300));
    ask("/full/last");
    assert_eq!(server.error_log().matches(report).count(), 1, "{}", server.error_log());
    disk.free();
    eventually("lines", || server.read("small/access.log").contains("/full/last\n"));
    // What waited was written, nothing was lost and nothing came twice.
    let log = server.read("small/access.log");
    let numbers: Vec<&str> = log.lines().filter(|line| line.starts_with("/full/")).collect();
    let expected: Vec<String> =
        (0..3000).map(|number| format!("/full/{number}")).chain(["/full/last".to_owned()]).collect();
    assert!(numbers == expected, "{} lines of {}", numbers.len(), expected.len());
    assert_eq!(get(server.port(), "/then").text(), "fine");
    eventually("the next line", || server.read("small/access.log").contains("/then\n"));
}
