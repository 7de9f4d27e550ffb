//! Orders of use over slab keys: doubly linked lists whose links lie in one vector, so that nothing is allocated per
//! move. One vector can serve several lists as long as a key stands in one of them at a time.

const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Link {
    newer: u32,
    older: u32,
}

/// The links of all keys.
#[derive(Debug, Default)]
pub struct Links(Vec<Link>);

impl Links {
    fn at(&mut self, key: u32) -> &mut Link {
        &mut self.0[key as usize]
    }
}

/// One list, newest first.
#[derive(Debug)]
pub struct Order {
    newest: u32,
    oldest: u32,
    len: u32,
}

impl Default for Order {
    fn default() -> Order {
        Order { newest: NONE, oldest: NONE, len: 0 }
    }
}

impl Order {
    /// How many keys there are.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// The key that was moved longest ago.
    pub fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    /// Adds a key that stands in no list of these links.
    pub fn add(&mut self, links: &mut Links, key: u32) {
        if links.0.len() <= key as usize {
            links.0.resize(key as usize + 1, Link { newer: NONE, older: NONE });
        }
        *links.at(key) = Link { newer: NONE, older: self.newest };
        match self.newest {
            NONE => self.oldest = key,
            newest => links.at(newest).newer = key,
        }
        self.newest = key;
        self.len += 1;
    }

    /// Takes out a key that stands in this list.
    pub fn remove(&mut self, links: &mut Links, key: u32) {
        let Link { newer, older } = *links.at(key);
        match newer {
            NONE => self.newest = older,
            newer => links.at(newer).older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => links.at(older).newer = newer,
        }
        self.len -= 1;
    }

    /// Makes a key of this list its newest.
    pub fn touch(&mut self, links: &mut Links, key: u32) {
        if self.newest != key {
            self.remove(links, key);
            self.add(links, key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_order_is_a_queue_with_moves(operations in proptest::collection::vec((0u8..3, 0u32..8), 0..200)) {
            let (mut links, mut order) = (Links::default(), Order::default());
            let mut model: Vec<u32> = Vec::new();
            for (operation, key) in operations {
                let present = model.contains(&key);
                match operation {
                    0 if !present => {
                        order.add(&mut links, key);
                        model.push(key);
                    }
                    1 if present => {
                        order.remove(&mut links, key);
                        model.retain(|&other| other != key);
                    }
                    2 if present => {
                        order.touch(&mut links, key);
                        model.retain(|&other| other != key);
                        model.push(key);
                    }
                    _ => {}
                }
                prop_assert_eq!(order.oldest(), model.first().copied());
                prop_assert_eq!(order.len() as usize, model.len());
            }
        }
    }
}
