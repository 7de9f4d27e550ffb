//! `server` blocks: their listens and names, and their way into addresses.

use std::collections::HashMap;

use crate::conf::context::Context;
use crate::conf::directive::{Arity, Call, Complaint, Directive};
use crate::conf::listen::{self, Listen};
use crate::conf::source::Span;
use crate::conf::tree::{self, Word};
use crate::http::modules::Drafts;
use crate::http::site::{LocationId, ServerId};

use super::locations::{LocationDraft, LocationHead};
use super::{Builder, Scope, SiteRegex};

/// A `server` block as read.
pub struct ServerDraft {
    /// Number of its own scope.
    pub root: LocationId,
    /// What it sets itself.
    pub drafts: Drafts,
    /// Its `listen`s; `*:80` (or 8000 for users without privileges) if it has none.
    pub listens: Vec<Listen>,
    /// Its names in order.
    pub names: Vec<NameDraft>,
    /// Its locations.
    pub children: Vec<LocationDraft>,
    /// The block itself, for diagnostics.
    pub span: Span,
    /// Where it was included from.
    pub include: crate::conf::source::IncludeId,
}

/// A `server_name`.
pub struct NameDraft {
    /// In lower case, `$hostname` replaced; for a regular expression the text with its `~`.
    pub text: Box<[u8]>,
    /// The regular expression, where it is one.
    pub regex: Option<SiteRegex>,
    /// Where it stands.
    pub span: Span,
}

/// `server { }`
pub const SERVER: Directive<Scope> = Directive {
    name: "server",
    contexts: Context::HTTP,
    arity: Arity::exactly(0).block(),
    default: "",
    doc: "A virtual server.",
    set: set_server,
};

/// What makes a server known from outside.
pub static DIRECTIVES: &[Directive<Scope>] = &[
    Directive {
        name: "listen",
        contexts: Context::SERVER,
        arity: Arity::at_least(1),
        default: "*:80 | *:8000",
        doc: "An address and port, or a Unix socket, on which the server accepts connections.",
        set: set_listen,
    },
    Directive {
        name: "server_name",
        contexts: Context::SERVER,
        arity: Arity::at_least(1),
        default: "\"\"",
        doc: "Names of the virtual server: exact, with a wildcard, or regular expressions.",
        set: set_server_name,
    },
];

fn set_server(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    let root = scope.builder.new_location();
    scope.server = Some(Box::new(ServerDraft {
        root,
        drafts: Drafts::default(),
        listens: Vec::new(),
        names: Vec::new(),
        children: Vec::new(),
        span: call.span(),
        include: call.directive.include,
    }));
    let (drafts, children) = scope.nested(Context::SERVER, LocationHead::server(), call.block());
    if let Some(mut server) = scope.server.take() {
        server.drafts = drafts;
        server.children = children;
        scope.builder.servers.push(*server);
    }
    Ok(())
}

fn set_listen(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    let parsed = listen::parse(call)?;
    let Some(server) = &mut scope.server else { return Ok(()) };
    for listen in &parsed {
        if server.listens.iter().any(|other| other.address == listen.address) {
            return Err(Complaint::new(format!("a duplicate listen {}", call.arg(0).lossy())));
        }
    }
    server.listens.extend(parsed);
    Ok(())
}

fn set_server_name(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    for word in call.args() {
        let name = name_draft(scope, word)?;
        if let Some(server) = &mut scope.server {
            server.names.push(name);
        }
    }
    Ok(())
}

fn name_draft(scope: &mut Scope, word: &Word) -> Result<NameDraft, Complaint> {
    let text = word.bytes();
    if text.contains(&b'/') && !text.starts_with(b"~") {
        scope.builder.warn_at(word, format!("server name \"{}\" has suspicious symbols", word.lossy()));
    }
    if let Some(pattern) = text.strip_prefix(b"~") {
        if pattern.is_empty() {
            return Err(Complaint::new(format!("empty regex in server name \"{}\"", word.lossy())).at(word));
        }
        // nginx compiles a server name without regard to case only if it has an upper-case letter, but it matches
        // against the lower-cased host, so that both come to the same for every host.
        let regex = scope.builder.regex(pattern, true, word)?;
        return Ok(NameDraft { text: text.into(), regex: Some(regex), span: word.span });
    }
    let text = if text == b"$hostname" {
        scope.builder.hostname.to_ascii_lowercase()
    } else {
        text.to_ascii_lowercase()
    };
    Ok(NameDraft { text: text.into(), regex: None, span: word.span })
}

/// Addresses in order of appearance, each with the servers that listen on it.
pub struct AddressDraft {
    /// The `listen` that carries the options: the first one that sets any, else the first.
    pub listen: Listen,
    /// Servers in order of appearance.
    pub servers: Vec<ServerId>,
    /// Index into `servers` of the one that serves requests naming none.
    pub default: usize,
    /// Whether `default_server` was written.
    pub default_is_explicit: bool,
}

/// Sorts the listens of all servers by address; contradictions are reported.
pub fn gather_addresses(builder: &mut Builder) -> Vec<AddressDraft> {
    let mut addresses: Vec<AddressDraft> = Vec::new();
    let mut by_address: HashMap<listen::ListenAddress, usize> = HashMap::new();
    let servers = std::mem::take(&mut builder.servers);
    for (index, server) in servers.iter().enumerate() {
        for listen in &server.listens {
            let id = ServerId(index as u32);
            match by_address.get(&listen.address) {
                None => {
                    by_address.insert(listen.address.clone(), addresses.len());
                    addresses.push(AddressDraft {
                        listen: listen.clone(),
                        servers: vec![id],
                        default: 0,
                        default_is_explicit: listen.default_server,
                    });
                }
                Some(position) => join_address(builder, &mut addresses[*position], listen, id, server),
            }
        }
    }
    builder.servers = servers;
    addresses
}

fn join_address(
    builder: &mut Builder,
    address: &mut AddressDraft,
    listen: &Listen,
    id: ServerId,
    server: &ServerDraft,
) {
    address.servers.push(id);
    if listen.default_server {
        if address.default_is_explicit {
            let message = format!("a duplicate default server for {}", listen.address);
            builder.error_at(listen.span, server.include, message);
        }
        address.default = address.servers.len() - 1;
        address.default_is_explicit = true;
    }
    if let Err(message) = address.listen.join(listen) {
        builder.error_at(listen.span, server.include, message);
    }
}

/// Directives of a block, for `nested`.
pub type Block = [tree::Directive];
