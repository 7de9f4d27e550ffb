//! Certificates whose names have variables: rendered, read and put together for each handshake, as in nginx, unless
//! `ssl_certificate_cache` keeps them.
//!
//! Files are read on the loop, as in nginx: they are small, and mostly in memory.

use std::rc::Rc;
use std::sync::{Arc, PoisonError};

use crate::base::level::Level;
use crate::http::context::Context;
use crate::http::exchange::{ConnectionFacts, Exchange};
use crate::http::modules::ssl::{Cached, PairText, ServerTls};
use crate::http::site::{AddressId, SiteHandle};
use crate::message::RequestHead;
use crate::proto::tls::{Fault, Hello, ServerTlsConfig, TlsError, TlsFacts};
use crate::server::files::pairs::{name_of, read, state_of};
use crate::server::worker::resources::Resources;

use super::Client;

/// Who asks, and for what.
pub struct Asked<'a> {
    pub site: &'a SiteHandle,
    pub address: AddressId,
    pub tls: &'a ServerTls,
    pub with_http2: bool,
}

impl Client {
    /// The configuration with the certificates that this client's hello names.
    pub(super) fn named_certificates(
        &self,
        asked: &Asked<'_>,
        hello: Option<&Hello<'_>>,
        res: &mut Resources,
    ) -> Result<Arc<ServerTlsConfig>, TlsError> {
        let pairs = render(asked, facts_of(&self.facts, hello), res);
        let now = res.env.now.wall_secs.max(0) as u64;
        let cache = asked.tls.named_pairs(asked.with_http2);
        if let Some(limits) = asked.tls.cache {
            let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
            match cache.find(&pairs, now, limits) {
                Cached::Fresh(config) => return Ok(config),
                Cached::Check(config, state) if state == state_of(&pairs) => {
                    cache.confirm(&pairs, now);
                    return Ok(config);
                }
                Cached::Check(..) | Cached::Missing => {}
            }
        }
        // The state before reading: a change in between is seen by the next look.
        let state = state_of(&pairs);
        let config = match load(&pairs, asked.tls, asked.with_http2) {
            Ok(config) => Arc::new(config),
            Err(message) => {
                res.log_connection(self, Level::Error, format_args!("{message} while SSL handshaking"));
                return Err(TlsError::new(Fault::Refused, "no certificate for this name"));
            }
        };
        if let Some(limits) = asked.tls.cache {
            let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
            cache.keep(pairs, Arc::clone(&config), state, now, limits);
        }
        Ok(config)
    }
}

/// What is known of the connection before the handshake.
fn facts_of(facts: &ConnectionFacts, hello: Option<&Hello<'_>>) -> ConnectionFacts {
    let mut facts = facts.clone();
    let mut tls = TlsFacts::default();
    if let Some(hello) = hello {
        tls.server_name = hello.server_name.unwrap_or_default().into();
        tls.offer = hello.offer.clone();
    }
    facts.secure = true;
    facts.tls = Some(Rc::new(tls));
    facts
}

fn render(asked: &Asked<'_>, facts: ConnectionFacts, res: &mut Resources) -> Vec<PairText> {
    let now_ms = res.env.now.monotonic_ms;
    let head = RequestHead::default();
    let mut exchange = Exchange::begin(asked.site.clone(), asked.address, facts, now_ms, head);
    let mut context = Context { site: asked.site, env: &mut res.env };
    asked.tls.render(&mut exchange, &mut context)
}

fn load(pairs: &[PairText], tls: &ServerTls, with_http2: bool) -> Result<ServerTlsConfig, String> {
    let mut texts = Vec::with_capacity(pairs.len());
    for pair in pairs {
        texts.push((read("certificate", &pair.certificate)?, read("certificate key", &pair.key)?));
    }
    let texts: Vec<(&[u8], &[u8])> = texts.iter().map(|(chain, key)| (&chain[..], &key[..])).collect();
    tls.with_pairs(&texts, with_http2).map_err(|reason| {
        let names: Vec<&str> = pairs.iter().map(|pair| name_of(&pair.certificate)).collect();
        format!("cannot load certificate \"{}\": {reason}", names.join("\", \""))
    })
}
