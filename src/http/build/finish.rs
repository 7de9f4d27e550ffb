//! The last step: scopes merge from the outside in and freeze, servers come to their addresses, variables to their
//! getters.

use std::collections::HashMap;
use std::sync::Arc;

use crate::conf::diagnostics::Diagnostic;
use crate::conf::files::Files;
use crate::conf::listen::{ListenDirective, ListenNote, ListenTable};
use crate::conf::main_settings::MainSettings;
use crate::http::modules::ssl::{self, AddressPlace, ServerPlace, SiteTls};
use crate::http::modules::{self, Drafts, Merged, passing};
use crate::http::server_names::ServerNames;
use crate::http::site::{Address, Location, LocationKind, Server, ServerId, Site};
use crate::http::upstream_call::PassAddress;
use crate::http::upstreams::Upstreams;
use crate::http::zones::ZoneDrafts;
use crate::upstream::names::ResolverPlan;

use super::builder::Builder;
use super::locations::{self, LocationHead};
use super::servers::ServerDraft;

/// An `http` block, read and not yet merged.
pub struct HttpDraft {
    /// What it sets itself.
    pub drafts: Drafts,
}

/// Freezes everything. `None` if something essential is missing; the reasons are in the diagnostics.
///
/// `files` gives the certificates that the servers name; sessions of `previous` stay good.
pub fn finish(
    main: MainSettings,
    http: Option<HttpDraft>,
    builder: &mut Builder,
    files: &mut dyn Files,
    previous: Option<&SiteTls>,
) -> Option<Site> {
    let defaults = modules::outermost_drafts(builder).outermost();
    let mut servers = std::mem::take(&mut builder.servers);
    let mut frozen_servers = Vec::with_capacity(servers.len());
    let mut resolver = None;
    if let Some(http) = http {
        modules::warn_of_traps(builder, &http.drafts, &defaults.settings);
        let around = http.drafts.merge(&defaults);
        resolver.clone_from(&around.settings.resolver.plan);
        for (index, draft) in servers.iter_mut().enumerate() {
            frozen_servers.push(freeze_server(builder, draft, &around, ServerId(index as u32)));
        }
    }
    builder.report_unknown_matches();
    add_default_listens(builder, &mut servers);
    let listens = gather_listens(builder, &servers);
    let addresses = gather_addresses(builder, &listens, &servers);
    let tls = finish_tls(builder, files, &servers, &listens, previous);
    let variables = builder.finish_variables();
    let logs = modules::log::finish(builder, &main);
    let locations: Option<Vec<Location>> = std::mem::take(&mut builder.locations).into_iter().collect();
    let mentions_server_address = variables.list.iter().any(|variable| &*variable.name == "server_addr")
        || locations.iter().flatten().any(|location| location.settings.userid.needs_local_address());
    let zones = ZoneDrafts::finish(builder);
    Some(Site {
        zones,
        mentions_server_address,
        main,
        listens,
        addresses,
        servers: frozen_servers,
        locations: locations?,
        tls,
        variables,
        logs: std::mem::take(&mut builder.logs),
        error_log: logs.error,
        access_log: logs.access,
        debug_connections: logs.debug_connections,
        upstreams: gather_upstreams(builder, resolver.as_ref()),
    })
}

/// The servers' TLS: their certificates are read now, when every setting is merged.
fn finish_tls(
    builder: &mut Builder,
    files: &mut dyn Files,
    servers: &[ServerDraft],
    listens: &ListenTable,
    previous: Option<&SiteTls>,
) -> SiteTls {
    let places: Option<Vec<ServerPlace>> = servers
        .iter()
        .map(|server| {
            let root = builder.locations.get(server.root.0 as usize)?.as_ref()?;
            let settings = Arc::clone(&root.settings.ssl);
            Some(ServerPlace { settings, span: server.span, include: server.include })
        })
        .collect();
    // Without an `http` block there are no servers.
    let Some(places) = places else { return SiteTls::default() };
    let addresses: Vec<AddressPlace> = listens
        .addresses()
        .iter()
        .filter(|shared| shared.protocol.ssl)
        .map(|shared| {
            let default = &servers[shared.default_server];
            let listen = default.listens.iter().find(|(listen, _)| listen.address == shared.address);
            AddressPlace {
                default_server: shared.default_server,
                servers: shared.servers.clone(),
                span: listen.map_or(default.span, |(_, span)| *span),
            }
        })
        .collect();
    let mut site = ssl::finish(files, builder, &places, &addresses, previous);
    let plans = builder.locations.iter().flatten().flat_map(|location| {
        let settings = &location.settings;
        let proxy = settings.proxy.may_need_tls().map(|needed| settings.proxy_ssl.plan(&needed));
        let grpc = settings.grpc.proxy.may_need_tls().map(|needed| settings.grpc_ssl.ssl.plan(&needed));
        [proxy, grpc].into_iter().flatten()
    });
    passing::finish_tls(files, builder, plans.collect(), &mut site, previous);
    site
}

fn freeze_server(builder: &mut Builder, draft: &mut ServerDraft, around: &Merged, id: ServerId) -> Server {
    modules::warn_of_traps(builder, &draft.drafts, &around.settings);
    let merged = std::mem::take(&mut draft.drafts).merge(around);
    locations::freeze_as(builder, draft.root, &LocationHead::server(), merged, id, &mut draft.children);
    let mut named = HashMap::new();
    for child in draft.children.iter().filter(|child| child.head.kind == LocationKind::Named) {
        if named.insert(child.head.name.clone(), child.id).is_some() {
            let message = format!("duplicate location \"{}\"", child.head.lossy_name());
            builder.error_at(child.span, child.include, message);
        }
    }
    Server {
        root: draft.root,
        allows_connect: draft.allows_connect,
        name: draft.names.first().map_or_else(Box::default, |name| shown_name(&name.text)),
        locations: locations::tree(builder, &draft.children),
        named,
    }
}

/// A server without `listen` listens on port 80 of all addresses, or 8000 where 80 needs rights that are not there.
fn add_default_listens(builder: &Builder, servers: &mut [ServerDraft]) {
    let text = format!("*:{}", builder.default_port);
    for server in servers.iter_mut().filter(|server| server.listens.is_empty()) {
        let parsed = ListenDirective::parse(&[&text]).and_then(|directive| directive.addresses(&[]));
        debug_assert!(parsed.is_ok(), "a wildcard and a port are a listen");
        let span = server.span;
        server.listens.extend(parsed.into_iter().flatten().map(|listen| (listen, span)));
    }
}

/// A server's name as redirects and `$server_name` show it: `.example.com` is `example.com`.
fn shown_name(text: &[u8]) -> Box<[u8]> {
    text.strip_prefix(b".").unwrap_or(text).into()
}

/// Every address with its options; contradictions are reported.
fn gather_listens(builder: &mut Builder, servers: &[ServerDraft]) -> ListenTable {
    let mut table = ListenTable::default();
    for (index, server) in servers.iter().enumerate() {
        for (listen, span) in &server.listens {
            match table.add(index, listen) {
                Ok(ListenNote::Fine) => {}
                Ok(ListenNote::ProtocolRedefined(message)) => {
                    builder.diagnostics.push(Diagnostic::warning(message).at(*span).within(server.include));
                }
                Err(message) => builder.error_at(*span, server.include, message),
            }
        }
    }
    table
}

fn gather_addresses(builder: &mut Builder, listens: &ListenTable, servers: &[ServerDraft]) -> Vec<Address> {
    listens
        .addresses()
        .iter()
        .map(|shared| {
            let mut names = ServerNames::new();
            let mut name_captures = Vec::new();
            for &index in &shared.servers {
                let server = &servers[index];
                for name in &server.names {
                    match names.insert(name.name.clone(), ServerId(index as u32)) {
                        Ok(()) => {
                            if name.text.starts_with(b"~") {
                                name_captures.push(name.named.clone());
                            }
                        }
                        Err(conflict) => builder.diagnostics.push(
                            Diagnostic::warning(conflict.nginx_text(&shared.address))
                                .at(name.span)
                                .within(server.include),
                        ),
                    }
                }
            }
            warn_of_implicit_default(builder, shared, servers);
            let needed = shared.servers.len() > 1 || !name_captures.is_empty();
            Address {
                default_server: ServerId(shared.default_server as u32),
                names: needed.then_some(names),
                name_captures,
            }
        })
        .collect()
}

/// Several servers on an address and none is marked: the first one answers for every unknown name, which surprises
/// those who reorder files.
fn warn_of_implicit_default(
    builder: &mut Builder,
    shared: &crate::conf::listen::SharedAddress,
    servers: &[ServerDraft],
) {
    if shared.servers.len() < 2 || shared.has_explicit_default() {
        return;
    }
    let server = &servers[shared.default_server];
    let name = server.names.first().map(|name| String::from_utf8_lossy(&name.text).into_owned());
    let message = format!(
        "server \"{}\" answers for every unknown name on {} only because it comes first",
        name.unwrap_or_default(),
        shared.address
    );
    let diagnostic = Diagnostic::warning(message)
        .at(server.span)
        .within(server.include)
        .help("mark one server of the address with `default_server`");
    builder.diagnostics.push(diagnostic);
}

/// The groups of `upstream` blocks, and one for every other address that requests are passed on to. `resolver` is that of
/// the `http` block.
fn gather_upstreams(builder: &mut Builder, resolver: Option<&Arc<ResolverPlan>>) -> Upstreams {
    let mut upstreams = Upstreams::default();
    for draft in std::mem::take(&mut builder.upstreams) {
        let name = draft.name().to_owned();
        upstreams.add_named(name.as_bytes(), draft.finish(resolver));
    }
    let passes = std::mem::take(&mut builder.passes);
    for pass in &passes {
        if let PassAddress::Host { host, port: Some(port), .. } = pass
            && upstreams.named(host).is_some()
        {
            let host = String::from_utf8_lossy(host);
            let message = format!("upstream \"{host}\" may not have port {port}");
            builder.diagnostics.push(Diagnostic::error(message));
        }
    }
    upstreams.link(&passes);
    upstreams
}
