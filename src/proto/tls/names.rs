//! The names that OpenSSL gives to protocol versions, cipher suites, groups and signature schemes, since
//! configurations and variables are written with them.

use rustls::crypto::SupportedKxGroup;
use rustls::crypto::aws_lc_rs::{cipher_suite as suite, kx_group};
use rustls::{NamedGroup, ProtocolVersion, SupportedCipherSuite};

/// A cipher suite of TLS 1.2 or 1.3 that exists here.
pub struct Cipher {
    /// OpenSSL's name.
    pub name: &'static str,
    /// What OpenSSL's cipher strings may call it, together with others.
    classes: &'static [&'static str],
    /// The suite.
    pub suite: SupportedCipherSuite,
}

macro_rules! cipher {
    ($name:literal, $suite:ident, $($class:literal)*) => {
        Cipher { name: $name, classes: &["ALL", "DEFAULT", "HIGH", $($class),*], suite: suite::$suite }
    };
}

/// The suites of TLS 1.2 in OpenSSL's order for `HIGH`.
pub static CIPHERS_1_2: &[Cipher] = &[
    cipher!("ECDHE-ECDSA-AES256-GCM-SHA384", TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        "ECDHE" "EECDH" "kECDHE" "kEECDH" "aECDSA" "ECDSA" "AES" "AES256" "AESGCM" "TLSv1.2"),
    cipher!("ECDHE-RSA-AES256-GCM-SHA384", TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        "ECDHE" "EECDH" "kECDHE" "kEECDH" "aRSA" "AES" "AES256" "AESGCM" "TLSv1.2"),
    cipher!("ECDHE-ECDSA-CHACHA20-POLY1305", TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        "ECDHE" "EECDH" "kECDHE" "kEECDH" "aECDSA" "ECDSA" "CHACHA20" "TLSv1.2"),
    cipher!("ECDHE-RSA-CHACHA20-POLY1305", TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        "ECDHE" "EECDH" "kECDHE" "kEECDH" "aRSA" "CHACHA20" "TLSv1.2"),
    cipher!("ECDHE-ECDSA-AES128-GCM-SHA256", TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        "ECDHE" "EECDH" "kECDHE" "kEECDH" "aECDSA" "ECDSA" "AES" "AES128" "AESGCM" "TLSv1.2"),
    cipher!("ECDHE-RSA-AES128-GCM-SHA256", TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        "ECDHE" "EECDH" "kECDHE" "kEECDH" "aRSA" "AES" "AES128" "AESGCM" "TLSv1.2"),
];

/// The suites of TLS 1.3 in OpenSSL's order.
pub static CIPHERS_1_3: &[Cipher] = &[
    cipher!("TLS_AES_256_GCM_SHA384", TLS13_AES_256_GCM_SHA384,),
    cipher!("TLS_CHACHA20_POLY1305_SHA256", TLS13_CHACHA20_POLY1305_SHA256,),
    cipher!("TLS_AES_128_GCM_SHA256", TLS13_AES_128_GCM_SHA256,),
];

/// Suites as configured, and what of the text had no effect.
pub struct CipherList {
    /// The suites, the most wanted first.
    pub suites: Vec<SupportedCipherSuite>,
    /// Names that no suite here has; those that were to be excluded are not among them.
    pub unknown: Vec<String>,
}

/// Reads OpenSSL's cipher string (`openssl-ciphers(1)`) for the suites of TLS 1.2. `@STRENGTH` and `@SECLEVEL` change
/// nothing, since all suites here are strong; names of TLS 1.3 suites have no place in such strings and no effect.
pub fn parse_ciphers(text: &str) -> CipherList {
    let mut chosen: Vec<&'static Cipher> = Vec::new();
    let mut killed: Vec<&'static str> = Vec::new();
    let mut unknown = Vec::new();
    for token in text.split([':', ',', ' ']).filter(|token| !token.is_empty() && !token.starts_with('@')) {
        let (operation, name) = match token.as_bytes()[0] {
            first @ (b'!' | b'-' | b'+') => (first, &token[1..]),
            _ => (b' ', token),
        };
        let matching: Vec<&'static Cipher> = CIPHERS_1_2.iter().filter(|cipher| fits(cipher, name)).collect();
        let is_matching = |cipher: &&'static Cipher| matching.iter().any(|other| other.name == cipher.name);
        match operation {
            b'!' => {
                killed.extend(matching.iter().map(|cipher| cipher.name));
                chosen.retain(|cipher| !is_matching(cipher));
            }
            b'-' => chosen.retain(|cipher| !is_matching(cipher)),
            b'+' => {
                let (moved, stay): (Vec<_>, Vec<_>) = chosen.iter().partition(|cipher| is_matching(cipher));
                chosen = stay.into_iter().chain(moved).collect();
            }
            _ => {
                if matching.is_empty() && !is_1_3(name) {
                    unknown.push(name.to_owned());
                }
                for cipher in &matching {
                    let known = chosen.iter().any(|other| other.name == cipher.name);
                    if !known && !killed.contains(&cipher.name) {
                        chosen.push(cipher);
                    }
                }
            }
        }
    }
    CipherList { suites: chosen.iter().map(|cipher| cipher.suite).collect(), unknown }
}

fn fits(cipher: &Cipher, name: &str) -> bool {
    if cipher.name == name {
        return true;
    }
    // `ECDHE+AESGCM`: all of them at once. Where both are classes of hashes, AEAD suites have none.
    name.split('+').all(|class| cipher.classes.contains(&class))
}

fn is_1_3(name: &str) -> bool {
    CIPHERS_1_3.iter().any(|cipher| cipher.name == name)
}

/// Reads a list of TLS 1.3 suites (`ssl_conf_command Ciphersuites`), separated by colons.
pub fn parse_ciphersuites(text: &str) -> CipherList {
    let mut list = CipherList { suites: Vec::new(), unknown: Vec::new() };
    for name in text.split(':').filter(|name| !name.is_empty()) {
        match CIPHERS_1_3.iter().find(|cipher| cipher.name == name) {
            Some(cipher) => list.suites.push(cipher.suite),
            None => list.unknown.push(name.to_owned()),
        }
    }
    list
}

/// Key exchange groups by the names that OpenSSL knows, the post-quantum hybrid first: the default.
static GROUPS: &[(&[&str], &dyn SupportedKxGroup)] = &[
    (&["X25519MLKEM768"], kx_group::X25519MLKEM768),
    (&["X25519", "x25519"], kx_group::X25519),
    (&["prime256v1", "secp256r1", "P-256"], kx_group::SECP256R1),
    (&["secp384r1", "P-384"], kx_group::SECP384R1),
    (&["SecP256r1MLKEM768"], kx_group::SECP256R1MLKEM768),
    (&["MLKEM768"], kx_group::MLKEM768),
    (&["MLKEM1024"], kx_group::MLKEM1024),
];

/// How many of [`GROUPS`] are in use by default.
const DEFAULT_GROUPS: usize = 4;

/// The groups that are used by default: X25519MLKEM768, X25519, P-256, P-384.
pub fn default_groups() -> Vec<&'static dyn SupportedKxGroup> {
    GROUPS[..DEFAULT_GROUPS].iter().map(|(_, group)| *group).collect()
}

/// Reads `ssl_ecdh_curve`: names separated by colons, or `auto`. Beside the groups come the names that are not known.
pub fn parse_groups(text: &str) -> (Vec<&'static dyn SupportedKxGroup>, Vec<String>) {
    if text == "auto" {
        return (default_groups(), Vec::new());
    }
    let mut groups: Vec<&'static dyn SupportedKxGroup> = Vec::new();
    let mut unknown = Vec::new();
    for name in text.split(':').filter(|name| !name.is_empty()) {
        match GROUPS.iter().find(|(names, _)| names.iter().any(|other| other.eq_ignore_ascii_case(name))) {
            Some((_, group)) if groups.iter().any(|other| other.name() == group.name()) => {}
            Some((_, group)) => groups.push(*group),
            None => unknown.push(name.to_owned()),
        }
    }
    (groups, unknown)
}

/// `TLSv1.3`
pub fn protocol(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        ProtocolVersion::TLSv1_2 => "TLSv1.2",
        _ => "unknown",
    }
}

/// The name of a suite that exists here, by its number.
pub fn cipher(number: u16) -> Option<&'static str> {
    let all = CIPHERS_1_3.iter().chain(CIPHERS_1_2);
    all.into_iter().find(|cipher| u16::from(cipher.suite.suite()) == number).map(|cipher| cipher.name)
}

/// Suites that clients offer and that do not exist here, for `$ssl_ciphers`.
static OTHER_CIPHERS: &[(u16, &str)] = &[
    (0x002f, "AES128-SHA"),
    (0x0033, "DHE-RSA-AES128-SHA"),
    (0x0035, "AES256-SHA"),
    (0x0039, "DHE-RSA-AES256-SHA"),
    (0x003c, "AES128-SHA256"),
    (0x003d, "AES256-SHA256"),
    (0x0067, "DHE-RSA-AES128-SHA256"),
    (0x006b, "DHE-RSA-AES256-SHA256"),
    (0x009c, "AES128-GCM-SHA256"),
    (0x009d, "AES256-GCM-SHA384"),
    (0x009e, "DHE-RSA-AES128-GCM-SHA256"),
    (0x009f, "DHE-RSA-AES256-GCM-SHA384"),
    (0x00ff, "TLS_EMPTY_RENEGOTIATION_INFO_SCSV"),
    (0xc009, "ECDHE-ECDSA-AES128-SHA"),
    (0xc00a, "ECDHE-ECDSA-AES256-SHA"),
    (0xc013, "ECDHE-RSA-AES128-SHA"),
    (0xc014, "ECDHE-RSA-AES256-SHA"),
    (0xc023, "ECDHE-ECDSA-AES128-SHA256"),
    (0xc024, "ECDHE-ECDSA-AES256-SHA384"),
    (0xc027, "ECDHE-RSA-AES128-SHA256"),
    (0xc028, "ECDHE-RSA-AES256-SHA384"),
    (0xccaa, "DHE-RSA-CHACHA20-POLY1305"),
];

static GROUP_NAMES: &[(u16, &str)] = &[
    (0x0017, "prime256v1"),
    (0x0018, "secp384r1"),
    (0x0019, "secp521r1"),
    (0x001d, "X25519"),
    (0x001e, "X448"),
    (0x0100, "ffdhe2048"),
    (0x0101, "ffdhe3072"),
    (0x0102, "ffdhe4096"),
    (0x0103, "ffdhe6144"),
    (0x0104, "ffdhe8192"),
    (0x0200, "MLKEM512"),
    (0x0201, "MLKEM768"),
    (0x0202, "MLKEM1024"),
    (0x11eb, "SecP256r1MLKEM768"),
    (0x11ec, "X25519MLKEM768"),
    (0x11ed, "SecP384r1MLKEM1024"),
];

static SCHEME_NAMES: &[(u16, &str)] = &[
    (0x0201, "rsa_pkcs1_sha1"),
    (0x0203, "ecdsa_sha1"),
    (0x0401, "rsa_pkcs1_sha256"),
    (0x0403, "ecdsa_secp256r1_sha256"),
    (0x0501, "rsa_pkcs1_sha384"),
    (0x0503, "ecdsa_secp384r1_sha384"),
    (0x0601, "rsa_pkcs1_sha512"),
    (0x0603, "ecdsa_secp521r1_sha512"),
    (0x0804, "rsa_pss_rsae_sha256"),
    (0x0805, "rsa_pss_rsae_sha384"),
    (0x0806, "rsa_pss_rsae_sha512"),
    (0x0807, "ed25519"),
    (0x0808, "ed448"),
    (0x0809, "rsa_pss_pss_sha256"),
    (0x080a, "rsa_pss_pss_sha384"),
    (0x080b, "rsa_pss_pss_sha512"),
    (0x0904, "mldsa44"),
    (0x0905, "mldsa65"),
    (0x0906, "mldsa87"),
];

fn append_name(table: &[(u16, &str)], number: u16, out: &mut Vec<u8>) {
    match table.binary_search_by_key(&number, |(other, _)| *other) {
        Ok(at) => out.extend_from_slice(table[at].1.as_bytes()),
        // As nginx shows what OpenSSL does not know.
        Err(_) => out.extend_from_slice(format!("0x{number:04x}").as_bytes()),
    }
}

/// Appends the name of a cipher suite that a client offered, or its number.
pub fn append_cipher(number: u16, out: &mut Vec<u8>) {
    match cipher(number) {
        Some(name) => out.extend_from_slice(name.as_bytes()),
        None => append_name(OTHER_CIPHERS, number, out),
    }
}

/// Appends the name of a group, or its number.
pub fn append_group(number: u16, out: &mut Vec<u8>) {
    append_name(GROUP_NAMES, number, out);
}

/// Appends the name of a signature scheme, or its number.
pub fn append_scheme(number: u16, out: &mut Vec<u8>) {
    append_name(SCHEME_NAMES, number, out);
}

/// Whether a signature scheme is for RSA keys.
pub fn is_rsa(scheme: u16) -> bool {
    scheme & 0xff == 1 || matches!(scheme, 0x0804..=0x0806 | 0x0809..=0x080b)
}

/// The number of a group.
pub fn group_number(group: NamedGroup) -> u16 {
    group.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<&'static str> {
        let list = parse_ciphers(text);
        list.suites.iter().map(|suite| cipher(suite.suite().into()).expect("a name")).collect()
    }

    #[test]
    fn the_default_string_gives_every_suite_the_strongest_first() {
        assert_eq!(
            names("HIGH:!aNULL:!MD5"),
            CIPHERS_1_2.iter().map(|cipher| cipher.name).collect::<Vec<_>>()
        );
        assert!(parse_ciphers("HIGH:!aNULL:!MD5").unknown.is_empty());
    }

    #[test]
    fn strings_choose_exclude_and_reorder() {
        assert_eq!(
            names("ECDHE+CHACHA20:ECDHE-RSA-AES128-GCM-SHA256:!aECDSA"),
            ["ECDHE-RSA-CHACHA20-POLY1305", "ECDHE-RSA-AES128-GCM-SHA256"]
        );
        assert_eq!(
            names("AESGCM:-AES256:+aECDSA"),
            ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"]
        );
        assert_eq!(names("!AES:ALL:-ECDSA @STRENGTH"), ["ECDHE-RSA-CHACHA20-POLY1305"]);
    }

    #[test]
    fn unknown_names_are_told_and_excluded_ones_are_not() {
        let list = parse_ciphers("AES128-SHA:DES-CBC3-SHA:!RC4:TLS_AES_128_GCM_SHA256");
        assert_eq!(list.unknown, ["AES128-SHA", "DES-CBC3-SHA"]);
        assert!(list.suites.is_empty());
        assert_eq!(parse_ciphersuites("TLS_AES_128_GCM_SHA256:X").unknown, ["X"]);
    }

    #[test]
    fn groups_are_known_by_all_their_names() {
        let (groups, unknown) = parse_groups("secp384r1:P-256:prime256v1:sect283k1");
        let names: Vec<_> = groups.iter().map(|group| group.name()).collect();
        assert_eq!(names, [NamedGroup::secp384r1, NamedGroup::secp256r1]);
        assert_eq!(unknown, ["sect283k1"]);
        assert_eq!(parse_groups("auto").0[0].name(), NamedGroup::X25519MLKEM768);
    }

    #[test]
    fn numbers_have_the_names_of_openssl() {
        for table in [OTHER_CIPHERS, GROUP_NAMES, SCHEME_NAMES] {
            assert!(table.windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
        let mut out = Vec::new();
        append_cipher(0x1301, &mut out);
        append_group(0x4588, &mut out);
        append_scheme(0x0804, &mut out);
        assert_eq!(out, b"TLS_AES_128_GCM_SHA2560x4588rsa_pss_rsae_sha256");
    }
}
