//! Integration tests: real processes, real sockets, one binary. A file per feature; `util` is the harness.
//!
//! To add a feature's tests, write `tests/it/FEATURE.rs` and one `mod FEATURE;` line here.

mod util;

mod access_log;
mod auth_basic;
mod autoindex;
mod balancing;
mod bodies;
mod browser;
mod configuration;
mod connections;
mod cors;
mod diagnostics;
mod error_log;
mod error_pages;
mod geo;
mod geo_mmdb;
mod harness;
mod headers;
mod hostile;
mod http1;
mod limit_conn;
mod limit_req;
mod listen;
mod locations;
mod map;
mod memcached;
mod pipelines;
mod precompressed;
mod process;
mod proxy_heads;
mod proxy_ranges;
mod real_site;
mod realip;
mod referer;
mod regression;
mod relay_connections;
mod relay_responses;
mod relay_streaming;
mod relay_tunnels;
mod reload;
mod responses;
mod rewrite;
mod samples;
mod secure_link;
mod serve;
mod spa;
mod split_clients;
mod static_files;
mod stub_status;
mod tunnel;
mod userid;
mod variables;
mod virtual_hosts;
mod worker;
