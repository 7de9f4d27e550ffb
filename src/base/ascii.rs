//! Byte-string utilities for protocol text: case, tokens, white space, hexadecimal and decimal numbers.

/// True if `text` starts with `prefix`, apart from the case of ASCII letters.
pub fn starts_with_ignore_case(text: &[u8], prefix: &[u8]) -> bool {
    text.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
}

/// Where `needle` first stands in `text`, apart from the case of ASCII letters. Meant for short needles; the cost is
/// the product of both lengths at worst. An empty needle stands at 0.
pub fn find_ignore_case(text: &[u8], needle: &[u8]) -> Option<usize> {
    if needle.is_empty() {
        return Some(0);
    }
    text.windows(needle.len()).position(|window| window.eq_ignore_ascii_case(needle))
}

/// Appends `text` with its ASCII letters in lower case.
pub fn append_lower(out: &mut Vec<u8>, text: &[u8]) {
    let start = out.len();
    out.extend_from_slice(text);
    out[start..].make_ascii_lowercase();
}

/// True for a character of a token (`tchar`, RFC 9110, 5.6.2).
pub const fn is_token_byte(byte: u8) -> bool {
    TOKEN[byte as usize]
}

/// True if `text` is a token: not empty and all `tchar` (RFC 9110, 5.6.2).
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| is_token_byte(byte))
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let marks = b"!#$%&'*+-.^_`|~";
    let mut i = 0;
    while i < 256 {
        table[i] = (i as u8).is_ascii_alphanumeric();
        i += 1;
    }
    i = 0;
    while i < marks.len() {
        table[marks[i] as usize] = true;
        i += 1;
    }
    table
};

/// True for optional white space: space or horizontal tab (OWS, RFC 9110, 5.6.3).
pub const fn is_ows(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// `text` without optional white space at both ends.
pub fn trim_ows(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text
        && is_ows(*first)
    {
        text = rest;
    }
    while let [rest @ .., last] = text
        && is_ows(*last)
    {
        text = rest;
    }
    text
}

/// The elements of a comma-separated list, trimmed, empty ones left out (RFC 9110, 5.6.1.2). Commas within quoted
/// strings separate too: use it for lists of tokens only.
pub fn list_elements(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b',').map(trim_ows).filter(|element| !element.is_empty())
}

/// The value of one hexadecimal digit of either case.
pub const fn hex_value(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Digits of upper-case hexadecimal numbers.
pub const HEX_UPPER: &[u8; 16] = b"0123456789ABCDEF";
/// Digits of lower-case hexadecimal numbers.
pub const HEX_LOWER: &[u8; 16] = b"0123456789abcdef";

/// The number that `text` spells in decimal digits alone. `None` if it is empty, has another byte (signs and white
/// space too), or is past `u64::MAX`. Leading zeros are digits like others.
pub fn parse_u64(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let mut number = 0u64;
    for &byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(number)
}

/// The number that `text` spells in hexadecimal digits alone, bounded like [`parse_u64`].
pub fn parse_hex_u64(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let mut number = 0u64;
    for &byte in text {
        if number >> 60 != 0 {
            return None;
        }
        number = number << 4 | u64::from(hex_value(byte)?);
    }
    Some(number)
}

/// Appends `number` in decimal.
pub fn append_decimal(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends eight hexadecimal digits in upper case.
pub fn append_hex_upper_u32(out: &mut Vec<u8>, number: u32) {
    out.extend((0..8).rev().map(|digit| HEX_UPPER[(number >> (4 * digit) & 15) as usize]));
}

/// Appends `milliseconds` as seconds with three decimals (`0.005`), as nginx writes `$request_time`.
pub fn append_seconds(out: &mut Vec<u8>, milliseconds: u64) {
    append_decimal(out, milliseconds / 1000);
    let part = (milliseconds % 1000) as u32;
    out.push(b'.');
    out.extend([part / 100, part / 10 % 10, part % 10].map(|digit| b'0' + digit as u8));
}

/// Writes `number`'s two last decimal digits into the first two bytes of `out`.
pub(crate) fn write_two(out: &mut [u8], number: u32) {
    out[0] = b'0' + (number / 10 % 10) as u8;
    out[1] = b'0' + (number % 10) as u8;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn case_is_ignored_for_letters_only() {
        assert!(!starts_with_ignore_case(b"[", b"{"));
        assert!(starts_with_ignore_case(b"HTTP/1.1", b"http/"));
        assert!(!starts_with_ignore_case(b"HT", b"http/"));
        assert_eq!(find_ignore_case(b"a MSIE b", b"msie"), Some(2));
        assert_eq!(find_ignore_case(b"ms", b"msie"), None);
        let mut out = b"A".to_vec();
        append_lower(&mut out, b"BcD\xC4");
        assert_eq!(out, b"Abcd\xC4");
    }

    #[test]
    fn tokens_have_no_separators() {
        assert!(is_token(b"x-Y_1!#$%&'*+.^`|~"));
        for byte in b" \t\"(),/:;<=>?@[\\]{}\x7f\x80\0" {
            assert!(!is_token(&[b'a', *byte]), "{byte}");
        }
        assert!(!is_token(b""));
    }

    #[test]
    fn optional_white_space_is_space_and_tab() {
        assert_eq!(trim_ows(b" \t a b\t "), b"a b");
        assert_eq!(trim_ows(b"\r a\n"), b"\r a\n");
        assert_eq!(trim_ows(b" \t"), b"");
        assert_eq!(list_elements(b" a ,, b c,\t").collect::<Vec<_>>(), [&b"a"[..], b"b c"]);
    }

    #[test]
    fn numbers_past_their_bound_are_refused() {
        assert_eq!(parse_u64(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_u64(b"18446744073709551616"), None);
        assert_eq!(parse_u64(b"000"), Some(0));
        for bad in [&b""[..], b"+1", b"-1", b" 1", b"1 ", b"1a", b":"] {
            assert_eq!(parse_u64(bad), None);
        }
        assert_eq!(parse_hex_u64(b"fFfFfFfFfFfFfFfF"), Some(u64::MAX));
        assert_eq!(parse_hex_u64(b"10000000000000000"), None);
        assert_eq!(parse_hex_u64(b""), None);
        assert_eq!(parse_hex_u64(b"0x1"), None);
    }

    #[test]
    fn seconds_have_three_decimals() {
        let text = |milliseconds| {
            let mut out = Vec::new();
            append_seconds(&mut out, milliseconds);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(0), "0.000");
        assert_eq!(text(5), "0.005");
        assert_eq!(text(61_034), "61.034");
    }

    proptest! {
        #[test]
        fn written_numbers_read_back(number: u64) {
            let mut out = Vec::new();
            append_decimal(&mut out, number);
            prop_assert_eq!(parse_u64(&out), Some(number));
            prop_assert_eq!(parse_hex_u64(format!("{number:x}").as_bytes()), Some(number));
        }
    }
}
