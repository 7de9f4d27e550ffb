//! What `-t`, `-T` and `-q` say, and how.

use crate::util::{Output, Server, subject_is_ours};

/// What `-t` says about this text, with the file's place made short.
fn diagnose(text: &str) -> (Option<i32>, String) {
    said(Server::builder(text).run(&["-t"]))
}

fn said(output: Output) -> (Option<i32>, String) {
    let root = format!("{}/", output.root.display());
    (output.status.code(), output.stderr.replace(&root, ""))
}

/// The diagnostics are ours; nginx stops at the first error and shows no source.
macro_rules! ours_only {
    () => {
        if !subject_is_ours() {
            return;
        }
    };
}

#[test]
fn success_and_failure_are_told_as_scripts_expect() {
    let (status, text) = diagnose("http { server { listen 1 default_server; } }");
    assert_eq!(status, Some(0), "{text}");
    let name = if subject_is_ours() { "thalweg" } else { "nginx" };
    assert!(text.contains(&format!("{name}: the configuration file nginx.conf syntax is ok")), "{text}");
    assert!(text.contains(&format!("{name}: configuration file nginx.conf test is successful")), "{text}");
    let (status, text) = diagnose("http {\n  foo;\n}");
    assert_eq!(status, Some(1));
    assert!(text.contains(&format!("{name}: [emerg] unknown directive \"foo\" in nginx.conf:2\n")), "{text}");
    assert!(text.contains(&format!("{name}: configuration file nginx.conf test failed")), "{text}");
}

#[test]
fn quiet_says_only_errors() {
    let (status, text) = said(Server::builder("http { server { listen 1; } }").run(&["-t", "-q"]));
    assert_eq!(
        (status, text.contains("syntax is ok"), text.contains("successful")),
        (Some(0), false, false),
        "{text}"
    );
    let (status, text) = said(Server::builder("foo;").run(&["-t", "-q"]));
    assert_eq!(status, Some(1));
    assert!(text.contains("unknown directive"), "{text}");
}

#[test]
fn all_errors_come_in_one_run() {
    ours_only!();
    let (status, text) = diagnose(
        "http {\n  foo;\n  root a b;\n  server {\n    listen 99999;\n    bar 1;\n    client_max_body_size 1x;\n  }\n  server { location / { baz; } }\n}",
    );
    assert_eq!(status, Some(1));
    for place in
        ["nginx.conf:2", "nginx.conf:3", "nginx.conf:5", "nginx.conf:6", "nginx.conf:7", "nginx.conf:9"]
    {
        assert!(
            text.lines().any(|line| line.contains("[emerg]") && line.ends_with(place)),
            "{place} in\n{text}"
        );
    }
}

#[test]
fn a_caret_marks_the_place_in_the_source() {
    ours_only!();
    let (_, text) = diagnose("http {\n  server {\n    rooot /srv;\n  }\n}");
    let lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().position(|line| line.contains("rooot /srv;")).expect(&text);
    assert!(lines[at].trim_start().starts_with("3 |"), "{text}");
    let source = lines[at].find("rooot").expect("the source");
    let caret = lines[at + 1].find("^^^^^").expect(&text);
    assert_eq!(source, caret, "{text}");
}

#[test]
fn the_nearest_name_is_suggested() {
    ours_only!();
    for (text, wanted) in [
        ("http { server { rooot /x; } }", "root"),
        ("http { server { serve_name x; } }", "server_name"),
        ("http { server { lisen 80; } }", "listen"),
        ("http { server { acess_log off; } }", "access_log"),
        ("http { sevrer { } }", "server"),
        ("http { server { locaton / { } } }", "location"),
    ] {
        let (status, said) = diagnose(text);
        assert_eq!(status, Some(1));
        assert!(said.contains(&format!("did you mean `{wanted}`?")), "{text}\n{said}");
    }
    let (_, said) = diagnose("http { xyzzyplugh 1; }");
    assert!(!said.contains("did you mean"), "{said}");
}

#[test]
fn a_missing_semicolon_is_shown_where_it_should_be() {
    ours_only!();
    let (status, text) =
        diagnose("http {\n  server {\n    root /srv\n    index index.html;\n    listen 80;\n  }\n}");
    assert_eq!(status, Some(1));
    assert!(text.contains("`;` seems to be missing here"), "{text}");
    let (status, text) = diagnose("http {\n  server {\n    listen 80\n    server_name a;\n  }\n}");
    assert_eq!(status, Some(1));
    assert!(text.contains("`;` seems to be missing here"), "{text}");
    let (status, text) = diagnose("http {\n  server {\n    listen 80;\n    root /srv\n  }\n}");
    assert_eq!(status, Some(1));
    assert!(
        text.contains("`;` seems to be missing here") || text.contains("is not terminated by \";\""),
        "{text}"
    );
    assert!(text.contains("4 |"), "{text}");
}

#[test]
fn an_unclosed_brace_is_shown_where_it_began() {
    ours_only!();
    let (status, text) = diagnose(
        "events { }\nhttp {\n  server {\n    listen 80;\n    location / {\n      root /srv;\n  }\n}\n",
    );
    assert_eq!(status, Some(1));
    assert!(text.contains("unexpected end of file, expecting \"}\""), "{text}");
    // The innermost that has no end, or the one that the indentation tells.
    assert!(text.contains("http {") || text.contains("location / {"), "{text}");
    let (status, text) = diagnose("http {\n  server {\n    return 200 \"never ends;\n  }\n}\n");
    assert_eq!(status, Some(1));
    assert!(text.contains("3 |"), "where the quote began: {text}");
}

#[test]
fn a_directive_in_the_wrong_place_is_told_where_it_belongs() {
    ours_only!();
    let (status, text) = diagnose("root /srv;\nhttp { worker_processes 1; }");
    assert_eq!(status, Some(1));
    assert!(text.contains("\"root\" directive is not allowed here in nginx.conf:1"), "{text}");
    assert!(text.contains("belongs in http, server, location"), "{text}");
    assert!(text.contains("belongs in main"), "{text}");
}

#[test]
fn a_directive_that_is_known_but_not_built_is_told_so() {
    ours_only!();
    let (status, text) = diagnose("http { server { location / {\n fastcgi_pass localhost:9000;\n } } }");
    assert_eq!(status, Some(1));
    let line = text.lines().find(|line| line.contains("[emerg]")).expect(&text);
    assert!(
        line.contains("\"fastcgi_pass\" is known to nginx")
            && line.contains("not built")
            && line.ends_with("nginx.conf:2"),
        "{line}"
    );
    assert!(!text.contains("did you mean"), "{text}");
}

#[test]
fn errors_in_included_files_name_file_and_chain() {
    ours_only!();
    let output = Server::builder("http {\n  include sites/a.conf;\n}")
        .file("sites/a.conf", "\nserver {\n  include parts/b.conf;\n}\n")
        .file("parts/b.conf", "root /srv;\n\nnonsense 1;\n")
        .run(&["-t"]);
    let (status, text) = said(output);
    assert_eq!(status, Some(1));
    assert!(text.contains("unknown directive \"nonsense\" in parts/b.conf:3"), "{text}");
    assert!(text.contains("sites/a.conf:3"), "{text}");
    assert!(text.contains("nginx.conf:2"), "{text}");
}

#[test]
fn traps_are_warned_about_with_file_and_line() {
    ours_only!();
    for (text, place, words) in [
        (
            "http { server { listen 1 default_server;\n location /a { alias /srv/; } } }",
            "nginx.conf:2",
            &["alias", "slash"][..],
        ),
        (
            "http { server { listen 1 default_server;\n location /a/ { alias /srv; } } }",
            "nginx.conf:2",
            &["alias", "slash"],
        ),
        (
            "http { server { listen 1 default_server; add_header A a;\n location / { add_header B b; } } }",
            "nginx.conf:2",
            &["add_header"],
        ),
        (
            "http {\n server { listen 1; server_name a; }\n server { listen 1; server_name b; } }",
            "nginx.conf:2",
            &["default_server"],
        ),
        (
            "http { server { listen 1 default_server; location / {\n if ($arg_a) { root /x; } } } }",
            "nginx.conf:2",
            &["if"],
        ),
    ] {
        let (status, said) = diagnose(text);
        assert_eq!(status, Some(0), "{text}\n{said}");
        let line = said
            .lines()
            .find(|line| line.contains("[warn]"))
            .unwrap_or_else(|| panic!("no warning: {text}\n{said}"));
        assert!(line.ends_with(place), "{line}");
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
}

#[test]
fn no_warning_where_there_is_no_trap() {
    ours_only!();
    for text in [
        "http { server { listen 1 default_server; location /a/ { alias /srv/; } location /b { alias /srv/b; } } }",
        "http { server { listen 1; } }",
        "http { add_header A a; server { listen 1 default_server; location / { root /x; } } }",
        "http { server { listen 1 default_server; location / { if ($arg_a) { return 403; } } } }",
        "http { server { listen 1 default_server; if ($host = a) { return 301 http://b$request_uri; } } }",
        "http { server { listen 1 default_server; location / { if ($arg_a) { rewrite ^ /b last; } } } }",
        "http { server { listen 1 default_server; server_name a; } server { listen 1; server_name b; } }",
    ] {
        let (status, said) = diagnose(text);
        assert_eq!(status, Some(0), "{text}\n{said}");
        assert!(!said.contains("[warn]"), "{text}\n{said}");
    }
}

#[test]
fn the_configuration_is_printed_with_markers_of_its_files() {
    let output = Server::builder("http {\n  include a.conf;\n  include a.conf;\n}\n")
        .file("a.conf", "# in a\n")
        .run(&["-T"]);
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    let root = output.root.display();
    let main =
        output.stdout.find(&format!("# configuration file {root}/nginx.conf:\n")).expect(&output.stdout);
    let second =
        output.stdout.find(&format!("# configuration file {root}/a.conf:\n# in a\n")).expect(&output.stdout);
    assert!(main < second);
    assert_eq!(output.stdout.matches("# in a").count(), 1, "each file once: {}", output.stdout);
    assert!(output.stderr.contains("syntax is ok"), "{}", output.stderr);
}

#[test]
fn an_error_in_a_printed_configuration_prints_only_the_error() {
    let output = Server::builder("http { foo; }").run(&["-T"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stderr.contains("unknown directive \"foo\""), "{}", output.stderr);
}

#[test]
fn testing_needs_no_name_service_and_opens_no_port_and_no_log() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let output = Server::builder(&format!(
        "error_log logs/deep/error.log; http {{ access_log no/such/folder/access.log; server {{ listen 127.0.0.1:{port}; }} }}"
    ))
    .run(&["-t"]);
    if subject_is_ours() {
        assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    }
}

#[test]
fn a_missing_configuration_file_is_told() {
    let output = Server::builder("").run(&["-c", "/nonexistent/nginx.conf", "-t"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        output.stderr.contains("open() \"/nonexistent/nginx.conf\" failed (2: No such file or directory)"),
        "{}",
        output.stderr
    );
}

#[test]
fn an_error_at_start_is_shown_and_ends_the_start() {
    let output = Server::builder("http {\n  foo;\n}").run(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stderr.contains("unknown directive \"foo\""), "{}", output.stderr);
}

#[test]
fn many_errors_are_bounded() {
    ours_only!();
    let text = format!("http {{\n{}\n}}", "nonsense;\n".repeat(20_000));
    let (status, said) = diagnose(&text);
    assert_eq!(status, Some(1));
    assert!(said.len() < 2_000_000, "{} bytes", said.len());
}

#[test]
fn source_lines_with_odd_bytes_are_shown_safely() {
    ours_only!();
    let (status, text) = diagnose("http {\n  föö \u{1b}[31m\tbar;\n}");
    assert_eq!(status, Some(1));
    assert!(!text.contains('\u{1b}'), "{text:?}");
}
