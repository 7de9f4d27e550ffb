//! The dynamic table (RFC 7541 sections 2.3.2 and 4), of either side.

use std::collections::VecDeque;

use super::ENTRY_OVERHEAD;

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Where the name begins within `text`; the value follows it.
    start: u32,
    name: u32,
    value: u32,
    /// What the encoder finds it by.
    hash: u32,
}

impl Entry {
    fn size(&self) -> usize {
        self.name as usize + self.value as usize + ENTRY_OVERHEAD
    }
}

/// Entries in the order of their age, with a bound in bytes. Holds at most twice that bound of text: new text is appended
/// behind the old, and what is left moves to the front when there is no room behind it.
#[derive(Debug)]
pub struct DynamicTable {
    /// Oldest first.
    entries: VecDeque<Entry>,
    text: Vec<u8>,
    size: usize,
    max_size: usize,
    /// Entries that were ever added; the newest has this number.
    newest: u32,
}

impl DynamicTable {
    /// An empty table of at most `max_size` bytes, counted as RFC 7541 section 4.1 does. It holds no memory yet.
    pub fn new(max_size: usize) -> DynamicTable {
        DynamicTable { entries: VecDeque::new(), text: Vec::new(), size: 0, max_size, newest: 0 }
    }

    /// The bound, in bytes.
    pub fn max_size(&self) -> usize {
        self.max_size
    }

    /// Bytes in use.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Entries in use.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of memory held.
    pub fn capacity(&self) -> usize {
        self.text.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    /// Sets the bound; the oldest entries go until the rest fits.
    pub fn set_max_size(&mut self, max_size: usize) {
        self.max_size = max_size;
        self.evict(max_size);
    }

    fn evict(&mut self, limit: usize) {
        while self.size > limit {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.size -= oldest.size();
        }
        if self.entries.is_empty() {
            self.text.clear();
        }
    }

    /// Adds an entry, after the oldest ones made room for it. One that is larger than the whole table empties it and is
    /// not added (RFC 7541 section 4.4).
    pub fn insert(&mut self, name: &[u8], value: &[u8], hash: u32) {
        let size = name.len() + value.len() + ENTRY_OVERHEAD;
        if size > self.max_size {
            self.evict(0);
            return;
        }
        self.evict(self.max_size - size);
        if self.text.len() + name.len() + value.len() > 2 * self.max_size {
            self.compact();
        }
        let start = self.text.len() as u32;
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(value);
        self.entries.push_back(Entry { start, name: name.len() as u32, value: value.len() as u32, hash });
        self.size += size;
        self.newest = self.newest.wrapping_add(1);
    }

    /// Moves the text in use to the front.
    fn compact(&mut self) {
        let unused = self.entries.front().map_or(self.text.len(), |oldest| oldest.start as usize);
        self.text.drain(..unused);
        for entry in &mut self.entries {
            entry.start -= unused as u32;
        }
    }

    /// Name and value of the entry that is `age` entries older than the newest.
    pub fn get(&self, age: usize) -> Option<(&[u8], &[u8])> {
        let place = self.entries.len().checked_sub(age + 1)?;
        Some(self.text_of(&self.entries[place]))
    }

    fn text_of(&self, entry: &Entry) -> (&[u8], &[u8]) {
        let name_end = entry.start as usize + entry.name as usize;
        let value_end = name_end + entry.value as usize;
        (&self.text[entry.start as usize..name_end], &self.text[name_end..value_end])
    }

    /// The number of the entry with this age, which it keeps for as long as it is there.
    pub fn number_of(&self, age: usize) -> u32 {
        self.newest.wrapping_sub(age as u32)
    }

    /// Age of the entry with this number, if it is still there and is this very field.
    pub fn age_of(&self, number: u32, name: &[u8], value: &[u8]) -> Option<usize> {
        let age = self.newest.wrapping_sub(number) as usize;
        (self.get(age)? == (name, value)).then_some(age)
    }

    /// Age of the newest entry that is this very field and was inserted with this hash.
    pub fn find(&self, name: &[u8], value: &[u8], hash: u32) -> Option<usize> {
        let is_it = |entry: &Entry| entry.hash == hash && self.text_of(entry) == (name, value);
        self.entries.iter().rev().position(is_it)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_oldest_entries_make_room() {
        let mut table = DynamicTable::new(3 * 34);
        for text in [b"a1", b"b2", b"c3", b"d4"] {
            table.insert(&text[..1], &text[1..], u32::from(text[0]));
        }
        assert_eq!((table.len(), table.size()), (3, 102));
        assert_eq!(table.get(0), Some((&b"d"[..], &b"4"[..])));
        assert_eq!(table.get(2), Some((&b"b"[..], &b"2"[..])));
        assert_eq!(table.get(3), None);
        assert_eq!(table.find(b"c", b"3", u32::from(b'c')), Some(1));
        assert_eq!(table.find(b"a", b"1", u32::from(b'a')), None);
        let number = table.number_of(1);
        assert_eq!(table.age_of(number, b"c", b"3"), Some(1));
        assert_eq!(table.age_of(number, b"c", b"4"), None);
        assert_eq!(table.age_of(number.wrapping_sub(2), b"a", b"1"), None, "it is gone");
        assert_eq!(table.age_of(number.wrapping_add(2), b"e", b"5"), None, "it is not there yet");
        table.set_max_size(68);
        assert_eq!((table.len(), table.get(1)), (2, Some((&b"c"[..], &b"3"[..]))));
        table.insert(&[b'x'; 40], b"", 0);
        assert_eq!((table.len(), table.size()), (0, 0), "an entry larger than the table empties it");
    }

    proptest! {
        /// A list that is cut to its bound behaves the same, and the memory is bounded.
        #[test]
        fn it_is_a_bounded_list(operations: Vec<(u8, u8, u16)>) {
            let mut table = DynamicTable::new(200);
            let mut list: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
            let size = |list: &[(Vec<u8>, Vec<u8>)]| -> usize {
                list.iter().map(|(name, value)| name.len() + value.len() + 32).sum()
            };
            for (name, value, max) in operations {
                if max < 300 {
                    table.set_max_size(usize::from(max));
                } else {
                    let (name, value) = (vec![name; usize::from(name % 9)], vec![value; usize::from(value % 99)]);
                    table.insert(&name, &value, 1);
                    list.insert(0, (name, value));
                }
                while size(&list) > table.max_size() {
                    list.pop();
                }
                prop_assert_eq!(table.size(), size(&list));
                for (age, (name, value)) in list.iter().enumerate() {
                    prop_assert_eq!(table.get(age), Some((&name[..], &value[..])));
                }
                prop_assert_eq!(table.len(), list.len());
                prop_assert!(table.text.len() <= 2 * 300);
            }
        }
    }
}
