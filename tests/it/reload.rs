//! Reloads and the ends of processes under load: nothing that was asked for is lost, and nothing is left behind.

use crate::util::{Builder, Client, Server, Signal, eventually, get};
use rustix::process::{Pid, kill_process};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A server whose every answer names its configuration, and where request bodies are read before the answer.
fn round_text(round: usize, main: &str) -> String {
    format!(
        "{main} http {{ client_body_early_read 1; keepalive_requests 1000000; log_format f 'round{round} $uri $status';
         access_log {{root}}/access.log f;
         server {{ listen {{port}};
         location / {{ return 200 round{round}; }}
         location /files/ {{ root {{root}}; }} }} }}"
    )
}

/// Starts it and waits for so many workers.
fn start(builder: Builder, workers: usize) -> Server {
    let server = builder.start();
    eventually("workers", || {
        let Some(process) = server.children().last().copied() else { return false };
        let tasks =
            std::fs::read_dir(format!("/proc/{}/task", number(process))).into_iter().flatten().flatten();
        let names = tasks.map(|task| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default());
        names.filter(|name| name.starts_with("thalweg/w")).count() == workers
    });
    server
}

fn server_process(server: &Server) -> Pid {
    *server.children().last().expect("a server process")
}

fn number(pid: Pid) -> i32 {
    pid.as_raw_nonzero().get()
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Holdings {
    threads: usize,
    descriptors: usize,
    resident_kib: usize,
}

fn holdings(pid: Pid) -> Holdings {
    let folder = format!("/proc/{}", number(pid));
    let count = |name: &str| std::fs::read_dir(format!("{folder}/{name}")).expect("a process").count();
    let status = std::fs::read_to_string(format!("{folder}/status")).expect("a process");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    let resident_kib = resident.trim().trim_end_matches(" kB").parse().expect("a number");
    Holdings { threads: count("task"), descriptors: count("fd"), resident_kib }
}

/// What became of the requests of one kind.
#[derive(Debug, Default)]
struct Tally {
    answered: AtomicUsize,
    lost: AtomicUsize,
    /// Connections that the server ended between two requests.
    ended: AtomicUsize,
}

/// Clients that keep their connections and ask again and again until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    tally: Arc<Tally>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// So many clients that send this request.
    fn start(port: u16, clients: usize, request: &[u8]) -> Self {
        let (stop, tally) = (Arc::new(AtomicBool::new(false)), Arc::new(Tally::default()));
        let request: Arc<[u8]> = request.into();
        let threads = (0..clients)
            .map(|_| {
                let (stop, tally, request) = (Arc::clone(&stop), Arc::clone(&tally), Arc::clone(&request));
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
                            tally.lost.fetch_add(1, Ordering::Relaxed);
                            continue;
                        };
                        let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
                        let _ = stream.set_nodelay(true);
                        let mut is_first = true;
                        while !stop.load(Ordering::Relaxed) {
                            match ask(&mut stream, &request) {
                                Asked::Answered { kept } => {
                                    tally.answered.fetch_add(1, Ordering::Relaxed);
                                    is_first = false;
                                    if !kept {
                                        break;
                                    }
                                }
                                Asked::Ended if !is_first => {
                                    tally.ended.fetch_add(1, Ordering::Relaxed);
                                    break;
                                }
                                Asked::Ended | Asked::Lost => {
                                    tally.lost.fetch_add(1, Ordering::Relaxed);
                                    break;
                                }
                            }
                            // Leaves the server's processors some time.
                            std::thread::sleep(Duration::from_micros(300));
                        }
                    }
                })
            })
            .collect();
        Self { stop, tally, threads }
    }

    /// Answered, lost, ended between two requests.
    fn stop(self) -> (usize, usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a client");
        }
        let of = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (of(&self.tally.answered), of(&self.tally.lost), of(&self.tally.ended))
    }
}

enum Asked {
    Answered {
        kept: bool,
    },
    /// The connection was closed in order, without a byte of an answer.
    Ended,
    Lost,
}

/// Sends a request in two parts and reads its answer, whose body is as long as its field says.
fn ask(stream: &mut TcpStream, request: &[u8]) -> Asked {
    let (first, second) = request.split_at(request.len() / 2);
    let sent = stream.write_all(first).and_then(|()| stream.write_all(second));
    let mut answer = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) if answer.is_empty() => return Asked::Ended,
            // A connection that was closed before the request went may answer it with a reset.
            Err(_) if answer.is_empty() && sent.is_err() => return Asked::Ended,
            Ok(0) | Err(_) => return Asked::Lost,
            Ok(count) => answer.extend_from_slice(&bytes[..count]),
        }
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
        if length.is_none_or(|length: usize| body.len() < length) {
            continue;
        }
        let whole = head.starts_with("HTTP/1.1 200 ") && length == Some(body.len());
        return match whole {
            true => Asked::Answered { kept: !head.contains("Connection: close") },
            false => Asked::Lost,
        };
    }
}

const GET: &[u8] = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n";

fn post() -> Vec<u8> {
    let mut request = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 40000\r\n\r\n".to_vec();
    request.resize(request.len() + 40_000, b'b');
    request
}

fn reload_to(server: &Server, round: usize, main: &str) {
    server.configure(&round_text(round, main));
    server.reload();
    let wanted = format!("round{round}");
    eventually("the new configuration answers", || get(server.port(), "/").text() == wanted);
}

#[test]
fn a_hundred_reloads_lose_no_get_and_no_post_and_leave_nothing_behind() {
    let main = "worker_processes 2;";
    let contents: Vec<u8> =
        (0..20_000_000u32).map(|byte| (byte.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let server = start(Server::builder(&round_text(0, main)).file("files/long.bin", &contents), 2);
    let process = server_process(&server);
    let mut idle: Vec<Client> = (0..20).map(|_| Client::connect(server.port())).collect();
    for client in &mut idle {
        assert_eq!(client.send(GET).read_response().text(), "round0");
    }
    // A download that takes as long as all of the reloads.
    let mut download = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).unwrap();
    download.write_all(b"GET /files/long.bin HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut got = vec![0; 100_000];
    download.read_exact(&mut got).unwrap();
    // And a body that is sent a piece a reload.
    let mut upload = Client::connect(server.port());
    upload.send("POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n");

    let gets = Load::start(server.port(), 3, GET);
    let posts = Load::start(server.port(), 3, &post());
    let mut before = None;
    for round in 1..=100 {
        reload_to(&server, round, main);
        upload.send("x");
        if round == 20 {
            before = Some(holdings(process));
        }
    }
    let (before, after) = (before.unwrap(), holdings(process));
    let (gets, posts) = (gets.stop(), posts.stop());
    println!("GET {gets:?}, POST {posts:?}, {before:?}, {after:?}");
    assert!(gets.0 > 100 && posts.0 > 100, "{gets:?} {posts:?}");
    assert_eq!((gets.1, gets.2, posts.1, posts.2), (0, 0, 0, 0));
    assert_eq!(server.children(), [process]);
    assert_eq!(after.threads, before.threads);
    // The two kinds of clients have as many connections as before; a reload in between may hold a file.
    assert!(after.descriptors <= before.descriptors + 4, "{before:?} {after:?}");
    assert!(after.resident_kib <= before.resident_kib + 4096, "{before:?} {after:?}");

    // What was on its way is finished with the configuration that it began with, and says so in its log line.
    assert_eq!(upload.read_response().text(), "round0");
    download.read_to_end(&mut got).unwrap();
    let body = memchr::memmem::find(&got, b"\r\n\r\n").unwrap() + 4;
    assert!(got[body..] == contents[..], "the download is as it should be");
    for client in &mut idle {
        assert_eq!(client.send(GET).read_response().text(), "round100");
    }
    eventually("log lines", || server.access_log().contains("round100 /x 200"));
    let log = server.access_log();
    assert!(log.contains("round0 /files/long.bin 200") && log.contains("round0 /slow 200"));
    assert!(!server.error_log().contains("[alert]"), "{}", server.error_log());
}

#[test]
fn keep_alive_connections_outlive_a_change_of_the_number_of_workers_or_end_in_order() {
    let server = start(Server::builder(&round_text(0, "worker_processes 2;")), 2);
    let gets = Load::start(server.port(), 4, GET);
    let posts = Load::start(server.port(), 4, &post());
    for (round, workers) in [4, 1, 3, 2, 1, 2].into_iter().enumerate() {
        reload_to(&server, round + 1, &format!("worker_processes {workers};"));
        std::thread::sleep(Duration::from_millis(100));
    }
    // After all of this, a kept connection still sees the newest configuration.
    let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(server.port())).collect();
    for client in &mut clients {
        assert_eq!(client.send(GET).read_response().text(), "round6");
    }
    reload_to(&server, 7, "worker_processes 2;");
    for client in &mut clients {
        assert_eq!(client.send(GET).read_response().text(), "round7");
    }
    let (gets, posts) = (gets.stop(), posts.stop());
    println!("GET {gets:?}, POST {posts:?}");
    assert!(gets.0 > 100 && posts.0 > 100, "{gets:?} {posts:?}");
    assert_eq!((gets.1, posts.1), (0, 0), "{gets:?} {posts:?}");
}

#[test]
fn a_listen_that_comes_or_goes_disturbs_no_other() {
    let server = start(Server::builder(&round_text(0, "")), 1);
    let load = Load::start(server.port(), 3, GET);
    let two =
        |round: usize| round_text(round, "").replace("listen {port};", "listen {port}; listen {port2};");
    for round in 1..=10 {
        let text = if round % 2 == 0 { round_text(round, "") } else { two(round) };
        server.configure(&text);
        server.reload();
        eventually("the new configuration answers", || {
            get(server.port(), "/").text() == format!("round{round}")
        });
        let connects = || TcpStream::connect((Ipv4Addr::LOCALHOST, server.port_of(2))).is_ok();
        eventually("the other port follows", || connects() == (round % 2 == 1));
    }
    // Who is connected to an address that goes is still served.
    server.configure(&two(11));
    server.reload();
    eventually("the other port", || TcpStream::connect((Ipv4Addr::LOCALHOST, server.port_of(2))).is_ok());
    let mut client = Client::connect(server.port_of(2));
    assert_eq!(client.send(GET).read_response().text(), "round11");
    reload_to(&server, 12, "");
    assert_eq!(client.send(GET).read_response().text(), "round11");
    let (answered, lost, ended) = load.stop();
    assert!(answered > 100 && lost + ended == 0, "{answered} {lost} {ended}");
}

#[test]
fn a_broken_configuration_is_reported_with_file_and_line_and_changes_nothing_under_load() {
    let server = start(Server::builder(&round_text(0, "worker_processes 2;")), 2);
    let before = holdings(server_process(&server));
    let load = Load::start(server.port(), 3, &post());
    for broken in 1..=10 {
        server.configure(&format!("\n\n\nnonsense{broken} on;\nhttp {{ server {{ listen {{port2}}; }} }}"));
        server.reload();
        eventually("an error line", || {
            server.error_log().contains(&format!("unknown directive \"nonsense{broken}\" in "))
        });
    }
    let place = format!("{}:4\n", server.path("nginx.conf").display());
    let log = server.error_log();
    let lines: Vec<&str> = log.split_inclusive('\n').filter(|line| line.contains("nonsense")).collect();
    assert!(
        lines.len() == 10 && lines.iter().all(|line| line.contains("[emerg]") && line.ends_with(&place)),
        "{log}"
    );
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, server.port_of(2))).is_err());
    assert_eq!(get(server.port(), "/").text(), "round0");
    let (answered, lost, ended) = load.stop();
    assert!(answered > 10 && lost + ended == 0, "{answered} {lost} {ended}");
    eventually("nothing is left", || {
        let after = holdings(server_process(&server));
        (after.threads, after.descriptors) == (before.threads, before.descriptors)
    });
}

#[test]
fn after_a_kill_the_next_server_process_answers_and_nobody_is_refused() {
    let server = start(Server::builder(&round_text(0, "worker_processes 2;")), 2);
    reload_to(&server, 1, "worker_processes 2;");
    // What is on the disk does not matter to what runs.
    server.configure("nonsense;");
    let mut times = Vec::new();
    for _ in 0..5 {
        let old = server_process(&server);
        let mut client = Client::connect(server.port());
        client.send(GET).read_response();
        kill_process(old, Signal::KILL).unwrap();
        let killed = Instant::now();
        // The connection of the dead process is gone before the next one is made: no answer comes from the old one.
        client.expect_closed();
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).expect("not refused");
        let mut client = Client::over_tcp(stream);
        assert_eq!(client.send(GET).read_response().text(), "round1");
        times.push(killed.elapsed());
        assert_ne!(server_process(&server), old);
        // A server process that lives for a second is no sign of trouble: the next one is started at once, too.
        std::thread::sleep(Duration::from_millis(1100));
    }
    println!("answers after a kill -9 took {times:?}");
}

#[test]
fn quit_serves_connections_that_have_not_asked_yet_and_finishes_downloads() {
    let contents = vec![b'c'; 8_000_000];
    let mut server = start(Server::builder(&round_text(0, "")).file("files/long.bin", &contents), 1);
    let mut fresh: Vec<Client> = (0..100).map(|_| Client::connect(server.port())).collect();
    let mut download = Client::connect(server.port());
    download.send("GET /files/long.bin HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut begin = download.read_exactly(10_000);
    let mut idle = Client::connect(server.port());
    idle.send(GET).read_response();
    server.signal(Signal::QUIT);
    idle.expect_closed();
    assert!(server.is_running());
    for client in &mut fresh {
        let response = client.send(GET).read_response();
        assert_eq!((response.text().as_str(), response.header("Connection")), ("round0", Some("close")));
        client.expect_closed();
    }
    begin.extend_from_slice(&download.read_to_end());
    assert!(begin.ends_with(&contents[..]), "the download is whole");
    assert!(server.wait_for_exit().success());
}

#[test]
fn terminating_waits_for_nobody() {
    let contents = vec![b'c'; 8_000_000];
    let mut server = start(Server::builder(&round_text(0, "")).file("files/long.bin", &contents), 1);

    let mut download = Client::connect(server.port());
    download.send("GET /files/long.bin HTTP/1.1\r\nHost: a\r\n\r\n").read_exactly(1000);
    let mut fresh = Client::connect(server.port());
    fresh.send("GET / HTTP/1.1\r\n");
    server.signal(Signal::TERM);
    assert!(server.wait_for_exit().success());
    fresh.expect_closed();
    assert!(server.children().is_empty());
}

#[test]
fn reopening_logs_under_load_loses_no_line() {
    let server = start(Server::builder(&round_text(0, "worker_processes 2;")), 2);
    let load = Load::start(server.port(), 4, GET);
    eventually("lines", || !server.access_log().is_empty());
    for rotation in 1..=20 {
        let name = format!("access.log.{rotation}");
        std::fs::rename(server.path("access.log"), server.path(&name)).unwrap();
        server.signal(Signal::USR1);
        eventually("a new log", || server.path("access.log").exists());
        eventually("lines in it", || !server.access_log().is_empty());
    }
    let (answered, lost, ended) = load.stop();
    assert!(answered > 100 && lost + ended == 0, "{answered} {lost} {ended}");
    let count = || {
        let rotated = (1..=20).map(|rotation| server.read(&format!("access.log.{rotation}")));
        let all: String = rotated.chain([server.access_log()]).collect();
        assert!(
            all.lines().all(|line| line.starts_with("round0 /") && line.ends_with(" 200")),
            "whole lines"
        );
        all.lines().filter(|line| line.contains(" /x ")).count()
    };
    eventually("every line", || count() == answered);
}
