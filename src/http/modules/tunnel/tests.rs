use crate::http::testing::{World, complaints};
use crate::http::upstream_call::{PassAddress, Protocol, Target};

const CONNECT: &str = "CONNECT Example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n";

#[test]
fn a_tunnel_goes_where_the_client_asks() {
    for config in ["tunnel_pass;", "location / { tunnel_pass; }", "location / { tunnel_pass $host:$request_port; }"]
    {
        let mut world = World::new(&format!("server {{ {config} }}"));
        let reply = world.upstream("").send(CONNECT);
        let call = &world.calls[0].call;
        let expected =
            PassAddress::Host { host: b"example.org"[..].into(), port: Some(443), default_port: 0 };
        assert_eq!((&call.target, call.protocol), (&Target::Computed(expected), Protocol::Raw), "{config}");
        assert_eq!((reply.status, &*world.calls[0].head), (200, ""));
        for name in ["content-length", "transfer-encoding", "connection", "content-type"] {
            assert!(!reply.has(name), "{}", reply.head);
        }
    }
}

#[test]
fn other_methods_and_other_servers_are_refused() {
    let mut world = World::new("server { tunnel_pass 127.0.0.1:3128; }");
    assert_eq!(world.get("/").status, 405);
    let reply = World::new("server { location / { return 200; } }").send(CONNECT);
    assert_eq!(reply.status, 405);
    // A location of a server with tunnels is not one by itself.
    let mut world = World::new("server { tunnel_pass; location / { root /srv; } }");
    assert_eq!(world.send(CONNECT).status, 405);
    let body = CONNECT.replace("\r\n\r\n", "\r\nContent-Length: 1\r\n\r\nx");
    assert_eq!(World::new("server { tunnel_pass; }").send(&body).status, 400);
}

#[test]
fn what_fails_has_an_error_page() {
    let mut world = World::new("server { tunnel_pass; }");
    assert_eq!(world.upstream_fails("connect_timeout", 504).send(CONNECT).status, 504);
}

#[test]
fn addresses_need_a_port() {
    let told = complaints("server { tunnel_pass 127.0.0.1; }");
    assert_eq!(told, ["[emerg] no port in upstream \"127.0.0.1\""]);
    let told = complaints("server { tunnel_next_upstream http_500; }");
    assert_eq!(told, ["[emerg] invalid value \"http_500\""]);
}
