//! Which paths are opened, which are refused, and what the pool has to do with it.

use super::*;

#[test]
fn a_fifo_neither_hangs_the_open_nor_is_handed_out() {
    let mut bench = Bench::new();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        bench.path("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    for _ in 0..2 {
        let info = bench.found("fifo", &FileOptions::default());
        assert!(info.kind == FileKind::Other && info.handle.is_none());
    }
    symlink("/dev/null", bench.path("device")).unwrap();
    let info = bench.found("device", &FileOptions::default());
    assert!(info.kind == FileKind::Other && info.handle.is_none());
}

#[test]
fn a_stat_answers_without_a_handle_and_needs_no_right_to_read() {
    let mut bench = Bench::new();
    let path = bench.put("a", b"abc");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o111)).unwrap();
    let answer = bench.ask(&path, Want::Stat, Symlinks::Follow, &FileOptions::default());
    let FileAnswer::Found(info) = answer else { panic!("{answer:?}") };
    assert!(info.handle.is_none());
    assert_eq!((info.size, info.mode), (3, 0o111));
    let missing = bench.ask(&bench.path("b"), Want::Stat, Symlinks::Follow, &FileOptions::default());
    assert!(matches!(missing, FileAnswer::Failed(f) if f.call.name() == "stat()" && f.errno == 2));
}

#[test]
fn a_path_can_t_climb_out_of_its_root() {
    let mut bench = Bench::new();
    std::fs::create_dir(bench.path("sub")).unwrap();
    bench.put("a", b"a");
    let options = FileOptions::default();
    assert_eq!(bytes(&bench.found("sub/../a", &options)), b"a");
    for name in ["../x", "sub/../../x", "sub/./..//../x", ".."] {
        assert_eq!(bench.failed(name, &options).reason, FailureReason::Forbidden, "{name}");
    }
    // The same bytes under a longer root: an entry for the one is no answer for the other.
    let path = bench.path("sub/../a");
    let root_len = bench.path("sub").as_os_str().len() as u32;
    let request = FileRequest {
        path: path.as_os_str().as_bytes(),
        root_len,
        want: Want::Open,
        symlinks: Symlinks::Follow,
        options: &options,
    };
    let answer = bench.files.open(&request, bench.now);
    assert!(matches!(answer, Opened::Ready(FileAnswer::Failed(_))), "{answer:?}");
}

#[test]
fn what_completes_a_cut_component_is_no_step_down() {
    assert!(opening::climbs_out(b"/srv/img/../x", b"/srv/i".len()));
    assert!(!opening::climbs_out(b"/srv/img/x/../y", b"/srv/i".len()));
    assert!(opening::climbs_out(b"/srv/w/../x", b"/srv/w/".len()));
    assert!(opening::climbs_out(b"/srv/w/../x", b"/srv/w".len()));
    assert!(!opening::climbs_out(b"/srv/../w/x", b"/srv/../w".len()));
    assert!(opening::climbs_out(b"/x", 3));
}

#[test]
fn a_file_taken_for_a_directory_is_not_found() {
    // The kernel's lock-free walk can't tell this failure, so that it also goes the way through the pool.
    let mut bench = Bench::new();
    bench.put("a", b"a");
    let failure = bench.failed("a/b", &FileOptions::default());
    assert_eq!((failure.errno, failure.reason), (20, FailureReason::NotFound));
}

#[test]
fn a_nul_byte_names_nothing() {
    let mut bench = Bench::new();
    bench.put("a", b"a");
    assert_eq!(bench.failed("a\0.html", &FileOptions::default()).reason, FailureReason::NotFound);
}

#[test]
fn refused_links_fail_in_every_component_but_the_from_part() {
    let mut bench = Bench::new();
    let options = FileOptions::default();
    std::fs::create_dir(bench.path("real")).unwrap();
    bench.put("real/file", b"x");
    symlink("real", bench.path("linked")).unwrap();
    symlink("file", bench.path("real/link")).unwrap();
    let from = |name: &str| bench_len(&bench.path(name));
    let (nowhere, at_linked) = (0, from("linked"));
    let cases = [
        ("real/file", nowhere, true),
        ("linked/file", nowhere, false),
        ("real/link", nowhere, false),
        ("linked/file", at_linked, true),
        ("linked/link", at_linked, false),
    ];
    for (name, from, allowed) in cases {
        // Once more after it is cached, and after a use that follows links has cached it.
        for symlinks in [Symlinks::Refuse { from }, Symlinks::Follow, Symlinks::Refuse { from }] {
            let answer = bench.ask(&bench.path(name), Want::Open, symlinks, &options);
            match answer {
                FileAnswer::Found(info) => {
                    assert!(allowed || symlinks == Symlinks::Follow, "{name} {symlinks:?}");
                    assert_eq!(bytes(&info), b"x");
                }
                FileAnswer::Failed(failure) => {
                    assert!(!allowed, "{name} {symlinks:?} {failure:?}");
                    assert_eq!((failure.call.name(), failure.errno), ("openat()", 40));
                    assert_eq!(failure.reason, FailureReason::Forbidden);
                }
            }
        }
    }
    let directory = bench.ask(&bench.path("real"), Want::Stat, Symlinks::Refuse { from: 0 }, &options);
    assert!(matches!(directory, FileAnswer::Found(info) if info.kind == FileKind::Directory));
}

fn bench_len(path: &Path) -> u32 {
    path.as_os_str().len() as u32
}

#[test]
fn a_path_component_that_becomes_a_link_is_noticed_by_the_next_use() {
    let mut bench = Bench::new();
    let options = FileOptions::default();
    std::fs::create_dir(bench.path("dir")).unwrap();
    bench.put("dir/file", b"x");
    let path = bench.path("dir/file");
    let rule = Symlinks::Refuse { from: 0 };
    for _ in 0..3 {
        assert!(matches!(bench.ask(&path, Want::Open, rule, &options), FileAnswer::Found(_)));
    }
    std::fs::rename(bench.path("dir"), bench.path("moved")).unwrap();
    symlink("moved", bench.path("dir")).unwrap();
    assert!(matches!(bench.ask(&path, Want::Open, rule, &options), FileAnswer::Failed(_)));
}

#[test]
fn links_with_their_target_s_owner_pass_if_not_owner() {
    let mut bench = Bench::new();
    let options = FileOptions::default();
    let rule = Symlinks::RefuseOthers { from: 0 };
    std::fs::create_dir(bench.path("real")).unwrap();
    bench.put("real/file", b"x");
    symlink("real", bench.path("linked")).unwrap();
    symlink("file", bench.path("real/link")).unwrap();
    for name in ["real/file", "linked/file", "linked//link"] {
        let answer = bench.ask(&bench.path(name), Want::Open, rule, &options);
        assert!(matches!(answer, FileAnswer::Found(info) if bytes(&info) == b"x"), "{name}");
    }
    let slash = bench.ask(&bench.path("linked/"), Want::Open, rule, &options);
    assert!(matches!(slash, FileAnswer::Found(info) if info.kind == FileKind::Directory));
    let file_slash = bench.ask(&bench.path("real/file/"), Want::Open, rule, &options);
    assert!(matches!(file_slash, FileAnswer::Failed(failure) if failure.errno == 20));
    // Giving the link away needs root's rights.
    if std::os::unix::fs::lchown(bench.path("real/link"), Some(12345), None).is_ok() {
        let answer = bench.ask(&bench.path("real/link"), Want::Open, rule, &options);
        assert!(matches!(answer, FileAnswer::Failed(failure) if failure.errno == 40));
        let other = Symlinks::RefuseOthers { from: bench_len(&bench.path("real/link")) };
        let answer = bench.ask(&bench.path("real/link"), Want::Open, other, &options);
        assert!(matches!(answer, FileAnswer::Found(_)));
    }
}

#[test]
fn both_patiences_give_the_same_answers() {
    let bench = Bench::new();
    bench.put("file", b"x");
    std::fs::create_dir(bench.path("dir")).unwrap();
    symlink("file", bench.path("link")).unwrap();
    symlink("loop", bench.path("loop")).unwrap();
    for name in ["file", "dir", "link", "loop", "none", "file/x", "dir/", "file/"] {
        for want in [Want::Stat, Want::Open] {
            for symlinks in
                [Symlinks::Follow, Symlinks::Refuse { from: 0 }, Symlinks::RefuseOthers { from: 0 }]
            {
                let path = CString::new(bench.path(name).as_os_str().as_bytes()).unwrap();
                let look = |patience| match opening::open(&path, 0, want, symlinks, patience) {
                    Ok(found) => Ok((found.stamp, found.descriptor.is_some())),
                    Err(error) => Err(error),
                };
                let blocking = look(Patience::Blocking);
                // What the blocking one has looked at is in memory now; but the kernel leaves its lock-free walk for
                // some failures, and reports those as cold.
                match look(Patience::Resident) {
                    Err(OpenError::Cold) => assert!(blocking.is_err(), "{name} {want:?}"),
                    resident => assert_eq!(resident, blocking, "{name} {want:?} {symlinks:?}"),
                }
            }
        }
    }
}

#[test]
fn a_pending_open_is_answered_once_and_a_cancelled_one_never() {
    let mut bench = Bench::new();
    let path = bench.put("a", b"abc");
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let submit = |files: &mut Files| {
        let job_path = path.clone();
        let waiting = Waiting::Open {
            path: path.clone(),
            root_len: 0,
            symlinks: Symlinks::Follow,
            options: FileOptions::default(),
        };
        files
            .submit(waiting, move || {
                let patience = Patience::Blocking;
                Finished::Opened(opening::open(&job_path, 0, Want::Open, Symlinks::Follow, patience))
            })
            .unwrap()
    };
    let cancelled = submit(&mut bench.files);
    bench.files.cancel(cancelled);
    let wanted = submit(&mut bench.files);
    match bench.wait(wanted) {
        Completion::Opened(FileAnswer::Found(info)) => assert_eq!(bytes(&info), b"abc"),
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.files.holdings().entries, 1);
    assert!(bench.files.waiting.is_empty());
}

#[test]
fn a_job_that_panics_is_answered_as_a_failure() {
    let mut bench = Bench::new();
    let job = || -> Finished { std::panic::resume_unwind(Box::new("a job's own mistake")) };
    let id = bench.files.submit(Waiting::Read, job).unwrap();
    assert!(matches!(bench.wait(id), Completion::Read(Err(_))));
}

#[test]
fn a_full_pool_answers_busy_and_lists_nothing() {
    let pool = Pool::start(1, 1, || Ok(())).unwrap();
    let mut files = Files::new(Limits::default(), FileJobs::new(&pool, Arc::new(|| ())));
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let mut blocker = pool.mailbox::<()>(Arc::new(|| ()));
    let (running, is_running) = crossbeam_channel::bounded::<()>(0);
    blocker
        .submit(move || {
            running.send(()).unwrap();
            released.recv().unwrap();
        })
        .unwrap();
    is_running.recv().unwrap();
    blocker.submit(|| ()).unwrap();
    assert_eq!(files.read_directory(b"/", 0, 10), Err(QueueFull));
    assert!(files.waiting.is_empty());
    release.send(()).unwrap();
}

#[test]
fn a_directory_is_listed_through_the_pool() {
    let mut bench = Bench::new();
    bench.put("a", b"abc");
    let path = bench.folder.path().as_os_str().as_bytes().to_vec();
    let id = bench.files.read_directory(&path, 0, 10).unwrap();
    let Completion::Listed(Ok(listing)) = bench.wait(id) else { panic!() };
    assert_eq!(listing.entries[0].name, b"a");
}
