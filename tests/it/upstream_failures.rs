//! Servers of a group that fail: who is asked in their place and who is not, how they come back, and what the logs say.

use crate::util::{Backend, Client, Conduct, PATIENCE, Reserved, Response, Server, eventually, raw};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// What each line of the access log has.
const LOG: &str = "log_format tries '$request_method $uri|$upstream_addr|$upstream_status|$upstream_error|$upstream_attempts';
     access_log {root}/access.log tries;";

/// A server of a group that answers at this port, with its parameters.
fn member(port: u16, parameters: &str) -> String {
    format!("server 127.0.0.1:{port} {parameters};")
}

/// The configuration of a server that passes everything on to a group with these lines.
fn text(group: &str, location: &str) -> String {
    format!(
        "{LOG} upstream u {{ {group} }}
         server {{ listen {{port}}; location / {{ proxy_pass http://u; add_header X-Tried $upstream_addr always; {location} }} }}"
    )
}

fn start(group: &str, location: &str) -> Server {
    Server::start(&text(group, location))
}

fn no_alarm(server: &Server) {
    let log = server.error_log();
    for word in ["[alert]", "[emerg]", "panic", "exited on signal"] {
        assert!(!log.contains(word) && !server.stderr().contains(word), "{log}\n{}", server.stderr());
    }
}

/// A request with a body, if it is a POST.
fn request_text(method: &str, path: &str) -> String {
    let body = if method == "POST" { "Content-Length: 4\r\n\r\nbody" } else { "\r\n" };
    format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{body}")
}

fn ask(port: u16, method: &str, path: &str) -> Response {
    raw(port, request_text(method, path)).expect("a response")
}

/// How many servers were asked for a response.
fn tries(response: &Response) -> usize {
    response.header("x-tried").expect("who was asked").split(", ").count()
}

/// Sends requests from several clients at once, `each` of them one after the other; all responses.
fn load(port: u16, clients: usize, each: usize, methods: &[&str]) -> Vec<Response> {
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..clients)
            .map(|client| {
                scope.spawn(move || {
                    let asked = (0..each).map(|round| {
                        ask(port, methods[round % methods.len()], &format!("/{client}/{round}"))
                    });
                    asked.collect::<Vec<_>>()
                })
            })
            .collect();
        running.into_iter().flat_map(|client| client.join().expect("a client")).collect()
    })
}

const METHODS: [&str; 6] =
    ["", "least_conn;", "random two;", "ip_hash;", "hash $request_uri;", "hash $request_uri consistent;"];

#[test]
fn a_server_of_three_that_refuses_loses_no_request_and_costs_few_a_second_try() {
    const CLIENTS: usize = 8;
    let dead = Reserved::new();
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    for method in METHODS {
        let group = [method.into(), member(a.port(), ""), member(dead.port(), ""), member(b.port(), "")];
        let server = start(&group.concat(), "");
        let responses = load(server.port(), CLIENTS, 20, &["GET", "POST"]);
        assert!(responses.iter().all(|response| response.status == 200), "{method} {responses:?}");
        // Those that were under way together when it was found out, and the trials of slow machines.
        let twice = responses.iter().filter(|response| tries(response) > 1).count();
        assert!(twice <= 2 * CLIENTS, "{method} {twice}");
        no_alarm(&server);
    }
}

#[test]
fn a_server_of_three_that_never_answers_loses_no_request_and_holds_few() {
    const CLIENTS: usize = 8;
    let (a, hanging, b) = (Backend::start("a"), Backend::start("hanging"), Backend::start("b"));
    hanging.conduct(Conduct::Hang);
    for method in ["", "least_conn;", "hash $request_uri consistent;"] {
        let group = [method.into(), member(a.port(), ""), member(hanging.port(), ""), member(b.port(), "")];
        let server = start(&group.concat(), "proxy_read_timeout 600ms;");
        let responses = load(server.port(), CLIENTS, 30, &["GET"]);
        assert!(responses.iter().all(|response| response.status == 200), "{method} {responses:?}");
        let held = responses.iter().filter(|response| tries(response) > 1).count();
        assert!((1..=2 * CLIENTS).contains(&held), "{method} {held}");
        no_alarm(&server);
    }
}

#[test]
fn a_server_of_three_whose_handshake_hangs_loses_no_request_not_even_a_post() {
    const CLIENTS: usize = 8;
    // A queue of connections that nobody accepts takes one more than it says, and drops what comes behind.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    let _waiting = Client::connect(port);
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let group = [member(a.port(), ""), member(port, ""), member(b.port(), "")].concat();
    let server = start(&group, "proxy_connect_timeout 500ms;");
    let responses = load(server.port(), CLIENTS, 30, &["GET", "POST"]);
    assert!(responses.iter().all(|response| response.status == 200), "{responses:?}");
    let held = responses.iter().filter(|response| tries(response) > 1).count();
    assert!((1..=2 * CLIENTS).contains(&held), "{held}");
    no_alarm(&server);
}

/// What a server does, the condition of `proxy_next_upstream` that it is, the status that the client gets if nobody else
/// is asked, and the reason.
const FAILURES: [(&str, &str, u16, &str); 14] = [
    ("refuse", "error", 502, "connect_refused"),
    ("close", "error", 502, "reset_before_header"),
    ("reset", "error", 502, "reset_before_header"),
    ("half", "error", 502, "header_truncated"),
    ("garbage", "invalid_header", 502, "header_invalid"),
    ("large", "invalid_header", 502, "header_too_big"),
    ("hang", "timeout", 504, "header_timeout"),
    ("500", "http_500", 500, "http_status"),
    ("502", "http_502", 502, "http_status"),
    ("503", "http_503", 503, "http_status"),
    ("504", "http_504", 504, "http_status"),
    ("403", "http_403", 403, "http_status"),
    ("404", "http_404", 404, "http_status"),
    ("429", "http_429", 429, "http_status"),
];

/// A server that fails in one of these ways.
fn failing(kind: &str) -> (Option<Backend>, Reserved) {
    let reserved = Reserved::new();
    let conduct = match kind {
        "refuse" => return (None, reserved),
        "close" => Conduct::Close,
        "reset" => Conduct::Reset,
        "half" => Conduct::Say(b"HTTP/1.1 200 OK\r\nX-A: b\r\n".to_vec()),
        "garbage" => Conduct::Say(b"HTTP/1.1 200 OK\r\nno field\r\n\r\n".to_vec()),
        "large" => Conduct::Say(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(9000)).into_bytes()),
        "hang" => Conduct::Hang,
        status => Conduct::Answer(status.parse().expect("a status")),
    };
    let backend = Backend::start_on(reserved.port(), "bad");
    backend.conduct(conduct);
    (Some(backend), reserved)
}

/// Locations that differ in what `proxy_next_upstream` says, each with the failing server and a good one behind it.
struct Conditions {
    good: Backend,
    bad: Vec<(Option<Backend>, Reserved)>,
    server: Server,
}

impl Conditions {
    fn start() -> Self {
        let good = Backend::start("good");
        let bad: Vec<_> = FAILURES.iter().map(|(kind, ..)| failing(kind)).collect();
        let mut text = LOG.to_owned();
        let mut locations = String::new();
        let all: Vec<&str> = FAILURES.iter().map(|(_, condition, ..)| *condition).collect();
        for ((kind, condition, ..), (_, port)) in FAILURES.iter().zip(&bad) {
            let members = [member(port.port(), "max_fails=0"), member(good.port(), "backup")].concat();
            text.push_str(&format!("upstream {kind} {{ {members} }} "));
            let others: Vec<&str> = all.iter().copied().filter(|other| other != condition).collect();
            for (name, words) in [
                ("with", condition.to_string()),
                ("twice", format!("{condition} non_idempotent")),
                ("off", "off".into()),
                ("others", others.join(" ")),
            ] {
                locations.push_str(&format!(
                    "location /{kind}/{name} {{ proxy_pass http://{kind}; proxy_next_upstream {words}; }}"
                ));
            }
            locations.push_str(&format!("location /{kind}/default {{ proxy_pass http://{kind}; }}"));
        }
        text.push_str(&format!("server {{ listen {{port}}; proxy_read_timeout 400ms; {locations} }}"));
        Self { good, bad, server: Server::start(&text) }
    }

    /// Sends a request and holds what became of it against what should.
    fn check(&self, index: usize, method: &str, name: &str, passed_on: bool) -> Result<(), String> {
        let (kind, _, status, token) = FAILURES[index];
        let bad = self.bad[index].0.as_ref();
        let path = format!("/{kind}/{name}/{method}");
        let response = ask(self.server.port(), method, &path);
        let line = format!("{method} {path} ");
        let got = (response.status, bad.map_or(0, |bad| bad.seen(&line)), self.good.seen(&line));
        let expected = match passed_on {
            true => (200, usize::from(bad.is_some()), 1),
            false => (status, usize::from(bad.is_some()), 0),
        };
        let logged = self.logged(&format!("{method} {path}|"));
        let is_answer = token == "http_status";
        let reason = match passed_on {
            true => format!(":{token}:"),
            // A status that is no reason to go elsewhere is an answer like any other.
            false if is_answer => ":ok:".into(),
            false => format!("|{token}|"),
        };
        match got == expected && logged.contains(&reason) {
            true => Ok(()),
            false => Err(format!("{line}: {got:?} instead of {expected:?}, {logged:?}\n")),
        }
    }

    /// The line of the access log that begins like this.
    fn logged(&self, beginning: &str) -> String {
        let mut found = String::new();
        eventually("a line in the log", || {
            let log = self.server.access_log();
            found = log.lines().find(|line| line.starts_with(beginning)).unwrap_or_default().to_owned();
            !found.is_empty() && log.ends_with('\n')
        });
        found
    }
}

#[test]
fn each_failure_sends_a_request_to_the_next_server_only_where_it_is_named() {
    let conditions = Conditions::start();
    let mut wrong = String::new();
    for (index, (kind, condition, ..)) in FAILURES.into_iter().enumerate() {
        let by_default = ["error", "timeout"].contains(&condition);
        for method in ["GET", "POST"] {
            // A POST goes elsewhere only while nothing of it was sent, or where the configuration says that it may.
            let harmless = method == "GET" || kind == "refuse";
            // Of two kinds with one condition, `others` names neither.
            for (name, passed_on) in [
                ("with", harmless),
                ("twice", true),
                ("off", false),
                ("others", false),
                ("default", by_default && harmless),
            ] {
                if let Err(what) = conditions.check(index, method, name, passed_on) {
                    wrong.push_str(&what);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    no_alarm(&conditions.server);
}

#[test]
fn methods_that_may_be_repeated_go_to_the_next_server_after_they_were_sent() {
    let (bad, good) = (Backend::start("bad"), Backend::start("good"));
    bad.conduct(Conduct::Close);
    let server = start(&[member(bad.port(), "max_fails=0"), member(good.port(), "backup")].concat(), "");
    for (method, passed_on) in
        [("PUT", true), ("DELETE", true), ("OPTIONS", true), ("PATCH", false), ("LOCK", false)]
    {
        let response = ask(server.port(), method, "/");
        assert_eq!(response.status, if passed_on { 200 } else { 502 }, "{method}");
        let line = format!("{method} / ");
        assert_eq!((bad.seen(&line), good.seen(&line)), (1, usize::from(passed_on)), "{method}");
    }
}

#[test]
fn tries_and_their_time_have_limits() {
    let (closing, hanging) = (Backend::start("closing"), Backend::start("hanging"));
    closing.conduct(Conduct::Close);
    hanging.conduct(Conduct::Hang);
    let four = |backend: &Backend| member(backend.port(), "max_fails=0").repeat(4);
    let text = format!(
        "{LOG} upstream closing {{ {} }} upstream hanging {{ {} }} proxy_read_timeout 100ms;
         add_header X-Tried $upstream_addr always;
         server {{ listen {{port}};
            location /any {{ proxy_pass http://closing; }}
            location /two {{ proxy_pass http://closing; proxy_next_upstream_tries 2; }}
            location /one {{ proxy_pass http://closing; proxy_next_upstream_tries 1; }}
            location /late {{ proxy_pass http://hanging; proxy_next_upstream_timeout 1ms; }}
            location /patient {{ proxy_pass http://hanging; proxy_next_upstream_timeout 1h; }}
            location /timeless {{ proxy_pass http://hanging; proxy_next_upstream_tries 3; }}
         }}",
        four(&closing),
        four(&hanging)
    );
    let server = Server::start(&text);
    for (path, wanted, status) in [
        ("/any", 4, 502),
        ("/two", 2, 502),
        ("/one", 1, 502),
        ("/late", 1, 504),
        ("/patient", 4, 504),
        ("/timeless", 3, 504),
    ] {
        let response = ask(server.port(), "GET", path);
        assert_eq!((response.status, tries(&response)), (status, wanted), "{path}");
    }
}

#[test]
fn a_backup_is_asked_only_while_nobody_else_can_be() {
    let port = Reserved::new();
    let (down, backup) = (Backend::start("down"), Backend::start("backup"));
    let group = [
        member(port.port(), "fail_timeout=1s"),
        member(down.port(), "down"),
        member(backup.port(), "backup"),
    ];
    let server = start(&group.concat(), "");
    for _ in 0..10 {
        assert_eq!(ask(server.port(), "GET", "/").text(), "backup");
    }
    let first = Backend::start_on(port.port(), "first");
    eventually("the first one is back", || ask(server.port(), "GET", "/").text() == "first");
    let before = backup.seen("GET");
    for _ in 0..20 {
        assert_eq!(ask(server.port(), "GET", "/").text(), "first");
    }
    assert_eq!((backup.seen("GET"), down.seen("GET")), (before, 0));
    assert!(first.seen("GET") >= 21);
}

#[test]
fn a_server_without_max_fails_is_asked_again_and_again() {
    let (bad, good) = (Backend::start("bad"), Backend::start("good"));
    bad.conduct(Conduct::Close);
    let server = start(&[member(bad.port(), "max_fails=0"), member(good.port(), "")].concat(), "");
    for _ in 0..20 {
        assert_eq!(ask(server.port(), "GET", "/").text(), "good");
    }
    // Its failures lower its share for a while, as in nginx; none shuts it out.
    let before = bad.seen("GET");
    assert!(before >= 3, "{before}");
    for _ in 0..20 {
        assert_eq!(ask(server.port(), "GET", "/").text(), "good");
    }
    assert!(bad.seen("GET") > before);
}

#[test]
fn a_server_is_left_alone_after_max_fails() {
    let (bad, good) = (Backend::start("bad"), Backend::start("good"));
    let group = [member(bad.port(), "max_fails=3 fail_timeout=1h"), member(good.port(), "")].concat();
    for (conduct, words) in [
        (Conduct::Close, "error"),
        (Conduct::Answer(500), "http_500"),
        // Where somebody else is asked for what one does not have, the one that does not is no worse for that.
        (Conduct::Answer(404), "http_404"),
    ] {
        let spared = conduct == Conduct::Answer(404);
        bad.conduct(conduct);
        let server = start(&group, &format!("proxy_next_upstream {words};"));
        let before = bad.seen("GET");
        for _ in 0..40 {
            assert_eq!(ask(server.port(), "GET", "/").text(), "good");
        }
        let seen = bad.seen("GET") - before;
        assert!(if spared { seen >= 19 } else { seen == 3 }, "{words} {seen}");
    }
}

#[test]
fn a_server_that_was_left_alone_is_tried_once_in_a_fail_timeout_until_it_is_back() {
    let (bad, good) = (Backend::start("bad"), Backend::start("good"));
    bad.conduct(Conduct::Answer(500));
    let group = [member(bad.port(), "fail_timeout=1s"), member(good.port(), "")].concat();
    let server = start(&group, "proxy_next_upstream http_500;");
    let began = Instant::now();
    load(server.port(), 1, 4, &["GET"]);
    while bad.seen("GET") < 4 {
        assert!(began.elapsed() < PATIENCE, "no trials");
        for response in load(server.port(), 4, 5, &["GET"]) {
            assert_eq!(response.text(), "good");
        }
        // However many clients ask.
        let (seen, elapsed) = (bad.seen("GET"), began.elapsed());
        assert!(seen as u64 <= 1 + elapsed.as_secs(), "{seen} requests in {elapsed:?}");
    }
    bad.conduct(Conduct::Answer(200));
    eventually("the bad one is back", || ask(server.port(), "GET", "/").text() == "bad");
    // Back with all that it had.
    let before = bad.seen("GET");
    for _ in 0..20 {
        assert_eq!(ask(server.port(), "GET", "/").status, 200);
    }
    assert!(bad.seen("GET") >= before + 9, "{} {before}", bad.seen("GET"));
    no_alarm(&server);
}

#[test]
fn a_trial_that_hangs_holds_one_request_alone() {
    let (bad, good) = (Backend::start("bad"), Backend::start("good"));
    bad.conduct(Conduct::Close);
    let server = start(&[member(bad.port(), "fail_timeout=3s"), member(good.port(), "")].concat(), "");
    load(server.port(), 1, 2, &["GET"]);
    assert_eq!(bad.seen("GET"), 1);
    bad.conduct(Conduct::Hang);
    let held = std::thread::spawn({
        let port = server.port();
        // One of these becomes the trial.
        move || (0..).map(|_| ask(port, "GET", "/trial").text()).find(|text| text != "good")
    });
    eventually("a trial", || bad.seen("GET /trial") == 1);
    for _ in 0..30 {
        assert_eq!(ask(server.port(), "GET", "/meanwhile").text(), "good");
    }
    assert_eq!(bad.seen("GET /meanwhile"), 0);
    bad.conduct(Conduct::Answer(200));
    assert_eq!(held.join().expect("the trial").as_deref(), Some("bad"));
    eventually("the bad one is back", || ask(server.port(), "GET", "/").text() == "bad");
}

#[test]
fn a_group_all_of_whose_servers_are_dead_is_502_with_the_reason_until_one_is_back() {
    let (first, second) = (Reserved::new(), Reserved::new());
    let group = [member(first.port(), "fail_timeout=1s"), member(second.port(), "fail_timeout=1s")].concat();
    let server = start(&group, "");
    for _ in 0..20 {
        assert_eq!(ask(server.port(), "GET", "/").status, 502);
    }
    let lines = server.access_log_lines(20);
    let (a, b) = (format!("127.0.0.1:{}", first.port()), format!("127.0.0.1:{}", second.port()));
    assert!(lines[0].starts_with(&format!("GET /|{a}, {b}|502, 502|connect_refused|{a}:connect_refused:")));
    assert!(lines[0].contains(&format!(", {b}:connect_refused:")), "{}", lines[0]);
    for line in &lines {
        assert!(line.contains("|connect_refused|"), "{line}");
    }
    let back = Backend::start_on(second.port(), "back");
    eventually("the one that is back answers", || ask(server.port(), "GET", "/").text() == "back");
    for _ in 0..20 {
        assert_eq!(ask(server.port(), "GET", "/").text(), "back");
    }
    assert!(back.seen("GET") >= 21);
    no_alarm(&server);
}

#[test]
fn where_nobody_else_is_left_an_ejected_server_is_tried_before_its_time() {
    let (first, second) = (Reserved::new(), Reserved::new());
    let group = [first.port(), second.port()].map(|port| member(port, "fail_timeout=1h")).concat();
    for back in [&first, &second] {
        let server = start(&group, "");
        for _ in 0..10 {
            assert_eq!(ask(server.port(), "GET", "/").status, 502);
        }
        let _back = Backend::start_on(back.port(), "back");
        eventually("the one that is back answers", || ask(server.port(), "GET", "/").text() == "back");
    }
}

#[test]
fn a_group_whose_servers_are_all_down_has_no_live_upstreams() {
    let a = Backend::start("a");
    for group in [member(a.port(), "down"), member(a.port(), "down") + &member(a.port(), "backup down")] {
        let server = start(&group, "");
        assert_eq!(ask(server.port(), "GET", "/").status, 502);
        assert_eq!(ask(server.port(), "POST", "/").status, 502);
        for line in server.access_log_lines(2) {
            assert!(line.contains("|u|") && line.contains("|no_live_upstreams|"), "{line}");
        }
        assert!(server.error_log().contains("no live upstreams while connecting to upstream"));
        assert_eq!(a.accepted(), 0);
    }
}

#[test]
fn the_last_server_that_can_be_asked_is_never_left_alone() {
    let (dead, last) = (Reserved::new(), Backend::start("last"));
    let group = [
        member(dead.port(), "fail_timeout=1h"),
        member(last.port(), "max_fails=1 fail_timeout=1h"),
        member(dead.port(), "down"),
    ];
    let server = start(&group.concat(), "proxy_next_upstream error http_500;");
    assert_eq!(load(server.port(), 1, 4, &["GET"]).iter().filter(|one| one.text() == "last").count(), 4);
    for conduct in [Conduct::Close, Conduct::Answer(500), Conduct::Reset] {
        last.conduct(conduct);
        for round in 0..10 {
            assert_ne!(ask(server.port(), "GET", &format!("/{round}")).status, 200);
        }
    }
    last.conduct(Conduct::Answer(200));
    // Without any wait: it was asked every time.
    assert_eq!(ask(server.port(), "GET", "/").text(), "last");
    assert!(last.seen("GET") >= 4 + 30);
}

#[test]
fn while_a_server_is_silent_its_siblings_are_asked() {
    let (silent, sibling) = (Backend::start("silent"), Backend::start("sibling"));
    let group = [member(silent.port(), "fail_timeout=1h"), member(sibling.port(), "")].concat();
    let server = start(&group, "");
    // What is usual becomes known.
    for _ in 0..10 {
        assert_eq!(ask(server.port(), "GET", "/").status, 200);
    }
    silent.conduct(Conduct::Hang);
    let mut held = Vec::new();
    let mut in_a_row = 0;
    eventually("all requests go to the sibling", || {
        let mut client = Client::connect(server.port()).timeout(Duration::from_millis(200));
        client.send(request_text("GET", "/"));
        if client.has_more() {
            assert_eq!(client.read_response().text(), "sibling");
            in_a_row += 1;
        } else {
            held.push(client);
            in_a_row = 0;
        }
        in_a_row == 20
    });
    assert!(!held.is_empty());
    // Once it speaks again it is asked again, and nobody who waited was lost.
    silent.conduct(Conduct::Answer(200));
    let late = held.into_iter().map(|mut client| {
        client.limit(PATIENCE);
        client.read_response().text()
    });
    assert!(late.collect::<Vec<_>>().contains(&"silent".to_owned()));
    eventually("the silent one is asked again", || ask(server.port(), "GET", "/").text() == "silent");
    assert!(!server.access_log().contains(", "), "{}", server.access_log());
    no_alarm(&server);
}

#[test]
fn workers_share_what_they_know_of_servers_and_keep_it_over_reloads() {
    let (bad, good, third) = (Backend::start("bad"), Backend::start("good"), Backend::start("third"));
    bad.conduct(Conduct::Close);
    let round = |number: usize, group: String| {
        let http = text(&group, &format!("add_header X-Round {number};"));
        format!("worker_processes 2; http {{ {http} }}")
    };
    let members = [member(bad.port(), "fail_timeout=1h"), member(good.port(), "fail_timeout=1h")];
    let server = Server::start(&round(1, members.concat()));
    // Each worker keeps idle connections of its own.
    eventually("both workers were asked", || {
        assert_eq!(ask(server.port(), "GET", "/").status, 200);
        good.accepted() == 2
    });
    for _ in 0..20 {
        assert_eq!(ask(server.port(), "GET", "/").text(), "good");
    }
    assert_eq!(bad.seen("GET"), 1);
    // A group that is the same, one with other parameters, one with another member.
    for (number, group) in [
        (2, members.concat()),
        (3, [member(good.port(), "weight=2"), member(bad.port(), "fail_timeout=2h weight=3")].concat()),
        (4, members.concat() + &member(third.port(), "")),
    ] {
        server.configure(&round(number, group));
        server.reload();
        eventually("the new configuration", || {
            ask(server.port(), "GET", "/").header("x-round") == Some(&*number.to_string())
        });
        for response in load(server.port(), 4, 10, &["GET"]) {
            assert_eq!((response.status, tries(&response)), (200, 1), "{number}");
        }
        assert_eq!(bad.seen("GET"), 1, "{number}");
    }
    assert!(third.seen("GET") > 10);
    no_alarm(&server);
}

#[test]
fn logs_tell_of_every_try_and_of_every_call() {
    let (close, hang, status, good) =
        (Backend::start("close"), Backend::start("hang"), Backend::start("503"), Backend::start("good"));
    close.conduct(Conduct::Close);
    hang.conduct(Conduct::Hang);
    status.conduct(Conduct::Answer(503));
    let dead = Reserved::new();
    let text = format!(
        "{LOG} access_log {{root}}/json.log json; proxy_read_timeout 100ms;
         upstream all {{ {} }} upstream dead {{ {} }}
         server {{ listen {{port}}; proxy_next_upstream error timeout http_503;
            location /all {{ proxy_pass http://all; }}
            location /redirected {{ proxy_pass http://dead; error_page 502 = @good; }}
            location @good {{ proxy_pass http://127.0.0.1:{}; }}
         }}",
        [
            member(dead.port(), ""),
            member(close.port(), "weight=1"),
            member(hang.port(), ""),
            member(status.port(), ""),
            member(good.port(), "backup")
        ]
        .concat(),
        member(dead.port(), "") + &member(close.port(), "backup"),
        good.port(),
    );
    let server = Server::start(&text);
    assert_eq!(ask(server.port(), "GET", "/all").text(), "good");
    assert_eq!(ask(server.port(), "GET", "/redirected").text(), "good");
    let address = |port: u16| format!("127.0.0.1:{port}");
    let [dead, close, hang, status, good] =
        [dead.port(), close.port(), hang.port(), status.port(), good.port()].map(address);
    let lines = server.access_log_lines(2);
    let fields: Vec<Vec<&str>> = lines.iter().map(|line| line.split('|').collect()).collect();
    assert_eq!(
        fields[0][..4],
        ["GET /all", &[&*dead, &close, &hang, &status, &good].join(", "), "502, 502, 504, 503, 200", "-"]
    );
    let attempts: Vec<&str> = fields[0][4].split(", ").collect();
    let tokens = ["connect_refused", "reset_before_header", "header_timeout", "http_status", "ok"];
    for ((attempt, address), token) in attempts.iter().zip([&dead, &close, &hang, &status, &good]).zip(tokens)
    {
        let ms = attempt.strip_prefix(&format!("{address}:{token}:"));
        assert!(ms.is_some_and(|ms| ms.parse::<u32>().is_ok()), "{attempt}");
    }
    // Calls that an internal redirect divides are divided by a colon.
    assert_eq!(
        fields[1][..4],
        ["GET /redirected", &format!("{dead}, {close} : {good}"), "502, 502 : 200", "-"]
    );
    eventually("lines of JSON", || server.read("json.log").lines().count() == 2);
    let json = server.read("json.log");
    let line: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).expect("JSON");
    assert_eq!((&line["upstream_addr"], &line["upstream_status"]), (&good.into(), &200.into()));
    assert!(line["upstream_error"].is_null());
    let told = line["upstream_attempts"].as_array().expect("all tries");
    assert_eq!(told.iter().map(|try_| try_.as_str().unwrap()).collect::<Vec<_>>(), attempts);
}

/// What an upstream sends before it closes, the status for the client (0 for a response that is cut), and the reason.
const ANSWERS: [(&str, u16, &str); 14] = [
    ("", 502, "reset_before_header"),
    ("HTTP/1.1 2", 502, "header_truncated"),
    ("HTTP/1.1 200 OK\r\nX-A: b\r\n", 502, "header_truncated"),
    ("HTTP/1.1 100 Continue\r\n\r\n", 502, "header_truncated"),
    ("<html>no head</html>", 502, "header_invalid"),
    ("\x16\x03\x01\x02\x00", 502, "header_invalid"),
    ("HTTP/1.1 abc\r\n\r\n", 502, "header_invalid"),
    ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", 502, "header_invalid"),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        502,
        "header_invalid",
    ),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 502, "body_invalid"),
    ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", 0, "body_truncated"),
    ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", 0, "body_truncated"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 0, "body_truncated"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", 0, "body_truncated"),
];

#[test]
fn answers_that_end_early_or_are_none_are_logged_with_their_reason_and_never_complete() {
    let upstream = Backend::start("bad");
    let server = start(&member(upstream.port(), ""), "");
    let mut count = 0;
    let mut check = |bytes: String, status: u16, token: &str| {
        upstream.conduct(Conduct::Say(bytes.clone().into_bytes()));
        for method in ["GET", "POST"] {
            let mut client = Client::connect(server.port());
            client.send(request_text(method, "/"));
            match client.response_to(method) {
                Ok(response) => assert_eq!(response.status, status, "{bytes:?}"),
                Err(error) => assert!(status == 0 && error.starts_with("closed "), "{bytes:?}: {error}"),
            }
            count += 1;
            let line = server.access_log_lines(count).pop().expect("a line");
            // `$upstream_status` is what the upstream said, if it said so much.
            let shown = if token.starts_with("body_") { 200 } else { status };
            let address = format!("127.0.0.1:{}", upstream.port());
            let wanted = format!("{method} /|{address}|{shown}|{token}|{address}:{token}:");
            assert!(line.starts_with(&wanted), "{bytes:?}: {line} instead of {wanted}");
        }
    };
    for (bytes, status, token) in ANSWERS {
        check(bytes.to_owned(), status, token);
    }
    check(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(9000)), 502, "header_too_big");
    no_alarm(&server);
}
