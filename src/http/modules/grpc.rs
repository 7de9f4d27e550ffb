//! `grpc_pass`: requests passed on to gRPC servers, over HTTP/2.
//!
//! What a request becomes and what is made of its response is [`proxy`](super::proxy)'s work: the directives here are its
//! settings under other names and with other defaults. Bodies go on as they come in both directions, and trailers pass.

use std::sync::Arc;

use crate::conf::context::Context as Place;
use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::source::{IncludeId, Span};
use crate::http::build::Scope;
use crate::http::build::arguments::{flag, milliseconds, size};
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::flow::{Answer, Flow};
use crate::http::modules::passing::{self, Bind, PAGE, bind, parse_address, set_handler, small};
use crate::http::modules::proxy::{
    self, FixedPass, HttpVersion, NEXT_UPSTREAM, Names, Pass, Redirects, Rule, SetHeaders, add_header,
    add_name, ignore_headers, ignored, split_grpc_scheme,
};
use crate::http::settings::contexts::HTTP_SERVER_LOCATION;
use crate::http::settings::settings;
use crate::http::upstream_call::{PassModule, conditions};

/// Where `grpc_pass` may stand.
const PASS: Place = Place::LOCATION.union(Place::IF_LOCATION);

settings! {
    module grpc;
    values {
        /// Where `grpc_pass` stands.
        pass_place: Option<(Span, IncludeId)> = None, inherit;
    }
    fields {
        /// The address that connections to servers come from.
        bind: Option<Bind> = None, inherit;
            "grpc_bind" HTTP_SERVER_LOCATION, Arity::between(1, 2), default "", once bind;
        /// Bytes that the head of a response may have.
        buffer_size: u64 = PAGE, inherit;
            "grpc_buffer_size" HTTP_SERVER_LOCATION, Arity::exactly(1), default "4k", once size;
        /// How long connecting may take, in milliseconds.
        connect_timeout: u64 = 60_000, inherit;
            "grpc_connect_timeout" HTTP_SERVER_LOCATION, Arity::exactly(1), default "60s", once milliseconds;
        /// Fields of responses that are not passed to the client.
        hide_headers: Names = Names::default(), inherit;
            "grpc_hide_header" HTTP_SERVER_LOCATION, Arity::exactly(1), default "", with add_name;
        /// Fields of responses that have no effect here.
        ignore_headers: u32 = 0, inherit;
            "grpc_ignore_headers" HTTP_SERVER_LOCATION, Arity::at_least(1), default "", once ignore_headers;
        /// Whether `error_page` applies to responses of servers.
        intercept_errors: bool = false, inherit;
            "grpc_intercept_errors" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", once flag;
        /// When a request is tried again elsewhere.
        next_upstream: u32 = conditions::ERROR | conditions::TIMEOUT, inherit;
            "grpc_next_upstream" HTTP_SERVER_LOCATION, Arity::at_least(1), default "error timeout", once next_upstream;
        /// How long tries may go on, in milliseconds; 0 for no limit.
        next_upstream_timeout: u64 = 0, inherit;
            "grpc_next_upstream_timeout" HTTP_SERVER_LOCATION, Arity::exactly(1), default "0", once milliseconds;
        /// How many tries there may be; 0 for no limit.
        next_upstream_tries: u32 = 0, inherit;
            "grpc_next_upstream_tries" HTTP_SERVER_LOCATION, Arity::exactly(1), default "0", once small;
        /// Passes requests on to this gRPC server, or to a group of `upstream`.
        pass: Option<Pass> = None, inherit;
            "grpc_pass" PASS, Arity::exactly(1), default "", once read_pass;
        /// Fields of responses that are passed to the client although they usually are not.
        pass_headers: Names = Names::default(), inherit;
            "grpc_pass_header" HTTP_SERVER_LOCATION, Arity::exactly(1), default "", with add_name;
        /// How long a server may send nothing, in milliseconds.
        read_timeout: u64 = 60_000, inherit;
            "grpc_read_timeout" HTTP_SERVER_LOCATION, Arity::exactly(1), default "60s", once milliseconds;
        /// How long a server may take nothing, in milliseconds.
        send_timeout: u64 = 60_000, inherit;
            "grpc_send_timeout" HTTP_SERVER_LOCATION, Arity::exactly(1), default "60s", once milliseconds;
        /// A field of the request; an empty value leaves it out.
        set_headers: SetHeaders = SetHeaders::default(), inherit;
            "grpc_set_header" HTTP_SERVER_LOCATION, Arity::exactly(2), default "", with add_header;
        /// Whether the kernel looks after idle connections.
        socket_keepalive: bool = false, inherit;
            "grpc_socket_keepalive" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", once flag;
        /// Receive buffer of connections, in bytes; 0 for the system's.
        socket_rcvbuf: u64 = 0, inherit;
            "grpc_socket_rcvbuf" HTTP_SERVER_LOCATION, Arity::exactly(1), default "0", once size;
        /// Send buffer of connections, in bytes; 0 for the system's.
        socket_sndbuf: u64 = 0, inherit;
            "grpc_socket_sndbuf" HTTP_SERVER_LOCATION, Arity::exactly(1), default "0", once size;
    }
    frozen {
        /// The settings that requests are passed on by.
        proxy: Arc<proxy::Settings> = Arc::new(
            proxy::Draft {
                bind: Some(bind.clone()),
                buffer_size: Some(buffer_size),
                // As it comes, whatever a server says about it.
                buffering: Some(false),
                connect_timeout: Some(connect_timeout),
                hide_headers: Some(hide_headers.clone()),
                http_version: Some(HttpVersion::Http2),
                ignore_headers: Some(ignore_headers | ignored::BUFFERING),
                intercept_errors: Some(intercept_errors),
                max_temp_file_size: Some(0),
                module: Some(PassModule::Grpc),
                next_upstream: Some(next_upstream),
                next_upstream_timeout: Some(next_upstream_timeout),
                next_upstream_tries: Some(next_upstream_tries),
                pass: Some(pass.clone()),
                pass_place: Some(pass_place),
                pass_headers: Some(pass_headers.clone()),
                pass_trailers: Some(true),
                read_timeout: Some(read_timeout),
                redirects: Some(Redirects::Off),
                request_buffering: Some(false),
                send_timeout: Some(send_timeout),
                set_headers: Some(set_headers.clone()),
                socket_keepalive: Some(socket_keepalive),
                socket_rcvbuf: Some(socket_rcvbuf),
                socket_sndbuf: Some(socket_sndbuf),
                ..proxy::Draft::default()
            }
            .freeze(),
        );
    }
}

fn next_upstream(scope: &mut Scope, call: &Call) -> Result<u32, Complaint> {
    passing::conditions(scope, call, &NEXT_UPSTREAM[..NEXT_UPSTREAM.len() - 1])
}

fn read_pass(scope: &mut Scope, call: &Call) -> Result<Option<Pass>, Complaint> {
    let word = call.arg(0);
    let template = scope.builder.template(word)?;
    set_handler(scope, handle);
    scope.drafts.grpc.get_or_insert_default().pass_place = Some(Some((call.span(), call.directive.include)));
    let Some(text) = template.as_literal() else { return Ok(Some(Pass::Computed(template))) };
    let (secure, rest) = split_grpc_scheme(text);
    let url = parse_address(rest, 0, false).map_err(|what| {
        Complaint::new(format!("{what} in upstream \"{}\"", String::from_utf8_lossy(rest))).at(word)
    })?;
    let id = scope.builder.pass(url.address.clone());
    let default_redirect = Rule::literal(b"", b"");
    Ok(Some(Pass::Fixed(Arc::new(FixedPass { id, url, secure, replaced: 0, default_redirect }))))
}

/// The content handler.
pub fn handle(exchange: &mut Exchange, context: &mut Context, answer: Option<Answer>) -> Flow {
    let site = context.site;
    proxy::handle_by(&site.settings(exchange.location).grpc.proxy, exchange, context, answer)
}
