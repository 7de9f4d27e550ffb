//! Where in a configuration a directive stands, or may stand: a set of contexts.

use std::fmt;
use std::ops::BitOr;

/// A set of contexts. A directive's entry holds all that it is allowed in; a place in the tree is a set of one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Context(u32);

/// Each single context with the name that a reader of nginx.conf knows it by.
const NAMES: [(Context, &str); 14] = [
    (Context::MAIN, "main"),
    (Context::EVENTS, "events"),
    (Context::HTTP, "http"),
    (Context::SERVER, "server"),
    (Context::LOCATION, "location"),
    (Context::IF_SERVER, "if in server"),
    (Context::IF_LOCATION, "if in location"),
    (Context::LIMIT_EXCEPT, "limit_except"),
    (Context::UPSTREAM, "upstream"),
    (Context::STREAM, "stream"),
    (Context::STREAM_SERVER, "server in stream"),
    (Context::STREAM_UPSTREAM, "upstream in stream"),
    (Context::MAIL, "mail"),
    (Context::MAIL_SERVER, "server in mail"),
];

impl Context {
    /// No context.
    pub const NONE: Self = Self(0);
    /// Outside of every block.
    pub const MAIN: Self = Self(1);
    /// `events { }`
    pub const EVENTS: Self = Self(1 << 1);
    /// `http { }`
    pub const HTTP: Self = Self(1 << 2);
    /// `server { }` in `http`
    pub const SERVER: Self = Self(1 << 3);
    /// `location { }`
    pub const LOCATION: Self = Self(1 << 4);
    /// `if { }` in `server`
    pub const IF_SERVER: Self = Self(1 << 5);
    /// `if { }` in `location`
    pub const IF_LOCATION: Self = Self(1 << 6);
    /// `limit_except { }`
    pub const LIMIT_EXCEPT: Self = Self(1 << 7);
    /// `upstream { }` in `http`
    pub const UPSTREAM: Self = Self(1 << 8);
    /// `stream { }`
    pub const STREAM: Self = Self(1 << 9);
    /// `server { }` in `stream`
    pub const STREAM_SERVER: Self = Self(1 << 10);
    /// `upstream { }` in `stream`
    pub const STREAM_UPSTREAM: Self = Self(1 << 11);
    /// `mail { }`
    pub const MAIL: Self = Self(1 << 12);
    /// `server { }` in `mail`
    pub const MAIL_SERVER: Self = Self(1 << 13);
    /// Every context (`include`).
    pub const ANY: Self = Self((1 << 14) - 1);

    /// Both sets together; `|` for constants.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the sets have a context in common: for a place and an entry, whether the directive may stand there.
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether every context of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for Context {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

/// The names as a message lists them: `http, server, location`; "any context" where all are allowed.
impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.contains(Self::ANY) {
            return f.write_str("any context");
        }
        let names = NAMES.iter().filter(|(context, _)| self.contains(*context));
        for (index, (_, name)) in names.enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_lists_its_contexts_from_the_outermost_inwards() {
        let set = Context::LOCATION | Context::HTTP | Context::IF_LOCATION;
        assert_eq!(set.to_string(), "http, location, if in location");
        assert_eq!(Context::ANY.to_string(), "any context");
    }

    #[test]
    fn every_single_context_has_a_name() {
        let all = NAMES.iter().fold(Context::NONE, |all, (context, _)| all | *context);
        assert_eq!(all, Context::ANY);
    }

    #[test]
    fn a_place_meets_the_sets_that_hold_it() {
        let set = Context::HTTP | Context::SERVER;
        assert!(Context::SERVER.meets(set));
        assert!(!Context::STREAM_SERVER.meets(set));
    }
}
