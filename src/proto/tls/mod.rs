//! TLS without I/O: a thin layer over rustls, in the shape of our other machines.
//!
//! Bytes of the peer go in as slices, plaintext and bytes for the peer are appended to the caller's buffers:
//!
//! 1. [`ServerTls::receive`] takes what was read. At the ClientHello it stops, so that the caller may choose the
//!    configuration by the name in it ([`ServerTls::hello`], [`ServerTls::choose`]); [`ClientTls::start`] is the other
//!    side's beginning.
//! 2. Whatever the calls append to `output` is to be sent, alerts after an error included.
//! 3. Once a connection `is_open`, `facts` says what was agreed upon, and `write` encrypts.
//! 4. `close` says goodbye; [`Received::Closed`] is the peer's goodbye.
//!
//! Configurations are made from data, never from files: [`ServerTlsConfig`], [`ClientTlsConfig`]. The time is that of a
//! [`TlsClock`], which the shell sets. Randomness is the cryptographic library's own: there is no way around it in TLS.

mod certificate;
mod client;
mod client_sessions;
mod clock;
mod config;
mod der;
mod error;
mod facts;
pub mod fuzz;
mod kernel;
mod machine;
pub mod names;
pub mod pair_fuzz;
pub mod pem;
mod private_key;
mod server;
mod sessions;
#[cfg(test)]
mod tests;
mod tickets;
mod unbuffered;
mod verify;

/// A cipher suite.
pub type Suite = rustls::SupportedCipherSuite;
/// A key exchange group.
pub type Group = &'static dyn rustls::crypto::SupportedKxGroup;

pub use certificate::{Certificate, append_time};
pub use client::{ClientTls, UpstreamFacts};
pub use clock::TlsClock;
pub use config::{
    Certificates, ClientOptions, ClientTlsConfig, MAX_EARLY_DATA, MAX_RECORD, Pair, PairError, PairFile,
    Primitives, ServerOptions, ServerTlsConfig, Versions,
};
pub use error::{Fault, TlsError};
pub use facts::{ClientCertificate, ClientVerdict, Offer, TlsFacts};
pub use kernel::{KernelKeys, KernelSecrets, KernelSuite};
pub use machine::Received;
pub use server::{Hello, ServerTls, looks_like_tls};
pub use sessions::SessionCache;
pub use tickets::TicketKeys;
pub use verify::{ClientAuth, Purpose, Trust, VerifyFailure};
