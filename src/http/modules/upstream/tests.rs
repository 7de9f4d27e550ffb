//! What `upstream` blocks come to, and what is said about wrong ones.

use crate::conf::files::MemoryFiles;
use crate::http::site::Site;
use crate::http::testing::{build_whole, complaints};
use crate::upstream::plan::{
    GroupPlan, Keepalive, LeastTime, Method, OfTwo, PeerPlan, PlanAddress, QueuePlan, StickyPlan, Zone,
};

use super::{Expires, GroupSettings, Sticky};

fn site_with(http: &str, files: MemoryFiles) -> Site {
    let text = format!("events {{}} http {{ {http} server {{ }} }}");
    build_whole(text.into_bytes(), files).site.expect("a site")
}

fn site(http: &str) -> Site {
    site_with(http, MemoryFiles::default())
}

/// The plan of `upstream u` with these lines.
fn plan(lines: &str) -> GroupPlan {
    site(&format!("upstream u {{ {lines} }}")).upstreams.named(b"u").expect("a group").plan().clone()
}

fn peer(line: &str) -> PeerPlan {
    plan(&format!("server {line}; server 192.0.2.99;")).peers.remove(0)
}

fn settings<R>(lines: &str, look: impl FnOnce(&GroupSettings) -> R) -> R {
    let site = site(&format!("upstream u {{ {lines} server 192.0.2.1; }}"));
    look(&site.upstreams.all()[0].settings)
}

fn inet(text: &str) -> PlanAddress {
    PlanAddress::Inet(vec![text.parse().expect("an address")])
}

#[test]
fn a_block_without_more_has_nginx_s_defaults() {
    let group = plan("server 192.0.2.1;");
    assert_eq!(group, GroupPlan::new("u", vec![PeerPlan::new("192.0.2.1", inet("192.0.2.1:80"))]));
    let keepalive =
        Keepalive { connections: 32, requests: 1000, time_ms: 3_600_000, timeout_ms: 60_000, local: true };
    assert_eq!(group.keepalive, keepalive);
    let peer = &group.peers[0];
    assert_eq!((peer.weight, peer.max_fails, peer.fail_timeout_ms, peer.max_conns), (1, 1, 10_000, 0));
}

#[test]
fn addresses_names_and_sockets_are_told_apart() {
    let name = |host: &str, port: u16| PlanAddress::Name {
        host: host.into(),
        port,
        resolve: false,
        service: None,
    };
    for (text, address) in [
        ("192.0.2.1", inet("192.0.2.1:80")),
        ("192.0.2.1:8080", inet("192.0.2.1:8080")),
        ("[::1]", inet("[::1]:80")),
        ("[::1]:8080", inet("[::1]:8080")),
        ("unix:/run/a.sock", PlanAddress::Unix(b"/run/a.sock"[..].into())),
        ("unix:/run/a:b", PlanAddress::Unix(b"/run/a:b"[..].into())),
        ("App.Test", name("app.test", 80)),
        ("app.test:81", name("app.test", 81)),
    ] {
        let peer = peer(text);
        assert_eq!((&*peer.server, &peer.address), (text, &address));
    }
}

#[test]
fn every_parameter_of_a_server_has_its_place() {
    let full = peer(
        "192.0.2.1:81 weight=3 max_conns=7 max_fails=2 fail_timeout=5 slow_start=1m route=r1 backup down drain",
    );
    let expected = PeerPlan {
        weight: 3,
        max_conns: 7,
        max_fails: 2,
        fail_timeout_ms: 5000,
        slow_start_ms: 60_000,
        route: Some("r1".into()),
        backup: true,
        down: true,
        drain: true,
        ..PeerPlan::new("192.0.2.1:81", inet("192.0.2.1:81"))
    };
    assert_eq!(full, expected);
    let name = |port: u16, service: Option<&str>| PlanAddress::Name {
        host: "a.test".into(),
        port,
        resolve: true,
        service: service.map(Into::into),
    };
    assert_eq!(peer("a.test:81 resolve").address, name(81, None));
    assert_eq!(peer("a.test service=http resolve").address, name(80, Some("http")));
    assert_eq!(peer("192.0.2.1 resolve").address, inet("192.0.2.1:80"));
}

#[test]
fn methods_are_read() {
    let time = |whole: bool, inflight: bool| LeastTime { whole, inflight };
    for (line, method) in [
        ("", Method::RoundRobin),
        ("least_conn;", Method::LeastConn),
        ("least_time header;", Method::LeastTime(time(false, false))),
        ("least_time last_byte inflight;", Method::LeastTime(time(true, true))),
        ("ip_hash;", Method::IpHash),
        ("hash $uri;", Method::Hash { consistent: false }),
        ("hash $uri$args consistent;", Method::Hash { consistent: true }),
        ("random;", Method::Random(None)),
        ("random two;", Method::Random(Some(OfTwo::LeastConn))),
        ("random two least_conn;", Method::Random(Some(OfTwo::LeastConn))),
        ("random two least_time=last_byte;", Method::Random(Some(OfTwo::LeastTime(time(true, false))))),
    ] {
        assert_eq!(plan(&format!("{line} server 192.0.2.1;")).method, method, "{line}");
    }
    assert!(settings("hash $uri;", |settings| settings.hash_key.is_some()));
}

#[test]
fn the_rest_of_a_block_is_read() {
    let group = plan(
        "zone z 64k; keepalive 5; keepalive_requests 6; keepalive_time 7; keepalive_timeout 8ms; queue 9 timeout=10;
         server 192.0.2.1;",
    );
    assert_eq!(group.zone, Some(Zone { name: "z".into(), size: 65_536 }));
    let keepalive = Keepalive { connections: 5, requests: 6, time_ms: 7000, timeout_ms: 8, local: false };
    assert_eq!(group.keepalive, keepalive);
    assert_eq!(group.queue, Some(QueuePlan { length: 9, timeout_ms: 10_000 }));
    let group = plan("keepalive 0 local; queue 1; server 192.0.2.1;");
    assert_eq!((group.keepalive.connections, group.keepalive.local), (0, true));
    assert_eq!(group.queue, Some(QueuePlan { length: 1, timeout_ms: 60_000 }));
}

#[test]
fn sessions_are_read() {
    settings(
        "sticky cookie srv expires=1h domain=.a.test path=/ httponly secure samesite=lax;",
        |settings| match &settings.sticky {
            Some(Sticky::Cookie(cookie)) => {
                assert_eq!((&*cookie.name, cookie.expires), (&b"srv"[..], Some(Expires::Seconds(3600))));
                assert!(cookie.httponly && cookie.secure && cookie.samesite.is_some());
                assert!(cookie.domain.is_some() && cookie.path.is_some());
            }
            other => panic!("{other:?}"),
        },
    );
    settings("sticky route $cookie_a $arg_b;", |settings| {
        assert!(matches!(&settings.sticky, Some(Sticky::Route(texts)) if texts.len() == 2));
    });
    let lines = "sticky learn create=$arg_a create=$arg_b lookup=$cookie_c zone=s:1m timeout=1h header;
                 server 192.0.2.1;";
    let zone = Zone { name: "s".into(), size: 1 << 20 };
    assert_eq!(plan(lines).sticky, Some(StickyPlan::Learn { zone, timeout_ms: 3_600_000, header: true }));
    let lines = "sticky cookie srv expires=max; least_conn; server 192.0.2.1;";
    assert_eq!((plan(lines).sticky, plan(lines).method), (Some(StickyPlan::Cookie), Method::LeastConn));
}

#[test]
fn names_are_looked_up_by_the_nearest_resolver() {
    let site = site(
        "upstream a { server a.test resolve; }
         upstream b { server b.test resolve; resolver 192.0.2.2; resolver_timeout 3s; }
         resolver 192.0.2.1 valid=5s; resolver_timeout 4s;",
    );
    let plans: Vec<(String, u64)> = site
        .upstreams
        .all()
        .iter()
        .filter_map(|group| group.resolver.as_ref())
        .map(|plan| (format!("{:?}", plan.servers[0]), plan.timeout_ms))
        .collect();
    let of = |last: u8, timeout_ms: u64| (format!("Address(192.0.2.{last}:53)"), timeout_ms);
    assert_eq!(plans, [of(1, 4000), of(2, 3000)]);
    let none = self::site("upstream a { server a.test resolve; }");
    assert!(none.upstreams.all()[0].resolver.is_none());
}

#[test]
fn servers_may_come_from_a_file_that_need_not_be_there() {
    let files = MemoryFiles::new().with("/etc/thalweg/u.state", "server 192.0.2.2 weight=5;\nserver 192.0.2.3;");
    let text = "upstream u { state u.state; } upstream v { state /none; server 192.0.2.9; }";
    let site = site_with(text, files);
    let servers = |name: &[u8]| -> Vec<(String, u32)> {
        let group = site.upstreams.named(name).expect("a group");
        group.plan().peers.iter().map(|peer| (peer.server.to_string(), peer.weight)).collect()
    };
    assert_eq!(servers(b"u"), [("192.0.2.2".to_owned(), 5), ("192.0.2.3".to_owned(), 1)]);
    assert_eq!(servers(b"v"), [("192.0.2.9".to_owned(), 1)]);
    let bad = MemoryFiles::new().with("/etc/thalweg/u.state", "server 192.0.2.2 weight=0;");
    let text = format!("events {{}} http {{ {text} }}");
    assert!(build_whole(text.into_bytes(), bad).site.is_none());
}

#[test]
fn proxy_pass_finds_a_group_wherever_it_stands_and_in_any_case() {
    let site = site("server { location / { proxy_pass http://APP; } } upstream App { server 192.0.2.1; }");
    assert_eq!(site.upstreams.all().len(), 1);
    assert_eq!(site.upstreams.all()[0].group.name(), "app");
}

#[test]
fn what_is_wrong_is_said_in_nginx_s_words() {
    const LINE: &str = "server 127.0.0.1;";
    for (lines, complaint) in [
        ("", "no servers are inside upstream"),
        ("server 127.0.0.1 backup;", "no servers in upstream \"u\""),
        ("server 127.0.0.1 weight=0;", "invalid parameter \"weight=0\""),
        ("server 127.0.0.1 weight=x;", "invalid parameter \"weight=x\""),
        ("server 127.0.0.1 max_conns=x;", "invalid parameter \"max_conns=x\""),
        ("server 127.0.0.1 max_fails=-1;", "invalid parameter \"max_fails=-1\""),
        ("server 127.0.0.1 fail_timeout=1ms;", "invalid parameter \"fail_timeout=1ms\""),
        ("server 127.0.0.1 foo;", "invalid parameter \"foo\""),
        ("server 127.0.0.1 route=;", "invalid parameter \"route=\""),
        ("server 127.0.0.1:99999;", "invalid port in upstream \"127.0.0.1:99999\""),
        ("server 127.0.0.1/a;", "invalid host in upstream \"127.0.0.1/a\""),
        ("server http://127.0.0.1;", "invalid host in upstream \"http://127.0.0.1\""),
        ("server unix:;", "no path in the unix domain socket in upstream \"unix:\""),
        ("server :80;", "no host in upstream \":80\""),
        ("server [::1;", "invalid host in upstream \"[::1\""),
        ("server $x;", "host not found in upstream \"$x\""),
        ("server a.test service=x;", "service upstream \"a.test\" requires \"resolve\" parameter"),
        ("server a.test:80 service=x resolve;", "service upstream \"a.test:80\" may not have port"),
        ("server 192.0.2.1 service=x resolve;", "service upstream \"192.0.2.1\" requires domain name"),
    ] {
        let told = complaints(&format!("upstream u {{ {lines} }} server {{ }}"));
        assert!(told.contains(&format!("[emerg] {complaint}")), "{lines}: {told:?}");
    }
    for (lines, complaint) in [
        ("ip_hash; server 127.0.0.2 backup;", "balancing method does not support parameter \"backup\""),
        ("hash $uri; server 127.0.0.2 backup;", "balancing method does not support parameter \"backup\""),
        ("random; server 127.0.0.2 slow_start=1;", "balancing method does not support parameter \"slow_start=1\""),
        ("hash $uri foo;", "invalid parameter \"foo\""),
        ("hash $nope;", "unknown \"nope\" variable"),
        ("random one;", "invalid parameter \"one\""),
        ("random two foo;", "invalid parameter \"foo\""),
        ("least_time foo;", "invalid parameter \"foo\""),
        ("least_time header foo;", "invalid parameter \"foo\""),
        ("keepalive x;", "invalid value \"x\" in \"keepalive\" directive"),
        ("keepalive 1; keepalive 2;", "\"keepalive\" directive is duplicate"),
        ("keepalive 1 foo;", "invalid parameter \"foo\""),
        ("keepalive_requests x;", "\"keepalive_requests\" directive invalid number"),
        ("keepalive_timeout x;", "\"keepalive_timeout\" directive invalid value"),
        ("zone \"\" 64k;", "invalid zone name \"\""),
        ("zone u x;", "invalid zone size \"x\""),
        ("zone u 1k;", "zone \"u\" is too small"),
        ("queue 0;", "invalid value \"0\" in \"queue\" directive"),
        ("queue 1 foo;", "invalid parameter \"foo\""),
        ("listen 80;", "\"listen\" directive is not allowed here"),
        ("sticky foo bar;", "invalid parameter \"foo\""),
        ("sticky cookie a=b;", "invalid cookie name \"a=b\""),
        ("sticky cookie a samesite=foo;", "invalid parameter \"samesite=foo\""),
        ("sticky cookie a foo;", "invalid parameter \"foo\""),
        ("sticky route a;", "invalid variable name \"a\""),
        ("sticky learn create=$uri lookup=$uri;", "\"sticky\" directive needs \"zone=\""),
        ("sticky learn create=$uri zone=a:1m;", "\"sticky\" directive needs \"lookup=\""),
        ("sticky cookie a; sticky cookie b;", "\"sticky\" directive is duplicate"),
        ("resolver 127.0.0.1:0;", "invalid port in resolver \"127.0.0.1:0\""),
    ] {
        let told = complaints(&format!("upstream u {{ {lines} {LINE} }} server {{ }}"));
        assert!(told.contains(&format!("[emerg] {complaint}")), "{lines}: {told:?}");
    }
    for (http, complaint) in [
        ("upstream u { server 127.0.0.1; } upstream U { server 127.0.0.1; }", "duplicate upstream \"U\""),
        (
            "upstream u { server 127.0.0.1; } server { location / { proxy_pass http://u:80; } }",
            "upstream \"u\" may not have port 80",
        ),
        ("server { upstream u { server 127.0.0.1; } }", "\"upstream\" directive is not allowed here"),
        ("server { least_conn; }", "\"least_conn\" directive is not allowed here"),
    ] {
        let told = complaints(http);
        assert!(told.contains(&format!("[emerg] {complaint}")), "{http}: {told:?}");
    }
    let told = complaints("upstream u { least_conn; ip_hash; server 127.0.0.1; } server { }");
    assert_eq!(told, ["[warn] load balancing method redefined"]);
}
