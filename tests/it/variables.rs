//! Every variable of the core and of the modules that have none of their own, against known values and nginx's.

use crate::util::{Cases, Client, Server, eventually, get};

/// Variables whose value follows from the request and the configuration alone.
const FIXED: &[&str] = &[
    "arg_a",
    "arg_A",
    "arg_b",
    "arg_none",
    "args",
    "content_length",
    "content_type",
    "cookie_c",
    "cookie_d",
    "document_root",
    "document_uri",
    "host",
    "http_accept",
    "http_cookie",
    "http_host",
    "http_referer",
    "http_user_agent",
    "http_via",
    "http_x_forwarded_for",
    "http_x_own_field",
    "http_none",
    "https",
    "is_args",
    "limit_rate",
    "query_string",
    "realpath_root",
    "remote_addr",
    "remote_user",
    "request",
    "request_body",
    "request_body_file",
    "request_completion",
    "request_filename",
    "request_method",
    "request_uri",
    "scheme",
    "server_addr",
    "server_name",
    "server_protocol",
    "uri",
    "connection_requests",
    "pipe",
];

fn fixed_configuration(more: &[&str]) -> String {
    let text: String = FIXED.iter().chain(more).map(|name| format!("{name}=[${name}]\\n")).collect();
    format!(
        "server {{ listen {{port}}; server_name a.example; root {{root}}/html; location / {{ return 200 \"{text}\"; }} }}"
    )
}

#[test]
fn variables_of_the_request_have_nginx_s_values() {
    let requests = [
        "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET /p%20q/../x//y?a=1&b=%20&A=2&a=3 HTTP/1.1\r\nHost: A.Example:77\r\nUser-Agent: u v\r\n\
         Referer: http://r/\r\nCookie: c=1; d=2; c=3\r\nX-Forwarded-For: 1.2.3.4\r\nVia: 1.1 v\r\n\
         X-Own-Field: own\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        "GET /x? HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n",
        "GET /x?a HTTP/1.1\r\nHost: b\r\nCookie: c; d=\r\nConnection: close\r\n\r\n",
        "GET /x?a=&b=x=y&aa=1 HTTP/1.1\r\nHost: b\r\nCookie: dd=1;c=x\r\nConnection: close\r\n\r\n",
        "GET http://abs.example:1/q?r#f HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n",
        "GET /%E4%BD%A0?%E4 HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n",
        "GET /auth HTTP/1.1\r\nHost: b\r\nAuthorization: Basic YW5uOnNlY3JldA==\r\nConnection: close\r\n\r\n",
        "GET /auth HTTP/1.1\r\nHost: b\r\nAuthorization: Basic %%%\r\nConnection: close\r\n\r\n",
        "POST /b HTTP/1.1\r\nHost: b\r\nContent-Type: text/x\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
        "DELETE /b HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n",
    ];
    let mut parity = crate::util::Parity::new(&fixed_configuration(&[])).file("html/index.html", "x");
    for request in requests {
        parity = parity.request(request);
    }
    parity.check();
}

#[test]
fn variables_of_the_request_have_the_documented_values() {
    let server = Server::builder(&fixed_configuration(&["server_port"])).file("html/index.html", "x").start();
    let mut client = Client::connect(server.port());
    client.send(
        "GET /p%20q/../x//y?a=1&b=%20 HTTP/1.1\r\nHost: A.Example:77\r\nUser-Agent: u v\r\nCookie: c=1; d=2\r\n\
         Authorization: Basic YW5uOnNlY3JldA==\r\nX-Own-Field: own\r\n\r\n",
    );
    let text = client.read_response().text();
    let port = server.port().to_string();
    let root = format!("{}/html", server.root().display());
    let real_root = std::fs::canonicalize(&root).expect("there").display().to_string();
    for (name, value) in [
        ("arg_a", "1"),
        ("arg_b", "%20"),
        ("args", "a=1&b=%20"),
        ("query_string", "a=1&b=%20"),
        ("is_args", "?"),
        ("uri", "/x/y"),
        ("document_uri", "/x/y"),
        ("request_uri", "/p%20q/../x//y?a=1&b=%20"),
        ("request", "GET /p%20q/../x//y?a=1&b=%20 HTTP/1.1"),
        ("request_method", "GET"),
        ("host", "a.example"),
        ("http_host", "A.Example:77"),
        ("http_user_agent", "u v"),
        ("http_x_own_field", "own"),
        ("cookie_c", "1"),
        ("cookie_d", "2"),
        ("remote_user", "ann"),
        ("remote_addr", "127.0.0.1"),
        ("server_addr", "127.0.0.1"),
        ("server_port", port.as_str()),
        ("server_name", "a.example"),
        ("server_protocol", "HTTP/1.1"),
        ("scheme", "http"),
        ("https", ""),
        ("document_root", root.as_str()),
        ("realpath_root", real_root.as_str()),
        ("request_filename", &format!("{root}/x/y")),
        ("connection_requests", "1"),
        ("pipe", "."),
        ("content_length", ""),
        ("limit_rate", "0"),
        ("request_completion", ""),
    ] {
        assert!(
            text.contains(&format!("\n{name}=[{value}]\n"))
                || text.starts_with(&format!("{name}=[{value}]\n")),
            "{name} is not {value:?} in\n{text}"
        );
    }
}

#[test]
fn repeated_fields_are_joined() {
    // As nginx does since 1.23.0; 1.22 gives the first of the unknown ones only.
    Cases::new(
        "server { listen {port}; add_header X-S 1; add_header X-S 2;
            return 200 '$http_x_a|$http_cookie|$cookie_b|$http_x_forwarded_for|$http_accept'; }",
    )
    .only_ours("nginx joins repeated fields since 1.23.0")
    .get_with(
        "/",
        "X-A: 1|X-A: 2|Cookie: a=1|Cookie: b=2|X-Forwarded-For: 1|X-Forwarded-For: 2|Accept: x|accept: y",
        "200 1, 2|a=1; b=2|2|1, 2|x, y",
    )
    .check();
}

#[test]
fn cookies_are_split_at_semicolons_only() {
    Cases::new("server { listen {port}; return 200 '$cookie_a|$cookie_b|$cookie_c'; }")
        .only_ours("nginx 1.22 splits at commas too")
        .get_with("/", "Cookie: a=1,b=2; c=3", "200 1,b=2||3")
        .check();
}

#[test]
fn variables_of_the_connection() {
    let server = Server::start(
        "server { listen {port}; return 200 '$connection|$connection_requests|$remote_port|$pid|$hostname|\
         $nginx_version|$msec|$time_iso8601|$time_local|$request_id|$request_time|$connection_time|$request_length|$bytes_sent|$body_bytes_sent|$status'; }",
    );
    let mut client = Client::connect(server.port());
    let mut lines = Vec::new();
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        lines.push(client.read_response().text());
    }
    let parts: Vec<Vec<&str>> = lines.iter().map(|line| line.split('|').collect()).collect();
    let [first, second] = parts.as_slice() else { panic!("two answers") };
    assert!(first[0].parse::<u64>().is_ok_and(|number| number > 0), "{first:?}");
    assert_eq!(first[0], second[0], "the same connection");
    assert_eq!((first[1], second[1]), ("1", "2"));
    assert!(first[2].parse::<u16>().is_ok());
    assert!(first[3].parse::<u32>().is_ok_and(|pid| pid > 1));
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    assert_eq!(first[4], hostname.trim().to_lowercase());
    assert!(first[5].split('.').all(|part| part.parse::<u32>().is_ok()), "{}", first[5]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let (seconds, millis) = first[6].split_once('.').expect("a point");
    assert_eq!(millis.len(), 3);
    assert!(now.as_secs().abs_diff(seconds.parse().expect("seconds")) < 60);
    assert_eq!((first[7].len(), &first[7][10..11]), (25, "T"), "{}", first[7]);
    assert_eq!((first[8].len(), &first[8][2..3]), (26, "/"), "{}", first[8]);
    assert_eq!(first[9].len(), 32);
    assert!(first[9].bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_ne!(first[9], second[9], "each request has its own");
    for time in [first[10], first[11]] {
        let (_, fraction) = time.split_once('.').expect("a point");
        assert_eq!(fraction.len(), 3, "{time}");
    }
    assert_eq!(first[12], "27", "the length of the request");
    assert_eq!(first[13], "0", "nothing sent yet");
    assert_eq!(first[14], "0");
    assert_eq!(first[15], "200");
}

#[test]
fn binary_remote_addr_is_four_bytes() {
    let server = Server::start("server { listen {port}; return 200 $binary_remote_addr; }");
    assert_eq!(get(server.port(), "/").body, [127, 0, 0, 1]);
}

#[test]
fn sent_fields_and_sizes_are_known_in_the_log() {
    let server = Server::builder(
        "log_format l '$status|$sent_http_content_type|$sent_http_content_length|$sent_http_last_modified|\
         $sent_http_connection|$sent_http_keep_alive|$sent_http_transfer_encoding|$sent_http_cache_control|$sent_http_location|$sent_http_x_own|$sent_http_link|\
         $body_bytes_sent|$request_length|$request_completion|$sent_trailer_x_t';
         access_log {root}/l.log l;
         server { listen {port}; root {root}/html; add_header X-Own o; add_header Cache-Control a; add_header Cache-Control b;
            location /moved { return 301 /f; } location /trailer { add_trailer X-T t; return 200 t; } }",
    )
    .file("html/f.html", "file")
    .start();
    get(server.port(), "/f.html");
    get(server.port(), "/moved");
    get(server.port(), "/trailer");
    eventually("three lines", || server.read("l.log").lines().count() == 3);
    let text = server.read("l.log");
    let lines: Vec<&str> = text.lines().collect();
    let first: Vec<&str> = lines[0].split('|').collect();
    assert_eq!(first[..5], ["200", "text/html", "4", "Tue, 02 Jan 2024 03:04:05 GMT", "close"], "{text}");
    assert_eq!(first[7], "a, b");
    assert_eq!((first[9], first[11], first[13]), ("o", "4", "OK"));
    assert_eq!(
        first[12],
        format!("{}", "GET /f.html HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".len())
    );
    let second: Vec<&str> = lines[1].split('|').collect();
    assert_eq!(second[8], format!("http://localhost:{}/f", server.port()));
    let third: Vec<&str> = lines[2].split('|').collect();
    assert_eq!((third[6], third[14]), ("chunked", "t"), "{text}");
}

#[test]
fn tcp_information_of_the_connection() {
    let server = Server::start(
        "server { listen {port}; return 200 '$tcpinfo_rtt,$tcpinfo_rttvar,$tcpinfo_snd_cwnd,$tcpinfo_rcv_space'; }",
    );
    let text = get(server.port(), "/").text();
    assert_eq!(text.split(',').filter(|part| part.parse::<u32>().is_ok()).count(), 4, "{text}");
}

#[test]
fn request_port_variables() {
    Cases::new("server { listen {port}; return 200 '$request_port|$is_request_port'; }")
        .only_ours("the variables came with nginx 1.29.3")
        .host("a:81", "/", "200 81|:")
        .host("a", "/", "200 |")
        .check();
}

#[test]
fn an_unknown_variable_is_an_error_of_the_configuration() {
    let output = Server::builder("http { server { listen 80;\n return 200 $no_such; } }").run(&["-t"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stderr.contains("unknown \"no_such\" variable"), "{}", output.stderr);
}

#[test]
fn realpath_root_resolves_links() {
    Cases::new("server { listen {port}; root {root}/link; return 200 '$document_root $realpath_root'; }")
        .file("html/f", "f")
        .before(|server| {
            std::os::unix::fs::symlink(server.path("html"), server.path("link")).expect("a link");
        })
        .get("/", "200 {root}/link {root}/html")
        .check();
}

#[test]
fn a_variable_may_be_written_in_braces_and_text_may_follow() {
    Cases::new(
        r#"server { listen {port};
            location /b { return 200 "${request_method}x$request_method-$arg_a."; } }"#,
    )
    .get("/b?a=1", "200 GETxGET-1.")
    .check();
}

#[test]
fn cookie_and_argument_names_are_caseless_or_not_as_in_nginx() {
    Cases::new("server { listen {port}; return 200 '$arg_name|$cookie_name'; }")
        .get_with("/?NAME=1", "Cookie: NAME=2", "200 1|2")
        .get_with("/?name=1&NAME=3", "Cookie: xname=2; name=4", "200 1|4")
        .get_with("/?xname=1", "Cookie: n=2", "200 |")
        .check();
}
