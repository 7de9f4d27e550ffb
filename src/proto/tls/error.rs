//! What ends a TLS connection before its time.

use rustls::{AlertDescription, CertificateError, Error};

use super::verify::{VerifyFailure, WrongName};

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// What came is no TLS, or breaks its rules.
    Broken,
    /// Both sides have nothing in common, or the peer gave up.
    Handshake,
    /// The peer speaks no protocol within TLS that was offered (RFC 7301 section 3.2).
    Protocol,
    /// The peer's certificate is not believed.
    Certificate,
    /// The configuration refuses the handshake (`ssl_reject_handshake`).
    Refused,
    /// Ours.
    Internal,
}

/// See the module's documentation. The alert that tells the peer was put into the output already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError {
    /// Whose fault it is.
    pub fault: Fault,
    /// For the log.
    pub message: String,
}

impl std::fmt::Display for TlsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for TlsError {}

impl TlsError {
    /// An error of this kind.
    pub fn new(fault: Fault, message: impl Into<String>) -> TlsError {
        TlsError { fault, message: message.into() }
    }
}

impl From<Error> for TlsError {
    fn from(error: Error) -> TlsError {
        if let Error::InvalidCertificate(CertificateError::Other(other)) = &error {
            if let Some(failure) = other.0.downcast_ref::<VerifyFailure>() {
                let message = format!("upstream SSL certificate verify error: ({failure})");
                return TlsError::new(Fault::Certificate, message);
            }
            if let Some(wrong) = other.0.downcast_ref::<WrongName>() {
                return TlsError::new(Fault::Certificate, wrong.to_string());
            }
        }
        let fault = match &error {
            Error::InvalidCertificate(_) | Error::NoCertificatesPresented => Fault::Certificate,
            Error::InvalidMessage(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::PeerMisbehaved(_)
            | Error::PeerSentOversizedRecord
            | Error::DecryptError => Fault::Broken,
            Error::AlertReceived(AlertDescription::NoApplicationProtocol) => Fault::Protocol,
            Error::PeerIncompatible(_) | Error::AlertReceived(_) | Error::NoApplicationProtocol => {
                Fault::Handshake
            }
            _ => Fault::Internal,
        };
        TlsError::new(fault, error.to_string())
    }
}
