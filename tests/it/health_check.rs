//! `health_check` and `match`: whose probes fail gets no requests until they pass, and one worker sends them for all.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use crate::util::{H2Client, H2Peer, Peer, Server, Upstream, eventually, get};
use thalweg::proto::h2::{Config, ErrorCode};

/// A server that is probed: what its probes are answered, and how many probes and other requests it had.
struct Probed {
    upstream: Upstream,
    health: Arc<Mutex<Vec<u8>>>,
    probes: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Probed {
    fn start(name: &'static str) -> Probed {
        let health = Arc::new(Mutex::new(answer(200, "all is fine")));
        let probes = Arc::new(AtomicUsize::new(0));
        let requests = Arc::new(AtomicUsize::new(0));
        let upstream = Upstream::http({
            let (health, probes, requests) = (health.clone(), probes.clone(), requests.clone());
            move |head, _| match head.starts_with("GET /probe ") {
                true => {
                    probes.fetch_add(1, SeqCst);
                    health.lock().unwrap().clone()
                }
                false => {
                    requests.fetch_add(1, SeqCst);
                    answer(200, name)
                }
            }
        });
        Probed { upstream, health, probes, requests }
    }

    fn set(&self, answer: Vec<u8>) {
        *self.health.lock().unwrap() = answer;
    }

    fn probes(&self) -> usize {
        self.probes.load(SeqCst)
    }
}

fn answer(status: u16, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} So\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// The servers that a server with this group of two asks, by name.
fn checked(ports: [u16; 2], workers: usize) -> Server {
    let [one, two] = ports;
    Server::start(&format!(
        "worker_processes {workers}; http {{
            match fine {{ status 200; body ~ fine; }}
            upstream group {{ zone group 64k; server 127.0.0.1:{one}; server 127.0.0.1:{two}; }}
            server {{
                listen {{port}};
                location / {{ proxy_pass http://group; health_check interval=100ms uri=/probe match=fine; }}
            }}
        }}"
    ))
}

#[test]
fn a_server_whose_probes_fail_gets_no_requests_until_they_pass() {
    let [one, two] = ["one", "two"].map(Probed::start);
    let server = checked([one.upstream.port(), two.upstream.port()], 2);
    let names =
        |count: usize| -> Vec<String> { (0..count).map(|_| get(server.port(), "/").text()).collect() };
    let has = |names: &[String], name: &str| names.iter().any(|one| one == name);
    eventually("both are asked", || has(&names(4), "one") && has(&names(4), "two"));
    for sick in [answer(503, "all is fine"), answer(200, "all is lost"), b"nonsense\r\n\r\n".to_vec()] {
        one.set(sick);
        eventually("it is out", || !has(&names(10), "one"));
        let (requests, probes) = (one.requests.load(SeqCst), one.probes());
        eventually("more probes", || {
            assert!(!has(&names(10), "one"));
            one.probes() >= probes + 3
        });
        assert_eq!(one.requests.load(SeqCst), requests);
        one.set(answer(200, "all is fine"));
        eventually("it is back", || has(&names(10), "one"));
    }
    one.set(answer(500, ""));
    two.set(answer(500, ""));
    eventually("none is left", || get(server.port(), "/").status == 502);
    two.set(answer(200, "fine"));
    eventually("one is back", || get(server.port(), "/").text() == "two");
}

#[test]
fn one_worker_alone_sends_probes() {
    let held = Upstream::start(|mut peer| while !peer.read_some().is_empty() {});
    let other = Probed::start("other");
    let server = checked([held.port(), other.upstream.port()], 4);
    eventually("its probe and several of the other's", || held.accepted() > 0 && other.probes() >= 10);
    // Each worker that sends probes has one under way there.
    assert_eq!(held.accepted(), 1);
    drop(server);
}

/// What a gRPC server says of its health: a status of gRPC's and a message, or nothing but a reset.
type Said = Arc<Mutex<Option<(&'static str, &'static [u8])>>>;

const SERVING: &[u8] = b"\0\0\0\0\x02\x08\x01";
const NOT_SERVING: &[u8] = b"\0\0\0\0\x02\x08\x02";

/// A gRPC server with a health service, which notes what its health is asked for.
fn grpc_upstream(said: Said, asked: Arc<Mutex<Vec<String>>>) -> Upstream {
    Upstream::start(move |peer: Peer| {
        let mut peer = H2Peer::new(peer, Config::default());
        while let Some((stream, head, body)) = peer.read_request() {
            if head.path != "/grpc.health.v1.Health/Check" {
                peer.answer(stream, b"fine");
                continue;
            }
            let seen = ["host", "te", "content-type"].map(|name| head.field(name).unwrap_or("-").to_owned());
            asked.lock().unwrap().push(format!("{} {} {body:?}", head.method, seen.join(" ")));
            let said = *said.lock().unwrap();
            match said {
                None => peer.reset(stream, ErrorCode::INTERNAL_ERROR),
                Some((status, b"")) => {
                    let fields = [("content-type", "application/grpc"), ("grpc-status", status)];
                    peer.respond(stream, 200, Some(0), &fields);
                }
                Some((status, message)) => {
                    peer.respond(stream, 200, None, &[("content-type", "application/grpc")]);
                    peer.data(stream, message, false);
                    peer.trailers(stream, &[("grpc-status", status)]);
                }
            }
        }
    })
}

#[test]
fn grpc_servers_are_asked_by_their_own_protocol() {
    let said = Said::default();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let upstream = grpc_upstream(said.clone(), asked.clone());
    *said.lock().unwrap() = Some(("0", SERVING));
    let server = Server::start(&format!(
        "upstream group {{ zone group 64k; server 127.0.0.1:{}; }}
         server {{ listen {{port}}; http2 on; location / {{ grpc_pass grpc://group;
           health_check mandatory interval=50ms type=grpc grpc_service=a.B grpc_status=12; }} }}",
        upstream.port()
    ));
    let works = || H2Client::connect(server.port()).unary("/x", b"a").status == 200;
    eventually("it serves", works);
    for sick in [Some(("0", NOT_SERVING)), Some(("14", b"")), None, Some(("0", b""))] {
        *said.lock().unwrap() = sick;
        eventually("it is out", || !works());
        // The status that the configuration names is good too.
        *said.lock().unwrap() = Some(if sick.is_none() { ("12", b"") } else { ("0", SERVING) });
        eventually("it is back", works);
    }
    let asked = asked.lock().unwrap();
    assert_eq!(asked[0], format!("POST group trailers application/grpc {:?}", b"\0\0\0\0\x05\x0a\x03a.B"));
    let log = server.error_log();
    for why in ["its service is not serving", "its gRPC status does not match", "it reset the stream"] {
        assert!(log.contains(why), "{log}");
    }
}

#[test]
fn http_2_is_spoken_by_probes_where_requests_speak_it() {
    let sick = Arc::new(AtomicUsize::new(0));
    let says = sick.clone();
    let upstream = Upstream::start(move |peer: Peer| {
        let mut peer = H2Peer::new(peer, Config::default());
        while let Some((stream, head, _)) = peer.read_request() {
            let is_probe = head.path == "/up?x" && head.method == "GET";
            let is_sick = is_probe && says.load(SeqCst) == 1;
            // More than the first window holds.
            let body = if is_probe { vec![b'x'; 100_000] } else { b"fine".to_vec() };
            peer.respond(stream, if is_sick { 500 } else { 200 }, None, &[("x-health", "up")]);
            let mut left = &body[..];
            while !left.is_empty() {
                let sent = peer.data(stream, left, true);
                left = &left[sent..];
                if !left.is_empty() && peer.poll(std::time::Duration::from_millis(20)).is_some() {
                    return;
                }
            }
        }
    });
    let server = Server::start(&format!(
        "match up {{ status 200; header X-Health = up; body ~ ^x+$; }}
         upstream group {{ zone group 64k; server 127.0.0.1:{}; }}
         server {{ listen {{port}}; location / {{ proxy_http_version 2; proxy_pass http://group;
           health_check mandatory interval=50ms uri=/up?x match=up; }} }}",
        upstream.port()
    ));
    eventually("it is in", || get(server.port(), "/").status == 200);
    sick.store(1, SeqCst);
    eventually("it is out", || get(server.port(), "/").status == 502);
    sick.store(0, SeqCst);
    eventually("it is back", || get(server.port(), "/").status == 200);
}

/// Over TLS too: this server asks itself.
#[test]
fn probes_of_grpc_speak_tls() {
    let fixture = |name: &str| format!("{}/src/proto/tls/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    let server = Server::start(&format!(
        "ssl_certificate {}; ssl_certificate_key {};
         upstream good {{ zone good 64k; server 127.0.0.1:{{port2}}; }}
         upstream old {{ zone old 64k; server 127.0.0.1:{{port3}}; }}
         server {{ listen {{port}};
           grpc_ssl_trusted_certificate {}; grpc_ssl_verify on; grpc_ssl_name example.com;
           location / {{ grpc_pass grpcs://good; health_check mandatory interval=50ms type=grpc grpc_status=12; }}
           location /old {{ grpc_pass grpcs://old; health_check interval=50ms; }} }}
         server {{ listen {{port2}} ssl; http2 on; location / {{ return 200 fine; }}
           location /grpc. {{ add_header grpc-status 12; return 200 ''; }} }}
         server {{ listen {{port3}} ssl; return 200 fine; }}",
        fixture("server-ec.pem"),
        fixture("server-ec.key"),
        fixture("ca.pem"),
    ));
    eventually("it is in", || get(server.port(), "/").status == 200);
    eventually("the other is out", || server.error_log().contains("is unhealthy: it does not speak HTTP/2"));
}
