//! One form of HTTP messages for every protocol version.
