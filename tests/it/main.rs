//! Integration tests: real processes, real sockets, one binary. A file per feature; `util` is the harness.
//!
//! To add a feature's tests, write `tests/it/FEATURE.rs` and one `mod FEATURE;` line here.

mod util;

mod harness;
mod process;
mod real_site;
mod samples;
mod serve;
