//! Whom an event of the poll concerns: the tokens of a worker's sockets.

use mio::Token;

use crate::server::relay::links::{LINK_BIT, LinkKey};
use crate::server::runtime::WAKE_TOKEN;

/// Tokens of listening sockets have this bit; the rest is the listener's number. Tokens of clients are
/// [`crate::server::client::ClientKey`]s, whose generation never has its two highest bits set; those of upstreams'
/// sockets have the second.
pub(super) const LISTENER_BIT: usize = 1 << 63;

/// The token of a resolver's socket: the bits of links and of listeners, and not all of them, as the waker's are.
pub(super) fn names_token(number: u64) -> Token {
    Token(LISTENER_BIT | LINK_BIT | number as usize)
}

/// The number of a resolver's socket, if the token is of one.
pub(super) fn names_number(token: Token) -> Option<u64> {
    let both = LISTENER_BIT | LINK_BIT;
    (token != WAKE_TOKEN && token.0 & both == both).then_some((token.0 & !both) as u64)
}

/// The link that a token names, if it is one of a link.
pub(super) fn link_of(token: Token) -> Option<LinkKey> {
    (token.0 & (LISTENER_BIT | LINK_BIT) == LINK_BIT && token != WAKE_TOKEN)
        .then(|| LinkKey::from_token(token.0))
}
