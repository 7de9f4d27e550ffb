//! Certificates live: their files are looked at every few seconds, and what changed is taken up without a reload.
//!
//! This is the main thread's, which may read keys that workers may not, and whose waiting for a disk holds nobody up.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use crate::base::level::Level;
use crate::http::modules::passing::UpstreamTls;
use crate::http::site::Site;
use crate::server::config_files::ConfigFiles;

/// How often files are looked at: a change is seen within 5 s.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// How often the days that are left are looked at.
const WARN_EVERY: Duration = Duration::from_secs(24 * 3600);
/// Certificates that end within so many days are warned of.
const WARN_DAYS: i64 = 14;

/// Files that changed within so many seconds may have done so after they were read: the first look reads them again.
const READING_SECS: i64 = 60;

/// What a file looked like: time of its last change in nanoseconds, inode and size.
type Stamp = (i64, i64, u64, u64);

/// See the module's documentation.
#[derive(Debug)]
pub struct CertificateWatch {
    look: Instant,
    warn: Instant,
    stamps: HashMap<String, Option<Stamp>>,
}

impl CertificateWatch {
    /// Begins with a site whose certificates were just read.
    pub fn new(site: &Site) -> CertificateWatch {
        let now = Instant::now();
        let fresh = seconds_now() - READING_SECS;
        let stamps = watched(site).map(|path| (path.to_owned(), stamp_before(path, fresh))).collect();
        CertificateWatch { look: now + LOOK_EVERY, warn: now, stamps }
    }

    /// How long the caller may sleep; `None` where there is nothing to watch.
    pub fn timeout(&self) -> Option<Duration> {
        (!self.stamps.is_empty()).then(|| self.look.min(self.warn).saturating_duration_since(Instant::now()))
    }

    /// Looks at the files and the days that are left, when it is time.
    pub fn run(&mut self, site: &Site, log: &mut dyn FnMut(Level, &str)) {
        let now = Instant::now();
        if self.stamps.is_empty() {
            return;
        }
        if now >= self.look {
            self.look = now + LOOK_EVERY;
            self.take_changes(site, log);
        }
        if now >= self.warn {
            self.warn = now + WARN_EVERY;
            warn_of_ends(site, log);
        }
    }

    fn take_changes(&mut self, site: &Site, log: &mut dyn FnMut(Level, &str)) {
        let changed: Vec<String> = self
            .stamps
            .iter_mut()
            .filter_map(|(path, before)| {
                let now = stamp(path);
                (std::mem::replace(before, now) != now).then(|| path.clone())
            })
            .collect();
        if changed.is_empty() {
            return;
        }
        let has_changed = |path: &str| changed.iter().any(|changed| changed == path);
        for (server, tls) in site.tls.all() {
            if tls.watched().any(has_changed) {
                let what = format!("the certificate of server \"{}\"", name_of(site, server));
                self.tell(&what, tls.reload(&mut ConfigFiles), log);
            }
        }
        for tls in site.tls.all_upstreams() {
            if tls.watched().any(has_changed) {
                self.tell(&told_for_upstreams(tls), tls.reload(&mut ConfigFiles), log);
            }
        }
    }

    fn tell(&mut self, what: &str, result: Result<bool, String>, log: &mut dyn FnMut(Level, &str)) {
        match result {
            Ok(true) => {
                log(Level::Notice, &format!("{what} was replaced"));
                // Whatever it says of its end is new.
                self.warn = Instant::now();
            }
            Ok(false) => {}
            Err(reason) => {
                log(Level::Error, &format!("{what} was not replaced, the former one stays: {reason}"));
            }
        }
    }
}

fn watched(site: &Site) -> impl Iterator<Item = &str> {
    let of_upstreams = site.tls.all_upstreams().flat_map(|tls| tls.watched());
    site.tls.all().flat_map(|(_, tls)| tls.watched()).chain(of_upstreams)
}

/// Our certificate for upstreams has no name but its file's.
fn told_for_upstreams(tls: &UpstreamTls) -> String {
    format!("the certificate \"{}\" for upstreams", tls.watched().next().unwrap_or_default())
}

fn name_of(site: &Site, server: crate::http::site::ServerId) -> String {
    String::from_utf8_lossy(&site.server(server).name).into_owned()
}

fn stamp(path: &str) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.mtime(), metadata.mtime_nsec(), metadata.ino(), metadata.size()))
}

/// The stamp of a file that has not changed since `fresh`; nothing that any stamp equals for others.
fn stamp_before(path: &str, fresh: i64) -> Option<Stamp> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.ctime() < fresh => stamp(path),
        _ => Some((i64::MIN, 0, 0, 0)),
    }
}

fn seconds_now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    now.as_secs() as i64
}

fn warn_of_ends(site: &Site, log: &mut dyn FnMut(Level, &str)) {
    let now = seconds_now();
    for (server, tls) in site.tls.all() {
        let name = name_of(site, server);
        warn_of_end(&format!("the certificate of server \"{name}\""), tls.days_left(now), log);
    }
    for tls in site.tls.all_upstreams() {
        warn_of_end(&told_for_upstreams(tls), tls.days_left(now), log);
    }
}

fn warn_of_end(what: &str, days: Option<i64>, log: &mut dyn FnMut(Level, &str)) {
    match days {
        Some(days) if days < 0 => log(Level::Warn, &format!("{what} has expired")),
        Some(days) if days < WARN_DAYS => log(Level::Warn, &format!("{what} expires in {days} days")),
        _ => {}
    }
}
