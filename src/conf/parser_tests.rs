//! Includes, recovery, and what is said about it. Messages were compared with nginx 1.22's.

use super::*;
use crate::conf::render::{self, Style};
use crate::conf::source::MemoryFiles;

fn read(files: MemoryFiles) -> Parsed {
    let mut files = files;
    parse(&mut files, "/etc/main", "/etc")
}

fn read_text(text: &str) -> Parsed {
    read(MemoryFiles::new().with("/etc/main", text))
}

/// The tree in one line: `a[b c;d{e;}]`.
fn shape(directives: &[Directive]) -> String {
    let one = |directive: &Directive| {
        let words: Vec<_> = directive.words().iter().map(|word| word.lossy()).collect();
        match &directive.block {
            Some(block) => format!("{}{{{}}}", words.join(" "), shape(block)),
            None => format!("{};", words.join(" ")),
        }
    };
    directives.iter().map(one).collect()
}

/// All messages, one in a line, without their heads.
fn said(parsed: &Parsed) -> Vec<String> {
    parsed.diagnostics.iter().map(|diagnostic| render::sentence(diagnostic, &parsed.sources)).collect()
}

#[test]
fn blocks_nest_and_any_word_may_come_first() {
    let parsed = read_text(
        "events {}\nhttp { map $a $b { default 0; ~^x 1; \"\" 2; } types { text/html html htm; } }",
    );
    assert!(parsed.diagnostics.is_empty());
    assert_eq!(shape(&parsed.tree), "events{}http{map $a $b{default 0;~^x 1; 2;}types{text/html html htm;}}");
}

#[test]
fn spans_reach_from_the_name_to_what_ends_the_directive() {
    let parsed = read_text("http { root  \"/a b\" ; }");
    let http = &parsed.tree[0];
    assert_eq!(parsed.sources.text(http.span), b"http {");
    assert_eq!(parsed.sources.text(http.end), b"}");
    let root = &http.block.as_ref().unwrap()[0];
    assert_eq!(parsed.sources.text(root.span), b"root  \"/a b\" ;");
    assert_eq!(parsed.sources.text(root.args_span()), b"\"/a b\"");
    assert!(root.args()[0].quoted && root.args()[0] == "/a b");
}

#[test]
fn includes_are_put_in_place_in_every_context() {
    let files = MemoryFiles::new()
        .with("/etc/main", "a; http { include conf.d/*.conf; types { include mime; } } \"include\" /x/last;")
        .with("/etc/conf.d/b.conf", "b { include mime; }")
        .with("/etc/conf.d/Z.conf", "z;")
        .with("/etc/conf.d/.hidden.conf", "hidden;")
        .with("/etc/mime", "text/html html;")
        .with("/x/last", "last;");
    let parsed = read(files);
    assert!(parsed.diagnostics.is_empty());
    assert_eq!(shape(&parsed.tree), "a;http{z;b{text/html html;}types{text/html html;}}last;");
    let paths: Vec<_> = parsed.sources.iter().map(|source| source.path.as_str()).collect();
    assert_eq!(paths, ["/etc/main", "/etc/conf.d/Z.conf", "/etc/conf.d/b.conf", "/etc/mime", "/x/last"]);
}

#[test]
fn a_file_is_read_once_and_each_use_of_it_knows_its_way() {
    /// Counts what is read.
    struct Counting(MemoryFiles, usize);
    impl Files for Counting {
        fn read(&mut self, path: &str) -> Result<Vec<u8>, FileError> {
            self.1 += 1;
            self.0.read(path)
        }
        fn glob(&mut self, pattern: &str) -> Result<Vec<String>, FileError> {
            self.0.glob(pattern)
        }
    }
    let text = "server { include snip; }\nserver { include snip; }";
    let mut files = Counting(MemoryFiles::new().with("/etc/main", text).with("/etc/snip", "root x;"), 0);
    let parsed = parse(&mut files, "/etc/main", "/etc/");
    assert_eq!(files.1, 2);
    let lines: Vec<_> = parsed
        .tree
        .iter()
        .map(|server| {
            let root = &server.block.as_ref().unwrap()[0];
            let chain = parsed.sources.include_chain(root.include);
            chain.iter().map(|span| parsed.sources.place(*span)).collect::<Vec<_>>().join(" ")
        })
        .collect();
    assert_eq!(lines, ["/etc/main:1", "/etc/main:2"]);
}

#[test]
fn a_missing_file_is_an_error_and_an_empty_pattern_is_not() {
    let parsed = read_text("\ninclude none; include none/*.conf; include [; a;");
    assert_eq!(said(&parsed), ["open() \"/etc/none\" failed (2: No such file or directory) in /etc/main:2"]);
    assert_eq!(shape(&parsed.tree), "a;");
    let none = parse(&mut MemoryFiles::new(), "/etc/main", "/etc/");
    assert_eq!(said(&none), ["open() \"/etc/main\" failed (2: No such file or directory)"]);
}

#[test]
fn a_wrong_include_is_answered_as_in_nginx() {
    let parsed = read_text("include;\ninclude a b;\ninclude a {}\n");
    assert_eq!(
        said(&parsed),
        [
            "invalid number of arguments in \"include\" directive in /etc/main:1",
            "invalid number of arguments in \"include\" directive in /etc/main:2",
            "directive \"include\" is not terminated by \";\" in /etc/main:3",
        ]
    );
}

#[test]
fn cycles_and_deep_chains_of_includes_end() {
    let cycle = read(MemoryFiles::new().with("/etc/main", "include a;").with("/etc/a", "x;\ninclude *;"));
    assert_eq!(
        said(&cycle),
        ["\"/etc/a\" includes itself in /etc/a:2", "\"/etc/main\" includes itself in /etc/a:2"]
    );
    let mut chain = MemoryFiles::new().with("/etc/main", "include 0;");
    for index in 0..100 {
        chain.insert(format!("/etc/{index}"), format!("include {};", index + 1));
    }
    assert_eq!(said(&read(chain)), ["more than 64 files include each other in /etc/63:1"]);
}

#[test]
fn includes_that_multiply_are_bounded() {
    let mut files = MemoryFiles::new().with("/etc/main", "include 0;").with("/etc/12", "x;".repeat(10));
    for index in 0..12 {
        files.insert(format!("/etc/{index}"), format!("include {};", index + 1).repeat(10));
    }
    let parsed = read(files);
    assert_eq!(parsed.diagnostics.error_count(), 1);
    assert!(said(&parsed)[0].starts_with("the configuration has more than 2000000 directives"));
}

#[test]
fn a_file_closes_the_blocks_that_it_opens() {
    let files = MemoryFiles::new()
        .with("/etc/main", "events { include close; }\ninclude open; include half;")
        .with("/etc/close", "}")
        .with("/etc/open", "events {\n")
        .with("/etc/half", "daemon");
    let parsed = read(files);
    assert_eq!(
        said(&parsed),
        [
            "unexpected \"}\" in /etc/close:1",
            "unexpected end of file, expecting \"}\" in /etc/open:1",
            "unexpected end of file, expecting \";\" or \"}\" in /etc/half:1",
        ]
    );
}

#[test]
fn all_errors_of_a_run_are_reported() {
    let parsed = read_text("a;;\n{ b; }\nc \"x\"y;\nd }\ne {\n f g");
    assert_eq!(
        said(&parsed),
        [
            "unexpected \";\" in /etc/main:1",
            "unexpected \"{\" in /etc/main:2",
            "unexpected \"y\" in /etc/main:3",
            "unexpected \"}\" in /etc/main:4",
            "unexpected end of file, expecting \";\" or \"}\" in /etc/main:6",
            "unexpected end of file, expecting \"}\" in /etc/main:5",
        ]
    );
    assert_eq!(shape(&parsed.tree), "a;c x;d;e{f g;}");
}

#[test]
fn a_missing_semicolon_before_a_block_is_mended() {
    let parsed = read_text("server {\n  root /srv\n  location / {\n    index x\n  }\n}\n");
    assert_eq!(
        said(&parsed),
        ["directive \"root\" is not terminated by \";\" in /etc/main:2", "unexpected \"}\" in /etc/main:4"]
    );
    assert_eq!(shape(&parsed.tree), "server{root /srv;location /{index x;}}");
}

#[test]
fn a_missing_semicolon_is_guessed_where_the_next_name_begins() {
    use crate::conf::missing::missing_semicolon;
    let parsed = read_text("root /srv\nindex a;\nlog_format x\n 'a'\n b;\nserver_name a\n \"root\" root;");
    let places: Vec<_> =
        parsed.tree.iter().map(|directive| missing_semicolon(directive, &parsed.sources)).collect();
    assert_eq!(
        places.iter().map(|place| place.map(|span| span.start)).collect::<Vec<_>>(),
        [Some(9), None, None]
    );
}

#[test]
fn an_unclosed_block_is_found_by_the_indentation() {
    let parsed = read_text("http {\n  server {\n    a;\n  server {\n    b;\n  }\n}\n");
    assert_eq!(said(&parsed), ["unexpected end of file, expecting \"}\" in /etc/main:2"]);
    let plain = read_text("http {\n  server {\n    a;\n  }\n");
    assert_eq!(said(&plain), ["unexpected end of file, expecting \"}\" in /etc/main:1"]);
}

#[test]
fn unclosed_quotes_point_at_where_they_open() {
    let parsed = read_text("a 'x;\nb c;\n");
    assert_eq!(said(&parsed), ["unexpected end of file, expecting \";\" or \"}\" in /etc/main:1"]);
    assert_eq!(shape(&parsed.tree), "b c;");
    let swallowed = read_text("a \"x;\nb \"c\";\nd;");
    assert_eq!(said(&swallowed), ["unexpected \"c\" in /etc/main:2"]);
    assert_eq!(shape(&swallowed.tree), "b c;d;");
    let long = read_text(&format!("\na \"{};\nb;", "x".repeat(5000)));
    assert_eq!(
        said(&long),
        ["too long parameter, probably missing terminating \"\"\" character in /etc/main:2"]
    );
    let word = read_text(&format!("\na {};\nb;", "x".repeat(5000)));
    assert_eq!(said(&word), ["too long parameter \"xxxxxxxxxx...\" started in /etc/main:2"]);
}

#[test]
fn marks_and_bytes_of_other_encodings_are_named() {
    let marked = read_text("\u{feff}a;");
    assert_eq!(said(&marked), ["unexpected byte order mark in /etc/main:1"]);
    assert_eq!(shape(&marked.tree), "a;");
    let wide = read(MemoryFiles::new().with("/etc/main", b"\xff\xfea\0;\0".to_vec()));
    assert_eq!(said(&wide), ["unexpected NUL byte in /etc/main:1"]);
    assert_eq!(wide.diagnostics.iter().next().unwrap().helps.len(), 1);
}

#[test]
fn the_command_line_is_read_before_the_file_and_named_as_such() {
    let mut files = MemoryFiles::new().with("/etc/main", "b;");
    let mut reader = Reader::new(&mut files, "/etc");
    let mut tree = reader.read_text("-g", b"a;\nx {} c", Origin::CommandLine);
    tree.extend(reader.read_file("/etc/main"));
    let parsed = reader.finish(tree);
    assert_eq!(shape(&parsed.tree), "a;c;b;");
    assert_eq!(
        said(&parsed),
        [
            "block directives are not supported in -g option in command line",
            "unexpected end of parameter, expecting \";\" in command line",
        ]
    );
}

#[test]
fn the_rich_form_shows_source_caret_help_and_the_way_there() {
    let files = MemoryFiles::new()
        .with("/etc/main", "http {\n    include part;\n}\n")
        .with("/etc/part", b"# caf\xe9\nlocation / {\n\troot /sr\xe9v\n}\n".to_vec());
    let parsed = read(files);
    let shown = render::render(&parsed.diagnostics, &parsed.sources, Style::rich());
    let expected = "\
thalweg: [emerg] unexpected \"}\" in /etc/part:3
 --> /etc/part:3:2
";
    assert!(shown.starts_with(expected), "{shown}");
    for part in ["root /sr\u{fffd}v", "^^^^", "a `;` seems to be missing here", "end `root` with `;`"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert!(shown.contains("note: included from /etc/main:2"), "{shown}");
}

#[test]
fn only_so_many_are_shown_and_errors_go_first() {
    let mut diagnostics = Diagnostics::new();
    for index in 0..60 {
        diagnostics.push(Diagnostic::warning(format!("warning {index}")));
    }
    diagnostics.push(Diagnostic::error("two\nlines"));
    let shown = render::render(&diagnostics, &SourceMap::new(), Style::lines());
    assert_eq!(shown.lines().count(), 51);
    assert!(shown.ends_with("thalweg: [emerg] two\\nlines\nthalweg: [notice] 11 more\n"), "{shown}");
}
