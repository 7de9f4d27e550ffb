//! What a connection agreed upon, and who the client is.

use crate::base::percent::{Escape, escape};
use crate::http::exchange::Exchange;
use crate::http::variables::VariableEntry;
use crate::proto::tls::{Certificate, TlsFacts, append_time, names, pem};

/// A variable of connections under TLS; elsewhere it has no value, and neither has one whose text is empty, as in
/// nginx.
macro_rules! variable {
    ($name:literal, $append:expr) => {
        VariableEntry::new($name, |exchange, _, out| with_facts(exchange, out, $append)).changeable()
    };
}

/// A variable of the client's certificate.
macro_rules! certificate_variable {
    ($name:literal, $append:expr) => {
        VariableEntry::new($name, |exchange, _, out| with_certificate(exchange, out, $append)).changeable()
    };
}

/// The variables.
pub static VARIABLES: &[VariableEntry] = &[
    variable!("ssl_alpn_protocol", |facts, out| out.extend_from_slice(&facts.alpn)),
    variable!("ssl_cipher", |facts, out| out.extend_from_slice(facts.cipher.as_bytes())),
    variable!("ssl_ciphers", |facts, out| append_list(&facts.offer.ciphers, names::append_cipher, out)),
    variable!("ssl_client_cert", |facts, out| {
        let mut text = Vec::new();
        append_pem(facts, &mut text);
        // For header lines: each line but the first begins with a tab.
        for (at, line) in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate() {
            if at > 0 {
                out.extend_from_slice(b"\n\t");
            }
            out.extend_from_slice(line);
        }
    }),
    variable!("ssl_client_escaped_cert", |facts, out| {
        let mut text = Vec::new();
        append_pem(facts, &mut text);
        escape(out, &text, Escape::UriComponent);
    }),
    certificate_variable!("ssl_client_fingerprint", |certificate, _, out| certificate.append_fingerprint(out)),
    certificate_variable!("ssl_client_i_dn", |certificate, _, out| certificate.append_issuer(out)),
    certificate_variable!("ssl_client_i_dn_legacy", |certificate, _, out| certificate.append_legacy_issuer(out)),
    variable!("ssl_client_raw_cert", append_pem),
    certificate_variable!("ssl_client_s_dn", |certificate, _, out| certificate.append_subject(out)),
    certificate_variable!("ssl_client_s_dn_legacy", |certificate, _, out| certificate.append_legacy_subject(out)),
    certificate_variable!("ssl_client_serial", |certificate, _, out| certificate.append_serial(out)),
    variable!("ssl_client_sigalg", |facts, out| {
        if let Some(client) = facts.client.as_ref().filter(|client| client.scheme != 0) {
            names::append_scheme(client.scheme, out);
        }
    }),
    certificate_variable!("ssl_client_v_end", |certificate, _, out| append_time(certificate.not_after(), out)),
    VariableEntry::new("ssl_client_v_remain", |exchange, context, out| {
        let now = context.env.now.wall_secs;
        with_certificate(exchange, out, |certificate, _, out| {
            crate::base::ascii::append_decimal(out, certificate.days_left(now));
        })
    })
    .changeable(),
    certificate_variable!("ssl_client_v_start", |certificate, _, out| append_time(certificate.not_before(), out)),
    variable!("ssl_client_verify", |facts, out| match facts.client.as_ref().map(|client| &client.verdict) {
        None => out.extend_from_slice(b"NONE"),
        Some(Ok(())) => out.extend_from_slice(b"SUCCESS"),
        Some(Err(failure)) => {
            out.extend_from_slice(b"FAILED:");
            out.extend_from_slice(failure.reason.as_bytes());
        }
    }),
    variable!("ssl_curve", |facts, out| {
        if facts.group != 0 {
            names::append_group(facts.group, out);
        }
    }),
    variable!("ssl_curves", |facts, out| append_list(&facts.offer.groups, names::append_group, out)),
    variable!("ssl_early_data", |facts, out| {
        if facts.early_data.get() {
            out.push(b'1');
        }
    }),
    variable!("ssl_ech_outer_server_name", |_, _| {}),
    variable!("ssl_ech_status", |_, out| out.extend_from_slice(b"NOT_TRIED")),
    variable!("ssl_protocol", |facts, out| out.extend_from_slice(facts.protocol.as_bytes())),
    variable!("ssl_server_name", |facts, out| out.extend_from_slice(facts.server_name.as_bytes())),
    variable!("ssl_session_id", |facts, out| {
        for byte in &facts.session_id {
            out.extend_from_slice(&[b"0123456789abcdef"[usize::from(byte >> 4)], b"0123456789abcdef"[usize::from(byte & 15)]]);
        }
    }),
    variable!("ssl_session_reused", |facts, out| out.push(if facts.reused { b'r' } else { b'.' })),
    variable!("ssl_sigalg", |facts, out| {
        if facts.scheme != 0 {
            names::append_scheme(facts.scheme, out);
        }
    }),
    variable!("ssl_sigalgs", |facts, out| append_list(&facts.offer.schemes, names::append_scheme, out)),
];

fn with_facts(exchange: &Exchange, out: &mut Vec<u8>, append: impl FnOnce(&TlsFacts, &mut Vec<u8>)) -> bool {
    let Some(facts) = &exchange.connection.tls else { return false };
    let before = out.len();
    append(facts, out);
    out.len() > before
}

fn with_certificate(
    exchange: &Exchange,
    out: &mut Vec<u8>,
    append: impl FnOnce(&Certificate, &TlsFacts, &mut Vec<u8>),
) -> bool {
    with_facts(exchange, out, |facts, out| {
        let certificate = facts.client.as_ref().and_then(|client| Certificate::parse(&client.der).ok());
        if let Some(certificate) = certificate {
            append(&certificate, facts, out);
        }
    })
}

fn append_pem(facts: &TlsFacts, out: &mut Vec<u8>) {
    if let Some(client) = &facts.client {
        pem::append("CERTIFICATE", &client.der, out);
    }
}

fn append_list(numbers: &[u16], append: fn(u16, &mut Vec<u8>), out: &mut Vec<u8>) {
    for (at, number) in numbers.iter().enumerate() {
        if at > 0 {
            out.push(b':');
        }
        append(*number, out);
    }
}
