//! What laws about parts of the request language need around them: a site, an environment and a request, without files,
//! clock or sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::base::clock::{Now, RenderedDates};
use crate::base::log::LogQueue;
use crate::conf::files::MemoryFiles;
use crate::conf::log_target::LogTarget;
use crate::message::RequestHead;

use super::build::{BuildOptions, Built, build};
use super::context::Env;
use super::exchange::{ConnectionFacts, Endpoint, Exchange};
use super::site::{AddressId, SiteHandle};

/// How the configuration `/c/main` is built: by a privileged user, where nobody looks names of `listen` up.
pub fn options() -> BuildOptions<'static> {
    BuildOptions {
        path: "/c/main",
        prefix: "/c/",
        command_line: "",
        error_log: &LogTarget::Stderr,
        previous_logs: None,
        previous_tls: None,
        hostname: b"machine",
        privileged: true,
        resolve: None,
    }
}

/// What becomes of the configuration `/c/main`.
pub fn built(files: &mut MemoryFiles) -> Built {
    build(files, &options())
}

/// The site of this configuration, which has no mistakes.
pub fn site(configuration: &str) -> SiteHandle {
    let built = built(&mut MemoryFiles::new().with("/c/main", configuration));
    SiteHandle::new(Arc::new(built.site.expect("a site")))
}

/// An environment whose time stands still.
pub fn env() -> Env {
    let now = Now { monotonic_ms: 0, wall_secs: 1_700_000_000, wall_ms_part: 0 };
    Env::new(now, RenderedDates::new(TimeZone::UTC, now), LogQueue::default(), 1, 1, b"machine")
}

/// A request without a head, to the site's first address.
pub fn exchange(site: &SiteHandle) -> Exchange {
    let end = |port| Endpoint::Inet(SocketAddr::from(([127, 0, 0, 1], port)));
    let facts = ConnectionFacts {
        number: 1,
        requests: 1,
        accepted_ms: 0,
        peer: end(40_000),
        local: end(80),
        proxy_protocol: None,
        secure: false,
        lacks_tls: false,
        tls: None,
    };
    Exchange::begin(site.clone(), AddressId(0), facts, 0, RequestHead::default())
}
