//! Names of upstreams: asked of DNS servers that answer, change their mind, lie, keep silent and go away.

use crate::util::dns::{A, AAAA, Dns, Record, SRV, Says};
use crate::util::{Response, Server, eventually, get};
use std::collections::HashSet;
use std::time::Duration;

/// The servers behind the names: three addresses, two ports, each of which says who it is.
const BACKENDS: &str = "server { listen 127.0.0.1:{port2}; listen 127.0.0.2:{port2}; listen 127.0.0.3:{port2};
             listen 127.0.0.1:{port3}; listen 127.0.0.2:{port3}; access_log off; return 200 $server_addr:$server_port; }";

/// A server that asks `dns`, with these parameters; `http` goes to its `http` block and `location` to `location /`.
fn text(dns: &Dns, parameters: &str, http: &str, location: &str) -> String {
    format!(
        "resolver 127.0.0.1:{} {parameters}; {http}
         add_header X-Error $upstream_error always; add_header X-Tried $upstream_addr always;
         server {{ listen {{port}}; location / {{ {location} }} location = /up {{ return 200 up; }} }} {BACKENDS}",
        dns.port()
    )
}

/// The same with a location that takes the name from the request: `/?h=NAME`.
fn by_variable(dns: &Dns, parameters: &str) -> Server {
    Server::start(&text(dns, parameters, "", "proxy_pass http://$arg_h:{port2};"))
}

/// The same with a group of one name.
fn by_group(dns: &Dns, parameters: &str, name: &str) -> Server {
    Server::start(&group_text(dns, parameters, name))
}

fn group_text(dns: &Dns, parameters: &str, name: &str) -> String {
    let group = format!("upstream u {{ zone u 64k; server {name}:{{port2}} resolve; }}");
    text(dns, parameters, &group, "proxy_pass http://u;")
}

fn ask(server: &Server, name: &str) -> Response {
    get(server.port(), &format!("/?h={name}"))
}

/// The last number of the address that answered.
#[track_caller]
fn answered(response: &Response) -> u8 {
    assert_eq!(response.status, 200, "{response:?}");
    let text = response.text();
    let (address, _) = text.split_once(':').expect("an address and a port");
    address.rsplit_once('.').expect("an IPv4 address").1.parse().expect("a number")
}

#[track_caller]
fn failed_by_dns(response: &Response) {
    assert_eq!((response.status, response.header("x-error")), (502, Some("dns_failure")), "{response:?}");
}

/// The error log says this, be it a moment later.
#[track_caller]
fn logged(server: &Server, text: &str) {
    eventually(text, || server.error_log().contains(text));
}

/// Nothing went wrong inside.
#[track_caller]
fn no_alarm(server: &Server) {
    let log = server.error_log();
    for word in ["[alert]", "[emerg]", "panic", "exited on signal"] {
        assert!(!log.contains(word) && !server.stderr().contains(word), "{log}\n{}", server.stderr());
    }
}

#[test]
fn a_name_of_a_request_is_asked_for_once_while_its_answer_lives() {
    let dns = Dns::start();
    dns.set_addresses("a.test", 600, &["127.0.0.2"]).set_addresses("b.test", 600, &["127.0.0.3"]);
    let server = by_variable(&dns, "");
    for _ in 0..5 {
        assert_eq!(answered(&ask(&server, "a.test")), 2);
        assert_eq!(answered(&ask(&server, "A.tEsT.")), 2);
        assert_eq!(answered(&ask(&server, "b.test")), 3);
    }
    for name in ["a.test", "b.test"] {
        assert_eq!((dns.count(name, A), dns.count(name, AAAA)), (1, 1));
    }
    // An address is not asked for.
    assert_eq!(answered(&ask(&server, "127.0.0.1")), 1);
    assert_eq!(dns.asked("127.0.0.1"), []);
    no_alarm(&server);
}

#[test]
fn queries_have_numbers_and_ports_of_their_own() {
    let dns = Dns::start();
    let server = by_variable(&dns, "");
    let mut seen = HashSet::new();
    let names: Vec<String> = (0..20).map(|number| format!("n{number}.test")).collect();
    for name in &names {
        dns.set_addresses(name, 600, &["127.0.0.1"]);
        ask(&server, name);
        seen.extend(dns.asked(name).iter().map(|asked| (asked.number, asked.port)));
    }
    let numbers: HashSet<u16> = seen.iter().map(|(number, _)| *number).collect();
    let ports: HashSet<u16> = seen.iter().map(|(_, port)| *port).collect();
    assert!(seen.len() >= 40 && numbers.len() > 35 && ports.len() > 20, "{seen:?}");
    let mut sorted: Vec<u16> = numbers.into_iter().collect();
    sorted.sort_unstable();
    assert!(sorted.windows(2).any(|pair| pair[1] - pair[0] > 100), "not drawn: {sorted:?}");
}

#[test]
fn a_group_follows_its_name_when_the_addresses_change() {
    let dns = Dns::start();
    dns.set_addresses("a.test", 1, &["127.0.0.1"]);
    let server = Server::start(&format!(
        "worker_processes 2; http {{ {} }}",
        group_text(&dns, "", "a.test").replace("resolve;", "resolve max_fails=0;")
    ));
    let who = || (0..8).map(|_| answered(&get(server.port(), "/"))).collect::<HashSet<u8>>();
    assert_eq!(who(), HashSet::from([1]));
    dns.set_addresses("a.test", 1, &["127.0.0.2"]);
    eventually("the new address", || who() == HashSet::from([2]));
    dns.set_addresses("a.test", 1, &["127.0.0.2", "127.0.0.3"]);
    eventually("both addresses", || who() == HashSet::from([2, 3]));
    dns.set_addresses("a.test", 1, &["127.0.0.3"]);
    eventually("the last address", || who() == HashSet::from([3]));
    // Nobody is asked who was taken out.
    assert!((0..20).all(|_| answered(&get(server.port(), "/")) == 3));
    no_alarm(&server);
}

#[test]
fn the_last_good_addresses_stay_when_a_refresh_fails() {
    let dns = Dns::start();
    dns.set_addresses("a.test", 1, &["127.0.0.2"]).set_addresses("b.test", 1, &["127.0.0.3"]);
    let group = "upstream u { zone u 64k; server a.test:{port2} resolve; }";
    let location = "if ($arg_h) { proxy_pass http://$arg_h:{port2}; } proxy_pass http://u;";
    let server = Server::start(&text(&dns, "", &format!("{group} resolver_timeout 1s;"), location));
    for says in [Says::Code(2), Says::Silence] {
        for name in ["a.test", "b.test"] {
            dns.set_addresses(name, 1, &[if name == "a.test" { "127.0.0.2" } else { "127.0.0.3" }]);
        }
        eventually("a fresh answer", || {
            answered(&ask(&server, "b.test"));
            dns.count("a.test", A) > 1 && dns.count("b.test", A) > 1
        });
        dns.set("a.test", says.clone()).set("b.test", says);
        // Each refresh fails: several of them, and the requests in between are served.
        let (a, b) = (dns.count("a.test", A), dns.count("b.test", A));
        eventually("refreshes that fail", || {
            assert_eq!(answered(&get(server.port(), "/")), 2);
            assert_eq!(answered(&ask(&server, "b.test")), 3);
            dns.count("a.test", A) >= a + 2 && dns.count("b.test", A) >= b + 2
        });
    }
    no_alarm(&server);
}

#[test]
fn a_resolver_that_goes_away_and_comes_back_loses_nothing() {
    let dns = Dns::start();
    let port = dns.port();
    dns.set_addresses("a.test", 1, &["127.0.0.2"]);
    let server = by_group(&dns, "", "a.test");
    assert_eq!(answered(&get(server.port(), "/")), 2);
    drop(dns);
    eventually("a refresh that fails", || {
        assert_eq!(answered(&get(server.port(), "/")), 2);
        server
            .error_log()
            .contains("upstream \"u\": a.test could not be resolved anew; its last addresses stay")
    });
    assert_eq!(answered(&get(server.port(), "/")), 2);
    let dns = Dns::start_on(port);
    dns.set_addresses("a.test", 1, &["127.0.0.3"]);
    eventually("the new address", || answered(&get(server.port(), "/")) == 3);
    no_alarm(&server);
}

#[test]
fn a_name_that_is_missing_at_the_start_is_a_502_until_it_appears() {
    let dns = Dns::start();
    dns.set_addresses("there.test", 600, &["127.0.0.1"]);
    let server = by_group(&dns, "", "late.test");
    assert_eq!(get(server.port(), "/up").text(), "up");
    failed_by_dns(&get(server.port(), "/"));
    logged(&server, "upstream \"u\": late.test could not be resolved (3: Host not found)");
    logged(&server, "upstream \"u\" has no address (3: Host not found)");
    dns.set_addresses("late.test", 600, &["127.0.0.2"]);
    eventually("the name", || get(server.port(), "/").status == 200);
    assert_eq!(answered(&get(server.port(), "/")), 2);

    // The same for a name of a request.
    let server = by_variable(&dns, "");
    failed_by_dns(&ask(&server, "later.test"));
    logged(&server, "later.test could not be resolved (3: Host not found)");
    dns.set_addresses("later.test", 600, &["127.0.0.3"]);
    eventually("the name", || ask(&server, "later.test").status == 200);
    no_alarm(&server);
}

#[test]
fn what_is_no_name_is_a_502_and_asks_nobody() {
    let dns = Dns::start();
    let server = by_variable(&dns, "");
    let long = "a.".repeat(140) + "test";
    let label = "a".repeat(64) + ".test";
    for name in ["a..test", ".test", long.as_str(), label.as_str()] {
        failed_by_dns(&ask(&server, name));
        assert_eq!(dns.asked(name), [], "{name}");
    }
    no_alarm(&server);
}

#[test]
fn a_group_without_an_address_of_one_name_goes_on_with_the_others() {
    let dns = Dns::start();
    dns.set_addresses("a.test", 600, &["127.0.0.2"]);
    let group =
        "upstream u { zone u 64k; server missing.test:{port2} resolve; server a.test:{port2} resolve; }";
    let server = Server::start(&text(&dns, "", group, "proxy_pass http://u;"));
    for _ in 0..5 {
        assert_eq!(answered(&get(server.port(), "/")), 2);
    }
    dns.set_addresses("missing.test", 600, &["127.0.0.3"]);
    let who = || (0..4).map(|_| answered(&get(server.port(), "/"))).collect::<HashSet<u8>>();
    eventually("the other one", || who() == HashSet::from([2, 3]));
}

#[test]
fn a_service_has_its_ports_weights_and_backups() {
    let dns = Dns::start();
    dns.set_addresses("one.test", 600, &["127.0.0.1"])
        .set_addresses("two.test", 600, &["127.0.0.2"])
        .set_addresses("three.test", 600, &["127.0.0.3"]);
    let group = "upstream u { zone u 64k; server svc.test service=http resolve max_fails=0; }";
    let server = Server::start(&text(&dns, "", group, "proxy_pass http://u;"));
    failed_by_dns(&get(server.port(), "/"));
    let (first, second) = (server.port_of(2), server.port_of(3));
    dns.set(
        "_http._tcp.svc.test",
        Says::Records(vec![
            Record::service(1, 10, 1, second, "two.test"),
            Record::service(1, 20, 9, first, "three.test"),
            Record::service(1, 10, 3, first, "one.test"),
        ]),
    );
    eventually("the service", || get(server.port(), "/").status == 200);
    let texts: Vec<String> = (0..40).map(|_| get(server.port(), "/").text()).collect();
    let count = |text: &str| texts.iter().filter(|known| *known == text).count();
    // Three to one; those of the higher priority alone.
    assert_eq!(count(&format!("127.0.0.1:{first}")), 30, "{texts:?}");
    assert_eq!(count(&format!("127.0.0.2:{second}")), 10, "{texts:?}");
    assert!(dns.count("_http._tcp.svc.test", SRV) >= 1);

    // Where nobody listens, the backup takes it. One whose host has no address is left out.
    dns.set(
        "_http._tcp.svc.test",
        Says::Records(vec![
            Record::service(1, 10, 1, server.port_of(9), "one.test"),
            Record::service(1, 10, 1, first, "missing.test"),
            Record::service(1, 20, 1, first, "three.test"),
        ]),
    );
    eventually("the backup", || {
        let response = get(server.port(), "/");
        response.text() == format!("127.0.0.3:{first}")
            && response.header("x-tried").is_some_and(|tried| tried.contains(", "))
    });
    no_alarm(&server);
}

#[test]
fn a_service_with_a_name_of_its_own_form_is_asked_for_like_that() {
    let dns = Dns::start();
    let group = "upstream u { zone u 64k; server svc.test service=_web._sctp resolve;
                              server svc.test service=a.b resolve; }";
    let _server = Server::start(&text(&dns, "", group, "proxy_pass http://u;"));
    eventually("both", || dns.count("_web._sctp.svc.test", SRV) > 0 && dns.count("a.b.svc.test", SRV) > 0);
}

#[test]
fn aliases_are_followed_within_a_reply_and_by_asking_again() {
    let dns = Dns::start();
    dns.set(
        "whole.test",
        Says::Records(vec![
            Record::alias(600, "middle.test"),
            Record::alias(600, "end.test").of("middle.test"),
            Record::v4(600, "127.0.0.2").of("end.test"),
            Record::v4(600, "127.0.0.9").of("other.test"),
        ]),
    );
    dns.set("part.test", Says::Records(vec![Record::alias(600, "next.test")]));
    dns.set("next.test", Says::Records(vec![Record::alias(600, "target.test")]));
    dns.set_addresses("target.test", 600, &["127.0.0.3"]);
    for (one, other) in [("loop.test", "pool.test"), ("pool.test", "loop.test")] {
        dns.set(one, Says::Records(vec![Record::alias(600, other)]));
    }
    dns.set("self.test", Says::Records(vec![Record::alias(600, "self.test")]));
    let server = by_variable(&dns, "ipv6=off");
    for _ in 0..2 {
        assert_eq!(answered(&ask(&server, "whole.test")), 2);
        assert_eq!(answered(&ask(&server, "part.test")), 3);
        failed_by_dns(&ask(&server, "loop.test"));
        failed_by_dns(&ask(&server, "self.test"));
    }
    assert_eq!(dns.asked("middle.test"), []);
    assert_eq!(
        (dns.count("part.test", A), dns.count("next.test", A), dns.count("target.test", A)),
        (1, 1, 1)
    );
    assert!(dns.count("loop.test", A) + dns.count("pool.test", A) < 50, "a loop ends");
    logged(&server, "could not be resolved (2: Alias leads nowhere)");
}

#[test]
fn that_there_is_no_such_name_is_remembered() {
    let dns = Dns::start();
    // None of these names exists; one has records of another kind alone.
    dns.set("long.test", Says::Denial(600)).set("short.test", Says::Denial(1));
    dns.set(
        "other.test",
        Says::Records(vec![Record::alias(600, "long.test"), Record::v6(600, "::9").of("x.test")]),
    );
    let server = by_variable(&dns, "");
    for _ in 0..10 {
        failed_by_dns(&ask(&server, "long.test"));
    }
    assert_eq!((dns.count("long.test", A), dns.count("long.test", AAAA)), (1, 1));
    failed_by_dns(&ask(&server, "other.test"));
    failed_by_dns(&ask(&server, "short.test"));
    dns.set_addresses("short.test", 600, &["127.0.0.2"]);
    eventually("the name", || ask(&server, "short.test").status == 200);
    assert_eq!(dns.count("long.test", A), 2, "once more for the alias, not for requests");
}

#[test]
fn a_resolver_of_several_that_keeps_silent_costs_no_request() {
    let (silent, refusing, dns) = (Dns::start(), Dns::start(), Dns::start());
    let names: Vec<String> = (0..6).map(|number| format!("n{number}.test")).collect();
    for name in &names {
        silent.set(name, Says::Silence);
        refusing.set(name, Says::Code(5));
        dns.set_addresses(name, 600, &["127.0.0.2"]);
    }
    let others = format!("127.0.0.1:{} 127.0.0.1:{}", silent.port(), refusing.port());
    let server = by_variable(&dns, &others);
    for name in &names {
        assert_eq!(answered(&ask(&server, name)), 2);
    }
    let count = |dns: &Dns| names.iter().map(|name| dns.count(name, A)).sum::<usize>();
    assert_eq!(count(&dns), 6);
    assert!(count(&silent) > 0 && count(&refusing) > 0, "all of them take part");
    assert!(count(&silent) < 3, "who keeps silent is left alone: {}", count(&silent));
    no_alarm(&server);
}

#[test]
fn a_reply_that_does_not_fit_is_asked_for_over_a_connection() {
    let dns = Dns::start();
    let whole = (0..300).map(|_| Record::v4(600, "127.0.0.3")).collect();
    dns.set("large.test", Says::Truncated(whole));
    let server = by_variable(&dns, "ipv6=off");
    for _ in 0..3 {
        assert_eq!(answered(&ask(&server, "large.test")), 3);
    }
    let ways: Vec<bool> = dns.asked("large.test").iter().map(|asked| asked.over_tcp).collect();
    assert_eq!(ways, [false, true]);
}

#[test]
fn forged_replies_are_ignored() {
    let dns = Dns::start();
    let wrong = vec![Record::v4(600, "127.0.0.1"), Record::v6(600, "::1")];
    dns.set("a.test", Says::Forged(wrong, vec![Record::v4(600, "127.0.0.2")]));
    let server = by_variable(&dns, "");
    for _ in 0..3 {
        let response = ask(&server, "a.test");
        assert_eq!(answered(&response), 2);
        assert!(!response.header("x-tried").expect("who was asked").contains(','), "{response:?}");
    }
    assert_eq!((dns.count("a.test", A), dns.count("a.test", AAAA)), (1, 1));
}

#[test]
fn a_lookup_is_given_up_after_its_timeout() {
    let dns = Dns::start();
    dns.set("silent.test", Says::Silence).set("a.test", Says::Silence).set("broken.test", Says::Code(2));
    // Without the directive it would be 30 s, which is more than this test waits.
    let group = "resolver_timeout 300ms; upstream u { zone u 64k; server a.test:{port2} resolve; }";
    let location = "if ($arg_h) { proxy_pass http://$arg_h:{port2}; } proxy_pass http://u;";
    let server = Server::start(&text(&dns, "", group, location));
    for name in ["silent.test", "broken.test"] {
        failed_by_dns(&ask(&server, name));
    }
    failed_by_dns(&get(server.port(), "/"));
    logged(&server, "broken.test could not be resolved (2: Server failure)");
    logged(&server, "silent.test could not be resolved (110: Operation timed out)");
    logged(&server, "upstream \"u\": a.test could not be resolved (110: Operation timed out)");
    dns.set_addresses("silent.test", 600, &["127.0.0.2"]).set_addresses("a.test", 600, &["127.0.0.3"]);
    eventually("an answer", || ask(&server, "silent.test").status == 200);
    eventually("an answer", || get(server.port(), "/").status == 200);
}

#[test]
fn kinds_of_addresses_that_are_off_are_not_asked_for() {
    let dns = Dns::start();
    dns.set("a.test", Says::Records(vec![Record::v4(600, "127.0.0.2"), Record::v6(600, "::1")]));
    let server = by_variable(&dns, "ipv6=off");
    assert_eq!(answered(&ask(&server, "a.test")), 2);
    assert_eq!((dns.count("a.test", A), dns.count("a.test", AAAA)), (1, 0));
    let server = by_variable(&dns, "ipv4=off");
    let response = ask(&server, "a.test");
    assert_eq!((dns.count("a.test", A), dns.count("a.test", AAAA)), (1, 1));
    assert_eq!(response.header("x-tried"), Some(format!("[::1]:{}", server.port_of(2)).as_str()));
}

#[test]
fn one_kind_of_addresses_is_enough() {
    let dns = Dns::start();
    // A server that never answers for the other kind is not a lookup that times out.
    dns.set("a.test", Says::Records(vec![Record::v4(600, "127.0.0.2")]));
    let server = by_variable(&dns, "");
    assert_eq!(answered(&ask(&server, "a.test")), 2);
    dns.set("six.test", Says::Records(vec![Record::v6(600, "::1")]));
    let response = ask(&server, "six.test");
    assert_eq!(response.header("x-tried"), Some(format!("[::1]:{}", server.port_of(2)).as_str()));
}

#[test]
fn valid_stands_above_what_records_say() {
    let dns = Dns::start();
    dns.set_addresses("a.test", 3600, &["127.0.0.1"]).set_addresses("b.test", 1, &["127.0.0.1"]);
    let short = by_group(&dns, "valid=1s", "a.test");
    assert_eq!(answered(&get(short.port(), "/")), 1);
    dns.set_addresses("a.test", 3600, &["127.0.0.2"]);
    eventually("the new address", || answered(&get(short.port(), "/")) == 2);

    let long = by_variable(&dns, "valid=1h");
    assert_eq!(answered(&ask(&long, "b.test")), 1);
    dns.set_addresses("b.test", 1, &["127.0.0.2"]);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(answered(&ask(&long, "b.test")), 1);
    assert_eq!(dns.count("b.test", A), 1);
}

#[test]
fn a_reload_goes_on_whatever_names_do() {
    let dns = Dns::start();
    dns.set_addresses("a.test", 1, &["127.0.0.2"]).set("silent.test", Says::Silence);
    let mut server = by_group(&dns, "", "a.test");
    assert_eq!(answered(&get(server.port(), "/")), 2);
    for name in ["missing.test", "silent.test"] {
        let new = text(
            &dns,
            "",
            &format!("resolver_timeout 1s; upstream u {{ zone u 64k; server {name}:{{port2}} resolve; }}"),
            "proxy_pass http://u;",
        );
        server.configure(&new.replace("return 200 up;", &format!("return 200 {name};")));
        server.reload();
        eventually("the new configuration", || get(server.port(), "/up").text() == name);
        failed_by_dns(&get(server.port(), "/"));
    }
    assert!(server.is_running());
    dns.set_addresses("silent.test", 1, &["127.0.0.3"]);
    eventually("the name", || get(server.port(), "/").status == 200);

    // The same group once more: its addresses are there from the first request on, though nobody answers.
    dns.set("silent.test", Says::Silence);
    let again = server.read("nginx.conf").replace("return 200 silent.test;", "return 200 again;");
    server.write("nginx.conf", again);
    server.reload();
    eventually("the new configuration", || {
        assert_eq!(answered(&get(server.port(), "/")), 3);
        get(server.port(), "/up").text() == "again"
    });
    assert_eq!(answered(&get(server.port(), "/")), 3);
    no_alarm(&server);
}

#[test]
fn requests_that_wait_for_a_name_are_served_when_it_comes() {
    let dns = Dns::start();
    dns.set("slow.test", Says::Silence);
    let server = by_variable(&dns, "");
    let responses: Vec<Response> = std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..5).map(|_| scope.spawn(|| ask(&server, "slow.test"))).collect();
        eventually("a question", || dns.count("slow.test", A) > 0);
        // Nobody else waits for them.
        assert_eq!(get(server.port(), "/up").text(), "up");
        dns.set_addresses("slow.test", 600, &["127.0.0.2"]);
        waiting.into_iter().map(|one| one.join().expect("a client")).collect()
    });
    assert!(responses.iter().all(|response| answered(response) == 2), "{responses:?}");
    assert!(dns.count("slow.test", A) <= 3, "one lookup for all: {:?}", dns.asked("slow.test"));
    no_alarm(&server);
}

#[test]
fn a_client_that_leaves_while_a_name_is_looked_up_harms_nobody() {
    let dns = Dns::start();
    dns.set("slow.test", Says::Silence);
    let server = by_variable(&dns, "");
    for _ in 0..10 {
        let mut client = crate::util::Client::connect(server.port());
        client.send("GET /?h=slow.test HTTP/1.1\r\nHost: a\r\n\r\n");
        eventually("a question", || dns.count("slow.test", A) > 0);
        client.reset();
    }
    dns.set_addresses("slow.test", 600, &["127.0.0.2"]);
    assert_eq!(answered(&ask(&server, "slow.test")), 2);
    no_alarm(&server);
}

#[test]
fn without_a_resolver_the_system_knows_names() {
    let server = Server::start(&format!(
        "upstream u {{ server localhost:{{port2}}; }}
         server {{ listen {{port}}; proxy_connect_timeout 2s;
            location /group {{ proxy_pass http://u; }} location /plain {{ proxy_pass http://localhost:{{port2}}; }}
            location /variable {{ set $name localhost; proxy_pass http://$name:{{port2}}; }}
            location /none {{ proxy_pass http://none.invalid:{{port2}}; }} }} {BACKENDS}"
    ));
    for path in ["/group", "/plain", "/variable"] {
        for _ in 0..3 {
            assert_eq!(answered(&get(server.port(), path)), 1, "{path}");
        }
    }
    // It did not keep the server from starting.
    assert_eq!(get(server.port(), "/none").status, 502);
    no_alarm(&server);
}
