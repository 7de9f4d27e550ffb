//! TLS to clients: the directives of nginx's ssl module, its variables, and the rule about clients' certificates.
//!
//! Directives become settings here; `load` turns each server's settings and files into a frozen configuration when
//! the whole is read (`SiteTls`); `variables` show what a connection agreed upon. What the TLS library lacks is
//! refused or warned of, with the alternative.

mod cache;
mod load;
mod site_tls;
#[cfg(test)]
mod tests;
mod variables;

use std::sync::Arc;

use crate::base::level::Level;
use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::source::{IncludeId, Span};
use crate::conf::template::Template;
use crate::conf::tree::Word;
use crate::conf::values;
use crate::http::build::Scope;
use crate::http::build::arguments::{flag, invalid_value, number, one_of, seconds, size, without_meaning};
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::settings::contexts::HTTP_SERVER;
use crate::http::settings::settings;
use crate::message::Status;
use crate::proto::tls::{ClientAuth, ClientVerdict, Group, Primitives, Suite, Versions, names};

pub use cache::{Cached, PairCache};
pub use load::{AddressPlace, ServerPlace, finish};
pub(in crate::http::modules) use load::{LoadedPairs, Problem, Sources, read_file, read_trust, watched_paths};
pub use site_tls::{FileOrData, PairText, ServerTls, SiteTls, server_of};
pub use variables::VARIABLES;

settings! {
    module ssl;
    fields {
        /// How many bytes of a response go into one record.
        buffer_size: u64 = 16 * 1024, inherit;
            "ssl_buffer_size" HTTP_SERVER, Arity::exactly(1), default "16k", once buffer_size;
        /// The server's certificates, each a file with its chain; several for several kinds of keys.
        certificates: Vec<FileText> = Vec::new(), inherit;
            "ssl_certificate" HTTP_SERVER, Arity::exactly(1), default "", with add_file;
        /// How long certificates whose names have variables are kept.
        certificate_cache: Option<CertificateCache> = None, inherit;
            "ssl_certificate_cache" HTTP_SERVER, Arity::between(1, 3), default "off", once certificate_cache;
        /// Whether certificates go compressed to clients that take them so.
        certificate_compression: bool = false, inherit;
            "ssl_certificate_compression" HTTP_SERVER, Arity::FLAG, default "off", once flag;
        /// The keys of the certificates, in the same order.
        keys: Vec<FileText> = Vec::new(), inherit;
            "ssl_certificate_key" HTTP_SERVER, Arity::exactly(1), default "", with add_file;
        /// The cipher suites of TLS 1.2.
        ciphers: Option<Arc<[Suite]>> = None, inherit;
            "ssl_ciphers" HTTP_SERVER, Arity::exactly(1), default "HIGH:!aNULL:!MD5", once ciphers;
        /// Authorities whose clients are believed, and which are named to clients.
        client_certificate: Option<FileText> = None, inherit;
            "ssl_client_certificate" HTTP_SERVER, Arity::exactly(1), default "", once file;
        /// Commands of OpenSSL's configuration that have a counterpart here: suites, groups, versions, and `Options` with `KTLS` (the kernel encrypts large files), `ServerPreference`, `SessionTicket`.
        commands: Commands = Commands::default(), inherit;
            "ssl_conf_command" HTTP_SERVER, Arity::exactly(2), default "", with conf_command;
        /// Lists of revoked certificates.
        crl: Option<FileText> = None, inherit;
            "ssl_crl" HTTP_SERVER, Arity::exactly(1), default "", once file;
        /// Whether requests may come before the handshake is over (TLS 1.3); they may be repeats. Sessions are on our side then, not in tickets.
        early_data: bool = false, inherit;
            "ssl_early_data" HTTP_SERVER, Arity::FLAG, default "off", once flag;
        /// Key exchange groups.
        curves: Option<Groups> = None, inherit;
            "ssl_ecdh_curve" HTTP_SERVER, Arity::exactly(1), default "auto", once curves;
        /// Passwords of the keys, one on each line.
        password_file: Option<FileText> = None, inherit;
            "ssl_password_file" HTTP_SERVER, Arity::exactly(1), default "", once file;
        /// Whether our order of cipher suites decides.
        prefer_server_ciphers: bool = false, inherit;
            "ssl_prefer_server_ciphers" HTTP_SERVER, Arity::FLAG, default "off", once flag;
        /// Versions of the protocol.
        protocols: Versions = Versions::DEFAULT, inherit;
            "ssl_protocols" HTTP_SERVER, Arity::at_least(1), default "TLSv1.2 TLSv1.3", once protocols;
        /// Whether every handshake for the server is refused.
        reject_handshake: bool = false, inherit;
            "ssl_reject_handshake" HTTP_SERVER, Arity::FLAG, default "off", once flag;
        /// Where sessions are kept on our side.
        session_cache: SessionCacheSetting = SessionCacheSetting::Off, inherit;
            "ssl_session_cache" HTTP_SERVER, Arity::between(1, 2), default "none", once session_cache;
        /// Keys of session tickets; the first one makes them.
        ticket_keys: Vec<FileText> = Vec::new(), inherit;
            "ssl_session_ticket_key" HTTP_SERVER, Arity::exactly(1), default "", with add_file;
        /// Whether clients may keep their sessions themselves.
        session_tickets: bool = true, inherit;
            "ssl_session_tickets" HTTP_SERVER, Arity::FLAG, default "on", once flag;
        /// How long a session is good for, in seconds.
        session_timeout: u64 = 300, inherit;
            "ssl_session_timeout" HTTP_SERVER, Arity::exactly(1), default "5m", once seconds;
        /// A response of an OCSP responder that is sent along with the certificate.
        stapling_file: Option<FileText> = None, inherit;
            "ssl_stapling_file" HTTP_SERVER, Arity::exactly(1), default "", once file;
        /// Further authorities that are believed; they are not named to clients.
        trusted_certificate: Option<FileText> = None, inherit;
            "ssl_trusted_certificate" HTTP_SERVER, Arity::exactly(1), default "", once file;
        /// Whether clients are asked for certificates.
        verify_client: Verification = Verification::OFF, inherit;
            "ssl_verify_client" HTTP_SERVER, Arity::exactly(1), default "off", once verify_client;
        /// Most certificates between a client's and a trusted one.
        verify_depth: u64 = 1, inherit;
            "ssl_verify_depth" HTTP_SERVER, Arity::exactly(1), default "1", once number;
    }
    plain {
        /// Without effect: finite-field groups are not offered.
        "ssl_dhparam" HTTP_SERVER, Arity::exactly(1), default "", no_dhparam;
        /// Without effect: encrypted ClientHellos are not read.
        "ssl_ech_file" HTTP_SERVER, Arity::exactly(1), default "", no_ech;
        /// Whether clients' certificates are looked up with OCSP: not built, `ssl_crl` is the alternative.
        "ssl_ocsp" HTTP_SERVER, Arity::exactly(1), default "off", no_ocsp;
        /// Without meaning here.
        "ssl_ocsp_cache" HTTP_SERVER, Arity::exactly(1), default "off", without_meaning;
        /// Without meaning here.
        "ssl_ocsp_responder" HTTP_SERVER, Arity::exactly(1), default "", without_meaning;
        /// Without meaning here: responses are not fetched, `ssl_stapling_file` gives one.
        "ssl_stapling" HTTP_SERVER, Arity::FLAG, default "off", stapling;
        /// Without meaning here.
        "ssl_stapling_responder" HTTP_SERVER, Arity::exactly(1), default "", without_meaning;
        /// Without meaning here.
        "ssl_stapling_verify" HTTP_SERVER, Arity::FLAG, default "off", without_meaning;
    }
}

/// A file that a directive names, or what stands in its place.
#[derive(Clone, Debug)]
pub struct FileText {
    /// As written.
    pub template: Template,
    /// Where it stands.
    pub place: (Span, IncludeId),
}

/// `ssl_certificate_cache`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateCache {
    /// Most pairs that are kept.
    pub max: u64,
    /// Seconds after which an unused one goes.
    pub inactive: u64,
    /// Seconds after which the files are looked at again.
    pub valid: u64,
}

/// `ssl_session_cache`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionCacheSetting {
    /// `off` and `none`: nothing is kept.
    Off,
    /// A cache of the server's own, for so many sessions.
    Builtin(u64),
    /// A named cache of so many bytes, common to all servers that name it.
    Shared(Arc<str>, u64),
}

/// `ssl_verify_client` and where it stands.
#[derive(Clone, Copy, Debug)]
pub struct Verification {
    /// The rule.
    pub rule: ClientAuth,
    /// Where it stands.
    pub place: Option<(Span, IncludeId)>,
}

impl Verification {
    const OFF: Verification = Verification { rule: ClientAuth::Off, place: None };
}

/// Key exchange groups, the most wanted first.
#[derive(Clone, Debug)]
pub struct Groups(Vec<Group>);

/// What `ssl_conf_command` changes.
#[derive(Clone, Debug, Default)]
pub struct Commands {
    suites_1_3: Option<Vec<Suite>>,
    suites_1_2: Option<Vec<Suite>>,
    groups: Option<Groups>,
    lowest: Option<u8>,
    highest: Option<u8>,
    prefer_server_ciphers: Option<bool>,
    session_tickets: Option<bool>,
    kernel: Option<bool>,
}

impl Settings {
    /// Versions, suites and groups, commands included.
    pub fn primitives(&self) -> Primitives {
        let mut primitives = Primitives { versions: self.protocols, ..Primitives::default() };
        if let Some(suites) = &self.ciphers {
            primitives.suites_1_2 = suites.to_vec();
        }
        if let Some(groups) = &self.curves {
            primitives.groups = groups.0.clone();
        }
        self.commands.apply(&mut primitives);
        primitives
    }
}

impl Commands {
    /// Changes versions, suites and groups as the commands say.
    pub fn apply(&self, primitives: &mut Primitives) {
        if let Some(suites) = &self.suites_1_2 {
            primitives.suites_1_2.clone_from(suites);
        }
        if let Some(suites) = &self.suites_1_3 {
            primitives.suites_1_3.clone_from(suites);
        }
        if let Some(groups) = &self.groups {
            primitives.groups.clone_from(&groups.0);
        }
        let allows = |minor| {
            self.lowest.is_none_or(|lowest| lowest <= minor) && self.highest.is_none_or(|highest| highest >= minor)
        };
        primitives.versions.tls12 &= allows(2);
        primitives.versions.tls13 &= allows(3);
    }
}

pub(in crate::http::modules) fn file_text(scope: &mut Scope, call: &Call) -> Result<FileText, Complaint> {
    let word = call.arg(0);
    if word.as_bytes().starts_with(b"engine:") || word.as_bytes().starts_with(b"store:") {
        let complaint = Complaint::new(format!("\"{}\": keys of engines and stores cannot be used", word.lossy()));
        return Err(complaint.at(word).help("name a file in PEM format"));
    }
    let template = scope.builder.template(word)?;
    Ok(FileText { template, place: (call.span(), call.directive.include) })
}

fn add_file(scope: &mut Scope, call: &Call, slot: &mut Option<Vec<FileText>>) -> Result<(), Complaint> {
    let file = file_text(scope, call)?;
    slot.get_or_insert_default().push(file);
    Ok(())
}

/// A file without variables.
pub(in crate::http::modules) fn file(_: &mut Scope, call: &Call) -> Result<Option<FileText>, Complaint> {
    let place = (call.span(), call.directive.include);
    Ok(Some(FileText { template: Template::literal(call.arg(0).as_bytes()), place }))
}

fn buffer_size(scope: &mut Scope, call: &Call) -> Result<u64, Complaint> {
    match size(scope, call)? {
        0 => Err(invalid_value(call, call.arg(0))),
        size => Ok(size),
    }
}

pub(in crate::http::modules) fn protocols(scope: &mut Scope, call: &Call) -> Result<Versions, Complaint> {
    let mut versions = Versions { tls12: false, tls13: false };
    let mut old = Vec::new();
    for word in call.args() {
        match word.as_bytes() {
            b"TLSv1.2" => versions.tls12 = true,
            b"TLSv1.3" => versions.tls13 = true,
            b"SSLv2" | b"SSLv3" | b"TLSv1" | b"TLSv1.1" => old.push(word.lossy().into_owned()),
            _ => return Err(Complaint::invalid_value(word)),
        }
    }
    if !versions.tls12 && !versions.tls13 {
        let complaint = Complaint::new(format!("{} cannot be spoken here", old.join(" ")));
        return Err(complaint.help("use `ssl_protocols TLSv1.2 TLSv1.3`"));
    }
    if !old.is_empty() {
        scope.warn(call, format!("{} cannot be spoken here, only TLSv1.2 and TLSv1.3", old.join(" ")));
    }
    Ok(versions)
}

pub(in crate::http::modules) fn ciphers(scope: &mut Scope, call: &Call) -> Result<Option<Arc<[Suite]>>, Complaint> {
    suites_1_2(scope, call, call.arg(0)).map(|suites| Some(suites.into()))
}

fn suites_1_2(scope: &mut Scope, call: &Call, word: &Word) -> Result<Vec<Suite>, Complaint> {
    let text = word.as_str().ok_or_else(|| Complaint::invalid_value(word))?;
    // The system's policy is that of its OpenSSL; ours is what there is.
    let text = if text == "PROFILE=SYSTEM" { "DEFAULT" } else { text };
    let list = names::parse_ciphers(text);
    if list.suites.is_empty() {
        return Err(no_cipher(text).at(word));
    }
    if !list.unknown.is_empty() {
        scope.warn_word(call, word, unknown_ciphers(&list.unknown));
    }
    Ok(list.suites)
}

fn no_cipher(text: &str) -> Complaint {
    Complaint::new(format!("no cipher match in \"{text}\""))
        .help("cipher suites here are ECDHE with AES-GCM or CHACHA20-POLY1305: `HIGH` stands for all of them")
}

fn unknown_ciphers(unknown: &[String]) -> String {
    format!("cipher suites that do not exist here, without effect: {}", unknown.join(":"))
}

fn curves(scope: &mut Scope, call: &Call) -> Result<Option<Groups>, Complaint> {
    groups(scope, call, call.arg(0)).map(Some)
}

fn groups(scope: &mut Scope, call: &Call, word: &Word) -> Result<Groups, Complaint> {
    let text = word.as_str().ok_or_else(|| Complaint::invalid_value(word))?;
    let (groups, unknown) = names::parse_groups(text);
    if groups.is_empty() {
        let complaint = Complaint::new(format!("unknown curve \"{text}\"")).at(word);
        return Err(complaint.help("known are X25519MLKEM768, X25519, prime256v1, secp384r1, SecP256r1MLKEM768"));
    }
    if !unknown.is_empty() {
        let message = format!("curves that do not exist here, without effect: {}", unknown.join(":"));
        scope.warn_word(call, word, message);
    }
    Ok(Groups(groups))
}

pub(in crate::http::modules) fn certificate_cache(_: &mut Scope, call: &Call) -> Result<Option<CertificateCache>, Complaint> {
    let mut cache = CertificateCache { max: 0, inactive: 10, valid: 60 };
    for word in call.args() {
        let text = word.as_bytes();
        let time = |value: &[u8]| values::parse_time_s(value).map_err(|_| Complaint::invalid_parameter(word));
        match text {
            b"off" if call.args().len() == 1 => return Ok(None),
            _ => {}
        }
        if let Some(value) = text.strip_prefix(b"max=") {
            cache.max = values::parse_number(value).map_err(|_| Complaint::invalid_parameter(word))?;
            if cache.max == 0 {
                return Err(Complaint::invalid_parameter(word));
            }
        } else if let Some(value) = text.strip_prefix(b"inactive=") {
            cache.inactive = time(value)?;
        } else if let Some(value) = text.strip_prefix(b"valid=") {
            cache.valid = time(value)?;
        } else {
            return Err(Complaint::invalid_parameter(word));
        }
    }
    if cache.max == 0 {
        return Err(Complaint::new(format!("\"{}\" must have the \"max\" parameter", call.name())));
    }
    Ok(Some(cache))
}

/// The least that a shared cache may have: eight pages, as in nginx.
const LEAST_SHARED: u64 = 8 * 4096;
/// Sessions of `builtin` without a number, as in OpenSSL.
const BUILTIN_SESSIONS: u64 = 20_480;

fn session_cache(_: &mut Scope, call: &Call) -> Result<SessionCacheSetting, Complaint> {
    let mut setting = SessionCacheSetting::Off;
    for word in call.args() {
        let invalid = || Complaint::new(format!("invalid session cache \"{}\"", word.lossy())).at(word);
        let text = word.as_str().ok_or_else(invalid)?;
        let is_shared = matches!(setting, SessionCacheSetting::Shared(..));
        match text.split_once(':') {
            None if text == "off" || text == "none" => {}
            None if text == "builtin" && !is_shared => setting = SessionCacheSetting::Builtin(BUILTIN_SESSIONS),
            None if text == "builtin" => {}
            Some(("builtin", count)) => {
                let count = values::parse_number(count.as_bytes()).map_err(|_| invalid())?;
                // Beside a shared cache a second one of our own would find nothing more.
                if !is_shared {
                    setting = SessionCacheSetting::Builtin(count);
                }
            }
            Some(("shared", rest)) => {
                let (name, bytes) = rest.split_once(':').filter(|(name, _)| !name.is_empty()).ok_or_else(invalid)?;
                let bytes = values::parse_size(bytes.as_bytes()).map_err(|_| invalid())?;
                if bytes < LEAST_SHARED {
                    return Err(Complaint::new(format!("session cache \"{text}\" is too small")).at(word));
                }
                setting = SessionCacheSetting::Shared(name.into(), bytes);
            }
            _ => return Err(invalid()),
        }
    }
    Ok(setting)
}

fn verify_client(_: &mut Scope, call: &Call) -> Result<Verification, Complaint> {
    let rule = one_of(
        call,
        &[
            ("off", ClientAuth::Off),
            ("on", ClientAuth::On),
            ("optional", ClientAuth::Optional),
            ("optional_no_ca", ClientAuth::OptionalNoCa),
        ],
    )?;
    Ok(Verification { rule, place: Some((call.span(), call.directive.include)) })
}

fn no_dhparam(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    scope.warn(call, "\"ssl_dhparam\" has no effect: keys are exchanged over elliptic curves (\"ssl_ecdh_curve\")");
    Ok(())
}

fn no_ech(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    scope.warn(call, "\"ssl_ech_file\" has no effect: encrypted ClientHellos cannot be read here");
    Ok(())
}

fn no_ocsp(_: &mut Scope, call: &Call) -> Result<(), Complaint> {
    match one_of(call, &[("off", false), ("on", true), ("leaf", true)])? {
        false => Ok(()),
        true => Err(Complaint::new("clients' certificates cannot be looked up with OCSP here")
            .help("keep their authority's list of revoked certificates in `ssl_crl`")),
    }
}

fn stapling(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    match call.arg(0).as_bytes().eq_ignore_ascii_case(b"on") {
        true => without_meaning(scope, call),
        false => Ok(()),
    }
}

pub(in crate::http::modules) fn conf_command(scope: &mut Scope, call: &Call, slot: &mut Option<Commands>) -> Result<(), Complaint> {
    let commands = slot.get_or_insert_default();
    let (name, word) = (call.arg(0).lossy(), call.arg(1));
    let text = word.as_str().ok_or_else(|| Complaint::invalid_value(word))?;
    match &*name.to_ascii_lowercase() {
        "ciphersuites" => {
            let list = names::parse_ciphersuites(text);
            if list.suites.is_empty() {
                return Err(no_cipher(text).at(word));
            }
            if !list.unknown.is_empty() {
                scope.warn_word(call, word, unknown_ciphers(&list.unknown));
            }
            commands.suites_1_3 = Some(list.suites);
        }
        "cipherstring" => commands.suites_1_2 = Some(suites_1_2(scope, call, word)?),
        "curves" | "groups" => commands.groups = Some(groups(scope, call, word)?),
        "minprotocol" => commands.lowest = version_bound(scope, call, word, text)?,
        "maxprotocol" => commands.highest = version_bound(scope, call, word, text)?,
        "options" => options(scope, call, word, text, commands),
        _ => {
            let directive = call.name();
            scope.warn(call, format!("\"{name}\" of \"{directive}\" has no counterpart here, without effect"));
        }
    }
    Ok(())
}

/// The minor version of TLS 1.x; older ones than there are here do not bound from below.
fn version_bound(scope: &mut Scope, call: &Call, word: &Word, text: &str) -> Result<Option<u8>, Complaint> {
    match text {
        "None" => Ok(None),
        "TLSv1.3" => Ok(Some(3)),
        "TLSv1.2" => Ok(Some(2)),
        "SSLv3" | "TLSv1" | "TLSv1.1" => {
            scope.warn_word(call, word, format!("{text} cannot be spoken here, only TLSv1.2 and TLSv1.3"));
            Ok(Some(1))
        }
        _ => Err(Complaint::invalid_value(word)),
    }
}

fn options(scope: &mut Scope, call: &Call, word: &Word, text: &str, commands: &mut Commands) {
    for option in text.split(',').map(str::trim) {
        let (name, on) = match option.strip_prefix('-') {
            Some(name) => (name, false),
            None => (option.strip_prefix('+').unwrap_or(option), true),
        };
        match name {
            "ServerPreference" => commands.prefer_server_ciphers = Some(on),
            // Upstreams' connections stay with the library: nothing is sent to them by `sendfile`.
            "KTLS" if call.name() == "ssl_conf_command" => commands.kernel = Some(on),
            "SessionTicket" => commands.session_tickets = Some(on),
            _ => scope.warn_word(call, word, format!("option \"{option}\" has no counterpart here, without effect")),
        }
    }
}

/// Whether the request's server may serve it, by what the connection's TLS says: nginx's 421, 495, 496 and 497.
pub fn admit(exchange: &mut Exchange, context: &mut Context) -> Result<(), Status> {
    if exchange.connection.lacks_tls {
        exchange.log(context, Level::Info, format_args!("client sent plain HTTP request to HTTPS port"));
        return Err(Status(497));
    }
    let Some(tls) = exchange.connection.tls.clone() else { return Ok(()) };
    let rule = context.site.settings(exchange.location).ssl.verify_client.rule;
    if rule == ClientAuth::Off {
        return Ok(());
    }
    // A handshake made under another server's rule says nothing about this one's.
    let host = exchange.host();
    if !tls.server_name.is_empty() && !host.is_empty() && !host.eq_ignore_ascii_case(tls.server_name.as_bytes()) {
        exchange.log(
            context,
            Level::Info,
            format_args!("client attempted to request the server name different from the one that was negotiated"),
        );
        return Err(Status(421));
    }
    match tls.client_verdict(rule) {
        ClientVerdict::Fine => Ok(()),
        ClientVerdict::Missing => {
            exchange.log(context, Level::Info, format_args!("client sent no required SSL certificate"));
            Err(Status(496))
        }
        ClientVerdict::Refused(failure) => {
            exchange.log(
                context,
                Level::Info,
                format_args!("client SSL certificate verify error: ({failure})"),
            );
            Err(Status(495))
        }
    }
}
