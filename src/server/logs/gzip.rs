//! One gathered buffer as one gzip member (RFC 1952): members one behind the other are a valid file.

use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Status};

/// zlib's code for a 32 KiB window in a gzip frame.
const GZIP_WINDOW_BITS: i32 = 31;

/// Appends `input` to `output` as a gzip member at `level` 1 to 9.
pub fn append_member(level: u8, input: &[u8], output: &mut Vec<u8>) {
    let config =
        DeflateConfig { level: i32::from(level), window_bits: GZIP_WINDOW_BITS, ..DeflateConfig::default() };
    let mut deflate = Deflate::new_with_config(config);
    let mut piece = [0; 16 * 1024];
    loop {
        let consumed = deflate.total_in() as usize;
        let produced = deflate.total_out();
        let status = deflate.compress(&input[consumed..], &mut piece, DeflateFlush::Finish);
        output.extend_from_slice(&piece[..(deflate.total_out() - produced) as usize]);
        match status {
            Ok(Status::StreamEnd) => return,
            Ok(_) => {}
            // Neither misuse nor a lack of room can happen here: the stream is fresh, and each call has all of `piece`.
            Err(error) => {
                debug_assert!(false, "deflate: {error:?}");
                return;
            }
        }
    }
}

#[cfg(test)]
pub(super) fn decode(mut input: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    while !input.is_empty() {
        let mut inflate = zlib_rs::Inflate::new(true, 31);
        let mut piece = [0; 4096];
        loop {
            let (consumed, produced) = (inflate.total_in() as usize, inflate.total_out());
            let status =
                inflate.decompress(&input[consumed..], &mut piece, zlib_rs::InflateFlush::NoFlush).unwrap();
            decoded.extend_from_slice(&piece[..(inflate.total_out() - produced) as usize]);
            if status == Status::StreamEnd {
                break;
            }
        }
        input = &input[inflate.total_in() as usize..];
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_behind_each_other_decode_to_what_was_gathered() {
        let long: Vec<u8> =
            (0..300_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let mut file = Vec::new();
        append_member(1, b"first line\n", &mut file);
        append_member(9, &long, &mut file);
        assert_eq!(&file[..3], [0x1f, 0x8b, 8]);
        assert_eq!(decode(&file), [&b"first line\n"[..], &long].concat());
    }
}
