//! Files that change: with and without `open_file_cache`, and while they are sent.

use super::*;

#[test]
fn without_open_file_cache_a_change_is_seen_at_once() {
    let server = Server::builder(SITE).file("html/f", "first").start();
    let mut client = Client::connect(server.port());
    let mut ask = || {
        client.send("GET /f HTTP/1.1\r\nHost: a\r\n\r\n");
        client.read_response()
    };
    for _ in 0..3 {
        assert_eq!(ask().text(), "first");
    }
    for number in 0..50 {
        let text = format!("content {number}{}", "x".repeat(number % 7));
        // Both ways of changing: in place, and by a new file with the name.
        if number % 2 == 0 {
            server.write("html/f", &text);
        } else {
            server.write("html/new", &text);
            std::fs::rename(server.path("html/new"), server.path("html/f")).expect("rename");
        }
        let response = ask();
        assert_eq!(response.text(), text, "change {number}");
        assert_eq!(response.header("content-length"), Some(text.len().to_string().as_str()));
    }
    std::fs::remove_file(server.path("html/f")).expect("remove");
    assert_eq!(ask().status, 404);
    server.write("html/f", "again");
    assert_eq!(ask().text(), "again");
}

#[test]
fn a_change_in_place_of_the_same_length_and_second_is_seen() {
    let server = Server::builder(SITE).file("html/f", "aaaa").start();
    let mut client = Client::connect(server.port());
    for number in 0..200 {
        let text = format!("{number:04}");
        server.write("html/f", &text);
        client.send("GET /f HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_response().text(), text);
    }
}

#[test]
fn open_file_cache_holds_for_its_validity_and_then_sees_the_change() {
    let server = Server::builder(
        "open_file_cache max=10 inactive=60s; open_file_cache_valid 1s; open_file_cache_min_uses 1; open_file_cache_errors on;
         server { listen {port}; root {root}/html; }",
    )
    .file("html/f", "first")
    .start();
    assert_eq!(get(server.port(), "/f").text(), "first");
    assert_eq!(get(server.port(), "/later").status, 404);
    server.write("html/new", "second, longer");
    std::fs::rename(server.path("html/new"), server.path("html/f")).expect("rename");
    server.write("html/later", "there");
    // Whatever is sent within the validity is one file or the other, whole.
    eventually("the change is seen", || {
        let response = get(server.port(), "/f");
        assert!(["first", "second, longer"].contains(&response.text().as_str()), "{response:?}");
        response.text() == "second, longer"
    });
    eventually("the new file is seen", || get(server.port(), "/later").status == 200);
}

#[test]
fn with_open_file_cache_length_and_content_never_disagree() {
    // The client of the harness panics on a body that is shorter than its length; here content must fit too.
    let server = Server::builder(
        "open_file_cache max=10; open_file_cache_valid 60s; server { listen {port}; root {root}/html; }",
    )
    .file("html/f", "0123456789")
    .start();
    assert_eq!(get(server.port(), "/f").text(), "0123456789");
    server.write("html/f", "01234567890123456789");
    let grown = get(server.port(), "/f").text();
    assert!(grown == "0123456789" || grown == "01234567890123456789", "{grown}");
    server.write("html/f", "012");
    let mut client = Client::connect(server.port());
    client.send("GET /f HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    match client.response_to("GET") {
        Ok(response) => assert!("01234567890123456789".starts_with(&response.text())),
        Err(error) => assert!(error.starts_with("closed"), "{error}"),
    }
}

#[test]
fn open_file_cache_off_and_min_uses() {
    Cases::new(
        "open_file_cache max=100 inactive=1s; open_file_cache_min_uses 2; open_file_cache_errors off;
         server { listen {port}; root {root}/html; location /off { open_file_cache off; } }",
    )
    .file("html/a", "a")
    .file("html/off", "o")
    .get("/a", "200 a")
    .get("/a", "200 a")
    .get("/off", "200 o")
    .get("/none", "404")
    .get("/none", "404")
    .check();
}

/// Reads everything that comes, and says whether the body was as long as promised.
fn is_complete(bytes: &[u8]) -> bool {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
    length
        .and_then(|text| text.trim().parse::<usize>().ok())
        .is_some_and(|length| length == bytes.len() - end - 4)
}

#[test]
fn a_file_truncated_while_it_is_sent_ends_the_connection() {
    const LENGTH: usize = 64 << 20;
    let server = Server::builder(SITE).start();
    server.write("html/big", "");
    let file = std::fs::File::options().write(true).open(server.path("html/big")).expect("open");
    file.set_len(LENGTH as u64).expect("length");
    let mut client = Client::connect(server.port());
    client.send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.read_exactly(1000);
    assert!(head.starts_with(b"HTTP/1.1 200 OK\r\n"));
    file.set_len(1000).expect("truncate");
    let rest = client.read_to_end();
    assert!(!is_complete(&[head, rest].concat()), "a short file looked complete");
    assert_eq!(get(server.port(), "/big").body.len(), 1000);
}

#[test]
fn a_file_replaced_while_it_is_sent_is_sent_as_it_was() {
    const LENGTH: usize = 32 << 20;
    let server = Server::builder(SITE).file("html/big", vec![b'a'; LENGTH]).start();
    let mut client = Client::connect(server.port());
    client.send("GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let mut bytes = client.read_exactly(100_000);
    server.write("html/new", vec![b'b'; LENGTH]);
    std::fs::rename(server.path("html/new"), server.path("html/big")).expect("rename");
    bytes.extend(client.read_to_end());
    assert!(is_complete(&bytes));
    let body = &bytes[bytes.len() - LENGTH..];
    assert!(body.iter().all(|byte| *byte == b'a'), "two files were mixed");
}
