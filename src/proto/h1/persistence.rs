//! The one place where request and response meet: does the connection live on?

use crate::message::{ResponseFraming, Version};

/// What to do with the connection once a response is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Call `next_request` and read on.
    KeepAlive,
    /// The connection may live on, but the rest of this request's body must be read and dropped first: go on calling
    /// `read` within the lingering bounds, then ask again.
    Discard,
    /// Shut down writing, read and drop whatever comes within the lingering bounds, then close: the client may still
    /// be sending, and an early close would destroy the response on its way.
    Linger,
    /// Close at once.
    Close,
}

/// How far the request's body was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyProgress {
    /// To its end, or there is none.
    Complete,
    /// Bytes are outstanding.
    Pending,
    /// Bytes are outstanding, and the client waits for `100 Continue` before it sends them.
    Withheld,
    /// The request was refused: nothing that comes is understood.
    Broken,
}

/// Facts about a request that decide on keep-alive.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestFacts {
    pub version: Version,
    pub asks_close: bool,
    pub asks_keep_alive: bool,
    pub body: BodyProgress,
}

/// Whether the response may announce a persistent connection (RFC 9112 section 9.3).
pub(super) fn may_persist(request: RequestFacts, allowed: bool, response: ResponseFraming) -> bool {
    let asked = match request.version {
        Version::Http09 => false,
        Version::Http10 => request.asks_keep_alive && !request.asks_close,
        _ => !request.asks_close,
    };
    // A client that waits for "100 Continue" and gets a final response may or may not send the body (RFC 9110 section
    // 10.1.1): where its next request would begin is unknown.
    let body_ends = matches!(request.body, BodyProgress::Complete | BodyProgress::Pending);
    asked && allowed && body_ends && response != ResponseFraming::UntilClose
}

/// What follows a response that was sent whole. `persists` is what its head announced.
pub(super) fn after_response(persists: bool, body: BodyProgress) -> After {
    match (persists, body) {
        (true, BodyProgress::Complete) => After::KeepAlive,
        (true, BodyProgress::Pending) => After::Discard,
        (false, BodyProgress::Complete) => After::Close,
        (_, BodyProgress::Pending | BodyProgress::Withheld | BodyProgress::Broken) => After::Linger,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(version: Version) -> RequestFacts {
        RequestFacts { version, asks_close: false, asks_keep_alive: false, body: BodyProgress::Complete }
    }

    #[test]
    fn version_and_connection_field_decide_together() {
        let none = ResponseFraming::None;
        assert!(may_persist(facts(Version::Http11), true, none));
        assert!(!may_persist(facts(Version::Http10), true, none));
        assert!(!may_persist(facts(Version::Http09), true, none));
        assert!(!may_persist(facts(Version::Http11), false, none));
        let asks = RequestFacts { asks_keep_alive: true, ..facts(Version::Http10) };
        assert!(may_persist(asks, true, none));
        assert!(!may_persist(asks, true, ResponseFraming::UntilClose));
        assert!(!may_persist(RequestFacts { asks_close: true, ..asks }, true, none));
        assert!(!may_persist(RequestFacts { asks_close: true, ..facts(Version::Http11) }, true, none));
    }

    #[test]
    fn an_unread_body_is_discarded_and_an_unknown_one_ends_the_connection() {
        let pending = RequestFacts { body: BodyProgress::Pending, ..facts(Version::Http11) };
        assert!(may_persist(pending, true, ResponseFraming::None));
        assert_eq!(after_response(true, BodyProgress::Pending), After::Discard);
        for body in [BodyProgress::Withheld, BodyProgress::Broken] {
            let request = RequestFacts { body, ..facts(Version::Http11) };
            assert!(!may_persist(request, true, ResponseFraming::None));
            assert_eq!(after_response(false, body), After::Linger);
            assert_eq!(after_response(true, body), After::Linger);
        }
        assert_eq!(after_response(false, BodyProgress::Pending), After::Linger);
        assert_eq!(after_response(false, BodyProgress::Complete), After::Close);
        assert_eq!(after_response(true, BodyProgress::Complete), After::KeepAlive);
    }
}
