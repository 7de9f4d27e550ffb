//! Laws of this machine, for property tests and fuzz targets. Each panics where its law is broken.

use std::sync::{Arc, OnceLock};

use super::{
    Certificate, Certificates, ClientAuth, MAX_RECORD, Pair, Primitives, Received, ServerOptions, ServerTls,
    ServerTlsConfig, TlsClock, Trust, looks_like_tls, names, pem, private_key,
};

/// A server without certificates: every ClientHello is read, and none is served.
pub fn config() -> &'static Arc<ServerTlsConfig> {
    static CONFIG: OnceLock<Arc<ServerTlsConfig>> = OnceLock::new();
    CONFIG.get_or_init(|| {
        let options = ServerOptions {
            primitives: Primitives::default(),
            prefer_server_ciphers: false,
            certificates: Arc::new(Certificates::new(Vec::new())),
            client_auth: ClientAuth::Optional,
            client_authorities: Vec::new(),
            client_trust: Arc::new(Trust::new(&[], &[], 1).expect("no certificates")),
            sessions: None,
            tickets: None,
            early_data: false,
            record_size: MAX_RECORD,
            protocols: vec![b"http/1.1".to_vec()],
            compress_certificates: true,
            reject: false,
            kernel: false,
            clock: Arc::new(TlsClock::new(1_900_000_000)),
        };
        Arc::new(ServerTlsConfig::new(options).expect("a configuration"))
    })
}

/// What reading `bytes` in pieces of `step` led to: what the hello said, how it ended, what was sent.
fn transcript(bytes: &[u8], step: usize) -> (Vec<String>, Vec<u8>) {
    let mut server = ServerTls::new();
    let (mut plaintext, mut output, mut events) = (Vec::new(), Vec::new(), Vec::new());
    for piece in bytes.chunks(step.max(1)) {
        let mut input = piece;
        let failure = loop {
            match server.receive(&mut input, &mut plaintext, &mut output) {
                Ok(Received::Hello) => {
                    let hello = server.hello().expect("a hello");
                    events.push(format!("{hello:?}"));
                    check_names(&hello.offer.ciphers, &hello.offer.groups, &hello.offer.schemes);
                    assert!(looks_like_tls(bytes[0]) && server.is_handshaking());
                    if let Err(error) = server.choose(config(), &mut output) {
                        break Some(error);
                    }
                }
                Ok(Received::NeedMore) => break assert_eq_empty(input),
                Ok(Received::Closed) => break None,
                Err(error) => break Some(error),
            }
        };
        if let Some(error) = failure {
            events.push(error.to_string());
            let sent = output.len();
            let mut more = bytes;
            assert_eq!(server.receive(&mut more, &mut plaintext, &mut output), Ok(Received::Closed));
            assert!(output.len() == sent && server.facts().is_none(), "nothing follows an error");
            break;
        }
    }
    assert!(plaintext.is_empty(), "without a key there is no plaintext");
    assert!(!server.is_open());
    (events, output)
}

/// Every number has a name.
fn check_names(ciphers: &[u16], groups: &[u16], schemes: &[u16]) {
    let mut text = Vec::new();
    for (numbers, append) in [
        (ciphers, names::append_cipher as fn(u16, &mut Vec<u8>)),
        (groups, names::append_group),
        (schemes, names::append_scheme),
    ] {
        for number in numbers {
            text.clear();
            append(*number, &mut text);
            assert!(!text.is_empty() && text.is_ascii());
        }
    }
}

fn assert_eq_empty<T>(input: &[u8]) -> Option<T> {
    assert!(input.is_empty(), "all of the input is used");
    None
}

/// Law: whatever a client sends first, any split of it leads to the same hello, the same error and the same alert; no
/// input panics; without a key no plaintext comes out.
pub fn fuzz_hello(bytes: &[u8], step: usize) {
    let whole = transcript(bytes, usize::MAX);
    for step in [step, 1] {
        assert_eq!(transcript(bytes, step), whole);
    }
}

/// Law: a certificate is refused or every part of it can be shown; PEM that was written reads as itself.
pub fn fuzz_certificate(der: &[u8]) {
    let mut text = Vec::new();
    pem::append("CERTIFICATE", der, &mut text);
    assert_eq!(pem::of_label(&text, "CERTIFICATE"), Ok(vec![der.to_vec()]));
    let _ = pem::sections(der);
    if let Err(error) = Pair::load(der, der, &[b"secret".to_vec()], None) {
        assert!(!error.message.is_empty());
    }
    if let Err(message) = private_key::load(der, &[b"secret".to_vec()]) {
        assert!(!message.is_empty());
    }
    let Ok(certificate) = Certificate::parse(der) else { return };
    let mut out = Vec::new();
    certificate.append_subject(&mut out);
    certificate.append_issuer(&mut out);
    assert!(out.is_ascii(), "names are escaped");
    certificate.append_legacy_subject(&mut out);
    certificate.append_legacy_issuer(&mut out);
    certificate.append_serial(&mut out);
    certificate.append_fingerprint(&mut out);
    super::append_time(certificate.not_after(), &mut out);
    assert!(certificate.days_left(0) >= 0);
    certificate.fallback_name();
    if certificate.is_self_issued() {
        let (mut subject, mut issuer) = (Vec::new(), Vec::new());
        certificate.append_subject(&mut subject);
        certificate.append_issuer(&mut issuer);
        assert_eq!(subject, issuer);
    }
}
