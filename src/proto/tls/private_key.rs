//! Private keys out of PEM files: PKCS#8, PKCS#1 and SEC1, in the clear or under a password.
//!
//! Encrypted are PKCS#8 with PBES2 (RFC 8018: PBKDF2 and AES in CBC mode, what OpenSSL writes since 1.1), and OpenSSL's
//! older `Proc-Type: 4,ENCRYPTED` with AES. DES is not built in: its files are told how to be rewritten.

use aws_lc_rs::cipher::{AES_128, AES_256, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::pbkdf2;
use md5::{Digest, Md5};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};

use super::der::{Reader, tag};
use super::pem::{self, Section};

/// Most rounds of PBKDF2 that a key file may ask for: a second or so of work.
const MOST_ITERATIONS: u32 = 10_000_000;

/// What helps with an encryption that is not built in.
const REWRITE: &str = "rewrite it with \"openssl pkey -aes256\"";

/// The first private key in a PEM file; each password is tried for an encrypted one. The error says what is wrong.
pub fn load(text: &[u8], passwords: &[Vec<u8>]) -> Result<PrivateKeyDer<'static>, String> {
    let sections = pem::sections(text)?;
    let key = sections
        .into_iter()
        .find(|section| section.label.ends_with("PRIVATE KEY"))
        .ok_or_else(|| "no private key in the file".to_owned())?;
    if key.label == "ENCRYPTED PRIVATE KEY" {
        let der = with_passwords(passwords, |password| decrypt_pkcs8(&key.der, password))?;
        return Ok(PrivatePkcs8KeyDer::from(der).into());
    }
    let der = match key.header("DEK-Info") {
        Some(info) => with_passwords(passwords, |password| decrypt_traditional(&key, info, password))?,
        None => key.der,
    };
    match &*key.label {
        "PRIVATE KEY" => Ok(PrivatePkcs8KeyDer::from(der).into()),
        "RSA PRIVATE KEY" => Ok(PrivatePkcs1KeyDer::from(der).into()),
        "EC PRIVATE KEY" => Ok(PrivateSec1KeyDer::from(der).into()),
        label => Err(format!("a key of the kind \"{label}\" cannot be used")),
    }
}

/// Why one password did not do.
enum Refusal {
    /// Another one may do.
    WrongPassword,
    /// None can do.
    Unsupported(String),
}

fn with_passwords(
    passwords: &[Vec<u8>],
    decrypt: impl Fn(&[u8]) -> Result<Vec<u8>, Refusal>,
) -> Result<Vec<u8>, String> {
    for password in passwords {
        match decrypt(password) {
            Ok(der) => return Ok(der),
            Err(Refusal::WrongPassword) => {}
            Err(Refusal::Unsupported(message)) => return Err(message),
        }
    }
    Err(match passwords.len() {
        0 => "the key is encrypted, and there is no \"ssl_password_file\"".to_owned(),
        _ => "the key is encrypted, and no password fits".to_owned(),
    })
}

const PBES2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d];
const PBKDF2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0c];
const AES_128_CBC: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x02];
const AES_256_CBC: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2a];
/// `1.2.840.113549.2.` and one more number: the HMACs.
const RSA_DIGESTS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02];

/// The parameters of PBES2.
struct Pbes2<'a> {
    salt: &'a [u8],
    iterations: u32,
    algorithm: pbkdf2::Algorithm,
    key_length: usize,
    iv: &'a [u8],
    encrypted: &'a [u8],
}

fn unsupported() -> Refusal {
    Refusal::Unsupported(format!("the key's encryption is not known here; {REWRITE}"))
}

impl From<super::der::BadDer> for Refusal {
    fn from(_: super::der::BadDer) -> Refusal {
        Refusal::Unsupported("the encrypted key is broken".to_owned())
    }
}

fn parse_pbes2(der: &[u8]) -> Result<Pbes2<'_>, Refusal> {
    let mut outer = Reader::new(der).sequence()?;
    let mut scheme = outer.sequence()?;
    let encrypted = outer.expect(tag::OCTET_STRING)?.content;
    if scheme.expect(tag::OID)?.content != PBES2 {
        return Err(unsupported());
    }
    let mut parameters = scheme.sequence()?;
    let mut derivation = parameters.sequence()?;
    if derivation.expect(tag::OID)?.content != PBKDF2 {
        return Err(unsupported());
    }
    let mut derivation = derivation.sequence()?;
    let salt = derivation.expect(tag::OCTET_STRING)?.content;
    let iterations = derivation.small_integer()?;
    derivation.optional(tag::INTEGER)?;
    let mut digest = 7;
    if let Some(prf) = derivation.optional(tag::SEQUENCE)? {
        let oid = prf.inside().expect(tag::OID)?.content;
        digest = match oid.strip_prefix(RSA_DIGESTS) {
            Some([number]) => *number,
            _ => return Err(unsupported()),
        };
    }
    let algorithm = match digest {
        7 => pbkdf2::PBKDF2_HMAC_SHA1,
        9 => pbkdf2::PBKDF2_HMAC_SHA256,
        10 => pbkdf2::PBKDF2_HMAC_SHA384,
        11 => pbkdf2::PBKDF2_HMAC_SHA512,
        _ => return Err(unsupported()),
    };
    let mut cipher = parameters.sequence()?;
    let key_length = match cipher.expect(tag::OID)?.content {
        AES_128_CBC => 16,
        AES_256_CBC => 32,
        _ => return Err(unsupported()),
    };
    let iv = cipher.expect(tag::OCTET_STRING)?.content;
    Ok(Pbes2 { salt, iterations, algorithm, key_length, iv, encrypted })
}

fn decrypt_pkcs8(der: &[u8], password: &[u8]) -> Result<Vec<u8>, Refusal> {
    let parameters = parse_pbes2(der)?;
    let iterations = Some(parameters.iterations).filter(|count| *count <= MOST_ITERATIONS);
    let iterations = iterations.and_then(std::num::NonZeroU32::new).ok_or_else(unsupported)?;
    let mut key = [0; 32];
    let key = &mut key[..parameters.key_length];
    pbkdf2::derive(parameters.algorithm, iterations, parameters.salt, password, key);
    decrypt_aes_cbc(key, parameters.iv, parameters.encrypted)
}

/// `DEK-Info: AES-256-CBC,IV`, the key by OpenSSL's `EVP_BytesToKey` over MD5 with the IV's first half as salt.
fn decrypt_traditional(section: &Section, info: &str, password: &[u8]) -> Result<Vec<u8>, Refusal> {
    let (name, iv) = info.split_once(',').ok_or_else(unsupported)?;
    let key_length = match name {
        "AES-128-CBC" => 16,
        "AES-256-CBC" => 32,
        _ => {
            let message = format!("the key is encrypted with {name}, which is not built in; {REWRITE}");
            return Err(Refusal::Unsupported(message));
        }
    };
    let pairs: Option<Vec<u8>> = iv.as_bytes().chunks(2).map(crate::base::percent::hex_pair).collect();
    let iv = pairs.filter(|iv| iv.len() == 16).ok_or_else(unsupported)?;
    let mut key: Vec<u8> = Vec::new();
    while key.len() < key_length {
        let previous = key.len().saturating_sub(16);
        let digest = Md5::new()
            .chain_update(&key[previous..])
            .chain_update(password)
            .chain_update(&iv[..8])
            .finalize();
        key.extend_from_slice(&digest);
    }
    decrypt_aes_cbc(&key, &iv, &section.der)
}

/// AES in CBC mode with PKCS#7 padding. What comes out must be an ASN.1 SEQUENCE, or the password was wrong.
fn decrypt_aes_cbc(key: &[u8], iv: &[u8], encrypted: &[u8]) -> Result<Vec<u8>, Refusal> {
    let algorithm = if key.len() == 16 { &AES_128 } else { &AES_256 };
    let iv: [u8; 16] = iv.try_into().map_err(|_| unsupported())?;
    let wrong = |_| Refusal::WrongPassword;
    let key = UnboundCipherKey::new(algorithm, key)
        .and_then(PaddedBlockDecryptingKey::cbc_pkcs7)
        .map_err(|_| unsupported())?;
    let mut buffer = encrypted.to_vec();
    let context = DecryptionContext::Iv128(FixedLength::from(iv));
    let plain = key.decrypt(&mut buffer, context).map_err(wrong)?;
    match Reader::new(plain).sequence() {
        Ok(_) => Ok(plain.to_vec()),
        Err(_) => Err(Refusal::WrongPassword),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN_EC: &[u8] = include_bytes!("fixtures/server-ec.key");
    const PLAIN_RSA: &[u8] = include_bytes!("fixtures/server-rsa.key");

    fn usable(text: &[u8], passwords: &[&str]) -> Result<Vec<u8>, String> {
        let passwords: Vec<Vec<u8>> = passwords.iter().map(|text| text.as_bytes().to_vec()).collect();
        let key = load(text, &passwords)?;
        let key =
            rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).map_err(|error| error.to_string())?;
        Ok(key.public_key().expect("a public key").to_vec())
    }

    #[test]
    fn plain_keys_are_loaded() {
        assert!(usable(PLAIN_EC, &[]).is_ok());
        assert!(usable(PLAIN_RSA, &["unused"]).is_ok());
    }

    #[test]
    fn encrypted_keys_are_the_same_keys() {
        let ec = usable(PLAIN_EC, &[]).unwrap();
        for text in [
            &include_bytes!("fixtures/encrypted-pkcs8.key")[..],
            include_bytes!("fixtures/encrypted-sha1.key"),
            include_bytes!("fixtures/encrypted-ec.key"),
        ] {
            assert_eq!(usable(text, &["wrong", "secret"]).as_ref(), Ok(&ec));
        }
        let rsa = usable(PLAIN_RSA, &[]);
        assert_eq!(usable(include_bytes!("fixtures/encrypted-rsa.key"), &["secret"]), rsa);
    }

    #[test]
    fn what_is_missing_is_said() {
        let encrypted = include_bytes!("fixtures/encrypted-pkcs8.key");
        assert!(usable(encrypted, &[]).unwrap_err().contains("ssl_password_file"));
        assert!(usable(encrypted, &["wrong"]).unwrap_err().contains("no password fits"));
        let des = include_bytes!("fixtures/encrypted-des3.key");
        assert!(usable(des, &["secret"]).unwrap_err().contains("openssl pkey -aes256"));
        assert_eq!(usable(b"", &[]).unwrap_err(), "no private key in the file");
    }
}
