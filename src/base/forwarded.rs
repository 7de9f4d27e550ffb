//! Addresses that proxies report of their clients (`X-Forwarded-For` and its like): read from the right, as far as
//! those who report them are trusted.

use std::net::{IpAddr, SocketAddr};

use super::cidr::{AddressSet, PeerAddress};

/// Reads `ADDRESS`, `ADDRESS:PORT`, `[ADDRESS]` or `[ADDRESS]:PORT`; a missing port is 0.
pub fn parse_address_port(text: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(address, 0));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let address: IpAddr = IpAddr::V6(address.parse().ok()?);
        let port = if port.is_empty() { 0 } else { parse_port(port.strip_prefix(':')?)? };
        return Some(SocketAddr::new(address, port));
    }
    let (address, port) = text.rsplit_once(':')?;
    Some(SocketAddr::new(IpAddr::V4(address.parse().ok()?), parse_port(port)?))
}

fn parse_port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0)
}

/// The client that the values of a field report, the last line first in `values`, to a server whose peer is `peer`;
/// `None` if the peer is not trusted or reports none.
///
/// As in nginx: the last address of the last line counts. With `recursive` each trusted address leads on to the one
/// before it, until one is not trusted; where something else than an address stands, the search ends at what was found.
pub fn find_client<'a>(
    peer: PeerAddress,
    values: impl Iterator<Item = &'a [u8]>,
    trusted: &AddressSet,
    recursive: bool,
) -> Option<SocketAddr> {
    let mut found: Option<SocketAddr> = None;
    for mut value in values {
        loop {
            let current = found.map_or(peer, |address| PeerAddress::Ip(address.ip()));
            if !trusted.contains(current) {
                return found;
            }
            let (rest, last) = split_last(value);
            let Some(address) = parse_address_port(last) else { return found };
            found = Some(address);
            if !recursive {
                return found;
            }
            if rest.is_empty() {
                break;
            }
            value = rest;
        }
    }
    found
}

/// Divides a list at its last element; spaces and commas stand between elements.
fn split_last(value: &[u8]) -> (&[u8], &[u8]) {
    let is_separator = |byte: &u8| matches!(byte, b' ' | b',');
    let end = value.iter().rposition(|byte| !is_separator(byte)).map_or(0, |at| at + 1);
    let start = value[..end].iter().rposition(is_separator).map_or(0, |at| at + 1);
    (&value[..start.saturating_sub(1)], &value[start..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::cidr::Cidr;

    fn client(lines: &[&str], trusted: &[&str], recursive: bool) -> Option<String> {
        let mut set = AddressSet::new();
        for text in trusted {
            set.push(Cidr::parse(text).unwrap().cidr, ());
        }
        let peer = PeerAddress::Ip("127.0.0.1".parse().unwrap());
        let values = lines.iter().rev().map(|line| line.as_bytes());
        find_client(peer, values, &set, recursive).map(|address| address.to_string())
    }

    #[test]
    fn addresses_come_with_and_without_port() {
        for (text, read) in [
            ("1.2.3.4", Some("1.2.3.4:0")),
            ("1.2.3.4:80", Some("1.2.3.4:80")),
            ("2001:db8::1", Some("[2001:db8::1]:0")),
            ("[2001:db8::1]", Some("[2001:db8::1]:0")),
            ("[2001:db8::1]:8080", Some("[2001:db8::1]:8080")),
            ("1.2.3.4:", None),
            ("1.2.3.4:0", None),
            ("1.2.3.4:+80", None),
            ("1.2.3.4:99999", None),
            ("[1.2.3.4]:80", None),
            ("host", None),
            ("", None),
        ] {
            let found = parse_address_port(text.as_bytes()).map(|address| address.to_string());
            assert_eq!(found.as_deref(), read, "{text}");
        }
    }

    #[test]
    fn the_last_address_counts_if_the_peer_is_trusted() {
        let local = &["127.0.0.1"][..];
        assert_eq!(client(&["1.1.1.1, 2.2.2.2"], local, false).as_deref(), Some("2.2.2.2:0"));
        assert_eq!(client(&["1.1.1.1", "2.2.2.2 , "], local, false).as_deref(), Some("2.2.2.2:0"));
        assert_eq!(client(&["2.2.2.2"], &["10.0.0.0/8"], false), None);
        assert_eq!(client(&["1.1.1.1, x"], local, false), None);
        assert_eq!(client(&[], local, false), None);
        assert_eq!(client(&[" , "], local, false), None);
    }

    #[test]
    fn trusted_addresses_lead_on_where_the_search_is_recursive() {
        let proxies = &["127.0.0.1", "10.0.0.0/8"][..];
        assert_eq!(client(&["1.1.1.1, 2.2.2.2, 10.0.0.1"], proxies, true).as_deref(), Some("2.2.2.2:0"));
        assert_eq!(client(&["1.1.1.1, 2.2.2.2", "10.0.0.1"], proxies, true).as_deref(), Some("2.2.2.2:0"));
        assert_eq!(client(&["10.0.0.2,10.0.0.1"], proxies, true).as_deref(), Some("10.0.0.2:0"));
        assert_eq!(client(&["x, 10.0.0.1"], proxies, true).as_deref(), Some("10.0.0.1:0"));
        assert_eq!(client(&["1.1.1.1, 10.0.0.1"], proxies, false).as_deref(), Some("10.0.0.1:0"));
    }
}
