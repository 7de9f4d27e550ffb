//! What variables and checks need of a certificate (RFC 5280), read on demand from its DER.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use crate::base::ascii::{HEX_LOWER, HEX_UPPER};
use crate::base::clock::Civil;

use super::der::{BadDer, Element, Reader, append_oid, tag};

/// The parts of a certificate that are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Certificate<'a> {
    der: &'a [u8],
    serial: &'a [u8],
    issuer: &'a [u8],
    subject: &'a [u8],
    not_before: i64,
    not_after: i64,
    extensions: &'a [u8],
}

impl<'a> Certificate<'a> {
    /// Reads a certificate; signatures and constraints are not looked at.
    pub fn parse(der: &'a [u8]) -> Result<Certificate<'a>, BadDer> {
        let mut body = Reader::new(der).sequence()?.sequence()?;
        body.optional(0xa0)?;
        let serial = body.expect(tag::INTEGER)?.content;
        body.expect(tag::SEQUENCE)?;
        let issuer = body.expect(tag::SEQUENCE)?.content;
        let mut validity = body.sequence()?;
        let (not_before, not_after) = (time(validity.any()?)?, time(validity.any()?)?);
        let subject = body.expect(tag::SEQUENCE)?.content;
        body.expect(tag::SEQUENCE)?;
        body.optional(0x81)?;
        body.optional(0x82)?;
        let extensions = match body.optional(0xa3)? {
            Some(wrapped) => wrapped.inside().expect(tag::SEQUENCE)?.content,
            None => &[],
        };
        Ok(Certificate { der, serial, issuer, subject, not_before, not_after, extensions })
    }

    /// The first moment of its validity, in seconds since 1970.
    pub fn not_before(&self) -> i64 {
        self.not_before
    }

    /// The last moment of its validity, in seconds since 1970.
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// Whole days left; 0 once it has expired.
    pub fn days_left(&self, now: i64) -> i64 {
        (self.not_after - now).max(0) / 86_400
    }

    /// Whether subject and issuer are the same, as in certificates that sign themselves.
    pub fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    /// The subject's name, without the SEQUENCE around it.
    pub fn subject_der(&self) -> &'a [u8] {
        self.subject
    }

    /// Appends the serial number in hexadecimal digits of upper case, two for each byte.
    pub fn append_serial(&self, out: &mut Vec<u8>) {
        let bytes = match self.serial {
            [0, rest @ ..] if !rest.is_empty() => rest,
            bytes => bytes,
        };
        append_hex_bytes(bytes, HEX_UPPER, out);
    }

    /// Appends the SHA-1 fingerprint in lower case.
    pub fn append_fingerprint(&self, out: &mut Vec<u8>) {
        append_hex_bytes(digest(&SHA1_FOR_LEGACY_USE_ONLY, self.der).as_ref(), HEX_LOWER, out);
    }

    /// Appends the subject's name as RFC 2253 writes it.
    pub fn append_subject(&self, out: &mut Vec<u8>) {
        append_name(self.subject, out);
    }

    /// Appends the issuer's name as RFC 2253 writes it.
    pub fn append_issuer(&self, out: &mut Vec<u8>) {
        append_name(self.issuer, out);
    }

    /// Appends the subject's name as nginx wrote it before 1.11.6: `/C=DE/CN=x`.
    pub fn append_legacy_subject(&self, out: &mut Vec<u8>) {
        append_legacy_name(self.subject, out);
    }

    /// Appends the issuer's name as nginx wrote it before 1.11.6.
    pub fn append_legacy_issuer(&self, out: &mut Vec<u8>) {
        append_legacy_name(self.issuer, out);
    }

    /// The subject's last common name, and whether alternative names of hosts or addresses make it irrelevant
    /// (RFC 6125, 6.4.4).
    pub fn fallback_name(&self) -> Option<Vec<u8>> {
        if self.has_alternative_names() {
            return None;
        }
        let last = attributes(self.subject).filter(|attribute| attribute.oid == COMMON_NAME).last()?;
        text_of(last.value)
    }

    fn has_alternative_names(&self) -> bool {
        const SUBJECT_ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];
        let mut reader = Reader::new(self.extensions);
        while let Ok(extension) = reader.sequence() {
            let mut extension = extension;
            if extension.any().is_ok_and(|oid| oid.content == SUBJECT_ALTERNATIVE_NAME) {
                return true;
            }
        }
        false
    }
}

/// Appends a time as OpenSSL prints it: `Nov  1 07:04:46 2026 GMT`.
pub fn append_time(seconds: i64, out: &mut Vec<u8>) {
    let civil = Civil::from_secs(seconds);
    out.extend_from_slice(civil.month_name());
    let (day, hour, minute, second) = (civil.day, civil.hour, civil.minute, civil.second);
    let rest = format!(" {day:2} {hour:02}:{minute:02}:{second:02} {} GMT", civil.year);
    out.extend_from_slice(rest.as_bytes());
}

fn append_hex_bytes(bytes: &[u8], digits: &[u8; 16], out: &mut Vec<u8>) {
    for byte in bytes {
        out.extend_from_slice(&[digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]);
    }
}

/// UTCTime or GeneralizedTime in the one form that certificates may have (RFC 5280, 4.1.2.5).
fn time(element: Element) -> Result<i64, BadDer> {
    let digits = element.content.strip_suffix(b"Z").ok_or(BadDer)?;
    let pair = |at: usize| match digits.get(at..at + 2) {
        Some([tens @ b'0'..=b'9', ones @ b'0'..=b'9']) => Ok(u32::from((tens - b'0') * 10 + (ones - b'0'))),
        _ => Err(BadDer),
    };
    let (year, rest) = match (element.tag, digits.len()) {
        (tag::UTC_TIME, 12) => (pair(0)? + if pair(0)? < 50 { 2000 } else { 1900 }, 2),
        (tag::GENERALIZED_TIME, 14) => (pair(0)? * 100 + pair(2)?, 4),
        _ => return Err(BadDer),
    };
    let (month, day) = (pair(rest)?, pair(rest + 2)?);
    let (hour, minute, second) = (pair(rest + 4)?, pair(rest + 6)?, pair(rest + 8)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return Err(BadDer);
    }
    Ok(Civil { year, month, day, hour, minute, second, weekday: 0 }.to_secs())
}

/// One attribute of a name.
#[derive(Clone, Copy)]
struct Attribute<'a> {
    oid: &'a [u8],
    value: Element<'a>,
    /// Number of the set that it belongs to.
    set: usize,
}

/// The attributes of a name in order; what is malformed ends it.
fn attributes(name: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    let mut sets = Reader::new(name);
    let mut set = Reader::new(&[]);
    let mut number = 0;
    std::iter::from_fn(move || {
        if set.is_empty() {
            set = sets.expect(tag::SET).ok()?.inside();
            number += 1;
        }
        let mut attribute = set.sequence().ok()?;
        let oid = attribute.expect(tag::OID).ok()?.content;
        Some(Attribute { oid, value: attribute.any().ok()?, set: number })
    })
}

const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// OpenSSL's short names of the attributes of `id-at` (2.5.4), by their last number.
static DIRECTORY_NAMES: &[(u8, &str)] = &[
    (3, "CN"),
    (4, "SN"),
    (5, "serialNumber"),
    (6, "C"),
    (7, "L"),
    (8, "ST"),
    (9, "street"),
    (10, "O"),
    (11, "OU"),
    (12, "title"),
    (13, "description"),
    (15, "businessCategory"),
    (16, "postalAddress"),
    (17, "postalCode"),
    (18, "postOfficeBox"),
    (20, "telephoneNumber"),
    (41, "name"),
    (42, "GN"),
    (43, "initials"),
    (44, "generationQualifier"),
    (45, "x500UniqueIdentifier"),
    (46, "dnQualifier"),
    (65, "pseudonym"),
    (97, "organizationIdentifier"),
];

/// OpenSSL's short names of attributes elsewhere.
static OTHER_NAMES: &[(&[u8], &str)] = &[
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01], "emailAddress"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x02], "unstructuredName"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x01], "UID"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x03], "mail"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19], "DC"),
    (&[0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x3c, 0x02, 0x01, 0x01], "jurisdictionL"),
    (&[0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x3c, 0x02, 0x01, 0x02], "jurisdictionST"),
    (&[0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x3c, 0x02, 0x01, 0x03], "jurisdictionC"),
];

fn short_name(oid: &[u8]) -> Option<&'static str> {
    if let [0x55, 0x04, number] = oid {
        return DIRECTORY_NAMES.iter().find(|(other, _)| other == number).map(|(_, name)| *name);
    }
    OTHER_NAMES.iter().find(|(other, _)| *other == oid).map(|(_, name)| *name)
}

/// As OpenSSL's `XN_FLAG_RFC2253`: the last attribute first, what is no text or has no name as a dump of its DER.
fn append_name(name: &[u8], out: &mut Vec<u8>) {
    let all: Vec<Attribute> = attributes(name).collect();
    for (at, attribute) in all.iter().enumerate().rev() {
        if let Some(after) = all.get(at + 1) {
            out.push(if after.set == attribute.set { b'+' } else { b',' });
        }
        let known = short_name(attribute.oid);
        match known {
            Some(short) => out.extend_from_slice(short.as_bytes()),
            None => append_oid(attribute.oid, out),
        }
        out.push(b'=');
        match text_of(attribute.value).filter(|_| known.is_some()) {
            Some(text) => append_escaped(&text, out),
            None => {
                out.push(b'#');
                append_hex_bytes(attribute.value.whole, HEX_UPPER, out);
            }
        }
    }
}

/// The text of a string type in UTF-8; `None` for other types.
fn text_of(value: Element) -> Option<Vec<u8>> {
    let content = value.content;
    let utf8 = |chars: Vec<Option<char>>| {
        let text: Option<String> = chars.into_iter().collect();
        text.map(String::into_bytes)
    };
    match value.tag {
        tag::UTF8_STRING | tag::PRINTABLE_STRING | tag::IA5_STRING => Some(content.to_vec()),
        tag::TELETEX_STRING => utf8(content.iter().map(|byte| Some(char::from(*byte))).collect()),
        tag::BMP_STRING => {
            let pairs = content.chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
            utf8(pairs.map(char::from_u32).collect())
        }
        tag::UNIVERSAL_STRING => {
            let words = content
                .chunks_exact(4)
                .map(|word| word.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)));
            utf8(words.map(char::from_u32).collect())
        }
        _ => None,
    }
}

fn append_escaped(text: &[u8], out: &mut Vec<u8>) {
    for (at, &byte) in text.iter().enumerate() {
        let at_an_end = at == 0 || at + 1 == text.len();
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => out.extend_from_slice(&[b'\\', byte]),
            b' ' if at_an_end => out.extend_from_slice(b"\\ "),
            b'#' if at == 0 => out.extend_from_slice(b"\\#"),
            0x20..=0x7e => out.push(byte),
            _ => {
                out.push(b'\\');
                append_hex_bytes(&[byte], HEX_UPPER, out);
            }
        }
    }
}

/// As OpenSSL's `X509_NAME_oneline`.
fn append_legacy_name(name: &[u8], out: &mut Vec<u8>) {
    let mut set = 0;
    for attribute in attributes(name) {
        out.push(if attribute.set == set { b'+' } else { b'/' });
        set = attribute.set;
        match short_name(attribute.oid) {
            Some(short) => out.extend_from_slice(short.as_bytes()),
            None => append_oid(attribute.oid, out),
        }
        out.push(b'=');
        for &byte in attribute.value.content {
            match byte {
                b' '..=b'~' => out.push(byte),
                _ => {
                    out.extend_from_slice(b"\\x");
                    append_hex_bytes(&[byte], HEX_UPPER, out);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::tls::pem;

    fn client() -> Vec<u8> {
        pem::of_label(include_bytes!("fixtures/client.pem"), "CERTIFICATE").unwrap().remove(0)
    }

    fn text(append: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        append(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn names_read_as_openssl_writes_them() {
        let der = client();
        let certificate = Certificate::parse(&der).unwrap();
        assert_eq!(
            text(|out| certificate.append_subject(out)),
            r#"emailAddress=j@example.com,CN=J\C3\BCrgen \"J\" \<x\>,OU=B+OU=A,O=Tests\, Inc.,ST=Some State,C=DE"#
        );
        assert_eq!(text(|out| certificate.append_issuer(out)), "CN=Test CA,O=Tests");
        assert_eq!(
            text(|out| certificate.append_legacy_subject(out)),
            r#"/C=DE/ST=Some State/O=Tests, Inc./OU=A+OU=B/CN=J\xC3\xBCrgen "J" <x>/emailAddress=j@example.com"#
        );
    }

    #[test]
    fn serial_and_fingerprint_are_hexadecimal() {
        let der = client();
        let certificate = Certificate::parse(&der).unwrap();
        assert_eq!(text(|out| certificate.append_serial(out)), "A1B2C3D4E5F60718");
        let fingerprint = text(|out| certificate.append_fingerprint(out));
        assert_eq!(fingerprint.len(), 40);
        assert_eq!(fingerprint, fingerprint.to_lowercase());
    }

    #[test]
    fn both_forms_of_time_are_read() {
        let expired = pem::of_label(include_bytes!("fixtures/client-expired.pem"), "CERTIFICATE").unwrap();
        let certificate = Certificate::parse(&expired[0]).unwrap();
        assert_eq!(certificate.not_before(), 1_577_836_800);
        assert_eq!(text(|out| append_time(certificate.not_after(), out)), "Jan  1 00:00:00 2021 GMT");
        assert_eq!(certificate.days_left(1_577_836_800), 366);
        assert_eq!(certificate.days_left(1_900_000_000), 0);
        let der = client();
        let year = text(|out| append_time(Certificate::parse(&der).unwrap().not_after(), out));
        assert!(year.ends_with(" 2126 GMT"), "{year}");
        let wrong = Element { tag: tag::UTC_TIME, content: b"20133200000Z", whole: b"" };
        assert_eq!(time(wrong), Err(BadDer));
    }

    #[test]
    fn the_common_name_counts_only_without_alternative_names() {
        let own = pem::of_label(include_bytes!("fixtures/self.pem"), "CERTIFICATE").unwrap();
        assert_eq!(Certificate::parse(&own[0]).unwrap().fallback_name(), Some(b"self.test".to_vec()));
        let server = pem::of_label(include_bytes!("fixtures/server-ec.pem"), "CERTIFICATE").unwrap();
        assert_eq!(Certificate::parse(&server[0]).unwrap().fallback_name(), None);
    }

    #[test]
    fn odd_strings_are_escaped_or_dumped() {
        let escaped = text(|out| append_escaped(b" #a; b ", out));
        assert_eq!(escaped, r"\ #a\; b\ ");
        let name = [0x31, 0x0a, 0x30, 0x08, 0x06, 0x03, 0x2a, 0x03, 0x04, 0x0c, 0x01, b'x'];
        assert_eq!(text(|out| append_name(&name, out)), "1.2.3.4=#0C0178");
    }

    #[test]
    fn a_certificate_cut_anywhere_is_refused_and_never_panics() {
        let der = client();
        for end in 0..der.len() {
            assert!(Certificate::parse(&der[..end]).is_err());
        }
        for at in 0..der.len().min(400) {
            let mut broken = der.clone();
            broken[at] ^= 0x55;
            if let Ok(certificate) = Certificate::parse(&broken) {
                let mut out = Vec::new();
                certificate.append_subject(&mut out);
                certificate.append_legacy_issuer(&mut out);
                certificate.append_serial(&mut out);
                certificate.fallback_name();
            }
        }
    }
}
