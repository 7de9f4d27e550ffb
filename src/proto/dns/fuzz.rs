//! Laws of messages, for the fuzz target and for proptest.

use super::{
    DnsName, Found, MAX_ADDRESSES, MAX_ALIASES, MAX_SERVICES, RecordType, ReplyError, read_reply, write_query,
};

/// Law: any bytes are read or refused; what is read stays within its bounds, and belongs to this question alone. A
/// message without its additional section says the same.
pub fn fuzz_reply(message: &[u8], name: &DnsName, record: RecordType) {
    let id = message.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
    let reply = read_reply(message, id, name, record);
    assert_eq!(read_reply(message, id ^ 1, name, record), Err(ReplyError::NotOurs));
    let Ok(reply) = reply else { return };
    assert!(reply.code < 16);
    match &reply.found {
        Found::Addresses(addresses, _) => {
            assert!(!addresses.is_empty() && addresses.len() <= MAX_ADDRESSES && record != RecordType::Srv);
            assert!(addresses.iter().all(|address| address.is_ipv4() == (record == RecordType::A)));
        }
        Found::Services(services, _) => {
            assert!(services.len() <= MAX_SERVICES && record == RecordType::Srv);
        }
        Found::Alias { hops, .. } => assert!((1..=MAX_ALIASES).contains(hops)),
        Found::BadAlias | Found::Nothing(_) => {}
    }
    let mut bare = message.to_vec();
    bare[10..12].fill(0);
    assert_eq!(read_reply(&bare, id, name, record), Ok(reply));
}

/// Law: a question is read back as what it asks, and is no reply; with the bit of a reply set it says that there is
/// nothing.
pub fn law_question_is_echoed(id: u16, name: &DnsName, record: RecordType) {
    assert_eq!(DnsName::parse(name.to_string().as_bytes()).as_ref(), Ok(name));
    for service in ["http", "a.b"] {
        let of_service = DnsName::of_service(service, name);
        assert!(
            of_service.is_err()
                || of_service.is_ok_and(|longer| longer.to_string().ends_with(&name.to_string()))
        );
    }
    let mut message = write_query(id, name, record);
    assert!((17..=271).contains(&message.len()));
    assert_eq!(read_reply(&message, id, name, record), Err(ReplyError::NotOurs));
    message[2] |= 0x80;
    let reply = read_reply(&message, id, name, record).expect("an empty reply");
    assert_eq!((reply.code, reply.truncated, reply.found), (0, false, Found::Nothing(None)));
}
