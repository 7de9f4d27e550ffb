//! Laws of both sides against each other, in memory, with certificates of every kind. Each panics where its law is broken.

use std::sync::{Arc, OnceLock};

use super::{
    Certificates, ClientAuth, ClientOptions, ClientTls, ClientTlsConfig, MAX_RECORD, Pair, Primitives,
    Received, ServerOptions, ServerTls, ServerTlsConfig, SessionCache, TicketKeys, TlsClock, Trust, Versions,
    names,
};

/// When these certificates are valid, but for those that are not meant to be.
const NOW: u64 = 1_900_000_000;
const CA: &[u8] = include_bytes!("fixtures/ca.pem");
const SELF_SIGNED: &[u8] = include_bytes!("fixtures/self.pem");
const EXPIRED: &[u8] = include_bytes!("fixtures/server-expired.pem");
const REVOKED: &[u8] = include_bytes!("fixtures/ca.crl");
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
        ]
    })
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
    let revocations: &[&[u8]] = if wishes.has(b'r') { &[REVOKED] } else { &[] };
    let trusted: &[&[u8]] = if wishes.has(b'k') { &[SELF_SIGNED, EXPIRED] } else { &[CA] };
    Trust::new(trusted, revocations, 1).expect("trust")
}

fn server_config(
    wishes: &Wishes<'_>,
    primitives: Primitives,
    clock: &Arc<TlsClock>,
) -> Option<Arc<ServerTlsConfig>> {
    let pairs = server_pairs();
    let certificates = match wishes.number(b'S') {
        Some(at) => vec![pairs[at % pairs.len()].clone()],
        None => pairs[..2].to_vec(),
    };
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
        sessions: wishes.has(b's').then(|| Arc::new(SessionCache::new(1 << 20, 300, Arc::clone(clock)))),
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
        kernel: false,
        clock: Arc::clone(clock),
    };
    let config = ServerTlsConfig::new(options).ok()?;
    assert!(!config.certificates().pairs().is_empty());
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
    let config = ClientTlsConfig::new(options).ok()?;
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
/// its way, write, say goodbye.
fn talk(config: &Arc<ServerTlsConfig>, client: &ClientTlsConfig, name: &str, operations: &[u8]) {
    let mut to_server = Vec::new();
    let Ok(client) = ClientTls::start(client, "peer", name, &mut to_server) else {
        return assert!(to_server.is_empty(), "nothing is sent to nobody");
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
                link.server.write(&piece, &mut link.to_client);
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
    }
}

/// Law: whatever is on either side, and in whatever pieces bytes come, honest ends agree on everything or part; nothing
/// is read that was not written, also when the wire lies; a second connection with the sessions of the first does as
/// well. The first line says what the sides are made of, in letters, the next three list cipher suites, groups and the
/// upstream's name; then come operations of two bytes.
pub fn fuzz_pair(data: &[u8]) {
    let mut lines = data.splitn(5, |&byte| byte == b'\n');
    let mut next = || lines.next().unwrap_or_default();
    let wishes = Wishes(next());
    let mut text = || String::from_utf8_lossy(next()).into_owned();
    let (ciphers, groups, name) = (text(), text(), text());
    let operations = lines.next().unwrap_or_default();
    let of_server = Versions { tls12: !wishes.has(b'3'), tls13: !wishes.has(b'2') };
    let of_client = Versions { tls12: !wishes.has(b'4'), tls13: !wishes.has(b'1') };
    let clock = Arc::new(TlsClock::new(NOW));
    let Some(primitives) = primitives(&ciphers, &groups, of_server) else { return };
    let Some(config) = server_config(&wishes, primitives, &clock) else { return };
    let Some(client) = client_config(&wishes, of_client, &clock) else { return };
    talk(&config, &client, &name, operations);
    if wishes.has(b'u') {
        clock.set(NOW + if wishes.has(b'l') { 301 } else { 1 });
        talk(&config, &client, &name, operations);
    }
}
