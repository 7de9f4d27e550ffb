//! Every law of the code as a function of one byte string: for the fuzz targets of `fuzz/`, and for `tests/corpora.rs`,
//! which replays and mutates `fuzz/corpus/`. What a law says stands beside the code that it is about; here is only how
//! a corpus file spells its arguments, so that files can be read and written by hand.
//!
//! Each function panics where its law is broken, and its cost is in proportion to its input.

use crate::base::percent::law_escapes_decode_to_their_text;
use crate::base::prefix_tree::law_tree_finds_like_a_list;
use crate::conf;
use crate::http::modules::dav;
use crate::http::modules::mp4;
use crate::http::modules::ssi;
use crate::http::modules::table_laws;
use crate::http::{build, location_tree, server_names};
use crate::message::fuzz::{
    fuzz_content_range, fuzz_entity_tags, fuzz_fields, fuzz_host, fuzz_ranges, fuzz_unsafe_uri, fuzz_uri,
};
use crate::message::{RequestFraming, Version};
use crate::proto::dns::{self, DnsName, RecordType};
use crate::proto::{h1, h2, memcached, proxy_protocol, tls};
use crate::server::relay;
use crate::upstream::names;

/// One law: its name, which is also that of its fuzz target and corpus folder, and its function.
pub type Law = (&'static str, fn(&[u8]));

/// All laws that have a fuzz target.
pub const LAWS: &[Law] = &[
    ("certificate", certificate),
    ("chunked_body", chunked_body),
    ("configuration_text", configuration_text),
    ("dav_body", dav_body),
    ("dns_answer", dns_answer),
    ("entity_tags", entity_tags),
    ("escapes", escapes),
    ("fields", fields),
    ("geo_file", geo_file),
    ("h1_connection", h1_connection),
    ("h1_request", h1_request),
    ("h1_response", h1_response),
    ("h2_client", h2_client),
    ("h2_frames", h2_frames),
    ("h2_pair", h2_pair),
    ("h2_server", h2_server),
    ("host", host),
    ("hpack", hpack),
    ("location_tree", location_tree),
    ("map_file", map_file),
    ("memcached", memcached),
    ("mp4_atoms", mp4_atoms),
    ("prefix_tree", prefix_tree),
    ("proxied_exchange", proxied_exchange),
    ("proxy_protocol", proxy_protocol),
    ("range_header", range_header),
    ("request_head", request_head),
    ("server_names", server_names),
    ("site", site),
    ("ssi", ssi_page),
    ("template", template),
    ("tls_hello", tls_hello),
    ("tls_pair", tls_pair),
    ("unsafe_uri", unsafe_uri),
    ("uri_normalise", uri_normalise),
    ("values", values),
];

/// Longest list of lines that is made of an input: the models look at every line for every look-up.
const MOST_LINES: usize = 200;
/// Most texts that are looked up in a table.
const MOST_TEXTS: usize = 8;

/// Where to cut an input of this length, beside whole and byte by byte. It changes with the length, so that mutation
/// tries all of them.
fn step(data: &[u8]) -> usize {
    2 + data.len() % 23
}

/// The first line, and up to [`MOST_LINES`] lines behind it.
fn first_and_lines(data: &[u8]) -> (&[u8], Vec<Vec<u8>>) {
    let mut lines = data.split(|&byte| byte == b'\n');
    (lines.next().unwrap_or_default(), lines.take(MOST_LINES).map(<[u8]>::to_vec).collect())
}

/// A request head, and whatever follows it on its connection.
pub fn request_head(data: &[u8]) {
    h1::fuzz::fuzz_request_head(data, step(data));
}

/// A chunked body.
pub fn chunked_body(data: &[u8]) {
    h1::fuzz::fuzz_chunked(data, step(data));
    h1::fuzz::fuzz_chunked(data, 1);
    let pieces: Vec<&[u8]> = data.split(|&byte| byte == b'\n').collect();
    h1::fuzz::fuzz_chunked_identity(&pieces);
}

/// A connection: operations of two bytes each on the first line (`0` to `5` and how much), then what comes by wire.
pub fn h1_connection(data: &[u8]) {
    let (operations, wire) = match memchr::memchr(b'\n', data) {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &[][..]),
    };
    h1::fuzz::fuzz_connection(operations, wire);
}

/// A response of an upstream, and whatever follows it. On the first line what was asked: `h` for HEAD, `u` for an
/// upgrade, `c` for CONNECT, and `s` for small limits. It is also taken apart at line ends and colons, for a response
/// that the encoder writes.
pub fn h1_response(data: &[u8]) {
    use h1::response_fuzz as laws;
    let end = memchr::memchr(b'\n', data).unwrap_or(data.len());
    let (flags, wire) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    let small = flags.contains(&b's');
    let asked = h1::Asked {
        head: flags.contains(&b'h'),
        upgrade: flags.contains(&b'u'),
        connect: flags.contains(&b'c'),
        head_bytes: if small { laws::SMALL_HEAD } else { 4096 },
    };
    let limits = if small { laws::SMALL_RESPONSE_LIMITS } else { h1::ResponseLimits::default() };
    laws::fuzz_responses(wire, step(data), asked, limits);
    laws::fuzz_response_end(wire, asked, limits);
    let pieces: Vec<&[u8]> = wire.split(|&byte| byte == b'\n').collect();
    let colon = |piece: &[u8]| memchr::memchr(b':', piece);
    let lines: Vec<(&[u8], &[u8])> = pieces
        .iter()
        .filter_map(|piece| colon(piece).map(|colon| (&piece[..colon], &piece[colon + 1..])))
        .collect();
    laws::fuzz_response_identity(&laws::Written {
        status: 200 + (data.len() % 400) as u16,
        lines: &lines,
        pieces: &pieces,
        tells_length: small,
        http11: !asked.upgrade,
        head: asked.head,
    });
}

/// A request to an upstream, its parts between `|`: method, target, framing (`n` for none, `c` for chunked, else a
/// length; `0` behind it for HTTP/1.0), then names and values in turn.
pub fn h1_request(data: &[u8]) {
    let mut parts = data.split(|&byte| byte == b'|');
    let mut next = || parts.next().unwrap_or_default();
    let (method, target, how) = (next(), next(), next());
    let framing = match how.first() {
        None | Some(b'n') => RequestFraming::None,
        Some(b'c') => RequestFraming::Streamed,
        Some(digit) => RequestFraming::Length(u64::from(digit.wrapping_sub(b'0'))),
    };
    let version = if how.get(1) == Some(&b'0') { Version::Http10 } else { Version::Http11 };
    let rest: Vec<&[u8]> = parts.take(MOST_LINES).collect();
    let lines: Vec<(&[u8], &[u8])> = rest.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    h1::response_fuzz::fuzz_request_writer(method, target, &lines, version, framing);
}

/// What a client sends by HTTP/2, behind its preface and SETTINGS.
pub fn h2_frames(data: &[u8]) {
    h2::fuzz::fuzz_frames(data);
    h2::fuzz::fuzz_server_bytes(data, step(data));
}

/// An HTTP/2 client: operations of two bytes each on the first line (`0` to `:` and how much), then what a server sends
/// behind its SETTINGS.
pub fn h2_client(data: &[u8]) {
    let end = memchr::memchr(b'\n', data).unwrap_or(data.len());
    h2::client_fuzz::fuzz_client(&data[..end], data.get(end + 1..).unwrap_or_default());
}

/// Operations of two bytes each (`0` to `5` and how much) on an HTTP/2 client and a server, wired back to back.
pub fn h2_pair(data: &[u8]) {
    h2::fuzz::fuzz_pair(&data[..data.len().min(MOST_LINES)], 1);
}

/// An HTTP/2 server: operations of two bytes each on the first line (`0` to `:` and how much), then what comes by wire
/// behind preface and SETTINGS.
pub fn h2_server(data: &[u8]) {
    let end = memchr::memchr(b'\n', data).unwrap_or(data.len());
    h2::fuzz::fuzz_server(&data[..end], data.get(end + 1..).unwrap_or_default());
}

/// Field blocks, each with its length in one byte in front.
pub fn hpack(data: &[u8]) {
    h2::fuzz::fuzz_hpack(data);
}

/// A proxied exchange: sizes of pieces on the first line (a `!` at its end: the upstream's connection breaks), then what
/// the client sends, and behind a line that is `%` alone what the upstream sends.
pub fn proxied_exchange(data: &[u8]) {
    let end = memchr::memchr(b'\n', data).unwrap_or(data.len());
    let (sizes, wire) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    let (client, upstream) = match memchr::memmem::find(wire, b"\n%\n") {
        Some(at) => (&wire[..at], &wire[at + 3..]),
        None => (wire, &[][..]),
    };
    let (sizes, breaks) = match sizes {
        [sizes @ .., b'!'] => (sizes, true),
        sizes => (sizes, false),
    };
    relay::fuzz::fuzz_proxied_exchange(sizes, client, upstream, breaks);
}

/// A PROXY protocol header, and what follows it.
pub fn proxy_protocol(data: &[u8]) {
    proxy_protocol::fuzz_proxy_protocol(data, step(data));
    proxy_protocol::fuzz_proxy_protocol(data, 1);
}

/// A key on the first line, then what a memcached server answers.
pub fn memcached(data: &[u8]) {
    let end = memchr::memchr(b'\n', data).unwrap_or(data.len());
    let (key, wire) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    memcached::fuzz_memcached(key, wire, step(data));
    memcached::fuzz_memcached(key, wire, 1);
}

/// What is asked of DNS servers on the first line (`A a.test`, `AAAA`, `SRV`), then their messages one after the other,
/// each with its length in two bytes in front.
pub fn dns_answer(data: &[u8]) {
    let end = memchr::memchr(b'\n', data).unwrap_or(data.len());
    let (question, messages) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    let (kind, name) = question.split_at(memchr::memchr(b' ', question).unwrap_or(0));
    let Ok(name) = DnsName::parse(name.trim_ascii()) else { return };
    let record = match kind {
        b"AAAA" => RecordType::Aaaa,
        b"SRV" => RecordType::Srv,
        _ => RecordType::A,
    };
    dns::fuzz::law_question_is_echoed(data.len() as u16, &name, record);
    dns::fuzz::fuzz_reply(messages.get(2..).unwrap_or_default(), &name, record);
    names::fuzz::fuzz_resolver(&name, record == RecordType::Srv, messages);
}

/// What a TLS client sends first.
pub fn tls_hello(data: &[u8]) {
    tls::fuzz::fuzz_hello(data, step(data));
}

/// Both sides of TLS: what they are made of in letters, cipher suites, groups, the upstream's name, each on a line; then
/// operations of two bytes each (`0` to `5` and how much).
pub fn tls_pair(data: &[u8]) {
    tls::pair_fuzz::fuzz_pair(&data[..data.len().min(2 * MOST_LINES)]);
}

/// A certificate's DER; also read as PEM.
pub fn certificate(data: &[u8]) {
    tls::fuzz::fuzz_certificate(data);
}

/// The name of a file on the first line, then the body of a PROPFIND, PROPPATCH or LOCK that is about it.
pub fn dav_body(data: &[u8]) {
    let end = memchr::memchr(b'\n', data).unwrap_or(data.len());
    dav::fuzz::fuzz_bodies(&data[..end], data.get(end + 1..).unwrap_or_default());
}

/// A request target.
pub fn uri_normalise(data: &[u8]) {
    fuzz_uri(data, true);
    fuzz_uri(data, false);
}

/// A URI from elsewhere (`X-Accel-Redirect`, `Destination`).
pub fn unsafe_uri(data: &[u8]) {
    fuzz_unsafe_uri(data);
}

/// The value of a Range field, or of a Content-Range field.
pub fn range_header(data: &[u8]) {
    fuzz_content_range(data);
    for length in [0, 1, 100, 10_000, i64::MAX as u64] {
        fuzz_ranges(data, length);
    }
}

/// An entity tag on the first line, then the value of an If-Match or If-None-Match field.
pub fn entity_tags(data: &[u8]) {
    let end = memchr::memchr(b'\n', data).unwrap_or(data.len());
    fuzz_entity_tags(&data[..end], data.get(end + 1..).unwrap_or_default());
}

/// Operations on field lines, each on a line: `+Name:value`, `-Name`, `=Name:value`, `.`.
pub fn fields(data: &[u8]) {
    fuzz_fields(&data[..data.len().min(MOST_LINES * MOST_LINES / 10)]);
}

/// A Host field or authority.
pub fn host(data: &[u8]) {
    fuzz_host(data);
}

/// The text of a configuration, as the parser sees it.
pub fn configuration_text(data: &[u8]) {
    conf::laws::fuzz_parse(data);
}

/// A whole configuration, as the builder sees it.
pub fn site(data: &[u8]) {
    build::laws::fuzz_build(data);
}

/// Addresses to look up on the first line, separated by blanks, then a file that a `geo` includes.
pub fn geo_file(data: &[u8]) {
    let (texts, list) = texts_and_list(data);
    table_laws::law_geo(&texts, list);
}

/// Texts to look up on the first line, separated by blanks, then a file that a `map` includes.
pub fn map_file(data: &[u8]) {
    let (texts, list) = texts_and_list(data);
    table_laws::law_map(&texts, list);
}

fn texts_and_list(data: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let end = memchr::memchr(b'\n', data).unwrap_or(data.len());
    let texts = data[..end].split(|&byte| byte == b' ').take(MOST_TEXTS).collect();
    (texts, data.get(end + 1..).unwrap_or_default())
}

/// A page with SSI commands.
pub fn ssi_page(data: &[u8]) {
    ssi::law_any_split_gives_the_same(data, step(data));
}

/// Text with variables.
pub fn template(data: &[u8]) {
    conf::laws::fuzz_template(data);
}

/// Arguments of directives, one on each line, read in every way that there is.
pub fn values(data: &[u8]) {
    for line in data.split(|&byte| byte == b'\n').take(MOST_LINES) {
        conf::laws::fuzz_value(line);
    }
}

/// A host on the first line, then server names.
pub fn server_names(data: &[u8]) {
    let (host, names) = first_and_lines(data);
    server_names::law_names_are_found_like_in_a_list(&names, host);
}

/// A path on the first line, then locations: `= /a`, `^~ /a`, `/a`, or `~ a` for a regex that is this very text. A `!`
/// at the end asks for the slash redirect.
pub fn location_tree(data: &[u8]) {
    let (path, locations) = first_and_lines(data);
    location_tree::law_locations_are_found_like_in_a_list(&locations, path);
}

/// A key to look up on the first line, then the keys of a tree.
pub fn prefix_tree(data: &[u8]) {
    let (probe, keys) = first_and_lines(data);
    law_tree_finds_like_a_list(&keys, probe);
}

/// Text to escape.
pub fn escapes(data: &[u8]) {
    law_escapes_decode_to_their_text(data);
}

/// The `moov` atom of a movie behind a first line: the start, `-` or the length (both in milliseconds), and `k` for key
/// frames.
pub fn mp4_atoms(data: &[u8]) {
    let end = memchr::memchr(b'\n', data).unwrap_or(data.len());
    let mut words = data[..end].split(|&byte| byte == b' ');
    let number = |word: Option<&[u8]>| word.and_then(crate::base::ascii::parse_u64);
    let wanted = mp4::Wanted {
        start_ms: number(words.next()).unwrap_or(0),
        length_ms: number(words.next()),
        key_frame: words.next().is_some(),
    };
    mp4::law_a_cut_movie_can_be_cut_again(data.get(end + 1..).unwrap_or_default(), 1 << 40, wanted);
}
