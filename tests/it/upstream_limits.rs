//! Bounds of what a group keeps: connections between requests, requests at a time, requests that wait, and sessions.

use crate::util::{Backend, Client, Conduct, Peer, Server, Upstream, eventually, get, raw, request};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

fn no_alarm(server: &Server) {
    let log = server.error_log();
    for word in ["[alert]", "[emerg]", "panic", "exited on signal"] {
        assert!(!log.contains(word) && !server.stderr().contains(word), "{log}\n{}", server.stderr());
    }
}

/// An upstream that counts what goes on at it.
struct Counting {
    upstream: Upstream,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    open: AtomicUsize,
    /// Requests under way, and the most that there were at once.
    busy: AtomicUsize,
    peak: AtomicUsize,
    /// Requests on one connection at most.
    requests: AtomicUsize,
}

impl Counting {
    /// Takes so long for each answer.
    fn start(name: &'static str, pause: Duration) -> Self {
        let counts = Arc::new(Counts::default());
        let upstream = Upstream::start({
            let counts = counts.clone();
            move |mut peer: Peer| {
                counts.open.fetch_add(1, Ordering::SeqCst);
                let mut requests = 0;
                while peer.has_more() && peer.read_request().is_some() {
                    requests += 1;
                    counts.requests.fetch_max(requests, Ordering::SeqCst);
                    let busy = counts.busy.fetch_add(1, Ordering::SeqCst) + 1;
                    counts.peak.fetch_max(busy, Ordering::SeqCst);
                    std::thread::sleep(pause);
                    counts.busy.fetch_sub(1, Ordering::SeqCst);
                    let length = name.len();
                    if !peer.try_send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}")) {
                        break;
                    }
                }
                counts.open.fetch_sub(1, Ordering::SeqCst);
            }
        });
        Self { upstream, counts }
    }

    fn member(&self, parameters: &str) -> String {
        format!("server 127.0.0.1:{} {parameters}; ", self.upstream.port())
    }

    fn accepted(&self) -> usize {
        self.upstream.accepted()
    }

    fn open(&self) -> usize {
        self.counts.open.load(Ordering::SeqCst)
    }

    fn peak(&self) -> usize {
        self.counts.peak.load(Ordering::SeqCst)
    }

    fn most_requests(&self) -> usize {
        self.counts.requests.load(Ordering::SeqCst)
    }
}

fn text(group: &str, location: &str) -> String {
    format!(
        "log_format tries '$status|$upstream_addr|$upstream_error|$upstream_queue_time'; access_log {{root}}/access.log tries;
         upstream u {{ {group} }}
         server {{ listen {{port}}; location / {{ proxy_pass http://u; {location} }} location /other {{ proxy_pass http://u; }} }}"
    )
}

/// GETs from several clients at once; the statuses.
fn load(port: u16, clients: usize, each: usize) -> Vec<u16> {
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..clients)
            .map(|_| scope.spawn(move || (0..each).map(|_| get(port, "/").status).collect::<Vec<_>>()))
            .collect();
        running.into_iter().flat_map(|client| client.join().expect("a client")).collect()
    })
}

#[test]
fn no_more_connections_are_kept_than_asked_for() {
    for (keepalive, kept) in [("keepalive 2;", 2), ("keepalive 0;", 0), ("", 8)] {
        let upstream = Counting::start("a", Duration::from_millis(100));
        let server = Server::start(&text(&(upstream.member("") + keepalive), ""));
        assert_eq!(load(server.port(), 8, 1), [200; 8]);
        eventually("the others are closed", || upstream.open() <= kept);
        let before = upstream.accepted();
        for _ in 0..3 {
            assert_eq!(get(server.port(), "/").status, 200);
        }
        assert_eq!(upstream.accepted() - before, if kept == 0 { 3 } else { 0 });
        no_alarm(&server);
    }
}

#[test]
fn a_connection_makes_no_more_requests_than_it_may() {
    let upstream = Counting::start("a", Duration::ZERO);
    let server = Server::start(&text(&(upstream.member("") + "keepalive 4; keepalive_requests 3;"), ""));
    for _ in 0..9 {
        assert_eq!(get(server.port(), "/").status, 200);
    }
    assert_eq!((upstream.accepted(), upstream.most_requests()), (3, 3));
    eventually("all are closed", || upstream.open() == 0);
}

#[test]
fn a_connection_is_used_for_no_longer_than_it_may() {
    let upstream = Counting::start("a", Duration::ZERO);
    let server = Server::start(&text(&(upstream.member("") + "keepalive 4; keepalive_time 200ms;"), ""));
    eventually("the third connection", || {
        assert_eq!(get(server.port(), "/").status, 200);
        upstream.accepted() == 3
    });
    assert!(upstream.most_requests() > 1);
}

#[test]
fn a_connection_is_idle_for_no_longer_than_it_may() {
    let upstream = Counting::start("a", Duration::ZERO);
    let server = Server::start(&text(&(upstream.member("") + "keepalive 4; keepalive_timeout 200ms;"), ""));
    for _ in 0..2 {
        assert_eq!(load(server.port(), 2, 2), [200; 4]);
        eventually("all are closed", || upstream.open() == 0);
    }
    no_alarm(&server);
}

#[test]
fn connections_of_one_location_are_used_by_others_only_where_that_is_asked_for() {
    for (keepalive, connections) in [("", 2), ("keepalive 4 local;", 2), ("keepalive 4;", 1)] {
        let upstream = Counting::start("a", Duration::ZERO);
        let server = Server::start(&text(&(upstream.member("") + keepalive), ""));
        for path in ["/", "/other", "/", "/other"] {
            assert_eq!(get(server.port(), path).status, 200);
        }
        assert_eq!(upstream.accepted(), connections, "{keepalive}");
    }
}

#[test]
fn connections_are_kept_over_a_reload_until_nobody_names_their_group() {
    let upstream = Counting::start("a", Duration::ZERO);
    let two = |http: String| format!("worker_processes 2; http {{ {http} }}");
    let server = Server::start(&two(text(&upstream.member(""), "")));
    eventually("each worker has one", || {
        assert_eq!(get(server.port(), "/").status, 200);
        upstream.accepted() == 2
    });
    let reload = |number: usize, text: String| {
        let text =
            text.replace("location / {", &format!("add_header X-Round {number} always; location / {{"));
        server.configure(&two(text));
        server.reload();
        eventually("the new configuration", || {
            get(server.port(), "/").header("x-round") == Some(&*number.to_string())
        });
    };
    reload(2, text(&upstream.member(""), ""));
    assert_eq!((load(server.port(), 1, 20), upstream.accepted()), (vec![200; 20], 2));
    reload(3, "server { listen {port}; location / { return 204; } }".into());
    eventually("all are closed", || upstream.open() == 0);
    no_alarm(&server);
}

#[test]
fn a_server_has_no_more_requests_at_a_time_than_it_may_whatever_worker_they_come_from() {
    for workers in [1, 2] {
        let pause = Duration::from_millis(10);
        let (a, b, c) =
            (Counting::start("a", pause), Counting::start("b", pause), Counting::start("c", pause));
        let group = [a.member("max_conns=1"), b.member("max_conns=3"), c.member("")].concat();
        let http = text(&group, "");
        let server = Server::start(&format!("worker_processes {workers}; http {{ {http} }}"));
        assert_eq!(load(server.port(), 16, 15), [200; 240]);
        assert_eq!((a.peak(), b.peak()), (1, 3), "{workers}");
        no_alarm(&server);
    }
}

#[test]
fn requests_that_find_all_servers_busy_wait_in_line_whatever_worker_they_come_from() {
    for group_of in [1, 2] {
        let servers: Vec<_> = (0..group_of).map(|_| Counting::start("a", Duration::from_millis(5))).collect();
        let members: String = servers.iter().map(|server| server.member("max_conns=1")).collect();
        let http = text(&(members + "queue 100;"), "");
        let server = Server::start(&format!("worker_processes 2; http {{ {http} }}"));
        assert_eq!(load(server.port(), 12, 10), [200; 120]);
        for counting in &servers {
            assert_eq!(counting.peak(), 1);
        }
        let lines = server.access_log_lines(120);
        assert!(lines.iter().any(|line| !line.ends_with("|-")), "somebody waited");
        no_alarm(&server);
    }
}

/// A client whose request is under way.
fn asking(server: &Server, path: &str) -> Client {
    let mut client = Client::connect(server.port());
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    client
}

/// Whether a request is refused for want of room. One that is not is waited with in `waiting`.
fn is_refused(server: &Server, waiting: &mut Vec<Client>) -> bool {
    let mut client = asking(server, "/probe").timeout(Duration::from_millis(300));
    if client.has_more() {
        assert_eq!(client.read_response().status, 502);
        return true;
    }
    client.limit(crate::util::PATIENCE);
    waiting.push(client);
    false
}

#[test]
fn the_line_has_an_end_and_who_leaves_it_makes_room() {
    let backend = Backend::start("a");
    backend.conduct(Conduct::Hang);
    let group = format!("server 127.0.0.1:{} max_conns=1; queue 2;", backend.port());
    let server = Server::start(&text(&group, ""));
    let held = asking(&server, "/held");
    eventually("one is under way", || backend.seen("GET /held") == 1);
    let mut waiting = Vec::new();
    while !is_refused(&server, &mut waiting) {
        assert!(waiting.len() <= 2);
    }
    assert_eq!(waiting.len(), 2);
    assert!(server.access_log_lines(1)[0].starts_with("502|u|no_live_upstreams|"));
    // One that goes makes room for another one.
    drop(waiting.pop());
    eventually("a place in the line", || !is_refused(&server, &mut waiting));
    assert_eq!(waiting.len(), 2);
    assert_eq!(backend.heads().len(), 1);
    // So does the one that was served.
    drop(held);
    backend.conduct(Conduct::Answer(200));
    for mut client in waiting {
        assert_eq!(client.read_response().status, 200);
    }
    assert_eq!(get(server.port(), "/").status, 200);
    no_alarm(&server);
}

#[test]
fn nobody_waits_in_line_for_longer_than_may_be() {
    let backend = Backend::start("a");
    backend.conduct(Conduct::Hang);
    let group = format!("server 127.0.0.1:{} max_conns=1; queue 2 timeout=150ms;", backend.port());
    let server = Server::start(&text(&group, ""));
    let mut held = asking(&server, "/held");
    eventually("one is under way", || backend.seen("GET /held") == 1);
    for _ in 0..5 {
        assert_eq!(get(server.port(), "/").status, 502);
    }
    for line in server.access_log_lines(5) {
        let waited = line.strip_prefix("502|u|queue_timeout|").expect("the reason");
        assert!(waited.parse::<f32>().is_ok(), "{line}");
    }
    backend.conduct(Conduct::Answer(200));
    assert_eq!(held.read_response().status, 200);
    assert_eq!(get(server.port(), "/").status, 200);
}

#[test]
fn without_a_line_a_request_too_many_is_refused_at_once() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    a.conduct(Conduct::Hang);
    b.conduct(Conduct::Hang);
    let members = [&a, &b].map(|backend| format!("server 127.0.0.1:{} max_conns=1;", backend.port()));
    let server = Server::start(&text(&members.concat(), ""));
    let held = [asking(&server, "/held"), asking(&server, "/held")];
    eventually("two are under way", || a.seen("GET /held") == 1 && b.seen("GET /held") == 1);
    for _ in 0..5 {
        assert_eq!(get(server.port(), "/").status, 502);
    }
    for line in server.access_log_lines(5) {
        assert!(line.starts_with("502|u|no_live_upstreams|"), "{line}");
    }
    a.conduct(Conduct::Answer(200));
    b.conduct(Conduct::Answer(200));
    for mut client in held {
        assert_eq!(client.read_response().status, 200);
    }
}

/// A group of three servers with these lines.
fn three(group: &str) -> ([Backend; 3], Server) {
    let backends = [Backend::start("a"), Backend::start("b"), Backend::start("c")];
    let members = backends.each_ref().map(|backend| format!("server 127.0.0.1:{};", backend.port()));
    let server = Server::start(&text(&format!("{group} {}", members.concat()), ""));
    (backends, server)
}

fn with_cookie(server: &Server, cookie: &str) -> (String, Option<String>) {
    let response = request(server.port(), "GET", "/", &[("Cookie", cookie)]);
    assert_eq!(response.status, 200, "{cookie:?}");
    let set = response.header("set-cookie").and_then(|line| line.split(';').next().map(str::to_owned));
    (response.text(), set)
}

#[test]
fn a_session_whose_server_fails_goes_elsewhere_and_stays_there() {
    let (backends, server) = three("sticky cookie srv;");
    let first = get(server.port(), "/");
    let cookie = first.header("set-cookie").expect("a cookie").to_owned();
    let own = backends.iter().find(|backend| backend.seen("GET") == 1).expect("one was asked");
    own.conduct(Conduct::Close);
    let (elsewhere, new) = with_cookie(&server, &cookie);
    let new = new.expect("a cookie of the new server");
    assert_ne!((&elsewhere, &new), (&first.text(), &cookie));
    for _ in 0..6 {
        assert_eq!(with_cookie(&server, &new), (elsewhere.clone(), Some(new.clone())));
    }
}

#[test]
fn cookies_that_name_no_server_go_by_the_method() {
    let (_backends, server) = three("sticky cookie srv;");
    let long = format!("srv={}", "f".repeat(7000));
    let foreign = format!("srv={}", "0".repeat(32));
    for cookie in ["srv=", "srv=x", "srv=\"", "srv=%00%0d%0a", "other=1", &foreign, &long] {
        let answers: HashSet<String> = (0..3).map(|_| with_cookie(&server, cookie).0).collect();
        assert_eq!(answers.len(), 3, "{cookie:?}");
    }
    no_alarm(&server);
}

/// Learns a session, and asks for one.
fn make(server: &Server, session: usize) -> String {
    get(server.port(), &format!("/?make=s{session}")).text()
}

fn look_up(server: &Server, session: usize) -> String {
    get(server.port(), &format!("/?use=s{session}")).text()
}

#[test]
fn the_table_of_learned_sessions_has_a_bound_and_forgets_the_oldest() {
    let (_backends, server) = three("sticky learn create=$arg_make lookup=$arg_use zone=s:32k;");
    let sessions: Vec<String> = (0..600).map(|session| make(&server, session)).collect();
    // 128 bytes are reckoned for one.
    for session in (345..600).rev() {
        assert_eq!(look_up(&server, session), sessions[session], "{session}");
    }
    // Not in the order in which turns were taken.
    let forgotten = (0..200).rev().filter(|session| look_up(&server, *session) != sessions[*session]).count();
    assert!(forgotten > 0);
    // Nothing is learned of what is empty, nor of what is only asked for.
    for path in ["/?make=", "/?use=", "/?use=never"] {
        let answers: HashSet<String> = (0..6).map(|_| get(server.port(), path).text()).collect();
        assert_eq!(answers.len(), 3, "{path}");
    }
    no_alarm(&server);
}

#[test]
fn a_learned_session_is_forgotten_when_it_was_not_used_for_long() {
    let (_backends, server) = three("sticky learn create=$arg_make lookup=$arg_use zone=s:1m timeout=1s;");
    let sessions: Vec<String> = (0..60).map(|session| make(&server, session)).collect();
    std::thread::sleep(Duration::from_millis(1100));
    let elsewhere = (0..60).rev().filter(|session| look_up(&server, *session) != sessions[*session]).count();
    assert!(elsewhere > 0);
}

#[test]
fn workers_share_learned_sessions_and_keep_them_over_reloads() {
    let backends = [Backend::start("a"), Backend::start("b"), Backend::start("c")];
    let members = backends.each_ref().map(|backend| format!("server 127.0.0.1:{};", backend.port())).concat();
    let round = |number: usize, more: &str| {
        let group = format!("{more} sticky learn create=$arg_make lookup=$arg_use zone=s:1m; {members}");
        let http = text(&group, &format!("add_header X-Round {number} always;"));
        format!("worker_processes 2; http {{ {http} }}")
    };
    let server = Server::start(&round(1, ""));
    let sessions: Vec<String> = (0..60).map(|session| make(&server, session)).collect();
    for (number, more) in [(2, ""), (3, "least_conn;")] {
        server.configure(&round(number, more));
        server.reload();
        eventually("the new configuration", || {
            get(server.port(), "/").header("x-round") == Some(&*number.to_string())
        });
        for (session, own) in sessions.iter().enumerate() {
            assert_eq!(look_up(&server, session), *own, "{number} {session}");
        }
    }
}

#[test]
fn a_server_that_drains_serves_its_sessions_alone() {
    let backends = [Backend::start("a"), Backend::start("b")];
    let round = |number: usize, drain: &str| {
        text(
            &format!(
                "sticky cookie srv; server 127.0.0.1:{} {drain}; server 127.0.0.1:{};",
                backends[0].port(),
                backends[1].port()
            ),
            &format!("add_header X-Round {number} always;"),
        )
    };
    let server = Server::start(&round(1, ""));
    let first = [get(server.port(), "/"), get(server.port(), "/")];
    let own = first.iter().find(|response| response.text() == "a").expect("both were asked");
    let cookie = own.header("set-cookie").expect("a cookie").to_owned();
    server.configure(&round(2, "drain"));
    server.reload();
    eventually("the new configuration", || get(server.port(), "/").header("x-round") == Some("2"));
    for _ in 0..6 {
        assert_eq!(get(server.port(), "/").text(), "b");
        assert_eq!(with_cookie(&server, &cookie).0, "a");
    }
}

#[test]
fn posts_to_servers_that_close_idle_connections_are_all_answered_whoever_they_go_to() {
    // Some application servers close after so long, at times just when a request comes.
    const KEPT: Duration = Duration::from_millis(60);
    let received = Arc::new(AtomicUsize::new(0));
    let upstreams: Vec<Upstream> = (0..2)
        .map(|_| {
            let received = received.clone();
            Upstream::start(move |mut peer: Peer| {
                loop {
                    peer.limit(KEPT);
                    if !peer.has_more() {
                        return;
                    }
                    peer.limit(crate::util::PATIENCE);
                    if peer.read_request().is_none() {
                        return;
                    }
                    received.fetch_add(1, Ordering::SeqCst);
                    peer.try_send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                }
            })
        })
        .collect();
    let members: String =
        upstreams.iter().map(|upstream| format!("server 127.0.0.1:{};", upstream.port())).collect();
    let http = text(&members, "");
    let server = Server::start(&format!("worker_processes 2; http {{ {http} }}"));
    const CLIENTS: u64 = 8;
    const EACH: usize = 25;
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let port = server.port();
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(client);
                for _ in 0..EACH {
                    let post =
                        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody";
                    assert_eq!(raw(port, post).expect("a response").status, 200);
                    let around = KEPT.as_micros() as u64;
                    std::thread::sleep(Duration::from_micros(random.u64(around - 2000..around + 1000)));
                }
            });
        }
    });
    // Each came once.
    assert_eq!(received.load(Ordering::SeqCst), CLIENTS as usize * EACH);
    no_alarm(&server);
}
