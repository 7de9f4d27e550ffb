//! Both sides against each other, in memory.

use std::io::{IoSlice, Read, Write};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;

const CA: &[u8] = include_bytes!("fixtures/ca.pem");
const NOW: u64 = 1_900_000_000;

macro_rules! pair {
    ($name:literal) => {
        Pair::load(
            include_bytes!(concat!("fixtures/", $name, ".pem")),
            include_bytes!(concat!("fixtures/", $name, ".key")),
            &[],
            None,
        )
        .unwrap()
    };
}

fn clock() -> Arc<TlsClock> {
    Arc::new(TlsClock::new(NOW))
}

fn trust(text: &[u8]) -> Arc<Trust> {
    Arc::new(Trust::new(&[text], &[], 1).unwrap())
}

fn server_options(pairs: Vec<Pair>) -> ServerOptions {
    ServerOptions {
        primitives: Primitives::default(),
        prefer_server_ciphers: false,
        certificates: Arc::new(Certificates::new(pairs)),
        client_auth: ClientAuth::Off,
        client_authorities: Vec::new(),
        client_trust: trust(CA),
        sessions: None,
        tickets: None,
        early_data: false,
        record_size: MAX_RECORD,
        protocols: Vec::new(),
        compress_certificates: false,
        reject: false,
        kernel: false,
        clock: clock(),
    }
}

fn client_options() -> ClientOptions {
    ClientOptions {
        primitives: Primitives::default(),
        certificate: None,
        trust: Some(trust(CA)),
        send_name: true,
        reuse_sessions: true,
        protocols: Vec::new(),
        clock: clock(),
    }
}

fn server_config(options: ServerOptions) -> Arc<ServerTlsConfig> {
    Arc::new(ServerTlsConfig::new(options).unwrap())
}

fn client_config(options: ClientOptions) -> ClientTlsConfig {
    ClientTlsConfig::new(options).unwrap()
}

/// Both ends of a connection, and what is on its way.
struct Link {
    server: ServerTls,
    client: ClientTls,
    config: Arc<ServerTlsConfig>,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    at_server: Vec<u8>,
    at_client: Vec<u8>,
    /// Lengths of the pieces in which bytes arrive, over and over.
    cuts: Vec<usize>,
    hello_name: Option<String>,
}

impl Link {
    fn new(config: &Arc<ServerTlsConfig>, client: &ClientTlsConfig, name: &str) -> Link {
        let mut to_server = Vec::new();
        let client = ClientTls::start(client, "peer", name, &mut to_server).unwrap();
        Link {
            server: ServerTls::new(),
            client,
            config: Arc::clone(config),
            to_server,
            to_client: Vec::new(),
            at_server: Vec::new(),
            at_client: Vec::new(),
            cuts: vec![usize::MAX],
            hello_name: None,
        }
    }

    /// Delivers until nothing is on its way.
    fn settle(&mut self) -> Result<(), TlsError> {
        let mut turn = 0;
        while !self.to_server.is_empty() || !self.to_client.is_empty() {
            turn += 1;
            let cut = self.cuts[turn % self.cuts.len()].max(1);
            let length = cut.min(self.to_server.len());
            let bytes: Vec<u8> = self.to_server.drain(..length).collect();
            self.serve(&bytes)?;
            let length = cut.min(self.to_client.len());
            let bytes: Vec<u8> = self.to_client.drain(..length).collect();
            let mut input = &bytes[..];
            self.client.receive(&mut input, &mut self.at_client, &mut self.to_server)?;
            assert!(input.is_empty());
        }
        Ok(())
    }

    fn serve(&mut self, bytes: &[u8]) -> Result<(), TlsError> {
        let mut input = bytes;
        while self.server.receive(&mut input, &mut self.at_server, &mut self.to_client)? == Received::Hello {
            self.hello_name = self.server.hello().unwrap().server_name.map(str::to_owned);
            self.server.choose(&self.config, &mut self.to_client)?;
        }
        assert!(input.is_empty());
        Ok(())
    }

    /// A whole handshake and a word each way.
    fn talk(&mut self) -> TlsFacts {
        self.settle().unwrap();
        assert!(self.client.is_open() && self.server.is_open() && !self.server.is_handshaking());
        self.client.write(b"request", &mut self.to_server);
        self.server.write(b"response", &mut self.to_client);
        self.settle().unwrap();
        assert_eq!((&*self.at_server, &*self.at_client), (&b"request"[..], &b"response"[..]));
        self.server.facts().unwrap()
    }
}

fn both_kinds() -> Vec<Pair> {
    vec![pair!("server-rsa"), pair!("server-ec")]
}

#[test]
fn every_suite_and_group_works_with_the_key_that_it_needs() {
    let config = server_config(server_options(both_kinds()));
    for cipher in names::CIPHERS_1_3.iter().chain(names::CIPHERS_1_2) {
        let mut options = client_options();
        options.primitives.suites_1_3.retain(|suite| *suite == cipher.suite);
        options.primitives.suites_1_2.retain(|suite| *suite == cipher.suite);
        let is_1_3 = cipher.name.starts_with("TLS_");
        options.primitives.versions = Versions { tls12: !is_1_3, tls13: is_1_3 };
        let facts = Link::new(&config, &client_config(options), "example.com").talk();
        assert_eq!(facts.cipher, cipher.name);
        assert_eq!(facts.protocol, if is_1_3 { "TLSv1.3" } else { "TLSv1.2" });
        assert_eq!(facts.server_name.as_ref(), "example.com");
        if cipher.name.contains("-RSA-") {
            assert_eq!(facts.scheme >> 8, 0x08, "an RSA signature");
        } else if cipher.name.contains("ECDSA") {
            assert_eq!(facts.scheme, 0x0403);
        }
    }
    for name in ["X25519MLKEM768", "X25519", "prime256v1", "secp384r1"] {
        let mut options = client_options();
        options.primitives.groups = names::parse_groups(name).0;
        let facts = Link::new(&config, &client_config(options), "example.com").talk();
        let mut shown = Vec::new();
        names::append_group(facts.group, &mut shown);
        assert_eq!(shown, name.as_bytes());
    }
}

#[test]
fn the_post_quantum_group_and_the_client_s_order_are_the_defaults() {
    let config = server_config(server_options(both_kinds()));
    let facts = Link::new(&config, &client_config(client_options()), "example.com").talk();
    assert_eq!(facts.group, 0x11ec);
    assert!(facts.offer.ciphers.contains(&0x1302) && facts.offer.groups.contains(&0x11ec));
    assert!(!facts.offer.schemes.is_empty());
}

#[test]
fn our_order_of_suites_decides_where_it_is_wanted() {
    for (prefer, expected) in [(false, "TLS_AES_256_GCM_SHA384"), (true, "TLS_AES_128_GCM_SHA256")] {
        let mut options = server_options(both_kinds());
        options.prefer_server_ciphers = prefer;
        options.primitives.suites_1_3 =
            names::parse_ciphersuites("TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384").suites;
        let facts =
            Link::new(&server_config(options), &client_config(client_options()), "example.com").talk();
        assert_eq!(facts.cipher, expected);
    }
}

#[test]
fn the_configuration_is_chosen_by_the_name_in_the_hello() {
    let other = server_config(server_options(vec![pair!("other")]));
    let client = client_config(client_options());
    let mut link = Link::new(&other, &client, "other.test");
    link.talk();
    assert_eq!(link.hello_name.as_deref(), Some("other.test"));
    let mut unnamed = client_options();
    unnamed.send_name = false;
    let mut link = Link::new(&other, &client_config(unnamed), "other.test");
    link.talk();
    assert_eq!(link.hello_name, None);
}

#[test]
fn a_rejected_handshake_ends_with_the_alert_that_says_so() {
    let mut options = server_options(Vec::new());
    options.reject = true;
    let mut link = Link::new(&server_config(options), &client_config(client_options()), "example.com");
    let error = link.settle().unwrap_err();
    assert_eq!(error.fault, Fault::Refused);
    assert_eq!(link.to_client, [0x15, 3, 3, 0, 2, 2, 112]);
    let error = link.settle().unwrap_err();
    assert_eq!(error.message, "received fatal alert: UnrecognisedName");
}

#[test]
fn protocols_are_agreed_upon_or_the_handshake_fails() {
    let with = |names: &[&str]| names.iter().map(|name| name.as_bytes().to_vec()).collect::<Vec<_>>();
    let mut options = server_options(both_kinds());
    options.protocols = with(&["h2", "http/1.1"]);
    let config = server_config(options);
    for (offer, expected) in [(&["http/1.1", "h2"][..], "h2"), (&["http/1.1"], "http/1.1"), (&[], "")] {
        let client = client_config(ClientOptions { protocols: with(offer), ..client_options() });
        let mut link = Link::new(&config, &client, "example.com");
        assert_eq!(link.talk().alpn.as_ref(), expected.as_bytes());
        assert_eq!(link.client.facts().alpn.as_ref(), expected.as_bytes());
    }
    let client = client_config(ClientOptions { protocols: with(&["spdy/3"]), ..client_options() });
    let mut link = Link::new(&config, &client, "example.com");
    assert_eq!(link.settle().unwrap_err().fault, Fault::Handshake);
    // The client hears of it.
    assert_eq!(link.settle().unwrap_err().fault, Fault::Protocol);
}

fn client_auth(rule: ClientAuth, certificate: Option<Pair>, versions: Versions) -> TlsFacts {
    let mut options = server_options(both_kinds());
    options.client_auth = rule;
    options.client_authorities = vec![CA.into()];
    let mut client = client_options();
    client.certificate = certificate;
    client.primitives.versions = versions;
    Link::new(&server_config(options), &client_config(client), "example.com").talk()
}

#[test]
fn clients_certificates_are_judged_by_the_rule() {
    let tls12 = Versions { tls12: true, tls13: false };
    let tls13 = Versions { tls12: false, tls13: true };
    for versions in [tls12, tls13] {
        let verdict = |rule, pair| client_auth(rule, pair, versions).client_verdict(rule);
        assert_eq!(verdict(ClientAuth::On, None), ClientVerdict::Missing);
        assert_eq!(verdict(ClientAuth::Optional, None), ClientVerdict::Fine);
        let good = client_auth(ClientAuth::On, Some(pair!("client")), versions);
        assert_eq!(good.client_verdict(ClientAuth::On), ClientVerdict::Fine);
        let client = good.client.unwrap();
        assert_eq!((client.verdict, client.scheme), (Ok(()), 0x0403));
        let mut subject = Vec::new();
        Certificate::parse(&client.der).unwrap().append_subject(&mut subject);
        assert!(subject.starts_with(b"emailAddress=j@example.com,"));
        for rule in [ClientAuth::On, ClientAuth::Optional, ClientAuth::OptionalNoCa] {
            let ClientVerdict::Refused(failure) = verdict(rule, Some(pair!("client-expired"))) else {
                panic!("{rule:?}")
            };
            assert_eq!(failure.reason, "certificate has expired");
        }
        assert!(matches!(verdict(ClientAuth::Optional, Some(pair!("self"))), ClientVerdict::Refused(_)));
        let unknown = client_auth(ClientAuth::OptionalNoCa, Some(pair!("self")), versions);
        assert_eq!(unknown.client_verdict(ClientAuth::OptionalNoCa), ClientVerdict::Fine);
        assert_eq!(unknown.client.unwrap().verdict.unwrap_err().reason, "self-signed certificate");
        assert!(client_auth(ClientAuth::Off, Some(pair!("client")), versions).client.is_none());
    }
}

/// Two connections with the same client; whether the second took the first one's session up.
fn resumes(first: &Arc<ServerTlsConfig>, second: &Arc<ServerTlsConfig>, tls13: bool) -> bool {
    let mut options = client_options();
    options.primitives.versions = Versions { tls12: !tls13, tls13 };
    let client = client_config(options);
    assert!(!Link::new(first, &client, "example.com").talk().reused);
    let mut link = Link::new(second, &client, "example.com");
    let reused = link.talk().reused;
    assert_eq!(link.client.facts().reused, reused);
    reused
}

#[test]
fn sessions_are_taken_up_from_the_cache_within_their_time() {
    for tls13 in [false, true] {
        let clock = clock();
        let cache = Arc::new(SessionCache::new(1 << 20, 300, Arc::clone(&clock)));
        let with_cache = || {
            let mut options = server_options(both_kinds());
            options.sessions = Some(Arc::clone(&cache));
            options.clock = Arc::clone(&clock);
            server_config(options)
        };
        assert!(resumes(&with_cache(), &with_cache(), tls13), "configurations share a cache");
        let without = server_config(server_options(both_kinds()));
        assert!(!resumes(&without, &without, tls13));
        let config = with_cache();
        let mut options = client_options();
        options.primitives.versions = Versions { tls12: !tls13, tls13 };
        let client = client_config(options);
        Link::new(&config, &client, "example.com").talk();
        clock.set(NOW + 301);
        assert!(!Link::new(&config, &client, "example.com").talk().reused);
    }
}

#[test]
fn sessions_are_taken_up_by_tickets_across_rotations() {
    let key = |seed: u8| vec![seed; 80];
    let with_keys = |files: &[&[u8]]| {
        let mut options = server_options(both_kinds());
        options.tickets = TicketKeys::from_files(files, 300, clock()).map(Arc::new);
        server_config(options)
    };
    let (old, new) = (key(1), key(2));
    for tls13 in [false, true] {
        let before = with_keys(&[&old]);
        assert!(resumes(&before, &before, tls13));
        assert!(resumes(&before, &with_keys(&[&new, &old]), tls13));
        assert!(!resumes(&before, &with_keys(&[&new]), tls13));
    }
}

#[test]
fn a_client_s_certificate_is_judged_again_when_its_session_is_taken_up() {
    for tls13 in [false, true] {
        let tickets = Arc::new(TicketKeys::random(300, clock()));
        let with_trust = |trusted: Arc<Trust>| {
            let mut options = server_options(both_kinds());
            options.client_auth = ClientAuth::On;
            options.tickets = Some(Arc::clone(&tickets));
            options.client_trust = trusted;
            server_config(options)
        };
        let mut options = client_options();
        options.certificate = Some(pair!("client"));
        options.primitives.versions = Versions { tls12: !tls13, tls13 };
        let client = client_config(options);
        let first = Link::new(&with_trust(trust(CA)), &client, "example.com").talk();
        assert_eq!(first.client_verdict(ClientAuth::On), ClientVerdict::Fine);
        let elsewhere = with_trust(trust(include_bytes!("fixtures/self.pem")));
        let second = Link::new(&elsewhere, &client, "example.com").talk();
        assert!(second.reused);
        assert!(matches!(second.client_verdict(ClientAuth::On), ClientVerdict::Refused(_)));
    }
}

#[test]
fn upstreams_are_believed_only_with_chain_and_name() {
    let config = server_config(server_options(both_kinds()));
    let connect = |options: ClientOptions, name: &str| {
        let mut link = Link::new(&config, &client_config(options), name);
        link.settle().map_err(|error| {
            assert_eq!(error.fault, Fault::Certificate);
            assert!(!link.to_server.is_empty(), "an alert tells the upstream");
            error.message
        })
    };
    assert_eq!(connect(client_options(), "127.0.0.1"), Ok(()));
    assert_eq!(
        connect(client_options(), "example.org").unwrap_err(),
        "upstream SSL certificate does not match \"example.org\""
    );
    let mut options = client_options();
    options.trust = Some(trust(include_bytes!("fixtures/self.pem")));
    assert_eq!(
        connect(options, "example.com").unwrap_err(),
        "upstream SSL certificate verify error: (21:unable to verify the first certificate)"
    );
    for name in ["example.org", "not a name", "unix:/socket"] {
        let mut options = client_options();
        options.trust = None;
        assert_eq!(connect(options, name), Ok(()), "without verification any name will do");
    }
    assert!(
        ClientTls::start(&client_config(client_options()), "peer", "not a name", &mut Vec::new()).is_err()
    );
}

#[test]
fn early_data_is_read_once_and_told() {
    let cache = Arc::new(SessionCache::new(1 << 20, 300, clock()));
    let mut options = server_options(both_kinds());
    options.sessions = Some(cache);
    options.early_data = true;
    options.tickets = Some(Arc::new(TicketKeys::random(300, clock())));
    let config = server_config(options);
    let mut client = rustls::ClientConfig::clone(&client_config(client_options()).inner);
    client.enable_early_data = true;
    client.resumption = rustls::client::Resumption::in_memory_sessions(4);
    let client = Arc::new(client);
    let name = || rustls::pki_types::ServerName::try_from("example.com").unwrap();
    let receive = |server: &mut ServerTls, bytes: &[u8], plaintext: &mut Vec<u8>, output: &mut Vec<u8>| {
        let mut input = bytes;
        while server.receive(&mut input, plaintext, output).unwrap() == Received::Hello {
            server.choose(&config, output).unwrap();
        }
    };
    let mut first_flight = Vec::new();
    for round in 0..2 {
        let mut connection = rustls::ClientConnection::new(Arc::clone(&client), name()).unwrap();
        let mut server = ServerTls::new();
        let (mut plaintext, mut to_client, mut to_server) = (Vec::new(), Vec::new(), Vec::new());
        if round == 1 {
            connection.early_data().unwrap().write_all(b"early").unwrap();
        }
        connection.write_tls(&mut to_server).unwrap();
        first_flight = to_server.clone();
        receive(&mut server, &to_server, &mut plaintext, &mut to_client);
        if round == 1 {
            assert_eq!(plaintext, b"early");
            assert!(server.is_open() && server.is_handshaking());
            assert!(server.facts().unwrap().early_data.get());
            server.write(b"answer", &mut to_client);
        }
        connection.read_tls(&mut &to_client[..]).unwrap();
        connection.process_new_packets().unwrap();
        to_server.clear();
        while connection.wants_write() {
            connection.write_tls(&mut to_server).unwrap();
        }
        to_client.clear();
        receive(&mut server, &to_server, &mut plaintext, &mut to_client);
        assert!(!server.is_handshaking());
        if round == 1 {
            assert!(connection.is_early_data_accepted());
            let mut answer = [0; 6];
            connection.reader().read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"answer");
            assert!(!server.facts().unwrap().early_data.get());
        } else {
            connection.read_tls(&mut &to_client[..]).unwrap();
            connection.process_new_packets().unwrap();
        }
    }
    let (mut plaintext, mut output) = (Vec::new(), Vec::new());
    let mut again = ServerTls::new();
    receive(&mut again, &first_flight, &mut plaintext, &mut output);
    assert_eq!(plaintext, b"", "a first flight that is played again has no effect");
    assert!(!again.is_open());
}

#[test]
fn pieces_are_gathered_into_full_records() {
    let records = |bytes: &[u8]| {
        let (mut rest, mut sizes) = (bytes, Vec::new());
        while let [_, _, _, high, low, ..] = rest {
            let length = usize::from(*high) << 8 | usize::from(*low);
            sizes.push(length);
            rest = &rest[5 + length..];
        }
        sizes
    };
    for (record_size, expected) in
        [(MAX_RECORD, vec![16384, 3616]), (4096, vec![4096, 4096, 4096, 4096, 3616])]
    {
        let mut options = server_options(both_kinds());
        options.record_size = record_size;
        let mut link = Link::new(&server_config(options), &client_config(client_options()), "example.com");
        link.settle().unwrap();
        let piece = [7; 1000];
        let mut pieces = vec![IoSlice::new(&piece); 20];
        pieces.insert(0, IoSlice::new(b""));
        pieces.push(IoSlice::new(b""));
        link.server.write_vectored(&pieces, &mut link.to_client);
        // TLS 1.3: a byte of type and a tag of 16.
        let sizes: Vec<usize> = records(&link.to_client).iter().map(|size| size - 17).collect();
        assert_eq!(sizes, expected);
        link.settle().unwrap();
        assert_eq!(link.at_client, vec![7; 20_000]);
    }
}

#[test]
fn a_goodbye_ends_the_connection_for_the_other_side() {
    let config = server_config(server_options(both_kinds()));
    let mut link = Link::new(&config, &client_config(client_options()), "example.com");
    link.talk();
    link.client.write(b" last", &mut link.to_server);
    link.client.close(&mut link.to_server);
    let bytes = std::mem::take(&mut link.to_server);
    let mut input = &bytes[..];
    let received = link.server.receive(&mut input, &mut link.at_server, &mut link.to_client);
    assert_eq!(received, Ok(Received::Closed));
    assert_eq!(link.at_server, b"request last");
    link.server.close(&mut link.to_client);
    let bytes = std::mem::take(&mut link.to_client);
    let received = link.client.receive(&mut &bytes[..], &mut link.at_client, &mut link.to_server);
    assert_eq!(received, Ok(Received::Closed));
    link.server.close(&mut link.to_client);
    link.server.write(b"late", &mut link.to_client);
    assert_eq!(link.to_client, b"", "behind both goodbyes there is nothing to say");
}

#[test]
fn what_is_no_tls_is_refused_with_an_alert() {
    assert!(!looks_like_tls(b'G') && looks_like_tls(0x16));
    let early = &[0x17, 3, 3, 0, 1, 0][..];
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 9], early] {
        let (mut plaintext, mut output) = (Vec::new(), Vec::new());
        let mut server = ServerTls::new();
        let error = server.receive(&mut &garbage[..], &mut plaintext, &mut output).unwrap_err();
        assert_eq!(error.fault, Fault::Broken, "{error}");
        // The library is silent towards those who begin with data.
        assert!(garbage == early || output.first() == Some(&0x15), "{error}");
        assert_eq!(server.receive(&mut &garbage[..], &mut plaintext, &mut output), Ok(Received::Closed));
        assert!(plaintext.is_empty());
    }
}

#[test]
fn a_handshake_message_in_ever_more_records_is_refused() {
    let mut options = client_options();
    options.primitives.versions = Versions { tls12: true, tls13: false };
    let config = server_config(server_options(both_kinds()));
    let mut link = Link::new(&config, &client_config(options), "example.com");
    let hello = std::mem::take(&mut link.to_server);
    link.serve(&hello).unwrap();
    // A ClientKeyExchange of 60,000 bytes, with a record for each of them.
    let message = [&[16, 0, 0xea, 0x60][..], &[0; 60_000]].concat();
    let records: Vec<u8> = message.iter().flat_map(|byte| [0x16, 3, 3, 0, 1, *byte]).collect();
    let refused = records.chunks(8192).position(|piece| {
        link.serve(piece).map_err(|error| assert_eq!(error.fault, Fault::Broken, "{error}")).is_err()
    });
    assert!(refused.is_some_and(|pieces| pieces <= 8), "64 KiB are kept: {refused:?}");
}

#[test]
fn sides_without_a_common_version_part() {
    let mut options = server_options(both_kinds());
    options.primitives.versions = Versions { tls12: false, tls13: true };
    let mut client = client_options();
    client.primitives.versions = Versions { tls12: true, tls13: false };
    let error =
        Link::new(&server_config(options), &client_config(client), "example.com").settle().unwrap_err();
    assert_eq!(error.fault, Fault::Handshake);
    let mut none = server_options(both_kinds());
    none.primitives.versions = Versions { tls12: false, tls13: false };
    assert!(ServerTlsConfig::new(none).is_err());
}

#[test]
fn new_certificates_serve_from_the_next_handshake_on() {
    let config = server_config(server_options(vec![pair!("server-rsa")]));
    let client = client_config(client_options());
    Link::new(&config, &client, "example.com").talk();
    config.certificates().replace(vec![pair!("other")]);
    assert!(Link::new(&config, &client, "example.com").settle().is_err());
    Link::new(&config, &client, "other.test").talk();
    let apart = config.with_certificates(Arc::new(Certificates::new(both_kinds())));
    Link::new(&Arc::new(apart), &client, "example.com").talk();
}

#[test]
fn pairs_that_do_not_fit_are_told_apart_from_broken_files() {
    let load = |chain: &[u8], key: &[u8]| Pair::load(chain, key, &[], None).unwrap_err();
    let (chain, key) = (include_bytes!("fixtures/server-rsa.pem"), include_bytes!("fixtures/server-rsa.key"));
    let mismatch = load(chain, include_bytes!("fixtures/server-ec.key"));
    assert_eq!(mismatch.file, PairFile::Key);
    assert!(mismatch.message.starts_with("key values mismatch"));
    assert_eq!(load(b"", key).file, PairFile::Certificate);
    assert_eq!(load(chain, b"").file, PairFile::Key);
    assert_eq!(
        load(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", key).file,
        PairFile::Certificate
    );
    assert!(pair!("server-rsa").not_after() > NOW as i64);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_split_carries_the_same_plaintext(
        cuts in proptest::collection::vec(1usize..3000, 1..8),
        up in proptest::collection::vec(any::<u8>(), 0..40_000),
        down in proptest::collection::vec(any::<u8>(), 0..40_000),
        tls13 in any::<bool>(),
    ) {
        let config = server_config(server_options(vec![pair!("server-ec")]));
        let mut options = client_options();
        options.primitives.versions = Versions { tls12: !tls13, tls13 };
        let mut link = Link::new(&config, &client_config(options), "example.com");
        link.cuts = cuts;
        link.settle().unwrap();
        link.client.write(&up, &mut link.to_server);
        link.server.write(&down, &mut link.to_client);
        link.settle().unwrap();
        prop_assert_eq!(&link.at_server, &up);
        prop_assert_eq!(&link.at_client, &down);
    }
}

#[test]
fn a_handshake_byte_by_byte_succeeds() {
    let config = server_config(server_options(both_kinds()));
    let mut link = Link::new(&config, &client_config(client_options()), "example.com");
    link.cuts = vec![1];
    link.talk();
}

#[test]
fn sessions_of_tls_1_2_have_an_identifier_that_stays() {
    let session_id = |tls13: bool| {
        let mut options = server_options(both_kinds());
        options.sessions = Some(Arc::new(SessionCache::new(1 << 20, 300, clock())));
        let config = server_config(options);
        let mut options = client_options();
        options.primitives.versions = Versions { tls12: !tls13, tls13 };
        let client = client_config(options);
        let facts = [(); 2].map(|()| Link::new(&config, &client, "example.com").talk());
        assert_eq!(facts.each_ref().map(|facts| facts.reused), [false, true]);
        facts.map(|facts| facts.session_id)
    };
    let [first, second] = session_id(false);
    assert_eq!((first.len(), first), (32, second));
    assert_eq!(session_id(true), [Box::default(), Box::default()]);
}

#[test]
fn a_connection_is_given_to_the_kernel_between_records_only() {
    for (suites, tls13) in [
        ("AES128", false),
        ("AES256", false),
        ("CHACHA20", false),
        ("AES_128", true),
        ("AES_256", true),
        ("CHACHA20", true),
    ] {
        let mut options = server_options(both_kinds());
        options.kernel = true;
        let config = server_config(options);
        let mut options = client_options();
        options.primitives.versions = Versions { tls12: !tls13, tls13 };
        let wanted =
            |suite: &Suite| names::cipher(suite.suite().into()).is_some_and(|name| name.contains(suites));
        options.primitives.suites_1_2.retain(wanted);
        options.primitives.suites_1_3.retain(wanted);
        let mut link = Link::new(&config, &client_config(options), "example.com");
        assert_eq!(link.server.kernel_suite(), None, "before the handshake");
        link.talk();
        // Two records of plaintext, of which the second comes in two parts.
        link.client.write(b"one", &mut link.to_server);
        let first = link.to_server.len();
        link.client.write(b"two", &mut link.to_server);
        let bytes = std::mem::take(&mut link.to_server);
        for (from, to, is_free) in [
            (0, first, true),
            (first, first + 3, false),
            (first + 3, first + 9, false),
            (first + 9, bytes.len(), true),
        ] {
            link.serve(&bytes[from..to]).unwrap();
            assert_eq!(
                link.server.kernel_suite().is_some(),
                is_free,
                "{suites} after {to} of {}",
                bytes.len()
            );
        }
        let suite = link.server.kernel_suite().unwrap();
        let secrets = link.server.into_kernel().unwrap();
        assert_eq!((secrets.suite, suite.is_1_3), (suite, tls13));
        let length = if suites.contains("128") { 40 } else { 56 };
        assert_eq!((secrets.transmit.as_bytes().len(), secrets.receive.as_bytes().len()), (length, length));
        // The Finished of TLS 1.2 and what talk() said; the tickets of TLS 1.3, where the Finished has keys of its own.
        assert!(secrets.sent_records >= 2 - u64::from(tls13), "{}", secrets.sent_records);
        assert!(link.server.into_kernel().is_err(), "once");
    }
    let config = server_config(server_options(both_kinds()));
    let mut link = Link::new(&config, &client_config(client_options()), "example.com");
    link.talk();
    assert_eq!(link.server.kernel_suite(), None, "only where it is asked for");
}
