//! Integration tests: real processes, real sockets, one binary. A file per feature; `util` is the harness.
//!
//! To add a feature's tests, write `tests/it/FEATURE.rs` and one `mod FEATURE;` line here.

mod util;

mod access_log;
mod autoindex;
mod configuration;
mod diagnostics;
mod error_log;
mod harness;
mod headers;
mod locations;
mod map;
mod precompressed;
mod process;
mod rewrite;
mod spa;
mod static_files;
mod variables;
mod virtual_hosts;
