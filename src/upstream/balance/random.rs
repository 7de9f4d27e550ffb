//! By chance, as often as weights say; or the better one of two such.

use fastrand::Rng;

use super::Slot;

/// See the module's documentation.
pub fn pick(slots: &[Slot], random: &mut Rng) -> Option<usize> {
    draw(slots, random, None)
}

/// Two different ones by chance, of these the one that `is_less` prefers; the first if neither is.
pub fn pick_of_two(
    slots: &[Slot],
    random: &mut Rng,
    is_less: impl Fn(&Slot, &Slot) -> bool,
) -> Option<usize> {
    let first = draw(slots, random, None)?;
    Some(match draw(slots, random, Some(first)) {
        Some(second) if is_less(&slots[second], &slots[first]) => second,
        _ => first,
    })
}

fn draw(slots: &[Slot], random: &mut Rng, but: Option<usize>) -> Option<usize> {
    let usable = || slots.iter().enumerate().filter(|(position, slot)| slot.usable && Some(*position) != but);
    let total: i64 = usable().map(|(_, slot)| slot.weight).sum();
    if total <= 0 {
        return None;
    }
    let mut left = random.i64(0..total);
    for (position, slot) in usable() {
        left -= slot.weight;
        if left < 0 {
            return Some(position);
        }
    }
    None
}
