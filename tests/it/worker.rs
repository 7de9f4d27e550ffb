//! What a worker does at its limits, and what it costs.

use crate::util::{Client, Server, Signal, Upstream, eventually, get};
use rustix::process::Pid;
use std::collections::HashMap;
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn answering(main: &str, http: &str) -> String {
    format!("{main} http {{ {http} server {{ listen {{port}}; location / {{ return 200 fine; }} }} }}")
}

fn server_process(server: &Server) -> i32 {
    server.children().last().copied().map(Pid::as_raw_nonzero).expect("a server process").get()
}

/// The thread ids of the workers.
fn workers(server: &Server) -> Vec<i32> {
    let Some(process) = server.children().last().copied() else { return Vec::new() };
    let tasks = std::fs::read_dir(format!("/proc/{}/task", process.as_raw_nonzero())).expect("a process");
    let names = tasks.flatten().filter(|task| {
        std::fs::read_to_string(task.path().join("comm")).unwrap_or_default().starts_with("thalweg/w")
    });
    names.filter_map(|task| task.file_name().to_str()?.parse().ok()).collect()
}

/// Clock ticks of processor time that a thread has used.
fn ticks(server: &Server, thread: i32) -> u64 {
    let stat =
        std::fs::read_to_string(format!("/proc/{}/task/{thread}/stat", server_process(server))).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn connections_are_spread_over_the_workers() {
    let server = Server::start(&answering("worker_processes 4;", ""));
    eventually("workers", || workers(&server).len() == 4);
    let mut clients: Vec<Client> = (0..400).map(|_| Client::connect(server.port())).collect();
    // A line of the error log names the thread that serves the connection.
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\nbad name: x\r\n\r\n").read_response();
    }
    let lines = || {
        let log = server.error_log();
        log.lines().filter(|line| line.contains("invalid header line")).map(str::to_owned).collect::<Vec<_>>()
    };
    eventually("a line for each", || lines().len() == clients.len());
    let mut counts: HashMap<String, usize> = HashMap::new();
    for line in lines() {
        let thread = line.split_once('#').unwrap().1.split_once(':').unwrap().0.to_owned();
        *counts.entry(thread).or_default() += 1;
    }
    assert_eq!(counts.len(), 4, "{counts:?}");
    // What a worker may have beyond its share, and what its mates may have had when it looked.
    assert!(counts.values().all(|count| (60..=140).contains(count)), "{counts:?}");
}

#[test]
fn when_descriptors_run_out_accepting_rests_quietly_and_goes_on() {
    let server = Server::start(&answering("worker_rlimit_nofile 60;", ""));
    eventually("a worker", || workers(&server).len() == 1);
    let mut clients: Vec<Client> = (0..80).map(|_| Client::connect(server.port())).collect();
    let out = "accept4() failed (24: Too many open files), accepting rests";
    eventually("an error line", || server.error_log().contains(out));
    let worker = workers(&server)[0];
    let before = ticks(&server, worker);
    std::thread::sleep(Duration::from_millis(1200));
    let used = ticks(&server, worker) - before;
    assert!(used <= 20, "it used {used} ticks while it had nothing to do");
    assert_eq!(server.error_log().matches(out).count(), 1);
    // Those that were accepted are served; when they go, the others' turn comes.
    assert_eq!(clients[0].send(GET).read_response().text(), "fine");
    let waiting = clients.split_off(40);
    drop(clients);
    for mut client in waiting {
        assert_eq!(client.send(GET).read_response().text(), "fine");
    }
    assert_eq!(get(server.port(), "/").text(), "fine");
}

#[test]
fn at_worker_connections_the_longest_idle_connection_gives_way() {
    let server = Server::start(&answering("events { worker_connections 32; }", ""));
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..100 {
        let mut client = Client::connect(server.port());
        assert_eq!(client.send(GET).read_response().text(), "fine");
        clients.push(client);
    }
    clients[0].expect_closed();
    assert_eq!(clients[99].send(GET).read_response().text(), "fine");
    assert!(!server.error_log().contains("accepting rests"), "{}", server.error_log());
}

#[test]
fn a_body_that_was_there_before_its_file_is_read_to_its_end() {
    let http = "client_body_early_read 1; client_body_buffer_size 1k;";
    let server = Server::start(&answering("", http));
    for coding in ["Content-Length: 3000\r\n", "Transfer-Encoding: chunked\r\n"] {
        let body = match coding.starts_with('C') {
            true => "b".repeat(3000),
            false => format!("bb8\r\n{}\r\n0\r\n\r\n", "b".repeat(3000)),
        };
        let mut client = Client::connect(server.port());
        for _ in 0..3 {
            client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{coding}\r\n{body}"));
            assert_eq!(client.read_response().text(), "fine");
        }
        // And with the next request behind it.
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{coding}\r\n{body}{GET}"));
        assert_eq!(client.read_response().text(), "fine");
        assert_eq!(client.read_response().text(), "fine");
    }
}

/// System calls of the server process while `act` runs, by name; `None` where strace is missing or may not trace.
fn system_calls(server: &Server, act: impl FnOnce()) -> Option<HashMap<String, usize>> {
    let process = server_process(server);
    let path = server.path("strace.txt");
    let mut strace = Command::new("strace")
        .args(["-f", "-qq", "-p", &process.to_string(), "-o"])
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let threads: Vec<_> = threads.flatten().map(|task| task.path().join("status")).collect();
    let is_traced = || {
        threads.iter().all(|status| {
            let status = std::fs::read_to_string(status).unwrap_or_default();
            status
                .lines()
                .any(|line| line.strip_prefix("TracerPid:").is_some_and(|tracer| tracer.trim() != "0"))
        })
    };
    for _ in 0..1000 {
        if is_traced() {
            break;
        }
        if strace.try_wait().expect("wait").is_some() {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    act();
    let pid = Pid::from_child(&strace);
    rustix::process::kill_process(pid, Signal::INT).expect("end strace");
    strace.wait().expect("wait");
    let mut calls = HashMap::new();
    for line in server.read("strace.txt").lines() {
        // `1234  recvfrom(15, ...`; the second half of a call that was interrupted is no call.
        let Some((name, _)) = line.split_once(' ').and_then(|(_, rest)| rest.trim_start().split_once('('))
        else {
            continue;
        };
        if !name.starts_with('<') {
            *calls.entry(name.to_owned()).or_default() += 1;
        }
    }
    Some(calls)
}

/// The calls of `requests` hot keep-alive requests for a small file.
fn calls_of_hot_requests(http: &str, requests: usize) -> Option<HashMap<String, usize>> {
    let text = format!(
        "worker_processes 1; http {{ {http} access_log off; server {{ listen {{port}}; root {{root}}/html; }} }}"
    );
    let server = Server::builder(&text).file("html/a.txt", "x".repeat(1024)).start();
    let mut client = Client::connect(server.port());
    let mut ask = move || {
        let response = client.send("GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n").read_response();
        assert_eq!((response.status, response.body.len()), (200, 1024));
    };
    // What has just changed is not kept in memory yet.
    std::thread::sleep(Duration::from_millis(200));
    for _ in 0..20 {
        ask();
    }
    system_calls(&server, || {
        for _ in 0..requests {
            ask();
        }
    })
}

#[test]
fn a_hot_request_costs_one_recv_one_send_and_one_statx_without_a_cache() {
    const REQUESTS: usize = 200;
    for (http, statx) in [("", REQUESTS), ("open_file_cache max=100; open_file_cache_valid 60s;", 0)] {
        let Some(calls) = calls_of_hot_requests(http, REQUESTS) else {
            eprintln!("strace can't trace here: nothing was counted");
            return;
        };
        println!("{http}: {calls:?}");
        let of = |name: &str| calls.get(name).copied().unwrap_or(0);
        assert_eq!((of("recvfrom"), of("sendto"), of("statx")), (REQUESTS, REQUESTS, statx), "{calls:?}");
        // The main thread may be seen in its poll, and the loop may wake for its own sake.
        assert!(of("epoll_wait") <= REQUESTS + 5, "{calls:?}");
        let all: usize = calls.values().sum();
        assert!(all <= 3 * REQUESTS + statx + 10, "{calls:?}");
    }
}

#[test]
fn a_proxied_request_costs_two_recvs_two_sends_and_at_most_one_epoll_ctl() {
    const REQUESTS: usize = 200;
    let body = "x".repeat(1024);
    let answers = [
        ("a known length", format!("HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n{body}")),
        (
            "chunks",
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n{body}\r\n0\r\n\r\n"),
        ),
        ("no body", "HTTP/1.1 204 No Content\r\n\r\n".to_owned()),
    ];
    for (what, answer) in answers {
        let upstream = Upstream::http(move |_, _| answer.clone().into_bytes());
        let server = Server::start(&format!(
            "worker_processes 1; http {{ access_log off; upstream u {{ server 127.0.0.1:{}; }}
             server {{ listen {{port}}; location / {{ proxy_pass http://u; }} }} }}",
            upstream.port()
        ));
        for body in ["", "hello"] {
            let request = match body {
                "" => "GET /a HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
                body => {
                    format!("PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                }
            };
            let mut client = Client::connect(server.port());
            let mut ask = || assert!(client.send(&request).read_response().status < 300);
            for _ in 0..20 {
                ask();
            }
            let accepted = upstream.accepted();
            let calls = system_calls(&server, || {
                for _ in 0..REQUESTS {
                    ask();
                }
            });
            let Some(calls) = calls else {
                eprintln!("strace can't trace here: nothing was counted");
                return;
            };
            println!("{what}, {body:?}: {calls:?}");
            let of = |names: &[&str]| names.iter().filter_map(|name| calls.get(*name)).sum::<usize>();
            assert_eq!(upstream.accepted(), accepted, "{what}: one connection served them all");
            // On a busy machine a response may come in two packets now and then.
            let once_or_twice = 2 * REQUESTS..=2 * REQUESTS + 6;
            let received = of(&["recvfrom", "recvmsg", "read", "readv"]);
            assert!(once_or_twice.contains(&received), "{what}: {calls:?}");
            let sent = of(&["sendto", "sendmsg", "write", "writev", "sendfile"]);
            assert!(once_or_twice.contains(&sent), "{what}: {calls:?}");
            assert!(of(&["epoll_ctl"]) <= REQUESTS, "{what}: {calls:?}");
            // Every request waits for two events, unless they come together; the loop may wake for its own sake.
            assert!(of(&["epoll_wait"]) <= 2 * REQUESTS + 10, "{what}: {calls:?}");
            let all: usize = calls.values().sum();
            assert!(all <= 7 * REQUESTS + 20, "{what}: {calls:?}");
        }
    }
}

#[test]
fn variables_that_only_the_kernel_knows_have_their_values() {
    let server = Server::builder(
        "server { listen {port}; root {root}/link/../html;
         location / { return 200 '$tcpinfo_rtt $tcpinfo_snd_cwnd $tcpinfo_rcv_space $realpath_root'; } }",
    )
    .file("html/a.txt", "")
    .file("link", "")
    .start();
    std::fs::remove_file(server.path("link")).unwrap();
    std::os::unix::fs::symlink(server.root(), server.path("link")).unwrap();
    let text = get(server.port(), "/").text();
    let words: Vec<&str> = text.split(' ').collect();
    assert!(words[..3].iter().all(|number| number.parse::<u32>().is_ok_and(|number| number > 0)), "{text}");
    // `link/..` is the folder's parent, which has no `html`: the path is missing, and the variable empty.
    assert_eq!(words[3], "", "{text}");
    server.configure("server { listen {port}; root {root}/link/html; return 200 $realpath_root; }");
    server.reload();
    let real = std::fs::canonicalize(server.path("html")).unwrap();
    eventually("the real path", || get(server.port(), "/").text() == real.to_str().unwrap());
}

#[test]
fn nobody_is_refused_at_a_burst() {
    let server = Server::start(&answering("worker_processes 2;", ""));
    let clients: Vec<TcpStream> = (0..400)
        .map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).expect("not refused"))
        .collect();
    for stream in clients {
        assert_eq!(Client::over_tcp(stream).send(GET).read_response().text(), "fine");
    }
}

/// Clock ticks (hundredths of a second) that a process and its threads have used.
fn ticks_used(pid: rustix::process::Pid) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).expect("a process");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    fields[11].parse::<u64>().expect("user time") + fields[12].parse::<u64>().expect("system time")
}

#[test]
fn a_worker_with_idle_connections_sleeps_until_their_deadlines() {
    let server = Server::start(&answering("", ""));
    let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(server.port())).collect();
    for client in &mut clients {
        assert_eq!(client.send(GET).read_response().text(), "fine");
    }
    let worker = *server.children().last().expect("a server process");
    let before = ticks_used(worker);
    std::thread::sleep(std::time::Duration::from_secs(2));
    let used = ticks_used(worker) - before;
    // A loop that does not sleep uses some two hundred.
    assert!(used < 50, "{used} hundredths of a second were used for nothing");
}
