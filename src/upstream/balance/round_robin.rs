//! By turns: smooth weighted round robin, nginx's order. Each turn every usable peer gains its weight as credit; the one
//! with the most is chosen and pays what all gained. Weights 5, 1, 1 give `a a b a c a a`, not `a a a a a b c`.

use super::{Slot, WEIGHT_UNIT};

/// See the module's documentation.
pub fn pick(slots: &mut [Slot]) -> Option<usize> {
    pick_among(slots, |_| true)
}

/// The same among the usable ones that `belongs` accepts.
pub fn pick_among(slots: &mut [Slot], belongs: impl Fn(&Slot) -> bool) -> Option<usize> {
    let mut best: Option<usize> = None;
    let mut total = 0;
    for position in 0..slots.len() {
        let slot = &mut slots[position];
        if !slot.usable || !belongs(slot) {
            continue;
        }
        let gain = slot.effective.min(slot.weight);
        slot.current += gain;
        total += gain;
        let full = slot.full_weight();
        if slot.effective < full {
            slot.effective = (slot.effective + WEIGHT_UNIT).min(full);
        }
        let current = slot.current;
        if best.is_none_or(|best| current > slots[best].current) {
            best = Some(position);
        }
    }
    slots[best?].current -= total;
    best
}

/// A peer failed: it loses a part of its weight, and gains it back turn by turn.
pub fn punish(slot: &mut Slot) {
    if slot.peer.plan.max_fails > 0 {
        let part = slot.full_weight() / i64::from(slot.peer.plan.max_fails);
        slot.effective = (slot.effective - part).max(0);
    }
}
