//! Buffers, clock, timer wheel, tries, address sets, regular expressions: what every rank stands on.

pub mod ascii;
pub mod base64;
pub mod cidr;
pub mod clock;
pub mod forwarded;
pub mod level;
pub mod log;
pub mod lru;
pub mod pace;
pub mod password;
pub mod percent;
pub mod prefix_tree;
pub mod regex;
pub mod wheel;
