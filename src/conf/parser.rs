//! A configuration as a whole: its files read once each, and every `include` replaced by what it names.

use std::collections::HashMap;
use std::sync::Arc;

use super::diagnostics::{Diagnostic, Diagnostics};
use super::glob;
use super::grammar;
pub use super::grammar::MAX_DEPTH;
use super::source::{FileError, FileId, Files, IncludeId, Inclusion, MAX_FILE_SIZE, Origin, SourceMap, Span};
use super::tree::Directive;

/// ENOENT.
const NOT_FOUND: i32 = 2;
/// How deep an included file may include another.
pub const MAX_INCLUDE_DEPTH: usize = 64;

/// How many directives a configuration may have after its includes were put in. Ten files that each include the next
/// one ten times would be 10^10; ten thousand servers of a hundred directives are well below.
pub const MAX_DIRECTIVES: usize = 2_000_000;

/// The outcome of reading a configuration. The tree holds what could be understood even if there were errors.
#[derive(Debug)]
pub struct Parsed {
    pub tree: Vec<Directive>,
    pub sources: SourceMap,
    pub diagnostics: Diagnostics,
}

/// Reads the configuration at `path`. `conf_prefix` is the folder that relative includes start from: nginx's is the
/// folder of the main configuration file.
pub fn parse(files: &mut dyn Files, path: &str, conf_prefix: &str) -> Parsed {
    let mut reader = Reader::new(files, conf_prefix);
    let tree = reader.read_file(path);
    reader.finish(tree)
}

/// Reads a configuration that is at hand, under a name for messages; its includes are read from `files`.
pub fn parse_text(files: &mut dyn Files, name: &str, text: &[u8], conf_prefix: &str) -> Parsed {
    let mut reader = Reader::new(files, conf_prefix);
    let tree = reader.read_text(name, text, Origin::Memory);
    reader.finish(tree)
}

/// Reads several roots into one map of sources: the `-g` text first, then the file, as nginx does.
pub struct Reader<'f> {
    files: &'f mut dyn Files,
    conf_prefix: String,
    sources: SourceMap,
    diagnostics: Diagnostics,
    /// Each text parsed once, whoever includes it.
    parsed: HashMap<FileId, Arc<[Directive]>>,
    /// The files being included, the root first.
    stack: Vec<FileId>,
    directives: usize,
}

impl<'f> Reader<'f> {
    /// See [`parse`] for `conf_prefix`; with or without a `/` at its end.
    pub fn new(files: &'f mut dyn Files, conf_prefix: &str) -> Self {
        let slash = if conf_prefix.is_empty() || conf_prefix.ends_with('/') { "" } else { "/" };
        Self {
            files,
            conf_prefix: format!("{conf_prefix}{slash}"),
            sources: SourceMap::new(),
            diagnostics: Diagnostics::new(),
            parsed: HashMap::new(),
            stack: Vec::new(),
            directives: 0,
        }
    }

    /// Reads a main configuration file. One that can't be opened is an error without a place, as in nginx.
    pub fn read_file(&mut self, path: &str) -> Vec<Directive> {
        match self.load(path) {
            Ok(file) => self.root(file),
            Err(error) => {
                self.diagnostics.push(Diagnostic::error(error.message(path)));
                Vec::new()
            }
        }
    }

    /// Reads a text that is at hand: `-g` with [`Origin::CommandLine`], or a configuration made in memory.
    pub fn read_text(&mut self, name: &str, text: &[u8], origin: Origin) -> Vec<Directive> {
        if text.len() > MAX_FILE_SIZE {
            self.diagnostics.push(Diagnostic::error(FileError::too_large().message(name)));
            return Vec::new();
        }
        let file = self.sources.add(name, text.to_vec(), origin);
        self.root(file)
    }

    /// Everything that was read. `tree` is what the calls before returned, in the order that is wanted.
    pub fn finish(self, tree: Vec<Directive>) -> Parsed {
        let Self { sources, diagnostics, .. } = self;
        Parsed { tree, sources, diagnostics }
    }

    fn root(&mut self, file: FileId) -> Vec<Directive> {
        let mut tree = Vec::new();
        self.put_file(file, None, 0, &mut tree);
        tree
    }

    fn load(&mut self, path: &str) -> Result<FileId, FileError> {
        if let Some(file) = self.sources.find(path) {
            return Ok(file);
        }
        let text = self.files.read(path)?;
        if text.len() > MAX_FILE_SIZE {
            return Err(FileError::too_large());
        }
        Ok(self.sources.add(path, text, Origin::File))
    }

    /// Appends a file's directives to `out`, as used from the `include` directive given.
    fn put_file(
        &mut self,
        file: FileId,
        from: Option<(Span, IncludeId)>,
        depth: usize,
        out: &mut Vec<Directive>,
    ) {
        let include = self.sources.add_inclusion(Inclusion { from });
        let parsed = match self.parsed.get(&file) {
            Some(parsed) => Arc::clone(parsed),
            None => {
                let directives = grammar::parse(&self.sources, file, include, &mut self.diagnostics);
                let parsed: Arc<[Directive]> = directives.into();
                self.parsed.insert(file, Arc::clone(&parsed));
                parsed
            }
        };
        self.stack.push(file);
        self.put(&parsed, include, depth, out);
        self.stack.pop();
    }

    /// Appends directives to `out`, and what they include.
    fn put(&mut self, directives: &[Directive], include: IncludeId, depth: usize, out: &mut Vec<Directive>) {
        out.reserve(directives.len());
        for directive in directives {
            self.directives += 1;
            if self.directives > MAX_DIRECTIVES + 1 {
                return;
            }
            if self.directives > MAX_DIRECTIVES {
                let message = format!("the configuration has more than {MAX_DIRECTIVES} directives");
                return self.diagnostics.push(Diagnostic::error(message).at(directive.span).within(include));
            }
            if *directive.name() == "include" {
                self.put_include(directive, include, depth, out);
                continue;
            }
            if directive.block.is_some() && depth == MAX_DEPTH {
                let error = Diagnostic::error("too many blocks within each other");
                self.diagnostics.push(error.at(directive.span).within(include));
                continue;
            }
            let block = directive.block.as_ref().map(|inner| {
                let mut block = Vec::new();
                self.put(inner, include, depth + 1, &mut block);
                if *directive.name() == "upstream" {
                    self.put_states(inner, include, depth + 1, &mut block);
                }
                block
            });
            out.push(directive.reused(block, include));
        }
    }

    /// One `include`: the file, or the files of a pattern. A pattern without files is none; a missing file is an error.
    fn put_include(
        &mut self,
        directive: &Directive,
        include: IncludeId,
        depth: usize,
        out: &mut Vec<Directive>,
    ) {
        let path = match self.included_path(directive) {
            Ok(path) => path,
            Err(message) => {
                let error = Diagnostic::error(message).at(directive.span).within(include);
                return self.diagnostics.push(error.suspect_missing_semicolon(directive, &self.sources));
            }
        };
        let span = directive.args_span();
        let paths = match glob::is_pattern(&path) {
            false => Ok(vec![path]),
            true => self.files.glob(&path).map_err(|error| error.message(&path)),
        };
        for path in paths.unwrap_or_else(|message| self.cannot_include(message, span, include)) {
            match self.load(&path) {
                Ok(file) if self.stack.contains(&file) => {
                    let message = format!("\"{path}\" includes itself");
                    self.diagnostics.push(Diagnostic::error(message).at(span).within(include));
                }
                Ok(_) if self.stack.len() > MAX_INCLUDE_DEPTH => {
                    let message = format!("more than {MAX_INCLUDE_DEPTH} files include each other");
                    self.diagnostics.push(Diagnostic::error(message).at(span).within(include));
                }
                Ok(file) => self.put_file(file, Some((directive.span, include)), depth, out),
                Err(error) => {
                    self.cannot_include(error.message(&path), span, include);
                }
            }
        }
    }

    /// The files that `state` lines of an `upstream` block name: their servers are put behind the block's own. A file that
    /// is not there is one without servers.
    fn put_states(
        &mut self,
        inner: &[Directive],
        include: IncludeId,
        depth: usize,
        out: &mut Vec<Directive>,
    ) {
        for directive in inner.iter().filter(|directive| *directive.name() == "state") {
            let Ok(path) = self.included_path(directive) else { continue };
            match self.load(&path) {
                Ok(file) if self.stack.contains(&file) => {}
                Ok(file) => self.put_file(file, Some((directive.span, include)), depth, out),
                Err(error) if error.number == NOT_FOUND => {}
                Err(error) => {
                    self.cannot_include(error.message(&path), directive.args_span(), include);
                }
            }
        }
    }

    fn cannot_include(&mut self, message: String, span: Span, include: IncludeId) -> Vec<String> {
        self.diagnostics.push(Diagnostic::error(message).at(span).within(include));
        Vec::new()
    }

    /// The full path or pattern of an `include`, or what nginx says about a wrong one.
    fn included_path(&self, directive: &Directive) -> Result<String, String> {
        if directive.block.is_some() {
            return Err("directive \"include\" is not terminated by \";\"".to_owned());
        }
        let [path] = directive.args() else {
            return Err("invalid number of arguments in \"include\" directive".to_owned());
        };
        let path = path.as_str().ok_or("the path of \"include\" is not UTF-8")?;
        Ok(if path.starts_with('/') { path.to_owned() } else { format!("{}{path}", self.conf_prefix) })
    }
}

#[cfg(test)]
#[path = "parser_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "parser_parity_tests.rs"]
mod parity_tests;
