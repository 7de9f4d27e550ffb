//! `ssl_certificate_cache`: configurations whose certificates' names have variables, kept for the clients to come.

use std::collections::HashMap;
use std::sync::Arc;

use super::{CertificateCache, PairText};

/// What is kept of one server, or of one side towards upstreams. The owner asks for each handshake, and reads files as it
/// is told.
pub struct PairCache<C> {
    kept: HashMap<Vec<PairText>, Kept<C>>,
}

struct Kept<C> {
    config: Arc<C>,
    /// Tells one state of the files from another: times and numbers of theirs, as the owner likes.
    state: u64,
    /// Seconds at which the files were looked at.
    checked: u64,
    /// Seconds at which it was used.
    used: u64,
}

/// What is known of some pairs.
pub enum Cached<C> {
    /// Use this.
    Fresh(Arc<C>),
    /// Use this if the files are in this state still, and call [`PairCache::confirm`]; else load them.
    Check(Arc<C>, u64),
    /// Load them.
    Missing,
}

impl<C> Default for PairCache<C> {
    fn default() -> PairCache<C> {
        PairCache { kept: HashMap::new() }
    }
}

impl<C> PairCache<C> {
    /// What is kept for these pairs; `now` in seconds.
    pub fn find(&mut self, pairs: &[PairText], now: u64, limits: CertificateCache) -> Cached<C> {
        let Some(kept) = self.kept.get_mut(pairs) else { return Cached::Missing };
        if now.saturating_sub(kept.used) > limits.inactive {
            self.kept.remove(pairs);
            return Cached::Missing;
        }
        kept.used = now;
        let config = Arc::clone(&kept.config);
        match now.saturating_sub(kept.checked) > limits.valid {
            true => Cached::Check(config, kept.state),
            false => Cached::Fresh(config),
        }
    }

    /// The files were looked at and have not changed.
    pub fn confirm(&mut self, pairs: &[PairText], now: u64) {
        if let Some(kept) = self.kept.get_mut(pairs) {
            kept.checked = now;
        }
    }

    /// Keeps what was loaded from files in this state; what was used longest ago gives way.
    pub fn keep(
        &mut self,
        pairs: Vec<PairText>,
        config: Arc<C>,
        state: u64,
        now: u64,
        limits: CertificateCache,
    ) {
        if self.kept.len() as u64 >= limits.max && !self.kept.contains_key(&pairs) {
            self.kept.retain(|_, kept| now.saturating_sub(kept.used) <= limits.inactive);
        }
        if self.kept.len() as u64 >= limits.max && !self.kept.contains_key(&pairs) {
            let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.used).map(|(pairs, _)| pairs.clone());
            if let Some(oldest) = oldest {
                self.kept.remove(&oldest);
            }
        }
        self.kept.insert(pairs, Kept { config, state, checked: now, used: now });
    }

    /// How many are kept.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::FileOrData;
    use super::*;
    use crate::proto::tls::{ServerTlsConfig, fuzz};

    const LIMITS: CertificateCache = CertificateCache { max: 2, inactive: 10, valid: 60 };

    fn pairs(name: &str) -> Vec<PairText> {
        let file = |end: &str| FileOrData::File(format!("/{name}.{end}"));
        vec![PairText { certificate: file("pem"), key: file("key") }]
    }

    fn filled() -> PairCache<ServerTlsConfig> {
        let mut cache = PairCache::default();
        cache.keep(pairs("a"), Arc::clone(fuzz::config()), 7, 0, LIMITS);
        cache
    }

    #[test]
    fn files_are_looked_at_again_after_their_time() {
        let mut cache = filled();
        for now in (0..=60).step_by(10) {
            assert!(matches!(cache.find(&pairs("a"), now, LIMITS), Cached::Fresh(_)));
        }
        assert!(matches!(cache.find(&pairs("a"), 61, LIMITS), Cached::Check(_, 7)));
        cache.confirm(&pairs("a"), 61);
        assert!(matches!(cache.find(&pairs("a"), 62, LIMITS), Cached::Fresh(_)));
        assert!(matches!(cache.find(&pairs("b"), 62, LIMITS), Cached::Missing));
    }

    #[test]
    fn what_nobody_used_is_gone() {
        let mut cache = filled();
        assert!(matches!(cache.find(&pairs("a"), 11, LIMITS), Cached::Missing));
        assert_eq!(cache.len(), 0);
    }

    #[test]
    fn the_bound_holds_and_the_oldest_gives_way() {
        let mut cache = filled();
        cache.keep(pairs("b"), Arc::clone(fuzz::config()), 7, 1, LIMITS);
        cache.find(&pairs("a"), 2, LIMITS);
        cache.keep(pairs("c"), Arc::clone(fuzz::config()), 7, 3, LIMITS);
        assert_eq!(cache.len(), 2);
        assert!(matches!(cache.find(&pairs("b"), 3, LIMITS), Cached::Missing));
        assert!(matches!(cache.find(&pairs("a"), 3, LIMITS), Cached::Fresh(_)));
    }
}
