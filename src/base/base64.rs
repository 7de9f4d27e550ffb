//! Base64 as nginx decodes and encodes it (credentials of Basic authentication, secure links, cookies).

/// Appends what `text` decodes to. As in nginx, decoding stops at the first `=` and bits left over at the end are
/// dropped. `false` if another byte is none of the alphabet or a lone character is left; then nothing is appended.
pub fn decode(out: &mut Vec<u8>, text: &[u8]) -> bool {
    decode_by(out, text, sextet)
}

/// The same of the alphabet that is safe in URLs (`-` and `_`).
pub fn decode_url(out: &mut Vec<u8>, text: &[u8]) -> bool {
    decode_by(out, text, |byte| match byte {
        b'-' => Some(62),
        b'_' => Some(63),
        b'+' | b'/' => None,
        byte => sextet(byte),
    })
}

/// Appends `bytes` encoded, padded with `=`.
pub fn encode(out: &mut Vec<u8>, bytes: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for group in bytes.chunks(3) {
        let mut word = [0; 4];
        word[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(word);
        for index in 0..4 {
            out.push(match index <= group.len() {
                true => ALPHABET[(bits >> (18 - 6 * index) & 63) as usize],
                false => b'=',
            });
        }
    }
}

fn decode_by(out: &mut Vec<u8>, text: &[u8], sextet: impl Fn(u8) -> Option<u32>) -> bool {
    let text = text.split(|&byte| byte == b'=').next().unwrap_or(text);
    if text.len() % 4 == 1 {
        return false;
    }
    let start = out.len();
    for group in text.chunks(4) {
        let mut bits = 0u32;
        for &byte in group {
            let Some(value) = sextet(byte) else {
                out.truncate(start);
                return false;
            };
            bits = bits << 6 | value;
        }
        bits <<= 6 * (4 - group.len());
        out.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    true
}

const fn sextet(byte: u8) -> Option<u32> {
    let value = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(value as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &str) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        decode(&mut out, text.as_bytes()).then_some(out)
    }

    #[test]
    fn the_vectors_of_rfc_4648_decode_with_and_without_padding() {
        for (text, plain) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg", "foob"),
            ("Zm9vYmE", "fooba"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(decoded(text).as_deref(), Some(plain.as_bytes()), "{text}");
        }
        assert_eq!(decoded("+/+/"), Some(vec![0xfb, 0xff, 0xbf]));
    }

    #[test]
    fn what_is_encoded_decodes_to_itself() {
        for plain in ["", "f", "fo", "foo", "foob", "fooba", "foobar"] {
            let mut text = Vec::new();
            encode(&mut text, plain.as_bytes());
            assert_eq!(text.len() % 4, 0);
            assert_eq!(decoded(std::str::from_utf8(&text).unwrap()).as_deref(), Some(plain.as_bytes()));
        }
        let mut text = Vec::new();
        encode(&mut text, &[0xfb, 0xff, 0xbf]);
        assert_eq!(text, b"+/+/");
    }

    #[test]
    fn the_alphabet_of_urls_has_other_last_letters() {
        let mut out = Vec::new();
        assert!(decode_url(&mut out, b"-_-_"));
        assert_eq!(out, [0xfb, 0xff, 0xbf]);
        assert!(!decode_url(&mut out, b"+/+/"));
    }

    #[test]
    fn what_follows_padding_is_not_looked_at() {
        assert_eq!(decoded("YTpi=zz"), Some(b"a:b".to_vec()));
    }

    #[test]
    fn other_bytes_and_lone_characters_are_refused() {
        for text in ["A", "Zm9vA", "Zm 9v", "Zm9-", "\u{e9}abc"] {
            assert_eq!(decoded(text), None, "{text}");
        }
    }
}
