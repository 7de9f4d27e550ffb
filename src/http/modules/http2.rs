//! HTTP/2 to clients: the directives of nginx's v2 module. The protocol itself is in [`crate::proto::h2`].

use crate::base::ascii::append_decimal;
use crate::conf::directive::{Arity, Call, Complaint};
use crate::http::build::Scope;
use crate::http::build::arguments::{flag, number, without_meaning, number_without_meaning, size, size_without_meaning};
use crate::http::settings::contexts::{HTTP, HTTP_SERVER, HTTP_SERVER_LOCATION};
use crate::http::settings::settings;
use crate::http::site::{AddressId, ServerId, Site};
use crate::http::variables::VariableEntry;
use crate::message::Version;
use crate::proto::h2::Limit;

settings! {
    module http2;
    fields {
        /// Whether clients may speak HTTP/2 on the server's addresses.
        on: bool = false, inherit;
            "http2" HTTP_SERVER, Arity::FLAG, default "off", once flag;
        /// Bytes of a request's body that a client may send before anybody asks for them.
        preread_size: u64 = 64 * 1024, inherit;
            "http2_body_preread_size" HTTP_SERVER, Arity::exactly(1), default "64k", once preread_size;
        /// Requests that a client may have open at a time on one connection.
        max_concurrent_streams: u64 = 128, inherit;
            "http2_max_concurrent_streams" HTTP_SERVER, Arity::exactly(1), default "128", once number;
    }
    plain {
        /// Without meaning here: pieces of bodies are as large as windows and priorities allow.
        "http2_chunk_size" HTTP_SERVER_LOCATION, Arity::exactly(1), default "8k", chunk_size;
        /// Without meaning here: memory sizes itself.
        "http2_pool_size" HTTP_SERVER, Arity::exactly(1), default "4k", size_without_meaning;
        /// Without meaning here: workers have one buffer for all that is received.
        "http2_recv_buffer_size" HTTP, Arity::exactly(1), default "256k", size_without_meaning;
        /// Without meaning here: tables size themselves.
        "http2_streams_index_size" HTTP_SERVER, Arity::exactly(1), default "32", number_without_meaning;
        /// Obsolete: `keepalive_timeout` says it.
        "http2_idle_timeout" HTTP_SERVER, Arity::exactly(1), default "", obsolete;
        /// Obsolete: nothing is pushed.
        "http2_max_concurrent_pushes" HTTP_SERVER, Arity::exactly(1), default "", obsolete;
        /// Obsolete: `large_client_header_buffers` says it.
        "http2_max_field_size" HTTP_SERVER, Arity::exactly(1), default "", obsolete;
        /// Obsolete: `large_client_header_buffers` says it.
        "http2_max_header_size" HTTP_SERVER, Arity::exactly(1), default "", obsolete;
        /// Obsolete: `keepalive_requests` says it.
        "http2_max_requests" HTTP_SERVER, Arity::exactly(1), default "", obsolete;
        /// Obsolete: nothing is pushed.
        "http2_push" HTTP_SERVER_LOCATION, Arity::exactly(1), default "", obsolete;
        /// Obsolete: nothing is pushed.
        "http2_push_preload" HTTP_SERVER_LOCATION, Arity::FLAG, default "", obsolete;
        /// Obsolete: `client_header_timeout` says it.
        "http2_recv_timeout" HTTP_SERVER, Arity::exactly(1), default "", obsolete;
    }
}

/// `$http2`: `h2` under TLS, `h2c` without, else empty.
pub static VARIABLES: &[VariableEntry] = &[VariableEntry::new("http2", |exchange, _, out| {
    if exchange.head.version == Version::Http2 {
        out.extend_from_slice(if exchange.connection.secure { b"h2" } else { b"h2c" });
        return true;
    }
    false
})];

macro_rules! limit_variables {
    ($($name:literal $limit:ident,)+) => {
        /// Ours: how many connections each limit against floods has closed, by the limit's name.
        pub static LIMIT_VARIABLES: &[VariableEntry] = &[
            $(VariableEntry::new($name, |_, context, out| {
                append_decimal(out, context.env.system.connections().http2_limits[Limit::$limit as usize]);
                true
            }),)+
        ];
    };
}

limit_variables! {
    "http2_limit_rapid_reset" RapidReset,
    "http2_limit_stream_errors" StreamErrors,
    "http2_limit_continuations" Continuations,
    "http2_limit_block_bytes" BlockBytes,
    "http2_limit_empty_frames" EmptyFrames,
    "http2_limit_pings" Pings,
    "http2_limit_settings" Settings,
    "http2_limit_window_updates" WindowUpdates,
    "http2_limit_priorities" Priorities,
    "http2_limit_ignored_frames" IgnoredFrames,
    "http2_limit_stalled_streams" StalledStreams,
}

fn preread_size(scope: &mut Scope, call: &Call) -> Result<u64, Complaint> {
    match size(scope, call)? {
        // What a window can say (RFC 9113 section 6.9.1).
        size if size <= i32::MAX as u64 => Ok(size),
        _ => Err(Complaint::new("the maximum body preread buffer size is 2147483647").at(call.arg(0))),
    }
}

fn chunk_size(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    match size(scope, call)? {
        0 => Err(Complaint::new("the http2 chunk size cannot be zero").at(call.arg(0))),
        _ => without_meaning(scope, call),
    }
}

fn obsolete(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    let instead = match call.name() {
        "http2_idle_timeout" => ", use the \"keepalive_timeout\" directive instead",
        "http2_max_field_size" | "http2_max_header_size" => {
            ", use the \"large_client_header_buffers\" directive instead"
        }
        "http2_max_requests" => ", use the \"keepalive_requests\" directive instead",
        "http2_recv_timeout" => ", use the \"client_header_timeout\" directive instead",
        _ => ", ignored",
    };
    scope.warn(call, format!("the \"{}\" directive is obsolete{instead}", call.name()));
    Ok(())
}

impl Site {
    /// Whether HTTP/2 is spoken on an address, with a client that wants this server.
    pub fn speaks_http2(&self, address: AddressId, server: ServerId) -> bool {
        let shared = self.listens.addresses().get(address.0 as usize);
        shared.is_some_and(|shared| shared.protocol.http2) || self.settings(self.server(server).root).http2.on
    }
}

#[cfg(test)]
mod tests {
    use super::{LIMIT_VARIABLES, Limit};
    use crate::http::testing::complaints;

    #[test]
    fn obsolete_directives_are_warned_of_with_what_to_use_instead() {
        for (directive, instead) in [
            ("http2_idle_timeout 3m", ", use the \"keepalive_timeout\" directive instead"),
            ("http2_max_field_size 4k", ", use the \"large_client_header_buffers\" directive instead"),
            ("http2_max_header_size 16k", ", use the \"large_client_header_buffers\" directive instead"),
            ("http2_max_requests 1000", ", use the \"keepalive_requests\" directive instead"),
            ("http2_recv_timeout 30s", ", use the \"client_header_timeout\" directive instead"),
            ("http2_max_concurrent_pushes 10", ", ignored"),
            ("http2_push /a.css", ", ignored"),
            ("http2_push_preload on", ", ignored"),
        ] {
            let name = directive.split(' ').next().unwrap_or_default();
            assert_eq!(
                complaints(&format!("server {{ listen 80; {directive}; }}")),
                [format!("[warn] the \"{name}\" directive is obsolete{instead}")]
            );
        }
        assert_eq!(complaints("server { listen 80; http2 on; http2_body_preread_size 1m; }"), [""; 0]);
        assert_eq!(
            complaints("server { listen 80; http2_body_preread_size 2048m; }"),
            ["[emerg] the maximum body preread buffer size is 2147483647"]
        );
    }

    #[test]
    fn every_limit_that_clients_can_reach_has_its_variable() {
        let shown: Vec<&str> = LIMIT_VARIABLES.iter().map(|entry| entry.name).collect();
        // Clients send no interim responses.
        let limits = Limit::ALL.iter().filter(|limit| **limit != Limit::InterimResponses);
        let named: Vec<String> = limits.map(|limit| format!("http2_limit_{}", limit.name())).collect();
        assert_eq!(shown, named);
    }
}
