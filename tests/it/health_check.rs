//! `health_check` and `match`: whose probes fail gets no requests until they pass, and one worker sends them for all.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use crate::util::{Server, Upstream, eventually, get};

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
