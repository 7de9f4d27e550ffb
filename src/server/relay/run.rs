//! One try at one peer: what it has of a connection, and how far it is.

use crate::http::site::LocationId;
use crate::upstream::Stage;

use super::connection::Connection;
use super::multiplexed::StreamLink;
use super::peers::Choice;
use super::sending::Sending;

/// What a try has of a connection.
pub(super) enum Carrier {
    /// All of it.
    Own(Connection),
    /// One of its streams.
    Stream(StreamLink),
}

/// One try at one peer.
pub(super) struct Run {
    pub(super) choice: Choice,
    pub(super) carrier: Carrier,
    /// The connection had served another request before.
    pub(super) reused: bool,
    /// For how many milliseconds it had been idle then.
    pub(super) idle_ms: Option<u64>,
    /// The location that it was opened or taken for.
    pub(super) location: LocationId,
    pub(super) sending: Sending,
    /// Bytes sent.
    pub(super) sent: u64,
    /// Bytes received.
    pub(super) received: u64,
    /// Bytes of the body received.
    pub(super) body: u64,
    /// Monotonic milliseconds when it began.
    pub(super) began_ms: u64,
    /// When the last byte went either way.
    pub(super) moved_ms: u64,
    pub(super) connected: bool,
    /// When it counts as silent; `None` once it does, or has answered.
    pub(super) overdue_ms: Option<u64>,
    pub(super) overdue: bool,
}

impl Run {
    /// Whether the peer's system has the whole request.
    pub(super) fn is_sent(&self) -> bool {
        self.sending == Sending::Done
            && match &self.carrier {
                Carrier::Own(connection) => !connection.owes(),
                Carrier::Stream(_) => true,
            }
    }

    /// The connection, if the try has one of its own.
    pub(super) fn own(&mut self) -> Option<&mut Connection> {
        match &mut self.carrier {
            Carrier::Own(connection) => Some(connection),
            Carrier::Stream(_) => None,
        }
    }

    /// The peer has moved on to the next stage: its silence is counted anew.
    pub(super) fn spoke(&mut self, next: Stage, now_ms: u64) {
        self.overdue_ms = self.choice.overdue_at(next, now_ms);
        if std::mem::take(&mut self.overdue) {
            self.choice.no_longer_overdue();
        }
    }
}
