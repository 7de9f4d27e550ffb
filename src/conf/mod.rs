//! nginx.conf: text to a tree with spans, directive tables, values, diagnostics.
pub mod files;
pub mod glob;
pub mod listen;
pub mod main_settings;
pub mod values;
