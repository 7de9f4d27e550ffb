//! `mirror`: copies of requests for others, whose answers nobody waits for.

use std::sync::Arc;

use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::template::Template;
use crate::http::build::Scope;
use crate::http::build::arguments::flag;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::flow::{Answer, Flow, Need};
use crate::http::settings::contexts::HTTP_SERVER_LOCATION;
use crate::http::settings::settings;
use crate::http::subrequest::Order;

settings! {
    module mirror;
    fields {
        /// Where copies of requests go.
        targets: Targets = Targets::default(), inherit;
            "mirror" HTTP_SERVER_LOCATION, Arity::exactly(1), default "off", with add_target;
        /// Whether the copies have the request's body, which is read first then.
        with_body: bool = true, inherit;
            "mirror_request_body" HTTP_SERVER_LOCATION, Arity::FLAG, default "on", once flag;
    }
}

/// `mirror`s of one scope.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    list: Arc<Vec<Template>>,
    is_off: bool,
}

fn add_target(scope: &mut Scope, call: &Call, slot: &mut Option<Targets>) -> Result<(), Complaint> {
    let is_off = call.arg(0).as_bytes() == b"off";
    if slot.as_ref().is_some_and(|targets| is_off || targets.is_off) {
        return Err(Complaint::new("\"mirror\" directive is duplicate"));
    }
    let target = scope.builder.template(call.arg(0))?;
    let targets = slot.get_or_insert_default();
    targets.is_off = is_off;
    if !is_off {
        Arc::make_mut(&mut targets.list).push(target);
    }
    Ok(())
}

/// Orders the copies, and goes on.
pub fn handle(exchange: &mut Exchange, context: &mut Context, answer: Option<Answer>) -> Flow {
    let site = context.site;
    let settings = &site.settings(exchange.location).mirror;
    if settings.targets.list.is_empty() || exchange.is_subrequest() {
        return Flow::Next;
    }
    match answer {
        None if settings.with_body => return Flow::Need(Need::RequestBody),
        Some(Answer::RequestBody(Err(status))) => return Flow::Status(status),
        _ => {}
    }
    for target in settings.targets.list.iter() {
        let mut order = exchange.with_rendered(target, context, |_, _, text| Order::for_target(text));
        if order.args.is_empty() {
            order.args.clone_from(&exchange.args);
        }
        exchange.background.push(Order {
            keeps_method: true,
            with_body: settings.with_body,
            head_only: true,
            ..order
        });
    }
    Flow::Next
}

#[cfg(test)]
mod tests {
    use crate::http::testing::complaints;

    #[test]
    fn off_stands_alone() {
        assert_eq!(complaints("server { mirror off; } mirror /a; mirror /b;"), [""; 0]);
        assert_eq!(complaints("mirror off; mirror /b;"), ["[emerg] \"mirror\" directive is duplicate"]);
        assert_eq!(complaints("mirror /b; mirror off;"), ["[emerg] \"mirror\" directive is duplicate"]);
    }
}
