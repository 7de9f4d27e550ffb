//! From text to a site, and the text that is kept so that a server process can start again from what runs.

use super::invocation::Paths;
use crate::conf::diagnostics::{Diagnostics, Severity};
use crate::conf::files::{FileError, Files, MemoryFiles};
use crate::conf::render::{self, Style};
use crate::conf::source::{Origin, SourceMap};
use crate::http::build::{BuildOptions, Built, build};
use crate::http::site::Site;
use crate::server::config_files::ConfigFiles;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::net::{IpAddr, ToSocketAddrs};

/// Every file that a configuration was read from, by its path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptText {
    pub files: BTreeMap<String, Vec<u8>>,
}

/// A site with the text that it was built from, and what is to be said about it.
pub struct Loaded {
    pub site: Site,
    pub text: KeptText,
    pub sources: SourceMap,
    pub diagnostics: Diagnostics,
}

/// Why a site could not be built.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteErrors {
    /// One line each, in nginx's form without the level: `unknown directive "foo" in /path/file:12`.
    pub lines: Vec<String>,
    /// The same at length, for a terminal.
    pub rendered: String,
}

impl Loaded {
    /// Warnings and the like, for the terminal.
    pub fn remarks(&self) -> String {
        render::render(&self.diagnostics, &self.sources, style())
    }

    /// Warnings, a line each, for the error log.
    pub fn warnings(&self) -> Vec<String> {
        self.diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.severity == Severity::Warning)
            .map(|diagnostic| render::sentence(diagnostic, &self.sources))
            .collect()
    }
}

/// Rich with colours on a terminal, rich without elsewhere.
fn style() -> Style {
    Style { colour: std::io::stderr().is_terminal(), ..Style::rich() }
}

/// Text that was kept; what is no text comes from disk, since it is too much to keep.
struct KeptFiles(MemoryFiles);

impl Files for KeptFiles {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, FileError> {
        self.0.read(path)
    }

    fn read_data(&mut self, path: &str) -> Result<Vec<u8>, FileError> {
        ConfigFiles.read_data(path)
    }

    fn glob(&mut self, pattern: &str) -> Result<Vec<String>, FileError> {
        self.0.glob(pattern)
    }
}

/// How host names of the configuration are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// They are looked up; this may take as long as the system's resolver waits.
    LookUp,
    /// They are left alone.
    Ignore,
}

/// Where a configuration comes from, each time that it is read.
#[derive(Clone, Debug)]
pub struct Source {
    pub paths: Paths,
    /// The argument of `-g`.
    pub directives: String,
    /// Text in place of the file (`thalweg serve`).
    pub text: Option<Vec<u8>>,
}

impl Source {
    /// Reads it from disk. `before` is the site that it replaces.
    pub fn load(&self, names: Names, before: Option<&Site>) -> Result<Loaded, SiteErrors> {
        let built = match &self.text {
            None => self.build(&mut ConfigFiles, names, before),
            Some(text) => {
                let path = self.paths.configuration.to_string_lossy();
                let mut files = MemoryFiles::new().with(path, text.clone());
                self.build(&mut files, names, before)
            }
        };
        let Built { site, diagnostics, sources } = built;
        let Some(site) = site else { return Err(errors(&diagnostics, &sources)) };
        let from_files = sources.iter().filter(|source| source.origin != Origin::CommandLine);
        let files = from_files.map(|source| (source.path.clone(), source.text.to_vec())).collect();
        Ok(Loaded { site, text: KeptText { files }, sources, diagnostics })
    }

    /// Builds the site from text that was kept.
    pub fn rebuild(&self, text: &KeptText) -> Result<Site, SiteErrors> {
        let mut files = MemoryFiles::new();
        for (path, text) in &text.files {
            files.insert(path.clone(), text.clone());
        }
        let built = self.build(&mut KeptFiles(files), Names::LookUp, None);
        built.site.ok_or_else(|| errors(&built.diagnostics, &built.sources))
    }

    fn build(&self, files: &mut dyn Files, names: Names, before: Option<&Site>) -> Built {
        let prefix = format!("{}/", self.paths.prefix.to_string_lossy().trim_end_matches('/'));
        build(
            files,
            &BuildOptions {
                path: &self.paths.configuration.to_string_lossy(),
                prefix: &prefix,
                command_line: &self.directives,
                error_log: &self.paths.error_log,
                hostname: rustix::system::uname().nodename().to_bytes(),
                privileged: rustix::process::geteuid().is_root(),
                resolve: match names {
                    Names::LookUp => Some(resolve),
                    Names::Ignore => None,
                },
                previous_logs: before.map(|site| &site.logs),
                previous_tls: before.map(|site| &site.tls),
            },
        )
    }
}

fn errors(diagnostics: &Diagnostics, sources: &SourceMap) -> SiteErrors {
    let lines = diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.severity == Severity::Error)
        .map(|diagnostic| render::sentence(diagnostic, sources))
        .collect();
    SiteErrors { lines, rendered: render::render(diagnostics, sources, style()) }
}

/// Asks the system's resolver.
fn resolve(name: &str) -> Vec<IpAddr> {
    (name, 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect()).unwrap_or_default()
}
