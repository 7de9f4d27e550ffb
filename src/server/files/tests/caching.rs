//! What is kept, for how long, and what a change of the file does to it.

use super::*;

#[test]
fn content_is_kept_from_the_second_use_on_with_and_without_open_file_cache() {
    for options in [FileOptions::default(), cached(10)] {
        let mut bench = Bench::new();
        bench.put("a", b"hello");
        let first = bench.found("a", &options);
        assert!(!in_memory(&first));
        assert_eq!(bytes(&first), b"hello");
        let second = bench.found("a", &options);
        assert!(in_memory(&second));
        assert_eq!(bytes(&second), b"hello");
        assert_eq!(second.handle.unwrap().validators().content_length(), b"5");
        let holdings = bench.files.holdings();
        assert_eq!((holdings.entries, holdings.descriptors, holdings.content_bytes), (1, 0, 5));
    }
}

#[test]
fn an_empty_file_is_an_empty_content() {
    let mut bench = Bench::new();
    bench.put("empty", b"");
    bench.found("empty", &FileOptions::default());
    let info = bench.found("empty", &FileOptions::default());
    assert!(in_memory(&info) && bytes(&info).is_empty());
}

#[test]
fn a_file_larger_than_the_bound_stays_a_descriptor() {
    let mut bench = Bench::within(Limits { content_file: 4, ..Limits::default() });
    bench.put("four", b"1234");
    bench.put("five", b"12345");
    for _ in 0..3 {
        bench.found("four", &FileOptions::default());
        bench.found("five", &FileOptions::default());
    }
    assert!(in_memory(&bench.found("four", &FileOptions::default())));
    assert!(!in_memory(&bench.found("five", &FileOptions::default())));
}

#[test]
fn a_file_that_was_just_changed_is_not_kept_in_memory_yet() {
    let mut bench = Bench::new();
    let path = bench.put("a", b"hello");
    let changed = std::fs::metadata(path).unwrap().modified().unwrap();
    let since = changed.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    bench.now.wall_ms = since + SETTLED_MS - 1;
    for _ in 0..3 {
        assert!(!in_memory(&bench.found("a", &FileOptions::default())));
    }
    bench.now.wall_ms = since + SETTLED_MS + 1;
    assert!(in_memory(&bench.found("a", &FileOptions::default())));
}

#[test]
fn without_open_file_cache_every_change_is_seen_by_the_next_use() {
    let mut bench = Bench::new();
    let options = FileOptions::default();
    bench.put("a", b"one");
    for _ in 0..3 {
        bench.found("a", &options);
    }
    bench.put("a", b"three");
    assert_eq!(bytes(&bench.found("a", &options)), b"three");
    bench.put("new", b"other");
    std::fs::rename(bench.path("new"), bench.path("a")).unwrap();
    assert_eq!(bytes(&bench.found("a", &options)), b"other");
    std::fs::remove_file(bench.path("a")).unwrap();
    let failure = bench.failed("a", &options);
    assert_eq!((failure.call.name(), failure.errno), ("open()", 2));
    bench.put("a", b"again");
    assert_eq!(bytes(&bench.found("a", &options)), b"again");
    std::fs::remove_file(bench.path("a")).unwrap();
    std::fs::create_dir(bench.path("a")).unwrap();
    assert_eq!(bench.found("a", &options).kind, FileKind::Directory);
}

#[test]
fn a_same_sized_rewrite_with_its_time_set_back_is_seen() {
    let mut bench = Bench::new();
    let options = FileOptions::default();
    let path = bench.put("a", b"old");
    let time = std::fs::metadata(&path).unwrap().modified().unwrap();
    for _ in 0..2 {
        bench.found("a", &options);
    }
    bench.put("a", b"new");
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    assert_eq!(bytes(&bench.found("a", &options)), b"new");
}

#[test]
fn a_path_unused_for_long_is_opened_and_its_content_kept_when_nothing_changed() {
    let mut bench = Bench::new();
    bench.put("a", b"hello");
    for _ in 0..2 {
        bench.found("a", &FileOptions::default());
    }
    bench.pass(RECENT_MS + 1);
    assert!(in_memory(&bench.found("a", &FileOptions::default())));
    assert_eq!(bench.files.holdings().entries, 1);
}

#[test]
fn open_file_cache_answers_as_before_until_its_validity_ends() {
    let mut bench = Bench::new();
    let options = cached(10);
    bench.put("a", b"old");
    for _ in 0..2 {
        bench.found("a", &options);
    }
    bench.put("new", b"newer");
    std::fs::rename(bench.path("new"), bench.path("a")).unwrap();
    bench.pass(29_999);
    assert_eq!(bytes(&bench.found("a", &options)), b"old");
    bench.pass(1);
    assert_eq!(bytes(&bench.found("a", &options)), b"newer");
}

#[test]
fn an_unlinked_file_is_served_from_its_cached_descriptor_as_nginx_does() {
    let mut bench = Bench::within(Limits { content_file: 0, ..Limits::default() });
    let options = cached(10);
    bench.put("a", b"kept");
    bench.found("a", &options);
    std::fs::remove_file(bench.path("a")).unwrap();
    assert_eq!(bytes(&bench.found("a", &options)), b"kept");
    bench.pass(30_000);
    assert_eq!(bench.failed("a", &options).errno, 2);
}

#[test]
fn a_cached_descriptor_whose_file_grew_or_shrank_is_opened_anew() {
    let mut bench = Bench::within(Limits { content_file: 0, ..Limits::default() });
    let options = cached(10);
    let path = bench.put("a", b"0123456789");
    bench.found("a", &options);
    std::fs::OpenOptions::new().append(true).open(&path).unwrap().set_len(20).unwrap();
    assert_eq!(bench.found("a", &options).size, 20);
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(5).unwrap();
    let info = bench.found("a", &options);
    assert_eq!((info.size, bytes(&info)), (5, b"01234".to_vec()));
}

#[test]
fn open_file_cache_holds_at_most_max_entries_and_drops_the_least_used() {
    let mut bench = Bench::new();
    let options = cached(2);
    for name in ["a", "b", "c"] {
        bench.put(name, name.as_bytes());
    }
    bench.found("a", &options);
    bench.pass(2000);
    bench.found("b", &options);
    bench.pass(2000);
    bench.found("a", &options);
    bench.found("c", &options);
    assert_eq!(bench.files.holdings().entries, 2);
    std::fs::remove_file(bench.path("a")).unwrap();
    std::fs::remove_file(bench.path("b")).unwrap();
    assert_eq!(bytes(&bench.found("a", &options)), b"a");
    assert_eq!(bench.failed("b", &options).errno, 2);
}

#[test]
fn entries_unused_for_the_inactive_time_are_swept() {
    let mut bench = Bench::new();
    let options = cached(10);
    bench.put("a", b"a");
    bench.found("a", &options);
    bench.pass(60_000);
    bench.files.sweep(bench.now);
    assert_eq!(bench.files.holdings().entries, 1);
    bench.pass(1);
    bench.files.sweep(bench.now);
    assert_eq!(bench.files.holdings().entries, 0);
}

#[test]
fn a_descriptor_is_kept_only_after_min_uses() {
    let mut bench = Bench::within(Limits { content_file: 0, ..Limits::default() });
    let options = FileOptions { min_uses: 3, ..cached(10) };
    bench.put("a", b"a");
    for expected in [0, 0, 1, 1] {
        let info = bench.found("a", &options);
        assert_eq!(bytes(&info), b"a");
        assert_eq!(bench.files.holdings().descriptors, expected);
    }
}

#[test]
fn failures_are_kept_only_where_open_file_cache_errors_asks_for_it() {
    for (errors, expected) in [(true, 0), (false, 1)] {
        let mut bench = Bench::new();
        let options = FileOptions { errors, ..cached(10) };
        assert_eq!(bench.failed("late", &options).reason, FailureReason::NotFound);
        bench.put("late", b"x");
        let found = matches!(bench.open("late", &options), FileAnswer::Found(_));
        assert_eq!(usize::from(found), expected);
        bench.pass(30_000);
        assert_eq!(bytes(&bench.found("late", &options)), b"x");
    }
}

#[test]
fn two_directives_are_two_caches_and_a_forgotten_one_is_emptied() {
    let mut bench = Bench::new();
    let (one, two) = (cached(10), cached(10));
    bench.put("a", b"a");
    bench.found("a", &one);
    bench.found("a", &two);
    bench.found("a", &FileOptions::default());
    assert_eq!((bench.files.holdings().entries, bench.files.holdings().caches), (3, 3));
    drop(one);
    bench.files.sweep(bench.now);
    assert_eq!((bench.files.holdings().entries, bench.files.holdings().caches), (2, 2));
    bench.found("a", &two);
}

#[test]
fn contents_and_descriptors_stay_within_their_bounds() {
    let limits = Limits {
        content_file: 100,
        content_total: 250,
        checked_entries: 6,
        checked_descriptors: 2,
        ..Limits::default()
    };
    let mut bench = Bench::within(limits);
    for n in 0..20 {
        bench.put(&format!("small{n}"), &[b'x'; 100]);
        bench.put(&format!("large{n}"), &[b'x'; 101]);
        for _ in 0..2 {
            bench.found(&format!("small{n}"), &FileOptions::default());
            bench.found(&format!("large{n}"), &FileOptions::default());
        }
        let holdings = bench.files.holdings();
        assert!(holdings.content_bytes <= 250 && holdings.descriptors <= 2 && holdings.entries <= 6);
    }
    assert_eq!(bench.files.holdings().contents, 2);
}

#[test]
fn more_files_than_descriptors_read_in_turns_all_come_to_memory() {
    let mut bench = Bench::within(Limits { checked_descriptors: 2, ..Limits::default() });
    let names: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    for name in &names {
        bench.put(name, name.as_bytes());
    }
    for round in 0..3 {
        for name in &names {
            let info = bench.found(name, &FileOptions::default());
            assert_eq!(bytes(&info), name.as_bytes());
            assert_eq!(in_memory(&info), round > 0);
        }
    }
}

#[test]
fn idle_descriptors_are_closed_by_the_sweep() {
    let mut bench = Bench::new();
    bench.put("a", b"a");
    bench.found("a", &FileOptions::default());
    assert_eq!(bench.files.holdings().descriptors, 1);
    bench.pass(Limits::default().checked_descriptor_ms + 1);
    bench.files.sweep(bench.now);
    assert_eq!(bench.files.holdings().descriptors, 0);
}
