//! What the shell does for a proxied request besides passing it on: stored copies, Unix sockets, addresses of its own.

use crate::util::{Server, Upstream, eventually, get};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

#[test]
fn a_stored_response_is_a_file_once_it_is_complete() {
    let upstream = Upstream::http(|head, _| {
        match head.split(' ').nth(1) {
        Some("/kept/a.txt") => {
            b"HTTP/1.1 200 OK\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Length: 5\r\n\r\nhello".to_vec()
        }
        Some("/kept/long") => {
            let mut response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            for _ in 0..50 {
                response.extend_from_slice(b"1000\r\n");
                response.extend_from_slice(&[b'x'; 0x1000]);
                response.extend_from_slice(b"\r\n");
            }
            response.extend_from_slice(b"0\r\n\r\n");
            response
        }
        _ => b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone".to_vec(),
    }
    });
    let server = Server::start(&format!(
        "server {{ listen {{port}}; root {{root}}/html; proxy_temp_path {{root}}/temporary;
           location /kept/ {{ proxy_pass http://127.0.0.1:{0}; proxy_store on; proxy_store_access user:rw group:rw all:r; }}
           location /named/ {{ proxy_pass http://127.0.0.1:{0}/kept/; proxy_store {{root}}/stored$uri; }} }}",
        upstream.port()
    ));
    assert_eq!(get(server.port(), "/kept/a.txt").text(), "hello");
    let path = server.path("html/kept/a.txt");
    eventually("the copy has its name", || path.exists());
    assert_eq!(std::fs::read(&path).expect("the copy"), b"hello");
    let metadata = std::fs::metadata(&path).expect("the copy");
    assert_eq!(metadata.permissions().mode() & 0o777, 0o664);
    let modified =
        metadata.modified().expect("a time").duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    assert_eq!(modified.as_secs(), 1_767_225_600);
    assert_eq!(get(server.port(), "/kept/long").body.len(), 50 * 0x1000);
    let long = server.path("html/kept/long");
    eventually("the long copy has its name", || long.exists());
    assert_eq!(std::fs::metadata(&long).expect("the copy").len(), 50 * 0x1000);
    assert_eq!(get(server.port(), "/named/a.txt").text(), "hello");
    eventually("the copy has the name that was asked for", || server.path("stored/named/a.txt").exists());
    assert_eq!(get(server.port(), "/kept/missing").status, 404);
    let left = || std::fs::read_dir(server.path("temporary")).map_or(0, |entries| entries.count());
    eventually("no temporary file is left", || left() == 0);
    assert!(!server.path("html/kept/missing").exists(), "only a 200 is kept");
}

#[test]
fn half_a_response_is_not_stored() {
    let upstream = Upstream::start(|mut peer| {
        peer.read_request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    });
    let server = Server::start(&format!(
        "server {{ listen {{port}}; root {{root}}/html; proxy_temp_path {{root}}/temporary;
           location / {{ proxy_pass http://127.0.0.1:{}; proxy_store on; }} }}",
        upstream.port()
    ));
    let mut client = crate::util::Client::connect(server.port());
    client.send("GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").read_to_end();
    let left = || std::fs::read_dir(server.path("temporary")).map_or(0, |entries| entries.count());
    eventually("no temporary file is left", || left() == 0);
    assert!(!server.path("html/a").exists());
}

#[test]
fn an_upstream_may_listen_on_a_unix_socket() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("app.sock");
    let listener = UnixListener::bind(&path).expect("bind");
    // Workers that root started are somebody else.
    for (path, mode) in [(folder.path(), 0o755), (path.as_path(), 0o777)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("permissions");
    }
    let application = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut heads = Vec::new();
        for _ in 0..2 {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("a request");
                head.push(byte[0]);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nunix").expect("room");
            heads.push(String::from_utf8(head).expect("text"));
        }
        heads
    });
    let server = Server::start(&format!(
        "log_format u $upstream_addr; access_log {{root}}/u.log u;
         server {{ listen {{port}}; location / {{ proxy_pass http://unix:{}:/app/; }} }}",
        path.display()
    ));
    assert_eq!(get(server.port(), "/x").text(), "unix");
    assert_eq!(get(server.port(), "/y").text(), "unix");
    let heads = application.join().expect("both requests came on one connection");
    assert!(heads[0].starts_with("GET /app/x HTTP/1.1\r\nHost: localhost\r\n"), "{}", heads[0]);
    eventually("the log names the socket", || {
        server.read("u.log").contains(&format!("unix:{}", path.display()))
    });
}

#[test]
fn connections_come_from_the_address_that_proxy_bind_names() {
    let upstream = Upstream::http(|_, _| b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec());
    let server = Server::start(&format!(
        "server {{ listen {{port}}; location / {{ proxy_pass http://127.0.0.1:{0}; proxy_bind 127.0.0.7; }} }}
         server {{ listen 127.0.0.1:{{port2}}; location / {{ return 200 $remote_addr; }} }}
         server {{ listen {{port3}}; location / {{ proxy_pass http://127.0.0.1:{{port2}}; proxy_bind 127.0.0.9; }}
                  location /v {{ set $from 127.0.0.11; proxy_pass http://127.0.0.1:{{port2}}; proxy_bind $from; }}
                  location /off {{ proxy_pass http://127.0.0.1:{{port2}}; proxy_bind off; }} }}",
        upstream.port()
    ));
    assert_eq!(get(server.port(), "/").text(), "ok");
    assert_eq!(get(server.port_of(3), "/").text(), "127.0.0.9");
    assert_eq!(get(server.port_of(3), "/v").text(), "127.0.0.11");
    assert_eq!(get(server.port_of(3), "/off").text(), "127.0.0.1");
}
