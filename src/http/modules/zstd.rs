//! `zstd` (directives of ours, in the shape of `gzip`): responses are compressed on their way. Which coding a response
//! gets is decided in `super::compress`.

use crate::conf::directive::{Arity, Call, Complaint};
use crate::http::body_filters::{Compression, Method};
use crate::http::build::Scope;
use crate::http::build::arguments::{flag, size};
use crate::http::media_types::{MediaTypes, media_types};
use crate::http::settings::contexts::{HTTP_SERVER_LOCATION, HTTP_SERVER_LOCATION_IF};
use crate::http::settings::settings;

use super::gzip::{buffers, level_between, size_exponent};

settings! {
    module zstd;
    fields {
        /// Whether responses are compressed with Zstandard.
        enabled: bool = false, inherit;
            "zstd" HTTP_SERVER_LOCATION_IF, Arity::FLAG, default "off", once flag;
        /// How hard to try, from 1 to 19; beyond 9 it is too slow for responses that are made anew each time.
        level: u8 = 3, inherit;
            "zstd_comp_level" HTTP_SERVER_LOCATION, Arity::exactly(1), default "3", once level;
        /// Shorter responses, in bytes, stay as they are.
        min_length: u64 = 20, inherit;
            "zstd_min_length" HTTP_SERVER_LOCATION, Arity::exactly(1), default "20", once size;
        /// Media types that are compressed, beside `text/html`.
        types: MediaTypes = MediaTypes::default(), inherit;
            "zstd_types" HTTP_SERVER_LOCATION, Arity::at_least(1), default "text/html", with media_types;
        /// The window, in bytes; browsers take no larger one than 8 MiB (RFC 9659).
        window_bits: u8 = 20, inherit;
            "zstd_window" HTTP_SERVER_LOCATION, Arity::exactly(1), default "1m", once window;
    }
    plain {
        /// Without meaning here beyond its check: buffers are of a size of our own.
        "zstd_buffers" HTTP_SERVER_LOCATION, Arity::exactly(2), default "32 4k", buffers;
    }
}

impl Settings {
    /// How bodies are compressed.
    pub fn compression(&self) -> Compression {
        Compression { method: Method::Zstd, level: self.level, window_bits: self.window_bits }
    }
}

fn level(scope: &mut Scope, call: &Call) -> Result<u8, Complaint> {
    level_between(scope, call, 1, 19)
}

fn window(scope: &mut Scope, call: &Call) -> Result<u8, Complaint> {
    size_exponent(scope, call, 10, 23, "a power of two from 1k to 8m")
}
