//! Severity levels of the error log, with nginx's names and order.

use std::fmt;

/// Severity of an error-log line. The order is by verbosity: a log configured at `level` takes every line whose
/// level is less than or equal to it (`Emerg < Debug`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    Emerg = 1,
    Alert,
    Crit,
    Error,
    Warn,
    Notice,
    Info,
    Debug,
}

impl Level {
    /// All levels, most severe first.
    pub const ALL: [Level; 8] = [
        Level::Emerg,
        Level::Alert,
        Level::Crit,
        Level::Error,
        Level::Warn,
        Level::Notice,
        Level::Info,
        Level::Debug,
    ];

    /// The name as it stands in brackets in a log line.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Emerg => "emerg",
            Level::Alert => "alert",
            Level::Crit => "crit",
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Notice => "notice",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }

    /// The level as a parameter of `error_log` names it. nginx's debugging masks (`debug_http`, `debug_core`, ...)
    /// select parts of its debug output; here all of them mean [`Level::Debug`].
    pub fn parse(name: &[u8]) -> Option<Level> {
        if let Some(level) = Level::ALL.into_iter().find(|level| level.name().as_bytes() == name) {
            return Some(level);
        }
        match name.strip_prefix(b"debug_")? {
            b"core" | b"alloc" | b"mutex" | b"event" | b"http" | b"mail" | b"stream" => Some(Level::Debug),
            _ => None,
        }
    }

    /// True if a log configured at `self` takes a line of `line` severity.
    pub fn admits(self, line: Level) -> bool {
        line <= self
    }

    /// Severity code for syslog (RFC 5424, 6.2.1): 0 for emerg to 7 for debug.
    pub const fn syslog_severity(self) -> u8 {
        self as u8 - 1
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_parses_from_its_own_name() {
        for level in Level::ALL {
            assert_eq!(Level::parse(level.name().as_bytes()), Some(level));
        }
        assert_eq!(Level::parse(b"debug_http"), Some(Level::Debug));
        assert_eq!(Level::parse(b"debug_"), None);
        assert_eq!(Level::parse(b"warning"), None);
        assert_eq!(Level::parse(b"Warn"), None);
    }

    #[test]
    fn a_log_takes_lines_of_its_level_and_more_severe_ones() {
        assert!(Level::Error.admits(Level::Emerg));
        assert!(Level::Error.admits(Level::Error));
        assert!(!Level::Error.admits(Level::Warn));
        assert!(Level::Debug.admits(Level::Info));
    }

    #[test]
    fn syslog_severities_run_from_zero_to_seven() {
        let codes: Vec<u8> = Level::ALL.iter().map(|level| level.syslog_severity()).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}
