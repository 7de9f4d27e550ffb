//! Servers of a group that fail: who is asked in their place and who is not, how they come back, and what the logs say.

use crate::util::{Backend, Client, Conduct, Reserved, Response, Server, eventually, raw};
use std::net::Ipv4Addr;

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
        let server = start(&group.concat(), "proxy_read_timeout 1500ms;");
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
        text.push_str(&format!("server {{ listen {{port}}; proxy_read_timeout 150ms; {locations} }}"));
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
    for index in 0..FAILURES.len() {
        let (kind, condition, ..) = FAILURES[index];
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
