//! `listen`: every form and parameter, servers that share sockets, and the PROXY protocol.

use crate::util::{Client, Parity, Server, Signal, eventually, get, raw};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// The body of a GET over this connection.
fn ask(stream: TcpStream) -> String {
    let mut client = Client::over_tcp(stream);
    client.send(GET);
    client.read_response().text()
}

fn ask_at(address: impl Into<SocketAddr>) -> String {
    ask(TcpStream::connect(address.into()).expect("connect"))
}

fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

#[test]
fn every_form_of_an_address_is_listened_on() {
    let mut conf = "server { return 200 '$server_addr|$server_port|$remote_addr';
        listen {port}; listen 127.0.0.1:{port2}; listen *:{port3}; listen localhost:{port4}; listen 0.0.0.0:{port5};
        listen unix:{root}/server.sock;"
        .to_owned();
    if has_ipv6() {
        conf += "listen [::]:{port6}; listen [::1]:{port7};";
    }
    let server = Server::start(&(conf + "}"));
    for number in 1..=5 {
        let port = server.port_of(number);
        assert_eq!(ask_at((Ipv4Addr::LOCALHOST, port)), format!("127.0.0.1|{port}|127.0.0.1"), "{number}");
    }
    let mut client = Client::connect_unix(&server.path("server.sock"));
    client.send(GET);
    assert_eq!(
        client.read_response().text(),
        format!("unix:{}||unix:", server.path("server.sock").display())
    );
    if has_ipv6() {
        for number in 6..=7 {
            let port = server.port_of(number);
            assert_eq!(ask_at((Ipv6Addr::LOCALHOST, port)), format!("::1|{port}|::1"), "{number}");
        }
        // [::] is for IPv6 alone unless told otherwise.
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, server.port_of(6))).is_err());
    }
}

#[test]
fn one_socket_can_serve_both_families() {
    if !has_ipv6() {
        return;
    }
    let conf = "server { listen [::]:{port} ipv6only=off; return 200 $remote_addr; }";
    let server = Server::start(conf);
    assert_eq!(ask_at((Ipv4Addr::LOCALHOST, server.port())), "::ffff:127.0.0.1");
    assert_eq!(ask_at((Ipv6Addr::LOCALHOST, server.port())), "::1");
    let server =
        Server::start("server { listen {port}; listen [::]:{port} ipv6only=on; return 200 $remote_addr; }");
    assert_eq!(ask_at((Ipv4Addr::LOCALHOST, server.port())), "127.0.0.1");
    assert_eq!(ask_at((Ipv6Addr::LOCALHOST, server.port())), "::1");
}

#[test]
fn every_parameter_is_taken_and_serves() {
    for parameters in [
        "default_server",
        "bind",
        "backlog=17",
        "rcvbuf=64k",
        "sndbuf=64k",
        "deferred",
        "fastopen=16",
        "reuseport",
        "so_keepalive=on",
        "so_keepalive=off",
        "so_keepalive=30m::10",
        "default_server backlog=100 rcvbuf=8k sndbuf=8k deferred bind so_keepalive=on reuseport",
    ] {
        let conf = format!("server {{ listen {{port}} {parameters}; return 200 hello; }}");
        let server = Server::start(&conf);
        for _ in 0..3 {
            assert_eq!(get(server.port(), "/").text(), "hello", "{parameters}");
        }
    }
}

#[test]
fn multipath_is_taken() {
    // Whether the kernel has it is another matter: -t does not open sockets.
    let output = Server::builder("server { listen {port} multipath; }").run(&["-t"]);
    assert!(output.status.success(), "{}", output.stderr);
}

#[test]
fn parameters_without_a_meaning_on_linux_are_refused_with_a_reason() {
    for (parameter, name) in [("setfib=1", "setfib"), ("accept_filter=httpready", "accept_filter")] {
        let output = Server::builder(&format!("server {{ listen {{port}} {parameter}; }}")).run(&["-t"]);
        assert!(!output.status.success(), "{parameter}");
        assert!(output.stderr.contains(name) && output.stderr.contains("platform"), "{}", output.stderr);
    }
}

#[test]
fn wrong_listen_directives_are_refused() {
    for (lines, message) in [
        ("listen {port} nonsense;", "invalid parameter \"nonsense\""),
        ("listen {port} backlog=0;", "invalid backlog \"backlog=0\""),
        ("listen {port} so_keepalive=maybe;", "invalid so_keepalive value: \"maybe\""),
        ("listen 127.0.0.1:99999;", "invalid port in \"127.0.0.1:99999\" of the \"listen\" directive"),
        ("listen {port}; listen {port};", "a duplicate listen"),
        ("listen unix:;", "no path in the unix domain socket"),
        (
            "listen {port} default_server; } server { listen {port} default_server;",
            "a duplicate default server for",
        ),
        ("listen {port} backlog=5; } server { listen {port} backlog=6;", "duplicate listen options for"),
    ] {
        let output = Server::builder(&format!("server {{ {lines} }}")).run(&["-t"]);
        assert!(!output.status.success(), "{lines}");
        assert!(output.stderr.contains(message), "{lines}: {}", output.stderr);
    }
}

/// The row of `/proc/net/tcp` for the server's side of this connection.
fn tcp_row(stream: &TcpStream) -> Option<String> {
    let client = stream.local_addr().expect("address").port();
    let server = stream.peer_addr().expect("address").port();
    let rows = std::fs::read_to_string("/proc/net/tcp").expect("/proc/net/tcp");
    let (local, remote) = (format!(":{server:04X}"), format!(":{client:04X}"));
    rows.lines()
        .find(|row| {
            let mut words = row.split_whitespace().skip(1);
            words.next().is_some_and(|word| word.ends_with(&local))
                && words.next().is_some_and(|word| word.ends_with(&remote))
        })
        .map(str::to_owned)
}

#[test]
fn so_keepalive_reaches_the_accepted_connections() {
    for (parameter, expected) in
        [("", None), ("so_keepalive=off", None), ("so_keepalive=60:10:3", Some(6000))]
    {
        let server = Server::start(&format!("server {{ listen {{port}} {parameter}; return 200 hello; }}"));
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).expect("connect");
        let mut client = Client::over_tcp(stream.try_clone().expect("clone"));
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.read_response();
        // The timer's kind and when it fires, in hundredths of a second; 02 is that of keep-alive.
        let timer = |row: String| row.split_whitespace().nth(5).map(str::to_owned);
        let mut seen = None;
        eventually("no unacknowledged data", || {
            seen = tcp_row(&stream).and_then(timer);
            seen.as_deref().is_some_and(|timer| !timer.starts_with("01"))
        });
        let seen = seen.expect("a timer");
        match expected {
            None => assert!(seen.starts_with("00"), "{parameter}: {seen}"),
            Some(hundredths) => {
                let when = seen.strip_prefix("02:").and_then(|when| u32::from_str_radix(when, 16).ok());
                assert!(when.is_some_and(|when| when <= hundredths), "{parameter}: {seen}");
            }
        }
    }
}

#[test]
fn backlog_and_buffers_reach_the_socket() {
    if !Path::new("/usr/bin/ss").exists() {
        return; // nothing else tells
    }
    let server = Server::start(
        "server { listen {port} backlog=37 rcvbuf=50000 sndbuf=60000; listen {port2}; return 200 hello; }",
    );
    let listening = |port: u16| {
        let filter = format!("sport = :{port}");
        let output = std::process::Command::new("ss").args(["-ltnmH", &filter]).output().expect("run ss");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let text = listening(server.port());
    assert_eq!(text.split_whitespace().nth(2), Some("37"), "{text}");
    // The kernel doubles what it is asked for.
    assert!(text.contains("rb100000") && text.contains("tb120000"), "{text}");
    let limit = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("somaxconn");
    let default = limit.trim().parse::<u32>().expect("a number").min(511).to_string();
    let text = listening(server.port_of(2));
    assert_eq!(text.split_whitespace().nth(2), Some(default.as_str()), "{text}");
}

#[test]
fn many_servers_share_a_socket() {
    let conf = "server { listen {port}; server_name one; return 200 one; }
        server { listen {port}; server_name two; return 200 two; }
        server { listen {port} default_server; server_name three; return 200 three; }
        server { listen {port2}; server_name two; return 200 'other two'; }
        server { listen {port2}; server_name one; return 200 'other one'; }";
    let server = Server::start(conf);
    let ask = |port: u16, host: &str| {
        raw(port, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).expect("a response").text()
    };
    assert_eq!(
        ["one", "two", "three", "none"].map(|host| ask(server.port(), host)),
        ["one", "two", "three", "three"]
    );
    let other = server.port_of(2);
    assert_eq!(["one", "two", "none"].map(|host| ask(other, host)), ["other one", "other two", "other two"]);
    let mut comparison = Parity::new(conf);
    for host in ["one", "two", "THREE", "none", "one:80"] {
        comparison = comparison.request(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }
    comparison.request("GET / HTTP/1.0\r\n\r\n").check();
}

#[test]
fn ten_thousand_servers_share_a_socket() {
    let servers: String = (0..10_000)
        .map(|n| format!("server {{ listen {{port}}; server_name host{n}.example; return 200 {n}; }}\n"))
        .collect();
    let server = Server::start(&format!(
        "server_names_hash_max_size 100000; server_names_hash_bucket_size 128; {servers}"
    ));
    for number in [0, 1, 4711, 9999] {
        let bytes = format!("GET / HTTP/1.1\r\nHost: host{number}.example\r\n\r\n");
        assert_eq!(raw(server.port(), bytes).expect("a response").text(), number.to_string());
    }
}

#[test]
fn wildcard_and_specific_addresses_work_together() {
    let conf = "server { listen {port}; server_name a; return 200 'wildcard a'; }
        server { listen {port}; server_name b; return 200 'wildcard b'; }
        server { listen 127.0.0.2:{port}; server_name b; return 200 'second b'; }
        server { listen 127.0.0.3:{port}; server_name c; return 200 'third c $server_addr'; }";
    let server = Server::start(conf);
    let ask = |last: u8, host: &str| {
        let stream = TcpStream::connect((Ipv4Addr::new(127, 0, 0, last), server.port())).expect("connect");
        let mut client = Client::over_tcp(stream);
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        client.read_response().text()
    };
    assert_eq!(ask(1, "a"), "wildcard a");
    assert_eq!(ask(1, "b"), "wildcard b");
    assert_eq!(ask(4, "none"), "wildcard a");
    // A specific address has its own servers only.
    assert_eq!(ask(2, "a"), "second b");
    assert_eq!(ask(2, "b"), "second b");
    assert_eq!(ask(3, "a"), "third c 127.0.0.3");
}

#[test]
fn one_server_can_have_many_addresses_and_port_ranges() {
    let server = Server::start(
        "server { listen {port}; listen {port2}; listen 127.0.0.2:{port3}; return 200 '$server_addr:$server_port'; }",
    );
    assert_eq!(get(server.port(), "/").text(), format!("127.0.0.1:{}", server.port()));
    assert_eq!(get(server.port_of(2), "/").text(), format!("127.0.0.1:{}", server.port_of(2)));
    let third = server.port_of(3);
    assert_eq!(ask_at((Ipv4Addr::new(127, 0, 0, 2), third)), format!("127.0.0.2:{third}"));
    let output = Server::builder("server { listen 127.0.0.1:20000-20009; }").run(&["-t"]);
    assert!(output.status.success(), "{}", output.stderr);
}

#[test]
fn a_port_left_behind_by_a_dead_process_binds() {
    let first = Server::start("server { listen {port}; listen unix:{root}/left.sock; return 200 first; }");
    // The server closes first, so that its side of these connections stays in TIME_WAIT.
    for _ in 0..20 {
        assert_eq!(get(first.port(), "/").text(), "first");
    }
    let _open = Client::connect(first.port());
    for pid in first.children().into_iter().chain([first.pid()]) {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
    eventually("nobody listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, first.port())).is_err());
    let left = first.path("left.sock");
    assert!(left.exists());
    let second = Server::start(&format!(
        "server {{ listen {}; listen unix:{}; return 200 second; }}",
        first.port(),
        left.display()
    ));
    eventually("it answers", || TcpStream::connect((Ipv4Addr::LOCALHOST, first.port())).is_ok());
    assert_eq!(get(first.port(), "/").text(), "second");
    // nginx can't take over the file of a Unix socket.
    let mut client = Client::connect_unix(&left);
    client.send(GET);
    assert_eq!(client.read_response().text(), "second");
    drop(second);
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let port = taken.local_addr().expect("address").port();
    let output = Server::builder(&format!("server {{ listen 127.0.0.1:{port}; }}")).run(&[]);
    assert!(!output.status.success());
    let message = format!("bind() to 127.0.0.1:{port} failed (98: Address already in use)");
    assert!(output.stderr.contains(&message), "{}", output.stderr);
}

#[test]
fn a_unix_socket_is_removed_at_the_end() {
    let mut server = Server::start("server { listen {port}; listen unix:{root}/a.sock; return 200; }");
    eventually("the socket", || server.path("a.sock").exists());
    server.signal(Signal::TERM);
    server.wait_for_exit();
    assert!(!server.path("a.sock").exists());
}

const PROXIED: &str = "server { listen {port} proxy_protocol;
    return 200 '$proxy_protocol_addr|$proxy_protocol_port|$proxy_protocol_server_addr|$proxy_protocol_server_port|$remote_addr'; }";

/// A PROXY protocol header of version 2.
fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, family]);
    header.extend((rest.len() as u16).to_be_bytes());
    header.extend(rest);
    header
}

const ENDS_V4: &[u8] = b"\x01\x02\x03\x04\x05\x06\x07\x08\x04\xd2\x01\xbb";

fn ends_v6() -> Vec<u8> {
    let mut ends = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).octets().to_vec();
    ends.extend(Ipv6Addr::LOCALHOST.octets());
    ends.extend([0x04, 0xd2, 0x01, 0xbb]);
    ends
}

fn good_headers() -> Vec<(Vec<u8>, &'static str)> {
    vec![
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1234 443\r\n".to_vec(), "1.2.3.4|1234|5.6.7.8|443|127.0.0.1"),
        (b"PROXY TCP6 2001:db8::1 ::1 1234 443\r\n".to_vec(), "2001:db8::1|1234|::1|443|127.0.0.1"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "||||127.0.0.1"),
        (b"PROXY UNKNOWN what ever\r\n".to_vec(), "||||127.0.0.1"),
        (version_2(1, 0x11, ENDS_V4), "1.2.3.4|1234|5.6.7.8|443|127.0.0.1"),
        (version_2(1, 0x21, &ends_v6()), "2001:db8::1|1234|::1|443|127.0.0.1"),
        // LOCAL, and families that are not known.
        (version_2(0, 0x00, b""), "||||127.0.0.1"),
        (version_2(1, 0x00, b""), "||||127.0.0.1"),
        (version_2(1, 0x31, &[0; 216]), "||||127.0.0.1"),
        // Type-length-value parts behind the addresses.
        (
            version_2(1, 0x11, &[ENDS_V4, b"\x01\0\x02h2\x04\0\x03\0\0\0"].concat()),
            "1.2.3.4|1234|5.6.7.8|443|127.0.0.1",
        ),
    ]
}

#[test]
fn proxy_protocol_headers_of_both_versions_are_read() {
    let server = Server::start(PROXIED);
    for (header, expected) in good_headers() {
        let shown = String::from_utf8_lossy(&header).into_owned();
        let bytes = [&header, GET.as_bytes()].concat();
        assert_eq!(raw(server.port(), &bytes).expect("a response").text(), expected, "{shown:?}");
        // The header comes once, and may come in pieces (nginx wants it in one).
        let mut client = Client::connect(server.port());
        client.send_slowly(&header, std::time::Duration::from_micros(100));
        for _ in 0..2 {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(client.read_response().text(), expected, "{shown:?}");
        }
    }
    let mut comparison = Parity::new(PROXIED);
    for (header, _) in good_headers() {
        comparison = comparison.request([&header, GET.as_bytes()].concat());
    }
    comparison.check();
}

#[test]
fn broken_proxy_protocol_headers_close_the_connection() {
    let server = Server::start(PROXIED);
    let bad: Vec<Vec<u8>> = vec![
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1234\r\n".to_vec(),
        b"PROXY TCP4 nonsense 5.6.7.8 1234 443\r\n".to_vec(),
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1234 99999\r\n".to_vec(),
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1234 443\n".to_vec(),
        b"PROXY FOO 1.2.3.4 5.6.7.8 1234 443\r\n".to_vec(),
        // Longer than the 107 bytes that the protocol allows; nginx takes it.
        format!("PROXY UNKNOWN {}\r\n", "x".repeat(200)).into_bytes(),
        version_2(1, 0x11, &ENDS_V4[..8]),
        // A plain request where a header must be.
        GET.as_bytes().to_vec(),
        b"\x16\x03\x01\x02\0\x01\0".to_vec(),
    ];
    for header in &bad {
        let shown = String::from_utf8_lossy(header).into_owned();
        let bytes = [&header[..], GET.as_bytes()].concat();
        assert!(raw(server.port(), &bytes).is_none(), "{shown:?}");
    }
    eventually("log lines", || server.error_log().matches("broken header").count() >= 6);
    assert_eq!(server.access_log(), "");
    let bytes = format!("PROXY UNKNOWN\r\n{GET}");
    assert_eq!(raw(server.port(), bytes).expect("a response").status, 200);
}

#[test]
fn a_proxy_protocol_header_that_does_not_come_in_time_closes_the_connection() {
    let server = Server::start(&format!("client_header_timeout 300ms; {PROXIED}"));
    Client::connect(server.port()).expect_closed();
    let mut client = Client::connect(server.port());
    client.send("PROXY TCP4 1.2.");
    client.expect_closed();
    assert_eq!(server.access_log(), "");
}

#[test]
fn proxy_protocol_tlvs_are_variables() {
    // Since nginx 1.23.2.
    let server = Server::start(
        "server { listen {port} proxy_protocol; return 200 '$proxy_protocol_tlv_alpn|$proxy_protocol_tlv_authority|$proxy_protocol_tlv_0xee|$proxy_protocol_tlv_ssl_version|$proxy_protocol_tlv_unique_id'; }",
    );
    let tlvs = b"\x01\0\x02h2\x02\0\x07a.test!\x20\0\x0f\x07\0\0\0\0\x21\0\x07TLSv1.3\xee\0\x02xy";
    let header = version_2(1, 0x11, &[ENDS_V4, tlvs].concat());
    let bytes = [&header[..], GET.as_bytes()].concat();
    assert_eq!(raw(server.port(), bytes).expect("a response").text(), "h2|a.test!|xy|TLSv1.3|");
}

#[test]
fn servers_on_one_socket_share_proxy_protocol() {
    let server = Server::start(
        "server { listen {port} proxy_protocol; server_name a; return 200 'a $proxy_protocol_addr'; }
        server { listen {port}; server_name b; return 200 'b $proxy_protocol_addr'; }",
    );
    for host in ["a", "b"] {
        let bytes = format!("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(raw(server.port(), bytes).expect("a response").text(), format!("{host} 1.2.3.4"));
    }
}
