//! `thalweg serve`: a folder on the command line, served by the real binary.

use crate::util::server::guard;
use crate::util::{Client, Reserved, Signal, eventually, get, request};
use rustix::process::{Pid, kill_process_group};
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

const HASHED_SCRIPT: &str = "app.4f3a9b2c.js";

/// A folder with what sites have.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("thalweg-serve-").tempdir().expect("folder");
    for (path, text) in [
        ("site/docs/index.html", "<title>docs</title>"),
        ("site/assets/app.js", "script"),
        ("site/assets/app.js.gz", "packed"),
        ("site/assets/app.4f3a9b2c.js", "hashed"),
        ("site/plain/a.txt", "text"),
        ("site/.git/config", "secret"),
        ("site/.well-known/security.txt", "contact"),
        ("app/index.html", "<title>app</title>"),
        ("app/app.4f3a9b2c.js", "hashed"),
        ("app/parts/part.txt", "part"),
    ] {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().expect("has a parent")).expect("make folders");
        std::fs::write(path, text).expect("write file");
    }
    folder
}

/// A running `thalweg serve`; killed with all its processes when dropped.
struct Serve {
    child: Child,
    guard: Child,
    /// What it has written to standard output so far.
    output: Arc<Mutex<String>>,
}

impl Serve {
    /// Starts it and waits for its first line.
    fn start(current_folder: &Path, arguments: &[&str], port: Option<u16>) -> Serve {
        let mut child = command(current_folder, arguments, port).spawn().expect("start the program");
        let output = Arc::new(Mutex::new(String::new()));
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
        let gathered = Arc::clone(&output);
        std::thread::spawn(move || {
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|count| count > 0) {
                gathered.lock().expect("no panic").push_str(&std::mem::take(&mut line));
            }
        });
        let guard = guard(child.id());
        let mut serve = Serve { child, guard, output };
        eventually("a line, or an end", || {
            serve.output().contains('\n') || serve.child.try_wait().expect("wait").is_some()
        });
        assert!(serve.child.try_wait().expect("wait").is_none(), "it ended at once: {}", serve.errors());
        serve
    }

    fn output(&self) -> String {
        self.output.lock().expect("no panic").clone()
    }

    /// What it wrote to standard error, when it has ended.
    fn errors(&mut self) -> String {
        let mut text = String::new();
        let _ = self.child.stderr.take().expect("a pipe").read_to_string(&mut text);
        text
    }

    /// What a terminal does at Ctrl-C: the signal goes to all processes in the foreground.
    fn press_ctrl_c(mut self) -> ExitStatus {
        kill_process_group(self.group(), Signal::INT).expect("send a signal");
        let mut status = None;
        eventually("an end", || {
            status = self.child.try_wait().expect("wait");
            status.is_some()
        });
        status.expect("ended")
    }

    fn group(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = kill_process_group(self.group(), Signal::KILL);
        let _ = self.child.wait();
        let _ = self.guard.kill();
        let _ = self.guard.wait();
    }
}

fn command(current_folder: &Path, arguments: &[&str], port: Option<u16>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_thalweg"));
    command.arg("serve").args(arguments).current_dir(current_folder).process_group(0);
    command.env_remove("PORT").env("XDG_RUNTIME_DIR", current_folder);
    if let Some(port) = port {
        command.env("PORT", port.to_string());
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end: whether it succeeded, standard output, standard error.
fn run(current_folder: &Path, arguments: &[&str], port: Option<u16>) -> (bool, String, String) {
    let output = command(current_folder, arguments, port).output().expect("run the program");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

fn is_refused(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err()
}

#[test]
fn it_prints_where_it_serves_and_ctrl_c_ends_it() {
    let folder = folder();
    let port = Reserved::new();
    let serve = Serve::start(folder.path(), &["site", "--listen", &port.port().to_string()], None);
    let site = folder.path().join("site").canonicalize().expect("a path");
    let expected =
        format!("thalweg serves {} at http://localhost:{}/ (Ctrl-C ends it)", site.display(), port.port());
    assert_eq!(serve.output().lines().next(), Some(&*expected));
    // The line stands for open sockets: no waiting here.
    assert_eq!(get(port.port(), "/plain/a.txt").text(), "text");
    eventually("a line of the access log", || serve.output().contains("\"GET /plain/a.txt HTTP/1.1\" 200 4"));
    assert!(serve.press_ctrl_c().success());
    assert!(is_refused(port.port()));
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("folder").flatten().collect();
    assert_eq!(left.len(), 2, "the pid file is gone: {left:?}");
}

#[test]
fn the_demo_site_is_there() {
    let folder = folder();
    let port = Reserved::new();
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/demo");
    let _serve = Serve::start(folder.path(), &[demo, "--listen", &port.port().to_string()], None);
    let page = get(port.port(), "/");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html")));
    let text = page.text();
    let links: Vec<_> = text.split('"').filter(|part| part.starts_with('/')).collect();
    assert!(links.len() > 3, "{text}");
    for link in links {
        // One shows what a missing page looks like.
        let expected = if link == "/nowhere" { 404 } else { 200 };
        assert_eq!(get(port.port(), link).status, expected, "{link}");
    }
}

#[test]
fn ctrl_c_ends_it_with_connections_open() {
    let folder = folder();
    let port = Reserved::new();
    let serve = Serve::start(folder.path(), &["site", "--listen", &port.port().to_string()], None);
    let mut client = Client::connect(port.port());
    client.send("GET /plain/a.txt HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response().text(), "text");
    assert!(serve.press_ctrl_c().success());
    client.expect_closed();
}

#[test]
fn the_port_comes_from_the_option_then_the_environment_then_it_is_8080() {
    let folder = folder();
    let (option, variable) = (Reserved::new(), Reserved::new());
    let by_variable = Serve::start(&folder.path().join("site"), &[], Some(variable.port()));
    assert!(by_variable.output().contains(&format!(" at http://localhost:{}/ ", variable.port())));
    assert_eq!(get(variable.port(), "/plain/a.txt").text(), "text");
    drop(by_variable);

    let address = format!("127.0.0.1:{}", option.port());
    let by_option = Serve::start(folder.path(), &["--listen", &address, "site"], Some(variable.port()));
    assert!(by_option.output().contains(&format!(" at http://{address}/ ")));
    assert_eq!(get(option.port(), "/plain/a.txt").text(), "text");
    assert!(is_refused(variable.port()));

    let (ok, text, _) = run(folder.path(), &["--print-config"], None);
    assert!(ok && text.contains("listen 8080;"), "{text}");
}

#[test]
fn it_serves_on_a_unix_socket() {
    let folder = folder();
    let path = folder.path().join("thalweg.sock");
    let listen = format!("unix:{}", path.display());
    let serve = Serve::start(folder.path(), &["site", "--listen", &listen], None);
    assert!(serve.output().contains(&format!(" at {listen} ")), "{}", serve.output());
    let mut client = Client::connect_unix(&path);
    client.send("GET /plain/a.txt HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response().text(), "text");
    assert!(serve.press_ctrl_c().success());
    assert!(!path.exists());
}

#[test]
fn folders_are_listed_and_hidden_files_stay_hidden() {
    let folder = folder();
    let port = Reserved::new();
    let _serve = Serve::start(folder.path(), &["site", "--listen", &port.port().to_string()], None);
    let listing = get(port.port(), "/");
    assert_eq!(listing.status, 200);
    assert_eq!(listing.header("content-type"), Some("text/html"));
    let text = listing.text();
    assert!(text.contains("href=\"assets/\"") && text.contains("href=\"plain/\""), "{text}");
    assert!(!text.contains(".git"), "{text}");
    assert_eq!(get(port.port(), "/.git/config").status, 404);
    assert_eq!(get(port.port(), "/.well-known/security.txt").text(), "contact");
    assert_eq!(get(port.port(), "/docs/").text(), "<title>docs</title>");
    let redirect = get(port.port(), "/docs");
    assert_eq!(redirect.status, 301);
    assert_eq!(get(port.port(), "/..%2fapp/index.html").status, 400);
    drop(_serve);

    let bare =
        Serve::start(folder.path(), &["site", "--no-listing", "--listen", &port.port().to_string()], None);
    assert_eq!(get(port.port(), "/").status, 403);
    assert_eq!(get(port.port(), "/docs/").status, 200);
    drop(bare);
}

#[test]
fn browsers_ask_again_unless_the_name_has_a_content_hash() {
    let folder = folder();
    let port = Reserved::new();
    let _serve = Serve::start(folder.path(), &["site", "--listen", &port.port().to_string()], None);
    let cache_control = |path: &str| get(port.port(), path).header("cache-control").map(str::to_owned);
    assert_eq!(cache_control("/docs/").as_deref(), Some("no-cache"));
    assert_eq!(cache_control("/assets/app.js").as_deref(), Some("no-cache"));
    let kept = cache_control(&format!("/assets/{HASHED_SCRIPT}"));
    assert_eq!(kept.as_deref(), Some("public, max-age=31536000, immutable"));

    let first = get(port.port(), "/assets/app.js");
    let etag = first.header("etag").expect("an ETag").to_owned();
    assert!(first.header("last-modified").is_some());
    let again = request(port.port(), "GET", "/assets/app.js", &[("If-None-Match", &etag)]);
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(again.header("cache-control"), Some("no-cache"));
    let packed = request(port.port(), "GET", "/assets/app.js", &[("Accept-Encoding", "gzip")]);
    assert_eq!((packed.text().as_str(), packed.header("content-encoding")), ("packed", Some("gzip")));

    // A change is seen at once.
    std::fs::write(folder.path().join("site/assets/app.js"), "a longer script").expect("write file");
    let changed = request(port.port(), "GET", "/assets/app.js", &[("If-None-Match", &etag)]);
    assert_eq!((changed.status, changed.text().as_str()), (200, "a longer script"));
}

#[test]
fn a_single_page_application_gets_its_index_for_every_page() {
    let folder = folder();
    let port = Reserved::new();
    let _serve = Serve::start(folder.path(), &["app", "--spa", "--listen", &port.port().to_string()], None);
    for path in ["/", "/users/42", "/parts/"] {
        let page = get(port.port(), path);
        assert_eq!((page.status, page.text().as_str()), (200, "<title>app</title>"), "{path}");
        assert_eq!(page.header("cache-control"), Some("no-cache"), "{path}");
    }
    assert_eq!(get(port.port(), "/missing.js").status, 404);
    assert_eq!(request(port.port(), "GET", "/missing", &[("Sec-Fetch-Dest", "script")]).status, 404);
    let script = get(port.port(), &format!("/{HASHED_SCRIPT}"));
    assert_eq!(script.header("cache-control"), Some("public, max-age=31536000, immutable"));
}

#[test]
fn the_printed_configuration_serves_the_same() {
    let folder = folder();
    let port = Reserved::new();
    let listen = port.port().to_string();
    for (arguments, path, status) in [
        (&["site", "--listen", &listen][..], "/", 200),
        (&["site", "--no-listing", "--listen", &listen], "/", 403),
        (&["app", "--spa", "--listen", &listen], "/users/42", 200),
    ] {
        let (ok, text, errors) = run(folder.path(), &[arguments, &["--print-config"]].concat(), None);
        assert!(ok && errors.is_empty(), "{errors}");
        let file = folder.path().join("printed.conf");
        std::fs::write(&file, text).expect("write file");
        let mut child = Command::new(env!("CARGO_BIN_EXE_thalweg"));
        child.arg("-c").arg(&file).arg("-e").arg("stderr").process_group(0);
        child.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = child.spawn().expect("start the program");
        let guard = guard(child.id());
        let mut serve = Serve { child, guard, output: Arc::default() };
        eventually("it answers, or ends", || {
            !is_refused(port.port()) || serve.child.try_wait().expect("wait").is_some()
        });
        assert!(serve.child.try_wait().expect("wait").is_none(), "{}", serve.errors());
        assert_eq!(get(port.port(), path).status, status, "{arguments:?}");
        assert!(serve.press_ctrl_c().success());
    }
}

#[test]
fn names_of_folders_may_have_any_characters() {
    let folder = folder();
    let name = "a \"b\" {c}; $d #e \\f 'g'";
    std::fs::create_dir(folder.path().join(name)).expect("make a folder");
    std::fs::write(folder.path().join(name).join("a.txt"), "odd").expect("write file");
    let port = Reserved::new();
    let _serve = Serve::start(folder.path(), &[name, "--listen", &port.port().to_string()], None);
    assert_eq!(get(port.port(), "/a.txt").text(), "odd");
}

#[test]
fn what_cannot_be_served_is_told_in_one_line() {
    let folder = folder();
    let told = |arguments: &[&str], port, expected: &str| {
        let (ok, output, errors) = run(folder.path(), arguments, port);
        assert!(!ok && output.is_empty(), "{arguments:?}: {output}");
        assert!(errors.contains(expected), "{arguments:?}: {errors}");
    };
    told(&["missing"], None, "\"missing\" cannot be served (No such file or directory");
    told(&["site/plain/a.txt"], None, "a.txt\" is not a folder");
    told(&["site", "--listen", "nonsense:x"], None, "invalid address \"nonsense:x\" in --listen");
    told(&["site", "--listen", "70000"], None, "invalid address \"70000\" in --listen");

    let (ok, _, errors) = {
        let mut command = command(folder.path(), &["site"], None);
        let output = command.env("PORT", "web").output().expect("run the program");
        (output.status.success(), (), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert!(!ok && errors.contains("$PORT is \"web\", which is no port"), "{errors}");

    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    told(&["site", "--listen", &address], None, "failed (98: Address already in use)");
}
