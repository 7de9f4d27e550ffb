//! `set_real_ip_from`, `real_ip_header`, `real_ip_recursive`: the client's address as a trusted proxy reports it.
//!
//! The address takes the place of the peer's for the rest of the request: variables, access rules, limits and logs see
//! it. It is looked for twice, as in nginx: by the settings of the server before anything else, and by those of the
//! location before the access phase, unless it was found by then.

use std::net::SocketAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::base::cidr::{AddressSet, Cidr, PeerAddress};
use crate::base::forwarded;
use crate::conf::directive::{Arity, Call, Complaint};
use crate::http::build::Scope;
use crate::http::build::arguments::flag;
use crate::http::context::Context;
use crate::http::exchange::{Endpoint, Exchange};
use crate::http::modules::connection_variables::{append_endpoint, append_port};
use crate::http::settings::contexts::HTTP_SERVER_LOCATION;
use crate::http::settings::settings;
use crate::http::variables::VariableEntry;
use crate::message::FieldName;

settings! {
    module realip;
    fields {
        /// A trusted proxy: an address, a network, a host's name, or `unix:`.
        trusted: Arc<AddressSet> = Arc::default(), inherit;
            "set_real_ip_from" HTTP_SERVER_LOCATION, Arity::exactly(1), default "", with add_trusted;
        /// The field in which proxies report the client's address, or `proxy_protocol`.
        header: Header = Header::Field(b"X-Real-IP".as_slice().into()), inherit;
            "real_ip_header" HTTP_SERVER_LOCATION, Arity::exactly(1), default "X-Real-IP", once read_header;
        /// Whether trusted addresses in the field lead on to the one before them.
        recursive: bool = false, inherit;
            "real_ip_recursive" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", once flag;
    }
}

/// Where the address is reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Header {
    /// In the first line of this name.
    Field(Arc<[u8]>),
    /// In all lines of `X-Forwarded-For`.
    ForwardedFor,
    /// In the PROXY protocol's header.
    ProxyProtocol,
}

/// The peer whose address was replaced.
pub type Note = Option<Box<Endpoint>>;

/// The module's variables.
pub static VARIABLES: &[VariableEntry] = &[
    VariableEntry::new("realip_remote_addr", |exchange, _, out| {
        append_endpoint(original_peer(exchange), out);
        true
    }),
    VariableEntry::new("realip_remote_port", |exchange, _, out| append_port(original_peer(exchange), out)),
];

fn original_peer(exchange: &Exchange) -> &Endpoint {
    exchange.notes.real_ip.as_deref().unwrap_or(&exchange.connection.peer)
}

fn add_trusted(
    scope: &mut Scope,
    call: &Call,
    slot: &mut Option<Arc<AddressSet>>,
) -> Result<(), Complaint> {
    let word = call.arg(0);
    let set = Arc::make_mut(slot.get_or_insert_default());
    let text = word.as_str().ok_or_else(|| Complaint::invalid_parameter(word))?;
    if let Some(parsed) = (text != "all").then(|| Cidr::parse(text)).flatten() {
        if parsed.low_bits_are_meaningless {
            scope.warn(call, format!("low address bits of {text} are meaningless"));
        }
        set.push(parsed.cidr, ());
        return Ok(());
    }
    // A configuration test needs no DNS.
    let Some(resolve) = scope.builder.resolve else { return Ok(()) };
    let found = resolve(text);
    if found.is_empty() {
        return Err(Complaint::new(format!("host not found in set_real_ip_from \"{text}\"")).at(word));
    }
    for address in found {
        set.push(Cidr::from(address), ());
    }
    Ok(())
}

fn read_header(_: &mut Scope, call: &Call) -> Result<Header, Complaint> {
    let name = call.arg(0).as_bytes();
    Ok(match name {
        b"proxy_protocol" => Header::ProxyProtocol,
        _ if name.eq_ignore_ascii_case(b"X-Forwarded-For") => Header::ForwardedFor,
        _ => Header::Field(name.into()),
    })
}

/// The values of a field's lines, the last one first.
pub fn last_first(exchange: &Exchange, field: FieldName) -> SmallVec<[&[u8]; 4]> {
    let mut lines: SmallVec<[&[u8]; 4]> = exchange.head.fields.all(field).collect();
    lines.reverse();
    lines
}

/// Replaces the peer's address by the client's, if a trusted peer reports one and none was found before.
pub fn apply(exchange: &mut Exchange, context: &mut Context) {
    let site = context.site;
    let settings = &site.settings(exchange.location).realip;
    if settings.trusted.is_empty() || exchange.notes.real_ip.is_some() {
        return;
    }
    let Some(client) = reported_client(exchange, settings, exchange.peer_address()) else { return };
    let peer = std::mem::replace(&mut exchange.connection.peer, Endpoint::Inet(client));
    exchange.notes.real_ip = Some(Box::new(peer));
}

fn reported_client(exchange: &Exchange, settings: &Settings, peer: PeerAddress) -> Option<SocketAddr> {
    let find = |lines: &[&[u8]]| {
        forwarded::find_client(peer, lines.iter().copied(), &settings.trusted, settings.recursive)
    };
    match &settings.header {
        Header::Field(name) => find(&[exchange.head.fields.named(name).next()?]),
        Header::ForwardedFor => find(&last_first(exchange, FieldName::XForwardedFor)),
        Header::ProxyProtocol => {
            let (source, _) = exchange.connection.proxy_protocol.as_ref()?.addresses?;
            settings.trusted.contains(peer).then_some(source)
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::http::exchange::Endpoint;
    use crate::http::testing::{World, complaints};

    fn seen(settings: &str, fields: &str) -> String {
        let text = "return 200 \"$remote_addr $remote_port $realip_remote_addr $realip_remote_port\"";
        let mut world = World::new(&format!("{settings} server {{ {text}; }}"));
        world.get_with("/", fields).text().to_owned()
    }

    const UNCHANGED: &str = "192.0.2.1 40000 192.0.2.1 40000";

    #[test]
    fn a_trusted_peer_reports_the_client() {
        let from = "set_real_ip_from 192.0.2.0/24;";
        assert_eq!(seen(from, "X-Real-IP: 1.2.3.4\r\n"), "1.2.3.4  192.0.2.1 40000");
        assert_eq!(seen(from, "X-Real-IP: 1.2.3.4:99\r\n"), "1.2.3.4 99 192.0.2.1 40000");
        assert_eq!(seen(from, "X-Real-IP: [2001:db8::1]:9\r\n"), "2001:db8::1 9 192.0.2.1 40000");
        assert_eq!(seen(from, "X-Real-IP: nobody\r\n"), UNCHANGED);
        assert_eq!(seen(from, ""), UNCHANGED);
        assert_eq!(seen("set_real_ip_from 10.0.0.0/8;", "X-Real-IP: 1.2.3.4\r\n"), UNCHANGED);
    }

    #[test]
    fn the_field_and_the_recursion_are_configured() {
        let from = "set_real_ip_from 192.0.2.0/24; set_real_ip_from 10.0.0.0/8; real_ip_header";
        let client = "1.2.3.4  192.0.2.1 40000";
        assert_eq!(seen(&format!("{from} X-Client;"), "X-Client: 1.2.3.4\r\n"), client);
        let lines = "X-Forwarded-For: 9.9.9.9, 1.2.3.4\r\nX-Forwarded-For: 10.0.0.1\r\n";
        let recursive = format!("{from} X-Forwarded-For; real_ip_recursive on;");
        assert_eq!(seen(&recursive, lines), client);
        assert_eq!(seen(&format!("{from} X-Forwarded-For;"), lines), "10.0.0.1  192.0.2.1 40000");
    }

    #[test]
    fn rules_and_logs_go_by_the_reported_address() {
        let mut world = World::new(
            "set_real_ip_from 192.0.2.1; server { root /srv; deny 1.2.3.4; error_log stderr; }",
        )
        .file("/srv/f", "f");
        let reply = world.get_with("/f", "X-Real-IP: 1.2.3.4\r\n");
        assert_eq!(reply.status, 403);
        assert!(reply.log[0].contains("client: 1.2.3.4,"), "{:?}", reply.log);
        assert_eq!(world.get("/f").status, 200);
    }

    #[test]
    fn a_location_may_trust_where_the_server_does_not() {
        let mut world = World::new(
            "server { root /srv; location /a { set_real_ip_from 192.0.2.1; allow 1.2.3.4; deny all; } }",
        )
        .file("/srv/a", "a");
        assert_eq!(world.get("/a").status, 403);
        assert_eq!(world.get_with("/a", "X-Real-IP: 1.2.3.4\r\n").status, 200);
    }

    #[test]
    fn peers_on_unix_sockets_are_trusted_by_name() {
        let mut world = World::new("set_real_ip_from unix:; server { return 200 $remote_addr; }");
        world.peer = Endpoint::Unix(Box::default());
        assert_eq!(world.get_with("/", "X-Real-IP: 1.2.3.4\r\n").text(), "1.2.3.4");
        assert_eq!(world.get("/").text(), "unix:");
    }

    #[test]
    fn mistakes_are_told() {
        assert_eq!(
            complaints("set_real_ip_from 1.2.3.4/8;"),
            ["[warn] low address bits of 1.2.3.4/8 are meaningless"]
        );
        assert_eq!(
            complaints("real_ip_header a; real_ip_header b;"),
            ["[emerg] \"real_ip_header\" directive is duplicate"]
        );
    }
}
