//! What upstreams receive and clients get, compared with nginx's where both should be the same.

use std::sync::{Arc, Mutex};

use super::util::{Cases, Client, Nginx, Parity, Response, Server, Upstream, nginx, subject_is_ours};

/// What both nginx 1.22 and 1.31 do alike once this is said: the defaults of 1.31.
const AS_131: &str =
    "proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Proxy-Connection \"\";";

/// An upstream that answers with `answer` and keeps what it was sent, head and body.
struct Recorder {
    upstream: Upstream,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    fn new(answer: &str) -> Recorder {
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let (kept, answer) = (requests.clone(), answer.as_bytes().to_vec());
        let upstream = Upstream::http(move |head, body| {
            let request = format!("{head}{}", String::from_utf8_lossy(body));
            kept.lock().expect("a lock").push(request);
            answer.clone()
        });
        Recorder { upstream, requests }
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.requests.lock().expect("a lock"))
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn ask(server: &Server, request: &str) -> Response {
    let mut client = Client::connect(server.port());
    client.send(request);
    client.response_to(request.split(' ').next().unwrap_or("GET")).expect("a response")
}

/// What upstreams receive of these requests under this configuration, `{up}` being the upstream's port: the same from
/// both servers.
#[track_caller]
fn same_requests(config: &str, requests: &[&str]) {
    let recorder = Recorder::new(OK);
    let config = format!("{AS_131} {config}").replace("{up}", &recorder.upstream.port().to_string());
    let ours = Server::start(&config);
    let theirs = nginx::available().then(|| Nginx::start(&config));
    for request in requests {
        let status = ask(&ours, request).status;
        let received = recorder.take();
        assert_eq!((status, received.len()), (200, 1), "{request:?}: {}", ours.error_log());
        if let Some(theirs) = &theirs {
            ask(theirs, request);
            assert_eq!(recorder.take(), received, "{config}\n{request}\nnginx (left), ours (right)");
        }
    }
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

#[test]
fn upstreams_receive_the_same_uri() {
    let targets = [
        "/a/",
        "/a/b%2Fc",
        "/a/b/../c//d?e=%41&f",
        "/a/%e4\u{e4}+%20?%20",
        "/a/x?",
        "/a/%23%3f%25",
        "/a/\"<>{}|^`\\",
        "http://other/a/x",
        "/a/x#fragment",
    ];
    let requests: Vec<String> = targets.iter().map(|target| get(target)).collect();
    let requests: Vec<&str> = requests.iter().map(String::as_str).collect();
    for location in [
        "location / { proxy_pass http://127.0.0.1:{up}; }",
        "location /a/ { proxy_pass http://127.0.0.1:{up}/; }",
        "location /a { proxy_pass http://127.0.0.1:{up}/b; }",
        "location /a/ { proxy_pass http://127.0.0.1:{up}/b?c=; }",
        "location / { rewrite ^/a/(.*)$ /c/$1 break; proxy_pass http://127.0.0.1:{up}; }",
        "location / { rewrite ^/a/(.*)$ /c/$1?n=1 break; proxy_pass http://127.0.0.1:{up}/b/; }",
        "location / { rewrite ^/a/(.*)$ /c/$1 last; } location /c/ { proxy_pass http://127.0.0.1:{up}/d/; }",
        "location ~ ^/a { proxy_pass http://127.0.0.1:{up}; }",
        "location / { try_files /none @up; } location @up { proxy_pass http://127.0.0.1:{up}; }",
        // The file that is found changes what $uri says, not what is asked for.
        "location / { root {root}; try_files /nginx.conf =404; proxy_pass http://127.0.0.1:{up}; }",
        "location /a/ { root {root}; try_files /nginx.conf =404; proxy_pass http://127.0.0.1:{up}/x/; }",
        "location / { error_page 403 = /e$uri; deny all; } location /e/ { proxy_pass http://127.0.0.1:{up}; }",
        "location / { set $args z=1; proxy_pass http://127.0.0.1:{up}; }",
        "location / { if ($request_method = GET) { proxy_pass http://127.0.0.1:{up}; } }",
    ] {
        same_requests(&format!("server {{ listen {{port}}; {location} }}"), &requests);
    }
}

#[test]
fn upstreams_receive_the_same_head_and_body() {
    let requests = [
        "GET / HTTP/1.1\r\nHost: localhost\r\nx-lower: 1\r\nX-Twice: a\r\nX-Empty:\r\nX-Twice: b\r\nAccept: */*\r\n\r\n",
        "GET / HTTP/1.0\r\nUser-Agent: old\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\nKeep-Alive: 5\r\nTE: trailers\r\nExpect: x\r\n\
         Proxy-Connection: close\r\nProxy-Authorization: Basic eA==\r\nCookie: a=1\r\nIf-None-Match: \"x\"\r\n\r\n",
        "HEAD /?x HTTP/1.1\r\nHost: LOCALHOST:80\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Type: t\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3\r\n123\r\n0\r\n\r\n",
        "DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "PURGE / HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 5.6.7.8\r\n\r\n",
    ];
    for location in [
        "proxy_pass http://127.0.0.1:{up};",
        "proxy_pass http://127.0.0.1:{up}; proxy_pass_request_headers off;",
        "proxy_pass http://127.0.0.1:{up}; proxy_set_body \"<$request_method>\";",
        "proxy_pass http://127.0.0.1:{up}; client_body_in_file_only clean;",
        "proxy_pass http://127.0.0.1:{up}; proxy_http_version 1.0; proxy_set_header Connection \"\"; proxy_set_header Proxy-Connection \"\"; proxy_set_header Host \"\";",
    ] {
        same_requests(&format!("server {{ listen {{port}}; location / {{ {location} }} }}"), &requests);
    }
}

/// nginx sends a length where all of a chunked body came with the head; here it depends on nothing.
#[test]
fn a_body_that_streams_is_framed_as_the_client_framed_it() {
    let recorder = Recorder::new(OK);
    let server = Server::start(
        &"server { listen {port}; location / { proxy_pass http://127.0.0.1:{up}; proxy_request_buffering off; } }"
            .replace("{up}", &recorder.upstream.port().to_string()),
    );
    if !subject_is_ours() {
        return;
    }
    let port = recorder.upstream.port();
    for (framing, body) in
        [("Content-Length: 5", "hello"), ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n")]
    {
        let request = format!("POST / HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n{body}");
        assert_eq!(ask(&server, &request).status, 200);
        assert_eq!(
            recorder.take(),
            [format!("POST / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{framing}\r\n\r\nhello")]
        );
    }
}

#[test]
fn upstreams_that_variables_name_receive_the_same() {
    for location in [
        "set $x 127.0.0.1; proxy_pass http://$x:{up};",
        "set $x 127.0.0.1; proxy_pass http://$x:{up}$request_uri;",
        "set $x 127.0.0.1; proxy_pass http://$x:{up}/a$uri?b;",
        "set $x 127.0.0.1; proxy_pass http://$x:{up}?b;",
        "proxy_pass http://127.0.0.1:{up}$uri;",
    ] {
        let requests = [&*get("/a"), &*get("/a%20b/../c?d=%41")];
        same_requests(&format!("server {{ listen {{port}}; location / {{ {location} }} }}"), &requests);
    }
}

/// nginx 1.22 writes Host behind what `proxy_set_header` sets; RFC 9110 section 7.2 asks for it first.
#[test]
fn upstreams_receive_what_is_set() {
    let recorder = Recorder::new(OK);
    let server = Server::start(
        &"server { listen {port}; location / { proxy_pass http://127.0.0.1:{up}; proxy_set_header Host $host; \
           proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; \
           proxy_set_header X-Upstream $proxy_host,$proxy_port; proxy_set_header Accept-Encoding \"\"; } }"
            .replace("{up}", &recorder.upstream.port().to_string()),
    );
    if !subject_is_ours() {
        return;
    }
    let request = "GET / HTTP/1.1\r\nHost: Example.org:81\r\nAccept-Encoding: gzip\r\nX-Forwarded-For: 1.2.3.4\r\n\
                   X-Real-IP: 6.6.6.6\r\nA: b\r\n\r\n";
    assert_eq!(ask(&server, request).status, 200);
    let port = recorder.upstream.port();
    let expected = format!(
        "GET / HTTP/1.1\r\nHost: example.org\r\nX-Real-IP: 127.0.0.1\r\nX-Forwarded-For: 1.2.3.4, 127.0.0.1\r\n\
         X-Upstream: 127.0.0.1:{port},{port}\r\nA: b\r\n\r\n"
    );
    assert_eq!(recorder.take(), [expected]);
}

/// The responses that clients get to GET and HEAD of `/one/x` when an upstream answers so, from both servers.
#[track_caller]
fn same_response(settings: &str, answer: &str) {
    let answer = answer.to_owned();
    let upstream = Upstream::http(move |head, _| {
        let is_head = head.starts_with("HEAD ");
        let end = answer.find("\r\n\r\n").map_or(answer.len(), |end| end + 4);
        answer.as_bytes()[..if is_head { end } else { answer.len() }].to_vec()
    });
    let config = format!(
        "{AS_131} server {{ listen {{port}}; server_name localhost; location /one/ {{ proxy_pass http://127.0.0.1:{up}/two/; \
         {settings} }} location /page {{ return 200 \"page $uri $request_method\"; }} \
         location /files/ {{ root {{root}}/html; }} }}",
        up = upstream.port()
    );
    let config = config.replace("{up}", &upstream.port().to_string());
    Parity::new(&config)
        .file("html/files/a b.txt", "content")
        .get(&["/one/x"])
        .request("HEAD /one/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .request("GET /one/x HTTP/1.0\r\n\r\n")
        .request("POST /one/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx")
        .check();
}

#[test]
fn clients_get_the_same_heads() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 Fine then\r\nServer: up\r\nDate: Sun, 13 Sep 2020 12:26:40 GMT\r\nContent-Type: text/x; charset=utf-8\r\n\
         Last-Modified: Sun, 13 Sep 2020 12:26:40 GMT\r\nETag: \"e\"\r\nAccept-Ranges: bytes\r\nVary: A\r\nVary: B\r\n\
         Set-Cookie: a=1\r\nSet-Cookie: b=2; Path=/\r\nCache-Control: private\r\nExpires: 0\r\nX-Pad: 1\r\n\
         X-Accel-Expires: 1\r\nKeep-Alive: timeout=5\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 404 Not Found\r\nLast-Modified: Sun, 13 Sep 2020 12:26:40 GMT\r\nContent-Length: 2\r\n\r\nno",
        "HTTP/1.1 299 Odd\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nETag: \"e\"\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nETag: \"e\"\r\nLast-Modified: Sun, 13 Sep 2020 12:26:40 GMT\r\n\r\n",
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/5\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 302 Found\r\nLocation: /two/y\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\nWWW-Authenticate: Digest\r\nContent-Length: 0\r\n\r\n",
    ] {
        same_response("", answer);
    }
}

#[test]
fn clients_see_the_same_addresses_and_cookies() {
    let redirects =
        "proxy_redirect default; proxy_redirect http://b.test:99/ /b/; proxy_redirect ~*^HTTP://c(.*)$ /c$1;";
    let answer = |value: &str| {
        format!("HTTP/1.1 301 X\r\nLocation: {value}\r\nRefresh: 1;url={value}\r\nContent-Length: 0\r\n\r\n")
    };
    for value in ["http://b.test:99/x", "http://C.test/y?z", "http://d.test/", "/two/", "x"] {
        same_response(redirects, &answer(value));
        same_response("proxy_redirect off;", &answer(value));
        same_response("absolute_redirect off; proxy_redirect / /all/;", &answer(value));
    }
    let rules = "proxy_cookie_domain .B.test c.test; proxy_cookie_domain ~\\.(\\w+)\\.d$ $1.e; proxy_cookie_path /two/ /one/; \
                 proxy_cookie_path ~*^/X(.*) /x$1; proxy_cookie_flags a secure samesite=lax; \
                 proxy_cookie_flags ~^n nosecure nohttponly nosamesite; proxy_cookie_flags h httponly samesite=none;";
    let cookies = [
        "a=1",
        "a=1; Secure; SameSite=Strict",
        "a=1;HttpOnly ;path=/two/x",
        "A=1; domain=b.test",
        "N=1; Secure; HttpOnly; SameSite=None; Max-Age=1",
        "h=1; httponly; Path=/xYz; Domain=q.w.d",
        "h = \"1; 2\" ; Domain = .b.TEST",
        "other=1 ;  Path=/z;Domain=z",
        "flag; Path=/two/",
        "=x; Path=/two/",
    ];
    for cookie in cookies {
        same_response(
            rules,
            &format!("HTTP/1.1 200 OK\r\nSet-Cookie: {cookie}\r\nContent-Length: 0\r\n\r\n"),
        );
    }
}

#[test]
fn responses_that_ask_for_something_get_the_same() {
    for (settings, fields) in [
        (
            "",
            "X-Accel-Redirect: /files/a%20b.txt\r\nContent-Type: text/odd\r\nSet-Cookie: a=1\r\nX-Gone: 1\r\n",
        ),
        ("", "X-Accel-Redirect: /page?x\r\nCache-Control: no-store\r\nContent-Disposition: inline\r\n"),
        ("", "X-Accel-Redirect: /../page\r\n"),
        ("", "X-Accel-Redirect: /none\r\n"),
        ("proxy_ignore_headers X-Accel-Redirect;", "X-Accel-Redirect: /page\r\n"),
        (
            "proxy_pass_header X-Accel-Redirect; proxy_ignore_headers X-Accel-Redirect;",
            "X-Accel-Redirect: /page\r\n",
        ),
        (
            "proxy_hide_header x-a; proxy_hide_header Content-Type;",
            "X-A: 1\r\nContent-Type: text/x\r\nX-B: 2\r\n",
        ),
        ("proxy_pass_header Server; proxy_pass_header Date;", "Server: up\r\nX-B: 2\r\n"),
        ("proxy_force_ranges off;", "Accept-Ranges: none\r\n"),
    ] {
        same_response(settings, &format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok"));
    }
    for status in ["404 No", "401 No", "503 No", "500 No"] {
        let answer = format!(
            "HTTP/1.1 {status}\r\nWWW-Authenticate: Basic\r\nX-Gone: 1\r\nContent-Length: 2\r\n\r\nno"
        );
        same_response(
            "proxy_intercept_errors on; error_page 404 401 /page; error_page 503 =200 /page;",
            &answer,
        );
        same_response("error_page 404 401 503 /page;", &answer);
    }
}

#[test]
fn a_slash_is_added_where_a_location_that_passes_requests_on_ends_with_one() {
    let upstream = Upstream::http(|_, _| OK.into());
    let config = format!(
        "server {{ listen {{port}}; root {{root}}/html; location /a/ {{ proxy_pass http://127.0.0.1:{}; }} location /b/ {{ }} }}",
        upstream.port()
    );
    Cases::new(&config)
        .get("/a?b", "301 http://localhost:{port}/a/?b")
        .get("/a/", "200 ok")
        .get("/b", "404")
        .check();
}

#[test]
fn variables_tell_of_the_upstream() {
    let upstream =
        Upstream::http(|_, _| OK.replace("OK\r\n", "OK\r\nX-A: 1\r\nSet-Cookie: c=2; Path=/\r\n").into());
    let config = format!(
        "log_format up '$upstream_addr $upstream_status $upstream_response_length $upstream_http_x_a $upstream_cookie_c \
         $upstream_cache_status $upstream_bytes_received [$upstream_trailer_x]'; access_log {{root}}/up.log up; \
         server {{ listen {{port}}; location / {{ proxy_pass http://127.0.0.1:{up}; }} location /none {{ return 204; }} }}",
        up = upstream.port()
    );
    let lines = |server: &Server| {
        for target in ["/", "/none"] {
            ask(server, &get(target));
        }
        super::util::eventually("two lines", || {
            std::fs::read_to_string(server.path("up.log")).is_ok_and(|text| text.lines().count() == 2)
        });
        std::fs::read_to_string(server.path("up.log")).expect("a log")
    };
    let ours = lines(&Server::start(&config));
    assert_eq!(ours.lines().next(), Some(&*format!("127.0.0.1:{} 200 2 1 2 - 73 [-]", upstream.port())));
    if nginx::available() {
        assert_eq!(lines(&Nginx::start(&config)), ours);
    }
}
