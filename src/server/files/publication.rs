//! A file that was written under another name gets its own: nobody ever sees half of it.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use super::TemporaryFile;

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

impl Publication {
    /// Gives the copy its name. Blocks: run it in the pool.
    ///
    /// # Errors
    /// Those of the file system; the copy is removed then.
    pub fn run(mut self) -> std::io::Result<()> {
        let file = std::fs::File::from(self.file.descriptor().try_clone()?);
        file.set_permissions(std::fs::Permissions::from_mode(self.mode))?;
        if let Some(modified) = self.modified {
            let time = UNIX_EPOCH + Duration::from_secs(u64::try_from(modified).unwrap_or_default());
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
