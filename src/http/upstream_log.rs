//! What the logs say of upstreams: the tail of error log lines, and fields of `json` access log lines.

use crate::base::ascii::{append_decimal, append_seconds};
use crate::base::log::LineWriter;
use crate::base::percent::escape_json_text;

use super::exchange::Exchange;
use super::modules::upstream_variables::append_attempt;
use super::upstream_call::{Attempt, Call, PassModule, Protocol};

/// Appends `, upstream: "http://127.0.0.1:80/uri"` for the present try of a request that is passed on, as nginx does.
pub fn push_upstream(exchange: &Exchange, line: &mut LineWriter<'_>) {
    let Some(passed) = &exchange.upstream else { return };
    let (Some(call), Some(attempt)) = (&passed.call, passed.attempts.last()) else { return };
    line.push(b", upstream: \"");
    line.push(match call.protocol {
        Protocol::Http1 | Protocol::Http2 => match (call.module, call.tls.is_some()) {
            (PassModule::Proxy, false) => b"http://",
            (PassModule::Proxy, true) => b"https://",
            (PassModule::Grpc, false) => b"grpc://",
            (PassModule::Grpc, true) => b"grpcs://",
        },
        Protocol::Memcached => b"memcached://",
        Protocol::Raw => b"tunnel://",
    });
    line.push(attempt.address.as_bytes());
    if attempt.address.starts_with("unix:") {
        line.push(b":");
    }
    line.push(uri(call));
    line.push(b"\"");
}

/// The second word of the request: the URI, or the key.
fn uri(call: &Call) -> &[u8] {
    if call.protocol == Protocol::Raw {
        return b"/";
    }
    if let Some(framed) = &call.framed {
        return &framed.path;
    }
    let line = call.head.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    line.split(|byte| *byte == b' ').nth(1).unwrap_or_default()
}

/// Appends `, upstream_error: "address:token:ms, ..."` where tries failed: what is not in nginx's lines comes last.
pub fn push_failed_attempts(exchange: &Exchange, line: &mut LineWriter<'_>) {
    let Some(passed) = &exchange.upstream else { return };
    let mut text = Vec::new();
    for attempt in passed.attempts.iter().filter(|attempt| attempt.token.is_some()) {
        text.extend_from_slice(if text.is_empty() { b", upstream_error: \"" } else { b", " });
        append_attempt(attempt, &mut text);
    }
    if !text.is_empty() {
        text.push(b'"');
        line.push(&text);
    }
}

/// Appends the fields of a `json` line that only requests have which were passed on, each with a comma in front.
pub fn append_json(exchange: &Exchange, out: &mut Vec<u8>) {
    let Some(passed) = exchange.upstream.as_ref().filter(|passed| !passed.attempts.is_empty()) else {
        return;
    };
    let last = passed.attempts.last();
    out.extend_from_slice(b",\"upstream_addr\":\"");
    escape_json_text(out, last.map_or(b"", |attempt| attempt.address.as_bytes()));
    out.extend_from_slice(b"\",\"upstream_status\":");
    append_number(out, last.map(|attempt| attempt.status).filter(|status| *status != 0));
    for (key, time) in [
        (&b",\"upstream_connect_time\":"[..], last.and_then(|attempt| attempt.connect_ms)),
        (b",\"upstream_header_time\":", last.and_then(|attempt| attempt.header_ms)),
        (b",\"upstream_response_time\":", last.and_then(|attempt| attempt.response_ms)),
    ] {
        out.extend_from_slice(key);
        match time {
            Some(ms) => append_seconds(out, u64::from(ms)),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.extend_from_slice(b",\"upstream_error\":");
    match passed.error {
        Some(token) => {
            out.push(b'"');
            out.extend_from_slice(token.as_bytes());
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
    append_attempts(&passed.attempts, out);
}

fn append_number(out: &mut Vec<u8>, number: Option<u16>) {
    match number {
        Some(number) => append_decimal(out, number),
        None => out.extend_from_slice(b"null"),
    }
}

/// All tries as strings, where there was more than one or one failed.
fn append_attempts(attempts: &[Attempt], out: &mut Vec<u8>) {
    if attempts.len() < 2 && attempts.iter().all(|attempt| attempt.token.is_none()) {
        return;
    }
    out.extend_from_slice(b",\"upstream_attempts\":");
    let mut text = Vec::new();
    for (index, attempt) in attempts.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"[\"" } else { b",\"" });
        text.clear();
        append_attempt(attempt, &mut text);
        escape_json_text(out, &text);
        out.push(b'"');
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use crate::http::testing::World;

    #[test]
    fn lines_of_the_error_log_name_the_upstream() {
        let mut world = World::new(
            "server { error_page 502 /e; location / { proxy_pass http://b; } location = /e { proxy_pass http://c$bad; } \
             set $bad :x; }",
        );
        let reply = world.upstream_fails("connect_refused", 502).get_with("/a?b", "Referer: r\r\n");
        assert_eq!(
            reply.log,
            [
                "[error] invalid port in upstream \"c:x\", client: 192.0.2.1, server: , request: \"GET /a?b HTTP/1.1\", \
              upstream: \"http://192.0.2.10:80/a?b\", host: \"example.com\", referrer: \"r\", upstream_error: \
              \"192.0.2.10:80:connect_refused:20\""
            ]
        );
    }

    #[test]
    fn json_lines_tell_of_the_upstream_where_there_was_one() {
        let mut world = World::new(
            "access_log a json; server { location / { proxy_pass http://b; error_page 504 @c; } \
             location @c { proxy_pass http://c; } location /own { return 200; } }",
        );
        let line = |access: &str| serde_json::from_str::<serde_json::Value>(access).expect("JSON");
        let own = line(&world.get("/own").access);
        assert!(own.get("upstream_addr").is_none() && own.get("upstream_error").is_none());
        let reply = world.upstream("HTTP/1.1 201 A\r\nContent-Length: 0\r\n\r\n").get("/");
        let passed = line(&reply.access);
        assert_eq!(passed["upstream_addr"], "192.0.2.10:80");
        assert_eq!(
            (&passed["upstream_status"], &passed["upstream_connect_time"]),
            (&201.into(), &0.007.into())
        );
        assert!(passed["upstream_error"].is_null() && passed.get("upstream_attempts").is_none());
        let reply =
            world.upstream_fails("connect_timeout", 504).upstream_fails("header_invalid", 502).get("/");
        let failed = line(&reply.access);
        assert_eq!(
            (&failed["upstream_error"], &failed["upstream_connect_time"]),
            (&"header_invalid".into(), &serde_json::Value::Null)
        );
        assert_eq!(failed["upstream_attempts"][0], "192.0.2.10:80:connect_timeout:20");
        assert_eq!(failed["upstream_attempts"][1], "192.0.2.11:80:header_invalid:20");
    }
}
