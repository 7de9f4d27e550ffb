//! Placeholder.
/// Variables.
pub static VARIABLES: &[crate::http::variables::VariableEntry] = &[];
