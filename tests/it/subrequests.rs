//! Requests that requests make: `auth_request`, `forward_auth`, `mirror`, `post_action`, `addition`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::util::{Cases, Client, Nginx, Server, Upstream, eventually, get, nginx, request, subject_is_ours};

/// Heads and bodies of requests.
type Seen = Mutex<Vec<(String, Vec<u8>)>>;

/// An upstream that answers everything with 200 and keeps what it was asked.
fn witness() -> (Upstream, Arc<Seen>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&seen);
    let upstream = Upstream::http(move |head, body| {
        list.lock().unwrap().push((head.to_owned(), body.to_vec()));
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()
    });
    (upstream, seen)
}

fn wait_for(seen: &Seen, start: &str) -> (String, Vec<u8>) {
    eventually(start, || seen.lock().unwrap().iter().any(|(head, _)| head.starts_with(start)));
    seen.lock().unwrap().iter().find(|(head, _)| head.starts_with(start)).cloned().unwrap()
}

#[test]
fn auth_request_decides_as_in_nginx() {
    Cases::new(
        "server { listen {port}; root {root}/html; error_page 401 /login.html;
         location / { auth_request /leave/200; }
         location /two-oh-four { alias {root}/html/a.html; auth_request /leave/204; }
         location /forbidden { auth_request /leave/403; }
         location /unknown { auth_request /leave/401; }
         location /odd { auth_request /leave/302; }
         location /broken { auth_request /leave/500; }
         location /missing { auth_request /leave/404; }
         location /off { auth_request off; alias {root}/html/a.html; }
         location /any { satisfy any; deny all; auth_request /leave/200; alias {root}/html/a.html; }
         location /both { satisfy all; allow all; auth_request /leave/403; alias {root}/html/a.html; }
         location = /login.html { auth_request off; }
         location /leave/200 { return 200 body; } location /leave/204 { return 204; }
         location /leave/403 { return 403; } location /leave/302 { return 302 /x; }
         location /leave/500 { return 500; } location /leave/404 { return 404; }
         location /leave/401 { add_header WWW-Authenticate 'Basic realm=\"sub\"' always; return 401; } }",
    )
    .show(&["www-authenticate"])
    .ignore("etag")
    .file("html/a.html", "a")
    .file("html/login.html", "log in")
    .get("/a.html", "200 a")
    .get("/two-oh-four", "200 a")
    .get("/off", "200 a")
    .get("/any", "200 a")
    .ignore_bodies()
    .get("/forbidden", "403")
    .get("/odd", "500")
    .get("/broken", "500")
    .get("/missing", "500")
    .get("/both", "403")
    .check();
}

#[test]
fn what_the_subrequest_says_reaches_variables_and_the_401() {
    let upstream = Upstream::http(|head, _| {
        let status = if head.contains("X-Deny") { "401 Unauthorized" } else { "200 OK" };
        format!("HTTP/1.1 {status}\r\nX-User: bob\r\nWWW-Authenticate: Basic realm=\"q\"\r\nContent-Length: 4\r\n\r\nbody")
            .into_bytes()
    });
    let server = Server::start(&format!(
        "server {{ listen {{port}}; location / {{ auth_request /ask; auth_request_set $who $upstream_http_x_user;
            auth_request_set $said $upstream_status; try_files /none @answer; }}
            location @answer {{ auth_request off; return 200 '$who $said'; }}
            location /ask {{ internal; proxy_pass http://127.0.0.1:{}; proxy_pass_request_body off; }} }}",
        upstream.port()
    ));
    for _ in 0..3 {
        assert_eq!(get(server.port(), "/x").text(), "bob 200");
    }
    assert_eq!(upstream.accepted(), 1, "the connection is kept");
    let refused = request(server.port(), "GET", "/x", &[("X-Deny", "1")]);
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Basic realm=\"q\"")));
    // A body is not sent along, and the next request on the connection is read where it begins.
    let mut client = Client::connect(server.port());
    client.send(
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET /y HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert_eq!(
        (client.read_response().text(), client.read_response().text()),
        ("bob 200".into(), "bob 200".into())
    );
}

#[test]
fn a_location_may_ask_leave_of_itself() {
    // Subrequests are not asked who may.
    let server = Server::start("server { listen {port}; root {root}; location / { auth_request /a.txt; } }");
    server.write("a.txt", "a");
    assert_eq!(get(server.port(), "/a.txt").text(), "a");
}

#[test]
fn copies_go_out_with_the_body_and_nobody_waits_for_them() {
    let (copies, seen) = witness();
    let silent = Upstream::start(|mut peer| {
        peer.read_request();
        std::thread::sleep(Duration::from_secs(20));
    });
    let server = Server::start(&format!(
        "client_body_buffer_size 1k; server {{ listen {{port}};
         location / {{ mirror /copy; mirror /silent; return 200 never; }}
         location /real {{ mirror /copy; mirror /silent; mirror /nowhere; proxy_pass http://127.0.0.1:{copies}/real; }}
         location /bare {{ mirror /copy; mirror_request_body off; proxy_pass http://127.0.0.1:{copies}/real; }}
         location = /copy {{ internal; proxy_pass http://127.0.0.1:{copies}/copy$request_uri; }}
         location = /nowhere {{ internal; proxy_pass http://127.0.0.1:1; }}
         location = /silent {{ internal; proxy_pass http://127.0.0.1:{silent}; }} }}",
        copies = copies.port(),
        silent = silent.port()
    ));
    let body = "x".repeat(10_000);
    let mut client = Client::connect(server.port());
    client.send(format!(
        "POST /real?a=1 HTTP/1.1\r\nHost: a\r\nX-Own: 1\r\nContent-Length: 10000\r\n\r\n{body}"
    ));
    assert_eq!(client.read_response().text(), "ok");
    let (head, copied) = wait_for(&seen, "POST /copy/real?a=1 ");
    assert!(head.contains("X-Own: 1"), "{head}");
    assert!(copied == body.as_bytes());
    client.send("POST /bare HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(client.read_response().text(), "ok");
    let (_, copied) = wait_for(&seen, "POST /copy/bare ");
    assert_eq!(copied, b"");
    assert!(!server.access_log().contains("/copy"), "subrequests are not logged");
}

#[test]
fn forward_auth_passes_answers_and_fields() {
    let service = Upstream::http(|head, _| {
        let answer = match head {
            head if head.contains("X-Want: 302") => {
                "302 Found\r\nLocation: https://login.example/\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n"
            }
            head if head.contains("X-Want: 401") => {
                "401 Unauthorized\r\nContent-Type: text/x\r\nContent-Length: 6\r\n\r\nlog in"
            }
            head if head.contains("X-Want: 503") => "503 Busy\r\nContent-Length: 0\r\n\r\n",
            _ => "200 OK\r\nX-User: bob\r\nContent-Length: 2\r\n\r\nok",
        };
        format!("HTTP/1.1 {answer}").into_bytes()
    });
    let (real, seen) = witness();
    let server = Server::start(&format!(
        "server {{ listen {{port}}; location / {{ forward_auth http://127.0.0.1:{}/verify?x=1 copy=X-User,X-Group;
            proxy_pass http://127.0.0.1:{}; }} }}",
        service.port(),
        real.port()
    ));
    let mut client = Client::connect(server.port());
    client.send("POST /deep/path?q HTTP/1.1\r\nHost: site\r\nX-User: evil\r\nX-Group: evil\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(client.read_response().text(), "ok");
    let (head, body) = wait_for(&seen, "POST /deep/path?q ");
    assert!(head.contains("X-User: bob") && !head.contains("evil"), "{head}");
    assert_eq!(body, b"abc");
    let asked = |want: &str| request(server.port(), "GET", "/", &[("X-Want", want)]);
    let moved = asked("302");
    assert_eq!((moved.status, moved.header("location")), (302, Some("https://login.example/")));
    assert_eq!(moved.header("set-cookie"), Some("a=b"));
    let refused = asked("401");
    assert_eq!((refused.status, refused.text().as_str()), (401, "log in"));
    assert_eq!(refused.header("content-type"), Some("text/x"));
    assert_eq!(asked("503").status, 500);
}

#[test]
fn post_action_sees_what_became_of_the_request() {
    let (upstream, seen) = witness();
    let server = Server::start(&format!(
        "server {{ listen {{port}}; location / {{ return 200 hello; post_action @after; }}
         location @after {{ proxy_pass http://127.0.0.1:{}/after?s=$status&b=$body_bytes_sent&u=$request_uri; }} }}",
        upstream.port()
    ));
    let mut client = Client::connect(server.port());
    for _ in 0..2 {
        client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_response().text(), "hello");
    }
    wait_for(&seen, "GET /after?s=200&b=5&u=/x ");
    eventually("one line a request", || server.access_log().matches("\n").count() == 2);
}

#[test]
fn additions_are_where_nginx_has_them() {
    Cases::new(
        "types { text/html html; text/plain txt; } server { listen {port}; root {root}/html;
         location / { add_before_body /add/before; add_after_body /add/big.bin; }
         location /one/ { alias {root}/html/; add_after_body /add/uri; }
         location /missing/ { alias {root}/html/; add_before_body /add/none; }
         location /types/ { alias {root}/html/; addition_types text/plain; add_before_body /add/before; }
         location /add/ { alias {root}/html/; }
         location = /add/before { return 200 before:; }
         location = /add/uri { return 200 '$uri $request_uri $request_method'; } }",
    )
    .show(&["content-length"])
    .ignore("transfer-encoding")
    .ignore("etag")
    .ignore("last-modified")
    .file("html/a.html", "page")
    .file("html/a.txt", "text")
    .file("html/big.bin", "x".repeat(200_000))
    .get("/one/a.html", "200 page/add/uri /one/a.html GET")
    .get("/one/a.txt", "200 text [content-length: 4]")
    .get("/types/a.txt", "200 before:text")
    .get("/a.html", &format!("200 before:page{}", "x".repeat(200_000)))
    .check();
}

#[test]
fn parts_come_in_order_whichever_is_first() {
    let slow = Upstream::http(|_, _| {
        std::thread::sleep(Duration::from_millis(300));
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nslow:".to_vec()
    });
    let server = Server::start(&format!(
        "types {{ text/html html; }} gzip on; gzip_min_length 0; server {{ listen {{port}}; root {{root}};
         location / {{ add_before_body /slow; add_after_body /quick; }}
         location /slow {{ proxy_pass http://127.0.0.1:{}; }} location /quick {{ return 200 :quick; }} }}",
        slow.port()
    ));
    server.write("a.html", "y".repeat(300_000));
    let expected = format!("slow:{}:quick", "y".repeat(300_000));
    let clients: Vec<_> = (0..5).map(|_| server.port()).collect();
    let threads = clients.into_iter().map(|port| std::thread::spawn(move || get(port, "/a.html").text()));
    for thread in threads.collect::<Vec<_>>() {
        assert!(thread.join().unwrap() == expected);
    }
    // A client that goes away takes its subrequests along.
    let mut client = Client::connect(server.port());
    client.send("GET /a.html HTTP/1.1\r\nHost: a\r\n\r\n");
    client.reset();
    assert!(get(server.port(), "/a.html").text() == expected);
}

/// What the upstream of a server was asked, and what its log says of the subrequests, in order of the alphabet.
fn asked_and_logged(start: impl Fn(&str) -> Server) -> (Vec<String>, Vec<String>) {
    let (upstream, seen) = witness();
    let at = format!("http://127.0.0.1:{}", upstream.port());
    let server = start(&format!(
        "types {{ text/html html; }} log_format f '$uri $request_uri $args $request_method $status';
         access_log {{root}}/access.log f; proxy_http_version 1.1; proxy_set_header Connection ''; proxy_set_header Host site;
         server {{ listen {{port}}; root {{root}}; log_subrequest on; error_page 401 = @login;
         location /mirrored {{ mirror /copy; proxy_pass {at}; }}
         location /bare {{ mirror /bodiless; mirror_request_body off; proxy_pass {at}; }}
         location = /bodiless {{ internal; proxy_pass {at}/copied$request_uri; proxy_pass_request_body off; proxy_set_header Content-Length ''; }}
         location /unmirrored {{ mirror off; proxy_pass {at}; }}
         location = /copy {{ internal; proxy_pass {at}/copied$request_uri; }}
         location /asked {{ auth_request /leave; auth_request_set $who $upstream_http_x_user; proxy_set_header X-Who \"[$who]\"; proxy_pass {at}; }}
         location /leave {{ internal; proxy_pass {at}; proxy_pass_request_body off; proxy_set_header Content-Length ''; }}
         location /after {{ post_action @done; proxy_pass {at}; }}
         location @done {{ proxy_pass {at}/done?$status&$request_uri; }}
         location = /page.html {{ ssi on; add_after_body /part/end; }} location /part {{ return 200 part; }} }}"
    ));
    server.write("page.html", "<<!--#include virtual=\"/part?one\" --><!--#include virtual=\"/none\" -->>");
    let mut lines = 0;
    for (line, body, count) in [
        ("POST /mirrored?q=1", "hello", 2),
        ("GET /mirrored?q=2", "", 2),
        ("POST /bare", "hello", 2),
        ("GET /unmirrored", "", 1),
        ("POST /asked?x=7", "hello", 2),
        ("GET /after?y", "", 1),
        ("GET /page.html?z", "", 4),
    ] {
        let mut client = Client::connect(server.port());
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        client.send(format!("{line} HTTP/1.1\r\nHost: site\r\n{length}\r\n{body}"));
        client.read_response();
        lines += count;
        eventually(line, || server.access_log().lines().count() >= lines);
    }
    wait_for(&seen, "GET /done?200&/after?y ");
    let mut asked: Vec<String> = Vec::new();
    for (head, body) in seen.lock().unwrap().iter() {
        let head = head.to_ascii_lowercase();
        let mut lines: Vec<&str> = head.trim_end().split("\r\n").collect();
        lines[1..].sort_unstable();
        let is_shown = |line: &&str| {
            !["host:", "connection:", "content-length: 0"].iter().any(|start| line.starts_with(start))
        };
        let lines: Vec<&str> = lines.into_iter().filter(is_shown).collect();
        asked.push(format!("{} {}", lines.join("|"), body.escape_ascii()));
    }
    asked.sort();
    let mut logged: Vec<String> = server.access_log().lines().map(str::to_owned).collect();
    logged.sort();
    (asked, logged)
}

#[test]
fn upstreams_are_asked_and_subrequests_logged_as_with_nginx() {
    let (asked, logged) = asked_and_logged(Server::start);
    assert!(
        asked.iter().any(|text| text.starts_with("post /copied/mirrored?q=1 ") && text.ends_with("hello")),
        "{asked:#?}"
    );
    assert!(logged.iter().any(|line| line.starts_with("/part /page.html?z one GET 200")), "{logged:#?}");
    if nginx::available() && subject_is_ours() {
        let (asked_by_nginx, logged_by_nginx) = asked_and_logged(Nginx::start);
        assert_eq!(asked, asked_by_nginx);
        assert_eq!(logged, logged_by_nginx);
    }
}
