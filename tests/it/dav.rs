//! WebDAV: nginx's methods with nginx's answers, ours besides, and real clients.

use crate::util::{Cases, Client, Response, Server, eventually, get, subject_is_ours};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

const NGINX: &str = "PUT DELETE MKCOL COPY MOVE";
const ALL: &str = "PUT DELETE MKCOL COPY MOVE PROPFIND PROPPATCH LOCK UNLOCK OPTIONS";

/// A configuration with this server. Started by root, workers stay root: the folders are.
fn configuration(server: &str) -> String {
    format!("user root; events {{ }} http {{ server {{ listen {{port}}; root {{root}}/www; {server} }} }}")
}

/// A request; fields are separated by `|`. One with a body says how long it is.
fn text(line: &str, fields: &str, body: &str) -> String {
    let mut text = format!("{line} HTTP/1.1\r\nHost: localhost\r\n");
    for field in fields.split('|').filter(|field| !field.is_empty()) {
        let _ = write!(text, "{field}\r\n");
    }
    if !body.is_empty() || line.starts_with("PUT") {
        let _ = write!(text, "Content-Length: {}\r\n", body.len());
    }
    text + "Connection: close\r\n\r\n" + body
}

#[track_caller]
fn ask(server: &Server, line: &str, fields: &str, body: &str) -> Response {
    let mut client = Client::connect(server.port());
    client.send(text(line, fields, body));
    client.read_response()
}

/// Requests one after the other, and what all of them have done.
struct Table(Cases);

impl Table {
    fn new(server: &str) -> Table {
        Table(Cases::new(&configuration(&format!("dav_methods {NGINX}; {server}"))).before(|server| {
            for (path, content) in [("f", "f"), ("g", "g"), ("c/sub/s", "s"), ("other/o", "o")] {
                server.write(&format!("www/{path}"), content);
            }
        }))
    }

    fn ask(mut self, line: &str, fields: &str, body: &str, expected: &str) -> Table {
        self.0 = self.0.request(text(line, fields, body), expected);
        self
    }

    fn get(mut self, target: &str, expected: &str) -> Table {
        self.0 = self.0.get(target, expected);
        self
    }

    #[track_caller]
    fn check(self) {
        // A file that one has just made is a second older or younger than the other's.
        self.0.ignore("last-modified").ignore("etag").check();
    }
}

#[test]
fn put_and_delete_answer_as_nginx() {
    Table::new("location /full/ { create_full_put_path on; } location /off/ { dav_methods off; }")
        .ask("PUT /a%20b.txt?x", "", "hello", "201 http://localhost:{port}/a%20b.txt")
        .get("/a%20b.txt", "200 hello")
        .ask("PUT /a%20b.txt", "", "other", "204")
        .get("/a%20b.txt", "200 other")
        .ask("PUT /empty", "", "", "201 http://localhost:{port}/empty")
        .ask("PUT /dir/", "", "x", "409")
        .ask("PUT /c", "", "x", "409")
        .ask("PUT /missing/x", "", "x", "500")
        .ask("PUT /f/x", "", "x", "500")
        .ask("PUT /r", "Content-Range: bytes 0-0/1", "x", "501")
        .ask("PUT /off/x", "", "x", "405")
        .ask("PUT /full/p/q/r", "", "deep", "201 http://localhost:{port}/full/p/q/r")
        .get("/full/p/q/r", "200 deep")
        .ask("DELETE /c", "", "", "409")
        .ask("DELETE /c/", "Depth: 0", "", "400")
        .ask("DELETE /c/", "Depth: x", "", "400")
        .ask("DELETE /empty/", "", "", "409")
        .ask("DELETE /empty/x", "", "", "409")
        .ask("DELETE /empty", "", "x", "415")
        .ask("DELETE /empty", "Depth: 1", "", "400")
        .ask("DELETE /empty", "Depth: 0", "", "204")
        .ask("DELETE /empty", "", "", "404")
        .ask("DELETE /c/", "Depth: infinity", "", "204")
        .get("/c/sub/s", "404")
        .ask("DELETE /full/", "", "", "204")
        .ask("DELETE /off/x", "", "", "405")
        .ask("DELETE /a%20b.txt", "", "", "204")
        .check();
}

#[test]
fn folders_are_made_as_with_nginx() {
    Table::new("location /deep/ { min_delete_depth 3; }")
        .ask("MKCOL /m", "", "", "409")
        .ask("MKCOL /m/", "", "", "201 http://localhost:{port}/m/")
        .ask("MKCOL /m/", "", "", "405")
        .ask("MKCOL /f/", "", "", "405")
        .ask("MKCOL /x/y/", "", "", "409")
        .ask("MKCOL /f/y/", "", "", "409")
        .ask("MKCOL /b/", "", "x", "415")
        .ask("MKCOL /deep/", "", "", "201 http://localhost:{port}/deep/")
        .ask("MKCOL /deep/a/", "", "", "201 http://localhost:{port}/deep/a/")
        .ask("MKCOL /deep/a/b/", "", "", "201 http://localhost:{port}/deep/a/b/")
        .ask("DELETE /deep/a/", "", "", "409")
        .ask("DELETE /deep/x", "", "", "409")
        .ask("DELETE /deep/a/b/", "", "", "204")
        .check();
}

#[test]
fn copies_and_moves_answer_as_nginx() {
    let to = |target: &str| format!("Destination: {target}");
    let mut table = Table::new("");
    for method in ["COPY", "MOVE"] {
        let depth_0 = if method == "COPY" { "204" } else { "400" };
        for (line, fields, status) in [
            ("/f", String::new(), "400"),
            ("/f", to("http://other/x"), "400"),
            ("/f", to("https://localhost/x"), "400"),
            ("/f", to("http://localhost"), "400"),
            ("/f", to("x"), "400"),
            ("/f", to("/../x"), "400"),
            ("/f", to("/x/"), "409"),
            ("/f", to("/c"), "409"),
            ("/f", to("/g|Overwrite: F"), "412"),
            ("/f", to("/g|Overwrite: x"), "400"),
            ("/f", to("/x|Depth: 1"), "400"),
            ("/f", to("/x|Depth: 0"), depth_0),
            ("/c", to("/x"), "400"),
            ("/c/", to("/other/|Overwrite: f"), "412"),
            ("/c/", to("/missing/x/"), "404"),
            ("/none", to("/x"), "404"),
            ("/f/", to("/x/"), "404"),
        ] {
            table = table.ask(&format!("{method} {line}"), &fields, "", status);
        }
        table = table.ask(&format!("{method} /f"), &to("/y"), "x", "415");
    }
    table
        .ask("COPY /f", &to("http://localhost:81/x%20y?z"), "", "204")
        .get("/x%20y", "200 f")
        .ask("COPY /f", &to("/g"), "", "204")
        .get("/g", "200 f")
        .ask("COPY /f", &to("/missing/x"), "", "500")
        .ask("COPY /c/", &to("/new/"), "", "201")
        .get("/new/sub/s", "200 s")
        .ask("COPY /c/", &to("/other/"), "", "201")
        .get("/other/sub/s", "200 s")
        .get("/other/o", "404")
        .ask("MOVE /f", &to("/made/for/f"), "", "204")
        .get("/made/for/f", "200 f")
        .get("/f", "404")
        .ask("MOVE /c/", &to("/other/"), "", "201")
        .get("/other/sub/s", "200 s")
        .get("/c/sub/s", "404")
        .ask("MOVE /other/", &to("/renamed/"), "", "201")
        .get("/renamed/sub/s", "200 s")
        .check();
}

#[test]
fn files_have_the_rights_and_the_time_that_they_are_given() {
    use std::os::unix::fs::MetadataExt;
    let server =
        start("dav_access user:rw group:rw all:r; create_full_put_path on; client_body_buffer_size 1k;");
    let content = "x".repeat(100_000);
    let fields = "Date: Tue, 14 Nov 2023 22:13:20 GMT";
    for (path, content) in [("small", "x"), ("folder/large", content.as_str())] {
        assert_eq!(ask(&server, &format!("PUT /{path}"), fields, content).status, 201);
        let found = server.path(&format!("www/{path}")).metadata().expect("the file");
        assert_eq!(
            (found.mode() & 0o777, found.mtime(), found.len()),
            (0o664, 1_700_000_000, content.len() as u64)
        );
        assert_eq!(get(server.port(), &format!("/{path}")).text(), content);
    }
    assert_eq!(ask(&server, "PUT /f", "", "").status, 204);
    // A body that says nothing is an empty one.
    let mut client = Client::connect(server.port());
    client.send("PUT /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(client.read_response().status, 201);
    let mut client = Client::connect(server.port());
    client
        .send("PUT /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
    client.send("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    assert_eq!(client.read_response().status, 201);
    assert_eq!(server.read("www/chunked"), "abcde");
    assert_eq!(unfinished(&server), Vec::<String>::new());
}

/// Ours, with all methods.
fn start(more: &str) -> Server {
    let server = Server::builder(&configuration(&format!(
        "client_body_temp_path {{root}}/body; client_max_body_size 100m; dav_methods {ALL}; {more}"
    )));
    server.file("www/f", "file").file("www/d/e", "e").start()
}

/// Names that only unfinished files have, anywhere.
fn unfinished(server: &Server) -> Vec<String> {
    fn walk(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry")) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(".thalweg-") || folder.ends_with("body") {
                found.push(name);
            }
            if entry.file_type().expect("a type").is_dir() {
                walk(&entry.path(), found);
            }
        }
    }
    let mut found = Vec::new();
    walk(server.root(), &mut found);
    found
}

#[test]
fn an_upload_that_breaks_off_changes_nothing() {
    let server = start("client_body_buffer_size 1k;");
    let mut client = Client::connect(server.port());
    client.send("PUT /f HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
    client.send("x".repeat(200_000));
    eventually("the body goes to a file", || {
        std::fs::read_dir(server.path("body")).is_ok_and(|names| names.count() > 0)
    });
    client.reset();
    eventually("its file is removed", || unfinished(&server).is_empty());
    assert_eq!(get(server.port(), "/f").text(), "file");
}

#[test]
fn who_reads_sees_the_old_file_or_the_new_one() {
    let server =
        start("open_file_cache max=100 inactive=60s; open_file_cache_valid 60s; create_full_put_path on;");
    let port = server.port();
    // From the second use on its content is in memory.
    for _ in 0..3 {
        assert_eq!(get(port, "/f").text(), "file");
    }
    for content in ["one", "two", "one more, which is longer"] {
        assert_eq!(ask(&server, "PUT /f", "", content).status, 204);
        // Every worker has a cache of its own.
        for _ in 0..8 {
            assert_eq!(get(port, "/f").text(), content);
        }
    }
    assert_eq!(ask(&server, "DELETE /f", "", "").status, 204);
    assert_eq!(get(port, "/f").status, 404);
    let contents = ["a".repeat(50_000), "b".repeat(50_000)];
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0..40 {
                let status = ask(&server, "PUT /g/h", "", &contents[round % 2]).status;
                assert_eq!(status, if round == 0 { 201 } else { 204 });
            }
        });
        while !writer.is_finished() {
            let response = get(port, "/g/h");
            assert!(response.status == 404 || contents.contains(&response.text()));
        }
        writer.join().expect("the writer");
    });
}

#[test]
fn nothing_leads_out_of_the_tree() {
    use std::os::unix::fs::symlink;
    let server = start("");
    server.write("outside/kept", "kept");
    symlink(server.path("outside"), server.path("www/d/link")).expect("a link");
    symlink(server.path("outside"), server.path("www/link")).expect("a link");
    assert_eq!(ask(&server, "DELETE /d/", "", "").status, 204);
    assert_eq!(ask(&server, "DELETE /link/", "", "").status, 204);
    assert_eq!(server.read("outside/kept"), "kept");
    assert!(!server.path("www/d").exists() && server.path("www/link").symlink_metadata().is_err());
    for target in ["/../x", "/%2e%2e/x", "/a/..%2f..%2fx"] {
        assert_eq!(ask(&server, "COPY /f", &format!("Destination: {target}"), "").status, 400, "{target}");
    }
    assert!(!server.root().join("x").exists());
}

#[test]
fn nothing_is_lost_by_moving_a_folder_into_itself() {
    let server = start("");
    for (from, to) in [("/d/", "/d/"), ("/d/", "/d/new/"), ("/d/", "/d/x/y/")] {
        for method in ["COPY", "MOVE"] {
            let line = format!("{method} {from}");
            assert_eq!(ask(&server, &line, &format!("Destination: {to}"), "").status, 403, "{line} {to}");
        }
    }
    assert_eq!(server.read("www/d/e"), "e");
    assert_eq!(unfinished(&server), Vec::<String>::new());
}

const LOCK: &str = "<?xml version=\"1.0\"?><D:lockinfo xmlns:D='DAV:'><D:lockscope><D:exclusive/></D:lockscope>\
                    <D:locktype><D:write/></D:locktype><D:owner>me</D:owner></D:lockinfo>";

#[test]
fn locks_hold_in_all_workers_and_over_a_reload() {
    if !subject_is_ours() {
        return;
    }
    let text = format!("worker_processes 4; {}", configuration(&format!("dav_methods {ALL};")));
    let server = Server::builder(&text).file("www/f", "file").start();
    let locked = ask(&server, "LOCK /f", "Timeout: Second-600", LOCK);
    assert_eq!(locked.status, 200);
    let token = locked.header("lock-token").expect("a token").to_owned();
    let refused = || {
        for _ in 0..12 {
            assert_eq!(ask(&server, "PUT /f", "", "other").status, 423);
        }
    };
    refused();
    server.configure(&text.replace("dav_methods", "add_header X-New yes; dav_methods"));
    server.reload();
    eventually("the new configuration is in force", || get(server.port(), "/f").header("x-new").is_some());
    refused();
    assert_eq!(ask(&server, "DELETE /f", "", "").status, 423);
    assert_eq!(ask(&server, "PUT /f", &format!("If: ({token})"), "mine").status, 204);
    let found = ask(&server, "PROPFIND /f", "Depth: 0", "").text();
    assert!(found.contains(token.trim_matches(['<', '>'])), "{found}");
    assert_eq!(ask(&server, "UNLOCK /f", &format!("Lock-Token: {token}"), "").status, 204);
    assert_eq!(ask(&server, "PUT /f", "", "other").status, 204);
    // What is not there yet can be locked too: it is empty then.
    let locked = ask(&server, "LOCK /new", "", LOCK);
    assert_eq!((locked.status, server.read("www/new").as_str()), (201, ""));
    assert_eq!(ask(&server, "LOCK /none/new", "", LOCK).status, 409);
    assert_eq!(ask(&server, "PUT /none/new", "", "x").status, 500);
}

#[test]
fn properties_are_told_and_kept() {
    let server = start("");
    let reply = ask(&server, "OPTIONS /", "", "");
    assert_eq!((reply.status, reply.header("dav")), (200, Some("1, 2")));
    let reply = ask(&server, "PROPFIND /", "Depth: 1", "");
    assert_eq!((reply.status, reply.header("content-type")), (207, Some("application/xml; charset=utf-8")));
    let etag = get(server.port(), "/f").header("etag").expect("a tag").replace('"', "&quot;");
    for piece in ["<D:href>/</D:href>", "<D:href>/d/</D:href>", "<D:href>/f</D:href>", &etag] {
        assert!(reply.text().contains(piece), "{piece} in {}", reply.text());
    }
    assert_eq!(ask(&server, "PROPFIND /", "Depth: infinity", "").status, 403);
    let hostile =
        "<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><D:propfind xmlns:D='DAV:'>&b;</D:propfind>";
    assert_eq!(ask(&server, "PROPFIND /", "Depth: 0", hostile).status, 400);
    let large = format!("<a>{}</a>", " ".repeat(50_000));
    assert_eq!(ask(&server, "PROPFIND /", "Depth: 0", &large).status, 413);
    let change = "<D:propertyupdate xmlns:D='DAV:'><D:set><D:prop><x xmlns='u'>1</x></D:prop></D:set></D:propertyupdate>";
    let reply = ask(&server, "PROPPATCH /f", "", change);
    assert_eq!(reply.status, 207);
    assert!(reply.text().contains("HTTP/1.1 403 Forbidden"), "{}", reply.text());
}

/// Runs a program to its end; `None` if it is not installed.
fn run(command: &mut Command, input: &str) -> Option<String> {
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut child) = spawned else {
        eprintln!("{command:?} is not installed: nothing was tested");
        return None;
    };
    child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("its end");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn rclone_keeps_a_tree_in_step() {
    if !subject_is_ours() {
        return;
    }
    let server = start("client_body_buffer_size 8k;");
    std::fs::remove_dir_all(server.path("www")).expect("removed");
    std::fs::create_dir(server.path("www")).expect("made");
    server.write("source/a b+c&d.txt", "one");
    server.write("source/sub/deep/\u{fc}<\u{e9}>'\".txt", "two");
    server.write("source/empty", "");
    server.write("source/large", "large ".repeat(200_000));
    let rclone = |arguments: &[&str]| {
        let url = format!("http://localhost:{}", server.port());
        let mut command = Command::new("rclone");
        command.env("RCLONE_CONFIG", server.path("rclone.conf"));
        for (name, value) in [("TYPE", "webdav"), ("URL", &url), ("VENDOR", "other")] {
            command.env(format!("RCLONE_CONFIG_T_{name}"), value);
        }
        run(command.arg("--retries=1").args(arguments), "")
    };
    let source = server.path("source");
    let source = source.to_str().expect("UTF-8");
    let Some(told) = rclone(&["sync", source, "T:"]) else { return };
    let files = |path: &str| {
        let output = Command::new("find").arg(server.path(path)).args(["-printf", "%P %y %s\n"]).output();
        let text = String::from_utf8(output.expect("find").stdout).expect("text");
        let mut lines: Vec<String> =
            text.lines().filter(|line| !line.contains(" d ")).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(files("www"), files("source"), "{told}\n{}", server.error_log());
    let told = rclone(&["check", "--download", source, "T:"]).expect("rclone");
    assert!(told.contains("0 differences found"), "{told}");
    for arguments in [
        &["moveto", "T:sub", "T:moved"][..],
        &["copyto", "T:large", "T:moved/copy"],
        &["deletefile", "T:empty"],
        &["moveto", "T:large", "T:small"],
    ] {
        let told = rclone(arguments).expect("rclone");
        assert!(!told.contains("ERROR"), "{arguments:?}: {told}");
    }
    let listed = rclone(&["lsf", "-R", "--files-only", "T:"]).expect("rclone");
    for name in ["a b+c&d.txt", "moved/copy", "moved/deep/\u{fc}<\u{e9}>'\".txt", "small"] {
        assert!(listed.lines().any(|line| line == name), "{name} in {listed}");
    }
    rclone(&["purge", "T:moved"]).expect("rclone");
    assert!(!server.path("www/moved").exists());
}

#[test]
fn cadaver_edits_under_a_lock() {
    if !subject_is_ours() {
        return;
    }
    let server = start("");
    server.write("own", "from here");
    let commands = "mkcol new\nput own new/own\nlock new/own\ndiscover new/own\nput own new/own\nunlock new/own\n\
                    move new/own new/other\ncopy new/other new/third\nls new\npropnames new/third\nget new/third got\n\
                    rmcol d\ndelete f\nquit\n";
    let mut command = Command::new("cadaver");
    command.env("HOME", server.root()).current_dir(server.root());
    command.arg(format!("http://localhost:{}/", server.port()));
    let Some(told) = run(&mut command, commands) else { return };
    assert!(!told.contains("failed") && told.matches("succeeded").count() >= 11, "{told}");
    assert!(told.contains("Scope: exclusive  Type: write"), "{told}");
    assert_eq!(
        (server.read("got").as_str(), server.read("www/new/other").as_str()),
        ("from here", "from here")
    );
    assert!(!server.path("www/d").exists() && !server.path("www/f").exists());
}
