//! `proxy_pass` and what goes with it: requests passed on to HTTP/1 servers.
//!
//! `target` says where to and with which URI, `request` writes the request, `response` makes the client's response of
//! what came back, with the help of `redirects`, `cookies` and `accel`. Connecting, sending and retrying is the
//! shell's.

mod accel;
mod cookies;
mod directives;
mod framed;
mod handler;
mod headers;
mod redirects;
mod request;
mod response;
mod target;
#[cfg(test)]
mod tests;
mod traps;
mod variables;

use std::sync::Arc;

use crate::conf::directive::Arity;
use crate::conf::source::{IncludeId, Span};
use crate::conf::template::Template;
use crate::http::build::arguments::{flag, milliseconds, number_without_meaning, size, templates};
use crate::http::modules::passing::{
    self, Bind, Buffers, PAGE, bind, effective_conditions, rate, small, store_access,
};
use crate::http::modules::request_body::{TempPath, temp_path};
use crate::http::settings::contexts::HTTP_SERVER_LOCATION;
use crate::http::settings::settings;
use crate::http::exchange::Exchange;
use crate::http::modules::LocationSettings;
use crate::http::modules::proxy_ssl::NeedsTls;
use crate::http::upstream_call::{Conduct, PassModule, conditions};

use cookies::{CookieFlags, CookieRewrites};
use directives::*;
use headers::{HeadPlan, Hidden};
pub use directives::{HttpVersion, NEXT_UPSTREAM, add_header, add_name, ignore_headers, ignored};
pub use handler::handle_by;
pub use headers::{Names, SetHeaders};
pub use redirects::{Redirects, Rule};
pub use target::{FixedPass, PASS, Pass, split_grpc_scheme};
pub(in crate::http) use headers::{is_nominated, members};

pub use traps::{check, hidden_headers};
pub use variables::VARIABLES;

/// The settings that an exchange's call goes by.
pub fn in_force<'s>(settings: &'s LocationSettings, exchange: &Exchange) -> &'s Settings {
    let call = exchange.upstream.as_ref().and_then(|passed| passed.call.as_ref());
    match call.map(|call| call.module) {
        Some(PassModule::Grpc) => &settings.grpc.proxy,
        Some(PassModule::Proxy) | None => &settings.proxy,
    }
}

settings! {
    module proxy;
    values {
        /// Where the first directive about sizes of buffers stands.
        buffers_place: Option<(Span, IncludeId)> = None, inherit;
        /// Where `proxy_pass` stands.
        pass_place: Option<(Span, IncludeId)> = None, inherit;
        /// Under which names the settings were given.
        module: PassModule = PassModule::Proxy, inherit;
    }
    fields {
        /// The address that connections to upstreams come from.
        bind: Option<Bind> = None, inherit;
            "proxy_bind" HTTP_SERVER_LOCATION, Arity::between(1, 2), default "", once bind;
        /// Bytes that the head of a response may have.
        buffer_size: u64 = PAGE, inherit;
            "proxy_buffer_size" HTTP_SERVER_LOCATION, Arity::exactly(1), default "4k", once placed_size;
        /// Whether a response is read as fast as the upstream sends it, and kept for a slower client.
        buffering: bool = true, inherit;
            "proxy_buffering" HTTP_SERVER_LOCATION, Arity::FLAG, default "on", once flag;
        /// Memory that a response is kept in for a slower client.
        buffers: Buffers = Buffers { count: 8, size: PAGE }, inherit;
            "proxy_buffers" HTTP_SERVER_LOCATION, Arity::exactly(2), default "8 4k", once placed_buffers;
        /// Without effect beyond its check: what is read ahead is sent as soon as the client takes it.
        busy_buffers_size: Option<u64> = None, inherit;
            "proxy_busy_buffers_size" HTTP_SERVER_LOCATION, Arity::exactly(1), default "8k", once placed_optional_size;
        /// How long connecting may take, in milliseconds.
        connect_timeout: u64 = 60_000, inherit;
            "proxy_connect_timeout" HTTP_SERVER_LOCATION, Arity::exactly(1), default "60s", once milliseconds;
        /// What becomes of the Domain of cookies.
        cookie_domains: CookieRewrites = CookieRewrites::default(), inherit;
            "proxy_cookie_domain" HTTP_SERVER_LOCATION, Arity::between(1, 2), default "off", with add_cookie_domain;
        /// Attributes that cookies get or lose.
        cookie_flags: CookieFlags = CookieFlags::default(), inherit;
            "proxy_cookie_flags" HTTP_SERVER_LOCATION, Arity::between(1, 4), default "off", with add_cookie_flags;
        /// What becomes of the Path of cookies.
        cookie_paths: CookieRewrites = CookieRewrites::default(), inherit;
            "proxy_cookie_path" HTTP_SERVER_LOCATION, Arity::between(1, 2), default "off", with add_cookie_path;
        /// Predicates; when one holds, 103 responses are passed to the client.
        early_hints: Vec<Template> = Vec::new(), inherit;
            "early_hints" HTTP_SERVER_LOCATION, Arity::at_least(1), default "", once templates;
        /// Whether ranges are cut from responses whatever the upstream says about them.
        force_ranges: bool = false, inherit;
            "proxy_force_ranges" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", once flag;
        /// Fields of responses that are not passed to the client.
        hide_headers: Names = Names::default(), inherit;
            "proxy_hide_header" HTTP_SERVER_LOCATION, Arity::exactly(1), default "", with add_name;
        /// The version that upstreams are spoken to in.
        http_version: HttpVersion = HttpVersion::Http11, inherit;
            "proxy_http_version" HTTP_SERVER_LOCATION, Arity::exactly(1), default "1.1", once http_version;
        /// Whether a response is read to its end although its client has gone.
        ignore_client_abort: bool = false, inherit;
            "proxy_ignore_client_abort" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", once flag;
        /// Fields of responses that have no effect here.
        ignore_headers: u32 = 0, inherit;
            "proxy_ignore_headers" HTTP_SERVER_LOCATION, Arity::at_least(1), default "", once ignore_headers;
        /// Whether `error_page` applies to responses of upstreams.
        intercept_errors: bool = false, inherit;
            "proxy_intercept_errors" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", once flag;
        /// Bytes per second that are read from an upstream; 0 for no limit.
        limit_rate: Template = Template::default(), inherit;
            "proxy_limit_rate" HTTP_SERVER_LOCATION, Arity::exactly(1), default "0", once rate;
        /// Bytes of a response beyond the buffers that go to a temporary file; 0 for none.
        max_temp_file_size: u64 = 1 << 30, inherit;
            "proxy_max_temp_file_size" HTTP_SERVER_LOCATION, Arity::exactly(1), default "1024m", once placed_offset;
        /// The method of the request, where it is not the client's.
        method: Option<Template> = None, inherit;
            "proxy_method" HTTP_SERVER_LOCATION, Arity::exactly(1), default "", once optional_template;
        /// When a request is tried again elsewhere.
        next_upstream: u32 = conditions::ERROR | conditions::TIMEOUT, inherit;
            "proxy_next_upstream" HTTP_SERVER_LOCATION, Arity::at_least(1), default "error timeout", once next_upstream;
        /// How long tries may go on, in milliseconds; 0 for no limit.
        next_upstream_timeout: u64 = 0, inherit;
            "proxy_next_upstream_timeout" HTTP_SERVER_LOCATION, Arity::exactly(1), default "0", once milliseconds;
        /// How many tries there may be; 0 for no limit.
        next_upstream_tries: u32 = 0, inherit;
            "proxy_next_upstream_tries" HTTP_SERVER_LOCATION, Arity::exactly(1), default "0", once small;
        /// Passes requests on to this address, or to a group of `upstream`.
        pass: Option<Pass> = None, inherit;
            "proxy_pass" PASS, Arity::exactly(1), default "", once target::read;
        /// Fields of responses that are passed to the client although they usually are not.
        pass_headers: Names = Names::default(), inherit;
            "proxy_pass_header" HTTP_SERVER_LOCATION, Arity::exactly(1), default "", with add_name;
        /// Whether the client's body is passed on.
        pass_request_body: bool = true, inherit;
            "proxy_pass_request_body" HTTP_SERVER_LOCATION, Arity::FLAG, default "on", once flag;
        /// Whether the client's field lines are passed on.
        pass_request_headers: bool = true, inherit;
            "proxy_pass_request_headers" HTTP_SERVER_LOCATION, Arity::FLAG, default "on", once flag;
        /// Whether trailers of responses are passed to the client.
        pass_trailers: bool = false, inherit;
            "proxy_pass_trailers" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", once flag;
        /// How long an upstream may send nothing, in milliseconds.
        read_timeout: u64 = 60_000, inherit;
            "proxy_read_timeout" HTTP_SERVER_LOCATION, Arity::exactly(1), default "60s", once milliseconds;
        /// What becomes of the addresses in Location and Refresh.
        redirects: Redirects = Redirects::default(), inherit;
            "proxy_redirect" HTTP_SERVER_LOCATION, Arity::between(1, 2), default "default", with add_redirect;
        /// Whether the client's body is read whole before anything is sent.
        request_buffering: bool = true, inherit;
            "proxy_request_buffering" HTTP_SERVER_LOCATION, Arity::FLAG, default "on", once flag;
        /// Without effect: Linux has no such mark.
        send_lowat: u64 = 0, inherit;
            "proxy_send_lowat" HTTP_SERVER_LOCATION, Arity::exactly(1), default "0", once size;
        /// How long an upstream may take nothing, in milliseconds.
        send_timeout: u64 = 60_000, inherit;
            "proxy_send_timeout" HTTP_SERVER_LOCATION, Arity::exactly(1), default "60s", once milliseconds;
        /// The body of the request, where it is not the client's.
        set_body: Option<Template> = None, inherit;
            "proxy_set_body" HTTP_SERVER_LOCATION, Arity::exactly(1), default "", once optional_template;
        /// A field of the request; an empty value leaves it out.
        set_headers: SetHeaders = SetHeaders::default(), inherit;
            "proxy_set_header" HTTP_SERVER_LOCATION, Arity::exactly(2), default "Host $proxy_host", with add_header;
        /// Whether the kernel looks after idle connections.
        socket_keepalive: bool = false, inherit;
            "proxy_socket_keepalive" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", once flag;
        /// Receive buffer of connections, in bytes; 0 for the system's.
        socket_rcvbuf: u64 = 0, inherit;
            "proxy_socket_rcvbuf" HTTP_SERVER_LOCATION, Arity::exactly(1), default "0", once size;
        /// Send buffer of connections, in bytes; 0 for the system's.
        socket_sndbuf: u64 = 0, inherit;
            "proxy_socket_sndbuf" HTTP_SERVER_LOCATION, Arity::exactly(1), default "0", once size;
        /// Keeps complete responses in files.
        store: Store = Store::Off, inherit;
            "proxy_store" HTTP_SERVER_LOCATION, Arity::exactly(1), default "off", once store;
        /// Modes of those files.
        store_access: u32 = 0o600, inherit;
            "proxy_store_access" HTTP_SERVER_LOCATION, Arity::between(1, 3), default "user:rw", once store_access;
        /// Without effect beyond its check: a temporary file takes what is there.
        temp_file_write_size: Option<u64> = None, inherit;
            "proxy_temp_file_write_size" HTTP_SERVER_LOCATION, Arity::exactly(1), default "8k", once placed_optional_size;
        /// Where responses are put that do not stay in memory.
        temp_path: Option<TempPath> = None, inherit;
            "proxy_temp_path" HTTP_SERVER_LOCATION, Arity::between(1, 4), default "proxy_temp", once temp_path;
    }
    frozen {
        /// How requests are passed on.
        conduct: Arc<Conduct> = Arc::new(Conduct {
                connect_timeout,
                send_timeout,
                read_timeout,
                next_upstream: effective_conditions(next_upstream),
                next_upstream_tries,
                next_upstream_timeout,
                buffer_size: buffer_size as usize,
                buffers_bytes: buffers.count.saturating_mul(buffers.size) as usize,
                max_temp_file_size,
                temp_path: temp_path.clone(),
                socket_keepalive,
                socket_rcvbuf: socket_rcvbuf as usize,
                socket_sndbuf: socket_sndbuf as usize,
                ignore_client_abort,
                store_access,
            });
        /// How the head of a request is written.
        head_plan: HeadPlan = HeadPlan::new(&set_headers);
        /// Fields of responses that are not passed to the client.
        hidden: Hidden = Hidden::new(&hide_headers, &pass_headers);
    }
    plain {
        /// Without meaning here: tables size themselves.
        "proxy_headers_hash_bucket_size" HTTP_SERVER_LOCATION, Arity::exactly(1), default "64", number_without_meaning;
        /// Without meaning here: tables size themselves.
        "proxy_headers_hash_max_size" HTTP_SERVER_LOCATION, Arity::exactly(1), default "512", number_without_meaning;
    }
}

impl Settings {
    /// Where `proxy_pass` stands, if requests may go on over TLS.
    pub fn may_need_tls(&self) -> Option<NeedsTls> {
        let place = match self.pass.as_ref()? {
            Pass::Fixed(fixed) if !fixed.secure => return None,
            Pass::Fixed(_) | Pass::Computed(_) => self.pass_place?,
        };
        let prefix = match self.module {
            PassModule::Proxy => "proxy",
            PassModule::Grpc => "grpc",
        };
        Some(NeedsTls { prefix, http2: self.http_version == HttpVersion::Http2, place })
    }
}
