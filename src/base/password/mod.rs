//! Password files as Apache's `htpasswd` makes them, and the hashes in them.
//!
//! A check is slow on purpose for most of these: it belongs in the pool, never on a loop.

mod des;
mod md5;

use argon2::PasswordVerifier;
use sha1::{Digest, Sha1};

use super::base64;

/// Longest password that is hashed, in bytes, as in libxcrypt: time and memory of some hashes grow with it.
pub const MAX_PASSWORD: usize = 512;

/// What a hash says to a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// It is the one.
    Right,
    /// It is another.
    Wrong,
    /// The hash is of no known kind, or broken.
    Unusable,
}

/// The hash of `user` in a password file. A line is `user:hash` or `user:hash:comment`; one that begins with `#` is none.
pub fn find_hash<'a>(file: &'a [u8], user: &[u8]) -> Option<&'a [u8]> {
    file.split(|&byte| byte == b'\n').find_map(|line| {
        let hash = line.strip_prefix(user)?.strip_prefix(b":")?;
        if line.starts_with(b"#") {
            return None;
        }
        let end = hash.iter().position(|byte| matches!(byte, b':' | b'\r')).unwrap_or(hash.len());
        Some(&hash[..end])
    })
}

/// Whether `password` has this hash: bcrypt, argon2, SHA-512-, SHA-256- and MD5-crypt, Apache's MD5, `{SHA}`, `{SSHA}`,
/// `{PLAIN}`, and DES-crypt, which goes by the first eight letters alone.
pub fn check(hash: &[u8], password: &[u8]) -> Check {
    if password.len() > MAX_PASSWORD || password.contains(&0) {
        return Check::Wrong;
    }
    if let Some(plain) = hash.strip_prefix(b"{PLAIN}") {
        return right_if(is_equal(plain, password));
    }
    if let Some(encoded) = hash.strip_prefix(b"{SHA}") {
        return check_sha1(encoded, password, false);
    }
    if let Some(encoded) = hash.strip_prefix(b"{SSHA}") {
        return check_sha1(encoded, password, true);
    }
    let Ok(text) = std::str::from_utf8(hash) else { return Check::Unusable };
    match hash {
        [b'$', b'2', b'a' | b'b' | b'x' | b'y', b'$', ..] => match bcrypt::verify(password, text) {
            Ok(is_right) => right_if(is_right),
            Err(_) => Check::Unusable,
        },
        [b'$', b'5' | b'6', b'$', ..] => {
            use sha_crypt::PasswordVerifier;
            match sha_crypt::ShaCrypt::default().verify_password(password, text) {
                Ok(()) => Check::Right,
                Err(sha_crypt::password_hash::Error::PasswordInvalid) => Check::Wrong,
                Err(_) => Check::Unusable,
            }
        }
        _ if hash.starts_with(b"$argon2") => {
            match argon2::Argon2::default().verify_password(password, text) {
                Ok(()) => Check::Right,
                Err(argon2::password_hash::Error::PasswordInvalid) => Check::Wrong,
                Err(_) => Check::Unusable,
            }
        }
        _ if hash.starts_with(b"$1$") || hash.starts_with(b"$apr1$") => {
            let Some(made) = md5::crypt(hash, password) else { return Check::Unusable };
            right_if(is_equal(&made, hash))
        }
        _ if hash.starts_with(b"$") => Check::Unusable,
        _ => match des::crypt(hash, password) {
            Some(made) => right_if(is_equal(&made, hash)),
            None => Check::Unusable,
        },
    }
}

fn right_if(is_right: bool) -> Check {
    if is_right { Check::Right } else { Check::Wrong }
}

fn check_sha1(encoded: &[u8], password: &[u8], salted: bool) -> Check {
    const DIGEST: usize = 20;
    let mut bytes = Vec::new();
    if !base64::decode(&mut bytes, encoded) {
        return Check::Unusable;
    }
    let Some((digest, salt)) = bytes.split_at_checked(DIGEST) else { return Check::Unusable };
    if !salted && !salt.is_empty() {
        return Check::Unusable;
    }
    right_if(is_equal(digest, &Sha1::new_with_prefix(password).chain_update(salt).finalize()))
}

/// Compares without telling by the time how much is right.
fn is_equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).fold(0, |difference, (one, other)| difference | (one ^ other)) == 0
}

/// The alphabet of crypt(3).
const LETTERS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    /// What a tool prints.
    fn made_by(tool: &str, arguments: &[&str]) -> Vec<u8> {
        let output = Command::new(tool).args(arguments).output().expect("the tool is installed");
        assert!(output.status.success(), "{tool} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        let text = output.stdout;
        text[..text.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(text.len())].to_vec()
    }

    fn is_installed(tool: &str) -> bool {
        Command::new(tool).arg("--help").output().is_ok()
    }

    #[track_caller]
    fn agrees(hash: &[u8], password: &str) {
        let shown = String::from_utf8_lossy(hash);
        assert_eq!(check(hash, password.as_bytes()), Check::Right, "{shown} {password:?}");
        let mut other = password.as_bytes().to_vec();
        match other.first_mut() {
            Some(first) => *first ^= 1,
            None => other.push(b'x'),
        }
        assert_eq!(check(hash, &other), Check::Wrong, "{shown} not {password:?}");
    }

    const PASSWORDS: [&str; 6] = [
        "p",
        "secret",
        "pässwörd",
        "with space:and colon",
        "sixteen letters.",
        "a much longer password than any block of sixteen or thirty-two bytes",
    ];

    #[test]
    fn hashes_of_apache_s_htpasswd_are_understood() {
        if !is_installed("htpasswd") {
            return;
        }
        for password in PASSWORDS {
            for kind in ["-m", "-B", "-s", "-p", "-2", "-5"] {
                let line = made_by("htpasswd", &["-nb", kind, "user", password]);
                let hash = find_hash(&line, b"user").expect("a hash");
                // A colon ends the hash; plain text has no other mark of its end.
                if kind == "-p" {
                    if !password.contains(':') {
                        agrees(&[b"{PLAIN}", hash].concat(), password);
                    }
                    continue;
                }
                agrees(hash, password);
            }
            if password.len() <= 8 {
                let line = made_by("htpasswd", &["-nbd", "user", password]);
                agrees(find_hash(&line, b"user").expect("a hash"), password);
            }
        }
    }

    #[test]
    fn hashes_of_openssl_passwd_are_understood() {
        if !is_installed("openssl") {
            return;
        }
        for password in PASSWORDS {
            for arguments in [
                &["passwd", "-1"][..],
                &["passwd", "-apr1"],
                &["passwd", "-5"],
                &["passwd", "-6"],
                &["passwd", "-1", "-salt", "x"],
                &["passwd", "-6", "-salt", "rounds=1000$abcdefgh"],
                &["passwd", "-5", "-salt", "sixteen.letters/"],
            ] {
                agrees(&made_by("openssl", &[arguments, &[password]].concat()), password);
            }
        }
    }

    #[test]
    fn known_hashes_of_each_kind() {
        for (hash, password) in [
            ("rEK1ecacw.7.c", "password"),
            ("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "password"),
            ("{PLAIN}password", "password"),
            ("$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/", "myPassword"),
        ] {
            agrees(hash.as_bytes(), password);
        }
        // DES goes by seven bits of eight letters.
        let hash = des::crypt(b"ab", b"12345678").unwrap();
        assert_eq!(check(&hash, b"12345678 and more"), Check::Right);
        let mut salted = Vec::new();
        let digest = Sha1::new_with_prefix(b"pass").chain_update(b"salt").finalize();
        base64::encode(&mut salted, &[&digest[..], b"salt"].concat());
        agrees(&[b"{SSHA}".as_slice(), &salted].concat(), "pass");
    }

    #[test]
    fn argon2_in_its_usual_form() {
        use argon2::{Algorithm, Argon2, Params, Version};
        let mut digest = [0; 32];
        let params = Params::new(64, 1, 1, Some(32)).unwrap();
        let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        hasher.hash_password_into(b"secret", b"saltsaltsalt", &mut digest).unwrap();
        let encode = |bytes: &[u8]| {
            let mut out = Vec::new();
            base64::encode(&mut out, bytes);
            String::from_utf8(out).unwrap().trim_end_matches('=').to_owned()
        };
        let hash = format!("$argon2id$v=19$m=64,t=1,p=1${}${}", encode(b"saltsaltsalt"), encode(&digest));
        agrees(hash.as_bytes(), "secret");
    }

    #[test]
    fn broken_hashes_let_nobody_in() {
        for hash in [
            "",
            "x",
            "$",
            "$1",
            "$9$a$b",
            "$2y$99$x",
            "$6$",
            "$6$salt",
            "$5$rounds=x$salt$hash",
            "$argon2id$",
            "{SHA}",
            "{SHA}!!",
            "{SSHA}YQ==",
            "!!!!!!!!!!!!!",
        ] {
            assert_eq!(check(hash.as_bytes(), b""), Check::Unusable, "{hash}");
        }
        assert_eq!(check(b"{PLAIN}a", &[b'a'; 600]), Check::Wrong);
    }

    #[test]
    fn a_user_has_a_line_of_its_own() {
        let file = b"# comment:no\nann:one\nbob:two:Bob\r\nan:three\n\n#carl:x\ndora:four";
        let find = |user: &str| {
            find_hash(file, user.as_bytes()).map(|hash| String::from_utf8_lossy(hash).into_owned())
        };
        assert_eq!(find("ann").as_deref(), Some("one"));
        assert_eq!(find("bob").as_deref(), Some("two"));
        assert_eq!(find("an").as_deref(), Some("three"));
        assert_eq!(find("dora").as_deref(), Some("four"));
        for nobody in ["# comment", "#carl", "carl", "a", "", "annn"] {
            assert_eq!(find(nobody), None, "{nobody}");
        }
    }

    proptest! {
        #[test]
        fn no_hash_makes_a_check_panic(hash in "[$.{}/a-zA-Z0-9=,]{0,40}", password in prop::collection::vec(any::<u8>(), 0..20)) {
            // Costs that the hash itself names are the configuration's, and may be large.
            prop_assume!(!hash.contains("rounds") && !hash.starts_with("$2") && !hash.starts_with("$argon2"));
            let _ = check(hash.as_bytes(), &password);
        }
    }
}
