//! Session tickets with keys that can be shared (nginx's `ssl_session_ticket_key` files) and rotated.
//!
//! A ticket is built as RFC 5077, section 4, recommends: key name, IV, encrypted state, HMAC over all of it. Within the
//! encrypted state the time of issue comes first, so that a ticket ends with its lifetime whatever its key does.

use std::sync::{Arc, RwLock};

use aws_lc_rs::cipher::{
    AES_128, AES_256, DecryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::{hmac, iv, rand};
use rustls::server::ProducesTickets;

use super::clock::TlsClock;

const NAME: usize = 16;
const IV: usize = 16;
const MAC: usize = 32;
const TIME: usize = 8;
/// The longest ticket that is looked at, in bytes. Tickets hold client certificates; the wire allows 65,535.
const LONGEST: usize = 65_535;

/// One key.
struct TicketKey {
    name: [u8; NAME],
    encrypt: PaddedBlockEncryptingKey,
    decrypt: PaddedBlockDecryptingKey,
    mac: hmac::Key,
    /// When it was made, in seconds since 1970; keys of files know no time.
    made: u64,
}

impl TicketKey {
    fn new(name: &[u8], aes: &[u8], mac: &[u8], made: u64) -> Option<TicketKey> {
        let algorithm = if aes.len() == 16 { &AES_128 } else { &AES_256 };
        let unbound = || UnboundCipherKey::new(algorithm, aes).ok();
        Some(TicketKey {
            name: name.try_into().ok()?,
            encrypt: PaddedBlockEncryptingKey::cbc_pkcs7(unbound()?).ok()?,
            decrypt: PaddedBlockDecryptingKey::cbc_pkcs7(unbound()?).ok()?,
            mac: hmac::Key::new(hmac::HMAC_SHA256, mac),
            made,
        })
    }

    /// nginx's file: 80 bytes (name, HMAC key of 32, AES-256 key) or 48 (name, AES-128 key, HMAC key of 16).
    fn from_file(content: &[u8]) -> Option<TicketKey> {
        match content.len() {
            80 => TicketKey::new(&content[..16], &content[48..80], &content[16..48], 0),
            48 => TicketKey::new(&content[..16], &content[16..32], &content[32..48], 0),
            _ => None,
        }
    }

    fn random(now: u64) -> Option<TicketKey> {
        let mut bytes = [0; 80];
        rand::fill(&mut bytes).ok()?;
        TicketKey::new(&bytes[..16], &bytes[48..80], &bytes[16..48], now)
    }

    fn seal(&self, plain: &[u8], now: u64) -> Option<Vec<u8>> {
        let mut state = Vec::with_capacity(TIME + plain.len() + IV);
        state.extend_from_slice(&now.to_be_bytes());
        state.extend_from_slice(plain);
        let context = self.encrypt.encrypt(&mut state).ok()?;
        let iv: &[u8] = (&context).try_into().ok()?;
        let mut ticket = Vec::with_capacity(NAME + IV + state.len() + MAC);
        ticket.extend_from_slice(&self.name);
        ticket.extend_from_slice(iv);
        ticket.extend_from_slice(&state);
        let tag = hmac::sign(&self.mac, &ticket);
        ticket.extend_from_slice(tag.as_ref());
        (ticket.len() <= LONGEST).then_some(ticket)
    }

    /// The time of issue and the state of a ticket that this key made.
    fn open(&self, ticket: &[u8]) -> Option<(u64, Vec<u8>)> {
        let (body, tag) = ticket.split_at_checked(ticket.len().checked_sub(MAC)?)?;
        hmac::verify(&self.mac, body, tag).ok()?;
        let iv: [u8; IV] = body.get(NAME..NAME + IV)?.try_into().ok()?;
        let mut state = body.get(NAME + IV..)?.to_vec();
        let context = DecryptionContext::Iv128(iv::FixedLength::from(iv));
        let plain = self.decrypt.decrypt(&mut state, context).ok()?;
        let (time, rest) = plain.split_at_checked(TIME)?;
        Some((u64::from_be_bytes(time.try_into().ok()?), rest.to_vec()))
    }
}

/// The keys of one or more servers. Shared by all workers; locked for the length of one ticket, in handshakes only.
pub struct TicketKeys {
    /// The first makes tickets, all read them.
    keys: RwLock<Vec<Arc<TicketKey>>>,
    /// Whether the keys are our own, to be made anew as they age.
    rotates: bool,
    lifetime: u64,
    clock: Arc<TlsClock>,
}

impl std::fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TicketKeys")
    }
}

impl TicketKeys {
    /// Random keys; tickets are good for `lifetime` seconds. A new key is made when the present one has served so long,
    /// and the one before stays for reading until its last ticket has ended.
    pub fn random(lifetime: u64, clock: Arc<TlsClock>) -> TicketKeys {
        TicketKeys { keys: RwLock::new(Vec::new()), rotates: true, lifetime, clock }
    }

    /// Keys out of files: the first one makes tickets. `None` if there is none or one is of another length than 48 or
    /// 80 bytes.
    pub fn from_files(files: &[&[u8]], lifetime: u64, clock: Arc<TlsClock>) -> Option<TicketKeys> {
        let keys: Option<Vec<_>> =
            files.iter().map(|file| TicketKey::from_file(file).map(Arc::new)).collect();
        let keys = keys.filter(|keys| !keys.is_empty())?;
        Some(TicketKeys { keys: RwLock::new(keys), rotates: false, lifetime, clock })
    }

    fn current(&self, now: u64) -> Option<Arc<TicketKey>> {
        let is_due = |key: &TicketKey| self.rotates && now.saturating_sub(key.made) >= self.lifetime.max(1);
        {
            let keys = self.keys.read().ok()?;
            if let Some(first) = keys.first().filter(|first| !is_due(first)) {
                return Some(Arc::clone(first));
            }
        }
        let mut keys = self.keys.write().ok()?;
        // Another worker may have been faster.
        if keys.first().is_none_or(|first| is_due(first)) {
            keys.insert(0, Arc::new(TicketKey::random(now)?));
            keys.truncate(2);
        }
        keys.first().cloned()
    }
}

impl ProducesTickets for TicketKeys {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(self.lifetime).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let now = self.clock.seconds();
        self.current(now)?.seal(plain, now)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > LONGEST {
            return None;
        }
        let name = ticket.get(..NAME)?;
        let key = self.keys.read().ok()?.iter().find(|key| key.name == name).cloned()?;
        let (issued, state) = key.open(ticket)?;
        (self.clock.seconds().saturating_sub(issued) <= self.lifetime).then_some(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(length: usize, seed: u8) -> Vec<u8> {
        (0..length).map(|at| seed.wrapping_add(at as u8)).collect()
    }

    fn keys(files: &[&[u8]]) -> TicketKeys {
        TicketKeys::from_files(files, 300, Arc::new(TlsClock::new(1000))).unwrap()
    }

    #[test]
    fn both_file_formats_make_tickets_that_they_can_read() {
        for length in [48, 80] {
            let keys = keys(&[&file(length, 1)]);
            let ticket = keys.encrypt(b"state").unwrap();
            assert_eq!(&ticket[..16], &file(length, 1)[..16]);
            assert_eq!(keys.decrypt(&ticket).unwrap(), b"state");
        }
        for length in [0, 47, 79, 81] {
            assert!(TicketKeys::from_files(&[&file(length, 1)], 1, Arc::default()).is_none());
        }
    }

    #[test]
    fn a_ticket_of_the_old_key_is_read_after_a_rotation() {
        let (old, new) = (file(80, 1), file(80, 90));
        let ticket = keys(&[&old]).encrypt(b"state").unwrap();
        assert_eq!(keys(&[&new, &old]).decrypt(&ticket).unwrap(), b"state");
        assert_eq!(keys(&[&new]).decrypt(&ticket), None);
    }

    #[test]
    fn tickets_end_with_their_lifetime() {
        let keys = keys(&[&file(80, 1)]);
        let ticket = keys.encrypt(b"state").unwrap();
        keys.clock.set(1300);
        assert!(keys.decrypt(&ticket).is_some());
        keys.clock.set(1301);
        assert_eq!(keys.decrypt(&ticket), None);
    }

    #[test]
    fn random_keys_change_and_the_last_one_still_reads() {
        let keys = TicketKeys::random(300, Arc::new(TlsClock::new(1000)));
        let first = keys.encrypt(b"state").unwrap();
        keys.clock.set(1299);
        assert_eq!(keys.encrypt(b"state").unwrap()[..16], first[..16]);
        keys.clock.set(1300);
        let second = keys.encrypt(b"state").unwrap();
        assert_ne!(second[..16], first[..16]);
        assert!(keys.decrypt(&first).is_some());
        keys.clock.set(1600);
        keys.encrypt(b"state").unwrap();
        assert!(keys.decrypt(&first).is_none() && keys.decrypt(&second).is_some());
    }

    #[test]
    fn a_forged_or_cut_ticket_is_refused() {
        let keys = keys(&[&file(48, 7)]);
        let ticket = keys.encrypt(b"some state of a session").unwrap();
        for end in 0..ticket.len() {
            assert_eq!(keys.decrypt(&ticket[..end]), None);
        }
        for at in 0..ticket.len() {
            let mut forged = ticket.clone();
            forged[at] ^= 1;
            assert_eq!(keys.decrypt(&forged), None);
        }
    }
}
