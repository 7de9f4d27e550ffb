//! `gzip`: responses are compressed on their way. Which coding a response gets is decided in `super::compress`.

use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::values;
use crate::http::body_filters::{Compression, Method};
use crate::http::build::Scope;
use crate::http::build::arguments::{flag, invalid_value, number, size, without_meaning};
use crate::http::media_types::{MediaTypes, media_types};
use crate::http::settings::contexts::{HTTP_SERVER_LOCATION, HTTP_SERVER_LOCATION_IF};
use crate::http::settings::settings;

settings! {
    module gzip;
    fields {
        /// Whether responses are compressed with gzip.
        enabled: bool = false, inherit;
            "gzip" HTTP_SERVER_LOCATION_IF, Arity::FLAG, default "off", once flag;
        /// How hard to try, from 1 to 9.
        level: u8 = 1, inherit;
            "gzip_comp_level" HTTP_SERVER_LOCATION, Arity::exactly(1), default "1", once level;
        /// The compressor's table of strings, in bytes.
        memory_level: u8 = 8, inherit;
            "gzip_hash" HTTP_SERVER_LOCATION, Arity::exactly(1), default "64k", once hash;
        /// Shorter responses, in bytes, stay as they are.
        min_length: u64 = 20, inherit;
            "gzip_min_length" HTTP_SERVER_LOCATION, Arity::exactly(1), default "20", once size;
        /// Media types that are compressed, beside `text/html`.
        types: MediaTypes = MediaTypes::default(), inherit;
            "gzip_types" HTTP_SERVER_LOCATION, Arity::at_least(1), default "text/html", with media_types;
        /// The window, in bytes.
        window_bits: u8 = 15, inherit;
            "gzip_window" HTTP_SERVER_LOCATION, Arity::exactly(1), default "32k", once window;
    }
    plain {
        /// Without meaning here beyond its check: buffers are of a size of our own.
        "gzip_buffers" HTTP_SERVER_LOCATION, Arity::exactly(2), default "32 4k", buffers;
        /// Without meaning here: what is compressed goes out whenever the source pauses.
        "gzip_no_buffer" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", without_meaning;
        /// Without meaning here beyond its check: compression begins with the first byte.
        "postpone_gzipping" HTTP_SERVER_LOCATION, Arity::exactly(1), default "0", postponement;
    }
}

impl Settings {
    /// How bodies are compressed.
    pub fn compression(&self) -> Compression {
        Compression {
            method: Method::Gzip { memory_level: self.memory_level },
            level: self.level,
            window_bits: self.window_bits,
        }
    }
}

fn level(scope: &mut Scope, call: &Call) -> Result<u8, Complaint> {
    level_between(scope, call, 1, 9)
}

/// A level within these bounds.
pub fn level_between(scope: &mut Scope, call: &Call, low: u8, high: u8) -> Result<u8, Complaint> {
    match u8::try_from(number(scope, call)?) {
        Ok(level) if (low..=high).contains(&level) => Ok(level),
        _ => Err(Complaint::new(format!("value must be between {low} and {high}")).at(call.arg(0))),
    }
}

/// The exponent of a size that must be a power of two from 2^`low` to 2^`high`.
pub fn size_exponent(
    scope: &mut Scope,
    call: &Call,
    low: u8,
    high: u8,
    names: &str,
) -> Result<u8, Complaint> {
    let value = size(scope, call)?;
    (low..=high)
        .find(|exponent| value == 1 << exponent)
        .ok_or_else(|| Complaint::new(format!("\"{}\" directive must be {names}", call.name())).at(call.arg(0)))
}

fn window(scope: &mut Scope, call: &Call) -> Result<u8, Complaint> {
    size_exponent(scope, call, 9, 15, "512, 1k, 2k, 4k, 8k, 16k, or 32k")
}

/// zlib's memory level m stands for a table of 2^(m + 8) bytes in nginx's reckoning.
fn hash(scope: &mut Scope, call: &Call) -> Result<u8, Complaint> {
    let exponent =
        size_exponent(scope, call, 9, 17, "512, 1k, 2k, 4k, 8k, 16k, 32k, 64k, or 128k")?;
    Ok(exponent - 8)
}

fn postponement(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    size(scope, call)?;
    without_meaning(scope, call)
}

/// A number and a size, checked and not used.
pub fn buffers(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    let count = values::parse_number(call.arg(0).as_bytes());
    let size = values::parse_size(call.arg(1).as_bytes());
    for (index, is_right) in [count.is_ok_and(|count| count > 0), size.is_ok_and(|size| size > 0)].into_iter().enumerate() {
        if !is_right {
            return Err(invalid_value(call, call.arg(index)));
        }
    }
    without_meaning(scope, call)
}
