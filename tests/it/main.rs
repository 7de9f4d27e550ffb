//! Integration tests: real processes, real sockets, one binary. A file per feature; `util` is the harness.
//!
//! To add a feature's tests, write `tests/it/FEATURE.rs` and one `mod FEATURE;` line here.

mod util;

mod access_log;
mod autoindex;
mod bodies;
mod configuration;
mod connections;
mod diagnostics;
mod error_log;
mod error_pages;
mod harness;
mod headers;
mod hostile;
mod http1;
mod listen;
mod locations;
mod map;
mod pipelines;
mod precompressed;
mod process;
mod real_site;
mod regression;
mod relay_connections;
mod relay_responses;
mod relay_streaming;
mod reload;
mod responses;
mod rewrite;
mod samples;
mod serve;
mod spa;
mod static_files;
mod variables;
mod virtual_hosts;
mod worker;
