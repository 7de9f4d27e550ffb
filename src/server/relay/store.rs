//! `proxy_store`: a copy of the response in a file, which gets its name once the response is complete.

use std::path::PathBuf;

use crate::server::files::{TemporaryFile, WRITE_NOW_BYTES};

/// A copy that is being written.
#[derive(Debug)]
pub struct Store {
    file: TemporaryFile,
    written: u64,
    failed: Option<std::io::Error>,
}

/// A complete copy and where it belongs.
#[derive(Debug)]
pub struct Publication {
    /// The copy.
    pub file: TemporaryFile,
    /// Its name.
    pub path: PathBuf,
    /// Its mode (`proxy_store_access`).
    pub mode: u32,
    /// Its time in seconds since 1970, where the response has a `Last-Modified`.
    pub modified: Option<i64>,
}

impl Store {
    /// A copy in this file.
    pub fn new(file: TemporaryFile) -> Store {
        Store { file, written: 0, failed: None }
    }

    /// Appends. What fails is told at the end: the response itself can do without its copy.
    pub fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.failed.is_none() {
            match self.file.write_now(self.written, &bytes[..bytes.len().min(WRITE_NOW_BYTES)]) {
                Ok(0) => self.failed = Some(std::io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.written += count as u64;
                    bytes = &bytes[count..];
                }
                Err(error) => self.failed = Some(error),
            }
        }
    }

    /// The file, if everything was written.
    ///
    /// # Errors
    /// The first that writing met.
    pub fn finish(self) -> std::io::Result<TemporaryFile> {
        match self.failed {
            None => Ok(self.file),
            Some(error) => Err(error),
        }
    }
}

impl Publication {
    /// Gives the copy its name. Blocks: run it in the pool.
    ///
    /// # Errors
    /// Those of the file system; the copy is removed then.
    pub fn run(mut self) -> std::io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let file = std::fs::File::from(self.file.descriptor().try_clone()?);
        file.set_permissions(std::fs::Permissions::from_mode(self.mode))?;
        if let Some(modified) = self.modified {
            let time = std::time::UNIX_EPOCH
                + std::time::Duration::from_secs(u64::try_from(modified).unwrap_or_default());
            file.set_modified(time)?;
        }
        if let Some(parent) = self.path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        match std::fs::rename(self.file.path(), &self.path) {
            Ok(()) => {
                self.file.keep();
                Ok(())
            }
            // Another file system: a copy beside the target, so that the name always is a whole file's.
            Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {
                let mut beside = self.path.clone().into_os_string();
                beside.push(format!(".{:010}", std::process::id()));
                let beside = PathBuf::from(beside);
                std::fs::copy(self.file.path(), &beside)?;
                std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(self.mode))?;
                std::fs::rename(&beside, &self.path)
            }
            Err(error) => Err(error),
        }
    }
}
