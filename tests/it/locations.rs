//! Which location answers, and from where: all kinds, nesting, `root`, `alias`, `internal`, `try_files`, `index`,
//! `satisfy` with `allow` and `deny`.

use crate::util::{Cases, Client, Server, eventually, get, subject_is_ours};

#[test]
fn exact_then_longest_prefix_then_regex_in_order() {
    Cases::new(
        r"server { listen {port};
            location = / { return 200 exact-root; }
            location / { return 200 root; }
            location /documents/ { return 200 documents; }
            location ^~ /images/ { return 200 images; }
            location ~* \.(gif|jpg)$ { return 200 picture; }
            location ~ \.GIF$ { return 200 never; }
            location ~ ^/documents/(?<name>.+)\.txt$ { return 200 text-$name-$1; }
            location = /documents/exact.gif { return 200 exact; }
            location /doc { return 200 doc; } }",
    )
    .get("/", "200 exact-root")
    .get("/?x", "200 exact-root")
    .get("/index.html", "200 root")
    .get("/documents/a.html", "200 documents")
    .get("/documents/a.jpg", "200 picture")
    .get("/documents/a.GIF", "200 picture")
    .get("/documents/a/b.txt", "200 text-a/b-a/b")
    .get("/documents/exact.gif", "200 exact")
    .get("/images/a.gif", "200 images")
    .get("/documen", "200 doc")
    .get("/do", "200 root")
    .check();
}

#[test]
fn prefixes_match_the_decoded_and_normalised_path() {
    Cases::new(
        "server { listen {port};
            location / { return 200 root:$uri; }
            location /a/ { return 200 a:$uri; }
            location '/with space/' { return 200 space:$uri; }
            location = /q?x { return 200 question:$uri; } }",
    )
    .get("/%61/x", "200 a:/a/x")
    .get("/b/../a/x", "200 a:/a/x")
    .get("/b/%2e%2e/a/x", "200 a:/a/x")
    .get("//a//x", "200 a:/a/x")
    .get("/a/..", "200 root:/")
    .get("/a/./x", "200 a:/a/x")
    .get("/with%20space/x", "200 space:/with space/x")
    .get("/q%3Fx", "200 question:/q?x")
    .get("/q?x", "200 root:/q")
    .get("/A/x", "200 root:/A/x")
    .check();
}

#[test]
fn nested_locations_are_searched_within_their_parent() {
    Cases::new(
        r"server { listen {port};
            location /outer/ {
                location /outer/inner/ {
                    location ~ \.deep$ { return 200 deep; }
                    location = /outer/inner/exact { return 200 exact; }
                    return 200 inner; }
                location ~ \.php$ { return 200 nested-regex; }
                location ^~ /outer/static/ { return 200 static; }
                return 200 outer; }
            location ~ \.php$ { return 200 outer-regex; }
            location /other/ { return 200 other; } }",
    )
    .get("/outer/x", "200 outer")
    .get("/outer/inner/x", "200 inner")
    .get("/outer/inner/x.deep", "200 deep")
    .get("/outer/inner/exact", "200 exact")
    .get("/outer/x.php", "200 nested-regex")
    .get("/outer/inner/x.php", "200 nested-regex")
    // `^~` within a location keeps out the regexes beside it, not those one level up.
    .get("/outer/static/x.php", "200 outer-regex")
    .get("/outer/static/x", "200 static")
    .get("/other/x.php", "200 outer-regex")
    .check();
}

#[test]
fn a_location_within_a_regex_location() {
    Cases::new(
        r"server { listen {port};
            location ~ ^/(\w+)/ { set $first $1;
                location ~ \.(txt|md)$ { return 200 <$first>$1; }
                return 200 $first; } }",
    )
    .get("/abc/x.txt", "200 <>txt")
    .get("/abc/x.html", "200 abc")
    .check();
}

#[test]
fn a_missing_slash_is_added_only_where_the_content_asks_for_it() {
    // nginx redirects by itself for proxied prefixes, and for folders on the disk.
    Cases::new(
        "server { listen {port}; root {root}/html;
            location /folder/ { }
            location /answer/ { return 200 answer; } }",
    )
    .file("html/folder/index.html", "index")
    .get("/folder", "301 http://localhost:{port}/folder/")
    .get("/folder?a=b", "301 http://localhost:{port}/folder/?a=b")
    .get("/folder/", "200 index")
    .get("/answer", "404")
    .get("/folder%3F", "404")
    .check();
}

#[test]
fn the_slash_redirect_escapes_the_path() {
    Cases::new("server { listen {port}; root {root}/html; }")
        .file("html/a b%?/x", "")
        .get("/a%20b%25%3F", "301 http://localhost:{port}/a%20b%25%3F/")
        .check();
}

#[test]
fn root_and_alias_choose_the_file() {
    Cases::new(
        "server { listen {port}; root {root}/html;
            location /r/ { root {root}/other; }
            location /a/ { alias {root}/other/r/; }
            location /b { alias {root}/other/r; }
            location = /one { alias {root}/other/r/f.txt; }
            location /relative/ { root relative_root; }
            location /variable/ { root {root}/$arg_folder; }
            location /variable-alias/ { alias {root}/$arg_folder/r/; } }",
    )
    .file("html/f.txt", "html")
    .file("other/r/f.txt", "other")
    .file("relative_root/relative/f.txt", "relative")
    .file("html/variable/f.txt", "variable")
    .get("/f.txt", "200 html")
    .get("/r/f.txt", "200 other")
    .get("/a/f.txt", "200 other")
    .get("/b/f.txt", "200 other")
    .get("/one", "200 other")
    .get("/relative/f.txt", "200 relative")
    .get("/variable/f.txt?folder=html", "200 variable")
    .get("/variable/f.txt?folder=other", "404")
    .get("/variable-alias/f.txt?folder=other", "200 other")
    .check();
}

#[test]
fn alias_in_a_regex_location_is_the_whole_path() {
    Cases::new(
        r"server { listen {port};
            location ~ ^/users/(.+)\.(\w+)$ { alias {root}/home/$2/$1; }
            location ~ ^/named/(?<file>.+)$ { alias {root}/home/txt/$file; } }",
    )
    .file("home/txt/ann", "ann")
    .get("/users/ann.txt", "200 ann")
    .get("/users/bob.txt", "404")
    .get("/named/ann", "200 ann")
    .check();
}

#[test]
fn request_filename_follows_root_and_alias() {
    Cases::new(
        "server { listen {port}; root {root}/html;
            location / { return 200 $request_filename|$document_root; }
            location /a/ { alias {root}/other/; return 200 $request_filename|$document_root; } }",
    )
    .get("/x/y", "200 {root}/html/x/y|{root}/html")
    .get("/a/y", "200 {root}/other/y|{root}/other/")
    .check();
}

#[test]
fn internal_locations_answer_only_to_internal_redirects() {
    Cases::new(
        "server { listen {port}; root {root}/html;
            location /private/ { internal; }
            location /open { try_files /private/f.txt =404; }
            location /page { error_page 404 /private/f.txt; }
            location /jump { rewrite ^ /private/f.txt last; } }",
    )
    .file("html/private/f.txt", "secret")
    .get("/private/f.txt", "404")
    .get("/open", "200 secret")
    .get("/page", "404 secret")
    .get("/jump", "200 secret")
    .check();
}

#[test]
fn named_locations_are_reached_by_name_only() {
    Cases::new(
        "server { listen {port}; root {root}/html;
            location / { try_files $uri @fallback; }
            location /e { error_page 404 = @fallback; }
            location /to { error_page 418 = @teapot; return 418; }
            location @fallback { return 202 fallback:$uri:$request_method; }
            location @teapot { return 200 teapot; } }",
    )
    .file("html/f.txt", "file")
    .get("/f.txt", "200 file")
    .get("/missing", "202 fallback:/missing:GET")
    .get("/e/x", "202 fallback:/e/x:GET")
    .get("/to", "200 teapot")
    .get("/@fallback", "202 fallback:/@fallback:GET")
    .check();
}

#[test]
fn try_files_takes_files_folders_codes_and_uris() {
    Cases::new(
        "server { listen {port}; root {root}/html;
            location /a/ { try_files $uri $uri.html $uri/ =404; }
            location /folder/ { try_files $uri/ /f.txt; }
            location /code/ { try_files $uri =410; }
            location /uri/ { try_files $uri /landing?from=$uri&$args; }
            location /landing { return 200 landing:$args:$uri; }
            location /nofile/ { try_files '' /landing; }
            location /alias/ { alias {root}/other/; try_files $uri $uri/index.txt =404; }
            location /several/ { try_files /none /b.txt /f.txt =404; }
            location /named/ { try_files $uri @named; }
            location @named { return 200 named; } }
         ",
    )
    .file("html/f.txt", "f")
    .file("html/b.txt", "b")
    .file("html/a/x", "x")
    .file("html/a/y.html", "<p>y")
    .file("html/a/dir/index.html", "index of dir")
    .file("html/folder/sub/index.html", "index of sub")
    .file("other/g", "g")
    .file("other/h/index.txt", "h")
    .get("/a/x", "200 x")
    .get("/a/y", "200 <p>y")
    .get("/a/dir", "301 http://localhost:{port}/a/dir/")
    .get("/a/dir/", "200 index of dir")
    .get("/a/z", "404")
    .get("/folder/sub", "301 http://localhost:{port}/folder/sub/")
    .get("/folder/none", "200 f")
    .get("/code/x", "410")
    .get("/uri/x?q=1", "200 landing:from=/uri/x&q=1:/landing")
    .get("/nofile/x", "200 landing::/landing")
    .get("/alias/g", "200 g")
    .get("/alias/h", "200 h")
    .get("/alias/none", "404")
    .get("/several/x", "200 b")
    .get("/named/x", "200 named")
    .check();
}

#[test]
fn try_files_at_server_level_applies_where_a_location_has_none() {
    Cases::new(
        "server { listen {port}; root {root}/html; try_files $uri /fallback.txt;
            location /own/ { try_files $uri =403; } }",
    )
    .file("html/fallback.txt", "fallback")
    .get("/missing", "200 fallback")
    .get("/own/missing", "403")
    .check();
}

#[test]
fn try_files_that_leads_to_itself_ends_with_an_error() {
    Cases::new("server { listen {port}; root {root}/html; location / { try_files $uri /none; } }")
        .get("/x", "500")
        .check();
}

#[test]
fn index_names_are_tried_in_order_and_redirect_internally() {
    Cases::new(
        r"server { listen {port}; root {root}/html; index c$arg_i first.txt second.html /absolute.txt;
            location ~ \.html$ { add_header X-Location html; }
            location /none/ { index nothing; } }",
    )
    .show(&["x-location"])
    .file("html/one/first.txt", "first")
    .file("html/one/second.html", "second")
    .file("html/two/second.html", "second")
    .file("html/three/chosen", "chosen")
    .file("html/three/first.txt", "first")
    .file("html/absolute.txt", "absolute")
    .file("html/empty/x", "x")
    .file("html/none/x", "x")
    .get("/one/", "200 first")
    .get("/two/", "200 second [x-location: html]")
    .get("/three/?i=hosen", "200 chosen")
    .get("/three/", "200 first")
    .get("/empty/", "200 absolute")
    .get("/none/", "403")
    .get("/no/such/folder/", "404")
    .check();
}

#[test]
fn index_default_is_index_html() {
    Cases::new("server { listen {port}; root {root}/html; }")
        .file("html/index.html", "home")
        .file("html/empty/x", "x")
        .get("/", "200 home")
        .get("/empty/", "403")
        .check();
}

#[test]
fn allow_and_deny_in_order() {
    Cases::new(
        "server { listen {port}; root {root}/html;
            location /deny { deny all; }
            location /allow { allow 127.0.0.1; deny all; }
            location /network { allow 127.0.0.0/8; deny all; }
            location /first { deny 127.0.0.1; allow all; }
            location /other { allow 10.0.0.0/8; allow 2001:db8::/32; allow unix:; deny all; }
            location /open { deny 10.0.0.1; }
            location /inherited { deny all; location /inherited/open { allow all; } } }",
    )
    .file("html/allow", "a")
    .file("html/network", "n")
    .file("html/open", "o")
    .file("html/inherited/open", "i")
    .get("/deny", "403")
    .get("/allow", "200 a")
    .get("/network", "200 n")
    .get("/first", "403")
    .get("/other", "403")
    .get("/open", "200 o")
    .get("/inherited/x", "403")
    .get("/inherited/open", "200 i")
    .check();
}

#[test]
fn access_rules_know_unix_sockets_and_ipv6() {
    let conf = "server { listen {port}; listen unix:{root}/s; listen [::1]:{port}; root {root}/html;
            location /unix { allow unix:; deny all; }
            location /six { allow ::1; deny all; } }";
    let server = Server::builder(conf).file("html/unix", "u").file("html/six", "6").start();
    // The harness waits for the first socket only.
    eventually("the other sockets", || {
        std::os::unix::net::UnixStream::connect(server.path("s")).is_ok()
            && std::net::TcpStream::connect((std::net::Ipv6Addr::LOCALHOST, server.port())).is_ok()
    });
    let over_unix = |path: &str| {
        let mut client = Client::connect_unix(&server.path("s"));
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
        client.read_response().status
    };
    assert_eq!(over_unix("/unix"), 200);
    assert_eq!(over_unix("/six"), 403);
    assert_eq!(get(server.port(), "/unix").status, 403);
    let stream = std::net::TcpStream::connect((std::net::Ipv6Addr::LOCALHOST, server.port())).expect("IPv6");
    let mut client = Client::over_tcp(stream);
    client.send("GET /six HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(client.read_response().status, 200);
}

#[test]
fn satisfy_any_and_all_without_another_check_are_the_same() {
    Cases::new(
        "server { listen {port}; root {root}/html;
            location /any { satisfy any; allow 127.0.0.1; deny all; }
            location /any-denied { satisfy any; deny all; }
            location /all { satisfy all; allow 127.0.0.1; deny all; } }",
    )
    .file("html/any", "any")
    .file("html/all", "all")
    .get("/any", "200 any")
    .get("/any-denied", "403")
    .get("/all", "200 all")
    .check();
}

#[test]
fn return_comes_before_access_rules() {
    Cases::new("server { listen {port}; location / { deny all; return 200 returned; } }")
        .get("/", "200 returned")
        .check();
}

#[test]
fn limit_except_guards_other_methods() {
    let post = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    Cases::new("server { listen {port}; root {root}/html; location / { limit_except GET { deny all; } } }")
        .file("html/index.html", "i")
        .get("/", "200 i")
        .request("HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "200")
        .request(post, "403")
        .check();
}

#[test]
fn an_alias_off_by_a_slash_never_leaves_its_folder() {
    if !subject_is_ours() {
        return;
    }
    // With `location /b { alias .../files/; }` nginx serves `/b../secret` from beside the folder.
    let conf = "server { listen {port}; root {root}/html; location /b { alias {root}/files/; } }";
    let server = Server::builder(conf).file("files/f.txt", "f").file("secret.txt", "secret").start();
    for target in ["/b../secret.txt", "/b..%2fsecret.txt", "/b%2e%2e/secret.txt", "/b..//secret.txt"] {
        let response = get(server.port(), target);
        assert!(matches!(response.status, 400 | 403 | 404), "{target}: {}", response.status);
        assert!(!response.text().contains("secret"), "{target}");
    }
    assert_eq!(get(server.port(), "/b/f.txt").text(), "f");
    assert_eq!(get(server.port(), "/bf.txt").text(), "f");
}

#[test]
fn paths_of_all_spellings_lead_where_nginx_leads_them() {
    let conf = r#"
        server { listen {port}; server_name merging; root {root}/html;
            location / { return 200 "root|$uri|$args|$request_uri|$request_filename"; }
            location /a/ { return 200 "a|$uri|$args|$request_filename"; }
            location = /a/b { return 200 "exact|$uri|$args"; }
            location /x { alias {root}/other/; return 200 "x|$uri|$request_filename"; }
            location ~ \.(php|txt)$ { return 200 "regex|$uri|$1"; }
            location /files/ { }
            location /try/ { try_files $uri $uri/ @named; }
            location @named { return 200 "named|$uri|$args"; }
            location /rewrite/ { rewrite ^/rewrite/(.*)$ /a/$1?x=$1 last; }
            location /redirect/ { rewrite ^/redirect/(.*)$ /a/$1 redirect; } }
        server { listen {port}; server_name plain; merge_slashes off; root {root}/html;
            location / { return 200 "root|$uri|$args"; }
            location /a/ { return 200 "a|$uri"; } }"#;
    let segments = [
        "", "a", "b", ".", "..", "...", "%2e", "%2E%2e", "%2f", "x", "a%20b", "b.txt", "%3f", "%23", "c?q=1",
        "#f", "+", "%", "%00", "\u{e4}", "~", ":", "a;b=c",
    ];
    let mut parity = crate::util::Parity::new(conf)
        .file("html/files/a/b", "file")
        .file("html/files/b.txt", "text")
        .file("html/files/a b", "space")
        .file("html/try/a/index.html", "index")
        .file("html/try/b", "tried");
    let mut targets = Vec::new();
    for prefix in ["/", "/a/", "//", "/x", "/files/", "/try/", "/rewrite/", "/redirect/"] {
        for first in segments {
            targets.push(format!("{prefix}{first}"));
            for second in segments {
                targets.push(format!("{prefix}{first}/{second}"));
            }
        }
    }
    // Where `alias` is off by a slash, ours does not climb.
    targets.retain(|target| !target.starts_with("/x..") && !target.starts_with("/x%2"));
    for (number, target) in targets.iter().enumerate() {
        for host in if number % 4 == 0 { &["merging", "plain"][..] } else { &["merging"] } {
            parity =
                parity.request(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
        }
    }
    parity.check();
}

#[test]
fn locations_within_inherit_an_alias_with_what_it_stands_for_and_internal() {
    let conf = r#"
        types { text/css css; text/plain txt; text/html html; }
        server { listen {port}; root {root}/html;
            location /static/ { alias {root}/files/;
                location ~* \.(css|js)$ { add_header X-Kind $1; }
                location ~ \.txt$ { root {root}/html; }
                location /static/deep/ { add_header X-Name $request_filename; }
                location = /static/exact { if (-f $request_filename) { return 200 "is $request_filename"; } }
                location ^~ /static/try/ { try_files $uri.css $uri/index.html /a.css; }
                location ^~ /static/own/ { alias {root}/html/; }
                location ^~ /static/if/ { if (!-f $request_filename) { return 200 "no $request_filename"; } } }
            location ~ ^/pattern/(.*)$ { alias {root}/files/$1;
                location ~ css$ { add_header X-Pattern "$1"; } }
            location /hidden/ { internal;
                location /hidden/open { return 200 open; }
                location ~ \.css$ { deny all; } }
            location /to/ { rewrite ^/to/(.*)$ /hidden/$1 last; } }"#;
    let mut parity = crate::util::Parity::new(conf);
    for name in
        ["a.css", "deep/a.css", "deep/b", "exact", "try/x.css", "try/d/index.html", "if/c", "index.html"]
    {
        parity = parity.file(&format!("files/{name}"), format!("file {name}"));
    }
    for name in ["static/a.txt", "a.css", "hidden/a.css", "hidden/b", "x"] {
        parity = parity.file(&format!("html/{name}"), format!("html {name}"));
    }
    let paths = [
        "/static/a.css",
        "/static/deep/a.css",
        "/static/deep/b",
        "/static/deep/",
        "/static/deep/none",
        "/static/a.txt",
        "/static/exact",
        "/static/try/x",
        "/static/try/d",
        "/static/try/none",
        "/static/own/x",
        "/static/own/a.css",
        "/static/if/c",
        "/static/if/d",
        "/static/",
        "/static/none.css",
        "/pattern/a.css",
        "/pattern/deep/b",
        "/pattern/exact",
        "/hidden/",
        "/hidden/b",
        "/hidden/open",
        "/hidden/a.css",
        "/to/open",
        "/to/a.css",
        "/to/b",
    ];
    parity.get(&paths).check();
}

#[test]
fn a_body_s_length_and_internal_are_looked_at_before_the_slash_is_added_and_after_server_rewrites() {
    let conf = r#"
        server { listen {port}; root {root}/html; client_max_body_size 2; error_page 413 /big.html;
            rewrite ^/old /new break;
            location /hidden/ { internal; proxy_pass http://127.0.0.1:1; }
            location /passed/ { proxy_pass http://127.0.0.1:1; }
            location /denied { deny all; }
            location / { return 200 "$uri"; } location = /big.html { } }
        server { listen {port}; server_name recursive; root {root}/html; client_max_body_size 2; error_page 413 /big.html;
            recursive_error_pages on; location = /big.html { } }"#;
    let mut parity = crate::util::Parity::new(conf).file("html/big.html", "too big").ignore("content-type");
    for path in ["/hidden", "/passed", "/old", "/denied", "/hidden/x", "/big.html"] {
        for (method, body) in [("GET", ""), ("POST", "abc"), ("POST", "ab")] {
            for host in ["localhost", "recursive"] {
                parity = parity.request(format!(
                    "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                ));
            }
        }
    }
    parity.check();
}
