//! TLS to upstreams, for every module that passes requests on over it (`proxy_ssl_*`): what its directives say becomes a
//! frozen configuration when the whole is read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::conf::files::{FileError, Files};
use crate::conf::source::{IncludeId, Span};
use crate::http::build::Builder;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::modules::ssl::{
    Cached, CertificateCache, FileOrData, FileText, LoadedPairs, PairCache, PairText, Problem, SiteTls,
    Sources, read_file, read_trust, watched_paths,
};
use crate::proto::tls::{ClientOptions, ClientTlsConfig, Pair, Primitives, TlsClock};

/// What the directives of one scope say.
#[derive(Clone)]
pub struct TlsPlan {
    /// What the directives' names begin with (`proxy`).
    pub prefix: &'static str,
    /// Versions, suites and groups.
    pub primitives: Primitives,
    /// Our certificate for upstreams that ask for one.
    pub certificate: Option<FileText>,
    /// Its key.
    pub key: Option<FileText>,
    /// Passwords of the key, one on each line.
    pub passwords: Option<FileText>,
    /// How long certificates whose names have variables are kept.
    pub cache: Option<CertificateCache>,
    /// Whether upstreams' certificates are checked, and where that is written.
    pub verify: Option<(Span, IncludeId)>,
    /// Most certificates between an upstream's and a trusted one.
    pub depth: u64,
    /// The authorities that are believed.
    pub trusted: Option<FileText>,
    /// Lists of revoked certificates.
    pub crl: Option<FileText>,
    /// Whether the name is told to upstreams.
    pub send_name: bool,
    /// Whether sessions are taken up again.
    pub reuse_sessions: bool,
    /// Protocols, the most wanted first (ALPN); none for HTTP/1.
    pub protocols: Vec<Vec<u8>>,
    /// A directive to point at, for what belongs to none alone.
    pub place: (Span, IncludeId),
}

/// Where a scope's settings find what was made of them.
#[derive(Clone, Default)]
pub struct TlsSlot(Arc<OnceLock<Arc<UpstreamTls>>>);

impl TlsSlot {
    /// What was made of the settings; `None` where no request can need it.
    pub fn get(&self) -> Option<&Arc<UpstreamTls>> {
        self.0.get()
    }
}

/// Of a pair's files.
type Contents = Vec<Arc<[u8]>>;

/// TLS to upstreams as one or more scopes have it, frozen. Its sessions and its connections live as long as it does; a
/// reload that changes nothing of it keeps it.
pub struct UpstreamTls {
    /// What handshakes are made with; without a certificate of ours where that one's name has variables.
    pub config: ClientTlsConfig,
    /// Certificate and key whose names have variables.
    dynamic: Option<Sources>,
    /// Those whose names have none, and what the files held when they were read last.
    fixed: Option<(Sources, Mutex<Contents>)>,
    /// How long those are kept, and what is.
    cache: Option<(CertificateCache, Mutex<PairCache<ClientTlsConfig>>)>,
    /// Folder that relative paths begin in.
    conf_prefix: Box<str>,
}

impl std::fmt::Debug for UpstreamTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UpstreamTls")
    }
}

#[cfg(test)]
impl UpstreamTls {
    /// With everything as it is without any directive, and without sessions.
    pub fn for_tests() -> UpstreamTls {
        let options = ClientOptions {
            primitives: Primitives::default(),
            certificate: None,
            trust: None,
            send_name: true,
            reuse_sessions: false,
            protocols: Vec::new(),
            clock: Arc::new(TlsClock::new(1_900_000_000)),
        };
        let config = ClientTlsConfig::new(options).expect("a configuration");
        UpstreamTls { config, dynamic: None, fixed: None, cache: None, conf_prefix: Box::default() }
    }
}

impl UpstreamTls {
    /// Where our certificate for this request comes from; `None` if it is always the same or there is none.
    pub fn render(&self, exchange: &mut Exchange, context: &mut Context) -> Option<PairText> {
        let sources = self.dynamic.as_ref()?;
        let pair = sources.render(exchange, context, &self.conf_prefix).into_iter().next()?;
        // An empty name is no certificate, as in nginx.
        let is_empty = matches!(&pair.certificate, FileOrData::File(path) if **path == *self.conf_prefix);
        (!is_empty).then_some(pair)
    }

    /// The configuration with this pair, where it is kept (`proxy_ssl_certificate_cache`); `now` in seconds.
    pub fn kept(&self, pair: &PairText, now: u64) -> Cached<ClientTlsConfig> {
        match self.pairs() {
            Some((limits, mut pairs)) => pairs.find(std::slice::from_ref(pair), now, limits),
            None => Cached::Missing,
        }
    }

    /// The files of a pair have not changed.
    pub fn confirm(&self, pair: &PairText, now: u64) {
        if let Some((_, mut pairs)) = self.pairs() {
            pairs.confirm(std::slice::from_ref(pair), now);
        }
    }

    /// Keeps what was made of files in this state, for as long as the configuration says.
    pub fn keep(&self, pair: &PairText, config: &Arc<ClientTlsConfig>, state: u64, now: u64) {
        if let Some((limits, mut pairs)) = self.pairs() {
            pairs.keep(vec![pair.clone()], Arc::clone(config), state, now, limits);
        }
    }

    fn pairs(&self) -> Option<(CertificateCache, MutexGuard<'_, PairCache<ClientTlsConfig>>)> {
        let (limits, pairs) = self.cache.as_ref()?;
        Some((*limits, pairs.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// The files that our certificate and its key come from. They are looked at every few seconds.
    pub fn watched(&self) -> impl Iterator<Item = &str> {
        self.fixed.iter().flat_map(|(sources, _)| sources.paths.iter().map(|path| &**path))
    }

    /// Reads the files again. If they have changed and fit together, new handshakes see the new pair (`true`); if not, the
    /// old one stays, and the error says why.
    pub fn reload(&self, files: &mut dyn Files) -> Result<bool, String> {
        let Some((sources, seen)) = &self.fixed else { return Ok(false) };
        let LoadedPairs { mut pairs, contents } =
            sources.load(files, &self.conf_prefix).map_err(|error| error.message)?;
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(pair) = pairs.pop().filter(|_| *seen != contents) else { return Ok(false) };
        self.config.replace_certificate(pair);
        *seen = contents;
        Ok(true)
    }

    /// The whole days that our certificate has left; `None` without one. Negative once it has ended.
    pub fn days_left(&self, now: i64) -> Option<i64> {
        self.config.not_after().map(|not_after| (not_after - now).div_euclid(86_400))
    }

    /// The configuration with this certificate and key (PEM).
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn with_pair(&self, certificate: &[u8], key: &[u8]) -> Result<ClientTlsConfig, String> {
        let passwords = self.dynamic.as_ref().map(Sources::passwords).unwrap_or_default();
        let pair = Pair::load(certificate, key, &passwords, None).map_err(|error| error.message)?;
        Ok(self.config.with_certificate(pair))
    }
}

/// Everything that a configuration is made of: what is the same is made once, and stays over a reload.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    settings: String,
    /// Of all files, in the order in which they are read.
    contents: Vec<Vec<u8>>,
}

/// What is made of all scopes' settings, kept for the next reload.
pub type UpstreamMemory = HashMap<Fingerprint, Arc<UpstreamTls>>;

/// Makes the TLS of all scopes whose requests may need it. What is wrong is reported, and the scope has none then.
pub fn finish(
    files: &mut dyn Files,
    builder: &mut Builder,
    plans: Vec<(TlsPlan, TlsSlot)>,
    site: &mut SiteTls,
    previous: Option<&SiteTls>,
) {
    let conf_prefix = builder.conf_prefix.clone();
    for (plan, slot) in plans {
        // Scopes that share their settings share the slot.
        if slot.get().is_some() {
            continue;
        }
        let mut files = Recording { files: &mut *files, contents: Vec::new() };
        let made = match plan.make(&mut files, &conf_prefix, &site.clock) {
            Ok(made) => Arc::new(made),
            Err(problem) => {
                problem.report(builder);
                continue;
            }
        };
        let fingerprint = Fingerprint { settings: plan.told(), contents: files.contents };
        let old = previous.and_then(|previous| previous.upstreams().get(&fingerprint));
        let known = site.upstreams().get(&fingerprint).or(old).filter(|_| made.dynamic.is_none());
        let tls = known.cloned().unwrap_or(made);
        site.upstreams_mut().insert(fingerprint, Arc::clone(&tls));
        // It is empty: see above.
        let _ = slot.0.set(tls);
    }
}

/// Remembers what was read.
struct Recording<'a> {
    files: &'a mut dyn Files,
    contents: Vec<Vec<u8>>,
}

impl Files for Recording<'_> {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, FileError> {
        self.files.read(path)
    }

    fn read_data(&mut self, path: &str) -> Result<Vec<u8>, FileError> {
        let content = self.files.read_data(path)?;
        self.contents.push(content.clone());
        Ok(content)
    }

    fn glob(&mut self, pattern: &str) -> Result<Vec<String>, FileError> {
        self.files.glob(pattern)
    }
}

impl TlsPlan {
    fn make(
        &self,
        files: &mut dyn Files,
        conf_prefix: &str,
        clock: &Arc<TlsClock>,
    ) -> Result<UpstreamTls, Problem> {
        let prefix = self.prefix;
        let sources = self.sources(files, conf_prefix)?;
        let (certificate, dynamic, fixed) = match sources {
            Some(sources) if sources.is_dynamic() => (None, Some(sources), None),
            Some(sources) => {
                let LoadedPairs { mut pairs, contents } = sources.load(files, conf_prefix)?;
                (pairs.pop(), None, Some((sources, Mutex::new(contents))))
            }
            None => (None, None, None),
        };
        let trust = match self.verify {
            None => None,
            Some(place) if self.trusted.is_none() => {
                let message = format!("no {prefix}_ssl_trusted_certificate for {prefix}_ssl_verify");
                return Err(Problem { message, place, help: None });
            }
            Some(place) => {
                let depth = usize::try_from(self.depth).unwrap_or(usize::MAX);
                let trusted = self.trusted.iter();
                Some(read_trust(files, trusted, self.crl.as_ref(), depth, conf_prefix, place)?)
            }
        };
        let options = ClientOptions {
            primitives: self.primitives.clone(),
            certificate,
            trust: trust.map(Arc::new),
            send_name: self.send_name,
            reuse_sessions: self.reuse_sessions,
            protocols: self.protocols.clone(),
            clock: Arc::clone(clock),
        };
        let config = ClientTlsConfig::new(options).map_err(|message| Problem {
            message: format!("TLS to upstreams cannot be set up: {message}"),
            place: self.place,
            help: Some("the directives about protocols and ciphers leave nothing to speak"),
        })?;
        Ok(UpstreamTls {
            config,
            dynamic,
            fixed,
            cache: self.cache.map(|limits| (limits, Mutex::default())),
            conf_prefix: conf_prefix.into(),
        })
    }

    /// Where our certificate comes from.
    fn sources(&self, files: &mut dyn Files, conf_prefix: &str) -> Result<Option<Sources>, Problem> {
        let Some(certificate) = &self.certificate else { return Ok(None) };
        let Some(key) = &self.key else {
            let prefix = self.prefix;
            let name = String::from_utf8_lossy(certificate.template.as_literal().unwrap_or(b"..."));
            let message =
                format!("no \"{prefix}_ssl_certificate_key\" is defined for certificate \"{name}\"");
            return Err(Problem { message, place: certificate.place, help: None });
        };
        let passwords = match &self.passwords {
            Some(file) => Some(read_file(files, file, conf_prefix, "passwords")?),
            None => None,
        };
        let pairs = vec![(certificate.clone(), key.clone())];
        let paths = watched_paths(&pairs, conf_prefix);
        Ok(Some(Sources { pairs, passwords, staple: None, paths }))
    }

    /// What stands in no file, told so that equal plans are told the same.
    fn told(&self) -> String {
        let TlsPlan { primitives, protocols, cache, .. } = self;
        let groups: Vec<_> = primitives.groups.iter().map(|group| group.name()).collect();
        let suites = (&primitives.suites_1_3, &primitives.suites_1_2);
        let files =
            [&self.certificate, &self.key, &self.passwords, &self.trusted, &self.crl].map(Option::is_some);
        let flags = (self.send_name, self.reuse_sessions, self.verify.is_some(), self.depth);
        format!("{:?} {suites:?} {groups:?} {protocols:?} {cache:?} {files:?} {flags:?}", primitives.versions)
    }
}
