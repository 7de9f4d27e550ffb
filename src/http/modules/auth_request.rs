//! `auth_request`: a subrequest decides who may; `forward_auth`: the same with a service of its own, whose answers reach
//! the client as they are.

use std::sync::Arc;

use crate::base::level::Level;
use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::template::{Template, VariableId};
use crate::http::build::Scope;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::flow::{Answer, Need};
use crate::http::modules::access::Verdict;
use crate::http::settings::contexts::HTTP_SERVER_LOCATION;
use crate::http::settings::settings;
use crate::http::subrequest::Order;
use crate::message::Status;

settings! {
    module auth_request;
    fields {
        /// The path that is asked; a status of 2xx lets requests pass, 401 and 403 refuse them.
        target: Option<Arc<[u8]>> = None, inherit;
            "auth_request" HTTP_SERVER_LOCATION, Arity::exactly(1), default "off", once target;
        /// Variables that get values of the subrequest's.
        assignments: Assignments = Assignments::default(), inherit;
            "auth_request_set" HTTP_SERVER_LOCATION, Arity::exactly(2), default "", with add_assignment;
    }
}

/// `auth_request_set`s of one scope, in order.
#[derive(Clone, Debug, Default)]
pub struct Assignments(Arc<Vec<(VariableId, Template)>>);

fn target(_: &mut Scope, call: &Call) -> Result<Option<Arc<[u8]>>, Complaint> {
    let text = call.arg(0).as_bytes();
    Ok((text != b"off").then(|| text.into()))
}

fn add_assignment(
    scope: &mut Scope,
    call: &Call,
    slot: &mut Option<Assignments>,
) -> Result<(), Complaint> {
    let word = call.arg(0);
    let Some(variable) = scope.builder.variable_name(word) else {
        return Err(Complaint::new(format!("invalid variable name \"{}\"", word.lossy())).at(word));
    };
    scope.builder.define_met(variable).map_err(|complaint| complaint.at(word))?;
    let value = scope.builder.template(call.arg(1))?;
    Arc::make_mut(&mut slot.get_or_insert_default().0).push((variable, value));
    Ok(())
}

/// The check of the access phase.
pub fn by_subrequest(exchange: &mut Exchange, context: &mut Context, answer: Option<Answer>) -> Verdict {
    let site = context.site;
    let settings = &site.settings(exchange.location).auth_request;
    let Some(target) = &settings.target else { return Verdict::Abstain };
    let Some(Answer::Subrequest(result)) = answer else {
        exchange.order = Some(Box::new(Order { head_only: true, ..Order::for_target(target) }));
        return Verdict::Need(Need::Subrequest);
    };
    let Some(mut asked) = result else {
        return Verdict::Refuse(Status::INTERNAL_SERVER_ERROR);
    };
    for (variable, value) in settings.assignments.0.iter() {
        let mut text = context.env.scratch();
        asked.render(value, context, &mut text);
        exchange.assign(*variable, context, &text);
        context.env.give_back(text);
    }
    match asked.response.status {
        Status(200..=299) => Verdict::Allow,
        Status::UNAUTHORIZED => {
            copy_lines(&asked, exchange, b"WWW-Authenticate");
            Verdict::Refuse(Status::UNAUTHORIZED)
        }
        Status::FORBIDDEN => Verdict::Forbid,
        Status(code) => {
            exchange.log(context, Level::Error, format_args!("auth request unexpected status: {code}"));
            Verdict::Refuse(Status::INTERNAL_SERVER_ERROR)
        }
    }
}

fn copy_lines(from: &Exchange, to: &mut Exchange, wanted: &[u8]) {
    for (_, name, value) in from.response.fields.iter() {
        if name.eq_ignore_ascii_case(wanted) {
            to.response.fields.push(name, value);
        }
    }
}
