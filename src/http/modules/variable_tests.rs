//! Every variable of the core in the log of a request, as nginx has it.

use std::rc::Rc;

use crate::http::context::{SystemFacts, TcpInfo};
use crate::http::exchange::{ConnectionFacts, Endpoint, Exchange, RequestBody};
use crate::http::probe::{Probe, value, value_after};
use crate::message::Status;
use crate::proto::proxy_protocol::ProxyReader;

const PLAIN: &[u8] = b"GET / HTTP/1.0\r\n\r\n";

const FULL: &[u8] =
    b"GET /a%20b/./c?x=1&Y=2&x=3&z HTTP/1.1\r\nHost: Www.S.example:8080\r\nContent-Type: text/x\r\n\
    Content-Length: 3\r\nX-One: 1\r\nx-one: 2\r\nCookie: a=1; b=2\r\nCookie: c=3\r\nVia: v1\r\nVia: v2\r\n\
    X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.2\r\nReferer: r\r\nUser-Agent: u\r\n\
    Authorization: basic  dXNlcjpwYXNz\r\n\r\nabc";

fn check(text: &[u8], expected: &[(&str, &str)]) {
    for (name, wanted) in expected {
        assert_eq!(value(name, text), *wanted, "${name}");
    }
}

#[test]
fn the_request_line_in_all_its_parts() {
    check(
        FULL,
        &[
            ("request", "GET /a%20b/./c?x=1&Y=2&x=3&z HTTP/1.1"),
            ("request_method", "GET"),
            ("request_uri", "/a%20b/./c?x=1&Y=2&x=3&z"),
            ("uri", "/a b/c"),
            ("document_uri", "/a b/c"),
            ("args", "x=1&Y=2&x=3&z"),
            ("query_string", "x=1&Y=2&x=3&z"),
            ("is_args", "?"),
            ("arg_x", "1"),
            ("arg_y", "2"),
            ("arg_z", "-"),
            ("arg_", "-"),
            ("server_protocol", "HTTP/1.1"),
            ("host", "www.s.example"),
            ("request_port", "8080"),
            ("is_request_port", ":"),
            ("server_name", "s.example"),
        ],
    );
}

#[test]
fn what_a_request_does_not_have_is_missing_or_empty_as_in_nginx() {
    check(
        PLAIN,
        &[
            ("args", "-"),
            ("query_string", "-"),
            ("is_args", ""),
            ("host", "s.example"),
            ("http_host", "-"),
            ("request_port", ""),
            ("is_request_port", ""),
            ("content_length", "-"),
            ("content_type", "-"),
            ("remote_user", "-"),
            ("cookie_a", "-"),
            ("http_cookie", "-"),
            ("http_x", "-"),
            ("request_body", "-"),
            ("request_body_file", "-"),
            ("request_completion", ""),
            ("proxy_protocol_addr", "-"),
            ("proxy_protocol_tlv_alpn", "-"),
            ("tcpinfo_rtt", "-"),
            ("https", ""),
        ],
    );
    check(
        b"GET /?\r\n",
        &[("args", "-"), ("server_protocol", "-"), ("request", "GET /?"), ("request_method", "GET")],
    );
    let nothing: [(&str, &str); 5] = [
        ("request", "-"),
        ("request_method", "-"),
        ("request_uri", "-"),
        ("server_protocol", "-"),
        ("uri", "-"),
    ];
    let mut probe = Probe::new("server { }");
    let exchange = probe.begin(b"");
    assert_eq!(exchange.head.text(exchange.head.request_line), b"");
    for (name, wanted) in nothing {
        let format = format!("log_format f \"${name}\"; access_log a f; server {{ }}");
        let mut probe = Probe::new(&format);
        probe.begin(b"").log_access(&mut probe.env);
        assert_eq!(probe.access_lines(), format!("{wanted}\n"), "${name}");
    }
}

#[test]
fn fields_are_found_by_name_and_joined() {
    check(
        FULL,
        &[
            ("http_x_one", "1, 2"),
            ("http_host", "Www.S.example:8080"),
            ("http_cookie", "a=1; b=2; c=3"),
            ("http_via", "v1, v2"),
            ("http_x_forwarded_for", "10.0.0.1, 10.0.0.2"),
            ("http_referer", "r"),
            ("http_user_agent", "u"),
            ("http_content_type", "text/x"),
            ("content_type", "text/x"),
            ("content_length", "3"),
            ("cookie_b", "2"),
            ("cookie_c", "3"),
            ("remote_user", "user"),
        ],
    );
}

#[test]
fn a_user_needs_whole_basic_credentials() {
    for credentials in
        ["Bearer dXNlcjpwYXNz", "Basic", "Basic dXNlcg==", "Basic OnBhc3M=", "Basic dXN*", "Basic"]
    {
        let request = format!("GET / HTTP/1.0\r\nAuthorization: {credentials}\r\n\r\n");
        assert_eq!(value("remote_user", request.as_bytes()), "-", "{credentials}");
    }
}

#[test]
fn the_connection_and_the_clock() {
    check(
        PLAIN,
        &[
            ("remote_addr", "192.0.2.1"),
            ("remote_port", "5000"),
            ("server_addr", "192.0.2.99"),
            ("server_port", "8080"),
            ("connection", "17"),
            ("connection_requests", "3"),
            ("connection_time", "12.345"),
            ("scheme", "http"),
            ("pipe", "."),
            ("msec", "1795227960.007"),
            ("time_iso8601", "2026-11-21T02:26:00+00:00"),
            ("time_local", "21/Nov/2026:02:26:00 +0000"),
            ("request_time", "0.005"),
            ("pid", "4711"),
            ("hostname", "machine"),
            ("nginx_version", "1.31.5"),
            ("request_length", "18"),
        ],
    );
    let secure = |exchange: &mut Exchange| exchange.connection.secure = true;
    assert_eq!(value_after("scheme", PLAIN, secure), "https");
    assert_eq!(value_after("https", PLAIN, secure), "on");
}

#[test]
fn what_was_sent_comes_from_the_outcome() {
    let sent = |exchange: &mut Exchange| {
        exchange.outcome.bytes_sent = 300;
        exchange.outcome.body_bytes_sent = 100;
        exchange.outcome.request_length = 77;
        exchange.outcome.complete = true;
        exchange.outcome.pipelined = true;
    };
    for (name, wanted) in [
        ("bytes_sent", "300"),
        ("body_bytes_sent", "100"),
        ("request_length", "77"),
        ("request_completion", "OK"),
        ("pipe", "p"),
        ("status", "404"),
    ] {
        assert_eq!(value_after(name, PLAIN, sent), wanted, "${name}");
    }
    let none = |exchange: &mut Exchange| {
        exchange.error_status = None;
        exchange.response.status = Status(0);
    };
    assert_eq!(value_after("status", PLAIN, none), "000");
    assert_eq!(value_after("status", b"GET /\r\n", none), "009");
}

#[test]
fn addresses_of_all_families() {
    let over = |name: &str, peer: &str, local: &str| {
        value_after(name, PLAIN, |exchange| {
            exchange.connection.peer = Endpoint::Inet(peer.parse().unwrap());
            exchange.connection.local = Endpoint::Inet(local.parse().unwrap());
        })
    };
    assert_eq!(over("remote_addr", "[2001:db8::1]:5", "[::1]:80"), "2001:db8::1");
    assert_eq!(over("server_addr", "[2001:db8::1]:5", "[::1]:80"), "::1");
    assert_eq!(over("binary_remote_addr", "1.2.3.4:5", "[::1]:80"), "\u{1}\u{2}\u{3}\u{4}");
    assert_eq!(over("binary_remote_addr", "[102::3]:5", "[::1]:80").len(), 16);
    let unix = |name: &str| {
        value_after(name, PLAIN, |exchange| {
            exchange.connection.peer = Endpoint::Unix(Box::default());
            exchange.connection.local = Endpoint::Unix(b"/run/s"[..].into());
        })
    };
    assert_eq!(unix("remote_addr"), "unix:");
    assert_eq!(unix("binary_remote_addr"), "unix:");
    assert_eq!(unix("remote_port"), "");
    assert_eq!(unix("server_addr"), "unix:/run/s");
    assert_eq!(unix("server_port"), "");
}

#[test]
fn the_proxy_protocol_tells_of_the_client_behind() {
    let ssl = b"\x20\x00\x0f\x01\x00\x00\x00\x07\x21\x00\x07TLSv1.3";
    let tlvs = [&b"\x02\x00\x04name\xea\x00\x01x"[..], ssl].concat();
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
    bytes.extend_from_slice(&(12 + tlvs.len() as u16).to_be_bytes());
    bytes.extend_from_slice(b"\x0a\x01\x01\x01\x0a\x02\x02\x02\x04\x57\x08\xae");
    bytes.extend_from_slice(&tlvs);
    let header = ProxyReader::default().feed(&mut &bytes[..]).unwrap().unwrap();
    let over = |name: &str| {
        value_after(name, PLAIN, |exchange| {
            exchange.connection.proxy_protocol = Some(Rc::new(header.clone()))
        })
    };
    assert_eq!(over("proxy_protocol_addr"), "10.1.1.1");
    assert_eq!(over("proxy_protocol_port"), "1111");
    assert_eq!(over("proxy_protocol_server_addr"), "10.2.2.2");
    assert_eq!(over("proxy_protocol_server_port"), "2222");
    assert_eq!(over("proxy_protocol_tlv_authority"), "name");
    assert_eq!(over("proxy_protocol_tlv_0x02"), "name");
    assert_eq!(over("proxy_protocol_tlv_0xea"), "x");
    assert_eq!(over("proxy_protocol_tlv_ssl_version"), "TLSv1.3");
    assert_eq!(over("proxy_protocol_tlv_ssl_verify"), "7");
    assert_eq!(over("proxy_protocol_tlv_ssl_cn"), "-");
    assert_eq!(over("proxy_protocol_tlv_alpn"), "-");
    assert_eq!(over("proxy_protocol_tlv_nosuch"), "-");
    let silent = |exchange: &mut Exchange| exchange.connection.proxy_protocol = Some(Rc::default());
    assert_eq!(value_after("proxy_protocol_addr", PLAIN, silent), "-");
    assert_eq!(value_after("proxy_protocol_port", PLAIN, silent), "-");
}

#[test]
fn bodies_that_were_read() {
    let with = |name: &str, text: &[u8], body: fn() -> RequestBody| {
        value_after(name, text, |exchange| exchange.request_body = body())
    };
    assert_eq!(with("request_body", FULL, || RequestBody::Memory(b"abc".to_vec())), "abc");
    assert_eq!(with("request_body", FULL, || RequestBody::Memory(Vec::new())), "-");
    assert_eq!(with("request_body", FULL, || RequestBody::File(b"/t"[..].into())), "-");
    assert_eq!(with("request_body_file", FULL, || RequestBody::File(b"/t"[..].into())), "/t");
    let chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(value("content_length", chunked), "-");
    assert_eq!(with("content_length", chunked, || RequestBody::Memory(b"abcd".to_vec())), "4");
}

struct KnownSystem;

impl SystemFacts for KnownSystem {
    fn real_path(&mut self, path: &[u8], out: &mut Vec<u8>) -> Result<(), i32> {
        out.extend_from_slice(b"/real");
        out.extend_from_slice(path);
        if path == b"/p/html" { Ok(()) } else { Err(20) }
    }

    fn tcp_info(&mut self, connection: &ConnectionFacts) -> Option<TcpInfo> {
        let round_trip_us = connection.number as u32;
        Some(TcpInfo { round_trip_us, round_trip_variation_us: 2, send_window: 3, receive_space: 4 })
    }
}

fn line_of_known_system(http: &str) -> (String, Vec<String>) {
    let mut probe = Probe::new(http);
    probe.env.system = Box::new(KnownSystem);
    let mut exchange = probe.begin(PLAIN);
    exchange.uri = b"/x".to_vec();
    exchange.path = b"/kept".to_vec();
    exchange.log_access(&mut probe.env);
    assert_eq!(exchange.path, b"/kept");
    (probe.access_lines(), probe.error_lines())
}

#[test]
fn paths_and_what_the_system_tells() {
    let format = "log_format f '$document_root $realpath_root $request_filename \
                  $tcpinfo_rtt $tcpinfo_rttvar $tcpinfo_snd_cwnd $tcpinfo_rcv_space';";
    let (line, errors) = line_of_known_system(&format!("{format} access_log a f; server {{ }}"));
    assert_eq!(line, "/p/html /real/p/html /p/html/x 17 2 3 4\n");
    assert!(errors.is_empty());
    let (line, errors) =
        line_of_known_system(&format!("{format} access_log a f; server {{ root sub/$scheme/; }}"));
    assert_eq!(line, "/p/sub/http - /p/sub/http/x 17 2 3 4\n");
    assert!(
        errors[0].starts_with("[crit] *17 realpath() \"/p/sub/http\" failed (20: Not a directory), client:")
    );
}

#[test]
fn the_request_id_is_the_same_at_every_mention() {
    let mut probe = Probe::new("log_format f '$request_id $request_id'; access_log a f; server { }");
    let mut ids = Vec::new();
    for _ in 0..2 {
        probe.run(PLAIN).log_access(&mut probe.env);
        let line = probe.access_lines();
        let (first, second) = line.trim_end().split_once(' ').unwrap();
        assert_eq!(first, second);
        assert!(first.len() == 32 && first.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
        ids.push(first.to_owned());
    }
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn the_rate_is_that_in_force() {
    let rate = |sent: u64, assigned: Option<u64>| {
        let mut probe = Probe::new("log_format f $limit_rate; access_log a f; limit_rate 1k; server { }");
        let mut exchange = probe.run(PLAIN);
        exchange.outcome.bytes_sent = sent;
        exchange.limit_rate = assigned;
        exchange.log_access(&mut probe.env);
        probe.access_lines()
    };
    assert_eq!(rate(0, None), "0\n");
    assert_eq!(rate(10, None), "1024\n");
    assert_eq!(rate(10, Some(2048)), "2048\n");
}

/// Calls what `set` does for a built-in variable.
fn assign(name: &str, text: &[u8]) -> (Exchange, Vec<String>) {
    let mut probe = Probe::new(&format!("log_format f ${name}; server {{ access_log a f; }}"));
    let mut exchange = probe.begin(PLAIN);
    let site = exchange.site.clone();
    let variable = site.variables.list.iter().find(|variable| &*variable.name == name).unwrap();
    let mut context = crate::http::context::Context { site: &site, env: &mut probe.env };
    variable.assign.unwrap()(&mut exchange, &mut context, text);
    let errors = probe.error_lines();
    (exchange, errors)
}

#[test]
fn arguments_and_the_rate_can_be_assigned() {
    let (exchange, _) = assign("args", b"new=1");
    assert_eq!((&exchange.args[..], exchange.uri_is_original), (&b"new=1"[..], false));
    assert_eq!(assign("limit_rate", b"2k").0.limit_rate, Some(2048));
    let (exchange, errors) = assign("limit_rate", b"zz");
    assert_eq!(exchange.limit_rate, None);
    assert!(errors[0].starts_with("[error] *17 invalid $limit_rate \"zz\", client: 192.0.2.1"), "{errors:?}");
}
