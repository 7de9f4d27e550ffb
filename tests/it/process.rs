//! Processes, signals, reload and binary upgrade, over real sockets and the real binary.

use crate::util::{Client, Output, Server, Signal, eventually, get};
use rustix::process::{Pid, kill_process, test_kill_process};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A server that answers everything with this text, with these further directives.
fn answering(text: &str, main: &str) -> String {
    format!("{main}\nhttp {{ server {{ listen {{port}}; location / {{ return 200 {text}; }} }} }}")
}

/// Starts it and waits until all workers are there: the port accepts connections before.
fn start(text: &str) -> Server {
    let server = Server::start(text);
    wait_for_workers(&server);
    server
}

fn wait_for_workers(server: &Server) {
    eventually("workers", || {
        let wanted = server.read("nginx.conf");
        let wanted =
            wanted.split_once("worker_processes ").and_then(|(_, rest)| rest.split(';').next()?.parse().ok());
        server.children().last().is_some_and(|_| workers(server) == wanted.unwrap_or(1))
    });
}

fn answer(server: &Server) -> String {
    get(server.port(), "/").text()
}

fn number(pid: Pid) -> i32 {
    pid.as_raw_nonzero().get()
}

/// The server process: the master's youngest child.
fn server_process(server: &Server) -> Pid {
    // The sockets listen before it is there.
    eventually("a server process", || !server.children().is_empty());
    *server.children().last().expect("a server process")
}

fn is_alive(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", number(pid))).unwrap_or_default();
    // A zombie is as good as gone.
    test_kill_process(pid).is_ok() && !stat.contains(") Z ")
}

/// One field of `/proc/ID/status` for each thread whose name begins so.
fn thread_fields(pid: Pid, name: &str, field: &str) -> Vec<String> {
    let mut values = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{}/task", number(pid))).into_iter().flatten().flatten() {
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let value = |wanted: &str| {
            status.lines().find_map(|line| line.strip_prefix(wanted)?.strip_prefix(':')).map(str::trim)
        };
        if value("Name").is_some_and(|thread| thread.starts_with(name)) {
            values.push(value(field).unwrap_or_default().to_owned());
        }
    }
    values
}

/// The nice values of the workers.
fn priorities(pid: Pid) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", number(pid))).into_iter().flatten().flatten();
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
    stats
        .filter(|stat| stat.contains("(thalweg/w"))
        .filter_map(|stat| Some(stat.rsplit_once(')')?.1.split_whitespace().nth(16)?.to_owned()))
        .collect()
}

fn workers(server: &Server) -> usize {
    thread_fields(server_process(server), "thalweg/w", "Name").len()
}

fn run(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_thalweg"))
        .current_dir(folder)
        .args(arguments)
        .output()
        .expect("run the program");
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Clients that connect and ask again and again until they are stopped.
struct Crowd {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Tally>>,
}

/// What became of the requests.
#[derive(Debug, Default)]
struct Tally {
    answered: usize,
    refused: usize,
    broken: usize,
}

impl Crowd {
    fn start(port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..4).map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut tally = Tally::default();
                while !stop.load(Ordering::Relaxed) {
                    match ask(port) {
                        Ok(true) => tally.answered += 1,
                        Ok(false) => tally.broken += 1,
                        Err(_) => tally.refused += 1,
                    }
                    // Without a pause the crowd uses its ports up.
                    std::thread::sleep(Duration::from_millis(2));
                }
                tally
            })
        });
        let threads = clients.collect();
        Self { stop, threads }
    }

    fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().map(|thread| thread.join().expect("client")).fold(
            Tally::default(),
            |sum, tally| Tally {
                answered: sum.answered + tally.answered,
                refused: sum.refused + tally.refused,
                broken: sum.broken + tally.broken,
            },
        )
    }
}

/// Whether a fresh connection got its answer; the error is that of connecting.
fn ask(port: u16) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
    let mut head = [0; 12];
    Ok(stream.write_all(REQUEST.as_bytes()).is_ok()
        && stream.read_exact(&mut head).is_ok()
        && &head == b"HTTP/1.1 200")
}

/// The same configuration in the same folder, started once more in the foreground.
struct Again(std::process::Child);

impl Again {
    fn start(server: &Server) -> Self {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_thalweg"));
        Self(command.args(["-p", ".", "-c", "nginx.conf"]).current_dir(server.root()).spawn().expect("start"))
    }

    fn stop(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).expect("send a signal");
        assert!(self.0.wait().expect("wait").success());
    }
}

impl Drop for Again {
    fn drop(&mut self) {
        // Its server process ends when it is gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_runs_in_the_foreground_and_ends_by_signal() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let mut server = start(&answering("one", ""));
        assert_eq!(answer(&server), "one");
        assert_eq!(server.read("server.pid").trim(), number(server.pid()).to_string());
        server.signal(signal);
        assert!(server.wait_for_exit().success());
        assert!(!server.path("server.pid").exists());
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).is_err());
    }
}

#[test]
fn it_runs_without_a_master() {
    let mut server = Server::builder(&answering("one", "")).master(false).start();
    assert_eq!((answer(&server), server.children().len()), ("one".to_owned(), 0));
    let text = server.complete(&answering("two", ""), false);
    server.write("nginx.conf", text);
    server.reload();
    eventually("the new configuration answers", || answer(&server) == "two");
    server.signal(Signal::QUIT);
    assert!(server.wait_for_exit().success());
    assert!(!server.path("server.pid").exists());
}

#[test]
fn the_started_process_ends_when_the_daemon_is_up() {
    let mut server = Server::builder(&answering("one", "")).daemon(true).wait(false).start();
    assert!(server.wait_for_exit().success());
    // No waiting: the pid file is there and the port answers as soon as the started process has ended.
    let pid = server.pid();
    assert_eq!(answer(&server), "one");
    assert!(is_alive(pid));
    let (status, _) = run(server.root(), &["-p", ".", "-c", "nginx.conf", "-s", "quit"]);
    assert_eq!(status, 0);
    eventually("the daemon ends", || !is_alive(pid));
    assert!(!server.path("server.pid").exists());
}

#[test]
fn a_daemon_that_cannot_start_says_so_by_its_status() {
    let server = start(&answering("one", ""));
    let text = server.complete(&answering("two", "daemon on; pid {root}/none/other.pid;"), true);
    let text = text.replace(&server.port().to_string(), &server.port_of(2).to_string());
    server.write("other.conf", text);
    let (status, stderr) = run(server.root(), &["-p", ".", "-c", "other.conf"]);
    assert_eq!(status, 1);
    assert!(stderr.contains("[emerg] open()") && stderr.contains("other.pid"), "{stderr}");
}

#[test]
fn processes_have_titles() {
    let server = start(&answering("one", ""));
    let title =
        |pid: Pid| std::fs::read_to_string(format!("/proc/{}/cmdline", number(pid))).unwrap_or_default();
    assert!(title(server.pid()).starts_with("thalweg: master process "), "{}", title(server.pid()));
    assert!(title(server_process(&server)).starts_with("thalweg: server process"));
}

#[test]
fn quit_finishes_a_request_and_closes_idle_connections() {
    let mut server = start(&answering("one", ""));
    let mut idle = Client::connect(server.port());
    idle.send(REQUEST).read_response();
    let mut busy = Client::connect(server.port());
    busy.send("GET / HTTP/1.1\r\nHo");
    // The other connection's answer does not say that this part has been read.
    std::thread::sleep(Duration::from_millis(100));
    server.signal(Signal::QUIT);
    idle.expect_closed();
    eventually("new connections are refused", || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).is_err()
    });
    assert!(server.is_running());
    busy.send("st: a\r\n\r\n");
    assert_eq!(busy.read_response().text(), "one");
    assert!(server.wait_for_exit().success());
}

#[test]
fn a_graceful_end_has_its_timeout() {
    let mut server = start(&answering("one", "worker_shutdown_timeout 200ms;"));
    let mut busy = Client::connect(server.port());
    busy.send("GET / HTTP/1.1\r\nHo");
    std::thread::sleep(Duration::from_millis(100));
    server.signal(Signal::QUIT);
    busy.expect_closed();
    assert!(server.wait_for_exit().success());
}

#[test]
fn reload_happens_in_the_same_process_and_idle_connections_see_it() {
    let server = start(&answering("one", ""));
    let process = server_process(&server);
    let mut client = Client::connect(server.port());
    assert_eq!(client.send(REQUEST).read_response().text(), "one");
    server.configure(&answering("two", ""));
    server.reload();
    eventually("the new configuration answers", || answer(&server) == "two");
    assert_eq!(client.send(REQUEST).read_response().text(), "two");
    assert_eq!(server.children(), [process]);
}

#[test]
fn a_broken_configuration_changes_nothing_and_is_reported() {
    let server = start(&answering("one", ""));
    let process = server_process(&server);
    server.configure(&answering("two", "nonsense on;"));
    server.reload();
    eventually("an error line", || server.error_log().contains("unknown directive \"nonsense\""));
    assert!(server.error_log().contains("[emerg]"));
    assert_eq!(answer(&server), "one");
    assert_eq!(server.children(), [process]);
    // Nor does one whose address can't be had.
    server.configure("server { listen {port}; listen 203.0.113.1:1; return 200 three; }");
    server.reload();
    eventually("an error line", || server.error_log().contains("bind() to 203.0.113.1:1 failed"));
    assert_eq!(answer(&server), "one");
}

#[test]
fn reload_binds_what_is_new_and_releases_what_is_gone() {
    let server = start(&answering("one", ""));
    server.configure(&answering("two", "").replace("{port}", "{port2}"));
    server.reload();
    let connects = |port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
    eventually("the new port answers", || connects(server.port_of(2)));
    assert_eq!(get(server.port_of(2), "/").text(), "two");
    eventually("the old port is closed", || !connects(server.port()));
    server.configure(&answering("three", ""));
    server.reload();
    eventually("the first port is back", || connects(server.port()) && answer(&server) == "three");
}

#[test]
fn the_number_of_workers_follows_the_configuration() {
    let server = start(&answering("one", "worker_processes 2;"));
    assert_eq!(workers(&server), 2);
    let mut client = Client::connect(server.port());
    client.send(REQUEST).read_response();
    let crowd = Crowd::start(server.port());
    for count in [4, 1, 3] {
        server.configure(&answering("one", &format!("worker_processes {count};")));
        server.reload();
        eventually("the workers are so many", || workers(&server) == count);
    }
    let tally = crowd.stop();
    assert!(tally.answered > 0 && tally.refused + tally.broken == 0, "{tally:?}");
}

#[test]
fn reloads_lose_no_request() {
    let server = start(&answering("one", "worker_processes 2;"));
    let process = server_process(&server);
    let crowd = Crowd::start(server.port());
    for round in 1..=20 {
        server.configure(&answering(&format!("round{round}"), "worker_processes 2;"));
        server.reload();
        eventually("the new configuration answers", || answer(&server) == format!("round{round}"));
    }
    let tally = crowd.stop();
    assert!(tally.answered > 0 && tally.refused + tally.broken == 0, "{tally:?}");
    assert_eq!((server.children(), workers(&server)), (vec![process], 2));
}

#[test]
fn a_killed_server_process_is_replaced_and_no_connection_is_refused() {
    let server = start(&answering("one", "worker_processes 2;"));
    let crowd = Crowd::start(server.port());
    for _ in 0..3 {
        let old = server_process(&server);
        kill_process(old, Signal::KILL).unwrap();
        eventually("another server process", || server.children().last().is_some_and(|new| *new != old));
        assert_eq!(answer(&server), "one");
    }
    let tally = crowd.stop();
    assert!(tally.answered > 0 && tally.refused == 0, "{tally:?}");
    assert!(server.error_log().contains("exited on signal 9"));
}

#[test]
fn a_replacement_starts_from_what_ran_not_from_the_disk() {
    let server = start(&answering("one", ""));
    // What a reload brought is what the next process starts with: text and sockets.
    server.configure(&answering("two", "").replace("listen {port};", "listen {port}; listen {port2};"));
    server.reload();
    eventually("the new configuration answers", || answer(&server) == "two");
    for disk in ["nonsense", "server { listen {port}; return 200 three; }"] {
        server.configure(disk);
        let old = server_process(&server);
        kill_process(old, Signal::KILL).unwrap();
        eventually("another server process", || server.children().last().is_some_and(|new| *new != old));
        assert_eq!(answer(&server), "two");
        assert_eq!(get(server.port_of(2), "/").text(), "two");
    }
    server.reload();
    eventually("the disk's configuration answers", || answer(&server) == "three");
}

#[test]
fn a_server_process_whose_master_is_gone_ends_and_frees_the_port() {
    let server = start(&answering("one", ""));
    let process = server_process(&server);
    server.signal(Signal::KILL);
    eventually("the server process ends", || !is_alive(process));
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).is_err());
}

#[test]
fn a_port_left_behind_by_a_dead_process_binds() {
    let mut server = start(&answering("one", ""));
    // Connections that the server closed leave the port in TIME_WAIT; one that is open dies with the process.
    let mut open = Client::connect(server.port());
    open.send(REQUEST).read_response();
    answer(&server);
    let process = server_process(&server);
    kill_process(server.pid(), Signal::KILL).unwrap();
    // It may be on its way out already: it sees that its master is gone.
    let _ = kill_process(process, Signal::KILL);
    server.wait_for_exit();
    let port = server.port();
    eventually("nobody listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
    assert!(server.path("server.pid").exists());
    let again = Again::start(&server);
    eventually("it answers again", || ask(port).is_ok_and(|answered| answered));
    again.stop();
}

#[test]
fn a_port_in_use_is_an_error() {
    let server = start(&answering("one", ""));
    let (status, stderr) = run(server.root(), &["-p", ".", "-c", "nginx.conf"]);
    let refused =
        format!("thalweg: [emerg] bind() to 0.0.0.0:{} failed (98: Address already in use)", server.port());
    assert_eq!(status, 1);
    assert!(stderr.contains(&refused), "{stderr}");
    assert!(stderr.ends_with("thalweg: [emerg] still could not bind()\n"), "{stderr}");
    assert_eq!(answer(&server), "one");
}

#[test]
fn unix_sockets_serve_are_replaced_when_stale_and_removed_at_the_end() {
    let text = "worker_processes 2; http { server { listen unix:{root}/a.sock; return 200 one; } }";
    let mut server = start(text);
    let path = server.path("a.sock");
    let ask = || Client::connect_unix(&path).send(REQUEST).read_response().text();
    assert_eq!(ask(), "one");
    server.configure(&text.replace("one", "two"));
    server.reload();
    eventually("the new configuration answers", || ask() == "two");
    server.signal(Signal::QUIT);
    assert!(server.wait_for_exit().success());
    assert!(!path.exists());
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let again = Again::start(&server);
    eventually("it answers again", || std::os::unix::net::UnixStream::connect(&path).is_ok());
    assert_eq!(ask(), "two");
    again.stop();
}

#[test]
fn an_upgraded_binary_takes_over_without_losing_a_request() {
    let mut server = start(&answering("one", ""));
    let (old, old_process) = (server.pid(), server_process(&server));
    let crowd = Crowd::start(server.port());
    server.configure(&answering("two", ""));
    server.signal(Signal::USR2);
    // A pid file is there a moment before its number is.
    eventually("two pid files", || {
        let written = std::fs::read_to_string(server.path("server.pid")).unwrap_or_default();
        written.trim().parse::<i32>().is_ok() && server.path("server.pid.oldbin").exists()
    });
    let new: i32 = server.read("server.pid").trim().parse().unwrap();
    let new = Pid::from_raw(new).unwrap();
    assert_ne!(new, old);
    assert_eq!(server.read("server.pid.oldbin").trim(), number(old).to_string());
    eventually("the new binary answers", || answer(&server) == "two");
    // A second upgrade before this one is settled is refused.
    kill_process(new, Signal::USR2).unwrap();
    eventually("a refusal", || server.error_log().contains("the changing binary signal is ignored"));
    kill_process(old, Signal::QUIT).unwrap();
    assert!(server.wait_for_exit().success());
    assert!(!is_alive(old_process));
    assert!(!server.path("server.pid.oldbin").exists());
    for _ in 0..20 {
        assert_eq!(answer(&server), "two");
    }
    let tally = crowd.stop();
    assert!(tally.answered > 0 && tally.refused + tally.broken == 0, "{tally:?}");
    assert_eq!(server.read("server.pid").trim(), number(new).to_string());
    kill_process(new, Signal::QUIT).unwrap();
    eventually("the new binary ends", || !server.path("server.pid").exists());
}

#[test]
fn the_old_binary_comes_back() {
    let mut server = Server::builder(&answering("one", "")).daemon(true).start();
    server.wait_for_exit();
    let old = server.pid();
    let crowd = Crowd::start(server.port());
    server.configure(&answering("two", ""));
    kill_process(old, Signal::USR2).unwrap();
    eventually("a new pid", || {
        server.path("server.pid.oldbin").exists()
            && !server.read("server.pid").trim().is_empty()
            && server.pid() != old
    });
    let new = server.pid();
    eventually("the new binary answers", || answer(&server) == "two");
    kill_process(old, Signal::WINCH).unwrap();
    let children = |pid: Pid| {
        let text =
            std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", number(pid))).unwrap_or_default();
        text.split_whitespace().map(|one| one.parse().unwrap()).collect::<BTreeSet<i32>>()
    };
    eventually("the old server process ends", || children(old) == BTreeSet::from([number(new)]));
    assert_eq!(answer(&server), "two");
    // HUP brings its server process back, with what it ran before; then the new one may go.
    kill_process(old, Signal::HUP).unwrap();
    eventually("the old server process is back", || children(old).len() == 2);
    eventually("the old configuration answers", || answer(&server) == "one");
    kill_process(new, Signal::QUIT).unwrap();
    eventually("the pid file has its name again", || {
        server.read("server.pid").trim() == number(old).to_string()
            && !server.path("server.pid.oldbin").exists()
    });
    for _ in 0..20 {
        assert_eq!(answer(&server), "one");
    }
    let tally = crowd.stop();
    assert!(tally.answered > 0 && tally.refused + tally.broken == 0, "{tally:?}");
    kill_process(old, Signal::TERM).unwrap();
    eventually("the old binary ends", || !is_alive(old));
}

#[test]
fn an_upgrade_that_cannot_start_changes_nothing() {
    let server = start(&answering("one", ""));
    server.configure(&answering("two", "nonsense on;"));
    server.signal(Signal::USR2);
    eventually("its end is noticed", || server.error_log().contains("new binary process"));
    eventually("the pid file is back", || {
        server.read("server.pid").trim() == number(server.pid()).to_string()
            && !server.path("server.pid.oldbin").exists()
    });
    assert_eq!(answer(&server), "one");
}

#[test]
fn usr1_opens_the_error_log_anew() {
    let server = start(&answering("one", ""));
    std::fs::rename(server.path("error.log"), server.path("error.log.1")).unwrap();
    server.signal(Signal::USR1);
    eventually("a new log", || server.path("error.log").exists());
    server.reload();
    eventually("lines in it", || server.error_log().contains("reconfigured"));
    assert!(!server.read("error.log.1").contains("reconfigured"));
}

#[test]
fn orders_go_by_the_pid_file() {
    let mut server = start(&answering("one", ""));
    let order = |name: &str| run(server.root(), &["-p", ".", "-c", "nginx.conf", "-s", name]);
    server.configure(&answering("two", ""));
    assert_eq!(order("reload").0, 0);
    eventually("the new configuration answers", || answer(&server) == "two");
    std::fs::remove_file(server.path("error.log")).unwrap();
    assert_eq!(order("reopen").0, 0);
    eventually("a new log", || server.path("error.log").exists());
    assert_eq!(order("stop").0, 0);
    assert!(server.wait_for_exit().success());
    let order = |name: &str| run(server.root(), &["-p", ".", "-c", "nginx.conf", "-s", name]);
    let missing = format!(
        "thalweg: [error] open() \"{}\" failed (2: No such file or directory)\n",
        server.path("server.pid").display()
    );
    assert_eq!(order("stop"), (1, missing));
    assert_eq!(order("nonsense").0, 1);
}

#[test]
fn a_test_of_the_configuration_says_what_it_found() {
    let Output { status, stderr, root, .. } = Server::builder(&answering("one", "")).run(&["-t"]);
    let conf = root.join("nginx.conf").display().to_string();
    assert!(status.success());
    assert_eq!(
        stderr,
        format!(
            "thalweg: the configuration file {conf} syntax is ok\nthalweg: configuration file {conf} test is successful\n"
        )
    );
    let output = Server::builder(&answering("one", "")).run(&["-tq"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let output = Server::builder(&answering("one", "")).run(&["-T"]);
    let marker = format!("# configuration file {}:\n", output.root.join("nginx.conf").display());
    assert!(output.stdout.contains(&marker) && output.stdout.contains("return 200 one;"), "{output:?}");
    let output = Server::builder(&answering("one", "nonsense on;")).run(&["-t"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stderr.contains("[emerg] unknown directive \"nonsense\" in"), "{}", output.stderr);
    assert!(output.stderr.ends_with("test failed\n"), "{}", output.stderr);
}

#[test]
fn a_test_of_the_configuration_needs_no_resolver_and_writes_nothing() {
    let output = Server::builder("server { listen no.such.name.invalid:80; }").run(&["-t"]);
    assert!(output.status.success(), "{}", output.stderr);
    let output = Server::builder("server { listen no.such.name.invalid:80; }").run(&[]);
    assert!(output.stderr.contains("host not found in \"no.such.name.invalid:80\""), "{}", output.stderr);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn versions_are_told() {
    let version = format!("thalweg version: thalweg/{}\n", env!("CARGO_PKG_VERSION"));
    let root = Path::new("/");
    assert_eq!(run(root, &["-v"]), (0, version.clone()));
    let (status, stderr) = run(root, &["-V"]);
    assert!(status == 0 && stderr.starts_with(&version) && stderr.contains("features:"), "{stderr}");
    assert_eq!(run(root, &["-h"]).0, 0);
    assert_eq!(run(root, &["-x"]).0, 1);
}

#[test]
fn workers_give_their_privileges_up_and_the_main_thread_keeps_what_a_reload_needs() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let server = start(&answering("one", "worker_processes 2; user nobody nogroup;"));
    let ids = |name: &str, field: &str| -> Vec<String> {
        let lines = thread_fields(server_process(&server), name, field);
        lines.iter().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    let nobody = "65534 65534 65534 65534";
    assert_eq!(ids("thalweg/w", "Uid"), [nobody, nobody]);
    assert_eq!(ids("thalweg/w", "Gid"), [nobody, nobody]);
    assert_eq!(ids("thalweg/w", "CapEff"), ["0000000000000000"; 2]);
    let main: Vec<String> = thread_fields(server_process(&server), "thalweg", "Uid");
    assert!(main.iter().any(|line| line.starts_with('0')), "{main:?}");
    // Another user: other threads, the same process.
    let process = server_process(&server);
    server.configure(&answering("two", "worker_processes 2; user root;"));
    server.reload();
    eventually("workers are root", || ids("thalweg/w", "Uid") == ["0 0 0 0"; 2]);
    assert_eq!((answer(&server), server_process(&server)), ("two".to_owned(), process));
}

#[test]
fn limits_affinity_and_priority_are_applied() {
    let text = answering(
        "one",
        "worker_processes 1; worker_rlimit_nofile 777; worker_cpu_affinity auto; worker_priority 3;",
    );
    let server = start(&text);
    let process = server_process(&server);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", number(process))).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["777", "777"]);
    // A worker has its name before it binds itself.
    eventually("a worker on one processor", || {
        let bound = thread_fields(process, "thalweg/w", "Cpus_allowed_list");
        matches!(&bound[..], [list] if list.parse::<u32>().is_ok())
    });
    eventually("a worker of that priority", || priorities(process) == ["3"]);
}
