//! A hierarchical timer wheel for very many coarse deadlines that seldom fire.
//!
//! A connection enters itself once, at its deadline. When it moves on, it only notes when; when the wheel wakes it
//! too early for what it noted, it enters itself anew. So a request costs no timer operation, and there is no
//! cancelling: a key whose connection has gone is fired once and dropped by the caller (generation mismatch).
//!
//! Times are milliseconds of the monotonic clock. A deadline is rounded up to a tick, so nothing fires early, and
//! nothing fires later than one tick after its deadline, provided that `advance` is called then.

/// Length of a tick: how late a deadline may fire.
pub const TICK_MS: u64 = 16;

/// A deadline further away than this (about 397 days) is entered at this distance; the caller finds on waking that it
/// is not due and enters it anew.
pub const MAX_DISTANCE_MS: u64 = (1 << 31) * TICK_MS;

/// Each level has 64 slots, each slot of a level is as long as the whole level below it.
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// 2^42 ticks: over two thousand years of uptime before the top level would wrap.
const LEVELS: usize = 7;
const NONE: u32 = u32::MAX;

/// One armed key: 16 bytes. Entries of a slot are chained by index, so memory follows the number of armed keys
/// alone, however they are spread over the slots.
#[derive(Clone, Copy, Debug)]
struct Entry {
    key: u64,
    /// Low half of the tick at which it fires. It is less than 2^31 ahead, hence unambiguous.
    tick: u32,
    next: u32,
}

const _: () = assert!(size_of::<Entry>() == 16);

#[derive(Clone, Debug)]
struct WheelLevel {
    /// A bit for each slot that is not empty.
    occupied: u64,
    heads: [u32; SLOTS],
}

/// The timer wheel. Keys are opaque: usually slab index and generation.
#[derive(Clone, Debug)]
pub struct TimerWheel {
    /// All entries due up to and including this tick have fired.
    current: u64,
    levels: [WheelLevel; LEVELS],
    entries: Vec<Entry>,
    free: u32,
    armed: usize,
}

impl TimerWheel {
    /// An empty wheel that starts at `now_ms`.
    pub fn new(now_ms: u64) -> TimerWheel {
        const EMPTY: WheelLevel = WheelLevel { occupied: 0, heads: [NONE; SLOTS] };
        TimerWheel {
            current: now_ms / TICK_MS,
            levels: [EMPTY; LEVELS],
            entries: Vec::new(),
            free: NONE,
            armed: 0,
        }
    }

    /// How many keys are armed. The caller bounds it (one per connection); the wheel itself holds up to 2^32 - 1.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.armed
    }

    /// True if no key is armed.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.armed == 0
    }

    /// Arms `key` to fire at `deadline_ms`; one that has passed fires at the next tick. The same key may be armed
    /// more than once and then fires that often. Constant time; allocates only past the highest number so far.
    pub fn insert(&mut self, deadline_ms: u64, key: u64) {
        let tick = deadline_ms.div_ceil(TICK_MS);
        let tick = tick.clamp(self.current + 1, self.current + MAX_DISTANCE_MS / TICK_MS - 1);
        let index = match self.free {
            NONE => {
                debug_assert!(self.entries.len() < NONE as usize);
                self.entries.push(Entry { key, tick: 0, next: NONE });
                (self.entries.len() - 1) as u32
            }
            index => {
                self.free = self.entries[index as usize].next;
                self.entries[index as usize].key = key;
                index
            }
        };
        self.entries[index as usize].tick = tick as u32;
        self.armed += 1;
        self.link(index, tick);
    }

    /// Puts entry `index` into the slot for `tick`, which lies ahead: the level is that of the highest group of bits
    /// in which it differs from the current tick, so that a slot is reached just when its first tick is.
    fn link(&mut self, index: u32, tick: u64) {
        debug_assert!(tick > self.current);
        let highest_bit = 63 - (tick ^ self.current).leading_zeros();
        let level = (highest_bit / SLOT_BITS) as usize;
        let slot = slot_of(tick, level);
        let level = &mut self.levels[level];
        self.entries[index as usize].next = level.heads[slot];
        level.heads[slot] = index;
        level.occupied |= 1 << slot;
    }

    /// Takes the clock to `now_ms` and appends every key that is due to `fired`, in no promised order. Each armed key
    /// moves down a level at most six times in its life, however far the clock jumps. A clock that goes back is
    /// ignored.
    pub fn advance(&mut self, now_ms: u64, fired: &mut Vec<u64>) {
        let target = now_ms / TICK_MS;
        while let Some((level, slot, tick)) = self.next_slot() {
            if tick > target {
                break;
            }
            self.current = tick;
            self.empty_slot(level, slot, fired);
        }
        self.current = self.current.max(target);
    }

    /// How many milliseconds after `now_ms` the wheel wants to be advanced next; 0 if that is overdue, `None` if
    /// nothing is armed. It is never later than the earliest deadline's tick, but may be earlier: then `advance`
    /// fires nothing and only sorts far deadlines nearer.
    pub fn next_deadline(&self, now_ms: u64) -> Option<u64> {
        let (_, _, tick) = self.next_slot()?;
        Some((tick * TICK_MS).saturating_sub(now_ms))
    }

    /// The first slot that is not empty, with its first tick. Slots of a lower level all lie before the next slot of
    /// a higher one, so the lowest level that holds anything has it.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        let level = self.levels.iter().position(|level| level.occupied != 0)?;
        let slot = self.levels[level].occupied.trailing_zeros() as usize;
        debug_assert!(slot > slot_of(self.current, level));
        let shift = SLOT_BITS * level as u32;
        let above = self.current >> (shift + SLOT_BITS) << (shift + SLOT_BITS);
        Some((level, slot, above | (slot as u64) << shift))
    }

    /// Fires what is due in a slot whose first tick is the current one, and moves the rest to lower levels.
    fn empty_slot(&mut self, level: usize, slot: usize, fired: &mut Vec<u64>) {
        let mut next = std::mem::replace(&mut self.levels[level].heads[slot], NONE);
        self.levels[level].occupied &= !(1 << slot);
        while next != NONE {
            let index = next;
            let entry = self.entries[index as usize];
            next = entry.next;
            let ahead = entry.tick.wrapping_sub(self.current as u32);
            if ahead == 0 {
                fired.push(entry.key);
                self.entries[index as usize].next = self.free;
                self.free = index;
                self.armed -= 1;
            } else {
                self.link(index, self.current + u64::from(ahead));
            }
        }
        if self.armed == 0 {
            // A burst is over: give most of its memory back rather than keep it for ever.
            self.free = NONE;
            self.entries.clear();
            self.entries.shrink_to(KEPT_ENTRIES);
        }
    }
}

/// Entries for which an empty wheel keeps memory (64 KiB).
const KEPT_ENTRIES: usize = 4096;

fn slot_of(tick: u64, level: usize) -> usize {
    (tick >> (SLOT_BITS * level as u32)) as usize & (SLOTS - 1)
}

/// The law: against a plain list, no key fires early, none more than a tick late, none is lost, and the next
/// deadline is never past the earliest one. Each operation is a distance in milliseconds and whether to insert at it
/// or to advance by it.
#[cfg(test)]
fn law_wheel_fires_like_a_list(start_ms: u64, operations: &[(u64, bool)]) {
    let mut now = start_ms;
    let mut wheel = TimerWheel::new(now);
    let mut model: Vec<(u64, u64)> = Vec::new();
    let mut fired = Vec::new();
    for (key, &(distance, inserts)) in operations.iter().enumerate() {
        let distance = distance % (MAX_DISTANCE_MS - 2 * TICK_MS);
        if inserts {
            wheel.insert(now + distance, key as u64);
            model.push((now + distance, key as u64));
        } else {
            now += distance;
            fired.clear();
            wheel.advance(now, &mut fired);
            for key in &fired {
                let at = model.iter().position(|entry| entry.1 == *key).expect("fires what is armed");
                let (deadline, _) = model.swap_remove(at);
                assert!(deadline <= now, "fired early");
            }
        }
        assert_eq!(wheel.len(), model.len());
        let earliest = model.iter().map(|entry| entry.0).min();
        if !inserts && let Some(earliest) = earliest {
            assert!(earliest + TICK_MS > now, "fired late");
        }
        match (wheel.next_deadline(now), earliest) {
            (None, None) => {}
            (Some(wait), Some(earliest)) => assert!(now + wait <= earliest.max(now) + TICK_MS),
            other => panic!("next deadline and armed keys disagree: {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fired(wheel: &mut TimerWheel, now: u64) -> Vec<u64> {
        let mut keys = Vec::new();
        wheel.advance(now, &mut keys);
        keys.sort_unstable();
        keys
    }

    #[test]
    fn a_key_fires_once_at_its_tick_and_not_before() {
        let mut wheel = TimerWheel::new(1000);
        wheel.insert(1100, 7);
        assert!(fired(&mut wheel, 1099).is_empty());
        assert_eq!(fired(&mut wheel, 1100 + TICK_MS), [7]);
        assert!(fired(&mut wheel, 100_000).is_empty());
        assert!(wheel.is_empty());
    }

    #[test]
    fn a_deadline_that_has_passed_fires_at_the_next_tick() {
        let mut wheel = TimerWheel::new(5000);
        wheel.insert(0, 1);
        assert!(wheel.next_deadline(5000).unwrap() <= TICK_MS);
        assert_eq!(fired(&mut wheel, 5000 + TICK_MS), [1]);
    }

    #[test]
    fn deadlines_of_many_days_are_found_step_by_step() {
        let day = 86_400_000;
        let mut wheel = TimerWheel::new(123);
        wheel.insert(123 + 30 * day, 1);
        wheel.insert(123 + 2 * day, 2);
        let mut now = 123;
        let mut order = Vec::new();
        let mut turns = 0;
        while let Some(wait) = wheel.next_deadline(now) {
            now += wait;
            for key in fired(&mut wheel, now) {
                order.push((key, now));
            }
            turns += 1;
        }
        assert_eq!(order.iter().map(|fired| fired.0).collect::<Vec<_>>(), [2, 1]);
        assert!(order[0].1 - (123 + 2 * day) < TICK_MS && order[1].1 - (123 + 30 * day) < TICK_MS);
        assert!(turns <= 2 * LEVELS, "{turns} wake-ups for two keys");
    }

    #[test]
    fn a_deadline_past_the_bound_fires_at_the_bound() {
        let mut wheel = TimerWheel::new(0);
        wheel.insert(u64::MAX, 1);
        assert!(fired(&mut wheel, MAX_DISTANCE_MS / 2).is_empty());
        assert_eq!(fired(&mut wheel, MAX_DISTANCE_MS), [1]);
    }

    #[test]
    fn a_clock_that_jumps_far_fires_all_and_one_that_goes_back_nothing() {
        let mut wheel = TimerWheel::new(0);
        for key in 0..100_000 {
            wheel.insert(key * 7919 % 100_000_000, key);
        }
        assert_eq!(wheel.len(), 100_000);
        assert!(wheel.entries.capacity() <= 131_072);
        assert_eq!(fired(&mut wheel, 1 << 42), (0..100_000).collect::<Vec<_>>());
        assert!(wheel.entries.capacity() <= KEPT_ENTRIES);
        wheel.insert((1 << 42) + 100, 5);
        assert!(fired(&mut wheel, 0).is_empty());
        assert_eq!(fired(&mut wheel, (1 << 42) + 200), [5]);
    }

    #[test]
    fn re_armed_keys_reuse_their_memory() {
        let mut wheel = TimerWheel::new(0);
        wheel.insert(1 << 30, 0);
        for round in 1..1000u64 {
            wheel.insert(round * 100, round);
            assert_eq!(fired(&mut wheel, round * 100 + TICK_MS), [round]);
        }
        assert_eq!(wheel.entries.len(), 2);
    }

    proptest! {
        #[test]
        fn fires_like_a_list(
            start in 0u64..1 << 41,
            operations in proptest::collection::vec((
                prop_oneof![0u64..100, 0u64..5_000, 0u64..300_000, 0u64..1_000_000_000, any::<u64>()],
                any::<bool>(),
            ), 0..200),
        ) {
            law_wheel_fires_like_a_list(start, &operations);
        }
    }
}
