//! Health checks: what is probed and how often, what a good answer is, and what becomes of servers that fail.

use crate::util::{Backend, Conduct, Reserved, Server, eventually, get};
use std::time::{Duration, Instant};

/// Where probes go, so that they are told from requests.
const PROBE: &str = "/up";
const INTERVAL: Duration = Duration::from_millis(50);

fn member(backend: &Backend) -> String {
    format!("server 127.0.0.1:{}; ", backend.port())
}

/// The configuration of a server that passes requests on to a group with these lines, which is checked like this.
fn text(group: &str, check: &str) -> String {
    format!(
        "log_format tries '$status|$upstream_addr|$upstream_error'; access_log {{root}}/access.log tries;
         upstream u {{ {group} }}
         server {{ listen {{port}}; proxy_read_timeout 200ms; proxy_connect_timeout 200ms;
                  location / {{ proxy_pass http://u; health_check interval=50ms uri={PROBE} {check}; }} }}"
    )
}

fn start(group: &str, check: &str) -> Server {
    Server::start(&text(group, check))
}

fn no_alarm(server: &Server) {
    let log = server.error_log();
    for word in ["[alert]", "[emerg]", "panic", "exited on signal"] {
        assert!(!log.contains(word) && !server.stderr().contains(word), "{log}\n{}", server.stderr());
    }
}

fn probes(backend: &Backend) -> usize {
    backend.seen(&format!("GET {PROBE}"))
}

/// Requests that are no probes.
fn requests(backend: &Backend) -> usize {
    backend.heads().len() - probes(backend)
}

/// Who answers so many requests, one after the other.
fn answers(server: &Server, count: usize) -> Vec<String> {
    (0..count).map(|_| get(server.port(), "/").text()).collect()
}

/// How many lines of the log say that a server at this port is `what` ("unhealthy: ...", "healthy").
fn told(server: &Server, port: u16, what: &str) -> usize {
    server.error_log().matches(&format!("peer 127.0.0.1:{port} of upstream \"u\" is {what}")).count()
}

#[test]
fn a_server_that_fails_its_probe_gets_no_request_until_it_passes() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let server = start(&[member(&a), member(&b)].concat(), "");
    for (conduct, why) in [
        (Conduct::Answer(500), "its status does not match"),
        (Conduct::Answer(404), "its status does not match"),
        (Conduct::Close, "it closed the connection"),
        (Conduct::Reset, "it closed the connection"),
        (Conduct::Hang, "it timed out"),
        (Conduct::Say(b"SSH-2.0-x\r\n".to_vec()), "its response is invalid"),
        (Conduct::Say(b"HTTP/1.1 200 OK\r\nX-A: b\r\n".to_vec()), "it closed the connection"),
    ] {
        // Only its probes fail: nothing else says that it is bad.
        a.conduct_for(PROBE, conduct);
        let line = format!("unhealthy: {why}");
        let before = told(&server, a.port(), &line);
        eventually("it is found out", || told(&server, a.port(), &line) > before);
        let before = requests(&a);
        assert_eq!(answers(&server, 20), ["b"; 20]);
        assert_eq!(requests(&a), before);
        a.conduct(Conduct::Answer(200));
        eventually("it is back", || answers(&server, 2).contains(&"a".to_owned()));
    }
    eventually("all in the log", || {
        told(&server, a.port(), "unhealthy") == told(&server, a.port(), "healthy")
    });
    assert_eq!(told(&server, b.port(), ""), 0);
    no_alarm(&server);
}

#[test]
fn a_server_that_nobody_listens_at_is_found_by_its_probe_when_it_is_back() {
    let (port, b) = (Reserved::new(), Backend::start("b"));
    let server = start(&format!("server 127.0.0.1:{} max_fails=0; {}", port.port(), member(&b)), "");
    let why = "unhealthy: it refused the connection";
    eventually("it is found out", || told(&server, port.port(), why) == 1);
    assert_eq!(answers(&server, 20), ["b"; 20]);
    let _a = Backend::start_on(port.port(), "a");
    eventually("it is back", || answers(&server, 2).contains(&"a".to_owned()));
}

#[test]
fn a_group_that_fails_as_a_whole_has_no_live_upstreams() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    for group in [member(&a), [member(&a), member(&b)].concat()] {
        for backend in [&a, &b] {
            backend.conduct_for(PROBE, Conduct::Answer(503));
        }
        let server = start(&group, "");
        eventually("all are found out", || get(server.port(), "/").status == 502);
        eventually("a line in the log", || server.access_log().contains("502|u|no_live_upstreams\n"));
        for backend in [&a, &b] {
            backend.conduct(Conduct::Answer(200));
        }
        eventually("one is back", || get(server.port(), "/").status == 200);
    }
}

#[test]
fn single_failures_and_single_passes_change_nothing_where_more_are_asked_for() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let server = start(&[member(&a), member(&b)].concat(), "fails=3 passes=4");
    let next_probe = || {
        let before = probes(&a);
        eventually("a probe", || probes(&a) > before);
    };
    next_probe();
    let first = probes(&a);
    a.conduct_for(PROBE, Conduct::Answer(500));
    eventually("it is found out", || told(&server, a.port(), "unhealthy") == 1);
    assert!(probes(&a) >= first + 3, "{} {first}", probes(&a));
    assert_eq!(answers(&server, 4), ["b"; 4]);
    let first = probes(&a);
    a.conduct(Conduct::Answer(200));
    eventually("it is back", || told(&server, a.port(), "healthy") == 1);
    assert!(probes(&a) >= first + 4, "{} {first}", probes(&a));
    assert!(answers(&server, 2).contains(&"a".to_owned()));
}

#[test]
fn failures_that_are_not_in_a_row_take_nobody_out() {
    use crate::util::Upstream;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let count = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::http({
        let count = count.clone();
        move |_, _| {
            let status = if count.fetch_add(1, Ordering::SeqCst) % 3 == 2 { 200 } else { 500 };
            format!("HTTP/1.1 {status} Some\r\nContent-Length: 0\r\n\r\n").into_bytes()
        }
    });
    let server = start(&format!("server 127.0.0.1:{};", upstream.port()), "fails=3");
    eventually("some probes", || count.load(Ordering::SeqCst) >= 13);
    assert_eq!(told(&server, upstream.port(), ""), 0);
}

#[test]
fn probes_come_once_an_interval_from_one_worker_of_all() {
    let backend = Backend::start("a");
    let began = Instant::now();
    let http = text(&member(&backend), "");
    let server = Server::start(&format!("worker_processes 2; http {{ {http} }}"));
    eventually("some probes", || probes(&backend) >= 10);
    let (seen, elapsed) = (probes(&backend), began.elapsed());
    let most = 1 + elapsed.as_millis() / INTERVAL.as_millis();
    assert!(seen as u128 <= most, "{seen} probes in {elapsed:?}");
    // Each on a connection of its own, which is closed.
    let head = backend.heads().remove(0);
    assert!(head.starts_with("GET /up HTTP/1.1\r\nHost: u\r\n"), "{head}");
    assert!(head.contains("\r\nConnection: close\r\n"), "{head}");
    assert!(backend.accepted() >= probes(&backend));
    no_alarm(&server);
}

#[test]
fn jitter_puts_probes_off() {
    let (even, uneven) = (Backend::start("even"), Backend::start("uneven"));
    let check = |backend: &Backend, jitter: &str| {
        format!(
            "location /{jitter} {{ proxy_pass http://127.0.0.1:{}; health_check interval=20ms jitter={jitter}; }}",
            backend.port()
        )
    };
    let locations = [check(&even, "0"), check(&uneven, "5h")].concat();
    let _server = Server::start(&format!("server {{ listen {{port}}; {locations} }}"));
    eventually("some probes", || even.seen("GET / ") >= 20);
    // A second one so soon would be one chance in thousands.
    assert!((1..=2).contains(&uneven.seen("GET / ")), "{}", uneven.seen("GET / "));
}

#[test]
fn probes_go_to_another_port_and_path_where_one_is_named() {
    let (a, doctor) = (Backend::start("a"), Backend::start("doctor"));
    let check = format!("uri=/health?of=a port={}", doctor.port());
    let text = text(&member(&a), &check).replace("uri=/up", "");
    let server = Server::start(&text);
    eventually("a probe", || doctor.seen("GET /health?of=a HTTP/1.1") > 0);
    assert_eq!(answers(&server, 5), ["a"; 5]);
    doctor.conduct(Conduct::Answer(500));
    eventually("it is found out", || get(server.port(), "/").status == 502);
    doctor.conduct(Conduct::Answer(200));
    eventually("it is back", || get(server.port(), "/").status == 200);
    assert_eq!((a.seen("GET /health"), doctor.seen("GET / ")), (0, 0));
}

/// Contents of `match` blocks, an answer that complies, one that does not, and why not.
const MATCHES: [(&str, &str, &str, &str); 12] = [
    ("status 200;", "200||", "204||", "status"),
    ("status 200-299 401;", "401||", "302||", "status"),
    ("status ! 500-599;", "404||", "503||", "status"),
    ("status 500;", "500||", "200||", "status"),
    ("header X-State = good;", "200|X-State: good|", "200|X-State: goodish|", "header"),
    ("header X-State != bad;", "200|X-State: good|", "200|X-State: bad|", "header"),
    ("header X-State ~ ^go+d$;", "200|X-State: goood|", "200|X-State: bad|", "header"),
    ("header X-State !~ bad;", "200||", "200|X-State: so bad|", "header"),
    ("header X-State;", "200|x-state: any|", "200|X-Stat: any|", "header"),
    ("header ! X-State;", "200||", "200|X-State: any|", "header"),
    ("body ~ \"^all (is )?well\";", "200||all is well.", "200||nothing is well", "body"),
    ("status 200; header X-A; body !~ error;", "200|X-A: b|fine", "200|X-A: b|an error", "body"),
];

fn answer(text: &str) -> Conduct {
    let [status, field, body] = text.splitn(3, '|').collect::<Vec<_>>().try_into().expect("three parts");
    let line = if field.is_empty() { String::new() } else { format!("{field}\r\n") };
    let head = format!("HTTP/1.1 {status} Some\r\n{line}Content-Length: {}\r\n\r\n", body.len());
    Conduct::Say((head + body).into_bytes())
}

#[test]
fn match_blocks_say_what_a_good_answer_is() {
    let mut text = String::new();
    let mut locations = String::new();
    let mut backends = Vec::new();
    for (number, (rules, good, bad, _)) in MATCHES.iter().enumerate() {
        text.push_str(&format!("match m{number} {{ {rules} }} "));
        for (name, bytes) in [("good", good), ("bad", bad)] {
            let backend = Backend::start("a");
            backend.conduct_for(PROBE, answer(bytes));
            text.push_str(&format!("upstream {name}{number} {{ {} }} ", member(&backend)));
            locations.push_str(&format!(
                "location /{name}{number} {{ proxy_pass http://{name}{number};
                     health_check interval=50ms uri={PROBE} match=m{number} mandatory; }} "
            ));
            backends.push(backend);
        }
    }
    let server = Server::start(&format!("{text} server {{ listen {{port}}; {locations} }}"));
    for (number, (rules, ..)) in MATCHES.iter().enumerate() {
        eventually(rules, || get(server.port(), &format!("/good{number}")).status == 200);
        let bad = &backends[2 * number + 1];
        eventually("probes", || probes(bad) >= 2);
        assert_eq!(get(server.port(), &format!("/bad{number}")).status, 502, "{rules}");
        assert_eq!(requests(bad), 0);
    }
    no_alarm(&server);
}

#[test]
fn what_does_not_match_is_told() {
    for (rules, good, bad, why) in [MATCHES[0], MATCHES[4], MATCHES[10]] {
        let a = Backend::start("a");
        a.conduct_for(PROBE, answer(good));
        let group = member(&a);
        let server = Server::start(&format!("match m {{ {rules} }} {}", text(&group, "match=m")));
        eventually("probes", || probes(&a) >= 2);
        assert_eq!(told(&server, a.port(), "unhealthy"), 0);
        a.conduct_for(PROBE, answer(bad));
        let line = format!("unhealthy: its {why} does not match");
        eventually("it is found out", || told(&server, a.port(), &line) == 1);
    }
}

#[test]
fn a_mandatory_check_comes_before_the_first_request() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    for backend in [&a, &b] {
        backend.conduct_for(PROBE, Conduct::Hang);
    }
    let group = [member(&a), member(&b)].concat();
    // Without, they are taken for good.
    let optional = start(&group, "fails=1000");
    assert_eq!(get(optional.port(), "/").status, 200);
    let server = start(&group, "mandatory");
    let before = [requests(&a), requests(&b)];
    for _ in 0..10 {
        assert_eq!(get(server.port(), "/").status, 502);
    }
    b.conduct(Conduct::Answer(200));
    eventually("one passes", || get(server.port(), "/").status == 200);
    assert_eq!(answers(&server, 10), ["b"; 10]);
    a.conduct(Conduct::Answer(200));
    eventually("both pass", || answers(&server, 2).contains(&"a".to_owned()));
    assert!(requests(&a) > before[0] && requests(&b) > before[1]);
    no_alarm(&server);
}

#[test]
fn after_a_reload_a_mandatory_check_begins_anew_unless_it_is_persistent() {
    for persistent in [false, true] {
        let (a, b) = (Backend::start("a"), Backend::start("b"));
        let check = if persistent { "fails=1000 mandatory persistent" } else { "fails=1000 mandatory" };
        let round = |number: usize, group: String| {
            text(&group, check)
                .replace("listen {port};", &format!("listen {{port}}; add_header X-Round {number} always;"))
        };
        let server = Server::start(&round(1, [member(&a), member(&b)].concat()));
        eventually("both pass", || {
            answers(&server, 2).iter().collect::<std::collections::HashSet<_>>().len() == 2
        });
        // Nothing is learned from probes any more.
        for backend in [&a, &b] {
            backend.conduct_for(PROBE, Conduct::Hang);
        }
        let hung = [probes(&a), probes(&b)];
        eventually("the last probes that pass are over", || probes(&a) > hung[0] && probes(&b) > hung[1]);
        // The same group once more, and another one with the same servers.
        for (number, group) in [
            (2, [member(&a), member(&b)].concat()),
            (3, [member(&b), member(&a), "least_conn;".into()].concat()),
        ] {
            server.configure(&round(number, group));
            server.reload();
            let mut statuses = Vec::new();
            eventually("the new configuration", || {
                let response = get(server.port(), "/");
                let is_new = response.header("x-round") == Some(&*number.to_string());
                if is_new {
                    statuses.push(response.status);
                }
                statuses.len() >= 20
            });
            let expected = if persistent { 200 } else { 502 };
            assert_eq!(statuses[1..], [expected; 19], "{check} {number}");
        }
        for backend in [&a, &b] {
            backend.conduct(Conduct::Answer(200));
        }
        eventually("they pass", || get(server.port(), "/").status == 200);
        no_alarm(&server);
    }
}

#[test]
fn what_checks_found_is_kept_over_a_reload_and_forgotten_where_nobody_checks_any_more() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let group = [member(&a), member(&b)].concat();
    let round = |number: usize, check: &str| {
        text(&group, check)
            .replace("listen {port};", &format!("listen {{port}}; add_header X-Round {number} always;"))
    };
    a.conduct_for(PROBE, Conduct::Answer(500));
    let server = Server::start(&round(1, ""));
    let reload = |number: usize, text: &str| {
        server.configure(text);
        server.reload();
        eventually("the new configuration", || {
            get(server.port(), "/").header("x-round") == Some(&*number.to_string())
        });
    };
    eventually("it is found out", || told(&server, a.port(), "unhealthy") == 1);
    a.conduct_for(PROBE, Conduct::Hang);
    for (number, check) in [(2, ""), (3, "interval=1h")] {
        reload(number, &round(number, check).replace("interval=50ms", ""));
        assert_eq!(answers(&server, 20), ["b"; 20]);
    }
    // Nobody would ever find out that it is well again.
    let unchecked = round(4, "");
    let (before, _) = unchecked.split_once("health_check").expect("a check");
    reload(4, &format!("{before} }} }}"));
    assert!(answers(&server, 4).contains(&"a".to_owned()));
    no_alarm(&server);
}

#[test]
fn a_server_that_is_back_gets_its_share_slowly_where_that_is_asked_for() {
    for (slow_start, at_once) in [("1h", false), ("1s", true)] {
        let (a, b) = (Backend::start("a"), Backend::start("b"));
        let of_a = member(&a).replace("; ", &format!(" slow_start={slow_start}; "));
        let server = start(&[of_a, member(&b)].concat(), "");
        // Not at the start: there is nobody to be gentle to.
        eventually("a probe", || probes(&a) > 0);
        assert_eq!(answers(&server, 20).iter().filter(|name| *name == "a").count(), 10);
        a.conduct_for(PROBE, Conduct::Answer(500));
        eventually("it is found out", || told(&server, a.port(), "unhealthy") == 1);
        a.conduct(Conduct::Answer(200));
        eventually("it is back", || told(&server, a.port(), "healthy") == 1);
        if at_once {
            eventually("it has its whole share", || {
                answers(&server, 20).iter().filter(|name| *name == "a").count() == 10
            });
        } else {
            let few = answers(&server, 200).iter().filter(|name| *name == "a").count();
            assert!(few <= 20, "{few}");
        }
    }
}

#[test]
fn servers_that_are_down_are_not_probed_and_backups_are() {
    let (a, down, backup) = (Backend::start("a"), Backend::start("down"), Backend::start("backup"));
    let group =
        [member(&a), member(&down).replace("; ", " down; "), member(&backup).replace("; ", " backup; ")];
    let server = start(&group.concat(), "");
    eventually("probes", || probes(&a) >= 3 && probes(&backup) >= 3);
    assert_eq!(down.accepted(), 0);
    a.conduct_for(PROBE, Conduct::Answer(500));
    eventually("the backup answers", || get(server.port(), "/").text() == "backup");
    backup.conduct_for(PROBE, Conduct::Answer(500));
    eventually("nobody answers", || get(server.port(), "/").status == 502);
    a.conduct(Conduct::Answer(200));
    eventually("the first one answers", || get(server.port(), "/").text() == "a");
}

#[test]
fn of_several_checks_of_a_group_one_that_fails_keeps_a_server_out() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let more = "location /more { proxy_pass http://u; health_check interval=50ms uri=/more; } location / {";
    let text = text(&[member(&a), member(&b)].concat(), "").replace("location / {", more);
    let server = Server::start(&text);
    for place in [PROBE, "/more"] {
        a.conduct_for(place, Conduct::Answer(500));
        eventually("it is found out", || answers(&server, 10) == ["b"; 10]);
        // However often the other check passes.
        let seen = |place: &str| a.seen(&format!("GET {place} "));
        let other = if place == PROBE { "/more" } else { PROBE };
        let before = seen(other);
        eventually("passes of the other check", || seen(other) > before + 3);
        assert_eq!(answers(&server, 10), ["b"; 10]);
        a.conduct(Conduct::Answer(200));
        eventually("it is back", || answers(&server, 2).contains(&"a".to_owned()));
    }
    eventually("all in the log", || {
        (told(&server, a.port(), "unhealthy"), told(&server, a.port(), "healthy")) == (2, 2)
    });
}
