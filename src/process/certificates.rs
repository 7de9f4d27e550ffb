//! Certificates live: their files are looked at every few seconds, and what changed is taken up without a reload.
//!
//! This is the main thread's, which may read keys that workers may not, and whose waiting for a disk holds nobody up.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use crate::base::level::Level;
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
        for (server, tls) in site.tls.all() {
            if !tls.watched().any(|path| changed.iter().any(|changed| changed == path)) {
                continue;
            }
            let name = name_of(site, server);
            match tls.reload(&mut ConfigFiles) {
                Ok(true) => {
                    log(Level::Notice, &format!("the certificate of server \"{name}\" was replaced"));
                    // Whatever it says of its end is new.
                    self.warn = Instant::now();
                }
                Ok(false) => {}
                Err(reason) => {
                    let text = format!(
                        "the certificate of server \"{name}\" was not replaced, the former one stays: {reason}"
                    );
                    log(Level::Error, &text);
                }
            }
        }
    }
}

fn watched(site: &Site) -> impl Iterator<Item = &str> {
    site.tls.all().flat_map(|(_, tls)| tls.watched())
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
        match tls.days_left(now) {
            Some(days) if days < 0 => {
                log(Level::Warn, &format!("the certificate of server \"{name}\" has expired"));
            }
            Some(days) if days < WARN_DAYS => {
                log(Level::Warn, &format!("the certificate of server \"{name}\" expires in {days} days"));
            }
            _ => {}
        }
    }
}
