//! The I/O shell: the event loop, sockets, files, log sinks, and every system call.
pub mod listeners;
pub mod runtime;
pub mod sys;
pub mod worker;
