//! `error_page` in all its forms, and the pages that are built in.

use crate::util::{Parity, Server, eventually, get, raw, raw_status, request};

/// Files that the configurations below name.
const FILES: [(&str, &str); 4] = [
    ("html/404.html", "own 404"),
    ("html/50x.html", "own 50x"),
    ("html/a.txt", "hello"),
    ("html/dir/x", "x"),
];

fn serve(conf: &str) -> Server {
    FILES.iter().fold(Server::builder(conf), |builder, (path, text)| builder.file(path, text)).start()
}

fn compare(conf: &str, paths: &[&str]) {
    let parity = FILES.iter().fold(Parity::new(conf), |parity, (path, text)| parity.file(path, text));
    let mut parity = parity.get(paths);
    for path in paths {
        for method in ["HEAD", "POST"] {
            parity = parity.request(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        }
    }
    parity.check();
}

/// Status and body of a GET.
fn answer(server: &Server, path: &str) -> (u16, String) {
    let response = get(server.port(), path);
    (response.status, response.text())
}

#[test]
fn an_error_page_keeps_the_status() {
    let conf = "server { listen {port}; root {root}/html; error_page 404 /404.html; error_page 500 502 503 /50x.html;
        location /500 { return 500; } location /503 { return 503; } location /504 { return 504; } }";
    let server = serve(conf);
    assert_eq!(answer(&server, "/missing"), (404, "own 404".to_owned()));
    assert_eq!(answer(&server, "/500"), (500, "own 50x".to_owned()));
    assert_eq!(answer(&server, "/503"), (503, "own 50x".to_owned()));
    assert!(answer(&server, "/504").1.contains("504 Gateway Time-out"));
    assert_eq!(answer(&server, "/404.html"), (200, "own 404".to_owned()));
    compare(conf, &["/missing", "/500", "/503", "/504", "/404.html", "/a.txt"]);
}

#[test]
fn an_error_page_can_change_the_status() {
    let conf = "server { listen {port}; root {root}/html; error_page 404 =200 /404.html; error_page 403 =410 /404.html;
        location /403 { return 403; } location /204/ { error_page 404 =204 /404.html; }
        location /500/ { error_page 404 =500 /404.html; } }";
    let server = serve(conf);
    assert_eq!(answer(&server, "/missing"), (200, "own 404".to_owned()));
    assert_eq!(answer(&server, "/403"), (410, "own 404".to_owned()));
    assert_eq!(get(server.port(), "/500/x").status, 500);
    compare(conf, &["/missing", "/403", "/204/x", "/500/x"]);
}

#[test]
fn an_equals_sign_alone_takes_the_status_of_the_page() {
    let conf =
        "server { listen {port}; root {root}/html; error_page 404 = /handler; error_page 403 = /nowhere;
        location = /handler { return 201 handled; } location /403 { return 403; } 
        location /file/ { error_page 404 = /404.html; } location /moved/ { error_page 404 = /dir; } }";
    let server = serve(conf);
    assert_eq!(answer(&server, "/missing"), (201, "handled".to_owned()));
    assert_eq!(answer(&server, "/file/x"), (200, "own 404".to_owned()));
    assert_eq!(get(server.port(), "/403").status, 404);
    compare(conf, &["/missing", "/403", "/file/x", "/moved/x"]);
}

#[test]
fn an_error_page_can_be_a_named_location() {
    let conf =
        "server { listen {port}; root {root}/html; error_page 404 = @fallback; error_page 403 @fallback;
        error_page 500 =503 @fallback; error_page 410 @none;
        location @fallback { return 200 'fallback of $uri $request_method'; }
        location /403 { return 403; } location /500 { return 500; } location /410 { return 410; }
        location /file/ { error_page 404 @file; } location @file { try_files /404.html =500; } }";
    let server = serve(conf);
    assert_eq!(answer(&server, "/missing"), (200, "fallback of /missing GET".to_owned()));
    // The method is kept: the body may be passed on there.
    assert_eq!(request(server.port(), "PUT", "/missing", &[]).status, 405);
    assert_eq!(get(server.port(), "/403").text(), "fallback of /403 GET");
    compare(conf, &["/missing", "/403", "/500", "/410", "/file/x"]);
}

#[test]
fn an_error_page_can_be_a_redirect() {
    let conf =
        "server { listen {port}; root {root}/html; error_page 404 http://example.com/missing?from=$uri;
        error_page 403 =301 https://example.com/; error_page 500 =308 http://example.com/500;
        error_page 410 =200 http://example.com/; error_page 409 =303 /404.html;
        location /403 { return 403; } location /500 { return 500; } location /410 { return 410; }
        location /409 { return 409; } }";
    let server = serve(conf);
    let response = get(server.port(), "/a/b");
    assert_eq!(
        (response.status, response.header("location")),
        (302, Some("http://example.com/missing?from=/a/b"))
    );
    let response = get(server.port(), "/403");
    assert_eq!((response.status, response.header("location")), (301, Some("https://example.com/")));
    compare(conf, &["/a/b", "/403", "/500", "/410", "/409"]);
}

#[test]
fn an_error_page_can_hold_variables() {
    let conf = "server { listen {port}; root {root}/html; error_page 404 /$arg_page.html; error_page 403 500 /$status;
        location /403 { return 403; } location /500 { return 500; } location = /403x { return 200 x; } 
        location /args { error_page 404 /show?a=b&c=$arg_c; } location = /show { return 200 '$args|$request_uri|$uri'; } }";
    let server = serve(conf);
    assert_eq!(answer(&server, "/missing?page=404"), (404, "own 404".to_owned()));
    assert_eq!(answer(&server, "/args/x?c=d"), (404, "a=b&c=d|/args/x?c=d|/show".to_owned()));
    compare(conf, &["/missing?page=404", "/missing?page=none", "/missing", "/args/x?c=d", "/403"]);
}

#[test]
fn an_error_page_turns_the_method_to_get() {
    let conf = "server { listen {port}; root {root}/html; error_page 403 404 405 /show;
        location = /show { return 200 '$request_method'; } location /403 { return 403; }
        location /static { error_page 403 /404.html; return 403; } }";
    let server = serve(conf);
    // A POST to a file is refused, but the page of a refused POST is a file too.
    assert_eq!(request(server.port(), "POST", "/static", &[]).text(), "own 404");
    compare(conf, &["/403", "/a.txt", "/static"]);
}

#[test]
fn without_recursion_an_error_page_s_own_error_gets_the_built_in_page() {
    let conf = |flag: &str| {
        format!(
            "server {{ listen {{port}}; root {{root}}/html; recursive_error_pages {flag};
            error_page 404 /nowhere; error_page 403 = /404x; error_page 410 /404.html;
            location /403 {{ return 403; }} location = /404x {{ return 410; }}
            location /chain {{ error_page 500 = @one; return 500; }}
            location @one {{ error_page 501 = @two; return 501; }}
            location @two {{ error_page 502 = /404.html; return 502; }} }}"
        )
    };
    let server = serve(&conf("off"));
    let (status, page) = answer(&server, "/missing");
    assert_eq!(status, 404);
    assert!(page.contains("<h1>404 Not Found</h1>"), "{page}");
    let (status, page) = answer(&server, "/chain");
    assert_eq!(status, 501);
    assert!(page.contains("<h1>501 Not Implemented</h1>"), "{page}");
    let server = serve(&conf("on"));
    assert_eq!(answer(&server, "/403"), (410, "own 404".to_owned()));
    assert_eq!(answer(&server, "/chain"), (200, "own 404".to_owned()));
    for flag in ["off", "on"] {
        compare(&conf(flag), &["/missing", "/403", "/chain"]);
    }
}

#[test]
fn error_pages_that_lead_to_each_other_end() {
    let conf =
        "server { listen {port}; root {root}/html; recursive_error_pages on; error_page 404 /nowhere; }";
    let server = serve(conf);
    assert_eq!(get(server.port(), "/missing").status, 500);
    eventually("a log line", || {
        server
            .error_log()
            .contains("rewrite or internal redirection cycle while internally redirecting to \"/nowhere\"")
    });
    compare(conf, &["/missing"]);
}

#[test]
fn error_pages_are_inherited_only_where_none_are_set() {
    let conf = "error_page 404 /404.html; error_page 403 /404.html; server { listen {port}; root {root}/html;
        location /inherits/ { } location /own/ { error_page 403 /404.html; }
        location /nested/ { error_page 404 /50x.html; location /nested/deeper/ { } } }";
    let server = serve(conf);
    assert_eq!(answer(&server, "/inherits/x"), (404, "own 404".to_owned()));
    assert!(answer(&server, "/own/x").1.contains("<h1>404 Not Found</h1>"));
    assert_eq!(answer(&server, "/nested/deeper/x"), (404, "own 50x".to_owned()));
    compare(conf, &["/inherits/x", "/own/x", "/nested/deeper/x"]);
}

#[test]
fn error_pages_answer_for_bad_requests() {
    let conf = "error_page 400 405 505 = /bad; server { listen {port}; location = /bad { return 200 'bad'; } 
        location / { return 204; } }";
    let server = Server::start(conf);
    let bytes = [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    for bytes in bytes {
        let response = raw(server.port(), bytes).expect("a response");
        assert_eq!((response.status, response.text().as_str()), (200, "bad"), "{bytes:?}");
    }
    crate::util::parity(conf, &bytes);
}

#[test]
fn wrong_error_pages_are_refused() {
    for (line, message) in [
        ("error_page 404;", "invalid number of arguments in \"error_page\" directive"),
        ("error_page 200 /x;", "value \"200\" must be between 300 and 599"),
        ("error_page 600 /x;", "value \"600\" must be between 300 and 599"),
        ("error_page 499 /x;", "value \"499\" must be between 400 and 599"),
        ("error_page x /x;", "invalid value \"x\""),
        ("error_page 404 =x /x;", "invalid value \"=x\""),
        ("error_page =200 /x;", "invalid value \"=200\""),
    ] {
        let output = Server::builder(&format!("server {{ listen {{port}}; {line} }}")).run(&["-t"]);
        assert!(!output.status.success(), "{line}");
        // nginx's text for 499 differs between versions.
        let expected = if line.contains("499") { "499" } else { message };
        assert!(output.stderr.contains(expected), "{line}: {}", output.stderr);
    }
}

/// All that nginx has a page for, and some that it has none for.
const STATUSES: [u16; 56] = [
    200, 201, 202, 203, 204, 205, 206, 299, 301, 302, 303, 305, 306, 307, 308, 309, 399, 400, 401, 402, 403,
    404, 405, 406, 408, 409, 410, 411, 412, 413, 414, 415, 416, 418, 420, 421, 429, 431, 451, 495, 496, 497,
    499, 500, 501, 502, 503, 504, 505, 507, 508, 509, 510, 511, 598, 599,
];

fn all_statuses(tokens: &str) -> String {
    let locations: String = STATUSES
        .iter()
        .chain(&[300, 304, 407, 417, 422, 426, 494, 498])
        .map(|status| format!("location = /{status} {{ return {status}; }}\n"))
        .collect();
    format!("server_tokens {tokens}; server {{ listen {{port}};\n{locations} }}")
}

#[test]
fn every_status_has_nginx_s_built_in_page() {
    let server = Server::start(&all_statuses("on"));
    for (status, reason) in [
        (301, "Moved Permanently"),
        (400, "Bad Request"),
        (401, "Authorization Required"),
        (403, "Forbidden"),
        (404, "Not Found"),
        (405, "Not Allowed"),
        // Since nginx 1.31.
        (407, "Proxy Authentication Required"),
        (413, "Request Entity Too Large"),
        (414, "Request-URI Too Large"),
        (421, "Misdirected Request"),
        (429, "Too Many Requests"),
        (500, "Internal Server Error"),
        (503, "Service Temporarily Unavailable"),
        (504, "Gateway Time-out"),
        (507, "Insufficient Storage"),
    ] {
        let response = get(server.port(), &format!("/{status}"));
        assert_eq!(response.status, status);
        assert_eq!(response.header("content-type"), Some("text/html"));
        let title = format!(
            "<html>\r\n<head><title>{status} {reason}</title></head>\r\n<body>\r\n\
            <center><h1>{status} {reason}</h1></center>\r\n<hr><center>"
        );
        assert!(response.text().starts_with(&title), "{}", response.text());
        assert!(response.text().ends_with("</center>\r\n</body>\r\n</html>\r\n"), "{}", response.text());
    }
    // 408 and 499 among them: nginx closes without a word, as after a client that is gone.
    let paths: Vec<String> = STATUSES.iter().map(|status| format!("/{status}")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    for tokens in ["on", "off"] {
        Parity::new(&all_statuses(tokens)).get(&paths).check();
    }
}

#[test]
fn statuses_without_a_page_have_an_empty_body() {
    // Unlike nginx, more of them have a reason phrase, and a 304 says nothing of a length (RFC 9110 section 15.4.5).
    let server = Server::start(&all_statuses("on"));
    for status in [300, 417, 422, 426, 431, 451, 498, 599] {
        let response = get(server.port(), &format!("/{status}"));
        assert_eq!((response.status, response.header("content-length")), (status, Some("0")));
    }
    let response = get(server.port(), "/304");
    assert_eq!((response.status, response.header("content-length")), (304, None));
}

#[test]
fn status_444_closes_without_a_word() {
    let server =
        Server::start("server { listen {port}; location / { return 444; } location /ok { return 204; } }");
    assert_eq!(raw_status(server.port(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 0);
    assert_eq!(get(server.port(), "/ok").status, 204);
    assert!(server.access_log_lines(2)[0].contains("\" 444 0 "), "{}", server.access_log());
}

#[test]
fn built_in_pages_are_padded_for_browsers_that_hide_short_ones() {
    let conf = |flag: &str| {
        format!(
            "msie_padding {flag}; server {{ listen {{port}}; location /404 {{ return 404; }} location /301 {{ return 301 /x; }} location /500 {{ return 500; }} }}"
        )
    };
    let agents = [
        "Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 5.1)",
        "Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1) Opera 7.02",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36",
        "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0",
        "curl/8.0",
    ];
    const PADDING: &str = "<!-- a padding to disable MSIE and Chrome friendly error page -->\r\n";
    let server = Server::start(&conf("on"));
    let padded = |server: &Server, path: &str, agent: &str| {
        let text = request(server.port(), "GET", path, &[("User-Agent", agent)]).text();
        text.matches(PADDING).count()
    };
    let counts: Vec<usize> = agents.iter().map(|agent| padded(&server, "/404", agent)).collect();
    assert_eq!(counts, [6, 0, 6, 0, 0]);
    assert_eq!(padded(&server, "/301", agents[0]), 0);
    let server = Server::start(&conf("off"));
    assert_eq!(padded(&server, "/404", agents[0]), 0);
    for flag in ["on", "off"] {
        let mut parity = Parity::new(&conf(flag));
        for agent in agents {
            for path in ["/404", "/301", "/500"] {
                parity =
                    parity.request(format!("GET {path} HTTP/1.1\r\nHost: a\r\nUser-Agent: {agent}\r\n\r\n"));
            }
        }
        parity.check();
    }
}

#[test]
fn error_responses_keep_the_connection_as_nginx_does() {
    // After these, nginx gives keep-alive up; after the others the connection goes on.
    let server = Server::start(&all_statuses("on"));
    for status in STATUSES.iter().filter(|status| **status >= 400 && !matches!(**status, 408 | 499)) {
        let bytes = format!("GET /{status} HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = raw(server.port(), bytes).expect("a response");
        let closes = matches!(status, 400 | 413 | 414 | 494..=497 | 500 | 501);
        let expected = if closes { "close" } else { "keep-alive" };
        assert_eq!(response.header("connection"), Some(expected), "{status}");
    }
}
