//! `forward_auth`, ours: a service of its own is asked who may, as Traefik and Caddy do it. What it answers with 2xx lets
//! the request pass, and fields of that answer may go on with it; an answer of 3xx or 4xx reaches the client as it is, a
//! login page or a redirect to one.
//!
//! The directive makes a location of its own that only its subrequests reach, with `proxy_pass` in it: whatever
//! `proxy_*` directives say around it holds for the question, too.

use std::sync::Arc;

use crate::base::level::Level;
use crate::conf::context::Context as Place;
use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::tree::Directive;
use crate::http::build::Scope;
use crate::http::build::add_hidden_scope;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::flow::{Answer, Need};
use crate::http::modules::access::Verdict;
use crate::http::settings::settings;
use crate::http::site::LocationId;
use crate::http::subrequest::Order;
use crate::message::Status;

settings! {
    module forward_auth;
    fields {
        /// Asks a service whether requests may pass: its URL, and `copy=` fields of its answer that go on with them.
        service: Option<Service> = None, inherit;
            "forward_auth" Place::SERVER.union(Place::LOCATION), Arity::at_least(1), default "off", once service;
    }
}

/// `forward_auth`
#[derive(Clone, Debug)]
pub struct Service {
    location: LocationId,
    copied: Arc<[Box<[u8]>]>,
}

/// What the service is told, beside what the client sent.
const QUESTION: &[&[&str]] = &[
    &["internal"],
    &["proxy_method", "GET"],
    &["proxy_pass_request_body", "off"],
    &["proxy_set_header", "Content-Length", ""],
    &["proxy_set_header", "X-Forwarded-Method", "$request_method"],
    &["proxy_set_header", "X-Forwarded-Proto", "$scheme"],
    &["proxy_set_header", "X-Forwarded-Host", "$http_host"],
    &["proxy_set_header", "X-Forwarded-Uri", "$request_uri"],
    &["proxy_set_header", "X-Forwarded-For", "$proxy_add_x_forwarded_for"],
];

fn service(scope: &mut Scope, call: &Call) -> Result<Option<Service>, Complaint> {
    let (url, rest) = (call.arg(0), &call.args()[1..]);
    if url.as_bytes() == b"off" && rest.is_empty() {
        return Ok(None);
    }
    let mut copied = Vec::new();
    for word in rest {
        let Some(names) = word.as_bytes().strip_prefix(b"copy=") else {
            return Err(Complaint::invalid_parameter(word));
        };
        for name in names.split(|byte| *byte == b',') {
            if name.is_empty() || !name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte)) {
                return Err(Complaint::invalid_parameter(word).help("names of fields, with commas between them"));
            }
            copied.push(name.into());
        }
    }
    let mut block: Vec<Directive> = QUESTION.iter().map(|words| call.directive.made_of(words)).collect();
    block.push(call.directive.with_arguments("proxy_pass", std::slice::from_ref(url)));
    Ok(Some(Service { location: add_hidden_scope(scope, call, &block), copied: copied.into() }))
}

/// The check of the access phase.
pub fn by_service(exchange: &mut Exchange, context: &mut Context, answer: Option<Answer>) -> Verdict {
    let site = context.site;
    let Some(service) = &site.settings(exchange.location).forward_auth.service else { return Verdict::Abstain };
    let Some(Answer::Subrequest(result)) = answer else {
        let location = Some(service.location);
        exchange.order = Some(Box::new(Order { location, captured: true, ..Order::for_target(b"/") }));
        return Verdict::Need(Need::Subrequest);
    };
    let Some(mut asked) = result else {
        return Verdict::Refuse(Status::INTERNAL_SERVER_ERROR);
    };
    match asked.response.status {
        Status(200..=299) => {
            for name in service.copied.iter() {
                // A client's own is never taken for the service's.
                exchange.head.replace(name, asked.response.fields.named(name));
            }
            Verdict::Allow
        }
        Status(300..=499) => {
            std::mem::swap(&mut exchange.response, &mut asked.response);
            exchange.body = std::mem::take(&mut asked.body);
            exchange.response.set_content_length(exchange.body.len());
            Verdict::Answer
        }
        Status(code) => {
            exchange.log(context, Level::Error, format_args!("forward auth unexpected status: {code}"));
            Verdict::Refuse(Status::INTERNAL_SERVER_ERROR)
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::http::testing::complaints;

    #[test]
    fn wrong_parameters_are_named() {
        assert_eq!(complaints("server { forward_auth http://127.0.0.1:1/x copy=A,B-C copy=D; }"), [""; 0]);
        for (text, complaint) in [
            ("server { forward_auth http://127.0.0.1:1/x body; }", "[emerg] invalid parameter \"body\""),
            ("server { forward_auth http://127.0.0.1:1/x copy=A,; }", "[emerg] invalid parameter \"copy=A,\""),
            ("server { forward_auth nowhere; }", "[emerg] invalid URL prefix"),
        ] {
            let told = complaints(text);
            assert!(told.first().is_some_and(|line| line.starts_with(complaint)), "{text}: {told:?}");
        }
    }
}
