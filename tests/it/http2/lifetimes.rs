//! How connections end: by a reload, by the server's end, after their share of requests or time.

use super::*;
use crate::util::Signal;

#[test]
fn a_quitting_server_says_so_and_finishes() {
    let go = Arc::new(AtomicBool::new(false));
    let upstream = Upstream::http({
        let go = Arc::clone(&go);
        move |_, _| {
            eventually("permission", || go.load(Ordering::SeqCst));
            ok("late")
        }
    });
    let mut server = start(&format!("location /p {{ proxy_pass http://127.0.0.1:{}; }}", upstream.port()));
    let big = noise(4 << 20);
    server.write("html/big", &big);
    let mut idle = H2::connect(server.port());
    assert_eq!(idle.fetch("/none").status, 404);
    let mut busy = H2::connect_tls(server.port_of(2), "example.com");
    let (late, large) = (busy.get("/p"), busy.get("/big"));
    eventually("the upstream is asked", || upstream.accepted() == 1);
    server.signal(Signal::QUIT);
    idle.drain();
    assert_eq!(idle.goaways.last().map(|(_, code)| *code), Some(NO_ERROR));
    busy.wait_until(|h2| !h2.goaways.is_empty());
    assert_eq!(busy.goaways[0], (0x7fff_ffff, NO_ERROR));
    assert!(busy.wait(large).body == big);
    go.store(true, Ordering::SeqCst);
    assert_eq!(busy.wait(late).text(), "late");
    busy.drain();
    assert_eq!(busy.goaways.last(), Some(&(late.max(large), NO_ERROR)));
    assert!(server.wait_for_exit().success());
}

#[test]
fn a_reload_resets_nobody() {
    let go = Arc::new(AtomicBool::new(false));
    let upstream = Upstream::http({
        let go = Arc::clone(&go);
        move |_, _| {
            eventually("permission", || go.load(Ordering::SeqCst));
            ok("late")
        }
    });
    let conf = |round: &str| {
        text(&format!(
            "location /p {{ proxy_pass http://127.0.0.1:{}; }} location /round {{ return 200 {round}; }}",
            upstream.port()
        ))
    };
    let server = Server::start(&conf("one"));
    let big = noise(4 << 20);
    server.write("html/big", &big);
    let mut h2 = H2::connect(server.port());
    h2.send(WINDOW_UPDATE, 0, 0, &1000u32.to_be_bytes());
    h2.gives_window = false;
    let (late, large) = (h2.get("/p"), h2.get("/big"));
    h2.wait_until(|h2| h2.streams[&large].body.len() == 65_535);
    assert_eq!(h2.fetch("/round").status, 200);
    for round in ["two", "three"] {
        server.configure(&conf(round));
        server.reload();
        eventually("the new configuration", || get(server.port(), "/round").text() == round);
    }
    h2.gives_window = true;
    h2.send(WINDOW_UPDATE, 0, 0, &0x1000_0000u32.to_be_bytes());
    h2.send(WINDOW_UPDATE, 0, large, &0x1000_0000u32.to_be_bytes());
    go.store(true, Ordering::SeqCst);
    assert!(h2.wait(large).body == big);
    assert_eq!(h2.wait(late).text(), "late");
}

#[test]
fn reloads_under_load_lose_no_request() {
    let conf = text("keepalive_requests 1000000; location / { return 200 x; }");
    let server = Server::start(&conf);
    let stop = Arc::new(AtomicBool::new(false));
    let port = server.port();
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut h2 = H2::connect(port);
                let mut done = 0;
                while !stop.load(Ordering::SeqCst) {
                    if !h2.goaways.is_empty() {
                        h2 = H2::connect(port);
                    }
                    let ids: Vec<u32> = (0..20).map(|_| h2.get("/")).collect();
                    for id in ids {
                        if let Some((last, _)) = h2.goaways.last()
                            && id > *last
                        {
                            continue;
                        }
                        assert_eq!(h2.wait(id).text(), "x");
                        done += 1;
                    }
                }
                done
            })
        })
        .collect();
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(150));
        server.reload();
    }
    std::thread::sleep(Duration::from_millis(200));
    stop.store(true, Ordering::SeqCst);
    for thread in threads {
        assert!(thread.join().expect("no request was lost") > 0);
    }
}

#[test]
fn connections_end_after_their_share_of_requests_and_idle_time() {
    let server = start("keepalive_requests 5; return 200 $connection_requests;");
    let mut h2 = H2::connect(server.port());
    for number in 1..=5 {
        assert_eq!(h2.fetch("/").text(), number.to_string());
    }
    h2.drain();
    assert_eq!(h2.goaways.last(), Some(&(9, NO_ERROR)));
    let server = start("keepalive_timeout 1s; client_header_timeout 1s; return 200 x;");
    let mut used = H2::connect(server.port());
    assert_eq!(used.fetch("/").status, 200);
    let mut fresh = H2::connect(server.port());
    let mut silent = Client::connect(server.port());
    silent.send(&PREFACE[..20]);
    for h2 in [&mut used, &mut fresh] {
        h2.drain();
        assert_eq!(h2.goaways.last().map(|(_, code)| *code), Some(NO_ERROR));
    }
    silent.expect_closed();
}

#[test]
fn many_connections_are_spread_over_workers() {
    let server = Server::start(
        "worker_processes 3; http { server { listen {port}; http2 on; keepalive_requests 100000; return 200 x; } }",
    );
    let port = server.port();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                let mut h2 = H2::connect(port);
                for _ in 0..20 {
                    let ids: Vec<u32> = (0..50).map(|_| h2.get("/")).collect();
                    assert!(ids.into_iter().all(|id| h2.wait(id).text() == "x"));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("all were answered"));
}

#[test]
fn workers_that_a_reload_ends_say_so() {
    let conf = |count: u32| {
        format!(
            "worker_processes {count}; http {{ {} }}",
            text("location / { return 200 $pid; }").replace("{port};", "{port} reuseport;")
        )
    };
    let server = Server::start(&conf(3));
    let mut connections: Vec<H2> = (0..24).map(|_| H2::connect(server.port())).collect();
    for h2 in &mut connections {
        assert_eq!(h2.fetch("/").status, 200);
    }
    server.configure(&conf(1));
    server.reload();
    // Each is answered, or was ended in order before it was asked.
    let mut ended = 0;
    eventually("the goodbye of two workers", || {
        connections.retain_mut(|h2| {
            let id = h2.next_id();
            let sent =
                h2.client.try_send(h2::frame(HEADERS, END_STREAM | h2::END_HEADERS, id, &h2::head(&[])));
            h2.streams.insert(id, h2::Stream::default());
            while sent && !h2.is_over(id) && h2.pump() {}
            if h2.streams[&id].status == 200 && h2.goaways.is_empty() {
                return true;
            }
            assert_eq!(h2.goaways.last().map(|(_, code)| *code), Some(NO_ERROR), "{:?}", h2.goaways);
            ended += 1;
            false
        });
        ended > 0
    });
    assert!(!connections.is_empty(), "the worker that stays keeps its connections");
}
