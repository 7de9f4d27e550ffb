//! The request engine: a frozen [`site::Site`], and an [`exchange::Exchange`] as a state machine that does no I/O.
//!
//! The way of a request is written down once, in [`phases`]; the order of header filters in [`filters`]; the modules
//! in [`modules`].

pub mod access_log;
pub mod access_queue;
pub mod body;
pub mod body_filters;
pub mod build;
pub mod change;
pub mod context;
pub mod error_log;
pub mod error_page;
pub mod exchange;
pub mod file;
pub mod filters;
pub mod flow;
pub mod laws;
pub mod location_tree;
pub mod matching;
pub mod media_types;
pub mod mime;
pub mod modules;
pub mod paths;
pub mod phases;
#[cfg(test)]
mod probe;
pub mod redirect;
pub mod server_names;
pub mod settings;
pub mod site;
pub mod subrequest;
#[cfg(test)]
pub mod testing;
pub mod upstream_call;
pub mod upstream_log;
pub mod upstreams;
pub mod variables;
pub mod weaving;
pub mod zones;
