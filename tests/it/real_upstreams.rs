//! Real applications behind the proxy: a WSGI application under gunicorn, and a Node server with its idle limit of five
//! seconds. Where one of the programs is missing, its tests say so and pass.

use crate::util::{Client, Server, get, request};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const WSGI: &str = r#"
import time

def app(environ, start_response):
    path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
    if path == "/large":
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return (b"x" * 65536 for _ in range(80))
    if path == "/events":
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        def events():
            yield b"data: first\n\n"
            time.sleep(20)
            yield b"data: last\n\n"
        return events()
    body = environ["wsgi.input"].read()
    text = f"{method} {path} {len(body)} {environ['HTTP_HOST']}".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
    return [text]
"#;

const NODE: &str = r#"
const http = require("http");
const server = http.createServer((request, response) => {
  let length = 0;
  request.on("data", (part) => { length += part.length; });
  request.on("end", () => { response.end(`${request.method} ${request.url} ${length}`); });
});
server.on("upgrade", (request, socket) => {
  socket.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n");
  socket.pipe(socket);
});
server.listen(Number(process.argv[2]), "127.0.0.1");
"#;

/// A program that is ended with the test.
struct Application {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Application {
    /// Starts `program` on a free port with `file` in its folder; `None` if it is not installed.
    fn start(
        program: &str,
        file: (&str, &str),
        arguments: impl Fn(u16, &Path) -> Vec<String>,
    ) -> Option<Application> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join(file.0), file.1).expect("the application's text");
        let port =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind").local_addr().expect("address").port();
        let child = Command::new(program)
            .args(arguments(port, folder.path()))
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            eprintln!("{program} is not installed: nothing was tested");
            return None;
        };
        let application = Application { child, port, _folder: folder };
        let begun = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "{program} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(application)
    }

    fn gunicorn() -> Option<Application> {
        Application::start("gunicorn", ("app.py", WSGI), |port, _| {
            let address = format!("127.0.0.1:{port}");
            ["-b", &address, "-w", "1", "--threads", "8", "--keep-alive", "2", "app:app"]
                .map(str::to_owned)
                .to_vec()
        })
    }

    fn node() -> Option<Application> {
        Application::start("node", ("server.js", NODE), |port, folder| {
            vec![folder.join("server.js").display().to_string(), port.to_string()]
        })
    }

    /// A proxy in front of it.
    fn proxy(&self) -> Server {
        Server::start(&format!(
            "client_max_body_size 0; server {{ listen {{port}}; location / {{ proxy_pass http://127.0.0.1:{0}; }}
             location /streamed {{ proxy_pass http://127.0.0.1:{0}; proxy_request_buffering off; }} }}",
            self.port
        ))
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        // gunicorn ends its workers when it is asked to.
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

#[test]
fn a_wsgi_application_is_passed_requests_of_every_kind() {
    let Some(application) = Application::gunicorn() else { return };
    let server = application.proxy();
    let host = format!("127.0.0.1:{}", application.port);
    for _ in 0..3 {
        assert_eq!(get(server.port(), "/a").text(), format!("GET /a 0 {host}"));
    }
    let mut client = Client::connect(server.port());
    for path in ["/b", "/streamed"] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
        let posted = client.send(head).send([b'y'; 100_000]).read_response();
        assert_eq!(posted.text(), format!("POST {path} 100000 {host}"));
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        let chunked = client.send(head).send("5\r\nhello\r\n3\r\nyou\r\n0\r\n\r\n").read_response();
        assert_eq!(chunked.text(), format!("POST {path} 8 {host}"));
    }
    let large = get(server.port(), "/large");
    assert_eq!((large.status, large.body.len()), (200, 80 * 65536));
    let head = request(server.port(), "HEAD", "/a", &[]);
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn the_first_event_of_a_wsgi_application_does_not_wait_for_the_second() {
    let Some(application) = Application::gunicorn() else { return };
    let server = application.proxy();
    let mut client = Client::connect(server.port());
    client.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
    let begun = Instant::now();
    let mut came = Vec::new();
    while memchr::memmem::find(&came, b"data: first").is_none() {
        came.extend(client.read_some());
    }
    // The second comes after twenty seconds: this is no measurement.
    assert!(begun.elapsed() < Duration::from_secs(15));
}

#[test]
fn around_a_node_server_s_idle_limit_no_request_fails() {
    let Some(application) = Application::node() else { return };
    let server = application.proxy();
    let port = server.port();
    let clients: Vec<_> = (0..30u64)
        .map(|number| {
            std::thread::spawn(move || {
                let mut client = Client::connect(port);
                let body = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
                assert_eq!(client.send(body).read_response().text(), "POST /x 3");
                // From a little before five seconds to a little after.
                std::thread::sleep(Duration::from_millis(4850 + number * 10));
                match number % 2 {
                    0 => assert_eq!(client.send(body).read_response().text(), "POST /x 3"),
                    _ => {
                        let get = client.send("GET /y HTTP/1.1\r\nHost: a\r\n\r\n").read_response();
                        assert_eq!(get.text(), "GET /y 0");
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.join().expect("every request is answered");
    }
}

#[test]
fn an_upgrade_reaches_a_node_server() {
    let Some(application) = Application::node() else { return };
    let server = application.proxy();
    let mut client = Client::connect(server.port());
    client.send("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n");
    assert_eq!(client.read_interim().status, 101);
    for round in 0..10 {
        let text = format!("round {round}");
        assert_eq!(client.send(&text).read_exactly(text.len()), text.as_bytes());
    }
}
