//! `stub_status` and `$connections_*`.

use crate::util::{Client, Nginx, Server, eventually, get, nginx, request};

const TEXT: &str = "worker_processes 2; http { server { listen {port};
    location /status { stub_status; }
    location /old { stub_status on; }
    location /variables { return 200 \"$connections_active $connections_reading $connections_writing $connections_waiting\"; } } }";

/// All numbers of an answer, in order.
fn numbers(text: &str) -> Vec<u64> {
    let digits = text.split(|character: char| !character.is_ascii_digit());
    digits.filter(|part| !part.is_empty()).map(|part| part.parse().expect("a number")).collect()
}

#[test]
fn the_page_has_nginx_s_shape() {
    let shape = |server: &Server| {
        let response = get(server.port(), "/status");
        assert_eq!(response.header("content-type"), Some("text/plain"));
        let text = response.text();
        numbers(&text).iter().fold(text, |text, number| text.replacen(&number.to_string(), "N", 1))
    };
    let ours = shape(&Server::start(TEXT));
    assert_eq!(
        ours,
        "Active connections: N \nserver accepts handled requests\n N N N \nReading: N Writing: N Waiting: N \n"
    );
    if nginx::available() {
        assert_eq!(ours, shape(&Nginx::start(TEXT)));
    }
}

#[test]
fn connections_and_requests_of_all_workers_are_counted() {
    let server = Server::start(TEXT);
    let ask = || numbers(&get(server.port(), "/status").text());
    let before = ask();
    let mut idle: Vec<Client> = (0..10).map(|_| Client::connect(server.port())).collect();
    for client in &mut idle[..6] {
        client.send("GET /old HTTP/1.1\r\nHost: a\r\n\r\n");
        client.read_response();
    }
    idle[6].send("GET / HT");
    eventually("ten waiting or reading connections", || {
        let now = ask();
        // Active, reading, writing, waiting: the question itself is one that is written to.
        (now[0], now[4], now[5], now[6]) == (11, 1, 1, 9)
    });
    let after = ask();
    assert!(after[1] >= before[1] + 11 && after[1] == after[2], "{before:?} {after:?}");
    assert!(after[3] >= before[3] + 7, "{before:?} {after:?}");
    drop(idle);
    eventually("the connections are gone", || ask()[0] == 1);
}

#[test]
fn the_variables_say_the_same_and_other_methods_are_refused() {
    let server = Server::start(TEXT);
    eventually("one connection", || get(server.port(), "/variables").text() == "1 0 1 0");
    assert_eq!(request(server.port(), "POST", "/status", &[]).status, 405);
    assert_eq!(request(server.port(), "HEAD", "/status", &[]).status, 200);
}
