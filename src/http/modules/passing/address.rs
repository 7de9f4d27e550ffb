//! Addresses of upstreams as `proxy_pass` and its like name them: a host with or without a port, or a Unix socket, and
//! perhaps a URI.

use std::net::Ipv6Addr;

use crate::base::ascii::append_decimal;
use crate::base::level::Level;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::upstream_call::PassAddress;
use crate::message::Status;

/// Longest path of a Unix socket, in bytes.
const LONGEST_SOCKET_PATH: usize = 107;

/// An address and the URI behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassUrl {
    /// The address; a host's name in lower case.
    pub address: PassAddress,
    /// As `$proxy_host` and the Host field show it: without the protocol's usual port.
    pub shown_host: Box<[u8]>,
    /// As `$proxy_port` shows it; empty for Unix sockets.
    pub shown_port: Box<[u8]>,
    /// What follows the address, beginning with a slash; empty if nothing does.
    pub uri: Box<[u8]>,
}

/// Reads an address. `default_port` is the protocol's usual one, 0 if it has none; `takes_uri` allows a URI behind the
/// address.
///
/// # Errors
/// nginx's words for what is wrong, to which ` in upstream "..."` belongs.
pub fn parse_address(text: &[u8], default_port: u16, takes_uri: bool) -> Result<PassUrl, &'static str> {
    if text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"unix:")) {
        return parse_socket(&text[5..], takes_uri);
    }
    let (host_and_port, uri) = match text.iter().position(|byte| matches!(byte, b'/' | b'?')) {
        Some(_) if !takes_uri => return Err("invalid host"),
        Some(end) => text.split_at(end),
        None => (text, &b""[..]),
    };
    let (shown, port_text) = match host_and_port {
        [b'[', ..] => {
            let end = memchr::memchr(b']', host_and_port).ok_or("invalid host")? + 1;
            match &host_and_port[end..] {
                [] => (host_and_port, None),
                [b':', port @ ..] => (&host_and_port[..end], Some(port)),
                _ => return Err("invalid host"),
            }
        }
        _ => match memchr::memchr(b':', host_and_port) {
            Some(colon) => (&host_and_port[..colon], Some(&host_and_port[colon + 1..])),
            None => (host_and_port, None),
        },
    };
    let host = match shown {
        [b'[', inner @ .., b']'] => inner,
        host => host,
    };
    if host.is_empty() {
        return Err("no host");
    }
    let is_v6 = shown.len() != host.len();
    let literal = std::str::from_utf8(host).ok();
    if is_v6 && literal.is_none_or(|literal| literal.parse::<Ipv6Addr>().is_err()) {
        return Err("invalid IPv6 address");
    }
    let port = port_text.map(parse_port).transpose()?;
    let is_literal = literal.is_some_and(|literal| literal.parse::<std::net::IpAddr>().is_ok());
    if port.is_none() && default_port == 0 && is_literal {
        return Err("no port");
    }
    let mut shown_host = shown.to_vec();
    let mut shown_port = Vec::new();
    append_decimal(&mut shown_port, port.unwrap_or(default_port));
    if port.is_some_and(|port| port != default_port) {
        shown_host.push(b':');
        shown_host.extend_from_slice(&shown_port);
    }
    Ok(PassUrl {
        address: PassAddress::Host { host: host.to_ascii_lowercase().into(), port, default_port },
        shown_host: shown_host.into(),
        shown_port: shown_port.into(),
        uri: rooted(uri),
    })
}

fn parse_socket(rest: &[u8], takes_uri: bool) -> Result<PassUrl, &'static str> {
    let (path, uri) = match memchr::memchr(b':', rest) {
        Some(end) if takes_uri => (&rest[..end], &rest[end + 1..]),
        _ => (rest, &b""[..]),
    };
    if path.is_empty() {
        return Err("no path in the unix domain socket");
    }
    if path.len() > LONGEST_SOCKET_PATH {
        return Err("too long path in the unix domain socket");
    }
    Ok(PassUrl {
        address: PassAddress::Unix(path.into()),
        shown_host: b"localhost"[..].into(),
        shown_port: Box::default(),
        uri: rooted(uri),
    })
}

/// A URI that is only arguments is one of the root.
fn rooted(uri: &[u8]) -> Box<[u8]> {
    match uri {
        [] | [b'/', ..] => uri.into(),
        _ => [b"/", uri].concat().into(),
    }
}

fn parse_port(text: &[u8]) -> Result<u16, &'static str> {
    let is_decimal = !text.is_empty() && text.len() <= 9 && text.iter().all(u8::is_ascii_digit);
    let number = if is_decimal { crate::base::ascii::parse_u64(text) } else { None };
    number.and_then(|number| u16::try_from(number).ok()).filter(|port| *port != 0).ok_or("invalid port")
}

/// Reads an address that variables gave.
///
/// # Errors
/// What to answer; it was logged.
pub fn computed_address(
    exchange: &Exchange,
    context: &mut Context,
    text: &[u8],
    default_port: u16,
    takes_uri: bool,
) -> Result<PassUrl, Status> {
    parse_address(text, default_port, takes_uri).map_err(|what| {
        let shown = String::from_utf8_lossy(text);
        exchange.log(context, Level::Error, format_args!("{what} in upstream \"{shown}\""));
        Status::INTERNAL_SERVER_ERROR
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (PassAddress, String, String, String) {
        let url = parse_address(text.as_bytes(), 80, true).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (url.address, text(&url.shown_host), text(&url.shown_port), text(&url.uri))
    }

    fn host(name: &str, port: Option<u16>) -> PassAddress {
        PassAddress::Host { host: name.as_bytes().into(), port, default_port: 80 }
    }

    #[test]
    fn hosts_ports_and_uris_are_told_apart() {
        let cases = [
            ("a", host("a", None), "a", "80", ""),
            ("A:80/", host("a", Some(80)), "A", "80", "/"),
            ("a:8080/b:c?d", host("a", Some(8080)), "a:8080", "8080", "/b:c?d"),
            ("a?b=/c", host("a", None), "a", "80", "/?b=/c"),
            ("[::1]", host("::1", None), "[::1]", "80", ""),
            ("[::1]:81/x", host("::1", Some(81)), "[::1]:81", "81", "/x"),
        ];
        for (text, address, shown, port, uri) in cases {
            let expected = (address, shown.to_owned(), port.to_owned(), uri.to_owned());
            assert_eq!(parsed(text), expected, "{text}");
        }
        let socket = PassAddress::Unix(b"/run/a.sock"[..].into());
        assert_eq!(parsed("unix:/run/a.sock").0, socket);
        assert_eq!(parsed("unix:/run/a.sock:/b"), (socket, "localhost".into(), "".into(), "/b".into()));
    }

    /// The words are those of nginx 1.22.
    #[test]
    fn what_is_no_address_is_refused_in_nginx_s_words() {
        for (text, words) in [
            ("", "no host"),
            ("?a", "no host"),
            (":80", "no host"),
            ("[]:80", "no host"),
            ("[::1", "invalid host"),
            ("[::1]x", "invalid host"),
            ("[::g]", "invalid IPv6 address"),
            ("a:", "invalid port"),
            ("a:0", "invalid port"),
            ("a:65536", "invalid port"),
            ("a:80x/", "invalid port"),
            ("unix:", "no path in the unix domain socket"),
            ("unix::/a", "no path in the unix domain socket"),
        ] {
            assert_eq!(parse_address(text.as_bytes(), 80, true), Err(words), "{text}");
        }
        assert_eq!(parse_address(b"127.0.0.1", 0, false), Err("no port"));
        assert_eq!(parse_address(b"127.0.0.1:1/x", 0, false), Err("invalid host"));
        let long = [b"unix:/", &[b'a'; 200][..]].concat();
        assert_eq!(parse_address(&long, 80, true), Err("too long path in the unix domain socket"));
    }
}
