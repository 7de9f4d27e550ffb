//! From a connection that stands to one that is secure, where the call wants it.

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::io::Errno;

use crate::base::level::Level;
use crate::http::exchange::Exchange;
use crate::http::upstream_call::CallTls;
use crate::proto::tls::{ClientTlsConfig, Fault, TlsError};
use crate::server::worker::resources::Resources;

use super::failure::{Failure, told};
use super::tls::{HandshakeFailure, TlsLayer};
use super::{Relay, State};

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
        self.say_hello(&tls, &tls.tls.config, exchange, res)?;
        Ok(true)
    }

    fn say_hello(
        &mut self,
        tls: &Arc<CallTls>,
        config: &ClientTlsConfig,
        exchange: &mut Exchange,
        res: &mut Resources,
    ) -> Result<(), Failure> {
        let Some(run) = &mut self.run else { return Err(Failure::Internal) };
        match TlsLayer::start(tls, config, run.choice.peer.name()) {
            Ok(layer) => {
                run.connection.tls = Some(Box::new(layer));
                Ok(())
            }
            Err(error) => Err(refused(HandshakeFailure::Tls(error), exchange, res)),
        }
    }

    /// The TLS handshake: is it done?
    pub(super) fn look_for_handshake(
        &mut self,
        exchange: &mut Exchange,
        res: &mut Resources,
    ) -> Result<bool, Failure> {
        let Some(run) = &mut self.run else { return Err(Failure::Internal) };
        let connection = &mut run.connection;
        let Some(layer) = &mut connection.tls else { return Ok(false) };
        let Some(link) = res.links.get(connection.link) else { return Err(Failure::Internal) };
        match layer.shake(connection.socket.as_fd(), &mut res.upstream_input, link) {
            Ok(true) => {
                self.note_connected(exchange, res.env.now.monotonic_ms);
                Ok(true)
            }
            Ok(false) => Ok(false),
            Err(failure) => Err(refused(failure, exchange, res)),
        }
    }
}

/// Logs why there is no TLS, in nginx's words where they fit.
fn refused(failure: HandshakeFailure, exchange: &mut Exchange, res: &mut Resources) -> Failure {
    let mut log = |what: std::fmt::Arguments| {
        let message = format_args!("{what} while SSL handshaking to upstream");
        exchange.log_upstream(&mut res.env, Level::Error, message);
    };
    match failure {
        HandshakeFailure::Closed => log(format_args!("peer closed connection in SSL handshake")),
        HandshakeFailure::Socket(error @ Errno::CONNRESET) => {
            log(format_args!("peer closed connection in SSL handshake ({})", told(error)));
        }
        HandshakeFailure::Socket(error) => log(format_args!("SSL_do_handshake() failed ({})", told(error))),
        HandshakeFailure::Tls(TlsError { fault: Fault::Certificate, message }) => {
            log(format_args!("{message}"));
            return Failure::TlsCertificate;
        }
        HandshakeFailure::Tls(error) => log(format_args!("SSL_do_handshake() failed (SSL: {error})")),
    }
    Failure::TlsHandshake
}
