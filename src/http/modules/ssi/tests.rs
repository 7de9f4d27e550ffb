use proptest::prelude::*;

use crate::http::testing::{Reply, World, complaints as complaints_of};

use super::law_any_split_gives_the_same;

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

const ERROR: &str = "[an error occurred while processing the directive]";

/// Where nginx leaves bytes out, refuses what is clear, or shows what it should not.
#[test]
fn pages_that_nginx_garbles_come_out_sensibly() {
    for (text, expected) in [
        // nginx drops what is open at the end of a page.
        (r#"<!--#echo var="conf" x"#, r#"<!--#echo var="conf" x"#),
        (r#"<!--#echo var="conf" --->"#, r#"<!--#echo var="conf" --->"#),
        ("a<!--#", "a<!--#"),
        ("a<!-", "a<!-"),
        ("a<", "a<"),
        // It has one level of conditions, and takes the inner ones for errors.
        (r#"<!--#if expr="x" -->T<!--#if expr="y" -->N<!--#endif -->M<!--#endif -->b"#, "TNMb"),
        (r#"<!--#if expr="" -->T<!--#if expr="y" -->N<!--#endif -->M<!--#else -->F<!--#endif -->b"#, "Fb"),
        (
            r#"<!--#if expr="x" -->T<!--#if expr="" -->N<!--#else -->M<!--#endif -->O<!--#endif -->b"#,
            "TMOb",
        ),
        // The end of a block within text that is not shown shows the rest of it there.
        (r#"<!--#if expr="" --><!--#endblock -->R<!--#endif -->b"#, "b"),
        (
            r#"<!--#if expr="" --><!--#block name="x" -->S<!--#endif --><!--#endblock -->R<!--#else -->Q<!--#endif -->"#,
            "Q",
        ),
        // It writes commands of blocks anew, always with double quotes.
        (
            r#"<!--#block name="x" --><!--#set var="q" value='a"b' --><!--#echo var='q' --><!--#endblock -->
               <!--#include virtual="/inc404/" stub="x" -->"#,
            "\n               a&quot;b",
        ),
        // It does not follow the commands of a block that takes the place of a body with the length 0.
        (
            r#"<!--#block name="x" --><!--#echo var="uri" --><!--#endblock --><!--#include virtual="/ie/" stub="x" -->"#,
            "/ie/",
        ),
        // It drops percent signs of broken escapes.
        (r#"<!--#include virtual="/inc/%zz" -->"#, "[inc /inc/%zz?]"),
    ] {
        assert_eq!(page(text), expected, "{text}");
    }
}

#[test]
fn heads_of_pages_promise_neither_length_nor_ranges_nor_age() {
    let mut world = world("text");
    let reply = world.get_with("/t.html", "Range: bytes=1-2\r\n");
    assert_eq!((reply.status, reply.text()), (200, "text"));
    for name in ["Content-Length", "Accept-Ranges", "Last-Modified", "ETag"] {
        assert!(!reply.has(name), "{name}");
    }
    let reply = world.get("/lm/t.html");
    assert!(reply.has("Last-Modified"));
    assert!(reply.field("ETag").starts_with("W/\""));
    assert!(!reply.has("Content-Length"));
    for untouched in ["/plain/t.html", "/empty.html"] {
        let reply = world.get(untouched);
        assert!(reply.has("Content-Length") && reply.has("Last-Modified"), "{untouched}");
    }
}

#[test]
fn only_pages_of_the_types_that_are_named_are_followed() {
    let mut world = World::new(
        "types { text/html html; text/plain txt; text/css css; } ssi on; ssi_types text/plain;
         server { root /html; location /if/ { ssi off; if ($arg_on) { ssi on; } } }",
    );
    for name in ["a.html", "a.txt", "a.css", "if/a.txt"] {
        world = world.file(&format!("/html/{name}"), "<!--#echo var='args' -->");
    }
    assert_eq!(world.get("/a.html?x").text(), "x");
    assert_eq!(world.get("/a.txt?x").text(), "x");
    assert_eq!(world.get("/a.css?x").text(), "<!--#echo var='args' -->");
    assert_eq!(world.get("/if/a.txt?on=1").text(), "on=1");
    assert_eq!(world.get("/if/a.txt").text(), "<!--#echo var='args' -->");
}

#[test]
fn pages_are_followed_behind_sub_filter() {
    let mut world = World::new(
        "ssi on; default_type text/html; server { root /html; sub_filter HERE '<!--#echo var=\"uri\" -->'; }",
    )
    .file("/html/t.html", "<HERE>");
    assert_eq!(world.get("/t.html").text(), "</t.html>");
}

#[test]
fn silent_errors_are_logged_all_the_same() {
    let reply = world("a<!--#foo -->b<!--#echo var= -->c").get("/silent/t.html");
    assert_eq!(reply.text(), "abc");
    assert_eq!(complaints(&reply).len(), 2);
}

#[test]
fn values_are_as_long_as_the_directive_says() {
    let value = |text: &str| world(format!("<!--#echo var='u' default={text} -->")).get("/short/t.html");
    assert_eq!(value("'12345678'").text(), "12345678");
    let reply = value("'123456789'");
    assert_eq!(reply.text(), ERROR);
    assert_eq!(
        complaints(&reply),
        [r#"too long "123456789..." value of "default" parameter in "echo" SSI command"#]
    );
    let default = |length| page(&format!("<!--#echo var='u' default='{}' -->", "x".repeat(length)));
    assert_eq!((default(255), default(256).as_str()), ("x".repeat(255), ERROR));
    // A backslash counts as well.
    assert_eq!(value(r#""1234567\"""#).text(), ERROR);
}

#[test]
fn dates_have_the_format_that_the_page_has_set() {
    assert_eq!(
        page(r#"<!--#echo var="date_gmt" -->|<!--#config timefmt="%s" --><!--#echo var="date_local" -->"#),
        "Tuesday, 14-Nov-2023 22:13:20 GMT|1700000000"
    );
    assert_eq!(
        page(r#"<!--#set var="d" value="$date_local" --><!--#config timefmt="%Y" --><!--#echo var="d" -->"#),
        "Tuesday, 14-Nov-2023 22:13:20 UTC"
    );
    let mut world = World::new("server { location / { return 200 $date_gmt; } }");
    assert_eq!(world.get("/").text(), "Tuesday, 14-Nov-2023 22:13:20 GMT");
}

#[test]
fn variables_that_the_configuration_does_not_mention_keep_their_value() {
    let reply = world("<!--#echo var='request_id' -->|<!--#echo var='request_id' -->").get("/t.html");
    let (first, second) = reply.text().split_once('|').unwrap();
    assert_eq!(first, second);
    assert_eq!(first.len(), 32);
    assert_eq!(page("<!--#echo var='server_addr' -->|<!--#echo var='ARG_x' -->"), "198.51.100.1|(none)");
    assert_eq!(world("<!--#echo var='ARG_x' -->").get("/t.html?x=y").text(), "y");
}

#[test]
fn what_a_variable_takes_is_that_of_the_include_it_waits_for() {
    assert_eq!(page(r#"a<!--#include virtual="/inc/1" set="v" -->b<!--#echo var="v" -->"#), "ab[inc /inc/1?]");
    let text = r#"<!--#set var="v" value="old" --><!--#include virtual="/inc404/" set="v" --><!--#echo var="v" -->"#;
    assert_eq!(page(text), "old");
}

#[test]
fn values_that_double_end_at_a_bound() {
    let mut text = r#"<!--#set var="v" value="0123456789abcdef" -->"#.to_owned();
    for _ in 0..40 {
        text.push_str(r#"<!--#set var="v" value="$v$v" -->"#);
    }
    let reply = world(text + r#"<!--#echo var="v" -->"#).get("/t.html");
    let errors = reply.text().matches(ERROR).count();
    assert_eq!(errors, 26);
    assert_eq!(reply.body.len(), (256 << 10) + errors * ERROR.len());
    assert!(complaints(&reply)[0].ends_with("comes to too long a text"), "{:?}", complaints(&reply)[0]);
}

#[test]
fn variables_blocks_and_conditions_are_counted() {
    let sets: String = (0..300).map(|n| format!("<!--#set var='v{n}' value='x' -->")).collect();
    assert_eq!(page(&sets).matches(ERROR).count(), 300 - 256);
    let blocks: String = (0..300).map(|n| format!("<!--#block name='v{n}' -->x<!--#endblock -->")).collect();
    assert_eq!(page(&blocks).matches(ERROR).count(), 300 - 256);
    let long = format!("<!--#block name='b' -->{}<!--#endblock -->c", "x".repeat(2 << 20));
    assert_eq!(page(&long), format!("{ERROR}c"));
    let deep = format!("{}x{}y", "<!--#if expr='1' -->".repeat(17), "<!--#endif -->".repeat(17));
    assert_eq!(page(&deep), format!("{ERROR}y"));
    let deep = format!("{}x{}y", "<!--#if expr='1' -->".repeat(16), "<!--#endif -->".repeat(16));
    assert_eq!(page(&deep), "xy");
}

#[test]
fn a_command_of_nothing_but_spaces_ends_at_a_bound() {
    let spaces = format!("a<!--#{}echo var='uri' -->b", " ".repeat(20_000));
    assert_eq!(page(&spaces), format!("a{ERROR}b"));
    // Even if it never ends.
    assert_eq!(page(&format!("a<!--#{}", " ".repeat(20_000))), format!("a{ERROR}"));
}

#[test]
fn what_clients_send_does_not_lift_the_bound_of_a_regular_expression() {
    let text = "<!--#if expr='$uri = /$arg_p/' -->T<!--#else -->F<!--#endif -->";
    assert_eq!(world(text).get("/t.html?p=html").text(), "T");
    let reply = world(text).get("/t.html?p=(*LIMIT_MATCH=99999999)h");
    assert!(reply.text().starts_with(ERROR));
    assert_eq!(page("<!--#if expr='$uri = /(*UTF8)html/' -->T<!--#endif -->"), "T");
}

#[test]
fn a_page_that_includes_itself_ends() {
    let reply = world("a<!--#include virtual='/t.html' -->c").get("/t.html");
    assert_eq!(reply.text(), format!("{}{ERROR}{}", "a".repeat(52), "c".repeat(52)));
    assert_eq!(complaints(&reply), ["subrequests cycle while processing \"/t.html\""]);
}

#[test]
fn directives_are_checked_as_nginx_does() {
    let complain = |text: &str| complaints_of(&format!("{text} server {{ }}"));
    assert_eq!(
        complain("ssi_value_length x;"),
        [r#"[emerg] "ssi_value_length" directive invalid value"#]
    );
    assert_eq!(
        complain("ssi_min_file_chunk x;"),
        [r#"[emerg] "ssi_min_file_chunk" directive invalid value"#]
    );
    assert!(complain("ssi on; ssi off;")[0].contains("duplicate"));
}

proptest! {
    #[test]
    fn any_split_of_any_commands_gives_the_same(
        pieces in proptest::collection::vec(any_piece(), 0..20),
        step in 1usize..40,
    ) {
        law_any_split_gives_the_same(pieces.concat().as_bytes(), step);
    }
}

/// A piece of a page, with commands and what is nearly one.
fn any_piece() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        Just("x".to_owned()),
        Just("$v$v".to_owned()),
        Just("$text".to_owned()),
        Just("$uri = /(p)(?<n>a)?/".to_owned()),
        Just("$v != $1".to_owned()),
        Just("/a?$v".to_owned()),
        "[a-z$\\\\{}/=\" -]{0,9}",
    ];
    let command = prop_oneof![
        Just("<!--#set var='v' value='@' -->"),
        Just("<!--#echo var='v' default='@' -->"),
        Just("<!--#if expr='@' -->"),
        Just("<!--#elif expr='@' -->"),
        Just("<!--#else -->"),
        Just("<!--#endif -->"),
        Just("<!--#block name='b' -->"),
        Just("<!--#endblock -->"),
        Just("<!--#include virtual='@' stub='b' -->"),
        Just("<!--#include virtual='@' wait='yes' -->"),
        Just("<!--#include virtual='@' set='v' -->"),
        Just("<!--#config errmsg='@' -->"),
        Just("<!--#nonesuch @ -->"),
        Just("<!--#echo var=@ -->"),
    ];
    prop_oneof![
        4 => (command, value).prop_map(|(command, value)| command.replace('@', &value)),
        1 => "[a-z<!#> -]{0,9}",
        1 => "<!--#[a-z=' -]{0,20}",
    ]
}
