//! The PROXY protocol, versions 1 and 2 (HAProxy's `proxy-protocol.txt`): who the client of a load balancer is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest header of version 1, its line end included (section 2.1 of the specification).
const V1_LIMIT: usize = 107;
/// Most bytes of a version 2 header; nginx's own bound, and room for a certificate's names and the like.
const V2_LIMIT: usize = 4096;
/// What every version 2 header begins with.
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, length.
const V2_FIXED: usize = 16;

/// What a header says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Client and server address as the sender saw them; `None` where it does not say (`UNKNOWN`, `LOCAL`, a family
    /// other than TCP over IPv4 or IPv6).
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// The type-length-value list of version 2, raw.
    tlvs: Box<[u8]>,
}

/// A header that breaks the rules; the connection is closed without an answer, and nginx logs it at `error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyError {
    /// `broken header`
    Broken,
    /// `unknown PROXY protocol version: N`
    UnknownVersion(u8),
    /// Longer than allowed.
    TooLong,
}

impl std::fmt::Display for ProxyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ProxyError::Broken => f.write_str("broken header"),
            ProxyError::UnknownVersion(version) => write!(f, "unknown PROXY protocol version: {version}"),
            ProxyError::TooLong => f.write_str("too long header"),
        }
    }
}

/// Reads one header, however it is cut. It keeps at most 4 KiB; a header that comes whole is copied once.
#[derive(Debug, Default)]
pub struct ProxyReader {
    text: Vec<u8>,
}

impl ProxyReader {
    /// Takes the header's bytes from the front of `input` and not one more; `None` means that more are needed. Not to be
    /// called again after a header or an error.
    pub fn feed(&mut self, input: &mut &[u8]) -> Result<Option<ProxyHeader>, ProxyError> {
        loop {
            let wanted = match self.wanted()? {
                Wanted::UpTo(length) => length - self.text.len(),
                // Up to the line's end, or one byte more than a line may have.
                Wanted::LineFeed => match memchr::memchr(b'\n', input) {
                    Some(end) => (end + 1).min(V1_LIMIT + 1 - self.text.len()),
                    None => V1_LIMIT + 1 - self.text.len(),
                },
            };
            let take = wanted.min(input.len());
            let (bytes, rest) = input.split_at(take);
            self.text.extend_from_slice(bytes);
            *input = rest;
            if let Some(header) = self.parse()? {
                return Ok(Some(header));
            }
            if input.is_empty() {
                return Ok(None);
            }
        }
    }

    fn wanted(&self) -> Result<Wanted, ProxyError> {
        let text = &self.text;
        Ok(if text.is_empty() {
            Wanted::UpTo(1)
        } else if text[0] == b'P' {
            Wanted::LineFeed
        } else if text.len() < V2_FIXED {
            Wanted::UpTo(V2_FIXED)
        } else {
            Wanted::UpTo(v2_length(text))
        })
    }

    fn parse(&mut self) -> Result<Option<ProxyHeader>, ProxyError> {
        let text = &self.text;
        if text.first() == Some(&b'P') {
            let known = text.len().min(6);
            if text[..known] != b"PROXY "[..known] {
                return Err(ProxyError::Broken);
            }
            if text.len() > V1_LIMIT {
                return Err(ProxyError::TooLong);
            }
            return if text.ends_with(b"\n") { parse_v1(text).map(Some) } else { Ok(None) };
        }
        let known = text.len().min(V2_SIGNATURE.len());
        if text[..known] != V2_SIGNATURE[..known] {
            return Err(ProxyError::Broken);
        }
        if text.len() < V2_FIXED {
            return Ok(None);
        }
        if text[12] >> 4 != 2 {
            return Err(ProxyError::UnknownVersion(text[12] >> 4));
        }
        let length = v2_length(text);
        if length > V2_LIMIT {
            return Err(ProxyError::TooLong);
        }
        if text.len() < length { Ok(None) } else { parse_v2(text).map(Some) }
    }
}

enum Wanted {
    UpTo(usize),
    LineFeed,
}

fn v2_length(text: &[u8]) -> usize {
    V2_FIXED + usize::from(u16::from_be_bytes([text[14], text[15]]))
}

fn parse_v1(line: &[u8]) -> Result<ProxyHeader, ProxyError> {
    let line = line.strip_suffix(b"\r\n").ok_or(ProxyError::Broken)?;
    let text = std::str::from_utf8(line).map_err(|_| ProxyError::Broken)?;
    let mut words = text.split(' ').skip(1);
    let family = words.next().unwrap_or("");
    if family.starts_with("UNKNOWN") {
        // What follows is to be ignored.
        return Ok(ProxyHeader::default());
    }
    let mut address = || words.next().and_then(|word| word.parse::<IpAddr>().ok()).ok_or(ProxyError::Broken);
    let (source, destination) = (address()?, address()?);
    let fits = |address: &IpAddr| match family {
        "TCP4" => address.is_ipv4(),
        "TCP6" => address.is_ipv6(),
        _ => false,
    };
    if !fits(&source) || !fits(&destination) {
        return Err(ProxyError::Broken);
    }
    let mut port = || {
        let digits = words.next().filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
        digits.and_then(|word| word.parse::<u16>().ok()).ok_or(ProxyError::Broken)
    };
    let (source_port, destination_port) = (port()?, port()?);
    if words.next().is_some() {
        return Err(ProxyError::Broken);
    }
    let addresses =
        Some((SocketAddr::new(source, source_port), SocketAddr::new(destination, destination_port)));
    Ok(ProxyHeader { addresses, tlvs: Box::default() })
}

fn parse_v2(text: &[u8]) -> Result<ProxyHeader, ProxyError> {
    const PROXY: u8 = 1;
    const STREAM: u8 = 1;
    let (command, family, transport) = (text[12] & 15, text[13] >> 4, text[13] & 15);
    let payload = &text[V2_FIXED..];
    if command != PROXY || transport != STREAM {
        return Ok(ProxyHeader::default());
    }
    let (addresses, tlvs) = match family {
        1 => {
            let (fixed, tlvs) = payload.split_at_checked(12).ok_or(ProxyError::Broken)?;
            let address = |at: usize| {
                IpAddr::from(Ipv4Addr::new(fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]))
            };
            (ends(address(0), address(4), &fixed[8..]), tlvs)
        }
        2 => {
            let (fixed, tlvs) = payload.split_at_checked(36).ok_or(ProxyError::Broken)?;
            let address = |at: usize| {
                let mut octets = [0; 16];
                octets.copy_from_slice(&fixed[at..at + 16]);
                IpAddr::from(Ipv6Addr::from(octets))
            };
            (ends(address(0), address(16), &fixed[32..]), tlvs)
        }
        _ => return Ok(ProxyHeader::default()),
    };
    Ok(ProxyHeader { addresses: Some(addresses), tlvs: tlvs.into() })
}

fn ends(source: IpAddr, destination: IpAddr, ports: &[u8]) -> (SocketAddr, SocketAddr) {
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    (SocketAddr::new(source, port(0)), SocketAddr::new(destination, port(2)))
}

/// Type of the TLV that holds the client's TLS parameters.
const SSL: u8 = 0x20;

impl ProxyHeader {
    /// The value that `$proxy_protocol_tlv_NAME` names: `alpn`, `authority`, `unique_id`, `netns`, `ssl`, a number as
    /// `0xNN`, and within the TLS parameters `ssl_version`, `ssl_cn`, `ssl_cipher`, `ssl_sig_alg`, `ssl_key_alg`,
    /// `ssl_0xNN`. `ssl_verify` is a number: see [`ProxyHeader::ssl_verify`]. `None` for a name that is not known, a
    /// value that is not there, and a list that is broken before it.
    pub fn tlv(&self, name: &str) -> Option<&[u8]> {
        if let Some(inner) = name.strip_prefix("ssl_") {
            let kind = match inner {
                "version" => 0x21,
                "cn" => 0x22,
                "cipher" => 0x23,
                "sig_alg" => 0x24,
                "key_alg" => 0x25,
                _ => numbered(inner)?,
            };
            // Before its list: one byte of flags, four of the verification's result.
            return find_tlv(find_tlv(&self.tlvs, SSL)?.get(5..)?, kind);
        }
        let kind = match name {
            "alpn" => 0x01,
            "authority" => 0x02,
            "unique_id" => 0x05,
            "ssl" => SSL,
            "netns" => 0x30,
            _ => numbered(name)?,
        };
        find_tlv(&self.tlvs, kind)
    }

    /// The result of the client certificate's verification, 0 if it was good.
    pub fn ssl_verify(&self) -> Option<u32> {
        let verify = find_tlv(&self.tlvs, SSL)?.get(1..5)?;
        Some(u32::from_be_bytes([verify[0], verify[1], verify[2], verify[3]]))
    }
}

fn numbered(name: &str) -> Option<u8> {
    let digits = name.strip_prefix("0x")?;
    let is_number = (1..=2).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_number { u8::from_str_radix(digits, 16).ok() } else { None }
}

fn find_tlv(mut list: &[u8], wanted: u8) -> Option<&[u8]> {
    while let [kind, high, low, rest @ ..] = list {
        let (value, next) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
        if *kind == wanted {
            return Some(value);
        }
        list = next;
    }
    None
}

/// Law: any cut of the input gives the same header or error and leaves the same rest; at most 4 KiB are taken.
pub fn fuzz_proxy_protocol(bytes: &[u8], step: usize) {
    let run = |step: usize| {
        let mut reader = ProxyReader::default();
        let mut taken = 0;
        for piece in bytes.chunks(step.max(1)) {
            let mut input = piece;
            let outcome = reader.feed(&mut input);
            taken += piece.len() - input.len();
            assert!(reader.text.len() <= V2_LIMIT);
            match outcome {
                Ok(None) => assert!(input.is_empty()),
                Ok(Some(header)) => return Ok(Some((header, taken))),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    };
    let whole = run(bytes.len());
    assert_eq!(whole, run(step));
    assert!(whole.as_ref().err().is_none_or(|error| !error.to_string().is_empty()));
    if let Ok(Some((header, _))) = whole {
        for name in [
            "alpn",
            "ssl",
            "ssl_cn",
            "ssl_cipher",
            "ssl_sig_alg",
            "ssl_key_alg",
            "ssl_0x21",
            "ssl_x",
            "0x30",
            "0xzz",
        ] {
            let _ = header.tlv(name);
        }
        let _ = header.ssl_verify();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyError> {
        let mut input = bytes;
        let header = ProxyReader::default().feed(&mut input);
        if let Ok(Some(_)) = header {
            assert!(input.is_empty() || input == b"GET");
        }
        header
    }

    fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u16).to_be_bytes();
        [&V2_SIGNATURE[..], &[command, family], &length, payload].concat()
    }

    const ENDS: [u8; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 0, 2];

    fn ends_of(text: (&str, &str)) -> Option<(SocketAddr, SocketAddr)> {
        Some((text.0.parse().unwrap(), text.1.parse().unwrap()))
    }

    #[test]
    fn version_1_gives_addresses_and_leaves_what_follows() {
        let header = read(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET").unwrap().unwrap();
        assert_eq!(header.addresses, ends_of(("1.2.3.4:1", "5.6.7.8:2")));
        let header = read(b"PROXY TCP6 ::1 ::2 1 02\r\n").unwrap().unwrap();
        assert_eq!(header.addresses, ends_of(("[::1]:1", "[::2]:2")));
        for line in [&b"PROXY UNKNOWN\r\n"[..], b"PROXY UNKNOWN a b c\r\n"] {
            assert_eq!(read(line).unwrap().unwrap().addresses, None);
        }
    }

    #[test]
    fn version_1_refuses_what_is_not_as_specified() {
        let bad: [&[u8]; 14] = [
            b"GET / HTTP/1.0\r\n",
            b"PROXX",
            b"PROXY FOO\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 70000\r\n",
            b"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
            b"PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
            b"PROXY TCP4 ::1 ::2 1 2\r\n",
            b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
            b"PROXY \xff\r\n",
            b"PROXY \r\n",
        ];
        for line in bad {
            assert_eq!(read(line), Err(ProxyError::Broken), "{}", line.escape_ascii());
        }
        assert_eq!(read(&[&b"PROXY UNKNOWN "[..], &[b'a'; 100]].concat()), Err(ProxyError::TooLong));
        // What can't be a header is broken however long it is, and however it comes.
        assert_eq!(read(&[b'P'; 5000]), Err(ProxyError::Broken));
        assert_eq!(read(&[&b"PROXY "[..], &[b'a'; 5000]].concat()), Err(ProxyError::TooLong));
        assert_eq!(read(b"PROXY TCP4"), Ok(None));
    }

    #[test]
    fn version_2_gives_addresses_of_tcp_over_ip_and_accepts_the_rest() {
        let header = read(&v2(0x21, 0x11, &ENDS)).unwrap().unwrap();
        assert_eq!(header.addresses, ends_of(("1.2.3.4:1", "5.6.7.8:2")));
        let mut six = [0u8; 36];
        (six[15], six[31], six[33], six[35]) = (1, 2, 3, 4);
        let header = read(&v2(0x21, 0x21, &six)).unwrap().unwrap();
        assert_eq!(header.addresses, ends_of(("[::1]:3", "[::2]:4")));
        for (command, family) in [(0x20, 0x11), (0x20, 0), (0x21, 0x12), (0x21, 0x31), (0x22, 0x11)] {
            assert_eq!(read(&v2(command, family, &ENDS)).unwrap().unwrap().addresses, None);
        }
        assert_eq!(read(&v2(0x11, 0x11, &ENDS)), Err(ProxyError::UnknownVersion(1)));
        assert_eq!(read(&v2(0x21, 0x11, &ENDS[..4])), Err(ProxyError::Broken));
        assert_eq!(read(&v2(0x21, 0x21, &ENDS)), Err(ProxyError::Broken));
        assert_eq!(read(&v2(0x21, 0x11, &[0; 5000])), Err(ProxyError::TooLong));
        assert_eq!(read(&v2(0x21, 0x11, &ENDS)[..20]), Ok(None));
    }

    #[test]
    fn values_are_found_by_name_and_number() {
        let mut payload = ENDS.to_vec();
        payload.extend_from_slice(
            b"\x01\0\x02h2\x02\0\x01a\x20\0\x0f\x07\0\0\0\x12\x21\0\x03TLS\x22\0\x01c\xee\0\0\x30\xff",
        );
        let header = read(&v2(0x21, 0x11, &payload)).unwrap().unwrap();
        assert_eq!(header.tlv("alpn"), Some(&b"h2"[..]));
        assert_eq!(header.tlv("0x02"), Some(&b"a"[..]));
        assert_eq!(header.tlv("ssl_version"), Some(&b"TLS"[..]));
        assert_eq!(header.tlv("ssl_0x22"), Some(&b"c"[..]));
        assert_eq!(header.ssl_verify(), Some(0x12));
        assert_eq!(header.tlv("0xee"), Some(&b""[..]));
        for name in ["netns", "unique_id", "ssl_cipher", "foo", "0x", "0x+1", "0x123", ""] {
            assert_eq!(header.tlv(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same(bytes: Vec<u8>, kind in 0..3, step in 1usize..40) {
            let bytes = match kind {
                0 => bytes,
                1 => [b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", &bytes[..]].concat(),
                _ => v2(0x21, 0x11, &[&ENDS[..], &bytes].concat()),
            };
            fuzz_proxy_protocol(&bytes, step);
        }
    }
}
