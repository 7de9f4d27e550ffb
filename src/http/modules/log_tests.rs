//! What the directives of logs refuse, with nginx's texts, and what requests leave in the logs.

use serde_json::Value;

use crate::base::level::Level;
use crate::conf::log_list::LogPurpose;
use crate::conf::log_target::LogTarget;
use crate::http::exchange::{Endpoint, Exchange};
use crate::http::probe::{Probe, errors};
use crate::message::Status;

// The texts are those of nginx 1.22 in `-t`.
#[test]
fn errors_are_those_of_nginx() {
    for (text, error) in [
        ("access_log a x; log_format x a;", "unknown log format \"x\""),
        ("log_format x a; log_format x b;", "duplicate \"log_format\" name \"x\""),
        ("log_format combined a;", "duplicate \"log_format\" name \"combined\""),
        ("log_format x escape=foo a;", "unknown log format escaping \"foo\""),
        ("log_format x a$;", "invalid parameter \"$\""),
        ("log_format x a$-b;", "invalid parameter \"$-b\""),
        ("log_format x \"a${}b\";", "invalid parameter \"${}b\""),
        ("log_format x \"a${-}b\";", "the closing bracket in \"\" variable is missing"),
        ("log_format x c \"a${host\";", "the closing bracket in \"host\" variable is missing"),
        ("log_format x $nosuch;", "unknown \"nosuch\" variable"),
        ("log_format x \"$1\";", "unknown \"1\" variable"),
        ("access_log off foo;", "invalid parameter \"foo\""),
        ("access_log a combined buffer=0;", "invalid buffer size \"0\""),
        ("access_log a combined buffer=1k flush=0;", "invalid flush time \"0\""),
        ("access_log a combined flush=1s;", "no buffer is defined for access_log \"a\""),
        ("access_log a combined gzip=99;", "invalid compression level \"99\""),
        ("access_log a combined foo;", "invalid parameter \"foo\""),
        (
            "access_log a combined buffer=1k; access_log a combined buffer=2k;",
            "access_log \"a\" already defined with conflicting parameters",
        ),
        ("access_log logs/$host combined buffer=1k;", "buffered logs cannot have variables in name"),
        ("access_log syslog:server=127.0.0.1 combined buffer=1k;", "logs to syslog cannot be buffered"),
        ("access_log syslog:foo=1;", "unknown syslog parameter \"foo=1\""),
        ("access_log a if=1;", "unknown log format \"if=1\""),
        ("access_log a combined if=$nosuch;", "unknown \"nosuch\" variable"),
        ("access_log a$;", "invalid variable name"),
        ("open_log_file_cache max=0;", "\"open_log_file_cache\" must have \"max\" parameter"),
        (
            "open_log_file_cache off; open_log_file_cache max=1;",
            "\"open_log_file_cache\" directive is duplicate",
        ),
        ("error_log e foo;", "invalid log level \"foo\""),
        ("error_log e info warn;", "duplicate log level \"warn\""),
        ("server { log_format x a; }", "\"log_format\" directive is not allowed here"),
    ] {
        assert_eq!(errors(text), [error], "{text}");
    }
}

#[test]
fn what_nginx_takes_is_taken() {
    for text in [
        "log_format x escape=json; access_log a x;",
        "access_log a combined if=;",
        "access_log a; access_log a combined buffer=2k; access_log a;",
        "access_log a$1;",
        "log_format json \"mine\"; access_log a json;",
        "error_log e; error_log e info; error_log stderr; error_log syslog:server=127.0.0.1 info;",
        "server { location / { limit_except GET { access_log off; } } }",
        "log_format x \"$host$http_foo${arg_a}b\"; server { access_log a x gzip flush=1m if=$host; }",
    ] {
        assert_eq!(errors(text), Vec::<String>::new(), "{text}");
    }
}

const REQUEST: &[u8] =
    b"GET /a?b=c HTTP/1.1\r\nHost: h.example\r\nReferer: http://r/\"x\r\nUser-Agent: curl\r\nUser-Agent: two\r\n\r\n";

fn finished(probe: &mut Probe, text: &[u8]) -> Exchange {
    let mut exchange = probe.run(text);
    exchange.outcome.body_bytes_sent = 153;
    exchange.outcome.bytes_sent = 303;
    exchange
}

fn logged(http: &str, text: &[u8]) -> String {
    let mut probe = Probe::new(http);
    finished(&mut probe, text).log_access(&mut probe.env);
    probe.access_lines()
}

fn targets(probe: &Probe, purpose: LogPurpose) -> Vec<String> {
    let entries = probe.site.logs.entries().iter().filter(|entry| entry.purpose == purpose);
    let name = |target: &LogTarget| match target {
        LogTarget::File(path) => String::from_utf8_lossy(path).into_owned(),
        other => format!("{other:?}"),
    };
    entries.map(|entry| name(&entry.target)).collect()
}

const COMBINED: &str = "192.0.2.1 - - [21/Nov/2026:02:26:00 +0000] \"GET /a?b=c HTTP/1.1\" 404 153 \
                        \"http://r/\\x22x\" \"curl, two\"\n";

#[test]
fn requests_are_logged_as_combined_where_nothing_is_said() {
    let mut probe = Probe::new("server { }");
    assert_eq!(targets(&probe, LogPurpose::Access), ["/p/logs/access.log"]);
    finished(&mut probe, REQUEST).log_access(&mut probe.env);
    assert_eq!(probe.access_lines(), COMBINED);
}

#[test]
fn the_default_log_is_not_opened_where_no_scope_needs_it() {
    let probe = Probe::new("server { access_log off; } server { listen 81; access_log own; }");
    assert_eq!(targets(&probe, LogPurpose::Access), ["/p/own"]);
    assert_eq!(targets(&probe, LogPurpose::Error), ["/p/logs/error.log"]);
}

#[test]
fn combined_equals_its_own_definition_in_variables() {
    let own = "'$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \"$http_referer\" \
               \"$http_user_agent\"'";
    for request in [
        REQUEST,
        b"GET / HTTP/1.0\r\nAuthorization: Basic dXMiZXI6cA==\r\n\r\n",
        b"GET /\xc3\xa4\"\\x HTTP/1.0\r\n\r\n",
        b"GET /\r\n",
        b"\x16\x03\x01 garbage\r\n\r\n",
        b"",
    ] {
        let lines =
            logged(&format!("log_format own {own}; access_log a; access_log b own; server {{ }}"), request);
        let (first, second) = lines.split_once('\n').unwrap();
        assert_eq!(format!("{first}\n"), second, "{}", request.escape_ascii());
    }
    let line = logged("access_log a; server { }", b"");
    assert!(line.starts_with("192.0.2.1 - - [") && line.contains("] \"-\" "), "{line}");
}

#[test]
fn several_logs_of_one_scope_all_get_a_line_and_replace_those_around() {
    let text = "log_format short $status; access_log outer; \
                server { access_log one; access_log two short; location /in { } }";
    assert_eq!(logged(text, REQUEST), format!("{COMBINED}404\n"));
    let inner = "server { access_log outer; location /a { access_log off; access_log inner; } }";
    assert_eq!(logged(inner, REQUEST), "");
}

#[test]
fn a_condition_of_nothing_or_zero_leaves_the_line_out() {
    let with = |condition: &str| {
        let format = "log_format s $status;";
        logged(&format!("{format} access_log a s if={condition}; server {{ }}"), REQUEST)
    };
    assert_eq!(with("$arg_b"), "404\n");
    assert_eq!(with("$arg_nosuch"), "");
    assert_eq!(with("0"), "");
    assert_eq!(with("00"), "404\n");
}

#[test]
fn values_are_escaped_as_the_format_says_and_literals_never() {
    let request = b"GET /?a=1 HTTP/1.0\r\nx-y: \"a\\b\t\xc3\xa4\r\n\r\n";
    let with = |escape: &str| {
        let format = format!("log_format f {escape} '\"[$http_x_y]' '[$http_x_z]\"';");
        logged(&format!("{format} access_log a f; server {{ }}"), request)
    };
    assert_eq!(with(""), "\"[\\x22a\\x5Cb\\x09\\xC3\\xA4][-]\"\n");
    assert_eq!(with("escape=default"), with(""));
    assert_eq!(with("escape=json"), "\"[\\\"a\\\\b\\t\u{e4}][]\"\n");
    assert_eq!(with("escape=none"), "\"[\"a\\b\t\u{e4}][]\"\n");
}

fn json(request: &[u8]) -> Value {
    let line = logged("access_log a json; server { server_name one; }", request);
    assert_eq!(line.matches('\n').count(), 1);
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

#[test]
fn json_lines_carry_what_people_look_for() {
    let line = json(REQUEST);
    assert_eq!(line["time"], "2026-11-21T02:26:00+00:00");
    assert_eq!(line["msec"], 1_795_227_960.007);
    assert_eq!(line["remote_addr"], "192.0.2.1");
    assert_eq!(line["remote_user"], Value::Null);
    assert_eq!(line["method"], "GET");
    assert_eq!(line["uri"], "/a?b=c");
    assert_eq!(line["host"], "h.example");
    assert_eq!(line["protocol"], "HTTP/1.1");
    assert_eq!(line["status"], 404);
    assert_eq!(line["body_bytes_sent"], 153);
    assert_eq!(line["request_time"], 0.005);
    assert_eq!(line["referer"], "http://r/\"x");
    assert_eq!(line["user_agent"], "curl, two");
    assert_eq!(line["request_id"].as_str().unwrap().len(), 32);
    assert_eq!(line["server_name"], "one");
    assert_eq!(line["connection"], 17);
}

#[test]
fn json_lines_parse_whatever_was_sent() {
    let mut requests: Vec<Vec<u8>> =
        vec![Vec::new(), b"\x00\xff\"\\\r\n\r\n".to_vec(), b"GET /\r\n".to_vec()];
    for byte in 0..=255u8 {
        let mut request = b"GET /?".to_vec();
        request.push(byte);
        request.extend_from_slice(b" HTTP/1.0\r\nUser-Agent: a");
        request.push(byte);
        request.extend_from_slice(b"\xe2\x82\"b\r\nAuthorization: Basic /w==\r\n\r\n");
        requests.push(request);
    }
    for request in requests {
        assert!(json(&request).is_object());
    }
}

#[test]
fn json_status_of_a_request_without_response_is_a_number() {
    let mut probe = Probe::new("access_log a json; server { }");
    let mut exchange = probe.begin(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    exchange.log_access(&mut probe.env);
    let line: Value = serde_json::from_str(&probe.access_lines()).unwrap();
    assert_eq!(line["status"], 0);
}

#[test]
fn a_path_with_variables_goes_out_with_the_root_to_be_tested() {
    let text = "log_format s $status; open_log_file_cache max=5; \
                server { root /srv/$host; access_log logs/$host.log s; }";
    let mut probe = Probe::new(text);
    finished(&mut probe, REQUEST).log_access(&mut probe.env);
    let [line] = probe.env.access.paths() else { panic!("one line") };
    assert_eq!(line.path, b"/p/logs/h.example.log");
    assert_eq!(line.root, b"/srv/h.example");
    assert_eq!(line.line, b"404");
    assert_eq!(line.cache.as_ref().unwrap().max, 5);
    assert_eq!(probe.site.logs.entries().len(), 1, "the error log alone is opened beforehand");
}

#[test]
fn error_lines_have_nginx_tail() {
    let mut probe = Probe::new("access_log off; server { server_name one; }");
    probe.run(REQUEST);
    assert_eq!(
        probe.error_lines(),
        [
            "[error] *17 open() \"/p/html/a\" failed (2: No such file or directory), client: 192.0.2.1, server: one, \
          request: \"GET /a?b=c HTTP/1.1\", host: \"h.example\", referrer: \"http://r/\"x\""
        ]
    );
    probe.connection.peer = Endpoint::Unix(Box::default());
    probe.run(b"GET /a HTTP/1.0\r\n\r\n");
    assert!(probe.error_lines()[0].ends_with(", client: unix:, server: one, request: \"GET /a HTTP/1.0\""));
}

fn info_line(probe: &mut Probe) -> Vec<String> {
    let exchange = probe.begin(REQUEST);
    let site = exchange.site.clone();
    let mut context = crate::http::context::Context { site: &site, env: &mut probe.env };
    exchange.log(&mut context, Level::Info, format_args!("hello"));
    probe.error_lines()
}

#[test]
fn only_levels_that_the_scope_admits_are_logged() {
    assert!(info_line(&mut Probe::new("server { }")).is_empty());
    assert!(info_line(&mut Probe::new("error_log e warn; server { }")).is_empty());
    assert_eq!(info_line(&mut Probe::new("error_log e warn; server { error_log f info; }")).len(), 1);
    let main = "error_log e info; events {} http { server { } }";
    assert_eq!(info_line(&mut Probe::whole(main)).len(), 1);
    let inner = "error_log e info; events {} http { server { error_log f; } }";
    assert!(info_line(&mut Probe::whole(inner)).is_empty());
}

#[test]
fn debugged_clients_log_everything() {
    let text = "events { debug_connection 192.0.2.0/24; } http { server { } }";
    assert_eq!(info_line(&mut Probe::whole(text)).len(), 1);
    let text = "events { debug_connection 192.0.3.0/24; } http { server { } }";
    assert!(info_line(&mut Probe::whole(text)).is_empty());
}

#[test]
fn logging_again_allocates_no_new_buffers() {
    let mut probe = Probe::new("server { }");
    let mut exchange = finished(&mut probe, REQUEST);
    exchange.log_access(&mut probe.env);
    let buffer = |probe: &Probe| probe.env.access.sinks().next().map(|(_, lines)| lines.text.as_ptr());
    let first = buffer(&probe);
    probe.access_lines();
    exchange.log_access(&mut probe.env);
    assert_eq!(buffer(&probe), first);
}

#[test]
fn an_error_page_keeps_the_status_of_the_error() {
    let mut probe = Probe::new("log_format s $status; access_log a s; server { }");
    let mut exchange = probe.run(REQUEST);
    assert_eq!(exchange.error_status, Some(Status::NOT_FOUND));
    exchange.response.status = Status::OK;
    exchange.log_access(&mut probe.env);
    assert_eq!(probe.access_lines(), "404\n");
}
