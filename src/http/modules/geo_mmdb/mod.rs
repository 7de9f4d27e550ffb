//! `geo_mmdb` (a directive of ours): variables out of a MaxMind database, by the client's address.
//!
//! ```text
//! geo_mmdb /var/lib/GeoIP/GeoLite2-City.mmdb {
//!     source $arg_address;                      # the client's address without it
//!     $country country.iso_code default=--;
//!     $region  subdivisions.0.names.en;
//! }
//! ```
//!
//! The database is read into memory with the configuration: a reload brings a new version in, and a file that is
//! replaced or cut off meanwhile does no harm.

#[cfg(test)]
mod sample;

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use maxminddb::{PathElement, Reader};

use crate::base::ascii::append_decimal;
use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::files::Files;
use crate::conf::source::{IncludeId, Span};
use crate::conf::template::VariableId;
use crate::conf::tree;
use crate::http::build::{Builder, Scope};
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::modules::geo;
use crate::http::settings::contexts::HTTP;
use crate::http::settings::settings;
use crate::http::variables::Compute;

settings! {
    module geo_mmdb;
    fields {
    }
    plain {
        /// Variables out of a MaxMind database, by the client's address.
        "geo_mmdb" HTTP, Arity::exactly(1).block(), default "", set_geo_mmdb;
    }
}

/// A database, empty until all of the configuration has been read.
#[derive(Debug, Default)]
pub struct Database(OnceLock<Reader<Vec<u8>>>);

/// A database that is to be read.
#[derive(Debug)]
pub struct Wanted {
    path: String,
    place: (Span, IncludeId),
    database: Arc<Database>,
}

/// One variable.
struct Lookup {
    database: Arc<Database>,
    source: Option<VariableId>,
    path: Box<[Step]>,
    default: Box<[u8]>,
}

/// A step into a record.
#[derive(Debug)]
enum Step {
    /// By a name.
    Key(Box<str>),
    /// By a place in a list.
    Index(usize),
}

impl Compute for Lookup {
    fn compute(&self, exchange: &mut Exchange, context: &mut Context, out: &mut Vec<u8>) -> bool {
        let address = geo::address_of(exchange, context, self.source, |_, address| address);
        if !address.is_some_and(|address| self.database.append(address, &self.path, out)) {
            out.extend_from_slice(&self.default);
        }
        true
    }
}

impl Database {
    /// Appends what stands at `path` in the record of `address`; `false` if there is nothing, or no plain value.
    fn append(&self, address: IpAddr, path: &[Step], out: &mut Vec<u8>) -> bool {
        let Some(reader) = self.0.get() else { return false };
        // A database of IPv4 has no records for others, which is an error of the look-up.
        let Ok(record) = reader.lookup(address.to_canonical()) else { return false };
        let path: smallvec::SmallVec<[PathElement; 8]> = path
            .iter()
            .map(|step| match step {
                Step::Key(name) => PathElement::Key(name),
                Step::Index(index) => PathElement::Index(*index),
            })
            .collect();
        if let Ok(Some(text)) = record.decode_path::<&str>(&path) {
            out.extend_from_slice(text.as_bytes());
        } else if let Ok(Some(flag)) = record.decode_path::<bool>(&path) {
            out.push(if flag { b'1' } else { b'0' });
        } else if let Ok(Some(number)) = record.decode_path::<u128>(&path) {
            append_decimal(out, number);
        } else if let Ok(Some(number)) = record.decode_path::<i64>(&path) {
            append_decimal(out, number);
        } else if let Ok(Some(number)) = record.decode_path::<f64>(&path) {
            out.extend_from_slice(number.to_string().as_bytes());
        } else {
            return false;
        }
        true
    }
}

fn set_geo_mmdb(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    let word = call.arg(0);
    let path = word.as_str().ok_or_else(|| Complaint::invalid_value(word))?;
    let path = match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("{}{path}", scope.builder.conf_prefix),
    };
    let place = (word.span, call.directive.include);
    let wanted = &mut scope.builder.databases;
    let database = match wanted.iter().find(|other| other.path == path) {
        Some(other) => other.database.clone(),
        None => {
            let database = Arc::<Database>::default();
            wanted.push(Wanted { path, place, database: database.clone() });
            database
        }
    };
    let mut source = None;
    for line in call.block() {
        if let Err(complaint) = add_line(scope, line, &database, &mut source) {
            scope.builder.diagnostics.push(complaint.into_diagnostic(line));
        }
    }
    Ok(())
}

fn add_line(
    scope: &mut Scope,
    line: &tree::Directive,
    database: &Arc<Database>,
    source: &mut Option<VariableId>,
) -> Result<(), Complaint> {
    if line.block.is_some() {
        return Err(Complaint::new("unexpected \"{\""));
    }
    let name = line.name();
    let invalid_name = |word: &tree::Word| {
        Complaint::new(format!("invalid variable name \"{}\"", word.lossy())).at(word)
    };
    if let (b"source", [word]) = (name.as_bytes(), line.args()) {
        *source = Some(scope.builder.variable_name(word).ok_or_else(|| invalid_name(word))?);
        return Ok(());
    }
    let mut path = Vec::new();
    let mut default = Box::default();
    for word in line.args() {
        let text = word.as_str().ok_or_else(|| Complaint::invalid_parameter(word))?;
        if let Some(text) = text.strip_prefix("default=") {
            default = text.as_bytes().into();
            continue;
        }
        for step in text.split('.') {
            if step.is_empty() {
                return Err(Complaint::invalid_parameter(word));
            }
            path.push(step.parse().map_or_else(|_| Step::Key(step.into()), Step::Index));
        }
    }
    if path.is_empty() {
        return Err(Complaint::new("invalid number of the geo_mmdb parameters"));
    }
    let variable = scope.builder.variable_name(name).ok_or_else(|| invalid_name(name))?;
    let lookup = Lookup { database: database.clone(), source: *source, path: path.into(), default };
    scope.builder.define_computed(variable, Arc::new(lookup), true).map_err(|complaint| complaint.at(name))
}

/// Reads the databases that the configuration names.
pub fn read_databases(builder: &mut Builder, files: &mut dyn Files) {
    for Wanted { path, place: (span, include), database } in std::mem::take(&mut builder.databases) {
        let read = files.read_data(&path).map_err(|error| error.message(&path)).and_then(|bytes| {
            Reader::from_source(bytes).map_err(|error| format!("\"{path}\" is no MaxMind database: {error}"))
        });
        match read {
            Ok(reader) => drop(database.0.set(reader)),
            Err(message) => builder.error_at(span, include, message.replace('\n', " ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::sample;
    use crate::conf::files::MemoryFiles;
    use crate::http::testing::{World, build_whole};

    fn world(http: &str) -> World {
        let files = MemoryFiles::new().with("/etc/thalweg/geo.mmdb", sample::database());
        World::with_includes(http, files)
    }

    #[test]
    fn values_of_every_kind_are_text() {
        let mut world = world(
            "geo_mmdb geo.mmdb { source $arg_a; $country country.iso_code default=--; $name country names en;
                $second list.1; $number number; $flag flag; $latitude latitude; $map country; }
             server { return 200 $country|$name|$second|$number|$flag|$latitude|$map; }",
        );
        assert_eq!(world.get("/?a=1.2.3.4").text(), "NL|Netherlands|two|4711|1|52.5|");
        assert_eq!(world.get("/?a=::ffff:1.2.3.4").text(), "NL|Netherlands|two|4711|1|52.5|");
        assert_eq!(world.get("/?a=128.0.0.1").text(), "DE||||||");
        for nowhere in ["64.0.0.1", "2001:db8::1", "x", ""] {
            assert_eq!(world.get(&format!("/?a={nowhere}")).text(), "--||||||", "{nowhere}");
        }
    }

    #[test]
    fn the_client_s_address_is_looked_up_as_a_proxy_reports_it() {
        let mut world = world(
            "geo_mmdb geo.mmdb { $country country.iso_code default=none; } set_real_ip_from 192.0.2.1;
             server { return 200 $country; }",
        );
        assert_eq!(world.get("/").text(), "DE");
        assert_eq!(world.get_with("/", "X-Real-IP: 1.2.3.4\r\n").text(), "NL");
    }

    #[test]
    fn mistakes_are_told() {
        let told = |http: &str| {
            let files = MemoryFiles::new()
                .with("/etc/thalweg/geo.mmdb", sample::database())
                .with("/etc/thalweg/bad.mmdb", "no database");
            let built = build_whole(format!("events {{}} http {{ {http} }}").into_bytes(), files);
            built.diagnostics.iter().map(|one| one.message.clone()).collect::<Vec<_>>()
        };
        let text = told("geo_mmdb none.mmdb { $a b; }");
        assert_eq!(text, ["open() \"/etc/thalweg/none.mmdb\" failed (2: No such file or directory)"]);
        let text = told("geo_mmdb bad.mmdb { $a b; }");
        assert!(text[0].starts_with("\"/etc/thalweg/bad.mmdb\" is no MaxMind database"), "{text:?}");
        assert_eq!(told("geo_mmdb geo.mmdb { a b; }"), ["invalid variable name \"a\""]);
        assert_eq!(told("geo_mmdb geo.mmdb { $a; }"), ["invalid number of the geo_mmdb parameters"]);
        assert_eq!(told("geo_mmdb geo.mmdb { $a b..c; }"), ["invalid parameter \"b..c\""]);
        assert_eq!(told("geo_mmdb geo.mmdb { $host b; }"), ["the duplicate \"host\" variable"]);
    }
}
