//! The configuration language: its grammar, includes, values, inheritance, and whole configurations as people have them.

use crate::util::{Cases, Output, Server, get, nginx, subject_is_ours};

/// What `-t` says about this text.
fn test(text: &str) -> Output {
    Server::builder(text).run(&["-t"])
}

#[track_caller]
fn accepts(text: &str) -> Output {
    let output = test(text);
    assert_eq!(output.status.code(), Some(0), "{text}\n{}", output.stderr);
    output
}

#[track_caller]
fn refuses(text: &str, message: &str) -> Output {
    let output = test(text);
    assert_eq!(output.status.code(), Some(1), "{text}\n{}", output.stderr);
    assert!(output.stderr.contains(message), "{text}\n{message:?} is not in\n{}", output.stderr);
    output
}

#[test]
fn words_quotes_escapes_and_comments() {
    Cases::new(
        r##"server { listen {port}; # a comment with ; { } " '
            location /plain { return 200 a#b; }
            location /double { return 200 "a b;{}'#"; }
            location /single { return 200 'a b;{}"#'; }
            location /escaped-quote { return 200 "a\"b\\c"; }
            location /escapes { return 200 "a\tb\nc"; }
            location /other-escape { return 200 "a\d\.b"; }
            location /bare-escape { return 200 a\ b\;c; }
            location /braces { return 200 ${request_method}x; }
            location /braces-quoted { return 200 "${request_method}x"; }
            location "/quoted location" { return 200 quoted; }
            location /several { return
                200
                text ; }
            location /empty { return 200 ""; } }"##,
    )
    .get("/plain", "200 a#b")
    .get("/double", "200 a b;{}'#")
    .get("/single", "200 a b;{}\"#")
    .get("/escaped-quote", "200 a\"b\\c")
    .get("/escapes", "200 a\tb\nc")
    .get("/other-escape", "200 a\\d\\.b")
    .get("/bare-escape", r"200 a\ b\;c")
    .get("/braces", "200 GETx")
    .get("/braces-quoted", "200 GETx")
    .get("/quoted%20location", "200 quoted")
    .get("/several", "200 text")
    .get("/empty", "200")
    .check();
}

#[test]
fn line_ends_of_other_systems_and_tabs_are_white_space() {
    Cases::new("server\t{\r\n\tlisten\t{port};\r\n\treturn 200\r\n\t\tx;\r\n}\r\n").get("/", "200 x").check();
}

#[test]
fn includes_are_found_beside_the_configuration_and_by_pattern() {
    let server = Server::builder(
        "include {root}/absolute.conf; include none/*.conf;
         server { listen {port}; include parts/*.conf; include one.conf; location /map { return 200 $x; } }",
    )
    .file("absolute.conf", "map $uri $x { default mapped; }")
    .file("parts/c.txt", "nonsense")
    .file("parts/2.conf", "location /two { include deeper/three.conf; }\n")
    .file("parts/1.conf", "location /one { return 200 one; }")
    .file("deeper/three.conf", "return 200 two;")
    .file("one.conf", "location /last { return 200 last; }")
    .start();
    assert_eq!(get(server.port(), "/one").text(), "one");
    assert_eq!(get(server.port(), "/two").text(), "two");
    assert_eq!(get(server.port(), "/last").text(), "last");
    assert_eq!(get(server.port(), "/map").text(), "mapped");
}

#[test]
fn patterns_are_expanded_in_order() {
    // The first server of an address is its default: the order of the files decides.
    let server = Server::builder("http { server { listen {port}; return 200 main; } include list/*; }")
        .file("list/10", "map $uri $ten { default 10; }")
        .file("list/2", "map $uri $two { default 2; }")
        .start();
    assert_eq!(get(server.port(), "/").text(), "main");
}

#[test]
fn a_missing_include_is_an_error_but_an_empty_pattern_is_not() {
    refuses("http { include none.conf; }", "open() \"");
    accepts("http { include none*.conf; }");
}

#[test]
fn sizes_times_and_flags() {
    for value in ["1", "1k", "1K", "1m", "1M", "2g", "2G", "0"] {
        accepts(&format!("http {{ client_max_body_size {value}; }}"));
    }
    for value in ["1x", "k", "-1", "1.5m", "99999999999999999999", "1 m"] {
        let output = test(&format!("http {{ client_max_body_size {value}; }}"));
        assert_eq!(output.status.code(), Some(1), "{value}: {}", output.stderr);
    }
    for value in ["1", "1s", "1m", "1h", "1d", "1w", "100ms", "1h30m", "1d 2h", "'1m 30s'", "0"] {
        let quoted = if value.contains(' ') && !value.starts_with('\'') {
            format!("\"{value}\"")
        } else {
            value.to_owned()
        };
        accepts(&format!("http {{ send_timeout {quoted}; }}"));
    }
    for value in ["1q", "s", "30m1h", "1.5s", "-1", "1s1s"] {
        let output = test(&format!("http {{ send_timeout {value}; }}"));
        assert_eq!(output.status.code(), Some(1), "{value}: {}", output.stderr);
    }
    for value in ["on", "off", "ON", "Off"] {
        accepts(&format!("http {{ sendfile {value}; }}"));
    }
    refuses(
        "http { sendfile yes; }",
        "invalid value \"yes\" in \"sendfile\" directive, it must be \"on\" or \"off\"",
    );
}

#[test]
fn contexts_arity_and_duplicates_are_checked_as_nginx_does() {
    let mut report = String::new();
    for (text, message) in [
        ("http { root; }", "invalid number of arguments in \"root\" directive"),
        ("http { root a b; }", "invalid number of arguments in \"root\" directive"),
        ("http { server { server { } } }", "\"server\" directive is not allowed here"),
        ("server { }\nhttp { }", "\"server\" directive is not allowed here"),
        ("http { listen 80; }", "\"listen\" directive is not allowed here"),
        ("http { root a; root b; }", "\"root\" directive is duplicate"),
        ("http { server { location / { } location / { } } }", "duplicate location \"/\""),
        ("http { } http { }", "\"http\" directive is duplicate"),
        ("http { server { root a; alias b; } }", "\"alias\" directive is not allowed here"),
        (
            "http { server { location / { root a; alias b; } } }",
            "\"alias\" directive is duplicate, \"root\" directive was specified earlier",
        ),
        ("http { server { listen 1; listen 1; } }", "a duplicate listen 0.0.0.0:1"),
        (
            "http { server { listen 1 default_server; } server { listen 1 default_server; } }",
            "a duplicate default server for 0.0.0.0:1",
        ),
        ("http { server { location /a { location /b { } } } }", "location \"/b\" is outside location \"/a\""),
        (
            "http { server { location @a { location /b { } } } }",
            "location \"/b\" cannot be inside the named location \"@a\"",
        ),
        (
            "http { server { location = /a { location /b { } } } }",
            "location \"/b\" cannot be inside the exact location \"/a\"",
        ),
        ("http { server { location ~ ( { } } }", "failed"),
        ("http { server { location x; } }", "directive \"location\" has no opening \"{\""),
        ("http { server { if ($a { } } }", "invalid condition"),
        ("http { server { rewrite ^; } }", "invalid number of arguments in \"rewrite\" directive"),
        ("http { server { rewrite ^ / sideways; } }", "invalid parameter \"sideways\""),
        ("http { server { return abc; } }", "invalid return code \"abc\""),
        ("http { server { set a b; } }", "invalid variable name \"a\""),
        ("http { server { set $request_uri b; } }", "the duplicate \"request_uri\" variable"),
        ("http { server { error_page 200 /; } }", "value \"200\" must be between 300 and 599"),
        ("http { server { error_page 404; } }", "invalid number of arguments in \"error_page\" directive"),
        ("http { server { location / { allow 300.1.1.1; } } }", "invalid parameter \"300.1.1.1\""),
        ("http { log_format a b; log_format a c; }", "duplicate \"log_format\" name \"a\""),
        ("http { access_log x none; }", "unknown log format \"none\""),
        ("http { server { listen 80 nonsense; } }", "invalid parameter \"nonsense\""),
        ("http { server { listen 70000; } }", "invalid port in \"70000\" of the \"listen\" directive"),
        ("http { server { server_name ~(; } }", "failed"),
        ("http { map a { } }", "invalid number of arguments in \"map\" directive"),
        ("http { map $a b { } }", "invalid variable name \"b\""),
        ("worker_processes x; http { }", "\"worker_processes\" directive invalid value"),
        ("error_log a nonsense;", "invalid log level \"nonsense\""),
        (
            "http { server { location / { internal on; } } }",
            "invalid number of arguments in \"internal\" directive",
        ),
        ("http { server { try_files a; } }", "invalid number of arguments in \"try_files\" directive"),
        ("http { server { satisfy some; } }", "invalid value \"some\""),
        ("http { server { location / { expires soon; } } }", "invalid value"),
    ] {
        let mut check = |who: &str, output: Output| {
            if output.status.code() != Some(1) || !output.stderr.contains(message) {
                report.push_str(&format!("{who} on {text}\n  not {message:?} but {}\n", output.stderr));
            }
        };
        check("ours", test(text));
        // The words are nginx's own.
        if nginx::available() && subject_is_ours() {
            check("nginx", nginx::Nginx::builder(text).run(&["-t"]));
        }
    }
    assert!(report.is_empty(), "{report}");
}

#[test]
fn warnings_that_are_not_errors_stay_warnings() {
    for (text, message) in [
        (
            "http { server { listen 1; server_name a; } server { listen 1; server_name a; } }",
            "conflicting server name \"a\"",
        ),
        ("http { types { a/b x; c/d x; } }", "duplicate extension \"x\""),
    ] {
        let output = accepts(text);
        assert!(output.stderr.contains("[warn]") && output.stderr.contains(message), "{}", output.stderr);
    }
}

#[test]
fn what_has_no_meaning_here_is_accepted_checked_and_named_once() {
    let text = "worker_processes 1; timer_resolution 1ms; lock_file x; events { use epoll; multi_accept on; accept_mutex off; worker_aio_requests 1; }
        http { server_names_hash_max_size 512; server_names_hash_bucket_size 64; types_hash_max_size 2048; variables_hash_max_size 1024;
            variables_hash_bucket_size 64; map_hash_max_size 2048; connection_pool_size 512; request_pool_size 4k; output_buffers 1 32k;
            server { listen 1; } }";
    let output = accepts(text);
    if subject_is_ours() {
        let lines: Vec<&str> =
            output.stderr.lines().filter(|line| line.contains("without meaning here")).collect();
        assert_eq!(lines.len(), 1, "{}", output.stderr);
        for name in ["accept_mutex", "server_names_hash_max_size", "connection_pool_size"] {
            assert!(lines[0].contains(name), "{}", lines[0]);
        }
    }
    refuses(
        "http { connection_pool_size; }",
        "invalid number of arguments in \"connection_pool_size\" directive",
    );
    refuses("http { connection_pool_size all; }", "\"connection_pool_size\" directive invalid value");
    refuses("http { types_hash_max_size 1m; }", "\"types_hash_max_size\" directive invalid number");
}

#[test]
fn directives_inherit_level_by_level() {
    Cases::new(
        "root {root}/http; index http.html;
         server { listen {port}; 
            location /a/ { root {root}/location; }
            location /b/ { index b.html; location /b/c/ { root {root}/location; } } }
         server { listen {port}; server_name other; root {root}/server; }",
    )
    .file("http/x", "http")
    .file("location/a/x", "location")
    .file("http/b/b.html", "b")
    .file("location/b/c/b.html", "c")
    .file("server/x", "server")
    .get("/x", "200 http")
    .get("/a/x", "200 location")
    .get("/b/", "200 b")
    .get("/b/c/", "200 c")
    .host("other", "/x", "200 server")
    .check();
}

#[test]
fn the_global_directives_of_the_command_line_come_first() {
    let output = Server::builder("http { }").run(&["-t", "-g", "worker_processes nonsense;"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        output.stderr.contains("\"worker_processes\" directive invalid value")
            && output.stderr.contains("command line"),
        "{}",
        output.stderr
    );
    let output = Server::builder("http { }").run(&["-t", "-g", "worker_processes 2; timer_resolution 1s;"]);
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    let output = Server::builder("worker_processes 1; http { }").run(&["-t", "-g", "worker_processes 2;"]);
    assert!(output.stderr.contains("\"worker_processes\" directive is duplicate"), "{}", output.stderr);
}

#[test]
fn parameters_may_be_long_but_not_endless() {
    let long = "x".repeat(3900);
    accepts(&format!("http {{ server {{ listen 1; return 200 \"{long}\"; }} }}"));
    let too_long = "x".repeat(5000);
    refuses(&format!("http {{ server {{ listen 1; return 200 \"{too_long}\"; }} }}"), "too long parameter");
}

#[test]
fn debians_own_configuration_is_understood_but_for_what_is_not_built() {
    let path = "/etc/nginx/nginx.conf";
    let Ok(text) = std::fs::read_to_string(path) else { return };
    if !subject_is_ours() {
        return;
    }
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_thalweg"))
        .args(["-t", "-c", path, "-p", "/etc/nginx", "-g", "pid /tmp/thalweg-test.pid;"])
        .output()
        .expect("run");
    let stderr = String::from_utf8_lossy(&output.stderr);
    for line in stderr.lines().filter(|line| line.contains("[emerg]")) {
        assert!(
            line.contains("not built into thalweg yet") || line.contains("\"pid\" directive is duplicate"),
            "{line}"
        );
    }
    // Without those lines it passes, includes and all.
    let unbuilt = |line: &&str| {
        !["ssl_", "gzip", "pid", "user", "include /etc/nginx/modules-enabled"]
            .iter()
            .any(|name| line.trim_start().starts_with(name))
    };
    let text: String = text.lines().filter(unbuilt).map(|line| format!("{line}\n")).collect();
    let text = text
        .replace("/var/log/nginx/", "{root}/")
        .replace("include /etc/nginx/sites-enabled/*;", "include {root}/default;");
    let site = std::fs::read_to_string("/etc/nginx/sites-available/default").unwrap_or_default();
    let output = Server::builder(&text).file("default", site).run(&["-t"]);
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
}

#[test]
fn a_wordpress_site_is_refused_only_for_its_fastcgi_lines() {
    let text = r"http { server {
        listen 80; server_name blog.example; root /srv/blog; index index.php;
        location = /favicon.ico { log_not_found off; access_log off; }
        location / { try_files $uri $uri/ /index.php?$args; }
        location ~ /\. { deny all; }
        location ~* \.(js|css|png|jpg|gif|ico)$ { expires max; log_not_found off; }
        location ~ \.php$ {
            include fastcgi_params;
            fastcgi_split_path_info ^(.+\.php)(/.+)$;
            fastcgi_intercept_errors on;
            fastcgi_pass unix:/run/php/php-fpm.sock;
        } } }";
    if !subject_is_ours() {
        return;
    }
    let output = Server::builder(text)
        .file(
            "fastcgi_params",
            "fastcgi_param QUERY_STRING $query_string;\nfastcgi_param SERVER_NAME $server_name;\n",
        )
        .run(&["-t"]);
    assert_eq!(output.status.code(), Some(1));
    let errors: Vec<&str> = output.stderr.lines().filter(|line| line.contains("[emerg]")).collect();
    assert!(
        errors.iter().all(|line| line.contains("known to nginx") && line.contains("\"fastcgi_")),
        "{}",
        output.stderr
    );
    assert!(errors.len() >= 4, "all of them in one run: {}", output.stderr);
    assert!(errors.iter().any(|line| line.contains("fastcgi_params:1")), "{}", output.stderr);
}

#[test]
fn typical_sites_work_as_they_stand() {
    Cases::new(
        r#"
    include mime.types;
    default_type application/octet-stream;
    sendfile on; tcp_nopush on; keepalive_timeout 65; server_tokens off;
    map $sent_http_content_type $cache { default "no-cache"; ~image/ "public, max-age=86400"; text/css "public, max-age=3600"; }
    server { listen {port}; server_name static.example; root {root}/site; index index.html;
        add_header Cache-Control $cache always;
        add_header X-Content-Type-Options nosniff always;
        error_page 404 /404.html;
        error_page 500 502 503 504 /50x.html;
        location = /50x.html { root {root}/site; internal; }
        location / { try_files $uri $uri/ =404; }
        location ~ /\.(?!well-known) { deny all; }
        location /downloads/ { autoindex off; limit_rate_after 1m; limit_rate 100k; }
    }
    server { listen {port}; server_name app.example; root {root}/app;
        location / { try_files $uri $uri/ /index.html; }
        location /static/ { expires 1y; add_header Cache-Control "public, immutable"; }
    }
    server { listen {port}; server_name www.static.example old.example; return 301 http://static.example$request_uri; }
    server { listen {port} default_server; server_name _; return 444; }
    "#,
    )
    .show(&["cache-control", "x-content-type-options"])
    .ignore("expires")
    .file("mime.types", "types { text/html html htm; text/css css; image/png png; application/javascript js; }")
    .file("site/index.html", "home")
    .file("site/a.css", "css")
    .file("site/a.png", "png")
    .file("site/404.html", "missing")
    .file("site/.git/config", "secret")
    .file("site/.well-known/x", "known")
    .file("site/50x.html", "broken")
    .file("app/index.html", "app")
    .file("app/static/x.js", "js")
    .host("static.example", "/", "200 home [cache-control: no-cache] [x-content-type-options: nosniff]")
    .host("static.example", "/a.css", "200 css [cache-control: public, max-age=3600] [x-content-type-options: nosniff]")
    .host("static.example", "/a.png", "200 png [cache-control: public, max-age=86400] [x-content-type-options: nosniff]")
    .host("static.example", "/none", "404 missing [cache-control: no-cache] [x-content-type-options: nosniff]")
    .host("static.example", "/.git/config", "403 [cache-control: no-cache] [x-content-type-options: nosniff]")
    .host("static.example", "/.well-known/x", "200 known [cache-control: no-cache] [x-content-type-options: nosniff]")
    .host("static.example", "/50x.html", "404 missing [cache-control: no-cache] [x-content-type-options: nosniff]")
    .host("app.example", "/", "200 app")
    .host("app.example", "/route/deep", "200 app")
    .host("app.example", "/static/x.js", "200 js [cache-control: max-age=31536000] [cache-control: public, immutable]")
    .host("www.static.example", "/x?y", "301 http://static.example/x?y")
    .host("nobody.example", "/", "(closed within a line: \"\")")
    .check();
}

#[test]
fn garbage_as_a_configuration_is_refused_without_harm() {
    for text in [
        "}",
        "{",
        "{}",
        ";",
        "http {{",
        "http { } }",
        "\"",
        "http { 'a",
        "a b c",
        "http { \u{0}; }",
        "${",
        "http { ${x; }",
        "\\",
    ] {
        let output = Server::builder("").file("odd.conf", text).run(&["-c", "odd.conf", "-t"]);
        // -c twice: the last one counts.
        assert_eq!(output.status.code(), Some(1), "{text:?}: {}", output.stderr);
        assert!(output.stderr.contains("[emerg]"), "{text:?}: {}", output.stderr);
    }
}

#[test]
fn ten_thousand_server_blocks_are_tested_quickly() {
    let mut text =
        String::from("http { server_names_hash_max_size 65536; server_names_hash_bucket_size 128;\n");
    for number in 0..10_000 {
        text.push_str(&format!("server {{ listen 8080; server_name s{number}.example www.s{number}.example;\n  location / {{ return 200; }} }}\n"));
    }
    text.push('}');
    let started = std::time::Instant::now();
    accepts(&text);
    let took = started.elapsed();
    println!("10,000 server blocks tested in {took:?}");
    if !cfg!(debug_assertions) {
        assert!(took < std::time::Duration::from_secs(5), "{took:?}");
    }
}

#[test]
fn a_file_included_ten_thousand_times_is_read_once() {
    let mut text = String::from("http {\n");
    for number in 0..10_000 {
        text.push_str(&format!("server {{ listen 8080; server_name s{number}; include part.conf; }}\n"));
    }
    text.push('}');
    let started = std::time::Instant::now();
    let output = Server::builder(&text)
        .file("part.conf", "root /srv; index a b c; location /x { return 200; }")
        .run(&["-t"]);
    assert_eq!(output.status.code(), Some(0), "{}", &output.stderr[..output.stderr.len().min(2000)]);
    println!("10,000 includes of one file: {:?}", started.elapsed());
}

#[test]
fn an_include_of_itself_ends_with_an_error() {
    let output = Server::builder("http { include a.conf; }").file("a.conf", "include a.conf;").run(&["-t"]);
    if subject_is_ours() {
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stderr.contains("a.conf"), "{}", output.stderr);
    }
}
