//! Filters over files and over an upstream, side by side with nginx.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::util::codings::{gunzip, gzip};
use crate::util::{Both, Client, Nginx, Response, Server, Upstream, nginx, subject_is_ours};

/// An upstream whose answers have the field lines that the request's `X-Head` names (separated by `;;`) and a body of
/// the length that its path names, or of the text in `X-Body`; `X-Chunked` has it in pieces, `X-Gzip` compressed.
fn echo() -> Upstream {
    Upstream::http(|head, _| {
        let field = |name: &str| {
            head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned)
        };
        let length = head.split(['/', ' ', '?']).find_map(|part| part.parse::<usize>().ok()).unwrap_or(1000);
        let mut body = match field("X-Body") {
            Some(text) => text.into_bytes(),
            None => b"some text, ".iter().copied().cycle().take(length).collect(),
        };
        let mut lines: Vec<String> = field("X-Head")
            .unwrap_or_default()
            .split(";;")
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect();
        if !lines.iter().any(|line| line.starts_with("Content-Type")) {
            lines.push("Content-Type: text/html".to_owned());
        }
        if field("X-Gzip").is_some() {
            body = gzip(&body);
            lines.push("Content-Encoding: gzip".to_owned());
        }
        let is_head = head.starts_with("HEAD ");
        let mut wire = Vec::new();
        if field("X-Chunked").is_some() {
            lines.push("Transfer-Encoding: chunked".to_owned());
            for piece in body.chunks(7) {
                wire.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                wire.extend_from_slice(piece);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
        } else {
            lines.push(format!("Content-Length: {}", body.len()));
            wire = body;
        }
        let status = field("X-Status").unwrap_or_else(|| "200 OK".to_owned());
        let head = format!("HTTP/1.1 {status}\r\n{}\r\n\r\n", lines.join("\r\n"));
        if is_head { head.into_bytes() } else { [head.as_bytes(), &wire].concat() }
    })
}

/// Both servers with these locations before this upstream; `@` is its address.
fn both(upstream: &Upstream, http: &str, locations: &str) -> Both {
    let text = format!(
        "types {{ text/html html; text/css css; text/plain txt; }} default_type text/plain; proxy_http_version 1.1;
         proxy_set_header Connection ''; proxy_buffering on; {http} server {{ listen {{port}}; root {{root}}/html; {locations} }}"
    );
    Both::start(&text.replace('@', &format!("http://127.0.0.1:{}", upstream.port())), &[])
}

const PROXIED: [&str; 10] = [
    "off",
    "expired",
    "no-cache",
    "no-store",
    "private",
    "no_last_modified",
    "no_etag",
    "auth",
    "any",
    "no-cache no-store private expired auth",
];

#[test]
fn gzip_proxied_goes_by_what_the_response_says() {
    let upstream = echo();
    let locations: String = PROXIED
        .iter()
        .enumerate()
        .map(|(number, word)| {
            format!(
                "location /{number}/ {{ proxy_pass @; gzip_proxied {word}; }}
                 location /date/{number}/ {{ proxy_pass @; gzip_proxied {word}; proxy_pass_header Date; }}\n"
            )
        })
        .collect();
    let both = both(&upstream, "gzip on; gzip_min_length 0;", &locations);
    // What each of the settings above compresses, as digits.
    for (head, compressed) in [
        ("", "123456789"),
        ("Expires: Thu, 01 Jan 1970 00:00:01 GMT", "189"),
        ("Expires: Thu, 01 Jan 2099 00:00:01 GMT", "8"),
        ("Expires: whenever", "8"),
        ("@;;Expires: whenever", "8"),
        ("Date: whenever;;Expires: Thu, 01 Jan 1970 00:00:01 GMT", "8"),
        ("@;;Expires: Sat, 21 Nov 2020 10:00:00 GMT", "8"),
        ("@;;Expires: Sat, 21 Nov 2020 09:59:59 GMT", "189"),
        ("@;;Expires: Sat, 21 Nov 2020 10:00:01 GMT", "8"),
        ("@;;Expires: Thu, 01 Jan 1970 00:00:01 GMT;;Cache-Control: no-cache", "189"),
        ("Cache-Control: no-cache", "289"),
        ("Cache-Control: no-store", "389"),
        ("Cache-Control: private", "489"),
        ("Cache-Control: private=\"x\", max-age=3", "8"),
        ("Cache-Control: max-age=3, no-store , x", "389"),
        ("Cache-Control: x;no-store", "389"),
        ("Cache-Control: no-store;x", "8"),
        ("Cache-Control: max-age=10", "8"),
        ("Cache-Control: max-age=10;;Cache-Control: no-store", "389"),
        ("Cache-Control: NO-CACHE", "289"),
        ("Cache-Control: x-no-cache", "8"),
        ("Last-Modified: Sat, 21 Nov 2020 10:00:00 GMT", "12346789"),
        ("ETag: \"x\"", "12345789"),
        ("Last-Modified: Sat, 21 Nov 2020 10:00:00 GMT;;ETag: \"x\"", "1234789"),
    ] {
        let head = head.replace('@', "Date: Sat, 21 Nov 2020 10:00:00 GMT");
        for (more, always) in [("", ""), ("|Authorization: Basic eDp4", "79")] {
            let is_compressed = |number: &usize| {
                let fields = format!("Via: 1.1 x|Accept-Encoding: gzip|X-Head: {head}{more}");
                let folder = if head.contains("Date:") { "/date" } else { "" };
                both.get(&format!("{folder}/{number}/"), &fields).header("content-encoding") == Some("gzip")
            };
            let found: String =
                (0..PROXIED.len()).filter(is_compressed).map(|number| number.to_string()).collect();
            let expected: String =
                ('0'..='9').filter(|digit| compressed.contains(*digit) || always.contains(*digit)).collect();
            assert_eq!(found, expected, "{head}{more}");
        }
    }
    // A Date that is not passed on tells nothing.
    let head = "Date: Sat, 21 Nov 2020 10:00:00 GMT;;Expires: Sun, 21 Nov 2021 10:00:00 GMT";
    let response = both.get("/1/", &format!("Via: 1.1 x|Accept-Encoding: gzip|X-Head: {head}"));
    assert_eq!(response.header("content-encoding"), Some("gzip"));
    both.check();
}

#[test]
fn versions_browsers_lengths_types_and_vary_decide_as_in_nginx() {
    let upstream = echo();
    let both = both(
        &upstream,
        "gzip on; gzip_vary on;",
        "location / { proxy_pass @; }
         location /old/ { proxy_pass @; gzip_http_version 1.0; }
         location /msie/ { proxy_pass @; gzip_disable msie6; location /msie/more/ { proxy_pass @; gzip_disable robot; } }
         location /robot/ { proxy_pass @; gzip_disable \"robot/[12]\" ^curl; }
         location /long/ { proxy_pass @; gzip_min_length 1k; }
         location /types/ { proxy_pass @; gzip_types text/css application/x-y; }
         location /all/ { proxy_pass @; gzip_types *; }
         location /novary/ { proxy_pass @; gzip_vary off; }
         location /buffers/ { proxy_pass @; gzip_buffers 2 512; gzip_hash 512; gzip_window 512; postpone_gzipping 1000; gzip_comp_level 9; }
         location /off/ { proxy_pass @; gzip off; }",
    );
    let coding = |response: &Response| {
        let varies = response.header_all("vary").contains(&"Accept-Encoding");
        match response.header("content-encoding") {
            Some("gzip") if varies => "gzip, vary",
            Some("gzip") => "gzip",
            Some(_) => "the upstream's",
            None if varies => "vary",
            None => "",
        }
    };
    let agent = |name: &str| format!("User-Agent: {name}");
    for (target, fields, expected) in [
        ("/1000", "", "gzip, vary"),
        ("/20", "", "gzip, vary"),
        ("/19", "", ""),
        ("/19", "X-Chunked: 1", "gzip, vary"),
        ("/0", "X-Chunked: 1", "gzip, vary"),
        ("/1000", "Via: 1.1 x", "vary"),
        ("/1000", "X-Head: Content-Type: text/plain", ""),
        ("/1000", "X-Head: Content-Type: TEXT/HTML", "gzip, vary"),
        ("/1000", "X-Head: Content-Type: text/html; charset=x", "gzip, vary"),
        ("/1000", "X-Head: Content-Encoding: br", "the upstream's"),
        ("/1000", "X-Head: Content-Encoding: identity", "the upstream's"),
        ("/1000", "X-Status: 404 Gone", "gzip, vary"),
        ("/1000", "X-Status: 403 No", "gzip, vary"),
        ("/1000", "X-Status: 500 Bad", ""),
        ("/1000", "X-Status: 201 Made", ""),
        ("/1000", "X-Head: ETag: \"x\"", "gzip, vary"),
        ("/1000", "X-Head: ETag: W/\"x\"", "gzip, vary"),
        ("/1000", "X-Head: ETag: odd", "gzip, vary"),
        ("/1000", "X-Head: Vary: Cookie", "gzip, vary"),
        ("/1000", "X-Head: Accept-Ranges: bytes", "gzip, vary"),
        ("/1000", "Range: bytes=0-1", "gzip, vary"),
        ("/long/1023", "", ""),
        ("/long/1024", "", "gzip, vary"),
        ("/types/1000", "X-Head: Content-Type: text/css", "gzip, vary"),
        ("/types/1000", "X-Head: Content-Type: application/x-y", "gzip, vary"),
        ("/types/1000", "", "gzip, vary"),
        ("/types/1000", "X-Head: Content-Type: text/plain", ""),
        ("/all/1000", "X-Head: Content-Type: image/png", "gzip, vary"),
        ("/novary/1000", "", "gzip"),
        ("/buffers/100000", "", "gzip, vary"),
        ("/off/1000", "", ""),
        ("/msie/1000", &agent("Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)"), "vary"),
        ("/msie/1000", &agent("Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1; SV1)"), "gzip, vary"),
        ("/msie/1000", &agent("Mozilla/4.0 (compatible; MSIE 5.5; Windows NT 5.1)"), "vary"),
        ("/msie/1000", &agent("Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 5.1)"), "gzip, vary"),
        ("/msie/1000", &agent("Mozilla/4.0 (compatible; MSIE 6.0; X11) Opera 8.0"), "gzip, vary"),
        ("/msie/more/1000", &agent("Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)"), "vary"),
        ("/msie/more/1000", &agent("Robot"), "vary"),
        ("/robot/1000", &agent("my ROBOT/2"), "vary"),
        ("/robot/1000", &agent("my robot/3"), "gzip, vary"),
        ("/robot/1000", &agent("curl/8"), "vary"),
        ("/robot/1000", &agent("my curl/8"), "gzip, vary"),
        ("/robot/1000", &agent("MSIE 6.0"), "gzip, vary"),
    ] {
        let fields = format!("Accept-Encoding: gzip|{fields}");
        assert_eq!(coding(&both.get(target, &fields)), expected, "{target} {fields}");
        assert_eq!(coding(&both.head(target, &fields)), expected, "HEAD {target} {fields}");
    }
    for (line, expected) in [("GET /1000 HTTP/1.0", "vary"), ("GET /old/1000 HTTP/1.0", "gzip, vary")] {
        assert_eq!(coding(&both.ask(line, "Accept-Encoding: gzip")), expected, "{line}");
    }
    for (accept, expected) in [
        ("gzip;q=0", "vary"),
        ("gzip;q=0.000", "vary"),
        ("gzip;q=0.001", "gzip, vary"),
        ("gzip;q=1.1", "vary"),
        ("gzip ; q=0.5", "gzip, vary"),
        ("deflate, gzip", "gzip, vary"),
        ("deflate,x-gzip", "vary"),
        ("GZIP", "gzip, vary"),
        ("*", "vary"),
        ("", "vary"),
        ("identity", "vary"),
    ] {
        assert_eq!(coding(&both.get("/1000", &format!("Accept-Encoding: {accept}"))), expected, "{accept}");
    }
    both.check();
}

#[test]
fn gunzip_decodes_where_nginx_does() {
    let upstream = echo();
    let both = both(
        &upstream,
        "gunzip on;",
        "location / { proxy_pass @; }
         location /vary/ { proxy_pass @; gzip_vary on; }
         location /off/ { proxy_pass @; gunzip off; }
         location /old/ { proxy_pass @; gzip_http_version 1.0; }
         location /again/ { proxy_pass @; gzip on; gzip_min_length 0; gunzip_buffers 2 4k; }",
    );
    for (target, fields, is_coded) in [
        ("/5000", "X-Gzip: 1", false),
        ("/0", "X-Gzip: 1", false),
        ("/5000", "X-Gzip: 1|X-Chunked: 1", false),
        ("/5000", "X-Gzip: 1|Accept-Encoding: gzip", true),
        ("/5000", "X-Gzip: 1|Accept-Encoding: gzip;q=0", false),
        ("/5000", "X-Gzip: 1|Accept-Encoding: br", false),
        ("/5000", "X-Gzip: 1|Accept-Encoding: gzip|Via: 1.1 x", false),
        (
            "/5000",
            "X-Gzip: 1|X-Head: ETag: \"x\";;Accept-Ranges: bytes;;Last-Modified: Sat, 21 Nov 2020 10:00:00 GMT",
            false,
        ),
        ("/5000", "X-Gzip: 1|X-Status: 404 Gone", false),
        ("/5000", "X-Gzip: 1|Range: bytes=1-2", false),
        ("/5000", "", false),
        ("/vary/5000", "X-Gzip: 1", false),
        ("/vary/5000", "X-Gzip: 1|Accept-Encoding: gzip", true),
        ("/vary/5000", "", false),
        ("/off/5000", "X-Gzip: 1", true),
        ("/again/5000", "X-Gzip: 1", false),
        ("/again/5000", "X-Gzip: 1|Accept-Encoding: gzip", true),
    ] {
        for answer in [both.get(target, fields), both.head(target, fields)] {
            assert_eq!(answer.header("content-encoding").is_some(), is_coded, "{target} {fields}");
        }
    }
    assert!(
        both.ask("GET /old/5000 HTTP/1.0", "X-Gzip: 1|Accept-Encoding: gzip")
            .header("content-encoding")
            .is_some()
    );
    assert!(
        both.ask("GET /5000 HTTP/1.0", "X-Gzip: 1|Accept-Encoding: gzip")
            .header("content-encoding")
            .is_none()
    );
    both.check();
}

/// Directives as they stand in a location, right and wrong.
const DIRECTIVES: &[&str] = &[
    "gzip_comp_level 0",
    "gzip_comp_level 9",
    "gzip_comp_level 10",
    "gzip_comp_level x",
    "gzip_comp_level 1; gzip_comp_level 2",
    "gzip_buffers 16 8k",
    "gzip_buffers 0 8k",
    "gzip_buffers 4",
    "gzip_buffers 4 0",
    "gzip_buffers x 8k",
    "gzip_hash 512",
    "gzip_hash 128k",
    "gzip_hash 256k",
    "gzip_hash 3k",
    "gzip_hash x",
    "gzip_no_buffer on",
    "gzip_no_buffer x",
    "gzip_window 512",
    "gzip_window 64k",
    "gzip_window 256",
    "gzip_window x",
    "postpone_gzipping 0",
    "postpone_gzipping 1460",
    "postpone_gzipping x",
    "postpone_gzipping",
    "gzip_min_length 0",
    "gzip_min_length x",
    "gzip_min_length -1",
    "gzip_types text/css text/css",
    "gzip_types text/html",
    "gzip_types *",
    "gzip_types",
    "gzip_vary x",
    "gzip_http_version 1.0",
    "gzip_http_version 2.0",
    "gzip_proxied any any",
    "gzip_proxied foo",
    "gzip_disable \"(\"",
    "gzip_disable \"a\" msie6 b",
    "gzip_disable",
    "gzip on; gzip off",
    "gzip x",
    "gunzip x",
    "gunzip on; gunzip on",
    "gunzip_buffers 4 8k",
    "gunzip_buffers 4 x",
    "sub_filter a",
    "sub_filter \"\" b",
    "sub_filter a b c",
    "sub_filter_once x",
    "sub_filter_types text/html text/html",
    "sub_filter_last_modified x",
    "charset utf-8; charset koi8-r",
    "charset koi8-r; source_charset utf-8",
    "override_charset x",
    "charset_types text/css text/css",
    "add_before_body",
    "add_before_body /a; add_before_body /b",
    "addition_types *",
    "ssi x",
    "ssi_types text/html",
    "ssi_value_length x",
    "ssi_min_file_chunk x",
    "ssi_min_file_chunk 4k",
    "ssi_ignore_recycled_buffers x",
    "ssi_silent_errors x",
    "ssi_last_modified on; ssi_last_modified off",
    "subrequest_output_buffer_size x",
    "subrequest_output_buffer_size 4k; subrequest_output_buffer_size 4k",
    "log_subrequest x",
    "mirror off; mirror /x",
    "mirror /x; mirror off",
    "mirror /a /b",
    "mirror_request_body x",
    "post_action",
    "post_action a; post_action b",
    "dav_methods FOO",
    "dav_methods PUT PUT",
    "dav_access user:rw group:x",
    "dav_access foo:rw",
    "dav_access all:rw",
    "min_delete_depth x",
    "create_full_put_path x",
    "stub_status on",
    "stub_status on on",
    "mp4 on",
    "mp4_buffer_size x",
    "mp4_max_buffer_size x",
    "flv x",
    "add_trailer A",
    "add_trailer A b c",
    "auth_request",
    "auth_request /x /y",
    "auth_request_set a b",
    "auth_request_set $a",
    "auth_request_set $ b",
    "gzip_static maybe",
];

#[test]
fn what_is_wrong_with_filters_directives_is_said_as_in_nginx() {
    if !nginx::available() || !subject_is_ours() {
        return;
    }
    let mut report = String::new();
    for directives in DIRECTIVES {
        let text = format!("server {{ listen {{port}}; location / {{ {directives}; }} }}");
        let told = |stderr: &str, root: &std::path::Path| -> Vec<String> {
            stderr
                .lines()
                .filter_map(|line| line.split_once("[emerg] ").or_else(|| line.split_once("[warn] ")))
                .map(|(_, message)| message.replace(root.to_str().expect("UTF-8"), ""))
                .collect()
        };
        let (ours, theirs) = (Server::builder(&text).run(&["-t"]), Nginx::builder(&text).run(&["-t"]));
        let (found, expected) = (told(&ours.stderr, &ours.root), told(&theirs.stderr, &theirs.root));
        if found != expected || ours.status.success() != theirs.status.success() {
            report.push_str(&format!("{directives}\n  nginx {expected:?}\n  ours  {found:?}\n"));
        }
    }
    assert!(report.is_empty(), "{report}");
}

/// An upstream that says one event at a time, each when it is told to.
fn events() -> (Upstream, Sender<()>) {
    let (go, wait) = channel::<()>();
    let wait: Mutex<Receiver<()>> = Mutex::new(wait);
    let upstream = Upstream::start(move |mut peer| {
        peer.read_request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        for number in 0..5 {
            let event = format!("data: {number}\n\n");
            if !peer.try_send(format!("{:x}\r\n{event}\r\n", event.len())) {
                return;
            }
            if wait.lock().unwrap().recv_timeout(Duration::from_secs(15)).is_err() {
                return;
            }
        }
        peer.send("0\r\n\r\n");
    });
    (upstream, go)
}

#[test]
fn each_event_of_a_stream_comes_through_gzip_before_the_next_one_is_said() {
    for directives in [
        "",
        "proxy_buffering off;",
        "sub_filter_types *; sub_filter nothing something;",
        "charset utf-8; add_after_body /end;",
    ] {
        let (upstream, go) = events();
        let server = Server::start(&format!(
            "gzip on; gzip_types text/event-stream; addition_types *; server {{ listen {{port}}; location = /end {{ return 200 end; }}
             location / {{ proxy_pass http://127.0.0.1:{}; proxy_http_version 1.1; {directives} }} }}",
            upstream.port()
        ));
        let mut client = Client::connect(server.port());
        client.send("GET /events HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
        let (mut wire, mut expected) = (Vec::new(), String::new());
        for number in 0..5 {
            expected.push_str(&format!("data: {number}\n\n"));
            // The upstream says no more until this has come.
            while started(&chunks(&wire)) != expected.as_bytes() {
                wire.extend(client.read_some());
            }
            go.send(()).expect("the upstream waits");
        }
        let end = if directives.contains("/end") { "end" } else { "" };
        while !wire.ends_with(b"0\r\n\r\n") {
            wire.extend(client.read_some());
        }
        assert_eq!(gunzip(&chunks(&wire)), (expected + end).as_bytes(), "{directives}");
    }
}

/// The content of a chunked body as far as it has come.
fn chunks(wire: &[u8]) -> Vec<u8> {
    let Some(end) = wire.windows(4).position(|four| four == b"\r\n\r\n") else { return Vec::new() };
    let (mut rest, mut content) = (&wire[end + 4..], Vec::new());
    while let Some(line) = rest.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        let Some(chunk) = rest.get(line + 2..line + 2 + size) else { break };
        content.extend_from_slice(chunk);
        rest = rest.get(line + 4 + size..).unwrap_or_default();
    }
    content
}

/// What can be told of gzip data that are not whole yet.
fn started(packed: &[u8]) -> Vec<u8> {
    let mut inflate = zlib_rs::Inflate::new(true, 31);
    let mut text = vec![0; 10_000];
    let _ = inflate.decompress(packed, &mut text, zlib_rs::InflateFlush::NoFlush);
    text.truncate(inflate.total_out() as usize);
    text
}

const MAPS: &str = "charset_map latin utf-8 { E9 C3A9; 41 C384; } charset_map odd utf-8 { E9 C3A9; }";

#[test]
fn all_filters_together_stand_in_nginx_s_order() {
    let page = "<p>caf\u{e9} one <!--#include virtual=\"/inc\" --> two <!--#echo var=\"uri\" -->three A1 \u{e9}</p>\n";
    let latin: Vec<u8> = page.chars().map(|character| character as u8).collect();
    let pages: &'static [u8] = Vec::leak(latin.repeat(5));
    let upstream = Upstream::http(move |head, _| {
        let path = head.split([' ', '?']).nth(1).unwrap_or_default();
        let mut body = match path {
            "/before" => b"BEFORE \xe9 one <!--#echo var=\"uri\" -->".to_vec(),
            "/after" => b"AFTER \xe9 one <!--#echo var=\"uri\" -->".to_vec(),
            "/inc" => b"INC \xe9 one".to_vec(),
            _ => pages.to_vec(),
        };
        let mut fields = "Content-Type: text/html\r\n".to_owned();
        if path.contains("gzip") {
            body = gzip(&body);
            fields.push_str("Content-Encoding: gzip\r\n");
        }
        let length = body.len();
        if path.contains("chunked") {
            let pieces = body
                .chunks(7)
                .map(|piece| [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
            body = [pieces.collect::<Vec<_>>().concat(), b"0\r\n\r\n".to_vec()].concat();
            fields.push_str("Transfer-Encoding: chunked\r\n");
        } else {
            fields.push_str(&format!("Content-Length: {length}\r\n"));
        }
        let body = if head.starts_with("HEAD ") { Vec::new() } else { body };
        [format!("HTTP/1.1 200 OK\r\n{fields}\r\n").as_bytes(), &body].concat()
    });
    let more = "charset utf-8; source_charset latin; sub_filter one 'ONE<!--#echo var=\"args\" -->'; sub_filter_once off; ssi on;
                add_before_body /before; add_after_body /after; gzip on;";
    let at = format!("http://127.0.0.1:{}", upstream.port());
    let text = format!(
        "types {{ text/html html; }} default_type text/html; {MAPS} gzip_min_length 0; proxy_http_version 1.1; proxy_set_header Connection '';
         server {{ listen {{port}}; root {{root}}/html;
         location /all/ {{ alias {{root}}/html/; {more} }}
         location /passed/ {{ proxy_pass {at}/; gunzip on; {more} }}
         location /charset/ {{ proxy_pass {at}/; charset utf-8; source_charset latin; ssi on; }}
         location /parts/ {{ proxy_pass {at}/; charset utf-8; source_charset latin; add_before_body /before; add_after_body /after; }}
         location /plain/ {{ proxy_pass {at}/; sub_filter one two; sub_filter_once off; add_before_body /before; add_after_body /after; }}
         location /commands/ {{ proxy_pass {at}/; ssi on; add_before_body /before; add_after_body /after; }}
         location /made/ {{ proxy_pass {at}/; ssi on; gunzip on; sub_filter_once off; sub_filter one '<!--#include virtual=\"/inc\" -->'; }}
         location /late/ {{ proxy_pass {at}/; ssi on; sub_filter INC sub; sub_filter /late '(uri)'; charset utf-8; source_charset latin; }}
         location = /before {{ proxy_pass {at}; charset utf-8; source_charset latin; sub_filter one BEF; ssi on; add_before_body /never; }}
         location = /after {{ proxy_pass {at}; source_charset odd; }}
         location = /inc {{ proxy_pass {at}; sub_filter one INCSUB; charset utf-8; source_charset latin; gzip on; }} }}"
    );
    let single = page.replace("<!--#include virtual=\"/inc\" -->", "");
    let big = single.chars().map(|character| character as u8).collect::<Vec<_>>().repeat(3000);
    let both = Both::start(&text, &[("html/page.html", &latin), ("html/big.html", &big)]);
    for accept in ["Accept-Encoding: gzip", ""] {
        for target in ["/all/page.html?a<1", "/all/big.html?a<1"] {
            both.get(target, accept);
            both.head(target, accept);
        }
        for folder in ["passed", "charset", "parts", "plain", "commands", "made", "late"] {
            for name in ["page", "chunked", "gzip", "gzip-chunked"] {
                let target = format!("/{folder}/{name}?a<1");
                both.head(&target, accept);
                // What is in gzip and has parts added is not in gzip, with nginx neither.
                let is_mixed = name.starts_with("gzip")
                    && match folder {
                        "parts" | "plain" | "commands" => true,
                        "passed" => !accept.is_empty(),
                        _ => false,
                    };
                if !is_mixed {
                    both.get(&target, accept);
                }
            }
        }
    }
    let line = "<p>café ONEa&lt;1 INC é INCSUB two /passed/pagethree Ä1 é</p>\n";
    let whole = format!("BEFORE é BEF /before{}AFTER é one <!--#echo var=\"uri\" -->", line.repeat(5));
    assert_eq!(both.get("/passed/page?a<1", "Accept-Encoding: gzip").text(), whole);
    both.check();
}
