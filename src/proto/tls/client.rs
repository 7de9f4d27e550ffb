//! Our side of one connection to an upstream.

use std::io::IoSlice;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::{DnsName, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion};

use super::client_sessions::PeerSessions;
use super::config::ClientTlsConfig;
use super::error::{Fault, TlsError};
use super::machine::{self, Received};
use super::names;

/// What is known of a connection to an upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamFacts {
    /// `TLSv1.3`
    pub protocol: &'static str,
    /// OpenSSL's name of the cipher suite.
    pub cipher: &'static str,
    /// Whether an earlier session was taken up.
    pub reused: bool,
    /// The protocol that was agreed upon; empty if none was.
    pub alpn: Box<[u8]>,
}

/// See the module's documentation. The handshake begins with what `start` appends; `write` and `close` are for later,
/// when it `is_open`.
pub struct ClientTls {
    connection: Box<ClientConnection>,
    failed: bool,
}

impl ClientTls {
    /// Begins a handshake with an upstream of this name (for its certificate, and for SNI where that is sent), which
    /// may be an address. `peer` tells those apart that share the name: each is offered its own sessions only, as no
    /// other could take them up. `output` takes what is to be sent.
    pub fn start(
        config: &ClientTlsConfig,
        peer: &str,
        name: &str,
        output: &mut Vec<u8>,
    ) -> Result<ClientTls, TlsError> {
        let name = match server_name(name) {
            Some(name) => name,
            // Nobody looks at it, and addresses are not sent.
            None if !config.verifies => ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()),
            None => {
                let message = format!("upstream SSL certificate does not match \"{name}\"");
                return Err(TlsError::new(Fault::Certificate, message));
            }
        };
        let inner = match &config.sessions {
            Some(sessions) => {
                let mut inner = ClientConfig::clone(&config.inner);
                inner.resumption = Resumption::store(Arc::new(PeerSessions::new(sessions, peer)));
                Arc::new(inner)
            }
            None => Arc::clone(&config.inner),
        };
        let mut connection = ClientConnection::new(inner, name)?;
        connection.set_buffer_limit(None);
        machine::gather(&mut connection, output);
        Ok(ClientTls { connection: Box::new(connection), failed: false })
    }

    /// Takes bytes of the upstream: appends the plaintext in them to `plaintext`, and what is to be sent to `output`.
    /// After an error `output` has the alert, and the machine is of no further use.
    pub fn receive(
        &mut self,
        input: &mut &[u8],
        plaintext: &mut Vec<u8>,
        output: &mut Vec<u8>,
    ) -> Result<Received, TlsError> {
        if self.failed {
            *input = &[];
            return Ok(Received::Closed);
        }
        let result = machine::feed(&mut *self.connection, input, plaintext, output, |_, _| {});
        self.failed = result.is_err();
        result
    }

    /// Whether the handshake is over.
    pub fn is_open(&self) -> bool {
        !self.failed && !self.connection.is_handshaking()
    }

    /// What is known of the connection.
    pub fn facts(&self) -> UpstreamFacts {
        let suite = self.connection.negotiated_cipher_suite().map(|suite| suite.suite().into());
        let version = self.connection.protocol_version().unwrap_or(ProtocolVersion::TLSv1_2);
        UpstreamFacts {
            protocol: names::protocol(version),
            cipher: suite.and_then(names::cipher).unwrap_or("unknown"),
            reused: self.connection.handshake_kind() == Some(HandshakeKind::Resumed),
            alpn: self.connection.alpn_protocol().unwrap_or_default().into(),
        }
    }

    /// Appends the pieces, encrypted, in records as full as can be.
    pub fn write_vectored(&mut self, pieces: &[IoSlice<'_>], output: &mut Vec<u8>) {
        machine::write(&mut self.connection, pieces, output);
    }

    /// Appends the bytes, encrypted.
    pub fn write(&mut self, plaintext: &[u8], output: &mut Vec<u8>) {
        self.write_vectored(&[IoSlice::new(plaintext)], output);
    }

    /// Appends the notice that nothing more is sent (`close_notify`).
    pub fn close(&mut self, output: &mut Vec<u8>) {
        if !self.failed {
            self.connection.send_close_notify();
            machine::gather(&mut self.connection, output);
        }
    }
}

fn server_name(name: &str) -> Option<ServerName<'static>> {
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Some(ServerName::IpAddress(address.into()));
    }
    DnsName::try_from(name.to_owned()).ok().map(ServerName::DnsName)
}
