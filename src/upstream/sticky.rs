//! Sessions that stay with one peer: identifiers of peers, and the table of learned sessions.

use std::collections::HashMap;
use std::sync::Arc;

use md5::{Digest, Md5};

/// Bytes of a zone that one learned session is reckoned with.
const SESSION_BYTES: u64 = 128;
/// Sessions that the smallest zone holds.
const MIN_SESSIONS: u64 = 64;
/// Most sessions, however large the zone is.
const MAX_SESSIONS: u64 = 1 << 24;
/// End of the list.
const NONE: u32 = u32::MAX;

/// The identifier of a peer without `route`: the MD5 of what `$upstream_addr` shows, in lower case hexadecimal digits.
pub fn id_of(name: &str) -> Arc<str> {
    let mut text = String::with_capacity(32);
    for byte in digest(name.as_bytes()) {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
        }
    }
    text.into()
}

fn digest(text: &[u8]) -> [u8; 16] {
    Md5::digest(text).into()
}

/// Which peer each session was last served by, up to a bound: the one that was not used for longest makes room.
#[derive(Debug)]
pub struct Sessions {
    /// Places by the digest of the session. Clients choose sessions, hence the hash with a random key.
    places: HashMap<[u8; 16], u32>,
    list: Vec<Session>,
    capacity: usize,
    timeout_ms: u64,
    newest: u32,
    oldest: u32,
}

#[derive(Debug)]
struct Session {
    key: [u8; 16],
    id: Arc<str>,
    used_ms: u64,
    newer: u32,
    older: u32,
}

impl Sessions {
    /// A table for a zone of so many bytes.
    pub fn new(zone_bytes: u64, timeout_ms: u64) -> Sessions {
        let capacity = (zone_bytes / SESSION_BYTES).clamp(MIN_SESSIONS, MAX_SESSIONS) as usize;
        Sessions {
            places: HashMap::new(),
            list: Vec::new(),
            capacity,
            timeout_ms,
            newest: NONE,
            oldest: NONE,
        }
    }

    /// The identifier of the session's peer, if it is known; this counts as a use.
    pub fn find(&mut self, session: &[u8], now_ms: u64) -> Option<Arc<str>> {
        let place = *self.places.get(&digest(session))?;
        let found = &self.list[place as usize];
        if now_ms.saturating_sub(found.used_ms) > self.timeout_ms {
            return None;
        }
        let id = found.id.clone();
        self.touch(place, now_ms);
        Some(id)
    }

    /// The session was served by this peer.
    pub fn learn(&mut self, session: &[u8], id: &Arc<str>, now_ms: u64) {
        if session.is_empty() {
            return;
        }
        let key = digest(session);
        let place = match self.places.get(&key) {
            Some(place) => *place,
            None => self.place_for(key, id),
        };
        self.list[place as usize].id = id.clone();
        self.touch(place, now_ms);
    }

    /// How many there are, forgotten ones included that nobody looked for.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    fn place_for(&mut self, key: [u8; 16], id: &Arc<str>) -> u32 {
        let session = Session { key, id: id.clone(), used_ms: 0, newer: NONE, older: NONE };
        let place = if self.list.len() < self.capacity {
            self.list.push(session);
            self.list.len() as u32 - 1
        } else {
            let place = self.oldest;
            self.unlink(place);
            self.places.remove(&self.list[place as usize].key);
            self.list[place as usize] = session;
            place
        };
        self.places.insert(key, place);
        self.link(place);
        place
    }

    fn touch(&mut self, place: u32, now_ms: u64) {
        self.list[place as usize].used_ms = now_ms;
        if self.newest != place {
            self.unlink(place);
            self.link(place);
        }
    }

    fn unlink(&mut self, place: u32) {
        let Session { newer, older, .. } = self.list[place as usize];
        match newer {
            NONE => self.newest = older,
            newer => self.list[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.list[older as usize].newer = newer,
        }
    }

    fn link(&mut self, place: u32) {
        let older = self.newest;
        let session = &mut self.list[place as usize];
        (session.newer, session.older) = (NONE, older);
        match older {
            NONE => self.oldest = place,
            older => self.list[older as usize].newer = place,
        }
        self.newest = place;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_known_by_the_md5_of_its_address() {
        // printf 127.0.0.1:8001 | md5sum
        assert_eq!(&*id_of("127.0.0.1:8001"), "c69a4fd523c3ca0ca67cda2f009f1ea6");
    }

    #[test]
    fn sessions_are_found_until_they_were_not_used_for_the_timeout() {
        let mut sessions = Sessions::new(0, 100);
        let one: Arc<str> = "one".into();
        sessions.learn(b"s", &one, 0);
        assert_eq!(sessions.find(b"s", 90).as_deref(), Some("one"));
        assert_eq!(sessions.find(b"s", 190).as_deref(), Some("one"));
        assert_eq!(sessions.find(b"s", 291), None);
        assert_eq!(sessions.find(b"t", 0), None);
        sessions.learn(b"", &one, 0);
        assert_eq!(sessions.len(), 1);
    }

    #[test]
    fn a_full_table_forgets_the_session_that_was_not_used_for_longest() {
        let mut sessions = Sessions::new(0, 1_000_000);
        let id: Arc<str> = "p".into();
        for number in 0..MIN_SESSIONS {
            sessions.learn(&number.to_be_bytes(), &id, number);
        }
        assert!(sessions.find(&0u64.to_be_bytes(), 100).is_some());
        for number in 1000..1000 + MIN_SESSIONS - 1 {
            sessions.learn(&number.to_be_bytes(), &id, number);
        }
        assert_eq!(sessions.len(), MIN_SESSIONS as usize);
        assert!(sessions.find(&0u64.to_be_bytes(), 100).is_some());
        for number in 1..MIN_SESSIONS {
            assert!(sessions.find(&number.to_be_bytes(), 100).is_none(), "{number}");
        }
    }

    #[test]
    fn a_session_moves_with_its_peer() {
        let mut sessions = Sessions::new(0, 100);
        sessions.learn(b"s", &"one".into(), 0);
        sessions.learn(b"s", &"two".into(), 1);
        assert_eq!(sessions.find(b"s", 2).as_deref(), Some("two"));
        assert_eq!(sessions.len(), 1);
    }
}
