//! `max_conns` and `queue`: how many requests a server has at once, who waits for room, and for how long. Of all workers
//! together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::util::{Client, Response, Server, Upstream, eventually, get};

/// A server whose answers wait until they are let go, and how many requests it had at once.
struct Gated {
    upstream: Upstream,
    open: Arc<AtomicBool>,
    busy: Arc<AtomicUsize>,
    peak: Arc<AtomicUsize>,
}

impl Gated {
    fn start() -> Gated {
        let open = Arc::new(AtomicBool::new(false));
        let busy = Arc::new(AtomicUsize::new(0));
        let peak = Arc::new(AtomicUsize::new(0));
        let upstream = Upstream::http({
            let (open, busy, peak) = (open.clone(), busy.clone(), peak.clone());
            move |_, _| {
                peak.fetch_max(busy.fetch_add(1, SeqCst) + 1, SeqCst);
                eventually("the gate opens", || open.load(SeqCst));
                busy.fetch_sub(1, SeqCst);
                b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nserved".to_vec()
            }
        });
        Gated { upstream, open, busy, peak }
    }

    /// Waits until it has a request.
    fn wait_until_busy(&self) {
        eventually("a request arrives", || self.busy.load(SeqCst) == 1);
    }

    fn open(&self) {
        self.open.store(true, SeqCst);
    }

    /// A group of it alone, with one place.
    fn group(&self, queue: &str) -> Server {
        let port = self.upstream.port();
        Server::start(&format!(
            "upstream group {{ server 127.0.0.1:{port} max_conns=1; {queue} }} add_header X-Error $upstream_error always;
             server {{ listen {{port}}; location / {{ proxy_pass http://group; }} }}"
        ))
    }
}

/// Sends a request whose response is read later.
fn ask(server: &Server) -> Client {
    let mut client = Client::connect(server.port());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client
}

/// So many requests at once, each on a connection of its own.
#[track_caller]
fn at_once(port: u16, count: usize) -> Vec<Response> {
    let asking: Vec<JoinHandle<Response>> =
        (0..count).map(|_| std::thread::spawn(move || get(port, "/"))).collect();
    asking.into_iter().map(|one| one.join().expect("a response")).collect()
}

#[test]
fn requests_wait_for_a_place_and_are_served() {
    let gated = Gated::start();
    let server = gated.group("queue 10 timeout=30s;");
    let mut first = ask(&server);
    gated.wait_until_busy();
    let mut waiting: Vec<Client> = (0..10).map(|_| ask(&server)).collect();
    waiting[9].expect_quiet(Duration::from_millis(100));
    gated.open();
    assert_eq!(first.read_response().text(), "served");
    for client in &mut waiting {
        assert_eq!(client.read_response().text(), "served");
    }
    assert_eq!(gated.peak.load(SeqCst), 1);
}

#[test]
fn no_more_requests_wait_than_have_a_place_in_the_queue() {
    let gated = Gated::start();
    let server = gated.group("queue 2 timeout=30s;");
    let mut first = ask(&server);
    gated.wait_until_busy();
    let asking: Vec<JoinHandle<Response>> = (0..5)
        .map(|_| {
            let mut client = ask(&server);
            std::thread::spawn(move || client.read_response())
        })
        .collect();
    eventually("three are turned away", || asking.iter().filter(|one| one.is_finished()).count() == 3);
    gated.open();
    assert_eq!(first.read_response().status, 200);
    let responses: Vec<Response> = asking.into_iter().map(|one| one.join().expect("a response")).collect();
    let with =
        |status: u16| responses.iter().filter(|response| response.status == status).collect::<Vec<_>>();
    assert_eq!((with(200).len(), with(502).len()), (2, 3));
    for refused in with(502) {
        assert_eq!(refused.header("X-Error"), Some("no_live_upstreams"));
    }
}

#[test]
fn without_a_queue_nobody_waits() {
    let gated = Gated::start();
    let server = gated.group("");
    let mut first = ask(&server);
    gated.wait_until_busy();
    assert_eq!(get(server.port(), "/").status, 502);
    gated.open();
    assert_eq!(first.read_response().status, 200);
    eventually("the place is free", || get(server.port(), "/").status == 200);
}

#[test]
fn waiting_ends_with_its_time() {
    let gated = Gated::start();
    let server = gated.group("queue 10 timeout=200ms;");
    let mut first = ask(&server);
    gated.wait_until_busy();
    for response in at_once(server.port(), 5) {
        assert_eq!((response.status, response.header("X-Error")), (502, Some("queue_timeout")));
    }
    gated.open();
    assert_eq!(first.read_response().status, 200);
    // Places in the queue were given back.
    for response in at_once(server.port(), 10) {
        let error = response.header("X-Error");
        assert!(response.status == 200 || error == Some("queue_timeout"), "{} {error:?}", response.status);
    }
}

#[test]
fn a_client_that_leaves_gives_its_place_in_the_queue_back() {
    let gated = Gated::start();
    let server = gated.group("queue 1 timeout=30s;");
    let mut first = ask(&server);
    gated.wait_until_busy();
    let leaving = ask(&server);
    eventually("its place is taken", || {
        let mut other = ask(&server);
        other.limit(Duration::from_millis(100));
        other.has_more()
    });
    drop(leaving);
    let mut last = None;
    eventually("its place is free", || {
        let mut other = ask(&server);
        other.limit(Duration::from_millis(500));
        let waits = !other.has_more();
        other.limit(crate::util::PATIENCE);
        last = waits.then_some(other);
        waits
    });
    gated.open();
    assert_eq!(first.read_response().status, 200);
    assert_eq!(last.expect("it waits").read_response().status, 200);
}

#[test]
fn workers_share_a_server_s_places_and_its_queue() {
    let gated = Gated::start();
    let server = Server::start(&format!(
        "worker_processes 2; http {{
            upstream group {{ server 127.0.0.1:{} max_conns=1; queue 50 timeout=30s; }}
            server {{ listen {{port}}; location / {{ proxy_pass http://group; }} }}
        }}",
        gated.upstream.port()
    ));
    let mut clients: Vec<Client> = (0..30).map(|_| ask(&server)).collect();
    gated.wait_until_busy();
    gated.open();
    for client in &mut clients {
        assert_eq!(client.read_response().status, 200);
    }
    assert_eq!(gated.peak.load(SeqCst), 1);
}
