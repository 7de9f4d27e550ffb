//! DNS servers: those that are silent, gone, out of step, or known by name only; and datagrams that get lost.

use super::*;

#[test]
fn a_lost_datagram_costs_a_second_and_the_late_answer_still_counts() {
    let mut count = 0;
    let mut world = World::one(move |asked| {
        count += 1;
        if count == 1 { Does::Nothing } else { asked.host(10, 1) }
    });
    let (after_ms, result) = world.resolve("a.test");
    assert_eq!((after_ms, addresses(&result)), (1005, vec![v4(1)]));
    let mut world = World::one(|asked| match asked.host(10, 1) {
        Does::Says(_, bytes) => Does::Says(2500, bytes),
        other => other,
    });
    let (after_ms, _) = world.resolve("a.test");
    assert_eq!((after_ms, world.asked.len()), (2500, 2));
}

#[test]
fn silence_ends_with_the_timeout_and_is_remembered_for_a_moment() {
    let mut world = World::one(|_| Does::Nothing);
    let (after_ms, result) = world.resolve("a.test");
    assert_eq!((after_ms, result), (30_000, Err(NameError::TimedOut)));
    let at: Vec<u64> = world.asked.iter().map(|asked| asked.0 - 10_000).collect();
    assert_eq!(at, [0, 1000, 3000, 7000, 12_000, 17_000, 22_000, 27_000]);
    assert_eq!(world.lookup("a.test"), Lookup::Failed(NameError::TimedOut));
    assert!(world.open.is_empty());
    world.run_until(41_000);
    assert!(matches!(world.lookup("a.test"), Lookup::Pending(_)));
}

#[test]
fn servers_take_turns_and_those_that_are_silent_or_gone_are_passed_over() {
    let scripts: Vec<Script> =
        vec![Box::new(|_| Does::Nothing), Box::new(|_| Does::Breaks), Box::new(|asked| asked.host(10, 1))];
    let mut world = World::new(plan(3), scripts);
    // 0 is silent for a second, 1 breaks at once, 2 answers.
    assert_eq!(world.resolve("a.test").0, 1005);
    assert_eq!(world.asked.iter().map(|asked| asked.1).collect::<Vec<_>>(), [0, 1, 2]);
    for number in 0..20 {
        // 0 rests now: nobody waits for it.
        assert_eq!(world.resolve(&format!("a{number}.test")).0, 5);
    }
    let asked_of = |world: &World, server| world.asked.iter().filter(|asked| asked.1 == server).count();
    assert_eq!(asked_of(&world, 0), 1);
    let now_ms = world.now_ms;
    world.run_until(now_ms + 10_000);
    for number in 20..23 {
        let _ = world.resolve(&format!("a{number}.test"));
    }
    assert_eq!(asked_of(&world, 0), 2);
}

#[test]
fn when_every_server_fails_nobody_waits_for_the_timeout() {
    for (code, error) in [
        (RCODE::ServerFailure, NameError::ServerFailure),
        (RCODE::Refused, NameError::Refused),
        (RCODE::FormatError, NameError::Format),
        (RCODE::NotImplemented, NameError::NotImplemented),
    ] {
        let script = move || -> Script { Box::new(move |asked| asked.refuse(code)) };
        let mut world = World::new(plan(2), vec![script(), script()]);
        assert_eq!(world.resolve("a.test"), (10, Err(error)));
        assert_eq!(world.asked.len(), 2);
    }
    let mut world = World::one(|_| Does::Breaks);
    assert_eq!(world.resolve("a.test"), (0, Err(NameError::Unreachable)));
    let mut world = World::one(|asked| match asked.host(10, 1) {
        Does::Says(after_ms, mut bytes) => {
            bytes.truncate(20);
            Does::Says(after_ms, bytes)
        }
        other => other,
    });
    assert_eq!(world.resolve("a.test"), (5, Err(NameError::Format)));
    assert_eq!(world.resolver.counters().malformed, 1);
}

#[test]
fn a_truncated_reply_is_asked_for_over_tcp() {
    let mut world = World::one(|asked| match asked.transport {
        Transport::Udp => {
            let mut reply = asked.reply();
            reply.set_flags(PacketFlag::TRUNCATION);
            reply.answers.push(a(&asked.name, 10, 1));
            says(&reply)
        }
        Transport::Tcp => asked.with((1..=100).map(|last| a(&asked.name, 10, last)).collect()),
    });
    let (after_ms, result) = world.resolve("a.test");
    assert_eq!((after_ms, addresses(&result).len()), (10, 100));
    assert_eq!(world.asked[1].4, Transport::Tcp);
    // Where TCP does not work, the next server is asked.
    let truncating: Script = Box::new(|asked| match asked.transport {
        Transport::Udp => {
            let mut reply = asked.reply();
            reply.set_flags(PacketFlag::TRUNCATION);
            says(&reply)
        }
        Transport::Tcp => Does::Breaks,
    });
    let mut world = World::new(plan(2), vec![truncating, Box::new(|asked| asked.host(10, 9))]);
    let (after_ms, result) = world.resolve("a.test");
    assert_eq!((after_ms, addresses(&result)), (10, vec![v4(9)]));
}

#[test]
fn replies_of_others_are_ignored_and_counted() {
    let mut world = World::one(|_| Does::Nothing);
    let id = world.pending("a.test", Kind::Addresses);
    let transmit = world.resolver.transmit(&mut world.rng).expect("a query");
    let query = Packet::parse(&transmit.bytes).expect("a question");
    let mut good = Packet::new_reply(query.id());
    good.questions = query.questions.clone();
    good.answers.push(a("a.test", 10, 1));
    let bytes = |packet: &Packet<'_>| packet.build_bytes_vec().expect("a message");
    let mut wrong_id = good.clone();
    wrong_id.set_id(query.id() ^ 1);
    let mut wrong_name = good.clone();
    wrong_name.questions[0].qname = Name::new_unchecked("b.test");
    let mut wrong_kind = good.clone();
    wrong_kind.questions[0].qtype = TYPE::AAAA.into();
    let forged =
        [bytes(&wrong_id), bytes(&wrong_name), bytes(&wrong_kind), b"x".to_vec(), transmit.bytes.clone()];
    for message in &forged {
        world.resolver.received(transmit.query, address(0), Transport::Udp, message, 10_001);
    }
    world.resolver.received(transmit.query, address(1), Transport::Udp, &bytes(&good), 10_001);
    world.resolver.received(transmit.query, address(0), Transport::Tcp, &bytes(&good), 10_001);
    assert_eq!(world.resolver.counters().ignored, 7);
    assert_eq!(world.resolver.take_finished(), None);
    world.resolver.received(transmit.query, address(0), Transport::Udp, &bytes(&good), 10_002);
    assert_eq!(world.resolver.take_finished().map(|(id, _)| id), Some(id));
    // A second reply finds nobody.
    world.resolver.received(transmit.query, address(0), Transport::Udp, &bytes(&good), 10_003);
    assert_eq!(world.resolver.counters().ignored, 8);
}

#[test]
fn a_server_by_name_takes_part_when_its_address_is_known() {
    let named =
        ResolverPlan { servers: vec![ResolverServer::Name { host: "ns".into(), port: 53 }], ..plan(0) };
    let mut world = World::new(named, vec![Box::new(|asked| asked.host(10, 1))]);
    let id = world.pending("a.test", Kind::Addresses);
    world.run_until(12_500);
    assert!(world.asked.is_empty());
    world.resolver.add_server(address(0), 12_500);
    let (after_ms, result) = world.outcome(id);
    assert_eq!((after_ms, addresses(&result)), (5, vec![v4(1)]));
    let mut world = World::new(plan(0), vec![]);
    assert_eq!(world.resolve("a.test"), (30_000, Err(NameError::TimedOut)));
}
