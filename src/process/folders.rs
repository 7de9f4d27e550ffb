//! Folders for temporary files: made by the main thread, which may, for the workers, which may not.

use crate::base::level::Level;
use crate::http::site::{Location, Site};
use crate::server::listeners::describe;
use crate::server::runtime::Identity;
use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

/// Makes the folders that a site's requests and responses may put their bodies into, for the workers' user alone, as nginx does at
/// each start and reload. nginx refuses to start without them; most sites never need one, so that here it is an alert.
pub fn make(site: &Site, owner: Option<&Identity>, log: &mut dyn FnMut(Level, &str)) {
    let both = |one: &'_ Location| {
        [one.settings.request_body.temp_path.clone(), one.settings.proxy.temp_path.clone()]
    };
    let paths: BTreeSet<Arc<str>> =
        site.locations.iter().flat_map(both).flatten().map(|temp| temp.path).collect();
    for path in paths {
        if let Err((call, error)) = make_one(Path::new(&*path), owner) {
            log(Level::Alert, &format!("{call} \"{path}\" failed ({})", describe(&error)));
        }
    }
}

fn make_one(path: &Path, owner: Option<&Identity>) -> Result<(), (&'static str, io::Error)> {
    // Those above are nobody's secret: the workers have to get through.
    let above = path.parent().filter(|above| !above.as_os_str().is_empty() && !above.exists());
    above.map_or(Ok(()), std::fs::create_dir_all).map_err(|error| ("mkdir()", error))?;
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| ("mkdir()", error))?;
    let Some(owner) = owner else { return Ok(()) };
    let metadata = path.metadata().map_err(|error| ("stat()", error))?;
    if metadata.uid() != owner.user {
        std::os::unix::fs::chown(path, Some(owner.user), None).map_err(|error| ("chown()", error))?;
    }
    let mode = metadata.permissions().mode();
    if mode & 0o700 != 0o700 {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode | 0o700))
            .map_err(|error| ("chmod()", error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_belongs_to_the_workers_and_to_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        make_one(&path, None).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
        // Workers may be another user than who makes it: they get through what is above.
        let above = path.parent().unwrap().metadata().unwrap().mode();
        assert_eq!(above & 0o100, 0o100);
        assert_ne!(above & 0o077, 0, "made as folders are made, not for the owner alone");
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let nobody = Identity { name: "nobody".to_owned(), user: 65534, group: 65534, groups: Vec::new() };
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o455)).unwrap();
        make_one(&path, Some(&nobody)).unwrap();
        assert_eq!((path.metadata().unwrap().uid(), path.metadata().unwrap().mode() & 0o777), (65534, 0o755));
    }

    #[test]
    fn what_is_in_the_way_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let (call, error) = make_one(&folder.path().join("file/below"), None).unwrap_err();
        assert_eq!((call, error.raw_os_error()), ("mkdir()", Some(libc::ENOTDIR)));
    }
}
