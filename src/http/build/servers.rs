//! `server` blocks: their listens and names, and their way into addresses.

use crate::conf::context::Context;
use crate::conf::directive::{Arity, Call, Complaint, Directive};
use crate::conf::listen::{Listen, ListenDirective};
use crate::conf::source::Span;
use crate::conf::template::VariableId;
use crate::conf::tree::Word;
use crate::http::modules::{Drafts, referer};
use crate::http::server_names::ServerName;
use crate::http::site::LocationId;

use super::Scope;
use super::locations::{LocationDraft, LocationHead};

/// A `server` block as read.
pub struct ServerDraft {
    /// Number of its own scope.
    pub root: LocationId,
    /// What it sets itself.
    pub drafts: Drafts,
    /// Its `listen`s with their places.
    pub listens: Vec<(Listen, Span)>,
    /// Its names in order.
    pub names: Vec<NameDraft>,
    /// Whether CONNECT has a place here (`tunnel_pass`).
    pub allows_connect: bool,
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
    /// What it matches.
    pub name: ServerName,
    /// Variables that the groups of a regular expression set.
    pub named: Box<[(VariableId, u16)]>,
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
        allows_connect: false,
        children: Vec::new(),
        span: call.span(),
        include: call.directive.include,
    }));
    let (mut drafts, mut children) = scope.nested(Context::SERVER, LocationHead::server(), call.block());
    if let Some(mut server) = scope.server.take() {
        let mut conflicts = Vec::new();
        let names = server.names.iter().map(|name| &name.name);
        referer::add_server_names(&mut drafts, &mut children, names, &mut conflicts);
        for (span, include, message) in conflicts {
            scope.builder.error_at(span, include, message);
        }
        if server.listens.is_empty() {
            let usual = format!("*:{}", scope.builder.default_port);
            let directive = ListenDirective::parse(&[usual.as_str()]).map_err(Complaint::new)?;
            let listens = directive.addresses(&[]).map_err(Complaint::new)?;
            server.listens.extend(listens.into_iter().map(|listen| (listen, call.span())));
        }
        server.drafts = drafts;
        server.children = children;
        scope.builder.servers.push(*server);
    }
    Ok(())
}

fn set_listen(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    let words: Vec<&str> = call
        .args()
        .iter()
        .map(|word| word.as_str().ok_or_else(|| Complaint::invalid_parameter(word)))
        .collect::<Result<_, _>>()?;
    let directive = ListenDirective::parse(&words).map_err(Complaint::new)?;
    let found = match (directive.name(), scope.builder.resolve) {
        (None, _) => Vec::new(),
        (Some(name), Some(resolve)) => resolve(name),
        // A configuration test needs no DNS: any address stands for the name's.
        (Some(_), None) => vec![std::net::Ipv4Addr::LOCALHOST.into()],
    };
    let listens = directive.addresses(&found).map_err(Complaint::new)?;
    if let Some(server) = &mut scope.server {
        server.listens.extend(listens.into_iter().map(|listen| (listen, call.span())));
    }
    Ok(())
}

fn set_server_name(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    for word in call.args() {
        let name = name_draft(scope, call, word)?;
        if let Some(server) = &mut scope.server {
            server.names.push(name);
        }
    }
    Ok(())
}

fn name_draft(scope: &mut Scope, call: &Call, word: &Word) -> Result<NameDraft, Complaint> {
    let hostname;
    let text = if word.as_bytes() == b"$hostname" {
        hostname = scope.builder.hostname.to_ascii_lowercase();
        &hostname
    } else {
        word.as_bytes()
    };
    if ServerName::is_suspicious(text) {
        scope.warn_word(call, word, format!("server name \"{}\" has suspicious symbols", word.lossy()));
    }
    let name = ServerName::parse(text).map_err(|error| Complaint::new(error.to_string()).at(word))?;
    let named = match &name {
        ServerName::Regex(regex) => scope.builder.declare_groups(regex, word)?,
        _ => Box::default(),
    };
    let text = match text {
        [b'~', ..] => text.into(),
        _ => text.to_ascii_lowercase().into(),
    };
    Ok(NameDraft { text, name, named, span: word.span })
}
