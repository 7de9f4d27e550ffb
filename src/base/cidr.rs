//! Address blocks as nginx writes them, and ordered lists of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// One parameter of `allow`, `deny`, `set_real_ip_from`, `debug_connection` and their like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cidr {
    /// Every peer.
    All,
    /// Peers on unix-domain sockets.
    Unix,
    V4(Ipv4Net),
    V6(Ipv6Net),
}

/// A block that was read, and whether its text deserves nginx's warning `low address bits of X are meaningless`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParsedCidr {
    pub cidr: Cidr,
    pub low_bits_are_meaningless: bool,
}

/// The peer of a connection, as far as address lists ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAddress {
    Ip(IpAddr),
    Unix,
}

impl Cidr {
    /// Reads `all`, `unix:`, an address, or `ADDRESS/LENGTH`. `None` for anything else (nginx: `invalid parameter
    /// "X"`); host names and masks in dotted form are refused, as nginx refuses them here.
    pub fn parse(text: &str) -> Option<ParsedCidr> {
        let exact = |cidr| Some(ParsedCidr { cidr, low_bits_are_meaningless: false });
        match text {
            "all" => return exact(Cidr::All),
            "unix:" => return exact(Cidr::Unix),
            _ => {}
        }
        let Some((address, length)) = text.split_once('/') else {
            return exact(Cidr::from(text.parse::<IpAddr>().ok()?));
        };
        if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let length = length.parse::<u8>().ok()?;
        match address.parse().ok()? {
            IpAddr::V4(address) => {
                let block = Ipv4Net::new(address, length).ok()?.trunc();
                let low_bits_are_meaningless = block.addr() != address;
                Some(ParsedCidr { cidr: Cidr::V4(block), low_bits_are_meaningless })
            }
            IpAddr::V6(address) => {
                let block = Ipv6Net::new(address, length).ok()?.trunc();
                let low_bits_are_meaningless = block.addr() != address;
                Some(ParsedCidr { cidr: Cidr::V6(block), low_bits_are_meaningless })
            }
        }
    }
}

impl From<IpAddr> for Cidr {
    fn from(address: IpAddr) -> Cidr {
        match address {
            IpAddr::V4(address) => Cidr::V4(address.into()),
            IpAddr::V6(address) => Cidr::V6(address.into()),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Rule<A, V> {
    address: A,
    mask: A,
    value: V,
}

/// An ordered list in which the first block that holds the peer decides, as with `allow` and `deny`.
///
/// As in nginx each family has its own list (the order between families means nothing), and an IPv4-mapped IPv6
/// address is looked up as IPv4 if any IPv4 block was added, else as IPv6.
#[derive(Clone, Debug)]
pub struct AddressList<V> {
    v4: Vec<Rule<u32, V>>,
    v6: Vec<Rule<u128, V>>,
    unix: Vec<V>,
}

impl<V> Default for AddressList<V> {
    fn default() -> Self {
        AddressList { v4: Vec::new(), v6: Vec::new(), unix: Vec::new() }
    }
}

impl<V: Copy> AddressList<V> {
    /// An empty list: it finds nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a block behind those that are there.
    pub fn push(&mut self, cidr: Cidr, value: V) {
        match cidr {
            Cidr::All => {
                self.v4.push(Rule { address: 0, mask: 0, value });
                self.v6.push(Rule { address: 0, mask: 0, value });
                self.unix.push(value);
            }
            Cidr::Unix => self.unix.push(value),
            Cidr::V4(block) => {
                let (address, mask) = (block.network().to_bits(), block.netmask().to_bits());
                self.v4.push(Rule { address, mask, value });
            }
            Cidr::V6(block) => {
                let (address, mask) = (block.network().to_bits(), block.netmask().to_bits());
                self.v6.push(Rule { address, mask, value });
            }
        }
    }

    /// True if nothing was added.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty() && self.unix.is_empty()
    }

    /// The value of the first block that holds `peer`. Allocates nothing.
    pub fn find(&self, peer: PeerAddress) -> Option<V> {
        match peer {
            PeerAddress::Unix => self.unix.first().copied(),
            PeerAddress::Ip(IpAddr::V4(address)) => self.find_v4(address),
            PeerAddress::Ip(IpAddr::V6(address)) => match address.to_ipv4_mapped() {
                Some(mapped) if !self.v4.is_empty() => self.find_v4(mapped),
                _ => self.find_v6(address),
            },
        }
    }

    fn find_v4(&self, address: Ipv4Addr) -> Option<V> {
        let address = address.to_bits();
        self.v4.iter().find(|rule| address & rule.mask == rule.address).map(|rule| rule.value)
    }

    fn find_v6(&self, address: Ipv6Addr) -> Option<V> {
        let address = address.to_bits();
        self.v6.iter().find(|rule| address & rule.mask == rule.address).map(|rule| rule.value)
    }
}

/// A set of address blocks, as `set_real_ip_from` and `debug_connection` build it.
pub type AddressSet = AddressList<()>;

impl AddressSet {
    /// True if any block holds `peer`.
    pub fn contains(&self, peer: PeerAddress) -> bool {
        self.find(peer).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(rules: &[(&str, bool)]) -> AddressList<bool> {
        let mut list = AddressList::new();
        for (text, allows) in rules {
            list.push(Cidr::parse(text).unwrap().cidr, *allows);
        }
        list
    }

    fn ip(text: &str) -> PeerAddress {
        PeerAddress::Ip(text.parse().unwrap())
    }

    #[test]
    fn what_nginx_refuses_is_refused() {
        for text in [
            "",
            "foo",
            "10.0.0/8",
            "0/0",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/255.0.0.0",
            "::/129",
            "1.2.3.4/-1",
            "10.0.0.256",
            "All",
            "unix",
            "/8",
            "[::1]",
        ] {
            assert_eq!(Cidr::parse(text), None, "{text}");
        }
    }

    #[test]
    fn low_bits_below_the_mask_are_reported_and_ignored() {
        let parsed = Cidr::parse("10.1.2.3/8").unwrap();
        assert!(parsed.low_bits_are_meaningless);
        assert_eq!(parsed.cidr, Cidr::parse("10.0.0.0/8").unwrap().cidr);
        assert!(!Cidr::parse("10.0.0.0/8").unwrap().low_bits_are_meaningless);
        assert!(Cidr::parse("2001:db8::1/32").unwrap().low_bits_are_meaningless);
        assert!(!Cidr::parse("1.2.3.4/32").unwrap().low_bits_are_meaningless);
        assert!(Cidr::parse("1.2.3.4/0").unwrap().low_bits_are_meaningless);
    }

    #[test]
    fn the_first_block_that_holds_the_peer_decides() {
        let list = list(&[
            ("192.168.1.1", false),
            ("192.168.1.0/24", true),
            ("2001:db8::/32", true),
            ("all", false),
        ]);
        assert_eq!(list.find(ip("192.168.1.1")), Some(false));
        assert_eq!(list.find(ip("192.168.1.2")), Some(true));
        assert_eq!(list.find(ip("192.168.2.2")), Some(false));
        assert_eq!(list.find(ip("2001:db8:ffff::1")), Some(true));
        assert_eq!(list.find(ip("2001:db9::1")), Some(false));
        assert_eq!(list.find(PeerAddress::Unix), Some(false));
    }

    #[test]
    fn unix_peers_are_held_by_unix_and_all_only() {
        let set = list(&[("unix:", true)]);
        assert_eq!(set.find(PeerAddress::Unix), Some(true));
        assert_eq!(set.find(ip("127.0.0.1")), None);
        assert_eq!(list(&[("0.0.0.0/0", true), ("::/0", true)]).find(PeerAddress::Unix), None);
    }

    #[test]
    fn mapped_addresses_are_v4_where_there_are_v4_blocks() {
        let v4 = list(&[("10.0.0.0/8", true), ("::/0", false)]);
        assert_eq!(v4.find(ip("::ffff:10.1.1.1")), Some(true));
        assert_eq!(v4.find(ip("::ffff:11.1.1.1")), None);
        let v6 = list(&[("::ffff:0:0/96", true)]);
        assert_eq!(v6.find(ip("::ffff:11.1.1.1")), Some(true));
    }

    #[test]
    fn a_set_holds_what_any_block_holds() {
        let mut set = AddressSet::new();
        assert!(set.is_empty() && !set.contains(ip("1.2.3.4")));
        set.push(Cidr::parse("1.2.3.0/30").unwrap().cidr, ());
        assert!(set.contains(ip("1.2.3.3")) && !set.contains(ip("1.2.3.4")));
    }
}
