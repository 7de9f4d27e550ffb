//! The Huffman code of RFC 7541 appendix B, both ways. It is canonical, so that the lengths of its codes are all there is
//! to know; every table is made of them at compile time.

/// Length of each byte's code in bits; the last is that of the end-of-string symbol, which never occurs in a string.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13,23,28,28,28,28,28,28,28,24,30,28,28,30,28,28,28,28,28,28,28,28,30,28,28,28,28,28,28,28,28,28,
    6,10,10,12,13,6,8,11,10,10,8,11,8,6,6,6,5,5,5,6,6,6,6,6,6,6,7,8,15,6,12,10,
    13,6,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,8,7,8,13,19,13,14,6,
    15,5,6,5,6,5,6,6,6,5,7,7,6,6,6,5,6,7,6,5,5,6,7,7,7,7,7,15,11,14,13,28,
    20,22,20,20,22,22,22,23,22,23,23,23,23,23,24,23,24,24,22,23,24,23,23,23,23,21,22,23,22,23,23,24,
    22,21,20,22,22,23,23,21,23,22,22,24,21,22,23,23,21,21,22,21,23,22,23,23,20,22,22,22,23,22,22,23,
    26,26,20,19,22,23,22,25,26,26,26,27,27,26,24,25,19,21,26,27,27,26,27,24,21,21,26,26,28,27,27,27,
    20,24,20,21,22,21,21,23,22,22,25,25,24,24,26,23,26,27,26,26,27,27,27,27,27,28,27,27,27,27,27,26,
    30,
];

const LONGEST: usize = 30;
/// Codes of up to so many bits are found by one look-up; that is every byte that is usual in a field.
const QUICK_BITS: u32 = 8;

/// Bytes in the order of their codes, the end-of-string symbol (256) last.
const SORTED: [u16; 257] = {
    let mut sorted = [0u16; 257];
    let mut count = 0;
    let mut length = 1;
    while length <= LONGEST {
        let mut symbol = 0;
        while symbol < 257 {
            if LENGTHS[symbol] as usize == length {
                sorted[count] = symbol as u16;
                count += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    sorted
};

/// Each byte's code, in its low bits.
const CODES: [u32; 257] = {
    let mut codes = [0u32; 257];
    let mut code = 0u32;
    let mut at = 0;
    while at < 257 {
        let symbol = SORTED[at] as usize;
        if at > 0 {
            let previous = SORTED[at - 1] as usize;
            code = (code + 1) << (LENGTHS[symbol] - LENGTHS[previous]);
        }
        codes[symbol] = code;
        at += 1;
    }
    codes
};

/// For each length, the place in `SORTED` of its first code, and what follows its last code, aligned to the left of 32
/// bits (as 64, since the longest codes reach the end).
const BY_LENGTH: [(u16, u64); LONGEST + 1] = {
    let mut table = [(0u16, 0u64); LONGEST + 1];
    let mut at = 0;
    let mut length = 1;
    while length <= LONGEST {
        let first = at;
        let mut limit = table[length - 1].1;
        while at < 257 && LENGTHS[SORTED[at] as usize] as usize == length {
            limit = (CODES[SORTED[at] as usize] as u64 + 1) << (32 - length);
            at += 1;
        }
        table[length] = (first as u16, limit);
        length += 1;
    }
    table
};

/// Byte and code length for every beginning of `QUICK_BITS` bits; length 0 where the code is longer.
const QUICK: [(u8, u8); 1 << QUICK_BITS] = {
    let mut table = [(0u8, 0u8); 1 << QUICK_BITS];
    let mut symbol = 0;
    while symbol < 256 {
        let length = LENGTHS[symbol] as u32;
        if length <= QUICK_BITS {
            let first = (CODES[symbol] << (QUICK_BITS - length)) as usize;
            let mut at = 0;
            while at < 1 << (QUICK_BITS - length) {
                table[first + at] = (symbol as u8, length as u8);
                at += 1;
            }
        }
        symbol += 1;
    }
    table
};

/// A string that is no Huffman code: it holds the end-of-string symbol, or its padding is longer than seven bits or not
/// of ones (RFC 7541 section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidCode;

/// Appends what `code` stands for. The shortest code has five bits, so at most 8/5 as many bytes come out as go in.
///
/// # Errors
/// [`InvalidCode`]; `out` then holds what came before.
pub fn decode(code: &[u8], out: &mut Vec<u8>) -> Result<(), InvalidCode> {
    out.reserve(code.len() + code.len() / 2);
    // Bits that are not decoded yet, aligned to the left.
    let mut bits = 0u64;
    let mut count = 0u32;
    let mut rest = code;
    loop {
        while count <= 56
            && let Some((&byte, behind)) = rest.split_first()
        {
            bits |= u64::from(byte) << (56 - count);
            count += 8;
            rest = behind;
        }
        let (byte, length) = QUICK[(bits >> (64 - QUICK_BITS)) as usize];
        if length != 0 && u32::from(length) <= count {
            out.push(byte);
            bits <<= length;
            count -= u32::from(length);
            continue;
        }
        // Past the end, ones stand in for what is missing: they are the beginning of no byte's code of that length.
        let padded = if count < 64 { bits | (u64::MAX >> count) } else { bits };
        if count < 8 && padded == u64::MAX {
            return Ok(());
        }
        let window = padded >> 32;
        let length = (5..=LONGEST).find(|&length| window < BY_LENGTH[length].1).ok_or(InvalidCode)?;
        if length as u32 > count {
            return Err(InvalidCode);
        }
        let (first, _) = BY_LENGTH[length];
        let offset = (window >> (32 - length)) as u32 - CODES[SORTED[first as usize] as usize];
        // Not a byte: the end-of-string symbol.
        let byte = u8::try_from(SORTED[first as usize + offset as usize]).map_err(|_| InvalidCode)?;
        out.push(byte);
        bits <<= length;
        count -= length as u32;
    }
}

/// Bytes that `text` takes when encoded.
pub fn encoded_length(text: &[u8]) -> usize {
    text.iter().map(|&byte| LENGTHS[byte as usize] as usize).sum::<usize>().div_ceil(8)
}

/// Appends the code of `text`, padded with ones.
pub fn encode(text: &[u8], out: &mut Vec<u8>) {
    let mut bits = 0u64;
    let mut count = 0u32;
    for &byte in text {
        let length = u32::from(LENGTHS[byte as usize]);
        bits = bits << length | u64::from(CODES[byte as usize]);
        count += length;
        if count >= 32 {
            count -= 32;
            out.extend_from_slice(&((bits >> count) as u32).to_be_bytes());
        }
    }
    while count >= 8 {
        count -= 8;
        out.push((bits >> count) as u8);
    }
    if count > 0 {
        out.push((bits << (8 - count)) as u8 | 0xff >> count);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(code: &[u8]) -> Result<Vec<u8>, InvalidCode> {
        let mut out = Vec::new();
        decode(code, &mut out).map(|()| out)
    }

    #[test]
    fn codes_are_those_of_the_rfc() {
        let code = |symbol: usize| (CODES[symbol], LENGTHS[symbol]);
        assert_eq!(code(usize::from(b'0')), (0x0, 5));
        assert_eq!(code(usize::from(b'a')), (0x3, 5));
        assert_eq!(code(usize::from(b' ')), (0x14, 6));
        assert_eq!(code(usize::from(b'Z')), (0xfd, 8));
        assert_eq!(code(usize::from(b'!')), (0x3f8, 10));
        assert_eq!(code(0), (0x1ff8, 13));
        assert_eq!(code(10), (0x3fff_fffc, 30));
        assert_eq!(code(255), (0x03ff_ffee, 26));
        assert_eq!(code(256), (0x3fff_ffff, 30));
    }

    /// RFC 7541 section 5.2.
    #[test]
    fn padding_is_short_and_of_ones_and_end_of_string_does_not_occur() {
        assert_eq!(decoded(b""), Ok(vec![]));
        assert_eq!(decoded(&[0x1f]), Ok(b"a".to_vec()));
        assert_eq!(decoded(&[0x18]), Err(InvalidCode), "zeros for padding");
        assert_eq!(decoded(&[0x1f, 0xff]), Err(InvalidCode), "eleven bits of padding");
        assert_eq!(decoded(&[0xff]), Err(InvalidCode), "eight bits of padding");
        assert_eq!(decoded(&[0xff; 4]), Err(InvalidCode), "end of string");
        assert_eq!(decoded(&[0x1f, 0xff, 0xff, 0xff, 0xff, 0x1f]), Err(InvalidCode));
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xf3]), Ok(vec![10]), "thirty bits, two of padding");
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xf0]), Err(InvalidCode));
        assert_eq!(decoded(&[0xfe]), Err(InvalidCode), "a code that is cut");
    }

    #[test]
    fn every_byte_survives_on_its_own_and_in_company() {
        for byte in 0..=255 {
            for text in [vec![byte], vec![byte; 9], vec![b'a', byte, b'0', byte, b'~', byte]] {
                let mut code = Vec::new();
                encode(&text, &mut code);
                assert_eq!(code.len(), encoded_length(&text));
                assert_eq!(decoded(&code), Ok(text));
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_decodes_to_itself(text: Vec<u8>) {
            let mut code = Vec::new();
            encode(&text, &mut code);
            prop_assert_eq!(code.len(), encoded_length(&text));
            prop_assert_eq!(decoded(&code), Ok(text));
        }

        /// The code is complete: what decodes encodes to the same bits.
        #[test]
        fn what_decodes_is_the_code_of_its_text(code: Vec<u8>) {
            if let Ok(text) = decoded(&code) {
                let mut again = Vec::new();
                encode(&text, &mut again);
                prop_assert_eq!(again, code);
            }
        }
    }
}
