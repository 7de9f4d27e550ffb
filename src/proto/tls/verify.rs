//! Whether a peer's certificate is to be believed: clients' certificates (which decide about requests, not about
//! handshakes) and upstreams' (which end the handshake).

use std::cell::Cell;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use webpki::{
    BorrowedCertRevocationList, CertRevocationList, EndEntityCert, KeyUsage, RevocationCheckDepth,
    RevocationOptionsBuilder, UnknownStatusPolicy, anchor_from_trusted_cert,
};

use super::certificate::Certificate;
use super::config::algorithms;
use super::pem;

/// Why a certificate was refused: OpenSSL's number and text, which logs and variables show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyFailure {
    /// OpenSSL's `X509_V_ERR_` number.
    pub number: u32,
    /// OpenSSL's text.
    pub reason: &'static str,
}

impl VerifyFailure {
    const fn new(number: u32, reason: &'static str) -> VerifyFailure {
        VerifyFailure { number, reason }
    }

    /// Whether `ssl_verify_client optional_no_ca` forgives it: that nobody vouches for the certificate.
    pub fn is_about_issuer(&self) -> bool {
        matches!(self.number, 2 | 18..=21)
    }
}

impl std::fmt::Display for VerifyFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.number, self.reason)
    }
}

impl std::error::Error for VerifyFailure {}

/// What a certificate is shown for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A client shows it to us.
    Client,
    /// An upstream shows it to us.
    Server,
}

/// The certificates that are believed, and what limits the belief.
pub struct Trust {
    anchors: Vec<TrustAnchor<'static>>,
    /// The trusted certificates as they are: a peer may show one of them itself.
    certificates: Vec<CertificateDer<'static>>,
    revoked: Vec<CertRevocationList<'static>>,
    /// Most certificates between the peer's and a trusted one.
    depth: usize,
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Trust({} certificates)", self.certificates.len())
    }
}

impl Trust {
    /// Trust in the certificates of PEM files; `revocations` are files with lists, of which every certificate of a
    /// chain must then have one. The error says what is wrong.
    pub fn new(trusted: &[&[u8]], revocations: &[&[u8]], depth: usize) -> Result<Trust, String> {
        let mut trust = Trust { anchors: Vec::new(), certificates: Vec::new(), revoked: Vec::new(), depth };
        for text in trusted {
            for der in pem::of_label(text, "CERTIFICATE")? {
                let der = CertificateDer::from(der);
                let anchor =
                    anchor_from_trusted_cert(&der).map_err(|error| format!("bad certificate: {error}"))?;
                trust.anchors.push(anchor.to_owned());
                trust.certificates.push(der);
            }
        }
        for text in revocations {
            for der in pem::of_label(text, "X509 CRL")? {
                let der = CertificateRevocationListDer::from(der);
                let list = BorrowedCertRevocationList::from_der(&der).and_then(|list| list.to_owned());
                let list = list.map_err(|error| format!("bad revocation list: {error}"))?;
                trust.revoked.push(list.into());
            }
        }
        Ok(trust)
    }

    /// Whether nothing is trusted.
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }

    /// Checks a chain, the peer's own certificate first. A trusted certificate needs no issuer: that is how self-made
    /// ones are believed.
    pub fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        purpose: Purpose,
        now: UnixTime,
    ) -> Result<(), VerifyFailure> {
        let Some((end, others)) = chain.split_first() else {
            return Err(VerifyFailure::new(1, "unspecified certificate verification error"));
        };
        if self.certificates.iter().any(|trusted| trusted == end) {
            return check_validity(end, now);
        }
        let parsed = EndEntityCert::try_from(end).map_err(|error| failure_of(&error, chain))?;
        let lists: Vec<&CertRevocationList> = self.revoked.iter().collect();
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Deny)
                .with_expiration_policy(webpki::ExpirationPolicy::Enforce)
                .build()
        });
        let usage = match purpose {
            Purpose::Client => KeyUsage::client_auth(),
            Purpose::Server => KeyUsage::server_auth(),
        };
        let too_long = |path: &webpki::VerifiedPath<'_>| {
            let count = path.intermediate_certificates().count();
            if count > self.depth { Err(webpki::Error::MaximumPathDepthExceeded) } else { Ok(()) }
        };
        parsed
            .verify_for_usage(
                algorithms().all,
                &self.anchors,
                others,
                now,
                usage,
                revocation,
                Some(&too_long),
            )
            .map(|_| ())
            .map_err(|error| failure_of(&error, chain))
    }
}

fn check_validity(der: &[u8], now: UnixTime) -> Result<(), VerifyFailure> {
    let certificate = Certificate::parse(der)
        .map_err(|_| VerifyFailure::new(1, "unspecified certificate verification error"))?;
    let now = now.as_secs() as i64;
    if now > certificate.not_after() {
        return Err(VerifyFailure::new(10, "certificate has expired"));
    }
    if now < certificate.not_before() {
        return Err(VerifyFailure::new(9, "certificate is not yet valid"));
    }
    Ok(())
}

/// The number and text that OpenSSL has for the same.
fn failure_of(error: &webpki::Error, chain: &[CertificateDer<'_>]) -> VerifyFailure {
    use webpki::Error;
    let (number, reason) = match error {
        Error::CertExpired { .. } => (10, "certificate has expired"),
        Error::CertNotValidYet { .. } => (9, "certificate is not yet valid"),
        Error::CertRevoked => (23, "certificate revoked"),
        Error::CrlExpired { .. } => (12, "CRL has expired"),
        Error::UnknownRevocationStatus => (3, "unable to get certificate CRL"),
        Error::InvalidCrlSignatureForPublicKey => (8, "CRL signature failure"),
        Error::InvalidSignatureForPublicKey => (7, "certificate signature failure"),
        // OpenSSL stops looking at the depth, and misses the issuer then.
        Error::MaximumPathDepthExceeded => (20, "unable to get local issuer certificate"),
        Error::PathLenConstraintViolated => (25, "path length constraint exceeded"),
        Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension => {
            (26, "unsuitable certificate purpose")
        }
        Error::CaUsedAsEndEntity => (26, "unsuitable certificate purpose"),
        Error::EndEntityUsedAsCa => (79, "invalid CA certificate"),
        Error::NameConstraintViolation => (47, "permitted subtree violation"),
        Error::UnknownIssuer => match chain {
            [end] if is_self_issued(end) => (18, "self-signed certificate"),
            [_] => (21, "unable to verify the first certificate"),
            [.., last] if is_self_issued(last) => (19, "self-signed certificate in certificate chain"),
            _ => (20, "unable to get local issuer certificate"),
        },
        _ => (1, "unspecified certificate verification error"),
    };
    // A self-made certificate says that it is an authority's: what is wrong with it is that nobody knows it.
    if matches!(error, Error::CaUsedAsEndEntity) && chain.first().is_some_and(|end| is_self_issued(end)) {
        return VerifyFailure::new(18, "self-signed certificate");
    }
    VerifyFailure::new(number, reason)
}

fn is_self_issued(der: &[u8]) -> bool {
    Certificate::parse(der).is_ok_and(|certificate| certificate.is_self_issued())
}

/// `ssl_verify_client`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// No certificate is asked for.
    #[default]
    Off,
    /// Requests without a certificate, and with a bad one, are refused.
    On,
    /// Requests with a bad certificate are refused.
    Optional,
    /// Requests are refused only if the certificate is bad in itself; nobody need vouch for it.
    OptionalNoCa,
}

/// Asks clients for certificates, and has them prove that they hold the key. Whether the certificate itself is good is
/// for the caller to say (the request is refused then, with a status that tells why), so every chain passes here.
#[derive(Debug)]
pub struct ClientVerifier {
    hints: Vec<DistinguishedName>,
}

impl ClientVerifier {
    /// Names the authorities of these PEM files to clients.
    pub fn new(authorities: &[&[u8]]) -> Result<ClientVerifier, String> {
        let mut hints = Vec::new();
        for text in authorities {
            for der in pem::of_label(text, "CERTIFICATE")? {
                let certificate = Certificate::parse(&der).map_err(|_| "bad certificate".to_owned())?;
                hints.push(DistinguishedName::in_sequence(certificate.subject_der()));
            }
        }
        Ok(ClientVerifier { hints })
    }
}

thread_local! {
    /// With which scheme the client whose bytes this thread is working on proved that it holds its key. The library
    /// hands verifiers no connection; it calls them while it works on that connection's bytes.
    static CLIENT_SCHEME: Cell<u16> = const { Cell::new(0) };
}

/// What the last client certificate on this thread was proved with; 0 if none was since this was asked last.
pub(super) fn take_client_scheme() -> u16 {
    CLIENT_SCHEME.replace(0)
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        CLIENT_SCHEME.set(signed.scheme.into());
        verify_tls12_signature(message, certificate, signed, algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        CLIENT_SCHEME.set(signed.scheme.into());
        verify_tls13_signature(message, certificate, signed, algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

/// The name in an upstream's certificate is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongName(String);

impl std::fmt::Display for WrongName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "upstream SSL certificate does not match \"{}\"", self.0)
    }
}

impl std::error::Error for WrongName {}

/// Checks upstreams' certificates; without trust every certificate passes (`proxy_ssl_verify off`).
#[derive(Debug)]
pub struct UpstreamVerifier {
    trust: Option<Arc<Trust>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl UpstreamVerifier {
    /// With `None` nothing is checked but that the upstream holds its key.
    pub fn new(trust: Option<Arc<Trust>>) -> UpstreamVerifier {
        UpstreamVerifier { trust, algorithms: *algorithms() }
    }
}

fn refused(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

impl ServerCertVerifier for UpstreamVerifier {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(trust) = &self.trust else { return Ok(ServerCertVerified::assertion()) };
        let chain: Vec<CertificateDer> = std::iter::once(end).chain(others).cloned().collect();
        trust.verify(&chain, Purpose::Server, now).map_err(refused)?;
        if !is_named(end, name) {
            return Err(refused(WrongName(name.to_str().into_owned())));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whether the certificate is for the name: by its alternative names, or without any by its common name, as OpenSSL
/// has it.
fn is_named(end: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    if EndEntityCert::try_from(end).is_ok_and(|end| end.verify_is_valid_for_subject_name(name).is_ok()) {
        return true;
    }
    let common = Certificate::parse(end).ok().and_then(|certificate| certificate.fallback_name());
    common.is_some_and(|common| common.eq_ignore_ascii_case(name.to_str().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CA: &[u8] = include_bytes!("fixtures/ca.pem");
    const CRL: &[u8] = include_bytes!("fixtures/ca.crl");
    const NOW: u64 = 1_900_000_000;

    fn chain(text: &[u8]) -> Vec<CertificateDer<'static>> {
        pem::of_label(text, "CERTIFICATE").unwrap().into_iter().map(CertificateDer::from).collect()
    }

    fn verify(trust: &Trust, text: &[u8], purpose: Purpose) -> String {
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(NOW));
        match trust.verify(&chain(text), purpose, now) {
            Ok(()) => "fine".into(),
            Err(failure) => failure.to_string(),
        }
    }

    fn trust(depth: usize) -> Trust {
        Trust::new(&[CA], &[], depth).unwrap()
    }

    #[test]
    fn chains_to_a_trusted_certificate_are_fine() {
        assert_eq!(verify(&trust(1), include_bytes!("fixtures/client.pem"), Purpose::Client), "fine");
        assert_eq!(verify(&trust(1), include_bytes!("fixtures/server-rsa.pem"), Purpose::Server), "fine");
        assert_eq!(verify(&trust(2), include_bytes!("fixtures/client-deep.pem"), Purpose::Client), "fine");
    }

    #[test]
    fn what_is_wrong_is_told_in_openssl_s_words() {
        let client = |text| verify(&trust(1), text, Purpose::Client);
        assert_eq!(client(include_bytes!("fixtures/client-expired.pem")), "10:certificate has expired");
        assert_eq!(
            client(include_bytes!("fixtures/client-deep.pem")),
            "20:unable to get local issuer certificate"
        );
        assert_eq!(client(include_bytes!("fixtures/self.pem")), "18:self-signed certificate");
        assert_eq!(client(include_bytes!("fixtures/server-ec.pem")), "26:unsuitable certificate purpose");
        let none = Trust::new(&[], &[], 1).unwrap();
        let orphan = verify(&none, include_bytes!("fixtures/client.pem"), Purpose::Client);
        assert_eq!(orphan, "21:unable to verify the first certificate");
    }

    #[test]
    fn revoked_certificates_are_refused() {
        let trust = Trust::new(&[CA], &[CRL], 3).unwrap();
        assert_eq!(verify(&trust, include_bytes!("fixtures/client.pem"), Purpose::Client), "fine");
        let revoked = verify(&trust, include_bytes!("fixtures/client-revoked.pem"), Purpose::Client);
        assert_eq!(revoked, "23:certificate revoked");
        let unlisted = verify(&trust, include_bytes!("fixtures/client-deep.pem"), Purpose::Client);
        assert_eq!(unlisted, "3:unable to get certificate CRL");
    }

    #[test]
    fn a_trusted_certificate_may_be_shown_itself() {
        let own = include_bytes!("fixtures/self.pem");
        let trust = Trust::new(&[own], &[], 1).unwrap();
        assert_eq!(verify(&trust, own, Purpose::Server), "fine");
    }

    #[test]
    fn only_doubts_about_the_issuer_are_forgiven() {
        let forgiven: Vec<u32> =
            (0..100).filter(|number| VerifyFailure::new(*number, "").is_about_issuer()).collect();
        assert_eq!(forgiven, [2, 18, 19, 20, 21]);
    }

    #[test]
    fn names_are_looked_for_in_the_right_place() {
        let is = |text: &[u8], name: &str| is_named(&chain(text)[0], &ServerName::try_from(name).unwrap());
        let server = include_bytes!("fixtures/server-ec.pem");
        assert!(is(server, "example.com") && is(server, "a.example.com") && is(server, "127.0.0.1"));
        assert!(!is(server, "example.org") && !is(server, "a.b.example.com"));
        assert!(is(include_bytes!("fixtures/self.pem"), "SELF.test"));
    }
}
