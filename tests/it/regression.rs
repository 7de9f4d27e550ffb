//! Bugs that were found, each held by what would have shown it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::util::Server;

const ANSWERS: &str = "server { listen {port}; location / { return 200 fine; } }";

/// A body that nobody wants breaks the rules of chunks: the refusal and the responses before it must leave, and a reset
/// must not overtake them.
#[test]
fn responses_arrive_although_the_body_behind_them_is_malformed() {
    let server = Server::start(ANSWERS);
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let post = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let more = "x".repeat(300_000);
    for (requests, count) in [(format!("{post}zz\r\n"), 1), (format!("{get}{get}{post}1\r\nab\r\n{more}"), 3)]
    {
        // Not the harness's client: to it a reset is a close like others.
        let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(requests.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("all of it, and no reset");
        // The request whose body is seen to be broken when it is served is refused; those before it are answered.
        assert_eq!(text.matches("HTTP/1.1 200 OK\r\n").count(), count - 1, "{text}");
        assert_eq!(text.matches("HTTP/1.1 400 Bad Request\r\n").count(), 1, "{text}");
    }
}
