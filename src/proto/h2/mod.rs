//! HTTP/2.

mod abuse;
mod core;
mod error;
mod field_rules;
mod flow;
mod frame;
pub mod hpack;
pub mod huffman;
mod priority;
mod request_head;
mod response;
mod sending;
mod server;
mod settings;
mod stream;
