//! Where the text of a configuration comes from. The parser never touches a file system: it asks a [`Files`].

use std::collections::BTreeMap;
use std::fmt;

use super::glob;

/// The longest text that is read as one file, in bytes. A larger one is not a configuration (`include /dev/zero`);
/// spans count in 32 bits.
pub const MAX_FILE_SIZE: usize = 256 << 20;

/// Why a file could not be had, in the operating system's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// The call that failed, as nginx names it in its message: `open`, `pread`.
    pub call: &'static str,
    /// errno.
    pub number: i32,
    /// errno's text, such as "No such file or directory".
    pub reason: String,
}

impl FileError {
    /// Opening failed with "No such file or directory".
    pub fn not_found() -> Self {
        Self { call: "open", number: 2, reason: "No such file or directory".to_owned() }
    }

    /// The file is longer than [`MAX_FILE_SIZE`].
    pub fn too_large() -> Self {
        Self { call: "pread", number: 27, reason: "File too large".to_owned() }
    }

    /// nginx's sentence: `open() "/x" failed (2: No such file or directory)`.
    pub fn message(&self, path: &str) -> String {
        format!("{}() \"{path}\" failed ({self})", self.call)
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.number, self.reason)
    }
}

/// Gives the parser its text. Paths are absolute, or relative to wherever the implementation says.
pub trait Files {
    /// The whole content of one file, at most [`MAX_FILE_SIZE`] bytes.
    fn read(&mut self, path: &str) -> Result<Vec<u8>, FileError>;

    /// The whole content of a file that is no configuration text (a database, ...): as it is now, never a copy that was
    /// kept to start again from.
    fn read_data(&mut self, path: &str) -> Result<Vec<u8>, FileError> {
        self.read(path)
    }

    /// The files that a pattern (see [`glob`]) names, in byte order. None is no error.
    fn glob(&mut self, pattern: &str) -> Result<Vec<String>, FileError>;
}

/// Files in memory: for tests, for `serve`, and for starting again from text that was kept.
#[derive(Clone, Debug, Default)]
pub struct MemoryFiles {
    files: BTreeMap<String, Vec<u8>>,
}

impl MemoryFiles {
    /// No file yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file, or replaces it.
    pub fn insert(&mut self, path: impl Into<String>, text: impl Into<Vec<u8>>) {
        self.files.insert(path.into(), text.into());
    }

    /// The same, for building in one expression.
    #[must_use]
    pub fn with(mut self, path: impl Into<String>, text: impl Into<Vec<u8>>) -> Self {
        self.insert(path, text);
        self
    }
}

impl Files for MemoryFiles {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, FileError> {
        self.files.get(path).cloned().ok_or_else(FileError::not_found)
    }

    fn glob(&mut self, pattern: &str) -> Result<Vec<String>, FileError> {
        Ok(self.files.keys().filter(|path| glob::matches_path(pattern, path)).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_reads_as_in_nginx() {
        let error = MemoryFiles::new().read("/x").unwrap_err();
        assert_eq!(error.message("/x"), "open() \"/x\" failed (2: No such file or directory)");
    }

    #[test]
    fn a_pattern_names_its_files_in_byte_order() {
        let mut files =
            MemoryFiles::new().with("/c/b.conf", "").with("/c/Z.conf", "").with("/c/d/a.conf", "");
        assert_eq!(files.glob("/c/*.conf").unwrap(), ["/c/Z.conf", "/c/b.conf"]);
        assert!(files.glob("/none/*").unwrap().is_empty());
    }
}
