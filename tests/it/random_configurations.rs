//! Configurations that nobody would write, to nginx and to Thalweg: which file, status, redirect and upstream a request
//! gets must be the same however locations, rewriting, `try_files`, `index`, `alias`, error pages and access rules are
//! nested.
//!
//! An ordinary run takes [`SEEDS`] configurations, always the same. `THALWEG_CONFIGURATIONS=1000..2000` takes those of other
//! seeds. What is known to differ is not drawn: ranges beyond the end (nginx gives the 416 the fields of the 200), targets that
//! are no URI. How a body is framed is not compared: what filters have changed has a length here where it is known.

use std::fmt::Write as _;
use std::ops::Range;

use crate::util::{Nginx, Parity, Server, nginx, subject_is_ours};

/// Seeds of an ordinary run; two in three make configurations that both refuse.
const SEEDS: Range<u64> = 0..100;

const FILES: &[&str] = &[
    "index.html",
    "a.txt",
    "b.html",
    "404.html",
    "x.php",
    "dir/index.html",
    "dir/a.txt",
    "dir/sub/x.html",
    "dir/sub/index.htm",
    "dir/noext",
    "img/p.png",
    "other/a.txt",
    "other/index.html",
    "sp ace/f.txt",
    "dir/dir/a.txt",
    "other/dir/sub/x.html",
];

const TARGETS: &[&str] = &[
    "/",
    "/index.html",
    "/a.txt",
    "/b.html",
    "/dir",
    "/dir/",
    "/dir/a.txt",
    "/dir/sub",
    "/dir/sub/",
    "/dir/sub/x.html",
    "/none",
    "/none/",
    "/dir/none",
    "/img/p.png",
    "/IMG/P.PNG",
    "/x.php",
    "/x.php/info",
    "/sp%20ace/f.txt",
    "/sp%20ace",
    "/other/a.txt",
    "/other/",
    "/al/a.txt",
    "/al/",
    "/al",
    "/alx/a.txt",
    "/r/1",
    "/r/abc",
    "/old/a.txt",
    "/old/dir/a.txt",
    "/404.html",
    "/dir//a.txt",
    "/dir/./a.txt",
    "/dir/../a.txt",
    "/%61.txt",
    "/dir/noext",
    "/a.txt?x=1&y=2",
    "/dir?q=1",
    "/old?a=b",
    "/r/1?arg=z",
    "/a.txt/",
    "/index.html/x",
    "/dir%2fa.txt",
    "/DIR/",
    "/caf%c3%a9",
    "/r/%3f",
    "/r/a%26b",
    "/old/x%20y?k=v%20w",
];

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((value ^ (value >> 31)) % bound as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    /// Some texts with variables.
    fn words(&mut self) -> String {
        const WORDS: &[&str] = &[
            "$uri",
            "$request_uri",
            "$args",
            "$is_args$args",
            "x",
            "$document_root",
            "$request_filename",
            "$host",
            "$1",
            "$2",
            "$arg_x",
            "$http_x_a",
            "/$1",
            "$scheme",
            "$request_method",
            "$query_string",
            "$document_uri",
            "$v",
            "$w",
            "$kind",
        ];
        (0..1 + self.below(3)).map(|_| self.pick(WORDS)).collect::<Vec<_>>().join(" ")
    }

    fn rewrite(&mut self) -> String {
        let pattern = self.pick(&[
            "^/old/(.*)$",
            "^/r/(.*)$",
            "^/(.*)$",
            r"^/dir/(.*)\.txt$",
            "a",
            "^/none",
            r"(.*)\.html$",
            r"^/(\w+)/(\w+)",
            "^/old(.*)$",
            "/$",
            "^/([a-z]+)$",
        ]);
        let target = self.pick(&[
            "/dir/$1",
            "/other/$1",
            "/a.txt",
            "/$1",
            "/index.html",
            "/r/$1",
            "/$1?x=$1",
            "/b.html?",
            "http://e.test/$1",
            "/other/a.txt?a=b",
            "/dir/$2/$1",
        ]);
        format!("rewrite {pattern} {target} {};", self.pick(&["", "last", "break", "redirect", "permanent"]))
    }

    fn answer(&mut self) -> String {
        match self.below(4) {
            0 => format!(
                "return {};",
                self.pick(&["200", "204", "400", "403", "404", "405", "410", "500", "502", "503", "301"])
            ),
            1 => format!("return {} \"{}\";", self.pick(&["200", "201", "403", "404", "500"]), self.words()),
            2 => {
                let status = self.pick(&["301", "302", "303", "307", "308"]);
                let target = self.pick(&[
                    "/a.txt",
                    "http://e.test$request_uri",
                    "/dir/?a",
                    "$scheme://$host/x",
                    "/$1",
                    "b",
                ]);
                format!("return {status} {target};")
            }
            _ => format!("return {};", self.pick(&["http://e.test/", "https://e.test$uri"])),
        }
    }

    fn condition(&mut self, in_location: bool) -> String {
        let condition = self.pick(&[
            "$arg_x",
            "$args",
            "$request_method = POST",
            r"$uri ~ ^/r/(\d+)",
            "-f $request_filename",
            "!-f $request_filename",
            "-d $request_filename",
            "!-e $request_filename",
            "$http_x_a = 1",
            "$http_x_a != 1",
            "$host ~* ^b",
            r"$uri ~ \.txt$",
            "$v = 1",
            "$uri !~ dir",
            "$arg_x = 1",
            "$v",
            "-e $document_root/a.txt",
        ]);
        let mut body = String::new();
        for _ in 0..1 + self.below(2) {
            body += &match self.below(if in_location { 6 } else { 4 }) {
                0 => self.answer(),
                1 => self.rewrite(),
                2 => format!("set $v {};", self.pick(&["1", "2", "$uri", "a$1"])),
                3 => "break;".to_owned(),
                4 => self
                    .pick(&["root {root}/html/dir;", "expires 1h;", "error_page 404 = /b.html;"])
                    .to_owned(),
                _ => format!("add_header X-If \"{}\";", self.words()),
            };
        }
        format!("if ({condition}) {{ {body} }}")
    }

    /// What may stand at any level.
    fn settings(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut maybe = |dice: &mut Dice, count: usize, choices: &[&str]| {
            if dice.one_in(count) {
                lines.push(dice.pick(choices).to_owned());
            }
        };
        maybe(
            self,
            7,
            &[
                "index index.htm index.html;",
                "index none.html /b.html;",
                "index a.txt;",
                "index index.$v index.html;",
                "index none;",
            ],
        );
        maybe(
            self,
            5,
            &[
                "error_page 404 /404.html;",
                "error_page 404 = /b.html;",
                "error_page 404 =200 /a.txt;",
                "error_page 403 404 500 /404.html;",
                "error_page 404 @f;",
                "error_page 404 = @f;",
                "error_page 404 http://e.test/;",
                "error_page 404 =301 /other/;",
                "error_page 405 /a.txt;",
                "error_page 403 =404 /404.html;",
                "error_page 404 /none2;",
                "error_page 404 =204 /404.html;",
                "error_page 301 302 /a.txt;",
            ],
        );
        maybe(self, 12, &["recursive_error_pages on;"]);
        maybe(self, 12, &["absolute_redirect off;", "port_in_redirect off;", "server_name_in_redirect on;"]);
        maybe(self, 14, &["expires 1h;", "expires -1;", "expires max;", "expires modified +1d;"]);
        maybe(self, 14, &["default_type text/html;", "default_type \"\";", "default_type application/x;"]);
        maybe(self, 20, &["types { text/x-t txt; text/html html; }"]);
        maybe(
            self,
            20,
            &["etag off;", "max_ranges 0;", "max_ranges 1;", "if_modified_since before;", "charset utf-8;"],
        );
        maybe(self, 14, &["allow 127.0.0.1; deny all;", "deny all;", "satisfy any;"]);
        maybe(self, 20, &["auth_request /a.txt;", "auth_request /none;", "auth_request off;"]);
        maybe(self, 20, &["client_max_body_size 1;", "client_max_body_size 1m;"]);
        maybe(
            self,
            20,
            &[
                "addition_types *; add_after_body /b.html;",
                "ssi on;",
                "sub_filter text <$1>; sub_filter_types *;",
            ],
        );
        if self.one_in(9) {
            let always = self.pick(&["", " always"]);
            lines.push(format!("add_header X-A \"{}\"{always};", self.words()));
        }
        for _ in 0..self.below(3) {
            lines.push(match self.below(4) {
                0 => self.rewrite(),
                1 => self.condition(false),
                2 => format!(
                    "set ${} {};",
                    self.pick(&["v", "w"]),
                    self.pick(&["1", "$uri", "\"a b\"", "$1", "$args", "html"])
                ),
                _ => "break;".to_owned(),
            });
        }
        lines
    }

    /// A location, unless there is one of that name already. `around` is the name of the one around it.
    fn location(&mut self, around: &str, depth: usize, names: &mut Vec<String>) -> Option<String> {
        let patterns = [
            r"\.txt$",
            r"\.php$",
            r"^/r/(\d+)$",
            r"^/(\w+)/a",
            r"\.(png|html)$",
            "^/dir/(?<rest>.*)$",
            "/$",
            "index",
        ];
        let is_pattern = self.one_in(3);
        let name = if is_pattern {
            format!("{} {}", self.pick(&["~", "~*"]), self.pick(&patterns))
        } else {
            let kind = self.pick(&["", "", "= ", "^~ "]);
            match around {
                "" => {
                    kind.to_owned()
                        + self.pick(&[
                            "/", "/dir/", "/dir", "/r/", "/old", "/img/", "/al/", "/al", "/other/", "/none",
                        ])
                }
                _ => format!("{kind}{around}{}", self.pick(&["a.txt", "sub/", "", "x"])),
            }
        };
        if names.contains(&name) {
            return None;
        }
        names.push(name.clone());
        let mut lines = self.settings();
        if self.one_in(4) {
            let tried = self.pick(&[
                "$uri $uri/ =404",
                "$uri /b.html",
                "$uri $uri.html $uri/index.html @f",
                "/none $uri/ /index.html?$args",
                "$uri @f",
                "$uri/ =403",
                "/dir$uri $uri =404",
                "$1 /a.txt",
            ]);
            lines.push(format!("try_files {tried};"));
        }
        match self.below(12) {
            0 | 1 => lines.push(format!(
                "alias {{root}}/html/{};",
                self.pick(&["other/", "dir/", "$1", "other", "dir/$1", "dir/sub/"])
            )),
            2 => lines.push(format!("root {{root}}/html/{};", self.pick(&["dir", "other", "none"]))),
            3 => lines.push("internal;".to_owned()),
            4 => lines.push("limit_except GET { deny all; }".to_owned()),
            5 if !is_pattern => {
                let uri = self.pick(&["", "/", "/pp/", "/pp", "$request_uri"]);
                lines.push(format!("proxy_pass http://127.0.0.1:{{port2}}{uri};"));
            }
            5 => lines.push("proxy_pass http://127.0.0.1:{port2};".to_owned()),
            6 => lines.push(self.answer()),
            7 => lines.push(self.condition(true)),
            _ => {}
        }
        if depth < 2 && !name.starts_with('=') && self.one_in(3) {
            let around = if is_pattern { "/" } else { name.rsplit(' ').next().unwrap_or("/") };
            lines.extend((0..1 + self.below(2)).filter_map(|_| self.location(around, depth + 1, names)));
        }
        Some(format!("location {name} {{ {} }}", lines.join("\n    ")))
    }

    fn server(&mut self, listen: &str, name: &str) -> String {
        let mut lines = self.settings();
        let mut names = Vec::new();
        lines.extend((0..1 + self.below(6)).filter_map(|_| self.location("", 0, &mut names)));
        let fallback = self.pick(&["200 \"named $uri $args\"", "404", "302 /a.txt", "200 \"f $1\""]);
        format!(
            "server {{ listen {listen}; server_name {name}; root {{root}}/html;\n  {}\n  location @f {{ return {fallback}; }} }}\n",
            lines.join("\n  ")
        )
    }

    fn configuration(&mut self) -> String {
        let settings = self.settings();
        // At the outermost level there is nothing to rewrite.
        let is_plain =
            |line: &&String| !["rewrite", "if", "set", "break"].iter().any(|name| line.starts_with(name));
        let mut text = String::from(
            r#"worker_processes 1;
http { types { text/html html htm; text/plain txt; image/png png; }
  map $uri $kind { default d; ~\.txt$ t; /dir/ D; ~^/r/(?<number>.*)$ r$number; }
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host up;
"#,
        );
        for line in settings.iter().filter(is_plain) {
            let _ = writeln!(text, "  {line}");
        }
        text += &self.server("{port} default_server", "first");
        text += &self.server("{port}", "b.test *.b.test");
        text += &self.server("{port}", r"~^c(\d)\.test$");
        text += "server { listen {port2}; set $v \"\"; set $w \"\";
  return 200 \"$request_method $request_uri $http_host $content_length\\n\"; } }";
        text
    }

    fn request(&mut self, target: &str) -> String {
        let method = self.pick(&["GET", "GET", "GET", "GET", "GET", "GET", "HEAD", "POST", "PUT", "OPTIONS"]);
        let host = self.pick(&["a.test", "b.test", "x.b.test", "c1.test", "B.test:80"]);
        let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        if self.one_in(6) {
            text += "X-A: 1\r\n";
        }
        if self.one_in(10) {
            let _ = write!(text, "Range: bytes={}\r\n", self.pick(&["0-1", "-2", "1-", "0-0,1-1"]));
        }
        if matches!(method, "POST" | "PUT") { text + "Content-Length: 3\r\n\r\nabc" } else { text + "\r\n" }
    }
}

/// Whether a configuration is accepted by nginx and by us: both or neither.
fn is_accepted(text: &str) -> bool {
    let theirs = Nginx::builder(text).run(&["-t"]);
    let ours = Server::builder(text).run(&["-t"]);
    assert_eq!(ours.status.success(), theirs.status.success(), "ours: {ours:?}\nnginx: {theirs:?}\n{text}");
    ours.status.success()
}

#[test]
fn requests_go_where_nginx_sends_them() {
    if !nginx::available() || !subject_is_ours() {
        return;
    }
    let wanted = std::env::var("THALWEG_CONFIGURATIONS").unwrap_or_default();
    let seeds = match wanted.split_once("..") {
        Some((first, end)) => first.parse().expect("a seed")..end.parse().expect("a seed"),
        None => SEEDS,
    };
    let (mut accepted, mut report) = (0, String::new());
    for seed in seeds {
        let mut dice = Dice(seed.wrapping_mul(0xd129_0d3d_5d8f_1f7b));
        let text = dice.configuration();
        if !is_accepted(&text) {
            continue;
        }
        accepted += 1;
        let files =
            FILES.iter().fold(Parity::new(&text), |parity, name| parity.file(&format!("html/{name}"), *name));
        let parity = TARGETS.iter().fold(
            files.ignore("expires").ignore("content-length").ignore("transfer-encoding"),
            |parity, target| parity.request(dice.request(target)),
        );
        let differences = parity.differences();
        if !differences.is_empty() {
            let _ = write!(report, "seed {seed}\n{differences}\n{text}\n");
        }
    }
    assert!(report.is_empty(), "answers differ (- nginx, + ours)\n{report}");
    assert!(accepted > 0);
    eprintln!("{accepted} configurations, {} requests each", TARGETS.len());
}
