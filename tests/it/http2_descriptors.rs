//! What streams of HTTP/2 hold of files while their client gives them no window.

use crate::util::h2::{H2, *};
use crate::util::{Client, Server, eventually};

const FILES: usize = 200;
const LENGTH: usize = 100 * 1024;

fn start(directives: &str) -> Server {
    let server = Server::start(&format!(
        "worker_processes 1; http {{ log_format f '$uri|$status|$body_bytes_sent|$request_completion';
           access_log {{root}}/access.log f; http2_max_concurrent_streams 4000; keepalive_requests 100000;
           server {{ listen {{port}}; http2 on; root {{root}}/html; {directives} }} }}"
    ));
    for number in 0..FILES {
        server.write(&format!("html/{number}.bin"), content(number));
    }
    server
}

/// What the file of that number holds: no two have four bytes in common at the same place.
fn content(number: usize) -> Vec<u8> {
    (0..LENGTH / 4).flat_map(|place| ((place * FILES + number) as u32).to_le_bytes()).collect()
}

/// A client whose streams begin without a window.
fn without_window(server: &Server) -> H2 {
    let mut h2 = H2::over(Client::connect(server.port()), &[(4, 0)]);
    h2.gives_window = false;
    h2.send(WINDOW_UPDATE, 0, 0, &0x1000_0000u32.to_be_bytes());
    h2
}

/// Opens a stream for each file, and waits for all heads.
fn ask_for_all(h2: &mut H2) -> Vec<u32> {
    let ids: Vec<u32> = (0..FILES).map(|number| h2.get(&format!("/{number}.bin"))).collect();
    h2.wait_until(|h2| ids.iter().all(|id| h2.streams[id].status == 200));
    ids
}

fn give_window(h2: &mut H2, id: u32, bytes: u32) {
    h2.send(WINDOW_UPDATE, 0, id, &bytes.to_be_bytes());
}

/// How many of the served files the server's processes have open.
fn open_files(server: &Server) -> usize {
    let folder = server.path("html");
    let of = |pid: &rustix::process::Pid| {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).expect("a process");
        let target = |entry: std::io::Result<std::fs::DirEntry>| std::fs::read_link(entry.ok()?.path()).ok();
        entries.filter_map(target).filter(|target| target.starts_with(&folder)).count()
    };
    server.children().iter().map(of).sum()
}

/// The lines of the error log from the level `error` on.
fn errors(server: &Server) -> Vec<String> {
    let is_news = |line: &&str| !line.contains("[notice]") && !line.contains("[info]");
    server.error_log().lines().filter(is_news).map(str::to_owned).collect()
}

fn resident_kib(server: &Server) -> usize {
    let of = |pid: &rustix::process::Pid| {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number")
    };
    server.children().iter().map(of).sum()
}

fn wait_until_all_are_closed(server: &Server) {
    eventually("files that nobody reads are closed", || open_files(server) == 0);
}

#[test]
fn streams_without_window_hold_no_files_and_are_whole_in_the_end() {
    let server = start("");
    let mut h2 = without_window(&server);
    let ids = ask_for_all(&mut h2);
    wait_until_all_are_closed(&server);
    // In pieces, with pauses long enough for all to be closed in between.
    ids.iter().for_each(|id| give_window(&mut h2, *id, 30_000));
    h2.wait_until(|h2| ids.iter().all(|id| h2.streams[id].body.len() == 30_000));
    wait_until_all_are_closed(&server);
    ids.iter().for_each(|id| give_window(&mut h2, *id, 200_000));
    for (number, id) in ids.into_iter().enumerate() {
        let got = h2.wait(id);
        assert_eq!(got.reset, None);
        assert!(got.body == content(number), "{number}");
    }
    server.access_log_lines(FILES);
    assert_eq!(errors(&server), [""; 0]);
}

#[test]
fn a_file_that_is_replaced_while_its_reader_stands_still_breaks_that_download_alone() {
    let server = start("");
    let mut h2 = without_window(&server);
    let ids = ask_for_all(&mut h2);
    ids.iter().for_each(|id| give_window(&mut h2, *id, 10_000));
    h2.wait_until(|h2| ids.iter().all(|id| h2.streams[id].body.len() == 10_000));
    wait_until_all_are_closed(&server);
    // Another file of the same length, the same file written anew, and none at all.
    std::fs::rename(server.write("html/other", content(0)), server.path("html/7.bin")).expect("a name");
    server.write("html/8.bin", content(0));
    std::fs::remove_file(server.path("html/9.bin")).expect("a file");
    ids.iter().for_each(|id| give_window(&mut h2, *id, 200_000));
    for (number, id) in ids.into_iter().enumerate() {
        let got = h2.wait(id);
        if matches!(number, 7..=9) {
            assert_eq!((got.reset, got.ended, got.body.len()), (Some(INTERNAL_ERROR), false, 10_000));
            assert!(got.body == content(number)[..10_000]);
        } else {
            assert!(got.reset.is_none() && got.body == content(number), "{number}");
        }
    }
    eventually("three lines", || errors(&server).len() >= 3);
    let log = errors(&server);
    assert_eq!(log.len(), 3, "{log:?}");
    for (name, why) in [
        ("7.bin", "was replaced while the client gave no window"),
        ("8.bin", "was replaced while the client gave no window"),
        ("9.bin", "was closed and cannot be opened again (2: No such file or directory)"),
    ] {
        let said = |line: &&String| line.contains(&format!("{name}\" {why}"));
        assert_eq!(log.iter().filter(said).count(), 1, "{name}: {log:?}");
    }
    let lines = server.access_log_lines(FILES);
    assert_eq!(lines.iter().filter(|line| line.ends_with("|200|10000|")).count(), 3, "{lines:?}");
}

#[test]
fn the_connection_s_window_is_waited_for_without_files_as_well() {
    let server = start("");
    let mut h2 = H2::connect(server.port());
    h2.gives_window = false;
    let ids = ask_for_all(&mut h2);
    // Each stream has a window, and the connection's is used up by one or two of them.
    wait_until_all_are_closed(&server);
    h2.gives_window = true;
    ids.iter().for_each(|id| give_window(&mut h2, *id, 200_000));
    h2.send(WINDOW_UPDATE, 0, 0, &0x1000_0000u32.to_be_bytes());
    for (number, id) in ids.into_iter().enumerate() {
        assert!(h2.wait(id).body == content(number), "{number}");
    }
}

#[test]
fn a_client_that_gives_windows_and_reads_nothing_holds_no_files_either() {
    let server = start("");
    let mut h2 = H2::over(Client::connect(server.port()), &[(4, 0x100_0000)]);
    h2.gives_window = false;
    h2.send(WINDOW_UPDATE, 0, 0, &0x1000_0000u32.to_be_bytes());
    let ids: Vec<u32> = (0..FILES).map(|number| h2.get(&format!("/{number}.bin"))).collect();
    // 20 MB: more than both sockets hold.
    eventually("files that are sent", || open_files(&server) > 0);
    wait_until_all_are_closed(&server);
    for (number, id) in ids.into_iter().enumerate() {
        let got = h2.wait(id);
        assert!(got.reset.is_none() && got.body == content(number), "{number}");
    }
    server.access_log_lines(FILES);
    assert_eq!(errors(&server), [""; 0]);
}

#[test]
fn ranges_and_compressed_bodies_go_on_where_they_stopped() {
    let server = start("gzip on; gzip_types *; gzip_min_length 1;");
    let mut h2 = without_window(&server);
    let ranges = h2.open(&[(":path", "/1.bin"), ("range", "bytes=0-49999,60000-99999")], true);
    let packed = h2.open(&[(":path", "/2.bin"), ("accept-encoding", "gzip")], true);
    h2.wait_until(|h2| [ranges, packed].iter().all(|id| h2.streams[id].status != 0));
    for bytes in [1000, 20_000, 60_000, 200_000] {
        wait_until_all_are_closed(&server);
        give_window(&mut h2, ranges, bytes);
        give_window(&mut h2, packed, bytes);
        h2.ping();
    }
    let got = h2.wait(ranges);
    assert_eq!((got.status, got.reset), (206, None));
    let holds = |part: &[u8]| got.body.windows(part.len()).any(|window| window == part);
    assert!(holds(&content(1)[..50_000]) && holds(&content(1)[60_000..100_000]));
    let got = h2.wait(packed);
    assert_eq!(got.header("content-encoding"), Some("gzip"));
    assert!(crate::util::codings::gunzip(&got.body) == content(2));
}

#[test]
fn links_are_looked_at_again() {
    let server = start("disable_symlinks on from={root}/html;");
    let mut h2 = without_window(&server);
    let id = h2.get("/1.bin");
    h2.wait_until(|h2| h2.streams[&id].status == 200);
    wait_until_all_are_closed(&server);
    // The same file, but behind a link.
    std::fs::rename(server.path("html/1.bin"), server.path("html/moved")).expect("a name");
    std::os::unix::fs::symlink("moved", server.path("html/1.bin")).expect("a link");
    give_window(&mut h2, id, 200_000);
    let got = h2.wait(id);
    assert_eq!((got.reset, got.ended, got.body.len()), (Some(INTERNAL_ERROR), false, 0));
    eventually("a line of the link", || errors(&server).iter().any(|line| line.contains("(40: ")));
}

#[test]
fn a_stream_without_window_takes_little_memory() {
    const STREAMS: usize = 3000;
    let server = start("");
    let mut h2 = without_window(&server);
    ask_for_all(&mut h2);
    wait_until_all_are_closed(&server);
    let before = resident_kib(&server);
    let waiting: Vec<u32> = (0..STREAMS).map(|number| h2.get(&format!("/{}.bin", number % FILES))).collect();
    h2.wait_until(|h2| waiting.iter().all(|id| h2.streams[id].status == 200));
    wait_until_all_are_closed(&server);
    let each = resident_kib(&server).saturating_sub(before) * 1024 / STREAMS;
    eprintln!("{each} bytes for each stream that waits");
    assert!(each < 2048, "{each} bytes for each stream that waits");
}
