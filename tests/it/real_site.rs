//! A real site end to end: the project's own documentation, as `cargo doc` makes it, behind two virtual hosts.

use crate::util::browser::{self, Browser};
use crate::util::{Client, Server, eventually};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The documentation as the root of one host, and below a prefix of another; unknown hosts get nothing.
fn site(docs: &Path) -> String {
    let docs = docs.to_str().expect("UTF-8");
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    format!(
        "{user} worker_processes 2;
        http {{
            include {conf}/mime.types;
            sendfile on;
            tcp_nopush on;
            open_file_cache max=1000;
            server {{ listen {{port}} default_server; return 444; }}
            server {{
                listen {{port}};
                server_name docs.test;
                root {docs};
                location = / {{ return 302 /thalweg/index.html; }}
            }}
            server {{
                listen {{port}};
                server_name mirror.test *.mirror.test;
                location / {{ return 404; }}
                location = /favicon.ico {{ empty_gif; }}
                location /library/v1/ {{
                    alias {docs}/;
                    autoindex on;
                    expires 1h;
                }}
            }}
        }}",
        conf = concat!(env!("CARGO_MANIFEST_DIR"), "/conf"),
    )
}

/// The hosts, with what stands in front of the documentation's paths.
const HOSTS: [(&str, &str); 2] = [("docs.test", "/"), ("www.mirror.test", "/library/v1/")];

/// Makes the documentation (of the crate alone, in the target folder that the tests were built in) once.
fn documentation() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("has a parent");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["doc", "--locked", "--no-deps", "--lib", "--target-dir"])
            .arg(target)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::null())
            .output()
            .expect("run cargo doc");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        target.join("doc")
    })
}

/// Every file below a folder, relative to it.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).expect("read a folder").flatten() {
            match entry.file_type().expect("a type") {
                kind if kind.is_dir() => folders.push(entry.path()),
                _ => files.push(entry.path().strip_prefix(folder).expect("below").to_owned()),
            }
        }
    }
    files
}

/// A path as a URI has it: all but unreserved characters encoded.
fn encode(path: &Path) -> String {
    let mut out = String::new();
    for byte in path.to_str().expect("UTF-8").bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[test]
fn every_file_of_the_documentation_arrives_byte_for_byte() {
    let docs = documentation();
    let server = Server::start(&site(docs));
    let files = files_below(docs);
    assert!(files.len() > 100, "only {} files", files.len());
    for (host, prefix) in HOSTS {
        let mut client = Client::connect(server.port());
        for (number, file) in files.iter().enumerate() {
            // A connection may make 1,000 requests.
            if number % 1000 == 999 {
                client = Client::connect(server.port());
            }
            let uri = format!("{prefix}{}", encode(file));
            client.send(format!("GET {uri} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            let response = client.read_response();
            let expected = std::fs::read(docs.join(file)).expect("read a file");
            assert_eq!(response.status, 200, "{host}{uri}");
            assert_eq!(response.header("content-length"), Some(&*expected.len().to_string()), "{host}{uri}");
            assert!(response.body == expected, "{host}{uri} differs from the file");
        }
    }
    assert!(!server.error_log().contains("[error]"), "{}", server.error_log());
}

#[test]
fn a_browser_reads_the_documentation_without_a_complaint() {
    if !browser::available() {
        return;
    }
    let docs = documentation();
    let server = Server::start(&site(docs));
    let mut browser = Browser::start();
    let mut responses = 0;
    for (host, prefix) in HOSTS {
        let base = format!("http://{host}:{}{prefix}", server.port());
        for page in [
            "thalweg/index.html",
            "thalweg/http/exchange/struct.Exchange.html",
            "src/thalweg/lib.rs.html",
            "settings.html",
            "thalweg/index.html?search=exchange",
        ] {
            let seen = browser.visit(&format!("{base}{page}"));
            assert_eq!(seen.problems, [""; 0], "{base}{page}");
            let refused: Vec<_> = seen.responses.iter().filter(|(status, _)| *status >= 400).collect();
            assert!(refused.is_empty(), "{base}{page}: {refused:?}");
            let title = browser.evaluate("document.title");
            assert!(title.as_str().is_some_and(|title| !title.is_empty()), "{base}{page}: {title}");
            responses += seen.responses.len();
        }
        // The search loads an index of many parts by script.
        eventually("results of the search", || {
            browser.evaluate("document.querySelectorAll('.search-results a').length").as_u64() > Some(0)
        });
        let later = browser.since();
        assert_eq!(later.problems, [""; 0], "{base}");
        assert!(later.responses.iter().all(|(status, _)| *status < 400), "{:?}", later.responses);
    }
    assert!(responses > 40, "only {responses} responses");

    let listing = browser.visit(&format!("http://www.mirror.test:{}/library/v1/", server.port()));
    assert_eq!(listing.problems, [""; 0]);
    assert_eq!(
        browser.evaluate("[...document.links].some(link => link.textContent.startsWith('thalweg'))"),
        true
    );
    drop(browser);

    // The other side of it: no status of an error, and no error line. What the browser has kept it did not ask for.
    let lines = server.access_log_lines(responses / 4);
    let refused: Vec<_> = lines.iter().filter(|line| !status_of(line).starts_with(['2', '3'])).collect();
    assert!(refused.is_empty(), "{refused:?}");
    assert!(!server.error_log().contains("[error]"), "{}", server.error_log());
}

/// The status in a line of the `combined` format: what follows the quoted request.
fn status_of(line: &str) -> &str {
    line.split('"').nth(2).unwrap_or_default().trim_start().get(..3).unwrap_or_default()
}
