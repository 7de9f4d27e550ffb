//! What lies behind the server: groups of servers, which of them is asked, and what is known of their health. No I/O.
//!
//! A [`Group`] is shared by all workers. Its verbs, in the order of one request:
//!
//! 1. [`Group::pick`] names a peer, or says that all are [`Pick::Full`] (wait for room) or that there is none.
//! 2. [`Group::try_start`] counts the attempt, unless the peer's last place was taken since. Exactly one
//!    [`Group::finished`] belongs to it, however it ends.
//! 3. [`Group::connected`] and [`Group::header`] tell how long the peer took. A peer that takes longer than
//!    [`Group::usual_ms`] is [`Group::overdue`] until it answers ([`Group::no_longer_overdue`], once for each).
//! 4. [`Group::finished`] with the outcome; a failed attempt may be followed by another `pick`, with the peer in
//!    [`Tried`].
//!
//! What a group knows of a peer outlives a reload ([`Group::renew`]) and a change of a name's addresses
//! ([`Group::set_addresses`]), as long as the address stays.

pub mod balance;
mod group;
pub mod grpc_health;
pub mod health;
pub mod match_rules;
pub mod names;
pub mod patience;
pub mod peer;
pub mod plan;
mod slots;
pub mod state;
pub mod sticky;
#[cfg(test)]
mod tests;

pub use group::{Ask, Group, Named, Outcome, Pick, Resolved, Stage, Verdict, WhyNone};
pub use peer::{Peer, PeerAddress, Tried};
pub use plan::{GroupPlan, Keepalive, PeerPlan};
