//! HTTP/2.

mod abuse;
mod error;
mod field_rules;
mod flow;
mod frame;
pub mod hpack;
pub mod huffman;
mod priority;
mod request_head;
mod settings;
mod stream;
