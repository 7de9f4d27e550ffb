//! The harness of the integration tests. Everything here is safe to use from many tests at once: each server has its
//! own folder and its own reserved ports, and its processes end with it.
//!
//! ```ignore
//! let server = Server::start("server { listen {port}; root {root}/html; }");
//! server.write("html/a.txt", b"hello");
//! let response = get(server.port(), "/a.txt");
//! assert_eq!(response.status, 200);
//! assert_eq!(response.body, b"hello");
//! ```

#![allow(dead_code, unused_imports)] // A harness is there before its users.

mod backend;
mod both;
pub mod browser;
mod cases;
mod client;
pub mod codings;
mod config;
pub mod disk;
pub mod dns;
pub mod h2;
mod h2_ends;
pub mod nginx;
mod parity;
mod peer;
mod ports;
pub mod server;
pub mod tls;

pub use backend::{Backend, Conduct};
pub use both::Both;
pub use cases::Cases;
pub use client::{Client, Response, get, raw, raw_status, request};
pub use h2_ends::{Asked, H2Client, H2Peer, Reply, Told};
pub use parity::Parity;
pub use peer::{Peer, Upstream, proxy, proxy_with};
pub use ports::Reserved;
pub use server::{Builder, Output, Server, subject_is_ours};

pub use nginx::{Nginx, parity};
pub use rustix::process::Signal;

use std::time::{Duration, Instant};

/// How long anything in a test may take before it counts as never: generous, because machines are shared.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Asks `condition` again and again until it holds.
///
/// # Panics
/// When it does not hold within [`PATIENCE`]; `what` says what was waited for.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
