//! `memcached_pass`: responses from a memcached server, by the key in `$memcached_key`.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::base::level::Level;
use crate::conf::context::Context as Place;
use crate::conf::directive::{Arity, Call as DirectiveCall, Complaint};
use crate::conf::template::VariableId;
use crate::http::body::Body;
use crate::http::build::Scope;
use crate::http::build::arguments::{flag, milliseconds, size};
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::flow::{Answer, Flow, Need};
use crate::http::modules::passing::{
    self, Bind, PAGE, Words, bind, effective_conditions, parse_address, set_handler, small,
};
use crate::http::settings::contexts::HTTP_SERVER_LOCATION;
use crate::http::settings::settings;
use crate::http::upstream_call::{Call, CallBody, Conduct, PassId, PassModule, Protocol, Target, conditions};
use crate::message::{FieldName, Method, Status};
use crate::proto::memcached::{FLAGS_FIELD, append_get};

/// Where `memcached_pass` may stand.
const PASS: Place = Place::LOCATION.union(Place::IF_LOCATION);

settings! {
    module memcached;
    fields {
        /// The address that connections to servers come from.
        bind: Option<Bind> = None, inherit;
            "memcached_bind" HTTP_SERVER_LOCATION, Arity::between(1, 2), default "", once bind;
        /// Bytes that the line before a value may have.
        buffer_size: u64 = PAGE, inherit;
            "memcached_buffer_size" HTTP_SERVER_LOCATION, Arity::exactly(1), default "4k", once size;
        /// How long connecting may take, in milliseconds.
        connect_timeout: u64 = 60_000, inherit;
            "memcached_connect_timeout" HTTP_SERVER_LOCATION, Arity::exactly(1), default "60s", once milliseconds;
        /// The bit of a value's flags that says that it is compressed by gzip; 0 for none.
        gzip_flag: u32 = 0, inherit;
            "memcached_gzip_flag" HTTP_SERVER_LOCATION, Arity::exactly(1), default "", once small;
        /// When a request is tried again elsewhere.
        next_upstream: u32 = conditions::ERROR | conditions::TIMEOUT, inherit;
            "memcached_next_upstream" HTTP_SERVER_LOCATION, Arity::at_least(1), default "error timeout", once next_upstream;
        /// How long tries may go on, in milliseconds; 0 for no limit.
        next_upstream_timeout: u64 = 0, inherit;
            "memcached_next_upstream_timeout" HTTP_SERVER_LOCATION, Arity::exactly(1), default "0", once milliseconds;
        /// How many tries there may be; 0 for no limit.
        next_upstream_tries: u32 = 0, inherit;
            "memcached_next_upstream_tries" HTTP_SERVER_LOCATION, Arity::exactly(1), default "0", once small;
        /// Answers with the value of `$memcached_key` from this server, or from a group of `upstream`.
        pass: Option<MemcachedPass> = None, inherit;
            "memcached_pass" PASS, Arity::exactly(1), default "", once read_pass;
        /// How long a server may send nothing, in milliseconds.
        read_timeout: u64 = 60_000, inherit;
            "memcached_read_timeout" HTTP_SERVER_LOCATION, Arity::exactly(1), default "60s", once milliseconds;
        /// How long a server may take nothing, in milliseconds.
        send_timeout: u64 = 60_000, inherit;
            "memcached_send_timeout" HTTP_SERVER_LOCATION, Arity::exactly(1), default "60s", once milliseconds;
        /// Whether the kernel looks after idle connections.
        socket_keepalive: bool = false, inherit;
            "memcached_socket_keepalive" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", once flag;
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
            buffers_bytes: buffer_size as usize,
            max_temp_file_size: 0,
            temp_path: None,
            socket_keepalive,
            socket_rcvbuf: 0,
            socket_sndbuf: 0,
            ignore_client_abort: false,
            store_access: 0o600,
        });
    }
}

/// What `memcached_pass` says.
#[derive(Clone, Copy, Debug)]
pub struct MemcachedPass {
    target: PassId,
    /// `$memcached_key`
    key: VariableId,
}

const NEXT_UPSTREAM: &Words = &[
    ("error", conditions::ERROR),
    ("timeout", conditions::TIMEOUT),
    ("denied", conditions::DENIED),
    ("invalid_response", conditions::INVALID_HEADER),
    ("not_found", conditions::HTTP_404),
    ("off", conditions::OFF),
];

fn next_upstream(scope: &mut Scope, call: &DirectiveCall) -> Result<u32, Complaint> {
    passing::conditions(scope, call, NEXT_UPSTREAM)
}

fn read_pass(scope: &mut Scope, call: &DirectiveCall) -> Result<Option<MemcachedPass>, Complaint> {
    let word = call.arg(0);
    set_handler(scope, handle);
    let url = parse_address(word.as_bytes(), 0, false)
        .map_err(|what| Complaint::new(format!("{what} in upstream \"{}\"", word.lossy())).at(word))?;
    let key = scope.builder.variable("memcached_key", word);
    Ok(Some(MemcachedPass { target: scope.builder.pass(url.address), key }))
}

/// The content handler.
pub fn handle(exchange: &mut Exchange, context: &mut Context, answer: Option<Answer>) -> Flow {
    match answer {
        None if !matches!(exchange.method(), Method::Get | Method::Head) => {
            Flow::Status(Status::METHOD_NOT_ALLOWED)
        }
        None => ask(exchange, context),
        Some(Answer::Upstream(Ok(()))) => take(exchange, context),
        Some(Answer::Upstream(Err(failure))) => {
            if let Some(passed) = &mut exchange.upstream {
                passed.error = Some(failure.token);
            }
            Flow::Status(failure.status)
        }
        Some(_) => Flow::Status(Status::INTERNAL_SERVER_ERROR),
    }
}

fn ask(exchange: &mut Exchange, context: &mut Context) -> Flow {
    let site = context.site;
    let settings = &site.settings(exchange.location).memcached;
    let Some(pass) = settings.pass else { return Flow::Status(Status::INTERNAL_SERVER_ERROR) };
    let mut key = context.env.scratch();
    let is_set = exchange.variable(pass.key, context, &mut key) && !key.is_empty();
    let local_address = settings.bind.as_ref().and_then(|bind| bind.address(exchange, context));
    let passed = exchange.upstream.get_or_insert_default();
    let mut head = passed.begin_call();
    append_get(&mut head, &key);
    context.env.give_back(key);
    if !is_set {
        exchange.log(context, Level::Error, format_args!("the \"$memcached_key\" variable is not set"));
        return Flow::Status(Status::INTERNAL_SERVER_ERROR);
    }
    passed_call(exchange, Call {
        target: Target::Fixed(pass.target),
        conduct: Arc::clone(&settings.conduct),
        protocol: Protocol::Memcached,
        tls: None,
        module: PassModule::default(),
        head,
        framed: None,
        body: CallBody::None,
        is_head: false,
        asks_upgrade: false,
        idempotent: true,
        keep_alive: true,
        buffering: false,
        early_hints: false,
        pass_trailers: false,
        limit_rate: 0,
        local_address,
        store: None,
        hash_key: Vec::new(),
        sticky: Vec::new(),
    });
    Flow::Need(Need::Upstream)
}

fn passed_call(exchange: &mut Exchange, call: Call) {
    exchange.upstream.get_or_insert_default().call = Some(call);
}

/// Makes the value the response, with the type that its name has.
fn take(exchange: &mut Exchange, context: &mut Context) -> Flow {
    let Some(passed) = &exchange.upstream else { return Flow::Status(Status::INTERNAL_SERVER_ERROR) };
    if passed.response.status == Status::NOT_FOUND {
        let key = passed.call.as_ref().map_or(&b""[..], |call| &call.head);
        let key = key.strip_prefix(b"get ").unwrap_or(key).trim_ascii_end();
        let shown = String::from_utf8_lossy(key);
        exchange.log(context, Level::Info, format_args!("key: \"{shown}\" was not found by memcached"));
        return Flow::Status(Status::NOT_FOUND);
    }
    let length = passed.length.unwrap_or(0);
    let flags = passed.response.fields.named(FLAGS_FIELD).next();
    let flags = flags.and_then(crate::base::ascii::parse_u64).unwrap_or(0);
    let settings = context.site.settings(exchange.location);
    let response = &mut exchange.response;
    response.status = Status::OK;
    if response.content_type.is_none() {
        let media_type = settings.types.of_path(&exchange.uri, settings.core.strict);
        if !media_type.is_empty() {
            response.set_content_type(media_type);
        }
    }
    if flags & u64::from(settings.memcached.gzip_flag) != 0 {
        response.fields.push_known(FieldName::ContentEncoding, b"gzip");
    }
    response.set_content_length(length);
    exchange.allow_ranges = true;
    exchange.body = Body::Upstream(Some(length));
    Flow::Respond
}
