//! PEM files (RFC 7468), read whole: sections with their headers, so that encrypted keys can be told apart.

use crate::base::base64;

/// One section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// `CERTIFICATE`, `PRIVATE KEY`, ...
    pub label: String,
    /// `Proc-Type`, `DEK-Info`: the header lines of RFC 1421, as they stand.
    pub headers: Vec<(String, String)>,
    /// The bytes.
    pub der: Vec<u8>,
}

impl Section {
    /// The value of a header line.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| &**value)
    }
}

/// All sections of a file in order. What stands between them is text that nobody reads. The error says what is wrong.
pub fn sections(text: &[u8]) -> Result<Vec<Section>, String> {
    let mut found = Vec::new();
    let mut lines = text.split(|byte| *byte == b'\n').map(|line| line.trim_ascii());
    while let Some(line) = lines.next() {
        let Some(label) = line.strip_prefix(b"-----BEGIN ").and_then(|rest| rest.strip_suffix(b"-----"))
        else {
            continue;
        };
        let label = String::from_utf8_lossy(label).into_owned();
        found.push(section(label, &mut lines)?);
    }
    Ok(found)
}

fn section<'a>(label: String, lines: &mut impl Iterator<Item = &'a [u8]>) -> Result<Section, String> {
    let end = format!("-----END {label}-----");
    let mut headers = Vec::new();
    let mut encoded = Vec::new();
    for line in lines {
        if line == end.as_bytes() {
            let mut der = Vec::with_capacity(encoded.len() / 4 * 3);
            if !base64::decode(&mut der, &encoded) {
                return Err(format!("bad base64 in the PEM section \"{label}\""));
            }
            return Ok(Section { label, headers, der });
        }
        if line.starts_with(b"-----") {
            break;
        }
        match memchr::memchr(b':', line) {
            Some(colon) if encoded.is_empty() => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes.trim_ascii()).into_owned();
                headers.push((text(&line[..colon]), text(&line[colon + 1..])));
            }
            _ => encoded.extend_from_slice(line),
        }
    }
    Err(format!("the PEM section \"{label}\" has no end"))
}

/// The sections with this label.
pub fn of_label(text: &[u8], label: &str) -> Result<Vec<Vec<u8>>, String> {
    let all = sections(text)?.into_iter();
    Ok(all.filter(|section| section.label == label).map(|section| section.der).collect())
}

/// Appends a section as OpenSSL writes it: lines of 64 characters, each with a line feed.
pub fn append(label: &str, der: &[u8], out: &mut Vec<u8>) {
    let mut encoded = Vec::with_capacity(der.len() * 4 / 3 + 4);
    base64::encode(&mut encoded, der);
    out.extend_from_slice(format!("-----BEGIN {label}-----\n").as_bytes());
    for line in encoded.chunks(64) {
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.extend_from_slice(format!("-----END {label}-----\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_found_between_other_text() {
        let text = b"subject=x\r\n-----BEGIN A-----\r\nYWJj\r\n-----END A-----\r\nnote\n-----BEGIN B-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: X,00\n\nYWJj\nZGVm\n-----END B-----\n";
        let found = sections(text).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((&*found[0].label, &*found[0].der), ("A", &b"abc"[..]));
        assert_eq!(found[1].der, b"abcdef");
        assert_eq!(found[1].header("DEK-Info"), Some("X,00"));
    }

    #[test]
    fn broken_sections_are_told() {
        assert!(sections(b"-----BEGIN A-----\nYWJj\n").unwrap_err().contains("no end"));
        assert!(sections(b"-----BEGIN A-----\n*\n-----END A-----").unwrap_err().contains("base64"));
        assert_eq!(sections(b"nothing"), Ok(vec![]));
    }

    #[test]
    fn what_was_written_is_read_again() {
        let der: Vec<u8> = (0..=255).collect();
        let mut out = Vec::new();
        append("X", &der, &mut out);
        assert!(out.split(|byte| *byte == b'\n').all(|line| line.len() <= 64));
        assert_eq!(of_label(&out, "X").unwrap(), [der]);
    }
}
