//! CONNECT, and what comes through.

use super::util::{Client, Reserved, Server, Upstream, subject_is_ours};

fn connect(server: &Server, target: &str) -> Client {
    let mut client = Client::connect(server.port());
    client.send(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"));
    client
}

/// An address that says `hello`, then everything back with a `<` in front.
fn echo() -> Upstream {
    Upstream::start(|mut peer| {
        peer.send("hello");
        while let bytes = peer.read_some()
            && !bytes.is_empty()
        {
            peer.send([b"<", &bytes[..]].concat());
        }
    })
}

#[test]
fn bytes_pass_both_ways_untouched() {
    // nginx 1.22 has no tunnels.
    if !subject_is_ours() {
        return;
    }
    let address = echo();
    let server = Server::start(&format!(
        "server {{ listen {{port}}; location / {{ tunnel_pass 127.0.0.1:{}; }} }}",
        address.port()
    ));
    let mut client = connect(&server, "example.org:443");
    let head = b"HTTP/1.1 200 OK\r\n";
    assert_eq!(client.read_exactly(head.len()), head);
    let mut rest = Vec::new();
    while !rest.ends_with(b"\r\n\r\n") {
        rest.extend(client.read_exactly(1));
    }
    let rest = String::from_utf8_lossy(&rest).to_ascii_lowercase();
    for name in ["content-length", "transfer-encoding", "connection"] {
        assert!(!rest.contains(name), "{rest}");
    }
    assert_eq!(client.read_exactly(5), b"hello");
    client.send(b"GET / HTTP/1.1\r\n\r\n\0\xff");
    assert_eq!(client.read_exactly(21), b"<GET / HTTP/1.1\r\n\r\n\0\xff");
    client.finish_sending();
    client.expect_closed();
}

#[test]
fn what_is_no_tunnel_is_refused_and_closed() {
    if !subject_is_ours() {
        return;
    }
    let nobody = Reserved::new();
    let server = Server::start(&format!(
        "server {{ listen {{port}}; server_name plain; }} server {{ listen {{port}}; server_name t; \
         tunnel_pass 127.0.0.1:{}; }}",
        nobody.port()
    ));
    for (target, status) in [("plain:443", 405), ("t:443", 502)] {
        let mut client = Client::connect(server.port());
        // In one piece: what came after the close would take the answer along.
        client.send(format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: plain\r\n\r\n"
        ));
        let response = client.read_response();
        assert_eq!((response.status, response.header("connection")), (status, Some("close")), "{target}");
        client.expect_closed();
    }
}
