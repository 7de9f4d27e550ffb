//! The request engine: a frozen site, and an exchange as a state machine that does no I/O.
pub mod site;
