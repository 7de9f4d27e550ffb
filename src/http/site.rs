//! The frozen configuration, compiled for look-up: what requests read.

use std::collections::HashMap;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use crate::base::cidr::AddressSet;
use crate::base::log::ErrorTargets;
use crate::conf::listen::ListenTable;
use crate::conf::log_list::LogList;
use crate::conf::main_settings::MainSettings;
use crate::conf::template::VariableId;

use super::access_log::AccessLogs;
use super::file::FileOptions;
use super::location_tree::LocationTree;
use super::modules::LocationSettings;
use super::modules::ssl::SiteTls;
use super::server_names::ServerNames;
use super::upstreams::Upstreams;
use super::variables::Variables;
use super::zones::Zones;

/// Position of a server in [`Site::servers`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServerId(pub u32);

/// Position of a location in [`Site::locations`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LocationId(pub u32);

/// Position of an address in [`Site::addresses`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AddressId(pub u32);

/// Everything that a configuration says, immutable, shared by all workers.
pub struct Site {
    /// Settings of the main and events contexts.
    pub main: MainSettings,
    /// Every listening address with its options, and the sockets to open for them.
    pub listens: ListenTable,
    /// The servers of each address of `listens`, by its place there.
    pub addresses: Vec<Address>,
    /// Every `server` block.
    pub servers: Vec<Server>,
    /// Every scope that a request can be in: each server's own settings, its locations, their `if` blocks.
    pub locations: Vec<Location>,
    /// Every variable that the configuration mentions.
    pub variables: Variables,
    /// What all workers know together of clients and their requests.
    pub zones: Zones,
    /// Whether the configuration shows `$server_addr`.
    pub mentions_server_address: bool,
    /// The servers' side of TLS.
    pub tls: SiteTls,
    /// Every log that the settings name.
    pub logs: LogList,
    /// `error_log` of the main context, for scopes without one and for what belongs to no request.
    pub error_log: ErrorTargets,
    /// The access log of scopes without one.
    pub access_log: AccessLogs,
    /// What requests are passed on to.
    pub upstreams: Upstreams,
    /// `debug_connection`: clients whose lines every error log takes.
    pub debug_connections: AddressSet,
}

/// One address of `listen` and the servers behind it.
pub struct Address {
    /// The server for requests that name none of the others.
    pub default_server: ServerId,
    /// Servers by name; absent if there is only one and its names have no captures to set.
    pub names: Option<ServerNames<ServerId>>,
    /// Variables that the groups of each regular expression among the names set, by its number.
    pub name_captures: Vec<Box<[(VariableId, u16)]>>,
}

/// One `server` block.
pub struct Server {
    /// The scope of the server's own settings.
    pub root: LocationId,
    /// Whether CONNECT has a place here (`tunnel_pass`); else it is refused.
    pub allows_connect: bool,
    /// The first `server_name` (`$server_name`).
    pub name: Box<[u8]>,
    /// Its locations.
    pub locations: LocationTree<LocationId>,
    /// Its `@named` locations.
    pub named: HashMap<Box<[u8]>, LocationId>,
}

/// What kind of scope a [`Location`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocationKind {
    /// A server's own settings: no location matched.
    Server,
    /// A prefix location, `^~` included.
    Prefix,
    /// `=`
    Exact,
    /// `~` and `~*`
    Regex,
    /// `@name`
    Named,
}

/// A scope that a request can be in.
pub struct Location {
    /// Its settings.
    pub settings: LocationSettings,
    /// The location's name as written; of an `if` block, that of the location around it.
    pub name: Box<[u8]>,
    /// The kind; of an `if` block, that of the location around it.
    pub kind: LocationKind,
    /// The server that it belongs to.
    pub server: ServerId,
    /// What the file cache needs to know.
    pub file_options: FileOptions,
    /// Variables that the groups of its regular expression set.
    pub named_captures: Box<[(VariableId, u16)]>,
    /// The scope of `limit_except` with the methods that it spares.
    pub limit_except: Option<LimitExcept>,
}

/// `limit_except`: other methods than these are in another scope.
#[derive(Clone, Debug)]
pub struct LimitExcept {
    /// One bit per [`crate::message::Method`], by its number.
    pub spared: u32,
    /// Scope for all other methods.
    pub location: LocationId,
}

/// A worker's handle on a site. Cloning it touches no memory that other workers write, so that a request can hold the
/// site that it started with at no cost.
#[derive(Clone)]
pub struct SiteHandle(Rc<Shared>);

/// The workers' common reference; each worker counts its own references to it.
struct Shared(Arc<Site>);

impl SiteHandle {
    /// A handle for one worker.
    pub fn new(site: Arc<Site>) -> SiteHandle {
        SiteHandle(Rc::new(Shared(site)))
    }

    /// The site, for another worker.
    pub fn shared(&self) -> Arc<Site> {
        Arc::clone(&self.0.0)
    }

    /// Tells later whether any handle of this worker is still on the site.
    pub fn watch(&self) -> SiteWatch {
        SiteWatch(Rc::downgrade(&self.0))
    }

    /// Whether two handles are on the same site.
    pub fn is_same(&self, other: &SiteHandle) -> bool {
        Arc::ptr_eq(&self.0.0, &other.0.0)
    }
}

/// See [`SiteHandle::watch`].
pub struct SiteWatch(std::rc::Weak<Shared>);

impl SiteWatch {
    /// Whether a request, a listener or a connection still uses the site.
    pub fn is_in_use(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl Deref for SiteHandle {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.0.0
    }
}

impl Site {
    /// A server.
    pub fn server(&self, id: ServerId) -> &Server {
        &self.servers[id.0 as usize]
    }

    /// A scope.
    pub fn location(&self, id: LocationId) -> &Location {
        &self.locations[id.0 as usize]
    }

    /// A scope's settings.
    pub fn settings(&self, id: LocationId) -> &LocationSettings {
        &self.locations[id.0 as usize].settings
    }
}
