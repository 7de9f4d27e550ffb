//! Processes that die or run out of something: what is lost is what was theirs, and service goes on.

use crate::util::disk::limit;
use crate::util::{Client, Server, Signal, Upstream, eventually, get};
use rustix::process::{Pid, Resource, kill_process};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn process(server: &Server) -> Pid {
    eventually("a server process", || !server.children().is_empty());
    *server.children().last().expect("a server process")
}

/// Clock ticks of processor time that a process has used.
fn ticks(process: Pid) -> u64 {
    let stat =
        std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).expect("a process");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("fields").1.split_whitespace().collect();
    fields[11].parse::<u64>().expect("a number") + fields[12].parse::<u64>().expect("a number")
}

#[test]
fn a_kill_9_under_load_costs_only_what_was_on_connections_of_the_dead_process() {
    const CLIENTS: usize = 8;
    const KILLS: usize = 3;
    let upstream = Upstream::http(|_, _| b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine".to_vec());
    let server = Server::start(&format!(
        "worker_processes 2; http {{ keepalive_requests 100000000; server {{ listen {{port}};
         location / {{ return 200 fine; }} location /pass {{ proxy_pass http://127.0.0.1:{}; }} }} }}",
        upstream.port()
    ));
    let (port, stop) = (server.port(), Arc::new(AtomicBool::new(false)));
    let (answered, broken) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let threads: Vec<_> = (0..CLIENTS)
        .map(|index| {
            let (stop, answered, broken) = (stop.clone(), answered.clone(), broken.clone());
            std::thread::spawn(move || {
                let request = if index % 2 == 0 { GET } else { "GET /pass HTTP/1.1\r\nHost: a\r\n\r\n" };
                while !stop.load(Ordering::Relaxed) {
                    // The sockets belong to the master: between two processes connections wait, and are not refused.
                    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("never refused");
                    let mut client = Client::over_tcp(stream);
                    while !stop.load(Ordering::Relaxed) {
                        if !client.try_send(request) {
                            broken.fetch_add(1, Ordering::Relaxed);
                            break;
                        }
                        match client.response_to("GET") {
                            Ok(response) => assert_eq!(response.text(), "fine"),
                            Err(_) => {
                                broken.fetch_add(1, Ordering::Relaxed);
                                break;
                            }
                        }
                        answered.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(Duration::from_micros(300));
                    }
                }
            })
        })
        .collect();
    for _ in 0..KILLS {
        // One that lived for a second is followed at once.
        std::thread::sleep(Duration::from_millis(1200));
        let (old, before) = (process(&server), answered.load(Ordering::Relaxed));
        kill_process(old, Signal::KILL).expect("kill");
        eventually("the next process", || server.children().last().is_some_and(|new| *new != old));
        eventually("answers again", || answered.load(Ordering::Relaxed) > before + 2 * CLIENTS);
    }
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("a client");
    }
    let (answered, broken) = (answered.load(Ordering::Relaxed), broken.load(Ordering::Relaxed));
    println!("{answered} answered, {broken} broken");
    // Each client had one connection when a process died.
    assert!(broken <= CLIENTS * KILLS, "{broken} of {answered} were lost");
    assert!(answered > 1000, "{answered}");
}

/// A server and idle connections that hold most of its descriptors.
fn crowded(upstream: &Upstream) -> (Server, Vec<Client>) {
    let server = Server::builder(&format!(
        "worker_processes 1; http {{ server {{ listen {{port}}; root {{root}}/html; location = / {{ return 200 fine; }}
         location /pass {{ proxy_pass http://127.0.0.1:{}; }} }} }}",
        upstream.port()
    ))
    .file("html/file.bin", vec![b'f'; 300_000])
    .start();
    let mut clients: Vec<Client> = (0..40).map(|_| Client::connect(server.port())).collect();
    for client in &mut clients {
        assert_eq!(client.send(GET).read_response().text(), "fine");
    }
    (server, clients)
}

/// Lets the process open nothing more: the lowest number that is free is over the limit.
fn exhaust(server: &Server) {
    let folder = format!("/proc/{}/fd", process(server).as_raw_nonzero());
    let open = std::fs::read_dir(folder).expect("a process").flatten();
    let open: BTreeSet<u64> = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let free = (0..).find(|number| !open.contains(number)).expect("a number");
    limit(process(server), Resource::Nofile, free);
}

#[test]
fn without_descriptors_open_connections_are_served_new_ones_wait_and_nothing_spins() {
    let upstream = Upstream::http(|_, _| b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nback".to_vec());
    let (server, mut clients) = crowded(&upstream);
    exhaust(&server);
    // They are accepted by the kernel, and wait.
    let mut waiting: Vec<Client> = (0..30).map(|_| Client::connect(server.port())).collect();
    for client in &mut waiting {
        client.send(GET);
    }
    eventually("accepting rests", || {
        server.error_log().contains("accept4() failed (24: Too many open files)")
    });
    let (process, begin) = (process(&server), Instant::now());
    let before = ticks(process);
    while begin.elapsed() < Duration::from_millis(1500) {
        for client in clients.iter_mut().take(5) {
            assert_eq!(client.send(GET).read_response().text(), "fine");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let used = ticks(process) - before;
    assert!(used <= 40, "{used} hundredths of a second for 150 requests");
    // With room again, whoever waited is served.
    drop(clients);
    limit(process, Resource::Nofile, 1000);
    for client in &mut waiting {
        assert_eq!(client.read_response().text(), "fine");
    }
    assert_eq!(get(server.port(), "/pass").text(), "back");
}

#[test]
fn idle_connections_give_way_before_files_and_upstreams_lack_descriptors() {
    let upstream = Upstream::http(|_, _| b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nback".to_vec());
    let server = Server::builder(&format!(
        "worker_rlimit_nofile 60; http {{ server {{ listen {{port}}; root {{root}}/html; location = / {{ return 200 fine; }}
         location /pass {{ proxy_pass http://127.0.0.1:{}; }} }} }}",
        upstream.port()
    ))
    .file("html/file.bin", vec![b'f'; 300_000])
    .start();
    let mut clients = Vec::new();
    for _ in 0..100 {
        let mut client = Client::connect(server.port());
        assert_eq!(client.send(GET).read_response().text(), "fine");
        let response = client.send("GET /file.bin HTTP/1.1\r\nHost: a\r\n\r\n").read_response();
        assert_eq!((response.status, response.body.len()), (200, 300_000), "{}", server.error_log());
        let response = client.send("GET /pass HTTP/1.1\r\nHost: a\r\n\r\n").read_response();
        assert_eq!((response.status, response.text().as_str()), (200, "back"), "{}", server.error_log());
        clients.push(client);
    }
    clients[0].expect_closed();
    let log = server.error_log();
    assert!(
        log.contains("descriptors are not enough, reusing connections") && !log.contains("[crit]"),
        "{log}"
    );
}

#[test]
fn without_memory_to_grow_what_runs_is_served_and_service_outlives_the_process() {
    let upstream = Upstream::http(|_, body| {
        let length = body.len().to_string();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{length}", length.len()).into_bytes()
    });
    let (server, mut clients) = crowded(&upstream);
    // Everything that a request needs was used before.
    assert_eq!(
        clients[0].send("GET /file.bin HTTP/1.1\r\nHost: a\r\n\r\n").read_response().body.len(),
        300_000
    );
    let old = process(&server);
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", old.as_raw_nonzero())).expect("a process");
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("a size");
    let kib: u64 = size.trim().trim_end_matches(" kB").parse().expect("a number");
    limit(old, Resource::As, kib * 1024);
    for _ in 0..50 {
        for client in &mut clients {
            assert_eq!(client.send(GET).read_response().text(), "fine");
        }
        let response = clients[0].send("GET /file.bin HTTP/1.1\r\nHost: a\r\n\r\n").read_response();
        assert_eq!(response.body.len(), 300_000);
    }
    assert_eq!(process(&server), old);
    // Now for more than there is: whether it is served or the process ends over it, the next one answers.
    let mut crowd: Vec<Client> = (0..200).map(|_| Client::connect(server.port())).collect();
    for client in &mut crowd {
        client.try_send(format!(
            "POST /pass HTTP/1.1\r\nHost: a\r\nX: {}\r\nContent-Length: 900000\r\n\r\n",
            "x".repeat(7000)
        ));
        client.try_send(vec![b'b'; 100_000]);
    }
    drop(crowd);
    for _ in 0..20 {
        assert_eq!(get(server.port(), "/").text(), "fine");
    }
}
