//! The sample configurations in `conf/`.

use crate::util::{Server, Upstream, get};
use std::process::Command;

fn folder() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("conf")
}

#[test]
fn every_sample_passes_the_test_without_a_remark() {
    let mut samples = 0;
    for entry in std::fs::read_dir(folder()).expect("conf").flatten() {
        let name = entry.file_name().into_string().expect("UTF-8");
        if !name.ends_with(".conf") {
            continue;
        }
        let output = Command::new(env!("CARGO_BIN_EXE_thalweg"))
            .args(["-t", "-q", "-e", "stderr", "-c", &name, "-p"])
            .arg(folder())
            .output()
            .expect("run the program");
        assert!(output.status.success() && output.stderr.is_empty(), "{name}: {output:?}");
        samples += 1;
    }
    assert!(samples >= 2);
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
