//! Fastest for its weight and its connections; among equals by turns.
//!
//! A peer's score is its mean time, times one more than its connections, for its weight. Times are compared in steps, so
//! that a millisecond does not decide, and up to a bound; a peer that was not asked for a while is given the benefit of
//! the doubt, its time halved with every `fail_timeout` (nginx 1.31).

use super::{Slot, round_robin};
use crate::upstream::plan::LeastTime;

/// Times are compared in steps of so many milliseconds.
const STEP_MS: u64 = 20;
/// Longer times count as this.
const MAX_MS: u64 = 5000;

/// See the module's documentation.
pub fn pick(slots: &mut [Slot], time: LeastTime, now_ms: u64) -> Option<usize> {
    let mut best: Option<(usize, u64)> = None;
    let mut ties = false;
    for (position, slot) in slots.iter().enumerate().filter(|(_, slot)| slot.usable) {
        let score = score(slot, time, now_ms);
        match best {
            None => best = Some((position, score)),
            Some((other, least)) => {
                let (own, others) = (weighed(score, &slots[other]), weighed(least, slot));
                if own < others {
                    best = Some((position, score));
                    ties = false;
                } else if own == others {
                    ties = true;
                }
            }
        }
    }
    let (position, least) = best?;
    if !ties {
        return Some(position);
    }
    let weight = slots[position].weight as u128;
    round_robin::pick_among(slots, |slot| {
        u128::from(score(slot, time, now_ms)) * weight == u128::from(least) * slot.weight as u128
    })
}

/// Whether `a` is faster for its weight than `b`.
pub fn is_less(a: &Slot, b: &Slot, time: LeastTime, now_ms: u64) -> bool {
    weighed(score(a, time, now_ms), b) < weighed(score(b, time, now_ms), a)
}

/// A score to compare with another's: times the weight of the other one.
fn weighed(score: u64, other: &Slot) -> u128 {
    u128::from(score) * other.weight as u128
}

fn score(slot: &Slot, time: LeastTime, now_ms: u64) -> u64 {
    let state = slot.peer.state();
    let measured = if time.whole { state.response() } else { state.header() };
    let mut ms = measured.mean_ms().unwrap_or(0);
    if slot.in_flight == 0 {
        let idle_ms = now_ms.saturating_sub(state.asked_ms());
        let halvings = idle_ms / slot.peer.plan.fail_timeout_ms.max(1);
        ms = ms.checked_shr(halvings.min(64) as u32).unwrap_or(0);
    }
    if time.inflight {
        ms = ms.max(state.mean_age_ms(now_ms));
    }
    let ms = if ms >= MAX_MS { MAX_MS } else { (ms / STEP_MS + 1) * STEP_MS };
    ms * (1 + u64::from(slot.in_flight))
}
