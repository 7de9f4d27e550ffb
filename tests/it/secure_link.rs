//! `secure_link` in both forms. The checksums are those of `md5sum` and `openssl md5 -binary`.

use crate::util::Cases;

#[test]
fn a_link_with_an_end() {
    // echo -n '2147483647/s/link127.0.0.1 secret' | openssl md5 -binary | openssl base64 | tr +/ -_ | tr -d =
    Cases::new(
        "server { listen {port};
          secure_link $arg_md5,$arg_expires; secure_link_md5 \"$arg_expires$uri$remote_addr secret\";
          location /s/ { if ($secure_link = '') { return 403; } if ($secure_link = 0) { return 410; }
            return 200 $secure_link,$secure_link_expires; } }",
    )
    .get("/s/link", "403")
    .get(
        &format!("/s/link?md5={}&expires=2147483647", sum("2147483647/s/link127.0.0.1 secret")),
        "200 1,2147483647",
    )
    .get(&format!("/s/link?md5={}&expires=2147483646", sum("2147483647/s/link127.0.0.1 secret")), "403")
    .get(&format!("/s/link?md5={}&expires=1", sum("1/s/link127.0.0.1 secret")), "410")
    .get(
        &format!("/s/link?md5={}==&expires=2147483647", sum("2147483647/s/link127.0.0.1 secret")),
        "200 1,2147483647",
    )
    .check();
}

#[test]
fn the_older_form() {
    let digest = hex("inner/file.txtword");
    Cases::new(
        "server { listen {port}; location /p/ { secure_link_secret word; return 200 [$secure_link]; } }",
    )
    .get(&format!("/p/{digest}/inner/file.txt"), "200 [inner/file.txt]")
    .get(&format!("/p/{digest}/inner/file.txt?a=b"), "200 []")
    .get(&format!("/p/{digest}/inner/other.txt"), "200 []")
    .get(&format!("/p/{}/inner/file.txt", digest.to_uppercase()), "200 [inner/file.txt]")
    .get("/p/inner/file.txt", "200 []")
    .get("/p/", "200 []")
    .check();
}

fn digest(text: &str, arguments: &[&str]) -> Vec<u8> {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut child = Command::new("openssl")
        .arg("md5")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl");
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("written");
    child.wait_with_output().expect("a digest").stdout
}

fn hex(text: &str) -> String {
    let out = String::from_utf8(digest(text, &["-r"])).expect("text");
    out.split(' ').next().expect("a digest").to_owned()
}

/// Base64 with the alphabet of URLs.
fn sum(text: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bytes = digest(text, &["-binary"]);
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    bits.chunks(6)
        .map(|group| {
            let value = group.iter().fold(0, |value, bit| value << 1 | bit) << (6 - group.len());
            char::from(ALPHABET[usize::from(value)])
        })
        .collect()
}
