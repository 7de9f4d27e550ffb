use super::*;
use proptest::prelude::*;

fn parse(text: &str) -> Result<ListenDirective, String> {
    ListenDirective::parse(&text.split(' ').collect::<Vec<_>>())
}

/// The addresses of a directive that names no host, or only `localhost`.
fn listens(text: &str) -> Result<Vec<Listen>, String> {
    let directive = parse(text)?;
    let found: &[IpAddr] = match directive.name() {
        Some("localhost") => &[IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)],
        _ => &[],
    };
    directive.addresses(found)
}

fn addresses(text: &str) -> Vec<String> {
    listens(text).unwrap().iter().map(|listen| listen.address.to_string()).collect()
}

/// A table of servers, each a list of directives.
fn table(servers: &[&[&str]]) -> Result<ListenTable, String> {
    let mut table = ListenTable::default();
    for (server, directives) in servers.iter().enumerate() {
        for listen in directives.iter().map(|text| listens(text)).collect::<Result<Vec<_>, _>>()?.concat() {
            table.add(server, &listen)?;
        }
    }
    Ok(table)
}

#[test]
fn every_address_form_is_understood() {
    for (text, expected) in [
        ("80", "0.0.0.0:80"),
        ("080", "0.0.0.0:80"),
        ("*", "0.0.0.0:80"),
        ("*:8000", "0.0.0.0:8000"),
        ("127.0.0.1", "127.0.0.1:80"),
        ("127.0.0.1:8000", "127.0.0.1:8000"),
        ("[::]", "[::]:80"),
        ("[::]:8000", "[::]:8000"),
        ("[0:0::1]:80", "[::1]:80"),
        ("unix:/run/a.sock", "unix:/run/a.sock"),
    ] {
        assert_eq!(addresses(text), [expected], "{text}");
    }
    assert_eq!(addresses("8000-8002"), ["0.0.0.0:8000", "0.0.0.0:8001", "0.0.0.0:8002"]);
    assert_eq!(addresses("localhost:8000"), ["127.0.0.1:8000", "[::1]:8000"]);
    assert_eq!(addresses("localhost"), ["127.0.0.1:80", "[::1]:80"]);
}

#[test]
fn wrong_addresses_are_refused_in_nginx_s_words() {
    for (text, expected) in [
        ("foo", "host not found in \"foo\" of the \"listen\" directive"),
        ("80abc", "host not found in \"80abc\" of the \"listen\" directive"),
        ("unix:", "no path in the unix domain socket in \"unix:\" of the \"listen\" directive"),
        ("70000", "invalid port in \"70000\" of the \"listen\" directive"),
        ("0", "invalid port in \"0\" of the \"listen\" directive"),
        ("127.0.0.1:x", "invalid port in \"127.0.0.1:x\" of the \"listen\" directive"),
        ("*:", "invalid port in \"*:\" of the \"listen\" directive"),
        ("127.0.0.1:8003-8000", "invalid port range in \"127.0.0.1:8003-8000\" of the \"listen\" directive"),
        ("[::1", "invalid host in \"[::1\" of the \"listen\" directive"),
        ("[::1]x", "invalid host in \"[::1]x\" of the \"listen\" directive"),
        ("a/b:80", "invalid host in \"a/b:80\" of the \"listen\" directive"),
        (":80", "no host in \":80\" of the \"listen\" directive"),
        ("", "no host in \"\" of the \"listen\" directive"),
    ] {
        assert_eq!(listens(text).unwrap_err(), expected, "{text}");
    }
    let long = format!("unix:{}", "x".repeat(MAX_UNIX_PATH + 1));
    assert!(parse(&long).unwrap_err().starts_with("too long path in the unix domain socket in"));
    assert!(parse(&long[..long.len() - 1]).is_ok());
}

#[test]
fn wrong_parameters_are_refused_in_nginx_s_words() {
    for (parameter, expected) in [
        ("foo", "invalid parameter \"foo\""),
        ("deferred=x", "invalid parameter \"deferred=x\""),
        ("ipv6only=x", "invalid parameter \"ipv6only=x\""),
        ("backlog=0", "invalid backlog \"backlog=0\""),
        ("backlog=-1", "invalid backlog \"backlog=-1\""),
        ("rcvbuf=x", "invalid rcvbuf \"rcvbuf=x\""),
        ("sndbuf=-1", "invalid sndbuf \"sndbuf=-1\""),
        ("fastopen=x", "invalid fastopen \"fastopen=x\""),
        ("so_keepalive=x", "invalid so_keepalive value: \"x\""),
        ("so_keepalive=::", "invalid so_keepalive value: \"::\""),
        ("so_keepalive=:30m:10:3", "invalid so_keepalive value: \":30m:10:3\""),
        ("setfib=3", "routing tables \"setfib=3\" are not supported on this platform"),
        ("quic", "the \"quic\" parameter of \"listen\" is known but not built yet"),
    ] {
        assert_eq!(parse(&format!("80 {parameter}")).unwrap_err(), expected);
    }
    assert!(parse("80 accept_filter=httpready").unwrap_err().contains("not supported on this platform"));
}

#[test]
fn parameters_are_read_and_those_of_the_socket_bind() {
    let plain = parse("80 default_server ssl http2 proxy_protocol").unwrap();
    assert!(plain.default_server && !plain.socket.bind && !plain.socket_options_set);
    assert_eq!(plain.protocol, ProtocolOptions { ssl: true, http2: true, proxy_protocol: true });

    let full = parse("80 backlog=5 rcvbuf=8k sndbuf=1m fastopen=3 deferred reuseport multipath ipv6only=off")
        .unwrap();
    let options = &full.socket;
    assert!(options.bind && options.deferred && options.reuseport && options.multipath && options.dual_stack);
    assert_eq!((options.backlog, options.fastopen), (Some(5), Some(3)));
    assert_eq!((options.receive_buffer, options.send_buffer), (Some(8192), Some(1 << 20)));

    let keepalive = |text: &str| parse(text).unwrap().socket.keepalive;
    assert_eq!(keepalive("80"), None);
    assert_eq!(keepalive("80 so_keepalive=off"), Some(None));
    assert_eq!(keepalive("80 so_keepalive=on"), Some(Some(KeepAlive::default())));
    let parts = KeepAlive { idle: Some(Duration::from_secs(1800)), interval: None, count: Some(10) };
    assert_eq!(keepalive("80 so_keepalive=30m::10"), Some(Some(parts)));
}

#[test]
fn contradictions_between_servers_are_refused_in_nginx_s_words() {
    for (servers, expected) in [
        (&[&["80 backlog=5"][..], &["80 backlog=5"]][..], "duplicate listen options for 0.0.0.0:80"),
        (&[&["80 default_server"], &["80 default_server"]], "a duplicate default server for 0.0.0.0:80"),
        (
            &[&["unix:/a default_server"], &["unix:/a default_server"]],
            "a duplicate default server for unix:/a",
        ),
        (&[&["80", "*:80"]], "a duplicate listen 0.0.0.0:80"),
        (&[&["localhost:80", "127.0.0.1:80"]], "a duplicate listen 127.0.0.1:80"),
        (&[&["80 backlog=3", "80 backlog=4"]], "a duplicate listen 0.0.0.0:80"),
    ] {
        assert_eq!(table(servers).unwrap_err(), expected);
    }
    assert!(table(&[&["80"], &["80 backlog=5"]]).is_ok());
}

#[test]
fn a_plain_repetition_is_no_redefinition() {
    let mut table = ListenTable::default();
    let add = |table: &mut ListenTable, server, text| table.add(server, &listens(text).unwrap()[0]).unwrap();
    assert_eq!(add(&mut table, 0, "80 http2"), ListenNote::Fine);
    assert_eq!(add(&mut table, 1, "80"), ListenNote::Fine);
    let note = add(&mut table, 2, "80 proxy_protocol");
    assert_eq!(note, ListenNote::ProtocolRedefined("protocol options redefined for 0.0.0.0:80".to_owned()));
    assert!(table.addresses()[0].protocol.http2 && table.addresses()[0].protocol.proxy_protocol);
}

#[test]
fn the_first_server_is_the_default_unless_another_is_marked() {
    let shared = table(&[&["80"], &["80 default_server"], &["81"]]).unwrap();
    assert_eq!(shared.addresses()[0].default_server, 1);
    assert_eq!(shared.addresses()[0].servers, [0, 1]);
    assert_eq!(shared.addresses()[1].default_server, 2);
}

#[test]
fn a_wildcard_receives_for_specific_addresses_that_do_not_bind() {
    let table = table(&[&["127.0.0.1:80"], &["80"], &["127.0.0.2:80 bind"], &["127.0.0.3:81"]]).unwrap();
    let sockets = table.sockets();
    let names: Vec<String> = sockets.iter().map(|plan| plan.address.to_string()).collect();
    assert_eq!(names, ["0.0.0.0:80", "127.0.0.2:80", "127.0.0.3:81"]);
    let place = |plan: &SocketPlan, local: [u8; 4]| plan.address_of(Some(IpAddr::from(local)));
    assert!(sockets[0].needs_local_address() && !sockets[1].needs_local_address());
    assert_eq!(place(&sockets[0], [127, 0, 0, 1]), 0);
    assert_eq!(place(&sockets[0], [10, 0, 0, 1]), 1);
    assert_eq!(place(&sockets[1], [127, 0, 0, 2]), 2);
    assert_eq!(sockets[0].address_of(None), 1);
}

#[test]
fn families_have_wildcards_of_their_own() {
    let table = table(&[&["[::]:80"], &["127.0.0.1:80"], &["[::1]:80"], &["unix:/a"]]).unwrap();
    let names: Vec<String> = table.sockets().iter().map(|plan| plan.address.to_string()).collect();
    assert_eq!(names, ["[::]:80", "127.0.0.1:80", "unix:/a"]);
}

/// Comparing each address with all before it took seconds.
#[test]
fn every_port_there_is_makes_one_listen_for_each_address() {
    let directive = ListenDirective::parse(&["localhost:1-65535"]).unwrap();
    let found = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap(), "127.0.0.1".parse().unwrap()];
    let listens = directive.addresses(&found).unwrap();
    assert_eq!(listens.len(), 2 * 65_535);
    let mut table = ListenTable::default();
    for listen in &listens {
        table.add(0, listen).unwrap();
    }
    assert_eq!(table.sockets().len(), listens.len());
}

proptest! {
    #[test]
    fn no_argument_panics(text in ".{0,40}", parameter in "[a-z_0-9=:-]{0,30}") {
        let _ = ListenDirective::parse(&[&text, &parameter]);
    }

    /// Every address is received by exactly one socket, and that socket leads to it.
    #[test]
    fn each_address_belongs_to_exactly_one_socket(picks in proptest::collection::vec((0usize..6, 0usize..2, any::<bool>()), 1..12)) {
        let hosts = ["*", "[::]", "127.0.0.1", "127.0.0.2", "[::1]", "[::2]"];
        let mut table = ListenTable::default();
        for (server, (host, port, bind)) in picks.iter().enumerate() {
            let bind = if *bind { " bind" } else { "" };
            let listen = &listens(&format!("{}:{}{bind}", hosts[*host], 80 + port)).unwrap()[0];
            let _ = table.add(server, listen);
        }
        let sockets = table.sockets();
        for (place, shared) in table.addresses().iter().enumerate() {
            let ListenAddress::Inet(address) = shared.address else { unreachable!() };
            let leading = sockets.iter().filter(|plan| {
                let ListenAddress::Inet(bound) = plan.address else { unreachable!() };
                bound.port() == address.port()
                    && bound.is_ipv6() == address.is_ipv6()
                    && plan.address_of(Some(address.ip())) == place
            });
            prop_assert_eq!(leading.count(), 1);
        }
    }
}
