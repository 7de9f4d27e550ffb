//! From data (file contents, lists of names) to the library's configurations, for servers and for upstreams.

use std::sync::{Arc, OnceLock, RwLock};

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, Error, ServerConfig, SignatureScheme, SupportedCipherSuite};
use rustls::{InconsistentKeys, SupportedProtocolVersion};

use super::certificate::Certificate;
use super::client_sessions::ClientSessions;
use super::clock::TlsClock;
use super::names;
use super::sessions::SessionCache;
use super::tickets::TicketKeys;
use super::verify::{ClientAuth, ClientVerifier, Trust, UpstreamVerifier};
use super::{pem, private_key};

/// Bytes of early data that a client may send: what OpenSSL lets it.
pub const MAX_EARLY_DATA: u32 = 16 * 1024;
/// The most that one record holds, in bytes (RFC 8446, 5.1).
pub const MAX_RECORD: usize = 16 * 1024;
/// What a record's header takes.
const RECORD_HEADER: usize = 5;
/// The library's least size of a record with its header.
const LEAST_FRAGMENT: usize = 32;

/// The library's algorithms for signatures.
pub(super) fn algorithms() -> &'static WebPkiSupportedAlgorithms {
    &provider().signature_verification_algorithms
}

fn provider() -> &'static CryptoProvider {
    static PROVIDER: OnceLock<CryptoProvider> = OnceLock::new();
    PROVIDER.get_or_init(aws_lc_rs::default_provider)
}

/// Which of the two files of a pair is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairFile {
    /// The chain of certificates.
    Certificate,
    /// The private key.
    Key,
}

/// What is wrong with a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairError {
    /// Where.
    pub file: PairFile,
    /// In words.
    pub message: String,
}

/// A chain of certificates with its key.
#[derive(Clone, Debug)]
pub struct Pair {
    key: Arc<CertifiedKey>,
    not_after: i64,
}

impl Pair {
    /// Reads a pair from the text of two PEM files, the server's own certificate first. `staple` is an OCSP response
    /// in DER that is sent along.
    pub fn load(
        chain: &[u8],
        key: &[u8],
        passwords: &[Vec<u8>],
        staple: Option<&[u8]>,
    ) -> Result<Pair, PairError> {
        let fail = |file| move |message: String| PairError { file, message };
        let chain = pem::of_label(chain, "CERTIFICATE").map_err(fail(PairFile::Certificate))?;
        let Some(first) = chain.first() else {
            return Err(fail(PairFile::Certificate)("no certificate in the file".to_owned()));
        };
        let not_after = match Certificate::parse(first) {
            Ok(certificate) => certificate.not_after(),
            Err(_) => return Err(fail(PairFile::Certificate)("bad certificate".to_owned())),
        };
        let key = private_key::load(key, passwords).map_err(fail(PairFile::Key))?;
        let chain = chain.into_iter().map(CertificateDer::from).collect();
        let mut key = CertifiedKey::from_der(chain, key, provider()).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                fail(PairFile::Key)("key values mismatch: it is not the certificate's key".to_owned())
            }
            Error::InvalidCertificate(_) => fail(PairFile::Certificate)(error.to_string()),
            error => fail(PairFile::Key)(error.to_string()),
        })?;
        key.ocsp = staple.map(<[u8]>::to_vec);
        Ok(Pair { key: Arc::new(key), not_after })
    }

    /// The last moment at which the server's own certificate is valid, in seconds since 1970.
    pub fn not_after(&self) -> i64 {
        self.not_after
    }
}

/// The pairs of one server, replaced as a whole when files change. Locked for reading once in each handshake.
pub struct Certificates(RwLock<Arc<[Pair]>>);

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificates")
    }
}

impl Certificates {
    /// These pairs; among those that suit a client its own order of signature schemes decides.
    pub fn new(pairs: Vec<Pair>) -> Certificates {
        Certificates(RwLock::new(pairs.into()))
    }

    /// Puts others in their place: handshakes from now on see only these.
    pub fn replace(&self, pairs: Vec<Pair>) {
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = pairs.into();
    }

    /// The present pairs.
    pub fn pairs(&self) -> Arc<[Pair]> {
        Arc::clone(&self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// The pair for a client that accepts these schemes, with the scheme that it signs with.
    pub fn choose(&self, offered: &[SignatureScheme]) -> Option<(Arc<CertifiedKey>, SignatureScheme)> {
        let pairs = self.pairs();
        offered.iter().find_map(|scheme| {
            let pair = pairs.iter().find(|pair| pair.key.key.choose_scheme(&[*scheme]).is_some())?;
            // The key has an order of its own among what it is offered.
            let signer = pair.key.key.choose_scheme(offered)?;
            Some((Arc::clone(&pair.key), signer.scheme()))
        })
    }
}

/// Chooses among a server's pairs, as far as the server's versions and suites let each be used.
#[derive(Debug)]
struct Resolver {
    certificates: Arc<Certificates>,
    versions: Versions,
    suites_1_2: Vec<SupportedCipherSuite>,
    suites_1_3: Vec<SupportedCipherSuite>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let offers = |suite: &&SupportedCipherSuite| hello.cipher_suites().contains(&suite.suite());
        if self.versions.tls13 && self.suites_1_3.iter().any(|suite| offers(&suite)) {
            return self.certificates.choose(hello.signature_schemes()).map(|(key, _)| key);
        }
        // In TLS 1.2 the suite names the kind of key.
        let common = self.suites_1_2.iter().filter(offers);
        let (mut rsa, mut other) = (false, false);
        for name in common.filter_map(|suite| names::cipher(suite.suite().into())) {
            *if name.contains("-RSA-") { &mut rsa } else { &mut other } = true;
        }
        let fits = |scheme: &&SignatureScheme| if names::is_rsa((**scheme).into()) { rsa } else { other };
        let schemes: Vec<SignatureScheme> = hello.signature_schemes().iter().filter(fits).copied().collect();
        self.certificates.choose(&schemes).map(|(key, _)| key)
    }
}

/// Protocol versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// TLS 1.2
    pub tls12: bool,
    /// TLS 1.3
    pub tls13: bool,
}

impl Versions {
    /// TLS 1.2 and 1.3.
    pub const DEFAULT: Versions = Versions { tls12: true, tls13: true };

    fn list(self) -> Vec<&'static SupportedProtocolVersion> {
        [(self.tls13, &TLS13), (self.tls12, &TLS12)]
            .into_iter()
            .filter_map(|(wanted, version)| wanted.then_some(version))
            .collect()
    }
}

/// What both sides of connections are made with.
#[derive(Clone)]
pub struct Primitives {
    /// Versions of the protocol.
    pub versions: Versions,
    /// Suites of TLS 1.2, the most wanted first.
    pub suites_1_2: Vec<SupportedCipherSuite>,
    /// Suites of TLS 1.3, the most wanted first.
    pub suites_1_3: Vec<SupportedCipherSuite>,
    /// Key exchange groups, the most wanted first.
    pub groups: Vec<&'static dyn SupportedKxGroup>,
}

impl Default for Primitives {
    fn default() -> Primitives {
        let suites = |list: &'static [names::Cipher]| list.iter().map(|cipher| cipher.suite).collect();
        Primitives {
            versions: Versions::DEFAULT,
            suites_1_2: suites(names::CIPHERS_1_2),
            suites_1_3: suites(names::CIPHERS_1_3),
            groups: names::default_groups(),
        }
    }
}

impl Primitives {
    fn provider(&self) -> Arc<CryptoProvider> {
        let cipher_suites = self.suites_1_3.iter().chain(&self.suites_1_2).copied().collect();
        Arc::new(CryptoProvider { cipher_suites, kx_groups: self.groups.clone(), ..provider().clone() })
    }
}

/// What a server's configuration is made of.
pub struct ServerOptions {
    /// Versions, suites, groups.
    pub primitives: Primitives,
    /// Whether our order of suites decides rather than the client's.
    pub prefer_server_ciphers: bool,
    /// The server's pairs; without any, only `reject` is of use.
    pub certificates: Arc<Certificates>,
    /// Whether clients are asked for certificates.
    pub client_auth: ClientAuth,
    /// Authorities that are named to clients (PEM).
    pub client_authorities: Vec<Arc<[u8]>>,
    /// By what clients' certificates are measured.
    pub client_trust: Arc<Trust>,
    /// Sessions that we keep for clients.
    pub sessions: Option<Arc<SessionCache>>,
    /// Sessions that clients keep themselves. With early data these have no effect: each early session is good once,
    /// which only we can see to (RFC 8446, 8.1).
    pub tickets: Option<Arc<TicketKeys>>,
    /// Whether early data is taken; it needs `sessions`.
    pub early_data: bool,
    /// How many bytes a record may hold (`ssl_buffer_size`).
    pub record_size: usize,
    /// Protocols, the most wanted first (ALPN). A client that names others only is refused.
    pub protocols: Vec<Vec<u8>>,
    /// Whether certificates go compressed to clients that take them so (RFC 8879).
    pub compress_certificates: bool,
    /// Whether every handshake is refused (`ssl_reject_handshake`).
    pub reject: bool,
    /// Whether connections may be given to the kernel: their secrets can be had then.
    pub kernel: bool,
    /// The time.
    pub clock: Arc<TlsClock>,
}

/// A server's side of TLS, frozen.
#[derive(Debug)]
pub struct ServerTlsConfig {
    pub(super) inner: Arc<ServerConfig>,
    pub(super) certificates: Arc<Certificates>,
    versions: Versions,
    pub(super) client_auth: ClientAuth,
    pub(super) client_trust: Arc<Trust>,
    pub(super) reject: bool,
    pub(super) kernel: bool,
    /// The most that a record holds, in bytes of plaintext.
    pub(super) record_size: usize,
    pub(super) clock: Arc<TlsClock>,
}

impl ServerTlsConfig {
    /// Puts it together. The error says which of the choices leave nothing in common.
    pub fn new(options: ServerOptions) -> Result<ServerTlsConfig, String> {
        let clock = Arc::clone(&options.clock);
        let builder = ServerConfig::builder_with_details(options.primitives.provider(), clock)
            .with_protocol_versions(&options.primitives.versions.list())
            .map_err(|error| error.to_string())?;
        let builder = match options.client_auth {
            ClientAuth::Off => builder.with_no_client_auth(),
            _ => {
                let authorities: Vec<&[u8]> = options.client_authorities.iter().map(|text| &**text).collect();
                builder.with_client_cert_verifier(Arc::new(ClientVerifier::new(&authorities)?))
            }
        };
        let resolver = Resolver {
            certificates: Arc::clone(&options.certificates),
            versions: options.primitives.versions,
            suites_1_2: options.primitives.suites_1_2,
            suites_1_3: options.primitives.suites_1_3,
        };
        let mut inner = builder.with_cert_resolver(Arc::new(resolver));
        inner.enable_secret_extraction = options.kernel;
        inner.ignore_client_order = options.prefer_server_ciphers;
        inner.max_fragment_size = fragment_size(options.record_size);
        let record_size = inner.max_fragment_size.map_or(MAX_RECORD, |size| size - RECORD_HEADER);
        inner.alpn_protocols = options.protocols;
        match (&options.sessions, options.early_data) {
            (Some(sessions), true) => {
                inner.session_storage = Arc::clone(sessions) as _;
                inner.max_early_data_size = MAX_EARLY_DATA;
                inner.send_half_rtt_data = true;
            }
            (Some(sessions), false) => inner.session_storage = Arc::clone(sessions) as _,
            (None, _) => inner.session_storage = Arc::new(NoServerSessionStorage {}),
        }
        if let Some(tickets) = options.tickets.filter(|_| inner.max_early_data_size == 0) {
            inner.ticketer = tickets;
        }
        if !options.compress_certificates {
            inner.cert_compressors = Vec::new();
        }
        Ok(ServerTlsConfig {
            inner: Arc::new(inner),
            certificates: options.certificates,
            versions: options.primitives.versions,
            client_auth: options.client_auth,
            client_trust: options.client_trust,
            reject: options.reject,
            kernel: options.kernel,
            record_size,
            clock: options.clock,
        })
    }

    /// Whether connections may be given to the kernel.
    pub fn wants_kernel(&self) -> bool {
        self.kernel
    }

    /// The same for a client that may choose between these protocols, the most wanted first.
    pub fn with_protocols(&self, protocols: &[&[u8]]) -> ServerTlsConfig {
        let mut inner = ServerConfig::clone(&self.inner);
        inner.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        ServerTlsConfig {
            inner: Arc::new(inner),
            certificates: Arc::clone(&self.certificates),
            client_trust: Arc::clone(&self.client_trust),
            clock: Arc::clone(&self.clock),
            ..*self
        }
    }

    /// The same with other pairs: for certificates whose names depend on the client.
    pub fn with_certificates(&self, pairs: Arc<Certificates>) -> ServerTlsConfig {
        let mut inner = ServerConfig::clone(&self.inner);
        let suites = inner.crypto_provider().cipher_suites.iter().copied();
        let (suites_1_3, suites_1_2) = suites.partition(|suite| suite.tls13().is_some());
        let (certificates, versions) = (Arc::clone(&pairs), self.versions);
        inner.cert_resolver = Arc::new(Resolver { certificates, versions, suites_1_2, suites_1_3 });
        ServerTlsConfig {
            inner: Arc::new(inner),
            certificates: pairs,
            client_trust: Arc::clone(&self.client_trust),
            clock: Arc::clone(&self.clock),
            ..*self
        }
    }

    /// The server's pairs.
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }
}

/// The library counts the header in.
fn fragment_size(record_size: usize) -> Option<usize> {
    match record_size {
        0 | MAX_RECORD.. => None,
        size => Some((size + RECORD_HEADER).max(LEAST_FRAGMENT)),
    }
}

/// What the configuration for an upstream is made of.
pub struct ClientOptions {
    /// Versions, suites, groups.
    pub primitives: Primitives,
    /// Our certificate for upstreams that ask for one.
    pub certificate: Option<Pair>,
    /// By what the upstream's certificate is measured; `None` if it is not.
    pub trust: Option<Arc<Trust>>,
    /// Whether the name is told to the upstream (SNI).
    pub send_name: bool,
    /// Whether sessions are taken up again.
    pub reuse_sessions: bool,
    /// Protocols, the most wanted first (ALPN).
    pub protocols: Vec<Vec<u8>>,
    /// The time.
    pub clock: Arc<TlsClock>,
}

/// Our side of TLS towards upstreams, frozen.
#[derive(Clone, Debug)]
pub struct ClientTlsConfig {
    pub(super) inner: Arc<ClientConfig>,
    /// Sessions to take up again; `None` if none is.
    pub(super) sessions: Option<Arc<ClientSessions>>,
    pub(super) verifies: bool,
    /// Our certificate for upstreams that ask for one.
    certificate: Option<Arc<Certificates>>,
}

/// Whatever an upstream asks for, there is one certificate for it.
#[derive(Debug)]
struct Only(Arc<Certificates>);

impl ResolvesClientCert for Only {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.pairs().first().map(|pair| Arc::clone(&pair.key))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ClientTlsConfig {
    /// Puts it together. The error says which of the choices leave nothing in common.
    pub fn new(options: ClientOptions) -> Result<ClientTlsConfig, String> {
        let verifies = options.trust.is_some();
        let builder = ClientConfig::builder_with_details(options.primitives.provider(), options.clock)
            .with_protocol_versions(&options.primitives.versions.list())
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(UpstreamVerifier::new(options.trust)));
        let certificate = options.certificate.map(|pair| Arc::new(Certificates::new(vec![pair])));
        let mut inner = match &certificate {
            None => builder.with_no_client_auth(),
            Some(certificate) => builder.with_client_cert_resolver(Arc::new(Only(Arc::clone(certificate)))),
        };
        inner.enable_sni = options.send_name;
        inner.alpn_protocols = options.protocols;
        inner.resumption = Resumption::disabled();
        let sessions = options.reuse_sessions.then(Arc::default);
        Ok(ClientTlsConfig { inner: Arc::new(inner), sessions, verifies, certificate })
    }

    /// The same with another certificate of ours, which sessions of its own go with: for certificates whose names depend
    /// on the request.
    pub fn with_certificate(&self, pair: Pair) -> ClientTlsConfig {
        let mut inner = ClientConfig::clone(&self.inner);
        let certificate = Arc::new(Certificates::new(vec![pair]));
        inner.client_auth_cert_resolver = Arc::new(Only(Arc::clone(&certificate)));
        let sessions = self.sessions.is_some().then(Arc::default);
        ClientTlsConfig {
            inner: Arc::new(inner),
            sessions,
            verifies: self.verifies,
            certificate: Some(certificate),
        }
    }

    /// Puts another certificate of ours in the place of the one that it was made with: handshakes from now on see it, and
    /// take up no session that began with the other. Without effect where it was made with none.
    pub fn replace_certificate(&self, pair: Pair) {
        if let Some(certificate) = &self.certificate {
            certificate.replace(vec![pair]);
            if let Some(sessions) = &self.sessions {
                sessions.clear();
            }
        }
    }

    /// The last moment at which our certificate is valid, in seconds since 1970; `None` if there is none.
    pub fn not_after(&self) -> Option<i64> {
        self.certificate.as_ref()?.pairs().first().map(Pair::not_after)
    }
}
