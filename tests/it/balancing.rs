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
