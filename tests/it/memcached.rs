//! Values of a scripted memcached server.

use super::util::{Cases, Upstream};

/// A server with these values; it serves one request after another on each connection.
fn memcached(values: &'static [(&'static str, u32, &'static str)]) -> Upstream {
    Upstream::start(move |mut peer| {
        loop {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                match peer.read_some() {
                    bytes if bytes.is_empty() => return,
                    bytes => line.extend(bytes),
                }
            }
            let line = String::from_utf8(line).expect("a line of text");
            let key = line.strip_prefix("get ").and_then(|key| key.strip_suffix("\r\n")).expect("a get");
            match values.iter().find(|(known, ..)| *known == key) {
                Some((_, flags, value)) => {
                    let length = value.len();
                    peer.send(format!("VALUE {key} {flags} {length}\r\n{value}\r\nEND\r\n"));
                }
                None if key == "/broken" => return,
                None if key == "/odd" => drop(peer.send("SERVER_ERROR no\r\n")),
                None => drop(peer.send("END\r\n")),
            }
        }
    })
}

#[test]
fn values_are_responses_as_nginx_makes_them() {
    const VALUES: &[(&str, u32, &str)] = &[
        ("/a.html", 0, "<p>a</p>"),
        ("/empty", 0, ""),
        ("/zip.txt", 2, "not really zipped"),
        ("/two%20words", 1, "x\r\nEND\r\ny"),
    ];
    let server = memcached(VALUES);
    let config = format!(
        "types {{ text/html html; text/plain txt; }} default_type a/b; server {{ listen {{port}}; location / {{ \
         set $memcached_key $uri; memcached_pass 127.0.0.1:{}; memcached_gzip_flag 2; error_page 404 502 = @none; }} \
         location @none {{ return 200 none; }} }}",
        server.port()
    );
    Cases::new(&config)
        // Ranges of what comes from an upstream are the range filter's to cut.
        .show(&["Content-Type", "Content-Encoding"])
        .get("/a.html", "200 <p>a</p> [Content-Type: text/html]")
        .get("/empty", "200 [Content-Type: a/b]")
        .get("/zip.txt", "200 not really zipped [Content-Type: text/plain] [Content-Encoding: gzip]")
        .get("/two%20words", "200 x\r\nEND\r\ny [Content-Type: a/b]")
        .get("/missing", "200 none [Content-Type: a/b]")
        .get("/broken", "200 none [Content-Type: a/b]")
        .get("/odd", "200 none [Content-Type: a/b]")
        .request("HEAD /a.html HTTP/1.1\r\nHost: a\r\n\r\n", "200 [Content-Type: text/html]")
        .request(
            "POST /a.html HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            "405 [Content-Type: text/html]",
        )
        .check();
}
