//! Extensible priorities (RFC 9218): what a client asks for, and whose turn it is.

/// What a client asks for a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priority {
    /// 0, the most urgent, to 7.
    pub urgency: u8,
    /// Whether pieces of it are of use: it shares its turn with others.
    pub incremental: bool,
}

impl Default for Priority {
    fn default() -> Self {
        Priority { urgency: 3, incremental: false }
    }
}

impl Priority {
    /// Reads a Priority field or the value of a PRIORITY_UPDATE: a dictionary of RFC 8941, of which `u` and `i` are
    /// looked at. What is out of bounds or of another type is ignored (RFC 9218 section 4), and so is what can't be read;
    /// of members that come twice the last one counts.
    pub fn parse(value: &[u8]) -> Priority {
        let mut priority = Priority::default();
        for member in value.split(|&byte| byte == b',') {
            let member = member.trim_ascii();
            // Parameters of a member have no meaning here.
            let end = member.iter().position(|&byte| byte == b';').unwrap_or(member.len());
            match member[..end].trim_ascii_end() {
                [b'u', b'=', digit @ b'0'..=b'7'] => priority.urgency = digit - b'0',
                b"i" | b"i=?1" => priority.incremental = true,
                b"i=?0" => priority.incremental = false,
                _ => {}
            }
        }
        priority
    }

    /// Which queue it is in: two for every urgency.
    fn class(self) -> usize {
        usize::from(self.urgency.min(7)) * 2 + usize::from(self.incremental)
    }
}

const CLASSES: usize = 16;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Queue {
    head: u32,
    tail: u32,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    previous: u32,
    next: u32,
    id: u32,
    /// `CLASSES` where it is in no queue.
    class: u8,
}

const UNLINKED: Link = Link { previous: NONE, next: NONE, id: 0, class: CLASSES as u8 };

/// Streams that have something to send, in the order in which they get their turns: the most urgent first; of one urgency
/// first come first served by stream identifier, incremental ones in turn, and where there are both kinds one of each.
/// Streams are named by their slot; a turn costs no search.
#[derive(Debug)]
pub struct Schedule {
    queues: [Queue; CLASSES],
    /// By slot.
    links: Vec<Link>,
    /// A bit for every queue that is not empty.
    occupied: u16,
    /// The next turn of an urgency that has both kinds is an incremental one's.
    incremental_next: bool,
}

impl Default for Schedule {
    fn default() -> Self {
        Schedule {
            queues: [Queue { head: NONE, tail: NONE }; CLASSES],
            links: Vec::new(),
            occupied: 0,
            incremental_next: false,
        }
    }
}

impl Schedule {
    /// Whether nobody waits for a turn.
    pub fn is_empty(&self) -> bool {
        self.occupied == 0
    }

    /// Whether this slot waits for a turn.
    pub fn contains(&self, slot: u32) -> bool {
        self.links.get(slot as usize).is_some_and(|link| usize::from(link.class) < CLASSES)
    }

    /// Adds a stream; one that is there already moves to where its priority is now.
    pub fn insert(&mut self, slot: u32, id: u32, priority: Priority) {
        self.remove(slot);
        if self.links.len() <= slot as usize {
            self.links.resize(slot as usize + 1, UNLINKED);
        }
        let class = priority.class();
        let mut after = self.queues[class].tail;
        if !priority.incremental {
            // Mostly none: streams come in the order of their identifiers.
            while after != NONE && self.links[after as usize].id > id {
                after = self.links[after as usize].previous;
            }
        }
        let next = if after == NONE { self.queues[class].head } else { self.links[after as usize].next };
        self.links[slot as usize] = Link { previous: after, next, id, class: class as u8 };
        match after {
            NONE => self.queues[class].head = slot,
            after => self.links[after as usize].next = slot,
        }
        match next {
            NONE => self.queues[class].tail = slot,
            next => self.links[next as usize].previous = slot,
        }
        self.occupied |= 1 << class;
    }

    /// Takes a stream out; nothing happens if it is not in.
    pub fn remove(&mut self, slot: u32) {
        if !self.contains(slot) {
            return;
        }
        let link = std::mem::replace(&mut self.links[slot as usize], UNLINKED);
        let queue = &mut self.queues[usize::from(link.class)];
        match link.previous {
            NONE => queue.head = link.next,
            previous => self.links[previous as usize].next = link.next,
        }
        match link.next {
            NONE => queue.tail = link.previous,
            next => self.links[next as usize].previous = link.previous,
        }
        if queue.head == NONE {
            self.occupied &= !(1 << link.class);
        }
    }

    /// Whose turn it is. It stays in.
    pub fn first(&self) -> Option<u32> {
        let urgency = self.occupied.trailing_zeros() as usize / 2;
        if self.occupied == 0 {
            return None;
        }
        let has = |class: usize| self.occupied >> class & 1 == 1;
        let (sequential, incremental) = (urgency * 2, urgency * 2 + 1);
        let takes_incremental = has(incremental) && (self.incremental_next || !has(sequential));
        Some(self.queues[if takes_incremental { incremental } else { sequential }].head)
    }

    /// A stream had its turn and still has something to send.
    pub fn had_turn(&mut self, slot: u32, id: u32, priority: Priority) {
        self.incremental_next = !priority.incremental;
        if priority.incremental && self.contains(slot) {
            self.insert(slot, id, priority);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 9218 section 4.
    #[test]
    fn fields_are_read_and_what_is_no_good_is_ignored() {
        let cases: &[(&str, u8, bool)] = &[
            ("", 3, false),
            ("u=0", 0, false),
            ("u=7, i", 7, true),
            ("i,u=5", 5, true),
            ("i=?0", 3, false),
            ("i=?1;x=y , u=2;q=1", 2, true),
            ("u=8", 3, false),
            ("u=-1", 3, false),
            ("u=1.5", 3, false),
            ("u=", 3, false),
            ("i=1", 3, false),
            ("U=1", 3, false),
            ("u=1, u=6", 6, false),
            ("i, i=?0", 3, false),
            ("foo=bar, u=4, baz", 4, false),
            (",,,", 3, false),
        ];
        for &(value, urgency, incremental) in cases {
            assert_eq!(Priority::parse(value.as_bytes()), Priority { urgency, incremental }, "{value}");
        }
    }

    fn priority(urgency: u8, incremental: bool) -> Priority {
        Priority { urgency, incremental }
    }

    #[test]
    fn the_most_urgent_goes_first_then_the_lowest_stream() {
        let mut schedule = Schedule::default();
        schedule.insert(0, 9, priority(3, false));
        schedule.insert(1, 5, priority(3, false));
        schedule.insert(2, 7, priority(3, false));
        schedule.insert(3, 11, priority(0, false));
        let mut order = Vec::new();
        while let Some(slot) = schedule.first() {
            schedule.remove(slot);
            order.push(slot);
        }
        assert_eq!(order, [3, 1, 2, 0]);
    }

    #[test]
    fn incremental_streams_share_and_others_keep_their_turn() {
        let mut schedule = Schedule::default();
        for slot in 0..3 {
            schedule.insert(slot, slot * 2 + 1, priority(2, true));
        }
        let turns = |schedule: &mut Schedule, kinds: &[Priority]| -> Vec<u32> {
            (0..6)
                .map(|_| {
                    let slot = schedule.first().unwrap();
                    schedule.had_turn(slot, slot * 2 + 1, kinds[slot as usize]);
                    slot
                })
                .collect()
        };
        let mut kinds = vec![priority(2, true); 3];
        assert_eq!(turns(&mut schedule, &kinds), [0, 1, 2, 0, 1, 2]);
        kinds.push(priority(2, false));
        schedule.insert(3, 7, priority(2, false));
        assert_eq!(turns(&mut schedule, &kinds), [3, 0, 3, 1, 3, 2]);
        schedule.insert(3, 7, priority(1, false));
        kinds[3] = priority(1, false);
        assert_eq!(turns(&mut schedule, &kinds), [3; 6]);
    }

    proptest! {
        /// It behaves as a list that is searched for the best each time.
        #[test]
        fn it_is_a_sorted_list(operations: Vec<(u8, u8, bool)>) {
            let mut schedule = Schedule::default();
            let mut list: Vec<(u32, u8)> = Vec::new();
            for (slot, urgency, inserts) in operations {
                let (slot, urgency) = (u32::from(slot % 16), urgency % 8);
                list.retain(|(other, _)| *other != slot);
                if inserts {
                    schedule.insert(slot, 100 - slot, priority(urgency, false));
                    list.push((slot, urgency));
                } else {
                    schedule.remove(slot);
                }
                let best = list.iter().min_by_key(|(slot, urgency)| (*urgency, 100 - slot));
                prop_assert_eq!(schedule.first(), best.map(|(slot, _)| *slot));
                prop_assert_eq!(schedule.is_empty(), list.is_empty());
                for slot in 0..16 {
                    prop_assert_eq!(schedule.contains(slot), list.iter().any(|(other, _)| *other == slot));
                }
            }
        }
    }
}
