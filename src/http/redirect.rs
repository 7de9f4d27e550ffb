//! Redirects: internal ones, named locations, and `Location` fields for the client.

use crate::base::level::Level;
use crate::base::percent;
use crate::message::Status;

use super::context::Context;
use super::exchange::{Endpoint, Exchange};
use super::flow::Flow;
use super::phases::{self, Stage};
use super::site::LocationId;

/// Goes on with the URI as it is now from the server's rewrite program on, as an internal request.
pub fn internal(exchange: &mut Exchange, context: &mut Context) -> Result<(), Status> {
    if !spend_uri_change(exchange) {
        exchange.log(
            context,
            Level::Error,
            format_args!(
                "rewrite or internal redirection cycle while internally redirecting to \"{}\"",
                String::from_utf8_lossy(&exchange.uri.clone())
            ),
        );
        return Err(Status::INTERNAL_SERVER_ERROR);
    }
    exchange.internal = true;
    exchange.forget_slice();
    exchange.uri_is_original = false;
    exchange.uri_fits_location = true;
    exchange.uri_extends_alias = false;
    exchange.content_step = 0;
    exchange.location = context.site.server(exchange.server).root;
    exchange.rewriting.begin();
    exchange.stage = Stage::ServerRewrite;
    Ok(())
}

/// Goes on in a named location with the URI as it is.
pub fn named(exchange: &mut Exchange, context: &mut Context, location: LocationId) -> Result<(), Status> {
    if !spend_uri_change(exchange) {
        exchange.log(
            context,
            Level::Error,
            format_args!(
                "rewrite or internal redirection cycle while redirect to named location \"{}\"",
                String::from_utf8_lossy(&context.site.location(location).name)
            ),
        );
        return Err(Status::INTERNAL_SERVER_ERROR);
    }
    exchange.internal = true;
    exchange.forget_slice();
    exchange.content_step = 0;
    exchange.uri_extends_alias = false;
    phases::enter(exchange, context, location);
    exchange.rewriting.begin();
    exchange.stage = Stage::Rewrite;
    Ok(())
}

/// Counts one change of the URI; `false` if there were too many.
pub fn spend_uri_change(exchange: &mut Exchange) -> bool {
    exchange.uri_changes_left = exchange.uri_changes_left.saturating_sub(1);
    exchange.uri_changes_left > 0
}

/// Finds a named location of the request's server.
pub fn find_named(exchange: &mut Exchange, context: &mut Context, name: &[u8]) -> Flow {
    match context.site.server(exchange.server).named.get(name) {
        Some(location) => Flow::NamedLocation(*location),
        None => {
            exchange.log(
                context,
                Level::Error,
                format_args!("could not find named location \"{}\"", String::from_utf8_lossy(name)),
            );
            Flow::Status(Status::INTERNAL_SERVER_ERROR)
        }
    }
}

/// Splits `uri?args` and makes it the request's URI.
pub fn set_uri(exchange: &mut Exchange, target: &[u8]) {
    let (uri, args) = match memchr::memchr(b'?', target) {
        Some(mark) => (&target[..mark], &target[mark + 1..]),
        None => (target, &b""[..]),
    };
    exchange.uri.clear();
    exchange.uri.extend_from_slice(uri);
    exchange.args.clear();
    exchange.args.extend_from_slice(args);
    exchange.uri_is_original = false;
}

/// 301 to the present URI with a slash at its end.
pub fn add_slash(exchange: &mut Exchange, context: &mut Context) -> Flow {
    let mut location = context.env.scratch();
    percent::escape(&mut location, &exchange.uri, percent::Escape::Uri);
    location.push(b'/');
    if !exchange.args.is_empty() {
        location.push(b'?');
        location.extend_from_slice(&exchange.args);
    }
    set_location(exchange, context, &location);
    context.env.give_back(location);
    Flow::Status(Status::MOVED_PERMANENTLY)
}

/// Sets `Location`; one that begins with a slash becomes absolute as `absolute_redirect`, `server_name_in_redirect`
/// and `port_in_redirect` say.
pub fn set_location(exchange: &mut Exchange, context: &mut Context, target: &[u8]) {
    let core = &exchange.scope(context).settings.core;
    if !target.starts_with(b"/") || !core.absolute_redirect {
        exchange.response.set_location(target);
        return;
    }
    let mut absolute = context.env.scratch();
    absolute.extend_from_slice(if exchange.connection.secure { b"https://" } else { b"http://" });
    append_redirect_host(exchange, context, &mut absolute);
    if core.port_in_redirect
        && let Endpoint::Inet(local) = &exchange.connection.local
    {
        let usual = if exchange.connection.secure { 443 } else { 80 };
        if local.port() != usual {
            absolute.push(b':');
            absolute.extend_from_slice(itoa::Buffer::new().format(local.port()).as_bytes());
        }
    }
    absolute.extend_from_slice(target);
    exchange.response.set_location(&absolute);
    context.env.give_back(absolute);
}

fn append_redirect_host(exchange: &Exchange, context: &Context, out: &mut Vec<u8>) {
    if exchange.scope(context).settings.core.server_name_in_redirect {
        out.extend_from_slice(&context.site.server(exchange.server).name);
    } else if !exchange.host().is_empty() {
        out.extend_from_slice(exchange.host());
    } else {
        append_local_address(exchange, out);
    }
}

/// Appends our own address (`$server_addr`), as nginx names a server that the client did not name.
pub fn append_local_address(exchange: &Exchange, out: &mut Vec<u8>) {
    use std::io::Write;
    let result = match &exchange.connection.local {
        Endpoint::Inet(std::net::SocketAddr::V4(address)) => write!(out, "{}", address.ip()),
        Endpoint::Inet(std::net::SocketAddr::V6(address)) => write!(out, "[{}]", address.ip()),
        Endpoint::Unix(path) => {
            out.extend_from_slice(b"unix:");
            out.extend_from_slice(path);
            Ok(())
        }
    };
    debug_assert!(result.is_ok(), "writing to memory does not fail");
}
