//! `limit_req`: shared by workers, kept over reloads, and delays that hold nobody else.

use crate::util::{Cases, Client, Server, eventually, get, request};
use std::time::{Duration, Instant};

#[test]
fn what_is_above_the_rate_is_refused_as_with_nginx() {
    Cases::new(
        "limit_req_zone $arg_k zone=slow:1m rate=1r/m; limit_req_zone $arg_o zone=other:1m rate=1r/m;
         server { listen {port}; root {root}; add_header X $limit_req_status always;
           location / { limit_req zone=slow; limit_req zone=other burst=2 nodelay; limit_req_status 429; }
           location /dry/ { limit_req zone=slow; limit_req_dry_run on; } }",
    )
    .file("f", "file")
    .file("dry/f", "dry")
    .ignore("retry-after")
    .show(&["x"])
    .get("/f?k=a&o=a", "200 file [x: PASSED]")
    .get("/f?k=a&o=b", "429 [x: REJECTED]")
    .get("/f?k=b&o=a", "200 file [x: PASSED]")
    .get("/f?k=c&o=a", "200 file [x: PASSED]")
    .get("/f?k=d&o=a", "429 [x: REJECTED]")
    .get("/f?k=d", "200 file [x: PASSED]")
    .get("/f", "200 file")
    .get("/dry/f?k=a", "200 dry [x: REJECTED_DRY_RUN]")
    .get("/dry/f?k=new", "200 dry [x: PASSED]")
    .check();
}

#[test]
fn a_refusal_says_when_to_come_again_and_is_logged() {
    let server = Server::start(
        "limit_req_zone $binary_remote_addr zone=z:1m rate=1r/m; limit_req zone=z;
         server { listen {port}; root {root}; }",
    );
    assert_eq!(get(server.port(), "/").status, 403);
    let refused = get(server.port(), "/");
    assert_eq!(refused.status, 503);
    let seconds: u64 = refused.header("retry-after").expect("a time").parse().expect("seconds");
    assert!((1..=63).contains(&seconds), "{seconds}");
    eventually("a line in the log", || {
        let log = server.error_log();
        log.contains("[error]")
            && log.contains("limiting requests, excess: ")
            && log.contains("by zone \"z\"")
    });
}

#[test]
fn a_delayed_request_waits_and_others_do_not() {
    let server = Server::start(
        "limit_req_zone $arg_k zone=z:1m rate=2r/s;
         server { listen {port}; root {root}; add_header X $limit_req_status always; limit_req zone=z burst=5; }",
    );
    server.write("f", "file");
    let began = Instant::now();
    let mut client = Client::connect(server.port());
    // The third one in the pipe waits behind the second.
    client.send("GET /f?k=a HTTP/1.1\r\nHost: a\r\n\r\nGET /f?k=a HTTP/1.1\r\nHost: a\r\n\r\nGET /f?k=b HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response().header("x"), Some("PASSED"));
    assert_eq!(get(server.port(), "/f?k=c").header("x"), Some("PASSED"));
    assert_eq!(client.read_response().header("x"), Some("DELAYED"));
    assert!(began.elapsed() >= Duration::from_millis(400), "it waited for {:?}", began.elapsed());
    assert_eq!(client.read_response().header("x"), Some("PASSED"));
}

#[test]
fn a_client_that_leaves_while_it_is_delayed_is_forgotten() {
    let server = Server::start(
        "limit_req_zone $binary_remote_addr zone=z:1m rate=1r/m; log_format f '$status $uri';
         access_log {root}/access.log f;
         server { listen {port}; root {root}; location /f { limit_req zone=z burst=5; } location /status { stub_status; } }",
    );
    server.write("f", "file");
    assert_eq!(get(server.port(), "/f").status, 200);
    let mut client = Client::connect(server.port());
    client.send("GET /f HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("a request that waits", || get(server.port(), "/status").text().contains("Writing: 2"));
    drop(client);
    eventually("it is gone", || get(server.port(), "/status").text().contains("Active connections: 1 "));
    eventually("it is logged", || server.access_log().contains("499 /f"));
}

#[test]
fn accounts_are_shared_by_workers_and_outlive_a_reload() {
    let text = |note: &str, rate: &str| {
        format!(
            "worker_processes 2; http {{ limit_req_zone $arg_k zone=z:1m rate={rate};
             server {{ listen {{port}}; root {{root}}; add_header X-Note {note}; limit_req zone=z burst=3 nodelay; }} }}"
        )
    };
    let server = Server::start(&text("first", "1r/m"));
    server.write("f", "file");
    let statuses: Vec<u16> = (0..8).map(|_| get(server.port(), "/f?k=a").status).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 503, 503, 503, 503]);
    server.configure(&text("second", "2r/m"));
    server.reload();
    eventually("the new configuration", || get(server.port(), "/f").header("x-note") == Some("second"));
    assert_eq!(get(server.port(), "/f?k=a").status, 503);
    assert_eq!(get(server.port(), "/f?k=b").status, 200);
    let response = request(server.port(), "HEAD", "/f?k=a", &[]);
    assert_eq!(response.status, 503);
}

#[test]
fn a_key_of_the_client_s_choice_is_warned_of() {
    let output = Server::builder("http {\n limit_req_zone $http_x zone=a:1m rate=1r/s;\n}").run(&["-t"]);
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    assert!(output.stderr.contains("which a client chooses freely"), "{}", output.stderr);
}
