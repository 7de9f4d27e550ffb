//! What a path may lead to: folders, links, odd files, and never out of its root.

use super::*;

#[test]
fn folders_and_odd_files_as_targets() {
    Cases::new(SITE)
        .file("html/folder/x", "x")
        .file("html/f", "file")
        .before(|server| {
            let status = std::process::Command::new("mkfifo").arg(server.path("html/fifo")).status();
            assert!(status.is_ok_and(|status| status.success()), "mkfifo");
            std::os::unix::net::UnixListener::bind(server.path("html/socket")).expect("a socket");
            symlink("/dev/zero", server.path("html/zero")).expect("a link");
            symlink("loop", server.path("html/loop")).expect("a link");
        })
        .get("/folder", "301 http://localhost:{port}/folder/")
        .get("/folder/", "403")
        .get("/f/", "404")
        .get("/f/x", "404")
        .get("/fifo", "404")
        .get("/zero", "404")
        .get("/socket", "500")
        .get("/loop", "403")
        .check();
}

#[test]
fn names_that_are_too_long_are_not_found() {
    let long = format!("/{}", "x".repeat(300));
    let deep = "/y".repeat(1500);
    Cases::new("server { listen {port}; root {root}/html; large_client_header_buffers 4 16k; }")
        .get(&long, "404")
        .get(&deep, "404")
        .check();
}

#[test]
fn a_path_never_leaves_its_root() {
    let server =
        Server::builder("server { listen {port}; root {root}/html; location /a/ { alias {root}/html/; } }")
            .file("html/f", "inside")
            .file("secret", "secret")
            .start();
    for target in [
        "/../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/%2e%2e%2fsecret",
        "/a/../../secret",
        "/x/..%2f..%2fsecret",
        "/./../secret",
        "//../secret",
        "/a/%2e%2e/%2e%2e/secret",
        "/a/..%2f..%2fsecret",
        "/a//..//..//secret",
        "/..;/secret",
        "/.%00./secret",
        "/f%00.txt",
        "/%00",
        "/..%5csecret",
        "/%252e%252e/secret",
        "/%c0%ae%c0%ae/secret",
        "/a/..\\..\\secret",
        "/...//secret",
    ] {
        let mut client = Client::connect(server.port());
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
        let bytes = client.read_to_end();
        let text = String::from_utf8_lossy(&bytes);
        let status = text.get(9..12).unwrap_or_default();
        assert!(matches!(status, "400" | "403" | "404"), "{target}: {text}");
        assert!(!text.ends_with("secret"), "{target}: {text}");
    }
    assert_eq!(get(server.port(), "/x/../f").text(), "inside");
}

#[test]
fn bad_paths_are_answered_as_by_nginx() {
    Cases::new(SITE)
        .file("html/f", "inside")
        .get("/../f", "400")
        .get("/%2e%2e/f", "400")
        .get("/x/../f", "200 inside")
        .get("/f%00", "400")
        .get("/%", "400")
        .get("/%4", "400")
        .get("/%zz", "400")
        .get("/f#x", "200 inside")
        .get("/./f", "200 inside")
        .get("/f?%00", "200 inside")
        .check();
}

#[test]
fn symbolic_links_are_followed_unless_disabled() {
    Cases::new(
        "server { listen {port};
            location / { root {root}/html; }
            location /on/ { alias {root}/html/; disable_symlinks on; }
            location /from/ { alias {root}/html/; disable_symlinks on from=$document_root; }
            location /from-root/ { alias {root}/html/; disable_symlinks on from={root}/html/folder; }
            location /owner/ { alias {root}/html/; disable_symlinks if_not_owner; }
            location /off/ { alias {root}/html/; disable_symlinks off; } }",
    )
    .file("html/f", "file")
    .file("html/folder/g", "g")
    .file("outside/o", "outside")
    .before(|server| {
        symlink(server.path("outside"), server.path("html/away")).expect("a link");
        symlink("f", server.path("html/link")).expect("a link");
        symlink("/etc/hostname", server.path("html/foreign")).expect("a link");
        let link = server.path("html/strange");
        symlink("f", &link).expect("a link");
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::lchown(&link, Some(12345), None).expect("another owner");
        }
    })
    .get("/link", "200 file")
    .get("/away/o", "200 outside")
    .get("/on/f", "200 file")
    .get("/on/link", "403")
    .get("/on/folder/g", "200 g")
    .get("/on/folder/g", "200 g")
    .get("/from/link", "403")
    .get("/from/f", "200 file")
    .get("/from-root/folder/g", "200 g")
    .get("/owner/link", "200 file")
    .get("/owner/away/o", "200 outside")
    .get("/owner/strange", if rustix::process::geteuid().is_root() { "403" } else { "200 file" })
    .get("/off/link", "200 file")
    .check();
}

#[test]
fn a_disabled_link_among_the_folders_is_forbidden_too() {
    Cases::new("server { listen {port}; root {root}/html; disable_symlinks on from=$document_root; }")
        .only_ours("nginx answers 404: the error is that the folder is none")
        .file("outside/o", "outside")
        .file("html/f", "f")
        .before(|server| symlink(server.path("outside"), server.path("html/away")).expect("a link"))
        .get("/away/o", "403")
        .get("/f", "200 f")
        .check();
}

#[test]
fn disable_symlinks_in_the_prefix_counts_from_the_root_of_the_file_system() {
    let conf = "server { listen {port};
            location /on/ { alias {root}/link/; disable_symlinks on; }
            location /from/ { alias {root}/link/; disable_symlinks on from={root}/link; } }";
    Cases::new(conf)
        .file("html/f", "file")
        .before(|server| symlink(server.path("html"), server.path("link")).expect("a link"))
        .get("/on/f", "403")
        .only_ours("nginx takes the error of the folder for a missing file")
        .get("/from/f", "200 file")
        .check();
}

#[test]
fn files_that_may_not_be_read_are_forbidden() {
    // As root nothing is unreadable; workers then run as another user.
    let user = if rustix::process::geteuid().is_root() { "user nobody nogroup;" } else { "" };
    let server =
        Server::builder(&format!("{user} http {{ server {{ listen {{port}}; root {{root}}/html; }} }}"))
            .file("html/f", "secret")
            .start();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(server.path("html/f"), PermissionsExt::from_mode(0o600)).expect("permissions");
    let readable = user.is_empty();
    assert_eq!(get(server.port(), "/f").status, if readable { 200 } else { 403 });
    if !readable {
        eventually("the reason", || server.error_log().contains("(13: Permission denied)"));
    }
}
