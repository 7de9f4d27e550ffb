//! What is known of a TLS connection once its handshake is over: for variables, logs and rules about requests.

use std::cell::Cell;
use std::sync::Arc;

use super::verify::{ClientAuth, VerifyFailure};

/// What a client offered, as numbers of the wire; values that are sent to keep servers tolerant are left in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Cipher suites.
    pub ciphers: Box<[u16]>,
    /// Key exchange groups.
    pub groups: Box<[u16]>,
    /// Signature schemes.
    pub schemes: Box<[u16]>,
}

/// A client's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Its DER.
    pub der: Arc<[u8]>,
    /// What was said of it and its chain.
    pub verdict: Result<(), VerifyFailure>,
    /// With which signature scheme the client proved that it holds the key; 0 if an earlier connection did.
    pub scheme: u16,
}

/// What a rule about clients' certificates says of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientVerdict {
    /// Nothing against it.
    Fine,
    /// A certificate is needed, and none was sent (nginx's status 496).
    Missing,
    /// The certificate is refused (nginx's status 495).
    Refused(VerifyFailure),
}

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct TlsFacts {
    /// `TLSv1.3`
    pub protocol: &'static str,
    /// OpenSSL's name of the cipher suite.
    pub cipher: &'static str,
    /// Number of the key exchange group; 0 if there was none.
    pub group: u16,
    /// Number of the scheme that our certificate signed with; 0 if it did not sign.
    pub scheme: u16,
    /// Whether an earlier session was taken up.
    pub reused: bool,
    /// The session's identifier as the ServerHello named it, in TLS 1.2; empty where there is none. In TLS 1.3 sessions
    /// have none that both sides know.
    pub session_id: Box<[u8]>,
    /// The name that the client asked for, in lower case; empty if it named none.
    pub server_name: Box<str>,
    /// The protocol that was agreed upon; empty if none was.
    pub alpn: Box<[u8]>,
    /// What the client offered.
    pub offer: Offer,
    /// The client's certificate.
    pub client: Option<ClientCertificate>,
    /// Whether early data came and the handshake is not over yet, so that requests may be repeats (RFC 8470).
    pub early_data: Cell<bool>,
}

impl TlsFacts {
    /// Whether requests of the connection may be served by a server with this rule about clients' certificates.
    pub fn client_verdict(&self, rule: ClientAuth) -> ClientVerdict {
        match (rule, &self.client) {
            (ClientAuth::Off, _) => ClientVerdict::Fine,
            (ClientAuth::On, None) => ClientVerdict::Missing,
            (_, None) => ClientVerdict::Fine,
            (_, Some(client)) => match &client.verdict {
                Err(failure) if rule != ClientAuth::OptionalNoCa || !failure.is_about_issuer() => {
                    ClientVerdict::Refused(failure.clone())
                }
                _ => ClientVerdict::Fine,
            },
        }
    }
}
