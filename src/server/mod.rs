//! The I/O shell: the event loop, sockets, files, log sinks, and every system call.

pub mod client;
pub mod compressed;
pub mod config_files;
pub mod files;
pub mod kernel_tls;
pub mod listeners;
pub mod logs;
pub mod names;
pub mod passwords;
pub mod pool;
pub mod relay;
pub mod runtime;
pub mod sys;
pub mod worker;
