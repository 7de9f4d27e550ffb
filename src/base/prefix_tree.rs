//! A compressed prefix tree over byte strings: built once, then only looked at.
//!
//! One descent finds a key and all keys that are its prefixes; its cost depends on the length of what is looked up,
//! not on how many keys there are.

use std::ops::Range;

/// Longest key in bytes; labels are addressed by 32-bit offsets, and no configured name comes near.
pub const MAX_KEY_LEN: usize = u16::MAX as usize;

/// An immutable map from byte strings to values, for lookups by prefix.
#[derive(Clone, Debug)]
pub struct PrefixTree<V> {
    /// The root comes first; the children of a node stand side by side, ordered by their first byte.
    nodes: Vec<Node<V>>,
    /// First label byte of each node, so that a child is found by one search over neighbouring bytes.
    first_bytes: Vec<u8>,
    labels: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Node<V> {
    label_start: u32,
    label_len: u32,
    first_child: u32,
    child_count: u32,
    value: Option<V>,
}

/// Why a tree was not built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildError<V> {
    /// Two entries have this key; the second one's value is given back.
    Duplicate(V),
    /// A key is longer than [`MAX_KEY_LEN`]; its value is given back.
    TooLong(V),
}

/// Where a descent ended, see [`PrefixTree::descend`].
#[derive(Debug)]
pub struct Position<'t, V> {
    tree: &'t PrefixTree<V>,
    node: u32,
    /// How many bytes of the node's label the key has used.
    used: u32,
    /// False if the key left the tree before its end.
    is_inside: bool,
}

impl<V> Default for PrefixTree<V> {
    fn default() -> Self {
        let root = Node { label_start: 0, label_len: 0, first_child: 0, child_count: 0, value: None };
        PrefixTree { nodes: vec![root], first_bytes: vec![0], labels: Vec::new() }
    }
}

impl<V> PrefixTree<V> {
    /// A tree of `entries`, in any order. Of equal keys the later one in `entries` is the duplicate.
    pub fn build<K: AsRef<[u8]>>(entries: Vec<(K, V)>) -> Result<PrefixTree<V>, BuildError<V>> {
        let mut keys: Vec<(K, Option<V>)> =
            entries.into_iter().map(|(key, value)| (key, Some(value))).collect();
        keys.sort_by(|left, right| left.0.as_ref().cmp(right.0.as_ref()));
        for at in 0..keys.len() {
            let key = keys[at].0.as_ref();
            let is_duplicate = at > 0 && keys[at - 1].0.as_ref() == key;
            let is_too_long = key.len() > MAX_KEY_LEN;
            if (is_duplicate || is_too_long)
                && let Some(value) = keys[at].1.take()
            {
                let error = if is_duplicate { BuildError::Duplicate } else { BuildError::TooLong };
                return Err(error(value));
            }
        }
        let mut tree = PrefixTree::default();
        // Breadth first: a node's children are numbered side by side, and long chains of prefixes need no stack.
        let mut pending: Vec<(u32, Range<usize>, usize)> = vec![(0, 0..keys.len(), 0)];
        let mut at = 0;
        while at < pending.len() {
            let (node, range, depth) = pending[at].clone();
            at += 1;
            tree.add_node(node, range, depth, &mut keys, &mut pending);
        }
        Ok(tree)
    }

    /// Fills in `node`, whose label ends at `depth` of the sorted keys in `range`, and appends its children.
    fn add_node<K: AsRef<[u8]>>(
        &mut self,
        node: u32,
        mut range: Range<usize>,
        depth: usize,
        keys: &mut [(K, Option<V>)],
        pending: &mut Vec<(u32, Range<usize>, usize)>,
    ) {
        if !range.is_empty() && keys[range.start].0.as_ref().len() == depth {
            self.nodes[node as usize].value = keys[range.start].1.take();
            range.start += 1;
        }
        self.nodes[node as usize].first_child = self.nodes.len() as u32;
        while !range.is_empty() {
            let first = keys[range.start].0.as_ref();
            let byte = first[depth];
            let group = keys[range.clone()].partition_point(|(key, _)| key.as_ref()[depth] <= byte);
            let group = range.start..range.start + group;
            let last = keys[group.end - 1].0.as_ref();
            let shared = first.iter().zip(last).take_while(|(left, right)| left == right).count();
            let child = Node {
                label_start: self.labels.len() as u32,
                label_len: (shared - depth) as u32,
                first_child: 0,
                child_count: 0,
                value: None,
            };
            self.labels.extend_from_slice(&first[depth..shared]);
            pending.push((self.nodes.len() as u32, group.clone(), shared));
            self.nodes.push(child);
            self.first_bytes.push(byte);
            self.nodes[node as usize].child_count += 1;
            range.start = group.end;
        }
    }

    /// True if the tree has no key.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.nodes.len() == 1 && self.nodes[0].value.is_none()
    }

    /// Follows `key` down the tree. `seen` is called with length and value of every key on the way that is a prefix
    /// of `key` (or is `key` itself), shortest first.
    pub fn descend<'t>(&'t self, key: &[u8], mut seen: impl FnMut(usize, &'t V)) -> Position<'t, V> {
        let mut node = 0u32;
        let mut at = 0;
        loop {
            let here = &self.nodes[node as usize];
            if let Some(value) = &here.value {
                seen(at, value);
            }
            let Some(&byte) = key.get(at) else {
                return Position { tree: self, node, used: here.label_len, is_inside: true };
            };
            let Some(child) = self.child(here, byte) else {
                return Position { tree: self, node, used: here.label_len, is_inside: false };
            };
            let label = self.label(child);
            let rest = &key[at..];
            if !rest.starts_with(label) {
                let is_inside = label.starts_with(rest);
                return Position { tree: self, node: child, used: rest.len() as u32, is_inside };
            }
            node = child;
            at += label.len();
        }
    }

    /// The value of exactly this key.
    pub fn get(&self, key: &[u8]) -> Option<&V> {
        self.descend(key, |_, _| {}).value()
    }

    /// Length and value of the longest key that is a prefix of `key`.
    pub fn longest_prefix(&self, key: &[u8]) -> Option<(usize, &V)> {
        let mut longest = None;
        self.descend(key, |len, value| longest = Some((len, value)));
        longest
    }

    fn child(&self, node: &Node<V>, byte: u8) -> Option<u32> {
        let range = node.first_child as usize..(node.first_child + node.child_count) as usize;
        let at = memchr::memchr(byte, &self.first_bytes[range])?;
        Some(node.first_child + at as u32)
    }

    fn label(&self, node: u32) -> &[u8] {
        let node = &self.nodes[node as usize];
        &self.labels[node.label_start as usize..(node.label_start + node.label_len) as usize]
    }
}

impl<'t, V> Position<'t, V> {
    /// The value of the key that was followed, if the tree has it.
    pub fn value(&self) -> Option<&'t V> {
        let node = &self.tree.nodes[self.node as usize];
        if self.is_inside && self.used == node.label_len { node.value.as_ref() } else { None }
    }

    /// The value of the key that was followed with one more byte, without another descent.
    pub fn value_after(&self, byte: u8) -> Option<&'t V> {
        if !self.is_inside {
            return None;
        }
        let node = &self.tree.nodes[self.node as usize];
        if self.used < node.label_len {
            let ends_label = self.used + 1 == node.label_len;
            let continues = self.tree.label(self.node)[self.used as usize] == byte;
            return if ends_label && continues { node.value.as_ref() } else { None };
        }
        let child = &self.tree.nodes[self.tree.child(node, byte)? as usize];
        if child.label_len == 1 { child.value.as_ref() } else { None }
    }
}

/// Law for fuzzing: the tree finds what a search through the list of keys finds.
pub fn law_tree_finds_like_a_list(keys: &[Vec<u8>], probe: &[u8]) {
    let mut distinct: Vec<Vec<u8>> = keys.to_vec();
    distinct.sort();
    distinct.dedup();
    let entries: Vec<_> = keys.iter().enumerate().map(|(at, key)| (key, at)).collect();
    if distinct.len() != keys.len() {
        assert!(matches!(PrefixTree::build(entries), Err(BuildError::Duplicate(_))));
        return;
    }
    let Ok(tree) = PrefixTree::build(entries) else { panic!("distinct keys make a tree") };
    let mut found = Vec::new();
    let end = tree.descend(probe, |len, at| found.push((len, *at)));
    let mut expected: Vec<_> = keys
        .iter()
        .enumerate()
        .filter(|(_, key)| probe.starts_with(key))
        .map(|(at, key)| (key.len(), at))
        .collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(end.value().copied(), keys.iter().position(|key| key == probe));
    assert_eq!(tree.longest_prefix(probe).map(|(len, at)| (len, *at)), expected.last().copied());
    for byte in [b'a', b'b', b'/'] {
        let longer = [probe, &[byte]].concat();
        assert_eq!(end.value_after(byte).copied(), keys.iter().position(|key| *key == longer));
        assert_eq!(tree.get(&longer).copied(), keys.iter().position(|key| *key == longer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_tree_finds_nothing() {
        let tree = PrefixTree::<u8>::default();
        assert!(tree.is_empty());
        assert_eq!(tree.longest_prefix(b"a"), None);
        assert_eq!(tree.descend(b"", |_, _| {}).value_after(b'a'), None);
        let tree = PrefixTree::build(vec![("", 1)]).unwrap();
        assert!(!tree.is_empty());
        assert_eq!(tree.longest_prefix(b"a"), Some((0, &1)));
    }

    #[test]
    fn the_later_of_two_equal_keys_is_the_duplicate() {
        let built = PrefixTree::build(vec![("a", 1), ("b", 2), ("a", 3)]);
        assert_eq!(built.err(), Some(BuildError::Duplicate(3)));
    }

    #[test]
    fn a_chain_of_the_longest_keys_needs_no_stack() {
        let key = vec![b'a'; MAX_KEY_LEN + 1];
        let entries: Vec<_> = (0..=MAX_KEY_LEN).step_by(64).map(|len| (&key[..len], len)).collect();
        let tree = PrefixTree::build(entries).unwrap();
        assert_eq!(tree.longest_prefix(&key[..1000]), Some((960, &960)));
        assert_eq!(PrefixTree::build(vec![(&key[..], 0)]).err(), Some(BuildError::TooLong(0)));
    }

    #[test]
    fn ten_thousand_keys_are_all_found() {
        let keys: Vec<String> = (0..10_000).map(|at| format!("/site{at}/page")).collect();
        let tree = PrefixTree::build(keys.iter().enumerate().map(|(at, key)| (key, at)).collect()).unwrap();
        for (at, key) in keys.iter().enumerate() {
            assert_eq!(tree.get(key.as_bytes()), Some(&at));
        }
    }

    proptest! {
        #[test]
        fn finds_like_a_list(
            keys in proptest::collection::vec("[ab/]{0,5}", 0..12),
            probe in "[ab/c]{0,6}",
        ) {
            let keys: Vec<Vec<u8>> = keys.into_iter().map(String::into_bytes).collect();
            law_tree_finds_like_a_list(&keys, probe.as_bytes());
        }

        #[test]
        fn finds_like_a_list_of_distinct_keys(
            keys in proptest::collection::btree_set("[ab/]{0,5}", 0..40),
            probe in "[ab/c]{0,6}",
        ) {
            let keys: Vec<Vec<u8>> = keys.into_iter().map(String::into_bytes).collect();
            law_tree_finds_like_a_list(&keys, probe.as_bytes());
        }
    }
}
