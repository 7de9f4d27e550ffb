//! HTTP/2 to clients.
