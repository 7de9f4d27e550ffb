//! Fewest connections for its weight; among equals by turns.

use super::{Slot, round_robin};

/// See the module's documentation.
pub fn pick(slots: &mut [Slot]) -> Option<usize> {
    let mut best: Option<usize> = None;
    let mut ties = false;
    for (position, slot) in slots.iter().enumerate().filter(|(_, slot)| slot.usable) {
        match best {
            Some(best) if is_less(&slots[best], slot) => continue,
            Some(other) if !is_less(slot, &slots[other]) => {
                ties = true;
                continue;
            }
            _ => {}
        }
        best = Some(position);
        ties = false;
    }
    let position = best?;
    if !ties {
        return Some(position);
    }
    let (in_flight, weight) = (slots[position].in_flight, slots[position].weight);
    let load = |in_flight: u32, weight: i64| i64::from(in_flight) * weight;
    round_robin::pick_among(slots, |slot| load(slot.in_flight, weight) == load(in_flight, slot.weight))
}

/// Whether `a` has fewer connections for its weight than `b`.
pub fn is_less(a: &Slot, b: &Slot) -> bool {
    i64::from(a.in_flight) * b.weight < i64::from(b.in_flight) * a.weight
}
