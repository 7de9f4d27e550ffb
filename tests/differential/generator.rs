//! Requests that are nearly right: each part is drawn from what is usual and from what has fooled a parser before, and
//! some bytes are changed at the end.

/// SplitMix64: the same cases for the same seed, for ever.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0xd129_0d3d_5d8f_1f7b))
    }

    pub fn from_clock() -> u64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |now| now.as_nanos() as u64)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// From 0 up to and without `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn pick<'a>(&mut self, from: &[&'a [u8]]) -> &'a [u8] {
        from[self.below(from.len())]
    }

    /// The usual, or once in `count` one of the others.
    fn mostly<'a>(&mut self, usual: &'a [u8], count: usize, others: &[&'a [u8]]) -> &'a [u8] {
        if self.one_in(count) { self.pick(others) } else { usual }
    }
}

const METHODS: &[&[u8]] = &[
    b"POST",
    b"HEAD",
    b"PUT",
    b"OPTIONS",
    b"DELETE",
    b"TRACE",
    b"CONNECT",
    b"PROPFIND",
    b"PATCH",
    b"M-SEARCH",
    b"FOO_BAR",
    b"A",
    b"GETGETGETGETGETGETGETGET",
    b"get",
    b"Get",
    b"GET1",
    b"GE T",
    b"",
    b"G\0T",
    b"GET\t",
    b"G\xc3\xa9T",
    b"-",
    b"_",
];

const SPACES: &[&[u8]] = &[b"  ", b"   ", b"\t", b"", b" \t", b"\x0b", b"\r"];

const PIECES: &[&[u8]] = &[
    b"/",
    b"/",
    b"/",
    b"//",
    b"///",
    b"/.",
    b"/..",
    b"/./",
    b"/../",
    b"/...",
    b".",
    b"..",
    b"%2e",
    b"%2E",
    b"%2f",
    b"%2F",
    b"%2e%2e/",
    b"%",
    b"%2",
    b"%zz",
    b"%4g",
    b"%00",
    b"%01",
    b"%0a",
    b"%0d%0a",
    b"%20",
    b"%23",
    b"%25",
    b"%252e",
    b"%3f",
    b"%3F",
    b"%41",
    b"%5c",
    b"%7f",
    b"%80",
    b"%c3%a9",
    b"%ff",
    b"a",
    b"b",
    b"A",
    b"exact",
    b"file/",
    b"file/a.txt",
    b"file/dir",
    b"file/dir/",
    b"file/b%20c.txt",
    b"file/none",
    b"?",
    b"?x=y",
    b"&",
    b"=",
    b"#",
    b"#f",
    b"+",
    b"\\",
    b";",
    b":",
    b"@",
    b"*",
    b"~",
    b"'",
    b"\"",
    b"<",
    b"|",
    b"^",
    b"`",
    b"{",
    b"[",
    b"\xc3\xa9",
    b"\xff",
    b"\x80",
    b"\x01",
    b"\x7f",
    b"\x1f",
    b"\t",
    b"\0",
];

const TARGETS: &[&[u8]] = &[
    b"/file/a.txt",
    b"/file/dir",
    b"/file/dir/",
    b"/file/dir/index.html",
    b"/file/../a",
    b"/file//a.txt",
    b"/file/%61.txt",
    b"/file/dir?x",
    b"/file",
    b"/file/",
    b"/exact",
    b"/exact/",
    b"/%65xact",
    b"/a.b?c=d&e",
    b"*",
    b"a",
    b"?",
    b"#",
    b"http://a/",
    b"http://a",
    b"http://a?x",
    b"http://a#x",
    b"http://a/b?c#d",
    b"HTTP://A.b:80/c",
    b"http://b.example/x",
    b"https://a/",
    b"ws+x.y-1://a/",
    b"1http://a/",
    b"http:/a",
    b"http:a",
    b"http//a",
    b"http://",
    b"http:///",
    b"http://:80/",
    b"http://a:/",
    b"http://a:b/",
    b"http://a:99999/",
    b"http://[::1]/",
    b"http://[::1]:80/x",
    b"http://[::1/",
    b"http://u@a/",
    b"http://a b/",
    b"http://a..b/",
    b"http://a%41/",
    b"http://a%zz/",
    b"http://a_b-c~!$&'()*+,;=/",
    b"http://a./",
    b"http://a\\b/",
    b"//a/b",
    b"/a:80",
    b"a:80",
    b"[::1]:80",
    b"a:443/x",
];

const VERSIONS: &[&[u8]] = &[
    b"HTTP/1.0",
    b"HTTP/1.0",
    b"HTTP/0.9",
    b"HTTP/1.2",
    b"HTTP/1.10",
    b"HTTP/1.00",
    b"HTTP/1.01",
    b"HTTP/1.100",
    b"HTTP/1.999",
    b"HTTP/1.1000",
    b"HTTP/01.1",
    b"HTTP/2.0",
    b"HTTP/2",
    b"HTTP/3.0",
    b"HTTP/10.1",
    b"HTTP/1",
    b"HTTP/1.",
    b"HTTP/.1",
    b"HTTP/1.1 ",
    b"HTTP/1.1  ",
    b"HTTP/1.1\t",
    b"HTTP/1.1x",
    b"HTTP/1.1 x",
    b"HTTP/1,1",
    b"HTTP 1.1",
    b"http/1.1",
    b"Http/1.1",
    b"HTTPS/1.1",
    b"HTP/1.1",
    b"HTTP/-1.1",
    b"HTTP/1.-1",
    b"HTTP/+1.1",
    b"FTP/1.1",
    b"1.1",
    b"",
    b"",
];

const LINE_ENDS: &[&[u8]] =
    &[b"\n", b"\n", b"\n", b"\r\r\n", b"\r", b"\n\r", b" \r\n", b"\t\r\n", b"\0\r\n", b"\x0b\n"];

const HOSTS: &[&[u8]] = &[
    b"b.example",
    b"B.Example",
    b"a:80",
    b"a:",
    b"a.",
    b"a.:80",
    b"A.B.C",
    b"[::1]",
    b"[::1]:80",
    b"[::1",
    b"::1",
    b"a..b",
    b".",
    b"..",
    b".a",
    b"",
    b"a b",
    b"a,b",
    b"a/b",
    b"a\\b",
    b"a\"b",
    b"u@a",
    b"a:b",
    b"a:99999",
    b"a:80:80",
    b"a#b",
    b"a?b",
    b"a%41",
    b"a%zz",
    b"\xc3\xa9",
    b"a\x01",
    b"a\x7f",
    b"a_b",
    b"-",
    b"127.0.0.1",
    b"a\t",
    b"\ta",
    b"   a   ",
    b"a\0b",
    b"[a]",
    b"[]",
    b"[v1.a]",
    b"a;b",
    b"<a>",
    b"a'b",
    b"*",
    b"*.a",
    b"~a",
    b"a|b",
    b"http://a",
];

const NAMES: &[&[u8]] = &[
    b"X",
    b"x",
    b"X ",
    b" X",
    b"X\t",
    b"X_Y",
    b"X!",
    b"X.Y",
    b"(X)",
    b"X\x01",
    b"X\x7f",
    b"X\0",
    b"X\xe9",
    b"",
    b"X\rY",
    b"X/Y",
    b"Content_Length",
    b"Accept",
    b"Cookie",
    b"Via",
    b"X-Forwarded-For",
    b"Expect",
    b"Connection",
    b"Keep-Alive",
    b"TE",
    b"Upgrade",
    b"Trailer",
    b"Proxy-Connection",
    b"If-Modified-Since",
    b"If-None-Match",
    b"If-Match",
    b"If-Range",
    b"If-Unmodified-Since",
    b"Range",
    b"Authorization",
    b"User-Agent",
    b"Referer",
    b"HTTP2-Settings",
    b"Transfer_Encoding",
];

const VALUES: &[&[u8]] = &[
    b"y",
    b"",
    b" ",
    b"  y  ",
    b"y z",
    b"y\tz",
    b"\ty\t",
    b"y: z",
    b"y,z",
    b"\"y\"",
    b"\xc3\xa9",
    b"\xff",
    b"y\0z",
    b"y\rz",
    b"\ry",
    b"y\r",
    b"y\x01z",
    b"y\x7f",
    b"y\x0bz",
    b"100-continue",
    b"100-Continue",
    b"close",
    b"keep-alive",
    b"Close",
    b"keep-alive, close",
    b"foo, close",
    b"upgrade",
    b"closed",
    b"xclose",
    b"bytes=0-1",
    b"*",
    b"Thu, 01 Jan 1970 00:00:00 GMT",
    b"Tue, 02 Jan 2030 00:00:00 GMT",
    b"x\r\n y",
    b"x\r\n\ty",
    b"x\n y",
];

const LENGTHS: &[&[u8]] = &[
    b"0",
    b"3",
    b"3",
    b"3",
    b"5",
    b"003",
    b"+3",
    b"-3",
    b"-0",
    b"0x3",
    b"3 3",
    b"3, 3",
    b"3,3",
    b"3;",
    b"",
    b" 3 ",
    b"3\t",
    b"\t3",
    b"3.0",
    b"9223372036854775807",
    b"9223372036854775808",
    b"18446744073709551615",
    b"18446744073709551616",
    b"99999999999999999999",
    b"1e1",
    b"three",
    b"3\x0b",
    b"3\0",
];

const CODINGS: &[&[u8]] = &[
    b"chunked",
    b"chunked",
    b"Chunked",
    b"CHUNKED",
    b"gzip",
    b"gzip, chunked",
    b"chunked, gzip",
    b"chunked, chunked",
    b"chunked,",
    b",chunked",
    b"identity",
    b"identity, chunked",
    b"xchunked",
    b"chunkedx",
    b"chunked;x",
    b"\"chunked\"",
    b"chunked ",
    b"\tchunked",
    b"chunked\t",
    b"\x0bchunked",
    b"chunked\x0b",
    b"",
    b"chunked\r\n ",
    b"\r\n chunked",
    b"chunke",
];

const FIELD_SEPARATORS: &[&[u8]] = &[b":", b":  ", b" : ", b":\t", b"\t:", b"", b" ", b"::", b"=", b":\r\n "];

const BODIES: &[&[u8]] = &[
    b"",
    b"abc",
    b"abc",
    b"abcde",
    b"ab",
    b"0\r\n\r\n",
    b"0\r\n\r\n",
    b"3\r\nabc\r\n0\r\n\r\n",
    b"3\r\nabc\r\n0\r\n\r\n",
    b"3;x=y\r\nabc\r\n0\r\n\r\n",
    b"3\nabc\n0\n\n",
    b"3 \r\nabc\r\n0\r\n\r\n",
    b" 3\r\nabc\r\n0\r\n\r\n",
    b"03\r\nabc\r\n00\r\n\r\n",
    b"3\r\nabcd\r\n0\r\n\r\n",
    b"0x3\r\nabc\r\n0\r\n\r\n",
    b"g\r\n",
    b"-3\r\nabc\r\n0\r\n\r\n",
    b"+3\r\nabc\r\n0\r\n\r\n",
    b"ffffffffffffffff\r\nabc",
    b"10000000000000000\r\nabc",
    b"\r\n0\r\n\r\n",
    b"0\r\nX: y\r\n\r\n",
    b"0\r\nX\r\n\r\n",
    b"3\r\nabc0\r\n\r\n",
    b"3\rabc\r0\r\r",
    b"0\r\n\r",
    b"0\r\n",
    b"3\r\nabc\r\n",
];

const NEXT: &[&[u8]] = &[
    b"GET /end HTTP/1.1\r\nHost: end\r\n\r\n",
    b"GET /end HTTP/1.1\r\nHost: end\r\nConnection: close\r\n\r\n",
    b"\r\nGET /end HTTP/1.1\r\nHost: end\r\n\r\n",
    b"\nGET /end HTTP/1.1\r\nHost: end\r\n\r\n",
    b"GET /end\r\n",
];

/// The bytes of one connection: a request, its body, perhaps another request.
pub fn request(random: &mut Random) -> Vec<u8> {
    // Two in five cases are about the target alone: what is wrong elsewhere would hide it.
    let about_target = random.below(5) < 2;
    let mut bytes = Vec::new();
    if !about_target && random.one_in(16) {
        bytes.extend_from_slice(random.pick(&[
            b"\r\n",
            b"\n",
            b"\r\n\r\n",
            b"\r",
            b" ",
            b"\0",
            b"\xef\xbb\xbf",
        ]));
    }
    let rare = if about_target { 40 } else { 8 };
    bytes.extend_from_slice(random.mostly(b"GET", rare, METHODS));
    bytes.extend_from_slice(random.mostly(b" ", rare * 2, SPACES));
    target(random, about_target, &mut bytes);
    bytes.extend_from_slice(random.mostly(b" ", rare * 2, SPACES));
    bytes.extend_from_slice(random.mostly(b"HTTP/1.1", rare, VERSIONS));
    end_line(random, about_target, &mut bytes);
    if about_target {
        bytes.extend_from_slice(b"Host: a\r\n\r\n");
        return bytes;
    }
    fields(random, &mut bytes);
    end_line(random, false, &mut bytes);
    if random.one_in(2) {
        bytes.extend_from_slice(random.pick(BODIES));
    }
    if random.one_in(2) {
        bytes.extend_from_slice(random.pick(NEXT));
    }
    if random.one_in(3) {
        for _ in 0..=random.below(3) {
            change(random, &mut bytes);
        }
    }
    bytes
}

fn end_line(random: &mut Random, usual: bool, bytes: &mut Vec<u8>) {
    let rare = if usual { 200 } else { 16 };
    bytes.extend_from_slice(random.mostly(b"\r\n", rare, LINE_ENDS));
}

fn target(random: &mut Random, hostile: bool, bytes: &mut Vec<u8>) {
    if !hostile && random.one_in(2) {
        bytes.extend_from_slice(b"/a");
        return;
    }
    if random.one_in(3) {
        bytes.extend_from_slice(random.pick(TARGETS));
        return;
    }
    if random.one_in(6) {
        bytes.extend_from_slice(b"http://");
        bytes.extend_from_slice(random.mostly(b"a", 2, HOSTS));
    } else if !random.one_in(8) {
        bytes.push(b'/');
    }
    for _ in 0..random.below(9) {
        bytes.extend_from_slice(random.pick(PIECES));
    }
}

fn fields(random: &mut Random, bytes: &mut Vec<u8>) {
    let mut lines: Vec<(&[u8], &[u8])> = Vec::new();
    if !random.one_in(16) {
        lines.push((random.mostly(b"Host", 12, &[b"host", b"HOST", b"hOsT"]), random.mostly(b"a", 4, HOSTS)));
    }
    if random.one_in(40) {
        lines.push((b"Host", random.pick(HOSTS)));
    }
    for (name, values) in [(&b"Content-Length"[..], LENGTHS), (b"Transfer-Encoding", CODINGS)] {
        if random.one_in(3) {
            lines.push((name, random.pick(values)));
        }
        if random.one_in(40) {
            lines.push((name, random.pick(values)));
        }
    }
    for _ in 0..random.below(3) {
        lines.push((random.mostly(b"X", 2, NAMES), random.pick(VALUES)));
    }
    for _ in 0..lines.len() {
        let (one, other) = (random.below(lines.len()), random.below(lines.len()));
        lines.swap(one, other);
    }
    for (name, value) in lines {
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(random.mostly(b": ", 12, FIELD_SEPARATORS));
        bytes.extend_from_slice(value);
        end_line(random, false, bytes);
    }
}

fn change(random: &mut Random, bytes: &mut Vec<u8>) {
    let at = random.below(bytes.len() + 1);
    let end = at + random.below((bytes.len() - at).min(16) + 1);
    match random.below(6) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        1 if at < bytes.len() => bytes[at] = random.below(256) as u8,
        2 => drop(bytes.drain(at..end)),
        3 => {
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        4 => bytes.truncate(at.max(1)),
        _ => {
            let piece = random
                .pick(&[b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"/", b"%", b"\xff", b"#", b"?"]);
            bytes.splice(at..at, piece.iter().copied());
        }
    }
}
