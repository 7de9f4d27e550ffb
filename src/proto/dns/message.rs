//! Questions and replies.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Label, Name, Packet, PacketFlag, Question, ResourceRecord, TYPE};

use super::name::DnsName;

/// Aliases that are followed for one name. Real chains have up to six or so; a loop ends here.
pub const MAX_ALIASES: usize = 16;
/// Addresses of one name that are kept; a message over TCP could hold some 4,000.
pub const MAX_ADDRESSES: usize = 512;
/// Records of one service that are kept.
pub const MAX_SERVICES: usize = 128;
/// Records that a message may announce: the parser allocates for as many before it has seen one.
const MAX_RECORDS: usize = 1024;
/// Bytes of a message's header, of the shortest question and of the shortest record.
const HEADER: usize = 12;
const SHORTEST_QUESTION: usize = 5;
const SHORTEST_RECORD: usize = 11;

/// Response codes that mean something to a stub resolver (RFC 1035 section 4.1.1).
pub mod rcode {
    /// The name exists.
    pub const NO_ERROR: u8 = 0;
    /// The server did not understand.
    pub const FORMAT_ERROR: u8 = 1;
    /// The name does not exist.
    pub const NAME_ERROR: u8 = 3;
    /// The server does not do that.
    pub const NOT_IMPLEMENTED: u8 = 4;
    /// The server does not want to.
    pub const REFUSED: u8 = 5;
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordType {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Hosts and ports of a service.
    Srv,
}

impl RecordType {
    fn code(self) -> TYPE {
        match self {
            RecordType::A => TYPE::A,
            RecordType::Aaaa => TYPE::AAAA,
            RecordType::Srv => TYPE::SRV,
        }
    }
}

/// One record of a service (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRecord {
    /// Lower ones are tried first.
    pub priority: u16,
    /// Share among those of the same priority.
    pub weight: u16,
    /// Port.
    pub port: u16,
    /// The host.
    pub target: DnsName,
}

/// What a reply says about the question. Times to live are seconds: the lowest of all the records that led there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Addresses, each once, in the reply's order, at most [`MAX_ADDRESSES`].
    Addresses(Vec<IpAddr>, u32),
    /// Records of a service, at most [`MAX_SERVICES`]; none if the service is said not to be offered (target `.`).
    Services(Vec<ServiceRecord>, u32),
    /// The name is an alias, and the reply does not say what for the other name has.
    Alias {
        /// The last name of the chain.
        target: DnsName,
        /// Aliases on the way.
        hops: usize,
        /// Seconds that this may be remembered.
        ttl: u32,
    },
    /// More than [`MAX_ALIASES`] aliases, or one that leads back, or to a name that no host can have.
    BadAlias,
    /// No record of this kind, and for how many seconds that is known (RFC 2308 section 5), if the reply says.
    Nothing(Option<u32>),
}

/// The reply to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// One of [`rcode`], or another below 16.
    pub code: u8,
    /// It did not fit: to be asked again over TCP; what was found may lack something.
    pub truncated: bool,
    /// What it says.
    pub found: Found,
}

/// Why a message is not the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// It belongs to another question (or is a forgery): wait on.
    NotOurs,
    /// It bears our number, but can't be read: this server is of no use for this question.
    Malformed,
}

/// The question for records of one kind, for UDP; over TCP two bytes of length go before it. At most 271 bytes.
pub fn write_query(id: u16, name: &DnsName, record: RecordType) -> Vec<u8> {
    let labels: Vec<Label<'_>> = name.labels().map(Label::new_unchecked).collect();
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(
        Name::new_with_labels(&labels),
        record.code().into(),
        CLASS::IN.into(),
        false,
    ));
    // Writing to memory does not fail.
    packet.build_bytes_vec().unwrap_or_default()
}

/// Reads the reply to the question `id`, `name`, `record`.
///
/// # Errors
/// See [`ReplyError`].
pub fn read_reply(message: &[u8], id: u16, name: &DnsName, record: RecordType) -> Result<Reply, ReplyError> {
    let message = normalised(message, id)?;
    let packet = Packet::parse(&message).map_err(|_| ReplyError::Malformed)?;
    let [question] = &packet.questions[..] else { return Err(ReplyError::NotOurs) };
    let same_kind = question.qtype == record.code().into() && question.qclass == CLASS::IN.into();
    if !same_kind || !is_name(&question.qname, name) {
        return Err(ReplyError::NotOurs);
    }
    let code = message[3] & 0x0f;
    Ok(Reply {
        code,
        truncated: packet.has_flags(PacketFlag::TRUNCATION),
        found: find(&packet, &question.qname, record, code != rcode::NO_ERROR),
    })
}

/// Checks the header and copies the message without what it may not fail on: the additional section (whatever stands
/// there is not believed anyway) and the reserved bit.
fn normalised(message: &[u8], id: u16) -> Result<Vec<u8>, ReplyError> {
    let [high, low, flags, ..] = *message else { return Err(ReplyError::NotOurs) };
    let is_response = flags & 0x80 != 0 && flags & 0x78 == 0;
    if u16::from_be_bytes([high, low]) != id || !is_response {
        return Err(ReplyError::NotOurs);
    }
    if message.len() < HEADER {
        return Err(ReplyError::Malformed);
    }
    let mut message = message[..message.len().min(usize::from(u16::MAX))].to_vec();
    message[3] &= !0x40;
    message[10..HEADER].fill(0);
    let count = |at: usize| usize::from(u16::from_be_bytes([message[at], message[at + 1]]));
    let (questions, records) = (count(4), count(6) + count(8));
    // Some servers refuse with a bare header, which names no question: that is malformed, not somebody else's.
    let least = HEADER + questions * SHORTEST_QUESTION + records * SHORTEST_RECORD;
    if questions != 1 || records > MAX_RECORDS || least > message.len() {
        return Err(ReplyError::Malformed);
    }
    Ok(message)
}

fn is_name(name: &Name<'_>, expected: &DnsName) -> bool {
    // Labels of ours are lower case; servers may change the case, and some do.
    let mut labels = name.get_labels().iter();
    let equal = expected
        .labels()
        .all(|label| labels.next().is_some_and(|other| other.as_ref().eq_ignore_ascii_case(label)));
    equal && labels.next().is_none()
}

/// Follows the aliases from `name` to the records.
fn find(packet: &Packet<'_>, name: &Name<'_>, record: RecordType, is_refusal: bool) -> Found {
    let mut name = name;
    let mut ttl = u32::MAX;
    for hops in 0..=MAX_ALIASES {
        let here: Vec<&ResourceRecord<'_>> = packet
            .answers
            .iter()
            .filter(|answer| answer.class == CLASS::IN && answer.name == *name)
            .collect();
        if let Some(found) = records(&here, record, ttl) {
            return found;
        }
        let alias = here.iter().find_map(|answer| match &answer.rdata {
            RData::CNAME(alias) => Some((&alias.0, seconds(answer.ttl))),
            _ => None,
        });
        match alias {
            Some((target, seconds)) => {
                name = target;
                ttl = ttl.min(seconds);
            }
            None => return without_records(packet, name, hops, ttl, is_refusal),
        }
    }
    Found::BadAlias
}

/// The records of the wanted kind among these, if there is any.
fn records(here: &[&ResourceRecord<'_>], record: RecordType, ttl: u32) -> Option<Found> {
    let mut ttl = ttl;
    let mut is_known = false;
    let (mut addresses, mut services) = (Vec::new(), Vec::new());
    for answer in here {
        match (record, &answer.rdata) {
            (RecordType::A, RData::A(a)) => {
                add_address(&mut addresses, Ipv4Addr::from_bits(a.address).into());
            }
            (RecordType::Aaaa, RData::AAAA(aaaa)) => {
                add_address(&mut addresses, Ipv6Addr::from_bits(aaaa.address).into());
            }
            (RecordType::Srv, RData::SRV(srv)) => {
                // A target that no host can have, `.` above all, is no server.
                if services.len() < MAX_SERVICES
                    && let Ok(target) = to_name(&srv.target)
                {
                    let (priority, weight, port) = (srv.priority, srv.weight, srv.port);
                    services.push(ServiceRecord { priority, weight, port, target });
                }
            }
            _ => continue,
        }
        is_known = true;
        ttl = ttl.min(seconds(answer.ttl));
    }
    is_known.then_some(match record {
        RecordType::A | RecordType::Aaaa => Found::Addresses(addresses, ttl),
        RecordType::Srv => Found::Services(services, ttl),
    })
}

fn add_address(addresses: &mut Vec<IpAddr>, address: IpAddr) {
    if addresses.len() < MAX_ADDRESSES && !addresses.contains(&address) {
        addresses.push(address);
    }
}

/// What it means that nothing stands under `name`. With the zone's SOA beside it, it is the answer: there is nothing
/// (RFC 2308 section 2). An alias without that was just not followed by the server.
fn without_records(packet: &Packet<'_>, name: &Name<'_>, hops: usize, ttl: u32, is_refusal: bool) -> Found {
    let known_for = packet.name_servers.iter().find_map(|record| match &record.rdata {
        RData::SOA(soa) => Some(seconds(record.ttl).min(seconds(soa.minimum)).min(ttl)),
        _ => None,
    });
    if hops == 0 || known_for.is_some() || is_refusal {
        return Found::Nothing(known_for);
    }
    match to_name(name) {
        Ok(target) => Found::Alias { target, hops, ttl },
        Err(_) => Found::BadAlias,
    }
}

fn to_name(name: &Name<'_>) -> Result<DnsName, super::NameSyntax> {
    let labels: Vec<&[u8]> = name.get_labels().iter().map(AsRef::as_ref).collect();
    if labels.iter().any(|label| label.contains(&b'.')) {
        return Err(super::NameSyntax);
    }
    DnsName::parse(&labels.join(&b'.'))
}

/// A time to live; with the highest bit set it is 0 (RFC 2181 section 8).
fn seconds(ttl: u32) -> u32 {
    if ttl > i32::MAX as u32 { 0 } else { ttl }
}
