//! Lines of the error log about a request, with nginx's tail: who the client is, which server, what it asked for.

use std::fmt;
use std::io::Write;
use std::net::SocketAddr;

use crate::base::cidr::PeerAddress;
use crate::base::level::Level;
use crate::base::log::{self, ErrorTarget, ErrorTargets, LineWriter};
use crate::message::{FieldName, Version};

use super::context::{Context, Env};
use super::exchange::{ConnectionFacts, Endpoint, Exchange};
use super::file::FileFailure;
use super::site::{LocationId, Site};
use super::upstream_log;

impl Exchange {
    /// Logs a message about this request where its scope's `error_log`s take the level; else nothing is formatted.
    /// The line is `message, client: 1.2.3.4, server: name, request: "GET / HTTP/1.1", host: "name"`, with
    /// `upstream` where it is passed on and `referrer` where the request has one. The sinks escape control bytes and put
    /// the connection's number in front.
    pub fn log(&self, context: &mut Context, level: Level, message: fmt::Arguments<'_>) {
        let site = context.site;
        let scope = site.settings(self.location).log.error.as_ref();
        let targets = scope.unwrap_or(&site.error_log);
        if log::admits(targets, level) {
            self.push_error(context, targets, level, message);
        } else if !site.debug_connections.is_empty() && site.debug_connections.contains(self.peer_address()) {
            // `debug_connection`: every log takes every line of this client.
            let all: Vec<ErrorTarget> =
                targets.iter().map(|target| ErrorTarget { level: Level::Debug, ..*target }).collect();
            self.push_error(context, &all.into(), level, message);
        }
    }

    fn push_error(
        &self,
        context: &mut Context,
        targets: &ErrorTargets,
        level: Level,
        message: fmt::Arguments<'_>,
    ) {
        let server = &context.site.server(self.server).name;
        context.env.logs.push_with(targets, level, Some(self.connection.number), |line| {
            // A line that is cut reports an error here, which is no news.
            let _ = line.write_fmt(message);
            self.push_tail(server, line);
        });
    }

    fn push_tail(&self, server: &[u8], line: &mut LineWriter<'_>) {
        line.push(b", client: ");
        match &self.connection.peer {
            Endpoint::Inet(SocketAddr::V4(address)) => drop(write!(line, "{}", address.ip())),
            Endpoint::Inet(SocketAddr::V6(address)) => drop(write!(line, "{}", address.ip())),
            Endpoint::Unix(_) => line.push(b"unix:"),
        }
        line.push(b", server: ");
        line.push(server);
        let head = &self.head;
        let request = head.text(head.request_line);
        if !request.is_empty() {
            push_quoted(line, b", request: \"", request);
        }
        upstream_log::push_upstream(self, line);
        let host = match head.field(FieldName::Host) {
            None if head.version >= Version::Http2 && !head.authority.is_empty() => {
                Some(head.text(head.authority))
            }
            host => host,
        };
        if let Some(host) = host {
            push_quoted(line, b", host: \"", host);
        }
        if let Some(referrer) = head.field(FieldName::Referer) {
            push_quoted(line, b", referrer: \"", referrer);
        }
        upstream_log::push_failed_attempts(self, line);
    }

    /// The client's address, for lists of addresses.
    pub fn peer_address(&self) -> PeerAddress {
        match &self.connection.peer {
            Endpoint::Inet(address) => PeerAddress::Ip(address.ip()),
            Endpoint::Unix(_) => PeerAddress::Unix,
        }
    }
}

impl Exchange {
    /// The same from the shell, which has no context at hand.
    pub fn log_in_scope(&self, env: &mut Env, level: Level, message: fmt::Arguments<'_>) {
        let site = self.site.clone();
        self.log(&mut Context { site: &site, env }, level, message);
    }

    /// Logs why a head or body was refused; `phase` is what was being read.
    pub fn log_refusal(&self, env: &mut Env, message: &[u8], phase: &str) {
        let message = String::from_utf8_lossy(message);
        self.log_in_scope(env, Level::Info, format_args!("{message} while {phase}"));
    }

    /// Logs field lines that were skipped for their names.
    pub fn log_ignored_lines(&self, env: &mut Env) {
        let line = String::from_utf8_lossy(self.head.text(self.head.ignored_line)).into_owned();
        self.log_in_scope(env, Level::Info, format_args!("client sent invalid header line: \"{line}\""));
    }

    /// Logs that a file ended before the length that was announced.
    pub fn log_truncated(&self, env: &mut Env) {
        let path = String::from_utf8_lossy(&self.path).into_owned();
        self.log_in_scope(env, Level::Alert, format_args!("file \"{path}\" was truncated while it was sent"));
    }

    /// Logs that the rest of a file, which was closed while the client gave no window, cannot be sent: it could not be
    /// opened again, or what is there now is another version.
    pub fn log_not_again(&self, env: &mut Env, failure: Option<FileFailure>) {
        let path = String::from_utf8_lossy(&self.path).into_owned();
        let when = "while the client gave no window, and its response ends here";
        match failure {
            None => self.log_in_scope(env, Level::Error, format_args!("file \"{path}\" was replaced {when}")),
            Some(failure) => {
                let why = failure.error_text();
                let message =
                    format_args!("file \"{path}\" was closed and cannot be opened again ({why}) {when}");
                self.log_in_scope(env, Level::Error, message);
            }
        }
    }
}

/// Logs about a connection outside of any request, by the default server of its address.
pub fn log_connection(
    site: &Site,
    root: LocationId,
    facts: &ConnectionFacts,
    env: &mut Env,
    level: Level,
    message: fmt::Arguments<'_>,
) {
    let targets = site.settings(root).log.error.as_ref().unwrap_or(&site.error_log);
    env.logs.push_with(targets, level, Some(facts.number), |line| {
        // A line that is cut reports an error here, which is no news.
        let _ = line.write_fmt(message);
        line.push(b", client: ");
        match &facts.peer {
            Endpoint::Inet(address) => drop(write!(line, "{}", address.ip())),
            Endpoint::Unix(_) => line.push(b"unix:"),
        }
        line.push(b", server: ");
        match &facts.local {
            Endpoint::Inet(address) => drop(write!(line, "{address}")),
            Endpoint::Unix(path) => {
                line.push(b"unix:");
                line.push(path);
            }
        }
    });
}

fn push_quoted(line: &mut LineWriter<'_>, name: &[u8], text: &[u8]) {
    line.push(name);
    line.push(text);
    line.push(b"\"");
}
