//! Integration tests: real processes, real sockets, one binary. A file per feature; `util` is the harness.
//!
//! To add a feature's tests, write `tests/it/FEATURE.rs` and one `mod FEATURE;` line here.

mod util;

mod bodies;
mod connections;
mod error_pages;
mod harness;
mod hostile;
mod http1;
mod listen;
mod pipelines;
mod process;
mod responses;
