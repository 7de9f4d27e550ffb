//! `auth_basic`, `auth_delay`, and `satisfy` over addresses and passwords.

use crate::util::{Cases, Client, Server, eventually, get, request};
use std::process::Command;
use std::time::{Duration, Instant};

/// Credentials as a field line.
fn line(credentials: &str) -> String {
    format!("Authorization: {}", value(credentials))
}

fn value(credentials: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: Vec<u8> =
        credentials.bytes().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let mut text: String = bits
        .chunks(6)
        .map(|group| {
            let value = group.iter().fold(0, |value, bit| value << 1 | bit) << (6 - group.len());
            char::from(ALPHABET[usize::from(value)])
        })
        .collect();
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    format!("Basic {text}")
}

/// A line of a password file, made by `htpasswd`.
fn htpasswd(kind: &str, user: &str, password: &str) -> String {
    let output = Command::new("htpasswd").args(["-nb", kind, user, password]).output().expect("htpasswd");
    String::from_utf8(output.stdout).expect("text").trim().to_owned() + "\n"
}

fn openssl(kind: &str, user: &str, password: &str) -> String {
    let output = Command::new("openssl").args(["passwd", kind, password]).output().expect("openssl");
    format!("{user}:{}\n", String::from_utf8(output.stdout).expect("text").trim())
}

const USERS: &str =
    "# users\nsha:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\nplain:{PLAIN}secret:comment\ndes:rEK1ecacw.7.c\n";

#[test]
fn users_of_a_file_pass_as_with_nginx() {
    let file = format!(
        "{USERS}{}{}{}{}",
        htpasswd("-m", "apache", "secret"),
        openssl("-1", "md5", "secret"),
        openssl("-5", "sha256", "secret"),
        openssl("-6", "sha512", "secret"),
    );
    let mut cases = Cases::new(
        "server { listen {port}; root {root}; auth_basic \"closed site\"; auth_basic_user_file users;
          location /open/ { auth_basic off; }
          location /none/ { auth_basic_user_file nobody; }
          location /variable/ { auth_basic \"for $arg_who\"; auth_basic_user_file $arg_file; }
          location /get/ { auth_basic off; limit_except GET { auth_basic write; auth_basic_user_file users; } } }",
    )
    .file("users", file)
    .file("other", "only:{PLAIN}x\n")
    .file("f", "file")
    .file("open/f", "open")
    .file("none/f", "none")
    .file("variable/f", "variable")
    .file("get/f", "get")
    .show(&["www-authenticate"])
    .get("/f", "401 [www-authenticate: Basic realm=\"closed site\"]")
    .get("/open/f", "200 open")
    .get("/get/f", "200 get")
    .request(
        "POST /get/f HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "401 [www-authenticate: Basic realm=\"write\"]",
    )
    .get_with("/none/f", &line("sha:secret"), "403")
    .get("/variable/f?who=me", "401 [www-authenticate: Basic realm=\"for me\"]")
    .get_with("/variable/f?file=other", &line("only:x"), "200 variable")
    .get_with("/f", "Authorization: Basic", "401 [www-authenticate: Basic realm=\"closed site\"]")
    .get_with("/f", "Authorization: Basic !!!!", "401 [www-authenticate: Basic realm=\"closed site\"]")
    .get_with("/f", &line(":secret"), "401 [www-authenticate: Basic realm=\"closed site\"]")
    .get_with("/f", &line("des:password"), "200 file")
    .get_with("/f", &line("des:passwort"), "401 [www-authenticate: Basic realm=\"closed site\"]");
    for user in ["sha", "plain", "apache", "md5", "sha256", "sha512"] {
        cases = cases.get_with("/f", &line(&format!("{user}:secret")), "200 file").get_with(
            "/f",
            &line(&format!("{user}:guess")),
            "401 [www-authenticate: Basic realm=\"closed site\"]",
        );
    }
    cases.check();
}

#[test]
fn bcrypt_and_changes_of_the_file() {
    let server = Server::start(
        "server { listen {port}; root {root}; auth_basic x; auth_basic_user_file {root}/users; }",
    );
    server.write("users", htpasswd("-B", "user", "secret"));
    server.write("f", "file");
    let ask = |credentials: &str| {
        request(server.port(), "GET", "/f", &[("Authorization", &value(credentials))]).status
    };
    // The second time it is remembered.
    assert_eq!((ask("user:secret"), ask("user:secret"), ask("user:guess")), (200, 200, 401));
    server.write("users", htpasswd("-B", "user", "changed"));
    assert_eq!((ask("user:secret"), ask("user:changed")), (401, 200));
    server.write("users", "");
    assert_eq!(ask("user:changed"), 401);
    std::fs::remove_file(server.path("users")).expect("removed");
    assert_eq!(ask("user:changed"), 403);
    eventually("the lines of the log", || {
        let log = server.error_log();
        log.contains("user \"user\": password mismatch") && log.contains("user \"user\" was not found in")
    });
}

#[test]
fn satisfy_asks_for_all_or_any() {
    for (rules, mode, open, right, wrong) in [
        ("allow 127.0.0.1; deny all;", "any", "200 file", "200 file", "200 file"),
        ("deny all;", "any", "401", "200 file", "401"),
        ("allow 127.0.0.1; deny all;", "all", "401", "200 file", "401"),
        ("deny all;", "all", "403", "403", "403"),
    ] {
        Cases::new(&format!(
            "server {{ listen {{port}}; root {{root}}; satisfy {mode}; {rules} auth_basic x; auth_basic_user_file users; }}"
        ))
        .file("users", USERS)
        .file("f", "file")
        .get("/f", open)
        .get_with("/f", &line("sha:secret"), right)
        .get_with("/f", &line("sha:guess"), wrong)
        .check();
    }
}

#[test]
fn a_refusal_may_be_delayed_and_a_welcome_is_not() {
    let server = Server::start(
        "server { listen {port}; root {root}; auth_delay 700ms; auth_basic x; auth_basic_user_file {root}/users; }",
    );
    server.write("users", USERS);
    server.write("f", "file");
    let began = Instant::now();
    let mut client = Client::connect(server.port());
    client.send("GET /f HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(request(server.port(), "GET", "/f", &[("Authorization", &value("sha:secret"))]).status, 200);
    let refusal = client.read_response();
    assert!(began.elapsed() >= Duration::from_millis(650), "it came after {:?}", began.elapsed());
    assert_eq!((refusal.status, refusal.header("www-authenticate")), (401, Some("Basic realm=\"x\"")));
}

#[test]
fn many_who_guess_keep_nobody_from_the_files() {
    let server = Server::start(
        "server { listen {port}; root {root};
          location /closed { auth_basic x; auth_basic_user_file {root}/users; } }",
    );
    server.write("users", htpasswd("-B", "user", "secret"));
    server.write("f", "file");
    server.write("closed", "closed");
    let mut guessing: Vec<Client> = (0..100).map(|_| Client::connect(server.port())).collect();
    for (number, client) in guessing.iter_mut().enumerate() {
        let field = line(&format!("user:guess{number}"));
        client.send(format!("GET /closed HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n"));
    }
    assert_eq!(get(server.port(), "/f").text(), "file");
    for client in &mut guessing {
        assert!(matches!(client.read_response().status, 401 | 503));
    }
}
