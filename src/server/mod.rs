//! The I/O shell: the event loop, sockets, files, log sinks, and every system call.

pub mod config_files;
pub mod files;
pub mod logs;
pub mod pool;
pub mod sys;
