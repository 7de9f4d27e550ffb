//! `thalweg serve [DIR]`: the configuration that it runs, as text.
//!
//! Nothing is special about that configuration: `--print-config` shows it, and `-c` takes it.

use std::net::Ipv6Addr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The port where neither `--listen` nor `$PORT` names one.
pub const DEFAULT_PORT: u16 = 8080;

/// Where `serve` listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServeAddress {
    /// Every IPv4 address of the machine.
    Any(u16),
    /// One host (an address, an IPv6 address in brackets, a name, or `*`) and its port.
    Host(String, u16),
    /// A Unix socket's path.
    Unix(String),
}

/// What `serve` was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeOptions {
    /// The folder, absolute; in bytes because paths need not be UTF-8.
    pub folder: Vec<u8>,
    /// Where to listen.
    pub address: ServeAddress,
    /// `--spa`: paths without a file are pages of `/index.html`.
    pub spa: bool,
    /// Folders without an index file are listed (not `--no-listing`). A single-page application's folders never are:
    /// they hold parts, not pages.
    pub listing: bool,
    /// Where the pid file goes.
    pub pid_path: Vec<u8>,
    /// User and group of the workers, when root serves: [`owner`].
    pub user: Option<(String, String)>,
}

/// The user and group that a folder belongs to, by name, if root asks. The built-in `nobody` could not get into most
/// folders that people serve; their owner can, and sees no more than what is theirs.
pub fn owner(folder: &Path) -> Option<(String, String)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let metadata = std::fs::metadata(folder).ok()?;
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    Some((name_of(&users, metadata.uid())?, name_of(&groups, metadata.gid())?))
}

/// The first name of a number in the text of `/etc/passwd` or `/etc/group`.
fn name_of(text: &str, number: u32) -> Option<String> {
    let number = number.to_string();
    text.lines().find_map(|line| {
        let mut parts = line.split(':');
        let name = parts.next()?;
        (parts.nth(1)? == number).then(|| name.to_owned())
    })
}

impl ServeAddress {
    /// The address of `--listen`, else port `$PORT`, else [`DEFAULT_PORT`]. `--listen` takes `3000`, `:3000`,
    /// `host:3000`, `host`, `[::1]:3000`, `::1`, `*:3000`, `unix:/path`; without a port, that of `$PORT` or the
    /// default.
    pub fn choose(listen: Option<&str>, port_variable: Option<&str>) -> Result<ServeAddress, String> {
        let default_port = match port_variable {
            None | Some("") => DEFAULT_PORT,
            Some(text) => parse_port(text).ok_or_else(|| format!("$PORT is \"{text}\", which is no port"))?,
        };
        match listen {
            None => Ok(ServeAddress::Any(default_port)),
            Some(text) => parse_address(text, default_port)
                .ok_or_else(|| format!("invalid address \"{text}\" in --listen")),
        }
    }

    /// The argument of `listen`.
    pub fn argument(&self) -> String {
        match self {
            ServeAddress::Any(port) => port.to_string(),
            ServeAddress::Host(host, port) => format!("{host}:{port}"),
            ServeAddress::Unix(path) => format!("unix:{path}"),
        }
    }

    /// The URL for a browser on the same machine; `None` for a Unix socket.
    pub fn url(&self) -> Option<String> {
        let (host, port) = match self {
            ServeAddress::Any(port) => ("localhost", *port),
            ServeAddress::Host(host, port) => match host.as_str() {
                "*" | "0.0.0.0" | "[::]" => ("localhost", *port),
                host => (host, *port),
            },
            ServeAddress::Unix(_) => return None,
        };
        Some(if port == 80 { format!("http://{host}/") } else { format!("http://{host}:{port}/") })
    }
}

fn parse_port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_number && *port > 0)
}

fn parse_address(text: &str, default_port: u16) -> Option<ServeAddress> {
    if let Some(path) = text.strip_prefix("unix:") {
        return path.starts_with('/').then(|| ServeAddress::Unix(path.to_owned()));
    }
    if let Some(port) = text.strip_prefix(':').and_then(parse_port).or_else(|| parse_port(text)) {
        return Some(ServeAddress::Any(port));
    }
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Some(ServeAddress::Host(format!("[{address}]"), default_port));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        let address: Ipv6Addr = address.parse().ok()?;
        let port = if rest.is_empty() { default_port } else { parse_port(rest.strip_prefix(':')?)? };
        return Some(ServeAddress::Host(format!("[{address}]"), port));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, parse_port(port)?),
        None => (text, default_port),
    };
    let is_number = host.bytes().all(|byte| byte.is_ascii_digit());
    let is_name = host.starts_with(|first: char| first.is_ascii_alphanumeric())
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    (host == "*" || !is_number && is_name).then(|| ServeAddress::Host(host.to_owned(), port))
}

/// A configuration for `serve`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeConfiguration {
    /// The text.
    pub text: Vec<u8>,
    /// Whether it must be run with the folder as prefix (`-p`): a `$` in a path would be a variable, and no quoting
    /// helps against that, so the text says `root .` instead.
    pub needs_prefix: bool,
}

/// Names with a hexadecimal content hash, as build tools make them; the same that `spa` takes for hashed.
const HASHED: &str =
    r#""~[.-](?=[0-9a-f]*[0-9])(?=[0-9a-f]*[a-f])[0-9a-f]{8,64}(\.chunk|\.min)?\.[A-Za-z0-9]+(\.map)?$""#;

/// The configuration that `serve` runs.
pub fn serve_configuration(options: &ServeOptions) -> ServeConfiguration {
    let needs_prefix = options.folder.contains(&b'$');
    let mut text = Vec::new();
    let mut line = |level: usize, words: &[&[u8]]| {
        text.resize(text.len() + 4 * level, b' ');
        text.extend_from_slice(&words.concat());
        text.push(b'\n');
    };
    line(0, &[b"# The configuration of `thalweg serve`; `thalweg -c FILE` runs it too."]);
    if needs_prefix {
        line(0, &[b"# The folder's name has a dollar sign, which is always a variable here: run it with `-p FOLDER`."]);
    }
    if let Some((user, group)) = &options.user {
        line(0, &[b"user ", &quote(user.as_bytes()), b" ", &quote(group.as_bytes()), b";"]);
    }
    line(0, &[b"worker_processes auto;"]);
    line(0, &[b"daemon off;"]);
    line(0, &[b"pid ", &quote(&options.pid_path), b";"]);
    line(0, &[b"error_log stderr warn;"]);
    line(0, &[b""]);
    line(0, &[b"events {"]);
    line(1, &[b"worker_connections 4096;"]);
    line(0, &[b"}"]);
    line(0, &[b""]);
    line(0, &[b"http {"]);
    line(1, &[br#"log_format short '$time_iso8601 $remote_addr "$request" $status $body_bytes_sent ${request_time}s';"#]);
    line(1, &[b"access_log /dev/stdout short;"]);
    line(1, &[b"log_not_found off;"]);
    line(0, &[b""]);
    line(1, &[b"sendfile on;"]);
    line(1, &[b"tcp_nopush on;"]);
    line(1, &[b"# Changes of files are seen at once."]);
    line(1, &[b"open_file_cache off;"]);
    line(1, &[b"etag on;"]);
    line(0, &[b""]);
    line(1, &[b"# `app.js.br`, `app.js.zst` and `app.js.gz` are sent in place of `app.js` to clients that can read them."]);
    line(1, &[b"brotli_static on;"]);
    line(1, &[b"zstd_static on;"]);
    line(1, &[b"gzip_static on;"]);
    line(1, &[b"gzip_vary on;"]);
    line(0, &[b""]);
    if !options.spa {
        line(1, &[b"# Browsers ask every time whether a file has changed, but for names that change with the content."]);
        line(1, &[b"map $uri $cache_control {"]);
        line(2, &[b"default no-cache;"]);
        line(2, &[HASHED.as_bytes(), b" \"public, max-age=31536000, immutable\";"]);
        line(1, &[b"}"]);
        line(0, &[b""]);
    }
    line(1, &[b"server {"]);
    line(2, &[b"listen ", &quote(options.address.argument().as_bytes()), b";"]);
    line(2, &[b"root ", if needs_prefix { b".".to_vec() } else { quote(&options.folder) }.as_slice(), b";"]);
    line(2, &[b"index index.html index.htm;"]);
    if options.spa {
        line(2, &[b"# What is no file is a page of the application."]);
        line(2, &[b"spa /index.html;"]);
    } else {
        line(2, &[b"add_header Cache-Control $cache_control;"]);
        if options.listing {
            line(2, &[b"autoindex on;"]);
            line(2, &[b"autoindex_exact_size off;"]);
            line(2, &[b"autoindex_localtime on;"]);
        }
    }
    line(0, &[b""]);
    line(2, &[b"# Hidden files stay hidden: .git, .env."]);
    line(2, &[br#"location ~ "/\.(?!well-known(/|$))" {"#]);
    line(3, &[b"return 404;"]);
    line(2, &[b"}"]);
    line(1, &[b"}"]);
    line(0, &[b"}"]);
    ServeConfiguration { text, needs_prefix }
}

/// One word of a configuration, whatever bytes it has; only `$` keeps its meaning.
fn quote(word: &[u8]) -> Vec<u8> {
    let is_plain =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'_' | b'-' | b':' | b'*');
    if !word.is_empty() && word.iter().all(is_plain) {
        return word.to_vec();
    }
    let mut out = vec![b'"'];
    for byte in word {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::parser::parse_text;
    use crate::conf::render;
    use crate::conf::source::MemoryFiles;
    use crate::conf::tree::Directive;
    use crate::http::testing::{World, build_whole};
    use proptest::prelude::*;

    fn options(folder: &[u8]) -> ServeOptions {
        ServeOptions {
            folder: folder.to_vec(),
            address: ServeAddress::Any(8080),
            spa: false,
            listing: true,
            pid_path: b"/run/user/0/thalweg 1.pid".to_vec(),
            user: None,
        }
    }

    fn tree_of(options: &ServeOptions) -> Vec<Directive> {
        let text = serve_configuration(options).text;
        let parsed = parse_text(&mut MemoryFiles::default(), "serve.conf", &text, "/");
        assert!(parsed.diagnostics.is_empty(), "{}", String::from_utf8_lossy(&text));
        parsed.tree
    }

    /// The arguments of the first directive of this name, wherever it stands.
    fn find(tree: &[Directive], name: &str) -> Option<Vec<Vec<u8>>> {
        tree.iter().find_map(|directive| {
            if directive.name() == name {
                return Some(directive.args().iter().map(|word| word.as_bytes().to_vec()).collect());
            }
            find(directive.block.as_deref()?, name)
        })
    }

    #[test]
    fn every_form_of_an_address_is_taken() {
        let choose = |listen| ServeAddress::choose(Some(listen), Some("9000")).unwrap();
        let host = |host: &str, port| ServeAddress::Host(host.to_owned(), port);
        assert_eq!(choose("3000"), ServeAddress::Any(3000));
        assert_eq!(choose(":3000"), ServeAddress::Any(3000));
        assert_eq!(choose("127.0.0.1:3000"), host("127.0.0.1", 3000));
        assert_eq!(choose("127.0.0.1"), host("127.0.0.1", 9000));
        assert_eq!(choose("localhost:3000"), host("localhost", 3000));
        assert_eq!(choose("*:3000"), host("*", 3000));
        assert_eq!(choose("[::1]:3000"), host("[::1]", 3000));
        assert_eq!(choose("[::]"), host("[::]", 9000));
        assert_eq!(choose("::1"), host("[::1]", 9000));
        assert_eq!(choose("unix:/tmp/a b"), ServeAddress::Unix("/tmp/a b".to_owned()));
        assert_eq!(ServeAddress::choose(None, Some("9000")), Ok(ServeAddress::Any(9000)));
        assert_eq!(ServeAddress::choose(None, Some("")), Ok(ServeAddress::Any(8080)));
        assert_eq!(ServeAddress::choose(None, None), Ok(ServeAddress::Any(8080)));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "", ":", "0", "65536", ":0", "a:b", "[::1", "[x]:1", "[::1]x", "a b:1", "a;b:1", "-1", "+80",
            "1:2:3", "unix:x",
        ] {
            assert!(ServeAddress::choose(Some(bad), None).is_err(), "{bad}");
        }
        for bad in ["x", "0", "99999", "+80"] {
            assert!(ServeAddress::choose(None, Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_url_is_one_for_a_browser_here() {
        let url = |listen| ServeAddress::choose(Some(listen), None).unwrap().url();
        assert_eq!(url("80").as_deref(), Some("http://localhost/"));
        assert_eq!(url("0.0.0.0:3000").as_deref(), Some("http://localhost:3000/"));
        assert_eq!(url("[::1]:3000").as_deref(), Some("http://[::1]:3000/"));
        assert_eq!(url("unix:/x"), None);
    }

    #[test]
    fn options_become_directives() {
        let plain = tree_of(&options(b"/srv/site"));
        assert_eq!(find(&plain, "root"), Some(vec![b"/srv/site".to_vec()]));
        assert_eq!(find(&plain, "autoindex"), Some(vec![b"on".to_vec()]));
        assert_eq!(find(&plain, "listen"), Some(vec![b"8080".to_vec()]));
        assert_eq!(find(&plain, "spa"), None);
        let spa = tree_of(&ServeOptions { spa: true, ..options(b"/srv/site") });
        assert_eq!(find(&spa, "spa"), Some(vec![b"/index.html".to_vec()]));
        assert_eq!(find(&spa, "autoindex"), None);
        let bare = tree_of(&ServeOptions { listing: false, ..options(b"/srv/site") });
        assert_eq!(find(&bare, "autoindex"), None);
        assert_eq!(find(&bare, "add_header").map(|args| args[0].clone()), Some(b"Cache-Control".to_vec()));
    }

    #[test]
    fn the_owner_of_the_folder_is_named_to_the_server() {
        let users = "root:x:0:0:root:/root:/bin/sh\nann:x:10:20::/:/bin/sh\nbob:x:1000:10::/:/bin/sh\n";
        assert_eq!(name_of(users, 10).as_deref(), Some("ann"));
        assert_eq!(name_of(users, 0).as_deref(), Some("root"));
        assert_eq!(name_of(users, 20), None);
        let user = Some(("ann".to_owned(), "users".to_owned()));
        let tree = tree_of(&ServeOptions { user, ..options(b"/srv/site") });
        assert_eq!(find(&tree, "user"), Some(vec![b"ann".to_vec(), b"users".to_vec()]));
        assert_eq!(find(&tree_of(&options(b"/srv/site")), "user"), None);
    }

    #[test]
    fn a_dollar_sign_is_left_to_the_prefix() {
        let configuration = serve_configuration(&options(b"/srv/$site"));
        assert!(configuration.needs_prefix);
        assert_eq!(find(&tree_of(&options(b"/srv/$site")), "root"), Some(vec![b".".to_vec()]));
        assert!(!serve_configuration(&options(b"/srv/site")).needs_prefix);
    }

    /// The world of the text's `http` block.
    fn world(options: &ServeOptions) -> World {
        let text = String::from_utf8(serve_configuration(options).text).unwrap();
        let (_, http) = text.split_once("http {\n").unwrap();
        World::new(http.trim_end().strip_suffix('}').unwrap())
    }

    #[test]
    fn every_text_is_a_configuration_without_a_complaint() {
        for (spa, listing, folder) in
            [(false, true, &b"/srv/a \"b\";{}'\\#"[..]), (true, true, b"/srv"), (false, false, b"/srv/$x")]
        {
            let options = ServeOptions { spa, listing, ..options(folder) };
            let text = serve_configuration(&options).text;
            let built = build_whole(text, MemoryFiles::default());
            let said: Vec<String> =
                built.diagnostics.iter().map(|diagnostic| render::line(diagnostic, &built.sources)).collect();
            assert!(built.site.is_some() && said.is_empty(), "{said:?}");
        }
    }

    #[test]
    fn a_served_folder_lists_caches_and_hides_as_promised() {
        let mut world = world(&options(b"/srv"))
            .file("/srv/app.4f3a9b2c.js", "script")
            .file("/srv/app.js", "script")
            .file("/srv/app.js.gz", "packed")
            .file("/srv/.git/config", "secret")
            .file("/srv/.well-known/x", "known")
            .file("/srv/docs/index.html", "docs");
        assert!(world.get("/").text().contains("href=\"app.js\""));
        assert_eq!(world.get("/docs/").text(), "docs");
        assert_eq!(world.get("/docs/").field("Cache-Control"), "no-cache");
        assert_eq!(world.get("/app.js").field("Cache-Control"), "no-cache");
        assert_eq!(
            world.get("/app.4f3a9b2c.js").field("Cache-Control"),
            "public, max-age=31536000, immutable"
        );
        assert_eq!(world.get_with("/app.js", "Accept-Encoding: gzip\r\n").text(), "packed");
        assert_eq!(world.get("/.git/config").status, 404);
        assert_eq!(world.get("/.well-known/x").text(), "known");
        assert_eq!(world.get("/app.js").field("Vary"), "Accept-Encoding");
    }

    #[test]
    fn a_served_application_answers_every_page_with_its_index() {
        let mut world =
            world(&ServeOptions { spa: true, ..options(b"/srv") }).file("/srv/index.html", "index");
        let reply = world.get("/users/42");
        assert_eq!((reply.text(), reply.field("Cache-Control").as_str()), ("index", "no-cache"));
        assert_eq!(world.get("/missing.js").status, 404);
    }

    #[test]
    fn a_folder_with_a_dollar_sign_is_served_from_the_prefix() {
        let mut world = world(&options(b"/srv/$x")).file("/usr/share/thalweg/./a.txt", "a");
        assert_eq!(world.get("/a.txt").text(), "a");
    }

    proptest! {
        #[test]
        fn any_folder_is_the_root(rest in prop::collection::vec(1u8.., 0..40)) {
            let folder = [&b"/"[..], &rest].concat();
            prop_assume!(!folder.contains(&b'$'));
            prop_assert_eq!(find(&tree_of(&options(&folder)), "root"), Some(vec![folder]));
        }

        #[test]
        fn folders_of_special_characters_too(rest in "[ ;{}\"'\\\\#\n\rntx/]{0,12}") {
            let folder = format!("/{rest}").into_bytes();
            prop_assert_eq!(find(&tree_of(&options(&folder)), "root"), Some(vec![folder]));
        }

        #[test]
        fn any_address_is_read_without_panic(text in "[\\[\\]:.*a0-9]{0,16}") {
            let _ = ServeAddress::choose(Some(&text), Some(&text));
        }
    }
}
