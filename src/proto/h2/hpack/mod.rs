//! HPACK (RFC 7541): field lines as indexes into a static and a dynamic table, and Huffman-coded literals.
//!
//! A [`Decoder`] writes names and values straight into the text of [`Fields`](crate::message::Fields); an [`Encoder`]
//! appends to an output buffer. Both own a dynamic table and a scratch buffer and allocate nothing once these have grown.

mod decoder;
mod dynamic_table;
mod encoder;
mod static_table;
#[cfg(test)]
mod tests;

pub use decoder::{Budget, Decoded, Decoder, HpackError};
pub use dynamic_table::DynamicTable;
pub use encoder::{Encoder, Indexing};

/// What each entry and each field counts on top of its text, in bytes (RFC 7541 section 4.1, RFC 9113 section 6.5.2).
pub const ENTRY_OVERHEAD: usize = 32;

/// Size of the dynamic table that both sides begin with, and the most that is used here, in bytes.
pub const TABLE_SIZE: usize = 4096;
