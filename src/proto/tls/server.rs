//! The server's side of one connection.

use std::io::IoSlice;
use std::sync::Arc;

use rustls::pki_types::UnixTime;
use rustls::server::{Accepted, AcceptedAlert, Acceptor, UnbufferedServerConnection};
use rustls::time_provider::TimeProvider;
use rustls::{HandshakeKind, ProtocolVersion};

use super::config::ServerTlsConfig;
use super::error::{Fault, TlsError};
use super::facts::{ClientCertificate, Offer, TlsFacts};
use super::kernel::{KernelSecrets, KernelSuite};
use super::machine::Received;
use super::names;
use super::unbuffered::Unbuffered;
use super::verify::{ClientAuth, Purpose, take_client_scheme};

/// Whether a connection that begins with this byte speaks TLS. Plain HTTP does not: it gets nginx's status 497.
pub fn looks_like_tls(first: u8) -> bool {
    // A handshake record, or what SSL 2 began with.
    first == 0x16 || first & 0x80 != 0
}

/// A fatal alert `unrecognized_name` in the clear (RFC 6066, 3), as `ssl_reject_handshake` sends it.
const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 112];

/// What a client says of itself before anything is decided.
#[derive(Clone, Copy, Debug)]
pub struct Hello<'a> {
    /// The name that it asks for, in lower case.
    pub server_name: Option<&'a str>,
    /// What it offers.
    pub offer: &'a Offer,
}

/// See the module's documentation. The order of calls: `receive` until it says [`Received::Hello`], `hello`, `choose`,
/// then `receive` again with what is left of the input, and so on; `write` and `close` once `is_open`.
pub struct ServerTls {
    state: State,
}

enum State {
    /// The ClientHello is not whole yet.
    Waiting(Box<Waiting>),
    /// It is; a configuration is to be chosen.
    Hello(Box<Greeted>),
    /// Handshake and what follows.
    Chosen(Box<Chosen>),
    /// An error was returned, or the configuration refused.
    Failed,
}

#[derive(Default)]
struct Waiting {
    acceptor: Acceptor,
    /// What the acceptor took: the connection begins with it once more, as only the library's buffered kind could go on
    /// from where the acceptor is.
    taken: Vec<u8>,
}

struct Greeted {
    taken: Vec<u8>,
    server_name: Box<str>,
    offer: Offer,
}

struct Chosen {
    connection: Unbuffered,
    config: Arc<ServerTlsConfig>,
    server_name: Box<str>,
    /// Taken by the facts.
    offer: Offer,
    client_scheme: u16,
    /// Of the ServerHello, `None` before it.
    session_id: Option<Box<[u8]>>,
}

impl Default for ServerTls {
    fn default() -> ServerTls {
        ServerTls::new()
    }
}

impl ServerTls {
    /// For a connection that was just accepted.
    pub fn new() -> ServerTls {
        ServerTls { state: State::Waiting(Box::default()) }
    }

    /// Takes bytes of the peer: appends the plaintext in them to `plaintext`, and what is to be sent to `output`. All
    /// of the input is used unless the answer is [`Received::Hello`]. After an error `output` has the alert, and the
    /// machine is of no further use.
    pub fn receive(
        &mut self,
        input: &mut &[u8],
        plaintext: &mut Vec<u8>,
        output: &mut Vec<u8>,
    ) -> Result<Received, TlsError> {
        match &mut self.state {
            State::Waiting(waiting) => match accept(waiting, input, output) {
                Ok(None) => Ok(Received::NeedMore),
                Ok(Some(accepted)) => {
                    let taken = std::mem::take(&mut waiting.taken);
                    self.state = State::Hello(Box::new(Greeted::new(&accepted, taken)));
                    Ok(Received::Hello)
                }
                Err(error) => {
                    self.state = State::Failed;
                    Err(error)
                }
            },
            State::Hello(_) => Ok(Received::Hello),
            State::Chosen(chosen) => {
                let result = chosen.receive(input, plaintext, output);
                if result.is_err() {
                    self.state = State::Failed;
                }
                result
            }
            State::Failed => {
                *input = &[];
                Ok(Received::Closed)
            }
        }
    }

    /// What the client said, while a configuration is to be chosen.
    pub fn hello(&self) -> Option<Hello<'_>> {
        match &self.state {
            State::Hello(greeted) => {
                let name = Some(&*greeted.server_name).filter(|name| !name.is_empty());
                Some(Hello { server_name: name, offer: &greeted.offer })
            }
            _ => None,
        }
    }

    /// Goes on with this configuration. Does nothing unless there is a hello.
    pub fn choose(&mut self, config: &Arc<ServerTlsConfig>, output: &mut Vec<u8>) -> Result<(), TlsError> {
        let greeted = match std::mem::replace(&mut self.state, State::Failed) {
            State::Hello(greeted) => *greeted,
            other => {
                self.state = other;
                return Ok(());
            }
        };
        if config.reject {
            output.extend_from_slice(&UNRECOGNIZED_NAME);
            return Err(TlsError::new(Fault::Refused, "handshake rejected"));
        }
        let chosen = Chosen {
            connection: Unbuffered::new(
                UnbufferedServerConnection::new(Arc::clone(&config.inner))?,
                greeted.taken,
            ),
            config: Arc::clone(config),
            server_name: greeted.server_name,
            offer: greeted.offer,
            client_scheme: 0,
            session_id: None,
        };
        self.state = State::Chosen(Box::new(chosen));
        Ok(())
    }

    /// Whether plaintext may be written: the handshake is over, or early data came and may be answered.
    pub fn is_open(&self) -> bool {
        match &self.state {
            State::Chosen(chosen) => {
                !chosen.connection.connection().is_handshaking() || chosen.connection.had_early_data()
            }
            _ => false,
        }
    }

    /// Whether the handshake goes on.
    pub fn is_handshaking(&self) -> bool {
        match &self.state {
            State::Chosen(chosen) => chosen.connection.connection().is_handshaking(),
            State::Failed => false,
            _ => true,
        }
    }

    /// What is known of the connection; `None` until a handshake has come so far that it is open. Checks the client's
    /// certificate: ask once and keep the answer. What the client offered is in the first answer only.
    pub fn facts(&mut self) -> Option<TlsFacts> {
        if !self.is_open() {
            return None;
        }
        match &mut self.state {
            State::Chosen(chosen) => Some(chosen.facts()),
            _ => None,
        }
    }

    /// Appends the pieces, encrypted, in records as full as can be.
    pub fn write_vectored(&mut self, pieces: &[IoSlice<'_>], output: &mut Vec<u8>) {
        if let State::Chosen(chosen) = &mut self.state {
            chosen.connection.write(pieces, chosen.config.record_size, output);
        }
    }

    /// Appends the bytes, encrypted.
    pub fn write(&mut self, plaintext: &[u8], output: &mut Vec<u8>) {
        self.write_vectored(&[IoSlice::new(plaintext)], output);
    }

    /// What the kernel must know to take the connection over; `None` where the configuration does not let it, or not
    /// now: the handshake goes on, or a part of a record has come.
    pub fn kernel_suite(&self) -> Option<KernelSuite> {
        let State::Chosen(chosen) = &self.state else { return None };
        let connection = chosen.connection.connection();
        let is_free = chosen.connection.is_between_records() && !connection.is_handshaking();
        if !chosen.config.kernel || !is_free {
            return None;
        }
        let suite = connection.negotiated_cipher_suite()?;
        KernelSuite::of(suite.tls13().is_some(), names::cipher(suite.suite().into())?)
    }

    /// Gives the connection up for the kernel to go on with: what was to be sent must have been taken out, and the
    /// machine is of no further use.
    pub fn into_kernel(&mut self) -> Result<KernelSecrets, TlsError> {
        let internal = |why: &str| TlsError::new(Fault::Internal, why.to_owned());
        let State::Chosen(chosen) = std::mem::replace(&mut self.state, State::Failed) else {
            return Err(internal("no connection to give to the kernel"));
        };
        let connection = chosen.connection.into_connection();
        let is_1_3 = connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        let (secrets, _) = connection.dangerous_into_kernel_connection()?;
        KernelSecrets::new(is_1_3, secrets).ok_or_else(|| internal("a cipher that kernels do not have"))
    }

    /// Appends the notice that nothing more is sent (`close_notify`).
    pub fn close(&mut self, output: &mut Vec<u8>) {
        if let State::Chosen(chosen) = &mut self.state {
            // Before the handshake is over there is nobody to say it to.
            if !chosen.connection.connection().is_handshaking() || chosen.connection.had_early_data() {
                chosen.connection.close(output);
            }
        }
    }
}

/// The identifier in the ServerHello that these bytes begin with (RFC 5246, 7.4.1.3); the library does not tell it.
fn session_id(records: &[u8]) -> Option<&[u8]> {
    // A handshake record with a ServerHello; behind both headers version and random.
    let [0x16, 3, _, _, _, 2, _, _, _, rest @ ..] = records else { return None };
    let (length, rest) = rest.get(34..)?.split_first()?;
    rest.get(..usize::from(*length))
}

fn fail(error: rustls::Error, mut alert: AcceptedAlert, output: &mut Vec<u8>) -> TlsError {
    // A `Vec` takes everything.
    let _ = alert.write_all(output);
    error.into()
}

/// Feeds as much as a ClientHello needs. It may have more behind it.
fn accept(
    waiting: &mut Waiting,
    input: &mut &[u8],
    output: &mut Vec<u8>,
) -> Result<Option<Accepted>, TlsError> {
    while !input.is_empty() {
        let before = *input;
        let taken = waiting.acceptor.read_tls(input);
        let taken = taken.map_err(|error| TlsError::new(Fault::Internal, error.to_string()))?;
        waiting.taken.extend_from_slice(&before[..taken]);
        match waiting.acceptor.accept() {
            Ok(None) => {}
            Ok(found) => return Ok(found),
            Err((error, alert)) => return Err(fail(error, alert, output)),
        }
    }
    Ok(None)
}

impl Greeted {
    fn new(accepted: &Accepted, taken: Vec<u8>) -> Greeted {
        let hello = accepted.client_hello();
        let offer = Offer {
            ciphers: hello.cipher_suites().iter().map(|suite| (*suite).into()).collect(),
            groups: hello.named_groups().unwrap_or_default().iter().map(|group| (*group).into()).collect(),
            schemes: hello.signature_schemes().iter().map(|scheme| (*scheme).into()).collect(),
        };
        let server_name = hello.server_name().map(str::to_ascii_lowercase).unwrap_or_default().into();
        Greeted { taken, server_name, offer }
    }
}

impl Chosen {
    fn receive(
        &mut self,
        input: &mut &[u8],
        plaintext: &mut Vec<u8>,
        output: &mut Vec<u8>,
    ) -> Result<Received, TlsError> {
        let is_handshaking = self.connection.connection().is_handshaking();
        let asks_client = self.config.client_auth != ClientAuth::Off && is_handshaking;
        if asks_client {
            take_client_scheme();
        }
        let before = output.len();
        let result = self.connection.receive(input, plaintext, output);
        if self.session_id.is_none() && output.len() > before {
            self.session_id = Some(session_id(&output[before..]).unwrap_or_default().into());
        }
        if asks_client {
            self.client_scheme = take_client_scheme().max(self.client_scheme);
        }
        result
    }

    fn facts(&mut self) -> TlsFacts {
        let connection = self.connection.connection();
        let version = connection.protocol_version().unwrap_or(ProtocolVersion::TLSv1_2);
        let suite = connection.negotiated_cipher_suite().map(|suite| suite.suite().into());
        let reused = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        let group = connection.negotiated_key_exchange_group();
        let now = self.config.clock.current_time().unwrap_or(UnixTime::since_unix_epoch(Default::default()));
        let client =
            connection.peer_certificates().filter(|chain| !chain.is_empty()).map(|chain| ClientCertificate {
                der: chain[0].as_ref().into(),
                verdict: self.config.client_trust.verify(chain, Purpose::Client, now),
                scheme: self.client_scheme,
            });
        let cipher = suite.and_then(names::cipher).unwrap_or("unknown");
        let offer = std::mem::take(&mut self.offer);
        TlsFacts {
            protocol: names::protocol(version),
            cipher,
            group: group.map_or(0, |group| names::group_number(group.name())),
            scheme: if reused { 0 } else { self.own_scheme(version, cipher, &offer) },
            reused,
            session_id: match version {
                ProtocolVersion::TLSv1_2 => self.session_id.clone().unwrap_or_default(),
                _ => Box::default(),
            },
            server_name: self.server_name.clone(),
            alpn: connection.alpn_protocol().unwrap_or_default().into(),
            offer,
            client,
            early_data: (self.connection.had_early_data() && connection.is_handshaking()).into(),
        }
    }

    /// The scheme that our certificate signed with: the choice is repeated, since the library does not tell.
    fn own_scheme(&self, version: ProtocolVersion, cipher: &str, offer: &Offer) -> u16 {
        let is_possible = |scheme: &u16| match (version, scheme) {
            // In TLS 1.2 the suite names the kind of key.
            (ProtocolVersion::TLSv1_2, scheme) => names::is_rsa(*scheme) == cipher.contains("-RSA-"),
            // PKCS#1 signatures are for TLS 1.2 alone (RFC 8446, 4.2.3).
            (_, 0x0401 | 0x0501 | 0x0601) => false,
            _ => true,
        };
        let schemes: Vec<rustls::SignatureScheme> =
            offer.schemes.iter().copied().filter(is_possible).map(rustls::SignatureScheme::from).collect();
        self.config.certificates.choose(&schemes).map_or(0, |(_, scheme)| scheme.into())
    }
}
