//! File systems that fill up, and limits of a process that runs.

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A small file system in memory; unmounted when dropped.
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts one of so many KiB on this folder, which is made; `None` where that is not allowed.
    pub fn mount(path: &Path, kib: usize) -> Option<Self> {
        std::fs::create_dir_all(path).expect("make a folder");
        let options = format!("size={kib}k,mode=777");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "thalweg-test"]).arg(path).stderr(Stdio::null());
        let done = mount.status().is_ok_and(|status| status.success());
        if !done {
            eprintln!("nothing can be mounted here: nothing was tested");
        }
        done.then(|| Self { path: path.to_owned() })
    }

    /// A path on it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Takes all the room that is left.
    pub fn fill(&self) {
        let piece = [b'f'; 1024];
        let mut file =
            std::fs::File::options().create(true).append(true).open(self.path("filling")).expect("open");
        while std::io::Write::write(&mut file, &piece).is_ok_and(|count| count == piece.len()) {}
    }

    /// Gives the room back.
    pub fn free(&self) {
        std::fs::remove_file(self.path("filling")).expect("remove");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the server may have files open there.
        let _ = Command::new("umount").arg("-l").arg(&self.path).stderr(Stdio::null()).status();
    }
}

/// Sets a limit of another process, which may raise it again as far as ours goes.
pub fn limit(process: Pid, resource: Resource, value: u64) {
    let maximum = getrlimit(resource).maximum;
    prlimit(Some(process), resource, Rlimit { current: Some(value), maximum }).expect("set a limit");
}
