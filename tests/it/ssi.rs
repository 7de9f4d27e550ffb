//! Pages with commands (`ssi`), over real sockets.

use std::time::Duration;

use crate::util::{Cases, Server, Upstream, eventually, get};

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
