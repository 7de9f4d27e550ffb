use crate::http::testing::{Reply, World};

/// What the answers of nginx in `nginx_cases.txt` were asked for with, in the place of `/t.html`.
const CONFIGURATION: &str = r#"server {
    root /html; default_type text/html; ssi on;
    set $conf "conf<v>&\"'"; set $empty "";
    location /inc/ { return 200 "[inc $uri?$args]"; }
    location /ie/ { return 200 ""; }
    location /inc404/ { return 404; }
    location /plain/ { ssi off; alias /html/; }
    location /silent/ { ssi_silent_errors on; alias /html/; }
    location /lm/ { ssi_last_modified on; alias /html/; }
    location /short/ { ssi_value_length 8; alias /html/; }
    log_subrequest off;
}"#;

const SUB: &str = r#"[sub <!--#echo var="sv" --> <!--#echo var="uri" --> <!--#set var="subv" value="fromsub" -->]"#;
const SUB1: &str =
    r#"[<!--#echo var="1" --><!--#if expr="$uri = /(s)(u)/" --><!--#endif --><!--#echo var="2" -->]"#;

fn world(page: impl Into<Vec<u8>>) -> World {
    World::new(CONFIGURATION)
        .file("/html/t.html", page)
        .file("/html/sub.html", SUB)
        .file("/html/sub1.html", SUB1)
        .file("/html/sub2.html", "[sub <!--#foo -->]")
        .file("/html/sub3.html", SUB1)
        .file("/html/empty.html", "")
}

fn page(page: &str) -> String {
    world(page).get("/t.html").text().to_owned()
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'\\' => match bytes.next() {
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(b'x') => {
                    let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => other.unwrap(),
            },
            byte => byte,
        });
    }
    out
}

/// Lines of the log that are about commands.
fn complaints(reply: &Reply) -> Vec<String> {
    let is_of_commands = |line: &&str| !line.starts_with("[error] open()") && !line.starts_with("[error] \"/");
    reply.log_texts().into_iter().filter(is_of_commands).map(|line| line.replace("[error] ", "")).collect()
}

#[test]
fn pages_and_log_lines_are_those_of_nginx() {
    let mut wrong = Vec::new();
    let cases = include_str!("nginx_cases.txt");
    for case in cases.split("\n\n") {
        let mut lines = case.trim_end_matches('\n').split('\n');
        let (page, expected) = (lines.next().unwrap(), lines.next().unwrap().strip_prefix("=> ").unwrap());
        let reply = world(unescaped(page)).get("/t.html");
        if reply.body != unescaped(expected) {
            wrong.push(format!("{page}\n   is {}\n  not {expected}", reply.body.escape_ascii()));
        }
        let expected: Vec<Vec<u8>> = lines.map(|line| unescaped(line.strip_prefix("! ").unwrap())).collect();
        let expected: Vec<_> = expected.iter().map(|line| String::from_utf8_lossy(line)).collect();
        let told = complaints(&reply);
        if told != expected {
            wrong.push(format!("{page}\n   told {told:?}\n   not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases.split("\n\n").count() > 200);
}
