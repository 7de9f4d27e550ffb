//! `post_action`: another location sees the request once it is over, and the client nothing of that.

use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::template::Template;
use crate::http::body::Body;
use crate::http::build::Scope;
use crate::http::build::arguments::template;
use crate::http::context::{Context, Env};
use crate::http::exchange::Exchange;
use crate::http::flow::Flow;
use crate::http::redirect;
use crate::http::settings::contexts::HTTP_SERVER_LOCATION_IF;
use crate::http::settings::settings;
use crate::http::subrequest::Lineage;

settings! {
    module post_action;
    fields {
        /// Where requests go once they are over: a path, or a named location.
        target: Option<Template> = None, inherit;
            "post_action" HTTP_SERVER_LOCATION_IF, Arity::exactly(1), default "off", once target;
    }
}

fn target(scope: &mut Scope, call: &Call) -> Result<Option<Template>, Complaint> {
    let target = template(scope, call)?;
    Ok((target.as_literal() != Some(b"off")).then_some(target))
}

impl Exchange {
    /// Makes a request that is over one for its `post_action`, if it has one. What variables say of it stays.
    pub fn begin_post_action(&mut self, env: &mut Env) -> bool {
        let site = self.site.clone();
        let Some(target) = &site.settings(self.location).post_action.target else { return false };
        if self.is_subrequest() {
            return false;
        }
        let mut context = Context { site: &site, env };
        let mut text = context.env.scratch();
        self.render(target, &mut context, &mut text);
        let began = match text.first() {
            Some(b'/') => {
                redirect::set_uri(self, &text);
                redirect::internal(self, &mut context).is_ok()
            }
            _ => match redirect::find_named(self, &mut context, &text) {
                Flow::NamedLocation(location) => redirect::named(self, &mut context, location).is_ok(),
                _ => false,
            },
        };
        context.env.give_back(text);
        self.body = Body::Empty;
        self.error_status = None;
        self.lineage = Some(Lineage { depth: 0, main_is_get: self.method_is_get });
        began
    }
}
