//! `limit_conn`: places that are given back when a request has ended.

use crate::util::{Client, Nginx, Server, eventually, get, nginx};

const TEXT: &str = "limit_conn_zone $server_port zone=z:1m; log_format f '$status $limit_conn_status';
    access_log {root}/access.log f;
    server { listen {port}; root {root}; add_header X $limit_conn_status always;
      location / { limit_conn z 2; set $limit_rate $arg_rate; }
      location /dry { limit_conn z 2; limit_conn_dry_run on; limit_conn_status 429; } }";

/// A request that is being served for as long as its connection lives.
fn hold(server: &Server) -> Client {
    let mut client = Client::connect(server.port());
    client.send("GET /f?rate=1 HTTP/1.1\r\nHost: a\r\n\r\n");
    client.read_some();
    client
}

fn places_are_limited(server: &Server) {
    server.write("f", "x".repeat(100_000));
    server.write("dry", "dry");
    let (one, two) = (hold(server), hold(server));
    let refused = get(server.port(), "/f");
    assert_eq!((refused.status, refused.header("x")), (503, Some("REJECTED")));
    let dry = get(server.port(), "/dry");
    assert_eq!((dry.status, dry.header("x")), (200, Some("REJECTED_DRY_RUN")));
    drop(one);
    eventually("a free place", || get(server.port(), "/dry").header("x") == Some("PASSED"));
    drop(two);
    eventually("lines in the error log", || {
        let log = server.error_log();
        log.contains("limiting connections by zone \"z\"")
            && log.contains("limiting connections, dry run, by zone \"z\"")
    });
    eventually("the log's lines", || server.access_log().lines().any(|line| line == "503 REJECTED"));
}

#[test]
fn a_place_is_given_back_when_its_connection_ends() {
    places_are_limited(&Server::start(TEXT));
    if nginx::available() {
        places_are_limited(&Nginx::start(TEXT));
    }
}

#[test]
fn requests_of_one_connection_take_one_place_after_the_other() {
    let server = Server::start(
        "limit_conn_zone $binary_remote_addr zone=z:1m; server { listen {port}; root {root}; limit_conn z 1; }",
    );
    server.write("f", "file");
    let mut client = Client::connect(server.port());
    for _ in 0..5 {
        client.send("GET /f HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_response().status, 200);
    }
    // An idle connection takes none.
    assert_eq!(get(server.port(), "/f").status, 200);
}

#[test]
fn places_outlive_a_reload() {
    let text = "limit_conn_zone $server_port zone=z:1m;
        server { listen {port}; root {root}; location /f { limit_conn z 1; set $limit_rate $arg_rate; } location /n { return 200 NOTE; } }";
    let server = Server::start(text);
    server.write("f", "x".repeat(100_000));
    let held = hold(&server);
    server.configure(&text.replace("NOTE", "second"));
    server.reload();
    eventually("the new configuration", || get(server.port(), "/n").text() == "second");
    let refused = get(server.port(), "/f");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    drop(held);
    eventually("a free place", || {
        let mut client = Client::connect(server.port());
        client.send("HEAD /f HTTP/1.1\r\nHost: a\r\n\r\n");
        client.read_head_response().status == 200
    });
}
