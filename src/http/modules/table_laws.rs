//! The laws of tables that are read from files, those of `geo` and `map`: every mistake is told with its place in the
//! file, and a table without mistakes has a value for any text. Shared by the corpora, the fuzz targets and the tests.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::IpNet;
use memchr::memmem;

use crate::conf::diagnostics::Severity;
use crate::conf::files::MemoryFiles;
use crate::conf::parser;
use crate::conf::tree::Directive;
use crate::http::context::Context;
use crate::http::laws;
use crate::http::site::SiteHandle;

const GEO: &str = "error_log stderr; events {} http { geo $arg_a $v { include list; } \
                   server { listen 80; location / { return 200 $v; } } }";
const MAP: &str = "error_log stderr; events {} http { map $arg_a $v { include list; } \
                   server { listen 80; set $other text; location / { return 200 $v; } } }";

/// `list` as the content of a `geo`: it is told what is wrong with it, or each of the texts has the value that the
/// smallest network, or the last range, around it has.
pub fn law_geo(texts: &[&[u8]], list: &[u8]) {
    let Some(values) = look_up(GEO, texts, list) else { return };
    let lines = lines(GEO, list);
    for (text, value) in values {
        let Some(expected) = geo_by_list(&lines, &text) else { continue };
        assert_eq!(value.escape_ascii().to_string(), expected.escape_ascii().to_string());
    }
}

/// `list` as the content of a `map`, likewise; a table of plain texts has the value of the key that is the same but for
/// its case.
pub fn law_map(texts: &[&[u8]], list: &[u8]) {
    let Some(values) = look_up(MAP, texts, list) else { return };
    let lines = lines(MAP, list);
    for (text, value) in values {
        let Some(expected) = map_by_list(&lines, &text) else { continue };
        assert_eq!(value.escape_ascii().to_string(), expected.escape_ascii().to_string());
    }
}

fn files(configuration: &str, list: &[u8]) -> MemoryFiles {
    let half = &list[..list.len() / 2];
    MemoryFiles::new().with("/c/main", configuration).with("/c/list", list).with("/c/half", half)
}

/// The texts as `$arg_a` has them with the values of `$v`; `None` if the list has mistakes.
fn look_up(configuration: &str, texts: &[&[u8]], list: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let built = laws::built(&mut files(configuration, list));
    for diagnostic in built.diagnostics.iter().filter(|told| told.severity <= Severity::Warning) {
        let span = diagnostic.span.expect("a mistake has a place");
        let path = &built.sources.source(span.file).path;
        assert!(path == "/c/list" || path == "/c/half", "{} at {path}", diagnostic.message);
    }
    assert_eq!(built.site.is_some(), !built.diagnostics.has_errors());
    let site = SiteHandle::new(Arc::new(built.site?));
    let mut env = laws::env();
    let mut context = Context { site: &site, env: &mut env };
    let mut values = Vec::new();
    for text in texts {
        let mut exchange = laws::exchange(&site);
        exchange.args = [b"a=", *text].concat();
        let (mut text, mut value) = (Vec::new(), Vec::new());
        exchange.variable_named(b"arg_a", &mut context, &mut text);
        let found = exchange.variable_named(b"v", &mut context, &mut value);
        assert!(found || needs_itself(&context), "every text has a value");
        values.push((text, value));
    }
    Some(values)
}

/// Whether the error log says that the table's value needs itself.
fn needs_itself(context: &Context) -> bool {
    let told = b"cycle while evaluating variable";
    context.env.logs.messages().any(|message| memmem::find(message.text, told).is_some())
}

/// The lines of the block, those of included files in their places.
fn lines(configuration: &str, list: &[u8]) -> Vec<Directive> {
    let parsed = parser::parse(&mut files(configuration, list), "/c/main", "/c");
    let http = parsed.tree.iter().find(|directive| directive.name() == "http").expect("http");
    let block = http.block.as_ref().and_then(|block| block.first()).expect("the table");
    block.block.as_ref().expect("its lines").to_vec()
}

/// The value that a `geo` without mistakes has for a text; `None` where this model does not say.
fn geo_by_list<'a>(lines: &'a [Directive], text: &[u8]) -> Option<&'a [u8]> {
    let address = std::str::from_utf8(text).ok().and_then(|text| text.parse::<IpAddr>().ok());
    let address = address.map_or(IpAddr::V4(Ipv4Addr::BROADCAST), |address| address.to_canonical());
    let has_ranges = lines.iter().any(|line| line.words().len() == 1 && line.name() == "ranges");
    let mut networks: Vec<(IpNet, &[u8])> = Vec::new();
    let mut in_range: Option<&[u8]> = None;
    for line in lines {
        let (name, [value]) = (line.name().as_str()?, line.args()) else { continue };
        match name {
            "proxy" => {}
            // It takes a piece of what the ranges before it have become.
            "delete" if has_ranges => return None,
            "delete" => networks.retain(|(other, _)| !networks_of(value.as_str()).contains(other)),
            "default" if has_ranges => networks = vec![(networks_of(Some(name))[0], value.as_bytes())],
            range if has_ranges => {
                let (first, last) = range.split_once('-')?;
                let (first, last) = (first.parse::<Ipv4Addr>().ok()?, last.parse::<Ipv4Addr>().ok()?);
                if matches!(address, IpAddr::V4(address) if (first..=last).contains(&address)) {
                    in_range = Some(value.as_bytes());
                }
            }
            network => {
                for network in networks_of(Some(network)) {
                    networks.retain(|(other, _)| *other != network);
                    networks.push((network, value.as_bytes()));
                }
            }
        }
    }
    if has_ranges {
        return Some(in_range.or(networks.first().map(|(_, value)| *value)).unwrap_or_default());
    }
    let around = networks.iter().filter(|(network, _)| network.contains(&address));
    Some(around.max_by_key(|(network, _)| network.prefix_len()).map_or(b"", |(_, value)| value))
}

fn networks_of(text: Option<&str>) -> Vec<IpNet> {
    match text {
        None => Vec::new(),
        Some("default") => ["0.0.0.0/0", "::/0"].map(|text| text.parse().expect("a network")).to_vec(),
        Some(text) => {
            let network = text.parse::<IpNet>().map(|network| network.trunc());
            network.or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).into_iter().collect()
        }
    }
}

/// The value that a `map` of plain texts without mistakes has for a text; `None` where this model does not say.
fn map_by_list<'a>(lines: &'a [Directive], text: &[u8]) -> Option<&'a [u8]> {
    let mut found: Option<&[u8]> = None;
    let mut default: Option<&[u8]> = None;
    for line in lines {
        let (key, args) = (line.name().as_bytes(), line.args());
        let [value] = args else {
            if key == b"hostnames" {
                return None;
            }
            continue;
        };
        if key.starts_with(b"~") || value.as_bytes().contains(&b'$') {
            return None;
        }
        let key_text = key.strip_prefix(b"\\").unwrap_or(key);
        if key == b"default" {
            default = Some(value.as_bytes());
        } else if key_text.eq_ignore_ascii_case(text) {
            found = Some(value.as_bytes());
        }
    }
    Some(found.or(default).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_of_an_included_file_are_told_there() {
        for list in [
            "10.0.0.0/8",
            "x y;",
            "}",
            "10.0.0.0/8 {",
            "include half;",
            "include list;",
            "include none;",
            "\"",
            "a b c;",
        ] {
            law_geo(&[], list.as_bytes());
            law_map(&[b"x"], list.as_bytes());
        }
    }

    #[test]
    fn models_agree_with_tables() {
        let texts: [&[u8]; 6] = [b"10.1.2.3", b"11.0.0.1", b"::1", b"::ffff:10.1.2.3", b"x", b""];
        for list in [
            "default d; 10.0.0.0/8 ten; 10.1.0.0/16 one; ::/0 six; 10.1.0.0/16 two; delete 10.0.0.0/8;",
            "ranges; default d; 10.0.0.0-10.255.255.255 ten; 10.1.2.3-10.1.2.3 one;",
            "X x; 10.1.2.3 y; default d; \\default z; \"\" none;",
        ] {
            law_geo(&texts, list.as_bytes());
            law_map(&texts, list.as_bytes());
        }
    }

    #[test]
    fn a_map_that_needs_itself_many_times_has_an_end() {
        law_map(&[b"x"], b"volatile; default $v$v$v$v;");
        law_map(&[b"x"], b"default a$v$v;");
    }
}
