//! Thalweg, an event-driven HTTP server for Linux that reads nginx.conf.
//!
//! The modules stand in ranks: each may use only those of a lower rank, and the ranks below `server` do no I/O.
//! ARCHITECTURE.md has the map; `tests/ranks.rs` holds it.

pub mod base;
pub mod conf;
pub mod http;
pub mod laws;
pub mod message;
pub mod process;
pub mod proto;
pub mod server;
pub mod upstream;
