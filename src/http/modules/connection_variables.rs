//! Variables of the connection, the time and the process.

use std::net::{IpAddr, SocketAddr};

use crate::base::ascii::{append_decimal, append_seconds};
use crate::http::context::{Context, TcpInfo};
use crate::http::exchange::{Endpoint, Exchange};
use crate::http::variables::VariableEntry;

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
    VariableEntry::new("remote_port", |exchange, _, out| append_port(&exchange.connection.peer, out)),
    VariableEntry::new("scheme", |exchange, _, out| {
        text(out, if exchange.connection.secure { b"https" } else { b"http" })
    }),
    VariableEntry::new("server_addr", server_addr),
    VariableEntry::new("server_port", |exchange, _, out| append_port(&exchange.connection.local, out)),
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
    append_endpoint(&exchange.connection.peer, out);
}

/// Appends a client's address: `unix:` for one on a Unix socket.
pub fn append_endpoint(endpoint: &Endpoint, out: &mut Vec<u8>) {
    match endpoint {
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

/// Appends a port; nothing for Unix sockets.
pub fn append_port(endpoint: &Endpoint, out: &mut Vec<u8>) -> bool {
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
    Some(exchange.connection.proxy_protocol.as_ref()?.addresses?.0)
}

fn proxied_destination(exchange: &Exchange) -> Option<SocketAddr> {
    Some(exchange.connection.proxy_protocol.as_ref()?.addresses?.1)
}

fn proxied_address(address: Option<SocketAddr>, out: &mut Vec<u8>) -> bool {
    let Some(address) = address else { return false };
    append_ip(address.ip(), out);
    true
}

fn proxied_port(address: Option<SocketAddr>, out: &mut Vec<u8>) -> bool {
    let Some(address) = address else { return false };
    append_port(&Endpoint::Inet(address), out)
}

/// `$proxy_protocol_tlv_NAME`: a value of the PROXY protocol's second version, by name or by type (`0x05`). An unknown
/// name has no value; nginx logs it at every use.
fn proxied_tlv(exchange: &mut Exchange, _: &mut Context, name: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(header) = &exchange.connection.proxy_protocol else { return false };
    if name == b"ssl_verify" {
        return header.ssl_verify().is_some_and(|verify| number(out, u64::from(verify)));
    }
    let value = std::str::from_utf8(name).ok().and_then(|name| header.tlv(name));
    value.is_some_and(|value| text(out, value))
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
