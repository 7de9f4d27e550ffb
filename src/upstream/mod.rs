//! What lies behind the server: groups of servers and their names, without I/O.

pub mod names;
