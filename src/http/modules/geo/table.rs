//! Networks and ranges while they are read, and the sorted table that they become.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};

use crate::base::cidr::Cidr;

/// From which address on which value holds, sorted; looked up by bisection. Value 0 is that of addresses that nothing
/// names.
#[derive(Debug, Default)]
pub struct Table {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u32)>,
}

impl Table {
    /// The value's number. As in nginx an IPv4-mapped address is looked up as IPv4, and what is no address as
    /// 255.255.255.255.
    pub fn find(&self, address: Option<IpAddr>) -> u32 {
        match address.map(|address| address.to_canonical()) {
            None => find(&self.v4, u32::MAX),
            Some(IpAddr::V4(address)) => find(&self.v4, address.to_bits()),
            Some(IpAddr::V6(address)) => find(&self.v6, address.to_bits()),
        }
    }
}

fn find<A: Ord + Copy>(table: &[(A, u32)], address: A) -> u32 {
    let after = table.partition_point(|(start, _)| *start <= address);
    after.checked_sub(1).map_or(0, |index| table[index].1)
}

/// Networks with the numbers of their values.
#[derive(Debug, Default)]
pub struct Networks {
    /// By first address and length.
    v4: HashMap<(u32, u8), u32>,
    v6: HashMap<(u128, u8), u32>,
}

impl Networks {
    /// Adds a network or gives it another value; returns the former one.
    pub fn insert(&mut self, cidr: Cidr, value: u32) -> Option<u32> {
        match cidr {
            Cidr::All => {
                let former = self.v4.insert((0, 0), value);
                self.v6.insert((0, 0), value).or(former)
            }
            Cidr::V4(block) => self.v4.insert((block.network().to_bits(), block.prefix_len()), value),
            Cidr::V6(block) => self.v6.insert((block.network().to_bits(), block.prefix_len()), value),
            Cidr::Unix => None,
        }
    }

    /// Takes a network out; whether it was there.
    pub fn remove(&mut self, cidr: Cidr) -> bool {
        match cidr {
            Cidr::All => self.v4.remove(&(0, 0)).is_some() | self.v6.remove(&(0, 0)).is_some(),
            Cidr::V4(block) => self.v4.remove(&(block.network().to_bits(), block.prefix_len())).is_some(),
            Cidr::V6(block) => self.v6.remove(&(block.network().to_bits(), block.prefix_len())).is_some(),
            Cidr::Unix => false,
        }
    }

    /// The table of all of them; the smallest network that holds an address decides.
    pub fn freeze(self) -> Table {
        let last = |start: u128, length: u8, bits: u8| match bits - length {
            0 => start,
            128 => u128::MAX,
            free => start | ((1u128 << free) - 1),
        };
        let v4 = self.v4.into_iter();
        let v4 = v4.map(|((start, length), value)| (start.into(), last(start.into(), length, 32), value));
        let v6 = self.v6.into_iter();
        let v6 = v6.map(|((start, length), value)| (start, last(start, length, 128), value));
        Table {
            v4: flatten(v4.collect(), u32::MAX.into()).into_iter().map(|(at, value)| (at as u32, value)).collect(),
            v6: flatten(v6.collect(), u128::MAX),
        }
    }
}

/// Ranges that lie in each other or apart, never across, to the places where the value changes.
fn flatten(mut ranges: Vec<(u128, u128, u32)>, highest: u128) -> Vec<(u128, u32)> {
    // Of those that begin together the widest comes first.
    ranges.sort_by_key(|&(start, end, _)| (start, u128::MAX - end));
    let mut changes: Vec<(u128, u32)> = Vec::new();
    let mut open: Vec<(u128, u32)> = Vec::new();
    let mut change = |at: u128, value: u32| match changes.last_mut() {
        Some(last) if last.0 == at => last.1 = value,
        Some(last) if last.1 == value => {}
        _ => changes.push((at, value)),
    };
    let close = |open: &mut Vec<(u128, u32)>, change: &mut dyn FnMut(u128, u32)| {
        let Some((end, _)) = open.pop() else { return };
        if end < highest {
            change(end + 1, open.last().map_or(0, |&(_, value)| value));
        }
    };
    for (start, end, value) in ranges {
        while open.last().is_some_and(|&(end, _)| end < start) {
            close(&mut open, &mut change);
        }
        change(start, value);
        open.push((end, value));
    }
    while !open.is_empty() {
        close(&mut open, &mut change);
    }
    changes
}

/// Ranges of IPv4 addresses that lie apart, by their first address: each with its last one and its value.
#[derive(Debug, Default)]
pub struct Ranges {
    list: BTreeMap<u32, (u32, u32)>,
}

/// Reads `FIRST-LAST`. The highest address of all is no end of a range, as in nginx, where it means "no address".
pub fn parse_range(text: &[u8]) -> Option<(u32, u32)> {
    let (first, last) = std::str::from_utf8(text).ok()?.split_once('-')?;
    let first = first.parse::<Ipv4Addr>().ok()?.to_bits();
    let last = last.parse::<Ipv4Addr>().ok()?.to_bits();
    (first <= last && last < u32::MAX).then_some((first, last))
}

impl Ranges {
    /// Adds a range; one that lies within another takes its addresses over. Returns the former value of an equal one;
    /// an error is the range that it lies across, as text.
    pub fn insert(&mut self, (first, last): (u32, u32), value: u32) -> Result<Option<u32>, String> {
        let around = self.list.range(..=last).next_back().map(|(start, (end, value))| (*start, *end, *value));
        let Some((start, end, around)) = around.filter(|(_, end, _)| *end >= first) else {
            self.list.insert(first, (last, value));
            return Ok(None);
        };
        if start > first || end < last {
            let shown = |address: u32| Ipv4Addr::from_bits(address);
            return Err(format!("{}-{}", shown(start), shown(end)));
        }
        if start < first {
            self.list.insert(start, (first - 1, around));
        }
        self.list.insert(first, (last, value));
        if last < end {
            self.list.insert(last + 1, (end, around));
        }
        Ok((start == first && end == last).then_some(around))
    }

    /// Takes a range out; whether it was there.
    pub fn remove(&mut self, (first, last): (u32, u32)) -> bool {
        let is_there = self.list.get(&first).is_some_and(|(end, _)| *end == last);
        if is_there {
            self.list.remove(&first);
        }
        is_there
    }

    /// The table of all of them, with the value of all other addresses.
    pub fn freeze(self, default: Option<u32>) -> Table {
        let default = default.unwrap_or(0);
        let mut v4 = vec![(0, default)];
        for (first, (last, value)) in self.list {
            match v4.last_mut() {
                Some(before) if before.0 == first => before.1 = value,
                _ => v4.push((first, value)),
            }
            v4.push((last + 1, default));
        }
        Table { v4, v6: vec![(0, default)] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_table_finds_what_a_list_of_networks_finds(
            networks in prop::collection::vec((any::<u8>(), 0u8..=8), 0..20),
            probe in any::<u8>(),
        ) {
            let mut read = Networks::default();
            let mut list = Vec::new();
            for (index, (top, length)) in networks.into_iter().enumerate() {
                let block = ipnet::Ipv4Net::new(Ipv4Addr::new(top, 0, 0, 0), length).unwrap().trunc();
                read.insert(Cidr::V4(block), index as u32 + 1);
                list.retain(|(other, _)| *other != block);
                list.push((block, index as u32 + 1));
            }
            let address = Ipv4Addr::new(probe, 1, 2, 3);
            let longest = list.iter().filter(|(block, _)| block.contains(&address));
            let expected = longest.max_by_key(|(block, _)| block.prefix_len()).map_or(0, |(_, value)| *value);
            prop_assert_eq!(read.freeze().find(Some(address.into())), expected);
        }

        #[test]
        fn ranges_find_what_was_added_last(
            ranges in prop::collection::vec((any::<u8>(), any::<u8>()), 0..12),
            probe in any::<u8>(),
        ) {
            let mut read = Ranges::default();
            let mut plain = [0u32; 256];
            for (index, (one, other)) in ranges.into_iter().enumerate() {
                let (first, last) = (one.min(other), one.max(other));
                if read.insert((first.into(), last.into()), index as u32 + 1).is_ok() {
                    plain[usize::from(first)..=usize::from(last)].fill(index as u32 + 1);
                }
            }
            let address = Ipv4Addr::from_bits(probe.into());
            prop_assert_eq!(read.freeze(None).find(Some(address.into())), plain[usize::from(probe)]);
        }
    }
}
