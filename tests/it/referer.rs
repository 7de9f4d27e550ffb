//! `valid_referers`.

use crate::util::Cases;

#[test]
fn names_paths_and_expressions() {
    Cases::new(
        r"server { listen {port}; server_name own.org *.own.net;
           valid_referers none server_names *.example.com example.* www.test.org/galleries/ ~\.google\.;
           return 200 [$invalid_referer]; }",
    )
    .get("/", "200 []")
    .get_with("/", "Referer: http://own.org/a/b", "200 []")
    .get_with("/", "Referer: http://x.own.net/", "200 []")
    .get_with("/", "Referer: https://a.example.com:8443/x", "200 []")
    .get_with("/", "Referer: http://example.net", "200 []")
    .get_with("/", "Referer: HTTP://WWW.TEST.ORG/galleries/1", "200 []")
    .get_with("/", "Referer: http://www.test.org/other", "200 [1]")
    .get_with("/", "Referer: http://www.google.com/?q=x", "200 []")
    .get_with("/", "Referer: http://evil.com/www.google.com", "200 []")
    .get_with("/", "Referer: http://evil.com/", "200 [1]")
    .get_with("/", "Referer: ftp://own.org/", "200 [1]")
    .get_with("/", "Referer: x", "200 [1]")
    .get_with("/", "Referer: ", "200 [1]")
    .check();
}

#[test]
fn blocked_referers_and_scopes() {
    Cases::new(
        "server { listen {port}; valid_referers blocked a.com; add_header X-Invalid [$invalid_referer] always;
           location / { return 200 ok; }
           location /none { valid_referers none b.com; return 200 ok; }
           location /if { if ($invalid_referer) { return 403; } return 200 ok; } }",
    )
    .show(&["x-invalid"])
    .get("/", "200 ok [x-invalid: [1]]")
    .get_with("/", "Referer: hidden-by-a-proxy", "200 ok [x-invalid: []]")
    .get_with("/none", "Referer: http://evil.com/", "200 ok [x-invalid: [1]]")
    .get("/none", "200 ok [x-invalid: []]")
    .get_with("/if", "Referer: http://evil.com/", "403 [x-invalid: [1]]")
    .get_with("/if", "Referer: http://a.com/", "200 ok [x-invalid: []]")
    .check();
}
