//! The balancing methods choose the servers that nginx chooses: by hash the same for each key, by turns in the same
//! order. So that sessions and caches stay where they are when one takes the place of the other.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use thalweg::upstream::plan::{Method, PlanAddress};
use thalweg::upstream::{Ask, Group, GroupPlan, PeerPlan, Pick, Tried};

use crate::util::{Client, Nginx, Server, nginx};

/// Servers of the group: port, weight, what else its line says.
const SERVERS: [(usize, u32, &str); 5] = [(2, 1, ""), (3, 3, ""), (4, 2, ""), (5, 1, " down"), (6, 1, "")];

/// nginx with a group of these servers, each of which answers with its port.
fn start(method: &str) -> Server {
    let mut text = format!(
        "upstream group {{ {method}; {} }}
         server {{
            listen {{port}}; set_real_ip_from 127.0.0.0/8; real_ip_header X-Client; keepalive_requests 100000;
            location / {{ proxy_pass http://group; }}
         }}",
        SERVERS
            .map(|(port, weight, more)| format!("server 127.0.0.1:{{port{port}}} weight={weight}{more};"))
            .join(" ")
    );
    for (port, ..) in SERVERS {
        text.push_str(&format!(" server {{ listen 127.0.0.1:{{port{port}}}; return 200 $server_port; }}"));
    }
    Nginx::start(&format!("{text} keepalive_requests 100000;"))
}

/// The same group of ours.
fn group(server: &Server, method: Method) -> Group {
    let peers = SERVERS.map(|(port, weight, more)| {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port_of(port)));
        let plan = PeerPlan::new(address.to_string(), PlanAddress::Inet(vec![address]));
        PeerPlan { weight, down: more == " down", ..plan }
    });
    Group::new(GroupPlan { method, ..GroupPlan::new("group", peers.into()) }, None)
}

fn ours(group: &Group, key: &str, client: Option<IpAddr>) -> String {
    let ask = Ask {
        now_ms: 1,
        client_ip: client,
        key: key.as_bytes(),
        sticky: b"",
        tried: &Tried::default(),
        random: &mut fastrand::Rng::with_seed(1),
    };
    match group.pick(ask) {
        Pick::Peer(peer) => peer.name().rsplit_once(':').expect("a port").1.to_owned(),
        other => panic!("{other:?}"),
    }
}

/// Compares the servers of many requests; `asks` gives the key of each, and the client that it comes from.
fn compare(method: &str, own: Method, asks: impl Iterator<Item = (String, IpAddr)>) {
    if !nginx::available() {
        return;
    }
    let server = start(method);
    let group = group(&server, own);
    let mut client = Client::connect(server.port());
    let mut seen = std::collections::HashSet::new();
    for (number, (key, address)) in asks.enumerate() {
        client.send(format!("GET /?{key} HTTP/1.1\r\nHost: a\r\nX-Client: {address}\r\n\r\n"));
        let theirs = client.read_response().text();
        assert_eq!(ours(&group, &key, Some(address)), theirs, "request {number}: {key:?} of {address}");
        seen.insert(theirs);
    }
    assert_eq!(seen.len(), 4, "every server that is up was chosen");
}

const SOMEONE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn keys() -> impl Iterator<Item = (String, IpAddr)> {
    let number = |number: u32| (format!("key-{}", number.wrapping_mul(2_654_435_761)), SOMEONE);
    // An empty key goes by turns.
    (0..500).map(number).chain((0..10).map(|_| (String::new(), SOMEONE)))
}

#[test]
fn a_ring_maps_keys_as_nginx_does() {
    compare("hash $args consistent", Method::Hash { consistent: true }, keys());
}

#[test]
fn a_hash_maps_keys_as_nginx_does() {
    compare("hash $args", Method::Hash { consistent: false }, keys());
}

#[test]
fn clients_go_where_nginx_sends_them() {
    let mut random = fastrand::Rng::with_seed(7);
    let addresses: Vec<IpAddr> = (0..500)
        .map(|number| match number % 2 {
            0 => IpAddr::from(random.u32(..).to_be_bytes()),
            _ => IpAddr::from(random.u128(..).to_be_bytes()),
        })
        .collect();
    compare("ip_hash", Method::IpHash, addresses.into_iter().map(|address| ("a".to_owned(), address)));
}

#[test]
fn turns_come_in_nginx_s_order() {
    let turns = || (0..50).map(|_| ("a".to_owned(), SOMEONE));
    compare("zone group 64k", Method::RoundRobin, turns());
    // Nothing is under way between two requests: equals go by turns.
    compare("least_conn", Method::LeastConn, turns());
}

/// Thalweg with `upstream u` of three servers, each of which answers with its port.
fn three(lines: &str, location: &str) -> Server {
    let mut text = format!(
        "upstream u {{ {lines} server 127.0.0.1:{{port2}}; server 127.0.0.1:{{port3}}; server 127.0.0.1:{{port4}}; }}
         server {{ listen {{port}}; location / {{ proxy_pass http://u; {location} }} }}"
    );
    for port in 2..=4 {
        text.push_str(&format!(" server {{ listen 127.0.0.1:{{port{port}}}; return 200 $server_port; }}"));
    }
    Server::start(&text)
}

#[test]
fn a_group_s_servers_take_turns() {
    let server = three("", "");
    let ports: Vec<String> = (0..6).map(|_| crate::util::get(server.port(), "/").text()).collect();
    assert_eq!(ports[..3], ports[3..], "one round like the other");
    assert_eq!(ports.iter().collect::<std::collections::HashSet<_>>().len(), 3);
}

#[test]
fn a_key_goes_to_one_server() {
    let server = three("hash $arg_k consistent;", "");
    let port = |path: &str| crate::util::get(server.port(), path).text();
    let mut seen = std::collections::HashSet::new();
    for key in 0..30 {
        let path = format!("/?k={key}");
        let first = port(&path);
        assert_eq!(port(&path), first);
        seen.insert(first);
    }
    assert_eq!(seen.len(), 3);
}

#[test]
fn a_cookie_keeps_a_session_with_its_server() {
    let server = three("sticky cookie srv expires=1h httponly path=/;", "");
    let first = crate::util::get(server.port(), "/");
    let line = first.header("Set-Cookie").expect("a cookie").to_owned();
    let (value, attributes) = line.split_once("; expires=").expect("a date");
    assert!(attributes.ends_with("; max-age=3600; httponly; path=/"), "{line}");
    assert!(value.starts_with("srv=") && value.len() == 4 + 32, "{line}");
    for _ in 0..5 {
        let again = crate::util::request(server.port(), "GET", "/", &[("Cookie", value)]);
        assert_eq!(again.text(), first.text());
        assert_eq!(
            again.header("Set-Cookie").and_then(|line| line.split_once("; ")).map(|pair| pair.0),
            Some(value)
        );
    }
}

#[test]
fn a_session_is_learned_from_what_the_server_says() {
    let text = "upstream u { sticky learn create=$upstream_cookie_id lookup=$cookie_id zone=s:1m;
                             server 127.0.0.1:{port2}; server 127.0.0.1:{port3}; }
         server { listen {port}; location / { proxy_pass http://u; } }
         server { listen 127.0.0.1:{port2}; listen 127.0.0.1:{port3};
                  add_header Set-Cookie id=of-$server_port; return 200 $server_port; }";
    let server = Server::start(text);
    let first = crate::util::get(server.port(), "/").text();
    let cookie = format!("id=of-{first}");
    for _ in 0..5 {
        let again = crate::util::request(server.port(), "GET", "/", &[("Cookie", &cookie)]);
        assert_eq!(again.text(), first);
    }
}

#[test]
fn a_server_that_refuses_is_passed_by() {
    let text = "upstream u { server 127.0.0.1:{port2}; server 127.0.0.1:{port3}; server 127.0.0.1:{port4} backup; }
         server { listen {port}; location / { proxy_pass http://u; add_header X-Tried $upstream_addr always; } }
         server { listen 127.0.0.1:{port3}; return 200 up; } server { listen 127.0.0.1:{port4}; return 200 backup; }";
    let server = Server::start(text);
    let tried: Vec<usize> = (0..10)
        .map(|_| {
            let response = crate::util::get(server.port(), "/");
            assert_eq!(response.text(), "up");
            response.header("X-Tried").expect("the tries").split(", ").count()
        })
        .collect();
    assert_eq!(
        tried.iter().filter(|tries| **tries == 2).count(),
        1,
        "tried once, then left alone: {tried:?}"
    );
}

#[test]
fn a_group_without_a_server_that_answers_is_a_502() {
    let text = "upstream u { server 127.0.0.1:{port2}; server 127.0.0.1:{port3} down; }
         server { listen {port}; location / { proxy_pass http://u; } }";
    let server = Server::start(text);
    for _ in 0..5 {
        assert_eq!(crate::util::get(server.port(), "/").status, 502);
    }
}

#[test]
fn a_route_in_the_request_names_the_server() {
    let text = "upstream u { sticky route $arg_r; server 127.0.0.1:{port2} route=a; server 127.0.0.1:{port3} route=b drain; }
         server { listen {port}; location / { proxy_pass http://u; } }
         server { listen 127.0.0.1:{port2}; return 200 a; } server { listen 127.0.0.1:{port3}; return 200 b; }";
    let server = Server::start(text);
    for (path, answer) in
        [("/?r=b", "b"), ("/?r=a", "a"), ("/", "a"), ("/?r=c", "a"), ("/?r=b", "b"), ("/", "a")]
    {
        assert_eq!(crate::util::get(server.port(), path).text(), answer, "{path}");
    }
}
