//! From each server's settings and files to its frozen TLS.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::conf::diagnostics::Diagnostic;
use crate::conf::files::Files;
use crate::conf::source::{IncludeId, Span};
use crate::http::build::Builder;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::proto::tls::{
    Certificates, ClientAuth, MAX_RECORD, Pair, PairFile, ServerOptions, ServerTlsConfig, SessionCache, TicketKeys,
    TlsClock, Trust,
};

use super::site_tls::{FileOrData, ServerTls, SiteTls, TlsMemory};
use super::{FileText, PairText, SessionCacheSetting, Settings};

/// What ALPN offers, the most wanted first, as in nginx without HTTP/2.
const PROTOCOLS: &[&[u8]] = &[b"http/1.1", b"http/1.0", b"http/0.9"];
/// The same where HTTP/2 is spoken.
const PROTOCOLS_WITH_HTTP2: &[&[u8]] = &[b"h2", b"http/1.1", b"http/1.0", b"http/0.9"];
/// Sessions of the cache that early data needs, where none is configured.
const EARLY_SESSIONS: usize = 20_480;

/// What is wrong, and where it is written.
pub(in crate::http::modules) struct Problem {
    /// In nginx's words where they fit.
    pub message: String,
    /// The directive at fault.
    pub place: (Span, IncludeId),
    /// What to do about it.
    pub help: Option<&'static str>,
}

impl Problem {
    /// Puts it before the reader.
    pub fn report(self, builder: &mut Builder) {
        let (span, include) = self.place;
        let mut diagnostic = Diagnostic::error(self.message).at(span).within(include);
        if let Some(help) = self.help {
            diagnostic = diagnostic.help(help);
        }
        builder.diagnostics.push(diagnostic);
    }

    fn new(file: &FileText, message: String) -> Problem {
        Problem { message, place: file.place, help: None }
    }
}

/// Where a server's certificates come from.
pub(in crate::http::modules) struct Sources {
    /// Certificates and keys, as written.
    pub pairs: Vec<(FileText, FileText)>,
    /// `ssl_password_file`: its content.
    pub passwords: Option<Arc<[u8]>>,
    /// `ssl_stapling_file`: its content in DER.
    pub staple: Option<Vec<u8>>,
    /// Every file of pairs without variables.
    pub paths: Vec<Arc<str>>,
}

/// Pairs with the contents of the files that they were made of.
#[derive(Default)]
pub(in crate::http::modules) struct LoadedPairs {
    pub pairs: Vec<Pair>,
    pub contents: Vec<Arc<[u8]>>,
}

impl Sources {
    /// Whether a name has variables.
    pub fn is_dynamic(&self) -> bool {
        self.pairs.iter().any(|(certificate, key)| is_dynamic(certificate) || is_dynamic(key))
    }

    /// The pairs' names, rendered.
    pub fn render(&self, exchange: &mut Exchange, context: &mut Context, conf_prefix: &str) -> Vec<PairText> {
        let mut render = |file: &FileText| {
            exchange.with_rendered(&file.template, context, |_, _, text| FileOrData::of(text, conf_prefix))
        };
        let pairs = self.pairs.iter();
        pairs.map(|(certificate, key)| PairText { certificate: render(certificate), key: render(key) }).collect()
    }

    /// The lines of the password file.
    pub fn passwords(&self) -> Vec<Vec<u8>> {
        let Some(text) = &self.passwords else { return Vec::new() };
        let lines = text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        lines.filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
    }

    /// Reads the pairs whose names have no variables, with the files' contents.
    pub fn load(
        &self,
        files: &mut dyn Files,
        conf_prefix: &str,
    ) -> Result<LoadedPairs, Problem> {
        let passwords = self.passwords();
        let LoadedPairs { mut pairs, mut contents } = LoadedPairs::default();
        if self.is_dynamic() {
            return Ok(LoadedPairs { pairs, contents });
        }
        for (certificate, key) in &self.pairs {
            let chain = read_file(files, certificate, conf_prefix, "certificate")?;
            let secret = read_file(files, key, conf_prefix, "certificate key")?;
            let pair = Pair::load(&chain, &secret, &passwords, self.staple.as_deref());
            pairs.push(pair.map_err(|error| match error.file {
                PairFile::Certificate => Problem::new(certificate, cannot("certificate", certificate, conf_prefix, &error.message)),
                PairFile::Key => Problem::new(key, cannot("certificate key", key, conf_prefix, &error.message)),
            })?);
            contents.extend([chain, secret]);
        }
        Ok(LoadedPairs { pairs, contents })
    }
}

/// The files of pairs whose names have no variables.
pub fn watched_paths(pairs: &[(FileText, FileText)], conf_prefix: &str) -> Vec<Arc<str>> {
    let named = pairs.iter().flat_map(|(certificate, key)| [certificate, key]);
    let paths = named.filter(|file| !is_dynamic(file)).filter_map(|file| match literal(file, conf_prefix) {
        FileOrData::File(path) => Some(path.into()),
        FileOrData::Data(_) => None,
    });
    paths.collect()
}

fn is_dynamic(file: &FileText) -> bool {
    file.template.as_literal().is_none()
}

fn literal(file: &FileText, conf_prefix: &str) -> FileOrData {
    FileOrData::of(file.template.as_literal().unwrap_or_default(), conf_prefix)
}

/// nginx's `cannot load certificate "x": ...`.
fn cannot(what: &str, file: &FileText, conf_prefix: &str, why: &str) -> String {
    match literal(file, conf_prefix) {
        FileOrData::File(path) => format!("cannot load {what} \"{path}\": {why}"),
        FileOrData::Data(_) => format!("cannot load {what} \"data:...\": {why}"),
    }
}

/// What a file holds that a directive names; `what` it is meant to be.
pub(in crate::http::modules) fn read_file(
    files: &mut dyn Files,
    file: &FileText,
    conf_prefix: &str,
    what: &str,
) -> Result<Arc<[u8]>, Problem> {
    match literal(file, conf_prefix) {
        FileOrData::Data(text) => Ok(text.into()),
        FileOrData::File(path) => match files.read_data(&path) {
            Ok(text) => Ok(text.into()),
            Err(error) => {
                Err(Problem::new(file, cannot(what, file, conf_prefix, &error.message(&path))))
            }
        },
    }
}

/// Trust in the certificates of some files, with a list of those that were revoked.
pub(in crate::http::modules) fn read_trust<'a>(
    files: &mut dyn Files,
    named: impl Iterator<Item = &'a FileText>,
    crl: Option<&FileText>,
    depth: usize,
    conf_prefix: &str,
    place: (Span, IncludeId),
) -> Result<Trust, Problem> {
    let mut trusted = Vec::new();
    for file in named {
        let text = read_file(files, file, conf_prefix, "certificate")?;
        // Each by itself first, so that the directive at fault is told.
        let found = Trust::new(&[&text], &[], depth)
            .map_err(|message| Problem::new(file, cannot("certificate", file, conf_prefix, &message)))?;
        if found.is_empty() {
            let message = cannot("certificate", file, conf_prefix, "no certificate in the file");
            return Err(Problem::new(file, message));
        }
        trusted.push(text);
    }
    let trusted: Vec<&[u8]> = trusted.iter().map(|text| &**text).collect();
    let revoked = match crl {
        Some(file) => Some((read_file(files, file, conf_prefix, "CRL")?, file)),
        None => None,
    };
    let lists: Vec<&[u8]> = revoked.iter().map(|(text, _)| &**text).collect();
    Trust::new(&trusted, &lists, depth).map_err(|message| match revoked {
        Some((_, file)) => Problem::new(file, cannot("CRL", file, conf_prefix, &message)),
        None => Problem { message, place, help: None },
    })
}

/// A server as far as TLS goes.
pub struct ServerPlace {
    /// Its settings, merged and frozen.
    pub settings: Arc<Settings>,
    /// The block.
    pub span: Span,
    /// Where the block was included from.
    pub include: IncludeId,
}

/// An address on which TLS is spoken.
pub struct AddressPlace {
    /// Position of its default server.
    pub default_server: usize,
    /// Positions of all its servers.
    pub servers: Vec<usize>,
    /// The `listen` of the default server.
    pub span: Span,
}

/// Makes the TLS of all servers. What is wrong is reported, and the server at fault has none then.
pub fn finish(
    files: &mut dyn Files,
    builder: &mut Builder,
    servers: &[ServerPlace],
    addresses: &[AddressPlace],
    previous: Option<&SiteTls>,
) -> SiteTls {
    let (clock, old) = previous.map(SiteTls::memory).unwrap_or_default();
    let mut loader = Loader { files, builder, clock, old, memory: TlsMemory::default() };
    let mut known: HashMap<*const Settings, Option<Arc<ServerTls>>> = HashMap::new();
    let mut found = Vec::with_capacity(servers.len());
    for server in servers {
        // Servers that say nothing of their own have their settings in common, and so all that is made of them.
        let tls = known.entry(Arc::as_ptr(&server.settings)).or_insert_with(|| loader.server(&server.settings));
        found.push(tls.clone());
    }
    let site = SiteTls { clock: loader.clock, servers: found, memory: loader.memory };
    check_addresses(builder, servers, addresses);
    site
}

/// As in nginx: the default server must have certificates, or refuse all handshakes; then the others must have theirs.
fn check_addresses(builder: &mut Builder, servers: &[ServerPlace], addresses: &[AddressPlace]) {
    const MISSING: &str = "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive";
    for address in addresses {
        let default = &servers[address.default_server];
        if !default.settings.certificates.is_empty() {
            continue;
        }
        if !default.settings.reject_handshake {
            builder.error_at(address.span, default.include, MISSING);
            continue;
        }
        for server in address.servers.iter().map(|at| &servers[*at]) {
            if server.settings.certificates.is_empty() && !server.settings.reject_handshake {
                builder.error_at(server.span, server.include, MISSING);
            }
        }
    }
}

struct Loader<'a> {
    files: &'a mut dyn Files,
    builder: &'a mut Builder,
    clock: Arc<TlsClock>,
    /// Of the site before.
    old: TlsMemory,
    memory: TlsMemory,
}

impl Loader<'_> {
    fn server(&mut self, settings: &Settings) -> Option<Arc<ServerTls>> {
        if settings.certificates.is_empty() && !settings.reject_handshake {
            return None;
        }
        match self.try_server(settings) {
            Ok(tls) => Some(Arc::new(tls)),
            Err(problem) => {
                problem.report(self.builder);
                None
            }
        }
    }

    fn try_server(&mut self, settings: &Settings) -> Result<ServerTls, Problem> {
        let conf_prefix: Box<str> = self.builder.conf_prefix.as_str().into();
        let sources = self.sources(settings)?;
        let LoadedPairs { pairs, contents } = sources.load(self.files, &conf_prefix)?;
        let trust = self.trust(settings)?;
        let authorities = match &settings.client_certificate {
            Some(file) => vec![read_file(self.files, file, &conf_prefix, "certificate")?],
            None => Vec::new(),
        };
        let (sessions, tickets) = (self.sessions(settings)?, self.tickets(settings)?);
        let options = ServerOptions {
            primitives: settings.primitives(),
            prefer_server_ciphers: settings
                .commands
                .prefer_server_ciphers
                .unwrap_or(settings.prefer_server_ciphers),
            certificates: Arc::new(Certificates::new(pairs)),
            client_auth: settings.verify_client.rule,
            client_authorities: authorities,
            client_trust: Arc::new(trust),
            sessions,
            tickets,
            early_data: settings.early_data,
            record_size: usize::try_from(settings.buffer_size).unwrap_or(MAX_RECORD),
            protocols: PROTOCOLS.iter().map(|name| name.to_vec()).collect(),
            compress_certificates: settings.certificate_compression,
            reject: settings.reject_handshake,
            kernel: settings.commands.kernel.unwrap_or(false),
            clock: Arc::clone(&self.clock),
        };
        let config = ServerTlsConfig::new(options).map_err(|message| Problem {
            message: format!("TLS cannot be set up: {message}"),
            place: self.place(settings),
            help: Some("\"ssl_protocols\", \"ssl_ciphers\" and \"ssl_conf_command\" leave nothing to speak"),
        })?;
        Ok(ServerTls {
            with_http2: Arc::new(config.with_protocols(PROTOCOLS_WITH_HTTP2)),
            config: Arc::new(config),
            cache: settings.certificate_cache,
            sources,
            conf_prefix,
            seen: Mutex::new(contents),
            named: Default::default(),
        })
    }

    /// A directive to point at, for what belongs to none alone.
    fn place(&self, settings: &Settings) -> (Span, IncludeId) {
        let file = settings.certificates.first().map(|file| file.place);
        let first = Span { file: crate::conf::source::FileId(0), start: 0, end: 0 };
        file.or(settings.verify_client.place).unwrap_or((first, IncludeId(0)))
    }

    fn sources(&mut self, settings: &Settings) -> Result<Sources, Problem> {
        let conf_prefix = self.builder.conf_prefix.clone();
        if let Some(file) = settings.certificates.get(settings.keys.len()) {
            let name = match literal(file, &conf_prefix) {
                FileOrData::File(path) if !is_dynamic(file) => path,
                _ => "...".to_owned(),
            };
            let message = format!("no \"ssl_certificate_key\" is defined for certificate \"{name}\"");
            return Err(Problem::new(file, message));
        }
        let passwords = match &settings.password_file {
            Some(file) => Some(read_file(self.files, file, &conf_prefix, "passwords")?),
            None => None,
        };
        let staple = match &settings.stapling_file {
            Some(file) => Some(read_file(self.files, file, &conf_prefix, "OCSP response")?.to_vec()),
            None => None,
        };
        let pairs: Vec<_> = settings.certificates.iter().cloned().zip(settings.keys.iter().cloned()).collect();
        let paths = watched_paths(&pairs, &conf_prefix);
        Ok(Sources { pairs, passwords, staple, paths })
    }

    fn trust(&mut self, settings: &Settings) -> Result<Trust, Problem> {
        let conf_prefix = self.builder.conf_prefix.clone();
        let depth = usize::try_from(settings.verify_depth).unwrap_or(usize::MAX);
        let asks = matches!(settings.verify_client.rule, ClientAuth::On | ClientAuth::Optional);
        let named = [&settings.client_certificate, &settings.trusted_certificate].into_iter().flatten();
        if asks && named.clone().next().is_none() {
            let message = "no ssl_client_certificate or ssl_trusted_certificate for ssl_verify_client".to_owned();
            return Err(Problem { message, place: self.place(settings), help: None });
        }
        let place = self.place(settings);
        read_trust(self.files, named, settings.crl.as_ref(), depth, &conf_prefix, place)
    }

    fn sessions(&mut self, settings: &Settings) -> Result<Option<Arc<SessionCache>>, Problem> {
        let timeout = settings.session_timeout;
        let own = |sessions: usize| {
            SessionCache::new(SessionCache::bytes_for(sessions), timeout, Arc::clone(&self.clock))
        };
        Ok(match &settings.session_cache {
            SessionCacheSetting::Shared(name, bytes) => {
                let key = (Arc::clone(name), *bytes, timeout);
                let is_other = |other: &&(Arc<str>, u64, u64)| other.0 == *name && other.1 != *bytes;
                if let Some(other) = self.memory.caches.keys().find(is_other) {
                    let message = format!(
                        "the size {bytes} of shared memory zone \"{name}\" conflicts with already declared size {}",
                        other.1
                    );
                    return Err(Problem { message, place: self.place(settings), help: None });
                }
                let cache = self.memory.caches.get(&key).or_else(|| self.old.caches.get(&key)).cloned();
                let cache = cache.unwrap_or_else(|| {
                    let bytes = usize::try_from(*bytes).unwrap_or(usize::MAX);
                    Arc::new(SessionCache::new(bytes, timeout, Arc::clone(&self.clock)))
                });
                self.memory.caches.insert(key, Arc::clone(&cache));
                Some(cache)
            }
            SessionCacheSetting::Builtin(sessions) => {
                Some(Arc::new(own(usize::try_from(*sessions).unwrap_or(usize::MAX))))
            }
            // Early data is good once only, which takes a memory.
            SessionCacheSetting::Off if settings.early_data => Some(Arc::new(own(EARLY_SESSIONS))),
            SessionCacheSetting::Off => None,
        })
    }

    fn tickets(&mut self, settings: &Settings) -> Result<Option<Arc<TicketKeys>>, Problem> {
        let timeout = settings.session_timeout;
        if !settings.commands.session_tickets.unwrap_or(settings.session_tickets) {
            return Ok(None);
        }
        if settings.ticket_keys.is_empty() {
            let keys = self.memory.tickets.get(&timeout).or_else(|| self.old.tickets.get(&timeout)).cloned();
            let keys = keys.unwrap_or_else(|| Arc::new(TicketKeys::random(timeout, Arc::clone(&self.clock))));
            self.memory.tickets.insert(timeout, Arc::clone(&keys));
            return Ok(Some(keys));
        }
        let conf_prefix = self.builder.conf_prefix.clone();
        let mut contents = Vec::new();
        for file in &settings.ticket_keys {
            let content =read_file(self.files, file, &conf_prefix, "session ticket key")?;
            if !matches!(content.len(), 48 | 80) {
                let FileOrData::File(path) = literal(file, &conf_prefix) else { continue };
                let message = format!("\"{path}\" must be 48 or 80 bytes");
                return Err(Problem::new(file, message));
            }
            contents.push(content);
        }
        let contents: Vec<&[u8]> = contents.iter().map(|content| &**content).collect();
        Ok(TicketKeys::from_files(&contents, timeout, Arc::clone(&self.clock)).map(Arc::new))
    }
}
