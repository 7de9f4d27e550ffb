//! Placeholder.
/// Format.
pub struct LogFormat;
