//! Videos from a place within them: `flv`, `mp4`.

use crate::util::{Both, Cases, Server, eventually, request};

#[test]
fn flv_begins_at_the_byte_that_is_asked_for_as_nginx_has_it() {
    Cases::new(
        "server { listen {port}; root {root}/html; location /v/ { flv; alias {root}/html/; }
         types { video/x-flv flv; text/plain txt; }
         location /typed/ { flv; alias {root}/html/; types { text/x-flv flv; } } }",
    )
    .show(&["etag", "content-type", "accept-ranges", "content-range"])
    .file("html/a.flv", "0123456789")
    .file("html/folder/x", "")
    .get("/v/a.flv", "200 0123456789 [etag: \"65937d25-a\"] [content-type: video/x-flv] [accept-ranges: bytes]")
    .get("/v/a.flv?start=7", "200 FLV\u{1}\u{5}\0\0\0\t\0\0\0\u{0}789 [etag: \"65937d25-10\"] [content-type: video/x-flv] [accept-ranges: bytes]")
    .get("/typed/a.flv?start=9&x", "200 FLV\u{1}\u{5}\0\0\0\t\0\0\0\u{0}9 [etag: \"65937d25-e\"] [content-type: text/x-flv] [accept-ranges: bytes]")
    .get("/v/a.flv?start=10", "200 0123456789 [etag: \"65937d25-a\"] [content-type: video/x-flv] [accept-ranges: bytes]")
    .get("/v/none.flv", "404 [content-type: text/html]")
    .get("/v/folder", "301 http://localhost:{port}/v/folder/ [content-type: text/html]")
    .request("POST /v/a.flv HTTP/1.0\r\n\r\n", "405 [content-type: text/html]")
    .check();
}

fn atom(kind: &[u8; 4], payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32 + 8).to_be_bytes()[..], kind, payload].concat()
}

fn numbers(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

/// How many samples the video has; each is a second of [`SAMPLE`] equal bytes in a chunk of its own.
const COUNT: u32 = 60;
const SAMPLE: u32 = 10_000;

/// With zeros behind it up to this length.
fn padded(payload: &[u8], length: usize) -> Vec<u8> {
    [payload, &vec![0; length - payload.len()]].concat()
}

fn moov(data_at: u32) -> Vec<u8> {
    moov_with(data_at, b"")
}

fn moov_with(data_at: u32, more: &[u8]) -> Vec<u8> {
    let offsets: Vec<u32> = (0..COUNT).map(|number| data_at + number * SAMPLE).collect();
    // In the order in which nginx writes them.
    let stbl = [
        atom(b"stts", &numbers(&[0, 1, COUNT, 1000])),
        more.to_vec(),
        atom(b"stsc", &numbers(&[0, 1, 1, 1, 1])),
        atom(b"stsz", &[numbers(&[0, 0, COUNT]), numbers(&[SAMPLE; COUNT as usize])].concat()),
        atom(b"stco", &[numbers(&[0, COUNT]), numbers(&offsets)].concat()),
    ];
    let media = [
        atom(b"mdhd", &numbers(&[0, 0, 0, 1000, COUNT * 1000, 0])),
        atom(b"minf", &atom(b"stbl", &stbl.concat())),
    ];
    let track = [
        atom(b"tkhd", &padded(&numbers(&[0, 0, 0, 1, 0, COUNT * 1000, 0]), 84)),
        atom(b"mdia", &media.concat()),
    ];
    let movie = [
        atom(b"mvhd", &padded(&numbers(&[0, 0, 0, 1000, COUNT * 1000, 0]), 100)),
        atom(b"trak", &track.concat()),
    ];
    atom(b"moov", &movie.concat())
}

fn video(data_first: bool) -> Vec<u8> {
    let ftyp = atom(b"ftyp", b"isom\0\0\0\0");
    let data: Vec<u8> = (0..COUNT).flat_map(|number| vec![b'A' + number as u8; SAMPLE as usize]).collect();
    let mdat = atom(b"mdat", &data);
    let before = ftyp.len() as u32 + 8;
    if data_first {
        [ftyp, mdat, moov(before)].concat()
    } else {
        [ftyp, moov(before + moov(0).len() as u32), mdat].concat()
    }
}

#[test]
fn mp4_sends_a_new_head_and_the_part_of_the_file() {
    let server =
        Server::start("server { listen {port}; root {root}/html; mp4_buffer_size 100; location / { mp4; } }");
    for data_first in [false, true] {
        let file = video(data_first);
        server.write("html/a.mp4", &file);
        assert!(request(server.port(), "GET", "/a.mp4", &[]).body == file);
        let response = request(server.port(), "GET", "/a.mp4?start=20.5&end=50", &[]);
        assert_eq!((response.status, response.header("accept-ranges")), (200, Some("bytes")));
        let expected: Vec<u8> = (20..50).flat_map(|number| vec![b'A' + number; SAMPLE as usize]).collect();
        let body = &response.body;
        let (head, data) = body.split_at(body.len() - expected.len());
        assert!(data == expected && head.ends_with(b"mdat"), "data first: {data_first}");
        // The first chunk begins where the head ends.
        let stco = head.windows(4).position(|four| four == b"stco").expect("offsets");
        assert_eq!(head[stco + 8..stco + 16], [numbers(&[30]), numbers(&[head.len() as u32])].concat());
        let (from, to) = (head.len() - 4, head.len() + 3);
        let range = format!("bytes={from}-{to}");
        let part = request(server.port(), "GET", "/a.mp4?start=20.5&end=50", &[("Range", &range)]);
        assert_eq!((part.status, part.text()), (206, "mdatUUUU".to_owned()));
        let head_only = request(server.port(), "HEAD", "/a.mp4?start=20.5&end=50", &[]);
        assert_eq!(head_only.header("content-length"), Some(&body.len().to_string()[..]));
    }
    assert_eq!(request(server.port(), "GET", "/a.mp4?start=61", &[]).status, 500);
    eventually("a line in the log", || server.error_log().contains("start time is out of mp4 samples"));
}

/// The video with every tenth sample a key frame.
fn video_with_keys() -> Vec<u8> {
    let keys: Vec<u32> = (0..COUNT).step_by(10).map(|number| number + 1).collect();
    let stss = atom(b"stss", &[numbers(&[0, keys.len() as u32]), numbers(&keys)].concat());
    let ftyp = atom(b"ftyp", b"isom\0\0\0\0");
    let data: Vec<u8> = (0..COUNT).flat_map(|number| vec![b'A' + number as u8; SAMPLE as usize]).collect();
    let with_keys = |data_at: u32| moov_with(data_at, &stss);
    let data_at = ftyp.len() as u32 + with_keys(0).len() as u32 + 8;
    [ftyp, with_keys(data_at), atom(b"mdat", &data)].concat()
}

#[test]
fn mp4_cuts_as_nginx_does() {
    let text = "server { listen {port}; root {root}/html; types { video/mp4 mp4; }
        location / { mp4; mp4_buffer_size 500; }
        location /keys/ { mp4; mp4_start_key_frame on; alias {root}/html/; }
        location /small/ { mp4; mp4_buffer_size 100; mp4_max_buffer_size 300; alias {root}/html/; }
        location /off/ { alias {root}/html/; } }";
    let (first, last, keys) = (video(true), video(false), video_with_keys());
    let both = Both::start(
        text,
        &[
            ("html/a.mp4", &first),
            ("html/b.mp4", &last),
            ("html/k.mp4", &keys),
            ("html/c.mp4", b"no video at all, not at all"),
        ],
    );
    // (Of a time between two samples nginx writes other durations, and loses a sample at the end.)
    let queries = [
        "",
        "?start=0",
        "?start=20",
        "?end=10",
        "?start=20&end=50",
        "?start=50&end=20",
        "?start=x",
        "?start=-1",
        "?start=61",
        "?start=59",
    ];
    for name in
        ["/a.mp4", "/b.mp4", "/k.mp4", "/keys/k.mp4", "/keys/a.mp4", "/c.mp4", "/none.mp4", "/off/a.mp4"]
    {
        for query in queries {
            both.get(&format!("{name}{query}"), "");
            both.head(&format!("{name}{query}"), "");
        }
        both.get(&format!("{name}?start=20&end=50"), "Range: bytes=700-720");
    }
    assert_eq!(both.get("/small/a.mp4?start=20", "").status, 500);
    let cut = both.get("/keys/k.mp4?start=25", "").body;
    assert!(
        cut.ends_with(&vec![b'A' + 59; SAMPLE as usize]) && cut.len() as u32 > 40 * SAMPLE,
        "from the key frame at 20 s"
    );
    both.check();
}
