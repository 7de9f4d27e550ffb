use proptest::prelude::*;
use simple_dns::rdata::{A, AAAA, CNAME, RData, SOA, SRV};
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, ResourceRecord, TYPE};

use super::fuzz::{fuzz_reply, law_question_is_echoed};
use super::*;

fn name(text: &str) -> DnsName {
    DnsName::parse(text.as_bytes()).expect("a name")
}

fn record(owner: &'static str, ttl: u32, rdata: RData<'static>) -> ResourceRecord<'static> {
    ResourceRecord::new(Name::new_unchecked(owner), CLASS::IN, ttl, rdata)
}

fn a(owner: &'static str, ttl: u32, last: u8) -> ResourceRecord<'static> {
    record(owner, ttl, RData::A(A { address: u32::from_be_bytes([192, 0, 2, last]) }))
}

fn alias(owner: &'static str, ttl: u32, target: &'static str) -> ResourceRecord<'static> {
    record(owner, ttl, RData::CNAME(CNAME(Name::new_unchecked(target))))
}

fn soa(ttl: u32, minimum: u32) -> ResourceRecord<'static> {
    let name = || Name::new_unchecked("ns.test");
    let soa = SOA { mname: name(), rname: name(), serial: 1, refresh: 1, retry: 1, expire: 1, minimum };
    record("test", ttl, RData::SOA(soa))
}

fn reply_packet(owner: &'static str, kind: TYPE, answers: Vec<ResourceRecord<'static>>) -> Packet<'static> {
    let mut packet = Packet::new_reply(7);
    packet.questions.push(Question::new(Name::new_unchecked(owner), kind.into(), CLASS::IN.into(), false));
    packet.answers = answers;
    packet
}

fn bytes(packet: &Packet<'_>) -> Vec<u8> {
    packet.build_bytes_vec_compressed().expect("a message")
}

fn found(answers: Vec<ResourceRecord<'static>>) -> Found {
    let message = bytes(&reply_packet("a.test", TYPE::A, answers));
    read_reply(&message, 7, &name("a.test"), RecordType::A).expect("a reply").found
}

#[test]
fn names_are_lower_case_and_within_their_limits() {
    assert_eq!(name("WWW.Example.COM.").as_str(), "www.example.com");
    assert_eq!(name("a_b-c.10.x1").as_str(), "a_b-c.10.x1");
    let label = "a".repeat(63);
    assert_eq!(name(&label).as_str(), label);
    assert_eq!(name(&format!("{label}.{label}.{label}.{}", "a".repeat(61))).as_str().len(), 253);
    let too_long = [format!("{label}a"), format!("{label}.{label}.{label}.{}", "a".repeat(62))];
    for text in ["", ".", "a..b", ".a", "a b", "a/b", "b\\.c", "\u{e4}.test", "a:80", "[::1]"] {
        assert_eq!(DnsName::parse(text.as_bytes()), Err(NameSyntax), "{text}");
    }
    for text in too_long {
        assert_eq!(DnsName::parse(text.as_bytes()), Err(NameSyntax), "{text}");
    }
}

#[test]
fn what_the_c_library_takes_for_an_address_is_no_name() {
    for text in ["127.1", "2130706433", "0x7f000001", "a.0x7F", "1.2.3.4", "a.0x", "a.7."] {
        assert_eq!(DnsName::parse(text.as_bytes()), Err(NameSyntax), "{text}");
    }
}

#[test]
fn names_of_services_are_made_as_by_nginx() {
    let of = |service| DnsName::of_service(service, &name("b.test")).map(|name| name.as_str().to_owned());
    assert_eq!(of("http"), Ok("_http._tcp.b.test".to_owned()));
    assert_eq!(of("_http._udp"), Ok("_http._udp.b.test".to_owned()));
    assert_eq!(of("a b"), Err(NameSyntax));
}

#[test]
fn a_question_has_the_bytes_that_the_standard_says() {
    let query = write_query(0x1234, &name("a.bc"), RecordType::Aaaa);
    assert_eq!(query, b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\x02bc\0\0\x1c\0\x01");
}

#[test]
fn addresses_come_once_each_with_the_lowest_time_to_live() {
    let answers = vec![a("a.test", 60, 1), a("A.Test", 30, 2), a("a.test", 60, 1), a("b.test", 1, 3)];
    assert_eq!(found(answers), Found::Addresses(vec![[192, 0, 2, 1].into(), [192, 0, 2, 2].into()], 30));
    let six = record("a.test", 5, RData::AAAA(AAAA { address: 1 }));
    assert_eq!(found(vec![six.clone()]), Found::Nothing(None));
    let message = bytes(&reply_packet("a.test", TYPE::AAAA, vec![six, a("a.test", 1, 1)]));
    let reply = read_reply(&message, 7, &name("a.test"), RecordType::Aaaa).expect("a reply");
    assert_eq!(reply.found, Found::Addresses(vec!["::1".parse().expect("an address")], 5));
    assert_eq!(found(vec![a("a.test", u32::MAX, 1)]), Found::Addresses(vec![[192, 0, 2, 1].into()], 0));
}

#[test]
fn aliases_are_followed_in_any_order_and_to_a_bound() {
    let answers = vec![a("c.test", 60, 1), alias("b.test", 20, "C.test"), alias("a.test", 40, "b.test")];
    assert_eq!(found(answers), Found::Addresses(vec![[192, 0, 2, 1].into()], 20));
    let open = vec![alias("a.test", 40, "b.test"), alias("b.test", 50, "c.test")];
    assert_eq!(found(open), Found::Alias { target: name("c.test"), hops: 2, ttl: 40 });
    assert_eq!(found(vec![alias("a.test", 1, "b.test"), alias("b.test", 1, "a.test")]), Found::BadAlias);
    assert_eq!(found(vec![alias("a.test", 1, "a.test")]), Found::BadAlias);
    assert_eq!(found(vec![alias("a.test", 1, "a b.test")]), Found::BadAlias);
}

#[test]
fn a_denial_is_known_for_as_long_as_the_zone_says() {
    let mut packet = reply_packet("a.test", TYPE::A, vec![alias("a.test", 40, "b.test")]);
    packet.name_servers.push(soa(300, 20));
    let read = |packet: &Packet<'_>| {
        let reply = read_reply(&bytes(packet), 7, &name("a.test"), RecordType::A).expect("a reply");
        (reply.code, reply.found)
    };
    assert_eq!(read(&packet), (0, Found::Nothing(Some(20))));
    packet.name_servers[0] = soa(10, 20);
    assert_eq!(read(&packet), (0, Found::Nothing(Some(10))));
    packet.name_servers.clear();
    *packet.rcode_mut() = simple_dns::RCODE::NameError;
    assert_eq!(read(&packet), (rcode::NAME_ERROR, Found::Nothing(None)));
}

#[test]
fn services_have_hosts_that_can_exist() {
    let srv = |priority, port, target| {
        let target = Name::new_unchecked(target);
        record("_http._tcp.a.test", 9, RData::SRV(SRV { priority, weight: 5, port, target }))
    };
    let owner = "_http._tcp.a.test";
    let message = bytes(&reply_packet(owner, TYPE::SRV, vec![srv(2, 81, "x.test"), srv(1, 80, ".")]));
    let reply = read_reply(&message, 7, &name(owner), RecordType::Srv).expect("a reply");
    let host = ServiceRecord { priority: 2, weight: 5, port: 81, target: name("x.test") };
    assert_eq!(reply.found, Found::Services(vec![host], 9));
}

#[test]
fn only_the_reply_to_the_question_is_taken() {
    let good = reply_packet("a.test", TYPE::A, vec![a("a.test", 60, 1)]);
    let read = |message: &[u8]| read_reply(message, 7, &name("a.test"), RecordType::A);
    assert!(read(&bytes(&good)).is_ok());
    let mut other = good.clone();
    other.set_id(8);
    assert_eq!(read(&bytes(&other)), Err(ReplyError::NotOurs));
    let mut other = good.clone();
    other.remove_flags(PacketFlag::RESPONSE);
    assert_eq!(read(&bytes(&other)), Err(ReplyError::NotOurs));
    for (owner, kind) in
        [("b.test", TYPE::A), ("x.a.test", TYPE::A), ("test", TYPE::A), ("a.test", TYPE::AAAA)]
    {
        assert_eq!(read(&bytes(&reply_packet(owner, kind, vec![]))), Err(ReplyError::NotOurs), "{owner}");
    }
    let mut other = good.clone();
    other.questions.clear();
    assert_eq!(read(&bytes(&other)), Err(ReplyError::Malformed));
    let mut other = good.clone();
    other.questions.push(good.questions[0].clone());
    assert_eq!(read(&bytes(&other)), Err(ReplyError::Malformed));
    // Whatever the counts announce, nothing is allocated for it.
    let mut many = bytes(&good);
    many[6..8].fill(0xff);
    assert_eq!(read(&many), Err(ReplyError::Malformed));
    assert_eq!(read(b"\0\x07"), Err(ReplyError::NotOurs));
    assert_eq!(read(b"\0\x07\x80\0\0\x01"), Err(ReplyError::Malformed));
}

#[test]
fn what_stands_in_the_additional_section_is_not_looked_at() {
    let mut message = bytes(&reply_packet("a.test", TYPE::A, vec![a("a.test", 60, 1)]));
    message[10..12].copy_from_slice(&[0, 9]);
    message.extend_from_slice(b"no record at all");
    message[3] |= 0x40;
    let reply = read_reply(&message, 7, &name("a.test"), RecordType::A).expect("a reply");
    assert_eq!(reply.found, Found::Addresses(vec![[192, 0, 2, 1].into()], 60));
}

fn any_record() -> impl Strategy<Value = RecordType> {
    prop_oneof![Just(RecordType::A), Just(RecordType::Aaaa), Just(RecordType::Srv)]
}

proptest! {
    #[test]
    fn questions_are_echoed(id: u16, text in "[a-z0-9_-]{1,63}(\\.[a-z_-]{1,40}){0,4}\\.[a-z]{1,8}", kind in any_record()) {
        law_question_is_echoed(id, &name(&text), kind);
    }

    #[test]
    fn any_bytes_are_read_or_refused(message in proptest::collection::vec(any::<u8>(), 0..300), kind in any_record()) {
        fuzz_reply(&message, &name("a.test"), kind);
    }

    #[test]
    fn any_change_of_a_reply_is_read_or_refused(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let answers = vec![alias("a.test", 40, "b.test"), a("b.test", 60, 1), a("b.test", 60, 2)];
        let mut packet = reply_packet("a.test", TYPE::A, answers);
        packet.name_servers.push(soa(1, 2));
        let mut message = bytes(&packet);
        for (at, byte) in changes {
            let at = at.index(message.len());
            message[at] = byte;
        }
        fuzz_reply(&message, &name("a.test"), RecordType::A);
        message.truncate(cut.index(message.len()));
        fuzz_reply(&message, &name("a.test"), RecordType::A);
    }
}
