//! Messages of the DNS as a stub resolver sends and reads them (RFC 1035; SRV: RFC 2782), over `simple_dns`.
//!
//! 1. [`DnsName::parse`] checks a name from a configuration or a request.
//! 2. [`write_query`] makes the question to send.
//! 3. [`read_reply`] checks that a message is the reply to that question and takes out what was asked for, along the
//!    aliases that the message itself explains.
//!
//! There is no state and no time in here: servers, repetition and caching are `upstream::names`. Questions go without
//! EDNS, as nginx's do: a reply over UDP has at most 512 bytes, anything longer comes truncated and is asked for again
//! over TCP.

pub mod fuzz;
mod message;
mod name;
#[cfg(test)]
mod tests;

pub use message::{
    Found, MAX_ADDRESSES, MAX_ALIASES, MAX_SERVICES, RecordType, Reply, ReplyError, ServiceRecord, rcode,
    read_reply, write_query,
};
pub use name::{DnsName, NameSyntax};
