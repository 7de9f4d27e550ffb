//! Configuration text for tests: placeholders filled in, and what every test would have to repeat added.

use std::path::Path;

/// Which program the text is for: the reference needs more told, so that it touches nothing outside its folder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Program {
    Thalweg,
    Nginx,
}

/// What [`complete`] fills in.
pub struct Filling<'a> {
    pub program: Program,
    pub root: &'a Path,
    pub ports: &'a [u16],
    pub master: bool,
    pub daemon: bool,
}

/// Makes a whole configuration of a test's text.
///
/// `{root}` becomes the folder, `{fixtures}` that of the certificates which tests use, `{port}` or `{port1}` the first port, `{port2}` ... `{port9}` further ones. Text without
/// an `http` block at its top level is taken as the contents of one. Directives that the text does not set itself
/// (`daemon`, `master_process`, `pid`, `error_log`, `events`, `access_log`) are added before or behind it on its own
/// first or last line, so that line numbers in messages stay those of the test's text.
pub fn complete(text: &str, filling: &Filling) -> String {
    let root = filling.root.to_str().expect("the folder's name is UTF-8");
    let mut text = text.replace("{root}", root).replace("{fixtures}", super::tls::FIXTURES);
    for (index, port) in filling.ports.iter().enumerate().rev() {
        text = text.replace(&format!("{{port{}}}", index + 1), &port.to_string());
        if index == 0 {
            text = text.replace("{port}", &port.to_string());
        }
    }

    let has_http = top_level(&text).iter().any(|directive| directive.name == "http");
    if !has_http && !text.trim().is_empty() {
        text = format!("http {{{text}\n}}");
    }
    text = fill_http(text, root, filling.program);

    let names: Vec<String> = top_level(&text).into_iter().map(|directive| directive.name).collect();
    let mut head = String::new();
    let mut add = |name: &str, value: &str| {
        if !names.iter().any(|known| known == name) {
            head.push_str(&format!("{name} {value}; "));
        }
    };
    if names.iter().any(|name| name == "stream" || name == "mail") && filling.program == Program::Nginx {
        add("load_module", "/usr/lib/nginx/modules/ngx_stream_module.so");
    }
    add("daemon", if filling.daemon { "on" } else { "off" });
    add("master_process", if filling.master { "on" } else { "off" });
    add("pid", &format!("{root}/server.pid"));
    add("error_log", &format!("{root}/error.log info"));
    if filling.program == Program::Nginx && rustix::process::geteuid().is_root() {
        add("user", "root");
    }
    let tail = if names.iter().any(|name| name == "events") { "" } else { " events { }" };
    format!("{head}{text}{tail}\n")
}

/// Adds to the `http` block what it does not set: the log in the folder, and for nginx its temporary folders.
fn fill_http(text: String, root: &str, program: Program) -> String {
    let Some(http) = top_level(&text).into_iter().find(|directive| directive.name == "http") else {
        return text;
    };
    let Some((open, close)) = http.block else { return text };
    let inner = top_level(&text[open + 1..close]);
    let mut wanted = vec![("access_log", format!("{root}/access.log"))];
    if program == Program::Nginx {
        for part in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            let name = match part {
                "client_body" => "client_body_temp_path",
                "proxy" => "proxy_temp_path",
                "fastcgi" => "fastcgi_temp_path",
                "uwsgi" => "uwsgi_temp_path",
                _ => "scgi_temp_path",
            };
            wanted.push((name, format!("{root}/temporary_{part}")));
        }
    }
    let added: String = wanted
        .iter()
        .filter(|(name, _)| !inner.iter().any(|directive| directive.name == *name))
        .map(|(name, value)| format!(" {name} {value};"))
        .collect();
    format!("{}{{{added}{}", &text[..open], &text[open + 1..])
}

/// A directive of one level of the text: its name, and where its block's braces are.
struct Directive {
    name: String,
    block: Option<(usize, usize)>,
}

/// The directives of the outermost level. Knows quotes, comments, escapes and `${name}`; no more is needed for tests.
fn top_level(text: &str) -> Vec<Directive> {
    let bytes = text.as_bytes();
    let mut directives = Vec::new();
    let (mut at, mut depth, mut open) = (0, 0usize, 0);
    let mut name = String::new();
    let mut name_ended = false;
    while at < bytes.len() {
        match bytes[at] {
            b'#' if at == 0 || matches!(bytes[at - 1], b' ' | b'\t' | b'\n' | b';' | b'{' | b'}') => {
                while at < bytes.len() && bytes[at] != b'\n' {
                    at += 1;
                }
                continue;
            }
            b'\\' => at += 1,
            quote @ (b'"' | b'\'') if matches!(bytes[at.saturating_sub(1)], b' ' | b'\t' | b'\n') => {
                at += 1;
                while at < bytes.len() && bytes[at] != quote {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
            }
            b'$' if bytes.get(at + 1) == Some(&b'{') => {
                while at < bytes.len() && bytes[at] != b'}' {
                    at += 1;
                }
            }
            b'{' => {
                if depth == 0 {
                    open = at;
                }
                depth += 1;
            }
            b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    directives.push(Directive { name: std::mem::take(&mut name), block: Some((open, at)) });
                    name_ended = false;
                }
            }
            b';' if depth == 0 => {
                directives.push(Directive { name: std::mem::take(&mut name), block: None });
                name_ended = false;
            }
            byte if depth == 0 && byte.is_ascii_whitespace() => name_ended = !name.is_empty(),
            byte if depth == 0 && !name_ended => name.push(char::from(byte)),
            _ => {}
        }
        at += 1;
    }
    directives
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(text: &str, program: Program) -> String {
        let filling =
            Filling { program, root: Path::new("/r"), ports: &[8001, 8002], master: true, daemon: false };
        complete(text, &filling)
    }

    #[test]
    fn text_of_servers_is_wrapped_and_keeps_its_lines() {
        let text = completed("server {\n listen {port2}; # }\n root {root}/a;\n}", Program::Thalweg);
        assert_eq!(
            text,
            "daemon off; master_process on; pid /r/server.pid; error_log /r/error.log info; \
             http { access_log /r/access.log;server {\n listen 8002; # }\n root /r/a;\n}\n} events { }\n"
        );
    }

    #[test]
    fn what_the_text_sets_is_not_added_again() {
        let text = completed(
            "daemon on;\nevents {}\nhttp { access_log off; log_format a '}{;'; }",
            Program::Thalweg,
        );
        assert_eq!(text.matches("daemon").count(), 1);
        assert_eq!(text.matches("events").count(), 1);
        assert_eq!(text.matches("access_log").count(), 1);
    }
}
