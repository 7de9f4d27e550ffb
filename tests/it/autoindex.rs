//! Listings of folders in all formats, and `random_index`.

use crate::util::{Cases, Parity, Server, get, request, subject_is_ours};
use std::collections::BTreeSet;

fn folder(conf: &str) -> Parity {
    Parity::new(conf)
        .file("html/d/b.txt", "b")
        .file("html/d/a & <b>.txt", vec![b'x'; 2000])
        .file("html/d/ä.txt", "umlaut")
        .file("html/d/100%.txt", "percent")
        .file("html/d/\"q'.txt", "quotes")
        .file("html/d/sub/x", "x")
        .file("html/d/.hidden", "h")
        .file("html/d/a:b?c#d", "odd")
        .file(&format!("html/d/{}", "long".repeat(20)), "l")
        .file("html/empty/.x", "")
}

#[test]
fn json_listings_are_nginx_s() {
    let conf = "server { listen {port}; root {root}/html; autoindex on; autoindex_format json;
        location /d/sub { } }";
    // Folders' own times are of now: they are compared by a test of their own.
    // nginx does not know the length beforehand.
    folder(conf).get(&["/empty/"]).ignore("content-length").ignore("transfer-encoding").check();
}

#[test]
fn json_listings_name_every_visible_entry() {
    let server = start("server { listen {port}; root {root}/html; autoindex on; autoindex_format json; }");
    let response = get(server.port(), "/d/");
    assert_eq!(response.header("content-type"), Some("application/json"));
    let list: serde_json::Value = serde_json::from_slice(&response.body).expect("JSON");
    let entries = list.as_array().expect("an array");
    let names: BTreeSet<&str> = entries.iter().filter_map(|entry| entry["name"].as_str()).collect();
    assert_eq!(names, ["a <&>\"'.txt", "b.txt", "sub", "ä%.txt"].into());
    let b = entries.iter().find(|entry| entry["name"] == "b.txt").expect("b.txt");
    assert_eq!((b["type"].as_str(), b["size"].as_u64()), (Some("file"), Some(1)));
    assert_eq!(b["mtime"].as_str(), Some("Tue, 02 Jan 2024 03:04:05 GMT"));
    let sub = entries.iter().find(|entry| entry["name"] == "sub").expect("sub");
    assert_eq!((sub["type"].as_str(), sub.get("size")), (Some("directory"), None));
}

fn start(conf: &str) -> Server {
    Server::builder(conf)
        .file("html/d/b.txt", "b")
        .file("html/d/a <&>\"'.txt", vec![b'x'; 2000])
        .file("html/d/ä%.txt", "u")
        .file("html/d/sub/x", "x")
        .file("html/d/.hidden", "h")
        .start()
}

#[test]
fn jsonp_wraps_the_listing_in_a_call() {
    let server = start("server { listen {port}; root {root}/html; autoindex on; autoindex_format jsonp; }");
    let response = get(server.port(), "/d/?callback=show");
    assert_eq!(response.header("content-type"), Some("application/javascript"));
    let text = response.text();
    let inner = text.trim_start_matches("/* callback */").trim();
    let inner = inner.strip_prefix("show(").and_then(|text| text.strip_suffix(");")).expect(&text);
    assert_eq!(serde_json::from_str::<Vec<serde_json::Value>>(inner).expect("JSON").len(), 4);
    // Without a name, or with one that could be more than a name, plain JSON.
    let plain = get(server.port(), "/d/");
    serde_json::from_slice::<serde_json::Value>(&plain.body).expect("JSON");
    if subject_is_ours() {
        let hostile = get(server.port(), "/d/?callback=alert(1)//");
        assert!(!hostile.text().contains("alert("), "{}", hostile.text());
    }
}

#[test]
fn xml_listings_have_elements_by_kind() {
    let server = start("server { listen {port}; root {root}/html; autoindex on; autoindex_format xml; }");
    let response = get(server.port(), "/d/");
    assert_eq!(response.header("content-type"), Some("text/xml; charset=utf-8"));
    let text = response.text();
    assert!(text.starts_with("<?xml version=\"1.0\"?>"), "{text}");
    assert!(text.contains("<file mtime=\"2024-01-02T03:04:05Z\" size=\"1\">b.txt</file>"), "{text}");
    assert!(text.contains("<directory mtime=\"") && text.contains("\">sub</directory>"), "{text}");
    assert!(text.contains("a &lt;&amp;&gt;"), "{text}");
    assert!(!text.contains(".hidden"), "{text}");
}

#[test]
fn html_listings_link_and_escape_every_name() {
    let server = start("server { listen {port}; root {root}/html; autoindex on; }");
    let response = get(server.port(), "/d/");
    assert!(response.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
    let text = response.text();
    let links: BTreeSet<&str> =
        text.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    for link in ["b.txt", "sub/", "%C3%A4%25.txt"] {
        assert!(links.contains(link), "{links:?}");
    }
    let odd = links.iter().find(|link| link.contains("a%20")).expect("the odd name");
    assert_eq!(get(server.port(), &format!("/d/{odd}")).body.len(), 2000, "{odd}");
    assert!(!text.contains("<&>"), "{text}");
    assert!(!text.contains(".hidden"), "{text}");
    assert!(links.iter().any(|link| *link == "../"), "{links:?}");
    if subject_is_ours() {
        assert!(
            text.contains("width=device-width") && text.contains("color-scheme"),
            "for phones and dark mode"
        );
    }
}

#[test]
fn sizes_are_exact_or_rounded_and_times_local_or_not() {
    let conf = "server { listen {port}; root {root}/html; autoindex on;
        location /r/ { alias {root}/html/d/; autoindex on; autoindex_exact_size off; }
        location /l/ { alias {root}/html/d/; autoindex on; autoindex_localtime on; }
        location /lx/ { alias {root}/html/d/; autoindex on; autoindex_localtime on; autoindex_format xml; } }";
    let server = Server::builder(conf)
        .file("html/d/big", vec![b'x'; 3_500_000])
        .file("html/d/mid", vec![b'x'; 2000])
        .environment("TZ", "Asia/Tokyo")
        .start();
    let exact = get(server.port(), "/d/").text();
    assert!(
        exact.contains("3500000") || exact.contains("3,500,000") || exact.contains("3 500 000"),
        "{exact}"
    );
    assert!(exact.contains("03:04"), "{exact}");
    let rounded = get(server.port(), "/r/").text();
    assert!(!rounded.contains("3500000"), "{rounded}");
    assert!(rounded.contains("3M") || rounded.contains("3.3") || rounded.contains("2K"), "{rounded}");
    assert!(get(server.port(), "/l/").text().contains("12:04"), "nine hours later in Tokyo");
}

#[test]
fn a_listing_is_for_folders_without_index_and_only_when_on() {
    Cases::new(
        "server { listen {port}; root {root}/html;
            location /on/ { autoindex on; autoindex_format json; }
            location /off/ { autoindex off; } }",
    )
    .file("html/on/index.html", "index")
    .file("html/off/x", "x")
    .get("/on/", "200 index")
    .get("/on/none/", "404")
    .get("/off/", "403")
    .request("HEAD /on/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "200")
    .request("POST /off/ HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "403")
    .check();
}

#[test]
fn a_folder_with_ten_thousand_entries_is_listed_whole() {
    let server =
        Server::start("server { listen {port}; root {root}/html; autoindex on; autoindex_format json; }");
    for number in 0..10_000 {
        server.write(&format!("html/many/file-{number}"), "");
    }
    let list: Vec<serde_json::Value> =
        serde_json::from_slice(&get(server.port(), "/many/").body).expect("JSON");
    assert_eq!(list.len(), 10_000);
}

#[test]
fn listings_of_links_show_what_they_lead_to_and_broken_ones_do_no_harm() {
    let server = start("server { listen {port}; root {root}/html; autoindex on; autoindex_format json; }");
    std::os::unix::fs::symlink("b.txt", server.path("html/d/link")).expect("a link");
    std::os::unix::fs::symlink("nowhere", server.path("html/d/broken")).expect("a link");
    let list: Vec<serde_json::Value> = serde_json::from_slice(&get(server.port(), "/d/").body).expect("JSON");
    let link = list.iter().find(|entry| entry["name"] == "link").expect("the link");
    assert_eq!((link["type"].as_str(), link["size"].as_u64()), (Some("file"), Some(1)));
}

#[test]
fn random_index_serves_some_file_of_the_folder() {
    let server =
        Server::builder("server { listen {port}; root {root}/html; location / { random_index on; } }")
            .file("html/d/a.txt", "a")
            .file("html/d/b.txt", "b")
            .file("html/d/.hidden", "h")
            .file("html/d/sub/x", "x")
            .file("html/none/.x", "x")
            .start();
    let mut seen = BTreeSet::new();
    for _ in 0..60 {
        let response = get(server.port(), "/d/");
        assert_eq!(response.status, 200);
        seen.insert(response.text());
    }
    assert_eq!(seen, ["a".to_owned(), "b".to_owned()].into());
    assert!(matches!(get(server.port(), "/none/").status, 403 | 404));
    assert_eq!(request(server.port(), "HEAD", "/d/", &[]).status, 200);
}
