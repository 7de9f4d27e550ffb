use super::*;
use std::os::unix::fs::symlink;

/// A folder for one test.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        // Joining an empty name would put a slash at the end.
        self.path(name).as_os_str().as_bytes().to_vec()
    }

    fn write(&self, name: &str, content: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), content).unwrap();
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path(name)).ok()
    }

    /// All names below, sorted; unfinished ones too.
    fn names(&self) -> Vec<String> {
        fn walk(folder: &Path, base: &Path, names: &mut Vec<String>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                names.push(path.strip_prefix(base).unwrap().to_string_lossy().into_owned());
                if fs::symlink_metadata(&path).unwrap().is_dir() {
                    walk(&path, base, names);
                }
            }
        }
        let mut names = Vec::new();
        walk(self.0.path(), self.0.path(), &mut names);
        names.sort();
        names
    }

    fn put(&self, name: &str, content: &str) -> Result<Changed, ChangeFailure> {
        run(Change::Put(self.order(name, Content::Memory(content.into()))), None)
    }

    fn order(&self, name: &str, content: Content) -> Put {
        Put { path: self.bytes(name), content, modified: None, mode: 0o640, folders: None }
    }

    fn delete(&self, name: &str) -> Result<Changed, u16> {
        let change = Change::Delete { path: self.bytes(name), depth: Depth::Infinity };
        run(change, None).map_err(|failure| failure.status.0)
    }

    fn transfer(&self, moves: bool, from: &str, to: &str, overwrite: bool) -> Result<Changed, u16> {
        let (from, to) = (self.bytes(from), self.bytes(to));
        let order = Transfer { from, to, moves, overwrite, deep: true, folders: 0o700 };
        run(Change::Transfer(order), None).map_err(|failure| failure.status.0)
    }

    fn copy(&self, from: &str, to: &str) -> Result<Changed, u16> {
        self.transfer(false, from, to, true)
    }

    fn rename(&self, from: &str, to: &str) -> Result<Changed, u16> {
        self.transfer(true, from, to, true)
    }
}

fn status(result: Result<Changed, ChangeFailure>) -> u16 {
    result.expect_err("a failure").status.0
}

#[test]
fn a_file_gets_its_content_mode_and_time_at_once() {
    let place = Place::new();
    let before = made();
    assert_eq!(place.put("f", "one"), Ok(Changed::Created));
    assert!(made() > before);
    let old = File::open(place.path("f")).unwrap();
    let mut order = place.order("f", Content::Memory(b"two".to_vec()));
    order.modified = Some(-5);
    assert_eq!(run(Change::Put(order), None), Ok(Changed::Done));
    let found = fs::metadata(place.path("f")).unwrap();
    assert_eq!((found.mode() & 0o777, found.mtime()), (0o640, -5));
    assert_eq!(place.read("f").unwrap(), "two");
    // Who had it open has the old file, whole.
    assert_eq!(io::read_to_string(old).unwrap(), "one");
    assert_eq!(place.names(), ["f"]);
}

#[test]
fn the_file_of_a_body_becomes_the_file() {
    let place = Place::new();
    let spool = super::super::TemporaryFolder::new(place.path("spool"), [0; 3], 1);
    let body = spool.create().unwrap();
    body.write_now(0, b"body").unwrap();
    let order = place.order("f", Content::BodyFile);
    assert_eq!(run(Change::Put(order), Some(body)), Ok(Changed::Created));
    assert_eq!(
        (place.read("f").unwrap().as_str(), place.names()),
        ("body", vec!["f".into(), "spool".into()])
    );
    let body = spool.create().unwrap();
    let order = place.order("missing/f", Content::BodyFile);
    assert_eq!(status(run(Change::Put(order), Some(body))), 500);
    assert_eq!(place.names(), ["f", "spool"]);
}

#[test]
fn what_can_not_be_written_leaves_nothing_behind() {
    let place = Place::new();
    fs::create_dir(place.path("d")).unwrap();
    place.write("f", "file");
    assert_eq!(status(place.put("d", "x")), 409);
    assert_eq!(status(place.put("missing/x", "x")), 500);
    assert_eq!(status(place.put("f/x", "x")), 500);
    let failure = place.put("missing/x", "x").unwrap_err();
    assert!(failure.message.ends_with("failed (2: No such file or directory)"), "{}", failure.message);
    assert_eq!(place.names(), ["d", "f"]);
    let mut order = place.order("a/b/c", Content::Memory(Vec::new()));
    order.folders = Some(0o750);
    assert_eq!(run(Change::Put(order), None), Ok(Changed::Created));
    assert_eq!(fs::metadata(place.path("a/b")).unwrap().mode() & 0o777, 0o750);
}

#[test]
fn nothing_is_claimed_but_what_is_free() {
    let place = Place::new();
    let claim = |name: &str| run(Change::Claim { path: place.bytes(name), mode: 0o600 }, None);
    assert_eq!((claim("f"), claim("f")), (Ok(Changed::Created), Ok(Changed::Done)));
    fs::create_dir(place.path("d")).unwrap();
    assert_eq!((claim("d"), claim("d/")), (Ok(Changed::Done), Ok(Changed::Done)));
    assert_eq!([status(claim("n/")), status(claim("f/")), status(claim("n/f"))], [409, 409, 409]);
    assert_eq!(place.names(), ["d", "f"]);
}

#[test]
fn folders_are_made_one_at_a_time() {
    let place = Place::new();
    let make = |name: &str| {
        run(Change::MakeFolder { path: place.bytes(name), mode: 0o700 }, None)
            .map_err(|failure| failure.status.0)
    };
    assert_eq!([make("d/"), make("d/"), make("x/y/")], [Ok(Changed::Created), Err(405), Err(409)]);
    place.write("f", "");
    assert_eq!([make("f/"), make("f/d/")], [Err(405), Err(409)]);
}

#[test]
fn a_tree_is_removed_and_links_are_not_followed() {
    let place = Place::new();
    place.write("outside/kept", "kept");
    place.write("t/a/b/c", "");
    symlink(place.path("outside"), place.path("t/a/out")).unwrap();
    symlink(place.path("outside"), place.path("link")).unwrap();
    assert_eq!(place.delete("t"), Err(409));
    assert_eq!(place.delete("t/"), Ok(Changed::Done));
    assert_eq!(place.delete("link/"), Ok(Changed::Done));
    assert_eq!((place.delete("none"), place.delete("outside/kept/")), (Err(404), Err(409)));
    assert_eq!(place.names(), ["outside", "outside/kept"]);
    let shallow = Change::Delete { path: place.bytes("outside/"), depth: Depth::Zero };
    assert_eq!(status(run(shallow, None)), 400);
    let file = Change::Delete { path: place.bytes("outside/kept"), depth: Depth::One };
    assert_eq!(status(run(file, None)), 400);
}

#[test]
fn trees_are_bounded_in_depth() {
    let place = Place::new();
    let deep = "d/".repeat(250);
    fs::create_dir_all(place.path(&deep)).unwrap();
    assert_eq!(place.delete("d/"), Err(500));
    assert_eq!(place.copy("d/", "e/"), Err(500));
    assert!(place.path(&deep).is_dir());
    assert_eq!(place.names().len(), 250);
    for start in (0..5).rev() {
        assert_eq!(place.delete(&"d/".repeat(start * 50 + 1)), Ok(Changed::Done));
    }
    assert!(place.names().is_empty());
}

#[test]
fn a_tree_is_copied_whole_with_modes_and_times() {
    let place = Place::new();
    place.write("outside", "outside");
    place.write("t/a/f", "file");
    let early = UNIX_EPOCH + Duration::from_secs(1000);
    for name in ["t/a/f", "t/a"] {
        fs::set_permissions(place.path(name), Permissions::from_mode(0o750)).unwrap();
        File::open(place.path(name)).unwrap().set_modified(early).unwrap();
    }
    symlink("../outside", place.path("t/to_file")).unwrap();
    symlink("a", place.path("t/to_folder")).unwrap();
    symlink("nowhere", place.path("t/dangling")).unwrap();
    assert_eq!(place.copy("t/", "u/"), Ok(Changed::Created));
    let names: Vec<String> = place.names().into_iter().filter(|name| name.starts_with('u')).collect();
    assert_eq!(names, ["u", "u/a", "u/a/f", "u/to_file"]);
    for name in ["u/a/f", "u/a"] {
        let found = fs::metadata(place.path(name)).unwrap();
        assert_eq!((found.mode() & 0o777, found.mtime()), (0o750, 1000), "{name}");
    }
    // The content of what the link leads to, as nginx has it.
    assert!(fs::symlink_metadata(place.path("u/to_file")).unwrap().is_file());
    let order = Transfer {
        from: place.bytes("t/"),
        to: place.bytes("s/"),
        moves: false,
        overwrite: true,
        deep: false,
        folders: 0o700,
    };
    assert_eq!(run(Change::Transfer(order), None), Ok(Changed::Created));
    assert_eq!(fs::read_dir(place.path("s")).unwrap().count(), 0);
}

#[test]
fn what_is_replaced_goes_only_when_the_new_is_there() {
    let place = Place::new();
    place.write("old/kept", "old");
    place.write("new/f", "new");
    assert_eq!(place.transfer(false, "new/", "old/", false), Err(412));
    assert_eq!(place.rename("none/", "old/"), Err(404));
    assert_eq!(place.read("old/kept").unwrap(), "old");
    assert_eq!(place.copy("new/", "old/"), Ok(Changed::Created));
    assert_eq!((place.read("old/f").as_deref(), place.read("old/kept")), (Some("new"), None));
    place.write("other/x", "x");
    assert_eq!(place.rename("new/", "other/"), Ok(Changed::Created));
    assert_eq!(place.names(), ["old", "old/f", "other", "other/f"]);
    place.write("f", "f");
    assert_eq!((place.copy("f", "old"), place.rename("f", "old")), (Err(409), Err(409)));
    assert_eq!((place.copy("old", "x"), place.rename("old", "x")), (Err(400), Err(400)));
    assert_eq!((place.copy("f/", "x/"), place.rename("missing", "x")), (Err(404), Err(404)));
}

#[test]
fn nothing_is_copied_or_moved_into_itself() {
    let place = Place::new();
    place.write("t/a/f", "file");
    symlink("t", place.path("same")).unwrap();
    for (from, to) in
        [("t/", "t/"), ("t/", "t/a/"), ("t/", "t/a/new/"), ("t/a/", "t/"), ("t/", "same/a/new/")]
    {
        assert_eq!((place.copy(from, to), place.rename(from, to)), (Err(403), Err(403)), "{from} {to}");
    }
    assert_eq!((place.copy("t/a/f", "t/a/f"), place.rename("t/a/f", "t/a/f")), (Err(403), Ok(Changed::Done)));
    assert_eq!(place.names(), ["same", "t", "t/a", "t/a/f"]);
}

#[test]
fn files_are_copied_and_moved_whole() {
    let place = Place::new();
    place.write("f", "file");
    fs::set_permissions(place.path("f"), Permissions::from_mode(0o600)).unwrap();
    assert_eq!(place.copy("f", "g"), Ok(Changed::Done));
    assert_eq!((place.read("g").unwrap().as_str(), place.read("f").unwrap().as_str()), ("file", "file"));
    place.write("h", "other");
    fs::set_permissions(place.path("h"), Permissions::from_mode(0o644)).unwrap();
    assert_eq!(place.copy("f", "h"), Ok(Changed::Done));
    assert_eq!(fs::metadata(place.path("h")).unwrap().mode() & 0o777, 0o644);
    assert_eq!(place.rename("h", "f"), Ok(Changed::Done));
    assert_eq!(place.rename("f", "made/for/f"), Ok(Changed::Done));
    assert_eq!(place.copy("g", "missing/g"), Err(500));
    symlink("nowhere", place.path("dangling")).unwrap();
    assert_eq!(place.copy("g", "dangling"), Ok(Changed::Done));
    assert_eq!(place.copy("none", "x"), Err(404));
    assert_eq!(place.names(), ["dangling", "g", "made", "made/for", "made/for/f"]);
    assert!(fs::symlink_metadata(place.path("dangling")).unwrap().is_file());
}

#[test]
fn no_pipe_is_waited_for() {
    let place = Place::new();
    let path = std::ffi::CString::new(place.bytes("pipe")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &*path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert_eq!(place.copy("pipe", "x"), Err(500));
    place.write("t/f", "");
    fs::rename(place.path("pipe"), place.path("t/pipe")).unwrap();
    assert_eq!(place.copy("t/", "u/"), Ok(Changed::Created));
    assert_eq!(place.names(), ["t", "t/f", "t/pipe", "u", "u/f"]);
}
