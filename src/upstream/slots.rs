//! The peers of a group and which of them may be asked: everything about a choice but the method itself.
//!
//! The order of preference, written once:
//!
//! 1. The peer of the request's session, if it may be asked at all.
//! 2. A peer that is due for a trial; by the hashes only if the key belongs to it.
//! 3. By the method, a server that is no backup and answers.
//! 4. One that is no backup and silent: it may be about to answer, and a backup is often a page that says sorry.
//! 5. The same three for backups.
//! 6. An ejected peer before its time: better a trial than a certain refusal.

use std::sync::Arc;

use super::balance::{self, Question, Slot, WEIGHT_UNIT};
use super::peer::{Peer, Tried};
use super::plan::Method;
use super::state::{PeerState, Standing};

/// Milliseconds between two trials of an ejected peer where there is no other one to ask.
pub const EARLY_TRIAL_MS: u64 = 1000;

/// Whether a peer may be asked by a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// It may.
    Usable,
    /// It may, and is past its usual time with what it was asked before.
    Silent,
    /// It was ejected and is to be tried.
    Due,
    /// It has as many requests as it may have.
    Full,
    /// It was ejected; it could be tried before its time.
    Early,
    /// It may not.
    No,
}

impl Availability {
    /// Of a peer for a request that has tried `tried`.
    pub fn of(peer: &Peer, tried: &Tried, now_ms: u64) -> Availability {
        let (plan, state) = (&peer.plan, &peer.state);
        if plan.down || !state.is_healthy() || tried.has(peer) {
            return Availability::No;
        }
        let is_full = plan.max_conns > 0 && state.in_flight() >= plan.max_conns;
        match state.standing() {
            Standing::Good if is_full => return Availability::Full,
            Standing::Good => {}
            // Also of a trial that was never reported: it must not shut the peer out for good.
            Standing::Trial | Standing::Ejected if now_ms > state.due_ms() => {
                return if is_full { Availability::Full } else { Availability::Due };
            }
            Standing::Ejected if !is_full && now_ms.saturating_sub(state.since_ms()) >= EARLY_TRIAL_MS => {
                return Availability::Early;
            }
            Standing::Trial | Standing::Ejected => return Availability::No,
        }
        match state.silent_since_ms() {
            // From time to time a request finds out whether it still is silent.
            Some(since_ms) if now_ms.saturating_sub(since_ms) <= plan.fail_timeout_ms => Availability::Silent,
            _ => Availability::Usable,
        }
    }

    fn may_be_asked(self) -> bool {
        matches!(self, Availability::Usable | Availability::Silent | Availability::Due)
    }
}

/// The peers of a group, backups behind the others.
#[derive(Debug, Default)]
pub struct Slots {
    list: Vec<Slot>,
    /// How many of them are no backups.
    primaries: usize,
    /// What is known of each for the present request.
    available: Vec<Availability>,
}

impl Slots {
    /// Slots for these peers; what is known of those that are in `self` already stays.
    pub fn replace(&mut self, peers: Vec<Arc<Peer>>) {
        let mut old = std::mem::take(&mut self.list);
        for backup in [false, true] {
            for peer in peers.iter().filter(|peer| peer.plan.backup == backup) {
                let known = old.iter().position(|slot| Arc::ptr_eq(&slot.peer, peer));
                self.list.push(match known {
                    Some(position) => old.swap_remove(position),
                    None => Slot::new(peer.clone()),
                });
            }
            if !backup {
                self.primaries = self.list.len();
            }
        }
        self.available = vec![Availability::No; self.list.len()];
    }

    /// The peers.
    pub fn peers(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.list.iter().map(|slot| &slot.peer)
    }

    /// Looks at every peer for a request.
    pub fn survey(&mut self, tried: &Tried, now_ms: u64) {
        for (slot, available) in self.list.iter_mut().zip(&mut self.available) {
            *available = Availability::of(&slot.peer, tried, now_ms);
            slot.in_flight = slot.peer.state.in_flight();
            slot.weight = weight_now(slot, now_ms);
        }
    }

    /// The peer with this identifier, if it may be asked: sessions also go to one that drains.
    pub fn of_session(&self, id: &[u8]) -> Option<usize> {
        let mut slots = self.list.iter().zip(&self.available);
        slots.position(|(slot, available)| slot.peer.id.as_bytes() == id && available.may_be_asked())
    }

    /// The peer for a request, by the order above; sessions apart.
    pub fn choose(&mut self, method: Method, question: &mut Question) -> Option<usize> {
        let all = self.list.len();
        for (method, from, to) in
            [(method, 0, self.primaries), (balance::among_backups(method), self.primaries, all)]
        {
            let found = self.choose_in(method, from, to, question);
            if found.is_some() {
                return found;
            }
        }
        self.longest_out(0, all, Availability::Early)
    }

    fn choose_in(
        &mut self,
        method: Method,
        from: usize,
        to: usize,
        question: &mut Question,
    ) -> Option<usize> {
        if !method.has_affinity()
            && let Some(due) = self.longest_out(from, to, Availability::Due)
        {
            return Some(due);
        }
        for silent in [false, true] {
            let mut any = false;
            for (slot, available) in self.list[from..to].iter_mut().zip(&self.available[from..to]) {
                let fits = match available {
                    Availability::Usable | Availability::Due => !silent,
                    Availability::Silent => silent,
                    _ => false,
                };
                slot.usable = fits && !slot.peer.plan.drain;
                any |= slot.usable;
            }
            if any && let Some(found) = balance::pick(method, &mut self.list[from..to], question) {
                return Some(from + found);
            }
        }
        None
    }

    /// Of the peers with this availability, the one whose standing changed first.
    fn longest_out(&self, from: usize, to: usize, wanted: Availability) -> Option<usize> {
        (from..to)
            .filter(|position| self.available[*position] == wanted && !self.list[*position].peer.plan.drain)
            .min_by_key(|position| self.list[*position].peer.state.since_ms())
    }

    /// Takes the chosen peer; a trial begins where it is one.
    pub fn take(&mut self, position: usize, now_ms: u64) -> Arc<Peer> {
        let peer = &self.list[position].peer;
        match self.available[position] {
            Availability::Due | Availability::Early => {
                peer.state.begin_trial(now_ms, peer.plan.fail_timeout_ms);
            }
            Availability::Usable if peer.state.silent_since_ms().is_some() => {
                peer.state.probe_silence(now_ms)
            }
            _ => {}
        }
        peer.clone()
    }

    /// Whether a peer could be asked were it not full.
    pub fn is_any_full(&self) -> bool {
        let mut slots = self.list.iter().zip(&self.available);
        slots.any(|(slot, available)| *available == Availability::Full && !slot.peer.plan.drain)
    }

    /// Whether a request that has tried `tried` would find another peer.
    pub fn has_another(&self, tried: &Tried, now_ms: u64) -> bool {
        self.list.iter().any(|slot| {
            let available = Availability::of(&slot.peer, tried, now_ms);
            (available.may_be_asked() || available == Availability::Early) && !slot.peer.plan.drain
        })
    }

    /// Loses weight after a failure.
    pub fn punish(&mut self, state: &Arc<PeerState>) {
        if let Some(slot) = self.list.iter_mut().find(|slot| Arc::ptr_eq(&slot.peer.state, state)) {
            balance::round_robin::punish(slot);
        }
    }

    /// Whether requests would have somebody to go to without this peer.
    pub fn has_good_besides(&self, state: &Arc<PeerState>) -> bool {
        self.list.iter().any(|slot| {
            let other = &slot.peer;
            !Arc::ptr_eq(&other.state, state)
                && other.state.standing() == Standing::Good
                && other.state.is_healthy()
                && !other.plan.down
                && !other.plan.drain
        })
    }
}

/// A slot's weight, which grows from nearly nothing while the peer starts slowly.
fn weight_now(slot: &Slot, now_ms: u64) -> i64 {
    let full = slot.full_weight();
    let (slow_ms, returned_ms) = (slot.peer.plan.slow_start_ms, slot.peer.state.returned_ms());
    let passed_ms = now_ms.saturating_sub(returned_ms);
    if slow_ms == 0 || returned_ms == 0 || passed_ms >= slow_ms {
        return full;
    }
    let part = i128::from(full) * i128::from(passed_ms) / i128::from(slow_ms);
    (part as i64).clamp(WEIGHT_UNIT / 100, full)
}
