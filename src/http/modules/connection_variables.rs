//! Variables of the connection, the time and the process.

use std::net::{IpAddr, SocketAddr};

use crate::base::ascii::{append_decimal, append_seconds};
use crate::base::level::Level;
use crate::http::context::{Context, TcpInfo};
use crate::http::exchange::{Endpoint, Exchange, ProxyProtocol};
use crate::http::variables::VariableEntry;

use super::core_variables::hex_byte;

/// `$nginx_version`: the version of nginx whose behaviour is imitated, since configurations compare it.
pub const IMITATED_VERSION: &str = "1.31.5";

/// The variables.
pub static VARIABLES: &[VariableEntry] = &[
    VariableEntry::new("binary_remote_addr", binary_remote_addr),
    VariableEntry::new("connection", |exchange, _, out| number(out, exchange.connection.number)),
    VariableEntry::new("connection_requests", |exchange, _, out| {
        number(out, u64::from(exchange.connection.requests))
    }),
    VariableEntry::new("connection_time", connection_time),
    VariableEntry::new("hostname", |_, context, out| text(out, &context.env.hostname)),
    VariableEntry::new("https", |exchange, _, out| {
        text(out, if exchange.connection.secure { b"on" } else { b"" })
    }),
    VariableEntry::new("msec", msec),
    VariableEntry::new("nginx_version", |_, _, out| text(out, IMITATED_VERSION.as_bytes())),
    VariableEntry::new("pid", |_, context, out| number(out, u64::from(context.env.process))),
    VariableEntry::new("pipe", |exchange, _, out| {
        text(out, if exchange.outcome.pipelined { b"p" } else { b"." })
    }),
    VariableEntry::new("proxy_protocol_addr", |exchange, _, out| {
        proxied_address(proxied_source(exchange), out)
    }),
    VariableEntry::new("proxy_protocol_port", |exchange, _, out| proxied_port(proxied_source(exchange), out)),
    VariableEntry::new("proxy_protocol_server_addr", |exchange, _, out| {
        proxied_address(proxied_destination(exchange), out)
    }),
    VariableEntry::new("proxy_protocol_server_port", |exchange, _, out| {
        proxied_port(proxied_destination(exchange), out)
    }),
    VariableEntry::family("proxy_protocol_tlv_", proxied_tlv),
    VariableEntry::new("remote_addr", |exchange, _, out| {
        append_peer(exchange, out);
        true
    }),
    VariableEntry::new("remote_port", |exchange, _, out| port(&exchange.connection.peer, out)),
    VariableEntry::new("scheme", |exchange, _, out| {
        text(out, if exchange.connection.secure { b"https" } else { b"http" })
    }),
    VariableEntry::new("server_addr", server_addr),
    VariableEntry::new("server_port", |exchange, _, out| port(&exchange.connection.local, out)),
    VariableEntry::new("tcpinfo_rcv_space", |exchange, context, out| {
        tcp_info(exchange, context, out, |info| info.receive_space)
    }),
    VariableEntry::new("tcpinfo_rtt", |exchange, context, out| {
        tcp_info(exchange, context, out, |info| info.round_trip_us)
    }),
    VariableEntry::new("tcpinfo_rttvar", |exchange, context, out| {
        tcp_info(exchange, context, out, |info| info.round_trip_variation_us)
    }),
    VariableEntry::new("tcpinfo_snd_cwnd", |exchange, context, out| {
        tcp_info(exchange, context, out, |info| info.send_window)
    }),
    VariableEntry::new("time_iso8601", |_, context, out| text(out, context.env.dates.iso8601())),
    VariableEntry::new("time_local", |_, context, out| text(out, context.env.dates.local())),
];

fn text(out: &mut Vec<u8>, text: &[u8]) -> bool {
    out.extend_from_slice(text);
    true
}

fn number(out: &mut Vec<u8>, number: u64) -> bool {
    append_decimal(out, number);
    true
}

/// Appends an address without brackets. IPv4, which most log lines begin with, is written by hand.
fn append_ip(address: IpAddr, out: &mut Vec<u8>) {
    use std::io::Write;
    match address {
        IpAddr::V4(address) => {
            for (index, octet) in address.octets().into_iter().enumerate() {
                if index > 0 {
                    out.push(b'.');
                }
                append_decimal(out, octet);
            }
        }
        IpAddr::V6(address) => {
            let result = write!(out, "{address}");
            debug_assert!(result.is_ok(), "writing to memory does not fail");
        }
    }
}

/// Appends the client's address (`$remote_addr`): `unix:` for a client of a Unix socket.
pub fn append_peer(exchange: &Exchange, out: &mut Vec<u8>) {
    match &exchange.connection.peer {
        Endpoint::Inet(address) => append_ip(address.ip(), out),
        Endpoint::Unix(_) => out.extend_from_slice(b"unix:"),
    }
}

/// The bytes of the client's address: 4 or 16 of them, so that zones keep small keys.
fn binary_remote_addr(exchange: &mut Exchange, _: &mut Context, out: &mut Vec<u8>) -> bool {
    match &exchange.connection.peer {
        Endpoint::Inet(SocketAddr::V4(address)) => text(out, &address.ip().octets()),
        Endpoint::Inet(SocketAddr::V6(address)) => text(out, &address.ip().octets()),
        Endpoint::Unix(_) => text(out, b"unix:"),
    }
}

/// A port; empty for Unix sockets.
fn port(endpoint: &Endpoint, out: &mut Vec<u8>) -> bool {
    if let Endpoint::Inet(address) = endpoint
        && address.port() != 0
    {
        append_decimal(out, address.port());
    }
    true
}

fn server_addr(exchange: &mut Exchange, _: &mut Context, out: &mut Vec<u8>) -> bool {
    match &exchange.connection.local {
        Endpoint::Inet(address) => append_ip(address.ip(), out),
        Endpoint::Unix(path) => {
            out.extend_from_slice(b"unix:");
            out.extend_from_slice(path);
        }
    }
    true
}

fn connection_time(exchange: &mut Exchange, context: &mut Context, out: &mut Vec<u8>) -> bool {
    append_seconds(out, context.env.now.monotonic_ms.saturating_sub(exchange.connection.accepted_ms));
    true
}

fn msec(_: &mut Exchange, context: &mut Context, out: &mut Vec<u8>) -> bool {
    let now = context.env.now;
    let secs = u64::try_from(now.wall_secs).unwrap_or(0);
    append_seconds(out, secs.saturating_mul(1000).saturating_add(u64::from(now.wall_ms_part)));
    true
}

fn proxied_source(exchange: &Exchange) -> Option<SocketAddr> {
    exchange.connection.proxy_protocol.as_ref()?.source
}

fn proxied_destination(exchange: &Exchange) -> Option<SocketAddr> {
    exchange.connection.proxy_protocol.as_ref()?.destination
}

fn proxied_address(address: Option<SocketAddr>, out: &mut Vec<u8>) -> bool {
    let Some(address) = address else { return false };
    append_ip(address.ip(), out);
    true
}

fn proxied_port(address: Option<SocketAddr>, out: &mut Vec<u8>) -> bool {
    let Some(address) = address else { return false };
    port(&Endpoint::Inet(address), out)
}

/// Type of the value that holds what a proxy knows of TLS: a byte of flags, four of the verification's result, then
/// values of its own.
const TLV_SSL: u8 = 0x20;
/// Bytes before the values within [`TLV_SSL`].
const SSL_HEAD: usize = 5;

/// Types by name (`$proxy_protocol_tlv_NAME`).
const TLV_NAMES: &[(&[u8], u8)] =
    &[(b"alpn", 0x01), (b"authority", 0x02), (b"unique_id", 0x05), (b"ssl", TLV_SSL), (b"netns", 0x30)];
/// Types within [`TLV_SSL`] by name.
const SSL_NAMES: &[(&[u8], u8)] =
    &[(b"version", 0x21), (b"cn", 0x22), (b"cipher", 0x23), (b"sig_alg", 0x24), (b"key_alg", 0x25)];

/// `$proxy_protocol_tlv_NAME`: a value of the PROXY protocol's second version, by name or by type (`0x05`).
fn proxied_tlv(exchange: &mut Exchange, context: &mut Context, name: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(header) = exchange.connection.proxy_protocol.clone() else { return false };
    match find_tlv(&header, name, out) {
        Ok(found) => found,
        Err(UnknownTlv) => {
            let name = String::from_utf8_lossy(name);
            exchange.log(context, Level::Error, format_args!("unknown PROXY protocol TLV \"{name}\""));
            false
        }
    }
}

/// A name that stands for no type.
#[derive(Debug, PartialEq, Eq)]
struct UnknownTlv;

fn find_tlv(header: &ProxyProtocol, name: &[u8], out: &mut Vec<u8>) -> Result<bool, UnknownTlv> {
    let of_type =
        |wanted: u8| header.tlvs.iter().find(|(kind, _)| *kind == wanted).map(|(_, value)| &**value);
    let found = match name.strip_prefix(b"ssl_") {
        None => of_type(tlv_type(name, TLV_NAMES)?),
        Some(name) => {
            let Some((head, values)) = of_type(TLV_SSL).and_then(|ssl| ssl.split_at_checked(SSL_HEAD)) else {
                return Ok(false);
            };
            if name == b"verify" {
                append_decimal(out, u32::from_be_bytes([head[1], head[2], head[3], head[4]]));
                return Ok(true);
            }
            find_raw_tlv(values, tlv_type(name, SSL_NAMES)?)
        }
    };
    Ok(found.is_some_and(|value| text(out, value)))
}

fn tlv_type(name: &[u8], names: &[(&[u8], u8)]) -> Result<u8, UnknownTlv> {
    if let Some(digits) = name.strip_prefix(b"0x") {
        return hex_byte(digits).ok_or(UnknownTlv);
    }
    names.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind).ok_or(UnknownTlv)
}

/// The first value of a type in values that stand one behind the other: type, length in two bytes, bytes.
fn find_raw_tlv(mut values: &[u8], wanted: u8) -> Option<&[u8]> {
    while let [kind, high, low, rest @ ..] = values {
        let (value, after) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
        if *kind == wanted {
            return Some(value);
        }
        values = after;
    }
    None
}

fn tcp_info(
    exchange: &Exchange,
    context: &mut Context,
    out: &mut Vec<u8>,
    part: fn(&TcpInfo) -> u32,
) -> bool {
    match context.env.system.tcp_info(&exchange.connection) {
        Some(info) => number(out, u64::from(part(&info))),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(header: &ProxyProtocol, name: &str) -> Result<Option<String>, UnknownTlv> {
        let mut out = Vec::new();
        let found = find_tlv(header, name.as_bytes(), &mut out)?;
        Ok(found.then(|| String::from_utf8(out).unwrap()))
    }

    #[test]
    fn values_of_the_proxy_protocol_are_found_by_name_and_by_type() {
        let ssl = b"\x01\x00\x00\x00\x07\x21\x00\x07TLSv1.3\x23\x00\x03abc\x22\x00\x09cut";
        let header = ProxyProtocol {
            tlvs: vec![(1, b"h2"[..].into()), (0xea, b"x"[..].into()), (TLV_SSL, ssl[..].into())],
            ..ProxyProtocol::default()
        };
        let some = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(value(&header, "alpn"), some("h2"));
        assert_eq!(value(&header, "0x01"), some("h2"));
        assert_eq!(value(&header, "0xea"), some("x"));
        assert_eq!(value(&header, "authority"), Ok(None));
        assert_eq!(value(&header, "ssl_version"), some("TLSv1.3"));
        assert_eq!(value(&header, "ssl_0x23"), some("abc"));
        assert_eq!(value(&header, "ssl_cn"), Ok(None));
        assert_eq!(value(&header, "ssl_verify"), some("7"));
        for unknown in ["nosuch", "ssl_nosuch", "0x", "0x100", "0xzz"] {
            assert_eq!(value(&header, unknown), Err(UnknownTlv), "{unknown}");
        }
    }

    #[test]
    fn a_value_of_tls_that_is_too_short_has_no_parts() {
        let header =
            ProxyProtocol { tlvs: vec![(TLV_SSL, b"\x01\x00"[..].into())], ..ProxyProtocol::default() };
        assert_eq!(value(&header, "ssl_verify"), Ok(None));
        assert_eq!(value(&header, "ssl_version"), Ok(None));
    }
}
