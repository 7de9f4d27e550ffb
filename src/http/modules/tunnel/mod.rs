//! `tunnel_pass`: CONNECT (RFC 9110 section 9.3.6). The client gets raw bytes to and from the address as soon as the
//! connection there stands.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::conf::context::Context as Place;
use crate::conf::directive::{Arity, Call as DirectiveCall, Complaint};
use crate::conf::template::Template;
use crate::http::body::Body;
use crate::http::build::Scope;
use crate::http::build::arguments::{flag, milliseconds, size};
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::flow::{Answer, Flow, Need};
use crate::http::modules::passing::{
    self, Bind, PAGE, Words, bind, computed_address, effective_conditions, parse_address, set_handler, small,
};
use crate::http::settings::contexts::HTTP_SERVER_LOCATION;
use crate::http::settings::settings;
use crate::http::upstream_call::{Call, CallBody, Conduct, PassId, PassModule, Protocol, Target, conditions};
use crate::message::{Method, Status};

/// Where `tunnel_pass` may stand.
const PASS: Place = Place::SERVER.union(Place::LOCATION).union(Place::IF_LOCATION);

settings! {
    module tunnel;
    fields {
        /// The address that tunnels come from.
        bind: Option<Bind> = None, inherit;
            "tunnel_bind" HTTP_SERVER_LOCATION, Arity::between(1, 2), default "", once bind;
        /// Bytes that are read at once in each direction.
        buffer_size: u64 = PAGE, inherit;
            "tunnel_buffer_size" HTTP_SERVER_LOCATION, Arity::exactly(1), default "4k", once size;
        /// How long connecting may take, in milliseconds.
        connect_timeout: u64 = 60_000, inherit;
            "tunnel_connect_timeout" HTTP_SERVER_LOCATION, Arity::exactly(1), default "60s", once milliseconds;
        /// When another address is tried.
        next_upstream: u32 = conditions::ERROR | conditions::TIMEOUT, inherit;
            "tunnel_next_upstream" HTTP_SERVER_LOCATION, Arity::at_least(1), default "error timeout", once next_upstream;
        /// How long tries may go on, in milliseconds; 0 for no limit.
        next_upstream_timeout: u64 = 0, inherit;
            "tunnel_next_upstream_timeout" HTTP_SERVER_LOCATION, Arity::exactly(1), default "0", once milliseconds;
        /// How many tries there may be; 0 for no limit.
        next_upstream_tries: u32 = 0, inherit;
            "tunnel_next_upstream_tries" HTTP_SERVER_LOCATION, Arity::exactly(1), default "0", once small;
        /// Makes tunnels for CONNECT to this address, by default to the one that the client names.
        pass: Option<TunnelPass> = None, inherit;
            "tunnel_pass" PASS, Arity::between(0, 1), default "", once read_pass;
        /// How long a tunnel may be still, in milliseconds.
        read_timeout: u64 = 60_000, inherit;
            "tunnel_read_timeout" HTTP_SERVER_LOCATION, Arity::exactly(1), default "60s", once milliseconds;
        /// Without effect: Linux has no such mark.
        send_lowat: u64 = 0, inherit;
            "tunnel_send_lowat" HTTP_SERVER_LOCATION, Arity::exactly(1), default "0", once size;
        /// How long an address may take nothing, in milliseconds.
        send_timeout: u64 = 60_000, inherit;
            "tunnel_send_timeout" HTTP_SERVER_LOCATION, Arity::exactly(1), default "60s", once milliseconds;
        /// Whether the kernel looks after idle tunnels.
        socket_keepalive: bool = false, inherit;
            "tunnel_socket_keepalive" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", once flag;
        /// Receive buffer of tunnels, in bytes; 0 for the system's.
        socket_rcvbuf: u64 = 0, inherit;
            "tunnel_socket_rcvbuf" HTTP_SERVER_LOCATION, Arity::exactly(1), default "0", once size;
        /// Send buffer of tunnels, in bytes; 0 for the system's.
        socket_sndbuf: u64 = 0, inherit;
            "tunnel_socket_sndbuf" HTTP_SERVER_LOCATION, Arity::exactly(1), default "0", once size;
    }
    frozen {
        /// How tunnels are made.
        conduct: Arc<Conduct> = Arc::new(Conduct {
            connect_timeout,
            send_timeout,
            read_timeout,
            next_upstream: effective_conditions(next_upstream),
            next_upstream_tries,
            next_upstream_timeout,
            buffer_size: buffer_size as usize,
            buffers_bytes: buffer_size as usize,
            max_temp_file_size: 0,
            temp_path: None,
            socket_keepalive,
            socket_rcvbuf: socket_rcvbuf as usize,
            socket_sndbuf: socket_sndbuf as usize,
            ignore_client_abort: false,
            store_access: 0o600,
        });
    }
}

/// What `tunnel_pass` says.
#[derive(Clone, Debug)]
pub enum TunnelPass {
    /// An address.
    Fixed(PassId),
    /// What variables say.
    Computed(Template),
}

/// Where tunnels go by default: to where the client asks for.
const TO_WHERE_ASKED: &[u8] = b"$host:$request_port";

const NEXT_UPSTREAM: &Words = &[
    ("error", conditions::ERROR),
    ("timeout", conditions::TIMEOUT),
    ("denied", conditions::DENIED),
    ("off", conditions::OFF),
];

fn next_upstream(scope: &mut Scope, call: &DirectiveCall) -> Result<u32, Complaint> {
    passing::conditions(scope, call, NEXT_UPSTREAM)
}

fn read_pass(scope: &mut Scope, call: &DirectiveCall) -> Result<Option<TunnelPass>, Complaint> {
    set_handler(scope, handle);
    if let Some(server) = &mut scope.server {
        server.allows_connect = true;
    }
    let template = match call.args().first() {
        Some(word) => scope.builder.template(word)?,
        None => scope.builder.template_of(TO_WHERE_ASKED, call.directive.name())?,
    };
    let Some(text) = template.as_literal() else { return Ok(Some(TunnelPass::Computed(template))) };
    let word = call.arg(0);
    let url = parse_address(text, 0, false)
        .map_err(|what| Complaint::new(format!("{what} in upstream \"{}\"", word.lossy())).at(word))?;
    Ok(Some(TunnelPass::Fixed(scope.builder.pass(url.address))))
}

/// The content handler.
pub fn handle(exchange: &mut Exchange, context: &mut Context, answer: Option<Answer>) -> Flow {
    match answer {
        None if exchange.head.method != Method::Connect || exchange.method_is_get => {
            Flow::Status(Status::METHOD_NOT_ALLOWED)
        }
        None => match ask(exchange, context) {
            Ok(()) => Flow::Need(Need::Upstream),
            Err(status) => Flow::Status(status),
        },
        Some(Answer::Upstream(Ok(()))) => {
            // Whatever came before: the answer is 2xx, and what follows its head belongs to the tunnel.
            exchange.response.clear();
            exchange.response.status = Status::OK;
            exchange.error_status = None;
            exchange.body = Body::Upstream(None);
            exchange.keep_alive = false;
            if let Some(passed) = &mut exchange.upstream {
                passed.switched = true;
            }
            Flow::Respond
        }
        Some(Answer::Upstream(Err(failure))) => {
            if let Some(passed) = &mut exchange.upstream {
                passed.error = Some(failure.token);
            }
            Flow::Status(failure.status)
        }
        Some(_) => Flow::Status(Status::INTERNAL_SERVER_ERROR),
    }
}

fn ask(exchange: &mut Exchange, context: &mut Context) -> Result<(), Status> {
    let site = context.site;
    let settings = &site.settings(exchange.location).tunnel;
    let (target, computed) = match &settings.pass {
        None => return Err(Status::INTERNAL_SERVER_ERROR),
        Some(TunnelPass::Fixed(id)) => (Target::Fixed(*id), None),
        Some(TunnelPass::Computed(template)) => {
            let url = exchange.with_rendered(template, context, |exchange, context, text| {
                computed_address(exchange, context, text, 0, false)
            })?;
            (Target::Computed(url.address.clone()), Some(url))
        }
    };
    let local_address = settings.bind.as_ref().and_then(|bind| bind.address(exchange, context));
    let passed = exchange.upstream.get_or_insert_default();
    let head = passed.begin_call();
    passed.computed = computed;
    passed.call = Some(Call {
        target,
        conduct: Arc::clone(&settings.conduct),
        protocol: Protocol::Raw,
        tls: None,
        module: PassModule::default(),
        head,
        framed: None,
        body: CallBody::None,
        is_head: false,
        asks_upgrade: false,
        // Nothing is sent before the tunnel stands.
        idempotent: true,
        keep_alive: false,
        buffering: false,
        early_hints: false,
        pass_trailers: false,
        limit_rate: 0,
        local_address,
        store: None,
        hash_key: Vec::new(),
        sticky: Vec::new(),
    });
    Ok(())
}
