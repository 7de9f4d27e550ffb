//! A table with a bound in bytes that forgets what was used longest ago.

use hashbrown::HashTable;

/// What one entry takes beside its key, in bytes, all told: its node, its place in the table, its key's allocation.
pub const ENTRY_BYTES: usize = 96;

/// No entry.
const NONE: u32 = u32::MAX;

/// See the module's documentation. Whoever uses it computes the hashes, with a secret where clients choose the keys.
#[derive(Debug)]
pub struct LruTable<V> {
    table: HashTable<u32>,
    nodes: Vec<Node<V>>,
    /// First of the free nodes, which are linked by `older`.
    free: u32,
    newest: u32,
    oldest: u32,
    used: usize,
    limit: usize,
}

#[derive(Debug)]
struct Node<V> {
    hash: u64,
    key: Box<[u8]>,
    /// `None` of a free node.
    value: Option<V>,
    newer: u32,
    older: u32,
}

impl<V> LruTable<V> {
    /// An empty table that holds up to `limit` bytes.
    pub fn new(limit: usize) -> LruTable<V> {
        LruTable {
            table: HashTable::new(),
            nodes: Vec::new(),
            free: NONE,
            newest: NONE,
            oldest: NONE,
            used: 0,
            limit,
        }
    }

    /// How many entries there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Changes the bound; what no longer fits is forgotten.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
        self.shrink_to(limit);
    }

    /// Whether one more entry with such a key fits without another one giving way.
    pub fn has_room(&self, key: &[u8]) -> bool {
        self.used + cost(key) <= self.limit
    }

    /// The value of a key, which is now the one used last.
    pub fn get(&mut self, hash: u64, key: &[u8]) -> Option<&mut V> {
        let index = self.find(hash, key)?;
        self.unlink(index);
        self.link(index);
        self.nodes[index as usize].value.as_mut()
    }

    /// Adds a key that is not there; the oldest entries give way. `None` if it alone is larger than the bound.
    pub fn insert(&mut self, hash: u64, key: &[u8], value: V) -> Option<&mut V> {
        debug_assert!(self.find(hash, key).is_none(), "a key is there once");
        let cost = cost(key);
        if cost > self.limit {
            return None;
        }
        self.shrink_to(self.limit - cost);
        let node = Node { hash, key: key.into(), value: Some(value), newer: NONE, older: NONE };
        let index = if self.free == NONE {
            self.nodes.push(node);
            self.nodes.len() as u32 - 1
        } else {
            let index = self.free;
            self.free = self.nodes[index as usize].older;
            self.nodes[index as usize] = node;
            index
        };
        let nodes = &self.nodes;
        self.table.insert_unique(hash, index, |&index| nodes[index as usize].hash);
        self.used += cost;
        self.link(index);
        self.nodes[index as usize].value.as_mut()
    }

    /// Takes a key out.
    pub fn remove(&mut self, hash: u64, key: &[u8]) -> Option<V> {
        let index = self.find(hash, key)?;
        self.take(index)
    }

    /// The value that was used longest ago.
    #[cfg(test)]
    pub fn oldest(&self) -> Option<&V> {
        self.nodes.get(self.oldest as usize)?.value.as_ref()
    }

    /// Takes the oldest entry out.
    pub fn pop_oldest(&mut self) -> Option<V> {
        if self.oldest == NONE { None } else { self.take(self.oldest) }
    }

    fn shrink_to(&mut self, bytes: usize) {
        while self.used > bytes && self.pop_oldest().is_some() {}
    }

    fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        self.table.find(hash, |&index| *self.nodes[index as usize].key == *key).copied()
    }

    fn take(&mut self, index: u32) -> Option<V> {
        self.unlink(index);
        let node = &mut self.nodes[index as usize];
        let (hash, value) = (node.hash, node.value.take());
        let key = std::mem::take(&mut node.key);
        node.older = self.free;
        self.free = index;
        self.used -= cost(&key);
        if let Ok(entry) = self.table.find_entry(hash, |&other| other == index) {
            entry.remove();
        }
        value
    }

    /// Puts a node before the newest one.
    fn link(&mut self, index: u32) {
        let newest = std::mem::replace(&mut self.newest, index);
        let node = &mut self.nodes[index as usize];
        (node.newer, node.older) = (NONE, newest);
        match self.nodes.get_mut(newest as usize) {
            Some(newest) => newest.newer = index,
            None => self.oldest = index,
        }
    }

    fn unlink(&mut self, index: u32) {
        let node = &self.nodes[index as usize];
        let (newer, older) = (node.newer, node.older);
        match self.nodes.get_mut(newer as usize) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
        match self.nodes.get_mut(older as usize) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
    }
}

fn cost(key: &[u8]) -> usize {
    ENTRY_BYTES + key.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A poor hash, so that keys share it.
    fn hash(key: &[u8]) -> u64 {
        key.first().map_or(0, |byte| u64::from(*byte % 3))
    }

    #[test]
    fn what_was_used_longest_ago_gives_way() {
        let mut table = LruTable::new(2 * ENTRY_BYTES + 2);
        table.insert(hash(b"a"), b"a", 1);
        table.insert(hash(b"b"), b"b", 2);
        assert_eq!(table.get(hash(b"a"), b"a"), Some(&mut 1));
        assert!(!table.has_room(b"c"));
        table.insert(hash(b"c"), b"c", 3);
        assert_eq!(table.get(hash(b"b"), b"b"), None);
        assert_eq!((table.len(), table.oldest()), (2, Some(&1)));
        assert_eq!(table.insert(0, &[0; 4 * ENTRY_BYTES], 4), None);
        assert_eq!(table.len(), 2);
        table.set_limit(ENTRY_BYTES + 1);
        assert_eq!((table.len(), table.pop_oldest(), table.pop_oldest()), (1, Some(3), None));
        assert_eq!(table.len(), 0);
    }

    proptest! {
        #[test]
        fn it_holds_what_a_list_holds(steps in prop::collection::vec((0u8..3, 0u8..12), 0..200)) {
            let limit = 5 * (ENTRY_BYTES + 1);
            let mut table = LruTable::new(limit);
            // Newest last.
            let mut list: Vec<(u8, usize)> = Vec::new();
            for (step, (what, key)) in steps.into_iter().enumerate() {
                let bytes = [key];
                let place = list.iter().position(|(other, _)| *other == key);
                match what {
                    0 => {
                        let expected = place.map(|place| list.remove(place));
                        prop_assert_eq!(table.get(hash(&bytes), &bytes).copied(), expected.map(|entry| entry.1));
                        list.extend(expected);
                    }
                    1 => {
                        let expected = place.map(|place| list.remove(place).1);
                        prop_assert_eq!(table.remove(hash(&bytes), &bytes), expected);
                    }
                    _ if place.is_none() => {
                        table.insert(hash(&bytes), &bytes, step);
                        if list.len() == 5 {
                            list.remove(0);
                        }
                        list.push((key, step));
                    }
                    _ => {}
                }
                prop_assert_eq!(table.len(), list.len());
                prop_assert_eq!(table.oldest().copied(), list.first().map(|entry| entry.1));
            }
        }
    }
}
