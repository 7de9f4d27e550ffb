//! `client_connections_max`: how many connections one address may have open. Ours: what takes a zone, a key and a limit
//! with `limit_conn`, and holds for requests only, is one line here, and refuses before a byte is read.

use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::tree::Word;
use crate::conf::values;
use crate::http::build::Scope;
use crate::http::settings::contexts::HTTP_SERVER;
use crate::http::settings::settings;
use crate::message::Status;

settings! {
    module client_connections;
    fields {
        /// Connections that one address (of IPv6: one /64 network) may have open in all workers, on all sockets with such a
        /// limit; `off` for no limit. More are closed when they are accepted, before anything is read, or with
        /// `status=CODE` answered at once (not under TLS). The default server of a socket decides. Connections over Unix
        /// sockets and of the PROXY protocol are not counted.
        most: Option<Most> = None, inherit;
            "client_connections_max" HTTP_SERVER, Arity::between(1, 2), default "off", once most;
    }
}

/// See the directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Most {
    /// Connections.
    pub count: u32,
    /// What is answered beyond them; nothing if `None`.
    pub status: Option<Status>,
}

fn most(_: &mut Scope, call: &Call) -> Result<Option<Most>, Complaint> {
    let word = call.arg(0);
    let count = match word.as_bytes() {
        b"off" if call.args().len() == 1 => return Ok(None),
        text => values::parse_number(text).ok().and_then(|count| u32::try_from(count).ok()),
    };
    let Some(count) = count.filter(|count| *count > 0) else {
        let message = format!("invalid number of connections \"{}\"", word.lossy());
        return Err(Complaint::new(message).at(word));
    };
    let status = match call.args().get(1) {
        None => None,
        Some(word) => Some(status(word)?),
    };
    Ok(Some(Most { count, status }))
}

fn status(word: &Word) -> Result<Status, Complaint> {
    let text = word.as_bytes().strip_prefix(b"status=").ok_or_else(|| Complaint::invalid_parameter(word))?;
    match values::parse_number(text) {
        Ok(code @ 400..=599) => Ok(Status(code as u16)),
        _ => Err(Complaint::new("value must be between 400 and 599").at(word)),
    }
}

#[cfg(test)]
mod tests {
    use crate::http::testing::complaints;

    #[test]
    fn mistakes_are_told() {
        for (text, told) in [
            ("0", "invalid number of connections \"0\""),
            ("x", "invalid number of connections \"x\""),
            ("4294967296", "invalid number of connections \"4294967296\""),
            ("1 foo", "invalid parameter \"foo\""),
            ("1 status=200", "value must be between 400 and 599"),
        ] {
            assert_eq!(
                complaints(&format!("client_connections_max {text};")),
                [format!("[emerg] {told}")],
                "{text}"
            );
        }
        assert!(complaints("client_connections_max off;").is_empty());
        assert!(complaints("server { client_connections_max 10 status=429; }").is_empty());
    }
}
