//! A hundred reloads while every kind of client is busy, in the clear, under TLS and in HTTP/2.

use crate::util::h2::H2;
use crate::util::tls::connect_tls;
use crate::util::{Client, Peer, Server, Upstream, eventually, get};
use rustix::process::Pid;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const RELOADS: usize = 100;
const LENGTH: usize = 4 << 20;
const PROTOCOLS: [&str; 1] = ["http/1.1"];

fn content() -> Vec<u8> {
    (0..LENGTH as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn text(round: usize, upstream: u16) -> String {
    format!(
        "worker_processes 2; http {{ keepalive_requests 1000000; client_max_body_size 0; http2 on;
         ssl_certificate {{fixtures}}/server-ec.pem; ssl_certificate_key {{fixtures}}/server-ec.key;
         upstream u {{ server 127.0.0.1:{upstream}; keepalive 8; }}
         server {{ listen {{port}}; listen {{port2}} ssl; root {{root}}/html;
         location = /round {{ return 200 round{round}; }}
         location /pass {{ proxy_pass http://u; }}
         location /stream {{ proxy_pass http://u; proxy_request_buffering off; }} }} }}"
    )
}

/// Echoes what is upgraded, and answers with the length of what was sent.
fn upstream() -> Upstream {
    Upstream::start(|mut peer: Peer| {
        while let Some((head, body)) = peer.read_request() {
            if head.to_ascii_lowercase().contains("\r\nupgrade: ") {
                peer.send(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
                );
                loop {
                    let bytes = peer.read_some();
                    if bytes.is_empty() || !peer.try_send(bytes) {
                        return;
                    }
                }
            }
            let length = body.len().to_string();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{length}", length.len());
            if !peer.try_send(answer) {
                return;
            }
        }
    })
}

/// What a client of some kind did until it was stopped; a failure is a panic of its thread.
struct Busy {
    what: &'static str,
    thread: JoinHandle<usize>,
}

#[derive(Clone)]
struct Ground {
    plain: u16,
    tls: u16,
    stop: Arc<AtomicBool>,
    round: Arc<AtomicUsize>,
    /// Uploads that were begun before a reload and ended after it.
    spans: Arc<AtomicUsize>,
    content: Arc<Vec<u8>>,
}

impl Ground {
    fn connect(&self, secure: bool) -> Client {
        match secure {
            false => Client::connect(self.plain),
            true => connect_tls(self.tls, "example.com", &PROTOCOLS),
        }
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Repeats one thing on a state that stays, such as a connection, until the end.
    fn busy<S>(
        &self,
        what: &'static str,
        begin: impl FnOnce(&Ground) -> S + Send + 'static,
        mut act: impl FnMut(&Ground, &mut S) + Send + 'static,
    ) -> Busy {
        let ground = self.clone();
        let thread = std::thread::Builder::new().name(what.to_owned()).spawn(move || {
            let mut state = begin(&ground);
            let mut count = 0;
            while !ground.is_over() {
                act(&ground, &mut state);
                count += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
            count
        });
        Busy { what, thread: thread.expect("a thread") }
    }

    /// Reads slowly enough to last for many reloads, then as fast as it comes.
    fn pause(&self) {
        if !self.is_over() {
            std::thread::sleep(Duration::from_millis(15));
        }
    }

    fn requests(&self, secure: bool) -> Busy {
        self.busy(
            "requests",
            move |ground| ground.connect(secure),
            |_, client| {
                client.send("GET /small HTTP/1.1\r\nHost: a\r\n\r\nGET /pass HTTP/1.1\r\nHost: a\r\n\r\n");
                assert_eq!(client.read_response().text(), "fine");
                assert_eq!(client.read_response().text(), "0");
            },
        )
    }

    fn tunnel(&self, secure: bool) -> Busy {
        let begin = move |ground: &Ground| {
            let mut client = ground.connect(secure);
            client.send("GET /pass HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
            assert_eq!(client.read_interim().status, 101);
            client
        };
        self.busy("a tunnel", begin, |ground, client| {
            let message = &ground.content[..20_000];
            client.send(message);
            assert!(client.read_exactly(message.len()) == message);
        })
    }

    fn upload(&self, secure: bool, path: &'static str) -> Busy {
        self.busy(
            "uploads",
            move |ground| ground.connect(secure),
            move |ground, client| {
                let (begun, pieces) = (ground.round.load(Ordering::Relaxed), 40);
                client.send(format!(
                    "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
                    pieces * 5000
                ));
                for piece in ground.content.chunks(5000).take(pieces) {
                    client.send(piece);
                    ground.pause();
                }
                assert_eq!(client.read_response().text(), (pieces * 5000).to_string());
                if ground.round.load(Ordering::Relaxed) > begun {
                    ground.spans.fetch_add(1, Ordering::Relaxed);
                }
            },
        )
    }

    fn download(&self, secure: bool) -> Busy {
        self.busy(
            "downloads",
            move |ground| ground.connect(secure),
            |ground, client| {
                client.send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
                let head = client.read_interim();
                assert_eq!(
                    (head.status, head.header("Content-Length")),
                    (200, Some(LENGTH.to_string().as_str()))
                );
                for piece in ground.content.chunks(LENGTH / 64) {
                    assert!(client.read_exactly(piece.len()) == piece, "other bytes");
                    ground.pause();
                }
            },
        )
    }

    fn streams(&self, secure: bool) -> Busy {
        let begin = move |ground: &Ground| match secure {
            false => H2::connect(ground.plain),
            true => H2::connect_tls(ground.tls, "example.com"),
        };
        self.busy("HTTP/2", begin, |ground, h2| {
            let big = h2.get("/big");
            let fields = [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", "/pass"),
                (":authority", "a"),
                ("content-length", "30000"),
            ];
            for _ in 0..20 {
                let upload = h2.open(&fields, false);
                h2.send_body(upload, &ground.content[..15_000], false);
                assert_eq!(h2.fetch("/small").text(), "fine");
                ground.pause();
                h2.send_body(upload, &ground.content[15_000..30_000], true);
                assert_eq!(h2.wait(upload).text(), "30000");
            }
            let big = h2.wait(big);
            assert!(big.ended && big.reset.is_none() && big.body == *ground.content, "a broken download");
            assert!(h2.goaways.is_empty(), "{:?}", h2.goaways);
            h2.streams.clear();
        })
    }
}

#[derive(Clone, Copy, Debug)]
struct Holdings {
    threads: usize,
    descriptors: usize,
    resident_kib: usize,
}

fn holdings(pid: Pid) -> Holdings {
    let folder = format!("/proc/{}", pid.as_raw_nonzero());
    let count = |name: &str| std::fs::read_dir(format!("{folder}/{name}")).expect("a process").count();
    let status = std::fs::read_to_string(format!("{folder}/status")).expect("a process");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    let resident_kib = resident.trim().trim_end_matches(" kB").parse().expect("a number");
    Holdings { threads: count("task"), descriptors: count("fd"), resident_kib }
}

#[test]
fn a_hundred_reloads_disturb_no_tunnel_upload_or_download_of_any_protocol() {
    let upstream = upstream();
    let server = Server::builder(&text(0, upstream.port()))
        .file("html/small", "fine")
        .file("html/big", content())
        .start();
    let ground = Ground {
        plain: server.port(),
        tls: server.port_of(2),
        stop: Arc::default(),
        round: Arc::default(),
        spans: Arc::default(),
        content: Arc::new(content()),
    };
    let mut all = Vec::new();
    for secure in [false, true] {
        all.push(ground.requests(secure));
        all.push(ground.tunnel(secure));
        all.push(ground.upload(secure, "/pass"));
        all.push(ground.upload(secure, "/stream"));
        all.push(ground.download(secure));
        all.push(ground.streams(secure));
    }
    eventually("a server process", || !server.children().is_empty());
    let process = *server.children().last().expect("a server process");
    let mut samples = Vec::new();
    for round in 1..=RELOADS {
        server.configure(&text(round, upstream.port()));
        server.reload();
        let wanted = format!("round{round}");
        eventually("the new configuration answers", || get(server.port(), "/round").text() == wanted);
        ground.round.store(round, Ordering::Relaxed);
        samples.push(holdings(process));
    }
    // The highest of each part: what is open moves with what the clients just do.
    let most = |part: &[Holdings]| {
        let of = |value: fn(&Holdings) -> usize| part.iter().map(value).max().expect("samples");
        (of(|one| one.threads), of(|one| one.descriptors), of(|one| one.resident_kib))
    };
    let (before, after) = (most(&samples[20..60]), most(&samples[60..]));
    ground.stop.store(true, Ordering::Relaxed);
    let mut counts = Vec::new();
    for Busy { what, thread } in all {
        counts.push((what, thread.join().unwrap_or_else(|_| panic!("{what}: lost, see above"))));
    }
    println!("{counts:?}, {before:?}, {after:?}");
    assert!(counts.iter().all(|(_, count)| *count > 0), "{counts:?}");
    assert!(ground.spans.load(Ordering::Relaxed) > 0, "no upload was under way at a reload");
    assert_eq!(server.children(), [process]);
    assert_eq!(after.0, before.0, "threads");
    assert!(after.1 <= before.1 + 8, "descriptors: {before:?} {after:?}");
    assert!(after.2 <= before.2 + 6144, "memory: {before:?} {after:?}");
    let log = server.error_log();
    for level in ["[warn]", "[error]", "[crit]", "[alert]", "[emerg]"] {
        let lines: Vec<&str> = log
            .lines()
            .filter(|line| line.contains(level) && !line.contains("to a temporary file"))
            .collect();
        assert!(lines.is_empty(), "{lines:#?}");
    }
}
