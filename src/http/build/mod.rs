//! From the tree of directives to a frozen [`Site`](super::site::Site): scopes are walked, then merged from the outside in, then frozen.

pub mod arguments;
mod builder;
mod finish;
pub mod laws;
mod locations;
mod main_scope;
mod reference;
mod servers;

pub use builder::{Builder, MatchMention, SiteRegex};
pub use locations::{LocationDraft, LocationHead, add_hidden_scope, add_if_scope};
pub use main_scope::{BuildOptions, Built, build};
pub use reference::reference;

use std::sync::OnceLock;

use crate::conf::context::Context;
use crate::conf::diagnostics::Diagnostic;
use crate::conf::directive::{self, Directive, Table, walk};
use crate::conf::tree;

use super::modules::{self, Drafts};

/// A scope of the `http` context (`http`, `server`, `location`, `if`, `limit_except`) while it is read.
pub struct Scope {
    /// Which it is.
    pub context: Context,
    /// What its directives have said so far.
    pub drafts: Drafts,
    /// What belongs to the configuration as a whole. Nested scopes borrow it by moving it in and out.
    pub builder: Box<Builder>,
    /// The `server` that it is or stands in, while that is read.
    pub server: Option<Box<servers::ServerDraft>>,
    /// What kind of location it is or stands in.
    pub head: LocationHead,
    /// Locations, `if` and `limit_except` blocks directly within.
    pub children: Vec<LocationDraft>,
}

impl Scope {
    /// The outermost scope.
    fn http(builder: Box<Builder>) -> Scope {
        Scope {
            context: Context::HTTP,
            drafts: Drafts::default(),
            builder,
            server: None,
            head: LocationHead::default(),
            children: Vec::new(),
        }
    }

    /// Reads `block` as a scope within this one and returns it; the builder and the server come back.
    pub fn nested(
        &mut self,
        context: Context,
        head: LocationHead,
        block: &[tree::Directive],
    ) -> (Drafts, Vec<LocationDraft>) {
        let mut child = Scope {
            context,
            drafts: Drafts::default(),
            builder: std::mem::take(&mut self.builder),
            server: self.server.take(),
            head,
            children: Vec::new(),
        };
        walk(&mut child, block);
        self.builder = child.builder;
        self.server = child.server;
        (child.drafts, child.children)
    }

    /// Takes a warning about the directive `call`.
    pub fn warn(&mut self, call: &directive::Call, message: impl Into<String>) {
        let complaint = directive::Complaint::warning(message);
        self.builder.diagnostics.push(complaint.into_diagnostic(call.directive));
    }
}

impl Scope {
    /// Takes a warning about one word of the directive `call`.
    pub fn warn_word(&mut self, call: &directive::Call, word: &tree::Word, message: impl Into<String>) {
        self.builder.warn_at(word, call.directive.include, message);
    }
}

/// Directives that build the structure itself.
static STRUCTURE: &[Directive<Scope>] = &[servers::SERVER, locations::LOCATION, locations::LIMIT_EXCEPT];

/// All directives of these scopes.
fn scope_table() -> &'static Table<Scope> {
    static TABLE: OnceLock<Table<Scope>> = OnceLock::new();
    TABLE.get_or_init(|| Table::new(STRUCTURE.iter().chain(servers::DIRECTIVES).chain(modules::directives())))
}

impl directive::Scope for Scope {
    fn context(&self) -> Context {
        self.context
    }

    fn table(&self) -> &'static Table<Scope> {
        scope_table()
    }

    fn report(&mut self, diagnostic: Diagnostic, directive: &tree::Directive) {
        self.builder.report(diagnostic, directive);
    }
}
