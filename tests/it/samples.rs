//! The sample configurations in `conf/`.

use crate::util::browser::{self, Browser};
use crate::util::tls::{has, run};
use crate::util::{Server, Upstream, eventually, get, raw};
use std::path::Path;
use std::process::Command;

fn folder() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("conf")
}

/// The command that makes the certificate of `https.conf`, as the README has it; the sample's comment says the same.
fn certificate_command() -> String {
    let read = |path: &str| {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
            .expect("a file of the project")
    };
    let readme = read("README.md");
    let mut commands = readme.lines().filter_map(|line| line.strip_prefix("    openssl req "));
    let command = commands.next().expect("a command in the README");
    assert_eq!(commands.next(), None, "one command is enough");
    let sample = read("conf/https.conf").replace("\\\n#", "");
    let words = |text: &str| text.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
    assert!(
        words(&sample).contains(&format!("openssl req {}", words(command))),
        "the sample's command differs"
    );
    format!("openssl req {command}")
}

/// Runs that command in a folder, by a shell, as a reader would.
fn make_certificate(folder: &Path) {
    let script = format!("cd \"$0\" && {}", certificate_command());
    let said = run("sh", &["-c", &script, folder.to_str().expect("UTF-8")], b"");
    assert_eq!(said.code, 0, "{}", said.stderr);
}

/// A copy of the samples, to play with.
fn copy() -> tempfile::TempDir {
    let place = tempfile::tempdir().expect("a folder");
    let said =
        Command::new("cp").arg("-r").arg(folder().join(".")).arg(place.path()).status().expect("run cp");
    assert!(said.success());
    place
}

#[test]
fn every_sample_passes_the_test_without_a_remark() {
    let copy = copy();
    let has_certificate = has("openssl");
    if has_certificate {
        make_certificate(copy.path());
    }
    let mut samples = 0;
    for entry in std::fs::read_dir(copy.path()).expect("conf").flatten() {
        let name = entry.file_name().into_string().expect("UTF-8");
        if !name.ends_with(".conf") || name == "https.conf" && !has_certificate {
            continue;
        }
        let output = Command::new(env!("CARGO_BIN_EXE_thalweg"))
            .args(["-t", "-q", "-e", "stderr", "-c", &name, "-p"])
            .arg(copy.path())
            .output()
            .expect("run the program");
        assert!(output.status.success() && output.stderr.is_empty(), "{name}: {output:?}");
        samples += 1;
    }
    assert!(samples >= 3);
}

/// The demo site over HTTPS as the sample serves it, its redirects' ports excepted.
fn https_sample() -> Server {
    let text = std::fs::read_to_string(folder().join("https.conf")).expect("the sample");
    let text = text
        .replace("127.0.0.1:8080", "127.0.0.1:{port}")
        .replace("127.0.0.1:8443", "127.0.0.1:{port2}")
        .replace(":8443$", ":{port2}$")
        .replace("/dev/stdout", "access.log")
        .replace("worker_processes auto;", "worker_processes 1;")
        .replace("/tmp/thalweg-https.pid", "https.pid");
    let mut builder = Server::builder(&text);
    let copy = copy();
    make_certificate(copy.path());
    for path in
        ["mime.types", "localhost.pem", "localhost.key"].map(str::to_owned).into_iter().chain(demo_files())
    {
        builder = builder.file(&path, std::fs::read(copy.path().join(&path)).expect("a file of the sample"));
    }
    builder.start()
}

/// Every file of the demo site, by its path in `conf/`.
fn demo_files() -> Vec<String> {
    let mut files = Vec::new();
    let mut folders = vec![folder().join("demo")];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).expect("a folder").flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path => files.push(
                    path.strip_prefix(folder()).expect("below conf").to_str().expect("UTF-8").to_owned(),
                ),
            }
        }
    }
    files
}

#[test]
fn a_browser_shows_the_demo_site_over_https_and_http2() {
    if !has("openssl") || !browser::available() {
        return;
    }
    let server = https_sample();
    let mut browser = Browser::start_with("--ignore-certificate-errors");
    // The plain port leads to the other one.
    let seen = browser.visit(&format!("http://localhost:{}/", server.port()));
    assert_eq!(seen.problems, [""; 0]);
    assert_eq!(browser.evaluate("location.href"), format!("https://localhost:{}/", server.port_of(2)));
    assert_eq!(browser.evaluate("document.querySelector('h1').textContent"), "It runs.");
    let shown = "[...document.images].every(image => image.complete && image.naturalWidth > 0) \
                 && getComputedStyle(document.querySelector('.cards')).display == 'grid'";
    assert_eq!(browser.evaluate(shown), true, "images and styles are there");
    let entries =
        "performance.getEntriesByType('navigation').concat(performance.getEntriesByType('resource'))";
    let protocols = format!("[...new Set({entries}.map(entry => entry.nextHopProtocol))].join()");
    assert_eq!(browser.evaluate(&protocols), "h2");
    assert!(
        seen.responses.len() >= 4 && seen.responses.iter().all(|(status, _)| matches!(status, 200 | 302)),
        "{seen:?}"
    );
    let log = || std::fs::read_to_string(server.path("access.log")).unwrap_or_default();
    eventually("the line", || log().contains("\"GET / HTTP/2.0\" 200") && log().contains("TLSv1.3"));
}

#[test]
fn curl_believes_the_sample_of_https_and_comes_back_with_its_session() {
    if !has("openssl") || !has("curl") {
        return;
    }
    let server = https_sample();
    let authority = server.path("localhost.pem");
    let authority = authority.to_str().expect("UTF-8");
    let url = format!("https://localhost:{}/", server.port_of(2));
    let said = run("curl", &["-sS", "-i", "--cacert", authority, &url], b"").text();
    assert!(said.starts_with("HTTP/2 200") && said.contains("It runs."), "{said}");
    assert!(said.to_ascii_lowercase().contains("strict-transport-security: max-age=300"), "{said}");
    let address = format!("127.0.0.1:{}", server.port_of(2));
    let again = run("openssl", &["s_client", "-connect", &address, "-tls1_2", "-reconnect"], b"").text();
    assert_eq!(again.matches("Reused, ").count(), 5, "{again}");
    // Plain HTTP is led right on both ports.
    for port in [server.port(), server.port_of(2)] {
        let answer = raw(port, "GET /files/?a=b HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("an answer");
        assert_eq!((answer.status, answer.header("location")), (302, Some(&*format!("{url}files/?a=b"))));
    }
}

/// The sample of a proxy, in front of these two ports.
fn proxy_sample(first: u16, second: u16) -> Server {
    let text = std::fs::read_to_string(folder().join("reverse-proxy.conf")).expect("the sample");
    let text = text
        .replace("listen 8080", "listen {port}")
        .replace("127.0.0.1:8081", &format!("127.0.0.1:{first}"))
        .replace("127.0.0.1:8082", &format!("127.0.0.1:{second}"))
        .replace("worker_processes auto;", "worker_processes 1;");
    Server::builder(&text)
        .file("mime.types", std::fs::read(folder().join("mime.types")).expect("types"))
        .file("demo/assets/a.css", "body {}")
        .start()
}

/// A port that nobody listens on.
fn closed_port() -> u16 {
    Upstream::http(|_, _| Vec::new()).port()
}

#[test]
fn behind_the_sample_of_a_proxy_a_server_that_is_gone_is_missed_by_nobody() {
    let application = Upstream::http(|_, _| b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_vec());
    let server = proxy_sample(application.port(), closed_port());
    for _ in 0..4 {
        assert_eq!(get(server.port(), "/").text(), "hello");
    }
    let asset = get(server.port(), "/assets/a.css");
    assert_eq!((asset.text().as_str(), asset.header("content-type")), ("body {}", Some("text/css")));
}

#[test]
fn the_sample_of_a_proxy_has_a_page_for_when_nobody_answers() {
    let server = proxy_sample(closed_port(), closed_port());
    let page = get(server.port(), "/");
    assert_eq!(
        (page.status, page.text().as_str()),
        (503, "The application does not answer at the moment.\n")
    );
}
