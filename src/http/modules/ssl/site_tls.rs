//! The TLS of a whole site, frozen: a configuration for each server, found by the name in the ClientHello. Only
//! certificates change while it lives, when their files do.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use crate::base::regex::Captures;
use crate::conf::files::Files;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::modules::passing::{UpstreamMemory, UpstreamTls};
use crate::http::server_names::ServerNames;
use crate::http::site::{AddressId, ServerId, Site};
use crate::proto::tls::{Certificates, Pair, ServerTlsConfig, SessionCache, TicketKeys, TlsClock};

use super::cache::PairCache;
use super::load::{LoadedPairs, Sources};
use super::CertificateCache;

/// See the module's documentation.
#[derive(Default)]
pub struct SiteTls {
    /// The time; the shell sets it once a second. A site takes it over from the one before.
    pub clock: Arc<TlsClock>,
    /// By [`ServerId`]; `None` for servers without certificates, and without meaning for servers without TLS.
    pub(super) servers: Vec<Option<Arc<ServerTls>>>,
    /// What outlives a reload.
    pub(super) memory: TlsMemory,
}

/// Sessions and ticket keys: a new site takes over those of the one before where its settings are the same.
#[derive(Clone, Default)]
pub struct TlsMemory {
    /// Named caches by name, bytes and timeout.
    pub(super) caches: HashMap<(Arc<str>, u64, u64), Arc<SessionCache>>,
    /// Random ticket keys by lifetime.
    pub(super) tickets: HashMap<u64, Arc<TicketKeys>>,
    /// TLS to upstreams, by everything that it is made of.
    upstreams: UpstreamMemory,
}

/// The TLS of one server; servers with the very same settings have it in common.
pub struct ServerTls {
    /// What handshakes are made with. Where the certificates' names have variables it has none: see
    /// [`ServerTls::render`].
    pub config: Arc<ServerTlsConfig>,
    /// The same where HTTP/2 is spoken.
    pub with_http2: Arc<ServerTlsConfig>,
    /// `ssl_certificate_cache`
    pub cache: Option<CertificateCache>,
    pub(super) sources: Sources,
    /// Folder that relative paths begin in.
    pub(super) conf_prefix: Box<str>,
    /// What the files held when the pairs were made of them last, so that only a change makes work.
    pub(super) seen: Mutex<Vec<Arc<[u8]>>>,
    /// What `cache` keeps: without HTTP/2 and with it.
    pub(super) named: [Mutex<PairCache<ServerTlsConfig>>; 2],
}

/// A certificate and its key, where their names have variables: paths, or the texts themselves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PairText {
    /// The chain.
    pub certificate: FileOrData,
    /// The key.
    pub key: FileOrData,
}

/// Where PEM text comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FileOrData {
    /// A file with this absolute path.
    File(String),
    /// Here it is (`data:`).
    Data(Vec<u8>),
}

impl FileOrData {
    /// What a directive's text says, its variables rendered.
    pub(super) fn of(text: &[u8], conf_prefix: &str) -> FileOrData {
        if let Some(data) = text.strip_prefix(b"data:") {
            return FileOrData::Data(data.to_vec());
        }
        let path = String::from_utf8_lossy(text);
        FileOrData::File(if path.starts_with('/') { path.into_owned() } else { format!("{conf_prefix}{path}") })
    }
}

impl SiteTls {
    /// The TLS of a server; `None` if it has none.
    pub fn server(&self, server: ServerId) -> Option<&Arc<ServerTls>> {
        self.servers.get(server.0 as usize)?.as_ref()
    }

    /// Every server's TLS with the first server that has it.
    pub fn all(&self) -> impl Iterator<Item = (ServerId, &Arc<ServerTls>)> {
        let mut seen = HashSet::new();
        self.servers.iter().enumerate().filter_map(move |(at, tls)| {
            let tls = tls.as_ref()?;
            seen.insert(Arc::as_ptr(tls)).then_some((ServerId(at as u32), tls))
        })
    }

    /// Whether a server wants its connections given to the kernel.
    pub fn wants_kernel(&self) -> bool {
        self.all().any(|(_, tls)| tls.config.wants_kernel())
    }

    /// TLS to upstreams.
    pub fn all_upstreams(&self) -> impl Iterator<Item = &Arc<UpstreamTls>> {
        self.memory.upstreams.values()
    }

    /// TLS to upstreams, by everything that it is made of.
    pub(in crate::http::modules) fn upstreams(&self) -> &UpstreamMemory {
        &self.memory.upstreams
    }

    /// See [`SiteTls::upstreams`].
    pub(in crate::http::modules) fn upstreams_mut(&mut self) -> &mut UpstreamMemory {
        &mut self.memory.upstreams
    }

    /// What a new site takes over from this one.
    pub fn memory(&self) -> (Arc<TlsClock>, TlsMemory) {
        (Arc::clone(&self.clock), self.memory.clone())
    }
}

impl Site {
    /// The server whose TLS a client gets that asks for `name` on `address`: the one of that name if it has
    /// certificates or refuses all, else the default server. `None` if neither has any.
    pub fn tls_server(&self, address: AddressId, name: Option<&str>) -> Option<(ServerId, &Arc<ServerTls>)> {
        let address = &self.addresses[address.0 as usize];
        let named = name.zip(address.names.as_ref()).and_then(|(name, names)| {
            let server = server_of(names, name)?;
            Some((server, self.tls.server(server)?))
        });
        named.or_else(|| Some((address.default_server, self.tls.server(address.default_server)?)))
    }
}

/// The server that a name of a ClientHello means; `None` for the default server, also where a regular expression reaches
/// its bound.
pub fn server_of(names: &ServerNames<ServerId>, name: &str) -> Option<ServerId> {
    let found = names.find(name.as_bytes(), &mut Captures::default()).ok()??;
    Some(found.target)
}

impl ServerTls {
    /// Whether the certificates depend on the client: their names have variables.
    pub fn is_dynamic(&self) -> bool {
        self.sources.is_dynamic()
    }

    /// Renders the names of certificates and keys for a client. The exchange is one without a request, whose connection
    /// knows the TLS facts of the ClientHello.
    pub fn render(&self, exchange: &mut Exchange, context: &mut Context) -> Vec<PairText> {
        self.sources.render(exchange, context, &self.conf_prefix)
    }

    /// What handshakes are made with, for clients that may speak HTTP/2 or may not.
    pub fn config(&self, with_http2: bool) -> &Arc<ServerTlsConfig> {
        if with_http2 { &self.with_http2 } else { &self.config }
    }

    /// The configurations that are kept, where the certificates' names have variables.
    pub fn named_pairs(&self, with_http2: bool) -> &Mutex<PairCache<ServerTlsConfig>> {
        &self.named[usize::from(with_http2)]
    }

    /// The configuration with these certificates and keys (PEM), for a client whose names were rendered.
    pub fn with_pairs(&self, texts: &[(&[u8], &[u8])], with_http2: bool) -> Result<ServerTlsConfig, String> {
        let passwords = self.sources.passwords();
        let pairs: Result<Vec<Pair>, String> = texts
            .iter()
            .map(|(certificate, key)| {
                Pair::load(certificate, key, &passwords, None).map_err(|error| error.message)
            })
            .collect();
        Ok(self.config(with_http2).with_certificates(Arc::new(Certificates::new(pairs?))))
    }

    /// The files that the certificates and keys come from. They are looked at every few seconds; whatever else the
    /// configuration names is read again with the configuration.
    pub fn watched(&self) -> impl Iterator<Item = &str> {
        self.sources.paths.iter().map(|path| &**path)
    }

    /// Reads the files again. If they have changed and fit together, new handshakes see the new pairs, all at once
    /// (`true`); if not, the old ones stay, and the error says why.
    pub fn reload(&self, files: &mut dyn Files) -> Result<bool, String> {
        let LoadedPairs { pairs, contents } = self.sources.load(files, &self.conf_prefix).map_err(|error| error.message)?;
        let mut seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *seen == contents {
            return Ok(false);
        }
        self.config.certificates().replace(pairs);
        *seen = contents;
        Ok(true)
    }

    /// The whole days that the certificate has left which ends first; `None` without any. Negative once it has ended.
    pub fn days_left(&self, now: i64) -> Option<i64> {
        let pairs = self.config.certificates().pairs();
        pairs.iter().map(|pair| (pair.not_after() - now).div_euclid(86_400)).min()
    }
}
