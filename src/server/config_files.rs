//! The file system as a source of configuration text.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use crate::conf::glob;
use crate::conf::source::{FileError, Files, MAX_FILE_SIZE};

/// Reads configuration files from disk. Relative paths start at the process's working directory.
#[derive(Debug, Default)]
pub struct ConfigFiles;

impl Files for ConfigFiles {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, FileError> {
        let file = File::open(path).map_err(|error| failed("open", &error))?;
        let mut text = Vec::new();
        // One byte more than allowed tells a file of just that size from a longer one, or from an endless device.
        let limit = MAX_FILE_SIZE as u64 + 1;
        file.take(limit).read_to_end(&mut text).map_err(|error| failed("pread", &error))?;
        if text.len() > MAX_FILE_SIZE { Err(FileError::too_large()) } else { Ok(text) }
    }

    /// As glob(3) without flags: folders that can't be read hold nothing, and a broken link is still a name.
    fn glob(&mut self, pattern: &str) -> Result<Vec<String>, FileError> {
        let mut found = vec![String::new()];
        for (index, part) in pattern.split('/').enumerate() {
            let mut next = Vec::new();
            for before in &found {
                let folder = if index == 0 { String::new() } else { format!("{before}/") };
                extend(&folder, part, &mut next);
            }
            found = next;
        }
        found.sort();
        Ok(found)
    }
}

/// Adds the names in a folder (empty, or with a `/` at its end) that match one segment of a pattern.
fn extend(folder: &str, part: &str, found: &mut Vec<String>) {
    if !glob::is_pattern(part) && !part.contains('\\') {
        let path = format!("{folder}{part}");
        // The empty segment before the first `/`, or of a doubled one, is no name to look for.
        if part.is_empty() || Path::new(&path).symlink_metadata().is_ok() {
            found.push(path);
        }
        return;
    }
    let place = if folder.is_empty() { "." } else { folder };
    let Ok(entries) = fs::read_dir(place) else { return };
    for entry in entries.flatten() {
        // A name that is not UTF-8 can't be written in a pattern either.
        if let Some(name) = entry.file_name().to_str().filter(|name| glob::matches_name(part, name)) {
            found.push(format!("{folder}{name}"));
        }
    }
}

fn failed(call: &'static str, error: &io::Error) -> FileError {
    let text = error.to_string();
    // "No such file or directory (os error 2)": the number stands in front in nginx's message.
    let reason = text.split(" (os error").next().unwrap_or(&text).to_owned();
    FileError { call, number: error.raw_os_error().unwrap_or(0), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_in_nginx() {
        let folder = tempfile::tempdir().unwrap();
        let missing = format!("{}/none", folder.path().display());
        let error = ConfigFiles.read(&missing).unwrap_err();
        assert_eq!(error.message("/x"), "open() \"/x\" failed (2: No such file or directory)");
        let error = ConfigFiles.read(folder.path().to_str().unwrap()).unwrap_err();
        assert_eq!(error.message("/x"), "pread() \"/x\" failed (21: Is a directory)");
    }

    #[test]
    fn patterns_name_files_in_byte_order_over_several_folders() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["b/x.conf", "a/x.conf", "a/Z.conf", "a/.hidden.conf", "a/y.txt"] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, path_text()).unwrap();
        }
        let root = folder.path().to_str().unwrap();
        let relative = |paths: Vec<String>| -> Vec<String> {
            paths.iter().map(|path| path.strip_prefix(root).unwrap().to_owned()).collect()
        };
        let all = ConfigFiles.glob(&format!("{root}/*/*.conf")).unwrap();
        assert_eq!(relative(all), ["/a/Z.conf", "/a/x.conf", "/b/x.conf"]);
        let fixed = ConfigFiles.glob(&format!("{root}/[ab]/x.conf")).unwrap();
        assert_eq!(relative(fixed), ["/a/x.conf", "/b/x.conf"]);
        assert!(ConfigFiles.glob(&format!("{root}/none/*")).unwrap().is_empty());
        assert!(ConfigFiles.glob(&format!("{root}/a/y.txt/*")).unwrap().is_empty());
        assert_eq!(ConfigFiles.read(&format!("{root}/a/y.txt")).unwrap(), path_text());
    }

    fn path_text() -> Vec<u8> {
        b"text \xff".to_vec()
    }
}
