//! `cors`, a directive of ours.

use crate::util::{Response, Server, request};

fn ask(server: &Server, method: &str, path: &str, fields: &[(&str, &str)]) -> Response {
    request(server.port(), method, path, fields)
}

#[test]
fn preflights_and_responses_of_every_status() {
    let server = Server::start(
        "server { listen {port}; root {root};
          cors origin=https://app.test,https://*.sites.test methods=GET,PUT headers=X-Token credentials max_age=10m;
          location /closed { deny all; }
          location /open { cors origin=*; return 200 open; } }",
    );
    let preflight = [
        ("Origin", "https://a.sites.test"),
        ("Access-Control-Request-Method", "PUT"),
        ("Access-Control-Request-Headers", "x-token"),
    ];
    let response = ask(&server, "OPTIONS", "/closed", &preflight);
    assert_eq!((response.status, response.body.len()), (204, 0));
    for (name, value) in [
        ("access-control-allow-origin", "https://a.sites.test"),
        ("access-control-allow-methods", "GET, PUT"),
        ("access-control-allow-headers", "X-Token"),
        ("access-control-allow-credentials", "true"),
        ("access-control-max-age", "600"),
        ("vary", "Origin"),
    ] {
        assert_eq!(response.header(name), Some(value), "{name}");
    }
    for (path, status) in [("/closed", 403), ("/none", 404)] {
        let response = ask(&server, "GET", path, &[("Origin", "https://app.test")]);
        assert_eq!(response.status, status);
        assert_eq!(response.header("access-control-allow-origin"), Some("https://app.test"));
    }
    let response = ask(&server, "GET", "/none", &[("Origin", "https://evil.test")]);
    assert_eq!(
        (response.header("access-control-allow-origin"), response.header("vary")),
        (None, Some("Origin"))
    );
    let response = ask(&server, "GET", "/open", &[("Origin", "https://evil.test")]);
    assert_eq!((response.header("access-control-allow-origin"), response.header("vary")), (Some("*"), None));
}

#[test]
fn credentials_for_everybody_are_refused() {
    let output = Server::builder("http {\n server {\n  cors origin=* credentials;\n }\n}").run(&["-t"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stderr.contains("cannot have \"credentials\""), "{}", output.stderr);
}
