//! `grpc_pass`: requests passed on to gRPC servers, over HTTP/2.
//!
//! What a request becomes and what is made of its response is `proxy`'s work: the directives here are its
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

#[cfg(test)]
mod tests {
    use crate::http::testing::{World, complaints};
    use crate::http::upstream_call::{CallBody, PassAddress, PassModule, Protocol, Target, conditions};

    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nServer: s\r\nX-A: b\r\n\r\n";

    fn world(settings: &str) -> World {
        World::new(&format!("server {{ location / {{ {settings} }} }}"))
    }

    #[test]
    fn a_request_goes_on_with_the_fields_that_are_not_about_connections() {
        let mut world = world("grpc_pass h:81; grpc_set_header X-B $arg_b; grpc_set_header X-C ''; grpc_hide_header x-a;");
        let reply = world.upstream(OK).send(
            "POST /a%20b?b=c HTTP/1.1\r\nHost: site\r\nTE: deflate, trailers\r\nConnection: x-d\r\nX-C: 1\r\nX-D: 2\r\n\
             Content-Type: application/grpc\r\nContent-Length: 0\r\n\r\n",
        );
        assert_eq!((reply.status, reply.has("x-a"), reply.has("content-type")), (200, false, true));
        let passed = &world.calls[0];
        assert_eq!(passed.request_line(), "POST /a%20b?b=c HTTP/2");
        let lines = ["Host: h:81", "X-B: c", "te: trailers", "Content-Type: application/grpc"];
        assert_eq!(passed.lines(), lines);
        let call = &passed.call;
        assert_eq!((call.protocol, call.module, call.tls.is_some()), (Protocol::Http2, PassModule::Grpc, false));
        assert!(call.pass_trailers && !call.buffering && !call.idempotent);
    }

    #[test]
    fn the_host_may_be_set_and_bodies_stream() {
        let mut world = world("grpc_pass grpc://unix:/s; grpc_set_header Host $host;");
        world.upstream(OK).send(
            "PUT / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        );
        assert_eq!(world.calls[0].lines(), ["Host: site"]);
        assert_eq!(world.calls[0].call.body, CallBody::Streamed { chunked: false });
    }

    #[test]
    fn variables_may_name_the_server_and_its_scheme() {
        let mut world = world("grpc_pass $arg_a;");
        for (text, host, port, secure) in
            [("grpcs://a:1", "a", 1, true), ("GRPC://b:2", "b", 2, false), ("c:3", "c", 3, false)]
        {
            world.upstream(OK).get(&format!("/?a={text}"));
            let call = &world.calls.last().unwrap().call;
            let expected = PassAddress::Host { host: host.as_bytes().into(), port: Some(port), default_port: 0 };
            assert_eq!((&call.target, call.tls.is_some()), (&Target::Computed(expected), secure), "{text}");
        }
        assert_eq!(world.get("/?a=http://a").status, 500);
    }

    #[test]
    fn what_cannot_be_had_is_answered_by_the_pages_for_it() {
        let mut world = World::new(
            "server { error_page 502 504 /page; location / { grpc_pass a:1; grpc_intercept_errors on; }
             location = /page { return 200 page; } }",
        );
        assert_eq!(world.upstream_fails("connect_refused", 502).get("/x").text(), "page");
        assert_eq!(world.upstream("HTTP/1.1 504 x\r\n\r\n").get("/x").text(), "page");
    }

    #[test]
    fn the_directives_say_how_requests_pass() {
        let mut world = world(
            "grpc_pass a:1; grpc_bind 127.0.0.9; grpc_buffer_size 8k; grpc_connect_timeout 1; grpc_send_timeout 2;
             grpc_read_timeout 3; grpc_next_upstream http_500 non_idempotent; grpc_next_upstream_timeout 4;
             grpc_next_upstream_tries 5; grpc_socket_keepalive on; grpc_socket_rcvbuf 9k; grpc_socket_sndbuf 10k;
             grpc_pass_header Server; grpc_ignore_headers X-Accel-Redirect;",
        );
        assert_eq!(world.upstream(OK).get("/").field("server"), "s");
        let call = &world.calls[0].call;
        let conduct = &call.conduct;
        assert_eq!((conduct.connect_timeout, conduct.send_timeout, conduct.read_timeout), (1000, 2000, 3000));
        assert_eq!(conduct.next_upstream, conditions::HTTP_500 | conditions::NON_IDEMPOTENT);
        assert_eq!((conduct.next_upstream_timeout, conduct.next_upstream_tries), (4000, 5));
        assert_eq!((conduct.buffer_size, conduct.socket_rcvbuf, conduct.socket_sndbuf), (8192, 9216, 10240));
        assert!(conduct.socket_keepalive && call.local_address.is_some());
    }

    /// The words are those of nginx 1.22.
    #[test]
    fn mistakes_are_reported_in_nginx_s_words() {
        for (text, words) in [
            ("grpc_pass 127.0.0.1;", "no port in upstream \"127.0.0.1\""),
            ("grpc_pass a:1/x;", "invalid host in upstream \"a:1/x\""),
            ("grpc_pass grpcs://127.0.0.1;", "no port in upstream \"127.0.0.1\""),
            ("grpc_pass http://a:1;", "invalid host in upstream \"http://a:1\""),
            ("grpc_pass grpc://;", "no host in upstream \"\""),
            ("grpc_next_upstream updating;", "invalid value \"updating\""),
            (
                "grpc_pass grpcs://a:1; grpc_ssl_verify on;",
                "no grpc_ssl_trusted_certificate for grpc_ssl_verify",
            ),
        ] {
            let told = complaints(&format!("server {{ location / {{ {text} }} }}"));
            assert!(told.iter().any(|line| line.contains(words)), "{text}: {told:?}");
        }
    }
}
