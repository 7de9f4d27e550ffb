//! From a connection that stands to one that is secure, where the call wants it.

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::io::Errno;

use crate::base::level::Level;
use crate::http::exchange::Exchange;
use crate::http::modules::ssl::Cached;
use crate::http::upstream_call::CallTls;
use crate::proto::tls::{ClientTlsConfig, Fault, TlsError};
use crate::server::files::LoadedPair;
use crate::server::pool::JobId;
use crate::server::worker::resources::Resources;

use super::failure::{Failure, told};
use super::multiplexed::Stage;
use super::tls::{HandshakeFailure, TlsLayer};
use super::{Carrier, Relay, State};

/// Our certificate for the upstream, where its name has variables.
#[derive(Default)]
pub enum Loading {
    /// It is not needed, or was used.
    #[default]
    Nothing,
    /// The pool reads it.
    Job(JobId),
    /// Here it is.
    Done(Arc<ClientTlsConfig>),
    /// It cannot be had.
    Failed(String),
}

impl Loading {
    /// Nobody waits for it any more; the job that is to be cancelled.
    pub fn cancel(&mut self) -> Option<JobId> {
        match std::mem::take(self) {
            Loading::Job(job) => Some(job),
            _ => None,
        }
    }
}

impl Relay {
    /// The connection stands: the request is next, or the TLS handshake. Always has something to go on with.
    pub(super) fn begin_handshake(
        &mut self,
        exchange: &mut Exchange,
        res: &mut Resources,
    ) -> Result<bool, Failure> {
        let call = exchange.upstream.as_ref().and_then(|passed| passed.call.as_ref());
        let Some(tls) = call.and_then(|call| call.tls.clone()) else {
            self.note_connected(exchange, res.env.now.monotonic_ms);
            return Ok(true);
        };
        if let Some(run) = &mut self.run {
            run.moved_ms = res.env.now.monotonic_ms;
        }
        self.state = State::Securing;
        self.renew_deadline(exchange);
        let now = res.env.now.wall_secs.max(0).unsigned_abs();
        let known = match tls.pair.as_ref().map(|pair| tls.tls.kept(pair, now)) {
            None => {
                self.say_hello(&tls, &tls.tls.config, exchange, res)?;
                return Ok(true);
            }
            Some(Cached::Fresh(config)) => {
                self.say_hello(&tls, &config, exchange, res)?;
                return Ok(true);
            }
            Some(Cached::Check(_, state)) => Some(state),
            Some(Cached::Missing) => None,
        };
        let Ok(job) = res.files.load_pair(&tls, known) else {
            let message =
                format_args!("cannot load a certificate for the upstream: no thread has time for it");
            exchange.log_upstream(&mut res.env, Level::Crit, message);
            return Err(Failure::Internal);
        };
        res.jobs.insert(job, self.owner);
        self.loading = Loading::Job(job);
        Ok(true)
    }

    /// The pool has loaded our certificate.
    pub(super) fn take_pair(&mut self, job: JobId, loaded: LoadedPair, exchange: &Exchange, now: i64) {
        if !matches!(self.loading, Loading::Job(known) if known == job) {
            return;
        }
        let call = exchange.upstream.as_ref().and_then(|passed| passed.call.as_ref());
        let Some(tls) = call.and_then(|call| call.tls.as_ref()) else { return };
        let Some(pair) = &tls.pair else { return };
        let now = now.max(0).unsigned_abs();
        self.loading = match loaded {
            Ok(Some((config, state))) => {
                tls.tls.keep(pair, &config, state, now);
                Loading::Done(config)
            }
            Ok(None) => {
                tls.tls.confirm(pair, now);
                match tls.tls.kept(pair, now) {
                    Cached::Fresh(config) | Cached::Check(config, _) => Loading::Done(config),
                    Cached::Missing => Loading::Failed("a certificate was dropped too early".to_owned()),
                }
            }
            Err(message) => Loading::Failed(message),
        };
    }

    /// Goes on with our certificate once it is there.
    fn look_for_pair(&mut self, exchange: &mut Exchange, res: &mut Resources) -> Result<bool, Failure> {
        match std::mem::take(&mut self.loading) {
            Loading::Done(config) => {
                let call = exchange.upstream.as_ref().and_then(|passed| passed.call.as_ref());
                let tls = call.and_then(|call| call.tls.clone()).ok_or(Failure::Internal)?;
                self.say_hello(&tls, &config, exchange, res)?;
                Ok(true)
            }
            Loading::Failed(message) => {
                exchange.log_upstream(&mut res.env, Level::Error, format_args!("{message}"));
                Err(Failure::Internal)
            }
            waiting @ (Loading::Nothing | Loading::Job(_)) => {
                self.loading = waiting;
                Ok(false)
            }
        }
    }

    fn say_hello(
        &mut self,
        tls: &Arc<CallTls>,
        config: &ClientTlsConfig,
        exchange: &mut Exchange,
        res: &mut Resources,
    ) -> Result<(), Failure> {
        let Some(run) = &mut self.run else { return Err(Failure::Internal) };
        match (TlsLayer::start(tls, config, run.choice.peer.name()), &mut run.carrier) {
            (Ok(layer), Carrier::Own(connection)) => {
                connection.tls = Some(Box::new(layer));
                Ok(())
            }
            (Ok(layer), Carrier::Stream(link)) => {
                link.secure(layer, res);
                Ok(())
            }
            (Err(error), _) => Err(refused(&HandshakeFailure::Tls(error), exchange, res)),
        }
    }

    /// The TLS handshake: is it done?
    pub(super) fn look_for_handshake(
        &mut self,
        exchange: &mut Exchange,
        res: &mut Resources,
    ) -> Result<bool, Failure> {
        let Some(run) = &self.run else { return Err(Failure::Internal) };
        let is_under_way = match &run.carrier {
            Carrier::Own(connection) => connection.tls.is_some(),
            Carrier::Stream(link) => link.stage() != Stage::Plain,
        };
        if !is_under_way && !self.look_for_pair(exchange, res)? {
            return Ok(false);
        }
        let Some(run) = &mut self.run else { return Err(Failure::Internal) };
        let Some(connection) = run.own() else { return self.look_for_stream(exchange, res) };
        let Some(layer) = &mut connection.tls else { return Err(Failure::Internal) };
        let Some(link) = res.links.get(connection.link) else { return Err(Failure::Internal) };
        match layer.shake(connection.socket.as_fd(), &mut res.upstream_input, link) {
            Ok(true) => {
                self.note_connected(exchange, res.env.now.monotonic_ms);
                Ok(true)
            }
            Ok(false) => Ok(false),
            Err(failure) => Err(refused(&failure, exchange, res)),
        }
    }
}

/// Logs why there is no TLS, in nginx's words where they fit.
pub(super) fn refused(failure: &HandshakeFailure, exchange: &mut Exchange, res: &mut Resources) -> Failure {
    let mut log = |what: std::fmt::Arguments| {
        let message = format_args!("{what} while SSL handshaking to upstream");
        exchange.log_upstream(&mut res.env, Level::Error, message);
    };
    match failure {
        HandshakeFailure::Closed => log(format_args!("peer closed connection in SSL handshake")),
        HandshakeFailure::Socket(error @ Errno::CONNRESET) => {
            log(format_args!("peer closed connection in SSL handshake ({})", told(*error)));
        }
        HandshakeFailure::Socket(error) => {
            log(format_args!("SSL_do_handshake() failed ({})", told(*error)));
        }
        HandshakeFailure::Tls(TlsError { fault: Fault::Certificate, message }) => {
            log(format_args!("{message}"));
            return Failure::TlsCertificate;
        }
        HandshakeFailure::Tls(TlsError { fault: Fault::Protocol, .. }) => {
            log(format_args!("upstream does not speak HTTP/2: it refused the protocol \"h2\" (ALPN)"));
            return Failure::TlsProtocol;
        }
        HandshakeFailure::NoHttp2(chosen) => {
            let chosen = String::from_utf8_lossy(chosen);
            let chosen = if chosen.is_empty() { "none" } else { &*chosen };
            log(format_args!(
                "upstream does not speak HTTP/2: it chose {chosen} of the protocols that were offered (ALPN: h2)"
            ));
            return Failure::TlsProtocol;
        }
        HandshakeFailure::Tls(error) => log(format_args!("SSL_do_handshake() failed (SSL: {error})")),
    }
    Failure::TlsHandshake
}
