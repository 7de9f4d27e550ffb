//! Addresses of names, asked of DNS servers (`resolver`).
//!
//! A [`Resolver`] is one `resolver` directive's machine. It sends nothing itself; its verbs:
//!
//! 1. `lookup` answers at once where it can, or gives a [`LookupId`]; `cancel` takes that back.
//! 2. `transmit`, until it is `None`: messages to send, each from a socket of its own. The shell opens it so that the
//!    kernel chooses the source port: together with the random id that is what a forger has to guess.
//! 3. `received` with whatever comes in on such a socket; `failed` when the socket breaks.
//! 4. `take_closed`, until it is `None`: queries whose sockets are not needed any more. Every query that `transmit` gave
//!    out comes here once.
//! 5. `take_finished`, until it is `None`: lookups that are over. Every pending lookup comes here once, unless it was
//!    cancelled.
//! 6. `on_deadline` at `next_deadline`.
//!
//! 2, 4, 5 and the deadline are to be looked at after every call of one of the others.
//!
//! Who asks for a name that is being asked for waits for the same answer. Answers are kept for as long as their records
//! live (or as `valid=` says), denials and failures for a few seconds. An answer that is too old is used while a new one
//! is not to be had (RFC 8767).

mod cache;
pub mod fuzz;
mod plan;
mod question;
mod resolver;
#[cfg(test)]
mod tests;
mod wires;

pub use cache::{Cache, Key, Known};
pub use plan::{Answer, NameError, Records, ResolverPlan, ResolverServer, Service};
pub use resolver::{Kind, Lookup, LookupId, MAX_FLIGHTS, MAX_LOOKUPS, Resolver, STALE_AFTER_MS, literal};
pub use wires::{Counters, QueryId, Transmit, Transport};
