//! Debian's nginx as the reference for how things are answered.

use super::client::Client;
use super::config::Program;
use super::parity::Parity;
use super::server::{Builder, Server};

/// Where Debian puts it.
pub const BINARY: &str = "/usr/sbin/nginx";

/// Whether there is an nginx to compare with. Parity tests pass without a word where there is none; `.ci/run` installs
/// one.
pub fn available() -> bool {
    std::path::Path::new(BINARY).exists()
}

/// Starts of nginx with the same configuration texts.
pub struct Nginx;

impl Nginx {
    /// Starts nginx with this text and waits until it answers.
    #[track_caller]
    pub fn start(text: &str) -> Server {
        Self::builder(text).start()
    }

    /// Settings for a start that differs from the usual.
    pub fn builder(text: &str) -> Builder {
        Builder::new(Program::Nginx, text)
    }
}

/// Sends each of these requests (raw bytes, each on its own connection) to both servers under the same configuration
/// and compares the answers. For files and exceptions, see [`Parity`].
#[track_caller]
pub fn parity(text: &str, requests: &[&str]) {
    let mut parity = Parity::new(text);
    for request in requests {
        parity = parity.request(request);
    }
    parity.check();
}

/// Connects to whichever server it is.
pub fn client(server: &Server) -> Client {
    Client::connect(server.port())
}
