//! What the kernel needs to encrypt and decrypt by itself (kTLS): keys and sequence numbers in the form of
//! `linux/tls.h`.

use rustls::ConnectionTrafficSecrets;

/// How connections encrypt that the kernel may take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelCipher {
    /// AES-128-GCM
    Aes128Gcm,
    /// AES-256-GCM
    Aes256Gcm,
    /// ChaCha20-Poly1305
    Chacha20Poly1305,
}

/// A cipher and the version of TLS that it is used in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelSuite {
    /// TLS 1.3, else 1.2.
    pub is_1_3: bool,
    /// The cipher.
    pub cipher: KernelCipher,
}

impl KernelSuite {
    /// All of them.
    pub const ALL: [KernelSuite; 6] = {
        const fn suite(is_1_3: bool, cipher: KernelCipher) -> KernelSuite {
            KernelSuite { is_1_3, cipher }
        }
        [
            suite(true, KernelCipher::Aes128Gcm),
            suite(true, KernelCipher::Aes256Gcm),
            suite(true, KernelCipher::Chacha20Poly1305),
            suite(false, KernelCipher::Aes128Gcm),
            suite(false, KernelCipher::Aes256Gcm),
            suite(false, KernelCipher::Chacha20Poly1305),
        ]
    };

    /// By OpenSSL's name of a suite.
    pub(super) fn of(is_1_3: bool, name: &str) -> Option<KernelSuite> {
        let has = |part| name.contains(part);
        let cipher = match () {
            () if has("CHACHA20") => KernelCipher::Chacha20Poly1305,
            () if has("AES128-GCM") || has("AES_128_GCM") => KernelCipher::Aes128Gcm,
            () if has("AES256-GCM") || has("AES_256_GCM") => KernelCipher::Aes256Gcm,
            () => return None,
        };
        Some(KernelSuite { is_1_3, cipher })
    }

    /// Whether its keys are good for a number of records that a connection may reach (RFC 8446, 5.5).
    pub fn wears_out(self) -> bool {
        self.cipher != KernelCipher::Chacha20Poly1305
    }

    /// Keys of zeros, to ask a kernel whether it knows the suite.
    pub fn sample(self) -> KernelKeys {
        let key = if self.cipher == KernelCipher::Aes128Gcm { 16 } else { 32 };
        KernelKeys::new(self, &[0; 32][..key], &[0; 12], 0)
    }
}

/// The `struct tls12_crypto_info_*` of one direction. Wiped when dropped.
pub struct KernelKeys {
    bytes: [u8; 56],
    length: usize,
}

impl KernelKeys {
    fn new(suite: KernelSuite, key: &[u8], nonce: &[u8], sequence: u64) -> KernelKeys {
        let mut keys = KernelKeys { bytes: [0; 56], length: 0 };
        let version: u16 = if suite.is_1_3 { 0x0304 } else { 0x0303 };
        let number: u16 = match suite.cipher {
            KernelCipher::Aes128Gcm => 51,
            KernelCipher::Aes256Gcm => 52,
            KernelCipher::Chacha20Poly1305 => 54,
        };
        keys.append(&version.to_ne_bytes());
        keys.append(&number.to_ne_bytes());
        // AES-GCM: eight bytes of the nonce first, the four in front of them ("salt") behind the key.
        let (salt, rest) = match suite.cipher {
            KernelCipher::Chacha20Poly1305 => nonce.split_at(0),
            _ => nonce.split_at(4),
        };
        keys.append(rest);
        keys.append(key);
        keys.append(salt);
        keys.append(&sequence.to_be_bytes());
        keys
    }

    fn append(&mut self, bytes: &[u8]) {
        self.bytes[self.length..][..bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    /// What `setsockopt` is given.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for KernelKeys {
    fn drop(&mut self) {
        self.bytes.fill(0);
        // So that the compiler does not find the write useless.
        std::hint::black_box(&self.bytes);
    }
}

impl std::fmt::Debug for KernelKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KernelKeys")
    }
}

/// Both directions of a connection that its library has given up.
#[derive(Debug)]
pub struct KernelSecrets {
    /// The suite.
    pub suite: KernelSuite,
    /// For what we send.
    pub transmit: KernelKeys,
    /// For what comes.
    pub receive: KernelKeys,
    /// Records that were sent with these keys before.
    pub sent_records: u64,
}

impl KernelSecrets {
    /// `None` for a cipher that the kernel does not have.
    pub(super) fn new(is_1_3: bool, secrets: rustls::ExtractedSecrets) -> Option<KernelSecrets> {
        let (sent_records, transmit) = secrets.tx;
        let (suite, transmit) = keys(is_1_3, &transmit, sent_records, fresh_nonces)?;
        let (_, receive) = keys(is_1_3, &secrets.rx.1, secrets.rx.0, |nonce| nonce)?;
        Some(KernelSecrets { suite, transmit, receive, sent_records })
    }
}

fn keys(
    is_1_3: bool,
    secrets: &ConnectionTrafficSecrets,
    sequence: u64,
    explicit: impl Fn([u8; 12]) -> [u8; 12],
) -> Option<(KernelSuite, KernelKeys)> {
    let (cipher, key, iv) = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (KernelCipher::Aes128Gcm, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (KernelCipher::Aes256Gcm, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (KernelCipher::Chacha20Poly1305, key, iv),
        _ => return None,
    };
    let suite = KernelSuite { is_1_3, cipher };
    let mut nonce: [u8; 12] = iv.as_ref().try_into().ok()?;
    if !is_1_3 && cipher != KernelCipher::Chacha20Poly1305 {
        nonce = explicit(nonce);
    }
    Some((suite, KernelKeys::new(suite, key.as_ref(), &nonce, sequence)))
}

/// AES-GCM in TLS 1.2 sends eight bytes of each nonce along (RFC 5288, 3), and no nonce may ever come twice with a key.
/// The library has used those that differ from its first one by a sequence number; the kernel counts upwards from what
/// it is given. With the first bit turned over and zeros behind it, it never meets one of the library's.
fn fresh_nonces(mut nonce: [u8; 12]) -> [u8; 12] {
    nonce[4] = !nonce[4] & 0x80;
    nonce[5..].fill(0);
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_kernels_layout() {
        let key: Vec<u8> = (0x10..0x30).collect();
        let nonce: Vec<u8> = (0xa0..0xac).collect();
        let bytes = |suite: KernelSuite, key: &[u8]| {
            KernelKeys::new(suite, key, &nonce, 0x0102_0304_0506_0708).as_bytes().to_vec()
        };
        let sequence = [1, 2, 3, 4, 5, 6, 7, 8];
        let number = |value: u16| value.to_ne_bytes();
        let aes128 = KernelSuite { is_1_3: true, cipher: KernelCipher::Aes128Gcm };
        let expected =
            [&number(0x0304)[..], &number(51), &nonce[4..], &key[..16], &nonce[..4], &sequence].concat();
        assert_eq!(bytes(aes128, &key[..16]), expected);
        let aes256 = KernelSuite { is_1_3: false, cipher: KernelCipher::Aes256Gcm };
        let expected = [&number(0x0303)[..], &number(52), &nonce[4..], &key, &nonce[..4], &sequence].concat();
        assert_eq!(bytes(aes256, &key), expected);
        let chacha = KernelSuite { is_1_3: true, cipher: KernelCipher::Chacha20Poly1305 };
        let expected = [&number(0x0304)[..], &number(54), &nonce, &key, &sequence].concat();
        assert_eq!(bytes(chacha, &key), expected);
    }

    #[test]
    fn suites_are_known_by_openssls_names() {
        let of = |is_1_3, name| KernelSuite::of(is_1_3, name).map(|suite| suite.cipher);
        assert_eq!(of(true, "TLS_AES_256_GCM_SHA384"), Some(KernelCipher::Aes256Gcm));
        assert_eq!(of(true, "TLS_AES_128_GCM_SHA256"), Some(KernelCipher::Aes128Gcm));
        assert_eq!(of(false, "ECDHE-RSA-AES128-GCM-SHA256"), Some(KernelCipher::Aes128Gcm));
        assert_eq!(of(false, "ECDHE-ECDSA-CHACHA20-POLY1305"), Some(KernelCipher::Chacha20Poly1305));
        assert_eq!(of(false, "unknown"), None);
    }

    #[test]
    fn nonces_of_the_library_and_the_kernel_never_meet() {
        for first in [[0; 8], [0xff; 8], [0x7f, 0xff, 1, 2, 3, 4, 5, 6], [0x80, 0, 0, 0, 0, 0, 0, 1]] {
            let mut nonce = [9; 12];
            nonce[4..].copy_from_slice(&first);
            let start = fresh_nonces(nonce);
            assert_eq!(start[..4], nonce[..4], "the salt stays");
            let library = u64::from_be_bytes(first);
            let kernel = u64::from_be_bytes(start[4..].try_into().unwrap());
            // Whatever sequence number up to 2^63 the library came to, and however often the kernel counted up.
            for (sequence, count) in [(0, 0), (1, 1), ((1 << 63) - 1, 1 << 24), (1 << 24, (1 << 63) - 1)] {
                assert_ne!((library ^ sequence) >> 63, (kernel + count) >> 63);
            }
        }
    }
}
