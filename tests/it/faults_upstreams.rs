//! Upstreams that fail while many ask: no request fails that may go elsewhere, and none is made twice that may not be.

use crate::util::{Backend, Client, Conduct, Reserved, Server, Signal, Upstream, eventually};
use rustix::process::kill_process;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long each test keeps asking.
const TIME: Duration = Duration::from_secs(3);

/// Clients that ask over kept connections until they are stopped, and what they got.
struct Askers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<HashMap<u16, usize>>>,
}

impl Askers {
    /// So many clients; `request` makes the text of their next request from its number.
    fn start(port: u16, count: usize, request: impl Fn(usize) -> String + Send + Sync + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (request, number) = (Arc::new(request), Arc::new(AtomicUsize::new(0)));
        let client = |_| {
            let (stop, request, number) = (stop.clone(), request.clone(), number.clone());
            std::thread::spawn(move || {
                let mut statuses = HashMap::new();
                let mut client = Client::connect(port);
                while !stop.load(Ordering::Relaxed) {
                    client.send(request(number.fetch_add(1, Ordering::Relaxed)));
                    let response = client.read_response();
                    *statuses.entry(response.status).or_default() += 1;
                    if response.header("Connection") == Some("close") {
                        client = Client::connect(port);
                    }
                }
                statuses
            })
        };
        let threads = (0..count).map(client).collect();
        Self { stop, threads }
    }

    /// How many answers of each status there were.
    fn stop(self) -> HashMap<u16, usize> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = HashMap::new();
        for thread in self.threads {
            for (status, count) in thread.join().expect("every request is answered") {
                *all.entry(status).or_default() += count;
            }
        }
        all
    }
}

fn get(number: usize) -> String {
    format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n")
}

fn group(lines: &str, directives: &str) -> Server {
    Server::start(&format!(
        "worker_processes 2; http {{ upstream group {{ {lines} keepalive 8; }}
         server {{ listen {{port}}; location / {{ proxy_pass http://group; {directives} }} }} }}"
    ))
}

fn lines(ports: &[u16]) -> String {
    ports.iter().map(|port| format!("server 127.0.0.1:{port} fail_timeout=1s; ")).collect()
}

#[test]
fn as_long_as_one_upstream_is_well_every_get_is_answered_whatever_the_others_do() {
    let backends = [Backend::start("a"), Backend::start("b"), Backend::start("c")];
    let server = group(
        &lines(&backends.each_ref().map(Backend::port)),
        "proxy_next_upstream error timeout invalid_header http_503; proxy_read_timeout 5s;",
    );
    let askers = Askers::start(server.port(), 6, get);
    let mut random = fastrand::Rng::with_seed(61);
    let begin = Instant::now();
    while begin.elapsed() < 2 * TIME {
        // Another one is well for longer than its failures count before the first one fails.
        let turn = begin.elapsed().as_millis() as usize / 1500;
        let well = |index: usize| index == turn % 3 || index == (turn + 1) % 3;
        for (index, backend) in backends.iter().enumerate() {
            backend.conduct(match random.u8(..6) {
                _ if well(index) => Conduct::Answer(200),
                0 => Conduct::Reset,
                1 => Conduct::Close,
                2 => Conduct::Slam,
                3 => Conduct::Answer(503),
                4 => Conduct::Say(b"HTTP/1.1 2".to_vec()),
                _ => Conduct::Hang,
            });
        }
        std::thread::sleep(Duration::from_millis(random.u64(20..120)));
    }
    let statuses = askers.stop();
    println!("{statuses:?}");
    assert_eq!(statuses.keys().collect::<Vec<_>>(), [&200], "{statuses:?}\n{}", server.error_log());
    assert!(statuses[&200] > 100, "{statuses:?}");
}

#[test]
fn upstreams_that_go_and_come_back_cost_no_get() {
    let ports = [Reserved::new(), Reserved::new()];
    let start = |index: usize| {
        let port = ports[index].port();
        Upstream::start_on(port, move |mut peer| {
            while let Some((head, _)) = peer.read_request() {
                // Now and then a kept connection is closed or reset instead of being answered.
                let number: usize =
                    head.split(['/', ' ']).nth(2).and_then(|text| text.parse().ok()).unwrap_or_default();
                match number % 23 {
                    5 => return,
                    7 => return peer.reset(),
                    _ if !peer.try_send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") => return,
                    _ => {}
                }
            }
        })
    };
    let steady = Backend::start("steady");
    let mut running = [Some(start(0)), Some(start(1))];
    let server = group(&lines(&[ports[0].port(), ports[1].port(), steady.port()]), "");
    let askers = Askers::start(server.port(), 6, get);
    let end = Instant::now() + TIME;
    let mut turn = 0;
    while Instant::now() < end {
        running[turn % 2] = match running[turn % 2].take() {
            // Nobody listens any more: connections are refused, kept ones go on.
            Some(upstream) => {
                drop(upstream);
                None
            }
            None => Some(start(turn % 2)),
        };
        turn += if running[turn % 2].is_some() { 1 } else { 0 };
        std::thread::sleep(Duration::from_millis(60));
    }
    let statuses = askers.stop();
    println!("{statuses:?}");
    assert_eq!(statuses.keys().collect::<Vec<_>>(), [&200], "{statuses:?}\n{}", server.error_log());
    assert!(statuses[&200] > 100, "{statuses:?}");
}

#[test]
fn processes_of_upstreams_that_are_killed_cost_no_get() {
    let upstreams = [(); 2].map(|()| Server::start("server { listen {port}; return 200 fine; }"));
    let server = group(&lines(&upstreams.each_ref().map(Server::port)), "");
    let askers = Askers::start(server.port(), 6, get);
    for round in 0..6 {
        let killed = &upstreams[round % 2];
        let old = *killed.children().last().expect("a server process");
        kill_process(old, Signal::KILL).expect("kill");
        eventually("the next process", || killed.children().last().is_some_and(|new| *new != old));
        std::thread::sleep(Duration::from_millis(300));
    }
    let statuses = askers.stop();
    println!("{statuses:?}");
    assert_eq!(statuses.keys().collect::<Vec<_>>(), [&200], "{statuses:?}\n{}", server.error_log());
    assert!(statuses[&200] > 100, "{statuses:?}");
}

#[test]
fn a_post_reaches_at_most_one_upstream_and_fails_only_where_it_was_sent() {
    let seen: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let failing = Arc::new(AtomicBool::new(false));
    let start = |can_fail: bool| {
        let (seen, failing) = (seen.clone(), failing.clone());
        Upstream::start(move |mut peer| {
            while let Some((head, body)) = peer.read_request() {
                let name = head.split(' ').nth(1).unwrap_or_default().to_owned();
                assert_eq!(body, b"hello");
                *seen.lock().unwrap().entry(name).or_default() += 1;
                if can_fail && failing.load(Ordering::Relaxed) {
                    return peer.reset();
                }
                if !peer.try_send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") {
                    return;
                }
            }
        })
    };
    let (one, two, gone) = (start(true), start(false), Reserved::new());
    let server = group(&lines(&[one.port(), two.port(), gone.port()]), "");
    let askers = Askers::start(server.port(), 6, |number| {
        format!("POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
    });
    let end = Instant::now() + TIME;
    while Instant::now() < end {
        failing.fetch_xor(true, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(50));
    }
    failing.store(false, Ordering::Relaxed);
    let statuses = askers.stop();
    let seen = seen.lock().unwrap();
    println!("{statuses:?}");
    let answered: usize = statuses.values().sum();
    let failed = statuses.get(&502).copied().unwrap_or(0);
    assert!(seen.values().all(|count| *count == 1), "a request was made twice");
    // Whatever failed had been sent: what met nobody went elsewhere.
    assert_eq!(seen.len(), answered, "{statuses:?}");
    assert!(failed > 0 && statuses.keys().all(|status| [200, 502].contains(status)), "{statuses:?}");
}
