//! `geo`: a variable whose value depends on an address, by networks or ranges.

mod table;

use std::net::IpAddr;
use std::sync::Arc;

use crate::base::cidr::{AddressSet, Cidr, PeerAddress};
use crate::base::forwarded;
use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::template::VariableId;
use crate::conf::tree::{self, Word};
use crate::http::build::Scope;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::modules::realip;
use crate::http::settings::contexts::HTTP;
use crate::http::settings::settings;
use crate::http::variables::Compute;
use crate::message::FieldName;

use table::{Networks, Ranges, Table};

settings! {
    module geo;
    fields {
    }
    plain {
        /// A variable whose value depends on an address.
        "geo" HTTP, Arity::between(1, 2).block(), default "", set_geo;
    }
}

/// One `geo`, compiled.
#[derive(Debug)]
struct Geo {
    /// The variable with the address; the client's without it.
    source: Option<VariableId>,
    table: Table,
    /// Values by number; number 0 is the empty one of addresses that nothing names.
    values: Vec<Box<[u8]>>,
    /// Peers whose X-Forwarded-For is believed.
    proxies: AddressSet,
    proxy_recursive: bool,
}

impl Compute for Geo {
    fn compute(&self, exchange: &mut Exchange, context: &mut Context, out: &mut Vec<u8>) -> bool {
        let number = self.table.find(address_of(exchange, context, self.source, |exchange, address| {
            client_behind(exchange, address, &self.proxies, self.proxy_recursive)
        }));
        out.extend_from_slice(&self.values[number as usize]);
        true
    }
}

/// The address that a look-up is about: that of the variable `source`, else the client's, as `behind` sees through
/// proxies. `None` where there is none (a Unix socket, a text that is no address).
pub fn address_of(
    exchange: &mut Exchange,
    context: &mut Context,
    source: Option<VariableId>,
    behind: impl FnOnce(&Exchange, PeerAddress) -> PeerAddress,
) -> Option<IpAddr> {
    let address = match source {
        None => exchange.peer_address(),
        Some(id) => PeerAddress::Ip(exchange.with_variable(id, context, |_, _, text| {
            std::str::from_utf8(text).ok().and_then(|text| text.parse::<IpAddr>().ok())
        })?),
    };
    match behind(exchange, address) {
        PeerAddress::Ip(address) => Some(address),
        PeerAddress::Unix => None,
    }
}

fn client_behind(
    exchange: &Exchange,
    peer: PeerAddress,
    proxies: &AddressSet,
    recursive: bool,
) -> PeerAddress {
    if proxies.is_empty() || !exchange.head.has(FieldName::XForwardedFor) {
        return peer;
    }
    let lines = realip::last_first(exchange, FieldName::XForwardedFor);
    let client = forwarded::find_client(peer, lines.iter().copied(), proxies, recursive);
    client.map_or(peer, |client| PeerAddress::Ip(client.ip()))
}

/// Reads `[$address] $variable` of a block like `geo`.
pub fn read_head(scope: &mut Scope, call: &Call) -> Result<(Option<VariableId>, VariableId), Complaint> {
    let mut read = |word: &Word| {
        let name = scope.builder.variable_name(word);
        name.ok_or_else(|| Complaint::new(format!("invalid variable name \"{}\"", word.lossy())).at(word))
    };
    match call.args() {
        [source, variable] => Ok((Some(read(source)?), read(variable)?)),
        _ => Ok((None, read(call.arg(0))?)),
    }
}

fn set_geo(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    let (source, variable) = read_head(scope, call)?;
    let mut draft = GeoDraft { values: vec![Box::default()], ..GeoDraft::default() };
    for line in call.block() {
        if let Err(complaint) = draft.add(scope, line) {
            scope.builder.diagnostics.push(complaint.into_diagnostic(line));
        }
    }
    let kept = !draft.is_volatile;
    let table = match draft.ranges {
        Some(ranges) => ranges.freeze(draft.default),
        None => draft.networks.freeze(),
    };
    let geo = Geo {
        source,
        table,
        values: draft.values,
        proxies: draft.proxies,
        proxy_recursive: draft.proxy_recursive,
    };
    scope.builder.define_computed(variable, Arc::new(geo), kept).map_err(|complaint| complaint.at(call.arg(0)))
}

#[derive(Default)]
struct GeoDraft {
    networks: Networks,
    /// There once the block says `ranges`.
    ranges: Option<Ranges>,
    /// The value of `default` among ranges.
    default: Option<u32>,
    values: Vec<Box<[u8]>>,
    numbers: std::collections::HashMap<Box<[u8]>, u32>,
    proxies: AddressSet,
    proxy_recursive: bool,
    is_volatile: bool,
    /// Whether an entry was read, so that `ranges` comes too late.
    has_entries: bool,
}

impl GeoDraft {
    fn add(&mut self, scope: &mut Scope, line: &tree::Directive) -> Result<(), Complaint> {
        if line.block.is_some() {
            return Err(Complaint::new("unexpected \"{\""));
        }
        let name = line.name();
        match (name.as_bytes(), line.args()) {
            (b"ranges", []) => {
                if self.has_entries {
                    let message = "the \"ranges\" directive must be the first directive inside \"geo\" block";
                    return Err(Complaint::new(message));
                }
                self.ranges.get_or_insert_default();
            }
            (b"proxy_recursive", []) => self.proxy_recursive = true,
            (b"volatile", []) => self.is_volatile = true,
            (b"proxy", [network]) => {
                let cidr = self.network(scope, line, network)?;
                self.proxies.push(cidr, ());
            }
            (b"delete", [word]) => {
                self.has_entries = true;
                self.delete(scope, line, word)?;
            }
            (_, [value]) => {
                self.has_entries = true;
                self.add_entry(scope, line, name, value)?;
            }
            _ => return Err(Complaint::new("invalid number of the geo parameters")),
        }
        Ok(())
    }

    /// Reads a network; `default` is all of both families, and is `Cidr::All`.
    fn network(&self, scope: &mut Scope, line: &tree::Directive, word: &Word) -> Result<Cidr, Complaint> {
        if word == "default" {
            return Ok(Cidr::All);
        }
        // `all` and `unix:` are words of `allow`, not of this block.
        let parsed = word.as_str().filter(|text| !matches!(*text, "all" | "unix:")).and_then(Cidr::parse);
        let invalid = || Complaint::new(format!("invalid network \"{}\"", word.lossy())).at(word);
        let parsed = parsed.ok_or_else(invalid)?;
        if parsed.low_bits_are_meaningless {
            let message = format!("low address bits of {} are meaningless", word.lossy());
            scope.builder.warn_at(word, line.include, message);
        }
        Ok(parsed.cidr)
    }

    fn add_entry(
        &mut self,
        scope: &mut Scope,
        line: &tree::Directive,
        key: &Word,
        value: &Word,
    ) -> Result<(), Complaint> {
        let number = self.number_of(value);
        let (what, shown, former) = if let Some(ranges) = &mut self.ranges {
            if key == "default" {
                let former = self.default.replace(number);
                ("default geo range", String::new(), former)
            } else {
                let range = table::parse_range(key.as_bytes())
                    .ok_or_else(|| Complaint::new(format!("invalid range \"{}\"", key.lossy())).at(key))?;
                let former = ranges.insert(range, number).map_err(|other| {
                    let message = format!("range \"{}\" overlaps \"{other}\"", key.lossy());
                    Complaint::new(message).at(key)
                })?;
                ("range", format!(" \"{}\"", key.lossy()), former)
            }
        } else {
            let cidr = self.network(scope, line, key)?;
            ("network", format!(" \"{}\"", key.lossy()), self.networks.insert(cidr, number))
        };
        if let Some(former) = former {
            let former = String::from_utf8_lossy(&self.values[former as usize]).into_owned();
            let comma = if shown.is_empty() { "" } else { "," };
            let message =
                format!("duplicate {what}{shown}{comma} value: \"{}\", old value: \"{former}\"", value.lossy());
            scope.builder.warn_at(key, line.include, message);
        }
        Ok(())
    }

    fn delete(&mut self, scope: &mut Scope, line: &tree::Directive, word: &Word) -> Result<(), Complaint> {
        let (what, was_there) = match &mut self.ranges {
            Some(ranges) => {
                let range = table::parse_range(word.as_bytes())
                    .ok_or_else(|| Complaint::new(format!("invalid range \"{}\"", word.lossy())).at(word))?;
                ("address range", ranges.remove(range))
            }
            None => {
                let cidr = self.network(scope, line, word)?;
                ("network", self.networks.remove(cidr))
            }
        };
        if !was_there {
            let message = format!("no {what} \"{}\" to delete", word.lossy());
            scope.builder.warn_at(word, line.include, message);
        }
        Ok(())
    }

    /// The number of a value, the same for equal ones: large tables have few different values.
    fn number_of(&mut self, value: &Word) -> u32 {
        let next = self.values.len() as u32;
        let number = *self.numbers.entry(value.as_bytes().into()).or_insert(next);
        if number == next {
            self.values.push(value.as_bytes().into());
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use crate::conf::files::MemoryFiles;
    use crate::http::exchange::Endpoint;
    use crate::http::testing::{World, complaints};

    const SHOW: &str = "server { location / { return 200 \"[$b]\"; } }";

    #[track_caller]
    fn check(geo: &str, cases: &[(&str, &str)]) {
        let mut world = World::new(&format!("{geo} {SHOW}"));
        for (address, text) in cases {
            assert_eq!(world.get(&format!("/?a={address}")).text(), *text, "{address}");
        }
    }

    #[test]
    fn the_smallest_network_decides() {
        check(
            "geo $arg_a $b { default d; 10.0.0.0/8 ten; 10.1.0.0/16 one; 10.1.2.3 host; 2001:db8::/32 six; }",
            &[
                ("10.2.0.1", "[ten]"),
                ("10.1.2.4", "[one]"),
                ("10.1.2.3", "[host]"),
                ("10.255.255.255", "[ten]"),
                ("11.0.0.0", "[d]"),
                ("9.255.255.255", "[d]"),
                ("2001:db8::1", "[six]"),
                ("2001:db9::1", "[d]"),
                ("::ffff:10.1.2.3", "[host]"),
            ],
        );
    }

    #[test]
    fn a_text_that_is_no_address_is_the_broadcast_address() {
        let cases = [("x", "[last]"), ("", "[last]"), ("1.2.3.4", "[]")];
        check("geo $arg_a $b { 255.255.255.255 last; }", &cases);
        check("geo $arg_a $b { default d; 10.0.0.0/8 t; }", &[("x", "[d]")]);
        let mut world = World::new(&format!("geo $b {{ default d; 255.255.255.255 unix; }} {SHOW}"));
        world.peer = Endpoint::Unix(Box::default());
        assert_eq!(world.get("/").text(), "[unix]");
    }

    #[test]
    fn ranges_may_lie_in_ranges() {
        check(
            "geo $arg_a $b { ranges; default d; 10.0.0.0-10.0.0.255 a; 10.0.0.5-10.0.0.7 b; 10.0.0.0-10.0.0.1 c;
                10.0.0.255-10.0.0.255 e; }",
            &[
                ("10.0.0.0", "[c]"),
                ("10.0.0.2", "[a]"),
                ("10.0.0.5", "[b]"),
                ("10.0.0.7", "[b]"),
                ("10.0.0.8", "[a]"),
                ("10.0.0.255", "[e]"),
                ("10.0.1.0", "[d]"),
                ("2001:db8::1", "[d]"),
            ],
        );
    }

    #[test]
    fn trusted_proxies_report_the_address() {
        let mut world = World::new(&format!(
            "geo $b {{ default d; 10.0.0.0/8 ten; proxy 192.0.2.0/24; proxy 10.0.0.1; proxy_recursive; }} {SHOW}"
        ));
        assert_eq!(world.get_with("/", "X-Forwarded-For: 10.1.1.1\r\n").text(), "[ten]");
        assert_eq!(world.get_with("/", "X-Forwarded-For: 11.1.1.1, 10.0.0.1\r\n").text(), "[d]");
        assert_eq!(world.get_with("/", "X-Forwarded-For: 11.1.1.1, 10.0.0.2\r\n").text(), "[ten]");
        world.peer = Endpoint::Inet("198.51.100.9:1".parse().unwrap());
        assert_eq!(world.get_with("/", "X-Forwarded-For: 10.1.1.1\r\n").text(), "[d]");
    }

    #[test]
    fn entries_are_included_and_deleted() {
        let files = MemoryFiles::new().with("/etc/thalweg/nets", "10.0.0.0/8 ten;\n11.0.0.0/8 eleven;\n");
        let text = format!("geo $arg_a $b {{ include nets; delete 11.0.0.0/8; }} {SHOW}");
        let mut world = World::with_includes(&text, files);
        assert_eq!(world.get("/?a=10.0.0.1").text(), "[ten]");
        assert_eq!(world.get("/?a=11.0.0.1").text(), "[]");
    }

    #[test]
    fn a_value_is_kept_unless_it_is_volatile() {
        let text = |word| {
            format!(
                "geo $arg_a $b {{ {word} 1.0.0.0/8 one; 2.0.0.0/8 two; }}
                 server {{ set $first $b; set $args a=2.0.0.1; return 200 $first-$b; }}"
            )
        };
        assert_eq!(World::new(&text("")).get("/?a=1.0.0.1").text(), "one-one");
        assert_eq!(World::new(&text("volatile;")).get("/?a=1.0.0.1").text(), "one-two");
    }

    #[test]
    fn mistakes_are_told_in_nginx_s_words() {
        for (block, told) in [
            ("1.2.3.4 x y;", "[emerg] invalid number of the geo parameters"),
            ("1.2.3.4 x; ranges;", "[emerg] the \"ranges\" directive must be the first directive inside \"geo\" block"),
            ("ranges; 1.2.3.4 x;", "[emerg] invalid range \"1.2.3.4\""),
            ("ranges; 1.2.3.4-1.2.3.1 x;", "[emerg] invalid range \"1.2.3.4-1.2.3.1\""),
            (
                "ranges; 1.2.3.4-1.2.3.10 x; 1.2.3.2-1.2.3.12 y;",
                "[emerg] range \"1.2.3.2-1.2.3.12\" overlaps \"1.2.3.4-1.2.3.10\"",
            ),
            (
                "ranges; 1.2.3.4-1.2.3.10 x; 1.2.3.4-1.2.3.10 y;",
                "[warn] duplicate range \"1.2.3.4-1.2.3.10\", value: \"y\", old value: \"x\"",
            ),
            ("ranges; default x; default y;", "[warn] duplicate default geo range value: \"y\", old value: \"x\""),
            ("1.0.0.0/8 x; 1.0.0.0/8 y;", "[warn] duplicate network \"1.0.0.0/8\", value: \"y\", old value: \"x\""),
            ("1.2.3.4/8 x;", "[warn] low address bits of 1.2.3.4/8 are meaningless"),
            ("delete 3.0.0.0/8;", "[warn] no network \"3.0.0.0/8\" to delete"),
            ("ranges; delete 1.1.1.1-1.1.1.2;", "[warn] no address range \"1.1.1.1-1.1.1.2\" to delete"),
            ("all x;", "[emerg] invalid network \"all\""),
            ("proxy foo;", "[emerg] invalid network \"foo\""),
            ("a { }", "[emerg] unexpected \"{\""),
        ] {
            assert_eq!(complaints(&format!("geo $b {{ {block} }}")), [told], "{block}");
        }
        assert_eq!(complaints("geo b { }"), ["[emerg] invalid variable name \"b\""]);
        assert_eq!(complaints("geo $host { }"), ["[emerg] the duplicate \"host\" variable"]);
    }
}
