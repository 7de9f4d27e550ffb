//! `$upstream_*`: what the tries to pass a request on came to, and what the last upstream said.
//!
//! A value for each try, divided as nginx does it: ", " between tries, " : " where an internal redirect lies between.

use crate::base::ascii::{append_decimal, append_seconds};
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::upstream_call::{Attempt, Passed};
use crate::http::variables::VariableEntry;
use crate::message::{FieldName, Fields};

use super::core_variables::is_field;

/// The variables. Those of the cache have no value as long as there is none, so that log formats may name them.
pub static VARIABLES: &[VariableEntry] = &[
    VariableEntry::new("upstream_addr", |exchange, _, out| {
        each(exchange, out, |attempt, out| out.extend_from_slice(attempt.address.as_bytes()))
    }),
    VariableEntry::new("upstream_attempts", attempts),
    VariableEntry::new("upstream_bytes_received", |exchange, _, out| {
        each(exchange, out, |attempt, out| append_decimal(out, attempt.bytes_received))
    }),
    VariableEntry::new("upstream_bytes_sent", |exchange, _, out| {
        each(exchange, out, |attempt, out| append_decimal(out, attempt.bytes_sent))
    }),
    VariableEntry::new("upstream_cache_etag", |_, _, _| false),
    VariableEntry::new("upstream_cache_last_modified", |_, _, _| false),
    VariableEntry::new("upstream_cache_status", |_, _, _| false),
    VariableEntry::new("upstream_connect_time", |exchange, _, out| {
        each(exchange, out, |attempt, out| time(attempt.connect_ms, out))
    }),
    VariableEntry::family("upstream_cookie_", cookie),
    VariableEntry::new("upstream_error", error),
    VariableEntry::new("upstream_header_time", |exchange, _, out| {
        each(exchange, out, |attempt, out| time(attempt.header_ms, out))
    }),
    VariableEntry::family("upstream_http_", |exchange, _, name, out| {
        passed(exchange).is_some_and(|passed| append_joined(&passed.response.fields, name, out))
    }),
    VariableEntry::new("upstream_queue_time", |exchange, _, out| {
        each(exchange, out, |attempt, out| time(attempt.queue_ms, out))
    }),
    VariableEntry::new("upstream_response_length", |exchange, _, out| {
        each(exchange, out, |attempt, out| append_decimal(out, attempt.response_length))
    }),
    VariableEntry::new("upstream_response_time", |exchange, _, out| {
        each(exchange, out, |attempt, out| time(attempt.response_ms, out))
    }),
    VariableEntry::new("upstream_status", |exchange, _, out| each(exchange, out, status)),
    VariableEntry::family("upstream_trailer_", |exchange, _, name, out| {
        passed(exchange).is_some_and(|passed| append_joined(&passed.trailers, name, out))
    }),
];

fn passed(exchange: &Exchange) -> Option<&Passed> {
    exchange.upstream.as_deref()
}

/// Appends what `show` shows of each try; `false` if there was none.
fn each(exchange: &Exchange, out: &mut Vec<u8>, show: impl Fn(&Attempt, &mut Vec<u8>)) -> bool {
    let Some(passed) = passed(exchange) else { return false };
    for (index, attempt) in passed.attempts.iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(if attempt.after_redirect { b" : " } else { b", " });
        }
        show(attempt, out);
    }
    !passed.attempts.is_empty()
}

/// Seconds with milliseconds; `-` for what did not happen.
fn time(ms: Option<u32>, out: &mut Vec<u8>) {
    match ms {
        Some(ms) => append_seconds(out, u64::from(ms)),
        None => out.push(b'-'),
    }
}

fn status(attempt: &Attempt, out: &mut Vec<u8>) {
    match attempt.status {
        0 => out.push(b'-'),
        status => append_decimal(out, status),
    }
}

/// `$upstream_error`: what went wrong with the last call, in one word; no value if nothing did.
fn error(exchange: &mut Exchange, _: &mut Context, out: &mut Vec<u8>) -> bool {
    let Some(token) = passed(exchange).and_then(|passed| passed.error) else { return false };
    out.extend_from_slice(token.as_bytes());
    true
}

/// `$upstream_attempts`: each try as `address:token:milliseconds`, with `ok` for one that nothing went wrong with.
fn attempts(exchange: &mut Exchange, _: &mut Context, out: &mut Vec<u8>) -> bool {
    each(exchange, out, append_attempt)
}

/// Appends a try as `address:token:milliseconds`.
pub fn append_attempt(attempt: &Attempt, out: &mut Vec<u8>) {
    out.extend_from_slice(attempt.address.as_bytes());
    out.push(b':');
    out.extend_from_slice(attempt.token.unwrap_or("ok").as_bytes());
    out.push(b':');
    match attempt.response_ms {
        Some(ms) => append_decimal(out, ms),
        None => out.push(b'-'),
    }
}

/// Appends the values of all lines with this name, joined by commas as nginx does since 1.23.
fn append_joined(fields: &Fields, name: &[u8], out: &mut Vec<u8>) -> bool {
    let mut found = false;
    for (_, _, value) in fields.iter().filter(|(_, field, _)| is_field(field, name)) {
        if found {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(value);
        found = true;
    }
    found
}

/// `$upstream_cookie_NAME`: what a Set-Cookie field of the response sets a cookie to; case counts not, as for
/// `$cookie_NAME`.
fn cookie(exchange: &mut Exchange, _: &mut Context, name: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(passed) = passed(exchange) else { return false };
    let value = passed.response.fields.all(FieldName::SetCookie).find_map(|line| {
        let (found, rest) = line.trim_ascii_start().split_at_checked(name.len())?;
        let value = rest.trim_ascii_start().strip_prefix(b"=")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    });
    let Some(value) = value else { return false };
    let end = memchr::memchr(b';', value).unwrap_or(value.len());
    out.extend_from_slice(value[..end].trim_ascii_start());
    true
}

#[cfg(test)]
mod tests {
    use crate::http::testing::World;

    const SHOW: &str = "add_header X-Show \"[$upstream_addr] [$upstream_status] [$upstream_connect_time] \
        [$upstream_header_time] [$upstream_response_time] [$upstream_response_length] [$upstream_bytes_received] \
        [$upstream_bytes_sent] [$upstream_error] [$upstream_attempts] [$upstream_cache_status]\" always;";

    #[test]
    fn without_an_upstream_there_is_no_value() {
        let mut world = World::new(&format!("server {{ {SHOW} return 200; }}"));
        assert_eq!(world.get("/").field("x-show"), "[] [] [] [] [] [] [] [] [] [] []");
    }

    #[test]
    fn each_try_is_shown_and_redirects_divide_them() {
        let mut world = World::new(&format!(
            "server {{ {SHOW} error_page 504 @c; location / {{ proxy_pass http://b; }} \
             location @c {{ proxy_pass http://c; }} }}"
        ));
        let response = "HTTP/1.1 201 A\r\nContent-Length: 2\r\n\r\nok";
        let reply = world.upstream_fails("connect_timeout", 504).upstream(response).get("/");
        assert_eq!(
            reply.field("x-show"),
            "[192.0.2.10:80 : 192.0.2.11:80] [504 : 201] [- : 0.007] [- : 0.012] [0.020 : 0.020] [0 : 2] [0 : 39] \
             [0 : 27] [] [192.0.2.10:80:connect_timeout:20 : 192.0.2.11:80:ok:20] []"
        );
        let reply =
            world.upstream_fails("connect_timeout", 504).upstream_fails("reset_before_header", 502).get("/");
        assert!(reply.field("x-show").contains("[reset_before_header]"), "{}", reply.head);
    }

    #[test]
    fn fields_cookies_and_trailers_of_the_response_have_values() {
        let mut world = World::new(
            "server { location / { proxy_pass http://b; proxy_hide_header X-A; \
             add_header X-Show \"$upstream_http_x_a|$upstream_http_x_b|$upstream_cookie_two|$upstream_trailer_t\"; } }",
        );
        let response = "HTTP/1.1 200 A\r\nX-A: 1\r\nx-a: 2\r\nSet-Cookie: one=1\r\nSet-Cookie: Two=2; Path=/\r\n\
                        Transfer-Encoding: chunked\r\n\r\n0\r\nT: end\r\n\r\n";
        assert_eq!(world.upstream(response).get("/").field("x-show"), "1, 2||2|end");
    }
}
