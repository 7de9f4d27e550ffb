//! Laws of both sides against each other, in memory, with certificates of every kind. Each panics where its law is broken.

use std::io::{IoSlice, Write};
use std::sync::{Arc, OnceLock};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::{
    Certificates, ClientAuth, ClientOptions, ClientTls, ClientTlsConfig, MAX_RECORD, Pair, Primitives,
    Received, ServerOptions, ServerTls, ServerTlsConfig, SessionCache, TicketKeys, TlsClock, Trust, Versions,
    machine, names, pem,
};

/// When these certificates are valid, but for those that are not meant to be.
const NOW: u64 = 1_900_000_000;
const CA: &[u8] = include_bytes!("fixtures/ca.pem");
const SELF_SIGNED: &[u8] = include_bytes!("fixtures/self.pem");
const EXPIRED: &[u8] = include_bytes!("fixtures/server-expired.pem");
const REVOKED: &[u8] = include_bytes!("fixtures/ca.crl");
const ENDED_LIST: &[u8] = include_bytes!("fixtures/ca-ended.crl");
/// Before the certificates are valid, and after.
const TOO_EARLY: u64 = 1_000_000_000;
const TOO_LATE: u64 = 6_000_000_000;
/// Rounds of delivery after which a handshake must be over, however small the pieces.
const MOST_ROUNDS: usize = 100_000;

macro_rules! pair {
    ($name:literal) => {
        Pair::load(
            include_bytes!(concat!("fixtures/", $name, ".pem")),
            include_bytes!(concat!("fixtures/", $name, ".key")),
            &[],
            None,
        )
        .expect("a pair")
    };
}

fn server_pairs() -> &'static [Pair] {
    static PAIRS: OnceLock<Vec<Pair>> = OnceLock::new();
    PAIRS.get_or_init(|| {
        vec![
            pair!("server-ec"),
            pair!("server-rsa"),
            pair!("server-expired"),
            pair!("server-revoked"),
            pair!("self"),
            pair!("other"),
            pair!("lower"),
            pair!("server-foreign-name"),
            pair!("server-too-deep"),
            pair!("server-by-server"),
        ]
    })
}

/// The server's pair whose certificate the authority did not sign as it is.
fn unsigned_pair() -> Pair {
    static PAIR: OnceLock<Pair> = OnceLock::new();
    let load = || {
        let text = falsified("CERTIFICATE", include_bytes!("fixtures/server-ec.pem"));
        Pair::load(&text, include_bytes!("fixtures/server-ec.key"), &[], None).expect("a pair")
    };
    PAIR.get_or_init(load).clone()
}

/// The same PEM with another last bit of its signature.
fn falsified(label: &str, text: &[u8]) -> Vec<u8> {
    let mut der = pem::of_label(text, label).expect("PEM").swap_remove(0);
    *der.last_mut().expect("a signature") ^= 1;
    let mut text = Vec::new();
    pem::append(label, &der, &mut text);
    text
}

fn client_pairs() -> &'static [Pair] {
    static PAIRS: OnceLock<Vec<Pair>> = OnceLock::new();
    PAIRS.get_or_init(|| {
        vec![
            pair!("client"),
            pair!("client-deep"),
            pair!("client-expired"),
            pair!("client-revoked"),
            pair!("self"),
            pair!("other"),
            pair!("server-ec"),
        ]
    })
}

/// What the first line asks for.
struct Wishes<'a>(&'a [u8]);

impl Wishes<'_> {
    fn has(&self, letter: u8) -> bool {
        self.0.contains(&letter)
    }

    /// The digit behind this letter.
    fn number(&self, letter: u8) -> Option<usize> {
        let at = self.0.iter().position(|&byte| byte == letter)?;
        self.0.get(at + 1).filter(|byte| byte.is_ascii_digit()).map(|byte| usize::from(byte - b'0'))
    }
}

/// Primitives out of lists such as `ssl_ciphers` and `ssl_ecdh_curve` take; `None` where nothing is left.
fn primitives(ciphers: &str, groups: &str, versions: Versions) -> Option<Primitives> {
    let mut primitives = Primitives { versions, ..Primitives::default() };
    let list = names::parse_ciphers(ciphers);
    assert!(list.suites.iter().all(|suite| names::cipher(suite.suite().into()).is_some()));
    if !ciphers.is_empty() {
        primitives.suites_1_2 = list.suites;
    }
    let list = names::parse_ciphersuites(ciphers);
    if !list.suites.is_empty() {
        primitives.suites_1_3 = list.suites;
    }
    let (known, unknown) = names::parse_groups(groups);
    assert!(groups == "auto" || known.len() + unknown.len() <= groups.split(':').count());
    if !groups.is_empty() {
        primitives.groups = known;
    }
    let is_usable = !primitives.groups.is_empty() && (!primitives.suites_1_2.is_empty() || versions.tls13);
    is_usable.then_some(primitives)
}

/// By what certificates are measured: the authority, perhaps with its list of revoked ones, or (with `k`) only such as
/// vouch for themselves.
fn trust(wishes: &Wishes<'_>) -> Trust {
    let falsified = if wishes.has(b'y') { falsified("X509 CRL", REVOKED) } else { Vec::new() };
    let revocations: &[&[u8]] = match () {
        () if wishes.has(b'y') => &[&falsified],
        () if wishes.has(b'o') => &[ENDED_LIST],
        () if wishes.has(b'r') => &[REVOKED],
        () => &[],
    };
    let trusted: &[&[u8]] = if wishes.has(b'k') { &[SELF_SIGNED, EXPIRED] } else { &[CA] };
    let trust = Trust::new(trusted, revocations, 1).expect("trust");
    assert!(!trust.is_empty());
    trust
}

fn server_config(
    wishes: &Wishes<'_>,
    primitives: Primitives,
    clock: &Arc<TlsClock>,
) -> Option<Arc<ServerTlsConfig>> {
    let pairs = server_pairs();
    let certificates = match wishes.number(b'S') {
        _ if wishes.has(b'x') => vec![unsigned_pair()],
        Some(at) => vec![pairs[at % pairs.len()].clone()],
        None => pairs[..2].to_vec(),
    };
    assert!(certificates.iter().all(|pair| pair.not_after() > 0));
    // Room for a few sessions, or for none.
    let sessions_bytes = wishes.number(b'c').map_or(1 << 20, |few| few * SessionCache::bytes_for(16));
    let options = ServerOptions {
        primitives,
        prefer_server_ciphers: wishes.has(b'p'),
        certificates: Arc::new(Certificates::new(certificates)),
        client_auth: match wishes.number(b'A') {
            Some(1) => ClientAuth::On,
            Some(2) => ClientAuth::Optional,
            Some(3) => ClientAuth::OptionalNoCa,
            _ => ClientAuth::Off,
        },
        client_authorities: vec![CA.into()],
        client_trust: Arc::new(trust(wishes)),
        sessions: (wishes.has(b's'))
            .then(|| Arc::new(SessionCache::new(sessions_bytes, 300, Arc::clone(clock)))),
        tickets: match wishes.number(b'T') {
            Some(size) => {
                TicketKeys::from_files(&[&[7; 80][..size * 16 % 96]], 300, Arc::clone(clock)).map(Arc::new)
            }
            None => wishes.has(b't').then(|| Arc::new(TicketKeys::random(300, Arc::clone(clock)))),
        },
        early_data: wishes.has(b'e'),
        record_size: if wishes.has(b'm') { 100 } else { MAX_RECORD },
        protocols: if wishes.has(b'h') { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { Vec::new() },
        compress_certificates: wishes.has(b'z'),
        reject: wishes.has(b'j'),
        kernel: wishes.has(b'K'),
        clock: Arc::clone(clock),
    };
    let secrets = (&options.sessions, &options.tickets, &options.certificates, &options.client_trust);
    assert!(format!("{secrets:?}").len() < 100, "secrets are not shown");
    let rule = options.client_auth;
    let config = ServerTlsConfig::new(options).ok()?;
    assert!(!config.certificates().pairs().is_empty());
    assert_eq!((config.wants_kernel(), config.client_auth()), (wishes.has(b'K'), rule));
    let config = if wishes.has(b'H') { config.with_protocols(&[b"http/1.1"]) } else { config };
    if wishes.has(b'R') {
        config.certificates().replace(pairs[..1].to_vec());
    }
    let others = wishes.has(b'W').then(|| Arc::new(Certificates::new(pairs[1..2].to_vec())));
    Some(Arc::new(match others {
        Some(others) => config.with_certificates(others),
        None => config,
    }))
}

fn client_config(wishes: &Wishes<'_>, versions: Versions, clock: &Arc<TlsClock>) -> Option<ClientTlsConfig> {
    let pairs = client_pairs();
    let options = ClientOptions {
        primitives: Primitives { versions, ..Primitives::default() },
        certificate: wishes.number(b'C').map(|at| pairs[at % pairs.len()].clone()),
        trust: wishes.has(b'v').then(|| Arc::new(trust(wishes))),
        send_name: !wishes.has(b'n'),
        reuse_sessions: wishes.has(b'u'),
        protocols: if wishes.has(b'h') { vec![b"http/1.1".to_vec()] } else { Vec::new() },
        clock: Arc::clone(clock),
    };
    let certificate = options.certificate.as_ref().map(Pair::not_after);
    let config = ClientTlsConfig::new(options).ok()?;
    assert_eq!(config.not_after(), certificate);
    Some(if wishes.has(b'w') { config.with_certificate(pairs[0].clone()) } else { config })
}

/// Both ends of a connection, and what is on its way.
struct Link {
    server: ServerTls,
    client: ClientTls,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    at_server: Vec<u8>,
    at_client: Vec<u8>,
    /// Whether either side gave up, or said goodbye.
    is_over: bool,
}

impl Link {
    /// Delivers at most `most` bytes each way.
    fn deliver(&mut self, config: &Arc<ServerTlsConfig>, most: usize) {
        let bytes: Vec<u8> = self.to_server.drain(..most.min(self.to_server.len())).collect();
        let mut input = &bytes[..];
        loop {
            match self.server.receive(&mut input, &mut self.at_server, &mut self.to_client) {
                Ok(Received::Hello) => {
                    assert!(self.server.hello().is_some());
                    if self.server.choose(config, &mut self.to_client).is_err() {
                        self.is_over = true;
                        break;
                    }
                }
                Ok(Received::NeedMore) => break,
                Ok(Received::Closed) | Err(_) => break self.is_over = true,
            }
        }
        let bytes: Vec<u8> = self.to_client.drain(..most.min(self.to_client.len())).collect();
        let mut input = &bytes[..];
        let received = self.client.receive(&mut input, &mut self.at_client, &mut self.to_server);
        self.is_over |= !matches!(received, Ok(Received::NeedMore));
    }
}

/// One connection. Of the two bytes of an operation the first says what to do: deliver pieces, change a byte that is on
/// its way, write, say goodbye. Returns whether a session was taken up.
fn talk(config: &Arc<ServerTlsConfig>, client: &ClientTlsConfig, name: &str, operations: &[u8]) -> bool {
    let mut to_server = Vec::new();
    let Ok(client) = ClientTls::start(client, "peer", name, &mut to_server) else {
        assert!(to_server.is_empty(), "nothing is sent to nobody");
        return false;
    };
    let mut link = Link {
        server: ServerTls::new(),
        client,
        to_server,
        to_client: Vec::new(),
        at_server: Vec::new(),
        at_client: Vec::new(),
        is_over: false,
    };
    let (mut request, mut response, mut is_tampered) = (Vec::new(), Vec::new(), false);
    let mut closed = [false; 2];
    for operation in operations.chunks_exact(2) {
        let amount = usize::from(operation[1]);
        match operation[0] % 6 {
            0 => link.deliver(config, 1 + amount * 8),
            1 => link.deliver(config, usize::MAX),
            // The library asserts, in builds that check it, that no alert follows a goodbye.
            2 if !closed.contains(&true) => {
                for wire in [&mut link.to_server, &mut link.to_client] {
                    if let Some(at) = amount.checked_rem(wire.len()).filter(|_| amount > 0) {
                        wire[at] ^= operation[0] | 1;
                        is_tampered = true;
                    }
                }
            }
            3 if link.client.is_open() && !closed[0] => {
                let piece = vec![operation[1]; amount * 3];
                link.client.write(&piece, &mut link.to_server);
                request.extend_from_slice(&piece);
            }
            4 if link.server.is_open() && !closed[1] => {
                let piece = vec![operation[1]; amount * 3];
                // In three parts, of which one is empty.
                let (front, behind) = piece.split_at(amount);
                let parts = [front, &[], behind].map(IoSlice::new);
                link.server.write_vectored(&parts, &mut link.to_client);
                response.extend_from_slice(&piece);
            }
            5 if amount == 0 && link.client.is_open() && !is_tampered => {
                link.client.close(&mut link.to_server);
                closed[0] = true;
            }
            5 if amount == 1 && link.server.is_open() && !is_tampered => {
                link.server.close(&mut link.to_client);
                closed[1] = true;
            }
            _ => {}
        }
    }
    for _ in 0..MOST_ROUNDS {
        if link.to_server.is_empty() && link.to_client.is_empty() {
            break;
        }
        link.deliver(config, usize::MAX);
    }
    assert!(
        request.starts_with(&link.at_server) && response.starts_with(&link.at_client),
        "only what was sent"
    );
    if !is_tampered && !link.is_over {
        assert!(link.client.is_open() && link.server.is_open(), "honest ends agree or part");
        assert!(link.at_server == request && link.at_client == response);
        let (ours, theirs) = (link.server.facts().expect("an open connection"), link.client.facts());
        assert_eq!(
            (ours.protocol, ours.cipher, ours.reused),
            (theirs.protocol, theirs.cipher, theirs.reused)
        );
        assert_eq!(ours.alpn, theirs.alpn);
        let verdicts = [ClientAuth::Off, ClientAuth::On, ClientAuth::Optional, ClientAuth::OptionalNoCa];
        assert!(verdicts.map(|rule| ours.client_verdict(rule)).contains(&super::ClientVerdict::Fine));
        let suite = link.server.kernel_suite();
        assert_eq!(suite.is_some(), config.wants_kernel(), "nothing waits, so the kernel may have it");
        if let Some(suite) = suite {
            let secrets = link.server.into_kernel().expect("secrets");
            assert_eq!(secrets.suite, suite);
            let length = suite.sample().as_bytes().len();
            assert_eq!([&secrets.transmit, &secrets.receive].map(|keys| keys.as_bytes().len()), [length; 2]);
            assert!(!format!("{secrets:?}").contains('['), "keys are not shown");
            assert!(link.server.into_kernel().is_err() && !link.server.is_open(), "once");
        }
    }
    link.client.is_open() && link.client.facts().reused
}

/// One connection of the library's own client, which sends early data where it has a session for it. The first
/// operation says in which pieces bytes come, the second what is changed on the wire; both are data, too. Returns what
/// the client sent first.
fn talk_early(config: &Arc<ServerTlsConfig>, client: &Arc<ClientConfig>, operations: &[u8]) -> Vec<u8> {
    let name = ServerName::try_from("example.com").expect("a name");
    let Ok(mut client) = ClientConnection::new(Arc::clone(client), name) else { return Vec::new() };
    let at = |index: usize| usize::from(operations.get(index).copied().unwrap_or(0));
    let taken = client.early_data().and_then(|mut early| early.write(operations).ok()).unwrap_or(0);
    let early = &operations[..taken];
    let mut server = ServerTls::new();
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    let (mut at_server, mut at_client) = (Vec::new(), Vec::new());
    machine::gather(&mut client, &mut to_server);
    let first_flight = to_server.clone();
    let tampered = at(1).checked_rem(first_flight.len()).filter(|_| at(0) % 2 == 1);
    if let Some(place) = tampered {
        to_server[place] ^= 1 | at(2) as u8;
    }
    let (mut has_asked, mut has_answered, mut is_over) = (false, false, false);
    while !(is_over || to_server.is_empty() && to_client.is_empty()) {
        for piece in std::mem::take(&mut to_server).chunks(1 + at(0) * 4) {
            is_over |= !serve(&mut server, config, piece, &mut at_server, &mut to_client);
        }
        if server.is_open() && !has_answered {
            let facts = server.facts().expect("an open connection");
            assert_eq!(facts.early_data.get(), server.is_handshaking(), "open so early by early data alone");
            server.write(b"answer", &mut to_client);
            has_answered = true;
        }
        let arrived = std::mem::take(&mut to_client);
        let mut input = &arrived[..];
        let received = machine::feed(&mut client, &mut input, &mut at_client, &mut to_server, |_, _| {});
        is_over |= received != Ok(Received::NeedMore);
        if !is_over && !client.is_handshaking() && !has_asked {
            machine::write(&mut client, &[IoSlice::new(b"late")], &mut to_server);
            has_asked = true;
        }
    }
    let with_early = [early, b"late"].concat();
    assert!(with_early.starts_with(&at_server) || b"late".starts_with(&at_server[..]), "what was sent");
    if tampered.is_none() && !is_over {
        assert!(!server.is_handshaking() && !server.facts().expect("facts").early_data.get());
        let accepted = client.is_early_data_accepted();
        assert_eq!(at_server, if accepted { &with_early[..] } else { b"late" });
        assert_eq!(at_client, b"answer");
    }
    first_flight
}

/// Gives a server bytes; whether it goes on.
fn serve(
    server: &mut ServerTls,
    config: &Arc<ServerTlsConfig>,
    mut input: &[u8],
    plaintext: &mut Vec<u8>,
    output: &mut Vec<u8>,
) -> bool {
    loop {
        match server.receive(&mut input, plaintext, output) {
            Ok(Received::Hello) if server.choose(config, output).is_ok() => {}
            Ok(Received::NeedMore) => return true,
            _ => return false,
        }
    }
}

/// Law: early data is read as it was sent or not at all, and never a second time.
fn early_data(config: &Arc<ServerTlsConfig>, client: &ClientTlsConfig, operations: &[u8]) {
    let mut client = ClientConfig::clone(&client.inner);
    client.enable_early_data = true;
    client.resumption = rustls::client::Resumption::in_memory_sessions(4);
    let client = Arc::new(client);
    talk_early(config, &client, &[]);
    let first_flight = talk_early(config, &client, operations);
    let play = || {
        let (mut again, mut plaintext, mut output) = (ServerTls::new(), Vec::new(), Vec::new());
        serve(&mut again, config, &first_flight, &mut plaintext, &mut output);
        plaintext.is_empty() && !again.is_open()
    };
    // What was changed on its way may have been no use of the session.
    let is_used = operations.first().is_none_or(|byte| byte % 2 == 0) || !play() || play();
    assert!(is_used && play(), "a first flight that is played again has no effect");
}

/// Law: whatever is on either side, and in whatever pieces bytes come, honest ends agree on everything or part; nothing
/// is read that was not written, also when the wire lies; a second connection with the sessions of the first does as
/// well. The first line says what the sides are made of, in letters, the next three list cipher suites, groups and the
/// upstream's name; then come operations of two bytes. With `E` the client is one that sends early data, and the
/// operations are that.
pub fn fuzz_pair(data: &[u8]) {
    let mut lines = data.splitn(5, |&byte| byte == b'\n');
    let mut next = || lines.next().unwrap_or_default();
    let wishes = Wishes(next());
    let mut text = || String::from_utf8_lossy(next()).into_owned();
    let (ciphers, groups, name) = (text(), text(), text());
    let operations = lines.next().unwrap_or_default();
    let of_server = Versions { tls12: !wishes.has(b'3'), tls13: !wishes.has(b'2') };
    let of_client = Versions { tls12: !wishes.has(b'4'), tls13: !wishes.has(b'1') };
    let now = match () {
        () if wishes.has(b'b') => TOO_EARLY,
        () if wishes.has(b'f') => TOO_LATE,
        () => NOW,
    };
    let clock = Arc::new(TlsClock::new(now));
    let Some(primitives) = primitives(&ciphers, &groups, of_server) else { return };
    let Some(config) = server_config(&wishes, primitives, &clock) else { return };
    let Some(client) = client_config(&wishes, of_client, &clock) else { return };
    if wishes.has(b'E') {
        return early_data(&config, &client, operations);
    }
    talk(&config, &client, &name, operations);
    if wishes.has(b'u') {
        clock.set(now + if wishes.has(b'l') { 301 } else { 1 });
        let is_replaced = wishes.has(b'q') && client.not_after().is_some();
        if is_replaced {
            client.replace_certificate(client_pairs()[0].clone());
        }
        let reused = talk(&config, &client, &name, operations);
        assert!(!(is_replaced && reused), "no session goes with another certificate");
    }
}
