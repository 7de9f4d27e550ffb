//! The law of the whole machine, for the fuzz target and for proptest.

use std::net::SocketAddr;

use crate::proto::dns::DnsName;

use super::{Answer, Kind, Lookup, Records, Resolver, ResolverPlan, ResolverServer, Transport};

/// Law: whatever a server answers, a lookup ends once, within its timeout, every query is closed once, and what comes of
/// it is within its bounds. The number of each reply is made to fit, so that it is read at all; the bytes are one reply
/// after the other, each with its length in front as over TCP.
pub fn fuzz_resolver(name: &DnsName, is_service: bool, mut replies: &[u8]) {
    let server: SocketAddr = ([192, 0, 2, 53], 53).into();
    let mut resolver = Resolver::new(ResolverPlan {
        servers: vec![ResolverServer::Address(server)],
        valid_ms: None,
        ipv4: true,
        ipv6: true,
        timeout_ms: 30_000,
        status_zone: None,
    });
    let mut rng = fastrand::Rng::with_seed(1);
    let kind = if is_service { Kind::Service("http") } else { Kind::Addresses };
    let Lookup::Pending(lookup) = resolver.lookup(name.as_str().as_bytes(), kind, 1000) else { return };
    let (mut now_ms, mut open, mut result) = (1000, Vec::new(), None);
    while result.is_none() {
        while let Some(transmit) = resolver.transmit(&mut rng) {
            open.push((transmit.query, transmit.transport));
            assert!(open.len() < 2000, "queries without end");
            let header = if transmit.transport == Transport::Tcp { 2 } else { 0 };
            let Some((length, rest)) = replies.split_first_chunk() else { continue };
            let (message, rest) = rest.split_at(rest.len().min(usize::from(u16::from_be_bytes(*length))));
            replies = rest;
            let mut message = message.to_vec();
            let fitting = message.len().min(2);
            message[..fitting].copy_from_slice(&transmit.bytes[header..][..fitting]);
            resolver.received(transmit.query, server, transmit.transport, &message, now_ms);
        }
        while let Some(closed) = resolver.take_closed() {
            let position = open.iter().position(|(query, _)| *query == closed);
            open.swap_remove(position.expect("a query that is open"));
        }
        result = resolver.take_finished();
        if result.is_none() {
            let deadline_ms = resolver.next_deadline().expect("a deadline while a lookup is pending");
            assert!(deadline_ms <= 31_000 && deadline_ms >= now_ms, "{deadline_ms} at {now_ms}");
            now_ms = deadline_ms;
            resolver.on_deadline(now_ms);
        }
    }
    let (id, result) = result.expect("it is there");
    assert!(id == lookup && resolver.take_finished().is_none());
    if let Ok(Answer { records, stale, .. }) = result {
        assert!(!stale);
        match records {
            Records::Addresses(addresses) => assert!(!is_service && (1..=1024).contains(&addresses.len())),
            Records::Services(services) => {
                assert!(is_service && (1..=128).contains(&services.len()));
                assert!(services.iter().all(|service| !service.addresses.is_empty()));
            }
        }
    }
}
