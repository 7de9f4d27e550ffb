//! MD5-crypt (`$1$`) and Apache's form of it (`$apr1$`): Poul-Henning Kamp's way to make MD5 slow.

use md5::{Digest, Md5};

use super::LETTERS;

/// Longest salt in bytes.
const MAX_SALT: usize = 8;

/// The hash of `password` with the kind and salt of `like`; `None` if that is no such hash.
pub fn crypt(like: &[u8], password: &[u8]) -> Option<Vec<u8>> {
    let magic: &[u8] = if like.starts_with(b"$apr1$") { b"$apr1$" } else { b"$1$" };
    let rest = like.strip_prefix(magic)?;
    let end = rest.iter().position(|&byte| byte == b'$')?;
    let salt = &rest[..end.min(MAX_SALT)];

    let inner = Md5::new_with_prefix(password).chain_update(salt).chain_update(password).finalize();
    let mut outer = Md5::new_with_prefix(password).chain_update(magic).chain_update(salt);
    for start in (0..password.len()).step_by(16) {
        outer.update(&inner[..(password.len() - start).min(16)]);
    }
    let mut bits = password.len();
    while bits > 0 {
        // The first letter for a zero: a slip of the first version that all others keep.
        outer.update(if bits & 1 == 1 { &[0][..] } else { &password[..1] });
        bits >>= 1;
    }
    let mut digest = outer.finalize();
    for round in 0..1000 {
        let mut next = Md5::new();
        if round & 1 == 1 {
            next.update(password)
        } else {
            next.update(digest)
        }
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        if round & 1 == 1 {
            next.update(digest)
        } else {
            next.update(password)
        }
        digest = next.finalize();
    }

    let mut out = [magic, salt, b"$"].concat();
    for [high, middle, low] in [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]] {
        append(
            &mut out,
            u32::from(digest[high]) << 16 | u32::from(digest[middle]) << 8 | u32::from(digest[low]),
            4,
        );
    }
    append(&mut out, u32::from(digest[11]), 2);
    Some(out)
}

/// The lowest six bits come first.
fn append(out: &mut Vec<u8>, bits: u32, letters: u32) {
    out.extend((0..letters).map(|letter| LETTERS[(bits >> (6 * letter) & 63) as usize]));
}
