//! Regular expressions of the configuration against texts of a request: captures and named groups.

use crate::base::level::Level;
use crate::conf::template::VariableId;
use crate::message::Status;

use super::build::SiteRegex;
use super::context::Context;
use super::exchange::Exchange;
use super::server_names::ServerNames;
use super::site::{LocationId, ServerId};
use super::variables::Source;

/// Whether `regex` matches `subject`. If it does, `$1` to `$9` and the variables of its named groups are set; if not,
/// they stay what they were. A match that reached its bound counts as none.
pub fn matches(exchange: &mut Exchange, context: &mut Context, regex: &SiteRegex, subject: &[u8]) -> bool {
    try_match(exchange, context, regex, subject).unwrap_or(false)
}

/// The same, with 500 for a match that reached its bound, where nginx refuses the request.
pub fn try_match(
    exchange: &mut Exchange,
    context: &mut Context,
    regex: &SiteRegex,
    subject: &[u8],
) -> Result<bool, Status> {
    match regex.regex.captures_into(subject, &mut exchange.captures) {
        Ok(false) => Ok(false),
        Ok(true) => {
            if regex.regex.group_count() > 0 {
                exchange.capture_subject.clear();
                exchange.capture_subject.extend_from_slice(subject);
                exchange.keep_named_captures(context, &regex.named);
            }
            Ok(true)
        }
        Err(error) => {
            exchange.log(
                context,
                Level::Alert,
                format_args!(
                    "{error} on \"{}\" using \"{}\"",
                    String::from_utf8_lossy(subject),
                    String::from_utf8_lossy(regex.regex.pattern())
                ),
            );
            Err(Status::INTERNAL_SERVER_ERROR)
        }
    }
}

impl Exchange {
    /// The text of `$1` to `$9`; empty for a group that took no part.
    pub fn capture(&self, number: u8) -> &[u8] {
        self.captures.text(usize::from(number), &self.capture_subject).unwrap_or(b"")
    }

    /// Forgets `$1` to `$9`.
    pub fn forget_captures(&mut self) {
        self.captures.clear();
        self.capture_subject.clear();
    }

    /// Gives the variables of named groups their texts; those of groups that took no part become empty.
    fn keep_named_captures(&mut self, context: &Context, named: &[(VariableId, u16)]) {
        for (id, group) in named {
            let slot = match context.site.variables.list[id.0 as usize].source {
                Source::Met(slot) | Source::Computed(_, Some(slot)) | Source::Builtin(_, Some(slot)) => slot,
                _ => continue,
            };
            let subject = std::mem::take(&mut self.capture_subject);
            let captures = std::mem::take(&mut self.captures);
            self.keep(slot, Some(captures.text(usize::from(*group), &subject).unwrap_or(b"")));
            self.captures = captures;
            self.capture_subject = subject;
        }
    }

    /// After a regular expression has chosen `location`: its captures (in place already) are those of the URI.
    pub fn take_captures_of_uri(&mut self, context: &Context, location: LocationId) {
        self.capture_subject.clear();
        self.capture_subject.extend_from_slice(&self.uri);
        let site = context.site;
        self.keep_named_captures(context, &site.location(location).named_captures);
    }

    /// The server that answers for the request's host; `None` for the default server. 500 for a regular expression
    /// that reached its bound.
    pub fn find_server(
        &mut self,
        context: &mut Context,
        names: &ServerNames<ServerId>,
    ) -> Result<Option<ServerId>, Status> {
        let found = match names.find(self.head.text(self.head.host), &mut self.captures) {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(None),
            Err(error) => {
                let host = String::from_utf8_lossy(self.host()).into_owned();
                self.log(context, Level::Alert, format_args!("{error} on \"{host}\" using a server name"));
                return Err(Status::INTERNAL_SERVER_ERROR);
            }
        };
        if let Some((number, _)) = found.regex {
            self.capture_subject.clear();
            self.capture_subject.extend_from_slice(self.head.text(self.head.host));
            let site = context.site;
            let address = &site.addresses[self.address.0 as usize];
            if let Some(named) = address.name_captures.get(number) {
                self.keep_named_captures(context, named);
            }
        }
        Ok(Some(found.target))
    }

    /// What `set` does: gives a variable its value for the rest of the request.
    pub fn assign(&mut self, id: VariableId, context: &mut Context, value: &[u8]) {
        let variable = &context.site.variables.list[id.0 as usize];
        if let Some(assign) = variable.assign {
            assign(self, context, value);
            return;
        }
        if let Source::Assigned(slot)
        | Source::Met(slot)
        | Source::Computed(_, Some(slot))
        | Source::Builtin(_, Some(slot)) = variable.source
        {
            self.keep(slot, Some(value));
        }
    }

    /// A variable was read that nothing has assigned; it is empty from then on.
    pub fn warn_uninitialized(&mut self, context: &mut Context, name: &str) {
        if context.site.settings(self.location).rewrite.uninitialized_variable_warn {
            self.log(context, Level::Warn, format_args!("using uninitialized \"{name}\" variable"));
        }
    }

    /// Renders one variable into a scratch buffer and hands the text to `then`; a variable without a value is empty.
    pub fn with_variable<R>(
        &mut self,
        id: VariableId,
        context: &mut Context,
        then: impl FnOnce(&mut Exchange, &mut Context, &[u8]) -> R,
    ) -> R {
        let mut text = context.env.scratch();
        self.variable(id, context, &mut text);
        let result = then(self, context, &text);
        context.env.give_back(text);
        result
    }
}
