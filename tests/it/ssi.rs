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
