//! What went wrong with a try, in one word, and what follows from it.

use crate::http::upstream_call::conditions;
use crate::proto::h1::ResponseFault;
use crate::proto::h2::{ErrorCode, StreamLoss};

/// See the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The peer's name has no address.
    Dns,
    /// Nobody listens.
    ConnectRefused,
    /// The handshake took too long.
    ConnectTimeout,
    /// The peer cannot be reached, or we lack the means.
    ConnectFailed,
    /// Both sides did not come to terms about TLS.
    TlsHandshake,
    /// The peer's certificate is not believed, or for another name.
    TlsCertificate,
    /// The peer does not speak HTTP/2 within TLS.
    TlsProtocol,
    /// Coming to terms took too long.
    TlsTimeout,
    /// The peer took no more of the request for too long.
    SendTimeout,
    /// The connection ended before a byte of the response.
    ResetBeforeHeader,
    /// No response came for too long.
    HeaderTimeout,
    /// What came, or what came before the response was over, cannot be used.
    Response(ResponseFault),
    /// The rest of the body did not come for too long.
    BodyTimeout,
    /// No peer may be asked.
    NoLivePeers,
    /// The group's queue is full, or the wait in it was too long.
    Queue,
    /// The client went first.
    ClientClosed,
    /// A status that asks for another try.
    Status(u16),
    /// The peer said that it did not look at the request, or nothing of it was sent.
    NotProcessed,
    /// The peer gave the request's stream up.
    StreamReset,
    /// The peer takes no WebSockets over HTTP/2.
    NoTunnel,
    /// Our own trouble.
    Internal,
}

impl Failure {
    /// In one word (`$upstream_error`).
    pub fn token(self) -> &'static str {
        match self {
            Failure::Dns => "dns_failure",
            Failure::ConnectRefused => "connect_refused",
            Failure::ConnectTimeout => "connect_timeout",
            Failure::ConnectFailed => "connect_failed",
            Failure::TlsHandshake => "tls_handshake_failed",
            Failure::TlsCertificate => "tls_certificate_invalid",
            Failure::TlsProtocol => "tls_no_http2",
            Failure::TlsTimeout => "tls_handshake_timeout",
            Failure::SendTimeout => "send_timeout",
            Failure::ResetBeforeHeader => "reset_before_header",
            Failure::HeaderTimeout => "header_timeout",
            Failure::Response(fault) => fault.token(),
            Failure::BodyTimeout => "body_timeout",
            Failure::NoLivePeers => "no_live_upstreams",
            Failure::Queue => "queue_timeout",
            Failure::ClientClosed => "client_closed",
            Failure::Status(_) => "http_status",
            Failure::NotProcessed => "not_processed",
            Failure::StreamReset => "stream_reset",
            Failure::NoTunnel => "no_extended_connect",
            Failure::Internal => "internal",
        }
    }

    /// What the client is told where nothing better is to be had.
    pub fn status(self) -> u16 {
        match self {
            Failure::ConnectTimeout
            | Failure::TlsTimeout
            | Failure::SendTimeout
            | Failure::HeaderTimeout
            | Failure::BodyTimeout => 504,
            Failure::ClientClosed => 499,
            Failure::Internal => 500,
            Failure::Status(status) => status,
            _ => 502,
        }
    }

    /// The condition of `proxy_next_upstream` that it is; 0 for none.
    pub fn condition(self) -> u32 {
        match self {
            Failure::ConnectTimeout | Failure::TlsTimeout | Failure::SendTimeout | Failure::HeaderTimeout => {
                conditions::TIMEOUT
            }
            Failure::Response(ResponseFault::NothingCame | ResponseFault::HeaderTruncated)
            | Failure::ConnectRefused
            | Failure::ConnectFailed
            | Failure::Dns
            | Failure::TlsHandshake
            | Failure::TlsCertificate
            | Failure::TlsProtocol
            | Failure::NotProcessed
            | Failure::NoTunnel
            | Failure::ResetBeforeHeader => conditions::ERROR,
            Failure::Response(_) | Failure::StreamReset => conditions::INVALID_HEADER,
            Failure::Status(status) => condition_of(status),
            _ => 0,
        }
    }

    /// Whether it is that the peer took too long.
    pub fn is_timeout(self) -> bool {
        matches!(self, Failure::SendTimeout | Failure::HeaderTimeout | Failure::BodyTimeout)
    }

    /// Whether it counts against the peer. 403, 404 and 429 send a request elsewhere and say nothing about its health.
    pub fn blames_peer(self) -> bool {
        !matches!(
            self,
            Failure::ClientClosed
                | Failure::Internal
                | Failure::NoLivePeers
                | Failure::NoTunnel
                | Failure::Queue
                | Failure::Status(403 | 404 | 429)
        )
    }

    /// Of a connection that could not be made.
    pub fn of_connect(error: &std::io::Error) -> Failure {
        match error.kind() {
            std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound => Failure::ConnectRefused,
            std::io::ErrorKind::TimedOut => Failure::ConnectTimeout,
            _ => Failure::ConnectFailed,
        }
    }

    /// Of a stream that is gone although the request may have been processed.
    pub fn of_loss(loss: &StreamLoss) -> Failure {
        match loss.code {
            _ if loss.by_peer => Failure::StreamReset,
            // What the machine does not take of a head for its size alone.
            ErrorCode::CANCEL => Failure::Response(ResponseFault::HeaderTooBig),
            _ => Failure::Response(ResponseFault::HeaderInvalid),
        }
    }

    /// Of a response that cannot be used.
    pub fn of_response(fault: ResponseFault) -> Failure {
        match fault {
            ResponseFault::NothingCame => Failure::ResetBeforeHeader,
            fault => Failure::Response(fault),
        }
    }
}

/// An error of the system for the log, in nginx's form: `111: Connection refused`.
pub fn told(error: impl Into<std::io::Error>) -> String {
    let error = error.into();
    let text = error.to_string();
    match error.raw_os_error() {
        Some(code) => {
            let suffix = format!(" (os error {code})");
            format!("{code}: {}", text.strip_suffix(&suffix).unwrap_or(&text))
        }
        None => text,
    }
}

/// The condition that a status is.
fn condition_of(status: u16) -> u32 {
    match status {
        500 => conditions::HTTP_500,
        502 => conditions::HTTP_502,
        503 => conditions::HTTP_503,
        504 => conditions::HTTP_504,
        403 => conditions::HTTP_403,
        404 => conditions::HTTP_404,
        429 => conditions::HTTP_429,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::told;
    use rustix::io::Errno;

    #[test]
    fn errors_are_told_in_nginx_s_form() {
        assert_eq!(told(Errno::CONNREFUSED), "111: Connection refused");
        assert_eq!(told(std::io::Error::other("odd")), "odd");
    }
}
