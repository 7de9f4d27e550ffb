//! Names of upstreams, with a name server of the test's own.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::util::{Server, Upstream, eventually, get, request};

/// What the name server says of a name.
#[derive(Clone)]
enum Zone {
    /// These addresses, for so many seconds.
    A(Vec<Ipv4Addr>, u32),
    /// Another name has them.
    Alias(&'static str),
    /// Services: priority, weight, port, name.
    Srv(Vec<(u16, u16, u16, &'static str)>),
    /// There is no such name.
    Missing,
    /// No answer at all.
    Silence,
    /// The answer is too long for a datagram.
    Long(Ipv4Addr),
    /// The server is broken.
    Failure,
    /// An answer with another number.
    Forged(Ipv4Addr),
}

type Zones = Arc<Mutex<HashMap<String, Zone>>>;

/// A name server on a port of 127.0.0.1.
struct NameServer {
    port: u16,
    zones: Zones,
    asked: Arc<Mutex<Vec<String>>>,
}

fn encode_name(name: &str, out: &mut Vec<u8>) {
    for label in name.split('.').filter(|label| !label.is_empty()) {
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
}

fn record(name: &str, kind: u16, ttl: u32, data: &[u8], out: &mut Vec<u8>) {
    encode_name(name, out);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&[0, 1]);
    out.extend_from_slice(&ttl.to_be_bytes());
    out.extend_from_slice(&(data.len() as u16).to_be_bytes());
    out.extend_from_slice(data);
}

/// The question's name and type, and its length.
fn question(query: &[u8]) -> (String, u16, usize) {
    let (mut at, mut labels) = (12, Vec::new());
    while query[at] != 0 {
        let length = query[at] as usize;
        labels.push(String::from_utf8_lossy(&query[at + 1..at + 1 + length]).to_lowercase());
        at += 1 + length;
    }
    (labels.join("."), u16::from_be_bytes([query[at + 1], query[at + 2]]), at + 5)
}

fn answer(query: &[u8], zones: &Zones, over_tcp: bool) -> Option<(String, Option<Vec<u8>>)> {
    if query.len() < 17 {
        return None;
    }
    let (name, kind, end) = question(query);
    let zone = zones.lock().unwrap().get(&name).cloned().unwrap_or(Zone::Missing);
    let (mut code, mut flags, mut records, mut count) = (0u8, 0x80u8, Vec::new(), 0u16);
    let mut number = [query[0], query[1]];
    match &zone {
        Zone::Silence => return Some((name, None)),
        Zone::Missing => code = 3,
        Zone::Failure => code = 2,
        Zone::A(addresses, ttl) if kind == 1 => {
            for address in addresses {
                record(&name, 1, *ttl, &address.octets(), &mut records);
                count += 1;
            }
        }
        Zone::Forged(address) if kind == 1 => {
            number[0] ^= 0xff;
            record(&name, 1, 1, &address.octets(), &mut records);
            count = 1;
        }
        Zone::Long(address) if kind == 1 && over_tcp => {
            record(&name, 1, 60, &address.octets(), &mut records);
            count = 1;
        }
        Zone::Long(_) if kind == 1 => flags |= 2,
        Zone::Alias(other) if kind == 1 => {
            let mut target = Vec::new();
            encode_name(other, &mut target);
            record(&name, 5, 60, &target, &mut records);
            count = 1;
            if let Some(Zone::A(addresses, ttl)) = zones.lock().unwrap().get(*other) {
                for address in addresses {
                    record(other, 1, *ttl, &address.octets(), &mut records);
                    count += 1;
                }
            }
        }
        Zone::Srv(services) if kind == 33 => {
            for (priority, weight, port, target) in services {
                let mut data = Vec::new();
                for number in [priority, weight, port] {
                    data.extend_from_slice(&number.to_be_bytes());
                }
                encode_name(target, &mut data);
                record(&name, 33, 1, &data, &mut records);
                count += 1;
            }
        }
        _ => {}
    }
    let mut reply = number.to_vec();
    reply.extend_from_slice(&[flags | 1, 0x80 | code, 0, 1]);
    reply.extend_from_slice(&count.to_be_bytes());
    reply.extend_from_slice(&[0, 0, 0, 0]);
    reply.extend_from_slice(&query[12..end]);
    reply.extend_from_slice(&records);
    Some((name, Some(reply)))
}

impl NameServer {
    fn start(zones: &[(&str, Zone)]) -> NameServer {
        let zones: Zones = Arc::new(Mutex::new(
            zones.iter().map(|(name, zone)| ((*name).to_owned(), zone.clone())).collect(),
        ));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().expect("address")) {
                break (udp, tcp);
            }
        };
        let port = udp.local_addr().expect("address").port();
        let (all, list) = (Arc::clone(&zones), Arc::clone(&asked));
        std::thread::spawn(move || {
            let mut query = [0; 1500];
            while let Ok((length, peer)) = udp.recv_from(&mut query) {
                if let Some((name, reply)) = answer(&query[..length], &all, false) {
                    list.lock().unwrap().push(name);
                    if let Some(reply) = reply {
                        let _ = udp.send_to(&reply, peer);
                    }
                }
            }
        });
        let (all, list) = (Arc::clone(&zones), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut length = [0; 2];
                if stream.read_exact(&mut length).is_err() {
                    continue;
                }
                let mut query = vec![0; u16::from_be_bytes(length) as usize];
                if stream.read_exact(&mut query).is_ok()
                    && let Some((name, Some(reply))) = answer(&query, &all, true)
                {
                    list.lock().unwrap().push(format!("{name} over tcp"));
                    let _ = stream.write_all(&(reply.len() as u16).to_be_bytes());
                    let _ = stream.write_all(&reply);
                }
            }
        });
        NameServer { port, zones, asked }
    }

    fn set(&self, name: &str, zone: Zone) {
        self.zones.lock().unwrap().insert(name.to_owned(), zone);
    }

    fn times(&self, name: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| *asked == name).count()
    }
}

const HOME: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn says(text: &'static str) -> Upstream {
    Upstream::http(move |_, _| {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()).into_bytes()
    })
}

#[test]
fn names_in_variables_are_looked_up_and_kept_for_their_time() {
    let upstream = says("found");
    let names = NameServer::start(&[
        ("a.test", Zone::A(vec![HOME], 60)),
        ("alias.test", Zone::Alias("a.test")),
        ("long.test", Zone::Long(HOME)),
        ("broken.test", Zone::Failure),
        ("silent.test", Zone::Silence),
        ("forged.test", Zone::Forged(HOME)),
    ]);
    let server = Server::start(&format!(
        "log_format e '$arg_h $upstream_error'; resolver 127.0.0.1:{} ipv6=off; resolver_timeout 700ms;
         server {{ listen {{port}}; access_log {{root}}/e.log e; location / {{ proxy_pass http://$arg_h:{}; }} }}",
        names.port,
        upstream.port()
    ));
    for name in ["a.test", "A.TEST", "alias.test", "long.test"] {
        let response = get(server.port(), &format!("/?h={name}"));
        assert_eq!((response.status, response.text().as_str()), (200, "found"), "{name}");
    }
    assert_eq!(names.times("a.test"), 1, "{:?}", names.asked.lock().unwrap());
    assert_eq!(names.times("long.test over tcp"), 1);
    for name in ["none.test", "broken.test", "silent.test", "forged.test"] {
        assert_eq!(get(server.port(), &format!("/?h={name}")).status, 502, "{name}");
    }
    eventually("reasons in the log", || server.read("e.log").matches("dns_failure").count() == 4);
}

#[test]
fn addresses_of_a_group_follow_their_name() {
    let (one, other) = (says("one"), says("other"));
    let names = NameServer::start(&[("a.test", Zone::A(vec![HOME], 1)), ("b.test", Zone::Missing)]);
    let server = Server::start(&format!(
        "resolver 127.0.0.1:{} valid=1s ipv6=off; resolver_timeout 300ms;
         upstream moving {{ zone moving 64k; server a.test:{} resolve max_fails=0; }}
         upstream late {{ zone late 64k; server b.test:{} resolve; }}
         server {{ listen {{port}}; location / {{ proxy_pass http://moving; proxy_connect_timeout 1s; }} location /late {{ proxy_pass http://late; }} }}",
        names.port,
        one.port(),
        other.port()
    ));
    eventually("its first address", || get(server.port(), "/").text() == "one");
    // A name that does not exist stops nothing, and heals.
    assert_eq!(get(server.port(), "/late").status, 502);
    names.set("b.test", Zone::A(vec![HOME], 1));
    eventually("the name that appeared", || get(server.port(), "/late").text() == "other");
    // The address moves to where nobody listens, and back.
    names.set("a.test", Zone::A(vec![Ipv4Addr::new(127, 0, 0, 9)], 1));
    eventually("the new address", || get(server.port(), "/").status == 502);
    names.set("a.test", Zone::A(vec![HOME], 1));
    eventually("the old address", || get(server.port(), "/").text() == "one");
    // Last good addresses stay when nobody answers, or the name is gone.
    for zone in [Zone::Silence, Zone::Failure] {
        names.set("a.test", zone);
        let before = names.times("a.test");
        eventually("another look-up", || names.times("a.test") >= before + 2);
        assert_eq!(get(server.port(), "/").text(), "one");
    }
    server.reload();
    eventually("it serves after a reload", || get(server.port(), "/").text() == "one");
}

#[test]
fn services_name_their_ports() {
    let (one, other) = (says("one"), says("other"));
    let names = NameServer::start(&[("x.test", Zone::A(vec![HOME], 60))]);
    names.set(
        "_http._tcp.web.test",
        Zone::Srv(vec![(1, 1, one.port(), "x.test"), (1, 1, other.port(), "x.test"), (5, 1, 1, "x.test")]),
    );
    let server = Server::start(&format!(
        "resolver 127.0.0.1:{} ipv6=off; upstream web {{ zone web 64k; server web.test service=http resolve; }}
         server {{ listen {{port}}; location / {{ proxy_pass http://web; }} }}",
        names.port
    ));
    eventually("both services", || {
        let said: std::collections::BTreeSet<String> =
            (0..6).map(|_| get(server.port(), "/").text()).collect();
        said.iter().map(String::as_str).eq(["one", "other"])
    });
}

#[test]
fn one_of_several_name_servers_is_enough() {
    let upstream = says("found");
    let dead = NameServer::start(&[("a.test", Zone::Silence)]);
    let names = NameServer::start(&[("a.test", Zone::A(vec![HOME], 60))]);
    let server = Server::start(&format!(
        "resolver 127.0.0.1:{} 127.0.0.1:{} ipv6=off; server {{ listen {{port}}; location / {{ proxy_pass http://$http_x_name:{}; }} }}",
        dead.port,
        names.port,
        upstream.port()
    ));
    assert_eq!(request(server.port(), "GET", "/", &[("X-Name", "a.test")]).text(), "found");
}

#[test]
fn without_a_resolver_the_system_s_is_asked() {
    let upstream = says("found");
    let server = Server::start(&format!(
        "server {{ listen {{port}}; location / {{ proxy_pass http://localhost:{0}; }}
         location /none {{ proxy_pass http://no-such-host.invalid:{0}; }} }}",
        upstream.port()
    ));
    eventually("localhost", || get(server.port(), "/").text() == "found");
    assert_eq!(get(server.port(), "/none").status, 502);
    assert!(!server.error_log().contains("emerg"), "{}", server.error_log());
    std::thread::sleep(Duration::from_millis(10));
}
