//! Wire machines without I/O: bytes in, events out, commands in, bytes out.

pub mod dns;
pub mod h1;
pub mod h2;
pub mod memcached;
pub mod proxy_protocol;
pub mod tls;
