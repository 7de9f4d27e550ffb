//! Names of hosts and services.

use std::fmt;

/// Longest name as text, without a dot at its end: 255 bytes on the wire (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 253;
/// Longest label (the same section).
const MAX_LABEL: usize = 63;

/// A name that can be asked for: lower case, no dot at its end, labels of letters, digits, `-` and `_`.
///
/// Names with other bytes exist in the DNS, but no host has one (RFC 1123 section 2.1), and names come from clients as
/// well (`proxy_pass http://$host`). For the same reason the last label must not be a number: `127.1` and `0x7f000001`
/// are addresses to the C library, and a rule that compared the text would have been evaded.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DnsName(Box<str>);

/// A name that can't exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameSyntax;

impl DnsName {
    /// Reads a name; one dot at its end is dropped.
    ///
    /// # Errors
    /// An empty or too long name or label, a byte that no host's name has, a number at its end.
    pub fn parse(text: &[u8]) -> Result<DnsName, NameSyntax> {
        let text = text.strip_suffix(b".").unwrap_or(text);
        if text.is_empty() || text.len() > MAX_NAME {
            return Err(NameSyntax);
        }
        let fits = |label: &[u8]| {
            let of_a_name = |&byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            (1..=MAX_LABEL).contains(&label.len()) && label.iter().all(of_a_name)
        };
        if !text.split(|&byte| byte == b'.').all(fits) {
            return Err(NameSyntax);
        }
        let last = text.rsplit(|&byte| byte == b'.').next().unwrap_or_default();
        if is_number(last) {
            return Err(NameSyntax);
        }
        let lower: String = text.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect();
        Ok(DnsName(lower.into()))
    }

    /// The name of a service at a host, as nginx's `service=` makes it: `_SERVICE._tcp.HOST`, or `SERVICE.HOST` where
    /// the service has a dot.
    ///
    /// # Errors
    /// As [`DnsName::parse`].
    pub fn of_service(service: &str, host: &DnsName) -> Result<DnsName, NameSyntax> {
        let whole = match service.contains('.') {
            true => format!("{service}.{host}"),
            false => format!("_{service}._tcp.{host}"),
        };
        DnsName::parse(whole.as_bytes())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its labels, none empty, none longer than 63 bytes.
    pub(super) fn labels(&self) -> impl Iterator<Item = &[u8]> {
        self.0.as_bytes().split(|&byte| byte == b'.')
    }
}

/// What the C library takes for (the end of) an address.
fn is_number(label: &[u8]) -> bool {
    let hexadecimal = label.strip_prefix(b"0x").or_else(|| label.strip_prefix(b"0X"));
    label.iter().all(u8::is_ascii_digit)
        || hexadecimal.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
