//! From text to a site, and the text that is kept so that a server process can start again from what runs.

use super::invocation::Paths;
use crate::conf::files::{FileError, Files, MAX_FILE_SIZE, MemoryFiles};
use crate::conf::glob;
use crate::http::site::{Site, SiteErrors, SiteInput, build_site};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;

/// Every file that a configuration was read from, by its path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptText {
    pub files: BTreeMap<String, Vec<u8>>,
}

/// A site with the text that it was built from.
pub struct Loaded {
    pub site: Site,
    pub text: KeptText,
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
}

impl Source {
    /// Reads it from disk.
    pub fn load(&self, names: Names) -> Result<Loaded, SiteErrors> {
        let mut files = Recorder { text: KeptText::default() };
        let site = self.build(&mut files, names)?;
        Ok(Loaded { site, text: files.text })
    }

    /// Builds the site from text that was kept.
    pub fn rebuild(&self, text: &KeptText) -> Result<Site, SiteErrors> {
        let mut files = MemoryFiles::new();
        for (path, text) in &text.files {
            files.insert(path.clone(), text.clone());
        }
        self.build(&mut files, Names::LookUp)
    }

    fn build(&self, files: &mut dyn Files, names: Names) -> Result<Site, SiteErrors> {
        let path = self.paths.configuration.to_string_lossy();
        let mut resolve = |name: &str| resolve(name);
        build_site(SiteInput {
            path: &path,
            directives: &self.directives,
            files,
            resolve: match names {
                Names::LookUp => Some(&mut resolve),
                Names::Ignore => None,
            },
        })
    }
}

/// Asks the system's resolver.
fn resolve(name: &str) -> Vec<IpAddr> {
    (name, 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect()).unwrap_or_default()
}

/// Files on disk, all of which are remembered.
struct Recorder {
    text: KeptText,
}

impl Files for Recorder {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, FileError> {
        let file = std::fs::File::open(path).map_err(|error| file_error("open", &error))?;
        if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
            return Err(file_error("pread", &io::Error::from_raw_os_error(libc::EISDIR)));
        }
        let mut text = Vec::new();
        let limit = MAX_FILE_SIZE as u64 + 1;
        file.take(limit).read_to_end(&mut text).map_err(|error| file_error("pread", &error))?;
        if text.len() > MAX_FILE_SIZE {
            return Err(FileError::too_large());
        }
        self.text.files.insert(path.to_owned(), text.clone());
        Ok(text)
    }

    fn glob(&mut self, pattern: &str) -> Result<Vec<String>, FileError> {
        let start = if pattern.starts_with('/') { "/" } else { "" };
        let mut found = vec![start.to_owned()];
        for segment in pattern.split('/').filter(|segment| !segment.is_empty()) {
            found = found.iter().flat_map(|folder| matches_in(folder, segment)).collect();
        }
        found.sort();
        Ok(found)
    }
}

/// The entries of a folder (written with its final slash, or empty) that a segment of a pattern names.
fn matches_in(folder: &str, segment: &str) -> Vec<String> {
    let separator = if folder.is_empty() || folder.ends_with('/') { "" } else { "/" };
    if !glob::is_pattern(segment) {
        let path = format!("{folder}{separator}{segment}");
        return if Path::new(&path).exists() { vec![path] } else { Vec::new() };
    }
    let Ok(entries) = std::fs::read_dir(if folder.is_empty() { "." } else { folder }) else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names
        .filter(|name| glob::matches_name(segment, name))
        .map(|name| format!("{folder}{separator}{name}"))
        .collect()
}

fn file_error(call: &'static str, error: &io::Error) -> FileError {
    let number = error.raw_os_error().unwrap_or(libc::EIO);
    let text = error.to_string();
    let reason = text.strip_suffix(&format!(" (os error {number})")).unwrap_or(&text).to_owned();
    FileError { call, number, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_find_files_and_what_was_read_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_str().unwrap();
        for name in ["b/x.conf", "a/y.conf", "a/x.conf", "a/.hidden.conf", "a/x.txt"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name).unwrap();
        }
        let mut files = Recorder { text: KeptText::default() };
        let found = files.glob(&format!("{root}/*/*.conf")).unwrap();
        assert_eq!(found, ["a/x.conf", "a/y.conf", "b/x.conf"].map(|name| format!("{root}/{name}")));
        assert!(files.glob(&format!("{root}/c/*.conf")).unwrap().is_empty());
        assert_eq!(files.read(&found[0]).unwrap(), b"a/x.conf");
        assert_eq!(files.text.files.keys().collect::<Vec<_>>(), [&found[0]]);
        assert_eq!(files.read(&format!("{root}/none")).unwrap_err(), FileError::not_found());
        assert_eq!(files.read(root).unwrap_err().reason, "Is a directory");
    }
}
