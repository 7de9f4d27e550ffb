//! What holds for every text whatever: shared by the property tests and the fuzz targets.

use super::diagnostics::Diagnostic;
use super::parser::{self, MAX_DEPTH, Parsed, Reader};
use super::render::{self, Style};
use super::source::{FileError, Files, MemoryFiles, Origin, SourceMap, Span};
use super::template::{Part, Template, VariableNames};
use super::tree::{self, Directive};
use super::{glob, listen, log_target, values};

/// With more includes than this a text gets no chains of files: they are as many directives for each.
const MOST_INCLUDES: usize = 8;

/// The files that a text may include: itself and its first half, and what no input is long enough to be.
struct Around<'a> {
    text: &'a [u8],
    has_chains: bool,
}

impl<'a> Around<'a> {
    fn new(text: &'a [u8]) -> Self {
        let includes = memchr::memmem::find_iter(text, b"include").take(MOST_INCLUDES + 1).count();
        Self { text, has_chains: includes <= MOST_INCLUDES }
    }
}

impl Files for Around<'_> {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, FileError> {
        let name = path.strip_prefix("/c/").ok_or_else(FileError::not_found)?;
        let numbered = |prefix| {
            let number = name.strip_prefix(prefix).filter(|_| self.has_chains)?;
            number.parse::<u16>().ok()?.checked_add(1)
        };
        match name {
            "main" => Ok(self.text.to_vec()),
            "half" => Ok(self.text[..self.text.len() / 2].to_vec()),
            "large" => Err(FileError::too_large()),
            // An error on a line that is too long to show.
            "wide" => Ok(format!("{}; ;", "y ".repeat(9000)).into_bytes()),
            _ => match (numbered("far/"), numbered("deep/")) {
                // Files that include each other, and files whose blocks lie in each other's, without end.
                (Some(next), _) => Ok(format!("include far/{next};").into_bytes()),
                (_, Some(next)) => Ok(format!("a {{ b {{ include deep/{next}; }} }}").into_bytes()),
                _ => Err(FileError::not_found()),
            },
        }
    }

    fn glob(&mut self, pattern: &str) -> Result<Vec<String>, FileError> {
        let names = ["/c/half", "/c/main"].into_iter().filter(|path| glob::matches_path(pattern, path));
        Ok(names.map(str::to_owned).collect())
    }
}

/// Reads any bytes as a configuration, with files to include, and checks the laws:
///
/// - nothing panics, in the parser and in showing what it found;
/// - every span lies within its text, a directive's words lie in order within the directive;
/// - blocks are no deeper than [`MAX_DEPTH`];
/// - a text without errors, printed, parses to the same tree.
pub fn fuzz_parse(data: &[u8]) {
    let mut files = Around::new(data);
    // As `-g`, with the file behind it.
    let mut reader = Reader::new(&mut files, "/c");
    let mut tree = reader.read_text("command line", data, Origin::CommandLine);
    let has_blocks = |directive: &Directive| directive.block.is_some() && directive.include.0 == 0;
    assert!(!tree.iter().any(has_blocks), "the command line has no blocks");
    let from = if data.first() == Some(&b'#') { "/c/none" } else { "/c/main" };
    tree.extend(reader.read_file(from));
    check(&reader.finish(tree));
    let from_text = parser::parse_text(&mut files, "main", data, "/c");
    check(&from_text);
    if from_text.diagnostics.has_errors() {
        return;
    }
    let printed = tree::print(&from_text.tree);
    let again = parser::parse_text(&mut MemoryFiles::new(), "printed", &printed, "");
    assert!(!again.diagnostics.has_errors(), "what was printed parses");
    assert!(same(&from_text.tree, &again.tree), "what was printed is the same");
}

fn check(parsed: &Parsed) {
    check_level(&parsed.tree, &parsed.sources, 0);
    let found = &parsed.diagnostics;
    assert!(found.error_count() <= found.iter().count() + found.not_kept());
    for diagnostic in found.iter() {
        let labels = diagnostic.labels.iter().map(|label| label.span);
        for span in diagnostic.span.into_iter().chain(labels) {
            check_span(span, &parsed.sources);
        }
        assert!(!render::line(diagnostic, &parsed.sources).contains('\n'), "a line stays a line");
    }
    let colourful = Style { colour: true, width: 20, ..Style::rich() };
    for style in [Style::lines(), Style::rich(), colourful] {
        let text = render::render(&parsed.diagnostics, &parsed.sources, style);
        assert_eq!(text.is_empty(), parsed.diagnostics.is_empty());
    }
}

/// What the modules say about a directive, or put in its place, stands where it does.
fn check_place(directive: &Directive, sources: &SourceMap) {
    let within = |span: Span| span.start >= directive.span.start && span.end <= directive.span.end;
    for word in directive.words() {
        assert!(within(word.span));
        let about = Diagnostic::info("seen").at(word.span).within(directive.include);
        assert!(render::line(&about, sources).starts_with("thalweg: [info] seen in "));
    }
    let made = directive.made_of(&["made", "of words"]);
    assert_eq!(tree::print(std::slice::from_ref(&made)), b"\"made\" \"of words\";\n");
    let moved = directive.with_arguments("moved", directive.args());
    assert!(moved.args().iter().zip(directive.args()).all(|(a, b)| a.as_bytes() == b.as_bytes()));
    for other in [made, moved] {
        assert_eq!(
            (other.span, other.end, other.include),
            (directive.span, directive.end, directive.include)
        );
    }
}

fn check_level(directives: &[Directive], sources: &SourceMap, depth: usize) {
    assert!(depth <= MAX_DEPTH);
    for directive in directives {
        check_span(directive.span, sources);
        check_span(directive.end, sources);
        assert!(directive.span.start <= directive.end.end);
        let mut at = directive.span.start;
        for word in directive.words() {
            check_span(word.span, sources);
            assert!(at <= word.span.start && word.span.end <= directive.span.end);
            at = word.span.end;
        }
        check_place(directive, sources);
        if let Some(block) = &directive.block {
            check_level(block, sources, depth + 1);
        }
    }
}

fn check_span(span: Span, sources: &SourceMap) {
    assert!(span.start <= span.end && span.end as usize <= sources.source(span.file).text.len());
    let (line, column) = sources.line_column(span);
    assert!(line >= 1 && column >= 1);
    let text = sources.text(span);
    assert_eq!(text.len(), (span.end - span.start) as usize);
    // A span may begin behind the carriage return of a line's end, which is not of its text.
    assert!(sources.source(span.file).line_text(line).len() + 2 >= column as usize);
}

/// Whether two trees say the same, wherever their words stand.
fn same(one: &[Directive], other: &[Directive]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|(a, b)| {
            a.words().iter().map(|word| word.as_bytes()).eq(b.words().iter().map(|word| word.as_bytes()))
                && match (&a.block, &b.block) {
                    (Some(a), Some(b)) => same(a, b),
                    (None, None) => true,
                    _ => false,
                }
        })
}

/// A text is a template or gets an error; a template, written with braces around its names, is the same template.
pub fn fuzz_template(text: &[u8]) {
    let mut names = VariableNames::default();
    let template = match Template::parse(text, &mut names) {
        Ok(template) => template,
        Err(error) => {
            assert!(
                text.contains(&b'$') && !error.to_string().is_empty(),
                "text without a dollar is a template"
            );
            return;
        }
    };
    assert_eq!(template.has_captures(), template.parts().iter().any(|part| matches!(part, Part::Capture(_))));
    assert!(template.variables().all(|id| names.names().get(id.0 as usize).is_some()));
    let mut written = Vec::new();
    for part in template.parts() {
        match part {
            Part::Literal(literal) => {
                assert!(!literal.is_empty() && !literal.contains(&b'$'));
                written.extend_from_slice(literal);
            }
            Part::Variable(id) => {
                written.extend_from_slice(format!("${{{}}}", names.names()[id.0 as usize]).as_bytes());
            }
            Part::Capture(number) => {
                assert!((1..=9).contains(number));
                written.extend_from_slice(format!("${number}").as_bytes());
            }
        }
    }
    let known = names.names().len();
    assert_eq!(Template::parse(&written, &mut names), Ok(template));
    assert_eq!(names.names().len(), known);
}

/// One argument, read in every way that arguments are read: none panics; a plain number is the same size, offset and
/// number of seconds; milliseconds and seconds agree.
pub fn fuzz_value(text: &[u8]) {
    if let Err(error) = values::parse_flag(text) {
        assert!(!error.to_string().is_empty());
    }
    if let Ok(number) = values::parse_number(text) {
        assert_eq!(values::parse_size(text), Ok(number));
        assert_eq!(values::parse_time_s(text), Ok(number));
    }
    if let Ok(size) = values::parse_size(text) {
        assert_eq!(values::parse_offset(text), Ok(size));
    }
    if let (Ok(seconds), Ok(milliseconds)) = (values::parse_time_s(text), values::parse_time_ms(text)) {
        assert_eq!(seconds.checked_mul(1000), Some(milliseconds));
    }
    for error in
        [values::parse_size(text).err(), values::parse_time_s(text).err(), values::parse_time_ms(text).err()]
    {
        assert!(error.is_none_or(|error| !error.to_string().is_empty()));
    }
    fuzz_log(text);
    let Ok(text) = std::str::from_utf8(text) else { return };
    let words: Vec<&str> = text.split(' ').collect();
    fuzz_listen(&words);
    if let [pattern, path, ..] = words[..] {
        let _ = glob::matches_path(pattern, path);
        let is_plain = !glob::is_pattern(path) && !path.contains('\\');
        assert!(!is_plain || glob::matches_path(path, path));
        assert!(!is_plain || path == pattern || !glob::matches_path(path, pattern));
    }
}

/// A log's target, written as one word, is the same target.
fn fuzz_log(text: &[u8]) {
    let targets =
        [log_target::LogTarget::parse_error_log(text), log_target::LogTarget::parse_access_log(text)];
    for target in targets.into_iter().flatten() {
        let word = target.word();
        assert_eq!(target.is_syslog(), word.starts_with(b"syslog:"));
        let again = match &target {
            log_target::LogTarget::Stderr => log_target::LogTarget::parse_error_log(&word),
            _ => log_target::LogTarget::parse_access_log(&word),
        };
        assert_eq!(again.as_ref(), Ok(&target), "{}", word.escape_ascii());
    }
    let _ = log_target::OpenLogFileCache::parse(text.split(|&byte| byte == b' '));
}

/// Addresses of one `listen` that are looked at.
const MOST_ADDRESSES: usize = 20;

/// Every address of a table has one socket that takes its connections, which knows it again by the local address.
fn fuzz_listen(words: &[&str]) {
    let Ok(directive) = listen::ListenDirective::parse(words) else { return };
    let mut table = listen::ListenTable::default();
    for resolved in [&[][..], &["127.0.0.1".parse().expect("an address")]] {
        let Ok(addresses) = directive.addresses(resolved) else { continue };
        // A range of ports is as many addresses; the check below looks at each pair.
        for (server, address) in addresses.iter().take(MOST_ADDRESSES).enumerate() {
            assert!(!address.address.to_string().is_empty());
            let _ = table.add(server, address);
        }
    }
    let plans = table.sockets();
    for (place, shared) in table.addresses().iter().enumerate() {
        let local = match &shared.address {
            listen::ListenAddress::Inet(address) => Some(address.ip()),
            listen::ListenAddress::Unix(_) => None,
        };
        let takes = |plan: &&listen::SocketPlan| {
            plan.address_of(None) == place || plan.needs_local_address() && plan.address_of(local) == place
        };
        assert_eq!(plans.iter().filter(takes).count(), 1, "{}", shared.address);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pieces that make structure likely.
    const PIECES: [&[u8]; 24] = [
        b"server",
        b"root",
        b" ",
        b"\n",
        b";",
        b";\n",
        b"{",
        b" {\n",
        b"}",
        b"}\n",
        b"\"",
        b"'",
        b"\\",
        b"$",
        b"#",
        b"a b",
        b"include",
        b" half;",
        b" /c/main;",
        b" *;",
        b"\xff",
        b"\t",
        b"\r\n",
        b"\xef\xbb\xbf",
    ];

    proptest! {
        #[test]
        fn any_bytes_obey_the_laws(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            fuzz_parse(&data);
        }

        #[test]
        fn any_mix_of_pieces_obeys_the_laws(indices in proptest::collection::vec(0..PIECES.len(), 0..80)) {
            let data: Vec<u8> = indices.iter().flat_map(|&index| PIECES[index].iter().copied()).collect();
            fuzz_parse(&data);
        }

        #[test]
        fn any_tree_of_words_survives_printing(words in proptest::collection::vec("[ -~\\n\\t]{0,8}", 1..6)) {
            let quoted = words.iter().map(|word| format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\"")));
            let text = format!("x {} {{ y; }}", quoted.collect::<Vec<_>>().join(" "));
            let parsed = parser::parse_text(&mut MemoryFiles::new(), "x", text.as_bytes(), "");
            prop_assert!(!parsed.diagnostics.has_errors());
            let read: Vec<_> = parsed.tree[0].args().iter().map(|word| word.lossy().into_owned()).collect();
            prop_assert_eq!(read, words);
            fuzz_parse(text.as_bytes());
        }
    }

    #[test]
    fn a_word_that_looks_like_a_byte_order_mark_survives_printing() {
        fuzz_parse(b" \xef\xbb\xbf;");
    }

    #[test]
    fn deep_nesting_and_endless_braces_obey_the_laws() {
        fuzz_parse("a{".repeat(5000).as_bytes());
        fuzz_parse("{".repeat(5000).as_bytes());
        fuzz_parse("}".repeat(5000).as_bytes());
        fuzz_parse("\"\n'\n".repeat(5000).as_bytes());
        fuzz_parse(format!("{}{}", "a {".repeat(100), "include half; ".repeat(3)).as_bytes());
    }
}
