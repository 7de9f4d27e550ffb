//! Names of services: SRV records, and the hosts that they name.

use super::*;

fn srv(owner: &str, priority: u16, port: u16, target: &str) -> ResourceRecord<'static> {
    let target = Name::new(target).expect("a name").into_owned();
    record(owner, 50, RData::SRV(SRV { priority, weight: 5, port, target }))
}

#[test]
fn a_service_comes_with_the_addresses_of_its_hosts() {
    let mut world = World::one(|asked| match (asked.name.as_str(), asked.kind) {
        (owner @ "_http._tcp.s.test", TYPE::SRV) => asked.with(vec![
            srv(owner, 2, 81, "b.test"),
            srv(owner, 1, 80, "a.test"),
            srv(owner, 1, 82, "a.test"),
            srv(owner, 1, 83, "gone.test"),
        ]),
        ("a.test", TYPE::A) => asked.host(40, 1),
        ("b.test", TYPE::A) => asked.host(100, 2),
        _ => asked.refuse(RCODE::NameError),
    });
    let id = world.pending("s.test", Kind::Service("http"));
    let (after_ms, result) = world.outcome(id);
    let answer = result.expect("a service");
    let hosts: Vec<_> =
        answer.services().iter().map(|host| (host.priority, host.port, &*host.host)).collect();
    assert_eq!(hosts, [(1, 80, "a.test"), (1, 82, "a.test"), (2, 81, "b.test")]);
    assert_eq!(&*answer.services()[2].addresses, [v4(2)]);
    assert_eq!((after_ms, answer.expires_ms), (10, 50_010));
    // The hosts are known by themselves now.
    assert_eq!(ready(world.lookup("b.test")).addresses(), [v4(2)]);
    let id = world.pending("t.test", Kind::Service("http"));
    assert_eq!(world.outcome(id).1, Err(NameError::NotFound));
    let literal = world.resolver.lookup(b"192.0.2.1", Kind::Service("http"), world.now_ms);
    assert_eq!(literal, Lookup::Failed(NameError::NotFound));
}

#[test]
fn a_service_whose_hosts_are_silent_ends_with_the_timeout() {
    let mut world = World::one(|asked| match asked.kind {
        TYPE::SRV => asked.with(vec![srv(&asked.name, 1, 80, "a.test"), srv(&asked.name, 1, 80, "b.test")]),
        _ if asked.name == "a.test" => asked.host(10, 1),
        _ => Does::Nothing,
    });
    let id = world.pending("s.test", Kind::Service("http"));
    let (after_ms, result) = world.outcome(id);
    assert_eq!((after_ms, result.expect("one host").services().len()), (30_000, 1));
    world.run_until(100_000);
    assert!(world.open.is_empty());
}
