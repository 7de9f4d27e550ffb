//! Pages with commands (`ssi`), over real sockets.

use std::time::Duration;

use crate::util::{Both, Cases, Server, Upstream, eventually, get};

#[test]
fn pages_are_followed_as_in_nginx() {
    Cases::new(
        "types { text/html html; text/plain txt; } server { listen {port}; root {root}/html; ssi on;
         location = /sub { return 200 '<$uri $args>'; } location = /fail { return 500; } location = /empty { return 200 ''; }
         location = /twice { default_type text/html; return 200 'in <!--#include virtual=\"/sub?deep\" --> out'; } }",
    )
    .ignore("transfer-encoding")
    .ignore("etag")
    .ignore("last-modified")
    .file("html/plain.html", "nothing here")
    .file("html/echo.html", "a<!--#set var=\"x\" value=\"1 & 2\" --><!--#echo var=\"x\" -->b")
    .file("html/include.html", "[<!--#include virtual=\"/sub?q=1\" -->|<!--#include virtual=\"/twice\" -->|<!--#include file=\"part.txt\" -->]")
    .file("html/part.txt", "part")
    .file("html/set.html", "<!--#include virtual=\"/sub\" set=\"got\" -->got <!--#echo var=\"got\" encoding=\"none\" -->")
    .file("html/wait.html", "<!--#include virtual=\"/sub\" wait=\"yes\" -->then")
    .file(
        "html/stub.html",
        "<!--#block name=\"none\" -->nothing<!--#endblock --><!--#include virtual=\"/empty\" stub=\"none\" -->,<!--#include virtual=\"/fail\" stub=\"none\" -->",
    )
    .file("html/if.html", "<!--#if expr=\"$arg_a = 1\" -->one<!--#else -->other<!--#endif -->")
    .file("html/note.txt", "<!--#echo var=\"uri\" -->")
    .get("/plain.html", "200 nothing here")
    .get("/echo.html", "200 a1 &amp; 2b")
    .get("/include.html", "200 [</sub q=1>|in </sub deep> out|part]")
    .get("/set.html", "200 got </sub >")
    .get("/wait.html", "200 </sub >then")
    .get("/stub.html", "200 nothing,nothing")
    .get("/if.html?a=1", "200 one")
    .get("/if.html?a=2", "200 other")
    .get("/note.txt", "200 <!--#echo var=\"uri\" -->")
    .check();
}

#[test]
fn includes_run_side_by_side_and_pages_may_come_from_upstreams() {
    let upstream = Upstream::http(|head, _| {
        let body = match head {
            head if head.contains("/page") => {
                let filler = "x".repeat(100_000);
                format!("<<!--#include virtual=\"/slow/1\" -->{filler}<!--#include virtual=\"/slow/2\" -->>")
            }
            _ => {
                std::thread::sleep(Duration::from_millis(200));
                "slow".to_owned()
            }
        };
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            .into_bytes()
    });
    let server = Server::start(&format!(
        "ssi on; gzip on; gzip_min_length 0; server {{ listen {{port}}; location / {{ proxy_pass http://127.0.0.1:{}; }} }}",
        upstream.port()
    ));
    let expected = format!("<slow{}slow>", "x".repeat(100_000));
    assert!(get(server.port(), "/page").text() == expected);
    // A page that includes itself ends.
    let own = Server::start("ssi on; types { text/html html; } server { listen {port}; root {root}; }");
    own.write("a.html", "(<!--#include virtual=\"/a.html\" -->)");
    let text = get(own.port(), "/a.html").text();
    assert!(text.starts_with("((((") && text.ends_with("))))") && text.len() < 2_000, "{text}");
    eventually("a line in the log", || own.error_log().contains("subrequests cycle while processing"));
}

/// A page that includes `target` with a block full of commands for the case that nothing comes of it.
fn page_with_stub(target: &str) -> String {
    format!(
        "<!--#block name=\"b\" -->STUB(<!--#echo var=\"uri\" --><!--#if expr=\"$v = V\" --> yes<!--#else --> no<!--#endif --><!--#set \
         var=\"k\" value=\"K\" -->)<!--#endblock --><<!--#include virtual=\"{target}\" stub=\"b\" wait=\"yes\" -->><!--#echo var=\"k\" -->"
    )
}

fn stub_upstream() -> Upstream {
    Upstream::http(|head, _| {
        let answer = match head.split(' ').nth(1).unwrap_or_default() {
            "/u/404" => "404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\nlost",
            "/u/empty" => "200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "/u/plain" => "200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "/gone" => "200 OK\r\nContent-Type: text/html\r\nContent-Length: 10\r\nConnection: close\r\n\r\n",
            _ => "200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\nfine",
        };
        format!("HTTP/1.1 {answer}").into_bytes()
    })
}

#[test]
fn commands_of_a_block_are_followed_in_the_place_of_what_failed_or_is_empty() {
    let upstream = stub_upstream();
    let at = upstream.port();
    let gone = Upstream::start(|mut peer| {
        peer.read_request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 10\r\n\r\n");
    });
    let mut cases = Cases::new(&format!(
        "types {{ text/html html; text/plain txt; }} ssi on; server {{ listen {{port}}; root {{root}}/html; set $v V;
         error_page 404 /404.html; error_page 502 /502.html;
         location /u/ {{ proxy_pass http://127.0.0.1:{at}; }}
         location /taken/ {{ proxy_pass http://127.0.0.1:{at}/u/; proxy_intercept_errors on; }}
         location /dead {{ proxy_pass http://127.0.0.1:1; }} location /gone {{ proxy_pass http://127.0.0.1:{}; }}
         location /text {{ return 404 text; }} location /moved {{ return 302 /x; }} location /denied {{ deny all; }}
         location /other {{ error_page 404 =200 /404.html; return 404; }}
         location /off {{ ssi off; return 404; }} location /css {{ ssi_types text/css; return 404; }}
         location /filtered {{ sub_filter STUB rewritten; return 404; }} }}",
        gone.port()
    ))
    .ignore("transfer-encoding")
    .file("html/404.html", "the page for 404")
    .file("html/502.html", "the page for 502")
    .file("html/empty.txt", "");
    let unfollowed = "STUB(<!--#echo var=\"uri\" --><!--#if expr=\"$v = V\" --> yes<!--#else --> no<!--#endif --><!--#set var=\"k\" value=\"K\" -->)";
    for (number, (target, shown)) in [
        ("/u/404", "200 <lost>(none)"),
        ("/u/empty", "200 <STUB(/u/empty yes)>K"),
        ("/u/plain", &format!("200 <{unfollowed}>(none)")),
        ("/gone", "200 <STUB(/gone yes)>K"),
        ("/u/fine", "200 <fine>(none)"),
        ("/taken/404", "200 <STUB(/taken/404 yes)>K"),
        ("/dead", "200 <STUB(/dead yes)>K"),
        ("/none", "200 <STUB(/none yes)>K"),
        ("/empty.txt", &format!("200 <{unfollowed}>(none)")),
        ("/text", "200 <text>(none)"),
        ("/moved", "200 <STUB(/moved yes)>K"),
        ("/denied", "200 <STUB(/denied yes)>K"),
        ("/other", "200 <STUB(/other yes)>K"),
        ("/off", &format!("200 <{unfollowed}>(none)")),
        ("/css", "200 <STUB(/css yes)>K"),
        ("/filtered", "200 <rewritten(/filtered yes)>K"),
    ]
    .into_iter()
    .enumerate()
    {
        cases = cases
            .file(&format!("html/{number}.html"), page_with_stub(target))
            .get(&format!("/{number}.html"), shown);
    }
    cases.check();
}

#[test]
fn an_announced_length_of_nothing_has_its_block_followed_too() {
    Cases::new("types { text/html html; } ssi on; server { listen {port}; root {root}/html; set $v V; }")
        .only_ours("nginx shows the commands of the block as they are")
        .file("html/empty.html", "")
        .file("html/a.html", page_with_stub("/empty.html"))
        .get("/a.html", "200 <STUB(/empty.html yes)>K")
        .check();
}

#[test]
fn blocks_in_the_place_of_includes_include_in_their_turn() {
    let error = "[an error occurred while processing the directive]";
    Cases::new(
        "types { text/html html; } ssi on; server { listen {port}; root {root}/html;
         location /fail { return 404; } location /dead { proxy_pass http://127.0.0.1:1; } location = /ok { return 200 ok; } }",
    )
    .ignore("transfer-encoding")
    .file("html/part.html", "part")
    .file(
        "html/nested.html",
        "<!--#block name=\"one\" -->ONE[<!--#include virtual=\"/fail\" stub=\"two\" -->]<!--#endblock --><!--#block name=\"two\" -->TWO(<!--#echo \
         var=\"uri\" -->)<!--#endblock --><<!--#include virtual=\"/dead\" stub=\"one\" -->>then",
    )
    .file(
        "html/includes.html",
        "<!--#block name=\"b\" -->[<!--#include virtual=\"/ok\" -->,<!--#include file=\"part.html\" -->,<!--#include virtual=\"/ok\" \
         set=\"x\" --><!--#echo var=\"x\" -->]<!--#endblock --><<!--#include virtual=\"/fail\" stub=\"b\" -->><!--#include virtual=\"/ok\" -->",
    )
    .file(
        "html/itself.html",
        "<!--#block name=\"r\" -->R[<!--#include virtual=\"/fail\" stub=\"r\" -->]<!--#endblock --><<!--#include virtual=\"/fail\" stub=\"r\" -->>",
    )
    .file(
        "html/open.html",
        "<!--#block name=\"b\" -->A<!--#if expr=\"\" -->B<!--#endblock --><<!--#include virtual=\"/fail\" stub=\"b\" -->>after",
    )
    .get("/nested.html", "200 <ONE[TWO(/fail)]>then")
    .get("/includes.html", "200 <[ok,part,ok]>ok")
    .get("/itself.html", &format!("200 <{}R[{error}]{}>", "R[".repeat(50), "]".repeat(50)))
    .get("/open.html", "200 <A>after")
    .check();
}

fn unescaped(text: &str) -> Vec<u8> {
    let (mut out, mut bytes) = (Vec::new(), text.bytes());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'\\' => match bytes.next().unwrap() {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'x' => {
                    let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => other,
            },
            byte => byte,
        });
    }
    out
}

/// The pages of the unit tests, each with what nginx makes of it.
#[test]
fn every_command_over_a_socket() {
    let sub =
        r#"[sub <!--#echo var="sv" --> <!--#echo var="uri" --> <!--#set var="subv" value="fromsub" -->]"#;
    let sub1 =
        r#"[<!--#echo var="1" --><!--#if expr="$uri = /(s)(u)/" --><!--#endif --><!--#echo var="2" -->]"#;
    let both = Both::start(
        "server { listen {port}; root {root}/html; default_type text/html; ssi on; error_page 403 404 =404 /lost;
         set $conf \"conf<v>&\\\"'\"; set $empty ''; location = /lost { internal; return 404; }
         location /inc/ { return 200 '[inc $uri?$args]'; } location /ie/ { return 200 ''; } location /inc404/ { return 404; }
         location /plain/ { ssi off; alias {root}/html/; } }",
        &[
            ("html/sub.html", sub.as_bytes()),
            ("html/sub1.html", sub1.as_bytes()),
            ("html/sub2.html", b"[sub <!--#foo -->]"),
            ("html/sub3.html", sub1.as_bytes()),
            ("html/empty.html", b""),
        ],
    );
    let mut wrong = String::new();
    let cases = include_str!("../../src/http/modules/ssi/nginx_cases.txt");
    for case in cases.split("\n\n") {
        let mut lines = case.trim_end_matches('\n').split('\n');
        let page = unescaped(lines.next().unwrap());
        let expected = unescaped(
            &lines.next().unwrap().strip_prefix("=> ").unwrap().replace("example.com", "localhost"),
        );
        for server in both.servers() {
            server.write("html/t.html", &page);
        }
        // Where nothing at all comes of a page, nginx closes the connection without a head.
        let found =
            if expected.is_empty() { get(both.ours.port(), "/t.html") } else { both.get("/t.html", "") }.body;
        if found != expected {
            wrong.push_str(&format!(
                "{}\n   is {}\n  not {}\n",
                page.escape_ascii(),
                found.escape_ascii(),
                expected.escape_ascii()
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(cases.split("\n\n").count() > 200);
    both.check();
}

#[test]
fn every_directive_over_a_socket() {
    let page = "<!--#foo -->|<!--#echo var=\"none\" default=\"123456789\" -->|<!--#config timefmt=\"%Y-%s\" --><!--#set var=\"d\" \
                value=\"$date_gmt\" --><!--#if expr=\"$d = /^20[0-9][0-9]-[0-9]+/\" -->date<!--#endif -->";
    let shown = "[an error occurred while processing the directive]";
    Cases::new(
        "types { text/html html; text/plain txt; text/css css; } ssi on; server { listen {port}; root {root}/html;
         location /silent/ { ssi_silent_errors on; alias {root}/html/; }
         location /short/ { ssi_value_length 12; alias {root}/html/; }
         location /types/ { ssi_types text/plain; alias {root}/html/; }
         location /dates/ { ssi_last_modified on; alias {root}/html/; }
         location /ignored/ { ssi_min_file_chunk 4k; ssi_ignore_recycled_buffers on; alias {root}/html/; }
         location /if/ { ssi off; if ($arg_on) { ssi on; } alias {root}/html/; }
         location /off/ { ssi off; alias {root}/html/; } }",
    )
    .ignore("transfer-encoding")
    .show(&["etag", "last-modified", "content-length"])
    .file("html/a.html", page)
    .file("html/s.html", "<!--#echo var=\"none\" default=\"123456789012\" -->|<!--#echo var=\"none\" default=\"1234567890123\" -->")
    .file("html/a.txt", "<!--#echo var=\"uri\" -->")
    .file("html/a.css", "<!--#echo var=\"uri\" -->")
    .get("/a.html", &format!("200 {shown}|123456789|date"))
    .get("/silent/a.html", "200 |123456789|date")
    .get("/short/s.html", &format!("200 123456789012|{shown}"))
    .get("/types/a.txt", "200 /types/a.txt")
    .get("/types/a.css", "200 <!--#echo var=\"uri\" --> [etag: \"65937d25-17\"] [last-modified: Tue, 02 Jan 2024 03:04:05 GMT] [content-length: 23]")
    .get("/a.txt", "200 <!--#echo var=\"uri\" --> [etag: \"65937d25-17\"] [last-modified: Tue, 02 Jan 2024 03:04:05 GMT] [content-length: 23]")
    .get("/dates/s.html", "200 123456789012|1234567890123 [etag: W/\"65937d25-60\"] [last-modified: Tue, 02 Jan 2024 03:04:05 GMT]")
    .get("/ignored/s.html", "200 123456789012|1234567890123")
    .get("/if/s.html?on=1", "200 123456789012|1234567890123")
    .check();
}

#[test]
fn what_a_variable_takes_is_bounded_by_the_buffer_for_subrequests() {
    let upstream = Upstream::http(|head, _| {
        let length: usize = head.split(['/', ' ']).find_map(|part| part.parse().ok()).unwrap_or(0);
        let body = "x".repeat(length);
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\r\n{body}")
            .into_bytes()
    });
    let page = |length: usize| {
        format!("<!--#include virtual=\"/u/{length}\" set=\"v\" -->[<!--#echo var=\"v\" -->]")
    };
    let both = Both::start(
        &format!(
            "types {{ text/html html; }} ssi on; subrequest_output_buffer_size 2k; server {{ listen {{port}}; root {{root}}/html;
             location /u/ {{ proxy_pass http://127.0.0.1:{}; }} }}",
            upstream.port()
        ),
        &[("html/100.html", page(100).as_bytes()), ("html/2048.html", page(2048).as_bytes()), ("html/2049.html", page(2049).as_bytes())],
    );
    assert_eq!(both.get("/100.html", "").text(), format!("[{}]", "x".repeat(100)));
    assert_eq!(both.get("/2048.html", "").text(), format!("[{}]", "x".repeat(2048)));
    // nginx gives the whole page up.
    assert_eq!(get(both.ours.port(), "/2049.html").text(), "[]");
    both.check();
}
