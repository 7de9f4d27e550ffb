//! `rewrite`, `return`, `if`, `set`, `break`: small programs that run before and after the location is chosen.
//!
//! The directives of a scope become one list of operations in their order. The block of an `if` stands inline; where
//! its condition fails, what belongs to it is skipped. Inside a location the block is a scope too, and an operation at
//! its start makes it the request's scope: whatever else it sets (`add_header`, `root`, ...) holds from then on, and
//! the program goes on in the outer list, as in nginx.

mod condition;
mod directives;
mod run;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::conf::context::Context;
use crate::conf::directive::Arity;
use crate::conf::template::{Template, VariableId};
use crate::http::build::SiteRegex;
use crate::http::build::arguments::flag;
use crate::http::settings::contexts::HTTP;
use crate::http::settings::settings;
use crate::http::site::LocationId;

pub use condition::{Condition, FileTest};
pub use directives::warn_of_ifs_before_try_files;
pub use run::{Running, run};

use directives::{add_break, add_if, add_return, add_rewrite, add_set};

/// `server`, `location`, and `if` in both.
const REWRITING: Context =
    Context::SERVER.union(Context::IF_SERVER).union(Context::LOCATION).union(Context::IF_LOCATION);

settings! {
    module rewrite;
    fields {
        /// Changes the URI if a regular expression matches it, or redirects.
        program: Program = Program::default(), own;
            "rewrite" REWRITING, Arity::between(2, 3), default "", with add_rewrite;
        /// Whether each match and its result is logged at `notice`.
        rewrite_log: bool = false, inherit;
            "rewrite_log" HTTP.union(REWRITING), Arity::FLAG, default "off", once flag;
        /// Whether reading a variable that nothing has assigned is logged.
        uninitialized_variable_warn: bool = true, inherit;
            "uninitialized_variable_warn" HTTP.union(REWRITING), Arity::FLAG, default "on", once flag;
    }
    also {
        /// Ends the request with a status, a text or a redirect.
        "return" for program: Program, REWRITING, Arity::between(1, 2), default "", with add_return;
        /// Gives a variable a value.
        "set" for program: Program, REWRITING, Arity::exactly(2), default "", with add_set;
        /// Ends the program.
        "break" for program: Program, REWRITING, Arity::exactly(0), default "", with add_break;
        /// Runs its block if the condition holds.
        "if" for program: Program, Context::SERVER.union(Context::LOCATION), Arity::at_least(1).block(),
            default "", with add_if;
    }
}

/// The operations of one scope, in order.
#[derive(Clone, Debug, Default)]
pub struct Program {
    ops: Arc<Vec<Op>>,
}

impl Program {
    fn push(&mut self, op: Op) {
        Arc::make_mut(&mut self.ops).push(op);
    }

    /// The operations.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }
}

/// One operation.
#[derive(Clone, Debug)]
pub enum Op {
    /// `rewrite`
    Rewrite(Arc<Rewrite>),
    /// `return`
    Return(Return),
    /// `set`
    Set(VariableId, Template),
    /// `break`
    Break,
    /// `if`: unless the condition holds, goes on at this position.
    If(Arc<Condition>, u32),
    /// The block of an `if` becomes the request's scope.
    Enter(LocationId),
}

/// `rewrite`
#[derive(Clone, Debug)]
pub struct Rewrite {
    /// What the URI must match.
    pub regex: SiteRegex,
    /// The new URI (for redirects with its arguments).
    pub target: Template,
    /// The new arguments, if the replacement has a `?`; never for redirects.
    pub args: Option<Template>,
    /// Whether the replacement names arguments of its own.
    pub has_args: bool,
    /// Whether the request's arguments are added behind.
    pub keeps_args: bool,
    /// What follows a match.
    pub then: Then,
}

/// What follows a match of `rewrite`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The next operation.
    GoOn,
    /// `last`: the end of the program; a location is chosen for the new URI.
    Last,
    /// `break`: the end of the program; the location stays.
    Break,
    /// A redirect with this status.
    Redirect(crate::message::Status),
}

/// `return`
#[derive(Clone, Debug)]
pub struct Return {
    /// The status.
    pub status: crate::message::Status,
    /// The body, or where to redirect.
    pub text: Template,
}
