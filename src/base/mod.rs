//! Buffers, clock, timer wheel, tries, address sets, regular expressions: what every rank stands on.
pub mod level;
